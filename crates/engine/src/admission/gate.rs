//! The gate: [`Gate::admit`] admits calls from users, [`Gate::admit_business`] calls to users, and
//! [`Gate::admit_web`] calls with an endpoint's phone.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fleet::LimitKey;
use futures_util::future::BoxFuture;

use super::directory::{Directory, UnitCounts};
use super::entry::{AccountEntry, NumberEntry, Permits};
use super::geo::{self, Barred};
use super::permission::{Consents, Engaged, PairKey, Refusal};
use super::refusals::{RefusalCounts, Refusals};
use super::slots::Slot;
use model::{AuthId, Clock, Direction, PhoneNumberId, Timestamp, metric};

/// Interval at which to look whether a pause is over.
const PAUSE_LOOK: Duration = Duration::from_millis(100);

/// Time after a pause within which the webhooks that waited have come.
const PAUSE_LATE: Duration = Duration::from_millis(1_500);

/// Interval between attempts to admit a call that lacks a unit of the fleet, and the maximum time
/// spent on that.
const LEASE_RETRY: Duration = Duration::from_millis(20);
const LEASE_WAIT: Duration = Duration::from_secs(1);

/// Why a call is refused. The `result` label of `offhook_admission_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    NumberFull,
    CpsExceeded,
    UnknownNumber,
    CallingDisabled,
    NoPermission,
    GeoBlocked,
    UserBusy,
    BadOffer,
    Overloaded,
    Draining,
    Duplicate,
}

impl Reason {
    /// The word used as metric label and in logs.
    pub fn as_str(self) -> &'static str {
        use metric::admission as word;
        match self {
            Self::NumberFull => word::NUMBER_FULL,
            Self::CpsExceeded => word::CPS_EXCEEDED,
            Self::UnknownNumber => word::UNKNOWN_NUMBER,
            Self::CallingDisabled => word::CALLING_DISABLED,
            Self::NoPermission => word::NO_PERMISSION,
            Self::GeoBlocked => word::GEO_BLOCKED,
            Self::UserBusy => word::USER_BUSY,
            Self::BadOffer => word::BAD_OFFER,
            Self::Overloaded => word::OVERLOADED,
            Self::Draining => word::DRAINING,
            Self::Duplicate => word::DUPLICATE,
        }
    }

    /// The sentence for people who place calls: what refuses the call, and what to look at.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NumberFull => "the number has reached its limit of simultaneous calls",
            Self::CpsExceeded => "the account has reached its limit of calls per second",
            Self::UnknownNumber => "the calling number is not a connected number of the account",
            Self::CallingDisabled => "calling is not enabled for this number",
            Self::NoPermission => {
                "the user has not permitted calls of this number, or a limit of such calls is reached: look at the \
                 permission of number and user"
            }
            Self::GeoBlocked => "numbers of this country may not place calls",
            Self::UserBusy => "a call between this number and this user is in progress",
            Self::BadOffer => "the caller's SDP offer has no audio that can be answered",
            Self::Overloaded => {
                "the node can't take more calls now: its log and offhook_admission_total say why"
            }
            Self::Draining => "the node is draining and takes no new calls",
            Self::Duplicate => "the call is known already",
        }
    }
}

/// A refused call.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: Reason,
    /// The called number, or `None` if it is unknown.
    pub number: Option<Arc<NumberEntry>>,
}

/// A refused business-initiated call, with the rule that refused it and the time until which it
/// applies.
#[derive(Clone, Debug)]
pub struct Denied {
    pub reason: Reason,
    pub because: RefusalDetail,
    /// The calling number, or `None` if it is unknown.
    pub number: Option<Arc<NumberEntry>>,
}

/// The details of a [`Denied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalDetail {
    /// The reason needs no details.
    Reason,
    Country(Barred),
    Permission(Refusal),
}

impl Denied {
    /// When the call will be allowed, if this depends only on time.
    pub fn again(&self) -> Option<Timestamp> {
        match self.because {
            RefusalDetail::Permission(refusal) => refusal.again,
            RefusalDetail::Reason | RefusalDetail::Country(_) => None,
        }
    }

