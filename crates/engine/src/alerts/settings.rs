//! Settings of `[alerts]`.

use std::time::Duration;

use lettre::message::Mailbox;

use super::Alert;
use model::Secret;

/// `[alerts]`.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// The time between two evaluations.
    pub interval: Duration,
    pub enabled: Vec<Alert>,
    pub webhook: Option<WebhookTarget>,
    pub mail: Option<MailSettings>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        let (interval, enabled) = (Duration::from_secs(60), Alert::ALL.to_vec());
        Self { interval, enabled, webhook: None, mail: None }
    }
}

/// The URL that alerts are posted to.
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    pub url: String,
    /// The secret that signs the requests.
    pub secret: Secret,
}

/// `[alerts.mail]`.
#[derive(Clone, Debug)]
pub struct MailSettings {
    pub host: String,
    pub port: u16,
    pub security: MailSecurity,
    /// User name and password for the server.
    pub login: Option<(String, Secret)>,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS from the start.
    Tls,
    /// TLS after `STARTTLS`. If the server does not offer it, no message is sent.
    StartTls,
    /// No protection, because the server is on this machine.
    Loopback,
}
