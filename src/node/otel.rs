//! Exports calls as traces to an OpenTelemetry collector (feature `otel`, off by default).
//!
//! When a call is over, its spans are built from its event log, one per bar of `offhook calls
//! show`. The call path itself does not depend on OpenTelemetry. The exporter is configured with
//! the standard environment variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `…_HEADERS`, `…_PROTOCOL`,
//! `OTEL_SERVICE_NAME`, `OTEL_BSP_…`); without an endpoint, no traces are exported. Queues are
//! bounded. When they are full, traces are dropped, so that no call waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor as _};

use egress::client_tls;
use engine::call::trace::{ExportedTrace, Sink};
use engine::call::waterfall::{Actor, Bar, Waterfall};
use model::Clock;
use model::{self, CallUuid, Timestamp};

/// Capacity of the queue of finished calls.
const QUEUE: usize = 1_024;
/// Maximum size of a collector's response body, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// Timeout of a request to the collector.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// A running export.
pub(super) struct Export {
    calls: SyncSender<Order>,
}

enum Order {
    Spans(ExportedTrace),
    /// Exports all buffered spans, then signals completion.
    Flush(SyncSender<()>),
}

impl Export {
    /// Starts the export if the environment configures a collector.
    ///
    /// # Errors
    /// Returns a description if the environment is inconsistent or TLS cannot be set up.
    pub(super) fn start(clock: &Clock, node_id: &str) -> Result<Option<Self>, String> {
        let named = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        if !ENDPOINTS.iter().any(named) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().with_http_client(Https::new()?).build();
        let mut processor =
            BatchSpanProcessor::builder(exporter.map_err(|e| e.to_string())?).build();
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("offhook");
        }
        let ours = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node_id.to_owned()),
        ];
        processor.set_resource(&resource.with_attributes(ours).build());
        let (calls, orders) = sync_channel(QUEUE);
        let clock = clock.clone();
        std::thread::Builder::new()
            .name("offhook-otel".to_owned())
            .spawn(move || run(&orders, &processor, &clock))
            .map_err(|e| e.to_string())?;
        Ok(Some(Self { calls }))
    }

    /// Returns the sink for the traces of calls and callbacks.
    pub(super) fn sink(&self) -> Sink {
        let calls = self.calls.clone();
        Arc::new(move |traced| {
            if calls.try_send(Order::Spans(traced)).is_err() {
                tracing::debug!("trace dropped: queue full");
            }
        })
    }

    /// Exports all buffered spans, with a timeout of `at_most`.
    pub(super) async fn flush(&self, at_most: Duration) {
        let (done, flushed) = sync_channel(1);
        if self.calls.try_send(Order::Flush(done)).is_ok() {
            let _ = tokio::task::spawn_blocking(move || flushed.recv_timeout(at_most)).await;
        }
    }
}

fn run(orders: &Receiver<Order>, processor: &BatchSpanProcessor, clock: &Clock) {
    loop {
        match orders.recv_timeout(Duration::from_secs(3_600)) {
            Ok(Order::Spans(traced)) => {
                for span in spans(traced, clock.wall()) {
                    processor.on_end(span);
                }
            }
            Ok(Order::Flush(done)) => {
                if let Err(error) = processor.force_flush() {
                    tracing::warn!(%error, "trace export failed");
                }
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let _ = processor.shutdown();
                return;
            }
        }
    }
}

/// Builds the spans of a finished call or callback. `now` is the end of bars that have none.
fn spans(traced: ExportedTrace, now: Timestamp) -> Vec<SpanData> {
    match traced {
        ExportedTrace::Call(lines) => {
            let log: Vec<u8> = lines.iter().flat_map(|line| line.bytes().chain([b'\n'])).collect();
            match Waterfall::of(log.as_slice()) {
                Ok(fall) => of_call(&fall, now),
                Err(error) => {
                    tracing::warn!(%error, "trace not built: unreadable event log");
                    Vec::new()
                }
            }
        }
        ExportedTrace::Callback { call, trace } => {
            // Callback times count from the Unix epoch.
            let zero = Timestamp::default();
            let mut builder = SpanBuilder { call, zero, end_us: now.micros(), spans: Vec::new() };
            if let Some(bar) = Waterfall::callback(&trace, zero) {
                builder.bar(&bar, root(call));
            }
            builder.spans
        }
    }
}

