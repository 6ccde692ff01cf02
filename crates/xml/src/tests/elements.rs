//! Rules about elements: placement, bodies, combinations and order. Also defaults and the first
//! error.

use std::time::Duration;

use super::*;
use crate::ast::{
    Beep, DialMusic, DocUrl, GetDigits, GetInput, InputType, Repeat, Speech, SpeechNode, SsmlTag,
    Target, Voice, Wait,
};
use model::{Digit, Method};

fn check(cases: &[(&str, &[&str])]) {
    for (inner, rules) in cases {
        assert_eq!(violated_rules(inner), *rules, "{inner}");
    }
}

#[test]
fn ssml_tags_take_only_their_allowed_children() {
    // The table in docs/reference/xml.md#ssml.
    let tags = ["break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w"];
    let may = |outer: &str, inner: &str| match outer {
        "Speak" | "lang" | "prosody" => true,
        "emphasis" | "s" => !matches!(inner, "p" | "s"),
        "p" => inner != "p",
        "w" => !matches!(inner, "p" | "s" | "lang" | "w"),
        _ => false,
    };
    let open = |tag: &str| match tag {
        "lang" => "<lang xml:lang=\"fr-FR\">".to_owned(),
        "phoneme" => "<phoneme alphabet=\"ipa\" ph=\"a\">".to_owned(),
        "prosody" => "<prosody rate=\"slow\">".to_owned(),
        "say-as" => "<say-as interpret-as=\"digits\">".to_owned(),
        "sub" => "<sub alias=\"a\">".to_owned(),
        "w" => "<w role=\"amazon:VB\">".to_owned(),
        tag => format!("<{tag}>"),
    };
    let speak =
        |inside: &str| violated_rules(&format!("<Speak voice=\"Polly.Joey\">{inside}</Speak>"));
    for outer in tags {
        assert!(speak(&format!("{}</{outer}>", open(outer))).is_empty(), "{outer} in Speak");
        for inner in tags {
            let document = format!("{}{}</{inner}></{outer}>", open(outer), open(inner));
            let expected: &[&str] = if may(outer, inner) { &[] } else { &["E203"] };
            assert_eq!(speak(&document), expected, "{inner} in {outer}");
        }
        assert_eq!(
            speak(&format!("{}<Play>x</Play></{outer}>", open(outer))),
            ["E203"],
            "Play in {outer}"
        );
        assert_eq!(
            speak(&format!("{}<mark/></{outer}>", open(outer))),
            ["E202"],
            "mark in {outer}"
        );
    }
    assert_eq!(speak("<break>x</break>"), ["W304"]);
}

#[test]
fn checks_ssml_values_at_their_limits() {
    let speak =
        |inside: &str| violated_rules(&format!("<Speak voice=\"Polly.Joey\">a{inside}</Speak>"));
    for good in [
        "<break time=\"10s\"/>",
        "<break time=\"10000ms\"/>",
        "<break time=\"0.5s\"/>",
        "<break time=\"0ms\"/>",
        "<break strength=\"x-strong\"/>",
        "<break strength=\"none\" time=\"1s\"/>",
        "<emphasis level=\"reduced\">b</emphasis>",
        "<prosody volume=\"+6dB\">b</prosody>",
        "<prosody volume=\"-0.5dB\">b</prosody>",
        "<prosody rate=\"20%\">b</prosody>",
        "<prosody rate=\"200%\">b</prosody>",
        "<prosody pitch=\"+50%\">b</prosody>",
        "<prosody pitch=\"-1%\">b</prosody>",
        "<prosody volume=\"silent\" rate=\"x-fast\" pitch=\"default\">b</prosody>",
        "<say-as interpret-as=\"date\" format=\"yyyymmdd\">b</say-as>",
        "<w role=\"ivona:VBD\">b</w>",
    ] {
        assert!(speak(good).is_empty(), "{good}: {:?}", speak(good));
    }
    for bad in [
        "<break time=\"10.1s\"/>",
        "<break time=\"10001ms\"/>",
        "<break time=\"1 s\"/>",
        "<break time=\"1\"/>",
        "<break time=\".5s\"/>",
        "<break time=\"1.s\"/>",
        "<break time=\"-1s\"/>",
        "<break time=\"1m\"/>",
        "<break time=\"ms\"/>",
        "<break time=\"1e3ms\"/>",
        "<break strength=\"Strong\"/>",
        "<emphasis level=\"STRONG\">b</emphasis>",
        "<prosody volume=\"6dB\">b</prosody>",
        "<prosody volume=\"+6db\">b</prosody>",
        "<prosody volume=\"+dB\">b</prosody>",
        "<prosody rate=\"19%\">b</prosody>",
        "<prosody rate=\"201%\">b</prosody>",
        "<prosody rate=\"+90%\">b</prosody>",
        "<prosody pitch=\"+51%\">b</prosody>",
        "<prosody pitch=\"+0%\">b</prosody>",
        "<prosody pitch=\"10%\">b</prosody>",
        "<say-as interpret-as=\"money\">b</say-as>",
        "<say-as interpret-as=\"date\" format=\"dm y\">b</say-as>",
        "<phoneme alphabet=\"IPA\" ph=\"a\">b</phoneme>",
        "<w role=\"VB\">b</w>",
        "<lang xml:lang=\"english\">b</lang>",
    ] {
        assert_eq!(speak(bad), ["E301"], "{bad}");
    }
    assert_eq!(speak("<prosody volume=\"\">b</prosody>"), ["W303", "E302"]);
    assert_eq!(speak("<lang xml:lang=\"\">b</lang>"), ["W303", "E302"]);
    assert_eq!(speak("<phoneme>b</phoneme>"), ["E302", "E302"]);
    assert_eq!(speak("<say-as interpret-as=\"digits\" format=\"mdy\">b</say-as>"), ["W312"]);
}

