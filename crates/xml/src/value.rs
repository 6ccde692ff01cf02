//! The value types of `plivo-xml.md` §3: trimmed text in, a typed value or a note on what is wrong with it out.

use std::borrow::Cow;

use model::{Digit, Method};

use super::findings::Note;
use super::grammar::{is_space, trim};
use super::rules;

/// What an attribute (or a body) may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Text without a rule of its own.
    Any,
    /// At most so many characters.
    Text(usize),
    /// Between so many and so many characters, never shown in a message.
    Secret(usize, usize),
    Bool,
    Int(u32, u32),
    /// A whole number, or a word that stands for another one.
    IntOr(u32, u32, &'static str, u32),
    Enum(Words),
    /// One of the words, or another token (W310).
    OpenEnum(&'static [&'static str]),
    Method,
    Url,
    WsUrl,
    /// One of the words, or a URL.
    UrlOr(&'static [&'static str]),
    Phone,
    /// Phones, separated by `<`.
    Phones,
    /// One key.
    Key,
    /// One key, or `none` or nothing for no key.
    KeyOrNone,
    /// At most so many keys.
    Keys(usize),
    /// Keys, or `none` or nothing for no key.
    KeysOrNone,
    DigitsList,
    SendDigits,
    /// `key=value` items, at most so many bytes.
    Pairs(usize),
    Lang,
    /// A language, W310 outside the list of voices `WOMAN` and `MAN`.
    ClassicLang,
    Voice,
    /// `GetInput inputType`.
    Input,
    /// `GetInput hints`.
    Hints,
    /// `Wait beep`.
    Beep,
    /// Words of a list, separated by commas, in any case.
    WordList(&'static [&'static str]),
    BreakTime,
    Volume,
    Rate,
    Pitch,
}

/// The words of an enumeration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) words: &'static [&'static str],
    /// Taken too, with W310.
    pub(super) tolerated: &'static [&'static str],
    pub(super) case: Case,
}

/// How letter case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// Another case than the word's is W302.
    Noted,
    Ignored,
    /// Another case is another word.
    Exact,
}

