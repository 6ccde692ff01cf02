//! `POST /api/v1/calls/` and `POST /api/v1/calls/{call_uuid}/hangup/` (`number-api.md` §4): calls are placed by the same
//! command and the same rules as over the Plivo-compatible API, only the words differ.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::{self, Trouble};
use super::super::placing::{self, RING_TIMEOUT, TIME_LIMIT, customer_url};
use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::with_header;
use super::ask::{self, Asked, Fault, digits};
use super::bodies::Taken;
use crate::admission::permission::Why;
use crate::admission::{Because, Denied, NumberEntry, Reason};
use crate::call::author;
use crate::call::dialer::{CallOrder, NotPlaced};
use crate::inbox::Inbox;
use machine::Outbound;
use model::{CallUuid, E164, EndpointName, Method};
use store::AgentChannel;
use xml::Document;
use xml::ast::DocUrl;

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[Taken::of::<Order>("placeCall")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/api/v1/calls/",
        id: "placeCall",
        summary: "Calls a WhatsApp user, by the rules of any call: permission, barred countries, calls per second, slots",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "from, to, and where its documents are: answerUrl (answerMethod), agent or endpoint; without them the number's own answer URL or agent",
        }),
        answers: &[
            Answer {
                status: 201,
                what: "It waits for the account's calls per second, or goes out at once",
                content: Content::Json(of::<Placed>),
            },
            Answer {
                status: 409,
                what: "Calling is off, the user is on the line, the number has no answer URL, the agent takes no calls, the endpoint's phone is not there",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 413,
                what: "Larger than 256 KiB",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 415,
                what: "Compressed",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 422,
                what: "A rule of WhatsApp forbids it: the user's permission (nextCallAt: when it does no more), a barred country",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 503,
                what: "The node stops",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/calls/{call_uuid}/hangup/",
        id: "hangUp",
        summary: "Hangs up a call that is up, or takes back one that waits",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 202, what: "It is told", content: Content::Json(of::<HangingUp>) },
            Answer {
                status: 409,
                what: "It is over",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
];

/// A call that was placed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlacedCall)]
pub(super) struct Placed {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    /// `queued`.
    outcome: &'static str,
}

/// A call that was told to hang up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HangingUpCall)]
pub(super) struct HangingUp {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallOrder, examples(json!({"from": "918035737458", "to": "919812345678", "answerUrl": "https://app.example.com/answer"})))]
struct Order {
    /// A number of the account's with calling enabled.
    from: String,
    /// The user's number, with its country code.
    to: String,
    /// Where its documents are; or an agent, or an endpoint. Without any of them: what the number has.
    answer_url: Option<String>,
    #[schema(schema_with = super::bodies::method)]
    answer_method: Option<String>,
    agent: Option<Uuid>,
    /// The name of an endpoint, which is called and connected.
    endpoint: Option<String>,
}

/// Where a call's documents are.
struct Documents {
    answer: (DocUrl, Method),
    fallback: Option<(DocUrl, Method)>,
    /// In their place, one that is made here.
    own: Option<Arc<Document>>,
}

/// `POST /calls/`.
pub(super) async fn place(asked: Asked) -> Result<Response, Fault> {
    let (asked, order) = asked.json::<Order>().await?;
    let api = asked.api();
    let none = || ask::bad("from", "this account has no such number");
    let from = digits(&order.from).ok_or_else(none)?;
    let number = api.placing.number(asked.scope(), &from);
    let number = number.ok_or_else(|| ask::out_of_service(&asked, &from).unwrap_or_else(none))?;
    let to = digits(&order.to);
    let to = to.ok_or_else(|| {
        ask::bad("to", "to must be a WhatsApp user's number with its country code")
    })?;
    if to == number.spec.number {
        return Err(ask::bad("to", "to is the number that calls"));
    }
    let Documents { answer, fallback, own } = documents(&asked, &order, &number, &to).await?;
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
            document: own,
            ..Outbound::default()
        },
        number,
        each: Vec::new(),
    };
    let calls = placing::place(api, &order).await.map_err(refused)?;
    let call_uuid = calls.first().copied().ok_or_else(|| Box::new(super::internal()))?;
    Ok(error::body(StatusCode::CREATED, &Placed { call_uuid, outcome: "queued" }))
}

/// Where the documents of an order are: what it names, else what the number has.
async fn documents(
    asked: &Asked,
    order: &Order,
    number: &NumberEntry,
    to: &E164,
) -> Result<Documents, Fault> {
    let at = |answer| Documents { answer, fallback: None, own: None };
    let method = match order.answer_method.as_deref() {
        None | Some("POST") => Method::Post,
        Some("GET") => Method::Get,
        Some(_) => return Err(ask::bad("answerMethod", "answerMethod must be GET or POST")),
    };
    match (&order.answer_url, order.agent, &order.endpoint) {
        (Some(url), None, None) => {
            let url = customer_url(asked.api(), "answerUrl", url)
                .map_err(|why| ask::bad("answerUrl", &why))?;
            Ok(at((url, method)))
        }
        (None, Some(agent), None) => agents(asked, agent, number).await.map(at),
        (None, None, Some(endpoint)) => {
            let own = Some(connecting(asked, endpoint, to).await?);
            Ok(Documents { answer: (DocUrl("".into()), Method::Post), fallback: None, own })
        }
        (None, None, None) => {
            let answer = author::answer_of(asked.api().gate.directory(), &number.spec);
            let why = "the number has neither an answer URL nor an agent: give answerUrl, agent or endpoint";
            let answer = answer.ok_or_else(|| ask::conflict("no_answer_url", why))?;
            Ok(Documents { fallback: number.spec.fallback.clone(), ..at(answer) })
        }
        (Some(_), _, _) => Err(ask::bad("answerUrl", "give one of answerUrl, agent and endpoint")),
        (None, Some(_), Some(_)) => Err(ask::bad("endpoint", "give agent or endpoint, not both")),
    }
}

