//! Checks of each number: its settings at Meta compared with those here, and its URLs.

use std::time::Duration;

use super::meta::describe;
use super::{Doctor, Finding};
use engine::admission::book::Number;
use engine::answer::Settings;
use engine::meta::numbers::{CallingSettings, PhoneNumber};
use engine::numbers::{Checked, UrlCheck, check_url, urls_of};
use model::PhoneNumberId;
use store::WebhookUse;

/// Latency in ms above which the user notices the silence before an answer.
const SLOW_MS: u128 = 1_500;

impl Doctor {
    pub(super) async fn numbers(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for number in self.book.all_numbers() {
            if number.set.disconnected {
                let what = "disconnected here: it takes and places no calls and messages";
                let fix = "reconnect it if this is not intended";
                findings.push(Finding::warning("number", what, fix).of(number.number.as_str()));
                continue;
            }
            if self.book.has_unreadable_token(number) {
                let what = "its token can't be read: it is sealed with another store.secret_key or key file";
                let fix = "restore that key and restart the node, or connect the number again with its token";
                findings.push(Finding::failed("number", what, fix).of(number.number.as_str()));
            }
            if let Some(fields) = self.overwritten.get(&number.number) {
                let what = format!(
                    "the configuration file has other values than those in force: {}",
                    fields.join(", ")
                );
                let fix = "the next start or reload applies the file's: change them there, or remove them from it";
                findings.push(Finding::warning("number", what, fix).of(number.number.as_str()));
            }
            // With the app's id, Graph is asked for the current state instead.
            if let Some(why) =
                number.set.at_meta.unsubscribed.as_ref().filter(|_| self.book.app().is_none())
            {
                let what = format!(
                    "Meta did not subscribe the app to its WABA, so its webhooks may not arrive: {why}"
                );
                findings.push(
                    Finding::failed("number", what, "run `offhook numbers sync` to try again")
                        .of(number.number.as_str()),
                );
            }
            findings.extend(
                dangling_routes(&self.dangling, number.first_id())
                    .map(|finding| finding.of(number.number.as_str())),
            );
            findings.extend(
                self.number(number)
                    .await
                    .into_iter()
                    .map(|finding| finding.of(number.number.as_str())),
            );
            findings.extend(self.urls(number).await);
        }
        findings
    }

    async fn number(&self, number: &Number) -> Vec<Finding> {
        let (id, token) = (&number.phone_number_id, self.book.token_of(number));
        let node = self.graph.number(id, token);
        let known = match node.details().await {
            Ok(known) => known,
            Err(outcome) => {
                let fix = "check the number's phone_number_id, its WABA and the token in Meta's dashboard";
                return vec![Finding::failed(
                    "number",
                    format!("Graph does not show it: {}", describe(&outcome)),
                    fix,
                )];
            }
        };
        let mut findings = vec![registered(number, &known)];
        findings.extend(status_findings(&known));
        if node.is_on_phone().await.unwrap_or_default() {
            let what = "the number is also used in the WhatsApp Business app (coexistence), where calls may ring";
            findings.push(Finding::warning(
                "number",
                what,
                "use a number that is only on the Cloud API",
            ));
        }
        match node.calling_settings().await {
            Ok(settings) => findings.extend(calling(number, settings)),
            Err(outcome) => {
                let what =
                    format!("Graph does not show its calling settings: {}", describe(&outcome));
                findings.push(Finding::failed(
                    "number",
                    what,
                    "the token needs whatsapp_business_management",
                ));
            }
        }
        findings
    }

    async fn urls(&self, number: &Number) -> Vec<Finding> {
        let (urls, signer) = urls_of(&self.book, number);
        let sip_host = self.config.public.base_url.as_ref().and_then(|url| url.host_str());
        let asked = urls.into_iter().map(|(field, (url, method))| {
            check_url(
                (&self.fetcher, sip_host.unwrap_or_default()),
                &self.clock,
                &number.number,
                field,
                (url, method),
                signer.clone(),
            )
        });
        let checked = futures_util::future::join_all(asked).await;
        let call = Duration::from_millis(self.config.answer.timeout_ms);
        let of =
            |check: UrlCheck| url(&check, call).of(format!("{} {}", number.number, check.field));
        checked.into_iter().map(of).collect()
    }
}

/// The finding about messages that are routed to a webhook which no longer exists.
pub(super) fn dangling_routes(
    dangling_routes: &[WebhookUse],
    number: &PhoneNumberId,
) -> Option<Finding> {
    let mut of = dangling_routes.iter().filter(|used| used.number == *number).peekable();
    of.peek()?;
    let what = match of.any(|used| used.default) {
        true => {
            "it is routed to a webhook that no longer exists, so its messages and events are not delivered"
        }
        false => {
            "some of its conversations are routed to a webhook that no longer exists, so their messages are not delivered"
        }
    };
    let fix = "restore the [[webhook]] under its name and account, or subscribe the number to another one with applyToExisting";
    Some(Finding::failed("routing", what, fix))
}

/// Checks registration and the id of the number.
pub(super) fn registered(number: &Number, known: &PhoneNumber) -> Finding {
    const IS: &str = "number";
    if known.number != number.number.as_str() {
        let fix = "correct phone_number_id or number; calls would reach the wrong one";
        return Finding::failed(
            IS,
            format!("Meta has the number {} under its id", known.number),
            fix,
        );
    }
    match known.platform_type.as_str() {
        "CLOUD_API" => Finding::ok(IS, "registered with the Cloud API"),
        other => {
            let fix = format!("`offhook numbers register {} --pin PIN`", number.number);
            let what = if other.is_empty() {
                "Meta does not say where it is registered".to_owned()
            } else {
                format!("its platform is {other}, not CLOUD_API")
            };
            Finding::failed(IS, what, fix)
        }
    }
}

