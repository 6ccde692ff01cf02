//! `offhook xml check`: the linter of answer documents.
//!
//! Reads, prints and picks the exit code; what is right and wrong is `crate::xml`'s business. A URL is asked as a
//! node would ask it, except that addresses of this machine and plain http are open: whoever runs the command is
//! no stranger.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};

use super::{Exit, print, runtime};
use crate::answer::charset;
use crate::egress::{self, Egress, EgressConfig, EgressError, EgressRequest, Guard, Want};
use crate::xml::ast::{Finding, Severity};
use crate::xml::{self, MAX_BODY, Parsed};

/// `offhook xml …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with documents.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Lint a document: each finding with line, column, rule and a hint (exit 0 clean, 1 findings, 2 unreadable)
    Check(CheckArgs),
}

/// Options of `offhook xml check`.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// A file, an http(s) URL, or `-` for standard input
    #[arg(required = true, value_name = "FILE|URL|-")]
    pub sources: Vec<String>,
    /// One JSON object a file
    #[arg(long)]
    pub json: bool,
}

/// Lints.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(args) => check(&args),
    }
}

fn check(args: &CheckArgs) -> Exit {
    let mut clean = true;
    let mut readable = true;
    for source in &args.sources {
        match read(source) {
            Ok(parsed) => {
                clean &= parsed.findings.is_empty();
                if args.json {
                    print::json(&xml::report(source, &parsed));
                } else {
                    print::text(&told(source, &parsed, print::colour(false)));
                }
            }
            Err(why) => {
                readable = false;
                print::error(why);
            }
        }
    }
    match (readable, clean) {
        (false, _) => Exit::Usage,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Done,
    }
}

/// Reads one source and judges it; `Err` says what to do.
fn read(source: &str) -> Result<Parsed, String> {
    if source == "-" {
        let body = bounded(std::io::stdin().lock())
            .map_err(|e| format!("could not read standard input: {e}; pipe a document into it, or name a file"))?;
        return Ok(xml::parse(&body, None));
    }
    if is_url(source) {
        return runtime()?.block_on(fetch(source)).map_err(|why| {
            format!("could not fetch {source}: {why}; see that it answers 200 to a GET, or save the document and name the file")
        });
    }
    let body = std::fs::File::open(Path::new(source))
        .and_then(bounded)
        .map_err(|e| format!("could not read {source}: {e}; name a file, an http(s) URL, or - for standard input"))?;
    Ok(xml::parse(&body, None))
}

fn is_url(source: &str) -> bool {
    source
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http"))
}

/// One byte more than a document may have is enough to refuse it.
fn bounded(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(MAX_BODY as u64 + 1).read_to_end(&mut body)?;
    Ok(body)
}

async fn fetch(url: &str) -> Result<Parsed, String> {
    // `allow_insecure`: one's own application, on one's own machine.
    let config = EgressConfig::new(Guard::new(true, Vec::new()));
    let egress = Egress::new(config).map_err(|e| format!("could not set up TLS: {e}"))?;
    let mut url = egress.url(url).map_err(|refusal| format!("could not {refusal}"))?;
    for _ in 0..=egress::REDIRECTS_MAX {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/xml, text/xml, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(egress::USER_AGENT));
        let ask = EgressRequest {
            method: Method::GET,
            url: &url,
            headers,
            body: Bytes::new(),
            // As long as a call would wait (L22).
            connect: Duration::from_secs(2),
            read: Duration::from_secs(10),
            want: Want::Body { max: MAX_BODY },
        };
        let answer = match egress.request(ask).await {
            Ok(answer) => answer,
            Err(EgressError::TooLarge { .. }) => return Ok(Parsed::too_large(MAX_BODY)),
            Err(e) => return Err(format!("could not {e}")),
        };
        if let Some(next) = answer.redirect(&url, egress.guard()) {
            url = next.map_err(|refusal| format!("could not {refusal}"))?;
            continue;
        }
        if !answer.status.is_success() {
            return Err(format!("the answer was {}", answer.status));
        }
        let content_type = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        return Ok(xml::parse(&answer.body, content_type.and_then(charset)));
    }
    Err(format!("could not {}", EgressError::Redirects))
}

/// The findings for people: each with its line and a caret under the spot.
fn told(source: &str, parsed: &Parsed, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for finding in &parsed.findings {
        out.push_str(&renderer.render(&[drawn(source, parsed.source.as_deref(), finding)]));
        out.push_str("\n\n");
    }
    let errors = parsed.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let verdict = match (errors, parsed.findings.len() - errors) {
        (0, 0) => "no findings".to_owned(),
        (0, warnings) => format!("{}; the document runs", counted(warnings, "warning")),
        (errors, 0) => format!("{}; nothing of the document runs", counted(errors, "error")),
        (errors, warnings) => {
            format!("{}, {}; nothing of the document runs", counted(errors, "error"), counted(warnings, "warning"))
        }
    };
    let more =
        if parsed.omitted > 0 { format!(" ({} more findings not shown)", parsed.omitted) } else { String::new() };
    out.push_str(&format!("{source}: {verdict}{more}\n"));
    out
}

