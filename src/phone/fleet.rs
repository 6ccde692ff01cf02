//! Phones of a fleet: a phone that is registered at one node has a place in the tables of all
//! others, so that calls of any node ring it.
//!
//! A phone's socket stays at its node. Messages from another node to the phone are sent to the
//! socket's node, and the phone's messages about a call of another node are sent to that node. The
//! media of a call goes straight to the call's node. A phone that lost its socket can reclaim its
//! calls at any node: each node identifies all phones by the hash of their secret, and restores its
//! own calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Inner;
use super::message::{FromPhone, NodeMessage, RequestError};
use super::session::{command, session_hash};
use engine::call::phones::{Owner, Registration, RegistrationId, ToPhone};
use engine::cluster::{Cluster, post};
use model::{AuthId, CallUuid, Clock, EndpointId, EndpointName};

/// Path of the messages about phones between nodes.
pub const PATH: &str = "/phones";

/// Timeout for announcing a registration to the other nodes, before it is confirmed to the phone.
const REGISTER_TIME: Duration = Duration::from_millis(300);

/// Timeout for another node to execute a request from a phone.
const COMMAND_TIME: Duration = Duration::from_secs(2);

/// Interval between the attempts to send a message to a phone at another node.
const TELL_RETRY: Duration = Duration::from_millis(200);
/// Number of failed attempts in a row after which a warning is logged.
const TELL_TRIES: u32 = 10;

/// Interval between comparisons of the tables of two nodes.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of phones that are accepted from another node: its maximum number of sockets.
const PHONES_MAX: usize = super::SOCKETS_MAX;

/// A phone as its node announces it to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SharedPhone {
    /// The id of its registration at its node.
    id: u64,
    endpoint: EndpointId,
    name: EndpointName,
    account: AuthId,
    main_account: AuthId,
    /// Hash of the secret with which the phone can reclaim its calls.
    session: String,
}

/// A message to another node.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PeerMessage {
    /// A phone has registered. If `resume` is given, it is the hash of the secret from an earlier
    /// registration, whose calls are restored to the phone. The answer lists the restored calls.
    Registered { phone: SharedPhone, resume: Option<String> },
    /// A registration has ended. If `left` is `true`, the phone's calls end, too.
    Gone { id: u64, left: bool },
    /// The version of the sender's table. The answer is `true` if the receiver has this version.
    Version { version: u64 },
    /// The sender's table.
    All { version: u64, phones: Vec<SharedPhone> },
    /// A phone's request about a call of the receiver. The answer contains the messages to the
    /// phone.
    #[serde(rename = "said")]
    Request { id: u64, text: String },
    /// A message to a phone of the receiver, about a call of the sender. The answer is `true` if
    /// the phone is still registered.
    #[serde(rename = "told")]
    Outgoing { id: u64, message: OutgoingMessage },
    /// A phone of the sender places a call that runs a draft of this person. The answer is the text
    /// of the draft, which the receiver then forgets, or null if it has no such draft.
    Draft { id: String, account: AuthId, person: Uuid },
}

/// A message to a phone.
#[derive(Serialize, Deserialize)]
struct OutgoingMessage {
    call: Option<CallUuid>,
    text: String,
    /// Whether the phone is no longer involved in the call.
    is_over: bool,
    /// Whether the registration ends.
    is_last: bool,
    /// Whether it reports an incoming call.
    #[serde(default)]
    is_ring: bool,
}

impl From<&ToPhone> for OutgoingMessage {
    fn from(message: &ToPhone) -> Self {
        Self {
            call: message.call(),
            text: NodeMessage::from(message).text(),
            is_over: matches!(message, ToPhone::Cancelled { .. } | ToPhone::Ended { .. }),
            is_last: matches!(message, ToPhone::Unregistered { .. }),
            is_ring: matches!(message, ToPhone::Ring(_)),
        }
    }
}

/// The place of another node's phone in this node's table.
struct RemotePlace {
    phone: SharedPhone,
    registration: Registration,
}

