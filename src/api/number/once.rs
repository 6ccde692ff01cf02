//! `Idempotency-Key`: a POST that came before gets the answer it got then, and nothing is done twice (`number-api.md` §1).
//!
//! Answers are kept in memory for a day. One that says that we or Meta failed is not kept: the next try is a new one.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use moka::future::Cache;

use crate::model::AuthId;
use crate::store::Scope;

const KEPT: Duration = Duration::from_secs(86_400);
/// Answers kept at most; the least used go first.
const KEPT_MAX: u64 = 10_000;
/// Longest key, in bytes; of a longer one no notice is taken.
const KEY_MAX: usize = 255;

/// A request that is the same as another: who asks, what for, and their key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    account: AuthId,
    path: String,
    key: String,
}

impl Key {
    pub(super) fn of(scope: &Scope, head: &Parts) -> Option<Self> {
        let key = head.headers.get("idempotency-key")?.to_str().ok()?;
        let path = head.uri.path().trim_end_matches('/').to_owned();
        let sound = (1..=KEY_MAX).contains(&key.len());
        sound.then(|| Self { account: scope.auth_id().clone(), path, key: key.to_owned() })
    }
}

/// An answer, to be given again.
#[derive(Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The answers given.
pub(in crate::api) struct Once(Cache<Key, Kept>);

impl Default for Once {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KEPT_MAX).time_to_live(KEPT).build())
    }
}

impl Once {
    /// Does the work, or gives the answer that it got before; of two at the same moment one does it.
    pub(super) async fn run(&self, key: Option<Key>, work: impl Future<Output = Response>) -> Response {
        let Some(key) = key else { return work.await };
        let kept = self.0.get_with(key.clone(), async { keep(work.await).await }).await;
        if kept.status.is_server_error() || kept.status == StatusCode::TOO_MANY_REQUESTS {
            self.0.invalidate(&key).await;
        }
        let mut response = Response::new(Body::from(kept.body));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response
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
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::response::IntoResponse as _;

    use super::*;

    fn key(account: &str, key: &str) -> Option<Key> {
        let request = http::Request::post("/api/v1/x/").header("idempotency-key", key).body(()).unwrap();
        Key::of(&Scope::of(account.into()), &request.into_parts().0)
    }

    #[tokio::test]
    async fn a_key_is_done_once_for_each_account_and_a_failure_is_tried_again() {
        let (once, done) = (Once::default(), AtomicU16::new(0));
        let (once, done) = (&once, &done);
        let run = |key, status: u16| {
            once.run(key, async move {
                let n = done.fetch_add(1, Ordering::SeqCst);
                (StatusCode::from_u16(status).unwrap(), n.to_string()).into_response()
            })
        };
        let text = async |response: Response| keep(response).await.body;
        let (first, again) = tokio::join!(run(key("MA1", "a"), 202), run(key("MA1", "a"), 202));
        assert_eq!((text(first).await, text(again).await), ("0".into(), "0".into()));
        assert_eq!(text(run(key("MA1", "a"), 202).await).await, "0");
        assert_eq!(text(run(key("MA2", "a"), 202).await).await, "1", "another account's key is another key");
        assert_eq!(text(run(key("MA1", "b"), 502).await).await, "2");
        assert_eq!(text(run(key("MA1", "b"), 422).await).await, "3");
        assert_eq!(text(run(key("MA1", "b"), 202).await).await, "3", "a refusal is an answer");
        assert_eq!(text(run(None, 202).await).await, "4");
        assert!(key("MA1", "").is_none() && key("MA1", &"k".repeat(256)).is_none());
    }
}
