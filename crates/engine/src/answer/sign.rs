//! Signs requests in the way that Plivo's SDKs verify, with signatures V3 and V2
//! (`docs/reference/callbacks.md`). Each is made with the token of the account that owns the number
//! and, as `Ma`, with its main account's token.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use url::form_urlencoded;

use model::Method;
use model::Secret;

/// The name of the header with the value of [`sign_event`].
pub const EVENT_SIGNATURE: HeaderName = HeaderName::from_static("x-offhook-signature");
const V3: HeaderName = HeaderName::from_static("x-plivo-signature-v3");
const MA_V3: HeaderName = HeaderName::from_static("x-plivo-signature-ma-v3");
const V3_NONCE: HeaderName = HeaderName::from_static("x-plivo-signature-v3-nonce");
const V2: HeaderName = HeaderName::from_static("x-plivo-signature-v2");
const MA_V2: HeaderName = HeaderName::from_static("x-plivo-signature-ma-v2");
const V2_NONCE: HeaderName = HeaderName::from_static("x-plivo-signature-v2-nonce");

/// The keys made from the active tokens of an account and of its main account, newest first. A main
/// account has the same keys twice, and they are shared.
#[derive(Clone)]
pub struct SigningKeys {
    account: Arc<[TokenKey]>,
    main: Arc<[TokenKey]>,
}

#[derive(Clone)]
struct TokenKey {
    token: Secret,
    key: hmac::Key,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

impl SigningKeys {
    /// Creates the keys. Both lists have the newest token first.
    pub fn new(account: &[Secret], main: &[Secret]) -> Self {
        let is_main = account.iter().map(Secret::reveal).eq(main.iter().map(Secret::reveal));
        let own = Self::of_main(account);
        if is_main { own } else { Self { main: Self::of_main(main).main, ..own } }
    }

    /// Creates the keys of a main account.
    pub fn of_main(tokens: &[Secret]) -> Self {
        let account: Arc<[TokenKey]> = tokens.iter().map(TokenKey::new).collect();
        Self { main: account.clone(), account }
    }

    /// The keys of a call that began with these ones, when its account and main account have other
    /// tokens: the current ones first. The customer may verify with either.
    #[must_use]
    pub fn renewed(&self, account: &[Secret], main: &[Secret]) -> Self {
        let own = renewed(&self.account, account);
        let is_main = Arc::ptr_eq(&self.account, &self.main);
        let main = if is_main { own.clone() } else { renewed(&self.main, main) };
        Self { account: own, main }
    }

    /// The signatures of a text with the keys of the account and with those of its main account.
    fn signatures(&self, text: &str) -> [String; 2] {
        let own = signatures(&self.account, text);
        let main = if Arc::ptr_eq(&self.account, &self.main) {
            own.clone()
        } else {
            signatures(&self.main, text)
        };
        [own, main]
    }
}

impl TokenKey {
    fn new(token: &Secret) -> Self {
        Self { token: token.clone(), key: hmac_key(token) }
    }
}

/// The keys of the current tokens, and those of the others that were there before.
fn renewed(before: &Arc<[TokenKey]>, now: &[Secret]) -> Arc<[TokenKey]> {
    let is_current = |old: &&TokenKey| now.iter().any(|token| token.reveal() == old.token.reveal());
    if before.len() == now.len() && before.iter().all(|old| is_current(&old)) {
        return before.clone();
    }
    let older = before.iter().filter(|old| !is_current(old)).cloned();
    now.iter().map(TokenKey::new).chain(older).collect()
}

fn hmac_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())
}

/// The signature headers of a request.
///
/// `url` is the text as configured; its fragment is ignored. `pairs` are the decoded parameters.
/// `nonce` has 20 decimal digits and is new for each request.
pub fn sign(
    method: Method,
    url: &str,
    pairs: &[(&str, &str)],
    keys: &SigningKeys,
    nonce: String,
) -> [(HeaderName, String); 6] {
    let [v3, ma_v3] = keys.signatures(&v3_text(method, url, pairs, &nonce));
    let [v2, ma_v2] = keys.signatures(&v2_text(url, &nonce));
    [
        (V3, v3),
        (MA_V3, ma_v3),
        (V3_NONCE, nonce.clone()),
        (V2, v2),
        (MA_V2, ma_v2),
        (V2_NONCE, nonce),
    ]
}

/// The value of `X-Offhook-Signature` for an event sent at this time: `t=UNIX,v1=HEX`, where `HEX`
/// is the HMAC-SHA-256 of `t.body`. There is one `v1` per secret, and therefore two during a
/// rotation.
pub fn sign_event(body: &[u8], secrets: &[Secret], unix: i64) -> String {
    let mut text = format!("{unix}.").into_bytes();
    text.extend_from_slice(body);
    let mut header = format!("t={unix}");
    for secret in secrets {
        header.push_str(",v1=");
        header.push_str(&hex::encode(hmac::sign(&hmac_key(secret), &text)));
    }
    header
}

/// One signature per key, joined by commas as the SDKs expect.
fn signatures(keys: &[TokenKey], text: &str) -> String {
    let of = |TokenKey { key, .. }: &TokenKey| STANDARD.encode(hmac::sign(key, text.as_bytes()));
    keys.iter().map(of).collect::<Vec<_>>().join(",")
}

