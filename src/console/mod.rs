//! The web console: pages for the people of an account (`docs/console.md`).
//!
//! The console is a client of the APIs: it sends requests through [`Apis`] as the signed-in person
//! and renders the responses. Pages are templates in `console/templates`, filled from typed values.
//! Every page is a URL that works without JavaScript, and every action is a form. The script adds
//! live updates: `/console/events` sends the changed parts of a page.

mod account;
mod agents;
mod assets;
mod audit;
mod auth;
mod call;
mod call_row;
mod calls;
mod calls_csv;
mod chart;
mod cookie;
mod deliveries;
mod draft;
mod errors;
mod events;
mod form;
mod home;
mod i18n;
mod inbox;
mod inbox_settings;
mod message_template;
mod notifications;
mod number;
mod number_view;
mod numbers;
mod once;
mod openid;
mod operations;
mod page;
mod page_diff;
mod people;
mod phone;
mod playground;
mod quality_chart;
mod recordings;
mod reference;
mod replay;
mod request_log;
mod set_up;
mod sign_in;
mod sign_up;
mod speech;
mod time_range;
mod view;
mod webhooks;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;

use crate::api::{Apis, finish};
pub use draft::{Drafts, PATH as DRAFT_PATH, serve as serve_drafts};
use engine::call::drafts;
use engine::call::walk::Walker;
use engine::limiter::RequestClaims;
use engine::openid::{BACK, Provider};
pub use events::{FleetPages, OpenStreams};
use model::AuthId;
pub use request_log::RequestLog;
pub use set_up::PATH as SET_UP;
pub use sign_up::SignUpWindow;

/// Services and settings of the console.
pub struct Console {
    pub apis: Apis,
    /// Failed Graph requests of the last hour, for a chart.
    pub request_log: RequestLog,
    /// URL of the simulated Meta's browser phone, if there is one.
    pub simulated_phone: Option<String>,
    /// The playground document and number for that phone.
    pub drafts: Option<Drafts>,
    /// Documents that wait for a call of their author's softphone.
    pub own_drafts: drafts::Drafts,
    /// Name and password to fill into the sign-in form of a development node.
    pub guest: Option<(String, String)>,
    /// OpenID Connect provider, if one is configured.
    pub provider: Option<Provider>,
    /// Meta's sign-up dialog, if an app is configured.
    pub sign_up: Option<SignUpWindow>,
    /// The account of the first user, who signs up with the set-up link.
    pub first_account: Option<AuthId>,
    /// Runs documents of the playground.
    pub walker: Option<Walker>,
    pub streams: OpenStreams,
    /// Ends the event streams.
    pub stop: CancellationToken,
}

impl Console {
    /// Whether the public base URL is https.
    fn is_secure(&self) -> bool {
        self.apis.api().base_url.starts_with("https:")
    }
}

type App = axum::extract::State<Arc<Console>>;

