//! Executes a batch of writes in one transaction.

use uuid::Uuid;

use crate::rows::call::{Conclusion, ConclusionResult, ReportedEnd};
use crate::rows::callback::{NewCallback, Settlement};
use crate::rows::conversation::RoutingState;
use crate::rows::event_key::SeenKey;
use crate::rows::message::{InboxResult, TimelineEntry};
use crate::seal::Seal;
use crate::sql::{self, Conn, Dialect};
use crate::tables::calls::{self, OpenCall};
use crate::tables::{call_logs, endpoints, event_keys, messages, outbox, permissions, recordings};
use crate::write::{Write, WriteResult};
use crate::writer::batches::NextBatch;
use crate::writer::inbox;
use model::CallUuid;

/// The result of a batch.
pub(crate) struct Written {
    /// The results of those writes that have one, in order.
    pub(crate) results: Vec<WriteResult>,
    /// The calls whose start was not written because another node has a call with the same id at
    /// Meta.
    pub(crate) withdrawn: Vec<CallUuid>,
    /// The number of the batch. `None` outside a fleet.
    pub(crate) number: Option<i64>,
}

/// Executes a batch in one transaction.
pub(crate) async fn write_batch(
    to: &mut Conn,
    seal: &Seal,
    next: Option<NextBatch>,
    batch: &[Write],
) -> Result<Written, sqlx::Error> {
    // Call ends and the outbox must be synced. On an error, the caller closes the connection, which
    // rolls the transaction back.
    let synced = batch.iter().any(Write::is_synced);
    begin(to, synced, next, async |to| write_all(to, seal, batch).await).await
}

/// Executes writes in one transaction, with the number of the batch.
async fn begin(
    to: &mut Conn,
    synced: bool,
    next: Option<NextBatch>,
    write: impl AsyncFnOnce(&mut Conn) -> Result<(Vec<WriteResult>, Vec<CallUuid>), sqlx::Error>,
) -> Result<Written, sqlx::Error> {
    to.begin(synced).await?;
    let number = match next {
        Some(next) => Some(next.begin(to).await?),
        None => None,
    };
    let (results, withdrawn) = write(to).await?;
    to.commit().await?;
    Ok(Written { results, withdrawn, number })
}

/// Executes entries of the journal and records the number of entries replayed so far, in one
/// transaction.
pub(crate) async fn replay_entries(
    to: &mut Conn,
    seal: &Seal,
    next: Option<NextBatch>,
    journal: Uuid,
    writes: &[Write],
    seen: u64,
) -> Result<Written, sqlx::Error> {
    begin(to, true, next, async |to| {
        let written = write_all(to, seal, writes).await?;
        note_replayed(to, journal, seen).await?;
        Ok(written)
    })
    .await
}

/// Records the number of replayed entries of a journal.
async fn note_replayed(to: &mut Conn, journal: Uuid, seen: u64) -> Result<(), sqlx::Error> {
    let note = "INSERT INTO store_journals (journal, replayed) VALUES ($1, $2) \
        ON CONFLICT (journal) DO UPDATE SET replayed = excluded.replayed";
    let note =
        sql::query(note).bind(journal.to_string()).bind(i64::try_from(seen).unwrap_or(i64::MAX));
    note.execute(to).await.map(drop)
}

