//! What every call of a node is run with: the rooms below, made once by `node`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::author::{self, Author, SaidLine};
use super::consent::PermissionDesk;
use super::news::CallNews;
use super::outbox::Outbox;
use super::phones::Phones;
use super::recordings::Recordings;
use super::rejects::RejectThread;
use super::rooms::Rooms;
use super::trace::Sink;
use crate::admission::{AccountEntry, Pressure};
use crate::answer::{Dice, Fetcher, Notifier, SigningKeys};
use crate::feed::Feed;
use crate::meta::Graph;
use crate::notices::Notices;
use crate::stream::Streams;
use machine::{CallSetup, CallbackRequest, MachineLimits, Summary};
use media::Media;
use model::Clock;
use speech::library::Library;
use speech::recognise::Recognisers;
use store::{NewCallback, Store};

/// The services below a call.
///
/// Nothing here is owned by a call: dropping a call leaves all of it as it was.
pub struct Services {
    pub clock: Clock,
    /// What happens, for those who watch.
    pub feed: Feed,
    /// Where ids come from.
    pub dice: Dice,
    /// This node's name, in `biz_opaque_callback_data`.
    pub node_id: String,
    /// Whether there is room for a further call.
    pub pressure: Arc<Pressure>,
    pub media: Arc<Media>,
    pub sounds: Library,
    /// Who understands what callers say.
    pub recognisers: Recognisers,
    pub graph: Arc<Graph>,
    /// Where calls that are not let in are rejected.
    pub rejects: RejectThread,
    pub permissions: PermissionDesk,
    pub fetcher: Fetcher,
    /// For callbacks that are worth nothing later; all others go by the outbox.
    pub notifier: Notifier,
    pub outbox: Outbox,
    pub store: Store,
    /// The phones of endpoints.
    pub phones: Phones,
    /// Conferences and multi-party calls.
    pub rooms: Rooms,
    /// Calls' sound on customers' sockets.
    pub streams: Streams,
    pub recordings: Recordings,
    /// What people should know of.
    pub notices: Notices,
    /// Who writes the documents of calls that agents answer.
    pub author: Arc<dyn Author>,
    /// Who hears of calls beside their own callbacks.
    pub news: std::sync::OnceLock<Arc<dyn CallNews>>,
    /// Where traces are exported to, if they are.
    pub traces: Option<Sink>,
    /// What may change while calls go on.
    pub settings: ArcSwap<CallSettings>,
    /// Where calls and their errands run; the node waits for it when it stops.
    pub tasks: TaskTracker,
}

/// What the configuration says of calls; a call that has begun keeps its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSettings {
    pub limits: MachineLimits,
    /// `[answer].max_body_bytes`.
    pub max_body: usize,
}

impl Services {
    /// What requests about an account's calls are signed with: its tokens, and the main account's
    /// (`plivo-callbacks.md` §5).
    pub(super) fn keys(&self, account: &AccountEntry) -> SigningKeys {
        SigningKeys::new(account.tokens.clone(), account.main().tokens.clone())
    }

    /// A callback of a call, as the outbox takes it: a fresh identity, due now.
    pub(super) fn callback(&self, setup: &CallSetup, notice: CallbackRequest) -> NewCallback {
        NewCallback {
            event_id: self.uuid(),
            call: setup.call,
            account: setup.account.clone(),
            main_account: setup.parent_account.clone(),
            node_id: self.node_id.clone(),
            origin: self.outbox.origin(&notice.url.0),
            notice,
            shut: None,
            created: self.clock.steady(),
        }
    }

    /// A call's hangup callback. A B-leg has none: what there is to say of it, its A-leg says to `Dial`'s callbackUrl.
    pub(super) fn hangup_callback(
        &self,
        setup: &CallSetup,
        notice: CallbackRequest,
    ) -> Vec<NewCallback> {
        // Nor has one that REST added to a multi-party call without naming any.
        // Nor an agent's: the node knows.
        let url = &notice.url.0;
        let own = setup.b_leg().is_none() && !url.is_empty() && author::path_of(url).is_none();
        own.then(|| self.callback(setup, notice)).into_iter().collect()
    }

    /// What reports a call's end: its hangup callback, and what webhooks are told.
    pub(super) fn reports(&self, setup: &CallSetup, summary: &Summary) -> Vec<NewCallback> {
        self.reports_of(setup, summary, &self.author.said(setup.call))
    }

    /// The same of a call in which this was said.
    pub(super) fn reports_of(
        &self,
        setup: &CallSetup,
        summary: &Summary,
        said: &[SaidLine],
    ) -> Vec<NewCallback> {
        let mut reports = self.hangup_callback(setup, summary.hangup.clone());
        reports.extend(self.news_of(setup, summary, said));
        reports
    }

    /// What webhooks are told of a call's end; its conversation has it then.
    pub(super) fn news_of_end(&self, setup: &CallSetup, summary: &Summary) -> Vec<NewCallback> {
        self.news_of(setup, summary, &self.author.said(setup.call))
    }

    fn news_of(&self, setup: &CallSetup, summary: &Summary, said: &[SaidLine]) -> Vec<NewCallback> {
        self.news.get().map(|news| news.ended(setup, summary, said)).unwrap_or_default()
    }

    /// A fresh id for a call or an event.
    pub(super) fn uuid(&self) -> Uuid {
        let (high, low) = (self.dice.roll(), self.dice.roll());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
            .into_uuid()
    }
}
