//! Calls that are placed to enter a multi-party call (`plivo-call-api.md` §4): what those who are in it hear until such a
//! call is answered, which is `dial_music`.
//!
//! The room is asked by its name, since the call is not in it yet; where there is none of that name, nobody hears anything.

use super::context::CallContext;
use super::params::Event;
use super::sounds;
use super::timers::Timer;
use crate::contract::{
    FetchFailure, FetchId, FetchResponse, Output, RoomCommand, RoomMusic, SoundItem,
};

/// The call is on its way to the user.
pub(super) fn begin(ctx: &mut CallContext) {
    match ctx.setup.outbound.as_ref().and_then(|placed| placed.room_music.clone()) {
        Some(RoomMusic::RingBack) => ring(ctx, sounds::ring_back()),
        Some(RoomMusic::Document { url }) => {
            ctx.ringing.fetch = Some(sounds::fetch_sounds(ctx, &url, Event::DialMusic));
        }
        None => {}
    }
}

/// Its document came, or not: then it is as if none was asked for (`plivo-callbacks.md` §4.3).
pub(super) fn fetched(
    ctx: &mut CallContext,
    fetch: FetchId,
    result: Result<FetchResponse, FetchFailure>,
) {
    if ctx.ringing.fetch.take_if(|open| *open == fetch).is_none() {
        return;
    }
    ctx.timers.clear(Timer::Fetch);
    let items = sounds::sounds_fetched(ctx, "dial_music", result);
    ring(ctx, if items.is_empty() { sounds::ring_back() } else { items });
}

/// Whoever fetches has forgotten us.
pub(super) fn fetch_timed_out(ctx: &mut CallContext) {
    if let Some(fetch) = ctx.ringing.fetch {
        ctx.wish(Output::CancelFetch { fetch });
        fetched(ctx, fetch, Err(FetchFailure::Timeout));
    }
}

/// It has been answered, or never will be.
pub(super) fn over(ctx: &mut CallContext) {
    if let Some(fetch) = ctx.ringing.fetch.take() {
        ctx.cancel_fetch(fetch);
    }
    if std::mem::take(&mut ctx.ringing.heard) {
        ctx.wish(Output::Room { command: RoomCommand::StopRing });
    }
}

fn ring(ctx: &mut CallContext, items: Vec<SoundItem>) {
    let name = ctx.setup.multi_party_call().map(|(name, _)| name.to_owned());
    if let Some(name) = name {
        sounds::prepare(ctx, &items);
        ctx.wish(Output::Room { command: RoomCommand::Ring { name, items } });
        ctx.ringing.heard = true;
    }
}
