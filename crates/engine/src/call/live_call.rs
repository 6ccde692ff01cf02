//! The handle of a live call: its public state and its mailbox.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::binding::{MetaState, Party};
use super::course::{Course, Sampler};
use super::live::LiveLog;
use super::mailbox::{Mailbox, Message};
use super::phones::Line;
use super::streams::{StreamView, StreamViews};
use crate::answer::SigningKeys;
use crate::feed::{Audience, Feed, FeedChange};
use machine::{CallSetup, CallState, CallTime, Command, Input, RecordingOrder, StreamOrder};
use media::sdp::Offer;
use model::Secret;
use model::{CallUuid, StreamId, Timestamp, Wacid};
use xml::ast::Target;

/// Whether an input was delivered to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Delivered,
    /// The call's mailbox is full.
    Full,
    /// The call does not exist or has ended.
    Unknown,
}

/// A live call, as seen by other tasks.
#[derive(Debug)]
pub struct LiveCall {
    pub setup: CallSetup,
    pub log: Arc<LiveLog>,
    /// When its webhook arrived.
    pub(super) arrived: Instant,
    /// The signing keys as of the start of the call, for requests after its account was deleted.
    pub(super) keys: SigningKeys,
    /// The number's access token as of the start of the call.
    pub(super) token: Option<Secret>,
    pub(super) mailbox: Mailbox,
    pub(super) state: AtomicU8,
    pub(super) answered: OnceLock<CallTime>,
    pub(super) at_meta: MetaState,
    /// The B-legs of the call, and the one that has answered.
    pub(super) legs: Mutex<Vec<CallUuid>>,
    pub(super) b_leg: Mutex<Option<CallUuid>>,
    /// B-legs whose users are being reserved in the fleet.
    pub(super) pending_legs: Mutex<BTreeSet<CallUuid>>,
    pub(super) streams: StreamViews,
    /// Audio quality over time.
    pub(super) sampler: Sampler,
    /// Whether the call is being recorded in the background, or a request to record it is pending.
    pub(super) recorded: AtomicBool,
    pub(super) record_asked: AtomicBool,
    /// The connection to the phone, if this is a web leg.
    pub(super) line: Option<Arc<Line>>,
    /// Whether the call is over, and only waits in case Meta reports it after all.
    pub(super) over: AtomicBool,
    /// Notified if another node of a fleet has the call, too.
    pub(super) withdrawn: Notify,
}

impl LiveCall {
    pub(super) fn set_state(&self, state: CallState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(super) fn set_answered(&self, at: CallTime) {
        let _ = self.answered.set(at);
    }

    /// When the call was answered.
    pub fn answered(&self) -> Option<CallTime> {
        self.answered.get().copied()
    }

    /// Notifies the console's live feed that the call began, was answered or ended.
    pub(super) fn tell_news(&self, feed: &Feed) {
        let to = Audience::of(&self.setup.account, &self.setup.parent_account);
        feed.publish(to, FeedChange::Call(self.setup.call));
    }

    /// Returns Meta's id of the call, if it is known.
    pub fn wacid(&self) -> Option<&Wacid> {
        self.at_meta.wacid()
    }

    /// Returns the B-leg that has answered.
    pub fn b_leg(&self) -> Option<CallUuid> {
        *self.b_leg.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_b_leg(&self, leg: Option<CallUuid>) {
        *self.b_leg.lock().unwrap_or_else(PoisonError::into_inner) = leg;
    }

    /// Returns the audio quality so far. `None` if nothing was measured yet.
    pub fn course(&self) -> Option<Course> {
        self.sampler.course()
    }

    /// Whether the call is recorded in the background, or a request to record it is pending.
    pub fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire) || self.record_asked.load(Ordering::Acquire)
    }

    pub(super) fn set_recorded(&self, recorded: bool) {
        self.recorded.store(recorded, Ordering::Release);
    }

