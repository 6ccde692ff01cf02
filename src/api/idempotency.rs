//! `Idempotency-Key`: a POST with a key that was used before gets the first response, and its work
//! is not repeated. See `docs/reference/rest.md#idempotency`.
//!
//! A response is stored before the client gets it, so that it survives a restart. Responses that
//! the store does not take are kept in memory. The work is completed even if the client
//! disconnects, and requests with the same key wait for it. Responses that depend on the moment
//! (409, 422, 429, 5xx) are not kept. If the process ends before there is a response, the next
//! request does the work again.
//!
//! If other nodes share the store, a node claims the work there before it begins. Another one waits
//! for the response, or for the claim to end.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::segments;
use model::Clock;
use model::{AuthId, Timestamp};
use store::{Scope, Store, StoredResponse};

/// Maximum number of responses in memory while the store rejects writes; the least recently used
/// are dropped.
const RESPONSES_MAX: u64 = 10_000;
/// Maximum size of a stored response in bytes. No response to a POST that creates or sends
/// something is larger.
const STORED_BYTES_MAX: usize = 256 << 10;
/// How long a claim is valid. A node renews it while it works. So another one repeats the work soon
/// if the node has died, and not while the store is slow.
const CLAIMED_FOR: Duration = Duration::from_secs(20);
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Interval at which the store is polled for the response of another node.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Timeout for storing a response before the client receives it.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The rules of one API.
pub(super) struct Rules {
    /// How long a response is kept.
    pub(super) kept: Duration,
    /// Maximum length of a key, in bytes.
    pub(super) key_bytes_max: usize,
    /// Builds the response for a request whose handler panicked.
    pub(super) internal_error: fn() -> Response,
}

/// Identifies a request: its account, its path and its `Idempotency-Key`.
#[derive(Clone)]
pub(super) struct RequestKey {
    account: AuthId,
    main_account: AuthId,
    /// The conversation or user in the path. An erasure also removes the response.
    about: Option<String>,
    digest: [u8; 32],
}

impl RequestKey {
    fn stored(&self, answer: Vec<u8>, given: Timestamp, until: Timestamp) -> StoredResponse {
        StoredResponse {
            digest: self.digest,
            account: self.account.clone(),
            main_account: self.main_account.clone(),
            about: self.about.clone(),
            answer,
            given,
            until,
        }
    }
}

/// A response that is kept.
#[derive(Clone)]
struct KeptResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

type PendingResponse = Shared<BoxFuture<'static, KeptResponse>>;

/// The kept responses of one API, and those that are pending.
pub(super) struct Idempotency(Arc<Inner>);

struct Inner {
    rules: Rules,
    store: Store,
    clock: Clock,
    /// Responses to requests that are being served.
    pending: Mutex<HashMap<[u8; 32], PendingResponse>>,
    /// Responses that the store did not take.
    unstored: Cache<[u8; 32], KeptResponse>,
}

impl Idempotency {
    pub(super) fn new(rules: Rules, store: Store, clock: Clock) -> Self {
        let unstored =
            Cache::builder().max_capacity(RESPONSES_MAX).eviction_policy(EvictionPolicy::lru());
        let unstored = unstored.time_to_live(rules.kept).build();
        Self(Arc::new(Inner { rules, store, clock, pending: Mutex::default(), unstored }))
    }

    /// The key of a request, if it has an `Idempotency-Key`.
    ///
    /// # Errors
    /// Returns a sentence that describes the fault of the header.
    pub(super) fn key(
        &self,
        scope: &Scope,
        main_account: &AuthId,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Option<RequestKey>, String> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let most = self.0.rules.key_bytes_max;
        let key = key.to_str().ok().filter(|key| (1..=most).contains(&key.len()));
        let key = key.ok_or_else(|| format!("Idempotency-Key must be 1 to {most} characters"))?;
        let segments = segments(path);
        let about = match segments.as_slice() {
            ["api", "v1", "conversations", id, ..] => Some((*id).to_owned()),
            ["api", "v1", "permissions", _, user, ..] => Some((*user).to_owned()),
            _ => None,
        };
        let mut digest = Context::new(&SHA256);
        for part in [scope.auth_id().as_str(), segments.join("/").as_str(), key] {
            // No part contains the zero byte that separates them.
            digest.update(part.as_bytes());
            digest.update(&[0]);
        }
        let mut key = RequestKey {
            account: scope.auth_id().clone(),
            main_account: main_account.clone(),
            about,
            digest: [0; 32],
        };
        key.digest.copy_from_slice(digest.finish().as_ref());
        Ok(Some(key))
    }

