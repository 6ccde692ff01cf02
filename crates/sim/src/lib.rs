//! A simulated Meta with simulated phones, for development, tests and load.
//!
//! It meets a node over HTTP and UDP only, as the real Meta does, and shares no decision with the
//! engine. Its behaviour follows Meta's public documentation and is summarised in
//! `docs/reference/meta.md#the-simulated-meta`.
//!
//! - `meta`: the Graph API, signed webhooks and the life of each call
//! - `media`: ICE-lite, DTLS-SRTP and Opus
//! - [`caller`]: scripted phones
//! - `phone`: the phone in the browser
//! - [`load`]: many calls at a steady rate
//! - [`control`]: endpoints under `/_sim/` for other processes
//! - [`faults`]: failures injected by rules
//! - [`demo`]: an application with an answer URL, to copy from

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::string_slice,
    reason = "a simulator for development and tests, not part of a node"
)]
#![forbid(unsafe_code)]

mod call_message;
mod call_request;
pub mod caller;
pub mod client;
pub mod control;
pub mod demo;
mod event_log;
pub mod faults;
pub mod free_ports;
mod keys;
mod listener;
pub mod load;
pub mod log;
mod media;
mod meta;
mod phone;
mod rng;
pub mod sound;
pub mod world;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use caller::{
    ArrivalReport, Arrivals, CallControl, CallEvent, CallEventKind, CallEvents, CallOutcome,
    CallScript, CalleeAction, CalleeBehaviour, EventOrder, HangupRule, HangupSource, KeyStep,
    KeysStart, PhoneKind,
};
pub use faults::{Faults, FaultsError};
pub use meta::permissions::PermissionPolicy;
pub use meta::webhook::WebhookTimes;
pub use world::SimNumber;

use self::call_message::CallMsg;
use self::faults::{CallFaults, FaultInjector};
use self::listener::{ResetHandle, ResettableListener};
use self::log::{LogLine, SimLog};
use self::media::peer::Identity;
use self::media::{LegId, Relay};
use self::meta::body::CallInfo;
use self::meta::call::outgoing::{self, Connect};
use self::meta::call::{self, CallChannels};
use self::meta::numbers::Accounts;
use self::meta::permissions::Permissions;
use self::meta::settings::Settings;
use self::meta::webhook::{WebhookTarget, Webhooks};
use self::rng::SimRng;
use self::world::Numbers;
use model::Clock;

/// Default number of relays over which the calls of a load are spread. Each relay has an address of
/// its own, as Meta's have. With more relays a node needs fewer ports and its batches are fuller.
pub const LOAD_RELAYS: u16 = 32;
/// Maximum number of loads at the same time.
const LOADS_MAX: usize = 16;

/// Options of a simulator. The default is the development world on loopback, on ports chosen by the
/// system.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Address of Graph, the browser phone and the `/_sim/` endpoints.
    pub listen: SocketAddr,
    /// Address of the shared media relay. With port 0, the system chooses the port.
    pub media: SocketAddr,
    /// Gives each call a separate relay port instead of one port for all.
    pub port_per_call: bool,
    /// Number of shared relays, used by calls in turn. More than one run on threads of their own,
    /// for loads that saturate a single relay.
    pub relays: u16,
    pub app_secret: String,
    pub verify_token: String,
    pub access_token: String,
    /// Id of the Meta app that the node belongs to.
    pub app_id: String,
    /// `X-API-Key` with which a node's event log is read.
    pub api_key: String,
    /// Base URL of the node that receives calls. [`Sim::set_node_url`] sets it later.
    pub node_url: Option<String>,
    /// Whether requests to a node share connections. If not, each has one of its own.
    pub keeps_connections: bool,
    pub numbers: Vec<SimNumber>,
    pub times: SimTimes,
    /// Seed of all ids, credentials and delays. The same seed gives the same run.
    pub seed: Option<u64>,
    /// Script of users from whom the test expects no call when the business calls them.
    pub callee: CallScript,
    /// Permission to call that users have given before they are asked.
    pub permission_policy: PermissionPolicy,
    /// Faults to inject.
    pub faults: Faults,
    pub clock: Clock,
}

