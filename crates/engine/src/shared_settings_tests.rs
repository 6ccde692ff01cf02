//! Two nodes on a real PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::admission::Directory;
use crate::admission::book::{ChangeError, ConnectRefusal, ConnectedNumber};
use crate::admission::permission::Consents;
use crate::admission::settings::{AccountSettings, NumberSettings, WabaSettings};
use crate::answer::{AT_ONCE_PER_HOST, Notifier, RandomSource};
use crate::call::{Outbox, OutboxLimits};
use crate::config::Config;
use crate::feed::Feed;
use crate::inbox::{InboxParts, RoutingError, WebhookSpec};
use crate::limiter::Failures;
use crate::meta::{Graph, GraphConfig};
use crate::notices::Notices;
use egress::testing::{egress, open_guard};
use model::{AuthId, E164, Health, Role, Routing, Secret, Timestamp};
use store::testing::{place, skipped_on_sqlite};
use store::{Passwords, Scope, Store, StoreOptions};
use xml::ast::DocUrl;

const NUMBER: &str = "918035737458";

fn number() -> E164 {
    E164::parse(NUMBER).unwrap()
}

fn account() -> AuthId {
    "MA1".into()
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_790_000_000)
}

fn config() -> Config {
    let mut config = Config::with(Secret::new("a"), Secret::new("b"));
    config.accounts.push(AccountSettings {
        auth_id: account(),
        auth_token: Secret::new("t"),
        auth_token_previous: None,
        cps: None,
        api_keys: Vec::new(),
        parent: None,
    });
    config.wabas.push(WabaSettings { id: "7".into(), account: account(), access_token: None });
    config.numbers.push(NumberSettings {
        number: number(),
        phone_number_id: "106".into(),
        waba: "7".into(),
        alias: "File".to_owned(),
        calling_enabled: false,
        calling_named: false,
        app_id: None,
        answer_url: None,
        answer_method: model::Method::Post,
        fallback_url: None,
        fallback_method: model::Method::Post,
        hangup_url: None,
        hangup_method: model::Method::Post,
        webhook_url: None,
        calls_per_number: None,
        permissions: Default::default(),
    });
    config
}

struct Node {
    keeper: Keeper,
    people: People,
    inbox: Inbox,
    directory: Arc<Directory>,
    settings: SharedSettings,
    store: Store,
}

impl Node {
    /// Starts a node. The nodes of a test share its database.
    async fn start(folder: &tempfile::TempDir, name: &str) -> Self {
        let at = place(&folder.path().join("data/offhook.db")).await;
        let options = StoreOptions {
            secret_key: Some(Secret::new("the key of all nodes of this test")),
            ..StoreOptions::with_journal_in(folder.path().join(name))
        };
        let store = Store::open_with(at, options, Health::new()).await.unwrap();
        let clock = Clock::stepped(now());
        let directory = Arc::new(Directory::new(10));
        let config = config();
        let keeper = Keeper::open(store.clone(), directory.clone(), config.admission(), now())
            .await
            .unwrap();
        let people = People::new(
            store.clone(),
            Passwords::default(),
            clock.clone(),
            Feed::new(),
            Failures::new(None, Duration::ZERO),
        );
        people.load().await.unwrap();
        let inbox = inbox(&store, &directory, &clock, folder.path().join(name));
        inbox.open(&[]).await.unwrap();
        let settings = SharedSettings::new(
            keeper.clone(),
            people.clone(),
            inbox.clone(),
            store.clone(),
            clock.clone(),
            None,
        );
        Self { keeper, people, inbox, directory, settings, store }
    }

    /// What the answer to a beat says.
    async fn term(&self) -> TermState {
        self.store.fleet_session().await.unwrap().runs().await.unwrap().1
    }

    async fn refresh(&self) -> bool {
        self.settings.refresh(&self.term().await).await.unwrap()
    }

    fn alias(&self) -> String {
        self.keeper.book().any_number(&number()).unwrap().set.alias.clone()
    }

    /// Adds a letter to the number's name.
    async fn append(&self, letter: char) -> Result<(), ChangeError<()>> {
        let change = self.keeper.change(now(), |book| {
            Ok(((), book.edit_number(&number(), |set| set.alias.push(letter))))
        });
        change.await
    }
}