/// The phones that the nodes have announced to each other.
#[derive(Default)]
struct Tables {
    /// The phones of this node.
    own: BTreeMap<u64, SharedPhone>,
    /// Phones registered at other nodes, keyed by run and registration id.
    remote: BTreeMap<(Uuid, u64), RemotePlace>,
    /// The versions of the other nodes' tables.
    versions: BTreeMap<Uuid, u64>,
}

impl Tables {
    /// Removes a phone to which no more messages can be sent. If it is still registered, its node
    /// announces it again, because the version of that node's table is forgotten, too. Returns
    /// `None` if the phone has another place meanwhile.
    fn give_up(&mut self, key: (Uuid, u64), place: RegistrationId) -> Option<RemotePlace> {
        self.remote.get(&key).filter(|remote| remote.registration.place() == place)?;
        self.versions.remove(&key.0);
        self.remote.remove(&key)
    }
}

/// The exchange of this node's phones with the other nodes.
pub(super) struct PhoneFleet {
    cluster: Arc<Cluster>,
    tables: Mutex<Tables>,
    /// Version of this node's table. Incremented by each change.
    version: AtomicU64,
}

impl PhoneFleet {
    pub(super) fn new(cluster: Arc<Cluster>, clock: &Clock) -> Self {
        // A process that takes over the run must not repeat a version of the earlier one.
        let version = u64::try_from(clock.wall().micros()).unwrap_or_default();
        Self { cluster, tables: Mutex::default(), version: AtomicU64::new(version) }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        to: Uuid,
        message: &PeerMessage,
        time: Duration,
    ) -> Option<T> {
        let request = post(PATH, Bytes::from(serde_json::to_vec(message).ok()?));
        let answer = tokio::time::timeout(time, self.cluster.peers().send(to, request)).await;
        let answer = answer.ok()?.ok().filter(|answer| answer.status().is_success())?;
        serde_json::from_slice(answer.body()).ok()
    }

    /// Announces a phone to the other nodes. If it reclaims the calls of an earlier registration,
    /// returns those at other nodes, each with the process that owns it.
    pub(super) async fn register(
        &self,
        place: RegistrationId,
        owner: &Owner,
        secret: &str,
        resume: Option<&str>,
    ) -> BTreeMap<CallUuid, Uuid> {
        let phone = SharedPhone {
            id: place.number(),
            endpoint: owner.endpoint.clone(),
            name: owner.name.clone(),
            account: owner.account.clone(),
            main_account: owner.main_account.clone(),
            session: session_hash(secret),
        };
        self.tables().own.insert(phone.id, phone.clone());
        self.version.fetch_add(1, Ordering::AcqRel);
        let message = PeerMessage::Registered { phone, resume: resume.map(session_hash) };
        let answers = self.cluster.peers().sees().into_iter().map(|run| {
            let message = &message;
            async move {
                let calls = self.send::<Vec<CallUuid>>(run, message, REGISTER_TIME).await;
                (run, calls.unwrap_or_default())
            }
        });
        let calls = join_all(answers).await.into_iter();
        calls.flat_map(|(run, calls)| calls.into_iter().map(move |call| (call, run))).collect()
    }

    /// Takes a draft of this person from the other node that keeps it. Returns its text, or `None`
    /// if no node that answers has it.
    pub(super) async fn take_draft(
        &self,
        id: &str,
        account: &AuthId,
        person: Uuid,
    ) -> Option<String> {
        let message = PeerMessage::Draft { id: id.to_owned(), account: account.clone(), person };
        let asked = self.cluster.peers().sees().into_iter();
        let asked = asked.map(|run| self.send::<Option<String>>(run, &message, COMMAND_TIME));
        join_all(asked).await.into_iter().flatten().flatten().next()
    }

    /// Announces to the other nodes that a registration has ended.
    pub(super) fn gone(self: &Arc<Self>, place: RegistrationId, left: bool) {
        let id = place.number();
        self.tables().own.remove(&id);
        self.version.fetch_add(1, Ordering::AcqRel);
        for run in self.cluster.peers().sees() {
            let fleet = self.clone();
            tokio::spawn(async move {
                // Otherwise the next comparison of the tables shows it.
                let gone = PeerMessage::Gone { id, left };
                let _ = fleet.send::<()>(run, &gone, COMMAND_TIME).await;
            });
        }
    }

