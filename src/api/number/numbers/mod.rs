//! `/api/v1/phone-numbers/`: the business numbers of an account: their settings, connecting them,
//! and their state at Meta.

mod body;
mod view;

use std::collections::HashMap;

use axum::response::Response;
use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::live::LiveStatus;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::request::{ApiRequest, NO_NUMBER, parse_number, parse_position, position};
use super::response::{Page, accepted, created, no_content, ok, with_etag};
use super::route::{CHANGED, CURSOR, DRY_RUN, Handler, LIMIT, META_FAILED, Route, error, handler};
use body::{ConnectBody, DisconnectBody, PinBody, SettingsBody, SignUpBody};
use engine::admission::book::{Configuration, ConnectRefusal, Number};
use engine::numbers::{Change, Checked, SignUp, SyncReport, UrlCheck};
use model::Secret;
use model::{E164, Role, Routing};
use store::{Agent, AgentChannel, Scope, StoreError};
use view::{NumberView, tag};
use xml::ast::Finding;

const COLLECTION: &str = "/api/v1/phone-numbers/";
const ITEM: &str = "/api/v1/phone-numbers/{number}/";
const DISCONNECT: &str = "/api/v1/phone-numbers/{number}/disconnect/";
/// The values of `platformType`.
const PLATFORMS: &[&str] = &["CLOUD_API", "ON_PREMISE", "NOT_APPLICABLE"];

/// Maximum length of an id of a WABA, as in the configuration.
const WABA_DIGITS_MAX: usize = 64;

const CONFLICT: ResponseSpec = error(409, "The state of the number does not allow it");
const NOT_VERIFIED: ResponseSpec = error(422, "Meta did not confirm the credentials or the number");