impl Kind {
    /// One of the words; another letter case is W302.
    pub(super) const fn one_of(words: &'static [&'static str]) -> Self {
        Self::Enum(Words { words, tolerated: &[], case: Case::Noted })
    }

    /// One of the words in exactly this case.
    pub(super) const fn exactly(words: &'static [&'static str]) -> Self {
        Self::Enum(Words { words, tolerated: &[], case: Case::Exact })
    }
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'v> {
    Flag(bool),
    Number(u32),
    /// A word of a table, in its own case.
    Word(&'static str),
    Text(Cow<'v, str>),
    Method(Method),
    /// All of them keys.
    Keys(&'v str),
    List(Vec<Cow<'v, str>>),
    Pairs(Vec<(&'v str, &'v str)>),
}

type Checked<'v> = Result<(Value<'v>, Option<Box<Note>>), Box<Note>>;

/// Languages Plivo lists for `WOMAN` and `MAN` (§5.2).
pub const CLASSIC_LANGUAGES: &[&str] = &[
    "da-DK", "nl-NL", "en-AU", "en-GB", "en-US", "fr-FR", "fr-CA", "de-DE", "it-IT", "pl-PL",
    "pt-PT", "pt-BR", "ru-RU", "es-ES", "es-US", "sv-SE",
];

/// Longest URL, in characters (L3).
const MAX_URL: usize = 2_048;

/// Looks at a trimmed value. `Ok` may carry a warning.
pub(super) fn check(kind: Kind, value: &str) -> Checked<'_> {
    match kind {
        Kind::Any => plain(Value::Text(value.into())),
        Kind::Text(max) if value.chars().count() <= max => plain(Value::Text(value.into())),
        Kind::Text(max) => Err(Note::bad(
            format!("has {} characters", value.chars().count()),
            format!("at most {max} characters"),
        )),
        Kind::Secret(min, max) if (min..=max).contains(&value.chars().count()) => {
            plain(Value::Text(value.into()))
        }
        Kind::Secret(min, max) => {
            Err(Note::bad("has the wrong length", format!("write {min} to {max} characters")))
        }
        Kind::Bool => boolean(value),
        Kind::Int(min, max) => int(value, min, max, ""),
        Kind::IntOr(_, _, word, number) if value.eq_ignore_ascii_case(word) => {
            Ok((Value::Number(number), other_case(value, word)))
        }
        Kind::IntOr(min, max, word, _) => int(value, min, max, word),
        Kind::Enum(words) => one_of(value, words),
        Kind::OpenEnum(words) => open_enum(value, words),
        Kind::Method => method(value),
        Kind::Url => url(value, ["http", "https"]),
        Kind::WsUrl => url(value, ["ws", "wss"]),
        Kind::UrlOr(words) => match words.iter().find(|word| value.eq_ignore_ascii_case(word)) {
            Some(word) => Ok((Value::Word(word), other_case(value, word))),
            None => url(value, ["http", "https"]).map_err(|mut note| {
                note.hint =
                    format!("write {} or an absolute URL, https://…", words.join(" ").trim())
                        .into();
                note
            }),
        },
        Kind::Phone => phone(value).map(|digits| (Value::Text(digits.into()), None)),
        Kind::Phones => {
            let phones = value.split('<').map(|p| phone(p.trim_matches(is_space)).map(Cow::from));
            let all: Result<Vec<_>, _> = phones.collect();
            all.map(|list| (Value::List(list), None))
        }
        Kind::Key => keys(value, 1).ok_or_else(|| Note::bad("is not one key", ONE_KEY)).map(clean),
        Kind::KeyOrNone => none_or(value, || keys(value, 1), ONE_KEY_OR_NONE),
        Kind::Keys(max) => keys(value, max)
            .ok_or_else(|| {
                Note::bad("is not a set of keys", format!("write 1 to {max} of 0-9 * #"))
            })
            .map(clean),
        Kind::KeysOrNone => {
            none_or(value, || keys(value, usize::MAX), "write keys of 0-9 * #, or none")
        }
        Kind::DigitsList => digits_list(value),
        Kind::SendDigits if is_send_digits(value) => plain(Value::Text(value.into())),
        Kind::SendDigits => Err(Note::bad(
            "cannot be sent as digits",
            "write 1 to 64 of 0-9 * # w W, and @ with a tone length of 40 to 2000 ms behind them if you like",
        )),
        Kind::Pairs(max_bytes) => pairs(value, max_bytes),
        Kind::Lang if is_language(value) => plain(Value::Text(value.into())),
        Kind::ClassicLang if is_language(value) => {
            let note = (!CLASSIC_LANGUAGES.contains(&value)).then(|| {
                let hint =
                    format!("Plivo's voices WOMAN and MAN speak {}", CLASSIC_LANGUAGES.join(", "));
                Note::new(rules::W310, "is a language Plivo does not list for this voice", hint)
            });
            Ok((Value::Text(value.into()), note))
        }
        Kind::Lang | Kind::ClassicLang => {
            Err(Note::bad("is not a language code", "write one such as en-US, hi-IN or es"))
        }
        Kind::Voice => voice(value),
        Kind::Input => input(value),
        Kind::Hints => hints(value),
        Kind::Beep => beep(value),
        Kind::WordList(words) => word_list(value, words),
        Kind::BreakTime => match break_millis(value) {
            Some(millis) if millis <= 10_000 => plain(Value::Number(millis)),
            Some(_) => Err(Note::bad("is longer than 10 seconds", "write at most 10s")),
            None => Err(Note::bad("is not a length of time", "write it as 250ms or 1.5s")),
        },
        Kind::Volume => {
            const WORDS: &[&str] =
                &["default", "silent", "x-soft", "soft", "medium", "loud", "x-loud"];
            let decibels = |v: &str| {
                v.strip_suffix("dB")
                    .and_then(|v| v.strip_prefix(['+', '-']))
                    .is_some_and(is_decimal)
            };
            sound(value, WORDS, decibels, "+6dB or -3dB")
        }
        Kind::Rate => {
            const WORDS: &[&str] = &["x-slow", "slow", "medium", "fast", "x-fast"];
            sound(
                value,
                WORDS,
                |v| v.strip_suffix('%').is_some_and(|n| in_range(n, 20, 200)),
                "20% to 200%",
            )
        }
        Kind::Pitch => {
            const WORDS: &[&str] = &["default", "x-low", "low", "medium", "high", "x-high"];
            let percent = |v: &str| {
                v.strip_suffix('%')
                    .and_then(|v| v.strip_prefix(['+', '-']))
                    .is_some_and(|n| in_range(n, 1, 50))
            };
            sound(value, WORDS, percent, "+1% to +50% or -1% to -50%")
        }
    }
}

const ONE_KEY: &str = "write one of 0-9 * #";
const ONE_KEY_OR_NONE: &str = "write one of 0-9 * #, or none";

fn plain(value: Value<'_>) -> Checked<'_> {
    Ok(clean(value))
}

fn clean(value: Value<'_>) -> (Value<'_>, Option<Box<Note>>) {
    (value, None)
}

/// W302 where a word is not written as in the table.
fn other_case(value: &str, word: &str) -> Option<Box<Note>> {
    (value != word)
        .then(|| Note::new(rules::W302, "is in unusual letter case", format!("write {word}")))
}

fn boolean(value: &str) -> Checked<'_> {
    for (word, flag) in [("true", true), ("false", false)] {
        if value.eq_ignore_ascii_case(word) {
            return Ok((Value::Flag(flag), other_case(value, word)));
        }
    }
    Err(Note::bad("is neither true nor false", "write true or false"))
}

fn int(value: &str, min: u32, max: u32, or: &str) -> Checked<'static> {
    let hint = || {
        let or = if or.is_empty() { String::new() } else { format!(", or {or}") };
        format!("write a whole number from {min} to {max}{or}")
    };
    if !is_number(value) {
        return Err(Note::bad("is not a whole number", hint()));
    }
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => plain(Value::Number(number)),
        _ => Err(Note::bad("is out of range", hint())),
    }
}

