//! `offhook upgrade`: another process takes over from a running node.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use media::record::Format;
use rusqlite::Connection;
use serde_json::{Value, json};
use sim::{CallEventKind, CallEvents, CallOutcome, CallScript, HangupRule, Sim, caller};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::control::level;
use super::dial::tone;
use super::recognise::{Endpoint, say};
use super::record::{assert_finished, tone_ms};
use crate::support::agent::{AgentResponse, AgentServer, reply};
use crate::support::app::{App, ReceivedRequest};
use crate::support::bot::{Bot, BotServer};
use crate::support::database::skipped_on_postgres;
use crate::support::http;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{API_KEY, Node, NodeConfig, basic, program, sim_options};
use crate::tls;

/// Number of users who call at the same time, which is the limit of the number.
pub const CALLERS: usize = 4;

/// A menu that takes four digits.
pub const MENU: &str = "<Response><GetInput action=\"ACTION\" numDigits=\"4\" digitEndTimeout=\"10\" executionTimeout=\"60\">\
    <Speak loop=\"30\">Please enter the four digits of your order.</Speak></GetInput></Response>";

pub struct World {
    pub node: Node,
    /// The simulated Meta, unless the test has its own Graph.
    pub sim: Option<Sim>,
    graph: Graph,
    pub app: App,
    pub successors: Successors,
}

/// Processes that have taken over from a node, killed at the end.
#[derive(Default)]
pub struct Successors(pub Vec<u32>);

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

impl Successors {
    /// Runs `offhook upgrade` for the node with this data directory, and returns its output.
    pub async fn upgrade(&mut self, data_dir: &Path, options: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(["upgrade", "--data-dir"]).arg(data_dir).args(options);
        let output = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
        let output = output.await.expect("it ends");
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        // A refusal begins with a call's id, which may begin with digits.
        let pid = printed.split("process ").skip(1).filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        });
        self.0.extend(pid);
        output
    }
}

impl World {
    /// `None` for one of several nodes behind a balancer, where calls come to any of them.
    async fn start() -> Option<Self> {
        let app = App::start().await;
        let document = format!(
            "<Response><GetInput action=\"{}\" executionTimeout=\"60\"/></Response>",
            app.url("/menu")
        );
        app.xml("/answer", document);
        let graph = Graph::start().await;
        let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
        node_config.accept_wait_ms = 0;
        let node = Node::start(&node_config).await;
        let is_member = node.log().contains("joined the fleet");
        (!is_member).then_some(Self {
            node,
            sim: None,
            graph,
            app,
            successors: Successors::default(),
        })
    }

    /// Starts a node with a simulated Meta. Its callers hear a long menu. `None` as in [`World::start`].
    async fn with_callers() -> Option<Self> {
        Self::with_config("").await
    }

    /// As [`World::with_callers`], with these lines at the end of the configuration.
    async fn with_config(extra: &str) -> Option<Self> {
        let app = App::start().await;
        app.xml("/hangup", "");
        app.xml("/answer", MENU.replace("ACTION", &app.url("/menu")));
        app.xml("/menu", "<Response><Speak>Thank you.</Speak></Response>");
        let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.hangup_url = app.url("/hangup");
        node_config.limits = format!("calls_per_number = {CALLERS}");
        node_config.extra = extra.to_owned();
        let node = Node::start(&node_config).await;
        sim.set_node_url(node.public.clone());
        Self::of(node, sim, app).await
    }

    /// The same with a running node.
    pub async fn of(node: Node, sim: Sim, app: App) -> Option<Self> {
        let is_member = node.log().contains("joined the fleet");
        match is_member {
            true => None,
            false => Some(Self::of_member(node, sim, app).await),
        }
    }

    /// The same with a node that may be part of a fleet.
    pub async fn of_member(node: Node, sim: Sim, app: App) -> Self {
        let graph = Graph::start().await;
        Self { node, sim: Some(sim), graph, app, successors: Successors::default() }
    }

    /// Places a call of a user who only acts on request.
    pub fn place(&self, from: &str) -> CallEvents {
        self.place_saying(from, Vec::new())
    }

    /// The same, of a user who says this when the call is answered.
    fn place_saying(&self, from: &str, say: Vec<Arc<[u8]>>) -> CallEvents {
        let script = CallScript {
            from: from.to_owned(),
            say,
            hangup: HangupRule::Never,
            ..CallScript::default()
        };
        self.sim.as_ref().expect("a simulated Meta").place_call(script)
    }

    /// Runs `offhook upgrade` and returns its output.
    pub async fn upgrade(&mut self, options: &[&str]) -> Output {
        self.successors.upgrade(self.node.dir.path(), options).await
    }

