//! The hidden command `offhook speech-helper`: runs the embedded voice in a separate process, so
//! that a fault in its C code affects one prompt and not the node.
//!
//! Requests arrive on standard input, and audio is written to standard output. The client is
//! [`super::builtin`]. In both directions a frame consists of a length (4 bytes, little endian), a
//! kind byte and a body. The helper exits at the end of its input. It holds no secrets or sockets,
//! limits its memory before reading, and confines itself to the folder of the voices before it
//! speaks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::confine::confine;
use super::kokoro::{self, Kokoro};
use super::language::EmbeddedVoice;
use super::neural;
use super::speech_detector::{DetectorError, SpeechDetector};
use super::turn::{TurnError, TurnModel};
use super::whisper::{self, Whisper, Words};
use crate::pico::{Synthesiser, VoiceError, restrict_process, set_process_alarm};

/// Request: the folder of the voice files, `.` if it is the working directory, followed by a line
/// feed and the folder of the models if there is one (UTF-8). It must be the first frame.
pub(super) const FOLDER: u8 = 0;
/// Request: a voice's index in [`EmbeddedVoice::ALL`] (one byte), then Pico markup.
pub(super) const SPEAK: u8 = 1;
/// Request: a [`NeuralRequest`] as JSON.
pub(super) const SPEAK_NEURAL: u8 = 2;
/// Request: audio to be recognised, as samples like those of [`AUDIO`]. It has no response. The
/// helper keeps the last [`SPEECH_SAMPLES_MAX`] samples.
pub(super) const HEAR: u8 = 3;
/// Request: recognise the audio received since the last request: a [`RecogniseRequest`] as JSON.
pub(super) const RECOGNISE: u8 = 4;
/// Request: estimate whether the speaker of the audio received since the last request has finished: an
/// [`EstimateRequest`] as JSON.
pub(super) const ESTIMATE_TURN: u8 = 5;
/// Request: a [`KokoroRequest`] as JSON.
pub(super) const SPEAK_KOKORO: u8 = 6;
/// Response: 16-bit samples, little endian, mono, 16 kHz.
pub(super) const AUDIO: u8 = 0;
/// Response: the text was spoken completely.
pub(super) const DONE: u8 = 1;
/// Response: the text could not be spoken. The body is the reason (UTF-8).
pub(super) const FAILED: u8 = 2;
/// Response: a sample rate in Hz (4 bytes, little endian), then samples as in [`AUDIO`].
pub(super) const AUDIO_AT: u8 = 3;
/// Response: [`RecognisedWords`] or a [`TurnEstimate`] as JSON.
pub(super) const RESULT: u8 = 4;
/// Maximum size of a body in bytes, in either direction.
pub(super) const FRAME_MAX: usize = 64 * 1024;

/// Maximum address space of the helper. Six embedded voices need 8 MB each, and a neural voice up
/// to 150 MB for the longest sentence. The rest is for the program and its allocator.
const ADDRESS_SPACE_BYTES: u64 = 512 << 20;
/// Maximum address space of a helper for Kokoro. Its network uses 600 MB for the longest text.
const LARGE_ADDRESS_SPACE_BYTES: u64 = 1 << 30;
/// The environment variable that is set for helpers with the larger address space.
pub(super) const LARGE: &str = "OFFHOOK_LARGE_HELPER";
/// Amplitude to which neural speech is scaled: half of full scale, so that no sample clips. The
/// node's limiter amplifies it again.
const HEADROOM: f32 = 16_384.0;
/// Maximum number of samples in a response of a neural voice.
const CHUNK_SAMPLES: usize = 16_000;
/// Maximum length of speech that is recognised at once, in samples.
pub(super) const SPEECH_SAMPLES_MAX: usize = whisper::RATE * whisper::SECONDS_MAX;
/// Maximum of [`RecogniseRequest::beam`].
const BEAM_MAX: usize = 8;
/// Time limit of a prompt. It is longer than the client's deadline and applies if the client no
/// longer exists.
const PROMPT_SECONDS_MAX: u32 = 60;

