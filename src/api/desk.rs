//! The APIs for those inside: the console asks the same questions and gives the same commands as everybody else, as the
//! person who is signed in, and gets the same answers. So the API stays complete, and a role is checked in one place.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::auth::Member;
use super::{Api, Shared, number, plivo, served};
use crate::people::Person;
use model::Role;

/// The APIs, by whoever has them; cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Shared>);

/// What the number API said.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    /// Its JSON; null where there was none.
    pub body: Value,
}

impl Answered {
    /// Whether it was done.
    pub fn is_ok(&self) -> bool {
        self.status.is_success()
    }

    /// What went wrong, in words.
    pub fn message(&self) -> &str {
        let ours = self.body.pointer("/error/message").and_then(Value::as_str);
        // The Plivo-compatible API's errors are a sentence.
        ours.or_else(|| self.body.get("error").and_then(Value::as_str)).unwrap_or_default()
    }

    /// The field that was wrong.
    pub fn field(&self) -> Option<&str> {
        self.body.pointer("/error/field").and_then(Value::as_str)
    }
}

impl Desk {
    pub fn new(api: Api) -> Self {
        Self(Arc::new(Shared::new(api)))
    }

    /// The APIs' paths.
    pub fn router(&self) -> Router {
        served(self.0.clone())
    }

    pub fn api(&self) -> &Api {
        &self.0.api
    }

    /// Whether somebody's account is there and enabled.
    pub fn is_enabled(&self, person: &Person) -> bool {
        self.0.is_enabled(&person.user.account)
    }

    /// Whether the number API has this.
    pub fn serves(method: &Method, path: &str) -> bool {
        number::serves(method, path)
    }

    /// Asks the number API for somebody; `path` from `/api/v1/` on, query included.
    pub async fn ask(
        &self,
        person: &Person,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answered {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(Body::from(bytes)) else {
            return Answered { status: StatusCode::INTERNAL_SERVER_ERROR, body: Value::Null };
        };
        answered(number::dispatch(self.0.clone(), Member::person(person), request).await).await
    }

    /// Asks the Plivo-compatible API for something of the person's account: `path` is what follows it. That API knows no roles,
    /// so whoever changes something is at least an admin.
    pub async fn ask_plivo(
        &self,
        person: &Person,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answered {
        if method != Method::GET && person.user.role == Role::Agent {
            let why = serde_json::json!({"error": "this takes an admin or an owner"});
            return Answered { status: StatusCode::FORBIDDEN, body: why };
        }
        answered(plivo::dispatch(&self.0.api, person.scope(), method, path, body).await).await
    }
}

async fn answered(answer: Response) -> Answered {
    let status = answer.status();
    match answer.into_body().collect().await {
        Ok(body) => Answered {
            status,
            body: serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null),
        },
        Err(_) => Answered { status: StatusCode::INTERNAL_SERVER_ERROR, body: Value::Null },
    }
}
