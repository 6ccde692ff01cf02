//! The phones of endpoints: registrations, ringing, and the messages to a phone about its calls.
//!
//! A *place* is one registration: a browser's WebSocket, served by the module `phone`, which
//! receives [`ToPhone`] messages. A *line* is the connection of a web leg to its phones: at first
//! to all places that ring, then to the one that accepted the call. The call's machine makes all
//! decisions; `shell` executes its outputs on the line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::caption::Caption;
use crate::feed::{Audience, Feed, FeedChange, RelayedEvent};
use model::{AuthId, CallUuid, EndpointId, EndpointName, HangupCause};

/// Maximum number of registrations of one endpoint.
pub const PLACES_MAX: usize = 10;
/// Maximum number of registrations of the node.
const ALL_PLACES_MAX: usize = 5_000;
/// Maximum number of calls of one registration, including ringing ones.
pub const CALLS_MAX: usize = 8;
/// Capacity of a phone's message queue. A phone with a full queue is disconnected.
const BEHIND: usize = 64;
/// Queue capacity that captions must leave free: a slow phone loses captions but still gets call
/// events.
const BESIDE_CAPTIONS: usize = BEHIND / 2;
/// Queue capacity that all messages but [`ToPhone::Unregistered`] must leave free: a slow phone is
/// unregistered, too.
const BESIDE_ALL: usize = 1;

/// Why phones of a disabled or deleted account are refused and unregistered, as a word for programs.
pub const ACCOUNT_DISABLED: &str = "account_disabled";

/// Identifies a registration, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId(u64);

impl RegistrationId {
    /// Returns the id with this number, if it is valid.
    pub fn of(number: u64) -> Self {
        Self(number)
    }

    pub fn number(self) -> u64 {
        self.0
    }
}

/// The owner of a phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub endpoint: EndpointId,
    pub name: EndpointName,
    pub account: AuthId,
    pub main_account: AuthId,
}

/// An incoming call, as it is reported to a phone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    pub call: CallUuid,
    pub from: String,
    pub to: String,
    pub caller_name: String,
    /// The business number that was called or is calling, and its alias. Both may be empty.
    pub via: [String; 2],
    /// Whether the business has called the user of `from`, who has answered.
    #[serde(default)]
    pub outbound: bool,
    pub headers: Vec<(String, String)>,
}

/// A message to a phone. `Debug` shows the call id but no number, text or SDP.
#[derive(Clone, PartialEq)]
pub enum ToPhone {
    /// An incoming call.
    Ring(Ring),
    /// The call no longer rings. `why` is a word of the phone protocol.
    Cancelled { call: CallUuid, why: &'static str },
    /// Our SDP answer to the phone's offer.
    Answer { call: CallUuid, sdp: Arc<str> },
    /// An outgoing call of the phone was answered.
    Answered { call: CallUuid },
    /// A live caption of the call.
    Caption { call: CallUuid, caption: Caption },
    /// Captions of the call are no longer available.
    NoCaptions { call: CallUuid },
    /// The call has ended.
    Ended { call: CallUuid, ended: Ended },
    /// The node accepts no further calls.
    Draining,
    /// The registration has ended and the socket closes. `why` is a word of the phone protocol.
    Unregistered { why: &'static str },
    /// A message from the node of the fleet that serves the call: JSON of the phone protocol.
    Relayed {
        node: Uuid,
        call: Option<CallUuid>,
        text: String,
        /// The phone is no longer involved in the call.
        is_over: bool,
        /// The registration ends, and the socket closes.
        is_last: bool,
        /// The message reports an incoming call.
        is_ring: bool,
    },
}

impl ToPhone {
    /// The call that the message is about.
    pub fn call(&self) -> Option<CallUuid> {
        match self {
            Self::Ring(Ring { call, .. })
            | Self::Cancelled { call, .. }
            | Self::Answer { call, .. }
            | Self::Answered { call }
            | Self::Caption { call, .. }
            | Self::NoCaptions { call }
            | Self::Ended { call, .. } => Some(*call),
            Self::Relayed { call, .. } => *call,
            Self::Draining | Self::Unregistered { .. } => None,
        }
    }
}

impl std::fmt::Debug for ToPhone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ring(Ring { call, .. }) => write!(f, "Ring({call})"),
            Self::Cancelled { call, why } => write!(f, "Cancelled({call}, {why})"),
            Self::Answer { call, .. } => write!(f, "Answer({call})"),
            Self::Answered { call } => write!(f, "Answered({call})"),
            Self::Caption { call, .. } => write!(f, "Caption({call})"),
            Self::NoCaptions { call } => write!(f, "NoCaptions({call})"),
            Self::Ended { call, ended } => write!(f, "Ended({call}, {})", ended.cause),
            Self::Draining => f.write_str("Draining"),
            Self::Unregistered { why } => write!(f, "Unregistered({why})"),
            Self::Relayed { node, .. } => write!(f, "Relayed({node})"),
        }
    }
}

