//! Digits that are pressed while no instruction collects them: type-ahead within one document
//! (docs/reference/xml.md#digits).

use std::collections::VecDeque;

use model::Digit;

/// Maximum number of digits that are kept.
const KEYS_MAX: usize = 32;

/// A digit that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) digit: Digit,
    /// Whether the digit must stay out of logs.
    pub(crate) hidden: bool,
}

/// A bounded queue of digits that no instruction has taken yet.
#[derive(Debug, Default)]
pub(crate) struct DigitBuffer {
    keys: VecDeque<Key>,
    after_hidden: bool,
}

impl DigitBuffer {
    /// Appends a digit. Digits beyond the 32nd are dropped.
    pub(crate) fn push(&mut self, key: Key) {
        if self.keys.len() < KEYS_MAX {
            self.keys.push_back(key);
        }
    }

    /// Removes and returns the oldest digit, or returns `None` if there is none.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.keys.pop_front()
    }

    /// Returns all digits, oldest first, with `x` in place of each that must stay out of logs.
    pub(crate) fn redacted(&self) -> String {
        self.keys.iter().map(|key| if key.hidden { 'x' } else { key.digit.as_char() }).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Discards all digits, since a collection has ended or a new document begins.
    ///
    /// If `after_hidden`, the collection that has ended must stay out of logs, and so must the
    /// digits that follow it in the same document.
    pub(crate) fn clear(&mut self, after_hidden: bool) {
        self.keys.clear();
        self.after_hidden = after_hidden;
    }

    /// Records that a collection was interrupted. The digits are kept.
    pub(crate) fn interrupted(&mut self, hidden: bool) {
        self.after_hidden = hidden;
    }

    /// Whether digits pressed now follow a collection that must stay out of logs.
    pub(crate) fn is_after_hidden(&self) -> bool {
        self.after_hidden
    }
}

/// A set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DigitSet(u16);

impl DigitSet {
    /// Returns all keys that a collection can take: `0-9 * #`.
    pub(crate) fn all() -> Self {
        Self(0x0fff)
    }

    pub(crate) fn of(digits: &[Digit]) -> Self {
        Self(digits.iter().fold(0, |set, d| set | 1 << d.event()))
    }

    pub(crate) fn has(self, digit: Digit) -> bool {
        self.0 & 1 << digit.event() != 0
    }
}

/// How a collection treats digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) accepts_digits: bool,
    /// The key that ends the input and is not part of it.
    pub(crate) finish: Option<Digit>,
    /// The number of digits that complete an input.
    pub(crate) count: usize,
    pub(crate) valid: DigitSet,
    /// Whether the digits must stay out of logs (`log="false"`).
    pub(crate) hidden: bool,
}

impl Rules {
    /// Returns rules under which all keys have the same effect.
    pub(crate) fn taking_all() -> Self {
        Self {
            accepts_digits: true,
            finish: None,
            count: usize::MAX,
            valid: DigitSet::all(),
            hidden: false,
        }
    }

    /// Returns a key that has the same effect under these rules and does not reveal which was
    /// pressed.
    ///
    /// The finishing key is returned as it is. Every valid key becomes the first valid one, every
    /// invalid key the first invalid one.
    pub(crate) fn stand_in(&self, digit: Digit) -> Digit {
        if digit.is_letter() || self.finish == Some(digit) {
            return digit;
        }
        (0..12)
            .filter_map(Digit::from_event)
            .find(|d| self.finish != Some(*d) && self.valid.has(*d) == self.valid.has(digit))
            .unwrap_or(digit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digit, DigitBuffer, KEYS_MAX, Key};

    #[test]
    fn keeps_the_first_32_in_order() {
        let mut keys = DigitBuffer::default();
        for event in (0..10).cycle().take(KEYS_MAX + 5) {
            keys.push(Key { digit: Digit::from_event(event).unwrap(), hidden: event == 3 });
        }
        let kept: String =
            std::iter::from_fn(|| keys.pop()).map(|key| key.digit.as_char()).collect();
        assert_eq!(kept, "01234567890123456789012345678901");
    }
}
