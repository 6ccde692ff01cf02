//! Opening and closing a store, and the handles to its tables.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::database::{Database, SQLITE_FILE_NAME};
use crate::earlier_runs;
use crate::error::{StoreError, failed};
use crate::event_log::EventLog;
use crate::files::{create_file, create_folder, naming, with_suffix};
use crate::migrate;
use crate::options::StoreOptions;
use crate::pending_log::{self, PendingLog, PendingLogError};
use crate::seal::Seal;
use crate::server::Server;
use crate::shared::Shared;
use crate::sql::{self, Pool, connect};
use crate::tables::agents::Agents;
use crate::tables::audit::Audit;
use crate::tables::calls::Calls;
use crate::tables::certificates::Certificates;
use crate::tables::conversations::Conversations;
use crate::tables::dialogues::Dialogues;
use crate::tables::endpoints::Endpoints;
use crate::tables::erasures::Erasures;
use crate::tables::event_keys::EventKeys;
use crate::tables::failed_requests::FailedRequests;
use crate::tables::files_to_remove::FilesToRemove;
use crate::tables::messages::Messages;
use crate::tables::notifications::Notifications;
use crate::tables::numbers::Numbers;
use crate::tables::outbox::Outbox;
use crate::tables::people::{ApiKeys, People, SavedFilters, Sessions};
use crate::tables::permissions::Permissions;
use crate::tables::presets::Presets;
use crate::tables::recordings::Recordings;
use crate::tables::request_counts::RequestCounts;
use crate::tables::responses::Responses;
use crate::tables::rooms::Rooms;
use crate::tables::settings::Settings;
use crate::tables::take_over::TakeOver;
use crate::tables::turns::Turns;
use crate::tables::uploads::Uploads;
use crate::tables::waiting_calls::WaitingCalls;
use crate::tables::webhooks::Webhooks;
use crate::wake::Wake;
use crate::writer::store_file::StoreFile;
use crate::writer::{self, WriterOptions, rejects};
use model::{CallUuid, Health, PhoneNumberId, Wacid};

/// Capacity of the queue of withdrawn calls.
const WITHDRAWN: usize = 1_024;

/// Returns the path of the pending log of a SQLite file.
pub(crate) fn pending_log_of(file: &Path) -> PathBuf {
    with_suffix(file, ".births")
}

/// Returns the path of the pending log. A PostgreSQL store gets the path that a SQLite file in
/// `folder` would get.
fn pending_log_at(at: &Database, folder: &Path) -> PathBuf {
    match at {
        Database::File(file) => pending_log_of(file),
        Database::Postgres(_) => pending_log_of(&folder.join(SQLITE_FILE_NAME)),
    }
}

/// Returns whether a process on this machine has the store of a database and `store.data_dir` open.
/// `None` if that can't be found out.
pub fn is_open(at: &Database, data_dir: &Path) -> Option<bool> {
    pending_log::is_open(&pending_log_at(at, data_dir))
}

