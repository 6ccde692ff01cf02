//! What outlives the process: call records and event logs, in SQLite or PostgreSQL. Each query is a named function that gives
//! `model` types; the tenant is a typed argument of every one that an API can reach (R16).
//!
//! Everything is written by one task (`writer`) from a bounded `queue`, in batches, so that nothing on a call's way
//! waits for the disk; what the store does not take waits in a `journal` beside it (R11). Reading has connections of
//! its own. Calls that are up live in `call::registry`, not here.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod agents;
mod archive;
mod backup;
mod batch;
mod births;
mod callbacks;
mod calls;
mod conversations;
mod database;
mod deed;
mod deliveries;
mod endpoints;
mod entry;
mod erase;
mod erasures;
mod error;
mod file;
mod forget;
mod given;
mod hold;
mod inbox;
mod journal;
mod keys;
mod listing;
mod lists;
mod mail;
mod notices;
mod open;
mod outgoing;
mod password;
mod people;
mod permissions;
mod queue;
mod recordings;
mod refused;
mod remarks;
mod rooms;
mod said;
mod scope;
mod seal;
mod settings;
mod sql;
mod tenures;
mod turns;
mod uploads;
mod version;
mod webhooks;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use agents::{AGENTS_MAX, Agent, AgentChannel, AgentKind, AgentSecrets, AgentSpec};
pub use archive::Archive;
pub use backup::{Backup, BackupError, backup};
pub use callbacks::{
    Callback, CallbackState, CallbackView, Callbacks, NewCallback, Rearm, Settled, Settlement,
    Written, rearm,
};
pub use calls::{
    CallEnd, CallFilter, CallRecord, CallStart, Compare, Farewell, FarewellDue, Orphan, PlacedCall,
};
pub use conversations::{Conversation, ConversationFilter, Last, LeftMessage, Message};
pub use database::{Database, SQLITE_FILE_NAME};
pub use deliveries::DeliveryView;
pub use endpoints::{Endpoint, EndpointChange};
pub use erasures::{Erasure, Heard, Until};
pub use error::StoreError;
pub use given::GivenAnswer;
pub use hold::Hold;
pub use inbox::{
    Came, ConversationChange, Draft, DraftForm, Going, Gone, InboxFound, Insights, NewMessage,
    Pair, Reroute, Standing, StatusCame, UserName, WEBHOOK,
};
pub use keys::{KeyKind, SeenKey};
pub use listing::Listed;
pub use notices::{NoticeFilter, NoticeRow};
pub use password::{PasswordError, Passwords};
pub use people::{Invitation, MadeKey, Session, User, UserChange, UserLink};
pub use permissions::{PermissionReply, PermissionRow};
pub use queue::{Concluded, Conclusion, EventLog, PermissionWrite};
pub use recordings::{
    CopyWrite, Recording, RecordingConclusion, RecordingEnd, RecordingFilter, RecordingStart,
    RecordingWork, RoomFilter, ToTranscribe, TranscriptWrite,
};
pub use rooms::{EndedRoom, KeptMember, LEFT_MAX, LeftMember, OpenMember, OpenRoom, OrphanRoom};
pub use said::CallLine;
pub use scope::Scope;
pub use settings::{Setting, SettingKind, SettingWrite};
pub use tenures::{Claim, Tenure};
pub use turns::{Answers, Owed, Then};
pub use uploads::UploadRow;
pub use version::By;
pub use webhooks::{WebhookRow, WebhookUse, WebhookWrite};

use self::births::{Births, Taken};
use self::error::{Unread, failed, word};
use self::open::{BUSY, Opened};
use self::seal::Seal;
use self::sql::Pool;
use self::writer::Begin;
use machine::{CallSetup, CallbackRequest};
use model::Health;
use model::Secret;
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid};
use uuid::Uuid;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Store,
    Journal,
}

