//! The simulated Meta: users who call, webhooks that are duplicated, late or lost, and Graph.

use std::borrow::Cow;
use std::sync::OnceLock;

use engine::call::binding::CallKey;
use engine::webhook::Effect;

use machine::{Command, GraphAction, Input, MediaEvent, MediaFault};
use model::{CallUuid, Digit, Leg};

use crate::plan::{MS, SECOND};
use crate::world::{AttemptResult, Event, GraphFault, StepResult, World};

pub type CallIx = usize;

/// Meta's answer window (`docs/reference/meta.md#t-window`).
const WINDOW: u64 = 45 * SECOND;
/// Timeout after which an unanswered webhook is resent.
const PATIENCE: u64 = 10 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The order is not placed yet, or Graph has not received it.
    Unmade,
    Ringing,
    Accepted,
    Ended,
}

/// A call as seen by Meta.
#[derive(Debug)]
pub struct MetaCall {
    pub number: usize,
    pub key: CallKey,
    pub phase: Phase,
    /// Set for business-initiated calls.
    pub placed: Option<Placed>,
    /// The timestamp of its connect, in seconds since the epoch.
    pub timestamp: i64,
    pub bad_offer: bool,
    /// Meta knows the node's SDP, so the media path may be established.
    pub sdp: bool,
    pub accepted_us: Option<u64>,
    /// The user or Meta ended it, not the node.
    pub ended_by_them: bool,
    /// Number of requests to end it that were sent, whether they arrived or not.
    pub tries_to_end: u32,
    pub accept_sent: Option<u32>,
    pub reject_sent: Option<u32>,
}

/// The node's call and the user of a business-initiated call.
#[derive(Clone, Debug)]
pub struct Placed {
    pub call: CallUuid,
    pub user: usize,
    /// Time from the answer until the user hangs up.
    pub patience_us: Option<u64>,
}

/// The kind of a webhook event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// A user's offer, or the answer to an offer of the node.
    Connect,
    Ringing,
    Accepted,
    Rejected,
    Terminate,
}

/// A webhook.
#[derive(Debug)]
pub struct Post {
    body: String,
    event_kind: EventKind,
    /// It contains the opaque data that names the node's call.
    named: bool,
    call: CallIx,
}

#[derive(Debug, Default)]
pub struct Meta {
    pub calls: Vec<MetaCall>,
    posts: Vec<Post>,
    /// Number of webhooks that the node has not accepted yet.
    pub undelivered: usize,
}

/// A response from Graph.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub after: Option<u64>,
    pub body: Cow<'static, str>,
}

const DONE: Reply = Reply {
    status: 200,
    after: None,
    body: Cow::Borrowed(r#"{"messaging_product":"whatsapp","success":true}"#),
};
const GONE: Reply = Reply {
    status: 400,
    after: None,
    body: Cow::Borrowed(
        r#"{"error":{"message":"(#100) Invalid parameter","code":100,"error_data":{"details":"Call not found or ended"}}}"#,
    ),
};
const ACCEPTED: Reply = Reply {
    status: 400,
    after: None,
    body: Cow::Borrowed(
        r#"{"error":{"message":"(#100) Invalid parameter","code":100,"error_data":{"details":"Call already accepted"}}}"#,
    ),
};

pub fn phone_number_id(number: usize) -> String {
    format!("10654035224292{number}")
}

pub fn number(number: usize) -> String {
    format!("91803573745{number}")
}

pub fn user(user: usize) -> String {
    format!("9194123{user:05}")
}

/// Returns the SDP of a connect as a JSON string.
fn sdp(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    body["entry"][0]["changes"][0]["value"]["calls"][0]["session"]["sdp"].to_string()
}

/// Returns the SDP of a user's offer.
fn offer() -> &'static str {
    static OFFER: OnceLock<String> = OnceLock::new();
    OFFER.get_or_init(|| sdp(include_str!("../../fixtures/meta/webhooks/connect_user.json")))
}

/// Returns the SDP of the answer to a node's offer.
fn answer() -> &'static str {
    static ANSWER: OnceLock<String> = OnceLock::new();
    ANSWER.get_or_init(|| {
        sdp(include_str!("../../fixtures/meta/webhooks/connect_business_answer.json"))
    })
}

