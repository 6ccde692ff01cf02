//! The XML documents of calls that an agent answers. Pure.

use super::super::contract::Action;
use crate::call::author::url_of;
use model::Method;
use store::AgentSpec;
use xml::sip::PLIVO_HOST;

/// The maximum number of characters per `Speak`. A document allows 3,000.
const SPEAK_MAX: usize = 2_500;

/// The source of the prompt that is played while the agent listens.
pub(super) enum PromptSource<'a> {
    Text(&'a str),
    /// The path of a streamed prompt.
    Stream(&'a str),
    Nothing,
}

/// Plays a prompt and listens. `soon` shortens the wait for input, because a reply is still being
/// streamed.
pub(super) fn listen(
    spec: &AgentSpec,
    base: &str,
    source: &PromptSource<'_>,
    soon: bool,
) -> String {
    let prompt = match source {
        PromptSource::Text(text) => speak_elements(spec, text),
        PromptSource::Stream(path) => format!("<Play>{}</Play>", escaped(&url_of(path))),
        PromptSource::Nothing => String::new(),
    };
    let (turn, silent) = (url_of(&format!("{base}/turn")), url_of(&format!("{base}/silent")));
    let wait = if soon { 2 } else { 10 };
    format!(
        "<Response><GetInput action=\"{turn}\" method=\"POST\" inputType=\"dtmf speech\" language=\"{}\" \
         startInputTimeout=\"{wait}\" executionTimeout=\"60\" digitEndTimeout=\"2\">{prompt}</GetInput>\
         <Redirect>{silent}</Redirect></Response>",
        escaped(&spec.language)
    )
}

/// Waits a second for the agent, then requests the document again.
pub(super) fn wait(base: &str) -> String {
    format!(
        "<Response><Wait length=\"1\"/><Redirect>{}</Redirect></Response>",
        url_of(&format!("{base}/more"))
    )
}

/// Speaks a text and carries out an action that ends the agent's part of the call.
pub(super) fn act(spec: &AgentSpec, base: &str, text: &str, action: &Action) -> String {
    let then = match action {
        Action::Transfer(name) => {
            let dialled = url_of(&format!("{base}/dialled"));
            format!(
                "<Dial action=\"{dialled}\"><User>sip:{}@{PLIVO_HOST}</User></Dial>",
                escaped(name)
            )
        }
        Action::Escalate | Action::Close | Action::Hangup => "<Hangup/>".to_owned(),
    };
    format!("<Response>{}{then}</Response>", speak_elements(spec, text))
}

/// Rejects the call as busy.
pub(super) fn busy() -> String {
    "<Response><Hangup reason=\"busy\"/></Response>".to_owned()
}

/// Goes on with the document of a URL.
pub(super) fn redirect(url: &str, method: Method) -> String {
    format!(
        "<Response><Redirect method=\"{}\">{}</Redirect></Response>",
        method.as_str(),
        escaped(url)
    )
}

/// The apology for a failed agent, in the agent's language.
pub(super) fn apology(language: &str) -> &'static str {
    match language.split('-').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "de" => "Das geht gerade leider nicht. Wir melden uns bei Ihnen.",
        "es" => "Lo siento, ahora mismo no es posible. Nos pondremos en contacto con usted.",
        "fr" => "Désolé, ce n'est pas possible pour le moment. Nous vous recontacterons.",
        "hi" => "क्षमा करें, अभी यह संभव नहीं है। हम आपसे संपर्क करेंगे।",
        "it" => "Spiacenti, al momento non è possibile. La ricontatteremo.",
        "pt" => "Desculpe, agora não é possível. Entraremos em contato com você.",
        _ => "Sorry, that is not possible right now. We will get back to you.",
    }
}

fn speak_elements(spec: &AgentSpec, text: &str) -> String {
    let voice = spec
        .voice
        .as_deref()
        .map(|voice| format!(" voice=\"{}\"", escaped(voice)))
        .unwrap_or_default();
    // A Polly voice implies its language.
    let language = match &spec.voice {
        Some(voice) if voice.starts_with("Polly.") => String::new(),
        _ => format!(" language=\"{}\"", escaped(&spec.language)),
    };
    let mut speak_elements = String::new();
    for part in parts(text) {
        speak_elements.push_str(&format!("<Speak{voice}{language}>{}</Speak>", escaped(&part)));
    }
    speak_elements
}

/// Splits text at word boundaries into pieces for `Speak`.
fn parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().take(SPEAK_MAX).collect();
        match parts.last_mut() {
            Some(last) if last.chars().count() + word.chars().count() < SPEAK_MAX => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => parts.push(word),
        }
    }
    parts
}

/// Escapes text for elements and attributes. Characters that XML does not allow are dropped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::contract::Action;
    use super::*;
    use store::AgentChannel;

    fn spec(voice: Option<&str>) -> AgentSpec {
        AgentSpec {
            name: "Asha".to_owned(),
            channels: vec![AgentChannel::Voice],
            voice: voice.map(str::to_owned),
            language: "en-GB".to_owned(),
            timeout_ms: 1_000,
            ..AgentSpec::blank()
        }
    }

    #[test]
    fn documents_are_valid_whatever_an_agent_says() {
        let nasty =
            format!("</Speak><Hangup/> & \u{0} \u{fffe} \"quotes\" {}", "word ".repeat(1_000));
        let transfer = Action::Transfer("asha".to_owned());
        for voice in [None, Some("MAN"), Some("Polly.Joanna-Neural")] {
            let spec = spec(voice);
            for xml in [
                listen(&spec, "7", &PromptSource::Text(&nasty), false),
                listen(&spec, "7", &PromptSource::Stream("7/sound/9"), true),
                listen(&spec, "7", &PromptSource::Nothing, false),
                act(&spec, "7", &nasty, &transfer),
                act(&spec, "7", "", &Action::Hangup),
                act(&spec, "7", apology("hi-IN"), &Action::Escalate),
                wait("7"),
                busy(),
            ] {
                let parsed = xml::parse_with_limit(xml.as_bytes(), None, 102_400);
                assert!(parsed.document.is_some(), "{:?}\n{xml}", parsed.findings);
                assert_eq!(
                    xml.matches("<Hangup").count(),
                    usize::from(
                        !xml.contains("Get") && !xml.contains("Dial") && !xml.contains("Wait")
                    )
                );
            }
        }
    }
}
