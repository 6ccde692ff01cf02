//! `offhook voices`: lists the languages and voices that documents may use, with the engine for
//! each.

use std::path::PathBuf;

use super::{Exit, config, print};
use crate::speech_settings;
use speech::catalogue::{Catalogue, DocumentVoice};
use speech::config::SpeechConfig;

/// Options of `offhook voices`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Configuration with the engines [default: the engines of this machine, without configuration]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only this language, as `en` or `en-GB`
    #[arg(long, value_name = "TAG", value_parser = language_tag)]
    pub language: Option<String>,
    /// Print one JSON object per voice and line
    #[arg(long)]
    pub json: bool,
}

/// Checks that a text has the form of a BCP 47 tag.
fn language_tag(text: &str) -> Result<String, String> {
    let mut parts = text.split('-');
    let is_language = parts
        .next()
        .is_some_and(|p| (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
    let is_subtag =
        |p: &str| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric());
    match is_language && parts.all(is_subtag) {
        true => Ok(text.to_owned()),
        false => Err("it is not a language tag; write it like en or en-GB".to_owned()),
    }
}

/// Lists the voices. Exit code 0: listed; 1: no voice of this language; 2: invalid configuration.
pub fn run(args: Args) -> Exit {
    let speech = match args.config.as_deref().map(config::load) {
        None => SpeechConfig::default(),
        Some(Ok(config)) => match speech_settings::read(&config) {
            Ok(speech) => speech,
            Err(e) => return Exit::usage(e),
        },
        Some(Err(exit)) => return exit,
    };
    let mut all = Catalogue::new(&speech);
    if let Some(language) = &args.language {
        all = all.filter_language(language);
    }
    if all.voices.is_empty() {
        return Exit::failed(
            "no voice can read this language; install espeak-ng or configure [speech.openai], or \
             list all with `offhook voices`",
        );
    }
    if args.json {
        all.voices.iter().for_each(print::json);
    } else {
        print::text(&table(&all.voices));
    }
    Exit::Done
}

/// One row per voice, below a header row.
fn table(voices: &[DocumentVoice]) -> String {
    let mut text = format!(
        "{:<10}  {:<18}  {:<6}  {:<8}  {}\n",
        "language", "voice", "gender", "engine", "engine voice"
    );
    for entry in voices {
        let nearest = if entry.exact { "" } else { " (nearest match)" };
        text += &format!(
            "{:<10}  {:<18}  {:<6}  {:<8}  {}{nearest}\n",
            entry.language, entry.voice, entry.gender, entry.engine, entry.engine_voice
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{language_tag, table};
    use speech::catalogue::DocumentVoice;

    #[test]
    fn a_language_is_a_tag() {
        for good in ["en", "en-GB", "cmn-Hans-CN"] {
            assert_eq!(language_tag(good), Ok(good.to_owned()));
        }
        for bad in ["german", "english", "", "e", "en_GB", "en-"] {
            assert!(language_tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_one_row_per_voice() {
        let entry = |voice: &str, language: &str, exact| DocumentVoice {
            voice: voice.to_owned(),
            language: language.to_owned(),
            gender: "female",
            engine: "builtin",
            engine_voice: "en-US".to_owned(),
            exact,
        };
        let expected = "\
language    voice               gender  engine    engine voice
en-US       Polly.Joanna        female  builtin   en-US
ru-RU       WOMAN               female  builtin   en-US (nearest match)
";
        assert_eq!(
            table(&[entry("Polly.Joanna", "en-US", true), entry("WOMAN", "ru-RU", false)]),
            expected
        );
    }
}
