//! The tables of a fleet: several nodes on one PostgreSQL database.
//!
//! The `fleet` crate defines the rules. Their database side consists of functions in the migration.
//! Each method here is one statement in one transaction, so that it works through any connection
//! pooler.

use std::path::Path;
use std::time::Duration;

use fleet::{Answer, Beat, Grant, LimitKey, RunState, TermState, Verdict};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use model::{CallUuid, Clock, Secret};

use crate::database::Database;
use crate::error::{StoreError, failed};
use crate::owner::{owner_name, run_of_owner};
use crate::pending_log::Birth;
use crate::seal::Seal;
use crate::sql;
use crate::sql::connect::{CONNECT_TIMEOUT, connect_within, options};
use crate::store::Store;

/// Time that a statement waits for the locks of other nodes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Differences between the clocks of two nodes below this are ignored.
const CLOCKS_APART: Duration = Duration::from_millis(500);

/// A database connection for the statements of a fleet.
///
/// If a request is overdue, the session is dropped, which closes the connection, and another one is
/// opened. The abandoned request may still be executed; the fleet's rules allow for that.
#[derive(Debug)]
pub struct FleetSession {
    pub(crate) connection: PgConnection,
}

/// A row of the table of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    pub run: Uuid,
    pub node_id: String,
    pub state: RunState,
    /// The number of its latest beat.
    pub seq: i64,
    /// The term in which it last reported all units that it holds.
    pub restated: Option<Uuid>,
    /// JSON with the run's description of itself.
    pub about: String,
}

/// The result of forgetting a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetOutcome {
    Forgotten,
    /// The node never belonged to this fleet.
    Unknown,
    /// The node's process is running, or was not declared dead yet.
    Running,
    /// The node was declared dead, and its calls are being ended.
    Ending,
}

/// An inbound call by its ids at Meta, and their hash.
#[derive(Clone, Copy, Debug)]
pub struct ClaimKey<'a> {
    pub hash: u128,
    pub phone_number_id: &'a str,
    pub wacid: &'a str,
}

/// The owner of an inbound call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The run that asked owns the call, as of now or before.
    Mine,
    /// Another run owns the call.
    Other { run: Uuid, call: Uuid },
    /// No run owns the call: it was rejected, or over before its `connect` came.
    Tombstone,
    /// The call has a row in the table of calls.
    Recorded { call: Uuid },
    /// The run that asked is not a member. If its row was lost, it can register again.
    NotMember,
}

/// A claim of a dead run whose call has no row in the table of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphanClaim {
    pub hash: u128,
    pub call: Uuid,
    pub birth: Vec<u8>,
}

impl RunInfo {
    /// Returns the name under which the run owns rows.
    pub fn owner(&self) -> String {
        owner_name(&self.node_id, self.run)
    }
}

fn birth_purpose(call: CallUuid) -> Vec<u8> {
    format!("birth {call}").into_bytes()
}

/// Returns a fingerprint of `store.secret_key`, which identifies the key without revealing it.
/// `None` if no key can be derived.
pub fn key_fingerprint(secret: &Secret) -> Option<String> {
    // The folder is only read without a secret.
    Seal::of(Some(secret), Path::new("")).ok().map(|seal| seal.fingerprint())
}

impl Store {
    /// The fingerprint of this node's `store.secret_key`.
    pub fn key_fingerprint(&self) -> String {
        self.shared.seal.fingerprint()
    }

    /// Returns the term of the fleet, and the number of changes of its settings so far.
    ///
    /// # Errors
    /// Fails if the database query fails, or if the database is not PostgreSQL.
    pub async fn fleet_term(&self) -> Result<TermState, StoreError> {
        const WHAT: &str = "read the term of the fleet";
        let text = "SELECT term::text AS term, open, book, members FROM fleet";
        let row = sql::query(text).fetch_one(&self.shared.read).await.map_err(failed(WHAT))?;
        let id: String = row.try_get("term").map_err(failed(WHAT))?;
        Ok(TermState {
            id: id.parse().map_err(unreadable(WHAT))?,
            open: row.try_get("open").map_err(failed(WHAT))?,
            book: row.try_get("book").map_err(failed(WHAT))?,
            members: row.try_get("members").map_err(failed(WHAT))?,
        })
    }

    /// Encrypts the data that another node needs to end a call.
    pub fn seal_birth(&self, birth: &Birth) -> Vec<u8> {
        let json = serde_json::to_vec(birth).unwrap_or_default();
        self.shared.seal.seal(&birth_purpose(birth.setup.call), json)
    }