/// Makes a [`Handler`] whose future completes even if the client disconnects, because a part of the
/// change may already have been made at Meta.
macro_rules! change_handler {
    ($function:path) => {
        |request| run_to_completion(request, handler!($function))
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "phoneNumbers", "List phone numbers, newest first")
            .query(&[
                QueryParameter::text("q", "Part of the number, alias or verified name"),
                QueryParameter::text("waba", "Only numbers of this WABA"),
                QueryParameter::one_of(
                    "platformType",
                    PLATFORMS,
                    "Only numbers on this platform of Meta's",
                ),
                QueryParameter::flag("hidden", "true: only hidden numbers"),
                LIMIT,
                CURSOR,
            ])
            .responses(&[ResponseSpec::json::<NumberList>(200, "A page of phone numbers")]),
    },
    Route {
        role: Role::Owner,
        handler: change_handler!(connect),
        operation: Operation::post(
            COLLECTION,
            "connectPhoneNumber",
            "Connect a phone number by its credentials",
        )
        .body(RequestBody::json::<ConnectBody>(
            "displayName, number, whatsappPhoneNumberId, whatsappBusinessAccount, accessToken, \
             active, assignedAgent",
        ))
        .responses(&[
            ResponseSpec::json::<NumberView>(201, "The connected number"),
            CONFLICT,
            NOT_VERIFIED,
            META_FAILED,
        ]),
    },
    Route {
        role: Role::Owner,
        handler: change_handler!(sign_up),
        operation: Operation::post(
            "/api/v1/phone-numbers/signup/",
            "signUpPhoneNumbers",
            "Connect the phone numbers of Meta's embedded sign-up",
        )
        .body(RequestBody::json::<SignUpBody>(
            "code, redirectUri (the URL that the sign-up window returned to, if it did), \
             whatsappBusinessAccount, whatsappPhoneNumberId",
        ))
        .responses(&[
            ResponseSpec::json::<NumberList>(201, "The connected numbers"),
            CONFLICT,
            NOT_VERIFIED,
            META_FAILED,
        ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(ITEM, "phoneNumber", "Retrieve a phone number")
            .responses(&[ResponseSpec::json::<NumberView>(200, "The number with its ETag")]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(change),
        operation: Operation::patch(
            ITEM,
            "changePhoneNumber",
            "Change the settings of a phone number",
        )
        .query(DRY_RUN)
        .body(RequestBody::json::<SettingsBody>("The settings that change"))
        .responses(&[
            ResponseSpec::json::<NumberView>(200, "The changed number with its ETag"),
            CONFLICT,
            CHANGED,
            NOT_VERIFIED,
            META_FAILED,
        ]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(sync),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/sync/",
            "syncPhoneNumber",
            "Read the name, platform, quality and settings of a phone number at Meta",
        )
        .responses(&[
            ResponseSpec::json::<SyncResult>(200, "What changed"),
            CONFLICT,
            NOT_VERIFIED,
            META_FAILED,
        ]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(register),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/register/",
            "registerPhoneNumber",
            "Register a phone number with Meta's Cloud API",
        )
        .body(RequestBody::json::<PinBody>("pin: six digits"))
        .responses(&[
            ResponseSpec::json::<NumberView>(202, "The registration has started"),
            CONFLICT,
            error(429, "The previous attempt failed a moment ago"),
        ]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(check_urls),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/check-urls/",
            "checkUrls",
            "Request each URL of a phone number once, as a call would",
        )
        .responses(&[ResponseSpec::json::<UrlChecks>(200, "The result for each URL")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(disconnect_effects),
        operation: Operation::get(
            DISCONNECT,
            "whatDisconnectBreaks",
            "Retrieve the effects that a disconnect of the phone number would have",
        )
        .responses(&[ResponseSpec::json::<DisconnectBreaks>(200, "The effects of a disconnect")]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(disconnect),
        operation: Operation::post(
            DISCONNECT,
            "disconnectPhoneNumber",
            "Take a phone number out of service; nothing changes at Meta",
        )
        .body(RequestBody::json::<DisconnectBody>("optionally hide (also leave it out of lists)"))
        .responses(&[
            ResponseSpec::json::<NumberView>(200, "The number is out of service"),
            ResponseSpec::empty(
                204,
                "The number is out of service and belongs to the main account again",
            ),
            CONFLICT,
        ]),
    },
    Route {
        role: Role::Admin,
        handler: change_handler!(reconnect),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/reconnect/",
            "reconnectPhoneNumber",
            "Put a phone number back into service; its URLs have to be set again",
        )
        .responses(&[ResponseSpec::json::<NumberView>(200, "The number is in service"), CONFLICT]),
    },
];

/// A page of phone numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = PhoneNumbers)]
struct NumberList {
    items: Vec<NumberView>,
    next: Option<String>,
}

/// The changes made by a synchronization with Meta.
#[derive(Serialize, ToSchema)]
#[schema(as = Synced)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncResult {
    /// Numbers that were added.
    added: Vec<String>,
    changed: Vec<FieldsChanged>,
    /// Numbers that Meta lists but that could not be added.
    left_out: Vec<LeftOut>,
    /// Numbers for which Meta returned no calling settings, so that the previous ones are shown.
    settings_unread: Vec<String>,
}

/// A number that could not be added.
#[derive(Serialize, ToSchema)]
struct LeftOut {
    number: String,
    /// `taken`: another account of this node has the number; `too_many`: the account has the
    /// maximum number of phone numbers; `in_configuration`: the number is in the configuration file
    /// with another id of Meta's.
    reason: &'static str,
}

/// The fields of a number that changed.
#[derive(Serialize, ToSchema)]
struct FieldsChanged {
    number: String,
    fields: Vec<&'static str>,
}

/// The results of requesting the URLs of a number.
#[derive(Serialize, ToSchema)]
struct UrlChecks {
    items: Vec<UrlCheckResult>,
}

/// The result of requesting a URL.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UrlCheck)]
struct UrlCheckResult {
    /// The field with the URL.
    field: &'static str,
    url: String,
    method: &'static str,
    ok: bool,
    /// The status of the response, if there was one.
    status: Option<u16>,
    latency_ms: u64,
    /// The error, if the URL could not be used.
    error: Option<String>,
    /// The findings of the linter, if the response was a document.
    #[schema(value_type = Vec<Finding>)]
    findings: Vec<Finding>,
}

/// The effects of a disconnect.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DisconnectBreaks {
    open_conversations: u64,
    live_calls: u32,
    /// The fields that would be cleared.
    cleared: Vec<&'static str>,
}

fn run_to_completion(
    request: ApiRequest,
    handler: Handler,
) -> BoxFuture<'static, Result<Response, ApiError>> {
    let numbers = request.api().numbers.clone();
    Box::pin(async move {
        // `None` if the runtime is being shut down.
        let response = numbers.run_to_completion(handler(request)).await;
        response.unwrap_or_else(|| Err(ApiError::store("change a number")(StoreError::Closed)))
    })
}

/// Returns the business number in the path, connected or not. A number outside the scope does not
/// exist.
fn number(request: &ApiRequest) -> Result<E164, ApiError> {
    let number = parse_number(request.parameter("number")).ok_or(ApiError::NotFound(NO_NUMBER))?;
    match request.api().keeper.book().number(request.scope(), &number).is_some() {
        true => Ok(number),
        false => Err(ApiError::NotFound(NO_NUMBER)),
    }
}

/// The current state of a number, and its ETag.
async fn view(request: &ApiRequest, number: &E164) -> Result<(NumberView, String), ApiError> {
    let (view, tag) = {
        let api = request.api();
        let book = api.keeper.book();
        let entry = book.number(request.scope(), number).ok_or(ApiError::NotFound(NO_NUMBER))?;
        (NumberView::new(api, &book, entry), tag(entry))
    };
    let [view] = with_counts(request, [view]).await?;
    Ok((view, tag))
}

/// 200 with the current state of a number.
async fn ok_view(request: &ApiRequest, number: &E164) -> Result<Response, ApiError> {
    let (view, tag) = view(request, number).await?;
    Ok(with_etag(ok(&view), &tag))
}

/// Adds the numbers of live calls, on all nodes, and of open conversations, with one query for all
/// views.
async fn with_counts<T: AsMut<[NumberView]>>(
    request: &ApiRequest,
    mut views: T,
) -> Result<T, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let numbers: Vec<E164> =
        views.as_mut().iter().filter_map(|view| E164::parse(&view.number).ok()).collect();
    let open = api.store.conversations().count_open(scope, &numbers).await;
    let open = open.map_err(ApiError::store("count open conversations"))?;
    let live = api.live.list_all(scope).await.calls;
    let mut live_calls: HashMap<&str, u32> = HashMap::new();
    for call in live.iter().filter(|call| call.status != LiveStatus::Queued) {
        for number in [&call.from, &call.to] {
            *live_calls.entry(number).or_default() += 1;
        }
    }
    for view in views.as_mut() {
        let count = E164::parse(&view.number).ok().and_then(|number| open.get(&number).copied());
        view.open_conversations = count.unwrap_or_default();
        view.live_calls = live_calls.get(view.number.as_str()).copied().unwrap_or_default();
    }
    Ok(views)
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let (items, next) = page(&request)?;
    Ok(ok(&NumberList { items: with_counts(&request, items).await?, next }))
}

