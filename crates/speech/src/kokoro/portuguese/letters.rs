//! Letter-to-sound rules: a Brazilian Portuguese word to the phonemes of the voice.
//!
//! The spelling shows the stress, and nearly all consonants. It does not show whether a stressed "e"
//! or "o" is open, nor which sound an "x" has: this follows from lists of endings and stems.
//!
//! The symbols are those with which the voice was trained: IPA, with one letter for affricates and
//! some diphthongs (`ʧ`, `ʤ`, `A` for "ei", `I` for "ai", `W` for "au", `Y` for "ói"), `y` for a final
//! "e" and `æ` for a final "a".

/// Words with a pronunciation that does not follow from their letters, as they would be written if it
/// did.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("e", "i"),
    ("etc", "etecétera"),
    ("álcool", "álcol"),
    ("facebook", "feicebúqui"),
    ("google", "gúgol"),
    ("internet", "internéte"),
    ("link", "línqui"),
    ("login", "loguim"),
    ("marketing", "márquetim"),
    ("muita", "mwínta"),
    ("muitas", "mwíntas"),
    ("muito", "mwínto"),
    ("muitos", "mwíntos"),
    ("nao", "não"),
    ("notebook", "noutebúqui"),
    ("online", "onláine"),
    ("sao", "são"),
    ("shopping", "xópim"),
    ("período", "períudo"),
    ("períodos", "períudos"),
    ("site", "saite"),
    ("sites", "saites"),
    ("smartphone", "ismartefône"),
    ("software", "sóftuer"),
    ("twitter", "tuíter"),
    ("vídeo", "vídio"),
    ("vídeos", "vídios"),
    ("whatsapp", "uatissápi"),
    ("wifi", "uaifai"),
];

/// Words without stress within a sentence: articles, prepositions, pronouns, and forms of "ser",
/// "estar", "ter" and "ir".
const UNSTRESSED: &str = "a à ao aos as às até com como da das de dela dele desde do dos e é ela elas ele eles em \
     era eram essa esse esses esta está estamos estão estar estava estavam este estes estou eu faz foi foram fui há \
     lhe lhes lo los mas me meu meus minha minhas na nas nem nessa nesse nesta neste no nos nossa nossas nosso nossos \
     num numa o onde os ou para pela pelas pelo pelos pode podem por pra qual qualquer quando que se seja sem ser \
     será seu seus somos sou sua suas são te tem temos tenho têm teu tinha tu tua um uma umas uns vai vamos você vocês \
     vou vão";

/// Endings of words, without the "s" of a plural, with an open "e" or "o" under the stress. `^` is
/// the beginning of a word. The longest ending in this list and in [`CLOSED`] decides.
const OPEN: &str = "a am e em o el ex et ol op ot oz oto ^dez ^der ^quer alquer aisquer equer ^requer ulher ^colher talher tiver \
     quiser puser disser fizer puder vier houver ouber trouxer maior melhor menor pior redor major suor tiverem \
     quiserem puserem disserem fizerem puderem vierem houverem ouberem trouxerem ^eram ^deram tiveram quiseram \
     puseram disseram fizeram puderam vieram houveram ouberam trouxeram speram sideram geram lteram operam uperam \
     lheres maiores melhores menores piores redores ^adora ^adoram senhora senhoras ^velho ^velha ^reza ^tese \
     ^teses ^peça ^peço ^impeça ^meço alegra alegro regra ^belo bela astelo aralelo amarelo artelo duelo ^levo \
     ^modo ^logo jogos fogos olhos ^molho ^posso ^nosso ^vosso ^ossos grossos osos ^ostos postos portos mortos \
     corpos povos ovos novos ortos concordo ecordo ^bordo herda merda perde ^neta ^meta foto moto voto deia bleia \
     treia oreia plateia geleia opeia isseia adeia inveja ordens";

