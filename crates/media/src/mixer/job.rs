//! A room's job on the media workers: reads the members' taps and fills their feeds every 20 ms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Instant;

use super::room_mix::{PcmFrame, RoomMix};
use super::{Audience, MemberAudio, MixEvent, SoundKind};
use crate::opus::Rate;
use crate::pace::Pace;
use crate::player::PlayItem;
use crate::workers::{Job, JobStatus, Workers};
use crate::{Buffering, CableEnd, Feed, TapReader};

/// Number of frames that a member's feed buffers before audio starts, and again after an underrun.
const PREBUFFER_FRAMES: usize = 2;
/// Maximum number of frames that wait in a feed. Further frames are dropped, because they would add
/// delay.
const QUEUED_FRAMES_MAX: usize = 6;
/// Maximum number of frames that wait for a listener to the room: two seconds.
const LISTENER_QUEUE_MAX: usize = 100;
/// Capacity of a room's command queue.
const COMMANDS_MAX: usize = 512;

/// Receives the events of a room. It is called on a worker thread and must not block.
pub type MixSink = Arc<dyn Fn(MixEvent) + Send + Sync>;

/// Handle to a room's mixing job. Dropping it ends the room's audio.
#[derive(Debug)]
pub struct Mixer {
    commands: SyncSender<Command>,
}

#[derive(Debug)]
enum Command {
    Add(u64, Box<(TapReader, Feed)>),
    Remove(u64),
    SetMember(u64, MemberAudio),
    Play(Audience, SoundKind, Vec<PlayItem>),
    Stop(Audience, SoundKind),
    Listen(SyncSender<PcmFrame>),
}

/// The audio of a whole room for recordings, 20 ms at a time, mono at 16 kHz. Dropping it ends the
/// copy.
#[derive(Debug)]
pub struct RoomAudio {
    from: Receiver<PcmFrame>,
    frame: PcmFrame,
    over: bool,
}

impl RoomAudio {
    /// Returns the next 20 ms. `None` if none are available yet or the room has ended
    /// ([`RoomAudio::is_over`]).
    #[expect(clippy::should_implement_trait, reason = "the frame borrows from the reader")]
    pub fn next(&mut self) -> Option<&[i16]> {
        match self.from.try_recv() {
            Ok(frame) => {
                self.frame = frame;
                Some(&self.frame)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }

    /// Returns whether the room has ended and all of its audio has been returned.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Mixer {
    /// Starts a room without members.
    pub fn start(workers: &Workers, sink: MixSink) -> Self {
        let (commands, queue) = sync_channel(COMMANDS_MAX);
        // If no worker accepts the job, the room is silent.
        let _ = workers.add(Box::new(MixJob {
            commands: queue,
            sink,
            room_mix: RoomMix::new(),
            members: BTreeMap::new(),
            listeners: Vec::new(),
            pace: Pace::default(),
        }));
        Self { commands }
    }

    /// Creates a room without audio.
    pub fn silent() -> Self {
        Self { commands: sync_channel(1).0 }
    }

    /// Adds a member that sends and receives audio through `end`. It neither hears nor is heard
    /// before [`Mixer::set_member`] is called.
    pub fn add(&self, member: u64, end: CableEnd) {
        let line = TapReader::new(end.tap, Rate::Hz16000, Buffering::Jitter);
        self.command(Command::Add(member, Box::new((line, end.feed))));
    }

    /// Number of frames that the feed of a member should buffer.
    pub const PREBUFFER_FRAMES: usize = PREBUFFER_FRAMES;

    /// Removes a member.
    pub fn remove(&self, member: u64) {
        self.command(Command::Remove(member));
    }

    /// Sets the audio that a member contributes and hears. Initially it does neither.
    pub fn set_member(&self, member: u64, audio: MemberAudio) {
        self.command(Command::SetMember(member, audio));
    }

    /// Plays sounds after the playbacks of the same kind and audience.
    pub fn play(&self, to: Audience, what: SoundKind, items: Vec<PlayItem>) {
        self.command(Command::Play(to, what, items));
    }

    /// Stops the playbacks of a kind and audience, queued ones included.
    pub fn stop(&self, to: Audience, what: SoundKind) {
        self.command(Command::Stop(to, what));
    }

    /// Returns the audio of the whole room from now on. A reader that is too slow loses the newest
    /// frames.
    pub fn listen(&self) -> RoomAudio {
        let (to, from) = sync_channel(LISTENER_QUEUE_MAX);
        self.command(Command::Listen(to));
        RoomAudio { from, frame: [0; Rate::Hz16000.frame()], over: false }
    }

    /// Queues a command. If the queue is full the command is dropped, because callers must not
    /// block.
    fn command(&self, command: Command) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(command) {
            tracing::error!("too many commands for the audio of a room; one was dropped");
        }
    }
}

struct MixJob {
    commands: Receiver<Command>,
    sink: MixSink,
    room_mix: RoomMix,
    members: BTreeMap<u64, (TapReader, Feed)>,
    listeners: Vec<SyncSender<PcmFrame>>,
    pace: Pace,
}

impl Job for MixJob {
    fn run(&mut self, now: Instant) -> JobStatus {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.execute(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return JobStatus::Done,
            }
        }
        for (member, (line, _)) in &mut self.members {
            if !self.room_mix.has_listeners(*member) {
                line.skip();
                continue;
            }
            while let Some(frame) = line.next() {
                self.room_mix.push_audio(*member, frame.received);
            }
        }
        for _ in 0..self.pace.steps(now) {
            self.step();
        }
        JobStatus::Running
    }
}

