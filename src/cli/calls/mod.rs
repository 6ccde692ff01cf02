//! `offhook calls`: lists the latest calls, shows one as a waterfall, and prints its node.
//!
//! It reads the store, whether or not a node is running, or queries a node over its API (`source`).
//! `draw` and `list` render the text and are pure.

mod bodies;
mod draw;
mod list;
mod source;
mod spark;

use std::io::IsTerminal as _;

use serde_json::json;

use super::target::SourceArgs;
use super::{Exit, print};
use draw::Paint;
use engine::call::course::Course;
use engine::call::waterfall::{Bar, Waterfall};
use model::Timestamp;
use source::{Source, Whereabouts};

/// `offhook calls …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// List the latest calls, newest first
    List(ListArgs),
    /// Show one call as a waterfall: webhook, Graph, documents, media, prompts, digits and
    /// callbacks with their durations
    Show(ShowArgs),
    /// Show the node of a live call, or the node at which an ended call was live
    Where(WhereArgs),
}

/// Options of `offhook calls list`.
#[derive(clap::Args, Clone, Debug)]
pub struct ListArgs {
    /// Maximum number of calls, up to 1,000
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = crate::cli::whole(1_u32..=1000), allow_negative_numbers = true)]
    pub limit: u32,
    #[command(flatten)]
    pub from: SourceArgs,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Options of `offhook calls show`.
#[derive(clap::Args, Clone, Debug)]
pub struct ShowArgs {
    /// UUID of the call, as in callbacks, logs and `calls list`, or its first characters
    #[arg(value_name = "UUID", value_parser = source::CallPrefix::parse)]
    pub call: source::CallPrefix,
    #[command(flatten)]
    pub from: SourceArgs,
    /// Print one JSON object per line: the call, then each bar, finding, voice, recogniser,
    /// quality sample and remark
    #[arg(long)]
    pub json: bool,
    /// Include bodies: webhooks, Graph requests, documents and callbacks, with full phone numbers
    #[arg(long)]
    pub bodies: bool,
}

/// Options of `offhook calls where`.
#[derive(clap::Args, Clone, Debug)]
pub struct WhereArgs {
    /// UUID of the call, or its first characters
    #[arg(value_name = "UUID", value_parser = source::CallPrefix::parse)]
    pub call: source::CallPrefix,
    #[command(flatten)]
    pub from: SourceArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. Exit code 0: shown; 1: no such call, or the source is not available; 2: wrong
/// usage.
pub fn run(args: Args) -> Exit {
    super::run_async(async {
        match args.command {
            Command::List(args) => list(args).await,
            Command::Show(args) => show(args).await,
            Command::Where(args) => whereabouts(args).await.unwrap_or_else(|exit| exit),
        }
    })
}

async fn list(args: ListArgs) -> Exit {
    let source = match Source::open(&args.from).await {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    let calls = match source.latest(args.limit).await {
        Ok(calls) => calls,
        Err(exit) => return exit,
    };
    if args.json {
        calls.iter().for_each(print::json);
    } else if calls.is_empty() {
        print::line(format_args!("no calls in {source} yet"));
    } else {
        print::text(&list::table(&calls));
    }
    Exit::Done
}

async fn show(args: ShowArgs) -> Exit {
    let source = match Source::open(&args.from).await {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    let call = match source.find(&args.call).await {
        Ok(call) => call,
        Err(exit) => return exit,
    };
    let log = match source.log(call).await {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    if log.is_empty() {
        return Exit::failed(format_args!(
            "call {call} has no event log: it was never placed, its log has expired ([retention].event_log_days), or the user's data was erased"
        ));
    }
    let fall = match Waterfall::of(log.as_slice()) {
        Ok(fall) => fall,
        Err(e) => {
            return Exit::failed(format_args!("{e}"));
        }
    };
    if args.json {
        objects(&fall, args.bodies);
    } else {
        print::text(&draw::waterfall(&fall, width(), Paint::of(print::colour(false))));
        if args.bodies {
            print::text(&bodies::text(&fall));
        }
    }
    Exit::Done
}

async fn whereabouts(args: WhereArgs) -> Result<Exit, Exit> {
    let source = Source::open(&args.from).await?;
    let call = source.find(&args.call).await?;
    let Whereabouts { node, has_ended } = source.whereabouts(call).await?;
    match (args.json, has_ended) {
        (true, _) => print::json(&json!({ "callUuid": call, "node": node, "ended": has_ended })),
        (false, true) => print::line(format_args!("{call} has ended; it was at {node}")),
        (false, false) => print::line(format_args!("{call} is at {node}")),
    }
    Ok(Exit::Done)
}

/// Width of the terminal, or 100 columns if standard output is not a terminal.
fn width() -> usize {
    let terminal = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    terminal.map_or(100, |(terminal_size::Width(columns), _)| usize::from(columns))
}

fn objects(fall: &Waterfall, bodies: bool) {
    print::json(&json!({
        "event": "call",
        "call_uuid": fall.call,
        "trace_id": fall.trace_id,
        "from": fall.from,
        "to": fall.to,
        "direction": fall.direction,
        "started": fall.started.map(Timestamp::rfc3339),
        "set_up_us": fall.set_up_us(),
        "answered_us": fall.answered_us,
        "ended_us": fall.ended_us,
        "cause": fall.cause,
    }));
    for bar in &fall.bars {
        object(bar, None, bodies);
        bar.parts.iter().for_each(|part| object(part, Some(&bar.name), false));
    }
    for (at_us, finding) in &fall.findings {
        let (line, column) = (finding.at.line, finding.at.column);
        print::json(&json!({
            "event": "finding", "at_us": at_us, "rule": finding.rule, "severity": finding.severity, "line": line,
            "column": column, "message": finding.message, "hint": finding.hint,
        }));
    }
    if let Some(quality) = &fall.quality {
        print::json(&json!({"event": "quality", "quality": quality}));
    }
    for (voice, playlists) in &fall.voices {
        print::json(&json!({"event": "voice", "voice": voice, "playlists": playlists}));
    }
    for (used, utterances) in &fall.recognisers {
        print::json(&json!({
            "event": "recogniser", "recogniser": used.recogniser, "language": used.language, "utterances": utterances,
        }));
    }
    for moment in fall.course.iter().flat_map(Course::moments) {
        let us = |ms: u32| u64::from(ms) * 1_000;
        print::json(&json!({
            "event": "sample", "from_us": us(moment.from_ms), "to_us": us(moment.until_ms), "quality": moment.quality,
        }));
    }
    for (at_us, text) in &fall.remarks {
        print::json(&json!({"event": "remark", "at_us": at_us, "text": text}));
    }
}

fn object(bar: &Bar, within: Option<&str>, bodies: bool) {
    let mut object = json!({
        "event": "bar", "name": bar.name, "of": within, "who": bar.what.as_str(), "from_us": bar.from_us,
        "to_us": bar.to_us, "note": bar.note, "failed": bar.failed, "span": bar.span,
    });
    if bodies {
        object["bodies"] = bar.bodies.iter().map(bodies::object).collect();
    }
    print::json(&object);
}
