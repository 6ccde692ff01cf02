//! Speech recognition with the `pocketsphinx_continuous` program if it is installed: English only,
//! for development and tests.
//!
//! It works well with a grammar, which is built from the document's `hints`. The result is then one
//! of these phrases. Without hints it recognises free speech, with poor results. Each utterance is
//! processed by a separate process, which reads the audio from standard input.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use egress::FairPermits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{
    OnPartial, RATE, Recogniser, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
};
use crate::language::primary;
use crate::provider::{BoxFuture, Owner};
use crate::subprocess::{self, Subprocess};

/// The name of the program on `PATH`.
const PROGRAM: &str = "pocketsphinx_continuous";
/// The pronunciation dictionary of Debian's package pocketsphinx-en-us.
const DICTIONARY: &str = "/usr/share/pocketsphinx/model/en-us/cmudict-en-us.dict";
/// Time limit of one utterance. A grammar is decoded ten times faster than real time, free speech
/// in about real time.
const DEADLINE: Duration = Duration::from_secs(12);
/// Maximum number of concurrent processes. Each of them occupies a core while it runs.
const PROCESSES_MAX: usize = 2;
/// Silence added before and after the speech, which the program's voice detection needs.
const PADDING_SAMPLES: usize = RATE as usize / 2;
/// Maximum size of the program's output in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// The `pocketsphinx_continuous` program as a [`Recogniser`].
#[derive(Debug)]
pub(super) struct Pocketsphinx {
    program: PathBuf,
    dictionary: PathBuf,
    permits: FairPermits<Owner>,
    /// The words of the dictionary. The program rejects a grammar that contains any other word.
    /// `None` if the dictionary cannot be read. Hints are then not filtered.
    words: OnceLock<Option<HashSet<String>>>,
    /// Whether the configuration names it as the recogniser.
    is_chosen: bool,
}

/// Phrases in the program's form, each with the document's form.
type Phrases = BTreeMap<String, String>;

impl Pocketsphinx {
    /// Returns the program at `program`, or the first one in the folders of `path` (the value of
    /// `PATH`). Returns `None` if there is no such program.
    pub(super) fn find(
        program: Option<&Path>,
        path: Option<&OsStr>,
        is_chosen: bool,
    ) -> Option<Self> {
        let on_path = || subprocess::find_on_path(PROGRAM, path);
        let program = program.map(Path::to_owned).or_else(on_path)?;
        let dictionary = PathBuf::from(DICTIONARY);
        let permits = FairPermits::new(PROCESSES_MAX, PROCESSES_MAX);
        Some(Self { program, dictionary, permits, words: OnceLock::new(), is_chosen })
    }

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
    ) -> Result<Transcript, RecognitionError> {
        let pcm = super::collect_samples(utterance).await;
        let recognition = async {
            let _permit = self.permits.acquire(&options.account).await;
            let phrases = self.phrases(&options.hints);
            if phrases.is_empty() && !options.hints.is_empty() {
                tracing::warn!(
                    "no hint is in the pocketsphinx dictionary, recognising free speech"
                );
            }
            self.run(&phrases, &pcm).await
        };
        tokio::time::timeout(DEADLINE, recognition)
            .await
            .unwrap_or(Err(RecognitionError::Deadline(DEADLINE)))
    }

    async fn run(&self, phrases: &Phrases, pcm: &[i16]) -> Result<Transcript, RecognitionError> {
        let failed = |action: &'static str| {
            move |e: std::io::Error| RecognitionError::Program(format!("{action}: {e}"))
        };
        let grammar = (!phrases.is_empty())
            .then(|| GrammarFile::write(phrases))
            .transpose()
            .map_err(failed("grammar"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["-infile", "/dev/stdin", "-logfn", "/dev/null"])
            .args(["-samprate", &RATE.to_string()]);
        if let Some(grammar) = &grammar {
            command.arg("-jsgf").arg(&grammar.0);
        }
        let Subprocess { mut child, mut input, output } =
            subprocess::spawn(&mut command).map_err(failed("start"))?;
        let padding = || std::iter::repeat_n(0i16, PADDING_SAMPLES);
        let bytes: Vec<u8> = padding()
            .chain(pcm.iter().copied())
            .chain(padding())
            .flat_map(i16::to_le_bytes)
            .collect();
        let write = async move {
            // The program may stop reading early. Its output is used anyway.
            let _ = input.write_all(&bytes).await;
        };
        let read = async {
            let mut bytes = Vec::new();
            output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await.map_err(failed("read"))?;
            Ok::<_, RecognitionError>(bytes)
        };
        let (output, ()) = tokio::join!(read, write);
        let output = output?;
        let status = child.wait().await.map_err(failed("wait"))?;
        if !status.success() {
            return Err(RecognitionError::Program(status.to_string()));
        }
        // The program writes one line per section of speech.
        let text =
            String::from_utf8_lossy(&output).lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let text = text.trim();
        let text = phrases.get(text).cloned().unwrap_or_else(|| text.to_owned());
        Ok(Transcript { text, confidence: None })
    }

    /// Returns the hints that consist of words in the dictionary.
    fn phrases(&self, hints: &[String]) -> Phrases {
        if hints.is_empty() {
            return Phrases::new();
        }
        let words = self.words.get_or_init(|| {
            let dictionary = std::fs::read_to_string(&self.dictionary).ok()?;
            Some(
                dictionary
                    .lines()
                    .filter_map(|line| line.split(' ').next())
                    .map(str::to_owned)
                    .collect(),
            )
        });
        let is_known = |phrase: &str| {
            words.as_ref().is_none_or(|known| phrase.split(' ').all(|word| known.contains(word)))
        };
        hints
            .iter()
            .map(|hint| (to_phrase(hint), hint.clone()))
            .filter(|(phrase, _)| !phrase.is_empty() && is_known(phrase))
            .collect()
    }
}