/// Endings with a closed "e" or "o" under the stress.
const CLOSED: &str = "ore ores eres erem eram oa oas oam oo oia eia dora tora sora doras toras soras eza esa eses ezes ^treze eso \
     ezo esmo esma elho elha ejo eja ejam eje ejem eço eça echo egro egra ^chega ^chegam ^chego ^chegue ^cheguem \
     mprego ^grego ^grega diego ossego edo ^rede ^redes parede paredes ^sede ^seda pedro elo ^pela ^estrela ^ele \
     ^eles ^dele ^deles ^nele ^neles quele queles ebo evo ^teve steve manteve obteve conteve ^preto ^preta areta \
     aneta aveta boleta iqueta ilhete inete apete orvete anquete guete ^este ^estes ^deste ^destes ^neste ^nestes \
     ^esse ^esses ^desse ^desses ^nesse ^nesses interesse interesses ^cesta ^cesto ^besta ^sexta ^texto ^extra \
     ^desde ^verde ^verdes perda querda querdo ^cerca acerca ^cerco ^terço ^terça ^berço ^termo nfermo ^erro \
     ^fresco ^fresca unesco ^seco ^seca ^doze quatorze oleto eceba erceba ^beba ^fosse ^fossem ^forem ^gol ^gols \
     ^boca ^troco ^soco ^oco ^doce ^doces oço ^moça ^todo ^toda odo ogo ^hoje ojo ^cebola ^bolo ^rolo ^tolo miolo \
     consolo ^folha escolha ^bolha ^rolha olho obo ^sobre ^dobro ^sopa ^topo ^choro ^coro ^soro namoro ordo ^gordo \
     ^gorda orno orpo ^porra cachorra ^torre ^torres orro orto orço ^força orco oso ^esposa osto ^osso ^grosso \
     ^novo garoto garota iloto esgoto broto ovo olso olsa ^solto ^golfo ^arroz ^sofro ^rose";

/// Parts of words with an "x" between vowels that is not `ʃ`, by its sound.
const X_SOUNDS: &[(&str, &str)] = &[
    (
        "ks",
        "axi boxe complex conex crucifix duplex exu fixa fixo flex flux lexa lexo lexi nexo oxid oxig paradox prefix \
         prolix saxo sexo sexe sufix texan toxi tóxi táxi ortodox asfixi léxico perplex convex",
    ),
    ("s", "auxil auxíl máxim maxim próxim proxim troux sintaxe"),
];

/// Words in which "qu" and "gu" keep their "u" before "e" and "i", by the letters around it.
const KEPT_U: &str = "aguent bilíngu bilingu cinquent consequ delinqu eloqu equest frequ frequê linguí lingui \
     pingui sangui sequen sequên tranqui ubíqu unguent enxágue águe";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    /// An acute or grave accent.
    Acute,
    Circumflex,
    Tilde,
}

/// What follows the vowel in its syllable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    None,
    /// The second vowel of a diphthong.
    I,
    U,
    /// An "l" that is spoken as a vowel.
    L,
    /// A nasal consonant that is not spoken before another consonant.
    N,
    /// The same before "p" and "b", where it is spoken.
    M,
    /// The "m" at the end of "-am".
    FinalM,
}

