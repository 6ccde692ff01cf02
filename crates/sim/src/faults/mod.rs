//! Fault injection for the simulated Meta. Rules from a TOML file match calls and their events and
//! name a fault. `docs/faults.md` describes the rules. All randomness is seeded, so that a run can
//! be repeated.
//!
//! This module decides which faults happen. They are executed where the affected work is done: in
//! `meta::call` and `meta::webhook` (webhooks), `meta::graph` (Graph) and `media` (packets).
//! `body`, `offer` and `net` hold the faults themselves as pure functions.

pub(crate) mod body;
pub(crate) mod callee;
mod file;
pub(crate) mod net;
pub(crate) mod offer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use self::body::{Batch, BodyVariant};
use self::callee::CalleeOverride;
use self::net::MediaFault;
use self::offer::OfferFault;
use super::locked;
use super::meta::action::Action;

/// A set of fault rules. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    seed: Option<u64>,
    rules: Arc<[Rule]>,
}

/// Why a rule file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    #[error("could not read {file}: {message}")]
    Unreadable { file: String, message: String },
    /// `line` counts from 1.
    #[error("could not use {file}: line {line}: {message}")]
    Rule { file: String, line: usize, message: String },
}

impl Faults {
    /// Reads a rule file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or has an invalid rule.
    pub fn read(path: &Path) -> Result<Self, FaultsError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => file::parse(&file, &text),
            Err(e) => Err(FaultsError::Unreadable { file, message: e.to_string() }),
        }
    }

    /// Parses rules.
    ///
    /// # Errors
    ///
    /// Fails if a rule is invalid.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        file::parse("the rules", text)
    }

    /// The users named by rules.
    pub(super) fn users(&self) -> impl Iterator<Item = String> + use<> {
        self.rules.iter().filter_map(|rule| rule.user.clone()).collect::<Vec<_>>().into_iter()
    }
}

/// A rule: the calls and events that it matches, and the fault.
#[derive(Clone, Debug)]
struct Rule {
    /// Digits of the business number. `None` matches any.
    number: Option<String>,
    /// Digits of the user. `None` matches any.
    user: Option<String>,
    /// Matches only the n-th of the calls that `number` and `user` select, from 1.
    call: Option<u32>,
    /// Matches only the n-th event of the kind that the action applies to, from 1.
    nth: Option<u32>,
    /// Maximum number of times that the rule acts in one call.
    times: Option<u32>,
    /// Probability in percent.
    percent: f64,
    action: FaultAction,
}

/// The effect of a rule.
#[derive(Clone, Debug)]
enum FaultAction {
    /// A fault of a call's webhooks. `None` means all kinds.
    Webhook(Option<WebhookKind>, WebhookFault),
    /// A fault of Graph requests for a call. `None` means all actions.
    Graph(Option<Action>, GraphFault),
    Offer(OfferFault),
    CallId(String),
    Media(MediaFault),
    Storm(Storm),
    /// Overrides how the user reacts to a business-initiated call.
    Callee(CalleeOverride),
}

/// Kinds of call webhooks. `Ringing`, `Accepted` and `Rejected` belong to business-initiated calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebhookKind {
    Connect,
    Ringing,
    Accepted,
    Rejected,
    Terminate,
}

impl WebhookKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ringing => "ringing",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Terminate => "terminate",
        }
    }
}

/// A fault of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WebhookFault {
    /// Sends copies this long after the first delivery.
    Duplicate {
        copies: u32,
        after: Duration,
    },
    /// Delays the delivery by a random time between `min` and `max`.
    Delay {
        min: Duration,
        max: Duration,
    },
    /// Holds the webhook back until the call's terminate webhook was accepted.
    Swap,
    /// Never sends the webhook.
    Lose,
    Sign(SignatureFault),
    /// Adds this many seconds to all timestamps.
    Skew(i64),
    Reshape(BodyVariant),
    Batch(Batch),
}

