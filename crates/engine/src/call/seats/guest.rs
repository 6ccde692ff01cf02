//! The side of the node whose calls are in rooms of another node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::link::{ByteStream, Link, connection};
use super::wire::{self, Event, Received, Request};
use super::{Entrance, SEATS_MAX};
use crate::call::mailbox::Mailbox;
use crate::call::rooms::LeaveResult;
use machine::{Input, RecordingOrder, RoomEvent, SoundItem};
use media::workers::Workers;
use media::{CableEnd, Media, Mixer, SeatAudio, SeatEnd, cable};
use model::{Clock, Digit};

/// The connection to a node that hosts rooms.
pub(super) struct GuestLink {
    link: Link,
    audio: SeatAudio,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    seats: BTreeMap<u32, GuestSeat>,
    /// The seat number that was assigned last.
    last: u32,
    is_closed: bool,
}

/// The seat of a call of this node in a room that the other node hosts.
struct GuestSeat {
    mailbox: Mailbox,
    /// Receives `true` if the room exists, once the call has entered.
    entered: Option<oneshot::Sender<bool>>,
    left: Option<oneshot::Sender<LeaveResult>>,
    /// Seat numbers of the AI agents attached to the call.
    agents: Vec<u32>,
}

/// Why a call could not enter a room of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The other node does not host the room.
    Missing,
    /// The connection has [`SEATS_MAX`] seats.
    Full,
    /// The connection has ended.
    Closed,
}

impl GuestLink {
    /// Opens the connection over a stream to the node that hosts the rooms.
    pub(super) fn open(stream: Box<dyn ByteStream>, clock: &Clock, media: &Media) -> Arc<Self> {
        let (link, connection) = connection(stream, clock);
        let sending = link.clone();
        let sink = Box::new(move |packets: Vec<_>| sending.send_packets(&packets));
        let audio = SeatAudio::start(media.mixers(), sink);
        let guest = Arc::new(Self { link, audio, table: Mutex::default() });
        let receiving = guest.clone();
        tokio::spawn(async move {
            connection.run(|received| receiving.receive(received)).await;
            receiving.lose_all();
        });
        guest
    }

    pub(super) fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Brings a call into a room of the other node. Returns the number of its seat.
    pub(super) async fn enter(
        self: &Arc<Self>,
        entrance: &Entrance,
        room: Uuid,
        again: bool,
    ) -> Result<u32, Refusal> {
        let (entered, answer) = oneshot::channel();
        let seat = {
            let mut table = self.table();
            if table.is_closed {
                return Err(Refusal::Closed);
            }
            if table.seats.len() >= SEATS_MAX {
                return Err(Refusal::Full);
            }
            let seat = table.next_number();
            let mailbox = entrance.mailbox.clone();
            let guest =
                GuestSeat { mailbox, entered: Some(entered), left: None, agents: Vec::new() };
            table.seats.insert(seat, guest);
            seat
        };
        // A call that gives up while the answer is on its way leaves.
        let mut taken = TakenSeat { link: self.clone(), seat, keep: false };
        let Entrance { setup, entry, jack, answered, .. } = entrance;
        let mut setup = Box::new(setup.clone());
        if let Some(outbound) = &mut setup.outbound {
            // Only the call itself needs it.
            outbound.document = None;
        }
        let entry = Box::new(entry.clone());
        let answered = *answered;
        self.link.send(&Request::Enter { seat, setup, answered, entry, room, again });
        match answer.await {
            Ok(true) => {
                taken.keep = true;
                self.audio.add(seat, SeatEnd::Leg(jack.connect()));
                Ok(seat)
            }
            Ok(false) => Err(Refusal::Missing),
            Err(_) => Err(Refusal::Closed),
        }
    }

    /// Removes the call from its room. The result is sent to the receiver, unless the connection
    /// ends first.
    pub(super) fn leave(
        &self,
        seat: u32,
        sounds: Vec<SoundItem>,
    ) -> oneshot::Receiver<LeaveResult> {
        let (left, answer) = oneshot::channel();
        self.audio.remove(seat);
        let mut table = self.table();
        if let Some(guest) = table.seats.get_mut(&seat) {
            guest.left = Some(left);
            guest.entered = None;
            guest.agents.iter().for_each(|agent| self.audio.remove(*agent));
            self.link.send(&Request::Leave { seat, sounds });
        }
        answer
    }

