//! The types of attribute values and bodies (docs/reference/xml.md#attribute-types). [`check`]
//! turns a trimmed text into a typed value, a [`Problem`] or both.

use std::borrow::Cow;

use model::{Digit, Method};

use super::findings::Problem;
use super::grammar::{is_space, trim};
use super::rules;

/// The type of an attribute value or a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Any,
    /// Text of at most this many characters.
    Text(usize),
    /// Text with a minimum and a maximum number of characters, never quoted in a message.
    Secret(usize, usize),
    Bool,
    /// An integer between a minimum and a maximum.
    Int(u32, u32),
    /// An integer between a minimum and a maximum, or a word that stands for the last number.
    IntOr(u32, u32, &'static str, u32),
    Enum(Words),
    /// One of the words, or any other text without white space (W310).
    OpenEnum(&'static [&'static str]),
    Method,
    Url,
    WsUrl,
    /// One of the words, or a `http` or `https` URL.
    UrlOr(&'static [&'static str]),
    Phone,
    /// Phone numbers separated by `<`.
    Phones,
    /// A single key of the keypad.
    Key,
    /// A single key of the keypad. `none` or an empty value means no key.
    KeyOrNone,
    /// A string of one to this many keypad characters.
    Keys(usize),
    /// A string of keypad characters. `none` or an empty value means no keys.
    KeysOrNone,
    DigitsList,
    SendDigits,
    /// Comma-separated `key=value` items of at most this many bytes.
    Pairs(usize),
    Lang,
    /// A language of the voices `WOMAN` and `MAN`. Other languages are accepted with W310.
    ClassicLang,
    Voice,
    /// The value of `inputType` of `GetInput`.
    Input,
    /// The value of `hints` of `GetInput`.
    Hints,
    /// The value of `beep` of `Wait`.
    Beep,
    /// Comma-separated words of the list, in any letter case.
    WordList(&'static [&'static str]),
    BreakTime,
    Volume,
    Rate,
    Pitch,
}

/// The allowed values of an enumerated attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) words: &'static [&'static str],
    /// Words that Plivo does not document. They are accepted with W310.
    pub(super) undocumented: &'static [&'static str],
    pub(super) case: Case,
}

/// The treatment of the letter case of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// Another letter case is accepted with W302.
    Warn,
    Insensitive,
    Sensitive,
}

impl Kind {
    /// Returns the type of one of the words. Another letter case is accepted with W302.
    pub(super) const fn one_of(words: &'static [&'static str]) -> Self {
        Self::Enum(Words { words, undocumented: &[], case: Case::Warn })
    }

    /// Returns the type of one of the words, case-sensitive.
    pub(super) const fn case_sensitive(words: &'static [&'static str]) -> Self {
        Self::Enum(Words { words, undocumented: &[], case: Case::Sensitive })
    }
}

