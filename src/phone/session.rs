//! Serves one phone's socket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::message::{FromPhone, NodeMessage, Password, RequestError};
use super::sessions::Resumed;
use super::transfer::transfer;
use super::{Inner, LOGIN_WITHIN, login};
use egress::is_too_large;
use engine::admission::{ApplicationSpec, Reason};
use engine::call::LiveCall;
use engine::call::phones::{Owner, Registration, RegistrationId, ToPhone};
use engine::call::web::{BACK_WITHIN, MuteReason, PhoneCommandError, WebCall};
use engine::limiter::{Claim, Share};
use engine::people::{Person, SessionState, Token};
use machine::CallUrls;
use media::sdp::Offer;
use model::metric;
use model::{AuthId, CallUuid, Digit, Direction, E164, EndpointId};
use store::Endpoint;

/// Maximum number of failed logins per socket.
const LOGINS_MAX: u32 = 3;
/// Ping interval. A phone that sends nothing for twice this time is lost.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Timeout of a write. A socket that does not accept data for this long is lost.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// Burst size and rate limit of messages.
const BURST: u32 = 40;
const PER_SECOND: u32 = 10;
/// Maximum number of keys in a message.
const DIGITS_MAX: usize = 64;
/// Maximum length of a dialled number or address, in characters.
const TO_MAX: usize = 128;
/// Maximum length of a language tag (RFC 5646, section 4.4.1).
const LANGUAGE_MAX: usize = 35;
/// Maximum length of a phone's call reference, in characters.
const REFERENCE_MAX: usize = 64;

/// WebSocket close codes. Those from 4000 are private.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;
const UNAUTHORIZED: u16 = 4401;
/// RFC 6455, section 7.4.1: a message is too large.
const TOO_LARGE: u16 = 1009;
/// Time for a phone to read why its connection is closed.
const CLOSE_READ_WITHIN: Duration = Duration::from_secs(1);
const REPLACED: u16 = 4409;

