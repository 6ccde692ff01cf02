//! Finds the node of the fleet that hosts a room, in the database.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use machine::RoomKind;
use model::AuthId;
use store::{RoomHost, RoomRef};
use uuid::Uuid;

use super::{FleetClaims, PeerError, SessionPurpose, Shared};
use crate::call::seats::{ByteStream, NoAnswer, RoomNodes};

/// Timeout of a database statement.
const TIME: Duration = Duration::from_millis(500);

/// Maximum number of attempts to release the name of a room that has ended. If all fail, the next
/// call that does not find the room at its host causes another release.
const RELEASES_MAX: u32 = 20;

/// Interval between these attempts.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Implements the access to the fleet that rooms need.
pub struct FleetRooms {
    claims: Arc<FleetClaims>,
    shared: Arc<Shared>,
}

impl FleetRooms {
    pub(super) fn new(claims: Arc<FleetClaims>, shared: Arc<Shared>) -> Self {
        Self { claims, shared }
    }

    /// Returns the run that hosts a room to which an account has access, by the room's name or id:
    /// the account's own one, or one of a subaccount unless `own_only`.
    ///
    /// # Errors
    /// Returns an error if the database does not answer.
    pub async fn find(
        &self,
        account: &AuthId,
        kind: RoomKind,
        name: Result<&str, Uuid>,
        own_only: bool,
    ) -> Result<Option<Uuid>, NoAnswer> {
        let found = self
            .claims
            .with_session(SessionPurpose::Request, TIME, async |session| {
                session.find_room(account, kind, name, own_only).await
            })
            .await;
        let host = found.map_err(|error| {
            tracing::warn!(%error, "lookup of a room failed");
            NoAnswer
        })?;
        Ok(host.map(|host| host.run))
    }
}

impl RoomNodes for FleetRooms {
    fn host<'a>(
        &'a self,
        of: RoomRef<'a>,
        id: Uuid,
    ) -> BoxFuture<'a, Result<Option<RoomHost>, NoAnswer>> {
        async move {
            let run = self.shared.run;
            let host = self
                .claims
                .with_session(SessionPurpose::Calls, TIME, async |session| {
                    session.host_room(of, id, run).await
                })
                .await;
            host.map_err(|error| {
                tracing::warn!(%error, "lookup of a room's host failed");
                NoAnswer
            })
        }
        .boxed()
    }

    fn release(&self, room: Uuid) {
        let claims = self.claims.clone();
        tokio::spawn(async move {
            for _ in 0..RELEASES_MAX {
                let released = claims
                    .with_session(SessionPurpose::Calls, TIME, async |session| {
                        session.release_room(room).await
                    })
                    .await;
                match released {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, %room, "room name not released"),
                }
                tokio::time::sleep(RELEASE_INTERVAL).await;
            }
        });
    }

    fn connect(&self, run: Uuid) -> BoxFuture<'_, Option<Box<dyn ByteStream>>> {
        async move {
            let stream = self.shared.peers.connect_seats(run).await;
            let failed = |error: &PeerError| {
                tracing::debug!(%error, %run, "room connection not opened");
            };
            stream.inspect_err(failed).ok()
        }
        .boxed()
    }

    fn run(&self) -> Uuid {
        self.shared.run
    }

    fn is_member(&self, run: Uuid) -> bool {
        let others = self.shared.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().any(|other| other.run == run && other.state.is_member())
    }
}
