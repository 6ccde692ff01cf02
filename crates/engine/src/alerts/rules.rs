//! Decides which alerts fire and which are resolved, from the node's own metrics.
//!
//! The rules have the same names, windows, thresholds and durations as those of
//! `deploy/prometheus/alerts.yml`; `tests/observability.rs` compares them. Counters are counted over
//! the window of each rule, whatever the interval between evaluations.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fired::Fired;
use model::metric;
use model::{Sample, Timestamp};

/// An alert is resolved when nothing has spoken for it for this time. A longer window of its rule
/// takes the place of it.
const QUIET: Duration = MINUTE.saturating_mul(5);

/// Evaluations within this time share an entry of the history, so that it is short with a short
/// interval, too. Windows are longer by at most this time.
const STEP: Duration = Duration::from_secs(30);

const MINUTE: Duration = Duration::from_secs(60);

/// A state of the node that is reported to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// Records wait in the journal, or statements failed.
    StoreFailing,
    /// Calls were refused as overloaded.
    Overloaded,
    /// Every webhook that arrived had a wrong signature.
    WebhooksUnsigned,
    /// Requests to Graph fail.
    GraphFailing,
    /// Fetches from customers' URLs fail.
    AnswerUrlsFailing,
    /// Callbacks were given up.
    CallbacksLost,
    /// Calls had no sound.
    MediaMissing,
    /// Media threads work late.
    MediaLate,
    /// Calls were refused at the limit of a number or an account.
    LimitReached,
    /// The fleet's database does not answer.
    FleetDegraded,
}

impl Alert {
    /// Every alert.
    pub const ALL: [Self; 10] = [
        Self::StoreFailing,
        Self::Overloaded,
        Self::WebhooksUnsigned,
        Self::GraphFailing,
        Self::AnswerUrlsFailing,
        Self::CallbacksLost,
        Self::MediaMissing,
        Self::MediaLate,
        Self::LimitReached,
        Self::FleetDegraded,
    ];

    /// The alert's name in the configuration and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoreFailing => "store_failing",
            Self::Overloaded => "overloaded",
            Self::WebhooksUnsigned => "webhooks_unsigned",
            Self::GraphFailing => "graph_failing",
            Self::AnswerUrlsFailing => "answer_urls_failing",
            Self::CallbacksLost => "callbacks_lost",
            Self::MediaMissing => "media_missing",
            Self::MediaLate => "media_late",
            Self::LimitReached => "limit_reached",
            Self::FleetDegraded => "fleet_degraded",
        }
    }

    /// The alert's name in `deploy/prometheus/alerts.yml`, and the heading of its section in
    /// `docs/operations.md`.
    pub fn title(self) -> String {
        let words = self.as_str().split('_').filter_map(|word| {
            let (first, rest) = word.split_at_checked(1)?;
            Some(first.to_ascii_uppercase() + rest)
        });
        std::iter::once("Offhook".to_owned()).chain(words).collect()
    }

    /// `critical` if callers are affected at once, otherwise `warning`.
    pub fn severity(self) -> &'static str {
        match self {
            Self::CallbacksLost | Self::LimitReached => "warning",
            Self::StoreFailing
            | Self::Overloaded
            | Self::WebhooksUnsigned
            | Self::GraphFailing
            | Self::AnswerUrlsFailing
            | Self::MediaMissing
            | Self::MediaLate
            | Self::FleetDegraded => "critical",
        }
    }

    /// When the alert fires, as in `deploy/prometheus/alerts.yml`.
    pub fn rule(self) -> Rule {
        let rule = |minutes, above, minutes_held| Rule {
            window: MINUTE * minutes,
            above,
            share: None,
            held: MINUTE * minutes_held,
        };
        match self {
            Self::StoreFailing => rule(5, 0.0, 1),
            Self::Overloaded | Self::LimitReached => rule(5, 0.0, 0),
            Self::WebhooksUnsigned => rule(10, 2.0, 1),
            Self::GraphFailing => Rule { share: Some(0.05), ..rule(5, 4.0, 2) },
            Self::AnswerUrlsFailing => Rule { share: Some(0.1), ..rule(5, 4.0, 2) },
            Self::CallbacksLost => rule(60, 0.0, 0),
            Self::MediaMissing => rule(10, 2.0, 0),
            Self::MediaLate => rule(5, 5.0, 0),
            Self::FleetDegraded => Rule { held: Duration::from_secs(10), ..rule(0, 0.0, 0) },
        }
    }

    /// Describes the state in one sentence, without a full stop.
    pub fn summary(self) -> &'static str {
        match self {
            Self::StoreFailing => "the store cannot be written; records wait in the journal",
            Self::Overloaded => "calls are refused as overloaded",
            Self::WebhooksUnsigned => {
                "all webhooks have a wrong signature; the app secret may have changed at Meta"
            }
            Self::GraphFailing => "requests to Meta's Graph API fail",
            Self::AnswerUrlsFailing => "fetches from customers' URLs fail",
            Self::CallbacksLost => "callbacks were given up",
            Self::MediaMissing => "calls have no sound",
            Self::MediaLate => "media is sent late; callers hear gaps",
            Self::LimitReached => "calls are refused at the limit of a number or an account",
            Self::FleetDegraded => "the database of the fleet does not answer",
        }
    }
}

