//! The `status` label of `offhook_graph_request_seconds`: the HTTP status if it is registered,
//! otherwise a word.

pub(super) const TIMEOUT: &str = "timeout";
pub(super) const ERROR: &str = "error";
/// The label for unregistered status codes. Without it, a server could create hundreds of label
/// values.
pub(super) const OTHER: &str = "other";

/// The label of a status code.
pub(super) fn of(status: u16) -> String {
    let known = http::StatusCode::from_u16(status)
        .ok()
        .filter(|status| status.canonical_reason().is_some());
    known.map_or_else(|| OTHER.to_owned(), |status| status.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{OTHER, of};

    #[test]
    fn r23_bounds_the_number_of_labels() {
        let words: BTreeSet<String> = (0..=u16::MAX).map(of).collect();
        assert!((40..80).contains(&words.len()), "{}", words.len());
        let kept = [200, 301, 400, 401, 403, 429, 500, 502, 503, 504]
            .map(|status: u16| (status, status.to_string()));
        assert!(kept.iter().all(|(status, word)| of(*status) == *word));
        assert!([0, 99, 299, 599, 777, 999, u16::MAX].iter().all(|status| of(*status) == OTHER));
    }
}
