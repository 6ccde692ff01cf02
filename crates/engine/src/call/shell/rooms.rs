//! Executes the outputs of a call about its room.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Media, Shell};
use crate::call::rooms::{Door, LeaveResult, exit_id};
use crate::call::seats::{Entrance, Seat};
use machine::{
    CallbackKind, CallbackRequest, LeaveReason, Params, RecordingOrder, RoomCommand, RoomEvent,
    set_mpc_duration,
};
use media::record::Format;
use model::Timestamp;
use store::NewCallback;
use xml::ast::Target;

use super::Input;

/// How long a call waits for the answer of the node whose room it leaves.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// A call leaves a room of another node.
pub(super) struct Leaving {
    answer: oneshot::Receiver<LeaveResult>,
    reports: LeaveReports,
}

/// The callbacks about the exit, of which the result selects.
struct LeaveReports {
    if_others_stay: Vec<CallbackRequest>,
    if_last: Vec<CallbackRequest>,
    end_params: Option<Box<Params>>,
}

impl Shell {
    pub(super) fn room(&mut self, command: RoomCommand) {
        let rooms = self.services.rooms.clone();
        match command {
            RoomCommand::Enter { entry } => match &self.a_leg.media {
                Media::Leg(leg) => {
                    let entrance = Entrance {
                        setup: self.view.setup.clone(),
                        entry: *entry,
                        mailbox: self.mailbox.clone(),
                        jack: leg.room_jack(),
                        id: self.services.uuid(),
                        answered: self.answered_at(),
                    };
                    match &self.services.seats {
                        Some(seats) => seats.enter(entrance),
                        None => drop(entrance.enter(&rooms, Door::OpenOr(entrance.id))),
                    }
                }
                Media::None | Media::Offered(_) | Media::Awaited => {
                    self.mailbox.tell(Input::Room {
                        event: RoomEvent::MustLeave { reason: LeaveReason::Ended },
                    });
                }
            },
            RoomCommand::Leave { sounds, if_others_stay, if_last, end_params } => {
                let reports = LeaveReports { if_others_stay, if_last, end_params };
                let seats = self.services.seats.as_ref();
                match seats.and_then(|seats| seats.leave(self.call, &sounds)) {
                    Some(answer) => self.leaving = Some(Leaving { answer, reports }),
                    None => {
                        rooms.leave(self.call, &sounds, |left| self.report_exit(left, reports));
                    }
                }
            }
            RoomCommand::Sound { items } => match self.seat() {
                Some(seat) => seat.sound(items),
                None => rooms.sound(self.call, &items),
            },
            RoomCommand::Digit { digit } => match self.seat() {
                Some(seat) => seat.digit(digit),
                None => rooms.key(self.call, digit),
            },
            RoomCommand::Ring { name, items } => rooms.ring(&self.view.setup, name, &items),
            RoomCommand::StopRing => rooms.ring_over(self.call),
            RoomCommand::Record { order: how, when_alone } => self.record_room(*how, when_alone),
        }
    }

    /// When the call was answered.
    fn answered_at(&self) -> Option<Timestamp> {
        let answered = self.view.answered();
        answered.map(|at| self.view.setup.started.plus(Duration::from_millis(at.0)))
    }

    /// The call's seat in a room of another node.
    pub(super) fn seat(&self) -> Option<Seat> {
        self.services.seats.as_ref()?.seat_of(self.call)
    }

    /// Waits until the other node says what follows from the exit. If it does not answer, it tells
    /// the others, or the node that takes its place does.
    pub(super) async fn finish_leaving(&mut self, leaving: Leaving) {
        let Leaving { answer, reports } = leaving;
        let left = tokio::time::timeout(LEAVE_TIME, answer).await.ok().and_then(Result::ok);
        self.report_exit(left.unwrap_or_else(LeaveResult::unknown), reports);
    }

    fn report_exit(&mut self, left: LeaveResult, reports: LeaveReports) {
        let LeaveReports { if_others_stay, if_last, end_params } = reports;
        let notices = if left.last { if_last } else { if_others_stay };
        notices.into_iter().for_each(|notice| self.notify_out(notice));
        for Target { url, method } in left.told {
            if let Some(mut params) = end_params.as_deref().cloned() {
                set_mpc_duration(&mut params, left.lasted);
                let kind = CallbackKind::MultiParty;
                self.notify_out(CallbackRequest { kind, url, method, params });
            }
        }
    }

    /// Writes a callback about the end of a participant. Its id is reproducible, so that the next
    /// process does not duplicate it.
    fn notify_out(&mut self, notice: CallbackRequest) {
        let new = match notice.kind {
            CallbackKind::MultiParty => {
                NewCallback { event_id: exit_id(&notice), ..self.callback(notice) }
            }
            _ => self.callback(notice),
        };
        self.write_callback(new);
    }

    fn record_room(&mut self, how: RecordingOrder, when_alone: bool) {
        self.note_format(how.mp3);
        let id = how.id.unwrap_or_else(|| self.services.uuid());
        let url = self.services.recordings.url(id, Format::of(how.mp3).as_str());
        if let Some(seat) = self.seat() {
            return seat.record((id, url), Box::new(how), when_alone);
        }
        let begin = |room, source, told| {
            self.services.recordings.begin(self.taking(id, Some(room), how), source, told)
        };
        if let Err(why) = self.services.rooms.record(self.call, (id, url), when_alone, begin) {
            tracing::warn!(why, "room recording failed to start");
            self.report.remarks.push(format!("the room could not be recorded: {why}; it goes on"));
        }
    }
}
