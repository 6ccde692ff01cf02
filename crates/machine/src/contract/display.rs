//! Formats inputs and outputs as one line of text, as printed by `offhook replay` and used in
//! scenario files.
//!
//! Phone numbers are shortened to their last four digits. Parameters that every request of a call
//! has are omitted.

use std::fmt::{self, Display, Formatter};

use super::callback::{CallbackKind, CallbackRequest};
use super::command::{Command, Legs};
use super::dial::{BLegCommand, BLegEvent, Destination, DialOrder};
use super::fetch::{FetchFailure, FetchResponse};
use super::graph::GraphOutcome;
use super::input::Input;
use super::media::{MediaCommand, MediaEvent, MediaFault, VoiceEvent};
use super::output::{CallState, InstructionOutcome, Output, Summary};
use super::param::Params;
use super::recognition::{SpeechCommand, SpeechEvent};
use super::recording::{RecordingEvent, RecordingOrder};
use super::room::{RoomCommand, RoomEntry, RoomEvent, RoomKind, TrackCommand};
use super::sound::{Overlay, OverlayKind, Sound, SoundItem};
use super::stream::{StreamCommand, StreamEvent, StreamOrder};
use model::{CallUuid, Leg, last_four};
use xml::ast::Repeat;

/// Parameters with the same value in every request of a call, and duplicates of other parameters.
const REDUNDANT_PARAMS: [&str; 22] = [
    "AccountID",
    "ALegRequestUUID",
    "ALegUUID",
    "RequestUUID",
    "BillRate",
    "BilledAmount",
    "CallType",
    "CallUUID",
    "CallerName",
    "Direction",
    "From",
    "HangupCause",
    "HangupCauseName",
    "ParentAuthID",
    "STIRVerification",
    "SessionStart",
    "StartTime",
    "To",
    "TotalCost",
    "WhatsAppCallID",
    "Event",
    "StreamID",
];

/// Maximum number of characters of a prompt that are displayed.
const PROMPT_CHARS: usize = 60;

/// Maximum number of characters of external text that are displayed.
const FOREIGN_CHARS: usize = 300;

