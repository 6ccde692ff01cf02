//! Disconnects and reconnects numbers, and assigns WABAs to accounts. Meta is not involved.

use super::{NO_NUMBER, NO_WABA, NumberError, Numbers};
use crate::admission::book::{Book, NumberSet};
use model::{AuthId, E164, WabaId};
use store::Scope;

impl Numbers {
    /// Disconnects a number: the number takes and places no more calls and messages. Live calls are
    /// not affected.
    ///
    /// # Errors
    ///
    /// Returns an error if it is disconnected already.
    pub async fn disconnect(&self, scope: &Scope, number: &E164) -> Result<(), NumberError> {
        let _turn = self.turn(number).await;
        let now = self.parts().clock.wall();
        // `tell` runs after the change, so it reaches the main account even if the number has left
        // the subaccount.
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            if entry.set.disconnected {
                return Err(NumberError::state(
                    "disconnected",
                    "this number is disconnected already",
                ));
            }
            Ok(((), book.disconnect(number)))
        });
        stored.await?;
        self.publish(number);
        Ok(())
    }

    /// Leaves a number out of lists until it is connected again, and disconnects it if it is
    /// connected. It is not hidden if the disconnect moves it out of the scope, since only its
    /// account may hide it then.
    ///
    /// # Errors
    ///
    /// Returns an error if the number is not in the scope.
    pub async fn hide(&self, scope: &Scope, number: &E164) -> Result<(), NumberError> {
        let _turn = self.turn(number).await;
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            let mut keys = match entry.set.disconnected {
                true => Vec::new(),
                false => book.disconnect(number),
            };
            if book.number(scope, number).is_some() {
                keys.extend(book.edit_number(number, |set| set.hidden = true));
            }
            Ok(((), keys))
        });
        stored.await?;
        self.publish(number);
        Ok(())
    }

    /// Reconnects a number. Its URLs have to be set again.
    ///
    /// # Errors
    ///
    /// Returns an error if it is connected.
    pub async fn reconnect(&self, scope: &Scope, number: &E164) -> Result<(), NumberError> {
        let _turn = self.turn(number).await;
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            if !entry.set.disconnected {
                return Err(NumberError::state("connected", "this number is connected"));
            }
            Ok(((), book.edit_number(number, NumberSet::reconnect)))
        });
        stored.await?;
        self.publish(number);
        Ok(())
    }

    /// Assigns a WABA with all its numbers to a subaccount, or back to the main account. With
    /// `seen` the change is made only if the WABA still belongs to that account.
    ///
    /// # Errors
    ///
    /// Returns an error if the WABA or account does not exist, or if the caller is a subaccount.
    pub async fn map(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<Vec<E164>, NumberError> {
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            may_map(book, scope, (waba, to), seen)?;
            let affected: Vec<E164> =
                book.numbers_of(waba).map(|number| number.number.clone()).collect();
            Ok((affected, book.assign_waba(waba, to)))
        });
        let affected = stored.await?;
        affected.iter().for_each(|number| self.publish(number));
        Ok(affected)
    }

    /// Checks whether [`Numbers::map`] would succeed, without changing anything.
    ///
    /// # Errors
    ///
    /// Returns the error that [`Numbers::map`] would return.
    pub fn check_map(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<(), NumberError> {
        may_map(&self.book(), scope, (waba, to), seen)
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
