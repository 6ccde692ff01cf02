//! Converts the tree into a [`Config`]: declares the keys of each section, and validates rules that
//! involve several keys.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use url::Url;

use super::accounts::{self, CALLS, CPS, Entries};
use super::fault::Place;
use super::forms::{
    Invalid, address, base_url, flag, graph_url, integer, list, media_ips, prefix, stun_server,
    text,
};
use super::permissions::permissions;
use super::section::{Context, Section, Strength};
use super::tree::Table;
use super::types::{
    Cluster, Config, FixedValues, Listen, Media, MediaIps, Public, Retention, Store, Turn,
};
use super::{alerts, oidc, recordings, speech, tls};
use crate::admission::settings::{Limits, Permissions};
use crate::agents::ModelSettings;
use crate::answer::AnswerSettings;
use crate::meta::MetaSettings;
use model::{Secret, can_reach};
use store::Database;

/// Maximum number of servers in `public.stun_servers`. All of them are queried at once.
const STUN_SERVERS_MAX: usize = 8;

/// Reads the whole configuration. Faults are added to `cx`; the result is usable only if there are
/// none.
pub(super) fn config(table: Table, cx: &Context<'_>) -> Config {
    let mut root = Section::root(table, cx);
    let mut entries = Entries::default();
    let (listen, https) =
        listen(root.section("listen", "Addresses that the node listens on.").restart(), cx);
    let mut public = public(
        root.section("public", "How the outside reaches the node.").restart(),
        cx,
        listen.media,
    );
    let doc = "The certificates of `listen.https`: from a certificate authority (`domains`) or \
               from files (`cert` and `key`). See [Go live](../go-live.md#https).";
    let tls = tls::read(root.optional_section("tls", doc), cx, (&listen, https), &mut public);
    let doc = "A TURN server that relays all media over UDP, for a node behind a firewall that lets \
               no UDP in. See [Go live](../go-live.md#behind-a-firewall).";
    let turn = root.optional_section("turn", doc).and_then(|s| turn(s.restart_as("turn")));
    let media = media(root.section("media", "Media of calls."));
    // URLs of other sections depend on `allow_insecure`.
    let answer = answer(root.section("answer", "How documents are fetched."));
    let insecure = answer.allow_insecure;
    let meta = meta(root.section("meta", "The app at Meta, and the Graph API."), insecure);
    let has_default_token = meta.access_token.is_some();
    let store = store(root.section("store", "Where the node keeps its data.").restart());
    let doc =
        "A fleet: several nodes that share one PostgreSQL database. See [Fleet](../fleet.md).";
    let cluster = cluster(root.section("cluster", doc).restart(), &store, cx);
    let limits = limits(root.section("limits", "See [Limits](limits.md)."));
    let doc = "WhatsApp's rules for calls that the business places. See \
               [Limits](limits.md#whatsapp-rules).";
    let permissions = permissions(root.section("permissions", doc), &Permissions::default());
    let speech = speech::read(&mut root, cx);
    let doc = "A language model with an OpenAI-compatible API. It makes insights, and serves \
               agents that name no endpoint. See [Agents](../agents.md).";
    let model = root.optional_section("model", doc).and_then(|s| model(s.restart_as("model")));
    let retention = retention(root.section("retention", "How long data is kept."));
    let recordings = recordings::read(root.section("recordings", ""));
    let doc = "Alerts that the node sends by itself. See \
               [Operating a node](../operations.md#alerts-without-prometheus).";
    let alerts = alerts::read(root.section("alerts", doc).restart_as("alerts"), cx, insecure);
    let doc = "An OpenID Connect provider that people sign in to the console with. See \
               [Console](../console.md).";
    let mut oidc = root
        .optional_section("oidc", doc)
        .and_then(|s| oidc::read(s.restart_as("oidc"), cx, &mut entries, insecure));
    let accounts = read_all(root.sections("account", "A main account or a subaccount."), |s| {
        accounts::account(s, cx, &mut entries)
    });
    if let Some(oidc) = &mut oidc {
        let first = accounts.iter().find(|account| account.parent.is_none());
        oidc.account = oidc.account.take().or_else(|| first.map(|first| first.auth_id.clone()));
    }
    let doc = "A person who signs in to the console. See [Console](../console.md).";
    let users = read_all(root.sections("user", doc), |s| accounts::user(s, cx, &mut entries));
    let doc = "A URL that events of an account are posted to. See [Webhooks](../webhooks.md).";
    let webhooks = read_all(root.sections("webhook", doc), |s| {
        accounts::webhook(s, cx, &mut entries, insecure)
    });
    let wabas = read_all(root.sections("waba", "A WhatsApp Business Account."), |s| {
        accounts::waba(s, cx, &mut entries, has_default_token)
    });
    let doc = "A business number. What the file leaves out keeps the value that was set over the \
               API.";
    let numbers = read_all(root.sections("number", doc), |s| {
        accounts::number(s, cx, &mut entries, insecure, &permissions)
    });
    root.finish();
    entries.check(cx);
    Config {
        listen,
        tls,
        public,
        turn,
        media,
        meta,
        store,
        cluster,
        answer,
        limits,
        permissions,
        speech,
        model,
        retention,
        recordings,
        alerts,
        oidc,
        accounts,
        users,
        webhooks,
        wabas,
        numbers,
        fixed: FixedValues(cx.fixed.take()),
        doubtful_secrets: cx.doubtful.take().iter().map(ToString::to_string).collect(),
    }
}

