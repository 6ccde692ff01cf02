//! Encodings, well-formedness and limits on the shape, with the position of each finding.

use super::*;

/// Asserts that the body has exactly this finding.
fn assert_finding(body: &[u8], rule: &str, line: u32, column: u32) {
    assert_eq!(found(body), [(rule.to_owned(), line, column)], "{}", String::from_utf8_lossy(body));
}

fn assert_valid(body: &[u8]) {
    let parsed = parse(body, None);
    assert!(parsed.findings.is_empty(), "{}: {:?}", String::from_utf8_lossy(body), parsed.findings);
}

#[test]
fn reports_syntax_errors_at_their_position() {
    let cases: &[(&str, u32, u32)] = &[
        // no root element
        ("", 1, 1),
        (" \n\t\r\n", 1, 1),
        ("<!-- nothing -->\n", 1, 1),
        ("OK", 1, 1),
        ("\n\n  OK", 3, 3),
        ("&amp;", 1, 1),
        ("<![CDATA[x]]>", 1, 1),
        ("</Response>", 1, 1),
        // the declaration
        ("\n<?xml version=\"1.0\"?><Response/>", 2, 1),
        ("<!-- a --><?xml version=\"1.0\"?><Response/>", 1, 11),
        ("<Response/><?xml version=\"1.0\"?>", 1, 12),
        ("<?xml version=\"1.1\"?><Response/>", 1, 7),
        ("<?xml version=\"1.0\"\n version=\"1.0\"?><Response/>", 2, 2),
        ("<?xml?><Response/>", 1, 1),
        ("<?xml ?><Response/>", 1, 1),
        ("<?xml encoding=\"UTF-8\"?><Response/>", 1, 7),
        ("<?xml encoding=\"UTF-8\" version=\"1.0\"?><Response/>", 1, 7),
        ("<?xml version=\"1.0\" standalone=\"no\" encoding=\"UTF-8\"?><Response/>", 1, 37),
        ("<?xml version=\"1.0\" standalone=\"maybe\"?><Response/>", 1, 21),
        ("<?xml version=\"1.0\" lang=\"en\"?><Response/>", 1, 21),
        ("<?xml version='1.0'encoding='UTF-8'?><Response/>", 1, 20),
        ("<?xml version=\"1.0\"", 1, 1),
        ("<?xml version=\"1.0\">\n<Response/>", 1, 1),
        // content after the root element
        ("<Response/>\n <Response/>", 2, 2),
        ("<Response/>\n x", 2, 2),
        ("<Response/>&lt;", 1, 12),
        ("<Response/><![CDATA[ ]]>", 1, 12),
        ("<Response/></Response>", 1, 12),
        ("\u{FEFF}\u{FEFF}<Response/>", 1, 1),
        // tags
        ("<Response>\n <Play>x</Speak>\n</Response>", 2, 9),
        ("<Response>\n <Play>x</play>\n</Response>", 2, 9),
        ("<Response>\n <Play>x</ Play>\n</Response>", 2, 9),
        ("<Response>\n <Play>x</Play a=\"1\">\n</Response>", 2, 9),
        ("<Response>5 < 6</Response>", 1, 13),
        ("<Response><></Response>", 1, 11),
        ("<Response><1/></Response>", 1, 11),
        ("<Response><-a/></Response>", 1, 11),
        ("<Response><a$/></Response>", 1, 13),
        ("<Response>\n<Wait>\n", 2, 1),
        ("<Response>\n<Wait", 2, 1),
        ("<Response>\n<Wait length=\"1>\n</Response>", 3, 1),
        ("<Response>\n<Wait length=\"1>\n", 2, 1),
        ("<Response>\n<Wait length=", 2, 1),
        ("<Response>\n<Wait length=1 a=\"", 2, 7),
        ("<Response>\n<Wait>\n</Wa'it>\n'", 3, 1),
        ("<Response>\n<!-- a -- b ->\n", 2, 8),
        ("<Response>\n<", 2, 1),
        ("<Response>\n<Wait></Wa", 2, 1),
        ("<Response>\n<Wait/>\n<!-- never", 1, 1),
        ("<Response>\n<Speak>a\n<![CDATA[ never", 2, 1),
        ("<Response/>\n<!-- never", 2, 1),
        ("<Response>\n <!ELEMENT a></Response>", 2, 2),
        ("<!doctype html><html/>", 1, 1),
        ("<Response>\n <?never", 2, 2),
        // attributes
        ("<Response><Wait length/></Response>", 1, 17),
        ("<Response><Wait length=1/></Response>", 1, 17),
        ("<Response><Wait length='1\"/></Response>", 1, 29),
        ("<Response><Wait length=\"1\"length=\"2\"/></Response>", 1, 27),
        ("<Response><Wait length=\"1\"\n length=\"1\"/></Response>", 2, 2),
        ("<Response><Wait =\"1\"/></Response>", 1, 17),
        ("<Response><Wait a=\"<\"/></Response>", 1, 20),
        ("<Response><Wait a=\"x &b\"/></Response>", 1, 22),
        ("<Response><Wait a=\"&nbsp;\"/></Response>", 1, 20),
        ("<Response><Wait a=\"&#0;\"/></Response>", 1, 20),
        ("<Response><Wait <Wait/></Response>", 1, 17),
        ("<Response><Wait/ ></Response>", 1, 16),
        // references
        ("<Response>a & b</Response>", 1, 13),
        ("<Response>a &b</Response>", 1, 13),
        ("<Response>a &b c; d</Response>", 1, 13),
        ("<Response>&;</Response>", 1, 11),
        ("<Response>&eacute;</Response>", 1, 11),
        ("<Response>&LT;</Response>", 1, 11),
        ("<Response>&#x110000;</Response>", 1, 11),
        ("<Response>&#xD800;</Response>", 1, 11),
        ("<Response>&#8;</Response>", 1, 11),
        ("<Response>&#+9;</Response>", 1, 11),
        ("<Response>&#X41;</Response>", 1, 11),
        ("<Response>&#;</Response>", 1, 11),
        ("<Response>&#99999999999;</Response>", 1, 11),
        ("<Response>a &", 1, 13),
        // characters
        ("<Response>\n a\u{0}</Response>", 2, 3),
        ("<Response a=\"\u{1F}\"/>", 1, 14),
        ("<Response><!-- \u{B} --></Response>", 1, 16),
        ("<Response>é\u{FFFE}</Response>", 1, 12),
        ("<Response>\u{FFFF}</Response>", 1, 11),
        ("<Response/>\n\u{1}", 2, 1),
        ("<Respo\u{1}nse/>", 1, 7),
        ("<Response>\n<!-- \u{1} -- --></Response>", 2, 6),
        ("<Response>\n<!-- -- \u{1} --></Response>", 2, 6),
        ("<Response a=1 b=\"\u{1}\"/>", 1, 11),
        ("<Response a=\"1\"\u{1}", 1, 16),
        ("<Response>\n&\u{1}", 2, 1),
        // text and comments
        ("<Response>a ]]> b</Response>", 1, 13),
        ("<Response>\n<!-- a -- b --></Response>", 2, 8),
        ("<Response><!-- a ---></Response>", 1, 18),
        ("<Response><!----a--></Response>", 1, 15),
    ];
    for &(body, line, column) in cases {
        assert_finding(body.as_bytes(), "E103", line, column);
    }
}

