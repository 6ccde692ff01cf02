//! Rewrites English text as words: numbers, money, dates, times, phone numbers, addresses, codes
//! and abbreviations.
//!
//! Engines read such text differently, or not at all: most of them read "1,25,000" and "18:05"
//! incorrectly. The result consists only of words and punctuation, so that every engine reads it in
//! the same way. Text that matches no rule stays as written.
//!
//! A text is split at spaces. Each rule examines a word and its neighbours; the first rule that
//! matches replaces the words that it has consumed.

mod calendar;
mod measure;
mod number;
mod symbols;

use std::borrow::Cow;

use calendar::{Date, Half};
use number::NumberStyle;
use symbols::group_digits;

pub(crate) use calendar::{Time, date_numbers};
pub(crate) use number::{Number, is_digits};
pub(crate) use symbols::{address, runs};

use super::language::{EmbeddedVoice, primary, region};

/// A word without its surrounding punctuation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) open: &'a str,
    pub(crate) core: &'a str,
    pub(crate) close: &'a str,
}

impl<'a> Token<'a> {
    pub(crate) fn new(word: &'a str) -> Self {
        let core = word.trim_start_matches(['(', '[', '{', '"', '\'', '“', '‘', '¿', '¡']);
        let open = word.strip_suffix(core).unwrap_or_default();
        let inner = core.trim_end_matches([
            '.', ',', ';', ':', '!', '?', ')', ']', '}', '"', '\'', '”', '’', '।', '॥', '…',
        ]);
        let close = core.strip_prefix(inner).unwrap_or_default();
        Self { open, core: inner, close }
    }
}

/// The result of a rule: the number of tokens that it has consumed and the words that replace them.
struct Reading {
    tokens: usize,
    words: String,
    /// Whether the full stop after the last token belonged to an abbreviation.
    takes_full_stop: bool,
}

impl Reading {
    fn new(tokens: usize, words: String) -> Self {
        Self { tokens, words, takes_full_stop: false }
    }
}

/// The reader of one text.
struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    style: NumberStyle,
    month_first: bool,
}

/// Returns `text` as words in the variant of English given by `tag`. Text in another language is
/// returned unchanged.
pub(super) fn words<'a>(text: &'a str, tag: &str) -> Cow<'a, str> {
    let needs_reading = |c: char| {
        c.is_ascii_digit() || c == '.' || (!c.is_alphabetic() && !c.is_whitespace() && c != ',')
    };
    let may_be_short = |c: char| c.is_ascii_uppercase();
    if primary(tag) != "en" || !text.contains(|c| needs_reading(c) || may_be_short(c)) {
        return Cow::Borrowed(text);
    }
    let region = Region::of(tag);
    let plain = symbols::plain_signs(text);
    let reader = Reader {
        tokens: plain.split(' ').filter(|word| !word.is_empty()).map(Token::new).collect(),
        style: region.style(),
        month_first: region.american,
    };
    let mut output = reader.read();
    // Keeps the space, which joins the runs of a sentence in several styles.
    if text.starts_with(' ') {
        output.insert(0, ' ');
    }
    if text.ends_with(' ') && !output.ends_with(' ') {
        output.push(' ');
    }
    Cow::Owned(output)
}

/// Reads a number of any length as a quantity. Returns `None` for other text.
pub(super) fn quantity(text: &str, tag: &str) -> Option<String> {
    Number::parse(text.trim()).map(|number| number.words(Region::of(tag).style()))
}

/// The differences between regions.
#[derive(Clone, Copy)]
struct Region {
    american: bool,
    indian: bool,
}

impl Region {
    fn of(tag: &str) -> Self {
        Self {
            american: EmbeddedVoice::for_language(tag) == Some(EmbeddedVoice::EnUs),
            indian: region(tag).as_deref() == Some("in"),
        }
    }

    fn style(self) -> NumberStyle {
        NumberStyle { with_and: !self.american, indian: self.indian }
    }
}

type Rule<'a> = fn(&Reader<'a>, usize) -> Option<Reading>;

