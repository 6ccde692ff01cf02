//! The document that the browser phone hears: on a node whose Meta is simulated, one number answers with what was last written
//! in the playground. It lives in memory, and is one for all: such a node is one person's.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::App;

/// Where that number's answer URL leads.
pub const PATH: &str = "/console/playground/document";
/// Before anybody wrote something.
const NOTHING: &str = "<Response><Speak>Write a document in the playground, and call again.</Speak></Response>";

/// The document, and the number that answers with it.
#[derive(Clone, Debug)]
pub struct Drafts {
    pub number: String,
    text: Arc<RwLock<String>>,
}

impl Drafts {
    pub fn new(number: String) -> Self {
        Self { number, text: Arc::new(RwLock::new(NOTHING.to_owned())) }
    }

    pub(super) fn put(&self, source: &str) {
        source.clone_into(&mut self.text.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn text(&self) -> String {
        self.text.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The document, for the node's own fetch of the answer URL.
pub(super) async fn serve(State(console): App) -> Response {
    match &console.drafts {
        Some(drafts) => ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], drafts.text()).into_response(),
        None => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}
