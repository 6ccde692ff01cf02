//! The life of a call at the simulated Meta, from the connect webhook to the terminate webhook,
//! together with the user's behaviour. Each call is a task; Graph requests reach it as messages.
//! `end` holds its last phase, `outgoing` the beginning of business-initiated calls.

mod end;

pub(crate) mod outgoing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::action::Action;
use super::answer;
use super::body::{self, CallInfo};
use super::error::GraphError;
use super::offer::{OfferSpec, offer};
use super::webhook::{SignedWebhook, WebhookTarget};
use crate::World;
use crate::call_message::{CallMsg, GraphRequest, NodeEvent};
use crate::caller::{
    CallEvent, CallEventKind, CallOutcome, CallScript, HangupRule, HangupSource, KeysStart,
    PhoneKind,
};
use crate::event_log::{self, CallName, NodeClient};
use crate::faults::{self, CallFaults, WebhookFault, WebhookKind};
use crate::keys::KeyStep;
use crate::log::LogEvent;
use crate::media::peer::MetaLegParams;
use crate::media::receiver::{LegStats, ReceiveMode};
use crate::media::sender::AudioSender;
use crate::media::{LegConfig, LegEvent, LegId, Relay};
use media::opus::silence_frame;

/// Capacity of a call's mailbox.
pub(crate) const MAILBOX: usize = 256;
/// Interval between checks whether a call is quiet.
const QUIET_POLL: Duration = Duration::from_millis(100);

/// The channels of a call, created before its task.
pub(crate) struct CallChannels {
    pub(crate) mailbox_tx: mpsc::Sender<CallMsg>,
    pub(crate) mailbox: mpsc::Receiver<CallMsg>,
    pub(crate) events: mpsc::Sender<CallEvent>,
    /// Whether a `storm` fault places the call. Such a call does not trigger further storms.
    pub(crate) from_storm: bool,
}

/// When a call was answered.
#[derive(Clone, Copy, Debug)]
struct AnswerTime {
    at: Instant,
    wall_secs: i64,
}

/// A call.
pub(crate) struct Call {
    world: Arc<World>,
    script: CallScript,
    target: WebhookTarget,
    /// The faults of this call.
    faults: Arc<CallFaults>,
    /// The connect webhook while a `swap` fault holds it back.
    held_webhook: Option<SignedWebhook>,
    /// Whether a fault has suppressed the terminate webhook. The media then ends without RTCP BYE
    /// and close_notify.
    silent_end: bool,
    /// Remaining steps of a business-initiated call until it is answered.
    schedule: Option<outgoing::Schedule>,
    /// Whether the user's phone has rung in a business-initiated call.
    rang: bool,
    /// Leg of the browser phone that replaces the script's audio, if any.
    browser: Option<LegId>,
    info: CallInfo,
    spec: OfferSpec,
    offer: String,
    relay: Relay,
    mailbox_tx: mpsc::Sender<CallMsg>,
    events: mpsc::Sender<CallEvent>,
    started: Instant,
    /// SDP of the business and the leg opened from it. Signalling-only phones have no leg.
    business_sdp: Option<(String, Option<LegId>)>,
    accepted: Option<AnswerTime>,
    opaque: Option<String>,
    media_up: Option<Instant>,
    keys_started: bool,
    last_key: Option<Instant>,
    stats: Arc<LegStats>,
    call_uuid: Option<String>,
    /// Whether the node's event log of the call is being read.
    follows_log: bool,
    node_cause: Option<String>,
    node_done: bool,
    terminate_taken: bool,
}

