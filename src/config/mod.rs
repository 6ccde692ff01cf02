//! TOML and environment to plain typed structs; errors carry line and column.

mod secret;

pub use secret::Secret;
