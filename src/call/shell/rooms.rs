//! A call and the room that it is in: it enters with its leg's sound, and leaves with what is told of it.

use super::{Media, Shell};
use crate::call::rooms::exit_id;
use machine::{Notice, NoticeKind, RecordOrder, RoomNews, RoomOut, RoomWish, lasted};
use media::record::Format;
use store::NewCallback;
use xml::ast::Target;

use super::Input;

impl Shell {
    pub(super) fn room(&mut self, wish: RoomWish) {
        let rooms = self.services.rooms.clone();
        match wish {
            RoomWish::Enter { entry } => match &self.media {
                Media::Leg(leg) => {
                    rooms.enter(&self.view.setup, *entry, &self.mailbox, leg, self.services.uuid())
                }
                Media::None | Media::Offered(_) | Media::Awaited => {
                    self.mailbox.tell(Input::Room { news: RoomNews::Out { why: RoomOut::Ended } });
                }
            },
            RoomWish::Leave { sounds, others_stay, was_last, over } => {
                rooms.leave(self.call, &sounds, |left| {
                    let notices = if left.last { was_last } else { others_stay };
                    notices.into_iter().for_each(|notice| self.notify_out(notice));
                    for Target { url, method } in left.told {
                        if let Some(mut params) = over.as_deref().cloned() {
                            lasted(&mut params, left.lasted);
                            self.notify_out(Notice {
                                kind: NoticeKind::MultiParty,
                                url,
                                method,
                                params,
                            });
                        }
                    }
                });
            }
            RoomWish::Sound { items } => rooms.sound(self.call, &items),
            RoomWish::Key { digit } => rooms.key(self.call, digit),
            RoomWish::Ring { name, items } => rooms.ring(&self.view.setup, name, &items),
            RoomWish::RingOver => rooms.ring_over(self.call),
            RoomWish::Record { how, when_alone } => self.record_room(*how, when_alone),
        }
    }

    /// What tells that somebody is out: the next process would tell the same.
    fn notify_out(&mut self, notice: Notice) {
        let new = match notice.kind {
            NoticeKind::MultiParty => {
                NewCallback { event_id: exit_id(&notice), ..self.callback(notice) }
            }
            _ => self.callback(notice),
        };
        self.write_callback(new);
    }

    fn record_room(&mut self, how: RecordOrder, when_alone: bool) {
        self.note_format(how.mp3);
        let id = how.id.unwrap_or_else(|| self.services.uuid());
        let url = self.services.recordings.url(id, Format::of(how.mp3).as_str());
        let begin = |room, source, told| {
            self.services.recordings.begin(self.taking(id, Some(room), how), source, told)
        };
        if let Err(why) = self.services.rooms.record(self.call, (id, url), when_alone, begin) {
            tracing::warn!(why, "a room cannot be recorded; it goes on");
            self.remarks.push(format!("the room could not be recorded: {why}; it goes on"));
        }
    }
}
