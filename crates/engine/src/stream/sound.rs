//! The worker job of a stream: converts the leg's audio to messages and the server's audio to
//! frames for the leg. Never blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::denoise::{Denoiser, Downsampler};
use super::message::{ServerMessage, Track};
use super::{Shared, epoch_ms, rate};
use machine::{StreamEvent, StreamOrder, StreamTrack};
use media::opus::{Encoder, Rate};
use media::workers::{Job, JobStatus};
use media::{FEED_MAX, Feed, TapReader};

/// Number of frames kept ahead at the leg: three ticks, in case this thread is delayed.
pub(super) const AHEAD: usize = 3;
/// Number of runs of the job for which an incomplete frame waits for more samples after the leg has
/// run out of audio. Most of a tick.
const TAIL_BEATS: u8 = 3;
/// Opus bit rate in bit/s, as for prompts.
const BITRATE: u32 = 24_000;
/// Opus complexity.
const COMPLEXITY: u8 = 5;
/// Number of ticks without a packet before silence is sent instead, so that a late packet does not
/// count as lost immediately.
const LATE_TICKS: i64 = 3;

/// The audio of a stream, which its [`SoundJob`] processes.
pub(super) struct Sound {
    shared: Arc<Shared>,
    line: TapReader,
    denoised: Option<DenoisedTracks>,
    playback: Option<Playback>,
    inbound: Pieces,
    /// Number of inbound pieces sent, minus the ticks that have passed.
    ahead: i64,
    sent: Pieces,
}

/// How far a [`Sound`] has come.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SoundPosition {
    #[serde(rename = "heard_chunk")]
    inbound_chunk: u64,
    sent_chunk: u64,
    ahead: i64,
}

/// Noise suppression: both sides are decoded at 48 kHz, and the output at the stream's rate is
/// collected here. A side that the server does not receive is omitted.
struct DenoisedTracks {
    inbound: Option<Denoiser>,
    sent: Option<Downsampler>,
    pcm: (Vec<i16>, Vec<i16>),
}

/// Audio from the server to the leg.
struct Playback {
    feed: Feed,
    /// Number of frames to keep at the leg.
    ahead: usize,
    encoder: Encoder,
    pcm: Vec<i16>,
    /// Number of runs of the job since the leg ran out of audio.
    dry: u8,
}

/// One track to the server.
struct Pieces {
    track: Track,
    wanted: bool,
    chunk: u64,
    /// Samples of an incomplete piece.
    pcm: Vec<i16>,
}

impl Sound {
    /// `line` must read at [`Sound::line_rate`].
    pub(super) fn new(shared: Arc<Shared>, line: TapReader, feed: Option<Feed>) -> Self {
        let rate = rate(shared.order.format);
        let wants = |track: StreamTrack| {
            shared.order.track == track || shared.order.track == StreamTrack::Both
        };
        let denoised = shared.order.noise_level.map(|level| DenoisedTracks {
            inbound: wants(StreamTrack::Inbound).then(|| Denoiser::new(level, rate)),
            sent: wants(StreamTrack::Outbound).then(|| Downsampler::new(rate)),
            pcm: (Vec::new(), Vec::new()),
        });
        Self {
            line,
            denoised,
            playback: feed.map(|feed| Playback {
                feed,
                ahead: AHEAD,
                encoder: Encoder::new(rate, COMPLEXITY, BITRATE),
                pcm: vec![0; rate.frame()],
                dry: 0,
            }),
            inbound: Pieces::of(Track::Inbound, wants(StreamTrack::Inbound)),
            ahead: 0,
            sent: Pieces::of(Track::Outbound, wants(StreamTrack::Outbound)),
            shared,
        }
    }

    /// The rate at which the leg's audio is read.
    pub(super) fn line_rate(order: &StreamOrder) -> Rate {
        if order.noise_level.is_some() { Rate::Hz48000 } else { rate(order.format) }
    }

    /// Whether this is the audio of a room.
    pub(super) fn is_in_room(&self) -> bool {
        self.shared.order.in_room
    }

    /// Continues the numbering of another process.
    pub(super) fn resume_at(&mut self, position: SoundPosition) {
        (self.inbound.chunk, self.sent.chunk) = (position.inbound_chunk, position.sent_chunk);
        self.ahead = position.ahead;
    }

    /// Keeps this number of frames at the leg from now on, at most [`FEED_MAX`].
    pub(super) fn keep_ahead(&mut self, frames: usize) {
        if let Some(playback) = &mut self.playback {
            playback.ahead = frames.min(FEED_MAX);
            playback.beat(&self.shared);
        }
    }

    /// Processes what the leg has received and sent until it ended, and returns the position.
    pub(super) fn finish(&mut self) -> SoundPosition {
        self.keep_ahead(0);
        self.hear();
        SoundPosition {
            inbound_chunk: self.inbound.chunk,
            sent_chunk: self.sent.chunk,
            ahead: self.ahead,
        }
    }

