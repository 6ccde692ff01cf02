//! The configuration as plain values. Settings that other modules use are defined there; this
//! module defines those that only the node itself uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::admission::AdmissionSettings;
use crate::admission::settings::{
    AccountSettings, Limits, NumberSettings, Permissions, WabaSettings,
};
use crate::agents::ModelSettings;
use crate::alerts::AlertSettings;
use crate::answer::AnswerSettings;
use crate::inbox::WebhookSettings;
use crate::meta::MetaSettings;
use crate::objects::S3Settings;
use crate::openid::ProviderSettings;
use crate::people::UserSettings;
use model::{Secret, WabaId};
use store::Database;
use tls::TlsSettings;

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Listen,
    /// `[tls]`: the certificates of `listen.https`.
    pub tls: Option<TlsSettings>,
    pub public: Public,
    pub turn: Option<Turn>,
    pub media: Media,
    pub meta: MetaSettings,
    pub store: Store,
    pub cluster: Cluster,
    pub answer: AnswerSettings,
    pub limits: Limits,
    pub permissions: Permissions,
    /// `[speech]`, which the speech crate reads.
    pub speech: toml::Table,
    pub model: Option<ModelSettings>,
    pub retention: Retention,
    pub recordings: Recordings,
    pub alerts: AlertSettings,
    pub oidc: Option<ProviderSettings>,
    pub accounts: Vec<AccountSettings>,
    pub users: Vec<UserSettings>,
    pub webhooks: Vec<WebhookSettings>,
    pub wabas: Vec<WabaSettings>,
    pub numbers: Vec<NumberSettings>,
    pub(super) fixed: FixedValues,
    /// Warnings about optional secrets that are named but have no value, and about placeholders.
    pub(super) doubtful_secrets: Vec<String>,
}

impl Config {
    /// Returns the default configuration with these two secrets, which have no defaults.
    pub fn with(app_secret: Secret, verify_token: Secret) -> Self {
        Self {
            listen: Listen::default(),
            tls: None,
            public: Public::default(),
            turn: None,
            media: Media::default(),
            meta: MetaSettings::new(app_secret, verify_token),
            store: Store::default(),
            cluster: Cluster::default(),
            answer: AnswerSettings::default(),
            limits: Limits::default(),
            permissions: Permissions::default(),
            speech: toml::Table::default(),
            model: None,
            retention: Retention::default(),
            recordings: Recordings::default(),
            alerts: AlertSettings::default(),
            oidc: None,
            accounts: Vec::new(),
            users: Vec::new(),
            webhooks: Vec::new(),
            wabas: Vec::new(),
            numbers: Vec::new(),
            fixed: FixedValues::default(),
            doubtful_secrets: Vec::new(),
        }
    }

    /// Returns the keys and sections that differ from `started` and that only a restart applies.
    pub fn needs_restart(&self, started: &Self) -> Vec<String> {
        let (now, then) = (&self.fixed.0, &started.fixed.0);
        let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
        names.into_iter().filter(|name| now.get(*name) != then.get(*name)).cloned().collect()
    }

    /// Returns the settings that admission's [`Book`](crate::admission::book::Book) reads.
    pub fn admission(&self) -> AdmissionSettings<'_> {
        AdmissionSettings {
            limits: &self.limits,
            permissions: &self.permissions,
            accounts: &self.accounts,
            wabas: &self.wabas,
            numbers: &self.numbers,
            app_id: self.meta.app_id.as_deref(),
            app_secret: &self.meta.app_secret,
            access_token: self.meta.access_token.as_ref(),
            allow_insecure: self.answer.allow_insecure,
        }
    }

    /// Returns the access token for requests about a WABA: its own, or `meta.access_token`.
    pub fn access_token(&self, waba: &WabaId) -> Option<&Secret> {
        let own = self.wabas.iter().find(|w| w.id == *waba).and_then(|w| w.access_token.as_ref());
        own.or(self.meta.access_token.as_ref())
    }
}

/// Digests of the values that only a restart applies, by key or section.
#[derive(Clone, Default)]
pub(super) struct FixedValues(pub(super) BTreeMap<String, u64>);

/// Redacts the digests, because some are of secrets.
impl fmt::Debug for FixedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FixedValues(…)")
    }
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub public: SocketAddr,
    /// Address of a listener like `public`, but with TLS.
    pub https: Option<SocketAddr>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Whether only `trusted_proxies` may connect to `public`.
    pub proxies_only: bool,
    /// Whether requests are refused if their `Host` is neither an IP address nor `localhost`. Set by
    /// `offhook dev`; the configuration file has no such key.
    pub local_hosts_only: bool,
    pub admin: SocketAddr,
    pub media: SocketAddr,
    pub media_ports: u16,
}

impl Default for Listen {
    fn default() -> Self {
        let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        Self {
            public: (everywhere, 8080).into(),
            https: None,
            trusted_proxies: Vec::new(),
            proxies_only: false,
            local_hosts_only: false,
            admin: (Ipv4Addr::LOCALHOST, 9090).into(),
            media: (everywhere, 40000).into(),
            media_ports: 1000,
        }
    }
}