impl WebhookFault {
    /// Description for the log, without secrets.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sign(_) => "signature fault".to_owned(),
            Self::Batch(batch) => format!("batch of {}", batch.items),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// A fault of a webhook's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignatureFault {
    Missing,
    Wrong,
    Upper,
    Twice,
    /// The webhook has only the older `X-Hub-Signature` header, which uses SHA-1.
    Sha1,
    /// Signs with this secret, for example a retired one.
    Secret(String),
}

/// A fault of a Graph request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphFault {
    /// Carries the request out before the fault happens.
    pub(crate) carried_out: bool,
    pub(crate) kind: GraphFaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GraphFaultKind {
    Answer {
        status: u16,
        body: GraphBody,
        /// Value of the `Retry-After` header, in seconds.
        retry_after: Option<u32>,
    },
    /// Responds only after this time.
    Silence(Duration),
    /// Resets the connection after this many bytes of the response.
    Reset { after_bytes: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GraphBody {
    /// An error object with this code.
    Error(i64),
    Html,
    Empty,
    /// A successful response, truncated.
    Cut,
}

/// A storm: further calls that one call triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storm {
    /// Number of further calls.
    pub(crate) calls: u32,
    /// Time within which the calls begin, evenly spaced. Ignored if `sequential`.
    pub(crate) over: Duration,
    /// The same user calls again after each call has ended. Otherwise the calls overlap and the
    /// users' numbers count up.
    pub(crate) sequential: bool,
    /// Each user hangs up at a random time between these two, measured from the placing of the
    /// call.
    pub(crate) hangup: (Duration, Duration),
    /// Uses real media, otherwise signalling only.
    pub(crate) media: bool,
}

/// Maximum number of pairs (business number and user) with a call count each. Further pairs share
/// one count.
const PAIRS_MAX: usize = 100_000;

/// The rules of a running simulator and the calls that they have matched.
#[derive(Debug)]
pub(crate) struct FaultInjector {
    faults: Faults,
    seed: u64,
    counts: Mutex<MatchCounts>,
}

#[derive(Debug, Default)]
struct MatchCounts {
    /// Number of matching calls of each rule.
    by_rule: Vec<u32>,
    /// Number of calls of each pair, by the pair's hash.
    by_pair: HashMap<u64, u32>,
}

impl FaultInjector {
    /// Uses `default_seed` if the rules name no seed.
    pub(crate) fn new(faults: Faults, default_seed: u64) -> Self {
        let seed = faults.seed.unwrap_or(default_seed);
        let counts = Mutex::new(MatchCounts {
            by_rule: vec![0; faults.rules.len()],
            by_pair: HashMap::new(),
        });
        if !faults.rules.is_empty() {
            tracing::info!(rules = faults.rules.len(), seed, "fault rules loaded");
        }
        Self { faults, seed, counts }
    }

    /// Selects the rules for a new call. Must be called once per call, because it counts.
    pub(crate) fn call(&self, number: &str, user: &str) -> CallFaults {
        let mut active = Vec::new();
        if self.faults.rules.is_empty() {
            return CallFaults(Mutex::new((active, StdRng::seed_from_u64(self.seed))));
        }
        let mut counts = locked(&self.counts);
        // The seed depends on the pair and the number of its call only, so that concurrent calls of
        // others do not change the outcome.
        let mut pair = mix_seed(self.seed, (number, user));
        if counts.by_pair.len() >= PAIRS_MAX && !counts.by_pair.contains_key(&pair) {
            pair = 0;
        }
        let nth = counts.by_pair.entry(pair).or_default();
        *nth = nth.saturating_add(1);
        let call_seed = mix_seed(pair, *nth);
        for (nr, (rule, count)) in self.faults.rules.iter().zip(&mut counts.by_rule).enumerate() {
            let matches =
                |expected: &Option<String>, is: &str| expected.as_deref().is_none_or(|w| w == is);
            if matches(&rule.number, number) && matches(&rule.user, user) {
                *count += 1;
                if rule.call.is_none_or(|n| n == *count) {
                    let rng = StdRng::seed_from_u64(mix_seed(call_seed, nr));
                    active.push(ActiveRule { rule: rule.clone(), rng, events: 0, fired_count: 0 });
                }
            }
        }
        CallFaults(Mutex::new((active, StdRng::seed_from_u64(call_seed))))
    }
}

/// Derives a seed from a seed and a value. The result is the same in every run.
fn mix_seed(seed: u64, with: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, with).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    /// The random number generator of this rule, so that rules do not influence each other.
    rng: StdRng,
    events: u32,
    fired_count: u32,
}

