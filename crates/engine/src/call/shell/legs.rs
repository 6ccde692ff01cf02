//! A call and the legs that it dialled, or the leg that dialled it: what they want and tell goes from mailbox to mailbox.

use super::{Media, Shell};
use machine::{BLegCommand, BLegEvent, Command, DialOrder, Input, MediaCommand};
use media::{BridgeEnd, bridge};
use model::{CallUuid, HangupCause};

use super::What;

impl Shell {
    /// A further leg is to be begun.
    pub(super) fn dial(&self, order: DialOrder) {
        let call = order.call;
        if let Err(news) = self.registry.dial(&self.view, order) {
            self.mailbox.tell(Input::BLeg { call, event: news });
        }
    }

    /// A leg that this call dialled is told something.
    pub(super) fn order_leg(&self, call: CallUuid, wish: BLegCommand) {
        // One that is gone has told so.
        let Some(leg) = self.registry.get(call) else { return };
        match (wish, &self.media) {
            (BLegCommand::Join, Media::Leg(own)) => {
                let (mine, theirs) = bridge();
                own.bridge(mine);
                leg.put(What::Joined(Box::new(theirs)));
            }
            (wish, _) => {
                // It goes on without this call, also past its end.
                if matches!(&wish, BLegCommand::Forward { command } if matches!(**command, Command::Transfer { .. }))
                {
                    self.view.forget_leg(call);
                }
                leg.put(What::Fact(Input::ALeg { command: wish }));
            }
        }
    }

    /// The leg that dialled this one is told something. Where it is gone, this one ends too.
    pub(super) fn tell_a_leg(&self, news: BLegEvent) {
        let Some(dialled) = self.view.setup.b_leg() else { return };
        let last = matches!(news, BLegEvent::Ended { .. });
        let told = self.registry.get(dialled.a_leg).is_some_and(|a_leg| {
            if last {
                a_leg.forget_leg(self.call);
            }
            a_leg.put(What::Fact(Input::BLeg { call: self.call, event: news }))
        });
        if !told && !last {
            let leg = BLegCommand::HangUp { cause: HangupCause::DialEnded };
            self.mailbox.tell(Input::ALeg { command: leg });
        }
    }

    /// The two legs' media are brought together, or parted.
    pub(super) fn bridge_media(&mut self, order: &MediaCommand, end: Option<Box<BridgeEnd>>) {
        let Media::Leg(leg) = &self.media else { return };
        match (order, end) {
            (MediaCommand::Join, Some(end)) => leg.bridge(*end),
            (MediaCommand::Unjoin, _) => leg.unbridge(),
            _ => {}
        }
    }
}
