//! What the APIs need in order to place calls, and the one way in which both of them do it; `call::dialer` carries it out,
//! `node` brings the two together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::Api;
use crate::admission::NumberEntry;
use crate::call::dialer::{CallOrder, NotPlaced};
use model::{CallUuid, E164};
use store::Scope;
use xml::ast::DocUrl;

/// Longest URL that a customer gives, in bytes.
pub(super) const URL_BYTES_MAX: usize = 2_048;
/// Seconds of a call where nothing is said.
pub(super) const TIME_LIMIT: u64 = 14_400;
/// Seconds of ringing where nothing is said.
pub(super) const RING_TIMEOUT: u64 = 120;
/// Graph is asked about so many users at once, and for so long: SDKs wait five seconds.
const ASKED_AT_ONCE: usize = 4;
const ASKING_MAX: Duration = Duration::from_millis(1_500);

/// Has an order's calls placed, all of them or none. First Graph is asked what it knows of users of whom nothing is known
/// here, as far as the time goes that an SDK waits.
///
/// # Errors
/// What forbids it.
pub(super) async fn place(api: &Api, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
    let asked = stream::iter(&order.to).for_each_concurrent(ASKED_AT_ONCE, |user| async {
        api.permissions.settle(&order.number, user.as_str()).await;
    });
    if tokio::time::timeout(ASKING_MAX, asked).await.is_err() {
        tracing::info!(
            users = order.to.len(),
            "Graph was not asked about all users of an order in time"
        );
    }
    api.placing.place(order)
}

/// The customer's URL in a field of that name.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn customer_url(api: &Api, name: &str, text: &str) -> Result<DocUrl, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("{name} must be a URL of at most {URL_BYTES_MAX} bytes"));
    }
    api.placing.url(text).map_err(|why| format!("{name} is invalid: could not {why}"))
}

/// Who places calls.
pub trait Placing: Send + Sync + 'static {
    /// A business number of the scope's; another's is as good as none.
    fn number(&self, scope: &Scope, number: &E164) -> Option<Arc<NumberEntry>>;

    /// A customer's URL that we might go to, as far as can be told beforehand (R17).
    ///
    /// # Errors
    /// Why not; reads well after "could not …".
    fn url(&self, text: &str) -> Result<DocUrl, String>;

    /// [`Placing::url`] of a WebSocket: `ws` or `wss`.
    ///
    /// # Errors
    /// The same.
    fn socket_url(&self, text: &str) -> Result<DocUrl, String>;

    /// Takes an order on, all of it or nothing; gives the calls in the order of `to`.
    ///
    /// # Errors
    /// What forbids it; nothing was placed.
    fn place(&self, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced>;
}
