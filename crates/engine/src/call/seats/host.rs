//! The side of the node that hosts a room with calls of other nodes in it.
//!
//! Such a call is a member like any other. The inputs in its mailbox and its audio are sent to the
//! other node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::SEATS_MAX;
use super::link::{ByteStream, Link, connection};
use super::wire::{Event, Received, Request};
use crate::answer::SigningKeys;
use crate::call::mailbox::{Mailbox, Message, mailbox};
use crate::call::recordings::RecordingRequest;
use crate::call::rooms::{LeaveResult, RoomChoice, report_exits};
use crate::call::services::Services;
use machine::{CallSetup, CallbackRequest, Command, Input, RoomEntry, RoomEvent};
use media::{SeatAudio, SeatEnd, port};
use model::{CallUuid, Timestamp};

/// Maximum number of AI agents attached to one member.
const AGENTS_MAX: usize = 4;

/// Maximum number of checks whether a node has died, after its connection was lost. Together they
/// take longer than the other nodes need to declare it dead.
const DEATH_CHECKS: u32 = 30;
/// Interval between these checks.
const DEATH_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Hosts rooms for calls of other nodes. Cheap to clone.
#[derive(Clone)]
pub struct RoomHosting(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    /// The connection over which each call last entered a room.
    members: Mutex<BTreeMap<CallUuid, Uuid>>,
    /// Notified each time a call leaves.
    one_left: Notify,
    /// Whether no call of another node may enter.
    is_paused: AtomicBool,
}

/// A connection from another node.
struct HostLink {
    id: Uuid,
    /// The run of the other node.
    from: Uuid,
    host: Arc<Inner>,
    link: Link,
    audio: SeatAudio,
    seats: BTreeMap<u32, HostSeat>,
}

/// The seat of a call of the other node.
struct HostSeat {
    setup: Box<CallSetup>,
    answered: Option<Timestamp>,
    mailbox: Mailbox,
    /// The task that sends the inputs in the mailbox to the other node.
    sending: AbortHandle,
    agents: Vec<u32>,
}

impl RoomHosting {
    pub fn new(services: Arc<Services>) -> Self {
        let (members, one_left) = (Mutex::default(), Notify::new());
        let is_paused = AtomicBool::new(false);
        Self(Arc::new(Inner { services, members, one_left, is_paused }))
    }

    /// Sets whether calls of other nodes are kept out of rooms, for an upgrade. They try again for some
    /// seconds.
    pub fn set_paused(&self, is_paused: bool) {
        self.0.is_paused.store(is_paused, Ordering::Release);
    }

    /// The calls of other nodes in rooms of this one.
    pub fn calls(&self) -> Vec<CallUuid> {
        self.0.members().keys().copied().collect()
    }

    /// Waits until no call of another node is in a room of this one, or until the timeout.
    pub async fn until_empty(&self, at_most: Duration) {
        let wait = async {
            loop {
                let woken = self.0.one_left.notified();
                if self.0.members().is_empty() {
                    return;
                }
                woken.await;
            }
        };
        let _ = tokio::time::timeout(at_most, wait).await;
    }

