//! Responses to POST requests with an `Idempotency-Key`, in the table `answers_given`. A request
//! that is repeated after a restart gets the same response. Responses are encrypted, because one
//! may contain the secret of a new API key. `api::once` defines their content.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder};
use crate::write::WriteTask;
use model::{AuthId, Timestamp};

/// Handle to the responses. See [`Store::responses`](crate::Store::responses).
#[derive(Clone, Copy, Debug)]
pub struct Responses<'a>(pub(crate) &'a Shared);

impl Responses<'_> {
    /// Stores a response. The future completes when it is readable. Returns `None` if the queue is
    /// full.
    pub fn put(
        self,
        answer: StoredResponse,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<>> {
        self.0.queue.try_run(ResponseWrite::Put(answer)).inspect(|_| self.0.queue.wake())
    }

    /// Claims the work of producing a response, whose `answer` is still empty, until its `until`.
    /// Returns `false` if the response exists or another node has claimed the work.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn claim(self, work: StoredResponse) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(ResponseWrite::Claim(work)).await? > 0)
    }

    /// Extends a claim. Does not wait for the write.
    pub fn renew(self, digest: [u8; 32], until: Timestamp) {
        drop(self.0.queue.run(ResponseWrite::Renew(digest, until)));
    }

    /// Gives back a claim whose response will not be stored. Does not wait for the write.
    pub fn give_back(self, digest: [u8; 32]) {
        drop(self.0.queue.run(ResponseWrite::GiveBack(digest)));
    }

    /// Returns the stored response. `None` if it does not exist, is not complete yet, or was
    /// encrypted with another key.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(
        self,
        digest: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let select = "SELECT answer FROM answers_given \
            WHERE digest = $1 AND until_us > $2 AND length(answer) > 0";
        let select = sql::query_scalar(select).bind(digest.to_vec()).bind(now.micros());
        let sealed: Option<Vec<u8>> =
            select.fetch_optional(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(sealed.and_then(|sealed| Some(self.0.seal.open(&purpose(digest), &sealed)?.to_vec())))
    }

    /// Deletes expired responses, and the oldest ones of accounts that have too many.
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some responses may be deleted then.
    pub async fn delete_expired(self, now: Timestamp) -> Result<(), StoreError> {
        while self.0.queue.run(ResponseWrite::DeleteExpired(now)).await? >= u64::from(BATCH) {}
        let select = "SELECT auth_id FROM answers_given GROUP BY auth_id \
            HAVING count(*) > $1 OR sum(length(answer)) > $2";
        let many: Vec<String> = sql::query_scalar(select)
            .bind(MAX_KEPT)
            .bind(BYTES_MAX)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        for account in many {
            while self.0.queue.run(ResponseWrite::DeleteExcess(account.clone())).await?
                >= u64::from(BATCH)
            {}
        }
        Ok(())
    }
}

/// Maximum number of stored responses for each account, and of their bytes. Most have less than a
/// kilobyte, but an agent with long instructions has 60.
const MAX_KEPT: u32 = 10_000;
const BYTES_MAX: i64 = 32 << 20;

/// Number of bytes from which a response is large. After a large one, the limit of the account is
/// enforced at once, and otherwise with the expiry.
const LARGE: usize = 4 << 10;

/// Number of responses deleted in one write.
const BATCH: u32 = 500;

const WHAT: &str = "read an idempotent response";

/// A response to be stored.
pub struct StoredResponse {
    /// Digest of the caller, the request and the idempotency key.
    pub digest: [u8; 32],
    /// The account that made the request, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Id of the conversation or user that the response is about. The response is deleted with
    /// them.
    pub about: Option<String>,
    pub answer: Vec<u8>,
    pub given: Timestamp,
    pub until: Timestamp,
}

enum ResponseWrite {
    Put(StoredResponse),
    Claim(StoredResponse),
    /// Extends a claim until this time.
    Renew([u8; 32], Timestamp),
    GiveBack([u8; 32]),
    /// Deletes the responses that expired before this time.
    DeleteExpired(Timestamp),
    /// Deletes the oldest responses of an account beyond [`MAX_KEPT`] or [`BYTES_MAX`].
    DeleteExcess(String),
}

