//! Properties of a PostgreSQL server: whether nodes can work on it, and what restricts a fleet
//! there.

use std::time::Duration;

use model::Clock;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::database::Database;
use crate::error::{StoreError, failed};
use crate::sql::connect::{CONNECT_TIMEOUT, connect_within, options};
use crate::sql::errors::is_unreachable;

/// The oldest version that is supported, as in `server_version_num`.
const OLDEST: i32 = 150_000;

/// Time that a check waits for the lock of its own second session.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

const WHAT: &str = "read the settings of the database server";

/// A server that speaks PostgreSQL's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The version as in `server_version_num`: 150018 is 15.18.
    pub version: i32,
    /// The server's own description of its version.
    pub name: String,
    /// Whether the server is a standby, which replays another server's log and refuses writes.
    pub is_standby: bool,
    /// Whether transactions may only read, by the settings of the server, database or user.
    pub is_read_only: bool,
    /// Whether this user may create tables in the schema of `search_path`.
    pub creates_tables: bool,
    /// Whether `fsync` is on, so that committed transactions survive a power failure.
    pub fsync: bool,
    /// Maximum number of connections to the server, or to this database if that is less.
    pub connections_max: i32,
    /// Number of standbys that replicate from the server. 0 if this user may not see them.
    pub standbys: i64,
    /// Whether commits wait for a standby.
    pub is_synchronous: bool,
    /// The server's wall-clock time, in microseconds since 1970.
    pub wall_us: i64,
}

impl Server {
    /// Reads the properties of the server at a PostgreSQL URL.
    ///
    /// # Errors
    /// Returns an error if it does not answer.
    pub async fn read(at: &Database) -> Result<Self, StoreError> {
        let mut connection = connect(at).await?;
        let server = Self::ask(&mut connection).await.map_err(failed(WHAT))?;
        connection.close().await.map_err(failed(WHAT))?;
        Ok(server)
    }

    async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        // Other engines lack some of the settings, so the version comes first.
        let name: String =
            sqlx::query_scalar("SELECT version()").fetch_one(&mut *connection).await?;
        if let Some(name) = foreign(&name) {
            return Ok(Self { name: name.to_owned(), ..Self::unknown() });
        }
        let text = "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS is_standby, \
            current_setting('fsync')::boolean AS fsync, current_setting('default_transaction_read_only')::boolean AS is_read_only, \
            (SELECT least(current_setting('max_connections')::int, CASE WHEN datconnlimit >= 0 THEN datconnlimit END) \
                FROM pg_database WHERE datname = current_database()) AS connections_max, \
            current_setting('synchronous_standby_names') <> '' AS is_synchronous, \
            coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates_tables, \
            (SELECT count(*) FROM pg_stat_replication) AS standbys, \
            (extract(epoch FROM clock_timestamp()) * 1e6)::bigint AS wall_us";
        let row = sqlx::query(text).fetch_one(connection).await?;
        Ok(Self {
            version: row.try_get("version")?,
            name,
            is_standby: row.try_get("is_standby")?,
            is_read_only: row.try_get("is_read_only")?,
            creates_tables: row.try_get("creates_tables")?,
            fsync: row.try_get("fsync")?,
            connections_max: row.try_get("connections_max")?,
            standbys: row.try_get("standbys")?,
            is_synchronous: row.try_get("is_synchronous")?,
            wall_us: row.try_get("wall_us")?,
        })
    }

    fn unknown() -> Self {
        Self {
            version: 0,
            name: String::new(),
            is_standby: false,
            is_read_only: false,
            creates_tables: true,
            fsync: true,
            connections_max: 0,
            standbys: 0,
            is_synchronous: false,
            wall_us: 0,
        }
    }

    /// Returns why no node can work on this server. `None` if nodes can.
    pub fn refusal(&self) -> Option<String> {
        if self.version == 0 {
            let name = &self.name;
            return Some(format!(
                "it is {name}, which locks rows in another way; use PostgreSQL 15 or later"
            ));
        }
        if self.version < OLDEST {
            let version = self.version / 10_000;
            return Some(format!("it is PostgreSQL {version}; use PostgreSQL 15 or later"));
        }
        let why = match (self.is_standby, self.is_read_only) {
            (true, _) => {
                "it is a standby, which refuses writes; write the address of the primary into store.url"
            }
            (false, true) => {
                "it refuses writes; set default_transaction_read_only = off for the server, database and user"
            }
            (false, false) => return None,
        };
        Some(why.to_owned())
    }
}