/// Converts a hint to lower-case words, with digits spelled out one by one.
fn to_phrase(hint: &str) -> String {
    let mut words = String::new();
    for c in hint.chars() {
        match c {
            '0'..='9' => {
                let name = [
                    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
                ];
                words.push(' ');
                words.push_str(c.to_digit(10).and_then(|at| name.get(at as usize)).unwrap_or(&""));
                words.push(' ');
            }
            c if c.is_ascii_alphabetic() || c == '\'' => words.push(c.to_ascii_lowercase()),
            _ => words.push(' '),
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A temporary grammar file, deleted when dropped.
struct GrammarFile(PathBuf);

impl GrammarFile {
    fn write(phrases: &Phrases) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let all: Vec<&str> = phrases.keys().map(String::as_str).collect();
        // Phrases contain only letters, apostrophes and spaces. None of these has a special meaning
        // in the grammar.
        let text = format!("#JSGF V1.0;\ngrammar hints;\npublic <said> = {};\n", all.join(" | "));
        let name =
            format!("offhook-{}-{}.gram", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let grammar = Self(std::env::temp_dir().join(name));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&grammar.0)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        Ok(grammar)
    }
}

impl Drop for GrammarFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Recogniser for Pocketsphinx {
    fn name(&self) -> &'static str {
        "pocketsphinx"
    }

    fn can_recognise(&self, language: &str) -> bool {
        primary(language) == "en"
    }

    /// Free speech is mostly misheard, so it is recognised only if the operator asks for it.
    fn needs_hints(&self) -> bool {
        !self.is_chosen
    }

    fn recognise<'a>(
        &'a self,
        options: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        _on_partial: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>> {
        Box::pin(self.recognise_utterance(options, utterance))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{Pocketsphinx, to_phrase};

    #[rstest]
    #[case("Book a table", "book a table")]
    #[case("press 1", "press one")]
    #[case("42", "four two")]
    #[case("don't know;", "don't know")]
    #[case("ja | nein <x>", "ja nein x")]
    #[case("होटल", "")]
    fn hints_become_words(#[case] hint: &str, #[case] words: &str) {
        assert_eq!(to_phrase(hint), words);
    }

    #[test]
    fn phrases_with_words_missing_from_the_dictionary_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let dictionary = dir.path().join("dict");
        std::fs::write(&dictionary, "book B UH K\na AH\ntable T EY B AH L\none W AH N\n").unwrap();
        let mut sphinx =
            Pocketsphinx::find(Some(Path::new("/nowhere/sphinx")), None, false).unwrap();
        sphinx.dictionary = dictionary;
        let hints = ["Book a table", "Offhook", "1", ""].map(str::to_owned);
        let phrases: Vec<_> = sphinx.phrases(&hints).into_iter().collect();
        assert_eq!(
            phrases,
            [("book a table", "Book a table"), ("one", "1")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert!(Pocketsphinx::find(None, None, true).is_none());
    }
}