    pub(super) fn sound(&self, seat: u32, items: Vec<SoundItem>) {
        self.link.send(&Request::Sound { seat, items });
    }

    pub(super) fn digit(&self, seat: u32, digit: Digit) {
        self.link.send(&Request::Digit { seat, digit });
    }

    pub(super) fn track_ended(&self, seat: u32) {
        self.link.send_frame(wire::track_ended(seat));
    }

    pub(super) fn record(
        &self,
        seat: u32,
        (id, url): (Uuid, String),
        order: Box<RecordingOrder>,
        when_alone: bool,
    ) {
        self.link.send(&Request::Record { seat, id, url, order, when_alone });
    }

    /// Connects an AI agent to the room, as part of the call's participant. Returns the other end,
    /// or `None` if the call has left or no worker has capacity.
    pub(super) fn seat_agent(&self, seat: u32, workers: &Workers) -> Option<CableEnd> {
        let [ours, theirs] = cable(workers, [Mixer::PREBUFFER_FRAMES, crate::stream::LEAD])?;
        let mut table = self.table();
        let port = table.next_number();
        table.seats.get_mut(&seat)?.agents.push(port);
        self.audio.add(port, SeatEnd::Leg(ours));
        self.link.send(&Request::Agent { seat, port });
        Some(theirs)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, received: Received<Event>) {
        let event = match received {
            Received::Message(event) => event,
            Received::Packets(_, packets) => return self.audio.receive(packets),
            Received::TrackEnded(_) | Received::Nothing => return,
        };
        let mut table = self.table();
        match event {
            Event::Seated { seat } => table.answer(seat, true),
            Event::Missing { seat } => {
                table.answer(seat, false);
                table.seats.remove(&seat);
            }
            Event::Room { seat, event } => table.tell(seat, Input::Room { event: *event }),
            Event::Command { seat, command } => {
                table.tell(seat, Input::Command { command: *command });
            }
            Event::Left { seat, last, end_callbacks, lasted_ms } => {
                let lasted = Duration::from_millis(lasted_ms);
                if let Some(left) = table.seats.remove(&seat).and_then(|guest| guest.left) {
                    let _ = left.send(LeaveResult { last, end_callbacks, lasted });
                }
            }
        }
    }

    /// Reports to all calls that their rooms are lost, because the connection has ended.
    fn lose_all(&self) {
        let mut table = self.table();
        table.is_closed = true;
        let seats = std::mem::take(&mut table.seats);
        drop(table);
        let mut lost = 0_usize;
        for (seat, GuestSeat { mailbox, entered, left, agents }) in seats {
            self.audio.remove(seat);
            agents.iter().for_each(|agent| self.audio.remove(*agent));
            // A call that is about to enter tries again, and one that leaves is on its way.
            if entered.is_none() && left.is_none() {
                lost += 1;
                mailbox.tell(Input::Room { event: RoomEvent::Lost });
            }
        }
        if lost > 0 {
            tracing::warn!(
                calls = lost,
                "lost connection to the node that hosts rooms; their calls continue"
            );
        }
    }
}

impl Table {
    fn next_number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    fn answer(&mut self, seat: u32, is_in: bool) {
        if let Some(entered) = self.seats.get_mut(&seat).and_then(|guest| guest.entered.take()) {
            let _ = entered.send(is_in);
        }
    }

    fn tell(&self, seat: u32, input: Input) {
        // A call that leaves needs nothing any more.
        if let Some(guest) = self.seats.get(&seat).filter(|guest| guest.left.is_none()) {
            guest.mailbox.tell(input);
        }
    }
}

/// A seat that is released on drop unless `keep` is set.
struct TakenSeat {
    link: Arc<GuestLink>,
    seat: u32,
    keep: bool,
}

impl Drop for TakenSeat {
    fn drop(&mut self) {
        if !self.keep {
            drop(self.link.leave(self.seat, Vec::new()));
        }
    }
}
