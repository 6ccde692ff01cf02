//! Numbers in Hindi words, with the Indian units: thousand, lakh (10⁵), crore (10⁷) and arab (10⁹).

use crate::normalise::is_digits;

/// The numbers from 0 to 99, each of which has a word of its own.
const SMALL: [&str; 100] = [
    "शून्य",
    "एक",
    "दो",
    "तीन",
    "चार",
    "पाँच",
    "छह",
    "सात",
    "आठ",
    "नौ",
    "दस",
    "ग्यारह",
    "बारह",
    "तेरह",
    "चौदह",
    "पंद्रह",
    "सोलह",
    "सत्रह",
    "अठारह",
    "उन्नीस",
    "बीस",
    "इक्कीस",
    "बाईस",
    "तेईस",
    "चौबीस",
    "पच्चीस",
    "छब्बीस",
    "सत्ताईस",
    "अट्ठाईस",
    "उनतीस",
    "तीस",
    "इकतीस",
    "बत्तीस",
    "तैंतीस",
    "चौंतीस",
    "पैंतीस",
    "छत्तीस",
    "सैंतीस",
    "अड़तीस",
    "उनतालीस",
    "चालीस",
    "इकतालीस",
    "बयालीस",
    "तैंतालीस",
    "चौवालीस",
    "पैंतालीस",
    "छियालीस",
    "सैंतालीस",
    "अड़तालीस",
    "उनचास",
    "पचास",
    "इक्यावन",
    "बावन",
    "तिरपन",
    "चौवन",
    "पचपन",
    "छप्पन",
    "सत्तावन",
    "अट्ठावन",
    "उनसठ",
    "साठ",
    "इकसठ",
    "बासठ",
    "तिरसठ",
    "चौंसठ",
    "पैंसठ",
    "छियासठ",
    "सड़सठ",
    "अड़सठ",
    "उनहत्तर",
    "सत्तर",
    "इकहत्तर",
    "बहत्तर",
    "तिहत्तर",
    "चौहत्तर",
    "पचहत्तर",
    "छिहत्तर",
    "सतहत्तर",
    "अठहत्तर",
    "उन्यासी",
    "अस्सी",
    "इक्यासी",
    "बयासी",
    "तिरासी",
    "चौरासी",
    "पचासी",
    "छियासी",
    "सत्तासी",
    "अट्ठासी",
    "नवासी",
    "नब्बे",
    "इक्यानवे",
    "बानवे",
    "तिरानवे",
    "चौरानवे",
    "पंचानवे",
    "छियानवे",
    "सत्तानवे",
    "अट्ठानवे",
    "निन्यानवे",
];

/// The units above a hundred, from the largest on.
const UNITS: [(u64, &str); 5] =
    [(1_000_000_000, "अरब"), (10_000_000, "करोड़"), (100_000, "लाख"), (1_000, "हज़ार"), (100, "सौ")];

/// The largest number that has words: less than a hundred arab.
pub(super) const MAX: u64 = 99_999_999_999;

/// Returns the word of a number below 100, otherwise an empty string.
pub(super) fn small(number: u64) -> &'static str {
    usize::try_from(number).ok().and_then(|number| SMALL.get(number)).copied().unwrap_or_default()
}

/// Returns the words of a number up to [`MAX`].
pub(super) fn cardinal(number: u64) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = number.min(MAX);
    for (unit, name) in UNITS {
        if rest >= unit {
            words.extend([small(rest / unit), name]);
            rest %= unit;
        }
    }
    if rest > 0 || words.is_empty() {
        words.push(small(rest));
    }
    words.join(" ")
}

/// Returns the words of a year: hundreds from 1100 to 1999, otherwise a number.
pub(super) fn year(year: u64) -> String {
    match (year / 100, year % 100) {
        (century @ 11..=19, 0) => format!("{} सौ", small(century)),
        (century @ 11..=19, rest) => format!("{} सौ {}", small(century), small(rest)),
        _ => cardinal(year),
    }
}

/// Returns the digits of a text, one by one. Other characters are left out.
pub(super) fn digits(text: &str) -> String {
    let words: Vec<&str> =
        text.chars().filter_map(|c| c.to_digit(10)).map(|digit| small(digit.into())).collect();
    words.join(" ")
}

/// Returns the words of a quantity: digits, with commas between groups and at most one decimal
/// point. Numbers that are codes, because they begin with 0 or are too long, are read digit by
/// digit. Returns `None` for other text.
pub(super) fn quantity(text: &str) -> Option<String> {
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text, None),
    };
    let grouped = whole.contains(',');
    let plain: String = whole.chars().filter(|c| *c != ',').collect();
    if !is_digits(&plain) || whole.starts_with(',') || !decimals.is_none_or(is_digits) {
        return None;
    }
    let is_code = (plain.len() > 1 && plain.starts_with('0')) || (plain.len() > 7 && !grouped);
    let mut words = match plain.parse() {
        Ok(number) if number <= MAX && !is_code => cardinal(number),
        _ => digits(&plain),
    };
    if let Some(decimals) = decimals {
        words.push_str(" दशमलव ");
        words.push_str(&digits(decimals));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{MAX, SMALL, cardinal, quantity, year};

    #[test]
    fn every_number_below_a_hundred_has_a_word_of_its_own() {
        let mut words = SMALL.to_vec();
        words.sort_unstable();
        words.dedup();
        // 46 and 86 differ in their last syllable only.
        assert_eq!(words.len(), 100);
    }

    #[rstest]
    #[case(0, "शून्य")]
    #[case(100, "एक सौ")]
    #[case(1_250, "एक हज़ार दो सौ पचास")]
    #[case(125_000, "एक लाख पच्चीस हज़ार")]
    #[case(30_000_001, "तीन करोड़ एक")]
    #[case(MAX, "निन्यानवे अरब निन्यानवे करोड़ निन्यानवे लाख निन्यानवे हज़ार नौ सौ निन्यानवे")]
    fn numbers_have_indian_units(#[case] number: u64, #[case] words: &str) {
        assert_eq!(cardinal(number), words);
    }

    #[rstest]
    #[case(1947, "उन्नीस सौ सैंतालीस")]
    #[case(1900, "उन्नीस सौ")]
    #[case(2026, "दो हज़ार छब्बीस")]
    fn years_have_hundreds(#[case] number: u64, #[case] words: &str) {
        assert_eq!(year(number), words);
    }

    #[rstest]
    #[case("1,25,000", Some("एक लाख पच्चीस हज़ार"))]
    #[case("2.50", Some("दो दशमलव पाँच शून्य"))]
    #[case("007", Some("शून्य शून्य सात"))]
    #[case("98765432", Some("नौ आठ सात छह पाँच चार तीन दो"))]
    #[case(
        "99999999999999999999",
        Some("नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ नौ")
    )]
    #[case(",5", None)]
    #[case("1.2.3", None)]
    #[case("", None)]
    #[case("१२", None)]
    fn quantities_are_read(#[case] text: &str, #[case] words: Option<&str>) {
        assert_eq!(quantity(text).as_deref(), words);
    }
}