impl Display for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered { setup } => {
                write!(f, "offered from …{} to …{}", last_four(&setup.from), last_four(&setup.to))
            }
            Self::Placed { setup } => {
                write!(f, "placed from …{} to …{}", last_four(&setup.from), last_four(&setup.to))
            }
            Self::Bound { wacid } => write!(f, "bound to …{}", last_four(wacid.as_str())),
            Self::SdpAnswer { usable: true } => f.write_str("sdp-answer"),
            Self::SdpAnswer { usable: false } => f.write_str("sdp-answer unusable"),
            Self::Status { status } => write!(f, "status {}", status.as_str()),
            Self::Graph { action, outcome } => write!(f, "graph {} {outcome}", action.as_str()),
            Self::Fetched { fetch, result } => match result {
                Ok(FetchResponse::Document { document }) => {
                    write!(
                        f,
                        "fetched {} a document of {} elements",
                        fetch.0,
                        document.elements.len()
                    )
                }
                Ok(FetchResponse::Refused { refusal }) => {
                    write!(
                        f,
                        "fetched {} a document with {} findings: refused",
                        fetch.0,
                        refusal.findings.len()
                    )
                }
                Ok(FetchResponse::Ignored) => write!(f, "fetched {} nothing", fetch.0),
                Err(failure) => write!(f, "fetch {} failed: {}", fetch.0, failure.outcome()),
            },
            Self::Media { leg, event } => write!(f, "media {} {event}", Word(*leg)),
            Self::PlayStarted { leg, play } => write!(f, "play-started {} {}", Word(*leg), play.0),
            Self::Played { leg, play } => write!(f, "played {} {}", Word(*leg), play.0),
            Self::PlayFailed { leg, play, item, reason } => {
                write!(f, "play-failed {} {} item {item}: {reason}", Word(*leg), play.0)
            }
            Self::Digit { leg, digit } => write!(f, "digit {} {}", Word(*leg), digit.as_char()),
            Self::Recording { recording, event } => write!(f, "recording {} {event}", recording.0),
            Self::DigitsSent { leg, play } => write!(f, "digits-sent {} {}", Word(*leg), play.0),
            Self::Voice { leg, event: VoiceEvent::Beep } => write!(f, "voice {} beep", Word(*leg)),
            Self::Voice { leg, event: VoiceEvent::Began } => {
                write!(f, "voice {} began", Word(*leg))
            }
            Self::Voice { leg, event: VoiceEvent::Ended { ago_ms } } => {
                write!(f, "voice {} ended {ago_ms} ms ago", Word(*leg))
            }
            Self::Speech { recognition, event } => write!(f, "speech {} {event}", recognition.0),
            Self::Terminated { termination } => {
                write!(
                    f,
                    "terminated {}",
                    termination.status.as_deref().unwrap_or("without a status")
                )
            }
            Self::BLeg { call, event } => write!(f, "leg {} {event}", short(*call)),
            Self::ALeg { command } => write!(f, "ordered {command}"),
            Self::Room { event } => write!(f, "room {event}"),
            Self::Stream { stream: _, event } => write!(f, "stream {event}"),
            Self::Command { command } => write!(f, "command {command}"),
            Self::HangUp { cause } => write!(f, "cut {}", cause.as_str()),
            Self::Timer => f.write_str("timer"),
        }
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangup => f.write_str("hangup"),
            Self::Transfer { aleg, bleg } => {
                f.write_str("transfer")?;
                for (leg, target) in [("A", aleg), ("B", bleg)] {
                    if let Some(target) = target {
                        write!(f, " {leg} {} {}", target.method.as_str(), target.url.0)?;
                    }
                }
                Ok(())
            }
            Self::Run { document, room: _ } => {
                write!(f, "run a document of {} elements", document.elements.len())
            }
            Self::Play { legs, overlay } => write!(f, "{overlay} to {}", Word(*legs)),
            Self::StopPlay { kind } => write!(f, "stop {}", Word(*kind)),
            Self::SendDigits { legs, digits } => {
                write!(f, "send-digits {digits} to {}", Word(*legs))
            }
            Self::Stream { order, .. } => write!(f, "stream {order}"),
            Self::StopStream { .. } => f.write_str("stop stream"),
            Self::Record { order, .. } => write!(f, "record {order}"),
            Self::StopRecord => f.write_str("stop record"),
        }
    }
}

impl Display for RecordingOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (format, channels) =
            (if self.mp3 { "mp3" } else { "wav" }, if self.stereo { "stereo" } else { "mono" });
        write!(f, "{format} {channels} max {} ms", self.max_ms)?;
        self.silence_ms.map_or(Ok(()), |ms| write!(f, " silence {ms} ms"))?;
        for (is, word) in [(self.held, " held"), (self.peer_only, " own")] {
            f.write_str(if is { word } else { "" })?;
        }
        self.callback.as_ref().map_or(Ok(()), |callback| write!(f, "; then {callback}"))?;
        if let Some(order) = &self.transcript {
            let full = if order.full { "full " } else { "" };
            write!(
                f,
                "; then {full}transcription {} {}",
                order.to.method.as_str(),
                order.to.url.0
            )?;
        }
        self.action.as_ref().map_or(Ok(()), |action| write!(f, "; after a hang-up {action}"))
    }
}

impl Display for RecordingEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { .. } => f.write_str("ready"),
            Self::Ended { reason, duration_ms, error, .. } => {
                write!(f, "ended {} after {duration_ms} ms", reason.as_str())?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {}", foreign(error)))
            }
        }
    }
}

impl Display for Overlay {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Word(self.kind), if self.mix { "over" } else { "instead" })?;
        self.items.iter().try_for_each(|item| write!(f, " {item}"))?;
        if self.repeat {
            f.write_str(" again and again")?;
        }
        self.length_ms.map_or(Ok(()), |ms| write!(f, " for {ms} ms"))
    }
}

