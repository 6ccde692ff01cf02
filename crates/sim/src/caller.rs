//! The simulated phone: what it is to do in a call ([`CallScript`]) and what it tells ([`CallEvent`]).
//!
//! A script says a sound, presses keys, listens, hangs up. [`CallEvents`] is the stream of one call; dropping it hangs
//! the call up. The acting is done by `meta::life` (signalling) and `media` (sound).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::meta::life::CallMsg;
use super::world::SimNumber;
use model::Digit;

/// Events that may wait for a slow reader; past it all but the last are dropped.
pub(crate) const EVENTS_MAX: usize = 1024;
/// Longest DTMF script.
const KEYS_MAX: usize = 200;

/// One step of a DTMF script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// Press this key: 500 ms, then 100 ms pause (`meta-calling.md` §5.4).
    Press(Digit),
    /// Wait.
    Pause(Duration),
}

/// Reads a DTMF script: `0`–`9`, `*`, `#`, `A`–`D`; `w` waits 0.5 s, `W` 1 s.
///
/// # Errors
/// Another character, or more than 200 of them; the text says which.
pub fn parse_keys(text: &str) -> Result<Vec<KeyStep>, String> {
    if text.chars().count() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} keys"));
    }
    text.chars()
        .map(|c| match c {
            'w' => Ok(KeyStep::Pause(Duration::from_millis(500))),
            'W' => Ok(KeyStep::Pause(Duration::from_secs(1))),
            c => Digit::try_from(c)
                .map(KeyStep::Press)
                .map_err(|_| format!("{c:?} is not a key: 0-9, *, #, A-D, w (0.5 s) or W (1 s)")),
        })
        .collect()
}

/// When the keys of the script begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeysStart {
    /// When the business is first heard.
    #[default]
    FirstAudio,
    /// When the call is answered and media is up.
    Answered,
}

/// When the user hangs up by himself (M12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangupRule {
    /// Never: the business hangs up, or [`CallControl::hangup`] is called.
    Never,
    /// This long after the answer.
    AfterAnswer(Duration),
    /// When everything is said and pressed and the business was heard and then was silent for `silence`; at the latest
    /// `most` after the last key, or after the answer.
    WhenQuiet { silence: Duration, most: Duration },
    /// While the phone rings, this long after the call was placed.
    WhileRinging(Duration),
    /// This long after the call was placed, answered or not.
    AfterPlaced(Duration),
    /// In the moment `accept` comes, before it is answered.
    BeforeAcceptAnswer,
    /// In the moment `accept` has been answered 200.
    AfterAcceptAnswer,
}

impl Default for HangupRule {
    fn default() -> Self {
        Self::WhenQuiet { silence: Duration::from_secs(5), most: Duration::from_secs(30) }
    }
}

/// What a user does whose phone rings because the business calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    #[default]
    Accept,
    Reject,
    /// Lets it ring until Meta gives up (M16).
    Ignore,
}

/// In which order Meta tells of a call that the business placed (M15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// connect, RINGING, ACCEPTED.
    #[default]
    ConnectFirst,
    /// RINGING, and connect and ACCEPTED when it is picked up.
    RingFirst,
    /// RINGING, ACCEPTED, then connect.
    AcceptedFirst,
    /// connect before the POST that placed it is answered.
    BeforeReply,
}

/// How a user takes a call of the business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answering {
    pub how: Answers,
    pub order: Order,
    /// The phone rings so long after the call was placed.
    pub rings_after: Duration,
    /// From then on: until it is accepted or rejected.
    pub acts_after: Duration,
}

impl Default for Answering {
    fn default() -> Self {
        Self {
            how: Answers::default(),
            order: Order::default(),
            rings_after: Duration::from_millis(300),
            acts_after: Duration::from_millis(1_200),
        }
    }
}

/// How much of a phone a simulated user has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PhoneKind {
    /// Decodes what it hears, and follows the call in the node's event log.
    #[default]
    Whole,
    /// Real media, but packets are only counted and measured, and the node is asked nothing: a leg of a load.
    Counting,
    /// Signalling only: the relay that its offer names answers nothing.
    Deaf,
}

/// What a simulated user does in one call.
#[derive(Clone)]
pub struct CallScript {
    /// The user's WhatsApp id.
    pub from: String,
    /// The user's profile name.
    pub name: String,
    /// The business number; one that is not known yet is learned.
    pub to: SimNumber,
    /// Base URL of the node; none: the one the simulator was started with.
    pub node_url: Option<String>,
    /// `X-API-Key` for the node's event log; none: the simulator's own.
    pub api_key: Option<String>,
    /// Signs the webhooks; none: the simulator's own.
    pub app_secret: Option<String>,
    /// Of the verification request; none: the simulator's own.
    pub verify_token: Option<String>,
    pub phone: PhoneKind,
    /// Of a call that the business places.
    pub answering: Answering,
    /// When the call was due: the zero of its events' times. None: when it is placed.
    pub due: Option<Instant>,
    pub keys: Vec<KeyStep>,
    pub keys_start: KeysStart,
    /// Sound to say after the answer: 20 ms Opus frames.
    pub say: Vec<Arc<[u8]>>,
    /// Keep what is heard; comes as [`Happened::Recording`].
    pub record: bool,
    pub hangup: HangupRule,
    /// Meta's side is the DTLS client (offer says `a=setup:active`), M6.
    pub dtls_active: bool,
    /// Digits have a timestamp clock of their own (8 kHz) instead of the audio's, M13.
    pub own_digit_clock: bool,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
}

