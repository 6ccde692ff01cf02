//! SSML's `say-as`, converted to words that every engine reads correctly without markup.
//!
//! Only conversions that need no grammar are applied. In all other cases the text stays as written
//! and is interpreted by the engine.

use super::language::primary;
use super::normalise::{self, is_digits};

/// Returns the words for `text` with `interpret-as="kind"` in the language `tag`.
pub(super) fn spoken_form(kind: &str, format: Option<&str>, text: &str, tag: &str) -> String {
    let language = primary(tag);
    let words = match kind {
        "characters" | "character" | "spell-out" => Some(spell_out(text, &language)),
        "digits" => Some(digits(text)),
        "telephone" => Some(telephone(text, &language)),
        "cardinal" | "number" if language == "en" => normalise::quantity(text, tag),
        "cardinal" | "number" => cardinal(text),
        "ordinal" => ordinal(text, &language),
        "fraction" => fraction(text, &language),
        "unit" => Some(separate_unit(text)),
        "date" => date(text, format, &language, tag),
        "time" => time(text, &language),
        // Addresses are read as written. So are expletives, because a bleep would drop text.
        _ => None,
    };
    words.unwrap_or_else(|| text.to_owned())
}

/// Spells out letters and digits. Letters are in capitals, because engines would read a lower-case
/// "a" as a word.
fn spell_out(text: &str, language: &str) -> String {
    let mut names = Vec::new();
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        match sign_name(c, language) {
            Some(name) => names.push(name.to_owned()),
            None => names.push(c.to_uppercase().collect()),
        }
    }
    names.join(", ")
}

/// Returns the name of a sign that engines skip, or `None` if it has no name here.
pub(super) fn sign_name(c: char, language: &str) -> Option<&'static str> {
    let names = match c {
        '.' => ["dot", "Punkt", "punto", "point", "punto", "ponto"],
        '@' => ["at", "at", "arroba", "arobase", "chiocciola", "arroba"],
        '-' => ["dash", "Bindestrich", "guion", "tiret", "trattino", "traço"],
        '_' => {
            ["underscore", "Unterstrich", "guion bajo", "tiret bas", "trattino basso", "sublinhado"]
        }
        '/' => ["slash", "Schrägstrich", "barra", "barre oblique", "barra", "barra"],
        '+' => ["plus", "plus", "más", "plus", "più", "mais"],
        '#' => ["hash", "Raute", "almohadilla", "dièse", "cancelletto", "cerquilha"],
        '*' => ["star", "Stern", "asterisco", "étoile", "asterisco", "asterisco"],
        ',' => ["comma", "Komma", "coma", "virgule", "virgola", "vírgula"],
        ':' => ["colon", "Doppelpunkt", "dos puntos", "deux points", "due punti", "dois pontos"],
        _ => return None,
    };
    word_in(language, names)
}

