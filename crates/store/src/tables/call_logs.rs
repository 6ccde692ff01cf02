//! Event logs of calls. A row contains consecutive lines of a call that were written together,
//! compressed. A row per line would take a page of SQLite's file, or most of one.

use std::collections::BTreeMap;

use crate::error::{RowError, StoreError, failed};
use crate::sql::{self, Conn, Pool, QueryBuilder};
use model::CallUuid;

/// First sequence number of late lines. It is greater than the numbers of the lines from the call's
/// own task, which may still be in the queue.
const LATE_SEQ: i64 = 1_000_000;

/// Number of rows that are read and decompressed at a time.
const ROWS_READ: i64 = 16;

/// Maximum size in bytes of the lines of a row. A larger size in a row means that it is damaged.
const BYTES_MAX: usize = 1 << 30;

/// The parts of the `INSERT` statement for rows.
const INSERT: (&str, usize, &str) = (
    "INSERT INTO call_logs (call_uuid, seq, line_count, body) ",
    4,
    " ON CONFLICT (call_uuid, seq) DO NOTHING",
);

/// Consecutive lines of a call.
#[derive(Debug, PartialEq)]
struct Part {
    call: CallUuid,
    /// Sequence number of the first line.
    seq: i64,
    line_count: i64,
    /// The lines, each with a newline.
    text: String,
}

/// Joins consecutive lines of each call.
fn parts<'a>(lines: impl IntoIterator<Item = (CallUuid, u64, &'a str)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut last: BTreeMap<CallUuid, usize> = BTreeMap::new();
    for (call, seq, line) in lines {
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let before = last.get(&call).and_then(|at| parts.get_mut(*at));
        let part = match before.filter(|part| seq.checked_sub(part.seq) == Some(part.line_count)) {
            Some(part) => part,
            None => {
                last.insert(call, parts.len());
                parts.push(Part { call, seq, line_count: 0, text: String::new() });
                let Some(part) = parts.last_mut() else { continue };
                part
            }
        };
        part.line_count += 1;
        part.text.push_str(line);
        part.text.push('\n');
    }
    parts
}

fn compress(text: &str) -> Vec<u8> {
    lz4_flex::compress_prepend_size(text.as_bytes())
}

fn decompress(body: &[u8]) -> Result<String, RowError> {
    let (size, body) = lz4_flex::block::uncompressed_size(body).map_err(damaged)?;
    if size > BYTES_MAX {
        return Err(damaged("its size is too large"));
    }
    let text = lz4_flex::decompress(body, size).map_err(damaged)?;
    String::from_utf8(text).map_err(damaged)
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RowError {
    RowError::from(sqlx::Error::ColumnDecode { index: "body".to_owned(), source: error.into() })
}

/// Inserts lines of calls with their sequence numbers, in the order of the numbers.
pub(crate) async fn insert(
    to: &mut Conn,
    lines: impl IntoIterator<Item = (CallUuid, u64, &str)>,
) -> Result<(), sqlx::Error> {
    let parts = parts(lines);
    sql::insert_rows(to, INSERT, &parts, |mut row, part| {
        row.push_bind(part.call.to_string())
            .push_bind(part.seq)
            .push_bind(part.line_count)
            .push_bind(compress(&part.text));
    })
    .await
}

/// Appends lines to the logs of calls, after their existing lines. A log without lines has been
/// erased and stays empty.
pub(crate) async fn insert_late(
    to: &mut Conn,
    lines: impl IntoIterator<Item = (CallUuid, &str)>,
) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO call_logs (call_uuid, seq, line_count, body) SELECT $1, \
        CASE WHEN seq >= $2 THEN seq + line_count ELSE $2 END, 1, $3 FROM call_logs WHERE call_uuid = $1 \
        ORDER BY seq DESC LIMIT 1";
    let inserts = lines.into_iter().map(|(call, line)| {
        let body = compress(&format!("{line}\n"));
        sql::query(insert).bind(call.to_string()).bind(LATE_SEQ).bind(body)
    });
    sql::execute_each(to, inserts).await.map(drop)
}

