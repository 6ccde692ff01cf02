//! Connects numbers by credentials, which are verified with Graph first, and disconnects them.

use std::sync::Arc;

use super::NO_NUMBER;
use super::entries::Entries;
use super::errors::{NumberError, refused_or, rule, waba_error};
use super::locks::NumberLocks;
use super::subscriptions::Subscriptions;
use super::sync::MetaSync;
use crate::admission::book::{ConnectedNumber, NumberSet};
use crate::meta::Graph;
use crate::meta::numbers::PhoneNumber;
use machine::GraphOutcome;
use model::{AuthId, E164, PhoneNumberId, Secret, WabaId};
use store::Scope;

/// Maximum number of WABAs that are searched for a number given without its WABA.
const WABAS_ASKED_MAX: usize = 20;

/// A number and the access token that proves its ownership.
pub struct Credentials {
    pub display_name: String,
    /// The expected number.
    pub number: Option<E164>,
    pub id: PhoneNumberId,
    pub waba: Option<WabaId>,
    pub token: Secret,
    /// Whether the number's AI agent answers. `None` keeps the setting, and disables the agent of a
    /// new number.
    pub active: Option<bool>,
}

impl Credentials {
    /// Applies the settings. A known number keeps those that are not given, since it may only get a
    /// new token.
    pub(super) fn settle(&self, set: &mut NumberSet, was_here: bool) {
        if !self.display_name.is_empty() && (!was_here || set.alias.is_empty()) {
            set.alias.clone_from(&self.display_name);
        }
        match self.active {
            Some(active) => set.inactive = !active,
            None if was_here => {}
            None => set.inactive = true,
        }
    }
}

/// Connects and disconnects numbers.
pub struct Connections {
    pub(super) entries: Arc<Entries>,
    pub(super) locks: Arc<NumberLocks>,
    pub(super) graph: Arc<Graph>,
    pub(super) sync: Arc<MetaSync>,
    pub(super) subscriptions: Arc<Subscriptions>,
}

impl Connections {
    /// Connects a number. Its token is stored encrypted and never shown again.
    ///
    /// # Errors
    ///
    /// Returns an error if Graph does not accept the token for this number, or if another account
    /// has it.
    pub async fn connect(&self, scope: &Scope, given: Credentials) -> Result<E164, NumberError> {
        let graph = &self.graph;
        let details = graph
            .number(&given.id, Some(&given.token))
            .details()
            .await
            .map_err(credentials_error)?;
        let number = E164::parse(&details.number)
            .map_err(|_| NumberError::Meta(GraphOutcome::ServerError { status: 200, code: 0 }))?;
        if given.number.as_ref().is_some_and(|wanted| *wanted != number) {
            return Err(NumberError::bad(
                "number",
                format!("Meta has the number {number} under this whatsappPhoneNumberId"),
            ));
        }
        let waba = match &given.waba {
            Some(waba) => {
                let all =
                    graph.waba(waba, Some(&given.token)).numbers().await.map_err(waba_error)?;
                if !has(&all, &given.id) {
                    let message = "Meta does not list this number in this WABA";
                    return Err(rule("not_in_waba", message, "whatsappBusinessAccount"));
                }
                Some(waba.clone())
            }
            None => self.find_waba(scope, &given).await,
        };
        let of = scope.auth_id().clone();
        let turn = self.locks.lock(&number).await;
        self.enter(&number, &given, waba.as_ref(), of).await?;
        drop(turn);
        self.fetch_new_number(scope, &number).await;
        if let Some(waba) = &waba {
            self.subscriptions.subscribe(waba, Some(&given.token)).await;
        }
        Ok(number)
    }

    async fn enter(
        &self,
        number: &E164,
        given: &Credentials,
        waba: Option<&WabaId>,
        of: AuthId,
    ) -> Result<(), NumberError> {
        let now = self.entries.clock.wall();
        let made = ConnectedNumber {
            phone_number_id: given.id.clone(),
            waba: waba.cloned(),
            of: of.clone(),
        };
        let stored = self.entries.keeper.change(now, |book| {
            let mut keys = Vec::new();
            if let Some(waba) = waba {
                // Keep the WABA's own token if it has one.
                let known = book.wabas().any(|entry| entry.id == *waba);
                keys.extend(book.connect_waba(waba, &of, (!known).then(|| given.token.clone()))?);
            }
            let was_here = book.any_number(number).is_some();
            keys.extend(book.connect_number(
                (number, made.clone()),
                Some(given.token.clone()),
                now,
            )?);
            keys.extend(book.edit_number(number, |set| given.settle(set, was_here)));
            Ok::<_, NumberError>(((), keys))
        });
        Ok(stored.await?)
    }

    /// Finds the account's WABA that contains the number.
    async fn find_waba(&self, scope: &Scope, given: &Credentials) -> Option<WabaId> {
        let wabas: Vec<WabaId> = {
            let book = self.entries.book();
            let own = book.wabas().filter(|waba| book.is_within(scope, waba.account()));
            own.take(WABAS_ASKED_MAX).map(|waba| waba.id.clone()).collect()
        };
        for waba in wabas {
            let all = self.graph.waba(&waba, Some(&given.token)).numbers().await;
            if all.is_ok_and(|all| has(&all, &given.id)) {
                return Some(waba);
            }
        }
        None
    }

    /// Reads the state of a new number from Meta. If that fails, the next reconciliation repeats
    /// it.
    async fn fetch_new_number(&self, scope: &Scope, number: &E164) {
        let fetched = match self.entries.target(scope, number) {
            Ok(known) => self.sync.refresh(&known).await,
            Err(error) => Err(error),
        };
        if let Err(error) = fetched {
            tracing::info!(%number, %error, "state of a new number not fetched yet");
        }
        self.entries.publish(number);
    }
}

fn has(all: &[PhoneNumber], id: &PhoneNumberId) -> bool {
    all.iter().any(|number| number.id == id.as_str())
}

fn credentials_error(outcome: GraphOutcome) -> NumberError {
    match &outcome {
        GraphOutcome::Refused { code: 0 | 3 | 10 | 190 | 200..=299, .. } => {
            let message = "Meta rejected this access token, or it may not manage this number";
            refused_or(outcome, "token_refused", message, "accessToken")
        }
        _ => refused_or(
            outcome,
            "no_such_number",
            "Meta has no such number for this token",
            "whatsappPhoneNumberId",
        ),
    }
}

impl Connections {
    /// Disconnects a number: the number takes and places no more calls and messages. Live calls are
    /// not affected.
    ///
    /// # Errors
    ///
    /// Returns an error if it is disconnected already.
    pub async fn disconnect(&self, scope: &Scope, number: &E164) -> Result<(), NumberError> {
        let _turn = self.locks.lock(number).await;
        let now = self.entries.clock.wall();
        // `tell` runs after the change, so it reaches the main account even if the number has left
        // the subaccount.
        let stored = self.entries.keeper.change(now, |book| {
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
        self.entries.publish(number);
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
        let _turn = self.locks.lock(number).await;
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
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
        self.entries.publish(number);
        Ok(())
    }

    /// Reconnects a number. Its URLs have to be set again.
    ///
    /// # Errors
    ///
    /// Returns an error if it is connected.
    pub async fn reconnect(&self, scope: &Scope, number: &E164) -> Result<(), NumberError> {
        let _turn = self.locks.lock(number).await;
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            if !entry.set.disconnected {
                return Err(NumberError::state("connected", "this number is connected"));
            }
            Ok(((), book.edit_number(number, NumberSet::reconnect)))
        });
        stored.await?;
        self.entries.publish(number);
        Ok(())
    }
}
