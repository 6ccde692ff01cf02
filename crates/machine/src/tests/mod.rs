//! Tests of the machine by its inputs and outputs: scenarios, timed traces, properties. This file
//! has the helpers that they share.

mod callback_rows;
mod log_false;
mod parameters;
mod placed;
mod properties;
mod scenarios;
mod traces;

use std::sync::Arc;

use super::Machine;
use crate::contract::{
    CallSetup, CallTime, CallUrls, Command, FetchId, FetchResponse, GraphAction, GraphOutcome,
    Input, Legs, MachineLimits, MediaCommand, MediaEvent, Output, Overlay, OverlayKind, PlayId,
    RecordingOrder, Sound, SoundItem, StreamFormat, StreamOrder, StreamTrack,
};
use model::{
    AuthId, CallType, CallUuid, Digit, Direction, Leg, Method, PhoneNumberId, StreamId, Timestamp,
    Wacid,
};
use xml::Document;
use xml::ast::{DocUrl, Repeat, Target};

/// Returns the setup of a usual call.
fn setup() -> CallSetup {
    CallSetup {
        call: CallUuid(uuid::Uuid::from_u128(0x3f0c_2f1a_6a1e_4f0e_9a2b_5d7f_3f0a_9b11)),
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        wacid: Some(Wacid::from("wacid.HBgMOTE5ODEyMzQ1Njc4")),
        phone_number_id: PhoneNumberId::from("106540352242922"),
        from: "919812345678".to_owned(),
        to: "918035737458".to_owned(),
        caller_name: "Asha".to_owned(),
        cta_payload: None,
        deeplink_payload: None,
        account: AuthId::from("MAXXXXXXXXXXXXXXXXXX"),
        parent_account: AuthId::from("MAXXXXXXXXXXXXXXXXXX"),
        urls: CallUrls {
            answer: url("https://app.example.com/answer"),
            answer_method: Method::Post,
            fallback: None,
            hangup: (url("https://app.example.com/hangup"), Method::Post),
        },
        // 2026-11-20 06:03:11.120394
        started: Timestamp::from_micros(1_795_154_591_120_394),
        limits: MachineLimits {
            sip_host: "calls.example.com".to_owned(),
            ..MachineLimits::default()
        },
        headers: Vec::new(),
        outbound: None,
    }
}

fn url(text: &str) -> DocUrl {
    DocUrl(text.into())
}

fn document(xml: &str) -> Arc<Document> {
    xml::parse(xml.as_bytes(), None)
        .document
        .unwrap_or_else(|| panic!("not a valid document: {xml}"))
}

fn digit(key: char) -> Input {
    Input::Digit { leg: Leg::A, digit: Digit::try_from(key).expect("a key") }
}

fn fetched(fetch: FetchId, document: Arc<Document>) -> Input {
    Input::Fetched { fetch, result: Ok(FetchResponse::Document { document }) }
}

/// A machine with a manual clock that records every output.
struct Bench {
    machine: Machine,
    now: u64,
    outputs: Vec<(u64, Output)>,
    /// The latest playlist that has ended.
    played: u32,
}

impl Bench {
    fn new(setup: CallSetup) -> Self {
        let mut bench = Self { machine: Machine::new(), now: 0, outputs: Vec::new(), played: 0 };
        bench.give(Input::Offered { setup: Box::new(setup) });
        bench
    }

    /// Returns an answered call with its media path up, which runs `document` from 0 ms.
    fn live(setup: CallSetup, document: Arc<Document>) -> Self {
        let mut bench = Self::new(setup);
        bench.give(Input::Graph { action: GraphAction::PreAccept, outcome: GraphOutcome::Done });
        bench.give(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
        bench.give(fetched(FetchId(1), document));
        bench.give(Input::Graph { action: GraphAction::Accept, outcome: GraphOutcome::Done });
        bench
    }

    fn give(&mut self, input: Input) {
        if let Input::Played { play, .. } = &input {
            self.played = self.played.max(play.0);
        }
        self.machine.handle(CallTime(self.now), input);
        while let Some(output) = self.machine.poll() {
            self.outputs.push((self.now, output));
        }
    }

    /// Returns the playlist that is being played and when it was started.
    fn playing(&self) -> Option<(u64, PlayId)> {
        let last = self.outputs.iter().rev().find_map(|(at, output)| match output {
            Output::Media { command: MediaCommand::Play { play, .. }, .. } => {
                Some(Some((*at, *play)))
            }
            Output::Media { command: MediaCommand::Stop { .. } | MediaCommand::Close, .. } => {
                Some(None)
            }
            _ => None,
        });
        last.flatten().filter(|(_, play)| play.0 > self.played)
    }
}

/// Returns the order of a recording that an API request started.
fn api_recording() -> RecordingOrder {
    RecordingOrder {
        id: Some(uuid::Uuid::from_u128(0x7e57)),
        held: false,
        mp3: true,
        stereo: true,
        peer_only: false,
        max_ms: 60_000,
        silence_ms: None,
        callback: None,
        action: None,
        transcript: None,
    }
}

/// Returns one of several API requests.
fn api_command(number: u8) -> Command {
    let url = || DocUrl("https://a.example.com/rest".into());
    let target = || Some(Target { url: url(), method: Method::Post });
    let item = SoundItem { sound: Sound::File { url: url() }, repeat: Repeat::Times(1) };
    let overlay = |kind| Overlay {
        kind,
        items: vec![item.clone()],
        repeat: false,
        mix: true,
        length_ms: None,
    };
    match number {
        0 => Command::Play { legs: Legs::A, overlay: overlay(OverlayKind::Play) },
        1 => Command::Play { legs: Legs::Both, overlay: overlay(OverlayKind::Speak) },
        2 => Command::StopPlay { kind: OverlayKind::Play },
        7 => Command::Stream {
            stream: StreamId(uuid::Uuid::from_u128(7)),
            order: Box::new(StreamOrder {
                url: DocUrl("wss://a.example.com/rest".into()),
                bidirectional: true,
                track: StreamTrack::Inbound,
                timeout_s: 3,
                status: Some((url(), Method::Post)),
                format: StreamFormat::L16At16000,
                extra_headers: Vec::new(),
                keep_call_alive: false,
                noise_level: None,
                in_room: false,
            }),
        },
        8 => Command::StopStream { stream: None },
        3 => Command::SendDigits { legs: Legs::A, digits: "1w2".to_owned() },
        4 => Command::Transfer { aleg: None, bleg: target() },
        5 => Command::Transfer { aleg: target(), bleg: target() },
        9 => Command::Record { order: Box::new(api_recording()), callback: target() },
        10 => Command::StopRecord,
        _ => Command::Transfer { aleg: target(), bleg: None },
    }
}
