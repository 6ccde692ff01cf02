//! Deterministic simulation (R24): calls, Meta, a customer's server, a store and the clock in one thread under a seed.
//!
//! ```text
//! cargo test --test simulation                                             10,000 seeds, all cores
//! OFFHOOK_SEEDS=1000000 cargo test --test simulation                       the nightly run
//! OFFHOOK_SEED=7 cargo test --test simulation replay -- --nocapture        one run, step by step
//! ```
//!
//! What runs is the program's own wherever something is decided: the webhook's door (`webhook::Door`: JSON, duplicates,
//! tombstones, age), the gate with its slots and calls per second, the call machine as the shell steps it
//! (`call::step`), further tries at Graph (`meta::Asking`, `Policy`, `Budget`, `classify`), the callbacks' schedule
//! (`answer::next_pause`), the XML validator, the event log and `replay`. What *carries out* under tokio is done here in
//! simulated time, by the same rules but by hand: `shell` and `graph` stand for `call::shell`, `call::registry` and the
//! HTTP half of `meta::Graph`, `store` for the writer and the outbox. A fault in those is for `tests/outside`.
//! `meta` and `customer` are the outside, `plan` says what goes wrong in a run and how often, `watch` what must hold.
//!
//! A run is a plan drawn from the seed, then a queue of events. The node may be killed at each of its effects (a request
//! sent, a transaction written, a 200 given): its memory is dropped, the store and the outside stay, and a new one
//! starts. After each event `watch` looks at R1, R3, R5, R6, R7, R9 and R10; at the end every call must be closed,
//! every callback delivered, every slot free.
//!
//! Not here: more than one node, jumps of the wall clock (R8), media packets, HTTP as bytes.
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests")]

mod customer;
mod dice;
mod graph;
mod meta;
mod node;
mod plan;
mod run;
mod shell;
mod store;
mod trace;
mod watch;
mod world;