/// How a socket ended.
enum Exit {
    /// The phone closed the socket or unregistered. Its calls end.
    Left,
    /// The connection was lost. Its calls wait for the phone.
    Lost,
    /// The node closes the socket. `left` is whether its calls end, too.
    Close { code: u16, why: &'static str, left: bool },
}

/// Another socket needs the place.
const EVICTED: Exit = Exit::Close { code: TRY_AGAIN_LATER, why: "too many phones", left: true };

type Next = Result<(), Exit>;

/// Serves a socket until it ends.
pub(super) async fn run(
    socket: WebSocket,
    inner: Arc<Inner>,
    from: IpAddr,
    signed_in: Option<Token>,
    claim: Claim,
) {
    let now = inner.clock.now();
    let mut session = Session {
        socket,
        from,
        signed_in,
        by_session: false,
        is_expired: false,
        phone: None,
        logins: 0,
        room: BURST,
        counted: now,
        last_received: now,
        over: CancellationToken::new(),
        claim,
        inner,
    };
    let exit = match session.go().await {
        Ok(()) => Exit::Left,
        Err(exit) => exit,
    };
    session.end(exit).await;
}

/// State of a socket.
struct Session {
    inner: Arc<Inner>,
    socket: WebSocket,
    from: IpAddr,
    /// The console session with which the socket was opened.
    signed_in: Option<Token>,
    /// Whether the phone was registered by that session. If so, the registration ends with the
    /// session.
    by_session: bool,
    /// Whether the console session has expired. The phone makes no more calls.
    is_expired: bool,
    phone: Option<Phone>,
    /// Number of failed logins.
    logins: u32,
    /// Number of messages that the rate limit still allows, as of `counted`.
    room: u32,
    counted: Instant,
    /// Time of the latest message from the phone.
    last_received: Instant,
    /// Cancelled when the session is resumed on another socket.
    over: CancellationToken,
    /// The socket's claim in the pool. It can be evicted while no phone is registered.
    claim: Claim,
}

/// A registered phone.
struct Phone {
    /// The account's share of sockets that this phone takes.
    _share: Share<AuthId>,
    endpoint: Endpoint,
    owner: Owner,
    secret: String,
    registration: Registration,
    outgoing: mpsc::Receiver<ToPhone>,
    /// The phone's calls at other nodes, each with the process that owns it.
    elsewhere: BTreeMap<CallUuid, Uuid>,
}

/// Maximum number of calls at other nodes that a socket remembers.
const ELSEWHERE_MAX: usize = 256;

/// An event that a socket handles.
enum Wakeup {
    Received(Option<Result<Message, axum::Error>>),
    Outgoing(Option<ToPhone>),
    Tick,
    /// A console session has ended, possibly this one.
    SignedOut,
    Late,
    /// The socket was evicted by another one.
    Evicted,
    Replaced,
    Stopped,
}

impl Session {
    async fn go(&mut self) -> Next {
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ping.tick().await;
        let login = tokio::time::sleep(LOGIN_WITHIN);
        tokio::pin!(login);
        let mut signed_out = self.inner.people.signed_out();
        loop {
            let by_session = self.by_session;
            let (over, stop) = (self.over.clone(), self.inner.stop.clone());
            let evicted = self.claim.evicted().clone();
            let is_known = self.phone.is_some();
            let outgoing = async {
                match &mut self.phone {
                    Some(phone) => phone.outgoing.recv().await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                biased;
                () = stop.cancelled() => Wakeup::Stopped,
                () = over.cancelled() => Wakeup::Replaced,
                () = evicted.cancelled() => Wakeup::Evicted,
                outgoing = outgoing => Wakeup::Outgoing(outgoing),
                received = self.socket.recv() => Wakeup::Received(received),
                _ = ping.tick() => Wakeup::Tick,
                Ok(()) = signed_out.changed(), if by_session => Wakeup::SignedOut,
                () = &mut login, if !is_known => Wakeup::Late,
            };
            match woken {
                Wakeup::Stopped => {
                    self.deliver_rest().await?;
                    // Calls of this process have ended or go on in another one. Those of other nodes
                    // wait for the phone.
                    return Err(Exit::Close {
                        code: GOING_AWAY,
                        why: "the server is shutting down",
                        left: false,
                    });
                }
                Wakeup::Replaced => {
                    return Err(Exit::Close {
                        code: REPLACED,
                        why: "resumed elsewhere",
                        left: false,
                    });
                }
                Wakeup::Late => {
                    return Err(Exit::Close {
                        code: UNAUTHORIZED,
                        why: "no phone has registered",
                        left: true,
                    });
                }
                Wakeup::Evicted => return Err(EVICTED),
                Wakeup::Tick => self.tick().await?,
                Wakeup::SignedOut => self.is_still_signed_in().await?,
                // The phone's queue was full, and the table of phones dropped it.
                Wakeup::Outgoing(None) => return Err(Exit::Lost),
                Wakeup::Outgoing(Some(message)) => self.deliver(&message).await?,
                Wakeup::Received(received) => {
                    // While another process takes over, the message waits.
                    let pause = self.inner.pause.clone();
                    let Some(_request) = pause.enter(&self.inner.stop).await else { continue };
                    self.receive(received).await?;
                }
            }
        }
    }

    async fn tick(&mut self) -> Next {
        if self.inner.clock.now().saturating_duration_since(self.last_received) > PING_EVERY * 2 {
            debug!("phone timed out");
            return Err(Exit::Lost);
        }
        self.put(Message::Ping(bytes::Bytes::new())).await?;
        if let Some(phone) = &self.phone
            && let Err(error) = login::check_account(&self.inner, &phone.owner.account)
        {
            return self.deliver(&ToPhone::Unregistered { why: error.code }).await;
        }
        self.is_still_signed_in().await
    }

    /// Unregisters the phone if its console session has ended or expired, or if the person's role no
    /// longer allows it. While it has calls, an expired session is enough. A failing store does not end
    /// it.
    async fn is_still_signed_in(&mut self) -> Next {
        let Some(token) = self.signed_in.as_ref().filter(|_| self.by_session) else {
            return Ok(());
        };
        let (is_expired, person) = match self.inner.people.session(token).await {
            Ok(SessionState::SignedIn(person)) => (false, Some(person)),
            Ok(SessionState::Expired(person)) => (true, Some(person)),
            Ok(SessionState::Ended) => (true, None),
            Err(error) => {
                debug!(%error, "console session of a phone not read");
                return Ok(());
            }
        };
        let is_enabled = |person: &Person| self.inner.apis.is_enabled(&person.user.account);
        let person = person.filter(|person| is_enabled(person) && self.may_stay(person));
        self.is_expired = is_expired;
        match person {
            Some(_) if !is_expired || self.has_calls() => Ok(()),
            _ => self.deliver(&ToPhone::Unregistered { why: "signed_out" }).await,
        }
    }

    fn has_calls(&self) -> bool {
        let calls = |phone: &Phone| self.inner.phones.calls(phone.registration.place());
        let phone = self.phone.as_ref();
        phone.is_some_and(|phone| !calls(phone).is_empty() || !phone.elsewhere.is_empty())
    }

    fn may_stay(&self, person: &Person) -> bool {
        self.phone.as_ref().is_none_or(|phone| login::may_register(person, &phone.endpoint))
    }

    async fn deliver(&mut self, message: &ToPhone) -> Next {
        if let ToPhone::Relayed { node, call: Some(call), is_ring: true, .. } = message
            && self.phone.as_ref().and_then(|phone| phone.elsewhere.get(call)) == Some(node)
        {
            // The phone rings already: the node sends a message again if it got no answer.
            return Ok(());
        }
        self.say(&NodeMessage::from(message)).await?;
        match message {
            ToPhone::Unregistered { why } => Err(Exit::Close { code: NORMAL, why, left: true }),
            ToPhone::Relayed { is_last: true, .. } => {
                Err(Exit::Close { code: NORMAL, why: "unregistered", left: true })
            }
            ToPhone::Relayed { node, call: Some(call), is_over, .. } => {
                self.note_elsewhere(*call, (!is_over).then_some(*node));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Records which process owns a call. `None` if the phone is no longer involved in it.
    fn note_elsewhere(&mut self, call: CallUuid, node: Option<Uuid>) {
        let Some(Phone { elsewhere, .. }) = &mut self.phone else { return };
        match node {
            Some(node) if elsewhere.len() < ELSEWHERE_MAX => drop(elsewhere.insert(call, node)),
            Some(_) => {}
            None => drop(elsewhere.remove(&call)),
        }
    }

    /// Sends the remaining messages before shutdown, which report how the calls ended.
    async fn deliver_rest(&mut self) -> Next {
        while let Some(message) =
            self.phone.as_mut().and_then(|phone| phone.outgoing.try_recv().ok())
        {
            self.deliver(&message).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, received: Option<Result<Message, axum::Error>>) -> Next {
        let message = match received {
            Some(Ok(message)) => message,
            None => return Err(Exit::Lost),
            Some(Err(error)) if is_too_large(&error) => {
                return Err(Exit::Close { code: TOO_LARGE, why: "message too large", left: false });
            }
            Some(Err(error)) => {
                debug!(%error, "phone socket failed");
                return Err(Exit::Lost);
            }
        };
        self.last_received = self.inner.clock.now();
        self.count()?;
        match message {
            Message::Text(text) => {
                let done = match FromPhone::read(&text) {
                    Ok(request) => self.take(request, &text).await?,
                    Err(trouble) => Err(trouble),
                };
                match done {
                    Ok(()) => Ok(()),
                    Err(trouble) => self.refuse(&trouble).await,
                }
            }
            Message::Binary(_) => {
                self.refuse(&RequestError::new("bad_message", "messages are text")).await
            }
            // axum answers pings.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => Err(Exit::Left),
        }
    }

    /// Applies the rate limit to a message.
    fn count(&mut self) -> Next {
        let seconds = self.last_received.saturating_duration_since(self.counted).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.room = self.room.saturating_add(more).min(BURST);
            self.counted = self.last_received;
        }
        self.room = self.room.checked_sub(1).ok_or(Exit::Close {
            code: POLICY,
            why: "too many messages",
            left: true,
        })?;
        Ok(())
    }

    /// Executes a message. The outer error ends the socket; the inner one is sent to the phone.
    async fn take(
        &mut self,
        request: FromPhone,
        text: &str,
    ) -> Result<Result<(), RequestError>, Exit> {
        let request = match request {
            FromPhone::Ping => return self.say(&NodeMessage::Pong).await.map(Ok),
            FromPhone::Register { endpoint, password, resume } => {
                return self.register(endpoint.as_deref(), password, resume).await;
            }
            request => request,
        };
        let Some(phone) = &self.phone else {
            return Ok(Err(RequestError::new("not_registered", "register first")));
        };
        let (place, inner) = (phone.registration.place(), self.inner.clone());
        match request {
            FromPhone::Unregister => {
                self.say(&NodeMessage::Unregistered { why: "asked" }).await?;
                Err(Exit::Close { code: NORMAL, why: "unregistered", left: true })
            }
            FromPhone::Call { to, sdp, reference, draft } => {
                match self.call(&to, &sdp, reference.as_deref(), draft).await {
                    Ok(call) => self
                        .say(&NodeMessage::Calling { call, reference: reference.as_deref() })
                        .await
                        .map(Ok),
                    Err(trouble) => {
                        Ok(Err(trouble
                            .named(reference.map(|r| r.chars().take(REFERENCE_MAX).collect()))))
                    }
                }
            }
            request => {
                let elsewhere = request.call().and_then(|call| {
                    let node = *phone.elsewhere.get(&call)?;
                    inner.registry.get(call).is_none().then_some((call, node))
                });
                if let (Some((call, node)), Some(fleet)) = (elsewhere, &inner.fleet) {
                    let texts = match fleet.say(node, place, text).await {
                        Ok(texts) => texts,
                        Err(error) => return Ok(Err(error.about(call))),
                    };
                    for text in texts {
                        self.put(Message::Text(text.into())).await?;
                    }
                    return Ok(Ok(()));
                }
                match command(&inner, (place, &phone.owner), request) {
                    Ok(None) => Ok(Ok(())),
                    Ok(Some(confirmed)) => self.say(&confirmed).await.map(Ok),
                    Err(trouble) => Ok(Err(trouble)),
                }
            }
        }
    }

    async fn register(
        &mut self,
        name: Option<&str>,
        password: Option<Password>,
        resume: Option<String>,
    ) -> Result<Result<(), RequestError>, Exit> {
        if self.phone.is_some() {
            return Ok(Err(RequestError::new(
                "already_registered",
                "this socket is already registered; open another socket",
            )));
        }
        let inner = self.inner.clone();
        let by_session = password.is_none();
        let found = match (password, name) {
            (Some(Password(password)), Some(name)) => {
                let evicted = self.claim.evicted().clone();
                tokio::select! {
                    found = login::endpoint(&inner, name, password, self.from) => found,
                    () = evicted.cancelled() => return Err(EVICTED),
                }
            }
            (Some(_), None) => {
                Err(RequestError::new("bad_message", "a password needs an endpoint: set endpoint"))
            }
            (None, name) => login::by_session(&inner, self.signed_in.as_ref(), name).await,
        };
        let found = found.and_then(|endpoint| {
            login::check_account(&inner, &endpoint.account).map(|()| endpoint)
        });
        let endpoint = match found {
            Ok(endpoint) => endpoint,
            Err(trouble) => {
                self.logins += 1;
                let enough = self.logins >= LOGINS_MAX || trouble.code == "too_many_failures";
                if !enough {
                    return Ok(Err(trouble));
                }
                self.refuse(&trouble).await?;
                return Err(Exit::Close { code: UNAUTHORIZED, why: "not logged in", left: true });
            }
        };
        let owner = Owner {
            endpoint: endpoint.id.clone(),
            name: endpoint.name.clone(),
            account: endpoint.account.clone(),
            main_account: endpoint.main_account.clone(),
        };
        let main_accounts =
            inner.gate.directory().tables().accounts().filter(|a| a.parent.is_none()).count();
        let share = inner.registered.take_fairly(owner.main_account.clone(), main_accounts);
        let Some(share) = share else {
            return Ok(Err(RequestError::new(
                "too_many_phones",
                "the account has its maximum number of registered phones at this node",
            )));
        };
        let Ok((registration, outgoing)) = inner.phones.register(owner.clone()) else {
            return Ok(Err(RequestError::new(
                "too_many_places",
                "this endpoint has the maximum number of registrations",
            )));
        };
        // If the endpoint was removed or got another password since it was checked, its phones were
        // unregistered before this one was registered.
        if let Err(trouble) = login::check_again(&inner, &endpoint, by_session).await {
            return Ok(Err(trouble));
        }
        let place = registration.place();
        let mut calls = match &resume {
            Some(secret) => inner.resume(&session_hash(secret), &endpoint.id, place),
            None => Vec::new(),
        };
        let secret = format!("{:016x}{:016x}", inner.random.next(), inner.random.next());
        inner.sessions.begin(&session_hash(&secret), endpoint.id.clone(), place, self.over.clone());
        let elsewhere = match &inner.fleet {
            Some(fleet) => fleet.register(place, &owner, &secret, resume.as_deref()).await,
            None => BTreeMap::new(),
        };
        calls.extend(elsewhere.keys());
        self.by_session = by_session;
        info!(endpoint = %endpoint.name, by_session, calls = calls.len(), "phone registered");
        let recognisers = &inner.recognisers;
        let offered = recognisers.offered_languages();
        let message = NodeMessage::Registered {
            endpoint: endpoint.name.as_str(),
            sip_uri: endpoint.name.sip_address(&inner.sip_host),
            session: &secret,
            calls: &calls,
            resume_within_seconds: BACK_WITHIN.as_secs(),
            captions: !offered.is_empty(),
            caption_languages: &offered,
            caption_language: recognisers.transcript_language(),
        }
        .text();
        self.claim.authenticate();
        self.phone = Some(Phone {
            endpoint,
            owner,
            secret,
            registration,
            outgoing,
            elsewhere,
            _share: share,
        });
        self.put(Message::Text(message.into())).await.map(Ok)
    }

    /// Makes a call.
    async fn call(
        &mut self,
        to: &str,
        sdp: &str,
        reference: Option<&str>,
        of: Option<String>,
    ) -> Result<CallUuid, RequestError> {
        let Some(phone) = &self.phone else {
            return Err(RequestError::new("not_registered", "register first"));
        };
        if self.is_expired {
            let text = "your console session has expired; sign in again";
            return Err(RequestError::new("unauthorized", text));
        }
        if reference.is_some_and(|reference| reference.chars().count() > REFERENCE_MAX) {
            return Err(RequestError::new("bad_message", "ref is at most 64 characters"));
        }
        let (inner, owner, place) = (&self.inner, &phone.owner, phone.registration.place());
        login::check_account(inner, &owner.account)?;
        let to = dialled(to)?;
        let offer = offer(sdp)?;
        if inner.phones.calls(place).len() >= engine::call::phones::CALLS_MAX {
            return Err(RequestError::new(
                "too_many_calls",
                "this phone has the maximum number of calls",
            ));
        }
        let account = inner.gate.directory().tables().account(&owner.account).cloned();
        let account = account
            .ok_or(RequestError::new("no_account", "the endpoint's account no longer exists"))?;
        let urls = match of {
            Some(id) => draft(&self.inner, self.signed_in.as_ref(), &id, &phone.endpoint).await?,
            None => application_urls(&self.inner, &phone.endpoint)?,
        };
        let admitted = inner
            .gate
            .admit_web_shared(&inner.clock, &account, Direction::Inbound)
            .await
            .map_err(denied)?;
        let web = WebCall {
            place,
            owner: owner.clone(),
            from: owner.name.sip_address(&inner.sip_host),
            to,
            caller_name: phone.endpoint.alias.clone(),
            headers: Vec::new(),
            urls,
            offer,
            arrived: inner.clock.now(),
            arrived_wall: inner.clock.wall(),
        };
        match inner.registry.start_web(admitted, web) {
            Ok(call) => {
                inner.gate.count(Direction::Inbound, metric::admission::ADMITTED);
                Ok(call)
            }
            Err(admitted) => {
                admitted.withdraw();
                inner.gate.count(Direction::Inbound, Reason::Overloaded.as_str());
                Err(denied(Reason::Overloaded))
            }
        }
    }

    async fn say(&mut self, message: &NodeMessage<'_>) -> Next {
        self.put(Message::Text(message.text().into())).await
    }

    async fn refuse(&mut self, trouble: &RequestError) -> Next {
        self.say(&NodeMessage::from(trouble)).await
    }

    async fn put(&mut self, message: Message) -> Next {
        match tokio::time::timeout(SEND_WITHIN, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Exit::Lost),
        }
    }

    async fn end(mut self, exit: Exit) {
        let left = match &exit {
            Exit::Left => true,
            Exit::Lost => false,
            Exit::Close { left, .. } => *left,
        };
        if let Some(phone) = self.phone.take() {
            let place = phone.registration.place();
            let calls = self.inner.phones.calls(place);
            // Unregister first: no further call rings here, and the list of calls is final.
            drop(phone.registration);
            self.inner.registry.phone_gone(place, &calls, left);
            let hash = session_hash(&phone.secret);
            match left {
                true => self.inner.sessions.end(&hash),
                false => self.inner.sessions.lost(&hash, calls, self.inner.clock.now()),
            }
            if let Some(fleet) = &self.inner.fleet {
                fleet.gone(place, left);
            }
            info!(endpoint = %phone.endpoint.name, left, "phone disconnected");
        }
        let close = match exit {
            Exit::Close { code, why, .. } => Some(CloseFrame { code, reason: why.into() }),
            Exit::Left => None,
            Exit::Lost => return,
        };
        let is_too_large = close.as_ref().is_some_and(|close| close.code == TOO_LARGE);
        let _ = tokio::time::timeout(SEND_WITHIN, self.socket.send(Message::Close(close))).await;
        if is_too_large {
            // The rest of the message can't be read. Unread bytes reset a connection that is closed,
            // so the phone gets time to read the frame.
            tokio::time::sleep(CLOSE_READ_WITHIN).await;
        }
    }
}

impl Inner {
    /// Reclaims the calls of a lost session for a registration. Returns the reclaimed calls.
    pub(super) fn resume(
        &self,
        hash: &str,
        endpoint: &EndpointId,
        place: RegistrationId,
    ) -> Vec<CallUuid> {
        let calls = match self.sessions.take(hash, endpoint) {
            None => return Vec::new(),
            Some(Resumed::Gone(calls)) => calls,
            Some(Resumed::Here { place: old, over }) => {
                let calls = self.phones.calls(old);
                self.registry.phone_gone(old, &calls, false);
                over.cancel();
                calls
            }
        };
        self.registry.phone_back(place, &calls)
    }
}

/// Executes a request of a phone about a call. Returns the confirmation to the phone, if there is
/// one.
///
/// # Errors
/// Returns why it was not executed.
pub(super) fn command(
    inner: &Inner,
    (place, owner): (RegistrationId, &Owner),
    request: FromPhone,
) -> Result<Option<NodeMessage<'static>>, RequestError> {
    let on = |call: CallUuid, act: &dyn Fn(&LiveCall) -> Result<(), PhoneCommandError>| {
        let done =
            inner.registry.get(call).ok_or(PhoneCommandError::NoCall).and_then(|call| act(&call));
        done.map_err(|why| RequestError::from(why).about(call))
    };
    let mute = |call, reason, is_on| on(call, &|live| live.mute(place, reason, is_on));
    Ok(match request {
        FromPhone::Accept { call, sdp } => {
            let offer = offer(&sdp).map_err(|trouble| trouble.about(call))?;
            on(call, &|live| live.take(place, offer.clone()))?;
            None
        }
        FromPhone::Reject { call } => {
            on(call, &|live| live.decline(place))?;
            None
        }
        FromPhone::Hangup { call } => {
            on(call, &|live| live.hang_up(place))?;
            None
        }
        FromPhone::Digits { call, digits } => {
            let keys = keys(&digits).map_err(|trouble| trouble.about(call))?;
            on(call, &|live| live.press(place, keys.iter().copied()))?;
            None
        }
        FromPhone::Transfer { call, to } => {
            transfer(inner, (place, owner), call, &to)?;
            Some(NodeMessage::Transferred { call })
        }
        FromPhone::Captions { call, on: wanted, language } => {
            let language =
                spoken(inner, wanted, language).map_err(|trouble| trouble.about(call))?;
            on(call, &|live| live.caption(place, language.as_deref()))?;
            Some(NodeMessage::Captions { call, on: wanted, why: None })
        }
        FromPhone::Mute { call } => {
            mute(call, MuteReason::Mute, true)?;
            Some(NodeMessage::Muted { call })
        }
        FromPhone::Unmute { call } => {
            mute(call, MuteReason::Mute, false)?;
            Some(NodeMessage::Unmuted { call })
        }
        FromPhone::Hold { call } => {
            mute(call, MuteReason::Hold, true)?;
            Some(NodeMessage::Held { call })
        }
        FromPhone::Unhold { call } => {
            mute(call, MuteReason::Hold, false)?;
            Some(NodeMessage::Unheld { call })
        }
        // They concern no call, and the session executes them.
        FromPhone::Register { .. }
        | FromPhone::Unregister
        | FromPhone::Call { .. }
        | FromPhone::Ping => None,
    })
}

/// Returns the URLs of a draft by the signed-in person. The draft itself receives the hangup
/// callback.
async fn draft(
    inner: &Inner,
    token: Option<&Token>,
    id: &str,
    endpoint: &Endpoint,
) -> Result<CallUrls, RequestError> {
    const NONE: RequestError =
        RequestError::new("no_draft", "you have no such draft: run it again");
    let person = login::person(inner, token.ok_or(NONE)?).await?;
    let theirs =
        person.filter(|person| person.scope().holds(&endpoint.account, &endpoint.main_account));
    let user = theirs.ok_or(NONE)?.user;
    let claim =
        || inner.drafts.claim(id, (&user.account, user.id), &endpoint.account, inner.clock.now());
    let mut found = claim();
    if found.is_none()
        && let Some(fleet) = &inner.fleet
        && let Some(text) = fleet.take_draft(id, &user.account, user.id).await
    {
        inner.drafts.keep(id, user.account.clone(), user.id, &text, inner.clock.now());
        found = claim();
    }
    let (answer, answer_method) = found.ok_or(NONE)?;
    let hangup = (answer.clone(), answer_method);
    Ok(CallUrls { answer, answer_method, fallback: None, hangup })
}

/// Returns the URLs of the endpoint's application.
fn application_urls(inner: &Inner, endpoint: &Endpoint) -> Result<CallUrls, RequestError> {
    const NONE: &str = "the endpoint has no application: set its app_id, or set default_endpoint_app of its \
        account";
    let tables = inner.gate.directory().tables();
    let application = tables.application_of_endpoint(endpoint.app_id.as_ref(), &endpoint.account);
    let application = application.ok_or(RequestError::new("no_application", NONE))?;
    urls(application)
        .ok_or(RequestError::new("no_application", "this endpoint's application has no answer_url"))
}

fn urls(application: &ApplicationSpec) -> Option<CallUrls> {
    let (answer, answer_method) = application.answer.clone()?;
    let hangup = application.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method));
    Some(CallUrls { answer, answer_method, fallback: application.fallback.clone(), hangup })
}

/// Normalizes the dialled target: the digits of a phone number, or the text unchanged.
fn dialled(to: &str) -> Result<String, RequestError> {
    let to = to.trim();
    if to.is_empty() || to.chars().count() > TO_MAX || to.chars().any(char::is_control) {
        return Err(RequestError::new(
            "bad_number",
            "to must have 1 to 128 characters: a number, or any word that your application knows",
        ));
    }
    Ok(E164::parse(to).map_or_else(|_| to.to_owned(), |number| number.to_string()))
}

fn offer(sdp: &str) -> Result<Offer, RequestError> {
    Offer::parse_phone(sdp).map_err(|why| {
        RequestError::with_text("bad_offer", format!("the offer is not usable: {why}"))
    })
}

/// Returns the language for captions. `None` if captions are not wanted.
fn spoken(
    inner: &Inner,
    wanted: bool,
    language: Option<String>,
) -> Result<Option<String>, RequestError> {
    if !wanted {
        return Ok(None);
    }
    let recognisers = &inner.recognisers;
    let language = language.unwrap_or_else(|| recognisers.transcript_language().to_owned());
    let is_tag = (1..=LANGUAGE_MAX).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_tag {
        return Err(RequestError::new("bad_message", "language is a BCP 47 tag, such as en-IN"));
    }
    match recognisers.can_recognise(&language) {
        true => Ok(Some(language)),
        false => Err(RequestError::new("no_recogniser", "no speech recogniser for this language")),
    }
}

fn keys(digits: &str) -> Result<Vec<Digit>, RequestError> {
    let keys: Option<Vec<Digit>> =
        digits.chars().map(|c| Digit::try_from(c).ok().filter(|key| !key.is_letter())).collect();
    keys.filter(|keys| (1..=DIGITS_MAX).contains(&keys.len()))
        .ok_or(RequestError::new("bad_digits", "digits is 1 to 64 of 0-9, * and #"))
}

/// Returns the hash by which nodes identify a phone that reclaims its calls.
pub(super) fn session_hash(secret: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()))
}

fn denied(reason: Reason) -> RequestError {
    match reason {
        Reason::CpsExceeded => RequestError::new(
            "cps_exceeded",
            "the account's calls per second are used up; try again",
        ),
        Reason::Draining => RequestError::new("draining", "this server is stopping: no new calls"),
        _ => RequestError::new("overloaded", "this server is overloaded; try again"),
    }
}

#[cfg(test)]
mod tests {
    use super::{dialled, keys};

    #[test]
    fn dialled_numbers_are_normalized_and_other_text_is_kept() {
        let to = |text: &str| dialled(text).ok();
        assert_eq!(to(" +91 98123-45678 ").as_deref(), Some("919812345678"));
        assert_eq!(to("support").as_deref(), Some("support"));
        assert_eq!(to("sip:ravi@h").as_deref(), Some("sip:ravi@h"));
        assert_eq!(to("7").as_deref(), Some("7"));
        for bad in ["", "  ", "a\nb", "x".repeat(129).as_str()] {
            assert!(to(bad).is_none(), "{bad}");
        }
        assert_eq!(keys("12*#").map(|keys| keys.len()), Ok(4));
        for bad in ["", "x", "1 2", "1".repeat(65).as_str()] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }
}
