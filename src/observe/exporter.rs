//! The metrics recorder and the admin listener with `/metrics`, `/livez` and `/readyz`
//! (`docs/reference/metrics.md#admin-listener`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::{Tallies, logs};
use model::Direction;
use model::Health;
use model::metric;

/// Bucket bounds in seconds. Fetches, Graph requests and set-ups normally take milliseconds and
/// time out at 20 s.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0,
    20.0,
];

/// The metrics of the process; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    /// Updates gauges that are computed on demand.
    refresh: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl Metrics {
    /// Installs the recorder once per process and describes every metric. [`Metrics::upkeep`] must
    /// run.
    ///
    /// # Errors
    ///
    /// Fails if another recorder is installed.
    pub fn install() -> Result<Self, String> {
        static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            let mut builder = PrometheusBuilder::new();
            for (name, kind, _) in metric::ALL {
                if *kind == metric::Kind::Histogram {
                    let matcher = Matcher::Full((*name).to_owned());
                    builder = builder
                        .set_buckets_for_metric(matcher, buckets(name))
                        .map_err(|e| e.to_string())?;
                }
            }
            let handle = builder
                .install_recorder()
                .map_err(|e| format!("could not install the metrics: {e}"))?;
            describe();
            Ok(handle)
        });
        handle.clone().map(|recorder| Self { recorder, refresh: Arc::default() })
    }

    /// Sets a function that updates gauges before each rendering. Only the first is kept.
    pub fn refresh_with(&self, refresh: impl Fn() + Send + Sync + 'static) {
        let _ = self.refresh.set(Box::new(refresh));
    }

    /// The metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        if let Some(refresh) = self.refresh.get() {
            refresh();
        }
        self.recorder.render()
    }

    /// The fetches and Graph requests since the process started, by outcome.
    pub fn tallies(&self) -> Tallies {
        Tallies::of(&self.recorder.render())
    }

    /// Compacts histograms and logs the number of dropped log lines. Runs until cancelled.
    pub async fn upkeep(self, cancel: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        let mut reported = logs::dropped_lines();
        while cancel.run_until_cancelled(tick.tick()).await.is_some() {
            self.recorder.run_upkeep();
            let dropped = logs::dropped_lines();
            if dropped > reported {
                tracing::warn!(
                    lines = dropped - reported,
                    "log lines dropped: more than 1,000 a second from one place"
                );
                reported = dropped;
            }
        }
    }
}

