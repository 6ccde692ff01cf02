//! Applications: answer, fallback, hangup and message URLs under one name, which numbers and
//! endpoints can use. See `docs/reference/rest.md#applications`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::fields::Fields;
use super::super::placement::customer_url;
use super::super::routes::{
    Field, FieldKind, Operation, QueryParameter, RequestBody, ResponseSpec,
};
use super::error::PlivoError;
use super::field_values::method;
use super::number::parse_owner;
use super::paging::{PageMeta, page_of};
use super::query;
use super::random;
use super::request::PlivoRequest;
use super::response::{Changed, account_uri, changed, created, no_content, ok, resource_uri};
use super::route::{CASCADE, CONFLICT, LIMIT, OFFSET, Route, handler, object};
use engine::admission::book::{Application, ApplicationInUse, Book, Link, TooMany};
use engine::feed::{Audience, FeedChange};
use model::{AppId, Method};
use store::Scope;
use xml::ast::DocUrl;

const NOT_FOUND: PlivoError = PlivoError::NotFound("application not found");
/// Maximum length of a name, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Number of digits of an id, as in Plivo's ids.
const ID_DIGITS: u32 = 17;
/// The parameter of a DELETE that names the next application of the endpoints.
const NEW_APPLICATION: &str = "new_endpoint_application";
/// The fields of the URLs and of their methods.
const LINKS: [(&str, &str); 4] = [
    ("answer_url", "answer_method"),
    ("fallback_answer_url", "fallback_method"),
    ("hangup_url", "hangup_method"),
    ("message_url", "message_method"),
];

const COLLECTION: &str = "/v1/Account/{auth_id}/Application/";
const ITEM: &str = "/v1/Account/{auth_id}/Application/{app_id}/";
const DESCRIPTION: &str = "app_name, answer_url, hangup_url, fallback_answer_url, message_url, each \
    with its method, default_number_app, default_endpoint_app, subaccount, public_uri, \
    log_incoming_messages";
const FIELDS: &[Field] = &[
    Field::optional("answer_url", FieldKind::Url, "An empty string removes a URL"),
    Field::optional("answer_method", FieldKind::Method, "Default POST"),
    Field::optional("fallback_answer_url", FieldKind::Url, ""),
    Field::optional("fallback_method", FieldKind::Method, "Default POST"),
    Field::optional("hangup_url", FieldKind::Url, "Default: the answer URL"),
    Field::optional("hangup_method", FieldKind::Method, "Default POST"),
    Field::optional("message_url", FieldKind::Url, "Stored, without effect"),
    Field::optional("message_method", FieldKind::Method, "Default POST"),
    Field::optional("default_number_app", FieldKind::Flag, "The default for new numbers"),
    Field::optional(
        "default_endpoint_app",
        FieldKind::Flag,
        "The default for endpoints without an application",
    ),
    Field::optional("subaccount", FieldKind::Text(20), "The owner; empty: the main account"),
    Field::optional("public_uri", FieldKind::Flag, "Stored"),
    Field::optional("log_incoming_messages", FieldKind::Flag, "Stored"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "listApplications", "List applications")
            .query(&[
                LIMIT,
                OFFSET,
                QueryParameter::text("subaccount", "Only applications of this subaccount"),
                QueryParameter::text("app_name", "Only applications with this name"),
            ])
            .responses(&[object::<ApplicationList<'static>>(200, "A page of applications")]),
    },
    Route {
        handler: handler!(create),
        operation: Operation::post(COLLECTION, "makeApplication", "Create an application")
            .body(RequestBody::fields(
                DESCRIPTION,
                &[&[Field::required("app_name", FieldKind::Text(100), "")], FIELDS],
            ))
            .responses(&[object::<CreatedApplication>(201, "The application"), CONFLICT]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "application", "Retrieve an application")
            .responses(&[object::<ApplicationView<'static>>(200, "The application")]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            ITEM,
            "changeApplication",
            "Change an application, from the next call on",
        )
        .body(RequestBody::fields(
            DESCRIPTION,
            &[&[Field::optional("app_name", FieldKind::Text(100), "")], FIELDS],
        ))
        .responses(&[object::<Changed>(202, "Changed"), CONFLICT]),
    },
    Route {
        handler: handler!(delete),
        operation: Operation::delete(
            ITEM,
            "removeApplication",
            "Delete an application, unless a number depends on it",
        )
        .query(&[
            QueryParameter::flag(
                CASCADE.name,
                "true: delete its endpoints too; also accepted in a JSON body",
            ),
            QueryParameter::text(
                NEW_APPLICATION,
                "The application that its endpoints get instead; also accepted in a JSON body",
            ),
        ])
        .responses(&[ResponseSpec::empty(204, "Deleted"), CONFLICT]),
    },
];

/// An application.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplication)]
struct ApplicationView<'a> {
    answer_method: &'static str,
    answer_url: Option<&'a str>,
    app_id: &'a str,
    app_name: &'a str,
    application_type: &'static str,
    default_app: bool,
    default_endpoint_app: bool,
    enabled: bool,
    fallback_answer_url: Option<&'a str>,
    fallback_method: &'static str,
    hangup_method: &'static str,
    hangup_url: Option<&'a str>,
    log_incoming_message: bool,
    message_method: &'static str,
    message_url: Option<&'a str>,
    public_uri: bool,
    resource_uri: String,
    sip_uri: String,
    sub_account: Option<String>,
}

impl<'a> ApplicationView<'a> {
    fn new(api: &Api, scope: &Scope, book: &Book, app: &'a Application) -> Self {
        let url = |link: &'a Link| link.url.as_ref().map(|url| &*url.0);
        Self {
            answer_method: app.answer.method.as_str(),
            answer_url: url(&app.answer),
            app_id: app.id.as_str(),
            app_name: &app.name,
            application_type: "XML",
            default_app: app.default_for_numbers,
            default_endpoint_app: app.default_for_endpoints,
            enabled: true,
            fallback_answer_url: url(&app.fallback),
            fallback_method: app.fallback.method.as_str(),
            hangup_method: app.hangup.method.as_str(),
            hangup_url: url(&app.hangup),
            log_incoming_message: app.log_incoming_messages,
            message_method: app.message.method.as_str(),
            message_url: url(&app.message),
            public_uri: app.public_uri,
            resource_uri: resource_uri(scope, &format!("Application/{}/", app.id)),
            sip_uri: format!("sip:{}@{}", app.id, api.host),
            sub_account: (app.account != *book.main_of(&app.account))
                .then(|| account_uri(&app.account)),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplications)]
struct ApplicationList<'a> {
    meta: PageMeta,
    objects: Vec<ApplicationView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplicationMade)]
