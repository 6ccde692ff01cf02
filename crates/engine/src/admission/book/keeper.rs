//! Owns the current book. Changes are applied one at a time: stored first, then put into the
//! routing tables and passed to the listener.
//!
//! Several nodes may share the store. A change is based on the settings as they are stored. It is
//! stored only if no other node has changed them since, and applied again to the newer ones
//! otherwise. [`Keeper::refresh`] applies the changes of other nodes.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::super::directory::{Directory, DirectoryError};
use super::{Book, Key, SkippedRow};
use crate::admission::AdmissionSettings;
use crate::admission::settings::OwnedSettings;
use model::Timestamp;
use store::{Store, StoreError};

/// Maximum number of attempts at a change that conflicts with changes of other nodes.
const TRIES: usize = 8;

/// Called with the previous and the new book after each change.
type ChangeListener = Box<dyn Fn(&Book, &Book) + Send + Sync>;

/// A handle to the current book; cheap to clone.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    store: Store,
    directory: Arc<Directory>,
    book: ArcSwap<Book>,
    listener: OnceLock<ChangeListener>,
    /// Serializes changes.
    turn: Arc<Mutex<Sources>>,
}

/// The sources that the book was read from.
struct Sources {
    file: OwnedSettings,
    /// The version of the settings in the store.
    version: i64,
}

/// Why the book could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tables(#[from] DirectoryError),
}

/// Why a change was not made.
#[derive(thiserror::Error, Debug)]
pub enum ChangeError<E> {
    /// The closure that makes the change returned this error.
    #[error("{0}")]
    Refused(E),
    #[error("store failed: {0}")]
    Store(StoreError),
}

impl Keeper {
    /// Reads the book from the configuration and the store, and puts it into the routing tables.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails or an entry refers to one that does not exist.
    pub async fn open(
        store: Store,
        directory: Arc<Directory>,
        settings: AdmissionSettings<'_>,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let read = read_file(&store, &directory, settings, now, true).await?;
        let (book, version, skipped) = read;
        for row in skipped {
            let (kind, id) = (row.kind.as_str(), row.id);
            tracing::warn!(kind, id, why = row.why, "stored setting skipped");
        }
        for id in book.unreadable_tokens() {
            tracing::error!(
                id,
                "token sealed with another store.secret_key; restore that key or connect the number again"
            );
        }
        let sources = Sources { file: settings.into(), version };
        Ok(Self(Arc::new(Inner {
            store,
            directory,
            book: ArcSwap::from_pointee(book),
            listener: OnceLock::new(),
            turn: Arc::new(Mutex::new(sources)),
        })))
    }

