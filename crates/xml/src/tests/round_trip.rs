//! Writing elements and parsing the result gives equal elements.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ast::*;
use model::{Digit, Method};

fn seconds(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

/// Text that is trimmed and without double spaces, as bodies and attributes are after parsing.
fn text() -> impl Strategy<Value = String> {
    "[a-z&<>\"'é😀\\]-]{1,8}( [A-Z0-9&;#]{1,6}){0,3}"
}

fn url() -> impl Strategy<Value = DocUrl> {
    "https?://[a-z]{1,8}\\.example\\.com(:[1-9][0-9]{2})?/[a-z&=?%#'\"<>]{0,12}"
        .prop_map(|u| DocUrl(u.into()))
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::Get, Method::Post])
}

fn target() -> impl Strategy<Value = Target> {
    (url(), method()).prop_map(|(url, method)| Target { url, method })
}

fn digit() -> impl Strategy<Value = Digit> {
    (0..12u8).prop_map(|event| Digit::from_event(event).unwrap())
}

fn repeat() -> impl Strategy<Value = Repeat> {
    prop_oneof![Just(Repeat::Endless), (1..=10_000u16).prop_map(Repeat::Times)]
}

fn language() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["en-US", "hi-IN", "es", "zh-Hans-CN", "es-419"])
        .prop_map(str::to_owned)
}

/// Words, mostly followed by a space. [`collapse`] brings the nodes into the parser's form.
fn speech_nodes() -> impl Strategy<Value = Vec<SpeechNode>> {
    let text = "[a-z&<>é]{1,8}( [a-z]{1,4}){0,2} ?".prop_map(SpeechNode::Text);
    let pause = (0..=10_000u32).prop_map(|millis| SpeechNode::Break { millis });
    let sub = (text_attribute(), "[a-z]{1,5}").prop_map(|(alias, text)| SpeechNode::Tag {
        name: SsmlTag::Sub,
        attributes: vec![("alias".to_owned(), alias)],
        content: Speech(vec![SpeechNode::Text(text)]),
    });
    let leaf = prop_oneof![4 => text, 1 => pause, 1 => sub];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        let tag = prop::sample::select(vec![
            (SsmlTag::Lang, vec![("xml:lang".to_owned(), "fr-FR".to_owned())]),
            (
                SsmlTag::Prosody,
                vec![
                    ("rate".to_owned(), "90%".to_owned()),
                    ("volume".to_owned(), "+6dB".to_owned()),
                ],
            ),
        ]);
        (tag, prop::collection::vec(inner, 0..4)).prop_map(|((name, attributes), content)| {
            SpeechNode::Tag { name, attributes, content: Speech(content) }
        })
    });
    prop::collection::vec(tree, 0..5)
}

fn text_attribute() -> impl Strategy<Value = String> {
    "[a-z&<>\"'é]{1,8}"
}

/// Merges adjacent texts and collapses white space. A simple equivalent of `lint::speak`.
fn collapse(nodes: Vec<SpeechNode>) -> Speech {
    fn merge(nodes: Vec<SpeechNode>, spaced: &mut bool) -> Vec<SpeechNode> {
        let mut out: Vec<SpeechNode> = Vec::new();
        for node in nodes {
            match node {
                SpeechNode::Text(text) => {
                    let text: String = text
                        .chars()
                        .filter(|&c| {
                            let keep = c != ' ' || !*spaced;
                            *spaced = c == ' ';
                            keep
                        })
                        .collect();
                    match out.last_mut() {
                        _ if text.is_empty() => {}
                        Some(SpeechNode::Text(before)) => before.push_str(&text),
                        _ => out.push(SpeechNode::Text(text)),
                    }
                }
                SpeechNode::Tag { name, attributes, content } => {
                    let content = Speech(merge(content.0, spaced));
                    out.push(SpeechNode::Tag { name, attributes, content });
                }
                pause @ SpeechNode::Break { .. } => out.push(pause),
            }
        }
        out
    }

    fn last_text(nodes: &mut [SpeechNode]) -> Option<&mut String> {
        nodes.iter_mut().rev().find_map(|node| match node {
            SpeechNode::Text(text) => Some(text),
            SpeechNode::Tag { content, .. } => last_text(&mut content.0),
            SpeechNode::Break { .. } => None,
        })
    }
    let mut nodes = merge(nodes, &mut true);
    if let Some(text) = last_text(&mut nodes) {
        text.truncate(text.trim_end().len());
    }
    Speech(nodes)
}

fn speak() -> impl Strategy<Value = Speak> {
    let voice = prop_oneof![
        Just(Voice::Woman),
        Just(Voice::Man),
        prop::sample::select(vec!["Joanna", "Matthew-Neural"])
            .prop_map(|name| Voice::Polly(name.to_owned())),
    ];
    (speech_nodes(), voice, prop::option::of(language()), repeat()).prop_map(
        |(nodes, voice, language, repeat)| Speak {
            speech: collapse(nodes),
            voice,
            language,
            repeat,
        },
    )
}

