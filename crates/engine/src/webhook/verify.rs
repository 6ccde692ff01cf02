//! Verifies that a request comes from Meta: the signature of an event
//! (`docs/reference/reliability.md#r13`), or the token of a subscription.

use aws_lc_rs::hmac;
use http::HeaderMap;
use subtle::ConstantTimeEq;

use model::Secret;

/// The secrets shared with Meta.
pub struct Secrets {
    current: hmac::Key,
    previous: Option<hmac::Key>,
    verify_token: Secret,
}

const HEADER: &str = "x-hub-signature-256";

impl Secrets {
    /// Creates the secrets. `previous` is the app secret before a change, which stays valid while
    /// it is set (`docs/reference/meta.md#previous-secret`).
    pub fn new(app_secret: &Secret, previous: Option<&Secret>, verify_token: Secret) -> Self {
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Self { current: key(app_secret), previous: previous.map(key), verify_token }
    }

    /// Whether exactly one header `X-Hub-Signature-256: sha256=<64 lower-case hex>` signs the body.
    /// Both secrets are always compared, each in constant time.
    pub fn signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let mut lines = headers.get_all(HEADER).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return false };
        let Some(tag) = tag(line.as_bytes()) else { return false };
        let current = hmac::verify(&self.current, body, &tag).is_ok();
        let previous =
            self.previous.as_ref().is_some_and(|key| hmac::verify(key, body, &tag).is_ok());
        current | previous
    }

    /// Returns the challenge if the query is Meta's verification request with the node's verify
    /// token.
    pub fn challenge(&self, query: &str) -> Option<String> {
        let of = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let token = of("hub.verify_token")?;
        let ours = self.verify_token.reveal().as_bytes();
        let matches = bool::from(token.as_bytes().ct_eq(ours)) && !ours.is_empty();
        (matches && of("hub.mode")? == "subscribe").then_some(())?;
        of("hub.challenge").map(std::borrow::Cow::into_owned)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Parses the value of the header.
fn tag(line: &[u8]) -> Option<[u8; 32]> {
    let digits = line.trim_ascii().strip_prefix(b"sha256=")?;
    let lower = digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut tag = [0; 32];
    (lower && hex::decode_to_slice(digits, &mut tag).is_ok()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use http::HeaderValue;

    use super::*;
    use crate::webhook::tests::fixture;

    fn secrets(app: &str, previous: Option<&str>) -> Secrets {
        Secrets::new(&Secret::new(app), previous.map(Secret::new).as_ref(), Secret::new("token"))
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn r13_every_vector_of_the_fixtures() {
        let vectors: serde_json::Value =
            serde_json::from_slice(&fixture("signatures.json")).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert!(vectors.len() > 100);
        for vector in vectors {
            let body = match vector["file"].as_str() {
                Some(file) => fixture(file),
                None => base64::engine::general_purpose::STANDARD
                    .decode(vector["body_base64"].as_str().unwrap())
                    .unwrap(),
            };
            let headers = match vector["header"].as_str() {
                Some(value) => headers(&[value.as_bytes()]),
                None => headers(&[]),
            };
            let secret = vector["secret"].as_str().unwrap();
            assert_eq!(secrets(secret, None).signed(&headers, &body), vector["valid"], "{vector}");
        }
    }

    #[test]
    fn r13_repeated_foreign_and_broken_headers() {
        let body = fixture("webhooks/message_text.json");
        let good = b"sha256=bed61520b90242fb6614e9b34bd0aa37e2ac39f87c5176bb0e2452702958b82a";
        let app = secrets("offhook-fixture-app-secret-0001", None);
        assert!(app.signed(&headers(&[good]), &body));
        assert!(!app.signed(&headers(&[good, good]), &body), "twice");
        assert!(!app.signed(&headers(&[b"sha256=\xff\xfe"]), &body));
        let mut sha1 = HeaderMap::new();
        sha1.insert(
            "x-hub-signature",
            HeaderValue::from_static("sha1=329a4718852877a08988c58ca39ce76fc45b1838"),
        );
        assert!(!app.signed(&sha1, &body));
        for place in 7..good.len() {
            let mut wrong = good.to_vec();
            wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
            assert!(!app.signed(&headers(&[&wrong]), &body), "wrong at {place}");
        }
    }

    #[test]
    fn r13_the_previous_secret_counts_while_it_is_set() {
        let body = fixture("webhooks/message_text.json");
        let good =
            headers(&[b"sha256=bed61520b90242fb6614e9b34bd0aa37e2ac39f87c5176bb0e2452702958b82a"]);
        assert!(secrets("new", Some("offhook-fixture-app-secret-0001")).signed(&good, &body));
        assert!(secrets("offhook-fixture-app-secret-0001", Some("old")).signed(&good, &body));
        assert!(!secrets("new", Some("other")).signed(&good, &body));
    }

    #[test]
    fn r13_a_wrong_first_and_a_wrong_last_byte_take_the_same_time() {
        const ROUNDS: u32 = 100_000;
        let body = fixture("webhooks/message_text.json");
        let app = secrets("offhook-fixture-app-secret-0001", None);
        let good =
            b"sha256=bed61520b90242fb6614e9b34bd0aa37e2ac39f87c5176bb0e2452702958b82a".to_vec();
        let (mut first, mut last) = (good.clone(), good);
        first[7] = b'0';
        last[70] = b'0';
        let sides = [headers(&[&first]), headers(&[&last])];
        let clock = model::Clock::real();
        let mut took = [Vec::new(), Vec::new()];
        // Interleaved, so that other load on the machine affects both sides equally.
        for _ in 0..ROUNDS {
            for (headers, took) in sides.iter().zip(&mut took) {
                let begun = clock.now();
                assert!(!app.signed(headers, &body));
                took.push(clock.now() - begun);
            }
        }
        // The slowest tenth is noise of other processes.
        let [first, last] = took.map(|mut took| {
            took.sort_unstable();
            took.truncate(took.len() * 9 / 10);
            took.iter().sum::<std::time::Duration>() / u32::try_from(took.len()).unwrap()
        });
        let apart = first.abs_diff(last);
        assert!(apart < std::time::Duration::from_micros(1), "{apart:?} apart in the mean");
    }

    #[test]
    fn r13_an_empty_token_verifies_nobody() {
        let empty = Secrets::new(&Secret::new("a"), None, Secret::new(""));
        assert_eq!(empty.challenge("hub.mode=subscribe&hub.verify_token=&hub.challenge=1"), None);
    }
}
