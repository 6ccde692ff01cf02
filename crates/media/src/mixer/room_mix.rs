//! The audio of a room, 20 ms at a time: the members' audio, playbacks, and the frame for each
//! member.
//!
//! The module has no thread and no clock. `job` delivers and collects the frames. Audio is mono at
//! 16 kHz, the bandwidth of WhatsApp.

use std::collections::{BTreeMap, VecDeque};

use super::groups::{EncoderAssignment, SOUNDS_MAX, SoundSet};
use super::speech_level::{Floor, SpeechLevel};
use super::{Audience, Listeners, MemberAudio, MixEvent, SoundKind, sum};
use crate::opus::{Decoder, Encoder, Rate, silence_frame};
use crate::player::{PlayItem, Player, Step};
use crate::prompt::Frame;
use machine::PlayId;

const RATE: Rate = Rate::Hz16000;
const SAMPLES: usize = RATE.frame();
/// Capacity of a member's queue in frames. The leg's clock and the room's run at the same rate but
/// not in phase.
const QUEUED_FRAMES_MAX: usize = 3;
/// Maximum number of playbacks at a time, all audiences together.
const PLAYBACKS_MAX: usize = 32;

/// 20 ms of audio.
pub(super) type PcmFrame = [i16; SAMPLES];

/// The audio of a room. See the [module documentation](self).
pub(super) struct RoomMix {
    members: BTreeMap<u64, Member>,
    voices: BTreeMap<u64, SpeechLevel>,
    floor: Floor,
    holder: Option<u64>,
    playbacks: Vec<Playback>,
    encoders: EncoderAssignment,
    encoder_pool: Vec<Encoder>,
    silence: Frame,
    /// The mix for one group.
    sum: [i32; SAMPLES],
    mixed: Vec<i16>,
}

#[derive(Default)]
struct Member {
    part: MemberAudio,
    waiting: VecDeque<PcmFrame>,
    /// The member's audio at this tick. `None` while it is not speaking.
    now: Option<PcmFrame>,
    spoke: bool,
}

struct Playback {
    to: Audience,
    what: SoundKind,
    player: Player,
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
    /// Whether the playback is audible at this tick.
    audible: bool,
    /// Whether the start of the playback has been reported.
    started: bool,
    over: bool,
}

