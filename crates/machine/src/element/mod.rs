//! The behaviour of elements. Each element has a file and an entry in [`instruction`].
//!
//! Starting an element returns a [`Flow`]. An element that waits for something returns an
//! [`Activity`], which its file defines.

mod collect;
mod dial;
mod dtmf;
mod get_digits;
mod get_input;
mod hangup;
mod message;
mod patterns;
mod play;
mod playback;
mod pre_answer;
mod prompt;
pub(crate) mod record;
mod redirect;
mod room;
mod speak;
mod speech_input;
mod stream;
mod wait;

pub(crate) use dtmf::ToneWait;
pub(crate) use room::{add_participant, lost_participant_params};

use super::activity::{Activity, Completion, Env, Readiness};
use super::context::Place;
use super::digits::Rules;
use crate::contract::{FetchKind, InstructionOutcome, PlayId, Sound};
use model::HangupCause;
use xml::ast::{ElementKind, Record, Target};

/// The behaviour of an element.
pub(crate) trait Instruction: Sync {
    /// Starts an element that is not skipped.
    fn start(&self, env: &mut Env<'_>, at: At) -> Flow;

    /// Whether the element needs the call to be answered and its media path to be up.
    fn needs_media(&self) -> bool;

    /// Whether the element takes time. Documents without such an element count as a loop.
    fn takes_time(&self) -> bool;

    /// Returns how many simple elements this one is as expensive as.
    fn cost(&self) -> u64 {
        1
    }

    /// Returns why the element is skipped. `None` if it is executed.
    fn skip_reason(&self, readiness: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        let _ = (readiness, within_pre_answer);
        None
    }

    /// Returns the sounds of the element that must be fetched or synthesized.
    fn sounds(&self) -> Vec<Sound> {
        Vec::new()
    }

    /// Returns how the element treats digits. `None` if it does not collect them.
    fn digit_rules(&self) -> Option<Rules> {
        None
    }
}

/// Returns the instruction of an element.
pub(crate) fn instruction(kind: &ElementKind) -> &dyn Instruction {
    match kind {
        ElementKind::Speak(element) => element,
        ElementKind::Play(element) => element,
        ElementKind::Wait(element) => element,
        ElementKind::GetInput(element) => &**element,
        ElementKind::GetDigits(element) => &**element,
        ElementKind::Record(element) => &**element,
        ElementKind::Dial(element) => &**element,
        ElementKind::Conference(element) => &**element,
        ElementKind::MultiPartyCall(element) => element,
        ElementKind::Stream(element) => &**element,
        ElementKind::Dtmf(element) => element,
        ElementKind::Redirect(element) => element,
        ElementKind::Hangup(element) => element,
        ElementKind::PreAnswer(element) => element,
        ElementKind::Message(element) => &**element,
    }
}

/// An element and its place in the document.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) place: Place,
    /// Whether it is the last element of its document.
    pub(crate) is_last: bool,
}

/// How the document continues after an element has been started.
pub(crate) enum Flow {
    /// The element has already ended.
    Finished(Completion),
    /// The children of the element run next.
    Inside,
    /// The element waits for something.
    Run(Box<dyn Activity>),
    /// Tones are sent in the background.
    Tones(PlayId),
    /// The call is recorded in the background.
    Background(Box<Record>),
    /// Another document replaces this one.
    Transfer { kind: FetchKind, target: Target },
    /// The call ends.
    End { cause: HangupCause, outcome: InstructionOutcome, note: &'static str },
}

impl Flow {
    fn run(activity: impl Activity + 'static) -> Self {
        Self::Run(Box::new(activity))
    }
}