/// Timeouts of the simulated Meta.
#[derive(Clone, Copy, Debug)]
pub struct SimTimes {
    /// How long Meta waits for `accept` after the connect webhook.
    pub accept_window: Duration,
    /// How long a user's phone rings before Meta ends a business-initiated call.
    pub unanswered: Duration,
    pub webhook: WebhookTimes,
}

impl Default for SimTimes {
    fn default() -> Self {
        Self {
            accept_window: Duration::from_secs(45),
            unanswered: Duration::from_secs(30),
            webhook: WebhookTimes::default(),
        }
    }
}

impl Default for SimOptions {
    fn default() -> Self {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            listen: loopback,
            media: loopback,
            port_per_call: false,
            relays: 1,
            app_secret: world::APP_SECRET.into(),
            verify_token: world::VERIFY_TOKEN.into(),
            access_token: world::ACCESS_TOKEN.into(),
            app_id: world::APP_ID.into(),
            api_key: world::API_KEY.into(),
            node_url: None,
            keeps_connections: true,
            numbers: vec![SimNumber::default()],
            times: SimTimes::default(),
            seed: None,
            callee: CallScript::default(),
            permission_policy: PermissionPolicy::default(),
            faults: Faults::default(),
            clock: Clock::real(),
        }
    }
}

/// Why the simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("could not listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("could not set up media: {0}")]
    Media(String),
    #[error("could not create an HTTP client: {0}")]
    Client(std::io::Error),
}

/// A running simulator. It stops when this handle is dropped or [`Sim::stop`] is called.
#[derive(Debug)]
pub struct Sim {
    world: Arc<World>,
    url: String,
}

/// A live call, as Graph requests find it.
#[derive(Clone)]
struct KnownCall {
    mailbox: mpsc::Sender<CallMsg>,
    faults: Arc<CallFaults>,
    user: String,
}

/// A call that a test or tool expects the business to place.
struct ExpectedCall {
    script: CallScript,
    channels: CallChannels,
}

