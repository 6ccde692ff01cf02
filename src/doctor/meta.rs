//! What Graph says of our clock, our app's subscriptions and our tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Doctor, Line};
use engine::admission::book::{MetaApp, Waba};
use engine::meta::numbers::{FIELDS_NEEDED, Subscription, TokenFacts};
use machine::GraphOutcome;
use model::Secret;
use model::Timestamp;

/// Further apart than that, Meta's times and ours spoil calls: a connect older than 60 s is stale.
const CLOCKS_APART_WARNING: u64 = 5;
const CLOCKS_APART_FAILED: u64 = 45;
/// A token that ends sooner is told.
const TOKEN_ENDS_SOON: Duration = Duration::from_secs(7 * 86_400);
/// What a token must allow.
const SCOPES: &[&str] = &["whatsapp_business_management", "whatsapp_business_messaging"];

impl Doctor {
    pub(super) async fn clock_line(&self) -> Line {
        match self.graph.date().await {
            Ok(theirs) => clock(self.clock.wall(), theirs),
            Err(outcome) => {
                let fix = "let this machine reach [meta].graph_url: DNS, firewall, proxy";
                Line::failed(
                    "clock",
                    format!("Graph can't be reached to compare clocks: {}", said(&outcome)),
                    fix,
                )
            }
        }
    }

    /// Our app's subscriptions, and each WABA's to our app.
    pub(super) async fn webhooks(&self) -> Vec<Line> {
        let Some(app) = self.book.app() else {
            let fix = "set [meta].app_id: then what Meta sends here can be seen";
            return vec![Line::warning(
                "webhook",
                "which webhooks our app gets is not known without its id",
                fix,
            )];
        };
        let mut lines = vec![self.app_line(app).await];
        for waba in self.book.wabas() {
            lines.push(self.waba_line(app, waba).await);
        }
        lines
    }

    async fn app_line(&self, app: &MetaApp) -> Line {
        const IS: &str = "webhook";
        let found = match self.graph.app_subscriptions(&app.id, &app.secret).await {
            Ok(found) => found,
            Err(outcome) => {
                let fix = "compare [meta].app_id and app_secret with Meta's dashboard";
                let what =
                    format!("Graph does not say what our app is subscribed to: {}", said(&outcome));
                return Line::failed(IS, what, fix);
            }
        };
        subscribed(&found).unwrap_or_else(|| self.goes_here(&found))
    }

    fn goes_here(&self, found: &Subscription) -> Line {
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
                "our app is not subscribed to {}; without {grave} nothing comes",
                missing.join(", ")
            );
            return Line::failed(IS, what, fix);
        }
        let wanted = self
            .config
            .public
            .base_url
            .as_ref()
            .map(|base| format!("{}/webhooks/meta", base.as_str().trim_end_matches('/')));
        if let Some(wanted) = wanted.filter(|wanted| wanted != url) {
            let fix = format!("set the callback URL in Meta's dashboard to {wanted}");
            return Line::failed(IS, format!("Meta sends webhooks to {url:?}"), fix);
        }
        if !missing.is_empty() {
            let fix =
                "subscribe them too: numbers' names, ratings and settings are kept fresh by them";
            return Line::warning(
                IS,
                format!("our app is not subscribed to {}", missing.join(", ")),
                fix,
            );
        }
        Line::ok(IS, format!("our app is subscribed to all fields it needs, at {url}"))
    }

    async fn waba_line(&self, app: &MetaApp, waba: &Waba) -> Line {
        let token = self.book.token_of_waba(waba);
        let line = match self.graph.subscribed_apps(&waba.id, token.as_ref()).await {
            Ok(apps) if apps.contains(&app.id) => Line::ok("waba", "its webhooks come to our app"),
            Ok(_) => {
                let fix = format!(
                    "POST /{}/subscribed_apps at Graph, or connect a number of it here",
                    waba.id
                );
                Line::failed(
                    "waba",
                    "our app is not subscribed: no call of its numbers comes here",
                    fix,
                )
            }
            Err(outcome) => {
                let fix = "give the token the right to manage this WABA, or correct its id";
                Line::failed("waba", format!("Graph says nothing of it: {}", said(&outcome)), fix)
            }
        };
        line.of(waba.id.to_string())
    }

    /// Every token once.
    pub(super) async fn tokens(&self) -> Vec<Line> {
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
            return vec![Line::failed(
                "token",
                "there is no access token: Graph refuses every request",
                fix,
            )];
        }
        let Some(app) = self.book.app().cloned() else {
            let fix = "set [meta].app_id: then a token's end and rights can be seen";
            return vec![Line::warning("token", "how long the tokens are good is not known", fix)];
        };
        let mut lines = Vec::new();
        for (token, whose) in tokens.into_values() {
            let line = match self.graph.token_facts(&app.id, &app.secret, &token).await {
                Ok(facts) => judged(&facts, &app.id, self.clock.wall()),
                Err(outcome) => {
                    let fix = "nothing, if numbers are well below; else compare [meta].app_id and app_secret";
                    Line::warning(
                        "token",
                        format!("Graph says nothing of it: {}", said(&outcome)),
                        fix,
                    )
                }
            };
            lines.push(line.of(whose));
        }
        lines
    }
}

