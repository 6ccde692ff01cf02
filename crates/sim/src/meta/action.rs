//! The actions of requests about calls.

/// Values of `action` in requests to `/calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    PreAccept,
    Accept,
    Reject,
    Terminate,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Connect, Self::PreAccept, Self::Accept, Self::Reject, Self::Terminate]
            .into_iter()
            .find(|a| a.as_str() == word)
    }
}