    /// Sends the audio since the last run.
    fn hear(&mut self) {
        let frame = rate(self.shared.order.format).frame();
        while let Some(piece) = self.line.next() {
            let (inbound, sent) = match &mut self.denoised {
                None => (piece.received, piece.sent),
                Some(denoised) => denoised.take(piece.received, piece.sent),
            };
            self.ahead += self.inbound.put(&self.shared, frame, inbound);
            if !piece.sent.is_empty() {
                // A tick has passed.
                self.sent.put(&self.shared, frame, sent);
                self.ahead -= 1;
                if self.ahead < -LATE_TICKS {
                    self.ahead += self.inbound.silence(&self.shared, frame);
                }
            }
        }
    }
}

impl DenoisedTracks {
    fn take(&mut self, inbound: &[i16], sent: &[i16]) -> (&[i16], &[i16]) {
        self.pcm.0.clear();
        self.pcm.1.clear();
        if let Some(denoise) = &mut self.inbound {
            denoise.push(inbound, &mut self.pcm.0);
        }
        if let Some(down) = &mut self.sent {
            down.push(sent, &mut self.pcm.1);
        }
        (&self.pcm.0, &self.pcm.1)
    }
}

/// The worker job of a [`Sound`].
pub(super) struct SoundJob(pub(super) Arc<Mutex<Sound>>);

pub(super) fn lock(sound: &Mutex<Sound>) -> MutexGuard<'_, Sound> {
    sound.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job for SoundJob {
    fn run(&mut self, _: Instant) -> JobStatus {
        let sound = &mut *lock(&self.0);
        if sound.shared.stopped.is_cancelled() {
            return JobStatus::Done;
        }
        match &mut sound.playback {
            Some(playback) => playback.beat(&sound.shared),
            None => answer_clears(&sound.shared, None),
        }
        sound.hear();
        if sound.line.is_over() { JobStatus::Done } else { JobStatus::Running }
    }
}

impl Pieces {
    fn of(track: Track, wanted: bool) -> Self {
        Self { track, wanted, chunk: 0, pcm: Vec::new() }
    }

    /// Sends complete pieces. Returns their number.
    fn put(&mut self, shared: &Shared, frame: usize, pcm: &[i16]) -> i64 {
        if !self.wanted {
            return 0;
        }
        let mut sent = 0;
        // Usually a packet is exactly one piece.
        if self.pcm.is_empty() && pcm.len() == frame {
            self.chunk += 1;
            self.say(shared, pcm);
            return 1;
        }
        self.pcm.extend_from_slice(pcm);
        let pcm = std::mem::take(&mut self.pcm);
        let mut whole = pcm.chunks_exact(frame.max(1));
        for piece in &mut whole {
            self.chunk += 1;
            self.say(shared, piece);
            sent += 1;
        }
        self.pcm.extend_from_slice(whole.remainder());
        sent
    }

    fn silence(&mut self, shared: &Shared, frame: usize) -> i64 {
        const NOTHING: [i16; Rate::Hz48000.frame()] = [0; Rate::Hz48000.frame()];
        // Completes the rest of a packet first.
        let filled = frame.saturating_sub(self.pcm.len());
        self.put(shared, frame, NOTHING.get(..filled).unwrap_or(&NOTHING))
    }

    fn say(&self, shared: &Shared, pcm: &[i16]) {
        let at_ms = epoch_ms(shared.clock.wall());
        let ours = ServerMessage::Media {
            track: self.track,
            at_ms,
            chunk: self.chunk,
            pcm,
            format: shared.order.format,
        };
        shared.outbox.media(|sequence| shared.ids.text(sequence, ours));
    }
}

impl Playback {
    fn beat(&mut self, shared: &Shared) {
        answer_clears(shared, Some(&self.feed));
        let waiting = self.feed.waiting();
        self.dry = if waiting == 0 { self.dry.saturating_add(1) } else { 0 };
        for _ in waiting..self.ahead {
            {
                let mut play = shared.play();
                let whole = play.queue.has(self.pcm.len());
                let tail = self.dry > TAIL_BEATS || (self.dry > 0 && play.queue.has_checkpoint());
                if !whole && (play.queue.is_empty() || !tail) {
                    break;
                }
                play.queue.take(&mut self.pcm);
            }
            self.dry = 0;
            shared.note_frame(&self.pcm);
            let frame = self.encoder.encode(&self.pcm);
            // The feed is not full here, and a closed leg ignores the frame.
            self.feed.push(frame);
        }
        let taken = self.feed.taken();
        loop {
            let Some(name) = shared.play().queue.record_played(taken) else { return };
            shared.say(ServerMessage::PlayedStream { name: &name });
            shared.report(StreamEvent::Played { name });
        }
    }
}

/// Executes `clearAudio`: discards the audio at the leg and confirms it.
fn answer_clears(shared: &Shared, feed: Option<&Feed>) {
    let cleared = std::mem::take(&mut shared.play().cleared);
    if cleared > 0
        && let Some(feed) = feed
    {
        feed.clear();
    }
    for _ in 0..cleared {
        shared.say(ServerMessage::ClearedAudio);
        shared.report(StreamEvent::Cleared);
    }
}
