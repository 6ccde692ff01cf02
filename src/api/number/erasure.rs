//! `DELETE /api/v1/users/{user_id}/`: erases the node's data about a WhatsApp user, or deletes a
//! person of the console. The format of the id decides between the two.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::permissions;
use super::request::ApiRequest;
use super::response::{Timestamp3339, accepted, no_content};
use super::route::{Route, error, handler};
use super::users::NO_USER;
use model::{E164, Role};
use store::Scope;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Owner,
    handler: handler!(delete),
    operation: Operation::delete(
        "/api/v1/users/{user_id}/",
        "forgetUser",
        "With a number: erase all data about a WhatsApp user, within a minute. With an id: delete a \
         person of the console",
    )
    .responses(&[
        ResponseSpec::json::<Erasure>(202, "The data will be erased"),
        ResponseSpec::empty(204, "The person is deleted and their sessions are ended"),
        error(409, "The person is the one who asks, or is defined in the configuration file"),
        error(404, "No such user"),
    ]),
}];

/// A request to erase the data about a WhatsApp user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Erasure {
    id: Uuid,
    wa_id: String,
    #[schema(value_type = String, format = DateTime)]
    asked_at: Timestamp3339,
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    match request.parameter("user_id").parse() {
        Ok(id) => delete_person(&request, id).await,
        Err(_) => erase_user(&request).await,
    }
}

async fn delete_person(request: &ApiRequest, id: Uuid) -> Result<Response, ApiError> {
    request.api().people.remove(request.scope(), id, request.principal.user).await?;
    Ok(no_content())
}

async fn erase_user(request: &ApiRequest) -> Result<Response, ApiError> {
    let user = permissions::parse_user(request.parameter("user_id"));
    let wa_id = user.ok_or(ApiError::NotFound(NO_USER))?;
    let main = Scope::of(request.main_account());
    let is_own = E164::parse(&wa_id)
        .is_ok_and(|number| request.api().keeper.book().number(&main, &number).is_some());
    if is_own {
        let message = "a number of your own business is not a user";
        return Err(ApiError::bad_value("waId", message));
    }
    let account = request.scope().auth_id().clone();
    let erasure = request.api().eraser.ask(account, request.main_account(), &wa_id).await;
    let erasure = erasure.map_err(ApiError::store("store an erasure"))?;
    let asked_at = Timestamp3339(erasure.asked);
    Ok(accepted(&Erasure { id: erasure.id, wa_id, asked_at }))
}
