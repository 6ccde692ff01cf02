//! A simulated Meta and phone; meets a node over HTTP and UDP only, as the world does.
//!
//! `meta` is Graph, webhooks and each call's life; `media` terminates ICE-lite, DTLS-SRTP and Opus; `caller` is the
//! scripted phone, `phone` the one in the browser, `load` many at a steady rate; `control` lets other processes place
//! calls; `demo` is an Answer-URL application to copy; `faults` makes all of it fail by rules. The stand-in is built from
//! `meta-calling.md` and shares no decision with the engine.

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::string_slice,
    reason = "a simulator for development and tests, not part of a node"
)]
#![forbid(unsafe_code)]

pub mod caller;
pub mod client;
pub mod control;
pub mod demo;
mod dice;
pub mod faults;
mod follow;
pub mod load;
pub mod log;
mod media;
mod meta;
mod phone;
pub mod sound;
mod wire;
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
    Answering, Answers, CallControl, CallEvent, CallEvents, CallScript, Ended, HangupRule,
    Happened, HungUpBy, KeyStep, KeysStart, Order, PhoneKind,
};
pub use faults::{Faults, FaultsError};
pub use meta::permissions::Allow;
pub use meta::webhook::WebhookTimes;
pub use world::SimNumber;

use self::dice::Dice;
use self::faults::{Board, CallFaults};
use self::log::{LogLine, SimLog};
use self::media::peer::Identity;
use self::media::{LegId, Relay};
use self::meta::body::CallFacts;
use self::meta::life::outgoing::{self, Connect};
use self::meta::life::{self, CallMsg, Wiring};
use self::meta::numbers::Accounts;
use self::meta::permissions::Permissions;
use self::meta::settings::Settings;
use self::meta::webhook::{Door, Webhooks};
use self::wire::{Cut, Wires};
use self::world::Numbers;
use model::Clock;

/// Relays that a load's calls take by turns where nobody says how many: each is an address of its own, as Meta's are. The
/// more there are the fewer ports a node needs, and the fuller its batches are.
pub const LOAD_RELAYS: u16 = 32;
/// Loads under way at once.
const LOADS_MAX: usize = 16;

/// What a simulator is started with. The default is the development world on loopback, ports chosen by the system.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where Graph, the phone page and `/_sim/` listen.
    pub listen: SocketAddr,
    /// Where media goes: address and port (0: any) of the shared relay.
    pub media: SocketAddr,
    /// A relay port for each call, instead of one for all (H13).
    pub port_per_call: bool,
    /// Shared relays, which calls take by turns: one, or so many on threads of their own, which a load can fill.
    pub relays: u16,
    pub app_secret: String,
    pub verify_token: String,
    pub access_token: String,
    /// Our app's id at Meta.
    pub app_id: String,
    /// `X-API-Key` for the node's event log.
    pub api_key: String,
    /// Base URL of the node that calls go to; can be given later with [`Sim::set_node_url`].
    pub node_url: Option<String>,
    pub numbers: Vec<SimNumber>,
    pub times: SimTimes,
    /// Makes ids, credentials and delays the same in every run.
    pub seed: Option<u64>,
    /// What users do when the business calls them.
    pub callee: CallScript,
    /// What users have allowed the business before it asks.
    pub users_allow: Allow,
    /// What goes wrong on purpose.
    pub faults: Faults,
    pub clock: Clock,
}

/// Times of the stand-in.
#[derive(Clone, Copy, Debug)]
pub struct SimTimes {
    /// T_window: from the connect webhook to `accept` (M10).
    pub accept_window: Duration,
    /// How long a user's phone rings when the business calls (M16).
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
            numbers: vec![SimNumber::default()],
            times: SimTimes::default(),
            seed: None,
            callee: CallScript::default(),
            users_allow: Allow::default(),
            faults: Faults::default(),
            clock: Clock::real(),
        }
    }
}

/// The simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("make the media side: {0}")]
    Media(String),
}

/// A running simulator. [`Sim::stop`] ends it, and so does dropping it.
#[derive(Debug)]
pub struct Sim {
    world: Arc<World>,
    url: String,
}

/// A call as Graph finds it.
#[derive(Clone)]
struct KnownCall {
    mailbox: mpsc::Sender<CallMsg>,
    /// What goes wrong in it.
    faults: Arc<CallFaults>,
    user: String,
}

