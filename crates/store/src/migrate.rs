//! Schema migrations, and the check that this version of Offhook can work with a store
//! (`docs/reference/reliability.md#r11`).
//!
//! Migrations go forward only, all missing ones in one transaction. A store that a newer Offhook has
//! migrated is refused with the name of that version. The table `_sqlx_migrations` is that of sqlx,
//! so that it can be read with its tools.

use crate::database::Database;
use crate::error::{CreatorVersion, StoreError};
use crate::sql::connect::open_beside_node;
use crate::sql::{self, Conn, Dialect, Pool};

/// A migration: version, description and SQL.
type File = (i64, &'static str, &'static str);

const SQLITE: &[File] = &[(1, "schema", include_str!("migrations/sqlite/0001_schema.sql"))];
const POSTGRES: &[File] = &[
    (1, "schema", include_str!("migrations/postgres/0001_schema.sql")),
    (2, "adoption", include_str!("migrations/postgres/0002_adoption.sql")),
];

const APPLIED_SQLITE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, \
    description TEXT NOT NULL, installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, \
    success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)";
const APPLIED_POSTGRES: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, \
    description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), \
    success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";

/// Key of the advisory lock that a migration holds on PostgreSQL: "offhook" in ASCII.
const LOCK: i64 = 0x6f_6666_686f_6f6b;

/// Migrates the store to the newest schema and notes which version of Offhook did it.
///
/// # Errors
/// Fails if the store was made by a newer Offhook or has another schema history, or if a migration
/// fails. The store is unchanged then.
pub(crate) async fn migrate(at: &Database, pool: &Pool) -> Result<(), StoreError> {
    apply(at, pool, files(pool.dialect())).await
}

fn files(dialect: Dialect) -> &'static [File] {
    match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    }
}

async fn apply(at: &Database, pool: &Pool, migrations: &[File]) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(failed(at))?;
    let applied = apply_missing(at, &mut connection, migrations).await;
    if applied.is_err() {
        // Rolls the transaction back.
        let _ = connection.close().await;
    }
    applied
}

async fn apply_missing(
    at: &Database,
    on: &mut Conn,
    migrations: &[File],
) -> Result<(), StoreError> {
    on.begin(true).await.map_err(failed(at))?;
    let table = match on.dialect() {
        Dialect::Sqlite => APPLIED_SQLITE,
        Dialect::Postgres => {
            let lock = sql::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
            lock.execute(&mut *on).await.map_err(failed(at))?;
            APPLIED_POSTGRES
        }
    };
    on.run_batch(table).await.map_err(failed(at))?;
    let applied = applied(at, on, migrations).await?;
    for file in migrations.iter().skip(applied) {
        on.run_batch(file.2).await.map_err(failed(at))?;
        let note = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES ($1, $2, TRUE, $3, 0)";
        let note = sql::query(note).bind(file.0).bind(file.1).bind(checksum(file));
        note.execute(&mut *on).await.map_err(failed(at))?;
    }
    let note = "INSERT INTO store_versions (schema, offhook) VALUES ($1, $2) ON CONFLICT (schema) DO NOTHING";
    let known = newest(migrations);
    let note = sql::query(note).bind(known).bind(env!("CARGO_PKG_VERSION"));
    note.execute(&mut *on).await.map_err(failed(at))?;
    on.commit().await.map_err(failed(at))
}

fn newest(migrations: &[File]) -> i64 {
    migrations.last().map(|file| file.0).unwrap_or_default()
}

/// Checks that this version of Offhook can work with a store that another process may have open.
/// Changes nothing.
///
/// # Errors
/// Fails if the store was made by a newer Offhook or has another schema history, or if it does not
/// answer.
pub async fn check_schema(at: &Database) -> Result<(), StoreError> {
    let pool = open_beside_node(at, true).await?;
    let mut connection = pool.acquire().await.map_err(failed(at))?;
    let checked = applied(at, &mut connection, files(pool.dialect())).await;
    let _ = connection.close().await;
    pool.close().await;
    checked.map(|_| ())
}

/// Returns how many of the migrations a store has.
async fn applied(at: &Database, on: &mut Conn, migrations: &[File]) -> Result<usize, StoreError> {
    let applied = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";
    let applied: Vec<(i64, Vec<u8>)> =
        sql::query_as(applied).fetch_all(&mut *on).await.map_err(failed(at))?;
    let is_ours = |(version, sum): &(i64, Vec<u8>)| {
        migrations.iter().any(|file| file.0 == *version && checksum(file) == *sum)
    };
    let known = newest(migrations);
    let (ours, later) = applied.split_at(applied.partition_point(|(version, _)| *version <= known));
    if !ours.iter().all(is_ours) {
        return Err(StoreError::OtherSchema { at: at.clone() });
    }
    if let Some((version, _)) = later.last() {
        let by = "SELECT offhook FROM store_versions WHERE schema = $1";
        let by = sql::query_scalar(by).bind(*version).fetch_optional(on).await;
        let by = CreatorVersion(by.unwrap_or_default());
        return Err(StoreError::Newer { at: at.clone(), version: *version, by, known });
    }
    Ok(ours.len())
}

fn failed(at: &Database) -> impl Fn(sqlx::Error) -> StoreError {
    |source| StoreError::Migrate { at: at.clone(), source }
}

/// The checksum of a migration: SHA-384 of its text.
fn checksum((_, _, text): &File) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, text.as_bytes()).as_ref().to_vec()
}

