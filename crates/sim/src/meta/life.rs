//! One call's life at the simulated Meta: from the connect webhook to the terminate webhook (`meta-calling.md` §7.1,
//! §8), together with what the user does meanwhile. A task a call; Graph requests come in as messages. How it
//! ends stands in `end`.

mod end;

pub(crate) mod outgoing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::answer;
use super::body::{self, CallFacts};
use super::graph::{Action, GraphFault};
use super::offer::{OfferSpec, offer};
use super::webhook::{Door, Parcel};
use crate::World;
use crate::caller::{
    CallEvent, CallScript, Ended, HangupRule, Happened, HungUpBy, KeyStep, KeysStart, PhoneKind,
};
use crate::faults::{self, CallFaults, Hook, HookDeed};
use crate::follow::{self, NodeTold};
use crate::log::Logged;
use crate::media::ear::{Hearing, LegStats};
use crate::media::mouth::Mouth;
use crate::media::peer::MetaSide;
use crate::media::{LegId, LegPlan, LegTold, Relay};
use media::opus::silence_frame;

/// Messages that may wait for a call.
pub(crate) const MAILBOX: usize = 256;
/// How often the phone looks whether all is quiet.
const LOOK: Duration = Duration::from_millis(100);

/// A message to a call.
#[derive(Debug)]
pub(crate) enum CallMsg {
    Graph(GraphAsk),
    /// The user hangs up.
    Hangup,
    Press(Vec<KeyStep>),
    Leg(LegTold),
    Node(NodeTold),
    /// A webhook was answered with this status; 0: no answer.
    Delivered {
        kind: &'static str,
        status: u16,
    },
}

/// A Graph request for this call; the reply is its answer.
#[derive(Debug)]
pub(crate) struct GraphAsk {
    pub(crate) action: Action,
    pub(crate) sdp: Option<String>,
    pub(crate) opaque: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<(), GraphFault>>,
}

/// A call's mailbox and the reader of its events, made before the call.
pub(crate) struct Wiring {
    pub(crate) own: mpsc::Sender<CallMsg>,
    pub(crate) mailbox: mpsc::Receiver<CallMsg>,
    pub(crate) events: mpsc::Sender<CallEvent>,
    /// It came with a storm, and brings none.
    pub(crate) of_storm: bool,
}

/// When and how it was picked up.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    at: Instant,
    wall_secs: i64,
}

/// One call.
pub(crate) struct Life {
    world: Arc<World>,
    script: CallScript,
    door: Door,
    /// What goes wrong in this call on purpose.
    faults: Arc<CallFaults>,
    /// A webhook that waits for the terminate to be taken (H2).
    held: Option<Parcel>,
    /// Meta's side falls silent without a word: its terminate was lost (H3).
    mute_end: bool,
    /// What is still to happen before a call of the business is answered.
    schedule: Option<outgoing::Schedule>,
    /// The user's phone rang because the business called.
    rang: bool,
    /// A browser's end that speaks and hears instead of the script.
    browser: Option<LegId>,
    facts: CallFacts,
    spec: OfferSpec,
    offer: String,
    relay: Relay,
    own: mpsc::Sender<CallMsg>,
    events: mpsc::Sender<CallEvent>,
    started: Instant,
    /// The answer that pre_accept (or accept) brought, and the leg made from it; a deaf phone has none.
    taken: Option<(String, Option<LegId>)>,
    accepted: Option<Accepted>,
    opaque: Option<String>,
    media_up: Option<Instant>,
    keys_given: bool,
    last_key: Option<Instant>,
    stats: Arc<LegStats>,
    call_uuid: Option<String>,
    node_cause: Option<String>,
    node_done: bool,
    terminate_taken: bool,
}

