//! A `[[webhook]]` that is removed from the configuration while numbers or conversations use it.

use serde_json::{Value, json};

use crate::support::chat::{Chat, OTHER_SECRET, SECRET, USER, crm_and_desk};
use crate::support::node::NUMBER;

/// Removes the webhook from the file, or restores it. Returns the removed text.
fn edit(chat: &Chat, secret: &str, text: Option<String>) -> String {
    let file = chat.node.dir.path().join("offhook.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    let after = text.unwrap_or_else(|| {
        let tables: Vec<&str> = before.split("[[webhook]]").collect();
        tables
            .into_iter()
            .filter(|table| !table.contains(secret))
            .collect::<Vec<_>>()
            .join("[[webhook]]")
    });
    assert_ne!(before, after);
    std::fs::write(&file, after).expect("written");
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_a_configured_webhook_that_is_in_use() {
    let mut chat = Chat::start_with(crm_and_desk, |config| config.is_single = true).await;
    let [crm, desk] = [chat.webhook("crm").await, chat.webhook("desk").await];
    assert_eq!(chat.subscribe(Some(&desk), false).await.0, 200);
    chat.send_text(USER, "one").await;
    let id = chat.id_of(USER).await;
    chat.message_at("/desk", "one").await;
    assert_eq!(chat.subscribe(Some(&crm), false).await.0, 200);
    // A conversation uses the first webhook, the number the second.
    for (secret, name, uses) in [
        (OTHER_SECRET, "desk", format!("conversations of {NUMBER}")),
        (SECRET, "crm", format!("new conversations of {NUMBER}")),
    ] {
        let before = edit(&chat, secret, None);
        let (status, refused) = chat.ask("POST", "reload/", Value::Null).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (400, &json!("bad_configuration")),
            "{refused}"
        );
        let finding = &refused["error"]["findings"][0];
        let message = finding["message"].as_str().expect("words");
        assert!(message.contains(&format!("{name:?}")) && message.contains(&uses), "{finding}");
        assert!(finding["hint"].as_str().expect("words").contains("applyToExisting"), "{finding}");
        edit(&chat, secret, Some(before));
    }
    // Nothing changed.
    chat.send_text(USER, "two").await;
    chat.message_at("/desk", "two").await;
    // After the routing changed the webhook may be removed.
    assert_eq!(chat.subscribe(Some(&crm), true).await.0, 200);
    edit(&chat, OTHER_SECRET, None);
    let (status, done) = chat.ask("POST", "reload/", Value::Null).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(chat.get("webhooks/").await["items"].as_array().expect("a list").len(), 1);
    chat.send_text(USER, "three").await;
    chat.message_at("/hook", "three").await;
    assert_eq!(chat.get(&format!("conversations/{id}/")).await["webhook"], json!(crm));
    // The node starts anyway, so that calls are answered. The log and the doctor report the
    // problem.
    let routing = |lines: &[Value]| lines.iter().find(|line| line["check"] == "routing").cloned();
    assert_eq!(routing(&chat.node.doctor().await.1), None);
    let before = edit(&chat, SECRET, None);
    chat.node.kill();
    chat.node.start_again().await;
    chat.node.until_log("routed to a webhook that is no longer in the configuration").await;
    let line = routing(&chat.node.doctor().await.1).expect("a line");
    assert_eq!((&line["state"], &line["subject"]), (&json!("failed"), &json!(NUMBER)), "{line}");
    edit(&chat, SECRET, Some(before));
    let (status, done) = chat.ask("POST", "reload/", Value::Null).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(routing(&chat.node.doctor().await.1), None);
    chat.send_text(USER, "four").await;
    chat.message_at("/hook", "four").await;
}
