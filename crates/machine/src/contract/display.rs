//! Facts and wishes as one line of plain words: what `offhook replay` prints and scenario files hold.
//!
//! Numbers of people show their last four digits. Parameters that are the same on every request of a call
//! are left out.

use std::fmt::{self, Display, Formatter};

use super::command::{Command, Legs};
use super::dial::{Destination, DialOrder, LegNews, LegWish};
use super::fetch::{FetchFailure, Fetched};
use super::graph::GraphOutcome;
use super::input::Input;
use super::media::{MediaFact, MediaFault, MediaOrder, Voice};
use super::notice::{Notice, NoticeKind};
use super::output::{CallState, InstructionOutcome, Output, Summary};
use super::param::Params;
use super::recognition::{SpeechFact, SpeechOrder};
use super::recording::{RecordFact, RecordOrder};
use super::room::{RoomEntry, RoomKind, RoomNews, RoomWish, TrackNews};
use super::sound::{Aside, AsideKind, Sound, SoundItem};
use super::stream::{StreamFact, StreamOrder, StreamWish};
use model::{CallUuid, Leg, last_four};
use xml::ast::Repeat;

/// Parameters that say the same on every request of a call, or the same as another.
const CONSTANT: [&str; 21] = [
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

/// Characters of a prompt that are shown.
const TEXT_MAX: usize = 60;

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
                Ok(Fetched::Document { document }) => {
                    write!(
                        f,
                        "fetched {} a document of {} elements",
                        fetch.0,
                        document.elements.len()
                    )
                }
                Ok(Fetched::Refused { refusal }) => {
                    write!(
                        f,
                        "fetched {} a document with {} findings: refused",
                        fetch.0,
                        refusal.findings.len()
                    )
                }
                Ok(Fetched::Ignored) => write!(f, "fetched {} nothing", fetch.0),
                Err(failure) => write!(f, "fetch {} failed: {}", fetch.0, failure.outcome()),
            },
            Self::Media { leg, what } => write!(f, "media {} {what}", Shown(*leg)),
            Self::PlayStarted { leg, play } => write!(f, "play-started {} {}", Shown(*leg), play.0),
            Self::Played { leg, play } => write!(f, "played {} {}", Shown(*leg), play.0),
            Self::PlayFailed { leg, play, item, reason } => {
                write!(f, "play-failed {} {} item {item}: {reason}", Shown(*leg), play.0)
            }
            Self::Digit { leg, digit } => write!(f, "digit {} {}", Shown(*leg), digit.as_char()),
            Self::Recorded { record, what } => write!(f, "recording {} {what}", record.0),
            Self::DigitsSent { leg, play } => write!(f, "digits-sent {} {}", Shown(*leg), play.0),
            Self::Voice { leg, what: Voice::Beep } => write!(f, "voice {} beep", Shown(*leg)),
            Self::Voice { leg, what: Voice::Began } => write!(f, "voice {} began", Shown(*leg)),
            Self::Voice { leg, what: Voice::Ended { ago_ms } } => {
                write!(f, "voice {} ended {ago_ms} ms ago", Shown(*leg))
            }
            Self::Speech { recognition, what } => write!(f, "speech {} {what}", recognition.0),
            Self::Terminated { termination } => {
                write!(
                    f,
                    "terminated {}",
                    termination.status.as_deref().unwrap_or("without a status")
                )
            }
            Self::Dialled { call, news } => write!(f, "leg {} {news}", short(*call)),
            Self::Ordered { leg } => write!(f, "ordered {leg}"),
            Self::Room { news } => write!(f, "room {news}"),
            Self::Stream { stream: _, what } => write!(f, "stream {what}"),
            Self::Command { command } => write!(f, "command {command}"),
            Self::Cut { cause } => write!(f, "cut {}", cause.as_str()),
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
            Self::Play { legs, aside } => write!(f, "{aside} to {}", Shown(*legs)),
            Self::StopPlay { what } => write!(f, "stop {}", Shown(*what)),
            Self::SendDigits { legs, digits } => {
                write!(f, "send-digits {digits} to {}", Shown(*legs))
            }
            Self::Stream { order, .. } => write!(f, "stream {order}"),
            Self::StopStream { .. } => f.write_str("stop stream"),
            Self::Record { order, .. } => write!(f, "record {order}"),
            Self::StopRecord => f.write_str("stop record"),
        }
    }
}

