//! `offhook openapi`: the OpenAPI 3.1 document of what a node serves.

use super::{Exit, print};
use crate::api::openapi;

/// Prints it, indented.
pub(super) fn run() -> Exit {
    match serde_json::to_string_pretty(&openapi::document()) {
        Ok(text) => {
            print::line(text);
            Exit::Done
        }
        Err(e) => Exit::failed(format_args!("could not write the document: {e}")),
    }
}