/// A valid value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'v> {
    Flag(bool),
    Number(u32),
    /// A word of an enumeration, in the letter case of its table.
    Word(&'static str),
    Text(Cow<'v, str>),
    Method(Method),
    /// A string of keypad characters.
    Keys(&'v str),
    List(Vec<Cow<'v, str>>),
    Pairs(Vec<(&'v str, &'v str)>),
}

/// The place for a valid value, where it stays. Returning a value would move it right after its
/// parts were written, and the processor cannot forward narrow writes to a wide read: the wait took
/// longer than most checks.
type Place<'p, 'v> = &'p mut Option<Value<'v>>;

/// The warning or error about a value, if any.
type CheckResult = Option<Box<Problem>>;

/// The languages that Plivo documents for the voices `WOMAN` and `MAN`.
pub const CLASSIC_LANGUAGES: &[&str] = &[
    "da-DK", "nl-NL", "en-AU", "en-GB", "en-US", "fr-FR", "fr-CA", "de-DE", "it-IT", "pl-PL",
    "pt-PT", "pt-BR", "ru-RU", "es-ES", "es-US", "sv-SE",
];

/// Maximum length of a URL, in characters.
const MAX_URL: usize = 2_048;

/// Checks a trimmed value and puts it into `place`, which stays `None` if the problem is an error.
pub(super) fn check<'v>(kind: &Kind, value: &'v str, place: Place<'_, 'v>) -> CheckResult {
    match *kind {
        Kind::Any => valid(place, Value::Text(value.into())),
        Kind::Text(max) if value.chars().count() <= max => valid(place, Value::Text(value.into())),
        Kind::Text(max) => Some(Problem::invalid(
            format!("has {} characters", value.chars().count()),
            format!("write at most {max} characters"),
        )),
        Kind::Secret(min, max) if (min..=max).contains(&value.chars().count()) => {
            valid(place, Value::Text(value.into()))
        }
        Kind::Secret(min, max) => Some(Problem::invalid(
            "has the wrong length",
            format!("write {min} to {max} characters"),
        )),
        Kind::Bool => boolean(value, place),
        Kind::Int(min, max) => int(value, min, max, "", place),
        Kind::IntOr(_, _, word, number) if value.eq_ignore_ascii_case(word) => {
            accept_word(place, Value::Number(number), value, word)
        }
        Kind::IntOr(min, max, word, _) => int(value, min, max, word, place),
        Kind::Enum(words) => one_of(value, words, place),
        Kind::OpenEnum(words) => open_enum(value, words, place),
        Kind::Method => method(value, place),
        Kind::Url => url(value, ["http", "https"], place),
        Kind::WsUrl => url(value, ["ws", "wss"], place),
        Kind::UrlOr(words) => match words.iter().find(|word| value.eq_ignore_ascii_case(word)) {
            Some(word) => accept_word(place, Value::Word(word), value, word),
            None => {
                let mut problem = url(value, ["http", "https"], place);
                if let (None, Some(problem)) = (place, &mut problem) {
                    let words: Vec<_> =
                        words.iter().copied().filter(|word| !word.is_empty()).collect();
                    let words = words.join(", ");
                    problem.hint = format!("write {words}, or an absolute URL, https://…").into();
                }
                problem
            }
        },
        Kind::Phone => match phone(value) {
            Ok(digits) => valid(place, Value::Text(digits.into())),
            Err(problem) => Some(problem),
        },
        Kind::Phones => {
            let phones = value.split('<').map(|p| phone(p.trim_matches(is_space)).map(Cow::from));
            match phones.collect() {
                Ok(list) => valid(place, Value::List(list)),
                Err(problem) => Some(problem),
            }
        }
        Kind::Key if is_keys(value, 1) => valid(place, Value::Keys(value)),
        Kind::Key => Some(Problem::invalid("is not one key", ONE_KEY)),
        Kind::KeyOrNone => keys_or_none(value, 1, ONE_KEY_OR_NONE, place),
        Kind::Keys(max) if is_keys(value, max) => valid(place, Value::Keys(value)),
        Kind::Keys(max) => {
            Some(Problem::invalid("is not a set of keys", format!("write 1 to {max} of 0-9 * #")))
        }
        Kind::KeysOrNone => {
            keys_or_none(value, usize::MAX, "write keys of 0-9 * #, or none", place)
        }
        Kind::DigitsList => digits_list(value, place),
        Kind::SendDigits if is_send_digits(value) => valid(place, Value::Text(value.into())),
        Kind::SendDigits => Some(Problem::invalid(
            "cannot be sent as digits",
            "write 1 to 64 of 0-9 * # w W, optionally followed by @ and a tone length of 40 to 2000 ms",
        )),
        Kind::Pairs(max_bytes) => pairs(value, max_bytes, place),
        Kind::Lang if is_language(value) => valid(place, Value::Text(value.into())),
        Kind::ClassicLang if is_language(value) => {
            let problem = (!CLASSIC_LANGUAGES.contains(&value)).then(|| {
                let hint =
                    format!("documented for WOMAN and MAN: {}", CLASSIC_LANGUAGES.join(", "));
                Problem::new(rules::W310, "is not in Plivo's documented list for this voice", hint)
            });
            *place = Some(Value::Text(value.into()));
            problem
        }
        Kind::Lang | Kind::ClassicLang => Some(Problem::invalid(
            "is not a language code",
            "write a code such as en-US, hi-IN or es",
        )),
        Kind::Voice => voice(value, place),
        Kind::Input => input(value, place),
        Kind::Hints => hints(value, place),
        Kind::Beep => beep(value, place),
        Kind::WordList(words) => word_list(value, words, place),
        Kind::BreakTime => match break_millis(value) {
            Some(millis) if millis <= 10_000 => valid(place, Value::Number(millis)),
            Some(_) => Some(Problem::invalid("is longer than 10 seconds", "write at most 10s")),
            None => Some(Problem::invalid(
                "is not a duration",
                "write a duration such as 250ms or 1.5s",
            )),
        },
        Kind::Volume => {
            const WORDS: &[&str] =
                &["default", "silent", "x-soft", "soft", "medium", "loud", "x-loud"];
            let decibels = |v: &str| {
                v.strip_suffix("dB")
                    .and_then(|v| v.strip_prefix(['+', '-']))
                    .is_some_and(is_decimal)
            };
            prosody(value, WORDS, decibels, "+6dB or -3dB", place)
        }
        Kind::Rate => {
            const WORDS: &[&str] = &["x-slow", "slow", "medium", "fast", "x-fast"];
            prosody(
                value,
                WORDS,
                |v| v.strip_suffix('%').is_some_and(|n| in_range(n, 20, 200)),
                "20% to 200%",
                place,
            )
        }
        Kind::Pitch => {
            const WORDS: &[&str] = &["default", "x-low", "low", "medium", "high", "x-high"];
            let percent = |v: &str| {
                v.strip_suffix('%')
                    .and_then(|v| v.strip_prefix(['+', '-']))
                    .is_some_and(|n| in_range(n, 1, 50))
            };
            prosody(value, WORDS, percent, "+1% to +50% or -1% to -50%", place)
        }
    }
}

const ONE_KEY: &str = "write one of 0-9 * #";
const ONE_KEY_OR_NONE: &str = "write one of 0-9 * #, or none";

fn valid<'v>(place: Place<'_, 'v>, value: Value<'v>) -> CheckResult {
    *place = Some(value);
    None
}

/// Accepts the value if it is a known word, with W302 if its letter case differs from the table.
fn accept_word<'v>(place: Place<'_, 'v>, typed: Value<'v>, value: &str, word: &str) -> CheckResult {
    *place = Some(typed);
    case_problem(value, word)
}

