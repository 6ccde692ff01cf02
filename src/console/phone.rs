//! The softphone: an endpoint's phone in the browser, by `/phone` (`docs/phone.md`). The page is the frame; the element
//! `<offhook-phone>` does the rest.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::door::Visitor;
use super::page::{Page, html};
use super::{App, Console};

struct Named {
    name: String,
    alias: String,
    here: bool,
}

#[derive(Template)]
#[template(path = "phone.html")]
struct Phone {
    page: Page,
    endpoints: Vec<Named>,
}

/// Endpoints that are offered.
const MOST: u32 = 200;

/// The account's endpoints: name, what people call it, and whether it bears the visitor's own name.
pub(super) async fn endpoints(console: &Console, visitor: &Visitor) -> Vec<(String, String, bool)> {
    let found = console.desk.api().store.endpoints(&visitor.person.scope(), MOST, 0).await;
    let all = found.map(|(list, _)| list).unwrap_or_default().into_iter();
    all.map(|one| (one.name.to_string(), one.alias, one.name.as_str() == visitor.person.user.name)).collect()
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let endpoints = endpoints(&console, &visitor).await.into_iter();
    let endpoints = endpoints.map(|(name, alias, here)| Named { name, alias, here });
    let page = visitor.page(&console, visitor.lang().t("nav.phone"), "phone");
    html(&Phone { page, endpoints: endpoints.collect() })
}