impl std::fmt::Debug for CallScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets and the user's number stay out (R22).
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
            answering: Answering::default(),
            due: None,
            keys: Vec::new(),
            keys_start: KeysStart::default(),
            say: Vec::new(),
            record: false,
            hangup: HangupRule::default(),
            dtls_active: false,
            own_digit_clock: false,
            cta_payload: None,
            deeplink_payload: None,
        }
    }
}

/// Something that happened in a call, `at_ms` after it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    pub at_ms: u64,
    /// The same finer, within the process only.
    #[serde(skip)]
    pub at: Duration,
    #[serde(flatten)]
    pub what: Happened,
}

impl CallEvent {
    pub(crate) fn new(at: Duration, what: Happened) -> Self {
        Self { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), at, what }
    }
}

/// What happened. The words of `interface.md` §1, and a few finer ones for people who watch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// The node passed Meta's verification (M1).
    Verified,
    /// The connect webhook goes out.
    Placed {
        call_id: String,
        phone_number_id: String,
        from: String,
        to: String,
    },
    /// A webhook was delivered, or was not (`status` 0: no answer).
    Webhook {
        kind: String,
        status: u16,
    },
    /// `pre_accept` was taken: the business is there, the media path is being made.
    Ringing,
    /// `accept` was answered 200.
    Answered,
    /// ICE and DTLS are up.
    MediaUp,
    /// The media path failed.
    MediaFailed {
        reason: String,
    },
    /// The first sound of the business that is not silence.
    FirstAudio,
    /// Graph refused what the business sent.
    Refused {
        action: String,
        details: String,
    },
    /// The node began or ended an instruction (from its event log).
    Instruction {
        element: String,
        line: u32,
        outcome: String,
        note: String,
    },
    DigitSent {
        digit: char,
    },
    /// The business sent a digit, which nobody hears (RFC 4733).
    DigitHeard {
        digit: char,
    },
    Hangup {
        by: HungUpBy,
    },
    /// What was heard: a WAV file (16 kHz, mono, 16 bit) in Base64. Just before `ended`.
    Recording {
        wav: String,
    },
    /// The last one, once.
    Ended(Ended),
}

/// Who ended the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HungUpBy {
    Caller,
    /// Graph `terminate`.
    Business,
    /// Graph `reject`.
    Rejected,
    /// Meta: nobody accepted in time.
    Meta,
    /// The user declined a call of the business.
    Declined,
}

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Answered, media came up, and the cause is a normal one.
    pub ok: bool,
    /// The node's word for the cause where its event log could be read, else the phone's own.
    pub cause: String,
    /// Milliseconds of sound that was not silence.
    pub heard_ms: u64,
    /// Packets that came before `accept` was answered: nobody heard them (M9).
    pub clipped_packets: u64,
    /// Places where more than 100 ms of packets were missing.
    pub audio_gaps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_uuid: Option<String>,
}

/// Speaks to one call; cheap to clone.
#[derive(Clone, Debug)]
pub struct CallControl(pub(crate) mpsc::Sender<CallMsg>);

impl CallControl {
    /// The user hangs up.
    pub async fn hangup(&self) {
        let _ = self.0.send(CallMsg::Hangup).await;
    }

    /// The user presses keys, after those that still wait.
    pub async fn press(&self, keys: Vec<KeyStep>) {
        let _ = self.0.send(CallMsg::Press(keys)).await;
    }
}

/// The events of one call, ending with [`Happened::Ended`]. Dropping it hangs up.
#[derive(Debug)]
pub struct CallEvents {
    pub(crate) control: CallControl,
    pub(crate) events: mpsc::Receiver<CallEvent>,
}

impl CallEvents {
    /// The next event; none after `ended`.
    pub async fn next(&mut self) -> Option<CallEvent> {
        self.events.recv().await
    }

    /// For hanging up and pressing keys while somebody else reads.
    pub fn control(&self) -> CallControl {
        self.control.clone()
    }

    /// Reads to the end and gives everything that happened.
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
    use super::{CallEvent, Ended, Happened, KeyStep, parse_keys};
    use std::time::Duration;

    #[test]
    fn keys_are_read_with_their_pauses() {
        let keys = parse_keys("1w2W#").expect("keys");
        assert_eq!(keys.len(), 5);
        assert_eq!(keys.get(1), Some(&KeyStep::Pause(Duration::from_millis(500))));
        assert_eq!(keys.get(3), Some(&KeyStep::Pause(Duration::from_secs(1))));
        assert!(matches!(keys.last(), Some(KeyStep::Press(d)) if d.as_char() == '#'));
        assert!(parse_keys("1x").is_err_and(|e| e.contains("'x'")));
        assert!(parse_keys(&"1".repeat(201)).is_err());
    }

    #[test]
    fn events_are_objects_as_the_contract_has_them() {
        let ended =
            Ended { ok: true, cause: "caller_hangup".into(), heard_ms: 1200, ..Ended::default() };
        let line =
            serde_json::to_value(CallEvent::new(Duration::from_millis(7), Happened::Ended(ended)))
                .expect("json");
        assert_eq!(line["at_ms"], 7);
        assert_eq!(line["event"], "ended");
        assert_eq!(line["ok"], true);
        assert_eq!(line["cause"], "caller_hangup");
        assert_eq!(line["heard_ms"], 1200);
        let line =
            serde_json::to_value(CallEvent::new(Duration::from_millis(7), Happened::Answered))
                .expect("json");
        assert_eq!(line["event"], "answered");
    }
}
