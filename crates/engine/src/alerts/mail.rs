//! Sends alerts by e-mail (SMTP, RFC 5321).

use std::time::Duration;

use futures_util::future::BoxFuture;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::{Channel, MailSecurity, MailSettings, Message};
use egress::error_chain;

/// Timeout of each SMTP command.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why e-mail could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("could not set up TLS for the mail server of [alerts.mail]: {0}")]
pub struct MailError(#[from] lettre::transport::smtp::Error);

pub(super) struct Mail {
    settings: MailSettings,
    /// The transport, which connects for each message, since alerts are rare.
    server: AsyncSmtpTransport<Tokio1Executor>,
}

impl Mail {
    pub(super) fn new(settings: MailSettings) -> Result<Self, MailError> {
        let tls = || TlsParameters::new(settings.host.clone());
        let tls = match settings.security {
            MailSecurity::Tls => Tls::Wrapper(tls()?),
            MailSecurity::StartTls => Tls::Required(tls()?),
            MailSecurity::Loopback => Tls::None,
        };
        let server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        let server = match &settings.login {
            Some((user, password)) => {
                server.credentials(Credentials::new(user.clone(), password.reveal().to_owned()))
            }
            None => server,
        };
        Ok(Self { server: server.build(), settings })
    }

    /// Composes the e-mail. The message id is that of the event, so that a repeated attempt is
    /// recognised.
    fn compose(&self, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
        let (report, node) = (&message.report, &message.node);
        let text = format!(
            "{}\n\nAlert:    {}\nNode:     {node}\nSince:    {}\nCounted:  {}\nRemedies: {}\n",
            message.title(),
            report.alert.as_str(),
            report.since.rfc3339(),
            report.detail,
            message.runbook(),
        );
        let mut mail = lettre::Message::builder()
            .from(self.settings.from.clone())
            .subject(format!("[offhook {node}] {}", message.title()))
            .message_id(Some(format!("<{}@offhook>", message.id)))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.settings.to {
            mail = mail.to(to.clone());
        }
        mail.body(text)
    }

    /// Connects and signs in, and sends nothing.
    pub(super) async fn check(&self) -> Result<(), String> {
        match self.server.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the mail server does not respond as one".to_owned()),
            Err(e) => Err(error_chain(&e)),
        }
    }

    async fn post(&self, message: &Message) -> Result<(), String> {
        let mail = self.compose(message).map_err(|e| error_chain(&e))?;
        self.server.send(mail).await.map(drop).map_err(|e| error_chain(&e))
    }
}

impl Channel for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn send<'a>(&'a self, message: &'a Message, _: u32) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.post(message))
    }
}
