//! Multi-party calls: one row for each ended call, and rows for each open one and its members.
//!
//! The rows of an open one let the next process end it if this process dies. While the process
//! lives, multi-party calls are read from the memory of `call::rooms`, which is filled from these
//! rows at the start. The rows contain no phone numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::rows::callback::NewCallback;
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::tables::outbox;
use crate::write::WriteTask;
use machine::{MemberId, Role};
use model::{AuthId, CallUuid, Direction, Timestamp};
use xml::ast::Target;

/// Handle to the multi-party calls. See [`Store::rooms`](crate::Store::rooms).
#[derive(Clone, Copy, Debug)]
pub struct Rooms<'a>(pub(crate) &'a Shared);

impl Rooms<'_> {
    /// Records the end of a multi-party call. The write is queued when this returns. If the queue
    /// is full, the multi-party call is forgotten when this process ends.
    pub fn record_end(self, room: EndedRoom) {
        drop(self.0.queue.try_run(room));
    }

    /// Stores the present state of an open multi-party call. `end_callbacks` lists the URLs that
    /// are notified of its end. `born` is monotonic time. The write is queued when this returns. If
    /// the queue is full, a crash loses the state.
    pub fn put(self, room: OpenRoom, end_callbacks: Vec<Target>, node_id: &str, born: Timestamp) {
        drop(self.0.queue.try_run(PutRoom {
            kept: StoredRoom { room, end_callbacks },
            node_id: node_id.to_owned(),
            born,
        }));
    }

    /// Stores the present state of a member, also of one that has left. The write is queued when
    /// this returns. If the queue is full, a crash loses the state.
    pub fn put_member(self, room: Uuid, member: OpenMember) {
        drop(self.0.queue.try_run(PutMember { room, member }));
    }

    /// Ends a multi-party call that a crash left open, and adds those of `callbacks` that are missing
    /// to the outbox, in one synced transaction.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn end_orphan(
        self,
        room: EndedRoom,
        callbacks: Vec<NewCallback>,
    ) -> Result<(), StoreError> {
        self.0.queue.run(EndOrphan { room, callbacks }).await.map(drop)
    }

    /// Returns the multi-party calls that an earlier process of this node left open. Unreadable
    /// ones are logged and skipped.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn orphans(self, node_id: &str) -> Result<Vec<OrphanRoom>, StoreError> {
        const WHAT: &str = "read open multi-party calls";
        let select = "SELECT o.mpc_uuid, o.born_us, o.body, n.alive_us FROM multi_party_calls_open o \
            LEFT JOIN nodes n ON n.node_id = o.node_id WHERE o.node_id = $1 ORDER BY o.born_us, o.mpc_uuid";
        let rooms =
            sql::query(select).bind(node_id).fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let select = "SELECT p.mpc_uuid, p.body FROM participants_open p JOIN multi_party_calls_open o \
            ON o.mpc_uuid = p.mpc_uuid WHERE o.node_id = $1 ORDER BY p.mpc_uuid, p.member_id";
        let rows =
            sql::query(select).bind(node_id).fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let mut members: BTreeMap<String, Vec<OpenMember>> = BTreeMap::new();
        for row in &rows {
            let room = row.try_get("mpc_uuid").map_err(failed(WHAT))?;
            members.entry(room).or_default().extend(parse_body::<OpenMember>(row));
        }
        let orphan = |row: &sql::Row| -> Result<_, sqlx::Error> {
            let Some(StoredRoom { room, end_callbacks }) = parse_body(row) else { return Ok(None) };
            let (born, alive): (i64, Option<i64>) =
                (row.try_get("born_us")?, row.try_get("alive_us")?);
            let lived =
                u64::try_from(alive.unwrap_or(born).saturating_sub(born)).unwrap_or_default();
            let members =
                members.remove(&row.try_get::<String, _>("mpc_uuid")?).unwrap_or_default();
            Ok(Some(OrphanRoom {
                room,
                end_callbacks,
                lived: Duration::from_micros(lived),
                members,
            }))
        };
        rooms
            .iter()
            .map(orphan)
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()
            .map_err(failed(WHAT))
    }

    /// Returns the latest multi-party calls that have ended, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn ended(self) -> Result<Vec<EndedRoom>, StoreError> {
        const WHAT: &str = "read ended multi-party calls";
        let select = "SELECT body FROM multi_party_calls ORDER BY ended_us DESC LIMIT $1";
        let rows = sql::query(select)
            .bind(ENDED_ROOMS_MAX)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        let read = |row: &sql::Row| row.try_get::<sqlx::types::Json<EndedRoom>, _>("body");
        rows.iter().map(|row| read(row).map(|body| body.0).map_err(failed(WHAT))).collect()
    }
}

