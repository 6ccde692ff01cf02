//! The simulated Meta: the Graph API, webhooks, calls, messages and permissions.
//! `docs/reference/meta.md#the-simulated-meta` lists its behaviour by id (M1 to M23).

pub(crate) mod action;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod chat;
pub(crate) mod error;
pub(crate) mod graph;
mod hours;
pub(crate) mod messages;
pub(crate) mod numbers;
pub(crate) mod offer;
pub(crate) mod permissions;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod sign_up;
pub(crate) mod storm;
mod templates;
pub(crate) mod uploads;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;