/// Asked before each try to write; `true`: it fails. For tests.
pub type Fail = Arc<dyn Fn(Part) -> bool + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The folder of the journal, and of the key file (`store.data_dir`).
    pub journal: PathBuf,
    /// What the key that seals is made of; `None`: of the key file.
    pub secret_key: Option<Secret>,
    /// How long a statement waits for another process's lock.
    pub busy: Duration,
    pub fail: Option<Fail>,
}

impl StoreOptions {
    /// The usual ones, with the journal in this folder.
    pub fn with_journal_in(folder: impl Into<PathBuf>) -> Self {
        Self { journal: folder.into(), secret_key: None, busy: BUSY, fail: None }
    }
}

/// The store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    read: Pool,
    log: EventLog,
    seal: Arc<Seal>,
    at: Arc<Database>,
}

impl Store {
    /// [`Store::open_with`] a SQLite file, with the usual options and the journal in its folder.
    ///
    /// # Errors
    /// The same.
    pub async fn open(file: &Path, health: Health) -> Result<Self, StoreError> {
        let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::open_with(file, StoreOptions::with_journal_in(folder), health).await
    }

    /// Opens or makes the file, or connects to the database, brings its schema up to date, takes in what an earlier process
    /// left in the journal, and starts the writer, which ends with [`Store::close`]. `health` is told while nothing can be
    /// written anywhere.
    ///
    /// # Errors
    /// The file can't be opened, the database does not answer, or either was written by a newer version; the journal can't
    /// be taken in.
    pub async fn open_with(
        at: impl Into<Database>,
        with: StoreOptions,
        health: Health,
    ) -> Result<Self, StoreError> {
        let at = at.into();
        #[cfg(test)]
        let at = match at {
            Database::File(file) => testing::place(&file).await,
            postgres @ Database::Postgres(_) => postgres,
        };
        let failed_to_open = |source| StoreError::Open { at: at.clone(), source };
        let noted = match &at {
            Database::File(file) => {
                prepare(file).map_err(failed_to_open)?;
                beside(file, ".births")
            }
            Database::Postgres(_) => {
                folder_of_its_own(&with.journal).map_err(failed_to_open)?;
                beside(&with.journal.join(SQLITE_FILE_NAME), ".births")
            }
        };
        let (births, left) = Births::open(&noted).map_err(|taken| match taken {
            Taken::InUse => StoreError::InUse { at: at.clone() },
            Taken::Failed(source) => failed_to_open(source),
        })?;
        let write = open::writer(&at, with.busy).await?;
        let migrator = open::migrator(&at, &write).await?;
        version::migrate(&at, &migrator, &version::MIGRATIONS).await?;
        if matches!(migrator, Pool::Postgres(_)) {
            migrator.close().await;
        }
        if !left.is_empty() {
            let written = refused::insert_left(&write, left, &with.journal).await;
            written.map_err(failed("write the calls that an earlier process began"))?;
        }
        births.empty().map_err(failed_to_open)?;
        let Opened { write, read, file } = open::rest(&at, write, with.busy).await?;
        let StoreOptions { journal, secret_key, busy, fail } = with;
        let seal = Seal::of(secret_key.as_ref(), &journal);
        let seal =
            Arc::new(seal.map_err(|source| StoreError::Key { folder: journal.clone(), source })?);
        let (births, sealing) = (Arc::new(births), seal.clone());
        let begin = Begin { pool: write, file, health, births, seal: sealing, journal, busy, fail };
        let log = EventLog::start(begin).await?;
        Ok(Self { read, log, seal, at: Arc::new(at) })
    }

    /// Notes an admitted call, and what its end can be told from if this process does not live to see it. `born` is
    /// on the steady clock. Returns at once; `false`: the queue is full, and the call must not be begun. A beginning that
    /// is lost all the same [`Store::conclude`] makes good for.
    #[must_use]
    pub fn call_born(&self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
        self.log.call_born(start, setup, born)
    }

    /// Notes Meta's id of a call that we placed. Returns at once.
    /// One that has ended already is to be ended there too: Graph is told at `farewell`, unless that is settled before.
    pub fn call_bound(&self, call: CallUuid, wacid: Wacid, farewell: Timestamp) {
        self.log.call_bound(call, wacid, farewell);
    }

