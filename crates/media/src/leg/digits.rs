//! Sends digits to the peer, as telephone events or as tones.

use std::collections::VecDeque;

use super::reporter::Reporter;
use crate::LegEvent;
use crate::dtmf::{Sender, Step};
use crate::prompt::Frame;
use crate::sdp::TelephoneEvent;
use crate::tones::ToneSender;
use machine::PlayId;
use serde::{Deserialize, Serialize};

/// RTP clock rate of Opus packets, which contain the tones.
const RTP_CLOCK: u32 = 48_000;
/// Maximum number of queued digit commands.
const COMMANDS_MAX: usize = 32;

/// The digit commands of a leg. The first one is being sent.
pub(super) struct DigitQueue {
    queue: VecDeque<(PlayId, Sender)>,
    telephone_event: Option<TelephoneEvent>,
    /// Sends tones, if no telephone-event was negotiated.
    tones: Option<Box<ToneSender>>,
}

/// The state of a [`DigitQueue`] in the snapshot of a leg.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DigitQueueState {
    queue: VecDeque<(PlayId, Sender)>,
    telephone_event: Option<TelephoneEvent>,
    /// The number of frames of a tone that were sent for the current key.
    tone_frames: u16,
}

/// The use of a tick by the digit queue.
pub(super) enum DigitStep {
    /// No digit is in progress, so audio may be sent.
    Free,
    /// The tick is the pause after a digit, or the end of a tone. Playback waits.
    Pause,
    /// A packet of a telephone event, with the timestamp of the event's start.
    Event { payload_type: u8, payload: Frame, timestamp: u32, marker: bool },
    /// A frame of a tone.
    Tone(Frame),
}

impl DigitQueue {
    pub(super) fn new(telephone_event: Option<TelephoneEvent>) -> Self {
        let tones = telephone_event.is_none().then(Box::default);
        Self { queue: VecDeque::new(), telephone_event, tones }
    }

    pub(super) fn snapshot(&self) -> DigitQueueState {
        DigitQueueState {
            queue: self.queue.clone(),
            telephone_event: self.telephone_event,
            tone_frames: self.tones.as_ref().map_or(0, |tones| tones.frames_sent()),
        }
    }

    /// Creates the queue of a snapshot. Returns `None` if the snapshot is inconsistent.
    pub(super) fn restore(state: DigitQueueState) -> Option<Self> {
        let DigitQueueState { queue, telephone_event, tone_frames } = state;
        let is_consistent =
            queue.len() <= COMMANDS_MAX && queue.iter().all(|(_, sender)| sender.is_consistent());
        let tones = telephone_event.is_none().then(|| Box::new(ToneSender::after(tone_frames)));
        is_consistent.then_some(Self { queue, telephone_event, tones })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, play: PlayId, digits: &str, reporter: &Reporter) {
        if self.queue.len() == COMMANDS_MAX {
            // There are too many commands. Completion is reported, so that the caller continues.
            reporter.report(LegEvent::DigitsSent(play));
            return;
        }
        let clock = self.telephone_event.map_or(RTP_CLOCK, |event| event.clock);
        self.queue.push_back((play, Sender::new(digits, clock)));
    }

    pub(super) fn stop(&mut self, play: PlayId) {
        self.queue.retain(|(digits, _)| *digits != play);
    }

    /// Advances the current digit by a tick. Playback waits during a digit, but not during a pause
    /// between digits.
    pub(super) fn step(&mut self, timestamp: u32, reporter: &Reporter) -> DigitStep {
        let Some((play, sender)) = self.queue.front_mut() else { return DigitStep::Free };
        let step = sender.step(timestamp);
        match (step, &mut self.tones, self.telephone_event) {
            (Step::Event { .. }, Some(tones), _) => {
                tones.frame(step).map_or(DigitStep::Pause, DigitStep::Tone)
            }
            (Step::Event { payload, timestamp, marker }, None, Some(event)) => DigitStep::Event {
                payload_type: event.pt,
                payload: Frame::from(payload),
                timestamp,
                marker,
            },
            (Step::Event { .. }, None, None) | (Step::Pause, _, _) => DigitStep::Pause,
            (Step::Wait, _, _) => DigitStep::Free,
            (Step::Done, _, _) => {
                reporter.report(LegEvent::DigitsSent(*play));
                self.queue.pop_front();
                DigitStep::Free
            }
        }
    }
}
