//! English words for sequences of signs: phone numbers, codes, e-mail addresses and URLs.

use std::borrow::Cow;

use super::number::{self, Number, NumberStyle, is_digits};

/// Returns the name of a sign, or `None` if it has no name here.
pub(super) fn sign_name(c: char) -> Option<&'static str> {
    Some(match c {
        '.' => "dot",
        '@' => "at",
        '-' => "dash",
        '_' => "underscore",
        '/' => "slash",
        '+' => "plus",
        '#' => "hash",
        '*' => "star",
        ':' => "colon",
        '?' => "question mark",
        '=' => "equals",
        '&' => "and",
        '%' => "percent",
        '~' => "tilde",
        '×' => "times",
        '>' => "greater than",
        '<' => "less than",
        '≥' => "at least",
        '≤' => "at most",
        '≈' => "about",
        _ => return None,
    })
}

/// Writes dashes between values as hyphens, and fractions such as `2½` with digits.
pub(super) fn plain_signs(text: &str) -> Cow<'_, str> {
    const FRACTIONS: [(char, &str); 5] =
        [('½', "1/2"), ('¼', "1/4"), ('¾', "3/4"), ('⅓', "1/3"), ('⅔', "2/3")];
    let is_dash = |c: char| matches!(c, '–' | '‒' | '−');
    if !text.contains(|c| is_dash(c) || FRACTIONS.iter().any(|(sign, _)| *sign == c)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match FRACTIONS.iter().find(|(sign, _)| *sign == c) {
            Some((_, digits)) => {
                if plain.ends_with(|last: char| last.is_ascii_digit()) {
                    plain.push(' ');
                }
                plain.push_str(digits);
            }
            None => plain.push(if is_dash(c) { '-' } else { c }),
        }
    }
    Cow::Owned(plain)
}

/// Reads letters with full stops between them: `U.S.A`, `a.k.a`. Returns `None` for other text.
pub(super) fn initials(text: &str) -> Option<String> {
    let is_initial = |part: &str| part.len() == 1 && part.bytes().all(|b| b.is_ascii_alphabetic());
    let has_stops = text.contains('.') && text.split('.').all(is_initial);
    has_stops.then(|| spell(&text.replace('.', "")))
}

/// Reads the last digits of a masked number: `XXXX1234`, `****4242`. Returns `None` for other text.
pub(super) fn masked(text: &str) -> Option<String> {
    let digits = text.trim_start_matches(['X', 'x', '*', '•', '-']);
    let mask = text.strip_suffix(digits)?;
    let has_mask = mask.chars().filter(|c| *c != '-').count() >= 3;
    (has_mask && is_digits(digits)).then(|| format!("ending in {}", number::digits(digits)))
}

/// Reads a number and words that hyphens connect: `20-year-old`, `3-day`. Returns `None` for other
/// text.
pub(super) fn compound(text: &str, style: NumberStyle) -> Option<String> {
    let (count, words) = text.split_once('-')?;
    let count = Number::parse(count).filter(|_| !count.starts_with('0'))?;
    let is_word = |word: &str| {
        let mut letters = word.bytes();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && word.len() >= 3
            && letters.all(|b| b.is_ascii_lowercase())
    };
    let all_words = words.split('-').all(is_word);
    all_words.then(|| format!("{} {}", count.words(style), words.replace('-', " ")))
}

/// Spells a text letter by letter. The comma after an "A" prevents engines from reading it as an
/// article.
pub(super) fn spell(text: &str) -> String {
    let mut words = Vec::new();
    for c in text.chars() {
        match c {
            'a' | 'A' => words.push("A,".to_owned()),
            c if c.is_ascii_digit() => words.push(number::digits(&c.to_string())),
            c => words.push(
                sign_name(c).map_or_else(|| c.to_uppercase().collect(), |name| name.to_owned()),
            ),
        }
    }
    words.join(" ").trim_end_matches(',').to_owned()
}

/// Reads groups of digits one by one, with a short pause between groups: "+91 80357 37458".
pub(super) fn phone_number(groups: &[&str]) -> String {
    let read = |group: &&str| {
        let digits = number::digits(group);
        if group.starts_with('+') { format!("plus {digits}") } else { digits }
    };
    let groups: Vec<String> =
        groups.iter().filter(|g| g.contains(|c: char| c.is_ascii_digit())).map(read).collect();
    groups.join(", ")
}

/// Splits a long number without separators into groups that are easy to remember.
pub(super) fn group_digits(text: &str) -> Vec<&str> {
    let sizes: &[usize] = match text.len() {
        ..=5 => &[5],
        6 => &[3, 3],
        7 => &[3, 4],
        8 => &[4, 4],
        9 => &[3, 3, 3],
        10 => &[3, 3, 4],
        11 => &[1, 3, 3, 4],
        12 => &[4, 4, 4],
        _ => &[4],
    };
    let mut groups = Vec::new();
    let mut rest = text;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (group, tail) = rest.split_at_checked(*size).unwrap_or((rest, ""));
        groups.push(group);
        rest = tail;
    }
    groups
}

