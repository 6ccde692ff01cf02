//! Orders certificates from a certificate authority with the ACME protocol (RFC 8555).
//!
//! Accounts, certificates and keys are kept in the store, so that the nodes of a fleet share them.
//! A claim in the store allows one node at a time to order, and delays the next order after a
//! failure. `schedule` computes times, `order` performs one order, and `client` sends requests.

mod client;
mod order;
mod schedule;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, AccountCredentials, NewAccount};
use model::{Clock, Secret, Timestamp, metric};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::{CertificateKind, CertificateRow, Store, StoreError};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::certificates::{Certificate, Certificates, Challenge};
use crate::files;
use crate::settings::AcmeSettings;
use crate::x509::Validity;
use client::AuthorityClient;
use order::{Issued, Method, OrderError};

/// Timeout of an order, from the account to the certificate.
const ORDER_TIMEOUT: Duration = Duration::from_secs(360);
/// Duration of a claim. The claim of a node that stopped during an order expires after this time.
const CLAIM_TIME: Duration = Duration::from_secs(420);
/// Maximum duration of a sleep, after which the wall clock is read again.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Time within which the other nodes of a fleet have read a challenge. A beat notifies them of it.
const FLEET_DELAY: Duration = Duration::from_secs(3);
/// Interval between attempts when the store fails.
const STORE_RETRY: Duration = Duration::from_secs(30);

/// Holder of a claim that delays the next order after a failure. It is stored in place of a node's
/// id.
const BACKOFF: &str = "backoff";
/// Holder of a claim that delays the next order for as long as the authority demands.
const RATE_LIMITED: &str = "rate limited";

/// Orders and renews certificates, and presents them.
pub(crate) struct Acme {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// The holder of this node's claims.
    pub(crate) node_id: String,
    pub(crate) certificates: Arc<Certificates>,
    /// Notified when another node has changed the rows.
    pub(crate) changed: Notify,
    /// Notified when unchanged settings are put into force, so that a failed order is retried
    /// immediately.
    pub(crate) retry: Notify,
}

/// Returns the key of a certificate and its claim in the store.
fn id_of(settings: &AcmeSettings) -> String {
    format!("{} {}", settings.directory, settings.domains.join(","))
}