impl<'a> Reader<'a> {
    fn token(&self, at: usize) -> Option<&Token<'a>> {
        self.tokens.get(at)
    }

    /// Returns the core of a token if no punctuation separates it from the one before it, otherwise
    /// `None`.
    fn following(&self, at: usize) -> Option<&'a str> {
        let previous = self.token(at.checked_sub(1)?)?;
        let token = self.token(at)?;
        (previous.close.is_empty() && token.open.is_empty()).then_some(token.core)
    }

    fn read(&self) -> String {
        let rules: [Rule<'a>; 12] = [
            Reader::phone_number,
            Reader::address,
            Reader::range,
            Reader::date,
            Reader::time,
            Reader::money,
            Reader::rank,
            Reader::measure,
            Reader::abbreviation,
            Reader::number,
            Reader::code,
            Reader::sign,
        ];
        let mut output = String::new();
        let mut at = 0;
        while let Some(token) = self.token(at) {
            if !output.is_empty() {
                output.push(' ');
            }
            output.push_str(token.open);
            let reading = rules
                .iter()
                .find_map(|rule| rule(self, at))
                .unwrap_or_else(|| Reading::new(1, token.core.to_owned()));
            output.push_str(&reading.words);
            at += reading.tokens.max(1);
            let close = self.token(at - 1).map(|last| last.close).unwrap_or_default();
            let ends_text = at >= self.tokens.len();
            let close = match close.strip_prefix('.') {
                Some(rest) if reading.takes_full_stop && !ends_text => rest,
                _ => close,
            };
            if !(output.ends_with(',') && close.starts_with([',', '.'])) {
                output.push_str(close);
            }
        }
        output
    }

    /// Reads phone numbers, alone or in groups: `1-800-555-0199`, `+91 80357 37458`, `(212)
    /// 555-0100`. Returns `None` for other text.
    fn phone_number(&self, at: usize) -> Option<Reading> {
        let first = self.token(at)?;
        let has_code_word = self.follows_code_word(at);
        let mut groups: Vec<&str> = Vec::new();
        let mut tokens = 0;
        let mut in_parentheses = false;
        while let Some(token) = self.token(at + tokens) {
            let is_area_code = token.open == "(" && token.close == ")" && is_digits(token.core);
            let parts: Vec<&str> = token.core.split('-').collect();
            let is_group = |part: &str, is_first: bool| {
                let digits = if is_first { part.strip_prefix('+').unwrap_or(part) } else { part };
                is_digits(digits) && digits.len() <= 12
            };
            let all_groups = parts
                .iter()
                .enumerate()
                .all(|(index, part)| is_group(part, tokens == 0 && index == 0));
            let opens = token.open.is_empty() || tokens == 0 || is_area_code;
            if !all_groups || !opens {
                break;
            }
            in_parentheses |= is_area_code;
            groups.extend(parts);
            tokens += 1;
            if !token.close.is_empty() && !is_area_code {
                break;
            }
        }
        let digits: usize =
            groups.iter().map(|group| group.chars().filter(char::is_ascii_digit).count()).sum();
        let international = first.core.starts_with('+');
        let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let looks_like_one = match sizes.as_slice() {
            [] => false,
            [_] => international && digits >= 7,
            [3, 4] | [3, 3, 4] | [1, 3, 3, 4] | [5, 5] | [4, 3, 3] | [4, 3, 4] => true,
            _ if international || in_parentheses => digits >= 7,
            _ => {
                (first.core.starts_with('0') || has_code_word)
                    && digits >= 7
                    && sizes.iter().all(|size| *size >= 2)
            }
        };
        if !looks_like_one || digits > 15 {
            return None;
        }
        if let [only] = groups.as_slice() {
            let digits = only.trim_start_matches('+');
            // India has ten digits after its code.
            let groups = match digits.strip_prefix("91").and_then(|rest| rest.split_at_checked(5)) {
                Some((first, second)) if second.len() == 5 => vec!["91", first, second],
                _ => group_digits(digits),
            };
            let mut words = symbols::phone_number(&groups);
            words.insert_str(0, "plus ");
            return Some(Reading::new(1, words));
        }
        let words = symbols::phone_number(&groups);
        // The parenthesis around the first group precedes this reading.
        let words = if in_parentheses && first.open == "(" {
            words.replacen(", ", "), ", 1)
        } else {
            words
        };
        Some(Reading::new(tokens, words))
    }

    fn address(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        symbols::address(core).map(|address| Reading::new(1, symbols::read_address(address)))
    }

    /// Reads two values with a hyphen between them: `Mon-Fri`, `9am-5pm`, `10 - 12`. Returns `None`
    /// for other text.
    fn range(&self, at: usize) -> Option<Reading> {
        let first = self.token(at)?;
        if let Some((from, to)) = first.core.split_once('-')
            && let Some(words) = self.range_words(from, to)
        {
            return Some(Reading::new(1, words));
        }
        let separate = self.following(at + 1) == Some("-");
        let to = self.following(at + 2).filter(|_| separate)?;
        self.range_words(first.core, to).map(|words| Reading::new(3, words))
    }

    fn range_words(&self, from: &str, to: &str) -> Option<String> {
        let both = |read: &dyn Fn(&str) -> Option<String>| Some((read(from)?, read(to)?));
        let clock = |text: &str| match text {
            "noon" | "midnight" => Some(text.to_owned()),
            _ => Time::parse(text).map(|time| time.words(self.style)),
        };
        let small = |text: &str| {
            let number = Number::parse(text).filter(|n| !n.negative && !text.starts_with('0'))?;
            Some(match text.len() {
                4 if !number.is_grouped() => number::year(number.integer, self.style),
                _ => number.words(self.style),
            })
        };
        let ascends = || {
            let [from, to] = [from, to].map(|text| Number::parse(text).map(|n| n.integer));
            from < to && from.is_some() && from.is_some_and(|n| n < 10_000)
        };
        let name = |find: fn(&str) -> Option<&'static str>| {
            move |text: &str| find(text).map(str::to_owned)
        };
        let value = |text: &str| {
            measure::money(text, None, self.style)
                .or_else(|| measure::with_unit(text, self.style))
                .or_else(|| Number::parse(text).map(|number| number.words(self.style)))
        };
        let (from, to) = both(&name(calendar::day_of_week))
            .or_else(|| both(&name(calendar::month)))
            .or_else(|| both(&clock))
            .or_else(|| both(&|text| rank_words(text, self.style)))
            .or_else(|| both(&small).filter(|_| ascends()))
            .or_else(|| {
                // "$5-10"
                let sign = measure::leading_sign(from)?;
                let from = Number::parse(from.strip_prefix(sign)?)?.words(self.style);
                let to = Number::parse(to)
                    .and_then(|_| measure::money(&format!("{sign}{to}"), None, self.style))?;
                Some((from, to))
            })
            .or_else(|| {
                // In "5-10%" the sign is written once.
                let has_sign = |text: &str| text.contains(['%', '$', '₹', '€', '£', '°']);
                both(&value).filter(|_| has_sign(from) || has_sign(to))
            })
            .or_else(|| {
                // "9-5pm"
                let hour = small(from).filter(|_| from.len() <= 2)?;
                let time = Time::parse(to).filter(|time| time.half.is_some())?;
                Some((hour, time.words(self.style)))
            })?;
        Some(format!("{from} to {to}"))
    }

    /// Reads dates in digits or with names of months. Returns `None` for other text.
    fn date(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        let the = |day_first: bool| {
            let has_article =
                at > 0 && self.token(at - 1).is_some_and(|t| t.core.eq_ignore_ascii_case("the"));
            if day_first && !has_article { "the " } else { "" }
        };
        let (day_part, time_part) = match core.split_once('T') {
            Some((date, time)) => (date, Some(time.trim_end_matches('Z'))),
            None => (core, None),
        };
        if let Some(date) = Date::parse(day_part, self.month_first) {
            let mut words = date.words(self.month_first, self.style);
            if let Some(time) = time_part {
                let time = Time::parse(time)?;
                words.push_str(&format!(", {}", time.words(self.style)));
            }
            return Some(Reading::new(1, format!("{}{words}", the(!self.month_first))));
        }
        let day = |text: &str| -> Option<u64> {
            let digits = ["st", "nd", "rd", "th"]
                .iter()
                .find_map(|suffix| text.strip_suffix(suffix))
                .unwrap_or(text);
            let day = (digits.len() <= 2 && is_digits(digits)).then(|| digits.parse().ok());
            day.flatten().filter(|day| (1..=31).contains(day))
        };
        let year = |text: &str| -> Option<u64> {
            let number = (text.len() == 4 && is_digits(text)).then(|| text.parse().ok()).flatten();
            number.filter(|year| (1_000..=2_999).contains(year))
        };
        // The year may follow a comma.
        let year_at = |at: usize| {
            let comma = self.token(at - 1).is_some_and(|token| token.close == ",");
            let token = self.token(at).filter(|token| token.open.is_empty())?;
            let attached = self.token(at - 1).is_some_and(|t| t.close.is_empty() || t.close == ".");
            (comma || attached).then(|| year(token.core)).flatten()
        };
        if let Some(month) = calendar::month(core) {
            // A full stop belongs to "Sep.", and "May" may be a verb.
            let token = self.token(at)?;
            if !(token.close.is_empty() || token.close == ".") {
                return (month != core).then(|| Reading::new(1, month.to_owned()));
            }
            let next = self.token(at + 1).filter(|token| token.open.is_empty());
            let found_day = next.and_then(|next| day(next.core));
            let has_clock = next.is_some_and(|next| next.core.contains(':'));
            if let Some(day) = found_day.filter(|_| !has_clock) {
                let year = year_at(at + 2);
                let date = Date { day: Some(day), month: Some(month), year };
                let words = date.words(true, self.style);
                return Some(Reading::new(2 + usize::from(year.is_some()), words));
            }
            if let Some(year) = next.and_then(|next| year(next.core)) {
                let date = Date { day: None, month: Some(month), year: Some(year) };
                return Some(Reading::new(2, date.words(true, self.style)));
            }
            if month == core {
                return None;
            }
            return Some(Reading { takes_full_stop: true, ..Reading::new(1, month.to_owned()) });
        }
        let day = day(core).filter(|_| !core.starts_with('0') || core.len() == 2)?;
        let mut next = at + 1;
        if self.following(next) == Some("of") {
            next += 1;
        }
        let month = self.following(next).and_then(calendar::month)?;
        let year = year_at(next + 1);
        let date = Date { day: Some(day), month: Some(month), year };
        let words = format!("{}{}", the(true), date.words(false, self.style));
        let tokens = next - at + 1 + usize::from(year.is_some());
        Some(Reading { takes_full_stop: year.is_none(), ..Reading::new(tokens, words) })
    }

    /// Reads a time such as `18:05`, `6:05 pm` or `6 p.m.`. Returns `None` for other text.
    fn time(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        let following = self.following(at + 1).and_then(Half::parse);
        let time = Time::parse(core).filter(|time| time.half.is_none());
        if let Some(half) = following {
            let joined = match half {
                Half::Morning => format!("{core}am"),
                Half::Afternoon => format!("{core}pm"),
            };
            if let Some(time) = Time::parse(&joined) {
                return Some(Reading {
                    takes_full_stop: true,
                    ..Reading::new(2, time.words(self.style))
                });
            }
        }
        let time = time.or_else(|| Time::parse(core))?;
        Some(Reading {
            takes_full_stop: core.contains(".m"),
            ..Reading::new(1, time.words(self.style))
        })
    }

    fn money(&self, at: usize) -> Option<Reading> {
        let token = self.token(at)?;
        let magnitude = |at: usize| self.following(at).and_then(measure::magnitude);
        let (core, tokens) = match self.token(at + 1) {
            // "Rs. 500", "INR 500", "₹ 500"
            Some(next)
                if measure::is_currency(token.core)
                    && matches!(token.close, "" | ".")
                    && Number::parse(next.core).is_some() =>
            {
                (Cow::Owned(format!("{}{}", token.core, next.core)), 2)
            }
            // "500 USD", "500 €"
            Some(next)
                if Number::parse(token.core).is_some()
                    && token.close.is_empty()
                    && measure::is_currency(next.core) =>
            {
                (Cow::Owned(format!("{}{}", token.core, next.core)), 2)
            }
            _ => (Cow::Borrowed(token.core), 1),
        };
        // "1,50,000/-" is an amount in rupees.
        let core = match core.strip_suffix("/-") {
            Some(amount) if Number::parse(amount).is_some() => Cow::Owned(format!("₹{amount}")),
            _ => core,
        };
        let magnitude = magnitude(at + tokens);
        let (amount, per) = match core.split_once('/') {
            Some((amount, per)) if per.chars().all(char::is_alphabetic) && !per.is_empty() => {
                (amount, Some(per))
            }
            _ => (core.as_ref(), None),
        };
        let mut words = measure::money(amount, magnitude, self.style)?;
        if let Some(per) = per {
            words.push_str(" per ");
            words.push_str(per);
        }
        Some(Reading::new(tokens + usize::from(magnitude.is_some()), words))
    }

    /// Reads numbers with units, percentages and fractions. Returns `None` for other text.
    fn measure(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        if let Some(words) = measure::with_unit(core, self.style) {
            return Some(Reading::new(1, words));
        }
        if ["24/7", "24x7", "24*7"].contains(&core) {
            return Some(Reading::new(1, "twenty-four seven".to_owned()));
        }
        if let Some(words) = fraction(core, self.style) {
            return Some(Reading::new(1, words));
        }
        let next = self.following(at + 1)?;
        if let Some(words) = self
            .following(at + 2)
            .filter(|_| next == "sq")
            .and_then(|unit| measure::square_words(core, unit, self.style))
        {
            return Some(Reading { takes_full_stop: true, ..Reading::new(3, words) });
        }
        if let Some(words) = measure::unit_words(core, next, self.style) {
            return Some(Reading { takes_full_stop: true, ..Reading::new(2, words) });
        }
        // "1 1/2"
        let whole = Number::parse(core).filter(|n| n.fraction.is_none() && core.len() <= 3)?;
        let part = next.contains('/').then(|| fraction(next, self.style)).flatten()?;
        let part = part.strip_prefix("one ").map_or_else(
            || part.clone(),
            |rest| format!("{} {rest}", if rest.starts_with("eigh") { "an" } else { "a" }),
        );
        Some(Reading::new(2, format!("{} and {part}", whole.words(self.style))))
    }

    fn abbreviation(&self, at: usize) -> Option<Reading> {
        /// Abbreviations that must be followed by a full stop.
        const DOTTED: &[(&str, &str)] = &[
            ("Prof", "Professor"),
            ("Govt", "Government"),
            ("pp", "pages"),
            ("Ave", "Avenue"),
            ("Blvd", "Boulevard"),
            ("Rd", "Road"),
            ("Ln", "Lane"),
            ("Apt", "Apartment"),
            ("Bldg", "Building"),
            ("Ltd", "Limited"),
            ("Pvt", "Private"),
            ("Inc", "Incorporated"),
            ("Corp", "Corporation"),
            ("Co", "Company"),
            ("Jr", "Junior"),
            ("Sr", "Senior"),
            ("Capt", "Captain"),
            ("Gen", "General"),
            ("Mt", "Mount"),
            ("approx", "approximately"),
            ("Approx", "Approximately"),
            ("dept", "department"),
            ("Dept", "Department"),
            ("ext", "extension"),
            ("Ext", "Extension"),
            ("tel", "telephone"),
            ("Tel", "Telephone"),
            ("vs", "versus"),
            ("incl", "including"),
            ("excl", "excluding"),
            ("max", "maximum"),
            ("min", "minimum"),
            ("etc", "et cetera"),
        ];
        /// Abbreviations with or without a full stop.
        const ALWAYS: &[(&str, &str)] = &[
            ("Mr", "Mister"),
            ("Mrs", "Missus"),
            ("Ms", "Miz"),
            ("e.g", "for example"),
            ("i.e", "that is"),
            ("w/", "with"),
            ("w/o", "without"),
            ("n/a", "not applicable"),
            ("N/A", "not applicable"),
            ("and/or", "and or"),
            ("a.m", "A M"),
            ("p.m", "P M"),
            ("Ph.D", "P H D"),
            ("C++", "C plus plus"),
            ("C#", "C sharp"),
            (".NET", "dot net"),
        ];
        let token = self.token(at)?;
        let core = token.core;
        let dotted = token.close.starts_with('.');
        let next = self.token(at + 1);
        let next_is_name =
            next.is_some_and(|next| next.core.starts_with(|c: char| c.is_ascii_uppercase()));
        let next_is_number =
            next.is_some_and(|next| next.core.starts_with(|c: char| c.is_ascii_digit()));
        let words = match core {
            "Dr" if next_is_name => Some("Doctor"),
            "Dr" if dotted => Some("Drive"),
            "St" if next_is_name
                && token.close.len() <= 1
                && (at == 0 || !self.is_name(at - 1)) =>
            {
                Some("Saint")
            }
            "St" if dotted || at > 0 => Some("Street"),
            "No" | "no" if dotted && next_is_number => Some("number"),
            "Nos" if dotted && next_is_number => Some("numbers"),
            "p" if dotted && next_is_number => Some("page"),
            _ => {
                let find = |list: &[(&'static str, &'static str)]| {
                    list.iter().find(|(short, _)| *short == core).map(|(_, words)| *words)
                };
                let day = || {
                    calendar::day_of_week(core).filter(|name| {
                        *name != core
                            && (!matches!(core, "Sat" | "Sun" | "Wed" | "Mon")
                                || dotted
                                || token.close == ","
                                || next_is_number
                                || self.is_beside_day(at))
                    })
                };
                find(ALWAYS).or_else(|| find(DOTTED).filter(|_| dotted)).or_else(day)
            }
        };
        let words = words.map(str::to_owned).or_else(|| {
            symbols::initials(core)
                .or_else(|| (dotted && self.is_initial(at)).then(|| core.to_owned()))
                .or_else(|| alternatives(core))
        })?;
        Some(Reading { takes_full_stop: true, ..Reading::new(1, words) })
    }

    /// Returns `true` if the token is an initial of a name: `J. K. Rowling`, `Dr. A. Rao`.
    fn is_initial(&self, at: usize) -> bool {
        let is_letter = |at: usize| {
            self.token(at).is_some_and(|token| {
                token.close == "."
                    && matches!(token.core.as_bytes(), [letter] if letter.is_ascii_uppercase())
            })
        };
        let follows_title = || {
            let before = at.checked_sub(1).and_then(|before| self.token(before));
            before.is_some_and(|token| matches!(token.core, "Dr" | "Mr" | "Mrs" | "Ms" | "Prof"))
        };
        let next_is_name = self
            .token(at + 1)
            .is_some_and(|next| next.core.starts_with(|c: char| c.is_ascii_uppercase()));
        let follows_letter = at.checked_sub(1).is_some_and(is_letter);
        is_letter(at)
            && (is_letter(at + 1) || (next_is_name && (follows_letter || follows_title())))
    }

    /// Returns `true` if a day of the week is next to the token: "Mon, Wed & Fri".
    fn is_beside_day(&self, at: usize) -> bool {
        let is_link = |at: usize| {
            self.token(at).is_some_and(|token| matches!(token.core, "&" | "and" | "or" | "to"))
        };
        let is_day = |at: usize| {
            self.token(at).is_some_and(|token| calendar::day_of_week(token.core).is_some())
        };
        (is_link(at + 1) && is_day(at + 2))
            || (at >= 2 && is_link(at - 1) && is_day(at - 2))
            || (at >= 1 && is_day(at - 1))
    }

    fn is_name(&self, at: usize) -> bool {
        self.token(at).is_some_and(|token| {
            token.close.is_empty() && token.core.starts_with(|c: char| c.is_ascii_uppercase())
        })
    }

    /// Returns `true` if a word such as "code" or "flight" shortly precedes the token, so that a
    /// number is read digit by digit: "your code is 4711".
    fn follows_code_word(&self, at: usize) -> bool {
        const CODE_WORDS: &[&str] = &[
            "code",
            "pin",
            "otp",
            "passcode",
            "password",
            "room",
            "flight",
            "extension",
            "ext",
            "account",
            "id",
            "ticket",
            "order",
            "reference",
            "ref",
            "booking",
            "pnr",
            "ending",
            "number",
            "no",
            "phone",
            "mobile",
            "card",
            "invoice",
            "policy",
            "call",
            "dial",
            "token",
            "gate",
            "train",
            "bus",
        ];
        const LINKS: &[&str] =
            &["is", "number", "no", "in", "code", "id", "with", "your", "the", "on", "at", "us"];
        let mut before = at;
        for _ in 0..4 {
            let Some(token) = before.checked_sub(1).and_then(|at| self.token(at)) else {
                return false;
            };
            if !matches!(token.close, "" | ":" | ".") {
                return false;
            }
            let word = token.core.to_ascii_lowercase();
            if CODE_WORDS.contains(&word.as_str()) {
                return true;
            }
            if !LINKS.contains(&word.as_str()) {
                return false;
            }
            before -= 1;
        }
        false
    }

    /// Returns `true` if the words after the token identify it as a code: "4711 is your code".
    fn precedes_code_word(&self, at: usize) -> bool {
        self.following(at + 1) == Some("is")
            && (2..6).filter_map(|n| self.token(at + n)).any(|token| {
                ["code", "pin", "otp", "passcode"]
                    .contains(&token.core.to_ascii_lowercase().as_str())
            })
    }

    fn number(&self, at: usize) -> Option<Reading> {
        let token = self.token(at)?;
        let core = token.core;
        if let Some(rest) = core.strip_prefix('#').filter(|rest| is_digits(rest)) {
            let words = self.integer(at, rest)?;
            return Some(Reading::new(1, format!("number {words}")));
        }
        if let Some(words) = self.version(core).or_else(|| self.digit_groups(core)) {
            return Some(Reading::new(1, words));
        }
        // The postal code "560 001".
        if let Some(rest) = self.following(at + 1).filter(|rest| {
            let has_groups = [core, rest].iter().all(|part| is_digits(part) && part.len() == 3);
            has_groups && rest.starts_with('0')
        }) {
            return Some(Reading::new(2, symbols::phone_number(&[core, rest])));
        }
        if let Some(words) = self.signed(core) {
            return Some(Reading::new(1, words));
        }
        if core.contains('.') && core.split('.').count() > 2 && core.split('.').all(is_digits) {
            let parts: Vec<String> = core
                .split('.')
                .map(|part| match part.len() {
                    1 | 2 => part
                        .parse()
                        .map_or_else(|_| String::new(), |n| number::cardinal(n, self.style)),
                    _ => number::digits(part),
                })
                .collect();
            let joint = if parts.len() == 4 { " dot " } else { " point " };
            return Some(Reading::new(1, parts.join(joint)));
        }
        // "10x12"
        if let Some((a, b)) = core.split_once('x').filter(|(a, b)| is_digits(a) && is_digits(b)) {
            let [a, b] = [a, b].map(|n| Number::parse(n).map(|n| n.words(self.style)));
            return Some(Reading::new(1, format!("{} by {}", a?, b?)));
        }
        if is_digits(core) {
            return Some(Reading::new(1, self.integer(at, core)?));
        }
        // Ratios: "16:9"
        if let Some((a, b)) = core.split_once(':').filter(|(a, b)| is_digits(a) && is_digits(b)) {
            let [a, b] = [a, b].map(|n| Number::parse(n).map(|n| n.words(self.style)));
            return Some(Reading::new(1, format!("{} to {}", a?, b?)));
        }
        let number = Number::parse(core)?;
        let magnitude = self.following(at + 1).and_then(measure::magnitude);
        let mut words = number.words(self.style);
        if let Some(magnitude) = magnitude {
            words.push_str(&format!(" {magnitude}"));
        }
        Some(Reading::new(1 + usize::from(magnitude.is_some()), words))
    }

    /// Reads `v2.0` and `FY2025-26`. Returns `None` for other text.
    fn version(&self, core: &str) -> Option<String> {
        if let Some(years) = core.strip_prefix("FY").and_then(|rest| self.years(rest)) {
            return Some(format!("F Y {years}"));
        }
        let parts: Vec<&str> = core.strip_prefix(['v', 'V'])?.split('.').collect();
        if parts.len() < 2 || !parts.iter().all(|part| is_digits(part) && part.len() <= 4) {
            return None;
        }
        let words: Vec<String> = parts
            .iter()
            .filter_map(|part| Some(number::cardinal(part.parse().ok()?, self.style)))
            .collect();
        Some(format!("version {}", words.join(" point ")))
    }

    /// Reads a year and the next one: `2025-26`. Returns `None` for other text.
    fn years(&self, text: &str) -> Option<String> {
        let (year, next) = text.split_once('-')?;
        if year.len() != 4 || next.len() != 2 || !is_digits(year) || !is_digits(next) {
            return None;
        }
        let (year, next): (u64, u64) = (year.parse().ok()?, next.parse().ok()?);
        let is_next = (1_900..2_100).contains(&year) && (year + 1) % 100 == next;
        is_next.then(|| {
            let (year, next) = (number::year(year, self.style), number::cardinal(next, self.style));
            format!("{year} {next}")
        })
    }

    /// Reads groups of digits that are no date, range or phone number: `4-5-6-7`, `50-50`. Returns
    /// `None` for other text.
    fn digit_groups(&self, core: &str) -> Option<String> {
        let groups: Vec<&str> = core.split('-').collect();
        if groups.len() < 2 || !groups.iter().all(|group| is_digits(group)) {
            return None;
        }
        match groups.as_slice() {
            [a, b] if a == b && a.len() <= 3 && !a.starts_with('0') => {
                let words = number::cardinal(a.parse().ok()?, self.style);
                Some(format!("{words} {words}"))
            }
            groups if groups.iter().all(|g| g.len() <= 2 && !g.starts_with('0')) => {
                let read = |group: &&str| Some(number::cardinal(group.parse().ok()?, self.style));
                Some(groups.iter().map(read).collect::<Option<Vec<_>>>()?.join(", "))
            }
            groups => self.years(core).or_else(|| Some(symbols::phone_number(groups))),
        }
    }

    /// Reads numbers with a sign before or after them: `+7`, `~5`, `18+`. Returns `None` for other
    /// text.
    fn signed(&self, core: &str) -> Option<String> {
        let number = |text: &str| {
            let number = Number::parse(text).filter(|number| !number.negative)?;
            Some(number.words(self.style))
        };
        for (sign, name) in [("+", "plus"), ("~", "about"), ("≈", "about"), ("±", "plus or minus")]
        {
            if let Some(words) = core.strip_prefix(sign).and_then(number) {
                return Some(format!("{name} {words}"));
            }
        }
        let words = core.strip_suffix('+').and_then(number)?;
        Some(format!("{words} plus"))
    }

    /// Reads a whole number without separators, as a number, a year or digit by digit. Returns
    /// `None` if it is too large.
    fn integer(&self, at: usize, digits: &str) -> Option<String> {
        let is_code = || self.follows_code_word(at) || self.precedes_code_word(at);
        let one_by_one = match digits.len() {
            1 => false,
            _ if digits.starts_with('0') => true,
            2 => false,
            3..=5 => is_code(),
            6 => !digits.ends_with("00") || is_code(),
            _ => !digits.ends_with("000"),
        };
        if one_by_one || digits.len() > 15 {
            return Some(if digits.len() >= 9 {
                symbols::phone_number(&group_digits(digits))
            } else {
                number::digits(digits)
            });
        }
        let value: u64 = digits.parse().ok()?;
        let after_in = || {
            let before = at.checked_sub(1).and_then(|at| self.token(at));
            let year_words = ["in", "since", "until", "till", "by", "from", "before", "after"];
            before
                .is_some_and(|token| year_words.contains(&token.core.to_ascii_lowercase().as_str()))
                && (1_100..2_100).contains(&value)
        };
        if digits.len() == 4 && ((1_900..2_100).contains(&value) || after_in()) {
            return Some(number::year(value, self.style));
        }
        Some(number::cardinal(value, self.style))
    }

    /// Returns `true` if a time of day is on both sides of the token: "9:00 AM - 5 PM".
    fn is_between_times(&self, at: usize) -> bool {
        let is_time = |text: &str| Time::parse(text).is_some();
        let before = at.checked_sub(1).and_then(|at| self.token(at)).map(|token| token.core);
        let after = self.token(at + 1).map(|token| token.core).unwrap_or_default();
        let has_half = self.following(at + 2).and_then(Half::parse).is_some();
        before.is_some_and(|before| is_time(before) || Half::parse(before).is_some())
            && (is_time(after) || (has_half && is_digits(after)))
    }

    /// Reads ordinals and decades: `22nd`, `1990s`, `80s`. Returns `None` for other text.
    fn rank(&self, at: usize) -> Option<Reading> {
        rank_words(self.token(at)?.core, self.style).map(|words| Reading::new(1, words))
    }

    fn code(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        let words = symbols::masked(core)
            .or_else(|| symbols::compound(core, self.style))
            .or_else(|| symbols::code(core, self.style))?;
        Some(Reading::new(1, words))
    }

    /// Reads separate signs, and `&` within a word. Returns `None` for other text.
    fn sign(&self, at: usize) -> Option<Reading> {
        let core = self.token(at)?.core;
        if let Some(digits) = self.following(at + 1).filter(|next| is_digits(next))
            && core.len() >= 3
            && core.chars().all(|c| c == '*')
        {
            return Some(Reading::new(2, format!("ending in {}", number::digits(digits))));
        }
        if core == "-" && self.is_between_times(at) {
            return Some(Reading::new(1, "to".to_owned()));
        }
        if let Some(name) = core.strip_prefix('@').filter(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }) {
            return Some(Reading::new(1, format!("at {name}")));
        }
        let mut chars = core.chars();
        if let (Some(sign), None) = (chars.next(), chars.next()) {
            // A hyphen between spaces is a pause.
            let name = match sign {
                '-' | '/' | '_' | '.' | ':' | '?' => return None,
                sign => symbols::sign_name(sign)?,
            };
            return Some(Reading::new(1, name.to_owned()));
        }
        if core.len() <= 20
            && core.contains(['*', '#'])
            && core.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '#'))
        {
            let words = symbols::spell(core);
            return Some(Reading::new(1, words));
        }
        let (left, right) = core.split_once('&')?;
        let is_word = |text: &str| !text.is_empty() && text.chars().all(char::is_alphabetic);
        (is_word(left) && is_word(right)).then(|| Reading::new(1, format!("{left} and {right}")))
    }
}

