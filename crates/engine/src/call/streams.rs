//! The streams of a live call as the REST API lists them (`docs/reference/rest.md#streams`). A
//! claim ensures that only one of two concurrent requests gets the call's single stream. The list
//! ends with the call.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use machine::StreamOrder;
use model::{StreamId, Timestamp};

/// Maximum number of listed streams per call. A call has one open stream at a time.
const KEPT_MAX: usize = 100;

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamView {
    pub stream: StreamId,
    pub order: StreamOrder,
    pub created: Timestamp,
    /// When its audio began to flow.
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub status: StreamStatus,
}

/// State of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamStatus {
    /// The connection to its server is being opened.
    Initiated,
    InProgress,
    Stopped,
    /// The connection could not be opened or was lost.
    Failed,
}

impl StreamStatus {
    /// The value of the API's `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::InProgress => "in-progress",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// The streams of one call, oldest first.
#[derive(Debug, Default)]
pub(super) struct StreamViews(Mutex<VecDeque<StreamView>>);

impl StreamViews {
    /// Continues a list of another process, as [`StreamViews::list`] has returned it.
    pub(super) fn resume(list: Vec<StreamView>) -> Self {
        Self(Mutex::new(list.into_iter().rev().collect()))
    }

    fn views(&self) -> MutexGuard<'_, VecDeque<StreamView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all streams, newest first.
    pub(super) fn list(&self) -> Vec<StreamView> {
        self.views().iter().rev().cloned().collect()
    }

    /// Reserves the call's stream for an API request. Returns `false` if the call already has an
    /// open stream.
    pub(super) fn claim(&self, stream: StreamId, order: &StreamOrder, at: Timestamp) -> bool {
        let mut views = self.views();
        if views.iter().any(|view| view.ended.is_none()) {
            return false;
        }
        add(&mut views, stream, order, at);
        true
    }

    /// Releases a claim because the call could not be notified.
    pub(super) fn withdraw(&self, stream: StreamId) {
        self.views().retain(|view| view.stream != stream);
    }

    /// Adds a stream that is being connected.
    pub(super) fn opening(&self, stream: StreamId, order: &StreamOrder, at: Timestamp) {
        let mut views = self.views();
        if !views.iter().any(|view| view.stream == stream) {
            add(&mut views, stream, order, at);
        }
    }

    /// Marks a stream as started.
    pub(super) fn began(&self, stream: StreamId, at: Timestamp) {
        if let Some(view) = self.views().iter_mut().find(|view| view.stream == stream) {
            view.started = Some(at);
            view.status = StreamStatus::InProgress;
        }
    }

    /// Marks a stream as ended.
    pub(super) fn ended(&self, stream: StreamId, dropped: bool, at: Timestamp) {
        if let Some(view) = self.views().iter_mut().find(|view| view.stream == stream) {
            view.ended = Some(at);
            view.status = if dropped { StreamStatus::Failed } else { StreamStatus::Stopped };
        }
    }
}

fn add(
    views: &mut VecDeque<StreamView>,
    stream: StreamId,
    order: &StreamOrder,
    created: Timestamp,
) {
    if views.len() >= KEPT_MAX {
        views.pop_front();
    }
    let status = StreamStatus::Initiated;
    views.push_back(StreamView {
        stream,
        order: order.clone(),
        created,
        started: None,
        ended: None,
        status,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{StreamFormat, StreamTrack};
    use xml::ast::DocUrl;

    fn order() -> StreamOrder {
        StreamOrder {
            url: DocUrl("wss://bot.example.com/".into()),
            bidirectional: false,
            track: StreamTrack::Inbound,
            timeout_s: 60,
            status: None,
            format: StreamFormat::L16At8000,
            extra_headers: Vec::new(),
            keep_call_alive: false,
            noise_level: None,
            in_room: false,
        }
    }

    #[test]
    fn one_open_stream_at_a_time_and_the_newest_are_listed() {
        let views = StreamViews::default();
        let (at, id) = (Timestamp::from_secs, |n: u128| StreamId(uuid::Uuid::from_u128(n)));
        assert!(views.claim(id(1), &order(), at(1)));
        assert!(!views.claim(id(2), &order(), at(1)));
        views.withdraw(id(1));
        assert!(views.claim(id(2), &order(), at(2)));
        views.opening(id(2), &order(), at(3));
        views.began(id(2), at(4));
        assert_eq!((views.list().len(), views.list()[0].status), (1, StreamStatus::InProgress));
        views.ended(id(2), false, at(9));
        assert_eq!((views.list()[0].created, views.list()[0].ended), (at(2), Some(at(9))));
        for n in 3..203 {
            views.opening(id(n), &order(), at(10));
            views.ended(id(n), true, at(11));
        }
        let list = views.list();
        assert_eq!(
            (list.len(), list[0].stream, list[0].status),
            (KEPT_MAX, id(202), StreamStatus::Failed)
        );
    }
}
