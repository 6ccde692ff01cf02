//! The public listener's paths: the APIs of `api`, and what only a whole node knows.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::api::server::Peer;
use crate::phone::{self, PhoneService};
use engine::admission::Gate;

/// What the discovery document tells.
pub(super) struct Facts {
    pub(super) gate: Arc<Gate>,
    /// Graph's address, where it is at loopback: a simulated Meta's.
    pub(super) simulated_graph: Option<String>,
}

/// On a node whose Meta is simulated: what `offhook call --node` asks, and the example of a phone.
pub(super) fn router(facts: Facts) -> Router {
    let discovery = facts.simulated_graph.is_some();
    let mut router = Router::new();
    if discovery {
        let script = "text/javascript; charset=utf-8";
        router = router
            .route("/.well-known/offhook.json", get(discover))
            .route(
                "/examples/phone.html",
                get(|| async { example(PHONE_PAGE, "text/html; charset=utf-8") }),
            )
            .route("/examples/phone.js", get(move || async move { example(PHONE_SCRIPT, script) }));
    }
    router.with_state(Arc::new(facts))
}

/// An endpoint's phone in a page, to be tried with a simulated Meta.
const PHONE_PAGE: &str = include_str!("../../examples/phone.html");
const PHONE_SCRIPT: &str = include_str!("../../examples/phone.js");

fn example(text: &'static str, kind: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; \
             form-action 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// `/phone`, told who asks as the listener found out.
pub(super) fn phones(door: PhoneService) -> Router {
    phone::router(door).layer(map_request(|mut request: Request| async {
        if let Some(Peer(address)) = request.extensions().get::<Peer>().copied() {
            request.extensions_mut().insert(phone::ClientAddress(address));
        }
        request
    }))
}

/// Only on a node whose Graph is at loopback: names its numbers and its simulated Meta, so that a call can be
/// placed through it. A node of the real Meta's answers 404 here.
async fn discover(State(facts): State<Arc<Facts>>) -> Json<Value> {
    let tables = facts.gate.directory().tables();
    // Who says no number means the demo's: the playground's is called from its page.
    let numbers: Vec<Value> = tables
        .numbers()
        .filter(|n| n.spec.number.as_str() != sim::world::PLAYGROUND)
        .map(|n| {
            json!({
                "number": n.spec.number.as_str(),
                "phone_number_id": n.spec.phone_number_id.as_str(),
                "waba": n.spec.waba.as_str(),
            })
        })
        .collect();
    Json(
        json!({"version": env!("CARGO_PKG_VERSION"), "graph_url": facts.simulated_graph, "numbers": numbers}),
    )
}

/// The simulated Meta's browser phone.
pub(super) fn browser_phone(graph: &url::Url) -> Option<String> {
    graph.join("/_sim/phone").ok().map(String::from)
}