    /// Returns the kept response for a key, or does the work and keeps its response. Of several
    /// requests with the same key at the same time, one does the work.
    pub(super) async fn run(
        &self,
        key: RequestKey,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let kept = self.response(key, work).await;
        let mut response = Response::new(Body::from(kept.body));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response
    }

    fn response(
        &self,
        key: RequestKey,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> PendingResponse {
        let (inner, digest) = (self.0.clone(), key.digest);
        let mut pending = self.0.pending();
        if let Some(response) = pending.get(&digest) {
            return response.clone();
        }
        let task = tokio::spawn(async move {
            let kept = AssertUnwindSafe(inner.kept_or(&key, work)).catch_unwind().await;
            // The entry exists, because it was inserted under the lock that is held until then.
            // Later requests find the response in the store.
            inner.pending().remove(&key.digest);
            kept.ok()
        });
        let internal_error = self.0.rules.internal_error;
        let response = async move {
            match task.await {
                Ok(Some(kept)) => kept,
                // The runtime is being shut down.
                Ok(None) | Err(_) => keep(internal_error()).await,
            }
        };
        let response = response.boxed().shared();
        pending.insert(digest, response.clone());
        response
    }
}

impl Inner {
    fn pending(&self) -> MutexGuard<'_, HashMap<[u8; 32], PendingResponse>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the kept response, or does the work and keeps its response.
    async fn kept_or(
        &self,
        key: &RequestKey,
        work: impl Future<Output = Response> + Send,
    ) -> KeptResponse {
        loop {
            if let Some(kept) = self.kept(key).await {
                return kept;
            }
            if self.claim(key).await {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let work = AssertUnwindSafe(work).catch_unwind();
        let work = tokio::select! {
            work = work => work,
            never = self.keep_claimed(key) => match never {},
        };
        let response = work.unwrap_or_else(|_| (self.rules.internal_error)());
        let is_temporary =
            is_temporary(response.status()) || response.extensions().get::<NotKept>().is_some();
        let kept = keep(response).await;
        if is_temporary {
            if self.store.is_shared() {
                self.store.responses().give_back(key.digest);
            }
        } else if !self.store(key, &kept).await {
            self.unstored.insert(key.digest, kept.clone()).await;
        }
        kept
    }

    /// Claims the work among the nodes that share the store. Returns `false` if another one has
    /// done or claimed it.
    async fn claim(&self, key: &RequestKey) -> bool {
        if !self.store.is_shared() {
            return true;
        }
        let given = self.clock.wall();
        let until = given.plus(CLAIMED_FOR);
        let work = key.stored(Vec::new(), given, until);
        self.store.responses().claim(work).await.unwrap_or_else(|error| {
            // As for a store that can't be read.
            tracing::warn!(%error, "request with an idempotency key could not be claimed");
            true
        })
    }

    /// Renews the claim until the future is dropped.
    async fn keep_claimed(&self, key: &RequestKey) -> std::convert::Infallible {
        if !self.store.is_shared() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            self.store.responses().renew(key.digest, self.clock.wall().plus(CLAIMED_FOR));
        }
    }

    async fn kept(&self, key: &RequestKey) -> Option<KeptResponse> {
        if let Some(kept) = self.unstored.get(&key.digest).await {
            return Some(kept);
        }
        match self.store.responses().get(&key.digest, self.clock.wall()).await {
            Ok(stored) => stored.as_deref().and_then(KeptResponse::from_bytes),
            Err(error) => {
                // The request is served as a new one: a store that can't be read must not prevent
                // calls.
                tracing::warn!(%error, "kept response could not be read");
                None
            }
        }
    }

    async fn store(&self, key: &RequestKey, kept: &KeptResponse) -> bool {
        let (Some(answer), given) = (kept.to_bytes(), self.clock.wall()) else { return false };
        let answer = key.stored(answer, given, given.plus(self.rules.kept));
        let Some(written) = self.store.responses().put(answer) else { return false };
        matches!(tokio::time::timeout(STORE_TIMEOUT, written).await, Ok(Ok(_)))
    }
}

impl KeptResponse {
    /// A line of JSON with the status and the headers, followed by the body. `None` if the response
    /// is too large to be stored.
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let headers: Option<Vec<_>> = self
            .headers
            .iter()
            .map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let mut bytes = serde_json::to_vec(&(self.status.as_u16(), headers?)).ok()?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        (bytes.len() <= STORED_BYTES_MAX).then_some(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = bytes.split_at(end);
        let (status, named): (u16, Vec<(String, String)>) = serde_json::from_slice(head).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        let body = Bytes::copy_from_slice(body.strip_prefix(b"\n")?);
        Some(Self { status: StatusCode::from_u16(status).ok()?, headers, body })
    }
}

/// An extension of responses that a repeated request does not get, because this one did not arrive
/// completely.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotKept;

/// Whether a request may succeed later, unchanged. No such response follows work that has created or
/// sent something.
fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::UNPROCESSABLE_ENTITY
                | StatusCode::TOO_MANY_REQUESTS
        )
}

