//! `POST /api/v1/phone-numbers/{number}/subscribe/`, `connect-agent/` and `disconnect-agent/`: who gets what users write to
//! a number (`number-api.md` §2, seed 004).

use std::sync::Arc;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::ask::{self, Asked, Fault, digits};
use super::bodies::Taken;
use super::conversations::not_routed;
use crate::admission::NumberEntry;
use crate::admission::book::Configuration;
use crate::api::decoded;
use crate::inbox::Inbox;
use model::Routing;
use store::{AgentChannel, UserName};

const ANSWERS: &[Answer] = &[
    Answer { status: 200, what: "As it is now", content: Content::Json(of::<Shown>) },
    Answer {
        status: 409,
        what: "It can't be so",
        content: Content::Json(of::<error::OurBody<'static>>),
    },
];

const fn route(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    what: &'static str,
) -> Route {
    Route {
        method: "POST",
        path,
        id,
        summary,
        query: &[],
        body: Some(Body { content_type: "application/json", what }),
        answers: ANSWERS,
    }
}

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[
    Taken::of::<Subscribe>("subscribeNumber"),
    Taken::of::<Connect>("connectAgent"),
    Taken::of::<Disconnect>("disconnectAgent"),
];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    route(
        "/api/v1/phone-numbers/{number}/subscribe/",
        "subscribeNumber",
        "The number's conversations go to a webhook, and no agent answers",
        "{\"number\", \"whatsappPhoneNumberId\", \"webhook\"?: the account's only one where it is absent, \"applyToExisting\"?: \
         also the conversations that there are, at once}",
    ),
    route(
        "/api/v1/phone-numbers/{number}/connect-agent/",
        "connectAgent",
        "An agent answers in the number's conversations",
        "{\"agent\", \"applyToExisting\"?}",
    ),
    route(
        "/api/v1/phone-numbers/{number}/disconnect-agent/",
        "disconnectAgent",
        "Messages are kept, and nobody answers",
        "{\"applyToExisting\"?}",
    ),
];

/// A number's routing: the seed's eight fields.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberRouting)]
pub(super) struct Shown {
    id: Uuid,
    number: String,
    whatsapp_phone_number_id: String,
    whatsapp_business_account: Option<String>,
    active_agent: Option<Uuid>,
    /// `webhook`, `agent` or `none`.
    default_routing: &'static str,
    default_webhook: Option<Uuid>,
    is_sandbox: bool,
}

impl Shown {
    fn of(number: &NumberEntry, routing: Routing) -> Self {
        let spec = &number.spec;
        let waba = Some(spec.waba.as_str()).filter(|waba| !waba.is_empty());
        Self {
            id: spec.number.resource_id(),
            number: spec.number.to_string(),
            whatsapp_phone_number_id: spec.phone_number_id.to_string(),
            whatsapp_business_account: waba.map(str::to_owned),
            active_agent: routing.agent(),
            default_routing: routing.as_str(),
            default_webhook: routing.webhook(),
            is_sandbox: is_sandbox(number),
        }
    }
}

/// A shared number of the system's, without a WABA (S4.16).
fn is_sandbox(number: &NumberEntry) -> bool {
    number.spec.waba.as_str().is_empty()
}

/// The asking key's or person's own WhatsApp number.
fn asking_user(asked: &Asked) -> Option<&str> {
    asked.member.wa_id.as_deref()
}

/// Longest number that a body may name (S4.3).
const NUMBER_MAX: usize = 15;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberSubscribe, examples(json!({"number": "918035737458", "whatsappPhoneNumberId": "106540352242922", "applyToExisting": true})))]
struct Subscribe {
    /// The one that the path names.
    #[schema(max_length = 15)]
    number: String,
    /// Meta's id of it.
    whatsapp_phone_number_id: String,
    /// The account's only one where it is absent.
    #[schema(format = Uuid)]
    webhook: Option<String>,
    /// Conversations that there are go there too (false).
    #[serde(default)]
    apply_to_existing: bool,
}

