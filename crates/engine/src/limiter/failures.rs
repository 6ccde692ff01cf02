//! Limits failed sign-ins, of people in the console and of phones.
//!
//! Passwords can be guessed, so after some wrong passwords for one name from one origin, further
//! ones are checked only at intervals. An origin is a network, or a browser that has signed in with
//! this name before. Failures from one origin do not affect other origins.
//!
//! Wrong passwords of others at the same origin must not lock out the owner of a name. So a wrong
//! password is checked only once, however often a phone or a script sends it. Beyond the limit,
//! passwords wait for their turn: one of them is checked at each interval, and only wrong ones are
//! refused. Those that have waited longer are preferred, so someone who guesses one password after
//! the other delays the right one by a turn or two.
//!
//! One password can also be tried with many names. So after some wrong passwords of one network for
//! any names, the further ones of this network wait for their turn in the same way, except those with
//! a name that has signed in from there before.
//!
//! In a fleet, each node counts its attempts and sends the changes to the others.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use model::{Clock, Secret, network_prefix};

use super::{Offenders, Resource, Share, Shares};

/// The reserve of a name per origin: the maximum number of failed attempts before checks are
/// delayed.
const BURST: u32 = 10;
/// Time after which a failed attempt is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Minimum interval between checks when the reserve is used up. A wrong password is then refused as
/// one of too many, and the right one is accepted.
const LATE_CHECK_EVERY: Duration = Duration::from_secs(6);
/// Maximum number of attempts that wait for a turn, per name and origin and in all.
const WAITING_MAX: usize = 64;
const WAITING_MAX_IN_ALL: usize = 1_024;
/// Waiting attempts wake up within this time after a check is due. The first one gets it.
const DRAW_WITHIN: Duration = Duration::from_millis(200);
/// Number of wrong passwords that are remembered per name and origin.
const WRONG_REMEMBERED: usize = 16;
/// The reserve of a network for all names: the maximum number of failed attempts before checks are
/// delayed.
const NETWORK_BURST: u32 = 60;
/// Time after which a failed attempt of a network is forgotten, and so the interval between checks
/// when its reserve is used up.
const NETWORK_FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of entries of each kind. Beyond it the oldest are dropped.
const REMEMBERED: usize = 20_000;

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A network, by any of its addresses.
    Network(IpAddr),
    /// A browser that has signed in with this name before, and its current address.
    Browser(Uuid, IpAddr),
}

impl Origin {
    /// The network.
    pub fn address(self) -> IpAddr {
        let (Self::Network(address) | Self::Browser(_, address)) = self;
        network_prefix(address)
    }

    /// Equal for attempts that are limited together, under one name.
    fn key(self) -> Result<Uuid, IpAddr> {
        match self {
            Self::Network(_) => Err(self.address()),
            Self::Browser(id, _) => Ok(id),
        }
    }
}

/// A password to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Guess<'a> {
    pub password: &'a Secret,
    /// The stored hash of the right password. It is part of the guess, so that a wrong password is
    /// checked again after the stored one has changed.
    pub hash: Option<&'a str>,
}

/// Why an attempt may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The password was compared recently and was wrong.
    KnownWrong,
    /// There were too many failures. Contains the time until another password is checked.
    Wait(Duration),
}

type Key = (String, Result<Uuid, IpAddr>);

/// The key of the attempts that wait for their network. No user has an empty name.
fn network_key(network: IpAddr) -> Key {
    (String::new(), Err(network))
}

/// Recent attempts that failed or are in progress. An attempt counts from its beginning, so that
/// concurrent attempts are limited like sequential ones. Clones share the counts.
#[derive(Clone)]
pub struct Failures(Arc<Shared>);

struct Shared {
    counts: Mutex<Counts>,
    /// Whether changes are collected for other nodes.
    is_shared: AtomicBool,
    offenders: Option<Offenders>,
    /// The attempts that wait for their turn.
    waiting: Shares<Key>,
    /// Longest time that an attempt waits for its turn.
    patience: Duration,
    /// Whether attempts may wait.
    is_patient: watch::Sender<bool>,
    /// The random key of the hashes of wrong passwords.
    guess_key: RandomState,
}

