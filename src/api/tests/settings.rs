//! Accounts, subaccounts, numbers and applications over the API: creating and changing them, their
//! effect on calls, and isolation of accounts.

use std::time::Duration;

use super::permissions::NUMBERS;
use super::*;
use crate::api::plivo;
use crate::api::routes::{BodyContent, FieldKind};
use engine::admission::settings::{NumberSettings, WabaSettings};
use engine::config;

/// The configuration of the test node.
pub(super) fn file(accounts: Vec<AccountSettings>) -> config::Config {
    let mut file = config::Config::with(Secret::new("a"), Secret::new("b"));
    file.accounts = accounts;
    for (n, (number, id, account)) in NUMBERS.into_iter().enumerate() {
        let waba = model::WabaId::from(format!("70{n}"));
        file.wabas.push(WabaSettings {
            id: waba.clone(),
            account: account.into(),
            access_token: None,
        });
        file.numbers.push(NumberSettings {
            number: E164::parse(number).unwrap(),
            phone_number_id: id.into(),
            waba,
            alias: if n == 0 { "Support".to_owned() } else { String::new() },
            calling_enabled: true,
            calling_named: true,
            app_id: None,
            answer_url: Some(DocUrl("https://app.example.com/own".into())),
            answer_method: Default::default(),
            fallback_url: None,
            fallback_method: Default::default(),
            hangup_url: None,
            hangup_method: Default::default(),
            webhook_url: None,
            calls_per_number: None,
            permissions: Default::default(),
        });
    }
    // Has no answer URL, and needs an application to take calls.
    let mut bare = file.numbers[0].clone();
    (bare.number, bare.phone_number_id) = (E164::parse(BARE).unwrap(), "1009".into());
    (bare.alias, bare.answer_url) = (String::new(), None);
    file.numbers.push(bare);
    file
}

/// A number of `MAIN` without an answer URL.
const BARE: &str = "918035737450";

