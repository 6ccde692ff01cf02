//! From the tree to [`Config`]: which keys there are, what each may be, and what must agree with what.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use url::Url;

use super::fault::Place;
use super::reader::{
    Complaint, Context, Section, address, flag, list, number, one_of, parsed, prefix, suggestion,
    text, whole,
};
use super::tree::{self, Node, Table, Value};
use super::types::{Cluster, Config, Listen, Media, Public, Retention, Store};
use super::{oidc, storage};
use crate::admission::settings::{
    AccountSettings, ApiKey, Limits, NumberSettings, Permissions, WabaSettings,
};
use crate::agents::ModelSettings;
use crate::answer::AnswerSettings;
use crate::inbox::WebhookSettings;
use crate::meta::MetaSettings;
use crate::people::UserSettings;
use model::Role;
use model::Secret;
use model::{
    AppId, AuthId, Country, Method, NoCountry, PhoneNumberId, WabaId, is_loopback, leads_to,
};
use store::Database;
use xml::ast::DocUrl;

pub(super) const ROLES: &[(&str, Role)] =
    &[("owner", Role::Owner), ("admin", Role::Admin), ("agent", Role::Agent)];
const METHODS: &[(&str, Method)] = &[("GET", Method::Get), ("POST", Method::Post)];

/// Where the things that others refer to stand, and the references, to be compared at the end.
#[derive(Default)]
pub(super) struct Names {
    accounts: BTreeMap<AuthId, Option<AuthId>>,
    wabas: BTreeMap<WabaId, ()>,
    references: Vec<Reference>,
    seen: BTreeMap<(&'static str, String), ()>,
}

enum Reference {
    Account(AuthId, Place),
    Parent(AuthId, Place),
    Waba(WabaId, Place),
}

/// Reads everything; what is wrong goes to `cx`, and the result is good only if nothing did.
pub(super) fn config(table: Table, cx: &Context<'_>) -> Config {
    let mut root = Section::root(table, cx);
    let mut names = Names::default();
    let answer = answer(root.section("answer"));
    let insecure = answer.allow_insecure;
    let permissions = permissions(root.section("permissions"), &Permissions::default());
    let meta = meta(root.section("meta"), insecure);
    let default_token = meta.access_token.is_some();
    let listen = listen(root.section("listen"), cx);
    let config = Config {
        public: public(root.section("public"), cx, listen.media),
        listen,
        media: media(root.section("media")),
        meta,
        store: store(root.section("store")),
        cluster: cluster(root.section("cluster"), cx),
        limits: limits(root.section("limits")),
        retention: retention(root.section("retention")),
        recordings: storage::recordings(root.section("recordings")),
        speech: speech(&mut root, cx),
        model: model(root.section("model")),
        oidc: root
            .has("oidc")
            .then(|| oidc::oidc(root.section("oidc"), cx, &mut names, insecure))
            .flatten(),
        accounts: each(root.sections("account"), |s| account(s, cx, &mut names)),
        users: each(root.sections("user"), |s| user(s, cx, &mut names)),
        webhooks: each(root.sections("webhook"), |s| webhook(s, cx, &mut names, insecure)),
        wabas: each(root.sections("waba"), |s| waba(s, cx, &mut names, default_token)),
        numbers: each(root.sections("number"), |s| {
            business_number(s, cx, &mut names, insecure, &permissions)
        }),
        answer,
        permissions,
    };
    root.finish();
    names.compare(cx);
    config
}

fn each<T>(sections: Vec<Section<'_>>, read: impl FnMut(Section<'_>) -> Option<T>) -> Vec<T> {
    sections.into_iter().filter_map(read).collect()
}

fn listen(mut s: Section<'_>, cx: &Context<'_>) -> Listen {
    let d = Listen::default();
    let media = s.placed("media", address);
    let media_ports = s.get("media_ports", whole(1..=65_535)).unwrap_or(d.media_ports);
    if let Some((media, at)) = &media
        && media.port() != 0
        && u32::from(media.port()) + u32::from(media_ports) > 65_536
    {
        let message =
            format!("`media` leaves no room for {media_ports} ports above {}", media.port());
        cx.fault(at.clone(), message, "begin lower, or set fewer `media_ports`");
    }
    let public = s.get("public", address).unwrap_or(d.public);
    let admin = s.placed("admin", address);
    if let Some((admin, at)) = &admin
        && admin.port() != 0
        && *admin == public
    {
        let message = format!("`admin` is {admin}, as `public` is");
        cx.fault(
            at.clone(),
            message,
            "an address or a port of its own, never reached from outside",
        );
    }
    let listen = Listen {
        public,
        trusted_proxies: s.get("trusted_proxies", list(prefix)).unwrap_or_default(),
        admin: admin.map_or(d.admin, |(admin, _)| admin),
        media: media.map_or(d.media, |(media, _)| media),
        media_ports,
    };
    s.finish();
    listen
}