#[derive(Default)]
struct Counts {
    of_names: HashMap<Key, Count>,
    of_networks: HashMap<IpAddr, Count>,
    /// Names and origins that have signed in.
    known: HashSet<Key>,
    /// Changes since they were last taken for other nodes. `None` if there are none.
    changes: Option<Changes>,
}

/// Changes at this node, by key.
#[derive(Default)]
struct Changes {
    names: HashMap<Key, NameChange>,
    networks: HashMap<IpAddr, i32>,
}

/// Changes in the attempts of one name and origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NameChange {
    /// Whether an attempt succeeded, which cleared the failures before it.
    is_forgotten: bool,
    /// Number of failures since then. Negative if earlier attempts were cancelled before they were
    /// checked.
    failures: i32,
}

/// Changes of the counts at one node, sent to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureChanges {
    names: Vec<(Key, NameChange)>,
    networks: Vec<(IpAddr, i32)>,
}

impl Counts {
    /// Whether attempts are limited with those of other names of their network, and count for it.
    /// Loopback is a proxy on this machine that does not say for whom it asks.
    fn is_limited_by_network(&self, key: &Key) -> bool {
        key.1.is_err_and(|network| !network.is_loopback()) && !self.known.contains(key)
    }

    /// Forgets the failures of a key that has signed in.
    fn succeed(&mut self, key: &Key) {
        self.of_names.remove(key);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key.clone());
    }

    /// Whether a password was compared for this key recently and was wrong.
    fn is_known_wrong(&self, key: &Key, guess: u64, now: Instant) -> bool {
        let count = self.of_names.get(key).filter(|count| count.until > now);
        count.is_some_and(|count| count.wrong.contains(&guess))
    }
}

impl FailureChanges {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }
}

/// Maximum number of names and of networks whose changes are collected.
const CHANGES_MAX: usize = 5_000;

/// The failures of a key.
struct Count {
    /// Time at which the last check is forgotten. With `n` checks, this is `n` periods from now.
    until: Instant,
    /// Like `until`, for failures, including those with passwords that were known to be wrong.
    failed_until: Instant,
    /// When the next late check is allowed.
    late_check_at: Instant,
    /// Hashes of wrong passwords.
    wrong: Vec<u64>,
}

/// The reason why an attempt does not begin.
enum Denied {
    KnownWrong,
    /// The password is known to be wrong, and there were too many failures.
    KnownWrongOfTooMany,
    /// The next check of the name is due after this time.
    NotYet(Duration),
    /// The next check of the network is due after this time.
    NetworkNotYet(Duration),
}

/// The places of an attempt among the waiting ones. An attempt without a place does not overtake
/// them.
#[derive(Default)]
struct Places {
    of_name: Option<Share<Key>>,
    of_network: Option<Share<Key>>,
}

/// An attempt in progress. It counts as failed unless its outcome is reported.
#[must_use = "a dropped attempt counts as failed"]
pub struct Attempt<'a> {
    failures: &'a Failures,
    key: Key,
    network: IpAddr,
    guess: u64,
    /// Whether the reserve of [`BURST`] attempts is used up, so that this attempt is one of those
    /// checked every [`LATE_CHECK_EVERY`].
    is_late: bool,
    /// Whether earlier failures had reached the limit when this attempt began.
    is_over: bool,
    is_limited_by_network: bool,
    /// Whether the attempt has waited for its network.
    is_delayed: bool,
}

