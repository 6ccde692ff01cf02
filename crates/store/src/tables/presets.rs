//! Presets of an account's inbox: labels and canned replies.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder};
use crate::write::WriteTask;
use model::AuthId;

/// Handle to the presets. See [`Store::presets`](crate::Store::presets).
#[derive(Clone, Copy, Debug)]
pub struct Presets<'a>(pub(crate) &'a Shared);

/// Maximum number of presets in a list.
const LIST_MAX: i64 = 1_000;

/// The kind of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresetKind {
    Label,
    CannedReply,
}

impl PresetKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::CannedReply => "reply",
        }
    }

    /// Returns the maximum number of presets of this kind in an account.
    pub fn max(self) -> u32 {
        match self {
            Self::Label => 100,
            Self::CannedReply => 200,
        }
    }
}

/// A label or a canned reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub kind: PresetKind,
    /// The name of a label, or the shortcut of a reply. Unique within the account and kind, without
    /// regard to case.
    pub name: String,
    /// The colour of a label, or the text of a reply.
    pub content: String,
}

impl Presets<'_> {
    /// Returns the presets of the scope, ordered by name.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self, scope: &Scope, kind: PresetKind) -> Result<Vec<Preset>, StoreError> {
        let mut select = QueryBuilder::new(
            "SELECT preset_id, auth_id, main_auth_id, name, content FROM presets WHERE ",
        );
        push_scope(&mut select, scope);
        select.push(" AND kind = ").push_bind(kind.as_str());
        select.push(" ORDER BY name_lower, preset_id LIMIT ").push_bind(LIST_MAX);
        let rows: Vec<(String, String, String, String, String)> = select
            .build_query_as()
            .fetch_all(&self.0.read)
            .await
            .map_err(failed("list presets"))?;
        let read = |(id, account, main_account, name, content): (String, String, String, _, _)| {
            let (account, main_account) = (account.into(), main_account.into());
            Some(Preset { id: id.parse().ok()?, account, main_account, kind, name, content })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Creates a preset. Returns `false` if the name is taken or the account has the maximum
    /// number.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create(self, preset: Preset) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(PresetWrite::Create(preset)).await? > 0)
    }

    /// Changes the name and content of a preset. Returns `false` if it does not exist or the name
    /// is taken.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(self, preset: Preset) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(PresetWrite::Change(preset)).await? > 0)
    }

    /// Deletes a preset. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, preset: Uuid) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(PresetWrite::Delete(preset)).await? > 0)
    }
}

enum PresetWrite {
    Create(Preset),
    Change(Preset),
    Delete(Uuid),
}

impl WriteTask for PresetWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let query = match self {
            Self::Create(preset) => {
                let insert = "INSERT INTO presets (preset_id, auth_id, main_auth_id, kind, name, name_lower, content) \
                    SELECT $1, $2, $3, $4, $5, $6, $7 FROM (SELECT 1 AS one) o WHERE \
                    (SELECT count(*) FROM presets WHERE auth_id = $2 AND kind = $4) < $8 \
                    ON CONFLICT DO NOTHING";
                sql::query(insert)
                    .bind(preset.id.to_string())
                    .bind(preset.account.as_str())
                    .bind(preset.main_account.as_str())
                    .bind(preset.kind.as_str())
                    .bind(&preset.name)
                    .bind(preset.name.to_lowercase())
                    .bind(&preset.content)
                    .bind(i64::from(preset.kind.max()))
            }
            Self::Change(preset) => {
                let update = "UPDATE presets SET name = $2, name_lower = $3, content = $4 WHERE preset_id = $1 \
                    AND NOT EXISTS (SELECT 1 FROM presets p WHERE p.auth_id = $5 AND p.kind = $6 \
                    AND p.name_lower = $3 AND p.preset_id <> $1)";
                sql::query(update)
                    .bind(preset.id.to_string())
                    .bind(&preset.name)
                    .bind(preset.name.to_lowercase())
                    .bind(&preset.content)
                    .bind(preset.account.as_str())
                    .bind(preset.kind.as_str())
            }
            Self::Delete(id) => {
                sql::query("DELETE FROM presets WHERE preset_id = $1").bind(id.to_string())
            }
        };
        async move { Ok(query.execute(to).await?.rows_affected()) }.boxed()
    }
}
