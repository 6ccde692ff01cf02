//! The task that sends the beats.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet::{Answer, Membership, OVERDUE, Request, Supply, TermState};
use store::{FleetSession, Store, StoreError};
use uuid::Uuid;

use super::{JoinOptions, Shared};

/// The longest time between two looks at the clock, by which a pause of the process is noticed.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Beats<S> {
    member: Membership,
    supply: S,
    store: Store,
    session: Option<FleetSession>,
    shared: Arc<Shared>,
    options: JoinOptions,
}

enum Reply {
    Registered(Option<TermState>),
    Answer(Answer),
}

impl<S: Supply + Send> Beats<S> {
    pub(super) fn new(
        run: Uuid,
        store: Store,
        shared: Arc<Shared>,
        options: JoinOptions,
        supply: S,
    ) -> Self {
        let mut member = Membership::new(run, options.strict);
        for (key, cap) in &options.limits {
            member.track(key.clone(), *cap);
        }
        Self { member, supply, store, session: None, shared, options }
    }

    /// Beats until the process leaves or is declared dead.
    pub(super) async fn run(mut self) {
        while !self.shared.stop.is_cancelled() && !self.shared.dead.is_cancelled() {
            let now = self.shared.now();
            let urgent = self.shared.urgent.load(Ordering::Acquire);
            self.member.set_members(self.shared.members.load(Ordering::Acquire));
            if let Some(request) = self.member.poll(now, urgent, &mut self.supply) {
                self.shared.urgent.store(false, Ordering::Release);
                self.send(request).await;
                self.publish();
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
                return self.fail(&request);
            }
            Err(_) => {
                tracing::warn!("beat overdue");
                return self.fail(&request);
            }
        };
        let now = self.shared.now();
        match (&request, reply) {
            (Request::Register(register), Reply::Registered(term)) => {
                self.member.registered(now, register, term);
            }
            (Request::Beat(beat), Reply::Answer(answer)) => {
                self.member.answered(now, beat, &answer, &mut self.supply);
            }
            // `execute` gives each request its own reply.
            (Request::Register(_), Reply::Answer(_)) | (Request::Beat(_), Reply::Registered(_)) => {
            }
        }
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
                Reply::Registered(session.register(run, node_id, about, register.again).await?)
            }
            Request::Beat(beat) => Reply::Answer(session.beat(beat).await?),
        })
    }

    fn fail(&mut self, request: &Request) {
        self.session = None;
        self.member.fail(self.shared.now(), request.sent());
    }

    /// Tells admission what the member may do.
    fn publish(&self) {
        let until = self.member.admits_until().map_or(0, |until| until.as_micros());
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.shared.admits_until.store(until, Ordering::Release);
        self.shared.settled.send_replace(self.member.is_settled());
        if self.member.is_dead() {
            tracing::error!(run = %self.member.run(), "declared dead by another node");
            self.shared.dead.cancel();
        }
    }
}