    /// Decrypts the output of [`Store::seal_birth`]. `None` if it was encrypted with another secret
    /// key.
    pub fn open_birth(&self, call: CallUuid, sealed: &[u8]) -> Option<Birth> {
        let json = self.shared.seal.open(&birth_purpose(call), sealed)?;
        serde_json::from_slice(&json).ok()
    }

    /// Opens a database connection for the statements of a fleet.
    ///
    /// # Errors
    /// Fails if the database does not answer, or if it is not PostgreSQL.
    pub async fn fleet_session(&self) -> Result<FleetSession, StoreError> {
        FleetSession::open(&self.shared.database).await
    }
}

impl FleetSession {
    /// Opens a database connection for the statements of a fleet. The schema must be up to date.
    ///
    /// # Errors
    /// Fails if the database does not answer, or if it is not PostgreSQL.
    pub async fn open(at: &Database) -> Result<Self, StoreError> {
        let connect = |source| StoreError::Connect { at: at.clone(), source };
        if let Database::File(_) = at {
            return Err(connect(sqlx::Error::Configuration("a fleet needs PostgreSQL".into())));
        }
        let options = options(at, LOCK_TIMEOUT).map_err(connect)?;
        Ok(Self { connection: connect_within(&options, CONNECT_TIMEOUT).await.map_err(connect)? })
    }

