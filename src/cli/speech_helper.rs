//! The hidden `offhook speech-helper`: runs the embedded synthesiser in its own process.

use super::Exit;
use speech::helper;

/// Serves the parent process until standard input closes.
pub(super) fn run() -> Exit {
    match helper::main() {
        Ok(()) => Exit::Done,
        Err(e) => Exit::failed(format!("could not serve the node: {e}")),
    }
}