/// Reads ordinals and decades. Returns `None` for other text.
fn rank_words(core: &str, style: NumberStyle) -> Option<String> {
    let end = core.find(|c: char| c.is_ascii_alphabetic())?;
    let (digits, suffix) = core.split_at_checked(end)?;
    let number = Number::parse(digits).filter(|n| n.fraction.is_none() && !n.negative)?;
    Some(match suffix.to_ascii_lowercase().as_str() {
        "st" | "nd" | "rd" | "th" => number::ordinal(number.integer, style),
        "s" if digits.len() == 4 && digits.ends_with('0') => {
            plural(&number::year(number.integer, style))
        }
        "s" if digits.len() == 2 && digits.ends_with('0') => {
            plural(&number::cardinal(number.integer, style))
        }
        _ => return None,
    })
}

/// Reads two words of which one applies: `yes/no`, `his/her`, `Sat/Sun`. Returns `None` for other
/// text.
fn alternatives(core: &str) -> Option<String> {
    const PAIRS: [(&str, &str); 6] = [
        ("yes", "no"),
        ("his", "her"),
        ("he", "she"),
        ("him", "her"),
        ("on", "off"),
        ("male", "female"),
    ];
    let (one, other) = core.split_once('/')?;
    if let (Some(one), Some(other)) = (calendar::day_of_week(one), calendar::day_of_week(other)) {
        return Some(format!("{one} or {other}"));
    }
    let is_letter = |text: &str| matches!(text.as_bytes(), [c] if c.is_ascii_uppercase());
    if is_letter(one) && is_letter(other) {
        return Some(symbols::spell(&format!("{one}{other}")));
    }
    let is_pair =
        PAIRS.iter().any(|(a, b)| a.eq_ignore_ascii_case(one) && b.eq_ignore_ascii_case(other));
    is_pair.then(|| format!("{one} or {other}"))
}

