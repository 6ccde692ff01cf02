//! Prints the steps of a walk: as text, or as one JSON object per line.

use std::fmt::Write as _;

use serde_json::json;

use super::super::print::{self, counted};
use engine::call::walk::{Event, PromptPiece, Step, WalkResult};
use machine::{InstructionOutcome, Params};
use xml::ast::Severity;

/// Maximum number of document lines that are printed.
const LINES_MAX: usize = 60;
const COLUMNS: usize = 100;
/// Width of the time column.
const MARGIN: usize = 12;

/// Prints steps during the walk.
pub(super) struct Printer {
    json: bool,
    /// Parameters of the previous request: only changes are printed.
    params: Params,
    signed_by: Vec<String>,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json, params: Params::new(), signed_by: Vec::new() }
    }

    pub(super) fn step(&mut self, step: &Step) {
        if self.json {
            print::json(step);
        } else {
            print::text(&self.text(step));
        }
    }

    /// Prints the last JSON object, or the verdict.
    pub(super) fn end(&self, walked: &WalkResult, strict: bool) {
        if self.json {
            return print::json(&json!({
                "event": "ended", "ok": walked.ok(strict), "cause": walked.cause.map(|cause| cause.as_str()),
                "documents": walked.documents, "errors": walked.errors, "warnings": walked.warnings,
                "unused_digits": walked.unused_keys,
                "faults": walked.faults, "took_ms": walked.took_ms,
            }));
        }
        print::text(&verdict(walked, strict));
    }

    fn text(&mut self, step: &Step) -> String {
        let text = match &step.event {
            Event::Request { kind, method, url, params } => {
                let shown = self.changed_params(params);
                format!("{} {url}  ({})\n{shown}", method.as_str(), kind.as_str())
            }
            Event::File { bytes } => format!("the answer document is a file of {bytes} bytes"),
            Event::Answer { attempt, method, url, signed_by, status, failure, took_ms } => {
                let outcome = status
                    .map_or_else(|| failure.unwrap_or("nothing").to_owned(), |s| s.to_string());
                let again =
                    if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let signed = self.signed(signed_by);
                format!("{outcome} in {took_ms} ms from {} {url}{again}\n{signed}", method.as_str())
            }
            Event::NoDocument { kind, why } => format!("no {} document: {why}", kind.as_str()),
            Event::Document { ok, bytes, source, .. } => {
                let verdict = if *ok { "" } else { ", rejected: nothing of it runs" };
                format!(
                    "document of {bytes} bytes{verdict}\n{}",
                    numbered(source.as_deref().unwrap_or_default())
                )
            }
            Event::Finding { finding: f } => {
                let severity = match f.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                };
                let at = (f.at.line, f.at.column);
                format!(
                    "{severity} {} at line {}, column {}: {}\n{}",
                    f.rule, at.0, at.1, f.message, f.hint
                )
            }
            Event::Answered => "the call is answered".to_owned(),
            Event::Instruction { element, line, outcome, note } => {
                instruction(element, *line, *outcome, note)
            }
            Event::Prompt { pieces, ms, endless } => prompt(pieces, *ms, *endless),
            Event::Tones { digits, .. } => format!("  tones {digits}"),
            Event::Stream { url, keeps_call } => {
                let waits = if *keeps_call { "; the document waits until it ends" } else { "" };
                format!("  audio streams to {url}{waits}")
            }
            Event::Calls { to, position } => format!("  target {position} is called: {to}"),
            Event::Key { key } => format!("  the caller presses {key}"),
            Event::Remark { text } => format!("note: {text}"),
            Event::CallerHangsUp { why } => format!("the caller hangs up: {why}"),
            Event::Hangup { cause, code, name, source, answered, duration_s } => {
                let answered = if *answered { "answered" } else { "never answered" };
                format!(
                    "the call ends: {code} {name}, source {source} ({cause}); {answered}, {duration_s} s"
                )
            }
            Event::Callback { kind, method, url, params, sent, status, failure } => {
                let outcome = match (status, failure) {
                    (Some(status), _) => format!("{status}"),
                    (None, Some(why)) => why.clone(),
                    (None, None) => "not sent".to_owned(),
                };
                let not_sent = if *sent { "" } else { "would be sent: " };
                let to = if url.is_empty() {
                    String::new()
                } else {
                    format!("{} {url}: ", method.as_str())
                };
                format!(
                    "{} callback: {not_sent}{to}{outcome}\n{}",
                    kind.as_str(),
                    self.changed_params(params)
                )
            }
        };
        with_time(step.at_ms, &text)
    }

    /// Formats the names of the signature headers. Empty if they are the same as in the previous
    /// row.
    fn signed(&mut self, by: &[String]) -> String {
        if self.signed_by == by {
            return String::new();
        }
        self.signed_by = by.to_vec();
        wrap_words(std::iter::once("signed by").map(str::to_owned).chain(by.iter().cloned()))
    }

    /// Parameters that are new or changed since the previous request.
    fn changed_params(&mut self, params: &Params) -> String {
        let new = params.iter().filter(|(name, value)| self.params.get(name) != Some(value));
        // `Debug` redacts secret values.
        let words: Vec<String> =
            new.map(|(name, value)| format!("{name}={value:?}").replace('"', "")).collect();
        let same = params.iter().count() - words.len();
        let mut text = wrap_words(words.iter().cloned());
        if same > 0 {
            let _ =
                write!(text, "{}and {same} as before", if words.is_empty() { "" } else { "\n" });
        }
        self.params.clone_from(params);
        text
    }
}

