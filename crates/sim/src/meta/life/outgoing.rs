//! A call that the business places (`meta-calling.md` §7.2, M14–M16): Graph's `connect` begins it, and its user's phone
//! does what its script says: accepts, rejects, or rings until Meta gives up.
//!
//! What happens when stands in a schedule, made from the order in which this Meta tells things (M15). An answered call
//! goes on like any other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::body;
use super::super::graph::GraphFault;
use super::super::offer::answer;
use super::{Accepted, Life, Wiring};
use crate::World;
use crate::caller::{Answers, CallScript, Happened, HungUpBy, KeysStart, Order};
use crate::faults::{CallFaults, Hook};
use crate::media::peer::MetaSide;
use media::sdp::{Offer, Setup};

/// Between ACCEPTED and a connect that comes behind it.
const BEHIND: Duration = Duration::from_millis(100);
/// How long a connect webhook may have until the POST is answered all the same.
const BEFORE_REPLY: Duration = Duration::from_millis(500);

/// What `connect` asked for.
pub(crate) struct Connect {
    pub(crate) sdp: String,
    pub(crate) opaque: Option<String>,
    /// The id of the call that was made.
    pub(crate) reply: oneshot::Sender<Result<String, GraphFault>>,
}

/// What is done at a moment of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Connect,
    Ring,
    PickUp,
    Decline,
    GiveUp,
}

/// The rest of what is still to happen before the call is answered or over.
#[derive(Default)]
pub(super) struct Schedule(VecDeque<(Instant, Deed)>);

impl Schedule {
    fn of(script: &CallScript, begun: Instant, unanswered: Duration) -> Self {
        let answering = &script.answering;
        let (rings, acts) =
            (begun + answering.rings_after, begun + answering.rings_after + answering.acts_after);
        let mut all = vec![(rings, Deed::Ring)];
        match answering.how {
            Answers::Accept => all.push((acts, Deed::PickUp)),
            Answers::Reject => all.push((acts, Deed::Decline)),
            Answers::Ignore => {}
        }
        match answering.order {
            Order::ConnectFirst => all.push((begun, Deed::Connect)),
            Order::RingFirst if answering.how == Answers::Accept => all.push((acts, Deed::Connect)),
            Order::AcceptedFirst if answering.how == Answers::Accept => {
                all.push((acts + BEHIND, Deed::Connect))
            }
            // Sent before the POST was answered; or never, where nobody picks up.
            Order::BeforeReply | Order::RingFirst | Order::AcceptedFirst => {}
        }
        all.push((begun + unanswered, Deed::GiveUp));
        // At one moment the connect comes first: so it stands in the order of the profile.
        all.sort_by_key(|(at, deed)| (*at, *deed != Deed::Connect));
        Self(all.into())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Instant) -> Option<Deed> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, deed)| deed)
    }
}

/// Runs a call that the business placed.
pub(crate) async fn run(
    world: Arc<World>,
    script: CallScript,
    connect: Connect,
    faults: Arc<CallFaults>,
    wiring: Wiring,
) {
    let Wiring { own, mut mailbox, events, .. } = wiring;
    let Connect { sdp, opaque, reply } = connect;
    let (mut script, mut unanswered) = (script, world.times.unanswered);
    let manners = faults.callee();
    manners.iter().for_each(|manner| manner.apply(&mut script.answering, &mut unanswered));
    let begun = async {
        let door = world
            .door(&script)
            .ok_or_else(|| GraphFault::parameter("the simulator knows no node"))?;
        world.webhooks.verify(&door).await.map_err(GraphFault::parameter)?;
        let relay =
            world.relay_for_call(false).map_err(|e| GraphFault::parameter(e.to_string()))?;
        let started = world.clock.now();
        let mut life =
            Life::new(world.clone(), script, door, None, relay, own, events, started, faults);
        life.facts.by_business = true;
        life.take_offer(&sdp).await?;
        Ok::<_, GraphFault>(life)
    };
    let mut life = match begun.await {
        Ok(life) => life,
        Err(fault) => {
            let _ = reply.send(Err(fault));
            return;
        }
    };
    life.world.add_call(&life.facts, life.own.clone(), life.faults.clone());
    manners.iter().for_each(|manner| life.log_fault(format!("the user: {manner:?}")));
    life.placed(opaque, reply, unanswered, &mut mailbox).await;
    life.go_on(&mut mailbox).await;
}

