//! Benchmark of admission against a lower bound: one atomic increment and decrement, and one look
//! at a ring buffer.
//!
//! `cargo bench --bench admission`. `admit` additionally looks up the directory, guards the slot
//! and checks both rings of a subaccount.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "common/paired.rs"]
mod paired;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::admission::{AccountSpec, Directory, Gate, Lack, Lease, NumberSpec, Ring, Slots};
use futures_util::future::BoxFuture;
use model::Clock;
use model::{Direction, E164, PhoneNumberId};

/// A fleet that has confirmed this process a moment ago. Like the real one, it compares a time with
/// the clock for each call.
#[derive(Debug)]
struct Confirmed {
    clock: Clock,
    until: AtomicU64,
}

impl Lease for Confirmed {
    fn admits(&self) -> bool {
        self.clock.uptime() <= Duration::from_micros(self.until.load(Ordering::Acquire))
    }

    fn request(&self, _: &Lack) {}

    fn wait<'a>(&'a self, _: &'a Lack, _: Instant) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    fn is_peer_moving(&self) -> bool {
        false
    }
}

fn gate(clock: &Clock) -> Result<Gate, Box<dyn std::error::Error>> {
    let directory = Directory::new(10);
    let account = |id: &str, parent: Option<&str>| AccountSpec {
        auth_id: id.into(),
        parent: parent.map(Into::into),
        cps: Some(100),
        tokens: Vec::new(),
    };
    let number = |n: u64, account: &str| -> Result<NumberSpec, String> {
        Ok(NumberSpec {
            number: E164::parse(&format!("9180{n:08}"))?,
            first_id: format!("1065403522{n:05}").into(),
            phone_number_id: format!("1065403522{n:05}").into(),
            waba: "1029384756".into(),
            account: account.into(),
            alias: String::new(),
            calling_enabled: true,
            silent: false,
            agent_first: false,
            answer: None,
            fallback: None,
            hangup: None,
            messages: None,
            calls_per_number: 1_000,
            permissions: Default::default(),
            access_token: None,
        })
    };
    let mut numbers = (0..200).map(|n| number(n, "MA1")).collect::<Result<Vec<_>, _>>()?;
    numbers.push(number(200, "SA1")?);
    directory.replace(vec![account("MA1", None), account("SA1", Some("MA1"))], numbers)?;
    Ok(Gate::new(Arc::new(directory), clock.now()))
}

/// A number of the main account, one of its subaccount, and one of an account without a permit
/// left.
const MAIN: &str = "106540352200007";
const SUB: &str = "106540352200200";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::stepped(Default::default());
    let (begun, step) = (clock.now(), Duration::from_millis(20));
    let (count, ring) = (AtomicU64::new(0), Ring::new(100));
    let mut now = 0;
    let mut bare = || {
        now += 20_000_000;
        let up = count
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < 1_000).then_some(n + 1));
        let room = ring.take(now);
        let down = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
        black_box((up.is_ok(), room, down.is_ok()));
    };
    let slots = Slots::new(1_000);
    let mut slot = || drop(black_box(slots.acquire()));
    let main_gate = gate(&clock)?;
    let mut admit = admission(&main_gate, MAIN, begun, step);
    let sub_gate = gate(&clock)?;
    let mut admit_sub = admission(&sub_gate, SUB, begun, step);
    let fleet_gate = gate(&clock)?;
    let real = Clock::real();
    let until = AtomicU64::new(u64::try_from(real.uptime().as_micros())? + 3_600_000_000);
    fleet_gate.join(Arc::new(Confirmed { clock: real, until }));
    let mut admit_in_fleet = admission(&fleet_gate, MAIN, begun, step);
    let full_gate = gate(&clock)?;
    let mut refuse = admission(&full_gate, MAIN, begun, Duration::ZERO);
    for _ in 0..200 {
        refuse();
    }
    let all: [&mut dyn FnMut(); 6] =
        [&mut bare, &mut slot, &mut admit, &mut admit_sub, &mut admit_in_fleet, &mut refuse];
    let [bare, slot, admit, admit_sub, admit_in_fleet, refuse] = paired::best(all);
    paired::ratio("admit and give back, over a bare pair and a ring", admit, bare, 2.0);
    paired::ratio("the same in a subaccount, which has two rings", admit_sub, bare, 2.0);
    println!(
        "in a fleet with units at hand: {admit_in_fleet:.0} ns, {:.0} ns more (target 30)",
        admit_in_fleet - admit
    );
    println!("a slot alone: {slot:.0} ns; refused, no permit left: {refuse:.0} ns");
    on_two_threads(begun)
}

