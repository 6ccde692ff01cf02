//! The configuration as plain values; every key of `interface.md` §2 with its default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use url::Url;

use super::oidc::Oidc;
use super::storage::Recordings;
use model::Secret;
use model::{AppId, AuthId, Country, E164, Method, PhoneNumberId, Role, WabaId};
use store::Database;
use xml::ast::DocUrl;

/// Everything a node is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Listen,
    pub public: Public,
    pub media: Media,
    pub meta: Meta,
    pub store: Store,
    pub cluster: Cluster,
    pub answer: Answer,
    pub limits: Limits,
    pub permissions: Permissions,
    /// `[speech]`, as its room reads it.
    pub speech: toml::Table,
    /// `[model]`: the operator's own, for insights and for agents that name no endpoint.
    pub model: Option<Model>,
    pub retention: Retention,
    pub recordings: Recordings,
    /// `[oidc]`: who else vouches for people of the console.
    pub oidc: Option<Oidc>,
    pub accounts: Vec<Account>,
    pub users: Vec<User>,
    pub webhooks: Vec<Webhook>,
    pub wabas: Vec<Waba>,
    pub numbers: Vec<Number>,
}

/// `[model]`: an OpenAI-compatible server of the operator's.
#[derive(Clone, Debug)]
pub struct Model {
    /// `chat/completions` is below it.
    pub url: Url,
    pub api_key: Option<Secret>,
    /// The model's name there.
    pub name: String,
}

impl PartialEq for Model {
    /// Both stand in the same process's memory: nobody measures how long it takes.
    fn eq(&self, other: &Self) -> bool {
        let key = |model: &Self| model.api_key.as_ref().map(|key| key.reveal().to_owned());
        self.url == other.url && self.name == other.name && key(self) == key(other)
    }
}

impl Config {
    /// Every default, with these two secrets of Meta's: what `dev` and tests begin with.
    pub fn with(app_secret: Secret, verify_token: Secret) -> Self {
        Self {
            listen: Listen::default(),
            public: Public::default(),
            media: Media::default(),
            meta: Meta::with(app_secret, verify_token),
            store: Store::default(),
            cluster: Cluster::default(),
            answer: Answer::default(),
            limits: Limits::default(),
            permissions: Permissions::default(),
            speech: toml::Table::default(),
            model: None,
            retention: Retention::default(),
            recordings: Recordings::default(),
            oidc: None,
            accounts: Vec::new(),
            users: Vec::new(),
            webhooks: Vec::new(),
            wabas: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// The access token for a WABA: its own, else `[meta]`'s.
    pub fn access_token(&self, waba: &WabaId) -> Option<&Secret> {
        let own = self.wabas.iter().find(|w| w.id == *waba).and_then(|w| w.access_token.as_ref());
        own.or(self.meta.access_token.as_ref())
    }
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub public: SocketAddr,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub admin: SocketAddr,
    pub media: SocketAddr,
    pub media_ports: u16,
}

impl Default for Listen {
    fn default() -> Self {
        let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        Self {
            public: (everywhere, 8080).into(),
            trusted_proxies: Vec::new(),
            admin: (Ipv4Addr::LOCALHOST, 9090).into(),
            media: (everywhere, 40000).into(),
            media_ports: 1000,
        }
    }
}

/// `[public]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Public {
    /// As the outside reaches `listen.public`; `None`: the bound address over http.
    pub base_url: Option<Url>,
    /// Put into ICE candidates; empty: the bound ones.
    pub media_ips: Vec<IpAddr>,
}

/// `[media]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub accept_wait_ms: u64,
}

impl Default for Media {
    fn default() -> Self {
        Self { accept_wait_ms: 3_000 }
    }
}

/// `[meta]`.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The base, version included.
    pub graph_url: Url,
    pub app_id: Option<String>,
    /// The login configuration that Meta's sign-up window is opened with.
    pub signup_config_id: Option<String>,
    pub app_secret: Secret,
    pub app_secret_previous: Option<Secret>,
    pub verify_token: Secret,
    pub access_token: Option<Secret>,
}

impl Meta {
    #[allow(clippy::expect_used, reason = "a constant")]
    pub(super) fn with(app_secret: Secret, verify_token: Secret) -> Self {
        Self {
            graph_url: Url::parse("https://graph.facebook.com/v23.0").expect("a URL"),
            app_id: None,
            signup_config_id: None,
            app_secret,
            app_secret_previous: None,
            verify_token,
            access_token: None,
        }
    }
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    pub database: Database,
    /// Where recordings, journal, voices and caches live.
    pub data_dir: PathBuf,
    pub secret_key: Option<Secret>,
}

