//! `[recordings]`: where recordings are copied to, beside the disk.

use super::read::base_url;
use super::reader::{Complaint, Section, flag, text};
use super::tree::Node;
use super::types::Recordings;
use crate::objects::S3Settings;

pub(super) fn recordings(mut s: Section<'_>) -> Recordings {
    let s3 = s.has("s3").then(|| s3(s.section("s3"))).flatten();
    s.finish();
    Recordings { s3 }
}

fn s3(mut s: Section<'_>) -> Option<S3Settings> {
    let endpoint = s.need(
        "endpoint",
        "the storage's address, like \"https://s3.eu-central-1.amazonaws.com\"",
        base_url,
    );
    let bucket = s.need("bucket", "the name of a bucket that is there", bucket);
    let access_key_id = s.need("access_key_id", "the key's public half", text);
    let secret_access_key = s.need_secret("secret_access_key", "the key's secret half");
    let region = s.text("region").unwrap_or_else(|| "us-east-1".to_owned());
    let prefix = s.get("prefix", prefix).unwrap_or_default();
    let path_style = s.get("path_style", flag).unwrap_or(true);
    let keep_local = s.get("keep_local", flag).unwrap_or(true);
    let redirect = s.get("redirect", flag).unwrap_or(false);
    s.finish();
    Some(S3Settings {
        endpoint: endpoint?.0,
        region,
        bucket: bucket?.0,
        prefix,
        access_key_id: access_key_id?.0,
        secret_access_key: secret_access_key?,
        path_style,
        keep_local,
        redirect,
    })
}

fn bucket(node: &Node) -> Result<String, Complaint> {
    let name = text(node)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if (3..=63).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name);
    }
    Err(Complaint::new("is not a bucket's name", "3 to 63 letters, digits, dots and dashes"))
}

/// Names that any storage takes and no URL changes.
fn prefix(node: &Node) -> Result<String, Complaint> {
    let prefix = text(node)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    let plain = prefix.len() <= 200 && prefix.bytes().all(fits) && !prefix.starts_with('/');
    if plain && !prefix.split('/').any(|part| part == "." || part == "..") && !prefix.contains("//")
    {
        return Ok(prefix);
    }
    Err(Complaint::new(
        "is no beginning of objects' names",
        "letters, digits, -, _, . and /, like \"offhook/\"",
    ))
}
