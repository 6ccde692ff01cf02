//! A customer's application: responds by path and keeps every request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

/// A received request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub method: String,
    pub path: String,
    pub url: String,
    pub headers: HeaderMap,
    /// Form or query parameters.
    pub params: BTreeMap<String, String>,
    /// The unparsed body.
    pub body: String,
}

impl ReceivedRequest {
    /// Returns the body as JSON, or null.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Returns a parameter, or "(absent)".
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("(absent)", String::as_str)
    }
}

/// Returns the status and body for a request.
pub type Responder = Arc<dyn Fn(&ReceivedRequest) -> (u16, String) + Send + Sync>;

struct Inner {
    routes: Mutex<BTreeMap<String, Responder>>,
    slow: Mutex<BTreeMap<String, Duration>>,
    seen: Mutex<Vec<ReceivedRequest>>,
    count: watch::Sender<usize>,
    base: Mutex<String>,
}

/// A running application.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
    pub base: String,
}

impl App {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            routes: Mutex::default(),
            slow: Mutex::default(),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            base: Mutex::default(),
        });
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for the application");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        inner.base.lock().expect("base").clone_from(&base);
        let router = Router::new().fallback(handle).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, base }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sets the document of `path`.
    pub fn xml(&self, path: &str, body: impl Into<String>) -> &Self {
        let body = body.into();
        self.route(path, move |_| (200, body.clone()))
    }

    pub fn route(
        &self,
        path: &str,
        f: impl Fn(&ReceivedRequest) -> (u16, String) + Send + Sync + 'static,
    ) -> &Self {
        self.inner.routes.lock().expect("routes").insert(path.to_owned(), Arc::new(f));
        self
    }

    /// Delays the responses of `path`.
    pub fn slow(&self, path: &str, by: Duration) -> &Self {
        self.inner.slow.lock().expect("slow").insert(path.to_owned(), by);
        self
    }

    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.inner.seen.lock().expect("seen").clone()
    }

    /// Forgets the requests so far, so that a long test doesn't keep all of them.
    pub fn forget(&self) {
        self.inner.seen.lock().expect("seen").clear();
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests().iter().filter(|s| s.path == path).count()
    }

    /// Waits for the first request to `path`.
    pub async fn wait(&self, path: &str) -> ReceivedRequest {
        self.wait_where(path, |_| true).await
    }

    /// Waits for a request to `path` that satisfies `test`.
    pub async fn wait_where(
        &self,
        path: &str,
        test: impl Fn(&ReceivedRequest) -> bool,
    ) -> ReceivedRequest {
        let mut count = self.inner.count.subscribe();
        let found = async {
            loop {
                if let Some(seen) = self.requests().into_iter().find(|s| s.path == path && test(s))
                {
                    return seen;
                }
                count.changed().await.expect("the application lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(40), found).await {
            Ok(seen) => seen,
            Err(_) => panic!(
                "no such request to {path} within 40 s; there were: {:#?}",
                self.requests().iter().map(|s| (&s.path, &s.params)).collect::<Vec<_>>()
            ),
        }
    }
}

async fn handle(
    State(app): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = if method == Method::GET {
        uri.query().unwrap_or_default().to_owned()
    } else {
        String::from_utf8_lossy(&body).into_owned()
    };
    let base = app.base.lock().expect("base").clone();
    let seen = ReceivedRequest {
        method: method.to_string(),
        path: uri.path().to_owned(),
        url: format!("{base}{uri}"),
        headers,
        params: url::form_urlencoded::parse(text.as_bytes()).into_owned().collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let slow = app.slow.lock().expect("slow").get(uri.path()).copied();
    let route = app.routes.lock().expect("routes").get(uri.path()).cloned();
    let (status, answer) = route.map_or((404, String::new()), |f| f(&seen));
    app.seen.lock().expect("seen").push(seen);
    app.count.send_modify(|n| *n += 1);
    if let Some(by) = slow {
        tokio::time::sleep(by).await;
    }
    let status = StatusCode::from_u16(status).expect("a status");
    // The text of a redirect is its target.
    if status.is_redirection() {
        return (status, [("location", answer)]).into_response();
    }
    (status, [("content-type", "application/xml")], answer).into_response()
}
