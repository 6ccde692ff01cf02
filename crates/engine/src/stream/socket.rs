//! The WebSocket of a stream: connects, reads commands, writes queued messages, and reports how it
//! ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::header::USER_AGENT as USER_AGENT_HEADER;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::Shared;
use super::message::{self, Command, Fault, ServerMessage};
use super::outbox::NextSend;
use super::relay::{RelayAddress, moved};
use crate::answer::{RandomSource, SigningKeys, sign};
use egress::{CustomerUrl, Egress, EgressError, Socket, USER_AGENT, is_too_large};
use machine::StreamEvent;
use model::Clock;
use model::metric;
use model::{Method, StreamId};

/// Timeout of one connection attempt: DNS, TCP, TLS and upgrade (`docs/stream.md#connection`).
const CONNECT: Duration = Duration::from_secs(5);
/// Maximum number of connection attempts.
const TRIES: u32 = 3;
/// Pause between connection attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum message size (`docs/reference/limits.md#l12`).
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Ping interval. A server that misses two pongs is lost.
const PING_EVERY: Duration = Duration::from_secs(20);
const PINGS_MISSED_MAX: u32 = 2;
/// Time for queued messages and the closing handshake at the end of a stream.
const CLOSING: Duration = Duration::from_secs(2);
/// Maximum burst of messages from the server. 40 s of audio in pieces of 20 ms fit into it. Beyond
/// the limit, the socket is read more slowly. [`Egress::socket`] limits the bytes.
const MESSAGES_AT_ONCE: u32 = 2_500;
/// Maximum rate of messages from the server.
const MESSAGES_A_SECOND: u32 = 1_000;
/// Number of messages as which one counts that the call's machine processes, such as a checkpoint: 50
/// of them a second, and 125 at once.
const EVENT_COST: u32 = 20;
/// The same if it is reported to the application: 20 a second, and 50 at once.
const CALLBACK_COST: u32 = 50;

const STREAM_ID: HeaderName = HeaderName::from_static("x-plivo-stream-id");

/// The services and keys for connecting.
pub(super) struct Connector {
    pub(super) egress: Egress,
    pub(super) random: RandomSource,
    pub(super) keys: SigningKeys,
    pub(super) stream: StreamId,
}

/// Time to send our close frame after the server's.
const GOODBYE: Duration = Duration::from_millis(100);

/// How a socket ended.
enum End {
    /// The stream has ended at the node, and the server was notified.
    Local,
    /// The server closed the socket.
    Remote,
    Lost(String),
    TooLarge,
    /// The stream goes on in another process.
    Detached,
}

/// The socket of a stream that goes on in another process.
pub(crate) enum DetachedSocket {
    Own(Box<Socket>),
    /// A further process has it.
    Relayed(RelayAddress),
}

/// Serves a stream's socket, including the connection attempts. Returns the socket if the stream was
/// detached.
pub(super) async fn run(shared: Arc<Shared>, way: Connector) -> Option<DetachedSocket> {
    let socket = tokio::select! {
        biased;
        () = shared.stopped.cancelled() => {
            count("ended");
            return None;
        }
        socket = connect(&shared, &way) => socket,
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            count("failed");
            shared.tell(StreamEvent::Failed { reason: error.to_string() });
            return None;
        }
    };
    let active = Active::new();
    shared.say(ServerMessage::Start { order: &shared.order });
    shared.opened.store(true, Ordering::Release);
    shared.tell(StreamEvent::Opened);
    let (end, socket) = serve(&shared, socket, false).await;
    drop(active);
    report(&shared, end);
    socket.map(|socket| DetachedSocket::Own(Box::new(socket)))
}

/// Serves the socket of a stream that another process has.
pub(super) async fn resume(
    shared: Arc<Shared>,
    relay: Option<RelayAddress>,
) -> Option<DetachedSocket> {
    let connected = match &relay {
        Some(relay) => relay.connect().await.map_err(|error| error.to_string()),
        None => Err("no process has its connection".to_owned()),
    };
    let (end, socket) = match connected {
        Ok(socket) => {
            let _active = Active::new();
            serve(&shared, socket, true).await
        }
        Err(reason) => (End::Lost(reason), None),
    };
    report(&shared, end);
    socket.and(relay).map(DetachedSocket::Relayed)
}