/// Number of ended multi-party calls that are kept.
const ENDED_ROOMS_MAX: u32 = 1_000;

/// Maximum number of stored members that have left an open multi-party call.
pub const LEFT_MAX: u16 = 200;

/// A multi-party call that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedRoom {
    #[serde(flatten)]
    pub was: OpenRoom,
    pub ended: Timestamp,
    /// Whether the node died while the multi-party call was open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// The members, in the order in which they joined.
    pub members: Vec<LeftMember>,
}

/// A member that has left, with its last state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftMember {
    #[serde(flatten)]
    pub was: RoomMember,
    pub left: Timestamp,
    pub cause: String,
}

/// A present or former member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomMember {
    pub member: MemberId,
    pub call: CallUuid,
    pub direction: Direction,
    pub role: Option<Role>,
    pub muted: bool,
    pub held: bool,
    pub coaches: bool,
    pub stays_alone: bool,
    pub ends: bool,
    pub starts: bool,
    pub joined: Timestamp,
}

/// An open multi-party call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenRoom {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: String,
    pub made: Timestamp,
    pub started: Option<Timestamp>,
    /// URL of the recording, which may not exist yet.
    pub recording: Option<String>,
}

/// A present or former member of an open multi-party call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenMember {
    #[serde(flatten)]
    pub was: RoomMember,
    /// Time and reason of leaving.
    pub left: Option<(Timestamp, String)>,
    /// URL that is notified when the member leaves.
    #[serde(rename = "told", default, skip_serializing_if = "Option::is_none")]
    pub exit_callback: Option<Target>,
}

/// A multi-party call that a crash left open.
#[derive(Clone, Debug, PartialEq)]
pub struct OrphanRoom {
    pub room: OpenRoom,
    /// URLs that are notified of its end.
    pub end_callbacks: Vec<Target>,
    /// Time from its start to its node's last heartbeat.
    pub lived: Duration,
    pub members: Vec<OpenMember>,
}

/// The stored form of an open multi-party call.
#[derive(Serialize, Deserialize)]
struct StoredRoom {
    #[serde(flatten)]
    room: OpenRoom,
    #[serde(rename = "told", default, skip_serializing_if = "Vec::is_empty")]
    end_callbacks: Vec<Target>,
}

/// Stores the present state of a multi-party call.
struct PutRoom {
    kept: StoredRoom,
    node_id: String,
    /// Monotonic time.
    born: Timestamp,
}

/// Stores the present state of a member.
struct PutMember {
    room: Uuid,
    member: OpenMember,
}

