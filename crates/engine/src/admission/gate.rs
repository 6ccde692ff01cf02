//! The gate: a user's call comes in through [`Gate::admit`], one of the business goes out through
//! [`Gate::admit_business`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::directory::{AccountEntry, Directory, NumberEntry, Permits};
use super::geo::{self, Barred};
use super::permission::{Consents, Engaged, PairKey, Refusal};
use super::slots::Slot;
use model::metric;
use model::{Direction, PhoneNumberId, Timestamp};

/// Why a call may not start: `result` of `offhook_admission_total`.
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
    /// The metric label and the word in logs.
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
}

/// A call that may not start.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: Reason,
    /// The number it was for, unless that is what is not known.
    pub number: Option<Arc<NumberEntry>>,
}

/// A business-initiated call that may not start: the rule, and when it will not forbid it any more.
#[derive(Clone, Debug)]
pub struct Denied {
    pub reason: Reason,
    pub because: Because,
    /// The number it was to go out from, unless that is what is not known.
    pub number: Option<Arc<NumberEntry>>,
}

/// What there is to say of a [`Denied`] beside its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The reason says it all.
    Reason,
    Country(Barred),
    Permission(Refusal),
}

impl Denied {
    /// When it is allowed again, as far as a time can tell.
    pub fn again(&self) -> Option<Timestamp> {
        match self.because {
            Because::Permission(refusal) => refusal.again,
            Because::Reason | Because::Country(_) => None,
        }
    }
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.reason.as_str())?;
        match &self.because {
            Because::Reason => Ok(()),
            Because::Country(barred) => write!(f, ": {barred}"),
            Because::Permission(refusal) => write!(f, ": {refusal}"),
        }
    }
}

/// A business-initiated call that may start, and that its user is on the line from now on; both as long as the call.
pub type Outgoing = (Admitted, Engaged);

/// A call that may start. Only the gate makes one; dropping it gives the slot back.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    number: Arc<NumberEntry>,
    slot: Slot,
    permits: Permits,
}

impl Admitted {
    /// The number it was admitted for.
    pub fn number(&self) -> &Arc<NumberEntry> {
        &self.number
    }

    /// The call starts: its entry, as it stands now, and the slot to hold until the call has ended.
    pub fn begin(self) -> (Arc<NumberEntry>, Slot) {
        (self.number, self.slot)
    }

    /// The call does not start after all, for a reason that is ours: slot and permit go back as if never taken.
    pub fn withdraw(self) {
        self.number.account.give_back(self.permits);
    }
}

/// A web leg that may start: it has spent its account's permit, and takes no number's slot (`plivo-xml.md` §6). Only the
/// gate makes one.
#[derive(Debug)]
#[must_use]
pub struct WebAdmitted {
    account: Arc<AccountEntry>,
    permits: Permits,
}

impl WebAdmitted {
    /// Whose leg it is.
    pub fn account(&self) -> &Arc<AccountEntry> {
        &self.account
    }

    /// The leg starts.
    pub fn begin(self) -> Arc<AccountEntry> {
        self.account
    }

    /// The leg does not start after all, for a reason that is ours: the permit goes back as if never taken.
    pub fn withdraw(self) {
        self.account.give_back(self.permits);
    }
}

/// The one place where calls are let in.
#[derive(Debug)]
pub struct Gate {
    directory: Arc<Directory>,
    /// Zero of the rings' nanoseconds.
    origin: Instant,
    draining: AtomicBool,
}

impl Gate {
    /// A gate before these tables; `origin` is any instant before the first call.
    pub fn new(directory: Arc<Directory>, origin: Instant) -> Self {
        Self { directory, origin, draining: AtomicBool::new(false) }
    }