    /// Closes the connection gracefully.
    ///
    /// # Errors
    /// Fails if the connection is broken.
    pub async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await.map_err(failed("close a connection"))
    }

    /// Writes the row of a run. This declares an earlier run of the node dead, so the caller must
    /// know that it has ended. `again` means that the database has lost the row. Returns `None` if
    /// the row is missing again in an open term.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn register(
        &mut self,
        run: Uuid,
        node_id: &str,
        about: &str,
        again: bool,
    ) -> Result<Option<TermState>, StoreError> {
        const WHAT: &str = "register this node";
        let register = "SELECT registered, term::text, open, book, members FROM oh1_register($1::uuid, $2, $3, $4)";
        let row = sqlx::query(register).bind(run.to_string()).bind(node_id).bind(about).bind(again);
        let row = row.fetch_one(&mut self.connection).await.map_err(failed(WHAT))?;
        match row.try_get("registered").map_err(failed(WHAT))? {
            true => term_state(&row, WHAT).map(Some),
            false => Ok(None),
        }
    }

    /// Sends a beat.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn beat(&mut self, beat: &Beat) -> Result<Answer, StoreError> {
        const WHAT: &str = "send a beat";
        let text = "SELECT verdict, term::text, open, book, members, held, caps, others, wishes \
            FROM oh1_beat($1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7, $8, $9)";
        let keys: Vec<&str> = beat.asks.iter().map(|ask| ask.key.as_str()).collect();
        let wants: Result<Vec<i32>, _> =
            beat.asks.iter().map(|ask| i32::try_from(ask.want)).collect();
        let query = sqlx::query(text)
            .bind(beat.run.to_string())
            .bind(beat.term.to_string())
            .bind(beat.refused.map(|term| term.to_string()))
            .bind(beat.seq)
            .bind(beat.acked)
            .bind(beat.whole)
            .bind(beat.may_open)
            .bind(keys)
            .bind(wants.map_err(unreadable(WHAT))?);
        let row = query.fetch_one(&mut self.connection).await.map_err(failed(WHAT))?;
        let verdict: &str = row.try_get("verdict").map_err(failed(WHAT))?;
        let verdict = Verdict::parse(verdict)
            .ok_or_else(|| unreadable(WHAT)(format!("unknown verdict {verdict}")))?;
        let term = term_state(&row, WHAT)?;
        Ok(Answer { verdict, term, grants: grants(&row, WHAT)? })
    }

    /// Returns by how many microseconds a clock is ahead of the database's clock.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn clock_ahead(&mut self, clock: &Clock) -> Result<i64, StoreError> {
        let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let sent = clock.steady().micros();
        let there: i64 = sqlx::query_scalar(select)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("read the database's clock"))?;
        Ok(i64::midpoint(sent, clock.steady().micros()).saturating_sub(there))
    }

    /// Stores the run's description of itself.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn describe(&mut self, run: Uuid, about: &str) -> Result<(), StoreError> {
        let describe = "UPDATE runs SET about = $2 WHERE run = $1::uuid AND about <> $2";
        let describe = sqlx::query(describe).bind(run.to_string()).bind(about);
        let done = describe.execute(&mut self.connection).await;
        done.map(drop).map_err(failed("describe this node"))
    }

    /// Marks a run as draining, so that it gets no more work of other runs.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn set_draining(&mut self, run: Uuid) -> Result<(), StoreError> {
        let drain = "UPDATE runs SET state = 'draining' WHERE run = $1::uuid AND state = 'up'";
        let done = sqlx::query(drain).bind(run.to_string()).execute(&mut self.connection).await;
        done.map(drop).map_err(failed("mark this node as draining"))
    }

    /// Returns the id of the database's primary, its term, and the runs: the members, and dead runs
    /// with calls or units that no other run has taken over yet.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn runs(&mut self) -> Result<(String, TermState, Vec<RunInfo>), StoreError> {
        const WHAT: &str = "read the nodes";
        // The join gives one row if there is no run. One statement has one snapshot.
        let text = "SELECT oh1_mark() AS mark, term::text, open, book, members, r.run::text, node_id, state, seq, restated::text, about \
            FROM fleet LEFT JOIN runs r ON r.state IN ('up', 'draining', 'dead') ORDER BY node_id, r.run";
        let rows = sqlx::query(text).fetch_all(&mut self.connection).await.map_err(failed(WHAT))?;
        let first = rows.first().ok_or_else(|| failed(WHAT)(sqlx::Error::RowNotFound))?;
        let mark = first.try_get("mark").map_err(failed(WHAT))?;
        let term = term_state(first, WHAT)?;
        let runs = rows.iter().filter_map(|row| run_info(row, WHAT).transpose());
        Ok((mark, term, runs.collect::<Result<_, _>>()?))
    }

    /// Declares a run dead, unless it has sent a beat since its `seq` was read. Returns whether the
    /// run was declared dead.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn declare_dead(&mut self, run: Uuid, seq: i64) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT oh1_declare_dead($1::uuid, $2)");
        let query = query.bind(run.to_string()).bind(seq);
        query.fetch_one(&mut self.connection).await.map_err(failed("declare a node dead"))
    }

    /// Gives back the units of a dead run, all of whose calls have ended. Returns `false` if
    /// another node has done so.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn release(&mut self, run: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT oh1_release($1::uuid)").bind(run.to_string());
        query.fetch_one(&mut self.connection).await.map_err(failed("release a node's units"))
    }

    /// Gives back the units of this run, which has no calls and sends no more beats.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn leave(&mut self, run: Uuid) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT oh1_leave($1::uuid)").bind(run.to_string());
        query.fetch_one(&mut self.connection).await.map_err(failed("leave the fleet"))
    }

    /// Sets the caps of limits. Each limit occurs once. Units held above a new cap are given back
    /// by the runs that hold them.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn set_caps(&mut self, caps: &[(LimitKey, u32)]) -> Result<(), StoreError> {
        const WHAT: &str = "set caps";
        let keys: Vec<&str> = caps.iter().map(|(key, _)| key.as_str()).collect();
        let values: Result<Vec<i32>, _> = caps.iter().map(|(_, cap)| i32::try_from(*cap)).collect();
        // Locks the rows in the order in which beats lock them.
        let upsert = "INSERT INTO limits AS l (key, cap) \
            SELECT c.key, c.cap FROM unnest($1::text[], $2::int[]) AS c (key, cap) ORDER BY c.key \
            ON CONFLICT (key) DO UPDATE SET cap = excluded.cap WHERE l.cap <> excluded.cap";
        let upsert = sqlx::query(upsert).bind(keys).bind(values.map_err(unreadable(WHAT))?);
        upsert.execute(&mut self.connection).await.map(drop).map_err(failed(WHAT))
    }

    /// Deletes limits other than these, unless a run holds or wants units of them. A node that has
    /// such a limit writes it again.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn delete_other_caps(
        &mut self,
        known: impl Iterator<Item = &LimitKey>,
    ) -> Result<u64, StoreError> {
        const WHAT: &str = "delete limits";
        let known: Vec<&str> = known.map(LimitKey::as_str).collect();
        let units = "DELETE FROM units WHERE key <> ALL ($1) AND held = 0 AND wish = 0";
        let units = sqlx::query(units).bind(&known).execute(&mut self.connection).await;
        units.map_err(failed(WHAT))?;
        let delete = "DELETE FROM limits WHERE key IN (SELECT key FROM limits l WHERE key <> ALL ($1) \
            AND NOT EXISTS (SELECT 1 FROM units u WHERE u.key = l.key) ORDER BY key FOR UPDATE SKIP LOCKED)";
        let done = sqlx::query(delete).bind(&known).execute(&mut self.connection).await;
        Ok(done.map_err(failed(WHAT))?.rows_affected())
    }

    /// Claims an inbound call for a run. `birth` contains what another node needs to end the call
    /// if this one dies. Does not wait for the disk: if the database loses the claim, the run
    /// claims the call again.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn claim(
        &mut self,
        key: ClaimKey<'_>,
        run: Uuid,
        call: Uuid,
        birth: &[u8],
    ) -> Result<ClaimOutcome, StoreError> {
        self.insert_claim(key, run, Some(call), Some(birth)).await
    }

    /// Claims an inbound call that a run rejects. `rejection` contains what another node needs to
    /// reject the call if this one dies before [`FleetSession::settle_rejections`].
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn claim_rejection(
        &mut self,
        key: ClaimKey<'_>,
        run: Uuid,
        rejection: &[u8],
    ) -> Result<ClaimOutcome, StoreError> {
        self.insert_claim(key, run, None, Some(rejection)).await
    }

    /// Records that a call is over before its `connect` has come. [`ClaimOutcome::Mine`] means that
    /// the tombstone was written.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn bury(&mut self, key: ClaimKey<'_>, run: Uuid) -> Result<ClaimOutcome, StoreError> {
        self.insert_claim(key, run, None, None).await
    }

    async fn insert_claim(
        &mut self,
        key: ClaimKey<'_>,
        run: Uuid,
        call: Option<Uuid>,
        birth: Option<&[u8]>,
    ) -> Result<ClaimOutcome, StoreError> {
        const WHAT: &str = "claim a call";
        // A run that could not send its rejection decides again when Meta sends the call again.
        let insert = "INSERT INTO claims (key, run, call, birth) SELECT $1, r.run, $3::uuid, $4 \
            FROM runs r, (SELECT set_config('synchronous_commit', 'off', true)) s \
            WHERE r.run = $2::uuid AND r.state IN ('up', 'draining') \
            AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.phone_number_id = $5 AND c.wacid = $6) \
            ON CONFLICT (key) DO UPDATE SET call = excluded.call, birth = excluded.birth \
                WHERE claims.run = excluded.run AND claims.call IS NULL AND claims.birth IS NOT NULL";
        let insert = sqlx::query(insert)
            .bind(key.hash.to_be_bytes().to_vec())
            .bind(run.to_string())
            .bind(call.map(|call| call.to_string()))
            .bind(birth)
            .bind(key.phone_number_id)
            .bind(key.wacid);
        let done = insert.execute(&mut self.connection).await.map_err(failed(WHAT))?;
        if done.rows_affected() > 0 {
            return Ok(ClaimOutcome::Mine);
        }
        self.owner(key, run).await
    }

    /// Returns the owner of an inbound call.
    async fn owner(&mut self, key: ClaimKey<'_>, me: Uuid) -> Result<ClaimOutcome, StoreError> {
        const WHAT: &str = "look up the owner of a call";
        let owner = "SELECT run::text, call::text, NULL AS row_of FROM claims WHERE key = $1 \
            UNION ALL SELECT NULL, NULL, call_uuid FROM calls WHERE phone_number_id = $2 AND wacid = $3 \
            ORDER BY row_of NULLS LAST LIMIT 1";
        let owner = sqlx::query(owner)
            .bind(key.hash.to_be_bytes().to_vec())
            .bind(key.phone_number_id)
            .bind(key.wacid);
        let row = owner.fetch_optional(&mut self.connection).await.map_err(failed(WHAT))?;
        let Some(row) = row else { return Ok(ClaimOutcome::NotMember) };
        let id = |column| -> Result<Option<Uuid>, StoreError> {
            let text: Option<&str> = row.try_get(column).map_err(failed(WHAT))?;
            text.map(str::parse).transpose().map_err(unreadable(WHAT))
        };
        Ok(match (id("row_of")?, id("run")?, id("call")?) {
            (Some(call), _, _) => ClaimOutcome::Recorded { call },
            (None, Some(run), Some(_)) if run == me => ClaimOutcome::Mine,
            (None, Some(run), Some(call)) => ClaimOutcome::Other { run, call },
            (None, _, None) => ClaimOutcome::Tombstone,
            (None, None, Some(_)) => ClaimOutcome::NotMember,
        })
    }

    /// Returns the run that owns a call which is live or has just ended, according to its claim or
    /// its row. `named` is an outbound call. Returns `None` for a call that another run has ended
    /// after its own run had died.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owner_of_call(
        &mut self,
        key: ClaimKey<'_>,
        named: Option<CallUuid>,
    ) -> Result<Option<Uuid>, StoreError> {
        const WHAT: &str = "look up the owner of an event";
        let select = "SELECT node_id FROM calls WHERE call_uuid = $4 AND ended_us IS NULL \
            UNION ALL SELECT node_id FROM calls WHERE phone_number_id = $2 AND wacid = $3 AND ended_us IS NULL \
            UNION ALL SELECT node_id FROM calls l WHERE (call_uuid = $4 OR phone_number_id = $2 AND wacid = $3) \
                AND ended_us > (extract(epoch FROM now()) * 1000000)::bigint - 60000000 \
                AND EXISTS (SELECT 1 FROM runs r WHERE r.run::text = split_part(l.node_id, '/', 2) AND r.state IN ('up', 'draining')) \
            UNION ALL SELECT '/' || run::text FROM claims c WHERE key = $1 AND call IS NOT NULL \
                AND (EXISTS (SELECT 1 FROM runs r WHERE r.run = c.run AND r.state IN ('up', 'draining')) \
                    OR NOT EXISTS (SELECT 1 FROM calls \
                        WHERE phone_number_id = $2 AND wacid = $3 AND ended_us IS NOT NULL)) LIMIT 1";
        let select = sqlx::query_scalar(select)
            .bind(key.hash.to_be_bytes().to_vec())
            .bind(key.phone_number_id)
            .bind(key.wacid)
            .bind(named.map(|call| call.to_string()));
        let owner: Option<String> =
            select.fetch_optional(&mut self.connection).await.map_err(failed(WHAT))?;
        Ok(owner.and_then(|owner| run_of_owner(&owner)))
    }

    /// Returns the run that owns a live call, according to its row: `Some(None)` if the call is
    /// over or has no run, and `None` if it has no row.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owner_of_live_call(
        &mut self,
        call: CallUuid,
    ) -> Result<Option<Option<Uuid>>, StoreError> {
        let select = "SELECT CASE WHEN ended_us IS NULL THEN node_id ELSE '' END FROM calls WHERE call_uuid = $1";
        let select = sqlx::query_scalar(select).bind(call.to_string());
        let owner = select.fetch_optional(&mut self.connection).await;
        let owner: Option<String> = owner.map_err(failed("look up the owner of a call"))?;
        Ok(owner.map(|owner| run_of_owner(&owner)))
    }

    /// Makes the database refuse further writes of a run that is not a member, and waits until its
    /// last batch is committed or rolled back.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn fence(&mut self, run: Uuid) -> Result<(), StoreError> {
        let fence = "DELETE FROM run_batches b WHERE run = $1::uuid \
            AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.run = b.run AND r.state IN ('up', 'draining'))";
        let fence = sqlx::query(fence).bind(run.to_string()).execute(&mut self.connection).await;
        fence.map(drop).map_err(failed("fence off a node"))
    }

    /// Transfers the unfinished work of one owner to another: callbacks, requests to Graph,
    /// messages and turns of conversations. Times of callbacks are converted to the new owner's
    /// clock if both runs report in `about.clock_us` how far their clocks differ from the
    /// database's.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn adopt(&mut self, theirs: &str, mine: &str) -> Result<u64, StoreError> {
        const WHAT: &str = "adopt the work of another node";
        let mut transaction = self.connection.begin().await.map_err(failed(WHAT))?;
        let adopted = adopt(&mut transaction, theirs, mine).await.map_err(failed(WHAT))?;
        transaction.commit().await.map_err(failed(WHAT))?;
        Ok(adopted)
    }

    /// Like [`FleetSession::adopt`], for a run that leaves: any member that stays gets the work, and
    /// can't begin to leave meanwhile. Otherwise two runs that leave together could pass their work to
    /// each other.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn bequeath(&mut self, run: Uuid, theirs: &str) -> Result<(), StoreError> {
        const WHAT: &str = "pass work on to another node";
        let mut transaction = self.connection.begin().await.map_err(failed(WHAT))?;
        let heirs = "SELECT node_id || '/' || run::text FROM runs \
            WHERE state = 'up' AND run <> $1::uuid ORDER BY run FOR SHARE";
        let heirs = sqlx::query_scalar(heirs).bind(run.to_string());
        let heirs: Vec<String> = heirs.fetch_all(&mut *transaction).await.map_err(failed(WHAT))?;
        if let Some(heir) = heirs.first() {
            adopt(&mut transaction, theirs, heir).await.map_err(failed(WHAT))?;
        }
        transaction.commit().await.map_err(failed(WHAT))
    }

    /// Deletes the claims of a run, by their hashes, whose calls have no row. The run has neither begun
    /// nor rejected these calls.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn withdraw_claims(&mut self, run: Uuid, hashes: &[u128]) -> Result<(), StoreError> {
        let delete = "DELETE FROM claims c WHERE key = ANY ($1) AND run = $2::uuid \
            AND NOT EXISTS (SELECT 1 FROM calls l WHERE l.call_uuid = c.call::text)";
        let delete = sqlx::query(delete).bind(keys_of(hashes)).bind(run.to_string());
        let done = delete.execute(&mut self.connection).await;
        done.map(drop).map_err(failed("withdraw claims"))
    }

    /// Transfers recordings of a node's earlier processes, whose files are on this disk, to `mine`.
    /// Returns the owners of other unfinished work.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn inherit(&mut self, node_id: &str, mine: &str) -> Result<Vec<String>, StoreError> {
        const WHAT: &str = "take over the work of earlier processes";
        let inherit = sqlx::query_scalar("SELECT oh1_inherit($1, $2)").bind(node_id).bind(mine);
        inherit.fetch_all(&mut self.connection).await.map_err(failed(WHAT))
    }

    /// Forgets a node that will not come back, unless it is a member or its calls are being ended.
    /// From then on, nothing waits for its disk. If one of its processes still exists, it stays
    /// declared dead.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn forget(&mut self, node_id: &str) -> Result<ForgetOutcome, StoreError> {
        const WHAT: &str = "forget a node";
        let forget = "WITH named AS (SELECT run, state FROM runs WHERE node_id = $1 FOR UPDATE), \
            gone AS (UPDATE runs SET state = 'forgotten' WHERE run IN (SELECT run FROM named) \
                AND NOT EXISTS (SELECT 1 FROM named WHERE state IN ('up', 'draining', 'dead')) RETURNING run), \
            files AS (DELETE FROM files_to_remove WHERE node_id = $1 AND EXISTS (SELECT 1 FROM gone)) \
            SELECT (SELECT count(*) FROM gone) AS gone, \
                (SELECT count(*) FROM named WHERE state IN ('up', 'draining')) AS members, \
                (SELECT count(*) FROM named WHERE state = 'dead') AS dead";
        let forget = sqlx::query(forget).bind(node_id);
        let row = forget.fetch_one(&mut self.connection).await.map_err(failed(WHAT))?;
        let count = |column| row.try_get::<i64, _>(column).map_err(failed(WHAT));
        Ok(match (count("gone")?, count("members")?, count("dead")?) {
            (_, 1.., _) => ForgetOutcome::Running,
            (_, _, 1..) => ForgetOutcome::Ending,
            (1.., _, _) => ForgetOutcome::Forgotten,
            (_, _, _) => ForgetOutcome::Unknown,
        })
    }

    /// Returns the names of nodes that are not members and have recordings in progress but no live
    /// calls. A node that works outside the fleet has live calls.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn away_with_recordings(&mut self) -> Result<Vec<String>, StoreError> {
        let select = "SELECT DISTINCT split_part(node_id, '/', 1) FROM recordings r WHERE ended_us IS NULL \
            AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.node_id = r.node_id AND c.ended_us IS NULL) \
            EXCEPT SELECT node_id FROM runs WHERE state IN ('up', 'draining', 'dead')";
        let names = sqlx::query_scalar(select).fetch_all(&mut self.connection).await;
        names.map_err(failed("find recordings of absent nodes"))
    }

    /// Transfers recordings that are in progress at a node that is not a member to `mine`, and
    /// returns them. Each is returned to one caller only.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn take_recordings(
        &mut self,
        node_id: &str,
        mine: &str,
    ) -> Result<Vec<Uuid>, StoreError> {
        const WHAT: &str = "take over recordings of another node";
        let update = "UPDATE recordings SET node_id = $2 WHERE ended_us IS NULL \
            AND (node_id = $1 OR starts_with(node_id, $1 || '/')) AND node_id <> $2 \
            AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.node_id = $1 AND r.state IN ('up', 'draining')) \
            RETURNING recording_id";
        let update = sqlx::query_scalar(update).bind(node_id).bind(mine);
        let taken: Vec<String> =
            update.fetch_all(&mut self.connection).await.map_err(failed(WHAT))?;
        taken.iter().map(|id| id.parse().map_err(unreadable(WHAT))).collect()
    }

    /// Deletes complete recordings of a forgotten node that were not copied to the bucket, and
    /// cancels uploads and transcriptions of its other recordings. Returns the number of deleted
    /// recordings.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn drop_recordings(&mut self, node_id: &str) -> Result<i64, StoreError> {
        let delete = "WITH lost AS (DELETE FROM recordings WHERE ended_us IS NOT NULL AND object IS NULL \
                AND (node_id = $1 OR starts_with(node_id, $1 || '/')) RETURNING 1), \
            kept AS (UPDATE recordings SET upload_us = NULL, transcribe_us = NULL WHERE object IS NOT NULL \
                AND (node_id = $1 OR starts_with(node_id, $1 || '/'))) \
            SELECT count(*) FROM lost";
        let count = sqlx::query_scalar(delete).bind(node_id).fetch_one(&mut self.connection).await;
        count.map_err(failed("delete recordings of a forgotten node"))
    }

    /// Deletes a run's claims that are older than a minute if their calls have rows, and tombstones
    /// that are older than 10 minutes, by the database's clock.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn expire_claims(&mut self, run: Uuid) -> Result<(), StoreError> {
        let delete = "DELETE FROM claims l WHERE run = $1::uuid AND at < now() - interval '60 seconds' AND \
            CASE WHEN call IS NULL THEN at < now() - interval '10 minutes' \
            ELSE EXISTS (SELECT 1 FROM calls c WHERE c.call_uuid = l.call::text) END";
        let done = sqlx::query(delete).bind(run.to_string()).execute(&mut self.connection).await;
        done.map(drop).map_err(failed("delete claims"))
    }

    /// Records that Meta has answered the rejections of calls, by the hashes of their claims.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn settle_rejections(&mut self, hashes: &[u128]) -> Result<(), StoreError> {
        let update = "UPDATE claims SET birth = NULL WHERE key = ANY ($1) AND call IS NULL";
        let update = sqlx::query(update).bind(keys_of(hashes));
        let done = update.execute(&mut self.connection).await;
        done.map(drop).map_err(failed("settle rejections"))
    }

    /// Returns up to `limit` rejections of a run that were not settled, of the last minute. A phone
    /// does not ring longer.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn unsettled_rejections(
        &mut self,
        run: Uuid,
        limit: u32,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let select = "SELECT birth FROM claims WHERE run = $1::uuid AND call IS NULL \
            AND birth IS NOT NULL AND at > now() - interval '60 seconds' ORDER BY at LIMIT $2";
        let rows = sqlx::query_scalar(select).bind(run.to_string()).bind(i64::from(limit));
        rows.fetch_all(&mut self.connection).await.map_err(failed("read rejections of a dead node"))
    }

    /// Returns up to `limit` claims of a run whose calls have no row in the table of calls.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn orphan_claims(
        &mut self,
        run: Uuid,
        limit: u32,
    ) -> Result<Vec<OrphanClaim>, StoreError> {
        const WHAT: &str = "read the claims of a dead node";
        let text = "SELECT key, call::text, birth FROM claims l WHERE run = $1::uuid AND call IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.call_uuid = l.call::text) ORDER BY at LIMIT $2";
        let rows = sqlx::query(text).bind(run.to_string()).bind(i64::from(limit));
        let rows = rows.fetch_all(&mut self.connection).await.map_err(failed(WHAT))?;
        let claim = |row: &PgRow| {
            let key: &[u8] = row.try_get("key").map_err(failed(WHAT))?;
            let call: &str = row.try_get("call").map_err(failed(WHAT))?;
            let birth: Option<Vec<u8>> = row.try_get("birth").map_err(failed(WHAT))?;
            Ok(OrphanClaim {
                hash: u128::from_be_bytes(key.try_into().map_err(unreadable(WHAT))?),
                call: call.parse().map_err(unreadable(WHAT))?,
                birth: birth.unwrap_or_default(),
            })
        };
        rows.iter().map(claim).collect()
    }
}

