//! Sign-in with an OpenID Connect provider: the redirect to the provider and the return from it.
//!
//! The sign-in starts with a link rather than a form, since the content security policy forbids
//! forms to other origins. A cookie of ten minutes binds the flow to the browser. After the
//! sign-in, the browser is only redirected to console paths.

use std::net::IpAddr;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};

use super::auth::{Preferences, client, person};
use super::cookie::{session_cookie, with_cookie};
use super::form::Form;
use super::page::{Page, respond};
use super::{App, Console, sign_in};
use crate::api::session;
use engine::limiter::Refusal;
use engine::openid::{AT_MOST, Allow, Flow, OpenIdError, Provider, ReturnParameters};
use engine::people::{ProviderSignIn, Rules, SignInRefusal};
use model::Role;

/// The cookie of a sign-in flow.
const COOKIE: &str = "offhook-openid";
const COOKIE_SECURE: &str = "__Host-offhook-openid";

#[derive(Template)]
#[template(path = "arrived.html")]
struct SignedInPage {
    page: Page,
    to: String,
}

fn name(console: &Console) -> &'static str {
    if console.is_secure() { COOKIE_SECURE } else { COOKIE }
}

/// Builds the cookie. It is `SameSite=Lax`, because the browser must send it when the provider
/// redirects back.
fn cookie(console: &Console, value: &str, seconds: u64) -> String {
    let secure = if console.is_secure() { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}; Max-Age={seconds}", name(console))
}

/// Redirects to the provider.
pub(super) async fn begin(State(console): App, headers: HeaderMap, uri: Uri) -> Response {
    let preferences = Preferences::of(&headers);
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let to = sign_in::safe_path(query.get("to"));
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
            with_cookie(answer, &cookie(&console, &flow.cookie(), AT_MOST.as_secs()))
        }
        Err(error) => error_page(&console, preferences, provider, to, &error.into()).await,
    }
}

/// Handles the return from the provider.
pub(super) async fn back(State(console): App, request: Request) -> Response {
    let from = client(request.extensions());
    let (Parts { headers, uri, .. }, _) = request.into_parts();
    let preferences = Preferences::of(&headers);
    let Some(provider) = &console.provider else {
        return Redirect::to("/console/sign-in").into_response();
    };
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let now = console.apis.api().clock.wall();
    let flow = session::cookie(&headers, name(&console)).and_then(|cookie| Flow::read(cookie, now));
    let to = flow
        .as_ref()
        .map_or_else(|| "/console/".to_owned(), |flow| sign_in::safe_path(&flow.to).to_owned());
    let came = match &flow {
        Some(flow) => {
            let returned = ReturnParameters {
                state: query.raw("state"),
                code: query.raw("code"),
                error: query.raw("error"),
                issuer: query.raw("iss"),
            };
            finish(&console, provider, flow, returned, from).await
        }
        None => Err(OpenIdError::State.into()),
    };
    let answer = match came {
        Ok(signed_in) => {
            record(&console, from, &signed_in).await;
            // The redirect continues from a page of the console: browsers do not send `Strict`
            // cookies in a redirect chain that began at the provider.
            let page = Page::bare(preferences, preferences.lang.t("sign_in.done"));
            let mut answer = respond(StatusCode::OK, &SignedInPage { page, to: to.clone() });
            if let Ok(go_on) = HeaderValue::from_str(&format!("0; url={to}")) {
                answer.headers_mut().insert(header::REFRESH, go_on);
            }
            with_cookie(answer, &session_cookie(&console, &signed_in.token))
        }
        Err(no) => {
            if no.is_refusal() {
                console.apis.record_refusal("provider", from, None, None);
            }
            error_page(&console, preferences, provider, &to, &no).await
        }
    };
    // A flow is valid once.
    with_cookie(answer, &cookie(&console, "", 0))
}

/// Reason why a sign-in failed.
#[derive(Debug, thiserror::Error)]
enum SignInError {
    #[error(transparent)]
    Provider(#[from] OpenIdError),
    #[error(transparent)]
    Here(#[from] SignInRefusal),
}

impl SignInError {
    /// Whether the person was refused, as opposed to a failure of the provider or of the store.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Provider(error) => matches!(
                error,
                OpenIdError::State
                    | OpenIdError::Declined(_)
                    | OpenIdError::Code(_)
                    | OpenIdError::Token(_)
            ),
            Self::Here(refusal) => !matches!(refusal, SignInRefusal::Store(_)),
        }
    }
}

