//! Delivers callbacks, with a limit of concurrent requests per host, so that an unresponsive host
//! delays no other. Accounts with the same host take turns.
//!
//! A job is one stage of one callback: first the attempts that the URL's fragment allows, later a
//! single attempt at each time of `schedule`. The outbox (`call::outbox`) decides which callback is
//! delivered when, and for how long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::fragment::Settings;
use super::hops::Hops;
use super::random::RandomSource;
use super::request::{Attempts, Event, UrlRequest};
use super::sign::SigningKeys;
use super::{params, schedule};
use egress::{BodyPolicy, CustomerUrl, Egress, FairPermits};
use machine::{CallbackKind, CallbackRequest, EVENT_BODY, Param};
use model::Clock;
use model::Secret;
use model::metric;
use model::{AuthId, CallUuid};

/// A callback to deliver now.
#[derive(Clone, Debug)]
pub struct CallbackJob {
    pub call: CallUuid,
    /// The main account of the call, which others of the host take turns with.
    pub main_account: AuthId,
    pub notice: CallbackRequest,
    pub keys: SigningKeys,
    /// The webhook's secrets, newest first. Only set for an event.
    pub secrets: Arc<[Secret]>,
    /// The id of the event, identical in every attempt.
    pub event_id: Uuid,
    /// Number of attempts made in earlier stages.
    pub attempts: u32,
    /// Number of scheduled retries begun. 0 is the first stage, with the attempts of the URL's
    /// fragment.
    pub retries: u32,
    /// Time since the callback was created, which counts towards its 24 hours.
    pub age: Duration,
    /// Records the duration of each request.
    pub hops: Hops,
}

/// The result of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The callback was delivered, with a 2xx status.
    Delivered { status: u16 },
    /// The stage failed. The callback is retried after the pause.
    Retry { why: String, after: Duration },
    /// The callback was given up.
    Failed { why: String },
}

impl CallbackOutcome {
    /// The `outcome` label of `offhook_callback_total`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => metric::delivery::DELIVERED,
            Self::Retry { .. } => metric::delivery::RETRY,
            Self::Failed { .. } => metric::delivery::FAILED,
        }
    }
}

/// The end of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Number of attempts so far, in all stages.
    pub attempts: u32,
    pub outcome: CallbackOutcome,
}

/// Maximum number of concurrent requests of a main account to a host. All accounts together have
/// half as many more.
pub const AT_ONCE_PER_HOST: usize = 32;
/// Number of remembered hosts at which idle ones are dropped.
const IDLE_HOSTS: usize = 1_024;

/// Delivers callbacks; cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    egress: Egress,
    clock: Clock,
    random: RandomSource,
    at_once_per_host: usize,
    /// The permits of each origin with a delivery that waits or runs there.
    places: Mutex<HashMap<String, Arc<FairPermits<AuthId>>>>,
}

impl Notifier {
    /// Creates a notifier with at most `at_once_per_host` concurrent requests of an account per host
    /// ([`AT_ONCE_PER_HOST`] except in tests).
    pub fn new(
        egress: Egress,
        clock: Clock,
        random: RandomSource,
        at_once_per_host: usize,
    ) -> Self {
        Self(Arc::new(Inner { egress, clock, random, at_once_per_host, places: Mutex::default() }))
    }

    /// The origin of a URL (scheme, host and port). Empty if the URL is refused.
    pub fn origin(&self, url: &str) -> String {
        self.0.egress.url(url).map(|url| url.origin()).unwrap_or_default()
    }

    /// Waits for a place at the host and makes the attempts of one stage. Dropping the future
    /// cancels it.
    pub async fn deliver(&self, job: &CallbackJob) -> Delivery {
        let delivery = match self.0.egress.url(&job.notice.url.0) {
            Ok(url) => {
                let places = self.0.places_at(url.origin());
                let _place = places.acquire(&job.main_account).await;
                self.0.stage(job, &url).await
            }
            Err(refusal) => Delivery {
                attempts: job.attempts,
                outcome: CallbackOutcome::Failed { why: refusal.to_string() },
            },
        };
        report(job, &delivery);
        delivery
    }

