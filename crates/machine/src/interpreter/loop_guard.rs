//! Ends calls whose documents form an endless loop (docs/reference/xml.md#loops).

/// The most consecutive documents without an instruction that takes time.
const IDLE_DOCUMENTS_MAX: u32 = 100;
/// The most documents of a call.
const DOCUMENTS_MAX: u32 = 2_000;

/// Counts the documents of a call.
#[derive(Debug, Default)]
pub(super) struct LoopGuard {
    documents: u32,
    idle_documents: u32,
    took_time: bool,
}

impl LoopGuard {
    /// Counts a document that begins.
    pub(super) fn begin_document(&mut self) {
        self.documents = self.documents.saturating_add(1);
        self.took_time = false;
    }

    /// Notes that an instruction of the document begins. `takes_time` is false if it ends
    /// immediately.
    pub(super) fn note(&mut self, takes_time: bool) {
        self.took_time |= takes_time;
    }

    /// Returns the number of documents that the call has had.
    pub(super) fn documents(&self) -> u32 {
        self.documents
    }

    /// Ends the document, since another one replaces it.
    ///
    /// # Errors
    ///
    /// Fails if the call has had too many documents. The error names the limit.
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
