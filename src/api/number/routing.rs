//! `POST /api/v1/phone-numbers/{number}/subscribe/`, `connect-agent/` and `disconnect-agent/`: the
//! routing of a business number's conversations.

use std::sync::Arc;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::agents;
use super::request::{ApiRequest, parse_number};
use super::response::ok;
use super::route::{Route, error, handler};
use engine::admission::NumberEntry;
use engine::admission::book::Configuration;
use model::{Role, Routing};
use store::{Agent, AgentChannel, UserName};

const RESPONSES: &[ResponseSpec] = &[
    ResponseSpec::json::<NumberRouting>(200, "The routing of the number"),
    error(409, "The state of the number, the webhook or the agent does not allow it"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Admin,
        handler: handler!(subscribe),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/subscribe/",
            "subscribeNumber",
            "Route the conversations of a phone number to a webhook, without an agent",
        )
        .body(RequestBody::json::<NumberSubscribe>(
            "number, whatsappPhoneNumberId; optionally webhook (default: the account's only one) \
             and applyToExisting (also the existing conversations, at once)",
        ))
        .responses(RESPONSES),
    },
    Route {
        role: Role::Admin,
        handler: handler!(connect_agent),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/connect-agent/",
            "connectAgent",
            "Let an agent answer the conversations of a phone number",
        )
        .body(RequestBody::json::<NumberConnectAgent>("agent; optionally applyToExisting"))
        .responses(RESPONSES),
    },
    Route {
        role: Role::Admin,
        handler: handler!(disconnect_agent),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/disconnect-agent/",
            "disconnectAgent",
            "Disconnect the agent of a phone number: messages are stored without an automatic answer",
        )
        .body(RequestBody::json::<NumberDisconnectAgent>("optionally applyToExisting"))
        .responses(RESPONSES),
    },
];

/// Who answers the conversations of a phone number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NumberRouting {
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

impl NumberRouting {
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

/// Whether a number is a shared sandbox number, which has no WABA.
fn is_sandbox(number: &NumberEntry) -> bool {
    number.spec.waba.as_str().is_empty()
}

/// Maximum length of a number in a body, in characters.
const NUMBER_CHARS_MAX: usize = 15;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"number": "918035737458", "whatsappPhoneNumberId": "106540352242923", "applyToExisting": true})))]
struct NumberSubscribe {
    /// The number in the path.
    #[schema(max_length = 15)]
    number: String,
    /// Meta's id of the number.
    whatsapp_phone_number_id: String,
    /// The id of a webhook. The default is the account's only webhook.
    #[schema(format = Uuid)]
    webhook: Option<String>,
    /// Whether to route existing conversations there as well (default false).
    #[serde(default)]
    apply_to_existing: bool,
}

async fn subscribe(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = request.number()?;
    let body: NumberSubscribe = request.json().await?;
    if body.number.chars().count() > NUMBER_CHARS_MAX {
        let message = format!("number must be at most {NUMBER_CHARS_MAX} characters");
        return Err(ApiError::bad_value("number", message));
    }
    if parse_number(&body.number).as_ref() != Some(&number.spec.number) {
        let message = format!("number must be that of the path, {}", request.parameter("number"));
        return Err(ApiError::bad_value("number", message));
    }
    if body.whatsapp_phone_number_id != number.spec.phone_number_id.as_str() {
        let message = "whatsappPhoneNumberId is not Meta's id of this number";
        return Err(ApiError::bad_value("whatsappPhoneNumberId", message));
    }
    let webhook = match body.webhook.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => {
            Some(id.parse().map_err(|_| ApiError::bad_value("webhook", "no such webhook"))?)
        }
        None => None,
    };
    let webhook = request.api().inbox.webhooks().get_or_only(request.scope(), &number, webhook)?;
    let routing = Routing::Webhook(Some(webhook.id));
    apply(&request, &number, routing, body.apply_to_existing).await
}

