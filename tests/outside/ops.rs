//! Operation of the binary and its store: backup, restore, starting the wrong version.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use crate::support::app::App;
use crate::support::database;
use crate::support::http;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{Node, NodeConfig, free_port, free_udp_ports};

fn offhook(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(args).env_clear().env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_running_node_is_backed_up_and_restored() {
    if database::skipped_on_postgres() {
        return;
    }
    let app = App::start().await;
    app.xml("/answer", r#"<Response><Wait length="60"/></Response>"#).xml("/hangup", "");
    let graph = Graph::start().await;
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.cps = 1_000;
    let node = Node::start(&node_config).await;
    let offer = silent_offer();
    let one = || async {
        let id = connect(&node, &offer).await;
        terminate(&node, &id).await;
    };
    futures_util::future::join_all((0..20).map(|_| one())).await;
    node.until_metric("offhook_calls_total", &[], 20.0).await;
    let copy = node.dir.path().join("copy.db");
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while node.api("Call/").await.json()["meta"]["total_count"] != 20 {
        every.tick().await;
    }
    let data = node.dir.path().to_str().unwrap().to_owned();
    let made = {
        let copy = copy.to_str().unwrap().to_owned();
        let making =
            tokio::task::spawn_blocking(move || offhook(&["backup", &copy, "--data-dir", &data]));
        // Calls continue during the backup.
        let (made, _) =
            tokio::join!(making, futures_util::future::join_all((0..20).map(|_| one())));
        made.unwrap()
    };
    let output = String::from_utf8_lossy(&made.stdout).into_owned();
    assert_eq!(made.status.code(), Some(0), "{output}{}", String::from_utf8_lossy(&made.stderr));
    assert!(output.contains("checked"), "{output}");

    let store = Connection::open(&copy).unwrap();
    let whole: String = store.query_one("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let ended = "SELECT count(*) FROM calls WHERE ended_us IS NOT NULL AND cause IS NOT NULL";
    let ended: i64 = store.query_one(ended, [], |row| row.get(0)).unwrap();
    assert!((20..=40).contains(&ended), "{ended}");
    drop(store);

    let again = offhook(&[
        "backup",
        copy.to_str().unwrap(),
        "--data-dir",
        node.dir.path().to_str().unwrap(),
    ]);
    assert_eq!(again.status.code(), Some(2), "a file in the way is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_calls_continue_while_another_process_locks_the_store() {
    if database::skipped_on_postgres() {
        return;
    }
    let app = App::start().await;
    app.xml("/answer", r#"<Response><Wait length="60"/></Response>"#).xml("/hangup", "");
    let graph = Graph::start().await;
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    let mut node = Node::start(&node_config).await;
    let offer = silent_offer();
    let before = connect(&node, &offer).await;
    graph.wait(&before, "pre_accept").await;
    let other = Connection::open(node.dir.path().join("offhook.db")).unwrap();
    other.busy_timeout(Duration::from_secs(20)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    terminate(&node, &before).await;
    let meanwhile = connect(&node, &offer).await;
    graph.wait(&meanwhile, "pre_accept").await;
    // SQLite's busy timeout is five seconds.
    while node.metric("offhook_store_journal_bytes", &[]).await == 0.0 {
        tokio::task::yield_now().await;
    }
    terminate(&node, &meanwhile).await;
    let late = connect(&node, &offer).await;
    graph.wait(&late, "pre_accept").await;
    assert!(node.metric("offhook_store_errors_total", &[]).await > 0.0);
    assert_eq!(
        http::get(&format!("{}/readyz", node.admin)).await.status,
        200,
        "the journal has it"
    );
    let (copy, data) = (node.dir.path().join("copy.db"), node.dir.path().to_owned());
    let args = move |copy: &std::path::Path| {
        offhook(&["backup", copy.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
    };
    let made = tokio::task::spawn_blocking(move || args(&copy)).await.unwrap();
    let output = String::from_utf8_lossy(&made.stderr).into_owned();
    assert_eq!(made.status.code(), Some(1), "{output}");
    assert!(output.contains("the copy lacks") && output.contains("store.journal"), "{output}");
    let (_, findings) = node.doctor().await;
    let waits = |finding: &serde_json::Value| {
        finding["check"] == "store"
            && finding["state"] == "warning"
            && finding["what"].as_str().is_some_and(|what| what.contains("store.journal"))
    };
    assert!(findings.iter().any(waits), "{findings:?}");
    // The end of the first call may be in the pending log. The second one's is in the journal.
    let of_calls = || {
        let requests = app.requests();
        // Those of the doctor don't count.
        let of_calls = requests.iter().filter(|r| r.param("OffhookCheck") != "true");
        of_calls.filter(|request| request.path == "/hangup").count()
    };
    assert!(of_calls() <= 1, "not before it is written");
    other.execute_batch("COMMIT").unwrap();
    node.until_metric("offhook_store_journal_bytes", &[], 0.0).await;
    terminate(&node, &late).await;
    node.until_metric(
        "offhook_callback_total",
        &[("kind", "hangup"), ("outcome", "delivered")],
        3.0,
    )
    .await;
    node.signal("TERM");
    assert_eq!(node.wait(), Some(0));
    assert_eq!(node.ended().await, (3, 3));
    assert_eq!(of_calls(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_an_older_binary_names_the_version_it_supports() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = dir.path().join("offhook.toml");
    let text = format!(
        "[listen]\npublic = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{}\"\nmedia = \"127.0.0.1:0\"\nmedia_ports = 1\n\
         [meta]\napp_secret = \"a-secret-of-20-characters\"\nverify_token = \"b\"\n[store]\nurl = \"sqlite://{}/offhook.db\"\n",
        free_port(),
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let store = Connection::open(dir.path().join("offhook.db")).unwrap();
    for statement in [
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP \
         NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT \
         NOT NULL)",
        "INSERT INTO _sqlx_migrations VALUES (77, 'later', CURRENT_TIMESTAMP, 1, X'00', 1)",
        "CREATE TABLE store_versions (schema BIGINT PRIMARY KEY, offhook TEXT NOT NULL)",
        "INSERT INTO store_versions VALUES (77, '4.2.0')",
    ] {
        store.execute_batch(statement).unwrap();
    }
    drop(store);
    let out = offhook(&["serve", "--config", config.to_str().unwrap()]);
    let output = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{output}");
    for part in [
        "schema 77",
        "made by Offhook 4.2.0",
        "Start Offhook 4.2.0 or later",
        "backup from before the update",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert!(
        http::try_send("GET", &format!("http://127.0.0.1:{port}/"), &[], "").await.is_err(),
        "it is gone"
    );
}

/// As in the README: a configuration without `[store]` in an empty folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_creates_the_stores_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (public, admin, media) = (free_port(), free_port(), free_udp_ports(8));
    let config = format!(
        "[listen]\npublic = \"127.0.0.1:{public}\"\nadmin = \"127.0.0.1:{admin}\"\nmedia = \"127.0.0.1:{media}\"\n\
        [public]\nmedia_ips = [\"127.0.0.1\"]\n[meta]\napp_secret = \"a secret of 20 characters\"\nverify_token = \"a token\"\n"
    );
    std::fs::write(dir.path().join("offhook.toml"), config).unwrap();
    let log = dir.path().join("log");
    let mut node = Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["serve", "--config", "offhook.toml"])
        .current_dir(dir.path())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{admin}/readyz");
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while !http::try_send("GET", &ready, &[], "").await.is_ok_and(|answer| answer.status == 200) {
        every.tick().await;
        assert_eq!(node.try_wait().unwrap(), None, "{}", std::fs::read_to_string(&log).unwrap());
    }
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(dir.path().join("offhook-data/offhook.db").is_file());
}
