//! Multi-party calls that are over (`plivo-call-api.md` §4): a row each, written when the last participant has left.
//!
//! They are shown out of `call::rooms`' memory; here is what that is read from after a start. Nobody's number is kept.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::deed::Deed;
use super::seal::Seal;
use super::sql::{self, Conn};
use super::{Store, StoreError, failed};
use crate::call::machine::{MemberId, Role};
use crate::model::{AuthId, CallUuid, Direction, Timestamp};

/// Those that are kept, the latest ones.
const ENDED_ROOMS_MAX: u32 = 1_000;

/// A multi-party call that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedRoom {
    pub id: Uuid,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: String,
    pub made: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Timestamp,
    /// Where its recording is.
    pub recording: Option<String>,
    /// Who was in, in the order in which they came.
    pub members: Vec<LeftMember>,
}

/// Who was in, as it was when it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftMember {
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
    pub left: Timestamp,
    pub cause: String,
}

impl Deed for EndedRoom {
    fn carry_out<'a>(&'a self, to: &'a mut Conn, _: &'a Seal) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let insert = "INSERT INTO multi_party_calls (mpc_uuid, auth_id, main_auth_id, ended_us, body) \
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let insert = sql::query(insert)
                .bind(self.id.to_string())
                .bind(self.account.as_str())
                .bind(self.main_account.as_str())
                .bind(self.ended.micros())
                .bind(sqlx::types::Json(self));
            let done = insert.execute(&mut *to).await?.rows_affected();
            let old = "DELETE FROM multi_party_calls WHERE ended_us < (SELECT min(ended_us) FROM \
                (SELECT ended_us FROM multi_party_calls ORDER BY ended_us DESC LIMIT $1) AS kept)";
            sql::query(old).bind(ENDED_ROOMS_MAX).execute(to).await?;
            Ok(done)
        }
        .boxed()
    }
}

impl Store {
    /// Writes that one is over; queued when this returns. Where there is no room for it, it is forgotten with this process.
    pub fn room_ended(&self, room: EndedRoom) {
        drop(self.log.deed_if_room(room));
    }

    /// The latest that are over, the latest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn ended_rooms(&self) -> Result<Vec<EndedRoom>, StoreError> {
        const WHAT: &str = "read multi-party calls that are over";
        let select = "SELECT body FROM multi_party_calls ORDER BY ended_us DESC LIMIT $1";
        let rows = sql::query(select).bind(ENDED_ROOMS_MAX).fetch_all(&self.read).await.map_err(failed(WHAT))?;
        let read = |row: &sql::Row| row.try_get::<sqlx::types::Json<EndedRoom>, _>("body");
        rows.iter().map(|row| read(row).map(|body| body.0).map_err(failed(WHAT))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::health::Health;

    fn room(n: u32) -> EndedRoom {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        EndedRoom {
            id: Uuid::from_u128(n.into()),
            account: "SAXXXXXXXXXXXXXXXXXX".into(),
            main_account: "MAXXXXXXXXXXXXXXXXXX".into(),
            name: "Care".to_owned(),
            made: at(1),
            started: None,
            ended: at(i64::from(n)),
            recording: None,
            members: vec![LeftMember {
                member: 7,
                call: CallUuid(Uuid::from_u128(7)),
                direction: Direction::Inbound,
                role: Some(Role::Agent),
                muted: false,
                held: true,
                coaches: false,
                stays_alone: true,
                ends: false,
                starts: true,
                joined: at(2),
                left: at(3),
                cause: "Normal Hangup".to_owned(),
            }],
        }
    }

    #[tokio::test]
    async fn the_latest_are_kept_and_read_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        for n in [5, 9, 7] {
            store.room_ended(room(n));
        }
        store.settled().await;
        assert_eq!(store.ended_rooms().await.unwrap(), [room(9), room(7), room(5)]);
    }
}
