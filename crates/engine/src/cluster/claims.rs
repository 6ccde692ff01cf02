//! Claims of inbound calls: which node of the fleet a call belongs to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use machine::Termination;
use model::metric::{self, claim};
use model::{CallUuid, Direction};
use store::{ClaimKey, ClaimOutcome, FleetSession, Store, StoreError};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::peers::post;
use super::{CALLS, HAS_CALL, HELD_CALLS, MESSAGES, Shared, WEBHOOK};
use crate::call::CallEvent;
use crate::call::registry::{CallKey, Registry};
use crate::webhook::{Claim, ClaimPurpose, HandOver, OtherNodes, SignedWebhook, Unreachable};

/// Number of database sessions for claims and events of calls.
const SESSIONS: usize = 4;

/// Number of further ones for requests of clients, so that these never delay a call.
const REQUEST_SESSIONS: usize = 2;

/// What a database session is used for.
#[derive(Clone, Copy, Debug)]
pub enum SessionPurpose {
    /// Claims, events and rooms of calls.
    Calls,
    /// The request of a client.
    Request,
}

/// Timeout of one attempt to claim a call.
const CLAIM_TIME: Duration = Duration::from_millis(500);

/// Maximum number of attempts while the database answers beats. After that, the node decides alone.
const ATTEMPTS: u32 = 4;

/// Timeout for asking the other nodes whether they have a call.
const ASK_TIME: Duration = Duration::from_millis(500);

/// Timeout for finding the owner of an event. If it takes longer, Meta delivers the event again.
const LOOKUP_TIME: Duration = Duration::from_secs(1);

/// Pauses between attempts to find the row of a call that may have started right now. Its node
/// writes it within 50 ms, unless the database is slow.
const YOUNG: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::ZERO,
];

/// Interval at which old claims are deleted.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(15);

/// Interval at which claims that were not answered are repeated.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time between the claim of a call and its start.
const START_TIME: Duration = Duration::from_secs(5);

/// Maximum number of calls whose claims are repeated. Also the maximum number of rejected calls whose
/// claims wait to be updated.
const UNSETTLED_MAX: usize = 20_000;

/// A call that this node has begun and whose claim may not be in the database.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    call: CallUuid,
    /// Time of the claim.
    since: Duration,
}

/// Implements the webhook handler's access to the other nodes.
pub struct FleetClaims {
    store: Store,
    shared: Arc<Shared>,
    sessions: Mutex<Vec<FleetSession>>,
    permits: Semaphore,
    request_permits: Semaphore,
    /// Selects the node that gets the next handed-over call. The nodes take turns.
    turn: AtomicUsize,
    unsettled: Mutex<VecDeque<Unsettled>>,
    /// Calls that Meta has been told to reject and whose claims do not say so yet: the hashes of the
    /// claims.
    rejected: Mutex<Vec<u128>>,
    /// The hashes of claims to delete: those of calls that this node has neither begun nor rejected. The
    /// database may have them, even if it did not answer, and the other nodes would leave the calls to
    /// this node.
    withdrawn: Mutex<Vec<u128>>,
}

