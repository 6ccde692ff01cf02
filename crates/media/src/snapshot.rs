//! The state of a leg between two processes: its snapshot, and the prompts that snapshots refer to.
//!
//! Each module serialises its own state. Times are written as offsets from the moment at which the
//! snapshot was taken, and that moment as time since boot, which both processes can read.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MediaError;
use super::bridge::BridgeState;
use super::feed::FeedState;
use super::leg::LegState;
use super::prompt::{Frame, LoopJoin, Prompt};
use model::Clock;

/// Maximum number of frames of a prompt. The longest silence has 720,000.
const FRAMES_MAX: usize = 1_000_000;
/// Initial capacity of the buffer for a serialised snapshot. A buffer that grows leaves copies of
/// the keys in memory.
const SNAPSHOT_CAPACITY: usize = 64 * 1024;

/// The reason why a leg cannot move to another process now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMovable {
    #[error("its media path is not up")]
    Connecting,
    #[error("it has ended")]
    Ended,
    #[error("its SRTP keys are not known")]
    NoKeys,
    #[error("a TURN server relays it")]
    Relayed,
    #[error("its audio is recorded, streamed or recognised")]
    Tapped,
    #[error("it receives audio of a stream")]
    Fed,
    #[error("a prompt that it plays is still being produced")]
    PromptLoading,
}

/// The state of a connected leg, with which [`Media::adopt`](crate::Media::adopt) continues it in
/// another process. Contains keys: it must be sent only to that process, and is never printed.
///
/// A snapshot can be adopted once. Two legs with the same keys would use SRTP indexes twice
/// (RFC 3711 §9.1).
#[derive(Serialize, Deserialize)]
pub struct LegSnapshot {
    /// Time since boot at which the snapshot was taken, from which all offsets count.
    pub(super) taken: Duration,
    /// The bound address of the leg's UDP port.
    pub(super) bound: SocketAddr,
    pub(super) ufrag: String,
    /// The addresses that have sent authenticated STUN.
    pub(super) addresses: VecDeque<SocketAddr>,
    pub(super) leg: LegState,
    /// The feed of the leg, if there is one.
    pub(super) feed: Option<FeedState>,
    /// The leg's end of a bridge, if there is one.
    pub(super) bridge: Option<BridgeState>,
}

impl LegSnapshot {
    /// Serialises the snapshot as JSON. The bytes are zeroed on drop.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Snapshot`] if the snapshot cannot be serialised.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, MediaError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SNAPSHOT_CAPACITY));
        serde_json::to_writer(&mut *bytes, self).map_err(|_| MediaError::Snapshot)?;
        Ok(bytes)
    }

    /// Reads a snapshot that [`LegSnapshot::to_bytes`] has written. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Snapshot`] if the snapshot is malformed. The cause is not in the error,
    /// because its text could contain keys.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MediaError> {
        serde_json::from_slice(bytes).map_err(|_| MediaError::Snapshot)
    }

    /// Returns the time since boot of the leg's last tick.
    pub fn ticked_at(&self) -> Duration {
        let since = Duration::from_micros(self.leg.ticked_at().unsigned_abs());
        if self.leg.ticked_at() < 0 { self.taken.saturating_sub(since) } else { self.taken + since }
    }

    /// Returns the moment at which the snapshot was taken, on this process's clock.
    pub(super) fn time_base(&self, clock: &Clock) -> TimeBase {
        let age = clock.uptime().saturating_sub(self.taken);
        let now = clock.now();
        TimeBase(now.checked_sub(age).unwrap_or(now))
    }
}

impl fmt::Debug for LegSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegSnapshot").field("bound", &self.bound).finish_non_exhaustive()
    }
}

/// A time in a snapshot: microseconds from the moment at which it was taken.
pub(super) type Offset = i64;

/// The moment from which the offsets of a snapshot count.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeBase(pub(super) Instant);

impl TimeBase {
    pub(super) fn offset(self, at: Instant) -> Offset {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match at.checked_duration_since(self.0) {
            Some(ahead) => micros(ahead),
            None => -micros(self.0.saturating_duration_since(at)),
        }
    }

