//! The page of one call: its waterfall with requests and responses, why it ended and what to do
//! about it, its documents, audio quality and recordings, and the replay of its inputs and outputs.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::call_row::{self, Row};
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, failed, html, missing};
use super::quality_chart;
use super::replay::{self, ReplayView};
use super::view::{self, When};
use super::{App, Console};
use crate::api::{evaluate_log, read_log};
use engine::call::waterfall::{Bar, Body, Fidelity, Flow, Kind, Waterfall};
use model::{CallQuality, CallUuid, DirectionQuality, E164};
use store::{RecordingFilter, StoreError};

/// Maximum size of all bodies on a page, in bytes. Further bodies can be downloaded.
const BODIES_MAX: usize = 512 << 10;
/// Maximum number of rows.
const BARS_MAX: usize = 400;
/// Maximum number of legs.
const LEGS_MAX: u32 = 50;
/// Width of the waterfall in its own units.
const WIDTH: i64 = 1_000;
/// Minimum width of a bar.
const MIN_WIDTH: i64 = 6;

/// A row of the waterfall.
struct BarRow {
    /// CSS class of the party that the operation waits for, and the key of its name.
    lane: &'static str,
    name: String,
    note: String,
    at: String,
    took: String,
    failed: bool,
    part: bool,
    /// Position in units of [`WIDTH`].
    x: i64,
    width: i64,
    bodies: Vec<BodyView>,
}

/// A body that was sent or received.
pub(super) struct BodyView {
    /// Text key of the direction.
    pub(super) way: &'static str,
    /// CSS class of the direction.
    pub(super) arrow: &'static str,
    pub(super) head: String,
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// Remarks: whether the body was cut, rebuilt or not kept.
    pub(super) says: String,
}

struct FindingRow {
    rule: String,
    line: usize,
    message: String,
    hint: String,
    error: bool,
}

struct RecordingRow {
    url: String,
    length: String,
    started: When,
}

/// Audio quality of one direction.
struct DirectionView {
    key: &'static str,
    /// The MOS. Empty if there are too few packets to measure it.
    mos: String,
    packets: u64,
    /// MOS as a percentage of the scale.
    level: i64,
    loss: String,
    jitter: String,
    tone: &'static str,
}

#[derive(Template)]
#[template(path = "call.html")]
struct CallPage {
    page: Page,
    row: Row,
    live: bool,
    may_end: bool,
    advice: String,
    code: String,
    answered_after: String,
    set_up: String,
    bars: Vec<BarRow>,
    /// Whether the beginning of the call can be shown enlarged, and whether it is.
    has_beginning: bool,
    zoomed: bool,
    left_out: usize,
    ticks: Vec<(i64, String)>,
    remarks: Vec<String>,
    findings: Vec<FindingRow>,
    replay: ReplayView,
    sounds: Vec<DirectionView>,
    round_trip: String,
    /// The voices of the prompts and the recognisers of the caller's speech.
    voices: Vec<String>,
    recognisers: Vec<String>,
    course: quality_chart::QualityView,
    recordings: Vec<RecordingRow>,
    /// The agent that answered, if it still exists.
    agent: Option<(Uuid, String)>,
    /// The business number, if it belongs to the account.
    own_number: Option<E164>,
    admin: bool,
    /// Query of the list of the person's calls. Empty if the person's data was deleted.
    same_person: String,
    /// Calls that this one dialled.
    legs: Vec<Row>,
}

