//! Phones of a fleet: a phone that is registered at one node has a place in the tables of all
//! others, so that calls of any node ring it.
//!
//! A phone's socket stays where it is. What another node has for the phone is sent to the socket's
//! node, and what the phone says about a call of another node is sent there. The media of a call
//! goes straight to the call's node. A phone that lost its socket can resume its calls at any node:
//! each node knows the sessions of all phones by the hash of their secret, and gives back its own
//! calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Uri};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Inner;
use super::message::{FromPhone, NodeMessage, RequestError};
use super::session::command;
use engine::call::phones::{Owner, Registration, RegistrationId, ToPhone};
use engine::cluster::Cluster;
use model::{AuthId, CallUuid, EndpointId, EndpointName};

/// Path of the messages about phones between nodes.
pub const PATH: &str = "/phones";

/// How long another node may take to learn of a registration before the phone is told of it.
const REGISTER_TIME: Duration = Duration::from_millis(300);

/// How long another node may take to execute a request of a phone.
const COMMAND_TIME: Duration = Duration::from_secs(2);

/// Attempts to send a message to a phone at another node, and the pause between them.
const TELL_TRIES: u32 = 10;
const TELL_RETRY: Duration = Duration::from_millis(200);

/// Time between two comparisons of the tables of two nodes.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);

/// Largest number of phones that are accepted from another node, which has as many sockets.
const PHONES_MAX: usize = super::SOCKETS_MAX;

/// A phone, as its node tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SharedPhone {
    /// The number of its registration at its node.
    id: u64,
    endpoint: EndpointId,
    name: EndpointName,
    account: AuthId,
    main_account: AuthId,
    /// Hash of its session's secret.
    session: String,
}

/// A message to another node.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PeerMessage {
    /// A phone is registered. With `resume`, the hash of an earlier session, it wants its calls
    /// back. The answer has those that it has again.
    Registered { phone: SharedPhone, resume: Option<String> },
    /// A registration has ended. `left` is whether the phone's calls end, too.
    Gone { id: u64, left: bool },
    /// The version of the sender's table. The answer is whether it is the one known.
    Version { version: u64 },
    /// The sender's table.
    All { version: u64, phones: Vec<SharedPhone> },
    /// A phone's request about a call of the receiver. The answer has the messages to the phone.
    Said { id: u64, text: String },
    /// A message to a phone of the receiver, about a call of the sender. The answer is whether the
    /// phone is there.
    Told { id: u64, message: ToldMessage },
}

/// A message to a phone.
#[derive(Serialize, Deserialize)]
struct ToldMessage {
    call: Option<CallUuid>,
    text: String,
    /// The phone has no more to do with the call.
    is_over: bool,
    /// The registration ends.
    is_last: bool,
}

/// The place of another node's phone in this node's table.
struct RemotePlace {
    phone: SharedPhone,
    registration: Registration,
}

/// What the nodes know of each other's phones.
#[derive(Default)]
struct Tables {
    /// The phones of this node.
    own: BTreeMap<u64, SharedPhone>,
    /// The phones of the other nodes, by process and number.
    remote: BTreeMap<(Uuid, u64), RemotePlace>,
    /// The versions of the other nodes' tables.
    versions: BTreeMap<Uuid, u64>,
}

/// This node's phones as seen by the others, and theirs as seen here.
pub(super) struct PhoneFleet {
    cluster: Arc<Cluster>,
    tables: Mutex<Tables>,
    /// Version of this node's table. Incremented by each change.
    version: AtomicU64,
}

/// The hash by which nodes know a session.
pub(super) fn session_hash(secret: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()))
}

impl PhoneFleet {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, tables: Mutex::default(), version: AtomicU64::new(0) }
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
        let mut request = Request::new(Bytes::from(serde_json::to_vec(message).ok()?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        let answer = tokio::time::timeout(time, self.cluster.peers().send(to, request)).await;
        let answer = answer.ok()?.ok().filter(|answer| answer.status().is_success())?;
        serde_json::from_slice(answer.body()).ok()
    }

    /// Tells the other nodes of a phone. Returns its calls at other nodes, if it resumes a session:
    /// the process that has each call.
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
        let told = self.cluster.peers().sees().into_iter().map(|run| {
            let message = &message;
            async move {
                let calls = self.send::<Vec<CallUuid>>(run, message, REGISTER_TIME).await;
                (run, calls.unwrap_or_default())
            }
        });
        let calls = join_all(told).await.into_iter();
        calls.flat_map(|(run, calls)| calls.into_iter().map(move |call| (call, run))).collect()
    }

    /// Tells the other nodes that a registration has ended.
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

    /// Sends a phone's request to the process that has the call. Returns the messages to the phone.
    ///
    /// # Errors
    /// Fails if the process does not answer.
    pub(super) async fn say(
        &self,
        run: Uuid,
        place: RegistrationId,
        text: &str,
    ) -> Result<Vec<String>, RequestError> {
        let said = PeerMessage::Said { id: place.number(), text: text.to_owned() };
        let answer = self.send(run, &said, COMMAND_TIME).await;
        answer.ok_or(RequestError::new(
            "unavailable",
            "the server that has this call does not answer; try again",
        ))
    }
}

