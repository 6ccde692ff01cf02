//! Tests of the client against a scripted server, with all faults that Graph has shown.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use model::{CallUuid, PhoneNumberId};

/// The server's reaction to a request.
#[derive(Clone, Debug)]
enum Reply {
    /// Status, further header lines, and body.
    Answer(u16, &'static str, &'static str),
    /// Announces more bytes than it sends, then closes.
    Cut,
    /// Reads the request and closes.
    Reset,
    /// Never answers.
    Silence,
}

const OK: Reply = Reply::Answer(200, "", r#"{"messaging_product":"whatsapp","success":true}"#);
const BUSY: Reply = Reply::Answer(503, "", r#"{"error":{"message":"busy","code":131016}}"#);

const GONE: Reply = Reply::Answer(
    400,
    "",
    r#"{"error":{"message":"x","code":100,"error_data":{"details":"Call not found or ended"}}}"#,
);

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    /// Heads and bodies of the requests.
    seen: Vec<(String, String)>,
    open: usize,
    most_open: usize,
}

#[derive(Clone)]
struct Server {
    url: String,
    script: Arc<Mutex<Script>>,
}

impl Server {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v23.0", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script {
            replies: replies.into_iter().collect(),
            ..Script::default()
        }));
        let server = Self { url, script };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self, mut stream: TcpStream) {
        while let Some((head, body)) = read_request(&mut stream).await {
            let reply = {
                let mut script = self.script.lock().unwrap();
                script.seen.push((head, body));
                script.open += 1;
                script.most_open = script.most_open.max(script.open);
                script.replies.pop_front().unwrap_or(OK)
            };
            // Let concurrent requests be counted.
            tokio::task::yield_now().await;
            let sent = match reply {
                Reply::Answer(status, headers, body) => {
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
                    stream.write_all(format!("{head}{body}").as_bytes()).await
                }
                Reply::Cut => {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"succ")
                        .await;
                    return;
                }
                Reply::Reset => return,
                Reply::Silence => std::future::pending().await,
            };
            self.script.lock().unwrap().open -= 1;
            if sent.is_err() {
                return;
            }
        }
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.script.lock().unwrap().seen.clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// The default pauses divided by 100.
fn config(url: &str) -> GraphConfig {
    let spec = Policy::default();
    let short = |pauses: Vec<Duration>| pauses.into_iter().map(|pause| pause / 100).collect();
    GraphConfig {
        policy: Policy {
            answering: short(spec.answering),
            ending: short(spec.ending),
            connecting: short(spec.connecting),
            rate_floor: spec.rate_floor / 100,
            retry_after_max: spec.retry_after_max / 100,
        },
        jitter: || 0.5,
        ..GraphConfig::new(url, Secret::new("canary-token"))
    }
}

/// A client with long time limits, unless the server will be silent.
fn graph(server: &Server) -> Graph {
    let mut config = config(&server.url);
    if server.script.lock().unwrap().replies.iter().any(|reply| matches!(reply, Reply::Silence)) {
        config.request_timeout = Duration::from_millis(300);
    }
    Graph::new(config, Clock::real()).unwrap()
}

fn request(action: GraphAction) -> ActionRequest {
    ActionRequest {
        phone_number_id: "106540352242922".into(),
        token: None,
        about: CallTarget::Call("wacid.A".into()),
        action,
        sdp: Some(Arc::from("v=0\r\n")),
        opaque: Some(crate::meta::callback_data(CallUuid(uuid::Uuid::nil()), "node-a")),
        deadline: None,
        overtaken: CancellationToken::new(),
    }
}

/// Sends one request to a server with this script. Returns the outcome and the number of attempts.
async fn ask(
    action: GraphAction,
    replies: impl IntoIterator<Item = Reply>,
) -> (GraphOutcome, usize) {
    let server = Server::start(replies).await;
    let outcome = graph(&server).call_action(request(action)).await;
    (outcome, server.seen().len())
}

