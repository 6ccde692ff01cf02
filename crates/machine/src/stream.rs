//! The stream of a call's audio to a customer's WebSocket: its beginning, its end and its status
//! callbacks (docs/reference/xml.md#stream, docs/reference/callbacks.md#stream-status).
//!
//! A call has at most one stream at a time, which outlives the document that began it. The socket
//! itself is operated by the node, which gets [`StreamCommand`]s and reports [`StreamEvent`]s.

use super::context::{CallContext, OpenStream};
use super::params::{self, Event};
use super::timers::Timer;
use crate::contract::display::foreign;
use crate::contract::{
    CallTime, CallbackKind, CallbackRequest, MediaCommand, Output, Param, Params, StreamCommand,
    StreamEvent, StreamOrder,
};
use model::StreamId;
use xml::ast::Target;

/// Why we end a stream: the parameter `StatusReason`.
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

/// The `StatusReason` of a stream that could not connect or was lost.
const CONNECTION_ERROR: &str = "connection_error";

/// A stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) stream: StreamId,
    /// The stream could not connect, or was lost.
    pub(super) dropped: bool,
}

/// Opens a stream. Returns `false` if the call has one already. Then a status callback reports that
/// the new one is dropped.
pub(super) fn open(ctx: &mut CallContext, id: StreamId, order: Box<StreamOrder>) -> bool {
    if ctx.stream.is_some() {
        ctx.remark("a call has one stream at a time: this one is dropped".to_owned());
        let refused = OpenStream { id, order, began: false };
        tell(ctx, &refused, Event::DroppedStream, Some(CONNECTION_ERROR), None);
        // Closes the record of a stream that an API request opened.
        ctx.wish(Output::Stream { stream: id, command: StreamCommand::Close { dropped: true } });
        return false;
    }
    ctx.wish(Output::Stream { stream: id, command: StreamCommand::Open(order.clone()) });
    ctx.stream = Some(OpenStream { id, order, began: false });
    true
}

/// Handles an event of a stream. Returns the stream if it has ended.
pub(super) fn told(ctx: &mut CallContext, id: StreamId, fact: StreamEvent) -> Option<Ended> {
    // Events of a stream that has been ended here are ignored.
    let mut streaming = ctx.stream.take_if(|streaming| streaming.id == id)?;
    let mut ended = None;
    match fact {
        StreamEvent::Opened if !streaming.began => {
            streaming.began = true;
            ctx.set(Timer::StreamLimit, u64::from(streaming.order.timeout_s).saturating_mul(1_000));
            ctx.wish(Output::Stream { stream: id, command: StreamCommand::Begin });
            tell(ctx, &streaming, Event::StartStream, None, None);
        }
        StreamEvent::Opened => {}
        StreamEvent::Failed { reason: why } => {
            ctx.remark(format!("the stream's server could not be reached: {}", foreign(&why)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        StreamEvent::Lost { reason: why } => {
            ctx.remark(format!("the stream was lost: {}", foreign(&why)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        // The customer's server closed the socket. This is the `StatusReason` for an end that the
        // application requested.
        StreamEvent::Closed => ended = Some((Event::StopStream, Some(Stop::Api.as_str()))),
        StreamEvent::Degraded { .. } => tell(ctx, &streaming, Event::DegradedStream, None, None),
        StreamEvent::Played { name } => {
            tell(ctx, &streaming, Event::PlayedStream, None, Some(&foreign(&name)))
        }
        StreamEvent::Cleared => tell(ctx, &streaming, Event::ClearedAudio, None, None),
        StreamEvent::SendDigits { digits } => {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
    }
    match ended {
        Some((event, reason)) => Some(end(ctx, &streaming, event, reason)),
        None => {
            ctx.stream = Some(streaming);
            None
        }
    }
}

/// Ends the call's stream. If `only` is set, ends it only if it has this id.
pub(super) fn stop(ctx: &mut CallContext, only: Option<StreamId>, why: Stop) -> Option<Ended> {
    let streaming = ctx.stream.take_if(|streaming| only.is_none_or(|only| streaming.id == only))?;
    Some(end(ctx, &streaming, Event::StopStream, Some(why.as_str())))
}

fn end(ctx: &mut CallContext, streaming: &OpenStream, event: Event, reason: Option<&str>) -> Ended {
    let dropped = event == Event::DroppedStream;
    ctx.timers.clear(Timer::StreamLimit);
    ctx.wish(Output::Stream { stream: streaming.id, command: StreamCommand::Close { dropped } });
    tell(ctx, streaming, event, reason, None);
    Ended { stream: streaming.id, dropped }
}

/// Sends a status callback (docs/reference/callbacks.md#stream-status).
fn tell(
    ctx: &mut CallContext,
    streaming: &OpenStream,
    event: Event,
    reason: Option<&str>,
    name: Option<&str>,
) {
    let Some(Target { url, method }) = streaming.order.status_target() else { return };
    let mut params = params::common(ctx, event);
    params.extend(about(streaming, ctx, ctx.now));
    if let Some(reason) = reason {
        params.insert("StatusReason".into(), Param::Plain(reason.to_owned().into()));
    }
    if let Some(name) = name {
        params.insert("Name".into(), Param::Plain(name.to_owned().into()));
    }
    ctx.wish(Output::Callback {
        callback: CallbackRequest { kind: CallbackKind::Stream, url, method, params },
    });
}

fn about(streaming: &OpenStream, ctx: &CallContext, at: CallTime) -> Params {
    let order = &streaming.order;
    let plain = |text: String| Param::Plain(text.into());
    Params::from([
        ("StreamID".into(), plain(streaming.id.to_string())),
        ("ServiceURL".into(), plain(order.url.0.to_string())),
        ("Timestamp".into(), plain(ctx.wall(at).plivo_micros())),
        ("bidirectional".into(), plain(order.bidirectional.to_string())),
        ("audioTrack".into(), plain(order.track.as_str().to_owned())),
        ("streamTimeout".into(), plain(order.timeout_s.to_string())),
        ("contentType".into(), plain(order.format.as_str().to_owned())),
        ("extraHeaders".into(), plain(order.extra_headers_text())),
        ("keepCallAlive".into(), plain(order.keep_call_alive.to_string())),
    ])
}