    /// The tables it asks.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// From now on nothing is admitted (R9).
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Gate::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// May a call of that number start at `now`? Asks, in this order (`meta-calling.md` §7.1): number known, calling
    /// enabled, slot, calls per second, draining, offer. A refused call has taken nothing.
    ///
    /// `offer` gives what the call is to be set up with, or why there is none (`bad_offer`, or `overloaded` before it is
    /// read at all); it is not asked where the call is refused before. Counts refusals; whoever starts the call counts
    /// `admitted` by [`Gate::count`].
    ///
    /// # Errors
    /// The first reason that holds.
    // What it gives goes through memory otherwise, and is waited for there.
    #[inline]
    pub fn admit<O>(
        &self,
        now: Instant,
        id: &PhoneNumberId,
        direction: Direction,
        offer: impl FnOnce() -> Result<O, Reason>,
    ) -> Result<(Admitted, O), Refused> {
        let refused = |reason: Reason, number| {
            self.count(direction, reason.as_str());
            Refused { reason, number }
        };
        let Some(number) = self.directory.number(id) else {
            return Err(refused(Reason::UnknownNumber, None));
        };
        // Only its agent would take it.
        if direction == Direction::Inbound && number.spec.silent && number.spec.answer.is_none() {
            return Err(refused(Reason::CallingDisabled, Some(number)));
        }
        match self.ask(now, &number, offer) {
            Ok((slot, permits, offer)) => Ok((Admitted { number, slot, permits }, offer)),
            Err(reason) => Err(refused(reason, Some(number))),
        }
    }

    /// May a web leg of this account start at `now`? Asks for calls per second, then whether the node drains. Counts
    /// refusals; whoever starts the leg counts `admitted` by [`Gate::count`].
    ///
    /// # Errors
    /// The first reason that holds; nothing is spent then.
    pub fn admit_web(
        &self,
        now: Instant,
        account: &Arc<AccountEntry>,
        direction: Direction,
    ) -> Result<WebAdmitted, Reason> {
        let since = self.since(now);
        let asked = match account.has_room(since) {
            false => Err(Reason::CpsExceeded),
            true if self.is_draining() => Err(Reason::Draining),
            true => account.take(since).ok_or(Reason::CpsExceeded),
        };
        match asked {
            Ok(permits) => Ok(WebAdmitted { account: account.clone(), permits }),
            Err(reason) => {
                self.count(direction, reason.as_str());
                Err(reason)
            }
        }
    }

    /// May a call of the business to this user start? Asks, in this order (`meta-calling.md` §6.3): number known, its
    /// country not barred, calling enabled, the user's permission, no call with the user up, slot, calls per second,
    /// draining. A call that is denied has taken nothing; one that waits for its turn is asked about again then.
    ///
    /// `now` is for the calls per second, `wall` for what is kept of the pair. Counts denials; whoever starts the call
    /// counts `admitted` by [`Gate::count`].
    ///
    /// # Errors
    /// The first reason that holds.
    pub fn admit_business(
        &self,
        now: Instant,
        wall: Timestamp,
        id: &PhoneNumberId,
        user: &str,
        consents: &Consents,
    ) -> Result<Outgoing, Denied> {
        let asked = match self.directory.number(id) {
            None => Err((Reason::UnknownNumber, Because::Reason, None)),
            Some(number) => match self.ask_business(now, wall, &number, user, consents) {
                Ok((slot, permits, engaged)) => Ok((Admitted { number, slot, permits }, engaged)),
                Err((reason, because)) => Err((reason, because, Some(number))),
            },
        };
        asked.map_err(|(reason, because, number)| {
            self.count(Direction::Outbound, reason.as_str());
            Denied { reason, because, number }
        })
    }

    /// Would [`Gate::admit_business`] let the call in, had the account calls per second to spend? Asked when a call is
    /// ordered, which waits for those; takes nothing. Counts denials.
    ///
    /// # Errors
    /// The first reason that holds.
    pub fn may_be_placed(
        &self,
        wall: Timestamp,
        number: &Arc<NumberEntry>,
        user: &str,
        consents: &Consents,
    ) -> Result<(), Denied> {
        let room =
            || number.slots.has_room().then_some(()).ok_or((Reason::NumberFull, Because::Reason));
        self.forbidden(wall, number, user, consents).and_then(|_| room()).map_err(
            |(reason, because)| {
                self.count(Direction::Outbound, reason.as_str());
                Denied { reason, because, number: Some(number.clone()) }
            },
        )
    }

