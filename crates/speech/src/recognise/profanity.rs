//! `profanityFilter`: masks the words of a short list except for their first letter.
//!
//! The list contains only words without another meaning, in English, the languages of the embedded
//! voices, and Hindi in Latin letters. A recogniser may mask more words on its own.

/// The words in lower case. An entry that ends in `*` matches every word with that prefix.
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

/// Masks profanities in `text`. The number of characters stays the same.
pub(super) fn mask(text: &str) -> String {
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
    let matches = |entry: &&str| match entry.strip_suffix('*') {
        Some(stem) => lower.starts_with(stem),
        None => lower.trim_end_matches("'s") == *entry,
    };
    if WORDS.iter().any(matches) {
        masked.extend(word.chars().enumerate().map(|(at, c)| if at == 0 { c } else { '*' }));
    } else {
        masked.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::mask;

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
    fn profanities_keep_their_first_letter(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }

    proptest! {
        #[test]
        fn the_number_of_characters_is_unchanged(text in "\\PC*") {
            prop_assert_eq!(mask(&text).chars().count(), text.chars().count());
        }
    }
}
