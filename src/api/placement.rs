//! Placing calls, shared by both APIs. `call::dialer` implements it, and `node` connects the two.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use super::Api;
use engine::admission::NumberEntry;
use engine::call::dialer::CallOrder;
use engine::call::queues::NotPlaced;
use model::{CallUuid, E164};
use store::Scope;
use xml::ast::DocUrl;

/// Maximum length of a customer URL, in bytes.
pub(super) const URL_BYTES_MAX: usize = 2_048;
/// The default duration limit of a call, in seconds.
pub(super) const TIME_LIMIT: u64 = 14_400;
/// The default duration limit of ringing, in seconds.
pub(super) const RING_TIMEOUT: u64 = 120;
/// Maximum number of concurrent Graph queries about users.
const CONCURRENT_QUERIES: usize = 4;
/// Maximum time for Graph queries about users before a call is placed. SDKs wait five seconds for a
/// response.
const QUERY_TIME_MAX: Duration = Duration::from_millis(1_500);

/// Places the calls of an order: all of them or none.
///
/// # Errors
/// Fails if a rule forbids one of the calls.
pub(super) async fn place(api: &Api, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
    let queries = stream::iter(&order.to).for_each_concurrent(CONCURRENT_QUERIES, |user| async {
        api.permissions.settle(&order.number, user.as_str()).await;
    });
    if tokio::time::timeout(QUERY_TIME_MAX, queries).await.is_err() {
        tracing::info!(users = order.to.len(), "permissions not read from Graph in time");
    }
    api.placer.place(order).await
}

/// Checks a customer URL in the field of this name.
///
/// # Errors
/// Returns a sentence that describes the fault.
pub(super) fn customer_url(api: &Api, name: &str, text: &str) -> Result<DocUrl, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("{name} must be a URL of at most {URL_BYTES_MAX} bytes"));
    }
    api.placer.check_url(text).map_err(|why| format!("{name} is invalid: {why}"))
}

/// Places calls.
pub trait CallPlacer: Send + Sync + 'static {
    /// A business number; `None` if it does not exist or is outside the scope.
    fn number(&self, scope: &Scope, number: &E164) -> Option<Arc<NumberEntry>>;

    /// Checks a customer URL without requesting it
    /// (`docs/reference/reliability.md#r17`).
    ///
    /// # Errors
    /// Returns why the URL is refused.
    fn check_url(&self, text: &str) -> Result<DocUrl, String>;

    /// Whether URLs without encryption are allowed (`answer.allow_insecure`).
    fn allows_http(&self) -> bool {
        self.check_url("http://example.com/").is_ok()
    }

    /// Checks the URL of a WebSocket, `ws` or `wss`.
    ///
    /// # Errors
    /// Returns why the URL is refused.
    fn check_socket_url(&self, text: &str) -> Result<DocUrl, String>;

    /// Accepts all calls of an order, and returns them in the order of `to`.
    ///
    /// # Errors
    /// Returns what forbids one of the calls; then none is placed.
    fn place<'a>(&'a self, order: &'a CallOrder)
    -> BoxFuture<'a, Result<Vec<CallUuid>, NotPlaced>>;
}
