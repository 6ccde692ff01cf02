//! Turns and their answers, with a store and a Graph that takes everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::admission::{AccountSpec, NumberSpec};
use crate::answer::{AT_ONCE_PER_HOST, Dice, Notifier};
use crate::call::OutboxLimits;
use crate::config::Secret;
use crate::egress::testing::{Reply, Seen, Server, egress, open_guard};
use crate::meta::GraphConfig;
use crate::model::Timestamp;
use crate::observe::Health;
use crate::store::{ConversationChange, Scope};

struct World {
    inbox: Inbox,
    number: Arc<NumberEntry>,
    graph: Server,
    written: AtomicUsize,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        Self::with(|_| Reply::ok(json!({"messages": [{"id": "wamid.sent"}]}).to_string())).await
    }

    /// Graph answers so.
    async fn with(graph: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let clock = Clock::stepped(Timestamp::from_secs(1_790_000_000));
        let account = AccountSpec { auth_id: "MA1".into(), parent: None, cps: None, tokens: Vec::new() };
        let number = NumberSpec {
            number: E164::parse("918035737458").unwrap(),
            phone_number_id: "106".into(),
            waba: "7".into(),
            account: "MA1".into(),
            alias: String::new(),
            calling_enabled: false,
            silent: false,
            answer: None,
            fallback: None,
            hangup: None,
            messages: None,
            calls_per_number: 1,
            permissions: Default::default(),
            access_token: None,
        };
        let directory = Arc::new(Directory::new(10));
        directory.replace(vec![account], vec![number]).unwrap();
        let graph = Server::start(graph).await;
        let notifier = Notifier::new(egress(open_guard(), Vec::new()), clock.clone(), Dice::system(), AT_ONCE_PER_HOST);
        let (node, limits) = ("node".to_owned(), OutboxLimits::default());
        let outbox = Outbox::new(store.clone(), notifier, directory.clone(), clock.clone(), node.clone(), limits);
        let client = Graph::new(GraphConfig::new(graph.url(""), Secret::new("t")), clock.clone()).unwrap();
        let notes = store.clone();
        let inbox = Inbox::new(InboxParts {
            store,
            outbox,
            directory: directory.clone(),
            graph: Arc::new(client),
            notices: Notices::new(notes, Feed::new(), clock.clone()),
            feed: Feed::new(),
            clock,
            node_id: node,
            base_url: "https://calls.example.com".to_owned(),
            media: folder.path().join("messages"),
            tasks: TaskTracker::new(),
        });
        inbox.open(&[]).await.unwrap();
        let number = directory.number(&"106".into()).unwrap();
        Self { inbox, number, graph, written: AtomicUsize::new(0), _folder: folder }
    }

    async fn writes(&self, user: &str, text: &str) -> Uuid {
        self.says(user, "text", json!({"text": {"body": text}})).await
    }

    async fn says(&self, user: &str, kind: &str, content: serde_json::Value) -> Uuid {
        let wamid = format!("wamid.{}", self.written.fetch_add(1, Ordering::Relaxed));
        let id = crate::model::stable_id("message", &["106", &wamid]);
        let sender = Sender { wa_id: Some(user.to_owned()), bsuid: None, name: "Asha".to_owned() };
        let said = UserMessage { wamid, sender, timestamp: None, kind: kind.to_owned(), content };
        assert!(self.inbox.came(&self.number, said).unwrap().unwrap().await);
        id
    }

    /// Asks for a message's file by a link of ours.
    async fn file(&self, message: Uuid) -> Option<MediaFile> {
        let url = self.inbox.media_url(message);
        let (_, query) = url.split_once("?until=").unwrap();
        let (until, tag) = query.split_once("&tag=").unwrap();
        self.inbox.media_file(message, until.parse().unwrap(), tag).await
    }

    async fn timeline(&self, user: &str) -> Vec<(String, &'static str)> {
        let (scope, id) = (Scope::of("MA1".into()), conversation_id(&"106".into(), user));
        let found = self.inbox.parts().store.messages(&scope, id, None, 50).await.unwrap();
        found.iter().rev().map(|m| (m.message.text.clone(), m.message.status.as_str())).collect()
    }
}

const AGENT: Uuid = Uuid::from_u128(7);

