//! Properties of the counters with real threads, and the order of the gate's checks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use model::Clock;
use model::{AuthId, Direction, E164, PhoneNumberId, Timestamp};

const SECOND: u64 = 1_000_000_000;

#[test]
fn r01_a_million_admissions_from_eight_threads_reach_the_limit_and_never_pass_it() {
    const LIMIT: u32 = 1_000;
    const EACH: usize = 125_000;
    let slots = Slots::new(LIMIT);
    let begin = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let begin = begin.clone();
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                let mut admitted = 0;
                begin.wait();
                while admitted < EACH {
                    match slots.acquire() {
                        Some(slot) => {
                            admitted += 1;
                            held.push_back(slot);
                        }
                        // The number is full, so one of this thread's calls ends.
                        None if held.pop_front().is_none() => std::thread::yield_now(),
                        None => {}
                    }
                    assert!(slots.in_use() <= LIMIT);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(slots.high_water(), u64::from(LIMIT));
    assert_eq!(slots.in_use(), 0);
}

#[test]
fn r01_a_panic_releases_the_slot() {
    let slots = Slots::new(1);
    let ended = std::thread::spawn(move || {
        let _slot = slots.acquire();
        std::panic::resume_unwind(Box::new("the call panicked"));
    });
    assert!(ended.join().is_err());
    assert_eq!(slots.in_use(), 0);
}

#[test]
fn r01_a_lowered_limit_ends_no_call_and_refuses_until_below() {
    let slots = Slots::new(3);
    let held: Vec<_> = (0..3).map(|_| slots.acquire().unwrap()).collect();
    slots.set_limit(1);
    assert_eq!(slots.in_use(), 3);
    for slot in held {
        assert!(slots.acquire().is_none());
        drop(slot);
    }
    assert!(slots.acquire().is_some());
}

/// Whether no second contains `cps` + 1 of these admission times.
fn exact(times: &mut [u64], cps: usize) -> bool {
    times.sort_unstable();
    times.windows(cps + 1).all(|w| w[cps] - w[0] >= SECOND)
}

#[test]
fn f10_a_limit_is_not_lowered_below_what_is_in_use() {
    let slots = Slots::new(5);
    let held: Vec<_> = (0..3).map(|_| slots.acquire().unwrap()).collect();
    assert_eq!((slots.lower_to(4), slots.lower_to(1), slots.limit()), (4, 3, 3));
    assert!(slots.acquire().is_none());
    drop(held);
    assert_eq!((slots.lower_to(9), slots.lower_to(0)), (3, 0), "a lower limit stays");
    assert!(slots.acquire().is_none());
}

#[test]
fn f10_a_permit_is_given_away_a_second_after_its_use() {
    const MS: u64 = 1_000_000;
    let ring = Ring::new(3);
    for _ in 0..2 {
        let _ = ring.take(10 * SECOND).unwrap();
    }
    assert_eq!(ring.lower_to(0, 10 * SECOND), 2, "one was not used");
    assert_eq!(ring.lower_to(0, 11 * SECOND), 2, "they rest");
    assert!(ring.take(11 * SECOND).is_some(), "and can be used again here");
    // The place after it rests no more; the one just used does, and keeps the limit.
    let now = 11 * SECOND + MS;
    let left = ring.lower_to(0, now);
    assert!((1..=2).contains(&left));
    assert_eq!(ring.lower_to(0, now + SECOND), 0);
    assert!(ring.take(now + 2 * SECOND).is_none());
    assert_eq!(ring.room_at(now), u64::MAX);
    ring.set_limit(2);
    assert!(ring.take(now + 2 * SECOND).is_some());
    assert!(ring.take(now + 2 * SECOND).is_some());
    assert!(ring.take(now + 2 * SECOND).is_none());
}

#[test]
fn r01_no_second_holds_more_than_cps_with_eight_threads() {
    for cps in [1, 3, 10, 50] {
        let ring = Arc::new(Ring::new(cps));
        let ticks = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (ring, ticks, stop) = (ring.clone(), ticks.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut admitted = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        // All threads read one advancing clock, and others overtake them at random.
                        let now = ticks.fetch_add(40_009, Ordering::Relaxed) + thread * 1_013;
                        if ring.take(now).is_some() {
                            admitted.push(now);
                        }
                        if now > 20 * SECOND {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    admitted
                })
            })
            .collect();
        let mut times: Vec<u64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let most = 21 * cps as usize;
        assert!(exact(&mut times, cps as usize), "cps {cps}");
        assert!(
            times.len() <= most && times.len() >= most - most / 8,
            "cps {cps}: {} of {most}",
            times.len()
        );
    }
}

