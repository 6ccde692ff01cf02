//! Tests of the inbox with a real store and a fake Graph.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::admission::{AccountSpec, NumberEntry, NumberSpec};
use crate::answer::{AT_ONCE_PER_HOST, Notifier, RandomSource};
use crate::call::OutboxLimits;
use crate::meta::GraphConfig;
use egress::testing::{ReceivedRequest, Reply, Server, egress, open_guard};
use model::Health;
use model::Secret;
use model::{AuthId, Disk, MessageStatus, Routing, Timestamp};
use store::{
    Agent, AgentSecrets, AgentSpec, Conversation, ConversationChange, ConversationFilter,
    DeliveryView, Receiver, Scope, WebhookRow, WebhookWrite,
};

/// The size of the disk.
const DISK_BYTES: u64 = 100 << 30;

struct World {
    inbox: Inbox,
    number: Arc<NumberEntry>,
    graph: Server,
    /// Graph servers of earlier processes. Their tasks still run here, so the servers must stay up.
    former: Vec<Server>,
    written: AtomicUsize,
    clock: Clock,
    store: Store,
    directory: Arc<Directory>,
    folder: tempfile::TempDir,
    /// The free disk space.
    free: Arc<AtomicU64>,
}

fn spec(account: &str) -> NumberSpec {
    NumberSpec {
        waba: "7".into(),
        calling_enabled: false,
        calls_per_number: 1,
        ..NumberSpec::for_tests("918035737458", "106", account)
    }
}

fn takes_all(_: &ReceivedRequest) -> Reply {
    Reply::ok(json!({"messages": [{"id": "wamid.sent"}]}).to_string())
}

impl World {
    async fn start() -> Self {
        Self::with(takes_all).await
    }

    /// Starts with this Graph.
    async fn with(graph: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let clock = Clock::stepped(Timestamp::from_secs(1_790_000_000));
        let directory = Arc::new(Directory::new(10));
        give(&directory, "MA1");
        let graph = Server::start(graph).await;
        let free = Arc::new(AtomicU64::new(DISK_BYTES));
        let inbox = inbox(&store, &directory, &clock, &graph, folder.path(), &free);
        inbox.open(&[]).await.unwrap();
        assert!(store.agents().create(agent()).await.unwrap());
        let number = directory.number(&"106".into()).unwrap();
        Self {
            inbox,
            number,
            graph,
            former: Vec::new(),
            written: AtomicUsize::new(0),
            clock,
            store,
            directory,
            folder,
            free,
        }
    }

    /// Restarts the node with this Graph.
    async fn restart(&mut self, graph: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) {
        self.former.push(std::mem::replace(&mut self.graph, Server::start(graph).await));
        let folder = self.folder.path();
        self.inbox =
            inbox(&self.store, &self.directory, &self.clock, &self.graph, folder, &self.free);
        self.inbox.open(&[]).await.unwrap();
    }

    /// Moves the number to another account.
    fn give(&mut self, account: &str) {
        give(&self.directory, account);
        self.number = self.directory.number(&"106".into()).unwrap();
    }

    async fn conversations(&self, account: &str, filter: ConversationFilter) -> Vec<Conversation> {
        self.store
            .conversations()
            .list(&Scope::of(account.into()), &filter, 50)
            .await
            .unwrap()
            .found
    }

    async fn all_sent(&self) {
        self.inbox.sender().tasks.close();
        self.inbox.sender().tasks.wait().await;
    }

    async fn writes(&self, user: &str, text: &str) -> Uuid {
        self.says(user, "text", json!({"text": {"body": text}})).await
    }

    async fn says(&self, user: &str, kind: &str, content: serde_json::Value) -> Uuid {
        let wamid = format!("wamid.{}", self.written.fetch_add(1, Ordering::Relaxed));
        let id = model::stable_id("message", &["106", &wamid]);
        let sender = Sender { wa_id: Some(user.to_owned()), bsuid: None, name: "Asha".to_owned() };
        let message =
            UserMessage { wamid, sender, timestamp: None, kind: kind.to_owned(), content };
        assert!(self.inbox.timeline().receive(&self.number, message).unwrap().unwrap().await);
        id
    }

    /// Requests a message's file by its link.
    async fn file(&self, message: Uuid) -> Option<MediaFile> {
        let url = self.inbox.user_files().link(message);
        let (_, query) = url.split_once("?until=").unwrap();
        let (until, tag) = query.split_once("&tag=").unwrap();
        self.inbox.user_files().get(message, until.parse().unwrap(), tag).await.unwrap()
    }

    /// Creates a webhook that gets the number's conversations.
    async fn route_to_webhook(&self) -> Uuid {
        let webhook = WebhookSpec {
            name: "crm".to_owned(),
            url: xml::ast::DocUrl("https://crm.example.com/".into()),
        };
        let id = self.inbox.webhooks().create(&"MA1".into(), webhook).await.unwrap().id;
        self.inbox
            .router()
            .route_number(&self.number, Routing::Webhook(Some(id)), false)
            .await
            .unwrap();
        id
    }

    async fn deliveries(&self, webhook: Uuid) -> Vec<DeliveryView> {
        let (receiver, scope) = (Receiver::Webhook(webhook), Scope::of("MA1".into()));
        self.store.webhooks().deliveries(&receiver, &scope, None, 200).await.unwrap()
    }

    /// Returns the ids of the events that reported the status of a message to a webhook.
    async fn status_events(&self, webhook: Uuid) -> Vec<String> {
        let all = self.deliveries(webhook).await.into_iter();
        all.filter(|d| d.event == "message.status").map(|d| d.event_id).collect()
    }

    /// Delivers a status from Meta, optionally with our opaque data.
    async fn report_status(
        &self,
        wamid: &str,
        status: MessageStatus,
        of: Option<Uuid>,
        error: Option<i64>,
    ) {
        let opaque = of.map(super::statuses::opaque_data);
        let error = error.map(|code| (code, "why".to_owned()));
        let received =
            ReceivedStatus { wamid: wamid.to_owned(), status, error, opaque, timestamp: None };
        assert!(self.inbox.statuses().receive(&self.number, received).unwrap().await);
    }

