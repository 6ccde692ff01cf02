//! The account itself (`plivo-call-api.md` §5): what it is called, its limits, and how much of them it uses.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, LiveStatus, error};
use super::{Ask, No, changed, own_uri, settle};
use crate::admission::book::Account;

/// Longest name, city, address or time zone, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 200;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/",
        id: "account",
        summary: "The account, its calls per second and its live calls",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "The account",
            content: Content::Plivo(&[of::<Shown<'static>>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/",
        id: "changeAccount",
        summary: "Changes the account's name, city, address or timezone",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "name, city, address, timezone",
        }),
        answers: &[Answer {
            status: 202,
            what: "Changed",
            content: Content::Plivo(&[of::<super::Changed>]),
        }],
    },
];

/// An account, as Plivo describes one; the last three fields are ours.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoAccount)]
pub(super) struct Shown<'a> {
    account_type: &'static str,
    address: &'a str,
    auth_id: &'a str,
    auto_recharge: bool,
    billing_mode: &'static str,
    cash_credits: &'static str,
    city: &'a str,
    name: &'a str,
    resource_uri: String,
    state: &'static str,
    timezone: &'a str,
    /// Calls per second.
    cps: usize,
    /// Of these, calls admitted in the last second.
    cps_in_use: usize,
    calls_live: usize,
}

/// `GET` of the account.
pub(super) fn get(api: &Api, ask: &Ask) -> Result<Response, No> {
    let id = ask.scope.auth_id();
    let (book, tables) = (api.keeper.book(), api.gate.directory().tables());
    let Account { details, .. } = book.account(id).ok_or(No::NotFound("account not found"))?;
    let (cps, cps_in_use) =
        tables.account(id).map_or((0, 0), |entry| api.gate.cps(api.clock.now(), entry));
    let live = api.live.list(&ask.scope);
    let shown = Shown {
        account_type: "standard",
        address: &details.address,
        auth_id: id.as_str(),
        auto_recharge: false,
        billing_mode: "prepaid",
        cash_credits: "0.00000",
        city: &details.city,
        name: &details.name,
        resource_uri: own_uri(id),
        state: "",
        timezone: &details.timezone,
        cps,
        cps_in_use,
        calls_live: live.iter().filter(|call| call.status != LiveStatus::Queued).count(),
    };
    Ok(error::plivo_body(StatusCode::OK, &shown))
}

/// `POST` to the account.
pub(super) async fn edit(api: &Api, ask: &Ask) -> Result<Response, No> {
    let fields = ask.fields()?;
    let text = |name: &str| fields.bounded(name, TEXT_CHARS_MAX).map_err(No::Bad);
    let (name, city, address, timezone) =
        (text("name")?, text("city")?, text("address")?, text("timezone")?);
    if [&name, &city, &address, &timezone].into_iter().all(Option::is_none) {
        return Err(No::Bad(
            "one parameter of name, city, address and timezone is required".to_owned(),
        ));
    }
    let (id, now) = (ask.scope.auth_id().clone(), api.clock.wall());
    let change = api.keeper.change(now, |book| {
        let keys = book.edit_account(&id, now, |details| {
            let texts = [
                (&mut details.name, name),
                (&mut details.city, city),
                (&mut details.address, address),
                (&mut details.timezone, timezone),
            ];
            for (to, text) in texts {
                *to = text.unwrap_or_else(|| std::mem::take(to));
            }
        });
        Ok(((), keys))
    });
    settle(change.await)?;
    Ok(changed())
}
