//! Both APIs, for use by the console: the same operations with the same checks as over HTTP, on
//! behalf of the signed-in person.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use uuid::Uuid;

use super::audit::{Actor, Change};
use super::auth::{Principal, RateChanges, given_api_key};
use super::{Api, ApiState, number, plivo, router, session};
use engine::people::{Person, Token};
use model::{AuthId, EndpointName, Role};
use store::{Endpoint, EndpointChange, Scope, User};

/// Maximum number of names that are tried for a person's own endpoint.
const NAMES_MAX: u32 = 20;

/// The HTTP APIs and their state; cheap to clone.
#[derive(Clone)]
pub struct Apis(Arc<ApiState>);

/// A response of one of the APIs.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    /// The JSON body; null if the response has none.
    pub body: Value,
}

impl ApiResponse {
    pub fn is_ok(&self) -> bool {
        self.status.is_success()
    }

    /// The message of an error; empty if the request succeeded.
    pub fn message(&self) -> &str {
        let message = self.body.pointer("/error/message").and_then(Value::as_str);
        // An error of the Plivo-compatible API is a string.
        message.or_else(|| self.body.get("error").and_then(Value::as_str)).unwrap_or_default()
    }

    /// The path of the wrong field, if the error is about a field.
    pub fn field(&self) -> Option<&str> {
        self.body.pointer("/error/field").and_then(Value::as_str)
    }

    async fn read(response: Response) -> Self {
        let status = response.status();
        match response.into_body().collect().await {
            Ok(body) => {
                let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
                Self { status, body }
            }
            Err(_) => Self::internal_error(),
        }
    }

    fn refused(status: StatusCode, message: &str) -> Self {
        Self { status, body: serde_json::json!({"error": message}) }
    }

    fn internal_error() -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: Value::Null }
    }
}

/// The sender of a request, by its credentials.
pub enum Caller {
    /// This main account, or a subaccount or person of it.
    Of(AuthId),
    /// The request has no valid credentials.
    Unknown,
    /// The credentials could not be checked, because the store failed.
    NotChecked,
}

impl Apis {
    /// Returns the main account to which the credentials of a request belong. Whether they permit the
    /// request is checked later, by its handler.
    pub async fn caller(&self, headers: &HeaderMap) -> Caller {
        let api = &self.0.api;
        let from = IpAddr::from([0, 0, 0, 0]);
        let configured = || api.credentials.api_key(headers, from).map(|holder| holder.scope);
        let created = || given_api_key(headers).and_then(|key| api.people.key(key));
        let scope = api.credentials.basic(headers).map(Scope::of).or_else(configured);
        if let Some(scope) = scope.or_else(|| created().map(|holder| Scope::of(holder.account))) {
            return Caller::Of(self.0.main_account_of(&scope));
        }
        let is_https = api.base_url.starts_with("https:");
        let Some(token) = session::token(headers, is_https) else { return Caller::Unknown };
        match api.people.who(&token).await {
            Ok(Some(person)) => Caller::Of(person.user.main_account),
            Ok(None) => Caller::Unknown,
            Err(_) => Caller::NotChecked,
        }
    }

    /// Starts collecting the requests that are sent to the other nodes of a fleet to be counted.
    pub fn share_rates(&self) {
        self.0.rate_limits.share();
    }

    /// Takes the requests that were collected since the last call.
    pub fn take_rate_changes(&self) -> RateChanges {
        self.0.rate_limits.take_changes()
    }

    /// Adds the request counts that another node has sent.
    pub fn merge_rates(&self, changes: RateChanges) {
        self.0.rate_limits.merge(self.0.api.clock.now(), changes);
    }

    /// Counts a form of the console. Returns the time to wait if the user has submitted too many.
    pub fn record_form(&self, user: Uuid) -> Option<Duration> {
        self.0.rate_limits.record_form(user)
    }

    /// Counts a page of the console. Returns the time to wait if the user has requested too many.
    pub fn record_page(&self, user: Uuid) -> Option<Duration> {
        self.0.rate_limits.record_page(user)
    }

    pub fn new(api: Api) -> Self {
        Self(Arc::new(ApiState::new(api)))
    }

    /// The routes of the APIs and their files.
    pub fn router(&self) -> Router {
        router(self.0.clone())
    }

    pub fn api(&self) -> &Api {
        &self.0.api
    }

    /// Adds a change that a person made in the console, without the APIs, to the audit trail; see
    /// [`record`](super::audit::Audit::record).
    pub fn record(
        &self,
        (user, from): (&User, IpAddr),
        action: &str,
        object: &str,
        (before, after): (Value, Value),
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let actor = &Actor::of_user(user, from);
        let owner = self.0.owner_of(&Scope::of(user.account.clone()));
        self.0.audit.record(Change { owner, actor, action, object, before, after })
    }