struct CreatedApplication {
    app_id: String,
    message: &'static str,
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let book = api.keeper.book();
    let mut apps = book.applications(scope);
    let given = |name: &str| request.query_text(name);
    let owner = given("subaccount").map(|id| query::account("subaccount", id)).transpose()?;
    apps.retain(|app| {
        owner.as_ref().is_none_or(|owner| app.account == *owner)
            && given("app_name").is_none_or(|name| app.name == name)
    });
    let list_uri = resource_uri(scope, "Application/");
    let (meta, apps) = page_of(apps, &list_uri, request.query())?;
    let objects = apps.into_iter();
    let objects = objects.map(|app| ApplicationView::new(api, scope, &book, app)).collect();
    Ok(ok(&ApplicationList { meta, objects }))
}

fn app_id(request: &PlivoRequest) -> AppId {
    AppId::from(request.parameter("app_id"))
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let book = api.keeper.book();
    let app = book.application(scope, &app_id(&request)).ok_or(NOT_FOUND)?;
    Ok(ok(&ApplicationView::new(api, scope, &book, app)))
}

async fn create(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let fields = ApplicationFields::parse(api, &request.fields()?);
    let fields = fields.map_err(PlivoError::BadRequest)?;
    let missing = || PlivoError::BadRequest("app_name parameter is missing".to_owned());
    let name = fields.name.clone().ok_or_else(missing)?;
    let id = AppId::from(random::digits(ID_DIGITS)?);
    let now = api.clock.wall();
    let body = CreatedApplication { app_id: id.to_string(), message: "created" };
    let change = api.keeper.change(now, |book| {
        let app = Application {
            id: id.clone(),
            account: scope.auth_id().clone(),
            name: name.clone(),
            answer: Link::default(),
            fallback: Link::default(),
            hangup: Link::default(),
            message: Link::default(),
            default_for_numbers: false,
            default_for_endpoints: false,
            public_uri: false,
            log_incoming_messages: true,
            created: now,
        };
        let app = fields.apply(book, scope, app)?;
        book.put_application(app).map(|keys| ((), keys)).map_err(too_many)
    });
    change.await?;
    Ok(created(&body))
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope, id) = (request.api(), &request.scope, app_id(&request));
    if api.keeper.book().application(scope, &id).is_none() {
        return Err(NOT_FOUND);
    }
    let fields = ApplicationFields::parse(api, &request.fields()?);
    let fields = fields.map_err(PlivoError::BadRequest)?;
    let change = api.keeper.change(api.clock.wall(), |book| {
        let app = book.application(scope, &id).cloned().ok_or(NOT_FOUND)?;
        let app = fields.apply(book, scope, app)?;
        if app.answer.url.is_none()
            && let Some(number) = book.depending_number(&app.id)
        {
            return Err(in_use(number.number.as_str()));
        }
        book.put_application(app).map(|keys| ((), keys)).map_err(too_many)
    });
    change.await?;
    Ok(changed())
}

