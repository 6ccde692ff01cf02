//! `/console/events`: what has changed, as server-sent events. An event names a kind of thing and nothing of it: who hears it
//! asks for its page again, and sees what it may see.
//!
//! News come together at five a second at most. Each event has its number; one that comes back after a gap asks anew.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::form::Form;
use super::{App, Console, door};
use crate::api::session;
use crate::feed::{News, What};
use crate::model::AuthId;

/// News that come within are told together.
const TOGETHER: Duration = Duration::from_millis(200);
/// A feed ends so often and is asked for again, with a session that still holds.
const AT_MOST: Duration = Duration::from_secs(120);

struct Feed {
    news: Receiver<Arc<News>>,
    main: AuthId,
    console: Arc<Console>,
}

pub(super) async fn serve(State(console): App, uri: Uri, headers: HeaderMap) -> Response {
    if !session::is_from_here(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let person = match door::person(&console, &headers).await {
        Ok(Some(person)) => person,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(answer) => return *answer,
    };
    let news = console.desk.api().feed.watch();
    let last = console.desk.api().feed.last();
    // A page says when it was made; whoever comes back, what they heard last.
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let again = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let known = again.or_else(|| query.get("since").parse().ok());
    let main = person.user.main_account.clone();
    let until = tokio::time::sleep(AT_MOST);
    let stop = console.stop.clone();
    let feed = Feed { news, main, console: console.clone() };
    // Something has happened since: which, nobody has kept.
    let first = (known.is_some_and(|known| known < last)).then(|| told(last, &BTreeSet::from(["all"])));
    let first = first.unwrap_or_else(|| Event::default().event("hello").id(last.to_string()).data(""));
    let rest = stream::unfold(feed, |mut feed| async move { feed.next().await.map(|event| (event, feed)) });
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
    /// The next event, once there is something to tell; none: the node is over.
    async fn next(&mut self) -> Option<Event> {
        let mut kinds = BTreeSet::new();
        let mut last = loop {
            match self.news.recv().await {
                Ok(news) if news.account == self.main => {
                    kinds.insert(kind(&news.what));
                    break news.number;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    kinds.insert("all");
                    break self.console.desk.api().feed.last();
                }
                Err(RecvError::Closed) => return None,
            }
        };
        tokio::time::sleep(TOGETHER).await;
        loop {
            match self.news.try_recv() {
                Ok(news) if news.account == self.main => {
                    kinds.insert(kind(&news.what));
                    last = news.number;
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => {
                    kinds.insert("all");
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(told(last, &kinds))
    }
}

fn told(last: u64, kinds: &BTreeSet<&'static str>) -> Event {
    let kinds: Vec<&str> = kinds.iter().copied().collect();
    Event::default().event("change").id(last.to_string()).data(kinds.join(" "))
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Call(_) => "call",
        What::Number(_) => "number",
        What::Conversation(_) | What::Message { .. } => "conversation",
        What::Notification(_) => "notification",
        What::Agent(_) => "agent",
        What::Webhook(_) => "webhook",
        What::People => "people",
    }
}