/// ASCII digits, at most ten of them.
pub(super) fn is_number(value: &str) -> bool {
    (1..=10).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())
}

fn in_range(digits: &str, min: u32, max: u32) -> bool {
    is_number(digits) && digits.parse().is_ok_and(|n| (min..=max).contains(&n))
}

fn is_decimal(value: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    value
        .split_once('.')
        .map_or_else(|| digits(value), |(whole, fraction)| digits(whole) && digits(fraction))
}

fn one_of(value: &str, Words { words, tolerated, case }: Words) -> Checked<'static> {
    let fits = |word: &&&str| {
        if case == Case::Exact { value == **word } else { value.eq_ignore_ascii_case(word) }
    };
    let documented = || words.join(", ");
    if let Some(word) = words.iter().find(fits) {
        let note = if case == Case::Noted { other_case(value, word) } else { None };
        return Ok((Value::Word(word), note));
    }
    match tolerated.iter().find(fits) {
        Some(word) => {
            let note = Note::new(
                rules::W310,
                "is not in Plivo's documented list",
                format!("documented: {}", documented()),
            );
            Ok((Value::Word(word), Some(note)))
        }
        None => Err(Note::bad(
            "is not one of the words allowed here",
            format!("write one of: {}", documented()),
        )),
    }
}

fn open_enum<'v>(value: &'v str, words: &[&'static str]) -> Checked<'v> {
    if let Some(word) = words.iter().find(|word| value.eq_ignore_ascii_case(word)) {
        return Ok((Value::Text((*word).into()), other_case(value, word)));
    }
    let hint = format!("documented: {}", words.join(", "));
    if value.contains(is_space) {
        return Err(Note::bad("is not one word", hint));
    }
    Ok((
        Value::Text(value.into()),
        Some(Note::new(rules::W310, "is not in Plivo's documented list", hint)),
    ))
}

fn method(value: &str) -> Checked<'_> {
    for method in [Method::Get, Method::Post] {
        if value.eq_ignore_ascii_case(method.as_str()) {
            return Ok((Value::Method(method), other_case(value, method.as_str())));
        }
    }
    Err(Note::new(rules::E312, "is neither GET nor POST", "write GET or POST"))
}

