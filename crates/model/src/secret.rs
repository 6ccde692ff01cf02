//! A secret's type (R22): it prints as nothing, is wiped when dropped, and is read only by asking for it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A token, password or key. Clones share one copy, which is wiped with the last of them.
///
/// Has no `Display` and no `Serialize`; its `Debug` says only that it is one. Comparing is not offered either:
/// compare digests in constant time (R15).
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text, for the one place that signs, sends or hashes it.
    pub fn reveal(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// For command-line options.
impl FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn r22_debug_shows_nothing_of_it() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)).matches("canary").count(), 0);
        assert_eq!(secret.reveal(), "canary");
    }
}
