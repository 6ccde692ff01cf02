//! Command-line arguments, exit codes, and the output on standard output and standard error.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::app::App;

fn offhook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(args).env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    offhook(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GOOD: &str = r#"
[meta]
app_secret = "canary-one-of-the-app"
verify_token = { env = "TOKEN" }
access_token = "canary-three-of-verification"
[[account]]
auth_id = "MAXXXXXXXXXXXXXXXXXX"
auth_token = "canary-four-of-account"
[[waba]]
id = "1029384756"
account = "MAXXXXXXXXXXXXXXXXXX"
[[number]]
number = "918035737458"
phone_number_id = "106540352242922"
waba = "1029384756"
calling_enabled = true
answer_url = "https://app.example.com/answer"
"#;

#[test]
fn exit_codes_and_streams() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--version"], 0, "offhook "),
        (&["--help"], 0, "Usage: offhook"),
        (&["call", "--help"], 0, "--dtmf"),
        (&["load", "--help"], 0, "--rate"),
        (&["completions", "bash"], 0, "offhook"),
        (&["man"], 0, ".TH offhook 1"),
        (&["openapi"], 0, "\"openapi\": \"3.1.0\""),
    ];
    for (args, code, part) in cases {
        let out = run(args);
        assert_eq!(out.status.code(), Some(*code), "{args:?}");
        assert!(
            text(&out.stdout).contains(part) && out.stderr.is_empty(),
            "{args:?}: {}",
            text(&out.stdout)
        );
    }
    let wrong: &[(&[&str], i32, &str)] = &[
        (&[], 2, "Usage"),
        (&["cal"], 2, "unrecognized subcommand"),
        (&["call", "--nod", "x"], 2, "--node"),
        (&["dev", "--port", "99999"], 2, "99999"),
        (&["call", "--node", "not a url"], 2, "--node"),
        (&["call", "--answer-url", "ftp://app.example.com/"], 2, "ftp is neither http nor https"),
        (&["--log-level", "loud", "man"], 2, "loud"),
        (&["load", "--rate", "0", "--calls", "1"], 2, "rate 0 is out of range"),
        (&["load", "--rate", "1", "--calls", "0"], 2, "from 1 to 10000000"),
        (&["load", "--rate", "x", "--calls", "1"], 2, "such as 50 or 0.5"),
        (&["calls", "list", "--limit", "-3"], 2, "from 1 to 1000"),
        (&["upgrade", "--wait", "x"], 2, "from 0 to 86400"),
        (&["replay", "--step", "0", "-"], 2, "expected a whole number from 1"),
        (&["voices", "--language", "german"], 2, "write it like en or en-GB"),
        (&["xml", "run", "-", "--to", "1"], 2, "--to: "),
        (&["numbers", "export", "n.csv"], 2, "use .toml or .json"),
        (&["numbers", "import", "/nowhere/n.toml"], 2, "could not read /nowhere/n.toml"),
        (&["numbers", "register", "918035737458", "--pin", "12"], 2, "--pin needs the six digits"),
        (&["load", "--rate", "1", "--calls", "1", "--hold", "99999"], 2, "from 0 to 86400"),
        (
            &["config", "check", "--config", "/nowhere/offhook.toml"],
            2,
            "could not read /nowhere/offhook.toml",
        ),
        (
            &["serve", "--config", "/nowhere/offhook.toml"],
            2,
            "could not read /nowhere/offhook.toml",
        ),
        (&["replay", "/nowhere/events.jsonl"], 2, "/nowhere/events.jsonl"),
        (&["replay", "Cargo.toml"], 2, "its first line is not that of an event log\nthe event log"),
        (&["xml", "run", "-", "--auth-id", "foo"], 2, "--auth-id foo: expected MA (an account)"),
        (&["xml", "check", "/nowhere/a.xml"], 2, "/nowhere/a.xml"),
        (&["xml", "check"], 2, "FILE|URL|-"),
        (&["xml", "check", "--explain", "E999"], 2, "unknown rule"),
        (&["callbacks", "list", "--node", "http://127.0.0.1:1"], 2, "--data-dir"),
        (&["backup", "out.db", "--node", "http://127.0.0.1:1"], 2, "--data-dir"),
        (&["callbacks", "retry"], 2, "--all-failed"),
        (&["dev", "--port", "0", "--data-dir", "/proc/nowhere"], 1, "/proc/nowhere"),
        (&["call", "--node", "http://127.0.0.1:65529"], 1, "name its address with --node"),
        (&["nodes", "list", "--node", "http://127.0.0.1:65529"], 1, "name its address with --node"),
    ];
    for (args, code, part) in wrong {
        let out = run(args);
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
        assert!(!err.contains("backtrace") && !err.contains("panicked"), "{args:?}: {err}");
    }
}

