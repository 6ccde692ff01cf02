//! `POST /{phone_number_id}/media`: a file of the business, which its messages name from then on. What is wrong with it is
//! said as Meta says it; only the types and bounds that the Cloud API documents are taken.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method, header};
use memchr::memmem;
use serde_json::{Value, json};

use super::graph::{self, GraphFault};
use super::messages;
use crate::World;

/// Largest request: a document, and the form around it.
pub(super) const BODY_BYTES_MAX: usize = (100 << 20) + (16 << 10);

/// Beginnings of media types, and the most bytes of each.
const BOUNDS: &[(&str, usize)] = &[
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
    let taken = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("media"))
        .and_then(|()| take(&world, &number, &headers, &body));
    messages::answer(&world, &Method::POST, &number, "media", taken)
}

fn take(
    world: &World,
    number: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, GraphFault> {
    messages::known(world, number)?;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|of| of.to_str().ok()).unwrap_or_default();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=");
    let boundary =
        boundary.ok_or_else(|| GraphFault::parameter("The request is no multipart/form-data"))?;
    let parts =
        parts(body, boundary).ok_or_else(|| GraphFault::parameter("The form can't be read"))?;
    let text = |name: &str| {
        let part = parts.iter().find(|part| part.name == name);
        part.and_then(|part| std::str::from_utf8(&part.bytes).ok()).unwrap_or_default()
    };
    if text("messaging_product") != "whatsapp" {
        return Err(GraphFault::parameter("messaging_product must be whatsapp"));
    }
    let file = parts.iter().find(|part| part.name == "file" && part.filename);
    let file = file.ok_or_else(|| GraphFault::parameter("file is missing"))?;
    let bound = BOUNDS.iter().find(|(begins, _)| file.content_type.starts_with(begins));
    let (_, most) = bound.ok_or_else(|| {
        GraphFault::parameter(format!(
            "Param file must be a file with one of the supported types, not {}",
            file.content_type
        ))
    })?;
    if file.bytes.is_empty() || file.bytes.len() > *most {
        return Err(GraphFault {
            status: 400,
            code: 131_053,
            subcode: None,
            details: "Media upload error: size".into(),
        });
    }
    Ok(
        json!({"id": world.chat.keep(world.dice.number(), file.content_type.clone(), file.bytes.clone())}),
    )
}

struct Part {
    name: String,
    filename: bool,
    content_type: String,
    bytes: Bytes,
}

/// The parts of a form.
fn parts(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let begins = format!("--{boundary}\r\n");
    let ends = format!("\r\n--{boundary}");
    let mut at = body.starts_with(begins.as_bytes()).then_some(begins.len())?;
    let mut parts = Vec::new();
    loop {
        let head = memmem::find(body.get(at..)?, b"\r\n\r\n")?;
        let lines = std::str::from_utf8(body.get(at..at + head)?).ok()?;
        let content = at + head + 4;
        let length = memmem::find(body.get(content..)?, ends.as_bytes())?;
        let field = |name: &str| {
            let of = |line: &str| {
                line.split_once(':')
                    .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.trim().to_owned())
            };
            lines.split("\r\n").find_map(of).unwrap_or_default()
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
    fn a_form_is_read_in_its_parts() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nimage/png\r\n--b\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"a.png\"\r\ncontent-type: image/png\r\n\r\nx\r\ny\r\n--b--\r\n";
        let read = parts(&Bytes::from(form), "b").expect("it reads");
        let told: Vec<_> =
            read.iter().map(|p| (&*p.name, p.filename, &*p.content_type, &*p.bytes)).collect();
        assert_eq!(
            told,
            [("type", false, "", &b"image/png"[..]), ("file", true, "image/png", &b"x\r\ny"[..])]
        );
        for broken in ["", "--b\r\n", "--b\r\n\r\n\r\nx", "--c\r\n\r\n\r\nx\r\n--c--"] {
            assert!(parts(&Bytes::from(broken), "b").is_none(), "{broken}");
        }
    }
}