/// Runs a user-initiated call to its end. The last event is `Ended`.
pub(crate) async fn run(
    world: Arc<World>,
    script: CallScript,
    browser: Option<LegId>,
    channels: CallChannels,
) {
    let CallChannels { mailbox_tx, mut mailbox, events, from_storm } = channels;
    let started = script.due.unwrap_or_else(|| world.clock.now());
    let first = |kind| CallEvent::new(Duration::ZERO, kind);
    let fail = |cause: String| {
        first(CallEventKind::Ended(CallOutcome { cause, ..CallOutcome::default() }))
    };
    let Some(target) = world.webhook_target(&script) else {
        let _ = events.send(fail("no_node: no node is configured".into())).await;
        return;
    };
    if let Err(message) = world.webhooks.verify(&target).await {
        let _ = events.send(fail(format!("webhook_not_verified: {message}"))).await;
        return;
    }
    let _ = events.try_send(first(CallEventKind::Verified));
    if !world.settings.is_calling_enabled(&script.to.phone_number_id) {
        let _ = events
            .send(fail("calling_disabled: calling is disabled in the number's settings".into()))
            .await;
        return;
    }
    let relay = match world.relay_for_call(browser.is_some()) {
        Ok(relay) => relay,
        Err(message) => {
            let _ = events.send(fail(format!("no_media_port: {message}"))).await;
            return;
        }
    };
    let faults = Arc::new(world.faults.call(&script.to.number, &script.from));
    let call =
        Call::new(world, script, target, browser, relay, mailbox_tx, events, started, faults);
    if let Some(storm) = call.faults.storm().filter(|_| !from_storm) {
        super::storm::start(
            &call.world,
            &call.script,
            storm,
            call.faults.clone(),
            call.info.call_id.clone(),
        );
    }
    call.run_user_initiated(&mut mailbox).await;
}

impl Call {
    #[allow(clippy::too_many_arguments, reason = "two callers, each with all of them at hand")]
    fn new(
        world: Arc<World>,
        script: CallScript,
        target: WebhookTarget,
        browser: Option<LegId>,
        relay: Relay,
        mailbox_tx: mpsc::Sender<CallMsg>,
        events: mpsc::Sender<CallEvent>,
        started: Instant,
        faults: Arc<CallFaults>,
    ) -> Self {
        let rng = &world.rng;
        let spec = OfferSpec {
            session: rng.next_u64() >> 2,
            ufrag: rng.text(16),
            pwd: rng.text(32),
            fingerprint: relay.identity.fingerprint.clone(),
            ssrc: rng.next_u32().max(1),
            cname: rng.text(16),
            stream: rng.uuid().to_string(),
            track: rng.uuid().to_string(),
            foundation: rng.next_u32() >> 1,
            relay: if script.phone == PhoneKind::SignallingOnly {
                world.blackhole_addr()
            } else {
                relay.addr()
            },
            dtls_active: script.dtls_active,
        };
        let info = CallInfo {
            call_id: faults
                .call_id()
                .unwrap_or_else(|| wacid(&script.from, &script.to.number, &rng.bytes::<16>())),
            number: script.to.clone(),
            business_initiated: false,
            user: script.from.clone(),
            user_name: script.name.clone(),
            cta_payload: script.cta_payload.clone(),
            deeplink_payload: script.deeplink_payload.clone(),
        };
        let offer_faults = faults.offer();
        for fault in &offer_faults {
            let details = format!("offer: {fault:?}");
            world.log.add(LogEvent::Fault { call_id: info.call_id.clone(), details });
        }
        let offer = offer_faults.into_iter().fold(offer(&spec), |offer, fault| fault.apply(&offer));
        let stats = LegStats { arrivals: script.arrivals.clone(), ..LegStats::default() };
        Self {
            world,
            script,
            target,
            faults,
            held_webhook: None,
            silent_end: false,
            schedule: None,
            rang: false,
            browser,
            info,
            spec,
            offer,
            relay,
            mailbox_tx,
            events,
            started,
            business_sdp: None,
            accepted: None,
            opaque: None,
            media_up: None,
            keys_started: false,
            last_key: None,
            stats: Arc::new(stats),
            call_uuid: None,
            follows_log: false,
            node_cause: None,
            node_done: false,
            terminate_taken: false,
        }
    }

