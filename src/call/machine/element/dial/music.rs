//! What the caller hears while others ring: a ring-back tone, nothing, or a document of `Speak`, `Play` and `Wait`, again
//! and again (`plivo-xml.md` §5.7, dialMusic).

use crate::call::machine::desk::Desk;
use crate::call::machine::document::Gate;
use crate::call::machine::element::{fetch_sounds, sounds_fetched};
use crate::call::machine::params::Event;
use crate::call::machine::timers::Timer;
use crate::call::machine::{CallTime, FetchFailure, FetchId, Fetched, MediaOrder, Output, PlayId, Sound, SoundItem};
use crate::xml::ast::{DialMusic, DocUrl, Repeat};

/// 425 Hz, a second on and four off: ITU-T E.180, and what most of the world hears.
const TONE_HZ: u16 = 425;
const TONE_MS: u16 = 1_000;
const PAUSE_SECS: u16 = 4;
/// A round of music that is over sooner could not be had: again and again would be a loop without sound.
const ROUND_MIN_MS: u64 = 200;

/// See the module's note.
pub(super) enum Music {
    None,
    /// Not asked for yet.
    Document(DocUrl),
    Fetching(FetchId),
    Ready(Vec<SoundItem>),
    Playing {
        play: PlayId,
        since: CallTime,
        items: Vec<SoundItem>,
    },
}

impl Music {
    pub(super) fn of(what: &DialMusic) -> Self {
        match what {
            DialMusic::RingBack => Self::Ready(ring_back()),
            DialMusic::None => Self::None,
            DialMusic::Document(url) => Self::Document(url.clone()),
        }
    }

    /// Somebody is being called: its sounds are made ready.
    pub(super) fn begin(&mut self, desk: &mut Desk) {
        match self {
            Self::Document(url) => {
                *self = Self::Fetching(fetch_sounds(desk, url, Event::DialMusic));
            }
            Self::Ready(items) => prepare(desk, items),
            Self::None | Self::Fetching(_) | Self::Playing { .. } => {}
        }
    }

    /// Plays, if it is there and can be heard.
    pub(super) fn play(&mut self, desk: &mut Desk, gate: Gate) {
        if gate == Gate::Open
            && let Self::Ready(items) = self
        {
            let items = std::mem::take(items);
            let play = desk.play(items.clone());
            *self = Self::Playing { play, since: desk.now, items };
        }
    }

    /// Its document came, or not: then it is as if none was asked for (`plivo-callbacks.md` §4.3).
    pub(super) fn fetched(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) {
        if !matches!(self, Self::Fetching(open) if *open == fetch) {
            return;
        }
        desk.timers.clear(Timer::Fetch);
        let items = sounds_fetched(desk, "dialMusic", result);
        let items = if items.is_empty() { ring_back() } else { items };
        prepare(desk, &items);
        *self = Self::Ready(items);
        self.play(desk, gate);
    }

    /// Whoever fetches has forgotten us.
    pub(super) fn fetch_timed_out(&mut self, desk: &mut Desk, gate: Gate) {
        if let Self::Fetching(fetch) = *self {
            desk.wish(Output::CancelFetch { fetch });
            self.fetched(desk, gate, fetch, Err(FetchFailure::Timeout));
        }
    }

    /// A round is over: the next one.
    pub(super) fn played(&mut self, desk: &mut Desk, gate: Gate, ended: PlayId) {
        let Self::Playing { play, since, items } = self else { return };
        if *play != ended {
            return;
        }
        let lasted_ms = desk.now.0.saturating_sub(since.0);
        *self = if lasted_ms >= ROUND_MIN_MS {
            Self::Ready(std::mem::take(items))
        } else if *items == ring_back() {
            Self::None
        } else {
            Self::Ready(ring_back())
        };
        self.play(desk, gate);
    }

    pub(super) fn is_playing(&self, which: PlayId) -> bool {
        matches!(self, Self::Playing { play, .. } if *play == which)
    }

    /// No more of it.
    pub(super) fn stop(&mut self, desk: &mut Desk) {
        match std::mem::replace(self, Self::None) {
            Self::Playing { play, .. } => desk.media(MediaOrder::Stop { play }),
            Self::Fetching(fetch) => desk.cancel_fetch(fetch),
            Self::None | Self::Document(_) | Self::Ready(_) => {}
        }
    }
}

fn ring_back() -> Vec<SoundItem> {
    let tone = SoundItem::once(Sound::Tone { hz: TONE_HZ, ms: TONE_MS });
    let pause = SoundItem { sound: Sound::Silence { ms: 1_000 }, repeat: Repeat::Times(PAUSE_SECS) };
    vec![tone, pause]
}

fn prepare(desk: &mut Desk, items: &[SoundItem]) {
    let fetched = |item: &&SoundItem| matches!(item.sound, Sound::Speak { .. } | Sound::File { .. });
    let sounds: Vec<Sound> = items.iter().filter(fetched).map(|item| item.sound.clone()).collect();
    if !sounds.is_empty() {
        desk.wish(Output::Prepare { sounds });
    }
}