/// The id of the call's root span, derived from the call. All other spans descend from it, even
/// those of callbacks hours later.
fn root(call: CallUuid) -> SpanId {
    let [.., a, b, c, d, e, f, g, h] = call.0.into_bytes();
    SpanId::from_bytes(
        model::SpanId::from_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h])).to_bytes(),
    )
}

fn of_call(fall: &Waterfall, now: Timestamp) -> Vec<SpanData> {
    let Some(zero) = fall.started else { return Vec::new() };
    let end_us = fall.ended_us.unwrap_or_else(|| now.micros().saturating_sub(zero.micros()));
    let begin_us = fall.bars.iter().map(|b| b.from_us).min().unwrap_or_default().min(0);
    let mut builder = SpanBuilder { call: fall.call, zero, end_us, spans: Vec::new() };
    let mut attributes = vec![
        KeyValue::new("offhook.call_uuid", fall.call.to_string()),
        // Only the last four digits of the caller.
        KeyValue::new("offhook.from", fall.from.clone()),
        KeyValue::new("offhook.to", fall.to.clone()),
    ];
    attributes.extend(fall.direction.map(|d| KeyValue::new("offhook.direction", d.as_str())));
    attributes.extend(fall.cause.map(|cause| KeyValue::new("offhook.cause", cause)));
    attributes.extend(fall.answered_us.map(|us| KeyValue::new("offhook.answered_us", us)));
    attributes.extend(fall.set_up_us().map(|us| KeyValue::new("offhook.set_up_us", us)));
    let span = Span {
        id: root(fall.call),
        parent: SpanId::INVALID,
        kind: SpanKind::Server,
        status: Status::Unset,
    };
    builder.push(span, "call".to_owned(), begin_us, end_us, attributes);
    for bar in &fall.bars {
        builder.bar(bar, root(fall.call));
    }
    builder.spans
}

/// Collects the spans of one call.
struct SpanBuilder {
    call: CallUuid,
    /// The time from which the times of the bars count.
    zero: Timestamp,
    /// End of bars that have none, in microseconds from `zero`.
    end_us: i64,
    spans: Vec<SpanData>,
}

struct Span {
    id: SpanId,
    parent: SpanId,
    kind: SpanKind,
    status: Status,
}

impl SpanBuilder {
    fn bar(&mut self, bar: &Bar, parent: SpanId) {
        let id = bar.span.map_or_else(
            || SpanId::from_bytes(rand::random::<u64>().max(1).to_be_bytes()),
            |span| SpanId::from_bytes(span.to_bytes()),
        );
        let kind = match bar.what {
            // Requests that leave this node. Their parts are internal.
            Actor::Graph | Actor::Customer if bar.parts.is_empty() || bar.span.is_some() => {
                SpanKind::Client
            }
            _ => SpanKind::Internal,
        };
        let status = if bar.failed { Status::error(bar.note.clone()) } else { Status::Unset };
        let mut attributes = vec![KeyValue::new("offhook.who", bar.what.as_str())];
        if !bar.note.is_empty() {
            attributes.push(KeyValue::new("offhook.note", bar.note.clone()));
        }
        let to = bar.to_us.unwrap_or(self.end_us).max(bar.from_us);
        self.push(Span { id, parent, kind, status }, bar.name.clone(), bar.from_us, to, attributes);
        for part in &bar.parts {
            self.bar(part, id);
        }
    }