/// Describes all metrics and sets each to 0, with every label value if there are few, so that rates
/// have a starting point. A missing name then means another version.
fn describe() {
    for (name, kind, help) in metric::ALL.iter().copied() {
        match kind {
            metric::Kind::Counter => metrics::describe_counter!(name, help),
            metric::Kind::Gauge => metrics::describe_gauge!(name, help),
            metric::Kind::Histogram => {
                metrics::describe_histogram!(name, metrics::Unit::Seconds, help)
            }
        }
    }
    let revision = option_env!("OFFHOOK_REVISION").unwrap_or("unknown");
    metrics::gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
    metrics::gauge!(metric::DRAINING).set(0.0);
    metrics::gauge!(metric::NODE_LOAD).set(0.0);
    metrics::gauge!(metric::CLUSTER_DEGRADED).set(0.0);
    metrics::gauge!(metric::TERM_OPEN).set(0.0);
    metrics::gauge!(metric::BEAT_AGE_SECONDS).set(0.0);
    metrics::gauge!(metric::BOOK_LAG_SECONDS).set(0.0);
    for state in metric::NODE_STATES.iter().copied() {
        metrics::gauge!(metric::NODES, "state" => state).set(0.0);
    }
    for kind in metric::unit::KINDS.iter().copied() {
        for what in metric::unit::USES.iter().copied() {
            metrics::gauge!(metric::UNITS, "kind" => kind, "what" => what).set(0.0);
        }
    }
    for kind in metric::forward::KINDS.iter().copied() {
        let _ = metrics::histogram!(metric::PEER_SECONDS, "kind" => kind);
        for outcome in metric::forward::OUTCOMES.iter().copied() {
            metrics::counter!(metric::FORWARDS_TOTAL, "kind" => kind, "outcome" => outcome)
                .absolute(0);
        }
    }
    for what in metric::adopted::ALL.iter().copied() {
        metrics::counter!(metric::ADOPTED_TOTAL, "what" => what).absolute(0);
    }
    for outcome in metric::beat::ALL.iter().copied() {
        let _ = metrics::histogram!(metric::BEAT_SECONDS, "outcome" => outcome);
    }
    for outcome in metric::claim::ALL.iter().copied() {
        let _ = metrics::histogram!(metric::CLAIM_SECONDS, "outcome" => outcome);
    }
    let _ = metrics::histogram!(metric::UNIT_WAITS_SECONDS);
    metrics::gauge!(metric::STORE_JOURNAL_BYTES).set(0.0);
    metrics::gauge!(metric::HTTP_CONNECTIONS).set(0.0);
    metrics::gauge!(metric::TLS_CERTIFICATE_EXPIRY).set(0.0);
    for outcome in metric::certificate_order::ALL.iter().copied() {
        metrics::counter!(metric::TLS_CERTIFICATE_ORDERS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for direction in [Direction::Inbound, Direction::Outbound].map(Direction::as_str) {
        metrics::gauge!(metric::CALLS_ACTIVE, "direction" => direction).set(0.0);
        for outcome in metric::outcome::ALL.iter().copied() {
            metrics::counter!(metric::CALLS_TOTAL, "direction" => direction, "outcome" => outcome)
                .absolute(0);
        }
        for result in metric::admission::ALL.iter().copied() {
            metrics::counter!(metric::ADMISSION_TOTAL, "direction" => direction, "result" => result).absolute(0);
        }
    }
    for queue in metric::queue::ALL.iter().copied() {
        metrics::counter!(metric::QUEUE_REFUSED_TOTAL, "queue" => queue).absolute(0);
    }
    for resource in metric::limited::ALL.iter().copied() {
        metrics::counter!(metric::LIMITED_TOTAL, "resource" => resource).absolute(0);
    }
    for why in metric::STRAINS.iter().copied() {
        metrics::counter!(metric::OVERLOADED_TOTAL, "why" => why).absolute(0);
    }
    for outcome in metric::STREAM_OUTCOMES.iter().copied() {
        metrics::counter!(metric::STREAMS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in metric::recognition::ALL.iter().copied() {
        metrics::counter!(metric::RECOGNITIONS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in metric::transcript::ALL.iter().copied() {
        metrics::counter!(metric::TRANSCRIPTS_TOTAL, "outcome" => outcome).absolute(0);
    }
    for outcome in metric::recording_copy::ALL.iter().copied() {
        metrics::counter!(metric::RECORDING_COPIES_TOTAL, "outcome" => outcome).absolute(0);
    }
    for why in metric::disk_refusal::ALL.iter().copied() {
        metrics::counter!(metric::RECORDINGS_REFUSED_TOTAL, "why" => why).absolute(0);
        metrics::counter!(metric::USER_FILES_REFUSED_TOTAL, "why" => why).absolute(0);
        metrics::counter!(metric::EVENT_LOGS_CUT_TOTAL, "why" => why).absolute(0);
        metrics::counter!(metric::MESSAGES_REFUSED_TOTAL, "why" => why).absolute(0);
        metrics::counter!(metric::CHANGES_REFUSED_TOTAL, "why" => why).absolute(0);
    }
    metrics::counter!(metric::STREAM_MESSAGES_DROPPED_TOTAL).absolute(0);
    metrics::gauge!(metric::STREAMS_ACTIVE).set(0.0);
    for reason in metric::CONNECTION_CLOSE_REASONS.iter().copied() {
        metrics::counter!(metric::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => reason).absolute(0);
    }
    for direction in [metric::packets::IN, metric::packets::OUT] {
        metrics::counter!(metric::MEDIA_PACKETS_TOTAL, "direction" => direction).absolute(0);
    }
    for outcome in metric::delivery::ALL.iter().copied() {
        for kind in machine::CallbackKind::ALL.map(machine::CallbackKind::metric_label) {
            metrics::counter!(metric::CALLBACK_TOTAL, "kind" => kind, "outcome" => outcome)
                .absolute(0);
        }
    }
    for what in metric::missing::ALL.iter().copied() {
        metrics::counter!(metric::MEDIA_MISSING_TOTAL, "what" => what).absolute(0);
    }
    for element in xml::ast::ElementKind::names() {
        for outcome in metric::instruction::ALL.iter().copied() {
            metrics::counter!(metric::INSTRUCTIONS_TOTAL, "element" => element, "outcome" => outcome).absolute(0);
        }
    }
    for (kind, result) in [
        ("calls.connect", "admitted"),
        ("calls.connect", "rejected"),
        ("calls.connect", "duplicate"),
        ("calls.connect", "stale"),
        ("calls.terminate", "ended"),
        ("body", "bad_signature"),
        ("body", "busy"),
    ] {
        metrics::counter!(metric::WEBHOOK_EVENTS_TOTAL, "kind" => kind, "result" => result)
            .absolute(0);
    }
    // A histogram is exported once its handle was created.
    let _ = metrics::histogram!(metric::SETUP_SECONDS);
    let _ = metrics::histogram!(metric::MEDIA_ROUND_TRIP_SECONDS);
    for direction in [metric::packets::IN, metric::packets::OUT] {
        let _ = metrics::histogram!(metric::MEDIA_LOSS_RATIO, "direction" => direction);
        let _ = metrics::histogram!(metric::MEDIA_JITTER_SECONDS, "direction" => direction);
        let _ = metrics::histogram!(metric::MEDIA_MOS, "direction" => direction);
    }
    for kind in ["answer", "fallback", "action", "redirect"] {
        let _ = metrics::histogram!(metric::ANSWER_FETCH_SECONDS, "kind" => kind, "outcome" => metric::fetch::OK);
    }
    for action in ["pre_accept", "accept", "reject", "terminate"] {
        let _ = metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => action, "status" => "200");
    }
    for name in [
        metric::CALLS_WITHDRAWN_TOTAL,
        metric::MEDIA_LATE_TICKS_TOTAL,
        metric::MEDIA_EXCESS_PACKETS_TOTAL,
        metric::TERMS_TOTAL,
        metric::REPLAYED_TOTAL,
        metric::STORE_ERRORS_TOTAL,
        metric::EVENT_LOG_REFUSED_TOTAL,
        metric::LOG_LINES_DROPPED_TOTAL,
    ] {
        metrics::counter!(name).absolute(0);
    }
}

fn buckets(metric: &str) -> &'static [f64] {
    match metric {
        metric::MEDIA_LOSS_RATIO => &[0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5],
        metric::MEDIA_MOS => &[1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4],
        metric::BEAT_SECONDS
        | metric::CLAIM_SECONDS
        | metric::PEER_SECONDS
        | metric::UNIT_WAITS_SECONDS => {
            &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0]
        }
        _ => SECONDS,
    }
}

/// The routes of the admin listener.
pub fn router(metrics: Metrics, health: Health) -> Router {
    Router::new().fallback(async move |request: Request<Body>| answer(&request, &metrics, &health))
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, health: &Health) -> Response<Body> {
    let not_ready = health.unready_reason();
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
        }
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match not_ready {
            None => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        (_, "/metrics" | "/livez" | "/readyz") => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new())
        }
        _ => (StatusCode::NOT_FOUND, TEXT, "/metrics, /livez, /readyz\n".to_owned()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, Request};
    use tower::ServiceExt as _;

    use super::{Health, Metrics, metric, router};

    #[tokio::test]
    async fn admin_listener_serves_health_and_all_metrics() {
        let metrics = Metrics::install().expect("the only recorder of this process");
        let (health, refresher) = (Health::new(), metrics.clone());
        let router = router(metrics, health.clone());
        let ask = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let get = async |path: &str| ask(Method::GET, path).await;

        assert_eq!(get("/livez").await.0, 200);
        let starting = get("/readyz").await;
        assert!(starting.0 == 503 && starting.1.contains("starting"), "{starting:?}");
        health.set_ready();
        assert_eq!(get("/readyz").await.0, 200);
        assert_eq!(get("/webhooks/meta").await.0, 404);
        assert_eq!(ask(Method::POST, "/metrics").await.0, 405);

        refresher.refresh_with(|| {
            metrics::gauge!(metric::NUMBER_SLOTS_IN_USE, "number" => "918035737458").set(1.0)
        });
        // Everything else is exported before any event.
        let (_, text) = get("/metrics").await;
        for (name, _, _) in metric::ALL {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} has a value");
        }
        assert!(
            text.contains("offhook_setup_seconds_bucket{le=\"0.2\"}"),
            "buckets, no summary: {text}"
        );
    }
}
