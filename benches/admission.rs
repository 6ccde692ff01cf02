//! Admission against the least it could cost: one count up and down, and one look at a ring.
//!
//! `cargo bench --bench admission`. The directory look-up, the slot's guard and the two rings of a subaccount are
//! what `admit` has beyond the bare pair.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use offhook::admission::{AccountSpec, Directory, Gate, NumberSpec, Ring, Slots};
use offhook::clock::Clock;
use offhook::model::{Direction, E164, PhoneNumberId};

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
            phone_number_id: format!("1065403522{n:05}").into(),
            waba: "1029384756".into(),
            account: account.into(),
            alias: String::new(),
            calling_enabled: true,
            answer: None,
            fallback: None,
            hangup: None,
            messages: None,
            calls_per_number: 1_000,
            access_token: None,
        })
    };
    let mut numbers = (0..200).map(|n| number(n, "MA1")).collect::<Result<Vec<_>, _>>()?;
    numbers.push(number(200, "SA1")?);
    directory.replace(vec![account("MA1", None), account("SA1", Some("MA1"))], numbers)?;
    Ok(Gate::new(Arc::new(directory), clock.now()))
}

fn admission(c: &mut Criterion) {
    let clock = Clock::stepped(Default::default());
    let Ok(gate) = gate(&clock) else { return };
    let mut group = c.benchmark_group("admission");

    let count = AtomicU64::new(0);
    let ring = Ring::new(100);
    let mut now = 0;
    group.bench_function("bare pair and ring", |b| {
        b.iter(|| {
            now += 20_000_000;
            let up = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < 1_000).then_some(n + 1));
            let room = ring.take(now);
            let down = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
            (up, room, down)
        });
    });

    let slots = Slots::new(1_000);
    group.bench_function("slot", |b| b.iter(|| drop(slots.acquire())));

    let begun = clock.now();
    for (name, number) in [("admit", "106540352200007"), ("admit, subaccount", "106540352200200")] {
        let id = PhoneNumberId::from(number);
        let mut at: Instant = begun;
        group.bench_function(name, |b| {
            b.iter(|| {
                at += Duration::from_millis(20);
                gate.admit(at, &id, Direction::Inbound, || Some(())).map(|(admitted, ())| drop(admitted)).is_ok()
            });
        });
    }

    let id = PhoneNumberId::from("106540352200007");
    let full = begun + Duration::from_secs(1 << 20);
    while gate.admit(full, &id, Direction::Inbound, || Some(())).is_ok() {}
    group.bench_function("refused, 100 a second used up", |b| {
        b.iter(|| gate.admit(full, &id, Direction::Inbound, || Some(())).is_err());
    });
    group.finish();
}

criterion_group!(benches, admission);
criterion_main!(benches);
