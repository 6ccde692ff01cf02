//! Functions shared by labels and canned replies: reading and writing presets of the scope.

use uuid::Uuid;

use super::super::error::ApiError;
use super::request::ApiRequest;
use super::users::account_of;
use store::{Preset, PresetKind};

/// Lists the presets of the scope, ordered by name.
pub(super) async fn list(request: &ApiRequest, kind: PresetKind) -> Result<Vec<Preset>, ApiError> {
    let found = request.api().store.presets().list(request.scope(), kind).await;
    found.map_err(ApiError::store("list presets"))
}

/// Returns the preset with this id. One outside the scope does not exist.
pub(super) async fn find(
    request: &ApiRequest,
    kind: PresetKind,
    id: Uuid,
    not_found: &'static str,
) -> Result<Preset, ApiError> {
    let found = list(request, kind).await?.into_iter().find(|preset| preset.id == id);
    found.ok_or(ApiError::NotFound(not_found))
}

/// Creates a preset of the account given in the request. The default is the account of the request.
pub(super) async fn create(
    request: &ApiRequest,
    kind: PresetKind,
    account: Option<&str>,
    name: String,
    content: String,
) -> Result<Preset, ApiError> {
    let (account, main_account) = account_of(request, account)?;
    let preset = Preset { id: Uuid::new_v4(), account, main_account, kind, name, content };
    let is_created = request.api().store.presets().create(preset.clone()).await;
    match is_created.map_err(ApiError::store("store a preset"))? {
        true => Ok(preset),
        false => Err(taken_or_full(request, &preset).await?),
    }
}

/// Changes a preset.
pub(super) async fn change(request: &ApiRequest, preset: Preset) -> Result<Preset, ApiError> {
    let is_changed = request.api().store.presets().change(preset.clone()).await;
    match is_changed.map_err(ApiError::store("store a preset"))? {
        true => Ok(preset),
        false => Err(taken_or_full(request, &preset).await?),
    }
}

/// Deletes a preset.
pub(super) async fn delete(
    request: &ApiRequest,
    preset: &Preset,
    not_found: &'static str,
) -> Result<(), ApiError> {
    let is_deleted = request.api().store.presets().delete(preset.id).await;
    match is_deleted.map_err(ApiError::store("delete a preset"))? {
        true => Ok(()),
        false => Err(ApiError::NotFound(not_found)),
    }
}

/// Returns why the store refused a preset.
async fn taken_or_full(request: &ApiRequest, preset: &Preset) -> Result<ApiError, ApiError> {
    let name = preset.name.to_lowercase();
    let of_account = list(request, preset.kind).await?;
    let is_taken = of_account.iter().any(|other| {
        other.account == preset.account
            && other.id != preset.id
            && other.name.to_lowercase() == name
    });
    Ok(match is_taken {
        true => ApiError::conflict("name_taken", format!("{} exists already", preset.name)),
        false => ApiError::conflict(
            "too_many",
            format!("an account has at most {} of them", preset.kind.max()),
        ),
    })
}
