//! Owns the current book. Changes are applied one at a time: stored first, then put into the
//! routing tables and passed to the listener.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::super::directory::{Directory, DirectoryError};
use super::{Book, Key};
use crate::admission::AdmissionSettings;
use model::Timestamp;
use store::{Store, StoreError};

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
    turn: Arc<Mutex<()>>,
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
    /// The caller's own function refused it.
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
        let (mut book, mut writes, skipped) =
            Book::read(settings, store.settings().list().await?, now);
        let interrupted = book.fail_interrupted(now);
        writes.extend(interrupted.iter().map(|key| book.row(key)));
        for row in skipped {
            let (kind, id) = (row.kind.as_str(), row.id);
            tracing::warn!(kind, id, why = row.why, "stored setting skipped");
        }
        for id in book.shut() {
            tracing::error!(
                id,
                "token sealed with another store.secret_key; restore that key or connect the number again"
            );
        }
        if !writes.is_empty()
            && let Err(error) = store.settings().write(writes, now).await
        {
            tracing::warn!(%error, "could not store the entries of the configuration");
        }
        directory.replace_all(book.specs())?;
        let book = ArcSwap::from_pointee(book);
        Ok(Self(Arc::new(Inner {
            store,
            directory,
            book,
            listener: OnceLock::new(),
            turn: Arc::default(),
        })))
    }

    /// The current book. Do not hold the guard across an `.await`.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.0.book.load()
    }

    /// Sets the listener. It is called once with the current book as both arguments, and then with
    /// the previous and the new book after each change. Only the first listener is kept.
    pub fn tell(&self, listener: impl Fn(&Book, &Book) + Send + Sync + 'static) {
        let book = self.0.book.load_full();
        listener(&book, &book);
        let _ = self.0.listener.set(Box::new(listener));
    }

    /// Applies a change, stores the entries that it names, and puts the new book into force for the
    /// next call. Once the write has begun the change is completed even if the returned future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the change refuses or the store fails. Then nothing has changed.
    pub async fn change<T, E>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Book) -> Result<(T, Vec<Key>), E>,
    ) -> Result<T, ChangeError<E>> {
        let turn = self.0.turn.clone().lock_owned().await;
        let mut book = Book::clone(&self.book());
        let (value, keys) = change(&mut book).map_err(ChangeError::Refused)?;
        let writes = keys.iter().map(|key| book.row(key)).collect();
        let (written, this) = (self.0.store.settings().write(writes, now), self.clone());
        let put = tokio::spawn(async move {
            let _turn = turn;
            written.await?;
            if let Err(error) = this.put(book) {
                // Unreachable in practice: a change refers only to existing entries.
                tracing::error!(%error, "change stored, but it takes effect only after a restart");
            }
            Ok(())
        });
        // The task ends early only if the runtime shuts down.
        put.await.unwrap_or(Err(StoreError::Closed)).map_err(ChangeError::Store)?;
        Ok(value)
    }

    /// Applies a new configuration, together with the settings in the store. Blocks, so it must run
    /// on a blocking thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails or an entry refers to one that does not exist. Then
    /// nothing has changed.
    pub fn reload(&self, file: AdmissionSettings<'_>, now: Timestamp) -> Result<(), OpenError> {
        let _turn = self.0.turn.blocking_lock();
        let runtime = tokio::runtime::Handle::current();
        let settings = runtime.block_on(self.0.store.settings().list())?;
        let (book, writes, _) = Book::read(file, settings, now);
        self.put(book)?;
        if !writes.is_empty()
            && let Err(error) = runtime.block_on(self.0.store.settings().write(writes, now))
        {
            tracing::warn!(%error, "could not store the entries of the configuration");
        }
        Ok(())
    }

    fn put(&self, book: Book) -> Result<(), DirectoryError> {
        self.0.directory.replace_all(book.specs())?;
        let book = Arc::new(book);
        let before = self.0.book.swap(book.clone());
        if let Some(listener) = self.0.listener.get() {
            listener(&before, &book);
        }
        Ok(())
    }
}
