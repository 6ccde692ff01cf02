//! Text to be spoken, in the fields of a request.

use super::super::fields::Fields;
use xml::ast::{ElementKind, Speak, Speech, SpeechNode};

/// Maximum length of a text, in characters (`docs/reference/limits.md#l2`).
const TEXT_CHARS_MAX: usize = 3_000;

/// Parses `text`, `voice`, `language` and `type` by the rules of the element `Speak`.
///
/// # Errors
/// Returns a sentence about the first invalid field.
pub(super) fn parse(fields: &Fields) -> Result<Speak, String> {
    let text = fields.required("text")?;
    // The Go SDK sends the voice as `length`.
    let length = fields.text("length")?.filter(|length| length.parse::<f64>().is_err());
    let voice =
        fields.text("voice")?.or_else(|| length.filter(|word| element("voice", word, "a").is_ok()));
    let voice = voice.unwrap_or_else(|| "WOMAN".to_owned());
    let language = fields.text("language")?;
    let kind = fields.text("type")?.map(|kind| kind.to_ascii_lowercase());
    let mut speak = element("voice", &voice, "a")
        .map_err(|_| "voice must be WOMAN, MAN or Polly and a name")?;
    if let Some(language) = &language {
        let with = element("language", language, "a")
            .map_err(|_| "language must be a language like en-US")?;
        speak.language = with.language;
    }
    let too_long = || format!("text must be at most {TEXT_CHARS_MAX} characters");
    speak.speech = match kind.as_deref() {
        None | Some("text") => {
            Speech(vec![SpeechNode::Text(text.split_whitespace().collect::<Vec<_>>().join(" "))])
        }
        Some("ssml") => {
            let why = |why: String| {
                // The tag is the one that `element` added, which the client does not know.
                let is_around = why.starts_with("the end tag") && why.contains("Speak>");
                let why = if is_around { "its start and end tags do not match" } else { &why };
                format!("text is invalid: {why}")
            };
            element("voice", &voice, inside_speak(&text)).map_err(why)?.speech
        }
        Some(_) => return Err("type must be text or ssml".to_owned()),
    };
    if speak.speech.0.is_empty() {
        return Err("text is invalid: there is nothing to speak".to_owned());
    }
    if speak.speech.characters() > TEXT_CHARS_MAX {
        return Err(too_long());
    }
    Ok(speak)
}

/// The content of a `<speak>` document, with or without attributes and an XML declaration. Any
/// other text is returned unchanged.
fn inside_speak(text: &str) -> &str {
    let text = text.trim();
    let document = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").map_or(text, |(_, document)| document.trim_start()),
        None => text,
    };
    let content = || {
        let rest = document.strip_prefix("<speak")?.strip_suffix("</speak>")?;
        rest.starts_with(|c: char| c == '>' || c.is_ascii_whitespace()).then_some(())?;
        // The value of an attribute may contain `>`.
        let mut quote = None;
        let end = rest.find(|c: char| match (quote, c) {
            (None, '>') => true,
            (None, '"' | '\'') => {
                quote = Some(c);
                false
            }
            (Some(open), c) if open == c => {
                quote = None;
                false
            }
            _ => false,
        });
        rest.get(end?.saturating_add(1)..)
    };
    content().unwrap_or(text)
}

/// Parses a `Speak` with one attribute as part of a document, or describes its fault.
fn element(attribute: &str, value: &str, content: &str) -> Result<Speak, String> {
    let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let document = format!("<Response><Speak {attribute}=\"{value}\">{content}</Speak></Response>");
    let parsed = xml::parse(document.as_bytes(), None);
    let speak =
        parsed.document.as_deref().and_then(|document| match document.elements.as_slice() {
            // More elements than one: the content closed the element and opened another.
            [only] => match &only.kind {
                ElementKind::Speak(speak) => Some(speak.clone()),
                _ => None,
            },
            _ => None,
        });
    speak.ok_or_else(|| {
        let error = parsed.findings.iter().find(|f| f.severity == xml::ast::Severity::Error);
        error.map_or_else(
            || "it is not the content of one Speak".to_owned(),
            |finding| finding.message.clone(),
        )
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use xml::ast::Voice;

    fn speak(body: serde_json::Value) -> Result<(String, Voice, Option<String>), String> {
        parse(&Fields::of_json(&body))
            .map(|speak| (speak.speech.text(), speak.voice, speak.language))
    }

    #[test]
    fn parses_texts_as_a_document_would() {
        use serde_json::json;
        let text = |text: &str| text.to_owned();
        assert_eq!(
            speak(json!({"text": " Hello\n you "})),
            Ok((text("Hello you"), Voice::Woman, None))
        );
        assert_eq!(
            speak(
                json!({"text": "a < b & c", "voice": "man", "language": "hi-IN", "type": "text"})
            ),
            Ok((text("a < b & c"), Voice::Man, Some("hi-IN".to_owned())))
        );
        assert_eq!(
            speak(json!({"text": "Hi", "length": "Polly.Joanna"})).map(|spoken| spoken.1),
            Ok(Voice::Polly("Joanna".to_owned())),
            "as the Go SDK sends it"
        );
        for length in [json!("30"), json!(30), json!("anything")] {
            assert_eq!(
                speak(json!({"text": "Hi", "length": length})).map(|spoken| spoken.1),
                Ok(Voice::Woman)
            );
        }
        for ssml in [
            "<speak>One <break time=\"1s\"/> two</speak>",
            "One <break time=\"1s\"/> two",
            " <speak version='1.1' xml:lang=\"en-US\" note=\"a>b\">One <break time=\"1s\"/> two</speak>\n",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<speak>One <break time=\"1s\"/> two</speak>",
        ] {
            assert_eq!(
                speak(json!({"text": ssml, "type": "ssml"})).map(|spoken| spoken.0),
                Ok(text("One  … two"))
            );
        }
        let long = "x".repeat(3_001);
        for (body, field) in [
            (json!({}), "text parameter is missing"),
            (json!({"text": "  "}), "text parameter is missing"),
            (json!({"text": long}), "text must"),
            (json!({"text": "a", "voice": "ROBOT"}), "voice must"),
            (json!({"text": "a", "voice": "WOMAN\" loop=\"0"}), "voice must"),
            (json!({"text": "a", "language": "english"}), "language must"),
            (json!({"text": "a", "type": "markdown"}), "type must"),
            (
                json!({"text": "<b>a", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "a</b>", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "<speak>hi</speak", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "<b><i>a</b></i>", "type": "ssml"}),
                "text is invalid: the end tag </b> does not match <i>",
            ),
            (json!({"text": "<speaker>a</speak>", "type": "ssml"}), "text is invalid"),
            (json!({"text": "<speak note=\"a</speak>", "type": "ssml"}), "text is invalid"),
            (json!({"text": "<?xml version=\"1.0\"?>a", "type": "ssml"}), "text is invalid"),
            (json!({"text": "a</Speak><Hangup/><Speak>b", "type": "ssml"}), "text is invalid"),
            (
                json!({"text": "a<Play>https://a.example.com/x.mp3</Play>", "type": "ssml"}),
                "text is invalid",
            ),
        ] {
            let why = speak(body.clone()).expect_err("an error");
            assert!(why.starts_with(field), "{body}: {why}");
        }
    }
}
