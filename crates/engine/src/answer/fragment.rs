//! Settings of a URL in its fragment, such as `#ct=2000&rt=5000&rc=2&rp=ct,rt`, as described in
//! `docs/reference/callbacks.md#url-settings`.

use std::time::Duration;

use url::form_urlencoded;

use egress::{EgressError, EgressResponse};

/// Timeouts and retries of one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `ct`: timeout for establishing a connection.
    pub connect: Duration,
    /// `rt`: timeout for the first byte, and between packets.
    pub read: Duration,
    /// `tt`: timeout for all attempts together.
    pub total: Duration,
    /// `rc`: number of attempts after the first.
    pub retries: u32,
    /// `rp`: which failures are retried.
    pub retry_on: RetryOn,
}

/// The failures that are retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// `ct`: no connection was established.
    pub connect: bool,
    /// `rt`: no response arrived, or the connection broke.
    pub read: bool,
    /// `4xx`.
    pub client_errors: bool,
    /// `5xx`.
    pub server_errors: bool,
    /// `all`: every failure except a refused URL.
    pub all: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(2_000),
            read: Duration::from_millis(40_000),
            total: Duration::from_millis(55_000),
            retries: 1,
            retry_on: RetryOn { connect: true, read: true, ..RetryOn::default() },
        }
    }
}

impl Settings {
    /// Parses a fragment. Unknown or out-of-range settings keep their defaults and are listed in
    /// the second value.
    pub fn of(fragment: Option<&str>) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut invalid = Vec::new();
        for (key, value) in form_urlencoded::parse(fragment.unwrap_or_default().as_bytes()) {
            let within =
                |min: u32, max: u32| value.parse::<u32>().ok().filter(|n| (min..=max).contains(n));
            let millis = |max| within(100, max).map(|ms| Duration::from_millis(ms.into()));
            let taken = match key.as_ref() {
                "ct" => millis(10_000).map(|t| settings.connect = t),
                "rt" => millis(40_000).map(|t| settings.read = t),
                "tt" => millis(55_000).map(|t| settings.total = t),
                "rc" => within(0, 5).map(|n| settings.retries = n),
                "rp" => RetryOn::parse(&value).map(|on| settings.retry_on = on),
                "er" => Some(()),
                _ => None,
            };
            if taken.is_none() {
                invalid.push(format!("{key}={value}"));
            }
        }
        (settings, invalid)
    }
}

impl RetryOn {
    fn parse(list: &str) -> Option<Self> {
        let mut on = Self::default();
        for word in list.split(',') {
            match word.trim() {
                "ct" => on.connect = true,
                "rt" => on.read = true,
                "4xx" => on.client_errors = true,
                "5xx" => on.server_errors = true,
                "all" => on.all = true,
                _ => return None,
            }
        }
        Some(on)
    }

    /// Whether an attempt with this result is retried.
    pub fn includes(self, ended: &Result<EgressResponse, EgressError>) -> bool {
        match ended {
            Ok(answer) if answer.status.is_success() => false,
            Err(EgressError::Refused(_)) => false,
            _ if self.all => true,
            Ok(answer) if answer.status.is_client_error() => self.client_errors,
            Ok(answer) if answer.status.is_server_error() => self.server_errors,
            Ok(_) => false,
            Err(
                EgressError::Resolve { .. }
                | EgressError::Connect { .. }
                | EgressError::ConnectTimeout { .. }
                | EgressError::HandshakeTimeout { .. },
            ) => self.connect,
            Err(EgressError::ReadTimeout { .. } | EgressError::Broken { .. }) => self.read,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::{RetryOn, Settings};
    use egress::{EgressError, EgressResponse, Refusal};

    #[test]
    fn parses_valid_settings_and_lists_the_others() {
        let (all, invalid) = Settings::of(Some("ct=100&rt=5000&tt=55000&rc=5&rp=ct,5xx&er=us"));
        assert_eq!(invalid, Vec::<String>::new());
        assert_eq!(
            all,
            Settings {
                connect: Duration::from_millis(100),
                read: Duration::from_millis(5000),
                total: Duration::from_millis(55_000),
                retries: 5,
                retry_on: RetryOn { connect: true, server_errors: true, ..RetryOn::default() },
            }
        );
        assert_eq!(Settings::of(None), (Settings::default(), Vec::new()));
        for bad in [
            "ct=99", "ct=10001", "rt=40001", "tt=55001", "tt=x", "rc=6", "rc=-1", "rp=6xx", "rp=",
            "x=1", "section",
        ] {
            let (settings, invalid) = Settings::of(Some(bad));
            assert_eq!((settings, invalid.len()), (Settings::default(), 1), "{bad}");
        }
    }

    #[test]
    fn retries_the_selected_failures() {
        let answer = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            Ok(EgressResponse {
                status,
                headers: HeaderMap::new(),
                body: Bytes::new(),
                discarded: Bytes::new(),
            })
        };
        let refused = Err(EgressError::Refused(Refusal::UserInfo));
        let no_connection =
            Err(EgressError::Connect { host: String::new(), reason: String::new() });
        let late = Err(EgressError::ReadTimeout { waited: Duration::ZERO });
        let large = Err(EgressError::TooLarge { max: 1 });
        // Columns: 200, 302 without a target, 404, 503, refused, no connection, read timeout, too
        // large.
        for (rp, wanted) in [
            ("ct,rt", [false, false, false, false, false, true, true, false]),
            ("4xx", [false, false, true, false, false, false, false, false]),
            ("5xx", [false, false, false, true, false, false, false, false]),
            ("all", [false, true, true, true, false, true, true, true]),
        ] {
            let on = Settings::of(Some(&format!("rp={rp}"))).0.retry_on;
            let cases = [
                &answer(200),
                &answer(302),
                &answer(404),
                &answer(503),
                &refused,
                &no_connection,
                &late,
                &large,
            ];
            assert_eq!(cases.map(|ended| on.includes(ended)), wanted, "{rp}");
        }
    }
}
