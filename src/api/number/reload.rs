//! `POST /api/v1/reload/`: the configuration is read again, as SIGHUP does it. For a main account's owner.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::super::routes::{Answer, Content, Route, of};
use super::super::{Finding, Reload, Reloaded, error};
use super::ask::Asked;
use store::Scope;

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/api/v1/reload/",
    id: "reload",
    summary: "Reads the configuration again; for an owner of the node's only main account",
    query: &[],
    body: None,
    answers: &[
        Answer {
            status: 200,
            what: "What is in force now",
            content: Content::Json(of::<Reloaded>),
        },
        Answer {
            status: 409,
            what: "The node was started without a file",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
    ],
}];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    error: Why,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Why {
    code: &'static str,
    message: &'static str,
    field: Option<()>,
    request_id: uuid::Uuid,
    meta: Option<()>,
    findings: Vec<Finding>,
}

pub(super) async fn reload(asked: &Asked) -> Response {
    if !matches!(asked.scope(), Scope::Main(_)) {
        return error::json(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this is for an owner of a main account",
            None,
        );
    }
    match asked.api().operator.reload().await {
        Reload::Done(reloaded) => error::body(StatusCode::OK, &reloaded),
        Reload::NoFile => error::json(
            StatusCode::CONFLICT,
            "no_file",
            "this node was started without a configuration file",
            None,
        ),
        Reload::Shared => {
            let message =
                "this node serves several main accounts: its operator reloads it by SIGHUP";
            error::json(StatusCode::FORBIDDEN, "forbidden", message, None)
        }
        Reload::Refused(findings) => {
            let message = "the configuration is wrong: nothing has changed";
            let request_id = uuid::Uuid::new_v4();
            let error = Why {
                code: "bad_configuration",
                message,
                field: None,
                request_id,
                meta: None,
                findings,
            };
            error::body(StatusCode::BAD_REQUEST, &Refused { error })
        }
    }
}
