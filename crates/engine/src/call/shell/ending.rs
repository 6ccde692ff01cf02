//! The end of a call: its record, its callbacks, and the clean-up after a panic.

use tracing::{Instrument as _, info};
use uuid::Uuid;

use super::super::registry::LiveCall;
use super::super::services::Services;
use super::super::{farewell, record};
use super::phone;
use super::{Media, Recognition, Shell};
use crate::admission::permission::Event;
use crate::notices::Notice;
use machine::{CallTime, GraphAction, Summary, orphan_summary};
use model::metric;
use model::{Direction, HangupCause, NotificationTopic};
use store::{CallEnd, CallStart, Conclusion, Farewell};

/// What the call's record says beside the machine's summary.
#[derive(Default)]
pub(super) struct Report {
    pub(super) remarks: Vec<String>,
    pub(super) findings: record::Findings,
    /// Whether a document was transferred to the call over REST. Its end is then reported as that
    /// of a call of its own, even if another call dialled it.
    pub(super) transferred: bool,
    /// How long the answer URL took, in milliseconds.
    pub(super) answer_ms: Option<u64>,
    /// The first agent that wrote a document.
    pub(super) agent: Option<Uuid>,
}

impl Shell {
    /// Writes the call's record and sends its hangup callback. Does not wait for either.
    pub(super) fn conclude(&mut self, at: CallTime, summary: Summary, last: bool) {
        let cause = summary.cause;
        info!(
            cause = cause.as_str(),
            duration_s = summary.duration_secs,
            at_ms = at.0,
            answer_url_ms = self.report.answer_ms,
            "call ended"
        );
        let missed =
            summary.answered.is_none() && (self.a_leg.rung || cause == HangupCause::Rejected);
        if let Some(number) = self
            .number
            .as_ref()
            .filter(|_| missed && self.view.setup.direction == Direction::Outbound)
        {
            self.services.permissions.note(number, &self.view.setup.to, Event::Unanswered);
        }
        self.note_missed(&summary);
        if let Some(line) = &self.line {
            line.end(cause, phone::ended(&summary));
        }
        let direction = self.view.setup.direction.as_str();
        metrics::counter!(metric::CALLS_TOTAL, "direction" => direction, "outcome" => record::outcome(&summary))
            .increment(1);
        let Report { remarks, findings, transferred, answer_ms, agent } =
            std::mem::take(&mut self.report);
        let ours = if last { farewell::SHORT_RETRY_TIME } else { farewell::RETRY_TIME };
        let due = self.services.clock.steady().plus(ours);
        let conclusion = Conclusion {
            start: CallStart::of(&self.view.setup, &self.services.node_id),
            end: CallEnd {
                quality: self.final_quality(),
                answer_ms,
                agent,
                ..CallEnd::of(&summary, self.view.setup.started, remarks, findings.kept())
            },
            callbacks: match transferred {
                true => {
                    let mut reports = vec![self.callback(summary.hangup.clone())];
                    reports.extend(self.services.news_of_end(&self.view.setup, &summary));
                    reports
                }
                false => self.services.reports(&self.view.setup, &summary),
            },
            farewell: self.requests.farewell.map(|action| Farewell { action, due }),
        };
        let concluded = self.services.store.calls().conclude(conclusion);
        let (outbox, keys) = (self.services.outbox.clone(), self.keys.clone());
        let work = async move {
            match concluded.await {
                Ok(concluded) => concluded
                    .callbacks
                    .into_iter()
                    .for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => tracing::error!(%error, "call record not written"),
            }
        };
        self.services.tasks.spawn(work.in_current_span());
    }

    /// Notifies the people of the account of a missed call.
    pub(super) fn note_missed(&self, summary: &Summary) {
        let setup = &self.view.setup;
        if self.number.is_none()
            || setup.direction == Direction::Outbound
            || summary.answered.is_some()
        {
            return;
        }
        let who = if setup.caller_name.is_empty() {
            format!("+{}", setup.from)
        } else {
            setup.caller_name.clone()
        };
        let text = format!("Missed call from {who} to +{}", setup.to);
        let (account, main) = (setup.account.clone(), setup.parent_account.clone());
        self.services.notices.note(Notice {
            number: Some(setup.to.clone()),
            user: Some(setup.from.clone()),
            conversation: self.services.news.get().and_then(|news| news.conversation(setup)),
            call: Some(self.call),
            ..Notice::new(account, main, NotificationTopic::MissedCall, text)
        });
    }

    pub(super) fn end(&mut self) {
        self.over = true;
        self.services.author.over(self.call);
        self.requests.cancel_fetches();
        self.recognition = Recognition::default();
        self.a_leg.captions = None;
        self.a_leg.media = Media::None;
        self.streaming = None;
    }
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
    let direction = summary.direction.as_str();
    metrics::counter!(metric::CALLS_TOTAL, "direction" => direction, "outcome" => record::outcome(&summary))
        .increment(1);
    let remark =
        "an internal error ended the call: please report it with the node's log".to_owned();
    if let Some(line) = &view.line {
        line.end(summary.cause, phone::ended(&summary));
    }
    let farewell = Farewell { action: GraphAction::Terminate, due: services.clock.steady() };
    let conclusion = Conclusion {
        start: CallStart::of(&view.setup, &services.node_id),
        end: CallEnd::of(&summary, view.setup.started, vec![remark], Vec::new()),
        callbacks: services.reports(&view.setup, &summary),
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
