//! Keys of a telephone keypad.

use serde::{Deserialize, Serialize};

/// A key of a telephone keypad: `0`–`9`, `*`, `#`, `A`–`D` (RFC 4733 events 0–15).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "char", into = "char")]
pub struct Digit(u8);

impl Digit {
    /// Converts an RFC 4733 event code. Returns `None` above 15, for example for flash (16).
    pub fn from_event(event: u8) -> Option<Self> {
        (event <= 15).then_some(Self(event))
    }

    /// The RFC 4733 event code.
    pub fn event(self) -> u8 {
        self.0
    }

    /// The character printed on the key.
    pub fn as_char(self) -> char {
        char::from(b"0123456789*#ABCD".get(usize::from(self.0)).copied().unwrap_or(b'?'))
    }

    /// Whether this is one of the keys `A`–`D`, which documents ignore
    /// (docs/reference/xml.md#digits).
    pub fn is_letter(self) -> bool {
        self.0 >= 12
    }
}

impl TryFrom<char> for Digit {
    type Error = String;
    fn try_from(c: char) -> Result<Self, String> {
        let event = match c {
            '0'..='9' => u32::from(c) - u32::from('0'),
            '*' => 10,
            '#' => 11,
            'A'..='D' => u32::from(c) - u32::from('A') + 12,
            'a'..='d' => u32::from(c) - u32::from('a') + 12,
            other => return Err(format!("{other:?} is not a key: write one of 0-9, *, #, A-D")),
        };
        u8::try_from(event).map(Self).map_err(|e| e.to_string())
    }
}

impl From<Digit> for char {
    fn from(d: Digit) -> char {
        d.as_char()
    }
}

// Callers type secrets such as PINs, so `Debug` does not print the key
// (docs/reference/reliability.md#r22).
impl std::fmt::Debug for Digit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digit(_)")
    }
}
