//! The routing tables: which number is whose, where its documents are, what it may carry.
//!
//! Replaced whole when something changes; a call keeps the entry it began with (S0.25). Live counters are kept by
//! number and by account and outlive every replacement, also one in which the number was missing for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::cps::{Permit, Ring};
use super::index::{Found, Index};
use super::mail::MailRoutes;
use super::slots::Slots;
use crate::admission::settings::Permissions;
use model::Secret;
use model::{AppId, AuthId, E164, Method, PhoneNumberId, WabaId};
use xml::ast::DocUrl;

/// A number as the configuration and the store describe it.
#[derive(Clone, Debug)]
pub struct NumberSpec {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    /// Under which its conversations and its routing are kept: Meta's first id of it. Meta gives a number that is added anew
    /// another one, and it is the same number here.
    pub mail_id: PhoneNumberId,
    /// Empty where it has none.
    pub waba: WabaId,
    pub account: AuthId,
    pub alias: String,
    pub calling_enabled: bool,
    /// Its agent answers nobody just now: neither messages nor, where there is no answer URL, calls.
    pub silent: bool,
    pub answer: Option<(DocUrl, Method)>,
    pub fallback: Option<(DocUrl, Method)>,
    /// Where the hangup callback goes; none: the answer URL.
    pub hangup: Option<(DocUrl, Method)>,
    /// Where messages and their statuses go.
    pub messages: Option<DocUrl>,
    /// Simultaneous calls (L4).
    pub calls_per_number: u32,
    /// The rules for calls that go out.
    pub permissions: Permissions,
    /// The token of its WABA; none: the node's default.
    pub access_token: Option<Secret>,
}

/// An account as the configuration and the store describe it.
#[derive(Clone, Debug)]
pub struct AccountSpec {
    pub auth_id: AuthId,
    /// The main account of a subaccount.
    pub parent: Option<AuthId>,
    /// Calls per second. None: the default on a main account, no limit beside the main account's on a subaccount.
    pub cps: Option<u32>,
    /// The auth token, then the previous one while it is being changed: both sign.
    pub tokens: Vec<Secret>,
}

/// An application: URLs under a name, for what names it. It may have none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationSpec {
    pub id: AppId,
    /// Who has it: for [`store::Scope::holds`] with its account's main one.
    pub account: AuthId,
    pub answer: Option<(DocUrl, Method)>,
    pub fallback: Option<(DocUrl, Method)>,
    /// Where the hangup callback goes; none: the answer URL.
    pub hangup: Option<(DocUrl, Method)>,
    /// For the account's endpoints that name none.
    pub default_for_endpoints: bool,
}

/// Everything that the tables are made of.
#[derive(Clone, Debug, Default)]
pub struct Specs {
    /// `[limits].default_cps`.
    pub default_cps: u32,
    pub accounts: Vec<AccountSpec>,
    pub numbers: Vec<NumberSpec>,
    pub applications: Vec<ApplicationSpec>,
}

/// A number that calls come to, and its live counter.
#[derive(Debug)]
pub struct NumberEntry {
    pub spec: NumberSpec,
    pub account: Arc<AccountEntry>,
    pub slots: &'static Slots,
}

/// An account and its live counter.
#[derive(Debug)]
pub struct AccountEntry {
    pub auth_id: AuthId,
    pub parent: Option<Arc<AccountEntry>>,
    pub tokens: Vec<Secret>,
    /// Always there on a main account, whose ring counts its subaccounts' calls too (L5).
    ring: Option<Arc<Ring>>,
}

/// What an admission spent on the rings of an account.
#[derive(Debug)]
pub(super) struct Permits {
    /// When.
    at: u64,
    own: Option<Permit>,
    main: Option<Permit>,
}

impl AccountEntry {
    /// The main account: itself, or its parent.
    pub fn main(&self) -> &AccountEntry {
        self.parent.as_deref().unwrap_or(self)
    }

