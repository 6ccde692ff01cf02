//! `Idempotency-Key`: a POST that came before gets the answer it got then, and nothing is done twice
//! (`plivo-call-api.md` §1.9, `number-api.md` §1). Both APIs keep answers here, each by its own [`Rules`].
//!
//! Answers are in the store before anybody sees them, so that a restart changes nothing; in memory are those to come, and those
//! that the store did not take. The work goes on when whoever asked goes away, and those who ask the same meanwhile wait
//! for it. An answer that says "later" (5xx, 429) is not kept: the next try is a new one. Work that ends with its process has
//! given no answer, and is done anew.

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
use model::AuthId;
use model::Clock;
use store::{GivenAnswer, Scope, Store};

/// Answers kept in memory at most, while the store takes none; the oldest go first.
const KEPT_MAX: u64 = 10_000;
/// The largest answer that the store gets: more than any that makes or sends something.
const STORED_MAX: usize = 256 << 10;
/// How long an answer waits to be stored: past it the store takes nothing, and whoever asked waits for nothing else.
const STORING: Duration = Duration::from_secs(2);

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
#[derive(Clone)]
pub(super) struct Key {
    account: AuthId,
    main_account: AuthId,
    /// Whom the answer tells of, by the path.
    about: Option<String>,
    digest: [u8; 32],
}

/// An answer, to be given again.
#[derive(Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

type Coming = Shared<BoxFuture<'static, Kept>>;

/// The answers given, and those to come.
pub(super) struct Once(Arc<Inner>);

struct Inner {
    rules: Rules,
    store: Store,
    clock: Clock,
    /// Never more than requests that are being worked on.
    coming: Mutex<HashMap<[u8; 32], Coming>>,
    /// What the store did not take.
    unstored: Cache<[u8; 32], Kept>,
}

impl Once {
    pub(super) fn new(rules: Rules, store: Store, clock: Clock) -> Self {
        let unstored =
            Cache::builder().max_capacity(KEPT_MAX).eviction_policy(EvictionPolicy::lru());
        let unstored = unstored.time_to_live(rules.kept).build();
        Self(Arc::new(Inner { rules, store, clock, coming: Mutex::default(), unstored }))
    }

    /// The key that a request names, if it names one.
    ///
    /// # Errors
    /// It is none, as a sentence.
    pub(super) fn key(
        &self,
        scope: &Scope,
        main_account: &AuthId,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Option<Key>, String> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let most = self.0.rules.key_max;
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
            // No part has a zero byte in it.
            digest.update(part.as_bytes());
            digest.update(&[0]);
        }
        let mut key = Key {
            account: scope.auth_id().clone(),
            main_account: main_account.clone(),
            about,
            digest: [0; 32],
        };
        key.digest.copy_from_slice(digest.finish().as_ref());
        Ok(Some(key))
    }

    /// Does the work, or gives the answer that it got before; of several at the same moment one does it.
    pub(super) async fn run(
        &self,
        key: Option<Key>,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let Some(key) = key else { return work.await };
        let kept = self.coming(key, work).await;
        let mut response = Response::new(Body::from(kept.body));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response
    }

    fn coming(&self, key: Key, work: impl Future<Output = Response> + Send + 'static) -> Coming {
        let (inner, digest) = (self.0.clone(), key.digest);
        let mut coming = self.0.coming();
        if let Some(coming) = coming.get(&digest) {
            return coming.clone();
        }
        let task = tokio::spawn(async move {
            let kept = AssertUnwindSafe(inner.again_or(&key, work)).catch_unwind().await;
            // Under the lock that it was put there with: it is there by now. Who asks later finds it in the store.
            inner.coming().remove(&key.digest);
            kept.ok()
        });
        let fault = self.0.rules.fault;
        let answer = async move {
            match task.await {
                Ok(Some(kept)) => kept,
                // The runtime is being stopped.
                Ok(None) | Err(_) => keep(fault()).await,
            }
        };
        let answer = answer.boxed().shared();
        coming.insert(digest, answer.clone());
        answer
    }
}

impl Inner {
    fn coming(&self) -> MutexGuard<'_, HashMap<[u8; 32], Coming>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered before, or what the work answers now.
    async fn again_or(&self, key: &Key, work: impl Future<Output = Response> + Send) -> Kept {
        if let Some(before) = self.before(key).await {
            return before;
        }
        let work = AssertUnwindSafe(work).catch_unwind().await;
        let kept = keep(work.unwrap_or_else(|_| (self.rules.fault)())).await;
        if !kept.status.is_server_error()
            && kept.status != StatusCode::TOO_MANY_REQUESTS
            && !self.store(key, &kept).await
        {
            self.unstored.insert(key.digest, kept.clone()).await;
        }
        kept
    }

    async fn before(&self, key: &Key) -> Option<Kept> {
        if let Some(kept) = self.unstored.get(&key.digest).await {
            return Some(kept);
        }
        match self.store.responses().get(&key.digest, self.clock.wall()).await {
            Ok(given) => given.as_deref().and_then(Kept::read),
            Err(error) => {
                // As if it had not been asked before: a store that can't be read must keep nobody from calling.
                tracing::warn!(%error, "whether a request came before cannot be seen");
                None
            }
        }
    }