impl Display for GraphOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Gone => f.write_str("gone"),
            Self::Refused { status, code, .. } => write!(f, "refused {status} {code}"),
            Self::RateLimited { code } => write!(f, "rate_limited {code}"),
            Self::ServerError { status, .. } => write!(f, "server_error {status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// Completes a sentence such as "the answer URL failed: …".
impl Display for FetchFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Handshake => {
                f.write_str("it is connected, and the TLS handshake gets no answer in time")
            }
            Self::Unreachable { detail } => {
                write!(f, "it could not be reached: {}", foreign(detail))
            }
            Self::Status { status } => write!(f, "it answered {status}"),
            Self::UrlRefused { detail } => write!(f, "refused by this node: {}", foreign(detail)),
            Self::TooLarge => f.write_str("its answer is larger than a document may be"),
            Self::Invalid { detail } => write!(f, "its answer is unusable: {}", foreign(detail)),
        }
    }
}

impl Display for MediaEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IceUp => "ice-up",
            Self::Connected => "connected",
            Self::FirstPacket => "first-packet",
            Self::Flowing => "flowing",
            Self::Lost { fault: MediaFault::Silent } => "lost silent",
            Self::Lost { fault: MediaFault::Fingerprint } => "lost fingerprint",
            Self::Lost { fault: MediaFault::DtlsClosed } => "lost dtls-closed",
            Self::Lost { fault: MediaFault::DtlsFailed } => "lost dtls-failed",
            Self::Lost { fault: MediaFault::Broken } => "lost broken",
        })
    }
}

impl Display for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graph { action } => write!(f, "graph {}", action.as_str()),
            Self::Fetch { fetch, kind, url, method, params, deadline_ms } => {
                write!(
                    f,
                    "fetch {} {} {} {} in {deadline_ms} ms",
                    fetch.0,
                    kind.as_str(),
                    method.as_str(),
                    url.0
                )?;
                write!(f, "{}", Word(params))
            }
            Self::CancelFetch { fetch } => write!(f, "cancel fetch {}", fetch.0),
            Self::Prepare { sounds } => {
                f.write_str("prepare")?;
                sounds.iter().try_for_each(|sound| write!(f, " {sound}"))
            }
            Self::Media { leg, command } => write!(f, "media {} {command}", Word(*leg)),
            Self::Speech { recognition, command } => {
                write!(f, "speech {} {command}", recognition.0)
            }
            Self::Dial { order } => write!(f, "dial {order}"),
            Self::BLeg { call, command } => write!(f, "order {} {command}", short(*call)),
            Self::ALeg { event } => write!(f, "news {event}"),
            Self::Room { command } => write!(f, "room {command}"),
            Self::Stream { stream: _, command } => write!(f, "stream {command}"),
            Self::Callback { callback } => write!(f, "notify {callback}"),
            Self::Instruction { element, line, outcome, note } => {
                let outcome = match outcome {
                    InstructionOutcome::Started => "started",
                    InstructionOutcome::Done => "done",
                    InstructionOutcome::Skipped => "skipped",
                    InstructionOutcome::Failed => "failed",
                    InstructionOutcome::Cut => "cut",
                };
                write!(f, "{element}:{line} {outcome}")?;
                if note.is_empty() { Ok(()) } else { write!(f, " ({note})") }
            }
            Self::State { state } => write!(f, "state {state}"),
            Self::Remark { text } => write!(f, "remark {text}"),
            Self::Findings { findings } => {
                f.write_str("findings")?;
                findings
                    .iter()
                    .try_for_each(|finding| write!(f, " {}:{}", finding.rule, finding.at.line))
            }
            Self::Concluded { summary } => write!(f, "concluded {summary}"),
            Self::FreeSlot => f.write_str("free the slot"),
            Self::Over => f.write_str("over"),
        }
    }
}

