//! Rewrites Hindi text as words in Devanagari: numbers, amounts of rupees, dates, times, and Latin
//! letters, which are spelled.

use super::numbers;
use crate::normalise::{Time, Token, date_numbers, is_digits};

/// The names of the Latin letters.
const LETTERS: [&str; 26] = [
    "ए",
    "बी",
    "सी",
    "डी",
    "ई",
    "एफ़",
    "जी",
    "एच",
    "आई",
    "जे",
    "के",
    "एल",
    "एम",
    "एन",
    "ओ",
    "पी",
    "क्यू",
    "आर",
    "एस",
    "टी",
    "यू",
    "वी",
    "डब्ल्यू",
    "एक्स",
    "वाई",
    "ज़ेड",
];

const MONTHS: [&str; 12] = [
    "जनवरी",
    "फ़रवरी",
    "मार्च",
    "अप्रैल",
    "मई",
    "जून",
    "जुलाई",
    "अगस्त",
    "सितंबर",
    "अक्टूबर",
    "नवंबर",
    "दिसंबर",
];

/// Returns the text as words in Devanagari, with its punctuation.
pub(super) fn words(text: &str) -> String {
    let text: String = text.chars().map(western_digit).collect();
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let mut output = String::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let Token { open, core, close } = Token::new(token);
        if !output.is_empty() {
            output.push(' ');
        }
        output.push_str(open);
        // An amount may follow its sign after a space: "रु. 500".
        let next = tokens.get(at + 1).map(|next| Token::new(next));
        match next {
            Some(Token { core: amount, close, .. })
                if is_rupee_sign(core) && rupees(amount).is_some() =>
            {
                output.push_str(&rupees(amount).unwrap_or_default());
                output.push_str(close);
                at += 2;
            }
            _ => {
                output.push_str(&word(core));
                output.push_str(close);
                at += 1;
            }
        }
    }
    output
}

/// Returns the western digit for a digit of Devanagari, and other characters unchanged.
fn western_digit(c: char) -> char {
    let digit = u32::from(c).wrapping_sub(u32::from('०'));
    char::from_digit(digit, 10).unwrap_or(c)
}

fn is_rupee_sign(text: &str) -> bool {
    matches!(text, "₹" | "Rs" | "रु" | "रू" | "INR")
}

fn word(core: &str) -> String {
    let sign = ["₹", "Rs.", "Rs", "रु.", "रु"].iter().find_map(|sign| core.strip_prefix(sign));
    sign.and_then(rupees)
        .or_else(|| time(core))
        .or_else(|| date(core))
        .or_else(|| numbers::quantity(core))
        .or_else(|| percentage(core))
        .or_else(|| range(core))
        .or_else(|| phone_number(core))
        .unwrap_or_else(|| characters(core))
}

/// Reads an amount, with two decimals as paise.
fn rupees(amount: &str) -> Option<String> {
    let (whole, paise) = match amount.split_once('.') {
        Some((whole, paise)) if paise.len() == 2 => (whole, paise.parse::<u64>().ok()?),
        _ => (amount.strip_suffix("/-").unwrap_or(amount), 0),
    };
    let rupees = numbers::quantity(whole)?;
    let unit = if rupees == "एक" { "रुपया" } else { "रुपये" };
    Some(match paise {
        0 => format!("{rupees} {unit}"),
        paise => format!("{rupees} {unit} {} पैसे", numbers::small(paise)),
    })
}

/// Reads a time of day: `10:30`, `18:05`.
fn time(text: &str) -> Option<String> {
    let time = Time::parse(text)
        .filter(|time| time.hour < 24 && time.second.is_none() && time.half.is_none())?;
    let hour = numbers::small(time.hour);
    Some(match time.minute {
        0 => format!("{hour} बजे"),
        minute => format!("{hour} बजकर {} मिनट", numbers::small(minute)),
    })
}

/// Reads a date: `24/12/2026`, `24-12-2026`, `2026-12-24`.
fn date(text: &str) -> Option<String> {
    let (day, month, year) = date_numbers(text, false)?;
    let month = MONTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    Some(format!("{} {month} {}", numbers::small(day), numbers::year(year)))
}

fn number(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let is_number = is_digits(text) && length.contains(&text.len());
    is_number.then(|| text.parse().ok()).flatten()
}

