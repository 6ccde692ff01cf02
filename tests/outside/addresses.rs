//! The addresses of media: found by STUN, and of both families.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use media::stun::check_id;
use sim::{CallEventKind, CallScript, Sim, SimOptions};

use crate::support::app::App;
use crate::support::node::{Node, NodeConfig, free_udp_ports, sim_options};

/// A STUN server that says where requests come from.
struct StunServer {
    at: SocketAddr,
    is_deaf: Arc<AtomicBool>,
}

impl StunServer {
    async fn start() -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let at = socket.local_addr().expect("its address");
        let is_deaf = Arc::new(AtomicBool::new(false));
        let deaf = is_deaf.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 100];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).await.expect("a request");
                let (Some(id), SocketAddr::V4(seen)) = (check_id(&bytes[..length]), from) else {
                    continue;
                };
                if deaf.load(Ordering::Relaxed) {
                    continue;
                }
                let (port, ip) = (seen.port().to_be_bytes(), seen.ip().octets());
                let head = [1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
                let answer = [&head[..], &id, &[0, 1, 0, 8, 0, 1], &port, &ip].concat();
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        Self { at, is_deaf }
    }

    fn set_deaf(&self) {
        self.is_deaf.store(true, Ordering::Relaxed);
    }
}

/// Configures a node to learn its media addresses from a STUN server.
fn auto(node_config: &mut NodeConfig, stun_server: SocketAddr) {
    node_config.envs = vec![
        ("OFFHOOK_PUBLIC__MEDIA_IPS", "auto".to_owned()),
        ("OFFHOOK_PUBLIC__STUN_SERVERS", stun_server.to_string()),
    ];
}

async fn meta_and_app(options: SimOptions) -> (Sim, App, NodeConfig) {
    let app = App::start().await;
    app.xml("/answer", "<Response><Speak>Hello. You are welcome.</Speak></Response>");
    let sim = Sim::start(options).await.expect("sim");
    let node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    (sim, app, node_config)
}

