//! Checks of this machine: configuration, store, media ports and public URL.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{Doctor, Finding};
use crate::public_address::{self, NotFoundError};
use crate::speech_settings;
use egress::{BodyPolicy, EgressError, EgressRequest, is_public};
use engine::agents::check_model;
use engine::config::{Config, Listen, MediaIps};
use engine::objects::{Bucket, BucketError};
use model::Disk;
use rustix::fs::Access;
use speech::http::shown_url;
use speech::models::ModelStore;
use speech::openai::OpenAi;
use speech::provider::SpeechError;
use speech::recognise::{Recognisers, RecognitionError, check_recognisers, check_servers};
use store::{Database, SealedValues};
use tls::Validity;

/// Maximum number of files of `store.data_dir` that are looked at.
const ENTRIES_MAX: usize = 1_000;
/// Timeout of requests to the node.
const WITHIN: Duration = Duration::from_secs(10);
/// Maximum size of the node's responses.
const BODY_BYTES_MAX: usize = 4_096;
/// The challenge of the verification request.
const CHALLENGE: &str = "offhook-doctor-4711";

/// Returns one finding per installed speech model.
fn speech_models(store: &ModelStore) -> Vec<Finding> {
    let finding = |model: speech::models::Manifest| match store.problem(&model) {
        None => Finding::ok("speech", format!("{} {} is installed", model.name, model.version)),
        Some(problem) => Finding::failed(
            "speech",
            format!("{} {} is damaged: {problem}", model.name, model.version),
            format!("install it again with `{}`", store.describe(&model).install_command()),
        ),
    };
    store.list().into_iter().map(finding).collect()
}

/// Number of agents that a finding names.
const NAMES_MAX: usize = 3;

/// Returns the findings about the recogniser that `[speech]` names, and one per server of
/// `[speech]`.
async fn speech_engines(config: &Config) -> Vec<Finding> {
    const IS: &str = "speech";
    // An invalid table is reported with the configuration.
    let Ok(config) = speech_settings::read(config) else { return Vec::new() };
    let mut findings = Vec::new();
    if let Err(error) = check_recognisers(&config) {
        let fix = "do that, or remove recogniser from [speech]: the node does not start without it";
        findings.push(Finding::failed(IS, error.to_string(), fix));
    }
    let fix = |table: &str, refused: bool| match (refused, table) {
        (true, _) => format!("check api_key, model and url of [speech.{table}]"),
        (false, "websocket") => {
            "check that the server runs, and url and protocol of [speech.websocket]".to_owned()
        }
        (false, _) => format!("check that the server runs, and url of [speech.{table}]"),
    };
    for (table, url, outcome) in check_servers(&config).await {
        findings.push(match outcome {
            Ok(()) => Finding::ok(IS, format!("{url} recognises speech")),
            Err(error) => {
                let refused = matches!(&error, RecognitionError::Status(s) if s.is_client_error());
                let what = format!("{url} does not recognise speech: {error}");
                Finding::warning(IS, what, fix(table, refused))
            }
        });
    }
    if let Some(openai) = &config.openai {
        let url = shown_url(&openai.url);
        let checked = match OpenAi::new(openai.clone()) {
            Ok(server) => server.check().await.map_err(|error| {
                let refused = matches!(&error, SpeechError::Status(s) if s.is_client_error());
                (error.to_string(), refused)
            }),
            Err(error) => Err((error.to_string(), false)),
        };
        findings.push(match checked {
            Ok(()) => Finding::ok(IS, format!("{url} speaks")),
            Err((error, refused)) => Finding::warning(
                IS,
                format!("{url} does not speak: {error}"),
                fix("openai", refused),
            ),
        });
    }
    findings
}