/// A vowel, with the consonants before it.
#[derive(Clone, Debug)]
struct Syllable {
    before: String,
    letter: char,
    mark: Mark,
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stress {
    None,
    Secondary,
    Primary,
}

/// The place of a vowel in its word.
#[derive(Clone, Copy)]
struct Position {
    stress: Stress,
    /// Whether it follows the stressed vowel.
    is_weak: bool,
    /// Whether it also ends the word.
    is_final: bool,
    /// Whether only an "r" follows.
    before_r: bool,
}

/// Returns the sounds of a word in lower-case letters. Other characters are silent.
pub(super) fn sounds(word: &str) -> String {
    let spelling =
        EXCEPTIONS.iter().find(|(written, _)| *written == word).map_or(word, |(_, as_if)| as_if);
    let letters: Vec<char> = spelling.chars().filter(|c| c.is_alphabetic()).collect();
    let (syllables, after) = parse(&letters);
    let Some(stressed) = find_stress(&syllables, &letters) else { return after };
    write(&syllables, &after, stressed, &letters, is_unstressed(word))
}

/// Returns `true` if the word has no stress of its own within a sentence.
pub(super) fn is_unstressed(word: &str) -> bool {
    UNSTRESSED.split(' ').any(|unstressed| unstressed == word)
}

/// Returns a vowel letter without its accent.
fn vowel(letter: char) -> Option<(char, Mark)> {
    Some(match letter {
        'a' | 'e' | 'i' | 'o' | 'u' => (letter, Mark::None),
        'y' => ('i', Mark::None),
        'ü' => ('u', Mark::None),
        'á' | 'à' => ('a', Mark::Acute),
        'é' | 'è' => ('e', Mark::Acute),
        'í' => ('i', Mark::Acute),
        'ó' | 'ò' => ('o', Mark::Acute),
        'ú' => ('u', Mark::Acute),
        'â' => ('a', Mark::Circumflex),
        'ê' => ('e', Mark::Circumflex),
        'î' => ('i', Mark::Circumflex),
        'ô' => ('o', Mark::Circumflex),
        'û' => ('u', Mark::Circumflex),
        'ã' => ('a', Mark::Tilde),
        'õ' => ('o', Mark::Tilde),
        'ĩ' => ('i', Mark::Tilde),
        _ => return None,
    })
}

fn is_vowel(letter: Option<char>) -> bool {
    letter.is_some_and(|letter| vowel(letter).is_some())
}

fn is_front(letter: Option<char>) -> bool {
    letter.and_then(vowel).is_some_and(|(letter, _)| matches!(letter, 'e' | 'i'))
}

/// Separates a word into syllables and the consonants after the last one.
fn parse(letters: &[char]) -> (Vec<Syllable>, String) {
    let mut syllables = Vec::new();
    let mut before = String::new();
    let mut at = 0;
    while let Some(letter) = letters.get(at).copied() {
        match vowel(letter) {
            // A "y" before a vowel is a consonant, and so is the "i" of "-iência".
            Some(_)
                if (letter == 'y' && is_vowel(letters.get(at + 1).copied()))
                    || matches!(letters.get(at..at + 3), Some(['i', 'ê', 'n'])) =>
            {
                before.push('j');
                at += 1;
            }
            Some((letter, mark)) => {
                let (tail, length) = find_tail(letters, at, letter, mark);
                syllables.push(Syllable {
                    before: std::mem::take(&mut before),
                    letter,
                    mark,
                    tail,
                });
                at += length;
            }
            None => {
                let (sound, length) = consonant(letters, at);
                before.push_str(sound);
                at += length;
            }
        }
    }
    (syllables, before)
}

/// Returns what follows the vowel at `at` in its syllable, and the number of letters of both.
fn find_tail(letters: &[char], at: usize, letter: char, mark: Mark) -> (Tail, usize) {
    let get = |offset: usize| letters.get(at + offset).copied();
    let next = get(1);
    // Whether a consonant at an offset ends its syllable.
    let closes = |offset: usize| match (get(offset), get(offset + 1)) {
        (Some('n'), Some('h')) => true,
        (Some('l' | 'm' | 'n' | 'r' | 'z'), None) => true,
        (Some('l' | 'm' | 'n' | 'r' | 'z'), Some('s')) => get(offset + 2).is_none(),
        (Some('m' | 'n'), Some(after)) => vowel(after).is_none(),
        (Some('l' | 'r'), Some(after)) => vowel(after).is_none() && after != 'h' && after != 'r',
        _ => false,
    };
    match (letter, mark, next) {
        ('a', Mark::Tilde, Some('o')) => return (Tail::U, 2),
        ('a', Mark::Tilde, Some('e' | 'i')) | ('o', Mark::Tilde, Some('e')) => return (Tail::I, 2),
        (_, Mark::Tilde, _) => return (Tail::None, 1),
        // "Ao", "caos".
        ('a', Mark::None, Some('o'))
            if matches!((get(2), get(3)), (None, _) | (Some('s'), None)) =>
        {
            return (Tail::U, 2);
        }
        ('a' | 'e' | 'o' | 'u', _, Some('i' | 'y')) if !closes(2) => {
            let is_glide = match get(2) {
                // "Saiu", "caía".
                Some('u') => false,
                Some(after) => letter != 'u' || vowel(after).is_none(),
                None => true,
            };
            if is_glide {
                return (Tail::I, 2);
            }
        }
        ('a' | 'e' | 'i' | 'o', _, Some('u' | 'w')) if !closes(2) => return (Tail::U, 2),
        (_, _, Some('l')) if !is_vowel(get(2)) && !matches!(get(2), Some('h' | 'l')) => {
            return (Tail::L, 2);
        }
        (_, _, Some('m' | 'n')) => {}
        _ => return (Tail::None, 1),
    }
    match (next, get(2)) {
        (Some('m'), Some('p' | 'b')) => (Tail::M, 2),
        (Some('m'), None) if letter == 'a' => (Tail::FinalM, 2),
        (Some('m'), Some('n')) => (Tail::None, 1),
        (Some('n'), Some('h')) => (Tail::None, 1),
        (Some('m'), Some('m')) | (Some('n'), Some('n')) => (Tail::None, 1),
        (Some('m' | 'n'), after) if !is_vowel(after) => (Tail::N, 2),
        _ => (Tail::None, 1),
    }
}

/// Returns the sound of the consonant at `at` and the number of its letters.
fn consonant(letters: &[char], at: usize) -> (&'static str, usize) {
    let get = |offset: usize| letters.get(at + offset).copied();
    let previous = at.checked_sub(1).and_then(|before| letters.get(before)).copied();
    let letter = get(0).unwrap_or_default();
    let (next, after) = (get(1), get(2));
    let between_vowels = is_vowel(previous) && is_vowel(next);
    match (letter, next) {
        ('c', Some('h')) if after.is_none_or(|c| vowel(c).is_some()) => ("ʃ", 2),
        ('s', Some('h')) => ("ʃ", 2),
        ('l', Some('h')) if previous.is_none() => ("ʎ", 2),
        ('l', Some('h')) => ("lj", 2),
        ('n', Some('h')) => ("ɲ", 2),
        ('p', Some('h')) => ("f", 2),
        ('t', Some('h')) => ("t", 2),
        ('r', Some('r')) => ("x", 2),
        ('s', Some('s')) => ("s", 2),
        ('s' | 'x', Some('c')) if is_front(after) => ("s", 2),
        ('s', Some('ç')) => ("s", 2),
        ('c', Some('k')) => ("k", 2),
        ('q' | 'g', Some('u')) if is_front(after) => match (letter, has_part(letters, KEPT_U)) {
            ('q', true) => ("kw", 2),
            ('q', false) => ("k", 2),
            (_, true) => ("ɡw", 2),
            (_, false) => ("ɡ", 2),
        },
        ('q', Some('u' | 'ü')) if is_vowel(after) => ("kw", 2),
        ('g', Some('u' | 'ü')) if is_vowel(after) => ("ɡw", 2),
        // A doubled consonant of a foreign word.
        (letter, Some(next)) if letter == next => ("", 1),
        ('c', next) if is_front(next) => ("s", 1),
        ('g', next) if is_front(next) => ("ʒ", 1),
        ('s', Some('b' | 'd' | 'g' | 'l' | 'm' | 'n' | 'r' | 'v' | 'z')) if previous.is_some() => {
            ("z", 1)
        }
        ('s', _) if between_vowels => ("z", 1),
        ('s', _)
            if (starts_with(letters, "trans") || starts_with(letters, "trâns"))
                && at == 4
                && is_vowel(next) =>
        {
            ("z", 1)
        }
        ('z', None) => ("s", 1),
        ('r', None) => ("r", 1),
        ('r', _) if matches!(previous, None | Some('l' | 'n' | 's')) => ("x", 1),
        ('r', next) if is_vowel(previous) && is_vowel(next) => ("ɾ", 1),
        ('r', _) if is_vowel(previous) => ("ɾə", 1),
        ('r', _) => ("r", 1),
        ('x', _) => (x_sound(letters, at), 1),
        ('b', _) => ("b", 1),
        ('c' | 'k' | 'q', _) => ("k", 1),
        ('ç' | 's', _) => ("s", 1),
        ('d', _) => ("d", 1),
        ('f', _) => ("f", 1),
        ('g', _) => ("ɡ", 1),
        ('j', _) => ("ʒ", 1),
        ('l', _) => ("l", 1),
        ('m', _) => ("m", 1),
        ('n' | 'ñ', _) => ("n", 1),
        ('p', _) => ("p", 1),
        ('t', None) => ("ʧ", 1),
        ('t', _) => ("t", 1),
        ('v', _) => ("v", 1),
        ('w', _) => ("w", 1),
        ('z', _) => ("z", 1),
        _ => ("", 1),
    }
}

/// Returns the sound of the "x" at `at`.
fn x_sound(letters: &[char], at: usize) -> &'static str {
    let get = |at: Option<usize>| at.and_then(|at| letters.get(at)).copied();
    let (before, previous, next) =
        (get(at.checked_sub(2)), get(at.checked_sub(1)), get(Some(at + 1)));
    let listed = X_SOUNDS.iter().find(|(_, parts)| has_part(letters, parts));
    match (previous, next) {
        (None, _) => "ʃ",
        (_, None) => "ks",
        _ if listed.is_some() => listed.map_or("", |(sound, _)| sound),
        (Some('e' | 'ê'), Some(next)) if before.is_none() && vowel(next).is_some() => "z",
        (Some('e'), Some(next))
            if at == 3
                && (starts_with(letters, "inex") || starts_with(letters, "coex"))
                && vowel(next).is_some() =>
        {
            "z"
        }
        (_, Some(next)) if vowel(next).is_none() => "s",
        _ => "ʃ",
    }
}