/// The numbers of an alert's condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The time over which counters are counted. Zero if the rule reads only gauges.
    pub window: Duration,
    /// The condition holds if more than this is counted.
    pub above: f64,
    /// The share of all requests that must have failed, in addition.
    pub share: Option<f64>,
    /// How long the condition must hold until the alert fires.
    pub held: Duration,
}

/// Values of the metrics that the rules read, by series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Readings(BTreeMap<String, f64>);

impl Readings {
    /// Reads the Prometheus text of a node.
    pub(super) fn of(text: &str) -> Self {
        const COUNTS: [&str; 2] = [metric::GRAPH_REQUEST_SECONDS, metric::ANSWER_FETCH_SECONDS];
        const PLAIN: [&str; 9] = [
            metric::STORE_ERRORS_TOTAL,
            metric::STORE_JOURNAL_BYTES,
            metric::OVERLOADED_TOTAL,
            metric::WEBHOOK_EVENTS_TOTAL,
            metric::CALLBACK_TOTAL,
            metric::MEDIA_MISSING_TOTAL,
            metric::MEDIA_LATE_TICKS_TOTAL,
            metric::ADMISSION_TOTAL,
            metric::CLUSTER_DEGRADED,
        ];
        let is_read = |sample: &Sample<'_>| {
            let name = sample.name();
            let is_count = name.strip_suffix("_count").is_some_and(|name| COUNTS.contains(&name));
            is_count || PLAIN.contains(&name)
        };
        let samples = text.lines().filter_map(Sample::parse).filter(is_read);
        Self(samples.map(|sample| (sample.series.to_owned(), sample.value)).collect())
    }
}

/// Increases of counters between two evaluations.
struct Increases {
    /// The time of the last evaluation.
    until: Duration,
    /// The time of the first evaluation.
    from: Duration,
    /// By series. Series that did not increase are left out.
    by_series: BTreeMap<String, f64>,
}

/// The increases within the longest window of a rule.
#[derive(Default)]
struct History(VecDeque<Increases>);

impl History {
    /// Adds the increases from one evaluation to the next and forgets those older than `keep`.
    fn add(&mut self, before: &Readings, now: &Readings, at: Duration, keep: Duration) {
        let increases = now.0.iter().filter_map(|(series, value)| {
            let before = before.0.get(series).copied().unwrap_or_default();
            (*value > before).then(|| (series.clone(), value - before))
        });
        while self.0.front().is_some_and(|oldest| at.saturating_sub(oldest.until) >= keep) {
            self.0.pop_front();
        }
        match self.0.back_mut().filter(|last| at.saturating_sub(last.from) < STEP) {
            Some(last) => {
                last.until = at;
                for (series, increase) in increases {
                    *last.by_series.entry(series).or_default() += increase;
                }
            }
            None => {
                let by_series = increases.collect();
                self.0.push_back(Increases { until: at, from: at, by_series });
            }
        }
    }

    /// The increases of all series within the window that ends at `at`.
    fn within(&self, window: Duration, at: Duration) -> BTreeMap<&str, f64> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for step in self.0.iter().filter(|step| at.saturating_sub(step.until) < window) {
            for (series, increase) in &step.by_series {
                *sums.entry(series).or_default() += increase;
            }
        }
        sums
    }
}

/// What a rule sees: the increases within its window, and the readings of now.
struct View<'a> {
    increases: BTreeMap<&'a str, f64>,
    now: &'a Readings,
    rule: Rule,
}

