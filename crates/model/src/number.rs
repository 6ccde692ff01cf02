//! Phone numbers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A phone number as Plivo gives it: E.164 digits, no plus, 5–15 of them.
///
/// `Debug` shows the last four digits only, since callers' numbers must not stand in logs (R22);
/// `Display` gives all of them, for the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(Arc<str>);

/// The digits of a number however it is written: `+1 631-555-3601` → `16315553601`.
pub fn digits_of(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// The last four characters of a number or id: as much of it as people are shown and logs may hold (R22).
pub fn last_four(text: &str) -> &str {
    let from = text.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default()
}

impl E164 {
    /// Reads a number with or without a plus; spaces, `-`, `.`, `(`, `)` are dropped.
    ///
    /// # Errors
    /// Another character, or not 5–15 digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let body = text.strip_prefix('+').unwrap_or(text);
        let mut digits = String::with_capacity(15);
        for c in body.chars() {
            match c {
                '0'..='9' => digits.push(c),
                ' ' | '-' | '.' | '(' | ')' => {}
                _ => {
                    return Err(format!(
                        "{text:?} is not a phone number: digits with an optional leading +"
                    ));
                }
            }
        }
        if (5..=15).contains(&digits.len()) {
            Ok(Self(digits.into()))
        } else {
            Err(format!("{text:?} is not a phone number: 5 to 15 digits"))
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a number as a resource: always the same (version 5 of RFC 9562, over its digits).
    pub fn resource_id(&self) -> Uuid {
        Uuid::new_v5(&NUMBERS, self.0.as_bytes())
    }
}

/// The name space of numbers' ids.
const NUMBERS: Uuid = Uuid::from_u128(0x6f66_6668_6f6f_4b2e_8e75_6d62_6572_7301);

impl TryFrom<String> for E164 {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        Self::parse(&s)
    }
}

impl From<E164> for String {
    fn from(n: E164) -> String {
        n.0.as_ref().to_owned()
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{}", last_four(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{E164, last_four};

    #[test]
    fn a_numbers_id_is_always_the_same() {
        let id = |digits: &str| E164::parse(digits).expect("a number").resource_id();
        assert_eq!(id("+91 80357 37458"), id("918035737458"));
        assert_ne!(id("918035737459"), id("918035737458"));
        assert_eq!(id("918035737458").get_version_num(), 5);
    }

    #[test]
    fn four_characters_are_shown() {
        for (text, shown) in [
            ("919812345678", "5678"),
            ("5678", "5678"),
            ("78", "78"),
            ("", ""),
            ("Zoë-äöü", "-äöü"),
        ] {
            assert_eq!(last_four(text), shown, "{text}");
        }
        assert_eq!(format!("{:?}", E164::parse("+91 98123 45678").expect("a number")), "…5678");
    }
}
