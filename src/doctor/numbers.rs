//! Each number as Meta has it beside as it is set here, and each of its URLs.

use std::time::Duration;

use super::meta::said;
use super::{Doctor, Line};
use engine::admission::book::Number;
use engine::answer::Settings;
use engine::meta::numbers::{CallingSettings, PhoneNumber};
use engine::numbers::{Checked, UrlCheck, check_url, urls_of};
use model::PhoneNumberId;
use store::WebhookUse;

/// An answer URL slower than that is heard: the user waits in silence.
const SLOW_MS: u128 = 1_500;

impl Doctor {
    pub(super) async fn numbers(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for number in self.book.all_numbers() {
            if number.set.disconnected {
                let what = "disconnected here: nothing comes in or goes out";
                let fix = "reconnect it if that is not meant";
                lines.push(Line::warning("number", what, fix).of(number.number.as_str()));
                continue;
            }
            if self.book.is_shut(number) {
                let what = "its token can't be read: another store.secret_key, or another key file, sealed it";
                let fix = "put that key back and restart the node; or connect the number anew, with its token";
                lines.push(Line::failed("number", what, fix).of(number.number.as_str()));
            }
            // With our app's id Graph is asked how it is now.
            if let Some(why) =
                number.set.told.unsubscribed.as_ref().filter(|_| self.book.app().is_none())
            {
                let what = format!(
                    "Meta did not subscribe our app to its WABA: {why}; nothing of it may come here"
                );
                lines.push(
                    Line::failed("number", what, "`offhook numbers sync` tries once more")
                        .of(number.number.as_str()),
                );
            }
            lines.extend(
                missed(&self.missed, number.mail_id()).map(|line| line.of(number.number.as_str())),
            );
            lines.extend(
                self.number(number).await.into_iter().map(|line| line.of(number.number.as_str())),
            );
            lines.extend(self.urls(number).await);
        }
        lines
    }

    async fn number(&self, number: &Number) -> Vec<Line> {
        let (id, token) = (&number.phone_number_id, self.book.token_of(number));
        let known = match self.graph.phone_number(id, token).await {
            Ok(known) => known,
            Err(outcome) => {
                let fix = "check the number's phone_number_id, its WABA and the token in Meta's dashboard";
                return vec![Line::failed(
                    "number",
                    format!("Graph does not show it: {}", said(&outcome)),
                    fix,
                )];
            }
        };
        let mut lines = vec![registered(number, &known)];
        lines.extend(standing(&known));
        if self.graph.is_on_phone(id, token).await.unwrap_or_default() {
            let what = "the number is used in the WhatsApp Business app too (coexistence): calls may ring there";
            lines.push(Line::warning("number", what, "calls need a number of the Cloud API alone"));
        }
        match self.graph.calling_settings(id, token).await {
            Ok(settings) => lines.extend(calling(number, settings)),
            Err(outcome) => {
                let what = format!("Graph does not show its calling settings: {}", said(&outcome));
                lines.push(Line::failed(
                    "number",
                    what,
                    "the token needs whatsapp_business_management",
                ));
            }
        }
        lines
    }

    async fn urls(&self, number: &Number) -> Vec<Line> {
        let (urls, keys) = urls_of(&self.book, number);
        let asked = urls.into_iter().map(|(field, (url, method))| {
            check_url(
                &self.fetcher,
                &self.clock,
                &number.number,
                field,
                (url, method),
                keys.clone(),
            )
        });
        let checked = futures_util::future::join_all(asked).await;
        let call = Duration::from_millis(self.config.answer.timeout_ms);
        let of =
            |check: UrlCheck| url(&check, call).of(format!("{} {}", number.number, check.field));
        checked.into_iter().map(of).collect()
    }
}

/// What comes to a number, and goes to a webhook that is not there.
pub(super) fn missed(missed: &[WebhookUse], number: &PhoneNumberId) -> Option<Line> {
    let mut of = missed.iter().filter(|used| used.number == *number).peekable();
    of.peek()?;
    let what = match of.any(|used| used.default) {
        true => {
            "it goes to a webhook that is not there any more: its messages and events reach nobody"
        }
        false => {
            "conversations of it go to a webhook that is not there any more: their messages reach nobody"
        }
    };
    let fix = "put the [[webhook]] back under its name and account; or subscribe the number to another one, with applyToExisting";
    Some(Line::failed("routing", what, fix))
}

/// Registered, and as the number that it is here.
pub(super) fn registered(number: &Number, known: &PhoneNumber) -> Line {
    const IS: &str = "number";
    if known.number != number.number.as_str() {
        let fix = "correct phone_number_id or number: calls would come to the wrong one";
        return Line::failed(IS, format!("Meta has the number {} under its id", known.number), fix);
    }
    match known.platform_type.as_str() {
        "CLOUD_API" => Line::ok(IS, "registered with the Cloud API"),
        other => {
            let fix = format!("`offhook numbers register {} --pin PIN`", number.number);
            let what = if other.is_empty() {
                "Meta does not say where it is registered".to_owned()
            } else {
                format!("its platform is {other}, not CLOUD_API")
            };
            Line::failed(IS, what, fix)
        }
    }
}

