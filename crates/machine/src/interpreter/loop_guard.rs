//! The end of calls whose documents send them in a circle (`plivo-xml.md` §4 rule 8).

/// Consecutive documents without an instruction that takes time.
const IDLE_DOCUMENTS_MAX: u32 = 100;
/// Documents of a call.
const DOCUMENTS_MAX: u32 = 2_000;

/// Counts the documents of a call.
#[derive(Debug, Default)]
pub(super) struct LoopGuard {
    documents: u32,
    idle_documents: u32,
    took_time: bool,
}

impl LoopGuard {
    /// A document begins.
    pub(super) fn begin_document(&mut self) {
        self.documents = self.documents.saturating_add(1);
        self.took_time = false;
    }

    /// An instruction of the document begins. `takes_time`: it does not end at once.
    pub(super) fn note(&mut self, takes_time: bool) {
        self.took_time |= takes_time;
    }

    /// How many documents the call has had.
    pub(super) fn documents(&self) -> u32 {
        self.documents
    }

    /// Ends the document, since another one takes over.
    ///
    /// # Errors
    /// Fails if the call has had too many. The error says which bound was passed.
    pub(super) fn end_document(&mut self) -> Result<(), String> {
        self.idle_documents =
            if self.took_time { 0 } else { self.idle_documents.saturating_add(1) };
        if self.documents >= DOCUMENTS_MAX {
            return Err(format!("{DOCUMENTS_MAX} documents in one call"));
        }
        if self.idle_documents > IDLE_DOCUMENTS_MAX {
            let idle = self.idle_documents;
            return Err(format!("{idle} documents in a row in which nothing took time"));
        }
        Ok(())
    }
}
