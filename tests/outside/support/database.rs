//! Where the nodes of a run keep their records: each in a SQLite file in its folder or, with `OFFHOOK_TEST_POSTGRES` set to
//! a database's URL, in a schema of that database that belongs to the folder. One set of tests runs on both.

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

/// `true`, with the reason printed, where a test is about SQLite's file.
pub fn skipped_on_postgres() -> bool {
    #[allow(clippy::print_stderr, reason = "a skip is told")]
    if postgres().is_some() {
        eprintln!("skipped: it is about SQLite's file");
    }
    postgres().is_some()
}

/// `store.url` of a node in this folder; the schema is made.
pub fn url_of(folder: &Path) -> String {
    let Some(url) = postgres() else { return format!("sqlite://{}/offhook.db", folder.display()) };
    let sum = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        folder.as_os_str().as_encoded_bytes(),
    );
    let schema = format!("t_{}", hex::encode(&sum.as_ref()[..10]));
    let make = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    let admin = url.clone();
    // Called from tests that have a runtime, in the middle of what cannot wait.
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

/// The same store, for a test to look into; its node must have stopped.
pub async fn open(folder: &Path) -> Store {
    let at = match postgres() {
        None => Database::File(folder.join("offhook.db")),
        Some(_) => Database::Postgres(Secret::new(url_of(folder))),
    };
    Store::open_with(at, StoreOptions::with_journal_in(folder), Health::new())
        .await
        .expect("the node's store")
}

/// A row of four counts.
pub async fn counts(folder: &Path, query: &'static str) -> (i64, i64, i64, i64) {
    match postgres() {
        None => {
            let file =
                sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("offhook.db"));
            let mut store = file.connect().await.expect("the node's store");
            sqlx::query_as(query).fetch_one(&mut store).await.expect("counts")
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

/// Carries out one statement in the store of a node that has stopped.
pub async fn execute(folder: &Path, statement: &'static str, argument: &str) {
    match postgres() {
        None => {
            let file =
                sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("offhook.db"));
            let mut store = file.connect().await.expect("the node's store");
            sqlx::query(statement).bind(argument).execute(&mut store).await.expect("a change");
            store.close().await.expect("closed");
        }
        Some(_) => {
            let at = PgConnectOptions::from_str(&url_of(folder)).expect("a URL");
            let mut store = at.connect().await.expect("PostgreSQL");
            sqlx::query(statement).bind(argument).execute(&mut store).await.expect("a change");
            store.close().await.expect("closed");
        }
    }
}

/// How a command of `offhook` is told where this folder's node keeps its records: by the folder, which only a SQLite file
/// is found in, or by the node's configuration.
pub fn place(folder: &Path) -> [String; 2] {
    match postgres() {
        None => ["--data-dir".to_owned(), folder.display().to_string()],
        Some(_) => ["--config".to_owned(), folder.join("offhook.toml").display().to_string()],
    }
}
