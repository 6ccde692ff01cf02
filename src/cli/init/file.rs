//! Formats the configuration file. The comments are the meanings of the keys in the reference.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Value;
use url::Url;

use super::secrets::{Secrets, account_id};
use super::site::Site;
use engine::config::Reference;
use engine::meta::numbers::PhoneNumber;

/// The width of comments.
const COLUMNS: usize = 100;
/// The address at which the node listens behind a proxy on the same machine.
const BEHIND_PROXY: &str = "127.0.0.1:8080";

/// The content of the file, except secrets.
pub(super) struct Plan {
    pub(super) site: Site,
    pub(super) email: Option<String>,
    pub(super) acme_directory: Option<Url>,
    pub(super) acme_ca: Option<PathBuf>,
    pub(super) behind_proxy: bool,
    pub(super) graph_url: Option<Url>,
    /// Whether `graph_url` is a simulated Meta on this machine.
    pub(super) simulated: bool,
    pub(super) app_id: String,
    pub(super) waba: String,
    pub(super) number: PhoneNumber,
    pub(super) answer_url: String,
    /// Whether `store.secret_key` is set. An existing store is already encrypted with a key.
    pub(super) seals_store: bool,
    pub(super) data_dir: PathBuf,
    /// Whether this machine has a public IPv6 address.
    pub(super) serves_ipv6: bool,
    /// The address of metrics and health checks, if it is not the default.
    pub(super) admin: Option<SocketAddr>,
}

impl Plan {
    /// Whether the node gets certificates itself.
    pub(super) fn has_tls(&self, reference: &Reference) -> bool {
        let wanted = self.site.is_public || self.acme_directory.is_some();
        wanted && !self.behind_proxy && reference.meaning("[listen]", "https").is_some()
    }

    /// The URL of the node, without a trailing slash.
    pub(super) fn base_url(&self) -> String {
        self.site.base_url(self.site.is_public || self.acme_directory.is_some())
    }

    /// The text of the file.
    pub(super) fn to_toml(&self, reference: &Reference, secrets: &Secrets) -> String {
        let mut file = Writer { reference, section: "", text: String::new() };
        file.comment(&format!(
            "Written by `offhook init`. `offhook config keys` lists all keys, and `offhook config check` checks this file. The secrets are files in {}.",
            secrets.folder().display()
        ));
        let has_tls = self.has_tls(reference);
        // The IPv6 wildcard takes both families.
        let everywhere = if self.serves_ipv6 { "[::]" } else { "0.0.0.0" };
        file.section("[listen]");
        if has_tls {
            file.key("public", format!("{everywhere}:80"));
            file.key("https", format!("{everywhere}:{}", self.site.https_port()));
        } else if self.site.is_public {
            file.key("public", BEHIND_PROXY);
            file.key("trusted_proxies", vec!["127.0.0.1".to_owned()]);
            file.key("proxies_only", true);
        } else {
            file.key("public", self.site.plain().to_string());
        }
        if self.serves_ipv6 && !self.simulated {
            file.key("media", "[::]:40000");
        }
        self.admin.iter().for_each(|admin| file.key("admin", admin.to_string()));
        if has_tls {
            file.section("[tls]");
            file.key("domains", vec![self.site.name()]);
            self.email.iter().for_each(|email| file.key("email", email.as_str()));
            let directory = self.acme_directory.iter();
            directory.for_each(|url| file.key("acme_directory", url.as_str()));
            self.acme_ca.iter().for_each(|ca| file.key("acme_ca", ca.display().to_string()));
        }
        file.section("[public]");
        file.key("base_url", self.base_url());
        match self.simulated {
            true => file.key("media_ips", vec!["127.0.0.1".to_owned()]),
            false => file.key("media_ips", "auto"),
        }
        file.section("[meta]");
        self.graph_url.iter().for_each(|url| {
            file.key("graph_url", url.as_str().trim_end_matches('/'));
        });
        file.key("app_id", self.app_id.as_str());
        for key in ["app_secret", "verify_token", "access_token"] {
            file.key(key, secrets.reference(key));
        }
        file.section("[store]");
        let database = self.data_dir.join(store::SQLITE_FILE_NAME);
        file.key("url", format!("sqlite://{}", database.display()));
        if self.seals_store {
            file.key("secret_key", secrets.reference("secret_key"));
        }
        if self.simulated {
            file.section("[answer]");
            file.key("allow_insecure", true);
        }
        let account = account_id(&self.waba);
        file.section("[[account]]");
        file.key("auth_id", account.as_str());
        file.key("auth_token", secrets.reference("auth_token"));
        file.key("api_keys", vec![secrets.reference("api_key")]);
        file.section("[[waba]]");
        file.key("id", self.waba.as_str());
        file.key("account", account);
        file.section("[[number]]");
        file.key("number", self.number.number.as_str());
        file.key("phone_number_id", self.number.id.as_str());
        file.key("waba", self.waba.as_str());
        if !self.number.verified_name.is_empty() {
            file.key("alias", self.number.verified_name.as_str());
        }
        file.key("calling_enabled", true);
        file.key("answer_url", self.answer_url.as_str());
        file.text
    }
}