impl RoomMix {
    pub(super) fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            voices: BTreeMap::new(),
            floor: Floor::default(),
            holder: None,
            playbacks: Vec::new(),
            encoders: EncoderAssignment::default(),
            encoder_pool: Vec::new(),
            silence: silence_frame(),
            sum: [0; SAMPLES],
            mixed: Vec::with_capacity(SAMPLES),
        }
    }

    pub(super) fn add_member(&mut self, member: u64) {
        self.members.insert(member, Member::default());
    }

    pub(super) fn remove_member(&mut self, member: u64) {
        self.members.remove(&member);
        self.voices.remove(&member);
        self.encoders.remove(member);
        self.playbacks.retain(|one| one.to != Audience::Member(member));
    }

    pub(super) fn set_member(&mut self, member: u64, part: MemberAudio) {
        if let Some(member_state) = self.members.get_mut(&member) {
            member_state.part = part;
            if part.listeners == Listeners::Nobody {
                member_state.waiting.clear();
            }
        }
    }

    /// Returns whether this member is audible to others.
    pub(super) fn has_listeners(&self, member: u64) -> bool {
        self.members
            .get(&member)
            .is_some_and(|member_state| member_state.part.listeners != Listeners::Nobody)
    }

    /// Queues the next 20 ms of a member. If the queue is full, the oldest frame is dropped.
    pub(super) fn push_audio(&mut self, member: u64, pcm: &[i16]) {
        let Some(member_state) = self.members.get_mut(&member) else { return };
        if member_state.waiting.len() == QUEUED_FRAMES_MAX {
            member_state.waiting.pop_front();
        }
        let mut frame = [0; SAMPLES];
        frame.iter_mut().zip(pcm).for_each(|(to, from)| *to = *from);
        member_state.waiting.push_back(frame);
    }

    /// Plays sounds after the playbacks of the same kind and audience.
    pub(super) fn play(&mut self, to: Audience, what: SoundKind, items: Vec<PlayItem>) {
        if self.playbacks.len() < PLAYBACKS_MAX {
            let player = Player::new(PlayId(0), items);
            let pcm = Vec::with_capacity(SAMPLES);
            self.playbacks.push(Playback {
                to,
                what,
                player,
                decoder: None,
                pcm,
                audible: false,
                started: false,
                over: false,
            });
        }
    }

    /// Stops the playbacks of a kind and audience, queued ones included.
    pub(super) fn stop(&mut self, to: Audience, what: SoundKind) {
        for one in self.playbacks.iter_mut().filter(|one| (one.to, one.what) == (to, what)) {
            one.over = true;
        }
    }

    /// Runs one tick and passes each member its frame.
    pub(super) fn tick(
        &mut self,
        mut send: impl FnMut(u64, &Frame),
        mut report: impl FnMut(MixEvent),
    ) {
        self.collect_audio(&mut report);
        self.step_playbacks(&mut report);
        let sound_sets: Vec<(u64, SoundSet)> =
            self.members.keys().map(|member| (*member, self.sounds_for(*member))).collect();
        for (member, _) in sound_sets.iter().filter(|(_, sounds)| *sounds == 0) {
            send(*member, &self.silence);
        }
        for group in self.encoders.groups(sound_sets.into_iter()) {
            self.mix(group.sounds);
            while self.encoder_pool.len() <= group.encoder {
                self.encoder_pool.push(Encoder::for_prompts());
            }
            let Some(encoder) = self.encoder_pool.get_mut(group.encoder) else { continue };
            if group.fresh {
                encoder.reset();
            }
            let packet = encoder.encode(&self.mixed);
            group.members.iter().for_each(|member| send(*member, &packet));
        }
    }

    /// Returns the audio of the whole room at the last tick: all recorded members, and the
    /// playbacks to all.
    pub(super) fn room_frame(&mut self) -> PcmFrame {
        let is_audible = |member_state: &Member| {
            member_state.now.is_some()
                && member_state.part.listeners != Listeners::Nobody
                && member_state.part.recorded
        };
        let is_played = |one: &Playback| one.audible && one.to == Audience::All;
        let all = self.members.values().map(is_audible).chain(self.playbacks.iter().map(is_played));
        let sounds = all
            .take(SOUNDS_MAX)
            .enumerate()
            .filter(|(_, is)| *is)
            .fold(0, |sounds, (at, _)| sounds | 1 << at);
        self.mix(sounds);
        let mut frame = [0; SAMPLES];
        frame.iter_mut().zip(&self.mixed).for_each(|(to, from)| *to = *from);
        frame
    }

    /// Takes the next frame of each member and detects speech.
    fn collect_audio(&mut self, report: &mut impl FnMut(MixEvent)) {
        for (member, member_state) in &mut self.members {
            let frame = member_state
                .waiting
                .pop_front()
                .filter(|_| member_state.part.listeners != Listeners::Nobody);
            let speaks = self
                .voices
                .entry(*member)
                .or_default()
                .push(frame.as_ref().map(<[i16; SAMPLES]>::as_slice));
            member_state.now = frame.filter(|_| speaks);
            if std::mem::replace(&mut member_state.spoke, speaks) != speaks {
                report(MixEvent::Speech { member: *member, on: speaks });
            }
        }
        if let Some(to) = self.floor.update(&self.voices) {
            let from = std::mem::replace(&mut self.holder, to);
            report(MixEvent::Floor { from, to });
        }
    }

    /// Advances the playbacks.
    fn step_playbacks(&mut self, report: &mut impl FnMut(MixEvent)) {
        let mut started: Vec<(Audience, SoundKind)> = Vec::new();
        for one in &mut self.playbacks {
            one.audible = false;
            // The playback has been stopped or is queued after another one.
            if one.over || started.contains(&(one.to, one.what)) {
                continue;
            }
            started.push((one.to, one.what));
            match one.player.step(|_| ()) {
                Step::Frame(frame) => {
                    let is_reported = matches!(one.what, SoundKind::Play | SoundKind::Speak);
                    if is_reported && !std::mem::replace(&mut one.started, true) {
                        report(MixEvent::Playback { to: one.to, on: true });
                    }
                    one.pcm.clear();
                    let decoder = one.decoder.get_or_insert_with(|| Decoder::new(RATE));
                    one.audible = decoder.decode(Some(&frame), false, &mut one.pcm).is_ok();
                }
                Step::Silence => {}
                Step::Over => one.over = true,
            }
        }
        for one in self.playbacks.iter().filter(|one| one.over && one.started) {
            report(MixEvent::Playback { to: one.to, on: false });
        }
        self.playbacks.retain(|one| !one.over);
    }

    /// Returns the sounds that a member hears at this tick. Members are numbered first, then
    /// playbacks.
    fn sounds_for(&self, listener: u64) -> SoundSet {
        let Some(listener_audio) =
            self.members.get(&listener).map(|member_state| member_state.part)
        else {
            return 0;
        };
        let is_audible = |(member, member_state): (&u64, &Member)| {
            listener_audio.hears_room
                && *member != listener
                && member_state.now.is_some()
                && can_hear(member_state.part.listeners, listener_audio)
        };
        let is_played = |one: &Playback| {
            one.audible
                && match one.to {
                    // Cues are only for members who take part. Announcements to all are for every
                    // member.
                    Audience::All => listener_audio.hears_room || one.what != SoundKind::Cue,
                    Audience::Member(member) => member == listener,
                }
        };
        let all = self.members.iter().map(is_audible).chain(self.playbacks.iter().map(is_played));
        all.take(SOUNDS_MAX)
            .enumerate()
            .filter(|(_, is)| *is)
            .fold(0, |sounds, (at, _)| sounds | 1 << at)
    }

    /// Mixes the sounds of a set into `sum`.
    fn mix(&mut self, sounds: SoundSet) {
        self.sum.fill(0);
        let audio = self
            .members
            .values()
            .map(|member_state| member_state.now.as_ref().map(<[i16; SAMPLES]>::as_slice));
        let all = audio.chain(self.playbacks.iter().map(|one| Some(one.pcm.as_slice())));
        for (at, pcm) in all.take(SOUNDS_MAX).enumerate() {
            if sounds & 1 << at != 0
                && let Some(pcm) = pcm
            {
                sum::add(&mut self.sum, pcm);
            }
        }
        sum::to_samples(&self.sum, &mut self.mixed);
    }
}

