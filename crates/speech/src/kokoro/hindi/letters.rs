//! Letter-to-sound rules: a Hindi word in Devanagari to IPA.
//!
//! Devanagari writes nearly every sound. What it does not write follows from rules: the vowel of a
//! consonant without a vowel sign, which is silent at the end of a word and in many syllables before
//! it; the nasal that a dot stands for, which depends on the next consonant; and the stress, which
//! depends on the weight of the syllables.

/// Words with a pronunciation that does not follow from their letters, as they would be written if it
/// did.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("यह", "ये"),
    ("वह", "वो"),
    ("जनवरी", "जन्वरी"),
    ("फ़रवरी", "फ़र्वरी"),
    ("फरवरी", "फ़र्वरी"),
    ("सिंह", "सिंघ"),
];

/// Words without stress: postpositions, conjunctions and forms of "to be".
const UNSTRESSED: &[&str] = &[
    "का",
    "की",
    "के",
    "को",
    "ने",
    "से",
    "में",
    "पर",
    "तक",
    "और",
    "या",
    "कि",
    "तो",
    "ही",
    "भी",
    "है",
    "हैं",
    "हूँ",
    "हो",
];

const VIRAMA: char = '\u{94d}';
const NUKTA: char = '\u{93c}';
const TILDE: char = '\u{303}';

/// The vowel after a consonant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vowel {
    /// No vowel, as the text shows: a virama joins the consonant to the next one.
    Joined,
    /// No vowel, which the text does not show: the inherent vowel is silent.
    Dropped,
    /// The short "a" of a consonant without a vowel sign.
    Inherent,
    Written(&'static str),
}

/// A consonant and the vowel that follows it.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// Empty for a vowel that follows no consonant.
    consonant: &'static str,
    vowel: Vowel,
    /// A dot above: a nasal consonant, or a nasal vowel.
    anusvara: bool,
    /// A moon and dot above: a nasal vowel.
    chandrabindu: bool,
    /// A breath after the vowel.
    visarga: bool,
}

impl Unit {
    fn new(consonant: &'static str, vowel: Vowel) -> Self {
        Self { consonant, vowel, anusvara: false, chandrabindu: false, visarga: false }
    }

    fn is_silent(&self) -> bool {
        matches!(self.vowel, Vowel::Joined | Vowel::Dropped)
    }

    fn is_bare(&self) -> bool {
        self.vowel == Vowel::Inherent && !(self.anusvara || self.chandrabindu || self.visarga)
    }

    fn is_long(&self) -> bool {
        matches!(self.vowel, Vowel::Written(vowel) if vowel.ends_with('ː'))
    }

    /// Whether a dot above stands for a consonant. Above a long vowel it makes the vowel nasal.
    fn has_nasal_consonant(&self) -> bool {
        self.anusvara && !self.is_long()
    }
}

/// Returns the sounds of a word in Devanagari. Other characters are silent.
pub(super) fn sounds(word: &str) -> String {
    let word = &decompose(word);
    let exception = EXCEPTIONS.iter().find(|(written, _)| decompose(written) == *word);
    let spelling = exception.map_or_else(|| word.clone(), |(_, as_if)| decompose(as_if));
    let mut units = parse(&spelling);
    drop_vowels(&mut units);
    let stressed = if UNSTRESSED.contains(&word.as_str()) { None } else { find_stress(&units) };
    write(&units, stressed)
}

/// Separates the dot below from letters that have a code point together with it.
fn decompose(word: &str) -> String {
    let mut letters = String::with_capacity(word.len());
    for letter in word.chars() {
        let base = match letter {
            '\u{929}' => 'न',
            '\u{931}' => 'र',
            '\u{934}' => 'ळ',
            '\u{958}' => 'क',
            '\u{959}' => 'ख',
            '\u{95a}' => 'ग',
            '\u{95b}' => 'ज',
            '\u{95c}' => 'ड',
            '\u{95d}' => 'ढ',
            '\u{95e}' => 'फ',
            '\u{95f}' => 'य',
            letter => {
                letters.push(letter);
                continue;
            }
        };
        letters.extend([base, NUKTA]);
    }
    letters
}

