//! Recordings, as the store is asked for them.

use uuid::Uuid;

use super::{
    CopyWrite, Recording, RecordingConclusion, RecordingFilter, RecordingStart, RecordingWork,
    TranscriptWrite,
};
use crate::{Scope, Store, StoreError, Written};
use model::Timestamp;

impl Store {
    /// Notes a recording that begins. Returns at once; a beginning that is lost [`Store::conclude_recording`] makes good for.
    pub fn recording_begun(&self, start: RecordingStart) {
        self.log.recording_begun(start);
    }

    /// The end of a recording: its row and what reports it, in one transaction, once, synced to the disk. Queued when this
    /// returns. Where the journal takes it, the callbacks go out when the store has them, and none is given.
    ///
    /// # Errors
    /// The store was closed meanwhile.
    pub fn conclude_recording(
        &self,
        conclusion: RecordingConclusion,
    ) -> impl Future<Output = Result<Vec<Written>, StoreError>> + Send + 'static + use<> {
        self.log.conclude_recording(conclusion)
    }

    /// Recordings of a node that were never ended: what a crash left behind.
    ///
    /// # Errors
    /// The store's.
    pub async fn recordings_open(&self, node_id: &str) -> Result<Vec<RecordingStart>, StoreError> {
        super::open(&self.read, node_id).await
    }

    /// One of a scope's recordings that is complete.
    ///
    /// # Errors
    /// The store's.
    pub async fn recording(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<Option<Recording>, StoreError> {
        super::one(&self.read, scope, id).await
    }

    /// A scope's complete recordings, newest first, and how many there are in all.
    ///
    /// # Errors
    /// The store's.
    pub async fn recordings(
        &self,
        scope: &Scope,
        filter: &RecordingFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Recording>, u64), StoreError> {
        super::list(&self.read, scope, filter, limit, offset).await
    }

    /// Complete recordings that began before then, whosever they are, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn recordings_older(
        &self,
        than: Timestamp,
        limit: u32,
    ) -> Result<Vec<Recording>, StoreError> {
        super::older(&self.read, than, limit).await
    }

    /// What a recording of this id and format is called in other storage, whosever it is; `None`: it is not there.
    ///
    /// # Errors
    /// The store's.
    pub async fn recording_object(
        &self,
        id: Uuid,
        format: &str,
    ) -> Result<Option<String>, StoreError> {
        super::object(&self.read, id, format).await
    }

    /// What a node is to do about its complete recordings by now, at most so many of each kind.
    ///
    /// # Errors
    /// The store's.
    pub async fn recording_work(
        &self,
        node_id: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<RecordingWork, StoreError> {
        super::work(&self.read, node_id, now, limit).await
    }

    /// Writes what became of a try to write down what is said in a recording; with what tells of it, if that is new.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn transcribed(&self, write: TranscriptWrite) -> Result<Vec<Written>, StoreError> {
        self.log.transcribed(write).await
    }

    /// Writes what became of a copy to the disk.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn copied(&self, write: CopyWrite) -> Result<(), StoreError> {
        self.log.copied(write).await
    }

    /// Forgets recordings' rows; their copies in other storage are to be taken away.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn forget_recordings(&self, ids: Vec<Uuid>) -> Result<(), StoreError> {
        self.log.forget_recordings(ids).await
    }
}
