//! What all parts of a machine share, drawn: the times, the media path, what Meta was asked for and has said.

use super::super::picture::{Said, Sketch, brief, text, word};
use super::super::timers::Timer;
use super::Desk;
use crate::contract::display::foreign;
use model::{Direction, last_four};

impl Desk {
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        if let Some(at) = self.answered {
            sketch.say("answered", [Said::At(at)]);
        }
        for (action, answered) in &self.asked {
            sketch.say(
                "graph",
                [text(action.as_str()), word(if *answered { "answered" } else { "under_way" })],
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
        sketch
            .say_first("legs", [text("A"), text(format_args!("…{}", last_four(user))), word(path)]);
        if let Some(room) = self.conference {
            sketch.say_first("room", [word("conference"), text(brief(room))]);
        }
        if let Some(stream) = &self.stream {
            stream.draw(sketch);
        }
        if let Some(termination) = &self.termination {
            let status = termination.status.as_deref().unwrap_or("–");
            sketch.say("hung_up", [text(foreign(status))]);
        }
        if let Some(cause) = self.concluded {
            sketch.say("ended", [text(cause.as_str())]);
        }
        for (at, timer) in self.timers.all() {
            sketch.say("timers", [word(timer.as_str()), Said::At(at)]);
        }
    }
}

impl Timer {
    /// Its name for people.
    fn as_str(self) -> &'static str {
        match self {
            Self::AcceptWait => "accept_wait",
            Self::Accept => "accept_deadline",
            Self::Ring => "ring",
            Self::RingLimit => "ring_limit",
            Self::Heard => "heard",
            Self::AcceptOutcome => "accept_outcome",
            Self::MediaSetup => "media_setup",
            Self::PathClosed => "path_closed",
            Self::MaxCall => "max_call",
            Self::ScheduledHangup => "scheduled_hangup",
            Self::Fetch => "fetch",
            Self::Wait => "wait",
            Self::Silence => "silence",
            Self::InterDigit => "inter_digit",
            Self::Execution => "execution",
            Self::StartInput => "start_input",
            Self::SpeechEnd => "speech_end",
            Self::Transcript => "transcript",
            Self::Interim => "interim",
            Self::Record => "record",
            Self::DialRing => "dial_ring",
            Self::DialLimit => "dial_limit",
            Self::RoomLimit => "room_limit",
            Self::RoomWait => "room_wait",
            Self::StreamLimit => "stream_limit",
            Self::Confirm => "confirm",
            Self::Close => "close",
            Self::TerminateAgain => "terminate_again",
            Self::Doubt => "doubt",
            Self::Reap => "reap",
        }
    }
}
