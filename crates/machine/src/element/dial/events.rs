//! Requests of a `Dial` to the customer's server: callbacks for each target, and the action
//! (docs/reference/callbacks.md#dial).

use super::DialAttempt;
use crate::context::CallContext;
use crate::contract::{CallbackKind, CallbackRequest, DialError, Output, Param, Params};
use crate::params::{self, Event};
use model::{Direction, HangupCause};

/// An event of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetEvent<'a> {
    /// The target has ended. If `error` is set, it was never placed.
    Hangup {
        cause: HangupCause,
        error: Option<DialError>,
    },
    Answer,
    Connected,
    Digits {
        pattern: &'a str,
        by_a: bool,
    },
}

impl DialAttempt {
    /// Sends an event of the target with index `at` to `callbackUrl`, if that is set.
    pub(super) fn report(&self, ctx: &mut CallContext, at: usize, target_event: TargetEvent<'_>) {
        let (Some(target), Some(leg)) = (&self.dial.callback, self.legs.get(at)) else { return };
        let (event, action, status) = match target_event {
            TargetEvent::Hangup { .. } => (Event::DialHangup, "hangup", "hangup"),
            TargetEvent::Answer => (Event::DialAnswer, "answer", "answer"),
            TargetEvent::Connected => (Event::DialConnected, "connected", "connected"),
            TargetEvent::Digits { .. } => (Event::DialDigitsMatch, "digits", "connected"),
        };
        let mut params = params::common(ctx, event);
        let mut put = |name: &'static str, value: String| {
            params.insert(name.into(), Param::Plain(value.into()));
        };
        put("DialAction", action.to_owned());
        put("DialBLegStatus", status.to_owned());
        put("DialALegUUID", ctx.setup.call.to_string());
        put("DialBLegUUID", leg.call.to_string());
        put("DialBLegFrom", leg.from.clone());
        put("DialBLegTo", leg.to.clone());
        put("DialBLegPosition", leg.position.to_string());
        match target_event {
            TargetEvent::Answer | TargetEvent::Connected => {}
            TargetEvent::Digits { pattern, by_a } => {
                put("DialDigitsMatch", pattern.to_owned());
                put("DialDigitsPressedBy", if by_a { "ALeg" } else { "BLeg" }.to_owned());
            }
            TargetEvent::Hangup { cause, error } => {
                let seconds_since = |from| ctx.seconds_since(from).to_string();
                let wire = cause.wire(Direction::Outbound);
                let length =
                    if error.is_some() { "0".to_owned() } else { seconds_since(leg.begun) };
                put("DialBLegDuration", length);
                put(
                    "DialBLegBillDuration",
                    leg.answered.map_or_else(|| "0".to_owned(), seconds_since),
                );
                put("DialBLegHangupCause", wire.word.to_owned());
                put("DialBLegHangupCauseCode", wire.code.to_string());
                put("DialBLegHangupCauseName", wire.name.to_owned());
                put("DialBLegHangupSource", wire.source.as_str().to_owned());
                if let Some(error) = error {
                    put("DialError", error.as_str().to_owned());
                }
            }
        }
        let callback = CallbackRequest {
            kind: CallbackKind::Dial,
            url: target.url.clone(),
            method: target.method,
            params,
        };
        ctx.emit(Output::Callback { callback });
    }

    /// Returns the additional parameters of the action.
    pub(super) fn outcome(&self, ctx: &CallContext) -> Params {
        let plain = |text: &str| Param::Plain(text.to_owned().into());
        let (status, cause) = self.status();
        let winner = self.winner.and_then(|at| self.legs.get(at));
        let mut params = Params::from([
            ("DialStatus".into(), plain(status)),
            (
                "DialRingStatus".into(),
                plain(if self.rang || winner.is_some() { "true" } else { "false" }),
            ),
            ("DialHangupCause".into(), plain(cause.wire(Direction::Outbound).word)),
            ("DialALegUUID".into(), plain(&ctx.setup.call.to_string())),
            (
                "DialBLegUUID".into(),
                plain(&winner.map(|leg| leg.call.to_string()).unwrap_or_default()),
            ),
        ]);
        if let Some(error) = self.failed_before_placing() {
            params.insert("DialError".into(), plain(error.as_str()));
        }
        params
    }
}
