//! A stream's sound, every few milliseconds: what passes at the leg becomes messages, what the server has sent becomes
//! frames of the leg's feed. Runs beside the shards and waits for nothing.

use std::sync::Arc;
use std::time::Instant;

use super::hush::{Down, Hush};
use super::message::{Ours, Track};
use super::{Shared, epoch_ms, rate};
use machine::{StreamEvent, StreamTrack};
use media::opus::{Encoder, Rate};
use media::workers::{Job, JobStatus};
use media::{Buffering, Feed, Tap, TapReader};

/// Frames that are kept at the leg: three of its ticks, whatever keeps this thread.
const AHEAD: usize = 3;
/// Beats for which a piece that is no whole frame waits for the rest of it, once the leg has nothing left: most of a
/// tick.
const TAIL_BEATS: u8 = 3;
/// Bits a second and complexity of what is played, as for prompts.
const BITRATE: u32 = 24_000;
const COMPLEXITY: u8 = 5;
/// Ticks without a packet after which silence is sent for it: a late packet is not taken for a lost one at once.
const LATE_TICKS: i64 = 3;

/// See the module's note.
pub(super) struct Sound {
    shared: Arc<Shared>,
    line: TapReader,
    hushed: Option<Hushed>,
    speaking: Option<Speaking>,
    heard: Pieces,
    /// Pieces sent of what was said, less the ticks that have passed.
    ahead: i64,
    sent: Pieces,
}

/// Where noise is taken away: both sides come at 48 kHz, and what of them is ready at the stream's rate waits here. A side
/// that the server has not asked for is left out.
struct Hushed {
    heard: Option<Hush>,
    sent: Option<Down>,
    pcm: (Vec<i16>, Vec<i16>),
}

/// The way from the server to the leg.
struct Speaking {
    feed: Feed,
    encoder: Encoder,
    pcm: Vec<i16>,
    /// Beats since the leg had nothing left.
    dry: u8,
}

/// One track on its way to the server.
struct Pieces {
    track: Track,
    wanted: bool,
    chunk: u64,
    /// What is not yet a whole piece.
    pcm: Vec<i16>,
}

impl Sound {
    pub(super) fn new(shared: Arc<Shared>, tap: Tap, feed: Option<Feed>) -> Self {
        let rate = rate(shared.order.format);
        let wants = |track: StreamTrack| {
            shared.order.track == track || shared.order.track == StreamTrack::Both
        };
        let hushed = shared.order.noise_level.map(|level| Hushed {
            heard: wants(StreamTrack::Inbound).then(|| Hush::new(level, rate)),
            sent: wants(StreamTrack::Outbound).then(|| Down::new(rate)),
            pcm: (Vec::new(), Vec::new()),
        });
        let at = if hushed.is_some() { Rate::Hz48000 } else { rate };
        Self {
            line: TapReader::new(tap, at, Buffering::Immediate),
            hushed,
            speaking: feed.map(|feed| Speaking {
                feed,
                encoder: Encoder::new(rate, COMPLEXITY, BITRATE),
                pcm: vec![0; rate.frame()],
                dry: 0,
            }),
            heard: Pieces::of(Track::Inbound, wants(StreamTrack::Inbound)),
            ahead: 0,
            sent: Pieces::of(Track::Outbound, wants(StreamTrack::Outbound)),
            shared,
        }
    }

    /// What the leg's peer has said and was sent since the last beat.
    fn hear(&mut self) {
        let frame = rate(self.shared.order.format).frame();
        while let Some(piece) = self.line.next() {
            let (heard, sent) = match &mut self.hushed {
                None => (piece.received, piece.sent),
                Some(hushed) => hushed.take(piece.received, piece.sent),
            };
            self.ahead += self.heard.put(&self.shared, frame, heard);
            if !piece.sent.is_empty() {
                // A tick.
                self.sent.put(&self.shared, frame, sent);
                self.ahead -= 1;
                if self.ahead < -LATE_TICKS {
                    self.ahead += self.heard.silence(&self.shared, frame);
                }
            }
        }
    }
}

impl Hushed {
    fn take(&mut self, heard: &[i16], sent: &[i16]) -> (&[i16], &[i16]) {
        self.pcm.0.clear();
        self.pcm.1.clear();
        if let Some(hush) = &mut self.heard {
            hush.push(heard, &mut self.pcm.0);
        }
        if let Some(down) = &mut self.sent {
            down.push(sent, &mut self.pcm.1);
        }
        (&self.pcm.0, &self.pcm.1)
    }
}

impl Job for Sound {
    fn run(&mut self, _: Instant) -> JobStatus {
        if self.shared.stopped.is_cancelled() {
            return JobStatus::Done;
        }
        match &mut self.speaking {
            Some(speaking) => speaking.beat(&self.shared),
            None => answer_clears(&self.shared, None),
        }
        self.hear();
        if self.line.is_over() { JobStatus::Done } else { JobStatus::Running }
    }
}

impl Pieces {
    fn of(track: Track, wanted: bool) -> Self {
        Self { track, wanted, chunk: 0, pcm: Vec::new() }
    }

    /// Sends what has become whole; gives how many pieces that were.
    fn put(&mut self, shared: &Shared, frame: usize, pcm: &[i16]) -> i64 {
        if !self.wanted {
            return 0;
        }
        let mut sent = 0;
        // As a rule a packet is a piece.
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
        // What was left of a packet goes before it.
        let filled = frame.saturating_sub(self.pcm.len());
        self.put(shared, frame, NOTHING.get(..filled).unwrap_or(&NOTHING))
    }

    fn say(&self, shared: &Shared, pcm: &[i16]) {
        let at_ms = epoch_ms(shared.clock.wall());
        let ours = Ours::Media {
            track: self.track,
            at_ms,
            chunk: self.chunk,
            pcm,
            format: shared.order.format,
        };
        shared.outbox.media(|sequence| shared.phrases.text(sequence, ours));
    }
}

impl Speaking {
    fn beat(&mut self, shared: &Shared) {
        answer_clears(shared, Some(&self.feed));
        let waiting = self.feed.waiting();
        self.dry = if waiting == 0 { self.dry.saturating_add(1) } else { 0 };
        for _ in waiting..AHEAD {
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
            let frame = self.encoder.encode(&self.pcm);
            // Full it is not, and a leg that is gone takes nothing more.
            self.feed.push(frame);
        }
        let taken = self.feed.taken();
        loop {
            let Some(name) = shared.play().queue.heard(taken) else { return };
            shared.say(Ours::PlayedStream { name: &name });
            shared.report(StreamEvent::Played { name });
        }
    }
}

/// Throws away what is at the leg where the server wants that, and says so.
fn answer_clears(shared: &Shared, feed: Option<&Feed>) {
    let cleared = std::mem::take(&mut shared.play().cleared);
    if cleared > 0
        && let Some(feed) = feed
    {
        feed.clear();
    }
    for _ in 0..cleared {
        shared.say(Ours::ClearedAudio);
        shared.report(StreamEvent::Cleared);
    }
}
