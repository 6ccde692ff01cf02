//! `/console/events`: what has changed, as server-sent events.
//!
//! With `?page=PATH` an event has the parts of that page that are another now (`parts`), so that a browser neither asks for a
//! page again nor puts in what it has. The page is made anew as for any request, with the session that the feed came with: it
//! has what that person may see. Without, an event names kinds of things and nothing of them.
//!
//! News come together at five a second at most. Each event has its number; one that comes back after a gap asks anew.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use futures_util::stream;
use http_body_util::BodyExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tower::ServiceExt as _;

use super::form::Form;
use super::parts::{self, Shown};
use super::{App, Console, door};
use crate::api::session;
use crate::feed::{FeedChange, FeedEvent};
use model::AuthId;

/// News that come within are told together.
const TOGETHER: Duration = Duration::from_millis(200);
/// A call that is up has more to show without news: its graph grows, its log goes on.
const GROWS: Duration = Duration::from_secs(5);
/// A feed ends so often and is asked for again, with a session that still holds.
const AT_MOST: Duration = Duration::from_secs(120);

/// The console's pages without its feeds.
#[derive(Clone)]
pub(super) struct Pages(pub(super) Router);

struct Feed {
    news: Receiver<Arc<FeedEvent>>,
    main: AuthId,
    console: Arc<Console>,
    watched: Option<Watched>,
}

/// A page that somebody has open.
struct Watched {
    pages: Router,
    path: String,
    headers: HeaderMap,
    /// What it is about.
    live: Vec<String>,
    shown: Shown,
    /// It shows one call that is up.
    grows: bool,
}