async fn delete(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope, id) = (request.api(), &request.scope, app_id(&request));
    let cascade = request.delete_flag(CASCADE.name)?;
    let instead = request.delete_text(NEW_APPLICATION).map(AppId::from);
    let main = scope_of_main(api, scope);
    let change = api.keeper.change(api.clock.wall(), |book| {
        if book.application(scope, &id).is_none() {
            return Err(NOT_FOUND);
        }
        if instead.as_ref().is_some_and(|new| *new == id || book.application(scope, new).is_none())
        {
            let message = format!("{NEW_APPLICATION} is invalid: no such application");
            return Err(PlivoError::BadRequest(message));
        }
        let removed = book.remove_application(&id);
        removed.map(|keys| ((), keys)).map_err(|ApplicationInUse { by }| in_use(by.as_str()))
    });
    change.await?;
    let endpoints = api.store.endpoints();
    let deleted = match cascade {
        true => endpoints.of_application(scope, &id).await?,
        false => Vec::new(),
    };
    if cascade {
        endpoints.delete_all(scope, &id).await.map_err(PlivoError::not_stored)?;
    }
    // A subaccount's application may be that of endpoints of the main account, too.
    let moved = endpoints.of_application(&main, &id).await?;
    if !moved.is_empty() {
        endpoints.move_all(&main, &id, instead).await.map_err(PlivoError::not_stored)?;
    }
    for endpoint in &deleted {
        api.phones.unregister(&endpoint.id, "endpoint_removed");
    }
    for endpoint in deleted.iter().chain(&moved) {
        let to = Audience::of(&endpoint.account, &endpoint.main_account);
        api.feed.publish(to, FeedChange::Endpoint(endpoint.id.clone()));
    }
    Ok(no_content())
}

/// The scope of the main account.
fn scope_of_main(api: &Api, scope: &Scope) -> Scope {
    Scope::of(api.keeper.book().main_of(scope.auth_id()).clone())
}

/// The error if the calls of a number would not be answered without its application.
fn in_use(number: &str) -> PlivoError {
    PlivoError::Conflict(format!(
        "number {number} depends on this application: give it another application first"
    ))
}

fn too_many(TooMany(most): TooMany) -> PlivoError {
    PlivoError::Conflict(format!("an account can have at most {most} applications"))
}

/// The fields of a new or changed application, each validated on its own.
struct ApplicationFields {
    name: Option<String>,
    /// The URLs, in the order of [`LINKS`].
    links: [LinkFields; 4],
    owner: Option<String>,
    default_for_numbers: Option<bool>,
    default_for_endpoints: Option<bool>,
    public_uri: Option<bool>,
    log_incoming_messages: Option<bool>,
}

/// A URL and its method. The inner `None` removes the URL.
struct LinkFields {
    url: Option<Option<DocUrl>>,
    method: Option<Method>,
}

impl ApplicationFields {
    fn parse(api: &Api, fields: &Fields) -> Result<Self, String> {
        let name = fields.bounded("app_name", NAME_CHARS_MAX)?;
        if name.as_ref().is_some_and(String::is_empty) {
            return Err("app_name parameter is missing".to_owned());
        }
        let link = |(url, how): (&str, &str)| -> Result<LinkFields, String> {
            let read = |text: String| {
                if text.is_empty() { Ok(None) } else { customer_url(api, url, &text).map(Some) }
            };
            Ok(LinkFields {
                url: fields.given(url)?.map(read).transpose()?,
                method: method(fields, how)?,
            })
        };
        let [answer, fallback, hangup, message] = LINKS.map(link);
        Ok(Self {
            name,
            links: [answer?, fallback?, hangup?, message?],
            owner: fields.given("subaccount")?,
            default_for_numbers: fields.flag("default_number_app")?,
            default_for_endpoints: fields.flag("default_endpoint_app")?,
            public_uri: fields.flag("public_uri")?,
            log_incoming_messages: fields.flag("log_incoming_messages")?,
        })
    }

    fn apply(
        &self,
        book: &Book,
        scope: &Scope,
        mut app: Application,
    ) -> Result<Application, PlivoError> {
        if let Some(owner) = &self.owner {
            app.account = parse_owner(book, scope, owner)?;
        }
        app.name = self.name.clone().unwrap_or(app.name);
        let links = [&mut app.answer, &mut app.fallback, &mut app.hangup, &mut app.message];
        for (link, edit) in links.into_iter().zip(&self.links) {
            link.url = edit.url.clone().unwrap_or_else(|| link.url.take());
            link.method = edit.method.unwrap_or(link.method);
        }
        app.default_for_numbers = self.default_for_numbers.unwrap_or(app.default_for_numbers);
        app.default_for_endpoints = self.default_for_endpoints.unwrap_or(app.default_for_endpoints);
        app.public_uri = self.public_uri.unwrap_or(app.public_uri);
        app.log_incoming_messages = self.log_incoming_messages.unwrap_or(app.log_incoming_messages);
        Ok(app)
    }
}
