//! The door Meta knocks at: signature over the raw bytes, typed items, and what becomes of each.
//!
//! `verify` says whether the bytes are Meta's, `decode` reads them without ever refusing one item for another,
//! `route` takes the items in order to admission and to the calls, `http` is the listener's side of it. What a
//! call does with its events is not known here: see [`Calls`].

mod decode;
mod dedupe;
mod http;
mod kind;
mod read;
mod route;
mod verify;

#[cfg(test)]
mod tests;

pub use decode::{BadJson, CallKey, Connect, Item, PermissionReply, Sdp, What, decode};
pub use http::handle;
pub use kind::Kind;
pub use route::{
    Busy, CONNECT_AGAIN, Calls, ChangesHeard, Door, DoorConfig, Effect, Full, Handled, Heard, Incoming, Known, Ledger,
    Said, Waiting,
};
pub use verify::Secrets;
