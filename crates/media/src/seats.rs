//! Transports the audio of room members with legs at another node of a fleet.
//!
//! The node of a leg forwards its Opus packets unchanged, and receives the packets that the room's
//! mixer has encoded for it. Both nodes run the same job: every 20 ms it collects the packets of
//! all its seats, which are sent in one write. Nothing is decoded on the way.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

use super::cable::CableEnd;
use super::feed::{FeedEnd, feed};
use super::jitter_buffer::InboundPacket;
use super::pace::Pace;
use super::prompt::Frame;
use super::tap::{TapEnd, TapEntry, TapSides, tap};
use super::workers::{Job, JobStatus, Workers};

/// Maximum number of frames that wait in the feed of a leg. Further frames are dropped, because
/// they would add delay.
const QUEUED_FRAMES_MAX: usize = 6;
/// Maximum number of packets of a seat in one step. A peer usually sends one or two.
const PACKETS_MAX: usize = 6;
/// Capacity of the queue of seats that are added and removed.
const COMMANDS_MAX: usize = 4_096;
/// Capacity of the queue of received batches of packets.
const RECEIVED_MAX: usize = 16;

/// An Opus packet to or from a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatPacket {
    pub seat: u32,
    /// SSRC of the RTP packet that the leg received. In packets to the leg, this field and the next
    /// two are 0.
    pub ssrc: u32,
    /// Extended sequence number, which does not wrap.
    pub sequence: u64,
    pub timestamp: u32,
    pub payload: Frame,
}

/// The local end of a seat.
#[derive(Debug)]
pub enum SeatEnd {
    /// The leg, or another object with a tap and a feed, at the node of the leg.
    Leg(CableEnd),
    /// The other end of a member of the mixer, at the node of the room.
    Room(PortEnd),
}

/// The end of a port that receives packets from another node and returns packets for that node.
#[derive(Debug)]
pub struct PortEnd {
    to: TapEnd,
    from: FeedEnd,
}

/// Creates a port, which is a member of a mixer with a leg at another node. The first end belongs
/// to the mixer.
pub fn port() -> (CableEnd, PortEnd) {
    let ((feed, from), (to, tap)) = (feed(1), tap(TapSides::Received));
    (CableEnd { tap, feed }, PortEnd { to, from })
}

/// Sends the packets that all seats have queued during 20 ms. Called on a worker thread; must not
/// block.
pub type SeatSink = Box<dyn FnMut(Vec<SeatPacket>) + Send>;

/// Handle to the audio of all seats of a connection. Dropping it ends the job.
#[derive(Debug)]
pub struct SeatAudio {
    commands: SyncSender<Command>,
    received: SyncSender<Vec<SeatPacket>>,
}

#[derive(Debug)]
enum Command {
    Add(u32, Box<SeatEnd>),
    Remove(u32),
}

impl SeatAudio {
    /// Starts the job. If no worker accepts it, the seats are silent.
    pub fn start(workers: &Workers, sink: SeatSink) -> Self {
        let ((commands, queue), (received, packets)) =
            (sync_channel(COMMANDS_MAX), sync_channel(RECEIVED_MAX));
        let seats = BTreeMap::new();
        let _ = workers.add(Box::new(SeatJob {
            commands: queue,
            packets,
            sink,
            seats,
            pace: Pace::default(),
        }));
        Self { commands, received }
    }

    /// Connects a seat. Replaces an earlier seat with this number.
    pub fn add(&self, seat: u32, end: SeatEnd) {
        let _ = self.commands.try_send(Command::Add(seat, Box::new(end)));
    }

    /// Disconnects a seat.
    pub fn remove(&self, seat: u32) {
        let _ = self.commands.try_send(Command::Remove(seat));
    }

    /// Queues packets that the other node has sent. They are dropped if the queue is full.
    pub fn receive(&self, packets: Vec<SeatPacket>) {
        let _ = self.received.try_send(packets);
    }
}

struct SeatJob {
    commands: Receiver<Command>,
    packets: Receiver<Vec<SeatPacket>>,
    sink: SeatSink,
    seats: BTreeMap<u32, SeatEnd>,
    pace: Pace,
}

impl Job for SeatJob {
    fn run(&mut self, now: Instant) -> JobStatus {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(seat, end)) => drop(self.seats.insert(seat, *end)),
                Ok(Command::Remove(seat)) => drop(self.seats.remove(&seat)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return JobStatus::Done,
            }
        }
        while let Ok(packets) = self.packets.try_recv() {
            packets.into_iter().for_each(|packet| self.deliver(packet));
        }
        for _ in 0..self.pace.steps(now) {
            self.step();
        }
        JobStatus::Running
    }
}

impl SeatJob {
    /// Forwards a packet from the other node to its seat.
    fn deliver(&mut self, packet: SeatPacket) {
        let SeatPacket { seat, ssrc, sequence, timestamp, payload } = packet;
        match self.seats.get(&seat) {
            Some(SeatEnd::Leg(leg)) if leg.feed.waiting() < QUEUED_FRAMES_MAX => {
                leg.feed.push(payload);
            }
            Some(SeatEnd::Room(port)) => {
                let packet = InboundPacket { ssrc, sequence, timestamp, payload };
                port.to.push(&TapEntry::Received(packet));
            }
            // Too many frames are waiting, or the call has left.
            Some(SeatEnd::Leg(_)) | None => {}
        }
    }