impl Display for CallState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for MediaCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            Self::Open => f.write_str("open"),
            Self::Play { play, items } => {
                write!(f, "play {}", play.0)?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::Overlay { play, overlay } => write!(f, "aside {} {overlay}", play.0),
            Self::Stop { play } => write!(f, "stop {}", play.0),
            Self::PlayPause { play, on } => {
                write!(f, "{} {}", if *on { "pause" } else { "resume" }, play.0)
            }
            Self::SendDigits { play, digits } => write!(f, "send-digits {} {digits}", play.0),
            Self::Record { recording, order } => write!(f, "record {} {order}", recording.0),
            Self::RecordStart { recording } => write!(f, "record-go {}", recording.0),
            Self::RecordPause { recording, on } => {
                write!(f, "record-{} {}", if *on { "pause" } else { "resume" }, recording.0)
            }
            Self::RecordStop { recording, reason, .. } => {
                write!(f, "record-stop {} {}", recording.0, reason.as_str())
            }
            Self::DetectVoice { on } => f.write_str(if *on { "listen" } else { "listen-no-more" }),
            Self::DetectBeep { settings: None } => f.write_str("beep-no-more"),
            Self::DetectBeep { settings: Some(beep) } => {
                write!(f, "beep {} ms over {}", beep.duration_ms, beep.threshold)?;
                write!(
                    f,
                    ", pieces {} ms apart, then {} ms",
                    beep.intra_silence_ms, beep.inter_silence_ms
                )
            }
            Self::Join => f.write_str("join"),
            Self::Unjoin => f.write_str("part"),
            Self::Close => f.write_str("close"),
        }
    }
}

impl Display for SpeechCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { settings } => {
                write!(f, "begin {} {}", settings.language, settings.model)?;
                for (flag, word) in [
                    (settings.interim, "interim"),
                    (settings.profanity_filter, "profanity-filter"),
                    (settings.hidden, "hidden"),
                    (settings.fixed_silence, "fixed-silence"),
                ] {
                    if flag {
                        write!(f, " {word}")?;
                    }
                }
                if settings.hints.is_empty() {
                    Ok(())
                } else {
                    write!(f, " hints={:?}", settings.hints.join(","))
                }
            }
            Self::Finish => f.write_str("finish"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl Display for SpeechEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.write_str("began"),
            Self::Lasting => f.write_str("lasting"),
            Self::Ended { ago_ms } => write!(f, "ended {ago_ms} ms ago"),
            Self::Turn { finished, model } => write!(f, "turn finished {finished} % ({model})"),
            Self::Interim { stable, unstable, stability } => {
                write!(f, "interim {stable:?} {unstable:?} {stability} %")
            }
            Self::Understood { text, confidence } => {
                write!(f, "understood {text:?} {confidence} %")
            }
            Self::Failed { reason } => write!(f, "failed: {}", foreign(reason)),
            Self::Unavailable => f.write_str("unavailable"),
        }
    }
}

impl Display for SoundItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.repeat {
            Repeat::Times(1) => write!(f, "{}", self.sound),
            Repeat::Times(n) => write!(f, "{}×{n}", self.sound),
            Repeat::Endless => write!(f, "{}×∞", self.sound),
        }
    }
}

impl Display for Sound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Speak { speech, .. } => {
                let short: String = speech.text().chars().take(PROMPT_CHARS).collect();
                write!(f, "{short:?}")
            }
            Self::File { url } => f.write_str(&url.0),
            Self::Silence { ms } => write!(f, "silence({ms})"),
            Self::Tone { hz, ms } => write!(f, "tone({hz},{ms})"),
        }
    }
}

impl Display for CallbackRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.as_str(), self.method.as_str(), self.url.0)?;
        // The other parameters do not show which event of the stream is reported.
        if let (CallbackKind::Stream, Some(event)) = (self.kind, self.params.get("Event")) {
            write!(f, " {}", event.reveal())?;
        }
        write!(f, "{}", Word(&self.params))
    }
}