/// Runs a call to its end. Its last event is `ended`.
pub(crate) async fn run(
    world: Arc<World>,
    script: CallScript,
    browser: Option<LegId>,
    wiring: Wiring,
) {
    let Wiring { own, mut mailbox, events, of_storm } = wiring;
    let started = script.due.unwrap_or_else(|| world.clock.now());
    let first = |what| CallEvent::new(Duration::ZERO, what);
    let fail = |cause: String| first(Happened::Ended(Ended { cause, ..Ended::default() }));
    let Some(door) = world.door(&script) else {
        let _ =
            events.send(fail("no_node: the simulator was not told where the node is".into())).await;
        return;
    };
    if let Err(why) = world.webhooks.verify(&door).await {
        let _ = events.send(fail(format!("webhook_not_verified: {why}"))).await;
        return;
    }
    let _ = events.try_send(first(Happened::Verified));
    if !world.settings.can_be_called(&script.to.phone_number_id) {
        let _ = events.send(fail("calling_disabled: the number's settings say so".into())).await;
        return;
    }
    let relay = match world.relay_for_call(browser.is_some()) {
        Ok(relay) => relay,
        Err(why) => {
            let _ = events.send(fail(format!("no_media_port: {why}"))).await;
            return;
        }
    };
    let faults = Arc::new(world.faults.call(&script.to.number, &script.from));
    let life = Life::new(world, script, door, browser, relay, own, events, started, faults);
    if let Some(storm) = life.faults.storm().filter(|_| !of_storm) {
        super::storm::begin(
            &life.world,
            &life.script,
            storm,
            life.faults.clone(),
            life.facts.call_id.clone(),
        );
    }
    life.live(&mut mailbox).await;
}

impl Life {
    #[allow(clippy::too_many_arguments, reason = "two callers, each with all of them at hand")]
    fn new(
        world: Arc<World>,
        script: CallScript,
        door: Door,
        browser: Option<LegId>,
        relay: Relay,
        own: mpsc::Sender<CallMsg>,
        events: mpsc::Sender<CallEvent>,
        started: Instant,
        faults: Arc<CallFaults>,
    ) -> Self {
        let dice = &world.dice;
        let spec = OfferSpec {
            session: dice.number() >> 2,
            ufrag: dice.text(16),
            pwd: dice.text(32),
            fingerprint: relay.identity.fingerprint.clone(),
            ssrc: dice.number32().max(1),
            cname: dice.text(16),
            stream: dice.uuid().to_string(),
            track: dice.uuid().to_string(),
            foundation: dice.number32() >> 1,
            relay: if script.phone == PhoneKind::Deaf { world.nobody_addr() } else { relay.addr() },
            dtls_active: script.dtls_active,
        };
        let facts = CallFacts {
            call_id: faults
                .call_id()
                .unwrap_or_else(|| wacid(&script.from, &script.to.number, &dice.bytes::<16>())),
            number: script.to.clone(),
            by_business: false,
            user: script.from.clone(),
            user_name: script.name.clone(),
            cta_payload: script.cta_payload.clone(),
            deeplink_payload: script.deeplink_payload.clone(),
        };
        let wrong = faults.offer();
        for fault in &wrong {
            let details = format!("offer: {fault:?}");
            world.log.add(Logged::Fault { call_id: facts.call_id.clone(), details });
        }
        let offer = wrong.into_iter().fold(offer(&spec), |offer, fault| fault.apply(&offer));
        Self {
            world,
            script,
            door,
            faults,
            held: None,
            mute_end: false,
            schedule: None,
            rang: false,
            browser,
            facts,
            spec,
            offer,
            relay,
            own,
            events,
            started,
            taken: None,
            accepted: None,
            opaque: None,
            media_up: None,
            keys_given: false,
            last_key: None,
            stats: Arc::default(),
            call_uuid: None,
            node_cause: None,
            node_done: false,
            terminate_taken: false,
        }
    }

