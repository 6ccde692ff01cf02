//! Which run of a fleet hosts a room: a conference or a multi-party call.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::tables::fleet::{FleetSession, unreadable};
use machine::RoomKind;
use model::AuthId;

/// The id or name by which a call that enters a room identifies it.
#[derive(Clone, Copy, Debug)]
pub struct RoomRef<'a> {
    pub account: &'a AuthId,
    pub main_account: &'a AuthId,
    pub kind: RoomKind,
    pub name: &'a str,
}

/// The host of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomHost {
    pub run: Uuid,
    pub room: Uuid,
    /// `true` if this query made the requesting run the host.
    pub is_new: bool,
}

fn kind_word(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Conference => "conference",
        RoomKind::MultiParty => "multi_party",
    }
}

fn host(row: &PgRow, what: &'static str, is_new: bool) -> Result<RoomHost, StoreError> {
    let id = |column| -> Result<Uuid, StoreError> {
        let text: &str = row.try_get(column).map_err(failed(what))?;
        text.parse().map_err(unreadable(what))
    };
    Ok(RoomHost { run: id("run")?, room: id("room")?, is_new })
}

impl FleetSession {
    /// Makes a run the host of the room with this id, unless another run already hosts a room with
    /// this name; runs that are not members of the fleet don't count. Returns the host. `None` if
    /// the run itself is no member, or if the existing room ends during the query.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn host_room(
        &mut self,
        of: RoomRef<'_>,
        room: Uuid,
        run: Uuid,
    ) -> Result<Option<RoomHost>, StoreError> {
        const WHAT: &str = "look up the host of a room";
        let upsert = "INSERT INTO room_hosts AS h (auth_id, kind, name, main_auth_id, room, run) \
            SELECT $1, $2, $3, $4, $5::uuid, r.run FROM runs r, (SELECT set_config('synchronous_commit', 'off', true)) s \
            WHERE r.run = $6::uuid AND r.state IN ('up', 'draining') \
            ON CONFLICT (auth_id, kind, name) DO UPDATE SET room = excluded.room, run = excluded.run \
            WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.run = h.run AND r.state IN ('up', 'draining')) \
            RETURNING room::text, run::text";
        let upsert = sqlx::query(upsert)
            .bind(of.account.as_str())
            .bind(kind_word(of.kind))
            .bind(of.name)
            .bind(of.main_account.as_str())
            .bind(room.to_string())
            .bind(run.to_string());
        let row = upsert.fetch_optional(&mut self.connection).await.map_err(failed(WHAT))?;
        if let Some(row) = row {
            return host(&row, WHAT, true).map(Some);
        }
        let select = "SELECT room::text, run::text FROM room_hosts WHERE auth_id = $1 AND kind = $2 AND name = $3";
        let select =
            sqlx::query(select).bind(of.account.as_str()).bind(kind_word(of.kind)).bind(of.name);
        let row = select.fetch_optional(&mut self.connection).await.map_err(failed(WHAT))?;
        row.map(|row| host(&row, WHAT, false)).transpose()
    }

    /// Returns the host of a live room to which an account has access, by the room's name or id. A
    /// room of the account itself takes precedence over those of its subaccounts.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn find_room(
        &mut self,
        account: &AuthId,
        kind: RoomKind,
        name: Result<&str, Uuid>,
        own_only: bool,
    ) -> Result<Option<RoomHost>, StoreError> {
        const WHAT: &str = "find a room";
        // PostgreSQL rejects such a text, and no room has this name.
        if name.is_ok_and(|name| name.contains('\0')) {
            return Ok(None);
        }
        let select = "SELECT room::text, h.run::text FROM room_hosts h JOIN runs r ON r.run = h.run \
            WHERE (auth_id = $1 OR NOT $5 AND main_auth_id = $1) AND kind = $2 AND (name = $3 OR room = $4::uuid) \
            AND r.state IN ('up', 'draining') ORDER BY auth_id = $1 DESC LIMIT 1";
        let select = sqlx::query(select)
            .bind(account.as_str())
            .bind(kind_word(kind))
            .bind(name.ok())
            .bind(name.err().map(|room| room.to_string()))
            .bind(own_only);
        let row = select.fetch_optional(&mut self.connection).await.map_err(failed(WHAT))?;
        row.map(|row| host(&row, WHAT, false)).transpose()
    }

    /// Releases the name of a room that has ended.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn release_room(&mut self, room: Uuid) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM room_hosts WHERE room = $1::uuid");
        let done = delete.bind(room.to_string()).execute(&mut self.connection).await;
        done.map(drop).map_err(failed("free the name of a room"))
    }

    /// Releases the names of the rooms of a run that has ended.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn release_rooms_of(&mut self, run: Uuid) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM room_hosts WHERE run = $1::uuid");
        let done = delete.bind(run.to_string()).execute(&mut self.connection).await;
        done.map(drop).map_err(failed("free the names of rooms"))
    }
}
