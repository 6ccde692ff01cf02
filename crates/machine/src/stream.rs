//! The stream of a call's audio to a customer's WebSocket: its beginning, its end and its status
//! callbacks (docs/reference/xml.md#stream, docs/reference/callbacks.md#stream-status).
//!
//! A call has at most one stream at a time. It outlives the document that began it. The node
//! operates the socket: it gets [`StreamCommand`]s and reports [`StreamEvent`]s.

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

/// The reason why this side ends a stream: the parameter `StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Api,
    CallEnd,
    Timeout,
}

impl StopReason {
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
pub(super) struct EndedStream {
    pub(super) stream: StreamId,
    /// Whether the stream could not connect or was lost.
    pub(super) dropped: bool,
}

/// Opens a stream. If the call already has one, returns `false`, and a status callback reports that
/// the new one is dropped.
pub(super) fn open(ctx: &mut CallContext, id: StreamId, order: Box<StreamOrder>) -> bool {
    if ctx.stream.is_some() {
        ctx.remark("a call has one stream at a time: this one is dropped".to_owned());
        let refused = OpenStream { id, order, began: false };
        report(ctx, &refused, Event::DroppedStream, Some(CONNECTION_ERROR), None);
        // Closes the record of a stream that an API request opened.
        ctx.emit(Output::Stream { stream: id, command: StreamCommand::Close { dropped: true } });
        return false;
    }
    ctx.emit(Output::Stream { stream: id, command: StreamCommand::Open(order.clone()) });
    ctx.stream = Some(OpenStream { id, order, began: false });
    true
}

/// Handles an event of a stream. Returns the stream if it has ended, otherwise `None`.
pub(super) fn handle_event(
    ctx: &mut CallContext,
    id: StreamId,
    event: StreamEvent,
) -> Option<EndedStream> {
    // Events of a stream that has been ended here are ignored.
    let mut stream = ctx.stream.take_if(|stream| stream.id == id)?;
    let mut ended = None;
    match event {
        StreamEvent::Opened if !stream.began => {
            stream.began = true;
            ctx.set_timer(
                Timer::StreamLimit,
                u64::from(stream.order.timeout_s).saturating_mul(1_000),
            );
            ctx.emit(Output::Stream { stream: id, command: StreamCommand::Begin });
            report(ctx, &stream, Event::StartStream, None, None);
        }
        StreamEvent::Opened => {}
        StreamEvent::Failed { reason } => {
            ctx.remark(format!("the stream's server could not be reached: {}", foreign(&reason)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        StreamEvent::Lost { reason } => {
            ctx.remark(format!("the stream was lost: {}", foreign(&reason)));
            ended = Some((Event::DroppedStream, Some(CONNECTION_ERROR)));
        }
        // The customer's server closed the socket. Its `StatusReason` is that of an end requested
        // by the application.
        StreamEvent::Closed => ended = Some((Event::StopStream, Some(StopReason::Api.as_str()))),
        StreamEvent::Degraded { .. } => report(ctx, &stream, Event::DegradedStream, None, None),
        StreamEvent::Played { name } => {
            report(ctx, &stream, Event::PlayedStream, None, Some(&foreign(&name)))
        }
        StreamEvent::Cleared => report(ctx, &stream, Event::ClearedAudio, None, None),
        StreamEvent::SendDigits { digits } => {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
    }
    match ended {
        Some((event, reason)) => Some(end(ctx, &stream, event, reason)),
        None => {
            ctx.stream = Some(stream);
            None
        }
    }
}

/// Ends the call's stream and returns it. With an `id`, ends it only if it has this id. Returns
/// `None` if no stream was ended.
pub(super) fn stop(
    ctx: &mut CallContext,
    id: Option<StreamId>,
    reason: StopReason,
) -> Option<EndedStream> {
    let stream = ctx.stream.take_if(|stream| id.is_none_or(|id| stream.id == id))?;
    Some(end(ctx, &stream, Event::StopStream, Some(reason.as_str())))
}

fn end(
    ctx: &mut CallContext,
    stream: &OpenStream,
    event: Event,
    reason: Option<&str>,
) -> EndedStream {
    let dropped = event == Event::DroppedStream;
    ctx.timers.clear(Timer::StreamLimit);
    ctx.emit(Output::Stream { stream: stream.id, command: StreamCommand::Close { dropped } });
    report(ctx, stream, event, reason, None);
    EndedStream { stream: stream.id, dropped }
}

/// Sends a status callback (docs/reference/callbacks.md#stream-status).
fn report(
    ctx: &mut CallContext,
    stream: &OpenStream,
    event: Event,
    reason: Option<&str>,
    name: Option<&str>,
) {
    let Some(Target { url, method }) = stream.order.status_target() else { return };
    let mut params = params::common(ctx, event);
    params.extend(stream_params(stream, ctx, ctx.now));
    if let Some(reason) = reason {
        params.insert("StatusReason".into(), Param::Plain(reason.to_owned().into()));
    }
    if let Some(name) = name {
        params.insert("Name".into(), Param::Plain(name.to_owned().into()));
    }
    ctx.emit(Output::Callback {
        callback: CallbackRequest { kind: CallbackKind::Stream, url, method, params },
    });
}

fn stream_params(stream: &OpenStream, ctx: &CallContext, at: CallTime) -> Params {
    let order = &stream.order;
    let plain = |text: String| Param::Plain(text.into());
    Params::from([
        ("StreamID".into(), plain(stream.id.to_string())),
        ("ServiceURL".into(), plain(order.url.0.to_string())),
        ("Timestamp".into(), plain(ctx.wall_clock(at).plivo_micros())),
        ("bidirectional".into(), plain(order.bidirectional.to_string())),
        ("audioTrack".into(), plain(order.track.as_str().to_owned())),
        ("streamTimeout".into(), plain(order.timeout_s.to_string())),
        ("contentType".into(), plain(order.format.as_str().to_owned())),
        ("extraHeaders".into(), plain(order.extra_headers_text())),
        ("keepCallAlive".into(), plain(order.keep_call_alive.to_string())),
    ])
}