    /// Sends a phone's request to the process that owns the call. Returns the messages to the
    /// phone.
    ///
    /// # Errors
    /// Fails if the process does not answer.
    pub(super) async fn say(
        &self,
        run: Uuid,
        place: RegistrationId,
        text: &str,
    ) -> Result<Vec<String>, RequestError> {
        let request = PeerMessage::Request { id: place.number(), text: text.to_owned() };
        let answer = self.send(run, &request, COMMAND_TIME).await;
        answer.ok_or(RequestError::new(
            "unavailable",
            "the server that has this call does not answer; try again",
        ))
    }
}

impl Inner {
    /// Handles a message from another node and returns the answer. Returns `None` if the message
    /// can't be parsed or is refused.
    pub(super) fn peer_message(
        self: &Arc<Self>,
        from: Uuid,
        body: &[u8],
    ) -> Option<serde_json::Value> {
        let fleet = self.fleet.clone()?;
        let answer = match serde_json::from_slice(body).ok()? {
            PeerMessage::Registered { phone, resume } => {
                let place = self.add_remote(&fleet, from, &phone)?;
                let calls = resume.map(|hash| self.resume(&hash, &phone.endpoint, place));
                serde_json::to_value(calls.unwrap_or_default())
            }
            PeerMessage::Gone { id, left } => {
                self.remove_remote(&fleet, (from, id), left);
                serde_json::to_value(())
            }
            PeerMessage::Version { version } => {
                let is_known = fleet.tables().versions.get(&from) == Some(&version);
                serde_json::to_value(is_known)
            }
            PeerMessage::All { version, phones } => {
                // Set first: a phone that is given up meanwhile removes it.
                fleet.tables().versions.insert(from, version);
                self.replace_remote(&fleet, from, phones);
                serde_json::to_value(())
            }
            PeerMessage::Request { id, text } => {
                let place = {
                    let tables = fleet.tables();
                    let remote = tables.remote.get(&(from, id));
                    remote.map(|remote| (remote.registration.place(), owner(&remote.phone)))
                };
                let done = match (FromPhone::read(&text), place) {
                    (Ok(request), Some((place, owner))) => command(self, (place, &owner), request),
                    (Ok(_), None) => Err(RequestError::new("not_registered", "register again")),
                    (Err(error), _) => Err(error),
                };
                serde_json::to_value(match done {
                    Ok(confirmed) => confirmed.iter().map(NodeMessage::text).collect(),
                    Err(error) => vec![NodeMessage::from(&error).text()],
                })
            }
            PeerMessage::Outgoing { id, message } => {
                let OutgoingMessage { call, text, is_over, is_last, is_ring } = message;
                let relayed =
                    ToPhone::Relayed { node: from, call, text, is_over, is_last, is_ring };
                serde_json::to_value(self.phones.deliver(RegistrationId::of(id), relayed))
            }
            PeerMessage::Draft { id, account, person } => {
                let text = self.drafts.take(&id, (&account, person), self.clock.now());
                serde_json::to_value(text.as_deref())
            }
        };
        answer.ok()
    }

    /// Adds the place of another node's phone, unless it exists, and restores the calls of this node
    /// that wait for the phone. Returns `None` if that node has too many phones.
    fn add_remote(
        self: &Arc<Self>,
        fleet: &Arc<PhoneFleet>,
        run: Uuid,
        phone: &SharedPhone,
    ) -> Option<RegistrationId> {
        let mut tables = fleet.tables();
        if let Some(remote) = tables.remote.get(&(run, phone.id)) {
            return Some(remote.registration.place());
        }
        if tables.remote.range((run, 0)..=(run, u64::MAX)).count() >= PHONES_MAX {
            return None;
        }
        let (registration, outgoing) = self.phones.register_remote(owner(phone));
        let place = registration.place();
        self.resume(&phone.session, &phone.endpoint, place);
        let over = CancellationToken::new();
        self.sessions.begin(&phone.session, phone.endpoint.clone(), place, over);
        tables.remote.insert((run, phone.id), RemotePlace { phone: phone.clone(), registration });
        let (fleet, inner) = (fleet.clone(), Arc::downgrade(self));
        tokio::spawn(relay(fleet, inner, (run, phone.id), place, outgoing));
        Some(place)
    }

