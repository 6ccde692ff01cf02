//! Schema migrations, and the check that this version of Offhook can work with a store
//! (`docs/reference/reliability.md#r11`).
//!
//! Migrations go forward only, each in a transaction of its own. A store that a newer Offhook has
//! migrated is refused with the name of that version.

use std::borrow::Cow;

use sqlx::SqlStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::database::Database;
use crate::error::{CreatorVersion, StoreError};
use crate::sql::{self, Pool};

/// A migration: version, description and SQL. A list instead of `sqlx::migrate!`, because that macro
/// compiles the drivers of both databases a second time, for the compiler.
type File = (i64, &'static str, &'static str);

const SQLITE: &[File] = &[(1, "schema", include_str!("migrations/sqlite/0001_schema.sql"))];
const POSTGRES: &[File] = &[(1, "schema", include_str!("migrations/postgres/0001_schema.sql"))];

fn migrator(files: &[File]) -> Migrator {
    let migration = |&(version, description, text): &File| {
        let sql = SqlStr::from_static(text);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// Migrates the store to the newest schema and notes which version of Offhook did it.
///
/// # Errors
/// Fails if the store was made by a newer Offhook or has another schema history, or if a migration
/// fails. The store is unchanged then, except for migrations that succeeded before the failed one.
pub(crate) async fn migrate(at: &Database, pool: &Pool) -> Result<(), StoreError> {
    let files = match pool {
        Pool::Sqlite(_) => SQLITE,
        Pool::Postgres(_) => POSTGRES,
    };
    apply(at, pool, &migrator(files)).await
}

async fn apply(at: &Database, pool: &Pool, migrations: &Migrator) -> Result<(), StoreError> {
    let known = migrations.iter().map(|m| m.version).max().unwrap_or_default();
    let failed = |source| StoreError::Migrate { at: at.clone(), source };
    let run = match pool {
        Pool::Sqlite(pool) => migrations.run(pool).await,
        Pool::Postgres(pool) => migrations.run(pool).await,
    };
    match run {
        Ok(()) => {}
        Err(MigrateError::VersionMismatch(_)) => {
            return Err(StoreError::OtherSchema { at: at.clone() });
        }
        Err(MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _)) => {
            if has_other_history(pool, migrations).await {
                return Err(StoreError::OtherSchema { at: at.clone() });
            }
            let (version, by) = newest(pool).await.unwrap_or((version, None));
            return Err(StoreError::Newer {
                at: at.clone(),
                version,
                by: CreatorVersion(by),
                known,
            });
        }
        Err(source) => return Err(failed(source)),
    }
    let note = "INSERT INTO store_versions (schema, offhook) VALUES ($1, $2) ON CONFLICT (schema) DO NOTHING";
    let noted = sql::query(note).bind(known).bind(env!("CARGO_PKG_VERSION")).execute(pool).await;
    noted.map(drop).map_err(|e| failed(MigrateError::Execute(e)))
}

/// Returns whether a migration was applied to the store from another file than the one known here.
async fn has_other_history(pool: &Pool, migrations: &Migrator) -> bool {
    let applied = "SELECT version, checksum FROM _sqlx_migrations";
    let applied: Result<Vec<(i64, Vec<u8>)>, _> = sql::query_as(applied).fetch_all(pool).await;
    applied.unwrap_or_default().iter().any(|(version, checksum)| {
        migrations.iter().any(|m| m.version == *version && *m.checksum != **checksum)
    })
}

/// Selects the version of the newest migration in a store.
pub(crate) const SCHEMA: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";

/// Returns the version of the newest migration, and the Offhook that applied it.
async fn newest(pool: &Pool) -> Result<(i64, Option<String>), sqlx::Error> {
    let schema = sql::query_scalar(SCHEMA).fetch_one(pool).await?;
    let by = "SELECT offhook FROM store_versions WHERE schema = $1";
    let by = sql::query_scalar(by).bind(schema).fetch_optional(pool).await.unwrap_or_default();
    Ok((schema, by))
}

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
        let migrations = folder.path().join("migrations");
        std::fs::create_dir(&migrations).unwrap();
        let dialect = if is_postgres() { "postgres" } else { "sqlite" };
        for entry in std::fs::read_dir(format!("src/migrations/{dialect}")).unwrap() {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let is_safe = !text.contains("no-transaction") && !text.contains("DROP TABLE");
            assert!(is_safe, "{:?}", entry.path());
            std::fs::write(migrations.join(entry.file_name()), text).unwrap();
        }
        let half =
            "CREATE TABLE half (a TEXT); UPDATE calls SET cause = 'lost'; SELECT * FROM nowhere;";
        std::fs::write(migrations.join("9000_half.sql"), half).unwrap();
        let migrations = Migrator::new(migrations.as_path()).await.unwrap();
        let outside = pool(&file).await;
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
            let applied = i64::try_from(SQLITE.len()).unwrap();
            assert_eq!(count, applied + i64::from(last > 1));
        }
    }

    /// One set of queries serves both databases, so both files define the same tables, columns and
    /// indexes; types and triggers differ.
    #[test]
    fn both_schemas_have_the_same_tables_columns_and_indexes() {
        let [lite, post] = [(SQLITE, "sqlite"), (POSTGRES, "postgres")].map(|(files, dialect)| {
            let in_folder = std::fs::read_dir(format!("src/migrations/{dialect}")).unwrap().count();
            assert_eq!(files.len(), in_folder, "every file of {dialect} is in its list");
            let texts: Vec<_> = files.iter().map(|(_, _, text)| *text).collect();
            (files.iter().map(|(version, ..)| *version).collect::<Vec<_>>(), objects(&texts))
        });
        assert_eq!(lite, post);
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
