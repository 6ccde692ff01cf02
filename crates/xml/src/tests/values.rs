//! The types of attribute values, and the range of each attribute at its limits.

use super::*;

/// The rules violated by an attribute with this value.
fn check_attribute(element: &str, attribute: &str, value: &str) -> Vec<String> {
    let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let (before, inside) = match element {
        "Play" => ("", "https://x.example.com/a.mp3"),
        "Redirect" => ("", "https://x.example.com/a"),
        "Stream" => ("", "wss://x.example.com/a"),
        "GetInput" if attribute != "action" => (" action=\"https://x.example.com/a\"", ""),
        "MultiPartyCall" if attribute != "role" => (" role=\"agent\"", "room"),
        "MultiPartyCall" | "Conference" | "Speak" => ("", "room"),
        "DTMF" => ("", "1"),
        _ => ("", ""),
    };
    let xml = match element {
        "Dial" => {
            format!("<Dial {attribute}=\"{escaped}\"><User>sip:a@b.example.com</User></Dial>")
        }
        "User" | "Number" => {
            let to = if element == "User" { "sip:a@b.example.com" } else { "14155550100" };
            format!("<Dial><{element} {attribute}=\"{escaped}\">{to}</{element}></Dial>")
        }
        "Message" => {
            let others: String = [("src", "918035737458"), ("dst", "919412341234")]
                .iter()
                .filter(|(name, _)| *name != attribute)
                .map(|(name, value)| format!(" {name}=\"{value}\""))
                .collect();
            format!("<Message{others} {attribute}=\"{escaped}\">Hi</Message>")
        }
        _ => format!("<{element}{before} {attribute}=\"{escaped}\">{inside}</{element}>"),
    };
    // Findings that do not depend on the value of the attribute.
    let unrelated = ["W312", "W403", "W401", "W404", "W305"];
    violated_rules(&xml).into_iter().filter(|rule| !unrelated.contains(&rule.as_str())).collect()
}

fn assert_valid(element: &str, attribute: &str, values: &[&str]) {
    for value in values {
        assert!(
            check_attribute(element, attribute, value).is_empty(),
            "{element} {attribute}={value:?}"
        );
    }
}

fn assert_violates(rule: &str, element: &str, attribute: &str, values: &[&str]) {
    for value in values {
        assert_eq!(
            check_attribute(element, attribute, value),
            [rule],
            "{element} {attribute}={value:?}"
        );
    }
}

#[test]
fn ranges_include_both_limits() {
    let ranges: &[(&str, &str, u64, u64)] = &[
        ("Speak", "loop", 0, 10_000),
        ("Play", "loop", 0, 10_000),
        ("Wait", "length", 1, 14_400),
        ("Wait", "minSilence", 1, 60_000),
        ("GetInput", "executionTimeout", 5, 60),
        ("GetInput", "digitEndTimeout", 2, 10),
        ("GetInput", "speechEndTimeout", 2, 10),
        ("GetInput", "startInputTimeout", 1, 60),
        ("GetInput", "numDigits", 1, 32),
        ("GetInput", "retries", 1, 10),
        ("GetDigits", "timeout", 1, 3_600),
        ("GetDigits", "digitTimeout", 1, 60),
        ("GetDigits", "numDigits", 1, 99),
        ("GetDigits", "retries", 1, 100),
        ("Dial", "timeout", 1, 600),
        ("Dial", "timeLimit", 1, 86_400),
        ("Dial", "confirmTimeout", 1, 600),
        ("Record", "timeout", 1, 3_600),
        ("Record", "maxLength", 1, 14_400),
        ("Conference", "maxMembers", 1, 20),
        ("Conference", "timeLimit", 1, 86_400),
        ("MultiPartyCall", "maxDuration", 300, 28_800),
        ("MultiPartyCall", "maxParticipants", 2, 10),
        ("MultiPartyCall", "recordMinMemberCount", 1, 2),
        ("MultiPartyCall", "waitTime", 0, 1_800),
        ("Stream", "streamTimeout", 1, 86_400),
        ("Stream", "noiseCancellationLevel", 60, 100),
        ("Hangup", "schedule", 1, 86_400),
    ];
    for &(element, attribute, min, max) in ranges {
        assert_valid(
            element,
            attribute,
            &[&min.to_string(), &max.to_string(), &format!(" 0{max}\n")],
        );
        assert_violates(
            "E301",
            element,
            attribute,
            &[&(max + 1).to_string(), "9999999999", "10000000000000000000000"],
        );
        assert_violates(
            "E301",
            element,
            attribute,
            &["+5", "-1", "2.0", "5s", "0x5", "٣", "1 0", "00000000005"],
        );
        if let Some(below) = min.checked_sub(1) {
            assert_violates("E301", element, attribute, &[&below.to_string(), "00"]);
        } else {
            assert_valid(element, attribute, &["00"]);
        }
    }
}

