//! `offhook dev` and what `offhook call` boots: a node, a simulated Meta and a demo application, all on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::drain::EndTimes;
use super::{Node, StartError};
use engine::admission::settings::{AccountSettings, ApiKey, NumberSettings, WabaSettings};
use engine::config::{self, Config};
use engine::people::UserSettings;
use model::Clock;
use model::Secret;
use model::{E164, Method};
use sim::{Faults, PermissionPolicy, Sim, SimNumber, SimOptions, demo, world};
use xml::ast::DocUrl;

/// How a development world is to be.
#[derive(Clone, Debug, Default)]
pub struct DevOptions {
    /// The node's public port on 127.0.0.1; `None` or 0: any free one.
    pub port: Option<u16>,
    /// Instead of the demo application's.
    pub answer_url: Option<String>,
    /// The business number, instead of the demo's.
    pub number: Option<E164>,
    /// Instead of a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// What the simulated Meta does wrong.
    pub faults: Faults,
    /// Simulated users must be asked before they are called, all but who is known.
    pub ask_first: bool,
    /// The node's.
    pub clock: Clock,
    /// A world to be loaded, instead of one for a person.
    pub load: Option<LoadOptions>,
}

/// What a world is made for that a load goes through: its limits must not be what is measured.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Calls a second that are to come.
    pub rate: f64,
    /// Whether their media paths come up. Where they don't, `accept` does not wait for them.
    pub media: bool,
    /// Relays of the simulated Meta.
    pub relays: u16,
}

impl LoadOptions {
    /// Far above the rate, since a generator that fell behind makes good for it in a burst.
    fn cps(self) -> u32 {
        (self.rate * 10.0).clamp(1_000.0, 1_000_000.0) as u32
    }
}

/// A running development world.
pub struct Dev {
    /// Base URL of the node.
    pub node_url: String,
    /// Base URL of its admin listener.
    pub admin_url: String,
    pub sim: Sim,
    /// `X-API-Key` of the node's number API.
    pub api_key: String,
    /// The business number that can be called.
    pub number: String,
    /// Where calls get their document.
    pub answer_url: String,
    node: Option<Node>,
    demo: Option<demo::Demo>,
    /// Removed when dropped, unless the user named it.
    _folder: Folder,
}

/// What the name of a world's own folder begins with; the process and a random number follow.
const FOLDER: &str = "offhook-dev-";

/// The process that a folder of this name is the world of.
pub fn process_of(folder: &str) -> Option<u32> {
    let (process, _) = folder.strip_prefix(FOLDER)?.split_once('-')?;
    process.parse().ok()
}

/// Where the world keeps its files.
enum Folder {
    Named(PathBuf),
    Temporary(PathBuf),
}

