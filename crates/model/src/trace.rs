//! W3C Trace Context ids. A call is one trace; each request about the call is a span.
//!
//! A trace id is the call's UUID without hyphens, so that either can be derived from the other in
//! any log, even after a restart. A version 4 UUID meets the requirements of W3C Trace Context
//! §3.2.2.3: it is not all zero, and its right-most seven bytes are random.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::CallUuid;

/// The trace id of a call. Prints as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceId(#[serde(with = "uuid::serde::simple")] uuid::Uuid);

impl From<CallUuid> for TraceId {
    fn from(call: CallUuid) -> Self {
        Self(call.0)
    }
}

impl TraceId {
    /// The id as 16 bytes in network order.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of a span. Prints as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// Creates an id from a random number. Zero becomes 1, since an all-zero id is invalid (W3C
    /// Trace Context §3.2.2.4).
    pub fn from_u64(random: u64) -> Self {
        Self(NonZeroU64::new(random).unwrap_or(NonZeroU64::MIN))
    }

    /// The id as 8 bytes in network order.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SpanId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpanId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let span = (text.len() == 16).then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        span.map(Self::from_u64)
            .ok_or_else(|| serde::de::Error::custom("span id is not 16 hex digits"))
    }
}

/// The value of a `traceparent` header (W3C Trace Context §3.2): version 00, with the sampled flag
/// set, since every call is traced.
pub fn traceparent(trace: TraceId, span: SpanId) -> String {
    format!("00-{trace}-{span}-01")
}

#[cfg(test)]
mod tests {
    use super::{SpanId, TraceId, traceparent};
    use crate::CallUuid;

    #[test]
    fn prints_and_reads_ids() {
        let call: CallUuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736".parse().expect("a UUID");
        let (trace, span) = (TraceId::from(call), SpanId::from_u64(0x00f0_67aa_0ba9_02b7));
        assert_eq!(
            traceparent(trace, span),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
        assert_eq!(SpanId::from_u64(0).to_string(), "0000000000000001");
        let json = serde_json::to_string(&(trace, span)).expect("JSON");
        assert_eq!(json, r#"["4bf92f3577b34da6a3ce929d0e0e4736","00f067aa0ba902b7"]"#);
        assert_eq!(
            serde_json::from_str::<(TraceId, SpanId)>(&json).expect("read back"),
            (trace, span)
        );
        for wrong in [r#""""#, r#""00f067aa0ba902b""#, r#""zzzzzzzzzzzzzzzz""#, "7"] {
            assert!(serde_json::from_str::<SpanId>(wrong).is_err(), "{wrong}");
        }
    }
}