impl World {
    pub fn user_calls(&mut self, index: usize) -> StepResult {
        let arrival = self.plan.arrivals[index].clone();
        let key = |wacid: &str| CallKey {
            phone_number_id: phone_number_id(arrival.number).as_str().into(),
            wacid: wacid.into(),
        };
        // The same id at two numbers means two calls.
        let twin = self
            .meta
            .calls
            .last()
            .filter(|_| arrival.same_id)
            .map(|last| key(last.key.wacid.as_str()));
        let twin = twin.filter(|twin| self.meta.calls.iter().all(|call| call.key != *twin));
        let key = twin.unwrap_or_else(|| key(&format!("wacid.{index:04}")));
        let wacid = &key.wacid;
        let ix = self.meta.calls.len();
        self.trace
            .step(self.now, format_args!("user {ix} calls number {} ({wacid})", arrival.number));
        self.meta.calls.push(MetaCall {
            number: arrival.number,
            key,
            phase: Phase::Ringing,
            placed: None,
            timestamp: self.clock.steady().secs() + arrival.skew_secs,
            bad_offer: arrival.bad_offer,
            sdp: false,
            accepted_us: None,
            ended_by_them: false,
            tries_to_end: 0,
            accept_sent: None,
            reject_sent: None,
        });
        if let Some(us) = arrival.patience_us {
            self.after(us, Event::HangsUp(ix));
        }
        self.after(WINDOW, Event::WindowOver(ix));
        self.post(ix, EventKind::Connect);
        Ok(())
    }

    pub fn user_hangs_up(&mut self, ix: CallIx) -> StepResult {
        if !matches!(self.meta.calls[ix].phase, Phase::Unmade | Phase::Ended) {
            self.note(format_args!("user {ix} hangs up"));
            self.ends(ix, true);
        }
        Ok(())
    }

    pub fn window_over(&mut self, ix: CallIx) -> StepResult {
        if self.meta.calls[ix].phase == Phase::Ringing {
            self.note(format_args!("Meta: nobody picked up call {ix}"));
            self.ends(ix, true);
        }
        Ok(())
    }

    pub fn user_presses(&mut self, ix: CallIx) -> StepResult {
        let key = self.rng.pick(&['1', '2', '9', '#', '*']);
        let digit = Digit::try_from(key).expect("a key");
        self.leg_input(ix, Input::Digit { leg: Leg::A, digit });
        Ok(())
    }

    /// Ends the call at Meta. The node learns it by webhook and from the media.
    pub fn ends(&mut self, ix: CallIx, by_them: bool) {
        let call = &mut self.meta.calls[ix];
        call.phase = Phase::Ended;
        call.ended_by_them = by_them;
        self.post(ix, EventKind::Terminate);
        if !self.rng.chance(self.faults.no_dtls_close) {
            let us = self.rng.between(0, 300) * MS;
            self.after(us, Event::MediaLost(ix));
        }
        // The media timeout, which fires even if every other signal is lost.
        self.after(30 * SECOND, Event::MediaLost(ix));
    }

    pub fn media_up(&mut self, ix: CallIx) -> StepResult {
        if self.meta.calls[ix].phase != Phase::Ended {
            self.leg_input(ix, Input::Media { leg: Leg::A, event: MediaEvent::Connected });
            if self.meta.calls[ix].phase == Phase::Accepted {
                self.after(500 * MS, Event::AudioArrives(ix));
            }
        }
        Ok(())
    }

    pub fn media_lost(&mut self, ix: CallIx) -> StepResult {
        let ended = self.meta.calls[ix].phase == Phase::Ended;
        let fault =
            if ended && self.rng.chance(700) { MediaFault::DtlsClosed } else { MediaFault::Silent };
        self.leg_input(ix, Input::Media { leg: Leg::A, event: MediaEvent::Lost { fault } });
        Ok(())
    }

    /// Both sides know the SDP, so the media path is established or fails.
    pub fn has_sdp(&mut self, ix: CallIx) {
        if std::mem::replace(&mut self.meta.calls[ix].sdp, true)
            || self.rng.chance(self.faults.media_never)
        {
            return;
        }
        let late = self.rng.chance(self.faults.media_late);
        let us = self.rng.between(30, if late { 20_000 } else { 400 }) * MS;
        self.after(us, Event::MediaUp(ix));
        if self.rng.chance(self.faults.media_lost) {
            let us = us + self.rng.between(0, 20_000) * MS;
            self.after(us, Event::MediaLost(ix));
        }
    }

    // --- webhooks ---

