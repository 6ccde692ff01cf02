//! The live calls: who starts them, finds them and speaks to them.
//!
//! The doors start calls here and tell of their end, ask and command (`node` brings them together). Nobody reaches
//! into a call: what they get is a [`LiveCall`], a view with a mailbox.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use super::live::LiveLog;
use super::machine::{CallSetup, CallState, CallTime, CallUrls, Command, GraphAction, Input, Termination};
use super::services::Services;
use super::shell::{self, Begin, Mailbox};
use super::trace::{Journal, Traced};
use super::turns::Turns;
use crate::admission::permission::{Engaged, PairKey};
use crate::admission::{Admitted, NumberEntry, Reason, Starting, Strain};
use crate::answer::SigningKeys;
use crate::media::sdp::Offer;
use crate::meta::ActionRequest;
use crate::model::{CallType, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp, TraceId, Wacid};
use crate::observe::names;
use crate::store::CallStart;

/// Calls of a node, whatever the numbers' limits allow: past it they are refused as `overloaded` (R10).
const LIVE_MAX: usize = 20_000;
/// Rejects on their way to Graph; past it the webhook is answered 503, and Meta comes again. Not more than wait for
/// Graph in one number's queue (`meta::GraphConfig`), so that one that was taken on is sent.
const REJECTS_MAX: usize = 1_000;

/// Meta's name of a call: its id, at one number.
pub type CallKey = (PhoneNumberId, Wacid);

/// A user-initiated call with all that it begins with.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub key: CallKey,
    /// The user as callbacks name them (`meta-calling.md` §1.2).
    pub from: String,
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    pub offer: Offer,
    /// When its webhook's request came.
    pub received: Instant,
    /// When that had been read: the zero of the call's time.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// Whether a call could be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    /// Its mailbox is full.
    Full,
    /// No such call, or one that is over.
    Unknown,
}

/// No room for a further reject just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectsFull;

/// A live call, seen from outside.
#[derive(Debug)]
pub struct LiveCall {
    pub setup: CallSetup,
    pub log: Arc<LiveLog>,
    /// When its webhook came in.
    pub(super) arrived: Instant,
    /// The number's signing keys, as they stood when the call began.
    pub(super) keys: SigningKeys,
    mailbox: Mailbox,
    state: AtomicU8,
    answered: OnceLock<CallTime>,
}

impl LiveCall {
    pub(super) fn set_state(&self, state: CallState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(super) fn set_answered(&self, at: CallTime) {
        let _ = self.answered.set(at);
    }

    pub(super) fn answered(&self) -> Option<CallTime> {
        self.answered.get().copied()
    }

    /// Whether it was answered and goes on.
    pub fn is_answered(&self) -> bool {
        self.answered.get().is_some()
    }

    /// Whether it has come to its end, and only Meta's word for it is missing.
    pub fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) >= CallState::Closing as u8
    }

    /// Asks the call for something; `false`: it is over.
    pub fn command(&self, command: Command) -> bool {
        !self.is_closing() && self.mailbox.tell(Input::Command { command })
    }
}

/// The live calls of a node; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    live: DashMap<CallUuid, Arc<LiveCall>>,
    by_key: DashMap<CallKey, CallUuid>,
    rejects: Arc<Semaphore>,
    turns: Turns,
    /// Woken each time a call is over.
    one_over: Notify,
    gauge: OnceLock<metrics::Gauge>,
}

impl Registry {
    /// An empty registry.
    pub fn new(services: Arc<Services>) -> Self {
        Self(Arc::new(Inner {
            services,
            live: DashMap::new(),
            by_key: DashMap::new(),
            rejects: Arc::new(Semaphore::new(REJECTS_MAX)),
            turns: Turns::for_this_machine(),
            one_over: Notify::new(),
            gauge: OnceLock::new(),
        }))
    }

    /// A live call.
    pub fn get(&self, call: CallUuid) -> Option<Arc<LiveCall>> {
        self.0.live.get(&call).map(|entry| entry.value().clone())
    }

