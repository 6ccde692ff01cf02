//! `POST /{phone_number_id}/media` of the Graph API: uploads a file that messages can refer to.
//! Accepts the types and sizes that the Cloud API documents.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method, header};
use memchr::memmem;
use serde_json::{Value, json};

use super::error::GraphError;
use super::graph;
use super::messages;
use crate::World;

/// Maximum size of a request: a document and the multipart form around it.
pub(super) const BODY_BYTES_MAX: usize = (100 << 20) + (16 << 10);

/// Prefixes of accepted media types, with the maximum size of each in bytes.
const SIZE_LIMITS: &[(&str, usize)] = &[
    ("image/jpeg", 5 << 20),
    ("image/png", 5 << 20),
    ("image/webp", 500 << 10),
    ("audio/", 16 << 20),
    ("video/mp4", 16 << 20),
    ("video/3gpp", 16 << 20),
    ("text/plain", 100 << 20),
    ("application/", 100 << 20),
];

pub(super) async fn post(
    State(world): State<Arc<World>>,
    Path(number): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("media"))
        .and_then(|()| store_upload(&world, &number, &headers, &body));
    messages::respond(&world, &Method::POST, &number, "media", outcome)
}

fn store_upload(
    world: &World,
    number: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, GraphError> {
    messages::require_number(world, number)?;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=");
    let boundary =
        boundary.ok_or_else(|| GraphError::parameter("The request must be multipart/form-data"))?;
    let parts = parse_multipart(body, boundary)
        .ok_or_else(|| GraphError::parameter("The multipart form is malformed"))?;
    let text = |name: &str| {
        let part = parts.iter().find(|part| part.name == name);
        part.and_then(|part| std::str::from_utf8(&part.bytes).ok()).unwrap_or_default()
    };
    if text("messaging_product") != "whatsapp" {
        return Err(GraphError::parameter("messaging_product must be whatsapp"));
    }
    let file = parts.iter().find(|part| part.name == "file" && part.filename);
    let file = file.ok_or_else(|| GraphError::parameter("file is missing"))?;
    let bound = SIZE_LIMITS.iter().find(|(prefix, _)| file.content_type.starts_with(prefix));
    let (_, max) = bound.ok_or_else(|| {
        GraphError::parameter(format!(
            "Param file must be a file with one of the supported types, not {}",
            file.content_type
        ))
    })?;
    if file.bytes.is_empty() || file.bytes.len() > *max {
        return Err(GraphError {
            status: 400,
            code: 131_053,
            subcode: None,
            details: "Media upload error: size".into(),
        });
    }
    let (mime, bytes) = (file.content_type.clone(), file.bytes.clone());
    Ok(json!({"id": world.chat.store_file(world.rng.next_u64(), number, mime, bytes)}))
}

struct Part {
    name: String,
    filename: bool,
    content_type: String,
    bytes: Bytes,
}

/// Parses a multipart form. `None` if it is malformed.
fn parse_multipart(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let first = format!("--{boundary}\r\n");
    let ends = format!("\r\n--{boundary}");
    let mut at = body.starts_with(first.as_bytes()).then_some(first.len())?;
    let mut parts = Vec::new();
    loop {
        let head = memmem::find(body.get(at..)?, b"\r\n\r\n")?;
        let lines = std::str::from_utf8(body.get(at..at + head)?).ok()?;
        let content = at + head + 4;
        let length = memmem::find(body.get(content..)?, ends.as_bytes())?;
        let field = |name: &str| {
            let value = |line: &str| {
                line.split_once(':')
                    .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.trim().to_owned())
            };
            lines.split("\r\n").find_map(value).unwrap_or_default()
        };
        let disposition = field("content-disposition");
        let name = disposition.split("; name=\"").nth(1)?.split('"').next()?.to_owned();
        parts.push(Part {
            name,
            filename: disposition.contains("; filename=\""),
            content_type: field("content-type"),
            bytes: body.slice(content..content + length),
        });
        at = content + length + ends.len();
        match body.get(at..at + 2)? {
            b"--" => return Some(parts),
            b"\r\n" => at += 2,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_multipart_form() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nimage/png\r\n--b\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"a.png\"\r\ncontent-type: image/png\r\n\r\nx\r\ny\r\n--b--\r\n";
        let read = parse_multipart(&Bytes::from(form), "b").expect("it reads");
        let parsed: Vec<_> =
            read.iter().map(|p| (&*p.name, p.filename, &*p.content_type, &*p.bytes)).collect();
        assert_eq!(
            parsed,
            [("type", false, "", &b"image/png"[..]), ("file", true, "image/png", &b"x\r\ny"[..])]
        );
        for broken in ["", "--b\r\n", "--b\r\n\r\n\r\nx", "--c\r\n\r\n\r\nx\r\n--c--"] {
            assert!(parse_multipart(&Bytes::from(broken), "b").is_none(), "{broken}");
        }
    }
}
