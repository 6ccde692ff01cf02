//! Rewrites Portuguese text as words: numbers, money, dates, times, phone numbers, codes, addresses
//! and abbreviations.
//!
//! A text is split at spaces. Each rule examines a word and those after it; the first rule that
//! matches replaces the words that it has consumed.

use super::numbers::{self, Gender};
use crate::normalise::{self, Number, Time, Token, date_numbers, is_digits};
use crate::say_as::{month_name, sign_name};

/// The names of the Latin letters.
const LETTERS: [&str; 26] = [
    "á", "bê", "cê", "dê", "é", "efe", "gê", "agá", "i", "jóta", "cá", "éle", "eme", "ene", "ó",
    "pê", "quê", "erre", "ésse", "tê", "u", "vê", "dáblio", "xis", "ípsilon", "zê",
];

/// Abbreviations, which a full stop may follow, and their words.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("Apto", "apartamento"),
    ("Av", "avenida"),
    ("Cia", "companhia"),
    ("Dr", "doutor"),
    ("Dra", "doutora"),
    ("Eng", "engenheiro"),
    ("Exmo", "excelentíssimo"),
    ("Exma", "excelentíssima"),
    ("Ltda", "limitada"),
    ("Prof", "professor"),
    ("Profa", "professora"),
    ("S.A", "ésse á"),
    ("Sr", "senhor"),
    ("Sra", "senhora"),
    ("Sras", "senhoras"),
    ("Srs", "senhores"),
    ("Srta", "senhorita"),
    ("Tel", "telefone"),
    ("apto", "apartamento"),
    ("av", "avenida"),
    ("c/", "com"),
    ("n.º", "número"),
    ("nº", "número"),
    ("p/", "para"),
    ("p.ex", "por exemplo"),
    ("pág", "página"),
    ("tel", "telefone"),
];

/// Currencies: their signs, and the names of the unit and of its hundredth, in singular and plural.
const CURRENCIES: &[(&str, [&str; 2], [&str; 2])] = &[
    ("R$", ["real", "reais"], ["centavo", "centavos"]),
    ("BRL", ["real", "reais"], ["centavo", "centavos"]),
    ("US$", ["dólar", "dólares"], ["centavo", "centavos"]),
    ("USD", ["dólar", "dólares"], ["centavo", "centavos"]),
    ("$", ["dólar", "dólares"], ["centavo", "centavos"]),
    ("€", ["euro", "euros"], ["centavo", "centavos"]),
    ("EUR", ["euro", "euros"], ["centavo", "centavos"]),
    ("£", ["libra", "libras"], ["centavo", "centavos"]),
];

/// Units of measurement, in singular and plural.
const UNITS: &[(&str, &str, &str)] = &[
    ("%", "por cento", "por cento"),
    ("°", "grau", "graus"),
    ("°C", "grau célsius", "graus célsius"),
    ("ºC", "grau célsius", "graus célsius"),
    ("cm", "centímetro", "centímetros"),
    ("GB", "gigabáite", "gigabáites"),
    ("g", "grama", "gramas"),
    ("h", "hora", "horas"),
    ("ha", "hectare", "hectares"),
    ("kg", "quilo", "quilos"),
    ("km", "quilômetro", "quilômetros"),
    ("km/h", "quilômetro por hora", "quilômetros por hora"),
    ("kWh", "quilouóte hora", "quilouótes hora"),
    ("l", "litro", "litros"),
    ("L", "litro", "litros"),
    ("m", "metro", "metros"),
    ("m²", "metro quadrado", "metros quadrados"),
    ("MB", "megabáite", "megabáites"),
    ("mg", "miligrama", "miligramas"),
    ("min", "minuto", "minutos"),
    ("ml", "mililitro", "mililitros"),
    ("mm", "milímetro", "milímetros"),
    ("s", "segundo", "segundos"),
    ("seg", "segundo", "segundos"),
    ("t", "tonelada", "toneladas"),
    ("W", "uóte", "uótes"),
];

/// Abbreviations that are spoken as words although their letters would be spelled.
const SPOKEN_ACRONYMS: &str =
    "AIDS CEP FAQ OAB OK PROCON SAC SEBRAE SEDEX SENAC SESC TED USP VIP WHATSAPP WIFI";

/// Consonants with which a syllable may end, and pairs with which it may begin.
const CODAS: &str = "LMNRSXZ";
const ONSETS: &str = "BL BR CH CL CR DR FL FR GL GR GU LH NH PL PR QU TR";