/// Runs the helper until its input ends.
///
/// # Errors
///
/// Fails if the process cannot be restricted or a request is invalid.
pub fn main() -> io::Result<()> {
    let is_large = std::env::var_os(LARGE).is_some();
    restrict_process(if is_large { LARGE_ADDRESS_SPACE_BYTES } else { ADDRESS_SPACE_BYTES })?;
    serve(io::stdin().lock(), io::stdout().lock(), set_process_alarm, confine)
}

/// Restricts this process to reading some folders, after calling a function that starts its
/// threads.
type Confine = fn(&[&Path], fn()) -> io::Result<()>;

/// Serves requests until `input` ends. `watchdog` is called with the time limit of a prompt in
/// seconds before the prompt, and with 0 after it. `confine` is called with the folders that must
/// stay readable and the function that starts threads.
pub(super) fn serve(
    mut input: impl Read,
    mut output: impl Write,
    watchdog: fn(u32),
    confine: Confine,
) -> io::Result<()> {
    let mut folder = String::new();
    let mut synthesisers = BTreeMap::new();
    let mut neural: Option<(String, neural::Voice)> = None;
    let mut kokoro: Option<(String, Kokoro)> = None;
    let mut recogniser: Option<(String, Whisper)> = None;
    let mut detector: Option<(String, SpeechDetector)> = None;
    let mut turn: Option<(String, TurnModel)> = None;
    let mut audio = Vec::new();
    while let Some((kind, body)) = read_frame(&mut input)? {
        match kind {
            FOLDER => {
                let folders = String::from_utf8(body).map_err(|_| invalid_request())?;
                let paths: Vec<&Path> = folders.split('\n').map(Path::new).collect();
                // No thread can be started later.
                let prepare: fn() = if paths.len() > 1 { neural::start_threads } else { || {} };
                confine(&paths, prepare)?;
                folder = folders.split('\n').next().unwrap_or_default().to_owned();
            }
            SPEAK_NEURAL => {
                let request: NeuralRequest =
                    serde_json::from_slice(&body).map_err(|_| invalid_request())?;
                watchdog(PROMPT_SECONDS_MAX);
                let outcome = speak_neural(&mut neural, &request, &mut output);
                watchdog(0);
                finish_speech(outcome, &mut output)?;
            }
            SPEAK_KOKORO => {
                let request: KokoroRequest =
                    serde_json::from_slice(&body).map_err(|_| invalid_request())?;
                watchdog(PROMPT_SECONDS_MAX);
                let outcome = speak_kokoro(&mut kokoro, &request, &mut output);
                watchdog(0);
                finish_speech(outcome, &mut output)?;
            }
            HEAR => {
                let (samples, _) = body.as_chunks::<2>();
                let room = SPEECH_SAMPLES_MAX.saturating_sub(audio.len());
                audio.extend(samples.iter().take(room).map(|sample| i16::from_le_bytes(*sample)));
            }
            RECOGNISE => {
                let request: RecogniseRequest =
                    serde_json::from_slice(&body).map_err(|_| invalid_request())?;
                watchdog(PROMPT_SECONDS_MAX);
                let outcome = recognise(&mut recogniser, &mut detector, &request, &audio);
                watchdog(0);
                audio.clear();
                write_result(&mut output, &outcome)?;
            }
            ESTIMATE_TURN => {
                let request: EstimateRequest =
                    serde_json::from_slice(&body).map_err(|_| invalid_request())?;
                watchdog(PROMPT_SECONDS_MAX);
                let outcome = estimate_turn(&mut turn, &request, &audio);
                watchdog(0);
                audio.clear();
                write_result(&mut output, &outcome)?;
            }
            SPEAK => {
                let (&voice, markup) = body.split_first().ok_or_else(invalid_request)?;
                let voice =
                    *EmbeddedVoice::ALL.get(usize::from(voice)).ok_or_else(invalid_request)?;
                let markup = std::str::from_utf8(markup).map_err(|_| invalid_request())?;
                watchdog(PROMPT_SECONDS_MAX);
                let outcome = speak(&mut synthesisers, &folder, voice, markup, &mut output);
                watchdog(0);
                match outcome {
                    Ok(()) => write_frame(&mut output, DONE, &[])?,
                    Err(VoiceError::Deliver(e)) => return Err(e),
                    Err(e) => {
                        // The synthesiser may be in any state, so the next prompt loads it again.
                        synthesisers.remove(&voice);
                        write_frame(&mut output, FAILED, e.to_string().as_bytes())?;
                    }
                }
                output.flush()?;
            }
            _ => return Err(invalid_request()),
        }
    }
    Ok(())
}

