//! A stream's socket: connects, reads what the server wants, writes what waits for it, and says how it ended.

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
use super::message::{self, Fault, Ours, Theirs};
use super::outbox::Going;
use crate::answer::{Dice, SigningKeys, sign};
use egress::{CustomerUrl, Egress, EgressError, Socket, USER_AGENT, is_too_large};
use machine::StreamEvent;
use model::Clock;
use model::metric;
use model::{Method, StreamId};

/// One try: look-up, TCP, TLS and upgrade (`plivo-callbacks.md` §3.9).
const CONNECT: Duration = Duration::from_secs(5);
/// Tries, and the pause between two.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// L12.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A server that answers two of these no more is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
const PINGS_MISSED_MAX: u32 = 2;
/// For what waits, the last word and the server's own, once the stream is over.
const CLOSING: Duration = Duration::from_secs(2);
/// What a server may send at once and, past that, each second: in messages, and in bytes. 40 s of sound fit at once, in
/// pieces of 20 ms. Whoever sends more is read more slowly.
const MESSAGES_AT_ONCE: u32 = 2_500;
const MESSAGES_A_SECOND: u32 = 1_000;
const BYTES_AT_ONCE: u32 = 6 * 1024 * 1024;
const BYTES_A_SECOND: u32 = 1024 * 1024;

const STREAM_ID: HeaderName = HeaderName::from_static("x-plivo-stream-id");

/// What a socket is opened with.
pub(super) struct Way {
    pub(super) egress: Egress,
    pub(super) dice: Dice,
    pub(super) keys: SigningKeys,
    pub(super) stream: StreamId,
}

/// How a socket ended.
enum End {
    /// The stream is over, and the server knows.
    Ours,
    /// The server closed it.
    Theirs,
    Lost(String),
    TooLarge,
}

