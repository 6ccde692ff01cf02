//! English words for numbers.

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const WESTERN: [(u64, &str); 4] = [
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
];
const INDIAN: [(u64, &str); 3] = [(10_000_000, "crore"), (100_000, "lakh"), (1_000, "thousand")];
/// Maximum number of digits that are read as a number. Longer ones are read digit by digit.
const DIGITS_MAX: usize = 15;

/// The way of reading numbers in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberStyle {
    /// Whether to read "one hundred and five" instead of "one hundred five".
    pub(super) with_and: bool,
    /// Whether to use lakh and crore instead of million and billion.
    pub(super) indian: bool,
}

/// A number in digits, such as `-1,250.50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<'a> {
    pub(crate) negative: bool,
    pub(crate) integer: u64,
    /// The integer part as written, with separators.
    pub(crate) written: &'a str,
    /// The digits after the decimal point.
    pub(crate) fraction: Option<&'a str>,
    /// Whether the digits are grouped as in `1,25,000`.
    pub(crate) indian: bool,
}

impl<'a> Number<'a> {
    /// Parses digits with optional sign, grouping and decimals. Returns `None` for other text.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (negative, text) =
            text.strip_prefix(['-', '−']).map_or((false, text), |rest| (true, rest));
        let (written, fraction) = match text.split_once('.') {
            Some((integer, fraction)) => (integer, Some(fraction)),
            None => (text, None),
        };
        if fraction.is_some_and(|digits| !is_digits(digits) || digits.len() > DIGITS_MAX) {
            return None;
        }
        let indian = match Grouping::of(written)? {
            Grouping::None | Grouping::Thousands => false,
            Grouping::Indian => true,
        };
        let digits: String = written.chars().filter(char::is_ascii_digit).collect();
        if digits.len() > DIGITS_MAX {
            return None;
        }
        // `.5` has no integer part.
        let integer = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        if written.is_empty() && fraction.is_none() {
            return None;
        }
        Some(Self { negative, integer, written, fraction, indian })
    }

    /// Returns `true` if the integer part has separators.
    pub(super) fn is_grouped(&self) -> bool {
        self.written.contains(',')
    }

    /// Returns `true` if the number is exactly one, which requires the singular.
    pub(super) fn is_one(&self) -> bool {
        self.integer == 1 && self.fraction.is_none()
    }

    /// Reads the number: "minus one thousand two hundred fifty point five zero".
    pub(super) fn words(&self, style: NumberStyle) -> String {
        let style = NumberStyle { indian: style.indian || self.indian, ..style };
        let mut words = String::new();
        if self.negative {
            words.push_str("minus ");
        }
        words.push_str(&cardinal(self.integer, style));
        if let Some(fraction) = self.fraction {
            words.push_str(" point ");
            words.push_str(&digits(fraction));
        }
        words
    }
}

enum Grouping {
    None,
    /// Groups as in `1,250,000`.
    Thousands,
    /// Groups as in `12,50,000`.
    Indian,
}

impl Grouping {
    fn of(integer: &str) -> Option<Self> {
        if integer.is_empty() || is_digits(integer) {
            return Some(Self::None);
        }
        let groups: Vec<&str> = integer.split(',').collect();
        let (first, rest) = groups.split_first()?;
        let (last, middle) = rest.split_last()?;
        let all_digits = groups.iter().all(|group| is_digits(group));
        if !all_digits || last.len() != 3 || first.len() > 3 {
            None
        } else if middle.iter().all(|group| group.len() == 3) {
            Some(Self::Thousands)
        } else if middle.iter().all(|group| group.len() == 2) && first.len() <= 2 {
            Some(Self::Indian)
        } else {
            None
        }
    }
}

/// Returns `true` if the text consists of ASCII digits and is not empty.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn one(n: u64) -> &'static str {
    usize::try_from(n).ok().and_then(|n| ONES.get(n)).copied().unwrap_or_default()
}

fn below_hundred(n: u64) -> String {
    if n < 20 {
        return one(n).to_owned();
    }
    let tens = usize::try_from(n / 10).ok().and_then(|n| TENS.get(n)).copied().unwrap_or_default();
    match n % 10 {
        0 => tens.to_owned(),
        rest => format!("{tens}-{}", one(rest)),
    }
}

