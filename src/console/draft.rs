//! The playground document for the browser phone. On a node with a simulated Meta, one number
//! answers with the latest document of the playground. It is kept in memory, once per process,
//! because only one person uses such a node.

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio::net::TcpListener;

/// Path of that number's answer URL.
pub const PATH: &str = "/playground.xml";
/// The document that is served until one is written.
const DEFAULT_DOCUMENT: &str =
    "<Response><Speak>Write a document in the playground, and call again.</Speak></Response>";

static DOCUMENT: RwLock<String> = RwLock::new(String::new());

/// The number that answers with the playground document.
#[derive(Clone, Debug)]
pub struct Drafts {
    pub number: String,
}

impl Drafts {
    pub(super) fn put(&self, source: &str) {
        source.clone_into(&mut DOCUMENT.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Serves the document at a separate listener and returns its URL. A separate one is needed,
/// because a node refuses to fetch from its own listeners.
///
/// # Errors
/// Returns an error if the address cannot be bound.
pub async fn serve(listen: SocketAddr) -> std::io::Result<String> {
    let listener = TcpListener::bind(listen).await?;
    let url = format!("http://{}{PATH}", listener.local_addr()?);
    let router = Router::new().route(PATH, any(document));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn document() -> Response {
    let text = DOCUMENT.read().unwrap_or_else(PoisonError::into_inner).clone();
    let text = if text.is_empty() { DEFAULT_DOCUMENT.to_owned() } else { text };
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response()
}