    /// Serves the calls of another node until the connection ends. The calls then leave their
    /// rooms.
    pub async fn serve(&self, from: Uuid, stream: Box<dyn ByteStream>) {
        let (host, clock) = (self.0.clone(), &self.0.services.clock);
        let (link, connection) = connection(stream, clock);
        let sending = link.clone();
        let sink = Box::new(move |packets: Vec<_>| sending.send_packets(&packets));
        let audio = SeatAudio::start(host.services.media.mixers(), sink);
        let id = host.services.uuid();
        // Its calls leave when it is dropped, even if this future is.
        let mut host = HostLink { id, from, host, link, audio, seats: BTreeMap::new() };
        connection.run(|received| host.receive(received)).await;
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, BTreeMap<CallUuid, Uuid>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that sign requests about a call.
    fn keys(&self, setup: &CallSetup) -> SigningKeys {
        let keys = self.services.outbox.keys(&setup.account, &setup.parent_account);
        keys.unwrap_or_else(|| SigningKeys::new(&[], &[]))
    }
}

impl HostLink {
    fn receive(&mut self, received: Received<Request>) {
        match received {
            Received::Message(Request::Enter { seat, setup, answered, entry, room, again }) => {
                if self.host.is_paused.load(Ordering::Acquire) {
                    self.link.send(&Event::Missing { seat });
                    return;
                }
                if self.enter(seat, (setup, answered), *entry, room) {
                    return;
                }
                let seats = self.host.services.seats.as_ref().filter(|_| again);
                if let Some(seats) = seats {
                    seats.nodes().release(room);
                }
                self.link.send(&Event::Missing { seat });
            }
            Received::Message(Request::Leave { seat, sounds }) => {
                let link = self.link.clone();
                let tell = |LeaveResult { last, end_callbacks, lasted }| {
                    let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                    link.send(&Event::Left { seat, last, end_callbacks, lasted_ms });
                };
                match self.take(seat) {
                    Some(left) => self.host.services.rooms.leave(left.setup.call, &sounds, tell),
                    None => tell(LeaveResult::nothing()),
                }
            }
            Received::Message(Request::Sound { seat, items }) => {
                if let Some(call) = self.call(seat) {
                    self.host.services.rooms.sound(call, &items);
                }
            }
            Received::Message(Request::Digit { seat, digit }) => {
                if let Some(call) = self.call(seat) {
                    self.host.services.rooms.key(call, digit);
                }
            }
            Received::TrackEnded(seat) => {
                if let Some(call) = self.call(seat) {
                    self.host.services.rooms.track_ended(call);
                }
            }
            Received::Message(Request::Record { seat, id, url, order, when_alone }) => {
                let Some(member) = self.seats.get(&seat) else { return };
                let (setup, up) = (&member.setup, member.mailbox.clone());
                let answered = member.answered;
                let keys = self.host.keys(setup);
                let started = self.host.services.clock.wall();
                let request = RecordingRequest {
                    id,
                    started,
                    state: None,
                    account: setup.account.clone(),
                    main_account: setup.parent_account.clone(),
                    call: setup.call,
                    room: None,
                    order: *order,
                    keys,
                    action: None,
                    answered: Box::new(move || answered),
                    is_up: Box::new(move || up.is_open()),
                };
                let services = &self.host.services;
                let recordings = &services.recordings;
                if let Err(why) = services.rooms.record(recordings, request, url, when_alone) {
                    tracing::warn!(why, call_uuid = %setup.call, "room recording failed to start");
                    let event = RoomEvent::RecordingFailed { reason: why.to_owned() };
                    member.mailbox.tell(Input::Room { event });
                }
            }
            Received::Message(Request::Agent { seat, port: number }) => {
                let Some(member) = self.seats.get_mut(&seat) else { return };
                let (end, ours) = port();
                if member.agents.len() < AGENTS_MAX
                    && self.host.services.rooms.add_agent(member.setup.call, end)
                {
                    member.agents.push(number);
                    self.audio.add(number, SeatEnd::Room(ours));
                }
            }
            Received::Packets(_, packets) => self.audio.receive(packets),
            Received::Nothing => {}
        }
    }

