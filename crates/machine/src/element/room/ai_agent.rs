//! `role="ai-agent"` with a server (docs/reference/xml.md#multipartycall). The server receives and
//! sends the room's audio over a stream while the call is in the room.
//!
//! Plivo documents the attributes but not how the call and the server interact. Here the peer of
//! the call is a participant like any other, and the server shares its member id: mute, hold and
//! kick apply to both. When the stream ends, the participant leaves the room.

use super::attributes::Attributes;
use crate::context::CallContext;
use crate::contract::{Role, StreamFormat, StreamOrder, StreamTrack};
use crate::stream::{self, StopReason};
use model::{Method, StreamId};
use xml::ast::DocUrl;

/// Maximum duration of a stream, in seconds.
const MAX_SECS: u32 = 86_400;

/// The stream of an AI agent.
#[derive(Default)]
pub(super) struct AgentStream {
    order: Option<Box<StreamOrder>>,
    open: Option<StreamId>,
}

impl AgentStream {
    /// Reads the attributes. Without a server or with a different role there is no stream.
    pub(super) fn read(a: &Attributes<'_>, role: Role) -> Self {
        let url = a.text("aiAgentStreamServiceUrl").filter(|_| role == Role::AiAgent);
        let order = url.map(|url| {
            let status = a.target(
                "aiAgentStreamStatusCallbackUrl",
                "aiAgentStreamStatusCallbackMethod",
                Method::Post,
            );
            Box::new(StreamOrder {
                url: DocUrl(url.into()),
                bidirectional: true,
                track: StreamTrack::Inbound,
                timeout_s: MAX_SECS,
                status: status.map(|target| (target.url, target.method)),
                format: format(a),
                extra_headers: pairs(a.text("aiAgentStreamExtraHeaders").unwrap_or_default()),
                keep_call_alive: false,
                noise_level: None,
                in_room: true,
            })
        });
        Self { order, open: None }
    }

    /// Connects to the server after the call has entered the room. If the call already has a
    /// stream, logs a remark instead.
    pub(super) fn begin(&mut self, ctx: &mut CallContext) {
        if let Some(order) = self.order.clone() {
            let id = ctx.next_stream();
            self.open = stream::open(ctx, id, order).then_some(id);
        }
    }

    /// Handles the end of a stream. Returns whether it was the agent's.
    pub(super) fn ended(&mut self, stream: StreamId) -> bool {
        self.open.take_if(|open| *open == stream).is_some()
    }

    /// Ends the stream when the call leaves the room.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        if let Some(open) = self.open.take() {
            stream::stop(ctx, Some(open), StopReason::CallEnd);
        }
    }
}

/// Returns the audio format. `aiAgentStreamSamplingRate` replaces the rate of the content type, and
/// is ignored if the encoding does not support it.
fn format(a: &Attributes<'_>) -> StreamFormat {
    let named = a
        .text("aiAgentStreamContentType")
        .and_then(StreamFormat::parse)
        .unwrap_or(StreamFormat::L16At8000);
    let rate = a.text("aiAgentStreamSamplingRate");
    rate.and_then(|rate| StreamFormat::parse(&format!("{};rate={rate}", named.encoding())))
        .unwrap_or(named)
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}