    /// Notes that an open call was answered. Returns at once.
    pub fn call_answered(&self, call: CallUuid, at: Timestamp) {
        self.log.call_answered(call, at);
    }

    /// Notes that a node lives, on its steady clock: its calls lasted at least until then. Returns at once.
    pub fn alive(&self, node_id: &str, at: Timestamp) {
        self.log.alive(node_id, at);
    }

    /// The end of a call: closes its record and puts what reports it into the outbox, in one transaction, once, synced
    /// to the disk. A call that has its end keeps it, and nothing is written. Queued when this returns. Where the
    /// journal takes it, its callbacks go out when the store has them; the future waits while nothing takes it.
    ///
    /// # Errors
    /// The store was closed meanwhile.
    pub fn conclude(
        &self,
        conclusion: Conclusion,
    ) -> impl Future<Output = Result<Concluded, StoreError>> + Send + 'static + use<> {
        self.log.conclude(conclusion)
    }

    /// Puts a callback into the outbox; it may be sent once this is done. Queued when this returns.
    ///
    /// # Errors
    /// The store was closed meanwhile; or the journal has the callback, and it goes out when the store has it.
    pub fn notify(
        &self,
        callback: NewCallback,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send + 'static + use<> {
        self.log.notify(callback)
    }

    /// Writes down what became of a callback; gives whether others of its call wait.
    ///
    /// # Errors
    /// The store was closed meanwhile.
    pub fn settle(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        self.log.settle(settlement)
    }

    /// The origins with callbacks that are due, and when the next one is due that isn't yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn origins_due(
        &self,
        node_id: &str,
        now: Timestamp,
    ) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
        callbacks::origins_due(&self.read, node_id, now).await
    }

    /// Callbacks of an origin that are due, the longest due first; of each call and URL the oldest only. A row that cannot be
    /// read is given up and logged: it must not hold up those behind it.
    ///
    /// # Errors
    /// The store's.
    pub async fn callbacks_due(
        &self,
        node_id: &str,
        origin: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Callback>, StoreError> {
        let (due, illegible) =
            callbacks::due(&self.read, &self.seal, node_id, origin, now, limit).await?;
        for callbacks::Illegible { id, detail } in illegible {
            tracing::error!(id, detail, "a callback in the outbox cannot be read and is given up");
            let last = format!("it cannot be read: {detail}");
            self.settle(Settlement { id, attempts: 0, at: now, outcome: Settled::Failed, last })
                .await?;
        }
        Ok(due)
    }

    /// Ended calls of which Graph has still to be told, now.
    ///
    /// # Errors
    /// The store's.
    pub async fn farewells(
        &self,
        node_id: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<FarewellDue>, StoreError> {
        calls::farewells(&self.read, node_id, now, limit).await
    }

    /// Graph was told of a call's end, for good; or is to be told `again` then. Returns at once.
    pub fn farewell(&self, call: CallUuid, again: Option<Timestamp>) {
        self.log.farewell(call, again);
    }

    /// What another process of this node left to tell Graph is due now. Returns at once.
    pub fn farewells_due(&self, node_id: &str) {
        self.log.farewells_due(node_id);
    }

    /// The event log's writing end.
    pub fn event_log(&self) -> EventLog {
        self.log.clone()
    }

    /// One call, ended or not.
    ///
    /// # Errors
    /// The store's.
    pub async fn call(
        &self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<Option<CallRecord>, StoreError> {
        calls::one(&self.read, scope, call).await
    }

    /// Ended calls, newest first, and how many there are in all.
    ///
    /// # Errors
    /// The store's.
    pub async fn calls(
        &self,
        scope: &Scope,
        filter: &CallFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<CallRecord>, u64), StoreError> {
        lists::List { pool: &self.read, scope, filter }.page(limit, offset).await
    }

    /// The first of them.
    ///
    /// # Errors
    /// The store's.
    pub async fn first_calls(
        &self,
        scope: &Scope,
        filter: &CallFilter,
        limit: u32,
    ) -> Result<Vec<CallRecord>, StoreError> {
        lists::List { pool: &self.read, scope, filter }.first(limit).await
    }

    /// Lines of a call's event log with their numbers, from `after` (exclusive; `None`: the first) on. No call of the
    /// scope's has none.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(
        &self,
        scope: &Scope,
        call: CallUuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        calls::events(&self.read, scope, call, after, limit).await
    }

    /// What a call's callbacks carry, by event id, secret parameters left out. No call of the scope's has none.
    ///
    /// # Errors
    /// The store's.
    pub async fn callbacks_of(
        &self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<BTreeMap<Uuid, CallbackRequest>, StoreError> {
        callbacks::of_call(&self.read, scope, call).await
    }

    /// Waits until everything queued so far is written, but a second at most.
    pub async fn settled(&self) {
        self.log.settled().await;
    }

    /// Calls of a node that were never closed: what a crash left behind (R3).
    ///
    /// # Errors
    /// The store's.
    pub async fn orphans(&self, node_id: &str) -> Result<Vec<Orphan>, StoreError> {
        calls::orphans(&self.read, node_id).await
    }

    /// Calls that this node placed and that have ended since `since`.
    ///
    /// # Errors
    /// The store's.
    pub async fn placed(
        &self,
        node_id: &str,
        since: Timestamp,
    ) -> Result<Vec<PlacedCall>, StoreError> {
        calls::placed(&self.read, node_id, since).await
    }

    /// Keys of Meta's events seen since `from` and before `to`, the newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> Result<Vec<SeenKey>, StoreError> {
        keys::between(&self.read, from, to, limit).await
    }

    /// Notes a key. Returns at once; a full queue loses it, and counts that.
    pub fn key(&self, key: SeenKey) {
        self.log.key(key);
    }

    /// Takes a key back. Returns at once.
    pub fn unkey(&self, key: u128) {
        self.log.unkey(key);
    }

    /// Rows of what users allow behind `after` (none: from the first), in the order of number and user.
    ///
    /// # Errors
    /// The store's.
    pub async fn permissions(
        &self,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<PermissionRow>, StoreError> {
        permissions::page(&self.read, after, limit).await
    }

    /// Notes what a user allows. Queued when this returns, unless the queue is full (`None`); the future tells when it
    /// is on the disk, and need not be waited for.
    pub fn permission(
        &self,
        write: PermissionWrite,
    ) -> Option<impl Future<Output = Result<(), StoreError>> + Send + 'static + use<>> {
        self.log.permission(write)
    }

    /// What was set while nodes ran.
    ///
    /// # Errors
    /// The store's.
    pub async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        settings::all(&self.read, &self.seal).await
    }

    /// Writes settings, all of them or none, synced to the disk. Queued when this returns.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub fn set(
        &self,
        writes: Vec<SettingWrite>,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static + use<> {
        self.log.set(writes, at)
    }

    /// Forgets a user of whom nothing has been written since `before`. Returns at once.
    pub fn forget_permission(&self, number: &PhoneNumberId, user: &str, before: Timestamp) {
        self.log.forget_permission(number, user, before);
    }

    /// Forgets the oldest keys seen before then: some at a time, so that nothing waits for it.
    pub fn forget_keys(&self, seen_before: Timestamp) {
        self.log.forget_keys(seen_before);
    }

    /// Writes what is still queued (it tries for a few seconds) and closes.
    pub async fn close(&self) {
        // The writer last: who closes last folds the write-ahead log into the file, and readers can't.
        self.read.close().await;
        self.log.close().await;
    }
}

/// A file beside another one.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The folder 0700 and the file 0600 (R21); SQLite gives its side files the file's mode. A file that is there is not opened:
/// see `open::beside_a_node`.
fn prepare(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        folder_of_its_own(folder)?;
    }
    match std::fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn folder_of_its_own(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod erasure_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod sample;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
