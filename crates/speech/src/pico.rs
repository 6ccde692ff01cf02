//! A safe wrapper of Pico (SVOX, Apache-2.0), the embedded synthesiser, and the restrictions of the
//! process that it runs in.
//!
//! Pico is old C code: only the helper process (`helper`) may create a [`Synthesiser`]. Its markup
//! can read and *write files* (`<genfile>`, `<play>`); `markup` ensures that no `<` of the text
//! reaches it.

use std::cell::RefCell;
use std::rc::Rc;

use ttspico::{Engine, EngineStatus, PicoError, System, Voice};

/// Size of Pico's heap: two resource files (≤ 2 MB together) and working memory.
const HEAP_BYTES: usize = 8 << 20;
/// Sample rate of the output in Hz.
pub(crate) const RATE: u32 = 16_000;
/// Samples per chunk: 100 ms. Pico returns a few milliseconds per step, which are collected.
const CHUNK_SAMPLES: usize = 1_600;
/// Pico copies file names into buffers of this size without checking (`picodefs.h`).
const FILE_NAME_MAX: usize = 64;

/// The reason why text could not be spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VoiceError {
    #[error("could not load the voice file {0}: its name is too long for the synthesiser")]
    Name(String),
    #[error("could not set up the synthesiser: {0}")]
    SetUp(String),
    #[error("could not speak: {0}")]
    Speak(String),
    #[error("could not deliver the speech: {0}")]
    Deliver(#[from] std::io::Error),
}

/// A loaded voice. It must stay on one thread.
pub(crate) struct Synthesiser {
    engine: Engine,
}

impl Synthesiser {
    /// Loads a voice from its two files (text analysis and signal generation). The paths must be
    /// shorter than 64 bytes.
    ///
    /// # Errors
    ///
    /// Fails if a file does not exist or is not a voice. A *damaged* file may crash the process
    /// instead, so verify the files first.
    pub(crate) fn load(text_analysis: &str, signal_generation: &str) -> Result<Self, VoiceError> {
        for name in [text_analysis, signal_generation] {
            if name.len() >= FILE_NAME_MAX {
                return Err(VoiceError::Name(name.to_owned()));
            }
        }
        let set_up = |e: PicoError| VoiceError::SetUp(e.to_string());
        let system = System::new(HEAP_BYTES).map_err(set_up)?;
        let voice = System::create_voice(Rc::clone(&system), "voice").map_err(set_up)?;
        for name in [text_analysis, signal_generation] {
            let resource = System::load_resource(Rc::clone(&system), name).map_err(set_up)?;
            RefCell::borrow_mut(&voice).add_resource(resource).map_err(set_up)?;
        }
        // SAFETY: the voice has both resources, as `create_engine` requires. The engine owns the
        // voice, the voice its resources and the system, through reference counts that stay on this
        // thread.
        let engine = unsafe { Voice::create_engine(voice) }.map_err(set_up)?;
        Ok(Self { engine })
    }

    /// Speaks `markup` and passes the audio (mono, at [`RATE`]) to `deliver` in chunks. NUL
    /// characters are removed.
    ///
    /// # Errors
    ///
    /// Fails if Pico fails or `deliver` returns an error, which stops the speech.
    pub(crate) fn speak(
        &mut self,
        markup: &str,
        mut deliver: impl FnMut(&[i16]) -> std::io::Result<()>,
    ) -> Result<(), VoiceError> {
        let speak = |e: PicoError| VoiceError::Speak(e.to_string());
        // The final NUL makes Pico speak the last sentence. Earlier ones would cut off the text.
        let mut text: Vec<u8> = markup.bytes().filter(|&b| b != 0).collect();
        text.push(0);
        let mut rest = text.as_slice();
        let mut chunk = Vec::with_capacity(CHUNK_SAMPLES * 2);
        let mut step = [0i16; 512];
        while !rest.is_empty() {
            let taken = self.engine.put_text(rest).map_err(speak)?;
            rest = rest.get(taken..).unwrap_or_default();
            loop {
                let (samples, status) = self.engine.get_data(&mut step[..]).map_err(speak)?;
                chunk.extend_from_slice(step.get(..samples).unwrap_or_default());
                if chunk.len() >= CHUNK_SAMPLES {
                    deliver(&chunk)?;
                    chunk.clear();
                }
                if status == EngineStatus::Idle {
                    break;
                }
            }
            if taken == 0 && !rest.is_empty() {
                return Err(VoiceError::Speak("the synthesiser accepts no more text".to_owned()));
            }
        }
        if !chunk.is_empty() {
            deliver(&chunk)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Synthesiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synthesiser").finish_non_exhaustive()
    }
}

/// Restricts this process permanently: limited address space, no core dumps, no writes to files.
///
/// # Errors
///
/// Fails if the operating system rejects a limit.
pub(crate) fn restrict_process(address_space_bytes: u64) -> std::io::Result<()> {
    // Pipes are not affected, so responses still work. `genfile` could create a file but not
    // write to it.
    let limits =
        [(libc::RLIMIT_AS, address_space_bytes), (libc::RLIMIT_CORE, 0), (libc::RLIMIT_FSIZE, 0)];
    for (which, bytes) in limits {
        let limit =
            libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
        // SAFETY: `limit` is a live, initialised struct of the type that the call reads.
        if unsafe { libc::setrlimit(which, &limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the system end this process in `seconds` unless it is called again before. 0 cancels the
/// alarm.
pub(crate) fn set_process_alarm(seconds: u32) {
    // SAFETY: no memory is passed; SIGALRM keeps its default action, which ends the process.
    unsafe { libc::alarm(seconds) };
}