impl FleetClaims {
    pub(super) fn new(store: Store, shared: Arc<Shared>) -> Self {
        let (sessions, permits) = (Mutex::default(), Semaphore::new(SESSIONS));
        let request_permits = Semaphore::new(REQUEST_SESSIONS);
        let (turn, unsettled) = (AtomicUsize::new(0), Mutex::default());
        Self {
            store,
            shared,
            sessions,
            permits,
            request_permits,
            turn,
            unsettled,
            rejected: Mutex::default(),
            withdrawn: Mutex::default(),
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, VecDeque<Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rejected_claims(&self) -> MutexGuard<'_, Vec<u128>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn withdrawn_claims(&self) -> MutexGuard<'_, Vec<u128>> {
        self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call that has begun here although its claim may not be in the database.
    fn unsettle(&self, call: CallUuid) {
        let mut unsettled = self.unsettled();
        if unsettled.len() < UNSETTLED_MAX {
            unsettled.push_back(Unsettled { call, since: self.shared.now() });
        }
    }

    /// Has the claims of all live calls repeated. An earlier process of this run may not have
    /// written some of them.
    pub fn unsettle_all(&self, registry: &Registry) {
        registry.each(|call| {
            if call.setup.direction == Direction::Inbound && call.setup.wacid.is_some() {
                self.unsettle(call.setup.call);
            }
        });
    }

    /// Ends calls that another node has, too, until the process leaves the fleet. Two nodes can begin
    /// a call while the database does not answer. `withdrawn` are those whose records were not
    /// written because of that. Claims are repeated after such a time, and in a new term, because the
    /// database may have lost them.
    pub async fn settle(
        self: Arc<Self>,
        registry: Registry,
        mut withdrawn: mpsc::Receiver<CallUuid>,
    ) {
        let mut every = tokio::time::interval(SETTLE_INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop = self.shared.stop.clone();
        let mut claimed_in = None;
        loop {
            tokio::select! {
                _ = every.tick() => {}
                Some(call) = withdrawn.recv() => {
                    registry.withdraw(call);
                    continue;
                }
                () = stop.cancelled() => return,
            }
            let Some(term) = self.shared.term().filter(|_| self.shared.is_direct()) else {
                continue;
            };
            if claimed_in.replace(term).is_some_and(|before| before != term) {
                self.unsettle_all(&registry);
            }
            self.settle_all(&registry).await;
            self.settle_rejections().await;
            self.settle_withdrawn().await;
        }
    }

    async fn settle_withdrawn(&self) {
        let withdrawn = std::mem::take(&mut *self.withdrawn_claims());
        if withdrawn.is_empty() {
            return;
        }
        let run = self.shared.run;
        let withdraw =
            async |session: &mut FleetSession| session.withdraw_claims(run, &withdrawn).await;
        if let Err(error) = self.with_session(SessionPurpose::Calls, CLAIM_TIME, withdraw).await {
            tracing::warn!(%error, "claims of calls not withdrawn, trying again");
            self.withdrawn_claims().extend(withdrawn);
        }
    }

    async fn settle_all(&self, registry: &Registry) {
        let mut unsettled = std::mem::take(&mut *self.unsettled());
        while let Some(next) = unsettled.front().copied() {
            match self.settle_one(registry, next).await {
                Ok(true) => drop(unsettled.pop_front()),
                Ok(false) => self.unsettled().extend(unsettled.pop_front()),
                Err(error) => {
                    tracing::warn!(%error, "claims of calls not written, trying again");
                    self.unsettled().append(&mut unsettled);
                }
            }
        }
    }

    async fn settle_rejections(&self) {
        let rejected = std::mem::take(&mut *self.rejected_claims());
        if rejected.is_empty() {
            return;
        }
        let settle = async |session: &mut FleetSession| session.settle_rejections(&rejected).await;
        if let Err(error) = self.with_session(SessionPurpose::Calls, CLAIM_TIME, settle).await {
            tracing::warn!(%error, "rejections not recorded as settled, trying again");
            self.rejected_claims().extend(rejected);
        }
    }

    /// Repeats a claim. Returns `false` if it is not settled yet.
    async fn settle_one(
        &self,
        registry: &Registry,
        unsettled: Unsettled,
    ) -> Result<bool, ClaimError> {
        let Unsettled { call, since } = unsettled;
        let Some(view) = registry.get(call) else {
            // The call has ended, or starts right now.
            return Ok(self.shared.now().saturating_sub(since) > START_TIME);
        };
        let birth = registry.birth_of(&view);
        let Some(wacid) = birth.setup.wacid.clone() else { return Ok(true) };
        let key = CallKey { phone_number_id: birth.setup.phone_number_id.clone(), wacid };
        Ok(match self.try_claim(&key, &ClaimPurpose::Begin(Box::new(birth))).await? {
            ClaimOutcome::Mine => true,
            ClaimOutcome::Recorded { call: recorded } => {
                if recorded != call.0 {
                    registry.withdraw(call);
                }
                true
            }
            // The first of the two to write its record keeps the call.
            ClaimOutcome::Other { .. } => false,
            ClaimOutcome::Tombstone => {
                let ended = CallEvent::Terminated(Termination::default());
                registry.event(&key, None, ended);
                true
            }
            ClaimOutcome::NotMember => {
                self.shared.hurry();
                false
            }
        })
    }

    /// Deletes claims that are no longer needed, until the process leaves the fleet.
    pub async fn clean_up(self: Arc<Self>) {
        let mut every = tokio::time::interval(CLEAN_UP_INTERVAL);
        let stop = self.shared.stop.clone();
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let run = self.shared.run;
            let done = self.with_session(SessionPurpose::Calls, LOOKUP_TIME, async |s| {
                s.expire_claims(run).await
            });
            if let Err(error) = done.await {
                tracing::warn!(%error, "deletion of old claims failed");
            }
        }
    }

    /// Returns the run that owns a live call.
    ///
    /// # Errors
    /// Returns an error if the database does not answer.
    pub async fn owner_of(
        &self,
        call: CallUuid,
        purpose: SessionPurpose,
    ) -> Result<Option<Uuid>, Unreachable> {
        for pause in YOUNG {
            let find = async |s: &mut FleetSession| s.owner_of_live_call(call).await;
            let found = self.with_session(purpose, LOOKUP_TIME, find);
            let found = found.await.map_err(|error| {
                tracing::warn!(%error, "lookup of a call's owner failed");
                Unreachable
            })?;
            match found {
                Some(owner) => return Ok(owner),
                None => tokio::time::sleep(pause).await,
            }
        }
        Ok(None)
    }

    /// Runs a statement in one of the database sessions. If it takes longer than `at_most`, it fails,
    /// and the session is closed.
    pub(super) async fn with_session<T>(
        &self,
        purpose: SessionPurpose,
        at_most: Duration,
        statement: impl AsyncFnOnce(&mut FleetSession) -> Result<T, StoreError>,
    ) -> Result<T, ClaimError> {
        let permit = match purpose {
            SessionPurpose::Calls => self.permits.acquire().await,
            SessionPurpose::Request => {
                let permit = tokio::time::timeout(at_most, self.request_permits.acquire()).await;
                permit.map_err(|_| ClaimError::Overdue)?
            }
        };
        let _permit = permit.map_err(|_| ClaimError::Overdue)?;
        let run = async {
            let idle = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut session = match idle {
                Some(session) => session,
                None => self.store.fleet_session().await?,
            };
            let result = statement(&mut session).await?;
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            Ok(result)
        };
        tokio::time::timeout(at_most, run).await.unwrap_or(Err(ClaimError::Overdue))
    }

    /// Sends a webhook to another node.
    async fn post(
        &self,
        to: Uuid,
        path: &'static str,
        webhook: SignedWebhook,
    ) -> Result<(), Unreachable> {
        let SignedWebhook { body, headers } = webhook;
        let mut request = post(path, body);
        *request.headers_mut() = headers;
        for name in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
            request.headers_mut().remove(name);
        }
        match self.shared.peers.send(to, request).await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::debug!(%to, path, status, "webhook refused by another node");
                Err(Unreachable)
            }
            Err(error) => {
                tracing::debug!(%to, path, %error, "another node does not answer");
                Err(Unreachable)
            }
        }
    }