/// Places a call in which the user hears the prompt.
async fn check_audio(sim: &Sim, node: &Node) {
    sim.set_node_url(node.public.clone());
    let events = sim.place_call(CallScript::default()).all().await;
    match events.last().map(|event| &event.kind) {
        Some(CallEventKind::Ended(end)) => assert!(end.ok && end.heard_ms > 500, "{events:#?}"),
        _ => panic!("no end: {events:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_heard_at_the_address_that_a_stun_server_saw_now_or_at_an_earlier_start() {
    let stun_server = StunServer::start().await;
    let (sim, _app, mut node_config) = meta_and_app(sim_options()).await;
    auto(&mut node_config, stun_server.at);
    let node = Node::start(&node_config).await;
    node.until_log("public address found").await;
    check_audio(&sim, &node).await;
    stun_server.set_deaf();

    let node = Node::start_in(restarted(node), &node_config).await;
    node.until_log("the address of an earlier start, 127.0.0.1, is used").await;
    check_audio(&sim, &node).await;

    let dir = restarted(node);
    std::fs::remove_file(dir.path().join("public-address.json")).expect("the earlier address");
    let mut node = Node::spawn_in(dir, &node_config);
    let code = node.until_end_with("could not find the public address of this machine").await;
    assert_eq!(code, Some(1));
    assert!(node.log().contains(&format!("{} did not answer", stun_server.at)), "{}", node.log());
}

/// Ends a node and keeps its data.
fn restarted(mut node: Node) -> tempfile::TempDir {
    node.kill();
    std::mem::replace(&mut node.dir, tempfile::tempdir().expect("a directory"))
}

/// Ends a process with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts coturn on the loopback. `None` if it is not installed.
#[allow(clippy::print_stderr, reason = "the reason for skipping")]
async fn coturn(port: u16, options: &[&str]) -> Option<(Process, SocketAddr)> {
    let spawned = Command::new("turnserver")
        .args(["-n", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"])
        .args(["--pidfile", "/dev/null", "--listening-ip", "127.0.0.1"])
        .args(["--listening-port", &port.to_string()])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(server) = spawned else {
        eprintln!("skipped: needs coturn (Debian: coturn)");
        return None;
    };
    let (server, at) = (Process(server), SocketAddr::from(([127, 0, 0, 1], port)));
    until_bound(at).await;
    Some((server, at))
}

/// Starts a TURN server that relays to loopback.
async fn relaying_coturn() -> Option<(Process, SocketAddr)> {
    relaying_coturn_at(free_udp_ports(1)).await
}

async fn relaying_coturn_at(port: u16) -> Option<(Process, SocketAddr)> {
    let options = ["--lt-cred-mech", "--user", "offhook:a-password", "--realm", "example.com"];
    let loopback = ["--relay-ip", "127.0.0.1", "--allow-loopback-peers"];
    coturn(port, &[&options[..], &loopback].concat()).await
}

fn turn_section(server: SocketAddr, password: &str) -> String {
    format!("[turn]\nserver = \"{server}\"\nusername = \"offhook\"\npassword = \"{password}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_heard_over_a_turn_server_without_an_open_port() {
    let Some((_server, at)) = relaying_coturn().await else { return };
    let (sim, _app, mut node_config) = meta_and_app(sim_options()).await;
    node_config.extra = turn_section(at, "a-password");
    let node = Node::start(&node_config).await;
    check_audio(&sim, &node).await;
    let (_, findings) = node.doctor().await;
    let relays = format!("the TURN server {at} relays media, now at 127.0.0.1");
    assert!(findings.iter().any(|finding| finding["what"] == relays.as_str()), "{findings:?}");
    node_config.extra = turn_section(at, "another");
    let mut refused = Node::spawn_in(tempfile::tempdir().expect("a directory"), &node_config);
    assert_eq!(refused.until_end_with("gave no address within 5s; check").await, Some(1));
}

/// A restarted server has forgotten the allocations, and a stopped one is not heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_server_that_restarts_or_stops_is_used_again() {
    let Some((mut server, at)) = relaying_coturn().await else { return };
    let (sim, _app, mut node_config) = meta_and_app(sim_options()).await;
    node_config.extra = turn_section(at, "a-password");
    let node = Node::start(&node_config).await;
    check_audio(&sim, &node).await;
    let (allocations, losses) = ("TURN address allocated", "TURN server lost an address");
    // One for each media thread.
    let relays = node.count_in_log(allocations);
    for (round, stays_away) in [(1, false), (2, true)] {
        drop(server);
        if stays_away {
            node.until_in_log(losses, round * relays).await;
        }
        let again = relaying_coturn_at(at.port()).await;
        (server, _) = again.expect("as before");
        node.until_in_log(allocations, (round + 1) * relays).await;
        check_audio(&sim, &node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_uses_a_turn_server_is_upgraded() {
    let Some((_server, at)) = relaying_coturn().await else { return };
    let (sim, app, mut node_config) = meta_and_app(sim_options()).await;
    node_config.extra = turn_section(at, "a-password");
    let node = Node::start(&node_config).await;
    let Some(mut world) = super::upgrade::World::of(node, sim, app).await else { return };
    for _ in 0..2 {
        check_audio(world.sim.as_ref().expect("a simulated Meta"), &world.node).await;
        let output = world.upgrade(&["--wait", "20"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    check_audio(world.sim.as_ref().expect("a simulated Meta"), &world.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coturn_answers_stun() {
    let Some((_server, at)) = coturn(free_udp_ports(1), &["--stun-only"]).await else { return };
    let (sim, _app, mut node_config) = meta_and_app(sim_options()).await;
    auto(&mut node_config, at);
    let node = Node::start(&node_config).await;
    node.until_log(&format!("reported by {at}")).await;
    check_audio(&sim, &node).await;
}

/// Waits until another process has bound a UDP port.
async fn until_bound(at: SocketAddr) {
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..1500 {
        every.tick().await;
        if UdpSocket::bind(at).is_err() {
            return;
        }
    }
    panic!("{at} is not bound after 30 s");
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "the reason for skipping")]
async fn a_dual_stack_node_serves_callers_with_ipv6_only_and_with_ipv4_only() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    for caller in ["[::1]:0", "127.0.0.1:0"] {
        let media = caller.parse().expect("an address");
        let options = SimOptions { media, ..sim_options() };
        let (sim, _app, mut node_config) = meta_and_app(options).await;
        node_config.is_single = true;
        node_config.envs = vec![
            ("OFFHOOK_LISTEN__MEDIA", format!("[::]:{}", free_udp_ports(node_config.media_ports))),
            ("OFFHOOK_PUBLIC__MEDIA_IPS", "127.0.0.1, ::1".to_owned()),
        ];
        let node = Node::start(&node_config).await;
        check_audio(&sim, &node).await;
    }
}
