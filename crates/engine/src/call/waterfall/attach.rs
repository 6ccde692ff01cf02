//! Assigns bodies to bars.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::bodies::{self, Body, Fidelity, Flow};
use super::{Builder, RequestKey, WEBHOOK};
use crate::meta::SdpType;
use machine::{CallSetup, CallbackRequest};
use model::{CallType, Direction};

/// Returns the name of the first bar: Meta's webhook, or the request to place the call.
fn began_by(setup: &CallSetup) -> &'static str {
    match (&setup.outbound, setup.call_type) {
        (Some(placed), _) if placed.b_leg.is_some() => "dialled by the A-leg",
        (Some(_), _) => "order to call",
        (None, CallType::Web) => "call from the phone",
        (None, CallType::Whatsapp) => WEBHOOK,
    }
}

impl Builder {
    /// Handles the first input of the call.
    pub(super) fn begin(&mut self, setup: &CallSetup) {
        self.wacid.clone_from(&setup.wacid);
        if let Some(bar) = self.webhook.and_then(|place| self.fall.bars.get_mut(place)) {
            bar.bodies.push(bodies::began(setup));
            bar.name = began_by(setup).into();
        }
        if setup.direction == Direction::Inbound {
            self.offer_at.extend(self.webhook);
        }
        self.setup = Some(Box::new(setup.clone()));
    }

    /// Adds a request's response. A status from the trace takes precedence.
    pub(super) fn answered(&mut self, asked: RequestKey, mut body: Body) {
        let Some(index) = self.unanswered.iter().position(|(open, _)| *open == asked) else {
            return;
        };
        let (_, place) = self.unanswered.remove(index);
        if let Some(bar) = self.fall.bars.get_mut(place) {
            let status = bar.note.split(' ').next().filter(|word| word.parse::<u16>().is_ok());
            if let (Some(status), false) = (status, body.head.contains(' ')) {
                status.clone_into(&mut body.head);
            }
            bar.bodies.push(body);
        }
    }

    /// Records a callback among the machine's outputs.
    pub(super) fn notice(&mut self, notice: &CallbackRequest) {
        if self.notices.len() < super::BARS_MAX {
            self.notices.push((notice.kind.as_str(), Body::notice(notice)));
        }
    }

    /// Adds the bodies of callbacks: from the machine's outputs if there is only one of that kind,
    /// otherwise from the outbox.
    pub(super) fn attach_callbacks(&mut self, outbox: &BTreeMap<Uuid, CallbackRequest>) {
        for (place, kind, event) in std::mem::take(&mut self.callbacks) {
            let Some(bar) = self.fall.bars.get_mut(place) else { continue };
            let row = event.and_then(|event| outbox.get(&event)).map(Body::notice);
            let mut expected =
                self.notices.iter().filter(|(of, _)| *of == kind).map(|(_, body)| body);
            let only = match (expected.next(), expected.next()) {
                (Some(only), None) => Some(only.clone()),
                _ => None,
            };
            // The machine's version also contains the names of secret parameters.
            bar.bodies
                .push(only.or(row).unwrap_or_else(|| Body::none(Flow::Out, "POST", Fidelity::Not)));
            let end = match bar.note.split_once(": ") {
                Some((attempt, end)) if attempt.starts_with("attempt ") => end,
                _ => &bar.note,
            };
            let status = end.split(' ').next().unwrap_or_default().to_owned();
            bar.bodies.push(Body::none(Flow::In, status, Fidelity::Not));
        }
    }

    /// Adds session descriptions after the bodies that contained them.
    pub(super) fn attach_sdp(&mut self) {
        let web = self.setup.as_deref().is_none_or(|setup| setup.call_type == CallType::Web);
        let kinds = [
            (SdpType::Offer, self.offer.take(), std::mem::take(&mut self.offer_at)),
            (SdpType::Answer, self.answer.take(), std::mem::take(&mut self.answer_at)),
        ];
        for (kind, text, places) in kinds {
            for place in places.into_iter().collect::<BTreeSet<_>>() {
                let Some(bar) = self.fall.bars.get_mut(place) else { continue };
                let way = bar.bodies.first().map_or(Flow::In, |body| body.way);
                let body = match &text {
                    Some(text) => Body::sdp(way, kind, text),
                    None if web || bar.bodies.is_empty() => continue,
                    None => Body::no_sdp(way, kind),
                };
                bar.bodies.insert(bar.bodies.len().min(1), body);
            }
        }
    }
}
