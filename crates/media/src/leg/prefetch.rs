//! Prefetches the memory that a leg's next packet needs. A leg is touched twice in 20 ms, and the
//! caches have been overwritten since. Processed one after the other, the legs would wait for each
//! load; a shard prefetches for many legs at a time.

use std::mem::offset_of;

use super::Leg;
use crate::prefetch::prefetch;

impl Leg {
    /// Step 1: the leg itself.
    pub(crate) fn prefetch(&self) {
        prefetch(self, offset_of!(Self, network.rtc));
    }

    /// Step 2: the objects that the leg points to.
    pub(crate) fn prefetch_owned(&self) {
        prefetch(&*self.reporter.counters, usize::MAX);
        if let Some(transport) = &self.network.transport {
            transport.prefetch();
        }
        if let Some(player) = &self.outbound.audio.player {
            player.prefetch();
        }
    }

    /// Step 3: the objects that those point to, for a packet to be received.
    pub(crate) fn prefetch_for_receiving(&self) {
        if let Some(transport) = &self.network.transport {
            transport.prefetch_for_receiving();
        }
    }

    /// Step 3: prefetches what the objects of step 2 point to and sending a packet needs.
    pub(crate) fn prefetch_for_sending(&self) {
        if let Some(transport) = &self.network.transport {
            transport.prefetch_for_sending();
        }
        if let Some(player) = &self.outbound.audio.player {
            player.prefetch_frame();
        }
    }
}
