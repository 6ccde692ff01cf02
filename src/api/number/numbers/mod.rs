//! `/api/v1/phone-numbers/` (`number-api.md` §2): the account's numbers, what is set of them, and what is done with them.
//! How one looks is `shown`'s, what comes in is `given`'s; the doing is `numbers`'.

mod given;
mod shown;

use axum::response::Response;
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::{MetaWord, Trouble};
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{error, with_header};
use super::ask::{self, Asked, CHANGED, Fault};
use super::bodies::Taken;
use super::conversations::not_routed;
use crate::admission::book::{Configuration, Elsewhere, Number};
use crate::numbers::{Change, Checked, No, SignUp, Synced, UrlCheck};
use given::{Connect, Panel, Pin, Signed};
use machine::GraphOutcome;
use model::Secret;
use model::{E164, Method, Routing, Timestamp};
use shown::Shown;
pub(super) use shown::tag_of;
use store::{Agent, AgentChannel, Scope, StoreError};
use xml::ast::Finding;

const NONE: &str = "there is no such number";

const META_FAILED: Answer = Answer {
    status: 502,
    what: "Meta refused or failed",
    content: Content::Json(of::<error::OurBody<'static>>),
};
const CONFLICT: Answer = Answer {
    status: 409,
    what: "Not in its state",
    content: Content::Json(of::<error::OurBody<'static>>),
};
const RULE: Answer = Answer {
    status: 422,
    what: "Meta did not prove it",
    content: Content::Json(of::<error::OurBody<'static>>),
};

const fn row(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, id, summary, query: &[], body: None, answers: &[] }
}

const fn json(what: &'static str) -> Option<Body> {
    Some(Body { content_type: "application/json", what })
}

/// What `platformType` may be.
const PLATFORMS: &[&str] = &["CLOUD_API", "ON_PREMISE", "NOT_APPLICABLE"];

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[
    Taken::of::<Connect>("connectPhoneNumber"),
    Taken::of::<Signed>("signUpPhoneNumbers"),
    Taken::of::<Panel>("changePhoneNumber"),
    Taken::of::<Pin>("registerPhoneNumber"),
];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[
            Query {
                name: "q",
                what: "Part of the number, alias or verified name",
                kind: Kind::Text,
            },
            Query { name: "waba", what: "Only of this WABA", kind: Kind::Text },
            Query {
                name: "platformType",
                what: "Only of this platform",
                kind: Kind::Words(PLATFORMS),
            },
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query {
                name: "cursor",
                what: "Where the page before ended: its `next`",
                kind: Kind::Text,
            },
        ],
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<List>) }],
        ..row(
            "GET",
            "/api/v1/phone-numbers/",
            "phoneNumbers",
            "The account's numbers, newest first",
        )
    },
    Route {
        body: json(
            "displayName, number, whatsappPhoneNumberId, whatsappBusinessAccount, accessToken, active, assignedAgent",
        ),
        answers: &[
            Answer { status: 201, what: "Connected", content: Content::Json(of::<Shown>) },
            CONFLICT,
            RULE,
            META_FAILED,
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/",
            "connectPhoneNumber",
            "Connects a number by its credentials",
        )
    },
    Route {
        body: json(
            "code, redirectUri (where the window came back to, if it did), whatsappBusinessAccount, whatsappPhoneNumberId",
        ),
        answers: &[
            Answer { status: 201, what: "The numbers", content: Content::Json(of::<List>) },
            CONFLICT,
            RULE,
            META_FAILED,
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/signup/",
            "signUpPhoneNumbers",
            "Takes in what Meta's sign-up window gave",
        )
    },
    Route {
        answers: &[Answer {
            status: 200,
            what: "It, with its ETag",
            content: Content::Json(of::<Shown>),
        }],
        ..row("GET", "/api/v1/phone-numbers/{number}/", "phoneNumber", "One number")
    },
    Route {
        query: ask::DRY_RUN,
        body: json("The fields of the panel that change"),
        answers: &[
            Answer {
                status: 200,
                what: "It, changed, with its ETag",
                content: Content::Json(of::<Shown>),
            },
            CONFLICT,
            CHANGED,
            RULE,
            META_FAILED,
        ],
        ..row(
            "PATCH",
            "/api/v1/phone-numbers/{number}/",
            "changePhoneNumber",
            "Changes what is set of a number",
        )
    },
    Route {
        answers: &[
            Answer { status: 200, what: "What changed", content: Content::Json(of::<SyncShown>) },
            CONFLICT,
            RULE,
            META_FAILED,
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/{number}/sync/",
            "syncPhoneNumber",
            "Reads what Meta knows of a number",
        )
    },
    Route {
        body: json("pin: six digits"),
        answers: &[
            Answer {
                status: 202,
                what: "It is being registered",
                content: Content::Json(of::<Shown>),
            },
            CONFLICT,
            Answer {
                status: 429,
                what: "The last attempt failed a moment ago",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/{number}/register/",
            "registerPhoneNumber",
            "Registers a number with Meta's Cloud API",
        )
    },
    Route {
        answers: &[Answer {
            status: 200,
            what: "What each URL did",
            content: Content::Json(of::<Checks>),
        }],
        ..row(
            "POST",
            "/api/v1/phone-numbers/{number}/check-urls/",
            "checkUrls",
            "Asks a number's URLs once, as a call would",
        )
    },
    Route {
        answers: &[Answer {
            status: 200,
            what: "What would break",
            content: Content::Json(of::<Breaks>),
        }],
        ..row(
            "GET",
            "/api/v1/phone-numbers/{number}/disconnect/",
            "whatDisconnectBreaks",
            "What would break if the number were disconnected",
        )
    },
    Route {
        answers: &[
            Answer {
                status: 200,
                what: "It is out of service",
                content: Content::Json(of::<Shown>),
            },
            Answer {
                status: 204,
                what: "The same, and the main account's from now on",
                content: Content::Nothing,
            },
            CONFLICT,
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/{number}/disconnect/",
            "disconnectPhoneNumber",
            "Takes a number out of service; Meta is not touched",
        )
    },
    Route {
        answers: &[
            Answer { status: 200, what: "It serves again", content: Content::Json(of::<Shown>) },
            CONFLICT,
        ],
        ..row(
            "POST",
            "/api/v1/phone-numbers/{number}/reconnect/",
            "reconnectPhoneNumber",
            "Puts a number back into service, its URLs to be set anew",
        )
    },
];