#[test]
fn collapses_white_space_across_tags() {
    let speech = |inner: &str| {
        let ElementKind::Speak(speak) = &elements(&format!("<Speak>{inner}</Speak>"))[0] else {
            panic!()
        };
        speak.speech.clone()
    };
    let text = |t: &str| SpeechNode::Text(t.to_owned());
    let tag = |name, attributes: &[(&str, &str)], content: Vec<SpeechNode>| SpeechNode::Tag {
        name,
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        content: Speech(content),
    };
    assert_eq!(speech("  two \n\t words  "), Speech(vec![text("two words")]));
    assert_eq!(
        speech("a\u{A0} b"),
        Speech(vec![text("a\u{A0} b")]),
        "only XML white space collapses"
    );
    assert_eq!(
        speech(" One <break time=\"1.5s\"/> two <sub alias=\" and three \"> &amp; 3 </sub> "),
        Speech(vec![
            text("One "),
            SpeechNode::Break { millis: 1_500 },
            text("two "),
            tag(SsmlTag::Sub, &[("alias", "and three")], vec![text("& 3")]),
        ])
    );
    assert_eq!(
        speech("a <p> </p> <break/> "),
        Speech(vec![text("a"), tag(SsmlTag::P, &[], vec![]), SpeechNode::Break { millis: 400 },])
    );
    assert_eq!(
        speech("<s xml:space=\"preserve\">x</s>").0,
        [tag(SsmlTag::S, &[], vec![text("x")])]
    );
}

#[test]
fn speak_has_at_most_3000_characters() {
    let long = "é".repeat(3_000);
    check(&[
        (&format!("<Speak>{long}</Speak>"), &[]),
        (&format!("<Speak>  {long}  </Speak>"), &[]),
        (&format!("<Speak>{long}.</Speak>"), &["E304"]),
        (
            &format!(
                "<Speak voice=\"Polly.Joey\">{}<p>{}</p><break/></Speak>",
                "a".repeat(1_500),
                "b".repeat(1_500)
            ),
            &[],
        ),
        (
            &format!(
                "<Speak voice=\"Polly.Joey\">{}<p>{}</p></Speak>",
                "a".repeat(1_500),
                "b".repeat(1_501)
            ),
            &["E304"],
        ),
    ]);
}

#[test]
fn checks_empty_speech_and_ssml_voices() {
    check(&[
        ("<Speak/>", &["W306"]),
        ("<Speak> \n </Speak>", &["W306"]),
        ("<Speak voice=\"Polly.Joey\"><break/></Speak>", &[]),
        ("<Speak><break/></Speak>", &["W313"]),
        ("<Speak voice=\"WOMAN\">a<break/></Speak>", &["W313"]),
        ("<Speak>a<Bogus>b</Bogus></Speak>", &["E202"]),
        ("<Speak>a<Wait length=\"0\"/></Speak>", &["E203"]),
    ]);
}