/// How a call ended, in the words of the phone protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: u16,
    pub name: &'static str,
    pub source: &'static str,
    /// The hangup cause.
    pub cause: &'static str,
    pub bill_secs: u64,
}

/// The maximum number of registrations is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not register a phone: limit of registrations reached")]
pub struct NoRoom;

/// All registrations of the node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Phones {
    table: Arc<Mutex<Table>>,
    feed: Feed,
}

#[derive(Default)]
struct Table {
    last: u64,
    places: BTreeMap<RegistrationId, Place>,
    /// Ringing lines by endpoint.
    ringing: HashMap<EndpointName, Vec<Weak<Line>>>,
    /// The endpoints whose phones were registered with another process of the node, and until when
    /// they may be called as if they were registered here: their phones are on the way.
    awaited: HashMap<EndpointName, (Owner, Instant)>,
    /// Set after all phones were notified. New registrations are notified immediately.
    draining: bool,
}

struct Place {
    owner: Owner,
    /// `None` once the queue was full: the phone is being disconnected. Its calls stay here until
    /// then, so that it can resume them.
    to: Option<mpsc::Sender<ToPhone>>,
    calls: BTreeSet<CallUuid>,
    /// Whether the phone's socket is at another node of the fleet.
    is_remote: bool,
}

impl Place {
    /// Sends a message if the queue has more than this capacity left. Returns `false` if it was not
    /// sent.
    fn send(&self, what: ToPhone, beside: usize) -> bool {
        let to = self.to.as_ref().filter(|to| to.capacity() > beside);
        to.is_some_and(|to| to.try_send(what).is_ok())
    }
}

/// A phone's registration. Dropping the value ends it.
pub struct Registration {
    phones: Phones,
    place: RegistrationId,
}

impl Registration {
    /// Returns the id of the registration.
    pub fn place(&self) -> RegistrationId {
        self.place
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.phones.remove(self.place);
    }
}

impl Phones {
    /// Creates an empty table, which publishes registrations and their ends.
    pub fn new(feed: Feed) -> Self {
        Self { table: Arc::default(), feed }
    }

    /// Registers a phone. Calls that already ring the endpoint ring here, too.
    ///
    /// # Errors
    /// Returns an error if the limit on registrations is reached.
    pub fn register(
        &self,
        owner: Owner,
    ) -> Result<(Registration, mpsc::Receiver<ToPhone>), NoRoom> {
        let (to, outgoing) = mpsc::channel(BEHIND);
        let table = self.table();
        let own =
            table.places.values().filter(|place| place.owner.endpoint == owner.endpoint).count();
        let here = table.places.values().filter(|place| !place.is_remote).count();
        if own >= PLACES_MAX || here >= ALL_PLACES_MAX {
            return Err(NoRoom);
        }
        if table.draining {
            let _ = to.try_send(ToPhone::Draining);
        }
        Ok((self.add(table, owner, to, false), outgoing))
    }

    /// Registers a phone whose socket is at another node of the fleet. That node limits the number
    /// of its phones. Messages in the returned receiver must be sent to that node.
    pub fn register_remote(&self, owner: Owner) -> (Registration, mpsc::Receiver<ToPhone>) {
        let (to, outgoing) = mpsc::channel(BEHIND);
        (self.add(self.table(), owner, to, true), outgoing)
    }

    fn add(
        &self,
        mut table: MutexGuard<'_, Table>,
        owner: Owner,
        to: mpsc::Sender<ToPhone>,
        is_remote: bool,
    ) -> Registration {
        table.last += 1;
        let place = RegistrationId(table.last);
        let calls = BTreeSet::new();
        let to = Some(to);
        table.places.insert(place, Place { owner: owner.clone(), to, calls, is_remote });
        let ringing = table.ringing.get(&owner.name).into_iter().flatten();
        let lines: Vec<_> = ringing.filter_map(Weak::upgrade).collect();
        drop(table);
        self.publish(&owner, is_remote);
        lines.iter().for_each(|line| line.ring_also(place));
        Registration { phones: self.clone(), place }
    }

