//! The simulated phone: the script of a call ([`CallScript`]) and the events that it reports
//! ([`CallEvent`]).
//!
//! A script plays audio, presses keys, listens and hangs up. [`CallEvents`] is the stream of events
//! of one call; dropping it hangs up. The script is executed by `meta::call` (signalling) and
//! `media` (audio).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::call_message::CallMsg;
pub use super::keys::{KeyStep, parse_keys};
pub use super::media::arrivals::{ArrivalReport, Arrivals};
use super::world::SimNumber;

/// Capacity of a call's event queue. While it is full, all events but the last are dropped.
pub(crate) const EVENTS_MAX: usize = 1024;

/// When a script starts to press its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeysStart {
    /// When the first audio of the business arrives.
    #[default]
    FirstAudio,
    /// When the call is answered and its media is connected.
    Answered,
}

/// When the user hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangupRule {
    /// Never hangs up. The business does, or [`CallControl::hangup`] is called.
    Never,
    /// Hangs up this long after the answer.
    AfterAnswer(Duration),
    /// Hangs up once the script is done and the business has sent audio and then been silent for
    /// `silence`, but no later than `most` after the last key, or after the answer if there are no
    /// keys.
    WhenQuiet { silence: Duration, most: Duration },
    /// Hangs up this long after the call was placed, if the call is still unanswered.
    WhileRinging(Duration),
    /// Hangs up this long after the call was placed, whether it was answered or not.
    AfterPlaced(Duration),
    /// When the `accept` request arrives, before it is answered.
    BeforeAcceptAnswer,
    /// Right after the `accept` request was answered with 200.
    AfterAcceptAnswer,
}

impl Default for HangupRule {
    fn default() -> Self {
        Self::WhenQuiet { silence: Duration::from_secs(5), most: Duration::from_secs(30) }
    }
}

/// A user's reaction to a business-initiated call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalleeAction {
    #[default]
    Accept,
    Reject,
    /// Lets the phone ring until Meta ends the call.
    Ignore,
}

/// The order in which Meta sends the events of a business-initiated call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventOrder {
    /// `connect`, RINGING, ACCEPTED.
    #[default]
    ConnectFirst,
    /// RINGING, then `connect` and ACCEPTED when the user picks up.
    RingFirst,
    /// RINGING, ACCEPTED, `connect`.
    AcceptedFirst,
    /// `connect` before the request that placed the call is answered.
    BeforeReply,
}

/// How a user reacts to a business-initiated call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalleeBehaviour {
    pub action: CalleeAction,
    pub order: EventOrder,
    /// Time from the placing of the call until the phone rings.
    pub rings_after: Duration,
    /// Time from the first ring until the user accepts or rejects.
    pub acts_after: Duration,
}

impl Default for CalleeBehaviour {
    fn default() -> Self {
        Self {
            action: CalleeAction::default(),
            order: EventOrder::default(),
            rings_after: Duration::from_millis(300),
            acts_after: Duration::from_millis(1_200),
        }
    }
}

/// How much of a phone is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PhoneKind {
    /// Decodes audio and follows the call in the node's event log.
    #[default]
    Full,
    /// Real media, but packets are only counted and the event log is not read. Cheap enough for
    /// load.
    Counting,
    /// Signalling only: the media address in the offer never answers.
    SignallingOnly,
}

/// The behaviour of a simulated user in one call.
#[derive(Clone)]
pub struct CallScript {
    /// WhatsApp id of the user.
    pub from: String,
    /// Profile name of the user.
    pub name: String,
    /// The business number. An unknown one is added to the simulated world.
    pub to: SimNumber,
    /// Base URL of the node. `None` uses the simulator's.
    pub node_url: Option<String>,
    /// `X-API-Key` for the node's event log. `None` uses the simulator's.
    pub api_key: Option<String>,
    /// Key of the webhook signatures. `None` uses the simulator's.
    pub app_secret: Option<String>,
    /// Token of the verification request. `None` uses the simulator's.
    pub verify_token: Option<String>,
    pub phone: PhoneKind,
    /// Reaction to a business-initiated call.
    pub callee: CalleeBehaviour,
    /// When the call was due, which is time zero of its events. `None` means when it is placed.
    pub due: Option<Instant>,
    pub keys: Vec<KeyStep>,
    pub keys_start: KeysStart,
    /// Audio to play after the answer, as Opus frames of 20 ms.
    pub say: Vec<Arc<[u8]>>,
    /// Records the received audio and reports it as [`CallEventKind::Recording`].
    pub record: bool,
    pub hangup: HangupRule,
    /// Makes Meta's side the DTLS client: the offer has `a=setup:active`.
    pub dtls_active: bool,
    /// Gives telephone events their own 8 kHz timestamp clock instead of the audio clock.
    pub own_digit_clock: bool,
    /// Measures the arrival of packets, if set.
    pub arrivals: Option<Arc<Arrivals>>,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
}

impl std::fmt::Debug for CallScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without secrets and the user's number, which must not be logged.
        f.debug_struct("CallScript")
            .field("to", &self.to)
            .field("hangup", &self.hangup)
            .finish_non_exhaustive()
    }
}

impl Default for CallScript {
    fn default() -> Self {
        Self {
            from: super::world::USER.into(),
            name: super::world::USER_NAME.into(),
            to: SimNumber::default(),
            node_url: None,
            api_key: None,
            app_secret: None,
            verify_token: None,
            phone: PhoneKind::default(),
            callee: CalleeBehaviour::default(),
            due: None,
            keys: Vec::new(),
            keys_start: KeysStart::default(),
            say: Vec::new(),
            record: false,
            hangup: HangupRule::default(),
            dtls_active: false,
            own_digit_clock: false,
            arrivals: None,
            cta_payload: None,
            deeplink_payload: None,
        }
    }
}

