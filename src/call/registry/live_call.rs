//! A live call, seen from outside: what others may know of it, and its mailbox.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::super::binding::{AtMeta, Party};
use super::super::course::{Course, Sampler};
use super::super::live::LiveLog;
use super::super::phones::Line;
use super::super::shell::{Mailbox, What};
use super::super::streams::{StreamView, StreamViews};
use super::Told;
use crate::answer::SigningKeys;
use crate::feed::Feed;
use machine::{CallSetup, CallState, CallTime, Command, Input, RecordingOrder, StreamOrder};
use media::sdp::Offer;
use model::Secret;
use model::{CallUuid, StreamId, Timestamp, Wacid};
use xml::ast::Target;

/// A live call, seen from outside.
#[derive(Debug)]
pub struct LiveCall {
    pub setup: CallSetup,
    pub log: Arc<LiveLog>,
    /// When its webhook came in.
    pub(in crate::call) arrived: Instant,
    /// The number's signing keys and token, as they stood when the call began.
    pub(in crate::call) keys: SigningKeys,
    pub(super) token: Option<Secret>,
    pub(in crate::call) mailbox: Mailbox,
    pub(super) state: AtomicU8,
    pub(super) answered: OnceLock<CallTime>,
    pub(super) at_meta: AtMeta,
    /// The legs that it has dialled, and the one of them that has answered.
    pub(super) legs: Mutex<Vec<CallUuid>>,
    pub(super) b_leg: Mutex<Option<CallUuid>>,
    pub(in crate::call) streams: StreamViews,
    /// How its sound goes.
    pub(in crate::call) sampler: Sampler,
    /// It is recorded in the background; and it was asked to be, and has not looked at that yet.
    pub(super) recorded: AtomicBool,
    pub(super) record_asked: AtomicBool,
    /// Of a web leg: the way to its phone.
    pub(in crate::call) line: Option<Arc<Line>>,
}

impl LiveCall {
    pub(in crate::call) fn set_state(&self, state: CallState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(in crate::call) fn set_answered(&self, at: CallTime) {
        let _ = self.answered.set(at);
    }

    /// When it was answered.
    pub fn answered(&self) -> Option<CallTime> {
        self.answered.get().copied()
    }

    /// That it began, was answered, or ended.
    pub(in crate::call) fn tell_news(&self, feed: &Feed) {
        feed.tell(&self.setup.parent_account, crate::feed::FeedChange::Call(self.setup.call));
    }

    /// Meta's id of the call, once there is one.
    pub fn wacid(&self) -> Option<&Wacid> {
        self.at_meta.wacid()
    }

    /// The leg that it dialled and that has answered.
    pub fn b_leg(&self) -> Option<CallUuid> {
        *self.b_leg.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::call) fn set_b_leg(&self, leg: Option<CallUuid>) {
        *self.b_leg.lock().unwrap_or_else(PoisonError::into_inner) = leg;
    }

    /// How its sound has gone so far; none: there was none to measure yet.
    pub fn course(&self) -> Option<Course> {
        self.sampler.course()
    }

    /// Whether it is recorded in the background, or will be.
    pub fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire) || self.record_asked.load(Ordering::Acquire)
    }

    pub(in crate::call) fn set_recorded(&self, recorded: bool) {
        self.recorded.store(recorded, Ordering::Release);
    }

    /// What was asked of it about recording has been looked at.
    pub(in crate::call) fn looked_at_recording(&self) {
        self.record_asked.store(false, Ordering::Release);
    }

    /// Has it recorded; `None`: it is already.
    pub fn record(&self, order: RecordingOrder, callback: Option<Target>) -> Option<Told> {
        if self.recorded.load(Ordering::Acquire) || self.record_asked.swap(true, Ordering::AcqRel) {
            return None;
        }
        let told = self.command(Command::Record { order: Box::new(order), callback });
        if told != Told::Yes {
            self.looked_at_recording();
        }
        Some(told)
    }

    /// A leg that it dialled has ended, or goes on without it.
    pub(in crate::call) fn forget_leg(&self, leg: CallUuid) {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != leg);
    }

    /// Puts something into its mailbox; `false`: it is over, or full.
    pub(in crate::call) fn put(&self, what: What) -> bool {
        self.mailbox.put(what)
    }

    /// Whether it was answered and goes on.
    pub fn is_answered(&self) -> bool {
        self.answered.get().is_some()
    }

    /// Whether it has come to its end, and only Meta's word for it is missing.
    pub fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) >= CallState::Closing as u8
    }

    /// Asks the call for something.
    pub fn command(&self, command: Command) -> Told {
        if self.is_closing() {
            return Told::Unknown;
        }
        match self.mailbox.tell(Input::Command { command }) {
            true => Told::Yes,
            false if self.mailbox.is_open() => Told::Full,
            false => Told::Unknown,
        }
    }
}

impl LiveCall {
    /// Its streams, newest first.
    pub fn streams(&self) -> Vec<StreamView> {
        self.streams.list()
    }

    /// Asks it for a stream under this name; `Ok(false)`: it has one.
    ///
    /// # Errors
    /// It could not be told.
    pub fn begin_stream(
        &self,
        stream: StreamId,
        order: StreamOrder,
        now: Timestamp,
    ) -> Result<bool, Told> {
        if !self.streams.claim(stream, &order, now) {
            return Ok(false);
        }
        match self.command(Command::Stream { stream, order: Box::new(order) }) {
            Told::Yes => Ok(true),
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

    fn at_meta(&self) -> &AtMeta {
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

    fn tell(&self, fact: Input) -> bool {
        self.mailbox.tell(fact)
    }

    fn answer(&self, answer: Box<Offer>) -> bool {
        self.mailbox.put(What::Answer(answer))
    }
}
