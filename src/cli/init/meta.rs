//! Checks the credentials against Graph, and fetches the accounts and numbers that they grant
//! access to.

use url::Url;

use super::App;
use super::interview::Choice;
use crate::doctor::describe;
use engine::meta::numbers::PhoneNumber;
use engine::meta::{Graph, GraphConfig, MetaSettings};
use machine::GraphOutcome;
use model::{Clock, Secret, WabaId};

/// The accounts and numbers that a token grants access to.
pub(super) struct Account {
    graph: Graph,
    pub(super) wabas: Vec<Waba>,
}

/// A WhatsApp Business Account.
#[derive(Clone)]
pub(super) struct Waba {
    pub(super) id: String,
}

impl Choice for Waba {
    fn key(&self) -> &str {
        &self.id
    }

    fn about(&self) -> String {
        String::new()
    }
}

impl Choice for PhoneNumber {
    fn key(&self) -> &str {
        &self.number
    }

    fn about(&self) -> String {
        self.verified_name.clone()
    }
}

/// The Graph API of `--graph-url`, or Meta's.
pub(super) struct GraphApi(String);

impl GraphApi {
    pub(super) fn at(graph_url: Option<&Url>) -> Self {
        let default = MetaSettings::new(Secret::new(""), Secret::new("")).graph_url;
        Self(graph_url.unwrap_or(&default).as_str().trim_end_matches('/').to_owned())
    }

    fn client(&self, token: &Secret) -> Result<Graph, String> {
        let config =
            GraphConfig { logs_refusals: false, ..GraphConfig::new(&self.0, token.clone()) };
        Graph::new(config, Clock::real()).map_err(|e| e.to_string())
    }

    /// Checks that the secret is the app's.
    ///
    /// # Errors
    /// Returns a description of what is wrong, and the remedy.
    pub(super) async fn check_app(&self, app: &App) -> Result<(), String> {
        let graph = self.client(&Secret::new(""))?;
        // Graph answers this only to the app itself, whatever its webhooks are.
        let subscription = graph.app(&app.id, &app.secret).subscription().await;
        subscription.map(drop).map_err(|outcome| self.app_refused(app, &outcome))
    }

    fn app_refused(&self, app: &App, outcome: &GraphOutcome) -> String {
        let details = match outcome {
            GraphOutcome::Refused { code: 190, .. } => String::new(),
            GraphOutcome::Refused { .. } => format!(": {}", describe(outcome)),
            _ => return cannot_ask(&self.0, outcome),
        };
        let id = &app.id;
        format!(
            "Meta refused the app {id} with this secret{details}; copy both again from App settings > Basic"
        )
    }

    /// Checks the access token, and reads what it grants access to.
    ///
    /// # Errors
    /// Returns a description of what is wrong with the token, and the remedy.
    pub(super) async fn account(&self, app: &App, token: &Secret) -> Result<Account, String> {
        let graph = self.client(token)?;
        let info = graph.app(&app.id, &app.secret).token_info(token).await;
        let info = info.map_err(|outcome| self.app_refused(app, &outcome))?;
        if let Some(other) = info.app.as_ref().filter(|other| **other != app.id) {
            return Err(format!(
                "the access token was made for the app {other}; make one for the app {}",
                app.id
            ));
        }
        if !info.valid {
            return Err("Meta says that the access token is not valid; make another one in Business settings > System users"
                .to_owned());
        }
        let wabas = info.wabas.iter().map(|id| Waba { id: id.as_str().to_owned() }).collect();
        Ok(Account { graph, wabas })
    }
}

impl Account {
    /// The numbers of a WABA.
    ///
    /// # Errors
    /// Returns a message with the cause and the remedy.
    pub(super) async fn numbers(&self, waba: &Waba) -> Result<Vec<PhoneNumber>, String> {
        let found = self.graph.waba(&WabaId::from(waba.id.as_str()), None).numbers().await;
        found.map_err(|outcome| match outcome {
            GraphOutcome::Refused { .. } => format!(
                "Meta refused to list the numbers of the account {}: {}; give the system user access to it, and the token the permission whatsapp_business_management",
                waba.id,
                describe(&outcome)
            ),
            _ => cannot_ask("Graph", &outcome),
        })
    }
}

fn cannot_ask(url: &str, outcome: &GraphOutcome) -> String {
    format!("{url} gave no answer: {}; check DNS and firewall, then try again", describe(outcome))
}