    async fn live(mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        self.world.learn_number(&self.script.to);
        self.world.add_call(&self.facts, self.own.clone(), self.faults.clone());
        self.tell(Happened::Placed {
            call_id: self.facts.call_id.clone(),
            phone_number_id: self.facts.number.phone_number_id.clone(),
            from: self.facts.user.clone(),
            to: self.facts.number.number.clone(),
        });
        let now = self.world.clock.wall().secs();
        self.world.chat.hears(&self.facts.number.phone_number_id, &self.facts.user, now);
        let connect = body::connect(&self.facts, now, &self.offer);
        self.deliver(Hook::Connect, connect, Duration::ZERO);
        self.go_on(mailbox).await;
    }

    /// Lives the call to its end.
    async fn go_on(mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        let by = loop {
            let pause = self.next_look().saturating_duration_since(self.world.clock.now());
            let over = tokio::select! {
                message = mailbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => Some(HungUpBy::Caller),
                },
                () = tokio::time::sleep(pause) => match self.keep_schedule().await {
                    None => self.look(),
                    over => over,
                },
                () = self.world.stop.cancelled() => Some(HungUpBy::Caller),
            };
            if let Some(by) = over {
                break by;
            }
        };
        self.end(by, mailbox).await;
    }

    /// Takes one message; gives who ended the call, if it did.
    async fn take(&mut self, message: CallMsg) -> Option<HungUpBy> {
        match message {
            CallMsg::Graph(ask) => return self.asked(ask).await,
            CallMsg::Hangup => return Some(HungUpBy::Caller),
            CallMsg::Press(keys) => self.press(keys).await,
            CallMsg::Leg(told) => self.leg_told(told).await,
            CallMsg::Node(told) => self.node_told(told),
            CallMsg::Delivered { kind, status } => self.delivered(kind, status),
        }
        None
    }

    async fn asked(&mut self, ask: GraphAsk) -> Option<HungUpBy> {
        let GraphAsk { action, sdp, opaque, reply } = ask;
        if self.facts.by_business && action != Action::Terminate {
            let why = format!("{} is not for a call that the business placed", action.as_str());
            let _ = reply.send(Err(GraphFault::parameter(why)));
            return None;
        }
        if action == Action::Accept && self.script.hangup == HangupRule::BeforeAcceptAnswer {
            let _ = reply.send(Err(GraphFault::no_call()));
            return Some(HungUpBy::Caller);
        }
        let outcome = match action {
            Action::PreAccept => self.take_answer(sdp.unwrap_or_default()).await.map(|first| {
                if first {
                    self.tell(Happened::Ringing);
                }
                None
            }),
            Action::Accept => self.accept(sdp.unwrap_or_default(), opaque).await,
            Action::Reject if self.accepted.is_some() => {
                Err(GraphFault::parameter("The call is accepted: use terminate"))
            }
            Action::Reject => Ok(Some(HungUpBy::Rejected)),
            Action::Terminate => Ok(Some(HungUpBy::Business)),
            Action::Connect => Err(GraphFault::parameter("connect names no call")),
        };
        let (answer, over) = match outcome {
            Ok(over) => (Ok(()), over),
            Err(fault) => {
                self.tell(Happened::Refused {
                    action: action.as_str().into(),
                    details: fault.details.clone(),
                });
                (Err(fault), None)
            }
        };
        let _ = reply.send(answer);
        over
    }

    async fn accept(
        &mut self,
        sdp: String,
        opaque: Option<String>,
    ) -> Result<Option<HungUpBy>, GraphFault> {
        self.take_answer(sdp).await?;
        if self.accepted.is_some() {
            return Ok(None); // the same accept again (M8)
        }
        self.accepted = Some(Accepted {
            at: self.world.clock.now(),
            wall_secs: self.world.clock.wall().secs(),
        });
        if let Some(leg) = self.leg() {
            self.relay.accepted(leg).await;
        }
        self.tell(Happened::Answered);
        self.follow(opaque);
        self.start_keys(KeysStart::Answered).await;
        Ok((self.script.hangup == HangupRule::AfterAcceptAnswer).then_some(HungUpBy::Caller))
    }

    /// The SDP answer of pre_accept or accept: checked and put to use once, the same again is taken (M7, M8).
    /// True the first time.
    async fn take_answer(&mut self, sdp: String) -> Result<bool, GraphFault> {
        if let Some((taken, _)) = &self.taken {
            return if *taken == sdp {
                Ok(false)
            } else {
                Err(GraphFault::parameter("session.sdp differs from the one of pre_accept"))
            };
        }
        let checked = answer::check(&self.offer, &sdp)
            .map_err(|f| GraphFault { subcode: f.subcode, ..GraphFault::parameter(f.details) })?;
        let side = MetaSide {
            ufrag: self.spec.ufrag.clone(),
            pwd: self.spec.pwd.clone(),
            ssrc: self.spec.ssrc,
            opus_pt: checked.opus_pt,
            digit_pt: checked.digit_pt,
            dtls_active: !checked.business_active,
            remote_ufrag: checked.ufrag,
            remote_pwd: checked.pwd,
            remote_fingerprint: checked.fingerprint,
        };
        let leg = self.open_leg(side).await?;
        self.taken = Some((sdp, leg));
        Ok(true)
    }

    /// Makes Meta's side of the media; a deaf phone has none.
    async fn open_leg(&mut self, side: MetaSide) -> Result<Option<LegId>, GraphFault> {
        if self.script.phone == PhoneKind::Deaf {
            return Ok(None);
        }
        let own = self.own.clone();
        let media = self.faults.media();
        media.iter().for_each(|fault| self.log_fault(format!("media: {fault:?}")));
        let plan = LegPlan {
            side,
            call_id: self.facts.call_id.clone(),
            mouth: self.mouth(),
            hearing: match self.script.phone {
                PhoneKind::Whole => Hearing::Decoding { record: self.script.record },
                PhoneKind::Counting | PhoneKind::Deaf => Hearing::Counting,
            },
            net: faults::net::Net::of(media, || self.faults.seed()),
            stats: self.stats.clone(),
            started: self.started,
            sink: Box::new(move |told| {
                let _ = own.try_send(CallMsg::Leg(told));
            }),
        };
        let leg =
            self.relay.open_meta(plan).await.map_err(|e| GraphFault::parameter(e.to_string()))?;
        if let Some(browser) = self.browser {
            self.relay.bridge(leg, browser).await;
        }
        Ok(Some(leg))
    }

    fn leg(&self) -> Option<LegId> {
        self.taken.as_ref()?.1
    }

    fn mouth(&self) -> Mouth {
        let silence = self.browser.is_none().then(silence_frame);
        let start = self.world.dice.number32() >> 1;
        Mouth::new(self.script.say.clone(), silence, self.script.own_digit_clock, start)
    }

    async fn press(&mut self, keys: Vec<KeyStep>) {
        if let Some(leg) = self.leg() {
            self.last_key = Some(self.world.clock.now());
            self.relay.press(leg, keys).await;
        }
    }

    /// Gives the script's keys to the phone, if this is what they wait for.
    async fn start_keys(&mut self, when: KeysStart) {
        let ready =
            self.accepted.is_some() && self.media_up.is_some() && self.script.keys_start == when;
        if ready && !std::mem::replace(&mut self.keys_given, true) {
            let keys = std::mem::take(&mut self.script.keys);
            if !keys.is_empty() {
                self.press(keys).await;
            }
        }
    }

    async fn leg_told(&mut self, told: LegTold) {
        match told {
            LegTold::Up => {
                self.media_up = Some(self.world.clock.now());
                self.tell(Happened::MediaUp);
                self.start_keys(KeysStart::Answered).await;
            }
            // A goodbye in the media is no hangup: Graph's terminate is (§5.3).
            LegTold::Closed => self.log_media("the business closed the media path".into()),
            LegTold::Gone(reason) => {
                self.log_media(format!("the media path failed: {reason}"));
                self.tell(Happened::MediaFailed { reason });
            }
            LegTold::FirstAudio => {
                self.tell(Happened::FirstAudio);
                self.start_keys(KeysStart::FirstAudio).await;
            }
            LegTold::KeySent(digit) => {
                self.last_key = Some(self.world.clock.now());
                self.tell(Happened::DigitSent { digit });
            }
            LegTold::KeyHeard(digit) => self.tell(Happened::DigitHeard { digit }),
        }
    }

    fn log_fault(&self, details: String) {
        self.world.log.add(Logged::Fault { call_id: self.facts.call_id.clone(), details });
    }

    fn log_media(&self, details: String) {
        self.world.log.add(Logged::Media { call_id: self.facts.call_id.clone(), details });
    }

    fn node_told(&mut self, told: NodeTold) {
        match told {
            NodeTold::Instruction { element, line, outcome, note } => {
                self.tell(Happened::Instruction { element, line, outcome, note });
            }
            NodeTold::Concluded { cause } => {
                self.node_cause = Some(cause);
                self.node_done = true;
            }
            NodeTold::Over => self.node_done = true,
        }
    }

    fn delivered(&mut self, kind: &'static str, status: u16) {
        self.terminate_taken |= kind == Hook::Terminate.as_str() && (200..300).contains(&status);
        if self.terminate_taken
            && let Some(parcel) = self.held.take()
        {
            self.world.webhooks.deliver(&self.door, parcel, Duration::ZERO, |_| {});
        }
        self.tell(Happened::Webhook { kind: kind.into(), status });
    }

    /// Reads the node's event log from now on, if `accept` said which call this is there.
    fn follow(&mut self, opaque: Option<String>) {
        self.opaque = opaque;
        let uuid = self.opaque.as_deref().and_then(follow::call_uuid_of);
        let Some(uuid) = uuid else { return };
        self.call_uuid = Some(uuid.clone());
        if self.script.phone != PhoneKind::Whole {
            self.node_done = true;
            return;
        }
        let own = self.own.clone();
        let key = self.script.api_key.clone().unwrap_or_else(|| self.world.api_key.clone());
        follow::start(&self.world, self.door.node_url.clone(), uuid, key, own);
    }

    /// When to look at the clock again.
    fn next_look(&self) -> Instant {
        let planned = self.schedule.as_ref().and_then(outgoing::Schedule::next);
        let Some(accepted) = self.accepted else {
            if let Some(planned) = planned {
                return planned;
            }
            let window = self.started + self.world.times.accept_window;
            return match self.script.hangup {
                HangupRule::WhileRinging(after) | HangupRule::AfterPlaced(after) => {
                    window.min(self.started + after)
                }
                _ => window,
            };
        };
        let look = match self.script.hangup {
            HangupRule::AfterAnswer(after) => accepted.at + after,
            HangupRule::AfterPlaced(after) => self.started + after,
            HangupRule::WhenQuiet { .. } => self.world.clock.now() + LOOK,
            _ => accepted.at + Duration::from_secs(86_400),
        };
        planned.map_or(look, |planned| look.min(planned))
    }

    /// The time of [`Life::next_look`] has come.
    fn look(&self) -> Option<HungUpBy> {
        let now = self.world.clock.now();
        let Some(accepted) = self.accepted else {
            if let HangupRule::WhileRinging(after) | HangupRule::AfterPlaced(after) =
                self.script.hangup
                && now >= self.started + after
            {
                return Some(HungUpBy::Caller);
            }
            let window =
                self.schedule.is_none() && now >= self.started + self.world.times.accept_window;
            return window.then_some(HungUpBy::Meta);
        };
        let over = match self.script.hangup {
            HangupRule::AfterAnswer(after) => now >= accepted.at + after,
            HangupRule::AfterPlaced(after) => now >= self.started + after,
            HangupRule::WhenQuiet { silence, most } => {
                self.is_quiet(now, silence) || now >= self.busy_until() + most
            }
            _ => false,
        };
        over.then_some(HungUpBy::Caller)
    }

    /// The last moment at which the user did something.
    fn busy_until(&self) -> Instant {
        [self.accepted.map(|a| a.at), self.media_up, self.last_key]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(self.started)
    }

    fn is_quiet(&self, now: Instant, silence: Duration) -> bool {
        let loud_at = self.stats.loud_at_ms.load(Ordering::Relaxed);
        let said_at = self.stats.said_at_ms.load(Ordering::Relaxed);
        let keys_given = self.keys_given || self.script.keys.is_empty();
        let since =
            (self.started + Duration::from_millis(loud_at.max(said_at))).max(self.busy_until());
        keys_given && said_at > 0 && loud_at > 0 && now >= since + silence
    }

    /// Sends a webhook, with what the rules do to it.
    fn deliver(&mut self, hook: Hook, mut body: serde_json::Value, mut delay: Duration) {
        let (kind, call_id) = (hook.as_str(), self.facts.call_id.clone());
        let (mut copies, mut sign, mut swapped) = (Vec::new(), None, false);
        for deed in self.faults.webhook(hook) {
            self.log_fault(format!("{kind}: {}", deed.name()));
            match deed {
                HookDeed::Lose => {
                    self.mute_end |= hook == Hook::Terminate;
                    return;
                }
                HookDeed::Duplicate { copies: n, after } => copies.extend((0..n).map(|_| after)),
                HookDeed::Delay { least, most } => delay += self.faults.between(least, most),
                HookDeed::Swap => swapped = true,
                HookDeed::Sign(how) => sign = Some(how),
                HookDeed::Skew(seconds) => faults::body::skew(&mut body, seconds),
                HookDeed::Reshape(how) => how.apply(&mut body),
                HookDeed::Batch(batch) => {
                    batch.apply(&mut body, &self.world.dice.text(16), &self.world.number_ids());
                }
            }
        }
        let parcel = self.world.webhooks.parcel(&self.door, kind, &call_id, &body, sign.as_ref());
        for after in copies {
            self.world.webhooks.deliver(&self.door, parcel.clone(), delay + after, |_| {});
        }
        if swapped {
            self.held = Some(parcel);
            return;
        }
        let own = self.own.clone();
        self.world.webhooks.deliver(&self.door, parcel, delay, move |status| {
            let _ = own.try_send(CallMsg::Delivered { kind, status });
        });
    }

    fn tell(&self, what: Happened) {
        let _ = self.events.try_send(CallEvent::new(self.at(), what));
    }

    fn at(&self) -> Duration {
        self.world.clock.now().saturating_duration_since(self.started)
    }
}

