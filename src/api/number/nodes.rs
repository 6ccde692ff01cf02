//! `/api/v1/nodes/`: the state of the node, and draining. Only an owner of the node's only main
//! account may use it, because the counters of a node cover all accounts that share it.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::live::name_silent;
use super::super::routes::{Operation, ResponseSpec};
use super::super::{NodeState, NodeStatus};
use super::request::ApiRequest;
use super::response::{accepted, no_content, ok};
use super::route::{Route, error, handler};
use model::Role;
use store::ForgetOutcome;

const NO_NODE: &str = "no such node; GET /api/v1/nodes/ (`offhook nodes list`) lists the nodes";
const SHARED: ResponseSpec = error(
    403,
    "Several main accounts share the node: its operator uses /metrics and signals instead",
);

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/nodes/",
            "listNodes",
            "List the nodes, this one first: state, live calls, requests to Graph and to your \
             servers; for an owner of the node's only main account. The header X-Offhook-Partial \
             names nodes that do not answer",
        )
        .responses(&[ResponseSpec::json::<NodeList>(200, "All nodes"), SHARED]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(drain),
        operation: Operation::post(
            "/api/v1/nodes/{node_id}/drain/",
            "drainNode",
            "Drain a node: it refuses new calls, and live calls continue. Only a restart ends the drain",
        )
        .responses(&[ResponseSpec::json::<DrainingNode>(202, "Draining"), SHARED]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(forget),
        operation: Operation::post(
            "/api/v1/nodes/{node_id}/forget/",
            "forgetNode",
            "Forget a node of the fleet that is lost for good with its disk: its recordings without \
             a copy are deleted, those under way are reported as failed, and nothing waits for it",
        )
        .responses(&[
            ResponseSpec::empty(204, "Forgotten"),
            SHARED,
            error(409, "`node_runs`: its process runs; `node_ends`: its calls are being ended"),
        ]),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
struct NodeList {
    items: Vec<NodeStatus>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NodeDrains)]
struct DrainingNode {
    id: String,
    state: NodeState,
    /// Calls that are still live.
    live_calls: Option<usize>,
}

async fn nodes(request: &ApiRequest) -> Result<Vec<NodeStatus>, ApiError> {
    let shared = "this node serves several main accounts: its operator has /metrics, and drains it \
        with SIGTERM";
    request.check_operator(shared)?;
    request.api().operator.nodes().await.ok_or(ApiError::forbidden(shared))
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let items = nodes(&request).await?;
    let is_silent = |node: &&NodeStatus| node.state == NodeState::Unreachable;
    let silent: Vec<&str> = items.iter().filter(is_silent).map(|node| node.id.as_str()).collect();
    let mut response = ok(&NodeList { items: items.clone() });
    name_silent(&mut response, &silent);
    Ok(response)
}

async fn drain(request: ApiRequest) -> Result<Response, ApiError> {
    let id = request.parameter("node_id");
    let node = nodes(&request).await?.into_iter().find(|node| node.id == id);
    let NodeStatus { id, live_calls, .. } = node.ok_or(ApiError::NotFound(NO_NODE))?;
    match request.api().operator.drain(&id) {
        true => Ok(accepted(&DrainingNode { id, state: NodeState::Draining, live_calls })),
        false => Err(ApiError::NotFound(NO_NODE)),
    }
}

async fn forget(request: ApiRequest) -> Result<Response, ApiError> {
    // Only who may see the nodes.
    let listed = nodes(&request).await?;
    let id = request.parameter("node_id");
    let conflict = |code, message: &'static str, retry_after| {
        Err(ApiError::Conflict { code, message: message.into(), retry_after })
    };
    let forgotten = request.api().operator.forget(id).await;
    match forgotten.map_err(ApiError::store("forget a node"))? {
        ForgetOutcome::Forgotten => Ok(no_content()),
        // A node outside a fleet is listed, but the store does not know it.
        ForgetOutcome::Unknown if listed.iter().any(|node| node.id == id) => {
            conflict("node_runs", "the node runs, and is not part of a fleet", None)
        }
        ForgetOutcome::Unknown => Err(ApiError::NotFound(NO_NODE)),
        ForgetOutcome::Running => {
            conflict("node_runs", "the node is running or has just ended: stop it first", None)
        }
        ForgetOutcome::Ending => {
            conflict("node_ends", "the node's calls are being ended: try again", Some(10))
        }
    }
}
