//! Who hears of calls beside their own callbacks: conversations and webhooks. Given once, when the node is assembled.

use super::author::SaidLine;
use machine::{CallSetup, Summary};
use model::Timestamp;
use store::NewCallback;

/// Hears of calls. Nothing here may block or wait.
pub trait CallNews: Send + Sync {
    /// A call begins.
    fn started(&self, setup: &CallSetup);
    /// It was answered.
    fn answered(&self, setup: &CallSetup, at: Timestamp);
    /// It is over; `said`: what an agent and the user said. What comes back goes into the outbox in the transaction that
    /// closes its record.
    fn ended(&self, setup: &CallSetup, summary: &Summary, said: &[SaidLine]) -> Vec<NewCallback>;
}