/// Maximum number of digits that are read as a quantity if nothing groups them.
const PLAIN_DIGITS_MAX: usize = 7;
/// Maximum number of digits in a code that are read as a number.
const CODE_DIGITS_MAX: usize = 2;

/// Number of consumed words, and the words that replace them.
type Reading = (usize, String);
type Rule = fn(&[Token<'_>], usize) -> Option<Reading>;

/// Returns the text as words, with its punctuation.
pub(super) fn words(text: &str) -> String {
    let tokens: Vec<Token<'_>> = text.split_whitespace().map(Token::new).collect();
    let rules: [Rule; 10] =
        [phone_number, address, money, date, range, time, ordinal, measure, abbreviation, number];
    let mut output = String::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let found = rules.iter().find_map(|rule| rule(&tokens, at));
        let (length, words) = found.unwrap_or_else(|| (1, characters(&tokens, at)));
        if !output.is_empty() {
            output.push(' ');
        }
        output.push_str(token.open);
        output.push_str(words.trim());
        at += length.max(1);
        let last = tokens.get(at - 1);
        let close = last.map(|last| last.close).unwrap_or_default();
        let is_abbreviation = last.is_some_and(|last| find_abbreviation(last.core).is_some());
        // The full stop of an abbreviation ends no sentence.
        match close.strip_prefix('.') {
            Some(rest) if is_abbreviation && at < tokens.len() => output.push_str(rest),
            _ => output.push_str(close),
        }
    }
    output
}

/// Returns the core of a word if no punctuation separates it from the one before it.
fn following<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    let previous = tokens.get(at.checked_sub(1)?)?;
    let token = tokens.get(at)?;
    (previous.close.is_empty() && token.open.is_empty()).then_some(token.core)
}

/// Returns the gender of the noun at `at`, with which a number before it agrees. It follows from the
/// ending of the noun. Without a noun, numbers are masculine.
fn gender(tokens: &[Token<'_>], at: usize) -> Gender {
    const MASCULINE: &str = "dia mapa problema programa sistema telefonema tema planeta cinema";
    const FEMININE: &str =
        "chave classe fase frase mulher noite parte pele rede sede tarde vez vezes mulheres";
    let Some(word) = following(tokens, at) else { return Gender::Masculine };
    let word = word.to_lowercase();
    let singular = word.strip_suffix('s').unwrap_or(&word);
    let is_in = |list: &str| list.split(' ').any(|listed| listed == singular || listed == word);
    let endings =
        ["a", "ã", "ção", "ções", "são", "sões", "dade", "tude", "gem", "gens", "ncia", "ície"];
    let has_ending = |ending: &&str| word.ends_with(*ending) || singular.ends_with(*ending);
    if is_in(FEMININE) || (endings.iter().any(has_ending) && !is_in(MASCULINE)) {
        Gender::Feminine
    } else {
        Gender::Masculine
    }
}

/// Writes a number such as `1.250,50` with the separators of English, which [`Number`] parses.
fn western(text: &str) -> String {
    let swap = |c| match c {
        '.' => ',',
        ',' => '.',
        c => c,
    };
    text.chars().map(swap).collect()
}

fn number_words(number: &Number<'_>, gender: Gender) -> String {
    let sign = if number.negative { "menos " } else { "" };
    let integer = numbers::cardinal(number.integer, gender);
    match number.fraction {
        Some(fraction) => {
            format!("{sign}{integer} vírgula {}", numbers::decimals(fraction, gender))
        }
        None => format!("{sign}{integer}"),
    }
}

/// Reads a number. Digits that are a code, because they begin with 0 or are too many, are read one by
/// one. Returns `None` for other text.
fn quantity(text: &str, gender: Gender) -> Option<String> {
    let is_code = is_digits(text)
        && (text.len() > PLAIN_DIGITS_MAX || (text.len() > 1 && text.starts_with('0')));
    if is_code {
        return Some(numbers::digits(text));
    }
    Number::parse(&western(text)).filter(|n| !n.indian).map(|number| number_words(&number, gender))
}

fn read_groups<'a>(groups: impl IntoIterator<Item = &'a str>) -> String {
    let read = |group: &str| match group.strip_prefix('+') {
        Some(digits) => format!("mais {}", numbers::digits(digits)),
        None => numbers::digits(group),
    };
    groups.into_iter().map(read).collect::<Vec<_>>().join(", ")
}