    /// The sentence alone, for errors that have the reason as their code.
    pub fn sentence(&self) -> String {
        match &self.because {
            RefusalDetail::Reason => self.reason.sentence().to_owned(),
            RefusalDetail::Country(barred) => barred.to_string(),
            RefusalDetail::Permission(refusal) => refusal.to_string(),
        }
    }
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.sentence())
    }
}

/// An admitted business-initiated call, and the mark that its user is in a call. Both must be held
/// for the duration of the call.
pub type Outgoing = (Admitted, Engaged);

/// An admitted call. Only the gate creates one. Dropping it releases the slot.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    number: Arc<NumberEntry>,
    slot: Slot,
    permits: Permits,
}

impl Admitted {
    /// The number that the call was admitted for.
    pub fn number(&self) -> &Arc<NumberEntry> {
        &self.number
    }

    /// Starts the call. Returns the number's entry at the time of admission, and the slot, which
    /// must be held until the call has ended.
    pub fn begin(self) -> (Arc<NumberEntry>, Slot) {
        (self.number, self.slot)
    }

    /// Cancels the call for an internal reason. Slot and permit are released as if they had never
    /// been taken.
    pub fn withdraw(self) {
        self.number.account.give_back(self.permits);
    }
}

/// An admitted web leg. It has spent a permit of its account and takes no slot of a number. Only
/// the gate creates one.
#[derive(Debug)]
#[must_use]
pub struct WebAdmitted {
    account: Arc<AccountEntry>,
    permits: Permits,
}

impl WebAdmitted {
    /// The account of the leg.
    pub fn account(&self) -> &Arc<AccountEntry> {
        &self.account
    }

    /// Starts the leg.
    pub fn begin(self) -> Arc<AccountEntry> {
        self.account
    }

    /// Cancels the leg for an internal reason. The permit is released as if it had never been
    /// spent.
    pub fn withdraw(self) {
        self.account.give_back(self.permits);
    }
}

/// Access to the units of a fleet. Other nodes hold a share of the units of each limit.
pub trait Lease: Debug + Send + Sync {
    /// Whether this process may admit calls now. Checked after the units of a call were taken, so
    /// that a process that was paused in between admits no call.
    fn admits(&self) -> bool;

    /// Reports that an admission lacks something. The fleet tries to provide it for the next call.
    fn request(&self, lack: &Lack);

    /// Waits until an admission that lacks something should be tried again. It was first tried at
    /// `since`. Returns `false` if waiting is of no use.
    fn wait<'a>(&'a self, lack: &'a Lack, since: Instant) -> BoxFuture<'a, bool>;

    /// Whether another process takes over from another node, so that webhooks wait there.
    fn is_peer_moving(&self) -> bool;
}

/// What an admission lacks and the fleet may be able to provide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Units of these limits. Other nodes may hold free ones.
    Units(Vec<LimitKey>),
    /// A recent confirmation that the fleet has not declared this process dead.
    Contact,
}

/// Admits calls. Every call of the node passes it.
#[derive(Debug)]
pub struct Gate {
    directory: Arc<Directory>,
    /// The instant from which the rings count nanoseconds.
    origin: Instant,
    draining: AtomicBool,
    paused: AtomicBool,
    /// When the last pause ended, in nanoseconds after `origin` and 1. 0 if there was none.
    resumed: AtomicU64,
    /// The access to the units of a fleet. Set if the node is part of one.
    lease: OnceLock<Arc<dyn Lease>>,
    refusals: RefusalCounts,
}

impl Gate {
    /// Creates a gate over these tables. `origin` is any instant before the first call.
    pub fn new(directory: Arc<Directory>, origin: Instant) -> Self {
        Self {
            directory,
            origin,
            draining: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            resumed: AtomicU64::new(0),
            lease: OnceLock::new(),
            refusals: RefusalCounts::default(),
        }
    }

