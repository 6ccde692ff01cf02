//! Certificates of the node's HTTPS listener.
//!
//! They are loaded from files, which are reloaded when they change, or ordered from a certificate
//! authority with the ACME protocol. [`Tls`] keeps them current. A handshake reads them without
//! waiting.
//!
//! - `certificates` selects the certificate of a handshake, `files` loads PEM files, `acme` orders
//!   certificates from an authority, and `x509` reads validity periods.

// Untrusted input must not panic the process. Each exception is an `allow` with a reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]
#![forbid(unsafe_code)]

mod acme;
mod certificates;
mod files;
mod settings;
mod x509;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use store::Store;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use acme::Acme;
pub use certificates::VALIDATION_PROTOCOL;
use certificates::{Certificate, Certificates};
pub use files::LoadError;
pub use settings::{AcmeSettings, CertificateFiles, TlsSettings};
pub use x509::Validity;

use model::Clock;

/// Interval between checks whether certificate files have changed.
const FILES_INTERVAL: Duration = Duration::from_secs(5);

/// The certificates of the HTTPS listener. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificates: Arc<Certificates>,
    settings: watch::Sender<TlsSettings>,
    acme: Acme,
}

/// Settings whose files have been loaded.
pub struct Prepared {
    settings: TlsSettings,
    /// The loaded certificates. `None` if a certificate authority issues them.
    loaded: Option<Vec<Certificate>>,
}

impl Prepared {
    /// Loads the files named in the settings. Blocks on the file system.
    ///
    /// # Errors
    /// Returns an error if a certificate can't be loaded.
    pub fn load(settings: TlsSettings) -> Result<Self, LoadError> {
        let loaded = match &settings {
            TlsSettings::Files(files) => Some(files::load(files)?),
            TlsSettings::Acme(acme) => {
                acme.ca.as_deref().map(files::read_chain).transpose()?;
                None
            }
        };
        Ok(Self { settings, loaded })
    }

    /// Returns the validity periods of the loaded certificates, in the order of the settings.
    pub fn validities(&self) -> impl Iterator<Item = Option<Validity>> {
        self.loaded.iter().flatten().map(|certificate| certificate.validity)
    }

    /// Returns whether one of the loaded certificates is valid for this host name.
    pub fn has_certificate_for(&self, name: &str) -> bool {
        self.loaded.iter().flatten().any(|certificate| certificate.is_for(name))
    }
}

impl Tls {
    /// Creates the handle with the certificates from the files and the store. [`Tls::run`] keeps
    /// them current. `node_id` identifies this node in claims, so that only one node of a fleet
    /// orders at a time.
    pub async fn open(prepared: Prepared, store: Store, clock: Clock, node_id: String) -> Self {
        let certificates = Arc::new(Certificates::default());
        let acme = Acme {
            store,
            clock,
            node_id,
            certificates: certificates.clone(),
            changed: Notify::new(),
            retry: Notify::new(),
        };
        match (prepared.loaded, &prepared.settings) {
            (Some(loaded), _) => certificates.replace(loaded),
            (None, TlsSettings::Acme(settings)) => {
                if let Err(error) = acme.load(settings).await {
                    warn!(%error, "stored certificates not read");
                }
            }
            (None, TlsSettings::Files(_)) => {}
        }
        Self(Arc::new(Inner {
            certificates,
            settings: watch::Sender::new(prepared.settings),
            acme,
        }))
    }

    /// Puts settings into force. Established connections keep their certificates. A failed order is
    /// retried.
    pub fn apply(&self, Prepared { settings, loaded }: Prepared) {
        if let Some(loaded) = loaded {
            self.0.certificates.replace(loaded);
        }
        let is_changed = self.0.settings.send_if_modified(|current| {
            let is_changed = *current != settings;
            *current = settings;
            is_changed
        });
        if !is_changed {
            self.0.acme.retry.notify_one();
        }
    }

    /// Reloads the certificates and challenges that another node of the fleet may have stored.
    pub fn refresh(&self) {
        self.0.acme.changed.notify_one();
    }

    /// Returns the configuration of the listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// Returns an error if the TLS library rejects its default configuration.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.0.certificates.clone());
        config.alpn_protocols =
            [b"h2".as_slice(), b"http/1.1", VALIDATION_PROTOCOL].map(<[u8]>::to_vec).into();
        Ok(Arc::new(config))
    }

    /// Returns the content of `/.well-known/acme-challenge/{token}` (RFC 8555 section 8.3). `None`
    /// if the token is unknown.
    pub fn key_authorization(&self, token: &str) -> Option<String> {
        self.0.certificates.key_authorization(token)
    }

    /// Keeps the certificates current until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut settings = self.0.settings.subscribe();
        loop {
            let current = settings.borrow_and_update().clone();
            let work = async {
                match current {
                    TlsSettings::Files(files) => self.watch_files(files).await,
                    TlsSettings::Acme(acme) => self.0.acme.run(&acme).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = work => {}
                changed = settings.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Loads the certificate files, and reloads them when they change.
    async fn watch_files(&self, files: Vec<CertificateFiles>) {
        let files = Arc::new(files);
        let mut seen = None;
        let mut every = tokio::time::interval(FILES_INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let (of, before) = (files.clone(), seen.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let versions = files::versions(&of);
                let is_changed = before.as_ref() != Some(&versions);
                (versions, is_changed.then(|| files::load(&of)))
            });
            let Ok((versions, loaded)) = looked.await else { continue };
            seen = Some(versions);
            match loaded {
                None => {}
                Some(Ok(loaded)) => {
                    info!(certificates = loaded.len(), "certificate files loaded");
                    self.0.certificates.replace(loaded);
                }
                // The other file of a pair may not be written yet.
                Some(Err(error)) => {
                    warn!(%error, "certificate files not loaded; the former certificates stay in force");
                }
            }
        }
    }
}