pub(super) async fn page(
    State(console): App,
    visitor: Visitor,
    Path(call): Path<String>,
) -> Response {
    if call.parse::<CallUuid>().is_err() {
        return match by_prefix(&console, &visitor, &call).await {
            Some(call) => Redirect::to(&format!("/console/calls/{call}/")).into_response(),
            None => missing(&console, &visitor),
        };
    }
    match load_page(&console, &visitor, &call).await {
        Ok(Some(page)) => html(&page),
        Ok(None) => missing(&console, &visitor),
        Err(error) => {
            tracing::warn!(%error, "call not read");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

/// The only call whose UUID begins with these characters.
async fn by_prefix(console: &Console, visitor: &Visitor, prefix: &str) -> Option<CallUuid> {
    let (api, scope) = (console.apis.api(), visitor.person.scope());
    let range = CallUuid::with_prefix(prefix)?;
    let live = api.live.list_all(&scope).await.calls;
    api.store.flush().await;
    let ended = api.store.calls().in_range(&scope, &range).await.ok()?;
    let mut found = ended.iter().map(|record| record.start.call).collect::<BTreeSet<_>>();
    found.extend(live.iter().map(|live| live.call).filter(|call| range.contains(call)));
    found.pop_first().filter(|_| found.is_empty())
}

async fn load_page(
    console: &Console,
    visitor: &Visitor,
    call: &str,
) -> Result<Option<CallPage>, StoreError> {
    let Ok(call) = call.parse::<CallUuid>() else { return Ok(None) };
    let (lang, api, scope) = (visitor.lang(), console.apis.api(), visitor.person.scope());
    let live = api.live.get(&scope, call);
    let record = match &live {
        Some(_) => None,
        None => {
            api.store.flush().await;
            api.store.calls().get(&scope, call).await?
        }
    };
    let mut row = match (&live, &record) {
        (Some(live), _) => call_row::live_row(lang, live),
        (None, Some(record)) => call_row::ended_row(lang, record),
        (None, None) => return Ok(None),
    };
    call_row::add_own_numbers(console, visitor, std::slice::from_mut(&mut row)).await;
    call_row::add_conversations(console, visitor, vec![&mut row]).await;
    let chosen = visitor.query.get("step").parse::<usize>().ok();
    let owner = (&scope, &visitor.person.user.main_account);
    let evaluate = move |log: &str, fall| (fall, replay::steps(lang, log, chosen));
    let (fall, replayed): (Option<Waterfall>, _) = evaluate_log(api, owner, call, evaluate).await?;
    let sound_over = fall.as_ref().and_then(|fall| fall.course.as_ref());
    let sound_so_far = sound_over.is_none().then(|| api.live.course(&scope, call)).flatten();
    let course = sound_over
        .or(sound_so_far.as_ref())
        .map(|course| quality_chart::quality_view(lang, course));
    let end = record.as_ref().and_then(|record| record.end.as_ref());
    let advice = end.map(|end| view::cause(lang, &end.cause).1).unwrap_or_default();
    let filter = RecordingFilter { call: Some(call), ..RecordingFilter::default() };
    let recordings = api.store.recordings().list(&scope, &filter, 20, 0).await?.0;
    let whole = fall.as_ref().map_or(0, last_of);
    let beginning = fall
        .as_ref()
        .and_then(|fall| fall.set_up_us().or(fall.answered_us))
        .map(|us| us.saturating_mul(5) / 4);
    let beginning = beginning.filter(|beginning| *beginning < whole / 4);
    let zoomed = visitor.query.get("view") == "beginning";
    let last = beginning.filter(|_| zoomed).unwrap_or(whole);
    let quality = end.and_then(|end| end.quality);
    let agent = end.and_then(|end| end.agent);
    let agent_name = super::inbox::agent_name(console, visitor, agent).await;
    let legs = api.store.calls().legs(&scope, &[call], LEGS_MAX).await?;
    let mut legs: Vec<Row> = legs.iter().map(|leg| call_row::ended_row(lang, leg)).collect();
    call_row::add_own_numbers(console, visitor, &mut legs).await;
    call_row::add_names(console, visitor, &mut legs).await;
    let is_own = |number: &E164| api.keeper.book().number(&scope, number).is_some();
    let own_number = E164::parse(row.own().trim_start_matches('+')).ok().filter(is_own);
    let page = visitor.page(console, row.person(), "calls");
    Ok(Some(CallPage {
        page: if live.is_some() { page.listening(format!("call:{call}")) } else { page },
        live: live.is_some(),
        may_end: live.is_some(),
        advice,
        code: end
            .map(|end| format!("{} · {}", end.hangup_code, end.hangup_name))
            .unwrap_or_default(),
        answered_after: fall
            .as_ref()
            .and_then(|fall| fall.answered_us)
            .map(|us| lang.duration(us))
            .unwrap_or_default(),
        set_up: fall
            .as_ref()
            .and_then(Waterfall::first_sound_us)
            .map(|us| lang.duration(us))
            .unwrap_or_default(),
        has_beginning: beginning.is_some(),
        zoomed: zoomed && beginning.is_some(),
        bars: fall.as_ref().map(|fall| rows(lang, fall, last)).unwrap_or_default(),
        left_out: fall
            .as_ref()
            .map_or(0, |fall| fall.left_out + fall.bars.len().saturating_sub(BARS_MAX)),
        ticks: ticks(lang, last),
        remarks: fall
            .as_ref()
            .map(|f| f.remarks.iter().map(|(_, t)| t.clone()).collect())
            .unwrap_or_default(),
        findings: fall
            .as_ref()
            .map(|fall| fall.findings.iter().map(|(_, finding)| finding_row(finding)).collect())
            .unwrap_or_default(),
        replay: replayed,
        sounds: quality.map(|quality| sounds(lang, &quality)).unwrap_or_default(),
        round_trip: quality
            .and_then(|q| q.round_trip_ms)
            .map(|ms| format!("{ms:.0} ms"))
            .unwrap_or_default(),
        voices: fall.as_ref().map(|fall| names(&fall.voices)).unwrap_or_default(),
        recognisers: fall.as_ref().map(|fall| names(&fall.recognisers)).unwrap_or_default(),
        course: course.unwrap_or_default(),
        recordings: recordings
            .iter()
            .map(|r| RecordingRow {
                url: api.recordings.path(r.id, &r.format),
                length: view::recording_length(r.duration_ms),
                started: When::of(r.started),
            })
            .collect(),
        agent: agent.filter(|_| !agent_name.is_empty()).map(|id| (id, agent_name)),
        own_number,
        admin: visitor.is_admin(),
        same_person: match row.address() {
            "" => String::new(),
            address => Form::default().with("party", Some(address)),
        },
        legs,
        row,
    }))
}

fn names<T: ToString>(uses: &[(T, u32)]) -> Vec<String> {
    uses.iter().map(|(used, _)| used.to_string()).collect()
}

/// Time of the last event of the call, in microseconds.
fn last_of(fall: &Waterfall) -> i64 {
    let ends = fall.bars.iter().map(|bar| bar.to_us.unwrap_or(bar.from_us));
    ends.chain(fall.ended_us).chain(fall.answered_us).max().unwrap_or_default().max(1_000)
}

fn rows(lang: Lang, fall: &Waterfall, last: i64) -> Vec<BarRow> {
    let mut room = BODIES_MAX;
    let first = fall.bars.iter().map(|bar| bar.from_us).min().unwrap_or_default().min(0);
    let mut rows = Vec::new();
    for bar in fall.bars.iter().filter(|bar| bar.from_us <= last).take(BARS_MAX) {
        let bodies = bar.bodies.iter().map(|body| body_view(lang, body, &mut room)).collect();
        rows.push(BarRow { bodies, ..row(lang, bar, first, last, false) });
        rows.extend(bar.parts.iter().map(|part| row(lang, part, first, last, true)));
    }
    rows
}

fn row(lang: Lang, bar: &Bar, first: i64, last: i64, part: bool) -> BarRow {
    let whole = last.saturating_sub(first).max(1);
    let place = |us: i64| us.saturating_sub(first).saturating_mul(WIDTH) / whole;
    let x = place(bar.from_us).clamp(0, WIDTH - MIN_WIDTH);
    let until = bar.to_us.map_or(WIDTH, place).min(WIDTH);
    BarRow {
        lane: bar.what.as_str(),
        name: bar_name(lang, &bar.name),
        note: bar.note.clone(),
        at: lang.duration(bar.from_us),
        took: match bar.took_us() {
            Some(0) => String::new(),
            Some(us) => lang.duration(us),
            None => "…".to_owned(),
        },
        failed: bar.failed,
        part,
        x,
        width: until.saturating_sub(x).clamp(MIN_WIDTH, WIDTH - x),
        bodies: Vec::new(),
    }
}

/// Returns the name of a bar. Names without a text are technical: elements, requests and URLs.
pub(super) fn bar_name(lang: Lang, name: &str) -> String {
    if let Some(number) = name.strip_prefix("request ") {
        return lang.with("bar.request", &[number]);
    }
    lang.find(&format!("bar.{name}")).map_or_else(|| name.to_owned(), str::to_owned)
}

/// Converts a body. Its text is omitted if the page already contains too much.
pub(super) fn body_view(lang: Lang, body: &Body, room: &mut usize) -> BodyView {
    let fits = body.text.len() <= *room;
    *room -= if fits { body.text.len() } else { 0 };
    let mut says = Vec::new();
    match (body.kept, body.way) {
        _ if !fits => says.push(lang.t("body.too_large").to_owned()),
        (Fidelity::Whole, _) => {}
        (Fidelity::Rebuilt, _) if body.kind == Kind::Sdp => {
            says.push(lang.t("body.without_passwords").to_owned())
        }
        (Fidelity::Rebuilt, _) => says.push(lang.t("body.rebuilt").to_owned()),
        (Fidelity::Not, Flow::Out) => says.push(lang.t("body.not_kept").to_owned()),
        (Fidelity::Not, Flow::In) => says.push(lang.t("body.not_read").to_owned()),
    }
    if let Some(whole) = body.cut_of.filter(|_| fits) {
        says.push(lang.with("body.cut", &[&body.text.len().to_string(), &whole.to_string()]));
    }
    BodyView {
        way: match body.way {
            Flow::Out => "body.sent",
            Flow::In => "body.received",
        },
        arrow: match body.way {
            Flow::Out => "out",
            Flow::In => "in",
        },
        head: body.head.clone(),
        kind: body.kind.as_str(),
        text: if fits { body.text.clone() } else { String::new() },
        says: says.join(" "),
    }
}

/// The labels of the time scale.
fn ticks(lang: Lang, last: i64) -> Vec<(i64, String)> {
    (0..=4).map(|quarter| (quarter * WIDTH / 4, lang.duration(last / 4 * quarter))).collect()
}

fn finding_row(finding: &xml::ast::Finding) -> FindingRow {
    FindingRow {
        rule: finding.rule.clone(),
        line: usize::try_from(finding.at.line).unwrap_or_default(),
        message: finding.message.clone(),
        hint: finding.hint.clone(),
        error: finding.rule.starts_with('E'),
    }
}

fn sounds(lang: Lang, quality: &CallQuality) -> Vec<DirectionView> {
    let way = |key, way: Option<DirectionQuality>| {
        way.map(|way| DirectionView {
            key,
            mos: match way.is_conclusive() {
                true => lang.decimals(format!("{:.1}", way.mos)),
                false => String::new(),
            },
            packets: way.packets,
            level: level(way.mos),
            loss: lang.decimals(format!("{:.1} %", way.loss_percent)),
            jitter: format!("{:.0} ms", way.jitter_ms),
            tone: view::mos_tone(way.mos),
        })
    };
    [way("call.audio.in", quality.inbound), way("call.audio.out", quality.outbound)]
        .into_iter()
        .flatten()
        .collect()
}

/// A MOS from 1 to 4.5 as a percentage.
#[allow(clippy::as_conversions, reason = "bounded")]
fn level(mos: f64) -> i64 {
    ((mos.clamp(1.0, 4.5) - 1.0) / 3.5 * 100.0) as i64
}

/// Downloads the event log, which `offhook replay` reads.
pub(super) async fn log(
    State(console): App,
    visitor: Visitor,
    Path(call): Path<String>,
) -> Response {
    let Ok(id) = call.parse::<CallUuid>() else { return missing(&console, &visitor) };
    let (api, scope) = (console.apis.api(), visitor.person.scope());
    let known = api.live.get(&scope, id).is_some()
        || matches!(api.store.calls().get(&scope, id).await, Ok(Some(_)));
    if !known {
        return missing(&console, &visitor);
    }
    match read_log(api, (&scope, &visitor.person.user.main_account), id).await {
        Ok(text) => {
            let name = format!("attachment; filename=\"{id}.jsonl\"");
            let kind = "application/x-ndjson; charset=utf-8".to_owned();
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], text)
                .into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "event log not read");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

/// Ends a live call.
pub(super) async fn hang_up(
    State(console): App,
    Path(call): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    let Ok(id) = call.parse::<CallUuid>() else { return missing(&console, &visitor) };
    let path = format!("/api/v1/calls/{id}/hangup/");
    if crate::api::Apis::serves(&Method::POST, &path) {
        let answer = visitor.ask(&console, Method::POST, &path, None).await;
        if !answer.is_ok() && answer.status != StatusCode::NOT_FOUND {
            return failed(&console, &visitor, answer.status, answer.message());
        }
    } else {
        console.apis.api().live.hang_up(&visitor.person.scope(), id);
    }
    Redirect::to(&format!("/console/calls/{id}/")).into_response()
}