fn speak(
    synthesisers: &mut BTreeMap<EmbeddedVoice, Synthesiser>,
    folder: &str,
    voice: EmbeddedVoice,
    markup: &str,
    output: &mut impl Write,
) -> Result<(), VoiceError> {
    use std::collections::btree_map::Entry;
    let synthesiser = match synthesisers.entry(voice) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let [analysis, generation] = voice.files().map(|name| format!("{folder}/{name}"));
            entry.insert(Synthesiser::load(&analysis, &generation)?)
        }
    };
    let mut bytes = Vec::new();
    synthesiser.speak(markup, |samples| {
        bytes.clear();
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        write_frame(output, AUDIO, &bytes)?;
        output.flush()
    })
}

/// A sentence for a neural voice.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NeuralRequest {
    /// The folder of the voice.
    pub(super) folder: String,
    pub(super) text: String,
    /// The factors of the normal rate and pitch.
    pub(super) rate: f32,
    pub(super) pitch: f32,
    pub(super) male: bool,
}

/// A part of a text for Kokoro.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KokoroRequest {
    /// The folder of the model.
    pub(super) folder: String,
    pub(super) phonemes: String,
    /// The name of the voice.
    pub(super) voice: String,
    /// The factors of the normal rate and pitch.
    pub(super) rate: f32,
    pub(super) pitch: f32,
}

/// A request to recognise speech.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RecogniseRequest {
    /// The folder of the model.
    pub(super) folder: String,
    /// The folder of the model that tells speech from other sounds, if one is installed.
    pub(super) detector: Option<String>,
    /// Phrases that are likely to be spoken.
    pub(super) hints: String,
    /// The width of the beam search. With 1, decoding is greedy, which is the fastest.
    pub(super) beam: usize,
}

/// The words that were recognised in speech.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RecognisedWords {
    pub(super) text: String,
    /// The confidence from 0 to 1.
    pub(super) confidence: f32,
}

/// A request to estimate whether a speaker has finished.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EstimateRequest {
    /// The folder of the model.
    pub(super) folder: String,
}

/// The probability that a speaker has finished, from 0 to 1.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TurnEstimate {
    pub(super) finished: f32,
}

/// Returns the model of a folder. It is loaded if another one, or none, was used last.
fn load<'a, M, E>(
    loaded: &'a mut Option<(String, M)>,
    folder: &str,
    load: impl FnOnce(&Path) -> Result<M, E>,
) -> Result<&'a M, E> {
    let model = match loaded.take() {
        Some((last, model)) if last == folder => model,
        _ => load(Path::new(folder))?,
    };
    Ok(&loaded.insert((folder.to_owned(), model)).1)
}

fn estimate_turn(
    loaded: &mut Option<(String, TurnModel)>,
    request: &EstimateRequest,
    pcm: &[i16],
) -> Result<TurnEstimate, TurnError> {
    // Everything runs on the thread that was started before this process was confined.
    neural::run_on_threads(|| {
        let model = load(loaded, &request.folder, TurnModel::load)?;
        Ok(TurnEstimate { finished: model.estimate(pcm)? })
    })
}

fn recognise(
    loaded: &mut Option<(String, Whisper)>,
    detector: &mut Option<(String, SpeechDetector)>,
    request: &RecogniseRequest,
    pcm: &[i16],
) -> Result<RecognisedWords, RecogniseError> {
    // The networks run on the thread that was started before this process was confined.
    if let Some(folder) = &request.detector {
        let has_speech = neural::run_on_threads(|| {
            load(detector, folder, SpeechDetector::load)?.has_speech(pcm)
        })?;
        if !has_speech {
            return Ok(RecognisedWords { text: String::new(), confidence: 0.0 });
        }
    }
    let model = load(loaded, &request.folder, Whisper::load)?;
    let Words { text, confidence } = neural::run_on_threads(|| {
        model.recognise(pcm, &request.hints, request.beam.clamp(1, BEAM_MAX))
    })?;
    Ok(RecognisedWords { text, confidence })
}

