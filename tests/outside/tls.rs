//! The HTTPS listener: handshakes, redirects, certificates from files and from a certificate
//! authority (`docs/go-live.md#https`).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;

use crate::support::acme::{Acme, AcmeSettings};
use crate::support::app::App;
use crate::support::database::skipped_without_postgres;
use crate::support::http;
use crate::support::meta::Graph;
use crate::support::node::{
    API_KEY, APP_SECRET, Node, NodeConfig, VERIFY_TOKEN, free_port, program,
};
use crate::support::sign;
use crate::support::tls::{Authority, Client, answer};

pub const HOST: &str = "calls.example.com";
const OTHER: &str = "voice.example.com";
pub const EMPTY: &str = r#"{"object":"whatsapp_business_account","entry":[]}"#;

/// A node with an HTTPS listener.
pub struct World {
    pub node: Node,
    authority: Authority,
    pub client: Client,
    certificate: CertificateDer<'static>,
    _graph: Graph,
    _app: App,
}

impl World {
    /// Starts a node with a certificate for [`HOST`] from files, and more lines of `[tls]`.
    pub async fn start(tls: &str) -> Self {
        let authority = Authority::new();
        let dir = tempfile::tempdir().expect("a directory");
        let certificate = authority.write(dir.path(), "host", &[HOST]);
        authority.write(dir.path(), "other", &[OTHER]);
        let (app, graph) = (App::start().await, Graph::start().await);
        let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        config.is_single = true;
        config.listen = format!("https = \"{at}\"");
        config.base_url = Some(format!("https://{HOST}"));
        let folder = dir.path().display();
        config.extra =
            format!("[tls]\ncert = \"{folder}/host.pem\"\nkey = \"{folder}/host.key\"\n{tls}")
                .replace("FOLDER", &folder.to_string());
        let node = Node::start_in(dir, &config).await;
        let client = authority.client(at);
        Self { node, authority, client, certificate, _graph: graph, _app: app }
    }

