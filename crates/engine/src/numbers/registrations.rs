//! Registers numbers with Meta's Cloud API in the background. The outcome is shown in the resource
//! and the feed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::NO_NUMBER;
use super::entries::{Entries, GraphTarget};
use super::errors::NumberError;
use super::sync::MetaSync;
use crate::admission::book::{NumberSet, Registration};
use crate::meta::Graph;
use machine::GraphOutcome;
use model::{E164, NotificationTopic, Secret, Timestamp};
use store::Scope;

/// Pause after a failure. Meta counts attempts and locks a number after a few.
const PAUSE: Duration = Duration::from_secs(60);
/// Pause between attempts to store the outcome.
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// Registers numbers.
pub struct Registrations {
    pub(super) entries: Arc<Entries>,
    pub(super) graph: Arc<Graph>,
    pub(super) sync: Arc<MetaSync>,
    pub(super) tasks: TaskTracker,
}

impl Registrations {
    /// Starts registering a number with this PIN.
    ///
    /// # Errors
    ///
    /// Returns an error if the PIN is malformed, if a registration is running, or if the last one
    /// failed within the pause.
    pub async fn register(
        self: &Arc<Self>,
        scope: &Scope,
        number: &E164,
        pin: Secret,
    ) -> Result<(), NumberError> {
        let is_pin = pin.reveal().len() == 6 && pin.reveal().bytes().all(|b| b.is_ascii_digit());
        if !is_pin {
            return Err(NumberError::bad("pin", "pin must be the number's six digits"));
        }
        let known = self.entries.target(scope, number)?;
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            may_begin(&entry.set, now)?;
            Ok(((), book.edit_number(number, |set| set.registration = Registration::Running)))
        });
        stored.await?;
        self.entries.publish(number);
        let this = self.clone();
        self.tasks.spawn(async move { this.carry_out(known, pin).await });
        Ok(())
    }

    async fn carry_out(&self, known: GraphTarget, pin: Secret) {
        let graph = &self.graph;
        let registered = graph.number(&known.id, known.token.as_ref()).register(&pin).await;
        let now = self.entries.clock.wall();
        let state = match registered {
            Ok(()) => Registration::Registered,
            Err(outcome) => Registration::Failed { reason: reason(&outcome), again: later(now) },
        };
        let done = state == Registration::Registered;
        let failed = match &state {
            Registration::Failed { reason, .. } => Some(reason.clone()),
            Registration::None | Registration::Running | Registration::Registered => None,
        };
        let number = &known.number;
        self.keep(number, state, now).await;
        self.entries.publish(number);
        if let Some(reason) = failed {
            self.entries.notice(
                number,
                NotificationTopic::Number,
                format!("{number} could not be registered: {reason}."),
            );
        }
        if done && let Err(error) = self.sync.refresh(&known).await {
            tracing::info!(%number, %error, "state of a registered number not fetched; the next sync will");
        }
    }

    /// Stores the outcome, with retries. While the stored state is `running`, no other registration
    /// can start.
    async fn keep(&self, number: &E164, state: Registration, now: Timestamp) {
        loop {
            let edit = |set: &mut NumberSet| end(set, state.clone());
            let stored = self
                .entries
                .keeper
                .change(now, |book| Ok::<_, NumberError>(((), book.edit_number(number, edit))));
            let Err(why) = stored.await else { return };
            tracing::warn!(%number, error = %why, "outcome of a registration not stored");
            // The next start marks it as failed.
            if self.tasks.is_closed() {
                return;
            }
            tokio::time::sleep(KEEP_AGAIN).await;
        }
    }
}

/// Applies the outcome. A successful registration sets the platform, since Meta may report it with
/// a delay.
fn end(set: &mut NumberSet, state: Registration) {
    if state == Registration::Registered {
        set.at_meta.platform_type = "CLOUD_API".to_owned();
    }
    set.registration = state;
}

fn later(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(
        now.micros().saturating_add(i64::try_from(PAUSE.as_micros()).unwrap_or(i64::MAX)),
    )
}

fn may_begin(set: &NumberSet, now: Timestamp) -> Result<(), NumberError> {
    match &set.registration {
        Registration::Running => Err(NumberError::state(
            "registration_running",
            "the number is being registered already",
        )),
        Registration::Failed { again, .. } if *again > now => {
            let seconds =
                u64::try_from(again.secs().saturating_sub(now.secs())).unwrap_or_default().max(1);
            let message = format!("the last attempt just failed; try again in {seconds} s");
            Err(NumberError::Wait { seconds, message })
        }
        Registration::None | Registration::Registered | Registration::Failed { .. } => Ok(()),
    }
}

/// The reason of a failure, for people.
pub(super) fn reason(outcome: &GraphOutcome) -> String {
    match outcome {
        // Meta's own text is the most specific.
        GraphOutcome::Refused { code, details, .. } if !details.is_empty() => {
            format!("{code}: {details}")
        }
        GraphOutcome::Refused { code: 133_005, .. } => "133005: wrong PIN".to_owned(),
        GraphOutcome::Refused { code: code @ (133_008 | 133_009), .. } => {
            format!("{code}: too many attempts; Meta rejects further ones for a while")
        }
        GraphOutcome::Refused { code, .. } => format!("{code}: Meta gives no reason"),
        GraphOutcome::RateLimited { code } => format!("{code}: too many requests to Meta"),
        GraphOutcome::Timeout => "Meta did not answer in time".to_owned(),
        GraphOutcome::Unreachable => "Meta could not be reached".to_owned(),
        GraphOutcome::Done | GraphOutcome::Gone | GraphOutcome::ServerError { .. } => {
            "Meta had an internal error".to_owned()
        }
    }
}
