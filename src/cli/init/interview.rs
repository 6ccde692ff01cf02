//! Collects answers: from flags, otherwise from the person at the terminal.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal as _, Read as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use url::Url;

use super::super::{Exit, print};
use model::Secret;

/// Maximum number of corrections of a wrong answer.
const TRIES: usize = 5;
/// Maximum length of an answer in bytes. Meta's access tokens have a few hundred.
const ANSWER_MAX: u64 = 4_096;
/// A question, and the flag that answers it.
pub(super) struct Question {
    pub(super) flag: &'static str,
    pub(super) text: &'static str,
}

/// The source of a secret if there is no terminal.
pub(super) struct SecretSource<'a> {
    pub(super) file: Option<&'a Path>,
    /// The name of an environment variable.
    pub(super) env: Option<&'a str>,
    /// Minimum length of a secret in characters. A shorter one was not copied completely.
    pub(super) least: usize,
}

/// An option that can be selected.
pub(super) trait Choice: Clone {
    /// The answer that selects this option.
    fn key(&self) -> &str;
    /// A description of the option. May be empty.
    fn about(&self) -> String;
}

/// Collects answers and their errors.
pub(super) struct Interview {
    /// The person at the terminal. `None` if there is no terminal.
    person: Option<Box<dyn Person>>,
    missing: Vec<String>,
    faults: Vec<String>,
    /// Number of times that Meta refused the credentials.
    refusals: usize,
    /// The input is at its end, or a question got no usable answer. Nothing more is asked.
    has_ended: bool,
}

/// The person at the terminal, or a substitute in tests.
pub(super) trait Person {
    /// Shows text.
    fn tell(&mut self, text: &str);
    /// Reads a line of input. Returns `None` at the end of the input.
    fn listen(&mut self, hidden: bool) -> Option<String>;
}

