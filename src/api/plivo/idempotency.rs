//! `Idempotency-Key`: a repeated POST within ten minutes gets the first one's answer, and nothing is placed twice
//! (`plivo-call-api.md` §1.9). Kept in memory, of a bounded number of keys; the same request at the same moment waits
//! for the first one's answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use super::No;
use crate::store::Scope;

const KEPT: Duration = Duration::from_secs(600);
const KEYS_MAX: usize = 20_000;
const KEY_CHARS_MAX: usize = 64;

/// A first answer: what is repeated of it.
type Answer = Arc<Turns<Option<(StatusCode, HeaderMap, Bytes)>>>;

/// The answers of the last ten minutes.
#[derive(Default)]
pub(in super::super) struct Repeated(Mutex<HashMap<(String, String), (Instant, Answer)>>);

/// Who is to answer a request.
pub(super) enum Turn {
    Known(Response),
    /// We are; others with the same key wait for it.
    Ours(Ours),
}

/// The right to answer first; without a key there is nothing to be kept.
pub(super) struct Ours(Option<OwnedMutexGuard<Option<(StatusCode, HeaderMap, Bytes)>>>);

impl Repeated {
    /// Whose turn a request is.
    ///
    /// # Errors
    /// Its key is none.
    pub(super) async fn turn(&self, scope: &Scope, headers: &HeaderMap, now: Instant) -> Result<Turn, No> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(Turn::Ours(Ours(None))) };
        let key = key.to_str().ok().filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()));
        let key = key.ok_or_else(|| No::Bad(format!("Idempotency-Key must be 1 to {KEY_CHARS_MAX} characters")))?;
        let answer = self.answer((scope.auth_id().to_string(), key.to_owned()), now);
        let kept = answer.lock_owned().await;
        Ok(match &*kept {
            Some((status, headers, body)) => {
                let mut response = Response::new(Body::from(body.clone()));
                *response.status_mut() = *status;
                response.headers_mut().clone_from(headers);
                Turn::Known(response)
            }
            None => Turn::Ours(Ours(Some(kept))),
        })
    }

    fn answer(&self, key: (String, String), now: Instant) -> Answer {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= KEYS_MAX {
            answers.retain(|_, (since, _)| now.saturating_duration_since(*since) < KEPT);
        }
        if answers.len() >= KEYS_MAX
            && let Some(oldest) = answers.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            answers.remove(&oldest);
        }
        let fresh = || (now, Answer::default());
        let kept = answers.entry(key).or_insert_with(fresh);
        if now.saturating_duration_since(kept.0) >= KEPT {
            *kept = fresh();
        }
        kept.1.clone()
    }
}

impl Ours {
    /// Keeps the answer for those who repeat the request.
    pub(super) async fn keep(self, answer: Response) -> Response {
        let Some(mut kept) = self.0 else { return answer };
        let (head, body) = answer.into_parts();
        // A body of our own, in memory.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        *kept = Some((head.status, head.headers.clone(), body.clone()));
        Response::from_parts(head, Body::from(body))
    }
}