impl Failures {
    /// Creates the limit. `offenders` counts refused attempts; `patience` is the longest time that an
    /// attempt waits for its turn.
    pub fn new(offenders: Option<Offenders>, patience: Duration) -> Self {
        let (counts, is_shared) = Default::default();
        Self(Arc::new(Shared {
            counts,
            is_shared,
            offenders,
            waiting: Shares::new(WAITING_MAX, WAITING_MAX_IN_ALL),
            patience,
            is_patient: watch::Sender::new(true),
            guess_key: RandomState::new(),
        }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether attempts may wait for their turn. Those that wait when it is forbidden are
    /// refused at once.
    pub fn set_patient(&self, is_patient: bool) {
        self.0.is_patient.send_replace(is_patient);
    }

    /// Starts collecting changes for other nodes.
    pub fn share(&self) {
        self.0.is_shared.store(true, Ordering::Release);
    }

    /// Takes the changes since the last call.
    pub fn take_changes(&self) -> FailureChanges {
        let Changes { names, networks } = self.counts().changes.take().unwrap_or_default();
        FailureChanges {
            names: names.into_iter().collect(),
            networks: networks.into_iter().collect(),
        }
    }

    /// Adds the changes that another node has collected to the counts.
    pub fn merge(&self, changes: FailureChanges, now: Instant) {
        let mut counts = self.counts();
        for (key, change) in changes.names.into_iter().take(CHANGES_MAX) {
            if change.is_forgotten {
                counts.succeed(&key);
            }
            let count = entry(&mut counts.of_names, &key, now);
            move_by(&mut count.until, FORGOTTEN_AFTER, change.failures);
            move_by(&mut count.failed_until, FORGOTTEN_AFTER, change.failures);
        }
        for (network, failures) in changes.networks.into_iter().take(CHANGES_MAX) {
            let until = &mut entry(&mut counts.of_networks, &network, now).until;
            move_by(until, NETWORK_FORGOTTEN_AFTER, failures);
        }
    }

    /// Records a change for the other nodes, so that they count it, too.
    fn note(&self, counts: &mut Counts, key: &Key, network: IpAddr, change: (NameChange, i32)) {
        if !self.0.is_shared.load(Ordering::Acquire) {
            return;
        }
        let Changes { names, networks } = counts.changes.get_or_insert_default();
        if names.len() < CHANGES_MAX || names.contains_key(key) {
            let (NameChange { is_forgotten, failures }, _) = change;
            let noted = names.entry(key.clone()).or_default();
            *noted = match is_forgotten {
                true => NameChange { is_forgotten, failures },
                false => NameChange { failures: noted.failures.saturating_add(failures), ..*noted },
            };
        }
        if change.1 != 0 && (networks.len() < CHANGES_MAX || networks.contains_key(&network)) {
            let noted = networks.entry(network).or_default();
            *noted = noted.saturating_add(change.1);
        }
    }

    /// Begins an attempt. Once the reserve is used up, the attempt waits for its turn.
    ///
    /// # Errors
    ///
    /// Returns an error if the password is known to be wrong, or if its turn does not come in time.
    pub async fn begin(
        &self,
        name: &str,
        from: Origin,
        guess: Guess<'_>,
        clock: &Clock,
    ) -> Result<Attempt<'_>, Refusal> {
        let (key, network) = ((name.to_owned(), from.key()), from.address());
        let guess = self.0.guess_key.hash_one((guess.hash, guess.password.reveal()));
        let deadline = clock.now() + self.0.patience;
        let (mut places, mut turns) = (Places::default(), 0_u32);
        let mut hurry = self.0.is_patient.subscribe();
        let wait = loop {
            let now = clock.now();
            let (wait, place, queue) = match self.try_begin(&key, network, guess, &places, now) {
                Ok(attempt) => return Ok(attempt),
                Err(Denied::KnownWrong) => return Err(Refusal::KnownWrong),
                Err(Denied::KnownWrongOfTooMany) => break LATE_CHECK_EVERY,
                Err(Denied::NotYet(wait)) => (wait, &mut places.of_name, key.clone()),
                Err(Denied::NetworkNotYet(wait)) => {
                    (wait, &mut places.of_network, network_key(network))
                }
            };
            if now + wait > deadline {
                break wait;
            }
            if place.is_none() {
                *place = self.0.waiting.take(queue);
            }
            if place.is_none() {
                break wait;
            }
            turns += 1;
            let due = tokio::time::sleep(wait + draw(turns, rand::random()));
            tokio::select! {
                () = due => {}
                _ = hurry.wait_for(|is_patient| !is_patient) => break wait,
            }
        };
        self.record_offence(network);
        Err(Refusal::Wait(wait))
    }

    /// Begins an attempt, or refuses it instead of having it wait for its turn.
    ///
    /// # Errors
    ///
    /// Returns an error if the password is known to be wrong, or can't be checked now.
    pub fn begin_now(
        &self,
        name: &str,
        from: Origin,
        guess: Guess<'_>,
        now: Instant,
    ) -> Result<Attempt<'_>, Refusal> {
        let (key, network) = ((name.to_owned(), from.key()), from.address());
        let guess = self.0.guess_key.hash_one((guess.hash, guess.password.reveal()));
        self.try_begin(&key, network, guess, &Places::default(), now).map_err(|denied| {
            let wait = match denied {
                Denied::KnownWrong => return Refusal::KnownWrong,
                Denied::KnownWrongOfTooMany => LATE_CHECK_EVERY,
                Denied::NotYet(wait) | Denied::NetworkNotYet(wait) => wait,
            };
            self.record_offence(network);
            Refusal::Wait(wait)
        })
    }

    fn record_offence(&self, network: IpAddr) {
        if let Some(offenders) = &self.0.offenders {
            offenders.record(Resource::SignIns, network);
        }
    }

    /// Begins an attempt now.
    fn try_begin(
        &self,
        key: &Key,
        network: IpAddr,
        guess: u64,
        places: &Places,
        now: Instant,
    ) -> Result<Attempt<'_>, Denied> {
        let mut counts = self.counts();
        let is_first = |place: &Option<Share<Key>>, queue: &Key| {
            place.is_some() || !self.0.waiting.has_any(queue)
        };
        let is_limited_by_network = counts.is_limited_by_network(key);
        if is_limited_by_network && !counts.is_known_wrong(key, guess, now) {
            let latest = now + NETWORK_FORGOTTEN_AFTER * (NETWORK_BURST - 1);
            let until = entry(&mut counts.of_networks, &network, now).until;
            if until > latest || !is_first(&places.of_network, &network_key(network)) {
                return Err(Denied::NetworkNotYet(until.saturating_duration_since(latest)));
            }
        }
        let is_first = is_first(&places.of_name, key);
        let of_name = entry(&mut counts.of_names, key, now);
        let latest = now + FORGOTTEN_AFTER * (BURST - 1);
        let is_over = of_name.failed_until > latest;
        if !is_over {
            of_name.failed_until += FORGOTTEN_AFTER;
        }
        match (of_name.wrong.contains(&guess), is_over) {
            (true, true) => return Err(Denied::KnownWrongOfTooMany),
            (true, false) => return Err(Denied::KnownWrong),
            (false, _) => {}
        }
        let is_late = of_name.until > latest;
        if !is_late {
            of_name.until += FORGOTTEN_AFTER;
        } else if of_name.late_check_at <= now && is_first {
            of_name.late_check_at = now + LATE_CHECK_EVERY;
        } else {
            let next = of_name.late_check_at.min(now + (of_name.until - latest));
            return Err(Denied::NotYet(next.saturating_duration_since(now)));
        }
        if is_limited_by_network {
            entry(&mut counts.of_networks, &network, now).until += NETWORK_FORGOTTEN_AFTER;
        }
        let failed = NameChange { is_forgotten: false, failures: i32::from(!is_late) };
        self.note(&mut counts, key, network, (failed, i32::from(is_limited_by_network)));
        let is_delayed = places.of_network.is_some();
        Ok(Attempt {
            failures: self,
            key: key.clone(),
            network,
            guess,
            is_late,
            is_over,
            is_limited_by_network,
            is_delayed,
        })
    }
}

