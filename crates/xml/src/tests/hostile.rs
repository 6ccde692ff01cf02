//! Hostile and random bodies are handled in bounded time and without a panic
//! (docs/reference/reliability.md#r18).

use proptest::prelude::*;

use super::*;

/// A document of about 100 KiB that repeats a piece.
fn filled(before: &str, piece: impl Fn(usize) -> String, after: &str) -> Vec<u8> {
    let mut body = before.to_owned();
    for i in 0.. {
        let next = piece(i);
        if body.len() + next.len() + after.len() > MAX_BODY {
            break;
        }
        body.push_str(&next);
    }
    body.push_str(after);
    body.into_bytes()
}

#[test]
fn r18_refuses_floods_of_markup() {
    let cases = [
        ("nesting", filled("", |_| "<a>".to_owned(), ""), "E105"),
        (
            "attributes of one tag",
            filled("<Response>\n<Wait", |i| format!(" a{i}=\"\""), "/></Response>"),
            "E105",
        ),
        (
            "one attribute twice",
            filled("<Response><Wait", |_| " a=\"\"".to_owned(), "/></Response>"),
            "E103",
        ),
        ("elements", filled("<Response>", |_| "<a/>".to_owned(), "</Response>"), "E105"),
        ("roots", filled("", |_| "<Response/>".to_owned(), ""), "E103"),
        (
            "references",
            filled("<Response><Speak>", |_| "&#38;".to_owned(), "</Speak></Response>"),
            "E304",
        ),
        (
            "comments",
            filled("<Response><Speak>", |_| "a<!---->".to_owned(), "</Speak></Response>"),
            "E304",
        ),
        (
            "sections",
            filled("<Response><Speak>", |_| "<![CDATA[a]]>".to_owned(), "</Speak></Response>"),
            "E304",
        ),
        (
            "a long value",
            filled("<Response><Wait length=\"", |_| "9".to_owned(), "\"/></Response>"),
            "E301",
        ),
        ("a long name", filled("<Response><", |_| "a".to_owned(), "/></Response>"), "E202"),
        (
            "a long URL",
            filled("<Response><Play>https://", |_| "a.".to_owned(), "</Play></Response>"),
            "E311",
        ),
        ("open brackets", filled("<Response>", |_| "<".to_owned(), ""), "E103"),
        ("open comments", filled("<Response>", |_| "<!--".to_owned(), ""), "E103"),
        ("quotes", filled("<Response><a b=", |_| "\"'".to_owned(), ""), "E103"),
        ("blanks", vec![b' '; MAX_BODY], "E103"),
        ("zeroes", vec![0; MAX_BODY], "E103"),
        ("byte order marks", "\u{FEFF}".repeat(30_000).into_bytes(), "E103"),
    ];
    for (name, body, rule) in cases {
        let parsed = parse(&body, None);
        check_invariants(&parsed);
        let first =
            parsed.findings.iter().find(|f| f.severity == ast::Severity::Error).expect(name);
        assert_eq!(first.rule, rule, "{name}: {}", first.message);
    }
}

#[test]
fn r18_limits_the_number_of_findings() {
    let piece =
        |_| format!("<Wait {}/>\n", (0..60).map(|i| format!("a{i}='' ")).collect::<String>());
    let body = filled("<Response>", piece, "<Play/></Response>");
    let parsed = parse(&body, None);
    check_invariants(&parsed);
    assert!(parsed.omitted > 5_000, "{}", parsed.omitted);
    assert_eq!(parsed.findings.len(), findings::MAX_FINDINGS + 1);
    assert_eq!(parsed.findings.last().unwrap().rule, "E205", "the first error is always kept");
}

#[test]
fn r18_does_not_expand_declared_entities() {
    let laughs = "<!DOCTYPE r [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><Response><Speak>&b;</Speak></Response>";
    assert_eq!(found(laughs.as_bytes()), [("E104".to_owned(), 1, 1)]);
    let source = format!("<Response><Speak>{}</Speak></Response>", "&lt;".repeat(600));
    let ElementKind::Speak(speak) =
        &parse(source.as_bytes(), None).document.unwrap().elements[0].kind.clone()
    else {
        panic!()
    };
    assert_eq!(speak.speech.characters(), 600);
}

/// Random sequences of markup, which get further into the parser than random bytes.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<Response>",
        "</Response>",
        "<Speak",
        "<Speak>",
        "</Speak>",
        "<Play>",
        "</Play>",
        "<Wait",
        "/>",
        ">",
        "<",
        "<!--",
        "-->",
        "--",
        "<![CDATA[",
        "]]>",
        "<?xml version=\"1.0\"?>",
        "<?",
        "?>",
        "<!DOCTYPE",
        "&amp;",
        "&#",
        "&",
        ";",
        "\"",
        "'",
        "=",
        " ",
        "\n",
        "\r",
        "\u{FEFF}",
        "é",
        "😀",
        "\u{0}",
        " loop=\"0\"",
        " length='1'",
        "https://x.example.com/",
        "<Dial>",
        "<User>",
        "sip:a@b",
        "</User>",
        "</Dial>",
        "<GetInput action=\"",
        "<prosody rate='slow'>",
        "</prosody>",
        "a",
        "1",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r18_handles_any_bytes(body in prop::collection::vec(any::<u8>(), 0..400), charset in prop::option::of(".{0,12}")) {
        check_invariants(&parse(&body, charset.as_deref()));
    }

    #[test]
    fn r18_handles_any_text_in_any_encoding(text in "\\PC{0,200}", form in 0..4u8) {
        let body = match form {
            0 => text.into_bytes(),
            1 => format!("\u{FEFF}{text}").into_bytes(),
            _ => {
                let units = std::iter::once(0xFEFFu16).chain(text.encode_utf16().collect::<Vec<_>>());
                units.flat_map(|u| if form == 2 { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
            }
        };
        check_invariants(&parse(&body, None));
    }

    #[test]
    fn handles_random_markup(body in pieces()) {
        let parsed = parse(body.as_bytes(), None);
        check_invariants(&parsed);
        let inside = parse(format!("<Response>{body}</Response>").as_bytes(), None);
        check_invariants(&inside);
    }

    #[test]
    fn handles_damaged_fixtures(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..8),
    ) {
        let documents = fixture_documents();
        let mut body = which.get(&documents).1.clone();
        body.truncate(20_000);
        for (at, byte, how) in damage {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
        }
        check_invariants(&parse(&body, None));
    }

    /// Another reader accepts every document that this parser considers well-formed.
    #[test]
    fn accepted_documents_are_well_formed(body in pieces()) {
        let text = format!("<Response>{body}</Response>");
        let ours = tree::parse(&text);
        let mut reader = quick_xml::Reader::from_str(&text);
        reader.config_mut().enable_all_checks(true);
        let mut wrong = false;
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => break,
                Ok(_) => {}
                Err(_) => {
                    wrong = true;
                    break;
                }
            }
        }
        prop_assert!(!(ours.is_ok() && wrong), "{text:?}");
    }
}
