//! The official SDKs against a running node, unmodified except for the base URL: every resource,
//! and the signature validators for every kind of request of a call. `docs/sdk.md` lists what is
//! supported.

use serde_json::{Value, json};
use sim::{CallScript, CalleeAction, EventOrder, HangupRule, caller};

use crate::outbound::{USER, ends, user, world};
use crate::support::app::ReceivedRequest;
use crate::support::node::{AUTH_ID, AUTH_TOKEN, NUMBER};
use crate::support::sdk::{self, Sdk};

/// Validates a request's signatures with the SDK: with the token of the account that owns the
/// number, and of its main account.
fn validate(sdk: &mut Sdk, seen: &ReceivedRequest, own: &str, main: &str) {
    let header = |name: &str| {
        seen.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    // The parameters of a GET are in its URL, which this SDK reads only if they are ASCII
    // (docs/sdk.md#signatures-of-get-requests).
    let is_ascii = seen.params.values().all(|value| value.is_ascii());
    let (url, params) = match seen.url.split_once('?').filter(|_| seen.method == "GET") {
        Some((base, _)) if !is_ascii => (base, json!(seen.params)),
        Some(_) => (seen.url.as_str(), json!({})),
        None => (seen.url.as_str(), json!(seen.params)),
    };
    for (header_name, token) in [("x-plivo-signature-v3", own), ("x-plivo-signature-ma-v3", main)] {
        let nonce = header("x-plivo-signature-v3-nonce");
        let arguments = json!([seen.method, url, nonce, token, header(header_name), params]);
        assert_eq!(
            sdk.ok("utils.validate_v3_signature", arguments),
            true,
            "{header_name} of {seen:#?}"
        );
        let wrong = json!([seen.method, url, nonce, "another token", header(header_name), params]);
        assert_eq!(sdk.ok("utils.validate_v3_signature", wrong), false);
    }
    for (header_name, token) in [("x-plivo-signature-v2", own), ("x-plivo-signature-ma-v2", main)] {
        let nonce = header("x-plivo-signature-v2-nonce");
        let arguments = json!([seen.url, nonce, header(header_name), token]);
        assert_eq!(
            sdk.ok("utils.validate_signature", arguments),
            true,
            "{header_name} of {seen:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_places_and_ends_calls() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    let user = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
    let order = json!({
        "from_": NUMBER, "to_": USER, "answer_url": world.app.url("/answer"), "answer_method": "POST",
        "ring_url": world.app.url("/ring"), "hangup_url": world.app.url("/hangup"), "time_limit": 60,
    });
    let made = sdk.ok("calls.create", order.clone());
    let uuid = made["request_uuid"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    world.app.wait("/answer").await;
    for list in ["calls.live_call_list_ids", "live_calls.list_ids"] {
        let live = sdk.ok(list, Value::Null);
        assert!(live.to_string().contains(&uuid), "{list}: {live}");
    }
    assert_eq!(
        sdk.ok("calls.queued_call_list_ids", Value::Null).to_string().matches(&uuid).count(),
        0
    );
    assert_eq!(sdk.ok("calls.live_call_get", json!([uuid]))["call_status"], "in-progress");
    sdk.ok("calls.delete", json!([uuid]));
    assert_eq!(ends(&world, &uuid).await, ["4000", "API Request", "completed"]);
    user.all().await;
    world.node.record(&uuid).await;
    assert_eq!(sdk.ok("calls.get", json!([uuid]))["call_direction"], "outbound");
    let listed = sdk.ok("calls.list", json!({"call_direction": "outbound", "limit": 5}));
    assert_eq!(listed["objects"][0]["call_uuid"], *uuid, "{listed}");
    assert_eq!(sdk.ok("walk", json!("calls")).as_array().map(Vec::len), Some(1));
    let with = |name: &str, value: Value| {
        let mut order = order.clone();
        order[name] = value;
        order
    };
    sdk.raises("ValidationError", "calls.create", with("ring_timeout", json!(601)));
    sdk.raises("InvalidRequestError", "calls.create", with("from_", json!("919999999999")));
    sdk.raises("ResourceNotFoundError", "calls.cancel", json!([uuid]));
    sdk.raises("ResourceNotFoundError", "calls.delete", json!([uuid]));
}

/// The SDK's validators accept every kind of request of a call, POST and GET: answer and fallback,
/// ring, redirect, actions with `redirect` true and false, hangup; with and without a query and a
/// fragment in the URL.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_validators_accept_every_request() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    let url = |path: &str| world.app.url(path);
    world.app.route("/answer", |_| (500, String::new()));
    let (over, menu, notice, digits) =
        (url("/over?b=2&amp;a=1"), url("/menu"), url("/notice?x=%20y"), url("/digits"));
    world.app.xml(
        "/fallback",
        format!("<Response><Redirect method=\"GET\">{over}</Redirect></Response>"),
    );
    let asks = format!(
        "<Response><GetInput action=\"{menu}\" method=\"GET\" numDigits=\"1\"><Speak>One.</Speak></GetInput></Response>"
    );
    world.app.xml("/over", asks);
    let tells = format!(
        "<Response><GetInput action=\"{notice}\" redirect=\"false\" numDigits=\"1\"><Speak>Two.</Speak></GetInput>\
         <GetDigits action=\"{digits}#rc=2&amp;rp=5xx\" numDigits=\"1\"><Speak>Three.</Speak></GetDigits></Response>"
    );
    world.app.xml("/menu", tells);
    world.app.xml("/notice", "");
    world.app.xml("/digits", "<Response><Hangup/></Response>");
    let keys = caller::parse_keys("1w2w3").expect("keys");
    let script = CallScript { keys, ..user(CalleeAction::Accept, EventOrder::ConnectFirst) };
    let user = world.sim.expect_call(script);
    let mut order = world.order();
    order["answer_url"] = format!("{}?tenant=acme&lang=hi#ct=1500", url("/answer")).into();
    order["fallback_url"] = url("/fallback").into();
    order["fallback_method"] = "GET".into();
    order["hangup_url"] = url("/hangup").into();
    order["hangup_method"] = "GET".into();
    order["sip_headers"] = "Plan=gold".into();
    order["caller_name"] = "Ärger आशा".into();
    let uuid = world.placed(&order).await;
    world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
    user.all().await;
    for (path, method) in [
        ("/ring", "POST"),
        ("/answer", "POST"),
        ("/fallback", "GET"),
        ("/over", "GET"),
        ("/menu", "GET"),
        ("/notice", "POST"),
        ("/digits", "POST"),
        ("/hangup", "GET"),
    ] {
        let seen = world.app.wait(path).await;
        assert_eq!(seen.method, method, "{path}");
        assert_eq!((seen.param("CallUUID"), seen.param("X-PH-Plan")), (&*uuid, "gold"), "{path}");
        assert_eq!(seen.param("CallerName"), "Ärger आशा", "{path}");
        validate(&mut sdk, &seen, AUTH_TOKEN, AUTH_TOKEN);
    }
}

/// A new subaccount owns a number, places a call from it, and its callbacks are signed with its
/// token. The main account sees the call, and the callbacks carry its signature too.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_subaccount_places_calls_of_its_own() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    let sub = sdk.ok("subaccounts.create", json!({"name": "One", "enabled": true}));
    let (id, token) = (sub["auth_id"].as_str().unwrap(), sub["auth_token"].as_str().unwrap());
    let mut own = sdk::python(&world.node.public, id, token).expect("as above");
    let order = json!({
        "from_": NUMBER, "to_": USER, "answer_url": world.app.url("/answer"), "answer_method": "POST",
        "hangup_url": world.app.url("/hangup"),
    });
    let refused = own.raises("InvalidRequestError", "calls.create", order.clone());
    assert!(
        refused.contains("is not a calling-enabled WhatsApp number of your account"),
        "{refused}"
    );
    sdk.ok("numbers.update", json!({"number": NUMBER, "subaccount": id}));
    world.app.xml("/answer", "<Response><Hangup/></Response>");
    let user = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
    let uuid = own.ok("calls.create", order)["request_uuid"].as_str().unwrap().to_owned();
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("CallUUID"), hangup.param("ParentAuthID")), (&*uuid, AUTH_ID));
    validate(&mut sdk, &world.app.wait("/answer").await, token, AUTH_TOKEN);
    validate(&mut sdk, &hangup, token, AUTH_TOKEN);
    user.all().await;
    world.node.record(&uuid).await;
    for sdk in [&mut sdk, &mut own] {
        assert_eq!(
            sdk.ok("calls.list", json!({"subaccount": id}))["objects"][0]["call_uuid"],
            *uuid
        );
    }
    // After the subaccount's deletion its number and records belong to the main account.
    sdk.ok("subaccounts.delete", json!([id]));
    own.raises("AuthenticationError", "calls.get", json!([uuid]));
    assert_eq!(sdk.ok("calls.get", json!([uuid]))["call_uuid"], *uuid);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_manages_the_account() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    let account = sdk.ok("account.get", Value::Null);
    assert_eq!(
        (&account["auth_id"], &account["cps"], &account["calls_live"]),
        (&json!(AUTH_ID), &json!(100), &json!(0))
    );
    assert_eq!(
        sdk.ok("account.update", json!({"name": "Asha", "city": "Pune"}))["message"],
        "changed"
    );
    assert_eq!(sdk.ok("account.get", Value::Null)["name"], "Asha");

    let sub = sdk.ok("subaccounts.create", json!({"name": "One", "enabled": true}));
    let (id, token) = (sub["auth_id"].as_str().unwrap(), sub["auth_token"].as_str().unwrap());
    assert_eq!(sdk.ok("subaccounts.get", json!([id]))["auth_token"], token);
    let mut of_sub = sdk::python(&world.node.public, id, token).expect("as above");
    assert_eq!(of_sub.ok("account.get", Value::Null)["auth_id"], id);
    of_sub.raises("ResourceNotFoundError", "subaccounts.get", json!([id]));
    assert_eq!(
        sdk.ok("subaccounts.update", json!({"auth_id": id, "name": "Two"}))["message"],
        "changed"
    );
    of_sub.raises("AuthenticationError", "account.get", Value::Null);
    assert_eq!(sdk.ok("subaccounts.list", json!({"limit": 1}))["objects"][0]["name"], "Two");

    let app = json!({"app_name": "menu", "answer_url": world.app.url("/answer"), "default_endpoint_app": true});
    let app = sdk.ok("applications.create", app)["app_id"].as_str().unwrap().to_owned();
    assert_eq!(sdk.ok("applications.get", json!([app]))["answer_url"], world.app.url("/answer"));
    let update = json!({"app_id": app, "answer_url": world.app.url("/other"), "subaccount": id});
    assert_eq!(sdk.ok("applications.update", update)["message"], "changed");
    let listed = sdk.ok("applications.list", json!({"subaccount": id}));
    assert_eq!(listed["objects"][0]["answer_url"], world.app.url("/other"), "{listed}");
    assert_eq!(sdk.ok("walk", json!("applications")).as_array().map(Vec::len), Some(1));

    assert_eq!(sdk.ok("numbers.list", Value::Null)["objects"][0]["number"], NUMBER);
    let update = json!({"number": NUMBER, "alias": "Support", "app_id": app, "subaccount": id});
    assert_eq!(sdk.ok("numbers.update", update)["message"], "changed");
    let number = sdk.ok("numbers.get", json!([NUMBER]));
    assert_eq!(
        (&number["alias"], number["sub_account"].as_str().is_some_and(|s| s.contains(id))),
        (&json!("Support"), true)
    );
    sdk.raises("ValidationError", "numbers.update", json!({"number": NUMBER, "app_id": "1"}));
    sdk.raises("InvalidRequestError", "numbers.delete", json!([NUMBER]));
    sdk.ok("applications.delete", json!({"app_id": app, "cascade": false}));
    sdk.raises("ResourceNotFoundError", "applications.get", json!([app]));
    sdk.ok("subaccounts.delete", json!({"auth_id": id, "cascade": true}));
    sdk.raises("ResourceNotFoundError", "subaccounts.get", json!([id]));

    assert_eq!(sdk.ok("recordings.list", Value::Null)["objects"], json!([]));
    sdk.raises("ResourceNotFoundError", "recordings.get", json!(["x"]));
    sdk.raises("ResourceNotFoundError", "recordings.delete", json!(["x"]));
    assert_eq!(sdk.ok("conferences.list", Value::Null)["conferences"], json!([]));
    sdk.raises("ResourceNotFoundError", "conferences.get", json!(["room"]));
    sdk.raises("ResourceNotFoundError", "conferences.delete", json!(["room"]));
    sdk.ok("conferences.delete_all", Value::Null);
    let message = sdk.raises("ResourceNotFoundError", "messages.get", json!(["x"]));
    assert_eq!(message, "not available on this server");
    sdk.raises("ResourceNotFoundError", "pricing.get", json!(["IN"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_places_calls_and_manages_the_account() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::node(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    let user = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
    let optional = json!({"ringUrl": world.app.url("/ring"), "hangupUrl": world.app.url("/hangup"), "timeLimit": 60});
    let made = sdk.ok("calls.create", json!([NUMBER, USER, world.app.url("/answer"), optional]));
    let uuid = made["requestUuid"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    world.app.wait("/answer").await;
    let live = sdk.ok("calls.listLiveCalls", json!([{}]));
    assert!(live.to_string().contains(&uuid), "{live}");
    assert_eq!(sdk.ok("calls.getLiveCall", json!([uuid]))["callStatus"], "in-progress");
    assert!(!sdk.ok("calls.listQueuedCalls", Value::Null).to_string().contains(&uuid));
    sdk.refuses("not found", "calls.getQueuedCall", json!([uuid]));
    sdk.ok(
        "calls.playMusic",
        json!([uuid, world.app.url("/tone.wav"), {"legs": "aleg", "mix": true}]),
    );
    sdk.ok("calls.stopPlayingMusic", json!([uuid]));
    sdk.ok("calls.speakText", json!([uuid, "Hello", {"voice": "MAN", "language": "en-GB"}]));
    sdk.ok("calls.stopSpeakingText", json!([uuid]));
    sdk.ok("calls.sendDigits", json!([uuid, "42", {"leg": "aleg"}]));
    world.app.xml("/other", "<Response><Wait length=\"60\"/></Response>");
    sdk.ok(
        "calls.transfer",
        json!([uuid, {"legs": "aleg", "alegUrl": world.app.url("/other"), "alegMethod": "POST"}]),
    );
    assert_eq!(world.app.wait("/other").await.param("Event"), "Redirect");
    sdk.ok("calls.hangup", json!([uuid]));
    assert_eq!(ends(&world, &uuid).await, ["4000", "API Request", "completed"]);
    user.all().await;
    world.node.record(&uuid).await;
    assert_eq!(sdk.ok("calls.get", json!([uuid]))["callDirection"], "outbound");
    let listed = sdk.ok("calls.list", json!([{"callDirection": "outbound"}]));
    assert!(listed.to_string().contains(&uuid), "{listed}");
    sdk.refuses("not found", "calls.cancel", json!([uuid]));

    let account = sdk.ok("accounts.get", Value::Null);
    assert_eq!(account["resourceUri"], format!("/v1/Account/{AUTH_ID}/"));
    sdk.ok("accounts.update", json!([{"name": "Asha"}]));
    let sub = sdk.ok("subaccounts.create", json!(["One", true]));
    let id = sub["authId"].as_str().unwrap_or_else(|| panic!("{sub}")).to_owned();
    assert_eq!(sdk.ok("subaccounts.get", json!([id]))["name"], "One");
    sdk.ok("subaccounts.update", json!([id, "Two", true]));
    assert!(sdk.ok("subaccounts.list", json!([{}])).to_string().contains("Two"));
    let app =
        sdk.ok("applications.create", json!(["menu", {"answerUrl": world.app.url("/answer")}]));
    let app = app["appId"].as_str().unwrap_or_else(|| panic!("{app}")).to_owned();
    assert_eq!(sdk.ok("applications.get", json!([app]))["answerUrl"], world.app.url("/answer"));
    sdk.ok("applications.update", json!([app, {"answerUrl": world.app.url("/other")}]));
    assert!(sdk.ok("applications.list", json!([{}])).to_string().contains("/other"));
    assert!(sdk.ok("numbers.list", json!([{}])).to_string().contains(NUMBER));
    sdk.ok("numbers.update", json!([NUMBER, {"alias": "Support", "appId": app}]));
    assert_eq!(sdk.ok("numbers.get", json!([NUMBER]))["alias"], "Support");
    sdk.ok("applications.delete", json!([app, {}]));
    sdk.refuses("not found", "applications.get", json!([app]));
    sdk.ok("subaccounts.delete", json!([id, true]));
    sdk.refuses("not found", "subaccounts.get", json!([id]));
    sdk.ok("recordings.list", json!([{}]));
    sdk.refuses("not found", "recordings.get", json!(["x"]));
    sdk.ok("conferences.list", json!([{}]));
    sdk.refuses("not found", "conferences.get", json!(["room"]));
}

/// Recordings of a multi-party call, of a participant and of a live call, and the recordings list.
#[tokio::test(flavor = "multi_thread")]
async fn python_records_calls_and_rooms_and_deletes_recordings() {
    let world = world(|_, _| ()).await;
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    world.app.xml("/status", "");
    world.app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"agent\" stayAlone=\"true\" statusCallbackUrl=\"{}\">Desk</MultiPartyCall></Response>",
            world.app.url("/status")
        ),
    );
    let script = CallScript { hangup: HangupRule::Never, ..CallScript::default() };
    let caller = world.sim.place_call(script);
    let joined =
        world.app.wait_where("/status", |seen| seen.param("EventName") == "ParticipantJoin").await;
    let desk = json!({"friendly_name": "Desk"});
    assert_eq!(sdk.ok("multi_party_calls.get", desk.clone())["status"], "Active");
    // The SDK sends a list with the single element "active".
    sdk.ok("multi_party_calls.start", desk.clone());
    let order = json!({"friendly_name": "Desk", "file_format": "wav"});
    let all = sdk.ok("multi_party_calls.start_recording", order.clone());
    sdk.raises("InvalidRequestError", "multi_party_calls.start_recording", order);
    for what in ["pause_recording", "resume_recording"] {
        sdk.ok(&format!("multi_party_calls.{what}"), desk.clone());
    }
    let listed = sdk.ok("multi_party_calls.list_participants", desk.clone());
    let member = joined.param("MemberID");
    assert_eq!(listed["objects"][0]["member_id"], member, "{listed}");
    let one = json!({"friendly_name": "Desk", "participant_id": member});
    let track = sdk.ok("multi_party_calls.start_participant_recording", one.clone());
    for what in ["pause_participant_recording", "resume_participant_recording"] {
        sdk.ok(&format!("multi_party_calls.{what}"), one.clone());
    }
    let call = joined.param("CallUUID");
    let beside = sdk.ok("calls.record", json!([call]));
    // Wait until each recording has some audio.
    let packets =
        async || world.node.metric("offhook_media_packets_total", &[("direction", "in")]).await;
    let enough = packets().await + 100.0;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    while packets().await < enough {
        every.tick().await;
    }
    sdk.ok("calls.record_stop", json!([call]));
    sdk.ok("multi_party_calls.stop_participant_recording", one);
    sdk.ok("multi_party_calls.stop_recording", desk.clone());
    let mut kept = sdk.ok("recordings.list", json!({"limit": 5}));
    while kept["objects"].as_array().map(Vec::len) != Some(3) {
        every.tick().await;
        kept = sdk.ok("recordings.list", json!({"limit": 5}));
    }
    for (filter, count) in [
        (json!({"mpc_name": "Desk"}), 1),
        (json!({"mpc_name": "Board"}), 0),
        (json!({"mpc_uuid": joined.param("MPCUUID")}), 1),
        (json!({"from_number": joined.param("From"), "to_number": NUMBER}), 3),
        (json!({"from_number": NUMBER}), 0),
        (json!({"recording_storage_duration": 0}), 3),
        (json!({"recording_storage_duration": 1}), 0),
        (json!({"recording_storage_duration__gt": 0}), 0),
        (json!({"recording_storage_duration__lt": 1}), 3),
        (json!({"recording_storage_duration__gt": 1}), 0),
    ] {
        let found = sdk.ok("recordings.list", filter.clone());
        assert_eq!(found["objects"].as_array().map(Vec::len), Some(count), "{filter}: {found}");
    }
    for made in [&all, &track, &beside] {
        let id = made["recording_id"].as_str().unwrap_or_else(|| panic!("{made}"));
        assert_eq!(sdk.ok("recordings.get", json!([id]))["recording_id"], id);
        sdk.ok("recordings.delete", json!([id]));
        sdk.raises("ResourceNotFoundError", "recordings.get", json!([id]));
    }
    sdk.ok("multi_party_calls.stop", desk.clone());
    caller.all().await;
    sdk.raises("ResourceNotFoundError", "multi_party_calls.pause_recording", desk);
}
