//! Executes the outputs of a call about its stream, with the help of the module `stream`.

use std::sync::Arc;

use super::context::Context;
use crate::stream::{StreamHandle, StreamJob};
use machine::{CallTime, Input, StreamCommand};
use media::LegHandle;
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
                let mailbox = call.mailbox.clone();
                let job = StreamJob {
                    call: call.id,
                    stream: id,
                    account: call.view.setup.account.clone(),
                    order: *order,
                    keys: call.keys.clone(),
                    sink: Arc::new(move |what| {
                        mailbox.tell(Input::Stream { stream: id, event: what });
                    }),
                };
                self.0 = Some(call.services.streams.open(job));
            }
            StreamCommand::Begin => {
                call.view.streams.began(id, now);
                let workers = call.services.media.workers();
                match (&self.0, leg) {
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

    /// Whether a stream is open or being opened.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Passes a key of the caller to the stream.
    pub(super) fn key(&self, digit: Digit) {
        if let Some(stream) = &self.0 {
            stream.key(digit);
        }
    }
}
