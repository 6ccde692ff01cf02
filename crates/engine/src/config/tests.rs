//! Tests of every key, every form of a value, and the place of every fault.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::{Config, Problem, Reference};
use model::Role;
use model::{Method, WabaId};
use tls::{AcmeSettings, CertificateFiles, TlsSettings};

const SECRETS: &str = "[meta]\napp_secret = \"s\"\nverify_token = \"v\"\n";
const ACCOUNT: &str = "[[account]]\nauth_id = \"MAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"t\"\n";
const WABA: &str =
    "[[waba]]\nid = \"102\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\naccess_token = \"a\"\n";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Stands in for the speech crate.
fn speech(table: toml::Table) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Speech {
        #[serde(default, rename = "cache_mb")]
        _cache_mb: u32,
        #[serde(default, rename = "openai")]
        _openai: Option<Inner>,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "url")]
        _url: String,
        #[serde(default, rename = "api_key")]
        _api_key: Option<toml::Value>,
    }
    table.try_into::<Speech>().map(drop).map_err(|e| e.to_string())
}

fn good(text: &str, vars: &[(&str, &str)]) -> Config {
    Config::from_parts("offhook.toml", text, &env(vars), &speech).unwrap_or_else(|p| panic!("{p}"))
}

fn bad(text: &str, vars: &[(&str, &str)]) -> Vec<Problem> {
    match Config::from_parts("offhook.toml", text, &env(vars), &speech) {
        Ok(_) => panic!("taken: {text}"),
        Err(problems) => problems.0,
    }
}

/// A file with every key that has a default, set to it, and the others with example values.
const WHOLE: &str = r#"
[listen]
public = "0.0.0.0:8080"
trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
admin  = "127.0.0.1:9090"
media  = "0.0.0.0:40000"
media_ports = 1000
[public]
base_url  = "https://calls.example.com"
media_ips = ["203.0.113.7"]
[media]
accept_wait_ms = 3000
[meta]
graph_url    = "https://graph.facebook.com/v23.0"
app_id       = ""
app_secret   = { env = "META_APP_SECRET" }
app_secret_previous = { env = "META_APP_SECRET_OLD" }
verify_token = { env = "META_VERIFY_TOKEN" }
access_token = { env = "META_ACCESS_TOKEN" }
[store]
url = "sqlite://offhook-data/offhook.db"
data_dir = ""
secret_key = { env = "OFFHOOK_SECRET_KEY" }
[cluster]
url = ""
peer = ""
node_id = ""
advertise = ""
strict = false
[answer]
timeout_ms = 10000
max_body_bytes = 102400
allow_insecure = false
[limits]
calls_per_number = 1000
default_cps = 10
max_call_seconds = 14400
drain_seconds = 60
allow_wa_bridge = false
[permissions]
enforce = true
requests_per_day = 1
requests_per_week = 2
calls_per_day = 5
temporary_seconds = 604800
request_seconds = 604800
prompt_after = 2
revoke_after = 4
barred_countries = ["US", "CA", "TR", "EG", "NG", "VN"]
[speech]
[retention]
event_log_days = 30
recording_days = 30
[[account]]
auth_id = "MAXXXXXXXXXXXXXXXXXX"
auth_token = { env = "OFFHOOK_AUTH_TOKEN" }
cps = 10
api_keys = [{ env = "OFFHOOK_API_KEY" }, { key = { env = "OFFHOOK_AGENT_KEY" }, role = "agent" }, "plain"]
[[account]]
auth_id = "SAXXXXXXXXXXXXXXXXXX"
auth_token = "t"
parent = "MAXXXXXXXXXXXXXXXXXX"
[[user]]
name = "asha"
password = { env = "OFFHOOK_USER_ASHA" }
account = "MAXXXXXXXXXXXXXXXXXX"
role = "owner"
[[waba]]
id = "1029384756"
account = "MAXXXXXXXXXXXXXXXXXX"
[[number]]
number = "918035737458"
phone_number_id = "106540352242922"
waba = "1029384756"
alias = "Support"
calling_enabled = true
answer_url = "https://app.example.com/answer#rt=5000"
answer_method = "POST"
fallback_url = ""
hangup_url = "https://app.example.com/hangup"
webhook_url = "https://app.example.com/messages"
calls_per_number = 7
permissions = { calls_per_day = 100 }
"#;

const WHOLE_ENV: &[(&str, &str)] = &[
    ("META_APP_SECRET", "the-app-secret"),
    ("META_VERIFY_TOKEN", "the-verify-token"),
    ("META_ACCESS_TOKEN", "the-access-token"),
    ("OFFHOOK_AUTH_TOKEN", "the-auth-token"),
    ("OFFHOOK_USER_ASHA", "the-password"),
    ("OFFHOOK_AGENT_KEY", "the-agent-key"),
];

#[test]
fn reads_a_file_with_every_key() {
    let c = good(WHOLE, WHOLE_ENV);
    let d = good(SECRETS, &[]);
    // The values of these sections are the defaults.
    assert_eq!((&c.media, &c.cluster, &c.answer), (&d.media, &d.cluster, &d.answer));
    assert_eq!(
        (&c.limits, &c.permissions, &c.retention),
        (&d.limits, &d.permissions, &d.retention)
    );
    assert_eq!(c.meta.graph_url, d.meta.graph_url);
    assert!(c.store.database.is_same(&d.store.database));
    assert_eq!(c.store.data_dir, d.store.data_dir);
    assert_eq!(c.store.data_dir.to_str(), Some("offhook-data"));

    assert_eq!(c.listen.trusted_proxies.len(), 2);
    assert_eq!(
        c.public.base_url.as_ref().map(url::Url::as_str),
        Some("https://calls.example.com/")
    );
    assert_eq!(c.public.media_ips.listed().len(), 1);
    assert_eq!(c.meta.app_secret.reveal(), "the-app-secret");
    assert!(
        c.meta.app_secret_previous.is_none(),
        "an optional secret is absent if its variable is not set"
    );
    assert_eq!(
        c.access_token(&WabaId::from("1029384756")).map(model::Secret::reveal),
        Some("the-access-token")
    );
    let keys: Vec<_> = c.accounts[0].api_keys.iter().map(|k| (k.key.reveal(), k.role)).collect();
    assert_eq!(keys, [("the-agent-key", Role::Agent), ("plain", Role::Owner)]);
    assert_eq!(c.accounts[1].parent.as_ref(), Some(&c.accounts[0].auth_id));
    assert_eq!((c.users[0].name.as_str(), c.users[0].role), ("asha", Role::Owner));
    let n = &c.numbers[0];
    assert_eq!(n.number.as_str(), "918035737458");
    assert_eq!(
        n.answer_url.as_ref().map(|u| &*u.0),
        Some("https://app.example.com/answer#rt=5000"),
        "as written"
    );
    assert_eq!(
        (n.answer_method, n.hangup_method, n.fallback_url.as_ref()),
        (Method::Post, Method::Post, None)
    );
    assert_eq!(
        (n.calls_per_number, n.permissions.calls_per_day, n.permissions.requests_per_week),
        (Some(7), 100, 2)
    );
}