#[test]
fn accepts_well_formed_documents() {
    for body in [
        "<Response><Wait/></Response>",
        "\u{FEFF}<Response><Wait/></Response>",
        "  \n<Response><Wait/></Response>\n\n<!-- end -->\n",
        "<?xml version='1.0' encoding='utf-8' standalone='yes' ?>\n<Response><Wait/></Response>",
        "<?xml\n\tversion = \"1.0\"?><!-- a --><Response><Wait/></Response>",
        "<Response ><Wait\n length = '1'\t></Wait ></Response\n>",
        "<Response><!----><Wait/><!-- - --><!--> ok --></Response>",
        "<Response><Speak>&#x1F600;&#233;&apos;&quot;&#x0000041; ]] > ></Speak></Response>",
        "<Response><Speak>\u{85}\u{7F}\u{FFFD}\u{10FFFF}</Speak></Response>",
        "<Response><Speak><![CDATA[<&]]]]><![CDATA[>]]></Speak></Response>",
        "<Response xmlns=\"\" xmlns:p=\"a\" xml:lang=\"\" xml:space=\"x\"><Wait xml:lang=\"!\"/></Response>",
    ] {
        assert_valid(body.as_bytes());
    }
}

#[test]
fn refuses_doctypes_and_processing_instructions() {
    assert_finding(b"<!DOCTYPE>", "E104", 1, 1);
    assert_finding(b"<!DOCTYPE html><html/>", "E104", 1, 1);
    assert_finding(b"<?xml version=\"1.0\"?>\n <!DOCTYPE r [ <!ENTITY a \"b", "E104", 2, 2);
    assert_finding(b"<Response><Speak><!DOCTYPE x></Speak></Response>", "E104", 1, 18);
    assert_finding(b"<Response/>\n<!DOCTYPE x>", "E104", 2, 1);
    assert_finding(b"<?php echo 1 ?><Response/>", "E106", 1, 1);
    assert_finding(b"<Response>\n <?a?></Response>", "E106", 2, 2);
    assert_finding(b"<Response/>\n<?a?>", "E106", 2, 1);
    assert_finding(b"<?XML version=\"1.0\"?><Response/>", "E106", 1, 1);
    assert_finding(b"<?xml-stylesheet href=\"a\"?><Response/>", "E106", 1, 1);
}