impl Store {
    /// A store in this file, with everything else in its folder.
    pub fn at(file: PathBuf) -> Self {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
        let data_dir = folder.unwrap_or(Path::new("offhook-data")).to_owned();
        Self { database: Database::File(file), data_dir, secret_key: None }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::at("offhook-data/offhook.db".into())
    }
}

/// `[cluster]`. This version runs on one node: there is no URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `None`: derived from the host name.
    pub node_id: Option<String>,
    pub advertise: Option<String>,
    pub strict: bool,
}

/// `[answer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub timeout_ms: u64,
    pub max_body_bytes: usize,
    pub allow_insecure: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self { timeout_ms: 10_000, max_body_bytes: 102_400, allow_insecure: false }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub calls_per_number: u32,
    pub default_cps: u32,
    pub max_call_seconds: u64,
    pub drain_seconds: u64,
    pub allow_wa_bridge: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_per_number: 1000,
            default_cps: 10,
            max_call_seconds: 14_400,
            drain_seconds: 60,
            allow_wa_bridge: false,
        }
    }
}

/// `[permissions]`: Meta's rules for business-initiated calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub enforce: bool,
    pub requests_per_day: u32,
    pub requests_per_week: u32,
    pub calls_per_day: u32,
    pub temporary_seconds: u64,
    pub request_seconds: u64,
    pub prompt_after: u32,
    pub revoke_after: u32,
    /// Of the business number.
    pub barred_countries: Vec<Country>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            enforce: true,
            requests_per_day: 1,
            requests_per_week: 2,
            calls_per_day: 5,
            temporary_seconds: 604_800,
            request_seconds: 604_800,
            prompt_after: 2,
            revoke_after: 4,
            barred_countries: ["US", "CA", "TR", "EG", "NG", "VN"]
                .into_iter()
                .flat_map(Country::parse)
                .collect(),
        }
    }
}

/// `[retention]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub event_log_days: u32,
    pub recording_days: u32,
    /// Messages, with their files.
    pub message_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { event_log_days: 30, recording_days: 30, message_days: 3_650 }
    }
}

/// `[[webhook]]`: where an account's events are posted.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub name: String,
    pub account: AuthId,
    pub url: DocUrl,
    pub secret: Secret,
    pub secret_previous: Option<Secret>,
}

impl Webhook {
    /// Its id: the same at each start and on each node.
    pub fn id(&self) -> uuid::Uuid {
        model::stable_id("webhook", &[self.account.as_str(), &self.name])
    }
}

/// `[[account]]`.
#[derive(Clone, Debug)]
pub struct Account {
    pub auth_id: AuthId,
    pub auth_token: Secret,
    /// While the token is being changed: both authenticate and sign.
    pub auth_token_previous: Option<Secret>,
    /// `None`: `limits.default_cps` for a main account, no inner limit for a subaccount.
    pub cps: Option<u32>,
    pub api_keys: Vec<ApiKey>,
    /// The main account of a subaccount.
    pub parent: Option<AuthId>,
}

/// An `X-API-Key`.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub key: Secret,
    pub role: Role,
}

/// `[[user]]`: somebody who logs in to the console.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub password: Secret,
    pub account: AuthId,
    pub role: Role,
}

/// `[[waba]]`.
#[derive(Clone, Debug)]
pub struct Waba {
    pub id: WabaId,
    pub account: AuthId,
    pub access_token: Option<Secret>,
}

/// `[[number]]`.
#[derive(Clone, Debug)]
pub struct Number {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    pub waba: WabaId,
    pub alias: String,
    pub calling_enabled: bool,
    /// Whether the file says so: else what is set while the node runs counts.
    pub calling_named: bool,
    /// An application (`plivo-call-api.md` §5), whose URLs serve where there is no `answer_url`.
    pub app_id: Option<AppId>,
    /// URLs are text as written: signatures cover them. This or `app_id` is there where `calling_enabled`.
    pub answer_url: Option<DocUrl>,
    pub answer_method: Method,
    pub fallback_url: Option<DocUrl>,
    pub fallback_method: Method,
    /// `None`: the answer URL.
    pub hangup_url: Option<DocUrl>,
    pub hangup_method: Method,
    pub webhook_url: Option<DocUrl>,
    /// `None`: `limits.calls_per_number`.
    pub calls_per_number: Option<u32>,
    /// `[permissions]` with this number's own keys laid over.
    pub permissions: Permissions,
}
