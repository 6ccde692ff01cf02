//! Tests against published signatures. `tests/outside/copies.rs` covers whole transfers.

use std::time::Duration;

use super::*;
use model::Secret;
use model::Timestamp;

fn config(path_style: bool) -> S3Settings {
    S3Settings {
        endpoint: "https://s3.amazonaws.com".parse().unwrap(),
        region: "us-east-1".to_owned(),
        bucket: "examplebucket".to_owned(),
        prefix: String::new(),
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        path_style,
        keep_local: true,
        redirect: false,
    }
}

#[test]
fn signs_the_example_of_amazons_documentation() {
    // From "Authenticating Requests: Using Query Parameters" in the Amazon S3 documentation, 24 May
    // 2013.
    let clock = Clock::stepped(Timestamp::from_secs(1_369_353_600));
    let bucket = Bucket::new(&config(false), clock.clone()).unwrap();
    let link = bucket.link("test.txt", Duration::from_secs(86_400)).unwrap();
    assert_eq!(link.host_str(), Some("examplebucket.s3.amazonaws.com"));
    let signature =
        link.query_pairs().find(|(name, _)| name == "X-Amz-Signature").unwrap().1.into_owned();
    assert_eq!(signature, "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");

    let link = Bucket::new(&config(true), clock)
        .unwrap()
        .link("a/b.wav", Duration::from_secs(60))
        .unwrap();
    assert_eq!(
        (link.host_str(), link.path()),
        (Some("s3.amazonaws.com"), "/examplebucket/a/b.wav")
    );
}

#[test]
fn parses_only_the_code_of_an_error() {
    let code = |text: &str| parse_error_code(text.as_bytes()).to_string();
    assert_eq!(
        code("<?xml?><Error><Code>NoSuchBucket</Code><Message>m</Message>"),
        " (NoSuchBucket)"
    );
    for none in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>open", "<Code>\u{1b}[31m</Code>"] {
        assert_eq!(code(none), "", "{none}");
    }
    assert_eq!(code(&format!("<Code>{}</Code>", "a".repeat(65))), "");
}

#[tokio::test]
async fn reports_an_unreachable_bucket() {
    let mut config = config(true);
    config.endpoint = "http://127.0.0.1:1".parse().unwrap();
    let bucket = Bucket::new(&config, Clock::real()).unwrap();
    let error = bucket.remove("x").await.unwrap_err();
    assert!(matches!(error, BucketError::Unreachable(_)), "{error}");
}