/// Appends sections and keys to a text.
struct Writer<'r> {
    reference: &'r Reference,
    section: &'static str,
    text: String,
}

impl Writer<'_> {
    fn section(&mut self, title: &'static str) {
        self.section = title;
        self.text += &format!("\n{title}\n");
    }

    /// Writes a key below its meaning.
    fn key(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(meaning) = self.reference.meaning(self.section, name) {
            self.comment(&meaning);
        }
        self.text += &format!("{name} = {}\n", value.into());
    }

    fn comment(&mut self, text: &str) {
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > COLUMNS {
                self.text += &std::mem::replace(&mut line, "#".to_owned());
                self.text.push('\n');
            }
            line.push(' ');
            line += word;
        }
        self.text += &line;
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use engine::config::{Config, MediaIps};

    fn plan(simulated: bool) -> Plan {
        let domain = if simulated { "127.0.0.1:20001" } else { "calls.example.com" };
        Plan {
            site: Site::parse(domain, simulated).expect("a site"),
            email: Some("ops@example.com".to_owned()),
            acme_directory: None,
            acme_ca: None,
            behind_proxy: false,
            graph_url: simulated.then(|| "http://127.0.0.1:9/v23.0".parse().expect("a URL")),
            simulated,
            app_id: "4080123456789".to_owned(),
            waba: "1029384756".to_owned(),
            number: PhoneNumber {
                id: "106540352242922".to_owned(),
                number: "918035737458".to_owned(),
                verified_name: "Offhook \"demo\" # 1".to_owned(),
                ..PhoneNumber::default()
            },
            answer_url: "https://app.example.com/answer".to_owned(),
            seals_store: true,
            data_dir: "/srv/offhook-data".into(),
            serves_ipv6: true,
            admin: simulated.then(|| SocketAddr::from(([127, 0, 0, 1], 9_092))),
        }
    }

    /// Writes the file with its secrets and reads it as `serve` would.
    fn load(plan: &Plan) -> (String, Config) {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("offhook.toml");
        let secrets = Secrets::beside(&output);
        let secret = |text: &str| model::Secret::new(text);
        secrets
            .write(&secret("the-secret-of-the-app"), &secret("the-access-token-of-meta"), true)
            .expect("written");
        let text = plan.to_toml(&Reference::collect(), &secrets);
        let config = Config::from_parts("offhook.toml", &text, &BTreeMap::new(), &|_| Ok(()));
        let config = config.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        (text, config)
    }

    #[test]
    fn the_file_is_valid_and_every_key_has_a_comment() {
        let (text, config) = load(&plan(false));
        let base = config.public.base_url.as_ref().map(Url::as_str);
        assert_eq!(base, Some("https://calls.example.com/"));
        assert_eq!(config.public.media_ips, MediaIps::Auto);
        assert_eq!(config.listen.media.to_string(), "[::]:40000");
        assert_eq!(config.numbers[0].alias, "Offhook \"demo\" # 1");
        assert_eq!(config.meta.app_secret.reveal(), "the-secret-of-the-app");
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        let mut before = "";
        for line in text.lines() {
            let is_key = line.contains(" = ") && !line.starts_with('#');
            assert!(!is_key || before.starts_with('#'), "no comment above {line}");
            assert!(is_key || line.chars().count() <= COLUMNS, "{line}");
            before = line;
        }
        assert!(!text.contains("the-secret-of-the-app"));
    }

    #[test]
    fn a_simulated_meta_allows_http_on_loopback() {
        let (_, config) =
            load(&Plan { answer_url: "http://127.0.0.1:5000/".to_owned(), ..plan(true) });
        assert!(config.meta.is_simulated() && config.answer.allow_insecure);
        assert_eq!(config.listen.public.to_string(), "127.0.0.1:20001");
        assert_eq!(config.listen.admin.port(), 9_092);
        let base = config.public.base_url.as_ref().map(Url::as_str);
        assert_eq!(base, Some("http://127.0.0.1:20001/"));
    }

    #[test]
    fn the_next_steps_name_what_meta_or_the_simulator_must_know() {
        let output = Path::new("offhook.toml");
        let token = model::Secret::new("the-verify-token");
        let steps = |simulated| {
            super::super::next_steps(&plan(simulated), output, &Secrets::beside(output), &token)
        };
        for part in
            ["https://calls.example.com/webhooks/meta", "the-verify-token", "calls, messages"]
        {
            assert!(steps(false).contains(part), "{part}: {}", steps(false));
        }
        assert!(steps(true).contains("http://127.0.0.1:9/_sim/app"), "{}", steps(true));
    }

    #[test]
    fn a_proxy_gets_the_requests_on_loopback() {
        let (_, config) = load(&Plan { behind_proxy: true, ..plan(false) });
        assert_eq!(config.listen.public.to_string(), BEHIND_PROXY);
        assert!(config.listen.proxies_only);
    }
}
