//! The playground: an editor for a document with the findings of the linter, and a walk through it
//! with the real call machine and a caller who presses the given keys (`call::walk`). The debugger
//! walks through the answer URL of an application in the same way.
//!
//! A document can also be called: with the browser phone on a node with a simulated Meta, where the
//! playground number answers with it; elsewhere with the author's softphone, which places a call
//! that runs it (`call::drafts`).

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, html, respond};
use super::phone::{EndpointRow, endpoints};
use super::view;
use super::{App, Console};
use engine::answer::SigningKeys;
use engine::call::walk::{Bounds, CallParties, Caller, Event, Job, Key, Step};
use engine::people::Token;
use machine::{CallUrls, MachineLimits};
use model::{Digit, Method, PhoneNumberId};
use xml;
use xml::ast::DocUrl;

/// Maximum size of a document, as [`xml::MAX_BODY`].
const SOURCE_MAX: usize = 100 << 10;
const STEPS_MAX: usize = 300;

/// Text keys and documents of the examples, roughly from short to long.
pub(super) const SNIPPETS: &[(&str, &str)] = &[
    ("playground.snippet.greeting", include_str!("../../console/snippets/greeting.xml")),
    ("playground.snippet.menu", include_str!("../../console/snippets/menu.xml")),
    ("playground.snippet.voicemail", include_str!("../../console/snippets/voicemail.xml")),
    ("playground.snippet.transfer", include_str!("../../console/snippets/transfer.xml")),
    ("playground.snippet.conference", include_str!("../../console/snippets/conference.xml")),
    ("playground.snippet.speech", include_str!("../../console/snippets/speech.xml")),
    ("playground.snippet.play", include_str!("../../console/snippets/play.xml")),
    ("playground.snippet.digits", include_str!("../../console/snippets/digits.xml")),
    ("playground.snippet.preanswer", include_str!("../../console/snippets/preanswer.xml")),
    ("playground.snippet.whatsapp", include_str!("../../console/snippets/whatsapp.xml")),
    ("playground.snippet.stream", include_str!("../../console/snippets/stream.xml")),
    ("playground.snippet.multiparty", include_str!("../../console/snippets/multiparty.xml")),
    ("playground.snippet.reject", include_str!("../../console/snippets/refuse.xml")),
];

struct Snippet {
    name: String,
    source: &'static str,
}

struct FindingRow {
    rule: String,
    line: u32,
    message: String,
    hint: String,
    error: bool,
}

/// A step of a walk.
struct StepRow {
    at: String,
    kind: String,
    text: String,
    tone: &'static str,
}

#[derive(Template)]
#[template(path = "playground.html")]
struct PlaygroundPage {
    page: Page,
    /// URL of the browser phone that calls the playground number. Empty if absent.
    phone: String,
    /// Whether the document waits for a call of the browser phone.
    waiting: bool,
    /// Whether the visitor may run the document.
    may_run: bool,
    /// Id of the document that the softphone runs immediately. Empty if there is none.
    draft: String,
    /// Whether the account lacks an endpoint for the softphone.
    no_endpoint: bool,
    endpoints: Vec<EndpointRow>,
    /// Sign-in name, under which the browser stores settings.
    person: String,
    wrong: String,
    source: String,
    keys: String,
    snippets: Vec<Snippet>,
    findings: Vec<FindingRow>,
    ok: bool,
    ran: bool,
    steps: Vec<StepRow>,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let first = SNIPPETS.get(1).map_or("", |(_, source)| source);
    let source = visitor
        .query
        .some("source")
        .map_or_else(|| first.to_owned(), |_| visitor.query.raw("source").to_owned());
    render_page(&console, &visitor, source, String::new(), Outcome::None).await
}

/// Result of an action on the document.
enum Outcome {
    None,
    /// The document was run. Contains the steps.
    Walked(Vec<StepRow>),
    /// The document waits for a call of the browser phone.
    Waiting,
    /// The document waits for a call of the softphone, under this id.
    Kept(String),
    NoEndpoint,
    /// The endpoint could not be created.
    EndpointFailed(String),
}

pub(super) async fn run(State(console): App, submitted: SubmittedForm) -> Response {
    let visitor = submitted.visitor;
    // A walk sends requests to URLs of the document on behalf of the account.
    if !visitor.is_admin() {
        return super::page::forbidden(&console, &visitor);
    }
    let source: String = submitted.form.raw("source").chars().take(SOURCE_MAX).collect();
    let keys = submitted.form.get("keys").to_owned();
    let done = match (submitted.form.get("do"), &console.drafts) {
        ("phone", Some(drafts)) => {
            drafts.put(&source);
            Outcome::Waiting
        }
        ("call" | "make", _) => {
            call(&console, &visitor, &source, submitted.form.get("do") == "make").await
        }
        _ => {
            let document = Some(source.as_bytes().to_vec());
            Outcome::Walked(
                walk(
                    &console,
                    &visitor,
                    WalkRequest { document, ..WalkRequest::of(&console, &keys) },
                )
                .await,
            )
        }
    };
    render_page(&console, &visitor, source, keys, done).await
}

