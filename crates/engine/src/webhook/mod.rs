//! The door Meta knocks at: signature over the raw bytes, typed items, and what becomes of each.
//!
//! `verify` says whether the bytes are Meta's, `decode` reads them without ever refusing one item for another,
//! `route` takes the items in order to admission and to the calls, `http` is the listener's side of it. What a
//! call does with its events is not known here: see [`Calls`].

mod calls;
mod decode;
mod dedupe;
mod effect;
mod http;
mod items;
mod kind;
mod read;
mod route;
mod verify;

#[cfg(test)]
mod tests;

pub use calls::{Busy, Calls, Full, Heard, Incoming, Known, Said};
pub use decode::{BadJson, decode};
pub use effect::{Effect, Handled};
pub use http::handle;
pub use items::{CallKey, Connect, Item, PermissionReply, Sdp, What};
pub use kind::Kind;
pub use route::{CONNECT_AGAIN, ChangesHeard, Door, DoorConfig, Ledger, Waiting};
pub use verify::Secrets;
