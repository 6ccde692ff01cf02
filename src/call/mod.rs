//! A call: the pure [`machine`] that decides, and the thin rooms that run it.
//!
//! `shell` carries the machine's outputs out and facts in, `registry` knows the live calls, `log` writes the
//! event log down, `replay` runs one again. Media, Graph, fetching and the store are services below.

pub mod log;
pub mod machine;
pub mod replay;
