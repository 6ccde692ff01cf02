//! The playground: a document, what the linter says of it while it is written, and a walk through it: the real machine with
//! a caller who presses the keys that are given (`call::walk`). Beside it an application's own answer URL, walked through the
//! same way. A document is heard, too: on a node whose Meta is simulated by the browser phone, which calls a number that answers
//! with it; elsewhere by the writer's own softphone, whose call runs it (`call::drafts`).

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::door::{Posted, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, html, respond};
use super::phone::{Named, endpoints};
use super::view;
use super::{App, Console};
use engine::answer::SigningKeys;
use engine::call::walk::{Bounds, CallParties, Caller, Job, Key, Step};
use engine::people::Token;
use machine::{CallUrls, MachineLimits};
use model::{Digit, Method, PhoneNumberId};
use xml;
use xml::ast::DocUrl;

/// A document is 100 KiB at most (`[answer].max_body_bytes`).
const SOURCE_MAX: usize = 100 << 10;
const STEPS_MAX: usize = 300;

/// Names and documents of the snippets, from the shortest on.
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

struct Found {
    rule: String,
    line: u32,
    message: String,
    hint: String,
    error: bool,
}

/// What happened at a moment of the walk.
struct Happened {
    at: String,
    kind: String,
    text: String,
    tone: &'static str,
}

#[derive(Template)]
#[template(path = "playground.html")]
struct Playground {
    page: Page,
    /// Where the caller's phone is, calling the number that answers with the document; empty: there is none.
    phone: String,
    /// The document waits for that call.
    waiting: bool,
    /// They may have their own softphone run it.
    may_call: bool,
    /// What that phone is to run, at once; empty: nothing.
    draft: String,
    /// It can't: there is no endpoint yet.
    no_endpoint: bool,
    endpoints: Vec<Named>,
    /// Whose choices the browser keeps.
    person: String,
    wrong: String,
    source: String,
    keys: String,
    snippets: Vec<Snippet>,
    findings: Vec<Found>,
    ok: bool,
    ran: bool,
    steps: Vec<Happened>,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let first = SNIPPETS.get(1).map_or("", |(_, source)| source);
    let source = visitor
        .query
        .some("source")
        .map_or_else(|| first.to_owned(), |_| visitor.query.raw("source").to_owned());
    shown(&console, &visitor, source, String::new(), Done::Nothing).await
}

/// What was done with the document.
enum Done {
    Nothing,
    /// It was walked through.
    Walked(Vec<Happened>),
    /// It waits for the browser phone's call.
    Waits,
    /// It waits for a call of their own phone, by this name.
    Kept(String),
    NoEndpoint,
    /// An endpoint was not made.
    NotMade(String),
}

pub(super) async fn run(State(console): App, posted: Posted) -> Response {
    let visitor = posted.visitor;
    // A walk asks the URLs that the document names, in the account's name.
    if !visitor.is_admin() {
        return super::page::forbidden(&console, &visitor);
    }
    let source: String = posted.form.raw("source").chars().take(SOURCE_MAX).collect();
    let keys = posted.form.get("keys").to_owned();
    let done = match (posted.form.get("do"), &console.drafts) {
        ("phone", Some(drafts)) => {
            drafts.put(&source);
            Done::Waits
        }
        ("call" | "make", _) => {
            call(&console, &visitor, &source, posted.form.get("do") == "make").await
        }
        _ => {
            let document = Some(source.as_bytes().to_vec());
            Done::Walked(
                walk(&console, &visitor, Walked { document, ..Walked::of(&console, &keys) }).await,
            )
        }
    };
    shown(&console, &visitor, source, keys, done).await
}

/// Keeps the document for a call of the writer's own phone. Where the account has no endpoint, they may have one made.
async fn call(console: &Console, visitor: &Visitor, source: &str, make: bool) -> Done {
    if endpoints(console, visitor).await.is_empty() {
        if !make {
            return Done::NoEndpoint;
        }
        if let Err(why) = super::phone::make_own(console, visitor).await {
            return Done::NotMade(why);
        }
    }
    let (user, api) = (&visitor.person.user, console.apis.api());
    let id = Token::fresh().reveal().to_owned();
    console.own_drafts.keep(&id, user.account.clone(), user.id, source, api.clock.now());
    Done::Kept(id)
}