pub(super) async fn serve(
    State(console): App,
    Extension(Pages(pages)): Extension<Pages>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !session::is_same_origin(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let person = match door::person(&console, &headers).await {
        Ok(Some(person)) => person,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(answer) => return *answer,
    };
    let news = console.apis.api().feed.watch();
    let last = console.apis.api().feed.last();
    // A page says when it was made; whoever comes back, what they heard last.
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let again = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let known = again.or_else(|| query.get("since").parse().ok());
    let main = person.user.main_account.clone();
    let until = tokio::time::sleep(AT_MOST);
    let stop = console.stop.clone();
    let watched = match query.some("page") {
        None => None,
        Some(path) => match Watched::of(pages, path, &headers).await {
            Some(watched) => Some(watched),
            None => return StatusCode::NOT_FOUND.into_response(),
        },
    };
    let feed = Feed { news, main, console: console.clone(), watched };
    // Something has happened since (which, nobody has kept), or it was another process.
    let first = (known.is_some_and(|known| known != last))
        .then(|| told(last, &BTreeSet::from(["all".to_owned()])));
    let first =
        first.unwrap_or_else(|| Event::default().event("hello").id(last.to_string()).data(""));
    let rest =
        stream::unfold(
            feed,
            |mut feed| async move { feed.next().await.map(|event| (event, feed)) },
        );
    let events = stream::StreamExt::chain(stream::once(async move { first }), rest);
    let events = stream::StreamExt::map(events, Ok::<_, Infallible>);
    let events = stream::StreamExt::take_until(events, async move {
        tokio::select! {
            () = until => {}
            () = stop.cancelled() => {}
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

impl Feed {
    /// The next event, once there is something to tell; none: the node is over, or the page is not theirs any more.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let grows = self.watched.as_ref().is_some_and(|watched| watched.grows);
            let (last, kinds) = self.heard(grows.then_some(GROWS)).await?;
            let Some(watched) = &mut self.watched else { return Some(told(last, &kinds)) };
            let has_grown = grows && kinds.is_empty();
            if !has_grown && !watched.is_about(&kinds) {
                continue;
            }
            if let Some(parts) = watched.parts().await? {
                return Some(
                    Event::default().event("parts").id(last.to_string()).data(parts.to_string()),
                );
            }
        }
    }

    /// The kinds of what has happened, once something has, and the number of the last of it; nothing has `within` that time: none.
    async fn heard(&mut self, within: Option<Duration>) -> Option<(u64, BTreeSet<String>)> {
        let until = async move {
            match within {
                Some(within) => tokio::time::sleep(within).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(until);
        let mut heard = BTreeSet::new();
        let mut last = loop {
            let news = tokio::select! {
                biased;
                news = self.news.recv() => news,
                () = &mut until => return Some((self.console.apis.api().feed.last(), heard)),
            };
            match news {
                Ok(news) if news.account == self.main => {
                    heard.extend(kinds(&news.change));
                    break news.number;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    heard.insert("all".to_owned());
                    break self.console.apis.api().feed.last();
                }
                Err(RecvError::Closed) => return None,
            }
        };
        tokio::time::sleep(TOGETHER).await;
        loop {
            match self.news.try_recv() {
                Ok(news) if news.account == self.main => {
                    heard.extend(kinds(&news.change));
                    last = news.number;
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => {
                    heard.insert("all".to_owned());
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some((last, heard))
    }
}

impl Watched {
    /// None: it is no page of theirs.
    async fn of(pages: Router, path: &str, headers: &HeaderMap) -> Option<Self> {
        let kept = [header::COOKIE, header::ACCEPT_LANGUAGE];
        let headers = kept
            .into_iter()
            .filter_map(|name| Some((name.clone(), headers.get(&name)?.clone())))
            .collect();
        let mut watched = Self {
            pages,
            path: path.to_owned(),
            headers,
            live: Vec::new(),
            shown: Shown::default(),
            grows: false,
        };
        let html = watched.page().await?;
        watched.live = parts::live(&html);
        watched.grows = is_of_a_call(&watched.live);
        watched.live.push("notification".to_owned());
        watched.shown = Shown::default().next(&html).0;
        Some(watched)
    }

    fn is_about(&self, kinds: &BTreeSet<String>) -> bool {
        kinds.contains("all") || self.live.iter().any(|kind| kinds.contains(kind))
    }

    /// The page as it is now.
    async fn page(&self) -> Option<String> {
        if !self.path.starts_with("/console/") {
            return None;
        }
        let mut request = Request::get(&self.path).body(Body::empty()).ok()?;
        *request.headers_mut() = self.headers.clone();
        let Ok(answer) = self.pages.clone().oneshot(request).await;
        let kind = answer.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
        if answer.status() != StatusCode::OK || !kind.starts_with("text/html") {
            return None;
        }
        String::from_utf8(answer.into_body().collect().await.ok()?.to_bytes().to_vec()).ok()
    }

    /// What of it is another than what was sent last.
    async fn parts(&mut self) -> Option<Option<serde_json::Value>> {
        let html = self.page().await?;
        self.grows = is_of_a_call(&parts::live(&html));
        let (shown, told) = self.shown.next(&html);
        self.shown = shown;
        Some(told)
    }
}

/// Whether a page is about one call that is up: it says so as long as that is.
fn is_of_a_call(live: &[String]) -> bool {
    live.iter().any(|kind| kind.starts_with("call:"))
}

fn told(last: u64, kinds: &BTreeSet<String>) -> Event {
    let kinds: Vec<&str> =
        kinds.iter().map(String::as_str).filter(|kind| !kind.contains(':')).collect();
    Event::default().event("change").id(last.to_string()).data(kinds.join(" "))
}

/// What a page may listen to: a kind, and for calls and conversations the one.
fn kinds(what: &FeedChange) -> impl Iterator<Item = String> {
    let (kind, one) = match what {
        FeedChange::Call(call) => ("call", Some(format!("call:{call}"))),
        FeedChange::Number(_) => ("number", None),
        FeedChange::Conversation(conversation) | FeedChange::Message { conversation, .. } => {
            ("conversation", Some(format!("conversation:{conversation}")))
        }
        FeedChange::Notification(_) => ("notification", None),
        FeedChange::Agent(_) => ("agent", None),
        FeedChange::Webhook(_) => ("webhook", None),
        FeedChange::People => ("people", None),
    };
    [Some(kind.to_owned()), one].into_iter().flatten()
}