impl View<'_> {
    /// The increase of each series of a counter. Series that did not increase are left out.
    fn increases(&self, name: &str) -> impl Iterator<Item = Sample<'_>> {
        let samples = self.increases.iter().map(|(series, value)| Sample { series, value: *value });
        samples.filter(move |sample| sample.name() == name)
    }

    /// The increase of a counter over all series. Not computed with `sum`, which is -0 if there are
    /// no series.
    fn increase(&self, name: &str) -> f64 {
        self.increases(name).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// The highest value of a gauge.
    fn gauge(&self, name: &str) -> f64 {
        let samples = self.now.0.iter().map(|(series, value)| Sample { series, value: *value });
        samples
            .filter(|sample| sample.name() == name)
            .map(|sample| sample.value)
            .fold(0.0, f64::max)
    }

    /// Lists the increases of a counter by the value of a label: `lag 10, store 2`. `None` unless
    /// one of them is high enough.
    fn by_label(
        &self,
        name: &str,
        label: &str,
        is_counted: impl Fn(&Sample<'_>) -> bool,
    ) -> Option<String> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for sample in self.increases(name).filter(is_counted) {
            *sums.entry(sample.label(label).unwrap_or_default()).or_default() += sample.value;
        }
        sums.values().any(|sum| *sum > self.rule.above).then(|| {
            let parts: Vec<String> = sums.iter().map(|(word, n)| format!("{word} {n}")).collect();
            parts.join(", ")
        })
    }

    /// Returns text such as `7 of 40`. `None` unless enough requests and a large enough share of
    /// them failed.
    fn failures(&self, name: &str, is_success: impl Fn(&Sample<'_>) -> bool) -> Option<String> {
        let (mut all, mut failed) = (0.0, 0.0);
        for sample in self.increases(&format!("{name}_count")) {
            all += sample.value;
            failed += if is_success(&sample) { 0.0 } else { sample.value };
        }
        let least = self.rule.share.unwrap_or_default() * all;
        (failed > self.rule.above && failed > least).then(|| format!("{failed} of {all} requests"))
    }

    /// Returns details about an alert if its condition holds, and `None` otherwise.
    fn detail(&self, alert: Alert) -> Option<String> {
        let above = self.rule.above;
        match alert {
            Alert::StoreFailing => {
                let errors = self.increase(metric::STORE_ERRORS_TOTAL);
                let waiting = self.gauge(metric::STORE_JOURNAL_BYTES);
                (errors > above || waiting > above)
                    .then(|| format!("{errors} errors, {waiting} bytes in the journal"))
            }
            Alert::Overloaded => self.by_label(metric::OVERLOADED_TOTAL, "why", |_| true),
            Alert::WebhooksUnsigned => {
                let (mut unsigned, mut accepted) = (0.0, 0.0);
                for sample in self.increases(metric::WEBHOOK_EVENTS_TOTAL) {
                    match (sample.label("kind"), sample.label("result")) {
                        (Some("body"), Some("bad_signature")) => unsigned += sample.value,
                        (Some("body"), _) => {}
                        _ => accepted += sample.value,
                    }
                }
                (unsigned > above && accepted < 1.0).then(|| format!("{unsigned} webhooks"))
            }
            Alert::GraphFailing => self.failures(metric::GRAPH_REQUEST_SECONDS, |sample| {
                sample.label("status").is_some_and(metric::graph::is_granted)
            }),
            Alert::AnswerUrlsFailing => self.failures(metric::ANSWER_FETCH_SECONDS, |sample| {
                sample.label("outcome") == Some(metric::fetch::OK)
            }),
            Alert::CallbacksLost => self.by_label(metric::CALLBACK_TOTAL, "kind", |sample| {
                sample.label("outcome") == Some(metric::delivery::FAILED)
            }),
            Alert::MediaMissing => self.by_label(metric::MEDIA_MISSING_TOTAL, "what", |_| true),
            Alert::MediaLate => {
                let late = self.increase(metric::MEDIA_LATE_TICKS_TOTAL);
                (late > above).then(|| format!("{late} times"))
            }
            Alert::LimitReached => self.by_label(metric::ADMISSION_TOTAL, "result", |sample| {
                let limits = [metric::admission::NUMBER_FULL, metric::admission::CPS_EXCEEDED];
                sample.label("result").is_some_and(|result| limits.contains(&result))
            }),
            Alert::FleetDegraded => {
                (self.gauge(metric::CLUSTER_DEGRADED) > above).then(|| "no answer".to_owned())
            }
        }
    }
}

/// A change of an alert's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub alert: Alert,
    /// `true` if the alert was resolved, `false` if it fired.
    pub is_resolved: bool,
    /// When the alert fired.
    pub since: Timestamp,
    /// The readings behind the alert when it fired.
    pub detail: String,
}

