//! Executes the outputs of a call about its stream, with the help of the module `stream`.

use std::sync::Arc;

use super::{Media, Shell};
use crate::stream::StreamJob;
use machine::{CallTime, Input, StreamCommand};
use model::{Digit, StreamId};

impl Shell {
    pub(super) fn stream(&mut self, at: CallTime, id: StreamId, command: StreamCommand) {
        let now = self.view.setup.started.plus(std::time::Duration::from_millis(at.0));
        match command {
            StreamCommand::Open(order) => {
                self.view.streams.opening(id, &order, now);
                let mailbox = self.mailbox.clone();
                let job = StreamJob {
                    call: self.call,
                    stream: id,
                    account: self.view.setup.account.clone(),
                    order: *order,
                    keys: self.keys.clone(),
                    sink: Arc::new(move |what| {
                        mailbox.tell(Input::Stream { stream: id, event: what });
                    }),
                };
                self.streaming = Some(self.services.streams.open(job));
            }
            StreamCommand::Begin => {
                self.view.streams.began(id, now);
                let workers = self.services.media.workers();
                match (&self.streaming, &self.a_leg.media) {
                    (Some(streaming), _) if streaming.is_in_room() => {
                        let end = match self.seat() {
                            Some(seat) => seat.seat_agent(workers),
                            None => self.services.rooms.seat_agent(self.call, workers),
                        };
                        streaming.begin_at(end, workers);
                    }
                    (Some(streaming), Media::Leg(leg)) => streaming.begin(leg, workers),
                    (Some(_) | None, _) => {}
                }
            }
            StreamCommand::Close { dropped } => {
                self.view.streams.ended(id, dropped, now);
                self.streaming.take_if(|streaming| streaming.id() == id);
            }
        }
    }

    /// Passes a key of the caller to the stream.
    pub(super) fn key_to_stream(&self, digit: Digit) {
        if let Some(streaming) = &self.streaming {
            streaming.key(digit);
        }
    }
}