fn starts_with(letters: &[char], prefix: &str) -> bool {
    prefix.chars().enumerate().all(|(at, c)| letters.get(at) == Some(&c))
}

/// Returns `true` if a word contains one of some parts, which spaces separate.
fn has_part(letters: &[char], parts: &str) -> bool {
    let word: String = letters.iter().collect();
    parts.split_whitespace().any(|part| word.contains(part))
}

/// Returns the index of the stressed syllable, or `None` if there is none.
fn find_stress(syllables: &[Syllable], letters: &[char]) -> Option<usize> {
    let last = syllables.len().checked_sub(1)?;
    let marked =
        |marks: &[Mark]| syllables.iter().rposition(|syllable| marks.contains(&syllable.mark));
    if let Some(at) = marked(&[Mark::Acute, Mark::Circumflex]).or_else(|| marked(&[Mark::Tilde])) {
        return Some(at);
    }
    let end = match letters {
        [rest @ .., 'n', 's'] | [rest @ .., 'm' | 's'] | rest => rest,
    };
    let is_weak = match (letters, end) {
        // "Homem", "homens", "falam"; but "bombom" and "jardim".
        ([.., 'm'] | [.., 'n', 's'], [.., 'a' | 'e']) => true,
        ([.., 'm'] | [.., 'n', 's'], _) => false,
        (_, [.., 'a' | 'e' | 'o']) => true,
        _ => false,
    };
    let ends_with_diphthong =
        syllables.last().is_some_and(|s| matches!(s.tail, Tail::I | Tail::U | Tail::L));
    Some(if is_weak && !ends_with_diphthong { last.saturating_sub(1) } else { last })
}

