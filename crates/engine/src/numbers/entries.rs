//! The entries of numbers in the book, and reports of their changes to people.

use std::sync::Arc;

use super::NO_NUMBER;
use super::errors::NumberError;
use crate::admission::book::{Book, Keeper, Number};
use crate::feed::{Audience, Feed, FeedChange};
use crate::notices::{Notice, Notices};
use model::{Clock, E164, NotificationTopic, PhoneNumberId, Secret};
use store::Scope;

/// Reads and changes entries, and reports changes to people.
pub(super) struct Entries {
    pub(super) keeper: Keeper,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) notices: Notices,
}

impl Entries {
    /// The current book.
    pub(super) fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.keeper.book()
    }

    /// A number in the scope, with its id and token.
    pub(super) fn target(&self, scope: &Scope, number: &E164) -> Result<GraphTarget, NumberError> {
        let book = self.book();
        let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
        Ok(GraphTarget::of(&book, entry))
    }

    /// Publishes a change of a number to the feed.
    pub(super) fn publish(&self, number: &E164) {
        let book = self.book();
        if let Some(entry) = book.any_number(number) {
            let owner = book.owner(entry);
            let to = Audience::of(owner, book.main_of(owner));
            self.feed.publish(to, FeedChange::Number(number.clone()));
        }
    }

    /// Sends a notification about a number.
    pub(super) fn notice(&self, number: &E164, topic: NotificationTopic, text: String) {
        let book = self.book();
        let Some(entry) = book.any_number(number) else { return };
        let owner = book.owner(entry);
        let notice = Notice::new(owner.clone(), book.main_of(owner).clone(), topic, text);
        self.notices.note(Notice { number: Some(number.to_string()), ..notice });
    }
}

/// The data for Graph requests about a number.
#[derive(Clone)]
pub(super) struct GraphTarget {
    pub(super) number: E164,
    pub(super) id: PhoneNumberId,
    pub(super) token: Option<Secret>,
}

impl GraphTarget {
    pub(super) fn of(book: &Book, entry: &Number) -> Self {
        let token = book.token_of(entry).cloned();
        Self { number: entry.number.clone(), id: entry.phone_number_id.clone(), token }
    }
}
