//! A feed carries live audio into a leg, one encoded Opus frame per tick, from a mixer or a stream.
//!
//! The queue is short. A sender with more audio keeps the rest and refills the feed, so that it can
//! still discard audio that has not been sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::prompt::Frame;

/// Capacity of a feed in frames: 320 ms.
pub const FEED_MAX: usize = 16;
/// Number of ticks after which audio starts even with fewer frames than the lead, so that the end
/// of the audio is not delayed.
const START_TICKS_MAX: u8 = 3;

/// The positions of both ends.
#[derive(Debug, Default)]
struct Progress {
    pushed: AtomicU64,
    taken: AtomicU64,
    /// The number of the first frame that is not discarded.
    cleared: AtomicU64,
}

/// The sender's end. Dropping it ends the feed; queued frames are not sent.
#[derive(Debug)]
pub struct Feed {
    to: SyncSender<Frame>,
    progress: Arc<Progress>,
}

/// The leg's end.
#[derive(Debug)]
pub(super) struct FeedEnd {
    from: Receiver<Frame>,
    progress: Arc<Progress>,
    /// Number of frames to buffer before audio starts.
    lead: u64,
    playing: bool,
    waited_ticks: u8,
    taken: u64,
}

/// Creates a feed and returns both ends.
pub(super) fn feed(lead: usize) -> (Feed, FeedEnd) {
    let (to, from) = sync_channel(FEED_MAX);
    let progress = Arc::new(Progress::default());
    let lead = u64::try_from(lead.clamp(1, FEED_MAX)).unwrap_or(1);
    let end = FeedEnd {
        from,
        progress: progress.clone(),
        lead,
        playing: false,
        waited_ticks: 0,
        taken: 0,
    };
    (Feed { to, progress }, end)
}

impl Feed {
    /// Queues 20 ms of Opus. Returns `false` and drops the frame if the feed is full or the leg no
    /// longer exists.
    pub fn push(&self, frame: Frame) -> bool {
        // The counter is incremented before the other end can take the frame, because that end
        // subtracts.
        self.progress.pushed.fetch_add(1, Ordering::AcqRel);
        let taken = self.to.try_send(frame).is_ok();
        if !taken {
            self.progress.pushed.fetch_sub(1, Ordering::AcqRel);
        }
        taken
    }

    /// Returns the number of frames that can be pushed now.
    pub fn free(&self) -> usize {
        FEED_MAX.saturating_sub(self.waiting())
    }

    /// Returns the number of frames that wait to be sent.
    pub fn waiting(&self) -> usize {
        let waiting = self.progress.pushed.load(Ordering::Acquire).saturating_sub(self.taken());
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    /// Returns the number of frames that were sent or cleared since the start. Frame n (from 0) has
    /// been sent or cleared if the number is greater than n.
    pub fn taken(&self) -> u64 {
        self.progress.taken.load(Ordering::Acquire)
    }

    /// Returns the number of frames pushed since the start.
    pub fn pushed(&self) -> u64 {
        self.progress.pushed.load(Ordering::Acquire)
    }

    /// Discards the queued frames.
    pub fn clear(&self) {
        self.progress.cleared.store(self.pushed(), Ordering::Release);
    }
}

impl FeedEnd {
    /// Returns whether frames are queued.
    pub(super) fn has_queued(&self) -> bool {
        self.progress.pushed.load(Ordering::Acquire) > self.taken
    }

    /// Returns the frame of this tick, and `false` if the sender's end was dropped.
    pub(super) fn next(&mut self) -> (Option<Frame>, bool) {
        let waiting = self.progress.pushed.load(Ordering::Acquire).saturating_sub(self.taken);
        if !self.playing && waiting > 0 {
            self.waited_ticks = self.waited_ticks.saturating_add(1);
            self.playing = waiting >= self.lead || self.waited_ticks >= START_TICKS_MAX;
        }
        let cleared = self.progress.cleared.load(Ordering::Acquire);
        loop {
            if !self.playing && self.taken >= cleared && waiting > 0 {
                return (None, true);
            }
            match self.from.try_recv() {
                Ok(frame) => {
                    self.taken += 1;
                    self.progress.taken.store(self.taken, Ordering::Release);
                    if self.taken > cleared {
                        return (Some(frame), true);
                    }
                }
                Err(TryRecvError::Empty) => {
                    self.playing = false;
                    self.waited_ticks = 0;
                    return (None, true);
                }
                Err(TryRecvError::Disconnected) => return (None, false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FEED_MAX, Feed, feed};
    use crate::prompt::Frame;

    fn push(feed: &Feed, name: u8) -> bool {
        feed.push(Frame::from([name].as_slice()))
    }

    #[test]
    fn starts_with_the_lead_and_again_after_an_underrun() {
        let (feed, mut end) = feed(2);
        let mut next = || end.next().0.map(|frame| frame[0]);
        assert_eq!(next(), None);
        assert!(push(&feed, 1));
        assert_eq!(next(), None, "the lead is two frames");
        assert!(push(&feed, 2));
        assert_eq!((next(), next(), next()), (Some(1), Some(2), None));
        assert_eq!(feed.taken(), 2);
        assert!(push(&feed, 3));
        assert_eq!(
            (next(), next(), next()),
            (None, None, Some(3)),
            "a single frame is released after a while"
        );
    }

    #[test]
    fn drops_cleared_frames_and_bounds_the_queue() {
        let (feed, mut end) = feed(1);
        let pushed = (0..100).filter(|n| push(&feed, *n)).count();
        assert_eq!((pushed, feed.free()), (FEED_MAX, 0));
        assert_eq!(end.next().0.map(|f| f[0]), Some(0));
        feed.clear();
        assert!(push(&feed, 77));
        assert_eq!(end.next().0.map(|f| f[0]), Some(77));
        assert_eq!((feed.taken(), feed.pushed(), feed.waiting()), (17, 17, 0));
        feed.clear();
        assert_eq!(end.next(), (None, true));
        drop(feed);
        assert_eq!(end.next(), (None, false));
    }
}
