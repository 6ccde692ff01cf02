//! Recognises browsers that a person has signed in with before, so that the wrong guesses of others
//! do not delay them (`docs/reference/reliability.md#r15`).

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use uuid::Uuid;

/// Issues and verifies the values of the browser cookie. They are valid until the process ends.
pub(super) struct Browsers(Option<hmac::Key>);

impl Browsers {
    pub(super) fn new() -> Self {
        Self(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// A new value for a browser in which `name` has signed in.
    pub(super) fn issue(&self, name: &str) -> Option<String> {
        let id = Uuid::new_v4();
        let tag = hmac::sign(self.0.as_ref()?, &signed(id, name));
        Some(format!("{}{}", id.simple(), hex::encode(tag)))
    }

    /// The id of a browser in which `name` has signed in before.
    pub(super) fn verify(&self, name: &str, value: &str) -> Option<Uuid> {
        let (id, tag) = value.split_at_checked(32)?;
        let id = Uuid::try_parse(id).ok()?;
        let tag = hex::decode(tag).ok()?;
        hmac::verify(self.0.as_ref()?, &signed(id, name), &tag).ok().map(|()| id)
    }
}

fn signed(id: Uuid, name: &str) -> Vec<u8> {
    [id.as_bytes(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r15_a_browser_is_recognised_for_its_own_name() {
        let browsers = Browsers::new();
        let value = browsers.issue("asha").unwrap();
        assert!(browsers.verify("asha", &value).is_some());
        assert_ne!(browsers.issue("asha"), Some(value.clone()));
        for (name, value) in
            [("ravi", value.as_str()), ("asha", "x"), ("asha", ""), ("asha", &value[1..])]
        {
            assert_eq!(browsers.verify(name, value), None, "{value}");
        }
        assert_eq!(Browsers::new().verify("asha", &value), None);
    }
}
