//! Delivers webhooks to a node. The endpoint is verified once, the body is signed, and the same
//! bytes are sent again until the node accepts them. Each delivery runs in a separate task.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::body;
use crate::client::{self, Client};
use crate::faults::SignatureFault;
use crate::locked;
use crate::log::{LogEvent, SimLog};
use crate::rng::SimRng;

/// Meta stops retrying after seven days.
const RETRY_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Maximum size of a response body.
const ANSWER_BYTES_MAX: usize = 65_536;

const SIGNATURE: &str = "x-hub-signature-256";

/// A node's webhook endpoint and the secrets shared with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WebhookTarget {
    /// Base URL of the node, without a trailing slash.
    pub(crate) node_url: String,
    pub(crate) app_secret: String,
    pub(crate) verify_token: String,
}

/// Timeouts of deliveries.
#[derive(Clone, Copy, Debug)]
pub struct WebhookTimes {
    /// Time after which an unanswered delivery counts as failed. Default 10 s.
    pub answer: Duration,
    /// Pause before the second attempt, doubled for each further one. Default 1 s.
    pub first_retry: Duration,
}

impl Default for WebhookTimes {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), first_retry: Duration::from_secs(1) }
    }
}

/// Verifies endpoints, and signs and delivers webhooks.
pub(crate) struct Webhooks {
    pub(crate) client: Client,
    pub(crate) log: Arc<SimLog>,
    pub(crate) rng: Arc<SimRng>,
    pub(crate) times: WebhookTimes,
    pub(crate) stop: CancellationToken,
    verified: Mutex<BTreeSet<WebhookTarget>>,
}

/// A signed webhook, ready to send.
#[derive(Clone)]
pub(crate) struct SignedWebhook {
    pub(crate) event: &'static str,
    pub(crate) call_id: String,
    bytes: Bytes,
    /// Signature headers. Usually one.
    signatures: Vec<(&'static str, String)>,
}

impl Webhooks {
    pub(crate) fn new(
        client: Client,
        log: Arc<SimLog>,
        rng: Arc<SimRng>,
        times: WebhookTimes,
        stop: CancellationToken,
    ) -> Self {
        Self { client, log, rng, times, stop, verified: Mutex::default() }
    }

    /// Verifies the endpoint, unless it has been verified before.
    ///
    /// # Errors
    ///
    /// Returns a message if the endpoint does not pass.
    pub(crate) async fn verify(&self, target: &WebhookTarget) -> Result<(), String> {
        if locked(&self.verified).contains(target) {
            return Ok(());
        }
        let challenge = (self.rng.next_u64() % 9_000_000_000 + 1_000_000_000).to_string();
        let outcome = self.request_challenge(target, &challenge).await;
        let details = outcome.clone().err().unwrap_or_default();
        self.log.add(LogEvent::Verification { passed: outcome.is_ok(), details });
        outcome?;
        locked(&self.verified).insert(target.clone());
        Ok(())
    }

    async fn request_challenge(
        &self,
        target: &WebhookTarget,
        challenge: &str,
    ) -> Result<(), String> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("hub.mode", "subscribe")
            .append_pair("hub.challenge", challenge)
            .append_pair("hub.verify_token", &target.verify_token)
            .finish();
        let url = format!("{}/webhooks/meta?{query}", target.node_url);
        let request = Request::builder().method(Method::GET).uri(&url).body(Bytes::new());
        let request =
            request.map_err(|e| format!("{} is not a valid URL: {e}", target.node_url))?;
        let answer =
            client::fetch(&self.client, request, self.times.answer, ANSWER_BYTES_MAX).await?;
        if answer.status == 200 && answer.body.as_ref() == challenge.as_bytes() {
            return Ok(());
        }
        Err(match answer.status {
            200 => "the response to the verification request is not the challenge".into(),
            403 => "the node refused the verification request with 403: check that its meta.verify_token equals the simulator's, \
                    which POST /_sim/app with verify_token changes"
                .into(),
            status => format!("the verification request was answered with status {status}"),
        })
    }

