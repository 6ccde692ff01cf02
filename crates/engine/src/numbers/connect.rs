//! Connects numbers: by credentials, which are verified with Graph first, or by the code of Meta's
//! embedded sign-up.

use super::register::reason;
use super::{NumberError, Numbers};
use crate::admission::book::{ConnectRefusal, ConnectedNumber, MetaApp, Number, NumberSet};
use crate::meta::numbers::PhoneNumber;
use machine::GraphOutcome;
use model::Secret;
use model::{AuthId, E164, NotificationTopic, PhoneNumberId, WabaId};
use store::Scope;

/// Maximum number of WABAs that are searched for a number given without its WABA.
const WABAS_ASKED_MAX: usize = 20;
/// Maximum number of WABAs per sign-up.
const SIGNED_UP_MAX: usize = 20;

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

/// The result of Meta's sign-up window.
pub struct SignUp {
    pub code: String,
    /// The redirect URI of the window, or `None` if the code was passed to a script of the page.
    pub redirect_uri: Option<String>,
    pub waba: Option<WabaId>,
    pub id: Option<PhoneNumberId>,
}

impl Numbers {
    /// Connects a number. Its token is stored encrypted and never shown again.
    ///
    /// # Errors
    ///
    /// Returns an error if Graph does not accept the token for this number, or if another account
    /// has it.
    pub async fn connect(&self, scope: &Scope, given: Credentials) -> Result<E164, NumberError> {
        let graph = &self.parts().graph;
        let said = graph
            .number(&given.id, Some(&given.token))
            .details()
            .await
            .map_err(credentials_error)?;
        let number = E164::parse(&said.number)
            .map_err(|_| NumberError::Meta(GraphOutcome::ServerError { status: 200 }))?;
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
        let turn = self.turn(&number).await;
        self.enter(&number, &given, waba.as_ref(), of).await?;
        drop(turn);
        self.fetch_new_number(scope, &number).await;
        if let Some(waba) = &waba {
            self.subscribe(waba, Some(&given.token)).await;
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
        let now = self.parts().clock.wall();
        let made = ConnectedNumber {
            phone_number_id: given.id.clone(),
            waba: waba.cloned(),
            of: of.clone(),
        };
        let stored = self.parts().keeper.change(now, |book| {
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
            let book = self.book();
            let own = book.wabas().filter(|waba| book.is_within(scope, waba.account()));
            own.take(WABAS_ASKED_MAX).map(|waba| waba.id.clone()).collect()
        };
        for waba in wabas {
            let all = self.parts().graph.waba(&waba, Some(&given.token)).numbers().await;
            if all.is_ok_and(|all| has(&all, &given.id)) {
                return Some(waba);
            }
        }
        None
    }

    /// Subscribes the app to the WABA's webhooks. If Meta refuses, the reason is stored with its
    /// numbers and a notification is sent.
    pub(super) async fn subscribe(&self, waba: &WabaId, token: Option<&Secret>) {
        let subscribed = self.parts().graph.waba(waba, token).subscribe_app().await;
        let why = subscribed.err().map(|outcome| reason(&outcome));
        let differs = |number: &&Number| number.set.at_meta.unsubscribed != why;
        let numbers: Vec<E164> =
            self.book().numbers_of(waba).filter(differs).map(|n| n.number.clone()).collect();
        if numbers.is_empty() {
            return;
        }
        let note = |set: &mut NumberSet| set.at_meta.unsubscribed.clone_from(&why);
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let keys = numbers.iter().flat_map(|number| book.edit_number(number, note)).collect();
            Ok::<_, NumberError>(((), keys))
        });
        if let Err(no) = stored.await.map_err(NumberError::from) {
            tracing::warn!(%waba, error = %no, "could not store the state of a WABA subscription");
        }
        if let (Some(why), Some(about)) = (&why, numbers.first()) {
            tracing::warn!(%waba, why, "WABA subscription failed; its webhooks may not arrive");
            let text = format!(
                "Meta did not subscribe the app to WABA {waba}, so webhooks of its numbers may not arrive: {why}. Sync the numbers to try again."
            );
            self.notice(about, NotificationTopic::Number, text);
        }
        numbers.iter().for_each(|number| self.publish(number));
    }

    /// Repeats the subscription if it failed before.
    pub(super) async fn subscribe_again(&self, waba: &WabaId, token: Option<&Secret>) {
        if self.book().numbers_of(waba).any(|number| number.set.at_meta.unsubscribed.is_some()) {
            self.subscribe(waba, token).await;
        }
    }

    /// Reads the state of a new number from Meta. If that fails, the next reconciliation repeats
    /// it.
    async fn fetch_new_number(&self, scope: &Scope, number: &E164) {
        let fetched = match self.found(scope, number) {
            Ok(known) => self.refresh(&known).await,
            Err(no) => Err(no),
        };
        if let Err(no) = fetched {
            tracing::info!(%number, error = %no, "state of a new number not fetched yet");
        }
        self.publish(number);
    }