#[tokio::test]
async fn requests_have_the_form_that_meta_expects() {
    let server = Server::start([]).await;
    let graph = graph(&server);
    for action in
        [GraphAction::PreAccept, GraphAction::Accept, GraphAction::Reject, GraphAction::Terminate]
    {
        assert_eq!(graph.call_action(request(action)).await, GraphOutcome::Done);
    }
    let mut own = request(GraphAction::Reject);
    own.token = Some(Secret::new("waba-token"));
    graph.call_action(own).await;
    let seen = server.seen();
    let bodies: Vec<&str> = seen.iter().map(|(_, body)| body.as_str()).collect();
    let session = r#""session":{"sdp_type":"answer","sdp":"v=0\r\n"}"#;
    let about = |action: &str| {
        format!(r#"{{"messaging_product":"whatsapp","call_id":"wacid.A","action":"{action}""#)
    };
    assert_eq!(bodies[0], format!("{},{session}}}", about("pre_accept")));
    let opaque = r#""biz_opaque_callback_data":"oh1.00000000-0000-0000-0000-000000000000.node-a""#;
    assert_eq!(bodies[1], format!("{},{session},{opaque}}}", about("accept")));
    assert_eq!(bodies[2], format!("{}}}", about("reject")));
    assert_eq!(bodies[3], format!("{}}}", about("terminate")));
    let head = &seen[0].0;
    assert!(head.starts_with("POST /v23.0/106540352242922/calls HTTP/1.1\r\n"), "{head}");
    for line in [
        "authorization: Bearer canary-token",
        "content-type: application/json",
        concat!("user-agent: offhook/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }
    assert!(seen[4].0.contains("authorization: Bearer waba-token"));
}

#[tokio::test]
async fn r06_retries_each_fault_as_documented() {
    let silent = |n| std::iter::repeat_n(Reply::Silence, n);
    let html =
        Reply::Answer(502, "content-type: text/html\r\n", "<html><body>Bad gateway</body></html>");
    let again = Reply::Answer(200, "", r#"{"error":{"message":"x","code":131000}}"#);
    let rate = Reply::Answer(429, "retry-after: 1\r\n", r#"{"error":{"message":"x","code":4}}"#);
    let once = Reply::Answer(500, "", r#"{"error":{"message":"x","code":138004}}"#);
    let no = Reply::Answer(401, "", r#"{"error":{"message":"no token","code":190}}"#);
    let refused = |details: &str| GraphOutcome::Refused {
        status: 401,
        code: 190,
        details: details.to_owned(),
    };
    use GraphAction::{Accept, PreAccept, Terminate};
    use GraphOutcome::{Done, Gone, RateLimited, ServerError, Timeout};
    let rows: Vec<(GraphAction, Vec<Reply>, GraphOutcome, usize)> = vec![
        (Accept, vec![BUSY], Done, 2),
        (Accept, vec![html.clone(), html.clone(), html], ServerError { status: 502, code: 0 }, 3),
        (
            Accept,
            vec![again.clone(), again.clone(), again],
            ServerError { status: 200, code: 131_000 },
            3,
        ),
        (PreAccept, vec![Reply::Cut, Reply::Answer(200, "", "")], Done, 3),
        (PreAccept, vec![Reply::Reset; 3], ServerError { status: 0, code: 0 }, 3),
        (Accept, silent(3).collect(), Timeout, 3),
        (Accept, vec![rate.clone()], Done, 2),
        (Accept, vec![rate.clone(), rate.clone(), rate], RateLimited { code: 4 }, 3),
        (Accept, vec![once.clone(), once.clone()], ServerError { status: 500, code: 138_004 }, 2),
        (Accept, vec![no.clone()], refused("no token"), 1),
        (Accept, vec![GONE], Gone, 1),
        (Terminate, vec![GONE], Gone, 1),
        (Terminate, vec![no], refused("no token"), 1),
        (Terminate, vec![BUSY; 5], ServerError { status: 503, code: 131_016 }, 5),
        (Terminate, vec![once.clone(), once, Reply::Reset, BUSY], Done, 5),
    ];
    for (action, replies, outcome, tries) in rows {
        let script = format!("{action:?} {replies:?}");
        assert_eq!(ask(action, replies).await, (outcome, tries), "{script}");
    }
}

#[tokio::test]
async fn an_accept_whose_answer_was_lost_counts_as_done() {
    let before =
        Reply::Answer(400, "", r#"{"error":{"message":"Call already accepted","code":100}}"#);
    let (outcome, tries) = ask(GraphAction::Accept, [Reply::Silence, before.clone()]).await;
    assert_eq!((outcome, tries), (GraphOutcome::Done, 2));
    let (outcome, _) = ask(GraphAction::Accept, [Reply::Reset, before.clone()]).await;
    assert_eq!(outcome, GraphOutcome::Done);
    let (outcome, _) = ask(GraphAction::Accept, [before]).await;
    assert!(matches!(outcome, GraphOutcome::Refused { code: 100, .. }), "{outcome:?}: not by us");
}

#[tokio::test]
async fn r06_makes_no_attempt_past_the_deadline() {
    let server = Server::start([BUSY, BUSY, BUSY]).await;
    let clock = Clock::real();
    let mut config = config(&server.url);
    config.policy.answering = vec![Duration::from_secs(30); 2];
    let graph = Graph::new(config, clock.clone()).unwrap();
    let mut soon = request(GraphAction::Accept);
    soon.deadline = Some(clock.now() + Duration::from_secs(29));
    assert_eq!(
        graph.call_action(soon.clone()).await,
        GraphOutcome::ServerError { status: 503, code: 131_016 }
    );
    soon.deadline = Some(clock.now());
    assert_eq!(graph.call_action(soon).await, GraphOutcome::Timeout, "past already: not even one");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn r06_does_not_retry_a_superseded_request() {
    let server = Server::start([BUSY, BUSY, BUSY]).await;
    let mut config = config(&server.url);
    config.policy.answering = vec![Duration::from_secs(30); 2];
    let graph = Graph::new(config, Clock::real()).unwrap();
    let accept = request(GraphAction::Accept);
    let overtaken = accept.overtaken.clone();
    let later = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        overtaken.cancel();
    };
    let (outcome, ()) = tokio::join!(graph.call_action(accept.clone()), later);
    assert_eq!(
        outcome,
        GraphOutcome::ServerError { status: 503, code: 131_016 },
        "at once, and not after the pause"
    );
    assert_eq!(graph.call_action(accept).await, GraphOutcome::Gone, "nor is it begun");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn r06_does_not_send_a_queued_request_after_the_user_hung_up() {
    let server = Server::start([Reply::Silence]).await;
    let mut config = config(&server.url);
    (config.under_way_max, config.request_timeout) = (1, Duration::from_secs(5));
    let graph = Graph::new(config, Clock::real()).unwrap();
    let before = request(GraphAction::PreAccept);
    let accept = request(GraphAction::Accept);
    let gone = accept.overtaken.clone();
    let hangs_up = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        gone.cancel();
    };
    let under_way = async {
        tokio::select! {
            outcome = graph.call_action(before) => panic!("{outcome:?}"),
            () = hangs_up => {}
        }
    };
    let ((), outcome) = tokio::join!(under_way, graph.call_action(accept));
    assert_eq!(outcome, GraphOutcome::Gone);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn r06_repeats_the_end_of_an_orphaned_call_for_a_minute() {
    let orphan = async |replies: Vec<Reply>| {
        let server = Server::start(replies).await;
        let mut config = config(&server.url);
        config.policy.ending.clear();
        config.ending_again = Duration::from_millis(50);
        config.ending_max = Duration::from_millis(220);
        let graph = Graph::new(config, Clock::real()).unwrap();
        let outcome = graph.call_action_to_the_end(request(GraphAction::Terminate)).await;
        (outcome, server.seen().len())
    };
    assert_eq!(orphan(vec![BUSY, BUSY]).await, (GraphOutcome::Done, 3));
    let (outcome, tries) = orphan(vec![BUSY; 20]).await;
    assert_eq!(outcome, GraphOutcome::ServerError { status: 503, code: 131_016 });
    assert!((2..=6).contains(&tries), "{tries}");
    let no = Reply::Answer(401, "", r#"{"error":{"message":"no token","code":190}}"#);
    assert_eq!(orphan(vec![no]).await.1, 1, "a clear no is one");
}

#[tokio::test]
async fn reports_a_refused_token_immediately_for_any_request() {
    let no = Reply::Answer(401, "", r#"{"error":{"message":"no token","code":190}}"#);
    let another = Reply::Answer(400, "", r#"{"error":{"message":"no such thing","code":100}}"#);
    let server = Server::start(vec![no.clone(), another, no]).await;
    let graph = Graph::new(config(&server.url), Clock::real()).unwrap();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let sink = reported.clone();
    graph.on_refused_token(Box::new(move |id, token| {
        sink.lock().unwrap().push((id.to_string(), token.map(|token| token.reveal().to_owned())));
    }));
    let (id, token) = (PhoneNumberId::from("106"), Secret::new("EAAG-of-its-own"));
    assert!(graph.number(&id, Some(&token)).details().await.is_err());
    assert!(graph.number(&id, Some(&token)).details().await.is_err());
    let call = request(GraphAction::Accept);
    let of_call = (
        call.phone_number_id.to_string(),
        call.token.as_ref().map(|token| token.reveal().to_owned()),
    );
    graph.call_action(call).await;
    assert_eq!(
        *reported.lock().unwrap(),
        [("106".to_owned(), Some("EAAG-of-its-own".to_owned())), of_call]
    );
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let graph = Graph::new(config(&url), Clock::real()).unwrap();
    assert_eq!(graph.call_action(request(GraphAction::Accept)).await, GraphOutcome::Unreachable);
}

#[tokio::test]
async fn stops_reading_an_oversized_answer() {
    let huge: &'static str = Box::leak("x".repeat(200_000).into_boxed_str());
    let (outcome, tries) = ask(GraphAction::Accept, vec![Reply::Answer(200, "", huge); 3]).await;
    assert_eq!((outcome, tries), (GraphOutcome::ServerError { status: 0, code: 0 }, 3));
}

#[tokio::test]
async fn r06_bounds_requests_in_flight_and_waiting_per_number() {
    let server = Server::start(vec![Reply::Silence; 40]).await;
    let mut config = config(&server.url);
    config.request_timeout = Duration::from_millis(300);
    config.under_way_max = 4;
    config.waiting_max = 8;
    config.policy.ending.clear();
    let graph = Graph::new(config, Clock::real()).unwrap();
    let ended = futures_util::future::join_all(
        (0..20).map(|_| graph.call_action(request(GraphAction::Terminate))),
    )
    .await;
    let turned_away =
        ended.iter().filter(|outcome| **outcome == GraphOutcome::RateLimited { code: 0 }).count();
    assert_eq!(turned_away, 20 - 4 - 8);
    assert!(
        server.script.lock().unwrap().most_open <= 12,
        "4 at first, 4 more as each of those gave up"
    );
    let mut other = request(GraphAction::Reject);
    other.phone_number_id = "another".into();
    server.script.lock().unwrap().replies.clear();
    assert_eq!(
        graph.call_action(other).await,
        GraphOutcome::Done,
        "another number has its own lane"
    );
}

async fn send(
    graph: &Graph,
    number: &PhoneNumberId,
    message: &serde_json::Value,
) -> Result<String, GraphOutcome> {
    let messages = graph.messages(number, None);
    messages.send(message, messages.place().await?).await
}

#[tokio::test]
async fn r10_messages_leave_capacity_to_calls_and_do_not_time_out_while_queued() {
    let server = Server::start(vec![Reply::Silence; 2]).await;
    let mut config = config(&server.url);
    config.request_timeout = Duration::from_millis(300);
    config.under_way_max = 4;
    let graph = Arc::new(Graph::new(config, Clock::real()).unwrap());
    let call = request(GraphAction::Accept);
    let message = serde_json::json!({"type": "text"});
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (graph, number, message) =
            (graph.clone(), call.phone_number_id.clone(), message.clone());
        sending.spawn(async move { send(&graph, &number, &message).await });
    }
    while graph.lanes.get(&call.phone_number_id).is_none_or(|lane| lane.other.waiting() < 4)
        || server.seen().len() < 2
    {
        tokio::task::yield_now().await;
    }
    assert!(!graph.is_behind(&call.phone_number_id));
    assert_eq!(graph.call_action(call).await, GraphOutcome::Done, "two places are left to calls");
    let ended = sending.join_all().await;
    let lost = ended.iter().filter(|sent| **sent == Err(GraphOutcome::Timeout)).count();
    assert_eq!(
        lost, 2,
        "the queued ones waited longer than a request may take and were sent: {ended:?}"
    );
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn r06_does_not_resend_a_message_that_meta_may_have() {
    let html = || Reply::Answer(502, "", "<html>");
    let message = serde_json::json!({"type": "text"});
    let number = request(GraphAction::Accept).phone_number_id;
    for reply in
        [html(), Reply::Answer(504, "", ""), Reply::Answer(200, "", ""), Reply::Cut, Reply::Reset]
    {
        let server = Server::start([reply]).await;
        let sent = send(&graph(&server), &number, &message).await;
        assert!(sent.is_err(), "{sent:?}");
        assert_eq!(server.seen().len(), 1, "{sent:?}");
    }
    let server =
        Server::start([BUSY, Reply::Answer(200, "", r#"{"messages":[{"id":"wamid.1"}]}"#)]).await;
    assert_eq!(send(&graph(&server), &number, &message).await, Ok("wamid.1".to_owned()));
    assert_eq!(server.seen().len(), 2, "Graph says itself that it did nothing");
}

/// The waiting time matters, not the number of waiting requests.
#[tokio::test]
async fn r10_a_stalled_queue_refuses_further_calls_and_rejects() {
    let server = Server::start(vec![Reply::Silence; 8]).await;
    let clock = Clock::stepped(model::Timestamp::default());
    let mut config = config(&server.url);
    config.under_way_max = 4;
    let graph = Arc::new(Graph::new(config, clock.clone()).unwrap());
    let number = request(GraphAction::Accept).phone_number_id;
    let mut asking = tokio::task::JoinSet::new();
    let until = async |lined_up: fn(&Lane) -> usize, count| {
        while graph.lanes.get(&number).is_none_or(|lane| lined_up(&lane) < count) {
            tokio::task::yield_now().await;
        }
    };
    let ask = |request: ActionRequest| {
        let graph = graph.clone();
        async move { graph.call_action(request).await }
    };
    for _ in 0..6 {
        asking.spawn(ask(request(GraphAction::Accept)));
    }
    until(|lane| lane.calls.waiting(), 2).await;
    asking.spawn(ask(ActionRequest { opaque: None, ..request(GraphAction::Reject) }));
    until(|lane| lane.rejects.waiting(), 1).await;
    let ms = Duration::from_millis;
    let behind = || (graph.is_behind(&number), graph.is_behind_with_rejects(&number));
    assert_eq!(behind(), (false, false));
    for (step, expected) in
        [(250, (false, false)), (1, (true, false)), (9_749, (true, false)), (1, (true, true))]
    {
        clock.step(ms(step));
        assert_eq!(behind(), expected, "after {step} ms more");
    }
    asking.shutdown().await;
    assert_eq!(behind(), (false, false), "no request waits");
    assert!(!graph.is_behind(&"another".into()));
}

#[tokio::test]
async fn r22_no_token_in_any_debug() {
    let server = Server::start([]).await;
    let config = config(&server.url);
    let shown = format!("{config:?} {:?}", Graph::new(config.clone(), Clock::real()).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn measures_each_attempt_by_action_and_status() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(GraphAction::Accept, [BUSY, Reply::Silence]));
        runtime.block_on(ask(GraphAction::Reject, [Reply::Reset]));
        runtime.block_on(ask(GraphAction::PreAccept, [GONE]));
        runtime.block_on(ask(GraphAction::Terminate, [GONE]));
    });
    let text = rendered.render();
    for (action, status) in [
        ("accept", "503"),
        ("accept", "timeout"),
        ("accept", "200"),
        ("reject", "error"),
        ("reject", "200"),
        ("pre_accept", "400"),
        // The call was over, as the request wanted it.
        ("terminate", "gone"),
    ] {
        let line = format!(
            r#"offhook_graph_request_seconds_count{{action="{action}",status="{status}"}} 1"#
        );
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

#[test]
fn rejects_an_invalid_base_url() {
    for url in ["", "graph.facebook.com", "ftp://x/", "https://", "/v23.0"] {
        let error = Graph::new(config(url), Clock::real()).unwrap_err();
        assert!(error.to_string().starts_with("could not use "), "{url}: {error}");
    }
    assert!(Graph::new(config("https://graph.facebook.com/v23.0/"), Clock::real()).is_ok());
}