fn parse(word: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut letters = word.chars().peekable();
    while let Some(letter) = letters.next() {
        let dotted = letters.next_if_eq(&NUKTA).is_some();
        if let Some(sound) = consonant(letter, dotted) {
            // Two pairs of letters have a sound of their own.
            match (units.last_mut(), sound) {
                (Some(last), "ɲ") if last.consonant == "ɟ" && last.vowel == Vowel::Joined => {
                    last.consonant = "ɡ";
                    units.push(Unit::new("j", Vowel::Inherent));
                }
                (Some(last), "ʂ") if last.consonant == "k" && last.vowel == Vowel::Joined => {
                    units.push(Unit::new("ʃ", Vowel::Inherent));
                }
                _ => units.push(Unit::new(sound, Vowel::Inherent)),
            }
        } else if let Some(vowel) = independent_vowel(letter) {
            if letter == 'ऋ' {
                units.push(Unit::new("ɾ", Vowel::Written(vowel)));
            } else {
                units.push(Unit::new("", Vowel::Written(vowel)));
            }
        } else if let Some(last) = units.last_mut() {
            match letter {
                VIRAMA if last.vowel == Vowel::Inherent => last.vowel = Vowel::Joined,
                'ं' => last.anusvara = true,
                'ँ' => last.chandrabindu = true,
                'ः' => last.visarga = true,
                'ृ' if last.vowel == Vowel::Inherent => {
                    last.vowel = Vowel::Joined;
                    units.push(Unit::new("ɾ", Vowel::Written("ɪ")));
                }
                letter => {
                    if let Some(vowel) =
                        vowel_sign(letter).filter(|_| last.vowel == Vowel::Inherent)
                    {
                        last.vowel = Vowel::Written(vowel);
                    }
                }
            }
        }
    }
    units
}

/// Drops inherent vowels that are silent.
fn drop_vowels(units: &mut [Unit]) {
    let Some(last) = units.len().checked_sub(1).filter(|last| *last > 0) else { return };
    let at = |units: &[Unit], index: usize| units.get(index).copied();
    // At the end, unless the consonants before it would be hard to speak: "bank" needs no vowel after
    // them, "metre" does.
    if let (Some(before), Some(end)) = (at(units, last - 1), at(units, last))
        && end.is_bare()
        && !(before.is_silent() && sonority(end.consonant) > sonority(before.consonant))
    {
        set(units, last, Vowel::Dropped);
        if end.consonant == "j" && before.is_bare() {
            set(units, last - 1, Vowel::Written("ɛ"));
        }
    }
    // Between single consonants with a vowel before and after them, from the end on.
    for index in (1..last).rev() {
        if let (Some(before), Some(unit), Some(after)) =
            (at(units, index - 1), at(units, index), at(units, index + 1))
            && unit.is_bare()
            && !before.is_silent()
            && !before.has_nasal_consonant()
            && !after.is_silent()
            && !after.consonant.is_empty()
        {
            set(units, index, Vowel::Dropped);
        }
    }
}

fn set(units: &mut [Unit], index: usize, vowel: Vowel) {
    if let Some(unit) = units.get_mut(index) {
        unit.vowel = vowel;
    }
}