    /// Whether an endpoint has a registration.
    pub fn is_registered(&self, name: &EndpointName) -> bool {
        self.table().places_of(name).next().is_some()
    }

    /// Returns the owner of an endpoint, if it is registered or [awaited](Phones::expect) at `now`.
    pub fn owner(&self, name: &EndpointName, now: Instant) -> Option<Owner> {
        let table = self.table();
        let place = table.places_of(name).next().map(|(_, place)| place);
        let awaited = || table.awaited(name, now);
        place.map(|place| &place.owner).or_else(awaited).cloned()
    }

    /// Returns the owners of the phones that are registered, each once.
    pub fn owners(&self) -> Vec<Owner> {
        let table = self.table();
        let by_name: BTreeMap<_, _> =
            table.places.values().map(|place| (&place.owner.name, &place.owner)).collect();
        by_name.into_values().cloned().collect()
    }

    /// Lets these endpoints be called until `until` as if they were registered. Their phones were
    /// registered with another process of the node and ring when they register here.
    pub fn expect(&self, owners: Vec<Owner>, until: Instant) {
        let awaited = owners.into_iter().map(|owner| (owner.name.clone(), (owner, until)));
        self.table().awaited.extend(awaited);
    }

    /// Number of registrations, including those of phones at other nodes.
    pub fn len(&self) -> usize {
        self.table().places.len()
    }

    /// Whether there are no registrations.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest registration id.
    pub fn last_id(&self) -> RegistrationId {
        RegistrationId(self.table().last)
    }

    /// Continues the ids of another process of the node. A message of another node to a phone of that
    /// process then reaches no other phone.
    pub fn continue_after(&self, last: RegistrationId) {
        let mut table = self.table();
        table.last = table.last.max(last.0);
    }

    /// Ends the registrations of an endpoint, because it was deleted or its password has changed.
    pub fn unregister(&self, endpoint: &EndpointId, why: &'static str) {
        self.unregister_where(why, |owner| owner.endpoint == *endpoint);
    }

    /// Ends the registrations of an account at this node, because it was disabled or deleted. Phones
    /// at other nodes notice that themselves.
    pub fn unregister_account(&self, account: &AuthId) {
        self.unregister_where(ACCOUNT_DISABLED, |owner| owner.account == *account);
    }

    fn unregister_where(&self, why: &'static str, is_meant: impl Fn(&Owner) -> bool) {
        let table = self.table();
        for place in table.places.values().filter(|place| is_meant(&place.owner)) {
            place.send(ToPhone::Unregistered { why }, 0);
        }
    }

    /// Notifies all phones that the node accepts no further calls. Has an effect once.
    pub fn drain(&self) {
        let mut table = self.table();
        if !std::mem::replace(&mut table.draining, true) {
            for place in table.places.values().filter(|place| !place.is_remote) {
                place.send(ToPhone::Draining, BESIDE_ALL);
            }
        }
    }

