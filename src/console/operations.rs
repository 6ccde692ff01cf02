//! The operations page: current usage and limits, and the calls of the last hour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::auth::{SubmittedForm, Visitor};
use super::i18n::Lang;
use super::page::{Page, failed, respond};
use super::samples::{FailureSample, SAMPLES_MAX, Sample};
use super::{App, Console, chart, view};
use crate::api::{LiveStatus, NodeState, NodeStatus, RequestCount};
use engine::admission::settings::Permissions;
use model::Role;
use model::{CallType, Direction, Timestamp};
use store::{CallFilter, CallRecord, Compare, Scope};

/// Maximum number of calls of the last hour that are read.
const CALLS_MAX: u32 = 2_000;
const MINUTES: usize = 60;
/// Number of columns of an hour: five minutes each.
const COLUMNS: usize = 12;
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

struct Cause {
    text: String,
    advice: String,
    tone: &'static str,
    count: usize,
    percent: usize,
}

/// The permission rules in force.
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
    median: String,
    slowest: String,
    numbers: Vec<Number>,
    live_chart: String,
    live_top: usize,
    live_most: usize,
    /// Maximum of live calls in each five minutes.
    live_table: Vec<(String, usize)>,
    cps_chart: String,
    cps_top: usize,
    cps_most: usize,
    cps_table: Vec<(String, usize)>,
    /// Rules for outbound calls. `None` if the account has no number.
    rules: Option<Rules>,
    hour_chart: String,
    hour_top: usize,
    /// Start of each column, and number of good, missed and bad calls.
    hour: Vec<(String, usize, usize, usize)>,
    set_up_chart: String,
    set_up_top: usize,
    set_up: Vec<(String, usize)>,
    causes: Vec<Cause>,
    draining: bool,
    /// Status of the nodes, if the visitor owns them.
    nodes: Vec<Node>,
    fetches: Option<RequestSummary>,
    graph: Option<RequestSummary>,
    wrong: String,
}

/// Status of a node.
struct Node {
    id: String,
    version: &'static str,
    since: view::When,
    state: &'static str,
    tone: &'static str,
    why: String,
    live: usize,
    memory: String,
}

