//! The development world of `offhook dev` and `offhook call`: a node, a simulated Meta and a demo
//! application, all on loopback. [`fleet`] has several nodes.

mod balancer;
pub mod fleet;
mod postgres;
mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

use super::drain::EndTimes;
use super::{Node, StartError};
use engine::admission::settings::{AccountSettings, ApiKey, NumberSettings, WabaSettings};
use engine::config::{self, Config, MediaIps};
use engine::people::UserSettings;
use model::Clock;
use model::Secret;
use model::{E164, Method};
use sim::free_ports::FreePorts;
use sim::{Faults, PermissionPolicy, Sim, SimNumber, SimOptions, demo, world};
use xml::ast::DocUrl;

/// Options of a development world.
#[derive(Clone, Debug, Default)]
pub struct DevOptions {
    /// Public port of the node on 127.0.0.1. `None` or 0 selects a free port.
    pub port: Option<u16>,
    /// Answer URL of the number. `None` selects that of `document`, else the demo application's.
    pub answer_url: Option<String>,
    /// File with the document of every call to the number. It is read again for each call.
    pub document: Option<PathBuf>,
    /// Business number. `None` selects the default.
    pub number: Option<E164>,
    /// Data directory. `None` selects a temporary directory, removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Faults that the simulated Meta injects.
    pub faults: Faults,
    /// Whether simulated users must grant a call permission first, except the known user. The node
    /// enforces the rules of permissions then, like a production node.
    pub ask_first: bool,
    /// Clock of the node.
    pub clock: Clock,
    /// The options of a load test. With them, limits are raised and the playground is omitted.
    pub load: Option<LoadOptions>,
}

/// Parameters of a load test. The limits of the world are set so that they do not affect the
/// measurement.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Calls per second.
    pub rate: f64,
    /// Whether media paths are established. If not, `accept` does not wait for them.
    pub media: bool,
    /// Number of media relays of the simulated Meta.
    pub relays: u16,
}

impl LoadOptions {
    /// Calls per second that the account may start. Far above the rate, since a generator that
    /// falls behind catches up in a burst.
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
    /// Answer URL of the number.
    pub answer_url: String,
    node: Option<Node>,
    application: Application,
    /// The data directory. A temporary one is removed when this is dropped.
    folder: Folder,
}

/// Prefix of a temporary data directory. A random number follows.
const FOLDER: &str = "offhook-dev-";

/// Data directory of a development world.
enum Folder {
    Named(PathBuf),
    Temporary(PathBuf),
}

impl Folder {
    fn new(named: Option<PathBuf>) -> Result<Self, DevError> {
        let folder = match named {
            Some(path) => Self::Named(path),
            None => {
                let name = format!("{FOLDER}{:08x}", rand::random::<u32>());
                Self::Temporary(std::env::temp_dir().join(name))
            }
        };
        match std::fs::create_dir_all(folder.path()) {
            Ok(()) => Ok(folder),
            Err(source) => Err(DevError::Folder { path: folder.path().to_owned(), source }),
        }
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

/// Reason why a development world did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("could not create the data directory {path}: {source}; name another with --data-dir")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not start the simulated Meta: {0}")]
    Sim(#[from] sim::SimError),
    #[error("could not start the demo application: {0}")]
    Demo(std::io::Error),
    #[error("could not serve the document: {0}")]
    Document(std::io::Error),
    #[error("could not start the node: {0}")]
    Node(#[from] StartError),
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Admin port of a world with a given public port. It is the default of `listen.admin`.
const ADMIN_PORT: u16 = 9090;

/// Number of slots in a load test.
const LOAD_SLOTS: u32 = 100_000;
/// Ports of the processes of a fleet.
static PORTS: FreePorts = FreePorts::new(10_000..20_000);

/// Returns a TCP address of loopback at which no process listens.
fn free_address() -> std::io::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, PORTS.tcp()?).into())
}

/// Number of UDP ports of the node in a load test.
const LOAD_MEDIA_PORTS: u16 = 1_000;

/// Loopback address with `port` if it is free now, else with any free port. A world with a given
/// port uses the next ones for its other listeners.
fn preferred(port: Option<u16>) -> SocketAddr {
    let address = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    address.filter(|at| std::net::TcpListener::bind(at).is_ok()).unwrap_or(LOOPBACK)
}

impl Dev {
    /// Starts the world on loopback.
    ///
    /// # Errors
    /// Returns an error if a port is taken or the data directory cannot be written.
    pub async fn boot(options: DevOptions) -> Result<Self, DevError> {
        let folder = Folder::new(options.data_dir)?;
        let number = options.number.map_or_else(|| world::NUMBER.to_owned(), String::from);
        let numbers =
            vec![SimNumber { number: number.clone(), ..SimNumber::default() }, playground()];
        let named = options.port.filter(|port| *port != 0);
        let beside = |by: u16| preferred(named.and_then(|port| port.checked_add(by)));
        let relays = options.load.map_or(1, |load| load.relays);
        let faults = options.faults;
        let sim_options = SimOptions {
            numbers,
            listen: beside(1),
            relays,
            faults,
            permission_policy: permission_policy(options.ask_first),
            ..SimOptions::default()
        };
        let sim = Sim::start(sim_options).await?;
        let is_load = options.load.is_some();
        let application =
            Application::start(options.answer_url, options.document, beside(2), is_load).await?;
        let port = options.port.unwrap_or(0);
        let admin = preferred(named.map(|_| ADMIN_PORT));
        let mut config = configuration(
            port,
            admin,
            &sim,
            &number,
            &application,
            folder.path(),
            options.ask_first,
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
            answer_url: application.answer_url.clone(),
            node: Some(node),
            application,
            folder,
        })
    }