fn drawn<'a>(source: &'a str, text: Option<&'a str>, finding: &'a Finding) -> Group<'a> {
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
            // A snippet with a path counts the column itself, in what is shown.
            if start == byte { title.element(snippet.path(source)) } else { title.element(origin).element(snippet) }
        }
        None => title.element(origin),
    };
    group.element(Level::HELP.message(&*finding.hint))
}

/// What of a line is shown: all of it, or a piece around the spot where it is very long.
fn window(line: &str, byte: usize) -> (&str, usize) {
    const BEFORE: usize = 60;
    const AFTER: usize = 100;
    let (before, after) = line.split_at_checked(byte).unwrap_or((line, ""));
    let start = before.char_indices().rev().nth(BEFORE).map_or(0, |(at, _)| at);
    let end = after.char_indices().nth(AFTER).map_or(line.len(), |(at, _)| byte + at);
    (line.get(start..end).unwrap_or(line), byte - start)
}

/// How many bytes of a text the caret goes under: a tag's beginning, a name, or one character.
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
    use std::io::Write as _;

    use super::*;

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/plivo-xml/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn a_finding_is_drawn_with_its_line_and_a_caret() {
        let body = "<Response>\r\n\t<GetInput action=\"/menu\"/>\r\n</Response>";
        assert_eq!(
            told("menu.xml", &xml::parse(body.as_bytes(), None), false),
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
        let verdict =
            |body: &str| told("-", &xml::parse(body.as_bytes(), None), false).lines().last().unwrap().to_owned();
        assert_eq!(verdict("<Response><Wait/></Response>"), "-: no findings");
        assert_eq!(verdict("<Response/>"), "-: 1 warning; the document runs");
        assert_eq!(verdict("<Response><Play a=''/></Response>"), "-: 1 error, 1 warning; nothing of the document runs");
        assert_eq!(verdict("<Response><Play/><DTMF/></Response>"), "-: 2 errors; nothing of the document runs");
    }

    #[test]
    fn the_place_is_right_where_the_line_is_cut_or_there_is_none() {
        let long = format!("<Response>{}<Bogus/>{}</Response>", "<Wait/>".repeat(50), "<Wait/>".repeat(50));
        let out = told("-", &xml::parse(long.as_bytes(), None), false);
        assert!(out.contains("-:1:361"), "{out}");
        assert!(out.lines().all(|line| line.chars().count() < 200), "{out}");
        let out = told("-", &xml::parse(b"<Response>\n\xFF", None), false);
        assert!(out.contains("--> -:2:1"), "{out}");
    }

    #[test]
    fn files_are_read_or_said_why_not() {
        assert!(read(&fixture("ok-01-greeting.xml")).unwrap().ok());
        assert_eq!(read(&fixture("bad-44-too-large.xml")).unwrap().findings[0].rule, "E101");
        for source in [fixture("no such file"), fixture(""), "ftp://x.example.com/".to_owned()] {
            let why = read(&source).unwrap_err();
            assert!(why.starts_with("could not read ") && why.contains("; name a file"), "{why}");
        }
        let run =
            |sources: &[&str], json| check(&CheckArgs { sources: sources.iter().map(|s| fixture(s)).collect(), json });
        assert_eq!(run(&["ok-01-greeting.xml"], true), Exit::Done);
        assert_eq!(run(&["ok-01-greeting.xml", "warn-08-empty-response.xml"], true), Exit::Failed);
        assert_eq!(run(&["warn-08-empty-response.xml", "no such file", "ok-01-greeting.xml"], true), Exit::Usage);
    }

    /// A server that gives these answers, one a connection.
    fn serve(answers: Vec<String>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/answer", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
                    asked.push(byte[0]);
                }
                // The reader may have had enough before the end.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        url
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    #[test]
    fn urls_are_asked() {
        let clean = "<Response><Speak>caf\u{e9}</Speak></Response>";
        let url = serve(vec![
            answer("302 Found", "Location: /other\r\n", ""),
            answer("200 OK", "Content-Type: text/html\r\n", clean),
            answer("200 OK", "Content-Type: text/xml; charset=ISO-8859-1\r\n", clean),
            answer("200 OK", "", &" ".repeat(MAX_BODY + 1)),
            answer("404 Not Found", "", "<Response/>"),
        ]);
        assert!(read(&url).unwrap().findings.is_empty(), "through a redirect");
        assert_eq!(read(&url).unwrap().findings[0].rule, "E102", "the charset counts");
        assert_eq!(read(&url).unwrap().findings[0].rule, "E101");
        let why = read(&url).unwrap_err();
        assert!(why.contains("the answer was 404") && why.contains("name the file"), "{why}");
    }
}
