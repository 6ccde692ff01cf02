//! The document that the browser phone hears: beside a node whose Meta is simulated, one number answers with what was last
//! written in the playground. It lives in memory, and is one for the process: such a node is one person's.

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio::net::TcpListener;

/// What that number's answer URL ends with.
pub const PATH: &str = "/playground.xml";
/// Before anybody wrote something.
const NOTHING: &str =
    "<Response><Speak>Write a document in the playground, and call again.</Speak></Response>";

static TEXT: RwLock<String> = RwLock::new(String::new());

/// The number that answers with the document.
#[derive(Clone, Debug)]
pub struct Drafts {
    pub number: String,
}

impl Drafts {
    pub(super) fn put(&self, source: &str) {
        source.clone_into(&mut TEXT.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Serves the document at a listener of its own, since a node asks none of its own (R17); gives its URL.
///
/// # Errors
/// The address can't be had.
pub async fn serve(listen: SocketAddr) -> std::io::Result<String> {
    let listener = TcpListener::bind(listen).await?;
    let url = format!("http://{}{PATH}", listener.local_addr()?);
    let router = Router::new().route(PATH, any(document));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn document() -> Response {
    let text = TEXT.read().unwrap_or_else(PoisonError::into_inner).clone();
    let text = if text.is_empty() { NOTHING.to_owned() } else { text };
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response()
}
