//! The `pocketsphinx_continuous` program, where one is installed: English, on this machine, for development and tests.
//!
//! Good with a grammar, made of the document's `hints`: one of these phrases was said, or nothing that counts. Without hints it
//! guesses at free speech, and guesses poorly. One process an utterance; the sound goes in on its standard input.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::{Ask, Partial, RATE, RecogniseError, Recogniser, Sound, Transcript};
use crate::language::primary;
use crate::program::{self, Program};
use crate::provider::BoxFuture;

/// The program's name on `PATH`.
const PROGRAM: &str = "pocketsphinx_continuous";
/// Where Debian's package pocketsphinx-en-us puts the words it knows how to pronounce.
const DICTIONARY: &str = "/usr/share/pocketsphinx/model/en-us/cmudict-en-us.dict";
/// A grammar decodes ten times as fast as one speaks, free speech about as fast.
const DEADLINE: Duration = Duration::from_secs(12);
/// Processes at a time: each takes a core while it runs.
const AT_ONCE: usize = 2;
/// Silence before and after the speech, which its own ear for voice wants.
const QUIET: usize = RATE as usize / 2;
/// The most that it may say.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The recogniser.
#[derive(Debug)]
pub(super) struct Pocketsphinx {
    program: PathBuf,
    dictionary: PathBuf,
    turns: Semaphore,
    /// Words it can pronounce; a grammar with another one is refused whole. None: not known, so no word is left out.
    words: OnceLock<Option<HashSet<String>>>,
}

/// Phrases as the program takes them, each with how the document wrote it.
type Phrases = BTreeMap<String, String>;

impl Pocketsphinx {
    /// The program at `program`, else the first one in the folders of `path` (`PATH`'s value).
    pub(super) fn find(program: Option<&Path>, path: Option<&OsStr>) -> Option<Self> {
        let on_path = || {
            std::env::split_paths(path?)
                .map(|folder| folder.join(PROGRAM))
                .find(|file| file.is_file())
        };
        let program = program.map(Path::to_owned).or_else(on_path)?;
        let (dictionary, turns) = (PathBuf::from(DICTIONARY), Semaphore::new(AT_ONCE));
        Some(Self { program, dictionary, turns, words: OnceLock::new() })
    }

    async fn hear(&self, ask: &Ask, sound: &mut Sound) -> Result<Transcript, RecogniseError> {
        let pcm = super::whole(sound).await;
        let deadline = async {
            let _turn = self.turns.acquire().await.map_err(|_| RecogniseError::Busy)?;
            let phrases = self.phrases(&ask.hints);
            if phrases.is_empty() && !ask.hints.is_empty() {
                tracing::warn!(
                    "pocketsphinx knows no word of the hints: it guesses at free speech"
                );
            }
            self.run(&phrases, &pcm).await
        };
        tokio::time::timeout(DEADLINE, deadline)
            .await
            .unwrap_or(Err(RecogniseError::Deadline(DEADLINE)))
    }

    async fn run(&self, phrases: &Phrases, pcm: &[i16]) -> Result<Transcript, RecogniseError> {
        let failed = |what: &'static str| {
            move |e: std::io::Error| RecogniseError::Program(format!("{what}: {e}"))
        };
        let grammar = (!phrases.is_empty())
            .then(|| Grammar::write(phrases))
            .transpose()
            .map_err(failed("grammar"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["-infile", "/dev/stdin", "-logfn", "/dev/null"])
            .args(["-samprate", &RATE.to_string()]);
        if let Some(grammar) = &grammar {
            command.arg("-jsgf").arg(&grammar.0);
        }
        let Program { mut child, mut input, output } =
            program::start(&mut command).map_err(failed("start"))?;
        let quiet = || std::iter::repeat_n(0i16, QUIET);
        let bytes: Vec<u8> =
            quiet().chain(pcm.iter().copied()).chain(quiet()).flat_map(i16::to_le_bytes).collect();
        let write = async move {
            // One that has heard enough closes its ears; what it said counts.
            let _ = input.write_all(&bytes).await;
        };
        let read = async {
            let mut said = Vec::new();
            output.take(ANSWER_BYTES_MAX).read_to_end(&mut said).await.map_err(failed("read"))?;
            Ok::<_, RecogniseError>(said)
        };
        let (said, ()) = tokio::join!(read, write);
        let said = said?;
        let status = child.wait().await.map_err(failed("wait"))?;
        if !status.success() {
            return Err(RecogniseError::Program(status.to_string()));
        }
        // A line for each stretch between pauses.
        let said =
            String::from_utf8_lossy(&said).lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let said = said.trim();
        let text = phrases.get(said).cloned().unwrap_or_else(|| said.to_owned());
        Ok(Transcript { text, confidence: None })
    }

    /// What of the hints it can hear.
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
        let knows = |phrase: &str| {
            words.as_ref().is_none_or(|known| phrase.split(' ').all(|word| known.contains(word)))
        };
        hints
            .iter()
            .map(|hint| (spoken(hint), hint.clone()))
            .filter(|(phrase, _)| !phrase.is_empty() && knows(phrase))
            .collect()
    }
}

/// A hint in small letters and words: figures are said one by one.
fn spoken(hint: &str) -> String {
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

/// A grammar's file, there as long as its process runs.
struct Grammar(PathBuf);

impl Grammar {
    fn write(phrases: &Phrases) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let all: Vec<&str> = phrases.keys().map(String::as_str).collect();
        // Letters, apostrophes and spaces alone: nothing in them is grammar.
        let text = format!("#JSGF V1.0;\ngrammar hints;\npublic <said> = {};\n", all.join(" | "));
        let name =
            format!("offhook-{}-{}.gram", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let grammar = Self(std::env::temp_dir().join(name));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&grammar.0)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        Ok(grammar)
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Recogniser for Pocketsphinx {
    fn name(&self) -> &'static str {
        "pocketsphinx"
    }

    fn understands(&self, language: &str) -> bool {
        primary(language) == "en"
    }

    fn recognise<'a>(
        &'a self,
        ask: &'a Ask,
        sound: &'a mut Sound,
        _partial: Partial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecogniseError>> {
        Box::pin(self.hear(ask, sound))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{Pocketsphinx, spoken};

    #[rstest]
    #[case("Book a table", "book a table")]
    #[case("press 1", "press one")]
    #[case("42", "four two")]
    #[case("don't know;", "don't know")]
    #[case("ja | nein <x>", "ja nein x")]
    #[case("होटल", "")]
    fn hints_become_words(#[case] hint: &str, #[case] words: &str) {
        assert_eq!(spoken(hint), words);
    }

    #[test]
    fn phrases_with_words_that_it_cannot_pronounce_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let dictionary = dir.path().join("dict");
        std::fs::write(&dictionary, "book B UH K\na AH\ntable T EY B AH L\none W AH N\n").unwrap();
        let mut sphinx = Pocketsphinx::find(Some(Path::new("/nowhere/sphinx")), None).unwrap();
        sphinx.dictionary = dictionary;
        let hints = ["Book a table", "Offhook", "1", ""].map(str::to_owned);
        let phrases: Vec<_> = sphinx.phrases(&hints).into_iter().collect();
        assert_eq!(
            phrases,
            [("book a table", "Book a table"), ("one", "1")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert!(Pocketsphinx::find(None, None).is_none());
    }
}
