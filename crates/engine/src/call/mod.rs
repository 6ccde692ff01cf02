//! A call: the pure [`machine`] that decides, and the thin rooms that run it.
//!
//! `shell` carries the machine's outputs out and facts in, `step` tells the machine the time, `dialer` has the calls that
//! are to be placed (`queues` decides which goes when), `registry` knows the live calls and `binding` what Meta calls them, `log` writes the event log down,
//! `trace` the lines in it that tell where the time went, `waterfall` reads both, `replay` runs one again; `course` is how the sound went, stretch by stretch. `outbox` delivers
//! the callbacks that the store holds, `farewell` tells Graph of the calls that it may still hold, `orphan` ends those of a
//! process that died, `consent` keeps what users allow in step with Meta. `phones` knows where endpoints are registered,
//! `web` has their calls and `captions` what is said in them as text, `rooms` the calls that hear each other, `streams` what is told of streams. `recordings` keeps what is recorded of calls. `walk` runs a machine
//! without a call. Media,
//! Graph, fetching and the store are services below.

pub mod author;
pub mod binding;
pub mod captions;
pub mod consent;
pub mod course;
pub mod dialer;
pub mod drafts;
pub mod farewell;
mod hearing;
pub mod links;
pub mod live;
pub mod news;
pub mod orphan;
pub mod outbox;
pub mod phones;
pub mod queues;
mod record;
pub mod recordings;
pub mod registry;
mod rejects;
pub mod rooms;
pub mod services;
mod shell;
mod sound;
pub mod step;
pub mod streams;
pub mod trace;
mod turns;
pub mod walk;
pub mod waterfall;
pub mod web;

pub use binding::CallEvent;
pub use consent::PermissionDesk;
pub use dialer::Dialer;
pub use outbox::{GivenUp, Outbox, OutboxLimits};
pub use recordings::{Recordings, RecordingsConfig};
pub use registry::{LiveCall, Registry, Told};
pub use rejects::RejectThread;
pub use services::{CallSettings, Services};
#[cfg(any(test, feature = "test-util"))]
pub use shell::PANICS;