impl Display for RecordOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (format, channels) =
            (if self.mp3 { "mp3" } else { "wav" }, if self.stereo { "stereo" } else { "mono" });
        write!(f, "{format} {channels} max {} ms", self.max_ms)?;
        self.silence_ms.map_or(Ok(()), |ms| write!(f, " silence {ms} ms"))?;
        for (is, word) in [(self.held, " held"), (self.own, " own")] {
            f.write_str(if is { word } else { "" })?;
        }
        self.callback.as_ref().map_or(Ok(()), |notice| write!(f, "; then {notice}"))?;
        if let Some(order) = &self.transcript {
            let full = if order.full { "full " } else { "" };
            write!(
                f,
                "; then {full}transcription {} {}",
                order.to.method.as_str(),
                order.to.url.0
            )?;
        }
        self.action.as_ref().map_or(Ok(()), |notice| write!(f, "; after a hang-up {notice}"))
    }
}

impl Display for RecordFact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { .. } => f.write_str("ready"),
            Self::Ended { end, duration_ms, why, .. } => {
                write!(f, "ended {} after {duration_ms} ms", end.as_str())?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {}", foreign(why)))
            }
        }
    }
}

impl Display for Aside {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Shown(self.kind), if self.mix { "over" } else { "instead" })?;
        self.items.iter().try_for_each(|item| write!(f, " {item}"))?;
        if self.again {
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
            Self::ServerError { status } => write!(f, "server_error {status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// Reads on after the URL's name: "the answer URL failed: …".
impl Display for FetchFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Handshake => {
                f.write_str("it is connected, and the TLS handshake gets no answer in time")
            }
            Self::Unreachable { what } => write!(f, "it could not be reached: {}", foreign(what)),
            Self::Status { status } => write!(f, "it answered {status}"),
            Self::UrlRefused { what } => write!(f, "we do not go there: {}", foreign(what)),
            Self::TooLarge => f.write_str("its answer is larger than a document may be"),
            Self::Invalid { what } => write!(f, "its answer is unusable: {}", foreign(what)),
        }
    }
}

impl Display for MediaFact {
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
                write!(f, "{}", Shown(params))
            }
            Self::CancelFetch { fetch } => write!(f, "cancel fetch {}", fetch.0),
            Self::Prepare { sounds } => {
                f.write_str("prepare")?;
                sounds.iter().try_for_each(|sound| write!(f, " {sound}"))
            }
            Self::Media { leg, order } => write!(f, "media {} {order}", Shown(*leg)),
            Self::Speech { recognition, order } => write!(f, "speech {} {order}", recognition.0),
            Self::Dial { order } => write!(f, "dial {order}"),
            Self::Order { call, leg } => write!(f, "order {} {leg}", short(*call)),
            Self::News { news } => write!(f, "news {news}"),
            Self::Room { room } => write!(f, "room {room}"),
            Self::Stream { stream: _, wish } => write!(f, "stream {wish}"),
            Self::Notify { notice } => write!(f, "notify {notice}"),
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
        f.write_str(match self {
            Self::Dialing => "dialing",
            Self::Proceeding => "proceeding",
            Self::Ringing => "ringing",
            Self::Preparing => "preparing",
            Self::Accepting => "accepting",
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Over => "over",
        })
    }
}

