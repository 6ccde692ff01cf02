//! Errors of the store.

use std::path::PathBuf;

use crate::database::Database;
use model::metric;

/// The reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not open the store {at}: {source}")]
    Open {
        at: Database,
        #[source]
        source: std::io::Error,
    },
    #[error("could not load the store's encryption key in {}: {source}", folder.display())]
    Key {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not open the store {at}: {source}{}", remedy(source))]
    Connect {
        at: Database,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "could not open the store {at}: another process uses {key}; stop that process, or set another {key} for this one"
    )]
    InUse { at: Database, key: &'static str },
    #[error(
        "could not open the store {at}: another process uses it as node {node_id}; stop that process, or set another \
         cluster.node_id for this one on a shared database, another store.data_dir and store.url otherwise"
    )]
    HeldAs { at: Database, node_id: String },
    #[error("could not open the store {at}: {why}")]
    Unsupported { at: Database, why: String },
    /// A database in which no node has created the tables yet.
    #[error(
        "could not open the store {at}: it has no tables yet; the node creates them at its first start"
    )]
    Empty { at: Database },
    /// A newer Offhook has migrated the store.
    #[error(
        "could not open the store {at}: it has schema {version}, made by Offhook {by}; this is Offhook {}, which supports schemas up to \
         {known}. Start Offhook {by} or later, or restore a backup from before the update",
        env!("CARGO_PKG_VERSION")
    )]
    Newer { at: Database, version: i64, by: CreatorVersion, known: i64 },
    /// The applied migrations are not those of this version.
    #[error(
        "could not open the store {at}: it was made by a development version of Offhook, whose schema this version can't \
         migrate. Move the database away, or name another one in store.url, and start with an empty store"
    )]
    OtherSchema { at: Database },
    #[error("could not migrate the store {at}: {source}{}", remedy(source))]
    Migrate {
        at: Database,
        #[source]
        source: sqlx::Error,
    },
    #[error("could not start the store's thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("could not {what}: {source}{}", remedy(source))]
    Query {
        what: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("could not {what}: unreadable row in the database: {detail}")]
    Unreadable { what: &'static str, detail: String },
    #[error("could not write: the store is closed")]
    Closed,
    #[error("the database rejects writes at present; nothing has changed")]
    NotTaken,
    #[error("the change conflicts with changes of other nodes; nothing has changed")]
    Contended,
    /// The write is not lost: it takes effect once the database accepts writes again.
    #[error(
        "the database rejects writes at present; the change is in the journal and is written when the database accepts writes again"
    )]
    Journalled,
}

impl StoreError {
    /// Returns whether a retry may succeed: the database is unreachable, locked, full or closed,
    /// and the request itself is valid.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Query { source, .. } => crate::sql::errors::is_unavailable(source),
            Self::Closed
            | Self::NotTaken
            | Self::Journalled
            | Self::Open { .. }
            | Self::Connect { .. } => true,
            Self::Key { .. }
            | Self::Unsupported { .. }
            | Self::InUse { .. }
            | Self::HeldAs { .. }
            | Self::Empty { .. }
            | Self::Newer { .. }
            | Self::OtherSchema { .. }
            | Self::Migrate { .. }
            | Self::Thread(_)
            | Self::Contended
            | Self::Unreadable { .. } => false,
        }
    }
}

/// The remedy for a damaged SQLite file or a full PostgreSQL server, at the end of an error text.
/// Empty for other errors.
fn remedy(source: &sqlx::Error) -> &'static str {
    if crate::sql::errors::is_damaged(source) {
        "; the file is damaged: stop the node, move the file away with its side files, and restore a backup \
         (docs/operations.md#backup-and-restore)"
    } else if crate::sql::errors::is_out_of_connections(source) {
        "; a node uses up to 18 connections: raise max_connections of the PostgreSQL server or the connection limit of \
         the role or database, or end other connections (pg_stat_activity lists them)"
    } else {
        ""
    }
}

/// Returns a function that counts a failed statement and adds the name of the operation to its
/// error.
pub(crate) fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
        StoreError::Query { what, source }
    }
}

pub(crate) type RowError = Box<dyn std::error::Error + Send + Sync>;

/// Parses an enum value from its serde name.
pub(crate) fn parse_word<T: serde::de::DeserializeOwned>(
    text: &str,
) -> Result<T, serde_json::Error> {
    serde_json::from_value(text.into())
}

/// The version of Offhook that created a schema. `None` if the store does not contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatorVersion(pub Option<String>);

impl std::fmt::Display for CreatorVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            // The table is untrusted: print short ASCII text only.
            Some(by) => by
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(40)
                .try_for_each(|c| write!(f, "{c}")),
            None => f.write_str("a newer version"),
        }
    }
}
