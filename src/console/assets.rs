//! Scripts, styles and images of the console, embedded in the binary. `build.rs` compresses them.
//!
//! Their URL has a digest of their content, so browsers cache them without revalidation. The
//! modules import each other by relative paths and so share the digest.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

struct Asset {
    name: &'static str,
    content: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Serves a file. A page of another version of Offhook uses another digest. It gets the current
/// file, which the browser must not cache under that URL.
pub(super) async fn serve(
    Path((digest, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(found) = ASSETS.iter().find(|asset| asset.name == file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = match file.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let cache = if digest == DIGEST { "public, max-age=31536000, immutable" } else { "no-cache" };
    let head = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::VARY, "accept-encoding"),
    ];
    if accepts_gzip(headers.get(header::ACCEPT_ENCODING)) {
        return (head, [(header::CONTENT_ENCODING, "gzip")], found.gzip).into_response();
    }
    (head, found.content).into_response()
}

/// Whether `Accept-Encoding` allows gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(accepted: Option<&HeaderValue>) -> bool {
    let accepted = accepted.and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for (accepted, used) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(
                accepts_gzip(HeaderValue::from_str(accepted).ok().as_ref()),
                used,
                "{accepted}"
            );
        }
        assert!(!accepts_gzip(None));
    }
}
