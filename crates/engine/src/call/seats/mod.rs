//! Rooms over the nodes of a fleet (`docs/fleet.md`).
//!
//! The database decides which node hosts a room: the first one at which a call enters it. A call
//! that enters at another node gets a *seat*: its machine gets the same inputs as in a room of its
//! own node, and its packets go to the mixer of the host and back, over a connection between the
//! two nodes. `guest` is the side of the call's node, `host` that of the room's node, `link` the
//! connection, and `wire` its protocol.

mod guest;
pub mod host;
mod link;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::link::ByteStream;

use self::guest::{GuestLink, Refusal};
use super::mailbox::Mailbox;
use super::rooms::{LeaveResult, RoomChoice, Rooms};
use machine::{CallSetup, Input, RecordingOrder, RoomEntry, RoomEvent, SoundItem};
use media::{CableEnd, Media, RoomJack};
use model::{CallUuid, Clock, Digit, Timestamp};
use store::{RoomHost, RoomRef};

/// Timeout for entering a room. A node that was killed is replaced within this time.
const ENTER_TIME: Duration = Duration::from_secs(6);

/// Interval between attempts to enter a room.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of attempts without an answer from the database. After that, the node opens the
/// room itself.
const UNANSWERED_MAX: u32 = 3;

/// Maximum number of calls of one node in rooms of another.
const SEATS_MAX: usize = 1_000;

/// The error if the database does not answer, or answers with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database does not answer")]
pub struct NoAnswer;

/// The access to the fleet that calls need to enter rooms.
pub trait RoomNodes: Send + Sync + 'static {
    /// Returns the host of a room. If no process hosts a room with this name, this one becomes the
    /// host of a room with this id. `None` if the room has just ended.
    fn host<'a>(
        &'a self,
        of: RoomRef<'a>,
        id: Uuid,
    ) -> BoxFuture<'a, Result<Option<RoomHost>, NoAnswer>>;

    /// Releases the name of a room that has ended at this node.
    fn release(&self, room: Uuid);

    /// The id of this process in the fleet.
    fn run(&self) -> Uuid;

    /// Whether another process is a member of the fleet.
    fn is_member(&self, run: Uuid) -> bool;

    /// Opens a connection to another node for seats in its rooms. `None` if it can't be reached.
    fn connect(&self, run: Uuid) -> BoxFuture<'_, Option<Box<dyn ByteStream>>>;
}

/// Brings calls into rooms at any node. Cheap to clone.
#[derive(Clone)]
pub struct Seats(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    nodes: Arc<dyn RoomNodes>,
    clock: Clock,
    media: Arc<Media>,
    visits: Mutex<BTreeMap<CallUuid, Visit>>,
    /// Number of visits so far.
    count: AtomicU64,
    /// The connections to the nodes that host rooms. The lock of a connection is held while it is
    /// being opened.
    links: Mutex<BTreeMap<Uuid, LinkSlot>>,
}

/// The connection to a node, if there is one.
type LinkSlot = Arc<tokio::sync::Mutex<Option<Arc<GuestLink>>>>;

/// A call that is entering a room, or is in a room of another node.
struct Visit {
    number: u64,
    state: VisitState,
}

enum VisitState {
    /// The call is entering a room. The task determines the host.
    Entering(AbortHandle),
    /// The call is in a room of another node.
    Seated(Seat),
}

/// The seat of a call in a room of another node.
#[derive(Clone)]
pub(super) struct Seat {
    link: Arc<GuestLink>,
    number: u32,
}

/// A call that enters a room.
pub(super) struct Entrance {
    pub(super) setup: CallSetup,
    pub(super) entry: RoomEntry,
    pub(super) mailbox: Mailbox,
    pub(super) jack: RoomJack,
    /// The id of the room, if this call opens it.
    pub(super) id: Uuid,
    pub(super) answered: Option<Timestamp>,
}