/// Reads phone numbers: `+55 11 91234-5678`, `(11) 3456-7890`, `0800 123 4567`, `+5511912345678`; and
/// other numbers in groups: `123.456.789-09`, `01310-100`.
fn phone_number(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let first = tokens.get(at)?;
    let mut groups: Vec<&str> = Vec::new();
    let mut found = None;
    for (index, token) in tokens.get(at..)?.iter().enumerate() {
        let is_area = token.open == "(" && token.close == ")";
        let is_group = |(part, group): (usize, &str)| {
            let signless = group.strip_prefix('+').filter(|_| index == 0 && part == 0);
            is_digits(signless.unwrap_or(group))
        };
        let is_joined = index == 0 || token.open.is_empty() || is_area;
        if !is_joined || !token.core.split('-').enumerate().all(is_group) {
            break;
        }
        groups.extend(token.core.split('-'));
        if is_phone_number(&groups, first.open == "(") {
            found = Some((index + 1, groups.len()));
        }
        if !token.close.is_empty() && !is_area {
            break;
        }
    }
    if let Some((length, count)) = found {
        groups.truncate(count);
        let words = match groups.as_slice() {
            // The code of Brazil, the area, and two groups.
            [only] if only.len() > 9 => {
                let (head, last) = only.split_at_checked(only.len() - 4)?;
                let (area, middle) = head.split_at_checked(5)?;
                let (country, area) = area.split_at_checked(3)?;
                read_groups([country, area, middle, last])
            }
            groups => read_groups(groups.iter().copied()),
        };
        return Some((length, words));
    }
    let groups = || first.core.split(['.', '-', '/']);
    let digits: usize = groups().map(str::len).sum();
    let is_identifier =
        digits > PLAIN_DIGITS_MAX && groups().count() > 1 && groups().all(is_digits);
    let is_other =
        date_numbers(first.core, false).is_some() || Number::parse(&western(first.core)).is_some();
    (is_identifier && !is_other && year_range(first.core).is_none())
        .then(|| (1, read_groups(groups())))
}

fn is_phone_number(groups: &[&str], has_area: bool) -> bool {
    let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits: usize = sizes.iter().sum();
    let first = groups.first().copied().unwrap_or_default();
    match sizes.as_slice() {
        _ if digits > 15 => false,
        _ if first.starts_with('+') => digits > 8,
        [2, 5, 4] | [2, 4, 4] | [5, 4] => true,
        [2, 8 | 9] => has_area,
        [4, 4] => year_range(&groups.join("-")).is_none(),
        [4, 3, 4] | [4, 3, 3] => first.starts_with('0'),
        _ => false,
    }
}

/// Parses two years: `2019-2026`.
fn year_range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('-')?;
    let year = |text: &str| {
        let year = (text.len() == 4 && is_digits(text)).then(|| text.parse().ok()).flatten();
        year.filter(|year| (1_500..2_200).contains(year))
    };
    let (from, to) = (year(from)?, year(to)?);
    (from < to).then_some((from, to))
}

/// Reads e-mail addresses and URLs.
fn address(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    let address = normalise::address(core)?;
    let read = |run: &str| match run.chars().next() {
        _ if is_digits(run) => numbers::digits(run),
        Some(c) if !c.is_alphanumeric() => sign_name(c, "pt").unwrap_or_default().to_owned(),
        _ if run.chars().count() < 3 || run == "www" || !has_vowel(run) => spell(run),
        _ => run.to_owned(),
    };
    Some((1, normalise::runs(address).map(read).collect::<Vec<_>>().join(" ")))
}

