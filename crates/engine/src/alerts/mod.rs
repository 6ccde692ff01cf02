//! Alerts of a node by webhook, e-mail and console, for operators without Prometheus.
//!
//! `rules` decides from the node's own metrics which alerts fire and which are resolved. `webhook`
//! and `mail` send the reports. A channel that does not answer delays no other one. The alerts that
//! have fired are kept in a file (`fired`). After a restart, such an alert is sent again if its
//! condition holds again; otherwise its end is sent.

mod fired;
mod mail;
mod rules;
mod settings;
mod webhook;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use mail::MailError;
pub use rules::{Alert, Report, Rule};
use rules::{Readings, Rules};
pub use settings::{AlertSettings, MailSecurity, MailSettings, WebhookTarget};

use crate::notices::{Notice, Notices};
use egress::Egress;
use model::{AuthId, Clock, NotificationTopic, Timestamp};

/// Maximum number of reports that wait for a channel. Each alert has two states, so a longer queue
/// means that the channel has been down for hours.
const WAITING_MAX: usize = 64;
/// Intervals between attempts to send a report, in seconds. After the last attempt the report is
/// dropped.
const PAUSES: [u64; 6] = [1, 5, 30, 120, 600, 1_800];

/// A report as it is sent.
#[derive(Clone, Debug)]
struct Message {
    id: Uuid,
    node: String,
    at: Timestamp,
    report: Report,
}

impl Message {
    fn event_type(&self) -> &'static str {
        if self.report.is_resolved { "alert.resolved" } else { "alert.fired" }
    }

    /// `critical`, `warning` or `resolved`, then the summary.
    fn title(&self) -> String {
        let alert = self.report.alert;
        let state = if self.report.is_resolved { "resolved" } else { alert.severity() };
        format!("{state}: {}", alert.summary())
    }

    /// The text of a notification.
    fn notice(&self) -> String {
        let (node, alert) = (&self.node, self.report.alert);
        match self.report.is_resolved {
            true => format!("Resolved on node {node}: the alert “{}”", alert.summary()),
            false => format!("Alert on node {node} ({}): {}", alert.severity(), alert.summary()),
        }
    }

    /// Returns the documentation page and section with the remedies.
    fn runbook(&self) -> String {
        format!("docs/operations.md#{}", self.report.alert.title().to_lowercase())
    }

    /// The JSON body for a webhook.
    fn json(&self) -> String {
        let Report { alert, since, ref detail, .. } = self.report;
        json!({
            "id": self.id, "type": self.event_type(), "createdAt": self.at.rfc3339(),
            "node": self.node,
            "data": {
                "alert": alert.as_str(), "severity": alert.severity(), "summary": alert.summary(),
                "detail": detail, "since": since.rfc3339(), "runbook": self.runbook(),
            },
        })
        .to_string()
    }
}

/// Sends reports somewhere.
trait Channel: Send + Sync + 'static {
    /// The channel's name in the log.
    fn name(&self) -> &'static str;
    /// Sends a message once. `attempt` counts from 1. The error names what the operator should
    /// check.
    fn send<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Result<(), String>>;
}

/// The dependencies of a node's alerts.
pub struct AlertParts {
    pub settings: AlertSettings,
    /// The name of the node in reports.
    pub node: String,
    pub clock: Clock,
    /// Returns the metrics of the node as Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The HTTP client for the webhook. The operator chose the URL, so it may have a private
    /// address.
    pub egress: Egress,
    pub notices: Notices,
    /// The account whose people see alerts in the console. `None` if several accounts share the
    /// node.
    pub owner: Option<AuthId>,
    /// The file with the alerts that have fired. Its folder exists.
    pub fired: PathBuf,
}

/// Evaluates the alerts of a node until `stop`.
///
/// # Errors
/// Fails if e-mail cannot be set up.
pub fn start(parts: AlertParts, stop: &CancellationToken) -> Result<(), MailError> {
    let AlertSettings { interval, enabled, webhook, mail } = parts.settings.clone();
    let mut channels: Vec<mpsc::Sender<Message>> = Vec::new();
    let mut open = |channel: Box<dyn Channel>| {
        let (to, from) = mpsc::channel(WAITING_MAX);
        tokio::spawn(deliver(channel, from, stop.clone()));
        channels.push(to);
    };
    if let Some(target) = webhook {
        let (egress, clock) = (parts.egress.clone(), parts.clock.clone());
        open(Box::new(webhook::Webhook::new(target, egress, clock)));
    }
    if let Some(settings) = mail {
        open(Box::new(mail::Mail::new(settings)?));
    }
    let rules = Rules::new(enabled, Readings::of(&(parts.metrics)()), fired::read(&parts.fired));
    tokio::spawn(evaluate(parts, rules, channels, interval, stop.clone()));
    Ok(())
}

