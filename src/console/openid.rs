//! Signing in with a provider of OpenID Connect: the way there, and what is said to who comes back.
//!
//! The way is a link and not a form: by our own policy no form leads elsewhere. A cookie of ten minutes binds it to the
//! browser. Nobody is sent anywhere afterwards but to a path of ours.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::door::{Taste, person};
use super::form::Form;
use super::page::{Page, respond};
use super::{App, Console, sign_in};
use crate::api::session;
use crate::openid::{AT_MOST, Allow, Flow, OpenIdError, Provider, Returned};
use crate::people::{Newcomers, Rules, SignInRefusal, Token};

/// The cookie of a way there and back.
const COOKIE: &str = "offhook-openid";
const COOKIE_SECURE: &str = "__Host-offhook-openid";

#[derive(Template)]
#[template(path = "arrived.html")]
struct Arrived {
    page: Page,
    to: String,
}

fn name(console: &Console) -> &'static str {
    if console.is_secure() { COOKIE_SECURE } else { COOKIE }
}

/// `Lax`: it must come along when the provider sends the browser back.
fn cookie(console: &Console, value: &str, seconds: u64) -> String {
    let secure = if console.is_secure() { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}; Max-Age={seconds}", name(console))
}

/// To the provider.
pub(super) async fn begin(State(console): App, headers: HeaderMap, uri: Uri) -> Response {
    let taste = Taste::of(&headers);
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let to = sign_in::back(query.get("to"));
    let Some(provider) = &console.provider else {
        return Redirect::to("/console/sign-in").into_response();
    };
    if let Ok(Some(_)) = person(&console, &headers).await {
        return Redirect::to(to).into_response();
    }
    let Some(flow) = Flow::begin(to, console.apis.api().clock.wall()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match provider.way(&flow).await {
        Ok(way) => {
            let answer = Redirect::to(way.as_str()).into_response();
            sign_in::with_cookie(answer, &cookie(&console, &flow.cookie(), AT_MOST.as_secs()))
        }
        Err(error) => refused(&console, taste, provider, to, &error.into()),
    }
}

/// From the provider.
pub(super) async fn back(State(console): App, headers: HeaderMap, uri: Uri) -> Response {
    let taste = Taste::of(&headers);
    let Some(provider) = &console.provider else {
        return Redirect::to("/console/sign-in").into_response();
    };
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let now = console.apis.api().clock.wall();
    let flow = session::cookie(&headers, name(&console)).and_then(|cookie| Flow::read(cookie, now));
    let to = flow
        .as_ref()
        .map_or_else(|| "/console/".to_owned(), |flow| sign_in::back(&flow.to).to_owned());
    let came = match &flow {
        Some(flow) => {
            let returned = Returned {
                state: query.raw("state"),
                code: query.raw("code"),
                error: query.raw("error"),
                issuer: query.raw("iss"),
            };
            arrive(&console, provider, flow, returned).await
        }
        None => Err(OpenIdError::State.into()),
    };
    let answer = match came {
        Ok(token) => {
            // A page of ours goes on from here: a redirect that began at the provider would bring no `Strict` cookie.
            let page = Page::bare(taste, taste.lang.t("sign_in.done"));
            let mut answer = respond(StatusCode::OK, &Arrived { page, to: to.clone() });
            if let Ok(go_on) = HeaderValue::from_str(&format!("0; url={to}")) {
                answer.headers_mut().insert(header::REFRESH, go_on);
            }
            sign_in::with_cookie(answer, &sign_in::session_cookie(&console, &token))
        }
        Err(no) => refused(&console, taste, provider, &to, &no),
    };
    // Once: whoever comes again begins again.
    sign_in::with_cookie(answer, &cookie(&console, "", 0))
}

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
enum No {
    #[error(transparent)]
    Provider(#[from] OpenIdError),
    #[error(transparent)]
    Here(#[from] SignInRefusal),
}

async fn arrive(
    console: &Console,
    provider: &Provider,
    flow: &Flow,
    returned: Returned<'_>,
) -> Result<Token, No> {
    let claims = provider.finish(flow, returned).await?;
    let (settings, api) = (provider.settings(), console.apis.api());
    let newcomers = match &settings.allow {
        Allow::Invited => None,
        Allow::Anyone { account, role } => {
            let main_account = api.keeper.book().main_of(account).clone();
            Some(Newcomers { account: account.clone(), main_account, role: *role })
        }
    };
    let rules =
        Rules { newcomers, domains: &settings.domains, has_roles: settings.role_claim.is_some() };
    Ok(api.people.sign_in_with(&claims, &rules).await?)
}

/// The sign-in page, with the reason in words.
fn refused(console: &Console, taste: Taste, provider: &Provider, to: &str, no: &No) -> Response {
    let (lang, name) = (taste.lang, provider.settings().name.as_str());
    let (status, text) = match no {
        No::Provider(
            OpenIdError::Unreachable { .. } | OpenIdError::Document { .. } | OpenIdError::Away(_),
        ) => {
            tracing::warn!(error = %no, "nobody can sign in with the provider now");
            (StatusCode::BAD_GATEWAY, lang.with("sign_in.openid.unavailable", &[name]))
        }
        No::Provider(OpenIdError::State) => {
            (StatusCode::BAD_REQUEST, lang.t("sign_in.openid.state").to_owned())
        }
        No::Provider(OpenIdError::Declined(word)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.declined", &[name, word]))
        }
        No::Provider(OpenIdError::Code(_)) => {
            (StatusCode::BAD_REQUEST, lang.with("sign_in.openid.code", &[name]))
        }
        No::Provider(OpenIdError::Token(fault)) => {
            tracing::warn!(%fault, "what the sign-in provider says is not believed");
            (StatusCode::UNAUTHORIZED, lang.with("sign_in.openid.token", &[name]))
        }
        No::Provider(OpenIdError::Busy) => {
            (StatusCode::TOO_MANY_REQUESTS, lang.t("sign_in.busy").to_owned())
        }
        No::Here(SignInRefusal::NoEmail) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.no_email", &[name]))
        }
        No::Here(SignInRefusal::Unverified(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.unverified", &[name, email]))
        }
        No::Here(SignInRefusal::Unknown(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.unknown", &[name, email]))
        }
        No::Here(SignInRefusal::Another(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.another", &[name, email]))
        }
        No::Here(SignInRefusal::NoRole) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.no_role", &[name]))
        }
        No::Here(SignInRefusal::Store(error)) => {
            tracing::warn!(%error, "somebody could not be signed in");
            (StatusCode::SERVICE_UNAVAILABLE, lang.t("error.internal").to_owned())
        }
    };
    tracing::info!(reason = %no, "somebody came from the sign-in provider and not in");
    sign_in::form(console, taste, status, to, "", text)
}
