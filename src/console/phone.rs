//! The softphone: an endpoint's phone in the browser, by `/phone` (`docs/phone.md`). The page is the frame; the element
//! `<offhook-phone>` does the rest.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::App;
use super::door::Visitor;
use super::page::{Page, html};

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

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let api = console.desk.api();
    let endpoints = api.store.endpoints(&visitor.person.scope(), MOST, 0).await.map(|(list, _)| list);
    let endpoints = endpoints.unwrap_or_default().into_iter().map(|endpoint| Named {
        here: endpoint.name.as_str() == visitor.person.user.name,
        name: endpoint.name.to_string(),
        alias: endpoint.alias,
    });
    let page = visitor.page(&console, visitor.lang().t("nav.phone"), "phone");
    html(&Phone { page, endpoints: endpoints.collect() })
}