/// A page of numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = PhoneNumbers)]
pub(super) struct List {
    items: Vec<Shown>,
    next: Option<String>,
}

/// What a sync changed.
#[derive(Serialize, ToSchema)]
#[schema(as = Synced)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncShown {
    /// Numbers that were not known before.
    added: Vec<String>,
    changed: Vec<FieldsChanged>,
    /// Numbers that Meta lists and that were not added.
    left_out: Vec<LeftOut>,
    /// Numbers whose calling settings Meta did not give: they are shown as they were.
    settings_unread: Vec<String>,
}

/// A number that was not added.
#[derive(Serialize, ToSchema)]
struct LeftOut {
    number: String,
    /// `taken`: it is connected elsewhere on this node; `too_many`: the account has as many as it may; `in_configuration`: the
    /// configuration file names it with another id of Meta's.
    reason: &'static str,
}

/// Fields of a number that are not as they were.
#[derive(Serialize, ToSchema)]
struct FieldsChanged {
    number: String,
    fields: Vec<&'static str>,
}

/// What each of a number's URLs did.
#[derive(Serialize, ToSchema)]
#[schema(as = UrlChecks)]
struct Checks {
    items: Vec<CheckShown>,
}

/// What one URL did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UrlCheck)]
struct CheckShown {
    /// The field that has it.
    field: &'static str,
    url: String,
    method: &'static str,
    ok: bool,
    /// Of the HTTP answer, where there was one.
    status: Option<u16>,
    latency_ms: u64,
    /// What went wrong.
    error: Option<String>,
    /// The linter's, of a document.
    #[schema(value_type = Vec<Finding>)]
    findings: Vec<Finding>,
}