fn public(mut s: Section<'_>, cx: &Context<'_>, media: SocketAddr) -> Public {
    let base_url = s.get("base_url", base_url);
    let media_ips: Option<(Vec<IpAddr>, _)> = s.placed("media_ips", list(parsed("an IP address")));
    if let Some((ips, at)) = &media_ips
        && !ips.is_empty()
        && !ips.iter().any(|ip| leads_to(*ip, media.ip()))
    {
        let (family, both) = if media.is_ipv4() {
            ("IPv4", ", or let `media` be [::], which takes both")
        } else {
            ("IPv6", "")
        };
        let message =
            format!("`media_ips` has no address that leads to `[listen] media`, which is {media}");
        cx.fault(at.clone(), message, format!("name an {family} address of this machine's{both}"));
    }
    let public = Public { base_url, media_ips: media_ips.map_or_else(Vec::new, |(ips, _)| ips) };
    s.finish();
    public
}

fn media(mut s: Section<'_>) -> Media {
    let d = Media::default();
    let media = Media {
        accept_wait_ms: s.get("accept_wait_ms", whole(0..=15_000)).unwrap_or(d.accept_wait_ms),
    };
    s.finish();
    media
}

fn meta(mut s: Section<'_>, insecure: bool) -> MetaSettings {
    let app_secret = s.need_secret(
        "app_secret",
        "the app's secret from Meta's dashboard: it signs every webhook",
    );
    let verify_token =
        s.need_secret("verify_token", "the word you give Meta with the webhook's URL");
    let d = MetaSettings::new(
        app_secret.unwrap_or_else(placeholder),
        verify_token.unwrap_or_else(placeholder),
    );
    let meta = MetaSettings {
        graph_url: s.get("graph_url", |n| graph_url(n, insecure)).unwrap_or(d.graph_url),
        app_id: s.text("app_id"),
        signup_config_id: s.text("signup_config_id"),
        app_secret: d.app_secret,
        app_secret_previous: s.secret("app_secret_previous"),
        verify_token: d.verify_token,
        access_token: s.secret("access_token"),
    };
    s.finish();
    meta
}

/// Stands where a fault was noted: a configuration with faults is never given out.
fn placeholder() -> Secret {
    Secret::new("")
}

fn store(mut s: Section<'_>) -> Store {
    let hint =
        "write \"sqlite://\" and the path of a file, or \"postgres://user:password@host/database\"";
    let at =
        s.hidden("url", hint, database).map_or_else(Store::default, |database| match database {
            Database::File(file) => Store::at(file),
            postgres @ Database::Postgres(_) => Store { database: postgres, ..Store::default() },
        });
    let store = Store {
        data_dir: s
            .text("data_dir")
            .filter(|dir| !dir.is_empty())
            .map_or(at.data_dir, PathBuf::from),
        database: at.database,
        secret_key: s.secret("secret_key"),
    };
    s.finish();
    store
}

