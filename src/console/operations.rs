//! The operations page: current usage and limits, and charts of the calls, messages and failures of
//! a time range, which come from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::auth::{SubmittedForm, Visitor};
use super::i18n::Lang;
use super::page::{Page, bad_query, failed, respond};
use super::time_range::{Choice, TimeRange};
use super::{App, Console, chart, view};
use crate::api::{LiveCall, LiveStatus, NodeState, NodeStatus, turns};
use engine::admission::settings::Permissions;
use model::{CallType, Direction, MessageStatus, Timestamp};
use store::{CallSpan, MessageCount, RequestCount, RequestTarget, StoreError};

/// Maximum number of calls, of messages and of failed requests that are read. The latest ones of
/// the range are used.
const READ_MAX: u32 = 20_000;
/// Upper limits of the set-up time columns, in milliseconds.
const SET_UP_MS: &[i64] = &[250, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000];

struct Number {
    number: String,
    alias: String,
    used: u32,
    limit: u32,
    /// Used slots, as a percentage.
    percent: u32,
    enabled: bool,
}

/// Refused calls of a number.
struct Refused {
    number: String,
    /// `inbound` or `outbound`.
    direction: String,
    /// The name of an `engine::admission::Reason`.
    reason: String,
    calls: u64,
}

struct Cause {
    text: String,
    advice: String,
    tone: &'static str,
    count: usize,
    percent: usize,
}

/// The effective permission rules.
struct Rules {
    enforced: bool,
    requests_per_day: u32,
    requests_per_week: u32,
    calls_per_day: u32,
    temporary_days: u64,
    prompt_after: u32,
    revoke_after: u32,
    barred: String,
}

impl Rules {
    fn of(rules: &Permissions) -> Self {
        let barred: Vec<&str> =
            rules.barred_countries.iter().map(|country| country.as_str()).collect();
        Self {
            enforced: rules.enforce,
            requests_per_day: rules.requests_per_day,
            requests_per_week: rules.requests_per_week,
            calls_per_day: rules.calls_per_day,
            temporary_days: rules.temporary_seconds.div_ceil(86_400),
            prompt_after: rules.prompt_after,
            revoke_after: rules.revoke_after,
            barred: if barred.is_empty() { "–".to_owned() } else { barred.join(", ") },
        }
    }
}

#[derive(Template)]
#[template(path = "operations.html")]
struct OperationsPage {
    page: Page,
    live: usize,
    queued: usize,
    cps_used: usize,
    cps_limit: usize,
    calls: usize,
    answered: String,
    refused: Vec<Refused>,
    messages: MessageFigures,
    median: String,
    slowest: String,
    numbers: Vec<Number>,
    ranges: Vec<Choice>,
    /// Whether the range was chosen in a chart.
    is_zoomed: bool,
    /// Whether the range contains more calls than were read.
    is_cut: bool,
    live_chart: Plot,
    live_most: usize,
    cps_chart: Plot,
    cps_most: usize,
    /// Rules for outbound calls. `None` if the account has no number.
    rules: Option<Rules>,
    ended_chart: Plot,
    /// Failed requests to the account's URLs.
    failure_chart: Plot,
    set_up_chart: String,
    set_up_top: usize,
    set_up: Vec<(String, usize)>,
    causes: Vec<Cause>,
    draining: bool,
    /// Status of the nodes, if the visitor owns them.
    nodes: Vec<Node>,
    /// Requests to customers' servers and to Graph. `None` unless the visitor owns the nodes.
    fetches: Option<RequestSummary>,
    graph: Option<RequestSummary>,
    graph_chart: Plot,
    wrong: String,
}

/// A chart over the range, with its values for the script and for the table.
struct Plot {
    svg: String,
    /// End of the value axis.
    top: usize,
    from: view::When,
    to: view::When,
    /// Start of the range in Unix seconds, and width of a column in seconds.
    start: i64,
    step: i64,
    /// JSON: the values of each column, in the order of the names.
    values: String,
    /// JSON: the names of the values.
    names: String,
    heads: Vec<&'static str>,
    /// Start of each column, and its values.
    rows: Vec<(view::When, Vec<usize>)>,
    is_empty: bool,
}

