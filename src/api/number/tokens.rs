//! `/api/v1/account/token/`: an account's auth token takes another's place, with an overlap in which both authenticate and
//! sign. For owners; the new one is shown once.

use std::time::Duration;

use aws_lc_rs::rand;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::error;
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use super::bodies::Taken;
use super::users::account_of;
use crate::admission::book::{NotChanged, NotRotated};
use model::AuthId;
use model::Secret;

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[Taken::of::<Wanted>("rotateToken")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/api/v1/account/token/",
        id: "rotateToken",
        summary: "A new auth token, shown this once; the one before it authenticates and signs beside it for a while",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "overlapHours (1 to 720, 24 where absent), account (a subaccount)",
        }),
        answers: &[
            Answer {
                status: 201,
                what: "It counts from now on",
                content: Content::Json(of::<Made>),
            },
            Answer {
                status: 409,
                what: "Two tokens count already",
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
                status: 503,
                what: "Nothing can be stored now",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "DELETE",
        path: "/api/v1/account/token/previous/",
        id: "endTokenOverlap",
        summary: "The auth token before the newest one counts no more, from now on",
        query: &[Query { name: "account", what: "A subaccount", kind: Kind::Text }],
        body: None,
        answers: &[
            Answer { status: 204, what: "Gone", content: Content::Nothing },
            Answer {
                status: 409,
                what: "There is none that was replaced over the API",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 503,
                what: "Nothing can be stored now",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
];

const OVERLAP_HOURS: u64 = 24;
const OVERLAP_HOURS_MAX: u64 = 720;
/// As many as of a subaccount's token.
const TOKEN_BYTES: usize = 30;

/// A token that counts from now on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuthTokenMade)]
pub(super) struct Made {
    #[schema(value_type = String)]
    account: AuthId,
    /// Not shown again.
    auth_token: String,
    /// Until then the one before it authenticates and signs too.
    #[schema(value_type = String, format = DateTime)]
    previous_until: Timestamp3339,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TokenRotation, examples(json!({"overlapHours": 24})))]
struct Wanted {
    /// How long the one before it counts too (24).
    #[schema(minimum = 1, maximum = 720)]
    overlap_hours: Option<u64>,
    /// A subaccount.
    account: Option<String>,
}

/// `POST /account/token/`.
pub(super) async fn rotate(asked: Asked) -> Result<Response, Fault> {
    let (asked, wanted) = asked.json::<Wanted>().await?;
    let hours = wanted.overlap_hours.unwrap_or(OVERLAP_HOURS);
    if !(1..=OVERLAP_HOURS_MAX).contains(&hours) {
        let why = format!("overlapHours must be an integer from 1 to {OVERLAP_HOURS_MAX}");
        return Err(ask::bad("overlapHours", &why));
    }
    let (account, _) = account_of(&asked, wanted.account.as_deref())?;
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| Box::new(super::internal()))?;
    let auth_token = URL_SAFE_NO_PAD.encode(bytes);
    let now = asked.api().clock.wall();
    let until = now.plus(Duration::from_secs(hours * 3_600));
    let changed = asked.api().keeper.change(now, |book| {
        book.rotate_token(&account, Secret::new(auth_token.clone()), until).map(|keys| ((), keys))
    });
    changed.await.map_err(|why| match why {
        NotChanged::Refused(NotRotated::Nobody) => ask::missing("there is no such account"),
        NotChanged::Refused(NotRotated::Overlap(Some(until))) => {
            let why = format!(
                "the token before the newest one counts until {until}: DELETE account/token/previous/ ends that"
            );
            ask::conflict("rotation_running", &why)
        }
        NotChanged::Refused(NotRotated::Overlap(None)) => {
            ask::conflict("rotation_running", "the configuration names auth_token_previous: take it out there first")
        }
        NotChanged::Store(error) => ask::store("change a token")(error),
    })?;
    tracing::info!(%account, %until, "an auth token takes another's place");
    Ok(error::body(
        StatusCode::CREATED,
        &Made { account, auth_token, previous_until: Timestamp3339(until) },
    ))
}

/// `DELETE /account/token/previous/`.
pub(super) async fn end(asked: &Asked) -> Result<Response, Fault> {
    let (account, _) =
        account_of(asked, asked.value("account").filter(|account| !account.is_empty()))?;
    let now = asked.api().clock.wall();
    let changed = asked
        .api()
        .keeper
        .change(now, |book| book.end_overlap(&account).map(|keys| ((), keys)).ok_or(()));
    changed.await.map_err(|why| match why {
        NotChanged::Refused(()) => {
            ask::conflict("no_previous", "no token counts that was replaced over the API")
        }
        NotChanged::Store(error) => ask::store("end a token")(error),
    })?;
    tracing::info!(%account, "an auth token that was replaced counts no more");
    Ok(ask::gone())
}
