//! `Stream`: the call's sound to a customer's WebSocket (`plivo-xml.md` §5.11). In the background, unless it keeps the
//! call alive; what becomes of it is [`super::super::stream`]'s.

use super::{Flow, Running};
use crate::contract::{StreamFormat, StreamOrder, StreamTrack};
use crate::desk::Desk;
use crate::stream;
use xml::ast::Stream;

/// Note of an instruction that came to nothing.
pub(crate) const DROPPED: &str = "stream dropped";

pub(super) fn start(element: &Stream, desk: &mut Desk) -> Flow {
    let id = desk.next_stream();
    if !stream::open(desk, id, Box::new(order(element))) {
        return Flow::Failed(DROPPED);
    }
    match element.keep_call_alive {
        true => Flow::Run(Running::Streaming { stream: id }),
        false => Flow::Next,
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
