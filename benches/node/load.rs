//! Generates load on an implementation of Meta's API: orders it from the simulated Meta in this
//! process and reads the summary.

use bytes::Bytes;
use http::Request;
use sim::client::{Client, Lines, send};
use sim::control::CallRequest;
use sim::load::{LoadEvent, LoadRequest, Summary};
use sim::world;

/// Parameters of a load.
#[derive(Clone, Copy)]
pub(crate) struct LoadOptions {
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) calls: u64,
    pub(crate) hold_s: f64,
    pub(crate) media: bool,
}

/// Runs a load against `target`, a base URL. Fails unless every call is answered.
pub(crate) async fn run(
    client: &Client,
    sim: &str,
    target: &str,
    load_options: LoadOptions,
) -> Result<Summary, String> {
    match run_unchecked(client, sim, target, load_options).await? {
        summary if summary.answered == load_options.calls => Ok(summary),
        summary => Err(format!("not every call was answered: {summary:?}")),
    }
}

/// Runs a load against `target`, a base URL, and ignores failed calls.
pub(crate) async fn run_unchecked(
    client: &Client,
    sim: &str,
    target: &str,
    load_options: LoadOptions,
) -> Result<Summary, String> {
    run_order(client, sim, order(target, load_options)).await
}

/// Converts `load_options` to a request for the simulated Meta.
pub(crate) fn order(target: &str, load_options: LoadOptions) -> LoadRequest {
    LoadRequest {
        id: uuid::Uuid::new_v4().to_string(),
        rate: load_options.rate,
        calls: load_options.calls,
        media: load_options.media,
        call: CallRequest {
            to: Some(world::NUMBER.to_owned()),
            phone_number_id: Some(world::PHONE_NUMBER_ID.to_owned()),
            waba: Some(world::WABA.to_owned()),
            node: Some(target.to_owned()),
            hold_s: Some(load_options.hold_s),
            ..CallRequest::default()
        },
    }
}

/// Runs a load to its end and ignores failed calls.
pub(crate) async fn run_order(
    client: &Client,
    sim: &str,
    order: LoadRequest,
) -> Result<Summary, String> {
    let body = serde_json::to_vec(&order).map_err(|e| e.to_string())?;
    let request = Request::post(format!("{sim}/_sim/load"))
        .body(Bytes::from(body))
        .map_err(|e| e.to_string())?;
    let mut lines = Lines::new(send(client, request).await?.into_body(), 1 << 20);
    while let Some(line) = lines.next().await {
        match serde_json::from_slice(&line) {
            Ok(LoadEvent::Summary(summary)) => return Ok(summary),
            Ok(LoadEvent::Progress(_)) => {}
            Err(e) => return Err(format!("{e}: {}", String::from_utf8_lossy(&line))),
        }
    }
    Err("the load broke off".to_owned())
}
