//! Speech synthesis with the `espeak-ng` program if it is installed, for languages without an
//! embedded voice.
//!
//! Each prompt runs its own process, which reads text from standard input and writes WAV to
//! standard output.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::language::{Speaker, primary};
use super::limiter::Limiter;
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Segment;
use super::subprocess::{self, Subprocess};
use super::wav::WavReader;

/// The name of the program on `PATH`.
pub(super) const PROGRAM: &str = "espeak-ng";
/// Time limit for one segment of text. The program synthesises hundreds of seconds of audio per
/// second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Speed at a rate of 100 %, in words per minute. The program's default of 175 is hard to follow on
/// a telephone.
const WORDS_PER_MINUTE: f32 = 150.0;

/// Languages with a voice, as primary subtags (`espeak-ng --voices`, version 1.50 and later).
const LANGUAGES: &str = "af am an ar as az ba be bg bn bs ca cmn cs cv cy da de el en eo es et eu fa fi fr ga gd gn \
                         gu hak haw he hi hr ht hu hy ia id io is it ja ka kk kl kn ko kok ku ky la lb lt lv mi mk \
                         ml mr ms mt my nb ne nl om or pa pap pl pt ro ru sd si sk sl sq sr sv sw ta te th tk tr tt \
                         ug uk ur uz vi yue zh no arb";
/// Maximum gain of the limiter.
const GAIN_MAX: f32 = 4.0;
/// Regions with a separate voice.
const REGIONS: &str = "en-us en-gb pt-br es-419 fr-be fr-ch";

/// The `espeak-ng` program as a [`Provider`].
#[derive(Clone, Debug)]
pub struct Espeak {
    program: PathBuf,
}

impl Espeak {
    /// Returns the program at `program`, or the first `espeak-ng` in the folders of `path` (the
    /// value of `PATH`). Returns `None` if there is no such program.
    pub fn find(program: Option<&Path>, path: Option<&OsStr>) -> Option<Self> {
        let on_path = || subprocess::find_on_path(PROGRAM, path);
        program.map(Path::to_owned).or_else(on_path).map(|program| Self { program })
    }

    async fn speak(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        let failed = |action: &'static str| {
            move |e: std::io::Error| SpeechError::Espeak(format!("{action}: {e}"))
        };
        let style = segment.style();
        let level =
            |value: f32, min: f32, max: f32| (value.clamp(min, max).round() as u16).to_string();
        let voice = voice_for(&segment.speaker);
        let mut command = Command::new(&self.program);
        command
            .args(["--stdin", "--stdout", "-b", "1", "-v", &voice])
            .args(["-s", &level(WORDS_PER_MINUTE * style.rate / 100.0, 80.0, 450.0)])
            .args(["-p", &level(style.pitch / 2.0, 0.0, 99.0)])
            // The program clips above its normal volume; the limiter amplifies instead.
            .args(["-a", &level(style.volume, 0.0, 100.0)]);
        let mut limiter = Limiter::new((style.volume / 100.0).clamp(1.0, GAIN_MAX));
        let Subprocess { mut child, mut input, mut output } =
            subprocess::spawn(&mut command).map_err(failed("start"))?;
        // The program would interpret double brackets as phonemes.
        let text = segment.plain().replace("[[", "[ [");
        let write = async move {
            let _ = input.write_all(text.as_bytes()).await;
            // Dropping `input` ends the text.
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

    fn can_speak(&self, language: &str) -> bool {
        let language = primary(language);
        LANGUAGES.split_ascii_whitespace().any(|known| known == language)
    }

    fn voice(&self, speaker: &Speaker) -> String {
        voice_for(speaker)
    }

    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.speak(segment, sink))
    }
}

/// Returns the languages with a voice, as primary subtags.
pub(super) fn languages() -> impl Iterator<Item = &'static str> {
    LANGUAGES.split_ascii_whitespace()
}

/// Returns the program's voice for a speaker. Its voices are male; the variant `f3` makes them
/// female.
pub(super) fn voice_for(speaker: &Speaker) -> String {
    let voice = voice_name(&speaker.language);
    if speaker.male { voice } else { voice + "+f3" }
}

/// Returns the program's voice name for a BCP 47 tag.
fn voice_name(tag: &str) -> String {
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

    use super::{Espeak, voice_name};
    use crate::provider::{Provider, Sink, SpeechError};
    use crate::script::Segment;

    #[test]
    fn language_tags_map_to_voice_names() {
        for (tag, name) in [
            ("pt-BR", "pt-br"),
            ("pt-PT", "pt"),
            ("zh-CN", "cmn"),
            ("nb-NO", "nb"),
            ("ru-RU", "ru"),
        ] {
            assert_eq!(voice_name(tag), name);
        }
    }

    #[tokio::test]
    async fn a_language_without_an_embedded_voice_is_spoken() {
        let Some(espeak) = Espeak::find(None, std::env::var_os("PATH").as_deref()) else {
            return super::super::report_skipped(
                "espeak-ng",
                "espeak-ng is not on PATH (Debian: apt install espeak-ng)",
            );
        };
        assert!(espeak.can_speak("ru-RU") && !espeak.can_speak("tlh"));
        let (mut sink, mut chunks) = Sink::new(1_000);
        espeak
            .synthesise(&Segment::unstyled("ru-RU", "Здравствуйте, нажмите один."), &mut sink)
            .await
            .unwrap();
        drop(sink);
        let mut seconds = 0.0;
        while let Some(chunk) = chunks.recv().await {
            seconds += chunk.pcm.len() as f64 / f64::from(chunk.rate);
        }
        assert!((1.0..6.0).contains(&seconds), "{seconds} s");
        let (mut sink, _pieces) = Sink::new(1_000);
        let unknown = espeak.synthesise(&Segment::unstyled("xx-XX", "nuqneH"), &mut sink).await;
        assert!(unknown.is_err());
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let espeak = Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None).unwrap();
        let (mut sink, _pieces) = Sink::new(1);
        assert!(matches!(
            espeak.synthesise(&Segment::unstyled("ru", "a"), &mut sink).await,
            Err(SpeechError::Espeak(_))
        ));
        assert!(Espeak::find(None, None).is_none());
    }
}