/// Returns the index of the unit with the stressed vowel: the last of the heaviest syllables. The last
/// syllable of a word counts only if it is heavy and ends with a consonant. A word without heavy
/// syllables is stressed on the first one. Returns `None` if there is no vowel.
fn find_stress(units: &[Unit]) -> Option<usize> {
    let voiced =
        |from: usize| (from..units.len()).find(|at| units.get(*at).is_some_and(|u| !u.is_silent()));
    let first = voiced(0)?;
    let (mut stressed, mut heaviest) = (first, 1);
    let mut at = first;
    while let Some(unit) = units.get(at) {
        let next = voiced(at + 1);
        let after = units.get(at + 1..next.unwrap_or(units.len())).unwrap_or_default();
        let nasal = usize::from(unit.has_nasal_consonant());
        let long = usize::from(unit.is_long());
        let weight = match next {
            Some(_) => {
                let joined = after.iter().filter(|unit| unit.vowel == Vowel::Joined).count();
                1 + long + (joined + nasal).min(1)
            }
            None => match (unit.is_long(), after.len() + nasal) {
                (true, 1..) => 3,
                (false, 2..) => 2,
                _ => 0,
            },
        };
        if weight >= heaviest && weight > 1 {
            (stressed, heaviest) = (at, weight);
        }
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    Some(stressed)
}

fn write(units: &[Unit], stressed: Option<usize>) -> String {
    let mut output = String::new();
    let mut doubled = false;
    for (index, unit) in units.iter().enumerate() {
        let next = units.get(index + 1);
        if !std::mem::take(&mut doubled) {
            output.push_str(unit.consonant);
        }
        let written = match unit.vowel {
            Vowel::Joined | Vowel::Dropped => {
                // A doubled consonant is a long one.
                if unit.vowel == Vowel::Joined
                    && next.is_some_and(|next| next.consonant == unit.consonant)
                {
                    output.push('ː');
                    doubled = true;
                }
                continue;
            }
            Vowel::Inherent => "ə",
            Vowel::Written(vowel) => vowel,
        };
        if stressed == Some(index) {
            output.push('ˈ');
        }
        let is_end = next.is_none() && !unit.visarga;
        let nasal_vowel = unit.chandrabindu || (unit.anusvara && unit.is_long());
        let short = written.trim_end_matches('ː');
        match written {
            // A stressed short "a" is more open, and so is one that begins a word.
            "ə" if stressed == Some(index) || (index == 0 && unit.consonant.is_empty()) => {
                output.push('ʌ');
            }
            _ if nasal_vowel => output.push_str(short),
            "iː" if is_end => output.push('i'),
            _ => output.push_str(written),
        }
        if nasal_vowel {
            output.push(TILDE);
            if short == "e" {
                output.push('ː');
            }
        } else if unit.anusvara {
            output.push_str(next.map_or("m", |next| nasal_before(next.consonant)));
        }
        if unit.visarga {
            output.push('h');
        }
    }
    output
}

/// Returns the nasal consonant that is spoken at the same place as the next consonant.
fn nasal_before(consonant: &str) -> &'static str {
    match consonant.chars().next() {
        Some('k' | 'ɡ' | 'q' | 'x' | 'ɣ' | 'h') => "ŋ",
        Some('c' | 'ɟ') => "ɲ",
        Some('ʈ' | 'ɖ' | 'ɽ') => "ɳ",
        Some('p' | 'b' | 'm' | 'f' | 'ʋ') => "m",
        _ => "n",
    }
}

/// Returns how much a consonant resembles a vowel.
fn sonority(consonant: &str) -> u8 {
    match consonant.chars().next() {
        Some('j' | 'ʋ') => 5,
        Some('ɾ' | 'ɽ') => 4,
        Some('l') => 3,
        Some('m' | 'n' | 'ɳ' | 'ɲ' | 'ŋ') => 2,
        _ => 1,
    }
}

/// Returns the sound of a consonant. `dotted` is whether a dot below follows it.
fn consonant(letter: char, dotted: bool) -> Option<&'static str> {
    Some(match (letter, dotted) {
        ('क', true) => "q",
        ('ख', true) => "x",
        ('ग', true) => "ɣ",
        ('ज', true) => "z",
        ('ड', true) => "ɽ",
        ('ढ', true) => "ɽʰ",
        ('फ', true) => "f",
        ('क', _) => "k",
        ('ख', _) => "kʰ",
        ('ग', _) => "ɡ",
        ('घ', _) => "ɡʰ",
        ('ङ', _) => "ŋ",
        ('च', _) => "c",
        ('छ', _) => "cʰ",
        ('ज', _) => "ɟ",
        ('झ', _) => "ɟʰ",
        ('ञ', _) => "ɲ",
        ('ट', _) => "ʈ",
        ('ठ', _) => "ʈʰ",
        ('ड', _) => "ɖ",
        ('ढ', _) => "ɖʰ",
        ('ण', _) => "ɳ",
        ('त', _) => "t",
        ('थ', _) => "tʰ",
        ('द', _) => "d",
        ('ध', _) => "dʰ",
        ('न', _) => "n",
        ('प', _) => "p",
        ('फ', _) => "pʰ",
        ('ब', _) => "b",
        ('भ', _) => "bʰ",
        ('म', _) => "m",
        ('य', _) => "j",
        ('र', _) => "ɾ",
        ('ल' | 'ळ', _) => "l",
        ('व', _) => "ʋ",
        ('श', _) => "ʃ",
        ('ष', _) => "ʂ",
        ('स', _) => "s",
        ('ह', _) => "h",
        _ => return None,
    })
}