fn percentage(text: &str) -> Option<String> {
    Some(format!("{} प्रतिशत", numbers::quantity(text.strip_suffix('%')?)?))
}

/// Reads a range of short numbers: `10-12`.
fn range(text: &str) -> Option<String> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (number(from, 1..=4)?, number(to, 1..=4)?);
    Some(format!("{} से {}", numbers::cardinal(from), numbers::cardinal(to)))
}

/// Reads a phone number in groups: `+91-80357-37458`, `1800-555-0199`.
fn phone_number(text: &str) -> Option<String> {
    let (plus, groups) = match text.strip_prefix('+') {
        Some(groups) => ("प्लस ", groups),
        None => ("", text),
    };
    let groups: Vec<&str> = groups.split('-').collect();
    let read = || groups.iter().map(|group| numbers::digits(group)).collect::<Vec<_>>().join(", ");
    groups.iter().all(|group| is_digits(group)).then(|| format!("{plus}{}", read()))
}

/// Reads text without a rule of its own: numbers in it as quantities, Latin letters and signs by
/// their names.
fn characters(text: &str) -> String {
    let mut output = String::new();
    let mut digits = String::new();
    let flush = |digits: &mut String, output: &mut String| {
        if !digits.is_empty() {
            space(output);
            output.push_str(&numbers::quantity(digits).unwrap_or_default());
            digits.clear();
        }
    };
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let after_digits = !digits.is_empty();
        flush(&mut digits, &mut output);
        match name(c) {
            Some("") => space(&mut output),
            Some(name) => {
                space(&mut output);
                output.push_str(name);
                output.push(' ');
            }
            // An ending joins its number: "5वीं".
            None if after_digits || is_devanagari(c) => output.push(c),
            None => {}
        }
    }
    flush(&mut digits, &mut output);
    output.trim_end().to_owned()
}

fn space(output: &mut String) {
    if !output.is_empty() && !output.ends_with(' ') {
        output.push(' ');
    }
}

/// Returns the name of a letter or sign, an empty name for a sign that only separates, or `None` if
/// it is part of a word.
fn name(c: char) -> Option<&'static str> {
    let letter = c.to_ascii_uppercase();
    if letter.is_ascii_uppercase() {
        return LETTERS.get(usize::from(letter as u8 - b'A')).copied();
    }
    Some(match c {
        '@' => "ऐट",
        '&' => "और",
        '+' => "प्लस",
        '%' => "प्रतिशत",
        '#' => "हैश",
        '*' => "स्टार",
        '=' => "बराबर",
        '.' => "डॉट",
        '₹' => "रुपये",
        c if is_devanagari(c) => return None,
        _ => "",
    })
}

fn is_devanagari(c: char) -> bool {
    ('\u{900}'..='\u{97f}').contains(&c) && !matches!(c, '।' | '॥')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::words;

    #[rstest]
    #[case("आपके खाते में ₹1,250.50 हैं।", "आपके खाते में एक हज़ार दो सौ पचास रुपये पचास पैसे हैं।")]
    #[case("रु. 500, Rs 1", "पाँच सौ रुपये, एक रुपया")]
    #[case(
        "15/08/1947 को 10:30 या 18:00 पर",
        "पंद्रह अगस्त उन्नीस सौ सैंतालीस को दस बजकर तीस मिनट या अठारह बजे पर"
    )]
    #[case("2026-12-24", "चौबीस दिसंबर दो हज़ार छब्बीस")]
    #[case("45/13/2026", "पैंतालीस तेरह दो हज़ार छब्बीस")]
    #[case("१२ प्रतिशत, 5%", "बारह प्रतिशत, पाँच प्रतिशत")]
    #[case("10-12 दिन", "दस से बारह दिन")]
    #[case("+91-80357-37458", "प्लस नौ एक, आठ शून्य तीन पाँच सात, तीन सात चार पाँच आठ")]
    #[case("आपका OTP 4 0 7 है", "आपका ओ टी पी चार शून्य सात है")]
    #[case("5वीं कक्षा A-4", "पाँचवीं कक्षा ए चार")]
    #[case("(\"नमस्ते\")", "(\"नमस्ते\")")]
    #[case("\u{1F600} 漢字", "")]
    #[case("", "")]
    fn text_becomes_words(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(words(text), expected);
    }
}