/// Reads amounts of money: `R$ 1.250,50`, `US$20`, `R$ 2,5 milhões`.
fn money(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    let (sign, core) = match core.strip_prefix('-') {
        Some(rest) => ("menos ", rest),
        None => ("", core),
    };
    let currency = |core: &str| CURRENCIES.iter().find(|(sign, ..)| core.starts_with(sign));
    let (length, (symbol, unit, cents), amount) = match currency(core) {
        Some(found) if found.0 == core => (2, found, following(tokens, at + 1)?),
        Some(found) => (1, found, core.strip_prefix(found.0)?),
        // "20 €"
        None => {
            let symbol = following(tokens, at + 1)?;
            (2, CURRENCIES.iter().find(|(sign, ..)| *sign == symbol)?, core)
        }
    };
    let western = western(amount);
    let number = Number::parse(&western).filter(|number| !number.indian)?;
    let gender = if *symbol == "£" { Gender::Feminine } else { Gender::Masculine };
    let [one, many] = unit;
    let magnitude = following(tokens, at + length).and_then(|word| match word {
        "mil" => Some("mil"),
        "milhão" | "milhões" | "bilhão" | "bilhões" | "trilhão" | "trilhões" => Some(word),
        _ => None,
    });
    if let Some(magnitude) = magnitude {
        let of = if magnitude == "mil" { "" } else { " de" };
        let words = number_words(&number, gender);
        return Some((length + 1, format!("{sign}{words} {magnitude}{of} {many}")));
    }
    let hundredths = match number.fraction {
        Some(fraction) if fraction.len() == 2 => fraction.parse::<u64>().ok()?,
        None => 0,
        Some(_) => {
            return Some((length, format!("{sign}{} {many}", number_words(&number, gender))));
        }
    };
    let whole = Number { fraction: None, ..number };
    let name = if whole.integer == 1 { one } else { many };
    let of = if whole.integer > 0 && whole.integer.is_multiple_of(1_000_000) { "de " } else { "" };
    let [cent, many_cents] = cents;
    let cent = if hundredths == 1 { cent } else { many_cents };
    let small = numbers::cardinal(hundredths, Gender::Masculine);
    let words = match (whole.integer, hundredths) {
        (0, 1..) => format!("{small} {cent}"),
        (_, 0) => format!("{} {of}{name}", number_words(&whole, gender)),
        _ => format!("{} {of}{name} e {small} {cent}", number_words(&whole, gender)),
    };
    Some((length, format!("{sign}{words}")))
}

/// Reads dates: `24/12/2026`, `2026-12-24`, `24/12`, and the first day in `1 de maio`.
fn date(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    let day_words = |day: u64| match day {
        1 => "primeiro".to_owned(),
        day => numbers::cardinal(day, Gender::Masculine),
    };
    let year_words = |year: u64| numbers::cardinal(year, Gender::Masculine);
    if let Some((day, month, year)) = date_numbers(core, false) {
        let month = month_name(month, "pt")?;
        return Some((1, format!("{} de {month} de {}", day_words(day), year_words(year))));
    }
    if let Some((day, month)) = core.split_once('/')
        && day.len() == 2
        && month.len() == 2
        && is_digits(day)
        && is_digits(month)
    {
        let month = month_name(month.parse().ok()?, "pt")?;
        let day = day.parse().ok().filter(|day| (1..=31).contains(day))?;
        return Some((1, format!("{} de {month}", day_words(day))));
    }
    let month = following(tokens, at + 2).filter(|_| following(tokens, at + 1) == Some("de"))?;
    let is_month = (1..=12).any(|n| month_name(n, "pt") == Some(&month.to_lowercase()));
    (is_month && matches!(core, "1" | "01")).then(|| (1, day_words(1)))
}

/// Reads times: `18:05`, `18h30`, `18h`.
fn time(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let words = time_words(tokens.get(at)?.core)?;
    let has_unit = matches!(following(tokens, at + 1), Some("h" | "hs" | "horas"));
    Some((1 + usize::from(has_unit), words))
}

fn time_words(text: &str) -> Option<String> {
    let clock = match text.split_once('h') {
        Some((hour, "" | "s")) if is_digits(hour) => format!("{hour}:00"),
        Some((hour, minutes)) if is_digits(hour) => {
            format!("{hour}:{}", minutes.strip_suffix("min").unwrap_or(minutes))
        }
        Some((clock, "")) => clock.to_owned(),
        _ => text.to_owned(),
    };
    let time = Time::parse(&clock).filter(|time| time.half.is_none())?;
    let count = |number, one: &str, many: &str, gender| {
        format!("{} {}", numbers::cardinal(number, gender), if number == 1 { one } else { many })
    };
    let mut words = count(time.hour, "hora", "horas", Gender::Feminine);
    if time.minute > 0 || time.second.is_some() {
        words.push_str(" e ");
        words.push_str(&count(time.minute, "minuto", "minutos", Gender::Masculine));
    }
    if let Some(second) = time.second {
        words.push_str(" e ");
        words.push_str(&count(second, "segundo", "segundos", Gender::Masculine));
    }
    Some(words)
}