impl Display for StreamEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened => f.write_str("opened"),
            Self::Failed { reason } => write!(f, "failed: {}", foreign(reason)),
            Self::Lost { reason } => write!(f, "lost: {}", foreign(reason)),
            Self::Closed => f.write_str("closed"),
            Self::Degraded { percent } => write!(f, "degraded {percent}"),
            Self::Played { name } => write!(f, "played {}", foreign(name)),
            Self::Cleared => f.write_str("cleared"),
            Self::SendDigits { digits } => write!(f, "send-digits {digits}"),
        }
    }
}

impl Display for StreamCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(order) => write!(f, "open {order}"),
            Self::Begin => f.write_str("begin"),
            Self::Close { dropped: false } => f.write_str("close"),
            Self::Close { dropped: true } => f.write_str("close, dropped"),
        }
    }
}

impl Display for StreamOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.url.0, self.format.as_str(), self.track.as_str())?;
        if let Some(level) = self.noise_level {
            write!(f, " noise={level}")?;
        }
        if self.bidirectional {
            f.write_str(" bidirectional")?;
        }
        if self.keep_call_alive {
            f.write_str(" keeps the call alive")?;
        }
        if self.in_room {
            f.write_str(" in the room")?;
        }
        write!(f, " for {} s", self.timeout_s)?;
        self.extra_headers.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause.as_str(), self.hangup)?;
        self.meta_duration_secs.map_or(Ok(()), |secs| write!(f, "; Meta says {secs} s"))
    }
}

/// Returns the first digits of an id, which suffice to distinguish the legs of a call.
fn short(call: CallUuid) -> String {
    call.to_string().chars().take(8).collect()
}

impl Display for DialOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", short(self.call))?;
        match &self.destination {
            Destination::Whatsapp { caller, user } => {
                write!(f, "whatsapp …{} to …{}", last_four(caller), last_four(user))?;
            }
            Destination::Endpoint { name, .. } => write!(f, "endpoint {}", foreign(name))?,
        }
        write!(f, " ringing {} ms", self.ring_timeout_ms)?;
        self.send_digits.as_ref().map_or(Ok(()), |digits| write!(f, " digits {digits}"))?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, " X-PH-{name}={value}"))?;
        let Some(confirm) = &self.b_leg.confirm else { return Ok(()) };
        f.write_str(" confirm")?;
        if let Some(sound) = &confirm.sound {
            write!(f, " {}", sound.0)?;
        }
        let Some(key) = confirm.key else { return Ok(()) };
        write!(f, " key {} in {} ms", key.as_char(), confirm.timeout_ms)
    }
}

impl Display for RoomCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enter { entry } => write!(f, "enter {entry}"),
            Self::Leave { sounds, if_others_stay, if_last: _, end_params } => {
                f.write_str("leave")?;
                sounds.iter().try_for_each(|item| write!(f, " {item}"))?;
                if_others_stay.iter().try_for_each(|callback| write!(f, "; notify {callback}"))?;
                if end_params.is_some() {
                    f.write_str("; and that it is over where it was the last")
                } else {
                    Ok(())
                }
            }
            Self::Sound { items } => {
                f.write_str("sound")?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::Digit { digit } => write!(f, "key {}", digit.as_char()),
            Self::Ring { name, items } => {
                write!(f, "ring {:?}", foreign(name))?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::StopRing => f.write_str("ring over"),
            Self::TrackEnded => f.write_str("track ended"),
            Self::Record { order, when_alone } => {
                write!(f, "record {order}{}", if *when_alone { "" } else { " not-alone" })
            }
        }
    }
}

impl Display for RoomEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RoomKind::Conference => "conference",
            RoomKind::MultiParty => "mpc",
        };
        write!(f, "{kind} {:?}", foreign(&self.name))?;
        if let Some(role) = self.role {
            write!(f, " as {}", role.as_str())?;
        }
        let words = [
            (self.muted, "muted"),
            (self.held, "held"),
            (self.start_on_enter, "starts"),
            (self.end_on_exit, "ends"),
            (!self.stay_alone, "not-alone"),
            (self.waits_for_agent, "waits-for-agent"),
            (self.report_floor, "tells-floor"),
            (self.report_speech, "tells-speech"),
            (self.coaching, "coaches"),
        ];
        words.iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(f, " {word}"))?;
        write!(f, " of {}", self.max_members)?;
        self.max_duration_ms.map_or(Ok(()), |ms| write!(f, " for {ms} ms"))
    }
}

