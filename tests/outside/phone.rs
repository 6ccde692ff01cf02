//! The browser phone of `offhook dev` in a real Chromium: call, hear, press keys, hang up, and
//! follow the events on the page.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::console_look::picture;
use crate::support::browser::{Browser, has_chromium};
use crate::support::http;

/// `offhook dev` as a user starts it; stopped by SIGINT when dropped.
pub struct Dev {
    child: Child,
    printed: Vec<String>,
    /// Its directory of temporary files, which other commands look into.
    temporary: tempfile::TempDir,
}

impl Dev {
    pub fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(["dev", "--port", "0"])
            .env("TMPDIR", temporary.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start dev");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut printed = Vec::new();
        for line in stdout.lines().map_while(Result::ok) {
            let last = line.contains("Ctrl-C");
            printed.push(line);
            if last {
                break;
            }
        }
        Self { child, printed, temporary }
    }

    /// Returns the printed address with this label.
    pub fn address(&self, name: &str) -> String {
        let line = self.printed.iter().find_map(|l| l.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {:#?}", self.printed)).trim().to_owned()
    }

    fn interrupt(&mut self) -> Option<i32> {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_calls_from_the_page_hears_the_menu_presses_a_key_and_hangs_up() {
    if !has_chromium() {
        return;
    }
    let mut dev = Dev::start(&[]);
    let mut page = Browser::open(&dev.address("browser phone")).await;
    page.eval("document.getElementById('call').click()").await;
    page.until("document.getElementById('steps').innerText.includes('Speak') || document.getElementById('steps').innerText.includes('GetInput')").await;
    page.until("document.getElementById('hear-level').value > 0.02").await;
    page.eval("document.querySelector('[data-key=\"1\"]').click()").await;
    page.until("document.querySelectorAll('#steps li').length > 8").await;
    page.until("(document.getElementById('steps').innerText.match(/GetInput/g) ?? []).length >= 3")
        .await;
    // The steps show the text of a `Speak`, and a link leads to the call's page in the console.
    page.until("document.getElementById('steps').innerText.includes('“Welcome to Offhook. For our opening hours')").await;
    let link = page.eval("document.querySelector('#console a').href").await;
    let console = dev.address("console");
    assert!(
        link.as_str().is_some_and(|link| link.starts_with(&format!("{console}calls/"))),
        "{link}"
    );
    // The user writes, and the business answers.
    let write = "document.getElementById('text').value = 'Is <b>17</b> on its way?'; document.querySelector('#write button').click()";
    page.eval(write).await;
    page.until(
        "document.querySelector('#messages .own')?.innerText === 'Is <b>17</b> on its way?'",
    )
    .await;
    let node = console.replace("/console/", "");
    let key = [("x-api-key", sim::world::API_KEY)];
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let conversation = loop {
        every.tick().await;
        let all =
            http::send("GET", &format!("{node}/api/v1/conversations/"), &key, "").await.json();
        if let Some(id) = all["items"][0]["id"].as_str() {
            break id.to_owned();
        }
    };
    let path = format!("{node}/api/v1/conversations/{conversation}/messages/");
    let answer = r#"{"type":"text","text":"Yes, it arrives today."}"#;
    assert!(http::send("POST", &path, &key, answer).await.status < 300);
    page.until(
        "document.querySelector('#messages .business')?.innerText === 'Yes, it arrives today.'",
    )
    .await;
    page.size(390, 900).await;
    picture(&mut page, "phone-390").await;
    page.size(1280, 900).await;
    for scheme in ["light", "dark"] {
        page.prefer(scheme).await;
        picture(&mut page, &format!("phone-{scheme}")).await;
    }
    page.eval("document.getElementById('call').click()").await;
    page.until("document.getElementById('steps').innerText.toLowerCase().includes('hung up') || document.getElementById('steps').innerText.toLowerCase().includes('ended')").await;
    assert!(page.errors.is_empty(), "the page's console: {:#?}", page.errors);
    let metrics = http::get(&dev.address("metrics")).await.text();
    assert!(
        metrics.contains("offhook_calls_total{direction=\"inbound\",outcome=\"completed\"} 1"),
        "{metrics}"
    );
    assert_eq!(dev.interrupt(), Some(0), "Ctrl-C ends it cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn m18_a_permission_request_is_granted_on_the_page() {
    if !has_chromium() {
        return;
    }
    let dev = Dev::start(&[]);
    let node = dev.address("console").replace("/console/", "");
    let mut page = Browser::open(&dev.address("browser phone")).await;
    page.until("document.getElementById('request').hidden").await;
    let permission = format!("{node}/api/v1/permissions/918035737458/919412341234/");
    let key = [("x-api-key", sim::world::API_KEY)];
    let text = r#"{"text":"May we call you about your order <b>17</b>?"}"#;
    assert_eq!(http::send("POST", &format!("{permission}request/"), &key, text).await.status, 202);
    // A business's message is shown as text, not as HTML.
    page.until("document.getElementById('request-text').innerText.includes('<b>17</b>')").await;
    page.until("!document.getElementById('request').hidden").await;
    if let Ok(folder) = std::env::var("OFFHOOK_TEST_PICTURES") {
        page.screenshot(&std::path::Path::new(&folder).join("phone-request.png")).await;
    }
    page.eval("document.querySelector('[data-answer=\"accept\"]').click()").await;
    page.until("document.getElementById('request').hidden").await;
    page.until("document.getElementById('allowed').innerText.includes('may call you until')").await;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let mut status = serde_json::Value::Null;
    for _ in 0..200 {
        every.tick().await;
        status = http::send("GET", &permission, &key, "").await.json()["status"].take();
        if status == "temporary" {
            break;
        }
    }
    assert_eq!(status, "temporary", "the node heard of it");
    assert!(page.errors.is_empty(), "the page's console: {:#?}", page.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_phone_hears_the_playgrounds_document() {
    if !has_chromium() {
        return;
    }
    let dev = Dev::start(&[]);
    let mut page = Browser::open(&dev.address("console")).await;
    page.click("form.stack button, .gate button").await;
    page.until("document.querySelector('.side nav')").await;
    page.visit("/console/playground/").await;
    page.fill(
        "#source",
        "<Response><Speak>This is my draft.</Speak><Wait length=\"20\"/></Response>",
    )
    .await;
    page.until("document.querySelector('button[data-phone]')").await;
    let phone = page.eval("document.querySelector('button[data-phone]').dataset.phone").await;
    // Submits the form like the button, without opening a window.
    page.eval(
        "const form = document.querySelector('.bench form'); const by = form.querySelector('button[value=phone]'); \
               fetch(form.getAttribute('action'), {method: 'POST', body: new URLSearchParams(new FormData(form, by))})\
               .then((answer) => { globalThis.put = answer.status; }); 0",
    )
    .await;
    page.until("globalThis.put === 200").await;
    let mut caller = Browser::open(phone.as_str().expect("where the phone is")).await;
    caller.until("document.getElementById('number').textContent.includes('918035737459')").await;
    caller.eval("document.getElementById('call').click()").await;
    caller.until("document.getElementById('steps').innerText.includes('Speak')").await;
    caller.until("document.getElementById('hear-level').value > 0.02").await;
    caller.eval("document.getElementById('call').click()").await;
    assert!(
        page.errors.is_empty() && caller.errors.is_empty(),
        "{:#?} {:#?}",
        page.errors,
        caller.errors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_command_works_with_and_without_a_running_dev() {
    let dev = Dev::start(&[]);
    let node = dev.address("console").replace("/console/", "");
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("heard.wav");
    for args in [vec!["--node", node.as_str()], vec![]] {
        let out = Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(["call", "--json", "--dtmf", "0", "--record"])
            .arg(&recording)
            .args(&args)
            .output()
            .expect("place a call");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&out.stderr));
        let events: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect();
        for word in
            ["placed", "ringing", "answered", "media_up", "instruction", "digit_sent", "hangup"]
        {
            assert!(events.iter().any(|e| e["event"] == word), "{word} in {text}");
        }
        let last = events.last().expect("an end");
        assert_eq!((&last["event"], &last["ok"]), (&"ended".into(), &true.into()), "{text}");
        assert!(
            last["heard_ms"].as_u64().expect("a number") > 500 && last["cause"].is_string(),
            "{text}"
        );
        let length = hound::WavReader::open(&recording).expect("a WAV file").duration();
        assert!(length > 16_000, "more than a second was recorded");
    }
}

/// Every command finds a running `offhook dev`, with any data directory and from any directory; the
/// configuration of this directory is second, and an option comes before both.
#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_running_dev() {
    let data = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(&["--data-dir", data.path().to_str().expect("a path")]);
    let node = dev.address("console").replace("/console/", "");
    let meta = dev.address("simulated Meta");
    let meta = url::Url::parse(&meta).expect("a URL").origin().ascii_serialization();
    let body = serde_json::json!({"message": "Good morning", "from": sim::world::USER});
    let url = format!("{meta}/_sim/messages");
    let sent = http::send("POST", &url, &[], body.to_string()).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    let number = sim::world::NUMBER;

    let elsewhere = tempfile::tempdir().expect("a folder");
    let temporary = dev.temporary.path().to_owned();
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(args)
            .env("TMPDIR", &temporary)
            .env("OFFHOOK_API_KEY", "the-key-of-another-node")
            .current_dir(elsewhere.path())
            .output()
            .expect("a command");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    for args in [
        &["numbers", "list", "--json"][..],
        &["numbers", "export", "--json"],
        &["conversations", "export"],
        &["calls", "list"],
        &["callbacks", "list"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}: {out}");
        let is_list = args[0] == "calls" || args[0] == "callbacks";
        assert!(is_list || out.contains(number), "{args:?}: {out}");
    }
    // The store and the API give the same conversations.
    let (_, stored, _) = run(&["conversations", "export"]);
    let (code, asked, err) =
        run(&["conversations", "export", "--node", &node, "--api-key", sim::world::API_KEY]);
    assert_eq!(code, Some(0), "{err}");
    let parsed = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    };
    let (stored, asked) = (parsed(&stored), parsed(&asked));
    assert_eq!(asked.first(), stored.first());
    assert_eq!(stored.len(), asked.len());
    let id = |line: &serde_json::Value| line["message"]["id"].clone();
    assert_eq!(asked.iter().map(id).collect::<Vec<_>>(), stored.iter().map(id).collect::<Vec<_>>());
    assert_eq!(asked.last().expect("a message")["message"]["text"], "Good morning");
    let of = |account: &str| {
        run(&[
            "conversations",
            "export",
            "--node",
            &node,
            "--api-key",
            sim::world::API_KEY,
            "--account",
            account,
        ])
    };
    assert_eq!(of(sim::world::ACCOUNT).0, Some(0));
    assert_eq!(of("MAYYYYYYYYYYYYYYYYYY").0, Some(1));

    // An option comes first, and a configuration that could be meant is named.
    let closed = format!("http://127.0.0.1:{}", crate::support::node::free_port());
    let (code, _, err) = run(&["numbers", "list", "--node", &closed]);
    assert_eq!(code, Some(1), "{err}");
    std::fs::write(elsewhere.path().join("offhook.toml"), "no = 1").expect("written");
    let (code, _, err) = run(&["calls", "list"]);
    assert!(code == Some(0) && err.contains("not the node of ./offhook.toml"), "{err}");
    // What reads the store itself prefers that of the configuration.
    let (code, _, err) = run(&["backup", "copy.db"]);
    assert!(code == Some(2) && err.contains("offhook.toml"), "{code:?}: {err}");
    let (code, _, err) =
        run(&["backup", "no/copy.db", "--data-dir", data.path().to_str().unwrap()]);
    assert!(code == Some(2) && err.contains("the folder no does not exist"), "{err}");
    assert_eq!(run(&["backup", "copy.db", "--data-dir", data.path().to_str().unwrap()]).0, Some(0));
    assert_eq!(run(&["numbers", "list", "--config", "offhook.toml"]).0, Some(2));

    // Without a running dev it is the configuration, and without that an error that helps.
    assert_eq!(dev.interrupt(), Some(0));
    let (code, _, err) = run(&["calls", "list"]);
    assert!(code == Some(2) && err.contains("offhook.toml"), "{err}");
    std::fs::remove_file(elsewhere.path().join("offhook.toml")).expect("removed");
    for args in [["numbers", "list"], ["calls", "list"], ["conversations", "export"]] {
        let (code, _, err) = run(&args);
        assert!(code == Some(2) && err.contains("no running `offhook dev`"), "{args:?}: {err}");
    }
}

#[test]
fn a_call_that_fails_exits_1_and_names_its_cause_and_uuid() {
    let folder = tempfile::tempdir().expect("a folder");
    let document = folder.path().join("dial.xml");
    std::fs::write(&document, "<Response><Dial><Number>14155550123</Number></Dial></Response>")
        .expect("written");
    let document = document.to_str().expect("a path");
    let cases: [(&[&str], &str, Option<&str>); 2] = [
        (&["--answer-url", "http://127.0.0.1:1/answer"], "answer_url_unreachable", None),
        (&["--document", document], "end_of_instructions", Some("Dial")),
    ];
    for (options, cause, element) in cases {
        let out = Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(["call", "--json"])
            .args(options)
            .output()
            .expect("place a call");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(1), "{text}");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let events: Vec<serde_json::Value> = lines.collect();
        let last = events.last().expect("an end");
        assert_eq!((&last["event"], &last["ok"]), (&"ended".into(), &false.into()));
        assert_eq!(last["cause"], cause, "{text}");
        assert!(last["call_uuid"].is_string(), "{text}");
        let has_element = |element| events.iter().any(|event| event["element"] == element);
        assert!(element.is_none_or(has_element), "{text}");
    }
}

/// A page of another site could otherwise reach the node by DNS rebinding.
#[tokio::test(flavor = "multi_thread")]
async fn dev_refuses_a_foreign_host() {
    let dev = Dev::start(&[]);
    let node = dev.address("console").replace("/console/", "");
    for (host, status) in [("rebound.example.com", "421"), ("localhost:1", "303")] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = http::raw(&node, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}
