//! Phone numbers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A phone number in Plivo's form: 5 to 15 digits of E.164 without a plus.
///
/// `Debug` prints only the last four digits, since logs must not contain users' numbers
/// (docs/reference/reliability.md#r22). `Display` prints all of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(Arc<str>);

/// The ASCII digits of a text: `+1 631-555-3601` → `16315553601`.
pub fn digits_of(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// The last four characters of a number or id, the only part that may appear in a log.
pub fn last_four(text: &str) -> &str {
    let from = text.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default()
}

impl E164 {
    /// Parses a number with or without a leading plus. Spaces, `-`, `.`, `(` and `)` are dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the text contains another character, or has fewer than 5 or more than 15
    /// digits.
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
                        "{text:?} is not a phone number: write digits with an optional leading +"
                    ));
                }
            }
        }
        if (5..=15).contains(&digits.len()) {
            Ok(Self(digits.into()))
        } else {
            Err(format!("{text:?} is not a phone number: write 5 to 15 digits"))
        }
    }

    /// Parses the number of a user who is to be called.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a number, or is a number as dialled within a country:
    /// no country code begins with 0 (ITU-T E.164).
    pub fn parse_user(text: &str) -> Result<Self, String> {
        let number = Self::parse(text)?;
        match number.0.starts_with('0') {
            true => Err(format!(
                "{text:?} lacks the country code: write it in place of the leading zeros"
            )),
            false => Ok(number),
        }
    }

    /// The digits, without a plus.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of this number as an API resource: a name-based UUID (version 5, RFC 9562 §5.5) of
    /// its digits, so that it never changes.
    pub fn resource_id(&self) -> Uuid {
        Uuid::new_v5(&NUMBERS, self.0.as_bytes())
    }
}

/// Namespace of [`E164::resource_id`].
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
    fn resource_id_depends_only_on_the_digits() {
        let id = |digits: &str| E164::parse(digits).expect("a number").resource_id();
        assert_eq!(id("+91 80357 37458"), id("918035737458"));
        assert_ne!(id("918035737459"), id("918035737458"));
        assert_eq!(id("918035737458").get_version_num(), 5);
    }

    #[test]
    fn debug_shows_the_last_four_digits() {
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