#[test]
fn debug_output_shows_no_secret() {
    let shown = format!("{:?}", good(WHOLE, WHOLE_ENV));
    for (_, secret) in WHOLE_ENV {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(!shown.contains("plain") && !shown.contains("918035737458"));
}

#[test]
fn every_scalar_key_can_be_set_from_the_environment() {
    let c = good(
        SECRETS,
        &[
            ("OFFHOOK_LISTEN__PUBLIC", "127.0.0.1:0"),
            ("OFFHOOK_LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("OFFHOOK_LISTEN__MEDIA_PORTS", "3"),
            ("OFFHOOK_PUBLIC__MEDIA_IPS", "[\"203.0.113.7\"]"),
            ("OFFHOOK_META__APP_SECRET", "12345"),
            ("OFFHOOK_META__VERIFY_TOKEN__ENV", "ELSEWHERE"),
            ("ELSEWHERE", "found"),
            ("OFFHOOK_ANSWER__ALLOW_INSECURE", "true"),
            ("OFFHOOK_META__GRAPH_URL", "http://meta.internal/v23.0"),
            ("OFFHOOK_STORE__URL", "sqlite:///var/lib/offhook/o.db"),
            ("OFFHOOK_API_KEY", "not a key: a single underscore does not lead into a table"),
        ],
    );
    assert_eq!(c.listen.public.to_string(), "127.0.0.1:0");
    assert_eq!(
        (c.listen.trusted_proxies.len(), c.listen.media_ports, c.public.media_ips.listed().len()),
        (2, 3, 1)
    );
    let high = good(&format!("{SECRETS}[listen]\nmedia = \"0.0.0.0:65000\"\n"), &[]);
    assert_eq!(high.listen.media_ports, 536, "all that are left");
    assert_eq!((c.meta.app_secret.reveal(), c.meta.verify_token.reveal()), ("12345", "found"));
    assert!(c.answer.allow_insecure);
    assert_eq!(c.store.database.to_string(), "/var/lib/offhook/o.db");
    assert_eq!(c.store.data_dir.to_str(), Some("/var/lib/offhook"));
}

/// Keys with a value that differs from the default and shows in the field of the same name.
const SCALARS: &[(&str, &str)] = &[
    ("LISTEN__PUBLIC", "192.0.2.1:1"),
    ("LISTEN__ADMIN", "192.0.2.2:2"),
    ("LISTEN__MEDIA", "192.0.2.3:3"),
    ("LISTEN__MEDIA_PORTS", "4"),
    ("MEDIA__ACCEPT_WAIT_MS", "5"),
    ("STORE__DATA_DIR", "six"),
    ("CLUSTER__NODE_ID", "seven"),
    ("META__APP_ID", "nine"),
    ("ANSWER__TIMEOUT_MS", "1010"),
    ("ANSWER__MAX_BODY_BYTES", "11"),
    ("ANSWER__ALLOW_INSECURE", "true"),
    ("LIMITS__CALLS_PER_NUMBER", "12"),
    ("LIMITS__DEFAULT_CPS", "13"),
    ("LIMITS__MAX_CALL_SECONDS", "14"),
    ("LIMITS__DRAIN_SECONDS", "15"),
    ("LIMITS__ALLOW_WA_BRIDGE", "true"),
    ("PERMISSIONS__ENFORCE", "false"),
    ("PERMISSIONS__REQUESTS_PER_DAY", "16"),
    ("PERMISSIONS__REQUESTS_PER_WEEK", "17"),
    ("PERMISSIONS__CALLS_PER_DAY", "18"),
    ("PERMISSIONS__TEMPORARY_SECONDS", "19"),
    ("PERMISSIONS__REQUEST_SECONDS", "20"),
    ("PERMISSIONS__PROMPT_AFTER", "21"),
    ("PERMISSIONS__REVOKE_AFTER", "22"),
    ("PERMISSIONS__BARRED_COUNTRIES", "IN"),
    ("RETENTION__EVENT_LOG_DAYS", "23"),
    ("RETENTION__RECORDING_DAYS", "24"),
];

#[test]
fn each_key_sets_its_own_field() {
    for (key, value) in SCALARS {
        let shown = format!("{:?}", good(SECRETS, &[(&format!("OFFHOOK_{key}"), value)]));
        let field = key.split("__").last().unwrap().to_lowercase();
        let forms = ["", "\"", "Some(\"", "[\"", "["].map(|open| format!("{field}: {open}{value}"));
        assert!(forms.iter().any(|form| shown.contains(form.as_str())), "{key}: {shown}");
    }
}

#[test]
fn the_environment_reaches_entries_of_lists_by_index() {
    let text = format!("{SECRETS}{ACCOUNT}");
    let c = good(
        &text,
        &[("OFFHOOK_ACCOUNT__0__CPS", "25"), ("OFFHOOK_ACCOUNT__0__AUTH_TOKEN", "new")],
    );
    assert_eq!((c.accounts[0].cps, c.accounts[0].auth_token.reveal()), (Some(25), "new"));
    let problems = bad(&text, &[("OFFHOOK_ACCOUNT__1__CPS", "25")]);
    assert_eq!(problems[0].source, "OFFHOOK_ACCOUNT__1__CPS");
    assert!(problems[0].message.contains("the file has 1"), "{}", problems[0]);
}

#[test]
fn a_secret_in_the_environment_may_have_any_form() {
    let text = format!("{SECRETS}{ACCOUNT}");
    let named = "{ env = \"ELSEWHERE\" }";
    let env = [
        ("OFFHOOK_META__APP_SECRET", named),
        ("OFFHOOK_ACCOUNT__0__AUTH_TOKEN", named),
        ("ELSEWHERE", "found"),
    ];
    let c = good(&text, &env);
    assert_eq!((c.meta.app_secret.reveal(), c.accounts[0].auth_token.reveal()), ("found", "found"));
    let keys = "[{ env = \"ELSEWHERE\" }, { key = \"other\", role = \"agent\" }]";
    let c = good(&text, &[("OFFHOOK_ACCOUNT__0__API_KEYS", keys), ("ELSEWHERE", "found")]);
    let keys: Vec<_> =
        c.accounts[0].api_keys.iter().map(|key| (key.key.reveal(), key.role)).collect();
    assert_eq!(keys, [("found", Role::Owner), ("other", Role::Agent)]);
    for list in ["first, second", "[\"first\", \"second\"]"] {
        let c = good(&text, &[("OFFHOOK_ACCOUNT__0__API_KEYS", list)]);
        let keys: Vec<_> = c.accounts[0].api_keys.iter().map(|key| key.key.reveal()).collect();
        assert_eq!(keys, ["first", "second"], "{list}");
    }
    let c = good(&text, &[("OFFHOOK_ACCOUNT__0__API_KEYS", "")]);
    assert!(c.accounts[0].api_keys.is_empty());
    assert!(c.doubtful_secrets[0].contains("account[0].api_keys"), "{:?}", c.doubtful_secrets);
    for (wrong, why) in [
        (named, "needs the environment variable ELSEWHERE"),
        ("{ evn = \"ELSEWHERE\" }", "has an unknown form `evn`"),
        ("{ env = \"A\", file = \"B\" }", "is not one of the forms of a secret"),
    ] {
        let problems = bad(&text, &[("OFFHOOK_META__APP_SECRET", wrong)]);
        assert_eq!(problems[0].source, "OFFHOOK_META__APP_SECRET");
        assert!(problems[0].message.contains(why), "{}", problems[0]);
    }
    // Text that is not complete TOML is the secret itself.
    let c = good(&text, &[("OFFHOOK_META__APP_SECRET", "{ env = ")]);
    assert_eq!(c.meta.app_secret.reveal(), "{ env = ");
}

#[test]
fn a_secret_from_a_file_has_no_line_end() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"from a file\n").expect("written");
    let path = file.path().display();
    let c = good(&format!("[meta]\napp_secret = {{ file = '{path}' }}\nverify_token = 'v'\n"), &[]);
    assert_eq!(c.meta.app_secret.reveal(), "from a file");
    let gone = "[meta]\napp_secret = { file = '/nowhere/at/all' }\nverify_token = 'v'\naccess_token = { file = '/nowhere' }\n";
    let problems = bad(gone, &[]);
    assert_eq!(problems.len(), 1, "the optional one is absent");
    assert!(problems[0].message.contains("/nowhere/at/all"));
}