    /// Live calls, in no order.
    pub fn list(&self) -> Vec<Arc<LiveCall>> {
        self.0.live.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Gives what calls have in their logs to whoever exports traces, where their end will not be waited for.
    pub fn export_live(&self) {
        let Some(sink) = &self.0.services.traces else { return };
        self.list().iter().filter_map(|call| call.log.export()).for_each(|lines| sink(Traced::Call(lines)));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.live.is_empty()
    }

    /// Ends every call with this cause.
    pub fn cut_all(&self, cause: HangupCause) {
        for call in self.list() {
            call.mailbox.tell(Input::Cut { cause });
        }
    }

    /// Waits until no call is live, at most so long; gives how many are left.
    pub async fn until_empty(&self, at_most: Duration) -> usize {
        let wait = async {
            loop {
                let woken = self.0.one_over.notified();
                if self.is_empty() {
                    return;
                }
                woken.await;
            }
        };
        let _ = tokio::time::timeout(at_most, wait).await;
        self.len()
    }

    fn setup(&self, number: &NumberEntry, incoming: &Incoming) -> Option<CallSetup> {
        let spec = &number.spec;
        let (answer, answer_method) = spec.answer.clone()?;
        let hangup = spec.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method));
        Some(CallSetup {
            call: CallUuid(self.0.services.uuid()),
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(incoming.key.1.clone()),
            phone_number_id: incoming.key.0.clone(),
            from: incoming.from.clone(),
            to: spec.number.to_string(),
            caller_name: incoming.caller_name.clone(),
            cta_payload: incoming.cta_payload.clone(),
            deeplink_payload: incoming.deeplink_payload.clone(),
            account: number.account.auth_id.clone(),
            parent_account: number.account.main().auth_id.clone(),
            urls: CallUrls { answer, answer_method, fallback: spec.fallback.clone(), hangup },
            started: incoming.arrived_wall,
            limits: self.0.services.settings.load().limits.clone(),
            headers: Vec::new(),
        })
    }

    fn gauge(&self) -> &metrics::Gauge {
        self.0.gauge.get_or_init(|| metrics::gauge!(names::CALLS_ACTIVE, "direction" => Direction::Inbound.as_str()))
    }
}

/// Takes a call out of the tables, whatever way its task ends.
struct Leaving {
    registry: Registry,
    call: CallUuid,
    key: CallKey,
    /// The user is on the line until then.
    _engaged: Engaged,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        inner.live.remove(&self.call);
        inner.by_key.remove_if(&self.key, |_, call| *call == self.call);
        self.registry.gauge().decrement(1);
        inner.one_over.notify_waiters();
    }
}

