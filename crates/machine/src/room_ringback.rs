//! The ring-back of calls that are placed for a multi-party call: `dial_music`, which its
//! participants hear until the call is answered (docs/reference/rest.md#multi-party-calls).
//!
//! The call is not in the room yet and therefore refers to it by name. If no room has this name,
//! nothing is played.

use super::context::CallContext;
use super::params::Event;
use super::sounds;
use super::timers::DocumentTimer;
use crate::contract::{
    FetchFailure, FetchId, FetchResponse, Output, RoomCommand, RoomMusic, SoundItem,
};

/// Starts the ring-back after the call has been placed at Meta.
pub(super) fn begin(ctx: &mut CallContext) {
    match ctx.setup.outbound.as_ref().and_then(|outbound| outbound.room_music.clone()) {
        Some(RoomMusic::RingBack) => ring(ctx, sounds::ring_back()),
        Some(RoomMusic::Document { url }) => {
            ctx.room_ringback.fetch = Some(sounds::fetch_sounds(ctx, &url, Event::DialMusic));
        }
        None => {}
    }
}

/// Handles the end of the fetch of `dial_music`. If it failed, a ring-back tone is played
/// (docs/reference/callbacks.md#failures).
pub(super) fn fetched(
    ctx: &mut CallContext,
    fetch: FetchId,
    result: Result<FetchResponse, FetchFailure>,
) {
    if ctx.room_ringback.fetch.take_if(|open| *open == fetch).is_none() {
        return;
    }
    ctx.timers.clear(DocumentTimer::Fetch);
    let items = sounds::sounds_fetched(ctx, "dial_music", result);
    ring(ctx, if items.is_empty() { sounds::ring_back() } else { items });
}

/// Handles a fetch that has exceeded its deadline.
pub(super) fn fetch_timed_out(ctx: &mut CallContext) {
    if let Some(fetch) = ctx.room_ringback.fetch {
        ctx.emit(Output::CancelFetch { fetch });
        fetched(ctx, fetch, Err(FetchFailure::Timeout));
    }
}

/// Stops the ring-back when the call is answered or ends.
pub(super) fn stop(ctx: &mut CallContext) {
    if let Some(fetch) = ctx.room_ringback.fetch.take() {
        ctx.cancel_fetch(fetch);
    }
    if std::mem::take(&mut ctx.room_ringback.is_playing) {
        ctx.emit(Output::Room { command: RoomCommand::StopRing });
    }
}

fn ring(ctx: &mut CallContext, items: Vec<SoundItem>) {
    let name = ctx.setup.multi_party_call().map(|(name, _)| name.to_owned());
    if let Some(name) = name {
        sounds::prepare(ctx, &items);
        ctx.emit(Output::Room { command: RoomCommand::Ring { name, items } });
        ctx.room_ringback.is_playing = true;
    }
}