fn read_all<T>(sections: Vec<Section<'_>>, read: impl FnMut(Section<'_>) -> Option<T>) -> Vec<T> {
    sections.into_iter().filter_map(read).collect()
}

/// Reads `[listen]`. Returns the addresses and the place of `https`.
fn listen(mut s: Section<'_>, cx: &Context<'_>) -> (Listen, Option<Place>) {
    let d = Listen::default();
    let public = s
        .key(
            "public",
            address(),
            "APIs, console, webhooks and phones over plain HTTP, for a proxy with TLS. With \
             `https`, other clients are redirected there.",
        )
        .default(&d.public)
        .placed();
    let https = s
        .key(
            "https",
            address(),
            "The same with TLS, for a node without a proxy: \"0.0.0.0:443\". [tls] has the \
             certificates.",
        )
        .absent("no HTTPS")
        .placed();
    let trusted_proxies = s
        .key(
            "trusted_proxies",
            list("IP addresses or prefixes", prefix()),
            "Proxies whose `X-Forwarded-For` is believed.",
        )
        .or(d.trusted_proxies);
    let proxies_only = s
        .key(
            "proxies_only",
            flag(),
            "Closes connections to `public` that don't come from `trusted_proxies`.",
        )
        .default(&d.proxies_only)
        .placed();
    if let Some((true, at)) = &proxies_only
        && trusted_proxies.is_empty()
    {
        let message = "no client could connect, because `trusted_proxies` is empty";
        cx.fault(at.clone(), message, "list the proxies in `trusted_proxies`");
    }
    let admin = s
        .key(
            "admin",
            address(),
            "`/metrics`, `/livez` and `/readyz`. It must not be reachable from outside.",
        )
        .default(&d.admin)
        .placed();
    let media = s
        .key("media", address(), "The address and the first UDP port of media.")
        .default(&d.media)
        .placed();
    let first_port = media.as_ref().map_or(d.media.port(), |(media, _)| media.port());
    let ports_above = u16::MAX - first_port;
    let media_ports = s
        .key("media_ports", integer(1..=65_535), "The number of UDP ports.")
        // The default is the most that a node uses: a high first port just leaves fewer.
        .or(d.media_ports.min(ports_above.saturating_add(1)));
    if let Some((media, at)) = &media
        && media.port() != 0
        && media_ports - 1 > ports_above
    {
        let message = format!("{media_ports} ports do not fit above `media` {media}");
        cx.fault(at.clone(), message, "use a lower port, or fewer `media_ports`");
    }
    let (admin, admin_at) = admin.unwrap_or_else(|| (d.admin, s.at.clone()));
    let (public, public_at) = public.unwrap_or_else(|| (d.public, s.at.clone()));
    if clash(admin, public) {
        let message = match admin == public {
            true => format!("`admin` and `public` are both {admin}"),
            false => format!("`admin` {admin} is also an address of `public` {public}"),
        };
        // The place of the one that is written, as the other one may be the default.
        let at = if admin == d.admin { public_at } else { admin_at };
        cx.fault(at, message, "give `admin` its own address or port");
    }
    if let Some((https, at)) = &https
        && (clash(*https, public) || clash(*https, admin))
    {
        let message = format!("`https` and another listener are both {https}");
        cx.fault(at.clone(), message, "give `https` its own address or port");
    }
    s.finish();
    let (https, https_at) = https.unzip();
    let listen = Listen {
        public,
        https,
        trusted_proxies,
        proxies_only: proxies_only.is_some_and(|(only, _)| only),
        local_hosts_only: d.local_hosts_only,
        admin,
        media: media.map_or(d.media, |(media, _)| media),
        media_ports,
    };
    (listen, https_at)
}

