//! Settings made at run time, one row each. All are loaded at the start. `admission::book` defines
//! their content. Secrets are encrypted.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::rows::setting::{Setting, SettingKind, SettingWrite};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool};
use crate::write::WriteTask;
use model::{Secret, Timestamp};

/// Handle to the settings. See [`Store::settings`](crate::Store::settings).
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a>(pub(crate) &'a Shared);

impl Settings<'_> {
    /// Returns all settings and their version, which counts their changes.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self) -> Result<(i64, Vec<Setting>), StoreError> {
        all(&self.0.read, &self.0.seal).await
    }

    /// Returns the version of the settings.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn version(self) -> Result<i64, StoreError> {
        let select = sql::query_scalar("SELECT version FROM settings_version");
        select.fetch_one(&self.0.read).await.map_err(failed(WHAT))
    }

    /// Writes settings, either all of them or none, synced to disk, if their version is still
    /// `seen`. Returns whether they were written, which increments the version. The write is queued
    /// when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub fn write(
        self,
        writes: Vec<SettingWrite>,
        seen: i64,
        at: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        self.0.queue.run(SettingsWrite { writes, seen, at }).map(|done| done.map(|rows| rows > 0))
    }
}

const WHAT: &str = "read the settings";

/// A change of settings. `seen` is the version that it is based on.
struct SettingsWrite {
    writes: Vec<SettingWrite>,
    seen: i64,
    at: Timestamp,
}

impl WriteTask for SettingsWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let next = "UPDATE settings_version SET version = version + 1 WHERE version = $1";
            let next = sql::query(next).bind(self.seen).execute(&mut *to).await?.rows_affected();
            if next > 0 {
                write(to, seal, &self.writes, self.at).await?;
            }
            Ok(next)
        }
        .boxed()
    }
}

pub(crate) fn purpose(kind: &str, id: &str) -> Vec<u8> {
    format!("setting {kind} {id}").into_bytes()
}

async fn write(
    to: &mut Conn,
    seal: &Seal,
    writes: &[SettingWrite],
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    for SettingWrite { kind, id, body, keeps_sealed } in writes {
        let kind = kind.as_str();
        let Some((body, secret)) = body else {
            let delete =
                sql::query("DELETE FROM settings WHERE kind = $1 AND id = $2").bind(kind).bind(id);
            delete.execute(&mut *to).await?;
            continue;
        };
        let sealed =
            secret.as_ref().map(|s| seal.seal(&purpose(kind, id), s.reveal().as_bytes().to_vec()));
        let mut put = "INSERT INTO settings (kind, id, body, sealed, changed_us) VALUES ($1, $2, $3, $4, $5) \
            ON CONFLICT (kind, id) DO UPDATE \
            SET body = excluded.body, sealed = excluded.sealed, changed_us = excluded.changed_us";
        if *keeps_sealed && secret.is_none() {
            put = "INSERT INTO settings (kind, id, body, sealed, changed_us) VALUES ($1, $2, $3, $4, $5) \
                ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body, changed_us = excluded.changed_us";
        }
        let put = sql::query(put).bind(kind).bind(id).bind(body).bind(sealed).bind(at.micros());
        put.execute(&mut *to).await?;
    }
    Ok(())
}

/// Returns the version of the settings and all of them, ordered by key. Kinds that this version of
/// Offhook does not know are skipped.
pub(crate) async fn all(pool: &Pool, seal: &Seal) -> Result<(i64, Vec<Setting>), StoreError> {
    // One statement, so that the version is that of these rows. The join gives one row if there are
    // no settings.
    let select = "SELECT v.version, kind, id, body, sealed FROM settings_version v LEFT JOIN settings ON TRUE \
        ORDER BY kind, id";
    type Row = (i64, Option<String>, Option<String>, Option<String>, Option<Vec<u8>>);
    let rows: Vec<Row> = sql::query_as(select).fetch_all(pool).await.map_err(failed(WHAT))?;
    let version = rows.first().map(|row| row.0).unwrap_or_default();
    let read = |(_, word, id, body, sealed): Row| {
        let (word, id, body) = (word?, id?, body?);
        let kind = SettingKind::parse(&word)?;
        let opened = sealed.as_ref().map(|sealed| seal.open(&purpose(&word, &id), sealed));
        let is_unreadable = matches!(opened, Some(None));
        let secret =
            opened.flatten().and_then(|text| Some(Secret::new(std::str::from_utf8(&text).ok()?)));
        Some(Setting { kind, id, body, secret, is_unreadable })
    };
    Ok((version, rows.into_iter().filter_map(read).collect()))
}