async fn finish(
    console: &Console,
    provider: &Provider,
    flow: &Flow,
    returned: ReturnParameters<'_>,
    from: IpAddr,
) -> Result<ProviderSignIn, SignInError> {
    let (settings, api) = (provider.settings(), console.apis.api());
    let code = provider.accept(flow, returned)?;
    let check = api.people.begin_code_check(code.as_str(), from).await;
    let check = check.map_err(|refusal| match refusal {
        Refusal::KnownWrong => OpenIdError::Code("invalid_grant".to_owned()),
        Refusal::Wait(_) => OpenIdError::Busy,
    })?;
    let claims = provider.exchange(code, from).await;
    match &claims {
        Ok(_) => check.succeed(),
        Err(OpenIdError::Code(_) | OpenIdError::Token(_)) => {
            if check.fail().is_some() {
                return Err(OpenIdError::Busy.into());
            }
        }
        // The provider has not judged the code.
        Err(_) => check.cancel(),
    }
    let claims = claims?;
    let account = settings.account.clone().ok_or(SignInRefusal::NoAccount)?;
    let rules = Rules {
        main_account: api.keeper.book().main_of(&account).clone(),
        account,
        newcomers: match settings.allow {
            Allow::Invited => None,
            Allow::Anyone { role } => Some(role),
        },
        domains: &settings.domains,
        has_roles: settings.role_claim.is_some(),
    };
    Ok(api.people.sign_in_with(&claims, &rules).await?)
}

/// Adds what a sign-in has changed to the audit trail: a new user or role, or the link to the provider.
async fn record(console: &Console, from: IpAddr, signed_in: &ProviderSignIn) {
    let ProviderSignIn { user, role_before, is_linked, .. } = signed_in;
    if !is_linked && *role_before == Some(user.role) {
        return;
    }
    let state = |role: Role, linked: bool| json!({"name": user.name, "role": role.as_str(), "linkedToProvider": linked});
    let before = role_before.map_or(Value::Null, |role| state(role, !is_linked));
    let changed = (before, state(user.role, true));
    let object = format!("users/{}", user.id);
    console.apis.record((user, from), "signInWithProvider", &object, changed).await;
}

/// The sign-in page with the reason.
async fn error_page(
    console: &Console,
    preferences: Preferences,
    provider: &Provider,
    to: &str,
    no: &SignInError,
) -> Response {
    let (lang, name) = (preferences.lang, provider.settings().name.as_str());
    let (status, text) = match no {
        SignInError::Provider(
            OpenIdError::Unreachable { .. } | OpenIdError::Document { .. } | OpenIdError::Away(_),
        ) => {
            tracing::warn!(error = %no, "sign-in provider unavailable");
            (StatusCode::BAD_GATEWAY, lang.with("sign_in.openid.unavailable", &[name]))
        }
        SignInError::Provider(OpenIdError::State) => {
            (StatusCode::BAD_REQUEST, lang.t("sign_in.openid.state").to_owned())
        }
        SignInError::Provider(OpenIdError::Declined(word)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.declined", &[name, word]))
        }
        SignInError::Provider(OpenIdError::Code(_)) => {
            (StatusCode::BAD_REQUEST, lang.with("sign_in.openid.code", &[name]))
        }
        SignInError::Provider(OpenIdError::Token(fault)) => {
            tracing::warn!(%fault, "invalid token from sign-in provider");
            (StatusCode::UNAUTHORIZED, lang.with("sign_in.openid.token", &[name]))
        }
        SignInError::Provider(OpenIdError::Busy) => {
            (StatusCode::TOO_MANY_REQUESTS, lang.t("sign_in.busy").to_owned())
        }
        SignInError::Here(SignInRefusal::NoEmail) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.no_email", &[name]))
        }
        SignInError::Here(SignInRefusal::Unverified(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.unverified", &[name, email]))
        }
        SignInError::Here(SignInRefusal::Unknown(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.unknown", &[name, email]))
        }
        SignInError::Here(SignInRefusal::Another(email)) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.another", &[name, email]))
        }
        SignInError::Here(SignInRefusal::NoRole | SignInRefusal::NoAccount) => {
            (StatusCode::FORBIDDEN, lang.with("sign_in.openid.no_role", &[name]))
        }
        SignInError::Here(SignInRefusal::Store(error)) => {
            tracing::warn!(%error, "sign-in failed");
            (StatusCode::SERVICE_UNAVAILABLE, lang.t("error.internal").to_owned())
        }
    };
    tracing::info!(reason = %no, "sign-in with provider refused");
    let entered = sign_in::SignInInput { to, ..Default::default() };
    sign_in::form(console, preferences, status, &entered, text).await
}