impl Folder {
    fn new(named: Option<PathBuf>) -> std::io::Result<Self> {
        let folder = match named {
            Some(path) => Self::Named(path),
            None => {
                let name = format!("{FOLDER}{}-{:08x}", std::process::id(), rand::random::<u32>());
                Self::Temporary(std::env::temp_dir().join(name))
            }
        };
        std::fs::create_dir_all(folder.path())?;
        Ok(folder)
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Named(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Why the world did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("make a folder for the data: {0}")]
    Folder(std::io::Error),
    #[error("start the simulated Meta: {0}")]
    Sim(#[from] sim::SimError),
    #[error("start the demo application: {0}")]
    Demo(std::io::Error),
    #[error("start the node: could not {0}")]
    Node(#[from] StartError),
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The admin listener of a world whose public port was named: where `interface.md` §2 has it.
const ADMIN_PORT: u16 = 9090;

/// For a load: slots of the number, media ports (`interface.md` §2's default).
const LOAD_SLOTS: u32 = 100_000;
const LOAD_MEDIA_PORTS: u16 = 1_000;

/// `port` of the loopback if it is free now, else any. Neighbours of a named port are easy to remember.
fn preferred(port: Option<u16>) -> SocketAddr {
    let wished = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    wished.filter(|at| std::net::TcpListener::bind(at).is_ok()).unwrap_or(LOOPBACK)
}

impl Dev {
    /// Starts everything, on loopback.
    ///
    /// # Errors
    /// A port is taken, or a folder can't be written.
    pub async fn boot(options: DevOptions) -> Result<Self, DevError> {
        let folder = Folder::new(options.data_dir).map_err(DevError::Folder)?;
        let number = options.number.map_or_else(|| world::NUMBER.to_owned(), String::from);
        let numbers =
            vec![SimNumber { number: number.clone(), ..SimNumber::default() }, playground()];
        let named = options.port.filter(|port| *port != 0);
        let beside = |by: u16| preferred(named.and_then(|port| port.checked_add(by)));
        let relays = options.load.map_or(1, |load| load.relays);
        let faults = options.faults;
        let permission_policy = if options.ask_first {
            PermissionPolicy::KnownUsers
        } else {
            PermissionPolicy::Unenforced
        };
        let sim_options = SimOptions {
            numbers,
            listen: beside(1),
            relays,
            faults,
            permission_policy,
            ..SimOptions::default()
        };
        let sim = Sim::start(sim_options).await?;
        let demo = match options.answer_url {
            Some(_) => None,
            None => Some(demo::start(beside(2), world::AUTH_TOKEN).await.map_err(DevError::Demo)?),
        };
        let demo_url = |demo: &demo::Demo| {
            if options.load.is_some() { demo.load_url() } else { demo.answer_url() }
        };
        let answer_url =
            options.answer_url.or_else(|| demo.as_ref().map(demo_url)).unwrap_or_default();
        let hangup_url = demo.as_ref().map(demo::Demo::hangup_url);
        let port = options.port.unwrap_or(0);
        let admin = preferred(named.map(|_| ADMIN_PORT));
        let mut config = configuration(
            port,
            admin,
            &sim,
            &number,
            &answer_url,
            hangup_url.as_deref(),
            folder.path(),
        );
        if options.load.is_none() {
            let document = crate::console::serve_drafts(beside(3)).await.map_err(DevError::Demo)?;
            config.numbers.extend(playground_of(&config, &document));
        }
        if let Some(load) = options.load {
            config.limits.default_cps = load.cps();
            config.limits.calls_per_number = LOAD_SLOTS;
            config.listen.media_ports = LOAD_MEDIA_PORTS;
            if !load.media {
                config.media.accept_wait_ms = 0;
            }
        }
        let node = Node::start(config, options.clock).await?;
        let node_url = format!("http://{}", node.public);
        sim.set_node_url(node_url.clone());
        Ok(Self {
            admin_url: format!("http://{}", node.admin),
            node_url,
            sim,
            api_key: world::API_KEY.to_owned(),
            number,
            answer_url,
            node: Some(node),
            demo,
            _folder: folder,
        })
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The system gives no signal handlers.
    pub async fn until_stopped(mut self) -> std::io::Result<()> {
        let signals = super::Signals::new()?;
        if let Some(node) = self.node.take() {
            super::until_stopped(node, signals).await;
        }
        Ok(())
    }

    /// Ends everything in order.
    pub async fn stop(mut self) {
        if let Some(node) = self.node.take() {
            node.end(EndTimes::NOW).await;
        }
        drop(self.demo.take());
    }
}

/// A second number, which answers with what is written in the console's playground.
fn playground() -> SimNumber {
    SimNumber {
        number: world::PLAYGROUND.to_owned(),
        phone_number_id: world::PLAYGROUND_ID.to_owned(),
        name: "Playground".to_owned(),
        ..SimNumber::default()
    }
}

/// That number as the node has it: as the demo's, but for its document.
fn playground_of(config: &Config, document: &str) -> Option<NumberSettings> {
    let demo = config.numbers.first()?;
    Some(NumberSettings {
        number: E164::parse(world::PLAYGROUND).ok()?,
        phone_number_id: world::PLAYGROUND_ID.into(),
        alias: "Playground".to_owned(),
        answer_url: Some(DocUrl(Arc::from(document))),
        hangup_url: None,
        ..demo.clone()
    })
}

fn configuration(
    port: u16,
    admin: SocketAddr,
    sim: &Sim,
    number: &str,
    answer_url: &str,
    hangup_url: Option<&str>,
    folder: &std::path::Path,
) -> Config {
    let secret = |text: &str| Secret::new(text);
    let url = |text: &str| DocUrl(Arc::from(text));
    let mut config = Config::with(secret(world::APP_SECRET), secret(world::VERIFY_TOKEN));
    config.listen.public = (Ipv4Addr::LOCALHOST, port).into();
    config.listen.admin = admin;
    config.listen.media = LOOPBACK;
    config.listen.media_ports = 16;
    config.public.media_ips = vec![Ipv4Addr::LOCALHOST.into()];
    if let Ok(graph) = sim.graph_url().parse() {
        config.meta.graph_url = graph;
    }
    config.meta.access_token = Some(secret(world::ACCESS_TOKEN));
    config.meta.app_id = Some(world::APP_ID.to_owned());
    config.store = config::Store::at(folder.join(store::SQLITE_FILE_NAME));
    config.answer.allow_insecure = true;
    config.limits.drain_seconds = 2;
    // The simulated Meta minds who allowed to be called.
    config.permissions.enforce = false;
    config.accounts.push(AccountSettings {
        auth_id: world::ACCOUNT.into(),
        auth_token: secret(world::AUTH_TOKEN),
        auth_token_previous: None,
        cps: None,
        api_keys: vec![ApiKey { key: secret(world::API_KEY), role: model::Role::Owner }],
        parent: None,
    });
    config.users.push(UserSettings {
        name: world::PERSON.to_owned(),
        password: secret(world::PASSWORD),
        account: world::ACCOUNT.into(),
        role: model::Role::Owner,
    });
    config.wabas.push(WabaSettings {
        id: world::WABA.into(),
        account: world::ACCOUNT.into(),
        access_token: None,
    });
    if let Ok(number) = E164::parse(number) {
        config.numbers.push(NumberSettings {
            number,
            phone_number_id: world::PHONE_NUMBER_ID.into(),
            waba: world::WABA.into(),
            alias: "Demo".to_owned(),
            app_id: None,
            calling_enabled: true,
            calling_named: true,
            answer_url: Some(url(answer_url)),
            answer_method: Method::Post,
            fallback_url: None,
            fallback_method: Method::Post,
            hangup_url: hangup_url.map(url),
            hangup_method: Method::Post,
            webhook_url: None,
            calls_per_number: None,
            permissions: config.permissions.clone(),
        });
    }
    config
}
