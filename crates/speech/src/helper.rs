//! The hidden command `offhook speech-helper`: runs the embedded voice in a separate process, so
//! that a fault in its C code ends one prompt and not the node.
//!
//! Requests arrive on standard input and audio leaves on standard output; [`super::builtin`] is the
//! client. In both directions a frame consists of a length (4 bytes, little endian), a kind byte
//! and a body. The helper exits at the end of its input. It holds no secrets or sockets, limits its
//! memory before reading, and confines itself to the folder of the voices before it speaks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use super::confine::confine;
use super::language::EmbeddedVoice;
use crate::pico::{Synthesiser, VoiceError, restrict_process, set_process_alarm};

/// Request: the folder of the voice files (UTF-8). Must be the first frame.
pub(super) const FOLDER: u8 = 0;
/// Request: a voice's index in [`EmbeddedVoice::ALL`] (one byte), then Pico markup.
pub(super) const SPEAK: u8 = 1;
/// Response: 16-bit samples, little endian, mono, 16 kHz.
pub(super) const AUDIO: u8 = 0;
/// Response: the text was spoken completely.
pub(super) const DONE: u8 = 1;
/// Response: the text could not be spoken; the reason (UTF-8).
pub(super) const FAILED: u8 = 2;
/// Largest body in either direction.
pub(super) const FRAME_MAX: usize = 64 * 1024;

/// Six voices need 8 MB each; the rest is for the program and its allocator.
const ADDRESS_SPACE_BYTES: u64 = 256 << 20;
/// Longer than the client's deadline, in case the client no longer exists.
const PROMPT_SECONDS_MAX: u32 = 60;

/// Runs the helper until its input ends.
///
/// # Errors
///
/// Fails if the process cannot be restricted or a request is invalid.
pub fn main() -> io::Result<()> {
    restrict_process(ADDRESS_SPACE_BYTES)?;
    serve(io::stdin().lock(), io::stdout().lock(), set_process_alarm, confine)
}

/// Serves requests until `input` ends. `watchdog` is called with the time limit of a prompt in
/// seconds before it starts, and with 0 after it, `confine` with the folder of the voices.
pub(super) fn serve(
    mut input: impl Read,
    mut output: impl Write,
    watchdog: fn(u32),
    confine: fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut folder = String::new();
    let mut synthesisers = BTreeMap::new();
    while let Some((kind, body)) = read_frame(&mut input)? {
        match kind {
            FOLDER => {
                folder = String::from_utf8(body).map_err(|_| invalid_request())?;
                confine(Path::new(&folder))?;
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
                        // The synthesiser may be in any state. The next prompt loads it again.
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
