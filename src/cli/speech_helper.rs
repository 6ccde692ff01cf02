//! The hidden `offhook speech-helper`: the embedded synthesiser in a process of its own.

use super::Exit;
use speech::helper;

/// Serves its parent until standard input closes.
pub(super) fn run() -> Exit {
    match helper::main() {
        Ok(()) => Exit::Done,
        Err(e) => Exit::failed(format!("could not serve the node: {e}")),
    }
}