    /// Makes admissions depend on a fleet. Only the first call has an effect.
    pub fn join(&self, lease: Arc<dyn Lease>) {
        let _ = self.lease.set(lease);
    }

    /// Returns what a refused call of this number lacks and the fleet may be able to provide.
    /// `None` if the node holds all units, is not part of a fleet, or does not know the number.
    fn lack(&self, number: Option<&NumberEntry>, reason: Reason) -> Option<Lack> {
        let number = number.filter(|_| self.lease.get().is_some())?;
        match reason {
            Reason::NumberFull => {
                let is_part = number.slots.limit() < number.spec.calls_per_number;
                is_part.then(|| Lack::Units(vec![number.spec.limit_key()]))
            }
            reason => self.lack_of_account(&number.account, reason),
        }
    }

    /// Like [`Gate::lack`], for a call that needs no slot of a number.
    fn lack_of_account(&self, account: &AccountEntry, reason: Reason) -> Option<Lack> {
        let lease = self.lease.get()?;
        match reason {
            Reason::CpsExceeded => {
                let keys: Vec<LimitKey> = account.shared_limits().collect();
                (!keys.is_empty()).then_some(Lack::Units(keys))
            }
            Reason::Overloaded if !lease.admits() => Some(Lack::Contact),
            _ => None,
        }
    }

    /// Attempts an admission, and again while the fleet may be able to provide what it lacks. Also
    /// returns whether it was attempted more than once.
    async fn attempt_in_fleet<T, E>(
        &self,
        clock: &Clock,
        mut attempt: impl FnMut() -> Result<T, E>,
        lack: impl Fn(&E) -> Option<Lack>,
    ) -> (Result<T, E>, bool) {
        let since = clock.now();
        let mut has_waited = false;
        loop {
            let refused = match attempt() {
                Ok(admitted) => return (Ok(admitted), has_waited),
                Err(refused) => refused,
            };
            let again = match (self.lease.get(), lack(&refused)) {
                (Some(lease), Some(lack)) => lease.wait(&lack, since).await,
                _ => false,
            };
            if !again {
                return (Err(refused), has_waited);
            }
            has_waited = true;
        }
    }

    /// Reports to the fleet what a refused call lacks, so that a later call can be admitted.
    fn request(&self, lack: Option<Lack>) {
        if let (Some(lease), Some(lack)) = (self.lease.get(), lack) {
            lease.request(&lack);
        }
    }

    /// The routing tables.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether a slot of a number and a permit of its account are free on this node. `true` if the
    /// number is unknown.
    pub fn has_units(&self, now: Instant, id: &PhoneNumberId) -> bool {
        self.directory.number(id).is_none_or(|number| {
            number.slots.has_room() && number.account.find(self.since(now)).is_some()
        })
    }

    /// Refuses every call from here on, for draining.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Refuses calls that come in, for an upgrade. Live calls can still dial.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    /// Ends a [`Gate::pause`], of this process or of the one that it continues.
    pub fn resume(&self, now: Instant) {
        self.resumed.store(self.since(now).saturating_add(1), Ordering::Release);
        self.paused.store(false, Ordering::Release);
    }

    /// How long to wait before a missing webhook means that Meta has not sent it. Webhooks wait
    /// during a pause of this node, or of another one that would forward them, and come one after the
    /// other after it.
    pub fn webhooks_late(&self, now: Instant) -> Duration {
        let is_peer_moving = || self.lease.get().is_some_and(|lease| lease.is_peer_moving());
        if self.paused.load(Ordering::Acquire) || is_peer_moving() {
            return PAUSE_LOOK;
        }
        let resumed = match self.resumed.load(Ordering::Acquire) {
            0 => return Duration::ZERO,
            resumed => Duration::from_nanos(resumed),
        };
        resumed.saturating_add(PAUSE_LATE).saturating_sub(Duration::from_nanos(self.since(now)))
    }

    /// Whether the gate refuses calls in this direction.
    fn refuses(&self, direction: Direction) -> bool {
        let is_paused = direction == Direction::Inbound && self.paused.load(Ordering::Acquire);
        is_paused || self.is_draining()
    }