/// Serves a stream's socket from the first try to its end.
pub(super) async fn run(shared: Arc<Shared>, way: Way) {
    let socket = tokio::select! {
        biased;
        () = shared.stopped.cancelled() => return count("ended"),
        socket = connect(&shared, &way) => socket,
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            count("failed");
            return shared.tell(StreamEvent::Failed { reason: format!("could not {error}") });
        }
    };
    let active = Active::new();
    shared.say(Ours::Start { order: &shared.order });
    shared.opened.store(true, Ordering::Release);
    shared.tell(StreamEvent::Opened);
    let end = serve(&shared, socket).await;
    drop(active);
    count(match &end {
        End::Ours | End::Theirs => "ended",
        End::Lost(_) | End::TooLarge => "lost",
    });
    let dropped = shared.outbox.dropped();
    if dropped > 0 {
        tracing::info!(
            dropped,
            "a stream's server read too slowly: messages of sound were left out"
        );
    }
    match end {
        End::Ours => {}
        End::Theirs => shared.tell(StreamEvent::Closed),
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

/// Counted as long as it is there.
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

async fn connect(shared: &Shared, way: &Way) -> Result<Socket, EgressError> {
    let url = CustomerUrl::socket(&shared.order.url.0, way.egress.guard())?;
    let mut tries = 0;
    loop {
        tries += 1;
        let error =
            match way.egress.socket(&url, headers(&url, way), MESSAGE_BYTES_MAX, CONNECT).await {
                Ok(socket) => return Ok(socket),
                // It will not be less forbidden the next time.
                Err(error @ EgressError::Refused(_)) => return Err(error),
                Err(error) => error,
            };
        tracing::info!(%error, tries, "a stream's server could not be reached");
        if tries == TRIES {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

/// Those of one try: it is signed afresh (`plivo-callbacks.md` §5.6).
fn headers(url: &CustomerUrl, way: &Way) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
    let signed = sign(Method::Get, url.text(), &[], &way.keys, way.dice.nonce());
    for (name, value) in signed.into_iter().chain([(STREAM_ID, way.stream.to_string())]) {
        // Base64, commas, digits, hyphens: always a header's value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Reads and writes until one of the two is over.
async fn serve(shared: &Shared, socket: Socket) -> End {
    let (mut to, mut from) = socket.split();
    let unanswered = AtomicU32::new(0);
    let end = {
        let reading = read(shared, &mut from, &unanswered);
        let writing = write(shared, &mut to);
        tokio::pin!(reading, writing);
        tokio::select! {
            end = &mut reading => end,
            written = &mut writing => after(written, &mut reading).await,
            () = pings(shared, &unanswered) => End::Lost("its server answers no pings".to_owned()),
            // Whether it reads or not.
            () = async { shared.stopped.cancelled().await; sleep(CLOSING).await; } => End::Ours,
        }
    };
    if let End::TooLarge = end {
        let why = CloseFrame { code: CloseCode::Size, reason: "message too large".into() };
        let _ = timeout(CLOSING, to.send(Message::Close(Some(why)))).await;
    }
    end
}

/// Nothing is written any more: what that means, by the server's last word. A goodbye of its own ends our writing too, and
/// whichever of the two is seen first.
async fn after(written: Result<(), Error>, reading: impl Future<Output = End>) -> End {
    let last = timeout(CLOSING, reading).await;
    match written {
        Ok(()) => End::Ours,
        Err(error) => last.unwrap_or_else(|_| End::Lost(error.to_string())),
    }
}

async fn write(
    shared: &Shared,
    to: &mut (impl Sink<Message, Error = Error> + Unpin),
) -> Result<(), Error> {
    loop {
        match shared.outbox.next().await {
            Going::Text(text) => to.send(Message::text(text)).await?,
            Going::Ping => to.send(Message::Ping(Bytes::new())).await?,
            Going::Over => {
                let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return to.send(Message::Close(Some(goodbye))).await;
            }
        }
    }
}

/// Over when the server has answered too few.
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
) -> End {
    let mut pace = Pace::new(&shared.clock);
    loop {
        match from.next().await {
            Some(Ok(Message::Text(text))) => {
                take(shared, &text);
                if let Some(pause) = pace.after(text.len()) {
                    sleep(pause).await;
                }
            }
            Some(Ok(Message::Pong(_))) => unanswered.store(0, Ordering::Relaxed),
            // They mean nothing here, and cost as much.
            Some(Ok(Message::Binary(bytes))) => {
                if let Some(pause) = pace.after(bytes.len()) {
                    sleep(pause).await;
                }
            }
            Some(Ok(Message::Ping(_))) => {
                if let Some(pause) = pace.after(0) {
                    sleep(pause).await;
                }
            }
            Some(Ok(Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) => {
                // Our answer to it goes out as it is read on.
                let _ = timeout(CLOSING, from.next()).await;
                return End::Theirs;
            }
            Some(Err(Error::ConnectionClosed)) | None => return End::Theirs,
            Some(Err(error)) if is_too_large(&error) => return End::TooLarge,
            Some(Err(error)) => return End::Lost(error.to_string()),
        }
    }
}

/// Does what a message asks for.
fn take(shared: &Shared, text: &str) {
    let done = match message::read(text) {
        Ok(Some(Theirs::PlayAudio(_))) if !shared.order.bidirectional => {
            Err(Fault::NotBidirectional)
        }
        Ok(Some(Theirs::PlayAudio(sound))) => {
            let pushed = shared.play().queue.push(sound);
            pushed.map(|level| {
                if let Some(percent) = level {
                    shared.report(StreamEvent::Degraded { percent });
                }
            })
        }
        Ok(Some(Theirs::Checkpoint { name })) => shared.play().queue.checkpoint(name),
        Ok(Some(Theirs::ClearAudio)) => {
            let mut play = shared.play();
            play.queue.clear();
            play.cleared = play.cleared.saturating_add(1);
            Ok(())
        }
        Ok(Some(Theirs::SendDtmf { digits })) => {
            shared.tell(StreamEvent::SendDigits { digits });
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
    if let Err(code) = done {
        shared.say(Ours::Error { code });
    }
}

/// How fast a server is read.
struct Pace<'a> {
    clock: &'a Clock,
    at: Instant,
    messages: f64,
    bytes: f64,
}

impl<'a> Pace<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            at: clock.now(),
            messages: MESSAGES_AT_ONCE.into(),
            bytes: BYTES_AT_ONCE.into(),
        }
    }

    /// A message of so many bytes has been read: how long no other is.
    fn after(&mut self, bytes: usize) -> Option<Duration> {
        let now = self.clock.now();
        let passed =
            now.saturating_duration_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        let refilled = |left: f64, a_second: u32, most: u32| {
            (left + passed * f64::from(a_second)).min(most.into())
        };
        self.messages = refilled(self.messages, MESSAGES_A_SECOND, MESSAGES_AT_ONCE) - 1.0;
        self.bytes = refilled(self.bytes, BYTES_A_SECOND, BYTES_AT_ONCE) - bytes as f64;
        let over = |left: f64, a_second: u32| (-left / f64::from(a_second)).max(0.0);
        let pause = over(self.messages, MESSAGES_A_SECOND).max(over(self.bytes, BYTES_A_SECOND));
        (pause > 0.0).then(|| Duration::from_secs_f64(pause))
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::{End, Error, after};

    #[tokio::test]
    async fn a_goodbye_that_ends_our_writing_is_a_goodbye() {
        let failed = || Err(Error::ConnectionClosed);
        assert!(matches!(after(failed(), ready(End::Theirs)).await, End::Theirs));
        assert!(matches!(after(failed(), ready(End::TooLarge)).await, End::TooLarge));
        assert!(matches!(
            after(failed(), ready(End::Lost("reset".to_owned()))).await,
            End::Lost(_)
        ));
        assert!(matches!(after(Ok(()), ready(End::Theirs)).await, End::Ours));
    }
}
