//! Starts calls: writes the record of each, enters it into the registry and spawns its task. Also
//! resumes calls that another process of the node has handed over, with their records.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tracing::{Instrument, Span, error, info_span, warn};

use super::{CallAdmission, Incoming, Outgoing, Registry};
use crate::admission::permission::PairKey;
use crate::admission::{Admitted, NumberEntry, Reason, SetUpTicket, Strain};
use crate::answer::SigningKeys;
use crate::call::author;
use crate::call::binding::MetaState;
use crate::call::course::Sampler;
use crate::call::handover::IncomingCall;
use crate::call::live::LiveLog;
use crate::call::live_call::LiveCall;
use crate::call::mailbox::{Mailbox, mailbox};
use crate::call::rooms::RoomSnapshot;
use crate::call::shell::{self, Peer, ResumeParams, StartMode, StartParams};
use crate::call::streams::StreamViews;
use crate::call::trace::EventLogWriter;
use crate::disk_space::Content;
use machine::{CallSetup, CallState, CallUrls};
use model::{AuthId, CallType, CallUuid, Direction, TraceId, metric};
use store::Birth;

impl Registry {
    /// Starts a user-initiated call in its own task.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, and the reason: the store is overloaded, or the number
    /// has neither an answer URL nor an AI agent.
    pub fn start(
        &self,
        starting: SetUpTicket,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), (Box<Admitted>, Reason)> {
        let Some(setup) = self.setup(admitted.number(), &incoming) else {
            warn!(number = %admitted.number().spec.number, "nothing answers calls: the number has neither an answer URL nor an AI agent");
            return Err((Box::new(admitted), Reason::CallingDisabled));
        };
        let Incoming { offer, received, arrived, .. } = incoming;
        if !self.write_record(&setup) {
            return Err((Box::new(admitted), Reason::Overloaded));
        }
        let engaged = self
            .0
            .services
            .permissions
            .consents()
            .engage(PairKey::new(&setup.phone_number_id, &setup.from));
        let way = StartMode::Offered(Box::new(offer));
        self.begin(Peer::user((admitted, engaged)), starting, setup, way, [received, arrived]);
        Ok(())
    }

    /// Chooses the id of a user-initiated call before its start. Returns the data that another node
    /// needs to end the call, or `None` if the number has neither an answer URL nor an AI agent.
    pub fn birth(&self, number: &NumberEntry, incoming: &mut Incoming) -> Option<Birth> {
        let setup = self.setup(number, incoming)?;
        incoming.call = Some(setup.call);
        let services = &self.0.services;
        Some(Birth { node_id: services.node_id.clone(), born: services.clock.steady(), setup })
    }

    /// Starts a business-initiated call in its own task.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, if the node or the store is overloaded.
    pub fn place(
        &self,
        (admitted, engaged): CallAdmission,
        outgoing: Outgoing,
    ) -> Result<(), Box<Admitted>> {
        let Some(starting) = self.room(admitted.number()) else {
            return Err(Box::new(admitted));
        };
        let Outgoing { setup, received, placed } = outgoing;
        if !self.write_record(&setup) {
            return Err(Box::new(admitted));
        }
        let peer = Peer::user((admitted, engaged));
        self.begin(peer, starting, setup, StartMode::Placed, [received, placed]);
        Ok(())
    }

    /// Writes the record of a call before the call becomes visible, so that it survives a crash.
    /// Returns `false` if the store does not accept it.
    pub(in crate::call) fn write_record(&self, setup: &CallSetup) -> bool {
        let is_written = self.0.services.write_record(setup);
        if !is_written {
            Strain::Store.count();
        }
        is_written
    }

    /// Starts a call whose record was written by [`Registry::write_record`].
    pub(in crate::call) fn begin(
        &self,
        peer: Peer,
        starting: SetUpTicket,
        setup: CallSetup,
        way: StartMode,
        [received, arrived]: [Instant; 2],
    ) {
        let services = self.0.services.clone();
        let call = setup.call;
        let (mailbox, inbox) = mailbox(call, &self.0.services.clock);
        let view = LiveCall {
            arrived,
            at_meta: MetaState::new(setup.wacid.clone()),
            ..self.view(&peer, setup.clone(), mailbox.clone())
        };
        let (guard, journal) = self.enter(view, services.clock.now());
        let view = guard.view.clone();
        if let Some(news) = self.0.services.news.get() {
            news.started(&view.setup);
        }
        services.rooms.expect(&setup, &mailbox);
        let span = span_of(call, &peer);
        let admitted = services.clock.now();
        let (turns, registry) = (self.0.turns.clone(), self.clone());
        let task = async move {
            let turn = turns.wait(starting).await;
            let begin = StartParams {
                registry,
                setup,
                way,
                peer,
                turn,
                received,
                arrived,
                admitted,
                mailbox,
                inbox,
                journal,
                view,
            };
            // Boxed because a future reserves space for all of its captures for its whole life.
            guard.run(shell::run(services, Box::new(begin))).await;
        };
        self.0.services.tasks.spawn(task.instrument(span));
    }

