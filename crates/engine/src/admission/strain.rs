//! The reasons for which an overloaded node refuses calls.

use model::metric;

/// The overloaded resource. The `why` label of `offhook_overloaded_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strain {
    /// The number of live calls.
    Calls,
    /// The number of calls that wait for set-up, beyond one burst.
    SetUps,
    /// Processing delay: tasks start late, or calls wait too long for set-up.
    Lag,
    Memory,
    /// The store: neither it nor the journal accepts calls.
    Store,
    /// The media threads, which are behind with their commands.
    Media,
    /// The queue of Graph requests of this number.
    Graph,
}

impl Strain {
    /// All values.
    pub const ALL: [Self; 7] =
        [Self::Calls, Self::SetUps, Self::Lag, Self::Memory, Self::Store, Self::Media, Self::Graph];

    /// The word used as metric label and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::SetUps => "set_ups",
            Self::Lag => "lag",
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Media => "media",
            Self::Graph => "graph",
        }
    }

    /// Counts a call that was refused for this reason.
    pub fn count(self) {
        metrics::counter!(metric::OVERLOADED_TOTAL, "why" => self.as_str()).increment(1);
    }
}