/// `[public]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The URL at which the outside reaches the node. `None` for the bound address.
    pub base_url: Option<Url>,
    /// The addresses in ICE candidates.
    pub media_ips: MediaIps,
    /// Servers that determine the addresses of [`MediaIps::Auto`].
    pub stun_servers: Vec<StunServer>,
}

impl Default for Public {
    fn default() -> Self {
        let server = |host: &str, port| StunServer { host: host.to_owned(), port };
        Self {
            base_url: None,
            media_ips: MediaIps::Bound,
            // Two operators, so that one outage does not keep a node from starting.
            stun_servers: vec![
                server("stun.cloudflare.com", StunServer::PORT),
                server("stun.l.google.com", 19_302),
            ],
        }
    }
}

/// The addresses in ICE candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaIps {
    /// The bound addresses.
    Bound,
    /// The public addresses of this machine, which the node finds when it starts.
    Auto,
    Listed(Vec<IpAddr>),
}

impl MediaIps {
    /// Returns the configured addresses. Empty for the bound ones.
    pub fn listed(&self) -> &[IpAddr] {
        match self {
            Self::Listed(ips) => ips,
            Self::Bound | Self::Auto => &[],
        }
    }
}

/// A STUN server: a host name or IP address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// The host name or IP address. An IPv6 address has no brackets here.
    pub host: String,
    pub port: u16,
}

impl StunServer {
    /// The port of servers that are configured without one (RFC 8489 §8.1).
    pub const PORT: u16 = 3478;
}

impl std::str::FromStr for StunServer {
    type Err = url::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Any scheme without a default port: the URL parser knows hosts, brackets and ports.
        let url = Url::parse(&format!("stun-server://{text}"))?;
        let is_bare = matches!(url.path(), "" | "/") && url.username().is_empty();
        let host = url.host_str().filter(|_| is_bare).ok_or(url::ParseError::EmptyHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port().unwrap_or(Self::PORT) })
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// `[turn]`: the server that relays media, and the credentials for it.
#[derive(Clone, Debug)]
pub struct Turn {
    pub server: StunServer,
    pub username: String,
    pub password: Secret,
}

/// `[media]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// How long a call waits for its media path before it is accepted at Meta.
    pub accept_wait_ms: u64,
}

impl Default for Media {
    fn default() -> Self {
        Self { accept_wait_ms: 3_000 }
    }
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    pub database: Database,
    /// The folder of recordings, users' files, prompts, journal and key file.
    pub data_dir: PathBuf,
    /// The secret that encrypts secrets in the store. `None` for the key file in `data_dir`.
    pub secret_key: Option<Secret>,
}

impl Store {
    /// Returns the settings for a SQLite database in this file, with `data_dir` as its folder.
    pub fn at(file: PathBuf) -> Self {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
        let data_dir = folder.unwrap_or(Path::new("offhook-data")).to_owned();
        Self { database: Database::File(file), data_dir, secret_key: None }
    }

    /// Returns a warning if `data_dir` contains a SQLite store and PostgreSQL is used.
    pub fn unused_file(&self) -> Option<String> {
        let file = self.data_dir.join(store::SQLITE_FILE_NAME);
        let is_unused = matches!(self.database, Database::Postgres(_)) && file.is_file();
        is_unused.then(|| {
            let file = file.display();
            format!(
                "{file} is not used, because store.url names PostgreSQL: its calls, users and recordings do not move there"
            )
        })
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::at("offhook-data/offhook.db".into())
    }
}

/// `[cluster]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The node's name. `None` for the host name.
    pub node_id: Option<String>,
    /// Host and port at which the node listens for the other nodes of its fleet. `None` if the node
    /// is not part of a fleet.
    pub peer: Option<String>,
    /// Host and port that the other nodes connect to. `None` if they equal those of `peer`.
    pub advertise: Option<String>,
    /// Whether the node admits no calls while its beats reach the database neither directly nor
    /// through another node.
    pub strict: bool,
}

impl Cluster {
    /// The node's name: `node_id`, or else this machine's host name.
    pub fn own_id(&self) -> String {
        if let Some(id) = &self.node_id {
            return id.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        let host: String = host.trim().chars().filter(is_allowed).take(63).collect();
        if host.is_empty() { "node".to_owned() } else { host }
    }
}

/// `[retention]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Retention of event logs and notifications, in days.
    pub event_log_days: u32,
    pub recording_days: u32,
    /// Retention of messages and users' files, in days.
    pub message_days: u32,
    /// Retention of the audit trail, in days.
    pub audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { event_log_days: 30, recording_days: 30, message_days: 3_650, audit_days: 365 }
    }
}

/// `[recordings]`.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// `[recordings.s3]`. `None` if recordings are only kept on the disk.
    pub s3: Option<S3Settings>,
    /// Validity of download links. `None` means forever.
    pub link_lifetime: Option<Duration>,
    /// Disk space that recordings and other files leave free, in bytes. `None` means the default,
    /// which depends on the disk.
    pub reserve: Option<u64>,
}