/// An event of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    pub at_ms: u64,
    /// Time since the call was due or placed. `at_ms` is the same in milliseconds.
    #[serde(skip)]
    pub at: Duration,
    #[serde(flatten)]
    pub kind: CallEventKind,
}

impl CallEvent {
    pub(crate) fn new(at: Duration, kind: CallEventKind) -> Self {
        Self { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), at, kind }
    }
}

/// Kinds of call events. `offhook call --json` prints a subset of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CallEventKind {
    /// The node has passed Meta's webhook verification.
    Verified,
    /// The call has been placed. For a user's call, the connect webhook is about to be sent.
    Placed {
        call_id: String,
        phone_number_id: String,
        from: String,
        to: String,
    },
    /// A webhook was answered. `status` is 0 if there was no response.
    Webhook {
        kind: String,
        status: u16,
    },
    /// `pre_accept` was accepted, or the user's phone rings.
    Ringing,
    /// `accept` was answered with 200, or the user picked up.
    Answered,
    /// ICE and DTLS are connected.
    MediaUp,
    /// The media connection failed.
    MediaFailed {
        reason: String,
    },
    /// The first audio from the business that is not silence.
    FirstAudio,
    /// Graph refused a request for this call.
    Refused {
        action: String,
        details: String,
    },
    /// The node started or finished an XML element, according to its event log.
    Instruction {
        element: String,
        line: u32,
        outcome: String,
        note: String,
    },
    /// The node refused a document because of this error, according to its event log.
    Finding {
        rule: String,
        line: u32,
        message: String,
    },
    /// The node plays a sound to the caller, according to its event log: the text that is spoken,
    /// or the URL of a file.
    Sound {
        text: String,
    },
    /// The node refused its event log with this status: its instructions and sounds stay unknown.
    LogRefused {
        status: u16,
    },
    /// The node's UUID of the call has become known.
    CallKnown {
        call_uuid: String,
    },
    DigitSent {
        digit: char,
    },
    /// A digit from the business arrived (RFC 4733).
    DigitHeard {
        digit: char,
    },
    Hangup {
        by: HangupSource,
    },
    /// The received audio as a WAV file (16 kHz, mono, 16 bit) in Base64. Reported just before
    /// `Ended`.
    Recording {
        wav: String,
    },
    /// The call is over. Always the last event, reported once.
    Ended(CallOutcome),
}

/// Who ended a call, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HangupSource {
    Caller,
    /// The business, with a `terminate` request.
    Business,
    /// The business, with a `reject` request.
    Rejected,
    /// Meta, because the call was not accepted in time.
    Meta,
    /// The user, by declining a business-initiated call.
    Declined,
}

/// The outcome of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallOutcome {
    /// The call was answered, its media connected, and its cause is a normal one.
    pub ok: bool,
    /// The node's hangup cause if its event log could be read, otherwise the simulator's own word.
    pub cause: String,
    /// Milliseconds of received audio that was not silence.
    pub heard_ms: u64,
    /// Packets that arrived before `accept` was answered. Meta drops them.
    pub clipped_packets: u64,
    /// Number of gaps of more than 100 ms in the received audio.
    pub audio_gaps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_uuid: Option<String>,
}

/// A handle that controls one call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallControl(pub(crate) mpsc::Sender<CallMsg>);

impl CallControl {
    /// Hangs up.
    pub async fn hangup(&self) {
        let _ = self.0.send(CallMsg::Hangup).await;
    }

    /// Presses keys, after those that are still queued.
    pub async fn press(&self, keys: Vec<KeyStep>) {
        let _ = self.0.send(CallMsg::Press(keys)).await;
    }
}

/// The events of one call, the last of which is [`CallEventKind::Ended`]. Dropping it hangs up.
#[derive(Debug)]
pub struct CallEvents {
    pub(crate) control: CallControl,
    pub(crate) events: mpsc::Receiver<CallEvent>,
}

impl CallEvents {
    /// The next event. `None` after `Ended`.
    pub async fn next(&mut self) -> Option<CallEvent> {
        self.events.recv().await
    }

    /// Returns a handle that hangs up and presses keys while another task reads the events.
    pub fn control(&self) -> CallControl {
        self.control.clone()
    }

    /// Collects all events until the call has ended.
    pub async fn all(mut self) -> Vec<CallEvent> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

impl Drop for CallEvents {
    fn drop(&mut self) {
        let _ = self.control.0.try_send(CallMsg::Hangup);
    }
}

#[cfg(test)]
mod tests {
    use super::{CallEvent, CallEventKind, CallOutcome};
    use std::time::Duration;

    #[test]
    fn serializes_events_as_flat_objects() {
        let ended = CallOutcome {
            ok: true,
            cause: "caller_hangup".into(),
            heard_ms: 1200,
            ..CallOutcome::default()
        };
        let line = serde_json::to_value(CallEvent::new(
            Duration::from_millis(7),
            CallEventKind::Ended(ended),
        ))
        .expect("json");
        assert_eq!(line["at_ms"], 7);
        assert_eq!(line["event"], "ended");
        assert_eq!(line["ok"], true);
        assert_eq!(line["cause"], "caller_hangup");
        assert_eq!(line["heard_ms"], 1200);
        let line =
            serde_json::to_value(CallEvent::new(Duration::from_millis(7), CallEventKind::Answered))
                .expect("json");
        assert_eq!(line["event"], "answered");
    }
}
