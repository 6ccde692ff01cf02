//! Speech recognition through the whole binary with real media: the simulated phone plays the
//! embedded voice, the test's recogniser (or pocketsphinx) receives it, and the application gets
//! the text.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use egress::{FileResponse, FileSink};
use machine::Sound;
use media::prompt::{Frame, FrameState};
use model::{AuthId, Clock};
use serde_json::json;
use sim::{CallEventKind, CallScript, HangupRule, Sim};
use speech::config::SpeechConfig;
use speech::library::{FileFetch, Library};
use speech::provider::BoxFuture;
use xml::ast::{DocUrl, Speech, SpeechNode, Voice};

use crate::support::app::App;
use crate::support::has_peer;
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};

struct NoFiles;

impl FileFetch for NoFiles {
    fn fetch<'a>(
        &'a self,
        _: Option<&'a AuthId>,
        _: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
        _: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(std::future::ready(Err("no files here".to_owned())))
    }
}

/// Returns a caller's audio: text in the embedded voice, surrounded by silence.
pub(super) async fn say(before_ms: u64, text: &str) -> Vec<Frame> {
    let dir = tempfile::tempdir().unwrap();
    let config = SpeechConfig {
        data_dir: dir.path().to_owned(),
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        ..SpeechConfig::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let library = Library::new(config, Clock::real(), runtime, Arc::new(NoFiles)).unwrap();
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    let sounds = [
        Sound::Silence { ms: u32::try_from(before_ms).unwrap() },
        Sound::Speak { speech, voice: Voice::Woman, language: None },
        Sound::Silence { ms: 200 },
    ];
    let mut frames = Vec::new();
    for sound in sounds {
        let mut cursor = library.prompt(&sound).cursor();
        loop {
            match cursor.next() {
                FrameState::Ready(frame) => frames.push(frame),
                FrameState::Pending => tokio::task::yield_now().await,
                FrameState::End => break,
                FrameState::Failed => panic!("no sound of {text:?}"),
            }
        }
    }
    frames
}

/// A transcription endpoint that always returns the same text and keeps the requests.
#[derive(Clone, Default)]
pub struct Endpoint {
    asked: Arc<Mutex<Vec<Bytes>>>,
}

impl Endpoint {
    pub async fn start(answer: &'static str) -> (Self, String) {
        let endpoint = Self::default();
        let hear = move |State(endpoint): State<Endpoint>, body: Bytes| async move {
            endpoint.asked.lock().unwrap().push(body);
            answer
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/v1/audio/transcriptions", post(hear))
            .with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (endpoint, url)
    }

    /// Returns the received audio, 16 kHz mono.
    pub fn received(&self) -> Vec<Vec<i16>> {
        let asked = self.asked.lock().unwrap();
        let wav = |body: &Bytes| {
            let at = body.windows(4).position(|w| w == b"RIFF").expect("a WAV file");
            let wav = hound::WavReader::new(&body[at..]).expect("a WAV file");
            assert_eq!((wav.spec().sample_rate, wav.spec().channels), (16_000, 1));
            wav.into_samples::<i16>().map(Result::unwrap).collect()
        };
        asked.iter().map(wav).collect()
    }
}

struct World {
    node: Node,
    sim: Sim,
    app: App,
}

async fn world(speech: &str) -> World {
    let app = App::start().await;
    app.xml("/hangup", "")
        .xml("/so-far", "")
        .xml("/said", "<Response><Speak>Thank you.</Speak></Response>");
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.extra = speech.to_owned();
    let node = Node::start(&node_config).await;
    sim.set_node_url(node.public.clone());
    World { node, sim, app }
}

impl World {
    fn answer(&self, attributes: &str, prompt: &str) {
        let (action, so_far) = (self.app.url("/said"), self.app.url("/so-far"));
        let attributes = attributes.replace("SO-FAR", &so_far);
        self.app.xml(
            "/answer",
            format!("<Response><GetInput action=\"{action}\" {attributes}>{prompt}</GetInput><Speak>Nothing.</Speak></Response>"),
        );
    }

    /// Runs a call that plays `say` and stays until the business hangs up.
    async fn call(&self, say: Vec<Frame>) -> Vec<sim::CallEvent> {
        let script = CallScript { say, hangup: HangupRule::Never, ..CallScript::default() };
        let events =
            tokio::time::timeout(Duration::from_secs(60), self.sim.place_call(script).all()).await;
        let events = events.expect("the call ends");
        assert!(events.iter().any(|e| e.kind == CallEventKind::MediaUp), "{events:#?}");
        events
    }
}

const LONG: &str = "<Speak>Welcome to the restaurant. We are open every day from eleven in the morning to eleven at night. \
    Please tell us what we can do for you today, and we will see to it at once, or as soon as we can.</Speak>";

#[tokio::test(flavor = "multi_thread")]
async fn speech_interrupts_the_prompt_and_is_sent_to_the_action() {
    let answer = r#"{"text":" Book a table for two.\n","segments":[{"text":" Book a table for two.","start":0,"end":2,"avg_logprob":-0.1,"no_speech_prob":0.01}]}"#;
    let (endpoint, url) = Endpoint::start(answer).await;
    let world = world(&format!("[speech.transcribe]\nurl = \"{url}\"\n")).await;
    world.answer("inputType=\"speech\" hints=\"book a table\" language=\"en-IN\"", LONG);
    let frames = say(1_500, "Please book a table for two.").await;
    let spoken_ms = (frames.len() as u64 * 20) - 1_700;
    let events = world.call(frames).await;
    let callback = world.app.wait("/said").await;
    for (name, value) in [
        ("InputType", "speech"),
        ("Speech", "Book a table for two."),
        ("SpeechConfidenceScore", "0.90"),
        ("Digits", ""),
        ("BilledAmount", "0.00000"),
        ("Event", "Redirect"),
        ("CallStatus", "in-progress"),
    ] {
        assert_eq!(callback.param(name), value, "{name}");
    }
    let received = endpoint.received();
    assert_eq!(received.len(), 1, "one request an utterance");
    let ms = received[0].len() as u64 / 16;
    // The voice begins and ends softly. Silence after the last voiced frame is not sent.
    let voiced_ms = spoken_ms - 400;
    assert!((voiced_ms..spoken_ms + 1_500).contains(&ms), "{ms} ms of {spoken_ms} ms");
    let form = endpoint.asked.lock().unwrap()[0].clone();
    let form = String::from_utf8_lossy(&form).into_owned();
    assert!(
        form.contains("name=\"language\"\r\n\r\nen\r\n") && form.contains("book a table"),
        "its fields"
    );
    // A long prompt is interrupted.
    let Some(CallEventKind::Ended(ended)) = events.last().map(|e| &e.kind) else {
        panic!("no end: {events:#?}")
    };
    assert!(ended.heard_ms < 6_000, "barge-in: {} ms heard", ended.heard_ms);
    assert!(
        world
            .node
            .metric("offhook_instructions_total", &[("element", "GetInput"), ("outcome", "done")])
            .await
            > 0.0
    );
    understood(&received[0], "please book a table for two");
    names_speech(&world, callback.param("CallUUID"), "transcribe, en-IN").await;
}

/// Checks that a call's waterfall, its text and its event log name the embedded voice of its two
/// prompts and `recogniser`, and that the log replays.
async fn names_speech(world: &World, uuid: &str, recogniser: &str) {
    world.node.record(uuid).await;
    let get = async |path: &str| {
        let url = format!("{}/api/v1/calls/{uuid}/{path}/", world.node.public);
        crate::support::http::send("GET", &url, &[("x-api-key", API_KEY)], "").await
    };
    let fall = get("waterfall").await.json();
    let (name, language) = recogniser.split_once(", ").expect("a name and a language");
    assert_eq!(
        fall["voices"],
        json!([{"engine": "builtin", "voice": "en-US", "language": "en-US", "playlists": 2}])
    );
    assert_eq!(
        fall["recognisers"],
        json!([{"recogniser": name, "language": language, "utterances": 1}])
    );
    let bars = fall["bars"].as_array().expect("bars");
    for note in ["builtin en-US".to_owned(), format!("understood by {recogniser}")] {
        assert!(bars.iter().any(|bar| bar["note"] == note), "{note} in {fall}");
    }
    let log = get("events").await.text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["spoken", "recognised"]
                .iter()
                .any(|kind| line.starts_with(&format!("{{\"trace\":\"{kind}\"")))
        })
        .collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.len() < 120), "{lines:?}");
    let replayed = machine::replay::replay(log.as_bytes(), |_| {}).expect("the log reads");
    assert_eq!(replayed.difference, None);
}