/// Checks the status and quality rating.
pub(super) fn status_findings(known: &PhoneNumber) -> Vec<Finding> {
    let mut findings = Vec::new();
    match known.status.as_str() {
        "CONNECTED" | "" => {}
        bad @ ("BANNED" | "RESTRICTED" | "FLAGGED" | "OFFLINE" | "DISCONNECTED" | "DELETED") => {
            let fix = "see the number in Meta's WhatsApp Manager for the reason and how to appeal";
            findings.push(Finding::failed("number", format!("its status at Meta is {bad}"), fix));
        }
        other => {
            let what = format!("its status at Meta is {other}");
            findings.push(Finding::warning(
                "number",
                what,
                "see the number in Meta's WhatsApp Manager",
            ));
        }
    }
    if matches!(known.quality_rating.as_str(), "RED" | "YELLOW") {
        let what = format!("its quality rating is {}", known.quality_rating);
        let fix = "users block or report it; contact only users who want it";
        findings.push(Finding::warning("number", what, fix));
    }
    findings
}

/// Compares the calling settings at Meta with those here.
pub(super) fn calling(number: &Number, settings: CallingSettings) -> Vec<Finding> {
    const IS: &str = "number";
    let mut findings = Vec::new();
    let here = number.set.calling_enabled;
    findings.push(match (here, settings.enabled) {
        (true, Some(true)) => Finding::ok(IS, "calling is enabled here and at Meta"),
        (false, Some(false) | None) => {
            let fix = "PATCH callingEnabled with an answerUrl, or calling_enabled = true in the configuration";
            Finding::warning(IS, "calling is disabled here, so it takes no calls", fix)
        }
        (true, _) => {
            let fix = format!(
                "PATCH /api/v1/phone-numbers/{}/ {{\"callingEnabled\": true}}, which also enables it at Meta",
                number.number
            );
            Finding::failed(IS, "calling is enabled here but not at Meta, so users see no call button", fix)
        }
        (false, Some(true)) => {
            const WHAT: &str = "calling is enabled at Meta but not here";
            let fix = "disable it at Meta or enable it here; until then calls are rejected";
            // The node connects all numbers of a WABA; the operator may not want calls of this one.
            match number.in_file {
                true => Finding::failed(IS, WHAT, fix),
                false => Finding::warning(IS, WHAT, fix),
            }
        }
    });
    if settings.sip == Some(true) {
        let fix = "disable SIP in the number's calling settings at Meta; while it is on, calls do not arrive here";
        findings.push(Finding::failed(IS, "SIP is on at Meta", fix));
    }
    if settings.sdes == Some(true) {
        let fix = "set srtp_key_exchange_protocol to DTLS in the number's calling settings at Meta";
        findings.push(Finding::failed(
            IS,
            "media keys are exchanged by SDES at Meta, so calls have no audio; Offhook needs DTLS",
            fix,
        ));
    }
    if settings.restricted {
        findings.push(Finding::warning(
            IS,
            "Meta currently restricts its calling",
            "see the number in Meta's WhatsApp Manager",
        ));
    }
    findings
}

/// Returns how long a call waits for a document of this URL: `answer.timeout_ms`, or less if its
/// fragment shortens it.
fn timeout(url: &str, call: Duration) -> Duration {
    let (settings, _) = Settings::of(url.split_once('#').map(|(_, fragment)| fragment));
    // An attempt that timed out is repeated within the total time.
    let tries = settings.read.saturating_mul(settings.retries.saturating_add(1));
    call.min(settings.total).min(tries)
}

/// Evaluates the response of a URL. `call` is the time that a call waits for a document.
pub(super) fn url(check: &UrlCheck, call: Duration) -> Finding {
    const IS: &str = "url";
    let timeout = timeout(&check.url.0, call);
    if matches!(check.field, "answerUrl" | "fallbackUrl")
        && let Checked::Answered { .. } = &check.checked
        && check.latency > timeout
    {
        let (took, most) = (check.latency.as_millis(), timeout.as_millis());
        let what =
            format!("{}: responded in {took} ms, but a call waits only {most} ms", check.url.0);
        return Finding::failed(
            IS,
            what,
            "respond faster, or raise answer.timeout_ms (and rt, tt in the URL's fragment)",
        );
    }
    let (url, ms) = (&check.url.0, check.latency.as_millis());
    match &check.checked {
        Checked::Failed { why, .. } => {
            let what = format!("{url}: {why}");
            match check.field {
                "answerUrl" | "fallbackUrl" => {
                    let fix = "make it respond with 200 and a document; calls end without one";
                    Finding::failed(IS, what, fix)
                }
                _ => {
                    let fix = "make it respond with 200; callbacks are retried otherwise";
                    Finding::warning(IS, what, fix)
                }
            }
        }
        Checked::Answered { valid, findings, .. } if !valid || !findings.is_empty() => {
            let first = findings.first();
            let first = first.map(|f| format!("line {}: {}", f.at.line, f.message));
            let first = first.unwrap_or_default();
            const FIX: &str = "`offhook xml check URL` shows all findings";
            match valid {
                false => Finding::failed(IS, format!("{url}: not a valid document; {first}"), FIX),
                true => Finding::warning(IS, format!("{url}: {ms} ms, valid, but {first}"), FIX),
            }
        }
        Checked::Answered { .. } if ms > SLOW_MS => Finding::warning(
            IS,
            format!("{url}: valid, in {ms} ms"),
            "respond faster; the user waits for it in silence",
        ),
        Checked::Answered { status, .. } => Finding::ok(IS, format!("{url}: {status} in {ms} ms")),
    }
}
