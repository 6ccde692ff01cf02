//! Fuzzing as tests (R25): each format that strangers write gets its fixtures, then some seconds of bent ones.
//!
//! `targets` has one function a format, which the cargo-fuzz targets in `fuzz/` call as well; `engine` bends and
//! watches: no panic, no input that takes long, no allocation far beyond the input. More of it:
//! `OFFHOOK_FUZZ_MILLIS=60000 OFFHOOK_FUZZ_SEED=7 cargo test --test fuzz`.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod alloc;
mod engine;
mod targets;

use std::path::Path;

use engine::{Format, check};

#[global_allocator]
static WATCHED: alloc::Watched = alloc::Watched;

/// Every file below a folder of the fixtures whose name ends so, in the order of names.
fn fixtures(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    fn collect(folder: &Path, ending: &str, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                collect(&entry, ending, into);
            } else if entry.to_string_lossy().ends_with(ending) {
                into.push(entry);
            }
        }
    }
    let mut paths = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder), ending, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "fixtures/{folder} holds files ending in {ending}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn texts(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

#[test]
fn r25_webhook() {
    check(&Format {
        corpus: fixtures("meta/webhooks", ".json"),
        words: &[
            "null",
            "[]",
            "{}",
            "\"calls\":",
            "\"entry\":",
            "\"\\ud800\"",
            "[[[[[[[[",
            "{\"a\":",
            "1e999",
            "\"sdp\":",
        ],
        ..Format::new("webhook", targets::webhook)
    });
}

#[test]
fn r25_r18_answer_xml() {
    check(&Format {
        corpus: fixtures("plivo-xml", ".xml"),
        words: &[
            "<!DOCTYPE a [<!ENTITY b \"c\">]>",
            "&b;",
            "&#0;",
            "&#x10FFFF;",
            "<![CDATA[",
            "]]>",
            "<!--",
            "-->",
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?>",
            "<Response>",
            "<Speak><prosody>",
            "</Response>",
            "xmlns:a=\"b\"",
            "\u{FEFF}",
        ],
        bytes_max: 102_500,
        ..Format::new("xml", targets::xml)
    });
}

#[test]
fn r25_r19_sdp() {
    check(&Format {
        corpus: fixtures("meta/sdp", ".sdp"),
        words: &[
            "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
            "a=ice-lite\r\n",
            "a=fingerprint:sha-256 ",
            "a=rtpmap:111 opus/48000/2\r\n",
            "\r\n",
            "a=mid:",
            "::ffff:0.0.0.0",
        ],
        bytes_max: 20_000,
        ..Format::new("sdp", targets::sdp)
    });
}

#[test]
fn r25_r19_stun() {
    check(&Format { corpus: targets::stun_corpus(), bytes_max: 2_000, ..Format::new("stun", targets::stun) });
}

#[test]
fn r25_telephone_event() {
    let press: Vec<u8> = (0u8..40).flat_map(|n| [n / 8, 0x0a | (n % 8 / 7) << 7, 0, 160, 5, n]).collect();
    check(&Format {
        corpus: vec![press],
        bytes_max: 4_000,
        ..Format::new("telephone_event", targets::telephone_event)
    });
}

#[test]
fn r25_audio_files() {
    check(&Format {
        corpus: fixtures("audio", ""),
        words: &["RIFF", "WAVE", "fmt ", "data", "OggS", "OpusHead", "\u{1}vorbis", "ID3\u{4}\0\0", "\u{5}vorbis"],
        bytes_max: 40_000,
        // Half a second of sound is also resampled and encoded, unoptimised.
        millis_max: 1_500,
        ..Format::new("audio", targets::audio)
    });
}

#[test]
fn r25_r22_configuration() {
    check(&Format {
        corpus: vec![targets::CONFIGURATION.as_bytes().to_vec()],
        words: &[
            "[meta]",
            "[[account]]",
            "\"\"\"",
            "'''",
            "\\u0000",
            "= {",
            "}",
            "[",
            "]",
            "#",
            "= 1979-05-27",
            "nan",
            "a.b.c",
        ],
        bytes_max: 8_000,
        // The parser's own list of what is wrong, where each character is.
        memory_max: 400,
        ..Format::new("configuration", targets::configuration)
    });
}

#[test]
fn r25_r17_url() {
    check(&Format {
        corpus: texts(&[
            "https://app.example.com:8443/answer?x=1#rc=2&rp=ct&ct=100",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://[::ffff:127.0.0.1]:8443/",
            "https://①②⑦.0.0.1/",
            "https://8.8.8.8/",
            "https://xn--bcher-kva.example/",
            "https://[64:ff9b::8.8.8.8]/",
            "https://0251.0376.0251.0376/latest",
        ]),
        words: &["@", "%00", "%2e", "\\", "//", "127.1", "[::1]", "0x", "#", "?", ":443", "..", "xn--", "。", "\u{ad}"],
        bytes_max: 9_000,
        ..Format::new("url", targets::url)
    });
}

#[test]
fn r25_rest_requests() {
    check(&Format {
        corpus: texts(&[
            "GET /v1/Account/MATESTOFFHOOK0000001/Call/?limit=20&offset=0&end_time__gte=2026-11-20&bill_duration__gt=5\n",
            "GET /v1/Account/MATESTOFFHOOK0000001/Call/?from_number=%2B91&to_number=1&call_direction=inbound&subaccount=S\n",
            "DELETE /v1/Account/MATESTOFFHOOK0000001/Call/00000000-0000-0000-0000-000000000001/\n",
            "GET /api/v1/calls/00000000-0000-0000-0000-000000000001/events?follow=1\n",
            "POST /api/v1/xml/check\n<Response><Speak>Hello</Speak></Response>",
            "GET /v1/Account/MATESTOFFHOOK0000001/Call/?status=live&hangup_cause_code=4000&hangup_source=x\n",
        ]),
        words: &[
            "%00",
            "%ff",
            "&limit=",
            "&offset=18446744073709551615",
            "&end_time__lt=9999-12-31",
            "'",
            "/",
            "..",
            "%2f",
        ],
        bytes_max: 8_000,
        ..Format::new("rest", targets::rest)
    });
}

#[test]
fn r25_event_log() {
    check(&Format {
        corpus: fixtures("calls", ".jsonl"),
        words: &[
            "\"at\":18446744073709551615",
            "\"at\":0",
            "\"outputs\":[]",
            "null",
            "\n",
            "{\"fact\":\"timer\"}",
            "[[[[[[",
        ],
        bytes_max: 60_000,
        ..Format::new("event_log", targets::event_log)
    });
}

#[test]
fn r25_webhook_requests() {
    check(&Format {
        corpus: texts(&[
            "hub.mode=subscribe&hub.verify_token=token&hub.challenge=1%2B1\nsha256=bed61520b90242fb6614e9b34bd0aa37e2ac39f87c5176bb0e2452702958b82a",
            "rc=2&rp=4xx&ct=100&rt=40000&tt=1\nsha256=",
        ]),
        words: &["hub.challenge=", "&", "%ff", "%", "sha256=", "sha1=", "="],
        bytes_max: 8_000,
        ..Format::new("webhook_request", targets::webhook_request)
    });
}