fn page(request: &ApiRequest) -> Result<(Vec<NumberView>, Option<String>), ApiError> {
    let limit = request.limit()?;
    let after = request.cursor(parse_cursor)?;
    check_waba(request.query("waba").unwrap_or_default())?;
    let api = request.api();
    let book = api.keeper.book();
    let selected =
        book.numbers(request.scope()).into_iter().filter(|number| matches(request, number));
    let rest = selected.filter(|number| after.as_ref().is_none_or(|after| is_after(number, after)));
    let items: Vec<&Number> = rest.take(limit as usize + 1).collect();
    let page = Page::new(items, limit, |last| position(last.set.added, &last.number));
    let items = page.items.into_iter().map(|number| NumberView::new(api, &book, number));
    Ok((items.collect(), request.next_cursor(page.next)))
}

fn check_waba(id: &str) -> Result<(), ApiError> {
    let id = id.trim();
    let is_id = id.len() <= WABA_DIGITS_MAX && id.bytes().all(|byte| byte.is_ascii_digit());
    let message = "waba must be the id of a WhatsApp Business Account: up to 64 digits";
    if is_id { Ok(()) } else { Err(ApiError::bad_value("waba", message)) }
}

/// The last number of the previous page: the time at which it was added, in microseconds, and the
/// number.
fn parse_cursor(text: &str) -> Option<(i64, E164)> {
    let (added, number) = parse_position::<String>(text)?;
    Some((added.micros(), E164::parse(&number).ok()?))
}

