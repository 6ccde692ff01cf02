//! The embedded voice, run in helper processes. At most two helpers run; the first starts with the
//! first prompt. A helper that fails is replaced, after a growing delay if failures continue.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::config::SpeechConfig;
use super::helper::{
    AUDIO, AUDIO_AT, DONE, FAILED, FOLDER, FRAME_MAX, HEAR, LARGE, RESULT, SPEAK, frame,
};
use super::language::{EmbeddedVoice, Speaker};
use super::limiter::Limiter;
use super::markup;
use super::models::ModelStore;
use super::provider::{AudioChunk, BoxFuture, Owner, Provider, Sink, SpeechError};
use super::script::{Run, Segment};
use super::sentences;
use super::voices;
use crate::pico::RATE;
use egress::FairPermits;
use model::Clock;

/// Maximum number of helpers. Pico synthesises 200 s of speech per second of CPU time, so that two
/// are enough. The limit bounds the CPU time that bad text can use.
const HELPERS_MAX: usize = 2;
/// Time limit for the work of helpers on one segment of text (at most 3,000 characters). A segment
/// takes about a second on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Length in bytes from which text is spoken in pieces, each a request of its own, so that a long
/// text does not keep a helper from other prompts. A piece ends with a sentence if possible.
const PIECE_BYTES: usize = 200;
/// Silence that is left before the first words of a prompt, in milliseconds, and how much quieter than
/// the loudest sample silence is.
const ONSET_MS: u32 = 30;
const ONSET_BELOW_PEAK: u16 = 200;
/// Delay after the second consecutive failure. It doubles with each further failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// The embedded voice as a [`Provider`].
pub struct Builtin {
    start: Box<dyn StartHelper>,
    folder: PathBuf,
    /// The folder of the models that helpers may read, if any is installed.
    models: Option<PathBuf>,
    clock: Clock,
    running: FairPermits<Owner>,
    pool: Mutex<Pool>,
    unpacked: [tokio::sync::OnceCell<()>; EmbeddedVoice::ALL.len()],
}

/// Starts helpers. Tests use other implementations.
pub(super) trait StartHelper: Send + Sync {
    fn start(&self) -> io::Result<Helper>;

    /// The path at which a helper finds the folder of the voices.
    fn path_of<'a>(&self, voices: &'a Path) -> &'a Path {
        voices
    }
}