fn play() -> impl Strategy<Value = Play> {
    (url(), repeat()).prop_map(|(url, repeat)| Play { url, repeat })
}

fn wait() -> impl Strategy<Value = Wait> {
    let silence = prop::option::of((1..=60_000u64).prop_map(Duration::from_millis));
    let number = || 0..=u32::MAX;
    let beep = (number(), number(), number(), number()).prop_map(
        |(duration_ms, inter_silence_ms, intra_silence_ms, threshold)| Beep {
            duration_ms,
            inter_silence_ms,
            intra_silence_ms,
            threshold,
        },
    );
    let beep = prop::option::of(prop_oneof![Just(Beep::default()), beep]);
    (seconds(1..=14_400), silence, beep).prop_map(|(length, min_silence, beep)| Wait {
        length,
        min_silence,
        beep,
    })
}

fn prompts() -> impl Strategy<Value = Vec<Prompt>> {
    let prompt = prop_oneof![
        speak().prop_map(Prompt::Speak),
        play().prop_map(Prompt::Play),
        wait().prop_map(Prompt::Wait)
    ];
    prop::collection::vec(prompt, 0..3)
}

fn get_input() -> impl Strategy<Value = GetInput> {
    let input =
        prop::sample::select(vec![InputType::Dtmf, InputType::Speech, InputType::DtmfSpeech]);
    let times = (
        seconds(5..=60),
        seconds(2..=10),
        prop::option::of(seconds(2..=10)),
        prop::option::of(seconds(1..=60)),
    );
    let words = (
        prop::sample::select(vec!["default", "phone_call", "latest_long"]).prop_map(str::to_owned),
        prop::collection::vec("[a-z&]{1,9}( [a-z]{1,4})?", 0..4),
        language(),
    );
    (
        (target(), any::<bool>(), input),
        times,
        (prop::option::of(digit()), 1..=32u8, 1..=10u8),
        words,
        (prop::option::of(target()), any::<bool>(), any::<bool>(), prompts()),
    )
        .prop_map(
            |(
                (action, redirect, input_type),
                times,
                keys,
                words,
                (interim, profanity_filter, log, prompts),
            )| {
                GetInput {
                    action,
                    redirect,
                    input_type,
                    execution_timeout: times.0,
                    digit_end_timeout: times.1,
                    speech_end_timeout: times.2,
                    start_input_timeout: times.3,
                    finish_on_key: keys.0,
                    num_digits: keys.1,
                    retries: keys.2,
                    speech_model: words.0,
                    hints: words.1,
                    language: words.2,
                    interim,
                    profanity_filter,
                    log,
                    prompts,
                }
            },
        )
}

fn get_digits() -> impl Strategy<Value = GetDigits> {
    (
        (prop::option::of(target()), any::<bool>(), seconds(1..=3_600), seconds(1..=60)),
        (prop::option::of(digit()), 1..=99u8, 1..=100u8, any::<bool>()),
        (prop::collection::vec(digit(), 1..=12), prop::option::of(url()), any::<bool>(), prompts()),
    )
        .prop_map(|(first, keys, (valid_digits, invalid_digits_sound, log, prompts))| {
            GetDigits {
                action: first.0,
                redirect: first.1,
                timeout: first.2,
                digit_timeout: first.3,
                finish_on_key: keys.0,
                num_digits: keys.1,
                retries: keys.2,
                play_beep: keys.3,
                valid_digits,
                invalid_digits_sound,
                log,
                prompts,
            }
        })
}

fn transcription() -> impl Strategy<Value = Option<Transcription>> {
    let kind = prop::sample::select(vec!["auto", "hybrid", "manual"]).prop_map(str::to_owned);
    prop::option::of((kind, prop::option::of(target())).prop_map(|(kind, target)| Transcription {
        kind,
        target,
        report_full: false,
    }))
}

fn record() -> impl Strategy<Value = Record> {
    (
        (prop::option::of(target()), any::<bool>(), any::<bool>(), seconds(1..=3_600)),
        (
            prop::option::of(seconds(1..=14_400)),
            any::<bool>(),
            prop::collection::vec(digit(), 0..5),
        ),
        (
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            transcription(),
            any::<bool>(),
            prop::option::of(target()),
        ),
    )
        .prop_map(
            |(first, second, (session, on_dial, stereo, transcription, full, callback))| Record {
                action: first.0,
                redirect: first.1,
                mp3: first.2,
                timeout: first.3,
                max_length: second.0,
                play_beep: second.1,
                finish_on_key: second.2,
                record_session: session,
                start_on_dial_answer: on_dial,
                stereo,
                transcription: transcription.map(|t| Transcription { report_full: full, ..t }),
                callback,
            },
        )
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-zA-Z0-9_-]{1,6}", "[a-z=&<\"]{0,6}"), 0..3)
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[0-9*#]{1,16}", 0..3)
}