    async fn run_user_initiated(mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        self.world.add_number(&self.script.to);
        self.world.add_call(&self.info, self.mailbox_tx.clone(), self.faults.clone());
        self.emit(CallEventKind::Placed {
            call_id: self.info.call_id.clone(),
            phone_number_id: self.info.number.phone_number_id.clone(),
            from: self.info.user.clone(),
            to: self.info.number.number.clone(),
        });
        let now = self.world.clock.wall().secs();
        self.world.chat.open_window(&self.info.number.phone_number_id, &self.info.user, now);
        let connect = body::connect(&self.info, now, &self.offer);
        self.deliver(WebhookKind::Connect, connect, Duration::ZERO);
        self.run_to_end(mailbox).await;
    }

    /// Runs the call until one side ends it, and then its last phase.
    async fn run_to_end(mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        let by = loop {
            let pause = self.next_deadline().saturating_duration_since(self.world.clock.now());
            let over = tokio::select! {
                message = mailbox.recv() => match message {
                    Some(message) => self.handle_message(message).await,
                    None => Some(HangupSource::Caller),
                },
                () = tokio::time::sleep(pause) => match self.run_schedule().await {
                    None => self.check_timers(),
                    over => over,
                },
                () = self.world.stop.cancelled() => Some(HangupSource::Caller),
            };
            if let Some(by) = over {
                break by;
            }
        };
        self.end(by, mailbox).await;
    }

    /// Handles a message. Returns who ended the call, if it has ended.
    async fn handle_message(&mut self, message: CallMsg) -> Option<HangupSource> {
        match message {
            CallMsg::Graph(request) => return self.on_graph_request(request).await,
            CallMsg::Hangup => return Some(HangupSource::Caller),
            CallMsg::Press(keys) => self.press(keys).await,
            CallMsg::Leg(event) => self.on_leg_event(event).await,
            CallMsg::Node(event) => self.on_node_event(event),
            CallMsg::Delivered { kind, status } => self.on_delivery(kind, status),
        }
        None
    }

    async fn on_graph_request(&mut self, request: GraphRequest) -> Option<HangupSource> {
        let GraphRequest { action, sdp, opaque, reply } = request;
        if self.info.business_initiated && action != Action::Terminate {
            let message =
                format!("{} is not allowed for a business-initiated call", action.as_str());
            let _ = reply.send(Err(GraphError::parameter(message)));
            return None;
        }
        if action == Action::Accept && self.script.hangup == HangupRule::BeforeAcceptAnswer {
            let _ = reply.send(Err(GraphError::no_call()));
            return Some(HangupSource::Caller);
        }
        let outcome = match action {
            Action::PreAccept => self.take_answer(sdp.unwrap_or_default()).await.map(|first| {
                if first {
                    self.emit(CallEventKind::Ringing);
                }
                None
            }),
            Action::Accept => self.accept(sdp.unwrap_or_default(), opaque).await,
            Action::Reject if self.accepted.is_some() => {
                Err(GraphError::parameter("The call is accepted: use terminate"))
            }
            Action::Reject => Ok(Some(HangupSource::Rejected)),
            Action::Terminate => Ok(Some(HangupSource::Business)),
            Action::Connect => Err(GraphError::parameter("connect must not have a call_id")),
        };
        let (answer, over) = match outcome {
            Ok(over) => (Ok(()), over),
            Err(error) => {
                self.emit(CallEventKind::Refused {
                    action: action.as_str().into(),
                    details: error.details.clone(),
                });
                (Err(error), None)
            }
        };
        let _ = reply.send(answer);
        over
    }

    async fn accept(
        &mut self,
        sdp: String,
        opaque: Option<String>,
    ) -> Result<Option<HangupSource>, GraphError> {
        self.take_answer(sdp).await?;
        if self.accepted.is_some() {
            return Ok(None); // the same `accept` again
        }
        self.accepted = Some(AnswerTime {
            at: self.world.clock.now(),
            wall_secs: self.world.clock.wall().secs(),
        });
        if let Some(leg) = self.leg() {
            self.relay.accept(leg).await;
        }
        self.emit(CallEventKind::Answered);
        self.follow(opaque);
        self.start_keys(KeysStart::Answered).await;
        Ok((self.script.hangup == HangupRule::AfterAcceptAnswer).then_some(HangupSource::Caller))
    }