/// Selects the version of the newest migration in a store.
pub(crate) const SCHEMA: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::Store;
    use crate::testing::is_postgres;
    use crate::testing::place;
    use crate::testing::pool;
    use model::Health;

    #[tokio::test]
    async fn r11_a_migration_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/offhook.db");
        Store::open(&file, Health::new()).await.unwrap().close().await;
        let outside = pool(&file).await;
        let mut migrations = files(outside.dialect()).to_vec();
        for (version, _, text) in &migrations {
            assert!(!text.contains("DROP TABLE"), "{version}");
        }
        let half =
            "CREATE TABLE half (a TEXT); UPDATE calls SET cause = 'lost'; SELECT * FROM nowhere;";
        migrations.push((9000, "half", half));
        let failed = apply(&place(&file).await, &outside, &migrations).await.unwrap_err();
        assert!(matches!(failed, StoreError::Migrate { .. }), "{failed}");
        assert!(
            sql::query("SELECT count(*) FROM half").execute(&outside).await.is_err(),
            "the table does not exist"
        );
        outside.close().await;
        Store::open(&file, Health::new()).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn r11_an_older_binary_refuses_a_newer_store() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/offhook.db");
        Store::open(&file, Health::new()).await.unwrap().close().await;
        let later = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
            SELECT 9999, 'later', installed_on, success, checksum, 1 FROM _sqlx_migrations WHERE version = 1";
        let outside = pool(&file).await;
        sql::query(later).execute(&outside).await.unwrap();
        let made_by = "INSERT INTO store_versions VALUES (9999, '9.9.9')";
        sql::query(made_by).execute(&outside).await.unwrap();
        outside.close().await;
        let refused = Store::open(&file, Health::new()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Newer { version: 9999, .. }), "{refused}");
        assert!(refused.to_string().contains("Offhook 9.9.9 or later"), "{refused}");
    }

    #[tokio::test]
    async fn r11_a_store_with_another_schema_history_is_refused_and_left_as_it_is() {
        // Development versions had up to 34 migrations. The first one has the same number as that of
        // today.
        for last in [1, 34] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("data/offhook.db");
            Store::open(&file, Health::new()).await.unwrap().close().await;
            let outside = pool(&file).await;
            let other = if is_postgres() { "'\\x07'::bytea" } else { "x'07'" };
            let development =
                format!("UPDATE _sqlx_migrations SET description = 'calls', checksum = {other}");
            sql::query(development).execute(&outside).await.unwrap();
            let rest = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, \
                execution_time) SELECT $1, 'said', installed_on, success, checksum, 1 FROM _sqlx_migrations \
                WHERE version = 1 AND $1 > 1";
            sql::query(rest).bind(last).execute(&outside).await.unwrap();
            let refused = Store::open(&file, Health::new()).await.unwrap_err();
            assert!(matches!(refused, StoreError::OtherSchema { .. }), "{refused}");
            assert!(refused.to_string().contains("development version"), "{refused}");
            let count = "SELECT count(*) FROM _sqlx_migrations";
            let count: i64 = sql::query_scalar(count).fetch_one(&outside).await.unwrap();
            let applied = i64::try_from(files(outside.dialect()).len()).unwrap();
            assert_eq!(count, applied + i64::from(last > 1));
        }
    }

    /// One set of queries serves both databases, so both schemas have the same tables, columns and
    /// indexes; types and triggers differ. A fleet exists on PostgreSQL alone, so that a migration of
    /// what only a fleet has is not one of SQLite.
    #[test]
    fn both_schemas_have_the_same_tables_columns_and_indexes() {
        let [lite, post] = [(SQLITE, "sqlite"), (POSTGRES, "postgres")].map(|(files, dialect)| {
            let in_folder = std::fs::read_dir(format!("src/migrations/{dialect}")).unwrap().count();
            assert_eq!(files.len(), in_folder, "every file of {dialect} is in its list");
            let shared = |text: &'static str| text.split("-- Fleet ---").next().unwrap_or(text);
            let texts: Vec<_> = files.iter().map(|(_, _, text)| shared(text)).collect();
            (files.iter().map(|(version, ..)| *version).collect::<BTreeSet<_>>(), objects(&texts))
        });
        assert!(lite.0.is_subset(&post.0));
        assert_eq!(lite.1, post.1);
        assert!(lite.1.len() > 300);
        for (version, _, text) in POSTGRES {
            for word in ["ROWID", "AUTOINCREMENT", " BLOB", "RAISE(", " INTEGER"] {
                assert!(!text.contains(word), "{version}: {word}");
            }
        }
    }

    /// Returns the columns of all tables as `table.column`, and the text of all indexes, after these
    /// migrations. The SQL has one column per line.
    fn objects(texts: &[&str]) -> BTreeSet<String> {
        let plain: String = texts
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim_start().starts_with("--"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut objects = BTreeSet::new();
        for statement in plain.split(';').map(str::trim) {
            if let Some(table) = statement.strip_prefix("CREATE TABLE ") {
                let (name, columns) = table.split_once(" (").unwrap();
                let column = |line: &str| line.split_whitespace().next().map(str::to_owned);
                let columns = columns.lines().filter_map(column).filter(|word| word != ")");
                objects.extend(columns.map(|column| format!("{name}.{column}")));
            } else if statement.starts_with("CREATE INDEX")
                || statement.starts_with("CREATE UNIQUE INDEX")
            {
                objects.insert(statement.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        objects
    }
}
