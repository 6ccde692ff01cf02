//! Tests of both APIs over HTTP on loopback, with a real store and simulated live calls.

mod away;
mod endpoints;
mod openapi;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::Credentials;
use super::server::tests::exchange;
use super::server::{HttpLimits, ServerConfig, bind, serve};
use super::{
    Api, Apis, CallPlacer, CallSummary, CommandError, ConfigFinding, LiveCall, LiveCalls,
    LiveFilter, LiveStatus, NodeState, NodeStatus, Operator, ReloadOutcome, ReloadSummary,
    RequestCount, newest_page,
};
use egress::testing::{Reply, Server};
use engine::admission::book::Keeper;
use engine::admission::permission::{Consents, Event, PairKey, Reply as Answered, Rules};
use engine::admission::settings::{AccountSettings, ApiKey, Permissions};
use engine::admission::{AccountSpec, Directory, Gate, NumberEntry, NumberSpec};
use engine::call::course::Course;
use engine::call::dialer::CallOrder;
use engine::call::phones::Phones;
use engine::call::queues::NotPlaced;
use engine::call::streams::{StreamStatus, StreamView};
use engine::call::{PermissionService, Recordings};
use engine::inbox::{Inbox, InboxParts};
use engine::meta::{Graph, GraphConfig, Policy};
use engine::people::People;
use machine::{Command, RecordingOrder, StreamOrder};
use model::Clock;
use model::Disk;
use model::Health;
use model::{CallType, CallUuid, Direction, E164, HangupCause, StreamId, Timestamp};
use model::{Role, Secret};
use speech::config::SpeechConfig;
use speech::library::Library;
use speech::model_manager::ModelManager;
use speech::recognise::Recognisers;
use store::{CallEnd, CallStart, ForgetOutcome, Passwords, Scope, Store, StoreError};
use xml::ast::{DocUrl, Target};

mod control;
mod lists;
mod permissions;
mod settings;
mod tenants;

use permissions::graph_answers;

const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";
const SUB: &str = "SAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "MABBBBBBBBBBBBBBBBBB";

struct Calls {
    live: Vec<LiveCall>,
    hung_up: Mutex<Vec<CallUuid>>,
    commands: Mutex<Vec<(CallUuid, Command)>>,
    reload: Mutex<Option<ReloadOutcome>>,
    is_shared: AtomicBool,
    is_draining: AtomicBool,
    /// The numbers 918035737458 of `SUB` and 442071838750 of `OTHER`.
    directory: Directory,
    orders: Mutex<Vec<CallOrder>>,
    streams: Mutex<Vec<StreamView>>,
    not_placed: Mutex<Option<NotPlaced>>,
}

impl Operator for Calls {
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome> {
        let reload = self.reload.lock().unwrap().take().unwrap_or(ReloadOutcome::NoFile);
        Box::pin(async move { reload })
    }

    fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    fn nodes(&self) -> BoxFuture<'static, Option<Vec<NodeStatus>>> {
        let count = |kind: &str, outcome: &str| RequestCount {
            kind: kind.to_owned(),
            outcome: outcome.to_owned(),
            ok: outcome == "ok",
            count: 2,
        };
        let nodes = (!self.is_shared.load(Ordering::Relaxed)).then(|| {
            vec![NodeStatus {
                id: "n1".to_owned(),
                version: "0".to_owned(),
                started_at: Some(model::Timestamp::from_micros(1_000_000).to_string()),
                state: if self.is_draining.load(Ordering::Relaxed) {
                    NodeState::Draining
                } else {
                    NodeState::Ready
                },
                not_ready: None,
                live_calls: Some(3),
                load: Some(0.1),
                fleet: None,
                memory_bytes: None,
                fetches: vec![count("answer", "ok"), count("answer", "timeout")],
                graph: Vec::new(),
            }]
        });
        Box::pin(std::future::ready(nodes))
    }

    fn drain(&self, node: &str) -> bool {
        self.is_draining.store(node == "n1", Ordering::Relaxed);
        node == "n1"
    }

    fn forget(&self, node: &str) -> BoxFuture<'static, Result<ForgetOutcome, StoreError>> {
        let outcome = match node {
            "n1" => ForgetOutcome::Running,
            "n2" => ForgetOutcome::Forgotten,
            _ => ForgetOutcome::Unknown,
        };
        Box::pin(std::future::ready(Ok(outcome)))
    }

    fn node_id(&self) -> &str {
        "n1"
    }
}

impl CallPlacer for Calls {
    fn number(&self, scope: &Scope, number: &E164) -> Option<Arc<NumberEntry>> {
        let entry = self.directory.tables().by_number(number)?.clone();
        scope.holds(&entry.account.auth_id, &entry.account.main().auth_id).then_some(entry)
    }

    fn check_url(&self, text: &str) -> Result<DocUrl, String> {
        let guard = egress::Guard::new(false, Vec::new());
        egress::CustomerUrl::parse(text, &guard).map_err(|refusal| refusal.to_string())?;
        Ok(DocUrl(text.into()))
    }

    fn check_socket_url(&self, text: &str) -> Result<DocUrl, String> {
        let guard = egress::Guard::new(false, Vec::new());
        egress::CustomerUrl::socket(text, &guard).map_err(|refusal| refusal.to_string())?;
        Ok(DocUrl(text.into()))
    }

    fn place<'a>(
        &'a self,
        order: &'a CallOrder,
    ) -> BoxFuture<'a, Result<Vec<CallUuid>, NotPlaced>> {
        Box::pin(async move {
            if let Some(why) = self.not_placed.lock().unwrap().take() {
                return Err(why);
            }
            let mut orders = self.orders.lock().unwrap();
            orders.push(order.clone());
            Ok((1..=order.to.len()).map(|n| uuid((orders.len() * 1_000 + n) as u128)).collect())
        })
    }
}

impl LiveCalls for Calls {
    fn list(&self, scope: &Scope) -> Vec<LiveCall> {
        self.live.iter().filter(|c| scope.holds(&c.account, &c.main_account)).cloned().collect()
    }

    fn page(&self, scope: &Scope, filter: &LiveFilter, skip: usize, take: usize) -> Vec<CallUuid> {
        let all = self.list(scope);
        let wanted =
            all.iter().filter(|c| (c.status == LiveStatus::Queued) == filter.queued).filter(|c| {
                filter.matches(&CallSummary {
                    call: c.call,
                    account: &c.account,
                    direction: c.direction,
                    from: &c.from,
                    to: &c.to,
                    started: c.started,
                })
            });
        newest_page(wanted.map(|c| (c.started, c.call)).collect(), skip, take)
    }

    fn get(&self, scope: &Scope, call: CallUuid) -> Option<LiveCall> {
        self.list(scope).into_iter().find(|c| c.call == call)
    }

    fn hang_up(&self, scope: &Scope, call: CallUuid) -> bool {
        let up = self.get(scope, call).is_some();
        if up {
            self.hung_up.lock().unwrap().push(call);
        }
        up
    }

    fn cancel<'a>(&'a self, scope: &'a Scope, call: CallUuid) -> BoxFuture<'a, bool> {
        let rings = self.get(scope, call).is_some_and(|call| {
            call.direction == Direction::Outbound && call.status != LiveStatus::InProgress
        });
        Box::pin(async move { rings && self.hang_up(scope, call) })
    }

    fn command(&self, scope: &Scope, call: CallUuid, command: Command) -> Result<(), CommandError> {
        self.get(scope, call).ok_or(CommandError::NotLive)?;
        self.commands.lock().unwrap().push((call, command));
        Ok(())
    }

