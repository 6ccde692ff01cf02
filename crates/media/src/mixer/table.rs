//! The audio of a room, 20 ms at a time: what its members say, what is played to them, and the
//! frame that each of them receives.
//!
//! No thread and no clock; `job` delivers and collects the frames. Audio is mono at 16 kHz, the
//! bandwidth of WhatsApp.

use std::collections::{BTreeMap, VecDeque};

use super::groups::{Encoders, SOUNDS_MAX, Sounds};
use super::loudness::{Floor, Loudness};
use super::{Audience, MixEvent, MixPart, Played, Says, sum};
use crate::opus::{Decoder, Encoder, Rate, silence_frame};
use crate::player::{PlayItem, Player, Step};
use crate::prompt::Frame;
use machine::PlayId;

const RATE: Rate = Rate::Hz16000;
const SAMPLES: usize = RATE.frame();
/// Capacity of a member's queue in frames. The leg's clock and the room's run at the same rate but
/// not in phase.
const WAITING_MAX: usize = 3;
/// Maximum number of playbacks at a time, all audiences together.
const PLAYED_MAX: usize = 32;

/// 20 ms of audio.
pub(super) type Twenty = [i16; SAMPLES];

/// See the module documentation.
pub(super) struct Table {
    seats: BTreeMap<u64, Seat>,
    voices: BTreeMap<u64, Loudness>,
    floor: Floor,
    holder: Option<u64>,
    played: Vec<Announcement>,
    encoders: Encoders,
    made: Vec<Encoder>,
    silence: Frame,
    /// The mix for one group.
    sum: [i32; SAMPLES],
    mixed: Vec<i16>,
}

#[derive(Default)]
struct Seat {
    part: MixPart,
    waiting: VecDeque<Twenty>,
    /// Its audio at this tick, while it is speaking.
    now: Option<Twenty>,
    spoke: bool,
}