    /// Posts a webhook without entries, which changes nothing, to see whether the node accepts its
    /// signature. No repetition mends a wrong app secret.
    ///
    /// # Errors
    ///
    /// Returns the cause and the remedy if the node refuses the signature.
    pub(crate) async fn check_signature(&self, target: &WebhookTarget) -> Result<(), String> {
        let body = json!({"object": "whatsapp_business_account", "entry": []});
        let webhook = self.sign(target, "signature check", "", &body, None);
        match self.attempt(target, &webhook).await {
            401 => Err("webhook_rejected: the node refused the signature (401): check that \
                        --app-secret / META_APP_SECRET equals the node's meta.app_secret"
                .to_owned()),
            _ => Ok(()),
        }
    }

    /// Serializes and signs a webhook. With `fault`, the signature is invalid.
    pub(crate) fn sign(
        &self,
        target: &WebhookTarget,
        event: &'static str,
        call_id: &str,
        body: &Value,
        fault: Option<&SignatureFault>,
    ) -> SignedWebhook {
        let bytes = Bytes::from(body::to_wire_bytes(body, self.rng.next_bool()));
        let valid = body::signature(&target.app_secret, &bytes);
        let signatures = match fault {
            None => vec![(SIGNATURE, valid)],
            Some(SignatureFault::Missing) => Vec::new(),
            Some(SignatureFault::Wrong) => {
                vec![(SIGNATURE, body::signature("another secret", &bytes))]
            }
            Some(SignatureFault::Upper) => {
                vec![(SIGNATURE, format!("sha256={}", valid.replace("sha256=", "").to_uppercase()))]
            }
            Some(SignatureFault::Twice) => vec![(SIGNATURE, valid.clone()), (SIGNATURE, valid)],
            Some(SignatureFault::Sha1) => {
                vec![("x-hub-signature", body::signature_sha1(&target.app_secret, &bytes))]
            }
            Some(SignatureFault::Secret(secret)) => {
                vec![(SIGNATURE, body::signature(secret, &bytes))]
            }
        };
        SignedWebhook { event, call_id: call_id.to_owned(), bytes, signatures }
    }

    /// Delivers a webhook after `delay` and repeats it until the node accepts it. `on_attempt`
    /// receives the status of each attempt, 0 for none.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        target: &WebhookTarget,
        webhook: SignedWebhook,
        delay: Duration,
        on_attempt: impl Fn(u16) + Send + Sync + 'static,
    ) {
        let (this, target) = (self.clone(), target.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.attempts(&target, &webhook, delay, on_attempt) => {}
            }
        });
    }

    async fn attempts(
        &self,
        target: &WebhookTarget,
        webhook: &SignedWebhook,
        delay: Duration,
        on_attempt: impl Fn(u16),
    ) {
        tokio::time::sleep(delay).await;
        let (mut pause, mut waited) = (self.times.first_retry, Duration::ZERO);
        for attempt in 1.. {
            let status = self.attempt(target, webhook).await;
            let SignedWebhook { event, call_id, .. } = webhook;
            self.log.add(LogEvent::Webhook {
                event: (*event).to_owned(),
                call_id: call_id.clone(),
                attempt,
                status,
            });
            on_attempt(status);
            if (200..300).contains(&status) || waited > RETRY_FOR {
                return;
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause *= 2;
        }
    }

    /// Sends a webhook once. Returns the status, or 0 if there was no response.
    async fn attempt(&self, target: &WebhookTarget, webhook: &SignedWebhook) -> u16 {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/webhooks/meta", target.node_url))
            .header("content-type", "application/json")
            .header("user-agent", "facebookexternalua");
        for (name, value) in &webhook.signatures {
            request = request.header(*name, value);
        }
        let Ok(request) = request.body(webhook.bytes.clone()) else { return 0 };
        match client::fetch(&self.client, request, self.times.answer, ANSWER_BYTES_MAX).await {
            Ok(answer) => answer.status,
            Err(error) => {
                tracing::debug!(error, "webhook delivery failed");
                0
            }
        }
    }
}
