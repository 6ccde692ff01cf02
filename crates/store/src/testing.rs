//! The databases of tests.
//!
//! A test names a SQLite file. If `OFFHOOK_TEST_POSTGRES` is set to a database's URL, it uses a
//! schema of that database instead, named by a hash of the file's path. One set of tests covers
//! both databases this way.

use std::path::Path;
use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::database::Database;
#[cfg(test)]
use crate::sql::{Pool, connect};
use model::Secret;

pub const VARIABLE: &str = "OFFHOOK_TEST_POSTGRES";

/// Returns whether this run tests PostgreSQL.
pub fn is_postgres() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Returns `true` and prints the reason if this run does not test SQLite.
pub fn skipped_on_postgres() -> bool {
    #[allow(clippy::print_stdout, reason = "reports a skipped test")]
    if is_postgres() {
        println!("skipped: tests SQLite only");
    }
    is_postgres()
}

/// Returns `true` and prints the reason if this run does not test PostgreSQL.
pub fn skipped_on_sqlite() -> bool {
    #[allow(clippy::print_stdout, reason = "reports a skipped test")]
    if !is_postgres() {
        println!("skipped: tests PostgreSQL only");
    }
    !is_postgres()
}

/// The database that stands for a test's file.
pub async fn place(file: &Path) -> Database {
    let Ok(url) = std::env::var(VARIABLE) else { return Database::File(file.to_owned()) };
    let sum =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.as_os_str().as_encoded_bytes());
    let schema = format!("t_{}", hex::encode(&sum.as_ref()[..10]));
    let mut admin: PgConnection =
        PgConnectOptions::from_str(&url).unwrap().connect().await.unwrap();
    let make = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    sqlx::query(AssertSqlSafe(make)).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Database::Postgres(Secret::new(format!("{url}?options[search_path]={schema}")))
}

/// Opens a separate connection to a test's store.
#[cfg(test)]
pub(crate) async fn pool(file: &Path) -> Pool {
    connect::open_beside_node(&place(file).await, false).await.unwrap()
}