/// A running helper. Dropping it ends the process.
pub(super) struct Helper {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) child: Option<Child>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Helper>,
    /// The number of consecutive failures.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Builtin {
    /// Creates the provider. Helpers run `program speech-helper`, or this program if `None`; voice
    /// files are unpacked into `folder`. Helpers may also read the folder `models`.
    pub fn new(
        program: Option<PathBuf>,
        folder: PathBuf,
        models: Option<PathBuf>,
        clock: Clock,
    ) -> Self {
        let start = HelperProgram { program, folder: folder.clone(), large: false };
        Self::with_start(Box::new(start), folder, models, clock)
    }

    /// Creates helpers that only run models, so that their requests do not wait for prompts.
    pub(super) fn for_models(config: &SpeechConfig, models: &ModelStore) -> Self {
        let (program, voices) = (config.helper.clone(), config.data_dir.join("voices"));
        Self::new(program, voices, Some(models.folder().to_owned()), Clock::real())
    }

    /// Creates helpers for models that need more memory than others.
    pub(super) fn for_large_models(config: &SpeechConfig, models: &ModelStore) -> Self {
        let (program, folder) = (config.helper.clone(), config.data_dir.join("voices"));
        let start = HelperProgram { program, folder: folder.clone(), large: true };
        Self::with_start(Box::new(start), folder, Some(models.folder().to_owned()), Clock::real())
    }

    pub(super) fn with_start(
        start: Box<dyn StartHelper>,
        folder: PathBuf,
        models: Option<PathBuf>,
        clock: Clock,
    ) -> Self {
        Self {
            start,
            folder,
            models,
            clock,
            running: FairPermits::new(HELPERS_MAX, HELPERS_MAX),
            pool: Mutex::default(),
            unpacked: Default::default(),
        }
    }

    async fn speak(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        let voice = EmbeddedVoice::nearest(&segment.speaker.language);
        self.unpack(voice).await?;
        let mut limiter = Limiter::new(markup::GAIN);
        let (owner, mut left) = (sink.owner().clone(), DEADLINE);
        for piece in pieces(segment) {
            let markup = markup::pico_markup(&piece, voice);
            if markup.len() >= FRAME_MAX {
                return Err(SpeechError::TooLong(markup.len()));
            }
            let mut body = vec![voice as u8];
            body.extend_from_slice(markup.as_bytes());
            let mut output = HelperOutput::Stream(sink, &mut limiter);
            self.request(&frame(SPEAK, &body), &mut output, &owner, &mut left).await?;
        }
        sink.push(RATE, limiter.finish()).await
    }

    /// Sends a request to a helper and passes its response to `output`. If all helpers are busy, the
    /// accounts take turns. `left` is the time that the helper may take, without that for its turn,
    /// and is reduced by the time that it took.
    pub(super) async fn request(
        &self,
        request: &[u8],
        output: &mut HelperOutput<'_>,
        owner: &Owner,
        left: &mut Duration,
    ) -> Result<(), SpeechError> {
        let _permit = self.running.acquire(owner).await;
        let mut helper = self.take_helper().await?;
        let begun = self.clock.now();
        let outcome = tokio::time::timeout(*left, helper.speak(request, output)).await;
        *left = left.saturating_sub(self.clock.now().saturating_duration_since(begun));
        match outcome.unwrap_or(Err(SpeechError::Deadline(DEADLINE))) {
            // The helper is still running and idle: the text failed or is not needed any more.
            outcome @ (Ok(()) | Err(SpeechError::Engine(_) | SpeechError::Cancelled)) => {
                let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
                pool.failures = 0;
                pool.idle.push(helper);
                outcome
            }
            Err(e) => {
                self.record_failure();
                Err(e)
            }
        }
    }

    /// Sends a request for speech, and plays the response once it is complete, so that a failure
    /// leaves no part of a word. The first words of a prompt come without the silence before them.
    pub(super) async fn speak_whole(
        &self,
        request: &[u8],
        gain: f32,
        sink: &mut Sink,
    ) -> Result<(), SpeechError> {
        let mut chunks: Vec<AudioChunk> = Vec::new();
        let (output, mut left) = (&mut HelperOutput::Keep(&mut chunks), DEADLINE);
        self.request(request, output, sink.owner(), &mut left).await?;
        if !sink.has_audio() {
            remove_onset(&mut chunks);
        }
        let mut limiter = Limiter::new(gain);
        let mut last_rate = None;
        for AudioChunk { rate, pcm } in chunks {
            last_rate = Some(rate);
            sink.push(rate, limiter.push(&pcm)).await?;
        }
        match last_rate {
            Some(rate) => sink.push(rate, limiter.finish()).await,
            None => Ok(()),
        }
    }

    /// Sends audio and a request about it, and returns the result.
    pub(super) async fn request_about<R: DeserializeOwned>(
        &self,
        owner: &Owner,
        pcm: &[i16],
        kind: u8,
        request: &impl Serialize,
    ) -> Result<R, SpeechError> {
        let request =
            serde_json::to_vec(request).map_err(|e| SpeechError::Engine(e.to_string()))?;
        let mut frames = Vec::with_capacity(pcm.len() * 2 + request.len() + 200);
        for samples in pcm.chunks(FRAME_MAX / 2) {
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            frames.extend(frame(HEAR, &bytes));
        }
        frames.extend(frame(kind, &request));
        let (mut result, mut left) = (Vec::new(), DEADLINE);
        self.request(&frames, &mut HelperOutput::Result(&mut result), owner, &mut left).await?;
        serde_json::from_slice(&result).map_err(|e| SpeechError::Engine(e.to_string()))
    }

    /// Unpacks a voice's files once per process.
    async fn unpack(&self, voice: EmbeddedVoice) -> Result<(), SpeechError> {
        let Some(cell) = self.unpacked.get(voice as usize) else { return Ok(()) };
        let unpack = || async {
            let folder = self.folder.clone();
            let done = tokio::task::spawn_blocking(move || voices::unpack(&folder, voice)).await;
            done.map_err(|e| SpeechError::Engine(e.to_string()))?.map_err(SpeechError::from)
        };
        cell.get_or_try_init(unpack).await.map(|_| ())
    }

    /// Returns an idle helper that is still running, or starts a new one.
    async fn take_helper(&self) -> Result<Helper, SpeechError> {
        let now = self.clock.now();
        {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(mut helper) = pool.idle.pop() {
                if helper.is_running() {
                    return Ok(helper);
                }
            }
            let wait =
                pool.retry_at.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
            if !wait.is_zero() {
                return Err(SpeechError::BackOff { failures: pool.failures, wait });
            }
        }
        // A helper is confined to the folder, so it must exist.
        let _ = tokio::fs::create_dir_all(&self.folder).await;
        let mut helper = self.start.start().map_err(|e| {
            self.record_failure();
            SpeechError::Start(e)
        })?;
        let mut folders = self.start.path_of(&self.folder).to_string_lossy().into_owned();
        if let Some(models) = &self.models {
            folders = format!("{folders}\n{}", models.to_string_lossy());
        }
        if let Err(e) = helper.input.write_all(&frame(FOLDER, folders.as_bytes())).await {
            self.record_failure();
            return Err(SpeechError::Helper(e));
        }
        Ok(helper)
    }

    /// Records a failure. The first one has no delay: the next prompt starts a new helper
    /// immediately.
    fn record_failure(&self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let doublings = pool.failures.saturating_sub(1).min(16);
        if pool.failures > 0 {
            pool.retry_at =
                Some(self.clock.now() + (BACK_OFF_FIRST * (1 << doublings)).min(BACK_OFF_MAX));
        }
        pool.failures = pool.failures.saturating_add(1);
    }
}