#[test]
fn a_truncated_log_is_replayed_to_its_end_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read_to_string("fixtures/calls/menu_by_keys.jsonl").unwrap();
    let (before, last) = whole.trim_end().rsplit_once('\n').unwrap();
    let line = whole.lines().count();
    let third = whole.lines().nth(2).unwrap();
    let cases = [
        ("whole", whole.clone(), 0, "", "null", true),
        (
            "cut",
            format!("{before}\n{}", &last[..last.len() / 2]),
            0,
            "is incomplete",
            &*line.to_string(),
            false,
        ),
        ("ends_early", format!("{before}\n"), 0, "ends before the call does", "null", false),
        ("cut_inside", whole.replacen(third, &third[..third.len() / 2], 1), 2, "line 3", "", false),
    ];
    for (name, log, code, note, cut, over) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, log).unwrap();
        let file = file.to_str().unwrap();
        for args in [&["replay", file][..], &["replay", file, "--json"]] {
            let out = run(args);
            let (printed, err) = (text(&out.stdout), text(&out.stderr));
            assert_eq!(out.status.code(), Some(code), "{args:?}: {err}");
            assert!(err.contains(note) && err.is_empty() == note.is_empty(), "{args:?}: {err}");
            if code == 0 && args.len() == 3 {
                let last: serde_json::Value =
                    serde_json::from_str(printed.lines().last().unwrap()).unwrap();
                assert_eq!(
                    (last["cut_line"].to_string().as_str(), last["over"].as_bool()),
                    (cut, Some(over))
                );
            }
        }
    }
}

#[test]
fn the_manual_lists_all_commands_except_hidden_ones() {
    let page = text(&run(&["man"]).stdout);
    for name in [
        "DEV",
        "SERVE",
        "CALL",
        "CALLS LIST",
        "CALLS SHOW",
        "LOAD",
        "XML CHECK",
        "XML RUN",
        "REPLAY",
        "CONFIG CHECK",
        "OPENAPI",
        "COMPLETIONS",
        "MAN",
    ] {
        assert!(page.contains(&format!(".SH \"OFFHOOK {name}\"")), "{name}");
    }
    assert!(!page.contains("SPEECH") && !page.contains("speech-helper"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).stdout.len() > 500, "{shell}");
    }
}

