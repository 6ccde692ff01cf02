//! Settings of the node's parts, derived from the configuration.

use std::net::SocketAddr;

use engine::call::CallSettings;
use engine::config::Config;
use engine::webhook::WebhookConfig;
use machine::MachineLimits;

/// Returns the call settings of a configuration. `transcribes` is whether a recogniser can
/// transcribe recordings.
pub fn call_settings(config: &Config, transcribes: bool) -> CallSettings {
    let limits = MachineLimits {
        accept_wait_ms: config.media.accept_wait_ms,
        max_call_ms: config.limits.max_call_seconds.saturating_mul(1000),
        fetch_ms: config.answer.timeout_ms,
        allow_wa_bridge: config.limits.allow_wa_bridge,
        sip_host: host(config, Bound { public: config.listen.public, https: config.listen.https }),
        can_transcribe: transcribes,
        allow_plain_urls: config.answer.allow_insecure,
        ..MachineLimits::default()
    };
    CallSettings { limits, max_body: config.answer.max_body_bytes }
}

/// Webhook secrets of a configuration.
pub(super) fn webhook_config(config: &Config) -> WebhookConfig {
    WebhookConfig {
        app_secret: config.meta.app_secret.clone(),
        app_secret_previous: config.meta.app_secret_previous.clone(),
        verify_token: config.meta.verify_token.clone(),
    }
}

/// Addresses of the listeners that clients use.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) public: SocketAddr,
    pub(super) https: Option<SocketAddr>,
}

/// Host name or address at which this node is reachable for others.
pub(super) fn host(config: &Config, bound: Bound) -> String {
    let named = config.public.base_url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    named.unwrap_or_else(|| bound.https.unwrap_or(bound.public).ip().to_string())
}

/// Base URL at which this node is reachable for others, without a trailing slash.
pub(super) fn base_url(config: &Config, bound: Bound) -> String {
    match (&config.public.base_url, bound.https) {
        (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
        (None, Some(_)) => https_url(config, bound),
        (None, None) => format!("http://{}", bound.public),
    }
}

/// The base URL with https, even if `public.base_url` has another scheme.
pub(super) fn https_url(config: &Config, bound: Bound) -> String {
    let port = bound.https.map_or(443, |https| https.port());
    match &config.public.base_url {
        Some(url) if url.scheme() == "https" => url.as_str().trim_end_matches('/').to_owned(),
        Some(url) if port == 443 => format!("https://{}", url.host_str().unwrap_or_default()),
        Some(url) => format!("https://{}:{port}", url.host_str().unwrap_or_default()),
        None => format!("https://{}", bound.https.unwrap_or(bound.public)),
    }
}