/// A reference model that is obviously correct: it lists all admission times.
#[derive(Default)]
struct Model(Vec<u64>);

impl Model {
    fn take(&mut self, now: u64, cps: usize) -> bool {
        let recent = self.0.iter().filter(|t| now - **t < SECOND).count();
        if recent < cps {
            self.0.push(now);
        }
        recent < cps
    }
}

proptest! {
    #[test]
    fn r01_the_ring_agrees_with_a_list(cps in 1u32..40, steps in prop::collection::vec(0u64..SECOND / 4, 1..400)) {
        let (ring, mut model, mut now) = (Ring::new(cps), Model::default(), 0);
        for step in steps {
            now += step;
            let room = ring.find(now).is_some();
            let taken = ring.take(now).is_some();
            prop_assert_eq!((room, taken), (taken, model.take(now, cps as usize)));
            prop_assert_eq!(ring_count(&ring, now), model.0.iter().filter(|t| now - **t < SECOND).count());
        }
    }

    #[test]
    fn r01_windows_stay_exact_when_clocks_of_threads_differ(
        cps in 1u32..8,
        steps in prop::collection::vec((0u64..SECOND / 3, 0u64..SECOND), 1..300),
    ) {
        let (ring, mut now, mut admitted) = (Ring::new(cps), SECOND, Vec::new());
        for (step, behind) in steps {
            now += step;
            let seen = now - behind.min(now);
            if ring.take(seen).is_some() {
                admitted.push(seen);
            }
        }
        prop_assert!(exact(&mut admitted, cps as usize));
    }

    #[test]
    fn r01_a_changed_rate_applies_to_every_window_after_the_change(
        rates in prop::collection::vec(1u32..70, 1..6),
        steps in prop::collection::vec(0u64..SECOND / 30, 200),
    ) {
        let (ring, mut now) = (Ring::new(rates[0]), 0);
        for rate in rates {
            ring.set_limit(rate);
            let mut admitted = Vec::new();
            for step in &steps {
                now += step;
                if ring.take(now).is_some() {
                    admitted.push(now);
                }
            }
            prop_assert!(exact(&mut admitted, rate as usize));
            // After an idle second the whole rate is available immediately.
            now += SECOND;
            let burst = (0..=rate).filter(|_| ring.take(now).is_some()).count();
            prop_assert_eq!(burst, rate as usize);
        }
    }
}

/// Admissions in the ring's last second, measured by taking all free permits and returning them.
fn ring_count(ring: &Ring, now: u64) -> usize {
    let permits: Vec<_> = std::iter::from_fn(|| ring.take(now)).collect();
    let free = permits.len();
    permits.into_iter().rev().for_each(|p| ring.give_back(p, now));
    ring.limit() - free
}

fn account(id: &str, parent: Option<&str>, cps: Option<u32>) -> AccountSpec {
    AccountSpec { auth_id: id.into(), parent: parent.map(AuthId::from), cps, tokens: Vec::new() }
}

fn number(digits: &str, id: &str, account: &str, calls: u32) -> NumberSpec {
    NumberSpec { calls_per_number: calls, ..NumberSpec::for_tests(digits, id, account) }
}