impl Running {
    /// Sends a request with a JSON body and these credentials.
    async fn rest(&self, who: (&str, &str), method: &str, path: &str, body: Value) -> (u16, Value) {
        let (id, token) = who;
        let basic = STANDARD.encode(format!("{id}:{token}"));
        let head = format!("authorization: Basic {basic}\r\ncontent-type: application/json\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(method, &format!("/v1/Account/{id}/{path}"), &head, &body).await;
        (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
    }

    async fn main(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.rest((MAIN, "token"), method, path, body).await
    }

    /// Creates a subaccount. Returns its id and token.
    async fn subaccount(&self, name: &str) -> (String, String) {
        let (status, made) =
            self.main("POST", "Subaccount/", json!({"name": name, "enabled": true})).await;
        assert_eq!((status, made["message"].as_str()), (201, Some("created")), "{made}");
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("auth_id"), text("auth_token"))
    }

    async fn application(&self, fields: Value) -> String {
        let (status, made) = self.main("POST", "Application/", fields).await;
        assert_eq!((status, made["message"].as_str()), (201, Some("created")), "{made}");
        made["app_id"].as_str().unwrap().to_owned()
    }
}

fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_account_reads_as_plivo_writes_it_and_can_be_changed() {
    let node = run().await;
    let (status, mut account) = node.main("GET", "", Value::Null).await;
    account["api_id"].take();
    assert_eq!(status, 200);
    let expected = json!({
        "api_id": null, "account_type": "standard", "address": "", "auth_id": MAIN, "auto_recharge": false,
        "billing_mode": "prepaid", "cash_credits": "0.00000", "city": "", "name": "", "resource_uri":
        format!("/v1/Account/{MAIN}/"), "state": "", "timezone": "UTC", "cps": 10, "cps_in_use": 0, "calls_live": 2,
    });
    assert_eq!(account, expected);
    let changed =
        node.main("POST", "", json!({"name": "Asha", "city": "Pune", "address": null})).await;
    assert_eq!((changed.0, changed.1["message"].as_str()), (202, Some("changed")));
    let (_, account) = node.main("GET", "", Value::Null).await;
    assert_eq!(
        (&account["name"], &account["city"], &account["address"]),
        (&"Asha".into(), &"Pune".into(), &"".into())
    );
    assert_eq!(error(&node.main("POST", "", json!({})).await).0, 400);
    let long = node.main("POST", "", json!({"name": "x".repeat(201)})).await;
    assert_eq!(error(&long), (400, "name must be at most 200 characters on one line"));
    let (_, sub) = node.rest((SUB, "token"), "GET", "", Value::Null).await;
    assert_eq!(
        (&sub["auth_id"], &sub["cps"], &sub["calls_live"]),
        (&SUB.into(), &10.into(), &1.into())
    );
    node.cancel.cancel();
}

#[tokio::test]
async fn r16_a_subaccount_authenticates_and_is_visible_to_its_main_account_only() {
    let node = run().await;
    let (id, token) = node.subaccount("One").await;
    let (status, shown) = node.main("GET", &format!("Subaccount/{id}/"), Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&shown["auth_token"], &shown["name"], &shown["enabled"]),
        (&json!(token), &json!("One"), &json!(true))
    );
    assert_eq!(
        (&shown["account"], &shown["modified"]),
        (&format!("/v1/Account/{MAIN}/").into(), &Value::Null)
    );
    assert_eq!(shown["resource_uri"], format!("/v1/Account/{MAIN}/Subaccount/{id}/"));
    // The subaccount can use the API immediately, and sees nothing of its main account.
    let sub = (id.as_str(), token.as_str());
    let (status, calls) = node.rest(sub, "GET", "Call/", Value::Null).await;
    assert_eq!((status, calls["meta"]["total_count"].as_u64()), (200, Some(0)));
    let (_, numbers) = node.rest(sub, "GET", "Number/", Value::Null).await;
    assert_eq!(numbers["meta"]["total_count"], 0);
    for path in ["Subaccount/", &format!("Subaccount/{id}/"), &format!("Number/{}/", NUMBERS[0].0)]
    {
        assert_eq!(node.rest(sub, "GET", path, Value::Null).await.0, 404, "{path}");
    }
    // Another tenant does not find it.
    let other = (OTHER, "token");
    for method in ["GET", "DELETE"] {
        let answer = node.rest(other, method, &format!("Subaccount/{id}/"), Value::Null).await;
        assert_eq!(error(&answer), (404, "subaccount not found"), "{method}");
    }
    let renamed =
        node.rest(other, "POST", &format!("Subaccount/{id}/"), json!({"name": "Mine"})).await;
    assert_eq!(renamed.0, 404);
    // The token is refused while the subaccount is disabled.
    let path = format!("Subaccount/{id}/");
    assert_eq!(node.main("POST", &path, json!({"name": "Two", "enabled": "false"})).await.0, 202);
    assert_eq!(node.rest(sub, "GET", "Call/", Value::Null).await.0, 401);
    let (_, shown) = node.main("GET", &path, Value::Null).await;
    assert_eq!((&shown["name"], &shown["enabled"]), (&"Two".into(), &false.into()));
    assert!(shown["modified"].is_string(), "{shown}");
    assert_eq!(node.main("POST", &path, json!({"enabled": true})).await.0, 202);
    assert_eq!(node.rest(sub, "GET", "Call/", Value::Null).await.0, 200);
    for bad in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "x", "enabled": "perhaps"}),
        json!({"name": ["x"]}),
    ] {
        assert_eq!(node.main("POST", &path, bad.clone()).await.0, 400, "{bad}");
        assert_eq!(node.main("POST", "Subaccount/", bad.clone()).await.0, 400, "{bad}");
    }
    // A subaccount from the configuration can't be changed. The list has both, newest first.
    let (_, list) = node.main("GET", "Subaccount/?limit=1", Value::Null).await;
    assert_eq!(
        (list["meta"]["total_count"].as_u64(), list["objects"][0]["auth_id"].as_str()),
        (Some(2), Some(&*id))
    );
    assert!(
        list["meta"]["next"]
            .as_str()
            .is_some_and(|next| next.ends_with("/Subaccount/?limit=1&offset=1"))
    );
    let in_file = node.main("DELETE", &format!("Subaccount/{SUB}/"), Value::Null).await;
    assert!(
        in_file.0 == 409
            && in_file.1["error"].as_str().is_some_and(|e| e.contains("configuration")),
        "{in_file:?}"
    );
    assert_eq!(node.main("DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(node.rest(sub, "GET", "Call/", Value::Null).await.0, 401);
    assert_eq!(node.main("DELETE", &path, Value::Null).await.0, 404);
    node.cancel.cancel();
}

#[tokio::test]
async fn a_number_is_renamed_and_its_waba_given_to_a_subaccount() {
    let node = run().await;
    let (sub, token) = node.subaccount("One").await;
    let path = format!("Number/%2B{}/", NUMBERS[0].0);
    let (status, mut number) = node.main("GET", &path, Value::Null).await;
    number["api_id"].take();
    let expected = json!({
        "api_id": null, "added_on": "2026-11-20", "alias": "Support", "application": null, "carrier": "Meta",
        "monthly_rental_rate": "0.00000", "number": NUMBERS[0].0, "number_type": "whatsapp", "region": "IN",
        "resource_uri": format!("/v1/Account/{MAIN}/Number/{}/", NUMBERS[0].0), "sms_enabled": false,
        "sms_rate": "0.00000", "sub_account": null, "voice_enabled": true, "voice_rate": "0.00000",
        "phone_number_id": "1001", "waba_id": "700", "answer_url": "https://app.example.com/own",
        "hangup_url": null, "fallback_url": null, "calling_enabled": true,
    });
    assert_eq!((status, number), (200, expected));
    let answer = node.main("POST", &path, json!({"alias": "Sales", "subaccount": sub})).await;
    assert_eq!((answer.0, answer.1["message"].as_str()), (202, Some("changed")), "{answer:?}");
    assert_eq!(answer.1["affected_numbers"], json!([BARE, NUMBERS[0].0]), "the whole WABA");
    let (_, seen) = node.rest((&sub, &token), "GET", "Number/", Value::Null).await;
    assert_eq!(seen["meta"]["total_count"], 2);
    let (_, number) = node.rest((&sub, &token), "GET", &path, Value::Null).await;
    assert_eq!(
        (&number["alias"], &number["sub_account"]),
        (&"Sales".into(), &format!("/v1/Account/{sub}/").into())
    );
    // The next call belongs to the subaccount.
    let tables = node.gate.directory().tables().clone();
    assert_eq!(tables.number(&"1001".into()).unwrap().account.auth_id.as_str(), sub);
    let filtered = format!("Number/?subaccount={sub}&alias=Sales&number_startswith=%2B91");
    assert_eq!(node.main("GET", &filtered, Value::Null).await.1["meta"]["total_count"], 1);
    for (bad, field) in [
        (json!({"subaccount": OTHER}), "subaccount"),
        (json!({"subaccount": "SAZZZZZZZZZZZZZZZZZZ"}), "subaccount"),
        (json!({"app_id": "12345"}), "app_id"),
        (json!({"alias": "x".repeat(101)}), "alias"),
    ] {
        let answer = node.main("POST", &path, bad.clone()).await;
        assert!(answer.0 == 400 && error(&answer).1.starts_with(field), "{bad}: {answer:?}");
    }
    let by_sub = node.rest((&sub, &token), "POST", &path, json!({"subaccount": MAIN})).await;
    assert_eq!(error(&by_sub), (400, "subaccount can be changed by the main account only"));
    assert_eq!(node.rest((OTHER, "token"), "POST", &path, json!({"alias": "Mine"})).await.0, 404);
    // When the subaccount is deleted, its numbers return to the main account, and so do its
    // applications.
    let app = json!({"app_name": "Of sub", "subaccount": sub, "answer_url": "https://app.example.com/sub"});
    let app = node.application(app).await;
    assert_eq!(
        node.rest((&sub, &token), "GET", &format!("Application/{app}/"), Value::Null).await.0,
        200
    );
    assert_eq!(node.main("DELETE", &format!("Subaccount/{sub}/"), Value::Null).await.0, 204);
    let (_, number) = node.main("GET", &path, Value::Null).await;
    assert_eq!((&number["sub_account"], &number["alias"]), (&Value::Null, &"Sales".into()));
    let (status, app) = node.main("GET", &format!("Application/{app}/"), Value::Null).await;
    assert_eq!((status, &app["sub_account"]), (200, &Value::Null));
    node.cancel.cancel();
}

#[tokio::test]
async fn deletes_a_subaccount_with_its_applications_on_request() {
    let node = run().await;
    for (path, body) in [("?cascade=true", Value::Null), ("", json!({"cascade": true}))] {
        let (sub, _) = node.subaccount("One").await;
        let app = node.application(json!({"app_name": "a", "subaccount": sub})).await;
        assert_eq!(node.main("DELETE", &format!("Subaccount/{sub}/{path}"), body).await.0, 204);
        assert_eq!(node.main("GET", &format!("Application/{app}/"), Value::Null).await.0, 404);
    }
    // A body that can't be decoded counts as absent.
    let (sub, _) = node.subaccount("One").await;
    let basic = STANDARD.encode(format!("{MAIN}:token"));
    let head = format!(
        "authorization: Basic {basic}\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
    );
    let answer =
        node.ask("DELETE", &format!("/v1/Account/{MAIN}/Subaccount/{sub}/"), &head, "{{{").await;
    assert_eq!(answer.status, 204);
    node.cancel.cancel();
}

#[tokio::test]
async fn an_application_answers_a_number_that_has_no_url_of_its_own() {
    let node = run().await;
    let app = node
        .application(json!({
            "app_name": "Menu", "answer_url": "https://app.example.com/menu", "answer_method": "GET",
            "hangup_url": "https://app.example.com/bye", "fallback_answer_url": "https://app.example.com/else",
            "fallback_method": "get", "message_url": "https://app.example.com/text", "default_endpoint_app": true,
        }))
        .await;
    let (status, mut shown) = node.main("GET", &format!("Application/{app}/"), Value::Null).await;
    shown["api_id"].take();
    let expected = json!({
        "api_id": null, "answer_method": "GET", "answer_url": "https://app.example.com/menu", "app_id": app,
        "app_name": "Menu", "application_type": "XML", "default_app": false, "default_endpoint_app": true,
        "enabled": true, "fallback_answer_url": "https://app.example.com/else", "fallback_method": "GET",
        "hangup_method": "POST", "hangup_url": "https://app.example.com/bye", "log_incoming_message": true,
        "message_method": "POST", "message_url": "https://app.example.com/text", "public_uri": false,
        "resource_uri": format!("/v1/Account/{MAIN}/Application/{app}/"), "sip_uri":
        format!("sip:{app}@calls.example.com"), "sub_account": null,
    });
    assert_eq!((status, shown), (200, expected));
    let spec = |id: &str| node.gate.directory().tables().number(&id.into()).unwrap().spec.clone();
    assert!(!spec("1009").calling_enabled, "without a document no call is taken");
    for number in [BARE, NUMBERS[0].0] {
        assert_eq!(
            node.main("POST", &format!("Number/{number}/"), json!({"app_id": app})).await.0,
            202
        );
    }
    let (url, method) = spec("1009").answer.unwrap();
    assert_eq!((&*url.0, method), ("https://app.example.com/menu", model::Method::Get));
    assert_eq!(&*spec("1009").hangup.unwrap().0.0, "https://app.example.com/bye");
    assert!(spec("1009").calling_enabled);
    assert_eq!(
        &*spec("1001").answer.unwrap().0.0,
        "https://app.example.com/own",
        "its own comes first"
    );
    assert_eq!(spec("1001").hangup, None);
    // Endpoints use the default application.
    let tables = node.gate.directory().tables().clone();
    let default = tables.endpoints_application(&SUB.into()).unwrap();
    assert_eq!(
        (default.id.as_str(), tables.application(&model::AppId::from(app.as_str())).is_some()),
        (&*app, true)
    );
    // A change affects the next call. A new default application replaces the previous one.
    let path = format!("Application/{app}/");
    assert_eq!(
        node.main(
            "POST",
            &path,
            json!({"answer_url": "https://app.example.com/new", "hangup_url": ""})
        )
        .await
        .0,
        202
    );
    assert_eq!(&*spec("1009").answer.unwrap().0.0, "https://app.example.com/new");
    assert_eq!(spec("1009").hangup, None);
    let second =
        node.application(json!({"app_name": "Second", "default_endpoint_app": "true"})).await;
    let (_, list) = node.main("GET", "Application/?limit=20", Value::Null).await;
    let names: Vec<_> = list["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["default_endpoint_app"].as_bool())
        .collect();
    assert_eq!((names.len(), names.iter().filter(|is| **is == Some(true)).count()), (2, 1));
    let (_, named) = node.main("GET", "Application/?app_name=Second", Value::Null).await;
    assert_eq!(named["objects"][0]["app_id"], *second);
    for (bad, field) in [
        (json!({"answer_url": "https://10.0.0.1/"}), "answer_url is invalid"),
        (
            json!({"fallback_answer_url": "ftp://app.example.com/"}),
            "fallback_answer_url is invalid",
        ),
        (json!({"hangup_method": "PUT"}), "hangup_method must be GET or POST"),
        (json!({"public_uri": 7}), "public_uri must be true or false"),
        (json!({"app_name": ""}), "app_name parameter is missing"),
        (json!({"subaccount": "SAZZZZZZZZZZZZZZZZZZ"}), "subaccount is invalid"),
    ] {
        let answer = node.main("POST", &path, bad.clone()).await;
        assert!(answer.0 == 400 && error(&answer).1.starts_with(field), "{bad}: {answer:?}");
    }
    assert_eq!(
        error(&node.main("POST", "Application/", json!({})).await),
        (400, "app_name parameter is missing")
    );
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(
            node.rest((OTHER, "token"), method, &path, json!({"app_name": "x"})).await.0,
            404,
            "{method}"
        );
        assert_eq!(
            node.rest((SUB, "token"), method, &path, json!({"app_name": "x"})).await.0,
            404,
            "{method}"
        );
    }
    // The application can't be deleted while a number depends on it. A number with its own URL does
    // not.
    let used = node.main("DELETE", &path, Value::Null).await;
    assert!(used.0 == 409 && error(&used).1.contains(BARE), "{used:?}");
    let emptied = node.main("POST", &path, json!({"answer_url": ""})).await;
    assert_eq!(emptied.0, 409, "{emptied:?}");
    let bare_path = format!("Number/{BARE}/");
    let empty = node.application(json!({"app_name": "Without a URL"})).await;
    for instead in ["", &*empty] {
        let left = node.main("POST", &bare_path, json!({"app_id": instead})).await;
        assert!(left.0 == 409 && error(&left).1.contains("no answer URL of its own"), "{left:?}");
    }
    assert_eq!(node.main("POST", &bare_path, json!({"alias": "Bare"})).await.0, 202);
    let answer = json!({"answer_url": "https://app.example.com/second"});
    assert_eq!(node.main("POST", &format!("Application/{second}/"), answer).await.0, 202);
    assert_eq!(
        node.main("POST", &format!("Number/{BARE}/"), json!({"app_id": second})).await.0,
        202
    );
    assert_eq!(node.main("DELETE", &path, Value::Null).await.0, 204);
    let (_, number) = node.main("GET", &format!("Number/{}/", NUMBERS[0].0), Value::Null).await;
    assert_eq!(number["application"], Value::Null);
    node.cancel.cancel();
}

#[tokio::test]
async fn settings_survive_a_restart() {
    let node = run().await;
    let (sub, token) = node.subaccount("One").await;
    let app = node
        .application(json!({"app_name": "Menu", "answer_url": "https://app.example.com/menu"}))
        .await;
    let set = json!({"app_id": app, "alias": "Night", "subaccount": sub});
    assert_eq!(node.main("POST", &format!("Number/{BARE}/"), set).await.0, 202);
    assert_eq!(
        node.main("POST", &format!("Number/{}/", NUMBERS[0].0), json!({"alias": "Other"})).await.0,
        202
    );
    let accounts = node.file.accounts.clone();
    let book = |file: config::Config, settings| {
        engine::admission::book::Book::read(file.admission(), settings, at(9))
    };
    let (again, writes, passed_over) =
        book(file(accounts.clone()), node.store.settings().list().await.unwrap().1);
    assert!(passed_over.is_empty(), "{passed_over:?}");
    let main = Scope::of(MAIN.into());
    let bare = again.number(&main, &E164::parse(BARE).unwrap()).unwrap();
    assert_eq!(
        (&*bare.set.alias, bare.set.app.as_ref().map(|a| a.as_str())),
        ("Night", Some(&*app))
    );
    assert_eq!((again.owner(bare).as_str(), bare.set.added), (&*sub, at(0)));
    let kept = again.account(&sub.as_str().into()).unwrap();
    assert_eq!((kept.tokens[0].reveal(), &*kept.details.name), (&*token, "One"));
    // Values in the configuration file win, and are stored.
    let first = again.number(&main, &E164::parse(NUMBERS[0].0).unwrap()).unwrap();
    assert_eq!(&*first.set.alias, "Support");
    assert_eq!(writes.iter().map(|w| &*w.id).collect::<Vec<_>>(), [NUMBERS[0].0]);
    // A configuration that moves the WABA to a subaccount, and one without the main account.
    let mut given = file(accounts.clone());
    given.wabas[0].account = SUB.into();
    let (given, _, _) = book(given, node.store.settings().list().await.unwrap().1);
    let bare = given.number(&main, &E164::parse(BARE).unwrap()).unwrap();
    assert_eq!(given.owner(bare).as_str(), SUB);
    let mut without = file(accounts.into_iter().filter(|a| a.auth_id.as_str() == OTHER).collect());
    without.numbers.clear();
    let (without, _, passed_over) = book(without, node.store.settings().list().await.unwrap().1);
    assert!(without.account(&sub.as_str().into()).is_none());
    assert!(passed_over.iter().any(|row| row.id == sub), "{passed_over:?}");
    node.cancel.cancel();
}

/// Each documented field is read by its name and rejects values of the wrong type, and required
/// fields are required.
#[tokio::test]
async fn reads_the_documented_fields() {
    let node = run().await;
    let app = node.application(json!({"app_name": "Menu"})).await;
    let live = uuid(101).to_string();
    let url = "https://app.example.com/x";
    for (id, path, body) in [
        ("makeCalls", "Call/".to_owned(), order()),
        ("transferCall", format!("Call/{live}/"), json!({"aleg_url": url})),
        ("playInCall", format!("Call/{live}/Play/"), json!({"urls": url})),
        ("speakInCall", format!("Call/{live}/Speak/"), json!({"text": "x"})),
        ("sendDigits", format!("Call/{live}/DTMF/"), json!({"digits": "1"})),
        ("recordCall", format!("Call/{live}/Record/"), json!({"file_format": "wav"})),
        ("changeAccount", String::new(), json!({"name": "x"})),
        ("makeSubaccount", "Subaccount/".to_owned(), json!({"name": "x"})),
        ("changeSubaccount", format!("Subaccount/{SUB}/"), json!({"name": "x"})),
        ("changeNumber", format!("Number/{BARE}/"), json!({"alias": "x"})),
        ("makeApplication", "Application/".to_owned(), json!({"app_name": "x"})),
        ("makeEndpoint", "Endpoint/".to_owned(), json!({"username": "x", "password": "12345"})),
        ("changeApplication", format!("Application/{app}/"), json!({"app_name": "x"})),
    ] {
        let (status, answer) = node.main("POST", &path, body.clone()).await;
        assert!((201..=202).contains(&status), "{id}: {answer}");
        let mut routes = plivo::TABLES.iter().copied().flatten();
        let route = routes.find(|route| route.operation.id == id).unwrap();
        let Some(BodyContent::Fields(groups)) =
            route.operation.body.as_ref().map(|body| &body.content)
        else {
            panic!("{id} has no fields")
        };
        for field in groups.iter().copied().flatten() {
            // The fields of a leg are ignored unless the request is for that leg.
            if field.name.starts_with("bleg_") || matches!(field.kind, FieldKind::Unused) {
                continue;
            }
            let mut with = body.clone();
            with[field.name] = json!({"an": "object"});
            let answer = node.main("POST", &path, with).await;
            assert!(
                answer.0 == 400 && error(&answer).1.starts_with(field.name),
                "{id} {}: {answer:?}",
                field.name
            );
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(field.name);
            if field.is_required {
                let answer = node.main("POST", &path, without).await;
                assert!(
                    answer.0 == 400 && error(&answer).1.starts_with(field.name),
                    "{id} {}: {answer:?}",
                    field.name
                );
            }
        }
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn a_change_takes_effect_after_its_future_is_dropped() {
    let node = run().await;
    let number = E164::parse(BARE).unwrap();
    let keeper = node.keeper.clone();
    let mut change = Box::pin(keeper.change(at(1), |book| {
        let keys = book.edit_number(&number, |set| set.alias = "Gone".to_owned());
        Ok::<_, ()>(((), keys))
    }));
    assert!(futures_util::poll!(change.as_mut()).is_pending());
    drop(change);
    // The next change waits for the previous one.
    let nothing = keeper.change(at(2), |_| Ok::<_, ()>(((), Vec::new())));
    assert!(nothing.await.is_ok());
    let main = Scope::of(MAIN.into());
    assert_eq!(keeper.book().number(&main, &number).unwrap().set.alias, "Gone");
    node.cancel.cancel();
}

#[tokio::test]
async fn lists_no_recordings_and_conferences() {
    let node = run().await;
    let (status, list) = node.main("GET", "Recording/?limit=5", Value::Null).await;
    assert_eq!(
        (status, &list["objects"], &list["meta"]["total_count"]),
        (200, &json!([]), &json!(0))
    );
    assert_eq!(node.main("GET", "Recording/?limit=0", Value::Null).await.0, 400);
    assert_eq!(
        error(&node.main("GET", "Recording/x/", Value::Null).await),
        (404, "recording not found")
    );
    assert_eq!(
        error(&node.main("DELETE", "Recording/x/", Value::Null).await),
        (404, "recording not found")
    );
    assert_eq!(node.main("GET", "Conference/", Value::Null).await.1["conferences"], json!([]));
    assert_eq!(
        error(&node.main("GET", "Conference/a%20b/", Value::Null).await),
        (404, "conference not found")
    );
    assert_eq!(
        error(&node.main("DELETE", "Conference/a/", Value::Null).await),
        (404, "conference not found")
    );
    assert_eq!(node.main("DELETE", "Conference/", Value::Null).await.0, 204);
    node.cancel.cancel();
}

/// A misspelt field would otherwise be dropped: a user would be called with another document.
#[tokio::test]
async fn unknown_fields_are_refused_with_the_nearest_known_name() {
    let node = run().await;
    let call =
        json!({"from": NUMBERS[0].0, "to": "919812345678", "answerURL": "https://a.example"});
    let agent = json!({"name": "Asha", "kind": "http", "chanels": ["whatsapp"]});
    let user = json!({"name": "ravi", "role": "agent", "full_name": "Ravi"});
    let message = "unknown field answerURL: did you mean `answerUrl`?";
    for (method, path, body, field, known) in [
        ("POST", "calls/", call, "answerURL", "answerUrl"),
        ("POST", "agents/", agent, "chanels", "channels"),
        ("POST", "users/", user, "full_name", "fullName"),
        (
            "PATCH",
            "phone-numbers/918035737458/",
            json!({"webhookurl": null}),
            "webhookurl",
            "webhookUrl",
        ),
    ] {
        let answer = node.ours(MAIN, method, path, &body.to_string()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["field"].as_str()), (400, Some(field)), "{error}");
        let hint = format!("unknown field {field}: did you mean `{known}`?");
        assert_eq!(error["message"], hint.as_str());
    }
    // An operation without fields.
    let path = "notifications/read-all/";
    let answer = node.ours(MAIN, "POST", path, "{\"before\": 7}").await;
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("before")));
    let message_of_none = "unknown field before: this request has no fields";
    assert_eq!(answer.json()["error"]["message"], message_of_none);
    for empty in ["", "{}", "null"] {
        assert_eq!(node.ours(MAIN, "POST", path, empty).await.status / 100, 2);
    }
    // A client may send a number back as it read it.
    let path = "phone-numbers/918035737458/";
    let mut number = node.ours(MAIN, "GET", path, "").await.json();
    number["alias"] = "Desk".into();
    let answer = node.ours(MAIN, "PATCH", path, &number.to_string()).await;
    assert!(!answer.body.contains("unknown field"), "{}", answer.body);

    let who = (MAIN, "token");
    let plivo =
        json!({"from": NUMBERS[0].0, "to": "919812345678", "answerURL": "https://a.example"});
    let (status, answer) = node.rest(who, "POST", "Call/", plivo).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"], message.replace("answerUrl", "answer_url").as_str());
    let sent_by_sdks = json!({"alias": "Desk", "number": "918035737458", "verification_info": {}, "callback_url": "https://a.example"});
    assert_eq!(node.rest(who, "POST", "Number/918035737458/", sent_by_sdks).await.0, 202);
    node.cancel.cancel();
}

