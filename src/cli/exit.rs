//! Exit codes (`interface.md` §1).

use super::print;
use crate::node::StartError;
use store::StoreError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// 0: it did what was asked.
    Done,
    /// 1: the thing asked about failed.
    Failed,
    /// 2: wrong usage or configuration.
    Usage,
}

impl Exit {
    /// The number the system gets.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
        }
    }

    /// Says why on standard error and is `Failed`.
    pub fn failed(why: impl std::fmt::Display) -> Self {
        print::error(why);
        Self::Failed
    }

    /// A node that did not start: the wrong binary for a store is wrong usage (R11), all else a failure.
    pub fn not_started(e: &StartError, why: impl std::fmt::Display) -> Self {
        match e {
            StartError::Store(StoreError::Newer { .. }) => Self::usage(why),
            _ => Self::failed(why),
        }
    }

    /// Says why on standard error and is `Usage`.
    pub fn usage(why: impl std::fmt::Display) -> Self {
        print::error(why);
        Self::Usage
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
