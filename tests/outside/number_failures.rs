//! Partial failures of numbers: a sync that Meta cuts short, two requests for the same WABA, a
//! token encrypted with another key.

use serde_json::{Value, json};

use crate::numbers::{NEW, NEW_ID, OTHER_KEY, SUB, WABA, World, credentials};
use crate::support::http;
use crate::support::node::{ACCESS_TOKEN, API_KEY, NUMBER};

#[tokio::test(flavor = "multi_thread")]
async fn s2_14_s2_15_an_interrupted_sync_stores_complete_numbers_and_reports_the_rest() {
    let mut world = World::start().await;
    world.synced().await;
    let numbers = ["918035737461", "918035737462", "918035737463"];
    for (number, id) in
        numbers.iter().zip(["206540352242901", "206540352242902", "206540352242903"])
    {
        let fields = json!({"quality_rating": "YELLOW", "platform_type": "CLOUD_API"});
        let order = json!({"number": number, "phone_number_id": id, "waba": WABA, "name": "Shop", "facts": fields});
        world.orders("numbers", order).await;
    }
    let sync = format!("wabas/{WABA}/sync/");
    let fails = |what: &str| json!([{"what": what, "status": 400, "code": 100, "details": "Unsupported get request"}]);
    // Without the list of numbers nothing is added.
    world.orders("failures", fails("phone_numbers")).await;
    let failed = world.does("POST", &sync, Value::Null, 502).await;
    assert_eq!(failed["error"]["meta"]["code"], 100, "{failed}");
    let there = async |world: &World| {
        world.does("GET", "phone-numbers/", Value::Null, 200).await["items"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(there(&world).await, 1);
    // The third number belongs to another account here. For another one Meta returns no calling
    // settings.
    let elsewhere = json!({"number": numbers[2], "phone_number_id": "206540352242903", "waba": "3029384756", "name": "Shop"});
    world.orders("numbers", elsewhere.clone()).await;
    let theirs = json!({"displayName": "Theirs", "whatsappPhoneNumberId": "206540352242903",
        "whatsappBusinessAccount": "3029384756", "accessToken": ACCESS_TOKEN});
    let theirs = world.ask(OTHER_KEY, "POST", "phone-numbers/", theirs).await;
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    let mut ours = elsewhere;
    ours["waba"] = json!(WABA);
    world.orders("numbers", ours).await;
    world.orders("failures", fails("settings")).await;
    let synced = world.does("POST", &sync, Value::Null, 200).await;
    assert_eq!(synced["added"], json!(numbers[..2]), "{synced}");
    assert_eq!(synced["leftOut"], json!([{"number": numbers[2], "reason": "taken"}]), "{synced}");
    let unread = synced["settingsUnread"].as_array().unwrap().clone();
    assert_eq!(unread.len(), 1, "{synced}");
    // The added number is complete, also after a restart.
    world.node.kill();
    world.node.start_again().await;
    for number in &numbers[..2] {
        let shown = world.does("GET", &format!("phone-numbers/{number}/"), Value::Null, 200).await;
        let shown_fields =
            ["verifiedName", "platformType", "qualityRating"].map(|name| shown[name].clone());
        assert_eq!(shown_fields, ["Shop", "CLOUD_API", "YELLOW"], "{shown}");
        assert!(shown["syncedAt"].is_string(), "{shown}");
    }
    assert_eq!(
        world
            .ask(API_KEY, "GET", &format!("phone-numbers/{}/", numbers[2]), Value::Null)
            .await
            .status,
        404
    );
    let again = world.does("POST", &sync, Value::Null, 200).await;
    assert_eq!((&again["added"], &again["settingsUnread"]), (&json!([]), &json!([])), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_20_one_of_two_concurrent_mappings_of_a_waba_conflicts() {
    let world = World::start().await;
    let url = format!("{}/api/v1/wabas/{WABA}/", world.node.public);
    let seen = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    let tag = seen.headers["etag"].to_str().expect("a tag").to_owned();
    let owner = seen.json()["account"].as_str().expect("an account").to_owned();
    let give = || async {
        let headers = [("x-api-key", API_KEY), ("if-match", tag.as_str())];
        http::send("PATCH", &url, &headers, json!({"account": SUB}).to_string()).await
    };
    let all = futures_util::future::join_all((0..8).map(|_| give())).await;
    let mut statuses: Vec<u16> = all.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    let given = all.iter().find(|answer| answer.status == 200).expect("one").json();
    assert_eq!(given["account"], SUB, "{given}");
    let refused = all.iter().find(|answer| answer.status == 412).expect("one").json();
    assert!(refused["error"]["message"].as_str().expect("words").contains("If-Match"), "{refused}");
    // Without the header the last request wins. With the new tag the change is undone.
    let seen = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    let tag = seen.headers["etag"].to_str().expect("a tag");
    let headers = [("x-api-key", API_KEY), ("if-match", tag)];
    let back = http::send("PATCH", &url, &headers, json!({"account": owner}).to_string()).await;
    assert_eq!((back.status, &back.json()["account"]), (200, &json!(owner)));
}

#[tokio::test(flavor = "multi_thread")]
async fn r22_a_token_sealed_with_another_key_is_unreadable_until_that_key_returns() {
    let mut world = World::start_with(|config| config.is_single = true).await;
    let order =
        json!({"number": NEW, "phone_number_id": NEW_ID, "waba": "2029384756", "name": "Loja"});
    world.orders("numbers", order).await;
    let made = world.does("POST", "phone-numbers/", credentials(ACCESS_TOKEN), 201).await;
    assert_eq!((&made["hasToken"], &made["tokenShut"]), (&json!(true), &json!(false)), "{made}");
    let (key, away) =
        (world.node.dir.path().join("store.key"), world.node.dir.path().join("away.key"));
    let of_number = |lines: &[Value]| -> Vec<String> {
        let of = lines.iter().filter(|line| {
            line["check"] == "number" && line["subject"] == NEW && line["state"] == "failed"
        });
        of.map(|line| line["what"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(of_number(&world.node.doctor().await.1).iter().all(|what| !what.contains("sealed")));
    world.node.kill();
    std::fs::rename(&key, &away).expect("moved");
    world.node.start_again().await;
    let shown = world.does("GET", &format!("phone-numbers/{NEW}/"), Value::Null, 200).await;
    assert_eq!(shown["tokenShut"], true, "{shown}");
    let others = world.does("GET", &format!("phone-numbers/{NUMBER}/"), Value::Null, 200).await;
    assert_eq!(others["tokenShut"], false, "the configuration's own is nobody's to seal: {others}");
    let (code, lines) = world.node.doctor().await;
    let findings = of_number(&lines);
    assert_eq!(
        (code, findings.iter().any(|what| what.contains("another store.secret_key"))),
        (Some(1), true),
        "{lines:?}"
    );
    world.node.kill();
    std::fs::rename(&away, &key).expect("moved back");
    world.node.start_again().await;
    let shown = world.does("GET", &format!("phone-numbers/{NEW}/"), Value::Null, 200).await;
    assert_eq!((&shown["hasToken"], &shown["tokenShut"]), (&json!(true), &json!(false)), "{shown}");
    assert!(of_number(&world.node.doctor().await.1).iter().all(|what| !what.contains("sealed")));
}
