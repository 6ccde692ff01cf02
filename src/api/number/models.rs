//! `/api/v1/models/`: speech models of this node, which are uploaded or downloaded, installed and
//! removed. Only an owner of the node's only main account may use it, because all accounts of a
//! node share its models.

use std::time::Duration;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::audit::Change;
use super::super::body::BodyError;
use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::request::ApiRequest;
use super::response::{accepted, created, no_content, ok};
use super::route::{NOT_FOUND, Route, error, handler};
use model::Role;
use speech::model_manager::ManageError;
use speech::models::{FILE_BYTES_MAX, ListedModel};

pub(super) const SHARED: ResponseSpec = error(
    403,
    "Several main accounts share the node: its operator uses `offhook models` on the machine",
);
const BUSY: ResponseSpec =
    error(409, "`busy`: another model is being received, installed or removed");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/models/",
            "listModels",
            "List the speech models of this node, and the known ones that are not installed",
        )
        .responses(&[ResponseSpec::json::<ModelList>(200, "All models"), SHARED]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(upload),
        operation: Operation::post(
            "/api/v1/models/",
            "uploadModel",
            "Upload the file of a model, which is checked and can then be installed. It is deleted \
             after an hour, and replaced by the next upload",
        )
        .query(&[QueryParameter::text(
            "filename",
            "Name of the file; that of an ONNX or safetensors file becomes the name of the model",
        )])
        .body(RequestBody::raw("*/*", "A wheel with a known model, ONNX or safetensors (512 MiB)"))
        .responses(&[
            ResponseSpec::json::<ListedModel>(201, "The model in the file, not installed"),
            SHARED,
            error(408, "The file took longer than 600 s"),
            BUSY,
            error(413, "The file is larger than 512 MiB"),
            error(415, "The body is compressed"),
            error(422, "`not_usable`: the file is damaged or not a model"),
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(read),
        operation: Operation::get("/api/v1/models/{name}/", "model", "Retrieve a speech model")
            .responses(&[ResponseSpec::json::<ListedModel>(200, "The model"), SHARED, NOT_FOUND]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(install),
        operation: Operation::post(
            "/api/v1/models/{name}/install/",
            "installModel",
            "Install a model from the uploaded file with this SHA-256, or download a known one from \
             the package index that the node's environment names (PIP_INDEX_URL). New calls use it at \
             once",
        )
        .body(RequestBody::json::<Installation>(
            "The licence that is accepted, and the SHA-256 of an uploaded file",
        ))
        .responses(&[
            ResponseSpec::json::<ListedModel>(200, "Installed"),
            ResponseSpec::json::<ListedModel>(202, "The download has started; the list shows it"),
            SHARED,
            NOT_FOUND,
            error(
                409,
                "`busy`; `no_source`: the node's environment names no package index; `not_uploaded`: \
                 upload the file again",
            ),
            error(422, "`not_usable`: the file is damaged or not a model"),
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(discard),
        operation: Operation::post(
            "/api/v1/models/{name}/discard/",
            "discardModel",
            "Delete the uploaded file of a model that is not installed",
        )
        .responses(&[ResponseSpec::empty(204, "Deleted"), SHARED, NOT_FOUND]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(remove),
        operation: Operation::delete(
            "/api/v1/models/{name}/",
            "removeModel",
            "Remove an installed model. Calls in progress keep it until they end",
        )
        .responses(&[
            ResponseSpec::empty(204, "Removed"),
            SHARED,
            NOT_FOUND,
            error(409, "`busy`; `configured`: the configuration requires the model"),
        ]),
    },
];

/// The models of a node.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SpeechModels)]
struct ModelList {
    /// The node that has them. Each node of a fleet has its own.
    node: String,
    items: Vec<ListedModel>,
    /// The uploaded file that waits to be installed. Null if there is none.
    uploaded: Option<ListedModel>,
    /// The download in progress, or the latest one if it failed. Null if there is none.
    download: Option<DownloadStatus>,
    /// Whether known models can be downloaded.
    can_download: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ModelDownload)]
struct DownloadStatus {
    name: &'static str,
    bytes_received: u64,
    bytes: u64,
    /// Why it failed. Null while it is in progress.
    problem: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ModelInstallation, examples(json!({"licence": "Apache-2.0"})))]
struct Installation {
    /// The licence of the model, which the operator accepts.
    licence: String,
    /// The SHA-256 of the uploaded file. Without it, the model is downloaded.
    #[serde(default)]
    sha256: Option<String>,
}

const NO_MODEL: &str = "no such model: GET /api/v1/models/ lists them";
/// Value of `Retry-After` if another model is being changed.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The refusal on a node of several main accounts.
pub(super) const IF_SHARED: &str =
    "this node serves several main accounts: its operator uses `offhook models` on the machine";

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    let models = &request.api().models;
    Ok(ok(&ModelList {
        node: request.api().operator.node_id().to_owned(),
        items: models.models(),
        uploaded: models.uploaded(),
        download: models.download().map(|download| DownloadStatus {
            name: download.known.name,
            bytes_received: download.received,
            bytes: download.known.bytes,
            problem: download.problem,
        }),
        can_download: models.can_download(),
    }))
}

async fn upload(mut request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    let length = request.file_length()?;
    if length.is_some_and(|length| length > FILE_BYTES_MAX) {
        return Err(manage_error(ManageError::TooLarge));
    }
    let filename = request.query_text("filename").unwrap_or("model").to_owned();
    let body = request.body().into_data_stream();
    let model = request.api().models.upload(&filename, body).await.map_err(manage_error)?;
    Ok(created(&model))
}

async fn read(request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    let (models, name) = (&request.api().models, request.parameter("name"));
    let found = models.models().into_iter().chain(models.uploaded());
    let model = found.into_iter().find(|model| model.name == name);
    Ok(ok(&model.ok_or(ApiError::NotFound(NO_MODEL))?))
}

async fn install(mut request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    let Installation { licence, sha256 } = request.json().await?;
    let (models, name) = (request.api().models.clone(), request.parameter("name").to_owned());
    if let Some(sha256) = sha256 {
        let model = models.install(&name, &sha256, &licence).await.map_err(manage_error)?;
        return Ok(ok(&model));
    }
    let is_uploaded = models.uploaded().iter().any(|model| model.name == name);
    if is_uploaded && !models.can_download() {
        let message = "sha256 is required: that of the uploaded file, as POST models/ returned it";
        return Err(ApiError::bad_value("sha256", message));
    }
    let download = models.start_download(&name, &licence).map_err(manage_error)?;
    let known = models.models().into_iter().find(|model| model.name == name);
    let (state, actor) = (request.state.clone(), request.principal.actor.clone());
    let owner = state.owner_of(request.scope());
    let before = serde_json::to_value(&known).unwrap_or_default();
    tokio::spawn(async move {
        let Ok(model) = download.await else { return };
        let recorded = state.audit.record(Change {
            owner,
            actor: &actor,
            action: "modelInstalled",
            object: &format!("models/{name}"),
            before,
            after: serde_json::to_value(&model).unwrap_or_default(),
        });
        recorded.await;
    });
    Ok(accepted(&known))
}

async fn discard(request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    match request.api().models.discard(request.parameter("name")).await {
        true => Ok(no_content()),
        false => Err(ApiError::NotFound(NO_MODEL)),
    }
}

async fn remove(request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    request.api().models.remove(request.parameter("name")).await.map_err(manage_error)?;
    Ok(no_content())
}

fn manage_error(why: ManageError) -> ApiError {
    let message = why.to_string();
    match why {
        ManageError::Busy => {
            let retry_after = Some(RETRY_AFTER.as_secs());
            ApiError::Conflict { code: "busy", message: message.into(), retry_after }
        }
        ManageError::TooLarge => ApiError::PayloadTooLarge(message.into()),
        ManageError::Empty => ApiError::bad_body(message),
        ManageError::Incomplete => BodyError::Unreadable.into(),
        ManageError::Slow => ApiError::RequestTimeout("the file took longer than 600 s"),
        ManageError::Refused(_) | ManageError::Unfinished => {
            ApiError::rule("not_usable", message, None)
        }
        ManageError::NotFound => ApiError::NotFound(NO_MODEL),
        ManageError::NotUploaded => ApiError::conflict("not_uploaded", message),
        ManageError::Licence(_) => ApiError::bad_value("licence", message),
        ManageError::NoSource => ApiError::conflict("no_source", message),
        ManageError::Configured => ApiError::conflict("configured", message),
        ManageError::Process(_)
        | ManageError::Store(_)
        | ManageError::Model(_)
        | ManageError::Fetch(_)
        | ManageError::Engine(_) => {
            tracing::warn!(error = message, "speech model could not be changed");
            ApiError::Internal
        }
    }
}
