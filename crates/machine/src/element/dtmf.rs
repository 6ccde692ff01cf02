//! `DTMF`: tones towards the user (`plivo-xml.md` §5.12).

use super::Flow;
use crate::contract::MediaOrder;
use crate::desk::Desk;
use xml::ast::Dtmf;

pub(super) fn start(dtmf: &Dtmf, desk: &mut Desk) -> Flow {
    let play = desk.next_play();
    desk.media(MediaOrder::SendDigits { play, digits: dtmf.digits.clone() });
    Flow::Tones { play, wait: !dtmf.asynchronous }
}