impl WriteTask for PutRoom {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let upsert = "INSERT INTO multi_party_calls_open (mpc_uuid, node_id, born_us, body) VALUES ($1, $2, $3, $4) \
                ON CONFLICT (mpc_uuid) DO UPDATE SET body = excluded.body";
            let upsert = sql::query(upsert).bind(self.kept.room.id.to_string()).bind(&self.node_id).bind(self.born.micros());
            Ok(upsert.bind(sqlx::types::Json(&self.kept)).execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

impl WriteTask for PutMember {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let room = self.room.to_string();
            let left = self.member.left.as_ref().map(|(at, _)| at.micros());
            let upsert = "INSERT INTO participants_open (mpc_uuid, member_id, left_us, body) VALUES ($1, $2, $3, $4) \
                ON CONFLICT (mpc_uuid, member_id) DO UPDATE SET left_us = excluded.left_us, body = excluded.body";
            let upsert = sql::query(upsert)
                .bind(&room)
                .bind(i64::try_from(self.member.was.member).unwrap_or(i64::MAX))
                .bind(left);
            let done = upsert.bind(sqlx::types::Json(&self.member)).execute(&mut *to).await?.rows_affected();
            if left.is_some() {
                let old = "DELETE FROM participants_open WHERE mpc_uuid = $1 AND left_us < (SELECT min(left_us) FROM \
                    (SELECT left_us FROM participants_open WHERE mpc_uuid = $1 AND left_us IS NOT NULL \
                    ORDER BY left_us DESC LIMIT $2) AS kept)";
                sql::query(old).bind(&room).bind(i64::from(LEFT_MAX)).execute(to).await?;
            }
            Ok(done)
        }
        .boxed()
    }
}

/// Ends a multi-party call that a crash left open.
struct EndOrphan {
    room: EndedRoom,
    callbacks: Vec<NewCallback>,
}

impl WriteTask for EndOrphan {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            outbox::insert_new(to, seal, self.callbacks.clone()).await?;
            self.room.execute(to, seal).await
        }
        .boxed()
    }
}

impl WriteTask for EndedRoom {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let insert = "INSERT INTO multi_party_calls (mpc_uuid, auth_id, main_auth_id, ended_us, body) \
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let insert = sql::query(insert)
                .bind(self.was.id.to_string())
                .bind(self.was.account.as_str())
                .bind(self.was.main_account.as_str())
                .bind(self.ended.micros())
                .bind(sqlx::types::Json(self));
            let done = insert.execute(&mut *to).await?.rows_affected();
            for delete in [
                "DELETE FROM participants_open WHERE mpc_uuid = $1",
                "DELETE FROM multi_party_calls_open WHERE mpc_uuid = $1",
            ] {
                sql::query(delete).bind(self.was.id.to_string()).execute(&mut *to).await?;
            }
            // Beyond the limit, the oldest of the account with the most are deleted.
            let old = "DELETE FROM multi_party_calls WHERE mpc_uuid IN (SELECT mpc_uuid FROM multi_party_calls \
                WHERE main_auth_id = (SELECT main_auth_id FROM multi_party_calls GROUP BY main_auth_id \
                    ORDER BY count(*) DESC, main_auth_id LIMIT 1) \
                ORDER BY ended_us LIMIT (SELECT CASE WHEN count(*) > $1 THEN count(*) - $1 ELSE 0 END FROM multi_party_calls))";
            sql::query(old).bind(i64::from(ENDED_ROOMS_MAX)).execute(to).await?;
            Ok(done)
        }
        .boxed()
    }
}

