//! The task that sends the beats.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Answer, Beat, LimitKey, Membership, OVERDUE, Request, RunSnapshot, TermState};
use http::StatusCode;
use model::metric::{self, beat};
use store::{FleetSession, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::lease::Units;
use super::peers::post;
use super::{BEAT, EVIDENCE, JoinOptions, Shared};

/// Maximum time between two readings of the clock, which detect that the process was paused.
const LOOK: Duration = Duration::from_millis(500);

/// Interval at which limits that do not exist any more are deleted.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(60);

/// Pause between two attempts to connect to the database while other nodes carry the beats.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Pause before the first attempt if the database answered the last one, but not the beat after it:
/// it can be read and not written. The beats in between go to other nodes, which shows whether one of
/// them can write.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// An order to the task that sends the beats.
pub(super) enum Order {
    /// See [`Membership::set_frozen`]. The sender reports that it is done.
    Freeze(bool, oneshot::Sender<()>),
    Snapshot(oneshot::Sender<RunSnapshot>),
}

pub(super) struct Beats {
    /// Whether the run began in another process.
    is_moved: bool,
    is_frozen: bool,
    member: Membership,
    units: Units,
    store: Store,
    session: Option<FleetSession>,
    shared: Arc<Shared>,
    options: JoinOptions,
    /// The caps that this process has written to the database.
    caps: BTreeMap<LimitKey, u32>,
    /// Times at which the last answered beats were sent.
    sent: VecDeque<Duration>,
    /// Attempts to connect to the database, while it does not answer and other nodes carry the
    /// beats.
    probe: Option<JoinHandle<FleetSession>>,
    /// `None` while the database answers.
    outage: Option<Outage>,
}

/// What the attempts since the last answered beat have shown about the database.
#[derive(Clone, Copy, Debug, Default)]
struct Outage {
    /// Whether a probe succeeded.
    is_readable: bool,
    /// Whether no other node could carry the last beat that was sent to them.
    is_for_all: bool,
}

/// Records an answered beat.
fn record(outcome: &'static str, time: Duration) {
    metrics::histogram!(metric::BEAT_SECONDS, "outcome" => outcome).record(time);
}

enum Reply {
    Registered(Option<TermState>),
    Answer(Answer),
}

impl Beats {
    pub(super) fn new(
        store: Store,
        shared: Arc<Shared>,
        options: JoinOptions,
        units: Units,
        moved: Option<RunSnapshot>,
    ) -> Self {
        let is_moved = moved.is_some();
        let member = match moved {
            Some(moved) => Membership::resume(moved, options.strict, shared.now()),
            None => Membership::new(shared.run, options.strict),
        };
        Self {
            is_moved,
            is_frozen: false,
            member,
            units,
            store,
            session: None,
            shared,
            options,
            caps: BTreeMap::new(),
            sent: VecDeque::new(),
            probe: None,
            outage: None,
        }
    }

    /// Writes the row of this run. If it began in another process, states the units in use instead.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub(super) async fn register(mut self) -> Result<Self, StoreError> {
        self.set_caps().await?;
        if self.is_moved {
            self.member.hold_used(&mut self.units);
        }
        let now = self.shared.now();
        if let Some(request) = self.member.poll(now, false, &mut self.units) {
            let reply = self.execute(&request).await?;
            self.receive(&request, reply, None);
        }
        Ok(self)
    }

    /// Writes changed limits, and requests units of new ones.
    async fn set_caps(&mut self) -> Result<(), StoreError> {
        let Some(caps) = self.units.changed_caps() else { return Ok(()) };
        let is_new = |(key, cap): &(&LimitKey, &u32)| self.caps.get(*key) != Some(*cap);
        let changed: Vec<(LimitKey, u32)> =
            caps.iter().filter(is_new).map(|(key, cap)| (key.clone(), *cap)).collect();
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.store.fleet_session().await?),
        };
        session.set_caps(&changed).await?;
        let now = self.shared.now();
        for (key, cap) in changed {
            self.member.track(key.clone(), cap, now);
            self.caps.insert(key, cap);
        }
        self.member.retain(|key| caps.contains_key(key));
        self.caps.retain(|key, _| caps.contains_key(key));
        Ok(())
    }

    /// Deletes limits of numbers and accounts that do not exist any more.
    async fn delete_old_caps(&mut self) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let deleted = session.delete_other_caps(self.caps.keys()).await?;
        if deleted > 0 {
            tracing::debug!(limits = deleted, "limits that no node has any more deleted");
        }
        Ok(())
    }

    /// Writes changed limits. What fails is tried again before the next beat.
    async fn write_caps(&mut self) {
        for key in self.member.take_missing() {
            self.caps.remove(&key);
            self.units.retry_caps();
        }
        match tokio::time::timeout(OVERDUE, self.set_caps()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "limits not written to the database of the fleet");
            }
            Err(_) => tracing::warn!("writing limits to the database of the fleet timed out"),
        }
        self.units.retry_caps();
        self.session = None;
    }

    /// Sends beats until the process leaves the fleet or is declared dead.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut clean_up_at = CLEAN_UP_INTERVAL;
        while !self.shared.stop.is_cancelled() && !self.shared.dead.is_cancelled() {
            let now = self.shared.now();
            let urgent = self.shared.urgent.load(Ordering::Acquire) || self.shared.is_eager();
            for key in self.shared.demand.take_elsewhere() {
                self.member.include(&key);
            }
            if self.probe.is_none() && !self.is_frozen {
                self.write_caps().await;
            }
            if now >= clean_up_at && !self.is_frozen {
                clean_up_at = now.saturating_add(CLEAN_UP_INTERVAL);
                let deleted = tokio::time::timeout(OVERDUE, self.delete_old_caps()).await;
                if !matches!(deleted, Ok(Ok(()))) {
                    self.session = None;
                }
            }
            for term in self.shared.take_peer_terms() {
                self.member.report_peer_term(term);
            }
            self.member.set_members(self.shared.members.load(Ordering::Acquire));
            if let Some(request) = self.member.poll(now, urgent, &mut self.units) {
                self.shared.urgent.store(false, Ordering::Release);
                self.send(request).await;
                continue;
            }
            let wait = self.member.due(urgent).saturating_sub(now).min(LOOK);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.hurry.notified(), if !urgent => {}
                () = self.shared.stop.cancelled() => {}
                Some(order) = orders.recv() => self.obey(order),
            }
        }
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Freeze(is_frozen, done) => {
                self.is_frozen = is_frozen;
                self.member.set_frozen(is_frozen);
                let _ = done.send(());
            }
            Order::Snapshot(reply) => drop(reply.send(self.member.snapshot())),
        }
    }

    async fn send(&mut self, request: Request) {
        if self.member.take_reconnect() {
            self.session = None;
        }
        if let Request::Beat(beat) = &request
            && self.is_carried().await
        {
            match self.carry(beat).await {
                Some((run, answer)) => self.receive(&request, Reply::Answer(answer), Some(run)),
                None => self.fail(&request, beat::FAILED),
            }
            return;
        }
        // An overdue request is abandoned with its connection.
        let reply = match tokio::time::timeout(OVERDUE, self.execute(&request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::warn!(%error, "beat failed");
                return self.fail(&request, beat::FAILED);
            }
            Err(_) => {
                tracing::warn!("beat overdue");
                return self.fail(&request, beat::OVERDUE);
            }
        };
        self.receive(&request, reply, None);
    }

    /// Whether other nodes carry the beats. Ends once there is a connection to the database again.
    async fn is_carried(&mut self) -> bool {
        let Some(probe) = &mut self.probe else { return false };
        if probe.is_finished() {
            self.session = probe.await.ok();
            if let Some(outage) = &mut self.outage {
                outage.is_readable = self.session.is_some();
            }
        } else if !self.shared.peers.sees().is_empty() {
            return true;
        } else {
            probe.abort();
        }
        self.probe = None;
        false
    }

    /// Has another node send a beat to the database. Returns its run and the answer, or `None` if
    /// none of them can.
    async fn carry(&self, beat: &Beat) -> Option<(Uuid, Answer)> {
        let body = Bytes::from(serde_json::to_vec(beat).ok()?);
        let mut nodes = self.shared.peers.sees();
        let turn = usize::try_from(beat.seq).unwrap_or_default() % nodes.len().max(1);
        nodes.rotate_left(turn);
        let asked = async {
            for run in nodes {
                let request = post(BEAT, body.clone());
                let Ok(response) = self.shared.peers.send(run, request).await else { continue };
                if response.status() == StatusCode::OK {
                    return Some((run, serde_json::from_slice(response.body()).ok()?));
                }
            }
            None
        };
        tokio::time::timeout(OVERDUE, asked).await.ok().flatten()
    }

    /// Starts to connect to the database after `pause`, until it answers.
    fn probe(&self, pause: Duration) -> JoinHandle<FleetSession> {
        let store = self.store.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            loop {
                let session = async {
                    let mut session = store.fleet_session().await?;
                    session.runs().await.map(|_| session)
                };
                match tokio::time::timeout(OVERDUE, session).await {
                    Ok(Ok(session)) => return session,
                    Ok(Err(error)) => tracing::debug!(%error, "the database does not answer"),
                    Err(_) => tracing::debug!("the database does not answer"),
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        })
    }

    /// Records the answer to a request. `outcome` says who has sent it.
    fn receive(&mut self, request: &Request, reply: Reply, carrier: Option<Uuid>) {
        let now = self.shared.now();
        let outcome = if carrier.is_some() { beat::CARRIED } else { beat::ANSWERED };
        match (carrier, &mut self.outage) {
            (Some(_), Some(outage)) => outage.is_for_all = false,
            (_, outage) => *outage = None,
        }
        let term = match (request, reply) {
            (Request::Register(register), Reply::Registered(term)) => {
                self.member.registered(now, register, term);
                term
            }
            (Request::Beat(beat), Reply::Answer(answer)) => {
                self.member.answered(now, beat, &answer, &mut self.units);
                self.sent.push_back(beat.sent);
                if self.sent.len() > EVIDENCE {
                    let first = self.sent.pop_front().unwrap_or_default().as_micros();
                    let first = u64::try_from(first).unwrap_or(u64::MAX);
                    self.shared.evidence.store(first, Ordering::Release);
                }
                Some(answer.term)
            }
            // `execute` gives each request its own reply.
            (Request::Register(_), Reply::Answer(_)) | (Request::Beat(_), Reply::Registered(_)) => {
                None
            }
        };
        let beat_time = now.saturating_sub(request.sent());
        record(outcome, beat_time);
        let before = self.shared.state.borrow().term;
        if let (Some(before), Some(term)) = (before, term)
            && before.id != term.id
        {
            tracing::warn!(term = %term.id, "the database may have lost units; nodes get no more of them until all have reported theirs");
            metrics::counter!(metric::TERMS_TOTAL).increment(1);
        }
        self.shared.state.send_modify(|state| {
            state.is_connected = true;
            state.carrier = carrier;
            state.beats += 1;
            state.beat = Some(request.sent());
            state.beat_time = beat_time;
            state.term = term.or(state.term);
        });
        self.publish();
    }

    async fn execute(&mut self, request: &Request) -> Result<Reply, StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.store.fleet_session().await?),
        };
        Ok(match request {
            Request::Register(register) => {
                let JoinOptions { node_id, about, .. } = &self.options;
                let run = self.member.run();
                let about = about.json();
                Reply::Registered(session.register(run, node_id, &about, register.again).await?)
            }
            Request::Beat(beat) => Reply::Answer(session.beat(beat).await?),
        })
    }

    /// Records that a request was not answered. From now on, other nodes carry the beats, if there
    /// are any.
    fn fail(&mut self, request: &Request, outcome: &'static str) {
        let now = self.shared.now();
        self.session = None;
        record(outcome, now.saturating_sub(request.sent()));
        let outage = self.outage.get_or_insert_default();
        let is_for_all = if self.probe.is_none() && !self.shared.peers.sees().is_empty() {
            let Outage { is_readable, is_for_all } = *outage;
            let pause = if is_readable { WRITE_INTERVAL } else { Duration::ZERO };
            self.probe = Some(self.probe(pause));
            is_for_all
        } else {
            outage.is_for_all = true;
            true
        };
        match is_for_all {
            true => self.member.fail(now, request.sent()),
            false => self.member.abandon(request.sent()),
        }
        self.shared.state.send_if_modified(|state| std::mem::take(&mut state.is_connected));
        self.publish();
    }

    /// Reports to admission what this member may do.
    fn publish(&self) {
        let until = self.member.admits_until().map_or(0, |until| until.as_micros());
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.shared.admits_until.store(until, Ordering::Release);
        let is_settled = self.member.may_grow(self.shared.now());
        let is_cut_off = self.shared.strict && !self.shared.admits();
        self.shared.state.send_if_modified(|state| {
            let before = *state;
            (state.is_settled, state.is_cut_off) = (is_settled, is_cut_off);
            *state != before
        });
        if self.member.is_dead() {
            tracing::error!(run = %self.member.run(), "declared dead by another node");
            self.shared.dead.cancel();
        }
    }
}
