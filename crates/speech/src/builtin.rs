//! The embedded voice, by way of helper processes: started at the first prompt, at most two, thrown away at the
//! first sign of trouble and started anew, with a growing pause where that goes on.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::helper::{DONE, FAILED, FOLDER, FRAME_MAX, PIECE, SPEAK, frame};
use super::language::Embedded;
use super::limiter::Limiter;
use super::markup;
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Say;
use super::voices;
use crate::pico::RATE;
use model::Clock;

/// Pico makes 200 s of speech a second of CPU: two are plenty, and bound what a bad text can burn.
const HELPERS: usize = 2;
/// One piece of text, 3,000 characters at most: well above a second of work on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);
/// After the second failure in a row; doubles with each further one.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// The provider.
pub struct Builtin {
    start: Box<dyn Start>,
    folder: PathBuf,
    clock: Clock,
    turns: Semaphore,
    pool: Mutex<Pool>,
    unpacked: [tokio::sync::OnceCell<()>; Embedded::ALL.len()],
}

/// How a helper comes to be; a seam for tests.
pub(super) trait Start: Send + Sync {
    fn start(&self) -> io::Result<Helper>;
}

/// A running helper. Dropping it ends it.
pub(super) struct Helper {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) child: Option<Child>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Helper>,
    /// In a row.
    failures: u32,
    not_before: Option<Instant>,
}

impl Builtin {
    /// Helpers are `program speech-helper` (`None`: this program); voices are unpacked into `folder`.
    pub fn new(program: Option<PathBuf>, folder: PathBuf, clock: Clock) -> Self {
        Self::with(Box::new(Program(program)), folder, clock)
    }

    pub(super) fn with(start: Box<dyn Start>, folder: PathBuf, clock: Clock) -> Self {
        Self {
            start,
            folder,
            clock,
            turns: Semaphore::new(HELPERS),
            pool: Mutex::default(),
            unpacked: Default::default(),
        }
    }

    async fn say(&self, say: &Say, sink: &mut Sink) -> Result<(), SpeechError> {
        let voice = Embedded::nearest(&say.speaker.language);
        let markup = markup::pico(say, voice);
        if markup.len() >= FRAME_MAX {
            return Err(SpeechError::TooLong(markup.len()));
        }
        self.unpack(voice).await?;
        let _turn = self.turns.acquire().await.map_err(|_| SpeechError::Unheard)?;
        let mut helper = self.helper().await?;
        let spoken = tokio::time::timeout(DEADLINE, helper.speak(voice, &markup, sink)).await;
        match spoken.unwrap_or(Err(SpeechError::Deadline(DEADLINE))) {
            // It lives and is between prompts: what it could not say is no fault of its own.
            said @ (Ok(()) | Err(SpeechError::Engine(_))) => {
                let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
                pool.failures = 0;
                pool.idle.push(helper);
                said
            }
            Err(SpeechError::Unheard) => Err(SpeechError::Unheard),
            Err(e) => {
                self.failed();
                Err(e)
            }
        }
    }

    /// The files are looked at once a run of the node.
    async fn unpack(&self, voice: Embedded) -> Result<(), SpeechError> {
        let Some(cell) = self.unpacked.get(voice as usize) else { return Ok(()) };
        let unpack = || async {
            let folder = self.folder.clone();
            let done = tokio::task::spawn_blocking(move || voices::unpack(&folder, voice)).await;
            done.map_err(|e| SpeechError::Engine(e.to_string()))?.map_err(SpeechError::from)
        };
        cell.get_or_try_init(unpack).await.map(|_| ())
    }

    /// An idle helper that still lives, else a new one.
    async fn helper(&self) -> Result<Helper, SpeechError> {
        let now = self.clock.now();
        {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(mut helper) = pool.idle.pop() {
                if helper.lives() {
                    return Ok(helper);
                }
            }
            let wait =
                pool.not_before.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
            if !wait.is_zero() {
                return Err(SpeechError::BackOff { failures: pool.failures, wait });
            }
        }
        let mut helper = self.start.start().map_err(|e| {
            self.failed();
            SpeechError::Start(e)
        })?;
        let folder = self.folder.to_string_lossy();
        if let Err(e) = helper.input.write_all(&frame(FOLDER, folder.as_bytes())).await {
            self.failed();
            return Err(SpeechError::Helper(e));
        }
        Ok(helper)
    }

    /// The first failure costs nothing: the next prompt gets a new helper at once.
    fn failed(&self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let doublings = pool.failures.saturating_sub(1).min(16);
        if pool.failures > 0 {
            pool.not_before =
                Some(self.clock.now() + (BACK_OFF_FIRST * (1 << doublings)).min(BACK_OFF_MAX));
        }
        pool.failures = pool.failures.saturating_add(1);
    }
}

impl Provider for Builtin {
    fn name(&self) -> &'static str {
        "builtin"
    }

    fn speaks(&self, language: &str) -> bool {
        Embedded::for_language(language).is_some()
    }

    fn synthesise<'a>(
        &'a self,
        say: &'a Say,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.say(say, sink))
    }
}

impl Helper {
    async fn speak(
        &mut self,
        voice: Embedded,
        markup: &str,
        sink: &mut Sink,
    ) -> Result<(), SpeechError> {
        let mut body = vec![voice as u8];
        body.extend_from_slice(markup.as_bytes());
        self.input.write_all(&frame(SPEAK, &body)).await.map_err(SpeechError::Helper)?;
        self.input.flush().await.map_err(SpeechError::Helper)?;
        let mut limiter = Limiter::new(markup::GAIN);
        loop {
            let (kind, body) = self.answer().await.map_err(SpeechError::Helper)?;
            match kind {
                PIECE => {
                    let (samples, _) = body.as_chunks::<2>();
                    let pcm: Vec<i16> = samples.iter().map(|&s| i16::from_le_bytes(s)).collect();
                    sink.push(RATE, limiter.push(&pcm)).await?;
                }
                DONE => return sink.push(RATE, limiter.finish()).await,
                FAILED => {
                    return Err(SpeechError::Engine(String::from_utf8_lossy(&body).into_owned()));
                }
                _ => return Err(SpeechError::Helper(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    async fn answer(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let length = self.output.read_u32_le().await? as usize;
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let kind = self.output.read_u8().await?;
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).await?;
        Ok((kind, body))
    }

    fn lives(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(None)))
    }
}

/// The real thing.
struct Program(Option<PathBuf>);

impl Start for Program {
    fn start(&self) -> io::Result<Helper> {
        let program = self.0.clone().map_or_else(std::env::current_exe, Ok)?;
        let mut child = Command::new(program)
            .arg("speech-helper")
            .env_clear()
            // The allocator's first reservation alone, 1 GiB, would make the helper's own limit meaningless.
            .env("MIMALLOC_ARENA_RESERVE", "32MiB")
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
}

#[cfg(test)]
mod tests;