fn parse_body<T: serde::de::DeserializeOwned>(row: &sql::Row) -> Option<T> {
    let read = row.try_get::<sqlx::types::Json<T>, _>("body");
    read.inspect_err(
        |error| tracing::error!(%error, "unreadable row of an open multi-party call skipped"),
    )
    .ok()
    .map(|body| body.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;
    use model::Method;
    use xml::ast::DocUrl;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn room(n: u32) -> EndedRoom {
        EndedRoom {
            was: open(n),
            ended: at(i64::from(n)),
            failed: n.is_multiple_of(5),
            members: vec![LeftMember {
                was: member(7),
                left: at(3),
                cause: "Normal Hangup".to_owned(),
            }],
        }
    }

    fn member(member: MemberId) -> RoomMember {
        crate::sample::held_agent(member, at(2))
    }

    #[tokio::test]
    async fn ended_multi_party_calls_are_listed_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        for n in [5, 9, 7] {
            store.rooms().record_end(room(n));
        }
        store.flush().await;
        assert_eq!(store.rooms().ended().await.unwrap(), [room(9), room(7), room(5)]);
        // Beyond the limit, the account with the most loses its oldest.
        let of_other = |n: u32| {
            let room = room(n);
            EndedRoom { was: OpenRoom { main_account: "MAOTHER".into(), ..room.was }, ..room }
        };
        for n in 10..10 + ENDED_ROOMS_MAX {
            store.rooms().record_end(of_other(n));
        }
        store.flush().await;
        let ended = store.rooms().ended().await.unwrap();
        assert_eq!(ended.len(), usize::try_from(ENDED_ROOMS_MAX).unwrap());
        assert_eq!(ended[ended.len() - 4..], [of_other(13), room(9), room(7), room(5)]);
    }

    fn open(n: u32) -> OpenRoom {
        OpenRoom {
            id: Uuid::from_u128(n.into()),
            account: "SAXXXXXXXXXXXXXXXXXX".into(),
            main_account: "MAXXXXXXXXXXXXXXXXXX".into(),
            name: "Care".to_owned(),
            made: at(1),
            started: None,
            recording: None,
        }
    }

    #[tokio::test]
    async fn an_open_multi_party_call_is_left_to_the_next_process_with_its_members() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        store.rooms().put(open(5), Vec::new(), "node", at(100));
        store.rooms().put(open(6), Vec::new(), "another", at(100));
        let exit_callback = Some(Target {
            url: DocUrl("https://app.example.com/exit".into()),
            method: Method::Get,
        });
        let held = OpenMember { was: member(7), left: None, exit_callback };
        store.rooms().put_member(
            room(5).was.id,
            OpenMember {
                was: RoomMember { held: false, ..member(7) },
                left: None,
                exit_callback: None,
            },
        );
        store.rooms().put_member(room(5).was.id, held.clone());
        let gone = OpenMember {
            was: member(8),
            left: Some((at(4), "Normal Hangup".to_owned())),
            exit_callback: None,
        };
        store.rooms().put_member(
            room(5).was.id,
            OpenMember { was: member(8), left: None, exit_callback: None },
        );
        store.rooms().put_member(room(5).was.id, gone.clone());
        let started = OpenRoom { started: Some(at(2)), ..open(5) };
        let to = Target { url: DocUrl("https://app.example.com/end".into()), method: Method::Post };
        store.rooms().put(started.clone(), vec![to.clone()], "node", at(101));
        store.calls().heartbeat("node", at(107));
        store.flush().await;
        let orphan = OrphanRoom {
            room: started,
            end_callbacks: vec![to],
            lived: Duration::from_secs(7),
            members: vec![held, gone],
        };
        assert_eq!(store.rooms().orphans("node").await.unwrap(), [orphan]);

        store.rooms().end_orphan(room(5), Vec::new()).await.unwrap();
        assert_eq!(store.rooms().orphans("node").await.unwrap(), []);
        assert_eq!(store.rooms().orphans("another").await.unwrap().len(), 1);
        assert_eq!(store.rooms().ended().await.unwrap(), [room(5)]);
        let left: i64 = sql::query_scalar("SELECT count(*) FROM participants_open")
            .fetch_one(&store.shared.read)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn only_the_latest_members_that_left_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        store.rooms().put(open(5), Vec::new(), "node", at(1));
        store.rooms().put_member(
            room(5).was.id,
            OpenMember { was: member(1), left: None, exit_callback: None },
        );
        for n in 2..=u64::from(LEFT_MAX) + 4 {
            let left = Some((at(i64::try_from(n).unwrap()), "Normal Hangup".to_owned()));
            store.rooms().put_member(
                room(5).was.id,
                OpenMember { was: member(n), left, exit_callback: None },
            );
        }
        store.flush().await;
        let orphans = store.rooms().orphans("node").await.unwrap();
        let members: Vec<MemberId> = orphans[0].members.iter().map(|one| one.was.member).collect();
        assert_eq!(
            members,
            std::iter::once(1).chain(5..=u64::from(LEFT_MAX) + 4).collect::<Vec<_>>()
        );
    }
}