    /// Whether the gate refuses every call.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Admits a call of this number at `now`. The checks are, in this order: the number is known,
    /// calling is enabled, a slot is free, a permit is free, the node is not draining, the offer is
    /// usable. A refused call takes nothing.
    ///
    /// `offer` returns the data for setting up the call, or the reason to refuse it: `bad_offer`,
    /// or `overloaded` before the offer is parsed. It is called last. Refusals are counted here;
    /// the caller that starts the call counts `admitted` with [`Gate::count`].
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    // Without inlining, the result is written to memory and read back.
    #[inline]
    pub fn admit<O>(
        &self,
        now: Instant,
        id: &PhoneNumberId,
        direction: Direction,
        offer: impl FnOnce(&NumberEntry) -> Result<O, Reason>,
    ) -> Result<(Admitted, O), Refused> {
        self.attempt(now, id, direction, offer).inspect_err(|refused| {
            self.count_refusal(direction, refused.number.as_deref(), refused.reason);
            self.request(self.lack(refused.number.as_deref(), refused.reason));
        })
    }

    /// Like [`Gate::admit`] in a fleet: waits for units that other nodes hold, and for a sign that
    /// the fleet has not declared this process dead.
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub async fn admit_shared<O>(
        &self,
        clock: &Clock,
        id: &PhoneNumberId,
        direction: Direction,
        mut offer: impl FnMut(&NumberEntry) -> Result<O, Reason>,
    ) -> Result<(Admitted, O), Refused> {
        let since = clock.now();
        let attempt = || self.attempt(clock.now(), id, direction, &mut offer);
        let lack = |refused: &Refused| self.lack(refused.number.as_deref(), refused.reason);
        let (admitted, has_waited) = self.attempt_in_fleet(clock, attempt, lack).await;
        if has_waited {
            let waited = clock.now().saturating_duration_since(since);
            metrics::histogram!(metric::UNIT_WAITS_SECONDS).record(waited);
        }
        admitted.inspect_err(|refused| {
            self.count_refusal(direction, refused.number.as_deref(), refused.reason);
        })
    }

    #[inline]
    fn attempt<O>(
        &self,
        now: Instant,
        id: &PhoneNumberId,
        direction: Direction,
        offer: impl FnOnce(&NumberEntry) -> Result<O, Reason>,
    ) -> Result<(Admitted, O), Refused> {
        let refused = |reason, number| Refused { reason, number };
        let Some(number) = self.directory.number(id) else {
            return Err(refused(Reason::UnknownNumber, None));
        };
        // Calls of such a number can only be answered by its AI agent, which is switched off.
        if direction == Direction::Inbound && number.spec.silent && number.spec.answer.is_none() {
            return Err(refused(Reason::CallingDisabled, Some(number)));
        }
        match self.ask(now, &number, direction, offer) {
            Ok((slot, permits, offer)) => Ok((Admitted { number, slot, permits }, offer)),
            Err(reason) => Err(refused(reason, Some(number))),
        }
    }

    /// Admits a web leg of this account at `now`, if a permit is free and the node is not draining.
    /// Refusals are counted here; the caller that starts the leg counts `admitted` with
    /// [`Gate::count`].
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies. Nothing is spent then.
    pub fn admit_web(
        &self,
        now: Instant,
        account: &Arc<AccountEntry>,
        direction: Direction,
    ) -> Result<WebAdmitted, Reason> {
        self.attempt_web(now, account, direction).inspect_err(|reason| {
            self.count(direction, reason.as_str());
            self.request(self.lack_of_account(account, *reason));
        })
    }

    /// Like [`Gate::admit_web`] in a fleet: waits for permits that other nodes hold, and for a sign
    /// that the fleet has not declared this process dead.
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub async fn admit_web_shared(
        &self,
        clock: &Clock,
        account: &Arc<AccountEntry>,
        direction: Direction,
    ) -> Result<WebAdmitted, Reason> {
        let attempt = || self.attempt_web(clock.now(), account, direction);
        let lack = |reason: &Reason| self.lack_of_account(account, *reason);
        let (admitted, _) = self.attempt_in_fleet(clock, attempt, lack).await;
        admitted.inspect_err(|reason| self.count(direction, reason.as_str()))
    }

