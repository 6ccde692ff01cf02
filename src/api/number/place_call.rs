//! `POST /api/v1/calls/` and `POST /api/v1/calls/{call_uuid}/hangup/`. Calls are placed by the same
//! rules as over the Plivo-compatible API. Only the names of the fields differ.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::placement::{self, RING_TIMEOUT, TIME_LIMIT, customer_url};
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::error::NOT_OWN_NUMBER;
use super::request::{ApiRequest, NO_CALL, parse_number, parse_user_number};
use super::response::{accepted, created};
use super::route::{Route, error, handler};
use engine::admission::NumberEntry;
use engine::call::author;
use engine::call::dialer::CallOrder;
use machine::Outbound;
use model::{CallUuid, E164, EndpointName, Method, Role};
use store::AgentChannel;
use xml::Document;
use xml::ast::DocUrl;

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(place),
        operation: Operation::post(
            "/api/v1/calls/",
            "placeCall",
            "Place a call to a WhatsApp user, subject to permission, barred countries, calls per \
             second and slots",
        )
        .body(RequestBody::json::<CallRequest>(
            "from, to, and one of answerUrl (with answerMethod), agent and endpoint; without any of \
             them the answer URL or the agent of the number",
        ))
        .responses(&[
            ResponseSpec::json::<PlacedCall>(201, "Queued for the account's calls per second"),
            error(
                409,
                "Calling is disabled, the user is in a call with this number, the number has no \
                 answer URL, the agent takes no calls, or the endpoint is not registered",
            ),
            error(413, "The body is larger than 256 KiB"),
            error(415, "The body is compressed"),
            error(
                422,
                "A rule of WhatsApp forbids the call: the permission of the user (nextCallAt: when \
                 a call is allowed again), or a barred country",
            ),
            error(503, "The node is shutting down"),
        ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(hang_up),
        operation: Operation::post(
            "/api/v1/calls/{call_uuid}/hangup/",
            "hangUp",
            "Hang up a live call or cancel a queued one",
        )
        .responses(&[
            ResponseSpec::json::<HangingUpCall>(202, "The call is being hung up"),
            error(409, "The call has ended"),
        ]),
    },
];

/// A call that was placed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlacedCall {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    /// `queued`.
    outcome: &'static str,
}

/// A call that is being hung up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HangingUpCall {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CallOrder, examples(json!({"from": "918035737458", "to": "919812345678", "answerUrl": "https://app.example.com/answer"})))]
struct CallRequest {
    /// A phone number of the account with calling enabled.
    from: String,
    /// The number of a WhatsApp user with its country code.
    to: String,
    /// URL from which the call gets its documents. The default is the answer URL of the number, or
    /// its agent.
    answer_url: Option<String>,
    #[schema(schema_with = super::schema::method)]
    answer_method: Option<String>,
    /// The agent that talks to the user.
    agent: Option<Uuid>,
    /// The name of an endpoint that is called and connected to the user.
    endpoint: Option<String>,
}

/// The source of a call's documents.
struct DocumentSource {
    answer: (DocUrl, Method),
    fallback: Option<(DocUrl, Method)>,
    /// The document of the call if it does not come from a URL.
    document: Option<Arc<Document>>,
}

async fn place(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: CallRequest = request.json().await?;
    let api = request.api();
    let not_own = || ApiError::bad_value("from", NOT_OWN_NUMBER);
    let from = parse_number(&body.from).ok_or_else(not_own)?;
    let number = api.placer.number(request.scope(), &from);
    let number = number.ok_or_else(|| request.disconnected(&from).unwrap_or_else(not_own))?;
    let to = parse_user_number(&body.to).ok_or_else(|| {
        ApiError::bad_value("to", "to must be the number of a WhatsApp user with its country code")
    })?;
    if to == number.spec.number {
        return Err(ApiError::bad_value("to", "to must not be the calling number"));
    }
    let DocumentSource { answer, fallback, document } =
        document_source(&request, &body, &number, &to).await?;
    let order = CallOrder {
        to: vec![to],
        hangup: number.spec.hangup.clone().unwrap_or_else(|| answer.clone()),
        answer,
        fallback,
        caller_name: String::new(),
        headers: Vec::new(),
        time_limit: Duration::from_secs(TIME_LIMIT),
        outbound: Outbound {
            ring_timeout_ms: RING_TIMEOUT * 1_000,
            document,
            ..Outbound::default()
        },
        number,
        each: Vec::new(),
    };
    let calls = placement::place(api, &order).await?;
    let call_uuid = calls.first().copied().ok_or(ApiError::Internal)?;
    Ok(created(&PlacedCall { call_uuid, outcome: "queued" }))
}

