//! Deterministic simulation (R24): calls, Meta, a customer's server, a store and the clock in one thread under a seed.
//!
//! ```text
//! cargo test --test simulation                                             10,000 seeds, all cores
//! OFFHOOK_SEEDS=1000000 cargo test --test simulation                       the nightly run
//! OFFHOOK_SEED=7 cargo test --test simulation replay -- --nocapture        one run, step by step
//! ```
//!
//! What runs is the program's own wherever something is decided: the webhook's handler (`webhook::WebhookHandler`: JSON, duplicates,
//! tombstones, age), the gate with its slots and calls per second, the call machine as the shell steps it
//! (`call::step`), the queues of calls to be placed (`call::queues`) and what users permit, which call Meta means
//! (`call::binding`), further tries at Graph (`meta::RetryState`, `Policy`, `Budget`, `classify`), the callbacks' schedule
//! (`answer::next_pause`), how an orphan ends (`call::orphan::closing`), the XML validator, the event log and `replay`. What *carries out* under tokio is done here in
//! simulated time, by the same rules but by hand: `shell` and `graph` stand for `call::shell`, `call::registry` and the
//! HTTP half of `meta::Graph`, `dialer` for `call::dialer`, `store` for the writer and the outbox. A fault in those is for
//! `tests/outside`. `meta`, `phones` and `customer` are the outside, `plan` says what goes wrong in a run and how often,
//! `watch` what must hold, and `placed` what must of calls that the business places; those are in the runs from seed 2,000
//! on. `waiting` holds the queues against a stepped clock alone.
//!
//! A run is a plan drawn from the seed, then a queue of events. The node may be killed at each of its effects (a request
//! sent, a transaction written, a 200 given): its memory is dropped, the store and the outside stay, and a new one
//! starts. After each event `watch` looks at R1, R3, R5, R6, R7, R9 and R10; at the end every call must be closed,
//! every callback delivered, every slot free.
//!
//! Not here: more than one node, media packets, HTTP as bytes, a crash in the same run as a wall clock that is set.
//!
//! # Broken on purpose
//!
//! The program was broken in these ways, one at a time, and the seeds run in order from 0. What caught it, and the first
//! seed that did:
//!
//! | what was broken | caught by | seed |
//! |---|---|---|
//! | a slot is kept when its call's task panics | R1, slots against live calls | 8 |
//! | a connect's key is not looked at | R5 at the door | 5 |
//! | a terminate leaves no tombstone | R5 at the door | 57 |
//! | a call is concluded twice | R3 | 2 |
//! | a failed `accept` is followed by a `reject` | the machine's own check of R6 | 1 |
//! | a clear no of Graph's is tried again | R6 at the fake Graph | 9 |
//! | tries go on when the user has gone | R6 at the fake Graph | 15 |
//! | the answer to another fetch is taken | a fetch that nothing waits for led to something | 99 |
//! | the longest call has no timer | a call stays too long in one state | 39 |
//! | `closing` has no end of its own | the same | 1,004 |
//! | a `terminate` that failed is not asked for again | R6; at first by nothing, since the farewell made good for it | 5 |
//! | a second of the calls-per-second window ends 1 ns late | R1, refused although there was a permit | 26 |
//! | it ends 1 µs early | R1, admitted beyond the limit | 6 |
//! | one slot more than the limit | R1 | 3 |
//! | an admission that is withdrawn keeps its permit | R1 | 412 |
//! | calls of the process before are not remembered | R5, a second call of one id | 2 |
//! | an event that could not be taken counts as seen | R5 at the door | 6 |
//! | a connect is taken a second too late | R5 at the door | 9 |
//! | a draining node admits | R9 | 2 |
//! | tries go on past the answer window | R6 at the fake Graph, by a figure of its own; the runs that get there are drawn aside | 623 |
//! | retries have no budget | R6, counted beside the budget | 5 |
//! | Graph is not told that an orphan is over | R3 at the start | 3 |
//! | a callback is given up after its third retry | R4, a callback that was not told | 14 |
//!
//! On the side of calls that the business places the program was *found* broken in these ways when it first ran here; each
//! was put right, and its seed is run by `r24_seeds_that_found_something`:
//!
//! | what was broken | caught by | seed |
//! |---|---|---|
//! | a `connect` is tried again when its call has been named by a webhook, or has ended | R6, a connect after the end | 2,003 |
//! | what Meta says of a second call that it made of one is told to the first | a call at Meta goes on | 2,003 |
//! | calls without a name are looked for by the next process only, not by the one after it | the same | 2,268 |
//! | a name that comes after the call's end is not written down as to be ended | the same, after a kill | 3,406 |
//! | a call that has one name is not looked for under another after a restart | the same | 5,370 |
//! | the end of a call that turned up late is not written down | the same, after a drain | 5,695 |
//! | a name that comes to a call whose task has panicked is taken, and nobody sees to it | the same | 5,959 |
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests")]

mod customer;
mod dialer;
mod dice;
mod graph;
mod meta;
mod node;
mod phones;
mod placed;
mod plan;
mod run;
mod shell;
mod store;
mod trace;
mod waiting;
mod watch;
mod world;