/// Keeps the document for a call of the author's softphone. `make` creates an endpoint if the
/// account has none.
async fn call(console: &Console, visitor: &Visitor, source: &str, make: bool) -> Outcome {
    if endpoints(console, visitor).await.is_empty() {
        if !make {
            return Outcome::NoEndpoint;
        }
        if let Err(why) = super::phone::create_own(console, visitor).await {
            return Outcome::EndpointFailed(why);
        }
    }
    let (user, api) = (&visitor.person.user, console.apis.api());
    let id = Token::fresh().reveal().to_owned();
    console.own_drafts.keep(&id, user.account.clone(), user.id, source, api.clock.now());
    Outcome::Kept(id)
}

async fn render_page(
    console: &Console,
    visitor: &Visitor,
    source: String,
    keys: String,
    done: Outcome,
) -> Response {
    let lang = visitor.lang();
    let parsed = xml::parse(source.as_bytes(), None);
    let parsed = console.apis.api().without_own_findings(parsed);
    let findings = parsed.findings.iter().map(|finding| FindingRow {
        rule: finding.rule.clone(),
        line: finding.at.line,
        message: finding.message.clone(),
        hint: finding.hint.clone(),
        error: finding.rule.starts_with('E'),
    });
    html(&PlaygroundPage {
        ok: parsed.is_ok(),
        findings: findings.collect(),
        snippets: SNIPPETS
            .iter()
            .map(|(name, source)| Snippet { name: lang.t(name).to_owned(), source })
            .collect(),
        phone: phone(console),
        may_run: visitor.is_admin(),
        endpoints: if matches!(done, Outcome::Kept(_)) {
            endpoints(console, visitor).await
        } else {
            Vec::new()
        },
        person: visitor.person.user.name.clone(),
        waiting: matches!(done, Outcome::Waiting),
        no_endpoint: matches!(done, Outcome::NoEndpoint | Outcome::EndpointFailed(_)),
        ran: matches!(done, Outcome::Walked(_)),
        draft: if let Outcome::Kept(id) = &done { id.clone() } else { String::new() },
        wrong: if let Outcome::EndpointFailed(why) = &done { why.clone() } else { String::new() },
        steps: if let Outcome::Walked(steps) = done { steps } else { Vec::new() },
        page: visitor.page(console, lang.t("nav.playground"), "playground"),
        source,
        keys,
    })
}

/// Parses keys such as `1w2,3`: `w` waits half a second, a comma starts the next collection.
fn parse_keys(text: &str) -> std::collections::VecDeque<Vec<Key>> {
    let mut collections = std::collections::VecDeque::new();
    for part in text.split(',').take(50) {
        let (mut keys, mut after) = (Vec::new(), Duration::ZERO);
        for c in part.chars().take(64) {
            if c.eq_ignore_ascii_case(&'w') {
                after += Duration::from_millis(500);
            } else if let Ok(digit) = Digit::try_from(c) {
                keys.push(Key { after: std::mem::take(&mut after), digit });
            }
        }
        collections.push_back(keys);
    }
    collections
}

/// URL of the browser phone, set to call the playground number.
fn phone(console: &Console) -> String {
    match (&console.simulated_phone, &console.drafts) {
        (Some(phone), Some(drafts)) => format!("{phone}?to={}", drafts.number),
        _ => String::new(),
    }
}

/// Input of a walk: the document or URL, and the parameters of the call.
struct WalkRequest {
    /// The document, which is used instead of fetching the URL.
    document: Option<Vec<u8>>,
    url: DocUrl,
    method: Method,
    from: String,
    /// The called number. `None` selects a number of the account.
    to: Option<String>,
    caller_name: Option<String>,
    cta_payload: Option<String>,
    deeplink_payload: Option<String>,
    keys: std::collections::VecDeque<Vec<Key>>,
}

impl WalkRequest {
    /// Runs a walk of a document. URLs in it are requested by the same rules as in a call.
    fn of(console: &Console, keys: &str) -> Self {
        Self {
            document: None,
            url: DocUrl(format!("{}/console/playground/", console.apis.api().base_url).into()),
            method: Method::Post,
            from: "919812345678".to_owned(),
            to: None,
            caller_name: None,
            cta_payload: None,
            deeplink_payload: None,
            keys: parse_keys(keys),
        }
    }
}