impl Display for MediaOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            Self::Open => f.write_str("open"),
            Self::Play { play, items } => {
                write!(f, "play {}", play.0)?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::Aside { play, aside } => write!(f, "aside {} {aside}", play.0),
            Self::Stop { play } => write!(f, "stop {}", play.0),
            Self::SendDigits { play, digits } => write!(f, "send-digits {} {digits}", play.0),
            Self::Record { record, how } => write!(f, "record {} {how}", record.0),
            Self::RecordGo { record } => write!(f, "record-go {}", record.0),
            Self::RecordPause { record, on } => {
                write!(f, "record-{} {}", if *on { "pause" } else { "resume" }, record.0)
            }
            Self::RecordStop { record, end, .. } => {
                write!(f, "record-stop {} {}", record.0, end.as_str())
            }
            Self::Listen { on } => f.write_str(if *on { "listen" } else { "listen-no-more" }),
            Self::Beep { how: None } => f.write_str("beep-no-more"),
            Self::Beep { how: Some(beep) } => {
                write!(f, "beep {} ms over {}", beep.duration_ms, beep.threshold)?;
                write!(
                    f,
                    ", pieces {} ms apart, then {} ms",
                    beep.intra_silence_ms, beep.inter_silence_ms
                )
            }
            Self::Join => f.write_str("join"),
            Self::Part => f.write_str("part"),
            Self::Close => f.write_str("close"),
        }
    }
}

impl Display for SpeechOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { how } => {
                write!(f, "begin {} {}", how.language, how.model)?;
                for (flag, word) in [
                    (how.interim, "interim"),
                    (how.profanity_filter, "profanity-filter"),
                    (how.hidden, "hidden"),
                ] {
                    if flag {
                        write!(f, " {word}")?;
                    }
                }
                if how.hints.is_empty() {
                    Ok(())
                } else {
                    write!(f, " hints={:?}", how.hints.join(","))
                }
            }
            Self::Finish => f.write_str("finish"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl Display for SpeechFact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.write_str("began"),
            Self::Lasting => f.write_str("lasting"),
            Self::Ended { ago_ms } => write!(f, "ended {ago_ms} ms ago"),
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
                let short: String = speech.text().chars().take(TEXT_MAX).collect();
                write!(f, "{short:?}")
            }
            Self::File { url } => f.write_str(&url.0),
            Self::Silence { ms } => write!(f, "silence({ms})"),
            Self::Tone { hz, ms } => write!(f, "tone({hz},{ms})"),
        }
    }
}

impl Display for Notice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.as_str(), self.method.as_str(), self.url.0)?;
        // Nothing else says what has become of a stream.
        if let (NoticeKind::Stream, Some(event)) = (self.kind, self.params.get("Event")) {
            write!(f, " {}", event.reveal())?;
        }
        write!(f, "{}", Shown(&self.params))
    }
}

impl Display for StreamFact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened => f.write_str("opened"),
            Self::Failed { why } => write!(f, "failed: {}", foreign(why)),
            Self::Lost { why } => write!(f, "lost: {}", foreign(why)),
            Self::Closed => f.write_str("closed"),
            Self::Degraded { percent } => write!(f, "degraded {percent}"),
            Self::Played { name } => write!(f, "played {}", foreign(name)),
            Self::Cleared => f.write_str("cleared"),
            Self::SendDigits { digits } => write!(f, "send-digits {digits}"),
        }
    }
}

impl Display for StreamWish {
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

/// The beginning of a call's UUID: enough to tell the legs of a call apart.
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
        let Some(confirm) = &self.dialled.confirm else { return Ok(()) };
        f.write_str(" confirm")?;
        if let Some(sound) = &confirm.sound {
            write!(f, " {}", sound.0)?;
        }
        let Some(key) = confirm.key else { return Ok(()) };
        write!(f, " key {} in {} ms", key.as_char(), confirm.timeout_ms)
    }
}