/// Returns the stress of a syllable. Words of three and more syllables have a secondary stress on the
/// first one and on every other syllable after it that is not next to the primary stress.
fn stress_of(at: usize, stressed: usize, syllables: usize) -> Stress {
    match at {
        at if at == stressed => Stress::Primary,
        0 if syllables > 2 => Stress::Secondary,
        at if at < stressed && at % 2 == 0 && at + 1 < stressed && syllables > 2 => {
            Stress::Secondary
        }
        _ => Stress::None,
    }
}

fn write(
    syllables: &[Syllable],
    after: &str,
    stressed: usize,
    letters: &[char],
    is_unstressed: bool,
) -> String {
    // "De", "que", "os".
    let is_clitic = is_unstressed && syllables.len() == 1;
    let mut output = String::new();
    for (at, syllable) in syllables.iter().enumerate() {
        let stress = match stress_of(at, stressed, syllables.len()) {
            Stress::Secondary if is_unstressed => Stress::None,
            stress => stress,
        };
        let next = syllables.get(at + 1);
        let is_final = next.is_none() && matches!(after, "" | "s");
        let is_weak =
            at > stressed || (is_clitic && syllable.mark == Mark::None && syllable.letter != 'a');
        let position = Position {
            stress,
            is_weak,
            is_final: is_final && is_weak,
            before_r: next.is_none() && after == "r",
        };
        let sounds = vowel_sounds(syllable, next, position, || is_open(letters));
        let mut before = syllable.before.replace("tj", "ʧj").replace("dj", "ʤj");
        if sounds.starts_with(['i', 'y', 'j']) {
            soften(&mut before);
        }
        output.push_str(&before);
        match stress {
            Stress::None => {}
            Stress::Secondary => output.push('ˌ'),
            Stress::Primary => output.push('ˈ'),
        }
        output.push_str(&sounds);
    }
    output.push_str(after);
    output
}

/// Replaces a "t" or "d" at the end with the sound that it has before "i".
fn soften(consonants: &mut String) {
    match consonants.pop() {
        Some('t') => consonants.push('ʧ'),
        Some('d') => consonants.push('ʤ'),
        other => consonants.extend(other),
    }
}

