//! A room's job on the media workers: reads what the members say, and fills their feeds every 20 ms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::table::{Table, Twenty};
use super::{Audience, MixEvent, MixPart, Played};
use crate::opus::Rate;
use crate::player::PlayItem;
use crate::workers::{Going, Job, Workers};
use crate::{CableEnd, Feed, LegHandle, Line, Patience, Sides};

/// A room's step.
const STEP: Duration = Duration::from_millis(20);
/// Later than this the steps that were missed are left out.
const LATE_MAX: Duration = Duration::from_millis(200);
/// Frames that a leg waits for before a member hears anything, and again after it ran dry.
const LEAD: usize = 2;
/// Frames that may wait at a leg: past it one is left out, for what waits is delay.
const WAITING_MAX: usize = 6;
/// Pieces that may wait for who listens to the room: two seconds.
const HEARD_MAX: usize = 100;
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
    Listen(SyncSender<Twenty>),
}

/// What a whole room hears, 20 ms at a time, mono at 16 kHz: for whoever records it. Dropping it ends it.
#[derive(Debug)]
pub struct RoomSound {
    from: Receiver<Twenty>,
    piece: Twenty,
    over: bool,
}

impl RoomSound {
    /// The next 20 ms; none: not yet, or never again ([`RoomSound::is_over`]).
    #[expect(clippy::should_implement_trait, reason = "a piece is lent until the next one")]
    pub fn next(&mut self) -> Option<&[i16]> {
        match self.from.try_recv() {
            Ok(piece) => {
                self.piece = piece;
                Some(&self.piece)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }

    /// The room is gone and everything has been given.
    pub fn is_over(&self) -> bool {
        self.over
    }
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
            ears: Vec::new(),
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
        self.order(Order::Add(member, Box::new((line, leg.room_feed(LEAD)))));
    }

    /// The same of somebody who is at the end of a cable.
    pub fn add_end(&self, member: u64, end: CableEnd) {
        let line = Line::new(end.tap, Rate::Hz16000, Patience::Network);
        self.order(Order::Add(member, Box::new((line, end.feed))));
    }

    /// Frames that an end is to wait for before it hears anything, as a leg does.
    pub const LEAD: usize = LEAD;

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

    /// What the room hears from now on. A reader who is too slow loses the newest.
    pub fn listen(&self) -> RoomSound {
        let (to, from) = sync_channel(HEARD_MAX);
        self.order(Order::Listen(to));
        RoomSound { from, piece: [0; Rate::Hz16000.frame()], over: false }
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
    ears: Vec<SyncSender<Twenty>>,
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
            Order::Listen(ear) => self.ears.push(ear),
        }
    }

    fn step(&mut self) {
        let seats = &self.seats;
        let send = |member: u64, frame: &crate::prompt::Frame| {
            if let Some((_, feed)) = seats.get(&member)
                && feed.waiting() < WAITING_MAX
            {
                feed.push(frame.clone());
            }
        };
        self.table.tick(send, |event| (self.sink)(event));
        if !self.ears.is_empty() {
            let whole = self.table.whole();
            self.ears
                .retain(|ear| !matches!(ear.try_send(whole), Err(TrySendError::Disconnected(_))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::{Going, Job, Mixer, Mixing, Table};
    use crate::test_peer::now;

    #[test]
    fn who_listens_gets_a_piece_every_step_until_the_room_is_gone() {
        let (orders, queue) = sync_channel(8);
        let mixer = Mixer { orders };
        let (table, seats) = (Table::new(), BTreeMap::new());
        let mut job = Mixing {
            orders: queue,
            sink: Arc::new(|_| ()),
            table,
            seats,
            ears: Vec::new(),
            due: None,
        };
        let mut ear = mixer.listen();
        assert!(ear.next().is_none() && !ear.is_over());
        let start = now();
        for ms in (0..100).step_by(5) {
            assert_eq!(job.beat(start + Duration::from_millis(ms)), Going::On);
        }
        let pieces = std::iter::from_fn(|| ear.next().map(<[i16]>::len)).collect::<Vec<_>>();
        assert_eq!(pieces, [320; 5]);
        // A thread that was held up for long does not make up for all of it.
        job.beat(start + Duration::from_secs(10));
        assert_eq!(std::iter::from_fn(|| ear.next().map(<[i16]>::len)).count(), 1);
        drop(mixer);
        assert_eq!(job.beat(start + Duration::from_secs(11)), Going::Over);
        drop(job);
        assert!(ear.next().is_none() && ear.is_over());
    }
}