/// Splits a segment into the pieces that are spoken one after the other.
fn pieces(segment: &Segment) -> Vec<Segment> {
    let mut pieces = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut bytes = 0;
    for run in &segment.runs {
        for (part, text) in sentences::split(&run.text, PIECE_BYTES).into_iter().enumerate() {
            let ends_sentence = |last: &Run| last.text.ends_with(['.', '!', '?', '…']);
            // A sentence in several styles is not split before it is long.
            let max = match part > 0 || runs.last().is_some_and(ends_sentence) {
                true => PIECE_BYTES,
                false => 2 * PIECE_BYTES,
            };
            if bytes > 0 && bytes + text.len() > max {
                pieces.push(std::mem::take(&mut runs));
                bytes = 0;
            }
            bytes += text.len();
            match runs.last_mut().filter(|_| part > 0) {
                Some(last) => last.text.push_str(text),
                None => runs.push(Run { text: text.to_owned(), style: run.style }),
            }
        }
    }
    pieces.push(runs);
    let piece = |runs| Segment { speaker: segment.speaker.clone(), runs };
    pieces.into_iter().map(piece).collect()
}

impl Provider for Builtin {
    fn name(&self) -> &'static str {
        "builtin"
    }

    fn can_speak(&self, language: &str) -> bool {
        EmbeddedVoice::for_language(language).is_some()
    }

    fn voice(&self, speaker: &Speaker) -> String {
        EmbeddedVoice::nearest(&speaker.language).tag().to_owned()
    }

    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.speak(segment, sink))
    }
}

/// Destination of the response to a request.
pub(super) enum HelperOutput<'a> {
    /// The audio is passed to the encoder as it arrives.
    Stream(&'a mut Sink, &'a mut Limiter),
    /// The audio is collected until the request is complete.
    Keep(&'a mut Vec<AudioChunk>),
    /// The result of a request about audio, as JSON.
    Result(&'a mut Vec<u8>),
    /// Nobody receives the audio any more. The rest is read, so that the helper can be used again.
    Cancelled,
}

impl HelperOutput<'_> {
    async fn push(&mut self, rate: u32, pcm: Vec<i16>) -> Result<(), SpeechError> {
        match self {
            Self::Stream(sink, limiter) => match sink.push(rate, limiter.push(&pcm)).await {
                Err(SpeechError::Cancelled) => *self = Self::Cancelled,
                pushed => pushed?,
            },
            Self::Keep(chunks) => chunks.push(AudioChunk { rate, pcm }),
            Self::Result(_) => return Err(SpeechError::Helper(io::ErrorKind::InvalidData.into())),
            Self::Cancelled => {}
        }
        Ok(())
    }
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    let (samples, _) = bytes.as_chunks::<2>();
    samples.iter().map(|&sample| i16::from_le_bytes(sample)).collect()
}

