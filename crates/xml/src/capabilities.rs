//! Rules W406 and W407, which need the node's configuration: the capabilities of its speech
//! engines. A running call reports the same problems when it reaches the element.

use super::ParseOutcome;
use super::ast::{
    Element, ElementKind, Finding, GetInput, InputType, Position, Prompt, Speak, Speech,
    SpeechNode, SsmlTag, Voice,
};
use super::findings::quoted;
use super::rules::{self, Rule};

/// The capabilities of a node's speech engines.
pub struct EngineCapabilities<'a> {
    /// Whether the engine that speaks this voice and language supports the effect of the tag.
    pub supports_tag: &'a dyn Fn(&Voice, Option<&str>, SsmlTag) -> bool,
    /// Whether a recogniser understands this language, with these hints.
    pub recognises: &'a dyn Fn(&str, &[String]) -> bool,
}

/// Adds W406 for each SSML tag that the engine of its `Speak` does not support, and W407 for each
/// `GetInput` for speech in a language without a recogniser.
///
/// The findings are inserted in document order. A finding about a prompt has the position of the
/// element that contains the prompt. Does nothing if the document has an error, since it will not
/// run.
pub fn check_capabilities(outcome: &mut ParseOutcome, capabilities: &EngineCapabilities<'_>) {
    let Some(document) = outcome.document.clone() else { return };
    let mut found = Vec::new();
    document.elements.iter().for_each(|element| check(element, capabilities, &mut found));
    for finding in found {
        outcome.insert(finding);
    }
}

/// Creates W407 for the element at this position.
pub fn unrecognised_language(at: Position, language: &str) -> Finding {
    finding(
        rules::W407,
        at,
        format!("no recogniser understands {}: speech counts as no input", quoted(language)),
        "install whisper with `offhook models fetch whisper`, configure [speech.transcribe] or \
         [speech.websocket], or add hints for pocketsphinx"
            .to_owned(),
    )
}

fn check(element: &Element, capabilities: &EngineCapabilities<'_>, found: &mut Vec<Finding>) {
    let mut check_speak = |speak: &Speak| {
        let mut tags = Vec::new();
        collect_tags(&speak.speech, &mut tags);
        tags.retain(|tag| {
            !(capabilities.supports_tag)(&speak.voice, speak.language.as_deref(), *tag)
        });
        for tag in tags {
            found.push(finding(
                rules::W406,
                element.at,
                format!(
                    "{} has no effect with this voice: its text is spoken as written",
                    tag.name()
                ),
                "remove it, or write the text as it is pronounced".to_owned(),
            ));
        }
    };
    let mut check_prompts = |prompts: &[Prompt]| {
        for prompt in prompts {
            if let Prompt::Speak(speak) = prompt {
                check_speak(speak);
            }
        }
    };
    match &element.kind {
        ElementKind::Speak(speak) => check_speak(speak),
        ElementKind::GetDigits(get) => check_prompts(&get.prompts),
        ElementKind::GetInput(get) => {
            check_prompts(&get.prompts);
            let GetInput { input_type, language, hints, .. } = &**get;
            if *input_type != InputType::Dtmf && !(capabilities.recognises)(language, hints) {
                found.push(unrecognised_language(element.at, language));
            }
        }
        ElementKind::PreAnswer(pre) => {
            pre.children.iter().for_each(|child| check(child, capabilities, found))
        }
        _ => {}
    }
}

/// Collects the distinct SSML tags in the content of a `Speak`.
fn collect_tags(speech: &Speech, tags: &mut Vec<SsmlTag>) {
    for node in &speech.0 {
        if let SpeechNode::Tag { name, content, .. } = node {
            if !tags.contains(name) {
                tags.push(*name);
            }
            collect_tags(content, tags);
        }
    }
}

fn finding(rule: Rule, at: Position, message: String, hint: String) -> Finding {
    Finding { rule: rule.id.to_owned(), severity: rule.severity(), at, message, hint }
}

#[cfg(test)]
mod tests {
    use super::{EngineCapabilities, check_capabilities};
    use crate::ast::SsmlTag;
    use crate::parse;

    /// Rule and line of each finding.
    fn findings(inner: &str) -> Vec<(String, u32)> {
        let mut outcome = parse(format!("<Response>\n{inner}\n</Response>").as_bytes(), None);
        let capabilities = EngineCapabilities {
            supports_tag: &|_, language, tag| {
                language == Some("de-DE") || !matches!(tag, SsmlTag::Phoneme | SsmlTag::W)
            },
            recognises: &|language, _| language.starts_with("en"),
        };
        check_capabilities(&mut outcome, &capabilities);
        outcome.findings.into_iter().map(|f| (f.rule, f.at.line)).collect()
    }

    #[test]
    fn reports_an_unsupported_tag_once_per_element() {
        let phoneme = "<phoneme alphabet=\"ipa\" ph=\"a\">a</phoneme>";
        let speak = |language: &str| {
            format!(
                "<Speak voice=\"Polly.Joanna\" {language}><s>{phoneme}</s> and <s>{phoneme}</s></Speak>"
            )
        };
        assert_eq!(findings(&speak("")), [("W406".to_owned(), 2)]);
        assert_eq!(findings(&speak("language=\"de-DE\"")), []);
        let get = |input: &str| {
            format!(
                "<GetInput action=\"https://a.example.com/x\" inputType=\"{input}\">\n{}\n</GetInput>",
                speak("")
            )
        };
        assert_eq!(findings(&get("dtmf")), [("W406".to_owned(), 2)]);
        assert_eq!(
            findings(&format!("<Speak>x</Speak>\n{}", get("speech"))),
            [("W406".to_owned(), 3)]
        );
    }

    #[test]
    fn reports_a_language_without_a_recogniser() {
        let get = |attributes: &str| {
            format!("<GetInput action=\"https://a.example.com/x\" {attributes}/>")
        };
        assert_eq!(findings(&get("inputType=\"speech\"")), []);
        assert_eq!(
            findings(&get("inputType=\"dtmf speech\" language=\"ta-IN\"")),
            [("W407".to_owned(), 2)]
        );
        assert_eq!(findings(&get("")), []);
    }
}
