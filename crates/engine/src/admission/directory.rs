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

use super::cps::{Permit, Ring, Vacancy};
use super::index::{Index, Lookup};
use super::mail::MailRoutes;
use super::slots::Slots;
use crate::admission::settings::Permissions;
use model::Secret;
use model::{AppId, AuthId, E164, Method, PhoneNumberId, WabaId};
use xml::ast::DocUrl;

/// A number in the routing tables.
#[derive(Clone, Debug)]
pub struct NumberSpec {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    /// The id under which conversations and routing are stored. It is Meta's first id of the
    /// number: Meta assigns another one when the number is removed and added again.
    pub mail_id: PhoneNumberId,
    /// The WABA. Empty if the number has none.
    pub waba: WabaId,
    pub account: AuthId,
    pub alias: String,
    pub calling_enabled: bool,
    /// Whether the AI agent of the number is switched off. Then messages are not answered, nor are
    /// calls if there is no answer URL.
    pub silent: bool,
    pub answer: Option<(DocUrl, Method)>,
    pub fallback: Option<(DocUrl, Method)>,
    /// URL that receives the hangup callback. `None` for the answer URL.
    pub hangup: Option<(DocUrl, Method)>,
    /// URL that receives messages and statuses.
    pub messages: Option<DocUrl>,
    /// Maximum number of simultaneous calls.
    pub calls_per_number: u32,
    /// The rules for outbound calls.
    pub permissions: Permissions,
    /// The token of the WABA. `None` for the node's default.
    pub access_token: Option<Secret>,
}

/// An account in the routing tables.
#[derive(Clone, Debug)]
pub struct AccountSpec {
    pub auth_id: AuthId,
    /// The main account, if this is a subaccount.
    pub parent: Option<AuthId>,
    /// Calls per second. `None` is the default for a main account, and no limit except the main
    /// account's for a subaccount.
    pub cps: Option<u32>,
    /// The auth tokens: the current one and, during a rotation, the previous one. Both sign.
    pub tokens: Vec<Secret>,
}

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

impl NumberSpec {
    /// The limit that all nodes of a fleet share.
    pub fn limit_key(&self) -> LimitKey {
        LimitKey::number(self.number.as_str())
    }
}

/// A number and the counter of its live calls.
#[derive(Debug)]
pub struct NumberEntry {
    pub spec: NumberSpec,
    pub account: Arc<AccountEntry>,
    pub slots: &'static Slots,
}

impl NumberEntry {
    /// Returns whether a webhook or agent of `account` may serve the number: it must belong to the
    /// number's account or its main account.
    pub fn may_be_served_by(&self, account: &AuthId) -> bool {
        *account == self.account.auth_id || *account == self.account.main().auth_id
    }
}

/// An account and its live counter.
#[derive(Debug)]
pub struct AccountEntry {
    pub auth_id: AuthId,
    pub parent: Option<Arc<AccountEntry>>,
    pub tokens: Vec<Secret>,
    /// The ring of permits. Always set on a main account, where it also counts the calls of
    /// subaccounts.
    ring: Option<Arc<Ring>>,
    /// The configured calls per second. In a fleet, the ring contains only this node's share.
    cps: u32,
}

/// Free places on the ring of an account and on that of its main account, where there is one.
pub(super) type Vacancies = (Option<Vacancy>, Option<Vacancy>);

/// The permits that an admission has spent on the rings of an account.
#[derive(Debug)]
pub(super) struct Permits {
    /// When the permits were spent.
    at: u64,
    own: Option<Permit>,
    main: Option<Permit>,
}

impl AccountEntry {
    /// Returns the main account: this one or its parent.
    pub fn main(&self) -> &AccountEntry {
        self.parent.as_deref().unwrap_or(self)
    }

    /// Returns the limit of calls per second, and the number of permits that this node spent in the
    /// last second. Uses the main account's values if this account has no limit.
    pub(super) fn spent(&self, now: u64) -> (usize, usize) {
        match (&self.ring, &self.parent) {
            (Some(ring), _) => (usize::try_from(self.cps).unwrap_or(usize::MAX), ring.spent(now)),
            (None, Some(main)) => main.spent(now),
            (None, None) => (0, 0),
        }
    }

    /// The limits of calls per second that this node shares with other nodes.
    pub(super) fn shared_limits(&self) -> impl Iterator<Item = LimitKey> {
        let accounts = std::iter::once(self).chain(self.parent.as_deref());
        let is_part = |a: &&Self| {
            let limit = a.ring.as_ref().map(|ring| ring.limit());
            limit.is_some_and(|limit| limit < usize::try_from(a.cps).unwrap_or(usize::MAX))
        };
        accounts.filter(is_part).map(|account| LimitKey::account(account.auth_id.as_str()))
    }

    /// The rings that limit the account: its own and that of its main account.
    fn rings(&self) -> (Option<&Ring>, Option<&Ring>) {
        let main = self.parent.as_ref().and_then(|main| main.ring.as_deref());
        (self.ring.as_deref(), main)
    }

    /// Finds room for a call at `now`, if both limits allow it. Spends nothing.
    // Otherwise the result is written to memory and read back in another width.
    #[inline(always)]
    pub(super) fn find(&self, now: u64) -> Option<Vacancies> {
        let (own, main) = self.rings();
        let own = match own {
            Some(ring) => Some(ring.find(now)?),
            None => None,
        };
        let main = match main {
            Some(ring) => Some(ring.find(now)?),
            None => None,
        };
        Some((own, main))
    }

    /// The earliest time at which both limits allow a call.
    pub(super) fn room_at(&self, now: u64) -> u64 {
        let room =
            |account: &AccountEntry| account.ring.as_ref().map_or(now, |ring| ring.room_at(now));
        room(self).max(self.parent.as_deref().map_or(now, room))
    }

    /// Spends one permit of this account and of its main account, or neither. `found` is the
    /// result of [`AccountEntry::find`] at the same time.
    #[inline(always)]
    pub(super) fn take(&self, found: Vacancies, now: u64) -> Option<Permits> {
        let (own, main) = self.rings();
        let own = match (own, found.0) {
            (Some(ring), Some(found)) => Some(ring.take_found(found, now)?),
            _ => None,
        };
        let mut permits = Permits { at: now, own, main: None };
        if let (Some(ring), Some(found)) = (main, found.1) {
            permits.main = ring.take_found(found, now);
            if permits.main.is_none() {
                self.give_back(permits);
                return None;
            }
        }
        Some(permits)
    }

    pub(super) fn give_back(&self, permits: Permits) {
        let undo = |account: &AccountEntry, permit: Option<Permit>| {
            if let (Some(ring), Some(permit)) = (&account.ring, permit) {
                ring.give_back(permit, permits.at);
            }
        };
        undo(self, permits.own);
        if let Some(main) = &self.parent {
            undo(main, permits.main);
        }
    }
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

    /// Looks up the number with this `mail_id`.
    pub fn by_mail_id(&self, id: &PhoneNumberId) -> Option<&Arc<NumberEntry>> {
        let is_its = |number: &&Arc<NumberEntry>| number.spec.mail_id == *id;
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
    mail: MailRoutes,
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
            mail: MailRoutes::default(),
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
    pub fn mail(&self) -> &MailRoutes {
        &self.mail
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