#[test]
fn elements_are_allowed_only_in_their_parents() {
    let all = [
        ("Speak", "<Speak>a</Speak>"),
        ("Play", "<Play>https://x.example.com/a</Play>"),
        ("Wait", "<Wait/>"),
        ("GetInput", "<GetInput action=\"https://x.example.com/a\"/>"),
        ("GetDigits", "<GetDigits/>"),
        ("Record", "<Record/>"),
        ("Dial", "<Dial><User>sip:a@b.example.com</User></Dial>"),
        ("Conference", "<Conference>room</Conference>"),
        ("MultiPartyCall", "<MultiPartyCall role=\"agent\">room</MultiPartyCall>"),
        ("Stream", "<Stream>wss://x.example.com/</Stream>"),
        ("DTMF", "<DTMF>1</DTMF>"),
        ("Redirect", "<Redirect>https://x.example.com/a</Redirect>"),
        ("Hangup", "<Hangup/>"),
        ("PreAnswer", "<PreAnswer/>"),
        ("Message", "<Message src=\"12345\" dst=\"12345\">a</Message>"),
        ("Response", "<Response/>"),
        ("Number", "<Number>12345</Number>"),
        ("User", "<User>sip:a@b.example.com</User>"),
        ("break", "<break/>"),
        ("p", "<p>a</p>"),
    ];
    let wrap = |parent: &str, inner: &str| match parent {
        "" => inner.to_owned(),
        "GetInput" => format!("<GetInput action=\"https://x.example.com/a\">{inner}</GetInput>"),
        "Stream" => format!("<Stream>wss://x.example.com/{inner}</Stream>"),
        "Play" => format!("<Play>https://x.example.com/{inner}</Play>"),
        "Redirect" => format!("<Redirect>https://x.example.com/{inner}</Redirect>"),
        "User" => format!("<Dial><User>sip:a@b.example.com{inner}</User></Dial>"),
        parent => format!("<{parent}>{inner}</{parent}>"),
    };
    for parent in [
        "",
        "GetInput",
        "GetDigits",
        "PreAnswer",
        "Wait",
        "Hangup",
        "Record",
        "Play",
        "Stream",
        "Redirect",
        "User",
    ] {
        for (child, inner) in all {
            let may = match parent {
                "" => !matches!(child, "Response" | "Number" | "User" | "break" | "p"),
                "GetInput" | "GetDigits" => matches!(child, "Speak" | "Play" | "Wait"),
                "PreAnswer" => {
                    matches!(
                        child,
                        "Speak" | "Play" | "Wait" | "GetDigits" | "Redirect" | "Message" | "DTMF"
                    )
                }
                _ => false,
            };
            let rules = violated_rules(&wrap(parent, inner));
            assert_eq!(
                !rules.contains(&"E203".to_owned()),
                may,
                "{child} in {parent:?}: {rules:?}"
            );
        }
        assert!(violated_rules(&wrap(parent, "<speak/>")).contains(&"E202".to_owned()));
    }
    // The content of unknown and misplaced elements is not checked.
    check(&[
        ("<Bogus a=\"\"><Bogus/>text<Play/></Bogus>", &["E202"]),
        ("<Number x=\"\"><Wait length=\"0\"/></Number>", &["E203"]),
    ]);
}

#[test]
fn checks_bodies() {
    let chars = |n: usize| "ü".repeat(n);
    check(&[
        ("<Play/>", &["E205"]),
        ("<Redirect><!-- x --> \n</Redirect>", &["E205"]),
        ("<Stream/>", &["E205"]),
        ("<DTMF/>", &["E205"]),
        ("<Conference> </Conference>", &["E205"]),
        (&format!("<Conference> {} </Conference>", chars(128)), &[]),
        (&format!("<Conference>{}</Conference>", chars(129)), &["E301"]),
        (&format!("<MultiPartyCall role=\"agent\">{}</MultiPartyCall>", chars(129)), &["E301"]),
        ("<MultiPartyCall/>", &["E302", "E205"]),
        (&format!("<Message src=\"12345\" dst=\"12345\">{}</Message>", chars(1_600)), &["W404"]),
        (
            &format!("<Message src=\"12345\" dst=\"12345\">{}</Message>", chars(1_601)),
            &["E301", "W404"],
        ),
        ("<Message/>", &["E302", "E302", "E205", "W404"]),
        ("<Wait>x</Wait>", &["W304"]),
        ("<Hangup>x</Hangup>", &["W304"]),
        ("<Record>x</Record>", &["W304"]),
        ("<PreAnswer>x</PreAnswer>", &["W304"]),
        ("<GetDigits>x<Wait/>y</GetDigits>", &["W304", "W304"]),
        ("<Dial>x<User>sip:a@b.example.com</User></Dial>", &["W304", "W403"]),
    ]);
}

