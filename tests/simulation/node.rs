//! One run of a node's process: the real webhook handler and gate, and simulations of the registry,
//! shell, Graph client and writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use engine::admission::permission::{Engaged, PairKey};
use engine::admission::{
    AccountSpec, Admitted, Directory, Gate, NumberEntry, NumberSpec, Reason, Slot, Slots,
};
use engine::call::CallEvent;
use engine::call::binding::{Bindings, CallKey, EventOutcome, MetaState, Parties, Party};
use engine::call::queues::Queues;
use engine::call::registry::{Incoming, OnSettled, RejectsFull};
use engine::meta::{Budget, Policy};
use engine::webhook::{Calls, Effect, WebhookConfig, WebhookHandler};

use machine::{CallSetup, CallUrls, Input, MachineLimits, MediaEvent};
use media::sdp::Offer;
use model::Clock;
use model::Secret;
use model::{AuthId, CallType, CallUuid, Direction, E164, HangupCause, Method, Wacid};
use store::{Birth, CallStart};
use xml::ast::DocUrl;

use crate::graph::Request;
use crate::meta::{CallIx, EventKind, number, phone_number_id};
use crate::plan::{MS, SECOND};
use crate::rng::Rng;
use crate::shell::Call;
use crate::store::{Write, Writer};
use crate::world::{Event, StepResult, World};

/// The capacity of a mailbox, as in `call::shell`.
pub const MAILBOX: usize = 256;

pub const MAIN: &str = "MAXXXXXXXXXXXXXXXXXX";
pub const SUB: &str = "SAXXXXXXXXXXXXXXXXXX";

pub struct Node {
    pub life: u32,
    pub is_ready: bool,
    pub draining: bool,
    pub ending: bool,
    pub directory: Arc<Directory>,
    pub gate: Arc<Gate>,
    pub queues: Queues,
    /// Generation of the scheduled queue check. A rescheduled check replaces the earlier one.
    pub look: u64,
    pub tables: Arc<Tables>,
    pub slots: Vec<&'static Slots>,
    pub door: WebhookHandler<Phones>,
    book: Arc<Mutex<Book>>,
    pub beginning: BTreeMap<CallUuid, StartingCall>,
    pub calls: BTreeMap<CallUuid, Call>,
    pub requests: Vec<Request>,
    pub budget: Budget,
    pub policy: Policy,
    pub writer: Writer,
    pub pauses: engine::answer::RandomSource,
}

/// A call that has started while its task has not run yet.
pub struct StartingCall {
    pub ix: CallIx,
    pub view: Arc<View>,
    pub slot: Slot,
    pub engaged: Option<Engaged>,
    pub setup: CallSetup,
    pub arrived: Instant,
}

pub struct QueuedInput {
    pub at: Instant,
    pub input: Input,
}

/// State of the registry, and the effects of the current webhook.
pub struct Book {
    clock: Clock,
    ids: Rng,
    pub mailboxes: BTreeMap<CallUuid, VecDeque<QueuedInput>>,
    pub live: usize,
    live_max: usize,
    pub rejects: usize,
    rejects_max: usize,
    started: Vec<(Arc<View>, Admitted, Incoming)>,
    woken: Vec<CallUuid>,
    rejected: Vec<(Arc<NumberEntry>, Wacid)>,
    /// Calls at Meta that must be ended and belong to no live call.
    strays: Vec<(CallKey, Option<CallUuid>)>,
}

impl Book {
    /// Puts an input into a call's mailbox. Returns false if it is closed or full.
    pub fn tell(&mut self, call: CallUuid, input: Input) -> bool {
        let at = self.clock.now();
        match self.mailboxes.get_mut(&call) {
            Some(mailbox) if mailbox.len() < MAILBOX => {
                mailbox.push_back(QueuedInput { at, input });
                self.woken.push(call);
                true
            }
            _ => false,
        }
    }
}

/// A live call as seen by other calls and tasks.
pub struct View {
    pub setup: CallSetup,
    pub at_meta: MetaState,
    pub closing: AtomicBool,
    book: Arc<Mutex<Book>>,
}