    fn streams(&self, scope: &Scope, call: CallUuid) -> Vec<StreamView> {
        if self.get(scope, call).is_some() {
            self.streams.lock().unwrap().clone()
        } else {
            Vec::new()
        }
    }

    fn start_stream(
        &self,
        scope: &Scope,
        call: CallUuid,
        id: StreamId,
        order: StreamOrder,
    ) -> Result<bool, CommandError> {
        self.get(scope, call).ok_or(CommandError::NotLive)?;
        let mut streams = self.streams.lock().unwrap();
        if streams.iter().any(|view| view.ended.is_none()) {
            return Ok(false);
        }
        streams.insert(
            0,
            StreamView {
                stream: id,
                order,
                created: at(0),
                started: Some(at(1)),
                ended: None,
                status: StreamStatus::InProgress,
            },
        );
        Ok(true)
    }

    fn record(
        &self,
        scope: &Scope,
        id: CallUuid,
        _: RecordingOrder,
        _: Option<Target>,
    ) -> Result<bool, CommandError> {
        self.get(scope, id).map(|_| true).ok_or(CommandError::NotLive)
    }

    fn is_recorded(&self, _: &Scope, _: CallUuid) -> bool {
        false
    }

    fn course(&self, scope: &Scope, call: CallUuid) -> Option<Course> {
        self.get(scope, call)?;
        serde_json::from_value(
            json!({"from_ms": 0, "every_ms": 5000, "samples": [[5000, 250, 5, 8000, 0, 0, 0, 0]]}),
        )
        .ok()
    }

    fn events(
        &self,
        scope: &Scope,
        call: CallUuid,
        follow: bool,
    ) -> Option<BoxStream<'static, Arc<str>>> {
        self.get(scope, call)?;
        let lines: &[&str] = if follow { &["{\"n\":1}", "{\"n\":2}"] } else { &["{\"n\":1}"] };
        Some(stream::iter(lines.iter().map(|l| Arc::from(*l)).collect::<Vec<_>>()).boxed())
    }
}

fn uuid(n: u128) -> CallUuid {
    CallUuid(uuid::Uuid::from_u128(n))
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_micros((1_795_154_591 + secs) * 1_000_000 + 120_394)
}

fn live(n: u128, account: &str, status: LiveStatus) -> LiveCall {
    LiveCall {
        call: uuid(n),
        account: account.into(),
        main_account: if account == OTHER { OTHER.into() } else { MAIN.into() },
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        from: "919812345678".to_owned(),
        to: "918035737458".to_owned(),
        caller_name: "Asha".to_owned(),
        status,
        started: at(0),
        answered: None,
        parent_call: None,
        b_leg: None,
    }
}

fn start(n: u128, account: &str) -> CallStart {
    CallStart {
        call: uuid(n),
        account: account.into(),
        main_account: if account == OTHER { OTHER.into() } else { MAIN.into() },
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        from: "919812345678".to_owned(),
        to: "918035737458".to_owned(),
        caller_name: String::new(),
        wacid: Some("wacid.abc".into()),
        phone_number_id: "7".into(),
        parent_call: None,
        node_id: "n".to_owned(),
        started: at(n as i64),
    }
}

fn numbers() -> Directory {
    let directory = Directory::new(10);
    let account = |id: &str, parent: Option<&str>| AccountSpec {
        auth_id: id.into(),
        parent: parent.map(Into::into),
        cps: None,
        tokens: Vec::new(),
    };
    let number = |number: &str, id: &str, account: &str| NumberSpec {
        number: E164::parse(number).unwrap(),
        first_id: id.into(),
        phone_number_id: id.into(),
        waba: "1".to_owned().into(),
        account: account.into(),
        alias: String::new(),
        calling_enabled: true,
        silent: false,
        agent_first: false,
        answer: None,
        fallback: None,
        hangup: None,
        messages: None,
        calls_per_number: 1_000,
        access_token: None,
        permissions: Permissions::default(),
    };
    let numbers = vec![number("918035737458", "7", SUB), number("442071838750", "8", OTHER)];
    directory
        .replace(vec![account(MAIN, None), account(SUB, Some(MAIN)), account(OTHER, None)], numbers)
        .unwrap();
    directory
}