    /// The data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// Returns an error if no signal handlers can be installed.
    pub async fn until_stopped(mut self) -> std::io::Result<()> {
        let signals = super::Signals::new()?;
        if let Some(node) = self.node.take() {
            super::until_stopped(node, signals).await;
        }
        Ok(())
    }

    /// Stops the node and the demo application.
    pub async fn stop(mut self) {
        if let Some(node) = self.node.take() {
            let times = match self.folder {
                Folder::Named(_) => EndTimes::NOW,
                Folder::Temporary(_) => EndTimes::FOR_GOOD,
            };
            node.end(times).await;
        }
        drop(self.application);
    }
}

/// Permissions that the users of the simulated Meta have given.
fn permission_policy(ask_first: bool) -> PermissionPolicy {
    match ask_first {
        true => PermissionPolicy::KnownUsers,
        false => PermissionPolicy::Unenforced,
    }
}

/// The application that returns the documents of the number.
struct Application {
    answer_url: String,
    _demo: Option<demo::Demo>,
}

impl Application {
    /// Uses the application at a URL, else serves a document, else starts the demo application.
    async fn start(
        answer_url: Option<String>,
        document: Option<PathBuf>,
        listen: SocketAddr,
        is_load: bool,
    ) -> Result<Self, DevError> {
        let document_url = match document {
            Some(file) => Some(serve_document(file).await.map_err(DevError::Document)?),
            None => None,
        };
        if let Some(answer_url) = answer_url.or(document_url) {
            return Ok(Self { answer_url, _demo: None });
        }
        let demo = demo::start(listen, world::AUTH_TOKEN).await.map_err(DevError::Demo)?;
        let answer_url = if is_load { demo.load_url() } else { demo.answer_url() };
        Ok(Self { answer_url, _demo: Some(demo) })
    }
}

/// Serves a document from a file and returns its URL. Each request reads the file again.
async fn serve_document(file: PathBuf) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let routes = Router::new().fallback(move || read_document(file.clone()));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

async fn read_document(file: PathBuf) -> Response {
    match tokio::fs::read(&file).await {
        Ok(text) => ([(header::CONTENT_TYPE, "application/xml")], text).into_response(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "document could not be read");
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// A second number. Its answer URL returns the document of the console's playground.
fn playground() -> SimNumber {
    SimNumber {
        number: world::PLAYGROUND.to_owned(),
        phone_number_id: world::PLAYGROUND_ID.to_owned(),
        name: "Playground".to_owned(),
        ..SimNumber::default()
    }
}

/// Settings of the playground number: the demo's, with another answer URL.
fn playground_of(config: &Config, document: &str) -> Option<NumberSettings> {
    let demo = config.numbers.first()?;
    Some(NumberSettings {
        number: E164::parse(world::PLAYGROUND).ok()?,
        phone_number_id: world::PLAYGROUND_ID.into(),
        alias: "Playground".to_owned(),
        answer_url: Some(DocUrl(Arc::from(document))),
        ..demo.clone()
    })
}

fn configuration(
    port: u16,
    admin: SocketAddr,
    sim: &Sim,
    number: &str,
    application: &Application,
    folder: &std::path::Path,
    ask_first: bool,
) -> Config {
    let secret = |text: &str| Secret::new(text);
    let url = |text: &str| DocUrl(Arc::from(text));
    let mut config = Config::with(secret(world::APP_SECRET), secret(world::VERIFY_TOKEN));
    config.listen.public = (Ipv4Addr::LOCALHOST, port).into();
    config.listen.admin = admin;
    config.listen.local_hosts_only = true;
    config.listen.media = LOOPBACK;
    // Each outbound call that rings or is answered takes one.
    config.listen.media_ports = 1_000;
    config.public.media_ips = MediaIps::Listed(vec![Ipv4Addr::LOCALHOST.into()]);
    if let Ok(graph) = sim.graph_url().parse() {
        config.meta.graph_url = graph;
        config.meta.simulated = Some(true);
    }
    config.meta.access_token = Some(secret(world::ACCESS_TOKEN));
    config.meta.app_id = Some(world::APP_ID.to_owned());
    config.store = config::Store::at(folder.join(store::SQLITE_FILE_NAME));
    config.answer.allow_insecure = true;
    config.limits.drain_seconds = 2;
    config.permissions.enforce = ask_first;
    config.accounts.push(AccountSettings {
        auth_id: world::ACCOUNT.into(),
        auth_token: secret(world::AUTH_TOKEN),
        auth_token_previous: None,
        cps: None,
        api_keys: vec![ApiKey {
            name: None,
            key: secret(world::API_KEY),
            role: model::Role::Owner,
        }],
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
            answer_url: Some(url(&application.answer_url)),
            answer_method: Method::Post,
            fallback_url: None,
            fallback_method: Method::Post,
            hangup_url: None,
            hangup_method: Method::Post,
            webhook_url: None,
            calls_per_number: None,
            permissions: config.permissions.clone(),
        });
    }
    config
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::read_document;

    #[tokio::test]
    async fn reads_the_document_again_for_each_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("menu.xml");
        for text in ["<Response/>", "<Response><Hangup/></Response>"] {
            std::fs::write(&file, text).expect("writes");
            let response = read_document(file.clone()).await;
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, text.as_bytes());
        }
        std::fs::remove_file(&file).expect("removes");
        assert_eq!(read_document(file).await.status(), 500);
    }
}
