//! A node's own API, asked by commands: `--node` and `--api-key`, one request, its answer or what the node said was wrong.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::{Exit, print};
use egress::{BodyPolicy, Egress, EgressConfig, EgressRequest, EgressResponse, Guard};
use model::Secret;
use model::is_loopback;
use sim::world;

/// Which node.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    /// The node's base URL
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = super::http_url)]
    pub node: url::Url,
    /// An API key of the node's [default for a node on loopback: that of `offhook dev`]
    #[arg(
        long,
        alias = "api-key",
        value_name = "KEY",
        env = "OFFHOOK_API_KEY",
        hide_env_values = true
    )]
    pub key: Option<Secret>,
}

/// A node that is asked.
pub(super) struct NodeApi {
    base: String,
    key: Secret,
    egress: Box<Egress>,
}

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What is asked may ask Meta in its turn.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 4 << 20;

impl NodeApi {
    /// # Errors
    /// No key for a node elsewhere; said already.
    pub(super) fn of(args: &NodeArgs) -> Result<Self, Exit> {
        Self::at(&args.node, args.key.clone())
    }

    /// The node at this address, with this key; on loopback that of `offhook dev` will do.
    ///
    /// # Errors
    /// No key for a node elsewhere.
    pub(super) fn at(node: &url::Url, key: Option<Secret>) -> Result<Self, Exit> {
        let key = match key {
            Some(key) => key,
            None if is_loopback(node) => Secret::new(world::API_KEY),
            None => {
                return Err(Exit::usage(
                    "--node needs an API key: --api-key KEY, or OFFHOOK_API_KEY",
                ));
            }
        };
        // One's own node may be anywhere.
        let egress = Egress::new(EgressConfig::new(Guard::new(true, Vec::new())));
        let egress = egress.map_err(|e| Exit::failed(format_args!("could not set up TLS: {e}")))?;
        Ok(Self {
            base: node.as_str().trim_end_matches('/').to_owned(),
            key,
            egress: Box::new(egress),
        })
    }

    /// Where it is.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks, behind `/api/v1/`; a no is told as the node words it.
    ///
    /// # Errors
    /// Not reached, or a no; said already.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Exit> {
        self.put_question(method, path, body).await?.map_err(Exit::failed)
    }

    /// The same, and a no is the caller's to tell.
    ///
    /// # Errors
    /// Not reached; said already.
    pub(super) async fn put_question(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Value, String>, Exit> {
        let asking = Asking { method, path, body, within: ANSWER_WITHIN, max: ANSWER_BYTES_MAX };
        let answer = self.send(asking).await?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(match answer.status.is_success() {
            true => Ok(said),
            false => Err(print::plain(&refusal(answer.status.as_u16(), &said, &self.base))),
        })
    }

    /// What is at the path behind `/api/v1/`; none where the node has nothing there.
    ///
    /// # Errors
    /// Not reached, or another no; said already.
    pub(super) async fn get(
        &self,
        path: &str,
        within: Duration,
        max: usize,
    ) -> Result<Option<Bytes>, Exit> {
        let answer =
            self.send(Asking { method: Method::GET, path, body: None, within, max }).await?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            status => {
                let said = serde_json::from_slice(&answer.body).unwrap_or_default();
                Err(Exit::failed(print::plain(&refusal(status, &said, &self.base))))
            }
        }
    }

    async fn send(&self, asking: Asking<'_>) -> Result<EgressResponse, Exit> {
        let base = &self.base;
        let url = self.egress.url(&format!("{base}/api/v1/{}", asking.path));
        let url = url.map_err(|e| Exit::usage(format_args!("--node {base}: could not {e}")))?;
        let mut key = HeaderValue::try_from(self.key.reveal())
            .map_err(|_| Exit::usage("the API key can't stand in a header: see --api-key"))?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), key)]);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let ask = EgressRequest {
            method: asking.method,
            url: &url,
            headers,
            body: asking.body.map(|body| Bytes::from(body.to_string())).unwrap_or_default(),
            connect: CONNECT_WITHIN,
            read: asking.within,
            body_policy: BodyPolicy::Always { max: asking.max },
        };
        self.egress.request(ask).await.map_err(|e| Exit::failed(format_args!("could not {e}")))
    }
}

/// A request, and how long and how large its answer may be.
struct Asking<'a> {
    method: Method,
    path: &'a str,
    body: Option<&'a Value>,
    within: Duration,
    max: usize,
}

/// A no in one line.
fn refusal(status: u16, said: &Value, base: &str) -> String {
    let error = &said["error"];
    match (error["message"].as_str(), error["field"].as_str(), error["meta"]["code"].as_i64()) {
        (None, ..) => format!("{base} answered {status}"),
        (Some(_), ..) if status == 401 => {
            format!("{base} does not know this API key: see --api-key")
        }
        (Some(message), Some(field), None) => format!("{field}: {message}"),
        (Some(message), Some(field), Some(meta)) => {
            format!("{field}: {message} (Meta's code {meta})")
        }
        (Some(message), None, Some(meta)) => format!("{message} (Meta's code {meta})"),
        (Some(message), None, None) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::refusal;
    use serde_json::json;

    #[test]
    fn a_no_is_told_as_the_node_words_it() {
        let no = |status, said: serde_json::Value| refusal(status, &said, "http://n");
        assert_eq!(no(502, json!(null)), "http://n answered 502");
        assert_eq!(
            no(401, json!({"error": {"message": "x"}})),
            "http://n does not know this API key: see --api-key"
        );
        let error = json!({"error": {"message": "no such", "field": "pin", "meta": {"code": 190}}});
        assert_eq!(no(422, error), "pin: no such (Meta's code 190)");
        assert_eq!(
            no(409, json!({"error": {"message": "busy", "field": null, "meta": null}})),
            "busy"
        );
    }
}
