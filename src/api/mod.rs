//! HTTP in, one typed command or query, HTTP out; a file a resource. Status codes are decided in `error`.
//!
//! `server` is the public listener; `auth` says who asks; `plivo` and `number` are the two APIs. They ask the store
//! for ended calls and [`live::LiveCalls`] for those that are up; they never reach into a call.

mod connection;
pub mod error;
pub mod server;
