//! Figures of speech over calls: how soon an AI agent answers and a prompt stops, and which words of
//! callers are understood in noise. Each is run alone, with the models in `OFFHOOK_TEST_MODELS`:
//! `cargo test --test outside speech_figures:: -- --ignored --nocapture --test-threads 1`.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sim::{CallEvent, CallEventKind, CallScript, Faults, HangupRule, Sim, SimOptions};

use crate::control::tones;
use crate::dial::recorded;
use crate::recognise::Endpoint;
use crate::support::agent::{AgentResponse, AgentServer, Turn, reply};
use crate::support::app::App;
use crate::support::http;
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};
use crate::turn_taking::{
    ANSWER, LEAD_MS, SENTENCES, differing_words, encoded, install, sentences, silence, words,
};
use crate::upgrade_load::report;

/// Number of agents that speak and listen at the same time.
const AGENTS: usize = 4;
/// The level of noise below that of the speech, in decibels.
const NOISE_DB: f64 = 10.0;
/// The packets of callers that are lost, in per cent.
const LOSS: u32 = 5;

struct World {
    node: Node,
    sim: Sim,
    app: App,
}

impl World {
    /// A node with the data in `dir`. Without a model that recognises speech, a server does at once.
    async fn start(dir: tempfile::TempDir, has_ear: bool, loss: u32) -> Self {
        let app = App::start().await;
        app.xml("/hangup", "");
        let faults = match loss {
            0 => Faults::default(),
            _ => Faults::parse(&format!("seed = 1\n[[fault]]\ndo = \"media\"\nloss = {loss}\n"))
                .expect("rules"),
        };
        let options = SimOptions { faults, ..sim_options() };
        let sim = Sim::start(options).await.expect("the simulated Meta");
        let mut config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        config.hangup_url = app.url("/hangup");
        if !has_ear {
            let (_, url) = Endpoint::start(ANSWER).await;
            config.extra = format!("[speech.transcribe]\nurl = \"{url}\"\n");
        }
        let node = Node::start_in(dir, &config).await;
        sim.set_node_url(node.public.clone());
        Self { node, sim, app }
    }

    /// Places a call in which the user says this and hangs up later.
    async fn call(&self, from: usize, parts: &[&[i16]], after: Duration) -> Vec<CallEvent> {
        let script = CallScript {
            from: format!("9198{from:08}"),
            say: encoded(parts),
            record: true,
            hangup: HangupRule::AfterAnswer(after),
            ..CallScript::default()
        };
        self.sim.place_call(script).all().await
    }
}

/// The time from the moment at which the user begins to speak.
fn begin(events: &[CallEvent]) -> Option<Duration> {
    let at = |kind: CallEventKind| events.iter().find(|e| e.kind == kind).map(|e| e.at);
    Some(at(CallEventKind::Answered)?.max(at(CallEventKind::MediaUp)?))
}

fn first_audio(events: &[CallEvent]) -> Option<Duration> {
    events.iter().find(|event| event.kind == CallEventKind::FirstAudio).map(|event| event.at)
}

fn quantiles(mut times: Vec<i64>) -> String {
    times.sort_unstable();
    let quantile = |q: usize| times.get(times.len() * q / 100).copied().unwrap_or_default();
    format!("p50 {} ms, p95 {} ms of {}", quantile(50), quantile(95), times.len())
}

fn ms(from: Duration, to: Duration) -> i64 {
    let ms = |time: Duration| i64::try_from(time.as_millis()).expect("milliseconds");
    ms(to) - ms(from)
}

/// Finished sentences, to an agent that answers at once. Its first word needs the end of the turn, the
/// recognised words, a request to the agent's server and the first sentence of its answer as sound.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute"]
async fn the_first_word_of_an_agents_answer() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["hibari"]) else { return };
    let spoken = sentences(dir.path(), &SENTENCES).await;
    install(dir.path(), &["smart-turn", "whisper"]).unwrap();
    let world = World::start(dir, true, 0).await;
    let answer = |turn: &Turn| match turn.body["input"]["type"].as_str() {
        Some("start") => AgentResponse::Json(json!({"reply": [], "action": null})),
        _ => reply("Of course, I will see to it at once.", Value::Null),
    };
    let server = AgentServer::start(answer).await;
    let agent =
        json!({"name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"]});
    let url = format!("{}/api/v1/agents/", world.node.public);
    let made = http::send("POST", &url, &[("x-api-key", API_KEY)], agent.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let to = format!("<Response><Redirect>https://agent.invalid/{id}/answer</Redirect></Response>");
    world.app.xml("/answer", to);
    let lead = silence(LEAD_MS);
    let mut waits = Vec::new();
    for (round, sentences) in spoken.chunks(AGENTS).enumerate() {
        let calls = sentences.iter().enumerate().map(|(n, sentence)| {
            let [before, after] = &sentence.parts;
            let pause = silence(60);
            let (world, lead) = (&world, &lead);
            async move {
                let parts = [&lead[..], before, &pause, after];
                let spoken = Duration::from_millis(parts.concat().len() as u64 / 16);
                let last = spoken + Duration::from_secs(5);
                let events = world.call(round * AGENTS + n, &parts, last).await;
                let ended = begin(&events)? + spoken;
                Some(ms(ended, first_audio(&events)?))
            }
        });
        waits.extend(join_all(calls).await);
    }
    let answered: Vec<i64> = waits.iter().flatten().copied().collect();
    report(&format!(
        "end of speech to the first word of the answer, {AGENTS} calls at once: {}; {} without an answer",
        quantiles(answered.clone()),
        waits.len() - answered.len()
    ));
}

