//! Runs many seeds, one seed, or the seeds that found bugs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::trace::{Show, last_steps};
use crate::watch::Tally;
use crate::world::{Outcome, World};

/// Seeds that found a bug, since fixed. A change of the plan changes the run of a seed. Then the
/// description counts, and a new seed should be found.
const FOUND: &[(u64, &str)] = &[
    (2, "a copy of a connect that came after a crash began a second call (R5)"),
    (136, "a waiting accept kept pre_accept being tried when the user had gone (R6)"),
    (
        2_003,
        "a connect was tried again when its call was named or had ended; a second call's end was told to the first",
    ),
    (2_268, "a call that the process before last had placed turned up at Meta and went on"),
    (3_406, "a call that was named after its end went on when its node died before Graph was told"),
    (5_370, "the first of two calls that Meta had made of one went on after a restart"),
    (5_695, "a call that turned up after its process went on when the next one stopped too"),
    (5_959, "a call whose task had panicked was named by a webhook and went on"),
];

/// Runs a seed. A panic counts as a failure.
fn run(seed: u64, show: Show) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, show).run()));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let broken = Some(format!("a panic: {}", text.unwrap_or_default()));
        Outcome { hash: 0, steps: 0, broken, tally: Tally::default() }
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

fn report(seed: u64) -> String {
    let outcome = run(seed, Show::Last);
    let broken = outcome
        .broken
        .unwrap_or_else(|| "nothing the second time: the run is not deterministic".to_owned());
    let last = last_steps();
    format!(
        "seed {seed}: {broken}\n\nits last steps:\n{last}\nall of them:\n  \
         OFFHOOK_SEED={seed} cargo test --test simulation replay -- --nocapture\n"
    )
}

#[test]
fn r24_ten_thousand_seeds() {
    let seeds = number("OFFHOOK_SEEDS", 10_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let broken = Mutex::new(None::<u64>);
    let all = Mutex::new((0, Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || broken.lock().unwrap().is_some() {
                        return;
                    }
                    let outcome = run(seed, Show::Nothing);
                    if outcome.broken.is_some() {
                        let mut broken = broken.lock().unwrap();
                        *broken = Some(broken.map_or(seed, |first| first.min(seed)));
                    }
                    let mut all = all.lock().unwrap();
                    all.0 += outcome.steps;
                    all.1.add(&outcome.tally);
                }
            });
        }
    });
    let broken = *broken.lock().unwrap();
    assert!(broken.is_none(), "\n\n{}", broken.map(report).unwrap_or_default());
    let (steps, tally) = *all.lock().unwrap();
    println!("{seeds} seeds, {steps} steps: {tally:#?}");
    if seeds >= 1_000 {
        assert_eq!(tally.never(), [""; 0], "what never process is not tested");
    }
}

#[test]
fn r24_the_same_seed_gives_the_same_run() {
    for seed in 0..200 {
        let (one, two) = (run(seed, Show::Nothing), run(seed, Show::Last));
        assert_eq!((one.hash, one.steps), (two.hash, two.steps), "seed {seed}");
    }
}

#[test]
fn r24_seeds_that_found_a_bug() {
    for (seed, what) in FOUND {
        let outcome = run(*seed, Show::Nothing);
        assert!(
            outcome.broken.is_none(),
            "{what}, once more, or something else:\n\n{}",
            report(*seed)
        );
    }
}

/// `OFFHOOK_SEED=7 cargo test --test simulation replay -- --nocapture` prints a run step by step.
#[test]
fn replay() {
    let seed = number("OFFHOOK_SEED", 0);
    let outcome = run(seed, Show::All);
    assert_eq!(outcome.broken, None, "seed {seed}");
}
