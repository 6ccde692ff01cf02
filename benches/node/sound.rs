//! Benchmark of live audio processing: three-way conferences, streams that listen, and streams that
//! speak (live encoding). Reports the node's processor time per call beside that of the codec alone
//! for the same audio.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use media::opus::{Decoder, Encoder, Rate};
use sim::sound::wav_of;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::load::{self, LoadOptions};
use super::subject::{Offhook, Setup};
use super::{World, env_number, say};

/// Duration of the measurement.
const MEASURED: Duration = Duration::from_secs(10);
const RATE: Rate = Rate::Hz16000;
/// Calls started per second.
const PACE: f64 = 15.0;

/// The benchmarks by their command-line names.
pub(crate) const KINDS: [&str; 3] = ["encode", "conference", "stream"];

/// Processor time of the codec for one second of audio.
struct Codec {
    decode: Duration,
    encode: Duration,
}

pub(crate) async fn run(kind: &str) -> Result<(), Box<dyn std::error::Error>> {
    // Round to a multiple of three, so that all rooms are full.
    let calls = (env_number("OFFHOOK_BENCH_SOUND", 60) / 3).max(1) * 3;
    let world = World::new().await?;
    let arriving = calls as f64 / PACE + 4.0;
    let seconds = arriving + MEASURED.as_secs_f64() + 3.0;
    let speech = speech(seconds + 2.0);
    let codec = codec(&speech)?;
    let server = if kind == "conference" {
        None
    } else {
        Some(server(if kind == "encode" { &speech } else { &[] }).await?)
    };
    let folder = tempfile::tempdir()?;
    let places = world.places();
    let answer = format!("http://{}/{kind}?{}", world.customer.at, server.unwrap_or_default());
    let setup = Setup {
        folder: folder.path(),
        graph: &places.graph,
        answer: &answer,
        hangup: &places.hangup,
        accept_wait_ms: 3_000,
    };
    let node = Offhook::start(&world.client, &setup).await?;
    let mut order =
        load::order(&node.url, LoadOptions { rate: PACE, calls, hold_s: seconds, media: true });
    // If the server speaks, the callers are silent.
    order.call.say = (kind != "encode").then(|| STANDARD.encode(wav_of(&speech)));
    let look = async {
        tokio::time::sleep(Duration::from_secs_f64(arriving)).await;
        let before = node.process.cpu();
        tokio::time::sleep(MEASURED).await;
        (
            node.process.cpu_since(&before),
            ["sound", "media"].map(|name| node.process.cpu_since_of(&before, name)),
        )
    };
    let (summary, (all, [sound, media])) =
        tokio::join!(load::run_order(&world.client, world.sim.url(), order), look);
    let summary = summary?;
    if summary.answered != calls {
        return Err(format!("not every call was answered: {summary:?}").into());
    }
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / MEASURED.as_secs_f64() / calls as f64;
    let floor = match kind {
        "encode" => codec.encode,
        "conference" => codec.encode + codec.decode,
        _ => codec.decode,
    };
    let floor = floor.as_secs_f64() * 1e6;
    say(format_args!(
        "{kind}, {calls} calls: {:.0} µs a second of each call, of which {:.0} µs work on sound, {:.0} µs packets, {:.0} µs the rest; \
         the codec alone {floor:.0} µs, ratio of the work on sound {:.2}, of all {:.2}; {:.0} calls a core; gaps heard {}",
        each(all),
        each(sound),
        each(media),
        each(all.saturating_sub(sound + media)),
        each(sound) / floor,
        each(all) / floor,
        1e6 / each(all),
        summary.audio_gaps,
    ));
    Ok(())
}

/// Synthesises a voice-like signal: a gliding buzz in syllables with pauses, plus noise.
fn speech(seconds: f64) -> Vec<i16> {
    let samples = (seconds * f64::from(RATE.hz())) as usize;
    let (mut phase, mut random) = (0.0_f64, 1_u32);
    (0..samples)
        .map(|n| {
            let at = n as f64 / f64::from(RATE.hz());
            let pitch = 130.0 + 30.0 * (at * 2.1).sin();
            phase = (phase + pitch / f64::from(RATE.hz())).fract();
            let syllable = (at * 4.0 * std::f64::consts::PI).sin().max(0.0);
            let spoken = if at % 3.0 < 2.4 { syllable } else { 0.0 };
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let breath = f64::from(random >> 16) / 32_768.0 - 1.0;
            let buzz: f64 = (1..12)
                .map(|k| (phase * f64::from(k) * std::f64::consts::TAU).sin() / f64::from(k))
                .sum();
            (spoken * (buzz * 6_000.0 + breath * 600.0)) as i16
        })
        .collect()
}

/// Measures the codec: the best of several runs over all samples, by thread time.
fn codec(pcm: &[i16]) -> Result<Codec, Box<dyn std::error::Error>> {
    let thread = std::fs::read_link("/proc/thread-self")?;
    let spent = || -> u64 {
        let stat =
            std::fs::read_to_string(std::path::Path::new("/proc").join(&thread).join("schedstat"));
        stat.ok().and_then(|stat| stat.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let (mut decode, mut encode) = (u64::MAX, u64::MAX);
    for _ in 0..5 {
        let (mut encoder, mut decoder, mut out) =
            (Encoder::for_prompts(), Decoder::new(RATE), Vec::new());
        let begun = spent();
        let frames: Vec<_> =
            pcm.chunks_exact(RATE.frame()).map(|frame| encoder.encode(frame)).collect();
        let between = spent();
        for frame in &frames {
            out.clear();
            decoder.decode(Some(frame), false, &mut out)?;
        }
        encode = encode.min(between - begun);
        decode = decode.min(spent() - between);
    }
    let second = |nanos: u64| {
        Duration::from_nanos((nanos as f64 * f64::from(RATE.hz()) / pcm.len() as f64) as u64)
    };
    Ok(Codec { decode: second(decode), encode: second(encode) })
}

/// Starts a customer's stream server that reads what it receives and sends `speech` one second at a
/// time. Returns its URL.
async fn server(speech: &[i16]) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let seconds: Vec<String> = speech.chunks(RATE.hz() as usize).map(play_audio).collect();
    let seconds = std::sync::Arc::new(seconds);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let seconds = seconds.clone();
            tokio::spawn(async move {
                let Ok(socket) = accept_async(stream).await else { return };
                let (mut to, mut from) = socket.split();
                let mut every = tokio::time::interval(Duration::from_secs(1));
                let mut next = seconds.iter();
                loop {
                    tokio::select! {
                        message = from.next() => if !matches!(message, Some(Ok(_))) { return },
                        _ = every.tick() => {
                            let Some(second) = next.next() else { continue };
                            if to.send(Message::text(second.clone())).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    Ok(at.to_string())
}

fn play_audio(second: &[i16]) -> String {
    let bytes: Vec<u8> = second.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let media = serde_json::json!({"contentType": "audio/x-l16", "sampleRate": RATE.hz(), "payload": STANDARD.encode(bytes)});
    serde_json::json!({"event": "playAudio", "media": media}).to_string()
}
