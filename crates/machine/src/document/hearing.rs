//! What the instruction under way hears of sounds and keys, and what its end leads to (`plivo-xml.md` §4, §5.4).

use super::super::element::{self, Collected, Running};
use super::super::params::{self, Event};
use super::{Desk, Gate, Script, Step};
use crate::contract::display::foreign;
use crate::contract::{FetchKind, InstructionOutcome, Params, PlayId, RecognitionId, Voice};
use model::Digit;
use xml::ast::Target;

impl Script {
    pub(super) fn played(&mut self, desk: &mut Desk, gate: Gate, ended: PlayId) -> Step {
        match &mut self.running {
            Running::Playing { play, failed } if *play == ended => {
                let failed = std::mem::take(failed);
                match failed {
                    None => self.done(desk, gate),
                    Some(why) => {
                        self.end_place(desk, InstructionOutcome::Failed, &why);
                        self.walk(desk, gate)
                    }
                }
            }
            Running::Collecting(collection) => {
                let flow = collection.played(desk, &mut self.keys, ended);
                self.collected(desk, gate, flow)
            }
            Running::Recording(recording) => {
                recording.played(desk, ended);
                Step::Busy
            }
            Running::Dialing(dialing) => {
                dialing.played(desk, gate, ended);
                Step::Busy
            }
            Running::Attending(attending) => {
                attending.played(desk, gate, ended);
                Step::Busy
            }
            Running::Called(callee) => {
                callee.played(desk, gate, ended);
                self.called_on(desk, gate)
            }
            _ => Step::Busy,
        }
    }

