//! Client of the number API for commands with `--node` and `--api-key`.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::target::{NodeArgs, SourceArgs};
use super::{Exit, print};
use egress::{BodyPolicy, Egress, EgressConfig, EgressRequest, EgressResponse, Guard};
use model::Secret;
use model::is_loopback;
use sim::world;

/// A client of one node.
pub(super) struct NodeApi {
    base: String,
    key: Secret,
    egress: Box<Egress>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for a response. The node may have to query Meta, which takes longer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Maximum number of items of a page of the API.
const PAGE_MAX: usize = 200;

impl NodeApi {
    /// Reads all pages of a list of the API.
    pub(super) async fn all(&self, list: &str, q: Option<&str>) -> Result<Vec<Value>, Exit> {
        self.first(usize::MAX, list, q).await
    }

    /// Reads the first `max` items of a list of the API.
    pub(super) async fn first(
        &self,
        max: usize,
        list: &str,
        q: Option<&str>,
    ) -> Result<Vec<Value>, Exit> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let limit = max.saturating_sub(items.len()).min(PAGE_MAX);
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string()).append_pair("cursor", &cursor);
            if let Some(q) = q {
                query.append_pair("q", q);
            }
            let path = format!("{list}?{}", query.finish());
            let page = self.ask(Method::GET, &path, None).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) if next != cursor && items.len() < max => next.clone_into(&mut cursor),
                _ => return Ok(items),
            }
        }
    }

    /// A client of the node that the options select.
    ///
    /// # Errors
    /// As [`NodeArgs::find`] and [`NodeApi::at`].
    pub(super) fn of(args: &NodeArgs) -> Result<Self, Exit> {
        let (node, key) = args.find()?;
        Self::at(&node, key)
    }

    /// A client of the node of `--node`.
    ///
    /// # Errors
    /// As [`NodeApi::at`], or if the options name none.
    pub(super) fn of_source(args: &SourceArgs) -> Result<Self, Exit> {
        let node = args.node.as_ref().ok_or_else(|| Exit::usage("--node names no node"))?;
        Self::at(node, args.api_key.clone())
    }

    /// Creates a client of the node at this address. On loopback, the key defaults to that of
    /// `offhook dev`.
    ///
    /// # Errors
    /// Prints an error and returns the exit code if a key is missing.
    pub(super) fn at(node: &url::Url, key: Option<Secret>) -> Result<Self, Exit> {
        let key = match key {
            Some(key) => key,
            None if is_loopback(node) => Secret::new(world::API_KEY),
            None => {
                return Err(Exit::usage(
                    "the node needs an API key: --api-key KEY, or OFFHOOK_API_KEY",
                ));
            }
        };
        // The user names the node, so any address is allowed.
        let egress = Egress::new(EgressConfig::new(Guard::new(true, Vec::new())));
        let egress = egress.map_err(|e| Exit::failed(format_args!("could not set up TLS: {e}")))?;
        Ok(Self {
            base: node.as_str().trim_end_matches('/').to_owned(),
            key,
            egress: Box::new(egress),
        })
    }

    /// Base URL of the node.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request to a path below `/api/v1/` and returns the body.
    ///
    /// # Errors
    /// Prints the error and returns the exit code if the node cannot be reached or refuses.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Exit> {
        self.try_ask(method, path, body).await?.map_err(Exit::failed)
    }

    /// Like [`NodeApi::ask`], but returns a refusal as an inner error instead of printing it.
    ///
    /// # Errors
    /// Prints the error and returns the exit code if the node cannot be reached.
    pub(super) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Value, String>, Exit> {
        let request =
            ApiRequest { method, path, body, within: READ_TIMEOUT, max: ANSWER_BYTES_MAX };
        let answer = self.send(request).await?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(match answer.status.is_success() {
            true => Ok(body),
            false => Err(print::plain(&refusal(answer.status.as_u16(), &body, &self.base))),
        })
    }

    /// Gets a path below `/api/v1/`. `None` if the node answers 404.
    ///
    /// # Errors
    /// Prints the error and returns the exit code if the node cannot be reached or refuses.
    pub(super) async fn get(
        &self,
        path: &str,
        within: Duration,
        max: usize,
    ) -> Result<Option<Bytes>, Exit> {
        let answer =
            self.send(ApiRequest { method: Method::GET, path, body: None, within, max }).await?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            status => {
                let body = serde_json::from_slice(&answer.body).unwrap_or_default();
                Err(Exit::failed(print::plain(&refusal(status, &body, &self.base))))
            }
        }
    }

    async fn send(&self, request: ApiRequest<'_>) -> Result<EgressResponse, Exit> {
        let base = &self.base;
        let url = self.egress.url(&format!("{base}/api/v1/{}", request.path));
        let url = url.map_err(|e| Exit::usage(format_args!("--node {base}: {e}")))?;
        let mut key = HeaderValue::try_from(self.key.reveal())
            .map_err(|_| Exit::usage("the API key has invalid characters; see --api-key"))?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), key)]);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = EgressRequest {
            method: request.method,
            url: &url,
            headers,
            body: request.body.map(|body| Bytes::from(body.to_string())).unwrap_or_default(),
            connect: CONNECT_TIMEOUT,
            read: request.within,
            body_policy: BodyPolicy::Always { max: request.max },
        };
        self.egress.request(request).await.map_err(|e| {
            let remedy = match e.to_string().contains("InvalidContentType") {
                // The record is no TLS: the port answers in plain text.
                true => "the port speaks http: write --node http://…",
                false => "start it, or name its address with --node URL",
            };
            Exit::failed(format_args!("could not reach the node at {base}: {e}\n{remedy}"))
        })
    }
}

/// A request, with the timeout and the size limit of its response.
struct ApiRequest<'a> {
    method: Method,
    path: &'a str,
    body: Option<&'a Value>,
    within: Duration,
    max: usize,
}

/// A refusal as one line.
fn refusal(status: u16, body: &Value, base: &str) -> String {
    let error = &body["error"];
    if error["code"].is_number() {
        return format!(
            "{base} answers like Meta's Graph API, so it is not a node; name its address with --node URL"
        );
    }
    match (error["message"].as_str(), error["field"].as_str(), error["meta"]["code"].as_i64()) {
        (None, ..) => format!("{base} answered {status}"),
        (Some(_), ..) if status == 401 => {
            format!("{base} does not accept this API key; see --api-key")
        }
        (Some(message), Some(field), None) if message.starts_with(field) => message.to_owned(),
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
    fn prints_a_refusal_in_the_words_of_the_node() {
        let no = |status, body: serde_json::Value| refusal(status, &body, "http://n");
        assert_eq!(no(502, json!(null)), "http://n answered 502");
        assert_eq!(
            no(401, json!({"error": {"message": "x"}})),
            "http://n does not accept this API key; see --api-key"
        );
        let graph = json!({"error": {"message": "Invalid OAuth access token", "code": 190}});
        assert!(no(401, graph).contains("not a node"));
        let named = json!({"error": {"message": "pin must be six digits", "field": "pin"}});
        assert_eq!(no(400, named), "pin must be six digits");
        let error = json!({"error": {"message": "no such", "field": "pin", "meta": {"code": 190}}});
        assert_eq!(no(422, error), "pin: no such (Meta's code 190)");
        assert_eq!(
            no(409, json!({"error": {"message": "busy", "field": null, "meta": null}})),
            "busy"
        );
    }
}