/// What a disconnect breaks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DisconnectBreaks)]
struct Breaks {
    open_conversations: u64,
    live_calls: u32,
    /// What has to be set anew afterwards.
    cleared: Vec<&'static str>,
}

/// Hands a request to what it is about. What changes something goes on to its end, also where the client goes away meanwhile:
/// half of it may be done at Meta already.
pub(super) async fn serve(asked: Asked) -> Result<Response, Fault> {
    if *asked.method() == http::Method::GET {
        return carry_out(asked).await;
    }
    let numbers = asked.api().numbers.clone();
    let done = numbers.to_its_end(carry_out(asked)).await;
    done.unwrap_or_else(|| Err(ask::store("change a number")(StoreError::Closed)))
}

async fn carry_out(asked: Asked) -> Result<Response, Fault> {
    let path = asked.path.clone();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (asked.method().as_str(), path.as_slice()) {
        ("GET", [_]) => list(&asked).await,
        ("POST", [_]) => connect(asked).await,
        ("POST", [_, "signup"]) => sign_up(asked).await,
        (_, [_, number]) => one(asked, number).await,
        (_, [_, number, what]) => deed(asked, number, what).await,
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

async fn one(asked: Asked, number: &str) -> Result<Response, Fault> {
    let number = number_in(&asked, number)?;
    match *asked.method() {
        http::Method::PATCH => edit(asked, &number).await,
        _ => answer(&asked, &number, StatusCode::OK).await,
    }
}

async fn deed(asked: Asked, number: &str, what: &str) -> Result<Response, Fault> {
    let number = number_in(&asked, number)?;
    let numbers = asked.api().numbers.clone();
    let scope = asked.scope().clone();
    match (asked.method().as_str(), what) {
        ("POST", "sync") => synced(&numbers.sync_number(&scope, &number).await.map_err(fault)?),
        ("POST", "register") => register(asked, &number).await,
        ("POST", "check-urls") => {
            let checks = numbers.check_urls(&scope, &number).await.map_err(fault)?;
            Ok(ask::ok(&Checks { items: checks.into_iter().map(CheckShown::from).collect() }))
        }
        ("GET", "disconnect") => breaks(&asked, &number).await,
        ("POST", "disconnect") => {
            numbers.disconnect(&scope, &number).await.map_err(fault)?;
            // With its mapping its main account may be the only one that sees it.
            match answer(&asked, &number, StatusCode::OK).await {
                Ok(shown) => Ok(shown),
                Err(_) => Ok(ask::gone()),
            }
        }
        ("POST", "reconnect") => {
            numbers.reconnect(&scope, &number).await.map_err(fault)?;
            answer(&asked, &number, StatusCode::OK).await
        }
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

/// A number of the scope's, disconnected or not.
fn number_in(asked: &Asked, text: &str) -> Result<E164, Fault> {
    let number = ask::digits(&super::super::decoded(text)).ok_or_else(|| ask::missing(NONE))?;
    let there = asked.api().keeper.book().number(asked.scope(), &number).is_some();
    if there { Ok(number) } else { Err(ask::missing(NONE)) }
}

/// A number as it stands now, and its ETag.
async fn answer(asked: &Asked, number: &E164, status: StatusCode) -> Result<Response, Fault> {
    let (shown, tag) = {
        let api = asked.api();
        let book = api.keeper.book();
        let entry = book.number(asked.scope(), number).ok_or_else(|| ask::missing(NONE))?;
        (Shown::of(api, &book, entry), tag_of(entry))
    };
    let [shown] = counted(asked, [shown]).await?;
    Ok(with_header(error::body(status, &shown), header::ETAG, &tag))
}

/// With how many conversations of each are open, all by one question.
async fn counted<T: AsMut<[Shown]>>(asked: &Asked, mut shown: T) -> Result<T, Fault> {
    let numbers: Vec<E164> =
        shown.as_mut().iter().filter_map(|one| E164::parse(&one.number).ok()).collect();
    let open = asked.api().store.conversations().count_open(asked.scope(), &numbers).await;
    let open = open.map_err(ask::store("count open conversations"))?;
    for one in shown.as_mut() {
        one.open_conversations =
            E164::parse(&one.number).ok().and_then(|n| open.get(&n).copied()).unwrap_or_default();
    }
    Ok(shown)
}

async fn list(asked: &Asked) -> Result<Response, Fault> {
    let (items, next) = listed(asked)?;
    Ok(ask::ok(&List { items: counted(asked, items).await?, next }))
}

fn listed(asked: &Asked) -> Result<(Vec<Shown>, Option<String>), Fault> {
    let limit = asked.limit()?;
    let after = asked.cursor(read_cursor)?;
    check_platform(asked.value("platformType").unwrap_or_default())?;
    let api = asked.api();
    let book = api.keeper.book();
    let wanted = book.numbers(asked.scope()).into_iter().filter(|number| passes(asked, number));
    let behind =
        wanted.filter(|number| after.as_ref().is_none_or(|after| is_behind(number, after)));
    let items: Vec<&Number> = behind.take(limit as usize + 1).collect();
    let page = ask::Page::of(items, limit, |last| ask::place(last.set.added, &last.number));
    Ok((
        page.items.into_iter().map(|number| Shown::of(api, &book, number)).collect(),
        asked.next(page.next),
    ))
}

fn check_platform(word: &str) -> Result<(), Fault> {
    let word = word.trim();
    if word.is_empty() || PLATFORMS.contains(&word) {
        return Ok(());
    }
    Err(ask::bad("platformType", &format!("platformType must be one of {}", PLATFORMS.join(", "))))
}

/// Where a page ended: when that number was added, and the number.
fn read_cursor(text: &str) -> Option<(i64, E164)> {
    let (added, number) = ask::placed::<String>(text)?;
    Some((added.micros(), E164::parse(&number).ok()?))
}

/// Newest first, and of the same moment in the order of digits.
fn is_behind(number: &Number, (added, last): &(i64, E164)) -> bool {
    let at = number.set.added.micros();
    at < *added || (at == *added && number.number > *last)
}

fn passes(asked: &Asked, number: &Number) -> bool {
    let given = |name: &str| asked.value(name).map(str::trim).filter(|value| !value.is_empty());
    let told = &number.set.told;
    let has = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let found = |part: &str| {
        let digits = model::digits_of(part);
        (!digits.is_empty() && number.number.as_str().contains(&digits))
            || has(&number.set.alias, part)
            || has(&told.verified_name, part)
    };
    given("q").is_none_or(found)
        && given("waba")
            .is_none_or(|waba| number.waba.as_ref().is_some_and(|of| of.as_str() == waba))
        && given("platformType")
            .is_none_or(|platform| crate::numbers::platform_of(&number.set) == platform)
}

async fn connect(asked: Asked) -> Result<Response, Fault> {
    let (asked, given) = asked.json::<Connect>().await?;
    let agent = given.assigned_agent;
    let credentials = given.read()?;
    let scope = asked.scope().clone();
    if let Some(id) = agent {
        let found = asked
            .api()
            .store
            .agents()
            .get(&scope, id)
            .await
            .map_err(ask::store("read an agent"))?;
        // The number is the asker's own: no subaccount's agent serves it.
        let own = |agent: &Agent| {
            agent.account == *scope.auth_id() || agent.account == asked.main_account()
        };
        if !found.is_some_and(|agent| {
            own(&agent) && agent.spec.channels.contains(&AgentChannel::Whatsapp)
        }) {
            return Err(ask::bad(
                "assignedAgent",
                "there is no such agent with the whatsapp channel",
            ));
        }
    }
    let number = asked.api().numbers.connect(&scope, credentials).await.map_err(fault)?;
    let own = asked.api().keeper.book().number(&scope, &number).is_some();
    let entry = asked.api().gate.directory().tables().by_number(&number).filter(|_| own).cloned();
    if let (Some(id), Some(entry)) = (agent, entry) {
        let routed = asked.api().inbox.route_number(&entry, Routing::Agent(id), false).await;
        routed.map_err(super::conversations::not_routed)?;
    }
    answer(&asked, &number, StatusCode::CREATED).await
}

async fn sign_up(asked: Asked) -> Result<Response, Fault> {
    let (asked, given) = asked.json::<Signed>().await?;
    let given: SignUp = given.read()?;
    let scope = asked.scope().clone();
    let numbers = asked.api().numbers.sign_up(&scope, given).await.map_err(fault)?;
    let items: Vec<Shown> = {
        let book = asked.api().keeper.book();
        let entries = numbers.iter().filter_map(|number| book.number(&scope, number));
        entries.map(|entry| Shown::of(asked.api(), &book, entry)).collect()
    };
    let items = counted(&asked, items).await?;
    Ok(error::body(StatusCode::CREATED, &List { items, next: None }))
}

async fn edit(asked: Asked, number: &E164) -> Result<Response, Fault> {
    let (asked, panel) = asked.json::<Panel>().await?;
    let (seen, was) = {
        let book = asked.api().keeper.book();
        let entry = book.number(asked.scope(), number).ok_or_else(|| ask::missing(NONE))?;
        asked.matches(&tag_of(entry))?;
        (asked.is_conditional().then(|| entry.set.clone()), entry.set.configuration)
    };
    let change = panel.change();
    // What is written at Meta would make it ring again.
    if (change.calling_enabled == Some(true) || change.callback_permission.is_some())
        && let Some(no) = ask::out_of_service(&asked, number)
    {
        return Err(no);
    }
    let scope = asked.scope().clone();
    if asked.flag("dryRun")? == Some(true) {
        asked.api().numbers.judge(&scope, number, &change, seen.as_ref()).map_err(fault)?;
        return answer(&asked, number, StatusCode::OK).await;
    }
    somebody_takes_calls(&asked, number, was, &change).await?;
    let went = routing_of(&asked, number);
    asked.api().numbers.change(&scope, number, &change, seen.as_ref()).await.map_err(fault)?;
    if change.configuration.is_some() || change.webhook_url.is_some() {
        goes_by_its_type(&asked, number, (was, went), change.configuration.is_some()).await?;
    }
    if change.active == Some(false) {
        let entry = asked.api().gate.directory().tables().by_number(number).cloned();
        if let Some(entry) = entry {
            asked.api().inbox.quiet(&entry).await;
        }
    }
    answer(&asked, number, StatusCode::OK).await
}

/// Users see a call button once calling is on: where a number goes by its agent, that agent takes the calls.
async fn somebody_takes_calls(
    asked: &Asked,
    number: &E164,
    was: Configuration,
    change: &Change,
) -> Result<(), Fault> {
    let by_agent = change
        .configuration
        .as_deref()
        .map_or(was == Configuration::Agent, |named| named == "agent");
    if change.calling_enabled != Some(true) || !by_agent {
        return Ok(());
    }
    let agent = match routing_of(asked, number).and_then(|routing| routing.agent()) {
        // The main account's may serve its subaccounts' numbers.
        Some(id) => asked
            .api()
            .store
            .agents()
            .get(&Scope::of(asked.main_account()), id)
            .await
            .map_err(ask::store("read an agent"))?,
        None => None,
    };
    match agent.is_some_and(|agent| agent.spec.channels.contains(&AgentChannel::Voice)) {
        true => Ok(()),
        false => Err(ask::bad(
            "answerUrl",
            "nobody would take its calls: connect an agent with the channel voice first, or set answerUrl with \
             configurationType webhook",
        )),
    }
}

/// Where a number's new conversations go; none: it is not connected.
fn routing_of(asked: &Asked, number: &E164) -> Option<Routing> {
    let entry = asked.api().gate.directory().tables().by_number(number).cloned();
    entry.map(|entry| asked.api().inbox.routing_of(&entry))
}

/// Who names the configuration type, or gives a number its first URL, means it: where the number's messages went otherwise, all of them go by it
/// from the next on (S0.6, S0.24).
async fn goes_by_its_type(
    asked: &Asked,
    number: &E164,
    (was, went): (Configuration, Option<Routing>),
    is_named: bool,
) -> Result<(), Fault> {
    let is = asked
        .api()
        .keeper
        .book()
        .number(asked.scope(), number)
        .map(|entry| entry.set.configuration);
    let entry = asked.api().gate.directory().tables().by_number(number).cloned();
    let (Some(is), Some(entry)) = (is, entry) else { return Ok(()) };
    let goes = asked.api().inbox.routing_of(&entry);
    let to = match (is, goes) {
        // A URL alone takes nobody's agent away.
        _ if !is_named => goes,
        (Configuration::Webhook, Routing::Webhook(_))
        | (Configuration::Agent, Routing::Agent(_) | Routing::None) => goes,
        (Configuration::Webhook, Routing::Agent(_) | Routing::None) => Routing::Webhook(None),
        (Configuration::Agent, Routing::Webhook(_)) => Routing::None,
    };
    if is != was || went.is_some_and(|went| went != to) || goes != to {
        asked.api().inbox.route_number(&entry, to, true).await.map_err(not_routed)?;
    }
    Ok(())
}

async fn register(asked: Asked, number: &E164) -> Result<Response, Fault> {
    let (asked, Pin { pin }) = asked.json::<Pin>().await?;
    if let Some(no) = ask::out_of_service(&asked, number) {
        return Err(no);
    }
    let scope = asked.scope().clone();
    asked.api().numbers.register(&scope, number, Secret::new(pin)).await.map_err(fault)?;
    answer(&asked, number, StatusCode::ACCEPTED).await
}

async fn breaks(asked: &Asked, number: &E164) -> Result<Response, Fault> {
    let (shown, is_last) = {
        let api = asked.api();
        let book = api.keeper.book();
        let entry = book.number(asked.scope(), number).ok_or_else(|| ask::missing(NONE))?;
        let others = |waba| {
            book.numbers_of(waba).any(|other| other.number != *number && !other.set.disconnected)
        };
        (Shown::of(api, &book, entry), !entry.waba.as_ref().is_some_and(others))
    };
    let [Shown { open_conversations, live_calls, .. }] = counted(asked, [shown]).await?;
    let mut cleared = vec!["webhookUrl", "answerUrl", "callingEnabled"];
    // The mapping is the WABA's, and goes with the last of its numbers (S0.28).
    if is_last {
        cleared.push("account");
    }
    Ok(ask::ok(&Breaks { open_conversations, live_calls, cleared }))
}

pub(super) fn synced(synced: &Synced) -> Result<Response, Fault> {
    let changed = synced.changed.iter();
    let changed = changed.map(|(number, fields)| FieldsChanged {
        number: number.to_string(),
        fields: fields.clone(),
    });
    let left_out = synced.left_out.iter().map(|(number, why)| LeftOut {
        number: number.to_string(),
        reason: match why {
            Elsewhere::Taken => "taken",
            Elsewhere::TooMany(_) => "too_many",
            Elsewhere::InFile(_) => "in_configuration",
        },
    });
    Ok(ask::ok(&SyncShown {
        added: synced.added.iter().map(E164::to_string).collect(),
        changed: changed.collect(),
        left_out: left_out.collect(),
        settings_unread: synced.unread.iter().map(E164::to_string).collect(),
    }))
}

impl From<UrlCheck> for CheckShown {
    fn from(check: UrlCheck) -> Self {
        let ok = check.checked.is_ok();
        let (status, error, findings) = match check.checked {
            Checked::Answered { status, findings, .. } => (Some(status), None, findings),
            Checked::Failed { status, why } => (status, Some(why), Vec::new()),
        };
        let latency_ms = u64::try_from(check.latency.as_millis()).unwrap_or(u64::MAX);
        let (url, method) = (check.url.0.to_string(), check.method.as_str());
        Self { field: check.field, url, method, ok, status, latency_ms, error, findings }
    }
}

/// What to do where a number was to be deleted (S2.22).
pub(super) const NO_DELETE: &str = "numbers are never deleted here: POST …/disconnect/ takes one out of service, and Meta's console deletes it";

/// The answer to what was not done.
pub(super) fn fault(no: No) -> Fault {
    match no {
        No::Missing(what) => ask::missing(what),
        No::Bad { field, message } => ask::bad(field, &message),
        No::State { code, message } => ask::conflict(code, &message),
        No::Rule { code, message, field, meta: None } => ask::rule(code, &message, field),
        No::Rule { code, message, field, meta: Some((meta, details)) } => {
            let meta = Some(MetaWord { code: meta, message: details });
            of_meta(StatusCode::UNPROCESSABLE_ENTITY, code, message, field, meta)
        }
        No::Wait { seconds, message } => {
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_soon", &message, None);
            Box::new(with_header(answer, header::RETRY_AFTER, &seconds.to_string()))
        }
        No::Changed => ask::changed(),
        No::Meta(outcome) => refused(outcome),
        No::Store(error) => ask::store("change a number")(error),
    }
}

/// Meta's no, or its silence.
pub(super) fn refused(outcome: GraphOutcome) -> Fault {
    let (code, message, meta) = match outcome {
        GraphOutcome::Refused { code, details, .. } => {
            let message = format!("Meta refused: {details}");
            ("meta_refused", message, Some(MetaWord { code, message: details }))
        }
        GraphOutcome::RateLimited { code } => {
            let meta = Some(MetaWord { code, message: "asked too often".to_owned() });
            ("meta_busy", "Meta is asked too often; try again later".to_owned(), meta)
        }
        GraphOutcome::Done
        | GraphOutcome::Gone
        | GraphOutcome::ServerError { .. }
        | GraphOutcome::Timeout
        | GraphOutcome::Unreachable => (
            "meta_failed",
            "Meta did not answer as it should: nothing has changed here".to_owned(),
            None,
        ),
    };
    of_meta(StatusCode::BAD_GATEWAY, code, message, None, meta)
}

fn of_meta(
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<&'static str>,
    meta: Option<MetaWord>,
) -> Fault {
    Box::new(error::trouble(&Trouble {
        status,
        code,
        message,
        field,
        meta,
        next_request: None,
        next_call: None,
    }))
}

/// A word of a method, as the resource has it.
fn word(method: Method) -> &'static str {
    method.as_str()
}

/// A time that may not have come.
fn time(at: Option<Timestamp>) -> Option<super::Timestamp3339> {
    at.map(super::Timestamp3339)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_platform_is_one_of_three() {
        for fine in ["", " CLOUD_API ", "ON_PREMISE", "NOT_APPLICABLE"] {
            assert!(super::check_platform(fine).is_ok(), "{fine}");
        }
        assert_eq!(
            super::check_platform("zz").unwrap_err().status(),
            super::StatusCode::BAD_REQUEST
        );
    }
}
