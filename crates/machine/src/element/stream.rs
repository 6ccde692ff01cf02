//! `Stream`: the call's audio on a customer's WebSocket (docs/reference/xml.md#stream).
//!
//! It runs in the background unless it keeps the call alive. The module [`crate::stream`] manages
//! the stream.

use super::{At, Flow, Instruction};
use crate::activity::{Activity, Completion, Env, Progress, StopReason};
use crate::contract::{StreamFormat, StreamOrder, StreamTrack};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::stream;
use model::StreamId;
use xml::ast::Stream;

/// The note of an instruction that could not open a stream.
pub(super) const DROPPED: &str = "stream dropped";

impl Instruction for Stream {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let id = env.ctx.next_stream();
        if !stream::open(env.ctx, id, Box::new(order(self))) {
            return Flow::Finished(Completion::failed(DROPPED));
        }
        match self.keep_call_alive {
            true => Flow::run(OpenStream { stream: id }),
            false => Flow::Finished(Completion::done("")),
        }
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        self.keep_call_alive
    }
}

/// Converts the element to an order. The parser has already validated its values.
fn order(element: &Stream) -> StreamOrder {
    StreamOrder {
        url: element.url.clone(),
        bidirectional: element.bidirectional,
        track: StreamTrack::parse(&element.audio_track).unwrap_or(StreamTrack::Inbound),
        timeout_s: u32::try_from(element.timeout.as_secs()).unwrap_or(u32::MAX),
        status: element.status_callback.as_ref().map(|target| (target.url.clone(), target.method)),
        format: StreamFormat::parse(&element.content_type).unwrap_or(StreamFormat::L16At8000),
        extra_headers: element.extra_headers.clone(),
        keep_call_alive: element.keep_call_alive,
        noise_level: element.noise_cancellation.then_some(element.noise_cancellation_level),
        in_room: false,
    }
}

/// Waits for the end of a stream that keeps the call alive.
struct OpenStream {
    stream: StreamId,
}

impl Activity for OpenStream {
    fn stream_ended(&mut self, _: &mut Env<'_>, ended: stream::EndedStream) -> Progress {
        if ended.stream != self.stream {
            return Progress::Pending;
        }
        Progress::Finished(match ended.dropped {
            true => Completion::failed(DROPPED),
            false => Completion::done(""),
        })
    }

    /// Ends the stream if another document replaces this one. At the end of the call, all streams
    /// are ended elsewhere.
    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        if reason == StopReason::Replaced {
            stream::stop(env.ctx, Some(self.stream), stream::StopReason::Api);
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("stream_to_end"), text("")]);
    }
}
