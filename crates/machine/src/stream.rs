//! The stream of a call's sound to a customer's WebSocket (`plivo-xml.md` §5.11): when it begins and ends, and what its
//! status callback is told (`plivo-callbacks.md` §3.8). A call has one at a time.
//!
//! The socket and the sound are the `stream` room's, which tells [`StreamFact`]s and is wished [`StreamWish`]es. The
//! element is `element/stream.rs`; a stream outlives the document that began it.

use super::desk::{Desk, Streaming};
use super::params::{self, Event};
use super::timers::Timer;
use crate::contract::display::foreign;
use crate::contract::{
    CallTime, MediaOrder, Notice, NoticeKind, Output, Param, Params, StreamFact, StreamOrder,
    StreamWish,
};
use model::StreamId;
use xml::ast::Target;

/// Why a stream is ended from our side: `StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Api,
    CallEnd,
    Timeout,
}

impl Stop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api_request",
            Self::CallEnd => "call_hangup",
            Self::Timeout => "stream_timeout",
        }
    }
}

/// `StatusReason` of a stream that came to nothing.
const CONNECTION_ERROR: &str = "connection_error";

/// A stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) stream: StreamId,
    /// It never was, or was lost.
    pub(super) dropped: bool,
}

/// Opens a stream. `false`: the call has one, and the status callback of this one says that it is dropped.
pub(super) fn open(desk: &mut Desk, id: StreamId, order: Box<StreamOrder>) -> bool {
    if desk.stream.is_some() {
        desk.remark("a call has one stream at a time: this one is dropped".to_owned());
        let refused = Streaming { id, order, began: false };
        tell(desk, &refused, Event::DroppedStream, Some(CONNECTION_ERROR), None);
        // Where REST asked for it, its record is closed.
        desk.wish(Output::Stream { stream: id, wish: StreamWish::Close { dropped: true } });
        return false;
    }
    desk.wish(Output::Stream { stream: id, wish: StreamWish::Open(order.clone()) });
    desk.stream = Some(Streaming { id, order, began: false });
    true
}

/// Takes in what the stream tells; gives its end, if that is what it is.
pub(super) fn told(desk: &mut Desk, id: StreamId, fact: StreamFact) -> Option<Ended> {
    // Of one that was ended here meanwhile.
    let mut streaming = desk.stream.take_if(|streaming| streaming.id == id)?;
    let mut ended = None;
    match fact {
        StreamFact::Opened if !streaming.began => {
            streaming.began = true;
            desk.set(
                Timer::StreamLimit,
                u64::from(streaming.order.timeout_s).saturating_mul(1_000),
            );
            desk.wish(Output::Stream { stream: id, wish: StreamWish::Begin });
            tell(desk, &streaming, Event::StartStream, None, None);
        }
        StreamFact::Opened => {}
        StreamFact::Failed { why } => {
            desk.remark(format!("the stream's server could not be reached: {}", foreign(&why)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        StreamFact::Lost { why } => {
            desk.remark(format!("the stream was lost: {}", foreign(&why)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        // Of the words of `StatusReason` the one for an end that the application asked for: its server is its own.
        StreamFact::Closed => ended = Some((Event::StopStream, Some(Stop::Api.as_str()))),
        StreamFact::Degraded { .. } => tell(desk, &streaming, Event::DegradedStream, None, None),
        StreamFact::Played { name } => {
            tell(desk, &streaming, Event::PlayedStream, None, Some(&foreign(&name)))
        }
        StreamFact::Cleared => tell(desk, &streaming, Event::ClearedAudio, None, None),
        StreamFact::SendDigits { digits } => {
            let play = desk.next_play();
            desk.media(MediaOrder::SendDigits { play, digits });
        }
    }
    match ended {
        Some((event, reason)) => Some(end(desk, &streaming, event, reason)),
        None => {
            desk.stream = Some(streaming);
            None
        }
    }
}

/// Ends the call's stream, if there is one; with `only`, that one.
pub(super) fn stop(desk: &mut Desk, only: Option<StreamId>, why: Stop) -> Option<Ended> {
    let streaming =
        desk.stream.take_if(|streaming| only.is_none_or(|only| streaming.id == only))?;
    Some(end(desk, &streaming, Event::StopStream, Some(why.as_str())))
}

fn end(desk: &mut Desk, streaming: &Streaming, event: Event, reason: Option<&str>) -> Ended {
    let dropped = event == Event::DroppedStream;
    desk.timers.clear(Timer::StreamLimit);
    desk.wish(Output::Stream { stream: streaming.id, wish: StreamWish::Close { dropped } });
    tell(desk, streaming, event, reason, None);
    Ended { stream: streaming.id, dropped }
}

/// A status callback (§3.8).
fn tell(
    desk: &mut Desk,
    streaming: &Streaming,
    event: Event,
    reason: Option<&str>,
    name: Option<&str>,
) {
    let Some(Target { url, method }) = streaming.order.status_target() else { return };
    let mut params = params::common(desk, event);
    params.extend(about(streaming, desk, desk.now));
    if let Some(reason) = reason {
        params.insert("StatusReason".into(), Param::Plain(reason.to_owned().into()));
    }
    if let Some(name) = name {
        params.insert("Name".into(), Param::Plain(name.to_owned().into()));
    }
    desk.wish(Output::Notify { notice: Notice { kind: NoticeKind::Stream, url, method, params } });
}

fn about(streaming: &Streaming, desk: &Desk, at: CallTime) -> Params {
    let order = &streaming.order;
    let plain = |text: String| Param::Plain(text.into());
    Params::from([
        ("StreamID".into(), plain(streaming.id.to_string())),
        ("ServiceURL".into(), plain(order.url.0.to_string())),
        ("Timestamp".into(), plain(desk.wall(at).plivo_micros())),
        ("bidirectional".into(), plain(order.bidirectional.to_string())),
        ("audioTrack".into(), plain(order.track.as_str().to_owned())),
        ("streamTimeout".into(), plain(order.timeout_s.to_string())),
        ("contentType".into(), plain(order.format.as_str().to_owned())),
        ("extraHeaders".into(), plain(order.extra_headers_text())),
        ("keepCallAlive".into(), plain(order.keep_call_alive.to_string())),
    ])
}
