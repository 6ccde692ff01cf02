//! A call and the room that it is in: it enters with its leg's sound, and leaves with what is told of it.

use super::{Media, Shell};
use crate::call::machine::{RoomNews, RoomOut, RoomWish};

use super::Input;

impl Shell {
    pub(super) fn room(&mut self, wish: RoomWish) {
        let rooms = self.services.rooms.clone();
        match wish {
            RoomWish::Enter { entry } => match &self.media {
                Media::Leg(leg) => rooms.enter(&self.view.setup, *entry, &self.mailbox, leg, self.services.uuid()),
                Media::None | Media::Offered(_) | Media::Awaited => {
                    self.mailbox.tell(Input::Room { news: RoomNews::Out { why: RoomOut::Ended } });
                }
            },
            RoomWish::Leave { sounds, others_stay, was_last } => {
                let last = rooms.leave(self.call, &sounds);
                let notices = if last { was_last } else { others_stay };
                notices.into_iter().for_each(|notice| self.notify(notice));
            }
            RoomWish::Sound { items } => rooms.sound(self.call, &items),
            RoomWish::Key { digit } => rooms.key(self.call, digit),
        }
    }
}