struct Announcement {
    to: Audience,
    what: Played,
    player: Player,
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
    /// It is audible at this tick.
    heard: bool,
    /// Its start has been reported.
    begun: bool,
    over: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            seats: BTreeMap::new(),
            voices: BTreeMap::new(),
            floor: Floor::default(),
            holder: None,
            played: Vec::new(),
            encoders: Encoders::default(),
            made: Vec::new(),
            silence: silence_frame(),
            sum: [0; SAMPLES],
            mixed: Vec::with_capacity(SAMPLES),
        }
    }

    pub(super) fn sit(&mut self, member: u64) {
        self.seats.insert(member, Seat::default());
    }

    pub(super) fn leave(&mut self, member: u64) {
        self.seats.remove(&member);
        self.voices.remove(&member);
        self.encoders.forget(member);
        self.played.retain(|one| one.to != Audience::Member(member));
    }

    pub(super) fn part(&mut self, member: u64, part: MixPart) {
        if let Some(seat) = self.seats.get_mut(&member) {
            seat.part = part;
            if part.says == Says::Nobody {
                seat.waiting.clear();
            }
        }
    }

    /// Returns whether anybody can hear this member.
    pub(super) fn listens_to(&self, member: u64) -> bool {
        self.seats.get(&member).is_some_and(|seat| seat.part.says != Says::Nobody)
    }

    /// Queues the next 20 ms of a member. If the queue is full, the oldest frame is dropped.
    pub(super) fn said(&mut self, member: u64, pcm: &[i16]) {
        let Some(seat) = self.seats.get_mut(&member) else { return };
        if seat.waiting.len() == WAITING_MAX {
            seat.waiting.pop_front();
        }
        let mut twenty = [0; SAMPLES];
        twenty.iter_mut().zip(pcm).for_each(|(to, from)| *to = *from);
        seat.waiting.push_back(twenty);
    }

    /// Plays something after the playbacks of the same kind and audience.
    pub(super) fn play(&mut self, to: Audience, what: Played, items: Vec<PlayItem>) {
        if self.played.len() < PLAYED_MAX {
            let player = Player::new(PlayId(0), items);
            let pcm = Vec::with_capacity(SAMPLES);
            self.played.push(Announcement {
                to,
                what,
                player,
                decoder: None,
                pcm,
                heard: false,
                begun: false,
                over: false,
            });
        }
    }

    /// Stops the playbacks of a kind and audience, queued ones included.
    pub(super) fn stop(&mut self, to: Audience, what: Played) {
        for one in self.played.iter_mut().filter(|one| (one.to, one.what) == (to, what)) {
            one.over = true;
        }
    }

    /// Runs one tick and passes each member its frame.
    pub(super) fn tick(
        &mut self,
        mut send: impl FnMut(u64, &Frame),
        mut tell: impl FnMut(MixEvent),
    ) {
        self.hear(&mut tell);
        self.step_played(&mut tell);
        let heard_by: Vec<(u64, Sounds)> =
            self.seats.keys().map(|member| (*member, self.sounds_for(*member))).collect();
        for (member, _) in heard_by.iter().filter(|(_, sounds)| *sounds == 0) {
            send(*member, &self.silence);
        }
        for group in self.encoders.groups(heard_by.into_iter()) {
            self.add_up(group.sounds);
            while self.made.len() <= group.encoder {
                self.made.push(Encoder::for_prompts());
            }
            let Some(encoder) = self.made.get_mut(group.encoder) else { continue };
            if group.fresh {
                encoder.reset();
            }
            let frame = encoder.encode(&self.mixed);
            group.members.iter().for_each(|member| send(*member, &frame));
        }
    }

    /// Returns the last tick of the whole room: all members that are recorded, and what is played
    /// to all.
    pub(super) fn whole(&mut self) -> Twenty {
        let says = |seat: &Seat| {
            seat.now.is_some() && seat.part.says != Says::Nobody && seat.part.recorded
        };
        let plays = |one: &Announcement| one.heard && one.to == Audience::All;
        let all = self.seats.values().map(says).chain(self.played.iter().map(plays));
        let sounds = all
            .take(SOUNDS_MAX)
            .enumerate()
            .filter(|(_, is)| *is)
            .fold(0, |sounds, (at, _)| sounds | 1 << at);
        self.add_up(sounds);
        let mut twenty = [0; SAMPLES];
        twenty.iter_mut().zip(&self.mixed).for_each(|(to, from)| *to = *from);
        twenty
    }

    /// Takes the members' next frames and detects who is speaking.
    fn hear(&mut self, tell: &mut impl FnMut(MixEvent)) {
        for (member, seat) in &mut self.seats {
            let twenty = seat.waiting.pop_front().filter(|_| seat.part.says != Says::Nobody);
            let speaks = self
                .voices
                .entry(*member)
                .or_default()
                .hear(twenty.as_ref().map(<[i16; SAMPLES]>::as_slice));
            seat.now = twenty.filter(|_| speaks);
            if std::mem::replace(&mut seat.spoke, speaks) != speaks {
                tell(MixEvent::Speech { member: *member, on: speaks });
            }
        }
        if let Some(to) = self.floor.step(&self.voices) {
            let from = std::mem::replace(&mut self.holder, to);
            tell(MixEvent::Floor { from, to });
        }
    }

    /// Advances the playbacks.
    fn step_played(&mut self, tell: &mut impl FnMut(MixEvent)) {
        let mut begun: Vec<(Audience, Played)> = Vec::new();
        for one in &mut self.played {
            one.heard = false;
            // Stopped, or queued after another one.
            if one.over || begun.contains(&(one.to, one.what)) {
                continue;
            }
            begun.push((one.to, one.what));
            match one.player.step(|_| ()) {
                Step::Frame(frame) => {
                    let is_told = matches!(one.what, Played::Play | Played::Speak);
                    if is_told && !std::mem::replace(&mut one.begun, true) {
                        tell(MixEvent::Played { to: one.to, on: true });
                    }
                    one.pcm.clear();
                    let decoder = one.decoder.get_or_insert_with(|| Decoder::new(RATE));
                    one.heard = decoder.decode(Some(&frame), false, &mut one.pcm).is_ok();
                }
                Step::Silence => {}
                Step::Over => one.over = true,
            }
        }
        for one in self.played.iter().filter(|one| one.over && one.begun) {
            tell(MixEvent::Played { to: one.to, on: false });
        }
        self.played.retain(|one| !one.over);
    }

    /// The sounds that a member hears at this tick. Members are numbered first, then playbacks.
    fn sounds_for(&self, listener: u64) -> Sounds {
        let Some(own) = self.seats.get(&listener).map(|seat| seat.part) else { return 0 };
        let says = |(member, seat): (&u64, &Seat)| {
            own.hears && *member != listener && seat.now.is_some() && is_for(seat.part.says, own)
        };
        let plays = |one: &Announcement| {
            one.heard
                && match one.to {
                    // Cues are only for those who take part. Announcements to all are for everyone.
                    Audience::All => own.hears || one.what != Played::Cue,
                    Audience::Member(member) => member == listener,
                }
        };
        let all = self.seats.iter().map(says).chain(self.played.iter().map(plays));
        all.take(SOUNDS_MAX)
            .enumerate()
            .filter(|(_, is)| *is)
            .fold(0, |sounds, (at, _)| sounds | 1 << at)
    }

    /// Mixes these sounds.
    fn add_up(&mut self, sounds: Sounds) {
        self.sum.fill(0);
        let voices =
            self.seats.values().map(|seat| seat.now.as_ref().map(<[i16; SAMPLES]>::as_slice));
        let all = voices.chain(self.played.iter().map(|one| Some(one.pcm.as_slice())));
        for (at, pcm) in all.take(SOUNDS_MAX).enumerate() {
            if sounds & 1 << at != 0
                && let Some(pcm) = pcm
            {
                sum::add(&mut self.sum, pcm);
            }
        }
        sum::finish(&self.sum, &mut self.mixed);
    }
}

