//! Recognises browsers that a person has signed in with before, so that wrong guesses of others do
//! not delay that person (`docs/reference/reliability.md#r15`).

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use uuid::Uuid;

/// Issues and verifies the values of the browser cookie. They are valid until the process ends.
pub(super) struct Browsers(Option<hmac::Key>);

impl Browsers {
    pub(super) fn new() -> Self {
        Self(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// A new value for a browser in which a user has signed in.
    pub(super) fn issue(&self, user: Uuid) -> Option<String> {
        let id = Uuid::new_v4();
        let tag = hmac::sign(self.0.as_ref()?, &signed(id, user));
        Some(format!("{}{}", id.simple(), hex::encode(tag)))
    }

    /// The id of a browser in which a user has signed in before.
    pub(super) fn verify(&self, user: Uuid, value: &str) -> Option<Uuid> {
        let (id, tag) = value.split_at_checked(32)?;
        let id = Uuid::try_parse(id).ok()?;
        let tag = hex::decode(tag).ok()?;
        hmac::verify(self.0.as_ref()?, &signed(id, user), &tag).ok().map(|()| id)
    }
}

fn signed(id: Uuid, user: Uuid) -> [u8; 32] {
    let mut signed = [0; 32];
    let (left, right) = signed.split_at_mut(16);
    left.copy_from_slice(id.as_bytes());
    right.copy_from_slice(user.as_bytes());
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r15_a_browser_is_recognised_for_its_own_user() {
        let (browsers, asha, ravi) = (Browsers::new(), Uuid::from_u128(1), Uuid::from_u128(2));
        let value = browsers.issue(asha).unwrap();
        assert!(browsers.verify(asha, &value).is_some());
        assert_ne!(browsers.issue(asha), Some(value.clone()));
        for (user, value) in [(ravi, value.as_str()), (asha, "x"), (asha, ""), (asha, &value[1..])]
        {
            assert_eq!(browsers.verify(user, value), None, "{value}");
        }
        assert_eq!(Browsers::new().verify(asha, &value), None);
    }
}