/// Routes of `/console/`.
pub fn router(console: Console) -> Router {
    let secure = console.is_secure();
    let console = Arc::new(console);
    let pages = Router::new()
        .route("/", get(|| async { Redirect::to("/console/") }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(home::page))
        .route("/console/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/console/sign-in/openid", get(openid::begin))
        .route(BACK, get(openid::back))
        .route("/console/sign-out", page_at("./").post(sign_in::sign_out))
        .route("/console/preferences", page_at("./").post(sign_in::preferences))
        .route("/console/invitation/{token}", get(sign_in::invitation).post(sign_in::accept))
        .route("/console/set-up/{token}", get(set_up::page).post(set_up::create))
        .route("/console/assets/{digest}/{file}", get(assets::serve))
        .route("/console/calls/", get(calls::page))
        .route("/console/calls/calls.csv", get(calls_csv::download))
        .route("/console/calls/filters", page_at("./").post(calls::save_filter))
        .route("/console/calls/{call}/", get(call::page))
        .route("/console/calls/{call}/log.jsonl", get(call::log))
        .route("/console/calls/{call}/hangup", page_at("./").post(call::hang_up))
        .route("/console/errors/", get(errors::page))
        .route("/console/recordings/", get(recordings::page))
        .route("/console/recordings/{id}/delete", page_at("../").post(recordings::delete))
        .route("/app/{tenant}/whatsapp", get(inbox::from_app))
        .route("/app/{tenant}/whatsapp/", get(inbox::from_app))
        .route("/app/{tenant}/whatsapp/{id}", get(inbox::conversation_from_app))
        .route("/app/{tenant}/whatsapp/{id}/", get(inbox::conversation_from_app))
        .route("/console/inbox/", get(inbox::page))
        .route("/console/inbox/settings/", get(inbox_settings::page).post(inbox_settings::act))
        .route("/console/inbox/{id}/", get(inbox::chat).post(inbox::act))
        .route("/console/inbox/{id}/call/", get(inbox::call_dialog).post(inbox::call))
        .route(
            "/console/inbox/{id}/template/",
            get(message_template::page).post(message_template::act),
        )
        .route("/console/numbers/", get(numbers::page))
        .route("/console/numbers/new/", get(numbers::new_number).post(numbers::connect))
        .route("/console/numbers/sign-up/", get(sign_up::start).post(sign_up::add_numbers))
        .route("/console/numbers/sign-up/back", get(sign_up::back))
        .route("/console/numbers/{number}/", get(number::page).post(number::change))
        .route(
            "/console/numbers/{number}/deliveries/",
            get(deliveries::of_number).post(deliveries::redeliver_to_number),
        )
        .route("/console/numbers/{number}/agent/", get(numbers::agent))
        .route("/console/numbers/{number}/register/", get(numbers::register))
        .route("/console/numbers/{number}/do", page_at("./").post(numbers::act))
        .route("/console/agents/", get(agents::page).post(agents::create))
        .route("/console/agents/new/", get(agents::new_agent))
        .route("/console/agents/{id}/", get(agents::agent).post(agents::change))
        .route("/console/webhooks/", get(webhooks::page).post(webhooks::create))
        .route("/console/webhooks/{id}/", get(webhooks::webhook).post(webhooks::act))
        .route("/console/notifications/", get(notifications::page))
        .route("/console/notifications/read-all", page_at("./").post(notifications::read_all))
        .route("/console/notifications/{id}/read", page_at("../").post(notifications::read))
        .route("/console/operations/", get(operations::page))
        .route("/console/operations/nodes/{node}/drain", page_at("../../").post(operations::drain))
        .route("/console/speech/", get(speech::page))
        .route("/console/speech/{name}/install", page_at("../").post(speech::install))
        .route("/console/speech/{name}/discard", page_at("../").post(speech::discard))
        .route("/console/speech/{name}/remove", page_at("../").post(speech::remove))
        .route("/console/playground/", get(playground::page).post(playground::run))
        .route("/console/playground/debugger/", get(playground::debug_page).post(playground::debug))
        .route("/console/phone/", get(phone::page))
        .route("/console/phone/endpoints", page_at("./").post(phone::create))
        .route("/console/phone/endpoints/{id}", page_at("../").post(phone::delete))
        .route("/console/reference/", get(reference::page))
        .route("/console/account/", get(account::page).post(account::act))
        .route("/console/people/", get(people::page))
        .route("/console/people/audit/", get(audit::page))
        .route("/console/people/users", page_at("./").post(people::create_user))
        .route("/console/people/users/{id}", page_at("../").post(people::change_user))
        .route("/console/people/keys", page_at("./").post(people::create_key))
        .route("/console/people/keys/{id}", page_at("../").post(people::delete_key))
        .route("/console/{*rest}", any(page::fallback))
        .layer(from_fn(complete_changes))
        .with_state(console.clone());
    let events = Router::new()
        .route(events::PATH, get(events::serve))
        .layer(Extension(events::Pages(pages.clone())))
        .with_state(console);
    pages.merge(events).layer(map_response(move |response| with_security_headers(response, secure)))
}

/// Completes a request that may change something, even if the browser disconnects: the change may
/// have been made, and then it must be recorded and take effect.
async fn complete_changes(request: Request, next: Next) -> Response {
    let is_change = !request.method().is_safe() || request.uri().path() == BACK;
    if !is_change {
        return next.run(request).await;
    }
    // The request counts among those of its account until it is complete.
    let claims = request.extensions().get::<RequestClaims>().cloned();
    let work = async move {
        let response = next.run(request).await;
        drop(claims);
        response
    };
    let response = finish(work).await;
    response.unwrap_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Redirects GET requests for the address of a form's action to its page, relative to the address.
/// Reloading an error page, or signing in again, may request that address.
fn page_at(to: &'static str) -> MethodRouter<Arc<Console>> {
    get(move || async move { Redirect::to(to) })
}

/// Content security policy: no other origins, nothing inline, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    media-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn with_security_headers(mut response: Response, secure: bool) -> Response {
    let headers = response.headers_mut();
    let mut put = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    put(header::X_FRAME_OPTIONS, "DENY");
    if secure {
        put(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
mod tests;
