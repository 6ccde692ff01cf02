//! The timers of a call.
//!
//! A timer is a time in a table. The call driver reads the earliest from `Machine::poll_timeout`
//! and sends `Input::Timer` at this time. Setting a timer again moves it.

use crate::contract::CallTime;

/// A timer. Timers that are due at the same time fire in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// `media.accept_wait_ms` after `pre_accept` was sent: `accept` no longer waits for ICE and DTLS.
    AcceptWait,
    /// T_accept: answer now if a document has been received, otherwise reject
    /// (docs/reference/meta.md#t-accept).
    Accept,
    /// `ring_timeout`, or T_ring: the user has not answered.
    Ring,
    /// `hangup_on_ring` after RINGING.
    RingLimit,
    /// The user's audio arrives, but ACCEPTED has not been received. Its webhook is treated as lost
    /// (docs/reference/meta.md#business-initiated-calls).
    AcceptedOverdue,
    /// The call has ended, and the outcome of `accept` is no longer awaited.
    AcceptOutcome,
    /// T_media: ICE and DTLS are not complete in time after `accept` has succeeded.
    MediaSetup,
    /// The peer has closed DTLS, and no terminate webhook has followed.
    PathClosed,
    /// `max_call_seconds`, from the answer.
    MaxCall,
    /// The time of a `<Hangup schedule>`.
    ScheduledHangup,
    /// A timer of the running document.
    Document(DocumentTimer),
    /// `streamTimeout`, from the beginning of the stream.
    StreamLimit,
    /// No webhook has followed within five seconds of a successful `terminate`.
    Close,
    /// The time of the next attempt after `terminate` has failed (docs/reference/meta.md#reaper).
    TerminateRetry,
    /// No webhook has delivered the id within a minute of a `connect` with an unknown outcome.
    UnknownConnect,
    /// T_reap has expired: the call no longer waits for Meta.
    Reap,
}

impl Timer {
    /// Returns the name of the timer for display.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcceptWait => "accept_wait",
            Self::Accept => "accept_deadline",
            Self::Ring => "ring",
            Self::RingLimit => "ring_limit",
            Self::AcceptedOverdue => "accepted_overdue",
            Self::AcceptOutcome => "accept_outcome",
            Self::MediaSetup => "media_setup",
            Self::PathClosed => "path_closed",
            Self::MaxCall => "max_call",
            Self::ScheduledHangup => "scheduled_hangup",
            Self::Document(timer) => timer.as_str(),
            Self::StreamLimit => "stream_limit",
            Self::Close => "close",
            Self::TerminateRetry => "terminate_retry",
            Self::UnknownConnect => "unknown_connect",
            Self::Reap => "reap",
        }
    }
}

/// A timer of an element of the document, or of a request for the next document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentTimer {
    /// A fetch has exceeded its deadline by one second without a result.
    Fetch,
    /// The end of a `<Wait>`.
    Wait,
    /// The next element of the document may be executed, after too many at once.
    Pace,
    /// Silence has lasted for `minSilence` of a `<Wait silence="true">`.
    Silence,
    /// Inter-digit timeout of a collection: too much time has passed since the last digit (clock D,
    /// docs/reference/xml.md#getinput-clocks).
    InterDigit,
    /// Execution timeout: the collection has reached its time limit (clock X).
    Execution,
    /// Input timeout: no input has begun (clock S).
    StartInput,
    /// The caller has been silent for long enough after speaking: for `speechEndTimeout`, or as
    /// long as the estimate of the turn model demands.
    SpeechEnd,
    /// A short voice paused a prompt and has ended, and no words have been recognised.
    FalseBargeIn,
    /// A recogniser has not returned the requested result in time.
    Transcript,
    /// The next interim result may be sent. At most five are sent per second.
    Interim,
    /// A recorder has not reported the end of a `Record` in time.
    Record,
    /// `timeout` of a `Dial`: no target has answered.
    DialRing,
    /// `timeLimit` of a `Dial`.
    DialLimit,
    /// `timeLimit` of a `Conference`.
    RoomLimit,
    /// `waitTime` of a `MultiPartyCall`: the room has not started.
    RoomWait,
    /// `confirmTimeout`: the key has not been pressed.
    Confirm,
}

impl DocumentTimer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Wait => "wait",
            Self::Pace => "pace",
            Self::Silence => "silence",
            Self::InterDigit => "inter_digit",
            Self::Execution => "execution",
            Self::StartInput => "start_input",
            Self::SpeechEnd => "speech_end",
            Self::FalseBargeIn => "false_barge_in",
            Self::Transcript => "transcript",
            Self::Interim => "interim",
            Self::Record => "record",
            Self::DialRing => "dial_ring",
            Self::DialLimit => "dial_limit",
            Self::RoomLimit => "room_limit",
            Self::RoomWait => "room_wait",
            Self::Confirm => "confirm",
        }
    }
}

impl From<DocumentTimer> for Timer {
    fn from(timer: DocumentTimer) -> Self {
        Self::Document(timer)
    }
}

/// The timers that are set.
#[derive(Debug, Default)]
pub(super) struct Timers(Vec<(CallTime, Timer)>);

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: impl Into<Timer>, at: CallTime) {
        let timer = timer.into();
        self.clear(timer);
        self.0.push((at, timer));
    }

    /// Clears a timer. Does nothing if it is not set.
    pub(super) fn clear(&mut self, timer: impl Into<Timer>) {
        let timer = timer.into();
        self.0.retain(|(_, t)| *t != timer);
    }

    /// Clears all timers, since the call has ended.
    pub(super) fn clear_all(&mut self) {
        self.0.clear();
    }

    /// Returns all timers that are set, the earliest first.
    pub(super) fn all(&self) -> Vec<(CallTime, Timer)> {
        let mut all = self.0.clone();
        all.sort_unstable();
        all
    }

    /// Returns the timer that fires next, or `None` if none is set.
    pub(super) fn next(&self) -> Option<(CallTime, Timer)> {
        self.0.iter().min().copied()
    }

    /// Removes and returns the earliest timer that is due at `now`, or returns `None` if none is
    /// due.
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
    use super::{CallTime, DocumentTimer, Timer, Timers};

    #[test]
    fn fires_once_in_order_of_time_then_of_declaration() {
        let mut timers = Timers::default();
        timers.set(Timer::Reap, CallTime(5));
        timers.set(DocumentTimer::Wait, CallTime(9));
        timers.set(DocumentTimer::Wait, CallTime(5));
        timers.set(Timer::Accept, CallTime(7));
        timers.clear(Timer::MaxCall);
        assert_eq!(timers.next(), Some((CallTime(5), DocumentTimer::Wait.into())));
        assert_eq!(timers.take_due(CallTime(4)), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.take_due(CallTime(7))).collect();
        assert_eq!(fired, [DocumentTimer::Wait.into(), Timer::Reap, Timer::Accept]);
        assert_eq!(timers.next(), None);
    }
}