/// §3 `url`: absolute, one of the two schemes (plain, encrypted), a host, no user info, no spaces.
fn url<'v>(value: &'v str, [plain_scheme, encrypted]: [&str; 2]) -> Checked<'v> {
    if is_ordinary_url(value, encrypted) {
        return plain(Value::Text(value.into()));
    }
    let bad = |what: &'static str| {
        Err(Note::new(rules::E311, what, format!("write an absolute URL, {encrypted}://host/path")))
    };
    if value.len() > MAX_URL && value.chars().nth(MAX_URL).is_some() {
        return Err(Note::new(
            rules::E311,
            "is longer than 2048 characters",
            "keep state on your side, not in the URL",
        ));
    }
    let Some((scheme, rest)) = value.split_once("://") else {
        return bad("is not an absolute URL");
    };
    if ![plain_scheme, encrypted].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return bad("has another scheme than is allowed here");
    }
    let graphic = !super::any_byte(value, |b| !matches!(b, b'!'..=b'~'));
    if !graphic && value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Note::new(
            rules::E311,
            "has a space or control character in it",
            "write %20 for a space",
        ));
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    if authority.contains('@') {
        return Err(Note::new(
            rules::E311,
            "has a user name in it",
            "leave out what stands before the @: requests are signed, see X-Plivo-Signature-V3",
        ));
    }
    let reads =
        || url::Url::parse(value).is_ok_and(|url| url.host_str().is_some_and(|h| !h.is_empty()));
    if authority.is_empty() || !((graphic && is_plain_authority(authority)) || reads()) {
        return bad("has no valid host");
    }
    let note = scheme.eq_ignore_ascii_case(plain_scheme).then(|| {
        Note::new(
            rules::W311,
            "is not encrypted",
            format!("use {encrypted}: (a node refuses {plain_scheme}: by default)"),
        )
    });
    Ok((Value::Text(value.into()), note))
}

/// What nearly all are: encrypted, an ordinary name, nothing that is not graphic. Others are looked at closely.
fn is_ordinary_url(value: &str, encrypted: &str) -> bool {
    let rest = value.strip_prefix(encrypted).and_then(|rest| rest.strip_prefix("://"));
    rest.is_some_and(|rest| {
        let end = rest
            .bytes()
            .position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\'))
            .unwrap_or(rest.len());
        let graphic = !super::any_byte(rest, |b| !matches!(b, b'!'..=b'~'));
        value.len() <= MAX_URL && graphic && rest.get(..end).is_some_and(is_plain_authority)
    })
}

/// A name of ordinary labels, and perhaps a port: nearly every URL has one, and any parser reads it. Others are
/// left to one.
fn is_plain_authority(authority: &str) -> bool {
    let bytes = authority.as_bytes();
    let colon = bytes.iter().position(|b| *b == b':');
    let (name, port) = match colon {
        Some(at) => {
            (bytes.get(..at).unwrap_or_default(), authority.get(at + 1..).unwrap_or_default())
        }
        None => (bytes, "80"),
    };
    name.len() <= 253
        && is_plain_name(name)
        && (1..=5).contains(&port.len())
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// Labels of letters, digits and hyphens, none of which begins or ends with a hyphen; the last begins with a letter, which
/// makes it no IPv4 address.
fn is_plain_name(name: &[u8]) -> bool {
    let (mut at, mut first, mut last) = (0, b'-', b'-');
    for byte in name {
        match byte {
            b'.' if at == 0 || at > 63 || last == b'-' => return false,
            b'.' => at = 0,
            b'-' if at == 0 => return false,
            // Neither `xn--` nor what else is said by hyphens there.
            b'-' if at == 3 && last == b'-' => return false,
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                if at == 0 {
                    first = *byte;
                }
                at += 1;
            }
            _ => return false,
        }
        last = *byte;
    }
    (1..=63).contains(&at) && last != b'-' && first.is_ascii_alphabetic()
}

/// §3 `phone`, to its digits.
pub(super) fn phone(value: &str) -> Result<String, Box<Note>> {
    // `(+91) 80357-37458` is written too.
    let bare: String =
        value.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    let digits = bare.strip_prefix('+').unwrap_or(&bare);
    if (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(digits.to_owned());
    }
    Err(Note::bad(
        "is not a phone number",
        "write country code and number, 5 to 15 digits, such as 918035737458",
    ))
}

pub(super) fn key(c: char) -> Option<Digit> {
    Digit::try_from(c).ok().filter(|d| !d.is_letter())
}

