//! Checks the credentials against Graph, and fetches the accounts and numbers that they grant
//! access to.

use url::Url;

use super::Credentials;
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

impl Account {
    /// Checks the credentials against Graph.
    ///
    /// # Errors
    /// Returns a description of what is wrong with the credentials, and the remedy.
    pub(super) async fn read(
        credentials: &Credentials,
        graph_url: Option<&Url>,
    ) -> Result<Self, String> {
        let (app_id, token) = (&credentials.app_id, &credentials.access_token);
        let default = MetaSettings::new(Secret::new(""), Secret::new("")).graph_url;
        let url = graph_url.unwrap_or(&default).as_str().trim_end_matches('/');
        let config = GraphConfig { logs_refusals: false, ..GraphConfig::new(url, token.clone()) };
        let graph = Graph::new(config, Clock::real()).map_err(|e| e.to_string())?;
        let facts = graph.app(app_id, &credentials.app_secret).token_facts(token).await;
        let facts = facts.map_err(|outcome| match outcome {
            GraphOutcome::Refused { .. } => format!(
                "Meta refused the app {app_id} with this secret: {}; copy both again from App settings > Basic",
                describe(&outcome)
            ),
            _ => cannot_ask(url, &outcome),
        })?;
        if let Some(app) = facts.app.as_ref().filter(|app| *app != app_id) {
            return Err(format!(
                "the access token was made for the app {app}; make one for the app {app_id}"
            ));
        }
        if !facts.valid {
            return Err("Meta says that the access token is not valid; make another one in Business settings > System users"
                .to_owned());
        }
        let wabas = facts.wabas.iter().map(|id| Waba { id: id.as_str().to_owned() }).collect();
        Ok(Self { graph, wabas })
    }

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
