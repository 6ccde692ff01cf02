//! Load generator: places calls at a steady rate and measures them.
//!
//! Arrivals are open-loop. A call is due at a fixed time whatever happens to earlier calls, and its
//! latencies count from that time even if this process or the limit of live calls delays it. This
//! avoids coordinated omission. `control` offers loads as `/_sim/load`; `offhook load` prints their
//! reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::call_request::CallRequest;
use super::caller::{CallEventKind, CallScript, HangupSource, PhoneKind};
use super::{World, locked};

/// Maximum rate, in calls per second.
pub const RATE_MAX: f64 = 10_000.0;
/// Maximum number of calls of a load.
pub const CALLS_MAX: u64 = 10_000_000;
/// Maximum number of live calls. Beyond it, due calls wait, and the wait counts as latency.
const LIVE_MAX: usize = 20_000;
/// Interval of progress reports.
const PROGRESS: Duration = Duration::from_secs(1);
/// Time for which unanswered calls may continue after a load was stopped.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Number of distinct failure causes that are counted separately.
const CAUSES_MAX: usize = 32;
/// Latencies are recorded in microseconds, up to one hour, with three significant digits.
const LATENCY_MAX_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Body of `POST /_sim/load`.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadRequest {
    /// Chosen by the client. Identifies the load in a stop request.
    pub id: String,
    /// Calls per second.
    pub rate: f64,
    /// Total number of calls.
    pub calls: u64,
    /// Uses real media on every call, otherwise signalling only.
    pub media: bool,
    /// Template of all calls. Callers' numbers count up from its `from`.
    pub call: CallRequest,
}

impl LoadRequest {
    /// Checks the rate and the number of calls.
    ///
    /// # Errors
    ///
    /// Returns a message if one of them is out of bounds.
    pub fn check(&self) -> Result<(), String> {
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return Err(format!(
                "rate {} is out of range: more than 0 and at most {RATE_MAX} calls per second",
                self.rate
            ));
        }
        if !(1..=CALLS_MAX).contains(&self.calls) {
            return Err(format!("calls {} is out of range: 1 to {CALLS_MAX}", self.calls));
        }
        Ok(())
    }
}

/// A line of a load's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    Progress(Progress),
    /// The summary, which is always the last line.
    Summary(Summary),
}

/// Progress of a load test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub wall_s: f64,
    /// Calls placed so far.
    pub attempted: u64,
    /// Calls answered so far. `rejected` and `failed` count calls that have ended.
    pub answered: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Calls that have not ended.
    pub live: u64,
    /// Median set-up time of the calls answered so far, in milliseconds.
    pub setup_p50_ms: Option<f64>,
}

/// Result of a load. `attempted` is the sum of `answered`, `rejected` and `failed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub attempted: u64,
    /// Calls that were accepted and ended normally, with media if the load uses media.
    pub answered: u64,
    /// Calls that the node rejected at Graph before `pre_accept`, because of one of its limits.
    pub rejected: u64,
    pub failed: u64,
    /// Time from the due time of a call to `accept`.
    pub setup_ms: Percentiles,
    /// Time from the moment the caller could hear (accepted, and media connected) to the first
    /// audio.
    pub first_audio_ms: Percentiles,
    /// Gaps of more than 100 ms in the audio that callers received.
    pub audio_gaps: u64,
    pub wall_s: f64,
    /// Time from sending the connect webhook to its 200.
    pub webhook_ms: Percentiles,
    /// Delay of the generator itself: time from the due time of a call to its connect webhook.
    pub late_ms: Percentiles,
    /// Time from the connect webhook to the `reject` request, for rejected calls.
    #[serde(default)]
    pub reject_ms: Percentiles,
    /// Connect webhooks that the node answered with 503 and that were delivered again.
    #[serde(default, rename = "come_again")]
    pub redelivered: u64,
    /// Number of failed calls by cause.
    pub causes: BTreeMap<String, u64>,
}

/// Percentiles in milliseconds. `None` if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// A histogram of durations.
#[derive(Clone, Debug)]
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        // Never fails with these bounds.
        let bounded = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS);
        Self(bounded.unwrap_or_else(|_| Histogram::new(DIGITS).expect("three digits are allowed")))
    }

    fn add(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn at(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| millis(self.0.value_at_quantile(quantile).min(self.0.max())))
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles { p50: self.at(0.5), p90: self.at(0.9), p99: self.at(0.99), max: self.at(1.0) }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// Measurements of one call. Times count from its due time.
#[derive(Clone, Debug, Default)]
struct CallMeasurement {
    placed: Option<Duration>,
    webhook: Option<Duration>,
    /// Deliveries of the connect webhook that were answered with 503.
    redelivered: u64,
    rejected: Option<Duration>,
    /// Whether `pre_accept` arrived, in time or not.
    pre_accepted: bool,
    /// Whether Graph refused the SDP answer of `accept`.
    accept_refused: bool,
    answered: Option<Duration>,
    media_up: Option<Duration>,
    media_failed: bool,
    first_audio: Option<Duration>,
    hung_up: Option<HangupSource>,
    terminate_taken: bool,
    audio_gaps: u64,
    cause: String,
}

/// The verdict on one call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Answered,
    Rejected,
    Failed(String),
}