async fn keep(response: Response) -> KeptResponse {
    let (head, body) = response.into_parts();
    // Reading can't fail: the bodies of our responses are in memory.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    KeptResponse { status: head.status, headers: head.headers, body }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::response::IntoResponse as _;

    use super::*;
    use model::Health;
    use store::{FaultInjector, StoreOptions, StorePart};

    fn idempotency(store: &Store) -> Idempotency {
        let internal_error = || StatusCode::INTERNAL_SERVER_ERROR.into_response();
        Idempotency::new(
            Rules { kept: Duration::from_secs(600), key_bytes_max: 64, internal_error },
            store.clone(),
            Clock::real(),
        )
    }

    async fn store(folder: &tempfile::TempDir, broken: bool) -> Store {
        let fail: FaultInjector = Arc::new(move |part| broken && part == StorePart::Store);
        let options =
            StoreOptions { fail: Some(fail), ..StoreOptions::with_journal_in(folder.path()) };
        Store::open_with(&folder.path().join("o.db"), options, Health::new()).await.unwrap()
    }

    fn key(cache: &Idempotency, account: &str, path: &str, key: &str) -> RequestKey {
        let request = http::Request::post(path).header("idempotency-key", key).body(()).unwrap();
        cache
            .key(&Scope::of(account.into()), &account.into(), request.headers(), path)
            .unwrap()
            .unwrap()
    }

    async fn text(response: Response) -> Bytes {
        keep(response).await.body
    }

    #[tokio::test]
    async fn work_is_done_once_for_a_key_account_and_path_and_repeated_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, false).await;
        let (cache, done) = (idempotency(&store), Arc::new(AtomicU16::new(0)));
        let run = |key, status: u16| {
            let done = done.clone();
            cache.run(key, async move {
                let n = done.fetch_add(1, Ordering::SeqCst);
                (StatusCode::from_u16(status).unwrap(), n.to_string()).into_response()
            })
        };
        let key = |account: &str, name: &str| key(&cache, account, "/v1/x/", name);
        let (first, again) = tokio::join!(run(key("MA1", "a"), 202), run(key("MA1", "a"), 202));
        assert_eq!((text(first).await, text(again).await), ("0".into(), "0".into()));
        assert_eq!(text(run(key("MA1", "a"), 202).await).await, "0");
        assert_eq!(text(run(key("MA2", "a"), 202).await).await, "1", "the key of another account");
        for later in [502, 429, 503, 409, 422] {
            run(key("MA1", "b"), later).await;
        }
        assert_eq!(text(run(key("MA1", "b"), 400).await).await, "7");
        assert_eq!(text(run(key("MA1", "b"), 202).await).await, "7", "a bad request is kept");
        let elsewhere = super::tests::key(&cache, "MA1", "//v1//y", "a");
        assert_eq!(text(run(elsewhere, 202).await).await, "8", "another path");
        let same = super::tests::key(&cache, "MA1", "//v1//x", "a");
        assert_eq!(text(run(same, 202).await).await, "0", "slashes make no difference");
        assert!(
            cache.0.pending().is_empty() && cache.0.unstored.iter().next().is_none(),
            "all responses are in the store"
        );
        store.close().await;
    }

    #[tokio::test]
    async fn a_response_is_repeated_after_a_restart_and_if_the_store_takes_nothing() {
        for broken in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let kept = store(&folder, broken).await;
            let cache = idempotency(&kept);
            let answers = |text: &'static str| async move {
                (StatusCode::CREATED, [("etag", "\"7\"")], text).into_response()
            };
            let first =
                cache.run(key(&cache, "MA1", "/api/v1/x", "a"), answers("first\nof two")).await;
            assert_eq!(
                (first.status(), text(first).await),
                (StatusCode::CREATED, "first\nof two".into())
            );
            let again = cache.run(key(&cache, "MA1", "/api/v1/x", "a"), answers("second")).await;
            assert_eq!(text(again).await, "first\nof two", "broken: {broken}");
            kept.close().await;
            if broken {
                continue;
            }
            let kept = store(&folder, false).await;
            let cache = idempotency(&kept);
            let again = cache.run(key(&cache, "MA1", "/api/v1/x", "a"), answers("third")).await;
            assert_eq!(
                (again.status(), &again.headers()["etag"]),
                (StatusCode::CREATED, &HeaderValue::from_static("\"7\""))
            );
            assert_eq!(text(again).await, "first\nof two");
            kept.close().await;
        }
    }

    #[tokio::test]
    async fn work_is_completed_without_its_client_and_a_panic_is_one_response() {
        let folder = tempfile::tempdir().unwrap();
        let kept = store(&folder, false).await;
        let cache = idempotency(&kept);
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let mut response = Box::pin(cache.run(key(&cache, "MA1", "/x", "a"), async move {
            let _ = gone.await;
            "first".into_response()
        }));
        assert!(futures_util::poll!(response.as_mut()).is_pending());
        drop(response);
        let again = cache.run(key(&cache, "MA1", "/x", "a"), async { "second".into_response() });
        let _ = go.send(());
        assert_eq!(text(again.await).await, "first");
        let broken = cache.run(key(&cache, "MA1", "/x", "b"), async { panic!("a bug") });
        assert_eq!(broken.await.status(), 500);
        let again = cache.run(key(&cache, "MA1", "/x", "b"), async { "third".into_response() });
        assert_eq!(text(again.await).await, "third");
        kept.close().await;
    }

    #[tokio::test]
    async fn f22_of_two_nodes_one_does_the_work() {
        if store::testing::skipped_on_sqlite() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = store::testing::place(&folder.path().join("o.db")).await;
        let open = async |node: &str| {
            let options = StoreOptions {
                secret_key: Some(model::Secret::new("the key of all nodes of this test")),
                ..StoreOptions::with_journal_in(folder.path().join(node))
            };
            Store::open_with(at.clone(), options, Health::new()).await.unwrap()
        };
        let (a, b) = (open("a").await, open("b").await);
        let (at_a, at_b) = (idempotency(&a), idempotency(&b));
        let done = Arc::new(AtomicU16::new(0));
        let run = |cache: &Idempotency, name: &str, status: u16| {
            let (cache, done) = (Idempotency(cache.0.clone()), done.clone());
            let key = key(&cache, "MA1", "/v1/x/", name);
            async move {
                let work = async move {
                    let n = done.fetch_add(1, Ordering::SeqCst);
                    (StatusCode::from_u16(status).unwrap(), n.to_string()).into_response()
                };
                cache.run(key, work).await
            }
        };
        for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
            let (one, two) = tokio::join!(run(&at_a, name, 202), run(&at_b, name, 202));
            assert_eq!(
                (text(one).await, text(two).await),
                (round.to_string().into(), round.to_string().into())
            );
        }
        // A failure is not kept: the next request does the work.
        assert_eq!(run(&at_a, "d", 503).await.status(), 503);
        a.flush().await;
        assert_eq!(text(run(&at_b, "d", 202).await).await, "4");
        assert_eq!(text(run(&at_a, "d", 202).await).await, "4");
        a.close().await;
        b.close().await;
    }

    #[tokio::test]
    async fn refuses_keys_that_are_empty_or_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let kept = store(&folder, false).await;
        let cache = idempotency(&kept);
        let of = |key: &str| {
            let request =
                http::Request::post("/x").header("idempotency-key", key).body(()).unwrap();
            cache
                .key(&Scope::of("MA1".into()), &"MA1".into(), request.headers(), "/x")
                .map(|key| key.is_some())
        };
        assert_eq!(of(&"k".repeat(64)), Ok(true));
        for bad in ["", &"k".repeat(65)] {
            assert_eq!(of(bad), Err("Idempotency-Key must be 1 to 64 characters".to_owned()));
        }
        let none = HeaderMap::new();
        assert_eq!(
            cache
                .key(&Scope::of("MA1".into()), &"MA1".into(), &none, "/x")
                .map(|key| key.is_none()),
            Ok(true)
        );
        kept.close().await;
    }
}