    /// Returns the calls of a registration.
    pub fn calls(&self, place: RegistrationId) -> Vec<CallUuid> {
        self.table()
            .places
            .get(&place)
            .map(|place| place.calls.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Creates a line for a call that a phone makes.
    pub fn line_from(
        &self,
        call: CallUuid,
        place: RegistrationId,
        name: EndpointName,
    ) -> Arc<Line> {
        self.note(place, call);
        Arc::new(Line::new(self.clone(), call, name, LineState::Place(place)))
    }

    /// Creates a line for a call to an endpoint. It rings nowhere until `Line::ring`.
    pub fn line_to(&self, call: CallUuid, name: EndpointName) -> Arc<Line> {
        Arc::new(Line::new(self.clone(), call, name, LineState::Ringing(BTreeSet::new())))
    }

    /// Continues the line of another process. Its phones are not connected: they ring when they
    /// register, and the one that has the call may reconnect.
    pub(super) fn resume_line(
        &self,
        call: CallUuid,
        MovedLine { endpoint, state, .. }: MovedLine,
        keys: Arc<KeyFilter>,
    ) -> Arc<Line> {
        let at = match state {
            MovedLineState::Ringing(_) => LineState::Ringing(BTreeSet::new()),
            MovedLineState::Taken => LineState::Away(Vec::new()),
            MovedLineState::Over => LineState::Over,
        };
        let line = Arc::new(Line { keys, ..Line::new(self.clone(), call, endpoint, at) });
        if let MovedLineState::Ringing(Some(ring)) = state {
            line.ring(ring);
        }
        line
    }

    /// Sends a message from another node to a phone of this one. Returns `false` if the phone is
    /// not registered here.
    pub fn deliver(&self, place: RegistrationId, what: ToPhone) -> bool {
        let is_here = self.table().places.get(&place).is_some_and(|place| !place.is_remote);
        if is_here {
            self.tell(place, what);
        }
        is_here
    }

    /// Sends a message to a registration. Disconnects the phone if its queue is full.
    fn tell(&self, place: RegistrationId, what: ToPhone) {
        let (owner, is_remote) = {
            let mut table = self.table();
            let Some(place) = table.places.get_mut(&place) else { return };
            // Dropping the sender closes the socket.
            if place.send(what, BESIDE_ALL) || place.to.take().is_none() {
                return;
            }
            (place.owner.clone(), place.is_remote)
        };
        tracing::info!("phone message queue full, phone disconnected");
        self.publish(&owner, is_remote);
    }

    fn remove(&self, place: RegistrationId) {
        let removed = self.table().places.remove(&place);
        if let Some(removed) = removed.filter(|place| place.to.is_some()) {
            self.publish(&removed.owner, removed.is_remote);
        }
    }

    fn publish(&self, owner: &Owner, is_remote: bool) {
        let change = FeedChange::Endpoint(owner.endpoint.clone());
        if is_remote {
            // The endpoint's own node reports it to the other nodes.
            let (main_account, account) = (owner.main_account.clone(), Some(owner.account.clone()));
            return self.feed.relay(RelayedEvent { main_account, account, change });
        }
        self.feed.publish(Audience::of(&owner.account, &owner.main_account), change);
    }

    /// Sends a message unless the phone's queue is more than half full.
    fn mention(&self, place: RegistrationId, what: ToPhone) {
        if let Some(place) = self.table().places.get(&place) {
            place.send(what, BESIDE_CAPTIONS);
        }
    }

    fn note(&self, place: RegistrationId, call: CallUuid) -> bool {
        let mut table = self.table();
        let Some(place) =
            table.places.get_mut(&place).filter(|place| place.calls.len() < CALLS_MAX)
        else {
            return false;
        };
        place.calls.insert(call)
    }

    fn forget(&self, place: RegistrationId, call: CallUuid) {
        if let Some(place) = self.table().places.get_mut(&place) {
            place.calls.remove(&call);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Returns the registrations of an endpoint, except phones that are being disconnected.
    fn places_of(&self, name: &EndpointName) -> impl Iterator<Item = (RegistrationId, &Place)> {
        let is_of = |place: &Place| place.to.is_some() && place.owner.name == *name;
        self.places.iter().filter(move |(_, place)| is_of(place)).map(|(id, place)| (*id, place))
    }

    /// Returns the owner of an endpoint that is awaited at `now`.
    fn awaited(&self, name: &EndpointName, now: Instant) -> Option<&Owner> {
        self.awaited.get(name).filter(|(_, until)| now < *until).map(|(owner, _)| owner)
    }
}

/// A line on the way to another process.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MovedLine {
    endpoint: EndpointName,
    state: MovedLineState,
    keys: u8,
}

#[derive(Clone, Serialize, Deserialize)]
enum MovedLineState {
    /// The call rings, or has not rung yet.
    Ringing(Option<Ring>),
    /// A phone has the call, connected or not.
    Taken,
    Over,
}

impl MovedLine {
    /// The filter of the phone's keys.
    pub(super) fn keys(&self) -> Arc<KeyFilter> {
        Arc::new(KeyFilter(AtomicU8::new(self.keys)))
    }
}

/// State of a line.
enum LineState {
    /// Rings at these registrations.
    Ringing(BTreeSet<RegistrationId>),
    /// Connected to the phone that accepted the call.
    Place(RegistrationId),
    /// The phone's socket was lost. The phone may reconnect, and receives these messages then.
    Away(Vec<ToPhone>),
    Over,
}

/// The connection of a web leg to its phones.
pub struct Line {
    phones: Phones,
    call: CallUuid,
    name: EndpointName,
    at: Mutex<LineState>,
    ring: Mutex<Option<Ring>>,
    keys: Arc<KeyFilter>,
}

/// Decides which keys of a phone count. The first key decides how keys arrive, so that a phone that
/// sends each key both ways counts once.
#[derive(Debug, Default)]
pub(super) struct KeyFilter(AtomicU8);

impl KeyFilter {
    /// Returns whether keys are accepted from this source: the audio stream or the phone's socket.
    pub(super) fn takes_key(&self, way: KeySource) -> bool {
        let word = way as u8;
        match self.0.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(first) => first == word,
        }
    }
}

/// How a key was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// As RFC 4733 events in the audio stream.
    Stream = 1,
    /// As a message over the socket.
    Socket = 2,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("call", &self.call)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Line {
    fn new(phones: Phones, call: CallUuid, name: EndpointName, at: LineState) -> Self {
        Self {
            phones,
            call,
            name,
            at: Mutex::new(at),
            ring: Mutex::new(None),
            keys: Arc::default(),
        }
    }

    /// The name of the endpoint.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// The filter of the phone's keys.
    pub(super) fn keys(&self) -> &Arc<KeyFilter> {
        &self.keys
    }

    /// Returns the state with which another process continues the line.
    pub(super) fn snapshot(&self) -> MovedLine {
        let state = match &*self.at() {
            LineState::Ringing(_) => MovedLineState::Ringing(
                self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ),
            LineState::Place(_) | LineState::Away(_) => MovedLineState::Taken,
            LineState::Over => MovedLineState::Over,
        };
        MovedLine { endpoint: self.name.clone(), state, keys: self.keys.0.load(Ordering::Acquire) }
    }

    /// Whether the endpoint is [awaited](Phones::expect) at `now`.
    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        self.phones.table().awaited(&self.name, now).is_some()
    }

    /// Rings at all present and later registrations of the endpoint. Returns the number of phones
    /// that ring now.
    pub(super) fn ring(self: &Arc<Self>, ring: Ring) -> usize {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = Some(ring);
        let places: Vec<_> = {
            let mut table = self.phones.table();
            let lines = table.ringing.entry(self.name.clone()).or_default();
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(self));
            table.places_of(&self.name).map(|(id, _)| id).collect()
        };
        places.iter().for_each(|place| self.ring_also(*place));
        match &*self.at() {
            LineState::Ringing(places) => places.len(),
            LineState::Place(_) | LineState::Away(_) | LineState::Over => 0,
        }
    }

