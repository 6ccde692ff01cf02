//! One machine step, as the shell does it: a key in a menu, and a whole short call.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use offhook::call::machine::{
    CallSetup, CallTime, CallUrls, FetchId, Fetched, GraphAction, GraphOutcome, Input, Machine, MachineLimits,
    MediaFact, Output, Termination,
};
use offhook::model::{AuthId, CallType, CallUuid, Digit, Direction, Leg, Method, PhoneNumberId, Timestamp, Wacid};
use offhook::xml::Document;
use offhook::xml::ast::DocUrl;
use std::sync::Arc;

const MENU: &str = r#"<Response>
<GetInput action="https://app.example.com/menu" numDigits="2">
<Speak>Press two keys</Speak>
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
    }
}

fn step(machine: &mut Machine, at: u64, input: Input) -> usize {
    machine.handle(CallTime(at), input);
    let wishes: Vec<Output> = std::iter::from_fn(|| machine.poll()).collect();
    black_box(wishes).len()
}

/// A call in its menu, prompt playing.
fn in_the_menu(menu: &Arc<Document>) -> Machine {
    let mut machine = Machine::new();
    step(&mut machine, 0, Input::Offered { setup: Box::new(setup()) });
    step(&mut machine, 100, Input::Media { leg: Leg::A, what: MediaFact::Connected });
    let document = Fetched::Document { document: menu.clone() };
    step(&mut machine, 200, Input::Fetched { fetch: FetchId(1), result: Ok(document) });
    step(&mut machine, 300, Input::Graph { action: GraphAction::Accept, outcome: GraphOutcome::Done });
    machine
}

fn digit(key: char) -> Input {
    Input::Digit { leg: Leg::A, digit: Digit::try_from(key).expect("a key") }
}

fn machine(c: &mut Criterion) {
    let menu = offhook::xml::parse(MENU.as_bytes(), None).document.expect("a valid document");
    let mut group = c.benchmark_group("machine");
    group.bench_function("digit_that_barges_in", |b| {
        b.iter_batched_ref(|| in_the_menu(&menu), |machine| step(machine, 1_000, digit('4')), BatchSize::SmallInput);
    });
    group.bench_function("digit_that_completes", |b| {
        b.iter_batched_ref(
            || {
                let mut machine = in_the_menu(&menu);
                step(&mut machine, 1_000, digit('4'));
                machine
            },
            |machine| step(machine, 1_500, digit('2')),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("offered", |b| {
        b.iter_batched(
            || Box::new(setup()),
            |setup| step(&mut Machine::new(), 0, Input::Offered { setup }),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("whole_call", |b| {
        b.iter(|| {
            let mut machine = in_the_menu(&menu);
            step(&mut machine, 1_000, digit('4'));
            step(&mut machine, 1_500, digit('2'));
            step(&mut machine, 2_000, Input::Terminated { termination: Termination::default() })
        });
    });
    group.finish();
}

criterion_group!(benches, machine);
criterion_main!(benches);