/// Whether two listeners can't both be bound: an unspecified address is every address of the machine.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

fn public(mut s: Section<'_>, cx: &Context<'_>, media: SocketAddr) -> Public {
    let base_url = s
        .key(
            "base_url",
            base_url(),
            "The URL at which the outside reaches the node. Links and signatures use it.",
        )
        .absent("the first of `tls.domains`, otherwise the bound address")
        .get();
    let d = Public::default();
    let media_ips = s
        .key(
            "media_ips",
            media_ips(),
            "Addresses that ICE candidates name. Behind NAT, the public address of this machine. \
             With `\"auto\"`, the node finds its public addresses when it starts: those of its \
             interfaces, otherwise what `stun_servers` see.",
        )
        .absent("the bound addresses")
        .placed();
    if let Some((MediaIps::Listed(ips), at)) = &media_ips
        && !ips.iter().any(|ip| can_reach(*ip, media.ip()))
    {
        let (family, both) = if media.is_ipv4() {
            ("IPv4", ", or set `media` to [::], which takes both families")
        } else {
            ("IPv6", "")
        };
        let message = format!("no address of `media_ips` leads to `[listen] media` {media}");
        cx.fault(at.clone(), message, format!("name an {family} address of this machine{both}"));
    }
    let stun_servers = s
        .key(
            "stun_servers",
            list("hosts and ports", stun_server()),
            "STUN servers that `media_ips = \"auto\"` asks. An empty list asks none.",
        )
        .default(&d.stun_servers)
        .placed();
    if let Some((servers, at)) = &stun_servers
        && servers.len() > STUN_SERVERS_MAX
    {
        let message = format!("`stun_servers` names {} servers", servers.len());
        cx.fault(at.clone(), message, format!("name at most {STUN_SERVERS_MAX}"));
    }
    s.finish();
    Public {
        base_url,
        media_ips: media_ips.map_or(d.media_ips, |(ips, _)| ips),
        stun_servers: stun_servers.map_or(d.stun_servers, |(servers, _)| servers),
    }
}

fn turn(mut s: Section<'_>) -> Option<Turn> {
    let server = s
        .key("server", stun_server(), "The server. Its port is 3478 if it names none.")
        .required("the server's host and port, like \"turn.example.com:3478\"");
    let username =
        s.key("username", text(), "The user name for the server.").required("the user name");
    let password =
        s.secret("password", "The password for the server.").required("the user's password");
    s.finish();
    Some(Turn { server: server?.0, username: username?.0, password: password? })
}

