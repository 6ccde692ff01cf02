//! The hidden `offhook speech-helper`: the embedded synthesiser in a process of its own.

use super::Exit;

/// Serves its parent until standard input closes.
pub(super) fn run() -> Exit {
    Exit::failed("`speech-helper` is not built yet")
}