/// Reads ranges: `10-12`, `8h-18h`, `10-20%`, `2019-2026`.
fn range(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    let (length, from, to) = match core.split_once('-') {
        Some((from, to)) => (1, from, to),
        None => {
            let to =
                following(tokens, at + 2).filter(|_| following(tokens, at + 1) == Some("-"))?;
            (3, core, to)
        }
    };
    let gender = gender(tokens, at + length);
    if let (Some(from), Some(to)) = (time_words(from), time_words(to)) {
        return Some((length, format!("{from} a {to}")));
    }
    let small = |text: &str| {
        (text.len() <= 4 && is_digits(text)).then(|| text.parse::<u64>().ok()).flatten()
    };
    let digits = to.trim_end_matches(|c: char| !c.is_ascii_digit());
    let (low, high) = (small(from)?, small(digits)?);
    if low >= high || (from.len() > 1 && from.starts_with('0')) {
        return None;
    }
    let to = match to.strip_prefix(digits) {
        Some("") => quantity(to, gender)?,
        _ => measure_words(to)?,
    };
    Some((length, format!("{} a {to}", quantity(from, gender)?)))
}

/// Reads ordinal numbers: `1º`, `2ª`.
fn ordinal(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    let (digits, gender) = match core.strip_suffix('ª') {
        Some(digits) => (digits, Gender::Feminine),
        None => (core.strip_suffix('º')?, Gender::Masculine),
    };
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    let number = is_digits(digits).then(|| digits.parse().ok()).flatten()?;
    Some((1, numbers::ordinal(number, gender)?))
}

/// Reads a number with a unit: `10km`, `12,5 %`, `20°C`.
fn measure(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    if let Some(words) = measure_words(core) {
        return Some((1, words));
    }
    let unit =
        following(tokens, at + 1).filter(|_| core.ends_with(|c: char| c.is_ascii_digit()))?;
    Some((2, measure_words(&format!("{core}{unit}"))?))
}

fn measure_words(text: &str) -> Option<String> {
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, one, many) = UNITS.iter().find(|(sign, ..)| *sign == unit)?;
    let western = western(number);
    let number = Number::parse(&western).filter(|number| !number.indian)?;
    let is_feminine = matches!(*one, "hora" | "tonelada");
    let gender = if is_feminine { Gender::Feminine } else { Gender::Masculine };
    let is_one = number.integer == 1 || (number.integer == 0 && number.fraction.is_some());
    Some(format!("{} {}", number_words(&number, gender), if is_one { one } else { many }))
}

fn find_abbreviation(core: &str) -> Option<&'static str> {
    ABBREVIATIONS.iter().find(|(short, _)| *short == core).map(|(_, words)| *words)
}

fn abbreviation(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    Some((1, find_abbreviation(tokens.get(at)?.core)?.to_owned()))
}

