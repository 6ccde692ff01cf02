//! Compares the settings of every number with Meta's at regular intervals. Differences are shown as
//! drift and reported once. Numbers that were added at Meta are connected.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::entries::{Entries, GraphTarget};
use super::sync::{MetaSync, is_token_refused};
use model::{E164, NotificationTopic, WabaId};

/// Interval between reconciliations.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Pause between two numbers, which leaves Graph's rate limit to calls.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of numbers that are stored in one change.
const BATCH: usize = 50;

/// Compares all numbers.
pub struct Reconciliation {
    pub(super) entries: Arc<Entries>,
    pub(super) sync: Arc<MetaSync>,
}

impl Reconciliation {
    /// Reconciles all numbers now and every 15 minutes until stopped. New numbers of known WABAs
    /// are searched for every 15 minutes, but not while the node starts.
    pub async fn run(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut first = true;
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let round = async {
                self.reconcile().await;
                if !first {
                    self.add_new_numbers_of_all().await;
                }
            };
            if stop.run_until_cancelled(round).await.is_none() {
                return;
            }
            first = false;
        }
    }

    async fn reconcile(&self) {
        let known: Vec<GraphTarget> = {
            let book = self.entries.book();
            let served = book.all_numbers().filter(|entry| !entry.set.disconnected);
            // Graph cannot be asked without a token.
            served
                .map(|entry| GraphTarget::of(&book, entry))
                .filter(|known| known.token.is_some())
                .collect()
        };
        for batch in known.chunks(BATCH) {
            self.reconcile_batch(batch).await;
        }
    }

    async fn add_new_numbers_of_all(&self) {
        let wabas: Vec<WabaId> = self.entries.book().wabas().map(|waba| waba.id.clone()).collect();
        for waba in wabas {
            self.sync.add_new_numbers(&waba).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fetches the state of some numbers and stores it in one change.
    async fn reconcile_batch(&self, batch: &[GraphTarget]) {
        let (mut readings, mut before) = (Vec::new(), Vec::new());
        for one in batch {
            match self.sync.ask(one).await {
                Ok(answer) => {
                    before.push((one.number.clone(), self.drifts(&one.number)));
                    readings.push((one.number.clone(), answer));
                }
                Err(outcome) => {
                    tracing::debug!(number = %one.number, %outcome, "number not fetched from Graph");
                    self.sync.note_token(&one.number, is_token_refused(&outcome)).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if readings.is_empty() {
            return;
        }
        if let Err(error) = self.sync.take_over(readings, None).await {
            tracing::warn!(%error, "state of numbers at Meta not stored");
        }
        for (number, before) in before {
            self.warn_of_drift(&number, before);
        }
    }

    fn drifts(&self, number: &E164) -> bool {
        self.entries.book().any_number(number).is_some_and(|entry| entry.set.drift().is_some())
    }

    fn warn_of_drift(&self, number: &E164, before: bool) {
        if !before && self.drifts(number) {
            let drift = self.entries.book().any_number(number).map(|entry| entry.set.drift());
            let differs = drift.unwrap_or_default().settings().join(" ");
            let text = format!("Meta's calling settings of {number} differ from those set here.");
            self.entries.notice(number, NotificationTopic::Number, text);
            tracing::warn!(
                %number,
                differs,
                "calling settings at Meta differ; set them again or sync"
            );
        }
    }
}