    /// Brings a call of the other node into a room. Returns `false` if the room does not exist, or
    /// if the seat can't be assigned.
    fn enter(
        &mut self,
        seat: u32,
        (setup, answered): (Box<CallSetup>, Option<Timestamp>),
        entry: RoomEntry,
        room: Uuid,
    ) -> bool {
        if self.seats.len() >= SEATS_MAX || self.seats.contains_key(&seat) {
            return false;
        }
        let services = &self.host.services;
        // Its earlier connection may have broken without a sign.
        if self.host.members().insert(setup.call, self.id).is_some() {
            services.rooms.leave(setup.call, &[], drop);
        }
        let (sender, inbox) = mailbox(setup.call, &services.clock);
        let (end, ours) = port();
        // The answer comes before the first event.
        let (start, started) = tokio::sync::oneshot::channel();
        let link = self.link.clone();
        let mut inbox = inbox;
        let sending = tokio::spawn(async move {
            if started.await.is_err() {
                return;
            }
            while let Some(envelope) = inbox.recv().await {
                if let Some(event) = event_of(seat, envelope.message) {
                    link.send(&event);
                }
            }
        });
        let sending = sending.abort_handle();
        if !services.rooms.enter(&setup, entry, &sender, || end, RoomChoice::Only(room)) {
            self.host.members().remove(&setup.call);
            self.host.one_left.notify_waiters();
            return false;
        }
        self.audio.add(seat, SeatEnd::Room(ours));
        self.link.send(&Event::Seated { seat });
        let _ = start.send(());
        self.seats.insert(
            seat,
            HostSeat { setup, answered, mailbox: sender, sending, agents: Vec::new() },
        );
        true
    }

    fn call(&self, seat: u32) -> Option<CallUuid> {
        self.seats.get(&seat).map(|member| member.setup.call)
    }

    /// Releases a seat. Returns it, unless its call has since entered over another connection.
    fn take(&mut self, seat: u32) -> Option<HostSeat> {
        let taken = self.seats.remove(&seat)?;
        taken.sending.abort();
        self.audio.remove(seat);
        taken.agents.iter().for_each(|agent| self.audio.remove(*agent));
        let (call, mut members) = (taken.setup.call, self.host.members());
        let is_here = members.get(&call) == Some(&self.id);
        if is_here {
            members.remove(&call);
            self.host.one_left.notify_waiters();
        }
        is_here.then_some(taken)
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        let numbers: Vec<u32> = self.seats.keys().copied().collect();
        let lost: Vec<_> = numbers.into_iter().filter_map(|seat| self.take(seat)).collect();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            calls = lost.len(),
            from = %self.from,
            "lost connection to a node with members in local rooms"
        );
        let rooms = &self.host.services.rooms;
        let callbacks = lost.into_iter().map(|HostSeat { setup, answered, .. }| {
            let callbacks = rooms.lose(&setup, answered);
            (setup, callbacks)
        });
        let callbacks: Vec<_> = callbacks
            .filter(|(_, callbacks)| callbacks.iter().any(|some| !some.is_empty()))
            .collect();
        if !callbacks.is_empty() {
            tokio::spawn(report_lost(self.host.clone(), self.from, callbacks));
        }
    }
}

/// Writes the callbacks of participants whose node has lost its connection. Callbacks about their
/// exits are written only if that node has died; otherwise it writes them itself.
async fn report_lost(
    host: Arc<Inner>,
    from: Uuid,
    callbacks: Vec<(Box<CallSetup>, [Vec<CallbackRequest>; 2])>,
) {
    let services = &host.services;
    let Some(seats) = &services.seats else { return };
    for _ in 0..DEATH_CHECKS {
        if !seats.nodes().is_member(from) {
            break;
        }
        tokio::time::sleep(DEATH_CHECK_INTERVAL).await;
    }
    let has_died = !seats.nodes().is_member(from);
    for (setup, [exits, ends]) in callbacks {
        let notices = exits.into_iter().filter(|_| has_died).chain(ends);
        report_exits(services, &setup, notices, host.keys(&setup)).await;
    }
}

/// Converts a message to a call of another node to the event that is sent to that node. Returns
/// `None` for messages that a room never sends.
fn event_of(seat: u32, message: Message) -> Option<Event> {
    match message {
        Message::Input(Input::Room { event }) => Some(Event::Room { seat, event: Box::new(event) }),
        Message::Input(Input::Command {
            command: command @ (Command::SendDigits { .. } | Command::Hangup),
        }) => Some(Event::Command { seat, command: Box::new(command) }),
        // A room sends nothing else.
        _ => None,
    }
}