impl CallMeasurement {
    fn record(&mut self, at: Duration, event: CallEventKind) {
        match event {
            CallEventKind::Placed { .. } => self.placed = Some(at),
            CallEventKind::Webhook { kind, status } => {
                let taken = (200..300).contains(&status);
                match kind.as_str() {
                    "connect" if taken => self.webhook = Some(at),
                    "connect" if status == 503 => self.redelivered += 1,
                    "terminate" => self.terminate_taken |= taken,
                    _ => {}
                }
            }
            CallEventKind::Ringing => self.pre_accepted = true,
            CallEventKind::Refused { action, .. } => {
                self.pre_accepted |= action == "pre_accept";
                self.accept_refused |= action == "accept";
            }
            CallEventKind::Answered => self.answered = Some(at),
            CallEventKind::MediaUp => self.media_up = Some(at),
            CallEventKind::MediaFailed { .. } => self.media_failed = true,
            CallEventKind::FirstAudio => self.first_audio = Some(at),
            CallEventKind::Hangup { by } => {
                self.rejected = (by == HangupSource::Rejected).then_some(at);
                self.hung_up = Some(by);
            }
            CallEventKind::Ended(ended) => {
                self.audio_gaps = ended.audio_gaps;
                self.cause = ended.cause;
            }
            CallEventKind::Verified
            | CallEventKind::Instruction { .. }
            | CallEventKind::Finding { .. }
            | CallEventKind::Sound { .. }
            | CallEventKind::LogRefused { .. }
            | CallEventKind::CallKnown { .. }
            | CallEventKind::DigitSent { .. }
            | CallEventKind::DigitHeard { .. }
            | CallEventKind::Recording { .. } => {}
        }
    }

    fn verdict(&self, media: bool) -> Verdict {
        let failed = |cause: &str| Verdict::Failed(cause.to_owned());
        match (self.answered, self.hung_up) {
            (Some(_), _) if media && self.media_failed => failed("media_failed"),
            (Some(_), _) if media && self.media_up.is_none() => failed("media_not_up"),
            (Some(_), _) if !self.terminate_taken => failed("terminate_not_taken"),
            (Some(_), _) => Verdict::Answered,
            // A rejection after `pre_accept` does not come from a limit but from an application or
            // an error.
            (None, Some(HangupSource::Rejected)) if !self.pre_accepted => Verdict::Rejected,
            (None, Some(HangupSource::Rejected)) => failed("rejected_later"),
            (None, Some(HangupSource::Business)) if self.accept_refused => failed("accept_refused"),
            (None, Some(HangupSource::Business)) => failed("terminated_before_accept"),
            (None, _) if self.cause.is_empty() => failed("broken_off"),
            (None, _) => {
                Verdict::Failed(self.cause.split(':').next().unwrap_or_default().to_owned())
            }
        }
    }
}

/// Totals over all calls that have ended.
struct Totals {
    media: bool,
    attempted: u64,
    answered: u64,
    rejected: u64,
    failed: u64,
    audio_gaps: u64,
    first_audio: Latencies,
    webhook: Latencies,
    late: Latencies,
    reject: Latencies,
    redelivered: u64,
    causes: BTreeMap<String, u64>,
}

impl Totals {
    fn new(media: bool) -> Self {
        Self {
            media,
            attempted: 0,
            answered: 0,
            rejected: 0,
            failed: 0,
            audio_gaps: 0,
            first_audio: Latencies::new(),
            webhook: Latencies::new(),
            late: Latencies::new(),
            reject: Latencies::new(),
            redelivered: 0,
            causes: BTreeMap::new(),
        }
    }

