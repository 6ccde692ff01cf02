//! Load: calls at a steady rate, whatever becomes of those before, and what was measured of them.
//!
//! Arrivals are open-loop: a call is due at its time, and its latencies count from then, also where this process or
//! the bound on live calls let it begin later (coordinated omission). `control` offers it to other processes as
//! `/_sim/load`; `cli::load` prints it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::caller::{CallScript, Happened, HungUpBy, PhoneKind};
use super::control::CallOrder;
use super::{World, locked};

/// Calls begun a second at most.
pub const RATE_MAX: f64 = 10_000.0;
/// Calls of one load at most.
pub const CALLS_MAX: u64 = 10_000_000;
/// Calls that live at once; past it due ones wait, and their wait counts.
const LIVE_MAX: usize = 20_000;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long calls that nobody answered yet may go on after the load was stopped.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Words for failures that are counted one by one.
const CAUSES_MAX: usize = 32;
/// Latencies are kept in microseconds, up to an hour, to three digits.
const LATENCY_MAX_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// `POST /_sim/load`: what a load is to be.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadOrder {
    /// Chosen by who asks; names the load when it is stopped.
    pub id: String,
    /// Calls begun a second.
    pub rate: f64,
    /// Calls in all.
    pub calls: u64,
    /// Real media on every call; else signalling only.
    pub media: bool,
    /// What each call is like; its `hold_s` and where it goes. Callers' numbers count up from `from`.
    pub call: CallOrder,
}

impl LoadOrder {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// Which of its figures is out of bounds, and what they are.
    pub fn check(&self) -> Result<(), String> {
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return Err(format!(
                "a rate of {} is not more than 0 and at most {RATE_MAX} calls a second",
                self.rate
            ));
        }
        if !(1..=CALLS_MAX).contains(&self.calls) {
            return Err(format!("{} calls is not between 1 and {CALLS_MAX}", self.calls));
        }
        Ok(())
    }
}

/// One line of a load's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    Progress(Progress),
    /// The last one, once.
    Summary(Summary),
}

/// How far a load is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub wall_s: f64,
    /// Calls begun so far, and what became of them; the last two tell of those that are over.
    pub attempted: u64,
    /// From the answer on.
    pub answered: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Calls going on.
    pub live: u64,
    /// Set-up of the calls that were answered so far, in milliseconds.
    pub setup_p50_ms: Option<f64>,
}

/// What a load came to. `attempted` is the sum of the three after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub attempted: u64,
    /// Accepted and gone through, with media where media was asked for.
    pub answered: u64,
    /// Refused at Graph before anything else was done: a limit of the node's own.
    pub rejected: u64,
    pub failed: u64,
    /// From the moment a call was due to `accept`.
    pub setup_ms: Percentiles,
    /// From the moment the caller could hear, accepted and connected, to the first sound.
    pub first_audio_ms: Percentiles,
    /// Places where the caller missed more than 100 ms, of all calls.
    pub audio_gaps: u64,
    pub wall_s: f64,
    /// From the connect webhook to its 200.
    pub webhook_ms: Percentiles,
    /// How late this generator itself was: from the moment a call was due to its webhook.
    pub late_ms: Percentiles,
    /// From the connect webhook to the reject at Graph, of the calls that were rejected.
    #[serde(default)]
    pub reject_ms: Percentiles,
    /// Connect webhooks answered 503, and brought again.
    #[serde(default)]
    pub come_again: u64,
    /// Why calls failed, in words.
    pub causes: BTreeMap<String, u64>,
}

/// Milliseconds; none where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// Durations of one kind.
#[derive(Clone, Debug)]
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        // Never fails for these figures; a histogram that grows by itself would do as well.
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

/// What was seen of one call; times count from when it was due.
#[derive(Clone, Debug, Default)]
struct Seen {
    placed: Option<Duration>,
    webhook: Option<Duration>,
    /// Tries of it that were answered 503.
    come_again: u64,
    rejected: Option<Duration>,
    /// Taken, or too late.
    pre_accepted: bool,
    /// Graph did not take the answer that `accept` brought.
    accept_refused: bool,
    answered: Option<Duration>,
    media_up: Option<Duration>,
    media_failed: bool,
    first_audio: Option<Duration>,
    hung_up: Option<HungUpBy>,
    terminate_taken: bool,
    audio_gaps: u64,
    cause: String,
}

/// What became of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Rejected,
    Failed(String),
}