/// Returns `true` if the letters of a code are spelled out: at most two letters, at most three
/// capitals, or no vowel.
fn is_spelled(letters: &str) -> bool {
    let has_vowel = letters.contains(['a', 'e', 'i', 'o', 'u', 'y', 'A', 'E', 'I', 'O', 'U', 'Y']);
    let is_upper = letters.bytes().all(|b| b.is_ascii_uppercase());
    !has_vowel || letters.len() <= 2 || (is_upper && letters.len() <= 3)
}

/// Reads a mixture of letters, digits and signs: `A-4711`, `AB12CD`, `5G`. Returns `None` if the
/// text has no digit, no letter or other signs.
pub(super) fn code(text: &str, style: NumberStyle) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '_' | '.');
    let has = |f: fn(&char) -> bool| text.chars().any(|c| f(&c));
    if !text.chars().all(allowed)
        || !has(char::is_ascii_digit)
        || !has(char::is_ascii_alphabetic)
        || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        return None;
    }
    // Letters between several groups of digits are no word.
    let is_mixed = runs(text).filter(|run| is_digits(run)).count() > 1;
    let is_spelled = |letters: &str| {
        is_spelled(letters) || (is_mixed && letters.bytes().all(|b| b.is_ascii_uppercase()))
    };
    let mut words = Vec::new();
    for run in runs(text) {
        if is_digits(run) {
            words.push(if run.len() > 2 || run.starts_with('0') {
                number::digits(run)
            } else {
                number::cardinal(run.parse().ok()?, style)
            });
        } else if run.starts_with(|c: char| c.is_ascii_alphabetic()) {
            words.push(if is_spelled(run) { spell(run) } else { run.to_owned() });
            if let Some(word) = words.last_mut().filter(|word| word.ends_with('A')) {
                word.push(',');
            }
        } else {
            // Hyphens in codes are spoken as pauses.
            match (run, words.last_mut()) {
                ("-" | "_", Some(last)) if !last.ends_with(',') => last.push(','),
                ("/", _) => words.push("slash".to_owned()),
                (".", _) => words.push("dot".to_owned()),
                _ => {}
            }
        }
    }
    Some(words.join(" ").trim_end_matches(',').to_owned())
}

/// Splits a text into runs of letters, runs of digits and single signs.
pub(crate) fn runs(text: &str) -> impl Iterator<Item = &str> {
    let kind = |c: char| match c {
        c if c.is_ascii_digit() => 0,
        c if c.is_alphabetic() => 1,
        _ => 2,
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = kind(rest.chars().next()?);
        let end = match first {
            2 => rest.chars().next().map_or(0, char::len_utf8),
            _ => rest.find(|c| kind(c) != first).unwrap_or(rest.len()),
        };
        let (run, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(run)
    })
}

/// Returns the part of an address that is spoken: `name@example.com`, `https://www.example.com/help`
/// without its scheme, `www.example.com`, `example.com`. Returns `None` for other text.
pub(crate) fn address(text: &str) -> Option<&str> {
    if is_email(text) { Some(text) } else { url(text) }
}

fn is_email(text: &str) -> bool {
    let is_local = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && local.chars().all(is_local) && is_domain(domain)
    })
}

/// Top-level domains by which a name without `www.` is recognised.
const DOMAINS: &[&str] = &[
    "com", "org", "net", "info", "biz", "gov", "edu", "io", "co", "in", "uk", "us", "eu", "de",
    "fr", "br", "ai", "app", "dev", "me", "tv",
];

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.contains('.')
        && text.split('.').all(is_label)
        && text
            .rsplit('.')
            .next()
            .is_some_and(|top| top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic()))
}

fn url(text: &str) -> Option<&str> {
    let without_scheme = ["https://", "http://", "HTTPS://", "HTTP://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let address = without_scheme.unwrap_or(text).trim_end_matches('/');
    let host = address.split(['/', '?', '#', ':']).next().unwrap_or_default();
    if !is_domain(host) || !address.is_ascii() {
        return None;
    }
    let is_listed = || {
        let top = host.rsplit('.').next().unwrap_or_default();
        top.bytes().all(|b| b.is_ascii_lowercase()) && DOMAINS.contains(&top)
    };
    if without_scheme.is_none() && !host.starts_with("www.") && !is_listed() {
        return None;
    }
    Some(address)
}

/// Reads an address: words as words, digits one by one, signs by their names.
pub(super) fn read_address(text: &str) -> String {
    let mut words = Vec::new();
    for run in runs(text) {
        words.push(match run {
            "www" => "W W W".to_owned(),
            "in" | "me" | "co" => run.to_owned(),
            run if is_digits(run) => number::digits(run),
            run if run.chars().count() == 1 => {
                run.chars().next().and_then(sign_name).map_or_else(|| spell(run), str::to_owned)
            }
            run if run.bytes().all(|b| b.is_ascii_alphabetic()) && is_spelled(run) => spell(run),
            run => run.to_owned(),
        });
    }
    words.join(" ")
}
