//! The task that sends the beats.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet::{Answer, LimitKey, Membership, OVERDUE, Request, TermState};
use model::metric::{self, beat};
use store::{FleetSession, Store, StoreError};

use super::lease::Units;
use super::{EVIDENCE, JoinOptions, Shared};

/// Maximum time between two readings of the clock, which detect that the process was paused.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Beats {
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
    ) -> Self {
        let member = Membership::new(shared.run, options.strict);
        Self {
            member,
            units,
            store,
            session: None,
            shared,
            options,
            caps: BTreeMap::new(),
            sent: VecDeque::new(),
        }
    }

    /// Writes the row of this run.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub(super) async fn register(mut self) -> Result<Self, StoreError> {
        self.set_caps().await?;
        let now = self.shared.now();
        if let Some(request @ Request::Register(_)) = self.member.poll(now, false, &mut self.units)
        {
            let reply = self.execute(&request).await?;
            self.receive(&request, reply);
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
        for (key, cap) in changed {
            self.member.track(key.clone(), cap);
            self.caps.insert(key, cap);
        }
        Ok(())
    }

    /// Sends beats until the process leaves the fleet or is declared dead.
    pub(super) async fn run(mut self) {
        while !self.shared.stop.is_cancelled() && !self.shared.dead.is_cancelled() {
            let now = self.shared.now();
            let urgent = self.shared.urgent.load(Ordering::Acquire) || self.shared.is_eager();
            for key in self.shared.demand.take_elsewhere() {
                self.member.include(&key);
            }
            if let Err(error) = self.set_caps().await {
                tracing::warn!(%error, "limits not written to the database of the fleet");
                self.units.retry_caps();
                self.session = None;
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
            }
        }
    }

    async fn send(&mut self, request: Request) {
        if self.member.take_reconnect() {
            self.session = None;
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
        self.receive(&request, reply);
    }

    fn receive(&mut self, request: &Request, reply: Reply) {
        let now = self.shared.now();
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
        record(beat::ANSWERED, beat_time);
        let before = self.shared.state.borrow().term;
        if let (Some(before), Some(term)) = (before, term)
            && before.id != term.id
        {
            tracing::warn!(term = %term.id, "the database may have lost units; nodes get no more of them until all have reported theirs");
            metrics::counter!(metric::TERMS_TOTAL).increment(1);
        }
        self.shared.state.send_modify(|state| {
            state.is_connected = true;
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

    fn fail(&mut self, request: &Request, outcome: &'static str) {
        self.session = None;
        record(outcome, self.shared.now().saturating_sub(request.sent()));
        self.member.fail(self.shared.now(), request.sent());
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