#[tokio::test]
async fn s4_09_an_agents_answer_is_dropped_once_the_routing_has_changed() {
    let world = World::start().await;
    let mut turns = world.inbox.turns().unwrap();
    assert!(world.inbox.turns().is_none(), "one takes them");
    world.inbox.route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "one").await;
    let turn = turns.recv().await.unwrap();
    assert_eq!((turn.agent, turn.message.text.as_str(), turn.pair.user.id.as_str()), (AGENT, "one", "91"));
    let sent = world.inbox.reply(&turn, vec![Outgoing::text("Hello"), Outgoing::text("there")]).await.unwrap();
    assert_eq!(sent.len(), 2);
    world.writes("91", "two").await;
    let turn = turns.recv().await.unwrap();
    world.inbox.route_number(&world.number, Routing::Webhook(None), true).await.unwrap();
    let refused = world.inbox.reply(&turn, vec![Outgoing::text("too late")]).await;
    assert!(matches!(refused, Err(NotSent::Stale)), "{refused:?}");
    // The same agent again is another time.
    world.inbox.route_number(&world.number, Routing::Agent(AGENT), true).await.unwrap();
    assert!(matches!(world.inbox.reply(&turn, vec![Outgoing::text("too late")]).await, Err(NotSent::Stale)));
    world.writes("91", "three").await;
    let turn = turns.recv().await.unwrap();
    // People take over: the turn that is under way ends with it, and there is no further one.
    let off = ConversationChange { ai_enabled: Some(false), ..ConversationChange::default() };
    assert!(world.inbox.change(&Scope::of("MA1".into()), &turn.pair, off).await.unwrap());
    assert!(matches!(world.inbox.reply(&turn, vec![Outgoing::text("too late")]).await, Err(NotSent::Stale)));
    world.writes("91", "four").await;
    assert!(turns.try_recv().is_err());
    world.inbox.parts().tasks.close();
    world.inbox.parts().tasks.wait().await;
    let said: Vec<String> = world.timeline("91").await.into_iter().map(|(text, _)| text).collect();
    let mut sorted = said.clone();
    sorted.sort();
    assert_eq!(sorted, ["Hello", "four", "one", "there", "three", "two"]);
    assert_eq!(world.graph.seen().len(), 2, "Meta has seen no other");
}

#[tokio::test]
async fn a_message_that_comes_twice_is_one_with_one_turn() {
    let world = World::start().await;
    let mut turns = world.inbox.turns().unwrap();
    world.inbox.route_number(&world.number, Routing::Agent(AGENT), false).await.unwrap();
    world.writes("91", "one").await;
    world.written.store(0, Ordering::Relaxed);
    world.writes("91", "one").await;
    assert!(turns.recv().await.is_some() && turns.try_recv().is_err());
    assert_eq!(world.timeline("91").await, [("one".to_owned(), "received")]);
}

/// A Graph that names each file, and gives it so.
fn files(of: impl Fn(&str) -> Reply + Send + Sync + 'static) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| match seen.target.strip_prefix("/file/") {
        Some(file) => of(file),
        None => {
            let url = format!("http://{}/file{}", seen.header("host"), seen.target);
            Reply::ok(json!({ "url": url }).to_string())
        }
    }
}

fn fetched(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.target.starts_with("/file/")).count()
}

#[tokio::test]
async fn r10_few_files_are_fetched_at_a_time_and_one_that_is_asked_for_waits_for_none_of_them() {
    let world = World::with(files(|file| if file == "wanted" { Reply::ok("here") } else { Reply::Never })).await;
    // More than may wait, so that the last is fetched by nobody until somebody asks.
    for n in 0..270 {
        world.says("91", "image", json!({"image": {"id": format!("m{n}")}})).await;
    }
    let wanted = world.says("91", "image", json!({"image": {"id": "wanted"}})).await;
    while fetched(&world.graph.seen()) < 3 {
        tokio::task::yield_now().await;
    }
    let file = world.file(wanted).await.unwrap();
    assert_eq!(std::fs::read(&file.path).unwrap(), b"here");
    assert_eq!(fetched(&world.graph.seen()), 4, "three that nobody asked for, and this one");
    let folder = file.path.parent().unwrap();
    let parts = std::fs::read_dir(folder).unwrap().flatten().filter(|e| e.path().extension().is_some()).count();
    assert_eq!(parts, 3, "what is fetched is on the disk, not in memory");
}

#[tokio::test]
async fn a_full_folder_takes_only_what_is_asked_for() {
    let world = World::with(files(|_| Reply::ok("here"))).await;
    world.inbox.0.shelf.fill();
    let id = world.says("91", "image", json!({"image": {"id": "m1"}})).await;
    assert_eq!(world.graph.seen().len(), 0);
    assert!(world.file(id).await.is_some());
    let scope = Scope::of("MA1".into());
    let conversation = conversation_id(&"106".into(), "91");
    let found = world.inbox.parts().store.conversation(&scope, conversation).await.unwrap().unwrap();
    assert!(world.inbox.delete(&scope, &found.pair).await.unwrap());
    assert!(world.file(id).await.is_none());
}
