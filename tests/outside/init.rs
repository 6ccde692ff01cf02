//! `offhook init` against the simulated Meta, and the node that runs with the written file.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use sim::{CallEventKind, CallScript, Sim};

use crate::support::app::App;
use crate::support::http;
use crate::support::node::{
    ACCESS_TOKEN, APP_SECRET, NUMBER, Node, free_port, free_udp_ports, sim_options,
};

/// A Meta, an application, and a folder for the configuration.
struct World {
    sim: Sim,
    app: App,
    dir: tempfile::TempDir,
    port: u16,
}

impl World {
    async fn start() -> Self {
        let app = App::start().await;
        app.xml("/answer", "<Response><Speak>Hello. You are welcome.</Speak></Response>");
        let sim = Sim::start(sim_options()).await.expect("sim");
        let dir = tempfile::tempdir().expect("a directory");
        Self { sim, app, dir, port: free_port() }
    }

    /// The command with every flag that it needs, and the secrets in the environment.
    fn command(&self) -> Command {
        let mut command = offhook(&["init", "--app-id", sim::world::APP_ID]);
        command
            .args(["--domain", &format!("127.0.0.1:{}", self.port)])
            .args(["--answer-url", &self.app.url("/answer")])
            .args(["--graph-url", &self.sim.graph_url()])
            .arg("--output")
            .arg(self.config())
            .env("META_APP_SECRET", APP_SECRET)
            .env("META_ACCESS_TOKEN", ACCESS_TOKEN);
        command
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("offhook.toml")
    }

    fn secret(&self, name: &str) -> String {
        let file = self.dir.path().join("offhook-secrets").join(name);
        assert_eq!(mode(&file), 0o600, "{name}");
        std::fs::read_to_string(file).expect(name).trim_end().to_owned()
    }

    async fn add_number(&self, number: &str, id: &str) {
        let order = json!({"number": number, "phone_number_id": id, "waba": sim::world::WABA, "name": "Second"});
        let url = format!("{}/_sim/numbers", self.sim.url());
        assert_eq!(http::send("POST", &url, &[], order.to_string()).await.status, 204);
    }
}

