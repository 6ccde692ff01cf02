//! `POST /api/v1/reload/`: reads the configuration again, as SIGHUP does.

use axum::response::Response;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::super::{ReloadOutcome, ReloadSummary};
use super::request::ApiRequest;
use super::response::ok;
use super::route::{Route, error, handler};
use model::Role;
use store::Scope;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Owner,
    handler: handler!(reload),
    operation: Operation::post(
        "/api/v1/reload/",
        "reload",
        "Reload the configuration; for an owner of the node's only main account",
    )
    .responses(&[
        ResponseSpec::json::<ReloadSummary>(200, "The configuration that is now in force"),
        error(409, "The node was started without a configuration file"),
    ]),
}];

async fn reload(request: ApiRequest) -> Result<Response, ApiError> {
    if !matches!(request.scope(), Scope::Main(_)) {
        return Err(ApiError::forbidden("only an owner of a main account may do this"));
    }
    match request.api().operator.reload().await {
        ReloadOutcome::Applied(summary) => Ok(ok(&summary)),
        ReloadOutcome::NoFile => {
            Err(ApiError::conflict("no_file", "the node was started without a configuration file"))
        }
        ReloadOutcome::SharedNode => Err(ApiError::forbidden(
            "this node serves several main accounts: its operator reloads it with SIGHUP",
        )),
        ReloadOutcome::Invalid(findings) => Err(ApiError::InvalidConfiguration(findings)),
    }
}
