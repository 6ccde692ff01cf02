use crate::sql::sqlite::SqliteError;

/// SQLite's primary result codes for a fault of the row or the statement: ERROR, TOOBIG,
/// CONSTRAINT, MISMATCH and RANGE (<https://www.sqlite.org/rescode.html>). The others are about the
/// file, a lock or memory.
pub(crate) const SQLITE_DATA_ERRORS: [i32; 5] = [1, 18, 19, 20, 25];

/// PostgreSQL's error classes for a fault of the row (PostgreSQL documentation, appendix A):
/// cardinality violation, data exception, integrity constraint violation and program limit
/// exceeded, such as a value that is too long for an index.
pub(crate) const POSTGRES_DATA_ERRORS: [&str; 4] = ["21", "22", "23", "54"];

/// Returns whether the database rejected the data itself, so that a retry would fail too.
pub(crate) fn is_data_error(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::RowNotFound => return true,
        _ => return false,
    };
    if let Some(sqlite) = error.try_downcast_ref::<SqliteError>() {
        // A missing table is a fault of the database file.
        let of_schema = error.message().starts_with("no such ");
        return SQLITE_DATA_ERRORS.contains(&(sqlite.code & 0xff)) && !of_schema;
    }
    let code = error.code().unwrap_or_default();
    POSTGRES_DATA_ERRORS.iter().any(|class| code.starts_with(class))
}

/// Returns whether the SQLite file is damaged: CORRUPT or NOTADB.
pub(crate) fn is_damaged(error: &sqlx::Error) -> bool {
    let sqlite = error.as_database_error().and_then(|e| e.try_downcast_ref::<SqliteError>());
    sqlite.is_some_and(|sqlite| [11, 26].contains(&(sqlite.code & 0xff)))
}

/// Returns whether a database server does not answer, or not yet: no connection, or it starts or
/// stops (57P01 to 57P03). A refused password or an unknown database is an answer.
pub(crate) fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(db_error) => {
            db_error.code().is_some_and(|code| ["57P01", "57P02", "57P03"].contains(&&*code))
        }
        _ => false,
    }
}

/// Returns whether the connection limit of the PostgreSQL server, role or database is reached.
pub(crate) fn is_out_of_connections(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "53300")
}

/// Returns whether PostgreSQL has rolled the transaction back in favour of another one.
pub(crate) fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "40P01")
}

/// Returns whether the database is unreachable or accepts no writes for now (locked, full,
/// read-only), as opposed to a fault in the statement or in reading its result.
pub(crate) fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Class 42 is a fault in the statement, that is, a bug.
        sqlx::Error::Database(db_error) => {
            !is_data_error(error) && !db_error.code().unwrap_or_default().starts_with("42")
        }
        _ => false,
    }
}