impl Plot {
    /// `columns` has the values of each column, `parts` the CSS class and the name of each value.
    /// Several values are drawn as stacked bars, single ones as an area if `is_area`.
    fn new(
        range: &TimeRange,
        columns: Vec<Vec<usize>>,
        parts: &[(&'static str, &'static str)],
        is_area: bool,
        title: &str,
    ) -> Self {
        let sums: Vec<usize> = columns.iter().map(|column| column.iter().sum()).collect();
        let svg = match is_area {
            true => chart::area(&sums, sums.len(), title),
            false => {
                let class = |column: &Vec<usize>| {
                    column.iter().zip(parts).map(|(value, (class, _))| (*value, *class)).collect()
                };
                chart::bars(&columns.iter().map(class).collect::<Vec<_>>(), title)
            }
        };
        let heads: Vec<&str> = parts.iter().map(|(_, name)| *name).collect();
        Self {
            svg,
            top: chart::ceiling(sums.iter().copied().max().unwrap_or_default()),
            from: view::When::of(range.start()),
            to: view::When::of(range.end()),
            start: range.from,
            step: range.step,
            values: serde_json::to_string(&columns).unwrap_or_default(),
            names: serde_json::to_string(&heads).unwrap_or_default(),
            heads,
            is_empty: sums.iter().all(|sum| *sum == 0),
            rows: columns
                .into_iter()
                .enumerate()
                .map(|(n, column)| (view::When::of(range.start_of(n)), column))
                .collect(),
        }
    }

    fn of_one(
        range: &TimeRange,
        values: &[usize],
        (class, name): (&'static str, &'static str),
        is_area: bool,
        title: &str,
    ) -> Self {
        let columns = values.iter().map(|value| vec![*value]).collect();
        Self::new(range, columns, &[(class, name)], is_area, title)
    }
}

/// The messages of the range.
#[derive(Default)]
struct MessageFigures {
    received: usize,
    sent: usize,
    delivered: usize,
    failed: usize,
}

impl MessageFigures {
    fn of(counts: &[MessageCount]) -> Self {
        let mut figures = Self::default();
        for MessageCount { direction, status, messages } in counts {
            if *direction == Direction::Inbound {
                figures.received += messages;
                continue;
            }
            figures.sent += messages;
            match status {
                MessageStatus::Delivered | MessageStatus::Read | MessageStatus::Played => {
                    figures.delivered += messages;
                }
                MessageStatus::Failed => figures.failed += messages,
                MessageStatus::Received
                | MessageStatus::Queued
                | MessageStatus::Sent
                | MessageStatus::Deleted => {}
            }
        }
        figures
    }
}

/// Status of a node.
struct Node {
    id: String,
    version: String,
    since: Option<view::When>,
    state: &'static str,
    tone: &'static str,
    why: String,
    live: Option<usize>,
    memory: String,
    /// Whether the node can be drained.
    is_member: bool,
}

/// Results of outbound requests in the range.
struct RequestSummary {
    all: Vec<RequestCount>,
    failed: u64,
    of: u64,
}

impl OperationsPage {
    /// The number of refused calls.
    fn refused_calls(&self) -> u64 {
        self.refused.iter().fold(0, |sum, refused| sum.saturating_add(refused.calls))
    }

    /// Whether documents or audio files could not be fetched, which the chart does not show.
    fn has_failed_fetches(&self) -> bool {
        self.fetches.as_ref().is_some_and(|summary| summary.failed > 0)
    }
}

/// Returns the refused calls of some numbers, most first.
fn refused(counts: &[RequestCount], is_own: impl Fn(&str) -> bool) -> Vec<Refused> {
    let of = |count: &RequestCount| {
        let (direction, number) = count.kind.split_once(' ')?;
        is_own(number).then(|| Refused {
            number: view::party(number),
            direction: direction.to_owned(),
            reason: count.outcome.clone(),
            calls: count.requests,
        })
    };
    let refused = counts.iter().filter(|count| count.target == RequestTarget::Admission);
    let mut refused: Vec<Refused> = refused.filter_map(of).collect();
    refused.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.number.cmp(&b.number)));
    refused
}

