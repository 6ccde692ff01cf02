//! Load on whoever speaks Meta's API: orders it from the simulated Meta of this process and reads its summary.

use bytes::Bytes;
use http::Request;
use sim::client::{Client, Lines, send};
use sim::control::CallRequest;
use sim::load::{LoadEvent, LoadRequest, Summary};
use sim::world;

/// What a load is to be.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Calls a second.
    pub(crate) rate: f64,
    pub(crate) calls: u64,
    pub(crate) hold_s: f64,
    pub(crate) media: bool,
}

/// Runs a load against `target` (a base URL) to its end: every call is answered.
pub(crate) async fn run(
    client: &Client,
    sim: &str,
    target: &str,
    wanted: Wanted,
) -> Result<Summary, String> {
    match told(client, sim, target, wanted).await? {
        summary if summary.answered == wanted.calls => Ok(summary),
        summary => Err(format!("not every call was answered: {summary:?}")),
    }
}

/// Runs a load against `target` (a base URL) to its end, whatever becomes of its calls.
pub(crate) async fn told(
    client: &Client,
    sim: &str,
    target: &str,
    wanted: Wanted,
) -> Result<Summary, String> {
    told_of(client, sim, order(target, wanted)).await
}

/// What `wanted` is as an order.
pub(crate) fn order(target: &str, wanted: Wanted) -> LoadRequest {
    LoadRequest {
        id: uuid::Uuid::new_v4().to_string(),
        rate: wanted.rate,
        calls: wanted.calls,
        media: wanted.media,
        call: CallRequest {
            to: Some(world::NUMBER.to_owned()),
            phone_number_id: Some(world::PHONE_NUMBER_ID.to_owned()),
            waba: Some(world::WABA.to_owned()),
            node: Some(target.to_owned()),
            hold_s: Some(wanted.hold_s),
            ..CallRequest::default()
        },
    }
}

/// Runs an ordered load to its end, whatever becomes of its calls.
pub(crate) async fn told_of(
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