/// Wraps words into lines.
fn wrap_words(words: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        let width = word.chars().count() + 2;
        if column > 0 && column + width > COLUMNS - MARGIN {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push_str("  ");
        }
        text.push_str(&word);
        column += width;
    }
    text
}

fn instruction(element: &str, line: u32, outcome: InstructionOutcome, note: &str) -> String {
    let outcome = match outcome {
        InstructionOutcome::Started => return format!("line {line}: {element}"),
        InstructionOutcome::Done => "done",
        InstructionOutcome::Skipped => "skipped",
        InstructionOutcome::Failed => "failed",
        InstructionOutcome::Cut => "cut",
    };
    let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
    format!("line {line}: {element} {outcome}{note}")
}

fn prompt(pieces: &[PromptPiece], ms: u64, endless: bool) -> String {
    let repeated = |times: u16| match times {
        0 => ", repeated without end".to_owned(),
        1 => String::new(),
        times => format!(", {times} times"),
    };
    let mut lines = Vec::new();
    for piece in pieces {
        lines.push(match piece {
            PromptPiece::Speak { text, voice, language, times } => {
                let language = language.as_deref().map(|l| format!(", {l}")).unwrap_or_default();
                format!("  says {text:?} ({voice}{language}){}", repeated(*times))
            }
            PromptPiece::Play { url, times } => {
                format!("  plays {url} (not requested){}", repeated(*times))
            }
            PromptPiece::Silence { ms } => format!("  pauses for {}", time(*ms)),
            PromptPiece::Tone { .. } => "  beeps".to_owned(),
        });
    }
    let is_repeated = |piece: &PromptPiece| {
        matches!(piece, PromptPiece::Speak { times: 0, .. } | PromptPiece::Play { times: 0, .. })
    };
    let length = match endless {
        true if pieces.iter().any(is_repeated) => String::new(),
        true => ", without end".to_owned(),
        false => format!(", about {}", time(ms)),
    };
    match lines.last_mut() {
        Some(last) => last.push_str(&length),
        None => lines.push("  nothing is heard".to_owned()),
    }
    lines.join("\n")
}

/// A document with its line numbers.
fn numbered(source: &str) -> String {
    let mut lines = source.lines();
    let mut text: Vec<String> = lines
        .by_ref()
        .take(LINES_MAX)
        .enumerate()
        .map(|(n, line)| format!("{:>4}  {line}", n + 1))
        .collect();
    let more = lines.count();
    if more > 0 {
        text.push(format!("      and {more} more lines"));
    }
    text.join("\n")
}