impl Life {
    /// Reads our offer and makes Meta's side of the media.
    async fn take_offer(&mut self, sdp: &str) -> Result<(), GraphFault> {
        let offer = checked(sdp).map_err(GraphFault::parameter)?;
        self.offer = answer(&self.spec, self.script.dtls_active);
        let side = MetaSide {
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
        let leg = self.open_leg(side).await?;
        self.taken = Some((sdp.to_owned(), leg));
        Ok(())
    }

    /// The call is made: Graph answers, and what is to happen is planned.
    async fn placed(
        &mut self,
        opaque: Option<String>,
        reply: oneshot::Sender<Result<String, GraphFault>>,
        unanswered: Duration,
        mailbox: &mut tokio::sync::mpsc::Receiver<super::CallMsg>,
    ) {
        self.tell(Happened::Placed {
            call_id: self.facts.call_id.clone(),
            phone_number_id: self.facts.number.phone_number_id.clone(),
            from: self.facts.number.number.clone(),
            to: self.facts.user.clone(),
        });
        self.follow(opaque);
        if self.script.answering.order == Order::BeforeReply {
            self.send_connect();
            let delivered = async {
                while let Some(message) = mailbox.recv().await {
                    if let super::CallMsg::Delivered { kind, status } = message {
                        self.delivered(kind, status);
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(BEFORE_REPLY, delivered).await;
        }
        let _ = reply.send(Ok(self.facts.call_id.clone()));
        self.schedule = Some(Schedule::of(&self.script, self.world.clock.now(), unanswered));
    }

    /// What is due of the schedule; gives who ended the call, if it did.
    pub(super) async fn keep_schedule(&mut self) -> Option<HungUpBy> {
        let now = self.world.clock.now();
        while let Some(deed) = self.schedule.as_mut().and_then(|schedule| schedule.due(now)) {
            match deed {
                Deed::Connect => self.send_connect(),
                Deed::Ring if self.accepted.is_none() => {
                    self.rang = true;
                    self.tell(Happened::Ringing);
                    self.send_status(Hook::Ringing);
                }
                Deed::PickUp => self.pick_up().await,
                Deed::Decline => {
                    self.send_status(Hook::Rejected);
                    return Some(HungUpBy::Declined);
                }
                Deed::GiveUp if self.accepted.is_none() => return Some(HungUpBy::Meta),
                Deed::Ring | Deed::GiveUp => {}
            }
        }
        None
    }

    /// A call that was not taken counts against the permission (M16); one that was taken back before it rang does not
    /// (§6.1).
    pub(super) async fn missed(&self, by: HungUpBy) {
        let not_taken = match by {
            HungUpBy::Declined => true,
            HungUpBy::Meta | HungUpBy::Business => self.accepted.is_none() && self.rang,
            HungUpBy::Caller | HungUpBy::Rejected => false,
        };
        let (number, user, now) =
            (&self.facts.number, &self.facts.user, self.world.clock.wall().secs());
        if not_taken && self.world.permissions.missed(&number.phone_number_id, user, now) {
            let _ = self.world.revoke(number, user).await;
        }
    }

    async fn pick_up(&mut self) {
        let (id, now) = (&self.facts.number.phone_number_id, self.world.clock.wall().secs());
        self.world.permissions.connected(id, &self.facts.user, now);
        self.accepted = Some(Accepted {
            at: self.world.clock.now(),
            wall_secs: self.world.clock.wall().secs(),
        });
        if let Some(leg) = self.leg() {
            self.relay.accepted(leg).await;
        }
        self.tell(Happened::Answered);
        self.send_status(Hook::Accepted);
        self.start_keys(KeysStart::Answered).await;
    }

    fn send_connect(&mut self) {
        let connect = body::connect(&self.facts, self.world.clock.wall().secs(), &self.offer);
        self.deliver(Hook::Connect, connect, Duration::ZERO);
    }

    fn send_status(&mut self, hook: Hook) {
        let word = hook.as_str().to_ascii_uppercase();
        let status = body::status(
            &self.facts,
            self.world.clock.wall().secs(),
            &word,
            self.opaque.as_deref(),
        );
        self.deliver(hook, status, Duration::ZERO);
    }
}

/// An offer as Meta would take it (§5.2): a full agent, actpass, one fingerprint, SHA-256.
fn checked(sdp: &str) -> Result<Offer, String> {
    let offer =
        Offer::parse(sdp, true).map_err(|fault| format!("SDP Validation error: {fault}"))?;
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