    /// Removes the place of another node's phone.
    fn remove_remote(&self, fleet: &PhoneFleet, key: (Uuid, u64), left: bool) {
        let removed = fleet.tables().remote.remove(&key);
        if let Some(removed) = removed {
            self.end_remote(removed, left);
        }
    }

    fn end_remote(&self, RemotePlace { phone, registration }: RemotePlace, left: bool) {
        let place = registration.place();
        let calls = self.phones.calls(place);
        drop(registration);
        self.registry.phone_gone(place, &calls, left);
        match left {
            true => self.sessions.end(&phone.session),
            false => self.sessions.lost(&phone.session, calls, self.clock.now()),
        }
    }

    /// Replaces the places of another node's phones.
    fn replace_remote(
        self: &Arc<Self>,
        fleet: &Arc<PhoneFleet>,
        run: Uuid,
        phones: Vec<SharedPhone>,
    ) {
        let listed: BTreeSet<u64> = phones.iter().map(|phone| phone.id).collect();
        for id in fleet.ids(run) {
            if !listed.contains(&id) {
                self.remove_remote(fleet, (run, id), false);
            }
        }
        for phone in &phones {
            self.add_remote(fleet, run, phone);
        }
    }

    /// Compares the tables of the nodes periodically and corrects differences, until `stop`.
    pub(super) async fn compare_phones(self: Arc<Self>, stop: CancellationToken) {
        let Some(fleet) = self.fleet.clone() else { return };
        let mut every = tokio::time::interval(COMPARE_INTERVAL);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let others = fleet.cluster.others().into_iter();
            let members: BTreeSet<Uuid> =
                others.filter(|other| other.state.is_member()).map(|other| other.run).collect();
            let known: BTreeSet<Uuid> = fleet.tables().remote.keys().map(|(run, _)| *run).collect();
            for run in known.difference(&members) {
                let ids = fleet.ids(*run);
                info!(%run, phones = ids.len(), "removed phones of a node that left the fleet");
                ids.into_iter().for_each(|id| self.remove_remote(&fleet, (*run, id), false));
            }
            fleet.tables().versions.retain(|run, _| members.contains(run));
            let compared = fleet.cluster.peers().sees().into_iter().map(|run| fleet.compare(run));
            join_all(compared).await;
        }
    }
}

impl PhoneFleet {
    /// Returns the registration ids of the phones at another node.
    fn ids(&self, run: Uuid) -> Vec<u64> {
        let tables = self.tables();
        tables.remote.range((run, 0)..=(run, u64::MAX)).map(|((_, id), _)| *id).collect()
    }

    /// Sends this node's table to a process that has another version of it.
    async fn compare(&self, run: Uuid) {
        let version = self.version.load(Ordering::Acquire);
        let is_known = self.send(run, &PeerMessage::Version { version }, COMMAND_TIME).await;
        if is_known != Some(false) {
            return;
        }
        // The version is read first: a later change is in the next comparison.
        let phones = self.tables().own.values().cloned().collect();
        let _ = self.send::<()>(run, &PeerMessage::All { version, phones }, COMMAND_TIME).await;
    }
}

fn owner(phone: &SharedPhone) -> Owner {
    Owner {
        endpoint: phone.endpoint.clone(),
        name: phone.name.clone(),
        account: phone.account.clone(),
        main_account: phone.main_account.clone(),
    }
}

/// Messages that wait until the phone's node answers, in order. What a message supersedes is
/// removed, so that no more than a few for each call of the phone wait.
#[derive(Default)]
struct Backlog {
    /// The message whose latest attempt failed. The phone may have received it.
    tried: Option<ToPhone>,
    waiting: VecDeque<ToPhone>,
}

impl Backlog {
    fn next(&mut self) -> Option<ToPhone> {
        self.tried.take().or_else(|| self.waiting.pop_front())
    }

    /// Returns the message of a failed attempt, to be sent again.
    fn put_back(&mut self, message: ToPhone) {
        // A late caption is of no use.
        self.tried = Some(message).filter(|message| !matches!(message, ToPhone::Caption { .. }));
    }

