//! Edge cases of calls that wait for a permit (`docs/reference/limits.md#l6`): the real queues and
//! gate with a manual clock.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::admission::permission::{Consents, Engaged};
use engine::admission::settings::Permissions;
use engine::admission::{AccountSpec, Admitted, Directory, Gate, NumberEntry, NumberSpec};
use engine::call::queues::{Exit, NotPlaced, QUEUE_MAX, Queues, Rules, WAIT_MAX, Waiting};
use machine::{CallSetup, CallUrls, MachineLimits};
use model::Clock;
use model::{CallType, CallUuid, Direction, E164, HangupCause, Method, Timestamp};
use xml::ast::DocUrl;

use crate::meta::{number, phone_number_id, user};
use crate::node::MAIN;

/// The outcome of the calls, in order.
#[derive(Default)]
struct Out {
    /// Keeps their slots.
    began: RefCell<Vec<(u128, (Admitted, Engaged))>>,
    given_up: RefCell<Vec<(u128, HangupCause)>>,
    noted: RefCell<Vec<u128>>,
    no_room: bool,
}

impl Exit for Out {
    fn start(
        &self,
        waiting: &Waiting,
        let_in: (Admitted, Engaged),
        _: Instant,
    ) -> Result<(), Box<Admitted>> {
        if self.no_room {
            return Err(Box::new(let_in.0));
        }
        self.began.borrow_mut().push((waiting.setup.call.0.as_u128(), let_in));
        Ok(())
    }

    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        assert!(why.is_some(), "who reads the record is told why");
        self.given_up.borrow_mut().push((waiting.setup.call.0.as_u128(), cause));
    }

    fn note(&self, setup: &CallSetup) -> bool {
        self.noted.borrow_mut().push(setup.call.0.as_u128());
        true
    }
}

struct World {
    clock: Clock,
    gate: Gate,
    consents: Consents,
    number: Arc<NumberEntry>,
    queues: Queues,
    out: Out,
}