    pub(super) fn play_failed(
        &mut self,
        desk: &mut Desk,
        which: PlayId,
        item: u16,
        reason: &str,
    ) -> Step {
        let reason = foreign(reason);
        if let Running::Called(callee) = &self.running
            && callee.is_playing(which)
        {
            let what = callee.sound_name();
            desk.remark(format!(
                "item {} of {what} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
        let Some(place) = self.place else { return Step::Busy };
        match &mut self.running {
            Running::Dialing(dialing) if dialing.is_playing(which) => {
                desk.remark(format!(
                    "item {} of dialMusic could not be played: {reason}; it is skipped",
                    item + 1
                ));
            }
            Running::Attending(attending) if attending.is_playing(which) => {
                desk.remark(format!(
                    "item {} of the music of {place} could not be played: {reason}; it is skipped",
                    item + 1
                ));
            }
            Running::Playing { play, failed } if *play == which => {
                desk.remark(format!("{place} could not be played: {reason}; it is skipped"));
                *failed = Some(reason);
            }
            Running::Collecting(collection) if collection.is_playing(which) => {
                desk.remark(format!(
                    "prompt {} of {place} could not be played: {reason}; it is skipped",
                    item + 1
                ));
            }
            _ => {}
        }
        Step::Busy
    }

    pub(super) fn digit(&mut self, desk: &mut Desk, gate: Gate, digit: Digit) -> Step {
        // Read from the wire, but they mean nothing to a document (§4.1).
        if digit.is_letter() {
            return Step::Busy;
        }
        let hidden = self.hides_keys();
        match &mut self.running {
            Running::Collecting(collection) => {
                let flow = collection.pressed(desk, &mut self.keys, digit, hidden);
                self.collected(desk, gate, flow)
            }
            Running::Dialing(dialing) => {
                let (taken, dialled) = dialing.pressed(desk, digit);
                if !taken {
                    self.keys.push(digit, hidden);
                }
                self.dialled(desk, gate, dialled)
            }
            Running::Attending(attending) => {
                let (taken, attended) = attending.pressed(desk, digit);
                if !taken {
                    self.keys.push(digit, hidden);
                }
                self.attended(desk, gate, attended)
            }
            Running::Recording(recording) => {
                if !recording.pressed(desk, digit) {
                    self.keys.push(digit, hidden);
                }
                Step::Busy
            }
            Running::Called(callee) => {
                callee.pressed(desk, gate, digit);
                self.called_on(desk, gate)
            }
            _ => {
                self.keys.push(digit, hidden);
                Step::Busy
            }
        }
    }

    pub(super) fn voice(&mut self, desk: &mut Desk, gate: Gate, what: Voice) -> Step {
        match &mut self.running {
            Running::Waiting { early: Some(early) } if early.heard(desk, what) => {
                early.stop(desk);
                self.end_place(desk, InstructionOutcome::Done, "beep");
                return self.walk(desk, gate);
            }
            Running::Collecting(collection) => collection.voice(desk, what),
            _ => {}
        }
        Step::Busy
    }

    pub(super) fn digits_sent(&mut self, desk: &mut Desk, gate: Gate, sent: PlayId) -> Step {
        if self.tones == Some(sent) {
            self.tones = None;
        }
        match &mut self.running {
            Running::SendingDigits { play } if *play == sent => self.done(desk, gate),
            Running::Called(callee) => {
                callee.digits_sent(desk, gate, sent);
                self.called_on(desk, gate)
            }
            _ => Step::Busy,
        }
    }

    pub(super) fn collected(&mut self, desk: &mut Desk, gate: Gate, collected: Collected) -> Step {
        match collected {
            Collected::More => Step::Busy,
            ended => {
                let step = self.end_collection(desk, ended);
                self.go_on(desk, gate, step)
            }
        }
    }

    /// A collection has ended: `None` where the next element follows.
    pub(super) fn end_collection(&mut self, desk: &mut Desk, collected: Collected) -> Option<Step> {
        let entered = match collected {
            Collected::More => return None,
            Collected::NoInput => None,
            Collected::Input(entered) => Some(entered),
        };
        let Running::Collecting(collection) =
            std::mem::replace(&mut self.running, Running::Nothing)
        else {
            return None;
        };
        self.keys.clear();
        self.after_hidden = collection.hides_keys();
        self.end_place(
            desk,
            InstructionOutcome::Done,
            if entered.is_some() { "input" } else { "no input" },
        );
        let (action, extra) = collection.action(entered?)?;
        self.acted(desk, Some((action.target, action.redirect, extra)))
    }

    /// An element is over that may have an action, which is told `extra`. With `redirect` its document runs next; `None`
    /// where the next element does.
    pub(super) fn acted(
        &mut self,
        desk: &mut Desk,
        action: Option<(Target, bool, Params)>,
    ) -> Option<Step> {
        let (target, redirect, extra) = action?;
        if redirect {
            return Some(self.transfer(desk, FetchKind::Action, target, extra));
        }
        let mut params = params::common(desk, Event::Redirect);
        params.extend(extra);
        desk.notify_action(target, params);
        None
    }

    /// What an element's end led to, or else the next element.
    pub(super) fn go_on(&mut self, desk: &mut Desk, gate: Gate, step: Option<Step>) -> Step {
        match step {
            Some(step) => step,
            None => self.walk(desk, gate),
        }
    }

    // --- what the event log may hold ---

    /// Whether a key pressed now must not be written down (`log="false"`): it would be taken by such a
    /// collection, or follows what one has taken.
    pub(crate) fn hides_keys(&self) -> bool {
        match &self.running {
            Running::Collecting(collection) => collection.hides_keys(),
            Running::Dialing(dialing) if dialing.takes_keys() => false,
            Running::Attending(attending) if attending.takes_keys() => false,
            Running::Fetching { .. } => self.after_hidden,
            _ => self.after_hidden || self.next_collector().is_some_and(|rules| rules.hidden),
        }
    }

    /// Whether what that recognition hears must not be written down; `None`: nobody waits for it.
    pub(crate) fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        match &self.running {
            Running::Collecting(collection) if collection.recognises(recognition) => {
                Some(collection.hides_keys())
            }
            _ => None,
        }
    }

    /// A key that leads to the same decisions and says nothing about the one pressed.
    pub(crate) fn stand_in(&self, digit: Digit) -> Digit {
        match &self.running {
            Running::Collecting(collection) => collection.rules().stand_in(digit),
            Running::Fetching { .. } => element::Rules::taking_all().stand_in(digit),
            // Which key ended it, the application is told.
            Running::Recording(recording) if recording.ends_by(digit) => digit,
            Running::Recording(recording) => {
                let rules = self.next_collector().unwrap_or_else(element::Rules::taking_all);
                let stands_for = |other: &Digit| {
                    !recording.ends_by(*other) && rules.stand_in(*other) == rules.stand_in(digit)
                };
                (0..12).filter_map(Digit::from_event).find(stands_for).unwrap_or(digit)
            }
            _ => self.next_collector().unwrap_or_else(element::Rules::taking_all).stand_in(digit),
        }
    }

    /// The rules of the collection that will take the keys pressed now.
    pub(super) fn next_collector(&self) -> Option<element::Rules> {
        let document = self.document.as_deref()?;
        document
            .elements
            .iter()
            .skip(self.next)
            .find_map(|element| element::rules_of(&element.kind))
    }
}
