//! `offhook xml check` and `offhook xml run` as a customer's CI runs them: the binary against an
//! application on loopback.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use engine::answer::{SigningKeys, sign};
use model::Method;
use model::Secret;
use serde_json::Value;

use crate::support::app::{App, ReceivedRequest};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(args).env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("run offhook"))
        .await
        .expect("its output")
}

async fn offhook(args: &[&str]) -> Output {
    output(command(args)).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `xml run --json`. Returns the exit code, all objects, and the last one.
async fn walk(args: &[&str]) -> (i32, Vec<Value>, Value) {
    let out = offhook(&[&["xml", "run", "--json"], args].concat()).await;
    let objects: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let last = objects.last().cloned().unwrap_or_else(|| panic!("nothing: {}", text(&out.stderr)));
    assert_eq!(last["event"], "ended", "{}", text(&out.stdout));
    assert_eq!(last["ok"] == true, out.status.code() == Some(0), "{last}");
    (out.status.code().expect("a code"), objects, last)
}

fn of<'a>(objects: &'a [Value], event: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["event"] == event).collect()
}

fn is_signed(seen: &ReceivedRequest, url: &str, token: &str) -> bool {
    let pairs: Vec<(&str, &str)> =
        seen.params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let header = |name: &str| {
        seen.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    let keys = SigningKeys::of_main(&[Secret::new(token)]);
    let method = if seen.method == "GET" { Method::Get } else { Method::Post };
    let signed = sign(method, url, &pairs, &keys, header("x-plivo-signature-v3-nonce"));
    header("x-plivo-signature-v3") == signed[0].1 && !signed[0].1.is_empty()
}

/// Starts an application with a menu: 1 ends the call, 2 goes back.
async fn menu() -> App {
    let app = App::start().await;
    let action = app.url("/choice");
    app.xml(
        "/answer",
        format!(
            "<Response>\n  <GetInput action=\"{action}\" numDigits=\"1\">\n    <Speak>Press one.</Speak>\n  </GetInput>\n  \
             <Speak>Nothing was pressed.</Speak>\n</Response>"
        ),
    );
    let again = app.url("/answer");
    app.route("/choice", move |seen| match seen.param("Digits") {
        "1" => (200, "<Response><Speak>Good bye.</Speak></Response>".to_owned()),
        "2" => (200, format!("<Response><Redirect>{again}</Redirect></Response>")),
        _ => (500, String::new()),
    });
    app.xml("/hangup", "");
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_run_with_real_requests() {
    let app = menu().await;
    let (answer, hangup) = (app.url("/answer"), app.url("/hangup"));
    let args = [
        &*answer,
        "--from=+91 98123 45678",
        "--to=918035737458",
        "--digits=2,1",
        "--hangup-url",
        &hangup,
        "--auth-id=MAWALKEDAPPLICATION1",
        "--auth-token=a-token",
    ];
    let (code, objects, last) = walk(&args).await;
    assert_eq!(
        (code, &last["cause"], &last["documents"]),
        (0, &"end_of_instructions".into(), &4.into()),
        "{last}"
    );
    // The application received the same requests as from a call.
    let seen = app.requests();
    let paths: Vec<_> = seen.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["/answer", "/choice", "/answer", "/choice", "/hangup"]);
    for request in &seen {
        assert!(is_signed(request, &app.url(&request.path), "a-token"), "{}", request.path);
        assert_eq!((request.param("From"), request.param("To")), ("919812345678", "918035737458"));
        assert_eq!(request.param("ParentAuthID"), "MAWALKEDAPPLICATION1");
        assert_eq!(request.param("CallUUID"), seen[0].param("CallUUID"));
    }
    assert_eq!((seen[0].param("CallStatus"), seen[0].param("Event")), ("ringing", "StartApp"));
    assert_eq!((seen[1].param("Digits"), seen[3].param("Digits")), ("2", "1"));
    assert_eq!(seen[4].param("HangupCauseCode"), "4010");
    // The output lists the same requests.
    let asked: Vec<_> =
        of(&objects, "request").iter().map(|o| o["kind"].as_str().unwrap()).collect();
    assert_eq!(asked, ["answer", "action", "redirect", "action"]);
    let signed: Vec<_> =
        of(&objects, "answer").iter().map(|o| o["signed_by"].as_array().unwrap().len()).collect();
    assert_eq!(signed, [6; 4]);
    let keys: Vec<_> = of(&objects, "key").iter().map(|o| o["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["2", "1"]);
    let spoken: Vec<_> =
        of(&objects, "prompt").iter().map(|o| o["heard"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(spoken, ["Press one.", "Press one.", "Good bye."]);
    let callback = &of(&objects, "callback")[0];
    assert_eq!(
        (&callback["kind"], &callback["sent"], &callback["status"]),
        (&"hangup".into(), &true.into(), &200.into())
    );
    // Plain HTTP is allowed here and causes no warning; --strict makes warnings fail.
    assert_eq!(last["warnings"], 0, "{last}");
    assert_eq!(walk(&[&args[..], &["--strict", "--no-callbacks"]].concat()).await.0, 0);
    let refused = walk(&[&args[..], &["--no-callbacks", "--allow-insecure=false"]].concat()).await;
    assert_eq!(refused.0, 1, "{}", refused.2);
    assert_eq!(app.count("/hangup"), 1, "--no-callbacks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_caller_and_a_caller_who_hangs_up() {
    let app = menu().await;
    let answer = app.url("/answer");
    let (code, objects, _) = walk(&[&answer, "--method", "get", "--no-callbacks"]).await;
    assert_eq!(code, 0);
    assert_eq!((app.requests()[0].method.as_str(), app.count("/choice")), ("GET", 0));
    assert_eq!(of(&objects, "prompt").last().unwrap()["heard"][0]["text"], "Nothing was pressed.");
    let (code, _, last) =
        walk(&[&answer, "--digits", "1", "--hangup-after", "0", "--no-callbacks"]).await;
    assert_eq!((code, last["cause"].as_str()), (0, Some("caller_hangup")));
    assert_eq!(app.count("/choice"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_application_gets_the_reason() {
    let app = menu().await;
    app.xml("/bad", "<Response>\n  <Speek>Hi</Speek>\n</Response>");
    let round = app.url("/round");
    app.xml("/round", format!("<Response><Redirect>{round}</Redirect></Response>"));
    app.xml(
        "/forever",
        format!("<Response><Wait/><Redirect>{}</Redirect></Response>", app.url("/forever")),
    );
    let elsewhere = app.url("/answer");
    app.route("/moved", move |_| (302, elsewhere.clone()));
    let circle = app.url("/circle");
    app.route("/circle", move |_| (307, circle.clone()));
    app.xml("/slow", "<Response/>").slow("/slow", Duration::from_secs(600));
    let cases: &[(&str, &[&str], &str, &str)] = &[
        ("/nothing", &[], "answer_url_unreachable", "it answered 404"),
        ("/bad", &[], "invalid_answer_xml", "E202 at line 2"),
        ("/round", &["--max-documents", "2000"], "instruction_loop", "8014"),
        ("/forever", &["--max-documents", "5"], "caller_cancelled", "more than 5 documents"),
        ("/circle", &[], "answer_url_unreachable", "redirects"),
        ("/slow#rt=300&rc=0", &[], "answer_url_unreachable", "no answer in time"),
        ("/answer", &["--digits", "9"], "action_url_unreachable", "it answered 500"),
    ];
    for (path, more, cause, part) in cases {
        let url = app.url(path);
        let (code, objects, last) = walk(&[&[&*url, "--no-callbacks"], *more].concat()).await;
        let faults = last["faults"].to_string();
        assert_eq!(code, 1, "{path}: {last}");
        assert!(faults.contains(part), "{path}: {faults}");
        assert_eq!(last["cause"], *cause, "{path}: {last}");
        assert!(!of(&objects, "hangup").is_empty(), "{path}");
    }
    // A redirect is followed, and both requests are reported.
    let (code, objects, _) = walk(&[&app.url("/moved"), "--digits", "1", "--no-callbacks"]).await;
    assert_eq!(code, 0);
    let hops: Vec<_> =
        of(&objects, "answer").iter().map(|o| o["status"].as_u64().unwrap()).collect();
    assert_eq!(hops, [302, 200, 200]);
    // The fallback URL saves the call, but the application has still failed.
    let (bad, good) = (app.url("/bad"), app.url("/answer"));
    let (code, objects, last) =
        walk(&[&bad, "--fallback-url", &good, "--digits", "1", "--no-callbacks"]).await;
    assert_eq!((code, last["cause"].as_str()), (1, Some("end_of_instructions")));
    assert_eq!(of(&objects, "finding")[0]["rule"], "E202");
    // A callback URL without a server.
    let (code, _, last) =
        walk(&[&good, "--digits", "1", "--hangup-url", &app.url("/nobody")]).await;
    assert!(code == 1 && last["faults"][0].as_str().unwrap().contains("hangup callback"), "{last}");
    // A closed port, and addresses that a production node refuses.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("http://127.0.0.1:{port}/");
    assert_eq!(walk(&[&closed, "--no-callbacks"]).await.0, 1);
    let asked = app.requests().len();
    let (code, _, last) = walk(&[&good, "--allow-insecure", "false", "--no-callbacks"]).await;
    assert!(code == 1 && last["faults"].to_string().contains("https is required"), "{last}");
    assert_eq!(app.requests().len(), asked, "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_run_and_wrong_usage_exits_2() {
    let app = menu().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("menu.xml");
    let action = app.url("/choice");
    std::fs::write(&file, format!("<Response><GetDigits action=\"{action}\"/></Response>"))
        .unwrap();
    let file = file.to_str().unwrap();
    let out = offhook(&["xml", "run", file, "--digits", "1#"]).await;
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{shown}{}", text(&out.stderr));
    for part in [
        "the answer document is a file",
        "   1  <Response><GetDigits",
        "line 1: GetDigits\n",
        "the caller presses 1",
        "Digits=1",
        "signed by  x-plivo-signature-v3",
        "says \"Good bye.\"",
        "the call ends: 4010 End Of XML Instructions",
        "hangup callback: would be sent: a file cannot receive callbacks",
        "\nok: 2 documents",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert_eq!(app.count("/choice"), 1);
    for wrong in [
        &["xml", "run"][..],
        &["xml", "run", "/nowhere/menu.xml"],
        &["xml", "run", file, "--digits", "1,x"],
        &["xml", "run", file, "--from", "Asha"],
        &["xml", "run", file, "--method", "PUT"],
        &["xml", "run", file, "--config", "/nowhere/offhook.toml"],
        &["xml", "run", file, "--max-documents", "0"],
    ] {
        let out = offhook(wrong).await;
        assert_eq!(out.status.code(), Some(2), "{wrong:?}: {}", text(&out.stderr));
        assert!(!out.stderr.is_empty() && !text(&out.stderr).contains("panicked"), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_names_account_tokens_and_urls() {
    let app = menu().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.toml");
    let (answer, hangup) = (app.url("/answer"), app.url("/hangup"));
    let config = format!(
        r#"
[meta]
app_secret = "one-secret-of-the-app"
verify_token = "two"
access_token = "three"
[answer]
allow_insecure = true
[[account]]
auth_id = "MAXXXXXXXXXXXXXXXXXX"
auth_token = "main-token-of-account"
[[account]]
auth_id = "SAXXXXXXXXXXXXXXXXXX"
auth_token = "own-token-of-subaccount"
parent = "MAXXXXXXXXXXXXXXXXXX"
[[waba]]
id = "1029384756"
account = "SAXXXXXXXXXXXXXXXXXX"
[[number]]
number = "918035737458"
phone_number_id = "106540352242922"
waba = "1029384756"
calling_enabled = true
answer_url = "{answer}"
hangup_url = "{hangup}"
"#
    );
    std::fs::write(&file, &config).unwrap();
    let file = file.to_str().unwrap();
    let (code, _, last) = walk(&[&answer, "--config", file, "--digits", "1"]).await;
    assert_eq!(code, 0, "{last}");
    let seen = app.requests();
    assert_eq!(seen.last().map(|s| s.path.as_str()), Some("/hangup"));
    for request in &seen {
        assert!(
            is_signed(request, &app.url(&request.path), "own-token-of-subaccount"),
            "{}",
            request.path
        );
        assert_eq!(request.param("ParentAuthID"), "MAXXXXXXXXXXXXXXXXXX");
    }
    let out = offhook(&["xml", "run", &answer, "--config", file, "--to", "4930123456"]).await;
    assert_eq!(out.status.code(), Some(2));
    // The linter also uses the configured numbers.
    let dial = folder.path().join("dial.xml");
    let document = |caller: &str| {
        format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{caller}\"><User>919412341234</User></Dial></Response>"
        )
    };
    for (caller, code) in [("918035737458", 0), ("918035737459", 1)] {
        std::fs::write(&dial, document(caller)).unwrap();
        let out =
            offhook(&["xml", "check", "--json", "--config", file, dial.to_str().unwrap()]).await;
        assert_eq!(out.status.code(), Some(code), "{}", text(&out.stderr));
        assert_eq!(text(&out.stdout).contains("\"W405\""), code == 1, "{}", text(&out.stdout));
    }
    // A recording is transcribed if the configuration has a recogniser.
    let record = folder.path().join("record.xml");
    let document =
        format!("<Response><Record transcriptionUrl=\"{answer}\" maxLength=\"1\"/></Response>");
    std::fs::write(&record, document).unwrap();
    let recogniser = "[speech.transcribe]\nurl = \"http://127.0.0.1:9/v1\"\n";
    for (more, is_missing) in [("", true), (recogniser, false)] {
        std::fs::write(file, format!("{config}{more}")).unwrap();
        let out = offhook(&["xml", "run", record.to_str().unwrap(), "--config", file]).await;
        let shown = text(&out.stdout);
        assert_eq!(shown.contains("no recogniser is configured"), is_missing, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_checked_from_files_urls_and_standard_input() {
    let app = App::start().await;
    app.xml("/warned", "<Response><Speak lang=\"en-GB\">Hi</Speak></Response>");
    let url = app.url("/warned");
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.xml");
    std::fs::write(&good, "<Response><Wait/></Response>").unwrap();
    let good = good.to_str().unwrap();
    let mut piped = command(&["xml", "check", "--sarif", good, &url, "-"]);
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let out = tokio::task::spawn_blocking(move || {
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"<Response>\n<Play/></Response>").unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    let sarif: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let found: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let place = &r["locations"][0]["physicalLocation"];
            let (uri, line) = (&place["artifactLocation"]["uri"], &place["region"]["startLine"]);
            (
                r["ruleId"].as_str().unwrap(),
                r["level"].as_str().unwrap(),
                uri.as_str().unwrap().to_owned(),
                line.clone(),
            )
        })
        .collect();
    let expected = [
        ("W301", "warning", url.clone(), 1.into()),
        ("E205", "error", "stdin".to_owned(), 2.into()),
    ];
    assert_eq!(found, expected);
    assert_eq!(run["artifacts"].as_array().unwrap().len(), 3);
    let shut = offhook(&["xml", "check", "--allow-insecure", "false", &url]).await;
    assert_eq!(shut.status.code(), Some(2));
    assert!(text(&shut.stderr).contains("https is required"), "{}", text(&shut.stderr));
    let explained = offhook(&["xml", "check", "--explain", "w402"]).await;
    assert_eq!(explained.status.code(), Some(0));
    assert!(
        text(&explained.stdout).starts_with("W402  PreAnswer media"),
        "{}",
        text(&explained.stdout)
    );
}
