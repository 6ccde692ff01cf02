//! Rules that all lists and changes of the number API share: pages, cursors, `If-Match`, dry runs
//! and error messages.

use super::*;

impl Running {
    async fn change_if(&self, path: &str, tags: &str, body: &str) -> Answer {
        let head = format!("x-api-key: key-{MAIN}\r\ncontent-type: application/json\r\n{tags}");
        self.ask("PATCH", &format!("/api/v1/{path}"), &head, body).await
    }
}

fn tag(answer: &Answer) -> String {
    let line = answer.head.lines().find_map(|line| line.strip_prefix("etag: "));
    line.unwrap_or_else(|| panic!("{}", answer.head)).trim().to_owned()
}

#[tokio::test]
async fn each_list_is_paged_and_takes_its_own_cursors_only() {
    let node = run().await;
    for list in [
        "webhooks",
        "wabas",
        "calls",
        "users",
        "conversations",
        "phone-numbers",
        "api-keys",
        "notifications",
    ] {
        for bad in ["limit=0", "limit=201", "limit=x", "cursor=nonsense"] {
            let refused = node.ours(MAIN, "GET", &format!("{list}/?{bad}"), "").await;
            let field = bad.split('=').next().unwrap();
            assert_eq!(
                (refused.status, &refused.json()["error"]["field"]),
                (400, &json!(field)),
                "{list} {bad}"
            );
        }
    }
    let first = node.ours(MAIN, "GET", "wabas/?limit=1", "").await.json();
    let cursor = first["next"].as_str().unwrap().to_owned();
    let second =
        node.ours(MAIN, "GET", &format!("wabas/?limit=1&cursor={cursor}"), "").await.json();
    assert_eq!(
        (first["items"][0]["id"].as_str(), second["items"][0]["id"].as_str()),
        (Some("700"), Some("701"))
    );
    for list in ["calls", "users", "phone-numbers", "webhooks"] {
        let refused = node.ours(MAIN, "GET", &format!("{list}/?cursor={cursor}"), "").await;
        assert_eq!(refused.status, 400, "{list}");
    }
}

#[tokio::test]
async fn reports_a_concurrent_change_and_accepts_any_of_several_tags() {
    let node = run().await;
    let made = node.ours(MAIN, "POST", "api-keys/", r#"{"name":"crm","role":"agent"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("api-keys/{}/", made.json()["id"].as_str().unwrap());
    let refused = node.change_if(&path, "if-match: \"nope\"\r\n", r#"{"name":"x"}"#).await;
    assert_eq!(refused.status, 412, "{}", refused.body);
    let tags = format!("if-match: \"nope\", {}\r\n", tag(&made));
    let changed = node.change_if(&path, &tags, r#"{"name":"x"}"#).await;
    assert_eq!((changed.status, &changed.json()["name"]), (200, &json!("x")), "{}", changed.body);
    assert_eq!(node.change_if(&path, &tags, r#"{"name":"y"}"#).await.status, 412);
    let lines = format!("if-match: \"nope\"\r\nif-match: {}\r\n", tag(&changed));
    assert_eq!(
        node.change_if(&path, &lines, r#"{"name":"y"}"#).await.status,
        200,
        "several lines are one list"
    );
}

#[tokio::test]
async fn a_dry_run_reports_errors_and_changes_nothing() {
    let node = run().await;
    let (number, waba) = ("phone-numbers/918035737458/?dryRun=true", "wabas/700/?dryRun=true");
    for (path, body, status) in [
        (number, r#"{"alias":"Other"}"#, 200),
        (number, r#"{"answerUrl":"ftp://x"}"#, 400),
        (number, r#"{"callsPerNumber":0}"#, 400),
        (waba, r#"{"account":"nobody"}"#, 400),
    ] {
        assert_eq!(node.change_if(path, "", body).await.status, status, "{path} {body}");
    }
    let now = node.ours(MAIN, "GET", "phone-numbers/918035737458/", "").await.json();
    assert_eq!(now["alias"], "Support");
}

#[tokio::test]
async fn words_field_errors_in_terms_of_json() {
    let node = run().await;
    for (body, field, words) in [
        (r#"{"callsPerNumber":"many"}"#, "callsPerNumber", "callsPerNumber must be a whole number"),
        (r#"{"callingEnabled":"yes"}"#, "callingEnabled", "callingEnabled must be true or false"),
        (r#"{"alias":7}"#, "alias", "alias must be a string"),
    ] {
        let error =
            node.change_if("phone-numbers/918035737458/", "", body).await.json()["error"].clone();
        assert_eq!(error["field"], field);
        assert!(error["message"].as_str().unwrap().starts_with(words), "{error}");
    }
}
