//! `offhook openapi`: prints the OpenAPI 3.1 document of the REST APIs.

use super::{Exit, print};
use crate::api::openapi;

/// Prints the document.
pub(super) fn run() -> Exit {
    match serde_json::to_string_pretty(&openapi::document()) {
        Ok(text) => {
            print::line(text);
            Exit::Done
        }
        Err(e) => Exit::failed(format_args!("could not write the document: {e}")),
    }
}
