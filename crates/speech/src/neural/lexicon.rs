//! The pronunciation of English words: two dictionaries, and the rules of misaki (Apache-2.0) for
//! inflected forms. The voice was trained with misaki's phonemes.

use super::table::Table;

const PRIMARY: char = 'ˈ';
const SECONDARY: char = 'ˌ';
pub(super) const VOWELS: &str = "AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ";
pub(super) const CONSONANTS: &str = "bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ";
const DIPHTHONGS: &str = "AIOQWYʤʧ";
/// Vowels after which an American "t" is flapped.
const FLAPPING: &str = "AIOWYiuæɑəɛɪɹʊʌ";

/// The context after a word. Words are looked up from the end of the sentence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    /// Whether the next sound is a vowel. `None` at a pause.
    pub(super) vowel_follows: Option<bool>,
    pub(super) to_follows: bool,
}

/// The dictionaries: `g:` entries are verified, `s:` entries are not.
pub(super) struct Lexicon<'a> {
    table: &'a Table,
}

impl<'a> Lexicon<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        Self { table }
    }

    /// Looks up a word as written, and with the other case of its first letter. Returns `None` if
    /// it is not in the dictionary.
    fn entry(&self, dictionary: char, word: &str) -> Option<&'a str> {
        let get = |word: &str| self.table.get(&format!("{dictionary}:{word}"));
        if let Some(found) = get(word) {
            return Some(found);
        }
        let lower = word.to_lowercase();
        if word.chars().count() < 2 {
            None
        } else if word == lower {
            Some(capitalised(&lower)).filter(|c| *c != word).and_then(|c| get(&c))
        } else if word == capitalised(&lower) {
            get(&lower)
        } else {
            None
        }
    }

    fn gold(&self, word: &str) -> Option<&'a str> {
        self.entry('g', word)
    }

    fn silver(&self, word: &str) -> Option<&'a str> {
        self.entry('s', word)
    }

    /// Returns the phonemes of a word with this part of speech, or `None` if it is unknown.
    pub(super) fn word(&self, word: &str, tag: &str, context: Context) -> Option<String> {
        let upper = word.to_uppercase();
        let stress = if word == word.to_lowercase() {
            None
        } else if word == upper {
            Some(2.0)
        } else {
            Some(0.5)
        };
        self.find(word, tag, stress, context)
    }

    fn find(&self, word: &str, tag: &str, stress: Option<f32>, context: Context) -> Option<String> {
        if let Some(phonemes) = self.special_case(word, tag, stress, context) {
            return Some(phonemes);
        }
        let lower = word.to_lowercase();
        let upper = word.to_uppercase();
        let letters_only = word.chars().all(|c| c.is_alphabetic() || c == '\'');
        let tail_is_lower = word.chars().skip(1).all(|c| !c.is_uppercase());
        let is_cased_form = word.chars().count() > 1
            && letters_only
            && word != lower
            && (tag != "NNP" || word.chars().count() > 7)
            && self.gold(word).is_none()
            && self.silver(word).is_none()
            && (word == upper || tail_is_lower);
        let knows_lower = || {
            self.gold(&lower).is_some()
                || self.silver(&lower).is_some()
                || self.plural(&lower, tag, stress, context).is_some()
                || self.past(&lower, tag, stress, context).is_some()
                || self.participle(&lower, tag, stress, context).is_some()
        };
        let word = if is_cased_form && knows_lower() { lower.as_str() } else { word };
        if self.is_known(word) {
            return self.look_up(word, tag, stress, context);
        }
        if let Some(stem) = word.strip_suffix("s'") {
            let possessive = format!("{stem}'s");
            if self.is_known(&possessive) {
                return self.look_up(&possessive, tag, stress, context);
            }
        }
        if let Some(stem) = word.strip_suffix('\'').filter(|stem| self.is_known(stem)) {
            return self.look_up(stem, tag, stress, context);
        }
        self.plural(word, tag, stress, context)
            .or_else(|| self.past(word, tag, stress, context))
            .or_else(|| self.participle(word, tag, Some(stress.unwrap_or(0.5)), context))
    }

    /// Returns the phonemes of words with a pronunciation that depends on their neighbours. `None`
    /// for other words.
    fn special_case(
        &self,
        word: &str,
        tag: &str,
        stress: Option<f32>,
        context: Context,
    ) -> Option<String> {
        let gold = |word: &str| self.gold(word).map(str::to_owned);
        let letters = word.trim_matches('.');
        if letters.contains('.')
            && word.chars().all(|c| c.is_alphabetic() || c == '.')
            && word.split('.').all(|part| part.chars().count() < 3)
        {
            return self.initials(word);
        }
        match word {
            "%" => self.look_up("percent", tag, None, context),
            "&" => self.look_up("and", tag, None, context),
            "+" => self.look_up("plus", tag, None, context),
            "@" => self.look_up("at", tag, None, context),
            "a" | "A" => Some(if tag == "DT" { "ɐ" } else { "ˈA" }.to_owned()),
            "am" | "Am" | "AM" if tag.starts_with("NN") => self.initials(word),
            "am" | "Am" | "AM"
                if context.vowel_follows.is_none()
                    || word != "am"
                    || stress.is_some_and(|s| s > 0.0) =>
            {
                gold("am")
            }
            "am" => Some("ɐm".to_owned()),
            "AN" if tag.starts_with("NN") => self.initials(word),
            "an" | "An" | "AN" => Some("ɐn".to_owned()),
            "I" if tag == "PRP" => Some("ˌI".to_owned()),
            "by" | "By" | "BY" if parent_tag(tag) == "ADV" => Some("bˈI".to_owned()),
            "to" | "To" => self.to(context),
            "TO" if matches!(tag, "TO" | "IN") => self.to(context),
            "in" | "In" => Some(Self::r#in(tag, context)),
            "IN" if tag != "NNP" => Some(Self::r#in(tag, context)),
            "the" | "The" => Some(Self::the(context)),
            "THE" if tag == "DT" => Some(Self::the(context)),
            "vs" | "Vs" | "VS" | "vs." if tag == "IN" => self.look_up("versus", tag, None, context),
            "used" | "Used" | "USED" => {
                let verb = matches!(tag, "VBD" | "JJ") && context.to_follows;
                let entry = self.gold("used")?;
                variant(entry, if verb { "VBD" } else { "DEFAULT" })
                    .flatten()
                    .or_else(|| variant(entry, "DEFAULT").flatten())
                    .map(str::to_owned)
            }
            _ => None,
        }
    }

    fn to(&self, context: Context) -> Option<String> {
        match context.vowel_follows {
            None => self.gold("to").map(str::to_owned),
            Some(false) => Some("tə".to_owned()),
            Some(true) => Some("tʊ".to_owned()),
        }
    }

    fn r#in(tag: &str, context: Context) -> String {
        if context.vowel_follows.is_none() || tag != "IN" { "ˈɪn" } else { "ɪn" }.to_owned()
    }

    fn the(context: Context) -> String {
        if context.vowel_follows == Some(true) { "ði" } else { "ðə" }.to_owned()
    }

    /// Spells a word letter by letter. Returns `None` if a letter is not in the dictionary.
    fn initials(&self, word: &str) -> Option<String> {
        let mut phonemes = String::new();
        for c in word.chars().filter(|c| c.is_alphabetic()) {
            phonemes.push_str(self.gold(&c.to_uppercase().to_string())?);
        }
        let phonemes = apply_stress(&phonemes, Some(0.0));
        // The last letter is stressed.
        Some(match phonemes.rsplit_once(SECONDARY) {
            Some((head, tail)) => format!("{head}{PRIMARY}{tail}"),
            None => phonemes,
        })
    }

    fn is_known(&self, word: &str) -> bool {
        if self.gold(word).is_some() || self.silver(word).is_some() {
            return true;
        }
        let mut chars = word.chars();
        if chars.next().is_none() || !word.bytes().all(|b| b.is_ascii_alphabetic()) {
            return false;
        }
        let is_upper = word == word.to_uppercase();
        word.len() == 1
            || (is_upper && self.gold(&word.to_lowercase()).is_some())
            || chars.all(char::is_uppercase)
    }

    fn look_up(
        &self,
        word: &str,
        tag: &str,
        stress: Option<f32>,
        context: Context,
    ) -> Option<String> {
        let lower;
        let mut word = word;
        let mut is_name = false;
        if word == word.to_uppercase() && self.gold(word).is_none() {
            lower = word.to_lowercase();
            word = &lower;
            is_name = tag == "NNP";
        }
        let entry = self.gold(word).or_else(|| if is_name { None } else { self.silver(word) });
        let phonemes = entry.and_then(|entry| {
            if !entry.contains('=') {
                return Some(entry);
            }
            let at_pause =
                context.vowel_follows.is_none().then(|| variant(entry, "None")).flatten();
            at_pause
                .or_else(|| variant(entry, tag))
                .or_else(|| variant(entry, parent_tag(tag)))
                .or_else(|| variant(entry, "DEFAULT"))
                .flatten()
        });
        match phonemes {
            Some(phonemes) if !is_name || phonemes.contains(PRIMARY) => {
                Some(apply_stress(phonemes, stress))
            }
            _ => self.initials(word),
        }
    }

    fn plural(
        &self,
        word: &str,
        tag: &str,
        stress: Option<f32>,
        context: Context,
    ) -> Option<String> {
        let length = word.chars().count();
        if length < 3 || !word.ends_with('s') {
            return None;
        }
        let known = |stem: &str| self.is_known(stem);
        let one = word.strip_suffix('s').filter(|s| !word.ends_with("ss") && known(s));
        let two = || {
            let stem = word.strip_suffix("'s").or_else(|| {
                word.strip_suffix("es").filter(|_| length > 4 && !word.ends_with("ies"))
            });
            stem.filter(|s| known(s))
        };
        let y = || {
            let stem = word.strip_suffix("ies").filter(|_| length > 4)?;
            Some(format!("{stem}y")).filter(|s| known(s))
        };
        let stem = one.or_else(two).map(str::to_owned).or_else(y)?;
        let stem = self.look_up(&stem, tag, stress, context)?;
        let last = stem.chars().last()?;
        Some(if "ptkfθ".contains(last) {
            format!("{stem}s")
        } else if "szʃʒʧʤ".contains(last) {
            format!("{stem}ᵻz")
        } else {
            format!("{stem}z")
        })
    }

    fn past(&self, word: &str, tag: &str, stress: Option<f32>, context: Context) -> Option<String> {
        let length = word.chars().count();
        if length < 4 || !word.ends_with('d') {
            return None;
        }
        let known = |stem: &&str| self.is_known(stem);
        let stem =
            word.strip_suffix('d').filter(|s| !word.ends_with("dd") && known(s)).or_else(|| {
                word.strip_suffix("ed").filter(|s| length > 4 && !word.ends_with("eed") && known(s))
            })?;
        let stem = self.look_up(stem, tag, stress, context)?;
        let mut chars = stem.chars().rev();
        let (last, before) = (chars.next()?, chars.next());
        Some(if "pkfθʃsʧ".contains(last) {
            format!("{stem}t")
        } else if last == 'd' {
            format!("{stem}ᵻd")
        } else if last != 't' {
            format!("{stem}d")
        } else if before.is_none() {
            format!("{stem}ɪd")
        } else if before.is_some_and(|c| FLAPPING.contains(c)) {
            format!("{}ɾᵻd", stem.strip_suffix('t').unwrap_or(&stem))
        } else {
            format!("{stem}ᵻd")
        })
    }

    fn participle(
        &self,
        word: &str,
        tag: &str,
        stress: Option<f32>,
        context: Context,
    ) -> Option<String> {
        let root = word.strip_suffix("ing").filter(|_| word.chars().count() >= 5)?;
        let known = |stem: &str| self.is_known(stem);
        let long = word.chars().count() > 5;
        let doubled = || {
            let mut chars = root.chars().rev();
            let (last, before) = (chars.next()?, chars.next()?);
            let repeats =
                (last == before && "bcdgklmnprstvxz".contains(last)) || root.ends_with("ck");
            let stem = root.strip_suffix(last).filter(|s| long && repeats && known(s))?;
            Some(stem.to_owned())
        };
        let stem = Some(root.to_owned())
            .filter(|s| long && known(s))
            .or_else(|| Some(format!("{root}e")).filter(|s| known(s)))
            .or_else(doubled)?;
        let stem = self.look_up(&stem, tag, stress, context)?;
        let mut chars = stem.chars().rev();
        let flaps = chars.next() == Some('t') && chars.next().is_some_and(|c| FLAPPING.contains(c));
        Some(if flaps {
            format!("{}ɾɪŋ", stem.strip_suffix('t').unwrap_or(&stem))
        } else {
            format!("{stem}ɪŋ")
        })
    }
}