fn database(url: &str) -> Result<Database, Complaint> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let named = Url::parse(url).is_ok_and(|url| url.path().len() > 1);
        return match named {
            true => Ok(Database::Postgres(Secret::new(url))),
            false => Err(Complaint::new(
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
        _ => Err(Complaint::new(
            "is not a store's URL",
            "write \"sqlite://\" and the path of a file, or \"postgres://user:password@host/database\"",
        )),
    }
}

fn cluster(mut s: Section<'_>, cx: &Context<'_>) -> Cluster {
    if let Some((url, at)) = s.placed("url", text)
        && !url.is_empty()
    {
        let hint = "leave it empty: limits are then this node's own";
        cx.fault(at, "`url` names a cluster: this version runs on a single node", hint);
    }
    let cluster = Cluster {
        node_id: s.text("node_id"),
        advertise: s.text("advertise"),
        strict: s.get("strict", flag).unwrap_or_default(),
    };
    s.finish();
    cluster
}

fn answer(mut s: Section<'_>) -> AnswerSettings {
    let d = AnswerSettings::default();
    let answer = AnswerSettings {
        timeout_ms: s.get("timeout_ms", whole(100..=60_000)).unwrap_or(d.timeout_ms),
        max_body_bytes: s.get("max_body_bytes", whole(1..=1_048_576)).unwrap_or(d.max_body_bytes),
        allow_insecure: s.get("allow_insecure", flag).unwrap_or(d.allow_insecure),
    };
    s.finish();
    answer
}

fn limits(mut s: Section<'_>) -> Limits {
    let d = Limits::default();
    let limits = Limits {
        calls_per_number: s.get("calls_per_number", whole(CALLS)).unwrap_or(d.calls_per_number),
        default_cps: s.get("default_cps", whole(CPS)).unwrap_or(d.default_cps),
        max_call_seconds: s
            .get("max_call_seconds", whole(1..=86_400))
            .unwrap_or(d.max_call_seconds),
        drain_seconds: s.get("drain_seconds", whole(0..=86_400)).unwrap_or(d.drain_seconds),
        allow_wa_bridge: s.get("allow_wa_bridge", flag).unwrap_or(d.allow_wa_bridge),
    };
    s.finish();
    limits
}

const CALLS: std::ops::RangeInclusive<i64> = 1..=100_000;
const CPS: std::ops::RangeInclusive<i64> = 1..=10_000;

fn permissions(mut s: Section<'_>, d: &Permissions) -> Permissions {
    let counts = 0..=1_000_000;
    let times = 1..=315_360_000;
    let permissions = Permissions {
        enforce: s.get("enforce", flag).unwrap_or(d.enforce),
        requests_per_day: s
            .get("requests_per_day", whole(counts.clone()))
            .unwrap_or(d.requests_per_day),
        requests_per_week: s
            .get("requests_per_week", whole(counts.clone()))
            .unwrap_or(d.requests_per_week),
        calls_per_day: s.get("calls_per_day", whole(counts.clone())).unwrap_or(d.calls_per_day),
        temporary_seconds: s
            .get("temporary_seconds", whole(times.clone()))
            .unwrap_or(d.temporary_seconds),
        request_seconds: s.get("request_seconds", whole(times)).unwrap_or(d.request_seconds),
        prompt_after: s.get("prompt_after", whole(counts.clone())).unwrap_or(d.prompt_after),
        revoke_after: s.get("revoke_after", whole(counts)).unwrap_or(d.revoke_after),
        barred_countries: s
            .get("barred_countries", list(country))
            .unwrap_or_else(|| d.barred_countries.clone()),
    };
    s.finish();
    permissions
}

fn country(node: &Node) -> Result<Country, Complaint> {
    let code = text(node)?;
    Country::parse(&code).map_err(|why| {
        let hint = match why {
            NoCountry::NoCode => "two capital letters of ISO 3166, like \"US\"".to_owned(),
            NoCountry::Unknown => {
                "ISO 3166's code of a country, like \"US\"; Britain's is \"GB\"".to_owned()
            }
            NoCountry::SharesCode(with) => format!("name \"{with}\", which bars both"),
        };
        Complaint::new(format!("has \"{code}\", which {why}"), hint)
    })
}

fn retention(mut s: Section<'_>) -> Retention {
    let d = Retention::default();
    let retention = Retention {
        event_log_days: s.get("event_log_days", whole(1..=36_500)).unwrap_or(d.event_log_days),
        recording_days: s.get("recording_days", whole(1..=36_500)).unwrap_or(d.recording_days),
        message_days: s.get("message_days", whole(1..=36_500)).unwrap_or(d.message_days),
    };
    s.finish();
    retention
}

/// None without a `url`. Its owner is the operator: any address will do.
fn model(mut s: Section<'_>) -> Option<ModelSettings> {
    let (url, api_key, name) = (s.get("url", base_url), s.secret("api_key"), s.text("name"));
    s.finish();
    Some(ModelSettings { url: url?, api_key, name: name.unwrap_or_else(|| "default".to_owned()) })
}

fn speech(root: &mut Section<'_>, cx: &Context<'_>) -> toml::Table {
    let Some(node) = root.raw("speech") else { return toml::Table::default() };
    let toml::Value::Table(table) = tree::to_toml(&node) else {
        cx.fault(
            node.at.clone(),
            format!("`speech` is {}, not a table", node.value.kind()),
            "write [speech]",
        );
        return toml::Table::default();
    };
    if let Err(message) = (cx.sources.speech)(table.clone()) {
        let at = named(&node, &message).unwrap_or(node.at);
        cx.fault(at, format!("in [speech]: {}", message.trim_end()), "");
    }
    table
}

/// The place of the key that a message of serde's is about: the one it names.
fn named(node: &Node, message: &str) -> Option<Place> {
    let Value::Table(table) = &node.value else { return None };
    table.iter().find_map(|(key, (at, inner))| {
        let here = [format!("unknown field `{key}`"), format!("in `{key}`")]
            .iter()
            .any(|say| message.contains(say));
        named(inner, message).or_else(|| here.then(|| at.clone()))
    })
}

fn account(mut s: Section<'_>, cx: &Context<'_>, names: &mut Names) -> Option<AccountSettings> {
    let id = s.need("auth_id", "MA and 18 capital letters or digits", auth_id);
    let auth_token = s
        .need_secret("auth_token", "the password of the API, and the key of callbacks' signatures");
    let parent = s.placed("parent", auth_id);
    let cps = s.get("cps", whole(CPS));
    let auth_token_previous = s.secret("auth_token_previous");
    let api_keys = match s.raw("api_keys") {
        None => Vec::new(),
        Some(Node { value: Value::List(items), .. }) => {
            items.iter().filter_map(|item| api_key(item, cx)).collect()
        }
        Some(one) => api_key(&one, cx).into_iter().collect(),
    };
    let at = s.at.clone();
    s.finish();
    let (auth_id, id_at) = id?;
    match (auth_id.as_str().starts_with("SA"), &parent) {
        (true, None) => {
            cx.fault(at, format!("subaccount {auth_id} has no `parent`"), "parent = \"MA…\"")
        }
        (false, Some((_, at))) => {
            cx.fault(
                at.clone(),
                format!("`parent` of {auth_id}, a main account"),
                "a subaccount's auth_id begins with SA",
            );
        }
        (true, Some((parent, at))) => {
            names.references.push(Reference::Parent(parent.clone(), at.clone()))
        }
        (false, None) => {}
    }
    names.once(cx, "auth_id", auth_id.as_str(), id_at);
    let parent = parent.map(|(parent, _)| parent);
    names.accounts.insert(auth_id.clone(), parent.clone());
    Some(AccountSettings {
        auth_id,
        auth_token: auth_token?,
        auth_token_previous,
        cps,
        api_keys,
        parent,
    })
}

/// A secret, or `{ key = SECRET, role = "agent" }`. A key whose variable isn't set is no key.
fn api_key(node: &Node, cx: &Context<'_>) -> Option<ApiKey> {
    if let Value::Table(table) = &node.value
        && table.contains_key("key")
    {
        let mut s = Section::inner("api_keys", node, cx)?;
        let role = s.get("role", one_of(ROLES));
        let key = s.secret("key");
        s.finish();
        return Some(ApiKey { key: key?, role: role.unwrap_or(Role::Owner) });
    }
    let key = cx.secret("api_keys", node).ok()??;
    Some(ApiKey { key, role: Role::Owner })
}

fn user(mut s: Section<'_>, cx: &Context<'_>, names: &mut Names) -> Option<UserSettings> {
    let name = s.need("name", "what they log in with", text);
    let password = s.need_secret("password", "{ env = \"NAME\" } keeps it out of the file");
    let account = s.need("account", "the auth_id of an [[account]]", auth_id);
    let role = s.need("role", "owner, admin or agent", one_of(ROLES));
    s.finish();
    let account = account.map(|(id, at)| names.account(id, at));
    let (name, at) = name?;
    if name.is_empty() || name.len() > 64 {
        cx.fault(at.clone(), "`name` must have 1 to 64 characters", "");
    }
    names.once(cx, "name", &name, at);
    Some(UserSettings { name, password: password?, account: account?, role: role?.0 })
}

fn webhook(
    mut s: Section<'_>,
    cx: &Context<'_>,
    names: &mut Names,
    insecure: bool,
) -> Option<WebhookSettings> {
    let name = s.need("name", "a name for people, of its own in the account", text);
    let account = s.need("account", "the auth_id of an [[account]]", auth_id);
    let url = s.need("url", "where events are posted", |node| customer_url(node, insecure));
    let secret = s.need_secret("secret", "what X-Offhook-Signature is made with");
    let secret_previous = s.secret("secret_previous");
    s.finish();
    let account = account.map(|(id, at)| names.account(id, at))?;
    let (name, at) = name?;
    if name.is_empty() || name.len() > 64 {
        cx.fault(at.clone(), "`name` must have 1 to 64 characters", "");
    }
    names.once(cx, "webhook", &format!("{account} {name}"), at);
    Some(WebhookSettings { name, account, url: url?.0?, secret: secret?, secret_previous })
}

fn waba(
    mut s: Section<'_>,
    cx: &Context<'_>,
    names: &mut Names,
    default_token: bool,
) -> Option<WabaSettings> {
    let id = s.need("id", "the WhatsApp Business Account's id, digits in quotes", meta_id);
    let account = s.need("account", "the auth_id of an [[account]]", auth_id);
    let access_token = s.secret("access_token");
    s.finish();
    let account = account.map(|(id, at)| names.account(id, at));
    let (id, at) = id?;
    if access_token.is_none() && !default_token {
        let hint = "set `access_token` here or in [meta]: Graph refuses every request without one";
        cx.fault(at.clone(), format!("waba {id} has no access token"), hint);
    }
    names.once(cx, "id", &id, at);
    let id = WabaId::from(id);
    names.wabas.insert(id.clone(), ());
    Some(WabaSettings { id, account: account?, access_token })
}

fn business_number(
    mut s: Section<'_>,
    cx: &Context<'_>,
    names: &mut Names,
    insecure: bool,
    permissions_of_all: &Permissions,
) -> Option<NumberSettings> {
    let url = |node: &Node| customer_url(node, insecure);
    let number = s.need("number", "E.164 digits, no plus", number);
    let phone_number_id =
        s.need("phone_number_id", "Meta's id of the number, digits in quotes", meta_id);
    let waba = s.need("waba", "the id of a [[waba]]", meta_id);
    let alias = s.text("alias").unwrap_or_default();
    let calling_enabled = s.placed("calling_enabled", flag);
    let app_id = s.get(
        "app_id",
        digits_of("an application", "the app_id that the API gave, digits in quotes"),
    );
    let app_id = app_id.map(AppId::from);
    let answer_url_given = s.has("answer_url");
    let answer_url = s.get("answer_url", url);
    let lacks_answer_url =
        matches!(answer_url, Some(None)) || (answer_url.is_none() && !answer_url_given);
    let fallback_url = s.get("fallback_url", url).flatten();
    let hangup_url = s.get("hangup_url", url).flatten();
    let webhook_url = s.get("webhook_url", url).flatten();
    let answer_method = s.get("answer_method", one_of(METHODS)).unwrap_or_default();
    let fallback_method = s.get("fallback_method", one_of(METHODS)).unwrap_or_default();
    let hangup_method = s.get("hangup_method", one_of(METHODS)).unwrap_or_default();
    let calls_per_number = s.get("calls_per_number", whole(CALLS));
    let permissions = permissions(s.section("permissions"), permissions_of_all);
    s.finish();
    if let Some((true, at)) = &calling_enabled
        && lacks_answer_url
        && app_id.is_none()
    {
        cx.fault(
            at.clone(),
            "`calling_enabled` needs an `answer_url`",
            "answer_url = \"https://…\", or the `app_id` of an application",
        );
    }
    let waba = waba.map(|(id, at)| {
        let id = WabaId::from(id);
        names.references.push(Reference::Waba(id.clone(), at));
        id
    });
    let phone_number_id = phone_number_id.map(|(id, at)| {
        names.once(cx, "phone_number_id", &id, at);
        PhoneNumberId::from(id)
    });
    let (number, at) = number?;
    names.once(cx, "number", number.as_str(), at);
    Some(NumberSettings {
        number,
        phone_number_id: phone_number_id?,
        waba: waba?,
        alias,
        calling_named: calling_enabled.is_some(),
        calling_enabled: calling_enabled.is_some_and(|(on, _)| on),
        app_id,
        answer_url: answer_url.flatten(),
        answer_method,
        fallback_url,
        fallback_method,
        hangup_url,
        hangup_method,
        webhook_url,
        calls_per_number,
        permissions,
    })
}

impl Names {
    /// Notes that an account is spoken of, which must be there.
    pub(super) fn account(&mut self, id: AuthId, at: Place) -> AuthId {
        self.references.push(Reference::Account(id.clone(), at));
        id
    }

    /// Notes an id that only one entry may have.
    fn once(&mut self, cx: &Context<'_>, key: &'static str, id: &str, at: Place) {
        if self.seen.insert((key, id.to_owned()), ()).is_some() {
            cx.fault(at, format!("`{key}` \"{id}\" is there twice"), "each entry has its own");
        }
    }

    fn compare(&self, cx: &Context<'_>) {
        let known = self.accounts.keys().map(AuthId::as_str);
        for reference in &self.references {
            match reference {
                Reference::Account(id, at) if !self.accounts.contains_key(id) => {
                    cx.fault(
                        at.clone(),
                        format!("no [[account]] has the auth_id {id}"),
                        suggestion(id.as_str(), known.clone()),
                    );
                }
                Reference::Parent(id, at) if self.accounts.get(id) != Some(&None) => {
                    let hint = "a main account's auth_id, of an [[account]] in this file";
                    cx.fault(at.clone(), format!("`parent` {id} is no main account"), hint);
                }
                Reference::Waba(id, at) if !self.wabas.contains_key(id) => {
                    let known = self.wabas.keys().map(WabaId::as_str);
                    cx.fault(
                        at.clone(),
                        format!("no [[waba]] has the id {id}"),
                        suggestion(id.as_str(), known),
                    );
                }
                Reference::Account(..) | Reference::Parent(..) | Reference::Waba(..) => {}
            }
        }
    }
}

/// `MA` or `SA` and 18 of `A-Z0-9`: SDKs refuse others (`plivo-call-api.md` 1.2).
pub(super) fn auth_id(node: &Node) -> Result<AuthId, Complaint> {
    let id = text(node)?;
    let form = (id.starts_with("MA") || id.starts_with("SA"))
        && id.len() == 20
        && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if form {
        return Ok(id.into());
    }
    let chars = id.chars().count();
    Err(Complaint::new(
        format!("is not an auth_id ({chars} characters)"),
        "MA (an account) or SA (a subaccount) and 18 capital letters or digits: 20 in all",
    ))
}

/// An id of Meta's.
fn meta_id(node: &Node) -> Result<String, Complaint> {
    digits_of("Meta", "digits in quotes")(node)
}

/// An id of somebody's that is all digits.
fn digits_of(
    whose: &'static str,
    hint: &'static str,
) -> impl Fn(&Node) -> Result<String, Complaint> {
    move |node| {
        let id = text(node)?;
        let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(id) } else { Err(Complaint::new(format!("is not an id of {whose}'s"), hint)) }
    }
}