/// The state of an alert that is pending or fires.
enum State {
    /// The condition holds since this time, not yet long enough.
    Pending(Duration),
    /// The alert has fired and is not resolved.
    Firing {
        since: Timestamp,
        detail: String,
        /// When the condition held last.
        held: Duration,
    },
}

/// The alerts and their states.
pub(super) struct Rules {
    alerts: Vec<Alert>,
    before: Readings,
    history: History,
    states: BTreeMap<Alert, State>,
    /// Alerts that had fired before the start, and have neither fired again nor ended since.
    earlier: BTreeMap<Alert, Fired>,
}

impl Rules {
    /// Creates the rules of these alerts. Counts from before `start` fire none. `earlier` are the
    /// alerts that had fired before.
    pub(super) fn new(alerts: Vec<Alert>, start: Readings, earlier: Vec<Fired>) -> Self {
        let (history, states) = <(History, BTreeMap<Alert, State>)>::default();
        let is_enabled = |fired: &Fired| alerts.contains(&fired.alert);
        let earlier = earlier.into_iter().filter(is_enabled);
        let earlier = earlier.map(|fired| (fired.alert, fired)).collect();
        Self { alerts, before: start, history, states, earlier }
    }

    /// The alerts that have fired and are not resolved.
    pub(super) fn fired(&self) -> Vec<Fired> {
        let firing = self.states.iter().filter_map(|(alert, state)| match state {
            State::Firing { since, detail, .. } => {
                Some(Fired { alert: *alert, since: *since, detail: detail.clone() })
            }
            State::Pending(_) => None,
        });
        firing.chain(self.earlier.values().cloned()).collect()
    }

