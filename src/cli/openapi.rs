//! `offhook openapi`: the OpenAPI 3.1 document. Comes with a later version.

use super::Exit;

/// Says that this version has no OpenAPI document.
pub(super) fn run() -> Exit {
    Exit::failed("`openapi` comes with a later version")
}
