//! `GET /api/v1/account/`: the limits in force for whoever asks, and how much of them is in use now (`number-api.md` §4).

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::LiveStatus;
use super::super::routes::{Answer, Content, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use model::{AuthId, E164};

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/api/v1/account/",
    id: "accountUse",
    summary: "The limits in force for the account, and how much of them is in use now",
    query: &[],
    body: None,
    answers: &[Answer { status: 200, what: "As it stands", content: Content::Json(of::<Shown>) }],
}];

/// An account with its limits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AccountUse)]
pub(super) struct Shown {
    #[schema(value_type = String)]
    account: AuthId,
    name: String,
    /// The main account of a subaccount.
    #[schema(value_type = Option<String>)]
    parent: Option<AuthId>,
    /// Calls that may begin in a second.
    cps_limit: usize,
    /// How many did in the last one.
    cps_used: usize,
    /// The auth token before the newest one counts until then; null: there is none that was replaced over the API.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_token_until: Option<Timestamp3339>,
    live_calls: usize,
    /// Waiting for the calls per second.
    queued_calls: usize,
    numbers: Vec<Slots>,
}

/// A number's simultaneous calls.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberSlots)]
struct Slots {
    #[schema(value_type = String)]
    number: E164,
    alias: String,
    slots_limit: u32,
    slots_used: u32,
}

pub(super) fn get(asked: &Asked) -> Result<Response, Fault> {
    let (api, scope) = (asked.api(), asked.scope());
    let book = api.keeper.book();
    let account =
        book.account(scope.auth_id()).ok_or_else(|| ask::missing("there is no such account"))?;
    let tables = api.gate.directory().tables();
    let entry = tables.account(scope.auth_id());
    let (cps_limit, cps_used) = entry.map_or((0, 0), |entry| api.gate.cps(api.clock.now(), entry));
    let live = api.live.list(scope);
    let queued_calls = live.iter().filter(|call| call.status == LiveStatus::Queued).count();
    let own =
        tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let mut numbers: Vec<Slots> = own
        .map(|n| Slots {
            number: n.spec.number.clone(),
            alias: n.spec.alias.clone(),
            slots_limit: n.slots.limit(),
            slots_used: n.slots.in_use(),
        })
        .collect();
    numbers.sort_by(|a, b| a.number.cmp(&b.number));
    Ok(ask::ok(&Shown {
        account: account.auth_id.clone(),
        name: account.details.name.clone(),
        parent: account.parent.clone(),
        cps_limit,
        cps_used,
        previous_token_until: account
            .rotated
            .as_ref()
            .and_then(|rotated| rotated.until)
            .map(Timestamp3339),
        live_calls: live.len() - queued_calls,
        queued_calls,
        numbers,
    }))
}