fn inbox(
    store: &Store,
    directory: &Arc<Directory>,
    clock: &Clock,
    folder: std::path::PathBuf,
) -> Inbox {
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
    let graph = GraphConfig::new("http://127.0.0.1:9/", Secret::new("t"));
    Inbox::new(InboxParts {
        store: store.clone(),
        outbox,
        directory: directory.clone(),
        graph: Arc::new(Graph::new(graph, clock.clone()).unwrap()),
        notices: Notices::new(store.clone(), Feed::new(), clock.clone()),
        feed: Feed::new(),
        clock: clock.clone(),
        node_id: node,
        base_url: "https://calls.example.com".to_owned(),
        space: crate::disk_space::DiskSpace::new(&folder, None, Box::new(|| false), clock.clone()),
        media: folder,
        consents: Arc::new(Consents::new()),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

fn webhook(name: &str) -> WebhookSpec {
    WebhookSpec { name: name.to_owned(), url: DocUrl("https://app.example.com/events".into()) }
}

#[tokio::test]
async fn f36_a_change_at_one_node_is_in_force_at_the_other_after_a_refresh() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    let scope = Scope::of(account());
    let reports = Arc::new(AtomicUsize::new(0));
    let counted = reports.clone();
    b.keeper.tell(move |before, book| {
        let alias = |book: &crate::admission::book::Book| {
            book.any_number(&number()).unwrap().set.alias.clone()
        };
        counted.fetch_add(usize::from(alias(before) != alias(book)), Ordering::Relaxed);
    });
    assert!(b.refresh().await, "the first one reads everything");
    assert!(!b.refresh().await, "nothing has changed since");

    // The configuration of B names the number, too, but a change made later counts.
    a.append('s').await.unwrap();
    let (key, token) =
        a.people.make_key((account(), account()), "robot", Role::Agent, None).await.unwrap();
    let made = a.inbox.webhooks().create(&account(), webhook("crm")).await.unwrap();
    let entry = a.directory.number(&"106".into()).unwrap();
    a.inbox.router().route_number(&entry, Routing::Webhook(Some(made.id)), false).await.unwrap();
    let text = token.reveal().to_owned();
    assert_eq!((b.alias().as_str(), b.people.key(&text).is_some()), ("File", false));
    assert!(b.refresh().await);
    assert!(!b.refresh().await);
    assert_eq!(b.alias(), "Files");
    assert_eq!(b.people.key(&text).unwrap().id, key.id);
    assert_eq!(
        b.inbox.webhooks().get(&scope, made.id).unwrap().secrets[0].reveal(),
        made.secrets[0].reveal()
    );
    let there = b.directory.number(&"106".into()).unwrap();
    assert_eq!(there.spec.alias, "Files", "the tables of the next call have it");
    assert_eq!(b.inbox.numbers().routing_of(&there), Routing::Webhook(Some(made.id)));
    assert_eq!(reports.load(Ordering::Relaxed), 0, "A has told the customer");

    // What is gone at one is gone at the other. B reads its own change once, not at each beat.
    b.people.remove_key(&scope, key.id).await.unwrap();
    assert!(a.people.key(&text).is_some());
    assert!(a.refresh().await && b.refresh().await);
    assert!(!a.refresh().await && !b.refresh().await);
    assert!(a.people.key(&text).is_none());
    a.store.close().await;
    b.store.close().await;
}

#[tokio::test]
async fn f36_a_rolled_back_or_empty_change_is_not_counted() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let a = Node::start(&folder, "a").await;
    let before = a.term().await.book;
    let refused = a.keeper.change(now(), |_| Err::<((), Vec<_>), _>("no"));
    assert!(matches!(refused.await, Err(ChangeError::Refused("no"))));
    a.keeper.change(now(), |_| Ok::<_, ()>(((), Vec::new()))).await.unwrap();
    let gone = a.people.remove_key(&Scope::of(account()), Uuid::from_u128(1)).await;
    assert!(gone.is_err());
    assert_eq!(a.term().await.book, before);
    a.append('s').await.unwrap();
    assert_eq!(a.term().await.book, before + 1, "once per transaction");
    a.store.close().await;
}

#[tokio::test]
async fn f37_concurrent_changes_of_two_nodes_all_count() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    let append = async |node: &Node, letter| {
        let mut done = 0;
        while done < 20 {
            match node.append(letter).await {
                Ok(()) => done += 1,
                // Overtaken eight times. The caller gets a 409 and tries again.
                Err(ChangeError::Store(StoreError::Contended)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(append(&a, 'a'), append(&b, 'b'));
    assert!(a.refresh().await && b.refresh().await);
    for node in [&a, &b] {
        let alias = node.alias();
        assert_eq!(alias.len(), "File".len() + 40, "{alias}");
        assert_eq!(alias.matches('a').count(), 20);
    }

    // Both give an id to another number. The rule is about two rows, and only one of them wins.
    let connect = async |node: &Node, number: &str| {
        let number = E164::parse(number).unwrap();
        let made = ConnectedNumber { phone_number_id: "500".into(), waba: None, of: account() };
        let change = node.keeper.change(now(), |book| {
            book.connect_number((&number, made.clone()), None, now()).map(|keys| ((), keys))
        });
        change.await
    };
    let (one, two) = tokio::join!(connect(&a, "918035737401"), connect(&b, "918035737402"));
    let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
    won.unwrap();
    assert!(matches!(lost, Err(ChangeError::Refused(ConnectRefusal::Taken))));
    a.store.close().await;
    b.store.close().await;
}

#[tokio::test]
async fn f37_changes_of_a_webhook_by_two_nodes_both_count() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    let scope = Scope::of(account());
    let made = a.inbox.webhooks().create(&account(), webhook("crm")).await.unwrap();
    // B has never read the webhook, and A has not read what B changes.
    let renamed = b.inbox.webhooks().change(&scope, made.id, webhook("desk"));
    let rotated = a.inbox.webhooks().rotate_secret(&scope, made.id);
    let (renamed, rotated) = tokio::join!(renamed, rotated);
    renamed.unwrap();
    rotated.unwrap();
    assert!(a.refresh().await && b.refresh().await);
    for node in [&a, &b] {
        let there = node.inbox.webhooks().get(&scope, made.id).unwrap();
        assert_eq!((there.name.as_str(), there.secrets.len()), ("desk", 2));
    }
    // A change does not restore what another node has removed.
    a.inbox.webhooks().remove(&scope, made.id).await.unwrap();
    assert!(b.inbox.webhooks().get(&scope, made.id).is_some());
    let late = b.inbox.webhooks().change(&scope, made.id, webhook("back")).await;
    assert!(matches!(late, Err(RoutingError::NoWebhook)));
    assert!(b.refresh().await);
    assert!(b.inbox.webhooks().get(&scope, made.id).is_none());
    a.store.close().await;
    b.store.close().await;
}
