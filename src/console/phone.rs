//! The softphone: an endpoint's phone in the browser, by `/phone` (`docs/phone.md`). The page is the frame; the element
//! `<offhook-phone>` does the rest.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::door::Visitor;
use super::page::{Page, html};
use super::{App, Console};

/// An endpoint.
pub(super) struct Named {
    pub(super) name: String,
    /// What people call it.
    pub(super) alias: String,
    /// It bears the visitor's own name.
    pub(super) here: bool,
    /// A phone of it is registered: it can be rung.
    pub(super) ready: bool,
}

#[derive(Template)]
#[template(path = "phone.html")]
struct Phone {
    page: Page,
    endpoints: Vec<Named>,
    /// Whose choices the browser keeps.
    person: String,
}

/// Endpoints that are offered.
const MOST: u32 = 200;

/// The account's endpoints.
pub(super) async fn endpoints(console: &Console, visitor: &Visitor) -> Vec<Named> {
    let api = console.desk.api();
    let found = api.store.endpoints(&visitor.person.scope(), MOST, 0).await;
    let all = found.map(|(list, _)| list).unwrap_or_default().into_iter();
    let named = all.map(|one| Named {
        here: one.name.as_str() == visitor.person.user.name,
        ready: api.phones.is_registered(&one.name),
        name: one.name.to_string(),
        alias: one.alias,
    });
    named.collect()
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let endpoints = endpoints(&console, &visitor).await;
    let page = visitor.page(&console, visitor.lang().t("nav.phone"), "phone");
    html(&Phone { page, endpoints, person: visitor.person.user.name.clone() })
}
