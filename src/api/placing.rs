//! What the APIs need in order to place calls; `call::dialer` does it, `node` brings the two together.

use std::sync::Arc;

use crate::admission::NumberEntry;
use crate::call::dialer::{CallOrder, NotPlaced};
use crate::model::{CallUuid, E164};
use crate::store::Scope;
use crate::xml::ast::DocUrl;

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