    fn ring_also(&self, place: RegistrationId) {
        let Some(ring) = self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return;
        };
        {
            let mut at = self.at();
            let LineState::Ringing(places) = &mut *at else { return };
            if !self.phones.note(place, self.call) {
                return;
            }
            places.insert(place);
        }
        self.phones.tell(place, ToPhone::Ring(ring));
    }

    /// A phone accepts the call; the others stop ringing. Returns `false` if the call does not ring
    /// there.
    pub(super) fn accept(&self, place: RegistrationId) -> bool {
        let others = {
            let mut at = self.at();
            let LineState::Ringing(places) = &mut *at else { return false };
            if !places.remove(&place) {
                return false;
            }
            let others = std::mem::take(places);
            *at = LineState::Place(place);
            others
        };
        self.stop_ringing(others, "answered_elsewhere");
        true
    }

    /// A phone declines the call. Returns whether the call now rings nowhere, or `None` if it did
    /// not ring there.
    pub(super) fn decline(&self, place: RegistrationId) -> Option<bool> {
        let last = {
            let mut at = self.at();
            let LineState::Ringing(places) = &mut *at else { return None };
            if !places.remove(&place) {
                return None;
            }
            places.is_empty()
        };
        self.stop_ringing(BTreeSet::from([place]), "declined");
        Some(last)
    }

    /// Whether the phone of this registration has the call.
    pub fn is_at(&self, place: RegistrationId) -> bool {
        matches!(&*self.at(), LineState::Place(at) if *at == place)
    }

    /// Handles the loss of a registration. Returns `true` if it had the call.
    pub(super) fn lost(&self, place: RegistrationId) -> bool {
        let mut at = self.at();
        match &mut *at {
            LineState::Ringing(places) => {
                places.remove(&place);
                false
            }
            LineState::Place(had) if *had == place => {
                *at = LineState::Away(Vec::new());
                true
            }
            LineState::Place(_) | LineState::Away(_) | LineState::Over => false,
        }
    }

    /// Reconnects the line to a new registration of the phone. Returns `false` if the line is not
    /// disconnected.
    pub(super) fn back(&self, place: RegistrationId) -> bool {
        let mut at = self.at();
        let LineState::Away(missed) = &mut *at else { return false };
        if !self.phones.note(place, self.call) {
            return false;
        }
        let missed = std::mem::take(missed);
        *at = LineState::Place(place);
        missed.into_iter().for_each(|message| self.phones.tell(place, message));
        true
    }

    /// Whether the phone's socket was lost and has not reconnected.
    pub(super) fn is_away(&self) -> bool {
        matches!(*self.at(), LineState::Away(_))
    }

    /// Sends a message to the phone that has the call, or keeps it until the phone reconnects.
    pub(super) fn tell(&self, what: ToPhone) {
        let mut at = self.at();
        match &mut *at {
            LineState::Place(place) => self.phones.tell(*place, what),
            LineState::Away(missed) if missed.len() < BEHIND => missed.push(what),
            LineState::Away(_) | LineState::Ringing(_) | LineState::Over => {}
        }
    }

    /// Sends a caption, unless the phone's queue is too full.
    pub(super) fn caption(&self, caption: Caption) {
        if let Some(place) = self.place() {
            self.phones.mention(place, ToPhone::Caption { call: self.call, caption });
        }
    }

    /// Notifies the phone that captions are no longer available.
    pub(super) fn no_captions(&self) {
        self.tell(ToPhone::NoCaptions { call: self.call });
    }

    /// Returns the registration of the phone that has the call.
    fn place(&self) -> Option<RegistrationId> {
        match &*self.at() {
            LineState::Place(place) => Some(*place),
            LineState::Ringing(_) | LineState::Away(_) | LineState::Over => None,
        }
    }

    /// Ends the call: notifies the phones that ring or have it.
    pub(super) fn end(&self, cause: HangupCause, ended: Ended) {
        let was = std::mem::replace(&mut *self.at(), LineState::Over);
        match was {
            LineState::Ringing(places) => self.stop_ringing(places, why_cancelled(cause)),
            LineState::Place(place) => {
                self.phones.tell(place, ToPhone::Ended { call: self.call, ended });
                self.phones.forget(place, self.call);
            }
            LineState::Away(_) | LineState::Over => {}
        }
        let mut table = self.phones.table();
        if let Some(lines) = table.ringing.get_mut(&self.name) {
            lines.retain(|line| line.upgrade().is_some_and(|line| line.call != self.call));
            if lines.is_empty() {
                table.ringing.remove(&self.name);
            }
        }
    }

    fn stop_ringing(&self, places: BTreeSet<RegistrationId>, why: &'static str) {
        for place in places {
            self.phones.tell(place, ToPhone::Cancelled { call: self.call, why });
            self.phones.forget(place, self.call);
        }
    }

    fn at(&self) -> MutexGuard<'_, LineState> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps the cause of an unanswered call to a word of the phone protocol.
