//! Business-initiated calls. Graph's `connect` starts the call. The user's phone then accepts,
//! rejects, or rings until Meta ends the call, according to its script.
//!
//! The steps are planned in a schedule, which depends on the order of Meta's events. Once answered,
//! the call continues like a user-initiated one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::body;
use super::super::error::GraphError;
use super::super::offer::answer;
use super::{AnswerTime, Call, CallChannels};
use crate::World;
use crate::caller::{CallEventKind, CallScript, CalleeAction, EventOrder, HangupSource, KeysStart};
use crate::faults::{CallFaults, WebhookKind};
use crate::media::peer::MetaLegParams;
use media::sdp::{Offer, Setup};

/// Time from ACCEPTED to a `connect` that comes after it.
const CONNECT_DELAY: Duration = Duration::from_millis(100);
/// Maximum time to wait for the connect webhook before the request is answered, in the order
/// `BeforeReply`.
const CONNECT_DELIVERY_MAX: Duration = Duration::from_millis(500);

/// Parameters of a `connect` request.
pub(crate) struct Connect {
    pub(crate) sdp: String,
    pub(crate) opaque: Option<String>,
    /// Takes the id of the new call.
    pub(crate) reply: oneshot::Sender<Result<String, GraphError>>,
}

/// A step of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Ring,
    PickUp,
    Decline,
    GiveUp,
}

/// The remaining steps until the call is answered or over.
#[derive(Default)]
pub(super) struct Schedule(VecDeque<(Instant, Step)>);

impl Schedule {
    fn new(script: &CallScript, started_at: Instant, unanswered: Duration) -> Self {
        let callee = &script.callee;
        let (rings_at, acts_at) =
            (started_at + callee.rings_after, started_at + callee.rings_after + callee.acts_after);
        let mut steps = vec![(rings_at, Step::Ring)];
        match callee.action {
            CalleeAction::Accept => steps.push((acts_at, Step::PickUp)),
            CalleeAction::Reject => steps.push((acts_at, Step::Decline)),
            CalleeAction::Ignore => {}
        }
        match callee.order {
            EventOrder::ConnectFirst => steps.push((started_at, Step::Connect)),
            EventOrder::RingFirst if callee.action == CalleeAction::Accept => {
                steps.push((acts_at, Step::Connect))
            }
            EventOrder::AcceptedFirst if callee.action == CalleeAction::Accept => {
                steps.push((acts_at + CONNECT_DELAY, Step::Connect))
            }
            // Sent before the request was answered, or never because the user does not pick up.
            EventOrder::BeforeReply | EventOrder::RingFirst | EventOrder::AcceptedFirst => {}
        }
        steps.push((started_at + unanswered, Step::GiveUp));
        // Of two simultaneous steps `connect` comes first.
        steps.sort_by_key(|(at, step)| (*at, *step != Step::Connect));
        Self(steps.into())
    }

    pub(super) fn next_step_at(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Instant) -> Option<Step> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, step)| step)
    }
}

/// Runs a business-initiated call.
pub(crate) async fn run(
    world: Arc<World>,
    script: CallScript,
    connect: Connect,
    faults: Arc<CallFaults>,
    channels: CallChannels,
) {
    let CallChannels { mailbox_tx, mut mailbox, events, .. } = channels;
    let Connect { sdp, opaque, reply } = connect;
    let (mut script, mut unanswered) = (script, world.times.unanswered);
    let overrides = faults.callee();
    overrides.iter().for_each(|change| change.apply(&mut script.callee, &mut unanswered));
    let setup = async {
        let target = world
            .webhook_target(&script)
            .ok_or_else(|| GraphError::parameter("no node is configured"))?;
        world.webhooks.verify(&target).await.map_err(GraphError::parameter)?;
        let relay =
            world.relay_for_call(false).map_err(|e| GraphError::parameter(e.to_string()))?;
        let started = world.clock.now();
        let mut call = Call::new(
            world.clone(),
            script,
            target,
            None,
            relay,
            mailbox_tx,
            events,
            started,
            faults,
        );
        call.info.business_initiated = true;
        call.take_offer(&sdp).await?;
        Ok::<_, GraphError>(call)
    };
    let mut call = match setup.await {
        Ok(call) => call,
        Err(error) => {
            let _ = reply.send(Err(error));
            return;
        }
    };
    call.world.add_call(&call.info, call.mailbox_tx.clone(), call.faults.clone());
    overrides.iter().for_each(|change| call.log_fault(format!("callee: {change:?}")));
    call.on_placed(opaque, reply, unanswered, &mut mailbox).await;
    call.run_to_end(&mut mailbox).await;
}