    /// Waits until the node presents another certificate than `former`.
    async fn until_other(&self, former: &CertificateDer<'static>) -> CertificateDer<'static> {
        until_other(&self.client, former).await
    }
}

async fn until_other(client: &Client, former: &CertificateDer<'static>) -> CertificateDer<'static> {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..600 {
        every.tick().await;
        if let Ok(presented) = client.certificate(HOST).await
            && presented != *former
        {
            return presented;
        }
    }
    panic!("no other certificate after 60 s");
}

/// A request with a signed webhook.
pub fn webhook() -> ::http::request::Builder {
    ::http::Request::post(format!("https://{HOST}/webhooks/meta"))
        .header("x-hub-signature-256", sign(APP_SECRET, EMPTY.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_arrive_over_https_with_http_1_and_2() {
    let world = World::start("").await;
    for is_http2 in [false, true] {
        let answer = world.client.send(HOST, is_http2, webhook(), EMPTY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000");
    }
    let forged = webhook().header("x-hub-signature-256", "sha256=00");
    assert_eq!(world.client.send(HOST, false, forged, EMPTY).await.status, 401);
    let query = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=7");
    let verify = ::http::Request::get(format!("https://{HOST}/webhooks/meta?{query}"));
    let answer = world.client.send(HOST, true, verify, "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_connects_over_https() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let world = World::start("").await;
    let stream = world.client.connect(HOST, b"http/1.1").await.expect("a handshake");
    let url = format!("wss://{HOST}/phone");
    let (mut socket, answer) =
        tokio_tungstenite::client_async(url, stream).await.expect("an upgrade");
    assert_eq!(answer.status(), 101);
    socket.send(Message::text("{}")).await.expect("sent");
    assert!(socket.next().await.is_some_and(|message| message.is_ok()), "the node answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_are_redirected_to_https() {
    let world = World::start("").await;
    let public = &world.node.public;
    let answer = http::get(&format!("{public}/console/calls?page=2")).await;
    assert_eq!(
        (answer.status, answer.headers["location"].to_str().expect("text")),
        (308, "https://calls.example.com/console/calls?page=2")
    );
    assert!(!answer.headers.contains_key("strict-transport-security"), "RFC 6797 section 7.2");
    // Programs on this machine do not cross a network.
    let list = format!("{public}/api/v1/phone-numbers/");
    assert_eq!(http::send("GET", &list, &[("x-api-key", API_KEY)], "").await.status, 200);
    assert_eq!(world.node.post_webhook(EMPTY).await.status, 200);
    let token = format!("{public}/.well-known/acme-challenge/unknown");
    assert_eq!(http::get(&token).await.status, 404, "not redirected");

    for command in [&["call"][..], &["load", "--calls", "1", "--rate", "1"]] {
        let mut program = std::process::Command::new(program());
        program.args(command).args(["--node", public]).env_remove("RUST_LOG");
        program.stdin(std::process::Stdio::null());
        let ran = tokio::task::spawn_blocking(move || program.output().expect("it runs"));
        let output = ran.await.expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("write --node https://calls.example.com\n"), "{command:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_the_tls_port_is_refused_with_a_reason() {
    let world = World::start("").await;
    let port = world.client.to().to_string();
    let answer = http::raw(&port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("speaks HTTPS"), "{answer}");
    assert!(!answer.contains(http::OPEN), "the connection is closed");
    let reason = [("reason", "handshake")];
    world.node.until_metric("offhook_http_connections_closed_total", &reason, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_gets_its_certificate_and_unknown_ones_the_first() {
    let other = "[[tls.certificate]]\ncert = \"FOLDER/other.pem\"\nkey = \"FOLDER/other.key\"\n";
    let world = World::start(other).await;
    assert_eq!(world.client.certificate(HOST).await.expect("a handshake"), world.certificate);
    assert_ne!(world.client.certificate(OTHER).await.expect("a handshake"), world.certificate);
    let refused = world.client.certificate("unknown.example.com").await.expect_err("a wrong name");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_presented_while_connections_stay() {
    let world = World::start("").await;
    let stream = world.client.connect(HOST, b"http/1.1").await.expect("a handshake");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut ask = async || {
        let body = Full::<Bytes>::from(EMPTY);
        let request = webhook().header("host", HOST).body(body).expect("a request");
        answer(sender.send_request(request).await.expect("a response")).await.status
    };
    assert_eq!(ask().await, 200);
    let folder = world.node.dir.path().to_owned();
    // By a reload.
    let second = world.authority.write(&folder, "host", &[HOST]);
    world.node.signal("HUP");
    assert_eq!(world.until_other(&world.certificate).await, second);
    // Because the files have changed.
    let third = world.authority.write(&folder, "host", &[HOST]);
    assert_eq!(world.until_other(&second).await, third);
    // A damaged certificate of an authority changes nothing, and neither does a key that does not
    // belong to the certificate.
    let good = std::fs::read_to_string(folder.join("host.pem")).expect("read");
    let damaged = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let url = format!("{}/api/v1/reload/", world.node.public);
    std::fs::write(folder.join("host.pem"), damaged).expect("written");
    let refused = http::send("POST", &url, &[("x-api-key", API_KEY)], "").await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(world.client.certificate(HOST).await.expect("a handshake"), third);
    std::fs::write(folder.join("host.pem"), good).expect("written");
    std::fs::copy(folder.join("other.key"), folder.join("host.key")).expect("copied");
    let refused = http::send("POST", &url, &[("x-api-key", API_KEY)], "").await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("host.key can't be used"), "{}", refused.text());
    assert_eq!(world.client.certificate(HOST).await.expect("a handshake"), third);
    let mut check = std::process::Command::new(program());
    check.args(["config", "check", "--config"]).arg(&world.node.config);
    let checked = check.output().expect("it runs");
    assert_eq!(checked.status.code(), Some(2));
    let error = String::from_utf8_lossy(&checked.stderr);
    assert!(error.contains("host.key can't be used"), "{error}");
    let end = world.node.metric("offhook_tls_certificate_expiry_timestamp_seconds", &[]).await;
    assert!(end > 1.0, "{end}");
    assert_eq!(ask().await, 200, "the connection stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_examines_the_certificate_files() {
    let world = World::start("").await;
    let folder = world.node.dir.path();
    let files = async || {
        let (_, lines) = world.node.doctor().await;
        let mut lines = lines.into_iter().filter(|line| line["check"] == "certificate");
        lines.next().expect("a finding")
    };
    let line = files().await;
    assert_eq!(line["state"], "ok", "{line}");
    std::fs::copy(folder.join("other.key"), folder.join("host.key")).expect("copied");
    let line = files().await;
    assert_eq!(line["state"], "failed", "{line}");
}

/// A node that gets its certificate from an authority.
struct Issued {
    acme: Acme,
    node: Node,
    client: Client,
    _graph: Graph,
    _app: App,
}

impl Issued {
    /// Starts an authority and a node. `settings` gets the addresses of the HTTPS and the plain
    /// listener.
    async fn start(settings: impl FnOnce(SocketAddr, SocketAddr) -> AcmeSettings) -> Self {
        let [https, plain] =
            [free_port(), free_port()].map(|at| SocketAddr::from(([127, 0, 0, 1], at)));
        let acme = Acme::start(settings(https, plain)).await;
        let (app, graph) = (App::start().await, Graph::start().await);
        let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
        config.is_single = true;
        config.public_port = Some(plain.port());
        config.listen = format!("https = \"{https}\"");
        config.base_url = Some(format!("https://{HOST}"));
        config.extra = format!(
            "[tls]\ndomains = [\"{HOST}\", \"{OTHER}\"]\nemail = \"ops@example.com\"\nacme_directory = \"{}\"\n",
            acme.directory()
        );
        let node = Node::start(&config).await;
        let client = acme.client(https);
        Self { acme, node, client, _graph: graph, _app: app }
    }

    /// Waits until the node presents a certificate of the authority.
    async fn until_certificate(&self) -> CertificateDer<'static> {
        until_other(&self.client, &CertificateDer::from(Vec::new())).await
    }

    async fn until_orders(&self, outcome: &str, count: f64) {
        let name = "offhook_tls_certificate_orders_total";
        self.node.until_metric(name, &[("outcome", outcome)], count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_and_kept_over_a_restart() {
    let mut issued =
        Issued::start(|https, _| AcmeSettings { tls: vec![https], ..AcmeSettings::default() })
            .await;
    let first = issued.until_certificate().await;
    let answer = issued.client.send(HOST, true, webhook(), EMPTY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(issued.client.certificate(OTHER).await.expect("a handshake"), first, "one for both");
    assert_eq!(issued.acme.counts("tls-alpn-01"), (1, 1, 2));
    assert_eq!(issued.acme.contacts(), ["mailto:ops@example.com"]);
    issued.node.until_log("certificate issued").await;
    assert!(!issued.node.log().contains("PRIVATE KEY"), "r22");
    // After a restart, the same certificate is presented at once, without an order.
    issued.node.kill();
    issued.node.start_again().await;
    assert_eq!(issued.client.certificate(HOST).await.expect("a handshake"), first);
    assert_eq!(issued.acme.counts("tls-alpn-01"), (1, 1, 2));
    let database = std::fs::read(issued.node.dir.path().join("offhook.db"));
    let is_plain = database.is_ok_and(|bytes| bytes.windows(11).any(|part| part == b"PRIVATE KEY"));
    assert!(!is_plain, "r22");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_its_end_with_the_same_account() {
    let issued = Issued::start(|https, _| AcmeSettings {
        tls: vec![https],
        // Renewed after four seconds. Times in certificates have no fractions.
        valid_for: Duration::from_secs(6),
        ..AcmeSettings::default()
    })
    .await;
    let first = issued.until_certificate().await;
    issued.acme.change(|settings| settings.valid_for = Duration::from_secs(90 * 86_400));
    let second = until_other(&issued.client, &first).await;
    assert_eq!(issued.client.certificate(HOST).await.expect("a handshake"), second);
    let (accounts, orders, _) = issued.acme.counts("tls-alpn-01");
    assert_eq!((accounts, orders), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_port_443_is_shut_the_plain_listener_answers_the_challenge() {
    let issued =
        Issued::start(|_, plain| AcmeSettings { http: Some(plain), ..AcmeSettings::default() })
            .await;
    issued.until_certificate().await;
    let (accounts, orders, validations) = issued.acme.counts("http-01");
    assert_eq!((accounts, orders, validations), (1, 2, 2));
    issued.node.until_log("port 443, or port 80").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_certificate_is_ready_and_a_reload_orders_again() {
    let issued = Issued::start(|_, _| AcmeSettings::default()).await;
    // Both ports are shut.
    issued.until_orders("refused", 2.0).await;
    assert!(issued.client.certificate(HOST).await.is_err(), "there is none");
    assert_eq!(issued.node.post_webhook(EMPTY).await.status, 200, "the rest works");
    issued.acme.change(|settings| settings.tls = vec![issued.client.to()]);
    issued.node.signal("HUP");
    issued.until_certificate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_expires_is_made_again() {
    let issued = Issued::start(|https, _| AcmeSettings {
        tls: vec![https],
        expires_orders: true,
        ..AcmeSettings::default()
    })
    .await;
    issued.node.until_log("certificate not issued").await;
    issued.acme.change(|settings| settings.expires_orders = false);
    issued.node.signal("HUP");
    issued.until_certificate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_other_names_is_not_installed() {
    let issued = Issued::start(|https, _| AcmeSettings {
        tls: vec![https],
        names: vec![HOST.to_owned()],
        ..AcmeSettings::default()
    })
    .await;
    issued.node.until_log(&format!("its certificate is not for {OTHER}")).await;
    assert!(issued.client.certificate(HOST).await.is_err(), "there is none");
    issued.acme.change(|settings| settings.names = Vec::new());
    issued.node.signal("HUP");
    issued.until_certificate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_obeyed_even_by_a_reload() {
    let issued = Issued::start(|https, _| AcmeSettings {
        tls: vec![https],
        refuse: Some(("rateLimited", 429, Some("15"))),
        ..AcmeSettings::default()
    })
    .await;
    issued.until_orders("rate_limited", 1.0).await;
    issued.node.until_log("\"retry_s\":15").await;
    issued.acme.change(|settings| settings.refuse = None);
    let url = format!("{}/api/v1/reload/", issued.node.public);
    let reloaded = http::send("POST", &url, &[("x-api-key", API_KEY)], "").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(issued.acme.counts("tls-alpn-01").1, 0, "no order in the meantime");
    issued.until_certificate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_orders_one_certificate_and_each_node_answers_the_authority() {
    if skipped_without_postgres() {
        return;
    }
    let ports = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let acme = Acme::start(AcmeSettings {
        tls: ports.into(),
        refuse: Some(("serverInternal", 500, None)),
        ..AcmeSettings::default()
    })
    .await;
    let (app, graph) = (App::start().await, Graph::start().await);
    let shared = tempfile::tempdir().expect("a directory");
    let mut nodes = Vec::new();
    for (n, https) in ports.into_iter().enumerate() {
        let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
        config.store_of = Some(shared.path().to_owned());
        config.store = "secret_key = \"the-secret-key-of-the-fleet-in-tests\"".to_owned();
        config.listen = format!("https = \"{https}\"");
        config.base_url = Some(format!("https://{HOST}"));
        let (peer, directory) = (free_port(), acme.directory());
        config.extra = format!(
            "[cluster]\nnode_id = \"n{n}\"\npeer = \"127.0.0.1:{peer}\"\n\
             [tls]\ndomains = [\"{HOST}\"]\nacme_directory = \"{directory}\"\n"
        );
        nodes.push(Node::start(&config).await);
    }
    nodes[0].until_log("certificate not issued").await;
    acme.change(|settings| settings.refuse = None);
    nodes[0].signal("HUP");
    let none = CertificateDer::from(Vec::new());
    let [first, second] = ports.map(|https| acme.client(https));
    let presented = until_other(&first, &none).await;
    assert_eq!(until_other(&second, &none).await, presented);
    let (accounts, orders, _) = acme.counts("tls-alpn-01");
    assert_eq!((accounts, orders), (1, 1));
}