    /// Applies the SDP answer of `pre_accept` or `accept`. Returns true the first time; the same
    /// SDP again is accepted, a different one refused.
    async fn take_answer(&mut self, sdp: String) -> Result<bool, GraphError> {
        if let Some((business_sdp, _)) = &self.business_sdp {
            return if *business_sdp == sdp {
                Ok(false)
            } else {
                Err(GraphError::parameter("session.sdp differs from that of pre_accept"))
            };
        }
        let checked = answer::parse_answer(&self.offer, &sdp)
            .map_err(|f| GraphError { subcode: f.subcode, ..GraphError::parameter(f.details) })?;
        let params = MetaLegParams {
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
        let leg = self.open_leg(params).await?;
        self.business_sdp = Some((sdp, leg));
        Ok(true)
    }

    /// Opens Meta's leg of the call, unless the phone is signalling-only.
    async fn open_leg(&mut self, params: MetaLegParams) -> Result<Option<LegId>, GraphError> {
        if self.script.phone == PhoneKind::SignallingOnly {
            return Ok(None);
        }
        let mailbox_tx = self.mailbox_tx.clone();
        let media = self.faults.media();
        media.iter().for_each(|fault| self.log_fault(format!("media: {fault:?}")));
        let config = LegConfig {
            params,
            call_id: self.info.call_id.clone(),
            sender: self.new_sender(),
            mode: match self.script.phone {
                PhoneKind::Full => ReceiveMode::Decode { record: self.script.record },
                PhoneKind::Counting | PhoneKind::SignallingOnly => ReceiveMode::Count,
            },
            net: faults::net::NetworkEmulator::from_faults(media, || self.faults.seed()),
            stats: self.stats.clone(),
            started: self.started,
            sink: Box::new(move |event| {
                let _ = mailbox_tx.try_send(CallMsg::Leg(event));
            }),
        };
        let leg =
            self.relay.open_meta(config).await.map_err(|e| GraphError::parameter(e.to_string()))?;
        if let Some(browser) = self.browser {
            self.relay.bridge(leg, browser).await;
        }
        Ok(Some(leg))
    }

    fn leg(&self) -> Option<LegId> {
        self.business_sdp.as_ref()?.1
    }

    fn new_sender(&self) -> AudioSender {
        let silence = self.browser.is_none().then(silence_frame);
        let start = self.world.rng.next_u32() >> 1;
        AudioSender::new(self.script.say.clone(), silence, self.script.own_digit_clock, start)
    }

    async fn press(&mut self, keys: Vec<KeyStep>) {
        if let Some(leg) = self.leg() {
            self.last_key = Some(self.world.clock.now());
            self.relay.press(leg, keys).await;
        }
    }

    /// Starts the script's keys if they wait for `when` and the call is answered and connected.
    async fn start_keys(&mut self, when: KeysStart) {
        let ready =
            self.accepted.is_some() && self.media_up.is_some() && self.script.keys_start == when;
        if ready && !std::mem::replace(&mut self.keys_started, true) {
            let keys = std::mem::take(&mut self.script.keys);
            if !keys.is_empty() {
                self.press(keys).await;
            }
        }
    }

    async fn on_leg_event(&mut self, event: LegEvent) {
        match event {
            LegEvent::Up => {
                self.media_up = Some(self.world.clock.now());
                self.emit(CallEventKind::MediaUp);
                self.start_keys(KeysStart::Answered).await;
            }
            // Only `terminate` ends a call. Closing the media does not.
            LegEvent::Closed => self.log_media("the business closed the media connection".into()),
            LegEvent::Failed(reason) => {
                self.log_media(format!("the media connection failed: {reason}"));
                self.emit(CallEventKind::MediaFailed { reason });
            }
            LegEvent::FirstAudio => {
                self.emit(CallEventKind::FirstAudio);
                self.start_keys(KeysStart::FirstAudio).await;
            }
            LegEvent::KeySent(digit) => {
                self.last_key = Some(self.world.clock.now());
                self.emit(CallEventKind::DigitSent { digit });
            }
            LegEvent::KeyReceived(digit) => self.emit(CallEventKind::DigitHeard { digit }),
        }
    }

    fn log_fault(&self, details: String) {
        self.world.log.add(LogEvent::Fault { call_id: self.info.call_id.clone(), details });
    }

    fn log_media(&self, details: String) {
        self.world.log.add(LogEvent::Media { call_id: self.info.call_id.clone(), details });
    }

    fn on_node_event(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Instruction { element, line, outcome, note } => {
                self.emit(CallEventKind::Instruction { element, line, outcome, note });
            }
            NodeEvent::Finding { rule, line, message } => {
                self.emit(CallEventKind::Finding { rule, line, message });
            }
            NodeEvent::Sound { text } => self.emit(CallEventKind::Sound { text }),
            NodeEvent::Concluded { cause } => {
                self.node_cause = Some(cause);
                self.node_done = true;
            }
            NodeEvent::Found { call_uuid } => {
                self.emit(CallEventKind::CallKnown { call_uuid: call_uuid.clone() });
                self.call_uuid = Some(call_uuid);
            }
            NodeEvent::LogRefused { status } => self.emit(CallEventKind::LogRefused { status }),
            NodeEvent::LogEnded => self.node_done = true,
        }
    }