impl Inner {
    /// Answers a message of another node. `None` if it can't be read.
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
                self.replace_remote(&fleet, from, phones);
                fleet.tables().versions.insert(from, version);
                serde_json::to_value(())
            }
            PeerMessage::Said { id, text } => {
                let place = {
                    let tables = fleet.tables();
                    let remote = tables.remote.get(&(from, id));
                    remote.map(|remote| (remote.registration.place(), owner(&remote.phone)))
                };
                let done = match (FromPhone::read(&text), place) {
                    (Ok(said), Some((place, owner))) => command(self, (place, &owner), said),
                    (Ok(_), None) => Err(RequestError::new("not_registered", "register again")),
                    (Err(error), _) => Err(error),
                };
                serde_json::to_value(match done {
                    Ok(confirmed) => confirmed.iter().map(NodeMessage::text).collect(),
                    Err(error) => vec![NodeMessage::from(&error).text()],
                })
            }
            PeerMessage::Told { id, message } => {
                let ToldMessage { call, text, is_over, is_last } = message;
                let relayed = ToPhone::Relayed { node: from, call, text, is_over, is_last };
                serde_json::to_value(self.phones.deliver(RegistrationId::of(id), relayed))
            }
        };
        answer.ok()
    }

    /// Adds the place of another node's phone, unless it is there. `None` if that node has too many.
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
        let (registration, told) = self.phones.register_remote(owner(phone));
        let place = registration.place();
        let over = CancellationToken::new();
        self.sessions.begin(&phone.session, phone.endpoint.clone(), place, over);
        tables.remote.insert((run, phone.id), RemotePlace { phone: phone.clone(), registration });
        let (fleet, inner) = (fleet.clone(), Arc::downgrade(self));
        tokio::spawn(relay(fleet, inner, (run, phone.id), told));
        Some(place)
    }

    /// Removes the place of another node's phone.
    fn remove_remote(&self, fleet: &PhoneFleet, key: (Uuid, u64), left: bool) {
        let removed = fleet.tables().remote.remove(&key);
        let Some(RemotePlace { phone, registration }) = removed else { return };
        let place = registration.place();
        let calls = self.phones.calls(place);
        drop(registration);
        self.registry.phone_gone(place, &calls, left);
        match left {
            true => self.sessions.end(&phone.session),
            false => self.sessions.lost(&phone.session, calls, self.clock.now()),
        }
    }

    /// Replaces what is known of another node's phones.
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

    /// Keeps the tables of the nodes equal, until `stop`.
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
                info!(%run, phones = ids.len(), "phones of a node that is gone removed");
                ids.into_iter().for_each(|id| self.remove_remote(&fleet, (*run, id), false));
            }
            fleet.tables().versions.retain(|run, _| members.contains(run));
            let compared = fleet.cluster.peers().sees().into_iter().map(|run| fleet.compare(run));
            join_all(compared).await;
        }
    }
}

impl PhoneFleet {
    /// The numbers of another node's phones.
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

/// Sends the messages to another node's phone there, in order, until its registration ends.
async fn relay(
    fleet: Arc<PhoneFleet>,
    inner: Weak<Inner>,
    (run, id): (Uuid, u64),
    mut told: mpsc::Receiver<ToPhone>,
) {
    while let Some(told) = told.recv().await {
        let message = PeerMessage::Told {
            id,
            message: ToldMessage {
                call: told.call(),
                text: NodeMessage::from(&told).text(),
                is_over: matches!(told, ToPhone::Cancelled { .. } | ToPhone::Ended { .. }),
                is_last: matches!(told, ToPhone::Unregistered { .. }),
            },
        };
        let mut tries = 0;
        let is_there = loop {
            if let Some(is_there) = fleet.send::<bool>(run, &message, COMMAND_TIME).await {
                break is_there;
            }
            tries += 1;
            if tries == TELL_TRIES {
                warn!(%run, "a phone's node does not take its messages");
                break false;
            }
            tokio::time::sleep(TELL_RETRY).await;
        };
        if let Some(inner) = inner.upgrade().filter(|_| !is_there) {
            inner.remove_remote(&fleet, (run, id), false);
        }
    }
}