    async fn try_claim(
        &self,
        key: &CallKey,
        purpose: &ClaimPurpose,
    ) -> Result<ClaimOutcome, ClaimError> {
        let (run, ids) = (self.shared.run, claim_key(key));
        let about = match purpose {
            ClaimPurpose::Begin(birth) => self.store.seal_birth(birth),
            ClaimPurpose::Reject => serde_json::to_vec(key).unwrap_or_default(),
            ClaimPurpose::Bury => Vec::new(),
        };
        self.with_session(SessionPurpose::Calls, CLAIM_TIME, async |session| match purpose {
            ClaimPurpose::Begin(birth) => session.claim(ids, run, birth.setup.call.0, &about).await,
            ClaimPurpose::Reject => session.claim_rejection(ids, run, &about).await,
            ClaimPurpose::Bury => session.bury(ids, run).await,
        })
        .await
    }

    /// Asks the other nodes which of them has a call. `None` if none of those that answer has it.
    async fn ask_nodes(&self, key: &CallKey, named: Option<CallUuid>) -> Option<Uuid> {
        let body = Bytes::from(serde_json::to_vec(&(key, named)).unwrap_or_default());
        let ask = |run| {
            let request = post(HAS_CALL, body.clone());
            async move {
                let answer = self.shared.peers.send(run, request).await;
                answer.is_ok_and(|answer| answer.status() == StatusCode::OK).then_some(run)
            }
        };
        let mut asked: FuturesUnordered<_> =
            self.shared.peers.sees().into_iter().map(ask).collect();
        let found = async {
            while let Some(found) = asked.next().await {
                if found.is_some() {
                    return found;
                }
            }
            None
        };
        tokio::time::timeout(ASK_TIME, found).await.ok().flatten()
    }
}

/// The reason why a statement returned no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database did not answer in time")]
    Overdue,
}