fn is_for(says: Says, listener: MixPart) -> bool {
    match says {
        Says::Nobody => false,
        Says::ToAll => true,
        Says::ToAgents => listener.agent,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::prompt::Prompt;
    use xml::ast::Repeat;

    const ALL: MixPart = MixPart { says: Says::ToAll, hears: true, agent: false, recorded: true };

    fn tone(hz: f64, at: usize) -> Twenty {
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

    /// Members who say one tone each, and what they hear.
    struct Room {
        table: Table,
        hz: BTreeMap<u64, f64>,
        ears: BTreeMap<u64, (Decoder, Vec<i16>)>,
        at: usize,
        frames: BTreeMap<u64, Frame>,
        told: Vec<MixEvent>,
    }

    impl Room {
        fn of(members: &[(u64, f64, MixPart)]) -> Self {
            let mut room = Self {
                table: Table::new(),
                hz: BTreeMap::new(),
                ears: BTreeMap::new(),
                at: 0,
                frames: BTreeMap::new(),
                told: Vec::new(),
            };
            for (member, hz, part) in members {
                room.table.sit(*member);
                room.table.part(*member, *part);
                room.hz.insert(*member, *hz);
                room.ears.insert(*member, (Decoder::new(RATE), Vec::new()));
            }
            room
        }

        fn run(&mut self, ticks: usize) {
            self.ears.values_mut().for_each(|(_, pcm)| pcm.clear());
            for _ in 0..ticks {
                for (member, hz) in self.hz.iter().filter(|(_, hz)| **hz > 0.0) {
                    self.table.said(*member, &tone(*hz, self.at));
                }
                self.at += 1;
                let (frames, told) = (&mut self.frames, &mut self.told);
                self.table.tick(
                    |member, frame| drop(frames.insert(member, frame.clone())),
                    |event| told.push(event),
                );
                for (member, (decoder, pcm)) in &mut self.ears {
                    let frame = self.frames.get(member).expect("everybody gets a frame");
                    decoder.decode(Some(frame), false, pcm).expect("a frame of ours");
                }
            }
        }

        /// Returns for each tone whether the member hears it.
        fn hears<const N: usize>(&self, member: u64, tones: [f64; N]) -> [bool; N] {
            let pcm = &self.ears[&member].1;
            let late = &pcm[pcm.len() / 2..];
            tones.map(|hz| level(late, hz) > 0.08)
        }
    }

    const TONES: [f64; 3] = [500.0, 900.0, 1_500.0];

    #[test]
    fn each_hears_the_others_and_not_the_own_voice() {
        let mut room = Room::of(&[
            (1, 500.0, ALL),
            (2, 900.0, ALL),
            (3, 1_500.0, ALL),
            (4, 0.0, ALL),
            (5, 0.0, ALL),
        ]);
        room.run(50);
        assert_eq!(room.hears(1, TONES), [false, true, true]);
        assert_eq!(room.hears(2, TONES), [true, false, true]);
        assert_eq!(room.hears(3, TONES), [true, true, false]);
        assert_eq!((room.hears(4, TONES), room.hears(5, TONES)), ([true; 3], [true; 3]));
        assert!(Arc::ptr_eq(&room.frames[&4], &room.frames[&5]), "who only listens shares a frame");
        assert_eq!(room.table.made.len(), 4, "three who speak, and all others");
    }

    #[test]
    fn silence_is_one_frame_for_all_and_costs_no_encoder() {
        let mut room = Room::of(&[(1, 0.0, ALL), (2, 0.0, ALL)]);
        room.run(5);
        assert!(room.table.made.is_empty() && Arc::ptr_eq(&room.frames[&1], &room.frames[&2]));
        room.hz.insert(1, 500.0);
        room.run(50);
        assert_eq!(room.table.made.len(), 1, "nobody hears who speaks but the others");
        assert_eq!(room.told[..1], [MixEvent::Speech { member: 1, on: true }]);
        assert!(room.told.contains(&MixEvent::Floor { from: None, to: Some(1) }));
    }

    #[test]
    fn who_is_muted_is_not_heard_who_is_deaf_hears_nothing_and_a_coach_is_heard_by_agents() {
        let agent = MixPart { agent: true, ..ALL };
        let coach = MixPart { says: Says::ToAgents, ..ALL };
        let mut room = Room::of(&[(1, 500.0, agent), (2, 900.0, ALL), (3, 1_500.0, coach)]);
        room.run(50);
        assert_eq!(room.hears(1, TONES), [false, true, true]);
        assert_eq!(room.hears(2, TONES), [true, false, false]);
        room.table.part(2, MixPart { says: Says::Nobody, ..ALL });
        room.table.part(3, MixPart { hears: false, ..coach });
        assert!(room.table.listens_to(3) && !room.table.listens_to(2) && !room.table.listens_to(9));
        room.run(50);
        assert_eq!(room.hears(1, TONES), [false, false, true]);
        assert_eq!(room.hears(3, TONES), [false; 3]);
    }

    #[test]
    fn the_whole_room_is_everybody_who_speaks_to_all() {
        for recorded in [false, true] {
            let coach = MixPart { says: Says::ToAgents, recorded, ..ALL };
            let mut room = Room::of(&[(1, 500.0, ALL), (2, 900.0, ALL), (3, 1_500.0, coach)]);
            let mut whole = Vec::new();
            for _ in 0..20 {
                room.run(1);
                whole.extend(room.table.whole());
            }
            assert_eq!(
                TONES.map(|hz| level(&whole, hz) > 0.08),
                [true, true, recorded],
                "a coach only where that is wanted"
            );
        }
        assert_eq!(Table::new().whole(), [0; SAMPLES]);
    }

    fn prompt(hz: f64, frames: usize) -> PlayItem {
        let mut encoder = Encoder::for_prompts();
        let frames: Vec<Frame> = (0..frames).map(|at| encoder.encode(&tone(hz, at))).collect();
        PlayItem { prompt: Prompt::of(frames), repeat: Repeat::Times(1) }
    }

    #[test]
    fn what_is_played_is_heard_over_the_voices_by_those_it_is_for_one_after_the_other() {
        let mut room =
            Room::of(&[(1, 500.0, ALL), (2, 0.0, ALL), (3, 0.0, MixPart { hears: false, ..ALL })]);
        room.table.play(Audience::All, Played::Play, vec![prompt(900.0, 50)]);
        room.table.play(Audience::All, Played::Play, vec![prompt(1_500.0, 50)]);
        room.table.play(Audience::Member(3), Played::Speak, vec![prompt(1_500.0, 30)]);
        room.run(30);
        assert_eq!(room.hears(1, TONES), [false, true, false]);
        assert_eq!(room.hears(2, TONES), [true, true, false]);
        assert_eq!(
            room.hears(3, TONES),
            [false, true, true],
            "it is told something, and hears nobody"
        );
        room.run(30);
        room.run(30);
        assert_eq!(room.hears(2, TONES), [true, false, true], "the second after the first");
        assert_eq!(
            room.hears(3, TONES),
            [false, false, true],
            "what is for all is for those who wait, too"
        );
        room.table.stop(Audience::All, Played::Play);
        room.table.play(Audience::All, Played::Cue, vec![prompt(900.0, 50)]);
        room.run(30);
        assert_eq!(
            (room.hears(2, TONES), room.hears(3, TONES)),
            ([true, true, false], [false; 3]),
            "who comes and goes"
        );
        room.run(30);
        room.table.stop(Audience::All, Played::Play);
        room.run(30);
        assert_eq!(room.hears(2, TONES), [true, false, false]);
        room.table.leave(1);
        room.ears.remove(&1);
        room.run(30);
        assert_eq!(room.hears(2, TONES), [false; 3]);
        let played = |to, on| MixEvent::Played { to, on };
        let told: Vec<MixEvent> = room
            .told
            .into_iter()
            .filter(|event| matches!(event, MixEvent::Played { .. }))
            .collect();
        let (all, one) = (Audience::All, Audience::Member(3));
        let twice = [played(all, true), played(one, true), played(one, false), played(all, false)];
        assert_eq!(
            told,
            [&twice[..], &[played(all, true), played(all, false)]].concat(),
            "cues are nobody's business"
        );
    }
}
