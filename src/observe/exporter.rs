//! The metrics recorder and the admin listener: `/metrics`, `/livez`, `/readyz` (`interface.md` §3).
//!
//! The admin listener shares nothing with the public one, so that it answers whatever happens there (R23).

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::{Tallies, logs, names};
use crate::model::Direction;

/// Seconds: a fetch, a Graph request or a set-up takes milliseconds when all is well and stops being one at 20 s.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0];

/// The process's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    /// Writes the gauges that are read from elsewhere.
    refresh: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl Metrics {
    /// Installs the recorder, once a process, and describes every metric. [`Metrics::upkeep`] must run.
    ///
    /// # Errors
    /// Somebody else installed a recorder.
    pub fn install() -> Result<Self, String> {
        static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            for (name, kind, _) in names::ALL {
                if *kind == names::Kind::Histogram {
                    let matcher = Matcher::Full((*name).to_owned());
                    builder = builder.set_buckets_for_metric(matcher, buckets(name)).map_err(|e| e.to_string())?;
                }
            }
            let handle = builder.install_recorder().map_err(|e| format!("could not install the metrics: {e}"))?;
            describe();
            Ok(handle)
        });
        handle.clone().map(|recorder| Self { recorder, refresh: Arc::default() })
    }

    /// Has gauges written by `refresh` just before they are shown, so that they hold at that instant. Once; a
    /// second has no effect.
    pub fn refresh_with(&self, refresh: impl Fn() + Send + Sync + 'static) {
        let _ = self.refresh.set(Box::new(refresh));
    }

    /// The Prometheus text.
    pub fn render(&self) -> String {
        if let Some(refresh) = self.refresh.get() {
            refresh();
        }
        self.recorder.render()
    }

    /// What was asked of others since the process began, and what came of it.
    pub fn tallies(&self) -> Tallies {
        Tallies::of(&self.recorder.render())
    }

    /// Keeps histograms from growing, and tells of log lines left out. Runs until cancelled.
    pub async fn upkeep(self, cancel: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        let mut told = logs::left_out();
        while cancel.run_until_cancelled(tick.tick()).await.is_some() {
            self.recorder.run_upkeep();
            let left_out = logs::left_out();
            if left_out > told {
                tracing::warn!(lines = left_out - told, "log lines left out: more than 1,000 a second of a kind");
                told = left_out;
            }
        }
    }
}