struct World {
    gate: Gate,
    clock: Clock,
}

impl World {
    fn new(accounts: Vec<AccountSpec>, numbers: Vec<NumberSpec>) -> Self {
        let clock = Clock::stepped(Timestamp::from_secs(1_790_000_000));
        let directory = Directory::new(10);
        directory.replace(accounts, numbers).unwrap();
        Self { gate: Gate::new(Arc::new(directory), clock.now()), clock }
    }

    fn admit(&self, id: &str) -> Result<Admitted, Reason> {
        self.admit_offer(id, true)
    }

    fn admit_offer(&self, id: &str, usable: bool) -> Result<Admitted, Reason> {
        self.gate
            .admit(self.clock.now(), &PhoneNumberId::from(id), Direction::Inbound, |_| {
                usable.then_some(()).ok_or(Reason::BadOffer)
            })
            .map(|(admitted, ())| admitted)
            .map_err(|refused| refused.reason)
    }
}

#[test]
fn checks_run_in_the_documented_order_and_spend_nothing() {
    let mut disabled = number("447700900123", "4", "MA1", 1);
    disabled.calling_enabled = false;
    let world = World::new(
        vec![account("MA1", None, Some(2)), account("MA2", None, Some(9))],
        vec![
            number("918035737458", "1", "MA1", 1),
            number("5511951230001", "2", "MA1", 5),
            disabled,
        ],
    );
    let refused = |id, usable| world.admit_offer(id, usable).unwrap_err();
    assert_eq!(refused("9", false), Reason::UnknownNumber);
    assert_eq!(refused("4", false), Reason::CallingDisabled);
    assert_eq!(refused("1", false), Reason::BadOffer);
    let call = world.admit("1").unwrap();
    assert_eq!(refused("1", false), Reason::NumberFull);
    let (_, _slot) = world.admit("2").unwrap().begin();
    assert_eq!(refused("1", false), Reason::NumberFull);
    assert_eq!(refused("2", false), Reason::CpsExceeded);
    world.gate.drain();
    assert_eq!(refused("2", false), Reason::CpsExceeded);
    world.clock.step(Duration::from_secs(1));
    assert_eq!(refused("2", false), Reason::Draining);
    drop(call);
    assert_eq!(
        world
            .gate
            .directory()
            .slots_in_use()
            .iter()
            .map(|(n, used)| (n.as_str(), *used))
            .collect::<Vec<_>>(),
        [("447700900123", 0), ("5511951230001", 1), ("918035737458", 0)]
    );
}

#[test]
fn r01_refused_and_withdrawn_calls_spend_no_permit() {
    let world = World::new(
        vec![account("MA1", None, Some(1))],
        vec![number("918035737458", "1", "MA1", 1)],
    );
    for _ in 0..5 {
        assert_eq!(world.admit_offer("1", false).unwrap_err(), Reason::BadOffer);
        world.admit("1").unwrap().withdraw();
    }
    let held = world.admit("1").unwrap();
    drop(held);
    assert_eq!(
        world.admit("1").unwrap_err(),
        Reason::CpsExceeded,
        "a started call has spent its permit"
    );
}

#[test]
fn r01_a_main_accounts_rate_includes_its_subaccounts() {
    let world = World::new(
        vec![
            account("SA1", Some("MA1"), Some(2)),
            account("SA2", Some("MA1"), None),
            account("MA1", None, Some(3)),
        ],
        vec![
            number("918035737451", "main", "MA1", 9),
            number("918035737452", "one", "SA1", 9),
            number("918035737453", "two", "SA2", 9),
        ],
    );
    let mut held = vec![world.admit("one").unwrap(), world.admit("one").unwrap()];
    assert_eq!(world.admit("one").unwrap_err(), Reason::CpsExceeded, "its own limit");
    held.push(world.admit("two").unwrap());
    assert_eq!(world.admit("two").unwrap_err(), Reason::CpsExceeded, "the main account's limit");
    assert_eq!(world.admit("main").unwrap_err(), Reason::CpsExceeded);
    world.clock.step(Duration::from_millis(1_000));
    held.extend(["main", "main", "two"].map(|id| world.admit(id).unwrap()));
    // The main account refuses, so the subaccount's permit must be returned.
    assert_eq!(world.admit("one").unwrap_err(), Reason::CpsExceeded);
    world.clock.step(Duration::from_millis(1_000));
    held.extend(["one", "one"].map(|id| world.admit(id).unwrap()));
    assert_eq!(held.len(), 8);
}

