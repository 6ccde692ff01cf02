//! Tracing set-up: one event, one line, on standard error.

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// The least serious thing that is logged.
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

/// What [`install`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// As asked for; wins over `RUST_LOG`.
    pub level: Option<LogLevel>,
    /// Where neither says anything.
    pub otherwise: LogLevel,
}

/// Installs the subscriber, once a process.
pub fn install(settings: LogSettings) {
    use tracing_subscriber::EnvFilter;
    let filter = match settings.level {
        Some(level) => EnvFilter::new(level.as_str()),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(settings.otherwise.as_str())),
    };
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match settings.format {
        LogFormat::Json => base.json().try_init(),
        LogFormat::Pretty => base.try_init(),
    };
}