    fn attempt_web(
        &self,
        now: Instant,
        account: &Arc<AccountEntry>,
        direction: Direction,
    ) -> Result<WebAdmitted, Reason> {
        let since = self.since(now);
        let found = account.find(since).ok_or(Reason::CpsExceeded)?;
        if self.refuses(direction) {
            return Err(Reason::Draining);
        }
        let permits = account.take(found, since).ok_or(Reason::CpsExceeded)?;
        if self.is_cut_off() {
            account.give_back(permits);
            return Err(Reason::Overloaded);
        }
        Ok(WebAdmitted { account: account.clone(), permits })
    }

    /// Admits a business-initiated call to this user. The checks are, in this order: the number is
    /// known, its country is not barred, calling is enabled, the user has given permission, no call
    /// with the user is up, a slot is free, a permit is free, the node is not draining. A refused
    /// call takes nothing; a queued call is checked again at its turn.
    ///
    /// `now` is for the calls per second, `wall` for the permission. Refusals are counted here; the
    /// caller that starts the call counts `admitted` with [`Gate::count`].
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub fn admit_business(
        &self,
        now: Instant,
        wall: Timestamp,
        id: &PhoneNumberId,
        user: &str,
        consents: &Consents,
    ) -> Result<Outgoing, Denied> {
        self.try_business(now, wall, id, user, consents).inspect_err(|denied| {
            self.count_refusal(Direction::Outbound, denied.number.as_deref(), denied.reason);
        })
    }

    /// Like [`Gate::admit_business`], without counting a refusal: the call may be tried again.
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub fn try_business(
        &self,
        now: Instant,
        wall: Timestamp,
        id: &PhoneNumberId,
        user: &str,
        consents: &Consents,
    ) -> Result<Outgoing, Denied> {
        self.attempt_business(now, wall, id, user, consents).inspect_err(|denied| {
            self.request(self.lack(denied.number.as_deref(), denied.reason));
        })
    }

    /// Like [`Gate::admit_business`] in a fleet: waits for units that other nodes hold, and for a
    /// sign that the fleet has not declared this process dead.
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub async fn admit_business_shared(
        &self,
        clock: &Clock,
        id: &PhoneNumberId,
        user: &str,
        consents: &Consents,
    ) -> Result<Outgoing, Denied> {
        let attempt = || self.attempt_business(clock.now(), clock.wall(), id, user, consents);
        let lack = |denied: &Denied| self.lack(denied.number.as_deref(), denied.reason);
        let (outgoing, _) = self.attempt_in_fleet(clock, attempt, lack).await;
        outgoing.inspect_err(|denied| {
            self.count_refusal(Direction::Outbound, denied.number.as_deref(), denied.reason);
        })
    }

    fn attempt_business(
        &self,
        now: Instant,
        wall: Timestamp,
        id: &PhoneNumberId,
        user: &str,
        consents: &Consents,
    ) -> Result<Outgoing, Denied> {
        let Some(number) = self.directory.number(id) else {
            let reason = Reason::UnknownNumber;
            return Err(Denied { reason, because: RefusalDetail::Reason, number: None });
        };
        match self.ask_business(now, wall, &number, user, consents) {
            Ok((slot, permits, engaged)) => Ok((Admitted { number, slot, permits }, engaged)),
            Err((reason, because)) => Err(Denied { reason, because, number: Some(number) }),
        }
    }

