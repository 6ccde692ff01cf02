//! `offhook replay`: the same decisions again, or the first difference.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Exit, print};
use crate::call::machine::Output;
use crate::call::replay::{Difference, Replayed, Step, replay};

/// Options of `offhook replay`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A call's event log, JSON lines; `-` for standard input
    #[arg(value_name = "EVENTS.jsonl")]
    pub events: PathBuf,
    /// One JSON object a line: each step, then the result
    #[arg(long)]
    pub json: bool,
}

/// Replays: 0 the same, 1 a difference, 2 unreadable.
pub fn run(args: Args) -> Exit {
    let name = args.events.display();
    let on_step = |step: &Step<'_>| if args.json { step_object(step) } else { step_lines(step) };
    let replayed = match open(&args.events) {
        Ok(log) => replay(log, on_step),
        Err(e) => return Exit::usage(format_args!("could not open {name}: {e}")),
    };
    match replayed {
        Ok(replayed) if args.json => result_object(&replayed),
        Ok(replayed) => result_lines(&replayed),
        Err(e) => Exit::usage(format_args!("could not replay {name}: could not {e}")),
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    Ok(if path == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path)?))
    })
}

fn step_lines(step: &Step<'_>) {
    print::line(format_args!("{:>9} ms  {}", step.at.0, one_line(&step.input.to_string())));
    for wish in step.outputs {
        print::line(format_args!("              → {}", one_line(&wish.to_string())));
    }
}

fn step_object(step: &Step<'_>) {
    let wishes: Vec<String> = step.outputs.iter().map(Output::to_string).collect();
    print::json(&json!({
        "event": "step", "line": step.line, "at_ms": step.at.0, "input": step.input.to_string(), "outputs": wishes,
    }));
}

fn result_lines(replayed: &Replayed) -> Exit {
    let Replayed { header, same, difference } = replayed;
    match difference {
        None => {
            print::line(format_args!("call {}: {same} facts, the same decisions", header.call));
            Exit::Done
        }
        Some(Difference { line, at, input, wish, expected, actual }) => {
            print::line(format_args!("call {}: line {line}, at {} ms, {}", header.call, at.0, one_line(input)));
            print::line(format_args!(
                "  wish {wish} as logged by offhook {}: {}",
                one_line(&header.offhook),
                shown(expected)
            ));
            print::line(format_args!("  wish {wish} now: {}", shown(actual)));
            Exit::failed(format_args!("the decisions differ after {same} facts that were the same"))
        }
    }
}

fn result_object(replayed: &Replayed) -> Exit {
    let Replayed { header, same, difference } = replayed;
    let difference_object = difference.as_ref().map(|d| {
        json!({ "line": d.line, "at_ms": d.at.0, "input": d.input, "wish": d.wish, "expected": d.expected, "actual": d.actual })
    });
    print::json(&json!({
        "event": "result", "call": header.call, "offhook": header.offhook, "ok": difference.is_none(), "same": same,
        "difference": difference_object,
    }));
    if difference.is_some() { Exit::Failed } else { Exit::Done }
}

fn shown(wish: &Option<Value>) -> String {
    wish.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// A log is a file from outside: no control character of it reaches the terminal (R22).
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
