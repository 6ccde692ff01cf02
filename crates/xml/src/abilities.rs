//! Rules that a document alone can't be held to: what the engines of a node make of speech. For whoever knows them, by
//! its configuration; a call meets the same when it gets there.

use super::Parsed;
use super::ast::{
    Element, ElementKind, Finding, GetInput, InputType, Position, Prompt, Speak, Speech,
    SpeechNode, SsmlTag, Voice,
};
use super::findings::quoted;
use super::rules::{self, Rule};

/// What a node's engines can do.
pub struct Abilities<'a> {
    /// Whether whoever says this voice in this language does what the tag asks for.
    pub says: &'a dyn Fn(&Voice, Option<&str>, SsmlTag) -> bool,
    /// Whether anybody understands this language.
    pub understands: &'a dyn Fn(&str) -> bool,
}

/// W406 for each `Speak` with SSML that its engine says as written, W407 for each `GetInput` that asks for speech nobody
/// understands, put where they belong among the findings; of a prompt within an element at that element. A document with
/// an error is not looked at: nothing of it runs.
pub fn beyond(parsed: &mut Parsed, abilities: &Abilities<'_>) {
    let Some(document) = parsed.document.clone() else { return };
    let mut found = Vec::new();
    document.elements.iter().for_each(|element| look(element, abilities, &mut found));
    for finding in found {
        let place =
            parsed.findings.iter().position(|f| f.at > finding.at).unwrap_or(parsed.findings.len());
        parsed.findings.insert(place, finding);
    }
}

/// W407, of the element there.
pub fn unheard(at: Position, language: &str) -> Finding {
    finding(
        rules::W407,
        at,
        format!("no recogniser understands {}: speech counts as no input", quoted(language)),
        "set [speech.transcribe] or [speech.websocket]".to_owned(),
    )
}

fn look(element: &Element, abilities: &Abilities<'_>, found: &mut Vec<Finding>) {
    let mut spoken = |speak: &Speak| {
        let mut tags = Vec::new();
        tags_of(&speak.speech, &mut tags);
        tags.retain(|tag| !(abilities.says)(&speak.voice, speak.language.as_deref(), *tag));
        for tag in tags {
            found.push(finding(
                rules::W406,
                element.at,
                format!(
                    "{} has no effect with this voice: its text is said as written",
                    tag.name()
                ),
                "leave it out, or write what shall be heard".to_owned(),
            ));
        }
    };
    let mut prompts = |prompts: &[Prompt]| {
        for prompt in prompts {
            if let Prompt::Speak(speak) = prompt {
                spoken(speak);
            }
        }
    };
    match &element.kind {
        ElementKind::Speak(speak) => spoken(speak),
        ElementKind::GetDigits(get) => prompts(&get.prompts),
        ElementKind::GetInput(get) => {
            prompts(&get.prompts);
            let GetInput { input_type, language, .. } = get;
            if *input_type != InputType::Dtmf && !(abilities.understands)(language) {
                found.push(unheard(element.at, language));
            }
        }
        ElementKind::PreAnswer(pre) => {
            pre.children.iter().for_each(|child| look(child, abilities, found))
        }
        _ => {}
    }
}

/// Every kind of tag in it, once.
fn tags_of(speech: &Speech, tags: &mut Vec<SsmlTag>) {
    for node in &speech.0 {
        if let SpeechNode::Tag { name, content, .. } = node {
            if !tags.contains(name) {
                tags.push(*name);
            }
            tags_of(content, tags);
        }
    }
}

fn finding(rule: Rule, at: Position, message: String, hint: String) -> Finding {
    Finding { rule: rule.id.to_owned(), severity: rule.severity(), at, message, hint }
}

#[cfg(test)]
mod tests {
    use super::{Abilities, beyond};
    use crate::ast::SsmlTag;
    use crate::parse;

    fn found(inner: &str) -> Vec<(String, u32)> {
        let mut parsed = parse(format!("<Response>\n{inner}\n</Response>").as_bytes(), None);
        let abilities = Abilities {
            says: &|_, language, tag| {
                language == Some("de-DE") || !matches!(tag, SsmlTag::Phoneme | SsmlTag::W)
            },
            understands: &|language| language.starts_with("en"),
        };
        beyond(&mut parsed, &abilities);
        parsed.findings.into_iter().map(|f| (f.rule, f.at.line)).collect()
    }

    #[test]
    fn what_an_engine_cannot_do_is_found_once_an_element() {
        let phoneme = "<phoneme alphabet=\"ipa\" ph=\"a\">a</phoneme>";
        let speak = |language: &str| {
            format!(
                "<Speak voice=\"Polly.Joanna\" {language}><s>{phoneme}</s> and <s>{phoneme}</s></Speak>"
            )
        };
        assert_eq!(found(&speak("")), [("W406".to_owned(), 2)]);
        assert_eq!(found(&speak("language=\"de-DE\"")), []);
        let get = |input: &str| {
            format!(
                "<GetInput action=\"https://a.example.com/x\" inputType=\"{input}\">\n{}\n</GetInput>",
                speak("")
            )
        };
        assert_eq!(found(&get("dtmf")), [("W406".to_owned(), 2)]);
        assert_eq!(
            found(&format!("<Speak>x</Speak>\n{}", get("speech"))),
            [("W406".to_owned(), 3)]
        );
    }

    #[test]
    fn speech_that_nobody_understands_is_found() {
        let get = |what: &str| format!("<GetInput action=\"https://a.example.com/x\" {what}/>");
        assert_eq!(found(&get("inputType=\"speech\"")), []);
        assert_eq!(
            found(&get("inputType=\"dtmf speech\" language=\"ta-IN\"")),
            [("W407".to_owned(), 2)]
        );
        assert_eq!(found(&get("")), []);
    }
}
