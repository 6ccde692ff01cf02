//! Connects the numbers of Meta's embedded sign-up by its code.

use std::sync::Arc;

use super::entries::Entries;
use super::errors::{NumberError, refused_or, rule, waba_error};
use super::subscriptions::Subscriptions;
use super::sync::MetaSync;
use crate::admission::book::{ConnectRefusal, MetaApp, Number};
use crate::meta::Graph;
use model::{E164, PhoneNumberId, Secret, WabaId};
use store::Scope;

/// Maximum number of WABAs per sign-up.
const SIGNED_UP_MAX: usize = 20;

/// The result of Meta's sign-up window.
pub struct SignUp {
    pub code: String,
    /// The redirect URI of the window, or `None` if the code was passed to a script of the page.
    pub redirect_uri: Option<String>,
    pub waba: Option<WabaId>,
    pub id: Option<PhoneNumberId>,
}

/// Connects the numbers of sign-ups.
pub struct SignUps {
    pub(super) entries: Arc<Entries>,
    pub(super) graph: Arc<Graph>,
    pub(super) sync: Arc<MetaSync>,
    pub(super) subscriptions: Arc<Subscriptions>,
}

impl SignUps {
    /// Connects the numbers of an embedded sign-up.
    ///
    /// # Errors
    ///
    /// Returns an error if no app is configured, if Meta rejects the code or did not grant the
    /// named WABA, or if another account has a number.
    pub async fn connect(&self, scope: &Scope, given: SignUp) -> Result<Vec<E164>, NumberError> {
        let app = self.entries.book().app().cloned();
        let app = app.ok_or_else(|| {
            NumberError::state("no_app", "sign-up needs [meta].app_id in the configuration")
        })?;
        let graph = &self.graph;
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
        let now = self.entries.clock.wall();
        let entered = self.entries.keeper.change(now, |book| {
            let mut keys = Vec::new();
            for (waba, _) in &listed {
                keys.extend(book.connect_waba(waba, &of, Some(token.clone()))?);
            }
            Ok::<_, NumberError>(((), keys))
        });
        entered.await?;
        let mut all = Vec::new();
        for (waba, numbers) in listed {
            let synced = self.sync.add_numbers(&waba, &of, Some(&token), numbers).await?;
            self.subscriptions.subscribe(&waba, Some(&token)).await;
            // Numbers of other accounts are left out.
            let full = synced
                .left_out
                .into_iter()
                .find(|(_, why)| matches!(why, ConnectRefusal::TooMany(_)));
            if let Some((_, why)) = full {
                return Err(why.into());
            }
            let book = self.entries.book();
            let wanted = |n: &&Number| given.id.as_ref().is_none_or(|id| *id == n.phone_number_id);
            all.extend(book.numbers_of(&waba).filter(wanted).map(|n| n.number.clone()));
        }
        for number in &all {
            self.entries.publish(number);
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
        let info = self
            .graph
            .app(&app.id, &app.secret)
            .token_info(token)
            .await
            .map_err(NumberError::Meta)?;
        let mut wabas = info.wabas;
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