#[test]
fn suggests_the_element_that_was_meant() {
    let hint = |inner: &str| {
        let document = format!("<Response>{inner}</Response>");
        let findings = crate::parse(document.as_bytes(), None).findings;
        findings.into_iter().find(|finding| finding.rule == "E202").expect("E202").hint
    };
    assert_eq!(hint("<Speek/>"), "did you mean Speak?");
    assert_eq!(hint("<Dail/>"), "did you mean Dial?");
    assert_eq!(hint("<GetDigit/>"), "did you mean GetDigits?");
    assert_eq!(hint("<GetInput><Spaek/></GetInput>"), "did you mean Speak?");
    assert_eq!(hint("<speak/>"), "write Speak: names are case-sensitive");
    let in_speak = hint("<Speak>a<speak>b</speak></Speak>");
    assert_eq!(in_speak, "remove <speak> and keep its content: Speak is the root of the SSML");
    assert!(hint("<Bogus/>").starts_with("allowed here: "));
}

#[test]
fn suggests_the_attribute_that_was_meant() {
    let hint = |inner: &str| {
        let document = format!("<Response>{inner}</Response>");
        crate::parse(document.as_bytes(), None).findings.remove(0).hint
    };
    assert_eq!(hint("<Wait lengths=\"1\"/>"), "did you mean length?");
    assert!(hint("<Wait x=\"1\"/>").starts_with("remove it, or write one of: length"));
}

