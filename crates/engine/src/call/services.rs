//! The services that all calls of a node share. Created once by `node`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::author::{self, Author, DialogueLine};
use super::consent::PermissionService;
use super::news::{CallNews, EndedCall};
use super::outbox::Outbox;
use super::phones::Phones;
use super::recordings::Recordings;
use super::rejects::RejectThread;
use super::rooms::Rooms;
use super::seats::Seats;
use super::trace::Sink;
use crate::admission::{AccountEntry, Pressure};
use crate::answer::{Fetcher, Notifier, RandomSource, SigningKeys};
use crate::feed::Feed;
use crate::meta::Graph;
use crate::notices::Notices;
use crate::stream::Streams;
use machine::{CallSetup, CallbackRequest, MachineLimits, Summary};
use media::Media;
use model::{CallUuid, Clock};
use speech::library::Library;
use speech::recognise::Recognisers;
use store::{CallStart, NewCallback, Store};

/// The services that calls use.
///
/// Calls do not own them: dropping a call leaves them unchanged.
pub struct Services {
    pub clock: Clock,
    /// Live notifications for the console.
    pub feed: Feed,
    /// Source of random ids.
    pub random: RandomSource,
    /// The node's id, sent to Meta in `biz_opaque_callback_data`.
    pub node_id: String,
    /// The load of the node, which decides whether it has capacity for a further call.
    pub pressure: Arc<Pressure>,
    pub media: Arc<Media>,
    pub sounds: Library,
    /// Speech recognisers.
    pub recognisers: Recognisers,
    pub graph: Arc<Graph>,
    /// Runs the rejects of calls that were not admitted.
    pub rejects: RejectThread,
    pub permissions: PermissionService,
    pub fetcher: Fetcher,
    /// Sends callbacks that are useless when late. All others go through the outbox.
    pub notifier: Notifier,
    pub outbox: Outbox,
    pub store: Store,
    /// The phones of endpoints.
    pub phones: Phones,
    /// Conferences and multi-party calls.
    pub rooms: Rooms,
    /// Brings calls into rooms of other nodes. `None` unless the node is part of a fleet.
    pub seats: Option<Seats>,
    /// Audio streams on customers' WebSockets.
    pub streams: Streams,
    pub recordings: Recordings,
    /// Notifications for the people of an account.
    pub notices: Notices,
    /// Writes the documents of calls that agents answer.
    pub author: Arc<dyn Author>,
    /// Observer of calls besides their own callbacks.
    pub news: std::sync::OnceLock<Arc<dyn CallNews>>,
    /// Trace exporter, if configured.
    pub traces: Option<Sink>,
    /// Settings that can change while calls are live.
    pub settings: ArcSwap<CallSettings>,
    /// Tracks the tasks of calls. The node waits for it at shutdown.
    pub tasks: TaskTracker,
}

/// Settings of calls. A call keeps the limits with which it began.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSettings {
    pub limits: MachineLimits,
    /// `answer.max_body_bytes`.
    pub max_body: usize,
}

impl Services {
    /// Signing keys for requests about an account's calls: its own tokens and those of its main
    /// account (`docs/reference/callbacks.md#signatures`).
    pub(super) fn keys(&self, account: &AccountEntry) -> SigningKeys {
        SigningKeys::new(&account.tokens, &account.main().tokens)
    }

    /// Builds the outbox entry of a call's callback, with a new event id and due immediately.
    pub(super) fn callback(&self, setup: &CallSetup, notice: CallbackRequest) -> NewCallback {
        NewCallback {
            event_id: self.uuid(),
            call: setup.call,
            account: setup.account.clone(),
            main_account: setup.parent_account.clone(),
            node_id: self.node_id.clone(),
            origin: self.outbox.queue(&setup.parent_account, &notice.url.0),
            notice,
            number_event: None,
            shut: None,
            created: self.clock.steady(),
        }
    }

    /// Builds a call's hangup callback. A B-leg has no such callback: its A-leg reports its end to
    /// the `callbackUrl` of `Dial`.
    pub(super) fn hangup_callback(
        &self,
        setup: &CallSetup,
        notice: CallbackRequest,
    ) -> Vec<NewCallback> {
        // A participant that REST added without a hangup URL has none either, and a generated URL
        // has no server.
        let url = &notice.url.0;
        let own = setup.b_leg().is_none() && !url.is_empty() && author::path_of(url).is_none();
        own.then(|| self.callback(setup, notice)).into_iter().collect()
    }

    /// Builds the reports of a call's end: the hangup callback and the events for customer
    /// webhooks. For `phones_unanswered` see [`EndedCall`].
    pub(super) fn reports(
        &self,
        setup: &CallSetup,
        summary: &Summary,
        phones_unanswered: bool,
    ) -> Vec<NewCallback> {
        let mut reports = self.hangup_callback(setup, summary.hangup.clone());
        reports.extend(self.news_of_end(setup, summary, phones_unanswered));
        reports
    }

    /// Like [`Services::reports`], for a call of an earlier process with this conversation, or for
    /// an outbound call that was never placed.
    pub(super) fn reports_of(
        &self,
        setup: &CallSetup,
        summary: &Summary,
        dialogue: &[DialogueLine],
        was_placed: bool,
    ) -> Vec<NewCallback> {
        let mut reports = self.hangup_callback(setup, summary.hangup.clone());
        let (phones_unanswered, needs_person) = (false, false);
        let ended =
            EndedCall { setup, summary, dialogue, phones_unanswered, needs_person, was_placed };
        reports.extend(self.news_of(ended));
        reports
    }

    /// Builds the events for customer webhooks about a call's end.
    pub(super) fn news_of_end(
        &self,
        setup: &CallSetup,
        summary: &Summary,
        phones_unanswered: bool,
    ) -> Vec<NewCallback> {
        let dialogue = &self.author.dialogue(setup.call);
        let (needs_person, was_placed) = (self.author.needs_person(setup.call), true);
        let ended =
            EndedCall { setup, summary, dialogue, phones_unanswered, needs_person, was_placed };
        self.news_of(ended)
    }

    fn news_of(&self, call: EndedCall<'_>) -> Vec<NewCallback> {
        self.news.get().map(|news| news.ended(call)).unwrap_or_default()
    }

    /// Writes the open record of a call, or the new start of a queued one. Returns `false` if the
    /// store does not accept it.
    pub(super) fn write_record(&self, setup: &CallSetup) -> bool {
        let start = CallStart::of(setup, &self.node_id);
        self.store.calls().begin(start, setup, self.clock.steady())
    }

    /// Generates the id of a new call.
    pub(super) fn call_uuid(&self) -> CallUuid {
        CallUuid::new(self.uuid(), self.clock.wall())
    }

    /// Generates a random UUID.
    pub(super) fn uuid(&self) -> Uuid {
        let (high, low) = (self.random.next(), self.random.next());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
            .into_uuid()
    }
}
