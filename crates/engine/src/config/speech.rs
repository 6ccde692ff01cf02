//! `[speech]`. The speech crate reads its keys; this module passes the table on, finds the place of
//! a fault in it, and describes the keys. A test compares the description with that reader.

use super::declared::{Fallback, KeyReference, SectionReference};
use super::fault::Place;
use super::section::{Context, Section};
use super::tree::{self, Node, Value};

pub(super) fn read(root: &mut Section<'_>, cx: &Context<'_>) -> toml::Table {
    cx.describe(reference());
    let node = root.undescribed("speech");
    let Some(node) = node else {
        cx.note_fixed("speech".to_owned(), "", Some(""));
        return toml::Table::default();
    };
    let toml::Value::Table(table) = tree::to_toml(&node) else {
        let message = format!("`speech` is {}, not a table", node.value.kind());
        cx.fault(node.at, message, "write [speech]");
        return toml::Table::default();
    };
    match (cx.sources.speech)(table.clone()) {
        Ok(()) => note_absent_secrets(&node, cx),
        Err(message) => {
            let at = place_of(&node, &message).unwrap_or(node.at);
            cx.fault(at, format!("in [speech]: {}", message.trim_end()), "");
        }
    }
    cx.note_fixed("speech".to_owned(), "", Some(&table.to_string()));
    table
}

/// Reads the secrets only for the warnings about those without a value.
fn note_absent_secrets(speech: &Node, cx: &Context<'_>) {
    let child = |node: &'_ Node, key: &str| match &node.value {
        Value::Table(table) => table.get(key).map(|(_, node)| node.clone()),
        _ => None,
    };
    for section in reference() {
        let path = section.title.trim_matches(['[', ']']);
        let table = path.split('.').skip(1).try_fold(speech.clone(), |node, key| child(&node, key));
        let Some(table) = table else { continue };
        for key in section.keys.iter().filter(|key| key.kind == "secret") {
            if let Some(node) = child(&table, key.name) {
                let path = format!("{path}.{}", key.name);
                cx.optional_secret(path, key.name, &node, None, "requests have no API key");
            }
        }
    }
}

/// Returns the place of the key in an error message of serde.
fn place_of(node: &Node, message: &str) -> Option<Place> {
    let Value::Table(table) = &node.value else { return None };
    table.iter().find_map(|(key, (at, inner))| {
        let names = ["unknown field `{}`", "in `{}`", "[speech.{}]"];
        let is_named =
            names.map(|name| name.replace("{}", key)).iter().any(|part| message.contains(part));
        place_of(inner, message).or_else(|| is_named.then(|| at.clone()))
    })
}

