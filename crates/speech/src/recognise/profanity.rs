//! `profanityFilter`: words of a short list, all but their first letter masked (`plivo-xml.md` §5.5). Pure.
//!
//! A list can only hold words that are nothing else. It has those of English and the languages that the embedded voices
//! speak, and of Hindi as it is written in Latin letters; a recogniser may know more and mask them itself.

/// In lower case; one that ends in `*` stands for every word that begins so.
const WORDS: &[&str] = &[
    "arse",
    "arsehole*",
    "asshole*",
    "ass",
    "asses",
    "bastard*",
    "bitch*",
    "bollocks",
    "bullshit*",
    "cock",
    "cocks",
    "cocksucker*",
    "cunt*",
    "dickhead*",
    "dumbass*",
    "fag",
    "fags",
    "faggot*",
    "fuck*",
    "motherfuck*",
    "nigger*",
    "pussy",
    "pussies",
    "shit",
    "shits",
    "shitty",
    "shite",
    "slut*",
    "twat*",
    "wank*",
    "whore*",
    // German
    "arsch",
    "arschloch*",
    "fick",
    "ficken",
    "fotze*",
    "hure",
    "hurensohn*",
    "scheiße*",
    "scheisse*",
    "wichser*",
    // Spanish
    "cabrón*",
    "cabron*",
    "coño",
    "gilipollas",
    "hijueputa*",
    "joder",
    "mierda*",
    "puta",
    "putas",
    "puto",
    "putos",
    // French
    "bordel",
    "connard*",
    "connasse*",
    "enculé*",
    "merde*",
    "putain*",
    "salope*",
    // Italian
    "cazzo",
    "coglione*",
    "merda",
    "minchia",
    "puttana*",
    "stronzo",
    "stronza",
    "vaffanculo",
    // Hindi
    "bhenchod*",
    "behenchod*",
    "bhosdi*",
    "chutiya*",
    "gaand*",
    "madarchod*",
    "randi",
];

/// `text` with its bad words masked; as many characters as before.
pub(super) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c == '\'' {
            word.push(c);
        } else {
            push(&mut masked, &word);
            word.clear();
            masked.push(c);
        }
    }
    push(&mut masked, &word);
    masked
}

fn push(masked: &mut String, word: &str) {
    let lower = word.to_lowercase();
    let is_bad = |bad: &&str| match bad.strip_suffix('*') {
        Some(stem) => lower.starts_with(stem),
        None => lower.trim_end_matches("'s") == *bad,
    };
    if WORDS.iter().any(is_bad) {
        masked.extend(word.chars().enumerate().map(|(at, c)| if at == 0 { c } else { '*' }));
    } else {
        masked.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::masked;

    #[rstest]
    #[case("this is Shit!", "this is S***!")]
    #[case("what the fucking hell", "what the f****** hell")]
    #[case("Scheiße, sagt sie", "S******, sagt sie")]
    #[case(
        "an assistant passes the glass to Scunthorpe",
        "an assistant passes the glass to Scunthorpe"
    )]
    #[case("book a cocktail and a cockatoo", "book a cocktail and a cockatoo")]
    #[case("", "")]
    fn bad_words_keep_their_first_letter(#[case] said: &str, #[case] told: &str) {
        assert_eq!(masked(said), told);
    }

    proptest! {
        #[test]
        fn nothing_is_added_or_lost(text in "\\PC*") {
            prop_assert_eq!(masked(&text).chars().count(), text.chars().count());
        }
    }
}
