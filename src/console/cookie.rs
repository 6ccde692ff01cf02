//! The cookies of the console.

use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::Console;
use crate::api::session::{COOKIE, COOKIE_SECURE};
use engine::people::Token;
use engine::people::cookie as cookies;

pub(super) fn session_name(console: &Console) -> &'static str {
    if console.is_secure() { COOKIE_SECURE } else { COOKIE }
}

pub(super) fn session_cookie(console: &Console, token: &Token) -> String {
    cookie(console, session_name(console), token.reveal(), None)
}

/// Lifetime of the cookie in seconds: a year.
const BROWSER_SECS: u32 = 365 * 86_400;

/// The cookie by which the next sign-in recognises the browser.
pub(super) fn browser_cookie(console: &Console, value: &str) -> String {
    let name = if console.is_secure() { cookies::BROWSER_SECURE } else { cookies::BROWSER };
    cookie(console, name, value, Some(BROWSER_SECS))
}

/// A cookie. Without an age, the browser drops it when it closes; the server limits the session
/// anyway.
pub(super) fn cookie(console: &Console, name: &str, value: &str, age: Option<u32>) -> String {
    let secure = if console.is_secure() { "; Secure" } else { "" };
    let age = age.map_or_else(String::new, |age| format!("; Max-Age={age}"));
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}")
}

pub(super) fn with_cookie(mut answer: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
    answer
}