impl RequestSummary {
    /// The requests to a target, failures first.
    fn of(requests: &[RequestCount], target: RequestTarget) -> Self {
        let mut all: Vec<RequestCount> =
            requests.iter().filter(|one| one.target == target).cloned().collect();
        all.sort_by(|a, b| (b.failed, b.requests, &a.kind).cmp(&(a.failed, a.requests, &b.kind)));
        let sum = |only_failed: bool| {
            let counted = all.iter().filter(|one| one.failed || !only_failed);
            counted.fold(0, |sum: u64, one| sum.saturating_add(one.requests))
        };
        Self { failed: sum(true), of: sum(false), all }
    }
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    match TimeRange::check(&visitor.query) {
        Ok(()) => render_page(&console, &visitor, StatusCode::OK, String::new()).await,
        Err(unreadable) => bad_query(&console, &visitor, &unreadable),
    }
}

/// Drains a node.
pub(super) async fn drain(
    State(console): App,
    Path(node): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    let node = url::form_urlencoded::byte_serialize(node.as_bytes()).collect::<String>();
    let answer =
        visitor.ask(&console, Method::POST, &format!("/api/v1/nodes/{node}/drain/"), None).await;
    match answer.is_ok() {
        true => Redirect::to("/console/operations/").into_response(),
        false => render_page(&console, &visitor, answer.status, answer.message().to_owned()).await,
    }
}

async fn render_page(
    console: &Arc<Console>,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
) -> Response {
    let (lang, api, scope) = (visitor.lang(), console.apis.api(), visitor.person.scope());
    let range = TimeRange::read(&visitor.query, api.clock.wall());
    console.request_log.flush().await;
    api.store.flush().await;
    let StoredFigures { records, messages, failures, requests, graph_failures } =
        match read_stored(console, visitor, &range).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "data of the operations page not read");
                return failed(console, visitor, StatusCode::SERVICE_UNAVAILABLE, "");
            }
        };
    let up = api.live.list_all(&scope).await.calls;
    let queued = up.iter().filter(|call| call.status == LiveStatus::Queued).count();
    let tables = api.gate.directory().tables();
    let (cps_limit, cps_used) = tables
        .account(scope.auth_id())
        .map_or((0, 0), |account| api.gate.cps(api.clock.now(), account));
    let own =
        || tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let rules = own().next().map(|number| Rules::of(&number.spec.permissions));
    let slots = LiveCall::slots(&up);
    let mut numbers: Vec<Number> = own()
        .map(|n| {
            let used = slots.get(n.spec.number.as_str()).copied().unwrap_or_default();
            let limit = n.spec.calls_per_number;
            let percent = used.saturating_mul(100).checked_div(limit).unwrap_or_default().min(100);
            Number {
                number: view::party(n.spec.number.as_str()),
                alias: n.spec.alias.clone(),
                used,
                limit,
                percent,
                enabled: n.spec.calling_enabled,
            }
        })
        .collect();
    numbers.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.number.cmp(&b.number)));
    let own_nodes = match visitor.is_operator(console) {
        true => api.operator.nodes().await.unwrap_or_default(),
        false => Vec::new(),
    };
    // Queued calls start when they are placed.
    let is_placed = |call: &&LiveCall| call.status != LiveStatus::Queued;
    let started: Vec<Timestamp> = up.iter().filter(is_placed).map(|call| call.started).collect();
    let ups = range.peak_live(&records, &started);
    let starts = records.iter().map(|record| record.started).chain(started.iter().copied());
    let begun = range.peak_rate(starts);
    let highest = |values: &[usize]| values.iter().copied().max().unwrap_or_default();
    let is_cut = records.len() >= usize::try_from(READ_MAX).unwrap_or(usize::MAX);
    // Calls that were live in the range count where they ended.
    let records: Vec<CallSpan> =
        records.into_iter().filter(|record| range.column(record.ended).is_some()).collect();
    let waits = set_ups(&records);
    let set_up = by_wait(lang, &waits);
    let set_up_columns: Vec<_> = set_up.iter().map(|(_, count)| vec![(*count, "good")]).collect();
    let answered = records.iter().filter(|record| record.answered.is_some()).count();
    let tones = TONES.map(|(class, key)| (class, lang.t(key)));
    let is_own = !own_nodes.is_empty();
    let own_numbers: BTreeSet<&str> = own().map(|number| number.spec.number.as_str()).collect();
    let refused = refused(&requests, |number| own_numbers.contains(number));
    let summary = |target| is_own.then(|| RequestSummary::of(&requests, target));
    let page = OperationsPage {
        live: up.len() - queued,
        queued,
        cps_used,
        cps_limit,
        calls: records.len(),
        answered: percent(answered, records.len()),
        refused,
        median: lang.decimals(at(&waits, 50)),
        slowest: lang.decimals(at(&waits, 95)),
        messages: MessageFigures::of(&messages),
        ranges: range.choices(),
        is_zoomed: range.word.is_empty(),
        is_cut,
        live_most: highest(&ups),
        live_chart: Plot::of_one(
            &range,
            &ups,
            ("good", lang.t("operations.at_once")),
            true,
            lang.t("operations.live_chart"),
        ),
        cps_most: highest(&begun),
        cps_chart: Plot::of_one(
            &range,
            &begun,
            ("good", lang.t("operations.cps_seen")),
            true,
            lang.t("operations.cps_chart"),
        ),
        rules,
        ended_chart: Plot::new(
            &range,
            by_tone(&range, &records),
            &tones,
            false,
            lang.t("operations.ended_chart"),
        ),
        failure_chart: Plot::of_one(
            &range,
            &range.count(failures),
            ("bad", lang.t("operations.failed")),
            false,
            lang.t("operations.fetch_chart"),
        ),
        set_up_top: chart::ceiling(
            set_up.iter().map(|(_, count)| *count).max().unwrap_or_default(),
        ),
        set_up_chart: chart::bars(&set_up_columns, lang.t("operations.set_up_chart")),
        set_up,
        causes: causes(lang, &records),
        numbers,
        draining: api.gate.is_draining(),
        fetches: summary(RequestTarget::Customer),
        graph: summary(RequestTarget::Graph),
        graph_chart: Plot::of_one(
            &range,
            &range.sum(graph_failures),
            ("bad", lang.t("operations.failed")),
            false,
            lang.t("operations.graph_chart"),
        ),
        nodes: own_nodes.into_iter().map(|node| node_view(lang, node)).collect(),
        wrong,
        page: visitor
            .page(console, lang.t("nav.operations"), "operations")
            .listening(if range.is_live() { "call number" } else { "" }),
    };
    respond(status, &page)
}

