//! The sound for the caller while targets ring: a ring-back tone, nothing, or the sounds of a
//! document in a loop (docs/reference/xml.md#dial, `dialMusic`).

use crate::activity::Readiness;
use crate::context::CallContext;
use crate::contract::{FetchFailure, FetchId, FetchResponse, Output, PlayId};
use crate::looped_playlist::LoopedPlaylist;
use crate::params::Event;
use crate::sounds::{fetch_sounds, ring_back, sounds_fetched};
use crate::timers::DocumentTimer;
use xml::ast::{DialMusic, DocUrl};

/// The sound for the waiting caller. See the [module documentation](self).
pub(super) enum Music {
    None,
    RingBack,
    /// The document has not been requested yet.
    Document(DocUrl),
    Fetching(FetchId),
    Ready(LoopedPlaylist),
}

impl Music {
    pub(super) fn new(music: &DialMusic) -> Self {
        match music {
            DialMusic::RingBack => Self::RingBack,
            DialMusic::None => Self::None,
            DialMusic::Document(url) => Self::Document(url.clone()),
        }
    }

    /// Prepares the sounds after the first target has been placed.
    pub(super) fn begin(&mut self, ctx: &mut CallContext) {
        match self {
            Self::Document(url) => {
                *self = Self::Fetching(fetch_sounds(ctx, url, Event::DialMusic));
            }
            Self::RingBack => {
                *self = Self::Ready(LoopedPlaylist::new(ctx, ring_back(), Vec::new()))
            }
            Self::None | Self::Fetching(_) | Self::Ready(_) => {}
        }
    }

    /// Starts the sounds if they are available and the media path is up.
    pub(super) fn play(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if let Self::Ready(playlist) = self {
            playlist.play(ctx, readiness);
        }
    }

    /// Handles the end of the fetch. If it failed, a ring-back tone is played
    /// (docs/reference/callbacks.md#failures).
    pub(super) fn fetched(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) {
        if !matches!(self, Self::Fetching(open) if *open == fetch) {
            return;
        }
        ctx.timers.clear(DocumentTimer::Fetch);
        let items = sounds_fetched(ctx, "dialMusic", result);
        *self = Self::Ready(match items.is_empty() {
            true => LoopedPlaylist::new(ctx, ring_back(), Vec::new()),
            false => LoopedPlaylist::new(ctx, items, ring_back()),
        });
        self.play(ctx, readiness);
    }

    /// Handles a fetch that has exceeded its deadline.
    pub(super) fn fetch_timed_out(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if let Self::Fetching(fetch) = *self {
            ctx.emit(Output::CancelFetch { fetch });
            self.fetched(ctx, readiness, fetch, Err(FetchFailure::Timeout));
        }
    }

    /// Handles the end of a playlist.
    pub(super) fn played(&mut self, ctx: &mut CallContext, readiness: Readiness, ended: PlayId) {
        if let Self::Ready(playlist) = self {
            playlist.played(ctx, readiness, ended);
        }
    }

    pub(super) fn is_playing(&self, play_id: PlayId) -> bool {
        matches!(self, Self::Ready(playlist) if playlist.is_playing(play_id))
    }

    /// Stops the sounds permanently.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        match std::mem::replace(self, Self::None) {
            Self::Ready(mut playlist) => playlist.stop(ctx),
            Self::Fetching(fetch) => ctx.cancel_fetch(fetch),
            Self::None | Self::RingBack | Self::Document(_) => {}
        }
    }
}
