//! Decides which alerts fire and which are resolved, from the node's own metrics.
//!
//! The rules have the same names and conditions as those of `deploy/prometheus/alerts.yml`. They
//! compare the metrics of two successive evaluations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::metric;
use model::{Sample, Timestamp};

/// Number of consecutive evaluations without its condition after which an alert is resolved.
const QUIET_EVALUATIONS: u32 = 5;

/// A state of the node that is reported to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// The readings of two evaluations.
struct Change<'a> {
    before: &'a Readings,
    now: &'a Readings,
}

impl Change<'_> {
    /// The increase of each series of a counter. Series that did not increase are left out.
    fn increases<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Sample<'s>> {
        self.now.0.iter().filter_map(move |(series, now)| {
            let before = self.before.0.get(series).copied().unwrap_or_default();
            let sample = Sample { series, value: now - before };
            (sample.name() == name && sample.value > 0.0).then_some(sample)
        })
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

    /// Lists the increases of a counter by the value of a label: `lag 10, store 2`. `None` if their
    /// sum is below `least`.
    fn by_label(&self, name: &str, label: &str, words: &[&str], least: f64) -> Option<String> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for sample in self.increases(name) {
            let word = sample.label(label).unwrap_or_default();
            if words.is_empty() || words.contains(&word) {
                *sums.entry(word).or_default() += sample.value;
            }
        }
        let is_reached = !sums.is_empty() && sums.values().sum::<f64>() >= least;
        is_reached.then(|| {
            let parts: Vec<String> = sums.iter().map(|(word, n)| format!("{word} {n}")).collect();
            parts.join(", ")
        })
    }

    /// Returns text such as `7 of 40`. `None` unless at least five requests and more than the given
    /// share of them failed.
    fn failures(
        &self,
        name: &str,
        share: f64,
        is_success: impl Fn(&Sample<'_>) -> bool,
    ) -> Option<String> {
        let (mut all, mut failed) = (0.0, 0.0);
        for sample in self.increases(&format!("{name}_count")) {
            all += sample.value;
            failed += if is_success(&sample) { 0.0 } else { sample.value };
        }
        (failed >= 5.0 && failed > share * all).then(|| format!("{failed} of {all} requests"))
    }

    /// Returns details about an alert if its condition holds, and `None` otherwise.
    fn detail(&self, alert: Alert) -> Option<String> {
        match alert {
            Alert::StoreFailing => {
                let errors = self.increase(metric::STORE_ERRORS_TOTAL);
                let waiting = self.gauge(metric::STORE_JOURNAL_BYTES);
                (errors > 0.0 || waiting > 0.0)
                    .then(|| format!("{errors} errors, {waiting} bytes in the journal"))
            }
            Alert::Overloaded => self.by_label(metric::OVERLOADED_TOTAL, "why", &[], 1.0),
            Alert::WebhooksUnsigned => {
                let (mut unsigned, mut accepted) = (0.0, 0.0);
                for sample in self.increases(metric::WEBHOOK_EVENTS_TOTAL) {
                    match (sample.label("kind"), sample.label("result")) {
                        (Some("body"), Some("bad_signature")) => unsigned += sample.value,
                        (Some("body"), _) => {}
                        _ => accepted += sample.value,
                    }
                }
                (unsigned >= 3.0 && accepted < 1.0).then(|| format!("{unsigned} webhooks"))
            }
            Alert::GraphFailing => self.failures(metric::GRAPH_REQUEST_SECONDS, 0.05, |sample| {
                sample.label("status").is_some_and(|status| status.starts_with('2'))
            }),
            Alert::AnswerUrlsFailing => {
                self.failures(metric::ANSWER_FETCH_SECONDS, 0.1, |sample| {
                    sample.label("outcome") == Some(metric::fetch::OK)
                })
            }
            Alert::CallbacksLost => {
                let lost = self
                    .increases(metric::CALLBACK_TOTAL)
                    .filter(|sample| sample.label("outcome") == Some(metric::delivery::FAILED));
                let mut text = String::new();
                for sample in lost {
                    let space = if text.is_empty() { "" } else { ", " };
                    let kind = sample.label("kind").unwrap_or_default();
                    let _ = write!(text, "{space}{kind} {}", sample.value);
                }
                (!text.is_empty()).then_some(text)
            }
            Alert::MediaMissing => self.by_label(metric::MEDIA_MISSING_TOTAL, "what", &[], 3.0),
            Alert::MediaLate => {
                let late = self.increase(metric::MEDIA_LATE_TICKS_TOTAL);
                (late > 5.0).then(|| format!("{late} times"))
            }
            Alert::LimitReached => {
                let limits = [metric::admission::NUMBER_FULL, metric::admission::CPS_EXCEEDED];
                self.by_label(metric::ADMISSION_TOTAL, "result", &limits, 1.0)
            }
            Alert::FleetDegraded => {
                (self.gauge(metric::CLUSTER_DEGRADED) > 0.0).then(|| "no answer".to_owned())
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

/// An alert that has fired and is not resolved.
struct Firing {
    since: Timestamp,
    detail: String,
    /// Number of consecutive evaluations without the condition.
    quiet: u32,
}

/// The alerts and their states.
pub(super) struct Rules {
    alerts: Vec<Alert>,
    before: Readings,
    firing: BTreeMap<Alert, Firing>,
}

impl Rules {
    /// Creates the rules of these alerts. Counts from before `start` fire none.
    pub(super) fn new(alerts: Vec<Alert>, start: Readings) -> Self {
        Self { alerts, before: start, firing: BTreeMap::new() }
    }

    /// Evaluates the readings of this time. An alert is reported when it fires, and when its
    /// condition has not held for five evaluations.
    pub(super) fn evaluate(&mut self, readings: Readings, now: Timestamp) -> Vec<Report> {
        let change = Change { before: &self.before, now: &readings };
        let mut reports = Vec::new();
        for alert in self.alerts.iter().copied() {
            match (change.detail(alert), self.firing.get_mut(&alert)) {
                (Some(_), Some(firing)) => firing.quiet = 0,
                (Some(detail), None) => {
                    let firing = Firing { since: now, detail: detail.clone(), quiet: 0 };
                    self.firing.insert(alert, firing);
                    reports.push(Report { alert, is_resolved: false, since: now, detail });
                }
                (None, Some(firing)) if firing.quiet + 1 < QUIET_EVALUATIONS => firing.quiet += 1,
                (None, Some(_)) => {
                    if let Some(Firing { since, detail, .. }) = self.firing.remove(&alert) {
                        reports.push(Report { alert, is_resolved: true, since, detail });
                    }
                }
                (None, None) => {}
            }
        }
        self.before = readings;
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(before: &str, now: &str) -> Vec<(Alert, String)> {
        let mut rules = Rules::new(Alert::ALL.to_vec(), Readings::of(before));
        let reports = rules.evaluate(Readings::of(now), Timestamp::from_secs(60));
        reports.into_iter().map(|report| (report.alert, report.detail)).collect()
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
                "offhook_media_missing_total{what=\"check\"} 2\noffhook_media_missing_total{what=\"packet\"} 1",
                "check 2, packet 1",
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
    fn an_alert_fires_once_and_is_resolved_after_five_quiet_evaluations() {
        let mut rules = Rules::new(vec![Alert::MediaLate], Readings::default());
        let mut ticks = 0;
        let mut evaluate = |more: u32, minute: i64| {
            ticks += more;
            let text =
                format!("offhook_media_late_ticks_total {ticks}\noffhook_cluster_degraded 1");
            rules.evaluate(Readings::of(&text), Timestamp::from_secs(minute * 60))
        };
        let report = |is_resolved| Report {
            alert: Alert::MediaLate,
            is_resolved,
            since: Timestamp::from_secs(60),
            detail: "8 times".to_owned(),
        };
        assert_eq!(evaluate(8, 1), [report(false)]);
        assert_eq!(evaluate(9, 2), [], "it fires already");
        for minute in 3..7 {
            assert_eq!(evaluate(0, minute), []);
        }
        assert_eq!(evaluate(7, 7), [], "the condition is back before it was resolved");
        for minute in 8..12 {
            assert_eq!(evaluate(0, minute), []);
        }
        assert_eq!(evaluate(0, 12), [report(true)]);
        assert_eq!(evaluate(0, 13), []);
    }

    #[test]
    fn titles_are_those_of_prometheus() {
        assert_eq!(Alert::AnswerUrlsFailing.title(), "OffhookAnswerUrlsFailing");
    }
}