#[test]
fn an_optional_secret_that_is_named_but_has_no_value_is_a_warning() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let blank = file.path().display();
    let gone = "{ file = '/nowhere/key' }";
    let text = format!(
        "[meta]\napp_secret = \"s\"\nverify_token = \"v\"\naccess_token = {{ env = \"UNSET\" }}\n\
         app_secret_previous = {gone}\n\
         [store]\nsecret_key = {{ file = '{blank}' }}\n\
         [speech.openai]\nurl = \"https://tts.example\"\napi_key = {gone}\n\
         [model]\nurl = \"https://llm.example\"\napi_key = \"\"\n\
         [alerts]\nsecret = {gone}\n\
         {OIDC}client_secret = {gone}\n\
         {ACCOUNT}auth_token_previous = {gone}\n\
         api_keys = [\"a\", {gone}, {{ key = {{ env = \"BLANK\" }}, role = \"agent\" }}]\n\
         [[account]]\nauth_id = \"MAYYYYYYYYYYYYYYYYYY\"\nauth_token = \"t\"\napi_keys = {gone}\n\
         {WABA}[[webhook]]\nname = \"crm\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\n\
         url = \"https://crm.example/\"\nsecret = \"s\"\nsecret_previous = {gone}\n"
    );
    let config = good(&text, &[("BLANK", " ")]);
    let warned: Vec<&str> = config.doubtful_secrets.iter().map(String::as_str).collect();
    let names: Vec<&str> = warned.iter().filter_map(|warning| warning.split('`').nth(1)).collect();
    assert_eq!(
        names,
        [
            "meta.app_secret_previous",
            "meta.access_token",
            "store.secret_key",
            "speech.openai.api_key",
            "model.api_key",
            "alerts.secret",
            "oidc.client_secret",
            "account[0].auth_token_previous",
            "account[0].api_keys[1]",
            "account[0].api_keys[2].key",
            "account[1].api_keys",
            "webhook[0].secret_previous",
        ]
    );
    for (nth, words) in [
        (1, "needs the environment variable UNSET, which is unset or empty"),
        (2, "which does not exist or is empty: the key file `store.key` in `data_dir` is used"),
        (4, "is empty: requests to the model have no API key"),
        (8, "needs the file /nowhere/key, which does not exist or is empty: the account has no"),
        (9, "needs the environment variable BLANK"),
    ] {
        assert!(warned[nth].contains(words), "{}", warned[nth]);
    }
    assert!(warned[2].contains(&blank.to_string()), "{}", warned[2]);
    assert!(config.warnings().starts_with(&config.doubtful_secrets));
    assert_eq!(good(&format!("{SECRETS}{ACCOUNT}"), &[]).doubtful_secrets, [""; 0]);
    // Where another key needs the secret, the fault names its file.
    for (more, path) in [
        ("[alerts]\nurl = \"https://a.example/\"\nsecret = GONE\n", "`alerts.secret`"),
        (
            "[[waba]]\nid = \"1\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\naccess_token = GONE\n",
            "`waba[0].access_token`",
        ),
        (
            "[store]\nurl = \"postgres://db/offhook\"\nsecret_key = GONE\n[cluster]\npeer = \"10.0.0.1:7900\"\n",
            "`store.secret_key`",
        ),
    ] {
        let problems = bad(&format!("{SECRETS}{ACCOUNT}{}", more.replace("GONE", gone)), &[]);
        let expected = format!("{path} needs the file /nowhere/key");
        assert!(problems[0].message.contains(&expected), "{}", problems[0]);
    }
}

/// Text before the secrets, line and column in it, part of the message, part of the hint.
const FAULTS: &[(&str, (usize, usize), &str, &str)] = &[
    ("[[webhook]]\nname = \"crm\"\nurl = \"\"", (3, 7), "`url` is empty", "events are posted to"),
    // unknown keys, with the nearest
    ("[listn]\npublic = \"0.0.0.0:80\"", (1, 2), "unknown key `listn`", "did you mean `listen`?"),
    (
        "[listen]\npublik = \"0.0.0.0:80\"",
        (2, 1),
        "unknown key `publik` in [listen]",
        "did you mean `public`?",
    ),
    (
        "[answer]\nzzz = 1",
        (2, 1),
        "unknown key `zzz` in [answer]",
        "known are `timeout_ms`, `max_body_bytes`",
    ),
    (
        "[[account]]\nauth_id = \"MAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"t\"\ncsp = 3",
        (4, 1),
        "unknown key `csp`",
        "`cps`",
    ),
    // types and ranges
    ("[listen]\npublic = 8080", (2, 10), "`public` is a number", "put it in quotes"),
    ("[listen]\npublic = \"8080\"", (2, 10), "`public` is not valid", "0.0.0.0:8080"),
    (
        "[listen]\ntrusted_proxies = [\"10.0.0.0/8\", \"10/8\"]",
        (2, 34),
        "`trusted_proxies` is not valid",
        "prefix",
    ),
    ("[listen]\nproxies_only = true", (2, 16), "no client could connect", "`trusted_proxies`"),
    ("[listen]\nmedia_ports = 0", (2, 15), "`media_ports` is 0", "from 1 to 65535"),
    (
        "[listen]\nmedia = \"0.0.0.0:65000\"\nmedia_ports = 537",
        (2, 9),
        "537 ports do not fit",
        "use a lower port",
    ),
    (
        "[listen]\npublic = \"[::]:80\"\nadmin = \"[::]:80\"",
        (3, 9),
        "`admin` and `public` are both [::]:80",
        "its own",
    ),
    (
        "[listen]\npublic = \"127.0.0.1:9090\"",
        (2, 10),
        "`admin` and `public` are both 127.0.0.1:9090",
        "its own",
    ),
    (
        "[listen]\npublic = \"0.0.0.0:9090\"",
        (2, 10),
        "`admin` 127.0.0.1:9090 is also an address of `public` 0.0.0.0:9090",
        "its own",
    ),
    ("[model]\nname = \"small\"", (1, 1), "`url`", "remove [model]"),
    ("[limits]\ndefault_cps = 0", (2, 15), "`default_cps` is 0", "from 1"),
    ("[limits]\ndefault_cps = \"10\"", (2, 15), "`default_cps` is text", "a whole number"),
    ("[answer]\nallow_insecure = \"yes\"", (2, 18), "`allow_insecure` is text", "true or false"),
    ("[answer]\ntimeout_ms = 1e3", (2, 14), "`timeout_ms` is a fraction", "whole number"),
    ("[permissions]\nbarred_countries = [\"us\"]", (2, 21), "has \"us\"", "two capital letters"),
    (
        "[permissions]\nbarred_countries = [\"TR\", \"UK\"]",
        (2, 27),
        "has \"UK\", which is not a country",
        "\"GB\"",
    ),
    (
        "[permissions]\nbarred_countries = [\"JE\"]",
        (2, 21),
        "shares its calling code with GB",
        "which bars both",
    ),
    ("answer = 3", (1, 10), "`answer` is a number, not a table", "[answer]"),
    ("[account]\nauth_id = 1", (1, 1), "`account` is a table, not a list", "[[account]]"),
    // URLs
    ("[public]\nbase_url = \"calls.example.com\"", (2, 12), "is not a URL", "https://"),
    ("[public]\nbase_url = \"/calls\"", (2, 12), "is not a URL", "https://"),
    ("[public]\nbase_url = \"https://a.example/?x=1\"", (2, 12), "has a query", ""),
    ("[public]\nmedia_ips = [\"calls.example.com\"]", (2, 14), "is not valid", "an IP address"),
    (
        "[turn]\nusername = \"u\"\npassword = \"p\"",
        (1, 1),
        "`server` is missing in [turn]",
        "turn.example.com",
    ),
    ("[public]\nmedia_ips = \"all\"", (2, 13), "is text", "\"auto\" or a list in brackets"),
    ("[public]\nstun_servers = [\"stun:a/b\"]", (2, 17), "is not valid", "a host and a port"),
    (
        "[listen]\nmedia = \"0.0.0.0:22600\"\n[public]\nmedia_ips = [\"fd00::2\"]",
        (4, 13),
        "no address of `media_ips` leads to `[listen] media` 0.0.0.0:22600",
        "IPv4 address of this machine, or set `media` to [::]",
    ),
    (
        "[listen]\nmedia = \"127.0.0.1:9\"\n[public]\nmedia_ips = [\"::1\", \"0.0.0.0\"]",
        (4, 13),
        "leads to",
        "IPv4",
    ),
    (
        "[listen]\nmedia = \"[fd00::2]:9\"\n[public]\nmedia_ips = [\"192.0.2.1\"]",
        (4, 13),
        "leads to",
        "an IPv6",
    ),
    ("[store]\nurl = \"postgres://db/\"", (2, 7), "names no database", "host/database"),
    ("[store]\nurl = \"mysql://db/offhook\"", (2, 7), "is not the URL of a database", "sqlite://"),
    (
        "[store]\nurl = { env = \"NOT_THERE\" }",
        (2, 7),
        "needs the environment variable NOT_THERE",
        "sqlite://",
    ),
    ("[store]\nurl = { file = \"/not/there\" }", (2, 7), "needs the file /not/there", "sqlite://"),
    ("[cluster]\nurl = \"redis://r:6379\"", (2, 7), "needs no Redis", "peer = \"HOST:7900\""),
    ("[cluster]\npeer = \"10.0.0.1:1\"", (2, 8), "needs a PostgreSQL database", "[store] url"),
    (
        "[store]\nurl = \"postgres://db/offhook\"\n[cluster]\npeer = \"10.0.0.1:1\"",
        (4, 8),
        "needs `store.secret_key`",
        "the same [store] secret_key",
    ),
    (
        "[store]\nurl = \"postgres://db/offhook\"\nsecret_key = \"0123456789abcdef0123456789abcdef\"\n\
         [cluster]\npeer = \"10.0.0.1\"",
        (5, 8),
        "is not a host and a port",
        "10.0.0.1:7900",
    ),
    (
        "[store]\nurl = \"postgres://db/offhook\"\nsecret_key = \"0123456789abcdef0123456789abcdef\"\n\
         [cluster]\npeer = \"a:1\"\nnode_id = \"A_1\"",
        (6, 11),
        "is not the name of a node",
        "lower-case",
    ),
    ("[cluster]\nadvertise = \"a:8\"", (2, 13), "has no meaning for a node alone", "7900"),
    ("[cluster]\nstrict = true", (2, 10), "has no meaning for a node alone", "7900"),
    // accounts
    (
        "[[account]]\nauth_id = \"MA1\"\nauth_token = \"t\"",
        (2, 11),
        "is not an auth_id (3 characters)",
        "20 in all",
    ),
    (
        "[[account]]\nauth_id = \"MAXXXXXXXXXXXXXXXXXX\"",
        (1, 1),
        "`auth_token` is missing in [[account]]",
        "signs callbacks",
    ),
    (
        "[[account]]\nauth_id = \"SAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"t\"",
        (1, 1),
        "has no `parent`",
        "MA",
    ),
    (
        "[[account]]\nauth_id = \"SAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"t\"\nparent = \"MAYYYYYYYYYYYYYYYYYY\"",
        (4, 10),
        "is not a main account",
        "",
    ),
    (
        "[[user]]\nname = \"a\"\npassword = \"p\"\naccount = \"MAYYYYYYYYYYYYYYYYYY\"\nrole = \"boss\"",
        (5, 8),
        "`role` is \"boss\"",
        "\"owner\", \"admin\", \"agent\"",
    ),
    (
        "[[waba]]\nid = \"1\"\naccount = \"MAYYYYYYYYYYYYYYYYYY\"\naccess_token = \"a\"",
        (3, 11),
        "no [[account]] has",
        "this file has none",
    ),
];

