//! DTMF scripts.

use std::time::Duration;

use model::Digit;

/// Maximum length of a DTMF script, in characters.
const KEYS_MAX: usize = 200;

/// A step of a DTMF script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// Presses the key for 500 ms, followed by 100 ms of pause.
    Press(Digit),
    /// Waits.
    Pause(Duration),
}

/// Parses a DTMF script: `0`–`9`, `*`, `#` and `A`–`D` are keys, `w` waits 0.5 s, `W` 1 s.
///
/// # Errors
///
/// Returns a message if the script has an unknown character or more than 200 characters.
pub fn parse_keys(text: &str) -> Result<Vec<KeyStep>, String> {
    if text.chars().count() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} characters"));
    }
    text.chars()
        .map(|c| match c {
            'w' => Ok(KeyStep::Pause(Duration::from_millis(500))),
            'W' => Ok(KeyStep::Pause(Duration::from_secs(1))),
            c => Digit::try_from(c).map(KeyStep::Press).map_err(|_| {
                format!("{c:?} is not a key: use 0-9, *, #, A-D, w (0.5 s) or W (1 s)")
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_keys_and_pauses() {
        let keys = parse_keys("1w2W#").expect("keys");
        assert_eq!(keys.len(), 5);
        assert_eq!(keys.get(1), Some(&KeyStep::Pause(Duration::from_millis(500))));
        assert_eq!(keys.get(3), Some(&KeyStep::Pause(Duration::from_secs(1))));
        assert!(matches!(keys.last(), Some(KeyStep::Press(d)) if d.as_char() == '#'));
        assert!(parse_keys("1x").is_err_and(|e| e.contains("'x'")));
        assert!(parse_keys(&"1".repeat(201)).is_err());
    }
}