/// `POST …/subscribe/`.
pub(super) async fn subscribe(asked: Asked, path: &str) -> Result<Response, Fault> {
    let number = ask::number_of(&asked, path)?;
    let (asked, body) = asked.json::<Subscribe>().await?;
    if body.number.chars().count() > NUMBER_MAX {
        return Err(ask::bad("number", "number must have at most 15 characters"));
    }
    if digits(&body.number).as_ref() != Some(&number.spec.number) {
        return Err(ask::bad(
            "number",
            &format!("number is not {}, which the path names", decoded(path)),
        ));
    }
    if body.whatsapp_phone_number_id != number.spec.phone_number_id.as_str() {
        return Err(ask::bad("whatsappPhoneNumberId", "this is not Meta's id of the number"));
    }
    let named = match body.webhook.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => Some(id.parse().map_err(|_| ask::bad("webhook", "there is no such webhook"))?),
        None => None,
    };
    let webhook =
        asked.api().inbox.webhook_or_only(asked.scope(), &number, named).map_err(not_routed)?;
    put(&asked, &number, Routing::Webhook(Some(webhook.id)), body.apply_to_existing).await
}

/// Puts it in force: for the number, or of a sandbox for the asking user alone.
async fn put(
    asked: &Asked,
    number: &Arc<NumberEntry>,
    routing: Routing,
    all: bool,
) -> Result<Response, Fault> {
    let inbox = &asked.api().inbox;
    if !is_sandbox(number) {
        inbox.route_number(number, routing, all).await.map_err(not_routed)?;
        return Ok(ask::ok(&Shown::of(number, routing)));
    }
    let Some(user) = asking_user(asked) else {
        let why = "this is a sandbox number: only the asking user's own conversation can be changed, and who asks has no waId";
        return Err(ask::conflict("no_user", why));
    };
    let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() };
    let pair = inbox.pair(number, user);
    inbox.route_user(pair, routing).await.map_err(not_routed)?;
    // What the asking user sees; the number's own stays.
    Ok(ask::ok(&Shown::of(number, routing)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberConnectAgent, examples(json!({"agent": "5b1f0e2c-6a1e-4f0e-9a2b-5d7f3f0a9b11"})))]
struct Connect {
    agent: Uuid,
    #[serde(default)]
    apply_to_existing: bool,
}

/// `POST …/connect-agent/`.
pub(super) async fn connect_agent(asked: Asked, path: &str) -> Result<Response, Fault> {
    let number = ask::number_of(&asked, path)?;
    let (asked, body) = asked.json::<Connect>().await?;
    let agent = asked
        .api()
        .store
        .agents()
        .get(asked.scope(), body.agent)
        .await
        .map_err(ask::store("read an agent"))?;
    // A subaccount's agent serves no number of its main account's.
    let agent = agent.filter(|agent| Inbox::may_serve(&number, &agent.account));
    let agent = agent.ok_or_else(|| ask::bad("agent", "this account has no such agent"))?;
    if !agent.spec.channels.contains(&AgentChannel::Whatsapp) {
        return Err(ask::conflict(
            "no_channel",
            "this agent has no channel whatsapp: add it to its channels",
        ));
    }
    if super::agents::is_elsewhere(asked.api(), asked.scope(), &number.spec.number) {
        return Err(ask::conflict(
            "not_cloud_api",
            "only numbers registered with Meta's Cloud API can have an agent: register it",
        ));
    }
    let routing = asked.api().inbox.routing_of(&number);
    let by_agent = {
        let book = asked.api().keeper.book();
        let entry = book.number(asked.scope(), &number.spec.number);
        entry.is_some_and(|entry| entry.set.configuration == Configuration::Agent)
    };
    // A number that is to go by its agent, and has none: nobody answers in its conversations until now.
    let all = body.apply_to_existing || by_agent && routing == Routing::None;
    if !is_sandbox(&number) {
        // Without one before, there was nobody to be silent. Another one's silence stays.
        let (wakes, takes_calls) =
            (routing.agent().is_none(), agent.spec.channels.contains(&AgentChannel::Voice));
        // Its own URL goes on serving who wrote before (S4.10), and that hangs on the type.
        let serves = routing == Routing::Webhook(None) && !all;
        let numbers = &asked.api().numbers;
        let ready = numbers
            .prepare_for_agent(asked.scope(), &number.spec.number, wakes, takes_calls, serves)
            .await;
        ready.map_err(super::numbers::fault)?;
    }
    put(&asked, &number, Routing::Agent(body.agent), all).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberDisconnectAgent, examples(json!({"applyToExisting": true})))]
struct Disconnect {
    #[serde(default)]
    apply_to_existing: bool,
}

/// `POST …/disconnect-agent/`.
pub(super) async fn disconnect_agent(asked: Asked, path: &str) -> Result<Response, Fault> {
    let number = ask::number_of(&asked, path)?;
    let (asked, body) = asked.json::<Disconnect>().await?;
    put(&asked, &number, Routing::None, body.apply_to_existing).await
}
