//! One life of a node: the real door and gate, and a registry, a shell, a Graph client and a writer that carry out in
//! simulated time what the real ones do under tokio.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use offhook::admission::{AccountSpec, Admitted, Directory, Gate, NumberEntry, NumberSpec, Reason, Slot, Slots};
use offhook::call::machine::{CallSetup, CallUrls, Input, MediaFact, Termination};
use offhook::clock::Clock;
use offhook::config::Secret;
use offhook::media::sdp::Offer;
use offhook::meta::{Budget, Policy};
use offhook::model::{AuthId, CallType, CallUuid, Direction, E164, HangupCause, Method, Wacid};
use offhook::store::CallStart;
use offhook::webhook::{Busy, CallKey, Calls, Door, DoorConfig, Effect, Full, Heard, Incoming, Known, Said};
use offhook::xml::ast::DocUrl;

use crate::dice::Dice;
use crate::graph::Request;
use crate::meta::{CallIx, number, phone_number_id};
use crate::plan::{MS, SECOND};
use crate::shell::Call;
use crate::store::{Write, Writer};
use crate::world::{Event, Go, World};

/// `call::shell`'s bound.
pub const MAILBOX: usize = 256;

pub const MAIN: &str = "MAXXXXXXXXXXXXXXXXXX";
pub const SUB: &str = "SAXXXXXXXXXXXXXXXXXX";

pub struct Node {
    pub life: u32,
    pub is_ready: bool,
    pub draining: bool,
    pub ending: bool,
    pub directory: Arc<Directory>,
    gate: Arc<Gate>,
    pub slots: Vec<Arc<Slots>>,
    pub door: Door<Phones>,
    book: Arc<Mutex<Book>>,
    pub beginning: BTreeMap<CallUuid, Begin>,
    pub calls: BTreeMap<CallUuid, Call>,
    pub requests: Vec<Request>,
    pub budget: Budget,
    pub policy: Policy,
    pub writer: Writer,
    pub pauses: offhook::answer::Dice,
}

/// A call that the door has started and whose task has not run yet.
pub struct Begin {
    pub ix: CallIx,
    pub key: CallKey,
    pub slot: Slot,
    pub setup: CallSetup,
    pub arrived: Instant,
}

pub struct Fact {
    pub at: Instant,
    pub input: Input,
}

/// What a registry keeps, and what came of a webhook's items.
pub struct Book {
    clock: Clock,
    ids: Dice,
    pub by_key: BTreeMap<CallKey, CallUuid>,
    pub mailboxes: BTreeMap<CallUuid, VecDeque<Fact>>,
    pub live: usize,
    live_max: usize,
    pub rejects: usize,
    rejects_max: usize,
    started: Vec<(CallUuid, Admitted, Incoming<()>)>,
    told: Vec<CallUuid>,
    rejected: Vec<(Arc<NumberEntry>, Wacid)>,
}

impl Book {
    /// Puts a fact into a call's mailbox; false: it is closed or full.
    pub fn tell(&mut self, call: CallUuid, input: Input) -> bool {
        let at = self.clock.now();
        match self.mailboxes.get_mut(&call) {
            Some(mailbox) if mailbox.len() < MAILBOX => {
                mailbox.push_back(Fact { at, input });
                self.told.push(call);
                true
            }
            _ => false,
        }
    }
}

pub struct Phones(Arc<Mutex<Book>>);

impl Calls for Phones {
    type Offer = ();

    fn read_offer(&self, sdp: &str) -> Option<()> {
        Offer::parse(sdp, false).ok().map(|_| ())
    }

    fn start(&self, admitted: Admitted, incoming: Incoming<()>) -> Result<(), Busy> {
        let mut book = self.0.lock().expect("one thread");
        if book.live >= book.live_max {
            return Err(Busy(admitted));
        }
        let id = (u128::from(book.ids.number()) << 64) | u128::from(book.ids.number());
        let call = CallUuid(uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid());
        book.live += 1;
        book.by_key.insert(incoming.connect.key.clone(), call);
        book.mailboxes.insert(call, VecDeque::new());
        book.started.push((call, admitted, incoming));
        Ok(())
    }

    fn placed(&self, _: &CallKey, _: Option<CallUuid>, _: Said<()>) -> Heard {
        Heard::Parked
    }

