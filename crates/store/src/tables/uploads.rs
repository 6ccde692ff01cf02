//! Metadata of files that accounts have uploaded to Meta, for messages that refer to them by Meta's
//! id. The content is not stored; `inbox::files` passes it on to Meta.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::write::WriteTask;
use model::{AuthId, Timestamp};

/// Handle to the uploaded files. See [`Store::uploads`](crate::Store::uploads).
#[derive(Clone, Copy, Debug)]
pub struct Uploads<'a>(pub(crate) &'a Shared);

impl Uploads<'_> {
    /// Stores the metadata of a file. The future completes when it is readable. Returns `None` if
    /// the queue is full.
    pub fn put(
        self,
        row: UploadRow,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<>> {
        self.0.queue.try_run(UploadWrite::Put(row)).inspect(|_| self.0.queue.wake())
    }

    /// Returns the media type of a file, or `None` if the account has no such file.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn media_type(
        self,
        account: &AuthId,
        media: &str,
    ) -> Result<Option<String>, StoreError> {
        let select = "SELECT mime_type FROM uploads WHERE auth_id = $1 AND media_id = $2";
        let select = sql::query_scalar(select).bind(account.as_str()).bind(media);
        select.fetch_optional(&self.0.read).await.map_err(failed("find an uploaded file"))
    }

    /// Deletes the metadata of files uploaded before `before`, which Meta no longer has.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some rows may be
    /// deleted then.
    pub async fn delete_older(self, before: Timestamp) -> Result<(), StoreError> {
        while self.0.queue.run(UploadWrite::DeleteOlder(before)).await? >= u64::from(BATCH) {}
        Ok(())
    }
}

/// Number of rows deleted in one write.
const BATCH: u32 = 500;

/// A file uploaded to Meta.
pub struct UploadRow {
    pub account: AuthId,
    /// Meta's media id.
    pub media: String,
    pub mime: String,
    pub made: Timestamp,
}

enum UploadWrite {
    Put(UploadRow),
    /// Deletes the rows from before this time.
    DeleteOlder(Timestamp),
}

impl WriteTask for UploadWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let query = match self {
                Self::Put(row) => {
                    let insert = "INSERT INTO uploads (auth_id, media_id, mime_type, made_us) VALUES ($1, $2, $3, $4) \
                        ON CONFLICT (auth_id, media_id) DO UPDATE SET mime_type = excluded.mime_type, made_us = excluded.made_us";
                    let insert = sql::query(insert).bind(row.account.as_str()).bind(&row.media);
                    insert.bind(&row.mime).bind(row.made.micros())
                }
                Self::DeleteOlder(before) => {
                    let delete = "DELETE FROM uploads WHERE (auth_id, media_id) IN \
                        (SELECT auth_id, media_id FROM uploads WHERE made_us < $1 ORDER BY made_us LIMIT $2)";
                    sql::query(delete).bind(before.micros()).bind(BATCH)
                }
            };
            Ok(query.execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    #[tokio::test]
    async fn r16_a_media_type_is_visible_to_its_account_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        for (account, mime, made) in
            [("MA1", "image/png", 1), ("MA2", "text/plain", 2), ("MA1", "image/jpeg", 3)]
        {
            let made = Timestamp::from_secs(made);
            let row = UploadRow {
                account: account.into(),
                media: "77".to_owned(),
                mime: mime.to_owned(),
                made,
            };
            assert_eq!(store.uploads().put(row).unwrap().await.unwrap(), 1);
        }
        let known = async |account: &str, media: &str| {
            store.uploads().media_type(&account.into(), media).await.unwrap()
        };
        assert_eq!(known("MA1", "77").await.as_deref(), Some("image/jpeg"), "the later one");
        assert_eq!(
            (known("MA2", "77").await.as_deref(), known("MA1", "78").await),
            (Some("text/plain"), None)
        );
        store.uploads().delete_older(Timestamp::from_secs(3)).await.unwrap();
        assert_eq!((known("MA2", "77").await, known("MA1", "77").await.is_some()), (None, true));
        store.close().await;
    }
}