/// Returns a closure that admits a call, `step` after the previous one, and frees its slot.
fn admission<'g>(
    gate: &'g Gate,
    number: &str,
    begun: Instant,
    step: Duration,
) -> impl FnMut() + use<'g> {
    let (id, mut at) = (PhoneNumberId::from(number), begun);
    move || {
        at += step;
        black_box(
            gate.admit(at, &id, Direction::Inbound, |_| Ok(()))
                .map(|(admitted, ())| drop(admitted))
                .is_ok(),
        );
    }
}

/// Measures an admission while two threads admit concurrently, relative to one thread. Processor
/// time is compared, so other load on the machine does not count. 1 means no contention.
fn on_two_threads(begun: Instant) -> Result<(), Box<dyn std::error::Error>> {
    let gate = gate(&Clock::stepped(Default::default()))?;
    let floor = (AtomicU64::new(0), Ring::new(100));
    // Both threads draw from one timeline, as they do in a node.
    let time = AtomicU64::new(0);
    let bare = |_: u32| {
        let now = time.fetch_add(20_000_000, Ordering::Relaxed);
        let up = floor
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < 1_000).then_some(n + 1));
        let room = floor.1.take(now);
        black_box((up.is_ok(), room, floor.0.fetch_sub(1, Ordering::AcqRel)));
    };
    let ids: Vec<PhoneNumberId> = [MAIN, SUB].map(PhoneNumberId::from).into();
    let number = |thread: u32| ids.get(thread as usize % 2).unwrap_or(&ids[0]);
    let one_number = |_: u32| {
        let at = begun + Duration::from_nanos(time.fetch_add(20_000_000, Ordering::Relaxed));
        black_box(gate.admit(at, number(0), Direction::Inbound, |_| Ok(())).is_ok());
    };
    let two_numbers = |thread: u32| {
        let at = begun + Duration::from_nanos(time.fetch_add(20_000_000, Ordering::Relaxed));
        black_box(gate.admit(at, number(thread), Direction::Inbound, |_| Ok(())).is_ok());
    };
    for (what, work) in [
        ("the bare pair and ring", &bare as &(dyn Fn(u32) + Sync)),
        ("one number", &one_number),
        ("two numbers of one account", &two_numbers),
    ] {
        let (one, two) = (spent_each(1, work), spent_each(2, work));
        println!(
            "two threads at once, {what}: {two:.0} ns over {one:.0} ns of one alone, ratio {:.2}",
            two / one
        );
    }
    Ok(())
}

/// Returns the processor time of one run of `work` in nanoseconds: the best of a few attempts.
fn spent_each(threads: u32, work: &(dyn Fn(u32) + Sync)) -> f64 {
    const RUNS: u32 = 200_000;
    let spent = || -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    let thread = |nr: u32| {
        let before = spent();
        (0..RUNS).for_each(|_| work(nr));
        spent() - before
    };
    let tries = (0..10).map(|_| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|nr| scope.spawn(move || thread(nr))).collect();
            all.into_iter().map(|thread| thread.join().unwrap_or(u64::MAX)).sum::<u64>()
        })
    });
    tries.min().unwrap_or(0) as f64 / f64::from(RUNS * threads)
}