/// Applies a routing to a number. On a sandbox number, it applies to the conversation of the key's
/// or person's own WhatsApp number.
async fn apply(
    request: &ApiRequest,
    number: &Arc<NumberEntry>,
    routing: Routing,
    to_existing: bool,
) -> Result<Response, ApiError> {
    let inbox = &request.api().inbox;
    if !is_sandbox(number) {
        inbox.router().route_number(number, routing, to_existing).await?;
        if routing.agent().is_none() {
            let panel = request.api().numbers.panel();
            panel.release_from_agent(request.scope(), &number.spec.number).await?;
        }
        return Ok(ok(&NumberRouting::of(number, routing)));
    }
    let Some(user) = request.principal.wa_id.as_deref() else {
        let message = "this is a sandbox number, where only the conversation of your own WhatsApp \
            number can be changed: set waId of your user or API key";
        return Err(ApiError::conflict("no_user", message));
    };
    let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() };
    let pair = inbox.numbers().pair(number, user);
    inbox.router().route_user(pair, routing).await?;
    // The routing that the asking user sees; that of the number is unchanged.
    Ok(ok(&NumberRouting::of(number, routing)))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"agent": "5b1f0e2c-6a1e-4f0e-9a2b-5d7f3f0a9b11"})))]
struct NumberConnectAgent {
    agent: Uuid,
    #[serde(default)]
    apply_to_existing: bool,
}

/// Returns the agent if it can answer the messages of a number.
pub(super) async fn answering_agent(
    request: &ApiRequest,
    number: &NumberEntry,
    id: Uuid,
) -> Result<Agent, ApiError> {
    let agent = request.api().store.agents().get(request.scope(), id).await;
    let agent = agent.map_err(ApiError::store("read an agent"))?;
    // An agent of a subaccount does not serve numbers of its main account.
    let agent = agent.filter(|agent| number.may_be_served_by(&agent.account));
    let agent = agent.ok_or_else(|| ApiError::bad_value("agent", "no such agent"))?;
    if !agent.spec.channels.contains(&AgentChannel::Whatsapp) {
        return Err(ApiError::conflict(
            "no_channel",
            "the agent does not answer messages: add whatsapp to its channels",
        ));
    }
    Ok(agent)
}

async fn connect_agent(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = request.number()?;
    let body: NumberConnectAgent = request.json().await?;
    let (api, scope) = (request.api(), request.scope());
    let agent = answering_agent(&request, &number, body.agent).await?;
    if agents::is_not_on_cloud_api(api, scope, &number.spec.number) {
        return Err(ApiError::conflict(
            "not_cloud_api",
            "only numbers that are registered with Meta's Cloud API can have an agent: register it",
        ));
    }
    let routing = api.inbox.numbers().routing_of(&number);
    let is_set_to_agent = {
        let book = api.keeper.book();
        let entry = book.number(scope, &number.spec.number);
        entry.is_some_and(|entry| entry.set.configuration == Configuration::Agent)
    };
    // The number is configured for an agent but has none, so its existing conversations are not
    // answered yet.
    let to_existing = body.apply_to_existing || is_set_to_agent && routing == Routing::None;
    if !is_sandbox(&number) {
        // Enable the agent if the number had none. If the previous agent was silenced, the new one
        // is too.
        let (wakes, takes_calls) =
            (routing.agent().is_none(), agent.spec.channels.contains(&AgentChannel::Voice));
        // The number's own URL continues to serve existing conversations if its configuration type
        // allows that.
        let serves = routing == Routing::Webhook(None) && !to_existing;
        api.numbers
            .panel()
            .prepare_for_agent(scope, &number.spec.number, wakes, takes_calls, serves)
            .await?;
    }
    apply(&request, &number, Routing::Agent(body.agent), to_existing).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"applyToExisting": true})))]
struct NumberDisconnectAgent {
    #[serde(default)]
    apply_to_existing: bool,
}

async fn disconnect_agent(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = request.number()?;
    let body: NumberDisconnectAgent = request.json().await?;
    apply(&request, &number, Routing::None, body.apply_to_existing).await
}