    /// Returns the time with this offset. A time that the system cannot represent becomes the base.
    pub(super) fn at(self, offset: Offset) -> Instant {
        let span = Duration::from_micros(offset.unsigned_abs());
        let at = if offset < 0 { self.0.checked_sub(span) } else { self.0.checked_add(span) };
        at.unwrap_or(self.0)
    }
}

/// Identifies a prompt in a [`PromptTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PromptId(u32);

/// The prompts of snapshots. A prompt that several legs play is contained once. Clones share one
/// table.
///
/// The old process fills a table with [`Media::movable`](crate::Media::movable) and
/// [`Media::hand_over`](crate::Media::hand_over), and sends [`PromptTable::encode_new`] after each.
/// The new process passes the parts to [`PromptTable::decode`] in the same order. Since most prompts
/// are sent before the legs stop, their size does not prolong the hand-over.
#[derive(Clone, Debug, Default)]
pub struct PromptTable(Arc<Mutex<Prompts>>);

#[derive(Debug, Default)]
struct Prompts {
    /// The prompts by id.
    prompts: Vec<Arc<Prompt>>,
    /// The ids by the prompt's address, which is not reused while the table holds the prompt.
    ids: HashMap<usize, PromptId>,
    /// The number of prompts that were encoded.
    encoded: usize,
}

impl PromptTable {
    /// Adds a prompt, which must be finished, unless the table contains it. Returns its id.
    pub(super) fn id_of(&self, prompt: &Arc<Prompt>) -> PromptId {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Prompts { prompts, ids, .. } = &mut *table;
        *ids.entry(Arc::as_ptr(prompt).addr()).or_insert_with(|| {
            prompts.push(prompt.clone());
            PromptId(u32::try_from(prompts.len() - 1).unwrap_or(u32::MAX))
        })
    }

    pub(super) fn get(&self, PromptId(id): PromptId) -> Option<Arc<Prompt>> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.prompts.get(usize::try_from(id).ok()?).cloned()
    }

    /// Encodes the prompts that were added since the last call. Empty if there are none.
    pub fn encode_new(&self) -> Vec<u8> {
        let new = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Prompts { prompts, encoded, .. } = &mut *table;
            let from = std::mem::replace(encoded, prompts.len());
            prompts.get(from..).unwrap_or_default().to_vec()
        };
        let mut out = Vec::new();
        for prompt in new {
            let failure = prompt.failure();
            out.push(u8::from(failure.is_some()));
            write_bytes(&mut out, failure.unwrap_or_default().as_bytes());
            write_frames(&mut out, prompt.frames());
            out.push(u8::from(prompt.join().is_some()));
            if let Some(join) = prompt.join() {
                write_u32(&mut out, join.from);
                for frames in [&join.tail, &join.head, &join.middle] {
                    write_frames(&mut out, frames.iter().cloned());
                }
            }
        }
        out
    }

    /// Adds the prompts of a part that [`PromptTable::encode_new`] has returned.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Snapshot`] if the part is malformed.
    pub fn decode(&self, part: &[u8]) -> Result<(), MediaError> {
        let mut rest = part;
        while !rest.is_empty() {
            let prompt = read_prompt(&mut rest).ok_or(MediaError::Snapshot)?;
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            table.prompts.push(prompt);
        }
        Ok(())
    }
}

fn write_u32(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes());
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes a list of frames. Equal consecutive frames, such as those of silence, are written once
/// with their number. The list ends with the number 0.
fn write_frames(out: &mut Vec<u8>, frames: impl Iterator<Item = Frame>) {
    let mut frames = frames.peekable();
    while let Some(frame) = frames.next() {
        let mut count = 1;
        while frames.next_if_eq(&frame).is_some() {
            count += 1;
        }
        write_u32(out, count);
        write_bytes(out, &frame);
    }
    write_u32(out, 0);
}