/// A caller speaks over a prompt. He is a voice after 250 ms.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute"]
async fn a_prompt_stops_when_the_caller_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["hibari"]) else { return };
    let spoken = sentences(dir.path(), &SENTENCES[..20]).await;
    let world = World::start(dir, false, 0).await;
    let (action, tone) = (world.app.url("/said"), format!("{}/tone/700/10000", tones().await));
    world.app.xml("/said", "<Response><Wait length=\"1\"/></Response>").xml(
        "/answer",
        format!("<Response><GetInput action=\"{action}\" inputType=\"speech\"><Play>{tone}</Play></GetInput></Response>"),
    );
    let lead = silence(3_000);
    let mut waits = Vec::new();
    for (n, sentence) in spoken.iter().enumerate() {
        let [before, after] = &sentence.parts;
        let events = world.call(n, &[&lead, before, after], Duration::from_secs(9)).await;
        let samples = recorded(&events);
        // Frames of 20 ms with the tone.
        let is_loud = |frame: &[f64]| frame.iter().any(|sample| sample.abs() > 500.0);
        let mut frames = samples.chunks_exact(320).map(is_loud);
        let Some(first) = frames.position(|loud| loud) else { continue };
        let lasted = frames.position(|loud| !loud).unwrap_or(samples.len() / 320 - first);
        let (Some(begin), Some(first_word)) = (begin(&events), first_audio(&events)) else {
            continue;
        };
        let stopped = first_word + Duration::from_millis(20 * (lasted as u64 + 1));
        // The sentence begins 50 ms after its first sample.
        waits.push(ms(begin + Duration::from_millis(3_000 + 50 + 250), stopped));
    }
    report(&format!("250 ms of voice to silence at the caller: {}", quantiles(waits)));
}

/// The words of callers in white noise whose packets are lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn words_of_callers_in_noise() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["hibari"]) else { return };
    let spoken = sentences(dir.path(), &SENTENCES).await;
    install(dir.path(), &["smart-turn", "whisper"]).unwrap();
    let world = World::start(dir, true, LOSS).await;
    let action = world.app.url("/said");
    let recognised = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let kept = recognised.clone();
    world
        .app
        .xml("/answer", format!("<Response><GetInput action=\"{action}\" inputType=\"speech\" speechEndTimeout=\"2\"/></Response>"))
        .route("/said", move |seen| {
            let words = seen.param("Speech").to_owned();
            kept.lock().unwrap().insert(seen.param("From").to_owned(), words);
            (200, "<Response><Hangup/></Response>".to_owned())
        });
    let (mut all, mut wrong, mut empty) = (0, 0, 0);
    for (n, sentence) in spoken.iter().enumerate() {
        let [before, after] = &sentence.parts;
        let pcm =
            noisy(&[&silence(LEAD_MS)[..], before, &silence(60), after, &silence(2_500)].concat());
        world.call(n, &[&pcm], Duration::from_secs(15)).await;
        let recognised =
            recognised.lock().unwrap().get(&format!("9198{n:08}")).cloned().unwrap_or_default();
        let spoken = words(sentence.text);
        all += spoken.len();
        let differing = differing_words(&spoken, &words(&recognised));
        wrong += differing;
        empty += usize::from(recognised.is_empty());
        if differing > 0 {
            report(&format!("{differing}: {} | {recognised}", sentence.text));
        }
    }
    report(&format!(
        "{wrong} of {all} words wrong at {NOISE_DB} dB of noise and {LOSS} % loss, {empty} results empty"
    ));
}

/// Adds white noise below the level of the loud part of the speech.
fn noisy(pcm: &[i16]) -> Vec<i16> {
    let loud: Vec<f64> = pcm.iter().map(|s| f64::from(*s)).filter(|s| s.abs() > 300.0).collect();
    let power = loud.iter().map(|s| s * s).sum::<f64>() / loud.len().max(1) as f64;
    // White noise of an even distribution between -1 and 1 has a power of a third.
    let scale = (power / 10f64.powf(NOISE_DB / 10.0) * 3.0).sqrt();
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 23) - 1.0
    };
    let add = |sample: &i16| f64::from(*sample) + noise() * scale;
    pcm.iter().map(add).map(|sample| sample.clamp(-32_768.0, 32_767.0) as i16).collect()
}
