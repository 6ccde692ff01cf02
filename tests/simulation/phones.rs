//! Users who are called: Graph's `connect` and the actions of their phones, reported by webhooks in
//! any order.

use machine::{Input, MediaEvent};
use model::Leg;

use crate::meta::{CallIx, EventKind, MetaCall, Phase, Reply, phone_number_id};
use crate::plan::{MS, SECOND};
use crate::world::{Event, StepResult, World};

/// How long Meta lets a phone ring (`docs/reference/meta.md#t-ring`).
const RINGS: u64 = 60 * SECOND;

impl World {
    /// Handles a `connect`. A repeated one creates another call.
    pub fn create_call(&mut self, ix: CallIx) -> Reply {
        if self.rng.chance(self.faults.connect_refused) {
            let code = self.rng.pick(&[138_000, 138_001, 138_003, 138_006, 138_012]);
            let body = format!(r#"{{"error":{{"message":"(#{code}) No","code":{code}}}}}"#);
            return Reply { status: 400, after: None, body: body.into() };
        }
        let made = if self.meta.calls[ix].phase == Phase::Unmade { ix } else { self.doubled(ix) };
        let call = &mut self.meta.calls[made];
        call.phase = Phase::Ringing;
        call.timestamp = self.clock.steady().secs();
        let wacid = call.key.wacid.clone();
        self.note(format_args!("Meta makes call {made} ({wacid})"));
        self.watch.made(made, self.now);
        self.act_as_callee(made);
        let body = format!(r#"{{"messaging_product":"whatsapp","calls":[{{"id":"{wacid}"}}]}}"#);
        Reply { status: 200, after: None, body: body.into() }
    }

    fn doubled(&mut self, ix: CallIx) -> CallIx {
        let made = self.meta.calls.len();
        let first = &self.meta.calls[ix];
        let (number, placed) = (first.number, first.placed.clone());
        self.meta.calls.push(MetaCall::unmade(number, &format!("wacid.out.{made:04}"), placed));
        self.watch.tally.doubled += 1;
        made
    }

    fn act_as_callee(&mut self, ix: CallIx) {
        let faults = self.faults.clone();
        // The SDP answer, RINGING and the user's action arrive in any order.
        let us = self.rng.between(0, 3_000) * MS;
        self.after(us, Event::PhoneRings(ix));
        self.post(ix, EventKind::Connect);
        let at_once = self.rng.chance(faults.answered_at_once);
        let (us, long) = (
            self.rng.between(0, if at_once { 500 } else { 30_000 }) * MS,
            self.rng.between(0, 50) * SECOND,
        );
        if self.rng.chance(faults.declines) {
            self.after(us, Event::Declines(ix));
        } else if !self.rng.chance(faults.ignores) {
            let us = if self.rng.chance(100) { long } else { us };
            self.after(us, Event::PicksUp(ix));
        }
        self.after(RINGS, Event::WindowOver(ix));
    }

    pub fn phone_rings(&mut self, ix: CallIx) -> StepResult {
        if self.meta.calls[ix].phase != Phase::Ended && !self.rng.chance(self.faults.never_rings) {
            self.post(ix, EventKind::Ringing);
        }
        Ok(())
    }

    pub fn picks_up(&mut self, ix: CallIx) -> StepResult {
        if self.meta.calls[ix].phase != Phase::Ringing {
            return Ok(());
        }
        self.note(format_args!("the user of call {ix} picks up"));
        let patience = self.meta.calls[ix].placed.as_ref().and_then(|placed| placed.patience_us);
        self.meta.calls[ix].phase = Phase::Accepted;
        self.meta.calls[ix].accepted_us = Some(self.now);
        self.post(ix, EventKind::Accepted);
        self.presses_keys(ix);
        self.after(500 * MS, Event::AudioArrives(ix));
        if let Some(us) = patience {
            self.after(us, Event::HangsUp(ix));
        }
        Ok(())
    }

    pub fn declines(&mut self, ix: CallIx) -> StepResult {
        if self.meta.calls[ix].phase == Phase::Ringing {
            self.note(format_args!("the user of call {ix} declines"));
            self.post(ix, EventKind::Rejected);
            self.ends(ix, true);
        }
        Ok(())
    }

    /// Half a second of the user's audio has arrived, if the media path is up.
    pub fn audio_arrives(&mut self, ix: CallIx) -> StepResult {
        let is_up = self
            .node
            .as_ref()
            .is_some_and(|node| node.calls.values().any(|call| call.ix == ix && call.hears()));
        if self.meta.calls[ix].phase == Phase::Accepted && is_up {
            self.leg_input(ix, Input::Media { leg: Leg::A, event: MediaEvent::Flowing });
        }
        Ok(())
    }
}

impl MetaCall {
    /// Returns an ordered call that Graph has not received yet.
    pub fn unmade(number: usize, wacid: &str, placed: Option<crate::meta::Placed>) -> Self {
        let key = engine::call::binding::CallKey {
            phone_number_id: phone_number_id(number).as_str().into(),
            wacid: wacid.into(),
        };
        Self {
            number,
            key,
            phase: Phase::Unmade,
            placed,
            timestamp: 0,
            bad_offer: false,
            sdp: false,
            accepted_us: None,
            ended_by_them: false,
            tries_to_end: 0,
            accept_sent: None,
            reject_sent: None,
        }
    }
}
