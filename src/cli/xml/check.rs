//! `offhook xml check`: lints answer documents. Prints text, JSON or SARIF.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::super::{Exit, config, print};
use super::Format;
use super::draw::render;
use super::explain;
use super::sarif::Sarif;
use super::source::{self, STDIN};
use crate::speech_settings;
use speech::catalogue;
use speech::recognise::Recognisers;
use xml::{self, EngineCapabilities, ParseOutcome};

/// Options of `offhook xml check`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Files, http(s) URLs, or `-` for standard input
    #[arg(required_unless_present = "explain", value_name = "FILE|URL|-")]
    pub sources: Vec<String>,
    /// Explain a rule, such as E311, with a wrong and a right example; `all` explains every rule
    #[arg(long, value_name = "RULE", conflicts_with_all = ["sources", "config", "allow_insecure"])]
    pub explain: Vec<String>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Print one JSON object per file, like --format json
    #[arg(long, conflicts_with_all = ["format", "sarif"])]
    pub json: bool,
    /// Print one SARIF 2.1.0 document for all files, like --format sarif
    #[arg(long, conflicts_with_all = ["format", "explain"])]
    pub sarif: bool,
    /// Also compare the callerId of each WhatsApp Dial with the business numbers of this
    /// configuration (W405), and accept the host of its base_url in SIP addresses (W403)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Allow http URLs and private addresses, as [answer].allow_insecure does [default: as in
    /// --config, else true for the documents and URLs of an http URL]
    #[arg(long, value_name = "BOOL")]
    pub allow_insecure: Option<bool>,
}

impl Args {
    fn format(&self) -> Format {
        match (self.json, self.sarif) {
            (true, _) => Format::Json,
            (_, true) => Format::Sarif,
            (false, false) => self.format,
        }
    }
}

/// Lints documents, or explains rules.
pub(super) fn run(args: &Args) -> Exit {
    if !args.explain.is_empty() {
        return explain::run(&args.explain, args.format());
    }
    if args.sources.iter().filter(|source| *source == STDIN).count() > 1 {
        return Exit::usage("standard input can be read only once; name - once");
    }
    let known = match args.config.as_deref().map(config::load).transpose() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let configured = known.as_ref().map(|c| c.answer.allow_insecure);
    let allow_insecure = args.allow_insecure.or(configured);
    let own_host = known.as_ref().and_then(|c| c.public.base_url.as_ref()?.host_str());
    let own_host = own_host.map(ToOwned::to_owned);
    let speech = known.as_ref().and_then(|config| speech_settings::read(config).ok());
    let recognisers = speech.as_ref().and_then(|speech| Recognisers::new(speech).ok());
    let own: Option<BTreeSet<String>> = known.map(|c| {
        c.numbers
            .iter()
            .filter(|n| n.calling_enabled)
            .map(|n| n.number.as_str().to_owned())
            .collect()
    });
    let mut report = Report::new(args.format());
    for source in &args.sources {
        let parsed = source::read(source, allow_insecure.unwrap_or(true)).map(|mut parsed| {
            // A server with plain http is that of a developer.
            if allow_insecure.unwrap_or_else(|| source.starts_with("http://")) {
                parsed = parsed.allow_plain_urls();
            }
            if let Some(host) = &own_host {
                parsed = parsed.allow_sip_host(host);
            }
            if let Some(own) = &own {
                xml::check_caller_ids(&mut parsed, own);
            }
            if let (Some(speech), Some(recognisers)) = (&speech, &recognisers) {
                let capabilities = EngineCapabilities {
                    supports_tag: &|voice, language, tag| {
                        catalogue::supports_tag(speech, voice, language, tag)
                    },
                    recognises: &|language, hints| recognisers.can_recognise_with(language, hints),
                };
                xml::check_capabilities(&mut parsed, &capabilities);
            }
            parsed
        });
        report.add(source, parsed);
    }
    report.end()
}

/// Prints the findings and determines the exit code.
struct Report {
    format: Format,
    sarif: Sarif,
    clean: bool,
    readable: bool,
}

impl Report {
    fn new(format: Format) -> Self {
        Self { format, sarif: Sarif::default(), clean: true, readable: true }
    }

    fn add(&mut self, source: &str, parsed: Result<ParseOutcome, String>) {
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(why) => {
                self.readable = false;
                self.sarif.unreadable(&why);
                print::error(why);
                return;
            }
        };
        self.clean &= parsed.findings.is_empty();
        match self.format {
            Format::Text => print::text(&render(source, &parsed, print::colour(false))),
            Format::Json => print::json(&xml::report(source, &parsed)),
            Format::Sarif => self.sarif.add(source, &parsed),
        }
    }

    fn end(self) -> Exit {
        if self.format == Format::Sarif {
            print::json(&self.sarif.document());
        }
        match (self.readable, self.clean) {
            (false, _) => Exit::Usage,
            (true, false) => Exit::Failed,
            (true, true) => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn checked(arguments: &[&str]) -> Exit {
        let line =
            Line::try_parse_from(std::iter::once(&"check").chain(arguments)).expect("arguments");
        run(&line.args)
    }

    #[test]
    fn exits_with_the_worst_result() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/plivo-xml");
        let [good, warned, gone] =
            ["ok-01-greeting.xml", "warn-08-empty-response.xml", "no such file"]
                .map(|name| format!("{folder}/{name}"));
        for format in ["text", "json", "sarif"] {
            let checked = |sources: &[&str]| checked(&[&["--format", format], sources].concat());
            assert_eq!(checked(&[&good]), Exit::Done);
            assert_eq!(checked(&[&good, &warned]), Exit::Failed);
            assert_eq!(checked(&[&warned, &gone, &good]), Exit::Usage);
        }
        assert_eq!(checked(&["-", "-"]), Exit::Usage);
        // As the help says, http URLs are reported by default in documents from files.
        let file = tempfile::NamedTempFile::new().expect("a file");
        let document = "<Response><Redirect>http://127.0.0.1:5000/next</Redirect></Response>";
        std::fs::write(file.path(), document).expect("written");
        let path = file.path().to_str().expect("a path");
        assert_eq!(checked(&[path]), Exit::Failed);
        assert_eq!(checked(&["--allow-insecure", "true", path]), Exit::Done);
        assert_eq!(checked(&["--explain", "e311", "--explain", "W402"]), Exit::Done);
        assert_eq!(checked(&["--explain", "E999"]), Exit::Usage);
    }

    #[test]
    fn rejects_contradictory_arguments() {
        for wrong in [
            &[][..],
            &["--json", "--sarif", "a"],
            &["--explain", "E311", "a.xml"],
            &["--json", "--format", "text", "a"],
        ] {
            assert!(
                Line::try_parse_from(std::iter::once(&"check").chain(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
}
