//! Sends callbacks that nothing waits for, few at once to each host, so that a dead endpoint delays no other (R4).
//!
//! What is asked for is one stage of one callback: at first the attempts that the URL's fragment allows, later, for
//! callbacks worth it, a single one at each time of `schedule`. What waits, in which order and until when is the
//! outbox's business (`call::outbox`), not ours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use super::ask::{Event, Question, Tried};
use super::dice::Dice;
use super::fragment::Settings;
use super::hops::Hops;
use super::sign::SigningKeys;
use super::{params, schedule};
use egress::{BodyPolicy, CustomerUrl, Egress};
use machine::{CallbackKind, CallbackRequest, EVENT_BODY, Param};
use model::CallUuid;
use model::Clock;
use model::Secret;
use model::metric;

/// A callback to be sent now.
#[derive(Clone, Debug)]
pub struct NoticeJob {
    pub call: CallUuid,
    pub notice: CallbackRequest,
    pub keys: SigningKeys,
    /// The webhook's, newest first, where it is an event.
    pub secrets: Arc<[Secret]>,
    /// The same on every attempt.
    pub event_id: Uuid,
    /// Attempts made before, in all stages.
    pub attempts: u32,
    /// Retries of the schedule begun; 0: the first stage, as the URL's fragment has it.
    pub retries: u32,
    /// Since when its 24 hours run.
    pub age: Duration,
    /// Told what each request takes.
    pub hops: Hops,
}

/// What became of a callback, for now or for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// A 2xx.
    Delivered { status: u16 },
    /// Not this time; to be tried again after that pause.
    Retry { why: String, after: Duration },
    /// Given up.
    Failed { why: String },
}

impl NoticeOutcome {
    /// `outcome` of `offhook_callback_total`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => metric::delivery::DELIVERED,
            Self::Retry { .. } => metric::delivery::RETRY,
            Self::Failed { .. } => metric::delivery::FAILED,
        }
    }
}

/// How one stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts made so far, in all stages.
    pub attempts: u32,
    pub outcome: NoticeOutcome,
}

/// Requests at once to one host (R4).
pub const AT_ONCE_PER_HOST: usize = 32;
/// Hosts remembered without work.
const IDLE_HOSTS: usize = 1_024;

/// Sends callbacks; cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    egress: Egress,
    clock: Clock,
    dice: Dice,
    at_once_per_host: usize,
    /// Places at each origin; the living ones belong to those who wait or send.
    places: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Notifier {
    /// At most `at_once_per_host` requests to each host ([`AT_ONCE_PER_HOST`] but in tests).
    pub fn new(egress: Egress, clock: Clock, dice: Dice, at_once_per_host: usize) -> Self {
        Self(Arc::new(Inner { egress, clock, dice, at_once_per_host, places: Mutex::default() }))
    }

    /// Whose queue a URL stands in: scheme, host and port; empty for a URL that is refused.
    pub fn origin(&self, url: &str) -> String {
        self.0.egress.url(url).map(|url| url.origin()).unwrap_or_default()
    }

    /// Waits for a place at the host and makes the attempts of one stage. Dropping the future gives it up.
    pub async fn deliver(&self, job: &NoticeJob) -> Delivery {
        let delivery = match self.0.egress.url(&job.notice.url.0) {
            Ok(url) => {
                let places = self.0.places_at(url.origin());
                // Never closed.
                let _place = places.acquire().await;
                self.0.stage(job, &url).await
            }
            Err(refusal) => Delivery {
                attempts: job.attempts,
                outcome: NoticeOutcome::Failed { why: refusal.to_string() },
            },
        };
        report(job, &delivery);
        delivery
    }

    /// What becomes of a callback whose [`Notifier::deliver`] is dropped because the node stops: what was under way is an
    /// attempt that failed, as it would be had the network broken. None: it waited still, and nothing has happened.
    pub fn cut_off(&self, job: &NoticeJob) -> Option<Delivery> {
        let attempts = job.hops.so_far().last()?.attempt;
        let again = if is_lasting(job.notice.kind) {
            schedule::next_pause(job.retries.saturating_add(1), job.age, None, &self.0.dice)
        } else {
            // What its URL allows past this one comes after the start.
            let url = self.0.egress.url(&job.notice.url.0).ok().filter(|_| job.retries == 0);
            let retries = url.map_or(0, |url| Settings::of(url.fragment()).0.retries);
            (attempts.saturating_sub(job.attempts) <= retries).then_some(Duration::ZERO)
        };
        let why = "the node stopped while it was under way".to_owned();
        let outcome = match again {
            Some(after) => NoticeOutcome::Retry { why, after },
            None => NoticeOutcome::Failed { why },
        };
        let delivery = Delivery { attempts, outcome };
        report(job, &delivery);
        Some(delivery)
    }
}

