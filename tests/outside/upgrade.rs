//! `offhook upgrade`: another process takes over from a running node.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::app::App;
use crate::support::http;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{Node, NodeConfig, basic};

struct World {
    node: Node,
    graph: Graph,
    _app: App,
    /// The processes that have taken over, killed at the end.
    successors: Vec<u32>,
}

impl Drop for World {
    fn drop(&mut self) {
        for pid in &self.successors {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

impl World {
    /// `None` for a node of a fleet, which is not upgraded in this way.
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
        (!is_member).then_some(Self { node, graph, _app: app, successors: Vec::new() })
    }

    /// Runs `offhook upgrade` and returns its output.
    async fn upgrade(&mut self, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command.args(["upgrade", "--data-dir"]).arg(self.node.dir.path()).args(options);
        let output = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
        let output = output.await.expect("it ends");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let pid = text.split("process ").filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        });
        self.successors.extend(pid);
        output
    }

    /// Checks that a call is accepted, and ends it.
    async fn call(&self) {
        let wacid = connect(&self.node, &silent_offer()).await;
        self.graph.wait(&wacid, "accept").await;
        terminate(&self.node, &wacid).await;
    }

    /// Writes an executable file.
    fn script(&self, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.node.dir.path().join("other-binary");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
        file
    }
}

fn text(of: &[u8]) -> String {
    String::from_utf8_lossy(of).into_owned()
}

fn path(of: &Path) -> &str {
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
                let mut every = tokio::time::interval(std::time::Duration::from_millis(60));
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
        let said = text(&output.stdout);
        assert!(output.status.success(), "{round}: {said}{}", text(&output.stderr));
        assert!(said.contains("upgraded: process"), "{said}");
        #[allow(clippy::print_stderr, reason = "a figure")]
        {
            eprintln!("upgrade {round}: {}", said.lines().last().unwrap_or_default());
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
    assert_eq!(world.successors.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_call_is_never_ended_by_an_upgrade() {
    let Some(mut world) = World::start().await else { return };
    let wacid = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&wacid, "accept").await;
    let refused = world.upgrade(&[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains(": live"), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("calls cannot be handed over"));
    let second = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&second, "accept").await;
    terminate(&world.node, &second).await;
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_offhook"));
    waiting.args(["upgrade", "--wait", "60", "--data-dir"]).arg(world.node.dir.path());
    waiting.stdout(std::process::Stdio::piped());
    let mut waiting = waiting.spawn().expect("it runs");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        waiting.stdout.take().expect("its output"),
    ));
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("waiting for"), "{line}");
    assert_eq!(world.graph.actions(&wacid), ["pre_accept", "accept"], "the call goes on");
    terminate(&world.node, &wacid).await;
    let last = lines.map_while(Result::ok).last().expect("a result");
    let pid = last.split(' ').nth(2).and_then(|pid| pid.parse().ok()).expect(&last);
    world.successors.push(pid);
    assert!(waiting.wait().expect("its end").success(), "{last}");
    world.call().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_fails_leaves_the_node_as_it_was() {
    let Some(mut world) = World::start().await else { return };
    let pid = world.node.pid();
    let old = "#!/usr/bin/env python3\nimport socket, json\ns = socket.socket(fileno=0)\ns.recv(65536)\n\
        s.send(json.dumps({'message': 'refused', 'why': 'unknown version'}).encode())\n";
    for (script, why) in [
        ("#!/bin/sh\nexit 3\n", "the new process ended"),
        ("#!/bin/sh\nexec sleep 600\n", "did not answer within 5 s"),
        (old, "the new process refused: unknown version"),
    ] {
        let script = world.script(script);
        let output = world.upgrade(&["--binary", path(&script)]).await;
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.contains("goes on as before"), "{said}");
        world.call().await;
        world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    }
    assert!(world.successors.is_empty());
    assert!(Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_fails_after_the_hand_over_is_rolled_back() {
    let Some(mut world) = World::start().await else { return };
    let script = world.script(
        "#!/usr/bin/env python3\nimport socket, json\ns = socket.socket(fileno=0)\ns.recv(65536)\n\
         s.send(json.dumps({'message': 'ready', 'offhook': '9'}).encode())\ns.recv(65536)\n",
    );
    let output = world.upgrade(&["--binary", path(&script)]).await;
    let said = text(&output.stderr);
    assert!(said.contains("the old binary was started again as process"), "{said}");
    assert_eq!(world.node.wait(), Some(0));
    world.call().await;
    assert_eq!(world.successors.len(), 1);
}
