//! `[alerts]`: what a node reports to its operator by webhook, e-mail and in the console.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::app::App;
use crate::support::http;
use crate::support::meta::{Graph, connect, silent_offer};
use crate::support::node::{API_KEY, Node, NodeConfig};

const SECRET: &str = "secret-of-the-alerts-webhook";

/// A mail server that accepts everything but mail to `gone@` and `full@`. Returns its port and the messages with their commands.
pub async fn mail_server() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (to, from) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, to.clone()));
        }
    });
    (port, from)
}

async fn receive(mut stream: TcpStream, to: mpsc::Sender<String>) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let (mut seen, mut in_data) = (String::new(), false);
    write.write_all(b"220 sink ESMTP\r\n").await.expect("a client");
    while let Ok(Some(line)) = lines.next_line().await {
        seen += &format!("{line}\n");
        let reply = match line.split(' ').next().unwrap_or_default() {
            "." if in_data => {
                in_data = false;
                let _ = to.send(std::mem::take(&mut seen)).await;
                "250 accepted"
            }
            _ if in_data => continue,
            "EHLO" => "250-sink\r\n250 8BITMIME",
            "DATA" => {
                in_data = true;
                "354 go on"
            }
            "RCPT" if line.contains("<gone@") => "550 no such person",
            "RCPT" if line.contains("<full@") => "452 mailbox full",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        if write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_sent_once_by_signed_webhook_and_mail() {
    let (app, graph) = (App::start().await, Graph::start().await);
    let first = Arc::new(Mutex::new(true));
    app.route("/alerts", move |_| match std::mem::take(&mut *first.lock().expect("the flag")) {
        true => (503, String::new()),
        false => (200, String::new()),
    });
    // Callbacks of rejected calls come there, too.
    app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    let (port, mut mails) = mail_server().await;
    let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
    config.is_single = true;
    config.extra = format!(
        "[alerts]\nurl = \"{}\"\nsecret = \"{SECRET}\"\ninterval_seconds = 1\noff = [\"media_late\"]\n\
         [alerts.mail]\nserver = \"smtp://127.0.0.1:{port}\"\nfrom = \"Offhook <offhook@example.com>\"\n\
         to = [\"gone@example.com\", \"full@example.com\", \"one@example.com\", \"two@example.com\"]\n",
        app.url("/alerts"),
    );
    config.limits = "calls_per_number = 1".to_owned();
    let mut node = Node::start(&config).await;
    // Only the first one is admitted.
    for _ in 0..3 {
        connect(&node, &silent_offer()).await;
    }

    let sent = app.wait_where("/alerts", |seen| seen.headers["x-offhook-attempt"] == "2").await;
    let body = sent.json();
    assert_eq!(
        (&body["type"], &body["data"]["alert"]),
        (&"alert.fired".into(), &"limit_reached".into()),
        "{body}"
    );
    assert_eq!(body["data"]["severity"], "warning");
    assert_eq!(body["data"]["runbook"], "docs/operations.md#offhooklimitreached");
    assert_eq!(sent.headers["x-offhook-event-id"].to_str().unwrap(), body["id"]);
    let signature = sent.headers["x-offhook-signature"].to_str().unwrap();
    let (at, v1) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let expected = hmac::sign(&key, format!("{at}.{}", sent.body).as_bytes());
    assert_eq!(v1, hex::encode(expected));

    let mail = mails.recv().await.expect("a mail");
    for part in [
        "MAIL FROM:<offhook@example.com>",
        "RCPT TO:<one@example.com>",
        "RCPT TO:<two@example.com>",
        "warning: calls are refused at the limit",
        "limit_reached",
    ] {
        assert!(mail.contains(part), "{part}: {mail}");
    }

    assert_eq!(app.count("/alerts"), 2, "a failed attempt, and the alert");

    let url = format!("{}/api/v1/notifications/?type=alert", node.public);
    let list = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json();
    let texts: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["text"].as_str().unwrap())
        .collect();
    assert!(
        texts.len() == 1
            && texts[0].starts_with("Alert on node ")
            && texts[0].contains("calls are refused at the limit"),
        "{list}"
    );
    assert!(node.log().contains("alert fired"));
    assert!(!node.log().contains(SECRET), "r22");

    // After a restart, the condition holds again. The alert is that of before.
    node.kill();
    node.start_again().await;
    for _ in 0..3 {
        connect(&node, &silent_offer()).await;
    }
    let again = app.wait_where("/alerts", |seen| seen.json()["id"] != body["id"]).await.json();
    assert_eq!(again["type"], "alert.fired");
    assert_eq!(again["data"]["since"], body["data"]["since"]);
}