impl Doctor {
    pub(super) async fn local(&self) -> Vec<Finding> {
        let mut lines = vec![self.configuration()];
        lines.extend(speech_settings::warnings(&self.config).into_iter().map(|warning| {
            Finding::warning(
                "configuration",
                warning,
                "correct it, then `offhook config check`, then reload the node",
            )
        }));
        lines.push(self.store_line());
        lines.extend(unusable_files(&self.config.store.data_dir));
        lines.extend(unused_file(&self.config.store));
        lines.extend(journal(store::journal_entries(&self.config.store.data_dir)));
        lines.extend(secret_key(&self.sealed));
        let (folder, reserve) = (&self.config.store.data_dir, self.config.recordings.reserve);
        lines.extend(Disk::of(folder).ok().and_then(|disk| full_disk(disk, reserve)));
        lines.extend(speech_models(&ModelStore::new(&self.config.store.data_dir)));
        lines.extend(speech_engines(&self.config).await);
        lines.extend(self.agents_without_recogniser());
        lines.extend(self.model().await);
        lines.extend(self.bucket().await);
        lines.extend(listeners(&self.config.listen, self.runs));
        if self.config.turn.is_some() {
            lines.push(self.turn().await);
            return lines;
        }
        lines.push(media_port(&self.config.listen, self.runs));
        lines.extend(match &self.config.public.media_ips {
            MediaIps::Auto => found(public_address::find(&self.config).await, self.simulated),
            set => vec![advertised(set.listed(), self.config.listen.media.ip(), self.simulated)],
        });
        lines
    }

    /// The agents that answer calls in a language that no recogniser understands.
    fn agents_without_recogniser(&self) -> Vec<Finding> {
        // Another finding says why the recognisers can't be used.
        let Ok(config) = speech_settings::read(&self.config) else { return Vec::new() };
        let Ok(recognisers) = Recognisers::new(&config) else { return Vec::new() };
        let mut languages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for agent in &self.voice_agents {
            if !recognisers.can_recognise(&agent.language) {
                languages.entry(&agent.language).or_default().push(&agent.name);
            }
        }
        let finding = |(language, agents): (&str, Vec<&str>)| {
            let (shown, more) = agents.split_at(agents.len().min(NAMES_MAX));
            let others = if more.is_empty() { "" } else { " and others" };
            Finding::warning(
                "speech",
                format!(
                    "no recogniser understands {language}: callers of {}{others} can only press keys",
                    shown.join(", ")
                ),
                "`offhook models fetch whisper` for English, or set [speech.transcribe] or [speech.websocket]",
            )
        };
        languages.into_iter().map(finding).collect()
    }

    /// Asks the model of `[model]` for a word. `None` if there is no model.
    async fn model(&self) -> Option<Finding> {
        const IS: &str = "model";
        let model = self.config.model.as_ref()?;
        let name = format!("{} at {}", model.name, model.url.host_str().unwrap_or_default());
        Some(match check_model(model, &self.egress).await {
            Ok(()) => Finding::ok(IS, format!("{name} answers")),
            Err(error) => Finding::warning(
                IS,
                format!("{name} does not answer: {error}"),
                "check that the server runs, and url, name and api_key of [model]",
            ),
        })
    }

    /// Writes, reads and deletes an empty object of the bucket of `[recordings.s3]`: the key need not
    /// have any other permission. `None` if there is no bucket.
    async fn bucket(&self) -> Option<Finding> {
        const IS: &str = "recordings";
        let s3 = self.config.recordings.s3.as_ref()?;
        let object = format!("{}offhook-doctor-{}", s3.prefix, uuid::Uuid::new_v4());
        let probe = async {
            let bucket = Bucket::new(s3, self.clock.clone()).map_err(|e| e.to_string())?;
            let failed = |verb| move |e: BucketError| format!("an object can't be {verb}: {e}");
            let empty = tokio::fs::File::open("/dev/null").await.map_err(|e| e.to_string())?;
            bucket.put(&object, empty, 0, "text/plain").await.map_err(failed("written"))?;
            let read = bucket.get(&object, false, None).await.map_err(failed("read"));
            bucket.remove(&object).await.map_err(failed("deleted"))?;
            read.map(drop)
        };
        let probed = tokio::time::timeout(WITHIN, probe).await;
        let probed = probed.unwrap_or_else(|_| Err(format!("it did not answer within {WITHIN:?}")));
        let name = format!("the bucket {}", s3.bucket);
        let fix =
            "check [recordings.s3]; its key needs s3:PutObject, s3:GetObject and s3:DeleteObject";
        Some(match probed {
            Ok(()) => Finding::ok(IS, format!("{name} takes copies")),
            Err(why) => Finding::warning(IS, format!("{name} takes no copies: {why}"), fix),
        })
    }

