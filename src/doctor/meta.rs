//! Checks with Graph: the clock, the app's subscriptions and the access tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Doctor, Finding};
use engine::admission::book::{MetaApp, Waba};
use engine::meta::numbers::{FIELDS_NEEDED, Subscription, TokenInfo};
use machine::GraphOutcome;
use model::Secret;
use model::Timestamp;

/// Difference between the clocks in seconds above which a warning is reported. A `connect` older
/// than 60 s is stale, so larger differences lose calls.
const CLOCKS_APART_WARNING: u64 = 5;
const CLOCKS_APART_FAILED: u64 = 45;
/// Remaining validity below which a token is reported.
const TOKEN_ENDS_SOON: Duration = Duration::from_secs(7 * 86_400);
/// The permissions that a token needs.
const SCOPES: &[&str] = &["whatsapp_business_management", "whatsapp_business_messaging"];

impl Doctor {
    pub(super) async fn clock_line(&self) -> Finding {
        match self.graph.date().await {
            Ok(theirs) => clock(self.clock.wall(), theirs),
            Err(outcome) => {
                let fix = "let this machine reach [meta].graph_url: DNS, firewall, proxy";
                Finding::failed(
                    "clock",
                    format!("Graph can't be reached to compare clocks: {}", describe(&outcome)),
                    fix,
                )
            }
        }
    }

    /// The app's subscriptions, and each WABA's subscription to the app.
    pub(super) async fn webhooks(&self) -> Vec<Finding> {
        let Some(app) = self.book.app() else {
            let fix = "set [meta].app_id to check the webhook subscriptions";
            return vec![Finding::warning(
                "webhook",
                "the app's webhook subscriptions are unknown without its id",
                fix,
            )];
        };
        let mut lines = vec![self.app_line(app).await];
        for waba in self.book.wabas() {
            lines.push(self.waba_line(app, waba).await);
        }
        lines
    }

    async fn app_line(&self, app: &MetaApp) -> Finding {
        const IS: &str = "webhook";
        let found = match self.graph.app(&app.id, &app.secret).subscription().await {
            Ok(found) => found,
            Err(outcome) => {
                let fix = "compare [meta].app_id and app_secret with Meta's dashboard";
                let what =
                    format!("Graph does not list the app's subscriptions: {}", describe(&outcome));
                return Finding::failed(IS, what, fix);
            }
        };
        inactive_subscription(&found).unwrap_or_else(|| self.check_subscription(&found))
    }

    fn check_subscription(&self, found: &Subscription) -> Finding {
        const IS: &str = "webhook";
        let Subscription { url, fields, .. } = found;
        let missing: Vec<&str> = FIELDS_NEEDED
            .iter()
            .copied()
            .filter(|field| !fields.iter().any(|has| has == field))
            .collect();
        if let Some(grave) = missing.iter().find(|field| matches!(**field, "calls" | "messages")) {
            let fix =
                "subscribe the fields in Meta's dashboard: WhatsApp, Configuration, Webhook fields";
            let what = format!(
                "the app is not subscribed to {}; without {grave} no webhooks arrive",
                missing.join(", ")
            );
            return Finding::failed(IS, what, fix);
        }
        let wanted = self
            .config
            .public
            .base_url
            .as_ref()
            .map(|base| format!("{}/webhooks/meta", base.as_str().trim_end_matches('/')));
        if let Some(wanted) = wanted.filter(|wanted| wanted != url) {
            let fix = format!("set the callback URL in Meta's dashboard to {wanted}");
            return Finding::failed(IS, format!("Meta sends webhooks to {url:?}"), fix);
        }
        if !missing.is_empty() {
            let fix =
                "subscribe to them, so that names, ratings and settings of numbers stay current";
            return Finding::warning(
                IS,
                format!("the app is not subscribed to {}", missing.join(", ")),
                fix,
            );
        }
        Finding::ok(IS, format!("the app is subscribed to all fields it needs, at {url}"))
    }

    async fn waba_line(&self, app: &MetaApp, waba: &Waba) -> Finding {
        let token = self.book.token_of_waba(waba);
        let line = match self.graph.waba(&waba.id, token.as_ref()).subscribed_apps().await {
            Ok(apps) if apps.contains(&app.id) => {
                Finding::ok("waba", "its webhooks are sent to the app")
            }
            Ok(_) => {
                let fix = format!(
                    "POST /{}/subscribed_apps at Graph, or connect one of its numbers here",
                    waba.id
                );
                Finding::failed(
                    "waba",
                    "the app is not subscribed, so calls of its numbers do not arrive here",
                    fix,
                )
            }
            Err(outcome) => {
                let fix = "give the token permission to manage this WABA, or correct its id";
                Finding::failed(
                    "waba",
                    format!("Graph does not show it: {}", describe(&outcome)),
                    fix,
                )
            }
        };
        line.of(waba.id.to_string())
    }

