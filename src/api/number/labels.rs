//! `/api/v1/labels/`: names with a colour that people give to conversations.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::presets;
use super::request::ApiRequest;
use super::response::{created, etag, no_content, ok, ok_with_etag, with_etag};
use super::route::{CHANGED, Route, error, handler};
use model::{AuthId, Role, is_line};
use store::{Preset, PresetKind};

const COLLECTION: &str = "/api/v1/labels/";
const ITEM: &str = "/api/v1/labels/{label_id}/";
const NOT_FOUND: &str = "no such label";
/// Maximum length of a name, in characters.
const NAME_CHARS_MAX: usize = 32;
const CONFLICT: ResponseSpec =
    error(409, "`name_taken`: a label has this name; `too_many`: the account has 100 labels");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(get_all),
        operation: Operation::get(COLLECTION, "labels", "List labels, in the order of their names")
            .responses(&[ResponseSpec::json::<LabelList>(200, "The labels, up to 1,000")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(create),
        operation: Operation::post(COLLECTION, "createLabel", "Create a label")
            .body(RequestBody::json::<NewLabel>("name, colour; optionally account"))
            .responses(&[
                ResponseSpec::json::<LabelView>(201, "The label with its ETag"),
                CONFLICT,
            ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(ITEM, "label", "Retrieve a label")
            .responses(&[ResponseSpec::json::<LabelView>(200, "The label with its ETag")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(change),
        operation: Operation::patch(ITEM, "changeLabel", "Rename a label or change its colour")
            .body(RequestBody::json::<LabelChange>("name, colour"))
            .responses(&[
                ResponseSpec::json::<LabelView>(200, "The changed label with its ETag"),
                CONFLICT,
                CHANGED,
            ]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(delete),
        operation: Operation::delete(ITEM, "deleteLabel", "Delete a label; conversations lose it")
            .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

/// The colour of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = LabelColour)]
pub(super) enum Colour {
    Gray,
    Red,
    Orange,
    Green,
    Blue,
    Purple,
}

impl Colour {
    const ALL: [Self; 6] =
        [Self::Gray, Self::Red, Self::Orange, Self::Green, Self::Blue, Self::Purple];

    fn as_str(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
        }
    }

    /// Converts a stored colour. Unknown ones are gray.
    fn read(word: &str) -> Self {
        Self::ALL.into_iter().find(|colour| colour.as_str() == word).unwrap_or(Self::Gray)
    }
}

/// A label.
#[derive(Serialize, ToSchema)]
#[schema(as = Label, examples(json!({"id": "a87ff679-a2f3-471d-9181-a67b7542122c", "name": "Refund", "colour": "orange", "account": "MAXXXXXXXXXXXXXXXXXX"})))]
pub(super) struct LabelView {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    name: String,
    colour: Colour,
    /// The account whose conversations can have the label.
    #[schema(value_type = String)]
    account: AuthId,
}

impl From<Preset> for LabelView {
    fn from(label: Preset) -> Self {
        let colour = Colour::read(&label.content);
        Self { id: label.id, name: label.name, colour, account: label.account }
    }
}

/// The labels.
#[derive(Serialize, ToSchema)]
#[schema(as = Labels)]
struct LabelList {
    items: Vec<LabelView>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLabel, examples(json!({"name": "Refund", "colour": "orange"})))]
struct NewLabel {
    /// 1 to 32 characters.
    #[schema(min_length = 1, max_length = 32)]
    name: String,
    colour: Colour,
    /// A subaccount. The default is the account of the request.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LabelChange, examples(json!({"colour": "red"})))]
struct LabelChange {
    #[schema(min_length = 1, max_length = 32)]
    name: Option<String>,
    colour: Option<Colour>,
}

fn check_name(name: &str) -> Result<String, ApiError> {
    let name = name.trim();
    match is_line(name, 1..=NAME_CHARS_MAX) {
        true => Ok(name.to_owned()),
        false => Err(ApiError::bad_value("name", "name must be 1 to 32 characters")),
    }
}

async fn find(request: &ApiRequest) -> Result<Preset, ApiError> {
    let id = request.id("label_id", NOT_FOUND)?;
    presets::find(request, PresetKind::Label, id, NOT_FOUND).await
}

async fn get_all(request: ApiRequest) -> Result<Response, ApiError> {
    let labels = presets::list(&request, PresetKind::Label).await?;
    Ok(ok(&LabelList { items: labels.into_iter().map(LabelView::from).collect() }))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    Ok(ok_with_etag(&LabelView::from(find(&request).await?)))
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let new: NewLabel = request.json().await?;
    let (name, colour) = (check_name(&new.name)?, new.colour.as_str().to_owned());
    let account = new.account.as_deref();
    let label = presets::create(&request, PresetKind::Label, account, name, colour).await?;
    let label = LabelView::from(label);
    Ok(with_etag(created(&label), &etag(&label)))
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: LabelChange = request.json().await?;
    let mut label = find(&request).await?;
    request.check_if_match(&etag(&LabelView::from(label.clone())))?;
    if let Some(name) = body.name {
        label.name = check_name(&name)?;
    }
    if let Some(colour) = body.colour {
        label.content = colour.as_str().to_owned();
    }
    Ok(ok_with_etag(&LabelView::from(presets::change(&request, label).await?)))
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let label = find(&request).await?;
    presets::delete(&request, &label, NOT_FOUND).await?;
    Ok(no_content())
}
