//! Exit codes of all commands.

use super::print;
use crate::node::StartError;
use engine::cluster::JoinError;
use store::StoreError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the command failed.
    Failed,
    /// 2: wrong usage or configuration.
    Usage,
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
        }
    }

    /// Prints an error and returns `Failed`.
    pub fn failed(why: impl std::fmt::Display) -> Self {
        print::error(why);
        Self::Failed
    }

    /// Prints why a node did not start. A store of a newer version (wrong binary) and nodes of a
    /// fleet that exclude each other count as wrong usage, all other reasons as failures.
    pub fn not_started(e: &StartError, why: impl std::fmt::Display) -> Self {
        match e {
            StartError::Store(StoreError::Newer { .. }) | StartError::BesideFleet(_) => {
                Self::usage(why)
            }
            StartError::Cluster(e) if !matches!(e, JoinError::Store(_)) => Self::usage(why),
            _ => Self::failed(why),
        }
    }

    /// Prints an error and returns `Usage`.
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