fn reference() -> Vec<SectionReference> {
    let key = |name, kind: &str, fallback, doc| KeyReference {
        restart: true,
        ..KeyReference::new(name, kind, fallback, doc)
    };
    let value = |text: &str| Fallback::Value(text.to_owned());
    let secret = |doc| key("api_key", "secret", Fallback::Absent("no authentication"), doc);
    let timeout = "integer";
    vec![
        SectionReference {
            title: "[speech]".to_owned(),
            doc: "Text to speech and speech recognition. See [Speech](../speech.md).",
            keys: vec![
                key(
                    "provider",
                    "one of \"builtin\", \"openai\", \"espeak\"",
                    value("\"builtin\""),
                    "The engine that speaks. The others follow where it fails or lacks the language.",
                ),
                key(
                    "cache_mb",
                    "integer",
                    value("64"),
                    "Megabytes of prompts that are kept in memory.",
                ),
                key(
                    "disk_cache_mb",
                    "integer",
                    value("256"),
                    "Megabytes of prompts that are kept below `store.data_dir` for the next start. 0 keeps none.",
                ),
                key(
                    "espeak",
                    "path",
                    Fallback::Absent("`espeak-ng` on `PATH`, if installed"),
                    "The `espeak-ng` program.",
                ),
                key(
                    "recogniser",
                    "one of \"transcribe\", \"websocket\", \"whisper\", \"pocketsphinx\", \"none\"",
                    Fallback::Absent("the first of them that is configured or installed"),
                    "The recogniser that is asked first. With \"none\", speech counts as no input.",
                ),
                key(
                    "pocketsphinx",
                    "path",
                    Fallback::Absent("`pocketsphinx_continuous` on `PATH`, if installed"),
                    "The `pocketsphinx_continuous` program.",
                ),
                key(
                    "transcript_language",
                    "string",
                    value("\"en-US\""),
                    "The language of recordings that are transcribed.",
                ),
                key(
                    "recognitions_at_once",
                    "integer, 1 to 65535",
                    value("64"),
                    "Recognitions that run at the same time. Further ones wait.",
                ),
            ],
        },
        SectionReference {
            title: "[speech.openai]".to_owned(),
            doc: "An OpenAI-compatible endpoint for text to speech, `/v1/audio/speech`.",
            keys: vec![
                key("url", "URL", Fallback::Required, "The base URL, or the endpoint itself."),
                secret("Sent as a bearer token."),
                key(
                    "model",
                    "string",
                    value("\"gpt-4o-mini-tts\""),
                    "The model that the endpoint is asked for.",
                ),
                key(
                    "voice",
                    "string",
                    value("\"alloy\""),
                    "The voice where `voices` has no entry.",
                ),
                key(
                    "voices",
                    "table of strings",
                    value("{}"),
                    "Voices of the endpoint, by `WOMAN`, `MAN`, a Polly name without prefix, or a language (`hi-IN`, `hi`).",
                ),
                key(
                    "format",
                    "one of \"wav\", \"pcm\"",
                    value("\"wav\""),
                    "The audio format to ask for. `pcm` is 16 bit, mono.",
                ),
                key("pcm_rate", "integer", value("24000"), "The sample rate of `pcm`, in hertz."),
                key(
                    "timeout_ms",
                    timeout,
                    value("30000"),
                    "Milliseconds for one prompt, from the request to the last sample.",
                ),
            ],
        },
        SectionReference {
            title: "[speech.transcribe]".to_owned(),
            doc: "An OpenAI-compatible endpoint for recognition, `/v1/audio/transcriptions`.",
            keys: vec![
                key("url", "URL", Fallback::Required, "The base URL, or the endpoint itself."),
                secret("Sent as a bearer token."),
                key(
                    "model",
                    "string",
                    value("\"whisper-1\""),
                    "The model that the endpoint is asked for.",
                ),
                key(
                    "models",
                    "table of strings",
                    value("{}"),
                    "Models by the document's `speechModel` (`default`, `command_and_search`, `phone_call`).",
                ),
                key(
                    "format",
                    "one of \"verbose_json\", \"json\"",
                    value("\"verbose_json\""),
                    "The response format. `verbose_json` carries the confidence; some models have only `json`.",
                ),
                key(
                    "interim_ms",
                    "integer",
                    value("1000"),
                    "Milliseconds between requests for interim results, where a document asks for them. 0 asks for none.",
                ),
                key("timeout_ms", timeout, value("10000"), "Milliseconds for one request."),
            ],
        },
        SectionReference {
            title: "[speech.websocket]".to_owned(),
            doc: "A server that recognises over a WebSocket while the caller speaks.",
            keys: vec![
                key(
                    "protocol",
                    "one of \"vosk\", \"deepgram\", \"assemblyai\"",
                    value("\"vosk\""),
                    "The server's messages.",
                ),
                key(
                    "url",
                    "URL",
                    Fallback::Absent("only `languages` are recognised"),
                    "The server for languages without an entry in `languages`, `ws://` or `wss://`. Query parameters in it \
                     take precedence over Offhook's.",
                ),
                key(
                    "languages",
                    "table of strings",
                    value("{}"),
                    "Servers by language (`hi-IN`, `hi`).",
                ),
                secret(
                    "Sent as a bearer token; to Deepgram after `Token`, to AssemblyAI as it is.",
                ),
                key(
                    "model",
                    "string",
                    Fallback::Absent(
                        "`nova-3` of Deepgram; of AssemblyAI `universal-streaming-english` or `-multilingual`",
                    ),
                    "The model that the service is asked for.",
                ),
                key(
                    "models",
                    "table of strings",
                    value("{}"),
                    "Models by the document's `speechModel` (`default`, `command_and_search`, `phone_call`).",
                ),
                key(
                    "timeout_ms",
                    timeout,
                    value("10000"),
                    "Milliseconds from the end of the speech to the last result.",
                ),
            ],
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Fallback, reference};
    use ::speech::config::SpeechConfig;

    /// `[speech]` with this section in it and its required keys set.
    fn table(section: &str, keys: &str) -> String {
        let url = match section {
            "[speech]" => "",
            "[speech.websocket]" => "url = \"ws://localhost\"\n",
            _ => "url = \"http://localhost\"\n",
        };
        format!(
            "{}\n{url}{keys}",
            section.replace("[speech", "[").replace("[.", "[").replace("[]", "")
        )
    }

    #[test]
    fn the_described_keys_are_those_that_the_speech_crate_reads() {
        for section in reference() {
            let text = table(&section.title, "no_such_key = 1");
            let error = SpeechConfig::from_table(text.parse().unwrap()).unwrap_err().to_string();
            let expected = error.split("expected").nth(1).and_then(|rest| rest.lines().next());
            let expected = expected.expect("a list of keys");
            let known: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
            let mut described: BTreeSet<&str> = section.keys.iter().map(|key| key.name).collect();
            if section.title == "[speech]" {
                described.extend(["openai", "transcribe", "websocket"]);
            }
            assert_eq!(described, known, "{}", section.title);
        }
    }

    #[test]
    fn the_described_defaults_are_those_of_the_speech_crate() {
        for section in reference() {
            let defaults: String = section
                .keys
                .iter()
                .filter_map(|key| match &key.fallback {
                    Fallback::Value(value) => Some(format!("{} = {value}\n", key.name)),
                    Fallback::Required | Fallback::Absent(_) => None,
                })
                .collect();
            let read = |text: String| {
                format!("{:?}", SpeechConfig::from_table(text.parse().unwrap()).unwrap())
            };
            let (absent, set) = (table(&section.title, ""), table(&section.title, &defaults));
            assert_eq!(read(absent), read(set), "{}", section.title);
        }
    }
}
