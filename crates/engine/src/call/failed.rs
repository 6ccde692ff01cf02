//! Failed requests to URLs of customers, for the list of errors across calls. What was sent, and
//! documents that were received, are in the event logs of the calls.

use crate::disk_space::DiskSpace;
use model::{AuthId, CallUuid, Timestamp};
use store::{FailedRequest, Store};
use uuid::Uuid;

/// The kind of the request of an audio file to play.
pub const FETCH_FILE: &str = "fetch file";

/// Maximum length of a URL and of an outcome, in characters.
const URL_MAX: usize = 500;
const OUTCOME_MAX: usize = 300;

/// A request that finally failed, or a failed attempt at a callback.
pub(super) struct Failed<'a> {
    pub(super) call: CallUuid,
    pub(super) account: &'a AuthId,
    pub(super) main_account: &'a AuthId,
    /// The label of the request in the call's waterfall.
    pub(super) kind: String,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) outcome: &'a str,
    pub(super) attempts: u32,
    /// The beginning of an error response or of a refused document.
    pub(super) response: Option<String>,
}

/// Size of a row without its texts, in bytes.
const ROW_BYTES: usize = 300;

/// Adds the request to the store, unless there is no disk space for it.
pub(super) fn record(
    store: &Store,
    space: &DiskSpace,
    id: Uuid,
    at: Timestamp,
    failed: Failed<'_>,
) {
    let Failed { call, account, main_account, kind, method, url, outcome, attempts, response } =
        failed;
    let response_bytes = response.as_ref().map_or(0, String::len);
    let texts = response_bytes + url.len().min(URL_MAX) + outcome.len().min(OUTCOME_MAX);
    if !space.take_history(main_account, ROW_BYTES + texts) {
        return;
    }
    store.failed_requests().insert(FailedRequest {
        id,
        account: account.clone(),
        main_account: main_account.clone(),
        at,
        call,
        kind,
        method: method.to_owned(),
        url: page_of(url).chars().take(URL_MAX).collect(),
        outcome: outcome.chars().take(OUTCOME_MAX).collect(),
        attempts,
        response,
    });
}

/// Returns a URL without credentials, query and fragment, which differ from call to call and may be
/// secret.
fn page_of(url: &str) -> String {
    let page = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = page.split_once("://") else { return page.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::page_of;

    #[test]
    fn a_url_loses_what_may_be_secret() {
        for (url, page) in [
            ("https://a.test/answer?token=x#rc=2", "https://a.test/answer"),
            ("https://user:pass@a.test:8443/a@b", "https://a.test:8443/a@b"),
            ("https://a.test?x=/", "https://a.test"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(page_of(url), page);
        }
    }
}
