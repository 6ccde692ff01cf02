//! Numbers in Portuguese words.

/// The grammatical gender of the noun that a number refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gender {
    Masculine,
    Feminine,
}

const ONES: [&str; 20] = [
    "zero",
    "um",
    "dois",
    "três",
    "quatro",
    "cinco",
    "seis",
    "sete",
    "oito",
    "nove",
    "dez",
    "onze",
    "doze",
    "treze",
    "quatorze",
    "quinze",
    "dezesseis",
    "dezessete",
    "dezoito",
    "dezenove",
];
const TENS: [&str; 10] = [
    "",
    "",
    "vinte",
    "trinta",
    "quarenta",
    "cinquenta",
    "sessenta",
    "setenta",
    "oitenta",
    "noventa",
];
/// Each is written with the "o" of the masculine gender, except for one hundred.
const HUNDREDS: [&str; 10] = [
    "",
    "cento",
    "duzentos",
    "trezentos",
    "quatrocentos",
    "quinhentos",
    "seiscentos",
    "setecentos",
    "oitocentos",
    "novecentos",
];
/// The units above a hundred, from the largest on, in singular and plural.
const UNITS: [(u64, &str, &str); 4] = [
    (1_000_000_000_000, "trilhão", "trilhões"),
    (1_000_000_000, "bilhão", "bilhões"),
    (1_000_000, "milhão", "milhões"),
    (1_000, "mil", "mil"),
];
const ORDINAL_ONES: [&str; 10] = [
    "", "primeiro", "segundo", "terceiro", "quarto", "quinto", "sexto", "sétimo", "oitavo", "nono",
];
const ORDINAL_TENS: [&str; 10] = [
    "",
    "décimo",
    "vigésimo",
    "trigésimo",
    "quadragésimo",
    "quinquagésimo",
    "sexagésimo",
    "septuagésimo",
    "octogésimo",
    "nonagésimo",
];

/// The largest number that has words.
pub(super) const MAX: u64 = 999_999_999_999_999;
/// The largest ordinal that has words.
const ORDINAL_MAX: u64 = 199;

fn word(words: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| words.get(index)).copied().unwrap_or_default()
}

/// Returns the words of a number up to [`MAX`].
pub(super) fn cardinal(number: u64, gender: Gender) -> String {
    let mut output = String::new();
    let mut rest = number.min(MAX);
    for (unit, one, many) in UNITS {
        let count = rest / unit;
        rest %= unit;
        if count == 0 {
            continue;
        }
        let words = match (count, unit) {
            (1, 1_000) => one.to_owned(),
            // "Duas mil pessoas": thousands agree with the noun, millions do not.
            (count, 1_000) => format!("{} {many}", below_thousand(count, gender)),
            (1, _) => format!("um {one}"),
            (count, _) => format!("{} {many}", below_thousand(count, Gender::Masculine)),
        };
        push(&mut output, &words, count, rest == 0);
    }
    if rest > 0 || output.is_empty() {
        push(&mut output, &below_thousand(rest, gender), rest, true);
    }
    output
}

/// Appends a group of a number. Before the last one there is an "e" if it is short.
fn push(output: &mut String, words: &str, count: u64, is_last: bool) {
    if !output.is_empty() {
        let is_short = count < 100 || count.is_multiple_of(100);
        output.push_str(if is_last && is_short { " e " } else { " " });
    }
    output.push_str(words);
}

fn below_thousand(number: u64, gender: Gender) -> String {
    let feminine = gender == Gender::Feminine;
    let (hundreds, rest) = (number / 100, number % 100);
    let mut words = Vec::new();
    match hundreds {
        0 => {}
        1 if rest == 0 => words.push("cem".to_owned()),
        1 => words.push("cento".to_owned()),
        _ if feminine => words.push(word(&HUNDREDS, hundreds).replace("tos", "tas")),
        _ => words.push(word(&HUNDREDS, hundreds).to_owned()),
    }
    let ones = match rest {
        0 if hundreds > 0 => None,
        0..20 => Some(rest),
        _ => {
            words.push(word(&TENS, rest / 10).to_owned());
            Some(rest % 10).filter(|ones| *ones > 0)
        }
    };
    words.extend(ones.map(|ones| match ones {
        1 if feminine => "uma".to_owned(),
        2 if feminine => "duas".to_owned(),
        ones => word(&ONES, ones).to_owned(),
    }));
    words.join(" e ")
}

