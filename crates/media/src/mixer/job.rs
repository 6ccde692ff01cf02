//! A room's job on the media workers: reads the members' taps and fills their feeds every 20 ms.

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

/// Duration of a step.
const STEP: Duration = Duration::from_millis(20);
/// If the job is later than this, the missed steps are skipped.
const LATE_MAX: Duration = Duration::from_millis(200);
/// Frames that a member's feed buffers before audio starts, and again after an underrun.
const LEAD: usize = 2;
/// Frames that may wait in a feed. Further frames are dropped, because waiting frames are delay.
const WAITING_MAX: usize = 6;
/// Frames that may wait for a listener to the room: two seconds.
const HEARD_MAX: usize = 100;
/// Capacity of a room's command queue.
const ORDERS_MAX: usize = 512;

/// Receives the events of a room. It is called on a worker thread and must not block.
pub type MixSink = Arc<dyn Fn(MixEvent) + Send + Sync>;

/// Handle to a room's mixing job. Dropping it ends the room's audio.
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

/// The audio of a whole room, 20 ms at a time, mono at 16 kHz, for recordings. Dropping it ends it.
#[derive(Debug)]
pub struct RoomSound {
    from: Receiver<Twenty>,
    piece: Twenty,
    over: bool,
}

impl RoomSound {
    /// Returns the next 20 ms, or `None` if there is nothing yet or ever again
    /// ([`RoomAudio::is_over`]).
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

    /// Returns whether the room is gone and all of its audio has been returned.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Mixer {
    /// Starts a room without members.
    pub fn start(workers: &Workers, sink: MixSink) -> Self {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        // If no worker accepts the job, the room is silent.
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

    /// Creates a room in which nothing is heard.
    pub fn silent() -> Self {
        Self { orders: sync_channel(1).0 }
    }

    /// Adds a member with a leg. It is heard and hears as soon as [`Mixer::set_member`] says so.
    pub fn add(&self, member: u64, leg: &LegHandle) {
        let line = Line::new(leg.tap(Sides::Heard), Rate::Hz16000, Patience::Network);
        self.order(Order::Add(member, Box::new((line, leg.room_feed(LEAD)))));
    }

    /// Adds a member at the end of a cable.
    pub fn add_end(&self, member: u64, end: CableEnd) {
        let line = Line::new(end.tap, Rate::Hz16000, Patience::Network);
        self.order(Order::Add(member, Box::new((line, end.feed))));
    }

    /// Frames that a cable's feed should buffer, as a leg's feed does.
    pub const LEAD: usize = LEAD;

    /// Removes a member.
    pub fn remove(&self, member: u64) {
        self.order(Order::Remove(member));
    }

    /// Sets what a member contributes and hears. Initially nothing.
    pub fn part(&self, member: u64, part: MixPart) {
        self.order(Order::Part(member, part));
    }

    /// Plays something after the playbacks of the same kind and audience.
    pub fn play(&self, to: Audience, what: Played, items: Vec<PlayItem>) {
        self.order(Order::Play(to, what, items));
    }

    /// Stops the playbacks of a kind and audience, queued ones included.
    pub fn stop(&self, to: Audience, what: Played) {
        self.order(Order::Stop(to, what));
    }

    /// Returns the audio of the whole room from now on. A reader that is too slow loses the newest
    /// frames.
    pub fn listen(&self) -> RoomSound {
        let (to, from) = sync_channel(HEARD_MAX);
        self.order(Order::Listen(to));
        RoomSound { from, piece: [0; Rate::Hz16000.frame()], over: false }
    }

    /// Queues a command. If the queue is full the command is dropped, because callers must not
    /// block.
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
    /// Time of the next step.
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
        // A thread that was suspended for long does not catch up completely.
        job.beat(start + Duration::from_secs(10));
        assert_eq!(std::iter::from_fn(|| ear.next().map(<[i16]>::len)).count(), 1);
        drop(mixer);
        assert_eq!(job.beat(start + Duration::from_secs(11)), Going::Over);
        drop(job);
        assert!(ear.next().is_none() && ear.is_over());
    }
}
