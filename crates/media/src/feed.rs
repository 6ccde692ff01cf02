//! A feed carries live audio into a leg, one encoded Opus frame per tick, from a mixer or a stream.
//!
//! The queue is short. A sender with more audio keeps the rest and refills the feed, so that it can
//! still discard audio that has not been sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use serde::{Deserialize, Serialize};

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
    /// Frames that were taken from the queue for a snapshot. They precede those of the queue.
    held: VecDeque<Frame>,
    /// Whether the feed continues if the leg moves to another process.
    is_movable: bool,
    progress: Arc<Progress>,
    /// Number of frames to buffer before audio starts.
    lead: u64,
    playing: bool,
    waited_ticks: u8,
    taken: u64,
}

/// The frames of a feed that were not sent when its leg left for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FeedState {
    frames: Vec<Vec<u8>>,
    /// The number of these frames that are discarded.
    cleared: u64,
    lead: u64,
    playing: bool,
}

/// Creates a feed and returns both ends.
pub(super) fn feed(lead: usize) -> (Feed, FeedEnd) {
    let (to, from) = sync_channel(FEED_MAX);
    let progress = Arc::new(Progress::default());
    let lead = u64::try_from(lead.clamp(1, FEED_MAX)).unwrap_or(1);
    let end = FeedEnd {
        from,
        held: VecDeque::new(),
        is_movable: false,
        progress: progress.clone(),
        lead,
        playing: false,
        waited_ticks: 0,
        taken: 0,
    };
    (Feed { to, progress }, end)
}

/// Creates a feed that continues one of another process. Both ends count its frames from zero.
pub(super) fn continued_feed(state: FeedState) -> (Feed, FeedEnd) {
    let FeedState { frames, cleared, lead, playing } = state;
    let (feed, mut end) = feed(1);
    end.held = frames.into_iter().take(FEED_MAX).map(Frame::from).collect();
    let pushed = u64::try_from(end.held.len()).unwrap_or_default();
    end.progress.pushed.store(pushed, Ordering::Release);
    end.progress.cleared.store(cleared, Ordering::Release);
    (feed, FeedEnd { lead, playing, is_movable: true, ..end })
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
    /// Lets the feed continue in another process.
    pub(super) fn movable(self) -> Self {
        Self { is_movable: true, ..self }
    }

    pub(super) fn is_movable(&self) -> bool {
        self.is_movable
    }

    /// Returns the frames that are not sent yet, for another process. They are kept in case the leg
    /// continues here.
    pub(super) fn snapshot(&mut self) -> FeedState {
        self.held.extend(self.from.try_iter());
        let cleared = self.progress.cleared.load(Ordering::Acquire);
        FeedState {
            frames: self.held.iter().map(|frame| frame.to_vec()).collect(),
            cleared: cleared.saturating_sub(self.taken),
            lead: self.lead,
            playing: self.playing,
        }
    }

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
            match self.held.pop_front().map_or_else(|| self.from.try_recv(), Ok) {
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
    use super::{FEED_MAX, Feed, continued_feed, feed};
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

    #[test]
    fn frames_that_are_not_sent_move() {
        let name = |next: (Option<Frame>, bool)| next.0.map(|frame| frame[0]);
        let (old, mut end) = feed(2);
        let mut end_of = |count: u8| {
            (0..count).for_each(|n| assert!(push(&old, n)));
            name(end.next())
        };
        assert_eq!(end_of(5), Some(0));
        let state = end.snapshot();
        let json = serde_json::to_string(&state).unwrap();
        let (new, mut moved) = continued_feed(serde_json::from_str(&json).unwrap());
        assert!(moved.is_movable());
        assert_eq!((new.taken(), new.waiting(), new.free()), (0, 4, FEED_MAX - 4));
        assert!(push(&new, 9));
        let played: Vec<_> = std::iter::from_fn(|| name(moved.next())).collect();
        assert_eq!((played, new.taken()), (vec![1, 2, 3, 4, 9], 5));
        // The old process continues if the new one fails.
        assert!(push(&old, 7));
        let played: Vec<_> = std::iter::from_fn(|| name(end.next())).collect();
        assert_eq!((played, old.taken()), (vec![1, 2, 3, 4, 7], 6));
        // Frames that were cleared are not sent in the other process, either.
        (0..3).for_each(|n| assert!(push(&old, n)));
        old.clear();
        let (cleared, mut moved) = continued_feed(end.snapshot());
        assert_eq!((name(moved.next()), cleared.taken()), (None, 3));
    }
}