/// The configurations of `deploy` are valid, and so is what fills a new machine.
#[test]
fn files_in_deploy_are_valid() {
    let read = |file: &str| {
        std::fs::read_to_string(format!("{}/deploy/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let values = read("helm/offhook/values.yaml");
    let (_, config) = values.split_once("\nconfig: |\n").unwrap();
    let chart: String = config
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("  "))
        .map(|line| format!("{}\n", line.get(2..).unwrap_or_default()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for config in [read("offhook.toml"), chart] {
        std::fs::write(folder.path().join("offhook.toml"), &config).unwrap();
        let secrets = config.split("{ env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        let checked = offhook(&["config", "check"])
            .envs(secrets.map(|name| (name, "a1b2c3d4e5f6a7b8c9d0e1f2")))
            .current_dir(folder.path())
            .output()
            .unwrap();
        let output = text(&checked.stdout) + &text(&checked.stderr);
        assert!(checked.status.success() && !output.contains("warning"), "{output}");
        assert!(output.contains("accounts 1 "), "{output}");
    }

    // Terraform fills in each name in braces after a dollar sign, also in comments.
    let (user_data, terraform) = (read("cloud-init/user-data.yaml"), read("cloud-init/main.tf"));
    for part in user_data.split("${").skip(1) {
        let name = part.split('}').next().unwrap();
        assert!(terraform.contains(&format!("= var.{name}\n")), "{name}");
    }
    // The commands are one script, which would go on after a failed check of the package.
    let commands = user_data.split("runcmd:\n").nth(1).unwrap().lines();
    let first = commands.map(str::trim).find(|line| !line.starts_with('#'));
    assert_eq!(first, Some("- set -e"));
}

#[test]
fn config_check_reports_ok_or_the_position_of_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.toml");
    let check = |content: &str, env: &[(&str, &str)]| {
        std::fs::write(&file, content).unwrap();
        let out = offhook(&["config", "check"])
            .envs(env.iter().copied())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let output = text(&out.stdout) + &text(&out.stderr);
        for secret in [
            "canary-one-of-the-app",
            "canary-two-of-the-access",
            "canary-three-of-verification",
            "canary-four-of-account",
        ] {
            assert!(!output.contains(secret), "{output}");
        }
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let token = ("TOKEN", "canary-two-of-the-access");
    let (code, out, err) = check(GOOD, &[token]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{err}");
    assert!(
        out.starts_with("offhook.toml: ok\n") && out.contains("numbers 1 (1 with calling)"),
        "{out}"
    );

    let gone = ("OFFHOOK_STORE__SECRET_KEY", "{ file = \"/nowhere/store_key\" }");
    let (code, out, err) = check(GOOD, &[token, gone]);
    assert!(code == Some(0) && out.starts_with("offhook.toml: ok\n"), "{out}");
    let warning =
        "warning: `store.secret_key` needs the file /nowhere/store_key, which does not exist";
    assert!(
        err.starts_with(warning) && err.contains("another key has sealed can't be read"),
        "{err}"
    );

    let (code, out, err) = check(GOOD, &[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        err.starts_with(
            "error: offhook.toml:4:16: `verify_token` needs the environment variable TOKEN"
        ),
        "{err}"
    );

    let (code, _, err) = check(&GOOD.replace("answer_url", "anser_url"), &[token]);
    assert_eq!(code, Some(2));
    assert!(err.contains("offhook.toml:17:1: unknown key `anser_url` in [[number]]"), "{err}");
    assert!(err.contains("^^^^^^^^^ did you mean `answer_url`?"), "{err}");
    assert!(
        err.contains("`calling_enabled` needs an `answer_url`") && err.ends_with("2 errors\n"),
        "{err}"
    );

    let (code, _, err) = check(GOOD, &[token, ("OFFHOOK_LIMITS__DEFAULT_CSP", "3")]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("OFFHOOK_LIMITS__DEFAULT_CSP: unknown key") && err.contains("`default_cps`"),
        "{err}"
    );

    let (code, _, err) = check(&format!("{GOOD}\n[speech]\nprovidr = \"builtin\"\n"), &[token]);
    assert_eq!(code, Some(2));
    assert!(err.contains("offhook.toml:20:1: in [speech]: unknown field `providr`"), "{err}");
}

/// The API lists at most 200 calls at once.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_node_are_listed_up_to_the_limit() {
    const CALLS: usize = 450;
    let node = App::start().await;
    node.route("/api/v1/calls/", |request| {
        let limit: usize = request.param("limit").parse().unwrap();
        assert!((1..=200).contains(&limit));
        let from: usize = request.param("cursor").parse().unwrap_or_default();
        let to = CALLS.min(from + limit);
        let call = |n: usize| {
            json!({
                "callUuid": uuid::Uuid::from_u128(n as u128), "direction": "inbound",
                "from": "919812345678", "to": "918035737458", "startedAt": "", "endedAt": null,
                "durationSeconds": null, "billSeconds": null, "cause": null,
            })
        };
        let items: Vec<_> = (from..to).map(call).collect();
        let next = (to < CALLS).then(|| to.to_string());
        (200, json!({ "items": items, "next": next }).to_string())
    });
    for (limit, listed, requests) in [("20", 20, 1), ("201", 201, 2), ("1000", CALLS, 3)] {
        node.forget();
        let args = ["calls", "list", "--json", "--limit", limit, "--node"];
        let args = [&args[..], &[&node.base, "--api-key", "k"]].concat();
        let out = tokio::task::block_in_place(|| run(&args));
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        assert_eq!(text(&out.stdout).lines().count(), listed);
        assert_eq!(node.requests().len(), requests);
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child =
        offhook(&["man"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}

#[test]
fn a_failed_write_to_standard_output_is_an_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        let _ = writeln!(std::io::stderr(), "skipped: this system has no /dev/full");
        return;
    };
    let out = offhook(&["man"]).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("could not write to standard output"));
}