#[test]
fn the_database_url_may_be_written_like_a_secret() {
    let text = format!("{SECRETS}\n[store]\nurl = {{ env = \"STORE\" }}");
    let c = good(&text, &[("STORE", "postgres://offhook:canary@db/calls")]);
    assert_eq!(c.store.database.to_string(), "postgres://db/calls");
    assert!(!format!("{c:?}").contains("canary"));
    let wrong = bad(&text, &[("STORE", "mysql://offhook:canary@db/calls")]);
    assert!(
        wrong[0].message.contains("is not the URL of a database")
            && !format!("{wrong:?}").contains("canary")
    );
}

#[test]
fn a_file_of_sqlite_beside_postgresql_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = toml::Value::from(folder.path().to_str().unwrap());
    let store =
        |url: &str| good(&format!("{SECRETS}\n[store]\ndata_dir = {data_dir}\n{url}"), &[]).store;
    let postgresql = store("url = \"postgres://db/calls\"");
    assert_eq!(postgresql.unused_file(), None);
    let file = folder.path().join("offhook.db");
    std::fs::write(&file, "").unwrap();
    let warning = postgresql.unused_file().unwrap();
    assert!(warning.starts_with(&format!("{} is not used", file.display())), "{warning}");
    assert_eq!(store("").unused_file(), None);
}

#[test]
fn each_fault_has_its_place_and_a_hint() {
    for (text, (line, column), message, hint) in FAULTS {
        let problems = bad(&format!("{text}\n{SECRETS}"), &[]);
        let found = problems.iter().any(|p| {
            p.position == Some((*line, *column))
                && p.message.contains(message)
                && p.hint.contains(hint)
        });
        assert!(found, "{text}\n→ {problems:#?}");
    }
}

#[test]
fn r16_a_key_opens_one_account() {
    let key = "api_keys = [\"a-key-of-more-than-20-characters\"]\n";
    let other = "[[account]]\nauth_id = \"MAYYYYYYYYYYYYYYYYYY\"\nauth_token = \"another-token-of-20-letters\"\n";
    let text = format!("{SECRETS}{ACCOUNT}{key}{other}{key}{WABA}");
    let problems = bad(&text, &[]);
    let found = problems.iter().find(|p| p.message.contains("the account has an API key of MA"));
    let shown = format!("{:?}", found.unwrap_or_else(|| panic!("{problems:#?}")));
    assert!(!shown.contains("a-key-of"), "{shown}");
}

#[test]
fn numbers_are_checked_against_other_entries() {
    let number = |more: &str| {
        let head =
            "[[number]]\nnumber = \"918035737458\"\nphone_number_id = \"7\"\nwaba = \"102\"\n";
        format!("{SECRETS}{ACCOUNT}{WABA}{head}{more}")
    };
    let cases = [
        ("calling_enabled = true", "`calling_enabled` needs an `answer_url`"),
        ("calling_enabled = true\nanswer_url = \"\"", "`calling_enabled` needs an `answer_url`"),
        ("answer_url = \"http://app.example.com/\"", "`answer_url` is http"),
        ("answer_url = \"https://u:p@app.example.com/\"", "contains a user name or a password"),
        ("hangup_url = \"ftp://app.example.com/\"", "neither http nor https"),
        ("answer_method = \"PUT\"", "`answer_method` is \"PUT\""),
        ("permissions = { calls_per_dai = 1 }", "unknown key `calls_per_dai` in [permissions]"),
        (
            "[[number]]\nnumber = \"918035737458\"\nphone_number_id = \"8\"\nwaba = \"102\"",
            "\"918035737458\" is used twice",
        ),
        (
            "[[number]]\nnumber = \"918035737459\"\nphone_number_id = \"7\"\nwaba = \"102\"",
            "`phone_number_id` \"7\" is used twice",
        ),
        (
            "[[number]]\nnumber = \"918035737459\"\nphone_number_id = \"8\"\nwaba = \"103\"",
            "no [[waba]] has the id 103",
        ),
        (
            "[[number]]\nnumber = \"+91 8035737459\"\nphone_number_id = \"8\"\nwaba = \"102\"",
            "not in E.164 digits",
        ),
        (
            "[[number]]\nnumber = \"0803\"\nphone_number_id = \"8\"\nwaba = \"102\"",
            "not a phone number",
        ),
    ];
    for (more, message) in cases {
        let problems = bad(&number(more), &[]);
        assert!(problems.iter().any(|p| p.message.contains(message)), "{more}\n→ {problems:#?}");
    }
    let ok = good(
        &number("answer_url = \"http://app.example.com/\""),
        &[("OFFHOOK_ANSWER__ALLOW_INSECURE", "true")],
    );
    assert!(!ok.numbers[0].calling_enabled, "calling is off by default");
}

