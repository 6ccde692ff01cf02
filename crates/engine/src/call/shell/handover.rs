//! Suspends a call for its hand-over to another process, and resumes it there.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::a_leg::ALeg;
use super::asking::Requests;
use super::begin::ResumeParams;
use super::context::Context;
use super::sound::Playback;
use super::speech::Recognition;
use super::stream::CallStream;
use super::tapes::CallRecordings;
use super::{Peer, Shell};
use crate::admission::permission::Reservation;
use crate::call::author;
use crate::call::call_clock::CallClock;
use crate::call::handover::{
    CallSnapshot, Decision, HeldLeg, Leftover, MovedDialogue, QueuedInput, SnapshotParts,
    SuspendReply, SuspendedCall,
};
use crate::call::mailbox::Envelope;
use crate::call::services::Services;
use machine::{CallState, Sound};
use media::TapSides;

/// Why a call can't be handed over now.
pub(super) struct Obstacle {
    pub(super) text: &'static str,
    /// Whether the obstacle passes within seconds, like a request in progress.
    pub(super) passes: bool,
}

impl Obstacle {
    fn lasting(text: &'static str) -> Self {
        Self { text, passes: false }
    }

    fn passing(text: &'static str) -> Self {
        Self { text, passes: true }
    }
}

/// Resumes a call of another process and runs it to its end. The slot is released when this future
/// completes or is dropped.
pub(in crate::call) async fn resume(services: Arc<Services>, params: Box<ResumeParams>) {
    let ResumeParams { registry, mut call, peer, journal, view } = *params;
    let queued = call.take_queued();
    let Leftover { recordings, hearing, stream, dialogue, .. } = call.leftover;
    let leg = HeldLeg { leg: call.leg.take(), offered: call.offered_leg.take() };
    let (snapshot, b_leg) = (call.snapshot, call.machine.b_leg());
    let mut shell = Shell {
        machine: call.machine,
        clock: CallClock::resumed(call.zero, snapshot.last),
        a_leg: ALeg::resumed(leg, snapshot.sdp, snapshot.phone.as_ref()),
        b_leg,
        playback: Playback::default(),
        recognition: Recognition::default(),
        stream: CallStream::default(),
        recordings: CallRecordings::default(),
        requests: Requests::resumed(snapshot.wacid, snapshot.farewell),
        callbacks: snapshot.callbacks,
        is_callback_dropped: false,
        report: snapshot.report,
        outputs: std::collections::VecDeque::new(),
        leaving: None,
        unredacted: snapshot.unredacted,
        suspension: None,
        over: false,
        context: Context {
            id: snapshot.call,
            number: peer.number().cloned(),
            line: peer.line().cloned(),
            mailbox: call.mailbox,
            journal,
            view,
            registry,
            services,
        },
        held: match peer {
            Peer::User { slot, engaged, .. } if snapshot.holds_slot => Some((slot, engaged)),
            Peer::User { .. } | Peer::Phone { .. } => None,
        },
    };
    info!(queued = queued.len(), "call taken over");
    if let Some(MovedDialogue { dialogue, playing, paused_us }) = dialogue {
        shell.playback.resume(call.zero, playing, paused_us);
        shell.context.services.author.resume(shell.context.id, dialogue);
    }
    // An agent's streamed speech has moved with the leg. It has no URL to fetch.
    let is_written =
        |sound: &&Sound| matches!(sound, Sound::File { url } if author::path_of(&url.0).is_some());
    for sound in call.sounds.iter().filter(|sound| !is_written(sound)) {
        shell.playback.prepare(&shell.context, sound);
    }
    shell.recordings.resume(&shell.context, &mut call.leg, recordings);
    if let Some(hearing) = hearing {
        shell.recognition.resume(&shell.context, &mut call.leg, hearing);
    }
    if let Some(stream) = stream {
        shell.stream.resume(&shell.context, &mut call.leg, stream);
    }
    let captions = snapshot.phone.and_then(|phone| phone.captions);
    shell.a_leg.caption(&shell.context, captions);
    for envelope in queued {
        shell.receive(envelope);
    }
    shell.serve(call.inbox).await;
}

