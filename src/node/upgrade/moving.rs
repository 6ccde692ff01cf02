//! The calls of this process on their way to another one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use tracing::warn;

use super::super::Node;
use super::CALLS_MAX;
use super::predecessor::MovedNode;
use super::successor::{Successor, SuccessorError};
use super::transfer::{write_bytes, write_lines};
use crate::phone::MovedPhones;
use engine::call::dialer::MovedCall;
use engine::call::handover::SuspendedCall;
use engine::call::rooms::RoomSnapshot;
use engine::stream::Relays;
use media::{LegHandle, Media, NotMovable, PromptTable};
use model::CallUuid;

/// Maximum time for the requests of calls that are in progress. No new request begins meanwhile,
/// and connections wait.
const SUSPEND_TIME: Duration = Duration::from_secs(3);
/// Number of times that unfinished prompts are waited for, and the interval.
const PROMPT_TRIES: u32 = 20;
const PROMPT_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum time for the tasks of calls that have left.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Suspended calls. Dropping the value resumes them, unless they have left.
pub(super) struct MovingCalls {
    pub(super) calls: Vec<SuspendedCall>,
    /// The outbound calls that wait to be placed, when they have left.
    queued: Vec<MovedCall>,
    /// The rooms of these calls, when they have left.
    rooms: Vec<RoomSnapshot>,
    /// The phones, when the calls have left.
    phones: MovedPhones,
    /// The node itself, when the calls have left.
    pub(super) node: MovedNode,
    prompts: PromptTable,
}

/// Why calls do not move.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// These calls cannot be handed over. The new process waits for another offer.
    #[error("{} calls cannot be handed over", .0.len())]
    Stay(Vec<String>),
    #[error(transparent)]
    Successor(#[from] SuccessorError),
}

impl From<io::Error> for MoveError {
    fn from(error: io::Error) -> Self {
        Self::Successor(error.into())
    }
}

impl MovingCalls {
    /// Suspends the calls of a node and has the new process rebuild them. Their media goes on.
    pub(super) async fn suspend(node: &Node, successor: &mut Successor) -> Result<Self, MoveError> {
        let suspended = node.registry.suspend_all(SUSPEND_TIME).await;
        let stay = |calls: Vec<_>| {
            MoveError::Stay(calls.iter().map(ToString::to_string).take(CALLS_MAX).collect())
        };
        let calls = suspended.map_err(stay)?;
        let guests = node.guests();
        if !guests.is_empty() {
            return Err(MoveError::Stay(guests));
        }
        let mut moving = Self {
            calls,
            queued: Vec::new(),
            rooms: Vec::new(),
            phones: MovedPhones::default(),
            node: MovedNode::default(),
            prompts: PromptTable::default(),
        };
        moving.offer(&node.media, successor).await?;
        Ok(moving)
    }

    /// Has another process take over calls that have left, after the one that should have done it
    /// has ended.
    pub(super) async fn move_again(
        &mut self,
        media: &Arc<Media>,
        successor: &mut Successor,
    ) -> Result<(), SuccessorError> {
        self.prompts = PromptTable::default();
        let moved = async {
            self.offer(media, successor).await?;
            self.move_legs(media, successor).await
        };
        moved.await.map_err(|error| match error {
            MoveError::Stay(calls) => SuccessorError::Refused(calls.join("; ")),
            MoveError::Successor(error) => error,
        })
    }

    /// Checks that all legs can be moved, and has the new process rebuild the calls.
    async fn offer(
        &mut self,
        media: &Arc<Media>,
        successor: &mut Successor,
    ) -> Result<(), MoveError> {
        let mut tries = 0;
        loop {
            let legs = self.legs();
            let movable = block_in_place(|| media.movable(&handles(&legs), &self.prompts));
            let obstacles: Vec<(CallUuid, NotMovable)> = legs
                .iter()
                .zip(movable)
                .filter_map(|((call, _), movable)| Some((*call, movable.err()?)))
                .collect();
            if obstacles.is_empty() {
                break;
            }
            tries += 1;
            // The end of a tap is noticed within 20 ms, and most legs are connected within a second.
            let passes = |(_, why): &(CallUuid, NotMovable)| {
                matches!(
                    why,
                    NotMovable::PromptLoading | NotMovable::Tapped | NotMovable::Connecting
                )
            };
            if tries == PROMPT_TRIES || !obstacles.iter().all(passes) {
                return Err(stay(obstacles));
            }
            tokio::time::sleep(PROMPT_INTERVAL).await;
        }
        let snapshots = write_lines(self.calls.iter().map(|call| &call.snapshot))?;
        let prompts = write_bytes(&self.prompts.encode_new())?;
        let files = [snapshots.as_fd(), prompts.as_fd()];
        let refused = successor.offer_calls(files, &media.sockets()).await?;
        if refused.is_empty() { Ok(()) } else { Err(MoveError::Stay(refused)) }
    }