fn term_state(row: &PgRow, what: &'static str) -> Result<TermState, StoreError> {
    let id: &str = row.try_get("term").map_err(failed(what))?;
    Ok(TermState {
        id: id.parse().map_err(unreadable(what))?,
        open: row.try_get("open").map_err(failed(what))?,
        book: row.try_get("book").map_err(failed(what))?,
        members: row.try_get("members").map_err(failed(what))?,
    })
}

fn run_info(row: &PgRow, what: &'static str) -> Result<Option<RunInfo>, StoreError> {
    let run: Option<&str> = row.try_get("run").map_err(failed(what))?;
    let Some(run) = run else { return Ok(None) };
    let state: &str = row.try_get("state").map_err(failed(what))?;
    let restated: Option<&str> = row.try_get("restated").map_err(failed(what))?;
    Ok(Some(RunInfo {
        run: run.parse().map_err(unreadable(what))?,
        node_id: row.try_get("node_id").map_err(failed(what))?,
        state: RunState::parse(state)
            .ok_or_else(|| unreadable(what)(format!("unknown state {state}")))?,
        seq: row.try_get("seq").map_err(failed(what))?,
        restated: restated.map(str::parse).transpose().map_err(unreadable(what))?,
        about: row.try_get("about").map_err(failed(what))?,
    }))
}