impl Seen {
    fn take(&mut self, at: Duration, what: Happened) {
        match what {
            Happened::Placed { .. } => self.placed = Some(at),
            Happened::Webhook { kind, status } => {
                let taken = (200..300).contains(&status);
                match kind.as_str() {
                    "connect" if taken => self.webhook = Some(at),
                    "connect" if status == 503 => self.come_again += 1,
                    "terminate" => self.terminate_taken |= taken,
                    _ => {}
                }
            }
            Happened::Ringing => self.pre_accepted = true,
            Happened::Refused { action, .. } => {
                self.pre_accepted |= action == "pre_accept";
                self.accept_refused |= action == "accept";
            }
            Happened::Answered => self.answered = Some(at),
            Happened::MediaUp => self.media_up = Some(at),
            Happened::MediaFailed { .. } => self.media_failed = true,
            Happened::FirstAudio => self.first_audio = Some(at),
            Happened::Hangup { by } => {
                self.rejected = (by == HungUpBy::Rejected).then_some(at);
                self.hung_up = Some(by);
            }
            Happened::Ended(ended) => {
                self.audio_gaps = ended.audio_gaps;
                self.cause = ended.cause;
            }
            Happened::Verified
            | Happened::Instruction { .. }
            | Happened::DigitSent { .. }
            | Happened::DigitHeard { .. }
            | Happened::Recording { .. } => {}
        }
    }

    fn outcome(&self, media: bool) -> Outcome {
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        match (self.answered, self.hung_up) {
            (Some(_), _) if media && self.media_failed => failed("media_failed"),
            (Some(_), _) if media && self.media_up.is_none() => failed("media_not_up"),
            (Some(_), _) if !self.terminate_taken => failed("terminate_not_taken"),
            (Some(_), _) => Outcome::Answered,
            // After pre_accept it is no limit that speaks, but an application or a fault.
            (None, Some(HungUpBy::Rejected)) if !self.pre_accepted => Outcome::Rejected,
            (None, Some(HungUpBy::Rejected)) => failed("rejected_later"),
            (None, Some(HungUpBy::Business)) if self.accept_refused => failed("accept_refused"),
            (None, Some(HungUpBy::Business)) => failed("terminated_before_accept"),
            (None, _) if self.cause.is_empty() => failed("broken_off"),
            (None, _) => {
                Outcome::Failed(self.cause.split(':').next().unwrap_or_default().to_owned())
            }
        }
    }
}

/// What all calls came to so far.
struct Tally {
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
    come_again: u64,
    causes: BTreeMap<String, u64>,
}

impl Tally {
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
            come_again: 0,
            causes: BTreeMap::new(),
        }
    }

    fn add(&mut self, seen: &Seen) {
        match seen.outcome(self.media) {
            Outcome::Answered => self.answered += 1,
            Outcome::Rejected => self.rejected += 1,
            Outcome::Failed(why) => {
                self.failed += 1;
                let room = self.causes.len() < CAUSES_MAX || self.causes.contains_key(&why);
                *self.causes.entry(if room { why } else { "other".to_owned() }).or_default() += 1;
            }
        }
        self.audio_gaps += seen.audio_gaps;
        self.late.add(seen.placed);
        self.webhook
            .add(seen.webhook.zip(seen.placed).map(|(taken, placed)| taken.saturating_sub(placed)));
        self.reject.add(
            seen.rejected
                .zip(seen.placed)
                .map(|(rejected, placed)| rejected.saturating_sub(placed)),
        );
        self.come_again += seen.come_again;
        // Both, or nobody could hear.
        let could_hear = seen.answered.zip(seen.media_up).map(|(answered, up)| answered.max(up));
        self.first_audio.add(
            seen.first_audio.zip(could_hear).map(|(heard, could)| heard.saturating_sub(could)),
        );
    }

    /// `taken`: a call counts from its answer on, and not only when it is over.
    fn progress(&self, wall: Duration, live: usize, taken: &Taken) -> Progress {
        Progress {
            wall_s: seconds(wall),
            attempted: self.attempted,
            answered: self.answered + taken.talking.load(Ordering::Relaxed),
            rejected: self.rejected,
            failed: self.failed,
            live: u64::try_from(live).unwrap_or(u64::MAX),
            setup_p50_ms: locked(&taken.setup).at(0.5),
        }
    }

    fn summary(&self, wall: Duration, taken: &Taken) -> Summary {
        Summary {
            attempted: self.attempted,
            answered: self.answered,
            rejected: self.rejected,
            failed: self.failed,
            setup_ms: locked(&taken.setup).percentiles(),
            first_audio_ms: self.first_audio.percentiles(),
            audio_gaps: self.audio_gaps,
            wall_s: seconds(wall),
            webhook_ms: self.webhook.percentiles(),
            late_ms: self.late.percentiles(),
            reject_ms: self.reject.percentiles(),
            come_again: self.come_again,
            causes: self.causes.clone(),
        }
    }
}

fn seconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// A load that is to be run.
pub(crate) struct Load {
    order: LoadOrder,
    /// Every call is this one, but for its caller and its time.
    script: CallScript,
    /// The first caller's number; the others' count up from it.
    first_caller: u64,
}