impl Shell {
    /// Returns why the call can't be handed over now.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        if self.context.view.log.is_full() {
            return Some(Obstacle::lasting("its event log is full"));
        }
        match self.machine.state() {
            Some(
                CallState::Proceeding | CallState::Ringing | CallState::Live | CallState::Closing,
            ) => {}
            Some(
                CallState::Dialing | CallState::Preparing | CallState::Accepting | CallState::Over,
            )
            | None => return Some(Obstacle::passing("it is being set up")),
        }
        if self.a_leg.offered(&self.context.services.media).is_err() {
            return Some(Obstacle::lasting("a TURN server relays it"));
        }
        if let Some((element, _)) = self.machine.current_element()
            && let Some(text) = obstacle_of(element)
        {
            return Some(Obstacle::lasting(text));
        }
        if self.context.services.seats.as_ref().is_some_and(|seats| seats.has(self.context.id)) {
            let text = "it is in a conference or multi-party call of another node";
            return Some(Obstacle::lasting(text));
        }
        if let Some(text) = self.context.services.rooms.obstacle(self.context.id) {
            return Some(Obstacle::lasting(text));
        }
        if self.recognition.is_busy() {
            return Some(Obstacle::passing("its caller is speaking"));
        }
        if self.context.services.author.until_at_rest(self.context.id).is_some() {
            return Some(Obstacle::passing("its agent is answering"));
        }
        if self.stream.is_connecting() {
            return Some(Obstacle::passing("its audio stream is being connected"));
        }
        let is_busy = !self.requests.are_done() || self.leaving.is_some();
        if is_busy || !self.outputs.is_empty() || !self.a_leg.is_settled() {
            return Some(Obstacle::passing("one of its requests is still in progress"));
        }
        None
    }

    /// Takes the request to suspend the call if it can be answered now.
    pub(super) fn take_suspension(&mut self) -> Option<oneshot::Sender<SuspendReply>> {
        if self.suspension.as_ref()?.is_closed() {
            self.suspension = None;
        }
        match self.obstacle() {
            Some(obstacle) if obstacle.passes => None,
            Some(Obstacle { text, .. }) => {
                let _ = self.suspension.take()?.send(Err(text));
                None
            }
            None => self.suspension.take(),
        }
    }

    /// Suspends the call until it is decided in which process it goes on. Messages stay in the
    /// mailbox meanwhile. Returns whether the call was handed over.
    pub(super) async fn suspend(
        &mut self,
        reply: oneshot::Sender<SuspendReply>,
        inbox: &mut mpsc::Receiver<Box<Envelope>>,
    ) -> bool {
        // A voice may have begun since the request was taken.
        if !self.recognition.hold() {
            self.suspension = Some(reply);
            return false;
        }
        let call = &self.context;
        let clock = &call.services.clock;
        // The packets since the last reading count here.
        if self.a_leg.leg().is_some() {
            self.a_leg.sample(call, clock.now());
        }
        let mut taps = vec![TapSides::Both; self.recordings.running()];
        taps.extend(self.recognition.is_running().then_some(TapSides::Received));
        taps.extend(self.stream.tapped());
        let stream_frames = self.stream.frames();
        if let Some(frames) = &stream_frames {
            frames.run_ahead();
        }
        let phone = self.a_leg.phone(call.line.as_ref());
        let captions = phone.as_ref().and_then(|phone| phone.captions.clone());
        let parts = SnapshotParts {
            view: &call.view,
            machine: &self.machine,
            last: self.clock.last(),
            unredacted: &self.unredacted,
            farewell: self.requests.farewell.get(),
            holds_slot: self.held.is_some(),
            reservation: self.held.as_ref().and_then(|(_, engaged)| engaged.reservation()),
            report: &self.report,
            callbacks: self.callbacks,
            sdp: &self.a_leg.sdp,
            offered_leg: self.a_leg.offered(&call.services.media).unwrap_or_default(),
            taps,
            phone,
        };
        let snapshot = CallSnapshot::of(parts, clock);
        let (decide, decision) = oneshot::channel();
        let leg = self.a_leg.suspend();
        let suspended = SuspendedCall::new(snapshot, leg, stream_frames.clone(), decide);
        // If the receiver is gone, the suspended call is dropped, which resumes it.
        let _ = reply.send(Ok(Box::new(suspended)));
        match decision.await {
            Ok(Decision::Resume(leg)) => {
                self.a_leg.resume(leg);
                self.a_leg.caption(&self.context, captions);
                self.recognition.release();
                if let Some(frames) = stream_frames {
                    frames.go_on();
                }
                false
            }
            Ok(Decision::Leave(reply)) => {
                let recordings = self.recordings.detach().await;
                let hearing = self.recognition.detach();
                let (stream, socket) = self.stream.detach().await.unzip();
                inbox.close();
                let zero = self.clock.arrived();
                let mut queued = Vec::new();
                while let Ok(envelope) = inbox.try_recv() {
                    queued.extend(QueuedInput::of(*envelope, zero));
                }
                // The other process exports the trace of the whole call.
                drop(call.view.log.export());
                let (playing, paused_us) = self.playback.playing(zero);
                let dialogue = call.services.author.detach(call.id);
                let dialogue =
                    dialogue.map(|dialogue| MovedDialogue { dialogue, playing, paused_us });
                // The user stays reserved: the reservation goes on in the other process.
                if let Some((_, mut engaged)) = self.held.take() {
                    engaged.take_reservation().into_iter().for_each(Reservation::dismiss);
                }
                call.view.forget_legs();
                call.services.rooms.forget(call.id);
                self.recordings.settle(&self.machine, &queued);
                info!(queued = queued.len(), "call handed over");
                let leftover = Leftover::new(queued, recordings, hearing, stream, dialogue);
                let _ = reply.send((leftover, socket));
                true
            }
            // `SuspendedCall` decides when it is dropped.
            Err(_) => false,
        }
    }
}

/// Returns why a call can't be handed over while it executes an element.
fn obstacle_of(element: &str) -> Option<&'static str> {
    match element {
        "Speak" | "Play" | "Wait" | "GetInput" | "GetDigits" | "Record" | "DTMF" | "Redirect"
        | "Hangup" | "PreAnswer" | "Message" | "Stream" | "Dial" | "Conference"
        | "MultiPartyCall" => None,
        _ => Some("it executes an element that cannot be handed over"),
    }
}