    fn on_delivery(&mut self, kind: &'static str, status: u16) {
        self.terminate_taken |=
            kind == WebhookKind::Terminate.as_str() && (200..300).contains(&status);
        if self.terminate_taken
            && let Some(webhook) = self.held_webhook.take()
        {
            self.world.webhooks.deliver(&self.target, webhook, Duration::ZERO, |_| {});
        }
        self.emit(CallEventKind::Webhook { kind: kind.into(), status });
    }

    /// Follows the call in the node's event log, if the opaque data of `accept` names it.
    fn follow(&mut self, opaque: Option<String>) {
        self.opaque = opaque;
        let uuid = self.opaque.as_deref().and_then(event_log::call_uuid_of);
        let Some(uuid) = uuid else { return };
        self.call_uuid = Some(uuid.clone());
        self.follow_log(CallName::Uuid(uuid));
    }

    /// Follows the event log of a call that ended before `accept`, whose opaque data would have
    /// identified it.
    fn follow_unanswered(&mut self) {
        if self.call_uuid.is_none() && !self.info.business_initiated {
            self.follow_log(CallName::Meta {
                call_id: self.info.call_id.clone(),
                from: self.info.user.clone(),
            });
        }
    }

    fn follow_log(&mut self, name: CallName) {
        if self.script.phone != PhoneKind::Full {
            return;
        }
        self.follows_log = true;
        if let CallName::Uuid(call_uuid) = &name {
            self.emit(CallEventKind::CallKnown { call_uuid: call_uuid.clone() });
        }
        let node = NodeClient {
            base: self.target.node_url.clone(),
            api_key: self.script.api_key.clone().unwrap_or_else(|| self.world.api_key.clone()),
        };
        event_log::follow(&self.world, node, name, self.mailbox_tx.clone());
    }

    /// When [`Call::check_timers`] has to be called next.
    fn next_deadline(&self) -> Instant {
        let planned = self.schedule.as_ref().and_then(outgoing::Schedule::next_step_at);
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
        let deadline = match self.script.hangup {
            HangupRule::AfterAnswer(after) => accepted.at + after,
            HangupRule::AfterPlaced(after) => self.started + after,
            HangupRule::WhenQuiet { .. } => self.world.clock.now() + QUIET_POLL,
            _ => accepted.at + Duration::from_secs(86_400),
        };
        planned.map_or(deadline, |planned| deadline.min(planned))
    }

