//! A B-leg once it was picked up: it has no document of its own. It waits for its A-leg's word, confirms that somebody is
//! there, sends its keys, and is brought together with the A-leg (`plivo-xml.md` §5.7).
//!
//! Who was called into a multi-party call confirms it in the same way, without an A-leg: its document follows then.

use std::sync::Arc;

use super::activity::{Activity, Gate, Progress, Stop, Turn};
use super::desk::Desk;
use super::element::add_participant;
use super::keys::Key;
use super::params::{COMPLETED, Event};
use super::picture::{Sketch, word};
use super::sounds;
use super::timers::Timer;
use crate::contract::{
    Confirm, FetchFailure, FetchId, Fetched, LegNews, LegWish, MediaOrder, Output, PlayId,
    SoundItem,
};
use model::HangupCause;
use xml::Document;
use xml::ast::Target;

/// See the module's note.
pub(super) struct Callee {
    confirm: Option<Confirm>,
    digits: Option<String>,
    tells_keys: bool,
    /// What it runs once it is confirmed, where nobody dialled it.
    document: Option<Arc<Document>>,
    phase: Phase,
}

enum Phase {
    /// The A-leg knows, and has not said yet that this leg was the first.
    Told,
    /// The confirm sound's document.
    Fetching(FetchId),
    /// To be played as soon as it can be heard.
    Sound(Vec<SoundItem>),
    Sounding(PlayId),
    /// The sound is over, the key is waited for.
    Key,
    /// To be sent as soon as they can be heard.
    Digits(String),
    Sending(PlayId),
    /// Nothing is missing but the path.
    Confirmed,
    /// The A-leg knows.
    Ready,
    Joined,
}

impl Callee {
    /// Of a B-leg that has just been picked up.
    pub(super) fn begin(desk: &mut Desk) -> Self {
        let placed = desk.setup.outbound.clone().unwrap_or_default();
        let dialled = placed.dialled;
        desk.news(LegNews::Answered);
        Self {
            confirm: dialled.as_ref().and_then(|dialled| dialled.confirm.clone()),
            digits: placed.send_digits.clone(),
            tells_keys: dialled.is_some_and(|dialled| dialled.tells_keys),
            document: None,
            phase: Phase::Told,
        }
    }

    /// Of a call that has just been picked up and confirms that somebody is there before it runs a document.
    pub(super) fn confirming(
        desk: &mut Desk,
        gate: Gate,
        confirm: Confirm,
        document: Arc<Document>,
    ) -> Self {
        let digits = desk.setup.outbound.as_ref().and_then(|placed| placed.send_digits.clone());
        let mut callee = Self {
            confirm: Some(confirm),
            digits,
            tells_keys: false,
            document: Some(document),
            phase: Phase::Told,
        };
        callee.ordered(desk, gate, &LegWish::Proceed);
        callee
    }

    /// The A-leg wants something.
    fn ordered(&mut self, desk: &mut Desk, gate: Gate, wish: &LegWish) {
        match (wish, &self.phase) {
            (LegWish::Proceed, Phase::Told) => {
                match self.confirm.as_ref().map(|confirm| (&confirm.sound, confirm.method)) {
                    Some((Some(url), method)) => {
                        let target = Target { url: url.clone(), method };
                        self.phase = Phase::Fetching(sounds::fetch_sounds_at(
                            desk,
                            target,
                            Event::DialConfirm,
                        ));
                    }
                    Some((None, _)) => self.await_key(desk, gate),
                    None => self.send_digits(desk, gate),
                }
            }
            (LegWish::Join, Phase::Ready) => {
                desk.media(MediaOrder::Join);
                self.phase = Phase::Joined;
            }
            // Said twice, or too late.
            (
                LegWish::Proceed | LegWish::Join | LegWish::HangUp { .. } | LegWish::Ask { .. },
                _,
            ) => {}
        }
    }

    /// The path may have come up.
    fn resume(&mut self, desk: &mut Desk, gate: Gate) {
        if gate != Gate::Open {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Confirmed) {
            Phase::Sound(items) => self.phase = Phase::Sounding(desk.play(items)),
            Phase::Digits(digits) => {
                let play = desk.next_play();
                desk.media(MediaOrder::SendDigits { play, digits });
                self.phase = Phase::Sending(play);
            }
            Phase::Confirmed => {
                self.phase = Phase::Ready;
                desk.news(LegNews::Ready);
            }
            other => self.phase = other,
        }
    }

    /// The confirm sound's document came, or not: then it is as if there was none (`plivo-callbacks.md` §4.3).
    fn sound_fetched(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) {
        if !matches!(self.phase, Phase::Fetching(open) if open == fetch) {
            return;
        }
        desk.timers.clear(Timer::Fetch);
        let items = sounds::sounds_fetched(desk, self.sound_name(), result);
        if items.is_empty() && self.document.is_some() {
            // Its key counts by itself.
            return self.await_key(desk, gate);
        }
        if items.is_empty() {
            self.confirm = None;
            return self.send_digits(desk, gate);
        }
        self.phase = Phase::Sound(items);
        self.resume(desk, gate);
    }

    /// Nothing more is to be heard: the key is waited for, where there is one.
    fn await_key(&mut self, desk: &mut Desk, gate: Gate) {
        match self.confirm.as_ref().filter(|confirm| confirm.key.is_some()) {
            Some(confirm) => {
                desk.set(Timer::Confirm, confirm.timeout_ms);
                self.phase = Phase::Key;
            }
            None => self.send_digits(desk, gate),
        }
    }