/// Connects to the receivers of alerts without sending anything. Returns the kind and host of each
/// and, if it does not respond, the reason.
pub async fn check_channels(
    settings: &AlertSettings,
    egress: &Egress,
) -> Vec<(String, Result<(), String>)> {
    let mut checked = Vec::new();
    if let Some(target) = &settings.webhook {
        // The path of a URL may be a secret.
        let host = url::Url::parse(&target.url).ok();
        let host = host.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        checked.push((format!("webhook {host}"), webhook::check(target, egress).await));
    }
    if let Some(settings) = &settings.mail {
        let answered = match mail::Mail::new(settings.clone()) {
            Ok(mail) => mail.check().await,
            Err(e) => Err(e.to_string()),
        };
        checked.push((format!("mail server {}", settings.host), answered));
    }
    checked
}

async fn evaluate(
    parts: AlertParts,
    mut rules: Rules,
    channels: Vec<mpsc::Sender<Message>>,
    interval: Duration,
    stop: CancellationToken,
) {
    let begun = parts.clock.now();
    // Not `interval`, which would evaluate several times at once after a pause of the machine.
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let at = parts.clock.wall();
        let since_start = parts.clock.now().saturating_duration_since(begun);
        let reports = rules.evaluate(Readings::of(&(parts.metrics)()), since_start, at);
        if !reports.is_empty()
            && let Err(error) = fired::write(&parts.fired, &rules.fired()).await
        {
            let file = parts.fired.display();
            warn!(%file, %error, "fired alerts not saved; a restart forgets them");
        }
        for report in reports {
            let (alert, detail) = (report.alert.as_str(), report.detail.as_str());
            match report.is_resolved {
                false => warn!(alert, detail, severity = report.alert.severity(), "alert fired"),
                true => info!(alert, "alert resolved"),
            }
            let (id, node) = (Uuid::new_v4(), parts.node.clone());
            let message = Message { id, node, at, report };
            if let Some(owner) = &parts.owner {
                let text = message.notice();
                let (main, topic) = (owner.clone(), NotificationTopic::Alert);
                parts.notices.note(Notice::new(owner.clone(), main, topic, text));
            }
            for channel in &channels {
                if channel.try_send(message.clone()).is_err() {
                    warn!(alert, "alert dropped: queue of an unresponsive channel full");
                }
            }
        }
    }
}

/// Sends the messages of one channel in order. Each is sent again after `PAUSES`, and when another
/// one comes, so that a new alert does not wait for the pause of an old one.
async fn deliver(
    channel: Box<dyn Channel>,
    mut messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
) {
    let mut waiting = VecDeque::new();
    loop {
        let next = match waiting.pop_front() {
            Some(next) => Some(next),
            None => stop.run_until_cancelled(messages.recv()).await.flatten(),
        };
        let Some(message) = next else { return };
        let (alert, name) = (message.report.alert.as_str(), channel.name());
        let mut pauses = PAUSES.into_iter().peekable();
        for attempt in 1.. {
            let sent = stop.run_until_cancelled(channel.send(&message, attempt)).await;
            let Some(Err(error)) = sent else { break };
            let Some(pause) = pauses.peek() else {
                warn!(alert, channel = name, error, "alert not sent; giving up");
                break;
            };
            warn!(alert, channel = name, error, attempt, "alert not sent; retrying");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(*pause)) => drop(pauses.next()),
                Some(next) = messages.recv(), if waiting.len() < WAITING_MAX => waiting.push_back(next),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let report = Report {
            alert: Alert::WebhooksUnsigned,
            is_resolved: true,
            since: Timestamp::from_secs(60),
            detail: "3 webhooks".to_owned(),
        };
        let at = Timestamp::from_secs(900);
        Message { id: Uuid::nil(), node: "a1".to_owned(), at, report }
    }

    /// A channel that fails three times. It passes each attempt on.
    struct Failing(mpsc::UnboundedSender<u32>);

    impl Channel for Failing {
        fn name(&self) -> &'static str {
            "mail"
        }

        fn send<'a>(&'a self, _: &'a Message, attempt: u32) -> BoxFuture<'a, Result<(), String>> {
            let failed = self.0.send(attempt).is_err() || attempt <= 3;
            let sent = if failed { Err("no answer".to_owned()) } else { Ok(()) };
            Box::pin(std::future::ready(sent))
        }
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "a test reads what it has caused")]
    async fn a_new_alert_does_not_wait_for_the_pause_of_an_old_one() {
        let (attempts, mut attempted) = mpsc::unbounded_channel();
        let (queue, messages) = mpsc::channel(WAITING_MAX);
        let delivery = deliver(Box::new(Failing(attempts)), messages, CancellationToken::new());
        let delivery = tokio::spawn(delivery);
        // With the pauses alone, the fourth attempt would take 36 s.
        let attempts = async {
            for attempt in 1..=4 {
                queue.send(message()).await.unwrap();
                assert_eq!(attempted.recv().await, Some(attempt));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), attempts).await.unwrap();
        drop(queue);
        delivery.abort();
    }

    #[test]
    fn the_end_of_an_alert_is_reported_with_its_begin() {
        let message = message();
        let json: serde_json::Value = serde_json::from_str(&message.json()).unwrap();
        assert_eq!(json["type"], "alert.resolved");
        assert_eq!(json["data"]["since"], Timestamp::from_secs(60).rfc3339());
        assert!(message.title().starts_with("resolved: all webhooks"), "{}", message.title());
        assert!(message.notice().starts_with("Resolved on node a1: "), "{}", message.notice());
    }
}
