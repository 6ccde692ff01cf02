//! Executes the outputs of a call about its stream, with the help of the module `stream`.

use std::sync::Arc;

use super::context::Context;
use crate::call::handover::AdoptedLeg;
use crate::call::mailbox::Message;
use crate::stream::{
    DetachedSocket, MovedAudio, MovedStream, StreamFrames, StreamHandle, StreamJob, line_rate,
    sides,
};
use machine::{CallTime, Input, StreamCommand, StreamOrder};
use media::{Buffering, LegHandle, TapSides};
use model::{Digit, StreamId};

/// The open or opening stream of a call.
#[derive(Default)]
pub(super) struct CallStream(Option<StreamHandle>);

impl CallStream {
    pub(super) fn execute(
        &mut self,
        call: &Context,
        leg: Option<&LegHandle>,
        at: CallTime,
        id: StreamId,
        command: StreamCommand,
    ) {
        let now = call.view.setup.started.plus(std::time::Duration::from_millis(at.0));
        match command {
            StreamCommand::Open(order) => {
                call.view.streams.opening(id, &order, now);
                self.0 = Some(call.services.streams.open(job(call, id, *order)));
            }
            StreamCommand::Begin => {
                call.view.streams.began(id, now);
                let workers = call.services.media.workers();
                match (&mut self.0, leg) {
                    (Some(stream), _) if stream.is_in_room() => {
                        let end = match call.seat() {
                            Some(seat) => seat.seat_agent(workers),
                            None => call.services.rooms.seat_agent(call.id, workers),
                        };
                        stream.begin_at(end, workers);
                    }
                    (Some(stream), Some(leg)) => stream.begin(leg, workers),
                    (Some(_), None) | (None, _) => {}
                }
            }
            StreamCommand::Close { dropped } => {
                call.view.streams.ended(id, dropped, now);
                self.0.take_if(|stream| stream.id() == id);
            }
        }
    }

    /// Whether a stream is being connected.
    pub(super) fn is_connecting(&self) -> bool {
        self.0.as_ref().is_some_and(|stream| !stream.is_connected())
    }

    /// The sides of the leg that the stream taps. `None` if no audio flows.
    pub(super) fn tapped(&self) -> Option<TapSides> {
        let taps_leg = |stream: &&StreamHandle| stream.has_audio() && !stream.is_in_room();
        self.0.as_ref().filter(taps_leg).map(|stream| sides(stream.order()))
    }

    /// The frames of the stream for the leg or room. `None` if no audio flows.
    pub(super) fn frames(&self) -> Option<StreamFrames> {
        self.0.as_ref()?.frames()
    }

    /// Lets go of the stream, so that another process can continue it.
    pub(super) async fn detach(&mut self) -> Option<(MovedStream, DetachedSocket)> {
        self.0.take()?.detach().await
    }

    /// Continues a stream of another process.
    pub(super) fn resume(&mut self, call: &Context, leg: &mut AdoptedLeg, moved: MovedStream) {
        let (id, order) = (moved.stream, moved.order.clone());
        let workers = call.services.media.workers();
        let is_in_room = order.in_room && moved.has_audio();
        let audio = if is_in_room {
            let end = call.services.rooms.seat_agent(call.id, workers);
            MovedAudio::of_room(end, &order, workers)
        } else {
            MovedAudio {
                line: leg.take_tap(sides(&order), line_rate(&order), Buffering::Immediate),
                feed: leg.take_feed(),
                workers,
            }
        };
        let is_lost = is_in_room && audio.line.is_none();
        let mut stream = call.services.streams.resume(job(call, id, order), moved, audio);
        if is_lost {
            stream.begin_at(None, workers);
        }
        self.0 = Some(stream);
    }

    /// Passes a key of the caller to the stream.
    pub(super) fn key(&self, digit: Digit) {
        if let Some(stream) = &self.0 {
            stream.key(digit);
        }
    }
}

fn job(call: &Context, id: StreamId, order: StreamOrder) -> StreamJob {
    let (mailbox, of_sound) = (call.mailbox.clone(), call.mailbox.clone());
    StreamJob {
        call: call.id,
        stream: id,
        account: call.view.setup.account.clone(),
        main_account: call.view.setup.parent_account.clone(),
        order,
        keys: call.keys(),
        sink: Arc::new(move |what| {
            mailbox.tell(Input::Stream { stream: id, event: what });
        }),
        on_first_sound: Arc::new(move || {
            of_sound.put(Message::StreamSounds);
        }),
    }
}
