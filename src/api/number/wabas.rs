//! `/api/v1/wabas/` (`number-api.md` §2): the account's WhatsApp Business Accounts, whose calls their numbers' are, and
//! reading at Meta what they have.

use axum::response::Response;
use http::{Method, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{decoded, error, with_header};
use super::ask::{self, Asked, CHANGED, DRY_RUN, Fault, Page};
use super::bodies::Taken;
use super::numbers::{self, SyncShown};
use crate::admission::book::{Book, Waba};
use model::{AuthId, WabaId};

const NONE: &str = "there is no such WABA";

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[Taken::of::<Change>("changeWaba")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/wabas/",
        id: "wabas",
        summary: "The account's WhatsApp Business Accounts, in the order of their ids",
        query: &[
            Query { name: "limit", what: "Items a page", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<List>) }],
    },
    Route {
        method: "GET",
        path: "/api/v1/wabas/{waba_id}/",
        id: "waba",
        summary: "One WhatsApp Business Account, and the numbers that its mapping is about",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "It, with its ETag",
            content: Content::Json(of::<Shown>),
        }],
    },
    Route {
        method: "PATCH",
        path: "/api/v1/wabas/{waba_id}/",
        id: "changeWaba",
        summary: "Gives a WABA with all its numbers to an account, for the next call on",
        query: DRY_RUN,
        body: Some(Body {
            content_type: "application/json",
            what: "account: the main account's id, or a subaccount's",
        }),
        answers: &[
            Answer { status: 200, what: "It, with its ETag", content: Content::Json(of::<Shown>) },
            CHANGED,
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/wabas/{waba_id}/sync/",
        id: "syncWaba",
        summary: "Reads a WABA's numbers at Meta, and takes in those that are not known yet",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "What changed", content: Content::Json(of::<SyncShown>) },
            Answer {
                status: 502,
                what: "Meta refused or failed",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
];

/// The account's WABAs.
#[derive(Serialize, ToSchema)]
#[schema(as = Wabas)]
struct List {
    items: Vec<Shown>,
    next: Option<String>,
}

/// A WABA.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Waba, examples(json!({"id": "1029384756", "account": "MAXXXXXXXXXXXXXXXXXX", "hasToken": true, "affectedNumbers": ["918035737458"]})))]
struct Shown {
    id: String,
    /// Whose calls its numbers' are.
    account: String,
    has_token: bool,
    /// The numbers that a change of the account is about.
    affected_numbers: Vec<String>,
}

impl Shown {
    fn of(book: &Book, waba: &Waba) -> Self {
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

/// `PATCH`.
#[derive(Deserialize, ToSchema)]
#[schema(as = WabaChange, examples(json!({"account": "MAXXXXXXXXXXXXXXXXXX"})))]
struct Change {
    /// The main account's id, or a subaccount's.
    #[schema(value_type = Option<String>)]
    account: Option<AuthId>,
}

/// Hands a request to what it is about.
pub(super) async fn serve(asked: Asked) -> Result<Response, Fault> {
    let path = asked.path.clone();
    match (asked.method().clone(), path.as_slice()) {
        (_, [_]) => list(&asked),
        (Method::PATCH, [_, id]) => edit(asked, &waba_of(id)).await,
        (_, [_, id]) => answer(&asked, &waba_of(id)),
        (_, [_, id, _]) => {
            let scope = asked.scope().clone();
            let synced = asked
                .api()
                .numbers
                .sync_waba(&scope, &waba_of(id))
                .await
                .map_err(numbers::fault)?;
            numbers::synced(&synced)
        }
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

fn waba_of(part: &str) -> WabaId {
    WabaId::from(decoded(part))
}

fn list(asked: &Asked) -> Result<Response, Fault> {
    let (limit, after) = (asked.limit()?, asked.cursor(|id| Some(WabaId::from(id)))?);
    let book = asked.api().keeper.book();
    let own = book.wabas().filter(|waba| book.is_within(asked.scope(), waba.account()));
    let behind = own.filter(|waba| after.as_ref().is_none_or(|after| waba.id > *after));
    let page =
        Page::of(behind.take(limit as usize + 1).collect(), limit, |last| last.id.to_string());
    let items = page.items.into_iter().map(|waba| Shown::of(&book, waba)).collect();
    Ok(ask::ok(&List { items, next: asked.next(page.next) }))
}

fn answer(asked: &Asked, id: &WabaId) -> Result<Response, Fault> {
    let book = asked.api().keeper.book();
    let waba = book.waba(asked.scope(), id).ok_or_else(|| ask::missing(NONE))?;
    Ok(with_header(ask::ok(&Shown::of(&book, waba)), header::ETAG, &tag_of(waba)))
}

/// Of the mapping alone: numbers come and go by themselves.
fn tag_of(waba: &Waba) -> String {
    ask::tag_of(&waba.account())
}

async fn edit(asked: Asked, id: &WabaId) -> Result<Response, Fault> {
    let (asked, change) = asked.json::<Change>().await?;
    let seen = {
        let book = asked.api().keeper.book();
        let waba = book.waba(asked.scope(), id).ok_or_else(|| ask::missing(NONE))?;
        asked.matches(&tag_of(waba))?;
        asked.is_conditional().then(|| waba.account().clone())
    };
    if let Some(account) = change.account {
        let scope = asked.scope().clone();
        if asked.flag("dryRun")? == Some(true) {
            asked
                .api()
                .numbers
                .judge_map(&scope, id, &account, seen.as_ref())
                .map_err(numbers::fault)?;
            return answer(&asked, id);
        }
        asked
            .api()
            .numbers
            .map(&scope, id, &account, seen.as_ref())
            .await
            .map_err(numbers::fault)?;
        asked.api().inbox.claim().await.map_err(ask::store("note the numbers' owner"))?;
    }
    answer(&asked, id)
}
