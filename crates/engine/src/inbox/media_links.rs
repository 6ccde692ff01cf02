//! Signed links to the files of messages. They are valid for an hour.

use std::time::Duration;

use uuid::Uuid;

use crate::links::LinkSigner;
use model::Clock;

/// Lifetime of a link.
const LINK_LIFETIME: Duration = Duration::from_secs(3_600);

/// Makes and checks links.
pub(super) struct MediaLinks {
    pub(super) signer: LinkSigner,
    /// The node's public URL without a trailing slash.
    pub(super) base_url: String,
    pub(super) clock: Clock,
}

impl MediaLinks {
    /// A link to a message's file.
    pub(super) fn link(&self, message: Uuid) -> String {
        let until = self.clock.wall().plus(LINK_LIFETIME);
        let query = self.signer.query(&format!("media {message}"), until);
        format!("{}/media/{message}?{query}", self.base_url)
    }

    /// Returns whether a link is valid now.
    pub(super) fn is_valid(&self, message: Uuid, until: i64, tag: &str) -> bool {
        self.signer.is_valid(&format!("media {message}"), until, tag, self.clock.wall())
    }
}