    /// Adds a refused sign-in of a person to the audit trail. `account` is the account that the
    /// person entered.
    pub fn record_refusal(
        &self,
        by: &'static str,
        from: IpAddr,
        account: Option<&AuthId>,
        known: Option<&User>,
    ) {
        let account = known.map(|user| &user.account).or(account);
        let name = known.map(|user| format!("user:{}", user.name));
        self.0.record_refusal(by, from, account, name.as_deref());
    }

    /// Adds a refused login of a phone to the audit trail.
    pub fn record_phone_refusal(&self, from: IpAddr, endpoint: Option<&Endpoint>) {
        let account = endpoint.map(|endpoint| &endpoint.account);
        let name = endpoint.map(|endpoint| format!("endpoint:{}", endpoint.name));
        self.0.record_refusal("endpoint-password", from, account, name.as_deref());
    }

    /// Completes when all records of the audit trail are stored.
    pub async fn flush_audit(&self) {
        self.0.audit.flush().await;
    }

    /// Whether an account exists and is enabled. The people and phones of other ones have no
    /// access.
    pub fn is_enabled(&self, account: &AuthId) -> bool {
        self.0.is_enabled(account)
    }

    /// Whether the number API serves this method and path.
    pub fn serves(method: &Method, path: &str) -> bool {
        number::serves(method, path)
    }

    /// Makes a request to the number API on behalf of a person; `path` begins with `/api/v1/` and
    /// may have a query.
    pub async fn request(
        &self,
        (person, from): (&Person, IpAddr),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> ApiResponse {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(Body::from(bytes)) else {
            return ApiResponse::internal_error();
        };
        let principal = Principal::from_person(person, from);
        ApiResponse::read(number::dispatch(self.0.clone(), principal, request).await).await
    }

    /// Makes a request to the Plivo-compatible API on behalf of a person; `path` is the part after
    /// the account. That API has no roles, so changes require an admin.
    pub async fn plivo_request(
        &self,
        (person, from): (&Person, IpAddr),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> ApiResponse {
        if method != Method::GET && person.user.role == Role::Agent {
            return ApiResponse::refused(
                StatusCode::FORBIDDEN,
                "only an admin or an owner may do this",
            );
        }
        self.plivo((person, from), method, path, body).await
    }

    async fn plivo(
        &self,
        (person, from): (&Person, IpAddr),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> ApiResponse {
        let actor = Actor::of_user(&person.user, from);
        let response = plivo::dispatch(&self.0, (person.scope(), actor), &method, path, body).await;
        ApiResponse::read(response).await
    }

    /// Creates an endpoint that belongs to the person, whatever their role. Only signed-in people
    /// can register it, since its password is random. A person has at most one such endpoint. A
    /// number is appended to the name if an endpoint of the account has it.
    pub async fn create_own_endpoint(&self, person: (&Person, IpAddr), name: &str) -> ApiResponse {
        let (user, endpoints) = (&person.0.user, self.0.api.store.endpoints());
        let _turn = self.0.own_endpoints.lock().await;
        let mut username = name.to_owned();
        // An endpoint of the account may have the name, such as that of a colleague with another
        // mail domain.
        for number in 2..=NAMES_MAX {
            // Another node may create one for this person at the same moment.
            match endpoints.of_user(user).await {
                Ok(None) => {}
                Ok(Some(_)) => {
                    let message = "you already have an endpoint";
                    return ApiResponse::refused(StatusCode::CONFLICT, message);
                }
                Err(_) => return ApiResponse::internal_error(),
            }
            // The request below refuses an invalid name.
            let Ok(parsed) = EndpointName::parse(&username) else { break };
            match endpoints.by_name(&parsed).await {
                Ok(Some(known)) if person.0.scope().holds(&known.account, &known.main_account) => {
                    username = format!("{name}{number}");
                }
                Ok(Some(_) | None) => break,
                Err(_) => return ApiResponse::internal_error(),
            }
        }
        let password = Token::fresh();
        let body = serde_json::json!({
            "username": username, "alias": user.full_name, "password": password.reveal(),
        });
        let made = self.plivo(person, Method::POST, "Endpoint/", Some(&body)).await;
        let Some(id) = made.body.get("endpoint_id").and_then(Value::as_str) else { return made };
        let change = EndpointChange { user: Some(user.id), ..EndpointChange::default() };
        match endpoints.change(&person.0.scope(), &id.into(), change).await {
            Ok(_) => made,
            Err(_) => {
                let _ = endpoints.delete(&person.0.scope(), &id.into()).await;
                ApiResponse::internal_error()
            }
        }
    }
}