#[test]
fn warns_if_meta_itself_is_called_simulated() {
    let warns = |graph_url: &str| {
        let meta = SECRETS.replacen("[meta]", &format!("[meta]\nsimulated = true\n{graph_url}"), 1);
        good(&format!("{meta}{ACCOUNT}"), &[]).warnings().join("").contains("simulated")
    };
    assert!(warns("") && !warns("graph_url = \"https://meta.example.com/v23.0\""));
}

#[test]
fn warns_if_there_is_no_account() {
    let warns = |account: &str| {
        let config = good(&format!("{SECRETS}{account}"), &[]);
        config.warnings().join("").contains("there is no account")
    };
    assert!(warns("") && !warns(ACCOUNT));
}

#[test]
fn warns_of_short_tokens() {
    let warns = |verify: &str, access: &str| {
        let meta = format!(
            "[meta]\napp_secret = \"s\"\nverify_token = \"{verify}\"\naccess_token = \"{access}\"\n"
        );
        let warnings = good(&format!("{meta}{ACCOUNT}"), &[]).warnings().join("");
        ["verify_token", "access_token"].map(|name| warnings.contains(&format!("{name} has fewer")))
    };
    let long = "0123456789abcdefghij";
    assert_eq!(warns("short", "abc"), [true, true]);
    assert_eq!(warns(long, long), [false, false]);
}

#[test]
fn warns_of_a_graph_url_without_version() {
    let warns = |graph_url: &str| {
        let meta = SECRETS.replacen("[meta]", &format!("[meta]\ngraph_url = \"{graph_url}\""), 1);
        good(&format!("{meta}{ACCOUNT}"), &[]).warnings().join("").contains("no version")
    };
    assert!(warns("http://127.0.0.1:8081") && warns("https://graph.facebook.com/"));
    assert!(!warns("https://graph.facebook.com/v23.0"));
}

#[test]
fn warns_of_a_graph_url_that_sends_the_token_in_the_clear() {
    let warns = |graph_url: &str| {
        let meta = SECRETS.replacen("[meta]", &format!("[meta]\ngraph_url = \"{graph_url}\""), 1);
        let text = format!("{meta}{ACCOUNT}[answer]\nallow_insecure = true\n");
        good(&text, &[]).warnings().join("").contains("without encryption")
    };
    assert!(warns("http://8.8.8.8/v23.0") && warns("http://meta.example.com/v23.0"));
    for near in
        ["http://127.0.0.1/v1", "http://10.0.0.7/v1", "http://meta/v1", "https://8.8.8.8/v1"]
    {
        assert!(!warns(near), "{near}");
    }
}

#[test]
fn warns_of_an_api_key_that_is_listed_twice() {
    let warns = |second: &str| {
        let keys = format!("api_keys = [\"one\", {{ key = \"{second}\", role = \"agent\" }}]\n");
        good(&format!("{SECRETS}{ACCOUNT}{keys}"), &[])
            .warnings()
            .join("")
            .contains("same key twice")
    };
    assert!(warns("one") && !warns("two"));
}

#[test]
fn warns_of_a_proxy_that_is_not_trusted() {
    let warns = |listen: &str, base_url: &str| {
        let public = format!("[public]\nbase_url = \"{base_url}\"\n");
        let config = good(&format!("{SECRETS}{ACCOUNT}[listen]\n{listen}\n{public}"), &[]);
        config.warnings().join("").contains("trusted_proxies")
    };
    let local = "public = \"127.0.0.1:8080\"";
    assert!(warns(local, "https://calls.example.com"));
    assert!(!warns(local, "http://calls.example.com"));
    assert!(!warns("public = \"0.0.0.0:8080\"", "https://calls.example.com"));
    let trusted = format!("{local}\ntrusted_proxies = [\"127.0.0.1\"]\nproxies_only = true");
    assert!(!warns(&trusted, "https://calls.example.com"));
    let own = format!("{local}\nhttps = \"0.0.0.0:443\"\n[tls]\ncert = \"c\"\nkey = \"k\"\n");
    assert!(!warns(&own, "https://calls.example.com"), "there is no proxy");
    for everybody in ["0.0.0.0/0", "::/0"] {
        let listen = format!("{local}\ntrusted_proxies = [\"{everybody}\"]");
        assert!(warns(&listen, "https://calls.example.com"), "{everybody}");
    }
}

#[test]
fn warns_of_an_admin_listener_at_a_public_address() {
    let warns = |admin: &str| {
        let config = good(&format!("{SECRETS}{ACCOUNT}[listen]\nadmin = \"{admin}\"\n"), &[]);
        config.warnings().join("").contains("[listen] admin")
    };
    for address in ["0.0.0.0:9090", "[::]:9090", "8.8.8.8:9090", "[2606:4700::1]:9090"] {
        assert!(warns(address), "{address}");
    }
    for address in ["127.0.0.1:9090", "[::1]:9090", "10.0.0.1:9090", "[fd00::1]:9090"] {
        assert!(!warns(address), "{address}");
    }
}

const HTTPS: &str = "[listen]\nhttps = \"0.0.0.0:443\"\n";

#[test]
fn warns_of_certificate_files_that_do_not_exist() {
    let there = tempfile::NamedTempFile::new().unwrap();
    let there = there.path().display();
    let tls = format!("[tls]\ncert = '{there}'\nkey = '/nowhere/a.key'\n");
    let more = format!("[[tls.certificate]]\ncert = '/nowhere/b.pem'\nkey = '{there}'\n");
    let config = good(&format!("{SECRETS}{HTTPS}{tls}{more}"), &[]);
    let warnings = config.warnings();
    let warned: Vec<_> = warnings.iter().filter(|text| text.starts_with("[tls]")).collect();
    assert!(
        warned[0].starts_with("[tls] key: the file /nowhere/a.key does not exist"),
        "{warned:?}"
    );
    assert!(
        warned[1].starts_with("[tls] cert: the file /nowhere/b.pem does not exist"),
        "{warned:?}"
    );
    assert_eq!(warned.len(), 2, "{warned:?}");
}

#[test]
fn warns_of_placeholders_in_secrets() {
    let config = good(
        "[meta]\napp_secret = \"${META_APP_SECRET}\"\nverify_token = { env = \"TOKEN\" }\n\
         access_token = \"EAA$1{2}${\"\n[model]\nurl = \"https://llm.example\"\napi_key = \"Bearer ${KEY}\"\n",
        &[("TOKEN", "${VERIFY_TOKEN}")],
    );
    let warned: Vec<_> =
        config.warnings().into_iter().filter(|w| w.contains("placeholder")).collect();
    let names: Vec<_> = warned.iter().filter_map(|warning| warning.split('`').nth(1)).collect();
    assert_eq!(names, ["meta.app_secret", "meta.verify_token", "model.api_key"]);
    assert!(warned[0].ends_with("write { env = \"NAME\" }"), "{warned:?}");
}

