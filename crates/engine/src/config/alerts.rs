//! `[alerts]`: the reports that a node sends to its operator.

use std::time::Duration;

use lettre::message::Mailbox;
use url::{Host, Url};

use super::forms::{Form, Invalid, customer_url, integer, list, one_of, text, text_of};
use super::section::{Context, Section, Strength};
use crate::alerts::{Alert, AlertSettings, MailSecurity, MailSettings, WebhookTarget};

/// Maximum number of recipients of an e-mail.
const RECIPIENTS_MAX: usize = 20;

const ALERTS: &[(&str, Alert)] = &[
    ("store_failing", Alert::StoreFailing),
    ("overloaded", Alert::Overloaded),
    ("webhooks_unsigned", Alert::WebhooksUnsigned),
    ("graph_failing", Alert::GraphFailing),
    ("answer_urls_failing", Alert::AnswerUrlsFailing),
    ("callbacks_lost", Alert::CallbacksLost),
    ("media_missing", Alert::MediaMissing),
    ("media_late", Alert::MediaLate),
    ("limit_reached", Alert::LimitReached),
    ("fleet_degraded", Alert::FleetDegraded),
];

pub(super) fn read(mut s: Section<'_>, cx: &Context<'_>, insecure: bool) -> AlertSettings {
    let url = s
        .key("url", customer_url(insecure), "The URL that alerts are posted to.")
        .absent("no webhook")
        .placed();
    let secret = s
        .secret("secret", "Signs the requests to `url` (`X-Offhook-Signature`).")
        .strength(Strength::KEY)
        .absent("required with `url`")
        .optional("it is needed as soon as `url` is set");
    let off = s
        .key("off", list("alerts", one_of(ALERTS)), "Alerts that are not reported.")
        .or(Vec::new());
    let interval = s
        .key("interval_seconds", integer(1..=3_600), "The time between two evaluations.")
        .or(60_u64);
    let doc = "The mail server that sends alerts.";
    let mail =
        s.optional_section("mail", doc).and_then(|mail| self::mail(mail.restart_as("alerts"), cx));
    s.finish();
    let webhook = url.and_then(|(url, at)| {
        let url = url?.0.to_string();
        if secret.is_none() {
            let hint = "set `secret` in [alerts]: the receiver checks X-Offhook-Signature with it";
            let why = cx.why_absent(&["alerts.secret"]);
            cx.fault(at, format!("`url` needs `secret`{why}"), hint);
        }
        Some(WebhookTarget { url, secret: secret? })
    });
    let enabled = Alert::ALL.into_iter().filter(|alert| !off.contains(alert)).collect();
    AlertSettings { interval: Duration::from_secs(interval), enabled, webhook, mail }
}

fn mail(mut s: Section<'_>, cx: &Context<'_>) -> Option<MailSettings> {
    let server = s
        .key(
            "server",
            server(),
            "`smtps://host` for TLS, `smtp://host` for STARTTLS, each with a port if it is not 465 \
             or 587. On this machine, `smtp://` is without TLS.",
        )
        .required("the mail server, like \"smtps://mail.example.com\"");
    let user = s.key("user", text(), "The user at the server.").absent("no login").placed();
    let password = s
        .secret("password", "The user's password.")
        .absent("required with `user`")
        .optional("it is needed as soon as `user` is set");
    let from = s
        .key("from", mailbox(), "The sender.")
        .required("the sender, like \"Offhook <offhook@example.com>\"");
    let to = s
        .key("to", list("mail addresses", mailbox()), "The recipients, at most 20.")
        .required("the recipients, like [\"operations@example.com\"]");
    s.finish();
    if let Some((to, at)) = &to
        && !(1..=RECIPIENTS_MAX).contains(&to.len())
    {
        cx.fault(at.clone(), format!("`to` has {} addresses", to.len()), "list 1 to 20 addresses");
    }
    if let (Some((_, at)), None) = (&user, &password) {
        let why = cx.why_absent(&["alerts.mail.password"]);
        let message = format!("`user` needs `password`{why}");
        cx.fault(at.clone(), message, "set `password` in [alerts.mail]");
    }
    let login = user.and_then(|(user, _)| Some((user, password?)));
    let ((host, port, security), _) = server?;
    Some(MailSettings { host, port, security, login, from: from?.0, to: to?.0 })
}

type Server = (String, u16, MailSecurity);

fn server() -> Form<'static, Server> {
    const HINT: &str = "write \"smtps://host\" or \"smtp://host:587\"";
    let read = |node: &_| {
        let bad = || Invalid::new("is not the URL of a mail server", HINT);
        let url = Url::parse(text_of(node)?.trim()).map_err(|_| bad())?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        if !is_plain {
            return Err(Invalid::new("has more than a scheme, a host and a port", HINT));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let is_here = host == "localhost"
            || Host::parse(host).is_ok_and(|host| match host {
                Host::Ipv4(ip) => ip.is_loopback(),
                Host::Ipv6(ip) => ip.is_loopback(),
                Host::Domain(_) => false,
            });
        let (port, security) = match url.scheme() {
            "smtps" => (465, MailSecurity::Tls),
            "smtp" if is_here => (25, MailSecurity::Loopback),
            "smtp" => (587, MailSecurity::StartTls),
            _ => return Err(bad()),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok((host, url.port().unwrap_or(port), security))
    };
    let show = |(host, port, security): &Server| {
        let scheme = if *security == MailSecurity::Tls { "smtps" } else { "smtp" };
        format!("\"{scheme}://{host}:{port}\"")
    };
    Form::new("URL", read, show)
}

fn mailbox() -> Form<'static, Mailbox> {
    let read = |node: &_| {
        text_of(node)?.trim().parse().map_err(|_| {
            let hint = "write \"name@example.com\" or \"Name <name@example.com>\"";
            Invalid::new("is not an email address", hint)
        })
    };
    Form::new("mail address", read, |mailbox: &Mailbox| format!("\"{mailbox}\""))
}

#[cfg(test)]
mod tests {
    use super::{ALERTS, Alert};

    #[test]
    fn names_in_the_configuration_are_those_of_reports() {
        let names: Vec<_> = ALERTS.iter().map(|(name, alert)| (*name, *alert)).collect();
        assert_eq!(names, Alert::ALL.map(|alert| (alert.as_str(), alert)));
    }
}
