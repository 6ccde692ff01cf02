//! `GET /api/v1/account/`: the effective limits of an account, and their use.

use std::collections::HashSet;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::super::{LiveCall, LiveStatus};
use super::request::ApiRequest;
use super::response::{Timestamp3339, ok};
use super::route::{Route, handler};
use model::{AuthId, CallUuid, E164, Role};

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(get),
    operation: Operation::get(
        "/api/v1/account/",
        "accountUse",
        "Retrieve the account's limits and their current use",
    )
    .responses(&[ResponseSpec::json::<AccountUse>(200, "The limits and their use")]),
}];

/// The limits of an account and their use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AccountUse {
    #[schema(value_type = String)]
    account: AuthId,
    name: String,
    /// The main account, if this is a subaccount.
    #[schema(value_type = Option<String>)]
    parent: Option<AuthId>,
    /// Maximum number of calls that may start per second.
    cps_limit: usize,
    /// Number of calls that started in the last second.
    cps_used: usize,
    /// The end of the time in which the previous auth token is also valid. Null if no token was
    /// replaced over the API.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_token_until: Option<Timestamp3339>,
    live_calls: usize,
    /// Number of calls that wait because of the calls per second.
    queued_calls: usize,
    numbers: Vec<NumberSlots>,
}

/// The simultaneous calls of a phone number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NumberSlots {
    #[schema(value_type = String)]
    number: E164,
    alias: String,
    /// Maximum number of calls at once. In a fleet, on all nodes.
    slots_limit: u32,
    /// Number of calls in progress. In a fleet, on all nodes that answer.
    slots_used: u32,
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let book = api.keeper.book();
    let account = book.account(scope.auth_id()).ok_or(ApiError::NotFound("no such account"))?;
    let tables = api.gate.directory().tables();
    let entry = tables.account(scope.auth_id());
    let (cps_limit, cps_used) = entry.map_or((0, 0), |entry| api.gate.cps(api.clock.now(), entry));
    // A slot of this node may be in use for longer than its call is listed.
    let here: HashSet<CallUuid> = api.live.list(scope).iter().map(|call| call.call).collect();
    let live = api.live.list_all(scope).await.calls;
    let queued_calls = live.iter().filter(|call| call.status == LiveStatus::Queued).count();
    let elsewhere = LiveCall::slots(live.iter().filter(|call| !here.contains(&call.call)));
    let own =
        tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let mut numbers: Vec<NumberSlots> = own
        .map(|n| NumberSlots {
            number: n.spec.number.clone(),
            alias: n.spec.alias.clone(),
            slots_limit: n.spec.calls_per_number,
            slots_used: n.slots.in_use()
                + elsewhere.get(n.spec.number.as_str()).copied().unwrap_or_default(),
        })
        .collect();
    numbers.sort_by(|a, b| a.number.cmp(&b.number));
    Ok(ok(&AccountUse {
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
