//! Names of endpoints.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Maximum length of a name, in characters.
const NAME_MAX: usize = 64;

/// The name of an endpoint: 1 to 64 ASCII letters, digits, `.`, `_` and `-`. Case-sensitive and
/// unique on a node.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// Returns an error that states the rule if the text is not a valid name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits && (1..=NAME_MAX).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(format!("must be 1 to {NAME_MAX} letters, digits, dots, dashes and underscores"))
        }
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EndpointName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<EndpointName> for String {
    fn from(name: EndpointName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EndpointName {
    /// The endpoint's SIP address, `sip:NAME@HOST`. `host` is the public host name of this node.
    pub fn sip_address(&self, host: &str) -> String {
        format!("sip:{self}@{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::EndpointName;

    #[test]
    fn accepts_letters_digits_and_a_few_signs() {
        let longest = "n".repeat(64);
        for good in ["a", "asha", "Asha.K_2-x", longest.as_str()] {
            assert_eq!(EndpointName::parse(good).expect(good).as_str(), good);
        }
        let too_long = "n".repeat(65);
        for bad in ["", "a b", "a@b", "zoë", "a:b", "a/b", "<a>", too_long.as_str()] {
            assert!(EndpointName::parse(bad).is_err(), "{bad}");
        }
        let asha = EndpointName::parse("asha").expect("a name");
        assert_eq!(asha.sip_address("calls.example.com"), "sip:asha@calls.example.com");
    }
}
