//! Client of a simulated Meta, shared by `call` and `load`: finds the simulated Meta of a node
//! (`--node`), starts calls or loads over its `/_sim/` paths, reads their events, and can end them
//! early.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use super::exit::{SIGINT, SIGTERM};
use model::digits_of;
use sim::SimNumber;
use sim::client::{self, Client, Lines};
use sim::control::CallRequest;

/// Timeout of short requests. The node and the simulator are on this machine.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The discovery document of a node with a simulated Meta: `/.well-known/offhook.json`.
#[derive(Debug, Deserialize)]
pub(super) struct NodeDiscovery {
    graph_url: String,
    numbers: Vec<SimNumber>,
}

impl NodeDiscovery {
    /// Requests the discovery document of the node at this base URL. `None` if it has none.
    ///
    /// # Errors
    /// Prints an error and returns the exit code if the node cannot be reached or its document is
    /// unreadable.
    pub(super) async fn known(client: &Client, node: &str) -> Result<Option<Self>, Exit> {
        let request = Request::get(format!("{node}/.well-known/offhook.json")).body(Bytes::new());
        let request = request.map_err(|e| Exit::usage(format!("--node {node}: {e}")))?;
        let answer = client::fetch(client, request, READ_TIMEOUT, 1 << 20).await.map_err(|e| {
            Exit::failed(format_args!(
                "{e}\nstart a node with `offhook dev`, or name its address with --node URL"
            ))
        })?;
        if let Some(other) = answer.location.as_deref().and_then(|to| https_origin(node, to)) {
            return Err(Exit::usage(format!(
                "the node at {node} redirects to its https address: write --node {other}"
            )));
        }
        if answer.status != 200 {
            return Ok(None);
        }
        serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|e| Exit::failed(format!("unreadable discovery document from {node}: {e}")))
    }

    /// Like [`NodeDiscovery::known`], but requires a simulated Meta.
    ///
    /// # Errors
    /// As [`NodeDiscovery::known`], or if the node has no discovery document.
    pub(super) async fn of(client: &Client, node: &str) -> Result<Self, Exit> {
        Self::known(client, node).await?.ok_or_else(|| {
            Exit::usage(format!(
                "the node at {node} does not work with a simulated Meta: start it with `offhook dev`, or point its \
                 [meta].graph_url at the simulated Meta of one"
            ))
        })
    }

    /// Base URL of the simulated Meta: the Graph URL without its path.
    pub(super) fn sim_url(&self) -> Result<String, String> {
        url::Url::parse(&self.graph_url)
            .map(|u| u.origin().ascii_serialization())
            .map_err(|e| format!("the node's graph_url {} is not a URL: {e}", self.graph_url))
    }

    /// Sets the number to call in the request.
    pub(super) fn fill_in(&self, order: &mut CallRequest, to: Option<&str>) -> Result<(), String> {
        let is_demo = |number: &SimNumber| number.number == sim::world::NUMBER;
        let number = match (to, self.numbers.as_slice()) {
            (Some(to), all) => {
                order.to = Some(digits_of(to));
                // A number that the node does not have is called too: Meta may have it.
                all.iter().find(|n| Some(&n.number) == order.to.as_ref())
            }
            (None, [only]) => Some(only),
            (None, several) if several.iter().any(is_demo) => several.iter().find(|n| is_demo(n)),
            (None, []) => return Err("the node has no number to call; name one with --to".into()),
            (None, several) => {
                let all = several.iter().map(|n| n.number.as_str()).collect::<Vec<_>>().join(", ");
                return Err(format!("the node has several numbers; name one with --to: {all}"));
            }
        };
        if let Some(number) = number {
            order.to = Some(number.number.clone());
            order.phone_number_id = Some(number.phone_number_id.clone());
            order.waba = Some(number.waba.clone());
        }
        Ok(())
    }
}

/// The https address to which a node redirects requests to its plain one (`listen.https`). `None` if
/// it redirects elsewhere.
fn https_origin(node: &str, location: &str) -> Option<String> {
    let to = url::Url::parse(location).ok().filter(|to| to.scheme() == "https")?;
    node.starts_with("http://").then(|| to.origin().ascii_serialization())
}

/// Posts a request to a `/_sim/…` path of the simulated Meta. Returns the lines of the response,
/// each of at most `line_bytes_max` bytes.
///
/// # Errors
/// Prints an error and returns the exit code if the simulated Meta cannot be reached or refuses.
pub(super) async fn order(
    client: &Client,
    sim_url: &str,
    path: &str,
    order: &impl Serialize,
    line_bytes_max: usize,
) -> Result<Lines, Exit> {
    let body = serde_json::to_vec(order).map_err(Exit::failed)?;
    let request = Request::post(format!("{sim_url}{path}")).body(Bytes::from(body));
    let request = request.map_err(|e| Exit::usage(format_args!("{sim_url}: {e}")))?;
    let response = client::send(client, request).await;
    let response =
        response.map_err(|why| Exit::failed(format_args!("the simulated Meta: {why}")))?;
    let status = response.status();
    let mut lines = Lines::new(response.into_body(), line_bytes_max);
    if status != 200 {
        return Err(Exit::failed(refusal(lines.next().await.as_deref())));
    }
    Ok(lines)
}