impl Party for View {
    fn setup(&self) -> &CallSetup {
        &self.setup
    }

    fn at_meta(&self) -> &MetaState {
        &self.at_meta
    }

    fn token(&self) -> Option<Secret> {
        None
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn is_open(&self) -> bool {
        self.book.lock().expect("one thread").mailboxes.contains_key(&self.setup.call)
    }

    fn tell(&self, input: Input) -> bool {
        self.book.lock().expect("one thread").tell(self.setup.call, input)
    }

    fn answer(&self, _: Box<Offer>) -> bool {
        self.tell(Input::SdpAnswer { usable: true })
    }
}

/// The live calls, by UUID and by Meta's id.
pub struct Tables {
    views: Mutex<BTreeMap<CallUuid, Arc<View>>>,
    pub bindings: Bindings,
    book: Arc<Mutex<Book>>,
}

impl Parties for Tables {
    type Party = View;

    fn get(&self, call: CallUuid) -> Option<Arc<View>> {
        self.view(call)
    }

    fn end_at_meta(&self, key: CallKey, _: Option<Secret>, late: Option<CallUuid>) {
        self.book.lock().expect("one thread").strays.push((key, late));
    }
}

impl Tables {
    pub fn view(&self, call: CallUuid) -> Option<Arc<View>> {
        self.views.lock().expect("one thread").get(&call).cloned()
    }

    pub fn enter(&self, setup: &CallSetup, now: Instant) -> Arc<View> {
        let call = setup.call;
        let at_meta = MetaState::new(setup.wacid.clone());
        let view = View {
            setup: setup.clone(),
            at_meta,
            closing: AtomicBool::new(false),
            book: self.book.clone(),
        };
        let view = Arc::new(view);
        self.book.lock().expect("one thread").mailboxes.insert(call, VecDeque::new());
        self.bindings.enter(&*view, now);
        self.views.lock().expect("one thread").insert(call, view.clone());
        view
    }

    fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome {
        let now = self.book.lock().expect("one thread").clock.now();
        self.bindings.event(self, key, named, event, now)
    }
}

/// The calls as seen by the webhook handler.
pub struct Phones {
    book: Arc<Mutex<Book>>,
    tables: Arc<Tables>,
    limits: MachineLimits,
}

impl Calls for Phones {
    type Room = ();

    fn room(&self, _: &NumberEntry) -> Option<()> {
        Some(())
    }

    fn read_offer(&self, sdp: &str) -> Option<Offer> {
        Offer::parse(sdp, false).ok()
    }

    fn birth(&self, _: &NumberEntry, _: &mut Incoming) -> Option<Birth> {
        None
    }

    fn has(&self, _: &CallKey, named: Option<CallUuid>) -> bool {
        named.is_some_and(|call| self.tables.get(call).is_some())
    }

    fn start(
        &self,
        (): (),
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), (Box<Admitted>, Reason)> {
        let mut book = self.book.lock().expect("one thread");
        if book.live >= book.live_max {
            return Err((Box::new(admitted), Reason::Overloaded));
        }
        let id = (u128::from(book.ids.number()) << 64) | u128::from(book.ids.number());
        let call = CallUuid(uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid());
        book.live += 1;
        drop(book);
        let setup = setup(call, admitted.number(), &incoming, self.limits.clone());
        let view = self.tables.enter(&setup, incoming.arrived);
        self.book.lock().expect("one thread").started.push((view, admitted, incoming));
        Ok(())
    }

    fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome {
        self.tables.event(key, named, event)
    }

    fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        _reason: Reason,
        _settled: Option<OnSettled>,
    ) -> Result<(), RejectsFull> {
        let mut book = self.book.lock().expect("one thread");
        if book.rejects >= book.rejects_max {
            return Err(RejectsFull);
        }
        book.rejects += 1;
        book.rejected.push((number.clone(), wacid));
        Ok(())
    }
}