/// Returns the words of an ordinal number, or `None` if it is 0 or too large.
pub(super) fn ordinal(number: u64, gender: Gender) -> Option<String> {
    if !(1..=ORDINAL_MAX).contains(&number) {
        return None;
    }
    let hundred = if number >= 100 { "centésimo" } else { "" };
    let words = [hundred, word(&ORDINAL_TENS, number % 100 / 10), word(&ORDINAL_ONES, number % 10)];
    let words: Vec<String> = words
        .iter()
        .filter(|word| !word.is_empty())
        .map(|word| match (gender, word.strip_suffix('o')) {
            (Gender::Feminine, Some(stem)) => format!("{stem}a"),
            _ => (*word).to_owned(),
        })
        .collect();
    Some(words.join(" "))
}

/// Returns the digits of a text, one by one. Other characters are left out.
pub(super) fn digits(text: &str) -> String {
    let words: Vec<&str> = text
        .chars()
        .filter_map(|c| c.to_digit(10))
        .map(|digit| word(&ONES, digit.into()))
        .collect();
    words.join(" ")
}

/// Returns the words of the digits after a decimal comma: a short number as such, others digit by
/// digit.
pub(super) fn decimals(text: &str, gender: Gender) -> String {
    match text.parse() {
        Ok(number) if text.len() <= 2 && !text.starts_with('0') => cardinal(number, gender),
        _ => digits(text),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Gender::{self, Feminine, Masculine};
    use super::{MAX, cardinal, decimals, digits, ordinal};

    #[rstest]
    #[case(0, Masculine, "zero")]
    #[case(1, Feminine, "uma")]
    #[case(16, Masculine, "dezesseis")]
    #[case(21, Feminine, "vinte e uma")]
    #[case(100, Masculine, "cem")]
    #[case(101, Masculine, "cento e um")]
    #[case(222, Feminine, "duzentas e vinte e duas")]
    #[case(1_000, Masculine, "mil")]
    #[case(1_005, Masculine, "mil e cinco")]
    #[case(1_100, Masculine, "mil e cem")]
    #[case(1_250, Masculine, "mil duzentos e cinquenta")]
    #[case(1_999, Masculine, "mil novecentos e noventa e nove")]
    #[case(2_026, Masculine, "dois mil e vinte e seis")]
    #[case(2_300, Feminine, "duas mil e trezentas")]
    #[case(1_000_000, Masculine, "um milhão")]
    #[case(2_000_002, Feminine, "dois milhões e duas")]
    #[case(1_200_000, Masculine, "um milhão e duzentos mil")]
    #[case(
        MAX,
        Masculine,
        "novecentos e noventa e nove trilhões novecentos e noventa e nove bilhões \
         novecentos e noventa e nove milhões novecentos e noventa e nove mil novecentos e noventa e nove"
    )]
    fn numbers_have_words(#[case] number: u64, #[case] gender: Gender, #[case] words: &str) {
        assert_eq!(cardinal(number, gender), words);
    }

    #[rstest]
    #[case(1, Masculine, Some("primeiro"))]
    #[case(2, Feminine, Some("segunda"))]
    #[case(10, Masculine, Some("décimo"))]
    #[case(23, Feminine, Some("vigésima terceira"))]
    #[case(101, Masculine, Some("centésimo primeiro"))]
    #[case(0, Masculine, None)]
    #[case(200, Masculine, None)]
    fn ordinals_have_words(
        #[case] number: u64,
        #[case] gender: Gender,
        #[case] words: Option<&str>,
    ) {
        assert_eq!(ordinal(number, gender).as_deref(), words);
    }

    #[test]
    fn digits_are_read_one_by_one_and_decimals_as_a_number() {
        assert_eq!(digits("4-07"), "quatro zero sete");
        assert_eq!(decimals("50", Masculine), "cinquenta");
        assert_eq!(decimals("05", Masculine), "zero cinco");
        assert_eq!(decimals("141", Masculine), "um quatro um");
    }
}