    /// Sends what the seats have queued during the last 20 ms.
    fn step(&mut self) {
        let mut packets = Vec::new();
        for (&seat, end) in &mut self.seats {
            match end {
                SeatEnd::Leg(leg) => {
                    let entries = std::iter::from_fn(|| leg.tap.next());
                    let received = entries.filter_map(|entry| match entry {
                        TapEntry::Received(packet) => Some(packet),
                        TapEntry::Sent(_) | TapEntry::Tick | TapEntry::Gap(_) => None,
                    });
                    packets.extend(received.take(PACKETS_MAX).map(|packet| {
                        let InboundPacket { ssrc, sequence, timestamp, payload } = packet;
                        SeatPacket { seat, ssrc, sequence, timestamp, payload }
                    }));
                }
                SeatEnd::Room(port) => {
                    for _ in 0..PACKETS_MAX {
                        if !port.from.has_queued() {
                            break;
                        }
                        let (Some(payload), _) = port.from.next() else { break };
                        let (ssrc, sequence, timestamp) = (0, 0, 0);
                        packets.push(SeatPacket { seat, ssrc, sequence, timestamp, payload });
                    }
                    port.to.push(&TapEntry::Tick);
                }
            }
        }
        if !packets.is_empty() {
            (self.sink)(packets);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::opus::{Encoder, Rate};
    use crate::pace::STEP;
    use crate::test_peer::now;
    use crate::{Buffering, TapReader};

    /// A job that no worker runs, and the packets that it sends.
    fn unscheduled() -> (SeatAudio, SeatJob, Arc<Mutex<Vec<SeatPacket>>>) {
        let ((commands, queue), (received, packets)) = (sync_channel(8), sync_channel(8));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let to = sent.clone();
        let sink: SeatSink = Box::new(move |packets| to.lock().unwrap().extend(packets));
        let seats = BTreeMap::new();
        let job = SeatJob { commands: queue, packets, sink, seats, pace: Pace::default() };
        (SeatAudio { commands, received }, job, sent)
    }

    #[test]
    fn f31_packets_of_a_leg_reach_a_port_as_they_came_and_mixed_frames_come_back() {
        // The leg's side: packets appear at its tap, and its feed is played.
        let (leg_tap, tap) = tap(TapSides::Received);
        let (feed, mut played) = feed(1);
        let (guest, mut guest_job, to_host) = unscheduled();
        guest.add(7, SeatEnd::Leg(CableEnd { tap, feed }));
        let (host, mut host_job, to_guest) = unscheduled();
        let (member, end) = port();
        host.add(7, SeatEnd::Room(end));
        let mut reader = TapReader::new(member.tap, Rate::Hz16000, Buffering::Jitter);
        let (mut encoder, start) = (Encoder::for_prompts(), now());
        let mut audible = 0;
        for n in 0..20_u32 {
            let at = start + STEP * n;
            let payload = encoder.encode(&[900; Rate::Hz16000.frame()]);
            let packet = InboundPacket { ssrc: 5, sequence: n.into(), timestamp: n * 960, payload };
            assert!(leg_tap.push(&TapEntry::Received(packet.clone())));
            leg_tap.push(&TapEntry::Tick);
            assert_eq!(guest_job.run(at), JobStatus::Running);
            let sent = std::mem::take(&mut *to_host.lock().unwrap());
            let InboundPacket { ssrc, sequence, timestamp, payload } = packet;
            assert_eq!(sent, [SeatPacket { seat: 7, ssrc, sequence, timestamp, payload }]);
            host.receive(sent);
            let mixed = Frame::from([n as u8].as_slice());
            assert!(member.feed.push(mixed.clone()));
            host_job.run(at);
            let frames = std::mem::take(&mut *to_guest.lock().unwrap());
            assert_eq!(frames.iter().map(|frame| &frame.payload).collect::<Vec<_>>(), [&mixed]);
            guest.receive(frames);
            guest_job.run(at);
            assert_eq!(played.next().0, Some(mixed));
            while let Some(frame) = reader.next() {
                audible += usize::from(frame.has_audio);
            }
        }
        // The jitter buffer holds some back.
        assert!(audible >= 15, "{audible}");
        // A seat that has left gets nothing.
        guest.remove(7);
        guest_job.run(start + STEP * 30);
        assert!(!leg_tap.push(&TapEntry::Tick));
        drop(guest);
        assert_eq!(guest_job.run(start + STEP * 31), JobStatus::Done);
    }

    #[test]
    fn a_leg_that_gets_frames_too_fast_loses_the_newest() {
        let (_leg_tap, tap) = tap(TapSides::Received);
        let (feed, _played) = feed(1);
        let (guest, mut job, _) = unscheduled();
        guest.add(1, SeatEnd::Leg(CableEnd { tap, feed }));
        let packet = |n: u8| SeatPacket {
            seat: 1,
            ssrc: 0,
            sequence: 0,
            timestamp: 0,
            payload: Frame::from([n].as_slice()),
        };
        guest.receive((0..40).map(packet).collect());
        // For a seat that does not exist.
        guest.receive(vec![SeatPacket { seat: 2, ..packet(0) }]);
        job.run(now());
        let Some(SeatEnd::Leg(leg)) = job.seats.get(&1) else { panic!() };
        assert_eq!(leg.feed.waiting(), QUEUED_FRAMES_MAX);
    }
}