fn refusal(body: Option<&[u8]>) -> String {
    let body: serde_json::Value =
        body.and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
    body["error"].as_str().unwrap_or("the simulated Meta refused the call").to_owned()
}

/// Requests an early end. A failure is ignored: either everything has ended, or a second Ctrl-C
/// ends it.
pub(super) async fn end_early(client: &Client, sim_url: &str, path: &str, what: &impl Serialize) {
    let Ok(body) = serde_json::to_vec(what) else { return };
    if let Ok(request) = Request::post(format!("{sim_url}{path}")).body(Bytes::from(body)) {
        let _ = client::fetch(client, request, READ_TIMEOUT, 1 << 16).await;
    }
}

/// Creates the client for requests to nodes and the simulated Meta.
///
/// # Errors
///
/// Returns the exit code and its message if the TLS library rejects its configuration.
pub(super) fn http_client() -> Result<Client, Exit> {
    client::client().map_err(|e| Exit::failed(format_args!("could not create an HTTP client: {e}")))
}

/// SIGINT and SIGTERM. The first signal ends the work gracefully, the second one cancels it.
pub(super) struct StopSignals(Signal, Signal);

impl StopSignals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// Prints an error and returns the exit code if the handlers cannot be installed.
    pub(super) fn new() -> Result<Self, Exit> {
        let signals = signal(SignalKind::interrupt())
            .and_then(|i| Ok(Self(i, signal(SignalKind::terminate())?)));
        signals.map_err(|e| Exit::failed(format_args!("could not listen for signals: {e}")))
    }

    /// Waits for the next signal. Returns its number.
    pub(super) async fn requested(&mut self) -> u8 {
        tokio::select! {
            _ = self.0.recv() => SIGINT,
            _ = self.1.recv() => SIGTERM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeDiscovery, https_origin};
    use sim::control::CallRequest;

    fn discovery(numbers: &str) -> NodeDiscovery {
        let text = format!(
            r#"{{"version":"0.1.0","graph_url":"http://127.0.0.1:4000/v23.0","numbers":[{numbers}]}}"#
        );
        serde_json::from_str(&text).expect("discovery")
    }

    #[test]
    fn a_node_with_https_redirects_to_its_address() {
        let origin = |node, to| https_origin(node, to);
        let to = "https://calls.example.com:8443/.well-known/offhook.json";
        let expected = Some("https://calls.example.com:8443".to_owned());
        assert_eq!(origin("http://127.0.0.1:8080", to), expected);
        assert_eq!(origin("http://127.0.0.1:8080", "/elsewhere"), None);
        assert_eq!(origin("https://calls.example.com", to), None, "it is known there");
    }

    const ONE: &str = r#"{"number":"918035737458","phone_number_id":"1","waba":"2"}"#;
    const TWO: &str = r#"{"number":"5511951230001","phone_number_id":"3","waba":"2"}"#;

    #[test]
    fn the_number_to_call_is_the_only_one_or_named() {
        let mut order = CallRequest::default();
        let node = discovery(ONE);
        assert_eq!(node.sim_url().as_deref(), Ok("http://127.0.0.1:4000"));
        node.fill_in(&mut order, None).expect("the only one");
        assert_eq!(
            (order.to.as_deref(), order.phone_number_id.as_deref()),
            (Some("918035737458"), Some("1"))
        );

        let node = discovery(&format!("{TWO},{ONE}"));
        node.fill_in(&mut order, None).expect("the demo number");
        assert_eq!(order.to.as_deref(), Some("918035737458"));
        let other = ONE.replace("918035737458", "918035737459");
        let node = discovery(&format!("{other},{TWO}"));
        let mut order = CallRequest::default();
        assert!(node.fill_in(&mut order, None).is_err_and(|e| e.contains("5511951230001")));
        node.fill_in(&mut order, Some("+55 11 95123-0001")).expect("one of them");
        assert_eq!(order.phone_number_id.as_deref(), Some("3"));
        let mut order = CallRequest::default();
        node.fill_in(&mut order, Some("4915100000000")).expect("Meta may have it");
        assert_eq!((order.to.as_deref(), order.phone_number_id), (Some("4915100000000"), None));
        assert!(discovery("").fill_in(&mut CallRequest::default(), None).is_err());
    }
}