impl Load {
    /// `script` is what `order.call` asks for.
    pub(crate) fn new(order: LoadOrder, script: CallScript) -> Self {
        let phone = if order.media { PhoneKind::Counting } else { PhoneKind::Deaf };
        let first_caller = script.from.parse().unwrap_or(0);
        Self { order, script: CallScript { phone, ..script }, first_caller }
    }

    /// Places the calls and reports; ends when all are over. Whoever drops the reader ends them.
    pub(crate) async fn run(
        self,
        world: Arc<World>,
        stop: CancellationToken,
        report: mpsc::Sender<LoadEvent>,
    ) {
        let begun = world.clock.now();
        let passed = || world.clock.now().saturating_duration_since(begun);
        let mut tally = Tally::new(self.order.media);
        let mut calls = JoinSet::new();
        let taken = Arc::new(Taken::new());
        let mut progress = tokio::time::interval_at((begun + PROGRESS).into(), PROGRESS);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let more = tally.attempted < self.order.calls && !stop.is_cancelled();
            if !more && calls.is_empty() {
                break;
            }
            let due = self.due(begun, tally.attempted);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()), if more && calls.len() < LIVE_MAX => {
                    calls.spawn(watch(world.clone(), self.call(tally.attempted, due), taken.clone(), stop.clone()));
                    tally.attempted += 1;
                }
                Some(seen) = calls.join_next(), if !calls.is_empty() => tally.add(&seen.unwrap_or_default()),
                _ = progress.tick() => {
                    // A reader who is slow misses progress, no more.
                    let _ = report.try_send(LoadEvent::Progress(tally.progress(passed(), calls.len(), &taken)));
                }
                () = stop.cancelled(), if more => {}
                () = world.stop.cancelled() => break,
                () = report.closed() => return,
            }
        }
        let _ = report.send(LoadEvent::Summary(tally.summary(passed(), &taken))).await;
    }

    /// When call number `nr`, from 0, is due.
    fn due(&self, begun: Instant, nr: u64) -> Instant {
        begun + Duration::from_secs_f64(nr as f64 / self.order.rate)
    }

    fn call(&self, nr: u64, due: Instant) -> CallScript {
        let from = self.first_caller.saturating_add(nr).to_string();
        CallScript { from, due: Some(due), ..self.script.clone() }
    }
}

