//! The customer's server: documents that are valid, invalid, late or missing; callbacks that are
//! accepted, refused or time out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use machine::{CallbackKind, FetchFailure, FetchId, FetchKind, FetchResponse, FirstFault, Refusal};
use model::CallUuid;
use uuid::Uuid;
use xml::{Document, ParseOutcome};

use crate::plan::MS;
use crate::world::{Event, World};

/// The documents that the server returns.
const DOCUMENTS: &[&str] = &[
    "<Response><Speak>Hello</Speak></Response>",
    "<Response/>",
    "<Response><Wait length='3'/><Speak loop='0'>Hello</Speak></Response>",
    "<Response><GetInput action='https://app.example.com/x' numDigits='2' retries='3'><Speak>Keys</Speak></GetInput></Response>",
    "<Response><GetDigits action='https://app.example.com/x' validDigits='12' retries='2' log='false' playBeep='true' \
     invalidDigitsSound='https://app.example.com/no.wav'><Play>https://app.example.com/p.wav</Play></GetDigits>\
     <GetInput action='https://app.example.com/y' redirect='false'/><Wait/></Response>",
    "<Response><Speak>On</Speak><Redirect>https://app.example.com/next</Redirect></Response>",
    "<Response><Redirect>https://app.example.com/next</Redirect></Response>",
    "<Response><PreAnswer><Wait length='2'/><GetDigits/></PreAnswer><Hangup schedule='4'/><Play loop='0'>https://app.example.com/p.wav</Play></Response>",
    "<Response><DTMF>12</DTMF><DTMF async='false'>3</DTMF><Hangup/></Response>",
    "<Response><Hangup reason='busy'/></Response>",
    "<Response><Play loop='0'>https://app.example.com/p.wav</Play></Response>",
    "<Response><Speak>Say something</Speak><Record action='https://app.example.com/x' timeout='3' maxLength='9'/></Response>",
    "<Response><Record recordSession='true' action='https://app.example.com/y'/></Response>",
    "<Response><Wait length='9' silence='true' minSilence='700'/><Speak>Well</Speak></Response>",
    "<Response><GetInput action='https://app.example.com/y' redirect='false' numDigits='1'><Speak>Keys</Speak></GetInput>\
     <GetInput action='https://app.example.com/y' redirect='false' numDigits='1'/><Speak>Thanks</Speak></Response>",
];
const LAST: &str = "<Response><Speak>Bye</Speak><Hangup/></Response>";
const AGAIN: &str = "<Response><Redirect>https://app.example.com/again</Redirect></Response>";
const GARBAGE: &[&str] = &[
    "",
    "<html>",
    "{}",
    "<Response><Speak>",
    "<Response><Redirect>nowhere</Redirect></Response>",
    "<Response><GetDigits action='x:'/></Response>",
];
/// Number of documents per call, after which the server hangs up.
const DOCUMENTS_MAX: u32 = 8;

#[derive(Debug, Default)]
pub struct Customer {
    /// Documents returned by call, and whether the call is in a redirect loop.
    given: BTreeMap<CallUuid, (u32, bool)>,
    /// Ids of accepted hangup callbacks, by call.
    pub hangups: BTreeMap<CallUuid, BTreeSet<Uuid>>,
    /// Ids of other accepted callbacks, by call.
    pub others: BTreeMap<CallUuid, BTreeSet<Uuid>>,
}

/// The server's response to a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackReply {
    Status(u16),
    Broken,
}

