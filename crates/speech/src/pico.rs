//! Pico, the embedded synthesiser (SVOX, Apache-2.0), as a safe value, and the confinement of the process it
//! runs in.
//!
//! Old C behind a thin wrapper: only `speech::helper`, in a process of its own, may make a [`Synthesiser`].
//! What the text may hold is decided by `speech::markup`: Pico's markup can read and *write files*
//! (`<genfile>`, `<play>`), so no `<` of a stranger's ever comes here.

use std::cell::RefCell;
use std::rc::Rc;

use ttspico::{Engine, EngineStatus, PicoError, System, Voice};

/// What Pico gets for its own heap: its two resources (≤ 2 MB together) and what it works in.
const HEAP_BYTES: usize = 8 << 20;
/// Samples a second of what it makes.
pub(crate) const RATE: u32 = 16_000;
/// Pico gives a few milliseconds a step; a piece gathers 100 ms, or what there is at the end.
const PIECE: usize = 1_600;
/// Pico names files in buffers of this size and copies unchecked (`picodefs.h`).
const FILE_NAME_MAX: usize = 64;

/// Why text was not spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VoiceError {
    #[error("load the voice file {0}: its name is too long for the synthesiser")]
    Name(String),
    #[error("set up the synthesiser: {0}")]
    SetUp(String),
    #[error("speak: {0}")]
    Speak(String),
    #[error("deliver the speech: {0}")]
    Deliver(#[from] std::io::Error),
}

/// One voice, ready to speak. Lives on one thread.
pub(crate) struct Synthesiser {
    engine: Engine,
}

impl Synthesiser {
    /// Loads a voice from its two files (text analysis and signal generation), names relative to the working
    /// directory and shorter than 64 bytes.
    ///
    /// # Errors
    /// A file that isn't there or isn't a voice. A *damaged* voice may crash the process instead: check first.
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
        // SAFETY: the voice has both of its resources, as `create_engine` asks; the engine holds the voice, the
        // voice its resources and the system, by reference counts that stay on this thread.
        let engine = unsafe { Voice::create_engine(voice) }.map_err(set_up)?;
        Ok(Self { engine })
    }

    /// Speaks `markup` (no NUL in it) and hands over the sound, mono at [`RATE`], in pieces as it is made.
    ///
    /// # Errors
    /// Pico's own; those of `deliver`, which end the speech.
    pub(crate) fn speak(
        &mut self,
        markup: &str,
        mut deliver: impl FnMut(&[i16]) -> std::io::Result<()>,
    ) -> Result<(), VoiceError> {
        let speak = |e: PicoError| VoiceError::Speak(e.to_string());
        // The NUL makes Pico say the last sentence too; all of them before would cut the text.
        let mut text: Vec<u8> = markup.bytes().filter(|&b| b != 0).collect();
        text.push(0);
        let mut rest = text.as_slice();
        let mut piece = Vec::with_capacity(PIECE * 2);
        let mut step = [0i16; 512];
        while !rest.is_empty() {
            let taken = self.engine.put_text(rest).map_err(speak)?;
            rest = rest.get(taken..).unwrap_or_default();
            loop {
                let (samples, status) = self.engine.get_data(&mut step[..]).map_err(speak)?;
                piece.extend_from_slice(step.get(..samples).unwrap_or_default());
                if piece.len() >= PIECE {
                    deliver(&piece)?;
                    piece.clear();
                }
                if status == EngineStatus::Idle {
                    break;
                }
            }
            if taken == 0 && !rest.is_empty() {
                return Err(VoiceError::Speak("the synthesiser takes no more text".to_owned()));
            }
        }
        if !piece.is_empty() {
            deliver(&piece)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Synthesiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synthesiser").finish_non_exhaustive()
    }
}

/// Confines this process for good: so much address space, no core dumps, no new files of any size.
///
/// # Errors
/// The system's refusal.
pub(crate) fn confine_process(address_space_bytes: u64) -> std::io::Result<()> {
    // A pipe is no file: answers still go out. `genfile` could create a file, but not put a byte into it.
    let limits =
        [(libc::RLIMIT_AS, address_space_bytes), (libc::RLIMIT_CORE, 0), (libc::RLIMIT_FSIZE, 0)];
    for (which, bytes) in limits {
        let limit =
            libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
        // SAFETY: `limit` is a live, initialised struct of the type the call reads.
        if unsafe { libc::setrlimit(which, &limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Has the system end this process in `seconds`, unless it is called again before; 0 calls it off.
pub(crate) fn end_process_in(seconds: u32) {
    // SAFETY: no memory is passed; SIGALRM keeps its default action, which ends the process.
    unsafe { libc::alarm(seconds) };
}
