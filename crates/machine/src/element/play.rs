//! `Play`: an audio file (`plivo-xml.md` §5.3).

use super::{Flow, play_item};
use crate::contract::{Sound, SoundItem};
use crate::desk::Desk;
use xml::ast::{DocUrl, Play};

pub(super) fn start(play: &Play, desk: &mut Desk) -> Flow {
    play_item(desk, item(play))
}

pub(super) fn sound(url: &DocUrl) -> Sound {
    Sound::File { url: url.clone() }
}

pub(super) fn item(play: &Play) -> SoundItem {
    SoundItem { sound: sound(&play.url), repeat: play.repeat }
}
