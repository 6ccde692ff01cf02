//! What a leg's packets are going to ask of memory, asked for ahead: a leg is touched twice in 20 ms, and meanwhile the caches
//! have forgotten it. One leg after another would wait for each load; a shard asks for those of many legs at a time.

use std::mem::offset_of;

use super::Leg;
use crate::prefetch::fetch;

impl Leg {
    /// First: the leg itself.
    pub(crate) fn fetch(&self) {
        fetch(self, offset_of!(Self, rtc));
    }

    /// Then what it points at.
    pub(crate) fn fetch_held(&self) {
        fetch(&*self.counters, usize::MAX);
        if let Some(transport) = &self.transport {
            transport.fetch();
        }
        if let Some(player) = &self.player {
            player.fetch();
        }
    }

    /// Then what that points at, of a packet that comes.
    pub(crate) fn fetch_for_opening(&self) {
        if let Some(transport) = &self.transport {
            transport.fetch_for_opening();
        }
    }

    /// The same of one that goes.
    pub(crate) fn fetch_for_sealing(&self) {
        if let Some(transport) = &self.transport {
            transport.fetch_for_sealing();
        }
        if let Some(player) = &self.player {
            player.fetch_frame();
        }
    }
}