    /// Freezes the legs and lets the new process continue them. After [`MoveError::Stay`] it has
    /// not begun.
    pub(super) async fn move_legs(
        &mut self,
        media: &Arc<Media>,
        successor: &mut Successor,
    ) -> Result<(), MoveError> {
        self.calls.iter().for_each(SuspendedCall::stop_frames);
        let legs = self.legs();
        let results = block_in_place(|| media.hand_over(&handles(&legs), &self.prompts));
        let (mut moved, mut obstacles) = (Vec::with_capacity(legs.len()), Vec::new());
        for ((call, _), result) in legs.iter().zip(results) {
            match result {
                Ok(leg) => moved.push((*call, leg)),
                Err(why) => obstacles.push((*call, why)),
            }
        }
        if !obstacles.is_empty() {
            return Err(stay(obstacles));
        }
        let legs = write_lines(&moved)?;
        let prompts = write_bytes(&self.prompts.encode_new())?;
        successor.move_legs([legs.as_fd(), prompts.as_fd()]).await?;
        // Recordings go on where their legs were before they moved for the first time.
        let mut moved: HashMap<_, _> = moved.into_iter().collect();
        for call in self.calls.iter_mut().filter(|call| !call.is_away()) {
            if let Some(leg) = moved.remove(&call.snapshot.call) {
                call.leg_leaves(&leg);
            }
        }
        Ok(())
    }

    /// Ends the tasks of the calls, without ending the calls, and empties the queues of those that
    /// wait to be placed. The sockets of streams stay in `relays`.
    pub(super) async fn leave(&mut self, node: &Node, relays: &Relays) {
        self.queued = node.drain.dialer.hand_over();
        self.rooms = node.registry.detach_rooms().await;
        self.phones = node.phones.hand_over();
        self.calls.iter_mut().for_each(SuspendedCall::leave);
        for call in &mut self.calls {
            call.has_left(relays).await;
        }
        let left = node.registry.until_empty(LEAVE_TIME).await;
        if left > 0 {
            warn!(calls = left, "tasks of calls have not ended");
        }
    }

    /// Writes the inputs and recordings of the calls that have left, the calls that wait to be placed,
    /// the rooms, the phones and the node, for the next process.
    pub(super) fn leftovers(&mut self) -> Result<[OwnedFd; 5], SuccessorError> {
        if let Some(member) = &mut self.node.member {
            member.for_next_process();
        }
        let leftovers = self.calls.iter().map(|call| (call.snapshot.call, &call.leftover));
        Ok([
            write_lines(leftovers)?,
            write_lines(&self.queued)?,
            write_lines(&self.rooms)?,
            write_lines([&self.phones])?,
            write_lines([&self.node])?,
        ])
    }

    fn legs(&self) -> Vec<(CallUuid, &LegHandle)> {
        let legs = self.calls.iter();
        legs.filter_map(|call| Some((call.snapshot.call, call.leg()?))).collect()
    }
}

fn handles<'a>(legs: &[(CallUuid, &'a LegHandle)]) -> Vec<&'a LegHandle> {
    legs.iter().map(|(_, leg)| *leg).collect()
}

fn stay(obstacles: Vec<(CallUuid, NotMovable)>) -> MoveError {
    let text = |(call, why): &(CallUuid, NotMovable)| format!("{call}: {why}");
    MoveError::Stay(obstacles.iter().take(CALLS_MAX).map(text).collect())
}
