//! Paths of the public listener that need the whole node, in addition to those of `api`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::api::server::Peer;
use crate::phone::{self, PhoneListener};
use engine::admission::Gate;

/// State of the discovery document.
pub(super) struct Discovery {
    pub(super) gate: Arc<Gate>,
    /// Graph URL of a simulated Meta.
    pub(super) simulated_graph: Option<String>,
}

/// Paths of a node with a simulated Meta: the discovery document for `offhook call --node` and the
/// example phone.
pub(super) fn router(discovery: Discovery) -> Router {
    let is_simulated = discovery.simulated_graph.is_some();
    let mut router = Router::new();
    if is_simulated {
        let script = "text/javascript; charset=utf-8";
        router = router
            .route("/.well-known/offhook.json", get(discover))
            .route(
                "/examples/phone.html",
                get(|| async { example(PHONE_PAGE, "text/html; charset=utf-8") }),
            )
            .route("/examples/phone.js", get(move || async move { example(PHONE_SCRIPT, script) }));
    }
    router.with_state(Arc::new(discovery))
}

/// The example of an endpoint's phone in a web page.
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

/// Routes of `/phone`, with the client address that the listener determined.
pub(super) fn phones(listener: &PhoneListener) -> Router {
    listener.router().layer(map_request(|mut request: Request| async {
        if let Some(Peer(address)) = request.extensions().get::<Peer>().copied() {
            request.extensions_mut().insert(phone::ClientAddress(address));
        }
        request
    }))
}

/// Lists the numbers and the simulated Meta, so that `offhook call` can place a call. A node that
/// works with the real Meta answers 404 here.
async fn discover(State(discovery): State<Arc<Discovery>>) -> Json<Value> {
    let tables = discovery.gate.directory().tables();
    // The playground number is left out: a caller without --to means the demo's.
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
        json!({"version": env!("CARGO_PKG_VERSION"), "graph_url": discovery.simulated_graph, "numbers": numbers}),
    )
}

/// URL of the simulated Meta's browser phone.
pub(super) fn browser_phone(graph: &url::Url) -> Option<String> {
    graph.join("/_sim/phone").ok().map(String::from)
}