impl Entrance {
    /// Enters a room of this node. Returns `false` if there is no such room.
    pub(super) fn enter(&self, rooms: &Rooms, choice: RoomChoice) -> bool {
        let Self { setup, entry, mailbox, jack, .. } = self;
        rooms.enter(setup, entry.clone(), mailbox, || jack.connect(), choice)
    }
}

impl Seats {
    /// Creates the handle, and makes `rooms` release the names of its rooms in the fleet.
    pub fn new(rooms: Rooms, nodes: Arc<dyn RoomNodes>, media: Arc<Media>, clock: Clock) -> Self {
        let releasing = nodes.clone();
        rooms.when_free(move |room| releasing.release(room));
        Self(Arc::new(Inner {
            rooms,
            nodes,
            clock,
            media,
            visits: Mutex::default(),
            count: AtomicU64::new(0),
            links: Mutex::default(),
        }))
    }

    /// Brings a call into a room. The result is sent to its machine.
    pub(super) fn enter(&self, entrance: Entrance) {
        if entrance.enter(&self.0.rooms, RoomChoice::Open) {
            return;
        }
        let (inner, call) = (self.0.clone(), entrance.setup.call);
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        let finding = async move {
            let found = tokio::time::timeout(ENTER_TIME, inner.find(&entrance, number)).await;
            if !found.unwrap_or(false) && inner.finish(call, number, || ()).is_some() {
                entrance.mailbox.tell(Input::Room { event: RoomEvent::Elsewhere });
            }
        };
        // The task waits for this lock before it ends the visit.
        let mut visits = self.0.visits();
        let task = tokio::spawn(finding.in_current_span()).abort_handle();
        visits.insert(call, Visit { number, state: VisitState::Entering(task) });
    }

    /// Whether a call is in a room of another node, or looks for its room.
    pub(super) fn has(&self, call: CallUuid) -> bool {
        self.0.visits().contains_key(&call)
    }

    /// The seat of a call in a room of another node.
    pub(super) fn seat_of(&self, call: CallUuid) -> Option<Seat> {
        match &self.0.visits().get(&call)?.state {
            VisitState::Seated(seat) => Some(seat.clone()),
            VisitState::Entering(_) => None,
        }
    }

    /// Takes a call out of a room of another node. Returns the receiver of the result, or `None` if
    /// the call is in no such room. The receiver fails if the connection to that node ends.
    pub(super) fn leave(
        &self,
        call: CallUuid,
        sounds: &[SoundItem],
    ) -> Option<oneshot::Receiver<LeaveResult>> {
        match self.0.visits().remove(&call)?.state {
            VisitState::Entering(task) => {
                task.abort();
                None
            }
            VisitState::Seated(seat) => Some(seat.link.leave(seat.number, sounds.to_vec())),
        }
    }

    fn nodes(&self) -> &Arc<dyn RoomNodes> {
        &self.0.nodes
    }
}

impl Inner {
    fn visits(&self) -> MutexGuard<'_, BTreeMap<CallUuid, Visit>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the search for a room with `act`. Does nothing if the call no longer waits for the
    /// room.
    fn finish<T>(&self, call: CallUuid, number: u64, act: impl FnOnce() -> T) -> Option<T> {
        let mut visits = self.visits();
        visits.get(&call).filter(|visit| visit.number == number)?;
        let done = act();
        visits.remove(&call);
        Some(done)
    }

    /// Brings a call into a room of this node. Returns `false` if there is no such room.
    fn enter_here(&self, entrance: &Entrance, number: u64, choice: RoomChoice) -> bool {
        let call = entrance.setup.call;
        let mut visits = self.visits();
        if visits.get(&call).is_none_or(|visit| visit.number != number) {
            // It has given up.
            return true;
        }
        let is_in = entrance.enter(&self.rooms, choice);
        if is_in {
            visits.remove(&call);
        }
        is_in
    }