/// Reads a whole number.
pub(super) fn cardinal(n: u64, style: NumberStyle) -> String {
    let scales: &[(u64, &str)] = if style.indian { &INDIAN } else { &WESTERN };
    let mut parts = Vec::new();
    let mut rest = n;
    for &(value, name) in scales {
        let count = rest / value;
        if count > 0 {
            parts.push(format!("{} {name}", cardinal(count, style)));
            rest %= value;
        }
    }
    if rest >= 100 {
        parts.push(format!("{} hundred", one(rest / 100)));
        rest %= 100;
    }
    if rest > 0 || parts.is_empty() {
        if style.with_and && !parts.is_empty() {
            parts.push("and".to_owned());
        }
        parts.push(below_hundred(rest));
    }
    parts.join(" ")
}

/// Reads a number as an ordinal: "twenty-third".
pub(super) fn ordinal(n: u64, style: NumberStyle) -> String {
    let words = cardinal(n, style);
    let at = words.rfind([' ', '-']).map_or(0, |at| at + 1);
    let (head, last) = words.split_at_checked(at).unwrap_or(("", &words));
    let last = match last {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        other => match other.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{other}th"),
        },
    };
    format!("{head}{last}")
}

/// Reads a year: "nineteen oh five", "two thousand six", "twenty twenty-six".
pub(super) fn year(n: u64, style: NumberStyle) -> String {
    let (century, rest) = (n / 100, n % 100);
    if !(1_000..=9_999).contains(&n) || (century.is_multiple_of(10) && rest < 10) {
        return cardinal(n, NumberStyle { indian: false, ..style });
    }
    let century = below_hundred(century);
    match rest {
        0 => format!("{century} hundred"),
        1..=9 => format!("{century} oh {}", one(rest)),
        _ => format!("{century} {}", below_hundred(rest)),
    }
}

/// Reads the digits of a text one by one and omits all other characters.
pub(super) fn digits(text: &str) -> String {
    let words: Vec<&str> =
        text.chars().filter_map(|c| c.to_digit(10)).map(|d| one(u64::from(d))).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Number, NumberStyle, cardinal, ordinal, year};

    const AMERICAN: NumberStyle = NumberStyle { with_and: false, indian: false };
    const BRITISH: NumberStyle = NumberStyle { with_and: true, indian: false };
    const INDIAN: NumberStyle = NumberStyle { with_and: true, indian: true };

    #[rstest]
    #[case(0, AMERICAN, "zero")]
    #[case(21, AMERICAN, "twenty-one")]
    #[case(105, AMERICAN, "one hundred five")]
    #[case(105, BRITISH, "one hundred and five")]
    #[case(1_000, BRITISH, "one thousand")]
    #[case(1_001, BRITISH, "one thousand and one")]
    #[case(1_250_000, AMERICAN, "one million two hundred fifty thousand")]
    #[case(1_250_000, INDIAN, "twelve lakh fifty thousand")]
    #[case(30_000_000, INDIAN, "three crore")]
    #[case(10_000_000_000_000, INDIAN, "ten lakh crore")]
    fn whole_numbers(#[case] n: u64, #[case] style: NumberStyle, #[case] words: &str) {
        assert_eq!(cardinal(n, style), words);
    }

    #[rstest]
    #[case(1, "first")]
    #[case(12, "twelfth")]
    #[case(20, "twentieth")]
    #[case(22, "twenty-second")]
    #[case(100, "one hundredth")]
    #[case(1_003, "one thousand third")]
    fn ranks(#[case] n: u64, #[case] words: &str) {
        assert_eq!(ordinal(n, AMERICAN), words);
    }

    #[rstest]
    #[case(1905, "nineteen oh five")]
    #[case(1900, "nineteen hundred")]
    #[case(2000, "two thousand")]
    #[case(2006, "two thousand six")]
    #[case(2026, "twenty twenty-six")]
    fn years(#[case] n: u64, #[case] words: &str) {
        assert_eq!(year(n, AMERICAN), words);
    }

    #[rstest]
    #[case("1,250", Some("one thousand two hundred fifty"))]
    #[case("1,25,000", Some("one lakh twenty-five thousand"))]
    #[case("-3.14", Some("minus three point one four"))]
    #[case(".5", Some("zero point five"))]
    #[case("1,2", None)]
    #[case("1,23,45", None)]
    #[case("1234567890123456", None)]
    #[case("", None)]
    #[case("-", None)]
    #[case("1.2.3", None)]
    #[case("x", None)]
    fn written_numbers(#[case] text: &str, #[case] words: Option<&str>) {
        assert_eq!(Number::parse(text).map(|n| n.words(AMERICAN)).as_deref(), words);
    }
}
