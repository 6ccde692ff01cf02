//! Reads the configuration: the TOML file and the environment become a [`Config`], and every fault
//! is reported with its line and column.
//!
//! `tree` parses the file and overlays the environment. `section` reads tables by declarations of
//! their keys (`declared`), `forms` has the types of values, and `read` with `accounts`, `alerts`,
//! `oidc`, `permissions`, `recordings`, `speech` and `tls` declares the keys. `reference` lists all
//! keys from these declarations. `fault` formats faults without showing secrets.
//!
//! Settings are defined next to the code that uses them. Only `node`, `doctor` and `cli` see the
//! whole configuration.

mod accounts;
mod alerts;
mod declared;
mod fault;
mod forms;
mod oidc;
mod permissions;
mod read;
mod recordings;
mod reference;
mod section;
mod speech;
mod tls;
mod tree;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ::tls::TlsSettings;
use aws_lc_rs::digest::{SHA256, digest};
use egress::{CustomerUrl, Guard, Refusal, is_public};
use fault::Fault;
pub use fault::Problem;
use model::Secret;
pub use reference::{KeyDescription, Reference};
pub use section::suggestion;
pub use types::{
    Cluster, Config, Listen, Media, MediaIps, Public, Recordings, Retention, Store, StunServer,
    Turn,
};

/// Maximum size of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum size of a file with a secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Maximum number of reported faults. A file that is not a configuration at all has one on each
/// line.
const PROBLEMS_MAX: usize = 50;
/// Number of characters below which a token is reported as short.
const TOKEN_MIN: usize = 20;

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("could not read {}: {source}", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file or the environment has faults.
    #[error("{0}")]
    Invalid(Problems),
}

/// The faults of a configuration, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if nth == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Validates `[speech]`; the error names the faulty key.
pub type SpeechCheck<'a> = &'a dyn Fn(toml::Table) -> Result<(), String>;

/// Where secrets are read from, and the validator of `[speech]`.
struct Sources<'a> {
    /// Reads an environment variable.
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a small file.
    file: &'a dyn Fn(&str) -> std::io::Result<String>,
    speech: SpeechCheck<'a>,
}

impl Config {
    /// A digest of `[[number]]`, in any order. It depends on the version of Offhook.
    pub fn numbers_digest(&self) -> String {
        let mut numbers: Vec<_> = self.numbers.iter().collect();
        numbers.sort_by_key(|number| &number.number);
        hex::encode(digest(&SHA256, format!("{numbers:?}").as_bytes()))
    }

    /// Reads a file, overlays the environment of this process, and resolves the secrets that the
    /// file refers to.
    ///
    /// # Errors
    /// Fails if the file can't be read, or if it or the environment has faults.
    pub fn load(file: &Path, speech: SpeechCheck<'_>) -> Result<Self, ConfigError> {
        let text = read_bounded(file, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::read(&file.display().to_string(), &text, &env, speech, true)
            .map_err(ConfigError::Invalid)
    }

    /// Reads a configuration from text and an environment. `name` stands for the file in
    /// messages. Files with secrets are read from the disk. Secrets may have any length here, unlike
    /// in [`Config::load`].
    ///
    /// # Errors
    /// Returns the faults.
    pub fn from_parts(
        name: &str,
        text: &str,
        env: &BTreeMap<String, String>,
        speech: SpeechCheck<'_>,
    ) -> Result<Self, Problems> {
        Self::read(name, text, env, speech, false)
    }

    fn read(
        name: &str,
        text: &str,
        env: &BTreeMap<String, String>,
        speech: SpeechCheck<'_>,
        checks_length: bool,
    ) -> Result<Self, Problems> {
        let sources = Sources {
            env: &|name| env.get(name).cloned(),
            file: &|path| read_bounded(Path::new(path), SECRET_BYTES_MAX),
            speech,
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut table, mut faults) = tree::parse(text);
        // Keys that could not be parsed would be reported as missing, so only the parser's faults
        // are shown.
        let config = faults.is_empty().then(|| {
            tree::overlay(&mut table, env, &mut faults);
            let cx = section::Context::new(&sources, std::mem::take(&mut faults), checks_length);
            let config = read::config(table, &cx);
            faults = cx.faults.into_inner();
            config
        });
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => {
                faults.sort_by_key(Fault::order);
                faults.truncate(PROBLEMS_MAX);
                Err(Problems(
                    faults.into_iter().map(|fault| Problem::locate(fault, name, text)).collect(),
                ))
            }
        }
    }

