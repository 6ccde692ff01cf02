//! A call's log, run through the machine again: each fact with the wishes it led to, what the machine holds after one of
//! them, and how far its documents had come by then.

use std::collections::BTreeMap;

use super::i18n::Lang;
use machine::replay::replay;
use machine::{
    self, CallState, CallTime, FetchResponse, Input, InstructionOutcome, Output, Segment,
};

/// Steps that are shown.
const STEPS_MAX: usize = 600;

/// A replay as the page has it.
pub(super) struct Replayed {
    pub(super) steps: Vec<Step>,
    pub(super) documents: Vec<Document>,
    /// The step that is looked at, from 1: the chosen one, or else the last; 0: there is none.
    pub(super) step: usize,
    pub(super) previous: Option<usize>,
    pub(super) following: Option<usize>,
    /// What the machine holds after it.
    pub(super) fields: Vec<Field>,
    /// The machine decides today as it did then.
    pub(super) same: bool,
}

/// A fact of the log, and the wishes that it led to.
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) at: String,
    pub(super) fact: String,
    pub(super) wishes: Vec<String>,
    /// The key of its state's word, within its family.
    pub(super) state: &'static str,
    pub(super) chosen: bool,
}

/// Something that the machine holds.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) lines: Vec<String>,
    /// By this step.
    pub(super) changed: bool,
}

/// A document that came, line by line.
pub(super) struct Document {
    pub(super) lines: Vec<Line>,
}

/// A line of it.
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
    /// `done`, `running`, `failed`, or empty: nothing of it was run.
    pub(super) mark: &'static str,
}

impl Replayed {
    /// The step that is looked at.
    pub(super) fn now(&self) -> Option<&Step> {
        self.steps.get(self.step.checked_sub(1)?)
    }
}

/// Runs the log through the machine again; marks and fields are as they were after the chosen step, where one is.
pub(super) fn steps(lang: Lang, log: &str, chosen: Option<usize>) -> Replayed {
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
        // All of them, also those that are still to come: the page is as long at every step.
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
        let wishes = step.outputs.iter().map(ToString::to_string).collect();
        let (at, fact) = (time(lang, step.at), step.input.to_string());
        steps.push(Step { number, at, fact, wishes, state, chosen: chosen == Some(number) });
    });
    let same = replayed.is_ok_and(|replayed| replayed.difference.is_none());
    let documents =
        documents.iter().zip(&marks).map(|(source, marks)| document(source, marks)).collect();
    let step = until.min(steps.len());
    Replayed {
        documents,
        fields: fields(lang, &before, &now),
        previous: step.checked_sub(1).filter(|step| *step > 0),
        following: Some(step + 1).filter(|step| *step <= steps.len()),
        step,
        steps,
        same,
    }
}

/// What the machine holds, and what of it is another than before.
fn fields(lang: Lang, before: &[machine::Field], now: &[machine::Field]) -> Vec<Field> {
    let said = |said: &Segment| match said {
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
            .map(|line| line.0.iter().map(said).collect::<Vec<_>>().join(" "))
            .collect(),
        changed: !(before.iter().any(|was| was == field)
            || before.is_empty() && field.lines.is_empty()),
    };
    now.iter().map(field).collect()
}

fn time(lang: Lang, at: CallTime) -> String {
    lang.took(i64::try_from(at.0.saturating_mul(1_000)).unwrap_or(i64::MAX))
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