    /// Checks that the TURN server allocates an address.
    async fn turn(&self) -> Finding {
        const IS: &str = "media";
        let fix = "check server, username and password of [turn], and that UDP to the server is let through";
        let server = match public_address::turn_server(&self.config).await {
            Ok(Some(server)) => server,
            Ok(None) => return Finding::ok(IS, "no TURN server is configured"),
            Err(why) => return Finding::failed(IS, why, fix),
        };
        let (clock, at) = (self.clock.clone(), server.address);
        let asked =
            tokio::task::spawn_blocking(move || media::turn::allocate(&server, &clock, WITHIN));
        match asked.await.map_err(std::io::Error::other).flatten() {
            Ok(ip) => {
                Finding::ok(IS, format!("the TURN server {at} relays media, now at {}", ip.ip()))
            }
            Err(e) => {
                Finding::failed(IS, format!("the TURN server {at} relays no media: {e}"), fix)
            }
        }
    }

    fn configuration(&self) -> Finding {
        let numbers = self.book.all_numbers().filter(|number| !number.set.disconnected).count();
        if numbers == 0 {
            let fix = "add a [[number]], or `offhook numbers connect` at the running node";
            return Finding::warning("configuration", "well-formed, but without any number", fix);
        }
        Finding::ok("configuration", format!("well-formed; numbers in service: {numbers}"))
    }

    fn store_line(&self) -> Finding {
        let at = &self.config.store.database;
        if let Some(unusable) = unusable_data_dir(&self.config.store.data_dir) {
            return unusable;
        }
        if let Some(damage) = &self.damage {
            let fix = "stop the node and restore a backup: docs/operations.md#backup-and-restore";
            return Finding::failed("store", format!("{at} is damaged: {damage}"), fix);
        }
        if let Some(why) = &self.unsupported {
            let fix = "a node of this version does not start with it: start the version that made it, or restore a \
                       backup from before the update";
            return Finding::failed("store", why, fix);
        }
        match &self.store {
            Ok(()) => Finding::ok("store", format!("{at} can be read")),
            Err(Some(why)) => {
                let fix = match at {
                    Database::File(_) => {
                        "run this as the node's user; if the file is damaged, restore a backup"
                    }
                    Database::Postgres(_) if why.contains("too many") => {
                        "raise max_connections of the server, or the limit of its database or user"
                    }
                    Database::Postgres(_) => {
                        "start the database; check the name and password in store.url"
                    }
                };
                Finding::failed("store", format!("{at} could not be read: {why}"), fix)
            }
            Err(None) => missing_store(at, self.runs),
        }
    }

    /// Whether the node at `listen.admin` is starting.
    pub(super) async fn is_starting(&self) -> bool {
        let answer = self.readyz().await;
        answer.is_some_and(|(_, status, body)| (status, body.trim()) == (503, "starting"))
    }

    /// Asks the running node whether it admits calls. `None` if no node answers at `listen.admin`.
    pub(super) async fn readiness(&self) -> Option<Finding> {
        let (admin, status, body) = self.readyz().await?;
        let finding = match (readiness(status, body.trim())?, self.runs) {
            (_, Some(false)) => {
                other_node(&self.config.store.data_dir, matches!(self.store, Err(None)))
            }
            (finding, Some(true) | None) => finding,
        };
        Some(finding.of(admin.to_string()))
    }