/// Whether a number follows another one in the list: newest first, then in the order of digits.
fn is_after(number: &Number, (added, last): &(i64, E164)) -> bool {
    let at = number.set.added.micros();
    at < *added || (at == *added && number.number > *last)
}

/// Whether the filters of a request select a number.
fn matches(request: &ApiRequest, number: &Number) -> bool {
    let given = |name: &str| request.query(name).map(str::trim).filter(|value| !value.is_empty());
    let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let is_found = |part: &str| {
        let digits = model::digits_of(part);
        (!digits.is_empty() && number.number.as_str().contains(&digits))
            || contains(&number.set.alias, part)
            || contains(&number.set.at_meta.verified_name, part)
    };
    number.set.hidden == matches!(given("hidden"), Some("true" | "1"))
        && given("q").is_none_or(is_found)
        && given("waba")
            .is_none_or(|waba| number.waba.as_ref().is_some_and(|of| of.as_str() == waba))
        && given("platformType")
            .is_none_or(|platform| engine::numbers::platform_of(&number.set) == platform)
}

async fn connect(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: ConnectBody = request.json().await?;
    let agent = body.assigned_agent;
    let credentials = body.validate()?;
    let (api, scope) = (request.api(), request.scope());
    if let Some(id) = agent {
        let found = api.store.agents().get(scope, id).await;
        let found = found.map_err(ApiError::store("read an agent"))?;
        // The number will belong to the account that asks: agents of subaccounts can't serve it.
        let is_own = |agent: &Agent| {
            agent.account == *scope.auth_id() || agent.account == request.main_account()
        };
        let is_suitable =
            |agent: Agent| is_own(&agent) && agent.spec.channels.contains(&AgentChannel::Whatsapp);
        if !found.is_some_and(is_suitable) {
            let message = "no such agent with the channel whatsapp";
            return Err(ApiError::bad_value("assignedAgent", message));
        }
    }
    let number = api.numbers.connections().connect(scope, credentials).await?;
    let is_own = api.keeper.book().number(scope, &number).is_some();
    let entry = api.gate.directory().tables().by_number(&number).filter(|_| is_own).cloned();
    if let (Some(id), Some(entry)) = (agent, entry) {
        api.inbox.router().route_number(&entry, Routing::Agent(id), false).await?;
    }
    let (view, tag) = view(&request, &number).await?;
    Ok(with_etag(created(&view), &tag))
}

async fn sign_up(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: SignUpBody = request.json().await?;
    let sign_up: SignUp = body.validate()?;
    let (api, scope) = (request.api(), request.scope());
    let numbers = api.numbers.sign_ups().connect(scope, sign_up).await?;
    let items: Vec<NumberView> = {
        let book = api.keeper.book();
        let entries = numbers.iter().filter_map(|number| book.number(scope, number));
        entries.map(|entry| NumberView::new(api, &book, entry)).collect()
    };
    let items = with_counts(&request, items).await?;
    Ok(created(&NumberList { items, next: None }))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    ok_view(&request, &number(&request)?).await
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = &number(&request)?;
    let body: SettingsBody = request.json().await?;
    let (api, scope) = (request.api(), request.scope());
    let (seen, configuration) = {
        let book = api.keeper.book();
        let entry = book.number(scope, number).ok_or(ApiError::NotFound(NO_NUMBER))?;
        request.check_if_match(&tag(entry))?;
        (request.is_conditional().then(|| entry.set.clone()), entry.set.configuration)
    };
    let change = body.change();
    // These are written at Meta, where a disconnected number would ring again.
    if (change.calling_enabled == Some(true) || change.callback_permission.is_some())
        && let Some(error) = request.disconnected(number)
    {
        return Err(error);
    }
    let is_dry_run = request.query_flag("dryRun")? == Some(true);
    let needs_agent = api.numbers.panel().judge(scope, number, &change, seen.as_ref())?;
    if is_dry_run {
        return ok_view(&request, number).await;
    }
    if needs_agent {
        check_agent_takes_calls(&request, number).await?;
    }
    let routing = routing_of(&request, number);
    api.numbers.panel().change(scope, number, &change, seen.as_ref()).await?;
    if change.configuration.is_some() || change.webhook_url.is_some() {
        route_by_configuration(&request, number, (configuration, routing), &change).await?;
    }
    if change.active == Some(false) {
        let entry = api.gate.directory().tables().by_number(number).cloned();
        if let Some(entry) = entry {
            api.inbox.agent_locks().wait(&entry.spec.first_id).await;
        }
    }
    ok_view(&request, number).await
}