#[test]
fn booleans_are_true_or_false() {
    for (element, attribute) in [
        ("GetInput", "redirect"),
        ("GetInput", "log"),
        ("GetInput", "profanityFilter"),
        ("GetDigits", "redirect"),
        ("GetDigits", "playBeep"),
        ("GetDigits", "log"),
        ("Wait", "silence"),
        ("Record", "playBeep"),
        ("Record", "recordSession"),
        ("Record", "startOnDialAnswer"),
        ("Dial", "hangupOnStar"),
        ("User", "sendOnPreanswer"),
        ("Conference", "muted"),
        ("Conference", "relayDTMF"),
        ("MultiPartyCall", "coachMode"),
        ("MultiPartyCall", "recordCoachVoice"),
        ("Stream", "bidirectional"),
        ("Stream", "keepCallAlive"),
        ("DTMF", "async"),
    ] {
        assert_valid(element, attribute, &["true", "false", " true\t"]);
        assert_violates("W302", element, attribute, &["True", "FALSE"]);
        assert_violates("E301", element, attribute, &["1", "0", "yes", "no", "tru", "true false"]);
    }
}

#[test]
fn methods_are_get_or_post() {
    for (element, attribute) in [
        ("GetInput", "method"),
        ("GetInput", "interimSpeechResultsCallbackMethod"),
        ("GetDigits", "method"),
        ("Redirect", "method"),
        ("Record", "callbackMethod"),
        ("Conference", "callbackMethod"),
        ("MultiPartyCall", "enterSoundMethod"),
        ("Stream", "statusCallbackMethod"),
        ("Message", "callbackMethod"),
    ] {
        assert_valid(element, attribute, &["GET", "POST"]);
        assert_violates("W302", element, attribute, &["get", "Post"]);
        assert_violates("E312", element, attribute, &["PUT", "DELETE", "G", "GET POST"]);
    }
}

#[test]
fn urls_are_absolute_and_without_user_name() {
    let host = "https://x.example.com/";
    let longest = format!("{host}{}", "a".repeat(2_048 - host.len()));
    let wide = format!("{host}{}", "é".repeat(2_048 - host.len()));
    assert_valid(
        "GetInput",
        "action",
        &[
            "https://x.example.com",
            "HTTPS://x.example.com/a?b=1&c=%20#rc=2&rp=all",
            " https://x.example.com:8443/ ",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://bücher.example/",
            "https://x.example.com/a@b?c=d@e",
            &longest,
            &wide,
        ],
    );
    assert_violates(
        "W311",
        "GetInput",
        "action",
        &["http://x.example.com/a", "HTTP://127.0.0.1:8000/"],
    );
    let plain = parse(b"<Response><Redirect>http://x.example.com/</Redirect></Response>", None);
    assert!(plain.allow_plain_urls().findings.is_empty(), "allowed where a node requests them");
    assert_violates(
        "E311",
        "GetInput",
        "action",
        &[
            "/menu",
            "menu.php",
            "//x.example.com/a",
            "x.example.com",
            "https:x.example.com",
            "https:/x.example.com",
            "https://",
            "https:///a",
            "https://?a",
            "https://:443/",
            "https://x.example.com:99999/",
            "https://[::1/",
            "https://x.example.com/a b",
            "https://x.example.com/\u{7F}",
            "https://x.example.com/\u{A0}",
            "https://u@x.example.com/",
            "https://u:p@x.example.com/",
            "https://@x.example.com/",
            "ftp://x.example.com/a",
            "wss://x.example.com/a",
            "javascript:alert(1)",
            "file:///etc/passwd",
            &format!("{longest}a"),
        ],
    );
    for (element, attribute) in [
        ("Record", "callbackUrl"),
        ("GetDigits", "invalidDigitsSound"),
        ("Dial", "confirmSound"),
        ("Conference", "waitSound"),
        ("MultiPartyCall", "waitMusicUrl"),
        ("Message", "callbackUrl"),
    ] {
        assert_valid(element, attribute, &["https://x.example.com/a"]);
        assert_violates("E311", element, attribute, &["a"]);
    }
    for (to, rules) in [
        ("wss://b.example.com/ws?a=1", &[][..]),
        ("ws://b.example.com/", &["W311"]),
        ("https://b.example.com/", &["E311"]),
        ("wss://u@b.example.com/", &["E311"]),
        ("", &["E205"]),
    ] {
        assert_eq!(violated_rules(&format!("<Stream>{to}</Stream>")), rules, "{to}");
    }
}