fn parsed(text: &'static str) -> ParseOutcome {
    thread_local!(static PARSED: RefCell<BTreeMap<&'static str, ParseOutcome>> = const { RefCell::new(BTreeMap::new()) });
    PARSED.with_borrow_mut(|all| {
        all.entry(text).or_insert_with(|| xml::parse(text.as_bytes(), None)).clone()
    })
}

fn read(text: &'static str) -> FetchResponse {
    let ParseOutcome { document, findings, first_fault, .. } = parsed(text);
    match document {
        Some(document) => FetchResponse::Document { document: Arc::<Document>::clone(&document) },
        None => FetchResponse::Refused {
            refusal: Refusal { findings, first: first_fault.unwrap_or(FirstFault::Other) },
        },
    }
}

impl World {
    /// Responds to a document request. Only the result of the fetcher's retries, redirects and
    /// overall deadline is simulated.
    pub fn document(
        &mut self,
        life: u32,
        call: CallUuid,
        fetch: FetchId,
        kind: FetchKind,
        deadline_ms: u64,
    ) {
        let slow = self.rng.chance(self.faults.app_slow);
        let mut ms = self.rng.between(2, if slow { 13_000 } else { 90 });
        let (given, in_circle) = self.customer.given.entry(call).or_default();
        *given += 1;
        let given = *given;
        if given == 1 {
            *in_circle = self.rng.chance(self.faults.app_loop);
        }
        let in_circle = *in_circle;
        let result = if self.rng.chance(self.faults.app_silent) {
            ms = deadline_ms;
            Err(FetchFailure::Timeout)
        } else if self.rng.chance(self.faults.app_status) {
            Err(self.rng.pick(&[
                FetchFailure::Status { status: 500 },
                FetchFailure::Status { status: 404 },
                FetchFailure::Unreachable { detail: "no route".to_owned() },
                FetchFailure::Invalid { detail: "follow more than 5 redirects".to_owned() },
                FetchFailure::TooLarge,
                FetchFailure::UrlRefused { detail: "loopback".to_owned() },
            ]))
        } else if self.rng.chance(self.faults.app_garbage) {
            Ok(read(self.rng.pick(GARBAGE)))
        } else if in_circle {
            ms = self.rng.between(1, 3);
            Ok(read(AGAIN))
        } else if given > DOCUMENTS_MAX {
            Ok(read(LAST))
        } else {
            Ok(read(self.rng.pick(DOCUMENTS)))
        };
        // Simulates a fetcher that misses its deadline, so that the machine's own deadline fires
        // first.
        let forgotten = self.rng.chance(self.faults.abort_late / 8);
        let (ms, result) = match (ms >= deadline_ms, forgotten) {
            (_, true) => (deadline_ms + 1_000 + self.rng.between(0, 300), result),
            (true, false) => (deadline_ms, Err(FetchFailure::Timeout)),
            (false, false) => (ms, result),
        };
        let _ = kind;
        self.after(ms * MS, Event::FetchResponse { life, call, fetch, result, late: forgotten });
    }

    /// Delivers a callback, or loses it. Returns the response that the sender sees.
    pub fn callback(
        &mut self,
        call: CallUuid,
        kind: CallbackKind,
        identity: Uuid,
    ) -> (u64, CallbackReply) {
        let quick = self.rng.between(2, 90) * MS;
        if self.rng.chance(self.faults.app_silent) {
            // A timeout: the server may have accepted the callback.
            if self.rng.chance(500) {
                self.takes(call, kind, identity);
            }
            return (40_000 * MS, CallbackReply::Broken);
        }
        if self.rng.chance(self.faults.app_status) {
            let status = self.rng.pick(&[500, 503, 429, 408]);
            return (quick, CallbackReply::Status(status));
        }
        if self.rng.chance(self.faults.app_refuses_callbacks) {
            return (quick, CallbackReply::Status(404));
        }
        self.takes(call, kind, identity);
        (quick, CallbackReply::Status(200))
    }

    fn takes(&mut self, call: CallUuid, kind: CallbackKind, identity: Uuid) {
        self.note(format_args!("customer: takes the {} callback of {call}", kind.as_str()));
        let ids = match kind {
            CallbackKind::Hangup => &mut self.customer.hangups,
            CallbackKind::Ring
            | CallbackKind::Action
            | CallbackKind::Dial
            | CallbackKind::Conference
            | CallbackKind::MultiParty
            | CallbackKind::Recording
            | CallbackKind::Message
            | CallbackKind::Event
            | CallbackKind::Interim
            | CallbackKind::Stream
            | CallbackKind::Transcription => &mut self.customer.others,
        };
        ids.entry(call).or_default().insert(identity);
    }
}