/// Our clock beside Meta's.
pub(super) fn clock(ours: Timestamp, theirs: Timestamp) -> Line {
    let apart = ours.secs().abs_diff(theirs.secs());
    let what = format!("this machine's clock and Meta's are {apart} s apart");
    let fix = "run a time service (chrony, systemd-timesyncd)";
    if apart <= CLOCKS_APART_WARNING {
        Line::ok("clock", what)
    } else if apart <= CLOCKS_APART_FAILED {
        Line::warning("clock", what, fix)
    } else {
        Line::failed("clock", format!("{what}: calls are taken for old ones, and passed over"), fix)
    }
}

/// Why nothing comes of what our app is subscribed to, whatever it is.
pub(super) fn subscribed(found: &Subscription) -> Option<Line> {
    let fix = "switch it on in Meta's dashboard: WhatsApp, Configuration, Webhook; verify the callback URL there again";
    let off = "our app's webhook subscription is not active at Meta: nothing comes";
    found.inactive.then(|| Line::failed("webhook", off, fix))
}

/// A token by what Graph says of it; `app`: ours.
pub(super) fn judged(facts: &TokenFacts, app: &str, now: Timestamp) -> Line {
    const IS: &str = "token";
    let fix = "make a system user's token that never expires, with the rights whatsapp_business_management and \
        whatsapp_business_messaging";
    if !facts.valid || facts.expires.is_some_and(|at| at <= now) {
        return Line::failed(IS, "it is not valid any more", fix);
    }
    let missing: Vec<&str> = SCOPES
        .iter()
        .copied()
        .filter(|scope| !facts.scopes.iter().any(|has| has == scope))
        .collect();
    if !missing.is_empty() {
        return Line::failed(IS, format!("it does not allow {}", missing.join(" and ")), fix);
    }
    if let Some(other) = facts.app.as_deref().filter(|other| *other != app) {
        let what = format!(
            "it was made for the app {other}, and [meta].app_id is {app}: webhooks may go to that app, not here"
        );
        return Line::warning(
            IS,
            what,
            "make the token with this app, or correct [meta].app_id and app_secret",
        );
    }
    match facts.expires {
        Some(at) if at.since(now) < TOKEN_ENDS_SOON => {
            Line::warning(IS, format!("it ends at {}", at.rfc3339()), fix)
        }
        Some(at) => Line::ok(IS, format!("valid until {}", at.rfc3339())),
        None => Line::ok(IS, "valid, and does not expire"),
    }
}

/// What Graph said, for people.
pub(super) fn said(outcome: &GraphOutcome) -> String {
    match outcome {
        GraphOutcome::Refused { code: 190, .. } => "the token is not valid (190)".to_owned(),
        GraphOutcome::Refused { code, details, .. } => format!("{details} ({code})"),
        GraphOutcome::RateLimited { code } => format!("asked too often ({code})"),
        GraphOutcome::ServerError { status } => format!("it is out of order ({status})"),
        GraphOutcome::Timeout => "no answer in time".to_owned(),
        GraphOutcome::Unreachable => "it could not be reached".to_owned(),
        GraphOutcome::Done | GraphOutcome::Gone => "nothing".to_owned(),
    }
}