impl Acme {
    /// Puts the certificates and challenges from the store into force. Returns the rows of the
    /// store.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub(crate) async fn load(
        &self,
        settings: &AcmeSettings,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        let rows = self.store.certificates().list().await?;
        let of_kind = |kind| rows.iter().filter(move |row| row.kind == kind);
        let (id, now) = (id_of(settings), self.clock.wall());
        let mut usable: Vec<_> = of_kind(CertificateKind::Certificate)
            .filter(|row| row.id == id || row.until > now)
            .filter_map(|row| {
                let certificate = parse(row)?;
                let is_current = row.id == id && missing(&certificate, settings).is_none();
                Some((is_current, row.until, certificate))
            })
            .collect();
        // If several certificates match, the one for all names of the settings is presented.
        usable.sort_by_key(|(is_current, until, _)| std::cmp::Reverse((*is_current, *until)));
        self.certificates
            .replace(usable.into_iter().map(|(.., certificate)| certificate).collect());
        let challenges = of_kind(CertificateKind::Challenge).filter_map(|row| {
            let key = row.secret.as_ref()?.reveal();
            Some((row.id.clone(), Challenge::new(&row.id, &row.body, key).ok()?))
        });
        self.certificates.set_challenges(challenges.collect());
        Ok(rows)
    }

    /// Ends the delay of the next order, unless the authority has requested the delay.
    async fn end_backoff(&self, settings: &AcmeSettings) {
        let (id, now) = (id_of(settings), self.clock.wall());
        let claim = self.store.certificates().claim(id.clone(), BACKOFF.to_owned(), now, now).await;
        if let Err(error) = claim {
            warn!(%error, "certificate claim not released");
        }
    }

    /// Orders a certificate for the names of the settings and renews it in time.
    pub(crate) async fn run(&self, settings: &AcmeSettings) {
        self.end_backoff(settings).await;
        let (mut method, mut failures) = (Method::TlsAlpn, 0);
        loop {
            let (rows, now) = match self.load(settings).await {
                Ok(rows) => (rows, self.clock.wall()),
                Err(error) => {
                    warn!(%error, "stored certificates not read; retrying");
                    tokio::time::sleep(STORE_RETRY).await;
                    continue;
                }
            };
            let due = next_order(&rows, settings, &self.node_id);
            if due > now {
                tokio::select! {
                    () = tokio::time::sleep(due.since(now).min(SLEEP_MAX)) => {}
                    () = self.changed.notified() => {}
                    () = self.retry.notified() => self.end_backoff(settings).await,
                }
                continue;
            }
            if !self.claim(settings, now).await {
                continue;
            }
            let ordered = tokio::time::timeout(ORDER_TIMEOUT, self.order(settings, method)).await;
            let outcome = ordered.unwrap_or_else(|_| {
                let why = format!("no certificate after {ORDER_TIMEOUT:?}");
                Err(OrderError::Failed { why, retry_after: None })
            });
            self.remove_challenges(settings).await;
            let stored = match outcome {
                Ok(issued) => self.store_certificate(settings, issued).await,
                Err(refusal) => {
                    // The other port is tried immediately, because most networks allow connections
                    // to one of them.
                    let is_first =
                        failures == 0 && matches!(refusal, OrderError::Validation { .. });
                    let wait = match is_first {
                        true => Duration::ZERO,
                        false => {
                            let spread = rand::random_range(0.0..1.0);
                            schedule::backoff(failures, refusal.retry_after(), spread)
                        }
                    };
                    if let OrderError::Validation { .. } = refusal {
                        method = method.other();
                    }
                    failures += 1;
                    report(&refusal, settings, wait);
                    self.delay(settings, &refusal, wait).await
                }
            };
            match stored {
                Ok(true) => (method, failures) = (Method::TlsAlpn, 0),
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, "result of a certificate order not stored");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }

    /// Claims the right to order. Returns `false` if another node holds the claim, or if the store
    /// fails.
    async fn claim(&self, settings: &AcmeSettings, now: Timestamp) -> bool {
        let (id, holder) = (id_of(settings), self.node_id.clone());
        let claim = self.store.certificates().claim(id, holder, now, now.plus(CLAIM_TIME)).await;
        if let Err(error) = &claim {
            warn!(%error, "certificate order not claimed; retrying");
            tokio::time::sleep(STORE_RETRY).await;
        }
        claim.unwrap_or(false)
    }

    /// Delays the next order of all nodes. Always returns `false`.
    async fn delay(
        &self,
        settings: &AcmeSettings,
        refusal: &OrderError,
        wait: Duration,
    ) -> Result<bool, StoreError> {
        let holder = if refusal.retry_after().is_some() { RATE_LIMITED } else { BACKOFF };
        let row = CertificateRow {
            kind: CertificateKind::Claim,
            id: id_of(settings),
            body: holder.to_owned(),
            secret: None,
            until: self.clock.wall().plus(wait),
        };
        self.store.certificates().put(row).await.map(|()| false)
    }

    async fn order(&self, settings: &AcmeSettings, method: Method) -> Result<Issued, OrderError> {
        let (domains, challenge) = (settings.domains.join(", "), method.as_str());
        info!(domains, challenge, directory = %settings.directory, "certificate order started");
        let setup = |why: String| OrderError::Failed { why, retry_after: None };
        let ca = settings.ca.clone();
        let trusted = tokio::task::spawn_blocking(move || {
            ca.map_or(Ok(Vec::new()), |ca| files::read_chain(&ca))
        });
        let trusted = trusted.await.map_err(|error| setup(error.to_string()))?;
        let trusted = trusted.map_err(|error| setup(error.to_string()))?;
        let client = AuthorityClient::new(trusted, self.clock.clone());
        let client = client.map_err(|error| setup(error.to_string()))?;
        let account = self.account(settings, &client).await?;
        let prepare = async |challenges| self.announce(challenges).await;
        let refusal = || client.refusal();
        let ordered = order::order(&account, &settings.domains, method, prepare, refusal).await;
        if let Err(OrderError::Refused { kind, .. }) = &ordered
            && kind == "accountDoesNotExist"
        {
            let id = settings.directory.to_string();
            let deleted = self.store.certificates().delete(CertificateKind::Account, id).await;
            warn!(
                deleted = deleted.is_ok(),
                "account unknown to the certificate authority; the next order creates one"
            );
        }
        ordered
    }

    /// Returns the account at the authority. Creates one if it does not exist.
    async fn account(
        &self,
        settings: &AcmeSettings,
        client: &AuthorityClient,
    ) -> Result<Account, OrderError> {
        let failed = |error| OrderError::of(error, client.refusal());
        let of_store = |error: StoreError| OrderError::Failed {
            why: format!("the account could not be read or stored: {error}"),
            retry_after: None,
        };
        let id = settings.directory.to_string();
        let email = settings.email.clone().unwrap_or_default();
        let contact = format!("mailto:{email}");
        let contacts = if email.is_empty() { [].as_slice() } else { &[contact.as_str()] };
        let rows = self.store.certificates().list().await.map_err(of_store)?;
        let known =
            rows.into_iter().find(|row| row.kind == CertificateKind::Account && row.id == id);
        let credentials = known.as_ref().and_then(|row| row.secret.as_ref());
        let credentials = credentials
            .and_then(|text| serde_json::from_str::<AccountCredentials>(text.reveal()).ok());
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let (account, row) = match (credentials, known) {
            (Some(credentials), Some(row)) => {
                let account = builder.from_credentials(credentials).await.map_err(failed)?;
                if row.body == email {
                    return Ok(account);
                }
                account.update_contacts(contacts).await.map_err(failed)?;
                (account, CertificateRow { body: email, ..row })
            }
            _ => {
                let new = NewAccount {
                    contact: contacts,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let made = builder.create(&new, id.clone(), None).await.map_err(failed)?;
                let secret =
                    serde_json::to_string(&made.1).map_err(|error| failed(error.into()))?;
                info!(directory = id, "account at the certificate authority created");
                let row = CertificateRow {
                    kind: CertificateKind::Account,
                    id,
                    body: email,
                    secret: Some(Secret::new(secret)),
                    until: Timestamp::MAX,
                };
                (made.0, row)
            }
        };
        self.store.certificates().put(row).await.map_err(of_store)?;
        Ok(account)
    }

    /// Makes this node and the other nodes of its fleet able to respond to the challenges.
    async fn announce(&self, challenges: HashMap<String, Challenge>) {
        if self.store.is_shared() {
            for (name, challenge) in &challenges {
                let row = CertificateRow {
                    kind: CertificateKind::Challenge,
                    id: name.clone(),
                    body: challenge.token.clone(),
                    secret: Some(Secret::new(challenge.key_authorization.as_str())),
                    until: self.clock.wall().plus(CLAIM_TIME),
                };
                if let Err(error) = self.store.certificates().put(row).await {
                    warn!(%error, "challenge not stored for the other nodes");
                }
            }
            tokio::time::sleep(FLEET_DELAY).await;
        }
        self.certificates.set_challenges(challenges);
    }

    async fn remove_challenges(&self, settings: &AcmeSettings) {
        self.certificates.set_challenges(HashMap::new());
        if !self.store.is_shared() {
            return;
        }
        for name in &settings.domains {
            let kind = CertificateKind::Challenge;
            if let Err(error) = self.store.certificates().delete(kind, name.clone()).await {
                warn!(%error, "challenge not deleted");
            }
        }
    }

    /// Stores a certificate, which the next turn of the loop presents. Always returns `true`.
    async fn store_certificate(
        &self,
        settings: &AcmeSettings,
        Issued { chain, key }: Issued,
    ) -> Result<bool, StoreError> {
        let mut row = CertificateRow {
            kind: CertificateKind::Certificate,
            id: id_of(settings),
            body: chain,
            secret: Some(Secret::new(key)),
            until: Timestamp::default(),
        };
        let validity = match validity(&row, settings, self.clock.wall()) {
            Ok(validity) => validity,
            Err(why) => {
                let refusal = OrderError::Failed { why, retry_after: None };
                let wait = schedule::backoff(1, None, 0.0);
                report(&refusal, settings, wait);
                return self.delay(settings, &refusal, wait).await;
            }
        };
        row.until = validity.not_after;
        count(metric::certificate_order::ISSUED);
        let (domains, renewal) = (settings.domains.join(", "), schedule::renewal(validity));
        info!(domains, until = %validity.not_after, renewal = %renewal, "certificate issued");
        let rows = self.store.certificates();
        rows.put(row).await?;
        rows.delete(CertificateKind::Claim, id_of(settings)).await?;
        let now = self.clock.wall();
        for row in rows.list().await? {
            if row.kind == CertificateKind::Certificate && row.until < now {
                rows.delete(row.kind, row.id).await?;
            }
        }
        Ok(true)
    }
}

/// Converts a row to a certificate. Returns `None` if it can't be used, for example because its key
/// was encrypted with a different key.
fn parse(row: &CertificateRow) -> Option<Certificate> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(row.body.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(row.secret.as_ref()?.reveal().as_bytes()).ok()?;
    Certificate::new(chain.ok()?, key).ok()
}

/// Returns the first name of the settings that a certificate is not valid for. `None` if it is valid
/// for all.
fn missing<'a>(certificate: &Certificate, settings: &'a AcmeSettings) -> Option<&'a str> {
    settings.domains.iter().map(String::as_str).find(|name| !certificate.is_for(name))
}