    /// A stored message's status, message id and error code.
    async fn stands(&self, id: Uuid) -> (&'static str, Option<String>, Option<i64>) {
        let (_, found) = self.store.messages().get(id).await.unwrap().unwrap();
        (found.message.status.as_str(), found.message.wamid, found.error.map(|(code, _)| code))
    }

    async fn timeline(&self, user: &str) -> Vec<(String, &'static str)> {
        let (scope, id) = (Scope::of("MA1".into()), world_id(user));
        let found = self.store.messages().list(&scope, id, None, 50).await.unwrap();
        found.iter().rev().map(|m| (m.message.text.clone(), m.message.status.as_str())).collect()
    }
}

fn give(directory: &Directory, account: &str) {
    serve(directory, spec(account));
}

/// Replaces the number in the directory.
fn serve(directory: &Directory, number: NumberSpec) {
    let account_spec = |id: &str, parent: Option<&str>| AccountSpec {
        auth_id: id.into(),
        parent: parent.map(Into::into),
        cps: None,
        tokens: Vec::new(),
    };
    let accounts = vec![
        account_spec("MA1", None),
        account_spec("SA1", Some("MA1")),
        account_spec("MA2", None),
    ];
    directory.replace(accounts, vec![number]).unwrap();
}

fn inbox(
    store: &Store,
    directory: &Arc<Directory>,
    clock: &Clock,
    graph: &Server,
    folder: &std::path::Path,
    free: &Arc<AtomicU64>,
) -> Inbox {
    let free = free.clone();
    let probe = move || Ok(Disk { size: DISK_BYTES, free: free.load(Ordering::Relaxed) });
    let space = DiskSpace::with_probe(Box::new(probe), None, Box::new(|| false), clock.clone());
    let notifier = Notifier::new(
        egress(open_guard(), Vec::new()),
        clock.clone(),
        RandomSource::system(),
        AT_ONCE_PER_HOST,
    );
    let (node, limits) = ("node".to_owned(), OutboxLimits::default());
    let outbox = Outbox::new(
        store.clone(),
        notifier,
        directory.clone(),
        clock.clone(),
        node.clone(),
        limits,
    );
    let client =
        Graph::new(GraphConfig::new(graph.url(""), Secret::new("t")), clock.clone()).unwrap();
    Inbox::new(InboxParts {
        store: store.clone(),
        outbox,
        directory: directory.clone(),
        graph: Arc::new(client),
        notices: Notices::new(store.clone(), Feed::new(), clock.clone()),
        feed: Feed::new(),
        clock: clock.clone(),
        node_id: node,
        base_url: "https://calls.example.com".to_owned(),
        media: folder.join("messages"),
        space,
        consents: Arc::new(crate::admission::permission::Consents::new()),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

fn world_id(user: &str) -> Uuid {
    model::stable_id("conversation", &["106", user])
}

const AGENT: Uuid = Uuid::from_u128(7);

fn agent() -> Agent {
    Agent {
        id: AGENT,
        account: "MA1".into(),
        main_account: "MA1".into(),
        spec: AgentSpec {
            name: "Agent".to_owned(),
            endpoint: Some("https://example.com/agent".to_owned()),
            ..AgentSpec::blank()
        },
        secrets: AgentSecrets::default(),
        created: Timestamp::from_secs(1),
    }
}

#[tokio::test]
async fn s4_09_drops_an_agents_answer_after_the_routing_changed() {
    let world = World::start().await;
    let mut turns = world.inbox.turns().take().unwrap();
    assert!(world.inbox.turns().take().is_none(), "the receiver is taken already");
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "one").await;
    let turn = turns.recv().await.unwrap();
    assert_eq!(
        (turn.agent, turn.message.text.as_str(), turn.pair.user.id.as_str()),
        (AGENT, "one", "91")
    );
    let sent = world
        .inbox
        .sender()
        .reply(&turn, vec![Outgoing::text("Hello"), Outgoing::text("there")], None)
        .await
        .unwrap();
    assert_eq!(sent.len(), 2);
    // A message that is still queued when the routing changes is never sent.
    world.inbox.sender().wait_until_sent(turn.pair.conversation).await;
    world.writes("91", "two").await;
    let turn = turns.recv().await.unwrap();
    world.inbox.router().route_number(&world.number, Routing::Webhook(None), true).await.unwrap();
    let refused = world.inbox.sender().reply(&turn, vec![Outgoing::text("too late")], None).await;
    assert!(matches!(refused, Err(SendError::Stale)), "{refused:?}");
    // The same agent again is a new epoch.
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), true).await.unwrap();
    assert!(matches!(
        world.inbox.sender().reply(&turn, vec![Outgoing::text("too late")], None).await,
        Err(SendError::Stale)
    ));
    world.writes("91", "three").await;
    let turn = turns.recv().await.unwrap();
    // People take over: the turn in progress becomes stale, and no further one starts.
    let off = ConversationChange { ai_enabled: Some(false), ..ConversationChange::default() };
    assert!(
        world
            .inbox
            .conversations()
            .change(&Scope::of("MA1".into()), &turn.pair, off)
            .await
            .unwrap()
    );
    assert!(matches!(
        world.inbox.sender().reply(&turn, vec![Outgoing::text("too late")], None).await,
        Err(SendError::Stale)
    ));
    world.writes("91", "four").await;
    assert!(turns.try_recv().is_err());
    world.inbox.sender().tasks.close();
    world.inbox.sender().tasks.wait().await;
    let timeline: Vec<String> =
        world.timeline("91").await.into_iter().map(|(text, _)| text).collect();
    let mut sorted = timeline.clone();
    sorted.sort();
    assert_eq!(sorted, ["Hello", "four", "one", "there", "three", "two"]);
    assert_eq!(world.graph.seen().len(), 2, "Meta has seen no other");
}

