//! A room's job on the media workers: reads what the members say, and fills their feeds every 20 ms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::table::Table;
use super::{Audience, MixEvent, MixPart, Played};
use crate::ffi::opus::Rate;
use crate::media::player::PlayItem;
use crate::media::workers::{Going, Job, Workers};
use crate::media::{Feed, LegHandle, Line, Patience, Sides};

/// A room's step.
const STEP: Duration = Duration::from_millis(20);
/// Later than this the steps that were missed are left out.
const LATE_MAX: Duration = Duration::from_millis(200);
/// Frames that a leg waits for before a member hears anything, and again after it ran dry.
const LEAD: usize = 2;
/// Frames that may wait at a leg: past it one is left out, for what waits is delay.
const WAITING_MAX: usize = 6;
/// Orders that a room may be behind with.
const ORDERS_MAX: usize = 512;

/// Where a room's events go. Called on a worker's thread: must not block.
pub type MixSink = Arc<dyn Fn(MixEvent) + Send + Sync>;

/// A hold on a room's sound. Dropping it ends the room for all who hear it.
#[derive(Debug)]
pub struct Mixer {
    orders: SyncSender<Order>,
}

#[derive(Debug)]
enum Order {
    Add(u64, Box<(Line, Feed)>),
    Remove(u64),
    Part(u64, MixPart),
    Play(Audience, Played, Vec<PlayItem>),
    Stop(Audience, Played),
}

impl Mixer {
    /// A room without members.
    pub fn start(workers: &Workers, sink: MixSink) -> Self {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        // One that no thread takes is silent.
        let _ = workers.add(Box::new(Mixing {
            orders: queue,
            sink,
            table: Table::new(),
            seats: BTreeMap::new(),
            due: None,
        }));
        Self { orders }
    }

    /// A room in which nothing is heard.
    pub fn silent() -> Self {
        Self { orders: sync_channel(1).0 }
    }

    /// A member says what this leg's peer says, and hears by it, as soon as it has a part.
    pub fn add(&self, member: u64, leg: &LegHandle) {
        let line = Line::new(leg.tap(Sides::Heard), Rate::Hz16000, Patience::Network);
        self.order(Order::Add(member, Box::new((line, leg.feed(LEAD)))));
    }

    pub fn remove(&self, member: u64) {
        self.order(Order::Remove(member));
    }

    /// What a member says and hears from now on; before, nothing.
    pub fn part(&self, member: u64, part: MixPart) {
        self.order(Order::Part(member, part));
    }

    /// Plays something after what of its kind is played to the same audience already.
    pub fn play(&self, to: Audience, what: Played, items: Vec<PlayItem>) {
        self.order(Order::Play(to, what, items));
    }

    /// Plays it no longer, nor what waits behind it.
    pub fn stop(&self, to: Audience, what: Played) {
        self.order(Order::Stop(to, what));
    }

    /// A room so far behind that it takes no order is not waited for: it has been logged by its thread.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

struct Mixing {
    orders: Receiver<Order>,
    sink: MixSink,
    table: Table,
    seats: BTreeMap<u64, (Line, Feed)>,
    /// The next step.
    due: Option<Instant>,
}

impl Job for Mixing {
    fn beat(&mut self, now: Instant) -> Going {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.take(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Going::Over,
            }
        }
        for (member, (line, _)) in &mut self.seats {
            if !self.table.listens_to(*member) {
                line.pass_over();
                continue;
            }
            while let Some(piece) = line.next() {
                self.table.said(*member, piece.heard);
            }
        }
        let mut due = *self.due.get_or_insert(now);
        if now.saturating_duration_since(due) > LATE_MAX {
            due = now;
        }
        while due <= now {
            self.step();
            due += STEP;
        }
        self.due = Some(due);
        Going::On
    }
}

impl Mixing {
    fn take(&mut self, order: Order) {
        match order {
            Order::Add(member, leg) => {
                self.table.sit(member);
                self.seats.insert(member, *leg);
            }
            Order::Remove(member) => {
                self.table.leave(member);
                self.seats.remove(&member);
            }
            Order::Part(member, part) => self.table.part(member, part),
            Order::Play(to, what, items) => self.table.play(to, what, items),
            Order::Stop(to, what) => self.table.stop(to, what),
        }
    }

    fn step(&mut self) {
        let seats = &self.seats;
        let send = |member: u64, frame: &crate::media::prompt::Frame| {
            if let Some((_, feed)) = seats.get(&member)
                && feed.waiting() < WAITING_MAX
            {
                feed.push(frame.clone());
            }
        };
        self.table.tick(send, |event| (self.sink)(event));
    }
}