/// Checks that the number has an agent that takes calls, since users see a call button as soon as
/// calling is enabled.
async fn check_agent_takes_calls(request: &ApiRequest, number: &E164) -> Result<(), ApiError> {
    let agent = match routing_of(request, number).and_then(|routing| routing.agent()) {
        // An agent of the main account may serve numbers of its subaccounts.
        Some(id) => {
            let agent =
                request.api().store.agents().get(&Scope::of(request.main_account()), id).await;
            agent.map_err(ApiError::store("read an agent"))?
        }
        None => None,
    };
    match agent.is_some_and(|agent| agent.spec.channels.contains(&AgentChannel::Voice)) {
        true => Ok(()),
        false => Err(ApiError::bad_value(
            "answerUrl",
            "calls would not be answered: connect an agent with the channel voice first, or set \
             answerUrl",
        )),
    }
}

/// The routing of a number's new conversations; `None` if the number is not connected.
fn routing_of(request: &ApiRequest, number: &E164) -> Option<Routing> {
    let api = request.api();
    let entry = api.gate.directory().tables().by_number(number).cloned();
    entry.map(|entry| api.inbox.numbers().routing_of(&entry))
}

/// Adapts the routing to a changed configuration type or webhook URL. Existing conversations with
/// another routing are included. `before` is the previous configuration type and routing.
async fn route_by_configuration(
    request: &ApiRequest,
    number: &E164,
    before: (Configuration, Option<Routing>),
    change: &Change,
) -> Result<(), ApiError> {
    let api = request.api();
    let configuration =
        api.keeper.book().number(request.scope(), number).map(|entry| entry.set.configuration);
    let entry = api.gate.directory().tables().by_number(number).cloned();
    let (Some(configuration), Some(entry)) = (configuration, entry) else { return Ok(()) };
    let current = api.inbox.numbers().routing_of(&entry);
    let (configuration_before, routing_before) = before;
    let is_same = configuration == configuration_before;
    let sets_url = change.webhook_url.is_some() && entry.spec.messages.is_some();
    let routing = match (configuration, current) {
        // Since the number lost its agent, nothing has received its messages.
        (Configuration::Webhook, Routing::None) if sets_url => Routing::Webhook(None),
        // A URL alone does not disconnect an agent.
        _ if change.configuration.is_none() => current,
        // A number that is sent back as it was read.
        (Configuration::Webhook, Routing::None) if is_same && entry.spec.messages.is_none() => {
            current
        }
        (Configuration::Webhook, Routing::Webhook(_))
        | (Configuration::Agent, Routing::Agent(_) | Routing::None) => current,
        (Configuration::Webhook, Routing::Agent(_) | Routing::None) => Routing::Webhook(None),
        (Configuration::Agent, Routing::Webhook(_)) => Routing::None,
    };
    if !is_same || routing_before.is_some_and(|before| before != routing) || current != routing {
        api.inbox.router().route_number(&entry, routing, true).await?;
    }
    Ok(())
}