impl WriteTask for ResponseWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let before = match self {
                Self::Put(answer) => {
                    let added = put(to, seal, answer).await?;
                    if answer.answer.len() >= LARGE {
                        delete_excess(to, answer.account.as_str()).await?;
                    }
                    return Ok(added);
                }
                Self::DeleteExcess(account) => return delete_excess(to, account).await,
                Self::Claim(work) => return claim(to, work).await,
                Self::GiveBack(digest) => {
                    let delete =
                        "DELETE FROM answers_given WHERE digest = $1 AND length(answer) = 0";
                    let delete = sql::query(delete).bind(digest.to_vec());
                    return Ok(delete.execute(to).await?.rows_affected());
                }
                Self::Renew(digest, until) => {
                    let update = "UPDATE answers_given SET until_us = $2 \
                        WHERE digest = $1 AND length(answer) = 0";
                    let update = sql::query(update).bind(digest.to_vec()).bind(until.micros());
                    return Ok(update.execute(to).await?.rows_affected());
                }
                Self::DeleteExpired(before) => before.micros(),
            };
            let delete = "DELETE FROM answers_given WHERE digest IN \
                (SELECT digest FROM answers_given WHERE until_us < $1 ORDER BY until_us LIMIT $2)";
            let delete = sql::query(delete).bind(before).bind(BATCH);
            Ok(delete.execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

/// Deletes the oldest responses of an account beyond [`MAX_KEPT`] or [`BYTES_MAX`].
async fn delete_excess(to: &mut Conn, account: &str) -> Result<u64, sqlx::Error> {
    let delete = "DELETE FROM answers_given WHERE digest IN (SELECT digest FROM \
        (SELECT digest, row_number() OVER newest AS number, sum(length(answer)) OVER newest AS bytes \
        FROM answers_given WHERE auth_id = $1 \
        WINDOW newest AS (ORDER BY given_us DESC, digest ROWS UNBOUNDED PRECEDING)) AS kept \
        WHERE number > $2 OR bytes > $3 LIMIT $4)";
    let delete = sql::query(delete).bind(account.to_owned()).bind(MAX_KEPT).bind(BYTES_MAX);
    Ok(delete.bind(BATCH).execute(to).await?.rows_affected())
}

/// Inserts a row without an answer. An expired row is replaced: its response is no longer needed,
/// or the node that claimed it has ended.
async fn claim(to: &mut Conn, work: &StoredResponse) -> Result<u64, sqlx::Error> {
    let insert = "INSERT INTO answers_given (digest, auth_id, main_auth_id, about, answer, given_us, until_us) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (digest) DO UPDATE SET about = excluded.about, \
        answer = excluded.answer, given_us = excluded.given_us, until_us = excluded.until_us \
        WHERE answers_given.until_us <= excluded.given_us";
    let insert = sql::query(insert).bind(work.digest.to_vec()).bind(work.account.as_str());
    let insert = insert.bind(work.main_account.as_str()).bind(&work.about).bind(Vec::new());
    let insert = insert.bind(work.given.micros()).bind(work.until.micros());
    Ok(insert.execute(to).await?.rows_affected())
}

async fn put(to: &mut Conn, seal: &Seal, given: &StoredResponse) -> Result<u64, sqlx::Error> {
    // An existing row has expired, otherwise its response would have been sent.
    let insert = "INSERT INTO answers_given (digest, auth_id, main_auth_id, about, answer, given_us, \
        until_us) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (digest) DO UPDATE SET about = excluded.about, \
        answer = excluded.answer, given_us = excluded.given_us, until_us = excluded.until_us";
    let insert = sql::query(insert).bind(given.digest.to_vec()).bind(given.account.as_str());
    let insert = insert.bind(given.main_account.as_str()).bind(&given.about);
    let insert = insert.bind(seal.seal(&purpose(&given.digest), given.answer.clone()));
    Ok(insert
        .bind(given.given.micros())
        .bind(given.until.micros())
        .execute(to)
        .await?
        .rows_affected())
}

fn purpose(digest: &[u8; 32]) -> Vec<u8> {
    [b"answer given ".as_slice(), digest].concat()
}

/// Deletes the responses of agents about a conversation that were stored until `until`.
pub(crate) async fn delete_of_conversation(
    to: &mut Conn,
    conversation: Uuid,
    until: Timestamp,
) -> Result<(), sqlx::Error> {
    let delete = sql::query("DELETE FROM answers_given WHERE about = $1 AND given_us <= $2");
    delete.bind(conversation.to_string()).bind(until.micros()).execute(to).await.map(drop)
}

/// Deletes responses to a main account about these users that were stored up to `until`.
pub(crate) async fn delete_of_users(
    to: &mut Conn,
    main: &AuthId,
    about: &[String],
    until: Timestamp,
) -> Result<u64, sqlx::Error> {
    let mut delete = QueryBuilder::new("DELETE FROM answers_given WHERE main_auth_id = ");
    delete.push_bind(main.as_str()).push(" AND about").push_in(about.iter().cloned());
    delete.push(" AND given_us <= ").push_bind(until.micros());
    Ok(delete.build().execute(to).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    fn answer(n: u8, about: Option<&str>, until: i64) -> StoredResponse {
        let (given, until) = (Timestamp::from_secs(1), Timestamp::from_secs(until));
        let (account, main_account, about) = ("MA1".into(), "MA1".into(), about.map(str::to_owned));
        let answer = b"canary-answer".to_vec();
        StoredResponse { digest: [n; 32], account, main_account, about, answer, given, until }
    }

    #[tokio::test]
    async fn the_oldest_large_responses_of_an_account_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let half = usize::try_from(BYTES_MAX / 2).unwrap();
        for n in 1..=4 {
            let given = Timestamp::from_secs(n.into());
            let large =
                StoredResponse { answer: vec![n; half - 100], given, ..answer(n, None, 20) };
            assert_eq!(store.responses().put(large).unwrap().await.unwrap(), 1);
        }
        let mut kept = Vec::new();
        for n in 1..=4 {
            let found = store.responses().get(&[n; 32], Timestamp::from_secs(10)).await.unwrap();
            kept.extend(found.map(|_| n));
        }
        assert_eq!(kept, [3, 4]);
    }

    #[tokio::test]
    async fn responses_are_kept_encrypted_until_they_expire_or_their_user_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        for given in [answer(1, None, 10), answer(2, Some("919412341234"), 10), answer(3, None, 20)]
        {
            assert_eq!(store.responses().put(given).unwrap().await.unwrap(), 1);
        }
        let at = Timestamp::from_secs;
        let kept = async |n: u8, now| store.responses().get(&[n; 32], at(now)).await.unwrap();
        assert_eq!(kept(1, 9).await.as_deref(), Some(b"canary-answer".as_slice()));
        assert_eq!((kept(1, 10).await, kept(4, 9).await), (None, None), "expired; never stored");
        // The same key after the expiry is a new request.
        assert_eq!(store.responses().put(answer(1, None, 30)).unwrap().await.unwrap(), 1);
        assert!(kept(1, 29).await.is_some());
        let person = |account: &str| crate::tables::erasures::Erasure {
            id: Uuid::from_u128(1),
            account: account.into(),
            main_account: account.into(),
            wa_id: "919412341234".to_owned(),
            known_as: Vec::new(),
            asked: at(2),
        };
        let until = crate::tables::erasures::ErasureCutoff { wall: at(2), steady: at(2) };
        store.erasures().erase_remaining(&person("MA2"), until, Vec::new()).await.unwrap();
        assert!(kept(2, 9).await.is_some(), "another account's erasure");
        store.erasures().erase_remaining(&person("MA1"), until, Vec::new()).await.unwrap();
        assert!(kept(2, 9).await.is_none() && kept(3, 9).await.is_some());
        store.responses().delete_expired(at(25)).await.unwrap();
        assert!(kept(3, 9).await.is_none() && kept(1, 9).await.is_some());
        store.close().await;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"canary"), "r22");
        }
    }
}
