//! The gate: every call, of either direction, comes through [`Gate::admit`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::directory::{Directory, NumberEntry, Permits};
use super::slots::Slot;
use crate::model::{Direction, PhoneNumberId};
use crate::observe::names;

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
        use names::admission as word;
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
    /// `offer` gives what the call is to be set up with, or nothing if that is unusable (`bad_offer`); it is not
    /// asked where the call is refused before. Counts refusals; whoever starts the call counts `admitted` by
    /// [`Gate::count`].
    ///
    /// # Errors
    /// The first reason that holds.
    pub fn admit<O>(
        &self,
        now: Instant,
        id: &PhoneNumberId,
        direction: Direction,
        offer: impl FnOnce() -> Option<O>,
    ) -> Result<(Admitted, O), Refused> {
        let refused = |reason: Reason, number| {
            self.count(direction, reason.as_str());
            Refused { reason, number }
        };
        let Some(number) = self.directory.number(id) else { return Err(refused(Reason::UnknownNumber, None)) };
        match self.ask(now, &number, offer) {
            Ok((slot, permits, offer)) => Ok((Admitted { number, slot, permits }, offer)),
            Err(reason) => Err(refused(reason, Some(number))),
        }
    }

    fn ask<O>(
        &self,
        now: Instant,
        number: &NumberEntry,
        offer: impl FnOnce() -> Option<O>,
    ) -> Result<(Slot, Permits, O), Reason> {
        if !number.spec.calling_enabled {
            return Err(Reason::CallingDisabled);
        }
        // Everything is looked at in its turn and taken only at the end, so that a call about to be refused holds
        // nothing that another could have had.
        if !number.slots.has_room() {
            return Err(Reason::NumberFull);
        }
        let now = u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        if !number.account.has_room(now) {
            return Err(Reason::CpsExceeded);
        }
        if self.is_draining() {
            return Err(Reason::Draining);
        }
        let offer = offer().ok_or(Reason::BadOffer)?;
        let slot = number.slots.acquire().ok_or(Reason::NumberFull)?;
        let permits = number.account.take(now).ok_or(Reason::CpsExceeded)?;
        Ok((slot, permits, offer))
    }

    /// Counts a decision in `offhook_admission_total`; `result` is a word of `observe::names::admission`.
    pub fn count(&self, direction: Direction, result: &'static str) {
        metrics::counter!(names::ADMISSION_TOTAL, "direction" => direction.as_str(), "result" => result).increment(1);
    }

    /// Writes [`Directory::slots_in_use`] to `offhook_number_slots_in_use`; for whoever renders the metrics.
    pub fn publish_gauges(&self) {
        for (number, used) in self.directory.slots_in_use() {
            metrics::gauge!(names::NUMBER_SLOTS_IN_USE, "number" => number.to_string()).set(f64::from(used));
        }
    }
}
