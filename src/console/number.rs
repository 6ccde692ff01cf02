//! The configuration page of one number, which the script opens beside the table. Changes go
//! through the number API.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::account::{AccountName, account_names};
use super::agents::Choice;
use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::number_view::Number;
use super::numbers::{agents_of, assign, digits, find_number};
use super::page::{Page, bad_form, failed, missing, respond};
use super::view;
use super::{App, Console};
use crate::api::ApiResponse;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenItems {
    open_conversations: u64,
    live_calls: u32,
}

#[derive(Template)]
#[template(path = "number.html")]
struct NumberPage {
    page: Page,
    number: Number,
    /// The stored settings. A rejected form may show other values.
    was: Number,
    agents: Vec<Choice>,
    /// The accounts that the WABA can be assigned to.
    owners: Vec<AccountName>,
    /// The account of the number's WABA.
    account: String,
    /// Other numbers of the same WABA, whose account changes as well.
    affected: Vec<String>,
    breaks: OpenItems,
    /// Whether http URLs are allowed.
    insecure: bool,
    admin: bool,
    owner: bool,
    saved: bool,
    /// Whether the number was saved with type `agent`, but without an agent.
    without_agent: bool,
    wrong: String,
    field: String,
}

impl NumberPage {
    fn is_wrong(&self, field: &str) -> bool {
        self.field == field
    }
}

/// An error of a form, and the submitted form.
struct RejectedForm {
    status: StatusCode,
    wrong: String,
    field: String,
    form: Form,
}

pub(super) async fn page(
    State(console): App,
    Path(number): Path<String>,
    visitor: Visitor,
) -> Response {
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    configure(&console, &visitor, number, None).await
}

async fn configure(
    console: &Console,
    visitor: &Visitor,
    number: &str,
    refused: Option<RejectedForm>,
) -> Response {
    let one = format!("/api/v1/phone-numbers/{number}/");
    let mut was = match find_number(console, visitor, number).await {
        Ok(number) => number,
        Err(answer) => return *answer,
    };
    // Its messages go to the agent even if its calls still use a document.
    if was.active_agent.is_some() {
        "agent".clone_into(&mut was.configuration_type);
    }
    let breaks = visitor.ask(console, Method::GET, &format!("{one}disconnect/"), None).await;
    let (account, owners, affected) = mapping(console, visitor, &was).await;
    let (status, wrong, field, now) = match refused {
        None => (StatusCode::OK, String::new(), String::new(), was.clone()),
        Some(refused) => {
            (refused.status, refused.wrong, refused.field, with_form(&was, &refused.form))
        }
    };
    let page = NumberPage {
        page: visitor.page(console, &was.formatted(), "numbers"),
        agents: agents_of(console, visitor, &was).await,
        insecure: console.apis.api().placer.allows_http(),
        owners,
        account,
        affected,
        breaks: serde_json::from_value(breaks.body).unwrap_or_default(),
        admin: visitor.is_admin(),
        owner: visitor.is_owner(),
        saved: visitor.query.some("saved").is_some(),
        without_agent: visitor.query.get("saved") == "nobody",
        number: now,
        was,
        wrong,
        field,
    };
    respond(status, &page)
}

