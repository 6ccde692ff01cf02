//! The `espeak-ng` program, where one is installed: for the languages that have no embedded voice.
//!
//! Text goes in on its standard input, WAV comes out on its standard output; one process a prompt, ended with
//! the prompt.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::language::{Speaker, primary};
use super::limiter::Limiter;
use super::program::{self, Program};
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Say;
use super::wav::WavReader;

/// One piece of text: it makes hundreds of seconds of sound a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Its words a minute at 100 per cent; its own 175 is hard to follow on a telephone.
const WORDS_A_MINUTE: f32 = 150.0;

/// Primary subtags that it has voices for (`espeak-ng --voices`, 1.50 and later).
const LANGUAGES: &str = "af am an ar as az ba be bg bn bs ca cmn cs cv cy da de el en eo es et eu fa fi fr ga gd gn \
                         gu hak haw he hi hr ht hu hy ia id io is it ja ka kk kl kn ko kok ku ky la lb lt lv mi mk \
                         ml mr ms mt my nb ne nl om or pa pap pl pt ro ru sd si sk sl sq sr sv sw ta te th tk tr tt \
                         ug uk ur uz vi yue zh no arb";
/// How much louder than usual a voice is at most.
const LOUDEST: f32 = 4.0;
/// Regions with a voice of their own.
const REGIONS: &str = "en-us en-gb pt-br es-419 fr-be fr-ch";

/// The provider.
#[derive(Clone, Debug)]
pub struct Espeak {
    program: PathBuf,
}

impl Espeak {
    /// The program at `program`, else the first `espeak-ng` in the folders of `path` (`PATH`'s value).
    pub fn find(program: Option<&Path>, path: Option<&OsStr>) -> Option<Self> {
        let on_path = || {
            std::env::split_paths(path?)
                .map(|folder| folder.join("espeak-ng"))
                .find(|file| file.is_file())
        };
        program.map(Path::to_owned).or_else(on_path).map(|program| Self { program })
    }

    async fn say(&self, say: &Say, sink: &mut Sink) -> Result<(), SpeechError> {
        let failed = |what: &'static str| {
            move |e: std::io::Error| SpeechError::Espeak(format!("{what}: {e}"))
        };
        let style = say.style();
        let level = |value: f32, least: f32, most: f32| {
            (value.clamp(least, most).round() as u16).to_string()
        };
        let voice = voice_of(&say.speaker);
        let mut command = Command::new(&self.program);
        command
            .args(["--stdin", "--stdout", "-b", "1", "-v", &voice])
            .args(["-s", &level(WORDS_A_MINUTE * style.rate / 100.0, 80.0, 450.0)])
            .args(["-p", &level(style.pitch / 2.0, 0.0, 99.0)])
            // What is louder than usual it would clip.
            .args(["-a", &level(style.volume, 0.0, 100.0)]);
        let mut limiter = Limiter::new((style.volume / 100.0).clamp(1.0, LOUDEST));
        let Program { mut child, mut input, mut output } =
            program::start(&mut command).map_err(failed("start"))?;
        // Double brackets would be read as phonemes.
        let text = say.plain().replace("[[", "[ [");
        let write = async move {
            let _ = input.write_all(text.as_bytes()).await;
            // Dropping it is the end of the text.
        };
        let read = async {
            let mut wav = WavReader::default();
            let mut bytes = vec![0; 16 * 1024];
            loop {
                let n = output.read(&mut bytes).await.map_err(failed("read"))?;
                let mut pcm = Vec::new();
                wav.push(bytes.get(..n).unwrap_or_default(), &mut pcm)?;
                if let Some(rate) = wav.rate() {
                    sink.push(rate, limiter.push(&pcm)).await?;
                }
                if n == 0 {
                    break;
                }
            }
            if let Some(rate) = wav.rate() {
                sink.push(rate, limiter.finish()).await?;
            }
            let status = child.wait().await.map_err(failed("wait"))?;
            if status.success() { Ok(()) } else { Err(SpeechError::Espeak(status.to_string())) }
        };
        let both = async { tokio::join!(write, read).1 };
        tokio::time::timeout(DEADLINE, both).await.unwrap_or(Err(SpeechError::Deadline(DEADLINE)))
    }
}

impl Provider for Espeak {
    fn name(&self) -> &'static str {
        "espeak"
    }

    fn speaks(&self, language: &str) -> bool {
        let language = primary(language);
        LANGUAGES.split_ascii_whitespace().any(|known| known == language)
    }

    fn synthesise<'a>(
        &'a self,
        say: &'a Say,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.say(say, sink))
    }
}

/// The languages that it has voices for, as primary subtags.
pub(super) fn languages() -> impl Iterator<Item = &'static str> {
    LANGUAGES.split_ascii_whitespace()
}

/// Its voice: its own ones are men's, a variant makes a woman's of each.
pub(super) fn voice_of(speaker: &Speaker) -> String {
    let voice = voice(&speaker.language);
    if speaker.man { voice } else { voice + "+f3" }
}

/// Its name for a BCP 47 tag.
fn voice(tag: &str) -> String {
    let tag = tag.to_ascii_lowercase();
    if REGIONS.split(' ').any(|known| known == tag) {
        return tag;
    }
    match primary(&tag).as_str() {
        "zh" => "cmn".to_owned(),
        "no" => "nb".to_owned(),
        "arb" => "ar".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Espeak, voice};
    use crate::provider::{Provider, Sink, SpeechError};
    use crate::script::Say;

    #[test]
    fn tags_have_voices() {
        for (tag, name) in [
            ("pt-BR", "pt-br"),
            ("pt-PT", "pt"),
            ("zh-CN", "cmn"),
            ("nb-NO", "nb"),
            ("ru-RU", "ru"),
        ] {
            assert_eq!(voice(tag), name);
        }
    }

    #[tokio::test]
    async fn a_language_without_embedded_voice_is_spoken() {
        let Some(espeak) = Espeak::find(None, std::env::var_os("PATH").as_deref()) else {
            return super::super::skipped(
                "espeak-ng is not on PATH (Debian: apt install espeak-ng)",
            );
        };
        assert!(espeak.speaks("ru-RU") && !espeak.speaks("tlh"));
        let (mut sink, mut pieces) = Sink::new(1_000);
        espeak
            .synthesise(&Say::in_no_style("ru-RU", "Здравствуйте, нажмите один."), &mut sink)
            .await
            .unwrap();
        drop(sink);
        let mut seconds = 0.0;
        while let Some(piece) = pieces.recv().await {
            seconds += piece.pcm.len() as f64 / f64::from(piece.rate);
        }
        assert!((1.0..6.0).contains(&seconds), "{seconds} s");
        let (mut sink, _pieces) = Sink::new(1_000);
        let unknown = espeak.synthesise(&Say::in_no_style("xx-XX", "nuqneH"), &mut sink).await;
        assert!(unknown.is_err());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let espeak = Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None).unwrap();
        let (mut sink, _pieces) = Sink::new(1);
        assert!(matches!(
            espeak.synthesise(&Say::in_no_style("ru", "a"), &mut sink).await,
            Err(SpeechError::Espeak(_))
        ));
        assert!(Espeak::find(None, None).is_none());
    }
}
