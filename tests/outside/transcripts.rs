//! Transcripts of recordings by the test's recogniser and their callbacks, through the whole
//! binary.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use sim::{CallScript, HangupRule};
use tokio::sync::watch;

use super::outbound::{World, world};
use super::recognise::say;

/// A transcription endpoint that returns a list of responses in order, repeats the last one, and
/// keeps the audio.
#[derive(Clone)]
struct Endpoint {
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    received: watch::Sender<Vec<Vec<i16>>>,
    url: String,
}

/// A response that never comes.
const HANGS: (u16, &str) = (0, "");

impl Endpoint {
    async fn start(answers: &[(u16, &'static str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let endpoint = Self { answers, received: watch::Sender::default(), url };
        let hear = async move |State(endpoint): State<Endpoint>, body: Bytes| {
            let at = body.windows(4).position(|w| w == b"RIFF").expect("a WAV file");
            let wav = hound::WavReader::new(&body[at..]).expect("a WAV file");
            let pcm: Vec<i16> = wav.into_samples().map(Result::unwrap).collect();
            let (status, text) = {
                let mut answers = endpoint.answers.lock().unwrap();
                if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
                    .unwrap()
            };
            endpoint.received.send_modify(|received| received.push(pcm));
            if status == 0 {
                std::future::pending::<()>().await;
            }
            (StatusCode::from_u16(status).unwrap(), format!("{{\"text\":\"{text}\"}}"))
        };
        let router = Router::new()
            .route("/v1/audio/transcriptions", post(hear))
            .with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        endpoint
    }

    fn toml(&self) -> String {
        format!("[speech.transcribe]\nurl = \"{}\"\nformat = \"json\"\n", self.url)
    }

    /// Waits until `count` pieces of audio have been received.
    async fn until_received(&self, count: usize) -> Vec<Vec<i16>> {
        let mut received = self.received.subscribe();
        let received = tokio::time::timeout(
            std::time::Duration::from_secs(40),
            received.wait_for(|all| all.len() >= count),
        );
        received.await.expect("heard within 40 s").expect("the endpoint lives").clone()
    }
}

async fn recording(more: &str, document: &str) -> World {
    let world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.extra = format!("[cluster]\nnode_id = \"writing\"\n{more}");
    })
    .await;
    for path in ["/said", "/recording"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml(
        "/unused",
        format!("<Response>{}</Response>", document.replace("APP", &world.app.base)),
    );
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_transcribed_and_reported_after_a_failed_attempt() {
    let endpoint = Endpoint::start(&[(503, ""), (200, "Please book a table for two.")]).await;
    let world = recording(
        &endpoint.toml(),
        "<Record transcriptionType=\"auto\" transcriptionUrl=\"APP/said\" callbackUrl=\"APP/recording\" timeout=\"2\" \
         playBeep=\"false\" recordChannelType=\"mono\"/>",
    )
    .await;
    let script = CallScript {
        say: say(1_000, "Please book a table for two.").await,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let _phone = world.sim.place_call(script);
    let recorded = world.app.wait("/recording").await;
    let callback = world.app.wait("/said").await;
    let ms: u64 = recorded.param("RecordingDurationMs").parse().expect("a number");
    let params: Vec<_> =
        callback.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        params,
        [
            ("call_uuid", recorded.param("CallUUID")),
            ("duration", ms.div_ceil(1_000).to_string().as_str()),
            ("error", ""),
            ("recording_id", recorded.param("RecordingID")),
            ("transcription", "Please book a table for two."),
            ("transcription_charge", "0"),
            ("transcription_rate", "0"),
        ]
    );
    assert_eq!(callback.method, "POST");
    assert!(callback.headers.contains_key("x-plivo-signature-v3"), "signed as every callback is");
    let received = endpoint.until_received(2).await;
    assert_eq!(received.len(), 2, "the same piece again");
    let seconds = received[1].len() as f64 / 16_000.0;
    assert!(
        (1.0..6.0).contains(&seconds),
        "{seconds} s: the words, and not the silence around them"
    );
    for (outcome, count) in [("retry", 1.0), ("done", 1.0), ("failed", 0.0)] {
        world.node.until_metric("offhook_transcripts_total", &[("outcome", outcome)], count).await;
    }
    let delivered = [("kind", "transcription"), ("outcome", "delivered")];
    world.node.until_metric("offhook_callback_total", &delivered, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_call_is_transcribed_even_after_a_kill() {
    let endpoint = Endpoint::start(&[HANGS, (200, "first"), (200, "second")]).await;
    let mut world = recording(
        &endpoint.toml(),
        "<Record recordSession=\"true\" transcriptionType=\"hybrid\" transcriptionReportType=\"full\" \
         transcriptionUrl=\"APP/said\" callbackUrl=\"APP/recording\" fileFormat=\"mp3\"/>\
         <Speak>Good morning. How can we help you?</Speak><Wait length=\"6\"/>",
    )
    .await;
    let say = say(5_000, "I would like to book a table.").await;
    let phone = world.sim.place_call(CallScript {
        say,
        hangup: HangupRule::Never,
        ..CallScript::default()
    });
    world.app.wait("/recording").await;
    drop(phone);
    endpoint.until_received(1).await;
    world.node.kill();
    world.node.start_again().await;
    let callback = world.app.wait("/said").await;
    let text = callback.param("transcription");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        matches!(lines[..], [prompt, words] if prompt.starts_with("[00:0") && prompt.contains("] Called: ")
            && words.starts_with("[00:0") && words.contains("] Caller: ")),
        "{text}"
    );
    assert_eq!(callback.param("error"), "");
    assert_eq!(world.app.count("/said"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recogniser_the_record_says_why_there_is_no_transcript() {
    let world = recording(
        "[speech]\nrecogniser = \"none\"\n",
        "<Record transcriptionType=\"auto\" transcriptionUrl=\"APP/said\" callbackUrl=\"APP/recording\" maxLength=\"1\" \
         playBeep=\"false\"/>",
    )
    .await;
    let events = world.sim.place_call(CallScript::default()).all().await;
    let recorded = world.app.wait("/recording").await;
    assert_eq!(recorded.param("RecordingEndReason"), "MaxLength", "{events:#?}");
    let remark = "no recogniser is configured";
    let log = crate::support::http::send(
        "GET",
        &format!("{}/api/v1/calls/{}/events", world.node.public, recorded.param("CallUUID")),
        &[("x-api-key", crate::support::node::API_KEY)],
        "",
    )
    .await;
    assert!(log.text().contains(remark), "{}", log.text());
    assert_eq!(world.app.count("/said"), 0);
}