/// State shared by all parts of the simulator.
pub(crate) struct World {
    clock: Clock,
    rng: Arc<SimRng>,
    log: Arc<SimLog>,
    http: client::Client,
    webhooks: Arc<Webhooks>,
    relay: Relay,
    /// Relays beside the first one, and the index of the next to use.
    load_relays: Vec<Relay>,
    next_relay: AtomicUsize,
    /// Media address of signalling-only phones. It is bound, so that no ICMP error comes back, and
    /// never read.
    blackhole: std::net::UdpSocket,
    media_ip: IpAddr,
    port_per_call: bool,
    app_secret: String,
    verify_token: Mutex<String>,
    access_token: String,
    app_id: String,
    accounts: Accounts,
    api_key: String,
    times: SimTimes,
    node_url: Mutex<Option<String>>,
    numbers: Mutex<Numbers>,
    /// Live calls by phone number id and call id. Two numbers may have calls with the same id.
    calls: Mutex<HashMap<(String, String), KnownCall>>,
    faults: FaultInjector,
    settings: Settings,
    permissions: Permissions,
    chat: meta::chat::Chat,
    phones: phone::BrowserCalls,
    /// Expected business-initiated calls by user, oldest first. Each is used once.
    expected_calls: Mutex<HashMap<String, std::collections::VecDeque<ExpectedCall>>>,
    /// Script of users without an expected call.
    default_callee: CallScript,
    /// Running loads by the id that their client chose, with the token that stops each.
    loads: Mutex<HashMap<String, CancellationToken>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Sim {
    /// Starts Graph, the relays and the browser phone.
    ///
    /// # Errors
    ///
    /// Fails if an address cannot be bound or the certificate cannot be created.
    pub async fn start(options: SimOptions) -> Result<Self, SimError> {
        let listen_fault = |source| SimError::Listen { addr: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_fault)?;
        let addr = listener.local_addr().map_err(listen_fault)?;
        let stop = CancellationToken::new();
        let (clock, rng) = (options.clock.clone(), Arc::new(SimRng::new(options.seed)));
        let known = options.faults.users().chain([world::USER.to_owned()]);
        let permissions = Permissions::new(options.permission_policy, known);
        let faults = FaultInjector::new(options.faults, rng.next_u64());
        let log = Arc::new(SimLog::new(clock.clone()));
        let identity = Identity::new().map_err(|e| SimError::Media(e.to_string()))?;
        let (ip, port) = (options.media.ip(), options.media.port());
        let media_fault = |source| SimError::Listen { addr: options.media, source };
        let relay_on = |runtime: &Handle, port| {
            Relay::start(
                runtime,
                (ip, port),
                identity.clone(),
                clock.clone(),
                log.clone(),
                stop.clone(),
            )
            .map_err(media_fault)
        };
        let relay = relay_on(&Handle::current(), port)?;
        let further = Some(options.relays).filter(|relays| *relays > 1).unwrap_or_default();
        let threads = media::threads(further, &stop).map_err(media_fault)?;
        let load_relays = threads
            .iter()
            .cycle()
            .take(further.into())
            .map(|runtime| relay_on(runtime, 0))
            .collect::<Result<Vec<_>, _>>()?;
        let blackhole = std::net::UdpSocket::bind((ip, 0)).map_err(media_fault)?;
        let http = client::client_with(options.keeps_connections).map_err(SimError::Client)?;
        let webhooks = Webhooks::new(
            http.clone(),
            log.clone(),
            rng.clone(),
            options.times.webhook,
            stop.clone(),
        );
        let world = Arc::new(World {
            clock,
            rng,
            log,
            http,
            webhooks: Arc::new(webhooks),
            relay,
            load_relays,
            next_relay: AtomicUsize::new(0),
            blackhole,
            media_ip: ip,
            port_per_call: options.port_per_call,
            app_secret: options.app_secret,
            verify_token: Mutex::new(options.verify_token),
            access_token: options.access_token,
            app_id: options.app_id,
            accounts: Accounts::default(),
            api_key: options.api_key,
            times: options.times,
            node_url: Mutex::new(options.node_url.map(without_trailing_slash)),
            numbers: Mutex::new(Numbers::new(options.numbers)),
            calls: Mutex::default(),
            faults,
            settings: Settings::default(),
            permissions,
            chat: meta::chat::Chat::default(),
            phones: phone::BrowserCalls::default(),
            expected_calls: Mutex::default(),
            default_callee: options.callee,
            loads: Mutex::default(),
            stop: stop.clone(),
        });
        let app = meta::routes::router()
            .merge(control::router())
            .merge(phone::router())
            .merge(meta::sign_up::router())
            .fallback(meta::graph::unknown)
            .with_state(world.clone());
        tokio::spawn(async move {
            let served = axum::serve(
                ResettableListener(listener),
                app.into_make_service_with_connect_info::<ResetHandle>(),
            )
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
            if let Err(error) = served {
                tracing::warn!(%error, "simulated meta listener failed");
            }
        });
        Ok(Self { world, url: format!("http://{addr}") })
    }

    /// Base URL of all HTTP endpoints.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Value for `[meta].graph_url` of a node that uses this simulator.
    pub fn graph_url(&self) -> String {
        format!("{}{}", self.url, meta::graph::BASE)
    }

    /// URL of the browser phone.
    pub fn phone_url(&self) -> String {
        format!("{}/_sim/phone", self.url)
    }

    /// Address of the first media relay.
    pub fn media_addr(&self) -> SocketAddr {
        self.world.relay.addr()
    }

    /// Sets the node that later calls go to.
    pub fn set_node_url(&self, node_url: impl Into<String>) {
        *locked(&self.world.node_url) = Some(without_trailing_slash(node_url.into()));
    }

    /// Places a user-initiated call. The last event is [`CallEventKind::Ended`]; dropping the
    /// events hangs up.
    pub fn place_call(&self, script: CallScript) -> CallEvents {
        self.world.place(script, None)
    }

    /// Sets the script of the next call that the business places to the script's user. The last
    /// event is [`CallEventKind::Ended`]; dropping the events hangs up.
    pub fn expect_call(&self, script: CallScript) -> CallEvents {
        self.world.expect_call(script)
    }

    /// The log, oldest line first. It is bounded and drops its oldest lines.
    pub fn log(&self) -> Vec<LogLine> {
        self.world.log.since(0)
    }

    /// Stops the simulator with all its calls, deliveries and listeners.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.stop.cancel();
    }
}

