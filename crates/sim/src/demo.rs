//! A demo application: a spoken menu behind an answer URL, to try Offhook with and to copy from.
//!
//! Offhook requests `/answer` when a call comes in and executes the XML of the response. Each key
//! leads to `/menu`. `/load` is the answer URL of `offhook load`. Requests without a valid
//! `X-Plivo-Signature-V3` are refused. The application uses nothing of Offhook but its public
//! interfaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawForm, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use http::{HeaderMap, StatusCode, Uri, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A running demo application. Dropping it stops it.
#[derive(Debug)]
pub struct Demo {
    url: String,
    stop: CancellationToken,
}

/// State of the application. `url` is its base URL, which signatures cover.
struct App {
    url: String,
    auth_token: String,
}

type Rejection = (StatusCode, &'static str);
/// Form parameters by name.
type Params = BTreeMap<String, Vec<String>>;

/// Starts the application. Requests must be signed with `auth_token`, the token of the account that
/// uses the application.
///
/// # Errors
///
/// Fails if the address cannot be bound.
pub async fn start(listen: SocketAddr, auth_token: &str) -> std::io::Result<Demo> {
    let listener = TcpListener::bind(listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Arc::new(App { url: url.clone(), auth_token: auth_token.to_owned() });
    let routes = Router::new()
        .route("/answer", post(answer))
        .route("/load", post(load))
        .route("/menu", post(menu))
        .route("/code", post(code))
        .route("/chime.wav", get(|| async { ([(header::CONTENT_TYPE, "audio/wav")], chime()) }))
        .with_state(app);
    let stop = CancellationToken::new();
    let served =
        axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::spawn(async move { served.await });
    Ok(Demo { url, stop })
}

impl Demo {
    /// Answer URL for a number.
    pub fn answer_url(&self) -> String {
        format!("{}/answer", self.url)
    }

    /// Answer URL for loads: speaks until the caller hangs up and requests nothing else.
    pub fn load_url(&self) -> String {
        format!("{}/load", self.url)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    RawForm(body): RawForm,
) -> Response {
    match app.verify(&uri, &headers, &body) {
        Ok(_) => xml(&app.menu_document("Welcome to Offhook. ")),
        Err(rejection) => rejection.into_response(),
    }
}

async fn load(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    RawForm(body): RawForm,
) -> Response {
    match app.verify(&uri, &headers, &body) {
        Ok(_) => xml(
            "<Speak loop=\"0\">This call is one of many. It goes on until the caller hangs up.</Speak>",
        ),
        Err(rejection) => rejection.into_response(),
    }
}

async fn menu(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    RawForm(body): RawForm,
) -> Response {
    let params = match app.verify(&uri, &headers, &body) {
        Ok(params) => params,
        Err(rejection) => return rejection.into_response(),
    };
    let url = &app.url;
    xml(&match first_value(&params, "Digits") {
        "1" => app.menu_document(
            "We are open from nine in the morning to six in the evening, Monday to Friday. ",
        ),
        "2" => format!("<Play>{url}/chime.wav</Play>{}", app.menu_document("That was a file. ")),
        "3" => format!(
            "<GetDigits action=\"{url}/code\" method=\"POST\" numDigits=\"4\" timeout=\"10\">\
             <Speak>Please enter a code of four digits.</Speak></GetDigits>{}",
            app.menu_document("No code was entered. ")
        ),
        "9" => {
            format!("<Speak>Once more.</Speak><Redirect method=\"POST\">{url}/answer</Redirect>")
        }
        "0" => "<Speak>Thank you for calling. Goodbye.</Speak><Hangup/>".to_owned(),
        _ => app.menu_document("That is not one of the choices. "),
    })
}

async fn code(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    RawForm(body): RawForm,
) -> Response {
    match app.verify(&uri, &headers, &body) {
        Ok(params) => {
            // Parameters are untrusted input: only digits are copied into the document.
            let digits: String =
                first_value(&params, "Digits").chars().filter(char::is_ascii_digit).collect();
            let read_back = format!(
                "<Speak voice=\"Polly.Joanna\">You entered <say-as interpret-as=\"digits\">{digits}</say-as>.</Speak>"
            );
            xml(&format!("{read_back}{}", app.menu_document("")))
        }
        Err(rejection) => rejection.into_response(),
    }
}

impl App {
    /// The menu, preceded by the sentence `first`.
    fn menu_document(&self, first: &str) -> String {
        format!(
            "<GetInput action=\"{}/menu\" method=\"POST\" inputType=\"dtmf\" numDigits=\"1\" executionTimeout=\"10\">\
             <Speak>{first}For our opening hours press 1. To hear a sound press 2. To enter a code press 3. \
             To hear this again press 9. To end the call press 0.</Speak></GetInput>\
             <Speak>We did not hear a key. Goodbye.</Speak><Hangup/>",
            self.url
        )
    }

    /// Returns the form parameters if the request has a valid `X-Plivo-Signature-V3`.
    fn verify(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Params, Rejection> {
        let header =
            |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut params = Params::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            params.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        let signed = signed_string(&self.url, uri, &params, header("x-plivo-signature-v3-nonce"));
        let key =
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, self.auth_token.as_bytes());
        let valid = header("x-plivo-signature-v3").split(',').any(|signature| {
            let signature = base64::engine::general_purpose::STANDARD.decode(signature.trim());
            signature.is_ok_and(|s| aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &s).is_ok())
        });
        let call = first_value(&params, "CallUUID");
        tracing::info!(
            path = uri.path(),
            call,
            event = first_value(&params, "Event"),
            signed = valid,
            "demo request"
        );
        if valid {
            Ok(params)
        } else {
            Err((StatusCode::FORBIDDEN, "missing or invalid X-Plivo-Signature-V3\n"))
        }
    }
}

/// The text that the V3 signature of a POST request covers: URL, sorted parameters, nonce.
fn signed_string(base: &str, uri: &Uri, params: &Params, nonce: &str) -> String {
    let sorted: String = params
        .iter()
        .flat_map(|(name, values)| {
            let mut values = values.clone();
            values.sort_unstable();
            values.into_iter().map(move |value| format!("{name}{value}"))
        })
        .collect();
    let path = uri.path();
    match (uri.query(), params.is_empty()) {
        (None, true) => format!("{base}{path}.{nonce}"),
        (None, false) => format!("{base}{path}?{sorted}.{nonce}"),
        (Some(query), _) => format!("{base}{path}?{query}.{sorted}.{nonce}"),
    }
}

fn first_value<'a>(params: &'a Params, name: &str) -> &'a str {
    params.get(name).and_then(|values| values.first()).map_or("", String::as_str)
}

fn xml(body: &str) -> Response {
    let document =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>{body}</Response>\n");
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], document).into_response()
}

/// Generates a WAV file of three notes, 1.5 s long.
fn chime() -> Vec<u8> {
    let notes = [523.25, 659.25, 783.99].into_iter().flat_map(|hertz: f64| {
        (0..8_000).map(move |n| {
            let fade = 1.0 - f64::from(n) / 8_000.0;
            ((f64::from(n) / 16_000.0 * hertz * std::f64::consts::TAU).sin() * 9_000.0 * fade)
                as i16
        })
    });
    super::sound::wav_of(&notes.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