async fn sync(request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    let synced = request.api().numbers.sync().sync_number(request.scope(), &number).await?;
    Ok(ok(&SyncResult::from(&synced)))
}

async fn register(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    let PinBody { pin } = request.json().await?;
    if let Some(error) = request.disconnected(&number) {
        return Err(error);
    }
    request
        .api()
        .numbers
        .registrations()
        .register(request.scope(), &number, Secret::new(pin))
        .await?;
    let (view, tag) = view(&request, &number).await?;
    Ok(with_etag(accepted(&view), &tag))
}

async fn check_urls(request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    let checks = request.api().numbers.url_checks().check(request.scope(), &number).await?;
    Ok(ok(&UrlChecks { items: checks.into_iter().map(UrlCheckResult::from).collect() }))
}

async fn disconnect_effects(request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    let (view, is_last, also_set) = {
        let api = request.api();
        let book = api.keeper.book();
        let entry = book.number(request.scope(), &number);
        let entry = entry.ok_or(ApiError::NotFound(NO_NUMBER))?;
        let has_others = |waba| {
            book.numbers_of(waba).any(|other| other.number != number && !other.set.disconnected)
        };
        let is_last = !entry.waba.as_ref().is_some_and(has_others);
        let set = &entry.set;
        let also_set = [
            ("fallbackUrl", set.fallback.url.is_some()),
            ("hangupUrl", set.hangup.url.is_some()),
            // A field of Plivo's API.
            ("app_id", set.app.is_some()),
        ];
        (NumberView::new(api, &book, entry), is_last, also_set)
    };
    let [NumberView { open_conversations, live_calls, .. }] = with_counts(&request, [view]).await?;
    let mut cleared = vec!["webhookUrl", "answerUrl", "callingEnabled"];
    cleared.extend(also_set.into_iter().filter_map(|(field, is_set)| is_set.then_some(field)));
    // The account is set for the WABA, and is cleared with the last of its numbers.
    if is_last {
        cleared.push("account");
    }
    Ok(ok(&DisconnectBreaks { open_conversations, live_calls, cleared }))
}

async fn disconnect(mut request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    let DisconnectBody { hide } = request.json().await?;
    let connections = request.api().numbers.connections();
    match hide {
        true => connections.hide(request.scope(), &number).await?,
        false => connections.disconnect(request.scope(), &number).await?,
    }
    // The number may belong to the main account now, outside the scope.
    Ok(ok_view(&request, &number).await.unwrap_or_else(|_| no_content()))
}

async fn reconnect(request: ApiRequest) -> Result<Response, ApiError> {
    let number = number(&request)?;
    request.api().numbers.connections().reconnect(request.scope(), &number).await?;
    ok_view(&request, &number).await
}

impl From<&SyncReport> for SyncResult {
    fn from(synced: &SyncReport) -> Self {
        let changed = synced.changed.iter().map(|(number, fields)| FieldsChanged {
            number: number.to_string(),
            fields: fields.clone(),
        });
        let left_out = synced.left_out.iter().map(|(number, why)| LeftOut {
            number: number.to_string(),
            reason: match why {
                ConnectRefusal::Taken => "taken",
                ConnectRefusal::TooMany(_) => "too_many",
                ConnectRefusal::InFile(_) => "in_configuration",
            },
        });
        Self {
            added: synced.added.iter().map(E164::to_string).collect(),
            changed: changed.collect(),
            left_out: left_out.collect(),
            settings_unread: synced.unread.iter().map(E164::to_string).collect(),
        }
    }
}

impl From<UrlCheck> for UrlCheckResult {
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

#[cfg(test)]
mod tests {
    use super::{ApiError, check_waba};

    #[test]
    fn refuses_wabas_that_are_no_ids() {
        for valid in ["", " 1029384756 ", "7"] {
            assert!(check_waba(valid).is_ok(), "{valid}");
        }
        for wrong in ["shop", "10 2", "1".repeat(65).as_str()] {
            assert!(matches!(check_waba(wrong), Err(ApiError::BadRequest { .. })), "{wrong}");
        }
    }
}