impl OtherNodes for FleetClaims {
    fn claim(&self, key: CallKey, purpose: ClaimPurpose) -> BoxFuture<'_, Claim> {
        async move {
            let begun = self.shared.now();
            let mut state = self.shared.state.subscribe();
            let mut tried = Err(ClaimError::Overdue);
            for _ in 0..ATTEMPTS {
                tokio::select! {
                    biased;
                    // Nobody waits while the database is away.
                    _ = state.wait_for(|state| !state.is_direct()) => break,
                    result = self.try_claim(&key, &purpose) => tried = result,
                }
                if tried.is_ok() {
                    break;
                }
            }
            let (claim, outcome) = match tried {
                Ok(ClaimOutcome::Mine) => {
                    self.withdrawn_claims().retain(|hash| *hash != claim_key(&key).hash);
                    (Claim::Ours, claim::OURS)
                }
                Ok(ClaimOutcome::Other { run, .. }) => (Claim::Theirs(run), claim::THEIRS),
                Ok(ClaimOutcome::Tombstone | ClaimOutcome::Recorded { .. }) => {
                    (Claim::Over, claim::OVER)
                }
                Ok(ClaimOutcome::NotMember) => {
                    self.shared.hurry();
                    (Claim::Denied, claim::DENIED)
                }
                // Another node may have the call, and this one may be cut off.
                Err(_) if self.shared.strict => (Claim::Denied, claim::DENIED),
                Err(error) => match self.ask_nodes(&key, None).await {
                    Some(run) => (Claim::Theirs(run), claim::THEIRS),
                    None => {
                        tracing::warn!(%error, "claim of a call not written; deciding without the fleet");
                        if let ClaimPurpose::Begin(birth) = &purpose {
                            self.unsettle(birth.setup.call);
                        }
                        (Claim::Ours, claim::ALONE)
                    }
                },
            };
            let time = self.shared.now().saturating_sub(begun);
            metrics::histogram!(metric::CLAIM_SECONDS, "outcome" => outcome).record(time);
            claim
        }
        .boxed()
    }

    fn withdraw(&self, key: &CallKey) {
        let mut withdrawn = self.withdrawn_claims();
        if withdrawn.len() < UNSETTLED_MAX {
            withdrawn.push(claim_key(key).hash);
        }
    }

    fn rejected(&self, key: &CallKey) {
        let mut rejected = self.rejected_claims();
        if rejected.len() < UNSETTLED_MAX {
            rejected.push(claim_key(key).hash);
        }
    }

    fn owner(
        &self,
        key: CallKey,
        named: Option<CallUuid>,
    ) -> BoxFuture<'_, Result<Option<Uuid>, Unreachable>> {
        async move {
            let found = match self.shared.is_direct() {
                true => {
                    let find = async |session: &mut FleetSession| {
                        session.owner_of_call(claim_key(&key), named).await
                    };
                    self.with_session(SessionPurpose::Calls, LOOKUP_TIME, find).await
                }
                false => Err(ClaimError::Overdue),
            };
            let is_other = |owner: &Uuid| *owner != self.shared.run;
            match (found, named) {
                // Meta can be faster than the batch with the row of an outbound call. A database
                // without space has neither the row nor the claim.
                (Ok(None), Some(call)) => match self.owner_of(call, SessionPurpose::Calls).await? {
                    Some(owner) => Ok(Some(owner).filter(is_other)),
                    None => Ok(self.ask_nodes(&key, named).await),
                },
                (Ok(owner), _) => Ok(owner.filter(is_other)),
                (Err(error), _) => match self.ask_nodes(&key, named).await {
                    Some(owner) => Ok(Some(owner)),
                    // A node that does not answer may have it.
                    None => {
                        tracing::warn!(%error, "lookup of a call's owner failed");
                        Err(Unreachable)
                    }
                },
            }
        }
        .boxed()
    }

    fn forward(&self, to: Uuid, webhook: SignedWebhook) -> BoxFuture<'_, Result<(), Unreachable>> {
        async move {
            let posted = self.post(to, WEBHOOK, webhook).await;
            posted.inspect_err(|Unreachable| {
                tracing::warn!(%to, "webhook not forwarded to the node of its call");
            })
        }
        .boxed()
    }

    fn is_cut_off(&self) -> bool {
        !self.shared.is_direct()
    }

    fn is_starting(&self) -> bool {
        !self.shared.has_started.load(Ordering::Acquire)
    }

    fn hand_over(
        &self,
        webhook: SignedWebhook,
        reason: HandOver,
    ) -> BoxFuture<'_, Result<(), Unreachable>> {
        let path = match reason {
            HandOver::NotAdmitted => CALLS,
            HandOver::NoUnits => HELD_CALLS,
            HandOver::Messages => MESSAGES,
        };
        async move {
            let mut nodes = self.shared.peers.sees();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let count = nodes.len().max(1);
            nodes.rotate_left(turn % count);
            for to in nodes {
                if self.post(to, path, webhook.clone()).await.is_ok() {
                    return Ok(());
                }
            }
            Err(Unreachable)
        }
        .boxed()
    }
}

fn claim_key(key: &CallKey) -> ClaimKey<'_> {
    let (number, wacid) = (key.phone_number_id.as_str(), key.wacid.as_str());
    // The length keeps pairs apart whose concatenations are equal.
    let text = format!("{} {number} {wacid}", number.len());
    let digest = digest(&SHA256, text.as_bytes());
    let hash = digest.as_ref().iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte));
    ClaimKey { hash, phone_number_id: number, wacid }
}