/// One call, from its placing to its end. A stop hangs up, and gives those not yet answered a little time.
async fn watch(
    world: Arc<World>,
    script: CallScript,
    taken: Arc<Taken>,
    stop: CancellationToken,
) -> Seen {
    let mut events = world.place(script, None);
    let mut seen = Seen::default();
    let mut talks = None;
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
                    if event.what == Happened::Answered {
                        talks.get_or_insert_with(|| Talking::begin(taken.clone(), event.at));
                    }
                    seen.take(event.at, event.what);
                }
                None => return seen,
            },
            () = stop.cancelled(), if !hung_up && seen.answered.is_some() => {
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

/// What is known of calls from their answer on, while they last.
struct Taken {
    /// Those that are answered and not over.
    talking: AtomicU64,
    setup: Mutex<Latencies>,
}

impl Taken {
    fn new() -> Self {
        Self { talking: AtomicU64::new(0), setup: Mutex::new(Latencies::new()) }
    }
}

/// Counts one call that is answered and not over.
struct Talking(Arc<Taken>);

impl Talking {
    /// `setup`: from the moment it was due.
    fn begin(all: Arc<Taken>, setup: Duration) -> Self {
        all.talking.fetch_add(1, Ordering::Relaxed);
        locked(&all.setup).add(Some(setup));
        Self(all)
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.0.talking.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Happened, HungUpBy, LoadOrder, Outcome, Seen, Taken, Talking, Tally};
    use crate::caller::Ended;
    use std::sync::Arc;
    use std::time::Duration;

    fn seen(media: bool, events: &[(u64, Happened)]) -> (Seen, Outcome) {
        let mut seen = Seen::default();
        for (ms, what) in events {
            seen.take(Duration::from_millis(*ms), what.clone());
        }
        let outcome = seen.outcome(media);
        (seen, outcome)
    }

    fn placed() -> Happened {
        Happened::Placed {
            call_id: "w".into(),
            phone_number_id: "1".into(),
            from: "2".into(),
            to: "3".into(),
        }
    }

    fn webhook(kind: &str, status: u16) -> Happened {
        Happened::Webhook { kind: kind.into(), status }
    }

    fn ended(cause: &str) -> Happened {
        Happened::Ended(Ended { cause: cause.into(), audio_gaps: 2, ..Ended::default() })
    }

    #[test]
    fn a_call_is_answered_rejected_or_failed() {
        let hangup = |by| Happened::Hangup { by };
        let through = [
            (3, placed()),
            (5, webhook("connect", 200)),
            (6, Happened::Ringing),
            (10, Happened::Answered),
            (30, Happened::MediaUp),
            (45, Happened::FirstAudio),
            (900, hangup(HungUpBy::Caller)),
            (901, webhook("terminate", 200)),
            (901, ended("caller_hangup")),
        ];
        assert_eq!(seen(true, &through).1, Outcome::Answered);
        let without = |word: fn(&Happened) -> bool| {
            through.iter().filter(|(_, what)| !word(what)).cloned().collect::<Vec<_>>()
        };
        let silent = without(|what| matches!(what, Happened::MediaUp));
        assert_eq!(seen(false, &silent).1, Outcome::Answered);
        assert_eq!(seen(true, &silent).1, Outcome::Failed("media_not_up".into()));
        let gone =
            without(|what| matches!(what, Happened::Webhook { kind, .. } if kind == "terminate"));
        assert_eq!(seen(true, &gone).1, Outcome::Failed("terminate_not_taken".into()));

        let refused = [(3, placed()), (9, hangup(HungUpBy::Rejected)), (9, ended("rejected"))];
        assert_eq!(seen(true, &refused).1, Outcome::Rejected);
        let late = [
            (3, placed()),
            (4, Happened::Ringing),
            (9, hangup(HungUpBy::Rejected)),
            (9, ended("rejected")),
        ];
        assert_eq!(seen(true, &late).1, Outcome::Failed("rejected_later".into()));
        let no_call = Happened::Refused { action: "pre_accept".into(), details: String::new() };
        let crossed =
            [(3, placed()), (9, hangup(HungUpBy::Rejected)), (9, no_call), (9, ended("rejected"))];
        assert_eq!(seen(true, &crossed).1, Outcome::Failed("rejected_later".into()));
        let terminated = [(3, placed()), (9, hangup(HungUpBy::Business)), (9, ended("rejected"))];
        assert_eq!(seen(true, &terminated).1, Outcome::Failed("terminated_before_accept".into()));
        let wrong = Happened::Refused { action: "accept".into(), details: String::new() };
        let wrongly =
            [(3, placed()), (8, wrong), (9, hangup(HungUpBy::Business)), (9, ended("rejected"))];
        assert_eq!(seen(true, &wrongly).1, Outcome::Failed("accept_refused".into()));
        assert_eq!(
            seen(true, &[(1, ended("no_node: nobody there"))]).1,
            Outcome::Failed("no_node".into())
        );
        assert_eq!(seen(true, &[]).1, Outcome::Failed("broken_off".into()));

        let mut tally = Tally::new(true);
        tally.attempted = 2;
        tally.add(&seen(true, &through).0);
        tally.add(&seen(true, &refused).0);
        let near = |got: Option<f64>, ms: f64| got.is_some_and(|got| (got - ms).abs() < 0.02);
        let taken = Arc::new(Taken::new());
        assert_eq!(tally.progress(Duration::ZERO, 1, &taken).setup_p50_ms, None);
        let one = Talking::begin(taken.clone(), Duration::from_millis(10));
        let live = tally.progress(Duration::ZERO, 1, &taken);
        assert!(
            live.answered == 2 && near(live.setup_p50_ms, 10.0),
            "from the answer on: {live:?}"
        );
        drop(one);
        assert_eq!(tally.progress(Duration::ZERO, 0, &taken).answered, 1);
        let summary = tally.summary(Duration::from_millis(1_500), &taken);
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
        assert!(near(summary.reject_ms.p50, 6.0) && summary.come_again == 0);
        let again = [
            (3, placed()),
            (4, webhook("connect", 503)),
            (9, webhook("connect", 200)),
            (12, hangup(HungUpBy::Rejected)),
        ];
        tally.add(&seen(true, &again).0);
        let summary = tally.summary(Duration::ZERO, &taken);
        assert_eq!((summary.come_again, summary.rejected), (1, 2));
        assert!(
            near(summary.webhook_ms.max, 6.0) && near(summary.reject_ms.max, 9.0),
            "the pause counts"
        );
    }

    #[test]
    fn nothing_measured_is_no_figure() {
        let summary = Tally::new(false).summary(Duration::ZERO, &Taken::new());
        assert_eq!(summary.first_audio_ms.p50, None);
        let line = serde_json::to_value(super::LoadEvent::Summary(summary)).expect("JSON");
        assert_eq!(line["event"], "summary");
        assert!(line["first_audio_ms"]["p50"].is_null());
    }

    #[test]
    fn an_order_has_bounds() {
        let order = |rate, calls| LoadOrder { rate, calls, ..LoadOrder::default() }.check();
        assert!(order(0.5, 1).is_ok());
        for (rate, calls) in
            [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (1.0, 0), (1.0, 10_000_001)]
        {
            assert!(order(rate, calls).is_err(), "{rate} {calls}");
        }
    }
}