impl Attempt<'_> {
    /// Reports success, which forgets the failures of this name and origin.
    pub fn succeed(self) {
        let mut counts = self.failures.counts();
        self.uncount_network(&mut counts);
        counts.succeed(&self.key);
        let forgotten = NameChange { is_forgotten: true, failures: 0 };
        let of_network = -i32::from(self.is_limited_by_network);
        self.failures.note(&mut counts, &self.key, self.network, (forgotten, of_network));
    }

    /// Reports a wrong password. Returns how long to wait if there were too many.
    pub fn fail(self) -> Option<Duration> {
        let mut counts = self.failures.counts();
        if let Some(count) = counts.of_names.get_mut(&self.key) {
            if count.wrong.len() == WRONG_REMEMBERED {
                count.wrong.remove(0);
            }
            count.wrong.push(self.guess);
        }
        let is_too_many = self.is_over || self.is_delayed;
        if is_too_many {
            self.failures.record_offence(self.network);
        }
        is_too_many.then_some(LATE_CHECK_EVERY)
    }

    /// Reports a wrong password like [`Self::fail`], for an attempt that shares its request with
    /// others. The network counts one failure of the request.
    pub fn fail_beside_others(self) -> Option<Duration> {
        self.uncount_network(&mut self.failures.counts());
        self.fail()
    }

    /// Reports that the credentials were not checked.
    pub fn cancel(self) {
        let mut counts = self.failures.counts();
        self.uncount_network(&mut counts);
        if let Some(count) = counts.of_names.get_mut(&self.key) {
            let (time, period) = match self.is_late {
                true => (&mut count.late_check_at, LATE_CHECK_EVERY),
                false => (&mut count.until, FORGOTTEN_AFTER),
            };
            *time = time.checked_sub(period).unwrap_or(*time);
            if !self.is_over {
                count.failed_until =
                    count.failed_until.checked_sub(FORGOTTEN_AFTER).unwrap_or(count.failed_until);
            }
        }
        let undone = NameChange { is_forgotten: false, failures: -i32::from(!self.is_late) };
        let of_network = -i32::from(self.is_limited_by_network);
        self.failures.note(&mut counts, &self.key, self.network, (undone, of_network));
    }

    fn uncount_network(&self, counts: &mut Counts) {
        if self.is_limited_by_network
            && let Some(count) = counts.of_networks.get_mut(&self.network)
        {
            count.until = count.until.checked_sub(NETWORK_FORGOTTEN_AFTER).unwrap_or(count.until);
        }
    }
}