#[test]
fn messages_do_not_quote_passwords() {
    for inner in [
        "<GetInput action=\"https://user:hunter2@x.example.com/a\"/>",
        "<Play>https://user:hunter2@x.example.com/a</Play>",
        "<Dial><User sipAuthPassword=\"hunter2\">sip:a@b.example.com</User></Dial>",
    ] {
        let parsed = parse(format!("<Response>{inner}</Response>").as_bytes(), None);
        assert!(!parsed.is_ok());
        assert!(!format!("{:?}", parsed.findings).contains("hunter2"), "{:?}", parsed.findings);
    }
}

#[test]
fn phone_numbers_have_5_to_15_digits() {
    let to = |number: &str| {
        violated_rules(&format!(
            "<Dial callType=\"whatsapp\" callerId=\"{number}\"><User>{number}</User></Dial>"
        ))
    };
    for number in [
        "12345",
        "123456789012345",
        "+91 80 3573 7458",
        "+55 (11) 91234-5678",
        "1.2-3 4(5)",
        "(+91) 80357-37458",
        " +12345 ",
    ] {
        assert!(to(number).is_empty(), "{number}");
    }
    for number in ["1234", "1234567890123456", "++12345", "12345+", "1234a", "sip:a@b", "٣٣٣٣٣٣"]
    {
        assert_eq!(to(number), ["E301", "E402"], "{number}");
    }
}

#[test]
fn checks_keys_and_digits() {
    for element in ["GetInput", "GetDigits"] {
        assert_valid(element, "finishOnKey", &["0", "*", "#", "none", "", "  "]);
        assert_violates("W302", element, "finishOnKey", &["NONE"]);
        assert_violates("E301", element, "finishOnKey", &["12", "A", "##", "#none"]);
    }
    assert_valid("Record", "finishOnKey", &["1", "*#", "1234567890*#", "none", ""]);
    assert_violates("E301", "Record", "finishOnKey", &["12a", "1,2"]);
    assert_valid("GetDigits", "validDigits", &["1", "1234567890*#", "111"]);
    assert_violates("E301", "GetDigits", "validDigits", &["0-9", "1234567890*#1", "1 2"]);
    assert_violates("W303", "GetDigits", "validDigits", &[""]);
    assert_valid("Dial", "confirmKey", &["1", "#"]);
    assert_violates("E301", "Dial", "confirmKey", &["10", "x"]);
    let sixteen = "1234567890123456";
    assert_valid("Dial", "digitsMatch", &["1", "1,22,#9", sixteen]);
    assert_violates(
        "E301",
        "Dial",
        "digitsMatch",
        &["1,", ",1", "1;2", "a", &format!("{sixteen}7")],
    );
    let most = "1".repeat(64);
    assert_valid(
        "User",
        "sendDigits",
        &["1", "ww12#W", "1@40", "1@2000", &most, &format!("{most}@200")],
    );
    assert_violates(
        "E301",
        "User",
        "sendDigits",
        &["1@39", "1@2001", "1@", "@200", "a", "1@2@3", &format!("{most}1")],
    );
    for (body, rules) in [
        ("1w2W345#", &[][..]),
        (" 1 ", &[]),
        ("", &["E205"]),
        ("12a", &["E301"]),
        ("1@200", &["E301"]),
        (&most, &[]),
    ] {
        assert_eq!(violated_rules(&format!("<DTMF>{body}</DTMF>")), rules, "{body}");
    }
    assert_eq!(violated_rules(&format!("<DTMF>{most}1</DTMF>")), ["E301"]);
}