/// Returns the sounds of a vowel and what follows it in its syllable.
fn vowel_sounds(
    syllable: &Syllable,
    next: Option<&Syllable>,
    Position { stress, is_weak, is_final, before_r }: Position,
    is_open: impl Fn() -> bool,
) -> String {
    let Syllable { letter, mark, tail, .. } = *syllable;
    let before_nasal = next.is_some_and(|next| next.before.starts_with(['m', 'n', 'ɲ']));
    let before_m = next.is_some_and(|next| next.before.starts_with('m'));
    let next_is_a = next.is_some_and(|next| next.before.is_empty() && next.letter == 'a');
    let before_nh = next.is_some_and(|next| next.before.starts_with('ɲ'));
    let open = || match mark {
        Mark::Acute => true,
        Mark::Circumflex | Mark::Tilde => false,
        Mark::None => stress == Stress::Primary && !before_nasal && is_open(),
    };
    let glides = is_weak
        && matches!(tail, Tail::None)
        && !syllable.before.is_empty()
        && next.is_some_and(|next| next.before.is_empty());
    match (letter, tail) {
        ('a', Tail::U) if mark == Mark::Tilde => "ɐ\u{303}ʊ\u{303}".to_owned(),
        ('a', Tail::FinalM) => "ɐ\u{303}ʊ\u{303}".to_owned(),
        ('a', Tail::I) if mark == Mark::Tilde => "ɐ\u{303}y".to_owned(),
        ('o', Tail::I) if mark == Mark::Tilde => "o\u{303}j".to_owned(),
        ('a', Tail::N) => "ɐ\u{303}ŋ".to_owned(),
        ('a', Tail::M) => "ɐ\u{303}m".to_owned(),
        ('e', Tail::N | Tail::FinalM) => "Aŋ".to_owned(),
        ('e', Tail::M) => "Am".to_owned(),
        ('u', Tail::N | Tail::FinalM) => "u\u{303}ŋ".to_owned(),
        ('u', Tail::M) => "u\u{303}m".to_owned(),
        (letter, Tail::N | Tail::FinalM) => format!("{letter}ŋ"),
        (letter, Tail::M) => format!("{letter}m"),
        ('a', Tail::I) => "I".to_owned(),
        ('a', Tail::U | Tail::L) => "W".to_owned(),
        ('e', Tail::I) if mark == Mark::Acute || (next_is_a && open()) => "ɛɪ".to_owned(),
        ('e', Tail::I) => "A".to_owned(),
        ('e', Tail::U) if mark == Mark::Acute => "ɛʊ".to_owned(),
        ('e', Tail::L) if open() => "ɛʊ".to_owned(),
        ('e', Tail::U | Tail::L) => "eʊ".to_owned(),
        ('o', Tail::I) if mark == Mark::Acute || (next_is_a && open()) => "Y".to_owned(),
        ('o', Tail::L) if open() => "ɔl".to_owned(),
        ('u', Tail::L) if mark == Mark::Acute => "ul".to_owned(),
        ('u', Tail::L) => "uw".to_owned(),
        ('o', Tail::U | Tail::L) => "ow".to_owned(),
        (letter, Tail::I) => format!("{letter}ɪ"),
        (letter, Tail::U | Tail::L) => format!("{letter}ʊ"),
        ('a', Tail::None) => match (mark, stress) {
            (Mark::Tilde, _) => "ɐ\u{303}",
            _ if before_nh => "ɐ\u{303}",
            (_, Stress::Primary) if before_nasal => "ɐ\u{303}",
            _ if before_nasal || (is_weak && !before_r) => "æ",
            _ => "a",
        }
        .to_owned(),
        ('e', Tail::None) if is_final => "y".to_owned(),
        ('e', Tail::None) if open() => "ɛ".to_owned(),
        ('o', Tail::None) if is_final => "ʊ".to_owned(),
        ('o', Tail::None) if open() => "ɔ".to_owned(),
        ('i', Tail::None) if glides => "j".to_owned(),
        ('u', Tail::None)
            if stress == Stress::Primary && (before_nh || (mark == Mark::Acute && before_m)) =>
        {
            "u\u{303}".to_owned()
        }
        (letter, Tail::None) => letter.to_string(),
    }
}

/// Returns `true` if the stressed "e" or "o" of a word without accent is open.
fn is_open(letters: &[char]) -> bool {
    let word: String = ['^'].iter().chain(letters).collect();
    let singular = word.strip_suffix('s').unwrap_or(&word);
    let longest = |endings: &str| {
        let matches = |ending: &&str| word.ends_with(ending) || singular.ends_with(ending);
        endings.split_whitespace().filter(matches).map(str::len).max()
    };
    longest(OPEN) > longest(CLOSED)
}
