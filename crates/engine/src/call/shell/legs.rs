//! Commands and events between an A-leg and its B-legs, which pass from mailbox to mailbox.

use super::{Media, Shell};
use machine::{BLegCommand, BLegEvent, Command, DialOrder, Input, MediaCommand};
use media::{BridgeEnd, bridge};
use model::{CallUuid, HangupCause};

use super::Message;

impl Shell {
    /// Starts a B-leg.
    pub(super) fn dial(&self, order: DialOrder) {
        let call = order.call;
        if let Err(news) = self.registry.dial(&self.view, order) {
            self.mailbox.tell(Input::BLeg { call, event: news });
        }
    }

    /// Sends a command to a B-leg.
    pub(super) fn order_leg(&self, call: CallUuid, command: BLegCommand) {
        let Some(leg) = self.registry.get(call) else {
            // A B-leg that has ended has reported its end.
            if let BLegCommand::HangUp { cause } = command
                && self.view.withdraw_leg(call)
            {
                let event = BLegEvent::Ended { cause };
                self.mailbox.tell(Input::BLeg { call, event });
            }
            return;
        };
        match (command, &self.a_leg.media) {
            (BLegCommand::Join, Media::Leg(own)) => {
                let (mine, theirs) = bridge();
                own.bridge(mine);
                leg.put(Message::Joined(Box::new(theirs)));
            }
            (command, _) => {
                // The B-leg continues without this call, even after its end.
                if matches!(&command, BLegCommand::Forward { command } if matches!(**command, Command::Transfer { .. }))
                {
                    self.view.forget_leg(call);
                }
                leg.put(Message::Input(Input::ALeg { command }));
            }
        }
    }

    /// Reports an event to the A-leg. Hangs up if the A-leg no longer exists.
    pub(super) fn tell_a_leg(&self, news: BLegEvent) {
        let Some(dialled) = self.view.setup.b_leg() else { return };
        let last = matches!(news, BLegEvent::Ended { .. });
        let told = self.registry.get(dialled.a_leg).is_some_and(|a_leg| {
            if last {
                a_leg.forget_leg(self.call);
            }
            a_leg.put(Message::Input(Input::BLeg { call: self.call, event: news }))
        });
        if !told && !last {
            let leg = BLegCommand::HangUp { cause: HangupCause::DialEnded };
            self.mailbox.tell(Input::ALeg { command: leg });
        }
    }

    /// Connects or disconnects the media of the two legs.
    pub(super) fn bridge_media(&mut self, order: &MediaCommand, end: Option<Box<BridgeEnd>>) {
        let Media::Leg(leg) = &self.a_leg.media else { return };
        match (order, end) {
            (MediaCommand::Join, Some(end)) => leg.bridge(*end),
            (MediaCommand::Unjoin, _) => leg.unbridge(),
            _ => {}
        }
    }
}