/// Selects the word for a language from those for en, de, es, fr, it and pt. Returns `None` for other
/// languages.
fn word_in(language: &str, words: [&'static str; 6]) -> Option<&'static str> {
    let [en, de, es, fr, it, pt] = words;
    match language {
        "en" => Some(en),
        "de" => Some(de),
        "es" => Some(es),
        "fr" => Some(fr),
        "it" => Some(it),
        "pt" => Some(pt),
        _ => None,
    }
}

/// Separates adjacent digits. Other characters are unchanged.
fn digits(text: &str) -> String {
    let mut output = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() && output.ends_with(|c: char| c.is_ascii_digit()) {
            output.push(' ');
        }
        output.push(c);
    }
    output
}

/// Separates digits, with a short pause between groups.
fn telephone(text: &str, language: &str) -> String {
    let mut groups = vec![String::new()];
    for c in text.chars() {
        match c {
            ' ' | '-' | '.' | '(' | ')' | '/' => groups.push(String::new()),
            c => {
                if let Some(group) = groups.last_mut() {
                    if !group.is_empty() {
                        group.push(' ');
                    }
                    match sign_name(c, language) {
                        Some(name) => group.push_str(name),
                        None => group.push(c),
                    }
                }
            }
        }
    }
    groups.retain(|group| !group.is_empty());
    groups.join(", ")
}

/// Removes thousands separators. Returns `None` if the text is not a number with valid groups.
fn cardinal(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let mut groups = number.split(['.', ' ', '\u{a0}', '\'']);
    let first = groups.next().filter(|g| (1..=3).contains(&g.len()) && is_digits(g))?;
    let mut joined = format!("{sign}{first}");
    for group in groups {
        let whole = group.split([',', '.']).next().unwrap_or_default();
        if whole.len() != 3 || !is_digits(whole) {
            return None;
        }
        joined.push_str(group);
    }
    Some(joined)
}

fn ordinal(text: &str, language: &str) -> Option<String> {
    let number = text.trim();
    if !is_digits(number) {
        return None;
    }
    let english = || match number.as_bytes() {
        [.., b'1', _] => "th",
        [.., b'1'] => "st",
        [.., b'2'] => "nd",
        [.., b'3'] => "rd",
        _ => "th",
    };
    let suffix = match language {
        "en" => english(),
        "de" => ".",
        "es" | "it" | "pt" => "º",
        "fr" if number == "1" => "er",
        "fr" => "e",
        _ => return None,
    };
    Some(format!("{number}{suffix}"))
}

/// Converts a fraction to words: `2/9` becomes "2 over 9". Halves and quarters have names, and
/// `3+1/2` gets an "and". Returns `None` for other text.
fn fraction(text: &str, language: &str) -> Option<String> {
    let text = text.trim();
    let (whole, part) =
        text.split_once('+').map_or((None, text), |(whole, part)| (Some(whole.trim()), part));
    let (above, below) = part.split_once('/').map(|(a, b)| (a.trim(), b.trim()))?;
    if !is_digits(above) || !is_digits(below) || whole.is_some_and(|w| !is_digits(w)) {
        return None;
    }
    let part = match (language, above, below) {
        ("en", "1", "2") => "one half".to_owned(),
        ("en", "1", "4") => "one quarter".to_owned(),
        ("en", "3", "4") => "three quarters".to_owned(),
        _ => format!(
            "{above} {} {below}",
            word_in(language, ["over", "durch", "sobre", "sur", "su", "sobre"])?
        ),
    };
    Some(match whole {
        Some(whole) => {
            format!("{whole} {} {part}", word_in(language, ["and", "und", "y", "et", "e", "e"])?)
        }
        None => part,
    })
}

/// Separates a number from its unit.
fn separate_unit(text: &str) -> String {
    let mut output = String::new();
    for c in text.chars() {
        if c.is_alphabetic() && output.ends_with(|c: char| c.is_ascii_digit()) {
            output.push(' ');
        }
        output.push(c);
    }
    output
}

/// Reads `1'21"` as a duration. Returns `None` for other text.
fn time(text: &str, language: &str) -> Option<String> {
    let (minutes, seconds) = text.trim().split_once('\'')?;
    let seconds = seconds.trim().trim_end_matches(['"', '\'']);
    if !is_digits(minutes) || !(seconds.is_empty() || is_digits(seconds)) {
        return None;
    }
    let unit = |number, one, many| word_in(language, if number == "1" { one } else { many });
    let minute = ["minute", "Minute", "minuto", "minute", "minuto", "minuto"];
    let minute_plural = ["minutes", "Minuten", "minutos", "minutes", "minuti", "minutos"];
    let mut output = format!("{minutes} {}", unit(minutes, minute, minute_plural)?);
    if !seconds.is_empty() {
        let second = ["second", "Sekunde", "segundo", "seconde", "secondo", "segundo"];
        let second_plural = ["seconds", "Sekunden", "segundos", "secondes", "secondi", "segundos"];
        output.push_str(&format!(" {seconds} {}", unit(seconds, second, second_plural)?));
    }
    Some(output)
}

const MONTHS: [[&str; 6]; 12] = [
    ["January", "Januar", "enero", "janvier", "gennaio", "janeiro"],
    ["February", "Februar", "febrero", "février", "febbraio", "fevereiro"],
    ["March", "März", "marzo", "mars", "marzo", "março"],
    ["April", "April", "abril", "avril", "aprile", "abril"],
    ["May", "Mai", "mayo", "mai", "maggio", "maio"],
    ["June", "Juni", "junio", "juin", "giugno", "junho"],
    ["July", "Juli", "julio", "juillet", "luglio", "julho"],
    ["August", "August", "agosto", "août", "agosto", "agosto"],
    ["September", "September", "septiembre", "septembre", "settembre", "setembro"],
    ["October", "Oktober", "octubre", "octobre", "ottobre", "outubro"],
    ["November", "November", "noviembre", "novembre", "novembre", "novembro"],
    ["December", "Dezember", "diciembre", "décembre", "dicembre", "dezembro"],
];

/// Returns the name of a month, counted from 1. `None` if there is no such month, or no name in the
/// language.
pub(super) fn month_name(month: u64, language: &str) -> Option<&'static str> {
    let index = usize::try_from(month).ok()?.checked_sub(1)?;
    word_in(language, *MONTHS.get(index)?)
}