    /// Checks whether [`Gate::admit_business`] would admit the call if a permit were free. It runs
    /// when a call is requested, before the call is queued for a permit, and takes nothing.
    /// Refusals are counted.
    ///
    /// # Errors
    ///
    /// Returns the first reason that applies.
    pub fn may_be_placed(
        &self,
        wall: Timestamp,
        number: &Arc<NumberEntry>,
        user: &str,
        consents: &Consents,
    ) -> Result<(), Denied> {
        // In a fleet, a free slot may be at another node. It is asked for at the call's turn.
        let room = || match number.slots.has_room()
            || self.lack(Some(number), Reason::NumberFull).is_some()
        {
            true => Ok(()),
            false => Err((Reason::NumberFull, RefusalDetail::Reason)),
        };
        self.forbidden(wall, number, user, consents).and_then(|_| room()).map_err(
            |(reason, because)| {
                self.count_refusal(Direction::Outbound, Some(number), reason);
                Denied { reason, because, number: Some(number.clone()) }
            },
        )
    }

    /// The refusal of a call to a user for whom a call is already queued. The queued call counts as
    /// live.
    pub fn user_busy(&self, number: &Arc<NumberEntry>) -> Denied {
        self.count_refusal(Direction::Outbound, Some(number), Reason::UserBusy);
        Denied {
            reason: Reason::UserBusy,
            because: RefusalDetail::Reason,
            number: Some(number.clone()),
        }
    }

    /// The refusal of a call that the user's permission in the database forbids.
    pub fn not_permitted(&self, number: &Arc<NumberEntry>, refusal: Refusal) -> Denied {
        self.count_refusal(Direction::Outbound, Some(number), Reason::NoPermission);
        Denied {
            reason: Reason::NoPermission,
            because: RefusalDetail::Permission(refusal),
            number: Some(number.clone()),
        }
    }

    /// The earliest instant, `now` or later, at which the account is expected to have a free
    /// permit.
    pub fn next_permit(&self, now: Instant, account: &AccountEntry) -> Instant {
        let since = self.since(now);
        let wait = Duration::from_nanos(account.room_at(since).saturating_sub(since));
        match self.lack_of_account(account, Reason::CpsExceeded).filter(|_| !wait.is_zero()) {
            None => now + wait,
            lack => {
                self.request(lack);
                now + wait.min(LEASE_RETRY)
            }
        }
    }

    /// When a call that has waited since `since` and was denied now should be tried again, because
    /// the fleet may provide a unit by then.
    pub fn retry_at(&self, now: Instant, since: Instant, denied: &Denied) -> Option<Instant> {
        self.lack(denied.number.as_deref(), denied.reason)?;
        (now.saturating_duration_since(since) < LEASE_WAIT).then(|| now + LEASE_RETRY)
    }

    /// The account's limit of calls per second, and the permits spent in the last second.
    pub fn cps(&self, now: Instant, account: &AccountEntry) -> (usize, usize) {
        account.spent(self.since(now))
    }

    /// The permits that each account has spent within the last second.
    pub fn spent_permits(&self, now: Instant) -> Vec<(AuthId, u32)> {
        let (tables, now) = (self.directory.tables(), self.since(now));
        let spent =
            tables.accounts().map(|account| (account.auth_id.clone(), account.own_spent(now)));
        spent.filter(|(_, permits)| *permits > 0).collect()
    }

    /// Spends permits for the calls that another process of this node has started within the last
    /// second. In a fleet, that process was granted them.
    pub fn spend_permits(&self, spent: &[(AuthId, u32)], now: Instant) {
        let (tables, now) = (self.directory.tables(), self.since(now));
        let raises = self.directory.caps().is_some();
        for (account, permits) in spent {
            if let Some(account) = tables.account(account) {
                account.spend(*permits, raises, now);
            }
        }
    }

    /// The units of all limits that this node holds, or zero outside a fleet.
    pub fn units(&self, now: Instant) -> UnitCounts {
        self.directory.units(self.since(now))
    }