fn number(tokens: &[Token<'_>], at: usize) -> Option<Reading> {
    let core = tokens.get(at)?.core;
    if is_digits(core) && core.len() > CODE_DIGITS_MAX && follows_code_word(tokens, at) {
        return Some((1, numbers::digits(core)));
    }
    Some((1, quantity(core, gender(tokens, at + 1))?))
}

/// Returns `true` if a number is a code, as in "o código é 123".
fn follows_code_word(tokens: &[Token<'_>], at: usize) -> bool {
    const CODES: &str =
        "agência cep cnpj código conta cpf matrícula pedido pin protocolo ramal rg senha token voo";
    const BETWEEN: &str = "de do é nº número o seu";
    let is_in = |list: &str, token: &Token<'_>| {
        let word = token.core.to_lowercase();
        list.split(' ').any(|listed| listed == word)
    };
    let before = tokens.get(..at).unwrap_or_default();
    before
        .iter()
        .rev()
        .take(4)
        .find(|token| !is_in(BETWEEN, token))
        .is_some_and(|token| is_in(CODES, token))
}

/// Reads text without a rule of its own: words, abbreviations in capitals, single letters, and codes
/// such as `A-4711`.
fn characters(tokens: &[Token<'_>], at: usize) -> String {
    let Some(token) = tokens.get(at) else { return String::new() };
    let is_word = |c: char| c.is_alphabetic() || matches!(c, '-' | '\'');
    if token.core.contains(char::is_alphabetic) && token.core.chars().all(is_word) {
        let is_last = at + 1 == tokens.len();
        return token
            .core
            .split_inclusive('-')
            .map(|part| letters(part, token, is_last, tokens))
            .collect();
    }
    let mut words = Vec::new();
    for run in normalise::runs(token.core) {
        let c = run.chars().next().unwrap_or_default();
        words.push(match c {
            c if c.is_ascii_digit() && (run.len() > CODE_DIGITS_MAX || c == '0') => {
                numbers::digits(run)
            }
            c if c.is_ascii_digit() => quantity(run, Gender::Masculine).unwrap_or_default(),
            c if c.is_alphabetic() && is_spelled(run) => spell(run),
            c if c.is_alphabetic() => run.to_owned(),
            '%' => "por cento".to_owned(),
            '&' => "e".to_owned(),
            '=' => "igual a".to_owned(),
            '-' | '/' | '(' | ')' | ':' | ',' => String::new(),
            c => sign_name(c, "pt").unwrap_or_default().to_owned(),
        });
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Reads a part of a word.
fn letters(part: &str, token: &Token<'_>, is_last: bool, tokens: &[Token<'_>]) -> String {
    let name = part.trim_end_matches('-');
    let is_capitals = |text: &str| !text.contains(char::is_lowercase) && text.chars().count() > 1;
    // In a text in capitals, only abbreviations without vowels can be told from words.
    let words = tokens.iter().filter(|token| token.core.contains(char::is_alphabetic));
    let is_shouted = words.clone().count() > 1
        && words.clone().all(|token| !token.core.contains(char::is_lowercase));
    let is_letter = match name {
        // Articles and "e".
        "A" | "E" | "O" => !token.close.is_empty() || is_last,
        name => name.chars().count() == 1 && name.is_ascii() && !matches!(name, "a" | "e" | "o"),
    };
    let is_abbreviation = is_capitals(name) && is_spelled(name) && !is_shouted;
    if is_letter || is_abbreviation || (name.is_ascii() && !has_vowel(name)) {
        return format!("{} ", spell(name));
    }
    part.to_owned()
}

fn has_vowel(text: &str) -> bool {
    text.contains(|c: char| !c.is_ascii() || "aeiouyAEIOUY".contains(c))
}

/// Returns `true` if the letters of an abbreviation or code are spelled: it is short, and no word of
/// Portuguese can be written like this.
fn is_spelled(text: &str) -> bool {
    let capitals = text.to_uppercase();
    if SPOKEN_ACRONYMS.split(' ').any(|spoken| spoken == capitals)
        || text.chars().count() > 5
        || !text.is_ascii()
    {
        return false;
    }
    if text.chars().count() < 3 || !has_vowel(text) {
        return true;
    }
    let is_vowel = |c: char| "AEIOUY".contains(c);
    let consonants: Vec<&str> = capitals.split(is_vowel).collect();
    let last = consonants.len() - 1;
    let fits = |(index, cluster): (usize, &&str)| match (index, cluster.len()) {
        (_, 0) => true,
        (index, 1) if index == last => CODAS.contains(*cluster),
        (index, _) if index == last => false,
        (_, 1) => true,
        (0, 2) => ONSETS.contains(*cluster),
        (_, 2) => ONSETS.contains(*cluster) || cluster.starts_with(|c| CODAS.contains(c)),
        _ => false,
    };
    consonants.iter().all(|cluster| cluster.is_empty()) || !consonants.iter().enumerate().all(fits)
}

/// Spells letters and digits by their names.
fn spell(text: &str) -> String {
    let name = |c: char| match c.to_ascii_uppercase() {
        c @ 'A'..='Z' => LETTERS.get(usize::from(c as u8 - b'A')).copied().map(str::to_owned),
        'Ç' | 'ç' => Some("cê cedilha".to_owned()),
        c if c.is_ascii_digit() => Some(numbers::digits(&c.to_string())),
        c if c.is_alphabetic() => Some(c.to_string()),
        _ => None,
    };
    text.chars().filter_map(name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::words;

    #[rstest]
    // Numbers, which agree with the noun after them.
    #[case("Você tem 2 mensagens e 1 recado.", "Você tem duas mensagens e um recado.")]
    #[case(
        "21 dias, 200 pessoas, 1.250 ligações",
        "vinte e um dias, duzentas pessoas, mil duzentas e cinquenta ligações"
    )]
    #[case("2,5 e -3 e 0,05", "dois vírgula cinco e menos três e zero vírgula zero cinco")]
    #[case("007 e 12345678", "zero zero sete e um dois três quatro cinco seis sete oito")]
    #[case("1º andar, 2ª via, 23ª", "primeiro andar, segunda via, vigésima terceira")]
    #[case(
        "10-12 vezes, 2019-2026",
        "dez a doze vezes, dois mil e dezenove a dois mil e vinte e seis"
    )]
    // Money.
    #[case("R$ 1.250,50", "mil duzentos e cinquenta reais e cinquenta centavos")]
    #[case("R$1,00 e R$ 0,01.", "um real e um centavo.")]
    #[case("R$ 2,5 milhões, R$ 5 mil", "dois vírgula cinco milhões de reais, cinco mil reais")]
    #[case("R$ 1.000.000,00", "um milhão de reais")]
    #[case(
        "-R$ 20 ou US$ 2 ou 2 € ou £2",
        "menos vinte reais ou dois dólares ou dois euros ou duas libras"
    )]
    // Dates and times.
    #[case("em 24/12/2026.", "em vinte e quatro de dezembro de dois mil e vinte e seis.")]
    #[case(
        "1/5/1999, 2026-12-24",
        "primeiro de maio de mil novecentos e noventa e nove, vinte e quatro de dezembro de dois mil e vinte e seis"
    )]
    #[case("dia 05/03, 1 de maio", "dia cinco de março, primeiro de maio")]
    #[case("45/13/2026", "quatro cinco, um três, dois zero dois seis")]
    #[case("às 18:05", "às dezoito horas e cinco minutos")]
    #[case(
        "18h30, 8h, 1h e 10:30 h",
        "dezoito horas e trinta minutos, oito horas, uma hora e dez horas e trinta minutos"
    )]
    #[case("08:00-18:00, 8h - 18h", "oito horas a dezoito horas, oito horas a dezoito horas")]
    // Phone numbers and other codes.
    #[case(
        "+55 11 91234-5678",
        "mais cinco cinco, um um, nove um dois três quatro, cinco seis sete oito"
    )]
    #[case(
        "+5511912345678",
        "mais cinco cinco, um um, nove um dois três quatro, cinco seis sete oito"
    )]
    #[case("ligue (11) 3456-7890.", "ligue (um um, três quatro cinco seis, sete oito nove zero.")]
    #[case("0800 123 4567", "zero oito zero zero, um dois três, quatro cinco seis sete")]
    #[case(
        "91234-5678, 3456-7890",
        "nove um dois três quatro, cinco seis sete oito, três quatro cinco seis, sete oito nove zero"
    )]
    #[case("123.456.789-09", "um dois três, quatro cinco seis, sete oito nove, zero nove")]
    #[case("CEP 01310-100", "CEP zero um três um zero, um zero zero")]
    #[case("pedido A-4711, B2", "pedido á quatro sete um um, bê dois")]
    #[case("Seu código é 4321.", "Seu código é quatro três dois um.")]
    #[case("o pedido número 4711", "o pedido número quatro sete um um")]
    // Units.
    #[case("10 km, 5kg, 1 h", "dez quilômetros, cinco quilos, uma hora")]
    #[case(
        "12,5% a 60 km/h, 20°C",
        "doze vírgula cinco por cento a sessenta quilômetros por hora, vinte graus célsius"
    )]
    #[case("10-20%", "dez a vinte por cento")]
    // Addresses, abbreviations and letters.
    #[case("ana.lima@loja.com.br", "ana ponto lima arroba loja ponto com ponto bê erre")]
    #[case("https://www.loja.com/b2", "dáblio dáblio dáblio ponto loja ponto com barra bê dois")]
    #[case(
        "O Sr. e a Dra. na Av. Paulista, nº 9",
        "O senhor e a doutora na avenida Paulista, número nove"
    )]
    #[case("Loja Ltda.", "Loja limitada.")]
    #[case("CPF, INSS, PIX, EUA, ONU, km", "cê pê efe, i ene ésse ésse, PIX, é u á, ONU, cá eme")]
    #[case("TECLE O NÚMERO", "TECLE O NÚMERO")]
    #[case("A opção B, E. Plano A", "A opção bê, é. Plano á")]
    #[case("segunda-feira", "segunda-feira")]
    #[case("A, traço, 1", "á, traço, um")]
    #[case("C&A # *", "cê e á cerquilha asterisco")]
    #[case("\u{1F600} -", "")]
    #[case("", "")]
    fn text_becomes_words(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(words(text), expected);
    }
}