fn plural(words: &str) -> String {
    words.strip_suffix('y').map_or_else(|| format!("{words}s"), |stem| format!("{stem}ies"))
}

/// Reads fractions such as `1/2` and `3/4`. Other pairs of numbers are read with "over". Returns
/// `None` for other text.
fn fraction(text: &str, style: NumberStyle) -> Option<String> {
    let (above, below) = text.split_once('/')?;
    if above.contains('.') && is_digits(below) && below.len() <= 3 {
        let [above, below] = [above, below].map(|part| Number::parse(part).map(|n| n.words(style)));
        return Some(format!("{} out of {}", above?, below?));
    }
    if ![above, below].iter().all(|part| is_digits(part) && part.len() <= 3) {
        return None;
    }
    let (a, b): (u64, u64) = (above.parse().ok()?, below.parse().ok()?);
    let name = match b {
        2 => "half".to_owned(),
        4 => "quarter".to_owned(),
        3 | 5..=10 => number::ordinal(b, style),
        _ => String::new(),
    };
    let count = number::cardinal(a, style);
    Some(match a {
        1 if !name.is_empty() => format!("one {name}"),
        // A mark, such as "8/10".
        _ if b == 10 => format!("{count} out of ten"),
        _ if !name.is_empty() && a < b => format!("{count} {name}s"),
        _ => format!("{count} over {}", number::cardinal(b, style)),
    })
}

#[cfg(test)]
mod tests;