    /// Requests `/readyz` at `listen.admin`. Returns the address, the status and the body.
    async fn readyz(&self) -> Option<(SocketAddr, u16, String)> {
        let mut admin = self.config.listen.admin;
        if admin.ip().is_unspecified() {
            admin.set_ip(match admin {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let policy = BodyPolicy::Always { max: BODY_BYTES_MAX };
        let (status, body) = self.get(&format!("http://{admin}/readyz"), policy).await.ok()?;
        Some((admin, status, body))
    }

    /// Makes Meta's verification request to the public URL.
    pub(super) async fn public_url(&self) -> Finding {
        const IS: &str = "public_url";
        let Some(base) = &self.config.public.base_url else {
            let fix = "set [public].base_url to the https URL of this node";
            let what = "[public].base_url is not set, so links in callbacks and Meta's webhook URL are unknown";
            return if self.simulated {
                Finding::warning(IS, what, fix)
            } else {
                Finding::failed(IS, what, fix)
            };
        };
        if base.scheme() != "https" && !self.simulated {
            let fix = "set [listen] https and [tls] domains, or put a reverse proxy with a certificate in front \
                       of the node, and set its https URL";
            return Finding::failed(
                IS,
                format!("{base} is not https, so Meta sends no webhooks to it"),
                fix,
            );
        }
        if let Some(ip) = host_ip(base).filter(|ip| !is_public(*ip) && !self.simulated) {
            let fix = "set a public host name";
            return Finding::failed(IS, format!("{base} is at {ip}, which is not public"), fix);
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("hub.mode", "subscribe")
            .append_pair("hub.verify_token", self.config.meta.verify_token.reveal())
            .append_pair("hub.challenge", CHALLENGE)
            .finish();
        let webhook_url = format!("{}/webhooks/meta", base.as_str().trim_end_matches('/'));
        let policy = BodyPolicy::OnSuccess { max: BODY_BYTES_MAX };
        match self.get(&format!("{webhook_url}?{query}"), policy).await {
            Ok((200, body)) if body == CHALLENGE => {
                let tls = if base.scheme() == "https" { " with a valid certificate" } else { "" };
                Finding::ok(IS, format!("{webhook_url} responds{tls} and accepts the verify token"))
            }
            Ok((403, _)) => {
                let fix =
                    "the node there has another [meta].verify_token; reload it, or correct the URL";
                Finding::failed(IS, format!("{webhook_url} rejects the verify token"), fix)
            }
            Ok((status, _)) => {
                let fix =
                    "make sure that the proxy passes /webhooks/meta on to this node unchanged";
                Finding::failed(
                    IS,
                    format!("{webhook_url} responded with {status} to Meta's verification request"),
                    fix,
                )
            }
            Err(why) => {
                let fix = if why.contains("certificate") {
                    "serve a certificate that is valid, of an authority that Meta trusts (not self-signed), with its whole chain"
                } else {
                    "start the node; open its port; check the proxy, if there is one, and the name's DNS entry; \
                     with [tls] domains, the node's log says why it has no certificate yet"
                };
                Finding::failed(
                    IS,
                    format!("{webhook_url} can't be requested from here: {why}"),
                    fix,
                )
            }
        }
    }

    /// The finding about the certificate. `None` without https, or if the connection fails, which
    /// `public_url` reports.
    pub(super) async fn certificate(&self) -> Option<Finding> {
        let base = self.config.public.base_url.as_ref().filter(|base| base.scheme() == "https")?;
        let url = self.egress.url(base.as_str()).ok()?;
        let shown = self.egress.certificate(&url, WITHIN).await.ok()?;
        Some(self.presented(Validity::of(&shown)).of(base.host_str().unwrap_or_default()))
    }

    async fn get(&self, url: &str, body_policy: BodyPolicy) -> Result<(u16, String), String> {
        let url = self.egress.url(url).map_err(|refusal| refusal.to_string())?;
        let ask = EgressRequest {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            connect: WITHIN,
            read: WITHIN,
            body_policy,
        };
        let asked = tokio::time::timeout(WITHIN, self.egress.request(ask)).await;
        let answer = asked
            .unwrap_or(Err(EgressError::ReadTimeout { waited: WITHIN }))
            .map_err(|e| e.to_string())?;
        Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    }
}

/// The finding about a store without file or tables. Unless the node `runs`, they are created at its
/// first start.
pub(super) fn missing_store(at: &Database, runs: Option<bool>) -> Finding {
    const IS: &str = "store";
    let folder = match at {
        Database::File(_) if runs == Some(true) => {
            let what = format!(
                "{at} was moved or deleted while the node runs: what it writes waits in store.journal"
            );
            let fix = "move the file back with its -wal and -shm files, and the node goes on; or stop the node and \
                       restore a backup, without which its next start begins with an empty store: \
                       docs/operations.md#when-the-store-cannot-be-written";
            return Finding::failed(IS, what, fix);
        }
        Database::Postgres(_) if runs == Some(true) => {
            let what = format!(
                "{at} has no tables, although the node runs: what it writes waits in store.journal"
            );
            let fix = "correct store.url, or the search_path of its user; or stop the node and restore a backup: \
                       docs/operations.md#backup-and-restore";
            return Finding::failed(IS, what, fix);
        }
        Database::Postgres(_) => {
            let what = format!("{at} is empty; the node creates its tables at its first start");
            return Finding::ok(IS, what);
        }
        Database::File(file) if file.exists() => {
            let what = format!("{at} is empty; the node creates its tables at its first start");
            return Finding::ok(IS, what);
        }
        Database::File(file) => file.parent().unwrap_or(Path::new("")),
    };
    match writable(folder) {
        Ok(()) => Finding::ok(
            IS,
            format!("{at} does not exist yet; the node creates it at its first start"),
        ),
        Err(why) => Finding::failed(
            IS,
            format!("{at} does not exist and can't be created: {why}"),
            format!("give the node's user the right to write in {}", folder.display()),
        ),
    }
}

/// The finding for a node that answers at `listen.admin` while none has this `store.data_dir` open.
/// It may be this node nevertheless, if `has_no_store`: its folder was moved or deleted.
fn other_node(data_dir: &Path, has_no_store: bool) -> Finding {
    let folder = data_dir.display();
    if has_no_store {
        let what = format!(
            "another node has this port of listen.admin, or this one, whose folder was moved or deleted: {folder} has no \
             store"
        );
        let fix = "if the folder was moved, move it back; if it was deleted, stop the node and restore a backup: \
                   docs/operations.md#backup-and-restore; otherwise set ports in [listen] that no other node has";
        return Finding::failed("node", what, fix);
    }
    let what = format!(
        "another node has this port of listen.admin; none with store.data_dir {folder} runs"
    );
    let fix = "set ports in [listen] that no other node on this machine has, or stop that node";
    Finding::failed("node", what, fix)
}

/// Evaluates the response of `/readyz`. `None` if it is not that of a node.
pub(super) fn readiness(status: u16, body: &str) -> Option<Finding> {
    const IS: &str = "node";
    match (status, body) {
        (200, "ready") => Some(Finding::ok(IS, "it runs and admits calls")),
        (503, "draining") => {
            let fix = "restart the node: only a restart ends a drain";
            Some(Finding::failed(IS, "it is draining and rejects every new call", fix))
        }
        (503, why) if why.len() <= 100 => {
            let fix = "wait if it is starting; otherwise its log says more";
            Some(Finding::failed(IS, format!("it runs, but admits no calls: {why}"), fix))
        }
        _ => None,
    }
}

fn host_ip(url: &url::Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        url::Host::Domain(_) => None,
    }
}

/// The finding about a SQLite store beside a PostgreSQL one.
fn unused_file(store: &engine::config::Store) -> Option<Finding> {
    let what = store.unused_file()?;
    let fix = "set another store.data_dir for the new store: docs/operations.md#from-sqlite-to-postgresql";
    Some(Finding::warning("store", what, fix))
}

/// The finding about `store.data_dir`, which holds the journal, recordings and keys wherever the
/// database is. `None` if a file can be created there.
pub(super) fn unusable_data_dir(folder: &Path) -> Option<Finding> {
    let why = writable(folder).err()?;
    let folder = folder.display();
    let fix = format!(
        "run this as the node's user, and give it the right to write in {folder}, or set another store.data_dir"
    );
    Some(Finding::failed("store", format!("store.data_dir {folder} can't be used: {why}"), fix))
}

/// The finding about files of `store.data_dir` that this user can't write, or, for root, that have
/// another owner than the folder. Such files are left by a node that ran as another user. `None` if
/// there are none.
pub(super) fn unusable_files(folder: &Path) -> Option<Finding> {
    let owner = std::fs::metadata(folder).ok()?.uid();
    let unusable = |entry: std::fs::DirEntry| {
        let may = match entry.file_type().ok()?.is_dir() {
            true => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            false => Access::READ_OK | Access::WRITE_OK,
        };
        let is_ok = match rustix::process::geteuid().is_root() {
            true => entry.metadata().ok()?.uid() == owner,
            false => rustix::fs::access(entry.path(), may).is_ok(),
        };
        (!is_ok).then(|| entry.file_name().to_string_lossy().into_owned())
    };
    let entries = std::fs::read_dir(folder).ok()?.take(ENTRIES_MAX);
    let mut names: Vec<String> = entries.filter_map(Result::ok).filter_map(unusable).collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    let folder = folder.display();
    let what = format!("in {folder}, these belong to another user: {}", names.join(", "));
    let fix = format!("give all of {folder} to the node's user, with `chown -R`");
    Some(Finding::failed("store", what, fix))
}

/// The finding about writes in the journal, which the database has rejected. `None` if there are
/// none.
pub(super) fn journal(entries: std::io::Result<u64>) -> Option<Finding> {
    const IS: &str = "store";
    let fix = "if the node runs, look at its log and free disk space, unlock the database or correct its permissions; \
               otherwise its start applies them: docs/operations.md#when-the-store-cannot-be-written";
    match entries {
        Ok(0) => None,
        Ok(entries) => {
            let what = format!("{entries} writes wait in store.journal: the database rejects them");
            Some(Finding::warning(IS, what, fix))
        }
        Err(e) => {
            let what = format!("store.journal can't be read: {e}");
            Some(Finding::warning(IS, what, "run this as the node's user"))
        }
    }
}

/// The finding about sealed values that the configured key does not open. `None` if there are none.
pub(super) fn secret_key(sealed: &[SealedValues]) -> Option<Finding> {
    const IS: &str = "secret_key";
    let shut: Vec<String> = sealed
        .iter()
        .filter(|kind| kind.unreadable > 0)
        .map(|kind| {
            format!("{} of {} {}", kind.unreadable, kind.readable + kind.unreadable, kind.what)
        })
        .collect();
    if shut.is_empty() {
        return None;
    }
    let what = format!("sealed with another key and unusable: {}", shut.join(", "));
    let fix = "restore the store.secret_key, or the file store.key in store.data_dir, that they were made with, and \
               restart; or set them again: docs/operations.md#backup-and-restore";
    // If the key opens anything, it is right, and the rest is older.
    let is_wrong = sealed.iter().all(|kind| kind.readable == 0);
    Some(match is_wrong {
        true => Finding::failed(IS, what, fix),
        false => Finding::warning(IS, what, fix),
    })
}

/// The finding about a disk with so little space that calls are not recorded and users' files not kept. `reserve` is
/// `recordings.reserve_mib` in bytes. `None` if there is enough.
pub(super) fn full_disk(disk: Disk, reserve: Option<u64>) -> Option<Finding> {
    let reserve = disk.reserve(reserve);
    let what = || {
        let [free, kept] = [disk.free, reserve].map(|bytes| bytes >> 20);
        format!(
            "{free} MiB are free in store.data_dir, and {kept} MiB are left to the store: nothing is recorded, and users' files are not kept"
        )
    };
    let fix =
        "make room, enlarge the disk, or lower retention.recording_days or recordings.reserve_mib";
    (disk.free < reserve).then(|| Finding::warning("store", what(), fix))
}

/// Whether a file can be created in a directory, or in its closest existing ancestor.
fn writable(folder: &Path) -> std::io::Result<()> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let there = here.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".offhook-doctor-{}", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(probe)
}

/// Findings about addresses of `[listen]` at which the node could not listen. None if it `runs`, or
/// may run: then it listens there itself.
pub(super) fn listeners(listen: &Listen, runs: Option<bool>) -> Vec<Finding> {
    const IS: &str = "node";
    let addresses =
        [("public", Some(listen.public)), ("https", listen.https), ("admin", Some(listen.admin))];
    let unusable = |(key, at): (&str, Option<SocketAddr>)| {
        let at = at?;
        match TcpListener::bind(at).err()?.kind() {
            ErrorKind::AddrInUse => Some(in_use(key, at, connection_at(at))),
            ErrorKind::AddrNotAvailable => Some(Finding::failed(
                IS,
                format!("{at} (listen.{key}) is not an address of this machine"),
                format!("set an address of this machine in listen.{key}, or 0.0.0.0"),
            )),
            // The node may have the right to listen at a low port, other than this user.
            _ => None,
        }
    };
    match runs {
        Some(false) => addresses.into_iter().filter_map(unusable).collect(),
        Some(true) | None => Vec::new(),
    }
}

/// What keeps a TCP port from being listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortUse {
    /// A process listens.
    Listener,
    /// An outgoing connection of this machine has the port.
    Connection,
    /// Such a connection was closed within the last minute.
    TimeWait,
}

/// The finding about an address of `[listen]` at which the node, which does not run, can't listen.
pub(super) fn in_use(key: &str, at: SocketAddr, by: PortUse) -> Finding {
    const IS: &str = "node";
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" to ");
    let fix = format!(
        "set a listen.{key} outside of the ports of outgoing connections ({range}), or reserve it: `sysctl -w \
         net.ipv4.ip_local_reserved_ports={}`",
        at.port()
    );
    match by {
        PortUse::Listener => Finding::failed(
            IS,
            format!("{at} (listen.{key}) is in use by another process: the node does not run"),
            format!("set another listen.{key}, or stop that process (`ss -ltnp` names it)"),
        ),
        PortUse::Connection => Finding::failed(
            IS,
            format!(
                "{at} (listen.{key}) is in use by an outgoing connection: the node could not start"
            ),
            fix,
        ),
        PortUse::TimeWait => Finding::warning(
            IS,
            format!(
                "{at} (listen.{key}) was the port of an outgoing connection, and is free within a minute"
            ),
            fix,
        ),
    }
}