/// Returns the validity period of the row's certificate, if it is one for our key and the names of
/// the settings that has not expired. Returns an explanation otherwise.
fn validity(
    row: &CertificateRow,
    settings: &AcmeSettings,
    now: Timestamp,
) -> Result<Validity, String> {
    let unusable = "its certificate can't be used, or is for another key";
    let certificate = parse(row).ok_or(unusable)?;
    let validity = certificate.validity.ok_or(unusable)?;
    if let Some(name) = missing(&certificate, settings) {
        return Err(format!("its certificate is not for {name}"));
    }
    match validity.not_after > now {
        true => Ok(validity),
        false => Err(format!("its certificate expired at {}", validity.not_after)),
    }
}

/// Returns the time from which this node may order the certificate for the names of the settings.
fn next_order(rows: &[CertificateRow], settings: &AcmeSettings, node_id: &str) -> Timestamp {
    let id = id_of(settings);
    let find = |kind| rows.iter().find(|row| row.kind == kind && row.id == id);
    let row = find(CertificateKind::Certificate);
    let validity = row.and_then(|row| validity(row, settings, Timestamp::default()).ok());
    let renewal = validity.map_or(Timestamp::default(), schedule::renewal);
    let claim = find(CertificateKind::Claim).filter(|claim| claim.body != node_id);
    renewal.max(claim.map_or(Timestamp::default(), |claim| claim.until))
}