    /// Resumes calls that another process of this node has handed over, and their conferences. Their
    /// records exist, and they are counted even if a number has reached its limit. A call whose number
    /// or account is not configured is not resumed. `dropped` are further calls that end, which concerns other
    /// legs of their `Dial`.
    pub fn resume(
        &self,
        calls: Vec<IncomingCall>,
        rooms: Vec<RoomSnapshot>,
        dropped: &[IncomingCall],
    ) {
        let services = &self.0.services;
        let keys = |account: &AuthId, main: &AuthId| {
            services.outbox.keys(account, main).unwrap_or_else(|| SigningKeys::new(&[], &[]))
        };
        services.rooms.resume(rooms, &calls, dropped, &services.recordings, keys);
        // A call that runs may need its other leg.
        let tasks: Vec<_> = calls.into_iter().filter_map(|call| self.enter_resumed(call)).collect();
        for call in dropped {
            self.leave_dropped(call);
        }
        for task in tasks {
            self.0.services.tasks.spawn(task);
        }
    }

    /// Enters a call of another process into the registry. Returns its task, or `None` if its number
    /// or account is not configured.
    fn enter_resumed(
        &self,
        mut call: IncomingCall,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let services = self.0.services.clone();
        let peer = self.peer_of(&mut call)?;
        let setup = call.setup.clone();
        let view = LiveCall {
            arrived: call.zero,
            log: LiveLog::resumed(std::mem::take(&mut call.snapshot.log)),
            at_meta: MetaState::resumed(call.snapshot.wacid.clone(), call.snapshot.phone_rank),
            sampler: Sampler::resumed(call.snapshot.course.take(), call.leg.quality()),
            streams: StreamViews::resume(std::mem::take(&mut call.snapshot.streams)),
            legs: Mutex::new(std::mem::take(&mut call.snapshot.legs)),
            b_leg: Mutex::new(call.machine.b_leg()),
            ..self.view(&peer, setup, call.mailbox.clone())
        };
        if let Some(state) = call.machine.state() {
            view.set_state(state);
        }
        if let Some(answered) = call.machine.answered() {
            view.set_answered(answered);
        }
        view.set_recorded(call.machine.is_recorded());
        let (guard, journal) = self.enter(view, services.clock.now());
        let span = span_of(call.call(), &peer);
        let (registry, view) = (self.clone(), guard.view.clone());
        if let Some(line) = view.line.clone().filter(|line| line.is_away()) {
            self.await_phone(view.clone(), line);
        }
        let params = Box::new(ResumeParams { registry, call, peer, journal, view });
        Some(guard.run(shell::resume(services, params)).instrument(span))
    }

    /// Returns the peer of a call of another process. `None` if its number or account is not
    /// configured.
    fn peer_of(&self, call: &mut IncomingCall) -> Option<Peer> {
        let (services, setup) = (&self.0.services, &call.setup);
        if let Some(phone) = &call.snapshot.phone {
            let account = self.0.gate.directory().tables().account(&setup.account)?.clone();
            let keys = call.keys.clone().unwrap_or_default();
            let line = services.phones.resume_line(setup.call, phone.line.clone(), keys);
            return Some(Peer::Phone { account, line });
        }
        let number = self.0.gate.directory().number(&setup.phone_number_id)?;
        let user = match setup.direction {
            Direction::Inbound => &setup.from,
            Direction::Outbound => &setup.to,
        };
        let consents = services.permissions.consents();
        let key = PairKey::new(&setup.phone_number_id, user);
        let engaged = consents.engage_moved(key, call.snapshot.reservation.take());
        // A call that has given its slot back drops this one at once.
        let slot = call.slot.take().unwrap_or_else(|| number.slots.acquire_admitted());
        Some(Peer::User { number, slot, engaged })
    }

    /// The handle of a call that begins now.
    fn view(&self, peer: &Peer, setup: CallSetup, mailbox: Mailbox) -> LiveCall {
        let services = &self.0.services;
        LiveCall {
            setup,
            log: LiveLog::new(),
            arrived: services.clock.now(),
            keys: services.keys(peer.account()),
            token: peer.number().and_then(|number| number.spec.access_token.clone()),
            mailbox,
            state: AtomicU8::new(CallState::Dialing as u8),
            answered: OnceLock::new(),
            at_meta: MetaState::default(),
            legs: Mutex::default(),
            b_leg: Mutex::default(),
            pending_legs: Mutex::default(),
            streams: StreamViews::default(),
            sampler: Sampler::default(),
            recorded: AtomicBool::new(false),
            record_asked: AtomicBool::new(false),
            over: AtomicBool::new(false),
            line: peer.line().cloned(),
            withdrawn: Notify::new(),
        }
    }

