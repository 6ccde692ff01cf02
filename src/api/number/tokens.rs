//! `/api/v1/account/token/`: replaces the auth token of an account. The previous token also
//! authenticates and signs for a while. The new token is shown once.

use std::time::Duration;

use aws_lc_rs::rand;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::request::ApiRequest;
use super::response::{Timestamp3339, created, no_content};
use super::route::{Route, error, handler};
use super::users::account_of;
use engine::admission::book::{ChangeError, RotateError};
use model::Secret;
use model::{AuthId, Role};

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(rotate),
        operation: Operation::post(
            "/api/v1/account/token/",
            "rotateToken",
            "Create a new auth token, shown only here; the previous one stays valid for a while",
        )
        .body(RequestBody::json::<TokenRotation>(
            "overlapHours (1 to 720, default 24), account (a subaccount)",
        ))
        .responses(&[
            ResponseSpec::json::<CreatedToken>(201, "The new token"),
            error(409, "Two tokens are valid already"),
            error(413, "The body is larger than 256 KiB"),
            error(415, "The body is compressed"),
            error(503, "The store is unavailable"),
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(end_overlap),
        operation: Operation::delete(
            "/api/v1/account/token/previous/",
            "endTokenOverlap",
            "Invalidate the previous auth token now",
        )
        .query(&[QueryParameter::text("account", "A subaccount")])
        .responses(&[
            ResponseSpec::empty(204, "Invalidated"),
            error(409, "No token that was replaced over the API is valid"),
            error(503, "The store is unavailable"),
        ]),
    },
];

const OVERLAP_HOURS: u64 = 24;
const OVERLAP_HOURS_MAX: u64 = 720;
/// Number of random bytes in a token, as in a subaccount's token.
const TOKEN_BYTES: usize = 30;

/// A new auth token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuthTokenMade)]
struct CreatedToken {
    #[schema(value_type = String)]
    account: AuthId,
    /// The token. It is not shown again.
    auth_token: String,
    /// The end of the time in which the previous token also authenticates and signs. Null if the
    /// previous one was sealed with another `store.secret_key`.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<Timestamp3339>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"overlapHours": 24})))]
struct TokenRotation {
    /// How long the previous token stays valid, in hours (default 24).
    #[schema(minimum = 1, maximum = 720)]
    overlap_hours: Option<u64>,
    /// A subaccount. The default is the account of the request.
    account: Option<String>,
}

async fn rotate(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: TokenRotation = request.json().await?;
    let hours = body.overlap_hours.unwrap_or(OVERLAP_HOURS);
    if !(1..=OVERLAP_HOURS_MAX).contains(&hours) {
        let message = format!("overlapHours must be between 1 and {OVERLAP_HOURS_MAX}");
        return Err(ApiError::bad_value("overlapHours", message));
    }
    let (account, _) = account_of(&request, body.account.as_deref())?;
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| ApiError::Internal)?;
    let auth_token = URL_SAFE_NO_PAD.encode(bytes);
    let now = request.api().clock.wall();
    let until = now.plus(Duration::from_secs(hours * 3_600));
    let changed = request
        .api()
        .keeper
        .change(now, |book| book.rotate_token(&account, Secret::new(auth_token.clone()), until));
    let until = changed.await.map_err(|error| match error {
        ChangeError::Refused(RotateError::UnknownAccount) => ApiError::NotFound("no such account"),
        ChangeError::Refused(RotateError::Overlap(Some(until))) => {
            let message = format!(
                "the previous token is valid until {until}: DELETE account/token/previous/ \
                 invalidates it"
            );
            ApiError::conflict("rotation_running", message)
        }
        ChangeError::Refused(RotateError::Overlap(None)) => ApiError::conflict(
            "rotation_running",
            "the configuration file has auth_token_previous: remove it there first",
        ),
        ChangeError::Store(error) => ApiError::store("change a token")(error),
    })?;
    tracing::info!(%account, until = until.map(tracing::field::display), "auth token replaced");
    let previous_until = until.map(Timestamp3339);
    Ok(created(&CreatedToken { account, auth_token, previous_until }))
}

async fn end_overlap(request: ApiRequest) -> Result<Response, ApiError> {
    let (account, _) = account_of(&request, request.query_text("account"))?;
    let api = request.api();
    let changed = api.keeper.change(api.clock.wall(), |book| {
        book.end_overlap(&account).map(|keys| ((), keys)).ok_or(())
    });
    changed.await.map_err(|error| match error {
        ChangeError::Refused(()) => ApiError::conflict(
            "no_previous",
            "there is no valid previous token from a replacement over the API",
        ),
        ChangeError::Store(error) => ApiError::store("invalidate a token")(error),
    })?;
    tracing::info!(%account, "previous auth token invalidated");
    Ok(no_content())
}