fn count(outcome: &'static str) {
    metrics::counter!(metric::TLS_CERTIFICATE_ORDERS_TOTAL, "outcome" => outcome).increment(1);
}

fn report(refusal: &OrderError, settings: &AcmeSettings, wait: Duration) {
    count(refusal.outcome());
    let (domains, remedy) = (settings.domains.join(", "), refusal.remedy());
    let retry_s = wait.as_secs();
    error!(domains, error = %refusal, remedy, retry_s, "certificate not issued");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: CertificateKind, id: &str, body: &str, until: i64) -> CertificateRow {
        let until = Timestamp::from_secs(until);
        CertificateRow { kind, id: id.to_owned(), body: body.to_owned(), secret: None, until }
    }

    fn certificate(id: &str, begin: (i32, u8, u8), end: (i32, u8, u8)) -> CertificateRow {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let secret = Some(Secret::new(key.serialize_pem()));
        CertificateRow { secret, ..row(CertificateKind::Certificate, id, &chain, 0) }
    }

    fn settings(domains: &[&str]) -> AcmeSettings {
        AcmeSettings {
            domains: domains.iter().map(|name| (*name).to_owned()).collect(),
            email: None,
            directory: "https://ca.example/".parse().unwrap(),
            ca: None,
        }
    }

    #[test]
    fn a_certificate_counts_for_its_names_and_key_until_it_expires() {
        let mut issued = certificate("a", (2026, 9, 1), (2026, 11, 30));
        let of = |row: &CertificateRow, domains: &[&str], now| {
            validity(row, &settings(domains), Timestamp::from_secs(now)).map(|it| it.not_after)
        };
        let end = 1_795_996_800;
        assert_eq!(of(&issued, &["a.example"], end - 1), Ok(Timestamp::from_secs(end)));
        assert!(of(&issued, &["a.example"], end).unwrap_err().contains("expired"));
        let other = of(&issued, &["a.example", "b.example"], 0);
        assert_eq!(other.unwrap_err(), "its certificate is not for b.example");
        issued.secret = certificate("a", (2026, 9, 1), (2026, 11, 30)).secret;
        assert!(of(&issued, &["a.example"], 0).unwrap_err().contains("another key"));
    }

    #[test]
    fn an_order_is_due_at_the_renewal_and_when_no_other_claim_is_in_force() {
        let day = |text: &str| {
            let at = text.parse::<jiff::Timestamp>().unwrap();
            Timestamp::from_micros(at.as_microsecond())
        };
        let settings = settings(&["a.example"]);
        let id = id_of(&settings);
        let due = |rows: &[CertificateRow]| next_order(rows, &settings, "me");
        assert_eq!(due(&[]), Timestamp::default(), "at once");
        let current = certificate(&id, (2026, 9, 1), (2026, 11, 30));
        assert_eq!(due(std::slice::from_ref(&current)), day("2026-10-31T00:00:00Z"));
        let unreadable = CertificateRow { secret: None, ..current.clone() };
        assert_eq!(due(&[unreadable]), Timestamp::default(), "its key can't be read");
        assert_eq!(due(&[CertificateRow { id: "b".to_owned(), ..current }]), Timestamp::default());
        let claim = |holder: &str| row(CertificateKind::Claim, &id, holder, 77);
        assert_eq!(due(&[claim("other")]), Timestamp::from_secs(77));
        assert_eq!(due(&[claim(BACKOFF)]), Timestamp::from_secs(77));
        assert_eq!(due(&[claim("me")]), Timestamp::default(), "left by an earlier process");
    }
}
