//! `Play`: plays an audio file (docs/reference/xml.md#play).

use super::{At, Flow, Instruction, playback, pre_answer};
use crate::activity::{Env, Readiness};
use crate::contract::Sound;
use crate::sounds;
use xml::ast::Play;

impl Instruction for Play {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        playback::start(env, sounds::play_item(self))
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn skip_reason(&self, _: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::NO_AUDIO)
    }

    fn sounds(&self) -> Vec<Sound> {
        vec![sounds::file_sound(&self.url)]
    }
}
