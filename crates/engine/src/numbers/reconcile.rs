//! Compares the settings of every number with Meta's at regular intervals. Differences are shown as
//! drift and reported once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sync::is_token_refused;
use super::{GraphTarget, Numbers};
use model::{E164, NotificationTopic};

/// Interval between reconciliations.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Pause between two numbers, which leaves Graph's rate limit to calls.
const PAUSE: Duration = Duration::from_millis(100);
/// Numbers that are stored in one change.
const BATCH: usize = 50;

impl Numbers {
    /// Reconciles all numbers now and every 15 minutes until stopped.
    pub async fn run_reconciliation(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if stop.run_until_cancelled(self.reconcile()).await.is_none() {
                return;
            }
        }
    }

    async fn reconcile(&self) {
        let known: Vec<GraphTarget> = {
            let book = self.book();
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

    /// Fetches the state of some numbers and stores it in one change.
    async fn reconcile_batch(&self, batch: &[GraphTarget]) {
        let (mut readings, mut before) = (Vec::new(), Vec::new());
        for one in batch {
            match self.ask(one).await {
                Ok(answer) => {
                    before.push((one.number.clone(), self.drifts(&one.number)));
                    readings.push((one.number.clone(), answer));
                }
                Err(outcome) => {
                    tracing::debug!(number = ?one.number, ?outcome, "could not fetch a number from Graph");
                    self.note_token(&one.number, is_token_refused(&outcome)).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if readings.is_empty() {
            return;
        }
        if let Err(no) = self.take_over(readings, None).await {
            tracing::warn!(error = ?no, "could not store the state of numbers at Meta");
        }
        for (number, before) in before {
            self.warn_of_drift(&number, before);
        }
    }

    fn drifts(&self, number: &E164) -> bool {
        self.book().any_number(number).is_some_and(|entry| entry.set.drift().is_some())
    }

    fn warn_of_drift(&self, number: &E164, before: bool) {
        if !before && self.drifts(number) {
            let drift = self.book().any_number(number).map(|entry| entry.set.drift());
            let text = format!("Meta's calling settings of {number} differ from those set here.");
            self.notice(number, NotificationTopic::Number, text);
            tracing::warn!(
                ?number,
                ?drift,
                "calling settings at Meta differ; set them again or sync"
            );
        }
    }
}
