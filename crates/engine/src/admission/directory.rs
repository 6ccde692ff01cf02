//! The routing tables: the account, URLs and limits of each number.
//!
//! They are replaced as a whole when something changes; a call keeps the entry it started with.
//! Live counters are kept per number and per account and outlive every replacement, even one in
//! which the number was missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use fleet::LimitKey;
use tokio::sync::watch;

use super::cps::Ring;
use super::entry::{AccountEntry, AccountSpec, NumberEntry, NumberSpec};
use super::index::{Index, Lookup};
use super::message_routes::MessageRoutes;
use super::slots::Slots;
use model::{AppId, AuthId, E164, Method, PhoneNumberId};
use xml::ast::DocUrl;

/// A named set of URLs that numbers and endpoints can use. It may have none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationSpec {
    pub id: AppId,
    /// The owner; see [`store::Scope::holds`].
    pub account: AuthId,
    pub answer: Option<(DocUrl, Method)>,
    pub fallback: Option<(DocUrl, Method)>,
    /// URL that receives the hangup callback. `None` for the answer URL.
    pub hangup: Option<(DocUrl, Method)>,
    /// Whether endpoints without an application use this one.
    pub default_for_endpoints: bool,
}

/// The input of the tables.
#[derive(Clone, Debug, Default)]
pub struct Specs {
    /// `[limits].default_cps`.
    pub default_cps: u32,
    pub accounts: Vec<AccountSpec>,
    pub numbers: Vec<NumberSpec>,
    pub applications: Vec<ApplicationSpec>,
}

/// One immutable state of the tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// Looked up for every webhook. The ids come from the node's own configuration, so an attacker
    /// cannot choose colliding keys.
    by_id: HashMap<PhoneNumberId, Arc<NumberEntry>, foldhash::fast::RandomState>,
    by_number: BTreeMap<E164, Arc<NumberEntry>>,
    accounts: BTreeMap<AuthId, Arc<AccountEntry>>,
    applications: BTreeMap<AppId, Arc<ApplicationSpec>>,
}

impl Tables {
    /// Looks up an application.
    pub fn application(&self, id: &AppId) -> Option<&Arc<ApplicationSpec>> {
        self.applications.get(id)
    }

    /// The application of an endpoint of the account: `own`, unless there is none or it was deleted,
    /// or else the one for endpoints without an application.
    pub fn application_of_endpoint(
        &self,
        own: Option<&AppId>,
        account: &AuthId,
    ) -> Option<&Arc<ApplicationSpec>> {
        let own = own.and_then(|id| self.application(id));
        own.or_else(|| self.endpoints_application(account))
    }

    /// The application for endpoints of the account without one: the account's default, or else its
    /// main account's.
    pub fn endpoints_application(&self, account: &AuthId) -> Option<&Arc<ApplicationSpec>> {
        let default_of = |id: &AuthId| {
            self.applications.values().find(|a| a.default_for_endpoints && a.account == *id)
        };
        default_of(account).or_else(|| default_of(&self.account(account)?.main().auth_id))
    }

    /// Looks up a number by Meta's id.
    pub fn number(&self, id: &PhoneNumberId) -> Option<&Arc<NumberEntry>> {
        self.by_id.get(id)
    }

    /// Looks up the number with this `first_id`.
    pub fn by_first_id(&self, id: &PhoneNumberId) -> Option<&Arc<NumberEntry>> {
        let is_its = |number: &&Arc<NumberEntry>| number.spec.first_id == *id;
        self.by_id.get(id).filter(is_its).or_else(|| self.numbers().find(is_its))
    }

    /// Looks up a business number.
    pub fn by_number(&self, number: &E164) -> Option<&Arc<NumberEntry>> {
        self.by_number.get(number)
    }

    /// Looks up an account or subaccount.
    pub fn account(&self, id: &AuthId) -> Option<&Arc<AccountEntry>> {
        self.accounts.get(id)
    }

    /// All numbers, in order.
    pub fn numbers(&self) -> impl Iterator<Item = &Arc<NumberEntry>> {
        self.by_number.values()
    }

    /// All accounts, in order.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<AccountEntry>> {
        self.accounts.values()
    }
}

/// Why the tables could not be replaced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DirectoryError {
    #[error("{of} refers to unknown account {account}; add the account or correct the reference")]
    UnknownAccount { of: String, account: AuthId },
    #[error("subaccount {0} has a subaccount as parent; name its main account instead")]
    NestedSubaccount(AuthId),
    #[error("{0} is listed twice; remove one of the two")]
    Twice(String),
}

/// The current tables. Reads take no lock.
#[derive(Debug)]
pub struct Directory {
    tables: ArcSwap<Tables>,
    /// An index of the same numbers, optimized for admission.
    index: Index,
    counters: Mutex<Counters>,
    /// Written only while `counters` is locked.
    default_cps: AtomicU32,
    message_routes: MessageRoutes,
    /// The configured limits, if the counters contain only this node's share.
    caps: Option<watch::Sender<Caps>>,
}

