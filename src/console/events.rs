//! `/console/events`: changes as server-sent events.
//!
//! With `?page=PATH`, an event contains the changed parts of that page (`parts`), so that the
//! browser neither reloads the page nor replaces what it already has. The page is rendered as for
//! any request, with the session of the event stream, so it contains only what this person may see.
//! Without `page`, an event names the kinds of changed objects only.
//!
//! At most five events are sent per second. Each has a number; a browser that reconnects after a
//! gap reloads the page.

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
use uuid::Uuid;

use super::form::Form;
use super::page_diff::{self, Snapshot};
use super::{App, Console, auth};
use crate::api::session;
use egress::FairPermits;
use engine::feed::{FeedChange, FeedEvent};
use engine::limiter::{Share, Shares};
use model::AuthId;
use store::User;

pub(super) const PATH: &str = "/console/events";

/// Changes within this time are sent as one event.
const BATCH_WINDOW: Duration = Duration::from_millis(200);
/// Refresh interval of a live call, whose chart and log grow without events.
const LIVE_CALL_REFRESH: Duration = Duration::from_secs(5);
/// Maximum time without an event. After that, the page assumes that the node no longer responds.
/// Only visible pages have a stream.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum duration of a stream. The browser reconnects, which checks the session again.
const STREAM_MAX: Duration = Duration::from_secs(120);

/// Maximum number of streams of a user, in all of their browsers.
const STREAMS_MAX: usize = 32;

/// Maximum number of main accounts whose open pages are rendered at the same time. The pages of one
/// main account are rendered one after another, because a change may concern all of them.
const RENDERED_ACCOUNTS_MAX: usize = 4;

/// The open streams.
pub struct OpenStreams {
    /// By user.
    open: Shares<Uuid>,
    /// For rendering, by main account.
    renders: FairPermits<AuthId>,
}

impl Default for OpenStreams {
    fn default() -> Self {
        Self {
            open: Shares::new(STREAMS_MAX, usize::MAX),
            renders: FairPermits::new(RENDERED_ACCOUNTS_MAX, 1),
        }
    }
}

/// The console's routes, except this one.
#[derive(Clone)]
pub(super) struct Pages(pub(super) Router);

/// The routes of a node in a fleet, which render a call's page at the node of the call. An extension
/// of requests.
#[derive(Clone)]
pub struct FleetPages(pub Router);

struct Feed {
    news: Receiver<Arc<FeedEvent>>,
    account: AuthId,
    main_account: AuthId,
    console: Arc<Console>,
    watched: Option<WatchedPage>,
    _open: Share<Uuid>,
}

/// A page that a browser has open.
struct WatchedPage {
    pages: Router,
    path: String,
    headers: HeaderMap,
    /// Kinds of changes that concern the page.
    live: Vec<String>,
    shown: Snapshot,
    /// Whether it shows a live call.
    is_live_call: bool,
}