#[tokio::test]
async fn a_number_with_a_new_id_keeps_its_routing_and_conversations() {
    let mut world = World::start().await;
    let mut turns = world.inbox.turns().take().unwrap();
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "before").await;
    let before = turns.recv().await.unwrap().pair.conversation;
    serve(&world.directory, NumberSpec { phone_number_id: "107".into(), ..spec("MA1") });
    assert!(world.directory.number(&"106".into()).is_none());
    world.number = world.directory.number(&"107".into()).unwrap();
    assert_eq!(world.inbox.numbers().routing_of(&world.number), Routing::Agent(AGENT));
    world.writes("91", "after").await;
    let turn = turns.recv().await.unwrap();
    assert_eq!((turn.agent, turn.pair.conversation), (AGENT, before));
    // Graph gets the current id.
    let sent =
        world.inbox.sender().reply(&turn, vec![Outgoing::text("Hello")], None).await.unwrap();
    world.inbox.sender().wait_until_sent(before).await;
    world.report_status("wamid.sent", MessageStatus::Delivered, None, None).await;
    assert_eq!(world.graph.seen()[0].target, "/107/messages");
    assert_eq!(world.timeline("91").await.len(), 3);
    let shown =
        world.store.messages().list(&Scope::of("MA1".into()), before, None, 10).await.unwrap();
    let reply = shown.iter().find(|shown| sent.contains(&shown.message.id)).unwrap();
    assert_eq!(
        reply.message.status,
        MessageStatus::Delivered,
        "the message is found by the number's first id"
    );
    // Also after a restart.
    world.restart(takes_all).await;
    assert_eq!(world.inbox.numbers().routing_of(&world.number), Routing::Agent(AGENT));
}

#[tokio::test]
async fn a_duplicate_message_is_stored_once_with_one_turn() {
    let world = World::start().await;
    let mut turns = world.inbox.turns().take().unwrap();
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "one").await;
    world.written.store(0, Ordering::Relaxed);
    world.writes("91", "one").await;
    assert!(turns.recv().await.is_some() && turns.try_recv().is_err());
    assert_eq!(world.timeline("91").await, [("one".to_owned(), "received")]);
}

/// A Graph that returns a URL for each file, and the file.
fn files(
    of: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static {
    move |seen| match seen.target.strip_prefix("/file/") {
        Some(file) => of(file),
        None => {
            let media = seen.target.split('?').next().unwrap_or_default();
            let url = format!("http://{}/file{media}", seen.header("host"));
            Reply::ok(json!({ "url": url }).to_string())
        }
    }
}

fn fetched(seen: &[ReceivedRequest]) -> usize {
    seen.iter().filter(|seen| seen.target.starts_with("/file/")).count()
}

#[tokio::test]
async fn r10_limits_prefetching_and_downloads_requested_files_immediately() {
    let world =
        World::with(files(|file| if file == "wanted" { Reply::ok("here") } else { Reply::Never }))
            .await;
    // More than the prefetch queue holds, so that the last is only downloaded on request.
    for n in 0..270 {
        world.says("91", "image", json!({"image": {"id": format!("m{n}")}})).await;
    }
    let wanted = world.says("91", "image", json!({"image": {"id": "wanted"}})).await;
    while fetched(&world.graph.seen()) < 3 {
        tokio::task::yield_now().await;
    }
    let file = world.file(wanted).await.unwrap();
    assert_eq!(std::fs::read(&file.path).unwrap(), b"here");
    assert_eq!(fetched(&world.graph.seen()), 4, "three prefetched files and the requested one");
    let folder = file.path.parent().unwrap();
    let parts = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some())
        .count();
    assert_eq!(parts, 3, "downloads are written to disk, not to memory");
}

#[tokio::test]
async fn a_full_cache_only_downloads_requested_files() {
    let world = World::with(files(|_| Reply::ok("here"))).await;
    world.inbox.user_files().fill(&"MA2".into());
    let id = world.says("91", "image", json!({"image": {"id": "m1"}})).await;
    // Those of another account fill it.
    while world.graph.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(world.file(id).await.is_some());
    let prefetched = world.graph.seen().len();
    world.inbox.user_files().fill(&"MA1".into());
    let id = world.says("91", "image", json!({"image": {"id": "m2"}})).await;
    assert_eq!(world.graph.seen().len(), prefetched);
    assert!(world.file(id).await.is_some());
    let scope = Scope::of("MA1".into());
    let conversation = world_id("91");
    let found = world.store.conversations().get(&scope, conversation).await.unwrap().unwrap();
    assert!(world.inbox.conversations().delete(&scope, &found.pair).await.unwrap());
    assert!(world.file(id).await.is_none());
}

#[tokio::test]
async fn r11_files_without_disk_space_are_downloaded_on_request_once_there_is_room() {
    let world = World::with(files(|_| Reply::ok("here"))).await;
    world.free.store(1, Ordering::Relaxed);
    let id = world.says("91", "image", json!({"image": {"id": "m1"}})).await;
    assert!(world.file(id).await.is_none());
    assert_eq!(world.graph.seen().len(), 0, "nothing is prefetched or downloaded");
    world.free.store(DISK_BYTES, Ordering::Relaxed);
    world.clock.step(Duration::from_secs(1));
    assert!(world.file(id).await.is_some());
    let used = world.inbox.user_files().used_space().await.unwrap();
    assert_eq!(used, [("MA1".into(), 4)]);
}

