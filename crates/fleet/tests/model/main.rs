//! Simulates a fleet whose database and network fail in every way that it must survive.

#![allow(clippy::print_stdout, reason = "prints what was simulated")]

mod faults;
mod mutation;
mod rng;
mod world;

use faults::{ALL, Fault, Faults};
use mutation::Mutation;
use world::{Counts, SECOND, Scene, World};

/// The number of seeds. `OFFHOOK_SEEDS` sets another one, `OFFHOOK_SEED` the first.
const SEEDS: u64 = 10_000;

/// The number of seeds within which each breakage must be caught.
const SEEDS_TO_CATCH: u64 = 1_000;

/// How long faults go on, and how long the fleet then has to settle.
const FAULTY: u64 = 100 * SECOND;
const SETTLE: u64 = 45 * SECOND;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn scene(seed: u64, faults: Faults, mutation: Option<Mutation>) -> Scene {
    Scene { seed, strict: seed.is_multiple_of(2), synchronous: seed / 2 % 2 == 1, faults, mutation }
}

#[test]
fn f10_model() {
    let first = variable("OFFHOOK_SEED").unwrap_or(0);
    let seeds = variable("OFFHOOK_SEEDS").unwrap_or(SEEDS);
    let mut total = Counts::default();
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let mut world = World::new(scene(seed, ALL, None));
        world.run(FAULTY);
        world.heal();
        world.run(FAULTY + SETTLE);
        if let Some(what) = world.violation.clone().or_else(|| world.unsettled()) {
            failed.push(format!("OFFHOOK_SEEDS=1 OFFHOOK_SEED={seed}: {what}"));
        }
        let counts = world.counts;
        total.admitted += counts.admitted;
        total.held += counts.held;
        total.terms += counts.terms;
        total.deaths += counts.deaths;
        total.ghosts += counts.ghosts;
        total.carried += counts.carried;
        total.lost_rows += counts.lost_rows;
        total.upgrades += counts.upgrades;
        total.events += counts.events;
    }
    println!("{seeds} seeds: {total:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    // The simulation reaches what it is about.
    if seeds >= SEEDS {
        let reached = [
            total.held,
            total.ghosts,
            total.carried,
            total.lost_rows,
            total.deaths,
            total.upgrades,
        ];
        assert!(reached.iter().all(|count| *count > 20), "{total:?}");
        assert!(total.admitted > 50 * seeds && total.terms > 3 * seeds, "{total:?}");
    }
}

/// Each breakage with the faults that reveal it soonest.
const MUTATIONS: &[(Mutation, Faults)] = &[
    (Mutation::MarkIgnored, Faults(&[(Fault::Failover, 2), (Fault::Restore, 1)])),
    (Mutation::AckedIgnored, Faults(&[(Fault::SetBack, 1)])),
    (Mutation::SeqIgnored, ALL),
    (Mutation::StaleSum, ALL),
    (Mutation::TellFirst, ALL),
    (Mutation::AnyAnswer, ALL),
    (Mutation::GrowthInClosedTerm, Faults(&[(Fault::Failover, 1)])),
    (Mutation::OpenBeforeAllRestated, ALL),
    (Mutation::OpenAtOnce, Faults(&[(Fault::LostStart, 1)])),
    (Mutation::FreshnessIgnored, Faults(&[(Fault::Pause, 1), (Fault::Cut, 1)])),
    (Mutation::GhostBeatsOn, Faults(&[(Fault::Pause, 1), (Fault::Outage, 1)])),
    (Mutation::DeadRowIgnored, Faults(&[(Fault::Pause, 1)])),
    (Mutation::UnitsBeforeCalls, ALL),
    (Mutation::QuickDeath, ALL),
    (Mutation::UsedRestated, Faults(&[(Fault::Restart, 1)])),
    (Mutation::NotFrozen, Faults(&[(Fault::Upgrade, 1)])),
    (Mutation::UnitsKept, Faults(&[(Fault::Upgrade, 1)])),
    (Mutation::TermTakenBack, Faults(&[(Fault::Failover, 1), (Fault::OldPrimary, 1)])),
];

#[test]
fn f52_each_breakage_is_caught() {
    let mut missed = Vec::new();
    for (mutation, faults) in MUTATIONS {
        let caught = (0..SEEDS_TO_CATCH).find_map(|seed| {
            let mut world = World::new(scene(seed, *faults, Some(*mutation)));
            world.run(FAULTY);
            world.violation.map(|what| (seed, what))
        });
        println!("{mutation:?}: {caught:?}");
        if caught.is_none() {
            missed.push(mutation);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