struct Running {
    people: People,
    at: SocketAddr,
    calls: Arc<Calls>,
    store: Store,
    cancel: CancellationToken,
    clock: Clock,
    graph: Server,
    consents: Arc<Consents>,
    gate: Arc<Gate>,
    keeper: Keeper,
    /// The node's configuration.
    file: engine::config::Config,
    /// The free space of the disk, in bytes.
    free: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

/// Starts a node with 45 ended calls of `MAIN`, the first of them of `SUB`, and one of `OTHER`; and
/// with two live calls of `MAIN` and one of `OTHER`.
async fn run() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
    let concluded = (1..=46_u128).map(|n| {
        let account = match n {
            1 => SUB,
            46 => OTHER,
            _ => MAIN,
        };
        let answered = CallEnd {
            answered: Some(at(n as i64 + 2)),
            duration_secs: 51,
            bill_secs: 49,
            ..CallEnd::unanswered(HangupCause::CallerHangup, Direction::Inbound, at(n as i64 + 51))
        };
        let busy = CallEnd::unanswered(HangupCause::NumberFull, Direction::Inbound, at(n as i64));
        let store = store.clone();
        async move {
            store
                .calls()
                .conclude_without_callbacks(start(n, account), if n == 2 { busy } else { answered })
                .await
        }
    });
    assert!(
        futures_util::future::join_all(concluded).await.into_iter().all(|changed| changed.unwrap())
    );
    for seq in 0..2_500 {
        store.event_log().append(uuid(3), seq, format!("{{\"seq\":{seq}}}"));
    }
    let calls = Arc::new(Calls {
        live: vec![
            live(101, MAIN, LiveStatus::InProgress),
            live(102, SUB, LiveStatus::Ringing),
            live(103, OTHER, LiveStatus::InProgress),
            live(104, MAIN, LiveStatus::Queued),
        ],
        hung_up: Mutex::default(),
        commands: Mutex::default(),
        reload: Mutex::default(),
        is_shared: AtomicBool::default(),
        is_draining: AtomicBool::default(),
        directory: numbers(),
        orders: Mutex::default(),
        streams: Mutex::default(),
        not_placed: Mutex::default(),
    });
    let account = |id: &str, parent: Option<&str>| AccountSettings {
        auth_id: id.into(),
        auth_token: Secret::new("token"),
        auth_token_previous: None,
        cps: None,
        api_keys: vec![
            ApiKey { name: None, key: Secret::new(format!("key-{id}")), role: Role::Owner },
            ApiKey { name: None, key: Secret::new(format!("key-admin-{id}")), role: Role::Admin },
            ApiKey { name: None, key: Secret::new(format!("key-agent-{id}")), role: Role::Agent },
        ],
        parent: parent.map(Into::into),
    };
    let all = vec![account(MAIN, None), account(SUB, Some(MAIN)), account(OTHER, None)];
    let credentials = Credentials::new(&[]);
    let in_force = credentials.clone();
    let tables = Arc::new(Directory::new(10));
    let file = settings::file(all);
    let keeper =
        Keeper::open(store.clone(), tables.clone(), file.admission(), at(0)).await.unwrap();
    keeper.tell(move |_, book| in_force.replace(&book.credentials()));
    let clock = Clock::stepped(at(0));
    let free = Arc::new(AtomicU64::new(1 << 40));
    let left = free.clone();
    let graph = Server::start(graph_answers).await;
    let gate = Arc::new(Gate::new(tables.clone(), clock.now()));
    let config = GraphConfig {
        policy: Policy { answering: Vec::new(), ..Policy::default() },
        ..GraphConfig::new(graph.url(""), Secret::new("t"))
    };
    let desk = Arc::new(Graph::new(config, clock.clone()).unwrap());
    let consents = Arc::new(Consents::load(store.clone()).await.unwrap());
    let permissions = PermissionService::new(desk.clone(), consents.clone(), clock.clone());
    let outbox = outbox_of(&store, &tables, &clock);
    let recordings = recordings_of(&store, folder.path(), outbox.clone(), &clock);
    let (prompts, models) = speech(folder.path());
    let inbox = Inbox::new(InboxParts {
        store: store.clone(),
        outbox,
        directory: tables.clone(),
        graph: desk.clone(),
        notices: engine::notices::Notices::new(
            store.clone(),
            engine::feed::Feed::new(),
            clock.clone(),
        ),
        feed: engine::feed::Feed::new(),
        clock: clock.clone(),
        node_id: "node".to_owned(),
        base_url: "https://calls.example.com".to_owned(),
        media: folder.path().join("messages"),
        space: engine::disk_space::DiskSpace::new(
            folder.path(),
            None,
            Box::new(|| false),
            clock.clone(),
        ),
        consents: consents.clone(),
        tasks: tokio_util::task::TaskTracker::new(),
        stop: tokio_util::sync::CancellationToken::new(),
    });
    inbox.open(&file.webhooks).await.unwrap();
    let people = People::new(
        store.clone(),
        Passwords::default(),
        clock.clone(),
        engine::feed::Feed::new(),
        engine::limiter::Failures::new(None, std::time::Duration::ZERO),
    );
    let (listener, address) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = ServerConfig {
        webhook: None,
        router: Apis::new(Api {
            clock: Clock::real(),
            feed: engine::feed::Feed::new(),
            numbers: numbers_of(&store, &keeper, &desk, &clock),
            inbox: inbox.clone(),
            credentials,
            store: store.clone(),
            live: calls.clone(),
            placer: calls.clone(),
            operator: calls.clone(),
            gate: gate.clone(),
            host: "calls.example.com".to_owned(),
            keeper: keeper.clone(),
            permissions,
            passwords: Passwords::default(),
            people: people.clone(),
            base_url: "https://calls.example.com".to_owned(),
            phones: Phones::default(),
            rooms: engine::call::rooms::Rooms::silent(Clock::real()),
            models,
            recordings: recordings.clone(),
            space: engine::disk_space::DiskSpace::with_probe(
                Box::new(move || Ok(Disk { size: 1 << 40, free: left.load(Ordering::Relaxed) })),
                None,
                Box::new(|| false),
                clock.clone(),
            ),
            offenders: None,
            eraser: engine::erasure::Eraser::new(engine::erasure::ErasureParts {
                store: store.clone(),
                recordings: recordings.clone(),
                prompts,
                inbox: inbox.clone(),
                consents: consents.clone(),
                keeper: keeper.clone(),
                clock: clock.clone(),
            }),
            agents: engine::agents::Agents::new(engine::agents::AgentsParts {
                store: store.clone(),
                directory: tables.clone(),
                notices: engine::notices::Notices::new(
                    store.clone(),
                    engine::feed::Feed::new(),
                    clock.clone(),
                ),
                egress: egress::testing::egress(egress::testing::open_guard(), Vec::new()),
                model_egress: egress::testing::egress(egress::testing::open_guard(), Vec::new()),
                model: None,
                clock: clock.clone(),
            }),
        })
        .router(),
        https: None,
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        proxies_only: false,
        local_hosts_only: false,
        offenders: None,
        limits: HttpLimits::default(),
        clock: Clock::real(),
        is_https: true,
        has_metrics: true,
        pause: crate::api::server::Pause::default(),
    };
    let cancel = CancellationToken::new();
    tokio::spawn(serve(listener, config, cancel.clone()));
    Running {
        at: address,
        calls,
        people,
        store,
        cancel,
        clock,
        graph,
        consents,
        gate,
        keeper,
        file,
        free,
        _folder: folder,
    }
}

/// The numbers service. Its answer URLs are never requested.
fn numbers_of(
    store: &Store,
    keeper: &Keeper,
    graph: &Arc<Graph>,
    clock: &Clock,
) -> engine::numbers::Numbers {
    use egress::testing::{egress, open_guard};
    use engine::answer::{Fetcher, RandomSource};
    engine::numbers::Numbers::new(engine::numbers::Parts {
        keeper: keeper.clone(),
        graph: graph.clone(),
        clock: clock.clone(),
        feed: engine::feed::Feed::new(),
        notices: engine::notices::Notices::new(
            store.clone(),
            engine::feed::Feed::new(),
            clock.clone(),
        ),
        guard: egress::Guard::new(false, Vec::new()),
        fetcher: Fetcher::new(
            egress(open_guard(), Vec::new()),
            clock.clone(),
            RandomSource::system(),
        ),
        sip_host: "phones.example.com".to_owned(),
        tasks: tokio_util::task::TaskTracker::new(),
    })
}

/// An outbox whose callbacks are never delivered.
fn outbox_of(store: &Store, tables: &Arc<Directory>, clock: &Clock) -> engine::call::Outbox {
    use egress::testing::{egress, open_guard};
    use engine::answer::{AT_ONCE_PER_HOST, Notifier, RandomSource};
    use engine::call::{Outbox, OutboxLimits};
    let out = egress(open_guard(), Vec::new());
    let notifier = Notifier::new(out, clock.clone(), RandomSource::system(), AT_ONCE_PER_HOST);
    let limits = OutboxLimits::default();
    Outbox::new(store.clone(), notifier, tables.clone(), clock.clone(), "node".to_owned(), limits)
}

