//! Logging: each event is one line on standard error, even if its text contains line breaks.
//!
//! Libraries are logged at ERROR only, except for slow SQL statements. Control and direction
//! characters are escaped, and long lines are cut. Each place in the code writes at most 1,000 lines
//! a second; further lines are counted and dropped.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::json_line::JsonLine;
use model::Clock;
use model::metric;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Settings of [`install`].
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// The level on the command line, which takes precedence over `RUST_LOG`.
    pub level: Option<LogLevel>,
    /// The level if neither is set.
    pub default: LogLevel,
}

/// The requested filter, which [`ceiling`] limits.
fn filter(settings: LogSettings, rust_log: Option<&str>) -> EnvFilter {
    let asked = rust_log.map(str::trim).filter(|asked| !asked.is_empty());
    let word = match (settings.level, asked) {
        (Some(level), _) => level.as_str(),
        (None, Some(asked)) => asked,
        (None, None) => settings.default.as_str(),
    };
    EnvFilter::try_new(word).unwrap_or_else(|_| EnvFilter::new(settings.default.as_str()))
}

/// Returns the maximum levels. Libraries trace the bytes of connections, with keys, passwords and
/// conversations, and warn of each malformed packet, request or file, so that a stranger could fill
/// the disk. What concerns operators is logged by this program.
fn ceiling() -> Targets {
    Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("offhook", LevelFilter::TRACE)
        // Changes and refused sign-ins (docs/operations.md#audit-trail).
        .with_target("audit", LevelFilter::INFO)
        // Slow statements.
        .with_target("sqlx", LevelFilter::WARN)
        .with_target("stun_proto", LevelFilter::OFF)
}

/// Installs the subscriber, and a hook that logs a panic as one line. Further calls have no effect.
pub fn install(settings: LogSettings) {
    let filter = filter(settings, std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref());
    if subscriber(settings.format, filter, io::stderr, Clock::real()).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // Captured only if `RUST_BACKTRACE` requests it.
            let backtrace = std::backtrace::Backtrace::capture();
            let asked = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
            let backtrace = asked.then(|| tracing::field::display(backtrace));
            tracing::error!(backtrace, "internal error: {panic}");
        }));
    }
}

/// Lines dropped so far by the rate limit. Also the counter [`metric::LOG_LINES_DROPPED_TOTAL`].
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Ordering::Relaxed)
}

static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
    clock: Clock,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let base =
        tracing_subscriber::registry().with(filter).with(ceiling()).with(RateLimit::new(clock));
    let layer =
        |bytes_max| fmt::layer().with_ansi(false).with_writer(Escaping { to: writer, bytes_max });
    match format {
        // The format cuts values, because a part of a line is not JSON.
        LogFormat::Json => {
            let layer = layer(usize::MAX).fmt_fields(JsonFields::new()).event_format(JsonLine);
            Box::new(base.with(layer))
        }
        LogFormat::Pretty => Box::new(base.with(layer(TEXT_BYTES_MAX))),
    }
}

/// Maximum size in bytes of a line of text, and of a value in a line of JSON, before their characters
/// are escaped. What follows is replaced by an ellipsis.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 10;

/// Maximum number of lines per second from one place in the code.
const LINES_PER_SECOND: u64 = 1_000;

/// Drops the lines from one place beyond the limit, for the rest of the second.
struct RateLimit {
    clock: Clock,
    start: Instant,
    /// The current second (upper half) and the number of lines in it (lower half) for each place in
    /// the code.
    kinds: DashMap<Identifier, AtomicU64>,
}

impl RateLimit {
    fn new(clock: Clock) -> Self {
        Self { start: clock.now(), clock, kinds: DashMap::new() }
    }

    fn admit(&self, kind: Identifier) -> bool {
        let second = self.clock.now().saturating_duration_since(self.start).as_secs() << 32;
        let spent = self.kinds.entry(kind).or_default();
        let before = spent.load(Ordering::Relaxed).max(second);
        spent.store(before + 1, Ordering::Relaxed);
        before - second < LINES_PER_SECOND
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let admitted = self.admit(event.metadata().callsite());
        if !admitted {
            static COUNTER: OnceLock<metrics::Counter> = OnceLock::new();
            DROPPED_LINES.fetch_add(1, Ordering::Relaxed);
            COUNTER.get_or_init(|| metrics::counter!(metric::LOG_LINES_DROPPED_TOTAL)).increment(1);
        }
        admitted
    }
}

