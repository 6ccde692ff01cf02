//! Isolation of accounts and roles for every operation of the number API's document. A new resource
//! is covered automatically.

use serde_json::Value;

use super::{MAIN, OTHER, Running, run, uuid};
use crate::api::number;
use engine::people::NewUser;
use model::Role;

/// Fills in the parameters of a path.
fn filled(path: &str, named: &[(&str, &str)]) -> String {
    path.split('/')
        .map(|part| {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let value = name.map(|name| {
                named.iter().find(|(known, _)| *known == name).map_or("0", |(_, value)| value)
            });
            value.unwrap_or(part).to_owned()
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The body of a response without its request id.
fn body_without_id(body: &str) -> Value {
    let mut value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    if let Some(error) = value.get_mut("error").and_then(Value::as_object_mut) {
        error.remove("requestId");
    }
    value
}

impl Running {
    async fn user(&self) -> String {
        let user = NewUser {
            account: MAIN.into(),
            main_account: MAIN.into(),
            name: "asha".to_owned(),
            full_name: String::new(),
            role: Role::Agent,
            wa_id: None,
            password: None,
        };
        self.people.make_user(user).await.unwrap().0.id.to_string()
    }
}

#[tokio::test]
async fn r16_answers_other_accounts_ids_like_unknown_ids() {
    let node = run().await;
    let (call, user) = (uuid(3).to_string(), node.user().await);
    let account = (MAIN.into(), MAIN.into());
    let key = node.people.make_key(account, "k", Role::Agent, None).await.unwrap().0.id.to_string();
    let never = uuid(99).to_string();
    let theirs = [
        ("call_uuid", call.as_str()),
        ("user_id", &user),
        ("key_id", &key),
        ("number", "918035737458"),
        ("wa_id", "919412341234"),
    ];
    let nobodys = [
        ("call_uuid", never.as_str()),
        ("user_id", &never),
        ("key_id", &never),
        ("number", "910000000000"),
        ("wa_id", "919412341234"),
    ];
    let mut seen = 0;
    for route in
        number::TABLES.iter().copied().flatten().filter(|route| route.operation.path.contains('{'))
    {
        let path =
            |named| filled(route.operation.path, named).trim_start_matches("/api/v1/").to_owned();
        let known = node.ours(OTHER, route.operation.method, &path(&theirs), "{}").await;
        let unknown = node.ours(OTHER, route.operation.method, &path(&nobodys), "{}").await;
        let (method, template) = (route.operation.method, route.operation.path);
        assert!(known.status >= 400, "{method} {template}: {}", known.body);
        assert_eq!(
            (known.status, body_without_id(&known.body)),
            (unknown.status, body_without_id(&unknown.body)),
            "{template}"
        );
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    // The originals are unchanged.
    assert_eq!(node.ours(MAIN, "GET", &format!("users/{user}/"), "").await.status, 200);
    assert_eq!(node.ours(MAIN, "GET", "api-keys/", "").await.json()["items"][0]["id"], key);
    for list in ["users/", "api-keys/"] {
        assert_eq!(
            node.ours(OTHER, "GET", list, "").await.json()["items"],
            Value::Array(Vec::new()),
            "{list}"
        );
    }
    let others = node.ours(OTHER, "GET", "calls/", "").await.body;
    assert!(!others.contains(&call), "{others}");
    node.cancel.cancel();
}

#[tokio::test]
async fn each_operation_is_for_its_role_and_those_above() {
    let never = uuid(99).to_string();
    let named = [
        ("call_uuid", never.as_str()),
        ("user_id", &never),
        ("key_id", &never),
        ("wa_id", "919412341234"),
    ];
    for (role, key) in [(Role::Agent, "agent-"), (Role::Admin, "admin-"), (Role::Owner, "")] {
        // A node of its own, because the number of requests in a few seconds is limited.
        let node = run().await;
        for route in number::TABLES.iter().copied().flatten() {
            let path = filled(route.operation.path, &named);
            let path = path.trim_start_matches("/api/v1/");
            let method = route.operation.method;
            let answer = node.ours(&format!("{key}{MAIN}"), method, path, "").await;
            assert_eq!(
                answer.status == 403,
                role < route.role,
                "{method} {path} as {role:?}: {}",
                answer.body
            );
        }
        node.cancel.cancel();
    }
}
