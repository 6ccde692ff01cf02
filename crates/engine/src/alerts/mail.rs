//! Sends alerts by e-mail (SMTP, RFC 5321).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as Sender, Rcpt};
use lettre::transport::smtp::extension::{ClientId, MailParameter};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Channel, MailSecurity, MailSettings, Message};
use egress::error_chain;

/// Timeout for sending a message.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of bytes from the server in one connection, with those of its certificates. The
/// library reads a line to its end before it checks the length.
const RECEIVED_MAX: usize = 128 << 10;

/// Why e-mail could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("could not set up TLS for the mail server of [alerts.mail]: {0}")]
pub struct MailError(AnyError);

/// An error of the library, of TLS or of the connection.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Mail {
    settings: MailSettings,
    tls: Tls,
}

/// How the connection is encrypted.
enum Tls {
    /// From its beginning.
    Always(TlsConnector, ServerName<'static>),
    /// After the command STARTTLS (RFC 3207).
    Upgrade(TlsParameters),
    /// Not at all.
    Never,
}

impl Tls {
    fn of(settings: &MailSettings) -> Result<Self, AnyError> {
        let host = settings.host.clone();
        Ok(match settings.security {
            MailSecurity::Tls => {
                let connector = TlsConnector::from(Arc::new(egress::client_tls()?));
                Self::Always(connector, ServerName::try_from(host)?)
            }
            MailSecurity::StartTls => Self::Upgrade(TlsParameters::new(host)?),
            MailSecurity::Loopback => Self::Never,
        })
    }
}

impl Mail {
    pub(super) fn new(settings: MailSettings) -> Result<Self, MailError> {
        let tls = Tls::of(&settings).map_err(MailError)?;
        Ok(Self { settings, tls })
    }

    /// Connects and signs in.
    async fn connect(&self) -> Result<AsyncSmtpConnection, AnyError> {
        let (host, port) = (self.settings.host.as_str(), self.settings.port);
        #[allow(clippy::disallowed_methods, reason = "the operator's own mail server")]
        let stream = TcpStream::connect((host, port)).await?;
        let (peer, hello) = (stream.peer_addr()?, ClientId::default());
        let mut connection = match &self.tls {
            Tls::Always(tls, name) => {
                smtp(tls.connect(name.clone(), stream).await?, peer, &hello).await?
            }
            Tls::Upgrade(_) | Tls::Never => smtp(stream, peer, &hello).await?,
        };
        if let Tls::Upgrade(tls) = &self.tls {
            connection.starttls(tls.clone(), &hello).await?;
        }
        if let Some((user, password)) = &self.settings.login {
            let login = Credentials::new(user.clone(), password.reveal().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &login).await?;
        }
        Ok(connection)
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

    /// Names the sender and the recipients. Returns why some recipients are refused: one who has left
    /// must not keep alerts from the others.
    async fn address(&self, connection: &mut AsyncSmtpConnection) -> Result<Vec<String>, AnyError> {
        let MailSettings { from, to, .. } = &self.settings;
        let is_ascii = |address: &Mailbox| AsRef::<str>::as_ref(&address.email).is_ascii();
        let parameters = match is_ascii(from) && to.iter().all(is_ascii) {
            true => Vec::new(),
            false => vec![MailParameter::SmtpUtfEight],
        };
        connection.command(Sender::new(Some(from.email.clone()), parameters)).await?;
        let mut refused = Vec::new();
        for to in to {
            match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
                Ok(_) => {}
                // A temporary refusal, such as a full mailbox, does not keep the alert from the others,
                // either.
                Err(error) if error.is_permanent() || error.is_transient() => {
                    refused.push(format!("{} is refused: {error}", to.email));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(refused)
    }

    /// Connects, signs in and names the sender and the recipients, and sends nothing.
    pub(super) async fn check(&self) -> Result<(), String> {
        in_time(async {
            let mut connection = self.connect().await?;
            let refused = self.address(&mut connection).await?;
            let _ = connection.quit().await;
            if refused.is_empty() { Ok(()) } else { Err(refused.join("; ").into()) }
        })
        .await
    }

    async fn post(&self, message: &Message) -> Result<(), String> {
        let mail = self.compose(message).map_err(|e| error_chain(&e))?;
        in_time(async {
            let mut connection = self.connect().await?;
            let refused = self.address(&mut connection).await?;
            if refused.len() == self.settings.to.len() {
                return Err(refused.join("; ").into());
            }
            for why in refused {
                tracing::warn!(
                    why,
                    "mail server refused a recipient of alerts; the others get them"
                );
            }
            connection.command(Data).await?;
            connection.message(&mail.formatted()).await?;
            // The server has taken the message.
            let _ = connection.quit().await;
            Ok(())
        })
        .await
    }
}

/// Greets the server on a connection that receives [`RECEIVED_MAX`] bytes at most.
async fn smtp<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug + 'static>(
    stream: S,
    peer: SocketAddr,
    hello: &ClientId,
) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
    let stream = Limited { stream, peer, left: RECEIVED_MAX };
    AsyncSmtpConnection::connect_with_transport(Box::new(stream), hello).await
}

async fn in_time(work: impl Future<Output = Result<(), AnyError>>) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(done) => done.map_err(|e| error_chain(&*e)),
        Err(_) => Err(format!("the mail server took more than {} s", TIMEOUT.as_secs())),
    }
}

/// A connection to a server that may send [`RECEIVED_MAX`] bytes.
#[derive(Debug)]
struct Limited<S> {
    stream: S,
    peer: SocketAddr,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let received = buf.filled().len() - before;
        match self.left.checked_sub(received) {
            Some(left) => self.left = left,
            None => {
                let why = format!("the mail server sent more than {RECEIVED_MAX} bytes");
                return Poll::Ready(Err(io::Error::other(why)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> AsyncTokioStream
    for Limited<S>
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_reply_without_an_end_is_cut() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = 0;
            while stream.write_all(&[b'2'; 4_096]).await.is_ok() {
                sent += 4_096;
            }
            sent
        });
        let address: lettre::message::Mailbox = "operations@example.com".parse().unwrap();
        let settings = MailSettings {
            host: "127.0.0.1".to_owned(),
            port,
            security: MailSecurity::Loopback,
            login: None,
            from: address.clone(),
            to: vec![address],
        };
        let why = Mail::new(settings).unwrap().check().await.unwrap_err();
        assert!(why.contains("the mail server sent more than 131072 bytes"), "{why}");
        assert!(server.await.unwrap() >= RECEIVED_MAX);
    }
}