    /// The current book. Do not hold the guard across an `.await`.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.0.book.load()
    }

    /// Sets the listener. It is called once with the current book as both arguments, and then with
    /// the previous and the new book after each change. After a change that another node has made,
    /// and reported, both arguments are the new book. Only the first listener is kept.
    pub fn tell(&self, listener: impl Fn(&Book, &Book) + Send + Sync + 'static) {
        let book = self.0.book.load_full();
        listener(&book, &book);
        let _ = self.0.listener.set(Box::new(listener));
    }

    /// Applies a change, stores the entries that it names, and makes the new book effective for the
    /// next call. `change` is called again if another node has changed the settings in between.
    /// Once the write has begun the change is completed even if the returned future is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if `change` fails, if the store fails, or if the change conflicts with
    /// other nodes' changes too often. Then nothing has changed.
    pub async fn change<T, E>(
        &self,
        now: Timestamp,
        mut change: impl FnMut(&mut Book) -> Result<(T, Vec<Key>), E>,
    ) -> Result<T, ChangeError<E>> {
        let mut turn = self.0.turn.clone().lock_owned().await;
        for _ in 0..TRIES {
            self.catch_up(&mut turn, now).await.map_err(ChangeError::Store)?;
            let mut book = Book::clone(&self.book());
            let (value, keys) = change(&mut book).map_err(ChangeError::Refused)?;
            if keys.is_empty() {
                return Ok(value);
            }
            let writes = keys.iter().map(|key| book.row(key)).collect();
            let written = self.0.store.settings().write(writes, turn.version, now);
            let this = self.clone();
            let put = tokio::spawn(async move {
                if !written.await? {
                    return Ok(Some(turn));
                }
                turn.version += 1;
                if let Err(error) = this.0.directory.replace_all(book.specs()) {
                    // Unreachable in practice: a change refers only to existing entries.
                    tracing::error!(%error, "change stored, but it takes effect only after a restart");
                } else {
                    this.publish(book);
                }
                Ok(None)
            });
            // The task ends early only if the runtime shuts down.
            match put.await.unwrap_or(Err(StoreError::Closed)).map_err(ChangeError::Store)? {
                None => return Ok(value),
                Some(again) => turn = again,
            }
        }
        Err(ChangeError::Store(StoreError::Contended))
    }

    /// Applies changes that other nodes have stored. The configuration does not overwrite them.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn refresh(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut turn = self.0.turn.lock().await;
        self.catch_up(&mut turn, now).await
    }

    async fn catch_up(&self, sources: &mut Sources, now: Timestamp) -> Result<(), StoreError> {
        let store = &self.0.store;
        if !store.is_shared() || store.settings().version().await? == sources.version {
            return Ok(());
        }
        let (version, stored) = store.settings().list().await?;
        let book = Book::read_changed(sources.file.borrow(), stored, now);
        if let Err(error) = self.0.directory.replace_all(book.specs()) {
            // Unreachable in practice: entries that refer to missing ones are skipped.
            tracing::error!(%error, "settings of another node take effect only after a restart");
            return Ok(());
        }
        sources.version = version;
        let book = Arc::new(book);
        self.0.book.store(book.clone());
        if let Some(listener) = self.0.listener.get() {
            listener(&book, &book);
        }
        Ok(())
    }

    /// Applies a new configuration, together with the settings in the store. Blocks, so it must run
    /// on a blocking thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails or an entry refers to one that does not exist. Then
    /// nothing has changed.
    pub fn reload(&self, file: AdmissionSettings<'_>, now: Timestamp) -> Result<(), OpenError> {
        let mut turn = self.0.turn.blocking_lock();
        let read = read_file(&self.0.store, &self.0.directory, file, now, false);
        let (book, version, _) = tokio::runtime::Handle::current().block_on(read)?;
        *turn = Sources { file: file.into(), version };
        self.publish(book);
        Ok(())
    }

    /// Replaces the current book. Its tables are already in effect.
    fn publish(&self, book: Book) {
        let book = Arc::new(book);
        let before = self.0.book.swap(book.clone());
        if let Some(listener) = self.0.listener.get() {
            listener(&before, &book);
        }
    }
}

/// Reads the book from the configuration and the store, applies its tables, and stores additions
/// and changes from the configuration. Returns the book, the version of the stored settings, and
/// the rows that were skipped.
async fn read_file(
    store: &Store,
    directory: &Directory,
    file: AdmissionSettings<'_>,
    now: Timestamp,
    is_start: bool,
) -> Result<(Book, i64, Vec<SkippedRow>), OpenError> {
    let mut tries = 0..TRIES;
    loop {
        let (version, stored) = store.settings().list().await?;
        let (mut book, mut writes, skipped) = Book::read(file, stored, now);
        if is_start {
            let interrupted = book.fail_interrupted(now);
            writes.extend(interrupted.iter().map(|key| book.row(key)));
        }
        directory.replace_all(book.specs())?;
        if writes.is_empty() {
            return Ok((book, version, skipped));
        }
        let error = match store.settings().write(writes, version, now).await {
            Ok(true) => return Ok((book, version + 1, skipped)),
            // Another node has changed the settings in between.
            Ok(false) if tries.next().is_some() => continue,
            Ok(false) => StoreError::Contended,
            Err(error) => error,
        };
        tracing::warn!(%error, "entries of the configuration not stored");
        return Ok((book, version, skipped));
    }
}