/// The configured limits of a node of a fleet.
pub type Caps = Arc<BTreeMap<LimitKey, u32>>;

/// The live counters by owner. A number that is removed and added again finds its live calls
/// counted.
#[derive(Debug, Default)]
struct Counters {
    slots: BTreeMap<E164, &'static Slots>,
    rings: BTreeMap<AuthId, Weak<Ring>>,
    /// The counters by limit, and the configured limits. Only used in a fleet.
    by_key: BTreeMap<LimitKey, Counter>,
    caps: Option<BTreeMap<LimitKey, u32>>,
}

/// A live counter of a limit that all nodes of a fleet share.
#[derive(Clone, Debug)]
pub enum Counter {
    Slots(&'static Slots),
    Ring(Arc<Ring>),
}

/// The units of a node, summed over all limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitCounts {
    /// Slots of numbers.
    pub slots_held: u64,
    /// Slots that are used by live calls.
    pub slots_used: u64,
    /// Permits of accounts (calls per second).
    pub permits_held: u64,
    /// Permits spent within the last second.
    pub permits_used: u64,
}

impl Directory {
    /// Creates empty tables. `default_cps` is `[limits].default_cps`.
    pub fn new(default_cps: u32) -> Self {
        Self {
            tables: ArcSwap::default(),
            index: Index::default(),
            counters: Mutex::default(),
            default_cps: AtomicU32::new(default_cps),
            message_routes: MessageRoutes::default(),
            caps: None,
        }
    }

    /// Like [`Directory::new`], for a node of a fleet. New counters admit nothing: the fleet sets
    /// their limits, see [`Directory::counter`].
    pub fn shared(default_cps: u32) -> Self {
        Self { caps: Some(watch::Sender::default()), ..Self::new(default_cps) }
    }

    /// The configured limits, if the fleet sets the limits of the counters.
    pub fn caps(&self) -> Option<watch::Receiver<Caps>> {
        self.caps.as_ref().map(watch::Sender::subscribe)
    }

    /// Returns the counter of a limit if the fleet manages it.
    pub fn counter(&self, key: &LimitKey) -> Option<Counter> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.by_key.get(key).cloned()
    }

    /// The units of all limits that this node holds, or zero outside a fleet. `now` is the time of
    /// the rings.
    pub(super) fn units(&self, now: u64) -> UnitCounts {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = UnitCounts::default();
        for counter in counters.by_key.values() {
            match counter {
                Counter::Slots(slots) => {
                    counts.slots_held += u64::from(slots.limit());
                    counts.slots_used += u64::from(slots.in_use());
                }
                Counter::Ring(ring) => {
                    counts.permits_held += ring.limit() as u64;
                    counts.permits_used += ring.spent(now) as u64;
                }
            }
        }
        counts
    }

    /// The current tables. Hold the guard only briefly.
    pub fn tables(&self) -> arc_swap::Guard<Arc<Tables>> {
        self.tables.load()
    }

    /// The routes of messages.
    pub fn message_routes(&self) -> &MessageRoutes {
        &self.message_routes
    }

    /// Looks up a number by Meta's id and returns an owned entry.
    pub fn number(&self, id: &PhoneNumberId) -> Option<Arc<NumberEntry>> {
        match self.index.find(id) {
            Lookup::Entry(entry) => Some(entry),
            Lookup::Replaced => self.tables().number(id).cloned(),
            Lookup::Unknown => None,
        }
    }

    /// The slots in use of every number, in order. Includes removed numbers with live calls.
    pub fn slots_in_use(&self) -> Vec<(E164, u32)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.slots.iter().map(|(number, slots)| (number.clone(), slots.in_use())).collect()
    }

    /// Replaces accounts and numbers, effective for the next call. Live calls keep their entries
    /// and stay counted.
    ///
    /// # Errors
    ///
    /// Returns an error if an entry refers to an unknown account or is listed twice. Then nothing
    /// has changed.
    pub fn replace(
        &self,
        accounts: Vec<AccountSpec>,
        numbers: Vec<NumberSpec>,
    ) -> Result<(), DirectoryError> {
        let default_cps = self.default_cps.load(Ordering::Relaxed);
        self.replace_all(Specs { default_cps, accounts, numbers, applications: Vec::new() })
    }

    /// Like [`Directory::replace`], with all tables.
    ///
    /// # Errors
    ///
    /// See [`Directory::replace`].
    pub fn replace_all(&self, specs: Specs) -> Result<(), DirectoryError> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let Specs { default_cps, accounts, numbers, applications } = specs;
        let plan = Plan::check(accounts, numbers)?;
        self.default_cps.store(default_cps, Ordering::Relaxed);
        counters.caps = self.caps.is_some().then(BTreeMap::new);
        let mut tables = plan.build(&mut counters, default_cps);
        tables.applications =
            applications.into_iter().map(|a| (a.id.clone(), Arc::new(a))).collect();
        // Update the index before the entries that it refers to are dropped.
        self.index.replace(tables.numbers());
        self.tables.store(Arc::new(tables));
        if let (Some(sender), Some(caps)) = (&self.caps, counters.caps.take()) {
            sender.send_if_modified(|before| {
                let is_changed = **before != caps;
                if is_changed {
                    *before = Arc::new(caps);
                }
                is_changed
            });
        }
        Ok(())
    }
}