    fn add(&mut self, measurement: &CallMeasurement) {
        match measurement.verdict(self.media) {
            Verdict::Answered => self.answered += 1,
            Verdict::Rejected => self.rejected += 1,
            Verdict::Failed(cause) => {
                self.failed += 1;
                let counted = self.causes.len() < CAUSES_MAX || self.causes.contains_key(&cause);
                *self
                    .causes
                    .entry(if counted { cause } else { "other".to_owned() })
                    .or_default() += 1;
            }
        }
        self.audio_gaps += measurement.audio_gaps;
        self.late.add(measurement.placed);
        self.webhook.add(
            measurement
                .webhook
                .zip(measurement.placed)
                .map(|(taken, placed)| taken.saturating_sub(placed)),
        );
        self.reject.add(
            measurement
                .rejected
                .zip(measurement.placed)
                .map(|(rejected, placed)| rejected.saturating_sub(placed)),
        );
        self.redelivered += measurement.redelivered;
        // Without both, the caller could hear nothing.
        let could_hear =
            measurement.answered.zip(measurement.media_up).map(|(answered, up)| answered.max(up));
        self.first_audio.add(
            measurement
                .first_audio
                .zip(could_hear)
                .map(|(first_audio, could_hear)| first_audio.saturating_sub(could_hear)),
        );
    }

    /// `answered` includes calls that are still live.
    fn progress(&self, wall: Duration, live: usize, answered_calls: &AnsweredCalls) -> Progress {
        Progress {
            wall_s: seconds(wall),
            attempted: self.attempted,
            answered: self.answered + answered_calls.live.load(Ordering::Relaxed),
            rejected: self.rejected,
            failed: self.failed,
            live: u64::try_from(live).unwrap_or(u64::MAX),
            setup_p50_ms: locked(&answered_calls.setup).at(0.5),
        }
    }

    fn summary(&self, wall: Duration, answered_calls: &AnsweredCalls) -> Summary {
        Summary {
            attempted: self.attempted,
            answered: self.answered,
            rejected: self.rejected,
            failed: self.failed,
            setup_ms: locked(&answered_calls.setup).percentiles(),
            first_audio_ms: self.first_audio.percentiles(),
            audio_gaps: self.audio_gaps,
            wall_s: seconds(wall),
            webhook_ms: self.webhook.percentiles(),
            late_ms: self.late.percentiles(),
            reject_ms: self.reject.percentiles(),
            redelivered: self.redelivered,
            causes: self.causes.clone(),
        }
    }
}

fn seconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// A load to run.
pub(crate) struct Load {
    request: LoadRequest,
    /// Template of every call; caller and due time are replaced.
    script: CallScript,
    /// Number of the first caller. Later callers count up from it.
    first_caller: u64,
}

impl Load {
    /// Creates a load. All its calls follow `script`.
    pub(crate) fn new(request: LoadRequest, script: CallScript) -> Self {
        let phone = if request.media { PhoneKind::Counting } else { PhoneKind::SignallingOnly };
        let first_caller = script.from.parse().unwrap_or(0);
        Self { request, script: CallScript { phone, ..script }, first_caller }
    }

    /// Places the calls and sends reports until all calls have ended. Dropping the receiver of the
    /// reports ends the load.
    pub(crate) async fn run(
        self,
        world: Arc<World>,
        stop: CancellationToken,
        report: mpsc::Sender<LoadEvent>,
    ) {
        let started_at = world.clock.now();
        let elapsed = || world.clock.now().saturating_duration_since(started_at);
        let mut totals = Totals::new(self.request.media);
        let mut calls = JoinSet::new();
        let answered_calls = Arc::new(AnsweredCalls::new());
        let mut progress = tokio::time::interval_at((started_at + PROGRESS).into(), PROGRESS);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let more = totals.attempted < self.request.calls && !stop.is_cancelled();
            if !more && calls.is_empty() {
                break;
            }
            let due = self.due(started_at, totals.attempted);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()), if more && calls.len() < LIVE_MAX => {
                    calls.spawn(run_call(world.clone(), self.call(totals.attempted, due), answered_calls.clone(), stop.clone()));
                    totals.attempted += 1;
                }
                Some(measurement) = calls.join_next(), if !calls.is_empty() => totals.add(&measurement.unwrap_or_default()),
                _ = progress.tick() => {
                    // A slow reader only misses progress reports.
                    let _ = report.try_send(LoadEvent::Progress(totals.progress(elapsed(), calls.len(), &answered_calls)));
                }
                () = stop.cancelled(), if more => {}
                () = world.stop.cancelled() => break,
                () = report.closed() => return,
            }
        }
        let _ = report.send(LoadEvent::Summary(totals.summary(elapsed(), &answered_calls))).await;
    }

    /// Due time of the call with index `nr`, from 0.
    fn due(&self, started_at: Instant, nr: u64) -> Instant {
        started_at + Duration::from_secs_f64(nr as f64 / self.request.rate)
    }

    fn call(&self, nr: u64, due: Instant) -> CallScript {
        let from = self.first_caller.saturating_add(nr).to_string();
        CallScript { from, due: Some(due), ..self.script.clone() }
    }
}