#[test]
fn checks_lists_and_pairs() {
    assert_valid("User", "sipHeaders", &["a=b", "a=b,c=,d-e_1=f=g"]);
    assert_violates("E301", "User", "sipHeaders", &["a", "a=b,", "=b", "a b=c", "é=1", "a=b,c"]);
    let exactly = format!("a={}", "x".repeat(510));
    assert_valid("Stream", "extraHeaders", &[&exactly]);
    assert_violates("E301", "Stream", "extraHeaders", &[&format!("{exactly}x"), "novalue"]);
    assert_valid(
        "Wait",
        "beep",
        &[
            "true",
            "false",
            "duration=300,inter_silence=50,intra_silence=500,threshold=256",
            "duration=1",
        ],
    );
    assert_violates("W302", "Wait", "beep", &["TRUE"]);
    assert_violates("E301", "Wait", "beep", &["300", "duration=", "duration=x", "length=3"]);
    let phrase = "x".repeat(100);
    assert_valid("GetInput", "hints", &["yes", "yes, no,,", &phrase, &vec!["a"; 500].join(",")]);
    assert_violates(
        "E301",
        "GetInput",
        "hints",
        &[&format!("{phrase}x"), &vec!["a"; 501].join(","), &vec![&*phrase; 100].join(",")],
    );
    assert_valid(
        "MultiPartyCall",
        "statusCallbackEvents",
        &["mpc-state-changes", "MPC-state-changes , participant-audio-events"],
    );
    assert_violates(
        "E301",
        "MultiPartyCall",
        "statusCallbackEvents",
        &["everything", "mpc-state-changes,", "mpc-state-changes other"],
    );
    assert_valid(
        "Message",
        "dst",
        &["919412341234", "919412341234<919412341235", "12345 < 123456"],
    );
    assert_violates("E301", "Message", "dst", &["abc", "12345<", "12345,12345"]);
}