pub(super) async fn serve(
    State(console): App,
    Extension(Pages(pages)): Extension<Pages>,
    of_fleet: Option<Extension<FleetPages>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !session::is_same_origin(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let person = match auth::person(&console, &headers).await {
        Ok(Some(person)) => person,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(answer) => return *answer,
    };
    let news = console.apis.api().feed.watch();
    let User { id, account, main_account, .. } = person.user;
    let Some(open) = console.streams.open.take(id) else {
        tracing::info!(user = %id, max = STREAMS_MAX, "event stream refused: the user has too many");
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "10")]).into_response();
    };
    // A page has the number of the last event it includes; a reconnecting browser sends the last
    // one it received.
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let again = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let known = again.or_else(|| query.get("since").parse().ok());
    let until = tokio::time::sleep(STREAM_MAX);
    let stop = console.stop.clone();
    let pages = of_fleet.map_or(pages, |Extension(FleetPages(pages))| pages);
    let watched = match query.some("page") {
        None => None,
        Some(path) => {
            let _turn = console.streams.renders.acquire(&main_account).await;
            match WatchedPage::of(pages, path, &headers).await {
                Some(watched) => Some(watched),
                None => return StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    // Read after the page was rendered: a change that this page includes and the browser's does not
    // must not be taken for known, because no later event would contain it.
    let last = console.apis.api().feed.last(&account, &main_account);
    let feed = Feed { news, account, main_account, console: console.clone(), watched, _open: open };
    // Events in between are not kept, so everything may have changed; a different number may also
    // come from another process.
    let first = (known.is_some_and(|known| known != last))
        .then(|| change_event(last, &BTreeSet::from(["all".to_owned()])));
    // Browsers report only events with data.
    let first =
        first.unwrap_or_else(|| Event::default().event("hello").id(last.to_string()).data("-"));
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
    // An event, since browsers do not report comments: a page notices that its stream is dead.
    let alive = KeepAlive::new().event(Event::default().event("alive").data("-"));
    Sse::new(events).keep_alive(alive.interval(ALIVE_INTERVAL)).into_response()
}

impl Feed {
    /// Waits for the next event. `None` if the node stops or the person may no longer see the page.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let is_live_call = self.watched.as_ref().is_some_and(|watched| watched.is_live_call);
            let (last, kinds) =
                self.next_changes(is_live_call.then_some(LIVE_CALL_REFRESH)).await?;
            let Some(watched) = &mut self.watched else { return Some(change_event(last, &kinds)) };
            let is_refresh = is_live_call && kinds.is_empty();
            if !is_refresh && !watched.is_affected_by(&kinds) {
                continue;
            }
            let turn = self.console.streams.renders.acquire(&self.main_account).await;
            let parts = watched.parts().await?;
            drop(turn);
            if let Some(parts) = parts {
                return Some(
                    Event::default().event("parts").id(last.to_string()).data(parts.to_string()),
                );
            }
        }
    }

    fn last(&self) -> u64 {
        self.console.apis.api().feed.last(&self.account, &self.main_account)
    }

    /// Waits for changes. Returns their kinds, and the number of an event up to which all changes are
    /// among them. The kinds are empty if nothing changed `within` that time. `None` if the node stops.
    async fn next_changes(&mut self, within: Option<Duration>) -> Option<(u64, BTreeSet<String>)> {
        let until = async move {
            match within {
                Some(within) => tokio::time::sleep(within).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(until);
        let mut changed = BTreeSet::new();
        loop {
            let news = tokio::select! {
                biased;
                news = self.news.recv() => news,
                () = &mut until => return Some((self.last(), changed)),
            };
            match news {
                Ok(news) if news.is_for(&self.account, &self.main_account) => {
                    changed.extend(kinds(&news.change));
                    break;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    changed.insert("all".to_owned());
                    break;
                }
                Err(RecvError::Closed) => return None,
            }
        }
        tokio::time::sleep(BATCH_WINDOW).await;
        // Before the rest is received: events after this number may be among it, none before it is
        // missing.
        let last = self.last();
        loop {
            match self.news.try_recv() {
                Ok(news) if news.is_for(&self.account, &self.main_account) => {
                    changed.extend(kinds(&news.change));
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => {
                    changed.insert("all".to_owned());
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some((last, changed))
    }
}

impl WatchedPage {
    /// Renders the page. `None` if this person may not see it.
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
            shown: Snapshot::default(),
            is_live_call: false,
        };
        let html = watched.page().await?;
        watched.live = page_diff::live(&html);
        watched.is_live_call = shows_live_call(&watched.live);
        watched.live.push("notification".to_owned());
        watched.shown = Snapshot::default().next(&html).0;
        Some(watched)
    }

    fn is_affected_by(&self, kinds: &BTreeSet<String>) -> bool {
        kinds.contains("all") || self.live.iter().any(|kind| kinds.contains(kind))
    }

    /// Renders the page. `None` if it is not an HTML page of the console.
    async fn page(&self) -> Option<String> {
        // An event stream would wait for the turn to render that this page has.
        let is_page = self.path.starts_with("/console/") && !self.path.starts_with(PATH);
        if !is_page {
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

    /// Returns the parts that changed since the last call. The outer value is `None` if the page no
    /// longer exists.
    async fn parts(&mut self) -> Option<Option<serde_json::Value>> {
        let html = self.page().await?;
        self.is_live_call = shows_live_call(&page_diff::live(&html));
        let (shown, changes) = self.shown.next(&html);
        self.shown = shown;
        Some(changes)
    }
}

/// Whether a page shows a live call. It declares this while the call is live.
fn shows_live_call(live: &[String]) -> bool {
    live.iter().any(|kind| kind.starts_with("call:"))
}

fn change_event(last: u64, kinds: &BTreeSet<String>) -> Event {
    let kinds: Vec<&str> =
        kinds.iter().map(String::as_str).filter(|kind| !kind.contains(':')).collect();
    Event::default().event("change").id(last.to_string()).data(kinds.join(" "))
}

/// The kinds that a page can listen to: the kind of object, and for calls and conversations also
/// the object.
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
        FeedChange::Endpoint(_) => ("endpoint", None),
        FeedChange::People => ("people", None),
        FeedChange::Unknown => ("all", None),
    };
    [Some(kind.to_owned()), one].into_iter().flatten()
}