async fn shown(
    console: &Console,
    visitor: &Visitor,
    source: String,
    keys: String,
    done: Done,
) -> Response {
    let lang = visitor.lang();
    let parsed = xml::parse(source.as_bytes(), None);
    let findings = parsed.findings.iter().map(|finding| Found {
        rule: finding.rule.clone(),
        line: finding.at.line,
        message: finding.message.clone(),
        hint: finding.hint.clone(),
        error: finding.rule.starts_with('E'),
    });
    html(&Playground {
        ok: parsed.is_ok(),
        findings: findings.collect(),
        snippets: SNIPPETS
            .iter()
            .map(|(name, source)| Snippet { name: lang.t(name).to_owned(), source })
            .collect(),
        phone: phone(console),
        may_call: visitor.is_admin(),
        endpoints: if matches!(done, Done::Kept(_)) {
            endpoints(console, visitor).await
        } else {
            Vec::new()
        },
        person: visitor.person.user.name.clone(),
        waiting: matches!(done, Done::Waits),
        no_endpoint: matches!(done, Done::NoEndpoint | Done::NotMade(_)),
        ran: matches!(done, Done::Walked(_)),
        draft: if let Done::Kept(id) = &done { id.clone() } else { String::new() },
        wrong: if let Done::NotMade(why) = &done { why.clone() } else { String::new() },
        steps: if let Done::Walked(steps) = done { steps } else { Vec::new() },
        page: visitor.page(console, lang.t("nav.playground"), "playground"),
        source,
        keys,
    })
}

/// `1w2,3`: keys of one collection, `w` is half a second, a comma begins the next collection.
fn typed(text: &str) -> std::collections::VecDeque<Vec<Key>> {
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

/// Where the caller's phone calls the number of the drafts.
fn phone(console: &Console) -> String {
    match (&console.simulated_phone, &console.drafts) {
        (Some(phone), Some(drafts)) => format!("{phone}?to={}", drafts.number),
        _ => String::new(),
    }
}

/// What is walked through, and as which call.
struct Walked {
    /// Instead of what the URL answers.
    document: Option<Vec<u8>>,
    url: DocUrl,
    method: Method,
    from: String,
    /// None: a number of the account's.
    to: Option<String>,
    caller_name: Option<String>,
    cta_payload: Option<String>,
    deeplink_payload: Option<String>,
    keys: std::collections::VecDeque<Vec<Key>>,
}

impl Walked {
    /// Nothing but the document is asked for: what it names elsewhere is asked as a call would, by the same rules.
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
            keys: typed(keys),
        }
    }
}

async fn walk(console: &Console, visitor: &Visitor, walked: Walked) -> Vec<Happened> {
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
    let Walked {
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
            limits: MachineLimits::default(),
        },
        keys: SigningKeys::of_main(tokens),
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
                steps.extend(happened(lang, &step));
            }
        })
        .await;
    steps
}