impl Node {
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("one thread")
    }

    /// Returns the number of live calls of a number, including those whose task has not run yet.
    pub fn live(&self, number: usize) -> usize {
        let id = phone_number_id(number);
        let of = |view: &View| view.setup.phone_number_id.as_str() == id;
        self.calls.values().filter(|call| of(&call.view) && call.holds_a_slot()).count()
            + self.beginning.values().filter(|begin| of(&begin.view)).count()
    }
}

impl World {
    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("what process to a node process while it is up")
    }

    fn tables(&mut self, directory: &Directory) {
        let url = |path: &str| {
            (DocUrl(format!("https://app.example.com/{path}").as_str().into()), Method::Post)
        };
        let account = |id: &str, parent: Option<&str>, cps| AccountSpec {
            auth_id: id.into(),
            parent: parent.map(AuthId::from),
            cps,
            tokens: Vec::new(),
        };
        let accounts = vec![
            account(MAIN, None, Some(self.plan.cps)),
            account(SUB, Some(MAIN), self.plan.sub_cps),
        ];
        let numbers = self.plan.numbers.iter().enumerate().map(|(index, plan)| NumberSpec {
            number: E164::parse(&number(index)).expect("a number"),
            first_id: phone_number_id(index).as_str().into(),
            phone_number_id: phone_number_id(index).as_str().into(),
            waba: "1029384756".into(),
            account: if plan.of_sub { SUB } else { MAIN }.into(),
            alias: String::new(),
            calling_enabled: true,
            silent: false,
            agent_first: false,
            answer: Some(url("answer")),
            fallback: plan.fallback.then(|| url("fallback")),
            hangup: plan.hangup.then(|| url("hangup")),
            messages: None,
            calls_per_number: plan.limit,
            // Unwilling users grant no permission.
            permissions: Default::default(),
            access_token: None,
        });
        directory.replace(accounts, numbers.collect()).expect("sound tables");
    }

    /// Starts the process. Calls that an earlier one left open are closed before the first webhook
    /// is accepted.
    pub fn boot(&mut self) -> StepResult {
        if self.node.is_some() {
            return Ok(());
        }
        let directory = Arc::new(Directory::new(10));
        self.tables(&directory);
        let slots = (0..self.plan.numbers.len())
            .map(|index| {
                directory
                    .number(&phone_number_id(index).as_str().into())
                    .expect("it is there")
                    .slots
            })
            .collect();
        let gate = Arc::new(Gate::new(directory.clone(), self.instant()));
        let book = Arc::new(Mutex::new(Book {
            clock: self.clock.clone(),
            ids: self.rng.fork(),
            mailboxes: BTreeMap::new(),
            live: 0,
            live_max: self.plan.live_max,
            rejects: 0,
            rejects_max: self.plan.rejects_max,
            started: Vec::new(),
            woken: Vec::new(),
            rejected: Vec::new(),
            strays: Vec::new(),
        }));
        let (views, bindings) = (Mutex::default(), Bindings::default());
        let tables = Arc::new(Tables { views, bindings, book: book.clone() });
        let phones =
            Phones { book: book.clone(), tables: tables.clone(), limits: self.plan.limits.clone() };
        let config = WebhookConfig {
            app_secret: Secret::new("app secret"),
            app_secret_previous: None,
            verify_token: Secret::new("verify token"),
        };
        let pauses = Mutex::new(self.rng.fork());
        self.node = Some(Node {
            life: self.life,
            is_ready: false,
            draining: false,
            ending: false,
            directory,
            slots,
            door: WebhookHandler::new(phones, gate.clone(), self.clock.clone(), &config),
            gate,
            queues: Queues::default(),
            look: 0,
            tables,
            book,
            beginning: BTreeMap::new(),
            calls: BTreeMap::new(),
            requests: Vec::new(),
            budget: Budget::new(self.instant()),
            policy: Policy::default(),
            writer: Writer::default(),
            pauses: engine::answer::RandomSource::from_fn(move || {
                pauses.lock().expect("one thread").number()
            }),
        });
        self.arm_crash();
        self.note(format_args!("node: starts"));
        self.store.stuck_until = 0;
        self.recover()?;
        self.node().is_ready = true;
        self.note(format_args!("node: ready"));
        Ok(())
    }

    /// Handles a webhook. Returns true if it is answered with 200.
    pub fn webhook(
        &mut self,
        body: &str,
        event_kind: EventKind,
        named: bool,
        ix: CallIx,
    ) -> StepResult<bool> {
        self.effect()?;
        let before = self.before(ix);
        let known = named && self.is_known(ix);
        let mut ours = Vec::new();
        let mut busy = false;
        let read = self.node().door.deliver(body.as_bytes(), |handled| {
            busy |= handled.effect == Effect::Busy;
            // The unreadable items of the batch.
            if handled.effect != Effect::Malformed {
                ours.push(handled.effect);
            }
        });
        if read.is_err() || ours.len() != 1 {
            self.fail(format!("R5: of one good item came {ours:?}"));
            return Ok(true);
        }
        self.item_done(ix, event_kind, named, ours[0]);
        if self.meta.calls[ix].placed.is_some() {
            self.judge_placed(ix, event_kind, ours[0], known);
        } else {
            self.judge(ix, event_kind == EventKind::Connect, ours[0], before);
        }
        let (started, rejected) = {
            let mut book = self.node().book();
            (std::mem::take(&mut book.started), std::mem::take(&mut book.rejected))
        };
        let life = self.life;
        for (view, admitted, incoming) in started {
            let (call, setup) = (view.setup.call, view.setup.clone());
            // Before others learn of the call, its row is stored or queued.
            self.write(Write::Born(Box::new((CallStart::of(&setup, "node"), setup.clone()))));
            let (_, slot) = admitted.begin();
            let pair = PairKey::new(&setup.phone_number_id, &setup.from);
            let engaged = Some(self.store.consents.engage(pair));
            let begin = StartingCall { ix, view, slot, engaged, setup, arrived: incoming.arrived };
            self.watch.admitted(call, incoming.key, ix, life, self.now);
            self.node().beginning.insert(call, begin);
            self.in_order(0, Event::Run { life, call });
        }
        for (number, wacid) in rejected {
            let key = CallKey { phone_number_id: number.spec.phone_number_id.clone(), wacid };
            self.reject_at_graph(key);
        }
        self.wake();
        self.end_strays();
        // A kill before the 200 is sent.
        self.effect()?;
        Ok(!busy)
    }

    /// Ends calls at Meta that belong to no live call.
    fn end_strays(&mut self) {
        let strays = std::mem::take(&mut self.node().book().strays);
        strays.iter().for_each(|(key, late)| self.end_stray(key, *late));
    }

    /// Binds a placed call to the id that Graph returned.
    pub fn bind(&mut self, call: &View, wacid: Wacid) {
        let now = self.instant();
        let tables = self.node().tables.clone();
        let key =
            CallKey { phone_number_id: call.setup.phone_number_id.clone(), wacid: wacid.clone() };
        let ix = self.call_of(&key);
        self.watch.must_end(ix);
        tables.bindings.bind(&*tables, call, wacid, now);
        self.wake();
        self.end_strays();
    }

    /// Schedules the calls that have something in their mailbox.
    fn wake(&mut self) {
        let woken = std::mem::take(&mut self.node().book().woken);
        let life = self.life;
        for call in woken {
            let us = if self.rng.chance(200) { self.rng.between(0, 2 * MS) } else { 0 };
            self.in_order(us, Event::Run { life, call });
        }
    }

    /// Sends an input to a call.
    pub fn tell(&mut self, call: CallUuid, input: Input) -> bool {
        let taken = self.node().book().tell(call, input);
        self.wake();
        taken
    }

    /// Removes a call from the tables.
    pub fn leave(&mut self, call: CallUuid) {
        let now = self.instant();
        let node = self.node();
        let mut book = node.book();
        book.live -= 1;
        book.mailboxes.remove(&call);
        let empty = book.live == 0;
        drop(book);
        let view = node.tables.views.lock().expect("one thread").remove(&call);
        node.tables.bindings.leave(&*view.expect("it was in the tables"), now);
        let life = node.life;
        if node.draining && empty {
            self.after(0, Event::DrainOver { life });
        }
    }

    pub fn drain(&mut self) -> StepResult {
        if self.node.is_none() {
            return Ok(());
        }
        self.note(format_args!("node: told to stop"));
        let (life, us) = (self.life, self.plan.drain_us);
        let node = self.node();
        node.draining = true;
        node.gate.drain();
        self.drain_queues();
        let node = self.node();
        let us = if node.book().live == 0 { 0 } else { us };
        self.after(us, Event::DrainOver { life });
        Ok(())
    }

    /// The drain timed out, or its last call ended. Remaining calls are ended.
    pub fn drain_over(&mut self) -> StepResult {
        if std::mem::replace(&mut self.node().ending, true) {
            return Ok(());
        }
        let calls: Vec<_> = self.node().book().mailboxes.keys().copied().collect();
        self.note(format_args!("node: ends, {} calls are cut", calls.len()));
        for call in calls {
            self.tell(call, Input::HangUp { cause: HangupCause::Drained });
        }
        let life = self.life;
        self.after(4 * SECOND, Event::Gone { life });
        Ok(())
    }

    /// The process exits after writing its queue.
    pub fn gone(&mut self) -> StepResult {
        self.node().is_ready = false;
        if self.now >= self.store.stuck_until {
            while !self.node().writer.queue.is_empty() {
                self.write_batch()?;
            }
            let open: Vec<_> = self.store.open().collect();
            if !open.is_empty() {
                self.fail(format!("R9: a drained node leaves records open: {open:?}"));
            }
        }
        self.note(format_args!("node: gone"));
        self.watch.tally.drains += 1;
        self.down();
        let away = self.rng.pick(&[SECOND, 3 * SECOND]);
        self.after(away, Event::Boot);
        Ok(())
    }

    /// Reloads with other limits for the numbers. Live calls stay.
    pub fn reload(&mut self) -> StepResult {
        for index in 0..self.plan.numbers.len() {
            self.plan.numbers[index].limit = self.rng.pick(&[1, 2, 4]);
        }
        let limits: Vec<_> = self.plan.numbers.iter().map(|number| number.limit).collect();
        self.note(format_args!("node: other limits, {limits:?}"));
        if let Some(directory) = self.node.as_ref().map(|node| node.directory.clone()) {
            self.tables(&directory);
        }
        Ok(())
    }

    /// Sends an input from a leg to the node's call that corresponds to Meta's call `ix`.
    pub fn leg_input(&mut self, ix: CallIx, input: Input) {
        let Some(node) = &self.node else { return };
        let Some(call) = node.calls.values().find(|call| call.ix == ix && call.has_leg()) else {
            return;
        };
        let call = call.uuid;
        if matches!(input, Input::Media { event: MediaEvent::Connected, .. }) {
            self.leg_connects(call);
        }
        self.tell(call, input);
    }

    pub fn call_of(&self, key: &CallKey) -> CallIx {
        self.meta.calls.iter().position(|call| call.key == *key).expect("Meta knows its calls")
    }
}

fn setup(
    call: CallUuid,
    number: &NumberEntry,
    incoming: &Incoming,
    limits: MachineLimits,
) -> CallSetup {
    let spec = &number.spec;
    let (answer, answer_method) = spec.answer.clone().expect("numbers have an answer URL");
    CallSetup {
        call,
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        wacid: Some(incoming.key.wacid.clone()),
        phone_number_id: incoming.key.phone_number_id.clone(),
        from: incoming.from.clone(),
        to: spec.number.to_string(),
        caller_name: String::new(),
        cta_payload: None,
        deeplink_payload: None,
        account: number.account.auth_id.clone(),
        parent_account: number.account.main().auth_id.clone(),
        urls: CallUrls {
            hangup: spec.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method)),
            answer,
            answer_method,
            fallback: spec.fallback.clone(),
        },
        started: incoming.arrived_wall,
        limits,
        headers: Vec::new(),
        outbound: None,
    }
}
