//! The mailbox of a call: a bounded queue of stamped inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::handover::SuspendReply;
use super::phones::{KeyFilter, KeySource};
use machine::Input;
use media::sdp::Offer;
use media::{BridgeEnd, EventSink, LegEvent, MissingStep};
use model::metric;
use model::{CallUuid, Leg};

/// Capacity of the mailbox. A call receives a few inputs per second; overflow is an internal error,
/// which is counted and logged.
const MAILBOX: usize = 256;

/// An input with its time of arrival.
#[derive(Debug)]
pub(super) struct Envelope {
    pub at: Instant,
    pub message: Message,
}

/// A message to a call's task.
#[derive(Debug)]
pub(super) enum Message {
    /// An input of the machine.
    Input(Input),
    /// Meta's answer to our offer. The machine is only notified of its arrival.
    Answer(Box<Offer>),
    /// The A-leg has bridged both legs. Contains this leg's end of the bridge.
    Joined(Box<BridgeEnd>),
    /// An endpoint's phone accepts the call with this offer.
    Taken(Box<Offer>),
    /// Mutes or unmutes the phone for this reason.
    MuteReason(MuteReason, bool),
    /// Starts captions in a language, or stops them.
    Captions(Option<Box<str>>),
    /// The first packet was sent. Only for the trace.
    FirstSent,
    /// The caller hears the first sound of the stream. Only for the trace.
    StreamSounds,
    /// Time for the next quality reading.
    Sample,
    /// A media step that is missing some seconds after `accept`, how long it was awaited, and
    /// whether this node sends the ICE checks.
    Missing(MissingStep, Duration, bool),
    /// Hangs up the call unless it was answered. The reply is whether it was hung up.
    Cancel(oneshot::Sender<bool>),
    /// Asks why the call can't be handed over to another process: for longer than a request takes, or
    /// at the moment.
    CanLeave(Period, oneshot::Sender<Option<&'static str>>),
    /// Suspends the call for its hand-over as soon as no request is in progress.
    Suspend(oneshot::Sender<SuspendReply>),
}

/// The time that a question about a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Now,
    Lasting,
}

impl Message {
    /// The name in logs.
    fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Answer(_) => "answer",
            Self::Joined(_) => "joined",
            Self::Taken(_) => "taken",
            Self::MuteReason(..) => "mute",
            Self::Captions(_) => "captions",
            Self::FirstSent => "first_sent",
            Self::StreamSounds => "stream_sounds",
            Self::Sample => "sample",
            Self::Missing(..) => "missing",
            Self::Cancel(_) => "cancel",
            Self::CanLeave(..) => "can_leave",
            Self::Suspend(_) => "suspend",
        }
    }
}

/// Why a phone's audio is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MuteReason {
    /// The microphone is off.
    Mute,
    /// The call is on hold.
    Hold,
}

/// The sending side of a call's mailbox. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    call: CallUuid,
    /// Sender of boxed messages, because the channel allocates blocks of 32 entries for each call.
    sender: mpsc::Sender<Box<Envelope>>,
    clock: model::Clock,
    keys: Arc<KeyRate>,
}

/// Rate limit for the keys of a call, since an application may have a callback for each: 20 per
/// second, and 64 at once, as many as a phone may send in one message.
#[derive(Debug)]
struct KeyRate {
    epoch: Instant,
    /// Milliseconds after `epoch` up to which the keys so far take.
    used_until: AtomicU64,
}

const KEY_MS: u64 = 50;
const KEYS_AT_ONCE: u64 = 64;

impl KeyRate {
    /// Counts a key. Returns `false` if it is one too many.
    fn take(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        let now = u64::try_from(since).unwrap_or(u64::MAX);
        let next = |used: u64| {
            let until = used.max(now).saturating_add(KEY_MS);
            (until <= now.saturating_add(KEY_MS * KEYS_AT_ONCE)).then_some(until)
        };
        self.used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl Mailbox {
    /// Whether the call still reads its mailbox.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends an input, stamped with the current time. Returns `false` if the call has ended, if the
    /// mailbox is full, or if the input is a key beyond the rate of keys.
    pub(super) fn tell(&self, input: Input) -> bool {
        if matches!(input, Input::Digit { .. }) && !self.keys.take(self.clock.now()) {
            crate::count_refused(metric::queue::MAILBOX);
            return false;
        }
        self.put(Message::Input(input))
    }

    /// Waits until the call has ended or was handed over.
    pub(super) async fn until_closed(&self) {
        self.sender.closed().await;
    }

    pub(super) fn put(&self, message: Message) -> bool {
        let envelope = Envelope { at: self.clock.now(), message };
        match self.sender.try_send(Box::new(envelope)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(envelope)) => {
                crate::count_refused(metric::queue::MAILBOX);
                warn!(call_uuid = %self.call, kind = envelope.message.kind(), "mailbox full, input dropped");
                false
            }
        }
    }

    /// Returns a sink that converts the events of a leg to inputs of the call.
    pub(super) fn leg_events(&self, keys: Option<&Arc<KeyFilter>>) -> EventSink {
        let (mailbox, keys) = (self.clone(), keys.cloned());
        Arc::new(move |event| {
            let leg = Leg::A;
            let input = match event {
                LegEvent::FirstSent => {
                    mailbox.put(Message::FirstSent);
                    return;
                }
                LegEvent::NoAudio { missing, waited, checking } => {
                    mailbox.put(Message::Missing(missing, waited, checking));
                    return;
                }
                LegEvent::Media(what) => Input::Media { leg, event: what },
                LegEvent::PlayStarted(play) => Input::PlayStarted { leg, play },
                LegEvent::Played(play) => Input::Played { leg, play },
                LegEvent::PlayFailed { play, item, reason } => {
                    Input::PlayFailed { leg, play, item, reason }
                }
                // Phones may also send keys over their socket. Only one way counts.
                LegEvent::Digit(_)
                    if keys.as_ref().is_some_and(|keys| !keys.takes_key(KeySource::Stream)) =>
                {
                    return;
                }
                LegEvent::Digit(digit) => Input::Digit { leg, digit },
                LegEvent::Voice(what) => Input::Voice { leg, event: what },
                LegEvent::DigitsSent(play) => Input::DigitsSent { leg, play },
            };
            mailbox.tell(input);
        })
    }
}

/// Creates a mailbox and its receiving side.
pub(super) fn mailbox(
    call: CallUuid,
    clock: &model::Clock,
) -> (Mailbox, mpsc::Receiver<Box<Envelope>>) {
    let (sender, inbox) = mpsc::channel(MAILBOX);
    let keys = Arc::new(KeyRate { epoch: clock.now(), used_until: AtomicU64::new(0) });
    (Mailbox { call, sender, clock: clock.clone(), keys }, inbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Digit;

    #[test]
    fn r10_a_call_takes_20_keys_a_second_after_64_at_once() {
        let clock = model::Clock::stepped(model::Timestamp::default());
        let (mailbox, mut inbox) = mailbox(CallUuid(uuid::Uuid::nil()), &clock);
        let press = || {
            (0..100)
                .filter(|_| {
                    mailbox.tell(Input::Digit { leg: Leg::A, digit: Digit::from_event(1).unwrap() })
                })
                .count()
        };
        assert_eq!(press(), 64);
        clock.step(Duration::from_secs(1));
        assert_eq!(press(), 20);
        assert!(mailbox.tell(Input::Timer), "other inputs are not limited");
        assert_eq!(std::iter::from_fn(|| inbox.try_recv().ok()).count(), 85);
    }
}
