//! Multi-party calls through the whole binary with real media: a customer waits, REST calls an agent into it, they hear each
//! other, and REST ends it.

use offhook::sim::{Answers, CallScript, HangupRule, Order};
use serde_json::{Value, json};

use super::dial::{heard_ms, tone};
use super::outbound::{USER, World, user, world};
use crate::support::app::Seen;
use crate::support::http::Answer;
use crate::support::node::NUMBER;

const CUSTOMER: &str = "919812345678";
const CUSTOMER_HZ: f64 = 700.0;
const AGENT_HZ: f64 = 1_100.0;

impl World {
    async fn mpc(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.rest(method, &format!("MultiPartyCall/{path}"), &json, body.to_string()).await
    }

    async fn told(&self, name: &str) -> Seen {
        self.app.wait_where("/status", |seen| seen.param("EventName") == name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_waits_an_agent_is_called_in_and_rest_ends_it_for_both() {
    let world = world(|wanted, _| {
        wanted.accept_wait_ms = 0;
        wanted.hangup_url = wanted.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/status", "/agent"] {
        world.app.xml(path, "");
    }
    let status = world.app.url("/status");
    world.app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"customer\" startMpcOnEnter=\"false\" enterSound=\"none\" exitSound=\"none\" \
             statusCallbackUrl=\"{status}\">Care &amp; more</MultiPartyCall></Response>"
        ),
    );
    let customer = CallScript {
        from: CUSTOMER.to_owned(),
        say: tone(CUSTOMER_HZ, 20),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let customer = world.sim.place_call(customer);
    let joined = world.told("ParticipantJoin").await;
    assert_eq!((joined.param("ParticipantRole"), joined.param("MPCName")), ("customer", "Care & more"));
    assert!(world.app.seen().iter().all(|seen| seen.param("EventName") != "MPCStart"), "it waits");

    let (null, at) = (Value::Null, "name_Care%20%26%20more/");
    let mpc = world.mpc("GET", at, &null).await.json();
    assert_eq!((&mpc["status"], &mpc["friendly_name"]), (&"Initialized".into(), &"Care & more".into()), "{mpc}");
    assert_eq!(mpc["mpc_uuid"], joined.param("MPCUUID"));

    let agent = world.sim.expect_call(CallScript {
        say: tone(AGENT_HZ, 20),
        record: true,
        ..user(Answers::Accept, Order::ConnectFirst)
    });
    let body = json!({
        "role": "agent", "from": NUMBER, "to": USER, "enter_sound": "none", "exit_sound": "none",
        "status_callback_url": status, "call_status_callback_url": world.app.url("/agent"),
    });
    for (what, wrong) in
        [("role", json!({"role": "boss"})), ("role", json!({"role": null})), ("from", json!({"from": "x"}))]
    {
        let mut bad = body.clone();
        bad.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        let answer = world.mpc("POST", &format!("{at}Participant/"), &bad).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|why| why.starts_with(what)), "{}", answer.text());
    }
    let added = world.mpc("POST", &format!("{at}Participant/"), &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let added = added.json();
    assert_eq!((&added["calls"][0]["to"], &added["calls"][0]["from"]), (&USER.into(), &NUMBER.into()), "{added}");
    world.told("MPCStart").await;

    let members = world.mpc("GET", &format!("{at}Participant/"), &null).await.json();
    assert_eq!(members["meta"]["total_count"], 2, "{members}");
    let agent_id = members["objects"][1]["member_id"].as_str().expect("an id").to_owned();
    assert_eq!((&members["objects"][1]["role"], &members["objects"][0]["mute"]), (&"agent".into(), &false.into()));
    assert_eq!(members["objects"][1]["call_uuid"], added["calls"][0]["call_uuid"]);
    let held = world.mpc("POST", &format!("{at}Participant/{agent_id}/"), &json!({"hold": true})).await;
    assert_eq!((held.status, &held.json()["hold"]), (202, &true.into()), "{}", held.text());
    assert_eq!(world.told("ParticipantHold").await.param("MemberID"), agent_id);
    world.mpc("POST", &format!("{at}Participant/{agent_id}/"), &json!({"hold": false})).await;
    world.told("ParticipantUnhold").await;
    let played =
        world.mpc("POST", &format!("{at}Member/{agent_id}/Speak/"), &json!({"text": "Please be brief."})).await;
    assert_eq!((played.status, &played.json()["mpcName"]), (202, &"Care & more".into()), "{}", played.text());
    for path in ["name_Other/", "uuid_nonsense/", "Care/"] {
        assert_eq!(world.mpc("GET", path, &null).await.status, 404, "{path}");
    }
    let talk = tokio::time::timeout(std::time::Duration::from_secs(3), world.told("MPCEnd")).await;
    assert!(talk.is_err(), "nothing ends it but REST");

    let stopped = world.mpc("DELETE", at, &null).await;
    assert_eq!((stopped.status, stopped.text()), (204, String::new()));
    let (there, here) = tokio::join!(agent.all(), customer.all());
    assert!(heard_ms(&there, CUSTOMER_HZ) > 1_500, "the agent hears: {} ms", heard_ms(&there, CUSTOMER_HZ));
    assert!(heard_ms(&here, AGENT_HZ) > 1_500, "the customer hears: {} ms", heard_ms(&here, AGENT_HZ));
    assert_eq!((heard_ms(&there, AGENT_HZ), heard_ms(&here, CUSTOMER_HZ)), (0, 0), "nobody hears himself");

    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("4020", "API Request"));
    let agents = world.app.wait_where("/agent", |seen| seen.param("Event") == "Hangup").await;
    assert_eq!(agents.param("HangupCauseName"), "Multiparty Call Ended");
    let end = world.told("MPCEnd").await;
    assert!(end.param("MPCDuration").parse::<u64>().is_ok_and(|secs| secs >= 2), "{end:?}");
    let over = world.mpc("GET", &format!("uuid_{}/", end.param("MPCUUID")), &null).await.json();
    assert_eq!((&over["status"], &over["termination_cause_code"]), (&"Ended".into(), &4_020.into()), "{over}");
    let ended = world.mpc("GET", "?status=ended", &null).await.json();
    assert_eq!(ended["meta"]["total_count"], 1, "{ended}");
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}