/// Notes and replies of one account may not use up the space that calls need.
#[tokio::test]
async fn r11_notes_and_texts_leave_half_of_the_reserve_of_the_disk() {
    let world = World::with(files(|_| Reply::ok(r#"{"messages":[{"id":"wamid.1"}]}"#))).await;
    world.writes("91", "Hello").await;
    let conversation = world.conversations("MA1", ConversationFilter::default()).await.remove(0);
    let note = async || world.inbox.notes().add(&conversation.pair, "Call back", "asha").await;
    let text = async || {
        let content = json!({"text": {"body": "Hello"}});
        let message = Outgoing { kind: "text".to_owned(), content };
        world.inbox.sender().send(&conversation, message, "asha", None).await
    };
    world.free.store(128 << 20, Ordering::Relaxed);
    world.clock.step(Duration::from_secs(1));
    note().await.unwrap();
    text().await.unwrap();
    world.free.store((128 << 20) - 1, Ordering::Relaxed);
    world.clock.step(Duration::from_secs(1));
    assert!(matches!(note().await, Err(NoteError::NoSpace(_))));
    assert!(matches!(text().await, Err(SendError::NoSpace(_))));
    world.writes("91", "Are you there?").await;
}

#[tokio::test]
async fn r16_a_new_owner_inherits_neither_messages_nor_routing() {
    let mut world = World::start().await;
    let mut turns = world.inbox.turns().take().unwrap();
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), true).await.unwrap();
    world.writes("91", "between us").await;
    let turn = turns.recv().await.unwrap();
    let all = ConversationFilter::default;
    let former = world.conversations("MA1", all()).await.remove(0);
    assert_eq!(
        (former.pair.conversation, former.standing.routing),
        (world_id("91"), Routing::Agent(AGENT))
    );
    world.give("MA2");
    // Also before the new owner is recorded.
    assert_eq!(world.inbox.numbers().routing_of(&world.number), Routing::None);
    world.writes("91", "to the new owner").await;
    let own = world.conversations("MA2", all()).await.remove(0);
    assert_eq!(own.standing.routing, Routing::None);
    let scope = Scope::of("MA2".into());
    let messages =
        world.store.messages().list(&scope, own.pair.conversation, None, 50).await.unwrap();
    assert_eq!(
        messages.iter().map(|m| m.message.text.as_str()).collect::<Vec<_>>(),
        ["to the new owner"]
    );
    assert!(world.store.conversations().get(&scope, world_id("91")).await.unwrap().is_none());
    world.inbox.router().claim().await.unwrap();
    // The previous owner keeps its conversation, but it leads nowhere.
    let former = world.conversations("MA1", all()).await.remove(0);
    assert_eq!((former.last.text.as_str(), former.standing.routing), ("between us", Routing::None));
    let sent = world.inbox.sender().send(&former, Outgoing::text("still me"), "api", None).await;
    assert!(matches!(sent, Err(SendError::NoNumber)), "{sent:?}");
    let reply = world.inbox.sender().reply(&turn, vec![Outgoing::text("still me")], None).await;
    assert!(matches!(reply, Err(SendError::NoNumber)), "{reply:?}");
    assert!(world.inbox.numbers().number_of(&former.pair).is_none());
    // After a restart, and when the number returns, the first owner finds its conversation again,
    // without its routing.
    world.restart(takes_all).await;
    world.give("MA1");
    world.writes("91", "back").await;
    let back = world.conversations("MA1", all()).await.remove(0);
    assert_eq!((back.pair.conversation, back.last.text.as_str()), (world_id("91"), "back"));
    world.inbox.router().claim().await.unwrap();
    assert_eq!(world.conversations("MA1", all()).await.remove(0).standing.routing, Routing::None);
    assert_eq!(world.graph.seen().len(), 0);
}

#[tokio::test]
async fn s4_09_routes_all_conversations_by_one_row_unless_one_is_routed_alone() {
    let world = World::start().await;
    for user in ["91", "92", "93"] {
        world.writes(user, "hello").await;
    }
    let of = async |agent: Option<Uuid>| {
        let filter = ConversationFilter { agent, ..ConversationFilter::default() };
        let found = world.conversations("MA1", filter).await;
        let mut users: Vec<String> = found.into_iter().map(|c| c.pair.user.id).collect();
        users.sort();
        users
    };
    assert!(of(Some(AGENT)).await.is_empty());
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), true).await.unwrap();
    assert_eq!(of(Some(AGENT)).await, ["91", "92", "93"]);
    let scope = Scope::of("MA1".into());
    let one = world.store.conversations().get(&scope, world_id("92")).await.unwrap().unwrap();
    let alone =
        ConversationChange { routing: Some(Routing::None), ..ConversationChange::default() };
    assert!(world.inbox.conversations().change(&scope, &one.pair, alone).await.unwrap());
    world.writes("94", "new").await;
    assert_eq!(of(Some(AGENT)).await, ["91", "93", "94"], "only its own routing and the number's");
    let now = world.store.conversations().get(&scope, world_id("92")).await.unwrap().unwrap();
    assert_eq!((now.standing.routing, now.standing.epoch), (Routing::None, one.standing.epoch + 1));
    world.inbox.router().route_number(&world.number, Routing::None, true).await.unwrap();
    assert!(of(Some(AGENT)).await.is_empty());
    assert_eq!(world.conversations("MA1", ConversationFilter::default()).await.len(), 4);
}