fn dial() -> impl Strategy<Value = Dial> {
    let music = prop_oneof![
        Just(DialMusic::RingBack),
        Just(DialMusic::None),
        url().prop_map(DialMusic::Document)
    ];
    let to = (
        (0..2u8, "[1-9][0-9]{4,14}"),
        prop::option::of("[0-9wW*#]{1,8}(@200)?"),
        any::<bool>(),
        pairs(),
        prop::option::of(text()),
        prop::option::of(text()),
    );
    (
        (
            any::<bool>(),
            "[1-9][0-9]{4,14}",
            prop::option::of(text()),
            prop::option::of(target()),
            any::<bool>(),
        ),
        (seconds(1..=600), seconds(1..=86_400), any::<bool>()),
        (prop::option::of(url()), prop::option::of(digit()), seconds(1..=600), music),
        (prop::option::of(target()), patterns(), patterns(), pairs()),
        prop::collection::vec(to, 1..4),
    )
        .prop_map(
            |(
                (whatsapp, caller_id, caller_name, action, redirect),
                times,
                confirm,
                last,
                targets,
            )| Dial {
                whatsapp,
                caller_id: Some(caller_id),
                caller_name,
                action,
                redirect,
                timeout: times.0,
                time_limit: times.1,
                hangup_on_star: times.2,
                confirm_sound: confirm.0,
                confirm_key: confirm.1,
                confirm_timeout: confirm.2,
                dial_music: confirm.3,
                callback: last.0,
                digits_match: last.1,
                digits_match_b_leg: last.2,
                sip_headers: last.3,
                targets: targets
                    .into_iter()
                    .map(
                        |(
                            (kind, number),
                            send_digits,
                            send_on_preanswer,
                            sip_headers,
                            caller_id,
                            caller_name,
                        )| {
                            DialTarget {
                                at: Position::default(),
                                address: match (whatsapp, kind) {
                                    (true, _) => DialAddress::WhatsappUser(number),
                                    (false, 0) => DialAddress::Pstn(number),
                                    (false, _) => {
                                        DialAddress::Sip(format!("sip:{number}@b.example.com"))
                                    }
                                },
                                send_digits,
                                send_on_preanswer,
                                sip_headers,
                                caller_id,
                                caller_name,
                            }
                        },
                    )
                    .collect(),
            },
        )
}

fn conference() -> impl Strategy<Value = Conference> {
    let sound = || {
        prop_oneof![
            Just(MemberSound::None),
            (1..=2u8).prop_map(MemberSound::Beep),
            url().prop_map(|url| MemberSound::Document(Target { url, method: Method::Post })),
        ]
    };
    (
        (text(), any::<[bool; 11]>()),
        (sound(), sound(), prop::option::of(url()), 1..=20u8, seconds(1..=86_400)),
        (
            prop::option::of(target()),
            prop::option::of(target()),
            patterns(),
            prop::option::of("[0-9wW]{1,8}"),
            transcription(),
        ),
    )
        .prop_map(|((name, flags), sounds, last)| Conference {
            name,
            muted: flags[0],
            hangup_on_star: flags[1],
            end_on_exit: flags[2],
            record: flags[3],
            floor_event: flags[4],
            start_on_enter: flags[5],
            stay_alone: flags[6],
            redirect: flags[7],
            relay_dtmf: flags[8],
            record_mp3: flags[9],
            record_when_alone: flags[10],
            enter_sound: sounds.0,
            exit_sound: sounds.1,
            wait_sound: sounds.2,
            max_members: sounds.3,
            time_limit: sounds.4,
            action: last.0,
            callback: last.1,
            digits_match: last.2,
            send_digits: last.3,
            transcription: last.4,
        })
}

fn stream() -> impl Strategy<Value = Stream> {
    (
        ("wss?://[a-z]{1,8}\\.example\\.com/[a-z&]{0,6}", any::<[bool; 3]>(), 60..=100u8),
        (
            prop::sample::select(vec!["inbound", "outbound", "both"]),
            seconds(1..=86_400),
            prop::option::of(target()),
        ),
        (prop::sample::select(vec!["audio/x-l16;rate=8000", "audio/x-mulaw;rate=8000"]), pairs()),
    )
        .prop_map(
            |((url, [bidirectional, keep_call_alive, noise_cancellation], level), middle, last)| {
                Stream {
                    url: DocUrl(url.into()),
                    bidirectional,
                    audio_track: if bidirectional { "inbound" } else { middle.0 }.to_owned(),
                    timeout: middle.1,
                    status_callback: middle.2,
                    content_type: last.0.to_owned(),
                    extra_headers: last.1,
                    keep_call_alive,
                    noise_cancellation,
                    noise_cancellation_level: level,
                }
            },
        )
}

