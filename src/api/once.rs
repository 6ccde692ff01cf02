//! `Idempotency-Key`: a POST that came before gets the answer it got then, and nothing is done twice
//! (`plivo-call-api.md` §1.9, `number-api.md` §1). Both APIs keep answers here, each by its own [`Rules`].
//!
//! Answers are kept in memory, the most recent ones. The work goes on when whoever asked goes away, and those who ask the
//! same meanwhile wait for it. An answer that says "later" (5xx, 429) is not kept: the next try is a new one.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, lazy};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::segments;
use crate::model::AuthId;
use crate::store::Scope;

/// Answers kept at most; the oldest go first.
const KEPT_MAX: u64 = 10_000;

/// What one API says of its keys.
pub(super) struct Rules {
    /// How long an answer is given again.
    pub(super) kept: Duration,
    /// Longest key, in bytes.
    pub(super) key_max: usize,
    /// The API's word for a fault of ours.
    pub(super) fault: fn() -> Response,
}

/// A request that is the same as another: who asks, what for, and their key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    account: AuthId,
    path: String,
    key: String,
}

/// An answer, to be given again.
#[derive(Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The answers given, and those to come.
pub(super) struct Once {
    rules: Rules,
    answers: Cache<Key, Shared<BoxFuture<'static, Kept>>>,
}

impl Once {
    pub(super) fn new(rules: Rules) -> Self {
        let answers = Cache::builder().max_capacity(KEPT_MAX).eviction_policy(EvictionPolicy::lru());
        Self { answers: answers.time_to_live(rules.kept).build(), rules }
    }

    /// The key that a request names, if it names one.
    ///
    /// # Errors
    /// It is none, as a sentence.
    pub(super) fn key(&self, scope: &Scope, headers: &HeaderMap, path: &str) -> Result<Option<Key>, String> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let most = self.rules.key_max;
        let key = key.to_str().ok().filter(|key| (1..=most).contains(&key.len()));
        let key = key.ok_or_else(|| format!("Idempotency-Key must be 1 to {most} characters"))?.to_owned();
        let path = segments(path).join("/");
        Ok(Some(Key { account: scope.auth_id().clone(), path, key }))
    }

    /// Does the work, or gives the answer that it got before; of several at the same moment one does it.
    pub(super) async fn run(
        &self,
        key: Option<Key>,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let Some(key) = key else { return work.await };
        let answer = self.answers.get_with(key.clone(), lazy(|_| self.begin(key, work))).await;
        let kept = answer.await;
        let mut response = Response::new(Body::from(kept.body));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response
    }

    fn begin(
        &self,
        key: Key,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Kept>> {
        let (answers, fault) = (self.answers.clone(), self.rules.fault);
        let task = tokio::spawn(async move {
            let kept = keep(AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| fault())).await;
            if kept.status.is_server_error() || kept.status == StatusCode::TOO_MANY_REQUESTS {
                // Before anybody sees it: who comes again because of it does the work anew.
                answers.invalidate(&key).await;
            }
            kept
        });
        async move {
            match task.await {
                Ok(kept) => kept,
                // The runtime is being stopped.
                Err(_) => keep(fault()).await,
            }
        }
        .boxed()
        .shared()
    }
}

async fn keep(response: Response) -> Kept {
    let (head, body) = response.into_parts();
    // Our own answers are in memory whole.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Kept { status: head.status, headers: head.headers, body }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::response::IntoResponse as _;

    use super::*;

    fn once() -> Once {
        let fault = || StatusCode::INTERNAL_SERVER_ERROR.into_response();
        Once::new(Rules { kept: Duration::from_secs(600), key_max: 64, fault })
    }

    fn key(once: &Once, account: &str, path: &str, key: &str) -> Option<Key> {
        let request = http::Request::post(path).header("idempotency-key", key).body(()).unwrap();
        once.key(&Scope::of(account.into()), request.headers(), request.uri().path()).unwrap_or_default()
    }

    async fn text(response: Response) -> Bytes {
        keep(response).await.body
    }

    #[tokio::test]
    async fn a_key_is_done_once_for_each_account_and_path_and_a_failure_is_tried_again() {
        let (once, done) = (once(), Arc::new(AtomicU16::new(0)));
        let run = |key, status: u16| {
            let done = done.clone();
            once.run(key, async move {
                let n = done.fetch_add(1, Ordering::SeqCst);
                (StatusCode::from_u16(status).unwrap(), n.to_string()).into_response()
            })
        };
        let key = |account: &str, name: &str| key(&once, account, "/v1/x/", name);
        let (first, again) = tokio::join!(run(key("MA1", "a"), 202), run(key("MA1", "a"), 202));
        assert_eq!((text(first).await, text(again).await), ("0".into(), "0".into()));
        assert_eq!(text(run(key("MA1", "a"), 202).await).await, "0");
        assert_eq!(text(run(key("MA2", "a"), 202).await).await, "1", "another account's key is another key");
        for later in [502, 429, 503] {
            run(key("MA1", "b"), later).await;
        }
        assert_eq!(text(run(key("MA1", "b"), 422).await).await, "5");
        assert_eq!(text(run(key("MA1", "b"), 202).await).await, "5", "a refusal is an answer");
        assert_eq!(text(run(None, 202).await).await, "6");
        let elsewhere = super::tests::key(&once, "MA1", "//v1//y", "a");
        assert_eq!(text(run(elsewhere, 202).await).await, "7", "another path");
        let same = super::tests::key(&once, "MA1", "//v1//x", "a");
        assert_eq!(text(run(same, 202).await).await, "0", "slashes make no difference");
    }

    #[tokio::test]
    async fn the_work_goes_on_when_whoever_asked_has_gone_and_a_fault_ends_one_answer() {
        let once = once();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let mut asked = Box::pin(once.run(key(&once, "MA1", "/x", "a"), async move {
            let _ = gone.await;
            "first".into_response()
        }));
        assert!(futures_util::poll!(asked.as_mut()).is_pending());
        drop(asked);
        let again = once.run(key(&once, "MA1", "/x", "a"), async { "second".into_response() });
        let _ = go.send(());
        assert_eq!(text(again.await).await, "first");
        let broken = once.run(key(&once, "MA1", "/x", "b"), async { panic!("a fault of ours") });
        assert_eq!(broken.await.status(), 500);
        let again = once.run(key(&once, "MA1", "/x", "b"), async { "third".into_response() });
        assert_eq!(text(again.await).await, "third");
    }

    #[test]
    fn keys_have_a_length() {
        let once = once();
        let of = |key: &str| {
            let request = http::Request::post("/x").header("idempotency-key", key).body(()).unwrap();
            once.key(&Scope::of("MA1".into()), request.headers(), "/x").map(|key| key.is_some())
        };
        assert_eq!(of(&"k".repeat(64)), Ok(true));
        for bad in ["", &"k".repeat(65)] {
            assert_eq!(of(bad), Err("Idempotency-Key must be 1 to 64 characters".to_owned()));
        }
        let none = HeaderMap::new();
        assert_eq!(once.key(&Scope::of("MA1".into()), &none, "/x").map(|key| key.is_none()), Ok(true));
    }
}
