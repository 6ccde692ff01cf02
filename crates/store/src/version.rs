//! Migrations, and which Offhook a store wants (R11): forward only, each in a transaction; a store that a newer
//! Offhook has migrated is refused with the name of that version.

mod postgres;

use sqlx::migrate::{MigrateError, Migrator};

use super::StoreError;
use super::sql::{self, Pool};
use crate::Database;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/migrations");

/// Brings the store up to date and notes who did it.
///
/// # Errors
/// A newer Offhook has been here, or a migration failed; then the store is as it was.
pub(super) async fn migrate(
    at: &Database,
    pool: &Pool,
    migrations: &Migrator,
) -> Result<(), StoreError> {
    let known = migrations.iter().map(|m| m.version).max().unwrap_or_default();
    let failed = |source| StoreError::Migrate { at: at.clone(), source };
    let run = match pool {
        Pool::Sqlite(pool) => migrations.run(pool).await,
        Pool::Postgres(pool) => postgres::of(migrations).run(pool).await,
    };
    match run {
        Ok(()) => {}
        Err(MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _)) => {
            let (version, by) = newest(pool).await.unwrap_or((version, None));
            return Err(StoreError::Newer { at: at.clone(), version, by: By(by), known });
        }
        Err(source) => return Err(failed(source)),
    }
    let note = "INSERT INTO store_versions (schema, offhook) VALUES ($1, $2) ON CONFLICT (schema) DO NOTHING";
    let noted = sql::query(note).bind(known).bind(env!("CARGO_PKG_VERSION")).execute(pool).await;
    noted.map(drop).map_err(|e| failed(MigrateError::Execute(e)))
}

/// The newest migration of a store.
pub(super) const SCHEMA: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";

/// The newest migration, and who made it.
async fn newest(pool: &Pool) -> Result<(i64, Option<String>), sqlx::Error> {
    let schema = sql::query_scalar(SCHEMA).fetch_one(pool).await?;
    let by = "SELECT offhook FROM store_versions WHERE schema = $1";
    let by = sql::query_scalar(by).bind(schema).fetch_optional(pool).await.unwrap_or_default();
    Ok((schema, by))
}

/// The Offhook that made a schema, if the store says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(pub Option<String>);

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            // Bounded and plain, whatever the table holds.
            Some(by) => by
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(40)
                .try_for_each(|c| write!(f, "{c}")),
            None => f.write_str("a newer version"),
        }
    }
}
