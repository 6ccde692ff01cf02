//! The nodes' stores: a SQLite file in each node's folder or, if `OFFHOOK_TEST_POSTGRES` is set to
//! a database URL, a schema of that database per folder. The same tests run on both.

use std::path::Path;
use std::str::FromStr as _;

use model::Health;
use model::Secret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use store::Database;
use store::{Store, StoreOptions};

fn postgres() -> Option<String> {
    std::env::var("OFFHOOK_TEST_POSTGRES").ok()
}

/// Whether the stores are in PostgreSQL.
pub fn is_postgres() -> bool {
    postgres().is_some()
}

/// Returns true and prints the reason if PostgreSQL is used, for tests of the SQLite file.
pub fn skipped_on_postgres() -> bool {
    #[allow(clippy::print_stderr, reason = "a skip is told")]
    if postgres().is_some() {
        eprintln!("skipped: it is about SQLite's file");
    }
    postgres().is_some()
}

/// Returns true and prints the reason if there is no PostgreSQL, for tests of a fleet.
pub fn skipped_without_postgres() -> bool {
    #[allow(clippy::print_stderr, reason = "a skip is told")]
    if postgres().is_none() {
        eprintln!("skipped: a fleet needs PostgreSQL (OFFHOOK_TEST_POSTGRES)");
    }
    postgres().is_none()
}

/// Creates the schema if needed. Returns the `store.url` of a node in this folder.
pub fn url_of(folder: &Path) -> String {
    let Some(url) = postgres() else { return format!("sqlite://{}/offhook.db", folder.display()) };
    let sum = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        folder.as_os_str().as_encoded_bytes(),
    );
    let schema = format!("t_{}", hex::encode(&sum.as_ref()[..10]));
    let make = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    let admin = url.clone();
    // Called from synchronous code inside a runtime, so this needs a separate thread.
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut admin = PgConnectOptions::from_str(&admin)
                .expect("a URL")
                .connect()
                .await
                .expect("PostgreSQL");
            sqlx::query(AssertSqlSafe(make)).execute(&mut admin).await.expect("a schema");
            admin.close().await.expect("an end");
        });
    })
    .join()
    .expect("a schema");
    format!("{url}?options[search_path]={schema}")
}

/// Returns the port of the PostgreSQL server.
pub fn port() -> u16 {
    let url = postgres().expect("PostgreSQL");
    PgConnectOptions::from_str(&url).expect("a URL").get_port()
}

/// Returns [`url_of`] with another port, if there is one.
pub fn url_at(folder: &Path, other: Option<u16>) -> String {
    let url = url_of(folder);
    match other {
        Some(other) => url.replacen(&format!(":{}/", port()), &format!(":{other}/"), 1),
        None => url,
    }
}

/// Opens the store of a stopped node.
pub async fn open(folder: &Path) -> Store {
    let at = match postgres() {
        None => Database::File(folder.join("offhook.db")),
        Some(_) => Database::Postgres(Secret::new(url_of(folder))),
    };
    Store::open_with(at, StoreOptions::with_journal_in(folder), Health::new())
        .await
        .expect("the node's store")
}

/// Returns one row with four counts.
pub async fn counts(folder: &Path, query: &'static str) -> (i64, i64, i64, i64) {
    match postgres() {
        None => {
            let store = rusqlite::Connection::open(folder.join("offhook.db")).expect("a store");
            let counts = |row: &rusqlite::Row<'_>| row.try_into();
            store.query_one(query, [], counts).expect("counts")
        }
        Some(_) => {
            let store = PgConnectOptions::from_str(&url_of(folder)).expect("a URL");
            sqlx::query_as(query)
                .fetch_one(&mut store.connect().await.expect("PostgreSQL"))
                .await
                .expect("counts")
        }
    }
}

/// Executes one statement in the store of a stopped node.
pub async fn execute(folder: &Path, statement: &'static str, argument: &str) {
    match postgres() {
        None => {
            let store = rusqlite::Connection::open(folder.join("offhook.db")).expect("a store");
            store.execute(statement, [argument]).expect("a change");
        }
        Some(_) => {
            let at = PgConnectOptions::from_str(&url_of(folder)).expect("a URL");
            let mut store = at.connect().await.expect("PostgreSQL");
            sqlx::query(statement).bind(argument).execute(&mut store).await.expect("a change");
            store.close().await.expect("closed");
        }
    }
}

/// Has PostgreSQL refuse all writes to these tables, or to all without names, like a server that is
/// read-only or has no space left.
pub async fn refuse_writes(folder: &Path, tables: &[&str]) {
    let names: Vec<String> = tables.iter().map(|table| format!("'{table}'")).collect();
    let which = match names.is_empty() {
        true => String::new(),
        false => format!(" AND tablename IN ({})", names.join(", ")),
    };
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'no space left'; END $$; \
         DO $$ DECLARE t text; BEGIN \
         FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema(){which} LOOP \
         EXECUTE format('CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON %I \
         FOR EACH STATEMENT EXECUTE FUNCTION refuse()', t); END LOOP; END $$"
    );
    run(folder, refuse).await;
}

/// Ends [`refuse_writes`].
pub async fn allow_writes(folder: &Path) {
    run(folder, "DROP FUNCTION refuse() CASCADE".to_owned()).await;
}

/// Executes statements in one transaction, again if it deadlocks with one of a node.
async fn run(folder: &Path, statements: String) {
    let at = PgConnectOptions::from_str(&url_of(folder)).expect("a URL");
    let mut store = at.connect().await.expect("PostgreSQL");
    let is_deadlock = |error: &sqlx::Error| {
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("40P01"))
    };
    loop {
        match sqlx::raw_sql(AssertSqlSafe(statements.clone())).execute(&mut store).await {
            Err(error) if is_deadlock(&error) => {}
            done => {
                done.expect("a change");
                break;
            }
        }
    }
    store.close().await.expect("closed");
}

/// Returns the arguments that name this node's store to a command of `offhook`: the folder, which
/// works for SQLite only, or the configuration.
pub fn place(folder: &Path) -> [String; 2] {
    match postgres() {
        None => ["--data-dir".to_owned(), folder.display().to_string()],
        Some(_) => ["--config".to_owned(), folder.join("offhook.toml").display().to_string()],
    }
}
