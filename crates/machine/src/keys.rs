//! Keys pressed while nobody collects them: type-ahead within one document (`plivo-xml.md` §4.1).

use std::collections::VecDeque;

use model::Digit;

/// L31.
const KEYS_MAX: usize = 32;

/// A bounded row of keys, each with whether it must stay out of logs.
#[derive(Debug, Default)]
pub(super) struct KeyBuffer(VecDeque<(Digit, bool)>);

impl KeyBuffer {
    /// Keeps a key; the 33rd is dropped.
    pub(super) fn push(&mut self, digit: Digit, hidden: bool) {
        if self.0.len() < KEYS_MAX {
            self.0.push_back((digit, hidden));
        }
    }

    /// The oldest key.
    pub(super) fn pop(&mut self) -> Option<(Digit, bool)> {
        self.0.pop_front()
    }

    /// All of them, oldest first; `x` for one that must stay out of logs.
    pub(super) fn shown(&self) -> String {
        self.0.iter().map(|(digit, hidden)| if *hidden { 'x' } else { digit.as_char() }).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all: a collection has ended, or a new document begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Digit, KEYS_MAX, KeyBuffer};

    #[test]
    fn keeps_the_first_32_in_order() {
        let mut keys = KeyBuffer::default();
        for event in (0..10).cycle().take(KEYS_MAX + 5) {
            keys.push(Digit::from_event(event).unwrap(), event == 3);
        }
        let kept: String = std::iter::from_fn(|| keys.pop()).map(|(d, _)| d.as_char()).collect();
        assert_eq!(kept, "01234567890123456789012345678901");
    }
}