/// Returns the name of the engine if it is not PostgreSQL but speaks its protocol.
fn foreign(version: &str) -> Option<&'static str> {
    let engines = [("CockroachDB", "CockroachDB"), ("-YB-", "YugabyteDB"), ("Spanner", "Spanner")];
    engines.into_iter().find(|(mark, _)| version.contains(mark)).map(|(_, name)| name)
}

async fn connect(at: &Database) -> Result<PgConnection, StoreError> {
    let failed = |source| StoreError::Connect { at: at.clone(), source };
    let options = options(at, LOCK_TIMEOUT).map_err(failed)?;
    connect_within(&options, CONNECT_TIMEOUT).await.map_err(failed)
}

/// Interval between attempts to reach a server at the start.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Waits until the server of a PostgreSQL database answers, for at most `within`. Nodes are often
/// started before it, for example by a reboot. Returns at once for SQLite, and for an answer that
/// waiting does not change, such as a wrong password, which opening the store reports.
pub async fn wait_until_reachable(at: &Database, within: Duration) {
    if let Database::File(_) = at {
        return;
    }
    let reached = async {
        loop {
            let error = match connect(at).await {
                Err(StoreError::Connect { source, .. }) if is_unreachable(&source) => source,
                Ok(_) | Err(_) => return,
            };
            tracing::warn!(%error, "database unreachable, waiting for it");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    // After this time, opening the store fails with the reason.
    let _ = tokio::time::timeout(within, reached).await;
}

/// Properties of the server that a fleet relies on and that only a test can determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trials {
    /// Whether two connections reach the same server process.
    pub is_one_server: bool,
    /// Whether a transaction that has waited for a row's lock sees what the other transaction has
    /// committed.
    pub sees_commits_after_lock: bool,
    /// The median of five round trips.
    pub round_trip: Duration,
}

impl Trials {
    /// Tests the properties that a fleet relies on. Writes a row into the table of limits and
    /// deletes it again.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or does not know transactions over several
    /// statements.
    pub async fn run(at: &Database, clock: &Clock) -> Result<Self, StoreError> {
        const WHAT: &str = "try the locks of the database server";
        let (mut one, mut two) = (connect(at).await?, connect(at).await?);
        let key = format!("trial:{}", Uuid::new_v4());
        let tried = trial(&mut one, &mut two, &key, clock).await;
        let clean = sqlx::query("DELETE FROM limits WHERE key = $1").bind(&key);
        let cleaned = clean.execute(&mut one).await;
        let tried = tried.map_err(failed(WHAT))?;
        cleaned.map_err(failed(WHAT))?;
        for connection in [one, two] {
            connection.close().await.map_err(failed(WHAT))?;
        }
        Ok(tried)
    }
}

async fn trial(
    one: &mut PgConnection,
    two: &mut PgConnection,
    key: &str,
    clock: &Clock,
) -> Result<Trials, sqlx::Error> {
    const LOCK: &str = "SELECT cap FROM limits WHERE key = $1 FOR UPDATE";
    const STARTED: &str = "SELECT pg_postmaster_start_time()::text";
    let mut round_trips = Vec::new();
    for _ in 0..5 {
        let begun = clock.now();
        one.ping().await?;
        round_trips.push(clock.now().saturating_duration_since(begun));
    }
    round_trips.sort();
    let started: String = sqlx::query_scalar(STARTED).fetch_one(&mut *one).await?;
    let same: String = sqlx::query_scalar(STARTED).fetch_one(&mut *two).await?;
    let insert = sqlx::query("INSERT INTO limits (key, cap) VALUES ($1, 0)").bind(key);
    insert.execute(&mut *one).await?;
    let mut first = one.begin().await?;
    sqlx::query(LOCK).bind(key).execute(&mut *first).await?;
    sqlx::query("UPDATE limits SET cap = 7 WHERE key = $1").bind(key).execute(&mut *first).await?;
    let mut second = two.begin().await?;
    // The snapshot of the transaction begins before the other one commits, that of the last statement
    // after it.
    sqlx::query("SELECT 1").execute(&mut *second).await?;
    let waiting = async {
        sqlx::query(LOCK).bind(key).execute(&mut *second).await?;
        let read = sqlx::query_scalar::<_, i32>("SELECT cap FROM limits WHERE key = $1").bind(key);
        let cap = read.fetch_one(&mut *second).await?;
        second.commit().await?;
        Ok::<_, sqlx::Error>(cap)
    };
    let (cap, committed) = tokio::join!(waiting, first.commit());
    committed?;
    Ok(Trials {
        is_one_server: started == same,
        sees_commits_after_lock: cap? == 7,
        round_trip: round_trips.get(2).copied().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Server, Trials, connect_within, foreign, is_unreachable, wait_until_reachable};
    use crate::{Database, Store, StoreError, StoreOptions};
    use model::{Clock, Health};

    /// Accepts a connection of a PostgreSQL client and refuses it with this error code.
    async fn refuse(listener: &TcpListener, code: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut ask = [0; 8];
        stream.read_exact(&mut ask).await.unwrap();
        // No TLS; then the client sends its start-up message.
        stream.write_all(b"N").await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut rest = vec![0; length as usize - 4];
        stream.read_exact(&mut rest).await.unwrap();
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0");
        stream.write_all(b"E").await.unwrap();
        stream.write_u32(u32::try_from(fields.len() + 4).unwrap()).await.unwrap();
        stream.write_all(fields.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn a_start_waits_for_a_server_that_starts_and_not_after_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("postgres://user:wrong@127.0.0.1:{port}/offhook");
        let at = Database::Postgres(model::Secret::new(url));
        let server = tokio::spawn(async move {
            // It closes a connection, starts, and then wants another password.
            drop(listener.accept().await.unwrap());
            refuse(&listener, "57P03").await;
            refuse(&listener, "28P01").await;
        });
        wait_until_reachable(&at, Duration::from_secs(60)).await;
        server.await.unwrap();
        // Nobody listens any more.
        wait_until_reachable(&at, Duration::from_millis(10)).await;
        let file = Database::File("/nowhere/offhook.db".into());
        wait_until_reachable(&file, Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://user@{}/offhook", listener.local_addr().unwrap());
        let options = url.parse().unwrap();
        let error = connect_within(&options, Duration::from_millis(50)).await.unwrap_err();
        assert!(is_unreachable(&error), "{error}");
        assert!(error.to_string().contains("no answer within 50ms"), "{error}");
    }

    #[test]
    fn f48_other_engines_and_versions_are_refused() {
        assert_eq!(foreign("CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu)"), Some("CockroachDB"));
        assert_eq!(foreign("PostgreSQL 11.2-YB-2.19.0.0-b0 on x86_64"), Some("YugabyteDB"));
        assert_eq!(foreign("PostgreSQL 15.18 (Debian 15.18-0+deb12u1)"), None);
        let server = Server { version: 150_018, ..Server::unknown() };
        assert_eq!(server.refusal(), None);
        let refused = |server: Server| server.refusal().unwrap_or_default();
        assert!(
            refused(Server { version: 140_010, ..Server::unknown() }).contains("PostgreSQL 14")
        );
        assert!(refused(Server { is_standby: true, ..server }).contains("primary"));
        let other = Server { name: "CockroachDB".to_owned(), ..Server::unknown() };
        assert!(refused(other).contains("CockroachDB"));
    }

    #[tokio::test]
    async fn f48_postgresql_passes_the_trials() {
        let folder = tempfile::tempdir().unwrap();
        let at = crate::testing::place(&folder.path().join("offhook.db")).await;
        let Database::Postgres(_) = at else { return };
        let options = StoreOptions::with_journal_in(folder.path());
        let store = Store::open_with(at.clone(), options, Health::new()).await.unwrap();
        assert_eq!(Server::read(&at).await.unwrap().refusal(), None);
        let trials = Trials::run(&at, &Clock::real()).await.unwrap();
        assert!(trials.is_one_server && trials.sees_commits_after_lock, "{trials:?}");
        store.close().await;
    }

    #[tokio::test]
    async fn a_file_is_no_server() {
        let at = Database::File("offhook.db".into());
        assert!(matches!(Server::read(&at).await, Err(StoreError::Connect { .. })));
    }
}