#[test]
fn enumerations_accept_their_listed_words() {
    assert_valid("Hangup", "reason", &["rejected", "busy"]);
    assert_violates("W302", "Hangup", "reason", &["Busy"]);
    assert_violates("E301", "Hangup", "reason", &["other"]);
    assert_valid("GetInput", "inputType", &["dtmf", "speech", "dtmf speech", " dtmf \t speech "]);
    assert_violates("W302", "GetInput", "inputType", &["DTMF", "speech dtmf", "Dtmf Speech"]);
    assert_violates(
        "E301",
        "GetInput",
        "inputType",
        &["voice", "dtmf dtmf", "dtmf,speech", "speech dtmf speech"],
    );
    assert_valid("GetInput", "digitEndTimeout", &["auto"]);
    assert_violates("W302", "GetInput", "speechEndTimeout", &["AUTO"]);
    assert_valid("GetInput", "speechModel", &["default", "command_and_search", "phone_call"]);
    assert_violates("W302", "GetInput", "speechModel", &["Default"]);
    assert_violates("W310", "GetInput", "speechModel", &["latest_long"]);
    assert_violates("E301", "GetInput", "speechModel", &["a b"]);
    assert_valid("MultiPartyCall", "role", &["agent", "Supervisor", "AI-AGENT"]);
    assert_violates("E301", "MultiPartyCall", "role", &["boss"]);
    assert_valid(
        "Stream",
        "contentType",
        &["audio/x-l16;rate=8000", "audio/x-l16;rate=16000", "audio/x-mulaw;rate=8000"],
    );
    assert_violates("W310", "Stream", "contentType", &["audio/x-l16;rate=24000"]);
    assert_violates(
        "E301",
        "Stream",
        "contentType",
        &["audio/x-mulaw;rate=16000", "Audio/x-l16;rate=8000", "audio/x-l16; rate=8000"],
    );
    assert_valid("Message", "type", &["sms"]);
    assert_violates("W302", "Message", "type", &["SMS"]);
    assert_violates("W310", "Message", "type", &["whatsapp"]);
    assert_violates("E301", "Message", "type", &["mms"]);
    assert_valid("Dial", "dialMusic", &["real", "none", "https://x.example.com/m"]);
    assert_violates("W302", "Dial", "dialMusic", &["Real"]);
    assert_violates("E311", "Dial", "dialMusic", &["jazz"]);
    for (element, none) in [("Conference", ""), ("MultiPartyCall", "none")] {
        assert_valid(
            element,
            "enterSound",
            &["", none, "beep:1", "beep:2", "https://x.example.com/s"],
        );
        assert_violates("E311", element, "exitSound", &["beep:3", "beep"]);
    }
    assert_valid("Number", "sendDigitsMode", &["rfc2833"]);
    assert_violates("E301", "Number", "sendDigitsMode", &["inband"]);
    let fifty = "ü".repeat(50);
    assert_valid("Dial", "callerName", &[&fifty]);
    assert_violates("E301", "Dial", "callerName", &[&format!("{fifty}x")]);
    assert_valid("User", "sipAuthPassword", &["12345678", &"x".repeat(128)]);
    assert_violates("E301", "User", "sipAuthPassword", &["1234567", &"x".repeat(129)]);
}

#[test]
fn checks_voices_and_languages() {
    assert_valid("Speak", "voice", &["WOMAN", "MAN", "Polly.Joanna", "Polly.Matthew-Neural"]);
    assert_violates("W302", "Speak", "voice", &["woman", "Man"]);
    assert_violates(
        "E301",
        "Speak",
        "voice",
        &[
            "alice",
            "polly.Joey",
            "Polly.",
            "Polly.-Neural",
            "Polly.Joey-neural",
            "Polly.J2",
            "Joanna",
        ],
    );
    assert_valid("Speak", "language", &["en-US", "es-US", "sv-SE"]);
    assert_violates(
        "W310",
        "Speak",
        "language",
        &["hi-IN", "en", "cmn-CN", "zh-Hans-CN", "es-419", "en-us"],
    );
    assert_valid("GetInput", "language", &["hi-IN", "en", "yue", "zh-Hans-CN", "es-419", "en-us"]);
    assert_violates(
        "E301",
        "GetInput",
        "language",
        &["English", "xx_YY", "e", "en-", "en-USA", "en-4", "en-US-x", "zh-Hans", "-US"],
    );
    assert!(violated_rules("<Speak voice=\"Polly.Aditi\" language=\"hi-IN\">a</Speak>").is_empty());
    // The languages of an unknown voice are not checked.
    assert_eq!(violated_rules("<Speak voice=\"alice\" language=\"hi-IN\">a</Speak>"), ["E301"]);
}

#[test]
fn reports_empty_and_unknown_attributes() {
    assert_violates("W303", "GetInput", "method", &["", " \t\n "]);
    assert_violates("W301", "GetInput", "Method", &["GET", ""]);
    assert_violates("W301", "GetInput", "p:method", &["GET"]);
    assert_violates("W301", "GetInput", "xml:id", &["a"]);
    assert_eq!(check_attribute("GetInput", "action", ""), ["W303", "E302"], "required and empty");
    let long = "x".repeat(8_193);
    assert_violates("E301", "GetInput", "hints", &[&long]);
    assert_violates("E301", "Wait", "unknown", &[&long]);
    assert_violates("E301", "GetInput", "action", &[&format!("https://x.example.com/{long}")]);
    assert_eq!(parse(b"<Response a=\"1\"><Wait/></Response>", None).findings[0].rule, "W301");
}