fn recordings_of(
    store: &Store,
    folder: &std::path::Path,
    outbox: engine::call::Outbox,
    clock: &Clock,
) -> Recordings {
    use engine::answer::RandomSource;
    use engine::call::RecordingsConfig;
    use speech::recognise::Recognisers;
    let config = RecordingsConfig {
        data_dir: folder.to_owned(),
        base_url: "https://calls.example.com".to_owned(),
        node_id: "node".to_owned(),
        threads: 1,
        copies: None,
        recognisers: Recognisers::new(&SpeechConfig::default()).unwrap(),
        link_lifetime: None,
        space: engine::disk_space::DiskSpace::new(folder, None, Box::new(|| false), clock.clone()),
    };
    let tasks = tokio_util::task::TaskTracker::new();
    Recordings::start(config, store.clone(), outbox, clock.clone(), RandomSource::system(), tasks)
        .unwrap()
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Running {
    /// Sends an HTTP/1.0 request, so that streamed bodies are not chunked.
    async fn ask(&self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\n{head}\r\n{body}");
        let answer = exchange(self.at, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.get(9..12).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn plivo(&self, who: &str, method: &str, path: &str) -> Answer {
        let basic = STANDARD.encode(format!("{who}:token"));
        self.ask(
            method,
            &format!("/v1/Account/{who}/{path}"),
            &format!("authorization: Basic {basic}\r\n"),
            "",
        )
        .await
    }

    async fn ours(&self, who: &str, method: &str, path: &str, body: &str) -> Answer {
        self.ask(method, &format!("/api/v1/{path}"), &format!("x-api-key: key-{who}\r\n"), body)
            .await
    }
}

#[tokio::test]
async fn a_record_reads_as_plivo_writes_it() {
    let node = run().await;
    let path = format!("Call/{}/", uuid(3));
    let answer = node.plivo(MAIN, "GET", &path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut body = answer.json();
    let api_id = body["api_id"].take();
    assert!(answer.head.contains(&format!("x-api-id: {}", api_id.as_str().unwrap())));
    let expected = json!({
        "api_id": null, "answer_time": "2026-11-20 06:03:16+00:00", "bill_duration": 49, "billed_duration": 49,
        "call_direction": "inbound", "call_duration": 51, "call_state": "ANSWER", "call_uuid": uuid(3).to_string(),
        "conference_uuid": null, "end_time": "2026-11-20 06:04:05+00:00", "from_number": "919812345678",
        "hangup_cause_code": 4000, "hangup_cause_name": "Normal Hangup", "hangup_source": "Caller",
        "initiation_time": "2026-11-20 06:03:14+00:00", "parent_call_uuid": null,
        "resource_uri": format!("/v1/Account/{MAIN}/Call/{}/", uuid(3)), "to_number": "918035737458",
        "total_amount": "0.00000", "total_rate": "0.00000", "stir_verification": "Not Applicable",
        "stir_attestation": "", "voice_network_group": "WhatsApp", "source_ip": "", "cnam_lookup": "",
        "call_type": "whatsapp", "whatsapp_call_id": "wacid.abc"
    });
    assert_eq!(body, expected);

    let busy = node.plivo(MAIN, "GET", &format!("Call/{}/", uuid(2))).await.json();
    assert_eq!((&busy["answer_time"], &busy["call_duration"]), (&Value::Null, &json!(0)));
    assert_eq!(busy["call_state"], "BUSY");
    // A missing final slash and repeated slashes are accepted.
    for odd in [format!("Call/{}", uuid(3)), format!("/Call//{}//", uuid(3))] {
        assert_eq!(node.plivo(MAIN, "GET", &odd).await.status, 200, "{odd}");
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn lists_page_as_sdks_walk_them() {
    let node = run().await;
    let first = node.plivo(MAIN, "GET", "Call/?call_direction=inbound").await.json();
    let meta = |limit, offset, next: Value, previous: Value| json!({"limit": limit, "offset": offset, "next": next, "previous": previous, "total_count": 45});
    let uri = |offset: u32| {
        json!(format!("/v1/Account/{MAIN}/Call/?limit=20&offset={offset}&call_direction=inbound"))
    };
    assert_eq!(first["meta"], meta(20, 0, uri(20), Value::Null));
    assert_eq!(first["objects"].as_array().unwrap().len(), 20);
    assert_eq!(first["objects"][0]["call_uuid"], uuid(45).to_string(), "newest first");
    assert_eq!(first["objects"][0].as_object().unwrap().get("api_id"), None);
    let last =
        node.plivo(MAIN, "GET", "Call/?limit=20&offset=40&call_direction=inbound").await.json();
    assert_eq!(
        (last["objects"].as_array().unwrap().len(), &last["meta"]),
        (5, &meta(20, 40, Value::Null, uri(20)))
    );
    let none = node.plivo(MAIN, "GET", "Call/?hangup_source=Carrier").await.json();
    assert_eq!((&none["objects"], &none["meta"]["total_count"]), (&json!([]), &json!(0)));
    assert_eq!(
        node.plivo(MAIN, "GET", &format!("Call/?subaccount={SUB}")).await.json()["meta"]["total_count"],
        1
    );
    assert_eq!(node.plivo(SUB, "GET", "Call/").await.json()["meta"]["total_count"], 1);
    for (query, error) in [
        ("limit=21", "limit must be an integer between 1 and 20"),
        ("end_time__gt=soon", "end_time__gt must be YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS[.ffffff]]"),
        ("status=done", "status must be live or queued"),
    ] {
        let answer = node.plivo(MAIN, "GET", &format!("Call/?{query}")).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(error)));
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn an_owner_of_the_only_main_account_sees_the_nodes_and_drains_one() {
    let node = run().await;
    let listed = node.ours(MAIN, "GET", "nodes/", "").await;
    let one = &listed.json()["items"][0];
    assert_eq!(
        (listed.status, &one["id"], &one["state"], &one["liveCalls"]),
        (200, &"n1".into(), &"ready".into(), &3.into())
    );
    assert_eq!(
        one["fetches"][1],
        json!({"kind": "answer", "outcome": "timeout", "ok": false, "count": 2})
    );
    assert_eq!(node.ours(MAIN, "POST", "nodes/n2/drain/", "").await.status, 404);
    let drains = node.ours(MAIN, "POST", "nodes/n1/drain/", "").await;
    assert_eq!(
        (drains.status, drains.json()),
        (202, json!({"id": "n1", "state": "draining", "liveCalls": 3}))
    );
    assert_eq!(node.ours(MAIN, "GET", "nodes/", "").await.json()["items"][0]["state"], "draining");
    for who in [SUB.to_owned(), format!("admin-{MAIN}")] {
        for (method, path) in [("GET", "nodes/"), ("POST", "nodes/n1/drain/")] {
            assert_eq!(node.ours(&who, method, path, "").await.status, 403, "{who} {path}");
        }
    }
    // On a node that several tenants share, owners may not see or drain it.
    node.calls.is_shared.store(true, Ordering::Relaxed);
    assert_eq!(node.ours(MAIN, "GET", "nodes/", "").await.status, 403);
    assert_eq!(node.ours(MAIN, "POST", "nodes/n1/drain/", "").await.status, 403);
    node.cancel.cancel();
}

#[tokio::test]
async fn an_owner_of_a_main_account_reloads() {
    let node = run().await;
    let reload = async |who: &str, with: Option<ReloadOutcome>| {
        *node.calls.reload.lock().unwrap() = with;
        node.ours(who, "POST", "reload/", "").await
    };
    let reloaded = ReloadSummary {
        accounts: 1,
        wabas: 2,
        numbers: 3,
        needs_restart: vec!["listen.public".to_owned()],
        warnings: vec!["`model.api_key` is empty".to_owned()],
    };
    let done = reload(MAIN, Some(ReloadOutcome::Applied(reloaded))).await;
    let expected = json!({
        "accounts": 1, "wabas": 2, "numbers": 3, "needsRestart": ["listen.public"],
        "warnings": ["`model.api_key` is empty"],
    });
    assert_eq!((done.status, done.json()), (200, expected));
    let finding = ConfigFinding::new(Some((3, 7)), "unknown key `csp`", "did you mean `cps`?");
    let refused = reload(MAIN, Some(ReloadOutcome::Invalid(vec![finding]))).await;
    let findings = json!([{"line": 3, "column": 7, "message": "unknown key `csp`", "hint": "did you mean `cps`?"}]);
    assert_eq!((refused.status, &refused.json()["error"]["findings"]), (400, &findings));
    assert_eq!(refused.json()["error"]["code"], "bad_configuration");
    assert_eq!(reload(MAIN, None).await.status, 409);
    assert_eq!(reload(MAIN, Some(ReloadOutcome::SharedNode)).await.status, 403);
    for who in [SUB.to_owned(), format!("admin-{MAIN}")] {
        let answer = reload(&who, None).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (403, Some("forbidden")),
            "{who}"
        );
    }
    assert_eq!(node.ours(MAIN, "GET", "reload", "").await.status, 405);
    assert_eq!(node.ours("nobody", "POST", "reload", "").await.status, 401);
    node.cancel.cancel();
}

#[tokio::test]
async fn the_number_api_lists_live_then_ended_calls() {
    let node = run().await;
    let mut seen = Vec::new();
    let mut path = "calls/?limit=20".to_owned();
    loop {
        let page = node.ours(MAIN, "GET", &path, "").await.json();
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|c| c["callUuid"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(items.len(), 20);
        path = format!("calls/?limit=20&cursor={next}");
    }
    let expected: Vec<String> =
        [104, 102, 101].into_iter().chain((1..=45).rev()).map(|n| uuid(n).to_string()).collect();
    assert_eq!(seen, expected);
    let few = node.ours(MAIN, "GET", "calls?limit=2", "").await.json();
    let next = async |page: &Value| {
        let path = format!("calls?limit=1&cursor={}", page["next"].as_str().unwrap());
        node.ours(MAIN, "GET", &path, "").await.json()
    };
    let rest = next(&few).await;
    assert_eq!(
        rest["items"][0]["callUuid"],
        uuid(101).to_string(),
        "those that are up, where a page ended among them"
    );
    let rest = next(&rest).await;
    assert_eq!(rest["items"][0]["callUuid"], uuid(45).to_string(), "behind a page of live ones");
    assert_eq!(rest["items"][0]["startedAt"], "2026-11-20T06:03:56.120Z");
    assert_eq!(
        (&rest["items"][0]["status"], &rest["items"][0]["cause"]),
        (&json!("ended"), &json!("caller_hangup"))
    );
    assert_eq!(
        node.ours(SUB, "GET", "calls/", "").await.json()["items"].as_array().unwrap().len(),
        2
    );
    for (query, field) in [("limit=0", "limit"), ("limit=201", "limit"), ("cursor=7", "cursor")] {
        let answer = node.ours(MAIN, "GET", &format!("calls/?{query}"), "").await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["field"]),
            (400, &json!(field)),
            "{query}"
        );
    }
    assert_eq!(node.ours(MAIN, "DELETE", "calls/", "").await.status, 405);
    node.cancel.cancel();
}

#[tokio::test]
async fn one_call_is_shown_with_its_remarks_and_findings() {
    let node = run().await;
    let of = |call: CallUuid| format!("calls/{call}/");
    let end = CallEnd {
        remarks: vec!["the answer URL failed".to_owned()],
        findings: xml::parse(b"<Response/>", None).findings,
        ..CallEnd::unanswered(HangupCause::EndOfInstructions, Direction::Inbound, at(99))
    };
    assert!(node.store.calls().conclude_without_callbacks(start(47, MAIN), end).await.unwrap());
    let ended = node.ours(MAIN, "GET", &of(uuid(47)), "").await.json();
    assert_eq!(
        (&ended["callUuid"], &ended["status"]),
        (&json!(uuid(47).to_string()), &json!("ended"))
    );
    assert_eq!(ended["remarks"], json!(["the answer URL failed"]));
    assert_eq!(
        (&ended["findings"][0]["rule"], &ended["findings"][0]["line"]),
        (&json!("W308"), &json!(1))
    );
    let live = node.ours(MAIN, "GET", &of(uuid(101)), "").await.json();
    assert_eq!((&live["callUuid"], &live["findings"]), (&json!(uuid(101).to_string()), &json!([])));
    assert_eq!(
        node.ours(SUB, "GET", &of(uuid(47)), "").await.status,
        404,
        "another account's is as good as none"
    );
    assert_eq!(node.ours(MAIN, "GET", "calls/x/", "").await.status, 404);
    assert_eq!(node.ours(MAIN, "POST", &of(uuid(47)), "").await.status, 405);
    node.cancel.cancel();
}

#[tokio::test]
async fn live_calls_are_listed_shown_and_hung_up() {
    let node = run().await;
    let list = node.plivo(MAIN, "GET", "Call/?status=live").await.json();
    assert_eq!(list["calls"], json!([uuid(102).to_string(), uuid(101).to_string()]));
    assert!(list["api_id"].is_string() && list.get("meta").is_none());
    let queued = node.plivo(MAIN, "GET", "Call/?status=queued").await.json();
    assert_eq!(queued["calls"], json!([uuid(104).to_string()]));
    let second = node.plivo(MAIN, "GET", "Call/?status=live&limit=1&offset=1").await.json();
    assert_eq!(second["calls"], json!([uuid(101).to_string()]));

    let mut one = node.plivo(MAIN, "GET", &format!("Call/{}/?status=live", uuid(101))).await.json();
    one["api_id"].take();
    let expected = json!({
        "api_id": null, "call_status": "in-progress", "call_uuid": uuid(101).to_string(), "caller_name": "Asha",
        "direction": "inbound", "from": "919812345678", "to": "918035737458", "request_uuid": uuid(101).to_string(),
        "parent_call_uuid": null, "session_start": "2026-11-20 06:03:11.120394", "stir_verification": "Not Applicable",
        "stir_attestation": ""
    });
    assert_eq!(one, expected);
    let as_record = node.plivo(MAIN, "GET", &format!("Call/{}/", uuid(101))).await;
    assert_eq!(as_record.status, 404);
    assert_eq!(as_record.json()["error"], "not found; the call is live, use status=live");
    assert_eq!(
        node.plivo(MAIN, "GET", &format!("Call/{}/?status=live", uuid(3))).await.status,
        404,
        "it ended"
    );
    assert_eq!(
        node.plivo(MAIN, "GET", &format!("Call/{}/?status=queued", uuid(101))).await.status,
        404
    );

    let gone = node.plivo(MAIN, "DELETE", &format!("Call/{}/", uuid(102))).await;
    assert_eq!((gone.status, gone.body.as_str(), gone.head.contains("x-api-id")), (204, "", true));
    assert_eq!(node.plivo(MAIN, "DELETE", &format!("Call/{}/", uuid(3))).await.status, 404);
    assert_eq!(*node.calls.hung_up.lock().unwrap(), [uuid(102)]);
    assert_eq!(node.plivo(MAIN, "DELETE", "Call/").await.status, 204);
    assert_eq!(*node.calls.hung_up.lock().unwrap(), [uuid(102), uuid(101), uuid(102), uuid(104)]);
    node.cancel.cancel();
}

#[tokio::test]
async fn r16_another_tenants_call_does_not_exist() {
    let node = run().await;
    let never = uuid(999);
    let blank = |answer: Answer| {
        let mut body = if answer.body.is_empty() { Value::Null } else { answer.json() };
        for id in ["/api_id", "/error/requestId"] {
            body.pointer_mut(id).map(Value::take);
        }
        (answer.status, body)
    };
    for foreign in [uuid(46), uuid(103)] {
        for (method, path) in
            [("GET", "Call/{}/"), ("GET", "Call/{}/?status=live"), ("DELETE", "Call/{}/")]
        {
            let ask = async |call: CallUuid| {
                blank(node.plivo(MAIN, method, &path.replace("{}", &call.to_string())).await)
            };
            let theirs = ask(foreign).await;
            assert_eq!(theirs.0, 404);
            assert_eq!(theirs, ask(never).await, "{method} {path}");
        }
        let ask = async |call: CallUuid| {
            blank(node.ours(MAIN, "GET", &format!("calls/{call}/events"), "").await)
        };
        assert_eq!(ask(foreign).await, ask(never).await);
    }
    // A subaccount sees neither its main account's calls nor a sibling's; a main account sees its
    // subaccounts'.
    assert_eq!(node.plivo(SUB, "GET", &format!("Call/{}/", uuid(3))).await.status, 404);
    assert_eq!(node.plivo(SUB, "DELETE", &format!("Call/{}/", uuid(101))).await.status, 404);
    assert_eq!(node.plivo(MAIN, "GET", &format!("Call/{}/", uuid(1))).await.status, 200);
    assert!(node.calls.hung_up.lock().unwrap().is_empty());
    node.cancel.cancel();
}

#[tokio::test]
async fn r15_authenticates_requests() {
    let node = run().await;
    let basic = |who: &str, token: &str| {
        format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{who}:{token}")))
    };
    let path = format!("/v1/Account/{MAIN}/Call/");
    let refused = [
        String::new(),
        basic(MAIN, "wrong"),
        basic(MAIN, ""),
        basic(OTHER, "token"),
        basic(SUB, "token"),
        basic("MAZZZZZZZZZZZZZZZZZZ", "token"),
        "authorization: Bearer token\r\n".to_owned(),
    ];
    for head in refused {
        let answer = node.ask("GET", &path, &head, "").await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (401, Some("authentication failed")),
            "{head}"
        );
        assert!(answer.head.contains("www-authenticate: basic"), "{}", answer.head);
    }
    assert_eq!(node.ask("GET", &path, &basic(MAIN, "token"), "").await.status, 200);
    let twice = format!("x-api-key: key-{MAIN}\r\n").repeat(2);
    for head in ["", "x-api-key: nope\r\n", &twice] {
        let answer = node.ask("POST", "/api/v1/xml/check", head, "<Response/>").await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (401, Some("unauthorized"))
        );
    }

    // After 60 failures in a minute, further failures from that address get a 429.
    let mut statuses = Vec::new();
    for _ in 0..70 {
        statuses.push(node.ask("GET", &path, &basic(MAIN, "wrong"), "").await.status);
    }
    assert_eq!(statuses.first(), Some(&401));
    let last = node.ask("GET", &path, &basic(MAIN, "wrong"), "").await;
    assert_eq!(last.status, 429);
    assert!(last.head.contains("retry-after: "), "{}", last.head);
    assert_eq!(node.ask("GET", &path, &basic(MAIN, "token"), "").await.status, 200);
    let elsewhere = format!("{}x-forwarded-for: 203.0.113.7\r\n", basic(MAIN, "wrong"));
    assert_eq!(node.ask("GET", &path, &elsewhere, "").await.status, 401);
    node.cancel.cancel();
}

impl Running {
    async fn post(&self, who: &str, kind: &str, more: &str, body: &str) -> Answer {
        let basic = STANDARD.encode(format!("{who}:token"));
        let head = format!("authorization: Basic {basic}\r\ncontent-type: {kind}\r\n{more}");
        self.ask("POST", &format!("/v1/Account/{who}/Call/"), &head, body).await
    }
}

fn order() -> Value {
    json!({"from": "918035737458", "to": "+91 94123 41234", "answer_url": "https://app.example.com/answer"})
}

#[tokio::test]
async fn places_a_call_with_every_field() {
    let node = run().await;
    let mut body = order();
    let fields = json!({
        "answer_method": "GET", "ring_url": "https://app.example.com/ring", "ring_method": "get",
        "hangup_url": "https://app.example.com/hangup", "fallback_url": "https://app.example.com/fallback",
        "fallback_method": "GET", "call_type": "whatsapp", "caller_name": "Asha", "send_digits": "1w2#@200",
        "send_on_preanswer": false, "time_limit": "30", "hangup_on_ring": 0, "ring_timeout": 600,
        "sip_headers": "A=1,x-ph-b=2,PH-c=3,Plivo-d=4", "parent_call_uuid": uuid(9).to_string(),
        "machine_detection": false, "machine_detection_time": 5000,
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = node.post(MAIN, "application/json", "", &body.to_string()).await;
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (201, Some("call fired")),
        "{}",
        answer.body
    );
    assert_eq!(answer.json()["request_uuid"], uuid(1_001).to_string());
    let order = node.calls.orders.lock().unwrap()[0].clone();
    assert_eq!(order.to, [E164::parse("919412341234").unwrap()]);
    assert_eq!((order.answer.1, order.hangup.1), (model::Method::Get, model::Method::Post));
    assert_eq!(
        order.fallback.map(|(url, method)| (url.0.to_string(), method)).unwrap().1,
        model::Method::Get
    );
    assert_eq!(order.time_limit.as_secs(), 30);
    assert_eq!(order.headers, [("A".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let outbound = order.outbound;
    assert_eq!(outbound.ring.unwrap().1, model::Method::Get);
    assert_eq!((outbound.ring_timeout_ms, outbound.hangup_on_ring_ms), (600_000, Some(0)));
    assert_eq!(
        (outbound.send_digits.as_deref(), outbound.parent_call),
        (Some("1w2#@200"), Some(uuid(9)))
    );

    // A form with several callees is equivalent, and the calls are listed in their order.
    let form = "from=918035737458&to=919412341234%3C919412341235&answer_url=https%3A%2F%2Fapp.example.com%2F&ring_timeout=0";
    let answer = node.post(SUB, "application/x-www-form-urlencoded", "", form).await;
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (201, Some("calls fired")),
        "{}",
        answer.body
    );
    assert_eq!(
        answer.json()["request_uuid"],
        json!([uuid(2_001).to_string(), uuid(2_002).to_string()])
    );
    let order = node.calls.orders.lock().unwrap()[1].clone();
    assert_eq!(order.outbound.ring_timeout_ms, 120_000, "0 is the usual");
    assert_eq!(
        order.hangup.0.0.as_ref(),
        "https://app.example.com/",
        "the answer URL where there is none"
    );
    assert_eq!(order.time_limit.as_secs(), 14_400);
    node.cancel.cancel();
}

#[tokio::test]
async fn the_first_bad_field_is_named() {
    let node = run().await;
    let with = |name: &str, value: Value| {
        let mut body = order();
        body[name] = value;
        body.to_string()
    };
    let many =
        |n: u64| (0..n).map(|n| (919_400_000_000 + n).to_string()).collect::<Vec<_>>().join("<");
    for (status, body, expected) in [
        (400, "{}".to_owned(), "from parameter is missing"),
        (400, with("to", Value::Null), "to parameter is missing"),
        (400, with("answer_url", json!("")), "answer_url parameter is missing"),
        (400, with("from", json!("abc")), "from parameter is invalid"),
        (400, with("to", json!("sip:a@example.com")), "to parameter is invalid"),
        (400, with("to", json!("919412341234<+919412341234")), "twice"),
        (400, with("to", json!("918035737458")), "it is the calling number"),
        (400, with("to", json!(many(1_001))), "more than 1000"),
        (201, with("to", json!(many(1_000))), "calls fired"),
        (400, with("answer_url", json!("ftp://app.example.com/")), "answer_url is invalid"),
        (400, with("ring_url", json!("https://10.0.0.1/")), "ring_url is invalid"),
        (
            400,
            with("hangup_url", json!(format!("https://app.example.com/{}", "x".repeat(2_048)))),
            "2048 bytes",
        ),
        (400, with("answer_method", json!("PUT")), "answer_method must be GET or POST"),
        (400, with("call_type", json!("voice")), "call_type voice is not available"),
        (400, with("caller_name", json!("x".repeat(51))), "caller_name must be at most 50"),
        (201, with("caller_name", json!("x".repeat(50))), "call fired"),
        (400, with("send_digits", json!("12a")), "send_digits must be"),
        (400, with("time_limit", json!(0)), "time_limit must be an integer between 1 and 86400"),
        (
            400,
            with("time_limit", json!(86_401)),
            "time_limit must be an integer between 1 and 86400",
        ),
        (201, with("time_limit", json!(86_400)), "call fired"),
        (
            400,
            with("ring_timeout", json!(601)),
            "ring_timeout must be an integer between 1 and 600",
        ),
        (
            400,
            with("hangup_on_ring", json!(-1)),
            "hangup_on_ring must be an integer between 0 and 600",
        ),
        (201, with("hangup_on_ring", json!("600")), "call fired"),
        (
            400,
            with("machine_detection", json!("true")),
            "machine_detection is not available on WhatsApp",
        ),
        (
            400,
            with("machine_detection", json!("hangup")),
            "machine_detection is not available on WhatsApp",
        ),
        (400, with("parent_call_uuid", json!("x")), "parent_call_uuid must be a UUID"),
        (400, "[]".to_owned(), "object"),
        (400, r#"{"from":"1""#.to_owned(), "at line 1 column 11"),
        (400, r#"{"from":"1","from":"2"}"#.to_owned(), "from is given twice"),
        (
            422,
            with("from", json!("442071838750")),
            "is not a calling-enabled WhatsApp number of your account",
        ),
        (
            422,
            with("from", json!("919999999999")),
            "is not a calling-enabled WhatsApp number of your account",
        ),
    ] {
        let answer = node.post(MAIN, "application/json", "", &body).await;
        let shown: String = body.chars().take(120).collect();
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        assert!(answer.body.contains(expected), "{shown}: {}", answer.body);
    }
    let mut body = order();
    body["parent_call_uuid"] = json!(uuid(999).to_string());
    assert_eq!(
        node.post(MAIN, "application/json", "", &body.to_string()).await.status,
        201,
        "stored, no more"
    );
    body["error_if_parent_not_found"] = json!(true);
    assert_eq!(node.post(MAIN, "application/json", "", &body.to_string()).await.status, 404);
    body["parent_call_uuid"] = json!(uuid(3).to_string());
    assert_eq!(
        node.post(MAIN, "application/json", "", &body.to_string()).await.status,
        201,
        "an ended call"
    );
    let coded = node.post(MAIN, "application/json", "content-encoding: gzip\r\n", "{}").await;
    assert_eq!(coded.status, 415);
    node.cancel.cancel();
}

#[tokio::test]
async fn reports_why_a_call_is_not_placed() {
    use engine::admission::{Denied, Reason, RefusalDetail};
    let node = run().await;
    let denied = |reason| {
        let denied = Denied { reason, because: RefusalDetail::Reason, number: None };
        NotPlaced::Denied { to: E164::parse("919412341234").unwrap(), denied }
    };
    let full = NotPlaced::QueueFull { after: std::time::Duration::from_millis(2_300) };
    let from = "from parameter is invalid. 918035737458 is not a calling-enabled WhatsApp number";
    *node.calls.not_placed.lock().unwrap() = Some(denied(Reason::CallingDisabled));
    let answer = node.post(MAIN, "application/json", "", &order().to_string()).await;
    assert!(answer.body.contains(from), "{}", answer.body);
    for (why, status, retry) in [
        (denied(Reason::GeoBlocked), 403, false),
        (denied(Reason::CallingDisabled), 422, false),
        (denied(Reason::NoPermission), 422, false),
        (denied(Reason::UserBusy), 409, true),
        (denied(Reason::NumberFull), 429, true),
        (full, 429, true),
        (NotPlaced::Draining, 503, true),
    ] {
        let shown = format!("{why:?}");
        *node.calls.not_placed.lock().unwrap() = Some(why);
        let answer = node.post(MAIN, "application/json", "", &order().to_string()).await;
        assert_eq!(
            (answer.status, answer.head.contains("retry-after: ")),
            (status, retry),
            "{shown}: {}",
            answer.head
        );
        let answer = answer.json();
        let error = answer["error"].as_str().unwrap();
        assert!(error.split(' ').count() > 5, "a sentence, not only a code: {shown}: {error}");
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn a_repeated_order_with_its_key_places_no_second_call() {
    let node = run().await;
    let key = "idempotency-key: abc\r\n";
    let first = node.post(MAIN, "application/json", key, &order().to_string()).await;
    let again = node.post(MAIN, "application/json", key, &order().to_string()).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body, "the same answer, its id included");
    assert_eq!(node.calls.orders.lock().unwrap().len(), 1);
    let body = order().to_string();
    let (one, two) = tokio::join!(
        node.post(MAIN, "application/json", "idempotency-key: x\r\n", &body),
        node.post(MAIN, "application/json", "idempotency-key: x\r\n", &body),
    );
    assert_eq!(one.body, two.body, "at the same moment");
    node.post(SUB, "application/json", key, &order().to_string()).await;
    node.post(MAIN, "application/json", "", &order().to_string()).await;
    assert_eq!(node.calls.orders.lock().unwrap().len(), 4, "another account's key, and none");
    let long = format!("idempotency-key: {}\r\n", "k".repeat(65));
    assert_eq!(node.post(MAIN, "application/json", &long, &order().to_string()).await.status, 400);
    node.cancel.cancel();
}

#[test]
fn decodes_path_segments_literally() {
    // RFC 3986, section 3.3: form delimiters are ordinary characters in a path.
    let table = [
        ("name_R%26D", "name_R&D"),
        ("name_R&D", "name_R&D"),
        ("&&=&", "&&=&"),
        ("a+b%2Bc%20d", "a+b+c d"),
        ("%C3%9Cn%C3%AF;=%25", "Ünï;=%"),
    ];
    for (part, read) in table {
        assert_eq!(super::decoded(part), read, "{part}");
    }
}

#[tokio::test]
async fn answers_unknown_paths_and_methods() {
    let node = run().await;
    for path in ["Message/", "Call/x/Play/y/", "Powerpack/", "PhoneNumber/", "Pricing/"] {
        let answer = node.plivo(MAIN, "GET", path).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (404, Some("not available on this server")),
            "{path}"
        );
    }
    assert_eq!(node.plivo(MAIN, "GET", "Call/not-a-uuid/").await.status, 404);
    for method in ["PUT", "PATCH", "HEAD", "OPTIONS"] {
        let answer = node.plivo(MAIN, method, "Call/").await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, post, delete"), "{}", answer.head);
        assert!(!answer.head.contains("access-control"), "no CORS");
    }
    assert_eq!(node.ask("GET", "/v1/", "", "").await.status, 404);
    assert_eq!(
        node.ask("GET", "/v1/Pricing/", "", "").await.json()["error"],
        "not available on this server"
    );
    let nowhere = node.ask("GET", "/nowhere", "", "").await;
    assert_eq!(
        (nowhere.status, nowhere.json()["error"]["code"].as_str()),
        (404, Some("not_found"))
    );
    let error = nowhere.json()["error"].clone();
    let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 5, "code, message, field, requestId, meta: {keys:?}");
    assert_eq!(node.ours(MAIN, "GET", "xml/check", "").await.status, 405);
    assert_eq!(node.ours(MAIN, "GET", "numbers/", "").await.status, 404);
    node.cancel.cancel();
}

#[tokio::test]
async fn documents_are_linted() {
    let node = run().await;
    let clean = node.ours(MAIN, "POST", "xml/check", "<Response><Hangup/></Response>").await;
    assert_eq!((clean.status, &clean.json()["ok"]), (200, &json!(true)), "{}", clean.body);
    let wrong = node
        .ours(MAIN, "POST", "xml/check/", "<Response><Speek>hi</Speek></Response>")
        .await
        .json();
    assert_eq!(wrong["ok"], false);
    let finding = &wrong["findings"][0];
    for key in ["rule", "severity", "line", "column", "message", "hint"] {
        assert!(finding.get(key).is_some(), "{key}: {finding}");
    }
    let big = "x".repeat((256 << 10) + 1);
    assert_eq!(node.ours(MAIN, "POST", "xml/check", &big).await.status, 413);
    let zipped = format!("x-api-key: key-{MAIN}\r\ncontent-encoding: gzip\r\n");
    assert_eq!(node.ask("POST", "/api/v1/xml/check", &zipped, "x").await.status, 415);
    node.cancel.cancel();
}

#[tokio::test]
async fn event_logs_come_from_memory_or_the_store() {
    let node = run().await;
    let stored = node.ours(MAIN, "GET", &format!("calls/{}/events", uuid(3)), "").await;
    assert_eq!(stored.status, 200);
    assert!(stored.head.contains("application/x-ndjson"), "{}", stored.head);
    let lines: Vec<&str> = stored.body.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2_499]), (2_500, "{\"seq\":0}", "{\"seq\":2499}"));
    let live = node.ours(MAIN, "GET", &format!("calls/{}/events", uuid(101)), "").await;
    assert_eq!(live.body, "{\"n\":1}\n");
    let followed =
        node.ours(MAIN, "GET", &format!("calls/{}/events/?follow=1", uuid(101)), "").await;
    assert_eq!(followed.body, "{\"n\":1}\n{\"n\":2}\n");
    let none = node.ours(MAIN, "GET", &format!("calls/{}/events", uuid(5)), "").await;
    assert_eq!((none.status, none.body.as_str()), (200, ""), "a call with no lines");
    assert_eq!(node.ours(MAIN, "GET", "calls/x/events", "").await.status, 404);

    // The same for the quality samples.
    let live = node.ours(MAIN, "GET", &format!("calls/{}/quality/", uuid(101)), "").await;
    let live: Value = serde_json::from_str(&live.body).expect("JSON");
    let sample = &live["samples"][0];
    assert_eq!(
        (&live["intervalSeconds"], &sample["inbound"]["lossPercent"]),
        (&json!(5), &json!(2.0)),
        "{live}"
    );
    assert_eq!(
        (&sample["outbound"], &sample["roundTripMs"]),
        (&Value::Null, &Value::Null),
        "{live}"
    );
    assert!(sample["until"].as_str() > sample["from"].as_str(), "{live}");
    let none = node.ours(MAIN, "GET", &format!("calls/{}/quality", uuid(3)), "").await;
    let none: Value = serde_json::from_str(&none.body).expect("JSON");
    assert_eq!(
        none,
        json!({"callUuid": uuid(3), "intervalSeconds": 0, "samples": []}),
        "nothing was measured"
    );
    for missing in ["x".to_owned(), uuid(9_999).to_string()] {
        assert_eq!(
            node.ours(MAIN, "GET", &format!("calls/{missing}/quality/"), "").await.status,
            404
        );
    }
    node.store.close().await;
    let closed = node.ours(MAIN, "GET", &format!("calls/{}/events", uuid(3)), "").await;
    assert_eq!(closed.status, 503);
    assert!(
        !closed.body.to_lowercase().contains("sql") && !closed.body.contains("pool"),
        "{}",
        closed.body
    );
    node.cancel.cancel();
}

/// Prompts and speech models in a folder, without a configuration.
fn speech(folder: &std::path::Path) -> (Library, ModelManager) {
    let config = SpeechConfig { data_dir: folder.to_owned(), ..SpeechConfig::default() };
    let files = Arc::new(egress::testing::egress(egress::testing::open_guard(), Vec::new()));
    let runtime = tokio::runtime::Handle::current();
    let library = Library::new(config.clone(), Clock::real(), runtime, files).unwrap();
    let recognisers = Recognisers::new(&config).unwrap();
    (library.clone(), ModelManager::new(config, library, recognisers, None))
}

#[tokio::test]
async fn only_the_operator_may_manage_models_and_hear_samples() {
    let node = run().await;
    let listed = node.ours(MAIN, "GET", "models/", "").await;
    let all = listed.json();
    assert_eq!((listed.status, &all["canDownload"]), (200, &json!(false)), "{all}");
    let hibari = &all["items"][0];
    assert_eq!(
        (&hibari["name"], &hibari["kind"], &hibari["installed"]),
        (&json!("hibari"), &json!("english_voice"), &json!(false))
    );
    let cases = [
        ("GET", "models/", ""),
        ("POST", "models/", "x"),
        ("GET", "models/hibari/", ""),
        ("POST", "models/hibari/install/", r#"{"licence": "Apache-2.0"}"#),
        ("POST", "models/hibari/discard/", ""),
        ("DELETE", "models/hibari/", ""),
        ("POST", "voices/sample/", r#"{"text": "Hello", "voice": "WOMAN"}"#),
    ];
    let refused = async |who: &str| {
        for (method, path, body) in cases {
            assert_eq!(node.ours(who, method, path, body).await.status, 403, "{who} {path}");
        }
    };
    refused(SUB).await;
    refused(&format!("admin-{MAIN}")).await;
    for (path, body, status, code) in [
        ("models/hibari/install/", r#"{"licence": "MIT"}"#, 400, "bad_value"),
        ("models/hibari/install/", r#"{"licence": "Apache-2.0"}"#, 409, "no_source"),
        (
            "models/hibari/install/",
            r#"{"licence": "Apache-2.0", "sha256": "0"}"#,
            409,
            "not_uploaded",
        ),
        ("models/other/install/", r#"{"licence": "MIT"}"#, 404, "not_found"),
        ("models/hibari/discard/", "", 404, "not_found"),
        ("voices/sample/", r#"{"text": " ", "voice": "WOMAN"}"#, 400, "bad_value"),
        ("voices/sample/", r#"{"text": "a", "voice": "Polly./"}"#, 400, "bad_value"),
    ] {
        let answer = node.ours(MAIN, "POST", path, body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{path} {body}"
        );
    }
    assert_eq!(node.ours(MAIN, "DELETE", "models/hibari/", "").await.status, 404);
    node.calls.is_shared.store(true, Ordering::Relaxed);
    refused(MAIN).await;
    node.cancel.cancel();
}

#[tokio::test]
async fn lists_voices_with_their_engines() {
    let node = run().await;
    let answer = node.ours(MAIN, "GET", "voices/?language=de", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let all = answer.json();
    let hans = all["voices"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["voice"] == "Polly.Hans")
        .expect("Polly.Hans");
    let expected = json!({
        "voice": "Polly.Hans", "language": "de-DE", "gender": "male", "engine": "builtin", "engineVoice": "de-DE", "exact": true,
    });
    assert_eq!(*hans, expected);
    assert!(
        all["languages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|l| l["language"].as_str().unwrap().starts_with("de"))
    );
    assert_eq!(node.ours("nobody", "GET", "voices/", "").await.status, 401);
    node.cancel.cancel();
}