    /// What the sound is called where it was asked for.
    fn sound_name(&self) -> &'static str {
        if self.document.is_some() { "confirm_key_sound_url" } else { "confirmSound" }
    }

    fn send_digits(&mut self, desk: &mut Desk, gate: Gate) {
        self.phase = match self.digits.take() {
            Some(digits) => Phase::Digits(digits),
            None => Phase::Confirmed,
        };
        self.resume(desk, gate);
    }
    /// Its document runs once it is confirmed.
    fn progress(&mut self) -> Progress {
        let document = match self.phase {
            Phase::Ready => self.document.take(),
            Phase::Told
            | Phase::Fetching(_)
            | Phase::Sound(_)
            | Phase::Sounding(_)
            | Phase::Key
            | Phase::Digits(_)
            | Phase::Sending(_)
            | Phase::Confirmed
            | Phase::Joined => None,
        };
        document.map_or(Progress::Pending, Progress::Run)
    }
}

impl Activity for Callee {
    fn fetched(
        &mut self,
        turn: &mut Turn<'_>,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) -> Progress {
        self.sound_fetched(turn.desk, turn.gate, fetch, result);
        self.progress()
    }

    fn played(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        if matches!(self.phase, Phase::Sounding(sounding) if sounding == play) {
            self.await_key(turn.desk, turn.gate);
        }
        self.progress()
    }

    fn play_failed(&mut self, turn: &mut Turn<'_>, play: PlayId, item: u16, reason: &str) {
        if matches!(self.phase, Phase::Sounding(sounding) if sounding == play) {
            let what = self.sound_name();
            turn.desk.remark(format!(
                "item {} of {what} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, turn: &mut Turn<'_>, key: Key) -> Progress {
        let wanted = self.confirm.as_ref().and_then(|confirm| confirm.key) == Some(key.digit);
        match self.phase {
            Phase::Sounding(play) if wanted => {
                turn.desk.media(MediaOrder::Stop { play });
                self.send_digits(turn.desk, turn.gate);
            }
            Phase::Key if wanted => {
                turn.desk.timers.clear(Timer::Confirm);
                self.send_digits(turn.desk, turn.gate);
            }
            Phase::Joined if self.tells_keys => turn.desk.news(LegNews::Key { digit: key.digit }),
            Phase::Told
            | Phase::Fetching(_)
            | Phase::Sound(_)
            | Phase::Sounding(_)
            | Phase::Key
            | Phase::Digits(_)
            | Phase::Sending(_)
            | Phase::Confirmed
            | Phase::Ready
            | Phase::Joined => {}
        }
        self.progress()
    }

    fn digits_sent(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        if matches!(self.phase, Phase::Sending(sending) if sending == play) {
            self.phase = Phase::Confirmed;
            self.resume(turn.desk, turn.gate);
        }
        self.progress()
    }

    fn leg_command(&mut self, turn: &mut Turn<'_>, command: &LegWish) -> Progress {
        self.ordered(turn.desk, turn.gate, command);
        Progress::Pending
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        match (timer, &self.phase) {
            (Timer::Fetch, Phase::Fetching(fetch)) => {
                let fetch = *fetch;
                turn.desk.wish(Output::CancelFetch { fetch });
                self.fetched(turn, fetch, Err(FetchFailure::Timeout))
            }
            (Timer::Fetch, _) => self.progress(),
            (Timer::Confirm, _) => {
                let key = if self.document.is_some() { "confirm_key" } else { "confirmKey" };
                turn.desk.remark(format!("nobody pressed {key} in time: the leg is hung up"));
                Progress::HangUp(HangupCause::ConfirmFailed)
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn gate_changed(&mut self, turn: &mut Turn<'_>) -> Progress {
        self.resume(turn.desk, turn.gate);
        self.progress()
    }

    /// The leg ends, or gets a document of its own and goes on as a call of its own.
    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        let desk = &mut *turn.desk;
        desk.timers.clear(Timer::Confirm);
        if self.document.is_some() {
            // It was answered, or nothing would be confirmed.
            add_participant::report_failed(desk, (why == Stop::CallEnds).then_some(COMPLETED));
        }
        match self.phase {
            Phase::Fetching(fetch) => desk.cancel_fetch(fetch),
            Phase::Sounding(play) | Phase::Sending(play) => desk.media(MediaOrder::Stop { play }),
            Phase::Joined => desk.media(MediaOrder::Part),
            Phase::Told
            | Phase::Sound(_)
            | Phase::Key
            | Phase::Digits(_)
            | Phase::Confirmed
            | Phase::Ready => {}
        }
        match why {
            Stop::Replaced => desk.news(LegNews::Ended { cause: HangupCause::ApiHangup }),
            Stop::CallEnds => {}
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        let waits = match self.phase {
            Phase::Told => "a_legs_word",
            Phase::Fetching(_) => "confirm_sound",
            Phase::Sound(_) | Phase::Digits(_) | Phase::Confirmed => "media_path",
            Phase::Sounding(_) | Phase::Key => "confirm_key",
            Phase::Sending(_) => "tones",
            Phase::Ready => "a_leg_to_join",
            Phase::Joined => "legs_to_part",
        };
        sketch.say("waits_for", [word(waits)]);
    }
}
