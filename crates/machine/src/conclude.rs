//! The end of a call: its record, its hangup callback, and the reports that come before them.

use super::added;
use super::desk::Desk;
use super::element::add_participant;
use super::params::{self, Ending};
use super::stream;
use crate::contract::{LegNews, MediaOrder, Notice, NoticeKind, Output, Summary};
use model::HangupCause;

/// Ends the call: closes its media, stops everything that runs beside the document, and outputs its record.
///
/// A call that has ended already keeps its first cause and is not reported again.
pub(super) fn conclude(desk: &mut Desk, cause: HangupCause) {
    desk.media(MediaOrder::Close);
    desk.timers.clear_all();
    added::over(desk);
    // The end of the stream is reported before the end of the call.
    stream::stop(desk, None, stream::Stop::CallEnd);
    if !desk.set_concluded(cause) {
        return;
    }
    if desk.answered.is_none() {
        let status = params::final_status(desk, cause);
        add_participant::report_failed(desk, Some(status));
    }
    desk.news(LegNews::Ended { cause });
    let summary = Box::new(summary(desk, cause));
    desk.wish(Output::Concluded { summary });
}

/// Returns the record and the hangup callback of a call that ends now.
pub(super) fn summary(desk: &Desk, cause: HangupCause) -> Summary {
    let duration_secs = desk.seconds_since(desk.began());
    let bill_secs = desk.answered.map(|at| desk.seconds_since(at)).unwrap_or(0);
    let params = params::hangup(desk, &Ending { cause, at: desk.now, duration_secs, bill_secs });
    let (url, method) = desk.setup.urls.hangup.clone();
    Summary {
        cause,
        direction: desk.setup.direction,
        answered: desk.answered,
        ended: desk.now,
        duration_secs,
        bill_secs,
        meta_duration_secs: desk.termination.as_ref().and_then(|t| t.duration_secs),
        conference: desk.conference,
        hangup: Notice { kind: NoticeKind::Hangup, url, method, params },
    }
}
