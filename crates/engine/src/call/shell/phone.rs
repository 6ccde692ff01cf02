//! The peer of a web leg: executes Graph outputs on an endpoint's phone.
//!
//! The machine is the same as for other calls. Meta reports the outcome of a request later, but a
//! phone's socket accepts a message immediately or not at all, so the outcome is available at once.
//! Events that Meta reports by webhook are reported by a phone through
//! [`LiveCall`](crate::call::LiveCall).

use std::sync::Arc;

use super::context::Context;
use crate::call::phones::{Ended, Line, Ring, ToPhone};
use machine::{GraphAction, GraphOutcome, Input, PhoneStatus, Summary, Termination};
use model::{CallType, Direction};

/// Describes a call's end in the words of the phone protocol.
pub(super) fn ended(summary: &Summary) -> Ended {
    let wire = summary.cause.wire(summary.direction);
    Ended {
        code: wire.code,
        name: wire.name,
        source: wire.source.as_str(),
        cause: summary.cause.as_str(),
        bill_secs: summary.bill_secs,
    }
}

/// Executes a Graph output on the phone. `sdp` is our session description.
pub(super) fn execute(context: &Context, sdp: &Arc<str>, action: GraphAction) {
    let Some(line) = &context.line else { return };
    let call = context.id;
    match action {
        GraphAction::Connect => return ring(context, line),
        GraphAction::PreAccept => line.tell(ToPhone::Answer { call, sdp: sdp.clone() }),
        GraphAction::Accept => line.tell(ToPhone::Answered { call }),
        // The phone receives `ended` with the cause when the call is concluded.
        GraphAction::Reject | GraphAction::Terminate => {}
    }
    context.tell(Input::Graph { action, outcome: GraphOutcome::Done });
    if action == GraphAction::Terminate {
        // No confirmation from the phone will follow.
        context.tell(Input::Terminated { termination: Termination::default() });
    }
}

/// Rings the endpoint at all of its registrations.
fn ring(context: &Context, line: &Arc<Line>) {
    let setup = &context.view.setup;
    let Origin { via, name, user } = origin(context);
    let outbound = user.is_some();
    let ring = Ring {
        call: context.id,
        from: user.unwrap_or_else(|| setup.from.clone()),
        to: setup.to.clone(),
        caller_name: if setup.caller_name.is_empty() { name } else { setup.caller_name.clone() },
        via,
        outbound,
        headers: setup.headers.clone(),
    };
    let rings = line.ring(ring) > 0 || line.is_awaited(context.services.clock.now());
    let outcome = if rings { GraphOutcome::Done } else { GraphOutcome::Gone };
    context.tell(Input::Graph { action: GraphAction::Connect, outcome });
    if rings {
        context.tell(Input::Status { status: PhoneStatus::Ringing });
    }
}

/// The call with a user that dials an endpoint.
#[derive(Default)]
struct Origin {
    /// The business number and its alias.
    via: [String; 2],
    /// The user's name, if the phone rings in it.
    name: String,
    /// The user, if the business has called them.
    user: Option<String>,
}

/// Describes the call that dials this endpoint.
fn origin(context: &Context) -> Origin {
    let (own, registry) = (&context.view.setup, &context.registry);
    let parent = own.outbound.as_ref().and_then(|outbound| outbound.parent_call);
    let parent = parent
        .and_then(|call| registry.get(call))
        .filter(|a_leg| a_leg.setup.call_type == CallType::Whatsapp);
    let Some(a_leg) = parent else { return Default::default() };
    let setup = &a_leg.setup;
    let (number, user) = match setup.direction {
        Direction::Inbound => (&setup.to, &setup.from),
        Direction::Outbound => (&setup.from, &setup.to),
    };
    let is_theirs = own.from == *user && setup.direction == Direction::Inbound;
    let name = if is_theirs { setup.caller_name.clone() } else { String::new() };
    let via = [number.clone(), registry.alias(&setup.phone_number_id)];
    // After a transfer, the leg's own `from` is the business number.
    let shown = if own.from == *number { user } else { &own.from };
    let user = (setup.direction == Direction::Outbound).then(|| shown.clone());
    Origin { via, name, user }
}