impl Call {
    /// Applies the offer of the business and opens Meta's leg.
    async fn take_offer(&mut self, sdp: &str) -> Result<(), GraphError> {
        let offer = parse_offer(sdp).map_err(GraphError::parameter)?;
        self.offer = answer(&self.spec, self.script.dtls_active);
        let params = MetaLegParams {
            ufrag: self.spec.ufrag.clone(),
            pwd: self.spec.pwd.clone(),
            ssrc: self.spec.ssrc,
            opus_pt: offer.opus_pt,
            digit_pt: offer.telephone_event_out().map(|t| t.pt),
            dtls_active: self.script.dtls_active,
            remote_ufrag: offer.ufrag,
            remote_pwd: offer.pwd,
            remote_fingerprint: offer.fingerprint,
        };
        let leg = self.open_leg(params).await?;
        self.business_sdp = Some((sdp.to_owned(), leg));
        Ok(())
    }

    /// Answers the Graph request and plans the steps.
    async fn on_placed(
        &mut self,
        opaque: Option<String>,
        reply: oneshot::Sender<Result<String, GraphError>>,
        unanswered: Duration,
        mailbox: &mut tokio::sync::mpsc::Receiver<super::CallMsg>,
    ) {
        self.emit(CallEventKind::Placed {
            call_id: self.info.call_id.clone(),
            phone_number_id: self.info.number.phone_number_id.clone(),
            from: self.info.number.number.clone(),
            to: self.info.user.clone(),
        });
        self.follow(opaque);
        if self.script.callee.order == EventOrder::BeforeReply {
            self.send_connect();
            let delivered = async {
                while let Some(message) = mailbox.recv().await {
                    if let super::CallMsg::Delivered { kind, status } = message {
                        self.on_delivery(kind, status);
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(CONNECT_DELIVERY_MAX, delivered).await;
        }
        let _ = reply.send(Ok(self.info.call_id.clone()));
        self.schedule = Some(Schedule::new(&self.script, self.world.clock.now(), unanswered));
    }

    /// Executes the due steps. Returns who ended the call, if it has ended.
    pub(super) async fn run_schedule(&mut self) -> Option<HangupSource> {
        let now = self.world.clock.now();
        while let Some(step) = self.schedule.as_mut().and_then(|schedule| schedule.due(now)) {
            match step {
                Step::Connect => self.send_connect(),
                Step::Ring if self.accepted.is_none() => {
                    self.rang = true;
                    self.emit(CallEventKind::Ringing);
                    self.send_status(WebhookKind::Ringing);
                }
                Step::PickUp => self.pick_up().await,
                Step::Decline => {
                    self.send_status(WebhookKind::Rejected);
                    return Some(HangupSource::Declined);
                }
                Step::GiveUp if self.accepted.is_none() => return Some(HangupSource::Meta),
                Step::Ring | Step::GiveUp => {}
            }
        }
        None
    }

    /// Counts an unanswered call against the permission. A call that the business cancels before it
    /// rings does not count.
    pub(super) async fn record_missed(&self, by: HangupSource) {
        let counts_as_missed = match by {
            HangupSource::Declined => true,
            HangupSource::Meta | HangupSource::Business => self.accepted.is_none() && self.rang,
            HangupSource::Caller | HangupSource::Rejected => false,
        };
        let (number, user, now) =
            (&self.info.number, &self.info.user, self.world.clock.wall().secs());
        if counts_as_missed
            && self.world.permissions.record_missed(&number.phone_number_id, user, now)
        {
            let _ = self.world.revoke(number, user).await;
        }
    }

    async fn pick_up(&mut self) {
        let (id, now) = (&self.info.number.phone_number_id, self.world.clock.wall().secs());
        self.world.permissions.record_connected(id, &self.info.user, now);
        self.accepted = Some(AnswerTime {
            at: self.world.clock.now(),
            wall_secs: self.world.clock.wall().secs(),
        });
        if let Some(leg) = self.leg() {
            self.relay.accept(leg).await;
        }
        self.emit(CallEventKind::Answered);
        self.send_status(WebhookKind::Accepted);
        self.start_keys(KeysStart::Answered).await;
    }

    fn send_connect(&mut self) {
        let connect = body::connect(&self.info, self.world.clock.wall().secs(), &self.offer);
        self.deliver(WebhookKind::Connect, connect, Duration::ZERO);
    }

    fn send_status(&mut self, hook: WebhookKind) {
        let word = hook.as_str().to_ascii_uppercase();
        let status =
            body::status(&self.info, self.world.clock.wall().secs(), &word, self.opaque.as_deref());
        self.deliver(hook, status, Duration::ZERO);
    }
}

/// Parses an offer and checks it as Meta does: full ICE agent, `actpass`, and exactly one SHA-256
/// fingerprint.
fn parse_offer(sdp: &str) -> Result<Offer, String> {
    let offer =
        Offer::parse(sdp, true).map_err(|error| format!("SDP Validation error: {error}"))?;
    let fingerprints = sdp.lines().filter(|line| line.starts_with("a=fingerprint:")).count();
    match () {
        () if offer.ice_lite => {
            Err("SDP Validation error: a=ice-lite: both sides would be lite".to_owned())
        }
        () if offer.setup != Setup::Actpass => {
            Err("SDP Validation error: a=setup must be actpass".to_owned())
        }
        () if fingerprints != 1 => {
            Err("SDP Validation error: exactly one a=fingerprint, SHA-256".to_owned())
        }
        () => Ok(offer),
    }
}