/// Returns W302 if the letter case of a word, or the order of several, differs from the table.
fn case_problem(value: &str, word: &str) -> Option<Box<Problem>> {
    let what = match value.eq_ignore_ascii_case(word) {
        true => "is in unusual letter case",
        false => "has its words in unusual order",
    };
    (value != word).then(|| Problem::new(rules::W302, what, format!("write {word}")))
}

fn boolean(value: &str, place: Place<'_, '_>) -> CheckResult {
    for (name, flag) in [("true", true), ("false", false)] {
        if value.eq_ignore_ascii_case(name) {
            return accept_word(place, Value::Flag(flag), value, name);
        }
    }
    Some(Problem::invalid("is neither true nor false", "write true or false"))
}

fn int(value: &str, min: u32, max: u32, or: &str, place: Place<'_, '_>) -> CheckResult {
    let hint = || {
        let or = if or.is_empty() { String::new() } else { format!(", or {or}") };
        format!("write a whole number from {min} to {max}{or}")
    };
    if !is_number(value) {
        return Some(Problem::invalid("is not a whole number", hint()));
    }
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => valid(place, Value::Number(number)),
        _ => Some(Problem::invalid("is out of range", hint())),
    }
}

/// Whether the value is 1 to 10 ASCII digits.
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

fn one_of(
    value: &str,
    Words { words, undocumented, case }: Words,
    place: Place<'_, '_>,
) -> CheckResult {
    let fits = |word: &&&str| {
        if case == Case::Sensitive { value == **word } else { value.eq_ignore_ascii_case(word) }
    };
    let documented = || words.join(", ");
    if let Some(word) = words.iter().find(fits) {
        *place = Some(Value::Word(word));
        return if case == Case::Warn { case_problem(value, word) } else { None };
    }
    match undocumented.iter().find(fits) {
        Some(word) => {
            *place = Some(Value::Word(word));
            Some(Problem::new(
                rules::W310,
                "is not in Plivo's documented list",
                format!("documented: {}", documented()),
            ))
        }
        None => Some(Problem::invalid(
            "is not one of the allowed words",
            format!("write one of: {}", documented()),
        )),
    }
}