    /// Requests an upgrade that waits for calls. Returns the command, once it waits, and the further
    /// lines of its output.
    fn waiting_upgrade(&self) -> (Child, impl Iterator<Item = std::io::Result<String>> + use<>) {
        let mut command = Command::new(program());
        command.args(["upgrade", "--wait", "60", "--data-dir"]).arg(self.node.dir.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut command = command.spawn().expect("it runs");
        let output = command.stdout.take().expect("its output");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        let line = lines.next().expect("a line").expect("text");
        assert!(line.contains("waiting for"), "{line}");
        (command, lines)
    }

    /// Sends a JSON body to a resource of the account. Returns the answer.
    pub async fn post(&self, resource: &str, body: &Value) -> Value {
        let account = crate::support::node::AUTH_ID;
        let url = format!("{}/v1/Account/{account}/{resource}", self.node.public);
        let (basic, json) = (basic(), "application/json");
        let headers = [("authorization", basic.as_str()), ("content-type", json)];
        let answer = http::send("POST", &url, &headers, body.to_string()).await;
        assert!(answer.status < 300, "{}", answer.text());
        answer.json()
    }

    /// Deletes a resource of the account.
    pub async fn delete(&self, resource: &str) {
        let account = crate::support::node::AUTH_ID;
        let url = format!("{}/v1/Account/{account}/{resource}", self.node.public);
        let answer = http::send("DELETE", &url, &[("authorization", basic().as_str())], "").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Returns a resource of the account.
    pub async fn get(&self, resource: &str) -> Value {
        let account = crate::support::node::AUTH_ID;
        let url = format!("{}/v1/Account/{account}/{resource}", self.node.public);
        http::send("GET", &url, &[("authorization", basic().as_str())], "").await.json()
    }

    /// Checks that a call is accepted, and ends it.
    async fn call(&self) {
        let wacid = connect(&self.node, &silent_offer()).await;
        self.graph.wait(&wacid, "accept").await;
        terminate(&self.node, &wacid).await;
    }

    /// Writes an executable file.
    pub fn script(&self, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.node.dir.path().join("other-binary");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
        file
    }
}

pub fn text(of: &[u8]) -> String {
    String::from_utf8_lossy(of).into_owned()
}

pub fn path(of: &Path) -> &str {
    of.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_takes_over_and_no_request_fails() {
    let Some(mut world) = World::start().await else { return };
    world.call().await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let url = format!("{}/v1/Account/{}/Call/", world.node.public, crate::support::node::AUTH_ID);
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, sent, url) = (stop.clone(), sent.clone(), url.clone());
            tokio::spawn(async move {
                // A client may send 300 requests in 5 s.
                let mut every = tokio::time::interval(Duration::from_millis(60));
                while !stop.load(Ordering::Relaxed) {
                    every.tick().await;
                    let basic = basic();
                    let headers = [("authorization", basic.as_str())];
                    let answer = http::try_send("GET", &url, &headers, "").await;
                    let answer = answer.expect("no request fails");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..2 {
        // The first call of this process is over, but the record of its end may still be written.
        let output = world.upgrade(&["--wait", "20"]).await;
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{round}: {printed}{}", text(&output.stderr));
        assert!(printed.contains("upgraded: process"), "{printed}");
        #[allow(clippy::print_stderr, reason = "a figure")]
        {
            eprintln!("upgrade {round}: {}", printed.lines().last().unwrap_or_default());
        }
        world.call().await;
        world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    assert!(sent.load(Ordering::Relaxed) > 10);
    assert_eq!(world.node.wait(), Some(0), "the first process ends in order");
    assert_eq!(world.successors.0.len(), 2);
}

/// A request without credentials, whose body arrives slowly and never ends, gets 503.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a client of the node")]
async fn a_slow_body_does_not_prevent_an_upgrade() {
    let Some(mut world) = World::start().await else { return };
    let at = world.node.public.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&at).await.unwrap();
    let head = format!(
        "POST /webhooks/meta HTTP/1.1\r\nhost: {at}\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let (mut reads, mut writes) = slow.into_split();
    let trickle = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(200));
        while writes.write_all(&[b' '; 16_384]).await.is_ok() {
            every.tick().await;
        }
    });
    let output = world.upgrade(&[]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut answer = Vec::new();
    // The connection may be reset after the response, because the rest of the body is not read.
    let _ = reads.read_to_end(&mut answer).await;
    let answer = text(&answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("hands over"), "{answer}");
    trickle.await.unwrap();
    world.call().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_https_wait_for_the_new_process() {
    let tls::World { node, client, .. } = tls::World::start("").await;
    if node.log().contains("joined the fleet") {
        return;
    }
    let (graph, app) = (Graph::start().await, App::start().await);
    let mut world = World { node, sim: None, graph, app, successors: Successors::default() };
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = [false, true]
        .map(|is_http2| {
            let (stop, sent, client) = (stop.clone(), sent.clone(), client.clone());
            tokio::spawn(async move {
                let mut every = tokio::time::interval(std::time::Duration::from_millis(10));
                while !stop.load(Ordering::Relaxed) {
                    every.tick().await;
                    let request = tls::webhook();
                    let answer = client.send(tls::HOST, is_http2, request, tls::EMPTY).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .into();
    for _ in 0..3 {
        let before = sent.load(Ordering::Relaxed);
        let output = world.upgrade(&[]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(sent.load(Ordering::Relaxed) > before);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_learns_which_process_serves() {
    let (app, graph) = (App::start().await, Graph::start().await);
    let dir = tempfile::tempdir().expect("a directory");
    let name = dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&name).expect("a socket");
    let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
    config.envs = vec![("NOTIFY_SOCKET", path(&name).to_owned())];
    let node = Node::start(&config).await;
    if node.log().contains("joined the fleet") {
        return;
    }
    let next = async || {
        let mut text = [0; 100];
        let received = socket.recv(&mut text).await.expect("a message");
        String::from_utf8_lossy(&text[..received]).into_owned()
    };
    assert_eq!(next().await, "READY=1");
    let mut world = World { node, sim: None, graph, app, successors: Successors::default() };
    // The second upgrade is of the process that has taken over.
    for round in 0..2 {
        let output = world.upgrade(&[]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(next().await, format!("MAINPID={}", world.successors.0[round]));
    }
    // A binary that does not take over is not announced, the old one is if it is started again.
    let script = world.script("#!/bin/sh\nexit 3\n");
    assert!(!world.upgrade(&["--binary", path(&script)]).await.status.success());
    assert!(socket.try_recv(&mut [0; 100]).is_err(), "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_call_is_never_ended_by_an_upgrade() {
    let Some(mut world) = World::start().await else { return };
    let wacid = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&wacid, "accept").await;
    let refused = world.upgrade(&[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let printed = text(&refused.stdout);
    assert!(printed.contains("its media path is not up"), "{printed}{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("calls cannot be handed over"));
    let second = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&second, "accept").await;
    terminate(&world.node, &second).await;
    let (mut waiting, lines) = world.waiting_upgrade();
    assert_eq!(world.graph.actions(&wacid), ["pre_accept", "accept"], "the call goes on");
    terminate(&world.node, &wacid).await;
    let last = lines.map_while(Result::ok).last().expect("a result");
    let pid = last.split(' ').nth(2).and_then(|pid| pid.parse().ok()).expect(&last);
    world.successors.0.push(pid);
    assert!(waiting.wait().expect("its end").success(), "{last}");
    world.call().await;
}

/// Neither the new process nor the old binary after it could replay the journal.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_refused_while_the_database_rejects_writes() {
    if skipped_on_postgres() {
        return;
    }
    let Some(mut world) = World::start().await else { return };
    let other = Connection::open(world.node.dir.path().join("offhook.db")).unwrap();
    other.busy_timeout(Duration::from_secs(20)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let wacid = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&wacid, "accept").await;
    terminate(&world.node, &wacid).await;
    // SQLite's busy timeout is five seconds.
    while world.node.metric("offhook_store_journal_bytes", &[]).await == 0.0 {
        tokio::task::yield_now().await;
    }
    let refused = world.upgrade(&[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let printed = text(&refused.stderr);
    assert!(printed.contains("which wait in the journal"), "{printed}");
    world.call().await;
    other.execute_batch("ROLLBACK").unwrap();
    world.node.until_log("database accepts writes again").await;
    let done = world.upgrade(&[]).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    world.call().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_upgrade_is_cancelled_with_its_command() {
    let Some(mut world) = World::start().await else { return };
    let wacid = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&wacid, "accept").await;
    let (waiting, _lines) = world.waiting_upgrade();
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is signalled");
    let ended = waiting.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(130));
    let printed = text(&ended.stderr);
    assert!(printed.contains("upgrade cancelled; the node goes on as before"), "{printed}");
    world.node.until_log("upgrade cancelled").await;
    terminate(&world.node, &wacid).await;
    world.call().await;
    assert!(!world.node.log().contains("upgrade completed"));
    let again = world.upgrade(&[]).await;
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_by_systemd_upgrades_only_if_the_binary_was_replaced() {
    let Some(mut world) = World::start().await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("offhook");
    std::fs::copy(program(), &binary).expect("copied");
    world.node.kill();
    world.node.start_again_as(path(&binary)).await;
    let same = world.upgrade(&["--or-reload"]).await;
    assert!(same.status.success(), "{}", text(&same.stderr));
    assert!(text(&same.stdout).contains("the node reloads its configuration"));
    world.node.until_log("configuration reloaded").await;
    assert!(!world.node.log().contains("upgrade completed"));
    // As a package manager does it.
    let new = dir.path().join("offhook.new");
    std::fs::copy(program(), &new).expect("copied");
    std::fs::rename(&new, &binary).expect("replaced");
    let upgraded = world.upgrade(&["--or-reload"]).await;
    assert!(upgraded.status.success(), "{}", text(&upgraded.stderr));
    world.node.until_log("upgrade completed").await;
    world.call().await;
}

/// Waits for an event of a call.
pub async fn until(events: &mut CallEvents, test: impl Fn(&CallEventKind) -> bool) {
    loop {
        let event = events.next().await.expect("the call is not over");
        if test(&event.kind) {
            return;
        }
    }
}

/// Waits for the end of a call.
pub async fn end(mut events: CallEvents) -> CallOutcome {
    loop {
        if let CallEventKind::Ended(outcome) = events.next().await.expect("an end").kind {
            return outcome;
        }
    }
}

pub async fn press(events: &CallEvents, keys: &str) {
    events.control().press(caller::parse_keys(keys).expect("keys")).await;
}

/// Places the calls. All of them hear the menu when this returns.
pub async fn callers(world: &World) -> Vec<CallEvents> {
    let mut calls: Vec<_> = (0..CALLERS).map(|n| world.place(&format!("91941234{n:04}"))).collect();
    for call in &mut calls {
        until(call, |event| *event == CallEventKind::FirstAudio).await;
    }
    calls
}

/// Checks that the node has taken four digits of each call once, and that each has one complete
/// record, one hangup callback and an event log that replays.
pub async fn check_calls(world: &World, calls: Vec<CallEvents>) {
    for call in calls {
        let outcome = end(call).await;
        assert!(outcome.ok && outcome.heard_ms > 500, "{outcome:?}");
    }
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") >= CALLERS).await;
    let answers = world.app.requests().into_iter().filter(|request| request.path == "/answer");
    let uuids: Vec<_> = answers.map(|request| request.param("CallUUID").to_owned()).collect();
    assert_eq!(uuids.len(), CALLERS);
    for uuid in uuids {
        let requests = world.app.requests();
        let of = |path: &str| -> Vec<_> {
            let is_its = |request: &&ReceivedRequest| {
                request.path == path && request.param("CallUUID") == uuid
            };
            requests.iter().filter(is_its).collect()
        };
        let (menu, hangup) = (of("/menu"), of("/hangup"));
        let digits: Vec<_> = menu.iter().map(|request| request.param("Digits")).collect();
        assert_eq!(digits, ["1234"], "{uuid}");
        assert_eq!(hangup.len(), 1, "{uuid}");
        assert_eq!(hangup[0].param("HangupCauseName"), "End Of XML Instructions");
        let record = world.node.record(&uuid).await;
        assert_eq!(record["hangup_cause_name"], "End Of XML Instructions", "{record:#}");
        let own = format!("{}/api/v1/calls/{uuid}/", world.node.public);
        let own = http::send("GET", &own, &[("x-api-key", API_KEY)], "").await.json();
        assert!(own["quality"]["inbound"]["packets"].as_u64() > Some(100), "{own:#}");
        check_replay(world, &uuid).await;
    }
}

/// Checks that the event log of a call replays.
pub async fn check_replay(world: &World, uuid: &str) {
    let log = format!("{}/api/v1/calls/{uuid}/events", world.node.public);
    let log = http::send("GET", &log, &[("x-api-key", API_KEY)], "").await.text();
    let file = world.node.dir.path().join("events.jsonl");
    std::fs::write(&file, &log).expect("written");
    let replay = Command::new(program()).args(["replay", path(&file)]).output().expect("it runs");
    assert!(replay.status.success(), "{}{log}", text(&replay.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_calls_go_on_in_the_new_process() {
    let Some(mut world) = World::with_callers().await else { return };
    let mut calls = callers(&world).await;
    let (typing, listening) = calls.split_at_mut(CALLERS / 2);
    for call in &mut *typing {
        press(call, "12").await;
        until(call, |event| *event == CallEventKind::DigitSent { digit: '2' }).await;
    }
    let during = async {
        for call in &*typing {
            press(call, "w3").await;
        }
    };
    let (output, ()) = tokio::join!(world.upgrade(&[]), during);
    check_output(&output, CALLERS);
    let number = [("number", "918035737458")];
    let used = world.node.metric("offhook_number_slots_in_use", &number).await;
    assert!((used - CALLERS as f64).abs() < 0.1, "{used} slots in use");
    world.node.until_metric("offhook_calls_active", &[], CALLERS as f64).await;
    let refused = end(world.place("919412349999")).await;
    assert!(!refused.ok, "the limit is reached: {refused:?}");
    for call in &*typing {
        press(call, "4").await;
    }
    let rest = listening.len();
    world.node.until_metric("offhook_calls_active", &[], rest as f64).await;
    // These hear the same prompt in the third process.
    check_output(&world.upgrade(&[]).await, rest);
    for call in &*listening {
        press(call, "1234").await;
    }
    check_calls(&world, calls).await;
    let used = world.node.metric("offhook_number_slots_in_use", &number).await;
    assert!(used < 0.1, "{used} slots in use");
}

/// Checks that an upgrade has handed over this number of calls.
pub fn check_output(output: &Output, calls: usize) {
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert!(printed.contains(&format!("handed over {calls} call")), "{printed}");
    #[allow(clippy::print_stderr, reason = "a figure")]
    {
        eprintln!("{}", printed.replace('\n', "; "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_handed_over_is_listed_with_the_reason() {
    let Some(mut world) = World::with_callers().await else { return };
    world.app.slow("/answer", Duration::from_secs(60));
    let call = world.place("919412340001");
    world.app.wait("/answer").await;
    let output = world.upgrade(&[]).await;
    let printed = text(&output.stdout);
    assert!(printed.contains("it is being set up"), "{printed}{}", text(&output.stderr));
    call.control().hangup().await;
    end(call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_hang_up_during_an_upgrade_are_reported_once() {
    let Some(mut world) = World::with_callers().await else { return };
    let calls = callers(&world).await;
    let controls: Vec<_> = calls.iter().map(CallEvents::control).collect();
    let (started, node) = (world.node.dir.path().join("started"), world.node.pid());
    // Reports when the new process is started, which is just before the node is paused.
    let script =
        world.script(&format!("#!/bin/sh\ntouch {}\nexec {} \"$@\"\n", path(&started), program()));
    let during = async move {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        while !started.exists() {
            every.tick().await;
        }
        // They hang up before, during and after the hand-over.
        for control in controls {
            control.hangup().await;
            for _ in 0..20 {
                every.tick().await;
            }
        }
    };
    let options = ["--binary", path(&script)];
    let (output, ()) = tokio::join!(world.upgrade(&options), during);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!world.successors.0.contains(&node));
    for call in calls {
        end(call).await;
    }
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") >= CALLERS).await;
    let requests = world.app.requests();
    let hangups = requests.iter().filter(|request| request.path == "/hangup");
    let mut uuids: Vec<_> = hangups.clone().map(|request| request.param("CallUUID")).collect();
    uuids.sort_unstable();
    uuids.dedup();
    assert_eq!((uuids.len(), world.app.count("/hangup")), (CALLERS, CALLERS));
    for hangup in hangups {
        assert_eq!(hangup.param("HangupSource"), "Caller", "{:?}", hangup.params);
        let record = world.node.record(hangup.param("CallUUID")).await;
        assert_eq!(record["hangup_source"], "Caller", "{record:#}");
    }
}

/// The tone of callers who are recorded.
const CALLER_HZ: f64 = 700.0;

/// Waits until this number of recordings is running and on the disk.
pub(super) async fn until_recording(world: &World, count: usize) {
    let folder = world.node.dir.path().join("recordings");
    let mut every = tokio::time::interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        let files = std::fs::read_dir(&folder).expect("the folder").filter_map(Result::ok);
        let is_running = |file: &std::fs::DirEntry| {
            let is_long = file.metadata().is_ok_and(|data| data.len() > 1_000);
            is_long && file.file_name().to_string_lossy().ends_with(".part")
        };
        if files.filter(is_running).count() == count {
            return;
        }
    }
}

/// The contents of a recording, in milliseconds.
#[derive(Debug)]
struct Recorded {
    total: u64,
    /// From the beginning to the end of the caller's tone.
    tone: u64,
    /// The longest break in the tone.
    gap: u64,
}

/// Reads the recording of a finished one's callback, which has the duration of its file.
fn recorded(world: &World, seen: &ReceivedRequest, end: &str) -> Recorded {
    let duration = assert_finished(seen, end);
    let folder = world.node.dir.path().join("recordings");
    let id = seen.param("RecordingID").parse().expect("an id");
    let format = match seen.param("RecordUrl").contains(".mp3") {
        true => Format::Mp3,
        false => Format::Wav,
    };
    let mut tones = Vec::new();
    let mut read = |left: &[i16], _: Option<&[i16]>| {
        tones.push(tone_ms(left, CALLER_HZ) > 0);
        true
    };
    media::record::read(&folder, id, format, &mut read).expect("a recording");
    let ms = |steps: usize| u64::try_from(steps).expect("small") * 20;
    let first = tones.iter().position(|tone| *tone).expect("a tone");
    let last = tones.iter().rposition(|tone| *tone).expect("a tone");
    let gap = tones[first..last].split(|tone| *tone).map(<[bool]>::len).max();
    let recorded =
        Recorded { total: ms(tones.len()), tone: ms(last + 1 - first), gap: ms(gap.unwrap_or(0)) };
    // An MP3 has whole frames of 36 ms.
    assert!(recorded.total.abs_diff(duration) <= 60, "{duration} ms: {recorded:?}");
    #[allow(clippy::print_stderr, reason = "figures")]
    {
        eprintln!("{end}, {duration} ms: {recorded:?}");
    }
    recorded
}

/// Returns the call that was placed last.
fn last_call(world: &World) -> String {
    let requests = world.app.requests();
    let answer = requests.iter().rfind(|request| request.path == "/answer").expect("a call");
    answer.param("CallUUID").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_go_on_in_the_same_files() {
    let Some(mut world) = World::with_callers().await else { return };
    for path in ["/recorded", "/session", "/rest"] {
        world.app.xml(path, "<Response/>");
    }
    let (say, menu) = (tone(CALLER_HZ, 14), MENU.replace("ACTION", &world.app.url("/menu")));
    let place = async |document: String, number: u32| {
        world.app.xml("/answer", document);
        let mut call = world.place_saying(&format!("91941234{number:04}"), say.clone());
        until(&mut call, |event| *event == CallEventKind::MediaUp).await;
        let answered = world.app.count("/answer");
        assert_eq!(answered, usize::try_from(number).expect("small"));
        (call, last_call(&world))
    };
    let url = world.app.url("/recorded");
    let document = format!(
        "<Response><Record action=\"{url}\" fileFormat=\"wav\" playBeep=\"false\" timeout=\"2\"/></Response>"
    );
    let (element, element_id) = place(document, 1).await;
    let url = world.app.url("/session");
    let record = format!(
        "<Response><Record recordSession=\"true\" callbackUrl=\"{url}\" fileFormat=\"mp3\" \
         recordChannelType=\"stereo\"/>"
    );
    let (session, session_id) = place(menu.replace("<Response>", &record), 2).await;
    let (mut rest, rest_id) = place(menu, 3).await;
    until(&mut rest, |event| *event == CallEventKind::FirstAudio).await;
    let order = serde_json::json!({"file_format": "wav", "callback_url": world.app.url("/rest")});
    let url = format!(
        "{}/v1/Account/{}/Call/{rest_id}/Record/",
        world.node.public,
        crate::support::node::AUTH_ID
    );
    let (basic, json) = (basic(), "application/json");
    let headers = [("authorization", basic.as_str()), ("content-type", json)];
    let started = http::send("POST", &url, &headers, order.to_string()).await;
    assert_eq!(started.status, 202, "{}", started.text());

    until_recording(&world, 3).await;
    check_output(&world.upgrade(&[]).await, 3);
    let again = http::send("POST", &url, &headers, order.to_string()).await;
    assert_eq!(again.status, 409, "{}", again.text());
    check_output(&world.upgrade(&[]).await, 3);
    until_recording(&world, 3).await;

    let ended = world.app.wait("/recorded").await;
    assert_eq!(ended.param("CallUUID"), element_id);
    let whole = recorded(&world, &ended, "Silence");
    assert!(whole.tone.abs_diff(14_000) <= 200, "{whole:?}");
    // The silence that ends a recording is counted across processes.
    assert!((15_800..16_700).contains(&whole.total), "{whole:?}");
    end(element).await;
    for call in [&session, &rest] {
        press(call, "1234").await;
    }
    let background = [(session, session_id, "/session"), (rest, rest_id, "/rest")];
    for (call, id, path) in background {
        end(call).await;
        let seen = world.app.wait(path).await;
        assert_eq!(seen.param("CallUUID"), id);
        let recorded = recorded(&world, &seen, "HungUp");
        assert!(recorded.tone > 12_000 && recorded.gap <= 200, "{recorded:?}");
        world.node.record(&id).await;
        check_replay(&world, &id).await;
    }
    assert!(whole.gap <= 200, "{whole:?}");
    world.node.record(&element_id).await;
    check_replay(&world, &element_id).await;
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") >= 3).await;
    for path in ["/recorded", "/session", "/rest"] {
        assert_eq!(world.app.count(path), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_go_on_if_an_upgrade_fails() {
    let Some(mut world) = World::with_callers().await else { return };
    world.app.xml("/recorded", "<Response/>");
    let url = world.app.url("/recorded");
    world.app.xml(
        "/answer",
        format!(
            "<Response><Record action=\"{url}\" fileFormat=\"wav\" playBeep=\"false\" timeout=\"3\"/></Response>"
        ),
    );
    let call = world.place_saying("919412340001", tone(CALLER_HZ, 16));
    until_recording(&world, 1).await;
    fail_to_play(&mut world).await;
    // This process takes over the recording, and then dies.
    fail_to_serve(&mut world).await;
    let ended = world.app.wait("/recorded").await;
    let recorded = recorded(&world, &ended, "Silence");
    // While no process received the caller's audio, for about a second, the recording has silence.
    assert!(recorded.tone.abs_diff(16_000) <= 700, "{recorded:?}");
    end(call).await;
    world.node.record(ended.param("CallUUID")).await;
    check_replay(&world, ended.param("CallUUID")).await;
    assert_eq!(world.app.count("/recorded"), 1);
}

/// A node with a recogniser and a menu that asks for words.
async fn recognising(answer: &'static str) -> Option<(World, Endpoint)> {
    let (endpoint, url) = Endpoint::start(answer).await;
    let world = World::with_config(&format!("[speech.transcribe]\nurl = \"{url}\"\n")).await?;
    world.app.xml("/said", "<Response><Speak>Thank you.</Speak></Response>");
    world.app.xml(
        "/answer",
        format!(
            "<Response><GetInput action=\"{}\" inputType=\"dtmf speech\" executionTimeout=\"60\">\
             <Speak loop=\"9\">What can we do for you?</Speak></GetInput></Response>",
            world.app.url("/said")
        ),
    );
    Some((world, endpoint))
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_recognised_after_an_upgrade_and_before_one() {
    let answer = r#"{"text":" Book a table for two.","segments":[{"text":" Book a table for two.","start":0,"end":2,"avg_logprob":-0.1,"no_speech_prob":0.01}]}"#;
    let Some((mut world, endpoint)) = recognising(answer).await else { return };
    // The first caller speaks after the upgrades, the third one during the second of them.
    let silent = world.place_saying("919412340001", say(12_000, "Please book a table.").await);
    let mut later = world.place("919412340002");
    until(&mut later, |event| *event == CallEventKind::FirstAudio).await;
    check_output(&world.upgrade(&[]).await, 2);
    let speaking = world.place_saying("919412340003", say(200, "Please book a table.").await);
    let output = world.upgrade(&["--wait", "30"]).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    end(silent).await;
    end(speaking).await;
    later.control().hangup().await;
    end(later).await;
    let actions: Vec<_> =
        world.app.requests().into_iter().filter(|request| request.path == "/said").collect();
    assert_eq!(actions.len(), 2, "{actions:#?}");
    for request in &actions {
        assert_eq!(request.param("Speech"), "Book a table for two.", "{request:?}");
        world.node.record(request.param("CallUUID")).await;
        check_replay(&world, request.param("CallUUID")).await;
    }
    assert_eq!(endpoint.received().len(), 2, "each utterance is recognised once");
}

const AGENT_SECRET: &str = "test-secret-of-agent";

/// The sentences of an agent's long answer.
const SENTENCES: [&str; 9] = [
    "There is a table at the window.",
    "It has two chairs and a view of the river.",
    "The kitchen closes at half past eleven.",
    "Children are welcome, and so are dogs.",
    "The menu of the day has three courses.",
    "We keep the table for a quarter of an hour.",
    "A car park is behind the house.",
    "The bus stops in front of the door.",
    "What name may I write down?",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_in_the_new_process() {
    let (_, transcribe) = Endpoint::start(r#"{"text":"A table for two."}"#).await;
    let transcribe = format!("[speech.transcribe]\nurl = \"{transcribe}\"\n");
    let Some(mut world) = World::with_config(&transcribe).await else { return };
    let (sentences, events) = mpsc::channel(SENTENCES.len());
    let events = Mutex::new(Some(events));
    let server = AgentServer::start(move |turn| match turn.body["turn"].as_u64() {
        Some(1) => reply("You pressed one and two. What else?", Value::Null),
        Some(2) => reply("For what time?", Value::Null),
        Some(3) => AgentResponse::Events(events.lock().unwrap().take().expect("asked once")),
        _ => reply("Goodbye.", json!("hangup")),
    })
    .await;
    let agents = format!("{}/api/v1/agents/", world.node.public);
    let agent = json!({"name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"],
        "signingSecret": AGENT_SECRET, "greeting": "Welcome. How can I help you?"});
    let agent = http::send("POST", &agents, &[("x-api-key", API_KEY)], agent.to_string()).await;
    let id = agent.json()["id"].as_str().expect("an id").to_owned();
    world.app.xml(
        "/answer",
        format!("<Response><Redirect>https://agent.invalid/{id}/answer</Redirect></Response>"),
    );
    let mut call = world.place_saying("919412340001", say(12_000, "A table for two.").await);
    until(&mut call, |event| *event == CallEventKind::FirstAudio).await;
    press(&call, "12#").await;
    server.until_requests(1).await;
    check_output(&world.upgrade(&["--wait", "30"]).await, 1);

    // The caller speaks.
    let spoken = server.until_requests(2).await.remove(1).body;
    assert_eq!(spoken["input"]["speech"], "A table for two.", "{spoken}");
    check_history(
        &spoken,
        &["Welcome. How can I help you?", "12", "You pressed one and two. What else?"],
    );

    // The agent answers while an upgrade waits.
    until_logged(&world, "For what time?").await;
    press(&call, "7#").await;
    server.until_requests(3).await;
    let refused = text(&world.upgrade(&[]).await.stdout);
    assert!(refused.contains("its agent is answering"), "{refused}");
    let started = world.node.dir.path().join("started");
    let script =
        world.script(&format!("#!/bin/sh\ntouch {}\nexec {} \"$@\"\n", path(&started), program()));
    let during = async move {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        let mut sentence_every = tokio::time::interval(Duration::from_millis(150));
        for sentence in SENTENCES {
            sentences
                .try_send(json!({"type": "text", "text": sentence}).to_string())
                .expect("read");
            while !started.exists() {
                every.tick().await;
            }
            sentence_every.tick().await;
        }
    };
    let options = ["--wait", "30", "--binary", path(&script)];
    let (output, ()) = tokio::join!(world.upgrade(&options), during);
    check_output(&output, 1);
    fail_to_serve(&mut world).await;

    // The caller interrupts the answer, which goes on in the new process.
    press(&call, "8#").await;
    let last = server.until_requests(4).await.remove(3);
    assert_eq!((&last.body["turn"], &last.body["input"]["digits"]), (&json!(4), &json!("8")));
    let answer = SENTENCES.join(" ");
    let expected = [
        "Welcome. How can I help you?",
        "12",
        "You pressed one and two. What else?",
        "A table for two.",
        "For what time?",
        "7",
        answer.as_str(),
    ];
    check_history(&last.body, &expected);
    let played = last.body["history"][6]["text"].as_str().unwrap_or_default();
    assert!(played.len() < answer.len(), "the rest was not played: {played}");
    let outcome = end(call).await;
    assert!(outcome.ok, "{outcome:?}");
    let ended = world.app.wait("/hangup").await;
    let uuid = ended.param("CallUUID");
    world.node.record(uuid).await;
    check_replay(&world, uuid).await;
    let lines = transcript(&world).await;
    let texts: Vec<_> =
        lines.iter().map(|line| line["text"].as_str().unwrap_or_default()).collect();
    assert_eq!(texts.len(), expected.len() + 2, "{texts:#?}");
    assert_eq!(texts[6..], [played, "8", "Goodbye."], "{texts:#?}");
    assert_eq!(server.turns().len(), 4, "each turn is asked for once");
    for turn in server.turns() {
        // With the agent's own secret, which the new process reads from the store.
        let signature = turn.headers["x-offhook-signature"].to_str().expect("text").to_owned();
        let (time, hex) = signature.split_once(",v1=").expect("a signature");
        let signed = [time.trim_start_matches("t=").as_bytes(), b".", &turn.bytes].concat();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, AGENT_SECRET.as_bytes());
        assert_eq!(hex, hex::encode(aws_lc_rs::hmac::sign(&key, &signed)));
    }
    assert_eq!(world.app.count("/hangup"), 1);
}

/// Waits until the event log of the only live call contains a text.
async fn until_logged(world: &World, text: &str) {
    let get = async |path: &str| {
        let url = format!("{}/api/v1/calls/{path}", world.node.public);
        http::send("GET", &url, &[("x-api-key", API_KEY)], "").await
    };
    let mut every = tokio::time::interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        let calls = get("").await.json();
        let Some(uuid) = calls["items"][0]["callUuid"].as_str() else { continue };
        if get(&format!("{uuid}/events")).await.text().contains(text) {
            return;
        }
    }
}

/// Checks the history of a turn, in which the caller may have interrupted the agent's lines.
fn check_history(turn: &Value, expected: &[&str]) {
    let history = turn["history"].as_array().expect("a list");
    let is_expected = |(line, expected): (&Value, &&str)| {
        let text = line["text"].as_str().unwrap_or_default();
        let played = text.trim_end_matches(['\u{2026}', ' ']);
        !played.is_empty() && expected.starts_with(played)
    };
    assert_eq!(history.len(), expected.len(), "{turn:#}");
    assert!(history.iter().zip(expected).all(is_expected), "{turn:#}");
}

/// Waits for the transcript of the only call in the only conversation.
async fn transcript(world: &World) -> Vec<Value> {
    let get = async |path: &str| {
        let url = format!("{}/api/v1/conversations/{path}", world.node.public);
        http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json()
    };
    let mut every = tokio::time::interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        let list = get("").await;
        let Some(id) = list["items"][0]["id"].as_str() else { continue };
        let timeline = get(&format!("{id}/timeline/")).await;
        let items = timeline["items"].as_array().expect("a list");
        let lines = items.iter().find_map(|item| item["call"]["transcript"].as_array());
        if let Some(lines) = lines {
            return lines.clone();
        }
    }
}

/// A process that takes the calls, until it has to continue their media.
const CHECKS: &str = "#!/usr/bin/env python3\nimport socket, json, time\ns = socket.socket(fileno=0)\n\
    def send(message): s.send(json.dumps(message).encode()); s.recv(65536)\n\
    s.recv(65536)\nsend({'message': 'ready', 'offhook': '9'})\n\
    send({'message': 'checked', 'refused': []})\n";

/// Upgrades to a process that does not continue the media of the calls. They go on as before.
pub async fn fail_to_play(world: &mut World) {
    let hangs = world.script(&format!("{CHECKS}time.sleep(60)\n"));
    let printed = text(&world.upgrade(&["--binary", path(&hangs)]).await.stderr);
    assert!(printed.contains("did not answer within 1 s"), "{printed}");
}

/// Upgrades to a process that dies with the calls. The old binary goes on.
pub async fn fail_to_serve(world: &mut World) {
    let dies = world.script(&format!("{CHECKS}send({{'message': 'playing'}})\n"));
    let printed = text(&world.upgrade(&["--binary", path(&dies)]).await.stderr);
    assert!(printed.contains("the old binary was started again as process"), "{printed}");
}

/// Reads a stream's messages up to one of `event`. Checks that none is missing, and that each 20 ms of
/// the caller are there.
async fn read_stream(bot: &mut Bot, event: &str, next: &mut (u64, u64)) -> Value {
    loop {
        let message = bot.next_message().await.expect("the stream goes on");
        next.0 += 1;
        assert_eq!(message["sequenceNumber"], next.0, "{message}");
        if message["event"] == "media" {
            next.1 += 1;
            assert_eq!(message["media"]["chunk"], next.1, "{message}");
        }
        if message["event"] == event {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audio_stream_goes_on_in_the_new_process() {
    let Some(mut world) = World::with_callers().await else { return };
    let mut server = BotServer::start().await;
    for path in ["/stream", "/after"] {
        world.app.xml(path, "<Response><Wait length=\"60\"/></Response>");
    }
    let (status, after) = (world.app.url("/stream"), world.app.url("/after"));
    let document = format!(
        "<Response><Stream bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"audio/x-l16;rate=16000\" \
         statusCallbackUrl=\"{status}\">{}</Stream><Redirect>{after}</Redirect></Response>",
        server.url
    );
    world.app.xml("/answer", document);
    let script = CallScript {
        from: "919412340001".to_owned(),
        say: tone(CALLER_HZ, 3),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let mut call = world.sim.as_ref().expect("a simulated Meta").place_call(script);
    let mut bot = server.accept().await;
    let mut next = (0, 0);
    read_stream(&mut bot, "start", &mut next).await;
    let sample = |n: u32| (f64::from(n) * 440.0 * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0;
    let pcm: Vec<i16> = (0..30 * 16_000).map(|n| sample(n) as i16).collect();
    bot.play(16_000, &pcm).await;
    bot.say(json!({"event": "checkpoint", "name": "end"})).await;
    read_stream(&mut bot, "media", &mut next).await;

    // A process that can't go on, before and after it has taken the media.
    let hangs = world.script(&format!("{CHECKS}time.sleep(60)\n"));
    let printed = text(&world.upgrade(&["--binary", path(&hangs)]).await.stderr);
    assert!(printed.contains("did not answer within 1 s"), "{printed}");
    check_output(&world.upgrade(&[]).await, 1);
    // The stream moves once more. Its connection stays in the first process.
    check_output(&world.upgrade(&[]).await, 1);
    fail_to_serve(&mut world).await;

    assert_eq!(read_stream(&mut bot, "playedStream", &mut next).await["name"], "end");
    bot.play(16_000, &pcm[..16_000]).await;
    bot.say(json!({"event": "clearAudio"})).await;
    read_stream(&mut bot, "clearedAudio", &mut next).await;
    press(&call, "5").await;
    assert_eq!(read_stream(&mut bot, "dtmf", &mut next).await["dtmf"]["digit"], "5");
    bot.close().await;
    world.app.wait("/after").await;
    for event in ["StartStream", "PlayedStream", "ClearedAudio", "StopStream"] {
        let seen = world.app.wait_where("/stream", |seen| seen.param("Event") == event).await;
        assert_ne!(seen.param("StreamStatus"), "failed", "{event}");
    }
    // The first process ends with its last connection.
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while !world.node.log().contains("all connections of audio streams are closed") {
        every.tick().await;
    }
    call.control().hangup().await;
    let mut wav = None;
    while let Some(event) = call.next().await {
        if let CallEventKind::Recording { wav: recording } = event.kind {
            wav = Some(recording);
        }
    }
    let levels = caller_hears(&wav.expect("a recording"));
    // The caller hears all of it. While the process that died had the media, there was silence.
    let played = levels.iter().filter(|level| **level > 0.08).count();
    assert!((295..330).contains(&played), "{played} tenths: {levels:.2?}");
}

/// The level of 440 Hz in each tenth of a second of a recording.
fn caller_hears(wav: &str) -> Vec<f64> {
    let wav = base64::engine::general_purpose::STANDARD.decode(wav).expect("Base64");
    let samples = wav[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]));
    let pcm: Vec<i16> = samples.collect();
    pcm.chunks_exact(1_600).map(|tenth| level(tenth, 440)).collect()
}
