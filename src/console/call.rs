//! One call as a waterfall: who took how long, what was asked and answered, why it ended and what to do about it; its
//! documents, its sound, and every fact with the wishes it led to, step by step.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures_util::StreamExt as _;

use super::calls::{self, Row};
use super::course;
use super::door::{Posted, Visitor};
use super::page::{Page, failed, html, missing};
use super::view::{self, When};
use super::{App, Console};
use crate::call::machine::{Fetched, Input, InstructionOutcome, Output};
use crate::call::replay::replay;
use crate::call::waterfall::{Bar, Waterfall};
use crate::model::{CallQuality, CallUuid, SoundWay};
use crate::store::{RecordingFilter, StoreError};

/// Lines of a log that are read at once, and bytes of it that are looked at.
const LINES: u32 = 1_000;
const BYTES_MAX: usize = 8 << 20;
/// Steps and rows that are shown.
const STEPS_MAX: usize = 600;
const BARS_MAX: usize = 400;
/// Units of the waterfall's width.
const WIDTH: i64 = 1_000;
/// What took next to no time is seen, too.
const LEAST: i64 = 6;

/// A row of the waterfall.
struct Shown {
    /// The class of who took the time, and the key of their word.
    lane: &'static str,
    name: String,
    note: String,
    at: String,
    took: String,
    failed: bool,
    part: bool,
    /// In a thousandth of the whole.
    x: i64,
    width: i64,
}

/// A fact of the log, and the wishes that it led to.
struct Step {
    number: usize,
    at: String,
    fact: String,
    wishes: Vec<String>,
    state: String,
    chosen: bool,
}

/// A document that came, line by line.
struct Document {
    lines: Vec<Line>,
}

struct Line {
    number: usize,
    text: String,
    /// `done`, `running`, `failed`, or empty: nothing of it was run.
    mark: &'static str,
}

struct Found {
    rule: String,
    line: usize,
    message: String,
    hint: String,
    error: bool,
}

struct Heard {
    url: String,
    length: String,
    started: When,
}

/// One way of the sound.
struct Sound {
    key: &'static str,
    mos: String,
    /// Of 100.
    level: i64,
    loss: String,
    jitter: String,
    tone: &'static str,
}

#[derive(Template)]
#[template(path = "call.html")]
struct Call {
    page: Page,
    row: Row,
    live: bool,
    may_end: bool,
    advice: String,
    code: String,
    answered_after: String,
    set_up: String,
    total: String,
    bars: Vec<Shown>,
    /// The beginning is short, and can be looked at alone; and is.
    has_beginning: bool,
    near: bool,
    left_out: usize,
    ticks: Vec<(i64, String)>,
    remarks: Vec<String>,
    findings: Vec<Found>,
    documents: Vec<Document>,
    steps: Vec<Step>,
    step: usize,
    previous: Option<usize>,
    following: Option<usize>,
    same: bool,
    sounds: Vec<Sound>,
    round_trip: String,
    course: course::Shown,
    recordings: Vec<Heard>,
    parent: Option<CallUuid>,
}