fn keys(value: &str, max: usize) -> Option<Value<'_>> {
    // A key is one byte.
    let keys = (1..=max).contains(&value.len()) && value.chars().all(|c| key(c).is_some());
    keys.then_some(Value::Keys(value))
}

fn none_or<'v>(
    value: &'v str,
    keys: impl Fn() -> Option<Value<'v>>,
    hint: &'static str,
) -> Checked<'v> {
    if value.is_empty() {
        return plain(Value::Keys(""));
    }
    if value.eq_ignore_ascii_case("none") {
        return Ok((Value::Keys(""), other_case(value, "none")));
    }
    keys().map(clean).ok_or_else(|| Note::bad("is not a key", hint))
}

fn digits_list(value: &str) -> Checked<'_> {
    let pattern = |p: &str| (1..=16).contains(&p.len()) && p.chars().all(|c| key(c).is_some());
    if value.split(',').all(pattern) {
        return plain(Value::List(value.split(',').map(Cow::from).collect()));
    }
    Err(Note::bad(
        "is not a list of digit patterns",
        "write patterns of 1 to 16 of 0-9 * #, separated by commas without spaces",
    ))
}

/// What can be sent as tones: `0-9 * #`, `w` and `W` for pauses.
pub(super) fn is_dial_string(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.chars().all(|c| key(c).is_some() || matches!(c, 'w' | 'W'))
}

fn is_send_digits(value: &str) -> bool {
    match value.split_once('@') {
        Some((digits, millis)) => is_dial_string(digits) && in_range(millis, 40, 2_000),
        None => is_dial_string(value),
    }
}

fn pairs(value: &str, max_bytes: usize) -> Checked<'_> {
    if value.len() > max_bytes {
        return Err(Note::bad(
            format!("has {} bytes", value.len()),
            format!("at most {max_bytes} bytes"),
        ));
    }
    fn pair(item: &str) -> Option<(&str, &str)> {
        let (key, value) = item.split_once('=')?;
        let well = !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        well.then_some((key, value))
    }
    let all: Option<Vec<_>> = value.split(',').map(pair).collect();
    all.map(|pairs| (Value::Pairs(pairs), None)).ok_or_else(|| {
        Note::bad(
            "is not a list of key=value items",
            "write key=value,key=value; keys of letters, digits, - and _, no spaces around the commas",
        )
    })
}

/// `xx`, `xxx`, with a script and a region behind it if need be (BCP 47); letter case is free.
fn is_language(value: &str) -> bool {
    let letters = |s: &str, n: std::ops::RangeInclusive<usize>| {
        n.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let region =
        |s: &str| letters(s, 2..=2) || (s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit()));
    // What nearly all are.
    if matches!(value.as_bytes(), [a, b, b'-', c, d] if [a, b, c, d].iter().all(|b| b.is_ascii_alphabetic()))
    {
        return true;
    }
    let mut parts = value.split('-');
    if !parts.next().is_some_and(|language| letters(language, 2..=3)) {
        return false;
    }
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => true,
        (Some(part), None, _) => region(part),
        (Some(script), Some(part), None) => letters(script, 4..=4) && region(part),
        _ => false,
    }
}

fn voice(value: &str) -> Checked<'_> {
    for word in ["WOMAN", "MAN"] {
        if value.eq_ignore_ascii_case(word) {
            return Ok((Value::Text(word.into()), other_case(value, word)));
        }
    }
    let name =
        value.strip_prefix("Polly.").map(|name| name.strip_suffix("-Neural").unwrap_or(name));
    if name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic())) {
        return plain(Value::Text(value.into()));
    }
    Err(Note::bad("is not a voice", "write WOMAN, MAN or a Polly voice such as Polly.Joanna"))
}

fn input(value: &str) -> Checked<'_> {
    const WORDS: [&str; 2] = ["dtmf", "speech"];
    let mut given = value.split(is_space).filter(|w| !w.is_empty());
    let mut next =
        || given.next().map(|w| WORDS.iter().position(|word| w.eq_ignore_ascii_case(word)));
    let word = match (next(), next(), next()) {
        (Some(Some(0)), None, None) => "dtmf",
        (Some(Some(1)), None, None) => "speech",
        (Some(Some(first)), Some(Some(second)), None) if first != second => "dtmf speech",
        _ => return Err(Note::bad("is not a kind of input", "write dtmf, speech or dtmf speech")),
    };
    if value == word {
        return plain(Value::Word(word));
    }
    let written = value.split(is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    Ok((Value::Word(word), other_case(&written, word)))
}