/// Its state and quality.
pub(super) fn standing(known: &PhoneNumber) -> Vec<Line> {
    let mut lines = Vec::new();
    match known.status.as_str() {
        "CONNECTED" | "" => {}
        bad @ ("BANNED" | "RESTRICTED" | "FLAGGED" | "OFFLINE" | "DISCONNECTED" | "DELETED") => {
            let fix = "see the number in Meta's WhatsApp Manager: it says why, and how to appeal";
            lines.push(Line::failed("number", format!("its status at Meta is {bad}"), fix));
        }
        other => {
            let what = format!("its status at Meta is {other}");
            lines.push(Line::warning("number", what, "see the number in Meta's WhatsApp Manager"));
        }
    }
    if matches!(known.quality_rating.as_str(), "RED" | "YELLOW") {
        let what = format!("its quality rating is {}", known.quality_rating);
        let fix = "users block or report it: call and write only those who want it";
        lines.push(Line::warning("number", what, fix));
    }
    lines
}

/// Calling at Meta beside calling here.
pub(super) fn calling(number: &Number, settings: CallingSettings) -> Vec<Line> {
    const IS: &str = "number";
    let mut lines = Vec::new();
    let here = number.set.calling_enabled;
    lines.push(match (here, settings.enabled) {
        (true, Some(true)) => Line::ok(IS, "calling is enabled here and at Meta"),
        (false, Some(false) | None) => {
            let fix = "PATCH callingEnabled with an answerUrl, or calling_enabled = true in the configuration";
            Line::warning(IS, "calling is disabled here: it takes no calls", fix)
        }
        (true, _) => {
            let fix = format!(
                "PATCH /api/v1/phone-numbers/{}/ {{\"callingEnabled\": true}}: it is written at Meta too",
                number.number
            );
            Line::failed(IS, "calling is enabled here and not at Meta: users see no call button", fix)
        }
        (false, Some(true)) => {
            let fix = "disable it at Meta, or enable it here: users call, and are rejected";
            Line::failed(IS, "calling is enabled at Meta and not here", fix)
        }
    });
    if settings.sip == Some(true) {
        let fix = "switch SIP off in the number's calling settings at Meta: with it on, no call comes here";
        lines.push(Line::failed(IS, "SIP is on at Meta", fix));
    }
    if settings.sdes == Some(true) {
        let fix = "set srtp_key_exchange_protocol to DTLS in the number's calling settings at Meta";
        lines.push(Line::failed(
            IS,
            "media keys go by SDES at Meta: calls have no sound, Offhook speaks DTLS",
            fix,
        ));
    }
    if settings.restricted {
        lines.push(Line::warning(
            IS,
            "Meta restricts its calling just now",
            "see the number in Meta's WhatsApp Manager",
        ));
    }
    lines
}

/// How long a call waits for a document of this URL: `answer.timeout_ms`, less where its fragment says so.
fn patience(url: &str, call: Duration) -> Duration {
    let (settings, _) = Settings::of(url.split_once('#').map(|(_, fragment)| fragment));
    // A try that was given up is made again where its time is not over.
    let tries = settings.read.saturating_mul(settings.retries.saturating_add(1));
    call.min(settings.total).min(tries)
}

/// A URL by what it answered; `call`: how long a call waits for a document.
pub(super) fn url(check: &UrlCheck, call: Duration) -> Line {
    const IS: &str = "url";
    let patience = patience(&check.url.0, call);
    if matches!(check.field, "answerUrl" | "fallbackUrl")
        && let Checked::Answered { .. } = &check.checked
        && check.latency > patience
    {
        let (took, most) = (check.latency.as_millis(), patience.as_millis());
        let what = format!("{}: answered in {took} ms, and a call waits {most} ms", check.url.0);
        return Line::failed(
            IS,
            what,
            "answer faster, or raise answer.timeout_ms (and rt, tt in the URL's fragment)",
        );
    }
    let (url, ms) = (&check.url.0, check.latency.as_millis());
    match &check.checked {
        Checked::Failed { why, .. } => {
            let fix = match check.field {
                "answerUrl" | "fallbackUrl" => {
                    "make it answer 200 with a document: calls end without one"
                }
                _ => "make it answer 200: what it is told is sent again and again otherwise",
            };
            Line::failed(IS, format!("{url}: {why}"), fix)
        }
        Checked::Answered { valid: false, findings, .. } => {
            let first = findings
                .first()
                .map(|f| format!("line {}: {}", f.at.line, f.message))
                .unwrap_or_default();
            Line::failed(
                IS,
                format!("{url}: not a valid document; {first}"),
                "`offhook xml check URL` shows all findings",
            )
        }
        Checked::Answered { findings, .. } if !findings.is_empty() => {
            let what =
                format!("{url}: {ms} ms, valid, with {} remarks of the linter", findings.len());
            Line::warning(IS, what, "`offhook xml check URL` shows them")
        }
        Checked::Answered { .. } if ms > SLOW_MS => Line::warning(
            IS,
            format!("{url}: valid, in {ms} ms"),
            "answer faster: the user waits for it in silence",
        ),
        Checked::Answered { status, .. } => Line::ok(IS, format!("{url}: {status} in {ms} ms")),
    }
}