/// Returns the phonemes of an entry `DEFAULT=…|VBD=…` for a tag. The inner option is `None` if the
/// word is spelled in this case.
fn variant<'a>(entry: &'a str, tag: &str) -> Option<Option<&'a str>> {
    if !entry.contains('=') {
        return Some(Some(entry));
    }
    let (_, phonemes) =
        entry.split('|').filter_map(|part| part.split_once('=')).find(|(name, _)| *name == tag)?;
    Some(Some(phonemes).filter(|phonemes| !phonemes.is_empty()))
}

fn capitalised(lower: &str) -> String {
    let mut chars = lower.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn parent_tag(tag: &str) -> &str {
    if tag.starts_with("VB") {
        "VERB"
    } else if tag.starts_with("NN") {
        "NOUN"
    } else if tag.starts_with("ADV") || tag.starts_with("RB") {
        "ADV"
    } else if tag.starts_with("ADJ") || tag.starts_with("JJ") {
        "ADJ"
    } else {
        tag
    }
}

/// Returns the length of a word for the rules of stress.
pub(super) fn weight(phonemes: &str) -> usize {
    phonemes.chars().map(|c| if DIPHTHONGS.contains(c) { 2 } else { 1 }).sum()
}

/// Returns `true` if the phonemes have a primary stress.
pub(super) fn is_stressed(phonemes: &str) -> bool {
    phonemes.contains(PRIMARY)
}

/// Raises or lowers the stress of a word: below -1 removes it, 2 makes it primary.
pub(super) fn apply_stress(phonemes: &str, stress: Option<f32>) -> String {
    let Some(stress) = stress else { return phonemes.to_owned() };
    let has_primary = phonemes.contains(PRIMARY);
    let has_secondary = phonemes.contains(SECONDARY);
    let has_vowel = phonemes.contains(|c| VOWELS.contains(c));
    let insert = |mark: char| {
        let at = phonemes.find(|c| VOWELS.contains(c)).unwrap_or(0);
        let (head, tail) = phonemes.split_at_checked(at).unwrap_or(("", phonemes));
        format!("{head}{mark}{tail}")
    };
    let remove = |mark: char| phonemes.replace(mark, "");
    let is = |value: f32| (stress - value).abs() < f32::EPSILON;
    if stress < -1.0 {
        remove(PRIMARY).replace(SECONDARY, "")
    } else if is(-1.0) || ((is(0.0) || is(-0.5)) && has_primary) {
        remove(SECONDARY).replace(PRIMARY, "ˌ")
    } else if (is(0.0) || is(0.5) || is(1.0)) && !has_primary && !has_secondary {
        if has_vowel { insert(SECONDARY) } else { phonemes.to_owned() }
    } else if stress >= 1.0 && !has_primary && has_secondary {
        phonemes.replace(SECONDARY, "ˈ")
    } else if stress > 1.0 && !has_primary && !has_secondary {
        if has_vowel { insert(PRIMARY) } else { phonemes.to_owned() }
    } else {
        phonemes.to_owned()
    }
}