/// Names, kinds and help lines; and a first 0 for every name, and for each value of its labels where these are few, so
/// that a rate has a beginning and a name that is missing is one of another version.
fn describe() {
    for (name, kind, help) in names::ALL.iter().copied() {
        match kind {
            names::Kind::Counter => metrics::describe_counter!(name, help),
            names::Kind::Gauge => metrics::describe_gauge!(name, help),
            names::Kind::Histogram => metrics::describe_histogram!(name, metrics::Unit::Seconds, help),
        }
    }
    let revision = option_env!("OFFHOOK_REVISION").unwrap_or("unknown");
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
    metrics::gauge!(names::CLUSTER_DEGRADED).set(0.0);
    metrics::gauge!(names::DRAINING).set(0.0);
    metrics::gauge!(names::STORE_JOURNAL_BYTES).set(0.0);
    metrics::gauge!(names::HTTP_CONNECTIONS).set(0.0);
    for direction in [Direction::Inbound, Direction::Outbound].map(Direction::as_str) {
        metrics::gauge!(names::CALLS_ACTIVE, "direction" => direction).set(0.0);
        for outcome in names::outcome::ALL.iter().copied() {
            metrics::counter!(names::CALLS_TOTAL, "direction" => direction, "outcome" => outcome).absolute(0);
        }
        for result in names::admission::ALL.iter().copied() {
            metrics::counter!(names::ADMISSION_TOTAL, "direction" => direction, "result" => result).absolute(0);
        }
    }
    for queue in names::queue::ALL.iter().copied() {
        metrics::counter!(names::QUEUE_REFUSED_TOTAL, "queue" => queue).absolute(0);
    }
    for why in names::STRAINS.iter().copied() {
        metrics::counter!(names::OVERLOADED_TOTAL, "why" => why).absolute(0);
    }
    for outcome in names::STREAM_ENDS.iter().copied() {
        metrics::counter!(names::STREAMS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in names::recognised::ALL.iter().copied() {
        metrics::counter!(names::RECOGNITIONS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in names::transcript::ALL.iter().copied() {
        metrics::counter!(names::TRANSCRIPTS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in names::copied::ALL.iter().copied() {
        metrics::counter!(names::RECORDING_COPIES_TOTAL, "outcome" => outcome).absolute(0);
    }
    metrics::counter!(names::STREAM_MESSAGES_DROPPED_TOTAL).absolute(0);
    metrics::gauge!(names::STREAMS_ACTIVE).set(0.0);
    for reason in names::CONNECTION_ENDS.iter().copied() {
        metrics::counter!(names::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => reason).absolute(0);
    }
    for direction in [names::packets::IN, names::packets::OUT] {
        metrics::counter!(names::MEDIA_PACKETS_TOTAL, "direction" => direction).absolute(0);
    }
    for outcome in names::delivery::ALL.iter().copied() {
        for kind in ["hangup", "action"] {
            metrics::counter!(names::CALLBACK_TOTAL, "kind" => kind, "outcome" => outcome).absolute(0);
        }
    }
    for what in names::missing::ALL.iter().copied() {
        metrics::counter!(names::MEDIA_MISSING_TOTAL, "what" => what).absolute(0);
    }
    for element in names::instruction::ELEMENTS.iter().copied() {
        for outcome in names::instruction::ALL.iter().copied() {
            metrics::counter!(names::INSTRUCTIONS_TOTAL, "element" => element, "outcome" => outcome).absolute(0);
        }
    }
    for (kind, result) in [
        ("calls.connect", "admitted"),
        ("calls.connect", "rejected"),
        ("calls.connect", "duplicate"),
        ("calls.terminate", "ended"),
        ("body", "bad_signature"),
    ] {
        metrics::counter!(names::WEBHOOK_EVENTS_TOTAL, "kind" => kind, "result" => result).absolute(0);
    }
    // A histogram is there once its handle was taken.
    let _ = metrics::histogram!(names::SETUP_SECONDS);
    let _ = metrics::histogram!(names::MEDIA_ROUND_TRIP_SECONDS);
    for direction in [names::packets::IN, names::packets::OUT] {
        let _ = metrics::histogram!(names::MEDIA_LOSS_RATIO, "direction" => direction);
        let _ = metrics::histogram!(names::MEDIA_JITTER_SECONDS, "direction" => direction);
        let _ = metrics::histogram!(names::MEDIA_MOS, "direction" => direction);
    }
    for kind in ["answer", "fallback", "action", "redirect"] {
        let _ = metrics::histogram!(names::ANSWER_FETCH_SECONDS, "kind" => kind, "outcome" => names::fetch::OK);
    }
    for action in ["pre_accept", "accept", "reject", "terminate"] {
        let _ = metrics::histogram!(names::GRAPH_REQUEST_SECONDS, "action" => action, "status" => "200");
    }
    for name in [
        names::MEDIA_LATE_TICKS_TOTAL,
        names::STORE_ERRORS_TOTAL,
        names::EVENT_LOG_REFUSED_TOTAL,
        names::LOG_LINES_DROPPED_TOTAL,
    ] {
        metrics::counter!(name).absolute(0);
    }
}

fn buckets(metric: &str) -> &'static [f64] {
    match metric {
        names::MEDIA_LOSS_RATIO => &[0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5],
        names::MEDIA_MOS => &[1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4],
        _ => SECONDS,
    }
}

/// Connections of the admin listener at once; more wait.
const CONNECTIONS: usize = 64;

/// Serves the admin listener until cancelled.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health, cancel: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let accept = async || {
        let permit = room.clone().acquire_owned().await;
        (permit, listener.accept().await)
    };
    while let Some((permit, accepted)) = cancel.run_until_cancelled(accept()).await {
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, or the peer is gone already: pause, go on (R10).
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, health, cancel) = (metrics.clone(), health.clone(), cancel.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = hyper::service::service_fn(|request| {
                let answer = answer(&request, &metrics, &health);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            // An idle connection may stay for a scraper's next visit, but not for ever.
            let bounded = tokio::time::timeout(Duration::from_secs(300), connection);
            let _ = cancel.run_until_cancelled(bounded).await;
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, health: &Health) -> Response<Full<Bytes>> {
    let not_ready = health.not_ready();
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
        }
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match not_ready {
            None => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        (_, "/metrics" | "/livez" | "/readyz") => (StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new()),
        _ => (StatusCode::NOT_FOUND, TEXT, "/metrics, /livez, /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    use super::{Health, Metrics, names, serve};

    async fn get(at: std::net::SocketAddr, path: &str) -> String {
        #[allow(clippy::disallowed_methods, reason = "a test asks its own listener")]
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn admin_listener_tells_of_everything() {
        let metrics = Metrics::install().expect("the only recorder of this process");
        let (health, refresher) = (Health::new(), metrics.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, metrics, health.clone(), cancel.clone()));

        assert!(get(at, "/livez").await.starts_with("HTTP/1.1 200"));
        let starting = get(at, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("starting"), "{starting}");
        health.ready();
        assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(at, "/webhooks/meta").await.starts_with("HTTP/1.1 404"));

        refresher.refresh_with(|| metrics::gauge!(names::NUMBER_SLOTS_IN_USE, "number" => "918035737458").set(1.0));
        // All else is there before anything has happened.
        let text = get(at, "/metrics").await;
        for (name, _, _) in names::ALL {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} has a value");
        }
        assert!(text.contains("offhook_setup_seconds_bucket{le=\"0.2\"}"), "buckets, no summary: {text}");
        cancel.cancel();
        server.await.unwrap();
    }
}