#[test]
fn accepts_sip_addresses_at_the_host_of_the_node() {
    let dial = "<Response><Dial><User>sip:a@Calls.example.com:5061</User><User>sip:a@b.example.com</User></Dial></Response>";
    let rules = |host: &str| {
        let checked = crate::parse(dial.as_bytes(), None).allow_sip_host(host);
        checked.findings.into_iter().map(|f| f.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules("calls.example.com"), ["W403"]);
    assert_eq!(rules("c.example.com"), ["W403", "W403"]);
}

#[test]
fn checks_dial_and_its_targets() {
    let users = |n: usize| {
        format!(
            "<Dial callType=\"whatsapp\" callerId=\"918035737458\">{}</Dial>",
            "<User>919412341234</User>".repeat(n)
        )
    };
    check(&[
        (&users(1), &[]),
        (&users(20), &[]),
        (&users(21), &["E206"]),
        ("<Dial/>", &["E206"]),
        (
            "<Dial callType=\"whatsapp\" callerId=\"\"><User>919412341234</User></Dial>",
            &["W303", "E401"],
        ),
        ("<Dial callerId=\"Support\"><User>sip:a@b.example.com</User></Dial>", &["W403"]),
        (
            "<Dial callerId=\"Support\" callType=\"whatsapp\"><User>919412341234</User></Dial>",
            &["E301"],
        ),
        ("<Dial><User>sips:a@b.example.com:5061;transport=tls</User></Dial>", &["W403"]),
        ("<Dial><User>SIP:b.example.com</User></Dial>", &["W403"]),
        ("<Dial><User>sip:demo@phone.plivo.com:5061</User></Dial>", &[]),
        ("<Dial><User>sip:demo@Phone.Plivo.com</User></Dial>", &[]),
        ("<Dial><User>sip:phone.plivo.com</User></Dial>", &["W403"]),
        ("<Dial><User>sip:</User></Dial>", &["E402"]),
        ("<Dial><User>sip:@b.example.com</User></Dial>", &["E402"]),
        ("<Dial><User>sip:a b@c.example.com</User></Dial>", &["E402"]),
        ("<Dial><User>tel:12345</User></Dial>", &["E402"]),
        ("<Dial confirmKey=\"1\"><User>sip:a@b.example.com</User></Dial>", &["W312", "W403"]),
        ("<Dial confirmTimeout=\"9\"><User>sip:a@b.example.com</User></Dial>", &["W312", "W403"]),
        (
            "<Dial confirmSound=\"https://x.example.com/\" confirmKey=\"x\" confirmTimeout=\"9\"><User>sip:a@b.example.com</User></Dial>",
            &["E301", "W403"],
        ),
    ]);
}

#[test]
fn reports_attributes_without_effect() {
    let get = |attributes: &str| {
        violated_rules(&format!("<GetInput action=\"https://x.example.com/a\" {attributes}/>"))
    };
    assert!(
        get("inputType=\"dtmf speech\" numDigits=\"1\" hints=\"a\" speechEndTimeout=\"2\"")
            .is_empty()
    );
    assert_eq!(
        get("inputType=\"speech\" numDigits=\"1\" digitEndTimeout=\"2\" finishOnKey=\"\""),
        ["W312"; 3]
    );
    let speech = "speechEndTimeout=\"2\" speechModel=\"default\" hints=\"a\" language=\"en\" profanityFilter=\"true\" \
                  interimSpeechResultsCallback=\"https://x.example.com/\" interimSpeechResultsCallbackMethod=\"GET\"";
    assert_eq!(get(speech), ["W312"; 7]);
    assert_eq!(get("hints=\"\""), ["W303"], "an empty attribute counts as absent");
    assert_eq!(get("inputType=\"both\" hints=\"a\" numDigits=\"1\""), ["E301"]);
    assert_eq!(
        get("inputType=\"speech\" numDigits=\"0\""),
        ["E301", "W312"],
        "in addition to the finding about the value"
    );
    check(&[
        ("<Wait minSilence=\"5\"/>", &["W312"]),
        ("<Wait minSilence=\"5\" silence=\"false\"/>", &["W312"]),
        ("<Wait minSilence=\"5\" silence=\"true\"/>", &[]),
        (
            "<Record recordSession=\"true\" timeout=\"1\" finishOnKey=\"\" playBeep=\"false\"/>",
            &["W312", "W312", "W312"],
        ),
        ("<Record startOnDialAnswer=\"true\" timeout=\"1\"/>", &["W312"]),
        ("<Record recordSession=\"false\" timeout=\"1\"/>", &[]),
        (
            "<Stream noiseCancellationLevel=\"70\" noiseCancellation=\"true\">wss://x.example.com/</Stream>",
            &[],
        ),
        (
            "<Stream bidirectional=\"true\" audioTrack=\"Inbound\">wss://x.example.com/</Stream>",
            &["W302"],
        ),
        (
            "<Stream bidirectional=\"true\" audioTrack=\"outbound\">wss://x.example.com/</Stream>",
            &["E303"],
        ),
        ("<Stream audioTrack=\"both\">wss://x.example.com/</Stream>", &[]),
        (
            "<Stream bidirectional=\"true\" audioTrack=\"all\">wss://x.example.com/</Stream>",
            &["E301"],
        ),
    ]);
}

#[test]
fn reports_elements_that_never_run() {
    let endless = "<Play loop=\"0\">https://x.example.com/a</Play>";
    check(&[
        (&format!("{endless}<Wait/><Wait/>"), &["W307"]),
        ("<Play loop=\" 00 \">https://x.example.com/a</Play><Wait/>", &["W307"]),
        ("<Speak loop=\"0\">a</Speak><Hangup schedule=\"5\"/>", &["W307"]),
        ("<Redirect>https://x.example.com/a</Redirect><Hangup/>", &["W307"]),
        ("<Hangup/><PreAnswer/><Hangup schedule=\"1\"/>", &["W307"]),
        ("<Hangup schedule=\"\"/><Wait/>", &["W303", "W307"]),
        ("<Hangup schedule=\"x\"/><Wait/>", &["E301"]),
        ("<Hangup schedule=\"x\"/>", &["E301", "W305"]),
        ("<Hangup schedule=\"5\"/><Bogus/>", &["E202"]),
        ("<Redirect>nowhere</Redirect><Bogus/>", &["E311", "E202", "W307"]),
        (&format!("<GetDigits>{endless}<Wait/></GetDigits>"), &["W307"]),
        (&format!("<GetDigits>{endless}</GetDigits><Wait/>"), &[]),
        ("<PreAnswer><Redirect>https://x.example.com/a</Redirect><Wait/></PreAnswer>", &["W307"]),
        ("<GetDigits><Redirect>https://x.example.com/a</Redirect><Wait/></GetDigits>", &["E203"]),
        ("<Record/><PreAnswer/>", &["W309"]),
        ("<Record recordSession=\"True\"/><PreAnswer/>", &["W302"]),
        ("<Wait/><Message src=\"12345\" dst=\"12345\">a</Message><PreAnswer/>", &["W404"]),
        ("<Dial><User>sip:a@b.example.com</User></Dial><PreAnswer/>", &["W403"]),
        ("<DTMF>1</DTMF><PreAnswer/><PreAnswer/>", &["W309", "W309"]),
        (
            "<PreAnswer><DTMF>1</DTMF><GetDigits><Speak>a</Speak></GetDigits></PreAnswer>",
            &["W402", "W402"],
        ),
        ("", &["W308"]),
        ("text", &["W304", "W308"]),
        ("<Bogus/>", &["E202"]),
    ]);
}

#[test]
fn classifies_the_first_error() {
    let first =
        |inner: &str| parse(format!("<Response>{inner}</Response>").as_bytes(), None).first_fault;
    let cases = [
        ("<Wait/>", None),
        ("<Speak x=\"\">a</Speak>", None),
        ("<GetInput action=\"/menu\"/>", Some(FirstFault::ActionUrl)),
        ("<Record action=\"menu\"/>", Some(FirstFault::ActionUrl)),
        ("<Record callbackUrl=\"menu\"/>", Some(FirstFault::Other)),
        ("<Redirect>next</Redirect>", Some(FirstFault::RedirectUrl)),
        ("<Redirect/>", Some(FirstFault::Other)),
        ("<Play>next</Play>", Some(FirstFault::Other)),
        (
            "<Redirect method=\"PUT\">https://x.example.com/a</Redirect>",
            Some(FirstFault::RedirectMethod),
        ),
        ("<Redirect method=\"PUT\">next</Redirect>", Some(FirstFault::RedirectMethod)),
        (
            "<GetDigits method=\"PUT\" action=\"https://x.example.com/a\"/>",
            Some(FirstFault::ActionMethod),
        ),
        ("<GetDigits method=\"PUT\"/>", Some(FirstFault::Other)),
        (
            "<Record callbackMethod=\"PUT\" action=\"https://x.example.com/a\"/>",
            Some(FirstFault::Other),
        ),
        ("<Wait length=\"0\"/><GetInput action=\"/menu\"/>", Some(FirstFault::Other)),
        ("<GetInput action=\"/menu\"/><Bogus/>", Some(FirstFault::ActionUrl)),
        ("<unclosed>", Some(FirstFault::Other)),
    ];
    for (inner, expected) in cases {
        assert_eq!(first(inner), expected, "{inner}");
    }
}

#[test]
fn fills_in_defaults() {
    let url = |u: &str| DocUrl(u.into());
    let digits = |keys: &str| keys.chars().map(|c| Digit::try_from(c).unwrap()).collect::<Vec<_>>();
    let all = elements(
        "<Speak>a</Speak><Play>https://x.example.com/a</Play><Wait/><GetInput action=\"https://x.example.com/a\"/>\
         <GetDigits/><Record/><Dial><User>sip:a@b.example.com</User></Dial><Conference>room</Conference>\
         <Stream>wss://x.example.com/</Stream><DTMF>1</DTMF><PreAnswer/><Hangup/>",
    );
    let [
        ElementKind::Speak(speak),
        ElementKind::Play(play),
        ElementKind::Wait(wait),
        ElementKind::GetInput(get_input),
        ElementKind::GetDigits(get_digits),
        ElementKind::Record(record),
        ElementKind::Dial(dial),
        ElementKind::Conference(conference),
        ElementKind::Stream(stream),
        ElementKind::Dtmf(dtmf),
        ElementKind::PreAnswer(pre_answer),
        ElementKind::Hangup(hangup),
    ] = &all[..]
    else {
        panic!("{all:?}")
    };
    assert_eq!(
        (&speak.voice, &speak.language, speak.repeat),
        (&Voice::Woman, &None, Repeat::Times(1))
    );
    assert_eq!(play.repeat, Repeat::Times(1));
    assert_eq!(*wait, Wait { length: Duration::from_secs(1), min_silence: None, beep: None });
    let expected = GetInput {
        action: Target { url: url("https://x.example.com/a"), method: Method::Post },
        redirect: true,
        input_type: InputType::Dtmf,
        execution_timeout: Duration::from_secs(15),
        digit_end_timeout: Duration::from_secs(3),
        speech_end_timeout: None,
        start_input_timeout: None,
        finish_on_key: Digit::try_from('#').ok(),
        num_digits: 32,
        retries: 1,
        speech_model: "default".to_owned(),
        hints: Vec::new(),
        language: "en-US".to_owned(),
        interim: None,
        profanity_filter: false,
        log: true,
        prompts: Vec::new(),
    };
    assert_eq!(**get_input, expected);
    let expected = GetDigits {
        action: None,
        redirect: true,
        timeout: Duration::from_secs(5),
        digit_timeout: Duration::from_secs(2),
        finish_on_key: Digit::try_from('#').ok(),
        num_digits: 99,
        retries: 1,
        play_beep: false,
        valid_digits: digits("1234567890*#"),
        invalid_digits_sound: None,
        log: true,
        prompts: Vec::new(),
    };
    assert_eq!(**get_digits, expected);
    assert!(
        record.mp3
            && record.stereo
            && record.play_beep
            && record.redirect
            && record.max_length.is_none()
    );
    assert_eq!((record.timeout, &record.finish_on_key), (Duration::from_secs(15), &digits("#")));
    assert_eq!(
        (dial.timeout.as_secs(), dial.time_limit.as_secs(), dial.confirm_timeout.as_secs()),
        (120, 14_400, 120)
    );
    assert_eq!(
        (dial.whatsapp, &dial.dial_music, dial.targets.len()),
        (false, &DialMusic::RingBack, 1)
    );
    assert!(
        conference.start_on_enter
            && conference.stay_alone
            && conference.relay_dtmf
            && conference.record_when_alone
    );
    assert_eq!((conference.max_members, conference.time_limit.as_secs()), (20, 86_400));
    assert_eq!(
        (stream.audio_track.as_str(), stream.content_type.as_str()),
        ("inbound", "audio/x-l16;rate=8000")
    );
    assert_eq!((stream.timeout.as_secs(), stream.noise_cancellation_level), (86_400, 85));
    assert!(dtmf.asynchronous && pre_answer.children.is_empty());
    assert_eq!((hangup.reason, hangup.schedule), (None, None));
}

#[test]
fn s5_4_beep_settings_override_the_defaults() {
    let beep = |attribute: &str| match &elements(&format!("<Wait {attribute}/>"))[..] {
        [ElementKind::Wait(wait)] => wait.beep,
        other => panic!("{other:?}"),
    };
    assert_eq!((beep(""), beep("beep=\"false\"")), (None, None));
    assert_eq!(beep("beep=\"true\""), Some(Beep::default()));
    let all = Beep { duration_ms: 400, inter_silence_ms: 60, intra_silence_ms: 0, threshold: 512 };
    assert_eq!(
        beep("beep=\"duration=400,inter_silence=60,intra_silence=0,threshold=512\""),
        Some(all)
    );
    assert_eq!(
        beep("beep=\"threshold=9999999999\""),
        Some(Beep { threshold: u32::MAX, ..Beep::default() })
    );
}

#[test]
fn values_are_converted() {
    let all = elements(
        "<GetInput action=\" https://x.example.com/a#rc=2 \" method=\"get\" inputType=\"Speech DTMF\" digitEndTimeout=\"AUTO\" \
         speechEndTimeout=\"10\" finishOnKey=\"NONE\" hints=\" yes , no,, maybe not \" log=\"False\"><Wait silence=\"true\"/></GetInput>\
         <Dial callType=\"WhatsApp\" callerId=\"+91 80 3573 7458\" dialMusic=\"NONE\"><User>+55 (11) 91234-5678</User></Dial>",
    );
    let [ElementKind::GetInput(get), ElementKind::Dial(dial)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(&*get.action.url.0, "https://x.example.com/a#rc=2", "as written, but trimmed");
    assert_eq!((get.action.method, get.input_type), (Method::Get, InputType::DtmfSpeech));
    assert_eq!(
        (get.digit_end_timeout.as_secs(), get.speech_end_timeout),
        (3, Some(Duration::from_secs(10)))
    );
    assert_eq!((get.finish_on_key, get.log), (None, false));
    assert_eq!(get.hints, ["yes", "no", "maybe not"]);
    let [ast::Prompt::Wait(wait)] = &get.prompts[..] else { panic!() };
    assert_eq!(wait.min_silence, Some(Duration::from_secs(2)));
    assert_eq!(dial.caller_id.as_deref(), Some("918035737458"));
    assert_eq!(dial.dial_music, DialMusic::None);
    assert_eq!(dial.targets[0].address, ast::DialAddress::WhatsappUser("5511912345678".to_owned()));
}