    /// Nanoseconds since `origin`, the time of the rings.
    pub(crate) fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    /// The rules that refuse a call even if slots and permits are free.
    fn forbidden(
        &self,
        wall: Timestamp,
        number: &NumberEntry,
        user: &str,
        consents: &Consents,
    ) -> Result<PairKey, (Reason, RefusalDetail)> {
        let plain = |reason| (reason, RefusalDetail::Reason);
        let rules = &number.spec.permissions;
        if let Some(barred) = geo::barred(&number.spec.number, &rules.barred_countries) {
            return Err((Reason::GeoBlocked, RefusalDetail::Country(barred)));
        }
        if !number.spec.calling_enabled {
            return Err(plain(Reason::CallingDisabled));
        }
        let key = PairKey::new(&number.spec.phone_number_id, user);
        let permission = consents.may_call(&key, rules, wall);
        permission.map_err(|refusal| (Reason::NoPermission, RefusalDetail::Permission(refusal)))?;
        if consents.is_engaged(&key) {
            return Err(plain(Reason::UserBusy));
        }
        Ok(key)
    }

    fn ask_business(
        &self,
        now: Instant,
        wall: Timestamp,
        number: &NumberEntry,
        user: &str,
        consents: &Consents,
    ) -> Result<(Slot, Permits, Engaged), (Reason, RefusalDetail)> {
        let plain = |reason| (reason, RefusalDetail::Reason);
        let key = self.forbidden(wall, number, user, consents)?;
        let (slot, permits, ()) =
            self.ask(now, number, Direction::Outbound, |_| Ok(())).map_err(plain)?;
        match consents.engage_alone(key) {
            Some(engaged) => Ok((slot, permits, engaged)),
            // Another call to the user was admitted in between.
            None => {
                number.account.give_back(permits);
                Err(plain(Reason::UserBusy))
            }
        }
    }

    #[inline]
    fn ask<O>(
        &self,
        now: Instant,
        number: &NumberEntry,
        direction: Direction,
        offer: impl FnOnce(&NumberEntry) -> Result<O, Reason>,
    ) -> Result<(Slot, Permits, O), Reason> {
        if !number.spec.calling_enabled {
            return Err(Reason::CallingDisabled);
        }
        // Everything is checked first and taken last, so that a call which is about to be refused
        // never holds what another call could use.
        if !number.slots.has_room() {
            return Err(Reason::NumberFull);
        }
        let now = self.since(now);
        let found = number.account.find(now).ok_or(Reason::CpsExceeded)?;
        if self.refuses(direction) {
            return Err(Reason::Draining);
        }
        let offer = offer(number)?;
        let slot = number.slots.acquire().ok_or(Reason::NumberFull)?;
        let permits = number.account.take(found, now).ok_or(Reason::CpsExceeded)?;
        if self.is_cut_off() {
            number.account.give_back(permits);
            return Err(Reason::Overloaded);
        }
        Ok((slot, permits, offer))
    }

    /// Whether the fleet may have declared this process dead.
    #[inline]
    fn is_cut_off(&self) -> bool {
        self.lease.get().is_some_and(|lease| !lease.admits())
    }

    /// Counts a decision in `offhook_admission_total`. `result` is a word of
    /// `model::metric::admission`.
    pub fn count(&self, direction: Direction, result: &'static str) {
        metrics::counter!(metric::ADMISSION_TOTAL, "direction" => direction.as_str(), "result" => result).increment(1);
    }

    /// Counts a refused call, also for its number if that is known.
    pub fn count_refusal(
        &self,
        direction: Direction,
        number: Option<&NumberEntry>,
        reason: Reason,
    ) {
        self.count(direction, reason.as_str());
        if let Some(number) = number {
            let number = number.spec.number.clone();
            self.refusals.add(Refusals { number, direction, reason });
        }
    }

    /// Returns the number of refused calls of each number since the process started.
    pub fn refusals(&self) -> Vec<(Refusals, u64)> {
        self.refusals.all()
    }

    /// Writes [`Directory::slots_in_use`] to `offhook_number_slots_in_use`. Called before metrics
    /// are rendered.
    pub fn publish_gauges(&self) {
        for (number, used) in self.directory.slots_in_use() {
            metrics::gauge!(metric::NUMBER_SLOTS_IN_USE, "number" => number.to_string())
                .set(f64::from(used));
        }
    }
}