fn why_cancelled(cause: HangupCause) -> &'static str {
    match cause {
        HangupCause::RingTimeout | HangupCause::NoAnswer => "timeout",
        HangupCause::Rejected => "declined",
        HangupCause::Drained => "draining",
        _ => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> CallUuid {
        CallUuid(uuid::Uuid::new_v4())
    }

    fn name() -> EndpointName {
        EndpointName::parse("asha").unwrap()
    }

    fn owner() -> Owner {
        Owner {
            endpoint: "1".into(),
            name: name(),
            account: "MA1".into(),
            main_account: "MA1".into(),
        }
    }

    fn ring(call: CallUuid) -> Ring {
        let (from, to, caller_name) =
            ("919812345678".to_owned(), "sip:asha@h".to_owned(), String::new());
        Ring {
            call,
            from,
            to,
            caller_name,
            via: Default::default(),
            outbound: false,
            headers: Vec::new(),
        }
    }

    fn ended() -> Ended {
        Ended {
            code: 4000,
            name: "Normal Hangup",
            source: "Caller",
            cause: "caller_hangup",
            bill_secs: 1,
        }
    }

    #[test]
    fn the_first_to_accept_gets_the_call_and_the_others_stop_ringing() {
        let (phones, call) = (Phones::default(), call());
        let [mut a, mut b] = [(); 2].map(|()| phones.register(owner()).unwrap());
        let line = phones.line_to(call, name());
        assert_eq!(line.ring(ring(call)), 2);
        let mut late = phones.register(owner()).unwrap();
        for (_, outgoing) in [&mut a, &mut b, &mut late] {
            assert_eq!(
                outgoing.try_recv(),
                Ok(ToPhone::Ring(ring(call))),
                "also who registers while it rings"
            );
        }
        assert_eq!(line.decline(late.0.place()), Some(false));
        assert!(line.accept(b.0.place()) && !line.accept(a.0.place()), "the first one");
        assert_eq!(a.1.try_recv(), Ok(ToPhone::Cancelled { call, why: "answered_elsewhere" }));
        assert_eq!(late.1.try_recv(), Ok(ToPhone::Cancelled { call, why: "declined" }));
        assert_eq!((phones.calls(a.0.place()), phones.calls(b.0.place())), (vec![], vec![call]));
        line.end(HangupCause::CallerHangup, ended());
        assert_eq!(b.1.try_recv(), Ok(ToPhone::Ended { call, ended: ended() }));
        assert!(phones.calls(b.0.place()).is_empty() && phones.table().ringing.is_empty());
    }

    #[test]
    fn a_ringing_phone_is_notified_of_the_end_and_the_last_decline_is_reported() {
        let (phones, first, second) = (Phones::default(), call(), call());
        let (place, mut outgoing) = phones.register(owner()).unwrap();
        let line = phones.line_to(first, name());
        assert_eq!(line.ring(ring(first)), 1);
        assert_eq!((line.decline(place.place()), line.decline(place.place())), (Some(true), None));
        let line = phones.line_to(second, name());
        line.ring(ring(second));
        line.end(HangupCause::RingTimeout, ended());
        let whys: Vec<_> = std::iter::from_fn(|| outgoing.try_recv().ok())
            .filter_map(|message| match message {
                ToPhone::Cancelled { call, why } => Some((call, why)),
                _ => None,
            })
            .collect();
        assert_eq!(whys, [(first, "declined"), (second, "timeout")]);
        assert!(!line.accept(place.place()), "over");
    }

    #[test]
    fn only_a_lost_phone_can_be_replaced() {
        let (phones, call) = (Phones::default(), call());
        let (first, _outgoing) = phones.register(owner()).unwrap();
        let line = phones.line_from(call, first.place(), name());
        let (second, mut outgoing) = phones.register(owner()).unwrap();
        assert!(!line.back(second.place()), "it is not away");
        assert!(!line.lost(second.place()) && line.lost(first.place()) && line.is_away());
        line.no_captions();
        assert!(line.back(second.place()) && line.is_at(second.place()) && !line.is_away());
        line.tell(ToPhone::Answered { call });
        assert_eq!(outgoing.try_recv(), Ok(ToPhone::NoCaptions { call }), "missed");
        assert_eq!(outgoing.try_recv(), Ok(ToPhone::Answered { call }));
    }

    #[test]
    fn phones_of_another_process_ring_or_go_on_when_they_register() {
        let old = Phones::default();
        let (first, second) = (call(), call());
        let (place, mut outgoing) = old.register(owner()).unwrap();
        let rings = old.line_to(first, name());
        rings.ring(ring(first));
        let talks = old.line_from(second, place.place(), name());
        assert_eq!(old.owners(), [owner()]);

        let (phones, now) = (Phones::default(), model::Clock::real().now());
        let resume = |line: &Line| {
            let moved: MovedLine =
                serde_json::from_str(&serde_json::to_string(&line.snapshot()).unwrap()).unwrap();
            let keys = moved.keys();
            phones.resume_line(line.call, moved, keys)
        };
        let (rings, talks) = (resume(&rings), resume(&talks));
        assert!(talks.is_away() && !rings.is_away());
        phones.continue_after(old.last_id());
        assert_eq!(phones.owner(&name(), now), None);
        phones.expect(old.owners(), now + std::time::Duration::from_secs(1));
        assert_eq!(phones.owner(&name(), now), Some(owner()));
        assert!(rings.is_awaited(now));
        assert!(!rings.is_awaited(now + std::time::Duration::from_secs(1)), "for that time");
        let earlier = place.place();
        drop((place, outgoing.try_recv()));
        let (place, mut outgoing) = phones.register(owner()).unwrap();
        assert_ne!(place.place(), earlier, "other nodes know the earlier one");
        assert_eq!(outgoing.try_recv(), Ok(ToPhone::Ring(ring(first))));
        assert!(talks.back(place.place()) && rings.accept(place.place()));
    }

    #[test]
    fn registrations_and_their_ends_are_published_once() {
        let feed = Feed::new();
        let mut news = feed.watch();
        let mut published = || std::iter::from_fn(|| news.try_recv().ok()).collect::<Vec<_>>();
        let phones = Phones::new(feed);
        let (place, outgoing) = phones.register(owner()).unwrap();
        let [change] = published().try_into().unwrap();
        assert_eq!(
            (change.main_account.as_str(), &change.change),
            ("MA1", &FeedChange::Endpoint("1".into()))
        );
        for _ in 0..BEHIND + 1 {
            phones.tell(place.place(), ToPhone::Draining);
        }
        assert_eq!(published().len(), 1, "the queue was full");
        drop((place, outgoing));
        assert!(published().is_empty(), "it had ended");
    }

    #[test]
    fn captions_leave_room_for_what_matters() {
        let (phones, call) = (Phones::default(), call());
        let (place, mut outgoing) = phones.register(owner()).unwrap();
        let line = phones.line_from(call, place.place(), name());
        let caption = |line| Caption {
            speaker: super::super::caption::Speaker::Them,
            line,
            text: "x".into(),
            last: true,
        };
        (0..2 * BEHIND as u32).for_each(|n| line.caption(caption(n)));
        line.tell(ToPhone::Answered { call });
        let outgoing: Vec<_> = std::iter::from_fn(|| outgoing.try_recv().ok()).collect();
        assert_eq!(outgoing.len(), BEHIND - BESIDE_CAPTIONS + 1);
        assert_eq!(outgoing.last(), Some(&ToPhone::Answered { call }));
        assert!(phones.is_registered(&name()), "it is not given up for them");
    }

    #[test]
    fn keys_count_from_one_source_only() {
        let phones = Phones::default();
        for (first, other) in
            [(KeySource::Stream, KeySource::Socket), (KeySource::Socket, KeySource::Stream)]
        {
            let line = phones.line_to(call(), name());
            let keys = line.keys();
            assert!(keys.takes_key(first) && !keys.takes_key(other));
            let moved = line.snapshot().keys();
            assert!(!moved.takes_key(other) && moved.takes_key(first), "also after an upgrade");
        }
    }

    #[test]
    fn r10_registrations_calls_and_messages_are_bounded() {
        let phones = Phones::default();
        let mut all: Vec<_> = (0..PLACES_MAX).map(|_| phones.register(owner()).unwrap()).collect();
        assert_eq!(phones.register(owner()).err(), Some(NoRoom));
        all.truncate(1);
        let (place, outgoing) = all.remove(0);
        assert_eq!(phones.len(), 1);
        let lines: Vec<_> = (0..CALLS_MAX + 1).map(|_| phones.line_to(call(), name())).collect();
        let rung: usize = lines.iter().map(|line| line.ring(ring(line.call))).sum();
        assert_eq!(rung, CALLS_MAX, "one place has so many calls at most");
        for _ in 0..BEHIND + 1 {
            phones.tell(place.place(), ToPhone::Draining);
        }
        assert!(!phones.is_registered(&name()), "a phone that takes nothing is given up");
        drop((place, outgoing));
        assert!(phones.is_empty());
    }

    #[test]
    fn a_phone_with_a_full_queue_is_disconnected_and_can_resume_its_calls() {
        let (phones, [call, other]) = (Phones::default(), [(); 2].map(|()| call()));
        let (first, mut outgoing) = phones.register(owner()).unwrap();
        let line = phones.line_from(call, first.place(), name());
        (0..=BEHIND).for_each(|_| line.tell(ToPhone::Answered { call }));
        assert_eq!(phones.line_to(other, name()).ring(ring(other)), 0);
        while outgoing.try_recv().is_ok() {}
        assert!(outgoing.is_closed(), "the session ends");
        let calls = phones.calls(first.place());
        assert_eq!(calls, [call]);
        assert!(line.lost(first.place()));
        drop(first);
        let (second, _outgoing) = phones.register(owner()).unwrap();
        assert!(line.back(second.place()));
    }

    #[test]
    fn a_phone_with_a_full_queue_is_unregistered() {
        let phones = Phones::default();
        let (place, mut outgoing) = phones.register(owner()).unwrap();
        (0..BEHIND - BESIDE_ALL).for_each(|_| phones.tell(place.place(), ToPhone::Draining));
        phones.drain();
        phones.unregister(&"1".into(), "password_changed");
        let last = std::iter::from_fn(|| outgoing.try_recv().ok()).last();
        assert_eq!(last, Some(ToPhone::Unregistered { why: "password_changed" }));
    }
}