/// Finds out from the tables of the kernel what has the port of an address.
fn connection_at(at: SocketAddr) -> PortUse {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    port_use(tables.iter().flatten().map(String::as_str), at.port())
}

/// Finds out what has a port from `/proc/net/tcp` (proc_net_tcp in the kernel's documentation): in
/// each line, the second column is the local address and the fourth one the state.
pub(super) fn port_use<'a>(tables: impl Iterator<Item = &'a str>, port: u16) -> PortUse {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let of_port = format!(":{port:04X}");
    let state = |line: &'a str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next()?;
        local.ends_with(&of_port).then(|| columns.nth(1)).flatten()
    };
    let states: Vec<&str> = tables.flat_map(str::lines).filter_map(state).collect();
    match states.as_slice() {
        // Without a line, another process has only bound the port, or a table can't be read.
        [] => PortUse::Listener,
        some if some.contains(&LISTEN) => PortUse::Listener,
        some if some.iter().all(|state| *state == TIME_WAIT) => PortUse::TimeWait,
        _ => PortUse::Connection,
    }
}

/// The first media port: free, or in use by the node if it `runs`.
pub(super) fn media_port(listen: &Listen, runs: Option<bool>) -> Finding {
    let at = listen.media;
    let ports = listen.media_ports;
    if at.port() == 0 {
        let fix = "set a port in [listen].media, so that a firewall can open it";
        return Finding::warning(
            "media",
            "media ports are chosen by the system at each start",
            fix,
        );
    }
    let last = u32::from(at.port()) + u32::from(ports) - 1;
    let open = format!("open UDP {} to {last} to the internet, both ways", at.port());
    match UdpSocket::bind(SocketAddr::new(at.ip(), at.port())) {
        Ok(_) => Finding::ok("media", format!("UDP {at} is free; {open}")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => match runs {
            Some(true) => Finding::ok("media", format!("UDP {at} is in use by the node; {open}")),
            None => {
                Finding::ok("media", format!("UDP {at} is in use, by the node if it runs; {open}"))
            }
            Some(false) => Finding::failed(
                "media",
                format!("UDP {at} is in use by another process, because the node does not run"),
                "set other ports in [listen].media, or stop that process",
            ),
        },
        Err(e) => Finding::failed(
            "media",
            format!("UDP {at} can't be bound: {e}"),
            "set an address of this machine in [listen].media",
        ),
    }
}

/// Returns the public addresses that the node would find.
pub(super) fn found(
    found: Result<public_address::FoundAddresses, NotFoundError>,
    simulated: bool,
) -> Vec<Finding> {
    const IS: &str = "media";
    let found = match found {
        Ok(found) => found,
        Err(e) => {
            let fix = "set [public].media_ips to the address that this machine has on the internet";
            return vec![Finding::failed(IS, e.to_string(), fix)];
        }
    };
    let shown = found.addresses.iter().map(|found| format!("{} ({})", found.ip, found.source));
    let what = format!("media is expected at {}", shown.collect::<Vec<_>>().join(", "));
    let is_reachable = simulated || found.addresses.iter().any(|found| is_public(found.ip));
    let addresses = match is_reachable {
        true => Finding::ok(IS, what),
        false => Finding::failed(
            IS,
            format!("{what}, which Meta can't reach"),
            "list servers on the internet in [public].stun_servers, or set [public].media_ips",
        ),
    };
    let fix = "forward UDP to this machine, or set [public].media_ips";
    let warnings = found.warnings.into_iter().map(|warning| Finding::warning(IS, warning, fix));
    std::iter::once(addresses).chain(warnings).collect()
}

/// Returns the media addresses that are advertised to Meta.
pub(super) fn advertised(media_ips: &[IpAddr], bound: IpAddr, simulated: bool) -> Finding {
    const IS: &str = "media";
    let fix = "set [public].media_ips to the address that this machine has on the internet, or to \"auto\"";
    if simulated {
        return Finding::ok(IS, "Meta is simulated on this machine, so any address works");
    }
    let private = |ips: &[IpAddr]| ips.iter().all(|ip| !is_public(*ip));
    let shown = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    match media_ips {
        [] if bound.is_unspecified() => {
            let what = "[public].media_ips is not set, so this machine's own addresses are advertised, which are unreachable behind NAT";
            Finding::warning(IS, what, fix)
        }
        [] if private(&[bound]) => Finding::failed(
            IS,
            format!("media is expected at {bound}, which Meta can't reach"),
            fix,
        ),
        [] => Finding::ok(IS, format!("media is expected at {bound}")),
        ips if private(ips) => Finding::failed(
            IS,
            format!("media is expected at {}, which Meta can't reach", shown(ips)),
            fix,
        ),
        ips => Finding::ok(IS, format!("media is expected at {}", shown(ips))),
    }
}
