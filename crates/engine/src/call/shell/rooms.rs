//! Executes the outputs of a call about its room.

use std::time::Duration;

use tokio::sync::oneshot;

use super::context::Context;
use super::ending::Report;
use super::tapes;
use crate::call::rooms::{LeaveResult, RoomChoice, exit_id};
use crate::call::seats::Entrance;
use machine::{
    CallbackKind, CallbackRequest, Input, LeaveReason, Params, RecordingOrder, RoomCommand,
    RoomEvent, set_mpc_duration,
};
use media::LegHandle;
use media::record::Format;
use store::NewCallback;
use xml::ast::Target;

/// Timeout for the answer of the node whose room a call leaves.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// A call leaves a room of another node.
pub(super) struct Leaving {
    answer: oneshot::Receiver<LeaveResult>,
    reports: LeaveReports,
}

/// The callbacks about the exit. The result of the exit determines which of them are sent.
struct LeaveReports {
    if_others_stay: Vec<CallbackRequest>,
    if_last: Vec<CallbackRequest>,
    end_params: Option<Box<Params>>,
}

impl Leaving {
    /// Waits for the result of the exit from the node that hosts the room. If that node does not
    /// answer, the callbacks that depend on the result are written by it, or by the node that takes
    /// its place.
    pub(super) async fn finish(self, call: &Context) {
        let left = tokio::time::timeout(LEAVE_TIME, self.answer).await.ok().and_then(Result::ok);
        self.reports.send(call, left.unwrap_or_else(LeaveResult::unknown));
    }
}

impl LeaveReports {
    fn send(self, call: &Context, left: LeaveResult) {
        let notices = if left.last { self.if_last } else { self.if_others_stay };
        notices.into_iter().for_each(|notice| send_report(call, notice));
        for Target { url, method } in left.end_callbacks {
            if let Some(mut params) = self.end_params.as_deref().cloned() {
                set_mpc_duration(&mut params, left.lasted);
                let kind = CallbackKind::MultiParty;
                send_report(call, CallbackRequest { kind, url, method, params });
            }
        }
    }
}

/// Writes a callback about the end of a participant. Its id is reproducible, so that the next
/// process does not duplicate it.
fn send_report(call: &Context, notice: CallbackRequest) {
    let new = match notice.kind {
        CallbackKind::MultiParty => {
            NewCallback { event_id: exit_id(&notice), ..call.callback(notice) }
        }
        _ => call.callback(notice),
    };
    call.write_callback(new);
}

/// Executes a command about the call's room. If the call leaves a room of another node, returns the
/// pending exit.
pub(super) fn execute(
    call: &Context,
    leg: Option<&LegHandle>,
    report: &mut Report,
    command: RoomCommand,
) -> Option<Leaving> {
    let rooms = &call.services.rooms;
    match command {
        RoomCommand::Enter { entry } => match leg {
            Some(leg) => {
                let entrance = Entrance {
                    setup: call.view.setup.clone(),
                    entry: *entry,
                    mailbox: call.mailbox.clone(),
                    jack: leg.room_jack(),
                    id: call.services.uuid(),
                    answered: call.answered_at(),
                };
                match &call.services.seats {
                    Some(seats) => seats.enter(entrance),
                    None => drop(entrance.enter(rooms, RoomChoice::OpenOr(entrance.id))),
                }
            }
            None => {
                let event = RoomEvent::MustLeave { reason: LeaveReason::Ended };
                call.tell(Input::Room { event });
            }
        },
        RoomCommand::Leave { sounds, if_others_stay, if_last, end_params } => {
            let reports = LeaveReports { if_others_stay, if_last, end_params };
            let seats = call.services.seats.as_ref();
            match seats.and_then(|seats| seats.leave(call.id, &sounds)) {
                Some(answer) => return Some(Leaving { answer, reports }),
                None => rooms.leave(call.id, &sounds, |left| reports.send(call, left)),
            }
        }
        RoomCommand::Sound { items } => match call.seat() {
            Some(seat) => seat.sound(items),
            None => rooms.sound(call.id, &items),
        },
        RoomCommand::Digit { digit } => match call.seat() {
            Some(seat) => seat.digit(digit),
            None => rooms.key(call.id, digit),
        },
        RoomCommand::Ring { name, items } => rooms.ring(&call.view.setup, name, &items),
        RoomCommand::StopRing => rooms.ring_over(call.id),
        RoomCommand::TrackEnded => match call.seat() {
            Some(seat) => seat.track_ended(),
            None => rooms.track_ended(call.id),
        },
        RoomCommand::Record { order, when_alone } => record(call, report, *order, when_alone),
    }
    None
}

/// Starts to record the call's room.
fn record(call: &Context, report: &mut Report, order: RecordingOrder, when_alone: bool) {
    report.note_format(order.mp3);
    let id = order.id.unwrap_or_else(|| call.services.uuid());
    let url = call.services.recordings.url(id, Format::of(order.mp3).as_str());
    if let Some(seat) = call.seat() {
        return seat.record((id, url), Box::new(order), when_alone);
    }
    let (recordings, request) = (&call.services.recordings, tapes::request(call, id, order));
    if let Err(why) = call.services.rooms.record(recordings, request, url, when_alone) {
        tracing::warn!(why, "room recording failed to start");
        report.remarks.add(format!("the room could not be recorded: {why}; it goes on"));
    }
}
