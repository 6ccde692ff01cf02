//! Renders findings as text, each with its line and a caret.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::cli::print::counted;
use xml::ast::{Finding, Severity};
use xml::{self, ParseOutcome};

/// Renders the findings of a document, then a verdict line.
pub(super) fn render(source: &str, parsed: &ParseOutcome, colour: bool) -> String {
    let renderer =
        if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for finding in &parsed.findings {
        let group = finding_group(source, parsed.source.as_deref(), finding);
        // The renderer replaces the C0 control characters of the document, but not the C1 ones.
        let c1 = '\u{80}'..='\u{9f}';
        out.push_str(&renderer.render(&[group]).replace(|c| c1.contains(&c), "\u{fffd}"));
        out.push_str("\n\n");
    }
    let errors = parsed.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let verdict = match (errors, parsed.findings.len() - errors) {
        (0, 0) => "no findings".to_owned(),
        (0, warnings) => format!("{}; the document runs", counted(warnings, "warning")),
        (errors, 0) => format!("{}; nothing of the document runs", counted(errors, "error")),
        (errors, warnings) => {
            format!(
                "{}, {}; nothing of the document runs",
                counted(errors, "error"),
                counted(warnings, "warning")
            )
        }
    };
    let more = if parsed.omitted > 0 {
        format!(" ({} more findings not shown)", parsed.omitted)
    } else {
        String::new()
    };
    out.push_str(&format!("{source}: {verdict}{more}\n"));
    out
}

fn finding_group<'a>(source: &'a str, text: Option<&'a str>, finding: &'a Finding) -> Group<'a> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let at = finding.at;
    let origin = Origin::path(source).line(at.line as usize).char_column(at.column as usize);
    let title = level.primary_title(&*finding.message).id(&*finding.rule);
    let group = match text.and_then(|text| xml::line_at(text, at)) {
        Some((line, byte)) => {
            let (shown, start) = window(line, byte);
            let end = start + word(shown.get(start..).unwrap_or(""));
            let snippet = Snippet::source(shown).line_start(at.line as usize);
            let snippet = snippet.annotation(AnnotationKind::Primary.span(start..end));
            // `annotate-snippets` computes the column from the snippet, which is wrong if the line
            // was cut.
            if start == byte {
                title.element(snippet.path(source))
            } else {
                title.element(origin).element(snippet)
            }
        }
        None => title.element(origin),
    };
    group.element(Level::HELP.message(&*finding.hint))
}

/// Returns the part of a line that is shown: the whole line, or an excerpt around the position if
/// it is very long. Also returns the new byte offset.
fn window(line: &str, byte: usize) -> (&str, usize) {
    const BEFORE: usize = 60;
    const AFTER: usize = 100;
    let (before, after) = line.split_at_checked(byte).unwrap_or((line, ""));
    let start = before.char_indices().rev().nth(BEFORE).map_or(0, |(at, _)| at);
    let end = after.char_indices().nth(AFTER).map_or(line.len(), |(at, _)| byte + at);
    (line.get(start..end).unwrap_or(line), byte - start)
}

/// Length of the marked text in bytes: the start of a tag, a name, or one character.
fn word(text: &str) -> usize {
    let mut chars = text.char_indices();
    let Some((_, first)) = chars.next() else { return 0 };
    if first != '<' && !first.is_alphanumeric() {
        return first.len_utf8();
    }
    let ends = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | '/'));
    chars.find(|&(_, c)| ends(c)).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::render;
    use xml;

    #[test]
    fn a_finding_is_drawn_with_its_line_and_a_caret() {
        let body = "<Response>\r\n\t<GetInput action=\"/menu\"/>\r\n</Response>";
        assert_eq!(
            render("menu.xml", &xml::parse(body.as_bytes(), None), false),
            "error[E311]: action=\"/menu\" is not an absolute URL\n \
             --> menu.xml:2:12\n  \
             |\n\
             2 |     <GetInput action=\"/menu\"/>\n  \
             |               ^^^^^^\n  \
             |\n  \
             = help: write an absolute URL, https://host/path\n\n\
             menu.xml: 1 error; nothing of the document runs\n"
        );
    }

    #[test]
    fn the_verdict_counts() {
        let verdict = |body: &str| {
            render("-", &xml::parse(body.as_bytes(), None), false)
                .lines()
                .last()
                .unwrap()
                .to_owned()
        };
        assert_eq!(verdict("<Response><Wait/></Response>"), "-: no findings");
        assert_eq!(verdict("<Response/>"), "-: 1 warning; the document runs");
        assert_eq!(
            verdict("<Response><Play a=''/></Response>"),
            "-: 1 error, 1 warning; nothing of the document runs"
        );
        assert_eq!(
            verdict("<Response><Play/><DTMF/></Response>"),
            "-: 2 errors; nothing of the document runs"
        );
    }

    #[test]
    fn the_position_is_right_for_a_cut_or_missing_line() {
        let long = format!(
            "<Response>{}<Bogus/>{}</Response>",
            "<Wait/>".repeat(50),
            "<Wait/>".repeat(50)
        );
        let out = render("-", &xml::parse(long.as_bytes(), None), false);
        assert!(out.contains("-:1:361"), "{out}");
        assert!(out.lines().all(|line| line.chars().count() < 200), "{out}");
        let control = "<Response><Speak voice=\"\u{9b}31m\u{202e}\u{1b}[2J\">x</Speak></Response>";
        let out = render("-", &xml::parse(control.as_bytes(), None), false);
        assert!(out.contains("31m"), "{out}");
        assert!(!out.contains(['\u{9b}', '\u{202e}', '\u{1b}']), "{out}");
        let out = render("-", &xml::parse(b"<Response>\n\xFF", None), false);
        assert!(out.contains("--> -:2:1"), "{out}");
    }
}