#[test]
fn live_counters_survive_a_replacement_and_an_absence() {
    let accounts = || vec![account("MA1", None, Some(100))];
    let world = World::new(accounts(), vec![number("918035737458", "1", "MA1", 1)]);
    let live = world.admit("1").unwrap();
    let directory = world.gate.directory();
    directory.replace(accounts(), vec![number("918035737458", "1-new", "MA1", 1)]).unwrap();
    assert_eq!(world.admit("1").unwrap_err(), Reason::UnknownNumber);
    assert_eq!(world.admit("1-new").unwrap_err(), Reason::NumberFull);
    directory.replace(accounts(), vec![]).unwrap();
    assert_eq!(directory.slots_in_use()[0].1, 1, "its call is still live");
    directory.replace(accounts(), vec![number("918035737458", "1", "MA1", 2)]).unwrap();
    let second = world.admit("1").unwrap();
    assert_eq!(world.admit("1").unwrap_err(), Reason::NumberFull);
    drop((live, second));
    assert_eq!(world.gate.directory().slots_in_use()[0].1, 0);
    let by_number =
        directory.tables().by_number(&E164::parse("918035737458").unwrap()).cloned().unwrap();
    assert_eq!(by_number.spec.phone_number_id.as_str(), "1");
    assert_eq!(by_number.account.main().auth_id.as_str(), "MA1");
}

#[test]
fn a_threads_cache_sees_replacements_and_keeps_no_entry_alive() {
    let accounts = |token: &str| {
        vec![AccountSpec {
            tokens: vec![model::Secret::new(token)],
            ..account("MA1", None, Some(100))
        }]
    };
    let numbers = |ids: &[&str]| {
        ids.iter().map(|id| number(&format!("91803573745{id}"), id, "MA1", 1)).collect()
    };
    let directory = Directory::new(10);
    directory.replace(accounts("first"), numbers(&["1", "2"])).unwrap();
    let find = |id: &str| directory.number(&PhoneNumberId::from(id));
    let (turn, done) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(find("1").is_some());
            turn.wait();
            // The thread waits with its cache while the tables are replaced.
            done.wait();
            assert!(find("1").is_none() && find("2").is_some() && find("3").is_some());
        });
        turn.wait();
        let (entry, held) = (find("1").unwrap(), find("2").unwrap());
        let (gone, kept) = (Arc::downgrade(&entry), Arc::downgrade(&held));
        drop(entry);
        directory.replace(accounts("second"), numbers(&["2", "3"])).unwrap();
        assert!(gone.upgrade().is_none(), "not even the waiting thread keeps it");
        assert!(kept.upgrade().is_some(), "a call holds it");
        let tokens = |entry: &NumberEntry| {
            entry.account.tokens.iter().map(|t| t.reveal().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (tokens(&held), tokens(&find("2").unwrap())),
            (vec!["first".into()], vec!["second".into()])
        );
        drop(held);
        assert!(kept.upgrade().is_none());
        done.wait();
    });
    // The cache must tell another directory's numbers apart, on the same thread.
    let other = Directory::new(10);
    assert!(other.number(&PhoneNumberId::from("2")).is_none());
    assert!(find("2").is_some());
}

