//! `offhook replay`: runs an event log through the call machine and shows the first difference.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::print::counted;
use super::{Exit, print};
use machine::log::LogError;
use machine::replay::{Difference, ReplayReport, Step, replay};
use machine::{Field, Output};

/// Options of `offhook replay`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Event log of a call (JSON lines); `-` reads standard input
    #[arg(value_name = "EVENTS.jsonl")]
    pub events: PathBuf,
    /// Print one JSON object per line: each step, then the result
    #[arg(long)]
    pub json: bool,
    /// After each step, show the fields of the machine that changed: state, slot, legs, document,
    /// timers, …
    #[arg(long)]
    pub states: bool,
    /// Show only this step, counted from 1, with all fields of the machine
    #[arg(long, value_name = "N", value_parser = super::positive, allow_negative_numbers = true)]
    pub step: Option<u64>,
}

/// Replays the log. Exit code 0: no difference; 1: a difference; 2: unreadable log.
pub fn run(args: Args) -> Exit {
    let name = args.events.display();
    let mut printer = StepPrinter { args: &args, number: 0, before: Vec::new() };
    let on_step = |step: &Step<'_>| printer.step(step);
    let replayed = match open(&args.events) {
        Ok(log) => replay(log, on_step),
        Err(e) => return Exit::usage(format_args!("could not open {name}: {e}")),
    };
    let steps = printer.number;
    if let (Ok(_), Some(step)) = (&replayed, args.step.filter(|step| *step > steps)) {
        return Exit::usage(format_args!("no step {step} in {name}; the last one is {steps}"));
    }
    if let Ok(replayed) = &replayed
        && let Some(note) = note(replayed)
    {
        print::error_text(&format!("note: {note}\n"));
    }
    match replayed {
        Ok(replayed) if args.json => result_object(&replayed),
        Ok(replayed) => result_lines(&replayed),
        Err(e) => {
            let why = match e {
                LogError::Empty => "the file is empty".to_owned(),
                LogError::Malformed { line: 1, .. }
                | LogError::TooLong { line: 1 }
                | LogError::Cut { line: 1 } => {
                    "its first line is not that of an event log".to_owned()
                }
                other => other.to_string(),
            };
            Exit::usage(format_args!(
                "could not replay {name}: {why}\nthe event log of a call is needed, a file of JSON \
                 lines: GET /api/v1/calls/CALL_UUID/events or the call's page in the console returns it"
            ))
        }
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    Ok(if path == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path)?))
    })
}

/// Prints steps during the replay.
struct StepPrinter<'a> {
    args: &'a Args,
    number: u64,
    /// The fields after the previous step. Empty if fields are not printed.
    before: Vec<Field>,
}

impl StepPrinter<'_> {
    fn step(&mut self, step: &Step<'_>) {
        self.number += 1;
        let Args { json, states, step: only, .. } = *self.args;
        if !states && only.is_none() {
            return if json { step_object(step, None) } else { step_lines(step) };
        }
        let fields = step.machine.snapshot();
        let changed: Vec<&Field> = match self.before.is_empty() {
            true => fields.iter().filter(|field| !field.lines.is_empty()).collect(),
            false => fields
                .iter()
                .zip(&self.before)
                .filter(|(now, was)| now != was)
                .map(|(now, _)| now)
                .collect(),
        };
        if only.is_none_or(|only| only == self.number) {
            if json {
                step_object(step, Some((&fields, &changed)));
            } else {
                step_lines(step);
                let all: Vec<&Field> =
                    fields.iter().filter(|field| !field.lines.is_empty()).collect();
                for field in if only.is_some() { &all } else { &changed } {
                    let mark = if changed.contains(field) { '*' } else { ' ' };
                    print::line(format_args!(
                        "            {mark} {:<12} {}",
                        field.name,
                        field_text(field)
                    ));
                }
            }
        }
        self.before = fields;
    }
}

fn field_text(field: &Field) -> String {
    let lines: Vec<String> = field.lines.iter().map(|line| one_line(&line.to_string())).collect();
    if lines.is_empty() { "–".to_owned() } else { lines.join(" · ") }
}

fn step_lines(step: &Step<'_>) {
    print::line(format_args!("{:>9} ms  {}", step.at.0, one_line(&step.input.to_string())));
    for output in step.outputs {
        print::line(format_args!("              → {}", one_line(&output.to_string())));
    }
}

fn step_object(step: &Step<'_>, held: Option<(&[Field], &[&Field])>) {
    let outputs: Vec<String> = step.outputs.iter().map(Output::to_string).collect();
    let mut object = json!({
        "event": "step", "line": step.line, "at_ms": step.at.0, "input": step.input.to_string(), "outputs": outputs,
    });
    if let Some((fields, changed)) = held {
        let lines =
            |field: &Field| json!(field.lines.iter().map(ToString::to_string).collect::<Vec<_>>());
        let state: Map<String, Value> =
            fields.iter().map(|field| (field.name.to_owned(), lines(field))).collect();
        let changed: Vec<&str> = changed.iter().map(|field| field.name).collect();
        (object["state"], object["changed"]) = (Value::Object(state), json!(changed));
    }
    print::json(&object);
}

/// A note on an incomplete log.
fn note(replayed: &ReplayReport) -> Option<String> {
    match replayed {
        ReplayReport { difference: Some(_), .. } => None,
        ReplayReport { cut: Some(line), .. } => Some(format!(
            "the last line, {line}, is incomplete and was skipped; the log ends before the call does"
        )),
        ReplayReport { over: false, .. } => Some("the log ends before the call does".to_owned()),
        ReplayReport { over: true, .. } => None,
    }
}

fn result_lines(replayed: &ReplayReport) -> Exit {
    let ReplayReport { header, same, difference, .. } = replayed;
    match difference {
        None => {
            print::line(format_args!(
                "call {}: {}, the same decisions",
                header.call,
                counted(*same, "input")
            ));
            Exit::Done
        }
        Some(Difference { line, at, input, output: index, expected, actual }) => {
            print::line(format_args!(
                "call {}: line {line}, at {} ms, {}",
                header.call,
                at.0,
                one_line(input)
            ));
            print::line(format_args!(
                "  output {index} as logged by offhook {}: {}",
                one_line(&header.offhook),
                output_text(expected)
            ));
            print::line(format_args!("  output {index} now: {}", output_text(actual)));
            Exit::failed(format_args!(
                "the decisions differ after {} with equal decisions",
                counted(*same, "input")
            ))
        }
    }
}

fn result_object(replayed: &ReplayReport) -> Exit {
    let ReplayReport { header, same, difference, cut, over } = replayed;
    let difference_object = difference.as_ref().map(|d| {
        json!({ "line": d.line, "at_ms": d.at.0, "input": d.input, "output": d.output, "expected": d.expected, "actual": d.actual })
    });
    print::json(&json!({
        "event": "result", "call": header.call, "offhook": header.offhook, "ok": difference.is_none(), "same": same,
        "difference": difference_object, "cut_line": cut, "over": over,
    }));
    if difference.is_some() { Exit::Failed } else { Exit::Done }
}

fn output_text(output: &Option<Value>) -> String {
    output.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// Replaces control characters, which an untrusted log may contain.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