impl World {
    fn new(cps: u32) -> Self {
        let clock = Clock::stepped(Timestamp::from_secs(1_795_154_591));
        let directory = Arc::new(Directory::new(10));
        let account =
            AccountSpec { auth_id: MAIN.into(), parent: None, cps: Some(cps), tokens: Vec::new() };
        let spec = NumberSpec {
            number: E164::parse(&number(0)).unwrap(),
            first_id: phone_number_id(0).as_str().into(),
            phone_number_id: phone_number_id(0).as_str().into(),
            waba: "1029384756".into(),
            account: MAIN.into(),
            alias: String::new(),
            calling_enabled: true,
            silent: false,
            agent_first: false,
            answer: None,
            fallback: None,
            hangup: None,
            messages: None,
            calls_per_number: 2_000,
            permissions: Permissions { enforce: false, ..Permissions::default() },
            access_token: None,
        };
        directory.replace(vec![account], vec![spec]).unwrap();
        let number = directory.number(&phone_number_id(0).as_str().into()).unwrap();
        let gate = Gate::new(directory, clock.now());
        Self {
            clock,
            gate,
            consents: Consents::new(),
            number,
            queues: Queues::default(),
            out: Out::default(),
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules { gate: &self.gate, consents: &self.consents, clock: &self.clock }
    }

    fn check_order(&self, id: usize) -> Result<(), NotPlaced> {
        self.queues.check_order(self.rules(), &self.number, &[E164::parse(&user(id)).unwrap()])
    }

    /// Orders a call to the user with this number, which is also its id.
    fn order(&mut self, id: usize) {
        self.check_order(id).unwrap();
        let url = |path: &str| {
            (DocUrl(format!("https://app.example.com/{path}").as_str().into()), Method::Post)
        };
        let (answer, answer_method) = url("answer");
        let setup = CallSetup {
            call: CallUuid(uuid::Uuid::from_u128(id as u128)),
            direction: Direction::Outbound,
            call_type: CallType::Whatsapp,
            wacid: None,
            phone_number_id: self.number.spec.phone_number_id.clone(),
            from: number(0),
            to: user(id),
            caller_name: String::new(),
            cta_payload: None,
            deeplink_payload: None,
            account: MAIN.into(),
            parent_account: MAIN.into(),
            urls: CallUrls { answer, answer_method, fallback: None, hangup: url("hangup") },
            started: self.clock.wall(),
            limits: MachineLimits::default(),
            headers: Vec::new(),
            outbound: None,
        };
        self.queues.push(self.number.clone(), setup, self.clock.now(), None);
    }

    fn release(&mut self) -> Option<Instant> {
        let rules = Rules { gate: &self.gate, consents: &self.consents, clock: &self.clock };
        self.queues.release(rules, &self.out)
    }

    fn began(&self) -> Vec<u128> {
        self.out.began.borrow().iter().map(|(call, _)| *call).collect()
    }
}

#[test]
fn l06_calls_start_in_order_and_within_the_accounts_rate() {
    let mut world = World::new(2);
    (0..5).for_each(|id| world.order(id));
    let next = world.release().expect("three wait");
    assert_eq!(world.began(), [0, 1]);
    assert_eq!(*world.out.noted.borrow(), [2, 3, 4], "those that wait have a record");
    assert_eq!(
        next,
        world.clock.now() + Duration::from_millis(500),
        "a rate may be raised meanwhile"
    );
    world.clock.step(Duration::from_micros(999_999));
    world.release();
    assert_eq!(world.began().len(), 2, "a second is not over");
    world.clock.step(Duration::from_micros(1));
    world.release();
    assert_eq!(world.began(), [0, 1, 2, 3]);
    world.clock.step(Duration::from_secs(1));
    assert_eq!(world.release(), None);
    assert_eq!(world.began(), [0, 1, 2, 3, 4]);
    assert_eq!(world.out.noted.borrow().len(), 3, "once each");
}

#[test]
fn l06_a_call_waits_for_two_minutes_at_most() {
    let mut world = World::new(1);
    (0..125).for_each(|id| world.order(id));
    world.release();
    for _ in 0..119 {
        world.clock.step(Duration::from_secs(1));
        world.release();
    }
    assert_eq!(world.began().len(), 120);
    assert!(world.out.given_up.borrow().is_empty(), "119 s are not too long");
    // A call that is ordered a moment earlier starts a new wait.
    world.clock.step(WAIT_MAX - Duration::from_secs(119) - Duration::from_micros(1));
    world.order(200);
    let next = world.release().expect("some wait");
    assert_eq!(
        next,
        world.clock.now() + Duration::from_micros(1),
        "no look comes later than their time is over"
    );
    assert!(world.out.given_up.borrow().is_empty());
    world.clock.step(Duration::from_micros(1));
    world.release();
    let expired: Vec<_> = (120..125).map(|id| (id, HangupCause::CpsExceeded)).collect();
    assert_eq!(
        *world.out.given_up.borrow(),
        expired,
        "all that were ordered with them, in their order"
    );
    assert_eq!(world.began().last(), Some(&200), "and the permit is for the next");
    assert_eq!(world.queues.iter().count(), 0);
}

#[test]
fn l06_queues_are_bounded_and_a_second_call_to_a_user_is_refused() {
    let mut world = World::new(1);
    world.order(0);
    world.release();
    (1..=QUEUE_MAX).for_each(|id| world.order(id));
    let full = world.check_order(5_000);
    assert!(
        matches!(full, Err(NotPlaced::QueueFull { after }) if after == Duration::from_secs(1)),
        "{full:?}"
    );
    for (id, what) in [(0, "is up"), (1, "waits")] {
        let busy = world.check_order(id);
        assert!(
            matches!(busy, Err(NotPlaced::Denied { .. })),
            "a call with the user {what}: {busy:?}"
        );
    }
    let waiting = world.queues.remove(CallUuid(uuid::Uuid::from_u128(1))).expect("it waits");
    assert_eq!(waiting.setup.to, user(1));
    world.check_order(1).unwrap();
    world.gate.drain();
    assert!(matches!(world.check_order(1), Err(NotPlaced::Draining)));
}

#[test]
fn r10_a_refused_call_keeps_no_permit_and_no_slot() {
    let mut world = World::new(1);
    world.out.no_room = true;
    world.order(0);
    world.release();
    assert!(world.out.given_up.borrow().is_empty(), "it waits until there is room");
    assert_eq!(world.number.slots.in_use(), 0);
    world.out.no_room = false;
    world.release();
    assert_eq!(world.began(), [0], "the permit is there at the same moment");
    assert_eq!(world.number.slots.in_use(), 1);
    world.out.no_room = true;
    world.order(1);
    world.clock.step(Duration::from_secs(119));
    world.release();
    assert!(world.out.given_up.borrow().is_empty());
    world.clock.step(Duration::from_secs(1));
    world.release();
    assert_eq!(*world.out.given_up.borrow(), [(1, HangupCause::CpsExceeded)]);
}
