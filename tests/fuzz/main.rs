//! Fuzzing as tests (`docs/reference/reliability.md#r25`): every format that strangers can send is
//! tested with its fixtures and then, for some seconds, with mutations of them.
//!
//! `targets` has one function per format, which the cargo-fuzz targets in `fuzz/` also call.
//! `engine` mutates and checks: no panic, no excessive work, no allocation far beyond the input
//! size. Each format runs for five seconds. For longer runs: `OFFHOOK_FUZZ_SECONDS=60
//! OFFHOOK_FUZZ_SEED=7 cargo test --test fuzz`.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod alloc;
mod engine;
mod targets;

use std::path::Path;

use engine::{Format, check};

#[global_allocator]
static ALLOCATOR: alloc::CountingAllocator = alloc::CountingAllocator;

/// Returns every fixture below `folder` with a name that ends in `ending`, sorted by path.
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
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder),
        ending,
        &mut paths,
    );
    paths.sort();
    assert!(!paths.is_empty(), "fixtures/{folder} holds files ending in {ending}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Returns true if times are asserted too, on an otherwise idle machine.
fn figures() -> bool {
    std::env::var_os("OFFHOOK_TEST_FIGURES").is_some()
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
    check(&Format {
        corpus: targets::stun_corpus(),
        bytes_max: 2_000,
        ..Format::new("stun", targets::stun)
    });
}

#[test]
fn r25_telephone_event() {
    let press: Vec<u8> =
        (0u8..40).flat_map(|n| [n / 8, 0x0a | (n % 8 / 7) << 7, 0, 160, 5, n]).collect();
    check(&Format {
        corpus: vec![press],
        bytes_max: 4_000,
        ..Format::new("telephone_event", targets::telephone_event)
    });
}

#[test]
fn r25_r19_dtls() {
    check(&Format {
        corpus: targets::dtls_corpus(),
        bytes_max: 6_000,
        ..Format::new("dtls", targets::datagrams)
    });
}

#[test]
fn r25_r19_rtp_and_rtcp() {
    check(&Format {
        corpus: targets::rtp_corpus(),
        bytes_max: 4_000,
        ..Format::new("rtp", targets::datagrams)
    });
}

#[test]
fn r25_opus() {
    check(&Format {
        corpus: targets::opus_corpus(),
        bytes_max: 3_000,
        ..Format::new("opus", targets::opus)
    });
}

/// Half a second of audio is also resampled and encoded, without optimisation.
const AUDIO_MILLIS: u64 = 1_500;

#[test]
fn r25_audio_files() {
    check(&Format {
        corpus: fixtures("audio", ".ogg"),
        words: &[
            "OggS",
            "OpusHead",
            "OpusTags",
            "\u{1}vorbis",
            "\u{5}vorbis",
            "RIFF",
            "ID3\u{4}\0\0",
        ],
        bytes_max: 40_000,
        millis_max: AUDIO_MILLIS,
        ..Format::new("audio", targets::audio)
    });
}

#[test]
fn r25_wav_header() {
    check(&Format {
        corpus: fixtures("audio", ".wav")
            .into_iter()
            .map(|file| file.into_iter().take(3_000).collect())
            .collect(),
        words: &[
            "RIFF",
            "RIFX",
            "RF64",
            "WAVE",
            "fmt \u{10}\0\0\0",
            "data",
            "LIST",
            "fact",
            "\0\0\0\0",
            "ds64",
        ],
        bytes_max: 8_000,
        millis_max: AUDIO_MILLIS,
        ..Format::new("wav", targets::audio)
    });
}

#[test]
fn r25_mp3_header() {
    check(&Format {
        corpus: fixtures("audio", ".mp3"),
        words: &[
            "ID3\u{3}\0\0",
            "ID3\u{4}\0\0",
            "TAG",
            "Xing",
            "Info",
            "VBRI",
            "LAME",
            "\0\0\0\0",
            "APETAGEX",
        ],
        bytes_max: 8_000,
        millis_max: AUDIO_MILLIS,
        ..Format::new("mp3", targets::audio)
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
        // The parser keeps a position for every character of an error.
        largest_max: 400,
        total_max: 1_500,
        count_max: 16,
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
        words: &[
            "@", "%00", "%2e", "\\", "//", "127.1", "[::1]", "0x", "#", "?", ":443", "..", "xn--",
            "。", "\u{ad}",
        ],
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

#[test]
fn r25_stream_messages() {
    let silence = "/".repeat(3_200);
    let played = |kind: &str, hz: &str, payload: &str| {
        format!(
            "{{\"event\":\"playAudio\",\"media\":{{\"contentType\":\"{kind}\",\"sampleRate\":{hz},\"payload\":\"{payload}\"}}}}"
        )
    };
    let conversation = [
        played("audio/x-mulaw", "8000", &silence),
        "{\"event\":\"checkpoint\",\"streamId\":\"1\",\"name\":\"greeting\"}".to_owned(),
        played("audio/x-l16", "\"16000\"", "AAABAA=="),
        "{\"event\":\"sendDTMF\",\"dtmf\":\"12#w\"}".to_owned(),
        "{\"event\":\"clearAudio\",\"streamId\":\"1\"}".to_owned(),
        played("audio/x-l16;rate=8000", "8000", &silence),
    ];
    check(&Format {
        corpus: vec![conversation.join("\n").into_bytes()],
        words: &[
            "\n",
            "{\"event\":\"playAudio\",\"media\":",
            "\"contentType\":\"audio/x-mulaw\"",
            "\"sampleRate\":4294967296",
            "\"sampleRate\":\" 16000 \"",
            "\"payload\":\"=\"",
            "{\"event\":\"checkpoint\",\"name\":\"\\ud83d\\ude00\"}",
            "\"name\":[[[[[[[[",
            "{\"event\":null}",
            "\"event\":\"\\u0070layAudio\"",
            "\\",
        ],
        bytes_max: 66_000,
        ..Format::new("stream_message", targets::stream_message)
    });
}

#[test]
fn r25_recogniser_responses() {
    check(&Format {
        corpus: texts(&[
            "{\"partial\":\"book a\"}\n{\"text\":\"book a table\",\"result\":[{\"word\":\"book\",\"conf\":0.98}]}\n{\"text\":\"for two\"}",
            "{\"text\":\"Book a table.\",\"segments\":[{\"text\":\" Book\",\"start\":0.0,\"end\":1.2,\"avg_logprob\":-0.2,\
             \"no_speech_prob\":0.01}],\"logprobs\":[{\"token\":\"Book\",\"logprob\":-0.1}]}",
            "{\"text\":\"damn\",\"confidence\":0.5}",
        ]),
        words: &[
            "\n",
            "{\"text\":\"\"}",
            "{\"partial\":\"\"}",
            "\"confidence\":1e38",
            "\"confidence\":-1",
            "\"avg_logprob\":1e38",
            "\"end\":-1e38",
            "\"segments\":[",
            "\"logprobs\":[",
            "\"conf\":",
            "\\u0000",
            "\\u2028",
            "null",
            "[[[[[[[[",
            "1e999",
        ],
        // Every interim result repeats the text so far.
        bytes_max: 8_000,
        ..Format::new("recogniser", targets::recogniser)
    });
}

/// Returns a body of 100 KiB that repeats one piece.
fn filled(before: &str, piece: &str, after: &str) -> Vec<u8> {
    let times = (102_400 - before.len() - after.len()) / piece.len();
    [before, &piece.repeat(times), after].concat().into_bytes()
}

/// Any body of 100 KiB is parsed or refused with at most 4 MiB, on a stack that is too small for
/// recursion on its depth, and in 20 ms (`docs/reference/reliability.md#r18`). The work is measured
/// in allocations; the time only with `OFFHOOK_TEST_FIGURES` set.
#[test]
fn r18_any_body_is_judged_in_bounded_work_and_memory() {
    let attributes: String = (0..64).map(|n| format!(" a{n}=''")).collect();
    let bodies = [
        ("nesting", filled("", "<a>", "")),
        ("nesting inside", filled("<Response>", "<Speak>", "</Response>")),
        ("attributes", filled("<Response><Wait", " a=''", "/></Response>")),
        (
            "elements with 64 attributes",
            filled("<Response>", &format!("<Wait{attributes}/>"), "</Response>"),
        ),
        ("elements", filled("<Response>", "<Hangup/>", "</Response>")),
        ("unknown elements", filled("<Response>", "<Spaek/>", "</Response>")),
        ("references", filled("<Response><Speak>", "&#38;", "</Speak></Response>")),
        ("references to nothing", filled("<Response><Speak>", "&a;", "</Speak></Response>")),
        ("an entity bomb", filled("<!DOCTYPE r [", "<!ENTITY a '&a;&a;'>", "]><Response/>")),
        ("comments", filled("<Response>", "<!---->", "</Response>")),
        ("sections", filled("<Response><Speak>", "<![CDATA[a]]>", "</Speak></Response>")),
        ("instructions", filled("<Response>", "<?a b?>", "</Response>")),
        ("brackets", filled("<Response>", "<", "")),
        ("quotes", filled("<Response><a b=", "\"'", "")),
        ("text", filled("<Response><Speak>", "hello, ", "</Speak></Response>")),
        (
            "a phrase in tongues",
            filled("<Response><Speak>", "<s>é</s><break time='1s'/>", "</Speak></Response>"),
        ),
        (
            "digits",
            filled(
                "<Response><Speak><say-as interpret-as='cardinal'>",
                "9",
                "</say-as></Speak></Response>",
            ),
        ),
        ("UTF-16", [&[0xfe, 0xff][..], &[0, b'<'].repeat(51_199)].concat()),
        ("zeroes", vec![0; 102_400]),
    ];
    // Without optimisation the parser is many times slower.
    let millis = if cfg!(debug_assertions) { 300 } else { 20 };
    for (name, body) in bodies {
        let (_, usage) = alloc::measure(|| drop(xml::parse(&body, None)));
        assert!(usage.peak < 4 << 20, "{name}: {usage:?}");
        assert!(usage.total < 8 << 20 && usage.count < 50_000, "{name}: {usage:?}");
        if figures() {
            let fastest = engine::fastest_of_five(|| drop(xml::parse(&body, None)));
            assert!(fastest.as_millis() < millis, "{name}: {fastest:?}");
        }
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn(move || drop(xml::parse(&body, None))).unwrap().join().unwrap();
    }
}

/// Every format here has a cargo-fuzz target, and vice versa.
#[test]
fn r25_every_target_exists_here_and_in_fuzz() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let here: std::collections::BTreeSet<String> = read("tests/fuzz/main.rs")
        .split("Format::new(\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.contains(')'))
        .collect();
    let manifest: toml::Table = read("fuzz/Cargo.toml").parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap();
    let named = |key: &str| {
        bins.iter().map(|bin| bin[key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(named("name").into_iter().collect::<std::collections::BTreeSet<_>>(), here);
    let files: std::collections::BTreeSet<String> =
        std::fs::read_dir(root.join("fuzz/fuzz_targets"))
            .unwrap()
            .map(|file| format!("fuzz_targets/{}", file.unwrap().file_name().to_string_lossy()))
            .collect();
    assert_eq!(named("path").into_iter().collect::<std::collections::BTreeSet<_>>(), files);
}
