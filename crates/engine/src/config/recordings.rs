//! `[recordings]`: links, disk space, and the bucket that recordings are copied to.

use std::time::Duration;

use super::forms::{Form, Invalid, base_url, flag, integer, text, text_if};
use super::section::Section;
use super::types::Recordings;
use crate::objects::S3Settings;

pub(super) fn read(mut s: Section<'_>) -> Recordings {
    let doc = "A bucket of S3-compatible storage that complete recordings are copied to. Without \
               it, they stay in `store.data_dir`.";
    let s3 = s.optional_section("s3", doc).and_then(|s3| bucket(s3.restart_as("recordings")));
    let link_days = s
        .key(
            "link_days",
            integer(0..=3_650),
            "How long download links (`RecordUrl`) are valid, in days. 0: forever.",
        )
        .restart()
        .or(0_u64);
    let reserve = s
        .key(
            "reserve_mib",
            integer(0..=1_073_741_824),
            "Disk space that recordings, users' files and cached prompts leave free for the store, in \
             MiB. While less is free, no recording begins, running ones end, and users' files \
             are not kept.",
        )
        .restart()
        .absent("256, or 5 % of a smaller file system but at least 16")
        .get()
        .map(|mib: u64| mib << 20);
    s.finish();
    let link_lifetime = (link_days > 0).then(|| Duration::from_secs(link_days * 86_400));
    Recordings { s3, link_lifetime, reserve }
}

fn bucket(mut s: Section<'_>) -> Option<S3Settings> {
    let endpoint = s
        .key("endpoint", base_url(), "The address of the storage.")
        .required("the storage's address, like \"https://s3.eu-central-1.amazonaws.com\"");
    let bucket = s
        .key("bucket", bucket_name(), "The bucket. It must exist.")
        .required("the name of a bucket that exists");
    let access_key_id = s
        .key("access_key_id", text(), "The public half of the access key.")
        .required("the public half of the access key");
    let secret_access_key = s
        .secret(
            "secret_access_key",
            "The secret half of the access key. It needs `s3:PutObject`, `s3:GetObject` and \
             `s3:DeleteObject`.",
        )
        .required("the secret half of the access key");
    let region = s
        .key("region", text(), "The region of the bucket.")
        .default(&"us-east-1".to_owned())
        .non_empty()
        .unwrap_or_else(|| "us-east-1".to_owned());
    let prefix = s
        .key("prefix", prefix(), "Prepended to the name of each object, like `offhook/`.")
        .or(String::new());
    let path_style = s
        .key(
            "path_style",
            flag(),
            "Whether the bucket's name goes into the path of URLs. Otherwise it is part of the \
             host name.",
        )
        .or(true);
    let keep_local = s
        .key("keep_local", flag(), "Whether the local file is kept when its copy is complete.")
        .or(true);
    let redirect = s
        .key(
            "redirect",
            flag(),
            "Whether downloads are redirected to the bucket. Otherwise the node passes the object \
             on.",
        )
        .or(false);
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

fn bucket_name() -> Form<'static, String> {
    let fits = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (3..=63).contains(&name.len()) && name.bytes().all(plain)
    };
    text_if("string", fits, |_| {
        Invalid::new(
            "is not a bucket name",
            "3 to 63 letters, digits, dots, dashes and underscores",
        )
    })
}

/// A prefix. Only names are accepted that every storage accepts and that URLs do not change.
fn prefix() -> Form<'static, String> {
    let fits = |prefix: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
        prefix.len() <= 200
            && prefix.bytes().all(plain)
            && !prefix.starts_with('/')
            && !prefix.contains("//")
            && !prefix.split('/').any(|part| part == "." || part == "..")
    };
    text_if("string", fits, |_| {
        Invalid::new(
            "is not a prefix of object names",
            "letters, digits, -, _, . and /, like \"offhook/\"",
        )
    })
}