fn open_enum<'v>(value: &'v str, words: &[&'static str], place: Place<'_, 'v>) -> CheckResult {
    if let Some(known) = words.iter().find(|word| value.eq_ignore_ascii_case(word)) {
        return accept_word(place, Value::Text((*known).into()), value, known);
    }
    let hint = format!("documented: {}", words.join(", "));
    if value.contains(is_space) {
        return Some(Problem::invalid("is not one word", hint));
    }
    *place = Some(Value::Text(value.into()));
    Some(Problem::new(rules::W310, "is not in Plivo's documented list", hint))
}

fn method(value: &str, place: Place<'_, '_>) -> CheckResult {
    for method in [Method::Get, Method::Post] {
        if value.eq_ignore_ascii_case(method.as_str()) {
            return accept_word(place, Value::Method(method), value, method.as_str());
        }
    }
    Some(Problem::new(rules::E312, "is neither GET nor POST", "write GET or POST"))
}

/// Checks a URL: absolute, with one of two schemes (unencrypted, encrypted), a host, no user name
/// and no white space.
fn url<'v>(
    value: &'v str,
    [plain_scheme, encrypted]: [&str; 2],
    place: Place<'_, 'v>,
) -> CheckResult {
    if is_simple_url(value, encrypted) {
        return valid(place, Value::Text(value.into()));
    }
    let invalid = |predicate: &'static str| {
        Some(Problem::new(
            rules::E311,
            predicate,
            format!("write an absolute URL, {encrypted}://host/path"),
        ))
    };
    if value.len() > MAX_URL && value.chars().nth(MAX_URL).is_some() {
        return Some(Problem::new(
            rules::E311,
            "is longer than 2048 characters",
            "keep state on your server instead of in the URL",
        ));
    }
    let Some((scheme, rest)) = value.split_once("://") else {
        return invalid("is not an absolute URL");
    };
    if ![plain_scheme, encrypted].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return invalid("has a scheme that is not allowed here");
    }
    let graphic = !super::any_byte(value, |b| !matches!(b, b'!'..=b'~'));
    if !graphic && value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some(Problem::new(
            rules::E311,
            "contains a space or control character",
            "write %20 for a space",
        ));
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    if authority.contains('@') {
        return Some(Problem::new(
            rules::E311,
            "contains a user name",
            "remove the part before the @: requests are signed, see X-Plivo-Signature-V3",
        ));
    }
    let reads =
        || url::Url::parse(value).is_ok_and(|url| url.host_str().is_some_and(|h| !h.is_empty()));
    if authority.is_empty() || !((graphic && is_simple_authority(authority)) || reads()) {
        return invalid("has no valid host");
    }
    *place = Some(Value::Text(value.into()));
    scheme.eq_ignore_ascii_case(plain_scheme).then(|| {
        Problem::new(
            rules::W311,
            "is not encrypted",
            format!("use {encrypted}: (a node refuses {plain_scheme}: by default)"),
        )
    })
}

/// Whether the URL has the most common form: encrypted, a simple host name, and only printable
/// ASCII. Such a URL is valid without further checks.
fn is_simple_url(value: &str, encrypted: &str) -> bool {
    let rest = value.strip_prefix(encrypted).and_then(|rest| rest.strip_prefix("://"));
    rest.is_some_and(|rest| {
        let end = rest
            .bytes()
            .position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\'))
            .unwrap_or(rest.len());
        let graphic = !super::any_byte(rest, |b| !matches!(b, b'!'..=b'~'));
        value.len() <= MAX_URL && graphic && rest.get(..end).is_some_and(is_simple_authority)
    })
}

