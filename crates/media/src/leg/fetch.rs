//! Prefetches the memory that a leg's next packet needs. A leg is touched twice in 20 ms, and the
//! caches have been overwritten since. Processed one after the other, the legs would wait for each
//! load; a shard prefetches for many legs at a time.

use std::mem::offset_of;

use super::Leg;
use crate::prefetch::fetch;

impl Leg {
    /// Step 1: the leg itself.
    pub(crate) fn fetch(&self) {
        fetch(self, offset_of!(Self, rtc));
    }

    /// Step 2: what the leg points to.
    pub(crate) fn fetch_held(&self) {
        fetch(&*self.counters, usize::MAX);
        if let Some(transport) = &self.transport {
            transport.fetch();
        }
        if let Some(player) = &self.player {
            player.fetch();
        }
    }

    /// Step 3: what that points to, for a packet to be received.
    pub(crate) fn fetch_for_opening(&self) {
        if let Some(transport) = &self.transport {
            transport.fetch_for_opening();
        }
    }

    /// Step 3: what that points to, for a packet to be sent.
    pub(crate) fn fetch_for_sealing(&self) {
        if let Some(transport) = &self.transport {
            transport.fetch_for_sealing();
        }
        if let Some(player) = &self.player {
            player.fetch_frame();
        }
    }
}