impl Interview {
    /// Starts an interview at the terminal, if there is one.
    pub(super) fn begin() -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self::with(is_terminal.then(|| Box::new(Terminal) as Box<dyn Person>))
    }

    /// Takes answers from flags only.
    pub(super) fn silent() -> Self {
        Self::with(None)
    }

    fn with(person: Option<Box<dyn Person>>) -> Self {
        Self { person, missing: Vec::new(), faults: Vec::new(), refusals: 0, has_ended: false }
    }

    /// Whether somebody can be asked.
    pub(super) fn has_person(&self) -> bool {
        self.person.is_some()
    }

    /// Returns the answer to a question. `None` if it is missing or wrong, which
    /// [`Interview::finish`] reports.
    pub(super) fn answer<T>(
        &mut self,
        question: &Question,
        given: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match given {
            Some(given) => self.accept(question.flag, parse(given.trim())),
            None => self.ask(question, false, |line| parse(line).map(Some)),
        }
    }

    /// Asks a question that need not be answered.
    pub(super) fn optional<T>(
        &mut self,
        question: &Question,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.person.as_ref()?;
        let text = format!("{} [none]", question.text);
        self.ask_text(&text, question.flag, false, |line| {
            if line.is_empty() { Ok(None) } else { parse(line).map(Some) }
        })
    }

    /// Asks again for an answer that may have been wrong. An empty line keeps it.
    pub(super) fn correction<T>(
        &mut self,
        question: &Question,
        before: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = format!("{} [{before}]", question.text);
        self.ask_text(&text, question.flag, false, |line| {
            parse(if line.is_empty() { before } else { line }).map(Some)
        })
    }

    /// Reads a secret from a file or a variable, otherwise typed without echo.
    pub(super) fn secret(
        &mut self,
        question: &Question,
        source: &SecretSource<'_>,
    ) -> Option<Secret> {
        let flag = question.flag;
        if let Some(file) = source.file {
            let read = std::fs::File::open(file).and_then(|file| {
                let mut text = String::new();
                file.take(ANSWER_MAX).read_to_string(&mut text).map(|_| text)
            });
            let read = read.map_err(|e| format!("could not read {}: {e}", file.display()));
            return self.accept(flag, read.and_then(|text| secret(&text, source.least)));
        }
        let variable = source.env.and_then(|name| Some((name, std::env::var(name).ok()?)));
        match variable {
            Some((name, text)) if !text.trim().is_empty() => {
                self.accept(format!("the variable {name}"), secret(&text, source.least))
            }
            _ if self.person.is_some() => {
                self.ask(question, true, |line| secret(line, source.least).map(Some))
            }
            _ => {
                let variable = source.env.map(|name| format!(" (or the variable {name})"));
                self.missing.push(format!("{flag}{}", variable.unwrap_or_default()));
                None
            }
        }
    }

    /// Selects one of several options: the one given by the flag, the only one, or the one that the
    /// person enters.
    ///
    /// # Errors
    /// Returns an error, which has been printed, if there is no choice, or several and no terminal
    /// to ask at.
    pub(super) fn choose<T: Choice>(
        &mut self,
        flag: &'static str,
        kind: &'static str,
        wanted: Option<String>,
        all: &[T],
    ) -> Result<T, Exit> {
        let list = || {
            let line =
                |one: &T| print::plain(format!("  {}  {}", one.key(), one.about()).trim_end());
            all.iter().map(|one| line(one) + "\n").collect::<String>()
        };
        let find = |key: &str| all.iter().find(|one| one.key() == key).cloned();
        if let Some(wanted) = wanted {
            return find(&wanted).ok_or_else(|| {
                Exit::usage(format_args!(
                    "{flag}: Meta lists no {kind} {wanted} for this access token; it lists\n{}",
                    list().trim_end()
                ))
            });
        }
        match (all, self.person.is_some()) {
            ([], _) => Err(Exit::failed(format_args!(
                "Meta lists no {kind} for this access token; assign one to the system user, or name another with {flag}"
            ))),
            ([only], _) => Ok(only.clone()),
            (_, false) => Err(Exit::usage(format_args!(
                "there are several; choose a {kind} with {flag}:\n{}",
                list().trim_end()
            ))),
            (_, true) => {
                let text = format!("\n{}Which {kind}", list());
                let chosen = self.ask_text(&text, flag, false, |line| {
                    find(line).map(Some).ok_or_else(|| {
                        let first = all.first().map(Choice::key).unwrap_or_default();
                        format!("it is not in the list; type it as listed, such as {first}")
                    })
                });
                self.finish()?;
                chosen.ok_or(Exit::Usage)
            }
        }
    }

    /// Informs the person why Meta refused the credentials. Returns `false` if there is no person
    /// to correct them, or they were wrong too often.
    pub(super) fn tell_refusal(&mut self, why: &str) -> bool {
        let Some(person) = &mut self.person else { return false };
        self.refusals += 1;
        let may_correct = self.refusals < TRIES;
        if may_correct {
            person.tell(&format!("  {}\n", print::plain(why)));
        }
        may_correct
    }

    /// Prints missing and wrong answers.
    ///
    /// # Errors
    /// Returns [`Exit::Usage`] if there is anything.
    pub(super) fn finish(&mut self) -> Result<(), Exit> {
        let (missing, faults) =
            (std::mem::take(&mut self.missing), std::mem::take(&mut self.faults));
        faults.iter().for_each(print::error);
        if !missing.is_empty() {
            print::error(format_args!(
                "without a terminal to ask, these are needed: {}",
                missing.join(", ")
            ));
        }
        if missing.is_empty() && faults.is_empty() { Ok(()) } else { Err(Exit::Usage) }
    }

    fn accept<T>(&mut self, place: impl Display, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|why| self.faults.push(format!("{place}: {why}"))).ok()
    }

    fn ask<T>(
        &mut self,
        question: &Question,
        hidden: bool,
        parse: impl Fn(&str) -> Result<Option<T>, String>,
    ) -> Option<T> {
        self.ask_text(question.text, question.flag, hidden, parse)
    }

    fn ask_text<T>(
        &mut self,
        text: &str,
        flag: &str,
        hidden: bool,
        parse: impl Fn(&str) -> Result<Option<T>, String>,
    ) -> Option<T> {
        let Some(person) = &mut self.person else {
            self.missing.push(flag.to_owned());
            return None;
        };
        if self.has_ended {
            return None;
        }
        for _ in 0..TRIES {
            person.tell(&format!("{text}: "));
            let Some(line) = person.listen(hidden) else {
                person.tell("\n");
                self.has_ended = true;
                self.faults.push(format!("the input ended before this answer; answer with {flag}"));
                return None;
            };
            match parse(line.trim()) {
                Ok(answer) => return answer,
                Err(why) => person.tell(&format!("  {}\n", print::plain(&why))),
            }
        }
        self.has_ended = true;
        self.faults.push(format!("no usable answer; answer with {flag}"));
        None
    }
}

