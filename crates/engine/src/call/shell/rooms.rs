//! Executes the outputs of a call about its room.

use super::{Media, Shell};
use crate::call::rooms::exit_id;
use machine::{
    CallbackKind, CallbackRequest, LeaveReason, RecordingOrder, RoomCommand, RoomEvent,
    set_mpc_duration,
};
use media::record::Format;
use store::NewCallback;
use xml::ast::Target;

use super::Input;

impl Shell {
    pub(super) fn room(&mut self, command: RoomCommand) {
        let rooms = self.services.rooms.clone();
        match command {
            RoomCommand::Enter { entry } => match &self.a_leg.media {
                Media::Leg(leg) => {
                    rooms.enter(&self.view.setup, *entry, &self.mailbox, leg, self.services.uuid())
                }
                Media::None | Media::Offered(_) | Media::Awaited => {
                    self.mailbox.tell(Input::Room {
                        event: RoomEvent::MustLeave { reason: LeaveReason::Ended },
                    });
                }
            },
            RoomCommand::Leave {
                sounds,
                if_others_stay: others_stay,
                if_last: was_last,
                end_params: over,
            } => {
                rooms.leave(self.call, &sounds, |left| {
                    let notices = if left.last { was_last } else { others_stay };
                    notices.into_iter().for_each(|notice| self.notify_out(notice));
                    for Target { url, method } in left.told {
                        if let Some(mut params) = over.as_deref().cloned() {
                            set_mpc_duration(&mut params, left.lasted);
                            self.notify_out(CallbackRequest {
                                kind: CallbackKind::MultiParty,
                                url,
                                method,
                                params,
                            });
                        }
                    }
                });
            }
            RoomCommand::Sound { items } => rooms.sound(self.call, &items),
            RoomCommand::Digit { digit } => rooms.key(self.call, digit),
            RoomCommand::Ring { name, items } => rooms.ring(&self.view.setup, name, &items),
            RoomCommand::StopRing => rooms.ring_over(self.call),
            RoomCommand::Record { order: how, when_alone } => self.record_room(*how, when_alone),
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
        let begin = |room, source, told| {
            self.services.recordings.begin(self.taking(id, Some(room), how), source, told)
        };
        if let Err(why) = self.services.rooms.record(self.call, (id, url), when_alone, begin) {
            tracing::warn!(why, "room recording failed to start");
            self.report.remarks.push(format!("the room could not be recorded: {why}; it goes on"));
        }
    }
}