    /// That a call to the user waits for its turn already: as if it were up (L9).
    pub fn user_busy(&self, number: &Arc<NumberEntry>) -> Denied {
        self.count(Direction::Outbound, Reason::UserBusy.as_str());
        Denied { reason: Reason::UserBusy, because: Because::Reason, number: Some(number.clone()) }
    }

    /// When the account can spend the next of its calls per second, as far as is known: `now`, or later.
    pub fn next_permit(&self, now: Instant, account: &AccountEntry) -> Instant {
        let since = self.since(now);
        now + Duration::from_nanos(account.room_at(since).saturating_sub(since))
    }

    /// An account's calls per second, and how many of the last second are spent.
    pub fn cps(&self, now: Instant, account: &AccountEntry) -> (usize, usize) {
        account.spent(self.since(now))
    }

    /// The rings' time.
    fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    /// The rules that forbid a call whatever room there is.
    fn forbidden(
        &self,
        wall: Timestamp,
        number: &NumberEntry,
        user: &str,
        consents: &Consents,
    ) -> Result<PairKey, (Reason, Because)> {
        let plain = |reason| (reason, Because::Reason);
        let rules = &number.spec.permissions;
        if let Some(barred) = geo::barred(&number.spec.number, &rules.barred_countries) {
            return Err((Reason::GeoBlocked, Because::Country(barred)));
        }
        if !number.spec.calling_enabled {
            return Err(plain(Reason::CallingDisabled));
        }
        let key = PairKey::new(&number.spec.phone_number_id, user);
        let permission = consents.may_call(&key, rules, wall);
        permission.map_err(|refusal| (Reason::NoPermission, Because::Permission(refusal)))?;
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
    ) -> Result<(Slot, Permits, Engaged), (Reason, Because)> {
        let plain = |reason| (reason, Because::Reason);
        let key = self.forbidden(wall, number, user, consents)?;
        let (slot, permits, ()) = self.ask(now, number, || Ok(())).map_err(plain)?;
        match consents.engage_alone(key) {
            Some(engaged) => Ok((slot, permits, engaged)),
            // Another call to the user was faster.
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
        offer: impl FnOnce() -> Result<O, Reason>,
    ) -> Result<(Slot, Permits, O), Reason> {
        if !number.spec.calling_enabled {
            return Err(Reason::CallingDisabled);
        }
        // Everything is looked at in its turn and taken only at the end, so that a call about to be refused holds
        // nothing that another could have had.
        if !number.slots.has_room() {
            return Err(Reason::NumberFull);
        }
        let now = self.since(now);
        if !number.account.has_room(now) {
            return Err(Reason::CpsExceeded);
        }
        if self.is_draining() {
            return Err(Reason::Draining);
        }
        let offer = offer()?;
        let slot = number.slots.acquire().ok_or(Reason::NumberFull)?;
        let permits = number.account.take(now).ok_or(Reason::CpsExceeded)?;
        Ok((slot, permits, offer))
    }

    /// Counts a decision in `offhook_admission_total`; `result` is a word of `model::metric::admission`.
    pub fn count(&self, direction: Direction, result: &'static str) {
        metrics::counter!(metric::ADMISSION_TOTAL, "direction" => direction.as_str(), "result" => result).increment(1);
    }

    /// Writes [`Directory::slots_in_use`] to `offhook_number_slots_in_use`; for whoever renders the metrics.
    pub fn publish_gauges(&self) {
        for (number, used) in self.directory.slots_in_use() {
            metrics::gauge!(metric::NUMBER_SLOTS_IN_USE, "number" => number.to_string())
                .set(f64::from(used));
        }
    }
}
