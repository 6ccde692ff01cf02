use model::Timestamp;

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An event that was received.
    Event,
    /// A call that was over before its `connect` came.
    Tombstone,
}

/// A key and the time when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    pub kind: KeyKind,
    pub key: u128,
    pub seen: Timestamp,
}
