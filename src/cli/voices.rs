//! `offhook voices`: the languages and voices that documents may name, and who says them here.

use std::path::PathBuf;

use super::{Exit, config, print};
use speech::catalogue::{Catalogue, DocumentVoice};
use speech::config::SpeechConfig;

/// Options of `offhook voices`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration whose engines are meant [default: those of this machine, with nothing configured]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only this language: `en`, or `en-GB`
    #[arg(long, value_name = "TAG")]
    pub language: Option<String>,
    /// One JSON object a line, a voice each
    #[arg(long)]
    pub json: bool,
}

/// Lists: 0 there are some, 1 none in that language, 2 the configuration is wrong.
pub fn run(args: Args) -> Exit {
    let speech = match args.config.as_deref().map(config::load) {
        None => SpeechConfig::default(),
        Some(Ok(config)) => match SpeechConfig::from_table(config.speech) {
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
            "no voice speaks this language; `offhook voices` lists those that there are",
        );
    }
    if args.json {
        all.voices.iter().for_each(print::json);
    } else {
        print::text(&table(&all.voices));
    }
    Exit::Done
}

/// A line a voice, under a line of headings.
fn table(voices: &[DocumentVoice]) -> String {
    let mut text = format!(
        "{:<10}  {:<18}  {:<6}  {:<8}  {}\n",
        "language", "voice", "gender", "engine", "its voice"
    );
    for entry in voices {
        let nearest = if entry.exact { "" } else { " (the nearest there is)" };
        text += &format!(
            "{:<10}  {:<18}  {:<6}  {:<8}  {}{nearest}\n",
            entry.language, entry.voice, entry.gender, entry.engine, entry.engine_voice
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;
    use speech::catalogue::DocumentVoice;

    #[test]
    fn a_line_a_voice() {
        let entry = |voice: &str, language: &str, exact| DocumentVoice {
            voice: voice.to_owned(),
            language: language.to_owned(),
            gender: "female",
            engine: "builtin",
            engine_voice: "en-US".to_owned(),
            exact,
        };
        let expected = "\
language    voice               gender  engine    its voice
en-US       Polly.Joanna        female  builtin   en-US
ru-RU       WOMAN               female  builtin   en-US (the nearest there is)
";
        assert_eq!(
            table(&[entry("Polly.Joanna", "en-US", true), entry("WOMAN", "ru-RU", false)]),
            expected
        );
    }
}
