use model::Timestamp;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An event that was taken in.
    Event,
    /// A call that was over before it came.
    Tombstone,
}

/// A key and when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    pub kind: KeyKind,
    pub key: u128,
    pub seen: Timestamp,
}