fn offhook(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(args).env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn mode(file: &Path) -> u32 {
    file.metadata().expect("it exists").permissions().mode() & 0o777
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that fails. Returns the exit code and standard error.
async fn failure(command: Command) -> (Option<i32>, String) {
    let output = run(command).await;
    let error = text(&output.stderr);
    for secret in [APP_SECRET, ACCESS_TOKEN] {
        assert!(!error.contains(secret) && !text(&output.stdout).contains(secret), "{error}");
    }
    (output.status.code(), error)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_written_configuration_serves_a_call() {
    let world = World::start().await;
    let output = run(world.command()).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let public = format!("http://127.0.0.1:{}", world.port);
    let token = world.secret("verify_token");
    for part in [&format!("\"node\": \"{public}\""), &token, "/_sim/app", "offhook serve"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.contains("ok       number") && out.contains("ok       token"), "doctor: {out}");
    assert_eq!(mode(&world.config()), 0o600);
    assert_eq!(mode(&world.dir.path().join("offhook-secrets")), 0o700);
    let file = std::fs::read_to_string(world.config()).expect("the file");
    for secret in
        ["app_secret", "verify_token", "access_token", "auth_token", "api_key", "secret_key"]
    {
        assert!(!file.contains(&world.secret(secret)), "{secret} is in the file");
    }
    let mut check = offhook(&["config", "check", "--config"]);
    check.arg(world.config());
    assert_eq!(run(check).await.status.code(), Some(0));

    let admin = format!("127.0.0.1:{}", free_port());
    let envs = vec![
        ("OFFHOOK_LISTEN__ADMIN", admin.clone()),
        ("OFFHOOK_LISTEN__MEDIA", format!("127.0.0.1:{}", free_udp_ports(8))),
    ];
    let config = world.config();
    let World { sim, app, dir, .. } = world;
    let api_key = std::fs::read_to_string(dir.path().join("offhook-secrets/api_key")).unwrap();
    let node = Node::start_file(dir, &config, &public, &format!("http://{admin}"), envs).await;
    sim.set_node_url(public.clone());
    let verify = format!(
        "{public}/webhooks/meta?hub.mode=subscribe&hub.challenge=7&hub.verify_token={token}"
    );
    assert_eq!(http::get(&verify).await.text(), "7");
    // The token is entered at Meta.
    let script = CallScript { verify_token: Some(token), ..CallScript::default() };
    let events = sim.place_call(script).all().await;
    match events.last().map(|event| &event.kind) {
        Some(CallEventKind::Ended(end)) => assert!(end.ok && end.heard_ms > 500, "{events:#?}"),
        _ => panic!("no end: {events:#?}"),
    }
    app.wait_where("/answer", |request| request.param("To") == NUMBER).await;
    let url = format!("{public}/api/v1/phone-numbers/{NUMBER}/");
    let shown = http::send("GET", &url, &[("x-api-key", api_key.trim_end())], "").await;
    assert_eq!((shown.status, &shown.json()["number"]), (200, &json!(NUMBER)), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_all_missing_answers_are_named() {
    let (code, error) = failure(offhook(&["init", "--output", "/nowhere/offhook.toml"])).await;
    assert_eq!(code, Some(2));
    let flags =
        ["--domain", "--app-id", "--app-secret-file", "--access-token-file", "--answer-url"];
    for flag in flags {
        assert!(error.contains(flag), "{flag}: {error}");
    }
    let mut wrong = offhook(&["init", "--domain", "calls.local", "--app-id", "mine", "--yes"]);
    wrong.args(["--answer-url", "http://app.example.com/", "--email", "ops"]);
    wrong.args(["--app-secret-file", "/nowhere/secret"]).env("META_ACCESS_TOKEN", ACCESS_TOKEN);
    let (code, error) = failure(wrong).await;
    assert_eq!(code, Some(2));
    let (code, unversioned) =
        failure(offhook(&["init", "--graph-url", "http://127.0.0.1:8081"])).await;
    assert_eq!(code, Some(2));
    assert!(unversioned.contains("like http://127.0.0.1:8081/v23.0"), "{unversioned}");
    for part in [
        "like calls.example.com",
        "--app-id: an id of Meta has digits only",
        "--answer-url: it must be https",
        "--email: write an address",
        "could not read /nowhere/secret",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_file_is_kept_unless_forced_and_then_the_secrets_are() {
    let world = World::start().await;
    std::fs::write(world.config(), "mine").unwrap();
    let (code, error) = failure(world.command()).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("exists") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(world.config()).unwrap(), "mine");
    let forced = || {
        let mut command = world.command();
        command.arg("--force");
        command
    };
    assert_eq!(run(forced()).await.status.code(), Some(0));
    let before = (world.secret("verify_token"), world.secret("secret_key"));
    assert_eq!(run(forced()).await.status.code(), Some(0));
    assert_eq!((world.secret("verify_token"), world.secret("secret_key")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meta_refuses_is_explained_and_nothing_is_written() {
    let world = World::start().await;
    let other = |name: &str, value: &str| {
        let mut command = world.command();
        command.env(name, value);
        command
    };
    let flags = |args: &[&str]| {
        let mut command = world.command();
        command.args(args);
        command
    };
    world.add_number("918035737460", "106540352249999").await;
    let cases = [
        (other("META_APP_SECRET", "another-secret-of-an-app"), 1, "copy both again"),
        (other("META_ACCESS_TOKEN", "another-token"), 1, "access token is not valid"),
        (flags(&["--waba", "999"]), 2, "--waba: Meta lists no WhatsApp Business Account 999"),
        (flags(&["--number", "4915112345678"]), 2, NUMBER),
        (flags(&[]), 2, "choose a business number with --number"),
    ];
    for (command, code, part) in cases {
        let (ended, error) = failure(command).await;
        assert_eq!(ended, Some(code), "{part}: {error}");
        assert!(error.contains(part) && !error.contains("payment"), "{part}: {error}");
    }
    assert!(world.dir.path().read_dir().unwrap().next().is_none(), "nothing is written");
    let chosen = run(flags(&["--number", "+91 80357 37460"])).await;
    assert_eq!(chosen.status.code(), Some(0), "{}", text(&chosen.stderr));
    assert!(std::fs::read_to_string(world.config()).unwrap().contains("918035737460"));
}

/// `script` gives the command a terminal.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "the reason for skipping")]
async fn at_a_terminal_it_asks_and_hides_secrets() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: needs the program `script` (Debian: bsdutils)");
        return;
    }
    let world = World::start().await;
    world.add_number("918035737460", "106540352249999").await;
    let command = format!(
        "{} init --graph-url {} --output {}",
        env!("CARGO_BIN_EXE_offhook"),
        world.sim.graph_url(),
        world.config().display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-e", "-c", &command, "/dev/null"]).env("NO_COLOR", "1");
    terminal.env_remove("META_APP_SECRET").env_remove("META_ACCESS_TOKEN");
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = terminal.spawn().expect("script");
    let mut keys = child.stdin.take().expect("its input");
    let answers = [
        format!("127.0.0.1:{}", world.port),
        world.app.url("/answer"),
        "mine".to_owned(),
        sim::world::APP_ID.to_owned(),
        "another-secret-of-an-app".to_owned(),
        // Meta refuses the secret before the token is asked. An empty line keeps the id.
        String::new(),
        APP_SECRET.to_owned(),
        "another-token".to_owned(),
        // Meta refuses the token alone.
        ACCESS_TOKEN.to_owned(),
        "918035737460".to_owned(),
    ];
    let output = tokio::task::spawn_blocking(move || {
        keys.write_all((answers.join("\n") + "\n").as_bytes()).expect("typed");
        let output = child.wait_with_output().expect("it ends");
        drop(keys);
        output
    });
    let output = output.await.expect("it ends");
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("an id of Meta has digits only"), "{shown}");
    assert_eq!(shown.matches("Meta refused the app").count(), 1, "{shown}");
    assert_eq!(shown.matches("access token is not valid").count(), 1, "{shown}");
    for (question, times) in [("Id of", 3), ("Secret of", 2), ("Access token of", 2)] {
        assert_eq!(shown.matches(question).count(), times, "{question}: {shown}");
    }
    assert!(!shown.contains("payment") && !shown.contains("ERROR"), "{shown}");
    assert!(shown.contains("918035737460  Second"), "{shown}");
    let file = std::fs::read_to_string(world.config()).unwrap();
    assert!(file.contains("number = \"918035737460\""), "{file}");
    assert_eq!(world.secret("app_secret"), APP_SECRET);
}