/// Where a call with an agent of the account's begins.
async fn agents(asked: &Asked, id: Uuid, number: &NumberEntry) -> Result<(DocUrl, Method), Fault> {
    let agent = asked
        .api()
        .store
        .agents()
        .get(asked.scope(), id)
        .await
        .map_err(ask::store("read an agent"))?;
    // As for what comes in: another subaccount's agent serves no number of this one's.
    let agent = agent.filter(|agent| Inbox::may_serve(number, &agent.account));
    let agent = agent.ok_or_else(|| ask::bad("agent", "this account has no such agent"))?;
    if !agent.spec.serves(AgentChannel::Voice) {
        let why = "this agent takes no calls: enable it, and add voice to its channels";
        return Err(ask::conflict("no_channel", why));
    }
    Ok(author::agent_url(id))
}

/// The document that connects the user with an endpoint's phone, once they have picked up.
async fn connecting(asked: &Asked, endpoint: &str, to: &E164) -> Result<Arc<Document>, Fault> {
    let api = asked.api();
    let bare = endpoint.strip_prefix("sip:").unwrap_or(endpoint);
    let name = EndpointName::parse(bare.split('@').next().unwrap_or(bare));
    let name = name.map_err(|why| ask::bad("endpoint", &format!("endpoint {why}")))?;
    let known =
        api.store.endpoints().by_name(&name).await.map_err(ask::store("read an endpoint"))?;
    if !known.is_some_and(|endpoint| asked.scope().holds(&endpoint.account, &endpoint.main_account))
    {
        return Err(ask::bad("endpoint", "this account has no such endpoint"));
    }
    if !api.phones.is_registered(&name) {
        return Err(ask::conflict(
            "endpoint_away",
            "no phone of this endpoint is registered: nobody could take the call",
        ));
    }
    let address = name.sip_address(&api.host);
    // A name has nothing that XML would mind, and no more have digits.
    let xml = format!("<Response><Dial callerId=\"{to}\"><User>{address}</User></Dial></Response>");
    let parsed = xml::parse(xml.as_bytes(), None);
    parsed.document.ok_or_else(|| Box::new(super::internal()))
}

fn refused(why: NotPlaced) -> Fault {
    let json = |status, code, message: &str, field| error::json(status, code, message, field);
    Box::new(match why {
        NotPlaced::Denied { denied, .. } => return denied_by(&denied),
        NotPlaced::QueueFull { after } => {
            let why = "too many calls of the account wait for its calls per second";
            let answer = json(StatusCode::TOO_MANY_REQUESTS, "cps_exceeded", why, None);
            with_header(answer, header::RETRY_AFTER, &after.as_secs().saturating_add(1).to_string())
        }
        NotPlaced::Draining => stopping(),
    })
}

fn stopping() -> Response {
    let why = "this node stops: ask again in a moment";
    error::in_a_moment(error::json(StatusCode::SERVICE_UNAVAILABLE, "draining", why, None))
}

/// The rule that forbids a call, in our words for it.
fn denied_by(denied: &Denied) -> Fault {
    let code = denied.reason.as_str();
    let rule = |code, field| Trouble {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        code,
        message: denied.to_string(),
        field: Some(field),
        meta: None,
        next_request: None,
        next_call: Some(denied.again()),
    };
    match denied.reason {
        Reason::NoPermission => {
            let of_day = matches!(denied.because, Because::Permission(refusal) if refusal.why == Why::DailyLimit);
            Box::new(error::trouble(&rule(if of_day { "daily_limit" } else { code }, "to")))
        }
        Reason::GeoBlocked => {
            Box::new(error::trouble(&Trouble { next_call: None, ..rule(code, "from") }))
        }
        Reason::CallingDisabled => ask::conflict(code, "calling is not enabled for this number"),
        Reason::UserBusy => {
            ask::conflict(code, "a call between this number and this user is under way")
        }
        Reason::NumberFull | Reason::CpsExceeded => {
            let why = match denied.reason {
                Reason::NumberFull => "the number has as many calls up as it may",
                _ => "the account places as many calls in a second as it may",
            };
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, code, why, Some("from"));
            Box::new(with_header(answer, header::RETRY_AFTER, "1"))
        }
        Reason::UnknownNumber => ask::bad("from", "this account has no such number"),
        Reason::Draining | Reason::Overloaded => Box::new(stopping()),
        // Of calls that come in.
        Reason::BadOffer | Reason::Duplicate => Box::new(super::internal()),
    }
}

/// `POST /calls/{call_uuid}/hangup/`.
pub(super) async fn hang_up(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call_uuid = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    if api.live.hang_up(scope, call_uuid) {
        return Ok(error::body(StatusCode::ACCEPTED, &HangingUp { call_uuid }));
    }
    api.store.flush().await;
    match api.store.calls().get(scope, call_uuid).await.map_err(ask::store("read a call"))? {
        Some(_) => Err(ask::conflict("call_over", "this call is over")),
        None => Err(ask::missing(NONE)),
    }
}