    fn terminated(&self, key: &CallKey, _: Option<CallUuid>, termination: Termination) -> Known {
        let mut book = self.0.lock().expect("one thread");
        let Some(call) = book.by_key.get(key).copied() else { return Known::Unknown };
        if book.tell(call, Input::Terminated { termination }) {
            Known::Ended
        } else if book.mailboxes.contains_key(&call) {
            Known::Busy
        } else {
            Known::Unknown
        }
    }

    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, _reason: Reason) -> Result<(), Full> {
        let mut book = self.0.lock().expect("one thread");
        if book.rejects >= book.rejects_max {
            return Err(Full);
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

    /// Live calls of a number, those included whose task has not run yet.
    pub fn live(&self, number: usize) -> usize {
        let id = phone_number_id(number);
        let of = |key: &CallKey| key.phone_number_id.as_str() == id;
        self.calls.values().filter(|call| of(&call.key)).count()
            + self.beginning.values().filter(|begin| of(&begin.key)).count()
    }
}

impl World {
    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("what happens to a node happens while it is up")
    }

    fn tables(&mut self, directory: &Directory) {
        let url = |path: &str| (DocUrl(format!("https://app.example.com/{path}").as_str().into()), Method::Post);
        let account = |id: &str, parent: Option<&str>, cps| AccountSpec {
            auth_id: id.into(),
            parent: parent.map(AuthId::from),
            cps,
            tokens: Vec::new(),
        };
        let accounts = vec![account(MAIN, None, Some(self.plan.cps)), account(SUB, Some(MAIN), self.plan.sub_cps)];
        let numbers = self.plan.numbers.iter().enumerate().map(|(index, plan)| NumberSpec {
            number: E164::parse(&number(index)).expect("a number"),
            phone_number_id: phone_number_id(index).as_str().into(),
            waba: "1029384756".into(),
            account: if plan.of_sub { SUB } else { MAIN }.into(),
            alias: String::new(),
            calling_enabled: true,
            answer: Some(url("answer")),
            fallback: plan.fallback.then(|| url("fallback")),
            hangup: plan.hangup.then(|| url("hangup")),
            messages: None,
            calls_per_number: plan.limit,
            permissions: Default::default(),
            access_token: None,
        });
        directory.replace(accounts, numbers.collect()).expect("sound tables");
    }

    /// A process starts: what the one before it left open is closed before the first webhook is taken.
    pub fn boot(&mut self) -> Go {
        if self.node.is_some() {
            return Ok(());
        }
        let directory = Arc::new(Directory::new(10));
        self.tables(&directory);
        let slots = (0..self.plan.numbers.len())
            .map(|index| directory.number(&phone_number_id(index).as_str().into()).expect("it is there").slots.clone())
            .collect();
        let gate = Arc::new(Gate::new(directory.clone(), self.instant()));
        let book = Arc::new(Mutex::new(Book {
            clock: self.clock.clone(),
            ids: self.dice.fork(),
            by_key: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            live: 0,
            live_max: self.plan.live_max,
            rejects: 0,
            rejects_max: self.plan.rejects_max,
            started: Vec::new(),
            told: Vec::new(),
            rejected: Vec::new(),
        }));
        let config = DoorConfig {
            app_secret: Secret::new("app secret"),
            app_secret_previous: None,
            verify_token: Secret::new("verify token"),
        };
        let pauses = Mutex::new(self.dice.fork());
        self.node = Some(Node {
            life: self.life,
            is_ready: false,
            draining: false,
            ending: false,
            directory,
            slots,
            door: Door::new(Phones(book.clone()), gate.clone(), self.clock.clone(), &config),
            gate,
            book,
            beginning: BTreeMap::new(),
            calls: BTreeMap::new(),
            requests: Vec::new(),
            budget: Budget::new(self.instant()),
            policy: Policy::default(),
            writer: Writer::default(),
            pauses: offhook::answer::Dice::from_fn(move || pauses.lock().expect("one thread").number()),
        });
        self.light_fuse();
        self.note(format_args!("node: starts"));
        self.store.stuck_until = 0;
        self.recover()?;
        self.node().is_ready = true;
        self.note(format_args!("node: ready"));
        Ok(())
    }

    /// A webhook's body is read; whether it is answered 200.
    pub fn webhook(&mut self, body: &str, connect: bool, ix: CallIx) -> Go<bool> {
        self.effect()?;
        let before = self.before(ix);
        let mut ours = Vec::new();
        let mut busy = false;
        let read = self.node().door.deliver(body.as_bytes(), |handled| {
            busy |= handled.effect == Effect::Busy;
            // The bad company of a batch.
            if handled.effect != Effect::Malformed {
                ours.push(handled.effect);
            }
        });
        if read.is_err() || ours.len() != 1 {
            self.fail(format!("R5: of one good item came {ours:?}"));
            return Ok(true);
        }
        self.item_done(ix, connect, ours[0]);
        self.judge(ix, connect, ours[0], before);
        let (started, rejected) = {
            let mut book = self.node().book();
            (std::mem::take(&mut book.started), std::mem::take(&mut book.rejected))
        };
        let life = self.life;
        for (call, admitted, incoming) in started {
            let setup = self.setup(call, admitted.number(), &incoming);
            // Before anybody hears of the call it has a row, or is in the queue for one.
            self.write(Write::Born(Box::new((CallStart::of(&setup, "node"), setup.clone()))));
            let (_, slot) = admitted.begin();
            let begin = Begin { ix, key: incoming.connect.key, slot, setup, arrived: incoming.arrived };
            self.watch.admitted(call, begin.key.clone(), ix, life, self.now);
            self.node().beginning.insert(call, begin);
            self.in_order(0, Event::Run { life, call });
        }
        for (number, wacid) in rejected {
            let key = CallKey { phone_number_id: number.spec.phone_number_id.clone(), wacid };
            self.reject_at_graph(key);
        }
        self.wake();
        // Killed before the 200 is out.
        self.effect()?;
        Ok(!busy)
    }

    fn setup(&self, call: CallUuid, number: &NumberEntry, incoming: &Incoming<()>) -> CallSetup {
        let (spec, connect) = (&number.spec, &incoming.connect);
        let (answer, answer_method) = spec.answer.clone().expect("numbers have an answer URL");
        CallSetup {
            call,
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(connect.key.wacid.clone()),
            phone_number_id: connect.key.phone_number_id.clone(),
            from: connect.user(&spec.number),
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
            limits: self.plan.limits.clone(),
            headers: Vec::new(),
            outbound: None,
        }
    }

    /// Calls with something in their mailbox come to it soon.
    fn wake(&mut self) {
        let told = std::mem::take(&mut self.node().book().told);
        let life = self.life;
        for call in told {
            let us = if self.dice.chance(200) { self.dice.between(0, 2 * MS) } else { 0 };
            self.in_order(us, Event::Run { life, call });
        }
    }

    /// Tells a call something.
    pub fn tell(&mut self, call: CallUuid, input: Input) -> bool {
        let taken = self.node().book().tell(call, input);
        self.wake();
        taken
    }

    /// A call has left the tables.
    pub fn leave(&mut self, call: CallUuid, key: &CallKey) {
        let node = self.node();
        let mut book = node.book();
        book.live -= 1;
        book.mailboxes.remove(&call);
        if book.by_key.get(key) == Some(&call) {
            book.by_key.remove(key);
        }
        let empty = book.live == 0;
        drop(book);
        let life = node.life;
        if node.draining && empty {
            self.after(0, Event::DrainOver { life });
        }
    }

    pub fn drain(&mut self) -> Go {
        if self.node.is_none() {
            return Ok(());
        }
        self.note(format_args!("node: told to stop"));
        let (life, us) = (self.life, self.plan.drain_us);
        let node = self.node();
        node.draining = true;
        node.gate.drain();
        let us = if node.book().live == 0 { 0 } else { us };
        self.after(us, Event::DrainOver { life });
        Ok(())
    }

    /// The drain's time is over, or its last call: what is left is ended.
    pub fn drain_over(&mut self) -> Go {
        if std::mem::replace(&mut self.node().ending, true) {
            return Ok(());
        }
        let calls: Vec<_> = self.node().book().mailboxes.keys().copied().collect();
        self.note(format_args!("node: ends, {} calls are cut", calls.len()));
        for call in calls {
            self.tell(call, Input::Cut { cause: HangupCause::Drained });
        }
        let life = self.life;
        self.after(4 * SECOND, Event::Gone { life });
        Ok(())
    }

    /// The process leaves, its queue written.
    pub fn gone(&mut self) -> Go {
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
        let away = self.dice.pick(&[SECOND, 3 * SECOND]);
        self.after(away, Event::Boot);
        Ok(())
    }

    /// Other limits for the numbers; calls that are up stay.
    pub fn reload(&mut self) -> Go {
        for index in 0..self.plan.numbers.len() {
            self.plan.numbers[index].limit = self.dice.pick(&[1, 2, 4]);
        }
        let limits: Vec<_> = self.plan.numbers.iter().map(|number| number.limit).collect();
        self.note(format_args!("node: other limits, {limits:?}"));
        if let Some(directory) = self.node.as_ref().map(|node| node.directory.clone()) {
            self.tables(&directory);
        }
        Ok(())
    }

    /// Something of a leg's, if a call of ours has one: Meta's call `ix`.
    pub fn leg_fact(&mut self, ix: CallIx, fact: Input) {
        let key = self.meta.calls[ix].key.clone();
        let Some(node) = &self.node else { return };
        let Some(call) = node.book().by_key.get(&key).copied() else { return };
        if node.calls.get(&call).is_some_and(Call::has_leg) {
            if matches!(fact, Input::Media { what: MediaFact::Connected, .. }) {
                self.leg_connects(call);
            }
            self.tell(call, fact);
        }
    }

    pub fn call_of(&self, key: &CallKey) -> CallIx {
        self.meta.calls.iter().position(|call| call.key == *key).expect("Meta knows its calls")
    }
}