impl MixJob {
    fn execute(&mut self, command: Command) {
        match command {
            Command::Add(member, leg) => {
                self.room_mix.add_member(member);
                self.members.insert(member, *leg);
            }
            Command::Remove(member) => {
                self.room_mix.remove_member(member);
                self.members.remove(&member);
            }
            Command::SetMember(member, audio) => self.room_mix.set_member(member, audio),
            Command::Play(to, what, items) => self.room_mix.play(to, what, items),
            Command::Stop(to, what) => self.room_mix.stop(to, what),
            Command::Listen(listener) => self.listeners.push(listener),
        }
    }

    fn step(&mut self) {
        let members = &self.members;
        let send = |member: u64, packet: &crate::prompt::Frame| {
            if let Some((_, feed)) = members.get(&member)
                && feed.waiting() < QUEUED_FRAMES_MAX
            {
                feed.push(packet.clone());
            }
        };
        self.room_mix.tick(send, |event| (self.sink)(event));
        if !self.listeners.is_empty() {
            let room_frame = self.room_mix.room_frame();
            self.listeners.retain(|listener| {
                !matches!(listener.try_send(room_frame), Err(TrySendError::Disconnected(_)))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::{Job, JobStatus, MixJob, Mixer, Pace, RoomMix};
    use crate::test_peer::now;

    #[test]
    fn listeners_get_a_frame_per_step_until_the_room_ends() {
        let (commands, queue) = sync_channel(8);
        let mixer = Mixer { commands };
        let (room_mix, members) = (RoomMix::new(), BTreeMap::new());
        let mut job = MixJob {
            commands: queue,
            sink: Arc::new(|_| ()),
            room_mix,
            members,
            listeners: Vec::new(),
            pace: Pace::default(),
        };
        let mut reader = mixer.listen();
        assert!(reader.next().is_none() && !reader.is_over());
        let start = now();
        for ms in (0..100).step_by(5) {
            assert_eq!(job.run(start + Duration::from_millis(ms)), JobStatus::Running);
        }
        let frames = std::iter::from_fn(|| reader.next().map(<[i16]>::len)).collect::<Vec<_>>();
        assert_eq!(frames, [320; 5]);
        // A thread that was suspended for long does not catch up completely.
        job.run(start + Duration::from_secs(10));
        assert_eq!(std::iter::from_fn(|| reader.next().map(<[i16]>::len)).count(), 1);
        drop(mixer);
        assert_eq!(job.run(start + Duration::from_secs(11)), JobStatus::Done);
        drop(job);
        assert!(reader.next().is_none() && reader.is_over());
    }
}