/// Returns the source of documents in a request, or that of the number.
async fn document_source(
    request: &ApiRequest,
    body: &CallRequest,
    number: &NumberEntry,
    to: &E164,
) -> Result<DocumentSource, ApiError> {
    let at = |answer| DocumentSource { answer, fallback: None, document: None };
    let method = match body.answer_method.as_deref() {
        None | Some("POST") => Method::Post,
        Some("GET") => Method::Get,
        Some(_) => {
            return Err(ApiError::bad_value("answerMethod", "answerMethod must be GET or POST"));
        }
    };
    match (&body.answer_url, body.agent, &body.endpoint) {
        (Some(url), None, None) => {
            let url = customer_url(request.api(), "answerUrl", url);
            Ok(at((url.map_err(|why| ApiError::bad_value("answerUrl", why))?, method)))
        }
        (None, Some(agent), None) => agent_url(request, agent, number).await.map(at),
        (None, None, Some(endpoint)) => {
            let document = Some(endpoint_document(request, endpoint, to).await?);
            let answer = (DocUrl("".into()), Method::Post);
            Ok(DocumentSource { answer, fallback: None, document })
        }
        (None, None, None) => {
            let answer = author::answer_of(request.api().gate.directory(), &number.spec);
            let answer = answer.ok_or_else(|| {
                let message = "the number has no answer URL and no agent: give answerUrl, agent or \
                    endpoint";
                ApiError::conflict("no_answer_url", message)
            })?;
            Ok(DocumentSource { fallback: number.spec.fallback.clone(), ..at(answer) })
        }
        (Some(_), _, _) => {
            let message = "give only one of answerUrl, agent and endpoint";
            Err(ApiError::bad_value("answerUrl", message))
        }
        (None, Some(_), Some(_)) => {
            Err(ApiError::bad_value("endpoint", "give agent or endpoint, not both"))
        }
    }
}

/// Returns the answer URL of a call with an agent of the account.
async fn agent_url(
    request: &ApiRequest,
    id: Uuid,
    number: &NumberEntry,
) -> Result<(DocUrl, Method), ApiError> {
    let agent = request.api().store.agents().get(request.scope(), id).await;
    let agent = agent.map_err(ApiError::store("read an agent"))?;
    // As for inbound calls: an agent of one subaccount does not serve numbers of another.
    let agent = agent.filter(|agent| number.may_be_served_by(&agent.account));
    let agent = agent.ok_or_else(|| ApiError::bad_value("agent", "no such agent"))?;
    if !agent.spec.serves(AgentChannel::Voice) {
        let message = "the agent takes no calls: enable it, and add voice to its channels";
        return Err(ApiError::conflict("no_channel", message));
    }
    Ok(author::agent_url(id))
}

/// Builds the document that connects the user to an endpoint after they have answered.
async fn endpoint_document(
    request: &ApiRequest,
    endpoint: &str,
    to: &E164,
) -> Result<Arc<Document>, ApiError> {
    let api = request.api();
    let bare = endpoint.strip_prefix("sip:").unwrap_or(endpoint);
    let name = EndpointName::parse(bare.split('@').next().unwrap_or(bare));
    let name = name.map_err(|why| ApiError::bad_value("endpoint", format!("endpoint {why}")))?;
    let known = api.store.endpoints().by_name(&name).await;
    let known = known.map_err(ApiError::store("read an endpoint"))?;
    let is_own = |endpoint: store::Endpoint| {
        request.scope().holds(&endpoint.account, &endpoint.main_account)
    };
    if !known.is_some_and(is_own) {
        return Err(ApiError::bad_value("endpoint", "no such endpoint"));
    }
    if !api.phones.is_registered(&name) {
        return Err(ApiError::conflict(
            "endpoint_away",
            "the endpoint is not registered, so the call could not be answered",
        ));
    }
    let address = name.sip_address(&api.host);
    // Neither names of endpoints nor digits have characters that XML would have to escape.
    let xml = format!("<Response><Dial callerId=\"{to}\"><User>{address}</User></Dial></Response>");
    xml::parse(xml.as_bytes(), None).document.ok_or(ApiError::Internal)
}

async fn hang_up(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let call_uuid: CallUuid = request.id("call_uuid", NO_CALL)?;
    if api.live.hang_up(scope, call_uuid) {
        return Ok(accepted(&HangingUpCall { call_uuid }));
    }
    api.store.flush().await;
    let record = api.store.calls().get(scope, call_uuid).await;
    match record.map_err(ApiError::store("read a call"))? {
        Some(_) => Err(ApiError::conflict("call_over", "the call has ended")),
        None => Err(ApiError::NotFound(NO_CALL)),
    }
}