#[test]
fn limits_are_inclusive() {
    let deep = |n: usize| {
        let inner = n - 2;
        format!(
            "<Response><Speak voice=\"Polly.Joey\">{}x{}</Speak></Response>",
            "<prosody rate=\"slow\">".repeat(inner),
            "</prosody>".repeat(inner)
        )
    };
    assert_valid(deep(16).as_bytes());
    assert_finding(deep(17).as_bytes(), "E105", 1, 37 + 14 * 21);
    let many = |n: usize| format!("<Response>\n{}</Response>", "<Wait/>\n".repeat(n - 1));
    assert_valid(many(2_000).as_bytes());
    assert_finding(many(2_001).as_bytes(), "E105", 2_001, 1);
    let wide = |n: usize| {
        let attributes: String = (0..n).map(|i| format!(" xmlns:a{i}=\"\"")).collect();
        format!("<Response>\n <Wait{attributes}/></Response>")
    };
    assert_valid(wide(64).as_bytes());
    assert_finding(wide(65).as_bytes(), "E105", 2, 2);
    let long = |n: usize| format!("<Response><Wait\n xmlns=\"{}\"/></Response>", "é".repeat(n / 2));
    assert_valid(long(8_192).as_bytes());
    assert_eq!(found(long(8_194).as_bytes()), [("E301".to_owned(), 2, 2)]);
    // An escaped character counts as one.
    assert_valid(
        format!("<Response><Wait xmlns=\"{}\"/></Response>", "&amp;".repeat(8_192)).as_bytes(),
    );
}

#[test]
fn counts_lines_and_columns() {
    let position = |body: &str| {
        found(body.as_bytes()).first().map(|(_, line, column)| (*line, *column)).unwrap()
    };
    for line_end in ["\n", "\r\n", "\r"] {
        let body = ["<Response>", "<Speak>a</Speak>", "", " <Bogus/></Response>"].join(line_end);
        assert_eq!(position(&body), (4, 2), "{line_end:?}");
        let in_value =
            ["<Response><Wait a='x", "y' b='1'", "c='&nbsp;'/></Response>"].join(line_end);
        assert_eq!(position(&in_value), (3, 4), "{line_end:?}");
    }
    assert_eq!(
        position("<Response>é😀ü<Bogus/></Response>"),
        (1, 11),
        "the text is reported first: W304"
    );
    assert_eq!(position("<Response><!--é😀ü--><Bogus/></Response>"), (1, 21));
    assert_eq!(
        position("\u{FEFF}<Response><Bogus/></Response>"),
        (1, 11),
        "a byte order mark is not a column"
    );
    assert_eq!(position("<Response>\t<Bogus/></Response>"), (1, 12), "a tab is one column");
    assert_eq!(position("<Response><![CDATA[\n  x]]></Response>"), (2, 3));
    assert_eq!(
        position("<Response> \n&#32;\n &#97;</Response>"),
        (3, 2),
        "a reference to white space is white space"
    );
    assert_eq!(position("<Response>\n<!-- -->\n\n x<!-- -->y</Response>"), (4, 2));
}

fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
    units.flat_map(|u| if big_endian { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
}

#[test]
fn decodes_supported_encodings() {
    let declared = |name: &str| {
        format!("<?xml version=\"1.0\" encoding=\"{name}\"?><Response><Wait/></Response>")
    };
    for name in ["UTF-8", "utf-8", "Utf8", "US-ASCII", "ascii"] {
        assert_valid(declared(name).as_bytes());
    }
    for name in ["ISO-8859-1", "windows-1252", "UTF-16", "utf-16le", "UTF-32", "x"] {
        assert_finding(declared(name).as_bytes(), "E102", 1, 31);
    }
    // An empty name is refused as well.
    assert_finding(declared("").as_bytes(), "E102", 1, 31);
    for (mark, fits, does_not) in
        [("\u{FEFF}", "utf8", "us-ascii"), ("\u{FEFF}", "UTF-8", "UTF-16")]
    {
        assert_valid(format!("{mark}{}", declared(fits)).as_bytes());
        assert_finding(format!("{mark}{}", declared(does_not)).as_bytes(), "E102", 1, 31);
    }
    for big_endian in [false, true] {
        let (own, other) =
            if big_endian { ("utf-16BE", "UTF-16LE") } else { ("utf-16LE", "UTF-16BE") };
        assert_valid(&utf16("<Response><Speak>नमस्ते 😀</Speak></Response>", big_endian));
        assert_valid(&utf16(&declared("UTF-16"), big_endian));
        assert_valid(&utf16(&declared(own), big_endian));
        assert_finding(&utf16(&declared(other), big_endian), "E102", 1, 31);
        assert_finding(&utf16(&declared("utf-8"), big_endian), "E102", 1, 31);
        assert_eq!(
            found(&utf16("<Response>\r\n😀<Bogus/></Response>", big_endian)),
            [("W304".to_owned(), 2, 1), ("E202".to_owned(), 2, 2)]
        );
    }
    // The name is in line 2, but the finding is reported in line 1.
    assert_finding(b"<?xml version=\"1.0\"\nencoding=\"latin1\"?><Response/>", "E102", 1, 1);
}

#[test]
fn reports_undecodable_bytes_at_their_position() {
    assert_finding(b"<Response>\n \xE9</Response>", "E102", 2, 2);
    assert_finding(b"<Response>\r\n\xC3\xA9\xC3</Response>", "E102", 2, 2);
    assert_finding(b"\xEF\xBB\xBF<Response>\n\xFF</Response>", "E102", 2, 1);
    assert_finding(
        b"<?xml version=\"1.0\" encoding=\"ascii\"?>\n<Response>\xC3\xA9</Response>",
        "E102",
        2,
        11,
    );
    assert_finding(b"<Response>\xED\xA0\x80</Response>", "E102", 1, 11);
    let mut cut = utf16("<Response>\n", false);
    cut.push(b'<');
    assert_finding(&cut, "E102", 2, 1);
    let mut lone = utf16("<R>\n\n", true);
    lone.extend([0xDC, 0x00, 0x00, b'<']);
    assert_finding(&lone, "E102", 3, 1);
    // UTF-16 without a byte order mark is read as UTF-8 and contains NUL characters.
    let bare: Vec<u8> = utf16("<Response/>", false).split_off(2);
    assert_finding(&bare, "E103", 1, 2);
}

#[test]
fn uses_the_charset_parameter_last() {
    let plain = "<Response><Speak>é</Speak></Response>";
    let rules = |body: &str, charset: &str| -> Vec<String> {
        parse(body.as_bytes(), Some(charset)).findings.into_iter().map(|f| f.rule).collect()
    };
    for charset in ["utf-8", "UTF8", "", "\"utf-8\"", " utf-8 "] {
        assert!(rules(plain, charset).is_empty(), "{charset:?}");
    }
    for charset in ["us-ascii", "iso-8859-1", "utf-16"] {
        assert_eq!(rules(plain, charset), ["E102"], "{charset:?}");
        assert!(
            rules(&format!("\u{FEFF}{plain}"), charset).is_empty(),
            "a byte order mark takes precedence"
        );
        let declared = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{plain}");
        assert!(rules(&declared, charset).is_empty(), "the declaration takes precedence");
    }
}

#[test]
fn merges_text_across_comments_cdata_and_references() {
    let inner = "<Play> https://x.example.com<!-- - -->/a?b=1&amp;c=<![CDATA[2&]]>&#100; </Play>";
    let ElementKind::Play(play) = &elements(inner)[0] else { panic!() };
    assert_eq!(&*play.url.0, "https://x.example.com/a?b=1&c=2&d");
}

#[test]
fn refuses_another_root_element() {
    assert_finding(b"<!-- a -->\n<response/>", "E201", 2, 1);
    assert_finding(b"<html><body>Error</body></html>", "E201", 1, 1);
    // Well-formedness is checked first.
    assert_finding(b"<html>\n<br></html>", "E103", 2, 5);
}
