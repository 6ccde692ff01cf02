//! The book in force: changed one at a time, written down first, then in the routing tables and wherever else it is
//! needed.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::super::directory::{Directory, DirectoryError};
use super::{Book, Key};
use crate::admission::AdmissionSettings;
use model::Timestamp;
use store::{Store, StoreError};

/// Told of each book that comes in force, with the one before it.
type Told = Box<dyn Fn(&Book, &Book) + Send + Sync>;

/// Holds the book; cheap to clone.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    store: Store,
    directory: Arc<Directory>,
    book: ArcSwap<Book>,
    told: OnceLock<Told>,
    /// One change at a time.
    turn: Arc<Mutex<()>>,
}

/// Why there is no book.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tables(#[from] DirectoryError),
}

/// Why something did not change.
#[derive(Debug)]
pub enum NotChanged<E> {
    /// Who wanted it to found it wrong.
    Refused(E),
    Store(StoreError),
}

impl Keeper {
    /// Reads the book from configuration and store, and puts it into the routing tables.
    ///
    /// # Errors
    /// The store's, or an entry that names what is not there.
    pub async fn open(
        store: Store,
        directory: Arc<Directory>,
        settings: AdmissionSettings<'_>,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let (mut book, mut writes, passed_over) =
            Book::read(settings, store.settings().list().await?, now);
        let interrupted = book.interrupted(now);
        writes.extend(interrupted.iter().map(|key| book.row(key)));
        for row in passed_over {
            let (kind, id) = (row.kind.as_str(), row.id);
            tracing::warn!(kind, id, why = row.why, "something that was set is passed over");
        }
        for id in book.shut() {
            tracing::error!(
                id,
                "another store.secret_key sealed this token: put that key back, or connect it anew"
            );
        }
        if !writes.is_empty()
            && let Err(error) = store.settings().write(writes, now).await
        {
            tracing::warn!(%error, "what the configuration names is not in the store yet");
        }
        directory.replace_all(book.specs())?;
        let book = ArcSwap::from_pointee(book);
        Ok(Self(Arc::new(Inner {
            store,
            directory,
            book,
            told: OnceLock::new(),
            turn: Arc::default(),
        })))
    }

    /// The book in force; hold it no longer than one question takes.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.0.book.load()
    }

    /// From now on, whoever this is hears of each book that comes in force and of the one before it, beginning with the
    /// one that is (as if it had been there before).
    pub fn tell(&self, told: impl Fn(&Book, &Book) + Send + Sync + 'static) {
        let book = self.0.book.load_full();
        told(&book, &book);
        let _ = self.0.told.set(Box::new(told));
    }

    /// Changes the book, writes the rows of the entries that the change names, and puts it in force for the next call.
    /// Once something is being written it is put in force too, also where nobody waits for it any more.
    ///
    /// # Errors
    /// The change refused, or the store takes nothing; then nothing has changed.
    pub async fn change<T, E>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Book) -> Result<(T, Vec<Key>), E>,
    ) -> Result<T, NotChanged<E>> {
        let turn = self.0.turn.clone().lock_owned().await;
        let mut book = Book::clone(&self.book());
        let (value, keys) = change(&mut book).map_err(NotChanged::Refused)?;
        let writes = keys.iter().map(|key| book.row(key)).collect();
        let (written, this) = (self.0.store.settings().write(writes, now), self.clone());
        let put = tokio::spawn(async move {
            let _turn = turn;
            written.await?;
            if let Err(error) = this.put(book) {
                // A change names only what is there.
                tracing::error!(%error, "what was set is stored, and in force after the next start");
            }
            Ok(())
        });
        // It ends early only where the runtime does.
        put.await.unwrap_or(Err(StoreError::Closed)).map_err(NotChanged::Store)?;
        Ok(value)
    }

    /// Reads the configuration's side again; blocks, for the tasks that may. What the store has is read with it.
    ///
    /// # Errors
    /// An entry that names what is not there, or the store's; then nothing has changed.
    pub fn reload(&self, file: AdmissionSettings<'_>, now: Timestamp) -> Result<(), OpenError> {
        let _turn = self.0.turn.blocking_lock();
        let runtime = tokio::runtime::Handle::current();
        let settings = runtime.block_on(self.0.store.settings().list())?;
        let (book, writes, _) = Book::read(file, settings, now);
        self.put(book)?;
        if !writes.is_empty()
            && let Err(error) = runtime.block_on(self.0.store.settings().write(writes, now))
        {
            tracing::warn!(%error, "what the configuration names is not in the store yet");
        }
        Ok(())
    }

    fn put(&self, book: Book) -> Result<(), DirectoryError> {
        self.0.directory.replace_all(book.specs())?;
        let book = Arc::new(book);
        let before = self.0.book.swap(book.clone());
        if let Some(told) = self.0.told.get() {
            told(&before, &book);
        }
        Ok(())
    }
}