/// Runs one call to its end. When the load is stopped, an answered call hangs up immediately and an
/// unanswered one after a grace period.
async fn run_call(
    world: Arc<World>,
    script: CallScript,
    answered_calls: Arc<AnsweredCalls>,
    stop: CancellationToken,
) -> CallMeasurement {
    let mut events = world.place(script, None);
    let mut measurement = CallMeasurement::default();
    let mut answered_guard = None;
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::pin!(stopped);
    let mut hung_up = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => {
                    if event.kind == CallEventKind::Answered {
                        answered_guard.get_or_insert_with(|| AnsweredGuard::new(answered_calls.clone(), event.at));
                    }
                    measurement.record(event.at, event.kind);
                }
                None => return measurement,
            },
            () = stop.cancelled(), if !hung_up && measurement.answered.is_some() => {
                hung_up = true;
                events.control().hangup().await;
            }
            () = &mut stopped, if !hung_up => {
                hung_up = true;
                events.control().hangup().await;
            }
        }
    }
}

/// Counters of answered calls, updated while the calls are live.
struct AnsweredCalls {
    /// Calls that are answered and have not ended.
    live: AtomicU64,
    setup: Mutex<Latencies>,
}

impl AnsweredCalls {
    fn new() -> Self {
        Self { live: AtomicU64::new(0), setup: Mutex::new(Latencies::new()) }
    }
}

/// Counts one answered call until it is dropped.
struct AnsweredGuard(Arc<AnsweredCalls>);

impl AnsweredGuard {
    /// `setup` is the time from the call's due time to its answer.
    fn new(calls: Arc<AnsweredCalls>, setup: Duration) -> Self {
        calls.live.fetch_add(1, Ordering::Relaxed);
        locked(&calls.setup).add(Some(setup));
        Self(calls)
    }
}