fn read_prompt(rest: &mut &[u8]) -> Option<Arc<Prompt>> {
    let has_failed = read_flag(rest)?;
    let failure = std::str::from_utf8(read_bytes(rest)?).ok()?.to_owned();
    let (prompt, mut writer) = Prompt::new();
    read_frames(rest)?.into_iter().for_each(|frame| writer.push(frame));
    let join = match read_flag(rest)? {
        true => {
            let from = read_u32(rest)?;
            let [tail, head, middle] = [read_frames(rest)?, read_frames(rest)?, read_frames(rest)?];
            Some(LoopJoin { from, tail, head, middle })
        }
        false => None,
    };
    if has_failed {
        writer.fail(failure);
    } else {
        writer.finish_with(join);
    }
    Some(prompt)
}

fn read_flag(rest: &mut &[u8]) -> Option<bool> {
    match *rest.split_off_first()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_u32(rest: &mut &[u8]) -> Option<usize> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = read_u32(rest)?;
    rest.split_off(..length)
}

fn read_frames(rest: &mut &[u8]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    loop {
        let count = read_u32(rest)?;
        if count == 0 {
            return Some(frames);
        }
        let frame = Frame::from(read_bytes(rest)?);
        if count > FRAMES_MAX - frames.len() {
            return None;
        }
        frames.extend(std::iter::repeat_n(frame, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::FrameState;

    fn frame(n: u8) -> Frame {
        Frame::from([n, 7].as_slice())
    }

    fn rounds(prompt: &Arc<Prompt>) -> Vec<Frame> {
        let (mut cursor, mut played) = (prompt.cursor(), Vec::new());
        for round in 0..3 {
            while let FrameState::Ready(frame) = cursor.next_in_round(round < 2) {
                played.push(frame);
            }
            cursor.rewind();
        }
        played
    }

    #[test]
    fn prompts_cross_once_with_their_transitions() {
        let plain = Prompt::from_frames((0..120).map(frame));
        let (looped, mut writer) = Prompt::new();
        (0..5).for_each(|n| writer.push(frame(n)));
        let part = |from: u8| (from..from + 2).map(frame).collect();
        let join = LoopJoin { from: 3, tail: part(30), head: part(40), middle: part(50) };
        writer.finish_with(Some(join));
        let (failed, mut writer) = Prompt::new();
        writer.push(frame(9));
        writer.fail("no voice");

        let (here, there) = (PromptTable::default(), PromptTable::default());
        let ids = [&plain, &looped, &plain].map(|prompt| here.id_of(prompt));
        assert_eq!(ids[0], ids[2]);
        there.decode(&here.encode_new()).expect("a part");
        assert!(here.encode_new().is_empty());
        let late = here.id_of(&failed);
        there.decode(&here.encode_new()).expect("a part");
        for (id, prompt) in [(ids[0], &plain), (ids[1], &looped), (late, &failed)] {
            let copy = there.get(id).expect("a prompt");
            assert_eq!(rounds(&copy), rounds(prompt));
            assert_eq!(copy.failure(), prompt.failure());
            assert!(copy.is_finished());
        }
        assert!(there.get(PromptId(3)).is_none());
    }

    #[test]
    fn silence_is_small() {
        let hours = Prompt::from_frames(std::iter::repeat_n(frame(0), 720_000));
        let (here, there) = (PromptTable::default(), PromptTable::default());
        let id = here.id_of(&hours);
        let part = here.encode_new();
        assert!(part.len() < 64, "{} bytes", part.len());
        there.decode(&part).expect("a part");
        assert_eq!(there.get(id).map(|prompt| prompt.frames().count()), Some(720_000));
    }

    #[test]
    fn malformed_parts_are_refused() {
        let table = PromptTable::default();
        table.id_of(&Prompt::from_frames((0..3).map(frame)));
        let part = table.encode_new();
        for cut in 1..part.len() {
            assert!(PromptTable::default().decode(&part[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..part.len() {
            for value in [0, 1, 2, 127, 255] {
                let mut changed = part.clone();
                changed[at] = value;
                // No part of this size makes the process allocate gigabytes.
                let _ = PromptTable::default().decode(&changed);
            }
        }
    }
}