    /// Marks the pending request to record the call as handled.
    pub(super) fn looked_at_recording(&self) {
        self.record_asked.store(false, Ordering::Release);
    }

    /// Requests a recording of the call. Returns `None` if it is already being recorded.
    pub fn record(&self, order: RecordingOrder, callback: Option<Target>) -> Option<SendOutcome> {
        if self.recorded.load(Ordering::Acquire) || self.record_asked.swap(true, Ordering::AcqRel) {
            return None;
        }
        let sent = self.command(Command::Record { order: Box::new(order), callback });
        if sent != SendOutcome::Delivered {
            self.looked_at_recording();
        }
        Some(sent)
    }

    /// Returns the B-legs of the call.
    pub(super) fn legs(&self) -> Vec<CallUuid> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Separates the B-legs from this handle, so that its end does not end them.
    pub(super) fn forget_legs(&self) {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Removes a B-leg that has ended or was separated from the call.
    pub(super) fn forget_leg(&self, leg: CallUuid) {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != leg);
    }

    /// Removes a B-leg that has not begun yet. Returns `false` if there is no such leg.
    pub(super) fn withdraw_leg(&self, leg: CallUuid) -> bool {
        self.pending_legs.lock().unwrap_or_else(PoisonError::into_inner).remove(&leg)
    }

    /// Puts a message into the call's mailbox. Returns `false` if the call has ended or the mailbox
    /// is full.
    pub(super) fn put(&self, message: Message) -> bool {
        self.mailbox.put(message)
    }

    /// Whether the call was answered.
    pub fn is_answered(&self) -> bool {
        self.answered.get().is_some()
    }

    /// Whether the call has ended and waits only for Meta's `terminate`.
    pub fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) >= CallState::Closing as u8
    }

    /// Hangs up the call unless it was answered, and returns whether it was hung up. Decided in the
    /// call's own task, which may learn of the answer in the meantime.
    pub async fn cancel(&self) -> bool {
        let (reply, is_cancelled) = oneshot::channel();
        self.put(Message::Cancel(reply)) && is_cancelled.await.unwrap_or_default()
    }

    /// Sends a command to the call.
    pub fn command(&self, command: Command) -> SendOutcome {
        if self.is_closing() {
            return SendOutcome::Unknown;
        }
        match self.mailbox.tell(Input::Command { command }) {
            true => SendOutcome::Delivered,
            false if self.mailbox.is_open() => SendOutcome::Full,
            false => SendOutcome::Unknown,
        }
    }
}

impl LiveCall {
    /// Returns the call's streams, newest first.
    pub fn streams(&self) -> Vec<StreamView> {
        self.streams.list()
    }

    /// Requests a stream with the id `stream`. Returns `Ok(false)` if the call already has a
    /// stream.
    ///
    /// # Errors
    /// Returns an error if the command could not be delivered.
    pub fn begin_stream(
        &self,
        stream: StreamId,
        order: StreamOrder,
        now: Timestamp,
    ) -> Result<bool, SendOutcome> {
        if !self.streams.claim(stream, &order, now) {
            return Ok(false);
        }
        match self.command(Command::Stream { stream, order: Box::new(order) }) {
            SendOutcome::Delivered => Ok(true),
            not => {
                self.streams.withdraw(stream);
                Err(not)
            }
        }
    }
}

impl Party for LiveCall {
    fn setup(&self) -> &CallSetup {
        &self.setup
    }

    fn at_meta(&self) -> &MetaState {
        &self.at_meta
    }

    fn token(&self) -> Option<Secret> {
        self.token.clone()
    }

    fn is_closing(&self) -> bool {
        Self::is_closing(self)
    }

    fn is_open(&self) -> bool {
        self.mailbox.is_open()
    }

    fn tell(&self, input: Input) -> bool {
        self.mailbox.tell(input)
    }

    fn answer(&self, answer: Box<Offer>) -> bool {
        self.mailbox.put(Message::Answer(answer))
    }
}
