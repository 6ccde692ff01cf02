//! `offhook xml check --explain RULE`: explains linter rules.

use serde::Serialize;

use super::super::{Exit, print};
use super::Format;
use xml::ast::Severity;
use xml::explain::{Explanation, all, explanation};

/// Output of `--explain RULE --json`.
#[derive(Serialize)]
struct RuleExplanation {
    rule: &'static str,
    severity: Severity,
    meaning: &'static str,
    what: &'static str,
    why: &'static str,
    wrong: &'static str,
    right: &'static str,
}

/// Explains rules by their codes; `all` selects every rule.
pub(super) fn run(ids: &[String], format: Format) -> Exit {
    let mut wanted = Vec::new();
    for id in ids {
        if id.eq_ignore_ascii_case("all") {
            wanted.extend(all());
        } else if let Some(found) = explanation(id) {
            wanted.push(found);
        } else {
            let rules: Vec<_> = all().map(|e| e.rule.id).collect();
            return Exit::usage(format_args!(
                "unknown rule {id:?}; use `all` or one of {}",
                rules.join(" ")
            ));
        }
    }
    for (nth, e) in wanted.iter().enumerate() {
        match format {
            Format::Json => print::json(&RuleExplanation {
                rule: e.rule.id,
                severity: e.rule.severity(),
                meaning: e.rule.meaning,
                what: e.requirement,
                why: e.reason,
                wrong: e.incorrect.text,
                right: e.correct.text,
            }),
            Format::Text | Format::Sarif => {
                print::text(&format!("{}{}", if nth == 0 { "" } else { "\n" }, render(e)));
            }
        }
    }
    Exit::Done
}

fn render(e: &Explanation) -> String {
    let effect = match e.rule.severity() {
        Severity::Error => "error: nothing of the document runs",
        Severity::Warning => "warning: the document runs",
    };
    let indented =
        |document: &str| document.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "{}  {}\n{effect}\n\n{}\n\n{}\n\nWrong:\n\n{}\nRight:\n\n{}",
        e.rule.id,
        e.rule.meaning,
        wrap(e.requirement),
        wrap(e.reason),
        indented(e.incorrect.text),
        indented(e.correct.text)
    )
}

/// Wraps a text at 96 columns.
fn wrap(text: &str) -> String {
    const COLUMNS: usize = 96;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{render, wrap};
    use xml::explain::explanation;

    #[test]
    fn an_explanation_has_its_parts() {
        let text = render(&explanation("w402").expect("a rule"));
        assert!(text.starts_with(
            "W402  PreAnswer media cannot be heard on WhatsApp\nwarning: the document runs\n\n"
        ));
        assert!(
            text.contains("\nWrong:\n\n    <Response>\n")
                && text.contains("\nRight:\n\n    <Response>\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(wrap("a b"), "a b");
    }
}