#[tokio::test]
async fn r03_sends_queued_messages_after_a_restart_unless_meta_may_have_them() {
    let mut world = World::with(|_| Reply::Never).await;
    let webhook = world.route_to_webhook().await;
    world.writes("91", "hello").await;
    let conversation = world.conversations("MA1", ConversationFilter::default()).await.remove(0);
    for text in ["first", "second"] {
        world.inbox.sender().send(&conversation, Outgoing::text(text), "api", None).await.unwrap();
        while world.graph.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    world.restart(takes_all).await;
    world.all_sent().await;
    let mut timeline = world.timeline("91").await;
    timeline.sort();
    assert_eq!(
        timeline.iter().map(|(text, status)| (text.as_str(), *status)).collect::<Vec<_>>(),
        [("first", "failed"), ("hello", "received"), ("second", "queued"),]
    );
    let sent: Vec<_> = world
        .graph
        .seen()
        .iter()
        .map(|s| String::from_utf8_lossy(&s.body).contains("second"))
        .collect();
    assert_eq!(sent, [true], "the second, once");
    let statuses = world.status_events(webhook).await;
    assert_eq!(statuses.len(), 1, "the webhook gets the first");
    let again = world.inbox.webhooks().remove(&Scope::of("MA1".into()), webhook).await;
    assert!(matches!(again, Err(RoutingError::InUse)), "{again:?}");
    world.inbox.router().route_number(&world.number, Routing::None, true).await.unwrap();
    world.inbox.webhooks().remove(&Scope::of("MA1".into()), webhook).await.unwrap();
}

/// Meta cannot have a message that waited for others to be answered.
#[tokio::test]
async fn r03_messages_that_wait_for_their_request_are_sent_by_the_next_process() {
    let mut world = World::with(|_| Reply::Never).await;
    let users: Vec<String> = (0..40).map(|n| format!("91{n}")).collect();
    for user in &users {
        world.writes(user, "hello").await;
    }
    for conversation in world.conversations("MA1", ConversationFilter::default()).await {
        let sent = Outgoing::text("welcome");
        world.inbox.sender().send(&conversation, sent, "api", None).await.unwrap();
    }
    // Half of the number's requests in progress may be messages.
    let in_progress = GraphConfig::new("https://example.com", Secret::new("t")).under_way_max / 2;
    while world.graph.seen().len() < in_progress {
        tokio::task::yield_now().await;
    }
    world.inbox.sender().stop.cancel();
    world.restart(takes_all).await;
    world.all_sent().await;
    assert_eq!(world.graph.seen().len(), users.len() - in_progress);
    let mut failed = 0;
    for user in &users {
        let timeline = world.timeline(user).await;
        failed += timeline.iter().filter(|(_, status)| *status == "failed").count();
    }
    assert_eq!(failed, in_progress, "it is unknown whether Meta has them");
}

#[tokio::test]
async fn r05_a_status_from_meta_revokes_a_failure_without_an_answer() {
    let mut world = World::with(|_| Reply::Never).await;
    let webhook = world.route_to_webhook().await;
    let mut sent = Vec::new();
    for user in ["91", "92", "93", "94"] {
        world.writes(user, "hello").await;
        let scope = Scope::of("MA1".into());
        let conversation =
            world.store.conversations().get(&scope, world_id(user)).await.unwrap().unwrap();
        sent.push(
            world
                .inbox
                .sender()
                .send(&conversation, Outgoing::text("out"), "api", None)
                .await
                .unwrap(),
        );
        while world.graph.seen().len() < sent.len() {
            tokio::task::yield_now().await;
        }
    }
    let [proved, refused, silent, known] = sent[..] else { panic!("four") };
    world.report_status("wamid.4", MessageStatus::Sent, Some(known), None).await;
    world.restart(takes_all).await;
    world.all_sent().await;
    for id in [proved, refused, silent] {
        assert_eq!(world.stands(id).await, ("failed", None, Some(0)));
    }
    // A status that Meta sent earlier wins over our own failure.
    let about = super::events::EventSource::number(&world.number);
    let here = world.inbox.statuses().update(
        &about,
        None,
        Some(known),
        MessageStatus::Failed,
        Some((0, "x".to_owned())),
    );
    world.store.messages().update_status(here).unwrap().await.unwrap();
    let sent_as = |n: u8| Some(format!("wamid.{n}"));
    assert_eq!(world.stands(known).await, ("sent", sent_as(4), None));
    // Statuses may arrive in any order.
    world.report_status("wamid.1", MessageStatus::Delivered, Some(proved), None).await;
    world.report_status("wamid.1", MessageStatus::Sent, Some(proved), None).await;
    assert_eq!(world.stands(proved).await, ("delivered", sent_as(1), None));
    world.report_status("wamid.1", MessageStatus::Read, None, None).await;
    assert_eq!(world.stands(proved).await, ("read", sent_as(1), None));
    // A failure that Meta reported is final.
    world.report_status("wamid.2", MessageStatus::Failed, Some(refused), Some(131_026)).await;
    world.report_status("wamid.2", MessageStatus::Sent, Some(refused), None).await;
    assert_eq!(world.stands(refused).await, ("failed", sent_as(2), Some(131_026)));
    assert_eq!(world.stands(silent).await, ("failed", None, Some(0)));
    let mut events = world.status_events(webhook).await;
    assert_eq!(
        events.len(),
        7,
        "three were given up; one is sent, one delivered and read, one refused"
    );
    events.sort();
    events.dedup();
    assert_eq!(events.len(), 7, "each is a separate event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn r05_applies_statuses_that_arrive_before_graphs_answer() {
    let (answer, may_answer) = std::sync::mpsc::sync_channel::<()>(16);
    let may_answer = Mutex::new(may_answer);
    // Graph's handler blocks its thread; the runtime has others.
    let world = World::with(move |seen| {
        may_answer.lock().unwrap().recv().unwrap();
        takes_all(seen)
    })
    .await;
    world.writes("91", "hello").await;
    let conversation = world.conversations("MA1", ConversationFilter::default()).await.remove(0);
    let id =
        world.inbox.sender().send(&conversation, Outgoing::text("out"), "api", None).await.unwrap();
    while world.graph.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    for status in [MessageStatus::Delivered, MessageStatus::Sent] {
        world.report_status("wamid.sent", status, None, None).await;
        world.report_status("wamid.of another's", status, None, None).await;
    }
    assert_eq!(world.stands(id).await, ("queued", None, None));
    answer.send(()).unwrap();
    world.inbox.sender().wait_until_sent(conversation.pair.conversation).await;
    world.all_sent().await;
    assert_eq!(world.stands(id).await, ("delivered", Some("wamid.sent".to_owned()), None));
    assert!(world.inbox.statuses().early.is_empty(), "no status waits");
}

#[tokio::test]
async fn l13_counts_a_permission_request_before_it_is_sent() {
    use crate::admission::permission::{Consents, PairKey, State};
    let asks = |text: &str| Outgoing {
        kind: "interactive".to_owned(),
        content: json!({"interactive": {"type": "call_permission_request", "body": {"text": text},
            "action": {"name": "call_permission_request"}}}),
    };
    let template = Outgoing {
        kind: "template".to_owned(),
        content: json!({"template": {"name": "may_we", "components": [{"type": "CALL_PERMISSION_REQUEST"}]}}),
    };
    let refuses =
        |seen: &ReceivedRequest| match String::from_utf8_lossy(&seen.body).contains("refused") {
            true => Reply::Whole(
                400,
                Vec::new(),
                json!({"error": {"code": 131_009, "message": "no"}}).to_string().into(),
            ),
            false => takes_all(seen),
        };
    let world = World::with(refuses).await;
    world.writes("91", "hello").await;
    let conversation = world.conversations("MA1", ConversationFilter::default()).await.remove(0);
    let consents: &Consents = &world.inbox.sender().requests.consents;
    let key = PairKey::new(&"106".into(), "91");
    let view = || consents.view(&key, &world.number.spec.permissions, world.clock.steady());
    let send =
        async |outgoing| world.inbox.sender().send(&conversation, outgoing, "api", None).await;
    // Meta refuses it, so it does not count.
    send(asks("refused")).await.unwrap();
    assert_eq!((view().state, view().requests_left), (State::Requested, 0));
    world.inbox.sender().wait_until_sent(conversation.pair.conversation).await;
    assert_eq!((view().state, view().requests_left), (State::None, 1));
    // Two concurrent requests.
    let (one, other) = tokio::join!(send(asks("first")), send(asks("second")));
    let refusal = match (one, other) {
        (Ok(_), Err(SendError::RequestTooSoon(refusal)))
        | (Err(SendError::RequestTooSoon(refusal)), Ok(_)) => refusal,
        both => panic!("{both:?}"),
    };
    assert_eq!((view().state, view().next_request), (State::Requested, refusal.again));
    assert!(refusal.again.is_some());
    assert!(matches!(send(template).await, Err(SendError::RequestTooSoon(_))));
    assert!(send(Outgoing::text("no request")).await.is_ok());
    world.all_sent().await;
    assert_eq!(world.graph.seen().len(), 3, "one that Meta refused, one request, and the text");
}

#[tokio::test]
async fn an_idempotency_key_names_one_message_for_a_day_across_restarts() {
    let mut world = World::start().await;
    world.writes("91", "hello").await;
    let conversation = world.conversations("MA1", ConversationFilter::default()).await.remove(0);
    let send = async |world: &World, name| {
        let conversation =
            world.conversations("MA1", ConversationFilter::default()).await.remove(0);
        world
            .inbox
            .sender()
            .send(&conversation, Outgoing::text("once"), "api", Some(name))
            .await
            .unwrap()
    };
    let first = send(&world, "a").await;
    assert_eq!(send(&world, "a").await, first);
    let other = send(&world, "b").await;
    assert_ne!(other, first);
    world.all_sent().await;
    world.restart(takes_all).await;
    assert_eq!(send(&world, "a").await, first);
    // The message may have a time a little later than the clock's.
    world.clock.step(WINDOW + Duration::from_secs(1));
    let late =
        world.inbox.sender().send(&conversation, Outgoing::text("once"), "api", Some("a")).await;
    assert!(matches!(late, Err(SendError::WindowClosed)), "a day later it is another: {late:?}");
    world.writes("91", "hello again").await;
    assert_ne!(send(&world, "a").await, first);
    world.all_sent().await;
    assert_eq!(world.graph.seen().len(), 1, "after the restart: the one of the next day");
}

#[tokio::test]
async fn a_turn_is_pending_until_it_is_answered_once() {
    let world = World::start().await;
    let mut turns = world.inbox.turns().take().unwrap();
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "one").await;
    world.writes("91", "two").await;
    let owed = async || {
        world.store.turns().pending("node", (i64::MIN, Uuid::nil()), &[], 50).await.unwrap()
    };
    let (first, second) = (turns.recv().await.unwrap(), turns.recv().await.unwrap());
    assert_eq!(owed().await.len(), 2);
    assert!(
        world
            .store
            .turns()
            .pending("another", (i64::MIN, Uuid::nil()), &[], 50)
            .await
            .unwrap()
            .is_empty()
    );
    let then = Some(store::AfterReply::Escalate);
    world
        .inbox
        .sender()
        .reply(&first, vec![Outgoing::text("a"), Outgoing::text("b")], then)
        .await
        .unwrap();
    let doubled = world.inbox.sender().reply(&first, vec![Outgoing::text("again")], None).await;
    assert!(matches!(doubled, Err(SendError::Stale)), "{doubled:?}");
    world.inbox.sender().wait_until_sent(first.pair.conversation).await;
    assert_eq!(world.graph.seen().len(), 2, "both are out before anything else is done");
    let left = owed().await;
    assert_eq!(left.iter().find(|o| o.message.message.id == first.message.id).unwrap().then, then);
    world.store.turns().finish(first.message.id).await.unwrap();
    world.inbox.sender().reply(&second, vec![Outgoing::text("c")], None).await.unwrap();
    assert!(owed().await.is_empty());
}

#[tokio::test]
async fn deleting_an_agent_removes_it_from_all_routings() {
    let world = World::start().await;
    let scope = Scope::of("MA1".into());
    assert!(!world.store.agents().is_in_use(AGENT).await.unwrap());
    world.inbox.router().route_number(&world.number, Routing::Agent(AGENT), true).await.unwrap();
    world.writes("91", "hello").await;
    world.inbox.router().route_number(&world.number, Routing::None, false).await.unwrap();
    assert!(world.store.agents().is_in_use(AGENT).await.unwrap(), "in a conversation");
    assert!(world.store.agents().delete(&scope, AGENT).await.unwrap());
    let found = world.store.conversations().get(&scope, world_id("91")).await.unwrap().unwrap();
    assert_eq!(found.standing.routing, Routing::None);
    assert!(!world.store.agents().is_in_use(AGENT).await.unwrap());
}

#[tokio::test]
async fn s4_19_an_agent_deleted_during_a_routing_change_answers_nowhere() {
    let world = World::start().await;
    let scope = Scope::of("MA1".into());
    world.writes("91", "hello").await;
    let agent = agent();
    for round in 0..20 {
        let number = world.number.clone();
        let route = world.inbox.router().route_number(&number, Routing::Agent(AGENT), true);
        let remove = world.inbox.router().remove_agent(&scope, &agent, round % 2 == 0);
        let (routed, removed) = match round % 4 < 2 {
            true => tokio::join!(route, remove),
            false => {
                let (removed, routed) = tokio::join!(remove, route);
                (routed, removed)
            }
        };
        let stands = world.inbox.numbers().routing_of(&world.number);
        let chat = world
            .store
            .conversations()
            .get(&scope, world_id("91"))
            .await
            .unwrap()
            .unwrap()
            .standing
            .routing;
        match removed {
            Ok(gone) => {
                assert!(gone, "round {round}");
                assert!(
                    matches!(routed, Ok(()) | Err(RoutingError::NoAgent)),
                    "round {round}: {routed:?}"
                );
                assert_eq!((stands, chat), (Routing::None, Routing::None), "round {round}");
                assert!(world.store.agents().create(agent.clone()).await.unwrap());
            }
            Err(why) => {
                assert!(matches!(why, RoutingError::AgentInUse(_)), "round {round}: {why:?}");
                assert_eq!(
                    (stands, chat),
                    (Routing::Agent(AGENT), Routing::Agent(AGENT)),
                    "round {round}"
                );
                world
                    .inbox
                    .router()
                    .route_number(&world.number, Routing::None, true)
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn s4_19_serializes_concurrent_subscribe_and_unsubscribe() {
    let world = World::start().await;
    let scope = Scope::of("MA1".into());
    let order = |name: &str| WebhookSpec {
        name: name.to_owned(),
        url: xml::ast::DocUrl("https://crm.example.com/".into()),
    };
    let own = world.inbox.webhooks().create(&"MA1".into(), order("own")).await.unwrap().id;
    let usual = world.inbox.webhooks().create(&"MA1".into(), order("usual")).await.unwrap().id;
    world
        .inbox
        .router()
        .route_number(&world.number, Routing::Webhook(Some(usual)), true)
        .await
        .unwrap();
    let mut known = std::collections::HashSet::new();
    for round in 0..8 {
        let user = format!("9{round}");
        world.writes(&user, "hello").await;
        let read = world.store.conversations().get(&scope, world_id(&user)).await.unwrap().unwrap();
        let subscribe = world.inbox.router().subscribe(&scope, &read, own);
        let unsubscribe = world.inbox.router().unsubscribe(&scope, &world.number, &read);
        match round % 2 == 0 {
            true => drop(tokio::join!(subscribe, unsubscribe)),
            false => drop(tokio::join!(unsubscribe, subscribe)),
        }
        let stands =
            world.store.conversations().get(&scope, read.pair.conversation).await.unwrap().unwrap();
        let mut reported = Vec::new();
        for webhook in [own, usual] {
            let all = world.deliveries(webhook).await;
            let new = all.into_iter().filter(|d| known.insert(d.event_id.clone()));
            let mut kinds: Vec<_> =
                new.map(|d| d.event).filter(|e| e.starts_with("subscription.")).collect();
            kinds.sort();
            reported.push(kinds);
        }
        let wanted: [&[&str]; 2] = match stands.standing.routing.webhook() {
            // Unsubscribed last: the conversation has the number's routing.
            Some(id) if id == usual => [
                &["subscription.activated", "subscription.revoked"],
                &["subscription.activated", "subscription.revoked"],
            ],
            Some(_) => [&["subscription.activated"], &["subscription.revoked"]],
            None => panic!("round {round}: neither order ends so"),
        };
        assert_eq!(reported, wanted, "round {round}");
    }
}

#[tokio::test]
async fn s4_03_ignores_subaccounts_webhooks_when_finding_the_only_one() {
    let world = World::start().await;
    let order = |name: &str| WebhookSpec {
        name: name.to_owned(),
        url: xml::ast::DocUrl("https://crm.example.com/".into()),
    };
    let scope = Scope::of("MA1".into());
    let subs = world.inbox.webhooks().create(&"SA1".into(), order("sub")).await.unwrap().id;
    assert_eq!(
        world.inbox.numbers().webhook_of(&world.number),
        None,
        "a subaccount's webhook does not count"
    );
    let named = world.inbox.webhooks().get_or_only(&scope, &world.number, Some(subs));
    assert!(matches!(named, Err(RoutingError::NoWebhook)), "and may not serve its numbers");
    let own = world.inbox.webhooks().create(&"MA1".into(), order("main")).await.unwrap().id;
    assert_eq!(world.inbox.numbers().webhook_of(&world.number), Some(own));
    assert_eq!(world.inbox.webhooks().get_or_only(&scope, &world.number, None).unwrap().id, own);
}

#[tokio::test]
async fn a_subaccount_without_a_webhook_has_the_only_one_of_its_main_account() {
    let world = World::start().await;
    let create = async |account: &str, name: &str| {
        let url = xml::ast::DocUrl("https://crm.example.com/".into());
        let spec = WebhookSpec { name: name.to_owned(), url };
        world.inbox.webhooks().create(&account.into(), spec).await.unwrap().id
    };
    give(&world.directory, "SA1");
    let number = world.directory.number(&"106".into()).unwrap();
    let webhook = || world.inbox.numbers().webhook_of(&number);
    let main = create("MA1", "main").await;
    assert_eq!(webhook(), Some(main));
    create("MA1", "second").await;
    assert_eq!(webhook(), None, "which one?");
    let own = create("SA1", "own").await;
    assert_eq!(webhook(), Some(own));
    create("SA1", "another").await;
    assert_eq!(webhook(), None);
}

#[tokio::test]
async fn webhooks_of_a_deleted_account_move_to_its_heir() {
    let world = World::start().await;
    let url = xml::ast::DocUrl("https://crm.example.com/".into());
    let made = world
        .inbox
        .webhooks()
        .create(&"SA1".into(), WebhookSpec { name: "sub".to_owned(), url })
        .await
        .unwrap();
    world.inbox.webhooks().inherit(&"SA1".into(), &"MA1".into()).await.unwrap();
    let found = world.inbox.webhooks().get(&Scope::of("MA1".into()), made.id).unwrap();
    assert_eq!((found.account.as_str(), found.secrets.len()), ("MA1", 1));
    let rows = world.store.webhooks().list().await.unwrap();
    assert!(rows.iter().any(|row| row.id == made.id && row.account.as_str() == "MA1"));
}

#[tokio::test]
async fn webhook_names_are_unique_within_an_account() {
    let world = World::start().await;
    let webhooks = world.inbox.webhooks();
    let order = |name: &str| WebhookSpec {
        name: name.to_owned(),
        url: xml::ast::DocUrl("https://crm.example.com/".into()),
    };
    let [main, sub] = ["MA1", "SA1"].map(AuthId::from);
    webhooks.create(&main, order("one")).await.unwrap();
    let two = webhooks.create(&main, order("two")).await.unwrap();
    webhooks.create(&sub, order("one")).await.unwrap();
    let taken = webhooks.create(&main, order("one")).await;
    assert!(matches!(taken, Err(RoutingError::NameTaken)), "{taken:?}");
    let scope = Scope::of(main.clone());
    let taken = webhooks.change(&scope, two.id, order("one")).await;
    assert!(matches!(taken, Err(RoutingError::NameTaken)), "{taken:?}");
    // Duplicates of earlier versions stay usable.
    let row = world.store.webhooks().list().await.unwrap().remove(0);
    let old =
        WebhookRow { id: Uuid::new_v4(), account: main, name: "two".into(), version: 0, ..row };
    assert!(world.store.webhooks().write(WebhookWrite::Put(old)).await.unwrap());
    webhooks.change(&scope, two.id, order("two")).await.unwrap();
    let [first] = &webhooks.get(&scope, two.id).unwrap().secrets[..] else { panic!("one secret") };
    let first = first.reveal().to_owned();
    let secrets = async || -> Vec<String> {
        let rotated = webhooks.rotate_secret(&scope, two.id).await.unwrap();
        rotated.secrets.iter().map(|secret| secret.reveal().to_owned()).collect()
    };
    // A receiver may still have the first secret, and the second one was perhaps lost.
    let (one, another) = (secrets().await, secrets().await);
    assert_eq!((one.len(), &one[1], another.len(), &another[1]), (2, &first, 2, &first));
    assert_ne!(one[0], another[0]);
    webhooks.change(&scope, two.id, order("three")).await.unwrap();
}

#[tokio::test]
async fn serializes_webhook_changes_and_routes_nothing_to_a_deleted_one() {
    let world = World::start().await;
    let order = |name: &str| WebhookSpec {
        name: name.to_owned(),
        url: xml::ast::DocUrl("https://crm.example.com/".into()),
    };
    let scope = Scope::of("MA1".into());
    let made = world.inbox.webhooks().create(&"MA1".into(), order("one")).await.unwrap();
    let (rotated, renamed) = tokio::join!(
        world.inbox.webhooks().rotate_secret(&scope, made.id),
        world.inbox.webhooks().change(&scope, made.id, order("two"))
    );
    let (rotated, (renamed, has_new_secret)) = (rotated.unwrap(), renamed.unwrap());
    assert_eq!((rotated.secrets.len(), renamed.secrets.len()), (2, 2), "neither change is lost");
    assert!(!has_new_secret);
    let elsewhere = WebhookSpec {
        url: xml::ast::DocUrl("https://crm.example.com:8443/".into()),
        ..order("two")
    };
    let (moved, has_new_secret) =
        world.inbox.webhooks().change(&scope, made.id, elsewhere).await.unwrap();
    let secrets = |webhook: &crate::admission::Webhook| -> Vec<String> {
        webhook.secrets.iter().map(|secret| secret.reveal().to_owned()).collect()
    };
    assert!(has_new_secret);
    assert_eq!(moved.secrets.len(), 1);
    assert!(!secrets(&renamed).contains(&secrets(&moved)[0]), "another server, another secret");
    world.inbox.webhooks().remove(&scope, made.id).await.unwrap();
    let routed = world
        .inbox
        .router()
        .route_number(&world.number, Routing::Webhook(Some(made.id)), true)
        .await;
    assert!(matches!(routed, Err(RoutingError::NoWebhook)));
    assert!(matches!(
        world.inbox.webhooks().rotate_secret(&scope, made.id).await,
        Err(RoutingError::NoWebhook)
    ));
}

#[tokio::test]
async fn s3_04_searches_ignore_case_in_any_script_and_find_users_by_digits() {
    let world = World::start().await;
    world.writes("919811111111", "Zwölf ÄPFEL bitte").await;
    world.writes("919822222222", "МОСКВА").await;
    for (search, users) in [
        ("äpfel", &["919811111111"][..]),
        ("москва", &["919822222222"]),
        ("+91 98", &[]),
        ("+91 981", &["919811111111"]),
        ("pears", &[]),
    ] {
        let filter =
            ConversationFilter { search: search.to_owned(), ..ConversationFilter::default() };
        let page =
            world.store.conversations().list(&Scope::of("MA1".into()), &filter, 50).await.unwrap();
        let found: Vec<_> = page.found.iter().map(|c| c.pair.user.id.as_str()).collect();
        assert_eq!(found, users, "{search}");
        assert_eq!(page.next, None);
    }
}