    /// The result of a [`Notifier::deliver`] that is cancelled because the node stops. A request in
    /// progress counts as a failed attempt. Returns `None` if no request was made yet.
    pub fn cut_off(&self, job: &CallbackJob) -> Option<Delivery> {
        let attempts = job.hops.so_far().last()?.attempt;
        let again = if is_lasting(job.notice.kind) {
            schedule::next_pause(job.retries.saturating_add(1), job.age, None, &self.0.random)
        } else {
            // The remaining attempts of its URL are made after the restart.
            let url = self.0.egress.url(&job.notice.url.0).ok().filter(|_| job.retries == 0);
            let retries = url.map_or(0, |url| Settings::of(url.fragment()).0.retries);
            (attempts.saturating_sub(job.attempts) <= retries).then_some(Duration::ZERO)
        };
        let why = "the node stopped during the request".to_owned();
        let outcome = match again {
            Some(after) => CallbackOutcome::Retry { why, after },
            None => CallbackOutcome::Failed { why },
        };
        let delivery = Delivery { attempts, outcome };
        report(job, &delivery);
        Some(delivery)
    }
}

impl Inner {
    fn places_at(&self, origin: String) -> Arc<FairPermits<AuthId>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= IDLE_HOSTS {
            places.retain(|_, there| Arc::strong_count(there) > 1);
        }
        let each = self.at_once_per_host;
        let fresh = || Arc::new(FairPermits::new(each + each.div_ceil(2), each));
        places.entry(origin).or_insert_with(fresh).clone()
    }

    async fn stage(&self, job: &CallbackJob, url: &CustomerUrl) -> Delivery {
        // As at Plivo, the status of a stream is reported with the defaults.
        let fragment = url.fragment().filter(|_| job.notice.kind != CallbackKind::Stream);
        let (mut settings, invalid) = Settings::of(fragment);
        if job.retries > 0 {
            settings.retries = 0;
        } else if !invalid.is_empty() {
            tracing::info!(invalid = invalid.join(" "), call_uuid = %job.call, "invalid settings in a URL's fragment ignored");
        }
        let json = match job.notice.kind {
            CallbackKind::Event => job.notice.params.get(EVENT_BODY).map(Param::reveal),
            _ => None,
        };
        let request = UrlRequest {
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
        let egress = self.egress.of(job.main_account.as_str());
        let ended = request.send(&egress, &self.random, &settings, job.attempts).await;
        Delivery { attempts: ended.attempts, outcome: self.evaluate(job, ended) }
    }

    /// Decides between delivered, retry and giving up.
    fn evaluate(&self, job: &CallbackJob, ended: Attempts) -> CallbackOutcome {
        let (why, passing, asked) = match ended.outcome {
            Ok(answer) if answer.status.is_success() => {
                return CallbackOutcome::Delivered { status: answer.status.as_u16() };
            }
            Ok(answer) => {
                let asked = schedule::retry_after(&answer.headers, self.clock.wall());
                (
                    format!("the response status was {}", answer.status.as_u16()),
                    schedule::is_temporary(answer.status),
                    asked,
                )
            }
            Err(error) => (error.to_string(), schedule::is_network(&error), None),
        };
        let again = passing && is_lasting(job.notice.kind);
        let pause = again.then(|| {
            schedule::next_pause(job.retries.saturating_add(1), job.age, asked, &self.random)
        });
        match pause.flatten() {
            Some(after) => CallbackOutcome::Retry { why, after },
            None => CallbackOutcome::Failed { why },
        }
    }
}

/// Counts and logs the result, without phone numbers and tokens.
fn report(job: &CallbackJob, delivery: &Delivery) {
    let (kind, attempts) = (job.notice.kind.as_str(), delivery.attempts);
    let label = job.notice.kind.metric_label();
    metrics::counter!(metric::CALLBACK_TOTAL, "kind" => label, "outcome" => delivery.outcome.as_str()).increment(1);
    match &delivery.outcome {
        CallbackOutcome::Delivered { status } => {
            tracing::debug!(call_uuid = %job.call, kind, attempts, status, "callback delivered");
        }
        CallbackOutcome::Retry { why, after } => {
            tracing::info!(call_uuid = %job.call, kind, attempts, why, ?after, "callback will be retried");
        }
        CallbackOutcome::Failed { why } => {
            tracing::warn!(call_uuid = %job.call, kind, attempts, why, "callback gave up; see `offhook callbacks`");
        }
    }
}

/// Whether a callback of this kind is retried by the schedule.
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