    fn push(&mut self, message: ToPhone) {
        match &message {
            ToPhone::Caption { .. } => return,
            ToPhone::Cancelled { call, .. } | ToPhone::Ended { call, .. } => {
                let is_ring =
                    |other: &ToPhone| matches!(other, ToPhone::Ring(ring) if ring.call == *call);
                let is_unknown = self.waiting.iter().any(is_ring);
                self.tried.take_if(|tried| tried.call() == Some(*call));
                self.waiting.retain(|other| other.call() != Some(*call));
                if is_unknown {
                    return;
                }
            }
            ToPhone::Ring(_)
            | ToPhone::Answer { .. }
            | ToPhone::Answered { .. }
            | ToPhone::NoCaptions { .. }
            | ToPhone::Draining
            | ToPhone::Unregistered { .. }
            | ToPhone::Relayed { .. } => self.waiting.retain(|other| *other != message),
        }
        self.waiting.push_back(message);
    }
}

/// Forwards the messages to a phone at another node. Its place ends when they can no longer be sent.
async fn relay(
    fleet: Arc<PhoneFleet>,
    inner: Weak<Inner>,
    (run, id): (Uuid, u64),
    place: RegistrationId,
    outgoing: mpsc::Receiver<ToPhone>,
) {
    let send = |message| {
        let (fleet, message) = (fleet.clone(), PeerMessage::Outgoing { id, message });
        async move {
            let is_registered = fleet.send::<bool>(run, &message, COMMAND_TIME).await;
            if is_registered.is_none() {
                tokio::time::sleep(TELL_RETRY).await;
            }
            is_registered
        }
    };
    forward(outgoing, send).await;
    let Some(inner) = inner.upgrade() else { return };
    let given_up = fleet.tables().give_up((run, id), place);
    if let Some(remote) = given_up {
        info!(%run, "place of a phone at another node given up");
        inner.end_remote(remote, false);
    }
}

