//! What goes wrong on purpose at the simulated Meta (`meta-calling.md` §8, H1–H13): a list of rules, read from a small
//! TOML file, that match calls and events and name an action. Seeded, so that a run can be repeated.
//!
//! Deciding is done here; the doing stands where the thing that fails is done: `meta::life` and `meta::webhook`
//! (webhooks), `meta::graph` (Graph), `media` (packets). `body`, `offer` and `net` are what is done, pure.

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

use self::body::{Batch, Reshape};
use self::callee::Manner;
use self::net::MediaFault;
use self::offer::OfferFault;
use super::locked;
use super::meta::graph::Action;

/// Rules; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    seed: Option<u64>,
    rules: Arc<[Rule]>,
}

/// A rule file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    #[error("read {file}: {why}")]
    Unreadable { file: String, why: String },
    /// `line` counts from 1.
    #[error("use {file}: line {line}: {message}")]
    Rule { file: String, line: usize, message: String },
}

impl Faults {
    /// Reads a rule file.
    ///
    /// # Errors
    /// It can't be read, or a rule is wrong.
    pub fn read(path: &Path) -> Result<Self, FaultsError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => file::parse(&file, &text),
            Err(e) => Err(FaultsError::Unreadable { file, why: e.to_string() }),
        }
    }

    /// The same from text.
    ///
    /// # Errors
    /// A rule is wrong.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        file::parse("the rules", text)
    }

    /// Users whom a rule is about.
    pub(super) fn users(&self) -> impl Iterator<Item = String> + use<> {
        self.rules.iter().filter_map(|rule| rule.user.clone()).collect::<Vec<_>>().into_iter()
    }
}

/// One rule: which calls, which of their events, and what happens then.
#[derive(Clone, Debug)]
struct Rule {
    /// Digits of the business number; none: any.
    number: Option<String>,
    /// Digits of the user who calls or is called; none: any.
    user: Option<String>,
    /// The n-th call of those that match, from 1; none: every.
    call: Option<u32>,
    /// The n-th event of such a call that the action is about, from 1; none: every.
    nth: Option<u32>,
    /// At most so often in one call.
    times: Option<u32>,
    /// In so many of a hundred cases.
    percent: f64,
    act: Act,
}

/// What is done, and to what.
#[derive(Clone, Debug)]
enum Act {
    /// None: to both webhooks of a call.
    Webhook(Option<Hook>, HookDeed),
    /// None: to any request about a call.
    Graph(Option<Action>, GraphDeed),
    Offer(OfferFault),
    CallId(String),
    Media(MediaFault),
    Storm(Storm),
    /// What the user does whom the business calls, and in which order Meta tells of it.
    Callee(Manner),
}

/// The webhooks of a call; statuses are of one that the business placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Connect,
    Ringing,
    Accepted,
    Rejected,
    Terminate,
}

impl Hook {
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

/// What is done to a webhook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HookDeed {
    /// So many more, this long after the first.
    Duplicate {
        copies: u32,
        after: Duration,
    },
    /// Sent later, by a time between the two.
    Delay {
        least: Duration,
        most: Duration,
    },
    /// Sent only when the call's terminate was taken.
    Swap,
    /// Never sent.
    Lose,
    Sign(Sign),
    /// Added to its timestamps, in seconds.
    Skew(i64),
    Reshape(Reshape),
    Batch(Batch),
}

impl HookDeed {
    /// For the log: secrets stay out.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sign(_) => "signed otherwise".to_owned(),
            Self::Batch(batch) => format!("in a batch of {}", batch.items),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// How a webhook is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Missing,
    Wrong,
    Upper,
    Twice,
    /// `X-Hub-Signature`, the older header, alone.
    Sha1,
    /// With another secret: an old one.
    Secret(String),
}