    /// Finds the room, or opens it. Returns whether the search for the call's room is over.
    async fn find(&self, entrance: &Entrance, number: u64) -> bool {
        let setup = &entrance.setup;
        let of = RoomRef {
            account: &setup.account,
            main_account: &setup.parent_account,
            kind: entrance.entry.kind,
            name: &entrance.entry.name,
        };
        let (mut unanswered, mut missing) = (0, None);
        loop {
            match self.nodes.host(of, entrance.id).await {
                Err(NoAnswer) => {
                    unanswered += 1;
                    if unanswered == UNANSWERED_MAX {
                        tracing::warn!("room host unknown; opening the room on this node");
                        return self.enter_here(entrance, number, RoomChoice::OpenOr(entrance.id));
                    }
                }
                // The answer to an earlier attempt may have been lost.
                Ok(Some(host)) if host.is_new || host.room == entrance.id => {
                    return self.enter_here(entrance, number, RoomChoice::OpenOr(host.room));
                }
                Ok(Some(host)) if host.run == self.nodes.run() => {
                    if self.enter_here(entrance, number, RoomChoice::Open) {
                        return true;
                    }
                    // Another call of this node is about to open it, or it has ended and its row is
                    // being deleted. A row that stays is deleted again.
                    if missing.replace(host.room) == Some(host.room) {
                        self.nodes.release(host.room);
                    }
                }
                Ok(Some(host)) => {
                    let again = missing == Some(host.room);
                    match self.take_seat(entrance, number, host, again).await {
                        Ok(()) => return true,
                        Err(Refusal::Missing) => missing = Some(host.room),
                        Err(Refusal::Closed) => {}
                        Err(Refusal::Full) => {
                            tracing::warn!(host = %host.run, "too many calls in rooms of another node");
                            return false;
                        }
                    }
                }
                Ok(None) => {}
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Brings a call into a room of another node.
    async fn take_seat(
        &self,
        entrance: &Entrance,
        number: u64,
        host: RoomHost,
        again: bool,
    ) -> Result<(), Refusal> {
        let link = self.link(host.run).await.ok_or(Refusal::Closed)?;
        let seat = link.enter(entrance, host.room, again).await?;
        self.rooms.entered_elsewhere(entrance.setup.call);
        let mut visits = self.visits();
        match visits.get_mut(&entrance.setup.call).filter(|visit| visit.number == number) {
            Some(visit) => visit.state = VisitState::Seated(Seat { link, number: seat }),
            // It has given up.
            None => drop(link.leave(seat, Vec::new())),
        }
        Ok(())
    }

    /// Returns the connection to another node.
    async fn link(&self, run: Uuid) -> Option<Arc<GuestLink>> {
        let slot = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            // Those of nodes that have ended.
            links.retain(|other, slot| {
                let is_closed = slot
                    .try_lock()
                    .is_ok_and(|link| link.as_ref().is_none_or(|link| link.is_closed()));
                *other == run || Arc::strong_count(slot) > 1 || !is_closed
            });
            links.entry(run).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.is_closed()) {
            return Some(link.clone());
        }
        let stream = self.nodes.connect(run).await?;
        Some(slot.insert(GuestLink::open(stream, &self.clock, &self.media)).clone())
    }
}

impl Seat {
    /// Plays sounds to all members of the room.
    pub(super) fn sound(&self, items: Vec<SoundItem>) {
        self.link.sound(self.number, items);
    }

    /// Sends a digit to the other members.
    pub(super) fn digit(&self, digit: Digit) {
        self.link.digit(self.number, digit);
    }

    /// Reports to the host that the separate recording of the call has ended by itself.
    pub(super) fn track_ended(&self) {
        self.link.track_ended(self.number);
    }

    /// Requests a recording of the room from its host.
    pub(super) fn record(
        &self,
        recording: (Uuid, String),
        order: Box<RecordingOrder>,
        when_alone: bool,
    ) {
        self.link.record(self.number, recording, order, when_alone);
    }

    /// Connects an AI agent to the room, as part of the call's participant. Returns the other end,
    /// or `None` if the call has left or no worker has capacity.
    pub(super) fn seat_agent(&self, workers: &media::workers::Workers) -> Option<CableEnd> {
        self.link.seat_agent(self.number, workers)
    }
}
