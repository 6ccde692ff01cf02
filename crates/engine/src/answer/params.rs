//! Encodes parameters as a form: in the body of a POST, or appended to the query of a GET.

use std::borrow::Cow;

use url::form_urlencoded::{self, Serializer};

use egress::URL_BYTES_MAX;
use machine::Params;

/// The parameters in byte order, decoded.
pub(super) fn pairs(params: &Params) -> Vec<(&str, &str)> {
    params.iter().map(|(name, value)| (name, value.reveal())).collect()
}

/// Serializes a form (WHATWG URL, with `+` for a space).
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The URL of a GET: its own query unchanged, followed by the parameters.
pub(super) struct GetUrl<'a> {
    pub(super) text: String,
    /// The parameters that the URL contains.
    pub(super) pairs: Vec<(&'a str, &'a str)>,
    /// Whether values were cut, which `X-Offhook-Truncated` reports.
    pub(super) truncated: bool,
}

/// Appends `pairs` to `url`, which has no fragment. If the result exceeds 8,192 bytes, the longest
/// values are cut at character boundaries, all to the same encoded length.
pub(super) fn get_url<'a>(url: &str, pairs: &[(&'a str, &'a str)]) -> GetUrl<'a> {
    let join = match url.split_once('?') {
        _ if pairs.is_empty() => "",
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    let whole = |pairs: &[(&str, &str)]| format!("{url}{join}{}", form(pairs));
    let text = whole(pairs);
    if text.len() <= URL_BYTES_MAX {
        return GetUrl { text, pairs: pairs.to_vec(), truncated: false };
    }
    let longest = pairs.iter().map(|(_, v)| encoded_len(v)).max().unwrap_or(0);
    let values: usize = pairs.iter().map(|(_, v)| encoded_len(v)).sum();
    let room = URL_BYTES_MAX.saturating_sub(text.len() - values);
    let cut_to = |cap: usize| pairs.iter().map(|(n, v)| (*n, cut(v, cap))).collect::<Vec<_>>();
    let fits = |cap: usize| cut_to(cap).iter().map(|(_, v)| encoded_len(v)).sum::<usize>() <= room;
    // The largest cap that fits, or 0.
    let (mut low, mut high) = (0, longest);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    let pairs = cut_to(low);
    GetUrl { text: whole(&pairs), pairs, truncated: true }
}

/// The pairs that a redirect's query does not contain already.
pub(super) fn missing<'a>(
    query: Option<&str>,
    pairs: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let there: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    pairs
        .iter()
        .filter(|(n, v)| !there.iter().any(|(tn, tv)| tn == n && tv == v))
        .copied()
        .collect()
}

fn encoded_len(value: &str) -> usize {
    value.bytes().map(encoded_byte_len).sum()
}

/// The form serializer of WHATWG URL leaves these bytes unescaped and writes a space as `+`.
fn encoded_byte_len(byte: u8) -> usize {
    match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' | b' ' => 1,
        _ => 3,
    }
}

/// The longest prefix of whole characters with an encoded form of at most `cap` bytes.
fn cut(value: &str, cap: usize) -> &str {
    let mut len = 0;
    let end = value.char_indices().find_map(|(at, c)| {
        len += encoded_len(c.encode_utf8(&mut [0; 4]));
        (len > cap).then_some(at)
    });
    end.and_then(|end| value.get(..end)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::form_urlencoded;

    use super::{cut, encoded_len, form, get_url, missing};
    use egress::URL_BYTES_MAX;

    #[test]
    fn encodes_the_body_of_the_signature_vector() {
        let all: serde_json::Value =
            serde_json::from_str(include_str!("../../../../fixtures/signature-vectors.json"))
                .unwrap();
        let vector = all["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["id"] == "v3-post-query-unsorted-encoded")
            .unwrap();
        let params = vector["params"].as_object().unwrap();
        let order = ["Digits", "CallUUID", "Speech"];
        let pairs: Vec<_> = order.iter().map(|n| (*n, params[*n].as_str().unwrap())).collect();
        assert_eq!(form(&pairs), vector["body"].as_str().unwrap());
    }

    #[test]
    fn a_get_keeps_its_own_query_first() {
        let pairs = [("Digits", "42#"), ("Speech", "")];
        for (url, want) in [
            ("https://a.example", "https://a.example?Digits=42%23&Speech="),
            ("https://a.example/x?", "https://a.example/x?Digits=42%23&Speech="),
            ("https://a.example/x?z=1&a=%7E", "https://a.example/x?z=1&a=%7E&Digits=42%23&Speech="),
            ("https://a.example/x?z=1&", "https://a.example/x?z=1&Digits=42%23&Speech="),
        ] {
            let made = get_url(url, &pairs);
            assert_eq!((made.text.as_str(), made.truncated), (want, false));
        }
        assert_eq!(get_url("https://a.example/x", &[]).text, "https://a.example/x");
    }

    #[test]
    fn a_long_url_cuts_its_longest_values_only() {
        let (long, longer) = ("é".repeat(1_000), "x".repeat(9_000));
        let pairs =
            [("CallUUID", "3f0c2f1a"), ("Speech", long.as_str()), ("Stable", longer.as_str())];
        let made = get_url("https://a.example/x?q=1", &pairs);
        assert!(made.truncated);
        assert!(
            (URL_BYTES_MAX - 12..=URL_BYTES_MAX).contains(&made.text.len()),
            "{}",
            made.text.len()
        );
        assert_eq!(made.pairs[0], ("CallUUID", "3f0c2f1a"));
        assert!(made.pairs[1].1.len() < 2_000 && made.pairs[2].1.len() < 9_000);
        let sent = made.text.split_once('?').unwrap().1;
        let read: Vec<(String, String)> =
            form_urlencoded::parse(sent.as_bytes()).into_owned().skip(1).collect();
        let signed: Vec<(String, String)> =
            made.pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(read, signed);
    }

    #[test]
    fn parameters_kept_by_a_redirect_are_not_sent_twice() {
        let pairs = [("From", "91"), ("To", "a b")];
        assert_eq!(missing(Some("x=1&From=91&To=a+b"), &pairs), []);
        assert_eq!(missing(Some("From=92"), &pairs), pairs);
        assert_eq!(missing(None, &pairs), pairs);
    }

    proptest! {
        #[test]
        fn encoded_lengths_match_the_serializer(value in "\\PC{0,40}", cap in 0usize..60) {
            prop_assert_eq!(form(&[("", &value)]).len(), 1 + encoded_len(&value));
            let short = cut(&value, cap);
            prop_assert!(value.starts_with(short) && encoded_len(short) <= cap);
        }
    }
}