#[test]
fn certificates_come_from_files_or_from_an_authority() {
    let tls = |text: &str| good(&format!("{SECRETS}{HTTPS}[tls]\n{text}"), &[]);
    let files = |cert: &str, key: &str| CertificateFiles { cert: cert.into(), key: key.into() };
    let config = tls(
        "cert = \"a.pem\"\nkey = \"a.key\"\n[[tls.certificate]]\ncert = \"b.pem\"\nkey = \"b.key\"\n",
    );
    assert_eq!(
        config.tls,
        Some(TlsSettings::Files(vec![files("a.pem", "a.key"), files("b.pem", "b.key")]))
    );
    assert!(config.public.base_url.is_none());
    assert_eq!(config.listen.https.map(|https| https.port()), Some(443));
    let config = tls("domains = [\"Calls.example.com\", \"b.example.com\"]");
    let Some(TlsSettings::Acme(acme)) = &config.tls else { panic!("{:?}", config.tls) };
    assert_eq!(acme.domains, ["calls.example.com", "b.example.com"]);
    assert_eq!(acme.directory, AcmeSettings::lets_encrypt());
    let base = config.public.base_url.as_ref().map(url::Url::as_str);
    assert_eq!(base, Some("https://calls.example.com/"), "the first of them");
    assert!(good(SECRETS, &[]).tls.is_none());
    let plain = format!(
        "{SECRETS}{HTTPS}[tls]\ncert = \"c\"\nkey = \"k\"\n[public]\nbase_url = \"http://a.example\""
    );
    assert!(good(&plain, &[]).warnings().join("").contains("base_url"));
}

#[test]
fn faults_of_certificates_name_their_key() {
    for (text, place, message, hint) in [
        (HTTPS.to_owned(), (2, 9), "`https` needs a certificate", "`domains`"),
        (
            "[tls]\ncert = \"c\"\nkey = \"k\"\n".to_owned(),
            (1, 1),
            "no meaning",
            "https = \"0.0.0.0:443\"",
        ),
        (format!("{HTTPS}[tls]\n"), (3, 1), "names no certificate", "`cert` and `key`"),
        (format!("{HTTPS}[tls]\ncert = \"c\"\n"), (4, 8), "`cert` needs `key`", "private key"),
        (format!("{HTTPS}[tls]\nkey = \"k\"\n"), (4, 7), "`key` needs `cert`", "certificate"),
        (
            format!("{HTTPS}[tls]\ndomains = [\"a.example\"]\ncert = \"c\"\nkey = \"k\"\n"),
            (4, 11),
            "both set",
            "remove one",
        ),
        (
            format!("{HTTPS}[tls]\ncert = \"c\"\nkey = \"k\"\nemail = \"a@b.example\"\n"),
            (6, 9),
            "`email` has no meaning",
            "`domains`",
        ),
        (
            format!("{HTTPS}[tls]\ndomains = [\"a.example\", \"*.b.example\"]\n"),
            (4, 25),
            "which is not a host name",
            "needs files",
        ),
        (
            format!("{HTTPS}[tls]\ndomains = [\"192.0.2.1\"]\n"),
            (4, 12),
            "which is not a host name",
            "without scheme",
        ),
        (
            format!(
                "{HTTPS}[tls]\ndomains = [\"a.example\"]\n[public]\nbase_url = \"https://b.example\"\n"
            ),
            (4, 11),
            "b.example, is not one of `domains`",
            "add it",
        ),
        (
            format!(
                "{HTTPS}[tls]\ndomains = [\"a.example\"]\nacme_directory = \"http://ca.example/\"\n"
            ),
            (5, 18),
            "`acme_directory` is http",
            "use https",
        ),
        (
            "[listen]\nhttps = \"0.0.0.0:8080\"\n[tls]\ncert = \"c\"\nkey = \"k\"\n".to_owned(),
            (2, 9),
            "are both 0.0.0.0:8080",
            "its own",
        ),
    ] {
        let problems = bad(&format!("{text}{SECRETS}"), &[]);
        let found = problems.iter().find(|problem| problem.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{text}: {problems:?}"));
        assert_eq!(found.position, Some(place), "{text}: {found}");
        assert!(found.hint.contains(hint), "{text}: {found}");
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    }
}

#[test]
fn r17_warns_of_urls_that_are_never_requested() {
    let warnings = |url: &str, insecure: &str| {
        let head =
            "[[number]]\nnumber = \"918035737458\"\nphone_number_id = \"7\"\nwaba = \"102\"\n";
        let hook =
            "[[webhook]]\nname = \"crm\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\nsecret = \"s\"\n";
        let text = format!(
            "{SECRETS}{ACCOUNT}{WABA}{hook}url = \"{url}\"\n{head}fallback_url = \"{url}\""
        );
        let long = "0123456789abcdefghij";
        let environment =
            [("OFFHOOK_ANSWER__ALLOW_INSECURE", insecure), ("OFFHOOK_META__VERIFY_TOKEN", long)];
        good(&text, &environment).warnings().join("\n")
    };
    for (url, insecure, reason) in [
        ("https://10.0.0.1/a", "false", "could not connect to 10.0.0.1"),
        ("https://[::1]/a", "false", "could not connect to ::1"),
        ("https://app.example.com:22/a", "false", "the port 22 is not allowed"),
        ("http://127.0.0.1:1/a", "true", "the port 1 is not allowed"),
    ] {
        let warned = warnings(url, insecure);
        for of in ["`fallback_url` of ", "`url` of the webhook crm "] {
            assert!(warned.contains(of) && warned.contains(reason), "{url}: {warned}");
        }
    }
    assert_eq!(warnings("https://app.example.com/a", "false"), "");
    assert_eq!(warnings("http://127.0.0.1:8000/a", "true"), "");
}

#[test]
fn a_waba_needs_an_access_token_somewhere() {
    let text =
        format!("{SECRETS}{ACCOUNT}[[waba]]\nid = \"102\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\n");
    assert!(bad(&text, &[])[0].message.contains("no access token"));
    good(&text, &[("OFFHOOK_META__ACCESS_TOKEN", "a")]);
}

#[test]
fn a_file_with_secrets_that_can_be_guessed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.toml");
    let config = |secret: &str, password: &str| {
        format!(
            "[meta]\napp_secret = \"{secret}\"\nverify_token = \"v\"\n\
             app_secret_previous = \"{secret}\"\n[store]\nsecret_key = \"{secret}\"\n\
             [[account]]\nauth_id = \"MAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"{secret}\"\n\
             auth_token_previous = \"{secret}\"\n\
             api_keys = [\"{secret}\", {{ key = \"{secret}\", role = \"agent\" }}]\n\
             [[webhook]]\nname = \"crm\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\n\
             url = \"https://crm.example.com/\"\nsecret = \"{secret}\"\nsecret_previous = \"{secret}\"\n\
             [[user]]\nname = \"asha\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\nrole = \"owner\"\n\
             password = \"{password}\"\n"
        )
    };
    let load = |text: String| {
        std::fs::write(&file, text).unwrap();
        Config::load(&file, &speech).map(drop)
    };
    load(config(&"é".repeat(20), "0123456789")).unwrap();
    let Err(super::ConfigError::Invalid(problems)) =
        load(config("canary-of-19-charac", "012345678"))
    else {
        panic!("accepted")
    };
    let keys: Vec<&str> =
        problems.0.iter().filter_map(|problem| problem.message.split('`').nth(1)).collect();
    assert_eq!(
        keys,
        [
            "app_secret",
            "app_secret_previous",
            "secret_key",
            "auth_token",
            "auth_token_previous",
            "api_keys",
            "key",
            "secret",
            "secret_previous",
            "password",
        ]
    );
    let shown = problems.to_string();
    assert!(shown.contains("openssl rand -hex 16") && shown.contains("fewer than 10"), "{shown}");
    assert!(!shown.contains("canary-of-19"), "{shown}");
}

#[test]
fn a_required_secret_must_not_be_empty() {
    let empty = bad("[meta]\napp_secret = \"\"\nverify_token = { env = \"NOT_SET\" }\n", &[]);
    assert_eq!(empty.len(), 2);
    assert_eq!(
        (empty[0].position, empty[0].message.as_str()),
        (Some((2, 14)), "`app_secret` is empty")
    );
    assert!(empty[1].message.contains("environment variable NOT_SET"), "{}", empty[1]);
    assert_eq!(bad("", &[]).len(), 2, "both missing without a [meta] at all");
    assert_eq!(
        bad("", &[("OFFHOOK_META__APP_SECRTE", "x")])
            .iter()
            .filter(|p| p.source.starts_with("OFFHOOK_"))
            .count(),
        1
    );
}

