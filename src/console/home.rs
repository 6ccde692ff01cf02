//! The start page: current activity, and for new accounts the steps to a first call.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::App;
use super::auth::Visitor;
use super::call_row::{self, Row};
use super::page::{Page, bad_query, html};
use crate::api::LiveStatus;
use store::CallFilter;

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    page: Page,
    hello: String,
    live: usize,
    slots: u32,
    cps: usize,
    calls: Vec<Row>,
    /// The first number with calling enabled, else the first one. Empty if absent.
    number: String,
    callable: bool,
    owner: bool,
    /// Whether Meta's sign-up dialog is available.
    can_sign_up: bool,
    /// Whether the account has had a call.
    called: bool,
    base_url: String,
}

/// Number of calls on the page.
const LATEST: usize = 6;

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    let lang = visitor.lang();
    let api = console.apis.api();
    let scope = visitor.person.scope();
    let up = api.live.list_all(&scope).await.calls;
    let live = up.iter().filter(|call| call.status != LiveStatus::Queued).count();
    api.store.flush().await;
    // Legs are shown with their calls, in the list of calls.
    let filter = CallFilter { without_legs: true, ..CallFilter::default() };
    let ended = api.store.calls().first(&scope, &filter, 6).await.unwrap_or_default();
    let mut rows: Vec<Row> = up.iter().map(|call| call_row::live_row(lang, call)).collect();
    rows.extend(
        ended
            .iter()
            .filter(|record| record.end.is_some())
            .map(|record| call_row::ended_row(lang, record)),
    );
    rows = call_row::with_legs(rows, Vec::new());
    rows.truncate(LATEST);
    call_row::add_names(&console, &visitor, &mut rows).await;
    let tables = api.gate.directory().tables();
    let own: Vec<_> = tables
        .numbers()
        .filter(|n| scope.holds(&n.account.auth_id, &n.account.main().auth_id))
        .collect();
    let callable = own.iter().find(|number| number.spec.calling_enabled);
    let number = callable
        .or_else(|| own.first())
        .map(|n| super::view::with_alias(&n.spec.alias, n.spec.number.as_str()));
    let account = tables.account(scope.auth_id());
    let home = Home {
        hello: lang.with(
            "home.hello",
            &[visitor.person.user.full_name.split_whitespace().next().unwrap_or_default()],
        ),
        live,
        slots: own
            .iter()
            .filter(|number| number.spec.calling_enabled)
            .map(|number| number.spec.calls_per_number)
            .fold(0, u32::saturating_add),
        cps: account.map_or(0, |account| api.gate.cps(api.clock.now(), account).0),
        callable: callable.is_some(),
        number: number.unwrap_or_default(),
        owner: visitor.is_owner(),
        can_sign_up: console.sign_up.is_some(),
        called: !rows.is_empty(),
        calls: rows,
        base_url: api.base_url.clone(),
        page: visitor.page(&console, lang.t("nav.home"), "home").listening("call"),
    };
    html(&home)
}