fn independent_vowel(letter: char) -> Option<&'static str> {
    Some(match letter {
        'अ' => "ə",
        'आ' => "aː",
        'इ' => "ɪ",
        'ई' => "iː",
        'उ' => "ʊ",
        'ऊ' => "uː",
        'ऋ' => "ɪ",
        'ऍ' | 'ऎ' => "ɛ",
        'ए' => "eː",
        'ऐ' => "ɛː",
        'ऑ' | 'ऒ' => "ɔ",
        'ओ' => "oː",
        'औ' => "ɔː",
        _ => return None,
    })
}

fn vowel_sign(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ा' => "aː",
        'ि' => "ɪ",
        'ी' => "iː",
        'ु' => "ʊ",
        'ू' => "uː",
        'ॅ' | 'ॆ' => "ɛ",
        'े' => "eː",
        'ै' => "ɛː",
        'ॉ' | 'ॊ' => "ɔ",
        'ो' => "oː",
        'ौ' => "ɔː",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::sounds;

    #[rstest]
    // Silent vowels, at the end and within a word.
    #[case("कमल", "kˈʌməl")]
    #[case("समझना", "sˈʌməɟʰnaː")]
    #[case("लड़का", "lˈʌɽkaː")]
    #[case("सरकार", "səɾkˈaːɾ")]
    #[case("न", "nˈʌ")]
    // Consonants that need a vowel after them, and those that do not.
    #[case("पत्र", "pˈʌtɾə")]
    #[case("दर्द", "dˈʌɾd")]
    #[case("शून्य", "ʃˈuːnjə")]
    #[case("आवश्यकता", "aːʋˈʌʃjəktaː")]
    #[case("समय", "sˈʌmɛj")]
    // Nasals.
    #[case("संगीत", "səŋɡˈiːt")]
    #[case("पंजाब", "pəɲɟˈaːb")]
    #[case("घंटा", "ɡʰˈʌɳʈaː")]
    #[case("मुंबई", "mˈʊmbəi")]
    #[case("नहीं", "nˈʌhi\u{303}")]
    #[case("हाँ", "hˈa\u{303}")]
    #[case("में", "me\u{303}ː")]
    // Doubled and joined consonants.
    #[case("पक्का", "pˈʌkːaː")]
    #[case("अच्छा", "ˈʌccʰaː")]
    #[case("ज्ञान", "ɡjˈaːn")]
    #[case("क्षमा", "kʃˈʌmaː")]
    #[case("कृपया", "kɾˈɪpjaː")]
    // Dots below, in both encodings, and breath.
    #[case("फ\u{93c}ोन", "fˈoːn")]
    #[case("\u{95e}ोन", "fˈoːn")]
    #[case("\u{95e}रवरी", "fˈʌɾʋəɾi")]
    #[case("दुःख", "dˈʊhkʰ")]
    // The last of the heaviest syllables is stressed.
    #[case("तारीख", "taːɾˈiːkʰ")]
    #[case("खाता", "kʰˈaːtaː")]
    #[case("अगस्त", "ʌɡˈʌst")]
    // Text that is no word.
    #[case("\u{94d}\u{902}\u{93c}", "")]
    #[case("क\u{94d}\u{94d}\u{93f}", "k")]
    #[case("\u{902}", "")]
    fn words_have_their_sounds(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(sounds(word), expected);
    }
}