async fn write_all<'a>(
    to: &mut Conn,
    seal: &Seal,
    batch: &'a [Write],
) -> Result<(Vec<WriteResult>, Vec<CallUuid>), sqlx::Error> {
    lock_roots(to, batch).await?;
    let mut found = Vec::new();
    let (mut lines, mut late, mut keys) = (Vec::new(), Vec::new(), Vec::<SeenKey>::new());
    // The starts come first, because all other rows of a call refer to its row.
    let start = |write: &'a Write| match write {
        Write::CallStarted(call) => {
            Some((&call.start, Some(OpenCall { setup: &call.setup, born: call.born })))
        }
        _ => None,
    };
    let starts: Vec<_> = batch.iter().filter_map(start).collect();
    let withdrawn = calls::insert_all(to, &starts).await?;
    let answered: Vec<_> = batch.iter().filter_map(Write::answered).collect();
    calls::record_answered(to, &answered).await?;
    // These concern rows of earlier batches. A callback that waits for one of them can be sent once
    // it is settled.
    let settled: Vec<_> = batch.iter().filter_map(Write::settlement).collect();
    let mut settled = outbox::settle(to, &settled).await?.into_iter();
    let commute = batch.iter().all(Write::commutes);
    let mut by_kind =
        if commute { execute_by_kind(to, seal, batch).await? } else { Vec::new() }.into_iter();
    for write in batch {
        match write {
            Write::CallStarted(_) | Write::CallAnswered(..) => {}
            Write::SettleCallback(..) => {
                found.extend(settled.next().map(WriteResult::SettleCallback))
            }
            Write::CallEnded(..)
            | Write::CallReported(_)
            | Write::Callback(..)
            | Write::Inbox(..)
                if commute =>
            {
                found.extend(by_kind.next())
            }
            Write::SetWacid(call, wacid, farewell) => {
                calls::record_wacid(to, *call, wacid, *farewell).await?
            }
            Write::Heartbeat(node_id, at) => calls::alive(to, node_id, *at).await?,
            Write::LogLine { call, seq, line } => lines.push((*call, *seq, line.as_str())),
            Write::LateLine { call, line } => late.push((*call, line.as_str())),
            Write::CallEnded(conclusion, _) => {
                found.push(WriteResult::CallEnded(conclude(to, seal, conclusion, None).await?))
            }
            Write::CallReported(end) => {
                let concluded = conclude(to, seal, &end.conclusion, Some(end)).await?;
                found.push(WriteResult::CallEnded(concluded))
            }
            Write::Callback(new, _) => {
                found.push(WriteResult::Callback(outbox::insert(to, seal, (**new).clone()).await?))
            }
            Write::SettleFarewell(call, again) => calls::farewell(to, *call, *again).await?,
            Write::TakeOverFarewells(node_id) => calls::farewells_due(to, node_id).await?,
            Write::InsertKey(key) => keys.push(*key),
            Write::RemoveKey(key) => {
                keys.retain(|other| other.key != *key);
                event_keys::delete(to, *key).await?;
            }
            Write::Permission(write, _) => permissions::write(to, write).await?,
            Write::Inbox(write, _) => {
                found.push(WriteResult::Inbox(inbox::write(to, seal, write).await?))
            }
            Write::DeletePermission(number, user, before, pair) => {
                permissions::delete(to, number, user, *before, pair.as_deref()).await?
            }
            Write::Endpoint(write, _) => {
                found.push(WriteResult::Endpoint(endpoints::write(to, write).await?))
            }
            Write::RecordingStarted(start) => recordings::begin(to, start).await?,
            Write::RecordingEnded(conclusion, _) => {
                found.push(WriteResult::RecordingEnded(
                    recordings::conclude(to, seal, conclusion).await?,
                ));
            }
            Write::Task(task, _) => found.push(WriteResult::Task(task.execute(to, seal).await?)),
            Write::Transcription(write, _) => {
                found.push(WriteResult::RecordingEnded(
                    recordings::transcription_callback(to, seal, write).await?,
                ));
            }
            Write::RecordingCopy(write, _) => recordings::write_copy(to, write).await?,
            Write::DeleteRecordings(ids, _) => recordings::delete(to, ids).await?,
            Write::DeleteOldKeys(before) => event_keys::delete_oldest(to, *before).await?,
            Write::Flush(_) => {}
        }
    }
    call_logs::insert(to, lines).await?;
    call_logs::insert_late(to, late).await?;
    event_keys::insert(to, &keys).await?;
    Ok((found, withdrawn))
}

/// Locks the rows that the batch reads and changes, and that other nodes may change, too: first
/// conversations, then owners of numbers, then permissions, each in order. What the batch reads
/// after that stays as it is until the batch is committed. SQLite has one writer.
async fn lock_roots(to: &mut Conn, batch: &[Write]) -> Result<(), sqlx::Error> {
    if to.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    let conversations: Vec<String> =
        batch.iter().filter_map(Write::conversation).map(|id| id.to_string()).collect();
    if !conversations.is_empty() {
        let lock = "SELECT 1 FROM conversations WHERE conversation_id = ANY (string_to_array($1, ' ')) \
            ORDER BY conversation_id FOR UPDATE";
        sql::query(lock).bind(conversations.join(" ")).execute(&mut *to).await?;
    }
    // An agent's answer depends on the routing of the number.
    let answered: Vec<String> =
        batch.iter().filter_map(Write::answered_conversation).map(|id| id.to_string()).collect();
    if !answered.is_empty() {
        let lock = "SELECT 1 FROM number_tenures WHERE phone_number_id IN (SELECT phone_number_id FROM conversations \
            WHERE conversation_id = ANY (string_to_array($1, ' '))) ORDER BY phone_number_id FOR SHARE";
        sql::query(lock).bind(answered.join(" ")).execute(&mut *to).await?;
    }
    let (numbers, users): (Vec<&str>, Vec<&str>) = batch
        .iter()
        .filter_map(Write::permission)
        .map(|row| (row.number.as_str(), &*row.user))
        .unzip();
    // A single row is locked when it is written.
    if numbers.len() > 1 {
        let lock = "SELECT 1 FROM permissions WHERE (phone_number_id, \"user\") IN \
            (SELECT * FROM unnest(string_to_array($1, ' '), string_to_array($2, ' '))) \
            ORDER BY phone_number_id, \"user\" FOR UPDATE";
        sql::query(lock).bind(numbers.join(" ")).bind(users.join(" ")).execute(to).await?;
    }
    Ok(())
}

