//! Certificates from a certificate authority, and the data that is needed to order them. The crate
//! `tls` defines their content. Private keys are encrypted.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::write::WriteTask;
use model::{Secret, Timestamp};

/// Handle to the certificates. See [`Store::certificates`](crate::Store::certificates).
#[derive(Clone, Copy, Debug)]
pub struct Certificates<'a>(pub(crate) &'a Shared);

/// The kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// An account at a certificate authority.
    Account,
    Certificate,
    /// The response to the challenge by which the authority validates a host name.
    Challenge,
    /// A claim of the right to order a certificate.
    Claim,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    pub kind: CertificateKind,
    pub id: String,
    pub body: String,
    /// The private key. `None` if there is none, or if it was encrypted with another key.
    pub secret: Option<Secret>,
    pub until: Timestamp,
}

impl CertificateKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Certificate => "certificate",
            Self::Challenge => "challenge",
            Self::Claim => "claim",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Account, Self::Certificate, Self::Challenge, Self::Claim]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl Certificates<'_> {
    /// Returns all rows, ordered by key.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self) -> Result<Vec<CertificateRow>, StoreError> {
        type Row = (String, String, String, Option<Vec<u8>>, i64);
        let select = "SELECT kind, id, body, sealed, until_us FROM certificates ORDER BY kind, id";
        let rows: Vec<Row> =
            sql::query_as(select).fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let seal = &self.0.seal;
        let read = |(kind, id, body, sealed, until): Row| {
            let opened = sealed.and_then(|sealed| seal.open(&purpose(&kind, &id), &sealed));
            let secret =
                opened.and_then(|text| Some(Secret::new(std::str::from_utf8(&text).ok()?)));
            let until = Timestamp::from_micros(until);
            Some(CertificateRow { kind: CertificateKind::parse(&kind)?, id, body, secret, until })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Writes a row and syncs it to disk. It replaces an earlier row with the same key.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn put(self, row: CertificateRow) -> Result<(), StoreError> {
        self.0.queue.run(CertificateWrite::Put(row)).await.map(drop)
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn delete(self, kind: CertificateKind, id: String) -> Result<(), StoreError> {
        self.0.queue.run(CertificateWrite::Delete(kind, id)).await.map(drop)
    }

    /// Claims the right to order a certificate, until a time. Returns `false` if another holder has
    /// the right at `now`.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn claim(
        self,
        id: String,
        holder: String,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(CertificateWrite::Claim { id, holder, now, until }).await? > 0)
    }
}

const WHAT: &str = "read the certificates";

enum CertificateWrite {
    Put(CertificateRow),
    Delete(CertificateKind, String),
    Claim { id: String, holder: String, now: Timestamp, until: Timestamp },
}

impl WriteTask for CertificateWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let write = match self {
                Self::Put(row) => {
                    let kind = row.kind.as_str();
                    let sealed = row.secret.as_ref().map(|secret| {
                        seal.seal(&purpose(kind, &row.id), secret.reveal().as_bytes().to_vec())
                    });
                    sql::query(
                        "INSERT INTO certificates (kind, id, body, sealed, until_us) VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (kind, id) DO UPDATE \
                         SET body = excluded.body, sealed = excluded.sealed, until_us = excluded.until_us",
                    )
                    .bind(kind)
                    .bind(&*row.id)
                    .bind(&*row.body)
                    .bind(sealed)
                    .bind(row.until.micros())
                }
                Self::Delete(kind, id) => {
                    let delete = "DELETE FROM certificates WHERE kind = $1 AND id = $2";
                    sql::query(delete).bind(kind.as_str()).bind(&**id)
                }
                Self::Claim { id, holder, now, until } => sql::query(
                    "INSERT INTO certificates (kind, id, body, until_us) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body, until_us = excluded.until_us \
                     WHERE certificates.body = excluded.body OR certificates.until_us <= $5",
                )
                .bind(CertificateKind::Claim.as_str())
                .bind(&**id)
                .bind(&**holder)
                .bind(until.micros())
                .bind(now.micros()),
            };
            Ok(write.execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

pub(crate) fn purpose(kind: &str, id: &str) -> Vec<u8> {
    format!("certificate {kind} {id}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    #[tokio::test]
    async fn private_keys_are_encrypted_and_one_holder_has_the_claim() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("offhook.db"), Health::new()).await.unwrap();
        let row = |body: &str| CertificateRow {
            kind: CertificateKind::Certificate,
            id: "a.example".to_owned(),
            body: body.to_owned(),
            secret: Some(Secret::new("canary-key")),
            until: Timestamp::from_secs(7),
        };
        store.certificates().put(row("first")).await.unwrap();
        store.certificates().put(row("second")).await.unwrap();
        let rows = store.certificates().list().await.unwrap();
        let secret = rows[0].secret.as_ref().map(Secret::reveal);
        assert_eq!((rows.len(), &*rows[0].body, secret), (1, "second", Some("canary-key")));
        assert_eq!(rows[0].until, Timestamp::from_secs(7));
        let claim = async |holder: &str, now| {
            let (now, until) = (Timestamp::from_secs(now), Timestamp::from_secs(now + 10));
            let claim = store.certificates().claim("a".to_owned(), holder.to_owned(), now, until);
            claim.await.unwrap()
        };
        assert!(claim("one", 0).await && claim("one", 5).await, "again by its holder");
        assert!(!claim("two", 14).await && claim("two", 15).await);
        assert!(!claim("one", 15).await);
        for row in store.certificates().list().await.unwrap() {
            store.certificates().delete(row.kind, row.id).await.unwrap();
        }
        assert!(store.certificates().list().await.unwrap().is_empty());
        store.close().await;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "r22");
        }
    }
}