/// Returns up to `limit` lines of a call with numbers greater than `after`, in order. `None` starts
/// at the first line.
pub(crate) async fn read(
    pool: &Pool,
    call: CallUuid,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, String)>, StoreError> {
    const WHAT: &str = "read an event log";
    let mut lines = Vec::new();
    let mut last = after.map_or(-1, |seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let first_row =
        "SELECT coalesce(max(seq), 0) FROM call_logs WHERE call_uuid = $1 AND seq <= $2";
    let first_row = sql::query_scalar::<i64>(first_row).bind(call.to_string()).bind(last);
    let mut row_seq = first_row.fetch_one(pool).await.map_err(failed(WHAT))?;
    loop {
        let select = "SELECT seq, body FROM call_logs WHERE call_uuid = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        let select = sql::query_as(select).bind(call.to_string()).bind(row_seq).bind(ROWS_READ);
        let rows: Vec<(i64, Vec<u8>)> = select.fetch_all(pool).await.map_err(failed(WHAT))?;
        let Some((seq, _)) = rows.last() else { return Ok(lines) };
        row_seq = seq.saturating_add(1);
        for (seq, body) in &rows {
            let text = decompress(body)
                .map_err(|e| StoreError::Unreadable { what: WHAT, detail: e.to_string() })?;
            // Lines of a repaired journal may be there twice.
            for (seq, line) in (*seq..).zip(text.lines()).filter(|(seq, _)| *seq > last) {
                if lines.len() >= limit {
                    return Ok(lines);
                }
                lines.push((u64::try_from(seq).unwrap_or_default(), line.to_owned()));
            }
            last =
                last.max(seq.saturating_add(i64::try_from(text.lines().count()).unwrap_or(0)) - 1);
        }
    }
}

/// Returns whether a line of a call's log contains a text.
pub(crate) async fn contains(pool: &Pool, call: CallUuid, text: &str) -> Result<bool, StoreError> {
    const LINES_READ: usize = 1_000;
    let mut after = None;
    loop {
        let lines = read(pool, call, after, LINES_READ).await?;
        if lines.iter().any(|(_, line)| line.contains(text)) {
            return Ok(true);
        }
        match lines.last() {
            Some((seq, _)) if lines.len() == LINES_READ => after = Some(*seq),
            Some(_) | None => return Ok(false),
        }
    }
}

/// Deletes the logs of these calls. Returns the number of deleted rows.
pub(crate) async fn delete(to: &mut Conn, calls: &[String]) -> Result<u64, sqlx::Error> {
    let mut delete = QueryBuilder::new("DELETE FROM call_logs WHERE call_uuid");
    delete.push_in(calls.iter().cloned());
    Ok(delete.build().execute(to).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::uuid;

    #[test]
    fn consecutive_lines_of_a_call_share_a_row() {
        let lines = [(1, 0, "a"), (2, 7, "b"), (1, 1, "c"), (1, 3, "d"), (2, 8, "e"), (1, 4, "f")];
        let joined = parts(lines.map(|(call, seq, line)| (uuid(call), seq, line)));
        let joined: Vec<_> = joined
            .iter()
            .map(|part| (part.call.0.as_u128(), part.seq, part.line_count, part.text.as_str()))
            .collect();
        assert_eq!(joined, [(1, 0, 2, "a\nc\n"), (2, 7, 2, "b\ne\n"), (1, 3, 2, "d\nf\n")]);
    }

    #[test]
    fn a_damaged_row_is_an_error() {
        let whole = compress("{\"at\":1}\n{\"at\":2}\n");
        assert_eq!(decompress(&whole).unwrap(), "{\"at\":1}\n{\"at\":2}\n");
        for n in 0..whole.len() {
            assert!(decompress(&whole[..n]).is_err(), "{n}");
        }
        assert!(decompress(&[0xff; 40]).is_err());
    }
}
