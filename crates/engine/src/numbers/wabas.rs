//! Assigns WABAs to accounts. Meta is not involved.

use std::sync::Arc;

use super::NO_WABA;
use super::entries::Entries;
use super::errors::NumberError;
use crate::admission::book::Book;
use model::{AuthId, E164, WabaId};
use store::Scope;

/// The accounts of WABAs.
pub struct WabaAccounts {
    pub(super) entries: Arc<Entries>,
}

impl WabaAccounts {
    /// Assigns a WABA with all its numbers to a subaccount, or back to the main account. With
    /// `seen` the change is made only if the WABA still belongs to that account.
    ///
    /// # Errors
    ///
    /// Returns an error if the WABA or account does not exist, or if the caller is a subaccount.
    pub async fn assign(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<Vec<E164>, NumberError> {
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            may_map(book, scope, (waba, to), seen)?;
            let affected: Vec<E164> =
                book.numbers_of(waba).map(|number| number.number.clone()).collect();
            Ok((affected, book.assign_waba(waba, to)))
        });
        let affected = stored.await?;
        affected.iter().for_each(|number| self.entries.publish(number));
        Ok(affected)
    }

    /// Checks whether [`Self::assign`] would succeed, without changing anything.
    ///
    /// # Errors
    ///
    /// Returns the error that [`Self::assign`] would return.
    pub fn check(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<(), NumberError> {
        may_map(&self.entries.book(), scope, (waba, to), seen)
    }
}

fn may_map(
    book: &Book,
    scope: &Scope,
    (waba, to): (&WabaId, &AuthId),
    seen: Option<&AuthId>,
) -> Result<(), NumberError> {
    let Scope::Main(main) = scope else {
        return Err(NumberError::bad("account", "account can be changed by the main account only"));
    };
    let entry = book.waba(scope, waba).ok_or(NumberError::Missing(NO_WABA))?;
    if seen.is_some_and(|seen| seen != entry.account()) {
        return Err(NumberError::Changed);
    }
    if to != main && book.subaccount(main, to).is_none() {
        return Err(NumberError::bad("account", format!("there is no subaccount {to}")));
    }
    Ok(())
}