/// The text that signature V3 covers.
fn v3_text(method: Method, url: &str, pairs: &[(&str, &str)], nonce: &str) -> String {
    let (base, query) = split(url);
    let mut own: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let params = pairs.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v)));
    let text = match method {
        Method::Get => {
            own.extend(params);
            with_query(base, own)
        }
        Method::Post if pairs.is_empty() => with_query(base, own),
        Method::Post => {
            let mut params: Vec<_> = params.collect();
            params.sort();
            let params: String =
                params.iter().flat_map(|(n, v)| [n.as_ref(), v.as_ref()]).collect();
            // Without a query, the SDKs put a `?` before the parameters and no dot.
            if own.is_empty() {
                format!("{base}?{params}")
            } else {
                format!("{}.{params}", with_query(base, own))
            }
        }
    };
    format!("{text}.{nonce}")
}

/// The text that signature V2 covers.
fn v2_text(url: &str, nonce: &str) -> String {
    format!("{}{nonce}", split(url).0)
}

/// Splits a URL without its fragment into scheme, authority and path, and the query, both as
/// written.
fn split(url: &str) -> (&str, &str) {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    url.split_once('?').unwrap_or((url, ""))
}

fn with_query(base: &str, mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)>) -> String {
    if pairs.is_empty() {
        return base.to_owned();
    }
    pairs.sort();
    let query: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
    format!("{base}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{SigningKeys, sign, v2_text, v3_text};
    use model::Method;
    use model::Secret;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../../fixtures/signature-vectors.json")).unwrap()
    }

    fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
        vector[key].as_str().unwrap_or_else(|| panic!("{key} of {vector}"))
    }

    fn pairs(vector: &Value) -> Vec<(&str, &str)> {
        let params = vector["params"].as_object().unwrap();
        let values = |v: &'_ Value| match v {
            Value::Array(all) => all.clone(),
            one => vec![one.clone()],
        };
        params
            .iter()
            .flat_map(|(n, v)| {
                values(v)
                    .into_iter()
                    .map(move |v| (n.as_str(), &*v.as_str().unwrap().to_owned().leak()))
            })
            .collect()
    }

    fn method(vector: &Value) -> Method {
        if vector["method"] == "GET" { Method::Get } else { Method::Post }
    }

    fn tokens(list: &[&str]) -> Vec<Secret> {
        list.iter().map(|t| Secret::new(*t)).collect()
    }

    fn header(headers: &[(http::HeaderName, String)], name: &str) -> String {
        headers.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name)).unwrap().1.clone()
    }

    /// Checks a header like an SDK does: any of the signatures may match.
    fn accepts(vector: &Value, header: &str) -> bool {
        let keys = SigningKeys::of_main(&tokens(&[text(vector, "auth_token")]));
        let own = sign(
            method(vector),
            text(vector, "url"),
            &pairs(vector),
            &keys,
            text(vector, "nonce").to_owned(),
        );
        header.split(',').any(|one| one == own[0].1)
    }

    #[test]
    fn signs_every_sdk_vector() {
        let all = vectors();
        let all = all["vectors"].as_array().unwrap();
        assert_eq!(all.len(), 20);
        for v in all {
            let (id, url, nonce) = (text(v, "id"), text(v, "url"), text(v, "nonce"));
            let v2 = v["scheme"] == "V2";
            let pairs = if v2 { Vec::new() } else { pairs(v) };
            let made =
                if v2 { v2_text(url, nonce) } else { v3_text(method(v), url, &pairs, nonce) };
            assert_eq!(made, text(v, "signed_string"), "{id}");
            let own = text(v, "auth_token");
            let main = v["main_account_token"].as_str().unwrap_or(own);
            let headers = sign(
                method(v),
                url,
                &pairs,
                &SigningKeys::new(&tokens(&[own]), &tokens(&[main])),
                nonce.to_owned(),
            );
            for (name, value) in v["headers"].as_object().unwrap() {
                assert_eq!(header(&headers, name), value.as_str().unwrap(), "{id} {name}");
            }
        }
    }

    #[test]
    fn every_negative_vector_is_refused() {
        let all = vectors();
        let all = all["negative"].as_array().unwrap();
        assert_eq!(all.len(), 6);
        for v in all {
            assert!(!accepts(v, text(v, "signature")), "{}", text(v, "id"));
        }
    }

    #[test]
    fn rotation_puts_every_signature_into_one_header_newest_first() {
        let all = vectors();
        let base = all["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["id"] == all["rotation"]["base"])
            .unwrap();
        assert!(accepts(base, text(&all["rotation"], "header")));
        let old = text(base, "auth_token");
        let both = SigningKeys::of_main(&tokens(&["a-newer-token", old]));
        let headers = sign(
            method(base),
            text(base, "url"),
            &pairs(base),
            &both,
            text(base, "nonce").to_owned(),
        );
        for name in ["X-Plivo-Signature-V3", "X-Plivo-Signature-Ma-V3", "X-Plivo-Signature-V2"] {
            assert_eq!(header(&headers, name).split(',').count(), 2, "{name}");
        }
        let signed = header(&headers, "X-Plivo-Signature-V3");
        assert_eq!(
            signed.split(',').nth(1).unwrap(),
            text(&base["headers"], "X-Plivo-Signature-V3")
        );
        assert!(accepts(base, &signed));
    }

    #[test]
    fn the_fragment_is_not_signed_and_debug_hides_the_keys() {
        let with = v3_text(Method::Post, "https://a.example/x?q=1#rc=2?y", &[("A", "1")], "7");
        assert_eq!(with, "https://a.example/x?q=1.A1.7");
        assert_eq!(v2_text("https://a.example/x#rc=2", "7"), "https://a.example/x7");
        let keys = SigningKeys::of_main(&tokens(&["canary"]));
        assert!(!format!("{keys:?}").contains("canary"));
    }
}