/// Results of outbound requests.
struct RequestSummary {
    chart: String,
    top: usize,
    /// No request failed in the last hour.
    quiet: bool,
    table: Vec<(String, usize)>,
    /// Counts since the node started.
    all: Vec<RequestCount>,
    failed: u64,
    of: u64,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    render_page(&console, &visitor, StatusCode::OK, String::new()).await
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
    let now = api.clock.wall();
    let hour_ago = now.minus(Duration::from_secs(3600));
    api.store.flush().await;
    let filter =
        CallFilter { ended: vec![(Compare::GreaterEqual, hour_ago)], ..CallFilter::default() };
    let records = match api.store.calls().first(&scope, &filter, CALLS_MAX).await {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(%error, "failed to list calls");
            return failed(console, visitor, StatusCode::SERVICE_UNAVAILABLE, "");
        }
    };
    let up = api.live.list(&scope);
    let queued = up.iter().filter(|call| call.status == LiveStatus::Queued).count();
    let tables = api.gate.directory().tables();
    let (cps_limit, cps_used) = tables
        .account(scope.auth_id())
        .map_or((0, 0), |account| api.gate.cps(api.clock.now(), account));
    let own =
        || tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let rules = own().next().map(|number| Rules::of(&number.spec.permissions));
    let mut numbers: Vec<Number> = own()
        .map(|n| {
            let (used, limit) = (n.slots.in_use(), n.slots.limit());
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
    let own_nodes = match visitor.person.user.role {
        Role::Owner => {
            api.operator.nodes().filter(|_| matches!(scope, Scope::Main(_))).unwrap_or_default()
        }
        Role::Admin | Role::Agent => Vec::new(),
    };
    let lost = console.samples.failed();
    let samples = console.samples.of(&visitor.person.user.main_account);
    let of = |what: fn(&Sample) -> usize| samples.iter().map(what).collect::<Vec<usize>>();
    let (ups, begun) = (of(|sample| sample.up), of(|sample| sample.cps));
    let highest = |values: &[usize]| values.iter().copied().max().unwrap_or_default();
    let waits = set_ups(&records);
    let hour = by_time(&records, now);
    let columns: Vec<_> =
        hour.iter().map(|(_, g, m, b)| vec![(*g, "good"), (*m, "missed"), (*b, "bad")]).collect();
    let set_up = by_wait(lang, &waits);
    let set_up_columns: Vec<_> = set_up.iter().map(|(_, count)| vec![(*count, "good")]).collect();
    let answered =
        records.iter().filter(|r| r.end.as_ref().is_some_and(|end| end.answered.is_some())).count();
    let page = OperationsPage {
        live: up.len() - queued,
        queued,
        cps_used,
        cps_limit,
        calls: records.len(),
        answered: percent(answered, records.len()),
        median: lang.decimals(at(&waits, 50)),
        slowest: lang.decimals(at(&waits, 95)),
        live_chart: chart::area(&ups, SAMPLES_MAX, lang.t("operations.live_chart")),
        live_table: column_maxima(&ups),
        live_most: highest(&ups),
        live_top: chart::ceiling(highest(&ups)),
        cps_chart: chart::area(&begun, SAMPLES_MAX, lang.t("operations.cps_chart")),
        cps_table: column_maxima(&begun),
        cps_most: highest(&begun),
        cps_top: chart::ceiling(highest(&begun)),
        rules,
        hour_top: chart::ceiling(
            hour.iter().map(|(_, g, m, b)| g + m + b).max().unwrap_or_default(),
        ),
        hour_chart: chart::bars(&columns, lang.t("operations.hour_chart")),
        hour,
        set_up_top: chart::ceiling(
            set_up.iter().map(|(_, count)| *count).max().unwrap_or_default(),
        ),
        set_up_chart: chart::bars(&set_up_columns, lang.t("operations.set_up_chart")),
        set_up,
        causes: causes(lang, &records),
        numbers,
        draining: api.gate.is_draining(),
        fetches: own_nodes.first().map(|node| {
            request_summary(&node.fetches, &lost, |f| f.fetches, lang.t("operations.fetch_chart"))
        }),
        graph: own_nodes.first().map(|node| {
            request_summary(&node.graph, &lost, |f| f.graph, lang.t("operations.graph_chart"))
        }),
        nodes: own_nodes.into_iter().map(|node| node_view(lang, node)).collect(),
        wrong,
        page: visitor
            .page(console, lang.t("nav.operations"), "operations")
            .listening("call number"),
    };
    respond(status, &page)
}

fn node_view(lang: Lang, node: NodeStatus) -> Node {
    let (state, tone) = match node.state {
        NodeState::Ready => ("operations.node_ready", "good"),
        NodeState::Draining => ("operations.node_draining", "missed"),
        NodeState::Unready => ("operations.node_unready", "bad"),
    };
    Node {
        id: node.id,
        version: node.version,
        since: view::When::of(node.started),
        state: lang.t(state),
        tone,
        why: node
            .not_ready
            .filter(|_| node.state == NodeState::Unready)
            .unwrap_or_default()
            .to_owned(),
        live: node.live_calls,
        memory: node
            .memory_bytes
            .map_or_else(|| "–".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
    }
}

/// Summarises outbound requests: failures of the last hour, and all results since the node started,
/// failures first.
fn request_summary(
    all: &[RequestCount],
    samples: &[FailureSample],
    of: fn(&FailureSample) -> usize,
    title: &str,
) -> RequestSummary {
    let each: Vec<usize> = samples.iter().map(of).collect();
    let sum = |ok: bool| {
        all.iter().filter(|one| one.ok == ok).fold(0, |sum: u64, one| sum.saturating_add(one.count))
    };
    let mut all = all.to_vec();
    all.sort_by(|a, b| (a.ok, b.count, &a.kind).cmp(&(b.ok, a.count, &b.kind)));
    RequestSummary {
        chart: chart::area(&each, SAMPLES_MAX, title),
        top: chart::ceiling(each.iter().copied().max().unwrap_or_default()),
        quiet: each.iter().all(|failed| *failed == 0),
        table: by_column(&each, |some| some.iter().sum()),
        failed: sum(false),
        of: sum(false).saturating_add(sum(true)),
        all,
    }
}

fn percent(part: usize, whole: usize) -> String {
    (part * 100).checked_div(whole).map_or_else(|| "–".to_owned(), |percent| format!("{percent} %"))
}

/// Whether the node answers such calls itself, so that the time to `accept` is its own. Other legs
/// ring until a person answers.
fn is_answered_by_us(direction: Direction, call_type: CallType) -> bool {
    direction == Direction::Inbound && call_type == CallType::Whatsapp
}

/// Set-up times of calls that the node answers, in microseconds, sorted.
fn set_ups(records: &[CallRecord]) -> Vec<i64> {
    let wait = |record: &CallRecord| {
        let answered = record.end.as_ref()?.answered?;
        is_answered_by_us(record.start.direction, record.start.call_type).then_some(())?;
        Some(answered.micros().saturating_sub(record.start.started.micros()))
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

/// Maximum of each column. The last column ends now.
fn column_maxima(samples: &[usize]) -> Vec<(String, usize)> {
    by_column(samples, |some| some.iter().copied().max().unwrap_or_default())
}

fn by_column(samples: &[usize], of: impl Fn(&[usize]) -> usize) -> Vec<(String, usize)> {
    let each = SAMPLES_MAX / COLUMNS;
    let ago = |column: usize| format!("−{} min", (column + 1) * (MINUTES / COLUMNS));
    let columns = samples.rchunks(each).enumerate();
    let mut columns: Vec<_> = columns.map(|(column, some)| (ago(column), of(some))).collect();
    columns.reverse();
    columns
}

fn by_time(records: &[CallRecord], now: Timestamp) -> Vec<(String, usize, usize, usize)> {
    let each = MINUTES / COLUMNS;
    let label = |column: usize| {
        let ago = (COLUMNS - column) * each;
        format!("−{ago} min")
    };
    let mut hour: Vec<_> = (0..COLUMNS).map(|column| (label(column), 0, 0, 0)).collect();
    for record in records {
        let Some(end) = &record.end else { continue };
        let minutes = now.since(end.ended).as_secs() / 60;
        let column = usize::try_from(minutes).ok().and_then(|m| COLUMNS.checked_sub(1 + m / each));
        let Some(found) = column.and_then(|column| hour.get_mut(column)) else { continue };
        match view::tone(&end.cause, end.answered.is_some()) {
            "good" => found.1 += 1,
            "missed" => found.2 += 1,
            _ => found.3 += 1,
        }
    }
    hour
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

fn causes(lang: Lang, records: &[CallRecord]) -> Vec<Cause> {
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for end in records.iter().filter_map(|record| record.end.as_ref()) {
        *counts.entry((&end.cause, end.answered.is_some())).or_default() += 1;
    }
    let mut causes: Vec<Cause> = counts
        .into_iter()
        .map(|((word, answered), count)| {
            let (text, advice) = view::cause(lang, word);
            Cause { text, advice, tone: view::tone(word, answered), count, percent: 0 }
        })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    let counts: Vec<usize> = causes.iter().map(|cause| cause.count).collect();
    for (cause, percent) in causes.iter_mut().zip(percentages(&counts)) {
        cause.percent = percent;
    }
    causes.truncate(12);
    causes
}

/// Percentages that add up to 100: the rounding error goes to the values with the largest
/// remainders.
fn percentages(counts: &[usize]) -> Vec<usize> {
    let whole = counts.iter().sum::<usize>().max(1);
    let mut parts: Vec<usize> = counts.iter().map(|count| count * 100 / whole).collect();
    let mut lost: Vec<(usize, usize)> = counts
        .iter()
        .map(|count| count * 100 % whole)
        .enumerate()
        .filter(|(_, lost)| *lost > 0)
        .collect();
    lost.sort_by_key(|(n, lost)| (std::cmp::Reverse(*lost), *n));
    let left = 100_usize.saturating_sub(parts.iter().sum());
    for (n, _) in lost.into_iter().take(left) {
        if let Some(part) = parts.get_mut(n) {
            *part += 1;
        }
    }
    parts
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
    fn percentages_add_up_to_100() {
        assert_eq!(percentages(&[1, 1, 1]), [34, 33, 33]);
        assert_eq!(percentages(&[5, 2]), [71, 29]);
        assert!(percentages(&[]).is_empty());
        assert_eq!(percentages(&[40, 30, 20, 9, 1, 1]).iter().sum::<usize>(), 100);
    }

    #[test]
    fn the_table_has_the_maximum_of_each_five_minutes_and_ends_now() {
        assert!(column_maxima(&[]).is_empty());
        let samples: Vec<usize> = (0..40).collect();
        assert_eq!(column_maxima(&samples), [("−10 min".to_owned(), 9), ("−5 min".to_owned(), 39)]);
        assert_eq!(column_maxima(&vec![1; SAMPLES_MAX]).len(), COLUMNS);
    }
}