async fn walk(console: &Console, visitor: &Visitor, walked: WalkRequest) -> Vec<StepRow> {
    let Some(walker) = &console.walker else { return Vec::new() };
    let (api, user) = (console.apis.api(), &visitor.person.user);
    let scope = visitor.person.scope();
    let tables = api.gate.directory().tables().clone();
    let number = tables
        .numbers()
        .find(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id))
        .cloned();
    let tokens =
        tables.account(&user.account).map(|account| account.tokens.clone()).unwrap_or_default();
    let WalkRequest {
        document,
        url,
        method,
        from,
        to,
        caller_name,
        cta_payload,
        deeplink_payload,
        keys,
    } = walked;
    let job = Job {
        calling: CallParties {
            from,
            to: to.unwrap_or_else(|| {
                number
                    .as_ref()
                    .map_or_else(|| "918000000000".to_owned(), |n| n.spec.number.to_string())
            }),
            caller_name: caller_name.unwrap_or_else(|| user.full_name.clone()),
            cta_payload,
            deeplink_payload,
            phone_number_id: number
                .as_ref()
                .map_or_else(|| PhoneNumberId::from("0"), |n| n.spec.phone_number_id.clone()),
            account: user.account.clone(),
            parent_account: user.main_account.clone(),
            urls: CallUrls {
                answer: url.clone(),
                answer_method: method,
                fallback: None,
                hangup: (url, Method::Post),
            },
            limits: MachineLimits {
                allow_plain_urls: api.placer.allows_http(),
                can_transcribe: api.recordings.can_transcribe(),
                ..MachineLimits::default()
            },
        },
        keys: SigningKeys::of_main(&tokens),
        max_body: SOURCE_MAX,
        document: document.map(Into::into),
        caller: Caller { keys, ..Caller::default() },
        callbacks: false,
        bounds: Bounds { documents: 10, time: Duration::from_secs(10) },
    };
    let lang = visitor.lang();
    let mut steps = Vec::new();
    walker
        .walk(job, |step| {
            if steps.len() < STEPS_MAX {
                steps.extend(step_row(lang, &step));
            }
        })
        .await;
    steps
}

/// Describes a step. `None` for findings, which are shown elsewhere.
fn step_row(lang: Lang, step: &Step) -> Option<StepRow> {
    let value = serde_json::to_value(step).ok()?;
    let kind = value.get("event")?.as_str()?.to_owned();
    if matches!(kind.as_str(), "finding" | "file") {
        return None;
    }
    let word =
        lang.find(&format!("walk.{kind}")).map_or_else(|| kind.replace('_', " "), str::to_owned);
    let tone = match kind.as_str() {
        "answered" => "good",
        "no_document" => "bad",
        "ended" | "hung_up" => "missed",
        _ => "",
    };
    let at = lang.duration(i64::try_from(step.at_ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
    let mut text = summary(&value);
    if let Step { event: Event::Callback { kind, method, url, sent: false, .. }, .. } = step {
        let not_sent = lang.t("walk.not_sent");
        text = match url.is_empty() {
            true => format!("{} · {not_sent}", kind.as_str()),
            false => format!("{} · {not_sent}: {} {url}", kind.as_str(), method.as_str()),
        };
    }
    Some(StepRow { at, kind: word, text, tone })
}

/// Fields of an event that are not shown.
const HIDDEN_FIELDS: &[&str] = &[
    "event",
    "at_ms",
    "params",
    "source",
    "times",
    "ms",
    "bytes",
    "code",
    "endless",
    "signed_by",
    "duration_s",
    "voice",
    "language",
];

/// The relevant values of an event, separated by dots.
fn summary(value: &Value) -> String {
    let Some(object) = value.as_object() else { return String::new() };
    let mut words = Vec::new();
    for (name, value) in object {
        append_values(name, value, &mut words);
    }
    words.join(" · ")
}

fn append_values(name: &str, value: &Value, words: &mut Vec<String>) {
    if HIDDEN_FIELDS.contains(&name) {
        return;
    }
    match value {
        Value::String(text) if !text.is_empty() => words.push(text.clone()),
        Value::Number(number) => words.push(format!("{name} {number}")),
        Value::Bool(true) => words.push(name.to_owned()),
        Value::Array(items) => items.iter().for_each(|item| append_values(name, item, words)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| append_values(name, value, words))
        }
        Value::Null | Value::Bool(false) | Value::String(_) => {}
    }
}

/// The debugger page.
#[derive(Template)]
#[template(path = "debugger.html")]
struct DebuggerPage {
    page: Page,
    form: Form,
    /// Numbers of the account and their answer URLs, each with a label.
    numbers: Vec<(String, String)>,
    urls: Vec<(String, String)>,
    ran: bool,
    steps: Vec<StepRow>,
    wrong: String,
}

fn debugger(
    console: &Console,
    visitor: &Visitor,
    form: Form,
    steps: Option<Vec<StepRow>>,
    wrong: &str,
) -> Response {
    let scope = visitor.person.scope();
    let tables = console.apis.api().gate.directory().tables().clone();
    let own =
        tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let own: Vec<_> = own.take(200).collect();
    let numbers = own.iter().map(|n| (n.spec.number.to_string(), n.spec.alias.clone())).collect();
    // If several numbers share a URL, the first is named.
    let mut urls: Vec<(String, String)> = Vec::new();
    for number in &own {
        let Some((url, _)) = &number.spec.answer else { continue };
        if !urls.iter().any(|(known, _)| **known == *url.0) {
            urls.push((
                url.0.to_string(),
                view::with_alias(&number.spec.alias, number.spec.number.as_str()),
            ));
        }
    }
    let status = if wrong.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let page = visitor.page(console, visitor.lang().t("debugger.title"), "playground");
    let (ran, steps) = (steps.is_some(), steps.unwrap_or_default());
    respond(
        status,
        &DebuggerPage { page, form, numbers, urls, ran, steps, wrong: wrong.to_owned() },
    )
}

pub(super) async fn debug_page(State(console): App, visitor: Visitor) -> Response {
    if !visitor.is_admin() {
        return super::page::forbidden(&console, &visitor);
    }
    let query = visitor.query.clone();
    debugger(&console, &visitor, query, None, "")
}

/// Maximum number of additional parameters.
const PARAMETERS_MAX: usize = 50;

/// Adds parameters, one `name=value` per line, to the query of a URL. The application gets them
/// there with either method.
///
/// # Errors
/// Returns the first invalid line.
fn with_parameters(url: &str, more: &str) -> Result<String, String> {
    let mut pairs = Vec::new();
    for line in more.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match pair.filter(|(name, _)| !name.is_empty() && pairs.len() < PARAMETERS_MAX) {
            Some(pair) => pairs.push(pair),
            None => return Err(line.chars().take(80).collect()),
        }
    }
    // The caller validates the URL.
    let Ok(mut parsed) = url::Url::parse(url) else { return Ok(url.to_owned()) };
    if pairs.is_empty() {
        return Ok(url.to_owned());
    }
    parsed.query_pairs_mut().extend_pairs(pairs);
    Ok(parsed.into())
}