    /// Evaluates the readings of this time. `at` is the time since the start, by a monotonic clock.
    /// An alert is reported when its condition has held long enough, and when it has not held for
    /// [`QUIET`]. An alert that had fired before the start is reported again if its condition holds
    /// again.
    pub(super) fn evaluate(
        &mut self,
        readings: Readings,
        at: Duration,
        now: Timestamp,
    ) -> Vec<Report> {
        let longest = self.alerts.iter().map(|alert| alert.rule().window).max();
        self.history.add(&self.before, &readings, at, longest.unwrap_or_default());
        let mut reports = Vec::new();
        for alert in self.alerts.iter().copied() {
            let rule = alert.rule();
            let increases = self.history.within(rule.window, at);
            let detail = View { increases, now: &readings, rule }.detail(alert);
            let next = match (detail, self.states.remove(&alert)) {
                (Some(_), Some(State::Firing { since, detail, .. })) => {
                    Some(State::Firing { since, detail, held: at })
                }
                (Some(detail), pending) => {
                    let begun = match pending {
                        Some(State::Pending(begun)) => begun,
                        _ => at,
                    };
                    if at.saturating_sub(begun) >= rule.held {
                        let since = self.earlier.remove(&alert).map_or(now, |fired| fired.since);
                        let detail_then = detail.clone();
                        reports.push(Report { alert, is_resolved: false, since, detail });
                        Some(State::Firing { since, detail: detail_then, held: at })
                    } else {
                        Some(State::Pending(begun))
                    }
                }
                (None, Some(State::Firing { since, detail, held })) => {
                    if at.saturating_sub(held) >= QUIET.saturating_sub(rule.window) {
                        reports.push(Report { alert, is_resolved: true, since, detail });
                        None
                    } else {
                        Some(State::Firing { since, detail, held })
                    }
                }
                (None, _) => {
                    // The readings of before the start are not known.
                    let is_over = at >= QUIET;
                    let ended = is_over.then(|| self.earlier.remove(&alert)).flatten();
                    reports.extend(ended.map(|Fired { since, detail, .. }| Report {
                        alert,
                        is_resolved: true,
                        since,
                        detail,
                    }));
                    None
                }
            };
            if let Some(next) = next {
                self.states.insert(alert, next);
            }
        }
        self.before = readings;
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The alerts that fire if these readings stay for two minutes.
    fn fired(before: &str, now: &str) -> Vec<(Alert, String)> {
        let mut rules = Rules::new(Alert::ALL.to_vec(), Readings::of(before), Vec::new());
        let mut reports = Vec::new();
        for minute in 1..=3 {
            let (at, wall) = (MINUTE * minute, Timestamp::from_secs(i64::from(minute) * 60));
            reports.extend(rules.evaluate(Readings::of(now), at, wall));
        }
        reports.into_iter().map(|report| (report.alert, report.detail)).collect()
    }

    /// Evaluates an alert every `step` for an hour, each time with the text that `text` returns for
    /// the number of the evaluation. Returns the minutes of the reports.
    fn reported(alert: Alert, step: Duration, text: impl Fn(u32) -> String) -> Vec<(u64, bool)> {
        let mut rules = Rules::new(vec![alert], Readings::default(), Vec::new());
        let (mut at, mut found) = (Duration::ZERO, Vec::new());
        for n in 1..=u32::try_from(3_600 / step.as_secs()).unwrap() {
            at += step;
            let reports = rules.evaluate(Readings::of(&text(n)), at, Timestamp::default());
            found.extend(reports.iter().map(|report| (at.as_secs() / 60, report.is_resolved)));
            let length = rules.history.0.len();
            assert!(length <= 121, "the history is short: {length}");
        }
        found
    }

    #[test]
    fn alerts_of_before_a_start_fire_again_or_are_resolved() {
        let fired =
            |alert| Fired { alert, since: Timestamp::from_secs(7), detail: "of before".to_owned() };
        let earlier = [Alert::MediaLate, Alert::LimitReached, Alert::Overloaded].map(fired);
        let enabled = vec![Alert::MediaLate, Alert::LimitReached];
        let mut rules = Rules::new(enabled, Readings::default(), earlier.to_vec());
        let again = "offhook_admission_total{direction=\"inbound\",result=\"number_full\"} 3";
        let mut reports = Vec::new();
        for minute in 1..=5 {
            let now = Timestamp::from_secs(i64::from(minute) * 60);
            let found = rules.evaluate(Readings::of(again), MINUTE * minute, now);
            reports.extend(found.into_iter().map(|report| (minute, report)));
            let known: Vec<Alert> = rules.fired().iter().map(|fired| fired.alert).collect();
            let rest = if minute < 5 {
                vec![Alert::LimitReached, Alert::MediaLate]
            } else {
                vec![Alert::LimitReached]
            };
            assert_eq!(known, rest, "minute {minute}");
        }
        let [(1, again), (5, over)] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((again.alert, again.is_resolved), (Alert::LimitReached, false));
        assert_eq!(
            (again.detail.as_str(), again.since),
            ("number_full 3", Timestamp::from_secs(7))
        );
        assert_eq!((over.alert, over.is_resolved), (Alert::MediaLate, true));
        assert_eq!((over.detail.as_str(), over.since), ("of before", Timestamp::from_secs(7)));
    }

    #[test]
    fn failures_are_counted_over_the_window_whatever_the_interval() {
        let failing = |n: u32| {
            format!("offhook_answer_fetch_seconds_count{{kind=\"answer\",outcome=\"timeout\"}} {n}")
        };
        // Two failures a minute: the fifth of a window comes in the third minute.
        let slowly = |n| failing(2 * n);
        assert_eq!(reported(Alert::AnswerUrlsFailing, MINUTE, slowly), [(5, false)]);
        let two_a_minute = |n| failing(n / 30);
        let second = Duration::from_secs(1);
        assert_eq!(reported(Alert::AnswerUrlsFailing, second, two_a_minute), [(4, false)]);
        // Four in any five minutes are not enough.
        let rarely = |n| failing(n * 4 / 5);
        assert_eq!(reported(Alert::AnswerUrlsFailing, MINUTE, rarely), []);
    }

    #[test]
    fn a_condition_that_does_not_hold_long_enough_fires_no_alert() {
        let degraded = |ns: &'static [u32]| {
            move |n: u32| format!("offhook_cluster_degraded {}", u32::from(ns.contains(&n)))
        };
        let alert = Alert::FleetDegraded;
        assert_eq!(reported(alert, MINUTE, degraded(&[2, 4])), []);
        // A gauge has no window: it is resolved five minutes after it held last.
        assert_eq!(reported(alert, MINUTE, degraded(&[2, 3, 6])), [(3, false), (11, true)]);
    }

