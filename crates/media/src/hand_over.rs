//! Moves connected legs to another process, for an upgrade during calls
//! (docs/reference/media.md#hand-over).
//!
//! The old process and the new one have the same UDP sockets. The steps are:
//!
//! 1. The new process starts its [`Media`] with these sockets as [`MediaConfig::inherited`]. It does
//!    not read them yet.
//! 2. The old process asks [`Media::movable`] and sends the prompts that it has collected.
//! 3. [`Media::hand_over`] freezes the legs and returns their snapshots. From then on, the kernel
//!    keeps the datagrams that arrive.
//! 4. The new process calls [`Media::adopt`] for each snapshot, and then
//!    [`Media::start_receiving`], which reads the datagrams that have waited.
//! 5. The old process drops its handles and its `Media`. If the new one fails instead, the old one
//!    continues with [`Media::resume`].
//!
//! A tapped leg can move 20 ms after its [`Tap`] was dropped. A [`LegHandle::movable_tap`] and a
//! [`LegHandle::movable_feed`] need not be dropped: the new process continues them. So does a
//! bridge, if both of its legs move at once.
//!
//! [`MediaConfig::inherited`]: crate::MediaConfig::inherited

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use super::feed::{Feed, continued_feed};
use super::leg::{Leg, RestoreConfig};
use super::shard::{Command, LegsRequest, NewLeg};
use super::snapshot::{LegSnapshot, NotMovable, PromptTable};
use super::tap::{Tap, TapSides, tap};
use super::{EventSink, LegHandle, LegId, Media, MediaError};

/// A leg that continues one of another process.
#[derive(Debug)]
pub struct ContinuedLeg {
    pub leg: LegHandle,
    /// A tap for each of those asked for, which begins where [`LegHandle::movable_tap`] has ended in
    /// the other process.
    pub taps: Vec<Tap>,
    /// The feed that was a [`LegHandle::movable_feed`] in the other process, with the frames that
    /// were not sent there. It counts frames from zero.
    pub feed: Option<Feed>,
}

/// What a process that has failed did with the legs that were handed over to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherProcess {
    /// It has sent nothing, because it has adopted no leg. The legs continue as if nothing had
    /// happened.
    SentNothing,
    /// It has ended, and it may have sent packets. The legs skip the sequence numbers and RTCP
    /// indexes that it may have used (RFC 3711 §9.1), so peers see a loss as long as the hand-over.
    /// After 10 minutes, half the range of sequence numbers, peers can no longer follow.
    MayHaveSent,
}

impl Media {
    /// Returns for each leg whether it can move to another process now, and adds the prompts that
    /// movable legs play to `prompts`. Nothing changes. Blocks for up to 20 ms.
    pub fn movable(
        &self,
        legs: &[&LegHandle],
        prompts: &PromptTable,
    ) -> Vec<Result<(), NotMovable>> {
        self.ask_shards(legs, prompts, Command::CheckMovable)
    }

    /// Freezes legs between two of their packets and returns a snapshot of each, or the reason why
    /// it cannot move and was left as it is. Adds the prompts of the snapshots to `prompts`.
    /// Blocks for up to 20 ms.
    ///
    /// A frozen leg sends nothing and reports nothing, not even when its handle is dropped. Its
    /// commands wait for [`Media::resume`]. The sockets are no longer read, so legs that were not
    /// frozen send but receive nothing.
    pub fn hand_over(
        &self,
        legs: &[&LegHandle],
        prompts: &PromptTable,
    ) -> Vec<Result<LegSnapshot, NotMovable>> {
        self.ask_shards(legs, prompts, Command::Freeze)
    }

    /// Abandons the hand-over: continues the frozen legs, executes the commands that have waited,
    /// and reads the sockets again. The process that may have adopted the legs must not be running.
    pub fn resume(&self, other: OtherProcess) {
        for shard in &self.shards {
            shard.commands.send(Command::Thaw(other));
        }
    }