    /// Returns warnings about valid settings that are probably mistakes, one line each: optional
    /// secrets whose environment variable or file does not exist, secrets that look like
    /// placeholders, certificate files that do not exist, URLs to which the node never connects, risky
    /// sign-in settings, and a configuration without accounts.
    pub fn warnings(&self) -> Vec<String> {
        let insecure = self.answer.allow_insecure;
        let guard = Guard::new(insecure, Vec::new());
        let mut warnings = self.doubtful_secrets.clone();
        if let Some(oidc) = &self.oidc {
            warnings.extend(oidc::warnings(oidc, self.public.base_url.is_some()));
        }
        let is_meta = self
            .meta
            .graph_url
            .host_str()
            .is_some_and(|host| host == "facebook.com" || host.ends_with(".facebook.com"));
        if self.meta.simulated == Some(true) && is_meta {
            warnings.push(
                "[meta] simulated = true, but graph_url is Meta itself: remove it, or set graph_url \
                 to the simulated Meta of `offhook dev`"
                    .to_owned(),
            );
        }
        if self.meta.graph_url.path() == "/" {
            warnings.push(format!(
                "[meta] graph_url has no version of the Graph API: write it like {}v23.0",
                self.meta.graph_url
            ));
        }
        let is_far = match self.meta.graph_url.host() {
            Some(url::Host::Ipv4(ip)) => is_public(ip.into()),
            Some(url::Host::Ipv6(ip)) => is_public(ip.into()),
            // A name without a dot is one of the local network.
            Some(url::Host::Domain(name)) => name.contains('.'),
            None => false,
        };
        if self.meta.graph_url.scheme() == "http" && is_far {
            warnings.push(
                "[meta] graph_url sends the access token over the network without encryption: use \
                 https"
                    .to_owned(),
            );
        }
        // Warnings and not errors: whoever set them at Meta may be unable to change them at once.
        let is_short = |secret: &Secret| {
            !self.meta.is_simulated() && secret.reveal().chars().count() < TOKEN_MIN
        };
        if is_short(&self.meta.verify_token) {
            warnings.push(format!(
                "[meta] verify_token has fewer than {TOKEN_MIN} characters and can be guessed: use \
                 random text (`openssl rand -hex 16` prints some)"
            ));
        }
        if self.meta.access_token.as_ref().is_some_and(is_short) {
            warnings.push(format!(
                "[meta] access_token has fewer than {TOKEN_MIN} characters: copy the whole token \
                 from Meta"
            ));
        }
        if self.accounts.is_empty() {
            warnings.push(
                "there is no account, so nobody can sign in or use the APIs: add an [[account]] with an auth_id \
                 and an auth_token"
                    .to_owned(),
            );
        }
        for account in &self.accounts {
            let mut keys = std::collections::HashSet::new();
            if !account.api_keys.iter().all(|one| keys.insert(one.key.reveal())) {
                warnings.push(format!(
                    "api_keys of {} has the same key twice, and only one of its roles and names \
                     counts: remove one",
                    account.auth_id
                ));
            }
        }
        let is_https = self.public.base_url.as_ref().is_some_and(|url| url.scheme() == "https");
        if self.listen.https.is_some() && self.public.base_url.is_some() && !is_https {
            warnings.push(
                "links and signatures use http, although `listen.https` is set: write [public] base_url \
                 with https"
                    .to_owned(),
            );
        }
        // Warnings and not errors: the files may come later, or be readable only for the node's user.
        if let Some(TlsSettings::Files(certificates)) = &self.tls {
            let files =
                certificates.iter().flat_map(|one| [("cert", &one.cert), ("key", &one.key)]);
            warnings.extend(files.filter(|(_, file)| !file.exists()).map(|(key, file)| {
                let file = file.display();
                format!("[tls] {key}: the file {file} does not exist or can't be seen, and the node needs it to start")
            }));
        }
        if let (Some(TlsSettings::Acme(_)), Some(https)) = (&self.tls, self.listen.https)
            && https.port() != 443
            && self.listen.public.port() != 80
        {
            warnings.push(
                "the certificate authority connects to port 443 or 80, and the node listens on neither: set \
                 [listen] https = \"0.0.0.0:443\", or forward one of the ports to `https` or `public`"
                    .to_owned(),
            );
        }
        if is_https
            && self.listen.https.is_none()
            && self.listen.public.ip().is_loopback()
            && self.listen.trusted_proxies.is_empty()
        {
            warnings.push(
                "all clients appear to have the proxy's address and share its limits: set [listen] \
                 trusted_proxies to the address of the proxy, like [\"127.0.0.1\"]"
                    .to_owned(),
            );
        }
        if self.listen.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
            warnings.push(
                "[listen] trusted_proxies has every address, so that any client can name another \
                 address as its own and evade its limits: list the addresses of the proxies"
                    .to_owned(),
            );
        }
        let admin = self.listen.admin.ip();
        if (admin.is_unspecified() || is_public(admin)) && !self.meta.is_simulated() {
            warnings.push(format!(
                "[listen] admin = \"{}\" may be reachable from the internet, and answers everybody with metrics, \
                 which name numbers: set it to 127.0.0.1 or a private address, unless a firewall or a container's \
                 network keeps others out",
                self.listen.admin
            ));
        }
        let mut check = |key: &str, owner: &str, url: &str| {
            let Err(refusal) = CustomerUrl::parse(url, &guard) else { return };
            let hint = match refusal {
                Refusal::Address(_) if !insecure => {
                    "use a public address, or set [answer] allow_insecure = true for development"
                }
                _ => "use another host or port",
            };
            warnings.push(format!("`{key}` of {owner} will not be requested: {refusal}; {hint}"));
        };
        for number in &self.numbers {
            let urls = [
                ("answer_url", &number.answer_url),
                ("fallback_url", &number.fallback_url),
                ("hangup_url", &number.hangup_url),
                ("webhook_url", &number.webhook_url),
            ];
            for (key, url) in urls {
                if let Some(url) = url {
                    check(key, number.number.as_str(), &url.0);
                }
            }
        }
        for webhook in &self.webhooks {
            check("url", &format!("the webhook {}", webhook.name), &webhook.url.0);
        }
        warnings
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(std::io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
