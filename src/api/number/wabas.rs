//! `/api/v1/wabas/`: the WhatsApp Business Accounts of an account, the account that owns their
//! calls, and reading their numbers from Meta.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::numbers::SyncResult;
use super::request::ApiRequest;
use super::response::{Page, etag, ok, with_etag};
use super::route::{CHANGED, DRY_RUN, META_FAILED, PAGING, Route, handler};
use engine::admission::book::{Book, Waba};
use model::{AuthId, Role, WabaId};

const NO_WABA: &str = "no such WABA";
const WABA: ResponseSpec = ResponseSpec::json::<WabaView>(200, "The WABA with its ETag");
const ITEM: &str = "/api/v1/wabas/{waba_id}/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/wabas/",
            "wabas",
            "List the account's WhatsApp Business Accounts, in the order of their ids",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<WabaList>(200, "A page of WABAs")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(
            ITEM,
            "waba",
            "Retrieve a WhatsApp Business Account and its phone numbers",
        )
        .responses(&[WABA]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(change),
        operation: Operation::patch(
            ITEM,
            "changeWaba",
            "Assign a WABA with all its phone numbers to an account, from the next call on",
        )
        .query(DRY_RUN)
        .body(RequestBody::json::<WabaChange>("account: the main account or a subaccount"))
        .responses(&[WABA, CHANGED]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(sync),
        operation: Operation::post(
            "/api/v1/wabas/{waba_id}/sync/",
            "syncWaba",
            "Read the phone numbers of a WABA at Meta, and add new ones",
        )
        .responses(&[ResponseSpec::json::<SyncResult>(200, "What changed"), META_FAILED]),
    },
];

/// A page of WABAs.
#[derive(Serialize, ToSchema)]
#[schema(as = Wabas)]
struct WabaList {
    items: Vec<WabaView>,
    next: Option<String>,
}

/// A WhatsApp Business Account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Waba, examples(json!({"id": "1029384756", "account": "MAXXXXXXXXXXXXXXXXXX", "hasToken": true, "affectedNumbers": ["918035737458"]})))]
struct WabaView {
    id: String,
    /// The account that the calls of its numbers belong to.
    account: String,
    has_token: bool,
    /// The phone numbers that move with a change of the account.
    affected_numbers: Vec<String>,
}

impl WabaView {
    fn new(book: &Book, waba: &Waba) -> Self {
        Self {
            id: waba.id.to_string(),
            account: waba.account().to_string(),
            has_token: book.token_of_waba(waba).is_some(),
            affected_numbers: book
                .numbers_of(&waba.id)
                .map(|number| number.number.to_string())
                .collect(),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"account": "MAXXXXXXXXXXXXXXXXXX"})))]
struct WabaChange {
    /// The main account or a subaccount.
    #[schema(value_type = Option<String>)]
    account: Option<AuthId>,
}

fn waba_id(request: &ApiRequest) -> WabaId {
    WabaId::from(request.parameter("waba_id").to_owned())
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let (limit, after) = (request.limit()?, request.cursor(|id| Some(WabaId::from(id)))?);
    let book = request.api().keeper.book();
    let own = book.wabas().filter(|waba| book.is_within(request.scope(), waba.account()));
    let rest = own.filter(|waba| after.as_ref().is_none_or(|after| waba.id > *after));
    let page =
        Page::new(rest.take(limit as usize + 1).collect(), limit, |last| last.id.to_string());
    let items = page.items.into_iter().map(|waba| WabaView::new(&book, waba)).collect();
    Ok(ok(&WabaList { items, next: request.next_cursor(page.next) }))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    view(&request, &waba_id(&request))
}

fn view(request: &ApiRequest, id: &WabaId) -> Result<Response, ApiError> {
    let book = request.api().keeper.book();
    let waba = book.waba(request.scope(), id).ok_or(ApiError::NotFound(NO_WABA))?;
    Ok(with_etag(ok(&WabaView::new(&book, waba)), &tag(waba)))
}

/// The ETag of a WABA. It covers only the account, since the numbers also change without a request.
fn tag(waba: &Waba) -> String {
    etag(&waba.account())
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let id = waba_id(&request);
    let change: WabaChange = request.json().await?;
    let (api, scope) = (request.api(), request.scope());
    let seen = {
        let book = api.keeper.book();
        let waba = book.waba(scope, &id).ok_or(ApiError::NotFound(NO_WABA))?;
        request.check_if_match(&tag(waba))?;
        request.is_conditional().then(|| waba.account().clone())
    };
    if let Some(account) = change.account {
        if request.query_flag("dryRun")? == Some(true) {
            api.numbers.wabas().check(scope, &id, &account, seen.as_ref())?;
            return view(&request, &id);
        }
        api.numbers.wabas().assign(scope, &id, &account, seen.as_ref()).await?;
        api.inbox
            .router()
            .claim()
            .await
            .map_err(ApiError::store("store the owner of the numbers"))?;
    }
    view(&request, &id)
}

async fn sync(request: ApiRequest) -> Result<Response, ApiError> {
    let synced =
        request.api().numbers.sync().sync_waba(request.scope(), &waba_id(&request)).await?;
    Ok(ok(&SyncResult::from(&synced)))
}
