//! The approved templates of a number's WABA, kept for a minute, and the text of a template
//! message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Outgoing;
use crate::admission::NumberEntry;
use crate::meta::Graph;
use crate::meta::templates::Template;
use machine::GraphOutcome;
use model::{Clock, WabaId};

/// How long a listing, or a failure to read one, is cached.
const LISTING_AGE_MAX: Duration = Duration::from_secs(60);
const FAILURE_AGE_MAX: Duration = Duration::from_secs(10);
/// How long sending a template message may wait for the text of the template.
const TEXT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why the templates of a number can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TemplatesError {
    #[error("the WABA of the number is not known")]
    NoWaba,
    #[error("request to Meta failed: {0:?}")]
    Meta(GraphOutcome),
}

/// The templates of all WABAs.
pub struct Templates {
    graph: Arc<Graph>,
    clock: Clock,
    /// The last listing of each WABA. The lock of an entry is held during the request to Graph, so
    /// that one request serves all waiting callers.
    listings: DashMap<WabaId, Arc<Mutex<Option<Listing>>>>,
}

struct Listing {
    read_at: Instant,
    templates: Result<Arc<[Template]>, GraphOutcome>,
}

impl Listing {
    fn is_fresh(&self, now: Instant) -> bool {
        let age_max = if self.templates.is_ok() { LISTING_AGE_MAX } else { FAILURE_AGE_MAX };
        now.saturating_duration_since(self.read_at) < age_max
    }
}

impl Templates {
    pub(super) fn new(graph: Arc<Graph>, clock: Clock) -> Self {
        Self { graph, clock, listings: DashMap::new() }
    }

    /// Returns the approved templates of the number's WABA, ordered by name and language. They are
    /// at most a minute old.
    ///
    /// # Errors
    /// Fails if the number has no WABA, or if the request to Meta fails.
    pub async fn of(&self, number: &NumberEntry) -> Result<Arc<[Template]>, TemplatesError> {
        let waba = &number.spec.waba;
        if waba.as_str().is_empty() {
            return Err(TemplatesError::NoWaba);
        }
        let entry = self.listings.entry(waba.clone()).or_default().clone();
        let mut listing = entry.lock().await;
        if let Some(fresh) = listing.as_ref().filter(|listing| listing.is_fresh(self.clock.now())) {
            return fresh.templates.clone().map_err(TemplatesError::Meta);
        }
        let read = self.graph.waba(waba, number.spec.access_token.as_ref()).templates().await;
        let templates = read.map(Arc::from);
        *listing = Some(Listing { read_at: self.clock.now(), templates: templates.clone() });
        templates.map_err(TemplatesError::Meta)
    }

    /// Adds the text that the user sees to a template message. It stays in the store: Graph gets
    /// only the template. The message is sent without the text if the template can't be read.
    pub(super) async fn add_text(&self, number: &NumberEntry, outgoing: &mut Outgoing) {
        let Some(sent) = outgoing.content.get("template").filter(|_| outgoing.kind == "template")
        else {
            return;
        };
        let read = tokio::time::timeout(TEXT_WAIT_MAX, self.of(number)).await;
        let Ok(Ok(templates)) = read else { return };
        let found = templates.iter().find(|template| template.is_named_by(sent));
        let text = found.map(|template| template.rendered(sent)).unwrap_or_default();
        if let (Some(members), false) = (outgoing.content.as_object_mut(), text.is_empty()) {
            members.insert("rendered".to_owned(), json!({ "text": Value::from(text) }));
        }
    }
}