fn hints(value: &str) -> Checked<'_> {
    let phrases: Vec<Cow<'_, str>> =
        value.split(',').map(trim).filter(|p| !p.is_empty()).map(Cow::from).collect();
    let longer = |text: &str, max: usize| text.len() > max && text.chars().nth(max).is_some();
    let limits = "at most 500 phrases, 100 characters each, 10000 in all";
    if phrases.len() > 500 {
        return Err(Note::bad(format!("has {} phrases", phrases.len()), limits));
    }
    if longer(value, 10_000) {
        return Err(Note::bad("has more than 10000 characters", limits));
    }
    if phrases.iter().any(|p| longer(p, 100)) {
        return Err(Note::bad("has a phrase of more than 100 characters", limits));
    }
    plain(Value::List(phrases))
}

fn beep(value: &str) -> Checked<'_> {
    if let Ok(flag) = boolean(value) {
        return Ok(flag);
    }
    const KEYS: &[&str] = &["duration", "inter_silence", "intra_silence", "threshold"];
    match pairs(value, usize::MAX) {
        Ok((Value::Pairs(items), _))
            if items.iter().all(|(k, v)| KEYS.contains(k) && is_number(v)) =>
        {
            plain(Value::Pairs(items))
        }
        _ => Err(Note::bad(
            "is not a beep setting",
            format!("write true, false, or whole numbers for {}", KEYS.join(", ")),
        )),
    }
}

fn word_list(value: &str, words: &[&'static str]) -> Checked<'static> {
    let known = |item: &str| {
        words.iter().find(|word| item.trim_matches(is_space).eq_ignore_ascii_case(word))
    };
    let all: Option<Vec<_>> =
        value.split(',').map(|item| known(item).map(|w| Cow::from(*w))).collect();
    all.map(|list| (Value::List(list), None)).ok_or_else(|| {
        Note::bad(
            "has a word that is not known here",
            format!("write some of: {}", words.join(", ")),
        )
    })
}

/// `250ms`, `1.5s`: milliseconds.
#[allow(
    clippy::as_conversions,
    reason = "it saturates: any length beyond the allowed is as good as any other"
)]
pub(super) fn break_millis(value: &str) -> Option<u32> {
    let (number, unit) = match value.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (value.strip_suffix('s')?, 1_000.0),
    };
    is_decimal(number)
        .then(|| number.parse::<f64>().ok())
        .flatten()
        .map(|n| (n * unit).round() as u32)
}

fn sound<'v>(
    value: &'v str,
    words: &[&'static str],
    number: impl Fn(&str) -> bool,
    form: &str,
) -> Checked<'v> {
    if words.contains(&value) || number(value) {
        return plain(Value::Text(value.into()));
    }
    Err(Note::bad(
        "is not a setting of prosody",
        format!("write one of: {}, or {form}", words.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_plain_authority;

    proptest! {
        /// What is taken without a parser is what a parser takes.
        #[test]
        fn a_plain_authority_is_read_by_any_parser(authority in "[aZ0x.-]{1,12}(\\.[a-z0-9-]{1,4})?(:[0-9]{0,6})?") {
            let read = url::Url::parse(&format!("https://{authority}/x"));
            let has_host = read.as_ref().is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()));
            prop_assert!(!is_plain_authority(&authority) || has_host, "{authority}: {read:?}");
        }
    }

    #[test]
    fn ordinary_names_need_no_parser() {
        for plain in ["app.example.com", "App.Example.com:8443", "localhost", "a-b.c0"] {
            assert!(is_plain_authority(plain), "{plain}");
        }
        for other in [
            "",
            "1.2.3.4",
            "[::1]",
            "xn--bcher-kva.example",
            "a..b",
            "-a.b",
            "a.b:",
            "a.b:70000",
            "a_b.c",
            "a.0x1",
        ] {
            assert!(!is_plain_authority(other), "{other}");
        }
    }
}
