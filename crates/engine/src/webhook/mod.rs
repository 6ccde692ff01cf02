//! Meta's webhook: verifies the signature over the raw bytes, decodes the items and processes each.
//!
//! `verify` checks the signature, `decode` converts the body to items, `route` passes the items in
//! order to admission and to the calls, and `http` implements the listener. [`Calls`] is its
//! interface to the live calls.

mod calls;
mod claims;
mod decode;
mod dedupe;
mod effect;
mod http;
mod in_flight;
mod items;
mod kind;
mod read;
mod route;
mod verify;

#[cfg(test)]
mod tests;

pub use calls::Calls;
pub use claims::{Claim, ClaimPurpose, HandOver, OtherNodes, SignedWebhook, Unreachable};
pub use decode::{BadJson, decode};
pub use effect::{Effect, ItemResult};
pub use http::{handle, handle_forwarded, handle_handed_over};
pub use items::{Connect, Content, Item, PermissionReply, Sdp};
pub use kind::Kind;
pub use route::{
    AccountNewsSink, CONNECT_AGAIN, Ledger, PendingWrite, WebhookConfig, WebhookHandler,
};
pub use verify::Secrets;