impl Display for RoomEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Entered { member, first, active, starts_room, .. } => {
                write!(f, "entered {member}")?;
                let words = [(*first, "first"), (*starts_room, "starts"), (!*active, "waits")];
                words.iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(f, " {word}"))
            }
            Self::Full { .. } => f.write_str("full"),
            Self::Elsewhere => f.write_str("elsewhere"),
            Self::Lost => f.write_str("lost"),
            Self::Active { starts_room } => {
                f.write_str(if *starts_room { "begins starts" } else { "begins" })
            }
            Self::Waiting => f.write_str("waits"),
            Self::Floor { has } => write!(f, "floor {}", on(*has)),
            Self::Speech { on: is } => write!(f, "speech {}", on(*is)),
            Self::Muted { on: is } => write!(f, "muted {}", on(*is)),
            Self::Held { on: is } => write!(f, "held {}", on(*is)),
            Self::Coaching { on: is } => write!(f, "coaches {}", on(*is)),
            Self::Record { order, .. } => write!(f, "record {order}"),
            Self::Track { command } => match command {
                TrackCommand::Begin { order, .. } => write!(f, "track {order}"),
                TrackCommand::Stop => f.write_str("track stop"),
                TrackCommand::Pause { on } => {
                    f.write_str(if *on { "track pause" } else { "track resume" })
                }
            },
            Self::RecordingEnded => f.write_str("record-ended"),
            Self::RecordingFailed { reason } => write!(f, "record-failed {reason}"),
            Self::Audio { on: is } => write!(f, "audio {}", on(*is)),
            Self::Recording { begun, .. } => {
                f.write_str(if *begun { "recorded begun" } else { "recorded" })
            }
            Self::MustLeave { reason } => write!(f, "out {}", reason.as_str()),
        }
    }
}

impl Display for BLegEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { error, .. } => write!(f, "refused {}", error.as_str()),
            Self::Placed => f.write_str("placed"),
            Self::Ringing => f.write_str("ringing"),
            Self::Answered => f.write_str("answered"),
            Self::Ready => f.write_str("ready"),
            Self::Digit { digit } => write!(f, "key {}", digit.as_char()),
            Self::Ended { cause } => write!(f, "ended {}", cause.as_str()),
        }
    }
}

impl Display for BLegCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proceed => f.write_str("proceed"),
            Self::Join => f.write_str("join"),
            Self::HangUp { cause } => write!(f, "hang-up {}", cause.as_str()),
            Self::Forward { command } => write!(f, "ask {command}"),
        }
    }
}

/// Displays the serialized name of a value whose type does not implement `Display`.
struct Word<T>(T);

impl Display for Word<Leg> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Leg::A => f.write_str("A"),
            Leg::B(position) => write!(f, "B{position}"),
        }
    }
}

impl Display for Word<Legs> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Legs::A => "A",
            Legs::B => "B",
            Legs::Both => "both",
        })
    }
}

impl Display for Word<OverlayKind> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            OverlayKind::Play => "play",
            OverlayKind::Speak => "speak",
        })
    }
}

impl Display for Word<&Params> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().filter(|(name, _)| !REDUNDANT_PARAMS.contains(name)) {
            // `Debug` masks a secret value.
            let shown = format!("{value:?}");
            let bare = shown.trim_matches('"');
            if bare.contains([' ', '"']) {
                write!(f, " {name}={shown}")?
            } else {
                write!(f, " {name}={bare}")?
            }
        }
        Ok(())
    }
}

/// Makes external text safe for a log line: removes control characters and limits its length.
pub(crate) fn foreign(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(FOREIGN_CHARS).collect()
}
