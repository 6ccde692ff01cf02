/// SQLite's primary result codes that are about a row or its statement (sqlite.org/rescode.html): ERROR, TOOBIG, CONSTRAINT,
/// MISMATCH, RANGE. The others are about the file, a lock or memory.
pub(crate) const SQLITE_OF_ENTRY: [i32; 5] = [1, 18, 19, 20, 25];

/// PostgreSQL's classes that are (PostgreSQL's Appendix A): cardinality, data, integrity, and limits of the program, among them
/// what an index can hold.
pub(crate) const POSTGRES_OF_ENTRY: [&str; 4] = ["21", "22", "23", "54"];

/// Whether it was what was written that the database did not take, whatever its state.
pub(crate) fn is_of_entry(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::RowNotFound => return true,
        _ => return false,
    };
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // A table that is gone is the file's fault.
        let of_schema = error.message().starts_with("no such ");
        return code.parse::<i32>().is_ok_and(|code| SQLITE_OF_ENTRY.contains(&(code & 0xff)))
            && !of_schema;
    }
    POSTGRES_OF_ENTRY.iter().any(|class| code.starts_with(class))
}

/// Whether it is the database that can't be reached or takes nothing now (gone, locked, full, read-only), and neither what was
/// asked of it nor how its answer was read.
pub(crate) fn is_of_state(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL's class 42 is about the statement: a fault of ours.
        sqlx::Error::Database(told) => {
            !is_of_entry(error) && !told.code().unwrap_or_default().starts_with("42")
        }
        _ => false,
    }
}
