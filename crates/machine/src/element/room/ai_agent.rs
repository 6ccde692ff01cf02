//! `role="ai-agent"` with a server of its own (`plivo-xml.md` §5.10): it hears and speaks in the room over a stream as long as
//! this call is in.
//!
//! The specification names the attributes and not how the two belong together. Here the call's own peer takes part as
//! everybody does, and the server sits beside it as the same participant: what is asked of that one is asked of both. When the
//! stream ends, the participant leaves: a room whose agent has gone is told so.

use super::attributes::Attributes;
use crate::context::CallContext;
use crate::contract::{Role, StreamFormat, StreamOrder, StreamTrack};
use crate::stream::{self, Stop};
use model::{Method, StreamId};
use xml::ast::DocUrl;

/// As long as a `Stream` may last.
const LASTS_SECS: u32 = 86_400;

/// An agent's stream, or what it is to be.
#[derive(Default)]
pub(super) struct AgentStream {
    order: Option<Box<StreamOrder>>,
    open: Option<StreamId>,
}

impl AgentStream {
    /// What the attributes say; nothing, where the role is another one or there is no server.
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
                timeout_s: LASTS_SECS,
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

    /// The call is in: its agent is connected, unless the call has a stream already (which is said then).
    pub(super) fn begin(&mut self, ctx: &mut CallContext) {
        if let Some(order) = self.order.clone() {
            let id = ctx.next_stream();
            self.open = stream::open(ctx, id, order).then_some(id);
        }
    }

    /// A stream has ended; whether it was this one's.
    pub(super) fn ended(&mut self, stream: StreamId) -> bool {
        self.open.take_if(|open| *open == stream).is_some()
    }

    /// The call is out.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        if let Some(open) = self.open.take() {
            stream::stop(ctx, Some(open), Stop::CallEnd);
        }
    }
}

/// The rate may stand by itself; where the encoding has none such, it means nothing.
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
