//! Identifiers, in the form in which the wire carries them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

uuid_id!(
    /// Offhook's id of a call: a version 4 UUID, in lower case on the wire.
    CallUuid
);

impl CallUuid {
    /// Creates the id of a new call from a random UUID. The first 24 bits come from the time, so
    /// that calls of the same seconds are next to each other in the store's indexes and share their
    /// pages. 98 bits stay random.
    ///
    /// The time does not stand in front as in a version 7 UUID: there, the first eight digits, by
    /// which people name a call, would be those of all calls within a minute.
    pub fn new(random: Uuid, now: Timestamp) -> Self {
        // 64 steps a second, and a place in the index that changes every 256 steps. Multiples of
        // the golden ratio spread the places evenly.
        let steps = now.micros().div_euclid(1_000_000 / 64).cast_unsigned();
        let place = (steps >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let front = u128::from(place << 8 | steps & 0xff) << 104;
        Self(Uuid::from_u128(front | random.as_u128() & (u128::MAX >> 24)))
    }

    /// The first and the last UUID that begin with these characters, as a person types them: at
    /// least four, perhaps with an ellipsis. `None` if no UUID does.
    pub fn with_prefix(prefix: &str) -> Option<std::ops::RangeInclusive<Self>> {
        const ALL: [&str; 2] =
            ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"];
        let prefix = prefix.trim_end_matches(['…', '.']).to_ascii_lowercase();
        if prefix.len() < 4 {
            return None;
        }
        let fill = |all: &str| format!("{prefix}{}", all.get(prefix.len()..)?).parse().ok();
        let [first, last] = ALL.map(fill);
        Some(first?..=last?)
    }
}
uuid_id!(
    /// The id of an audio stream: `StreamID` in callbacks.
    StreamId
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the text without checking its length or characters.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The id as a string.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.into())
            }
        }

        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// Meta's id of a call, `wacid.…`: opaque, case-sensitive, 1 to 512 bytes of printable ASCII.
    Wacid
);
text_id!(
    /// Meta's id of a business number. Every webhook about calls and messages is routed by it.
    PhoneNumberId
);
text_id!(
    /// Meta's id of a WhatsApp Business Account.
    WabaId
);
text_id!(
    /// The id of an account (`MA…`) or a subaccount (`SA…`).
    AuthId
);

impl AuthId {
    /// Parses an id from outside: `MA` or `SA` and 18 characters of `A-Z0-9`. Plivo's SDKs refuse
    /// other ids.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (text.starts_with("MA") || text.starts_with("SA"))
            && text.len() == 20
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        is_id.then(|| text.into())
    }
}

text_id!(
    /// The id of an application: digits, generated by Offhook.
    AppId
);
text_id!(
    /// The id of an endpoint: 14 digits, the form of Plivo's endpoint ids.
    EndpointId
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::CallUuid;
    use crate::Timestamp;

    #[test]
    fn calls_of_the_same_seconds_are_neighbours_and_otherwise_random() {
        let id = |random: Uuid, millis| {
            CallUuid::new(random, Timestamp::from_secs(1_000).plus(Duration::from_millis(millis)))
        };
        let randoms = [Uuid::max(), Uuid::nil(), Uuid::new_v4(), Uuid::new_v4()];
        let calls = [0, 16, 1_000, 3_984].map(|at| randoms.map(|random| id(random, at)));
        assert!(calls.is_sorted_by(|before, after| before.iter().max() < after.iter().min()));
        let place = |call: CallUuid| call.0.as_u128() >> 112;
        assert_eq!(place(calls[0][0]), place(calls[3][0]));
        assert_ne!(place(calls[0][0]), place(id(randoms[0], 4_000)));
        for (call, random) in calls.iter().flat_map(|calls| calls.iter().zip(randoms)) {
            assert_eq!(call.0.as_bytes()[3..], random.as_bytes()[3..]);
        }
        assert_eq!(calls[0][2].0.get_version_num(), 4);
    }

    #[test]
    fn a_prefix_is_a_range_of_uuids() {
        let call: CallUuid = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".parse().unwrap();
        for prefix in ["3f0c", "3F0C2F1A", "3f0c2f1a-", "3f0c2f1a-6…", &call.to_string()] {
            assert!(CallUuid::with_prefix(prefix).unwrap().contains(&call), "{prefix}");
        }
        assert!(!CallUuid::with_prefix("3f0d").unwrap().contains(&call));
        for bad in [
            "",
            "3f0",
            "3f0c2f1a6",
            "3f0-",
            "sip:",
            "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b111",
            "３f0c",
        ] {
            assert_eq!(CallUuid::with_prefix(bad), None, "{bad}");
        }
    }
}
