//! What each element does: one file an element, one line in [`instruction`].
//!
//! Starting an element gives a [`Flow`]. An element that waits for something gives an [`Activity`], which its file has, too.

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
pub(crate) use room::{add_participant, cut_off};

use super::activity::{Activity, Completion, Env, Readiness};
use super::context::Place;
use super::digits::Rules;
use crate::contract::{FetchKind, InstructionOutcome, PlayId, Sound};
use model::HangupCause;
use xml::ast::{ElementKind, Record, Target};

/// How the machine carries out an element.
pub(crate) trait Instruction: Sync {
    /// Begins an element that is not skipped.
    fn start(&self, env: &mut Env<'_>, at: At) -> Flow;

    /// Whether it needs the call answered and its media up.
    fn needs_media(&self) -> bool;

    /// Whether it takes time. Documents in which nothing does count as a loop.
    fn takes_time(&self) -> bool;

    /// Why it does nothing here, if it does nothing.
    fn skip_reason(&self, readiness: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        let _ = (readiness, within_pre_answer);
        None
    }

    /// The sounds that it will want and that have to be fetched or synthesised.
    fn sounds(&self) -> Vec<Sound> {
        Vec::new()
    }

    /// What digits mean to it, if it collects them.
    fn digit_rules(&self) -> Option<Rules> {
        None
    }
}

/// The instruction of an element.
pub(crate) fn instruction(kind: &ElementKind) -> &dyn Instruction {
    match kind {
        ElementKind::Speak(element) => element,
        ElementKind::Play(element) => element,
        ElementKind::Wait(element) => element,
        ElementKind::GetInput(element) => element,
        ElementKind::GetDigits(element) => element,
        ElementKind::Record(element) => element,
        ElementKind::Dial(element) => element,
        ElementKind::Conference(element) => element,
        ElementKind::MultiPartyCall(element) => element,
        ElementKind::Stream(element) => element,
        ElementKind::Dtmf(element) => element,
        ElementKind::Redirect(element) => element,
        ElementKind::Hangup(element) => element,
        ElementKind::PreAnswer(element) => element,
        ElementKind::Message(element) => element,
    }
}

/// Where an element stands.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) place: Place,
    /// No element follows it in its document.
    pub(crate) is_last: bool,
}

/// What starting an element led to.
pub(crate) enum Flow {
    /// It is over already.
    Finished(Completion),
    /// Its children come next.
    Inside,
    /// It waits for something.
    Run(Box<dyn Activity>),
    /// Tones go out in the background.
    Tones(PlayId),
    /// The call is recorded in the background.
    Background(Box<Record>),
    /// Another document takes over.
    Transfer { kind: FetchKind, target: Target },
    /// The call ends.
    End { cause: HangupCause, outcome: InstructionOutcome, note: &'static str },
}

impl Flow {
    fn run(activity: impl Activity + 'static) -> Self {
        Self::Run(Box::new(activity))
    }
}
