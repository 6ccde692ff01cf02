//! Replays the event log of a call: each input with its outputs, the state of the machine after the
//! selected step, and the progress in the call's documents.

use std::collections::BTreeMap;

use super::i18n::Lang;
use machine::replay::replay;
use machine::{
    self, CallState, CallTime, FetchResponse, Input, InstructionOutcome, Output, Segment,
};

/// Maximum number of steps.
const STEPS_MAX: usize = 600;

/// A replay on the call page.
pub(super) struct ReplayView {
    pub(super) steps: Vec<Step>,
    pub(super) documents: Vec<Document>,
    /// The selected step, counted from 1; by default the last one. 0 if the log is empty.
    pub(super) step: usize,
    pub(super) previous: Option<usize>,
    pub(super) following: Option<usize>,
    /// Fields of the machine after that step.
    pub(super) fields: Vec<Field>,
    /// Whether the machine makes the same decisions as in the log.
    pub(super) same: bool,
}

/// An input and its outputs.
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) at: String,
    pub(super) input: String,
    pub(super) outputs: Vec<String>,
    /// Text key of the state.
    pub(super) state: &'static str,
    pub(super) chosen: bool,
}

/// A field of the machine.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) lines: Vec<String>,
    /// Whether the selected step changed it.
    pub(super) changed: bool,
}

/// A fetched document.
pub(super) struct Document {
    pub(super) lines: Vec<Line>,
}

/// A line of a document.
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
    /// `done`, `running`, `failed`, or empty if no instruction of the line ran.
    pub(super) mark: &'static str,
}

impl ReplayView {
    /// The selected step.
    pub(super) fn now(&self) -> Option<&Step> {
        self.steps.get(self.step.checked_sub(1)?)
    }
}

/// Replays the log. Marks and fields show the state after the selected step. The default is the
/// last one.
pub(super) fn steps(lang: Lang, log: &str, chosen: Option<usize>) -> ReplayView {
    let mut steps: Vec<Step> = Vec::new();
    let mut documents: Vec<String> = Vec::new();
    let mut marks: Vec<BTreeMap<u32, &'static str>> = Vec::new();
    let mut state = "";
    let chosen = chosen.filter(|step| *step > 0);
    let until = chosen.unwrap_or(usize::MAX);
    let (mut before, mut now) = (Vec::new(), Vec::new());
    let replayed = replay(log.as_bytes(), |step| {
        let number = steps.len() + 1;
        if steps.len() >= STEPS_MAX {
            return;
        }
        if number <= until {
            before = std::mem::replace(&mut now, step.machine.snapshot());
        }
        // Documents of later steps are included too, so that the page has the same length for every
        // step.
        if let Input::Fetched { result: Ok(FetchResponse::Document { document }), .. } = step.input
        {
            documents.push(document.source.to_string());
            marks.push(BTreeMap::new());
        }
        for output in step.outputs {
            match output {
                Output::Instruction { line, outcome, .. } if number <= until => {
                    if let Some(marks) = marks.last_mut() {
                        marks.insert(*line, mark(*outcome));
                    }
                }
                _ => {}
            }
        }
        state = step.machine.state().map_or(state, CallState::as_str);
        let outputs = step.outputs.iter().map(ToString::to_string).collect();
        let (at, input) = (time(lang, step.at), step.input.to_string());
        steps.push(Step { number, at, input, outputs, state, chosen: chosen == Some(number) });
    });
    let same = replayed.is_ok_and(|replayed| replayed.difference.is_none());
    let documents =
        documents.iter().zip(&marks).map(|(source, marks)| document(source, marks)).collect();
    let step = until.min(steps.len());
    ReplayView {
        documents,
        fields: fields(lang, &before, &now),
        previous: step.checked_sub(1).filter(|step| *step > 0),
        following: Some(step + 1).filter(|step| *step <= steps.len()),
        step,
        steps,
        same,
    }
}

/// Returns the fields of the machine. Those that differ from `before` are marked.
fn fields(lang: Lang, before: &[machine::Field], now: &[machine::Field]) -> Vec<Field> {
    let text_of = |text_of: &Segment| match text_of {
        Segment::Word(word) => lang
            .find(&format!("machine.{word}"))
            .map_or_else(|| word.replace('_', " "), str::to_owned),
        Segment::Text(text) => text.clone(),
        Segment::At(at) => time(lang, *at),
    };
    let field = |field: &machine::Field| Field {
        name: field.name,
        lines: field
            .lines
            .iter()
            .map(|line| line.0.iter().map(text_of).collect::<Vec<_>>().join(" "))
            .collect(),
        changed: !(before.iter().any(|was| was == field)
            || before.is_empty() && field.lines.is_empty()),
    };
    now.iter().map(field).collect()
}

fn time(lang: Lang, at: CallTime) -> String {
    lang.duration(i64::try_from(at.0.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

fn mark(outcome: InstructionOutcome) -> &'static str {
    match outcome {
        InstructionOutcome::Started => "running",
        InstructionOutcome::Done | InstructionOutcome::Cut => "done",
        InstructionOutcome::Skipped => "skipped",
        InstructionOutcome::Failed => "failed",
    }
}

fn document(source: &str, marks: &BTreeMap<u32, &'static str>) -> Document {
    let lines = source.lines().take(2_000).zip(1_usize..).map(|(text, number)| Line {
        number,
        text: text.to_owned(),
        mark: u32::try_from(number)
            .ok()
            .and_then(|number| marks.get(&number).copied())
            .unwrap_or_default(),
    });
    Document { lines: lines.collect() }
}
