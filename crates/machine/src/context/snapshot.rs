//! The fields of the snapshot that all parts of a machine share: times, media path, requests to
//! Graph.

use super::super::snapshot::{Segment, SnapshotBuilder, brief, text, word};
use super::CallContext;
use crate::contract::display::foreign;
use model::{Direction, last_four};

impl CallContext {
    pub(crate) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        if let Some(at) = self.answered {
            snapshot.add("answered", [Segment::At(at)]);
        }
        for (action, answered) in &self.graph_requests {
            snapshot.add(
                "graph",
                [text(action.as_str()), word(if *answered { "answered" } else { "in_flight" })],
            );
        }
        let path = match (self.closed, self.path_lost, self.connected) {
            (true, ..) => "path_closed",
            (_, true, _) => "path_lost",
            (_, _, true) => "path_up",
            _ => "path_not_up",
        };
        let user = match self.setup.direction {
            Direction::Inbound => &self.setup.from,
            Direction::Outbound => &self.setup.to,
        };
        snapshot
            .add_first("legs", [text("A"), text(format_args!("…{}", last_four(user))), word(path)]);
        if let Some(room) = self.conference {
            snapshot.add_first("room", [word("conference"), text(brief(room))]);
        }
        if let Some(stream) = &self.stream {
            let label = if stream.began { "streaming" } else { "opening" };
            snapshot.add("stream", [text(brief(stream.id.0)), word(label)]);
        }
        if let Some(termination) = &self.termination {
            let status = termination.status.as_deref().unwrap_or("–");
            snapshot.add("hung_up", [text(foreign(status))]);
        }
        if let Some(cause) = self.concluded {
            snapshot.add("ended", [text(cause.as_str())]);
        }
        for (at, timer) in self.timers.all() {
            snapshot.add("timers", [word(timer.as_str()), Segment::At(at)]);
        }
    }
}