/// A text with its time in the first column. Control characters are replaced, since documents are
/// untrusted.
fn with_time(at_ms: u64, event: &str) -> String {
    let mut text = String::new();
    for (n, line) in event.lines().filter(|line| !line.is_empty()).enumerate() {
        let when = if n == 0 { format!("{:>8}", time(at_ms)) } else { String::new() };
        let _ = writeln!(text, "{when:<MARGIN$}{}", print::plain(line).trim_end());
    }
    text
}

fn time(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

fn verdict(walked: &WalkResult, strict: bool) -> String {
    let mut text = String::from("\n");
    for fault in &walked.faults {
        let _ = writeln!(text, "failed: {fault}");
    }
    if walked.faults.is_empty() && strict && walked.warnings > 0 {
        text.push_str("failed: there are warnings (--strict)\n");
    }
    if walked.unused_keys > 0 {
        let _ = writeln!(
            text,
            "note: the last {} of --digits {} not used; each GetInput and GetDigits takes one",
            counted(walked.unused_keys, "list"),
            if walked.unused_keys == 1 { "was" } else { "were" }
        );
    }
    let _ = writeln!(
        text,
        "{}: {}, {}, {}; walked in {}",
        if walked.ok(strict) { "ok" } else { "not ok" },
        counted(walked.documents as usize, "document"),
        counted(walked.errors, "error"),
        counted(walked.warnings, "warning"),
        time(walked.took_ms)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{Printer, numbered, time, verdict, with_time};
    use engine::call::walk::{Event, PromptPiece, Step, WalkResult};
    use machine::{FetchKind, Param, Params};
    use model::Method;

    fn request(digits: &str) -> Step {
        let params = [("CallStatus", "ringing"), ("Digits", digits)];
        let params: Params =
            params.map(|(n, v)| (n.into(), Param::Plain(v.to_owned().into()))).into();
        let (kind, method) = (FetchKind::Action, Method::Post);
        Step {
            at_ms: 1_234,
            event: Event::Request { kind, method, url: "https://a.example/".to_owned(), params },
        }
    }

    #[test]
    fn a_request_shows_changed_parameters() {
        let mut printer = Printer::new(false);
        let first = printer.text(&request("1"));
        assert_eq!(
            first,
            "   1.2 s    POST https://a.example/  (action)\n            CallStatus=ringing  Digits=1\n"
        );
        let second = printer.text(&request("2"));
        assert!(
            second.ends_with("            Digits=2\n            and 1 as before\n"),
            "{second}"
        );
    }

    #[test]
    fn prompts_and_documents_are_text_without_control_characters() {
        let pieces = vec![
            PromptPiece::Speak {
                text: "Hi\u{1b}[2J".to_owned(),
                voice: "WOMAN".to_owned(),
                language: None,
                times: 2,
            },
            PromptPiece::Play { url: "https://a.example/a.mp3".to_owned(), times: 0 },
        ];
        let text = Printer::new(false)
            .text(&Step { at_ms: 0, event: Event::Prompt { pieces, ms: 900, endless: true } });
        assert!(
            text.contains("(WOMAN), 2 times\n") && text.ends_with("repeated without end\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert!(!with_time(0, "a\u{1b}[2Jb").contains('\u{1b}'));
        let long = "<Wait/>\n".repeat(100);
        assert!(numbered(&long).ends_with("and 40 more lines"));
        assert_eq!([time(999), time(1_000), time(61_950)], ["999 ms", "1.0 s", "61.9 s"]);
    }

    #[test]
    fn the_verdict_names_what_failed() {
        let walked = WalkResult { documents: 1, warnings: 2, took_ms: 12, ..WalkResult::default() };
        assert_eq!(
            verdict(&walked, false),
            "\nok: 1 document, 0 errors, 2 warnings; walked in 12 ms\n"
        );
        assert!(verdict(&walked, true).contains("failed: there are warnings (--strict)\nnot ok: "));
        let unused = verdict(&WalkResult { unused_keys: 2, ..walked.clone() }, false);
        assert!(unused.contains("the last 2 lists of --digits were not used"), "{unused}");
        let failed =
            WalkResult { faults: vec!["the answer URL gave no document".to_owned()], ..walked };
        assert!(
            verdict(&failed, false)
                .starts_with("\nfailed: the answer URL gave no document\nnot ok: ")
        );
    }
}