fn media(mut s: Section<'_>) -> Media {
    let accept_wait_ms = s
        .key(
            "accept_wait_ms",
            integer(0..=15_000),
            "Milliseconds that a call waits for its media path before it is accepted at Meta.",
        )
        .or(Media::default().accept_wait_ms);
    s.finish();
    Media { accept_wait_ms }
}

fn answer(mut s: Section<'_>) -> AnswerSettings {
    let d = AnswerSettings::default();
    let answer = AnswerSettings {
        timeout_ms: s
            .key(
                "timeout_ms",
                integer(100..=60_000),
                "Milliseconds for fetching one document, retry and redirects included.",
            )
            .or(d.timeout_ms),
        max_body_bytes: s
            .key("max_body_bytes", integer(1..=1_048_576), "Size of a decoded document, in bytes.")
            .or(d.max_body_bytes),
        allow_insecure: s
            .key(
                "allow_insecure",
                flag(),
                "Whether customers' URLs may use plain http and lead to private addresses. For \
                 development.",
            )
            .restart()
            .or(d.allow_insecure),
    };
    s.finish();
    answer
}

fn meta(mut s: Section<'_>, insecure: bool) -> MetaSettings {
    // A configuration with faults is never given out, so the empty secrets are never used.
    let empty = || Secret::new("");
    let d = MetaSettings::new(empty(), empty());
    let meta = MetaSettings {
        graph_url: s
            .key(
                "graph_url",
                graph_url(insecure),
                "The base URL of the Graph API, with its version.",
            )
            .restart()
            .or(d.graph_url),
        simulated: s
            .key(
                "simulated",
                flag(),
                "Whether `graph_url` is a simulated Meta, as `offhook dev` has one. The node then \
                 offers its browser phone, and `offhook call --node` works.",
            )
            .restart()
            .absent("whether `graph_url` is on loopback")
            .get(),
        app_id: s
            .key(
                "app_id",
                text(),
                "The app's id. Sign-up needs it, and `offhook doctor` to examine tokens.",
            )
            .absent("no app")
            .get(),
        signup_config_id: s
            .key(
                "signup_config_id",
                text(),
                "A configuration of Facebook Login for Business. The console opens Meta's sign-up \
                 window with it.",
            )
            .restart()
            .non_empty(),
        app_secret: s
            .secret("app_secret", "The app's secret. It signs webhooks.")
            .strength(Strength::APP_SECRET)
            .required("the app's secret from Meta's dashboard: it signs every webhook")
            .unwrap_or_else(empty),
        app_secret_previous: s
            .secret(
                "app_secret_previous",
                "The secret before a rotation. While it is set, webhooks signed with either are \
                 accepted.",
            )
            .strength(Strength::APP_SECRET)
            .optional("only webhooks signed with `app_secret` are accepted"),
        verify_token: s
            .secret(
                "verify_token",
                "The token that was entered at Meta beside the webhook's URL. Fewer than 20 characters \
                 are a warning, not an error: changing it takes a change at Meta, too.",
            )
            .required("the token that you enter at Meta beside the webhook's URL")
            .unwrap_or_else(empty),
        access_token: s
            .secret("access_token", "The access token of WABAs that have none of their own.")
            .optional("WABAs without a token of their own have none"),
    };
    s.finish();
    meta
}

