//! `DELETE /api/v1/users/{waId}/`: forgets a WhatsApp user (`number-api.md` §4).

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error;
use super::super::routes::{Answer, Content, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use super::permissions;

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "DELETE",
    path: "/api/v1/users/{user_id}/",
    id: "forgetUser",
    summary: "By number: forgets everything about a WhatsApp user, within a minute. By id: removes one of the console's people",
    query: &[],
    body: None,
    answers: &[
        Answer {
            status: 202,
            what: "It will be done, whatever happens",
            content: Content::Json(of::<Shown>),
        },
        Answer {
            status: 204,
            what: "One of the console's people is gone, with their sessions",
            content: Content::Nothing,
        },
        Answer {
            status: 409,
            what: "It is oneself, or they stand in the configuration",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
        Answer {
            status: 404,
            what: "That is nobody",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
    ],
}];

/// A request to forget somebody.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Erasure)]
struct Shown {
    id: Uuid,
    wa_id: String,
    #[schema(value_type = String, format = DateTime)]
    asked_at: Timestamp3339,
}

/// `DELETE …/users/{wa_id}/`.
pub(super) async fn forget(asked: &Asked, user: &str) -> Result<Response, Fault> {
    let user = permissions::user_of(user).ok_or_else(|| ask::missing("there is no such user"))?;
    let account = asked.scope().auth_id().clone();
    let erasure = asked.api().eraser.ask(account, asked.main_account(), &user).await;
    let erasure = erasure.map_err(ask::store("take a request to forget a user on"))?;
    let shown = Shown { id: erasure.id, wa_id: user, asked_at: Timestamp3339(erasure.asked) };
    Ok(error::body(StatusCode::ACCEPTED, &shown))
}
