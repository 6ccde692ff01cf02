//! The hidden `offhook speech-helper`: the embedded voice in a process of its own, so that a fault in its C code
//! ends one prompt and not the node (`media-notes` §9).
//!
//! Requests come in on standard input, sound goes out on standard output; [`super::builtin`] is at the other
//! end. Both ways a frame is its length (4 bytes, little endian), a kind byte and a body. The end of the input
//! is the end of the helper. It has no secrets and no sockets, and confines itself before it reads.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::language::Embedded;
use crate::pico::{Synthesiser, VoiceError, confine_process, end_process_in};

/// Request: where the voices lie (UTF-8). The first frame.
pub(super) const FOLDER: u8 = 0;
/// Request: a voice's place in [`Embedded::ALL`] (a byte), then Pico's markup.
pub(super) const SPEAK: u8 = 1;
/// Answer: 16-bit samples, little endian, mono 16 kHz.
pub(super) const PIECE: u8 = 0;
/// Answer: all was said.
pub(super) const DONE: u8 = 1;
/// Answer: it could not be said; the reason (UTF-8).
pub(super) const FAILED: u8 = 2;
/// The longest body either way.
pub(super) const FRAME_MAX: usize = 64 * 1024;

/// Six voices need 8 MB each; the rest is the program itself and its allocator.
const ADDRESS_SPACE_BYTES: u64 = 256 << 20;
/// Longer than the parent's deadline: for when there is no parent any more.
const PROMPT_SECONDS_MAX: u32 = 60;

/// Runs the helper until its input ends.
///
/// # Errors
/// The process can't be confined, or its parent sends what no parent sends.
pub fn main() -> io::Result<()> {
    confine_process(ADDRESS_SPACE_BYTES)?;
    serve(io::stdin().lock(), io::stdout().lock(), end_process_in)
}

/// Answers requests until `input` ends. `watchdog` is told the seconds that a prompt may take, and 0 after it.
pub(super) fn serve(
    mut input: impl Read,
    mut output: impl Write,
    watchdog: fn(u32),
) -> io::Result<()> {
    let mut folder = String::new();
    let mut ready = BTreeMap::new();
    while let Some((kind, body)) = read_frame(&mut input)? {
        match kind {
            FOLDER => folder = String::from_utf8(body).map_err(|_| garbled())?,
            SPEAK => {
                let (&voice, markup) = body.split_first().ok_or_else(garbled)?;
                let voice = *Embedded::ALL.get(usize::from(voice)).ok_or_else(garbled)?;
                let markup = std::str::from_utf8(markup).map_err(|_| garbled())?;
                watchdog(PROMPT_SECONDS_MAX);
                let said = speak(&mut ready, &folder, voice, markup, &mut output);
                watchdog(0);
                match said {
                    Ok(()) => write_frame(&mut output, DONE, &[])?,
                    Err(VoiceError::Deliver(e)) => return Err(e),
                    Err(e) => {
                        // What state it is in is anybody's guess: the next prompt loads it afresh.
                        ready.remove(&voice);
                        write_frame(&mut output, FAILED, e.to_string().as_bytes())?;
                    }
                }
                output.flush()?;
            }
            _ => return Err(garbled()),
        }
    }
    Ok(())
}

fn speak(
    ready: &mut BTreeMap<Embedded, Synthesiser>,
    folder: &str,
    voice: Embedded,
    markup: &str,
    output: &mut impl Write,
) -> Result<(), VoiceError> {
    use std::collections::btree_map::Entry;
    let synthesiser = match ready.entry(voice) {
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
        write_frame(output, PIECE, &bytes)?;
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
        return Err(garbled());
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((kind, body)))
}

fn write_frame(output: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    output.write_all(&frame(kind, body))
}

/// A frame's bytes. `body` is at most [`FRAME_MAX`] long.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a request that no parent of mine sends")
}