/// Checked input: main accounts, then subaccounts, then numbers.
struct Plan {
    mains: Vec<AccountSpec>,
    subs: Vec<(AuthId, AccountSpec)>,
    numbers: Vec<NumberSpec>,
}

impl Plan {
    fn check(accounts: Vec<AccountSpec>, numbers: Vec<NumberSpec>) -> Result<Self, DirectoryError> {
        let mut parents = BTreeMap::new();
        for account in &accounts {
            if parents.insert(account.auth_id.clone(), account.parent.clone()).is_some() {
                return Err(DirectoryError::Twice(format!("account {}", account.auth_id)));
            }
        }
        let (mut mains, mut subs) = (Vec::new(), Vec::new());
        for account in accounts {
            match account.parent.clone() {
                None => mains.push(account),
                Some(parent) => match parents.get(&parent) {
                    Some(None) => subs.push((parent, account)),
                    Some(Some(_)) => return Err(DirectoryError::NestedSubaccount(account.auth_id)),
                    None => {
                        let of = format!("subaccount {}", account.auth_id);
                        return Err(DirectoryError::UnknownAccount { of, account: parent });
                    }
                },
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for number in &numbers {
            if !parents.contains_key(&number.account) {
                let of = format!("number {}", number.number);
                return Err(DirectoryError::UnknownAccount { of, account: number.account.clone() });
            }
            for name in [
                format!("number {}", number.number),
                format!("phone_number_id {}", number.phone_number_id),
            ] {
                if !seen.insert(name.clone()) {
                    return Err(DirectoryError::Twice(name));
                }
            }
        }
        Ok(Self { mains, subs, numbers })
    }

    fn build(self, counters: &mut Counters, default_cps: u32) -> Tables {
        let mut tables = Tables::default();
        for spec in self.mains {
            let cps = spec.cps.unwrap_or(default_cps);
            let ring = Some(counters.ring(&spec.auth_id, cps));
            tables.add_account(spec, None, ring, cps);
        }
        for (parent, spec) in self.subs {
            let ring = spec.cps.map(|cps| counters.ring(&spec.auth_id, cps));
            let (parent, cps) = (tables.account(&parent).cloned(), spec.cps.unwrap_or_default());
            tables.add_account(spec, parent, ring, cps);
        }
        for spec in self.numbers {
            // Never missing: `check` has seen the account of every number.
            let Some(account) = tables.account(&spec.account).cloned() else { continue };
            let slots = counters.slots(&spec.number, spec.calls_per_number);
            let entry = Arc::new(NumberEntry { account, slots, spec });
            tables.by_id.insert(entry.spec.phone_number_id.clone(), entry.clone());
            tables.by_number.insert(entry.spec.number.clone(), entry);
        }
        tables
    }
}

impl Tables {
    fn add_account(
        &mut self,
        spec: AccountSpec,
        parent: Option<Arc<AccountEntry>>,
        ring: Option<Arc<Ring>>,
        cps: u32,
    ) {
        let entry = AccountEntry { auth_id: spec.auth_id, parent, tokens: spec.tokens, ring, cps };
        self.accounts.insert(entry.auth_id.clone(), Arc::new(entry));
    }
}

impl Counters {
    fn slots(&mut self, number: &E164, cap: u32) -> &'static Slots {
        let limit = self.limit(LimitKey::number(number.as_str()), cap);
        let slots = match (self.slots.get(number), limit) {
            (Some(slots), None) => return slots,
            (Some(slots), Some(limit)) => {
                slots.set_limit(limit);
                return slots;
            }
            (None, limit) => Slots::new(limit.unwrap_or_default()),
        };
        self.slots.insert(number.clone(), slots);
        if limit.is_none() {
            self.by_key.insert(LimitKey::number(number.as_str()), Counter::Slots(slots));
        }
        slots
    }

    fn ring(&mut self, account: &AuthId, cap: u32) -> Arc<Ring> {
        let limit = self.limit(LimitKey::account(account.as_str()), cap);
        if let Some(ring) = self.rings.get(account).and_then(Weak::upgrade) {
            if let Some(limit) = limit {
                ring.set_limit(limit);
            }
            return ring;
        }
        let ring = Arc::new(Ring::new(limit.unwrap_or_default()));
        self.rings.insert(account.clone(), Arc::downgrade(&ring));
        if limit.is_none() {
            // Never dropped: the fleet's part of a removed account must be found again.
            let counter = Counter::Ring(ring.clone());
            self.by_key.insert(LimitKey::account(account.as_str()), counter);
        }
        ring
    }

    /// The initial limit of a counter: the cap, or `None` if the fleet manages the limit.
    fn limit(&mut self, key: LimitKey, cap: u32) -> Option<u32> {
        match &mut self.caps {
            None => Some(cap),
            Some(caps) => {
                caps.insert(key, cap);
                None
            }
        }
    }
}
