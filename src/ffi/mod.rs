//! The only `unsafe` (R26): safe functions over Opus, the embedded voice, batched socket calls.
#![allow(unsafe_code, reason = "the one room that may (R26)")]

pub mod cache;
pub mod opus;
pub mod process;
pub mod sockets;
pub mod voice;