/// The person at standard input. Questions go to standard error.
struct Terminal;

impl Person for Terminal {
    fn tell(&mut self, text: &str) {
        print::error_text(text);
    }

    fn listen(&mut self, hidden: bool) -> Option<String> {
        let stdin = std::io::stdin();
        let before = hidden.then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes -= LocalModes::ECHO;
            let _ = tcsetattr(&stdin, OptionalActions::Now, &silent);
        }
        let line = read_line(&mut stdin.lock());
        if let Some(before) = before {
            let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
            self.tell("\n");
        }
        line
    }
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = input.take(ANSWER_MAX).read_line(&mut line).ok()?;
    (read > 0).then_some(line)
}

/// Parses an id of Meta.
pub(super) fn meta_id(text: &str) -> Result<String, String> {
    match (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("an id of Meta has digits only".to_owned()),
    }
}

pub(super) fn email(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, host)) if !name.is_empty() && host.contains('.') && !text.contains(' ') => {
            Ok(text.to_owned())
        }
        _ => Err("write an address like ops@example.com".to_owned()),
    }
}

/// Parses the URL of the application. With a simulated Meta, it may use `http`.
pub(super) fn answer_url(text: &str, simulated: bool) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" || (simulated && url.scheme() == "http") => {
            Ok(text.to_owned())
        }
        Ok(_) => {
            let schemes = if simulated { "http or https" } else { "https" };
            Err(format!("it must be {schemes}, such as https://app.example.com/answer"))
        }
        Err(e) => Err(format!("it is not a URL ({e}); write https://app.example.com/answer")),
    }
}

