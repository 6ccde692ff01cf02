//! `Stream`: the call's sound to a customer's WebSocket (`plivo-xml.md` §5.11). In the background, unless it keeps the
//! call alive; what becomes of it is [`super::super::stream`]'s.

use super::{At, Flow, Instruction};
use crate::activity::{Activity, Finished, Progress, Stop, Turn};
use crate::contract::{StreamFormat, StreamOrder, StreamTrack};
use crate::picture::{Sketch, text, word};
use crate::stream;
use model::StreamId;
use xml::ast::Stream;

/// Note of an instruction that came to nothing.
pub(super) const DROPPED: &str = "stream dropped";

impl Instruction for Stream {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let id = turn.desk.next_stream();
        if !stream::open(turn.desk, id, Box::new(order(self))) {
            return Flow::Finished(Finished::failed(DROPPED));
        }
        match self.keep_call_alive {
            true => Flow::run(Streaming { stream: id }),
            false => Flow::Finished(Finished::done("")),
        }
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        self.keep_call_alive
    }
}

/// The parser has refused all words but these.
fn order(element: &Stream) -> StreamOrder {
    StreamOrder {
        url: element.url.clone(),
        bidirectional: element.bidirectional,
        track: StreamTrack::of(&element.audio_track).unwrap_or(StreamTrack::Inbound),
        timeout_s: u32::try_from(element.timeout.as_secs()).unwrap_or(u32::MAX),
        status: element.status_callback.as_ref().map(|target| (target.url.clone(), target.method)),
        format: StreamFormat::of(&element.content_type).unwrap_or(StreamFormat::L16At8000),
        extra_headers: element.extra_headers.clone(),
        keep_call_alive: element.keep_call_alive,
        noise_level: element.noise_cancellation.then_some(element.noise_cancellation_level),
        in_room: false,
    }
}

/// A stream that keeps the call alive.
struct Streaming {
    stream: StreamId,
}

impl Activity for Streaming {
    fn stream_ended(&mut self, _: &mut Turn<'_>, ended: stream::Ended) -> Progress {
        if ended.stream != self.stream {
            return Progress::Pending;
        }
        Progress::Finished(match ended.dropped {
            true => Finished::failed(DROPPED),
            false => Finished::done(""),
        })
    }

    /// It ends with its element if another document takes over. The end of the call ends every stream.
    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        if why == Stop::Replaced {
            stream::stop(turn.desk, Some(self.stream), stream::Stop::Api);
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word("stream_to_end"), text("")]);
    }
}