/// Whether the authority is a simple host name with an optional port, which is valid for every URL
/// parser. Most URLs have one; the others are passed to a parser.
fn is_simple_authority(authority: &str) -> bool {
    let bytes = authority.as_bytes();
    let colon = bytes.iter().position(|b| *b == b':');
    let (name, port) = match colon {
        Some(at) => {
            (bytes.get(..at).unwrap_or_default(), authority.get(at + 1..).unwrap_or_default())
        }
        None => (bytes, "80"),
    };
    name.len() <= 253
        && is_simple_name(name)
        && (1..=5).contains(&port.len())
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// Whether the name consists of labels of letters, digits and hyphens that do not start or end with
/// a hyphen. The last label must start with a letter, so that the name is not an IPv4 address.
fn is_simple_name(name: &[u8]) -> bool {
    let mut labels = name.split(|b| *b == b'.');
    let is_simple = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
            // Hyphens in the third and fourth position are reserved, for example for `xn--`.
            && label.get(2..4) != Some(b"--")
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let last = labels.next_back().unwrap_or_default();
    last.first().is_some_and(u8::is_ascii_alphabetic) && is_simple(last) && labels.all(is_simple)
}

/// Parses a phone number to its digits.
pub(super) fn phone(value: &str) -> Result<String, Box<Problem>> {
    // The plus may follow a bracket: `(+91) 80357-37458`.
    let bare: String =
        value.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    let digits = bare.strip_prefix('+').unwrap_or(&bare);
    if (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(digits.to_owned());
    }
    Err(Problem::invalid(
        "is not a phone number",
        "write country code and number, 5 to 15 digits, such as 918035737458",
    ))
}

pub(super) fn key(c: char) -> Option<Digit> {
    Digit::try_from(c).ok().filter(|d| !d.is_letter())
}

fn is_keys(value: &str, max: usize) -> bool {
    // Every key is one byte.
    (1..=max).contains(&value.len()) && value.chars().all(|c| key(c).is_some())
}

fn keys_or_none<'v>(
    value: &'v str,
    max: usize,
    hint: &'static str,
    place: Place<'_, 'v>,
) -> CheckResult {
    if value.is_empty() || is_keys(value, max) {
        return valid(place, Value::Keys(value));
    }
    if value.eq_ignore_ascii_case("none") {
        return accept_word(place, Value::Keys(""), value, "none");
    }
    Some(Problem::invalid("is not a key", hint))
}

fn digits_list<'v>(value: &'v str, place: Place<'_, 'v>) -> CheckResult {
    let pattern = |p: &str| (1..=16).contains(&p.len()) && p.chars().all(|c| key(c).is_some());
    if value.split(',').all(pattern) {
        return valid(place, Value::List(value.split(',').map(Cow::from).collect()));
    }
    Some(Problem::invalid(
        "is not a list of digit patterns",
        "write patterns of 1 to 16 of 0-9 * #, separated by commas without spaces",
    ))
}

/// Whether the value can be sent as tones: 1 to 64 of `0-9 * #`, and `w` and `W` for pauses.
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

fn pairs<'v>(value: &'v str, max_bytes: usize, place: Place<'_, 'v>) -> CheckResult {
    if value.len() > max_bytes {
        return Some(Problem::invalid(
            format!("has {} bytes", value.len()),
            format!("write at most {max_bytes} bytes"),
        ));
    }

    fn pair(item: &str) -> Option<(&str, &str)> {
        let (key, value) = item.split_once('=')?;
        let well = !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        well.then_some((key, value))
    }
    match value.split(',').map(pair).collect() {
        Some(pairs) => valid(place, Value::Pairs(pairs)),
        None => Some(Problem::invalid(
            "is not a list of key=value items",
            "write key=value,key=value with keys of letters, digits, - and _, without spaces around commas",
        )),
    }
}

/// Whether the value is a language of two or three letters, optionally followed by a script and a
/// region (BCP 47), in any letter case.
fn is_language(value: &str) -> bool {
    let letters = |s: &str, n: std::ops::RangeInclusive<usize>| {
        n.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let region =
        |s: &str| letters(s, 2..=2) || (s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit()));
    // The most common form.
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

fn voice<'v>(value: &'v str, place: Place<'_, 'v>) -> CheckResult {
    for name in ["WOMAN", "MAN"] {
        if value.eq_ignore_ascii_case(name) {
            return accept_word(place, Value::Text(name.into()), value, name);
        }
    }
    let name =
        value.strip_prefix("Polly.").map(|name| name.strip_suffix("-Neural").unwrap_or(name));
    if name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic())) {
        return valid(place, Value::Text(value.into()));
    }
    Some(Problem::invalid(
        "is not a voice",
        "write WOMAN, MAN or a Polly voice such as Polly.Joanna",
    ))
}