/// The stored data of the range.
struct StoredFigures {
    records: Vec<CallSpan>,
    messages: Vec<MessageCount>,
    /// Times of failed requests to the account's URLs.
    failures: Vec<Timestamp>,
    /// Outbound requests and refused calls of all accounts.
    requests: Vec<RequestCount>,
    /// Minutes with failed requests to Graph, with the number of failures in each.
    graph_failures: Vec<(Timestamp, u64)>,
}

async fn read_stored(
    console: &Console,
    visitor: &Visitor,
    range: &TimeRange,
) -> Result<StoredFigures, StoreError> {
    let (store, from, to) = (&console.apis.api().store, range.start(), range.end());
    let (scope, main_account) = (&visitor.person.scope(), &visitor.person.user.main_account);
    let _turn = turns::next(main_account).await;
    Ok(StoredFigures {
        records: store.calls().spans(scope, from, to, READ_MAX).await?,
        messages: store.messages().count(scope, (from, to), READ_MAX).await?,
        failures: store.failed_requests().times(scope, (from, to), READ_MAX).await?,
        requests: store.request_counts().sums((from, to)).await?,
        graph_failures: store.request_counts().failures(RequestTarget::Graph, (from, to)).await?,
    })
}

fn node_view(lang: Lang, node: NodeStatus) -> Node {
    let (state, tone) = match node.state {
        NodeState::Ready => ("operations.node_ready", "good"),
        NodeState::Draining => ("operations.node_draining", "missed"),
        NodeState::Unready => ("operations.node_unready", "bad"),
        NodeState::Unreachable => ("operations.node_unreachable", "bad"),
        NodeState::Dead => ("operations.node_dead", "bad"),
    };
    Node {
        id: node.id,
        version: node.version,
        since: node.started_at.as_deref().map(view::When::read),
        state: lang.t(state),
        tone,
        why: node.not_ready.filter(|_| node.state == NodeState::Unready).unwrap_or_default(),
        live: node.live_calls,
        is_member: matches!(node.state, NodeState::Ready | NodeState::Unready),
        memory: node
            .memory_bytes
            .map_or_else(|| "–".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
    }
}

fn percent(part: usize, whole: usize) -> String {
    (part * 100).checked_div(whole).map_or_else(|| "–".to_owned(), |percent| format!("{percent} %"))
}

/// Whether the node itself answers such calls, so that the time to `accept` depends on it. Other
/// legs ring until a person answers.
fn is_answered_by_us(direction: Direction, call_type: CallType) -> bool {
    direction == Direction::Inbound && call_type == CallType::Whatsapp
}

/// Set-up times of calls that the node answers, in microseconds, sorted.
fn set_ups(records: &[CallSpan]) -> Vec<i64> {
    let wait = |record: &CallSpan| {
        is_answered_by_us(record.direction, record.call_type).then_some(())?;
        Some(record.answered?.micros().saturating_sub(record.started.micros()))
    };
    let mut waits: Vec<i64> = records.iter().filter_map(wait).collect();
    waits.sort_unstable();
    waits
}

/// Percentile of sorted values, as text.
fn at(sorted: &[i64], percent: usize) -> String {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or_else(|| "–".to_owned(), |us| view::duration(*us))
}

/// The CSS classes of the outcomes of calls, with the keys of their names.
const TONES: [(&str, &str); 3] =
    [("good", "tone.good"), ("missed", "tone.missed"), ("bad", "tone.bad")];

/// Returns the number of good, missed and bad calls for each column, by the time of their end.
fn by_tone(range: &TimeRange, records: &[CallSpan]) -> Vec<Vec<usize>> {
    let mut columns = vec![vec![0; TONES.len()]; range.columns];
    for record in records {
        let tone = view::tone(&record.cause, record.answered.is_some());
        let part = TONES.iter().position(|(class, _)| *class == tone).unwrap_or(TONES.len() - 1);
        let column = range.column(record.ended).and_then(|column| columns.get_mut(column));
        if let Some(count) = column.and_then(|column| column.get_mut(part)) {
            *count += 1;
        }
    }
    columns
}

fn by_wait(lang: Lang, waits: &[i64]) -> Vec<(String, usize)> {
    let mut from = 0;
    let mut columns = Vec::new();
    for until in SET_UP_MS.iter().copied().chain([i64::MAX]) {
        let count = waits.iter().filter(|us| (from..until).contains(&(**us / 1_000))).count();
        let label = if until == i64::MAX {
            format!("≥ {}", lang.duration(from * 1_000))
        } else {
            format!("< {}", lang.duration(until * 1_000))
        };
        columns.push((label, count));
        from = until;
    }
    columns
}

fn causes(lang: Lang, records: &[CallSpan]) -> Vec<Cause> {
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for record in records {
        *counts.entry((&record.cause, record.answered.is_some())).or_default() += 1;
    }
    let all = records.len();
    let answered: BTreeSet<&str> =
        counts.keys().filter(|(_, answered)| *answered).map(|(word, _)| *word).collect();
    let mut causes: Vec<Cause> = counts
        .into_iter()
        .map(|((word, is_answered), count)| {
            let (mut text, advice) = view::cause(lang, word);
            if !is_answered && answered.contains(word) {
                text = format!("{text} ({})", lang.t("operations.cause_unanswered"));
            }
            let percent = (count * 200 + all).checked_div(all * 2).unwrap_or_default();
            Cause { text, advice, tone: view::tone(word, is_answered), count, percent }
        })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes.truncate(12);
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_up_times_cover_inbound_whatsapp_calls() {
        use CallType::{Web, Whatsapp};
        use Direction::{Inbound, Outbound};
        let each = [(Inbound, Whatsapp), (Inbound, Web), (Outbound, Whatsapp), (Outbound, Web)];
        assert_eq!(
            each.map(|(way, kind)| is_answered_by_us(way, kind)),
            [true, false, false, false]
        );
    }

    #[test]
    fn messages_are_counted_by_their_delivery() {
        use Direction::{Inbound, Outbound};
        let count = |direction, status, messages| MessageCount { direction, status, messages };
        let figures = MessageFigures::of(&[
            count(Inbound, MessageStatus::Received, 5),
            count(Outbound, MessageStatus::Sent, 1),
            count(Outbound, MessageStatus::Delivered, 2),
            count(Outbound, MessageStatus::Read, 3),
            count(Outbound, MessageStatus::Failed, 4),
        ]);
        let MessageFigures { received, sent, delivered, failed } = figures;
        assert_eq!((received, sent, delivered, failed), (5, 10, 5, 4));
    }
}