impl Inner {
    fn places_at(&self, origin: String) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = places.get(&origin).and_then(Weak::upgrade) {
            return there;
        }
        if places.len() >= IDLE_HOSTS {
            places.retain(|_, there| there.strong_count() > 0);
        }
        let fresh = Arc::new(Semaphore::new(self.at_once_per_host));
        places.insert(origin, Arc::downgrade(&fresh));
        fresh
    }

    async fn stage(&self, job: &NoticeJob, url: &CustomerUrl) -> Delivery {
        let (mut settings, passed_over) = Settings::of(url.fragment());
        if job.retries > 0 {
            settings.retries = 0;
        } else if !passed_over.is_empty() {
            tracing::info!(?passed_over, call_uuid = %job.call, "settings in a URL's fragment are not as they should be");
        }
        let json = match job.notice.kind {
            CallbackKind::Event => job.notice.params.get(EVENT_BODY).map(Param::reveal),
            _ => None,
        };
        let question = Question {
            url,
            method: job.notice.method,
            pairs: &if json.is_some() { Vec::new() } else { params::pairs(&job.notice.params) },
            keys: &job.keys,
            event: json.map(|json| Event { json, secrets: &job.secrets }),
            event_id: job.event_id,
            accept: "*/*",
            body_policy: BodyPolicy::Discard,
            trace: job.call.into(),
            hops: &job.hops,
            clock: &self.clock,
        };
        let tried = question.ask(&self.egress, &self.dice, &settings, job.attempts).await;
        Delivery { attempts: tried.attempts, outcome: self.judge(job, tried) }
    }

    /// What an outcome of the attempts means for the callback.
    fn judge(&self, job: &NoticeJob, tried: Tried) -> NoticeOutcome {
        let (why, passing, asked) = match tried.outcome {
            Ok(answer) if answer.status.is_success() => {
                return NoticeOutcome::Delivered { status: answer.status.as_u16() };
            }
            Ok(answer) => {
                let asked = schedule::retry_after(&answer.headers, self.clock.wall());
                (
                    format!("the answer was {}", answer.status.as_u16()),
                    schedule::is_passing(answer.status),
                    asked,
                )
            }
            Err(error) => (format!("could not {error}"), schedule::is_network(&error), None),
        };
        let again = passing && is_lasting(job.notice.kind);
        let pause = again.then(|| {
            schedule::next_pause(job.retries.saturating_add(1), job.age, asked, &self.dice)
        });
        match pause.flatten() {
            Some(after) => NoticeOutcome::Retry { why, after },
            None => NoticeOutcome::Failed { why },
        }
    }
}

/// Counted and logged. Numbers and tokens stay out.
fn report(job: &NoticeJob, delivery: &Delivery) {
    let (kind, attempts) = (job.notice.kind.as_str(), delivery.attempts);
    metrics::counter!(metric::CALLBACK_TOTAL, "kind" => kind, "outcome" => delivery.outcome.as_str()).increment(1);
    match &delivery.outcome {
        NoticeOutcome::Delivered { status } => {
            tracing::debug!(call_uuid = %job.call, kind, attempts, status, "a callback was delivered");
        }
        NoticeOutcome::Retry { why, after } => {
            tracing::info!(call_uuid = %job.call, kind, attempts, why, ?after, "a callback will be tried again");
        }
        NoticeOutcome::Failed { why } => {
            tracing::warn!(call_uuid = %job.call, kind, attempts, why, "a callback was given up; see `offhook callbacks`");
        }
    }
}

/// Whether a callback is still worth delivering later (`plivo-callbacks.md` §4.3).
fn is_lasting(kind: CallbackKind) -> bool {
    match kind {
        CallbackKind::Hangup
        | CallbackKind::Ring
        | CallbackKind::Recording
        | CallbackKind::Transcription
        | CallbackKind::Message
        | CallbackKind::Event => true,
        CallbackKind::Action
        | CallbackKind::Dial
        | CallbackKind::Conference
        | CallbackKind::MultiParty
        | CallbackKind::Interim
        | CallbackKind::Stream => false,
    }
}