pub(super) async fn page(State(console): App, visitor: Visitor, Path(call): Path<String>) -> Response {
    match shown(&console, &visitor, &call).await {
        Ok(Some(page)) => html(&page),
        Ok(None) => missing(&console, &visitor),
        Err(error) => {
            tracing::warn!(%error, "a call could not be shown");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

async fn shown(console: &Console, visitor: &Visitor, call: &str) -> Result<Option<Call>, StoreError> {
    let Ok(call) = call.parse::<CallUuid>() else { return Ok(None) };
    let (lang, api, scope) = (visitor.lang(), console.desk.api(), visitor.person.scope());
    let live = api.live.get(&scope, call);
    let record = match &live {
        Some(_) => None,
        None => {
            api.store.settled().await;
            api.store.call(&scope, call).await?
        }
    };
    let row = match (&live, &record) {
        (Some(live), _) => calls::up(lang, live),
        (None, Some(record)) => calls::ended(lang, record),
        (None, None) => return Ok(None),
    };
    let log = read_log(console, visitor, call).await?;
    let fall = Waterfall::of(log.as_bytes()).ok();
    let chosen = visitor.query.get("step").parse::<usize>().ok();
    let replayed = steps(&log, chosen);
    let sound_over = fall.as_ref().and_then(|fall| fall.course.as_ref());
    let sound_so_far = sound_over.is_none().then(|| api.live.course(&scope, call)).flatten();
    let course = sound_over.or(sound_so_far.as_ref()).map(|course| course::shown(lang, course));
    let end = record.as_ref().and_then(|record| record.end.as_ref());
    let advice = end.map(|end| view::cause(lang, &end.cause).1).unwrap_or_default();
    let filter = RecordingFilter { call: Some(call), ..RecordingFilter::default() };
    let recordings = api.store.recordings(&scope, &filter, 20, 0).await?.0;
    let whole = fall.as_ref().map_or(0, last_of);
    let beginning =
        fall.as_ref().and_then(|fall| fall.set_up_us().or(fall.answered_us)).map(|us| us.saturating_mul(5) / 4);
    let beginning = beginning.filter(|beginning| *beginning < whole / 4);
    let near = visitor.query.get("view") == "beginning";
    let last = beginning.filter(|_| near).unwrap_or(whole);
    let quality = end.and_then(|end| end.quality);
    let title = format!("{} → {}", row.from, row.to);
    let page = visitor.page(console, &title, "calls");
    Ok(Some(Call {
        page: if live.is_some() { page.listening(format!("call:{call}")) } else { page },
        live: live.is_some(),
        may_end: live.is_some(),
        advice,
        code: end.map(|end| format!("{} · {}", end.hangup_code, end.hangup_name)).unwrap_or_default(),
        answered_after: fall.as_ref().and_then(|fall| fall.answered_us).map(view::took).unwrap_or_default(),
        set_up: fall.as_ref().and_then(Waterfall::set_up_us).map(view::took).unwrap_or_default(),
        total: end.map(|end| view::clock(Duration::from_secs(end.duration_secs))).unwrap_or_default(),
        has_beginning: beginning.is_some(),
        near: near && beginning.is_some(),
        bars: fall.as_ref().map(|fall| rows(fall, last)).unwrap_or_default(),
        left_out: fall.as_ref().map_or(0, |fall| fall.left_out + fall.bars.len().saturating_sub(BARS_MAX)),
        ticks: ticks(last),
        remarks: fall.as_ref().map(|f| f.remarks.iter().map(|(_, t)| t.clone()).collect()).unwrap_or_default(),
        findings: fall
            .as_ref()
            .map(|fall| fall.findings.iter().map(|(_, finding)| found(finding)).collect())
            .unwrap_or_default(),
        documents: replayed.documents,
        same: replayed.same,
        previous: replayed.step.checked_sub(1).filter(|step| *step > 0),
        following: Some(replayed.step + 1).filter(|step| *step <= replayed.steps.len() && replayed.step > 0),
        step: replayed.step,
        steps: replayed.steps,
        sounds: quality.map(|quality| sounds(&quality)).unwrap_or_default(),
        round_trip: quality.and_then(|q| q.round_trip_ms).map(|ms| format!("{ms:.0} ms")).unwrap_or_default(),
        course: course.unwrap_or_default(),
        recordings: recordings
            .iter()
            .map(|r| Heard {
                url: format!("/recordings/{}.{}", r.id, r.format),
                length: view::clock(Duration::from_millis(r.duration_ms)),
                started: When::of(r.started),
            })
            .collect(),
        parent: record.as_ref().and_then(|record| record.start.parent_call),
        row,
    }))
}

/// The log as it is kept, up to a bound.
async fn read_log(console: &Console, visitor: &Visitor, call: CallUuid) -> Result<String, StoreError> {
    let (api, scope) = (console.desk.api(), visitor.person.scope());
    let mut text = String::new();
    if let Some(mut lines) = api.live.events(&scope, call, false) {
        while let Some(line) = lines.next().await {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        return Ok(text);
    }
    let mut after = None;
    while text.len() < BYTES_MAX {
        let lines = api.store.events(&scope, call, after, LINES).await?;
        let Some((last, _)) = lines.last() else { break };
        after = Some(*last);
        for (_, line) in &lines {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    Ok(text)
}

/// When the last thing happened, in microseconds of the call.
fn last_of(fall: &Waterfall) -> i64 {
    let ends = fall.bars.iter().map(|bar| bar.to_us.unwrap_or(bar.from_us));
    ends.chain(fall.ended_us).chain(fall.answered_us).max().unwrap_or_default().max(1_000)
}

fn rows(fall: &Waterfall, last: i64) -> Vec<Shown> {
    let first = fall.bars.iter().map(|bar| bar.from_us).min().unwrap_or_default().min(0);
    let mut rows = Vec::new();
    for bar in fall.bars.iter().filter(|bar| bar.from_us <= last).take(BARS_MAX) {
        rows.push(row(bar, first, last, false));
        rows.extend(bar.parts.iter().map(|part| row(part, first, last, true)));
    }
    rows
}

fn row(bar: &Bar, first: i64, last: i64, part: bool) -> Shown {
    let whole = last.saturating_sub(first).max(1);
    let place = |us: i64| us.saturating_sub(first).saturating_mul(WIDTH) / whole;
    let x = place(bar.from_us).clamp(0, WIDTH - LEAST);
    let until = bar.to_us.map_or(WIDTH, place).min(WIDTH);
    Shown {
        lane: bar.what.as_str(),
        name: bar.name.clone(),
        note: bar.note.clone(),
        at: view::took(bar.from_us),
        took: match bar.took_us() {
            Some(0) => String::new(),
            Some(us) => view::took(us),
            None => "…".to_owned(),
        },
        failed: bar.failed,
        part,
        x,
        width: until.saturating_sub(x).clamp(LEAST, WIDTH - x),
    }
}

/// Where the scale has its marks.
fn ticks(last: i64) -> Vec<(i64, String)> {
    (0..=4).map(|quarter| (quarter * WIDTH / 4, view::took(last / 4 * quarter))).collect()
}

fn found(finding: &crate::xml::ast::Finding) -> Found {
    Found {
        rule: finding.rule.clone(),
        line: usize::try_from(finding.at.line).unwrap_or_default(),
        message: finding.message.clone(),
        hint: finding.hint.clone(),
        error: finding.rule.starts_with('E'),
    }
}

fn sounds(quality: &CallQuality) -> Vec<Sound> {
    let way = |key, way: Option<SoundWay>| {
        way.map(|way| Sound {
            key,
            mos: format!("{:.1}", way.mos),
            level: level(way.mos),
            loss: format!("{:.1} %", way.loss_percent),
            jitter: format!("{:.0} ms", way.jitter_ms),
            tone: match way.mos {
                mos if mos >= 4.0 => "good",
                mos if mos >= 3.3 => "waiting",
                _ => "bad",
            },
        })
    };
    [way("call.sound.in", quality.inbound), way("call.sound.out", quality.outbound)].into_iter().flatten().collect()
}

/// A score from 1 to 4.5 as a part of a hundred.
#[allow(clippy::as_conversions, reason = "bounded")]
fn level(mos: f64) -> i64 {
    ((mos.clamp(1.0, 4.5) - 1.0) / 3.5 * 100.0) as i64
}

struct Replayed {
    steps: Vec<Step>,
    documents: Vec<Document>,
    /// The step that is looked at, from 1; 0: none.
    step: usize,
    /// The machine decides today as it did then.
    same: bool,
}

/// Runs the log through the machine again; up to the chosen step where one is.
fn steps(log: &str, chosen: Option<usize>) -> Replayed {
    let mut steps: Vec<Step> = Vec::new();
    let mut documents: Vec<String> = Vec::new();
    let mut marks: Vec<BTreeMap<u32, &'static str>> = Vec::new();
    let mut state = String::new();
    let until = chosen.unwrap_or(usize::MAX);
    let replayed = replay(log.as_bytes(), |step| {
        let number = steps.len() + 1;
        if steps.len() >= STEPS_MAX {
            return;
        }
        if let Input::Fetched { result: Ok(Fetched::Document { document }), .. } = step.input
            && number <= until
        {
            documents.push(document.source.to_string());
            marks.push(BTreeMap::new());
        }
        for output in step.outputs {
            match output {
                Output::State { state: now } => state = format!("{now:?}"),
                Output::Instruction { line, outcome, .. } if number <= until => {
                    if let Some(marks) = marks.last_mut() {
                        marks.insert(*line, mark(*outcome));
                    }
                }
                _ => {}
            }
        }
        let wishes = step.outputs.iter().map(ToString::to_string).collect();
        let (at, fact) =
            (view::took(i64::try_from(step.at.0.saturating_mul(1_000)).unwrap_or(i64::MAX)), step.input.to_string());
        steps.push(Step { number, at, fact, wishes, state: state.clone(), chosen: chosen == Some(number) });
    });
    let same = replayed.is_ok_and(|replayed| replayed.difference.is_none());
    let documents = documents.iter().zip(&marks).map(|(source, marks)| document(source, marks)).collect();
    let step = chosen.unwrap_or_default().min(steps.len());
    Replayed { steps, documents, step, same }
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
        mark: u32::try_from(number).ok().and_then(|number| marks.get(&number).copied()).unwrap_or_default(),
    });
    Document { lines: lines.collect() }
}

/// The log, to be kept as a fixture: what `offhook replay` reads.
pub(super) async fn log(State(console): App, visitor: Visitor, Path(call): Path<String>) -> Response {
    let Ok(id) = call.parse::<CallUuid>() else { return missing(&console, &visitor) };
    let (api, scope) = (console.desk.api(), visitor.person.scope());
    let known = api.live.get(&scope, id).is_some() || matches!(api.store.call(&scope, id).await, Ok(Some(_)));
    if !known {
        return missing(&console, &visitor);
    }
    match read_log(&console, &visitor, id).await {
        Ok(text) => {
            let name = format!("attachment; filename=\"{id}.jsonl\"");
            let kind = "application/x-ndjson; charset=utf-8".to_owned();
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], text).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "a call's log could not be read");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

/// Ends a call that is up.
pub(super) async fn hang_up(State(console): App, Path(call): Path<String>, posted: Posted) -> Response {
    let visitor = posted.visitor;
    let Ok(id) = call.parse::<CallUuid>() else { return missing(&console, &visitor) };
    let path = format!("/api/v1/calls/{id}/hangup/");
    if crate::api::Desk::serves(&Method::POST, &path) {
        let answer = visitor.ask(&console, Method::POST, &path, None).await;
        if !answer.is_ok() && answer.status != StatusCode::NOT_FOUND {
            return failed(&console, &visitor, answer.status, answer.message());
        }
    } else {
        console.desk.api().live.hang_up(&visitor.person.scope(), id);
    }
    Redirect::to(&format!("/console/calls/{id}/")).into_response()
}