    #[test]
    fn each_alert_fires_on_its_condition_and_names_what_was_counted() {
        let cases = [
            (
                Alert::StoreFailing,
                "offhook_store_errors_total 2",
                "2 errors, 0 bytes in the journal",
            ),
            (
                Alert::StoreFailing,
                "offhook_store_journal_bytes 512",
                "0 errors, 512 bytes in the journal",
            ),
            (
                Alert::Overloaded,
                "offhook_overloaded_total{why=\"store\"} 2\noffhook_overloaded_total{why=\"lag\"} 1",
                "lag 1, store 2",
            ),
            (
                Alert::WebhooksUnsigned,
                "offhook_webhook_events_total{kind=\"body\",result=\"bad_signature\"} 3",
                "3 webhooks",
            ),
            (
                Alert::GraphFailing,
                "offhook_graph_request_seconds_count{action=\"accept\",status=\"200\"} 50\n\
                 offhook_graph_request_seconds_count{action=\"accept\",status=\"error\"} 5",
                "5 of 55 requests",
            ),
            (
                Alert::AnswerUrlsFailing,
                "offhook_answer_fetch_seconds_count{kind=\"answer\",outcome=\"timeout\"} 6",
                "6 of 6 requests",
            ),
            (
                Alert::CallbacksLost,
                "offhook_callback_total{kind=\"hangup\",outcome=\"failed\"} 1",
                "hangup 1",
            ),
            (
                Alert::MediaMissing,
                "offhook_media_missing_total{what=\"check\"} 3\noffhook_media_missing_total{what=\"packet\"} 1",
                "check 3, packet 1",
            ),
            (Alert::MediaLate, "offhook_media_late_ticks_total 6", "6 times"),
            (
                Alert::LimitReached,
                "offhook_admission_total{direction=\"inbound\",result=\"number_full\"} 4",
                "number_full 4",
            ),
            (Alert::FleetDegraded, "offhook_cluster_degraded 1", "no answer"),
        ];
        for (alert, text, detail) in cases {
            assert_eq!(fired("", text), [(alert, detail.to_owned())], "{text}");
        }
        for alert in Alert::ALL {
            assert!(cases.iter().any(|(tested, _, _)| *tested == alert), "{alert:?}");
        }
    }

    #[test]
    fn alerts_are_quiet_without_an_increase_and_below_their_thresholds() {
        let old = "offhook_store_errors_total 9\noffhook_overloaded_total{why=\"lag\"} 4";
        assert_eq!(fired(old, old), []);
        for text in [
            "offhook_webhook_events_total{kind=\"body\",result=\"bad_signature\"} 9\n\
             offhook_webhook_events_total{kind=\"calls.connect\",result=\"admitted\"} 1",
            "offhook_graph_request_seconds_count{action=\"accept\",status=\"200\"} 500\n\
             offhook_graph_request_seconds_count{action=\"accept\",status=\"500\"} 5",
            // Calls that were over at Meta already.
            "offhook_graph_request_seconds_count{action=\"terminate\",status=\"gone\"} 9",
            "offhook_answer_fetch_seconds_count{kind=\"answer\",outcome=\"timeout\"} 4",
            "offhook_callback_total{kind=\"hangup\",outcome=\"retry\"} 90",
            "offhook_media_missing_total{what=\"check\"} 2",
            "offhook_media_late_ticks_total 5",
            "offhook_admission_total{direction=\"inbound\",result=\"user_busy\"} 4",
            "offhook_store_journal_bytes 0\noffhook_cluster_degraded 0",
            "# HELP offhook_store_errors_total 7\nnonsense",
        ] {
            assert_eq!(fired("", text), [], "{text}");
        }
    }

    #[test]
    fn an_alert_fires_once_and_is_resolved_five_minutes_after_the_last_count() {
        let ticks = |n: u32| match n {
            0 => 0,
            1 => 8,
            2..7 => 17,
            _ => 24,
        };
        let text =
            |n| format!("offhook_media_late_ticks_total {}\noffhook_cluster_degraded 1", ticks(n));
        assert_eq!(reported(Alert::MediaLate, MINUTE, text), [(1, false), (12, true)]);
        let mut rules = Rules::new(vec![Alert::MediaLate], Readings::default(), Vec::new());
        let mut evaluate = |n| {
            let now = Timestamp::from_secs(i64::from(n) * 60);
            rules.evaluate(Readings::of(&text(n)), MINUTE * n, now)
        };
        let report = |is_resolved| Report {
            alert: Alert::MediaLate,
            is_resolved,
            since: Timestamp::from_secs(60),
            detail: "8 times".to_owned(),
        };
        assert_eq!(evaluate(1), [report(false)]);
        assert_eq!((2..12).flat_map(&mut evaluate).collect::<Vec<_>>(), []);
        assert_eq!(evaluate(12), [report(true)]);
    }

    #[test]
    fn titles_are_those_of_prometheus() {
        assert_eq!(Alert::AnswerUrlsFailing.title(), "OffhookAnswerUrlsFailing");
    }
}