impl World {
    /// Places a call. With `browser`, that leg's audio replaces the script's.
    pub(crate) fn place(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
    ) -> CallEvents {
        let (mailbox_tx, mailbox) = mpsc::channel(call::MAILBOX);
        self.place_with_channels(script, browser, mailbox_tx, mailbox)
    }

    /// Places a call for a `storm` fault. It does not trigger another storm.
    pub(crate) fn place_storm_call(self: &Arc<Self>, script: CallScript) -> CallEvents {
        let (mailbox_tx, mailbox) = mpsc::channel(call::MAILBOX);
        self.spawn_call(script, None, mailbox_tx, mailbox, true)
    }

    /// Places a call with a mailbox that the caller already holds.
    pub(crate) fn place_with_channels(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
        mailbox_tx: mpsc::Sender<CallMsg>,
        mailbox: mpsc::Receiver<CallMsg>,
    ) -> CallEvents {
        self.spawn_call(script, browser, mailbox_tx, mailbox, false)
    }

    fn spawn_call(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
        mailbox_tx: mpsc::Sender<CallMsg>,
        mailbox: mpsc::Receiver<CallMsg>,
        from_storm: bool,
    ) -> CallEvents {
        let (events, reader) = mpsc::channel(caller::EVENTS_MAX);
        let control = CallControl(mailbox_tx.clone());
        tokio::spawn(call::run(
            self.clone(),
            script,
            browser,
            CallChannels { mailbox_tx, mailbox, events, from_storm },
        ));
        CallEvents { control, events: reader }
    }

    fn expect_call(&self, script: CallScript) -> CallEvents {
        let (mailbox_tx, mailbox) = mpsc::channel(call::MAILBOX);
        let (events, reader) = mpsc::channel(caller::EVENTS_MAX);
        let control = CallControl(mailbox_tx.clone());
        let channels = CallChannels { mailbox_tx, mailbox, events, from_storm: false };
        locked(&self.expected_calls)
            .entry(script.from.clone())
            .or_default()
            .push_back(ExpectedCall { script, channels });
        CallEvents { control, events: reader }
    }

    /// Runs a call that the business has placed to a user.
    fn call_user(
        self: &Arc<Self>,
        number: SimNumber,
        user: &str,
        connect: Connect,
        faults: Arc<CallFaults>,
    ) {
        let expected = locked(&self.expected_calls)
            .get_mut(user)
            .and_then(std::collections::VecDeque::pop_front);
        let ExpectedCall { script, channels } = expected.unwrap_or_else(|| {
            let (mailbox_tx, mailbox) = mpsc::channel(call::MAILBOX);
            let (events, _reader) = mpsc::channel(1);
            ExpectedCall {
                script: self.default_callee.clone(),
                channels: CallChannels { mailbox_tx, mailbox, events, from_storm: false },
            }
        });
        let script = CallScript { from: user.to_owned(), to: number, ..script };
        tokio::spawn(outgoing::run(self.clone(), script, connect, faults, channels));
    }

    fn webhook_target(&self, script: &CallScript) -> Option<WebhookTarget> {
        let node_url = script
            .node_url
            .clone()
            .map(without_trailing_slash)
            .or_else(|| locked(&self.node_url).clone())?;
        Some(WebhookTarget {
            node_url,
            app_secret: script.app_secret.clone().unwrap_or_else(|| self.app_secret.clone()),
            verify_token: script
                .verify_token
                .clone()
                .unwrap_or_else(|| locked(&self.verify_token).clone()),
        })
    }

    /// Webhook target for scripts that name no node, with the simulator's own secrets.
    fn default_target(&self) -> Option<WebhookTarget> {
        self.webhook_target(&CallScript::default())
    }