fn input(value: &str, place: Place<'_, '_>) -> CheckResult {
    const WORDS: [&str; 2] = ["dtmf", "speech"];
    let mut words = value.split(is_space).filter(|w| !w.is_empty());
    let mut next =
        || words.next().map(|w| WORDS.iter().position(|word| w.eq_ignore_ascii_case(word)));
    let known = match (next(), next(), next()) {
        (Some(Some(0)), None, None) => "dtmf",
        (Some(Some(1)), None, None) => "speech",
        (Some(Some(first)), Some(Some(second)), None) if first != second => "dtmf speech",
        _ => {
            return Some(Problem::invalid(
                "is not a list of input types",
                "write dtmf, speech or dtmf speech",
            ));
        }
    };
    if value == known {
        return valid(place, Value::Word(known));
    }
    let written = value.split(is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    accept_word(place, Value::Word(known), &written, known)
}

fn hints<'v>(value: &'v str, place: Place<'_, 'v>) -> CheckResult {
    let phrases: Vec<Cow<'_, str>> =
        value.split(',').map(trim).filter(|p| !p.is_empty()).map(Cow::from).collect();
    let longer = |text: &str, max: usize| text.len() > max && text.chars().nth(max).is_some();
    let limits = "write at most 500 phrases, 100 characters each, 10000 in all";
    if phrases.len() > 500 {
        return Some(Problem::invalid(format!("has {} phrases", phrases.len()), limits));
    }
    if longer(value, 10_000) {
        return Some(Problem::invalid("has more than 10000 characters", limits));
    }
    if phrases.iter().any(|p| longer(p, 100)) {
        return Some(Problem::invalid("has a phrase of more than 100 characters", limits));
    }
    valid(place, Value::List(phrases))
}

fn beep<'v>(value: &'v str, place: Place<'_, 'v>) -> CheckResult {
    let problem = boolean(value, place);
    if place.is_some() {
        return problem;
    }
    const KEYS: &[&str] = &["duration", "inter_silence", "intra_silence", "threshold"];
    pairs(value, usize::MAX, place);
    match place {
        Some(Value::Pairs(items))
            if items.iter().all(|(k, v)| KEYS.contains(k) && is_number(v)) =>
        {
            None
        }
        _ => {
            *place = None;
            Some(Problem::invalid(
                "is neither true or false nor a list of beep options",
                format!("write true, false, or whole numbers for {}", KEYS.join(", ")),
            ))
        }
    }
}

fn word_list(value: &str, words: &[&'static str], place: Place<'_, '_>) -> CheckResult {
    let known = |item: &str| {
        words.iter().find(|word| item.trim_matches(is_space).eq_ignore_ascii_case(word))
    };
    match value.split(',').map(|item| known(item).map(|w| Cow::from(*w))).collect() {
        Some(list) => valid(place, Value::List(list)),
        None => Some(Problem::invalid(
            "contains an unknown value",
            format!("write one or more of: {}", words.join(", ")),
        )),
    }
}

/// Parses a duration such as `250ms` or `1.5s` to milliseconds.
#[allow(
    clippy::as_conversions,
    reason = "the cast saturates, and any duration over the limit is refused"
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

fn prosody<'v>(
    value: &'v str,
    words: &[&'static str],
    number: impl Fn(&str) -> bool,
    form: &str,
    place: Place<'_, 'v>,
) -> CheckResult {
    if words.contains(&value) || number(value) {
        return valid(place, Value::Text(value.into()));
    }
    Some(Problem::invalid(
        "is not a valid prosody value",
        format!("write one of: {}, or {form}", words.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_simple_authority;

    proptest! {
        /// An authority accepted without a parser is also accepted by the `url` crate.
        #[test]
        fn a_simple_authority_is_valid(authority in "[aZ0x.-]{1,12}(\\.[a-z0-9-]{1,4})?(:[0-9]{0,6})?") {
            let parsed = url::Url::parse(&format!("https://{authority}/x"));
            let has_host = parsed.as_ref().is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()));
            prop_assert!(!is_simple_authority(&authority) || has_host, "{authority}: {parsed:?}");
        }
    }

    #[test]
    fn recognises_simple_authorities() {
        for simple in ["app.example.com", "App.Example.com:8443", "localhost", "a-b.c0"] {
            assert!(is_simple_authority(simple), "{simple}");
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
            assert!(!is_simple_authority(other), "{other}");
        }
    }
}