/// Walks through the document of an answer URL.
pub(super) async fn debug(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if !visitor.is_admin() {
        return super::page::forbidden(&console, &visitor);
    }
    let url = with_parameters(form.get("url"), form.raw("more"));
    let url = url.map(|url| console.apis.api().placer.check_url(&url));
    let url = match url {
        Ok(Ok(url)) => url,
        Ok(Err(why)) => {
            let wrong = visitor.lang().with("webhooks.invalid_url", &[&why]);
            return debugger(&console, &visitor, form, None, &wrong);
        }
        Err(line) => {
            let wrong = visitor.lang().with("debugger.bad_more", &[&line]);
            return debugger(&console, &visitor, form, None, &wrong);
        }
    };
    let party = |name: &str| {
        form.some(name)
            .map(|text| text.chars().filter(|c| !c.is_control()).take(128).collect::<String>())
    };
    let default_walk = WalkRequest::of(&console, form.get("keys"));
    let walked = WalkRequest {
        url,
        method: if form.get("method") == "GET" { Method::Get } else { Method::Post },
        from: party("from").unwrap_or_else(|| default_walk.from.clone()),
        to: party("to"),
        caller_name: party("caller_name"),
        cta_payload: party("cta_payload"),
        deeplink_payload: party("deeplink_payload"),
        ..default_walk
    };
    let steps = walk(&console, &visitor, walked).await;
    debugger(&console, &visitor, form, Some(steps), "")
}

#[cfg(test)]
mod tests {
    use super::with_parameters;

    #[test]
    fn further_parameters_are_in_the_urls_query() {
        let url = "https://app.example.com/answer?shop=7";
        assert_eq!(with_parameters(url, " \n").as_deref(), Ok(url));
        let both = with_parameters(url, "tier = gold\r\n\nnote=a&b=c\n");
        assert_eq!(
            both.as_deref(),
            Ok("https://app.example.com/answer?shop=7&tier=gold&note=a%26b%3Dc")
        );
        assert_eq!(with_parameters("no url", "a=b").as_deref(), Ok("no url"));
        for bad in ["tier", "=gold"] {
            assert_eq!(with_parameters(url, bad), Err(bad.to_owned()));
        }
        assert!(with_parameters(url, &"a=b\n".repeat(51)).is_err());
    }
}
