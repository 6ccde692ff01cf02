//! The order of work that takes milliseconds: to read exports, lists with long texts and counts over
//! many records, to check a document, to evaluate an event log.

use std::sync::LazyLock;

use egress::{FairPermit, FairPermits};
use model::AuthId;

/// Maximum number of main accounts whose work runs at the same time. With one only, a request that
/// waits for a slow node of the fleet would stop those of all accounts.
const ACCOUNTS_MAX: usize = 2;

static TURNS: LazyLock<FairPermits<AuthId>> = LazyLock::new(|| FairPermits::new(ACCOUNTS_MAX, 1));

/// Maximum number of changes of settings that are carried out at the same time: in total, and of one
/// main account. The process stores them one after the other, so that many changes of one account
/// would delay those of all others.
const CHANGES_MAX: usize = 256;
const ACCOUNT_CHANGES_MAX: usize = 8;

static CHANGES: LazyLock<FairPermits<AuthId>> =
    LazyLock::new(|| FairPermits::new(CHANGES_MAX, ACCOUNT_CHANGES_MAX));

/// Number of records that an export reads in a turn.
pub(crate) const RECORDS_PER_TURN: u32 = 250;

/// Waits for the turn to do the next part of such work. One request of a main account at a time has
/// it in this process, and the accounts take turns, so that the store and the processors are left to
/// other requests. Drop it before anything is sent: the client may be slow.
pub(crate) async fn next(main_account: &AuthId) -> FairPermit<AuthId> {
    TURNS.acquire(main_account).await
}

/// Paths of the settings that the process changes one at a time. API keys and people are not among
/// them, so that a revocation never waits.
const SETTINGS: &[&str] = &["/v1/Account/", "/api/v1/phone-numbers/", "/api/v1/wabas/"];

/// Waits until a change at this path may be carried out for a main account.
pub(super) async fn change(path: &str, main_account: &AuthId) -> Option<FairPermit<AuthId>> {
    match SETTINGS.iter().any(|settings| path.starts_with(settings)) {
        true => Some(CHANGES.acquire(main_account).await),
        false => None,
    }
}

/// Like [`next`], for work that takes milliseconds only under a condition.
pub(crate) async fn next_if(takes_long: bool, main_account: &AuthId) -> Option<FairPermit<AuthId>> {
    if takes_long { Some(next(main_account).await) } else { None }
}