/// The account of the WABA, those that it can be assigned to, and its other numbers. Empty unless
/// the visitor is an owner.
async fn mapping(
    console: &Console,
    visitor: &Visitor,
    number: &Number,
) -> (String, Vec<AccountName>, Vec<String>) {
    let waba = number.whatsapp_business_account.as_deref().and_then(digits_of_id);
    let (Some(waba), true) = (waba, visitor.is_owner()) else { return Default::default() };
    let answer = visitor.ask(console, Method::GET, &format!("/api/v1/wabas/{waba}/"), None).await;
    let account = answer.body.get("account").and_then(Value::as_str).unwrap_or_default();
    let all = answer
        .body
        .get("affectedNumbers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let others = all
        .iter()
        .filter_map(Value::as_str)
        .filter(|other| *other != number.number)
        .map(view::party);
    (account.to_owned(), account_names(console, visitor), others.collect())
}

fn digits_of_id(id: &str) -> Option<&str> {
    Some(id).filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Applies a form to a number.
fn with_form(was: &Number, form: &Form) -> Number {
    let text = |name: &str| form.get(name).to_owned();
    let url = |name: &str| Some(text(name));
    Number {
        alias: text("alias"),
        configuration_type: text("configurationType"),
        webhook_url: url("webhookUrl"),
        calling_enabled: form.some("callingEnabled").is_some(),
        answer_url: url("answerUrl"),
        answer_method: text("answerMethod"),
        fallback_url: url("fallbackUrl"),
        fallback_method: text("fallbackMethod"),
        hangup_url: url("hangupUrl"),
        hangup_method: text("hangupMethod"),
        active_agent: Some(text("agent")),
        ..was.clone()
    }
}

/// Returns the fields that differ from their values when the page was rendered. The form contains
/// those as `was.…`.
fn changes(form: &Form) -> Map<String, Value> {
    const TEXTS: &[&str] =
        &["alias", "configurationType", "answerMethod", "fallbackMethod", "hangupMethod"];
    const URLS: &[&str] = &["webhookUrl", "answerUrl", "fallbackUrl", "hangupUrl"];
    let differs = |name: &str| form.get(name) != form.get(&format!("was.{name}"));
    let mut change = Map::new();
    for name in TEXTS.iter().filter(|name| differs(name)) {
        change.insert((*name).to_owned(), form.get(name).into());
    }
    for name in URLS.iter().filter(|name| differs(name)) {
        change.insert((*name).to_owned(), form.some(name).map_or(Value::Null, Value::from));
    }
    if differs("callingEnabled") {
        change.insert("callingEnabled".to_owned(), form.some("callingEnabled").is_some().into());
    }
    change
}

/// Returns a field that the form changes although somebody else has changed it since the page was
/// rendered, to another value. `stored` is the number in the API.
fn changed_meanwhile(form: &Form, stored: &Value) -> Option<String> {
    let is_overwritten = |name: &&String| {
        let now = match &stored[name.as_str()] {
            Value::String(text) => text,
            Value::Bool(true) => "on",
            _ => "",
        };
        now != form.get(&format!("was.{name}")) && now != form.get(name)
    };
    changes(form).keys().find(is_overwritten).cloned()
}

/// Whether the form selects a webhook without any URL, or removes its URL. The other settings of a
/// number that never had a URL for messages can still be changed.
fn lacks_webhook(form: &Form) -> bool {
    let is_changed = |name: &str| form.get(name) != form.get(&format!("was.{name}"));
    let is_bare = is_changed("configurationType") && form.some("answerUrl").is_none();
    form.get("configurationType") == "webhook"
        && form.some("webhookUrl").is_none()
        && (is_changed("webhookUrl") || is_bare)
}

/// Whether the form selects the type `agent` without an agent.
fn lacks_agent(form: &Form) -> bool {
    form.get("configurationType") == "agent" && form.some("agent").is_none()
}

/// Handles the form. Its field `do` is `save`, `route`, `disconnect`, `hide` or `reconnect`.
pub(super) async fn change(
    State(console): App,
    Path(number): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    let one = format!("/api/v1/phone-numbers/{number}/");
    let what = form.get("do").to_owned();
    if what == "save" && visitor.is_admin() && lacks_webhook(&form) {
        let wrong = visitor.lang().t("numbers.webhook_missing").to_owned();
        let refused = RejectedForm {
            status: StatusCode::BAD_REQUEST,
            wrong,
            field: "webhookUrl".to_owned(),
            form,
        };
        return configure(&console, &visitor, number, Some(refused)).await;
    }
    if what == "save" {
        let stored = visitor.ask(&console, Method::GET, &one, None).await;
        let outdated = changed_meanwhile(&form, &stored.body).filter(|_| stored.is_ok());
        if let Some(field) = outdated {
            let wrong = visitor.lang().t("numbers.changed_meanwhile").to_owned();
            let refused = RejectedForm { status: StatusCode::CONFLICT, wrong, field, form };
            return configure(&console, &visitor, number, Some(refused)).await;
        }
    }
    let answer = match what.as_str() {
        "save" => save(&console, &visitor, number, &form).await,
        "disconnect" | "reconnect" => {
            visitor.ask(&console, Method::POST, &format!("{one}{what}/"), None).await
        }
        "route" => {
            let body = json!({"configurationType": "webhook"});
            visitor.ask(&console, Method::PATCH, &one, Some(&body)).await
        }
        "hide" => {
            let body = json!({"hide": true});
            visitor.ask(&console, Method::POST, &format!("{one}disconnect/"), Some(&body)).await
        }
        _ => return bad_form(&console, &visitor, "do"),
    };
    if answer.is_ok() {
        let to = match what.as_str() {
            "disconnect" => "/console/numbers/".to_owned(),
            "hide" => "/console/numbers/?done=hide".to_owned(),
            _ if lacks_agent(&form) => format!("/console/numbers/{number}/?saved=nobody"),
            _ => format!("/console/numbers/{number}/?saved=1"),
        };
        return Redirect::to(&to).into_response();
    }
    let (wrong, field) =
        (visitor.lang().refusal(&answer), answer.field().unwrap_or_default().to_owned());
    if what != "save" {
        return failed(&console, &visitor, answer.status, &wrong);
    }
    configure(
        &console,
        &visitor,
        number,
        Some(RejectedForm { status: answer.status, wrong, field, form }),
    )
    .await
}

/// Saves the settings and the agent, then the account. A chosen agent comes first, because it may be
/// what answers the calls that the settings enable. The account is last, because this person may not
/// be allowed to change the number afterwards.
async fn save(console: &Console, visitor: &Visitor, number: &str, form: &Form) -> ApiResponse {
    let differs = |name: &str| form.get(name) != form.get(&format!("was.{name}"));
    let body = Value::Object(changes(form));
    let path = format!("/api/v1/phone-numbers/{number}/");
    let assigns = differs("agent") || form.some("existing").is_some();
    let is_by_agent = form.get("configurationType") == "agent" && !lacks_agent(form);
    if assigns && is_by_agent {
        let answer = assign(console, visitor, number, form).await;
        if !answer.is_ok() {
            return answer;
        }
    }
    let mut answer = visitor.ask(console, Method::PATCH, &path, Some(&body)).await;
    // A changed type has replaced the agent already.
    if answer.is_ok() && assigns && !is_by_agent && !differs("configurationType") {
        answer = assign(console, visitor, number, form).await;
    }
    let waba = digits_of_id(form.get("waba"));
    if let (true, Some(waba), true) = (answer.is_ok(), waba, differs("account")) {
        let body = json!({"account": form.get("account")});
        answer = visitor
            .ask(console, Method::PATCH, &format!("/api/v1/wabas/{waba}/"), Some(&body))
            .await;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_only_changed_fields() {
        let form = Form::read(
            b"alias=New&was.alias=Old&webhookUrl=&was.webhookUrl=https%3A%2F%2Fa.example&answerMethod=POST&was.answerMethod=POST\
              &callingEnabled=on&was.callingEnabled=&answerUrl=https%3A%2F%2Fb.example&was.answerUrl=https%3A%2F%2Fb.example",
        );
        let change = Value::Object(changes(&form));
        assert_eq!(change, json!({"alias": "New", "webhookUrl": null, "callingEnabled": true}));
        let stored = |alias: &str, url: Value| json!({"alias": alias, "webhookUrl": url, "callingEnabled": false});
        let unchanged = stored("Old", json!("https://a.example"));
        assert_eq!(changed_meanwhile(&form, &unchanged), None);
        // Another person may have saved the same, or a field that this form leaves alone.
        assert_eq!(changed_meanwhile(&form, &stored("New", Value::Null)), None);
        let by_other = stored("Theirs", json!("https://a.example"));
        assert_eq!(changed_meanwhile(&form, &by_other).as_deref(), Some("alias"));
        for (form, lacks, no_agent) in [
            ("configurationType=webhook&was.configurationType=agent&webhookUrl=", true, false),
            (
                "configurationType=webhook&was.configurationType=webhook&webhookUrl=&was.webhookUrl=x",
                true,
                false,
            ),
            ("configurationType=webhook&was.configurationType=webhook&webhookUrl=", false, false),
            (
                "configurationType=webhook&was.configurationType=agent&answerUrl=https%3A%2F%2Fa.example",
                false,
                false,
            ),
            ("configurationType=webhook&webhookUrl=https%3A%2F%2Fa.example", false, false),
            ("configurationType=agent&webhookUrl=&agent=", false, true),
            ("configurationType=agent&agent=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", false, false),
        ] {
            let form = Form::read(form.as_bytes());
            assert_eq!((lacks_webhook(&form), lacks_agent(&form)), (lacks, no_agent));
        }
        assert_eq!(
            (digits("918035737458"), digits("../users"), digits("")),
            (Some("918035737458"), None, None)
        );
    }
}