#[test]
fn the_excerpt_marks_the_fault_and_masks_secrets() {
    let text = "[answer]\ntimeout_msec = 5 # as \"hunter2\" said\n[meta]\napp_secret = \"hunter2\"\nverify_token = hunter2\n";
    let shown = bad(text, &[]).iter().map(ToString::to_string).collect::<String>();
    assert!(!shown.contains("hunter2"), "{shown}");
    let text = format!("{SECRETS}[answer]\ntimeout_msec = 5 # hunter2\n");
    let shown = bad(&text, &[]).iter().map(ToString::to_string).collect::<String>();
    assert_eq!(
        shown,
        "offhook.toml:5:1: unknown key `timeout_msec` in [answer]\n  5 | timeout_msec = 5 …\n    | ^^^^^^^^^^^^ did you mean `timeout_ms`?"
    );
    let text =
        format!("{SECRETS}{ACCOUNT}api_keys = [{{ key = \"hunter2\", roel = \"agent\" }}]\n");
    let shown = bad(&text, &[]).iter().map(ToString::to_string).collect::<String>();
    assert!(
        shown.contains("unknown key `roel`") && shown.contains("did you mean `role`?"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    let text = "[meta]\napp_secret = 5512345\nverify_token = \"v\"\n[[user]]\nname = \"x\\\"hunter2\"\npassword = [\"hunter2\"]";
    let shown = bad(text, &[]).iter().map(ToString::to_string).collect::<String>();
    assert!(!shown.contains("hunter2") && !shown.contains("5512345"), "{shown}");
}

#[test]
fn speech_is_validated_by_its_own_crate() {
    let text = format!("{SECRETS}[speech]\ncache_mb = 3\n[speech.openai]\nurl = \"x\"\n");
    let c = good(
        &text,
        &[("OFFHOOK_SPEECH__CACHE_MB", "7"), ("OFFHOOK_SPEECH__OPENAI__URL", "https://a.example")],
    );
    assert_eq!(c.speech["cache_mb"].as_integer(), Some(7));
    for (text, position) in [
        ("[speech]\ncolour = 1\n", (2, 1)),
        ("[speech]\ncache_mb = \"x\"\n", (2, 1)),
        ("[speech.openai]\nurl = \"x\"\nuri = 1\n", (3, 1)),
    ] {
        let problems = bad(&format!("{text}{SECRETS}"), &[]);
        assert_eq!(problems[0].position, Some(position), "{}", problems[0]);
    }
    assert!(bad(&format!("speech = 1\n{SECRETS}"), &[])[0].message.contains("not a table"));
}

#[test]
fn a_syntax_error_has_its_place() {
    let problems = bad("[listen\npublic = 1\n", &[]);
    assert_eq!(problems[0].position.map(|(line, _)| line), Some(1), "{problems:?}");
    let problems = bad("a = 1\na = 2\n", &[]);
    assert_eq!(problems[0].position, Some((2, 1)), "{problems:?}");
}

proptest::proptest! {
/// No text makes the reader panic.
#[test]
    fn any_text_is_read_or_rejected(text in "[ -~éß\\n\\t\"'=\\[\\]{}#]{0,200}") {
        if let Err(problems) = Config::from_parts("f", &text, &BTreeMap::new(), &|_| Ok(())) {
            let _ = problems.to_string();
        }
    }
}

#[test]
fn r25_a_hostile_file_is_rejected_in_bounded_time() {
    let deep = [
        format!("{} = 1\n", vec!["a"; 100_000].join(".")),
        format!("[{}]\n", vec!["a"; 100_000].join(".")),
        format!("a = {}\n", "[".repeat(200_000)),
        format!("a = {}\n", "{a=".repeat(100_000)),
        format!("{}\n", "[[a]]\n[a.a]\n".repeat(20_000)),
        "]\n".repeat(200_000),
        "a\n".repeat(200_000),
    ];
    for text in deep {
        let problems = bad(&text, &[]);
        assert!((1..=50).contains(&problems.len()), "{}", problems.len());
    }
}

#[test]
fn a_line_that_is_not_toml_has_one_syntax_error() {
    let document = "<Response><Speak language=\"en-US\">Hello, you!</Speak></Response>\n";
    let Err(problems) = Config::from_parts("a.xml", document, &env(&[]), &speech) else {
        panic!("it is not a configuration");
    };
    let on_line = problems.0.iter().filter(|problem| problem.hint == "see https://toml.io");
    assert_eq!(on_line.count(), 1, "{problems}");
}

#[test]
fn r22_no_typing_error_reveals_a_secret() {
    let text = format!(
        "{SECRETS}{ACCOUNT}api_keys = [\"k\", {{ key = \"k\", role = \"agent\" }}]\n{WABA}"
    )
    .replace("\"s\"", "\"CANARYZZ\"")
    .replace("\"v\"", "\"CANARYZZ\"")
    .replace("\"t\"", "'CANARYZZ'")
    .replace("\"k\"", "\"CANARYZZ\"")
    .replace("\"a\"", "\"CANARYZZ\"");
    assert_eq!(text.matches("CANARYZZ").count(), 6);
    let shown = |text: &str| match Config::from_parts("offhook.toml", text, &env(&[]), &speech) {
        Ok(config) => format!("{config:?}"),
        Err(problems) => problems.to_string(),
    };
    for (at, _) in text.char_indices() {
        let (before, after) = text.split_at(at);
        let mut slips =
            vec![before.to_owned(), format!("{before}{}", after.get(1..).unwrap_or_default())];
        slips.extend(
            ["\"", "'", "=", "\n", "\\", "#", "\"\"\"", "]", "["]
                .map(|slip| format!("{before}{slip}{after}")),
        );
        for slip in slips {
            let shown = shown(&slip);
            assert!(!shown.contains("CANARY") && !shown.contains("NARYZZ"), "{slip}\n---\n{shown}");
        }
    }
}

#[test]
fn reads_a_bucket_for_recordings() {
    let bucket = "[recordings.s3]\nendpoint = \"http://minio.internal:9000\"\nbucket = \"calls\"\naccess_key_id = \"id\"\n\
                  secret_access_key = { env = \"S3_SECRET\" }\n";
    let vars = [("S3_SECRET", "hush"), ("OFFHOOK_RECORDINGS__S3__KEEP_LOCAL", "false")];
    let s3 = good(&format!("{SECRETS}{bucket}prefix = \"a/b-\"\n"), &vars)
        .recordings
        .s3
        .expect("a bucket");
    assert_eq!(
        (s3.region.as_str(), s3.prefix.as_str(), s3.path_style),
        ("us-east-1", "a/b-", true)
    );
    assert_eq!((s3.keep_local, s3.redirect, s3.secret_access_key.reveal()), (false, false, "hush"));
    assert!(!format!("{s3:?}").contains("hush"));
    assert!(good(SECRETS, &[]).recordings.s3.is_none());

    for (text, part) in [
        (format!("{bucket}prefix = \"/a\"\n"), "`prefix`"),
        (format!("{bucket}prefix = \"a/../b\"\n"), "`prefix`"),
        (bucket.replace("calls", "c s"), "`bucket`"),
        (bucket.replace("http:", "ftp:"), "`endpoint`"),
        (format!("{bucket}acl = \"public\"\n"), "unknown key `acl`"),
        (bucket.replace("access_key_id = \"id\"\n", ""), "`access_key_id` is missing"),
    ] {
        let problems = bad(&format!("{SECRETS}{text}"), &vars);
        assert!(problems.iter().any(|p| p.message.contains(part)), "{text}: {problems:?}");
    }
    assert!(bad(&format!("{SECRETS}{bucket}"), &[])[0].message.contains("S3_SECRET"));
}

const OIDC: &str =
    "[oidc]\nissuer = \"https://login.example.com/realm\"\nclient_id = \"offhook\"\n";

#[test]
fn reads_a_sign_in_provider() {
    let at = |more: &str| format!("{SECRETS}{ACCOUNT}{OIDC}{more}");
    assert!(good(SECRETS, &[]).oidc.is_none());
    let config = good(&at(""), &[("OFFHOOK_OIDC__CLIENT_SECRET", "canary")]);
    let oidc = config.oidc.as_ref().unwrap();
    assert_eq!(
        (oidc.issuer.as_str(), oidc.name.as_str()),
        ("https://login.example.com/realm", "login.example.com")
    );
    assert_eq!(
        (oidc.scopes.join(" ").as_str(), &oidc.allow),
        ("openid email profile", &crate::openid::Allow::Invited)
    );
    assert_eq!(oidc.account.as_ref().map(|id| id.as_str()), Some("MAXXXXXXXXXXXXXXXXXX"));
    assert!(oidc.client_secret.is_some() && !format!("{oidc:?}").contains("canary"));
    assert!(config.warnings().join("").contains("base_url"));
    let anyone = "allow = \"anyone\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\nrole = \"agent\"\nrole_claim = \"groups\"\n\
        roles = { owner = \"chiefs\", agent = [\"desk\", \"night\"] }\n";
    let config = good(&at(anyone), &[]);
    assert!(config.warnings().join("").contains("domains"));
    let roles = config.oidc.unwrap().roles;
    assert_eq!((roles.len(), roles[0].1, roles[2].0.as_str()), (3, Role::Owner, "night"));
    for (more, words, line) in [
        ("allow = \"all\"", "`allow` is \"all\"", 10),
        ("allow = \"anyone\"", "needs `account` and `role`", 10),
        ("account = \"MAZZZZZZZZZZZZZZZZZZ\"", "no [[account]] has the auth_id", 10),
        ("role = \"agent\"", "`role` applies only to new people", 10),
        ("role_claim = \"groups\"", "`role_claim` needs `roles`", 10),
        (
            "role_claim = \"groups\"\nroles = { owner = \"y\", boss = \"x\" }",
            "unknown key `boss`",
            11,
        ),
        ("roles = { owner = \"y\" }", "`roles` needs `role_claim`", 7),
        (
            "allow = \"anyone\"\nrole = \"agent\"\naccount = \"MAXXXXXXXXXXXXXXXXX2\"",
            "no [[account]]",
            12,
        ),
        ("domains = [\"@example.com\"]", "not a mail domain", 10),
        ("scopes = [\"open id\"]", "`scopes` has", 10),
        ("secret = \"x\"", "unknown key `secret` in [oidc]", 10),
    ] {
        let found = bad(&at(more), &[]);
        assert!(found[0].message.contains(words), "{more}: {found:?}");
        assert_eq!(found[0].position.map(|(line, _)| line), Some(line), "{more}");
    }
    for issuer in
        ["http://login.example.com", "login.example.com", "https://x/?a=1", "https://u:p@x"]
    {
        let text = at("").replace("https://login.example.com/realm", issuer);
        assert!(bad(&text, &[])[0].message.starts_with("`issuer`"), "{issuer}");
    }
    let local = at("").replace("https://login.example.com", "http://localhost:8081");
    assert_eq!(good(&local, &[]).oidc.unwrap().issuer, "http://localhost:8081/realm");
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart() {
    let started = good(&format!("{SECRETS}{ACCOUNT}"), &[]);
    // These are the defaults, or a reload applies them.
    let more = "[limits]\ncalls_per_number = 1\n[media]\naccept_wait_ms = 0\n\
        [listen]\npublic = \"0.0.0.0:8080\"\n[answer]\ntimeout_ms = 100\n";
    let same = good(&format!("{SECRETS}{ACCOUNT}{more}"), &[("OFFHOOK_META__APP_SECRET", "new")]);
    assert_eq!(same.needs_restart(&started), [""; 0]);
    let bucket = "[recordings.s3]\nendpoint = \"https://s3.example.com\"\nbucket = \"calls\"\n\
        access_key_id = \"id\"\nsecret_access_key = { env = \"S3_SECRET\" }\n";
    let changed = good(
        &format!("{SECRETS}{bucket}[listen]\nmedia_ports = 1\n[speech]\ncache_mb = 1\n"),
        &[
            ("S3_SECRET", "one"),
            ("OFFHOOK_ANSWER__ALLOW_INSECURE", "true"),
            ("OFFHOOK_STORE__URL", "sqlite://elsewhere.db"),
            ("OFFHOOK_STORE__SECRET_KEY", "another"),
        ],
    );
    let names = [
        "answer.allow_insecure",
        "listen.media_ports",
        "recordings",
        "speech",
        "store.secret_key",
        "store.url",
    ];
    assert_eq!(changed.needs_restart(&started), names);
    assert_eq!(started.needs_restart(&changed), names);
    let again = |secret| good(&format!("{SECRETS}{bucket}"), &[("S3_SECRET", secret)]);
    assert_eq!(again("one").needs_restart(&again("one")), [""; 0]);
    assert_eq!(again("two").needs_restart(&again("one")), ["recordings"]);
    let oidc = |role: &str| {
        let roles = format!("role_claim = \"groups\"\nroles = {{ {role} = \"desk\" }}\n");
        good(&format!("{SECRETS}{OIDC}{roles}"), &[])
    };
    assert_eq!(oidc("admin").needs_restart(&oidc("admin")), [""; 0]);
    assert_eq!(oidc("agent").needs_restart(&oidc("admin")), ["oidc"]);
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md");
    let generated = Reference::collect().markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(page, &generated).expect("docs/reference is writable");
    }
    let committed = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/reference/configuration.md is out of date: \
         offhook config keys --markdown > docs/reference/configuration.md"
    );
}

#[test]
fn the_reference_has_every_key_with_its_meaning() {
    let reference = Reference::collect();
    let keys: Vec<_> = reference.keys().collect();
    assert!(keys.len() > 120, "{}", keys.len());
    for (section, key) in &keys {
        assert!(key.doc.ends_with(['.', '`']), "{section} {}: {}", key.name, key.doc);
        assert!(!key.kind.is_empty() && !key.doc.contains('|'), "{section} {}", key.name);
    }
    let find = |section: &str, name: &str| {
        keys.iter().find(|(s, key)| *s == section && key.name == name).map(|(_, key)| *key)
    };
    let secret = find("[meta]", "app_secret").unwrap();
    assert!(secret.kind == "secret" && !secret.restart);
    assert!(find("[listen]", "public").unwrap().restart);
    assert!(find("[oidc]", "roles").unwrap().restart);
    assert!(!find("[[number]]", "permissions").unwrap().restart);
    assert!(find("[[number]]", "answer_url").is_some());
    assert!(find("[recordings.s3]", "bucket").is_some());
    assert!(find("[speech.openai]", "voices").is_some());
}

#[test]
fn a_missing_access_token_names_the_variable_that_is_not_set() {
    let text = "[meta]\napp_secret = \"a\"\nverify_token = \"b\"\naccess_token = { env = \"NOT_SET\" }\n\
        [[account]]\nauth_id = \"MAXXXXXXXXXXXXXXXXXX\"\nauth_token = \"c\"\n\
        [[waba]]\nid = \"1\"\naccount = \"MAXXXXXXXXXXXXXXXXXX\"\n";
    for (named, variable) in
        [("", "NOT_SET"), ("access_token = { env = \"NOR_THIS\" }\n", "NOR_THIS")]
    {
        let faults = bad(&format!("{text}{named}"), &[]);
        let message = &faults[0].message;
        assert!(
            message.contains("has no access token")
                && message
                    .contains(&format!("the environment variable {variable}, which is unset")),
            "{message}"
        );
    }
}