/// Checks that the audio sent to the recogniser is intelligible to another one.
fn understood(pcm: &[i16], text: &str) {
    let Some(words) = sphinx(pcm) else { return };
    let spoken: Vec<&str> = text.split(' ').collect();
    let recognised = spoken.iter().filter(|word| words.split(' ').any(|w| w == **word)).count();
    assert!(recognised * 2 >= spoken.len(), "understood {words:?} of {text:?}");
}

/// Returns the text that pocketsphinx recognises, or `None` if it is not installed.
pub fn sphinx(pcm: &[i16]) -> Option<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let program = "pocketsphinx_continuous";
    let found = Command::new(program).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has_peer("pocketsphinx", found, "Debian's packages pocketsphinx and pocketsphinx-en-us") {
        return None;
    }
    let mut child = Command::new(program)
        .args(["-infile", "/dev/stdin", "-logfn", "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start pocketsphinx");
    let bytes: Vec<u8> = [0i16; 8_000]
        .iter()
        .chain(pcm)
        .chain(&[0; 8_000])
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let mut input = child.stdin.take().expect("its input");
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect("what it says");
    writing.join().expect("no panic").expect("it listens");
    Some(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_results_come_before_the_action_and_none_after_it() {
    let (_endpoint, url) = Endpoint::start(r#"{"text":"fuck this table"}"#).await;
    let world = world(&format!(
        "[speech.transcribe]\nurl = \"{url}\"\ninterim_ms = 200\nformat = \"json\"\n"
    ))
    .await;
    world.answer(
        "inputType=\"dtmf speech\" interimSpeechResultsCallback=\"SO-FAR\" profanityFilter=\"true\" log=\"false\"",
        "",
    );
    world
        .call(say(200, "This is a long sentence, and it takes its time until it ends.").await)
        .await;
    let callback = world.app.wait("/said").await;
    assert_eq!(
        (callback.param("Speech"), callback.param("SpeechConfidenceScore")),
        ("f*** this table", "1.00")
    );
    let seen = world.app.requests();
    let order: Vec<_> =
        seen.iter().map(|s| s.path.as_str()).filter(|p| ["/so-far", "/said"].contains(p)).collect();
    assert!(order.len() >= 2 && order.last() == Some(&"/said"), "{order:?}");
    let first = seen.iter().find(|s| s.path == "/so-far").expect("an interim result");
    for (name, value) in [
        ("Event", "InterimSpeech"),
        ("StableSpeech", ""),
        ("UnstableSpeech", "f*** this table"),
        ("Stability", "0.00"),
        ("SequenceNumber", "1"),
    ] {
        assert_eq!(first.param(name), value, "{name}");
    }
    assert!(first.headers.contains_key("x-plivo-signature-v3"));
    // With log="false" the text must not appear anywhere.
    let uuid = callback.param("CallUUID").to_owned();
    let key = [("x-api-key", API_KEY)];
    let url = format!("{}/api/v1/calls/{uuid}/events", world.node.public);
    let log = crate::support::http::send("GET", &url, &key, "").await.text();
    assert!(log.contains("xxxxxx") && !log.contains("this table"), "{log}");
    assert!(!world.node.log().contains("this table"), "not in the node's log");
    let replayed = machine::replay::replay(log.as_bytes(), |_| {}).expect("the log reads");
    assert_eq!(replayed.difference, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recogniser_the_document_continues_and_the_record_says_why() {
    let world = world("[speech]\nrecogniser = \"none\"\n").await;
    world.answer("inputType=\"speech\" executionTimeout=\"5\"", "");
    world.call(say(200, "Is anybody there?").await).await;
    let answer = world.app.wait("/answer").await;
    assert_eq!(world.app.count("/said"), 0);
    world.app.wait("/hangup").await;
    let record = world.node.record(answer.param("CallUUID")).await.to_string();
    let url = format!("{}/api/v1/calls/{}/", world.node.public, answer.param("CallUUID"));
    let key = [("x-api-key", API_KEY)];
    let shown = crate::support::http::send("GET", &url, &key, "").await.text();
    assert!(
        shown.contains("W407") && shown.contains("no recogniser understands en-US"),
        "{shown} {record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pocketsphinx_understands_the_hints() {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| dir.join("pocketsphinx_continuous").is_file())
    });
    if !has_peer("pocketsphinx", found, "Debian's packages pocketsphinx and pocketsphinx-en-us") {
        return;
    }
    let world = world("").await;
    let hints = "Opening hours,Book a table,Cancel my order,Speak to an agent";
    world.answer(&format!("inputType=\"speech\" hints=\"{hints}\""), "");
    world.call(say(300, "Cancel my order.").await).await;
    let callback = world.app.wait("/said").await;
    assert_eq!(callback.param("Speech"), "Cancel my order");
}