impl Helper {
    async fn speak(
        &mut self,
        request: &[u8],
        output: &mut HelperOutput<'_>,
    ) -> Result<(), SpeechError> {
        self.input.write_all(request).await.map_err(SpeechError::Helper)?;
        self.input.flush().await.map_err(SpeechError::Helper)?;
        loop {
            let (kind, body) = self.read_response().await.map_err(SpeechError::Helper)?;
            match kind {
                AUDIO => output.push(RATE, samples(&body)).await?,
                AUDIO_AT => {
                    let (rate, pcm) = body
                        .split_first_chunk::<4>()
                        .ok_or(SpeechError::Helper(io::ErrorKind::InvalidData.into()))?;
                    output.push(u32::from_le_bytes(*rate), samples(pcm)).await?;
                }
                RESULT => match output {
                    HelperOutput::Result(result) => **result = body,
                    HelperOutput::Stream(..) | HelperOutput::Keep(_) | HelperOutput::Cancelled => {
                        return Err(SpeechError::Helper(io::ErrorKind::InvalidData.into()));
                    }
                },
                DONE => {
                    return match output {
                        HelperOutput::Cancelled => Err(SpeechError::Cancelled),
                        _ => Ok(()),
                    };
                }
                FAILED => {
                    return Err(SpeechError::Engine(String::from_utf8_lossy(&body).into_owned()));
                }
                _ => return Err(SpeechError::Helper(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    async fn read_response(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let length = self.output.read_u32_le().await? as usize;
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let kind = self.output.read_u8().await?;
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).await?;
        Ok((kind, body))
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(None)))
    }
}

/// Starts processes of this program, or of the running program if `None`. They run in the folder of
/// the voices, because Pico accepts only short paths.
struct HelperProgram {
    program: Option<PathBuf>,
    folder: PathBuf,
    /// Whether helpers may use more memory.
    large: bool,
}

impl StartHelper for HelperProgram {
    fn start(&self) -> io::Result<Helper> {
        let program = self.program.clone().map_or_else(std::env::current_exe, Ok)?;
        let mut child = Command::new(std::path::absolute(program)?)
            .arg("speech-helper")
            .current_dir(&self.folder)
            .env_clear()
            // The allocator's first reservation alone would be 1 GiB, more than the helper's memory
            // limit.
            .env("MIMALLOC_ARENA_RESERVE", "32MiB")
            .env("RTEN_NUM_THREADS", "1")
            .envs(self.large.then_some((LARGE, "1")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Helper { input: Box::new(input), output: Box::new(output), child: Some(child) })
    }

    fn path_of<'a>(&self, _voices: &'a Path) -> &'a Path {
        Path::new(".")
    }
}

/// Removes the silence before speech, which is a quarter of a second with a neural voice. A caller
/// would wait for it. A short part remains, so that a soft first sound is whole.
fn remove_onset(chunks: &mut Vec<AudioChunk>) {
    let level = |sample: &i16| sample.unsigned_abs();
    let peak =
        chunks.iter().flat_map(|chunk| chunk.pcm.iter().map(level)).max().unwrap_or_default();
    let is_silent = |sample: &&i16| level(sample) <= peak / ONSET_BELOW_PEAK;
    let silent = chunks.iter().flat_map(|chunk| &chunk.pcm).take_while(is_silent).count();
    let rate = chunks.first().map_or(0, |chunk| chunk.rate);
    let kept = usize::try_from(rate * ONSET_MS / 1_000).unwrap_or(usize::MAX);
    let mut removed = silent.saturating_sub(kept);
    chunks.retain_mut(|chunk| {
        let here = removed.min(chunk.pcm.len());
        chunk.pcm.drain(..here);
        removed -= here;
        !chunk.pcm.is_empty()
    });
}

#[cfg(test)]
pub(super) mod tests;
