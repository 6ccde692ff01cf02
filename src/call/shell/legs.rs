//! A call and the legs that it dialled, or the leg that dialled it: what they want and tell goes from mailbox to mailbox.

use super::{Media, Shell};
use machine::{Command, DialOrder, Input, LegNews, LegWish, MediaOrder};
use media::{BridgeEnd, bridge};
use model::{CallUuid, HangupCause};

use super::What;

impl Shell {
    /// A further leg is to be begun.
    pub(super) fn dial(&self, order: DialOrder) {
        let call = order.call;
        if let Err(news) = self.registry.dial(&self.view, order) {
            self.mailbox.tell(Input::Dialled { call, news });
        }
    }

    /// A leg that this call dialled is told something.
    pub(super) fn order_leg(&self, call: CallUuid, wish: LegWish) {
        // One that is gone has told so.
        let Some(leg) = self.registry.get(call) else { return };
        match (wish, &self.media) {
            (LegWish::Join, Media::Leg(own)) => {
                let (mine, theirs) = bridge();
                own.bridge(mine);
                leg.put(What::Joined(Box::new(theirs)));
            }
            (wish, _) => {
                // It goes on without this call, also past its end.
                if matches!(&wish, LegWish::Ask { command } if matches!(**command, Command::Transfer { .. }))
                {
                    self.view.forget_leg(call);
                }
                leg.put(What::Fact(Input::Ordered { leg: wish }));
            }
        }
    }

    /// The leg that dialled this one is told something. Where it is gone, this one ends too.
    pub(super) fn tell_a_leg(&self, news: LegNews) {
        let Some(dialled) = self.view.setup.dialled() else { return };
        let last = matches!(news, LegNews::Ended { .. });
        let told = self.registry.get(dialled.a_leg).is_some_and(|a_leg| {
            if last {
                a_leg.forget_leg(self.call);
            }
            a_leg.put(What::Fact(Input::Dialled { call: self.call, news }))
        });
        if !told && !last {
            let leg = LegWish::HangUp { cause: HangupCause::DialEnded };
            self.mailbox.tell(Input::Ordered { leg });
        }
    }

    /// The two legs' media are brought together, or parted.
    pub(super) fn bridge_media(&mut self, order: &MediaOrder, end: Option<Box<BridgeEnd>>) {
        let Media::Leg(leg) = &self.media else { return };
        match (order, end) {
            (MediaOrder::Join, Some(end)) => leg.bridge(*end),
            (MediaOrder::Part, _) => leg.unbridge(),
            _ => {}
        }
    }
}