/// Meta's call id: Base64 of both numbers around 32 hex digits, as in the fixtures.
fn wacid(from: &str, to: &str, random: &[u8; 16]) -> String {
    use base64::Engine as _;
    let mut bytes = vec![0x1c, 0x18];
    let text = |bytes: &mut Vec<u8>, t: &str| {
        bytes.push(u8::try_from(t.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(t.as_bytes());
    };
    text(&mut bytes, from);
    bytes.extend([0x15, 0x02, 0x00, 0x12, 0x18]);
    text(&mut bytes, &hex::encode_upper(random));
    bytes.extend([0x1c, 0x18]);
    text(&mut bytes, to);
    bytes.extend([0x15, 0x02, 0x00, 0x00]);
    format!("wacid.{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    #[test]
    fn m4_call_ids_look_like_metas() {
        let random = hex::decode("DBE9B15BA27D7D1E11805EC301161370")
            .expect("hex")
            .try_into()
            .expect("16 bytes");
        assert_eq!(
            super::wacid("919412341234", "918035737458", &random),
            "wacid.HBgMOTE5NDEyMzQxMjM0FQIAEhggREJFOUIxNUJBMjdEN0QxRTExODA1RUMzMDExNjEzNzAcGAw5MTgwMzU3Mzc0NTgVAgAA"
        );
    }
}
