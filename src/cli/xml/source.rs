//! Sources of documents: a file, standard input or a URL.
//!
//! URLs are requested by the same rules as in a node. Plain http and private addresses are allowed
//! unless an option forbids them: the user of the command chose the URL.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::super::runtime;
use egress::{self, BodyPolicy, Egress, EgressConfig, EgressError, EgressRequest, Guard};
use engine::answer::charset;
use xml::{self, MAX_BODY, ParseOutcome};

/// The parameters of a new call, which are sent to a URL.
const CALL: &str = "CallUUID=9834029e-58b6-41e1-b8b7-a5bd0e4e126f&From=919812345678&To=918035737458\
    &Direction=inbound&CallStatus=ringing&Event=StartApp";
/// The argument that means standard input.
pub(super) const STDIN: &str = "-";

/// Reads and parses a source. The error contains the remedy.
pub(super) fn read(source: &str, allow_insecure: bool) -> Result<ParseOutcome, String> {
    if !is_url(source) {
        return bytes(source).map(|body| xml::parse(&body, None));
    }
    runtime()?.block_on(fetch(source, allow_insecure)).map_err(|why| {
        format!(
            "could not fetch {source}: {why}; it must answer 200 to a POST; or save the document and name the file \
             (`offhook xml run` sends the request of a call)"
        )
    })
}

/// Returns the contents of a file or of standard input. They are cut one byte after the maximum
/// size of a document.
pub(super) fn bytes(source: &str) -> Result<Vec<u8>, String> {
    if source == STDIN {
        return bounded(std::io::stdin().lock()).map_err(|e| {
            format!("could not read standard input: {e}; pipe a document into it, or name a file")
        });
    }
    std::fs::File::open(Path::new(source)).and_then(bounded).map_err(|e| {
        format!(
            "could not read {source}: {e}; name a file, an http(s) URL, or - for standard input"
        )
    })
}

pub(super) fn is_url(source: &str) -> bool {
    source.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
    })
}

/// Reads up to one byte more than a document may have, which is enough to reject it.
fn bounded(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(MAX_BODY as u64 + 1).read_to_end(&mut body)?;
    Ok(body)
}

/// HTTP client for customers' URLs.
pub(super) fn egress(allow_insecure: bool) -> Result<Egress, String> {
    let config = EgressConfig::new(Guard::new(allow_insecure, Vec::new()));
    Egress::new(config).map_err(|e| format!("could not set up TLS: {e}"))
}

async fn fetch(url: &str, allow_insecure: bool) -> Result<ParseOutcome, String> {
    let egress = egress(allow_insecure)?;
    let mut url = egress.url(url).map_err(|refusal| refusal.to_string())?;
    let mut method = Method::POST;
    for _ in 0..=egress::REDIRECTS_MAX {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/xml, text/xml, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(egress::USER_AGENT));
        let is_post = method == Method::POST;
        if is_post {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        let request = EgressRequest {
            method: method.clone(),
            url: &url,
            headers,
            body: Bytes::from_static(if is_post { CALL.as_bytes() } else { b"" }),
            // The same timeouts as in a call.
            connect: Duration::from_secs(2),
            read: Duration::from_secs(10),
            body_policy: BodyPolicy::OnSuccess { max: MAX_BODY },
        };
        let answer = match egress.request(request).await {
            Ok(answer) => answer,
            Err(EgressError::TooLarge { .. }) => return Ok(ParseOutcome::too_large(MAX_BODY)),
            Err(e) => return Err(e.to_string()),
        };
        if let Some(next) = answer.redirect(&url, egress.guard()) {
            url = next.map_err(|refusal| refusal.to_string())?;
            continue;
        }
        // Servers of files only know GET.
        let is_unknown =
            matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        if is_post && is_unknown {
            method = Method::GET;
            continue;
        }
        if !answer.status.is_success() {
            let hint = match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    ". An application that checks signatures refuses unsigned requests: `offhook xml \
                     run URL` signs them as a call does"
                }
                _ => "",
            };
            return Err(format!("the answer was {}{hint}", answer.status));
        }
        let content_type = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        return Ok(xml::parse(&answer.body, content_type.and_then(charset)));
    }
    Err(format!("{}", EgressError::Redirects))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/plivo-xml/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn reads_files_or_says_why_not() {
        assert!(read(&fixture("ok-01-greeting.xml"), true).unwrap().is_ok());
        assert_eq!(read(&fixture("bad-44-too-large.xml"), true).unwrap().findings[0].rule, "E101");
        for source in [fixture("no such file"), fixture(""), "ftp://x.example.com/".to_owned()] {
            let why = read(&source, true).unwrap_err();
            assert!(why.starts_with("could not read ") && why.contains("; name a file"), "{why}");
        }
    }

    /// A server that sends these responses, one per connection.
    fn serve(answers: Vec<String>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/answer", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                while !received.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
                    received.push(byte[0]);
                }
                // The reader may close the connection early.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        url
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
    }

    #[test]
    fn fetches_urls() {
        let clean = "<Response><Speak>caf\u{e9}</Speak></Response>";
        let url = serve(vec![
            answer("302 Found", "Location: /other\r\n", ""),
            answer("200 OK", "Content-Type: text/html\r\n", clean),
            answer("200 OK", "Content-Type: text/xml; charset=ISO-8859-1\r\n", clean),
            answer("200 OK", "", &" ".repeat(MAX_BODY + 1)),
            answer("404 Not Found", "", "<Response/>"),
        ]);
        assert!(read(&url, true).unwrap().findings.is_empty(), "through a redirect");
        assert_eq!(read(&url, true).unwrap().findings[0].rule, "E102", "the charset counts");
        assert_eq!(read(&url, true).unwrap().findings[0].rule, "E101");
        let why = read(&url, true).unwrap_err();
        assert!(why.contains("the answer was 404") && why.contains("name the file"), "{why}");
    }

    #[test]
    fn a_closed_guard_applies_the_rules_of_a_node() {
        for (url, part) in [
            ("http://127.0.0.1:9/answer", "https is required"),
            ("https://127.0.0.1:9443/answer", "not a public address"),
            ("https://user@app.example.com/", "user name or password"),
        ] {
            let why = read(url, false).unwrap_err();
            assert!(why.contains(part) && why.contains("name the file"), "{why}");
        }
    }

    #[tokio::test]
    async fn asks_a_url_as_a_call_does() {
        use axum::Router;
        use axum::routing::{get, post};

        let document = "<Response><Hangup/></Response>";
        let answer = move |form: String| async move {
            assert!(form.contains("From=919812345678") && form.contains("Event=StartApp"));
            document
        };
        let routes = Router::new()
            .route("/post", post(answer))
            .route("/get", get(move || async move { document }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        for path in ["post", "get"] {
            assert!(fetch(&format!("{base}/{path}"), true).await.unwrap().is_ok(), "{path}");
        }
    }
}
