//! The end of a call: its record, its callbacks, and the clean-up after a panic.

use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, info};
use uuid::Uuid;

use super::super::live_call::LiveCall;
use super::super::record;
use super::super::services::Services;
use super::context::Context;
use super::phone;
use crate::admission::permission::Event;
use crate::notices::Notice;
use machine::{CallTime, GraphAction, Summary, orphan_summary};
use media::record::Format;
use model::{CallQuality, Direction, HangupCause, NotificationTopic};
use store::{CallEnd, CallStart, Conclusion, Farewell};

/// The contents of the call's record beside the machine's summary.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::call) struct Report {
    pub(super) remarks: record::Remarks,
    pub(super) findings: record::Findings,
    /// Whether the user's phone has rung.
    pub(super) rung: bool,
    /// Whether the phones of endpoints were dialled and nobody has answered since.
    #[serde(default)]
    pub(super) phones_unanswered: bool,
    /// Whether a document was transferred to the call over REST. The call's end is then reported
    /// like that of an independent call, even if another call dialled it.
    pub(super) transferred: bool,
    /// Duration of the request to the answer URL, in milliseconds.
    pub(super) answer_ms: Option<u64>,
    /// The first agent that wrote a document.
    pub(super) agent: Option<Uuid>,
}

impl Report {
    /// Adds a remark, once per call, if recordings use another format than requested.
    pub(super) fn note_format(&mut self, mp3: bool) {
        if let Some(why) =
            Format::substitution_remark(mp3).filter(|why| !self.remarks.contains(why))
        {
            info!(remark = why, "call remark");
            self.remarks.add(why.to_owned());
        }
    }

    /// Writes the call's record and sends its hangup callback. Does not wait for either. `farewell`
    /// is the pending request that ends the call at Meta.
    pub(super) fn conclude(
        self,
        call: &Context,
        at: CallTime,
        summary: &Summary,
        quality: Option<CallQuality>,
        farewell: Option<Farewell>,
    ) {
        let (services, setup) = (&call.services, &call.view.setup);
        let cause = summary.cause;
        info!(
            cause = cause.as_str(),
            duration_s = summary.duration_secs,
            at_ms = at.0,
            answer_url_ms = self.answer_ms,
            "call ended"
        );
        let missed = summary.answered.is_none() && (self.rung || cause == HangupCause::Rejected);
        if let Some(number) =
            call.number.as_ref().filter(|_| missed && setup.direction == Direction::Outbound)
        {
            services.permissions.note(number, &setup.to, Event::Unanswered);
        }
        note_missed(call, summary, self.phones_unanswered);
        if let Some(line) = &call.line {
            line.end(cause, phone::ended(summary));
        }
        record::count(summary);
        let Self { remarks, findings, transferred, phones_unanswered, answer_ms, agent, rung: _ } =
            self;
        let conclusion = Conclusion {
            start: CallStart {
                wacid: call.view.wacid().cloned(),
                ..CallStart::of(setup, &services.node_id)
            },
            end: CallEnd {
                quality,
                answer_ms,
                agent,
                ..CallEnd::of(summary, setup.started, remarks.kept(), findings.kept())
            },
            callbacks: match transferred {
                true => {
                    let hangup = Some(&summary.hangup).filter(|hangup| !hangup.url.0.is_empty());
                    let hangup = hangup.map(|hangup| call.callback(hangup.clone()));
                    let news = services.news_of_end(setup, summary, phones_unanswered);
                    hangup.into_iter().chain(news).collect()
                }
                false => services.reports(setup, summary, phones_unanswered),
            },
            farewell,
        };
        let concluded = services.store.calls().conclude(conclusion);
        let (outbox, keys) = (services.outbox.clone(), call.view.keys.clone());
        let work = async move {
            match concluded.await {
                Ok(concluded) => concluded
                    .callbacks
                    .into_iter()
                    .for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => tracing::error!(%error, "call record not written"),
            }
        };
        services.tasks.spawn(work.in_current_span());
    }
}

/// Notifies the people of the account of a missed call, or of one that nobody answered at the
/// phones.
fn note_missed(call: &Context, summary: &Summary, phones_unanswered: bool) {
    let (services, setup) = (&call.services, &call.view.setup);
    let unanswered = summary.answered.is_none() || phones_unanswered;
    if call.number.is_none() || setup.direction == Direction::Outbound || !unanswered {
        return;
    }
    let who = if setup.caller_name.is_empty() {
        format!("+{}", setup.from)
    } else {
        setup.caller_name.clone()
    };
    let text = match summary.answered {
        None => format!("Missed call from {who} to +{}", setup.to),
        Some(_) => format!("Nobody answered the phones for {who}, who called +{}", setup.to),
    };
    let (account, main) = (setup.account.clone(), setup.parent_account.clone());
    services.notices.note(Notice {
        number: Some(setup.to.clone()),
        user: Some(setup.from.clone()),
        conversation: services.news.get().and_then(|news| news.conversation(setup)),
        call: Some(call.id),
        ..Notice::new(account, main, NotificationTopic::MissedCall, text)
    });
}

/// Ends a call after its task panicked: closes its record, sends its hangup callback and ends it at
/// Meta.
pub(in crate::call) async fn end_after_fault(services: &Services, view: &LiveCall) {
    view.log.close();
    let setup = view.setup.clone();
    let lived = services.clock.now().saturating_duration_since(view.arrived);
    let summary = orphan_summary(
        setup,
        view.answered(),
        CallTime(0).after(lived),
        HangupCause::InternalError,
    );
    record::count(&summary);
    let remark =
        "an internal error ended the call: please report it with the node's log".to_owned();
    if let Some(line) = &view.line {
        line.end(summary.cause, phone::ended(&summary));
    }
    let farewell = Farewell { action: GraphAction::Terminate, due: services.clock.steady() };
    let conclusion = Conclusion {
        start: CallStart::of(&view.setup, &services.node_id),
        end: CallEnd::of(&summary, view.setup.started, vec![remark], Vec::new()),
        callbacks: services.reports(&view.setup, &summary, false),
        // `call::farewell` sends the request and retries it.
        farewell: view.wacid().is_some().then_some(farewell),
    };
    // The conversation was reported above.
    services.author.over(view.setup.call);
    match services.store.calls().conclude(conclusion).await {
        Ok(concluded) => {
            concluded
                .callbacks
                .into_iter()
                .for_each(|written| services.outbox.send(written, view.keys.clone()));
        }
        Err(error) => tracing::error!(%error, "call record not written"),
    }
}