    async fn store(&self, key: &Key, kept: &Kept) -> bool {
        let (Some(answer), given) = (kept.written(), self.clock.wall()) else { return false };
        let until = given.plus(self.rules.kept);
        let (account, main_account, about) =
            (key.account.clone(), key.main_account.clone(), key.about.clone());
        let answer =
            GivenAnswer { digest: key.digest, account, main_account, about, answer, given, until };
        let Some(written) = self.store.responses().put(answer) else { return false };
        matches!(tokio::time::timeout(STORING, written).await, Ok(Ok(_)))
    }
}

impl Kept {
    /// A line of JSON, and the body behind it.
    fn written(&self) -> Option<Vec<u8>> {
        let headers: Option<Vec<_>> = self
            .headers
            .iter()
            .map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let mut written = serde_json::to_vec(&(self.status.as_u16(), headers?)).ok()?;
        written.push(b'\n');
        written.extend_from_slice(&self.body);
        (written.len() <= STORED_MAX).then_some(written)
    }

    fn read(written: &[u8]) -> Option<Self> {
        let end = written.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = written.split_at(end);
        let (status, named): (u16, Vec<(String, String)>) = serde_json::from_slice(head).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        let body = Bytes::copy_from_slice(body.strip_prefix(b"\n")?);
        Some(Self { status: StatusCode::from_u16(status).ok()?, headers, body })
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
    use model::Health;
    use store::{Fail, Part, StoreOptions};

    fn once(store: &Store) -> Once {
        let fault = || StatusCode::INTERNAL_SERVER_ERROR.into_response();
        Once::new(
            Rules { kept: Duration::from_secs(600), key_max: 64, fault },
            store.clone(),
            Clock::real(),
        )
    }

    async fn store(folder: &tempfile::TempDir, broken: bool) -> Store {
        let fail: Fail = Arc::new(move |part| broken && part == Part::Store);
        let options =
            StoreOptions { fail: Some(fail), ..StoreOptions::with_journal_in(folder.path()) };
        Store::open_with(&folder.path().join("o.db"), options, Health::new()).await.unwrap()
    }

    fn key(once: &Once, account: &str, path: &str, key: &str) -> Option<Key> {
        let request = http::Request::post(path).header("idempotency-key", key).body(()).unwrap();
        once.key(&Scope::of(account.into()), &account.into(), request.headers(), path)
            .unwrap_or_default()
    }

    async fn text(response: Response) -> Bytes {
        keep(response).await.body
    }

    #[tokio::test]
    async fn a_key_is_done_once_for_each_account_and_path_and_a_failure_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = store(&folder, false).await;
        let (once, done) = (once(&kept), Arc::new(AtomicU16::new(0)));
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
        assert_eq!(
            text(run(key("MA2", "a"), 202).await).await,
            "1",
            "another account's key is another key"
        );
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
        assert!(
            once.0.coming().is_empty() && once.0.unstored.iter().next().is_none(),
            "all of it is in the store"
        );
        kept.close().await;
    }

    #[tokio::test]
    async fn an_answer_is_given_again_after_a_restart_and_where_the_store_takes_nothing() {
        for broken in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let kept = store(&folder, broken).await;
            let once = once(&kept);
            let answers = |text: &'static str| async move {
                (StatusCode::CREATED, [("etag", "\"7\"")], text).into_response()
            };
            let first =
                once.run(key(&once, "MA1", "/api/v1/x", "a"), answers("first\nof two")).await;
            assert_eq!(
                (first.status(), text(first).await),
                (StatusCode::CREATED, "first\nof two".into())
            );
            let again = once.run(key(&once, "MA1", "/api/v1/x", "a"), answers("second")).await;
            assert_eq!(text(again).await, "first\nof two", "broken: {broken}");
            kept.close().await;
            if broken {
                continue;
            }
            let kept = store(&folder, false).await;
            let once = super::tests::once(&kept);
            let again = once.run(key(&once, "MA1", "/api/v1/x", "a"), answers("third")).await;
            assert_eq!(
                (again.status(), &again.headers()["etag"]),
                (StatusCode::CREATED, &HeaderValue::from_static("\"7\""))
            );
            assert_eq!(text(again).await, "first\nof two");
            kept.close().await;
        }
    }

    #[tokio::test]
    async fn the_work_goes_on_when_whoever_asked_has_gone_and_a_fault_ends_one_answer() {
        let folder = tempfile::tempdir().unwrap();
        let kept = store(&folder, false).await;
        let once = once(&kept);
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
        kept.close().await;
    }

    #[tokio::test]
    async fn keys_have_a_length() {
        let folder = tempfile::tempdir().unwrap();
        let kept = store(&folder, false).await;
        let once = once(&kept);
        let of = |key: &str| {
            let request =
                http::Request::post("/x").header("idempotency-key", key).body(()).unwrap();
            once.key(&Scope::of("MA1".into()), &"MA1".into(), request.headers(), "/x")
                .map(|key| key.is_some())
        };
        assert_eq!(of(&"k".repeat(64)), Ok(true));
        for bad in ["", &"k".repeat(65)] {
            assert_eq!(of(bad), Err("Idempotency-Key must be 1 to 64 characters".to_owned()));
        }
        let none = HeaderMap::new();
        assert_eq!(
            once.key(&Scope::of("MA1".into()), &"MA1".into(), &none, "/x").map(|key| key.is_none()),
            Ok(true)
        );
        kept.close().await;
    }
}