    /// Its calls per second, and how many of the last second are spent: its own, or its main account's where it has
    /// no limit of its own.
    pub(super) fn spent(&self, now: u64) -> (usize, usize) {
        let ring = self.ring.as_ref().or_else(|| self.parent.as_ref()?.ring.as_ref());
        ring.map_or((0, 0), |ring| (ring.limit(), ring.spent(now)))
    }

    /// Whether both limits have room at `now`; spends nothing.
    pub(super) fn has_room(&self, now: u64) -> bool {
        let room =
            |account: &AccountEntry| account.ring.as_ref().is_none_or(|ring| ring.has_room(now));
        room(self) && self.parent.as_deref().is_none_or(room)
    }

    /// When both limits have room, as they stand at `now`.
    pub(super) fn room_at(&self, now: u64) -> u64 {
        let room =
            |account: &AccountEntry| account.ring.as_ref().map_or(now, |ring| ring.room_at(now));
        room(self).max(self.parent.as_deref().map_or(now, room))
    }

    /// Spends one permit of this account and of its main account, or neither.
    #[inline]
    pub(super) fn take(&self, now: u64) -> Option<Permits> {
        let own = match &self.ring {
            Some(ring) => Some(ring.take(now)?),
            None => None,
        };
        let mut permits = Permits { at: now, own, main: None };
        if let Some(ring) = self.parent.as_ref().and_then(|main| main.ring.as_ref()) {
            permits.main = ring.take(now);
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

/// One state of the tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// Asked for every webhook. The ids in it are our own configuration's: no stranger can make them collide.
    by_id: HashMap<PhoneNumberId, Arc<NumberEntry>, foldhash::fast::RandomState>,
    by_number: BTreeMap<E164, Arc<NumberEntry>>,
    accounts: BTreeMap<AuthId, Arc<AccountEntry>>,
    applications: BTreeMap<AppId, Arc<ApplicationSpec>>,
}

impl Tables {
    /// An application's URLs.
    pub fn application(&self, id: &AppId) -> Option<&Arc<ApplicationSpec>> {
        self.applications.get(id)
    }
    /// The application of an account's endpoints that name none: its own default, else its main account's.
    pub fn endpoints_application(&self, account: &AuthId) -> Option<&Arc<ApplicationSpec>> {
        let default_of = |id: &AuthId| {
            self.applications.values().find(|a| a.default_for_endpoints && a.account == *id)
        };
        default_of(account).or_else(|| default_of(&self.account(account)?.main().auth_id))
    }
    /// The number of Meta's id.
    pub fn number(&self, id: &PhoneNumberId) -> Option<&Arc<NumberEntry>> {
        self.by_id.get(id)
    }
    /// The number whose conversations are kept under this id.
    pub fn by_mail_id(&self, id: &PhoneNumberId) -> Option<&Arc<NumberEntry>> {
        let is_its = |number: &&Arc<NumberEntry>| number.spec.mail_id == *id;
        self.by_id.get(id).filter(is_its).or_else(|| self.numbers().find(is_its))
    }
    /// The entry of a business number.
    pub fn by_number(&self, number: &E164) -> Option<&Arc<NumberEntry>> {
        self.by_number.get(number)
    }
    /// An account or subaccount.
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

/// Why tables could not be put in place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DirectoryError {
    #[error("find account {account}, which {of} names; add it or correct the name")]
    UnknownAccount { of: String, account: AuthId },
    #[error("put subaccount {0} under another subaccount; name its main account as parent")]
    NestedSubaccount(AuthId),
    #[error("list {0} twice; keep one of the two")]
    Twice(String),
}

/// The tables in force. Reading costs no lock; replacing is done by one at a time.
#[derive(Debug)]
pub struct Directory {
    tables: ArcSwap<Tables>,
    /// The same tables' numbers, for admissions.
    index: Index,
    counters: Mutex<Counters>,
    /// Changed only while the counters are held.
    default_cps: AtomicU32,
    /// Where messages go.
    mail: MailRoutes,
}

/// Every live counter by its owner, so that a number that leaves and comes back finds its live calls counted.
#[derive(Debug, Default)]
struct Counters {
    slots: BTreeMap<E164, &'static Slots>,
    rings: BTreeMap<AuthId, Weak<Ring>>,
}

impl Directory {
    /// Empty tables; `default_cps` is `[limits].default_cps`.
    pub fn new(default_cps: u32) -> Self {
        Self {
            tables: ArcSwap::default(),
            index: Index::default(),
            counters: Mutex::default(),
            default_cps: AtomicU32::new(default_cps),
            mail: MailRoutes::default(),
        }
    }

    /// The tables as they stand; hold them no longer than one question takes.
    pub fn tables(&self) -> arc_swap::Guard<Arc<Tables>> {
        self.tables.load()
    }

    /// Where messages go.
    pub fn mail(&self) -> &MailRoutes {
        &self.mail
    }

    /// The number of Meta's id, to keep.
    pub fn number(&self, id: &PhoneNumberId) -> Option<Arc<NumberEntry>> {
        match self.index.find(id) {
            Found::Entry(entry) => Some(entry),
            Found::Replaced => self.tables().number(id).cloned(),
            Found::Unknown => None,
        }
    }

    /// Slots in use of every number, in order; also of numbers that have left the tables while calls go on.
    pub fn slots_in_use(&self) -> Vec<(E164, u32)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.slots.iter().map(|(number, slots)| (number.clone(), slots.in_use())).collect()
    }

    /// Puts new tables in force, for the next call on. Live calls keep what they have and stay counted.
    ///
    /// # Errors
    /// A name that is nowhere, or twice; then nothing has changed.
    pub fn replace(
        &self,
        accounts: Vec<AccountSpec>,
        numbers: Vec<NumberSpec>,
    ) -> Result<(), DirectoryError> {
        let default_cps = self.default_cps.load(Ordering::Relaxed);
        self.replace_all(Specs { default_cps, accounts, numbers, applications: Vec::new() })
    }

    /// [`Directory::replace`] with everything there is.
    ///
    /// # Errors
    /// The same.
    pub fn replace_all(&self, specs: Specs) -> Result<(), DirectoryError> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let Specs { default_cps, accounts, numbers, applications } = specs;
        let plan = Plan::check(accounts, numbers)?;
        self.default_cps.store(default_cps, Ordering::Relaxed);
        let mut tables = plan.build(&mut counters, default_cps);
        tables.applications =
            applications.into_iter().map(|a| (a.id.clone(), Arc::new(a))).collect();
        // Before the entries that it replaces go.
        self.index.replace(tables.numbers());
        self.tables.store(Arc::new(tables));
        Ok(())
    }
}