    /// Returns the next shared relay, or a new one if each call has its own port. A call with a
    /// browser leg always uses the first relay, because that leg lives there.
    fn relay_for_call(&self, with_browser: bool) -> std::io::Result<Relay> {
        if !self.port_per_call || with_browser {
            let next_relay =
                self.next_relay.fetch_add(1, Ordering::Relaxed).checked_rem(self.load_relays.len());
            let relay =
                next_relay.filter(|_| !with_browser).and_then(|next| self.load_relays.get(next));
            return Ok(relay.unwrap_or(&self.relay).clone());
        }
        let identity = self.relay.identity.clone();
        let (clock, log) = (self.clock.clone(), self.log.clone());
        Relay::start(
            &Handle::current(),
            (self.media_ip, 0),
            identity,
            clock,
            log,
            self.stop.clone(),
        )
    }

    /// An address that never answers.
    fn blackhole_addr(&self) -> SocketAddr {
        self.blackhole.local_addr().unwrap_or_else(|_| self.relay.addr())
    }

    fn has_number(&self, phone_number_id: &str) -> bool {
        locked(&self.numbers).by_id(phone_number_id).is_some()
    }

    fn number(&self, number: &str) -> Option<SimNumber> {
        locked(&self.numbers).by_number(number).cloned()
    }

    fn number_by_id(&self, phone_number_id: &str) -> Option<SimNumber> {
        locked(&self.numbers).by_id(phone_number_id).cloned()
    }

    fn number_ids(&self) -> Vec<String> {
        locked(&self.numbers).ids()
    }

    fn numbers_of_waba(&self, waba: &str) -> Vec<SimNumber> {
        locked(&self.numbers).all().filter(|number| number.waba == waba).cloned().collect()
    }

    /// Ids of all WABAs that have a number.
    fn wabas(&self) -> std::collections::BTreeSet<String> {
        locked(&self.numbers).all().map(|number| number.waba.clone()).collect()
    }

    fn add_number(&self, number: &SimNumber) {
        locked(&self.numbers).insert(number.clone());
    }

    /// Registers a load. Returns `None` if the id is taken or too many loads are running.
    fn register_load(&self, id: &str) -> Option<CancellationToken> {
        let mut loads = locked(&self.loads);
        if loads.len() >= LOADS_MAX || loads.contains_key(id) {
            return None;
        }
        let stop = self.stop.child_token();
        loads.insert(id.to_owned(), stop.clone());
        Some(stop)
    }

    fn unregister_load(&self, id: &str) {
        locked(&self.loads).remove(id);
    }

    fn stop_load(&self, id: &str) -> bool {
        let stop = locked(&self.loads).get(id).cloned();
        stop.inspect(CancellationToken::cancel).is_some()
    }

    fn add_call(&self, info: &CallInfo, call: mpsc::Sender<CallMsg>, faults: Arc<CallFaults>) {
        let user = info.user.clone();
        locked(&self.calls).insert(call_key(info), KnownCall { mailbox: call, faults, user });
    }

    fn remove_call(&self, info: &CallInfo) {
        locked(&self.calls).remove(&call_key(info));
    }

    fn call(&self, phone_number_id: &str, call_id: &str) -> Option<mpsc::Sender<CallMsg>> {
        self.known_call(phone_number_id, call_id).map(|call| call.mailbox)
    }

    fn faults_of(&self, phone_number_id: &str, call_id: &str) -> Option<Arc<CallFaults>> {
        self.known_call(phone_number_id, call_id).map(|call| call.faults)
    }

    /// Whether the number and the user have a live call.
    fn has_call_with(&self, phone_number_id: &str, user: &str) -> bool {
        locked(&self.calls)
            .iter()
            .any(|((number, _), call)| number == phone_number_id && call.user == user)
    }

    fn call_count(&self, phone_number_id: &str) -> usize {
        locked(&self.calls).keys().filter(|(number, _)| number == phone_number_id).count()
    }

    fn known_call(&self, phone_number_id: &str, call_id: &str) -> Option<KnownCall> {
        locked(&self.calls).get(&(phone_number_id.to_owned(), call_id.to_owned())).cloned()
    }
}

fn call_key(info: &CallInfo) -> (String, String) {
    (info.number.phone_number_id.clone(), info.call_id.clone())
}

fn without_trailing_slash(url: String) -> String {
    url.trim_end_matches('/').to_owned()
}

/// Locks a mutex and ignores poisoning: no critical section here leaves its data half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