impl Drop for AnsweredGuard {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        AnsweredCalls, AnsweredGuard, CallEventKind, CallMeasurement, HangupSource, LoadRequest,
        Totals, Verdict,
    };
    use crate::caller::CallOutcome;
    use std::sync::Arc;
    use std::time::Duration;

    fn measurement(media: bool, events: &[(u64, CallEventKind)]) -> (CallMeasurement, Verdict) {
        let mut measurement = CallMeasurement::default();
        for (ms, event) in events {
            measurement.record(Duration::from_millis(*ms), event.clone());
        }
        let verdict = measurement.verdict(media);
        (measurement, verdict)
    }

    fn placed() -> CallEventKind {
        CallEventKind::Placed {
            call_id: "w".into(),
            phone_number_id: "1".into(),
            from: "2".into(),
            to: "3".into(),
        }
    }

    fn webhook(kind: &str, status: u16) -> CallEventKind {
        CallEventKind::Webhook { kind: kind.into(), status }
    }

    fn ended(cause: &str) -> CallEventKind {
        CallEventKind::Ended(CallOutcome {
            cause: cause.into(),
            audio_gaps: 2,
            ..CallOutcome::default()
        })
    }

    #[test]
    fn classifies_calls_as_answered_rejected_or_failed() {
        let hangup = |by| CallEventKind::Hangup { by };
        let through = [
            (3, placed()),
            (5, webhook("connect", 200)),
            (6, CallEventKind::Ringing),
            (10, CallEventKind::Answered),
            (30, CallEventKind::MediaUp),
            (45, CallEventKind::FirstAudio),
            (900, hangup(HangupSource::Caller)),
            (901, webhook("terminate", 200)),
            (901, ended("caller_hangup")),
        ];
        assert_eq!(measurement(true, &through).1, Verdict::Answered);
        let without = |matches: fn(&CallEventKind) -> bool| {
            through.iter().filter(|(_, event)| !matches(event)).cloned().collect::<Vec<_>>()
        };
        let silent = without(|event| matches!(event, CallEventKind::MediaUp));
        assert_eq!(measurement(false, &silent).1, Verdict::Answered);
        assert_eq!(measurement(true, &silent).1, Verdict::Failed("media_not_up".into()));
        let gone = without(
            |event| matches!(event, CallEventKind::Webhook { kind, .. } if kind == "terminate"),
        );
        assert_eq!(measurement(true, &gone).1, Verdict::Failed("terminate_not_taken".into()));

        let refused = [(3, placed()), (9, hangup(HangupSource::Rejected)), (9, ended("rejected"))];
        assert_eq!(measurement(true, &refused).1, Verdict::Rejected);
        let late = [
            (3, placed()),
            (4, CallEventKind::Ringing),
            (9, hangup(HangupSource::Rejected)),
            (9, ended("rejected")),
        ];
        assert_eq!(measurement(true, &late).1, Verdict::Failed("rejected_later".into()));
        let no_call =
            CallEventKind::Refused { action: "pre_accept".into(), details: String::new() };
        let crossed = [
            (3, placed()),
            (9, hangup(HangupSource::Rejected)),
            (9, no_call),
            (9, ended("rejected")),
        ];
        assert_eq!(measurement(true, &crossed).1, Verdict::Failed("rejected_later".into()));
        let terminated =
            [(3, placed()), (9, hangup(HangupSource::Business)), (9, ended("rejected"))];
        assert_eq!(
            measurement(true, &terminated).1,
            Verdict::Failed("terminated_before_accept".into())
        );
        let wrong = CallEventKind::Refused { action: "accept".into(), details: String::new() };
        let wrongly = [
            (3, placed()),
            (8, wrong),
            (9, hangup(HangupSource::Business)),
            (9, ended("rejected")),
        ];
        assert_eq!(measurement(true, &wrongly).1, Verdict::Failed("accept_refused".into()));
        assert_eq!(
            measurement(true, &[(1, ended("no_node: nobody there"))]).1,
            Verdict::Failed("no_node".into())
        );
        assert_eq!(measurement(true, &[]).1, Verdict::Failed("broken_off".into()));

        let mut totals = Totals::new(true);
        totals.attempted = 2;
        totals.add(&measurement(true, &through).0);
        totals.add(&measurement(true, &refused).0);
        let near = |got: Option<f64>, ms: f64| got.is_some_and(|got| (got - ms).abs() < 0.02);
        let answered_calls = Arc::new(AnsweredCalls::new());
        assert_eq!(totals.progress(Duration::ZERO, 1, &answered_calls).setup_p50_ms, None);
        let one = AnsweredGuard::new(answered_calls.clone(), Duration::from_millis(10));
        let live = totals.progress(Duration::ZERO, 1, &answered_calls);
        assert!(
            live.answered == 2 && near(live.setup_p50_ms, 10.0),
            "from the answer on: {live:?}"
        );
        drop(one);
        assert_eq!(totals.progress(Duration::ZERO, 0, &answered_calls).answered, 1);
        let summary = totals.summary(Duration::from_millis(1_500), &answered_calls);
        assert_eq!(
            (summary.answered, summary.rejected, summary.failed, summary.audio_gaps),
            (1, 1, 0, 4)
        );
        assert_eq!(summary.wall_s, 1.5);
        assert!(
            near(summary.setup_ms.p50, 10.0) && near(summary.setup_ms.max, 10.0),
            "{:?}",
            summary.setup_ms
        );
        assert!(near(summary.first_audio_ms.p99, 15.0), "from the moment the path was up");
        assert!(near(summary.webhook_ms.p50, 2.0) && near(summary.late_ms.max, 3.0));
        assert!(near(summary.reject_ms.p50, 6.0) && summary.redelivered == 0);
        let again = [
            (3, placed()),
            (4, webhook("connect", 503)),
            (9, webhook("connect", 200)),
            (12, hangup(HangupSource::Rejected)),
        ];
        totals.add(&measurement(true, &again).0);
        let summary = totals.summary(Duration::ZERO, &answered_calls);
        assert_eq!((summary.redelivered, summary.rejected), (1, 2));
        assert!(
            near(summary.webhook_ms.max, 6.0) && near(summary.reject_ms.max, 9.0),
            "the pause counts"
        );
    }

    #[test]
    fn percentiles_are_null_without_measurements() {
        let summary = Totals::new(false).summary(Duration::ZERO, &AnsweredCalls::new());
        assert_eq!(summary.first_audio_ms.p50, None);
        let line = serde_json::to_value(super::LoadEvent::Summary(summary)).expect("JSON");
        assert_eq!(line["event"], "summary");
        assert!(line["first_audio_ms"]["p50"].is_null());
    }

    #[test]
    fn rejects_a_load_out_of_bounds() {
        let request = |rate, calls| LoadRequest { rate, calls, ..LoadRequest::default() }.check();
        assert!(request(0.5, 1).is_ok());
        for (rate, calls) in
            [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (1.0, 0), (1.0, 10_000_001)]
        {
            assert!(request(rate, calls).is_err(), "{rate} {calls}");
        }
    }
}
