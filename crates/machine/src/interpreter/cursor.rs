//! The position in a document.

use std::sync::Arc;

use crate::contract::Sound;
use crate::digits::Rules;
use crate::element;
use crate::snapshot::{SnapshotBuilder, text, word};
use xml::Document;
use xml::ast::{Element, ElementKind};

/// Number of elements for which sounds are prepared in advance.
const LOOKAHEAD: usize = 8;

/// A document, and the element that comes next.
pub(super) struct Cursor {
    document: Arc<Document>,
    /// The index of the next child of `Response`.
    next: usize,
    /// The index of the next child of the `PreAnswer` before `next`. `None` while the cursor is not
    /// inside it.
    inner: Option<usize>,
    /// The index of the first element whose sounds have not been prepared.
    prepared: usize,
}

impl Cursor {
    /// Creates a cursor before the first element.
    pub(super) fn new(document: Arc<Document>) -> Self {
        Self { document, next: 0, inner: None, prepared: 0 }
    }

    /// Returns a handle to the document, from which [`Cursor::upcoming`] can borrow while the
    /// cursor moves.
    pub(super) fn document(&self) -> Arc<Document> {
        self.document.clone()
    }

    /// Returns the next element. `None` at the end of the document.
    pub(super) fn upcoming<'a>(&self, document: &'a Document) -> Option<&'a Element> {
        if let Some(child) = self.inner
            && let Some(element) = self.pre_answer(document).get(child)
        {
            return Some(element);
        }
        document.elements.get(self.next)
    }

    /// Moves past the next element.
    pub(super) fn advance(&mut self) {
        match &mut self.inner {
            Some(child) => *child += 1,
            None => self.next += 1,
        }
    }

    /// Enters the element that the cursor has moved past, and moves to its first child.
    pub(super) fn enter(&mut self) {
        self.inner = Some(0);
    }

    /// Leaves a `PreAnswer` that has no further children. Returns whether the cursor is still
    /// inside one.
    pub(super) fn is_inside(&mut self) -> bool {
        let children = self.pre_answer(&self.document).len();
        if self.inner.is_some_and(|child| child >= children) {
            self.inner = None;
        }
        self.inner.is_some()
    }

    /// Returns the children of the `PreAnswer` before the next element.
    fn pre_answer<'a>(&self, document: &'a Document) -> &'a [Element] {
        let before = self.next.checked_sub(1).and_then(|at| document.elements.get(at));
        match before.map(|element| &element.kind) {
            Some(ElementKind::PreAnswer(pre_answer)) => &pre_answer.children,
            _ => &[],
        }
    }

    /// Returns the sounds of the next few elements, except those that were returned before.
    pub(super) fn sounds_ahead(&mut self) -> Vec<Sound> {
        let until = self.next.saturating_add(LOOKAHEAD);
        let mut sounds = Vec::new();
        while self.prepared < until {
            let Some(element) = self.document.elements.get(self.prepared) else { break };
            for sound in element::instruction(&element.kind).sounds() {
                if !sounds.contains(&sound) {
                    sounds.push(sound);
                }
            }
            self.prepared += 1;
        }
        sounds
    }

    /// Returns the rules of the next collection, which takes the digits that are pressed now.
    /// `None` if no collection follows.
    pub(super) fn next_rules(&self) -> Option<Rules> {
        let mut ahead = self.document.elements.iter().skip(self.next);
        ahead.find_map(|element| element::instruction(&element.kind).digit_rules())
    }

    /// Adds the position to the snapshot. `number` is the number of documents that the call has run
    /// so far.
    pub(super) fn write_snapshot(&self, number: u32, snapshot: &mut SnapshotBuilder) {
        let (next, all) =
            (self.next.min(self.document.elements.len()), self.document.elements.len());
        snapshot.add(
            "document",
            [word("number"), text(number), word("element"), text(format!("{next}/{all}"))],
        );
    }
}