/// Returns the grants in an answer. Its arrays are NULL if the beat requested nothing.
fn grants(row: &PgRow, what: &'static str) -> Result<Vec<Grant>, StoreError> {
    let column = |name| -> Result<Vec<Option<i32>>, StoreError> {
        let numbers: Option<_> = row.try_get(name).map_err(failed(what))?;
        Ok(numbers.unwrap_or_default())
    };
    let number = |value: Option<i32>| u32::try_from(value.unwrap_or(0)).map_err(unreadable(what));
    let (held, caps) = (column("held")?, column("caps")?);
    let (others, requested) = (column("others")?, column("wishes")?);
    let rows = held.into_iter().zip(caps).zip(others.into_iter().zip(requested));
    let grant = |((held, cap), (others, requested)): ((_, Option<i32>), (_, _))| {
        Ok(Grant {
            held: number(held)?,
            cap: cap.map(u32::try_from).transpose().map_err(unreadable(what))?,
            others: number(others)?,
            requested: number(requested)?,
        })
    };
    rows.map(grant).collect()
}

pub(crate) fn unreadable<E: ToString>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Unreadable { what, detail: error.to_string() }
}

/// Transfers the work of an owner in a transaction. Returns the number of its parts.
async fn adopt(
    transaction: &mut PgConnection,
    theirs: &str,
    mine: &str,
) -> Result<u64, sqlx::Error> {
    // The lock of `oh1_adopt`: times are converted once.
    let lock =
        "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' adopt ' || $1, 0))";
    sqlx::query(lock).bind(theirs).execute(&mut *transaction).await?;
    let convert = "UPDATE callbacks SET created_us = created_us - apart, since_us = since_us - apart, \
        next_us = next_us - apart FROM (SELECT (SELECT (about::jsonb ->> 'clock_us')::bigint FROM runs WHERE run = $2::uuid) \
            - (SELECT (about::jsonb ->> 'clock_us')::bigint FROM runs WHERE run = $3::uuid) AS apart) a \
        WHERE node_id = $1 AND next_us IS NOT NULL AND abs(apart) > $4";
    let run = |owner| run_of_owner(owner).map(|run| run.to_string());
    let apart_max = i64::try_from(CLOCKS_APART.as_micros()).unwrap_or(i64::MAX);
    let convert = sqlx::query(convert).bind(theirs).bind(run(theirs)).bind(run(mine));
    convert.bind(apart_max).execute(&mut *transaction).await?;
    let adopt = sqlx::query_scalar("SELECT oh1_adopt($1, $2)").bind(theirs).bind(mine);
    let adopted: i64 = adopt.fetch_one(&mut *transaction).await?;
    Ok(u64::try_from(adopted).unwrap_or_default())
}

/// The keys of claims in the database.
fn keys_of(hashes: &[u128]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.to_be_bytes().to_vec()).collect()
}
