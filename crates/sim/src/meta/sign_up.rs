//! A page in place of Meta's Embedded Signup dialog. A person chooses a business account and a
//! number and enters a code from a simulated SMS; the dialog then redirects back with an
//! authorization code. It needs no JavaScript.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Query, State};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::numbers::SignUpGrant;
use crate::World;
use crate::control::local_or_navigation;
use model::is_loopback;

const BODY_BYTES_MAX: usize = 16_384;
const TEXT_MAX: usize = 2_048;
/// The code in the simulated SMS.
const SMS_CODE: &str = "271828";

/// Query with which the dialog is opened.
#[derive(Clone, Deserialize)]
struct OpenQuery {
    client_id: String,
    redirect_uri: String,
    #[serde(default)]
    state: String,
}

/// The submitted form.
#[derive(Deserialize)]
struct FormInput {
    redirect_uri: String,
    state: String,
    waba: String,
    name: String,
    number: String,
    sms: String,
}

#[derive(Template)]
#[template(path = "sim_sign_up.html")]
struct SignUpPage {
    redirect_uri: String,
    state: String,
    wabas: Vec<String>,
    waba: String,
    name: String,
    number: String,
    sms: &'static str,
    error: &'static str,
    cancel_url: String,
}

pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/dialog/oauth", get(show_form).post(submit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(local_or_navigation))
}

/// Parses the redirect URI. It must be on this machine, so that no other host receives a code.
fn loopback_url(redirect_uri: &str) -> Option<url::Url> {
    let url = url::Url::parse(redirect_uri).ok().filter(|_| redirect_uri.len() <= TEXT_MAX)?;
    (is_loopback(&url) && matches!(url.scheme(), "http" | "https")).then_some(url)
}

fn page(world: &World, status: StatusCode, form: &FormInput, error: &'static str) -> Response {
    let Some(back) = loopback_url(&form.redirect_uri) else {
        return (StatusCode::BAD_REQUEST, "redirect_uri must be on this machine\n").into_response();
    };
    let mut cancel_url = back.clone();
    cancel_url
        .query_pairs_mut()
        .append_pair("error", "access_denied")
        .append_pair("state", &form.state);
    let page = SignUpPage {
        redirect_uri: form.redirect_uri.clone(),
        state: form.state.clone(),
        wabas: world.wabas().into_iter().collect(),
        waba: form.waba.clone(),
        name: form.name.clone(),
        number: form.number.clone(),
        sms: SMS_CODE,
        error,
        cancel_url: cancel_url.into(),
    };
    let Ok(text) = page.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    // `form-action` must include the redirect target, because browsers apply it to redirects as
    // well.
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'",
        back.origin().ascii_serialization()
    );
    let mut response =
        (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    for (name, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn show_form(State(world): State<Arc<World>>, Query(query): Query<OpenQuery>) -> Response {
    if query.client_id != world.app_id {
        return (StatusCode::BAD_REQUEST, "unknown client_id\n").into_response();
    }
    let number = format!("9180357{:05}", world.rng.range(0, 99_999));
    let form = FormInput {
        redirect_uri: query.redirect_uri,
        state: query.state,
        waba: String::new(),
        name: "Corner Shop".to_owned(),
        number,
        sms: String::new(),
    };
    page(&world, StatusCode::OK, &form, "")
}

async fn submit(State(world): State<Arc<World>>, Form(form): Form<FormInput>) -> Response {
    let number = model::digits_of(&form.number);
    let error = if form.sms.trim() != SMS_CODE {
        "The code does not match the one in the SMS."
    } else if model::E164::parse(&number).is_err() {
        "Enter the phone number with its country code."
    } else if form.name.trim().is_empty() || form.name.len() > TEXT_MAX {
        "Enter a display name."
    } else {
        ""
    };
    let Some(mut back) = loopback_url(&form.redirect_uri).filter(|_| error.is_empty()) else {
        return page(&world, StatusCode::BAD_REQUEST, &form, error);
    };
    let digits = || format!("{:014}", world.rng.range(0, 99_999_999_999_999));
    let waba = match world.wabas().contains(&form.waba) {
        true => form.waba,
        false => format!("3{}", digits()),
    };
    // An existing number keeps its id.
    let id = world
        .number(&number)
        .map_or_else(|| format!("1{}", digits()), |known| known.phone_number_id);
    let update = json!({"number": number, "phone_number_id": id, "waba": waba, "name": form.name.trim(),
        "facts": {"platform_type": "NOT_APPLICABLE", "status": "PENDING", "pin": "", "quality_rating": "UNKNOWN"}});
    let outcome = serde_json::from_value(update)
        .map_err(|e| e.to_string())
        .and_then(|update| world.update_number(update));
    if outcome.is_err() {
        return page(
            &world,
            StatusCode::BAD_REQUEST,
            &FormInput { waba, ..form },
            "This number can't be added.",
        );
    }
    let code = format!("code-{}", world.rng.text(24));
    world.accounts.grant(code.clone(), SignUpGrant { waba, redirect_uri: form.redirect_uri });
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &form.state);
    Redirect::to(back.as_str()).into_response()
}
