//! Benchmarks of the whole program against lower bounds: the cost of a call, its latency and the
//! memory it leaves behind.
//!
//! `cargo bench --bench node -- setup` (or `outbound`, `messages`, `media`, `encode`, `conference`,
//! `stream`, `memory`, `start`, `overload`; without an argument all of them run). Offhook and the
//! lower bound run alternately in separate processes. Their processor time is taken from the
//! scheduler, so other load has little influence. The simulated Meta and the customer's application
//! run in this process and are not measured.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

mod customer;
mod floor;
mod load;
mod media;
mod media_floor;
mod memory;
mod messages;
mod outbound;
mod overload;
mod process;
mod setup;
mod sound;
mod start;
mod subject;

use sim::{LOAD_RELAYS, PermissionPolicy, Sim, SimOptions, client};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prints one line to standard output.
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

/// Shared environment: a simulated Meta, an application and an HTTP client.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) customer: customer::Customer,
    pub(crate) client: client::Client,
}

impl World {
    async fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let sim = Sim::start(SimOptions {
            relays: env_number("OFFHOOK_BENCH_RELAYS", LOAD_RELAYS.into()) as u16,
            permission_policy: PermissionPolicy::Unenforced,
            ..SimOptions::default()
        })
        .await?;
        Ok(Self { sim, customer: customer::Customer::start().await?, client: client::client()? })
    }

    fn places(&self) -> floor::Places {
        floor::Places {
            graph: self.sim.graph_url(),
            answer: format!("http://{}/answer", self.customer.at),
            hangup: format!("http://{}/hangup", self.customer.at),
        }
    }
}

/// Reads a number from an environment variable, which makes runs shorter or longer than `usual`.
pub(crate) fn env_number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome: Result<(), Box<dyn std::error::Error>> = runtime.block_on(async {
        match words.as_slice() {
            ["floor", graph, answer, hangup] => {
                let own = |text: &&str| (*text).to_owned();
                floor::serve(floor::Places {
                    graph: own(graph),
                    answer: own(answer),
                    hangup: own(hangup),
                })
                .await
            }
            ["message-floor", folder, target] => {
                messages::serve(std::path::Path::new(folder), (*target).to_owned()).await
            }
            ["media-floor", calls, ports, peers] => {
                media_floor::serve(calls.parse()?, ports.parse()?, peers)
                    .map_err(|e| e.to_string().into())
            }
            chosen => {
                let wants = |name: &str| chosen.is_empty() || chosen.contains(&name);
                if wants("setup") {
                    setup::run().await?;
                }
                if wants("outbound") {
                    outbound::run().await?;
                }
                if wants("messages") {
                    messages::run().await?;
                }
                if wants("media") {
                    media::run().await?;
                }
                for kind in sound::KINDS.into_iter().filter(|kind| wants(kind)) {
                    sound::run(kind).await?;
                }
                if wants("memory") {
                    memory::run().await?;
                }
                if wants("overload") {
                    overload::run().await?;
                }
                if wants("start") {
                    start::run().await?;
                }
                Ok(())
            }
        }
    });
    outcome
}
