//! The simulated Meta: Graph on loopback, signed webhooks, and each call's life (`meta-calling.md` §8, M1–M23).

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod chat;
pub(crate) mod graph;
mod hours;
pub(crate) mod life;
pub(crate) mod messages;
pub(crate) mod numbers;
pub(crate) mod offer;
pub(crate) mod permissions;
pub(crate) mod settings;
pub(crate) mod sign_up;
pub(crate) mod storm;
pub(crate) mod uploads;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;