    /// Checks every token once.
    pub(super) async fn tokens(&self) -> Vec<Finding> {
        let mut tokens: BTreeMap<&str, (Secret, String)> = BTreeMap::new();
        let wabas = self
            .book
            .wabas()
            .filter_map(|waba| Some((waba.access_token()?, format!("of WABA {}", waba.id))));
        let numbers = self
            .book
            .all_numbers()
            .filter_map(|n| Some((n.set_token.as_ref()?, format!("of {}", n.number))));
        let default = self
            .config
            .meta
            .access_token
            .as_ref()
            .map(|token| (token, "[meta].access_token".to_owned()));
        for (token, whose) in default.into_iter().chain(wabas).chain(numbers) {
            tokens.entry(token.reveal()).or_insert_with(|| (token.clone(), whose));
        }
        if tokens.is_empty() {
            let fix = "set [meta].access_token to a system user's token";
            return vec![Finding::failed(
                "token",
                "there is no access token, so Graph refuses every request",
                fix,
            )];
        }
        let Some(app) = self.book.app().cloned() else {
            let fix = "set [meta].app_id to check the tokens' expiry and permissions";
            return vec![Finding::warning("token", "the expiry of the tokens is unknown", fix)];
        };
        let mut lines = Vec::new();
        for (token, whose) in tokens.into_values() {
            let line = match self.graph.app(&app.id, &app.secret).token_info(&token).await {
                Ok(info) => evaluate_token(&info, &app.id, self.clock.wall()),
                Err(outcome) => {
                    let fix = "ignore this if the numbers below are ok; otherwise compare [meta].app_id and app_secret";
                    Finding::warning(
                        "token",
                        format!("Graph does not show it: {}", describe(&outcome)),
                        fix,
                    )
                }
            };
            lines.push(line.of(whose));
        }
        lines
    }
}

/// Compares this machine's clock with Meta's.
pub(super) fn clock(ours: Timestamp, theirs: Timestamp) -> Finding {
    let apart = ours.secs().abs_diff(theirs.secs());
    let what = format!("this machine's clock and Meta's are {apart} s apart");
    let fix = "run a time service (chrony, systemd-timesyncd)";
    if apart <= CLOCKS_APART_WARNING {
        Finding::ok("clock", what)
    } else if apart <= CLOCKS_APART_FAILED {
        Finding::warning("clock", what, fix)
    } else {
        Finding::failed(
            "clock",
            format!("{what}, so calls may be taken for stale ones and ignored"),
            fix,
        )
    }
}

/// Returns a finding if the app's subscription is inactive at Meta.
pub(super) fn inactive_subscription(found: &Subscription) -> Option<Finding> {
    let fix = "activate it in Meta's dashboard: WhatsApp, Configuration, Webhook; verify the callback URL there again";
    let off = "the app's webhook subscription is not active at Meta, so no webhooks arrive";
    found.inactive.then(|| Finding::failed("webhook", off, fix))
}

/// Evaluates Graph's description of a token. `app` is the id of the configured app.
pub(super) fn evaluate_token(info: &TokenInfo, app: &str, now: Timestamp) -> Finding {
    const IS: &str = "token";
    let fix = "create a system user's token that never expires, with the permissions whatsapp_business_management and \
        whatsapp_business_messaging";
    if !info.valid || info.expires.is_some_and(|at| at <= now) {
        return Finding::failed(IS, "it is no longer valid", fix);
    }
    let missing: Vec<&str> = SCOPES
        .iter()
        .copied()
        .filter(|scope| !info.scopes.iter().any(|has| has == scope))
        .collect();
    if !missing.is_empty() {
        return Finding::failed(
            IS,
            format!("it lacks the permission {}", missing.join(" and ")),
            fix,
        );
    }
    if let Some(other) = info.app.as_deref().filter(|other| *other != app) {
        let what = format!(
            "it was created for the app {other}, but [meta].app_id is {app}; webhooks may go to that app"
        );
        return Finding::warning(
            IS,
            what,
            "create the token with this app, or correct [meta].app_id and app_secret",
        );
    }
    match info.expires {
        Some(at) if at.since(now) < TOKEN_ENDS_SOON => {
            Finding::warning(IS, format!("it expires at {}", at.rfc3339()), fix)
        }
        Some(at) => Finding::ok(IS, format!("valid until {}", at.rfc3339())),
        None => Finding::ok(IS, "valid, and does not expire"),
    }
}

/// Describes an outcome of a Graph request.
pub(crate) fn describe(outcome: &GraphOutcome) -> String {
    match outcome {
        GraphOutcome::Refused { code: 190, .. } => "the token is not valid (190)".to_owned(),
        GraphOutcome::Refused { code, details, .. } => format!("{details} ({code})"),
        GraphOutcome::RateLimited { code } => format!("too many requests ({code})"),
        GraphOutcome::ServerError { status, .. } => format!("it failed with status {status}"),
        GraphOutcome::Timeout => "no response in time".to_owned(),
        GraphOutcome::Unreachable => "it could not be reached".to_owned(),
        GraphOutcome::Done | GraphOutcome::Gone => "no answer".to_owned(),
    }
}