fn secret(text: &str, least: usize) -> Result<Secret, String> {
    let text = text.trim();
    match text.chars().count() >= least && !text.contains(char::is_whitespace) {
        true => Ok(Secret::new(text)),
        false => {
            Err(format!("it has fewer than {least} characters, or blanks; copy the whole value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A person with prepared answers.
    struct Script {
        answers: std::vec::IntoIter<&'static str>,
        seen: Arc<Mutex<String>>,
    }

    impl Person for Script {
        fn tell(&mut self, text: &str) {
            self.seen.lock().unwrap().push_str(text);
        }

        fn listen(&mut self, hidden: bool) -> Option<String> {
            let answer = self.answers.next()?;
            self.seen.lock().unwrap().push_str(if hidden { "***" } else { answer });
            Some(format!("{answer}\n"))
        }
    }

    fn interview(answers: Vec<&'static str>) -> (Interview, Arc<Mutex<String>>) {
        let seen = Arc::<Mutex<String>>::default();
        let script = Script { answers: answers.into_iter(), seen: seen.clone() };
        (Interview::with(Some(Box::new(script))), seen)
    }

    const ID: Question = Question { flag: "--id", text: "Id" };

    #[derive(Clone, Debug, PartialEq)]
    struct Thing(&'static str);

    impl Choice for Thing {
        fn key(&self) -> &str {
            self.0
        }

        fn about(&self) -> String {
            "a thing".to_owned()
        }
    }

    #[test]
    fn a_wrong_answer_is_asked_again_and_flags_are_not_asked() {
        let (mut interview, seen) = interview(vec!["x", "12"]);
        assert_eq!(interview.answer(&ID, None, meta_id).as_deref(), Some("12"));
        let given = interview.answer(&ID, Some("7".to_owned()), meta_id);
        assert_eq!(given.as_deref(), Some("7"));
        assert!(interview.finish().is_ok());
        assert_eq!(*seen.lock().unwrap(), "Id: x  an id of Meta has digits only\nId: 12");
    }

    #[test]
    fn the_end_of_the_input_is_a_fault_and_an_optional_answer_may_be_empty() {
        let (mut interview, seen) = interview(vec![""]);
        assert_eq!(interview.optional(&ID, meta_id), None);
        assert!(interview.finish().is_ok());
        assert_eq!(interview.answer(&ID, None, meta_id), None);
        let asked = seen.lock().unwrap().len();
        let next = Question { flag: "--next", text: "Next" };
        assert_eq!(interview.answer(&next, None, meta_id), None);
        assert_eq!(seen.lock().unwrap().len(), asked, "nothing more is asked");
        assert_eq!(interview.faults.len(), 1, "{:?}", interview.faults);
        assert_eq!(interview.finish(), Err(Exit::Usage));
    }

    #[test]
    fn a_question_without_a_usable_answer_is_the_last() {
        let (mut interview, seen) = interview(vec!["x"; 2 * TRIES]);
        let source = SecretSource { file: None, env: Some("OFFHOOK_NO_SUCH_VARIABLE"), least: 20 };
        assert_eq!(interview.answer(&ID, None, meta_id), None);
        let next = Question { flag: "--next", text: "Next" };
        assert_eq!(interview.optional(&next, meta_id), None);
        assert!(interview.secret(&next, &source).is_none());
        assert!(!seen.lock().unwrap().contains("Next"), "nothing more is asked");
        assert_eq!(interview.faults, ["no usable answer; answer with --id"]);
        assert_eq!(interview.finish(), Err(Exit::Usage));
    }

    #[test]
    fn an_empty_correction_keeps_the_answer() {
        let (mut interview, seen) = interview(vec!["", "12"]);
        assert_eq!(interview.correction(&ID, "7", meta_id).as_deref(), Some("7"));
        assert_eq!(interview.correction(&ID, "7", meta_id).as_deref(), Some("12"));
        assert_eq!(*seen.lock().unwrap(), "Id [7]: Id [7]: 12");
    }

    #[test]
    fn a_typed_secret_is_not_shown() {
        let (mut interview, seen) = interview(vec!["short", "a-secret-of-20-characters"]);
        let source = SecretSource { file: None, env: Some("OFFHOOK_NO_SUCH_VARIABLE"), least: 20 };
        let secret = interview.secret(&ID, &source).unwrap();
        assert_eq!(secret.reveal(), "a-secret-of-20-characters");
        assert!(!seen.lock().unwrap().contains("a-secret"));
    }

    #[test]
    fn a_refusal_is_told_to_a_person_a_few_times() {
        let (mut interview, seen) = interview(vec![]);
        let count = (0..TRIES).filter(|_| interview.tell_refusal("Meta refused")).count();
        assert_eq!(count, TRIES - 1);
        assert!(seen.lock().unwrap().starts_with("  Meta refused\n"));
        assert!(!Interview::silent().tell_refusal("Meta refused"));
    }

    #[test]
    fn one_thing_is_taken_and_several_are_offered() {
        let all = [Thing("1"), Thing("2")];
        let (mut asked, seen) = interview(vec!["3", "2"]);
        assert_eq!(asked.choose("--thing", "thing", None, &all[..1]), Ok(Thing("1")));
        assert_eq!(asked.choose("--thing", "thing", None, &all), Ok(Thing("2")));
        assert!(seen.lock().unwrap().contains("  1  a thing\n  2  a thing\nWhich thing: 3"));
        assert!(seen.lock().unwrap().contains("type it as listed, such as 1"));
        let mut silent = Interview::silent();
        let wanted = Some("2".to_owned());
        assert_eq!(silent.choose("--thing", "thing", wanted, &all), Ok(Thing("2")));
        assert_eq!(silent.choose("--thing", "thing", None, &all), Err(Exit::Usage));
        assert_eq!(silent.choose("--thing", "thing", None, &all[..0]), Err(Exit::Failed));
    }

    #[test]
    fn answer_urls_are_https_unless_meta_is_simulated() {
        assert!(answer_url("https://app.example.com/", false).is_ok());
        assert!(answer_url("http://127.0.0.1:5000/", true).is_ok());
        assert!(answer_url("http://app.example.com/", false).unwrap_err().contains("https"));
        assert!(answer_url("ftp://app.example.com/", true).unwrap_err().contains("http or https"));
        assert!(answer_url("app.example.com", true).is_err());
        assert!(email("ops@example.com").is_ok() && email("ops").is_err());
    }
}