fn can_hear(listeners: Listeners, listener: MemberAudio) -> bool {
    match listeners {
        Listeners::Nobody => false,
        Listeners::Everyone => true,
        Listeners::Agents => listener.agent,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::prompt::Prompt;
    use xml::ast::Repeat;

    const ALL: MemberAudio = MemberAudio {
        listeners: Listeners::Everyone,
        hears_room: true,
        agent: false,
        recorded: true,
    };

    fn tone(hz: f64, at: usize) -> PcmFrame {
        let step = hz * std::f64::consts::TAU / 16_000.0;
        std::array::from_fn(|n| (((at * SAMPLES + n) as f64 * step).sin() * 6_000.0) as i16)
    }

    /// Strength of a tone relative to full scale.
    fn level(pcm: &[i16], hz: f64) -> f64 {
        let step = hz * std::f64::consts::TAU / 16_000.0;
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            let (at, sample) = (step * n as f64, f64::from(*sample) / 32_768.0);
            (re, im) = (re + sample * at.cos(), im + sample * at.sin());
        }
        (re * re + im * im).sqrt() * 2.0 / pcm.len().max(1) as f64
    }

    /// Members with one tone each, and the audio that they receive.
    struct Room {
        table: RoomMix,
        hz: BTreeMap<u64, f64>,
        listeners: BTreeMap<u64, (Decoder, Vec<i16>)>,
        at: usize,
        frames: BTreeMap<u64, Frame>,
        events: Vec<MixEvent>,
    }

    impl Room {
        fn of(members: &[(u64, f64, MemberAudio)]) -> Self {
            let mut room = Self {
                table: RoomMix::new(),
                hz: BTreeMap::new(),
                listeners: BTreeMap::new(),
                at: 0,
                frames: BTreeMap::new(),
                events: Vec::new(),
            };
            for (member, hz, part) in members {
                room.table.add_member(*member);
                room.table.set_member(*member, *part);
                room.hz.insert(*member, *hz);
                room.listeners.insert(*member, (Decoder::new(RATE), Vec::new()));
            }
            room
        }

        fn run(&mut self, ticks: usize) {
            self.listeners.values_mut().for_each(|(_, pcm)| pcm.clear());
            for _ in 0..ticks {
                for (member, hz) in self.hz.iter().filter(|(_, hz)| **hz > 0.0) {
                    self.table.push_audio(*member, &tone(*hz, self.at));
                }
                self.at += 1;
                let (frames, events) = (&mut self.frames, &mut self.events);
                self.table.tick(
                    |member, frame| drop(frames.insert(member, frame.clone())),
                    |event| events.push(event),
                );
                for (member, (decoder, pcm)) in &mut self.listeners {
                    let frame = self.frames.get(member).expect("a frame per member");
                    decoder.decode(Some(frame), false, pcm).expect("a valid frame");
                }
            }
        }

        /// Returns for each tone whether the member hears it.
        fn hears_tones<const N: usize>(&self, member: u64, tones: [f64; N]) -> [bool; N] {
            let pcm = &self.listeners[&member].1;
            let late = &pcm[pcm.len() / 2..];
            tones.map(|hz| level(late, hz) > 0.08)
        }
    }

    const TONES: [f64; 3] = [500.0, 900.0, 1_500.0];

    #[test]
    fn members_hear_the_others_but_not_themselves() {
        let mut room = Room::of(&[
            (1, 500.0, ALL),
            (2, 900.0, ALL),
            (3, 1_500.0, ALL),
            (4, 0.0, ALL),
            (5, 0.0, ALL),
        ]);
        room.run(50);
        assert_eq!(room.hears_tones(1, TONES), [false, true, true]);
        assert_eq!(room.hears_tones(2, TONES), [true, false, true]);
        assert_eq!(room.hears_tones(3, TONES), [true, true, false]);
        assert_eq!(
            (room.hears_tones(4, TONES), room.hears_tones(5, TONES)),
            ([true; 3], [true; 3])
        );
        assert!(Arc::ptr_eq(&room.frames[&4], &room.frames[&5]), "listeners share a frame");
        assert_eq!(room.table.encoder_pool.len(), 4, "one per speaker and one for the listeners");
    }

    #[test]
    fn silence_shares_a_frame_and_needs_no_encoder() {
        let mut room = Room::of(&[(1, 0.0, ALL), (2, 0.0, ALL)]);
        room.run(5);
        assert!(
            room.table.encoder_pool.is_empty() && Arc::ptr_eq(&room.frames[&1], &room.frames[&2])
        );
        room.hz.insert(1, 500.0);
        room.run(50);
        assert_eq!(room.table.encoder_pool.len(), 1, "one encoder for the listeners");
        assert_eq!(room.events[..1], [MixEvent::Speech { member: 1, on: true }]);
        assert!(room.events.contains(&MixEvent::Floor { from: None, to: Some(1) }));
    }

    #[test]
    fn muted_deaf_and_coaching_members() {
        let agent = MemberAudio { agent: true, ..ALL };
        let coach = MemberAudio { listeners: Listeners::Agents, ..ALL };
        let mut room = Room::of(&[(1, 500.0, agent), (2, 900.0, ALL), (3, 1_500.0, coach)]);
        room.run(50);
        assert_eq!(room.hears_tones(1, TONES), [false, true, true]);
        assert_eq!(room.hears_tones(2, TONES), [true, false, false]);
        room.table.set_member(2, MemberAudio { listeners: Listeners::Nobody, ..ALL });
        room.table.set_member(3, MemberAudio { hears_room: false, ..coach });
        assert!(
            room.table.has_listeners(3)
                && !room.table.has_listeners(2)
                && !room.table.has_listeners(9)
        );
        room.run(50);
        assert_eq!(room.hears_tones(1, TONES), [false, false, true]);
        assert_eq!(room.hears_tones(3, TONES), [false; 3]);
    }

    #[test]
    fn room_audio_contains_the_recorded_members() {
        for recorded in [false, true] {
            let coach = MemberAudio { listeners: Listeners::Agents, recorded, ..ALL };
            let mut room = Room::of(&[(1, 500.0, ALL), (2, 900.0, ALL), (3, 1_500.0, coach)]);
            let mut room_frame = Vec::new();
            for _ in 0..20 {
                room.run(1);
                room_frame.extend(room.table.room_frame());
            }
            assert_eq!(
                TONES.map(|hz| level(&room_frame, hz) > 0.08),
                [true, true, recorded],
                "a coach only if recorded"
            );
        }
        assert_eq!(RoomMix::new().room_frame(), [0; SAMPLES]);
    }

    fn prompt(hz: f64, frames: usize) -> PlayItem {
        let mut encoder = Encoder::for_prompts();
        let frames: Vec<Frame> = (0..frames).map(|at| encoder.encode(&tone(hz, at))).collect();
        PlayItem { prompt: Prompt::from_frames(frames), repeat: Repeat::Times(1) }
    }

    #[test]
    fn playbacks_are_queued_and_mixed_for_their_audience() {
        let mut room = Room::of(&[
            (1, 500.0, ALL),
            (2, 0.0, ALL),
            (3, 0.0, MemberAudio { hears_room: false, ..ALL }),
        ]);
        room.table.play(Audience::All, SoundKind::Play, vec![prompt(900.0, 50)]);
        room.table.play(Audience::All, SoundKind::Play, vec![prompt(1_500.0, 50)]);
        room.table.play(Audience::Member(3), SoundKind::Speak, vec![prompt(1_500.0, 30)]);
        room.run(30);
        assert_eq!(room.hears_tones(1, TONES), [false, true, false]);
        assert_eq!(room.hears_tones(2, TONES), [true, true, false]);
        assert_eq!(
            room.hears_tones(3, TONES),
            [false, true, true],
            "hears playbacks but no members"
        );
        room.run(30);
        room.run(30);
        assert_eq!(room.hears_tones(2, TONES), [true, false, true], "the queued playback");
        assert_eq!(
            room.hears_tones(3, TONES),
            [false, false, true],
            "playbacks to all reach waiting members"
        );
        room.table.stop(Audience::All, SoundKind::Play);
        room.table.play(Audience::All, SoundKind::Cue, vec![prompt(900.0, 50)]);
        room.run(30);
        assert_eq!(
            (room.hears_tones(2, TONES), room.hears_tones(3, TONES)),
            ([true, true, false], [false; 3]),
            "cues only reach those who take part"
        );
        room.run(30);
        room.table.stop(Audience::All, SoundKind::Play);
        room.run(30);
        assert_eq!(room.hears_tones(2, TONES), [true, false, false]);
        room.table.remove_member(1);
        room.listeners.remove(&1);
        room.run(30);
        assert_eq!(room.hears_tones(2, TONES), [false; 3]);
        let playback = |to, on| MixEvent::Playback { to, on };
        let events: Vec<MixEvent> = room
            .events
            .into_iter()
            .filter(|event| matches!(event, MixEvent::Playback { .. }))
            .collect();
        let (all, one) = (Audience::All, Audience::Member(3));
        let twice =
            [playback(all, true), playback(one, true), playback(one, false), playback(all, false)];
        assert_eq!(
            events,
            [&twice[..], &[playback(all, true), playback(all, false)]].concat(),
            "cues are not reported"
        );
    }
}
