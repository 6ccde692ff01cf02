//! Helpers for the tests of the whole binary.
#![allow(dead_code, reason = "each test takes what it needs")]

pub mod acme;
pub mod agent;
pub mod app;
pub mod bot;
pub mod browser;
pub mod bucket;
pub mod cable;
pub mod chat;
pub mod database;
pub mod http;
pub mod meta;
pub mod node;
pub mod phone;
pub mod provider;
pub mod sdk;
pub mod tls;

/// Returns the `X-Hub-Signature-256` of a body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, body).as_ref()))
}

/// Returns true if exact performance figures are asserted, on an otherwise idle machine.
pub fn figures() -> bool {
    std::env::var_os("OFFHOOK_TEST_FIGURES").is_some()
}

/// Returns `found`. If an optional peer is missing, prints why the test is skipped, or panics if
/// `OFFHOOK_TEST_REQUIRE` names it.
pub fn has_peer(name: &str, found: bool, how: &str) -> bool {
    if !found {
        let required = std::env::var("OFFHOOK_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split_whitespace().any(|r| r == name),
            "{name} is required here but was not found: {how}"
        );
        #[allow(clippy::print_stderr, reason = "a skip is told")]
        {
            eprintln!("skipped: {name} is not installed ({how})");
        }
    }
    found
}

/// Returns a Python interpreter that has a module, if one is installed.
pub fn python_with(module: &str) -> Option<String> {
    let candidates = [std::env::var("OFFHOOK_TEST_PYTHON").ok(), Some("python3".to_owned())];
    candidates.into_iter().flatten().find(|python| {
        std::process::Command::new(python)
            .args(["-c", &format!("import {module}")])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    })
}
