//! Exit codes of all commands.

use super::print;
use crate::node::StartError;
use engine::cluster::JoinError;
use store::StoreError;

/// The number of the signal that Ctrl-C sends, and of the one that `kill` sends.
pub const SIGINT: u8 = 2;
pub const SIGTERM: u8 = 15;

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
    /// 128 and the number of the signal that ended the command early: 130 for Ctrl-C.
    Interrupted(u8),
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted(signal) => signal.saturating_add(128),
        }
    }

    /// Prints an error and returns `Failed`.
    pub fn failed(why: impl std::fmt::Display) -> Self {
        print::error(why);
        Self::Failed
    }

    /// Prints an error and returns `Interrupted` by Ctrl-C.
    pub fn interrupted(why: impl std::fmt::Display) -> Self {
        print::error(why);
        Self::Interrupted(SIGINT)
    }

    /// Prints why a node did not start. A store of a newer version (wrong binary), speech that is
    /// not installed and nodes of a fleet that exclude each other count as wrong usage, all other
    /// reasons as failures.
    pub fn not_started(e: &StartError, why: impl std::fmt::Display) -> Self {
        match e {
            StartError::Store(StoreError::Newer { .. } | StoreError::OtherSchema { .. })
            | StartError::Speech(_)
            | StartError::BesideFleet(_) => Self::usage(why),
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