/// A step in words; the linter's findings stand elsewhere.
fn happened(lang: Lang, step: &Step) -> Option<Happened> {
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
    let at = lang.took(i64::try_from(step.at_ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
    Some(Happened { at, kind: word, text: said(&value), tone })
}

/// Fields that say nothing to a reader.
const SILENT: &[&str] = &[
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

/// The values of an event that say something, one behind the other.
fn said(value: &Value) -> String {
    let Some(object) = value.as_object() else { return String::new() };
    let mut words = Vec::new();
    for (name, value) in object {
        say(name, value, &mut words);
    }
    words.join(" · ")
}

fn say(name: &str, value: &Value, words: &mut Vec<String>) {
    if SILENT.contains(&name) {
        return;
    }
    match value {
        Value::String(text) if !text.is_empty() => words.push(text.clone()),
        Value::Number(number) => words.push(format!("{name} {number}")),
        Value::Bool(true) => words.push(name.to_owned()),
        Value::Array(items) => items.iter().for_each(|item| say(name, item, words)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| say(name, value, words)),
        Value::Null | Value::Bool(false) | Value::String(_) => {}
    }
}

/// What is asked for the document, beside the usual.
#[derive(Template)]
#[template(path = "debugger.html")]
struct Debugger {
    page: Page,
    form: Form,
    /// Numbers to call, and answer URLs to ask, each with what it is of.
    numbers: Vec<(String, String)>,
    urls: Vec<(String, String)>,
    ran: bool,
    steps: Vec<Happened>,
    wrong: String,
}

fn debugger(
    console: &Console,
    visitor: &Visitor,
    form: Form,
    steps: Option<Vec<Happened>>,
    wrong: &str,
) -> Response {
    let scope = visitor.person.scope();
    let tables = console.apis.api().gate.directory().tables().clone();
    let own =
        tables.numbers().filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id));
    let own: Vec<_> = own.take(200).collect();
    let numbers = own.iter().map(|n| (n.spec.number.to_string(), n.spec.alias.clone())).collect();
    // Of numbers that share one, the first is named.
    let mut urls: Vec<(String, String)> = Vec::new();
    for number in &own {
        let Some((url, _)) = &number.spec.answer else { continue };
        if !urls.iter().any(|(known, _)| **known == *url.0) {
            urls.push((
                url.0.to_string(),
                view::aliased(&number.spec.alias, number.spec.number.as_str()),
            ));
        }
    }
    let status = if wrong.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let page = visitor.page(console, visitor.lang().t("debugger.title"), "playground");
    let (ran, steps) = (steps.is_some(), steps.unwrap_or_default());
    respond(status, &Debugger { page, form, numbers, urls, ran, steps, wrong: wrong.to_owned() })
}

pub(super) async fn debug_page(State(console): App, visitor: Visitor) -> Response {
    let query = visitor.query.clone();
    debugger(&console, &visitor, query, None, "")
}

/// Further parameters a request may have.
const MORE_MAX: usize = 50;

/// The URL with further parameters, a `name=value` each line, in its query: they reach the application by either method.
///
/// # Errors
/// The line that is none.
fn with_more(url: &str, more: &str) -> Result<String, String> {
    let mut pairs = Vec::new();
    for line in more.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match pair.filter(|(name, _)| !name.is_empty() && pairs.len() < MORE_MAX) {
            Some(pair) => pairs.push(pair),
            None => return Err(line.chars().take(80).collect()),
        }
    }
    // What is no URL is told by whoever looks at it as one.
    let Ok(mut parsed) = url::Url::parse(url) else { return Ok(url.to_owned()) };
    if pairs.is_empty() {
        return Ok(url.to_owned());
    }
    parsed.query_pairs_mut().extend_pairs(pairs);
    Ok(parsed.into())
}

/// Walks through what an answer URL says.
pub(super) async fn debug(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    if !visitor.is_admin() {
        return super::page::forbidden(&console, &visitor);
    }
    let asked = with_more(form.get("url"), form.raw("more"));
    let asked = asked.map(|url| console.apis.api().placer.check_url(&url));
    let url = match asked {
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
    let usual = Walked::of(&console, form.get("keys"));
    let walked = Walked {
        url,
        method: if form.get("method") == "GET" { Method::Get } else { Method::Post },
        from: party("from").unwrap_or_else(|| usual.from.clone()),
        to: party("to"),
        caller_name: party("caller_name"),
        cta_payload: party("cta_payload"),
        deeplink_payload: party("deeplink_payload"),
        ..usual
    };
    let steps = walk(&console, &visitor, walked).await;
    debugger(&console, &visitor, form, Some(steps), "")
}

#[cfg(test)]
mod tests {
    use super::with_more;

    #[test]
    fn further_parameters_are_in_the_urls_query() {
        let url = "https://app.example.com/answer?shop=7";
        assert_eq!(with_more(url, " \n").as_deref(), Ok(url));
        let both = with_more(url, "tier = gold\r\n\nnote=a&b=c\n");
        assert_eq!(
            both.as_deref(),
            Ok("https://app.example.com/answer?shop=7&tier=gold&note=a%26b%3Dc")
        );
        assert_eq!(with_more("no url", "a=b").as_deref(), Ok("no url"));
        for bad in ["tier", "=gold"] {
            assert_eq!(with_more(url, bad), Err(bad.to_owned()));
        }
        assert!(with_more(url, &"a=b\n".repeat(51)).is_err());
    }
}