/// A user who waits for a call of the business.
struct Awaiting {
    script: CallScript,
    wiring: Wiring,
}

/// What all parts of the simulator share.
pub(crate) struct World {
    clock: Clock,
    dice: Arc<Dice>,
    log: Arc<SimLog>,
    http: client::Client,
    webhooks: Arc<Webhooks>,
    relay: Relay,
    /// Shared relays beside the first, and whose turn it is.
    further: Vec<Relay>,
    turn: AtomicUsize,
    /// Where deaf phones let media go: bound so that no ICMP error comes back, and never read.
    nobody: std::net::UdpSocket,
    media_ip: IpAddr,
    port_per_call: bool,
    app_secret: String,
    verify_token: String,
    access_token: String,
    app_id: String,
    accounts: Accounts,
    api_key: String,
    times: SimTimes,
    node_url: Mutex<Option<String>>,
    numbers: Mutex<Numbers>,
    /// By phone number id and call id: ids of different numbers may be the same (H12).
    calls: Mutex<HashMap<(String, String), KnownCall>>,
    faults: Board,
    settings: Settings,
    permissions: Permissions,
    chat: meta::chat::Chat,
    phones: phone::Phones,
    /// Users who know what they will do when the business calls, by their numbers; for one call each.
    awaiting: Mutex<HashMap<String, std::collections::VecDeque<Awaiting>>>,
    /// What users do of whom nothing else is known.
    callee: CallScript,
    /// Loads under way, by the name their owner gave them, and what stops them.
    loads: Mutex<HashMap<String, CancellationToken>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Sim {
    /// Starts Graph, the relay and the phone page.
    ///
    /// # Errors
    /// An address can't be had.
    pub async fn start(options: SimOptions) -> Result<Self, SimError> {
        let listen_fault = |source| SimError::Listen { addr: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_fault)?;
        let addr = listener.local_addr().map_err(listen_fault)?;
        let stop = CancellationToken::new();
        let (clock, dice) = (options.clock.clone(), Arc::new(Dice::new(options.seed)));
        let known = options.faults.users().chain([world::USER.to_owned()]);
        let permissions = Permissions::new(options.users_allow, known);
        let faults = Board::new(options.faults, dice.number());
        let log = Arc::new(SimLog::new(clock.clone()));
        let identity = Identity::new().map_err(|e| SimError::Media(e.to_string()))?;
        let (ip, port) = (options.media.ip(), options.media.port());
        let media_fault = |source| SimError::Listen { addr: options.media, source };
        let relay_on = |there: &Handle, port| {
            Relay::start(
                there,
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
        let further = threads
            .iter()
            .cycle()
            .take(further.into())
            .map(|there| relay_on(there, 0))
            .collect::<Result<Vec<_>, _>>()?;
        let nobody = std::net::UdpSocket::bind((ip, 0)).map_err(media_fault)?;
        let http = client::client();
        let webhooks = Webhooks::new(
            http.clone(),
            log.clone(),
            dice.clone(),
            options.times.webhook,
            stop.clone(),
        );
        let world = Arc::new(World {
            clock,
            dice,
            log,
            http,
            webhooks: Arc::new(webhooks),
            relay,
            further,
            turn: AtomicUsize::new(0),
            nobody,
            media_ip: ip,
            port_per_call: options.port_per_call,
            app_secret: options.app_secret,
            verify_token: options.verify_token,
            access_token: options.access_token,
            app_id: options.app_id,
            accounts: Accounts::default(),
            api_key: options.api_key,
            times: options.times,
            node_url: Mutex::new(options.node_url.map(trimmed)),
            numbers: Mutex::new(Numbers::of(options.numbers)),
            calls: Mutex::default(),
            faults,
            settings: Settings::default(),
            permissions,
            chat: meta::chat::Chat::default(),
            phones: phone::Phones::default(),
            awaiting: Mutex::default(),
            callee: options.callee,
            loads: Mutex::default(),
            stop: stop.clone(),
        });
        let app = meta::graph::router()
            .merge(control::router())
            .merge(phone::router())
            .merge(meta::sign_up::router())
            .fallback(meta::graph::unknown)
            .with_state(world.clone());
        tokio::spawn(async move {
            let served =
                axum::serve(Wires(listener), app.into_make_service_with_connect_info::<Cut>())
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await;
            if let Err(error) = served {
                tracing::warn!(%error, "the simulated Meta stopped listening");
            }
        });
        Ok(Self { world, url: format!("http://{addr}") })
    }

    /// Base URL of everything here.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What `[meta].graph_url` of a node must be.
    pub fn graph_url(&self) -> String {
        format!("{}{}", self.url, meta::graph::BASE)
    }

    /// The browser phone.
    pub fn phone_url(&self) -> String {
        format!("{}/_sim/phone", self.url)
    }

    /// Where Meta's side of the media is.
    pub fn media_addr(&self) -> SocketAddr {
        self.world.relay.addr()
    }

    /// The node that calls go to from now on.
    pub fn set_node_url(&self, node_url: impl Into<String>) {
        *locked(&self.world.node_url) = Some(trimmed(node_url.into()));
    }

    /// Places a call. Its events end with [`Happened::Ended`]; dropping them hangs up.
    pub fn place_call(&self, script: CallScript) -> CallEvents {
        self.world.place(script, None)
    }

    /// What the user of this script does when the business calls next. The call's events end with
    /// [`Happened::Ended`]; dropping them hangs up.
    pub fn expect_call(&self, script: CallScript) -> CallEvents {
        self.world.expect_call(script)
    }

    /// What happened at Meta, oldest first; bounded.
    pub fn log(&self) -> Vec<LogLine> {
        self.world.log.since(0)
    }

    /// Ends everything: calls, webhooks, listeners.
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
    /// Places a call; `browser` speaks and hears in the script's place.
    pub(crate) fn place(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
    ) -> CallEvents {
        let (own, mailbox) = mpsc::channel(life::MAILBOX);
        self.place_wired(script, browser, own, mailbox)
    }

    /// Places a call that came with a storm.
    pub(crate) fn place_of_storm(self: &Arc<Self>, script: CallScript) -> CallEvents {
        let (own, mailbox) = mpsc::channel(life::MAILBOX);
        self.begin(script, None, own, mailbox, true)
    }

    /// The same with a mailbox that others know already.
    pub(crate) fn place_wired(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
        own: mpsc::Sender<CallMsg>,
        mailbox: mpsc::Receiver<CallMsg>,
    ) -> CallEvents {
        self.begin(script, browser, own, mailbox, false)
    }

    fn begin(
        self: &Arc<Self>,
        script: CallScript,
        browser: Option<LegId>,
        own: mpsc::Sender<CallMsg>,
        mailbox: mpsc::Receiver<CallMsg>,
        of_storm: bool,
    ) -> CallEvents {
        let (events, reader) = mpsc::channel(caller::EVENTS_MAX);
        let control = CallControl(own.clone());
        tokio::spawn(life::run(
            self.clone(),
            script,
            browser,
            Wiring { own, mailbox, events, of_storm },
        ));
        CallEvents { control, events: reader }
    }

    fn expect_call(&self, script: CallScript) -> CallEvents {
        let (own, mailbox) = mpsc::channel(life::MAILBOX);
        let (events, reader) = mpsc::channel(caller::EVENTS_MAX);
        let control = CallControl(own.clone());
        let wiring = Wiring { own, mailbox, events, of_storm: false };
        locked(&self.awaiting)
            .entry(script.from.clone())
            .or_default()
            .push_back(Awaiting { script, wiring });
        CallEvents { control, events: reader }
    }

    /// The business calls a user.
    fn call_user(
        self: &Arc<Self>,
        number: SimNumber,
        user: &str,
        connect: Connect,
        faults: Arc<CallFaults>,
    ) {
        let awaiting =
            locked(&self.awaiting).get_mut(user).and_then(std::collections::VecDeque::pop_front);
        let Awaiting { script, wiring } = awaiting.unwrap_or_else(|| {
            let (own, mailbox) = mpsc::channel(life::MAILBOX);
            let (events, _nobody) = mpsc::channel(1);
            Awaiting {
                script: self.callee.clone(),
                wiring: Wiring { own, mailbox, events, of_storm: false },
            }
        });
        let script = CallScript { from: user.to_owned(), to: number, ..script };
        tokio::spawn(outgoing::run(self.clone(), script, connect, faults, wiring));
    }

    fn door(&self, script: &CallScript) -> Option<Door> {
        let node_url =
            script.node_url.clone().map(trimmed).or_else(|| locked(&self.node_url).clone())?;
        Some(Door {
            node_url,
            app_secret: script.app_secret.clone().unwrap_or_else(|| self.app_secret.clone()),
            verify_token: script.verify_token.clone().unwrap_or_else(|| self.verify_token.clone()),
        })
    }

    /// The node that calls go to where a script names none, with the simulator's own secrets.
    fn usual_door(&self) -> Option<Door> {
        self.door(&CallScript::default())
    }

    /// A shared relay, or one for this call alone. With a browser's end it is the one that is always there.
    fn relay_for_call(&self, with_browser: bool) -> std::io::Result<Relay> {
        if !self.port_per_call || with_browser {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.further.len());
            let further = turn.filter(|_| !with_browser).and_then(|turn| self.further.get(turn));
            return Ok(further.unwrap_or(&self.relay).clone());
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

    /// An address that answers nothing.
    fn nobody_addr(&self) -> SocketAddr {
        self.nobody.local_addr().unwrap_or_else(|_| self.relay.addr())
    }

    fn has_number(&self, phone_number_id: &str) -> bool {
        locked(&self.numbers).by_id(phone_number_id).is_some()
    }

    fn number(&self, number: &str) -> Option<SimNumber> {
        locked(&self.numbers).by_number(number).cloned()
    }

    fn number_of_id(&self, phone_number_id: &str) -> Option<SimNumber> {
        locked(&self.numbers).by_id(phone_number_id).cloned()
    }

    fn number_ids(&self) -> Vec<String> {
        locked(&self.numbers).ids()
    }

    /// A WABA's numbers.
    fn numbers_of(&self, waba: &str) -> Vec<SimNumber> {
        locked(&self.numbers).all().filter(|number| number.waba == waba).cloned().collect()
    }

    /// All WABAs that have numbers.
    fn wabas(&self) -> std::collections::BTreeSet<String> {
        locked(&self.numbers).all().map(|number| number.waba.clone()).collect()
    }

    fn learn_number(&self, number: &SimNumber) {
        locked(&self.numbers).learn(number.clone());
    }

    /// Notes a load; none if that name is taken, or there are too many.
    fn begin_load(&self, id: &str) -> Option<CancellationToken> {
        let mut loads = locked(&self.loads);
        if loads.len() >= LOADS_MAX || loads.contains_key(id) {
            return None;
        }
        let stop = self.stop.child_token();
        loads.insert(id.to_owned(), stop.clone());
        Some(stop)
    }

    fn end_load(&self, id: &str) {
        locked(&self.loads).remove(id);
    }

    fn stop_load(&self, id: &str) -> bool {
        let stop = locked(&self.loads).get(id).cloned();
        stop.inspect(CancellationToken::cancel).is_some()
    }

    fn add_call(&self, facts: &CallFacts, call: mpsc::Sender<CallMsg>, faults: Arc<CallFaults>) {
        let user = facts.user.clone();
        locked(&self.calls).insert(call_key(facts), KnownCall { mailbox: call, faults, user });
    }

    fn drop_call(&self, facts: &CallFacts) {
        locked(&self.calls).remove(&call_key(facts));
    }

    fn call(&self, phone_number_id: &str, call_id: &str) -> Option<mpsc::Sender<CallMsg>> {
        self.known(phone_number_id, call_id).map(|call| call.mailbox)
    }

    fn faults_of(&self, phone_number_id: &str, call_id: &str) -> Option<Arc<CallFaults>> {
        self.known(phone_number_id, call_id).map(|call| call.faults)
    }

    /// Whether a call between the number and the user is up.
    fn is_engaged(&self, phone_number_id: &str, user: &str) -> bool {
        locked(&self.calls)
            .iter()
            .any(|((number, _), call)| number == phone_number_id && call.user == user)
    }

    fn calls_of(&self, phone_number_id: &str) -> usize {
        locked(&self.calls).keys().filter(|(number, _)| number == phone_number_id).count()
    }

    fn known(&self, phone_number_id: &str, call_id: &str) -> Option<KnownCall> {
        locked(&self.calls).get(&(phone_number_id.to_owned(), call_id.to_owned())).cloned()
    }
}

fn call_key(facts: &CallFacts) -> (String, String) {
    (facts.number.phone_number_id.clone(), facts.call_id.clone())
}

fn trimmed(url: String) -> String {
    url.trim_end_matches('/').to_owned()
}

/// A lock whose holder panicked is still good here: what it guards is never left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