    fn push(
        &mut self,
        span: Span,
        name: String,
        from_us: i64,
        to_us: i64,
        attributes: Vec<KeyValue>,
    ) {
        let at = |us: i64| {
            let micros = u64::try_from(self.zero.micros().saturating_add(us)).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
        };
        let trace = TraceId::from_bytes(model::TraceId::from(self.call).to_bytes());
        self.spans.push(SpanData {
            span_context: SpanContext::new(
                trace,
                span.id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: span.parent,
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: name.into(),
            start_time: at(from_us),
            end_time: at(to_us),
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: span.status,
            instrumentation_scope: InstrumentationScope::builder("offhook")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

/// HTTP client of the exporter, with Offhook's TLS set-up, on this process's runtime. The operator
/// configures the collector, so the rules of `egress` for customers' URLs do not apply.
#[derive(Debug)]
struct Https {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Handle,
}

impl Https {
    fn new() -> Result<Self, String> {
        let tls = client_tls().map_err(|e| e.to_string())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, runtime: tokio::runtime::Handle::current() })
    }
}

type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Https {
    fn send_bytes<'a, 'f>(&'a self, request: Request<Bytes>) -> ResponseFuture<'f>
    where
        'a: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        // The exporter's thread has no runtime.
        let exchange = self.runtime.spawn(async move {
            let response = async {
                let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(head, body))
            };
            tokio::time::timeout(REQUEST_TIMEOUT, response).await?
        });
        Box::pin(async move { exchange.await? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{ExportedTrace, SpanId, SpanKind, Status, Timestamp, spans};
    use machine::log::{Line, Reader};

    const LOG: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/waterfalls/slow_server.jsonl"));

    #[test]
    fn a_call_is_one_trace_with_a_span_for_each_bar() {
        let lines = LOG.lines().map(std::sync::Arc::from).collect();
        let exported = spans(ExportedTrace::Call(lines), Timestamp::from_secs(2_000_000_000));
        let root = &exported[0];
        assert_eq!((root.name.as_ref(), root.parent_span_id), ("call", SpanId::INVALID));
        assert_eq!(root.span_context.trace_id().to_string(), "4736b1de5e4d476da061e75ab30368ca");
        let by_id: HashMap<_, _> = exported.iter().map(|s| (s.span_context.span_id(), s)).collect();
        assert_eq!(by_id.len(), exported.len(), "ids are distinct");
        for span in &exported[1..] {
            assert!(by_id.contains_key(&span.parent_span_id), "{}", span.name);
            assert!(
                span.start_time <= span.end_time && span.start_time >= root.start_time,
                "{}",
                span.name
            );
        }
        let named = |name: &str| exported.iter().find(|s| s.name == name).expect("a span");
        let fetch = named("fetch answer");
        assert_eq!(
            (fetch.span_context.span_id().to_string(), &fetch.span_kind),
            ("69d2e31c73b03a75".into(), &SpanKind::Client)
        );
        assert_eq!(named("first byte").parent_span_id, fetch.span_context.span_id());
        assert!(matches!(named("try 1").status, Status::Error { .. }));
        assert_eq!(
            fetch.end_time.duration_since(fetch.start_time).expect("forward").as_micros(),
            2_407_593
        );
    }

    #[test]
    fn a_callback_joins_its_calls_trace() {
        let (_, mut reader) = Reader::open(LOG.as_bytes()).expect("a log");
        let mut callback = None;
        while let Some(line) = reader.next_line().expect("readable") {
            if let Line::Trace(trace) = line {
                callback = Some(trace);
            }
        }
        let call = "4736b1de-5e4d-476d-a061-e75ab30368ca".parse().expect("a UUID");
        let trace = callback.expect("its last line");
        let exported =
            spans(ExportedTrace::Callback { call, trace }, Timestamp::from_secs(2_000_000_000));
        assert_eq!(exported[0].name, "callback hangup");
        assert_eq!(exported[0].parent_span_id.to_string(), "a061e75ab30368ca");
        assert_eq!(exported[0].span_context.span_id().to_string(), "00f067aa0ba902b8");
    }
}
