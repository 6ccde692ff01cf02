//! Numbers go out of service and come back (S0.26–S0.29), and WABAs change their account (S0.21). Meta is not touched.

use super::{NO_NUMBER, NO_WABA, No, Numbers};
use crate::admission::book::Book;
use model::{AuthId, E164, WabaId};
use store::Scope;

impl Numbers {
    /// Nothing comes in and nothing goes out from now on; calls that are up go on.
    ///
    /// # Errors
    /// It is out already.
    pub async fn disconnect(&self, scope: &Scope, number: &E164) -> Result<(), No> {
        let _turn = self.turn(number).await;
        let now = self.parts().clock.wall();
        // The main account hears of it: the number may be nobody else's any more.
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(No::Missing(NO_NUMBER))?;
            if entry.set.disconnected {
                return Err(No::state("disconnected", "this number is disconnected already"));
            }
            Ok(((), book.disconnect(number)))
        });
        stored.await?;
        self.tell(number);
        Ok(())
    }

    /// It serves again, once its URLs are set anew.
    ///
    /// # Errors
    /// It was never out.
    pub async fn reconnect(&self, scope: &Scope, number: &E164) -> Result<(), No> {
        let _turn = self.turn(number).await;
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(No::Missing(NO_NUMBER))?;
            if !entry.set.disconnected {
                return Err(No::state("connected", "this number is connected"));
            }
            Ok(((), book.edit_number(number, |set| set.disconnected = false)))
        });
        stored.await?;
        self.tell(number);
        Ok(())
    }

    /// Gives a WABA with all its numbers to an account: a subaccount, or back to the main one. `seen`: only if it is still
    /// that account's.
    ///
    /// # Errors
    /// No such WABA or account; or a subaccount asks, which may not.
    pub async fn map(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<Vec<E164>, No> {
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            may_map(book, scope, (waba, to), seen)?;
            let affected: Vec<E164> =
                book.numbers_of(waba).map(|number| number.number.clone()).collect();
            Ok((affected, book.give_waba(waba, to)))
        });
        let affected = stored.await?;
        affected.iter().for_each(|number| self.tell(number));
        Ok(affected)
    }

    /// Whether a WABA could be given to an account; nothing changes.
    ///
    /// # Errors
    /// Why not.
    pub fn judge_map(
        &self,
        scope: &Scope,
        waba: &WabaId,
        to: &AuthId,
        seen: Option<&AuthId>,
    ) -> Result<(), No> {
        may_map(&self.book(), scope, (waba, to), seen)
    }
}

fn may_map(
    book: &Book,
    scope: &Scope,
    (waba, to): (&WabaId, &AuthId),
    seen: Option<&AuthId>,
) -> Result<(), No> {
    let Scope::Main(main) = scope else {
        return Err(No::bad("account", "account can be changed by the main account only"));
    };
    let entry = book.waba(scope, waba).ok_or(No::Missing(NO_WABA))?;
    if seen.is_some_and(|seen| seen != entry.account()) {
        return Err(No::Changed);
    }
    if to != main && book.subaccount(main, to).is_none() {
        return Err(No::bad("account", format!("there is no subaccount {to}")));
    }
    Ok(())
}
