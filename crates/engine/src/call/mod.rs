//! Calls: the pure [`machine`] decides, and the modules here execute its outputs.
//!
//! | modules | task |
//! |---|---|
//! | `shell`, `mailbox`, `call_clock` | the task of a call: runs the machine and executes its outputs |
//! | `registry`, `live_call`, `binding` | the live calls, and Meta's ids of them |
//! | `dialer`, `queues` | outbound calls that wait for calls per second |
//! | `handover` | hands live calls over to another process of the node |
//! | `orphan`, `farewell`, `rejects` | end orphans, and calls that Meta still holds |
//! | `outbox`, `links` | deliver stored callbacks |
//! | `consent` | call permissions, synchronised with Meta |
//! | `phones`, `web`, `captions`, `caption` | registered endpoints, their calls and live captions |
//! | `rooms`, `seats` | conferences and multi-party calls, also of other nodes |
//! | `recordings`, `streams`, `hearing` | recordings, stream status, speech recognition |
//! | `author`, `drafts` | documents that the node writes itself |
//! | `live`, `trace`, `course`, `waterfall` | event log, timings, audio quality, timeline |
//! | `walk` | runs a machine without a call |

pub mod author;
pub mod binding;
pub mod call_clock;
pub mod caption;
mod captions;
pub mod consent;
pub mod course;
pub mod dialer;
pub mod drafts;
mod failed;
pub mod farewell;
pub mod handover;
mod hearing;
pub mod links;
pub mod live;
mod live_call;
mod mailbox;
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
pub mod seats;
pub mod services;
mod shell;
mod sound;
pub mod streams;
pub mod trace;
mod turns;
pub mod walk;
pub mod waterfall;
pub mod web;

pub use binding::CallEvent;
pub use consent::PermissionService;
pub use dialer::Dialer;
pub use failed::FETCH_FILE;
pub use live_call::{LiveCall, SendOutcome};
pub use outbox::{GivenUp, Outbox, OutboxLimits, QueueNews};
pub use recordings::{Recordings, RecordingsConfig};
pub use registry::Registry;
pub use rejects::RejectThread;
pub use services::{CallSettings, Services};
#[cfg(any(test, feature = "test-util"))]
pub use shell::PANICS;