/// An open store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Opens a SQLite file with the default options and the journal in the file's folder. See
    /// [`Store::open_with`].
    ///
    /// # Errors
    /// Fails like [`Store::open_with`].
    pub async fn open(file: &Path, health: Health) -> Result<Self, StoreError> {
        let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::open_with(file, StoreOptions::with_journal_in(folder), health).await
    }

    /// Opens the database, migrates its schema, replays the journal and the pending log of an earlier
    /// process, and starts the writer thread.
    ///
    /// A SQLite file is created if it does not exist. The writer runs until [`Store::close`].
    /// `health` is updated while writes go neither to the database nor to the journal.
    ///
    /// # Errors
    /// Fails if the file can't be opened, if the database does not answer, if a newer Offhook has
    /// migrated it, or if the journal can't be replayed.
    pub async fn open_with(
        at: impl Into<Database>,
        with: StoreOptions,
        health: Health,
    ) -> Result<Self, StoreError> {
        let at = at.into();
        #[cfg(test)]
        let at = match at {
            Database::File(file) => crate::testing::place(&file).await,
            postgres @ Database::Postgres(_) => postgres,
        };
        let failed_to_open = |source| StoreError::Open { at: at.clone(), source };
        match &at {
            Database::File(file) => create_file(file),
            Database::Postgres(_) => create_folder(&with.journal),
        }
        .map_err(failed_to_open)?;
        let pending = pending_log_at(&at, &with.journal);
        let (pending_log, left) = PendingLog::open(&pending).map_err(|error| match error {
            PendingLogError::InUse => StoreError::InUse {
                at: at.clone(),
                key: match &at {
                    Database::File(_) => "store.url",
                    Database::Postgres(_) => "store.data_dir",
                },
            },
            PendingLogError::Io(source) => failed_to_open(naming(&pending, source)),
        })?;
        if let Database::Postgres(_) = at
            && let Some(why) = Server::read(&at).await?.refusal()
        {
            return Err(StoreError::Unsupported { at, why });
        }
        let write = connect::writer(&at, with.busy).await?;
        let migrator = connect::migrator(&at, &write).await?;
        migrate::migrate(&at, &migrator).await?;
        if matches!(migrator, Pool::Postgres(_)) {
            migrator.close().await;
        }
        let StoreOptions { journal, secret_key, busy, fail } = with;
        let seal = Seal::of(secret_key.as_ref(), &journal);
        let seal =
            Arc::new(seal.map_err(|source| StoreError::Key { folder: journal.clone(), source })?);
        let left_calls = Mutex::new(left.calls_at_meta());
        if !left.is_empty() {
            let written = rejects::insert_pending(&write, &seal, left, &journal).await;
            written.map_err(failed("write the calls of the pending log"))?;
        }
        pending_log.empty().map_err(failed_to_open)?;
        let wake = Arc::new(Wake::default());
        let read = connect::readers(&at, busy, wake.clone()).await?;
        let file = match &at {
            Database::File(file) => {
                Some(StoreFile::new(file.clone(), read.clone()).map_err(failed_to_open)?)
            }
            Database::Postgres(_) => None,
        };
        let (run, folder) = (Arc::new(OnceLock::new()), journal.clone());
        let (withdrawn, reports) = mpsc::channel(WITHDRAWN);
        let options = WriterOptions {
            run: run.clone(),
            withdrawn,
            pool: write,
            file,
            health,
            pending_log: Arc::new(pending_log),
            wake,
            seal: seal.clone(),
            journal,
            busy,
            fail,
        };
        let queue = writer::start(options).await?;
        let withdrawn = Mutex::new(Some(reports));
        let unauthenticated = Semaphore::new(connect::UNAUTHENTICATED_LOOKUPS);
        let shared = Shared {
            read,
            unauthenticated,
            queue,
            seal,
            database: at,
            folder,
            run,
            withdrawn,
            left_calls,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns whether other nodes may write to the same database.
    pub fn is_shared(&self) -> bool {
        matches!(self.shared.database, Database::Postgres(_))
    }

    /// Sets the run of a fleet that this process is. From then on, its batches are numbered, are
    /// executed again if the database loses them, and are refused once another node has declared the
    /// run dead.
    pub fn write_as(&self, run: Uuid) {
        // A process is one run.
        let _ = self.shared.run.set(run);
    }

    /// Returns the runs of a fleet that earlier processes with this store's folder were, as written
    /// by [`Store::set_runs`]. Their processes have ended. Empty if that can't be proven.
    pub fn earlier_runs(&self) -> Vec<Uuid> {
        earlier_runs::read(&self.shared.folder)
    }

    /// Writes which runs a later process with this store's folder can know to have ended: this
    /// process's own run, and earlier ones.
    ///
    /// # Errors
    /// Fails on I/O errors.
    pub fn set_runs(&self, runs: &[Uuid]) -> std::io::Result<()> {
        earlier_runs::write(&self.shared.folder, runs)
    }

    /// Returns the other nodes that this store names, and how much unfinished work each has: open
    /// calls, calls to end at Meta, callbacks, messages, agents' answers and recordings. A node
    /// continues only what has its own name.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn other_nodes(&self, node_id: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let select = "SELECT owner, coalesce(sum(records), 0) FROM (\
            SELECT node_id AS owner, 1 AS records FROM calls WHERE ended_us IS NULL \
            UNION ALL SELECT coalesce(farewell_node, node_id), 1 FROM calls WHERE farewell_us IS NOT NULL \
            UNION ALL SELECT node_id, 1 FROM callbacks WHERE next_us IS NOT NULL \
            UNION ALL SELECT node_id, 1 FROM messages WHERE status = 'queued' AND wamid IS NULL \
            UNION ALL SELECT node_id, 1 FROM turns \
            UNION ALL SELECT node_id, 1 FROM recordings WHERE ended_us IS NULL \
            UNION ALL SELECT node_id, 0 FROM nodes) AS owners \
            WHERE owner <> $1 GROUP BY owner ORDER BY owner";
        let rows = sql::query_as(select).bind(node_id).fetch_all(&self.shared.read).await;
        rows.map_err(failed("look for work of other nodes"))
    }

    /// Makes the unfinished work and the recordings of all other nodes those of `node_id`. Only for a
    /// SQLite file, which one process at a time has.
    ///
    /// # Errors
    /// Fails if the database rejects the write or the store was closed first.
    pub async fn take_over(&self, node_id: &str) -> Result<(), StoreError> {
        self.shared.queue.run(TakeOver { node_id: node_id.to_owned() }).await.map(drop)
    }

    /// Returns the receiver of calls that another node of the fleet has, too. Their records are not
    /// written, and they must end without a callback. `None` if it was taken before.
    pub fn take_withdrawn(&self) -> Option<mpsc::Receiver<CallUuid>> {
        self.shared.withdrawn.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the WhatsApp calls of the pending log that the previous process left: the phone number
    /// id and Meta's id of each. Their rows are written, but the event keys of their `connect` may
    /// have been lost with that process. Empty if they were taken before.
    pub fn take_left_calls(&self) -> Vec<(PhoneNumberId, Wacid)> {
        std::mem::take(&mut *self.shared.left_calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Call records and their event logs.
    pub fn calls(&self) -> Calls<'_> {
        Calls(&self.shared)
    }

    /// Callbacks and webhook events to be delivered.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(&self.shared)
    }

    /// Transcripts of open calls that an AI agent answers.
    pub fn dialogues(&self) -> Dialogues<'_> {
        Dialogues(&self.shared)
    }

    /// Recordings of calls and rooms.
    pub fn recordings(&self) -> Recordings<'_> {
        Recordings(&self.shared)
    }

    /// Multi-party calls.
    pub fn rooms(&self) -> Rooms<'_> {
        Rooms(&self.shared)
    }

    /// Conversations between numbers and users.
    pub fn conversations(&self) -> Conversations<'_> {
        Conversations(&self.shared)
    }

    /// Messages of conversations.
    pub fn messages(&self) -> Messages<'_> {
        Messages(&self.shared)
    }

    /// Owners and routing of numbers.
    pub fn numbers(&self) -> Numbers<'_> {
        Numbers(&self.shared)
    }

    /// Webhooks of accounts, and their delivery logs.
    pub fn webhooks(&self) -> Webhooks<'_> {
        Webhooks(&self.shared)
    }

    /// Messages that an AI agent must answer.
    pub fn turns(&self) -> Turns<'_> {
        Turns(&self.shared)
    }

    /// AI agents.
    pub fn agents(&self) -> Agents<'_> {
        Agents(&self.shared)
    }

    /// Files uploaded to Meta.
    pub fn uploads(&self) -> Uploads<'_> {
        Uploads(&self.shared)
    }

    /// Labels and canned replies.
    pub fn presets(&self) -> Presets<'_> {
        Presets(&self.shared)
    }

    /// Notifications in the console.
    pub fn notifications(&self) -> Notifications<'_> {
        Notifications(&self.shared)
    }

    /// Requests to URLs of customers that failed.
    pub fn failed_requests(&self) -> FailedRequests<'_> {
        FailedRequests(&self.shared)
    }

    /// Counts of outbound requests by minute.
    pub fn request_counts(&self) -> RequestCounts<'_> {
        RequestCounts(&self.shared)
    }

    /// The audit trail.
    pub fn audit(&self) -> Audit<'_> {
        Audit(&self.shared)
    }

    /// Calling permissions of users.
    pub fn permissions(&self) -> Permissions<'_> {
        Permissions(&self.shared)
    }

    /// Files that nodes of a fleet must remove from their disks.
    pub fn files_to_remove(&self) -> FilesToRemove<'_> {
        FilesToRemove(&self.shared)
    }

    /// Outbound calls that wait for permits, in a fleet on PostgreSQL.
    pub fn waiting_calls(&self) -> WaitingCalls<'_> {
        WaitingCalls(&self.shared)
    }

    /// Settings made at run time.
    pub fn settings(&self) -> Settings<'_> {
        Settings(&self.shared)
    }

    /// Certificates from a certificate authority.
    pub fn certificates(&self) -> Certificates<'_> {
        Certificates(&self.shared)
    }

    /// Endpoints of accounts.
    pub fn endpoints(&self) -> Endpoints<'_> {
        Endpoints(&self.shared)
    }

    /// People who can sign in to the console.
    pub fn people(&self) -> People<'_> {
        People(&self.shared)
    }

    /// Console sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(&self.shared)
    }

    /// Keys of the number API.
    pub fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys(&self.shared)
    }

    /// Filters that users have saved.
    pub fn saved_filters(&self) -> SavedFilters<'_> {
        SavedFilters(&self.shared)
    }

    /// Keys of Meta's events, used to detect duplicates.
    pub fn event_keys(&self) -> EventKeys<'_> {
        EventKeys(&self.shared)
    }

    /// Responses to requests with an idempotency key.
    pub fn responses(&self) -> Responses<'_> {
        Responses(&self.shared)
    }

    /// Erasure of a user's data.
    pub fn erasures(&self) -> Erasures<'_> {
        Erasures(&self.shared)
    }

    /// Returns the sender that appends to the event logs of calls.
    pub fn event_log(&self) -> EventLog {
        EventLog(self.shared.queue.clone())
    }

    /// Returns the HMAC key that signs links of limited validity. The key survives a restart.
    pub fn link_key(&self) -> aws_lc_rs::hmac::Key {
        self.shared.seal.links()
    }

    /// Waits until everything queued so far is written, for at most one second.
    pub async fn flush(&self) {
        self.shared.queue.flush().await;
    }

    /// Whether the database rejects writes, so that they go to the journal.
    pub fn is_journalling(&self) -> bool {
        self.shared.queue.is_journalling()
    }

    /// Waits until the database accepts writes and has those of the journal.
    pub async fn until_database_works(&self) {
        self.shared.queue.until_database_works().await;
    }

    /// Writes what is still queued, for up to a few seconds, and closes all connections.
    pub async fn close(&self) {
        // The writer's connection must close last: SQLite checkpoints the write-ahead log on the
        // last close, and the read-only connections can't do that.
        self.shared.read.close().await;
        self.shared.queue.close().await;
    }
}