#[cfg(test)]
mod tests {
    use crate::options::FaultInjector;
    use crate::options::StoreOptions;
    use crate::options::StorePart;
    use crate::rows::setting::Setting;
    use crate::rows::setting::SettingKind;
    use crate::rows::setting::SettingWrite;
    use crate::store::Store;
    use model::Health;
    use model::Secret;
    use model::Timestamp;

    fn write(id: &str, body: Option<&str>, secret: Option<&str>) -> SettingWrite {
        let body = body.map(|body| (body.to_owned(), secret.map(Secret::new)));
        SettingWrite { kind: SettingKind::Account, id: id.to_owned(), body, keeps_sealed: false }
    }

    async fn put(store: &Store, writes: Vec<SettingWrite>) -> bool {
        let seen = store.settings().version().await.unwrap();
        store.settings().write(writes, seen, Timestamp::from_secs(1)).await.is_ok_and(|done| done)
    }

    fn shown(settings: &[Setting]) -> Vec<(&str, &str, Option<&str>, bool)> {
        settings
            .iter()
            .map(|s| (&*s.id, &*s.body, s.secret.as_ref().map(Secret::reveal), s.is_unreadable))
            .collect()
    }

    #[tokio::test]
    async fn settings_are_replaced_and_deleted_and_their_secrets_encrypted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offhook.db");
        let store = Store::open(&file, Health::new()).await.unwrap();
        assert!(
            put(
                &store,
                vec![
                    write("SA1", Some("{}"), Some("canary-token")),
                    write("SA2", Some("{}"), None)
                ]
            )
            .await
        );
        assert!(
            put(
                &store,
                vec![write("SA1", Some("{1}"), Some("canary-token")), write("SA2", None, None)]
            )
            .await
        );
        assert_eq!(
            shown(&store.settings().list().await.unwrap().1),
            [("SA1", "{1}", Some("canary-token"), false)]
        );
        store.close().await;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"canary"), "r22");
        }
        let (key, away) = (folder.path().join("store.key"), folder.path().join("away.key"));
        std::fs::rename(&key, &away).unwrap();
        let store = Store::open(&file, Health::new()).await.unwrap();
        assert_eq!(shown(&store.settings().list().await.unwrap().1), [("SA1", "{1}", None, true)]);
        // A change made without the right key keeps the encrypted secret.
        let change = SettingWrite { keeps_sealed: true, ..write("SA1", Some("{2}"), None) };
        assert!(put(&store, vec![change.clone()]).await);
        store.close().await;
        std::fs::rename(&away, &key).unwrap();
        let store = Store::open(&file, Health::new()).await.unwrap();
        assert_eq!(
            shown(&store.settings().list().await.unwrap().1),
            [("SA1", "{2}", Some("canary-token"), false)]
        );
        let another =
            SettingWrite { keeps_sealed: true, ..write("SA1", Some("{3}"), Some("another")) };
        assert!(put(&store, vec![another]).await);
        assert_eq!(
            shown(&store.settings().list().await.unwrap().1),
            [("SA1", "{3}", Some("another"), false)]
        );
        store.close().await;
    }

    #[tokio::test]
    async fn r11_a_rejected_write_of_settings_fails() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        use std::sync::atomic::Ordering;
        let folder = tempfile::tempdir().unwrap();
        let broken = Arc::new(AtomicBool::new(true));
        let says = broken.clone();
        let fail: FaultInjector =
            Arc::new(move |part| part == StorePart::Store && says.load(Ordering::SeqCst));
        let options =
            StoreOptions { fail: Some(fail), ..StoreOptions::with_journal_in(folder.path()) };
        let store = Store::open_with(&folder.path().join("offhook.db"), options, Health::new())
            .await
            .unwrap();
        assert!(!put(&store, vec![write("SA1", Some("{}"), None)]).await);
        broken.store(false, Ordering::SeqCst);
        while !put(&store, vec![write("SA2", Some("{}"), None)]).await {}
        assert_eq!(shown(&store.settings().list().await.unwrap().1), [("SA2", "{}", None, false)]);
        store.close().await;
    }
}