/// Counts and reports how a socket ended.
fn report(shared: &Shared, end: End) {
    match &end {
        End::Local | End::Remote => count("ended"),
        End::Lost(_) | End::TooLarge => count("lost"),
        End::Detached => {}
    }
    let dropped = shared.outbox.dropped();
    if dropped > 0 {
        tracing::info!(dropped, "stream audio dropped: server reads too slowly");
    }
    match end {
        End::Local | End::Detached => {}
        End::Remote => shared.tell(StreamEvent::Closed),
        End::Lost(why) => shared.tell(StreamEvent::Lost { reason: why }),
        End::TooLarge => {
            let why = format!("its server sent a message of more than {MESSAGE_BYTES_MAX} bytes");
            shared.tell(StreamEvent::Lost { reason: why });
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(metric::STREAMS_TOTAL, "outcome" => outcome).increment(1);
}

/// Counts an open stream in the metrics until dropped.
struct Active;

impl Active {
    fn new() -> Self {
        metrics::gauge!(metric::STREAMS_ACTIVE).increment(1);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        metrics::gauge!(metric::STREAMS_ACTIVE).decrement(1);
    }
}

async fn connect(shared: &Shared, way: &Connector) -> Result<Socket, EgressError> {
    let url = CustomerUrl::socket(&shared.order.url.0, way.egress.guard())?;
    let mut tries = 0;
    loop {
        tries += 1;
        let error =
            match way.egress.socket(&url, headers(&url, way), MESSAGE_BYTES_MAX, CONNECT).await {
                Ok(socket) => return Ok(socket),
                // A forbidden URL stays forbidden.
                Err(error @ EgressError::Refused(_)) => return Err(error),
                Err(error) => error,
            };
        tracing::info!(%error, tries, "stream connection failed");
        if tries == TRIES {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

/// Builds the headers of one attempt, with a new signature
/// (`docs/reference/callbacks.md#stream-sockets`).
fn headers(url: &CustomerUrl, way: &Connector) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
    let signed = sign(Method::Get, url.text(), &[], &way.keys, way.random.nonce());
    for (name, value) in signed.into_iter().chain([(STREAM_ID, way.stream.to_string())]) {
        // Base64, commas, digits and hyphens are valid in header values.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Reads and writes until either ends, or until the stream is detached. Returns the socket in that
/// case. `relayed` means that another process passes the messages on.
async fn serve<S>(shared: &Shared, socket: S, relayed: bool) -> (End, Option<S>)
where
    S: Sink<Message, Error = Error> + Stream<Item = Result<Message, Error>> + Unpin,
{
    let (mut to, mut from) = socket.split();
    let unanswered = AtomicU32::new(0);
    let end = {
        let reading = read(shared, &mut from, &unanswered, relayed);
        let writing = write(shared, &mut to);
        tokio::pin!(reading, writing);
        tokio::select! {
            end = &mut reading => end,
            written = &mut writing => match written {
                Ok(Written::Detached) => End::Detached,
                all => after(all.map(drop), &mut reading).await,
            },
            () = pings(shared, &unanswered) => End::Lost("its server answers no pings".to_owned()),
            // Ends the socket even if the server does not read.
            () = async { shared.stopped.cancelled().await; sleep(CLOSING).await; } => End::Local,
        }
    };
    match end {
        End::TooLarge => {
            let why = CloseFrame { code: CloseCode::Size, reason: "message too large".into() };
            let _ = timeout(CLOSING, to.send(Message::Close(Some(why)))).await;
        }
        End::Detached if relayed => {
            // The other process answers after the last message of the server.
            let last = async {
                let _ = to.send(moved()).await;
                read(shared, &mut from, &unanswered, relayed).await
            };
            let _ = timeout(CLOSING, last).await;
        }
        _ => {}
    }
    let socket = matches!(end, End::Detached).then(|| to.reunite(from).ok()).flatten();
    (end, socket)
}

/// Determines how the socket ended after writing ended. A close by the server makes writes fail,
/// too, and either can be noticed first, so the reader gets time to see the close.
async fn after(written: Result<(), Error>, reading: impl Future<Output = End>) -> End {
    let last = timeout(CLOSING, reading).await;
    match written {
        Ok(()) => End::Local,
        Err(error) => last.unwrap_or_else(|_| End::Lost(error.to_string())),
    }
}

/// How writing ended.
enum Written {
    All,
    /// The stream was detached. Messages may still wait.
    Detached,
}

async fn write(
    shared: &Shared,
    to: &mut (impl Sink<Message, Error = Error> + Unpin),
) -> Result<Written, Error> {
    loop {
        match shared.outbox.next().await {
            NextSend::Text(text) => to.send(Message::text(text)).await?,
            NextSend::Ping => to.send(Message::Ping(Bytes::new())).await?,
            NextSend::Over => {
                let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                to.send(Message::Close(Some(goodbye))).await?;
                return Ok(Written::All);
            }
            NextSend::Detached => return Ok(Written::Detached),
        }
    }
}

/// Completes when the server has missed too many pings.
async fn pings(shared: &Shared, unanswered: &AtomicU32) {
    loop {
        sleep(PING_EVERY).await;
        if unanswered.fetch_add(1, Ordering::Relaxed) >= PINGS_MISSED_MAX {
            return;
        }
        shared.outbox.ping();
    }
}

async fn read(
    shared: &Shared,
    from: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    unanswered: &AtomicU32,
    relayed: bool,
) -> End {
    let mut pace = Pace::new(&shared.clock);
    loop {
        match from.next().await {
            Some(Ok(Message::Text(text))) => pace.wait(take(shared, &text)).await,
            Some(Ok(Message::Pong(_))) => unanswered.store(0, Ordering::Relaxed),
            // Ignored, but counted by the rate limit.
            Some(Ok(Message::Binary(_) | Message::Ping(_))) => pace.wait(1).await,
            Some(Ok(Message::Frame(_))) => {}
            // The other process completes the closing handshake.
            Some(Ok(Message::Close(_))) if relayed => return End::Remote,
            Some(Ok(Message::Close(_))) => {
                // Reading on sends our close frame. The document does not wait for a server that
                // leaves the connection open after its own.
                let _ = timeout(GOODBYE, from.next()).await;
                return End::Remote;
            }
            // The other process passes on the server's close frame.
            None if relayed => return End::Lost("its connection was lost".to_owned()),
            Some(Err(Error::ConnectionClosed)) | None => return End::Remote,
            Some(Err(error)) if is_too_large(&error) => return End::TooLarge,
            Some(Err(error)) => return End::Lost(error.to_string()),
        }
    }
}

/// Executes a command. Returns the number of messages as which it counts.
fn take(shared: &Shared, text: &str) -> u32 {
    let command = message::read(text);
    let cost = match &command {
        Ok(Some(Command::PlayAudio(_)) | None) | Err(_) => 1,
        Ok(Some(Command::Checkpoint { .. } | Command::ClearAudio | Command::SendDtmf { .. })) => {
            shared.order.status.as_ref().map_or(EVENT_COST, |_| CALLBACK_COST)
        }
    };
    let done = match command {
        Ok(Some(Command::PlayAudio(_))) if !shared.order.bidirectional => {
            Err(Fault::NotBidirectional)
        }
        Ok(Some(Command::PlayAudio(sound))) => {
            let pushed = shared.play().queue.push(sound);
            pushed.map(|level| {
                if let Some(percent) = level {
                    shared.report(StreamEvent::Degraded { percent });
                }
            })
        }
        Ok(Some(Command::Checkpoint { name })) => shared.play().queue.checkpoint(name),
        Ok(Some(Command::ClearAudio)) => {
            let mut play = shared.play();
            play.queue.clear();
            play.cleared = play.cleared.saturating_add(1);
            Ok(())
        }
        Ok(Some(Command::SendDtmf { digits })) => {
            shared.tell(StreamEvent::SendDigits { digits });
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
    if let Err(code) = done {
        shared.say(ServerMessage::Error { code });
    }
    cost
}

/// Rate limit for messages from a server.
struct Pace<'a> {
    clock: &'a Clock,
    at: Instant,
    /// The number of messages that may be read at present. Negative after too many.
    left: f64,
}

impl<'a> Pace<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self { clock, at: clock.now(), left: MESSAGES_AT_ONCE.into() }
    }

    /// Accounts for this number of messages. Returns the time until the next one may be read.
    fn take(&mut self, count: u32) -> Duration {
        let now = self.clock.now();
        let passed =
            now.saturating_duration_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        let a_second = f64::from(MESSAGES_A_SECOND);
        self.left = (self.left + passed * a_second).min(MESSAGES_AT_ONCE.into()) - f64::from(count);
        Duration::from_secs_f64((-self.left).max(0.0) / a_second)
    }

    /// Accounts for this number of messages, and waits until the next one may be read.
    async fn wait(&mut self, count: u32) {
        let pause = self.take(count);
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::Duration;

    use super::{CALLBACK_COST, End, Error, Pace, after};
    use model::{Clock, Timestamp};

    #[test]
    fn a_server_that_sends_many_checkpoints_is_read_more_slowly() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut pace = Pace::new(&clock);
        for _ in 0..50 {
            assert_eq!(pace.take(CALLBACK_COST), Duration::ZERO);
        }
        assert_eq!(pace.take(CALLBACK_COST), Duration::from_millis(50));
        clock.step(Duration::from_millis(100));
        assert_eq!(pace.take(CALLBACK_COST), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_close_by_the_server_that_fails_a_write_is_not_a_loss() {
        let failed = || Err(Error::ConnectionClosed);
        assert!(matches!(after(failed(), ready(End::Remote)).await, End::Remote));
        assert!(matches!(after(failed(), ready(End::TooLarge)).await, End::TooLarge));
        assert!(matches!(
            after(failed(), ready(End::Lost("reset".to_owned()))).await,
            End::Lost(_)
        ));
        assert!(matches!(after(Ok(()), ready(End::Remote)).await, End::Local));
    }
}