#[test]
fn numbers_are_found_while_they_are_replaced() {
    let tables =
        || (vec![account("MA1", None, Some(100))], vec![number("918035737458", "1", "MA1", 1)]);
    let world = World::new(tables().0, tables().1);
    let (directory, over) = (world.gate.directory(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(directory.number(&PhoneNumberId::from("1")).is_some());
                }
            });
        }
        for _ in 0..2_000 {
            directory.replace(tables().0, tables().1).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_new_default_rate_applies_only_with_valid_tables() {
    let tables = || (vec![account("MA1", None, None)], vec![number("918035737458", "1", "MA1", 9)]);
    let (accounts, numbers) = tables();
    let world = World::new(accounts, numbers);
    let directory = world.gate.directory();
    let limit = || {
        world.clock.step(Duration::from_secs(2));
        let held: Vec<_> = std::iter::from_fn(|| world.admit("1").ok()).collect();
        held.len()
    };
    let before = limit();
    let specs =
        |(accounts, numbers)| Specs { default_cps: 1, accounts, numbers, applications: vec![] };
    directory.replace_all(specs((vec![], tables().1))).unwrap_err();
    assert_eq!(limit(), before);
    directory.replace_all(specs(tables())).unwrap();
    assert_eq!(limit(), 1);
}

#[test]
fn invalid_tables_change_nothing() {
    let directory = Directory::new(10);
    directory
        .replace(vec![account("MA1", None, None)], vec![number("918035737458", "1", "MA1", 1)])
        .unwrap();
    let bad = [
        (vec![], vec![number("918035737458", "1", "MA9", 1)]),
        (vec![account("SA1", Some("MA1"), None)], vec![]),
        (
            vec![
                account("MA1", None, None),
                account("SA1", Some("MA1"), None),
                account("SA2", Some("SA1"), None),
            ],
            vec![],
        ),
        (vec![account("MA1", None, None), account("MA1", None, None)], vec![]),
        (
            vec![account("MA1", None, None)],
            vec![number("918035737458", "1", "MA1", 1), number("918035737459", "1", "MA1", 1)],
        ),
    ];
    for (accounts, numbers) in bad {
        let error = directory.replace(accounts, numbers).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert!(directory.number(&PhoneNumberId::from("1")).is_some(), "{error}");
    }
}

#[test]
fn a_real_instant_before_the_origin_is_harmless() {
    let world = World::new(
        vec![account("MA1", None, Some(1))],
        vec![number("918035737458", "1", "MA1", 9)],
    );
    let early = world.clock.now().checked_sub(Duration::from_secs(5));
    let admit = |now: Instant| {
        world.gate.admit(now, &PhoneNumberId::from("1"), Direction::Outbound, |_| Ok(()))
    };
    assert!(admit(early.unwrap_or(world.clock.now())).is_ok());
    assert_eq!(admit(world.clock.now()).unwrap_err().reason, Reason::CpsExceeded);
}

/// Outbound calls, with one number for each reason of refusal.
struct OutboundWorld {
    world: World,
    consents: permission::Consents,
}

const USER: &str = "919412341234";

impl OutboundWorld {
    fn new() -> Self {
        let mut disabled = number("447700900123", "off", "MA1", 1);
        disabled.calling_enabled = false;
        let mut barred_and_off = number("12125550123", "us", "MA1", 1);
        barred_and_off.calling_enabled = false;
        let numbers = vec![
            number("918035737458", "1", "MA1", 1),
            number("18765550123", "jm", "MA2", 9),
            number("905321234567", "tr", "MA1", 1),
            disabled,
            barred_and_off,
        ];
        let world =
            World::new(vec![account("MA1", None, Some(9)), account("MA2", None, Some(1))], numbers);
        Self { world, consents: permission::Consents::new() }
    }

    fn wall(&self) -> Timestamp {
        self.world.clock.steady()
    }

    fn event(&self, id: &str, event: permission::Event) {
        let key = permission::PairKey::new(&id.into(), USER);
        self.consents.apply(&key, &permission::Rules::default(), self.wall(), event);
    }

    fn grant(&self, id: &str) {
        let reply =
            permission::Reply::Accept { permanent: false, expiration: None, automatic: false };
        self.event(id, permission::Event::Replied { at: Some(self.wall()), reply });
    }

    fn call(&self, id: &str) -> Result<Outgoing, Denied> {
        self.world.gate.admit_business(
            self.world.clock.now(),
            self.wall(),
            &id.into(),
            USER,
            &self.consents,
        )
    }

    fn refused(&self, id: &str) -> Reason {
        self.call(id).unwrap_err().reason
    }
}

#[test]
fn an_outbound_call_is_refused_by_the_first_failing_check() {
    let outbound = OutboundWorld::new();
    assert_eq!(outbound.refused("9"), Reason::UnknownNumber);
    // Barred countries are checked before disabled calling, and both before permission.
    assert_eq!(outbound.refused("us"), Reason::GeoBlocked);
    assert_eq!(outbound.refused("tr"), Reason::GeoBlocked);
    assert_eq!(outbound.refused("off"), Reason::CallingDisabled);
    let denied = outbound.call("1").unwrap_err();
    assert_eq!(
        denied.to_string(),
        "no_permission: the user has not been asked for permission to be called"
    );
    outbound.grant("1");
    let held = outbound.call("1").unwrap();
    // The pair is checked before the number's slots.
    assert_eq!(outbound.refused("1"), Reason::UserBusy);
    let other = permission::PairKey::new(&"1".into(), "16315553601");
    let forever = permission::Event::Replied {
        at: None,
        reply: permission::Reply::Accept { permanent: true, expiration: None, automatic: false },
    };
    outbound.consents.apply(&other, &permission::Rules::default(), outbound.wall(), forever);
    let second = outbound.world.gate.admit_business(
        outbound.world.clock.now(),
        outbound.wall(),
        &"1".into(),
        &other.user,
        &outbound.consents,
    );
    assert_eq!(second.unwrap_err().reason, Reason::NumberFull, "the number before the rate");
    drop(held);
    outbound.grant("jm");
    drop(outbound.call("jm").unwrap());
    assert_eq!(outbound.refused("jm"), Reason::CpsExceeded);
    outbound.world.clock.step(Duration::from_secs(1));
    outbound.world.gate.pause();
    let refused = outbound.world.admit("1").unwrap_err();
    assert_eq!(refused, Reason::Draining, "a call that comes in during an upgrade");
    drop(outbound.call("jm").unwrap());
    outbound.world.gate.resume(outbound.world.clock.now());
    outbound.world.clock.step(Duration::from_secs(1));
    drop(outbound.world.admit("1").unwrap());
    outbound.world.clock.step(Duration::from_secs(1));
    outbound.world.gate.drain();
    assert_eq!(outbound.refused("jm"), Reason::Draining);
}

#[test]
fn a_queued_call_is_checked_again_at_its_turn() {
    let outbound = OutboundWorld::new();
    outbound.grant("jm");
    drop(outbound.call("jm").unwrap());
    assert_eq!(outbound.refused("jm"), Reason::CpsExceeded);
    outbound.world.clock.step(Duration::from_secs(1));
    (0..4).for_each(|_| outbound.event("jm", permission::Event::Unanswered));
    assert_eq!(outbound.refused("jm"), Reason::NoPermission);
    outbound.world.clock.step(Duration::from_secs(200));
    outbound.grant("jm");
    (0..5).for_each(|_| outbound.event("jm", permission::Event::Connected));
    let denied = outbound.call("jm").unwrap_err();
    assert_eq!(
        (denied.reason, denied.again()),
        (Reason::NoPermission, Some(outbound.wall().plus(Duration::from_secs(86_400))))
    );
    assert!(denied.to_string().starts_with("no_permission: as many calls "), "{denied}");
    assert!(denied.sentence().contains("(daily_limit); the next "), "{}", denied.sentence());
}

#[test]
fn l09_a_pair_has_one_outbound_call_and_is_free_when_its_last_call_ends() {
    let outbound = OutboundWorld::new();
    outbound.grant("1");
    let key = permission::PairKey::new(&"1".into(), USER);
    // The user's own calls count too, and there may be two of them.
    let theirs = [outbound.consents.engage(key.clone()), outbound.consents.engage(key.clone())];
    assert_eq!(outbound.refused("1"), Reason::UserBusy);
    let [first, second] = theirs;
    drop(first);
    assert_eq!(outbound.refused("1"), Reason::UserBusy);
    drop(second);
    let (admitted, engaged) = outbound.call("1").unwrap();
    admitted.withdraw();
    drop(engaged);
    drop(outbound.call("1").unwrap());
    assert!(!outbound.consents.is_engaged(&key));
}

#[test]
fn graph_is_asked_about_a_pair_at_most_once_a_minute() {
    let outbound = OutboundWorld::new();
    let key = permission::PairKey::new(&"1".into(), USER);
    assert!(outbound.consents.ask(&key, outbound.wall(), false), "nothing is known");
    assert!(!outbound.consents.ask(&key, outbound.wall(), true));
    outbound.world.clock.step(Duration::from_secs(59));
    assert!(!outbound.consents.ask(&key, outbound.wall(), false));
    outbound.world.clock.step(Duration::from_secs(1));
    assert!(outbound.consents.ask(&key, outbound.wall(), false));
    outbound.world.clock.step(Duration::from_secs(60));
    outbound.grant("1");
    assert!(!outbound.consents.ask(&key, outbound.wall(), false), "the pair is known");
    assert!(outbound.consents.ask(&key, outbound.wall(), true), "requested explicitly");
    outbound.world.clock.step(Duration::from_secs(60));
    outbound.event("1", permission::Event::NoPermission);
    assert!(outbound.consents.ask(&key, outbound.wall(), false), "138006");
}

#[test]
fn r01_the_time_of_the_next_permit_is_exact() {
    const SECOND: u64 = 1_000_000_000;
    let ring = Ring::new(2);
    assert_eq!(ring.room_at(5), 5);
    for at in [10, 700] {
        assert!(ring.take(at).is_some());
    }
    let next = ring.room_at(800);
    assert_eq!(next, 10 + SECOND);
    assert!(ring.find(next - 1).is_none() && ring.find(next).is_some());
    assert!(ring.take(next).is_some());
    assert_eq!(ring.room_at(next), 700 + SECOND);
    assert_eq!(Ring::new(0).room_at(7), u64::MAX, "never");
}

#[test]
fn permits_that_the_previous_process_spent_are_not_spent_again() {
    let accounts = || vec![account("MA1", None, Some(3)), account("SA1", Some("MA1"), Some(2))];
    let numbers = || vec![number("918035737458", "1", "SA1", 9)];
    let (old, new) = (World::new(accounts(), numbers()), World::new(accounts(), numbers()));
    let (_, _slot) = old.admit("1").unwrap().begin();
    old.clock.step(Duration::from_millis(900));
    let (_, _other) = old.admit("1").unwrap().begin();
    old.clock.step(Duration::from_millis(200));
    let spent = old.gate.spent_permits(old.clock.now());
    assert_eq!(spent, [("MA1".into(), 1), ("SA1".into(), 1)], "the first one is over a second old");
    new.gate.spend_permits(&spent, new.clock.now());
    let (_, _slot) = new.admit("1").unwrap().begin();
    assert_eq!(new.admit("1").unwrap_err(), Reason::CpsExceeded);
    new.clock.step(Duration::from_secs(1));
    assert!(new.admit("1").is_ok());
}
