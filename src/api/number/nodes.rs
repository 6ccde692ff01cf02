//! `/api/v1/nodes/`: the nodes, how they do, and the drain of one. For the owner of the only main account: what a node
//! counts is of all who share it (R16).

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Content, Route, of};
use super::super::{NodeState, NodeStatus, error};
use super::ask::{self, Asked, Fault};
use store::Scope;

const SHARED: Answer = Answer {
    status: 403,
    what: "Several main accounts share the node: its operator has /metrics and signals",
    content: Content::Json(of::<error::OurBody<'static>>),
};

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/nodes/",
        id: "listNodes",
        summary: "The nodes, this one first: state, live calls, exchanges with Graph and with your servers; for an owner of the node's \
            only main account",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "All of them", content: Content::Json(of::<List>) },
            SHARED,
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/nodes/{node_id}/drain/",
        id: "drainNode",
        summary: "Drains a node: it rejects new calls and is not ready; live calls go on. Only a restart ends that",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 202, what: "It drains", content: Content::Json(of::<Drains>) },
            SHARED,
        ],
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(super) struct List {
    items: Vec<NodeStatus>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NodeDrains)]
pub(super) struct Drains {
    id: String,
    state: NodeState,
    /// Calls that go on.
    live_calls: usize,
}

fn nodes(asked: &Asked) -> Result<Vec<NodeStatus>, Fault> {
    if !matches!(asked.scope(), Scope::Main(_)) {
        return Err(ask::forbidden("this is for an owner of a main account"));
    }
    let shared = "this node serves several main accounts: its operator has /metrics, and drains it by SIGTERM";
    asked.api().operator.nodes().ok_or_else(|| ask::forbidden(shared))
}

/// `GET /nodes/`.
pub(super) fn list(asked: &Asked) -> Result<Response, Fault> {
    Ok(error::body(StatusCode::OK, &List { items: nodes(asked)? }))
}

/// `POST /nodes/{id}/drain/`.
pub(super) fn drain(asked: &Asked, node: &str) -> Result<Response, Fault> {
    let known = nodes(asked)?
        .into_iter()
        .find(|one| one.id == node)
        .ok_or_else(|| ask::missing("there is no such node"))?;
    if !asked.api().operator.drain(&known.id) {
        return Err(ask::missing("there is no such node"));
    }
    let NodeStatus { id, live_calls, .. } = known;
    Ok(error::body(StatusCode::ACCEPTED, &Drains { id, state: NodeState::Draining, live_calls }))
}