    /// Connects the numbers of an embedded sign-up.
    ///
    /// # Errors
    ///
    /// Returns an error if no app is configured, if Meta rejects the code or did not grant the
    /// named WABA, or if another account has a number.
    pub async fn sign_up(&self, scope: &Scope, given: SignUp) -> Result<Vec<E164>, NumberError> {
        let app = self.book().app().cloned();
        let app = app.ok_or_else(|| {
            NumberError::state("no_app", "sign-up needs [meta].app_id in the configuration")
        })?;
        let graph = &self.parts().graph;
        let token = graph
            .app(&app.id, &app.secret)
            .exchange_code(&given.code, given.redirect_uri.as_deref())
            .await
            .map_err(|outcome| {
                refused_or(
                    outcome,
                    "code_refused",
                    "Meta rejected this code; sign up again",
                    "code",
                )
            })?;
        let wabas = self.granted(&app, &token, given.waba.as_ref()).await?;
        // The request alone proves nothing: Meta lists a WABA's numbers only to an app it was
        // granted to.
        let mut listed = Vec::new();
        for waba in wabas {
            let mut numbers =
                graph.waba(&waba, Some(&token)).numbers().await.map_err(waba_error)?;
            numbers.retain(|number| given.id.as_ref().is_none_or(|id| id.as_str() == number.id));
            listed.push((waba, numbers));
        }
        let of = scope.auth_id().clone();
        let now = self.parts().clock.wall();
        let entered = self.parts().keeper.change(now, |book| {
            let mut keys = Vec::new();
            for (waba, _) in &listed {
                keys.extend(book.connect_waba(waba, &of, Some(token.clone()))?);
            }
            Ok::<_, NumberError>(((), keys))
        });
        entered.await?;
        let mut all = Vec::new();
        for (waba, numbers) in listed {
            let synced = self.add_numbers(&waba, &of, Some(&token), numbers).await?;
            self.subscribe(&waba, Some(&token)).await;
            // Numbers of other accounts are left out.
            let full = synced
                .left_out
                .into_iter()
                .find(|(_, why)| matches!(why, ConnectRefusal::TooMany(_)));
            if let Some((_, why)) = full {
                return Err(why.into());
            }
            let book = self.book();
            let wanted = |n: &&Number| given.id.as_ref().is_none_or(|id| *id == n.phone_number_id);
            all.extend(book.numbers_of(&waba).filter(wanted).map(|n| n.number.clone()));
        }
        for number in &all {
            self.publish(number);
        }
        Ok(all)
    }

    /// The WABAs granted to a sign-up's token, or only the named one. If Meta lists none, the named
    /// one must still be verified.
    async fn granted(
        &self,
        app: &MetaApp,
        token: &Secret,
        named: Option<&WabaId>,
    ) -> Result<Vec<WabaId>, NumberError> {
        let facts = self
            .parts()
            .graph
            .app(&app.id, &app.secret)
            .token_facts(token)
            .await
            .map_err(NumberError::Meta)?;
        let mut wabas = facts.wabas;
        if let Some(named) = named {
            if !wabas.is_empty() && !wabas.contains(named) {
                let message =
                    "the sign-up did not grant this WhatsApp Business Account; sign up again";
                return Err(rule("waba_not_granted", message, "whatsappBusinessAccount"));
            }
            return Ok(vec![named.clone()]);
        }
        wabas.truncate(SIGNED_UP_MAX);
        if wabas.is_empty() {
            let message =
                "the sign-up granted no WhatsApp Business Account; name it, or sign up again";
            return Err(rule("no_waba", message, "whatsappBusinessAccount"));
        }
        Ok(wabas)
    }
}

fn has(all: &[PhoneNumber], id: &PhoneNumberId) -> bool {
    all.iter().any(|number| number.id == id.as_str())
}

fn rule(code: &'static str, message: &str, field: &'static str) -> NumberError {
    NumberError::Rule { code, message: message.to_owned(), field: Some(field), meta: None }
}

/// Converts an outcome of Graph to an error. A refusal is an error in the request; any other
/// failure is Meta's.
fn refused_or(
    outcome: GraphOutcome,
    code: &'static str,
    message: &str,
    field: &'static str,
) -> NumberError {
    match outcome {
        GraphOutcome::Refused { code: meta, details, .. } => NumberError::Rule {
            code,
            message: message.to_owned(),
            field: Some(field),
            meta: Some((meta, details)),
        },
        other => NumberError::Meta(other),
    }
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

fn waba_error(outcome: GraphOutcome) -> NumberError {
    let message = "Meta does not show this WABA for this token";
    refused_or(outcome, "no_such_waba", message, "whatsappBusinessAccount")
}