    /// Enters a call into the registry until the guard is dropped. Returns the guard and the writer
    /// of the call's event log.
    fn enter(&self, view: LiveCall, now: Instant) -> (CallGuard, EventLogWriter) {
        let services = &self.0.services;
        let view = Arc::new(view);
        if view.line.is_none() {
            self.0.bindings.enter(&*view, now);
        }
        self.0.live.insert(view.setup.call, view.clone());
        *self.0.of_account.entry(view.setup.parent_account.clone()).or_default() += 1;
        self.0.one_begun.notify_waiters();
        view.tell_news(&services.feed);
        self.gauge(view.setup.direction).increment(1);
        let main_account = view.setup.parent_account.clone();
        let log_space = services.recordings.space().file(Content::EventLog, main_account);
        let journal = EventLogWriter::new(
            view.setup.call,
            (services.clock.clone(), view.arrived),
            view.log.clone(),
            (services.store.event_log(), log_space),
            services.traces.clone(),
        );
        (CallGuard { registry: self.clone(), view }, journal)
    }

    fn setup(&self, number: &NumberEntry, incoming: &Incoming) -> Option<CallSetup> {
        let spec = &number.spec;
        // Without an application, the number's agent answers the call.
        let (answer, answer_method) = author::answer_of(self.0.gate.directory(), spec)?;
        let hangup = spec.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method));
        Some(CallSetup {
            call: incoming.call.unwrap_or_else(|| self.0.services.call_uuid()),
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(incoming.key.wacid.clone()),
            phone_number_id: incoming.key.phone_number_id.clone(),
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
            outbound: None,
        })
    }

    /// Describes a live inbound call like [`Registry::birth`].
    pub(crate) fn birth_of(&self, call: &LiveCall) -> Birth {
        let services = &self.0.services;
        let lived = services.clock.now().saturating_duration_since(call.arrived);
        let born = services.clock.steady().minus(lived);
        Birth { node_id: services.node_id.clone(), born, setup: call.setup.clone() }
    }

    /// Ends a call without a callback or a request to Meta, because another node of the fleet has
    /// it, too, and reports it.
    pub fn withdraw(&self, call: CallUuid) {
        if let Some(view) = self.get(call) {
            view.withdrawn.notify_one();
        }
    }

    fn clean_up_withdrawn(&self, view: &LiveCall) {
        view.log.close();
        self.0.services.author.over(view.setup.call);
        warn!("call withdrawn: another node has it");
        metrics::counter!(metric::CALLS_WITHDRAWN_TOTAL).increment(1);
    }

    /// After a panic in a call's task: ends the call at Meta and completes its record.
    async fn clean_up_after_panic(&self, view: &LiveCall) {
        self.lost_leg(view);
        shell::end_after_fault(&self.0.services, view).await;
    }
}

/// The span of a call's task. `trace_id` is sent in `traceparent` with requests to the customer's
/// server.
fn span_of(call: CallUuid, peer: &Peer) -> Span {
    let number = peer.number().map(|number| tracing::field::display(number.spec.number.clone()));
    info_span!("call", call_uuid = %call, trace_id = %TraceId::from(call), number)
}

/// Removes a call from the tables on drop, however its task ends.
struct CallGuard {
    registry: Registry,
    view: Arc<LiveCall>,
}

impl CallGuard {
    /// Runs the call until it ends or is withdrawn. A panic ends only this call. Its slot is
    /// released with the call's future.
    async fn run(self, call: impl Future<Output = ()>) {
        let running = std::panic::AssertUnwindSafe(Box::pin(call)).catch_unwind();
        tokio::select! {
            ran = running => {
                if ran.is_err() {
                    error!("call task panicked");
                    self.registry.clean_up_after_panic(&self.view).await;
                }
            }
            () = self.view.withdrawn.notified() => self.registry.clean_up_withdrawn(&self.view),
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        let setup = &self.view.setup;
        self.registry.note_over(&self.view);
        // In this order, so that calls are never counted as fewer than there are.
        inner.over.fetch_sub(1, Ordering::AcqRel);
        inner.live.remove(&setup.call);
        self.view.tell_news(&inner.services.feed);
        // A web leg has no id at Meta.
        if self.view.line.is_none() {
            inner.bindings.leave(&*self.view, inner.services.clock.now());
        }
        inner.one_over.notify_waiters();
        self.registry.leave_legs(&self.view);
        // A call that ended normally has already left its room.
        if let Some(seats) = &inner.services.seats {
            drop(seats.leave(setup.call, &[]));
        }
        inner.services.rooms.leave(setup.call, &[], drop);
    }
}
