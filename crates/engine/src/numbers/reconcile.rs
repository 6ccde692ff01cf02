//! Looks at Meta's side of every number again and again: what differs from ours is shown as drift, and told once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sync::is_token_refused;
use super::{Known, Numbers};
use model::{E164, NotificationTopic};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Between two numbers: Graph's limits are for calls.
const PAUSE: Duration = Duration::from_millis(100);
/// Numbers whose news are stored in one change.
const BATCH: usize = 50;

impl Numbers {
    /// Looks at all numbers now and every quarter of an hour, until it is stopped.
    pub async fn keep_in_step(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if stop.run_until_cancelled(self.reconcile()).await.is_none() {
                return;
            }
        }
    }

    async fn reconcile(&self) {
        let known: Vec<Known> = {
            let book = self.book();
            let served = book.all_numbers().filter(|entry| !entry.set.disconnected);
            // Without a token there is nobody to ask.
            served
                .map(|entry| Known::of(&book, entry))
                .filter(|known| known.token.is_some())
                .collect()
        };
        for batch in known.chunks(BATCH) {
            self.look_at(batch).await;
        }
    }

    /// Looks at some numbers, and keeps what was said of them in one change.
    async fn look_at(&self, batch: &[Known]) {
        let (mut said, mut before) = (Vec::new(), Vec::new());
        for one in batch {
            match self.ask(one).await {
                Ok(answer) => {
                    before.push((one.number.clone(), self.drifts(&one.number)));
                    said.push((one.number.clone(), answer));
                }
                Err(outcome) => {
                    tracing::debug!(number = ?one.number, ?outcome, "Graph says nothing of a number");
                    self.note_token(&one.number, is_token_refused(&outcome)).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if said.is_empty() {
            return;
        }
        if let Err(no) = self.take_over(said, None).await {
            tracing::warn!(?no, "what Meta says of numbers could not be kept");
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
            let text =
                format!("Meta's calling settings of {number} are not as they were set here.");
            self.notice(number, NotificationTopic::Number, text);
            tracing::warn!(
                ?number,
                ?drift,
                "Meta's calling settings of a number are not ours: set them again, or sync"
            );
        }
    }
}