impl Registry {
    /// Starts a call; what follows happens behind it.
    ///
    /// # Errors
    /// No room, a store that takes no more, or no answer URL: the admission comes back, to be withdrawn.
    pub fn start(&self, admitted: Admitted, incoming: Incoming) -> Result<(), Box<Admitted>> {
        let starting = match self.room(&incoming.key.0) {
            Ok(starting) => starting,
            Err(strain) => {
                strain.count();
                return Err(Box::new(admitted));
            }
        };
        let Some(setup) = self.setup(admitted.number(), &incoming) else {
            error!(number = %admitted.number().spec.number, "calling is enabled without an answer URL; set one");
            return Err(Box::new(admitted));
        };
        let services = self.0.services.clone();
        // Before anybody hears of the call: from here on it has a record, whatever becomes of this process (R3).
        let start = CallStart::of(&setup, &services.node_id);
        if !services.store.call_born(start, &setup, services.clock.steady()) {
            Strain::Store.count();
            return Err(Box::new(admitted));
        }
        let call = setup.call;
        let key = incoming.key.clone();
        let (mailbox, inbox) = shell::mailbox(call, &self.0.services.clock);
        let log = LiveLog::new();
        let view = Arc::new(LiveCall {
            setup: setup.clone(),
            log: log.clone(),
            arrived: incoming.arrived,
            keys: self.0.services.keys(admitted.number()),
            mailbox: mailbox.clone(),
            state: AtomicU8::new(CallState::Preparing as u8),
            answered: OnceLock::new(),
        });
        let (number, slot) = admitted.begin();
        self.0.live.insert(call, view.clone());
        self.0.by_key.insert(key.clone(), call);
        self.gauge().increment(1);
        let pair = PairKey::new(&setup.phone_number_id, &setup.from);
        let _engaged = services.permissions.consents().engage(pair);
        let leaving = Leaving { registry: self.clone(), call, key, _engaged };
        // `trace_id` is what requests to the customer's server carry in `traceparent`.
        let span = info_span!("call", call_uuid = %call, trace_id = %TraceId::from(call), to = %number.spec.number);
        let Incoming { offer, received, arrived, .. } = incoming;
        let journal = Journal::new(call, arrived, log, services.store.event_log(), services.traces.clone());
        let admitted = services.clock.now();
        let turns = self.0.turns.clone();
        let task = async move {
            let turn = turns.wait(starting).await;
            let begin =
                Begin { setup, offer, number, slot, turn, received, arrived, admitted, mailbox, inbox, journal, view };
            // A future has room for all that it is ever given, as long as it lives.
            let begin = Box::new(begin);
            // A fault inside one call ends that call only; the slot went back with the call's future (R3).
            let ran = std::panic::AssertUnwindSafe(shell::run(services, begin)).catch_unwind().await;
            if ran.is_err() {
                error!("a fault of ours ended the call");
                leaving.registry.mourn(&leaving.call).await;
            }
            drop(leaving);
        };
        self.0.services.tasks.spawn(task.instrument(span));
        Ok(())
    }

    /// A place for a further call, or what there is too much of.
    fn room(&self, number: &PhoneNumberId) -> Result<Starting, Strain> {
        if self.len() >= LIVE_MAX {
            return Err(Strain::Calls);
        }
        if self.0.services.media.is_behind() {
            return Err(Strain::Media);
        }
        if self.0.services.graph.is_behind(number) {
            return Err(Strain::Graph);
        }
        let services = &self.0.services;
        services.pressure.begin(services.clock.now())
    }

    /// Meta says that a call is over.
    pub fn terminated(&self, key: &CallKey, termination: Termination) -> Told {
        let Some(call) = self.0.by_key.get(key).map(|c| *c.value()).and_then(|c| self.get(c)) else {
            return Told::Unknown;
        };
        if call.mailbox.tell(Input::Terminated { termination }) {
            Told::Yes
        } else if call.mailbox.is_open() {
            Told::Full
        } else {
            Told::Unknown
        }
    }

    /// Sends Graph `reject` for a call that was not admitted.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Result<(), RejectsFull> {
        let full = || {
            names::queue::refused(names::queue::REJECTS);
            RejectsFull
        };
        let room = self.0.rejects.clone().try_acquire_owned().map_err(|_| full())?;
        if self.0.services.graph.is_behind_with_rejects(&number.spec.phone_number_id) {
            return Err(full());
        }
        info!(number = %number.spec.number, reason = reason.as_str(), "a call is refused");
        let request = ActionRequest {
            phone_number_id: number.spec.phone_number_id.clone(),
            token: number.spec.access_token.clone(),
            wacid,
            action: GraphAction::Reject,
            sdp: None,
            opaque: None,
            deadline: None,
            overtaken: CancellationToken::new(),
        };
        let graph = self.0.services.graph.clone();
        self.0.services.tasks.spawn(async move {
            graph.call_action_to_the_end(request).await;
            drop(room);
        });
        Ok(())
    }
}

impl Registry {
    /// After a panic in a call's task: the user must not be left hanging, and the record must have an end.
    async fn mourn(&self, call: &CallUuid) {
        let Some(view) = self.get(*call) else { return };
        shell::end_after_fault(&self.0.services, &view).await;
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
