//! Detects calls with documents that form an endless loop (docs/reference/xml.md#loops).

/// Maximum number of consecutive documents without an instruction that takes time.
const IDLE_DOCUMENTS_MAX: u32 = 100;
/// Maximum number of documents of a call.
const DOCUMENTS_MAX: u32 = 2_000;

/// Counts the documents of a call.
#[derive(Debug, Default)]
pub(super) struct LoopGuard {
    documents: u32,
    idle_documents: u32,
    took_time: bool,
}

impl LoopGuard {
    /// Counts a document that starts.
    pub(super) fn begin_document(&mut self) {
        self.documents = self.documents.saturating_add(1);
        self.took_time = false;
    }

    /// Records that an instruction of the document starts. `takes_time` is false if it ends
    /// immediately.
    pub(super) fn note(&mut self, takes_time: bool) {
        self.took_time |= takes_time;
    }

    /// Returns the number of documents that the call has run so far.
    pub(super) fn documents(&self) -> u32 {
        self.documents
    }

    /// Ends the document when it is replaced.
    ///
    /// # Errors
    ///
    /// Fails if the call has run too many documents. The error names the limit.
    pub(super) fn end_document(&mut self) -> Result<(), String> {
        self.idle_documents =
            if self.took_time { 0 } else { self.idle_documents.saturating_add(1) };
        if self.documents >= DOCUMENTS_MAX {
            return Err(format!("the call has run {DOCUMENTS_MAX} documents, the maximum"));
        }
        if self.idle_documents > IDLE_DOCUMENTS_MAX {
            let idle = self.idle_documents;
            return Err(format!("{idle} documents in a row that completed immediately"));
        }
        Ok(())
    }
}
