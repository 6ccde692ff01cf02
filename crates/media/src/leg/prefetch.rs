//! Prefetches the memory that a leg's next packet needs. A leg is processed twice in 20 ms, and the
//! caches are overwritten in between. Without prefetching, each leg would wait for its loads. A
//! shard therefore prefetches the data of many legs at a time.

use std::mem::offset_of;

use super::Leg;
use crate::prefetch::prefetch;

impl Leg {
    /// Step 1: prefetches the leg itself.
    pub(crate) fn prefetch(&self) {
        prefetch(self, offset_of!(Self, network.rtc));
    }

    /// Step 2: prefetches the objects that the leg points to.
    pub(crate) fn prefetch_owned(&self) {
        prefetch(&*self.reporter.counters, usize::MAX);
        if let Some(transport) = &self.network.transport {
            transport.prefetch();
        }
        if let Some(player) = &self.outbound.audio.player {
            player.prefetch();
        }
    }

    /// Step 3: prefetches what the objects of step 2 point to and receiving a packet needs.
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
