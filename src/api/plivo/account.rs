//! The account itself: its name and address, its limits, and their use.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::LiveStatus;
use super::super::routes::{Field, FieldKind, Operation, RequestBody};
use super::error::PlivoError;
use super::request::PlivoRequest;
use super::response::{Changed, account_uri, changed, ok};
use super::route::{Route, handler, object};
use engine::admission::book::Account;

/// Maximum length of a name, city, address or time zone, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 200;

const PATH: &str = "/v1/Account/{auth_id}/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(get),
        operation: Operation::get(
            PATH,
            "account",
            "Retrieve the account, its calls per second and its live calls",
        )
        .responses(&[object::<AccountView<'static>>(200, "The account")]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            PATH,
            "changeAccount",
            "Change the name, city, address or timezone of the account",
        )
        .body(RequestBody::fields(
            "name, city, address, timezone",
            &[&[
                Field::optional("name", FieldKind::Text(200), "One of the four is required"),
                Field::optional("city", FieldKind::Text(200), ""),
                Field::optional("address", FieldKind::Text(200), ""),
                Field::optional("timezone", FieldKind::Text(200), "Only shown; times stay UTC"),
            ]],
        ))
        .responses(&[object::<Changed>(202, "Changed")]),
    },
];

/// An account. The last three fields are extensions of Plivo's object.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoAccount)]
struct AccountView<'a> {
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
    /// Calls that were admitted in the last second.
    cps_in_use: usize,
    calls_live: usize,
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    const NOT_FOUND: PlivoError = PlivoError::NotFound("account not found");
    let (api, id) = (request.api(), request.scope.auth_id());
    let (book, tables) = (api.keeper.book(), api.gate.directory().tables());
    let Account { details, .. } = book.account(id).ok_or(NOT_FOUND)?;
    let (cps, cps_in_use) =
        tables.account(id).map_or((0, 0), |entry| api.gate.cps(api.clock.now(), entry));
    let live = api.live.list_all(&request.scope).await.calls;
    Ok(ok(&AccountView {
        account_type: "standard",
        address: &details.address,
        auth_id: id.as_str(),
        auto_recharge: false,
        billing_mode: "prepaid",
        cash_credits: "0.00000",
        city: &details.city,
        name: &details.name,
        resource_uri: account_uri(id),
        state: "",
        timezone: &details.timezone,
        cps,
        cps_in_use,
        calls_live: live.iter().filter(|call| call.status != LiveStatus::Queued).count(),
    }))
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, fields) = (request.api(), request.fields()?);
    let text = |name: &str| fields.bounded(name, TEXT_CHARS_MAX).map_err(PlivoError::BadRequest);
    let (name, city, address, timezone) =
        (text("name")?, text("city")?, text("address")?, text("timezone")?);
    if [&name, &city, &address, &timezone].into_iter().all(Option::is_none) {
        return Err(PlivoError::BadRequest(
            "one parameter of name, city, address and timezone is required".to_owned(),
        ));
    }
    let (id, now) = (request.scope.auth_id().clone(), api.clock.wall());
    let change = api.keeper.change(now, |book| {
        let keys = book.edit_account(&id, now, |details| {
            let texts = [
                (&mut details.name, &name),
                (&mut details.city, &city),
                (&mut details.address, &address),
                (&mut details.timezone, &timezone),
            ];
            for (to, text) in texts {
                if let Some(text) = text {
                    to.clone_from(text);
                }
            }
        });
        Ok::<_, PlivoError>(((), keys))
    });
    change.await?;
    Ok(changed())
}