    /// Returns who ends the call if a timer has expired.
    fn check_timers(&self) -> Option<HangupSource> {
        let now = self.world.clock.now();
        let Some(accepted) = self.accepted else {
            if let HangupRule::WhileRinging(after) | HangupRule::AfterPlaced(after) =
                self.script.hangup
                && now >= self.started + after
            {
                return Some(HangupSource::Caller);
            }
            let window =
                self.schedule.is_none() && now >= self.started + self.world.times.accept_window;
            return window.then_some(HangupSource::Meta);
        };
        let over = match self.script.hangup {
            HangupRule::AfterAnswer(after) => now >= accepted.at + after,
            HangupRule::AfterPlaced(after) => now >= self.started + after,
            HangupRule::WhenQuiet { silence, most } => {
                self.is_quiet(now, silence) || now >= self.busy_until() + most
            }
            _ => false,
        };
        over.then_some(HangupSource::Caller)
    }

    /// Time of the user's last activity.
    fn busy_until(&self) -> Instant {
        [self.accepted.map(|a| a.at), self.media_up, self.last_key]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(self.started)
    }

    fn is_quiet(&self, now: Instant, silence: Duration) -> bool {
        let last_audio_at = self.stats.last_audio_at_ms.load(Ordering::Relaxed);
        let idle_since = self.stats.idle_since_ms.load(Ordering::Relaxed);
        let keys_started = self.keys_started || self.script.keys.is_empty();
        let since = (self.started + Duration::from_millis(last_audio_at.max(idle_since)))
            .max(self.busy_until());
        keys_started && idle_since > 0 && last_audio_at > 0 && now >= since + silence
    }

    /// Sends a webhook, subject to the faults of the call.
    fn deliver(&mut self, hook: WebhookKind, mut body: serde_json::Value, mut delay: Duration) {
        let (kind, call_id) = (hook.as_str(), self.info.call_id.clone());
        let (mut copies, mut signature, mut swap) = (Vec::new(), None, false);
        for fault in self.faults.webhook(hook) {
            self.log_fault(format!("{kind}: {}", fault.name()));
            match fault {
                WebhookFault::Lose => {
                    self.silent_end |= hook == WebhookKind::Terminate;
                    return;
                }
                WebhookFault::Duplicate { copies: n, after } => {
                    copies.extend((0..n).map(|_| after))
                }
                WebhookFault::Delay { min, max } => delay += self.faults.between(min, max),
                WebhookFault::Swap => swap = true,
                WebhookFault::Sign(fault) => signature = Some(fault),
                WebhookFault::Skew(seconds) => faults::body::skew(&mut body, seconds),
                WebhookFault::Reshape(variant) => variant.apply(&mut body),
                WebhookFault::Batch(batch) => {
                    batch.apply(&mut body, &self.world.rng.text(16), &self.world.number_ids());
                }
            }
        }
        let webhook =
            self.world.webhooks.sign(&self.target, kind, &call_id, &body, signature.as_ref());
        for after in copies {
            self.world.webhooks.deliver(&self.target, webhook.clone(), delay + after, |_| {});
        }
        if swap {
            self.held_webhook = Some(webhook);
            return;
        }
        let mailbox_tx = self.mailbox_tx.clone();
        self.world.webhooks.deliver(&self.target, webhook, delay, move |status| {
            let _ = mailbox_tx.try_send(CallMsg::Delivered { kind, status });
        });
    }

    fn emit(&self, kind: CallEventKind) {
        let _ = self.events.try_send(CallEvent::new(self.elapsed(), kind));
    }

    fn elapsed(&self) -> Duration {
        self.world.clock.now().saturating_duration_since(self.started)
    }
}

/// A call id in Meta's format: Base64 of both numbers around 32 hex digits, as in the fixtures.
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
    fn m4_call_ids_have_metas_format() {
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
