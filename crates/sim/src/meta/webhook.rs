//! How webhooks get to a node: verification first (M1), signed bytes (M2), the same bytes again until they are
//! taken (M3). Each delivery is a task of its own, as Meta's are concurrent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::body;
use crate::client::{self, Client};
use crate::dice::Dice;
use crate::faults::Sign;
use crate::locked;
use crate::log::{Logged, SimLog};

/// Meta gives up after seven days.
const TRY_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Longest body of an answer that is read.
const ANSWER_BYTES_MAX: usize = 65_536;

const SIGNATURE: &str = "x-hub-signature-256";

/// A node's webhook door, and the secrets shared with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Door {
    /// Base URL of the node, no slash at the end.
    pub(crate) node_url: String,
    pub(crate) app_secret: String,
    pub(crate) verify_token: String,
}

/// How patient deliveries are.
#[derive(Clone, Copy, Debug)]
pub struct WebhookTimes {
    /// A delivery without an answer for so long has failed (10 s).
    pub answer: Duration,
    /// Pause before the second attempt; doubles each time (1 s).
    pub first_retry: Duration,
}

impl Default for WebhookTimes {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), first_retry: Duration::from_secs(1) }
    }
}

/// Delivers webhooks.
pub(crate) struct Webhooks {
    pub(crate) client: Client,
    pub(crate) log: Arc<SimLog>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) times: WebhookTimes,
    pub(crate) stop: CancellationToken,
    verified: Mutex<BTreeSet<Door>>,
}

/// A signed webhook on its way.
#[derive(Clone)]
pub(crate) struct Parcel {
    pub(crate) event: &'static str,
    pub(crate) call_id: String,
    bytes: Bytes,
    /// As a rule the signature alone.
    signatures: Vec<(&'static str, String)>,
}

impl Webhooks {
    pub(crate) fn new(
        client: Client,
        log: Arc<SimLog>,
        dice: Arc<Dice>,
        times: WebhookTimes,
        stop: CancellationToken,
    ) -> Self {
        Self { client, log, dice, times, stop, verified: Mutex::default() }
    }

    /// M1: asks the door to prove itself, once; later calls remember.
    ///
    /// # Errors
    /// It did not, in words.
    pub(crate) async fn verify(&self, door: &Door) -> Result<(), String> {
        if locked(&self.verified).contains(door) {
            return Ok(());
        }
        let challenge = (self.dice.number() % 9_000_000_000 + 1_000_000_000).to_string();
        let outcome = self.ask_challenge(door, &challenge).await;
        let details = outcome.clone().err().unwrap_or_default();
        self.log.add(Logged::Verification { passed: outcome.is_ok(), details });
        outcome?;
        locked(&self.verified).insert(door.clone());
        Ok(())
    }

    async fn ask_challenge(&self, door: &Door, challenge: &str) -> Result<(), String> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("hub.mode", "subscribe")
            .append_pair("hub.challenge", challenge)
            .append_pair("hub.verify_token", &door.verify_token)
            .finish();
        let url = format!("{}/webhooks/meta?{query}", door.node_url);
        let request = Request::builder().method(Method::GET).uri(&url).body(Bytes::new());
        let request = request.map_err(|e| format!("{} is no usable URL: {e}", door.node_url))?;
        let answer =
            client::ask(&self.client, request, self.times.answer, ANSWER_BYTES_MAX).await?;
        if answer.status == 200 && answer.body.as_ref() == challenge.as_bytes() {
            return Ok(());
        }
        Err(match answer.status {
            200 => "the verification was answered with something other than the challenge".into(),
            403 => "the node refused the verification (403): is its verify token the simulator's?"
                .into(),
            status => format!("the verification was answered {status}"),
        })
    }

    /// Makes the bytes of a webhook and signs them.
    pub(crate) fn parcel(
        &self,
        door: &Door,
        event: &'static str,
        call_id: &str,
        body: &Value,
        sign: Option<&Sign>,
    ) -> Parcel {
        let bytes = Bytes::from(body::on_the_wire(body, self.dice.coin()));
        let right = body::signature(&door.app_secret, &bytes);
        let signatures = match sign {
            None => vec![(SIGNATURE, right)],
            Some(Sign::Missing) => Vec::new(),
            Some(Sign::Wrong) => {
                vec![(SIGNATURE, body::signature("somebody else's secret", &bytes))]
            }
            Some(Sign::Upper) => {
                vec![(SIGNATURE, format!("sha256={}", right.replace("sha256=", "").to_uppercase()))]
            }
            Some(Sign::Twice) => vec![(SIGNATURE, right.clone()), (SIGNATURE, right)],
            Some(Sign::Sha1) => {
                vec![("x-hub-signature", body::signature_sha1(&door.app_secret, &bytes))]
            }
            Some(Sign::Secret(secret)) => vec![(SIGNATURE, body::signature(secret, &bytes))],
        };
        Parcel { event, call_id: call_id.to_owned(), bytes, signatures }
    }

    /// Delivers after `delay`, again and again until it is taken; `told` hears the outcome of each attempt.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        door: &Door,
        parcel: Parcel,
        delay: Duration,
        told: impl Fn(u16) + Send + Sync + 'static,
    ) {
        let (this, door) = (self.clone(), door.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.attempts(&door, &parcel, delay, told) => {}
            }
        });
    }

    async fn attempts(&self, door: &Door, parcel: &Parcel, delay: Duration, told: impl Fn(u16)) {
        tokio::time::sleep(delay).await;
        let (mut pause, mut spent) = (self.times.first_retry, Duration::ZERO);
        for attempt in 1.. {
            let status = self.attempt(door, parcel).await;
            let Parcel { event, call_id, .. } = parcel;
            self.log.add(Logged::Webhook {
                event: (*event).to_owned(),
                call_id: call_id.clone(),
                attempt,
                status,
            });
            told(status);
            if (200..300).contains(&status) || spent > TRY_FOR {
                return;
            }
            tokio::time::sleep(pause).await;
            spent += pause;
            pause *= 2;
        }
    }

    /// One delivery; 0: no answer.
    async fn attempt(&self, door: &Door, parcel: &Parcel) -> u16 {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/webhooks/meta", door.node_url))
            .header("content-type", "application/json")
            .header("user-agent", "facebookexternalua");
        for (name, value) in &parcel.signatures {
            request = request.header(*name, value);
        }
        let Ok(request) = request.body(parcel.bytes.clone()) else { return 0 };
        match client::ask(&self.client, request, self.times.answer, ANSWER_BYTES_MAX).await {
            Ok(answer) => answer.status,
            Err(why) => {
                tracing::debug!(why, "a webhook was not taken");
                0
            }
        }
    }
}