/// The time from a due check to the attempt's try for it. The first one gets the check. `random` is
/// below 1; `turns` counts the checks that the attempt has waited for, with this one.
fn draw(turns: u32, random: f64) -> Duration {
    DRAW_WITHIN.mul_f64(random) / turns.saturating_pow(2)
}

/// Moves a time forward by a number of periods, or back if the number is negative.
fn move_by(until: &mut Instant, period: Duration, count: i32) {
    let by = period.saturating_mul(count.unsigned_abs().min(NETWORK_BURST));
    let moved = if count < 0 { until.checked_sub(by) } else { until.checked_add(by) };
    *until = moved.unwrap_or(*until);
}

/// The entry of a key, without what is forgotten.
fn entry<'a, K: Hash + Eq + Clone>(
    counts: &'a mut HashMap<K, Count>,
    key: &K,
    now: Instant,
) -> &'a mut Count {
    if counts.len() >= REMEMBERED && !counts.contains_key(key) {
        counts.retain(|_, count| count.until > now);
        if counts.len() >= REMEMBERED
            && let Some(oldest) =
                counts.iter().min_by_key(|(_, count)| count.until).map(|(key, _)| key.clone())
        {
            counts.remove(&oldest);
        }
    }
    let count = counts.entry(key.clone()).or_insert_with(|| Count {
        until: now,
        failed_until: now,
        late_check_at: now,
        wrong: Vec::new(),
    });
    if count.until <= now {
        count.until = now;
        count.wrong.clear();
    }
    count.failed_until = count.failed_until.max(now);
    count
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn origins<const N: usize>(texts: [&str; N]) -> [Origin; N] {
        texts.map(|ip| Origin::Network(ip.parse().unwrap()))
    }

    /// Begins an attempt with a password that was not used before.
    fn begin<'a>(
        failures: &'a Failures,
        name: &str,
        from: Origin,
        clock: &Clock,
    ) -> Result<Attempt<'a>, Refusal> {
        let password = Secret::new(Uuid::new_v4().to_string());
        failures.begin_now(name, from, Guess { password: &password, hash: None }, clock.now())
    }

    /// How long an attempt would have to wait.
    fn wait(failures: &Failures, name: &str, from: Origin, clock: &Clock) -> Option<Duration> {
        match begin(failures, name, from, clock) {
            Ok(begun) => {
                let is_late = begun.is_late;
                begun.cancel();
                is_late.then_some(Duration::ZERO)
            }
            Err(Refusal::Wait(wait)) => Some(wait),
            Err(Refusal::KnownWrong) => panic!("a new password"),
        }
    }

    #[test]
    fn f35_attempts_at_other_nodes_count() {
        let clock = Clock::stepped(model::Timestamp::default());
        let nodes: Vec<Failures> = (0..3).map(|_| Failures::new(None, Duration::ZERO)).collect();
        nodes.iter().for_each(Failures::share);
        let tell = || {
            for from in 0..3 {
                let text = serde_json::to_string(&nodes[from].take_changes()).unwrap();
                for to in (0..3).filter(|to| *to != from) {
                    nodes[to].merge(serde_json::from_str(&text).unwrap(), clock.now());
                }
            }
        };
        let [here, there] = origins(["192.0.2.1", "198.51.100.1"]);
        for n in 0..BURST as usize {
            assert_eq!(begin(&nodes[n % 3], "asha", here, &clock).map(Attempt::fail), Ok(None));
            tell();
        }
        for node in &nodes {
            assert_eq!(wait(node, "asha", here, &clock), Some(Duration::ZERO), "a late check");
            assert_eq!(wait(node, "asha", there, &clock), None);
        }
        tell();
        begin(&nodes[0], "asha", here, &clock).map(Attempt::succeed).unwrap();
        tell();
        for node in &nodes {
            assert_eq!(wait(node, "asha", here, &clock), None, "forgotten everywhere");
        }
    }

    #[test]
    fn r15_after_ten_failures_of_one_origin_a_password_is_checked_every_six_seconds() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None, Duration::ZERO);
        let [asha, ravi] = ["asha", "ravi"];
        let [here, beside, there] = origins(["2001:db8::1", "2001:db8::2", "2001:db8:1::1"]);
        let browser = Origin::Browser(Uuid::from_u128(1), [192, 0, 2, 1].into());
        for _ in 0..BURST {
            assert_eq!(begin(&failures, asha, here, &clock).map(Attempt::fail), Ok(None));
        }
        let late = begin(&failures, asha, here, &clock);
        assert_eq!(
            late.map(Attempt::fail),
            Ok(Some(LATE_CHECK_EVERY)),
            "checked, and one too many"
        );
        assert_eq!(wait(&failures, asha, beside, &clock), Some(LATE_CHECK_EVERY), "same network");
        for (name, from) in [(asha, there), (ravi, here), (asha, browser)] {
            assert_eq!(wait(&failures, name, from, &clock), None);
        }
        let mut checked = 0;
        for _ in 0..600 {
            checked += usize::from(begin(&failures, asha, here, &clock).is_ok());
            clock.step(Duration::from_secs(1));
        }
        assert!((100..=110).contains(&checked), "{checked} guesses in ten minutes");
        clock.step(LATE_CHECK_EVERY);
        begin(&failures, asha, here, &clock).map(Attempt::succeed).unwrap();
        assert_eq!(wait(&failures, asha, here, &clock), None, "success forgets failures");
    }

    #[test]
    fn r15_the_same_wrong_password_is_checked_once() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None, Duration::ZERO);
        let [here, there] = origins(["192.0.2.1", "198.51.100.1"]);
        let (old, right) = (Secret::new("old password"), Secret::new("right password"));
        let attempt = |password, hash, from| {
            failures.begin_now("asha", from, Guess { password, hash: Some(hash) }, clock.now())
        };
        assert_eq!(attempt(&old, "hash", here).map(Attempt::fail), Ok(None));
        for n in 1..1_000 {
            let refusal = attempt(&old, "hash", here).err();
            let is_over = n >= BURST;
            assert_eq!(refusal == Some(Refusal::KnownWrong), !is_over, "{n}: {refusal:?}");
            assert_eq!(matches!(refusal, Some(Refusal::Wait(_))), is_over, "{n}: {refusal:?}");
        }
        assert!(attempt(&old, "hash", there).is_ok(), "each origin by itself");
        assert!(attempt(&old, "hash of a changed password", here).is_ok());
        let right = attempt(&right, "hash", here).unwrap();
        assert!(!right.is_late, "failures of one password leave the reserve for others");
        right.cancel();
        clock.step(FORGOTTEN_AFTER * 10);
        assert!(attempt(&old, "hash", here).is_ok(), "forgotten");
    }

    #[test]
    fn r15_attempts_that_wait_are_not_overtaken_and_their_number_is_bounded() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None, Duration::ZERO);
        let [here, there] = origins(["192.0.2.1", "198.51.100.1"]);
        let key = ("asha".to_owned(), here.key());
        while let Ok(attempt) = begin(&failures, "asha", here, &clock) {
            attempt.fail();
        }
        let mut places: Vec<_> =
            (0..WAITING_MAX).map(|_| failures.0.waiting.take(key.clone()).unwrap()).collect();
        assert!(failures.0.waiting.take(key.clone()).is_none());
        assert!(failures.0.waiting.take(("ravi".to_owned(), here.key())).is_some());
        clock.step(LATE_CHECK_EVERY);
        let overtaking = wait(&failures, "asha", here, &clock);
        assert_eq!(overtaking, Some(Duration::ZERO), "due, but others wait");
        assert!(wait(&failures, "asha", there, &clock).is_none());
        let waiting = Places { of_name: places.pop(), of_network: None };
        let waited = failures.try_begin(&key, here.address(), 7, &waiting, clock.now());
        assert!(waited.is_ok_and(|attempt| attempt.is_late));
        let next = failures.try_begin(&key, here.address(), 8, &waiting, clock.now());
        assert!(matches!(next, Err(Denied::NotYet(LATE_CHECK_EVERY))), "one at a time");
        drop((places, waiting));
        clock.step(LATE_CHECK_EVERY);
        assert!(begin(&failures, "asha", here, &clock).is_ok(), "no one waits");
        let held: Vec<_> = (0..WAITING_MAX_IN_ALL)
            .map(|n| failures.0.waiting.take((format!("name {}", n / WAITING_MAX), here.key())))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(failures.0.waiting.take(key.clone()).is_none(), "the bound of all names");
    }

    #[tokio::test]
    async fn r15_a_waiting_attempt_is_refused_when_waits_are_forbidden() {
        let (failures, clock) = (Failures::new(None, Duration::from_secs(60)), Clock::real());
        let [here] = origins(["192.0.2.1"]);
        let key = ("asha".to_owned(), here.key());
        while let Ok(attempt) = begin(&failures, "asha", here, &clock) {
            attempt.fail();
        }
        let password = Secret::new("a password");
        let guess = Guess { password: &password, hash: None };
        let waiting = failures.begin("asha", here, guess, &clock);
        let forbid = async {
            while !failures.0.waiting.has_any(&key) {
                tokio::task::yield_now().await;
            }
            failures.set_patient(false);
        };
        let (refused, ()) = tokio::join!(waiting, forbid);
        assert!(matches!(refused, Err(Refusal::Wait(_))));
        assert!(!failures.0.waiting.has_any(&key), "the place is given back");
    }

    /// The turns of a person among `guessers` that begin anew after each check.
    fn turns_of_the_right_password(guessers: usize, draws: &mut StdRng) -> Option<usize> {
        let mut turns = vec![1_u32; guessers + 1];
        (1..=5).find(|_| {
            let delays = turns.iter().map(|turns| draw(*turns, draws.random()));
            let first = delays.enumerate().min_by_key(|(_, delay)| *delay).unwrap().0;
            turns.iter_mut().for_each(|turns| *turns += 1);
            turns[first] = 1;
            first == 0
        })
    }

    #[test]
    fn r15_one_who_guesses_in_sequence_delays_the_right_password_by_a_turn_or_two() {
        let mut draws = StdRng::seed_from_u64(19);
        let mut in_time = |guessers| {
            (0..1_000)
                .filter(|_| turns_of_the_right_password(guessers, &mut draws).is_some())
                .count()
        };
        let of_guessers = [0, 1, 2, 4].map(&mut in_time);
        assert_eq!(of_guessers[0], 1_000);
        assert!(of_guessers[1] >= 998 && of_guessers[2] >= 980, "{of_guessers:?}");
        assert!(of_guessers[3] >= 750, "{of_guessers:?}");
    }

    #[test]
    fn r15_concurrent_attempts_count_like_sequential_ones() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None, Duration::ZERO);
        let [here, there] = origins(["192.0.2.1", "198.51.100.1"]);
        let begun: Vec<_> =
            (0..64).filter_map(|_| begin(&failures, "asha", here, &clock).ok()).collect();
        assert_eq!(begun.len(), 11, "with a late check");
        assert!(wait(&failures, "asha", there, &clock).is_none());
        begun.into_iter().for_each(Attempt::succeed);
        assert!(wait(&failures, "asha", here, &clock).is_none());
    }

    #[test]
    fn r15_after_sixty_failures_of_a_network_for_any_names_one_is_checked_every_second() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None, Duration::ZERO);
        let [here, there, proxy] = origins(["192.0.2.1", "198.51.100.1", "127.0.0.1"]);
        let browser = |n| Origin::Browser(Uuid::from_u128(n), here.address());
        begin(&failures, "ravi", here, &clock).map(Attempt::succeed).unwrap();
        let mut checked = 0;
        for n in 0..600 {
            let name = format!("name {n}");
            for from in [proxy, browser(n)] {
                assert!(begin(&failures, &name, from, &clock).is_ok(), "not limited: {n}");
            }
            checked +=
                usize::from(begin(&failures, &name, here, &clock).map(Attempt::fail).is_ok());
            clock.step(Duration::from_millis(100));
        }
        assert!((118..=121).contains(&checked), "{checked} of one minute");
        // The next one may be due now.
        let _ = begin(&failures, "next", here, &clock).map(Attempt::fail);
        let wait_of = |from| wait(&failures, "asha", from, &clock);
        assert!(wait_of(here).is_some_and(|wait| wait <= NETWORK_FORGOTTEN_AFTER));
        assert_eq!([there, proxy, browser(1)].map(wait_of), [None; 3]);
        assert_eq!(wait(&failures, "ravi", here, &clock), None, "has signed in from there");
        clock.step(NETWORK_FORGOTTEN_AFTER);
        // Successes leave the reserve as it is.
        for n in 0..100 {
            let right = begin(&failures, &format!("person {n}"), here, &clock);
            right.map(Attempt::succeed).unwrap();
        }
        assert_eq!(begin(&failures, "asha", here, &clock).map(Attempt::fail), Ok(None));
    }

    #[tokio::test]
    async fn r15_an_attempt_that_waited_for_its_network_is_one_of_too_many() {
        let (failures, clock) = (Failures::new(None, Duration::from_secs(60)), Clock::real());
        let [here] = origins(["192.0.2.1"]);
        for n in 0..NETWORK_BURST {
            begin(&failures, &format!("name {n}"), here, &clock).map(Attempt::fail).unwrap();
        }
        let password = Secret::new("a password");
        let guess = Guess { password: &password, hash: None };
        let begun = failures.begin("asha", here, guess, &clock).await.unwrap();
        assert_eq!(begun.fail(), Some(LATE_CHECK_EVERY));
        assert!(!failures.0.waiting.has_any(&network_key(here.address())));
        let again = failures.begin("asha", here, guess, &clock).await;
        assert!(matches!(again, Err(Refusal::KnownWrong)), "at once");
    }
}