/// What Graph does instead of answering well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphDeed {
    /// What was asked for is done first.
    pub(crate) done: bool,
    pub(crate) how: GraphHow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GraphHow {
    Answer {
        status: u16,
        body: GraphBody,
        /// Seconds.
        retry_after: Option<u32>,
    },
    /// Nothing is said for so long; then the answer comes.
    Silence(Duration),
    /// The connection breaks, after so many bytes of the answer.
    Reset { after_bytes: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GraphBody {
    /// Graph's error object with this code.
    Error(i64),
    Html,
    Empty,
    /// A good answer, cut in the middle.
    Cut,
}

/// Many calls that one brings with it (H11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storm {
    /// Besides the one that begins it.
    pub(crate) calls: u32,
    /// All begin within so long, evenly; in a row, each begins when the one before it is over.
    pub(crate) over: Duration,
    /// One after the other, and of the same user; else at once, and the users' numbers count up.
    pub(crate) in_a_row: bool,
    /// Their users hang up between these two after the call was placed, whatever has become of it by then.
    pub(crate) hangup: (Duration, Duration),
    /// With media; else signalling only.
    pub(crate) media: bool,
}

/// Pairs of number and user whose calls are counted; those of further ones share a count.
const PAIRS_MAX: usize = 100_000;

/// The rules of a running simulator, and the calls they have met.
#[derive(Debug)]
pub(crate) struct Board {
    faults: Faults,
    seed: u64,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    /// Calls that matched, by rule.
    matched: Vec<u32>,
    /// Calls by number and user.
    of_pair: HashMap<u64, u32>,
}

impl Board {
    /// `otherwise`: the seed where the file names none.
    pub(crate) fn new(faults: Faults, otherwise: u64) -> Self {
        let seed = faults.seed.unwrap_or(otherwise);
        let met = Mutex::new(Met { matched: vec![0; faults.rules.len()], of_pair: HashMap::new() });
        if !faults.rules.is_empty() {
            tracing::info!(rules = faults.rules.len(), seed, "the simulated Meta fails by rules");
        }
        Self { faults, seed, met }
    }

    /// What is to go wrong in a new call. To be asked once a call.
    pub(crate) fn call(&self, number: &str, user: &str) -> CallFaults {
        let mut active = Vec::new();
        if self.faults.rules.is_empty() {
            return CallFaults(Mutex::new((active, StdRng::seed_from_u64(self.seed))));
        }
        let mut met = locked(&self.met);
        // The n-th call of a user to a number has its own chances, whatever others call at the same time.
        let mut pair = mixed(self.seed, (number, user));
        if met.of_pair.len() >= PAIRS_MAX && !met.of_pair.contains_key(&pair) {
            pair = 0;
        }
        let nth = met.of_pair.entry(pair).or_default();
        *nth = nth.saturating_add(1);
        let chance = mixed(pair, *nth);
        for (nr, (rule, count)) in self.faults.rules.iter().zip(&mut met.matched).enumerate() {
            let matches =
                |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
            if matches(&rule.number, number) && matches(&rule.user, user) {
                *count += 1;
                if rule.call.is_none_or(|n| n == *count) {
                    let dice = StdRng::seed_from_u64(mixed(chance, nr));
                    active.push(Active { rule: rule.clone(), dice, events: 0, acted: 0 });
                }
            }
        }
        CallFaults(Mutex::new((active, StdRng::seed_from_u64(chance))))
    }
}

/// A seed made of a seed and something else; the same in every run.
fn mixed(seed: u64, with: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, with).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    /// Its own, so that no other rule changes its chances.
    dice: StdRng,
    events: u32,
    acted: u32,
}

/// What is to go wrong in one call.
#[derive(Debug)]
pub(crate) struct CallFaults(Mutex<(Vec<Active>, StdRng)>);

impl CallFaults {
    /// The deeds of the rules that concern an event and act on this one.
    fn acting<T>(&self, concerns: impl Fn(&Act) -> Option<T>) -> Vec<T> {
        let mut both = locked(&self.0);
        let mut deeds = Vec::new();
        for one in &mut both.0 {
            let Some(deed) = concerns(&one.rule.act) else { continue };
            one.events = one.events.saturating_add(1);
            let Rule { nth, times, percent, .. } = one.rule;
            let is_its = nth.is_none_or(|n| n == one.events) && times.is_none_or(|t| one.acted < t);
            if is_its && (percent >= 100.0 || one.dice.random_range(0.0..100.0) < percent) {
                one.acted += 1;
                deeds.push(deed);
            }
        }
        deeds
    }

    pub(crate) fn webhook(&self, hook: Hook) -> Vec<HookDeed> {
        self.acting(|act| match act {
            Act::Webhook(on, deed) if on.is_none_or(|on| on == hook) => Some(deed.clone()),
            _ => None,
        })
    }

    /// The first rule that acts wins: a request has one answer.
    pub(crate) fn graph(&self, action: Action) -> Option<GraphDeed> {
        let deeds = self.acting(|act| match act {
            Act::Graph(on, deed) if on.is_none_or(|on| on == action) => Some(deed.clone()),
            _ => None,
        });
        deeds.into_iter().next()
    }

    pub(crate) fn offer(&self) -> Vec<OfferFault> {
        self.acting(|act| if let Act::Offer(fault) = act { Some(*fault) } else { None })
    }

    pub(crate) fn call_id(&self) -> Option<String> {
        self.acting(|act| if let Act::CallId(id) = act { Some(id.clone()) } else { None }).pop()
    }

    pub(crate) fn media(&self) -> Vec<MediaFault> {
        self.acting(|act| if let Act::Media(fault) = act { Some(fault.clone()) } else { None })
    }

    /// Of a call that the business places; a later rule goes before an earlier one.
    pub(crate) fn callee(&self) -> Vec<Manner> {
        self.acting(|act| if let Act::Callee(manner) = act { Some(*manner) } else { None })
    }

    /// A call of a storm begins none of its own: see `meta::storm`.
    pub(crate) fn storm(&self) -> Option<Storm> {
        self.acting(|act| if let Act::Storm(storm) = act { Some(*storm) } else { None }).pop()
    }

    /// A time between the two.
    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(
            locked(&self.0).1.random_range(millis(least)..=millis(most).max(millis(least))),
        )
    }

    /// A seed for chance elsewhere in this call.
    pub(crate) fn seed(&self) -> u64 {
        locked(&self.0).1.next_u64()
    }
}