/// Sends messages in order, until `send` answers that the phone is not registered, or until the
/// place ends or its queue was full. While there is no answer, they wait: as long as the phone's
/// node is a member of the fleet, the phone has its calls.
async fn forward<F: Future<Output = Option<bool>>>(
    mut outgoing: mpsc::Receiver<ToPhone>,
    send: impl Fn(OutgoingMessage) -> F,
) {
    let (mut backlog, mut failures) = (Backlog::default(), 0u32);
    loop {
        let next = match backlog.next() {
            Some(message) => Some(message),
            None => outgoing.recv().await,
        };
        let Some(message) = next else { return };
        match send(OutgoingMessage::from(&message)).await {
            Some(true) => failures = 0,
            Some(false) => return,
            None => {
                failures = failures.saturating_add(1);
                if failures == TELL_TRIES {
                    warn!("messages to a phone at another node wait: the node does not answer");
                }
                backlog.put_back(message);
                while let Ok(message) = outgoing.try_recv() {
                    backlog.push(message);
                }
                if outgoing.is_closed() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use engine::call::caption::{Caption, Speaker};
    use engine::call::phones::{Ended, Phones, Ring};

    fn ring(call: CallUuid) -> ToPhone {
        ToPhone::Ring(Ring {
            call,
            from: String::new(),
            to: String::new(),
            caller_name: String::new(),
            via: Default::default(),
            outbound: false,
            headers: Vec::new(),
        })
    }

    fn ended(call: CallUuid) -> ToPhone {
        let (name, source, cause) = ("Normal Hangup", "Caller", "caller_hangup");
        ToPhone::Ended { call, ended: Ended { code: 4000, name, source, cause, bill_secs: 1 } }
    }

    fn caption(call: CallUuid) -> ToPhone {
        let (speaker, text) = (Speaker::Them, "x".to_owned());
        ToPhone::Caption { call, caption: Caption { speaker, line: 1, text, last: true } }
    }

    #[tokio::test]
    async fn messages_to_a_phone_wait_while_its_node_does_not_answer() {
        let [live, unheard, rings] = [(); 3].map(|()| CallUuid(Uuid::new_v4()));
        let cancelled = |call| ToPhone::Cancelled { call, why: "cancelled" };
        let (to, outgoing) = mpsc::channel(64);
        let is_up = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let forwarding = tokio::spawn({
            let (is_up, sent) = (is_up.clone(), sent.clone());
            forward(outgoing, move |message| {
                let answer = is_up.load(Ordering::Acquire).then(|| {
                    sent.lock().unwrap().push(message.text);
                    true
                });
                async move {
                    tokio::task::yield_now().await;
                    answer
                }
            })
        });
        let until_taken = async || {
            while to.capacity() < to.max_capacity() {
                tokio::task::yield_now().await;
            }
        };
        let until_sent = async |count| {
            while sent.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        to.send(ring(live)).await.unwrap();
        until_taken().await;
        for message in [ToPhone::Answered { call: live }, ring(unheard), caption(live)] {
            to.send(message).await.unwrap();
        }
        // Far more than the queue holds.
        for _ in 0..100 {
            for message in [caption(live), ToPhone::NoCaptions { call: live }, ring(rings)] {
                to.send(message).await.unwrap();
            }
        }
        to.send(cancelled(unheard)).await.unwrap();
        until_taken().await;
        is_up.store(true, Ordering::Release);
        until_sent(4).await;
        for message in [ended(live), cancelled(rings)] {
            to.send(message).await.unwrap();
        }
        until_sent(6).await;
        drop(to);
        forwarding.await.unwrap();
        let expected = [
            ring(live),
            ToPhone::Answered { call: live },
            ToPhone::NoCaptions { call: live },
            ring(rings),
            ended(live),
            cancelled(rings),
        ];
        let expected = expected.each_ref().map(|message| NodeMessage::from(message).text());
        assert_eq!(*sent.lock().unwrap(), expected);
    }

    #[test]
    fn the_end_of_a_call_supersedes_what_waits_about_it() {
        let [call, other] = [(); 2].map(|()| CallUuid(Uuid::new_v4()));
        let cancelled = |call| ToPhone::Cancelled { call, why: "timeout" };
        let mut backlog = Backlog::default();
        // The phone may ring.
        backlog.put_back(ring(call));
        [ring(other), cancelled(call)].into_iter().for_each(|message| backlog.push(message));
        assert_eq!(backlog.next(), Some(ring(other)));
        assert_eq!(backlog.next(), Some(cancelled(call)));
        backlog.put_back(ToPhone::Answer { call, sdp: "v=0".into() });
        [ToPhone::Answered { call }, ended(call)].into_iter().for_each(|m| backlog.push(m));
        assert_eq!(backlog.next(), Some(ended(call)));
        backlog.put_back(caption(call));
        assert_eq!(backlog.next(), None);
    }

    #[tokio::test]
    async fn forwarding_ends_with_the_place_or_with_the_phone() {
        let call = CallUuid(Uuid::new_v4());
        for answer in [None, Some(false)] {
            let (to, outgoing) = mpsc::channel(64);
            to.send(ring(call)).await.unwrap();
            // The node is no longer a member, or the queue was full.
            let to = Some(to).filter(|_| answer == Some(false));
            forward(outgoing, |_| std::future::ready(answer)).await;
            drop(to);
        }
    }

    #[test]
    fn a_phone_that_is_given_up_is_announced_again() {
        let (phones, run) = (Phones::default(), Uuid::new_v4());
        let phone = SharedPhone {
            id: 7,
            endpoint: "1".into(),
            name: EndpointName::parse("asha").unwrap(),
            account: "MA1".into(),
            main_account: "MA1".into(),
            session: String::new(),
        };
        let [earlier, (registration, _outgoing)] =
            [(); 2].map(|()| phones.register_remote(owner(&phone)));
        let place = registration.place();
        let mut tables = Tables::default();
        tables.versions.insert(run, 3);
        tables.remote.insert((run, 7), RemotePlace { phone, registration });
        assert!(tables.give_up((run, 7), earlier.0.place()).is_none());
        assert_eq!(tables.versions.get(&run), Some(&3), "another place of the phone has ended");
        assert!(tables.give_up((run, 7), place).is_some());
        assert!(tables.versions.is_empty() && tables.remote.is_empty());
    }
}