pub(super) fn absolute(node: &Node) -> Result<(String, Url), Complaint> {
    let said = text(node)?;
    let bad =
        |what: &str| Complaint::new(format!("is not a URL: {what}"), "write \"https://host/path\"");
    let url = Url::parse(said.trim()).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Complaint::new("has a user or a password in it", "leave them out"));
    }
    if said.len() > 2_048 {
        return Err(Complaint::new("is longer than 2,048 characters", ""));
    }
    Ok((said.trim().to_owned(), url))
}

/// `interface.md` §2: as the outside reaches `listen.public`.
pub(super) fn base_url(node: &Node) -> Result<Url, Complaint> {
    let (_, url) = absolute(node)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Complaint::new(
            "has a query or a fragment",
            "only scheme, host, port and path",
        ));
    }
    Ok(url)
}

/// The Graph API's base: it gets the access token, so that http goes to this machine only.
fn graph_url(node: &Node, insecure: bool) -> Result<Url, Complaint> {
    let url = base_url(node)?;
    if is_kept_secret(&url) || insecure {
        Ok(url)
    } else {
        Err(Complaint::new(
            "would send the access token over http",
            "https, or [answer] allow_insecure = true",
        ))
    }
}

/// Whether what is sent there is read by nobody else: over TLS, or within this machine.
pub(super) fn is_kept_secret(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// A URL of the customer's, kept as written; empty is absent.
fn customer_url(node: &Node, insecure: bool) -> Result<Option<DocUrl>, Complaint> {
    if text(node)?.trim().is_empty() {
        return Ok(None);
    }
    let (said, url) = absolute(node)?;
    if url.scheme() != "https" && !insecure {
        return Err(Complaint::new(
            "is http",
            "https, or [answer] allow_insecure = true for development",
        ));
    }
    Ok(Some(DocUrl(said.into())))
}