/// Creates writers that expect one event per write. They escape harmful characters, cut the event after
/// `bytes_max` bytes, and keep the newline at its end.
struct Escaping<W> {
    to: W,
    bytes_max: usize,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;
    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter { to: self.to.make_writer(), bytes_max: self.bytes_max }
    }
}

struct EscapingWriter<W> {
    to: W,
    bytes_max: usize,
}

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let is_long = line.len() > self.bytes_max;
        // True for nearly every line. Checked in one pass without branches.
        let plain = |b: &u8| matches!(b, b' '..=b'~');
        if !is_long && line.iter().fold(true, |all, b| all & plain(b)) {
            self.to.write_all(event)?;
            return Ok(event.len());
        }
        let text = String::from_utf8_lossy(line);
        let (text, _) = text.split_at(text.floor_char_boundary(self.bytes_max));
        let end = if is_long { "…\n" } else { "\n" };
        self.to.write_all(format!("{}{end}", escaped(text)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Escapes the [harmful](is_harmful) characters of a line as JSON does, so that a line of JSON stays
/// valid.
pub(crate) fn escaped(line: &str) -> Cow<'_, str> {
    if !line.contains(is_harmful) {
        return line.into();
    }
    let mut safe = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_harmful(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe.into()
}

/// Whether a character can change what a terminal shows around it: control characters (C0, DEL, C1),
/// line separators, and marks that change the direction of text.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{Clock, LogFormat, LogLevel, LogSettings, TEXT_BYTES_MAX, filter, subscriber};
    use model::{E164, Timestamp};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(b)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, clock: Clock, work: impl FnOnce()) -> String {
        logged_at("info", format, clock, work)
    }

    fn logged_at(directives: &str, format: LogFormat, clock: Clock, work: impl FnOnce()) -> String {
        let settings = LogSettings { format, level: None, default: LogLevel::Warn };
        let sink = Sink::default();
        let writer = sink.clone();
        let made =
            subscriber(format, filter(settings, Some(directives)), move || writer.clone(), clock);
        tracing::subscriber::with_default(made, work);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\r\nb\u{1b}[31m\u{9b}c\u{202e}d\u{2028}e\"\\";

    #[test]
    fn r22_one_event_is_one_line_with_any_content() {
        for format in [LogFormat::Json, LogFormat::Pretty] {
            let text = logged(format, Clock::real(), || {
                let span = tracing::info_span!("call", call_uuid = "0", alias = HOSTILE);
                span.in_scope(
                    || tracing::info!(header = HOSTILE, other = ?HOSTILE, "said {HOSTILE}"),
                );
                tracing::debug!("below the level");
            });
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end().contains(super::is_harmful), "{text:?}");
            if format == LogFormat::Json {
                let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(line["header"], HOSTILE, "nothing is lost");
                assert_eq!(line["span"]["call_uuid"], "0");
            }
        }
    }

    #[test]
    fn r22_long_values_are_cut() {
        let long = "ä".repeat(1 << 20);
        for format in [LogFormat::Json, LogFormat::Pretty] {
            let text = logged(format, Clock::real(), || {
                tracing::info!(long, debugged = ?long, n = 7, "said {long}");
            });
            assert!(text.len() < 50 << 10, "{format:?}: {} bytes", text.len());
            match format {
                LogFormat::Json => {
                    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    let value = line["long"].as_str().expect("a text");
                    assert_eq!(value.strip_suffix('…'), long.get(..TEXT_BYTES_MAX));
                    assert_eq!(line["n"], 7);
                }
                LogFormat::Pretty => assert!(text.ends_with("ä…\n")),
            }
        }
    }

    #[test]
    fn json_lines_equal_those_of_tracing_subscriber() {
        let events = || {
            tracing::warn!("outside of any span: {HOSTILE}");
            let span = tracing::info_span!(
                "call",
                call_uuid = "0",
                alias = HOSTILE,
                late = tracing::field::Empty
            );
            span.in_scope(|| {
                tracing::info!(n = -3, m = u64::MAX, x = 0.5, big = 1e300, nan = f64::NAN, yes = true, "said");
                tracing::info!(text = HOSTILE, shown = %HOSTILE, debugged = ?Some(HOSTILE), none = None::<u32>);
                span.record("late", 7);
                tracing::info_span!("empty").in_scope(|| tracing::error!(error = %std::fmt::Error, "within"));
                tracing::info!(log.target = "a library", r#type = "raw", "of a library");
            });
        };
        let theirs = Sink::default();
        let writer = theirs.clone();
        let layer = super::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = layer.json().flatten_event(true).with_span_list(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let theirs = String::from_utf8(theirs.0.lock().unwrap().clone()).unwrap();
        let ours = logged(LogFormat::Json, Clock::real(), events);
        let read = |text: &str| -> Vec<serde_json::Value> {
            let line = |line| {
                let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let time =
                    line.as_object_mut().and_then(|line| line.remove("timestamp")).expect("a time");
                assert!(
                    time.as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 27),
                    "{time}"
                );
                line
            };
            text.lines().map(line).collect()
        };
        let (mut theirs, ours) = (read(&theirs), read(&ours));
        // The library sets such targets only for events of the `log` crate.
        theirs.last_mut().expect("a line")["target"] = "a library".into();
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 5);
    }

    #[test]
    fn r22_no_directive_enables_libraries_below_error() {
        let of_libraries = [
            "trace",
            "TRACE",
            "debug",
            "tungstenite=trace",
            "tungstenite::protocol=trace",
            "tungstenite",
            "info,tungstenite=trace",
            "trace,h2=off",
            "[call]=trace",
            "[{call_uuid}]=trace",
            "[call{call_uuid=.*}]=trace",
            "tungstenite[call]=trace",
            "off,tungstenite::protocol[call{call_uuid=7}]=trace",
            "offhook=trace,tungstenite=debug",
        ];
        for directives in of_libraries {
            let text = logged_at(directives, LogFormat::Pretty, Clock::real(), || {
                let _library =
                    tracing::trace_span!(target: "tungstenite::protocol", "frame", key = "secret")
                        .entered();
                let _call = tracing::info_span!("call", call_uuid = "7").entered();
                tracing::trace!(target: "tungstenite::protocol", "secret");
                tracing::debug!(target: "tungstenite::protocol", "secret");
                tracing::warn!(target: "rustls", "secret");
                tracing::error!("ours: shown");
            });
            assert!(!text.contains("secret"), "{directives}: {text}");
        }
        for (directives, ours, theirs) in [
            ("trace", true, true),
            ("offhook=trace", true, false),
            ("offhook[call]=trace", true, true),
            ("info", false, true),
            ("tungstenite=trace", false, true),
        ] {
            let text = logged_at(directives, LogFormat::Pretty, Clock::real(), || {
                let _call = tracing::info_span!("call", call_uuid = "7").entered();
                tracing::trace!("ours");
                tracing::error!(target: "tungstenite::protocol", "theirs");
            });
            assert_eq!(
                (text.contains("ours"), text.contains("theirs")),
                (ours, theirs),
                "{directives}: {text}"
            );
        }
    }

    #[test]
    fn the_argument_wins_over_the_environment() {
        let of = |level, rust_log: Option<&str>| {
            let settings = LogSettings { format: LogFormat::Json, level, default: LogLevel::Warn };
            filter(settings, rust_log).to_string()
        };
        assert_eq!(of(Some(LogLevel::Error), Some("trace")), "error");
        assert_eq!((of(None, None), of(None, Some(""))), ("warn".to_owned(), "warn".to_owned()));
        assert_eq!(of(None, Some("=,=")), "warn", "invalid directives are ignored");
    }

    #[test]
    fn r22_callers_show_their_last_digits_only() {
        let from = E164::parse("919812345678").expect("a number");
        let text = logged(LogFormat::Pretty, Clock::real(), || tracing::info!(?from, "offered"));
        assert!(text.contains("5678") && !text.contains("9198"), "{text}");
    }

    #[test]
    fn r22_lines_from_one_place_are_limited() {
        let clock = Clock::stepped(Timestamp::default());
        let at = clock.clone();
        let before = super::dropped_lines();
        let text = logged(LogFormat::Pretty, clock, || {
            let flood = |n: u32| (0..n).for_each(|i| tracing::info!(i, "flood"));
            flood(1_500);
            tracing::info!("another kind");
            at.step(Duration::from_secs(1));
            flood(10);
        });
        assert_eq!(text.lines().count(), 1_000 + 1 + 10);
        assert!(super::dropped_lines() - before >= 500);
    }
}
