//! Commands and events between an A-leg and its B-legs, which pass from mailbox to mailbox.

use super::super::mailbox::Message;
use super::context::Context;
use machine::{BLegCommand, BLegEvent, Command, DialOrder, Input};
use media::{LegHandle, bridge};
use model::{CallUuid, HangupCause};

/// Starts a B-leg.
pub(super) fn dial(context: &Context, order: DialOrder) {
    let call = order.call;
    if let Err(news) = context.registry.dial(&context.view, order) {
        context.tell(Input::BLeg { call, event: news });
    }
}

/// Sends a command to a B-leg.
pub(super) fn command_b_leg(
    context: &Context,
    own: Option<&LegHandle>,
    call: CallUuid,
    command: BLegCommand,
) {
    let Some(leg) = context.registry.get(call) else {
        // A B-leg that has ended has reported its end.
        if let BLegCommand::HangUp { cause } = command
            && context.view.withdraw_leg(call)
        {
            let event = BLegEvent::Ended { cause };
            context.tell(Input::BLeg { call, event });
        }
        return;
    };
    match (command, own) {
        (BLegCommand::Join, Some(own)) => {
            let (mine, theirs) = bridge();
            own.bridge(mine);
            leg.put(Message::Joined(Box::new(theirs)));
        }
        (command, _) => {
            // The B-leg continues without this call, even after its end.
            if matches!(&command, BLegCommand::Forward { command } if matches!(**command, Command::Transfer { .. }))
            {
                context.view.forget_leg(call);
            }
            leg.put(Message::Input(Input::ALeg { command }));
        }
    }
}

/// Reports an event to the A-leg. Hangs up if the A-leg no longer exists.
pub(super) fn tell_a_leg(context: &Context, news: BLegEvent) {
    let Some(dialled) = context.view.setup.b_leg() else { return };
    let last = matches!(news, BLegEvent::Ended { .. });
    let delivered = context.registry.get(dialled.a_leg).is_some_and(|a_leg| {
        if last {
            a_leg.forget_leg(context.id);
        }
        a_leg.put(Message::Input(Input::BLeg { call: context.id, event: news }))
    });
    if !delivered && !last {
        let leg = BLegCommand::HangUp { cause: HangupCause::DialEnded };
        context.tell(Input::ALeg { command: leg });
    }
}
