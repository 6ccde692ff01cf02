//! Benchmark of a single machine step: a digit in a menu and the more expensive inputs of a call,
//! with the allocations of each.
//!
//! `cargo bench --bench machine`. Times are the best of many short batches (see
//! `common/paired.rs`), with an allocator that counts and forwards to the system's.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;

use machine::{
    CallSetup, CallTime, CallUrls, FetchId, FetchResponse, GraphAction, GraphOutcome, Input,
    Machine, MachineLimits, MediaEvent, Termination,
};
use model::Clock;
use model::{
    AuthId, CallType, CallUuid, Digit, Direction, Leg, Method, PhoneNumberId, Timestamp, Wacid,
};
use std::sync::Arc;
use xml::Document;
use xml::ast::DocUrl;

const MENU: &str = r#"<Response>
<GetInput action="https://app.example.com/menu" numDigits="3">
<Speak>Press three keys</Speak>
</GetInput>
</Response>"#;

fn setup() -> CallSetup {
    let url = |text: &str| DocUrl(text.into());
    CallSetup {
        call: CallUuid(uuid::Uuid::from_u128(7)),
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        wacid: Some(Wacid::from("wacid.bench")),
        phone_number_id: PhoneNumberId::from("106540352242922"),
        from: "919812345678".to_owned(),
        to: "918035737458".to_owned(),
        caller_name: "Asha".to_owned(),
        cta_payload: None,
        deeplink_payload: None,
        account: AuthId::from("MAXXXXXXXXXXXXXXXXXX"),
        parent_account: AuthId::from("MAXXXXXXXXXXXXXXXXXX"),
        urls: CallUrls {
            answer: url("https://app.example.com/answer"),
            answer_method: Method::Post,
            fallback: None,
            hangup: (url("https://app.example.com/hangup"), Method::Post),
        },
        started: Timestamp::from_micros(1_795_154_591_120_394),
        limits: MachineLimits::default(),
        headers: Vec::new(),
        outbound: None,
    }
}

fn step(machine: &mut Machine, at: u64, input: Input) {
    machine.handle(CallTime(at), input);
    while let Some(output) = machine.poll() {
        black_box(output);
    }
}

/// Returns a call in its menu while the prompt plays.
fn in_the_menu(menu: &Arc<Document>) -> Machine {
    let mut machine = Machine::new();
    step(&mut machine, 0, Input::Offered { setup: Box::new(setup()) });
    step(&mut machine, 100, Input::Media { leg: Leg::A, event: MediaEvent::Connected });
    let document = FetchResponse::Document { document: menu.clone() };
    step(&mut machine, 200, Input::Fetched { fetch: FetchId(1), result: Ok(document) });
    step(
        &mut machine,
        300,
        Input::Graph { action: GraphAction::Accept, outcome: GraphOutcome::Done },
    );
    machine
}

fn digit(key: char) -> Input {
    Input::Digit { leg: Leg::A, digit: Digit::try_from(key).expect("a key") }
}

/// Returns the best time of one step in nanoseconds and its number of allocations. Every step
/// starts from a machine that `made` builds.
///
/// Building the machines is not measured; it happens before the clock is read.
fn measured(made: impl Fn() -> Machine, at: u64, input: impl Fn() -> Input) -> (f64, u64) {
    let clock = Clock::real();
    let mut best = f64::MAX;
    for _ in 0..2_000 {
        let mut machines: Vec<(Machine, Input)> = (0..32).map(|_| (made(), input())).collect();
        let begun = clock.now();
        for (machine, input) in &mut machines {
            step(machine, at, std::mem::replace(input, Input::Timer));
        }
        best = best.min((clock.now() - begun).as_nanos() as f64 / 32.0);
        black_box(machines);
    }
    let (mut machine, input) = (made(), input());
    let allocations = allocation_counter::measure(|| step(&mut machine, at, input)).count_total;
    (best, allocations)
}

fn main() {
    let Some(menu) = xml::parse(MENU.as_bytes(), None).document else { return };
    let typed = |machine: Machine, keys: &[(u64, char)]| {
        keys.iter().fold(machine, |mut machine, (at, key)| {
            step(&mut machine, *at, digit(*key));
            machine
        })
    };
    let in_menu = || in_the_menu(&menu);
    let begun = || typed(in_menu(), &[(1_000, '4')]);
    for (what, (nanos, allocations)) in [
        ("a key that stops the prompt", measured(in_menu, 1_000, || digit('4'))),
        ("a key in the middle", measured(begun, 1_200, || digit('5'))),
    ] {
        println!("{what}: {nanos:.0} ns (target 1000), {allocations} allocations (target 1)");
    }
    let complete = || typed(begun(), &[(1_200, '5')]);
    for (what, (nanos, allocations)) in [
        ("the key that completes, its request made", measured(complete, 1_500, || digit('2'))),
        ("the offer", measured(Machine::new, 0, || Input::Offered { setup: Box::new(setup()) })),
        (
            "the terminate webhook",
            measured(in_menu, 2_000, || Input::Terminated { termination: Termination::default() }),
        ),
    ] {
        println!("{what}: {nanos:.0} ns (target 1000), {allocations} allocations");
    }
}
