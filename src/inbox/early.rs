//! Statuses that overtake Graph's answer and do not have our own data in them: until that answer nobody knows whose they are
//! (R5). Each waits a while beside its 200, and is written again when a message got its name here, or now and then, since another
//! node may have sent it. In memory: who ends meanwhile knows of no such name either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Inbox;
use model::{AuthId, PhoneNumberId};
use store::{InboxResult, StatusUpdate};

/// So many wait at most; a further one is dropped, as one of another's message is.
const WAITING_MAX: usize = 1_024;
/// How long: beyond what a request to Graph may take with all of its tries.
const LOOKS: u32 = 32;
/// Between two looks at whether the node stops.
const LOOK: Duration = Duration::from_secs(1);

type Key = (PhoneNumberId, String);

/// Who waits for a name.
#[derive(Default)]
pub(super) struct Early(Mutex<(Waiters, usize)>);

/// By the name that each waits for.
type Waiters = HashMap<Key, Vec<oneshot::Sender<()>>>;

/// One that waits; ends with its drop.
pub(super) struct Waiting {
    early: Arc<Early>,
    key: Key,
    named: oneshot::Receiver<()>,
}

impl Early {
    /// From here on a name that is told is heard; none: too many wait.
    fn wait(self: &Arc<Self>, key: Key) -> Option<Waiting> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.1 >= WAITING_MAX {
            return None;
        }
        all.1 += 1;
        let (tell, named) = oneshot::channel();
        all.0.entry(key.clone()).or_default().push(tell);
        drop(all);
        Some(Waiting { early: self.clone(), key, named })
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.0.is_empty() && all.1 == 0
    }

    /// A message has this name now.
    pub(super) fn named(&self, number: &PhoneNumberId, wamid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.0.remove(&(number.clone(), wamid.to_owned()));
        drop(all);
        for tell in waiting.into_iter().flatten() {
            // Who waited may have gone.
            let _ = tell.send(());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.named.close();
        let mut all = self.early.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.1 = all.1.saturating_sub(1);
        if let Some(others) = all.0.get_mut(&self.key) {
            others.retain(|tell| !tell.is_closed());
            if others.is_empty() {
                all.0.remove(&self.key);
            }
        }
    }
}

impl Inbox {
    /// Before a status is written: waits for the message of its name, where nothing else says whose it is.
    pub(super) fn wait_for_name(&self, came: &StatusUpdate) -> Option<Waiting> {
        let wamid = came.wamid.clone().filter(|_| came.named.is_none())?;
        self.0.early.wait((came.phone_number_id.clone(), wamid))
    }

    /// Nobody had that name when the status was written.
    pub(super) fn write_later(&self, main: AuthId, came: StatusUpdate, mut waiting: Waiting) {
        let inbox = self.clone();
        self.parts().tasks.spawn(async move {
            for look in 1..=LOOKS {
                let named = tokio::time::timeout(LOOK, &mut waiting.named).await.is_ok();
                let stops = inbox.parts().tasks.is_closed();
                if named || stops || look.is_power_of_two() {
                    let Some(written) = inbox.parts().store.messages().update_status(came.clone())
                    else {
                        return;
                    };
                    let found = written.await;
                    let known = matches!(found, Ok(InboxResult::Status(Some(_), _)));
                    inbox.status_written(&main, found);
                    if known || named || stops {
                        return;
                    }
                }
            }
        });
    }
}
