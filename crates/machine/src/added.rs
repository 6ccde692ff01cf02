//! Calls that are placed to enter a multi-party call (`plivo-call-api.md` §4): what those who are in it hear until such a
//! call is answered, which is `dial_music`.
//!
//! The room is asked by its name, since the call is not in it yet; where there is none of that name, nobody hears anything.

use super::desk::Desk;
use super::params::Event;
use super::sounds;
use super::timers::Timer;
use crate::contract::{
    FetchFailure, FetchId, Fetched, Output, RoomMusic, RoomWish, SoundItem, placed_for,
};

/// The call is on its way to the user.
pub(super) fn begin(desk: &mut Desk) {
    match desk.setup.outbound.as_ref().and_then(|placed| placed.room_music.clone()) {
        Some(RoomMusic::RingBack) => ring(desk, sounds::ring_back()),
        Some(RoomMusic::Document { url }) => {
            desk.ringing.fetch = Some(sounds::fetch_sounds(desk, &url, Event::DialMusic));
        }
        None => {}
    }
}

/// Its document came, or not: then it is as if none was asked for (`plivo-callbacks.md` §4.3).
pub(super) fn fetched(desk: &mut Desk, fetch: FetchId, result: Result<Fetched, FetchFailure>) {
    if desk.ringing.fetch.take_if(|open| *open == fetch).is_none() {
        return;
    }
    desk.timers.clear(Timer::Fetch);
    let items = sounds::sounds_fetched(desk, "dial_music", result);
    ring(desk, if items.is_empty() { sounds::ring_back() } else { items });
}

/// Whoever fetches has forgotten us.
pub(super) fn fetch_timed_out(desk: &mut Desk) {
    if let Some(fetch) = desk.ringing.fetch {
        desk.wish(Output::CancelFetch { fetch });
        fetched(desk, fetch, Err(FetchFailure::Timeout));
    }
}

/// It has been answered, or never will be.
pub(super) fn over(desk: &mut Desk) {
    if let Some(fetch) = desk.ringing.fetch.take() {
        desk.cancel_fetch(fetch);
    }
    if std::mem::take(&mut desk.ringing.heard) {
        desk.wish(Output::Room { room: RoomWish::RingOver });
    }
}

fn ring(desk: &mut Desk, items: Vec<SoundItem>) {
    let name = placed_for(&desk.setup).map(|(name, _)| name.to_owned());
    if let Some(name) = name {
        sounds::prepare(desk, &items);
        desk.wish(Output::Room { room: RoomWish::Ring { name, items } });
        desk.ringing.heard = true;
    }
}
