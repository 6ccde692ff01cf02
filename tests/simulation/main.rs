//! Deterministic simulation (`docs/reference/reliability.md#r24`): calls, Meta, a customer's
//! server, a store and the clock in one thread under a seed.
//!
//! ```text
//! cargo test --test simulation                                             10,000 seeds, all cores
//! OFFHOOK_SEEDS=1000000 cargo test --test simulation                       the nightly run
//! OFFHOOK_SEED=7 cargo test --test simulation replay -- --nocapture        one run, step by step
//! ```
//!
//! Everything that makes decisions is the program's own code: the webhook handler (`webhook::Door`:
//! JSON, duplicates, tombstones, age), the gate with its slots and calls per second, the call
//! machine as the shell steps it (`Machine::step`), the queues of calls to be placed (`call::queues`),
//! permissions, the mapping of Meta's events to calls (`call::binding`), retries at Graph
//! (`meta::Asking`, `Policy`, `Budget`, `classify`), the schedule of callbacks
//! (`answer::next_pause`), the closing of orphans (`call::orphan::closing`), the XML validator, the
//! event log and `replay`.
//!
//! The code that performs I/O under tokio is replaced by a simulation that follows the same rules:
//! `shell` and `graph` stand for `call::shell`, `call::registry` and the HTTP half of
//! `meta::Graph`, `dialer` for `call::dialer`, `store` for the writer and the outbox. Bugs in the
//! replaced code must be found by `tests/outside`. `meta`, `phones` and `customer` simulate the
//! outside. `plan` determines the faults of a run and their frequency. `watch` checks the
//! invariants, and `placed` those of business-initiated calls, which occur from seed 2,000 on.
//! `waiting` tests the queues alone with a manual clock.
//!
//! A run is a plan drawn from the seed, followed by a queue of events. The node may be killed at
//! each of its effects (a request, a transaction, a 200 response): its memory is dropped, the store
//! and the outside stay, and a new node starts. After each event `watch` checks the promises R1,
//! R3, R5, R6, R7, R9 and R10 of `docs/reference/reliability.md`. At the end every call must be
//! closed, every callback delivered and every slot free.
//!
//! Not simulated: several nodes, media packets, HTTP as bytes, and a crash in the same run as a
//! change of the wall clock.
//!
//! # Mutation tests
//!
//! The program was broken in these ways, one at a time, and the seeds were run in order from 0. The
//! table lists the check that failed first and its seed:
//!
//! | mutation | failed check | seed |
//! |---|---|---|
//! | a slot is kept when its call's task panics | R1, slots against live calls | 8 |
//! | a connect's key is not checked | R5 at the webhook | 5 |
//! | a terminate leaves no tombstone | R5 at the webhook | 57 |
//! | a call is concluded twice | R3 | 2 |
//! | a failed `accept` is followed by a `reject` | the machine's own check of R6 | 1 |
//! | a permanent error from Graph is retried | R6 at the simulated Graph | 9 |
//! | retries continue after the user has hung up | R6 at the simulated Graph | 15 |
//! | the result of another fetch is accepted | a fetch without a waiting call had an effect | 99 |
//! | the maximum call duration has no timer | a call stays too long in one state | 39 |
//! | `closing` has no time limit | the same | 1,004 |
//! | a failed `terminate` is not requested again | R6; at first undetected, because the farewell compensated | 5 |
//! | a second of the calls-per-second window ends 1 ns late | R1, refused although a permit was free | 26 |
//! | it ends 1 µs early | R1, admitted beyond the limit | 6 |
//! | one slot more than the limit | R1 | 3 |
//! | a withdrawn admission keeps its permit | R1 | 412 |
//! | calls of the previous process are not restored | R5, a second call with the same id | 2 |
//! | an event that could not be accepted counts as seen | R5 at the webhook | 6 |
//! | a connect is accepted a second too late | R5 at the webhook | 9 |
//! | a draining node admits | R9 | 2 |
//! | retries continue past the answer window | R6 at the simulated Graph, with its own figure; the plans that reach this are drawn from a separate generator | 623 |
//! | retries have no budget | R6, counted independently | 5 |
//! | Graph is not told that an orphan has ended | R3 at start-up | 3 |
//! | a callback is given up after its third retry | R4, an undelivered callback | 14 |
//!
//! The first runs with business-initiated calls found these bugs in the program. Each was fixed,
//! and `r24_seeds_that_found_a_bug` runs its seed:
//!
//! | bug | failed check | seed |
//! |---|---|---|
//! | a `connect` is retried after its call was named by a webhook, or has ended | R6, a connect after the end | 2,003 |
//! | events of a second call that Meta made from one order are applied to the first | a call at Meta continues | 2,003 |
//! | unnamed calls are searched for by the next process only, not by later ones | the same | 2,268 |
//! | a name that arrives after the call's end is not stored as to be ended | the same, after a kill | 3,406 |
//! | a call with one name is not searched for under another after a restart | the same | 5,370 |
//! | the end of a call that appeared late is not stored | the same, after a drain | 5,695 |
//! | a name that arrives for a call with a panicked task is accepted and ignored | the same | 5,959 |
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests")]

mod customer;
mod dialer;
mod graph;
mod meta;
mod node;
mod phones;
mod placed;
mod plan;
mod rng;
mod run;
mod shell;
mod store;
mod trace;
mod waiting;
mod watch;
mod world;