    /// Continues a leg of another process on the port that it had. The leg sends from its next tick
    /// on and reports to `sink`. It receives after [`Media::start_receiving`]. `taps` are the taps to
    /// continue.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Snapshot`] if the snapshot is inconsistent or `prompts` lacks one of its
    /// prompts, and [`MediaError::PortNotInherited`] if this process does not have its socket.
    pub fn adopt(
        &self,
        snapshot: LegSnapshot,
        prompts: &PromptTable,
        sink: EventSink,
        taps: &[TapSides],
    ) -> Result<ContinuedLeg, MediaError> {
        let base = snapshot.time_base(&self.clock);
        let LegSnapshot { bound, ufrag, addresses, leg, feed, bridge, .. } = snapshot;
        let config = RestoreConfig {
            ufrag: &ufrag,
            identity: &self.identity,
            prompts,
            silence: self.silence.clone(),
            media_dead: self.media_dead,
            sink: sink.clone(),
            now: self.clock.now(),
            base,
        };
        let (mut leg, counters) = Leg::restore(leg, config)?;
        // Before the first tick, so that the taps get the ticks that were missed.
        let tap_leg = |sides: &TapSides| {
            let (end, tap) = tap(*sides);
            leg.add_tap(end.movable());
            tap
        };
        let taps = taps.iter().map(tap_leg).collect();
        let feed = feed.map(|state| {
            let (feed, end) = continued_feed(state);
            leg.set_feed(end);
            feed
        });
        if let Some(state) = bridge {
            let mut bridges = self.bridges.lock().unwrap_or_else(PoisonError::into_inner);
            leg.set_bridge(bridges.continue_end(state).ok_or(MediaError::Snapshot)?);
        }
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let peers: Vec<SocketAddr> = leg.peer_address().into_iter().collect();
        let port = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.allocate_at(id, bound, peers.clone())
        };
        let port = port.ok_or(MediaError::PortNotInherited(bound))?;
        let shard = self.shards.get(port.shard).ok_or(MediaError::Stopped)?;
        let mut handle = LegHandle {
            id,
            commands: shard.commands.clone(),
            counters,
            reserved_in: Some(self.ports.clone()),
        };
        let new = NewLeg { id, port, conflicts: Vec::new(), ufrag, peers, leg, sink };
        if !handle.commands.send(Command::Adopt(Box::new(new), addresses.into())) {
            return Err(MediaError::Stopped);
        }
        // The shard releases the port when the leg ends.
        handle.reserved_in = None;
        Ok(ContinuedLeg { leg: handle, taps, feed })
    }

    /// Starts reading inherited sockets. Call this when all legs are adopted. Until then, or until
    /// the first call of [`Media::answer`], another process reads them.
    pub fn start_receiving(&self) {
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.shards {
            shard.commands.send(Command::Receive);
        }
    }

    /// Sends a request to every shard and returns the results in the order of `legs`.
    fn ask_shards<T>(
        &self,
        legs: &[&LegHandle],
        prompts: &PromptTable,
        command: impl Fn(LegsRequest<T>) -> Command,
    ) -> Vec<Result<T, NotMovable>> {
        let shards: Vec<Option<usize>> = {
            let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            legs.iter().map(|leg| ports.shard_of(leg.id)).collect()
        };
        let mut results: Vec<_> = legs.iter().map(|_| Err(NotMovable::Ended)).collect();
        let mut replies = Vec::new();
        for (n, shard) in self.shards.iter().enumerate() {
            let here: Vec<usize> = (0..legs.len())
                .filter(|at| shards.get(*at).copied().flatten() == Some(n))
                .collect();
            let ids = here.iter().filter_map(|at| legs.get(*at)).map(|leg| leg.id).collect();
            let (reply, answers) = sync_channel(1);
            let request = LegsRequest { legs: ids, prompts: prompts.clone(), reply };
            if shard.commands.send(command(request)) {
                replies.push((here, answers));
            }
        }
        for (here, answers) in replies {
            // A shard that has stopped has no legs.
            for (at, answer) in here.into_iter().zip(answers.recv().unwrap_or_default()) {
                if let Some(result) = results.get_mut(at) {
                    *result = answer;
                }
            }
        }
        results
    }
}