/// The reason why speech could not be recognised.
#[derive(Debug, thiserror::Error)]
enum RecogniseError {
    #[error(transparent)]
    Detector(#[from] DetectorError),
    #[error(transparent)]
    Whisper(#[from] whisper::WhisperError),
}

/// The reason why a sentence could not be spoken.
#[derive(Debug, thiserror::Error)]
enum NeuralSpeechError {
    #[error(transparent)]
    Voice(#[from] neural::NeuralError),
    #[error(transparent)]
    Kokoro(#[from] kokoro::KokoroError),
    #[error("could not deliver the speech: {0}")]
    Deliver(#[from] io::Error),
}

fn speak_neural(
    loaded: &mut Option<(String, neural::Voice)>,
    request: &NeuralRequest,
    output: &mut impl Write,
) -> Result<(), NeuralSpeechError> {
    let voice = load(loaded, &request.folder, neural::Voice::load)?;
    let NeuralRequest { rate, pitch, male, .. } = *request;
    voice.speak(&request.text, neural::Delivery { rate, pitch, male }, |rate, samples| {
        write_speech(output, rate, &samples)
    })
}

fn speak_kokoro(
    loaded: &mut Option<(String, Kokoro)>,
    request: &KokoroRequest,
    output: &mut impl Write,
) -> Result<(), NeuralSpeechError> {
    let KokoroRequest { folder, phonemes, voice, rate, pitch } = request;
    let model = load(loaded, folder, Kokoro::load)?;
    model.speak(phonemes, voice, (*rate, *pitch), |rate, samples| {
        write_speech(output, rate, &samples)
    })
}

fn write_speech(
    output: &mut impl Write,
    rate: u32,
    samples: &[f32],
) -> Result<(), NeuralSpeechError> {
    for chunk in samples.chunks(CHUNK_SAMPLES) {
        let mut bytes = rate.to_le_bytes().to_vec();
        let samples = chunk.iter().map(|sample| crate::clamp_to_i16(sample * HEADROOM));
        bytes.extend(samples.flat_map(i16::to_le_bytes));
        write_frame(output, AUDIO_AT, &bytes)?;
    }
    output.flush().map_err(NeuralSpeechError::Deliver)
}

/// Writes the end of the response of a neural voice.
fn finish_speech(
    outcome: Result<(), NeuralSpeechError>,
    output: &mut impl Write,
) -> io::Result<()> {
    match outcome {
        Ok(()) => write_frame(output, DONE, &[])?,
        Err(NeuralSpeechError::Deliver(e)) => return Err(e),
        Err(e) => write_frame(output, FAILED, e.to_string().as_bytes())?,
    }
    output.flush()
}

fn read_frame(input: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0u8; 5];
    match input.read(&mut head)? {
        0 => return Ok(None),
        n => input.read_exact(head.get_mut(n..).unwrap_or_default())?,
    }
    let [a, b, c, d, kind] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_MAX {
        return Err(invalid_request());
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((kind, body)))
}

/// Writes the response to a request with one result.
fn write_result<R: Serialize, E: std::fmt::Display>(
    output: &mut impl Write,
    outcome: &Result<R, E>,
) -> io::Result<()> {
    match outcome {
        Ok(result) => {
            write_frame(output, RESULT, &serde_json::to_vec(result)?)?;
            write_frame(output, DONE, &[])?;
        }
        Err(e) => write_frame(output, FAILED, e.to_string().as_bytes())?,
    }
    output.flush()
}

fn write_frame(output: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    output.write_all(&frame(kind, body))
}

/// Encodes a frame. `body` is at most [`FRAME_MAX`] bytes long.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn invalid_request() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "invalid request")
}