fn multi_party_call() -> impl Strategy<Value = MultiPartyCall> {
    let role = prop::sample::select(vec!["agent", "supervisor", "customer", "ai-agent"])
        .prop_map(str::to_owned);
    (text(), role, prop::option::of(300..=28_800u32), prop::option::of(url())).prop_map(
        |(name, role, duration, url)| {
            let attributes = [
                ("maxDuration", duration.map(|d| d.to_string())),
                ("waitMusicUrl", url.map(|u| u.0.to_string())),
            ];
            let given = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
            MultiPartyCall {
                name,
                role,
                attributes: attributes.into_iter().filter_map(given).collect(),
            }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let number = || "[1-9][0-9]{4,14}";
    let kind = prop::sample::select(vec!["sms", "whatsapp"]).prop_map(str::to_owned);
    (text(), number(), prop::collection::vec(number(), 1..3), kind, prop::option::of(target()))
        .prop_map(|(text, src, dst, kind, callback)| Message { text, src, dst, kind, callback })
}

fn dtmf() -> impl Strategy<Value = Dtmf> {
    ("[0-9wW*#]{1,64}", any::<bool>())
        .prop_map(|(digits, asynchronous)| Dtmf { digits, asynchronous })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    target().prop_map(|target| Redirect { target })
}

fn element_of(kind: ElementKind) -> Element {
    Element { at: Position::default(), kind }
}

fn element() -> impl Strategy<Value = Element> {
    let reason =
        prop::option::of(prop::sample::select(vec![HangupReason::Rejected, HangupReason::Busy]));
    let hangup = (reason, prop::option::of(seconds(1..=86_400)))
        .prop_map(|(reason, schedule)| Hangup { reason, schedule });
    let early = prop_oneof![
        speak().prop_map(ElementKind::Speak),
        wait().prop_map(ElementKind::Wait),
        get_digits().prop_map(Box::new).prop_map(ElementKind::GetDigits),
        redirect().prop_map(ElementKind::Redirect),
        message().prop_map(Box::new).prop_map(ElementKind::Message),
        dtmf().prop_map(ElementKind::Dtmf),
    ]
    .prop_map(element_of);
    let pre_answer = prop::collection::vec(early, 0..3).prop_map(|children| PreAnswer { children });
    prop_oneof![
        speak().prop_map(ElementKind::Speak),
        play().prop_map(ElementKind::Play),
        wait().prop_map(ElementKind::Wait),
        get_input().prop_map(Box::new).prop_map(ElementKind::GetInput),
        get_digits().prop_map(Box::new).prop_map(ElementKind::GetDigits),
        record().prop_map(Box::new).prop_map(ElementKind::Record),
        dial().prop_map(Box::new).prop_map(ElementKind::Dial),
        conference().prop_map(Box::new).prop_map(ElementKind::Conference),
        multi_party_call().prop_map(ElementKind::MultiPartyCall),
        stream().prop_map(Box::new).prop_map(ElementKind::Stream),
        dtmf().prop_map(ElementKind::Dtmf),
        redirect().prop_map(ElementKind::Redirect),
        hangup.prop_map(ElementKind::Hangup),
        pre_answer.prop_map(ElementKind::PreAnswer),
        message().prop_map(Box::new).prop_map(ElementKind::Message),
    ]
    .prop_map(element_of)
}

/// Removes the source positions, so that elements of differently formatted documents compare.
fn without_positions(elements: &[Element]) -> Vec<Element> {
    elements
        .iter()
        .cloned()
        .map(|mut element| {
            element.at = Position::default();
            match &mut element.kind {
                ElementKind::PreAnswer(pre) => pre.children = without_positions(&pre.children),
                ElementKind::Dial(dial) => {
                    dial.targets.iter_mut().for_each(|t| t.at = Position::default())
                }
                _ => {}
            }
            element
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn written_elements_parse_to_equal_elements(elements in prop::collection::vec(element(), 1..6)) {
        let text = write::document(&elements);
        let parsed = parse(text.as_bytes(), None);
        let Some(document) = parsed.document else {
            return Err(TestCaseError::fail(format!("{text}\n{:?}", parsed.findings)));
        };
        prop_assert_eq!(without_positions(&document.elements), elements, "{}", text);
    }
}

#[test]
fn fixtures_round_trip() {
    for (file, body) in fixture_documents() {
        if let Some(document) = parse(&body, None).document {
            let again = parse(write::document(&document.elements).as_bytes(), None);
            assert_eq!(
                without_positions(&again.document.expect(&file).elements),
                without_positions(&document.elements),
                "{file}"
            );
        }
    }
}