/// Specs known to be sound: main accounts, then subaccounts, then numbers.
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
            let ring = Some(counters.ring(&spec.auth_id, spec.cps.unwrap_or(default_cps)));
            tables.add_account(spec, None, ring);
        }
        for (parent, spec) in self.subs {
            let ring = spec.cps.map(|cps| counters.ring(&spec.auth_id, cps));
            let parent = tables.account(&parent).cloned();
            tables.add_account(spec, parent, ring);
        }
        for spec in self.numbers {
            // `check` has seen every account a number names.
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
    ) {
        let entry = AccountEntry { auth_id: spec.auth_id, parent, tokens: spec.tokens, ring };
        self.accounts.insert(entry.auth_id.clone(), Arc::new(entry));
    }
}

impl Counters {
    fn slots(&mut self, number: &E164, limit: u32) -> &'static Slots {
        if let Some(slots) = self.slots.get(number) {
            slots.set_limit(limit);
            return slots;
        }
        let slots = Slots::new(limit);
        self.slots.insert(number.clone(), slots);
        slots
    }

    fn ring(&mut self, account: &AuthId, limit: u32) -> Arc<Ring> {
        if let Some(ring) = self.rings.get(account).and_then(Weak::upgrade) {
            ring.set_limit(limit);
            return ring;
        }
        let ring = Arc::new(Ring::new(limit));
        self.rings.insert(account.clone(), Arc::downgrade(&ring));
        ring
    }
}
