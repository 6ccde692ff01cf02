//! The interface between the webhook handler and the other nodes of a fleet.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use model::CallUuid;
use store::Birth;
use uuid::Uuid;

use crate::call::registry::CallKey;

/// The other nodes of a fleet. Meta may deliver a webhook several times, and to any node.
pub trait OtherNodes: Send + Sync {
    /// Claims an inbound call for this node, before any request to Meta. If the database can't be
    /// reached, the node decides alone.
    fn claim(&self, key: CallKey, purpose: ClaimPurpose) -> BoxFuture<'_, Claim>;

    /// Gives up the claim of a call that this node has neither begun nor rejected, if there is one. Meta
    /// delivers the call again, and any node may take it then.
    fn withdraw(&self, key: &CallKey);

    /// Reports that Meta has answered the rejection of a call. Until then, another node rejects the
    /// call if this one dies.
    fn rejected(&self, key: &CallKey);

    /// Returns the node that has a live call. `named` is the outbound call in an event's opaque
    /// data. `None` if no other node has the call.
    fn owner(
        &self,
        key: CallKey,
        named: Option<CallUuid>,
    ) -> BoxFuture<'_, Result<Option<Uuid>, Unreachable>>;

    /// Forwards a webhook to another node, which processes the events of its calls.
    fn forward(&self, to: Uuid, webhook: SignedWebhook) -> BoxFuture<'_, Result<(), Unreachable>>;

    /// Whether the database does not answer this node, so that it can't claim calls.
    fn is_cut_off(&self) -> bool;

    /// Whether this node has just started and has no units yet, so that it would find each number
    /// full.
    fn is_starting(&self) -> bool;

    /// Hands the inbound calls or the messages of a webhook over to any other node that takes them.
    fn hand_over(
        &self,
        webhook: SignedWebhook,
        reason: HandOver,
    ) -> BoxFuture<'_, Result<(), Unreachable>>;
}

/// What a node hands over to another one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// Inbound calls: it takes none at the moment.
    NotAdmitted,
    /// Inbound calls: it holds no units for them, and no node gets more while the database is away.
    NoUnits,
    /// Messages, their statuses and permissions: in its journal, they would be behind newer ones of
    /// the same conversation that other nodes store.
    Messages,
}

/// What a node claims a call for.
#[derive(Clone, Debug)]
pub enum ClaimPurpose {
    /// To begin it, with what another node needs to end it.
    Begin(Box<Birth>),
    /// To reject it.
    Reject,
    /// To remember that it is over.
    Bury,
}

/// The result of [`OtherNodes::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The call belongs to this node.
    Ours,
    /// Another node has the call.
    Theirs(Uuid),
    /// The call is over: it was rejected, or its `terminate` came first.
    Over,
    /// This node may not take calls at the moment.
    Denied,
}

/// The database or another node does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// A webhook as sent by Meta, so that another node can verify it.
#[derive(Clone, Debug)]
pub struct SignedWebhook {
    pub body: Bytes,
    /// The headers, including the signature.
    pub headers: HeaderMap,
}