fn store(mut s: Section<'_>) -> Store {
    let url = s
        .secret(
            "url",
            "The database: `sqlite://` and the path of a file, or \
             `postgres://user:password@host/database`.",
        )
        .absent("`sqlite://offhook-data/offhook.db`")
        .parsed(DATABASE_HINT, database);
    let at = match url {
        None => Store::default(),
        Some(Database::File(file)) => Store::at(file),
        Some(database @ Database::Postgres(_)) => Store { database, ..Store::default() },
    };
    let store = Store {
        data_dir: s
            .key(
                "data_dir",
                text(),
                "The folder of recordings, users' files, prompts, journal and key file.",
            )
            .absent("the folder of the SQLite file, otherwise `offhook-data`")
            .non_empty()
            .map_or(at.data_dir, PathBuf::from),
        database: at.database,
        secret_key: s
            .secret("secret_key", "The key that seals tokens and passwords in the store.")
            .strength(Strength::KEY)
            .absent("a key file in `data_dir`")
            .optional(
                "the key file `store.key` in `data_dir` is used, and made if it is missing; what \
                 another key has sealed can't be read",
            ),
    };
    s.finish();
    store
}

const DATABASE_HINT: &str =
    "write \"sqlite://\" and the path of a file, or \"postgres://user:password@host/database\"";

fn database(url: &str) -> Result<Database, Invalid> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let is_named = Url::parse(url).is_ok_and(|url| url.path().len() > 1);
        return match is_named {
            true => Ok(Database::Postgres(Secret::new(url))),
            false => Err(Invalid::new(
                "names no database",
                "write \"postgres://user:password@host/database\"",
            )),
        };
    }
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    match path {
        Some(path) if !path.is_empty() && !path.contains('?') && path != ":memory:" => {
            Ok(Database::File(path.into()))
        }
        _ => Err(Invalid::new("is not the URL of a database", DATABASE_HINT)),
    }
}

fn cluster(mut s: Section<'_>, store: &Store, cx: &Context<'_>) -> Cluster {
    const PEER_HINT: &str =
        "write the address at which this node listens for the others, like \"10.0.0.1:7900\"";
    let node_id = s
        .key("node_id", text(), "The node's name. Nodes that share a database need different ones.")
        .absent("the host name")
        .placed()
        .filter(|(name, _)| !name.is_empty());
    let peer = s
        .key(
            "peer",
            text(),
            "Makes the node part of a fleet: the host and port at which it listens for the other nodes.",
        )
        .absent("the node is alone")
        .placed()
        .filter(|(peer, _)| !peer.is_empty());
    let advertise = s
        .key("advertise", text(), "What the other nodes connect to, if that is not `peer`.")
        .absent("`peer`")
        .placed()
        .filter(|(advertise, _)| !advertise.is_empty());
    let strict = s
        .key(
            "strict",
            flag(),
            "The node admits no calls after 4.5 s in which it has reached the database neither itself nor through another node.",
        )
        .default(&false)
        .placed();
    let url = s.key("url", text(), "Gone; must be empty.").placed();
    if let Some((_, at)) = url.filter(|(url, _)| !url.is_empty()) {
        let hint = "write `peer = \"HOST:7900\"` and give all nodes the same `store.url`";
        cx.fault(at, "`url` is gone: a fleet needs no Redis", hint);
    }
    for (name, key) in [("peer", &peer), ("advertise", &advertise)] {
        if let Some((address, at)) = key
            && !is_host_and_port(address)
        {
            cx.fault(at.clone(), format!("`{name}` is not a host and a port"), PEER_HINT);
        }
    }
    match &peer {
        Some((_, at)) => {
            if let Database::File(_) = store.database {
                let hint = "set [store] url to the PostgreSQL database that all nodes share";
                cx.fault(at.clone(), "`peer` needs a PostgreSQL database", hint);
            }
            if store.secret_key.is_none() {
                let hint = "set the same [store] secret_key on all nodes, so that each can read what another one has sealed";
                let why = cx.why_absent(&["store.secret_key"]);
                cx.fault(at.clone(), format!("`peer` needs `store.secret_key`{why}"), hint);
            }
            if let Some((name, at)) = &node_id
                && !is_node_name(name)
            {
                let hint = "use at most 40 lower-case letters, digits and hyphens";
                cx.fault(at.clone(), "`node_id` is not the name of a node of a fleet", hint);
            }
        }
        None => {
            let strict = strict.iter().filter(|(strict, _)| *strict).map(|(_, at)| ("strict", at));
            for (name, at) in advertise.iter().map(|(_, at)| ("advertise", at)).chain(strict) {
                cx.fault(
                    at.clone(),
                    format!("`{name}` has no meaning for a node alone"),
                    PEER_HINT,
                );
            }
        }
    }
    s.finish();
    Cluster {
        node_id: node_id.map(|(name, _)| name),
        peer: peer.map(|(peer, _)| peer),
        advertise: advertise.map(|(advertise, _)| advertise),
        strict: strict.is_some_and(|(strict, _)| strict),
    }
}