/// The faults of one call.
#[derive(Debug)]
pub(crate) struct CallFaults(Mutex<(Vec<ActiveRule>, StdRng)>);

impl CallFaults {
    /// Returns the faults of all rules that `select` picks and that act on this event.
    fn fire<T>(&self, select: impl Fn(&FaultAction) -> Option<T>) -> Vec<T> {
        let mut state = locked(&self.0);
        let mut faults = Vec::new();
        for active in &mut state.0 {
            let Some(fault) = select(&active.rule.action) else { continue };
            active.events = active.events.saturating_add(1);
            let Rule { nth, times, percent, .. } = active.rule;
            let fires = nth.is_none_or(|n| n == active.events)
                && times.is_none_or(|t| active.fired_count < t);
            if fires && (percent >= 100.0 || active.rng.random_range(0.0..100.0) < percent) {
                active.fired_count += 1;
                faults.push(fault);
            }
        }
        faults
    }

    pub(crate) fn webhook(&self, hook: WebhookKind) -> Vec<WebhookFault> {
        self.fire(|action| match action {
            FaultAction::Webhook(on, fault) if on.is_none_or(|on| on == hook) => {
                Some(fault.clone())
            }
            _ => None,
        })
    }

    /// The fault of the first rule that acts: a request has only one response.
    pub(crate) fn graph(&self, request: Action) -> Option<GraphFault> {
        let faults = self.fire(|action| match action {
            FaultAction::Graph(on, fault) if on.is_none_or(|on| on == request) => {
                Some(fault.clone())
            }
            _ => None,
        });
        faults.into_iter().next()
    }

    pub(crate) fn offer(&self) -> Vec<OfferFault> {
        self.fire(|action| if let FaultAction::Offer(fault) = action { Some(*fault) } else { None })
    }

    pub(crate) fn call_id(&self) -> Option<String> {
        self.fire(
            |action| if let FaultAction::CallId(id) = action { Some(id.clone()) } else { None },
        )
        .pop()
    }

    pub(crate) fn media(&self) -> Vec<MediaFault> {
        self.fire(
            |action| {
                if let FaultAction::Media(fault) = action { Some(fault.clone()) } else { None }
            },
        )
    }

    /// Overrides for a business-initiated call. Later ones win.
    pub(crate) fn callee(&self) -> Vec<CalleeOverride> {
        self.fire(
            |action| if let FaultAction::Callee(change) = action { Some(*change) } else { None },
        )
    }

    /// The storm that this call triggers. Calls of a storm trigger none themselves, see
    /// `meta::storm`.
    pub(crate) fn storm(&self) -> Option<Storm> {
        self.fire(|action| if let FaultAction::Storm(storm) = action { Some(*storm) } else { None })
            .pop()
    }

    /// A random duration between `min` and `max`.
    pub(crate) fn between(&self, min: Duration, max: Duration) -> Duration {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(
            locked(&self.0).1.random_range(millis(min)..=millis(max).max(millis(min))),
        )
    }

    /// A seed for other random choices in this call.
    pub(crate) fn seed(&self) -> u64 {
        locked(&self.0).1.next_u64()
    }
}
