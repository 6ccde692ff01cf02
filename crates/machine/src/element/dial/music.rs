//! What the caller hears while others ring: a ring-back tone, nothing, or a document of `Speak`, `Play` and `Wait`, again
//! and again (`plivo-xml.md` §5.7, dialMusic).

use crate::activity::Gate;
use crate::contract::{FetchFailure, FetchId, Fetched, Output, PlayId};
use crate::desk::Desk;
use crate::params::Event;
use crate::round::Round;
use crate::sounds::{fetch_sounds, ring_back, sounds_fetched};
use crate::timers::Timer;
use xml::ast::{DialMusic, DocUrl};

/// See the module's note.
pub(super) enum Music {
    None,
    RingBack,
    /// Not asked for yet.
    Document(DocUrl),
    Fetching(FetchId),
    Ready(Round),
}

impl Music {
    pub(super) fn of(what: &DialMusic) -> Self {
        match what {
            DialMusic::RingBack => Self::RingBack,
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
            Self::RingBack => *self = Self::Ready(Round::of(desk, ring_back(), Vec::new())),
            Self::None | Self::Fetching(_) | Self::Ready(_) => {}
        }
    }

    /// Plays, if it is there and can be heard.
    pub(super) fn play(&mut self, desk: &mut Desk, gate: Gate) {
        if let Self::Ready(round) = self {
            round.play(desk, gate);
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
        *self = Self::Ready(match items.is_empty() {
            true => Round::of(desk, ring_back(), Vec::new()),
            false => Round::of(desk, items, ring_back()),
        });
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
        if let Self::Ready(round) = self {
            round.played(desk, gate, ended);
        }
    }

    pub(super) fn is_playing(&self, which: PlayId) -> bool {
        matches!(self, Self::Ready(round) if round.is_playing(which))
    }

    /// No more of it.
    pub(super) fn stop(&mut self, desk: &mut Desk) {
        match std::mem::replace(self, Self::None) {
            Self::Ready(mut round) => round.stop(desk),
            Self::Fetching(fetch) => desk.cancel_fetch(fetch),
            Self::None | Self::RingBack | Self::Document(_) => {}
        }
    }
}