/// Whether this is a host name or address with a port.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Whether a node of a fleet may have this name.
fn is_node_name(name: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=40).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn limits(mut s: Section<'_>) -> Limits {
    let d = Limits::default();
    let limits = Limits {
        calls_per_number: s
            .key("calls_per_number", integer(CALLS), "Live calls of a number.")
            .or(d.calls_per_number),
        default_cps: s
            .key(
                "default_cps",
                integer(CPS),
                "Calls per second of a main account that has no `cps` of its own.",
            )
            .or(d.default_cps),
        max_call_seconds: s
            .key("max_call_seconds", integer(1..=86_400), "Length of a call, from its answer.")
            .or(d.max_call_seconds),
        drain_seconds: s
            .key(
                "drain_seconds",
                integer(0..=86_400),
                "How long a node that stops waits for its calls to end. A drain in progress keeps its time.",
            )
            .or(d.drain_seconds),
        allow_wa_bridge: s
            .key(
                "allow_wa_bridge",
                flag(),
                "Whether a `Dial` may connect a WhatsApp call to another WhatsApp user.",
            )
            .or(d.allow_wa_bridge),
    };
    s.finish();
    limits
}

fn retention(mut s: Section<'_>) -> Retention {
    let d = Retention::default();
    let mut days = |name, doc, default| s.key(name, integer(1..=36_500), doc).or(default);
    let retention = Retention {
        event_log_days: days(
            "event_log_days",
            "Days that event logs of calls, failed requests and notifications are kept.",
            d.event_log_days,
        ),
        recording_days: days("recording_days", "Days that recordings are kept.", d.recording_days),
        message_days: days(
            "message_days",
            "Days that messages and users' files are kept.",
            d.message_days,
        ),
        audit_days: days(
            "audit_days",
            "Days that records of the audit trail are kept, at most 200,000 of an account and 50,000 of an actor in it.",
            d.audit_days,
        ),
    };
    s.finish();
    retention
}

/// Reads `[model]`. `None` without a `url`. Any address is allowed, since the operator sets it.
fn model(mut s: Section<'_>) -> Option<ModelSettings> {
    let url = s
        .key("url", base_url(), "The base URL; requests go to `chat/completions` below it.")
        .required("the base URL of the model's server; without a model, remove [model]");
    let api_key = s
        .secret("api_key", "Sent as a bearer token.")
        .optional("requests to the model have no API key");
    let name = s
        .key("name", text(), "The name of the model on that server.")
        .default(&"default".to_owned())
        .non_empty();
    let allowed = s
        .key(
            "allowed",
            list("strings", text()),
            "Other models on that server that agents may name. Agents without an endpoint use \
             `name` or one of these.",
        )
        .or(Vec::new());
    let requests_per_day = s
        .key(
            "requests_per_day",
            integer(1..=10_000_000),
            "Requests of a main account and its subaccounts to this model in any 24 hours, at all nodes \
             together.",
        )
        .or(10_000);
    s.finish();
    Some(ModelSettings {
        url: url?.0,
        api_key,
        name: name.unwrap_or_else(|| "default".to_owned()),
        allowed,
        requests_per_day: NonZeroU32::new(requests_per_day).unwrap_or(NonZeroU32::MIN),
    })
}
