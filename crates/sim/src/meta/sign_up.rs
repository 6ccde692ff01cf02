//! Meta's sign-up window (S2.13) as a page of the stand-in: a business account and a number are chosen, a code that came by
//! SMS is typed, and the window goes back to who opened it with a code of its own. Without a script.

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

use super::numbers::Grant;
use crate::World;
use crate::control::only_from_here_or_elsewhere;
use model::is_loopback;

const BODY_BYTES_MAX: usize = 16_384;
const TEXT_MAX: usize = 2_048;
/// What the SMS says.
const SMS: &str = "271828";

/// What a page opens the window with.
#[derive(Clone, Deserialize)]
struct Opened {
    client_id: String,
    redirect_uri: String,
    #[serde(default)]
    state: String,
}

/// What somebody filled in.
#[derive(Deserialize)]
struct Filled {
    redirect_uri: String,
    state: String,
    waba: String,
    name: String,
    number: String,
    sms: String,
}

#[derive(Template)]
#[template(path = "sim_sign_up.html")]
struct Window {
    redirect_uri: String,
    state: String,
    wabas: Vec<String>,
    waba: String,
    name: String,
    number: String,
    sms: &'static str,
    wrong: &'static str,
    away: String,
}

pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/dialog/oauth", get(open).post(fill_in))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(only_from_here_or_elsewhere))
}

/// Only back to this machine: a stand-in gives nobody else a code.
fn is_here(redirect_uri: &str) -> Option<url::Url> {
    let url = url::Url::parse(redirect_uri).ok().filter(|_| redirect_uri.len() <= TEXT_MAX)?;
    (is_loopback(&url) && matches!(url.scheme(), "http" | "https")).then_some(url)
}

fn shown(world: &World, status: StatusCode, filled: &Filled, wrong: &'static str) -> Response {
    let Some(back) = is_here(&filled.redirect_uri) else {
        return (StatusCode::BAD_REQUEST, "redirect_uri must be on this machine\n").into_response();
    };
    let mut away = back.clone();
    away.query_pairs_mut()
        .append_pair("error", "access_denied")
        .append_pair("state", &filled.state);
    let page = Window {
        redirect_uri: filled.redirect_uri.clone(),
        state: filled.state.clone(),
        wabas: world.wabas().into_iter().collect(),
        waba: filled.waba.clone(),
        name: filled.name.clone(),
        number: filled.number.clone(),
        sms: SMS,
        wrong,
        away: away.into(),
    };
    let Ok(text) = page.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    // Where the form leads in the end is who opened the window.
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'",
        back.origin().ascii_serialization()
    );
    let mut answer =
        (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    for (name, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

async fn open(State(world): State<Arc<World>>, Query(opened): Query<Opened>) -> Response {
    if opened.client_id != world.app_id {
        return (StatusCode::BAD_REQUEST, "the simulated Meta knows no such app\n").into_response();
    }
    let number = format!("9180357{:05}", world.dice.between(0, 99_999));
    let filled = Filled {
        redirect_uri: opened.redirect_uri,
        state: opened.state,
        waba: String::new(),
        name: "Corner Shop".to_owned(),
        number,
        sms: String::new(),
    };
    shown(&world, StatusCode::OK, &filled, "")
}

async fn fill_in(State(world): State<Arc<World>>, Form(filled): Form<Filled>) -> Response {
    let number = model::digits_of(&filled.number);
    let wrong = if filled.sms.trim() != SMS {
        "That is not the code of the SMS."
    } else if model::E164::parse(&number).is_err() {
        "A number is its digits with the country code."
    } else if filled.name.trim().is_empty() || filled.name.len() > TEXT_MAX {
        "The business needs a name."
    } else {
        ""
    };
    let Some(mut back) = is_here(&filled.redirect_uri).filter(|_| wrong.is_empty()) else {
        return shown(&world, StatusCode::BAD_REQUEST, &filled, wrong);
    };
    let digits = || format!("{:014}", world.dice.between(0, 99_999_999_999_999));
    let waba = match world.wabas().contains(&filled.waba) {
        true => filled.waba,
        false => format!("3{}", digits()),
    };
    // A number of Meta's that is there already keeps its id.
    let id = world
        .number(&number)
        .map_or_else(|| format!("1{}", digits()), |known| known.phone_number_id);
    let order = json!({"number": number, "phone_number_id": id, "waba": waba, "name": filled.name.trim(),
        "facts": {"platform_type": "NOT_APPLICABLE", "status": "PENDING", "pin": "", "quality_rating": "UNKNOWN"}});
    let ordered = serde_json::from_value(order)
        .map_err(|e| e.to_string())
        .and_then(|order| world.order_number(order));
    if ordered.is_err() {
        return shown(
            &world,
            StatusCode::BAD_REQUEST,
            &Filled { waba, ..filled },
            "That number can't be added.",
        );
    }
    let code = format!("code-{}", world.dice.text(24));
    world.accounts.grant(code.clone(), Grant { waba, redirect_uri: filled.redirect_uri });
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &filled.state);
    Redirect::to(back.as_str()).into_response()
}