/// Executes the call ends, inbound messages and callbacks of a batch, kind by kind and in order
/// within each kind. All other writes of the batch must commute with them.
async fn execute_by_kind(
    to: &mut Conn,
    seal: &Seal,
    batch: &[Write],
) -> Result<Vec<WriteResult>, sqlx::Error> {
    let ends: Vec<&Conclusion> = batch.iter().filter_map(Write::conclusion).collect();
    let mut changed = calls::close(to, ends.iter().copied()).await?;
    for (c, changed) in ends.iter().zip(&mut changed) {
        if !*changed {
            *changed = insert_and_close(to, c).await?;
        }
    }
    let inbound: Vec<&TimelineEntry> = batch.iter().filter_map(Write::entry).collect();
    let mut changed = changed.into_iter();
    let mut entries = messages::insert_entries(to, &inbound).await?.into_iter();
    // In the order of the queue across all kinds, because callbacks of one conversation are sent in
    // order.
    let mut reports = Vec::new();
    let mut done = Vec::new();
    for write in batch {
        let before = reports.len();
        let what = match write {
            Write::CallEnded(c, _) => {
                let changed = changed.next().unwrap_or_default();
                reports.extend(unsettled(c.callbacks.iter().filter(|_| changed).cloned()));
                KindResult::Ended(changed)
            }
            Write::CallReported(end) => {
                let changed = changed.next().unwrap_or_default();
                let callbacks = end.conclusion.callbacks.iter().filter(|_| changed);
                reports.extend(callbacks.map(|new| (new.clone(), end.settlement(new))));
                KindResult::Ended(changed)
            }
            Write::Callback(new, _) => {
                reports.extend(unsettled([(**new).clone()]));
                KindResult::Callback
            }
            Write::Inbox(..) => {
                let (found, callbacks) =
                    entries.next().flatten().map(|new| (new.found, new.callbacks)).unzip();
                reports.extend(unsettled(callbacks.unwrap_or_default()));
                KindResult::Entry(found)
            }
            _ => continue,
        };
        done.push((what, reports.len() - before));
    }
    let mut written = outbox::insert_settled(to, seal, reports).await?.into_iter();
    let found = |(what, reports)| {
        let mut callbacks = written.by_ref().take(reports);
        match what {
            KindResult::Ended(changed) => Some(WriteResult::CallEnded(ConclusionResult {
                changed,
                callbacks: callbacks.collect(),
            })),
            KindResult::Callback => callbacks.next().map(WriteResult::Callback),
            KindResult::Entry(found) => {
                Some(WriteResult::Inbox(InboxResult::Entry(found, callbacks.collect())))
            }
        }
    };
    Ok(done.into_iter().filter_map(found).collect())
}

/// The result of a write in [`execute_by_kind`], without the callbacks.
enum KindResult {
    Ended(bool),
    Callback,
    Entry(Option<(RoutingState, u64)>),
}

/// Returns the callbacks that have not been sent yet.
fn unsettled<'a>(
    callbacks: impl IntoIterator<Item = NewCallback>,
) -> impl Iterator<Item = (NewCallback, Option<&'a Settlement>)> {
    callbacks.into_iter().map(|new| (new, None))
}

/// Closes the record of a call and adds its callbacks to the outbox, with the results in
/// `reported`. Does neither if the call had already ended.
pub(crate) async fn conclude(
    to: &mut Conn,
    seal: &Seal,
    c: &Conclusion,
    reported: Option<&ReportedEnd>,
) -> Result<ConclusionResult, sqlx::Error> {
    if !close(to, c).await? {
        return Ok(ConclusionResult::default());
    }
    let settled = |new| reported.and_then(|end| end.settlement(new));
    let callbacks = c.callbacks.iter().map(|new| (new.clone(), settled(new))).collect();
    let callbacks = outbox::insert_settled(to, seal, callbacks).await?;
    Ok(ConclusionResult { changed: true, callbacks })
}

async fn close(to: &mut Conn, c: &Conclusion) -> Result<bool, sqlx::Error> {
    if calls::close(to, [c]).await?.contains(&true) {
        return Ok(true);
    }
    insert_and_close(to, c).await
}

/// Inserts the record of a call and closes it, in case its start was lost. Called if no open record
/// was found. Returns `false` if the call had already ended.
async fn insert_and_close(to: &mut Conn, c: &Conclusion) -> Result<bool, sqlx::Error> {
    calls::insert(to, &c.start, None).await?;
    Ok(calls::close(to, [c]).await?.contains(&true))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
pub(crate) mod tests;