impl Display for RoomWish {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enter { entry } => write!(f, "enter {entry}"),
            Self::Leave { sounds, others_stay, was_last: _, over } => {
                f.write_str("leave")?;
                sounds.iter().try_for_each(|item| write!(f, " {item}"))?;
                others_stay.iter().try_for_each(|notice| write!(f, "; notify {notice}"))?;
                if over.is_some() {
                    f.write_str("; and that it is over where it was the last")
                } else {
                    Ok(())
                }
            }
            Self::Sound { items } => {
                f.write_str("sound")?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::Key { digit } => write!(f, "key {}", digit.as_char()),
            Self::Ring { name, items } => {
                write!(f, "ring {:?}", foreign(name))?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::RingOver => f.write_str("ring over"),
            Self::Record { how, when_alone } => {
                write!(f, "record {how}{}", if *when_alone { "" } else { " not-alone" })
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
            (self.starts, "starts"),
            (self.ends, "ends"),
            (!self.stays_alone, "not-alone"),
            (self.waits_for_agent, "waits-for-agent"),
            (self.tells_floor, "tells-floor"),
            (self.tells_speech, "tells-speech"),
            (self.coaches, "coaches"),
        ];
        words.iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(f, " {word}"))?;
        write!(f, " of {}", self.members_max)?;
        self.lasts_ms.map_or(Ok(()), |ms| write!(f, " for {ms} ms"))
    }
}

impl Display for RoomNews {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Entered { member, first, begins, starts, .. } => {
                write!(f, "entered {member}")?;
                let words = [(*first, "first"), (*starts, "starts"), (!*begins, "waits")];
                words.iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(f, " {word}"))
            }
            Self::Full { .. } => f.write_str("full"),
            Self::Begins { starts } => {
                f.write_str(if *starts { "begins starts" } else { "begins" })
            }
            Self::Waits => f.write_str("waits"),
            Self::Floor { has } => write!(f, "floor {}", on(*has)),
            Self::Speech { on: is } => write!(f, "speech {}", on(*is)),
            Self::Muted { on: is } => write!(f, "muted {}", on(*is)),
            Self::Held { on: is } => write!(f, "held {}", on(*is)),
            Self::Coaches { on: is } => write!(f, "coaches {}", on(*is)),
            Self::Record { how, .. } => write!(f, "record {how}"),
            Self::Track { what } => match what {
                TrackNews::Begin { how, .. } => write!(f, "track {how}"),
                TrackNews::Stop => f.write_str("track stop"),
                TrackNews::Pause { on } => {
                    f.write_str(if *on { "track pause" } else { "track resume" })
                }
            },
            Self::RecordEnded => f.write_str("record-ended"),
            Self::RecordFailed { why } => write!(f, "record-failed {why}"),
            Self::Audio { on: is } => write!(f, "audio {}", on(*is)),
            Self::Recorded { begun, .. } => {
                f.write_str(if *begun { "recorded begun" } else { "recorded" })
            }
            Self::Out { why } => write!(f, "out {}", why.as_str()),
        }
    }
}

impl Display for LegNews {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { error, .. } => write!(f, "refused {}", error.as_str()),
            Self::Placed => f.write_str("placed"),
            Self::Ringing => f.write_str("ringing"),
            Self::Answered => f.write_str("answered"),
            Self::Ready => f.write_str("ready"),
            Self::Key { digit } => write!(f, "key {}", digit.as_char()),
            Self::Ended { cause } => write!(f, "ended {}", cause.as_str()),
        }
    }
}

impl Display for LegWish {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proceed => f.write_str("proceed"),
            Self::Join => f.write_str("join"),
            Self::HangUp { cause } => write!(f, "hang-up {}", cause.as_str()),
            Self::Ask { command } => write!(f, "ask {command}"),
        }
    }
}

/// Small types that have no `Display` of their own.
struct Shown<T>(T);

impl Display for Shown<Leg> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Leg::A => f.write_str("A"),
            Leg::B(position) => write!(f, "B{position}"),
        }
    }
}

impl Display for Shown<Legs> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Legs::A => "A",
            Legs::B => "B",
            Legs::Both => "both",
        })
    }
}

impl Display for Shown<AsideKind> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            AsideKind::Play => "play",
            AsideKind::Speak => "speak",
        })
    }
}

impl Display for Shown<&Params> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().filter(|(name, _)| !CONSTANT.contains(name)) {
            // `Debug` keeps a secret value to itself.
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

/// Text from outside as a remark may carry it: one line, bounded.
pub(crate) fn foreign(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(FOREIGN_TEXT_MAX).collect()
}

/// Characters of a remark's part that came from outside.
const FOREIGN_TEXT_MAX: usize = 300;