#[tokio::test]
async fn endpoints_outlive_their_application_unless_they_are_deleted_with_it() {
    let node = run().await;
    let app = async |name: &str| {
        let url = "https://app.example.com/a";
        node.application(json!({"app_name": name, "answer_url": url})).await
    };
    let endpoint = async |name: &str, app: &str| {
        let body = json!({"username": name, "password": "12345", "app_id": app});
        let (status, made) = node.main("POST", "Endpoint/", body).await;
        assert_eq!(status, 201, "{made}");
        format!("Endpoint/{}/", made["endpoint_id"].as_str().unwrap())
    };
    let remove = async |app: &str, query: &str, body: Value| {
        node.main("DELETE", &format!("Application/{app}/{query}"), body).await.0
    };
    let shown = async |path: &str| node.main("GET", path, Value::Null).await;
    let (first, second, third) = (app("a").await, app("b").await, app("c").await);
    let asha = endpoint("asha", &first).await;
    assert_eq!(
        remove(&first, &format!("?new_endpoint_application={first}"), Value::Null).await,
        400
    );
    assert_eq!(remove(&first, "?new_endpoint_application=1", Value::Null).await, 400);
    let instead = json!({"cascade": false, "new_endpoint_application": second});
    assert_eq!(remove(&first, "", instead).await, 204);
    let uri = format!("/v1/Account/{MAIN}/Application/{second}/");
    assert_eq!(shown(&asha).await.1["application"], uri.as_str());
    assert_eq!(remove(&second, "", Value::Null).await, 204);
    assert_eq!(shown(&asha).await.1["application"], Value::Null);
    let ravi = endpoint("ravi", &third).await;
    assert_eq!(remove(&third, "?cascade=true", Value::Null).await, 204);
    assert_eq!((shown(&asha).await.0, shown(&ravi).await.0), (200, 404));
    node.cancel.cancel();
}

/// Changes over the APIs may not use up the space that calls need. What frees space is possible.
#[tokio::test]
async fn r11_changes_leave_half_of_the_reserve_of_the_disk() {
    let node = run().await;
    let label = async |name: &str| {
        node.ours(MAIN, "POST", "labels/", &json!({"name": name, "colour": "red"}).to_string())
            .await
            .status
    };
    assert_eq!(label("first").await, 201);
    let app = node.application(json!({"app_name": "First"})).await;
    node.free.store((128 << 20) - 1, Ordering::Relaxed);
    node.clock.step(Duration::from_secs(1));
    assert_eq!(label("second").await, 503);
    let refused = node.main("POST", "Application/", json!({"app_name": "Second"})).await;
    assert!(refused.0 == 503 && error(&refused).1.contains("disk space"), "{refused:?}");
    let path = format!("Application/{app}/");
    assert_eq!(node.main("DELETE", &path, Value::Null).await.0, 204);
    node.free.store(128 << 20, Ordering::Relaxed);
    node.clock.step(Duration::from_secs(1));
    assert_eq!(label("second").await, 201);
}
