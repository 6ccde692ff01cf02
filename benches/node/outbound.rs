//! Benchmark of a business-initiated call against a user-initiated one: processor time of each,
//! alternating, without media.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use model::Clock;
use sim::client::fetch;
use sim::{CallScript, CalleeBehaviour, HangupRule, PhoneKind, world};

use super::load::{self, LoadOptions};
use super::subject::Offhook;
use super::{World, env_number, memory, say};

/// Duration of a call after the answer.
const HELD: Duration = Duration::from_millis(100);
/// The first user's number. Further users count up from here.
const FIRST_USER: u64 = 919_500_000_000;

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let calls = env_number("OFFHOOK_BENCH_CALLS", 1_000);
    let rounds = env_number("OFFHOOK_BENCH_ROUNDS", 5);
    let rate = env_number("OFFHOOK_BENCH_RATE", 100) as f64;
    let mut world = World::new().await?;
    let folder = tempfile::tempdir()?;
    let node = memory::start(&world, folder.path(), 0).await?;
    world.sim.set_node_url(node.url.clone());
    let load_options = LoadOptions { rate, calls, hold_s: HELD.as_secs_f64(), media: false };
    let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
    for number in 0..=rounds {
        let warm = number == 0;
        let load_options =
            if warm { LoadOptions { calls: 200, ..load_options } } else { load_options };
        let one = users_place(&mut world, &node, load_options).await?;
        let other = business_places(&mut world, &node, load_options).await?;
        if !warm {
            say(format_args!(
                "  round {number}: inbound {one:.0} µs, outbound {other:.0} µs a call"
            ));
            inbound.push(one);
            outbound.push(other);
        }
    }
    let [inbound, outbound] = [inbound, outbound].map(median);
    say(format_args!(
        "outbound CPU per call: {outbound:.0} µs, inbound {inbound:.0} µs, ratio {:.2} (target 1.5)",
        outbound / inbound
    ));
    Ok(())
}

async fn users_place(
    world: &mut World,
    node: &Offhook,
    load_options: LoadOptions,
) -> Result<f64, Box<dyn std::error::Error>> {
    let (hangups, before) = (world.customer.hangups(), node.process.cpu());
    load::run(&world.client, world.sim.url(), &node.url, load_options).await?;
    cost_per_call(world, node, &before, hangups, load_options.calls).await
}

/// Places calls through `POST Call/`. The users' phones ring, are answered immediately, and hang
/// up.
async fn business_places(
    world: &mut World,
    node: &Offhook,
    load_options: LoadOptions,
) -> Result<f64, Box<dyn std::error::Error>> {
    let user = |nr: u64| (FIRST_USER + nr).to_string();
    let script = |nr| CallScript {
        from: user(nr),
        phone: PhoneKind::SignallingOnly,
        hangup: HangupRule::AfterAnswer(HELD),
        callee: CalleeBehaviour {
            rings_after: Duration::ZERO,
            acts_after: Duration::ZERO,
            ..CalleeBehaviour::default()
        },
        ..CallScript::default()
    };
    let phones: Vec<_> =
        (0..load_options.calls).map(|nr| world.sim.expect_call(script(nr))).collect();
    let (hangups, before) = (world.customer.hangups(), node.process.cpu());
    let basic = base64::engine::general_purpose::STANDARD.encode(format!(
        "{}:{}",
        world::ACCOUNT,
        world::AUTH_TOKEN
    ));
    let url = format!("{}/v1/Account/{}/Call/", node.url, world::ACCOUNT);
    let places = world.places();
    let clock = Clock::real();
    let begun = clock.now();
    let mut orders = tokio::task::JoinSet::new();
    for nr in 0..load_options.calls {
        tokio::time::sleep_until(
            (begun + Duration::from_secs_f64(nr as f64 / load_options.rate)).into(),
        )
        .await;
        let order = serde_json::json!({
            "from": world::NUMBER, "to": user(nr), "answer_url": places.answer, "hangup_url": places.hangup,
        });
        let request = Request::post(&url)
            .header(AUTHORIZATION, format!("Basic {basic}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(order.to_string()))?;
        let client = world.client.clone();
        orders
            .spawn(async move { fetch(&client, request, Duration::from_secs(10), 1 << 20).await });
    }
    for answer in orders.join_all().await {
        let answer = answer?;
        if answer.status != 201 {
            return Err(
                format!("a call was not placed: {} {:?}", answer.status, answer.body).into()
            );
        }
    }
    let used = cost_per_call(world, node, &before, hangups, load_options.calls).await?;
    drop(phones);
    Ok(used)
}

/// Returns the processor time per call after all ends have been reported.
async fn cost_per_call(
    world: &mut World,
    node: &Offhook,
    before: &super::process::Cpu,
    hangups: u64,
    calls: u64,
) -> Result<f64, Box<dyn std::error::Error>> {
    tokio::time::timeout(Duration::from_secs(20), world.customer.until_hangups(hangups + calls))
        .await?;
    Ok(node.process.cpu_since(before).as_secs_f64() * 1e6 / calls as f64)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