/// Reads a date in digits. `format` is the order of its parts. Without it, the year comes first if
/// the digits show this. Otherwise the day comes before the month, or after it in American English.
/// Returns `None` for other text.
fn date(text: &str, format: Option<&str>, language: &str, tag: &str) -> Option<String> {
    let mut parts: Vec<&str> =
        text.trim().split(['/', '-', '.', ' ']).filter(|f| !f.is_empty()).collect();
    if parts.iter().any(|f| !is_digits(f)) {
        return None;
    }
    let american = tag.eq_ignore_ascii_case("en-US") || tag.eq_ignore_ascii_case("en");
    let default_format = match parts.as_slice() {
        [one] if one.len() == 8 => "yyyymmdd",
        [year, ..] if year.len() == 4 => "ymd",
        _ if american => "mdy",
        _ => "dmy",
    };
    let mut format = format.unwrap_or(default_format);
    if format == "yyyymmdd" {
        let whole = *parts.first().filter(|f| f.len() == 8)?;
        parts = vec![whole.get(..4)?, whole.get(4..6)?, whole.get(6..)?];
        format = "ymd";
    }
    if parts.len() != format.len() {
        return None;
    }
    let part = |letter: char| {
        format.chars().position(|c| c == letter).and_then(|at| parts.get(at)).copied()
    };
    let day = part('d').map(|d| d.trim_start_matches('0'));
    let month = match part('m') {
        Some(m) => Some(month_name(m.parse().ok()?, language)?),
        None => None,
    };
    let day_and_month = match (day, month) {
        (Some(day), Some(month)) => Some(match language {
            "en" if american => format!("{month} {day}"),
            "de" => format!("{day}. {month}"),
            "es" | "pt" => format!("{day} de {month}"),
            _ => format!("{day} {month}"),
        }),
        (Some(day), None) => Some(day.to_owned()),
        (None, month) => month.map(str::to_owned),
    };
    Some(match (day_and_month, part('y')) {
        (Some(first), Some(year)) if matches!(language, "es" | "pt") => {
            format!("{first} de {year}")
        }
        (Some(first), Some(year)) if language == "en" && day.is_some() => {
            format!("{first}, {year}")
        }
        (Some(first), Some(year)) => format!("{first} {year}"),
        (Some(first), None) => first,
        (None, year) => year?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::spoken_form;

    #[rstest]
    #[case("spell-out", None, "en-US", "ab1", "A, B, 1")]
    #[case("characters", None, "en-GB", "a-b@c.de", "A, dash, B, at, C, dot, D, E")]
    #[case("character", None, "de-DE", "ä.", "Ä, Punkt")]
    #[case("digits", None, "en-US", "1234", "1 2 3 4")]
    #[case("digits", None, "en-US", "PIN 12", "PIN 1 2")]
    #[case("telephone", None, "en-US", "+1 (212) 555-0100", "plus 1, 2 1 2, 5 5 5, 0 1 0 0")]
    #[case("telephone", None, "fr-FR", "01 23", "0 1, 2 3")]
    #[case(
        "cardinal",
        None,
        "en-IN",
        "1234567",
        "twelve lakh thirty-four thousand five hundred and sixty-seven"
    )]
    #[case("number", None, "de-DE", "1.234,5", "1234,5")]
    #[case("number", None, "en-US", "12.5 or so", "12.5 or so")]
    #[case("ordinal", None, "en-US", "1", "1st")]
    #[case("ordinal", None, "en-US", "12", "12th")]
    #[case("ordinal", None, "en-US", "23", "23rd")]
    #[case("ordinal", None, "de-DE", "3", "3.")]
    #[case("ordinal", None, "fr-FR", "1", "1er")]
    #[case("ordinal", None, "en-US", "third", "third")]
    #[case("fraction", None, "en-US", "3/4", "three quarters")]
    #[case("fraction", None, "en-US", "3+1/2", "3 and one half")]
    #[case("fraction", None, "de-DE", "2/9", "2 durch 9")]
    #[case("unit", None, "en-US", "10km", "10 km")]
    #[case("time", None, "en-US", "1'21\"", "1 minute 21 seconds")]
    #[case("time", None, "en-US", "10:30", "10:30")]
    #[case("address", None, "en-US", "1 Main St", "1 Main St")]
    #[case("expletive", None, "en-US", "darn", "darn")]
    #[case("date", Some("mdy"), "en-US", "09/21/1960", "September 21, 1960")]
    #[case("date", Some("dmy"), "en-GB", "21.09.1960", "21 September, 1960")]
    #[case("date", Some("yyyymmdd"), "de-DE", "19600921", "21. September 1960")]
    #[case("date", Some("md"), "es-ES", "9-1", "1 de septiembre")]
    #[case("date", Some("ym"), "fr-FR", "2026 8", "août 2026")]
    #[case("spell-out", None, "pt-BR", "a-1", "A, traço, 1")]
    #[case("telephone", None, "pt-BR", "+55 11", "mais 5 5, 1 1")]
    #[case("ordinal", None, "pt-BR", "3", "3º")]
    #[case("fraction", None, "pt-BR", "3+1/2", "3 e 1 sobre 2")]
    #[case("date", None, "pt-BR", "24/12/2026", "24 de dezembro de 2026")]
    #[case("date", Some("y"), "it-IT", "2026", "2026")]
    #[case("date", None, "en-US", "2026-11-20", "November 20, 2026")]
    #[case("date", None, "en-US", "next Monday", "next Monday")]
    #[case("date", Some("mdy"), "en-US", "13/45/2026", "13/45/2026")]
    fn say_as_becomes_words(
        #[case] kind: &str,
        #[case] format: Option<&str>,
        #[case] tag: &str,
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(spoken_form(kind, format, text, tag), expected);
    }
}
