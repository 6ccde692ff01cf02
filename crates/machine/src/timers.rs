//! What a call waits for besides facts: one name a timer, one table.
//!
//! A timer is a moment, not a thread: the shell asks `Machine::poll_timeout` for the earliest and comes back
//! with `Input::Timer` then. Setting one again moves it.

use crate::contract::CallTime;

/// What fires, and why then. Declared in the order in which those of one moment fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// `media.accept_wait_ms` after `pre_accept` was sent: `accept` no longer waits for ICE and DTLS.
    AcceptWait,
    /// T_accept: pick up now if a document is in, else reject (`meta-calling.md` §7.1).
    Accept,
    /// `ring_timeout`, or T_ring: the user has not picked up.
    Ring,
    /// `hangup_on_ring` after RINGING.
    RingLimit,
    /// The user is heard and ACCEPTED has not come: its webhook was lost (`meta-calling.md` §7.2).
    Heard,
    /// The wait for `accept`'s outcome, once the call is known to be over, is itself over.
    AcceptOutcome,
    /// T_media: ICE and DTLS are not up in time after `accept`'s 200.
    MediaSetup,
    /// The peer closed its DTLS a moment ago and no terminate webhook has explained it.
    PathClosed,
    /// `max_call_seconds` from the answer.
    MaxCall,
    /// `<Hangup schedule>`.
    ScheduledHangup,
    /// A fetch has outlived its own deadline by a second: whoever fetches it has forgotten us.
    Fetch,
    /// `<Wait>` is over.
    Wait,
    /// It has been quiet for `minSilence` of a `<Wait silence="true">`.
    Silence,
    /// Clock D of a collection: too long since the last digit (`plivo-xml.md` §5.5).
    InterDigit,
    /// Clock X: the collection has lasted long enough.
    Execution,
    /// Clock S: no input has begun.
    StartInput,
    /// `speechEndTimeout`: it has been quiet for long enough since somebody spoke.
    SpeechEnd,
    /// A recogniser was asked what was said, and has not answered.
    Transcript,
    /// The next interim result may be sent: five a second (L36).
    Interim,
    /// A recorder has said nothing long after a `Record` must have ended: it has forgotten us.
    Record,
    /// `timeout` of a `Dial`: nobody has answered.
    DialRing,
    /// `timeLimit` of a `Dial`.
    DialLimit,
    /// `timeLimit` of a `Conference`.
    RoomLimit,
    /// `waitTime` of a `MultiPartyCall`: it has not begun.
    RoomWait,
    /// `streamTimeout`, from the stream's beginning.
    StreamLimit,
    /// `confirmTimeout`: the key has not been pressed.
    Confirm,
    /// Five seconds after `terminate` succeeded, no webhook having come.
    Close,
    /// `terminate` failed for good: ask once more, as the reaper does.
    TerminateAgain,
    /// A minute after `connect` ended without an outcome: no webhook has named the call.
    Doubt,
    /// T_reap: whatever we were still waiting for from Meta, we are not any more.
    Reap,
}

impl Timer {
    /// Its name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcceptWait => "accept_wait",
            Self::Accept => "accept_deadline",
            Self::Ring => "ring",
            Self::RingLimit => "ring_limit",
            Self::Heard => "heard",
            Self::AcceptOutcome => "accept_outcome",
            Self::MediaSetup => "media_setup",
            Self::PathClosed => "path_closed",
            Self::MaxCall => "max_call",
            Self::ScheduledHangup => "scheduled_hangup",
            Self::Fetch => "fetch",
            Self::Wait => "wait",
            Self::Silence => "silence",
            Self::InterDigit => "inter_digit",
            Self::Execution => "execution",
            Self::StartInput => "start_input",
            Self::SpeechEnd => "speech_end",
            Self::Transcript => "transcript",
            Self::Interim => "interim",
            Self::Record => "record",
            Self::DialRing => "dial_ring",
            Self::DialLimit => "dial_limit",
            Self::RoomLimit => "room_limit",
            Self::RoomWait => "room_wait",
            Self::StreamLimit => "stream_limit",
            Self::Confirm => "confirm",
            Self::Close => "close",
            Self::TerminateAgain => "terminate_again",
            Self::Doubt => "doubt",
            Self::Reap => "reap",
        }
    }
}

/// The moments that are set.
#[derive(Debug, Default)]
pub(super) struct Timers(Vec<(CallTime, Timer)>);

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: CallTime) {
        self.clear(timer);
        self.0.push((at, timer));
    }

    /// Forgets a timer; one that is not set is no fault.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.0.retain(|(_, t)| *t != timer);
    }

    /// Forgets all: the call is over.
    pub(super) fn clear_all(&mut self) {
        self.0.clear();
    }

    /// All that are set, the earliest first.
    pub(super) fn all(&self) -> Vec<(CallTime, Timer)> {
        let mut all = self.0.clone();
        all.sort_unstable();
        all
    }

    /// The timer that fires next.
    pub(super) fn next(&self) -> Option<(CallTime, Timer)> {
        self.0.iter().min().copied()
    }

    /// Takes out the earliest timer that is due at `now`.
    pub(super) fn take_due(&mut self, now: CallTime) -> Option<Timer> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::{CallTime, Timer, Timers};

    #[test]
    fn fire_in_order_of_time_then_of_declaration_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Reap, CallTime(5));
        timers.set(Timer::Wait, CallTime(9));
        timers.set(Timer::Wait, CallTime(5));
        timers.set(Timer::Accept, CallTime(7));
        timers.clear(Timer::MaxCall);
        assert_eq!(timers.next(), Some((CallTime(5), Timer::Wait)));
        assert_eq!(timers.take_due(CallTime(4)), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.take_due(CallTime(7))).collect();
        assert_eq!(fired, [Timer::Wait, Timer::Reap, Timer::Accept]);
        assert_eq!(timers.next(), None);
    }
}