    fn item(&self, ix: CallIx, event_kind: EventKind, named: bool, bad: bool) -> String {
        let call = &self.meta.calls[ix];
        let (number, wacid, wall) =
            (number(call.number), &call.key.wacid, self.clock.steady().secs());
        let (from, to, direction, opaque) = match &call.placed {
            None => ((919_412_340_000 + ix).to_string(), number, "USER_INITIATED", String::new()),
            Some(placed) => {
                let opaque = format!(r#","biz_opaque_callback_data":"oh1.{}.node""#, placed.call);
                let opaque = if named { opaque } else { String::new() };
                (number, user(placed.user), "BUSINESS_INITIATED", opaque)
            }
        };
        match event_kind {
            EventKind::Connect => {
                let (sdp_type, sdp) =
                    if call.placed.is_some() { ("answer", answer()) } else { ("offer", offer()) };
                let (sdp, timestamp) = (if bad { "\"v=0\"" } else { sdp }, call.timestamp);
                format!(
                    r#"{{"id":"{wacid}","from":"{from}","to":"{to}","event":"connect","timestamp":"{timestamp}","direction":"{direction}","session":{{"sdp_type":"{sdp_type}","sdp":{sdp}}}{opaque}}}"#
                )
            }
            EventKind::Terminate => {
                let status = if call.accepted_us.is_some() { "COMPLETED" } else { "FAILED" };
                let duration = call.accepted_us.map_or(0, |at| (self.now - at) / SECOND);
                format!(
                    r#"{{"id":"{wacid}","from":"{from}","to":"{to}","event":"terminate","direction":"{direction}","timestamp":"{wall}","status":"{status}","duration":{duration}{opaque}}}"#
                )
            }
            EventKind::Ringing | EventKind::Accepted | EventKind::Rejected => {
                let word = event_kind.word();
                format!(
                    r#"{{"id":"{wacid}","timestamp":"{wall}","type":"call","status":"{word}","recipient_id":"{to}"{opaque}}}"#
                )
            }
        }
    }

    pub fn post(&mut self, ix: CallIx, event_kind: EventKind) {
        if self.rng.chance(self.faults.loss) {
            self.note(format_args!("Meta loses the {} of call {ix}", event_kind.word()));
            return;
        }
        let placed = self.meta.calls[ix].placed.is_some();
        let named = placed && !self.rng.chance(self.faults.unnamed);
        let bad = match placed {
            false => self.meta.calls[ix].bad_offer,
            true => event_kind == EventKind::Connect && self.rng.chance(self.faults.bad_answer),
        };
        let mut items = self.item(ix, event_kind, named, bad);
        // Unreadable items before and after must not affect this one.
        if self.rng.chance(self.faults.batch) {
            items = format!(
                r#"{{"event":"connect","id":7.5}},{items},{{"id":[],"event":"terminate"}}"#
            );
        }
        let (id, display) =
            (&self.meta.calls[ix].key.phone_number_id, number(self.meta.calls[ix].number));
        let list = if matches!(event_kind, EventKind::Connect | EventKind::Terminate) {
            "calls"
        } else {
            "statuses"
        };
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1029384756","changes":[{{"field":"calls","value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"{display}","phone_number_id":"{id}"}},"{list}":[{items}]}}}}]}}]}}"#
        );
        let post = self.meta.posts.len();
        self.meta.posts.push(Post { body, event_kind, named, call: ix });
        let mut copies = 1;
        while copies < 5 && self.rng.chance(self.faults.copies) {
            copies += 1;
        }
        for copy in 0..copies {
            let base = match event_kind {
                EventKind::Connect if !placed => 5 * MS,
                _ => self.rng.between(if placed { 5 } else { 50 }, 500) * MS,
            };
            let us = match copy {
                0 if self.rng.chance(self.faults.delay) => self.rng.between(0, 30_000) * MS,
                0 => base,
                _ if self.rng.chance(400) => base,
                _ => base + self.rng.between(0, 70_000) * MS,
            };
            self.meta.undelivered += 1;
            self.after(us, Event::Posted { post, tries: 0 });
        }
    }

    pub fn webhook_arrives(&mut self, post: usize, tries: u32) -> StepResult {
        let Post { body, event_kind, named, call } = &self.meta.posts[post];
        let (body, event_kind, named, call) = (body.clone(), *event_kind, *named, *call);
        let answered = match &self.node {
            Some(node) if node.is_ready => self.webhook(&body, event_kind, named, call),
            _ => Ok(false),
        };
        let taken = answered.unwrap_or(false) && !self.rng.chance(self.faults.answer_lost);
        if taken {
            self.meta.undelivered -= 1;
        } else {
            // Meta resends with a pause of 1, 2, 4, … s.
            let pause = (SECOND << tries.min(5)) + if answered.is_ok() { 0 } else { PATIENCE };
            self.after(pause, Event::Posted { post, tries: tries + 1 });
        }
        answered.map(|_| ())
    }

    /// Notes the effect of an item.
    pub fn item_done(&mut self, ix: CallIx, event_kind: EventKind, named: bool, effect: Effect) {
        let (what, named) = (event_kind.word(), if named { ", named" } else { "" });
        self.note(format_args!("webhook: {what} of call {ix}{named}: {effect:?}"));
    }

    // --- Graph ---

    /// Processes a request at Graph, even if its sender was killed.
    pub fn graph_arrives(
        &mut self,
        life: u32,
        request: usize,
        attempt: u32,
        fault: GraphFault,
    ) -> StepResult {
        let Some((ix, action)) = self.watch.request(life, request) else { return Ok(()) };
        let reply = match fault {
            GraphFault::Status(status) => {
                Reply { status, after: None, body: "<html>no</html>".into() }
            }
            GraphFault::Refused => {
                let body = r#"{"error":{"message":"(#138000) Calling not enabled","code":138000}}"#;
                Reply { status: 401, after: None, body: body.into() }
            }
            GraphFault::Rate { after } => {
                let body = r#"{"error":{"message":"(#80007) Rate limit issues","code":80007,"is_transient":true}}"#;
                Reply { status: 429, after, body: body.into() }
            }
            GraphFault::Silent { done: false } => return Ok(()),
            GraphFault::DoneAnd503 => {
                self.perform(ix, action);
                Reply { status: 503, after: None, body: "".into() }
            }
            GraphFault::None
            | GraphFault::Nonsense
            | GraphFault::ResetAfter
            | GraphFault::Silent { done: true } => {
                let reply = self.perform(ix, action);
                if fault == GraphFault::Nonsense {
                    let body = self.rng.pick(&[
                        "",
                        "{\"success\":tr",
                        "[]",
                        "{\"error\":{\"code\":131000,\"message\":\"\"}}",
                    ]);
                    Reply { status: 200, after: None, body: body.into() }
                } else {
                    reply
                }
            }
        };
        let slow = self.rng.chance(self.faults.graph_slow);
        let us = self.rng.between(5, if slow { 7_000 } else { 60 }) * MS;
        let came = match fault {
            GraphFault::Silent { .. } => return Ok(()),
            GraphFault::ResetAfter => AttemptResult::Fault(engine::meta::Fault::Broken),
            _ => AttemptResult::Answer(reply),
        };
        self.after(us, Event::GraphCame { life, request, attempt, came });
        Ok(())
    }

    fn perform(&mut self, ix: CallIx, action: GraphAction) -> Reply {
        let phase = self.meta.calls[ix].phase;
        let reply = match (action, phase) {
            (GraphAction::Connect, _) => self.create_call(ix),
            (_, Phase::Unmade | Phase::Ended) => GONE,
            (GraphAction::PreAccept, Phase::Ringing) => {
                self.has_sdp(ix);
                DONE
            }
            (GraphAction::Accept, Phase::Ringing) => {
                self.meta.calls[ix].phase = Phase::Accepted;
                self.meta.calls[ix].accepted_us = Some(self.now);
                self.has_sdp(ix);
                self.presses_keys(ix);
                DONE
            }
            (GraphAction::Accept, Phase::Accepted) if self.plan.accept_once => ACCEPTED,
            (GraphAction::PreAccept | GraphAction::Accept, Phase::Accepted) => DONE,
            (GraphAction::Reject, Phase::Accepted) => GONE,
            (GraphAction::Reject | GraphAction::Terminate, _) => {
                self.ends(ix, false);
                DONE
            }
        };
        self.note(format_args!(
            "Graph: {} of call {ix}, which is {phase:?}: {}",
            action.as_str(),
            reply.status
        ));
        reply
    }

    pub fn presses_keys(&mut self, ix: CallIx) {
        let mut us = self.rng.between(0, 3_000) * MS;
        for _ in 0..10 {
            if !self.rng.chance(self.faults.keys) {
                break;
            }
            self.after(us, Event::Presses(ix));
            us += self.rng.pick(&[0, 120 * MS, 900 * MS, 4 * SECOND]);
        }
    }

    pub fn hang_up_over_api(&mut self, call: model::CallUuid) -> StepResult {
        if self
            .node
            .as_ref()
            .is_some_and(|node| node.calls.get(&call).is_some_and(|call| !call.is_closing()))
        {
            self.note(format_args!("API: hang up {call}"));
            self.tell(call, Input::Command { command: Command::Hangup });
        }
        Ok(())
    }
}

impl EventKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ringing => "RINGING",
            Self::Accepted => "ACCEPTED",
            Self::Rejected => "REJECTED",
            Self::Terminate => "terminate",
        }
    }
}
