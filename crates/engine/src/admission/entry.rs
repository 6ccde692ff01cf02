//! The entries of the routing tables: a number, an account, and their live counters.

use std::sync::Arc;

use fleet::LimitKey;

use super::cps::{Permit, Ring, Vacancy};
use super::slots::Slots;
use crate::admission::settings::Permissions;
use model::Secret;
use model::{AuthId, E164, Method, PhoneNumberId, WabaId};
use xml::ast::DocUrl;

/// A number in the routing tables.
#[derive(Clone, Debug)]
pub struct NumberSpec {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    /// The id under which conversations and routing are stored. It is Meta's first id of the
    /// number: Meta assigns another one when the number is removed and added again.
    pub first_id: PhoneNumberId,
    /// The WABA. Empty if the number has none.
    pub waba: WabaId,
    pub account: AuthId,
    pub alias: String,
    pub calling_enabled: bool,
    /// Whether the AI agent of the number is switched off. Then messages are not answered, nor are
    /// calls if there is no answer URL.
    pub silent: bool,
    /// Whether the AI agent of the number answers its calls even if there is an answer URL.
    pub agent_first: bool,
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

impl NumberSpec {
    /// The limit that all nodes of a fleet share.
    pub fn limit_key(&self) -> LimitKey {
        LimitKey::number(self.number.as_str())
    }
}

#[cfg(test)]
impl NumberSpec {
    /// A number with calling enabled, up to 100 calls and no URLs.
    pub(crate) fn for_tests(number: &str, id: &str, account: &str) -> Self {
        Self {
            number: E164::parse(number).unwrap(),
            phone_number_id: id.into(),
            first_id: id.into(),
            waba: "1029384756".into(),
            account: account.into(),
            alias: String::new(),
            calling_enabled: true,
            silent: false,
            agent_first: false,
            answer: None,
            fallback: None,
            hangup: None,
            messages: None,
            calls_per_number: 100,
            permissions: Permissions::default(),
            access_token: None,
        }
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
    pub(super) ring: Option<Arc<Ring>>,
    /// The configured calls per second. In a fleet, the ring contains only this node's share.
    pub(super) cps: u32,
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

    /// Spends permits of this account's own limit. If `raises`, the limit becomes at least as many.
    pub(super) fn spend(&self, permits: u32, raises: bool, now: u64) {
        let Some(ring) = &self.ring else { return };
        if raises && ring.limit() < usize::try_from(permits).unwrap_or(usize::MAX) {
            ring.set_limit(permits);
        }
        for _ in 0..permits {
            let _ = ring.take(now);
        }
    }

    /// Returns how many permits of this account's own limit were spent in the last second.
    pub(super) fn own_spent(&self, now: u64) -> u32 {
        self.ring.as_ref().map_or(0, |ring| u32::try_from(ring.spent(now)).unwrap_or(u32::MAX))
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
