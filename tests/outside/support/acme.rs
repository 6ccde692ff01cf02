//! A certificate authority with the ACME protocol (RFC 8555), reduced to what a node needs. It
//! checks nonces and signatures, and examines names by really connecting to the node.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};

use super::tls::{Authority, Client};

type Answer = Response<axum::body::Body>;

/// An ACME server.
#[derive(Clone)]
pub struct Acme(Arc<Inner>);

struct Inner {
    authority: Authority,
    url: String,
    state: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    nonces: HashSet<String>,
    next: u64,
    /// Public keys of accounts, by URL.
    accounts: HashMap<String, Key>,
    contacts: Vec<String>,
    orders: Vec<Order>,
    /// Validations by type of challenge.
    validations: HashMap<&'static str, usize>,
    settings: AcmeSettings,
}

/// How the server behaves.
#[derive(Clone)]
pub struct AcmeSettings {
    /// Where validations of `tls-alpn-01` connect to, all of them. Empty: no connection is possible.
    pub tls: Vec<SocketAddr>,
    /// Where validations of `http-01` connect to.
    pub http: Option<SocketAddr>,
    /// The lifetime of certificates.
    pub valid_for: Duration,
    /// Refuses new orders with this type of problem, status and `Retry-After`.
    pub refuse: Option<(&'static str, u16, Option<&'static str>)>,
    /// Orders are gone as soon as their validation begins.
    pub expires_orders: bool,
    /// The names in certificates. Empty: those of the order.
    pub names: Vec<String>,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        let valid_for = Duration::from_secs(90 * 86_400);
        Self {
            tls: Vec::new(),
            http: None,
            valid_for,
            refuse: None,
            expires_orders: false,
            names: Vec::new(),
        }
    }
}

#[derive(Clone)]
struct Key {
    point: Vec<u8>,
    thumbprint: String,
}

struct Order {
    names: Vec<String>,
    /// The result of each name's validation: `None` while it is pending.
    results: Vec<Option<Result<(), String>>>,
    certificate: Option<String>,
    is_expired: bool,
}

impl Order {
    fn status(&self) -> &'static str {
        match () {
            () if self.is_expired => "invalid",
            () if self.certificate.is_some() => "valid",
            () if self.results.iter().any(|done| matches!(done, Some(Err(_)))) => "invalid",
            () if self.results.iter().all(Option::is_some) => "ready",
            () => "pending",
        }
    }
}

impl Acme {
    pub async fn start(settings: AcmeSettings) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Mutex::new(Inside { settings, ..Inside::default() });
        let acme = Self(Arc::new(Inner { authority: Authority::new(), url, state }));
        let router = Router::new().fallback(handle).with_state(acme.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        acme
    }

    pub fn directory(&self) -> String {
        format!("{}/directory", self.0.url)
    }

    /// A client that trusts the certificates of this server.
    pub fn client(&self, to: SocketAddr) -> Client {
        self.0.authority.client(to)
    }

    pub fn change(&self, change: impl FnOnce(&mut AcmeSettings)) {
        change(&mut self.state().settings);
    }

    /// The number of accounts, of orders, and of validations of this type.
    pub fn counts(&self, challenge: &str) -> (usize, usize, usize) {
        let state = self.state();
        let validations = state.validations.get(challenge).copied().unwrap_or_default();
        (state.accounts.len(), state.orders.len(), validations)
    }

    /// The contacts of the account that was made or changed last.
    pub fn contacts(&self) -> Vec<String> {
        self.state().contacts.clone()
    }

    fn state(&self) -> MutexGuard<'_, Inside> {
        self.0.state.lock().expect("the state")
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0.url)
    }

    fn answer(&self, status: u16, body: impl Into<axum::body::Body>) -> Answer {
        let mut state = self.state();
        state.next += 1;
        let nonce = format!("nonce-{}", state.next);
        state.nonces.insert(nonce.clone());
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response.headers_mut().insert("replay-nonce", nonce.parse().expect("a value"));
        response
    }

    fn problem(&self, status: u16, kind: &str) -> Answer {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let body = json!({"type": kind, "detail": "as the test wants it", "status": status});
        self.answer(status, body.to_string())
    }

    fn located(&self, status: u16, at: &str, body: &Value) -> Answer {
        let mut answer = self.answer(status, body.to_string());
        let at = HeaderValue::try_from(self.url(at)).expect("a value");
        answer.headers_mut().insert("location", at);
        answer
    }

    fn order(&self, n: usize) -> Value {
        let state = self.state();
        let order = &state.orders[n];
        let names = order.names.iter().map(|name| json!({"type": "dns", "value": name}));
        let authorizations = (0..order.names.len()).map(|at| self.url(&format!("/authz/{n}/{at}")));
        let mut shown = json!({
            "status": order.status(),
            "identifiers": names.collect::<Vec<_>>(),
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": self.url(&format!("/finalize/{n}")),
        });
        if order.certificate.is_some() {
            shown["certificate"] = self.url(&format!("/certificate/{n}")).into();
        }
        shown
    }

    fn authorization(&self, n: usize, at: usize) -> Value {
        let state = self.state();
        let order = &state.orders[n];
        let (status, error) = match &order.results[at] {
            None => ("pending", None),
            Some(Ok(())) => ("valid", None),
            Some(Err(why)) => {
                let kind = "urn:ietf:params:acme:error:connection";
                ("invalid", Some(json!({"type": kind, "detail": why})))
            }
        };
        let challenges = ["tls-alpn-01", "http-01"].map(|kind| {
            json!({
                "type": kind, "status": status, "error": error, "token": format!("token-{n}-{at}"),
                "url": self.url(&format!("/challenge/{n}/{at}/{kind}")),
            })
        });
        let identifier = json!({"type": "dns", "value": order.names[at]});
        json!({"status": status, "identifier": identifier, "challenges": challenges})
    }

    /// Examines a name as the type of challenge says.
    async fn validate(&self, n: usize, at: usize, kind: &'static str, thumbprint: String) {
        let (name, settings) = {
            let mut state = self.state();
            *state.validations.entry(kind).or_default() += 1;
            (state.orders[n].names[at].clone(), state.settings.clone())
        };
        let token = format!("token-{n}-{at}");
        let expected = format!("{token}.{thumbprint}");
        let examined = async {
            match kind {
                "tls-alpn-01" => {
                    let digest = digest(&SHA256, expected.as_bytes());
                    for to in &settings.tls {
                        let der = super::tls::validation_certificate(*to, &name).await?;
                        let holds =
                            |part: &[u8]| der.windows(part.len()).any(|window| window == part);
                        if !holds(digest.as_ref()) || !holds(name.as_bytes()) {
                            return Err("it presented another certificate".to_owned());
                        }
                    }
                    if settings.tls.is_empty() {
                        return Err("connection refused".to_owned());
                    }
                    Ok(())
                }
                _ => {
                    let to = settings.http.ok_or("connection refused")?;
                    let url = format!("http://{to}/.well-known/acme-challenge/{token}");
                    let host = [("host", name.as_str())];
                    let answer = super::http::try_send("GET", &url, &host, "").await?;
                    match answer.text() == expected {
                        true => Ok(()),
                        false => Err(format!("it answered {}: {}", answer.status, answer.text())),
                    }
                }
            }
        };
        let result = examined.await;
        let mut state = self.state();
        state.orders[n].is_expired = settings.expires_orders;
        state.orders[n].results[at] = Some(result);
    }

    fn post(&self, path: &str, signed: &Signed) -> Answer {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |at: usize| parts[at].parse::<usize>().expect("a number");
        match parts[0] {
            "new-account" => {
                let mut state = self.state();
                let at = format!("/account/{}", state.accounts.len());
                let url = self.url(&at);
                state.accounts.insert(url, signed.key.clone());
                assert_eq!(signed.payload["termsOfServiceAgreed"], true);
                drop(state);
                self.set_contacts(&signed.payload);
                self.located(201, &at, &json!({"status": "valid"}))
            }
            "account" => {
                self.set_contacts(&signed.payload);
                self.answer(200, json!({"status": "valid"}).to_string())
            }
            "new-order" => {
                let refuse = self.state().settings.refuse;
                if let Some((kind, status, retry_after)) = refuse {
                    let mut answer = self.problem(status, kind);
                    let retry_after = retry_after.map(HeaderValue::from_static);
                    answer
                        .headers_mut()
                        .extend(retry_after.map(|value| (http::header::RETRY_AFTER, value)));
                    return answer;
                }
                let names = signed.payload["identifiers"].as_array().expect("identifiers");
                let names: Vec<_> = names
                    .iter()
                    .map(|name| name["value"].as_str().expect("a name").to_owned())
                    .collect();
                let results = vec![None; names.len()];
                let mut state = self.state();
                state.orders.push(Order { names, results, certificate: None, is_expired: false });
                let n = state.orders.len() - 1;
                drop(state);
                let order = self.order(n);
                self.located(201, &format!("/order/{n}"), &order)
            }
            "order" => {
                let order = self.order(number(1));
                self.answer(200, order.to_string())
            }
            "authz" => {
                let shown = self.authorization(number(1), number(2));
                self.answer(200, shown.to_string())
            }
            "challenge" => {
                let kind = if parts[3] == "http-01" { "http-01" } else { "tls-alpn-01" };
                let (acme, n, at) = (self.clone(), number(1), number(2));
                let thumbprint = signed.key.thumbprint.clone();
                tokio::spawn(async move { acme.validate(n, at, kind, thumbprint).await });
                let shown = json!({
                    "type": kind, "status": "processing", "token": format!("token-{n}-{at}"),
                    "url": self.url(path),
                });
                self.answer(200, shown.to_string())
            }
            "finalize" => {
                let n = number(1);
                let request = signed.payload["csr"].as_str().expect("a request");
                let request = URL_SAFE_NO_PAD.decode(request).expect("base64");
                let mut state = self.state();
                let valid_for = state.settings.valid_for;
                let names = match &state.settings.names[..] {
                    [] => state.orders[n].names.clone(),
                    names => names.to_vec(),
                };
                assert_eq!(state.orders[n].status(), "ready");
                let key = RequestedKey::of(&request);
                let chain = self.0.authority.sign(&names, &key, valid_for).pem();
                state.orders[n].certificate = Some(chain);
                drop(state);
                let order = self.order(n);
                self.answer(200, order.to_string())
            }
            "certificate" => {
                let chain = self.state().orders[number(1)].certificate.clone();
                self.answer(200, chain.expect("a certificate"))
            }
            other => panic!("unknown resource {other}"),
        }
    }

    fn set_contacts(&self, payload: &Value) {
        let contacts = payload["contact"].as_array().cloned().unwrap_or_default();
        let text = |contact: &Value| contact.as_str().expect("text").to_owned();
        self.state().contacts = contacts.iter().map(text).collect();
    }

    /// Checks the nonce, the URL and the signature of a request.
    fn check(&self, path: &str, body: &[u8]) -> Result<Signed, Box<Answer>> {
        let jws: Value = serde_json::from_slice(body).expect("JSON");
        let text = |name: &str| jws[name].as_str().expect("text");
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64");
        let head: Value = serde_json::from_slice(&decode(text("protected"))).expect("JSON");
        if !self.state().nonces.remove(head["nonce"].as_str().expect("a nonce")) {
            return Err(self.problem(400, "badNonce").into());
        }
        assert_eq!(head["url"], self.url(path));
        let key = match head["kid"].as_str() {
            Some(account) => match self.state().accounts.get(account).cloned() {
                Some(key) => key,
                None => return Err(self.problem(400, "accountDoesNotExist").into()),
            },
            None => Key::of(&head["jwk"]),
        };
        let signed = format!("{}.{}", text("protected"), text("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
            .verify(signed.as_bytes(), &decode(text("signature")))
            .expect("a valid signature");
        let payload = serde_json::from_slice(&decode(text("payload"))).unwrap_or_default();
        Ok(Signed { key, payload })
    }
}

/// A request with a valid signature.
struct Signed {
    key: Key,
    payload: Value,
}

impl Key {
    fn of(jwk: &Value) -> Self {
        let part = |name: &str| jwk[name].as_str().expect("a coordinate").to_owned();
        let (x, y) = (part("x"), part("y"));
        // RFC 7638.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        let mut point = vec![4];
        for part in [x, y] {
            point.extend(URL_SAFE_NO_PAD.decode(part).expect("base64"));
        }
        Self { point, thumbprint }
    }
}

async fn handle(
    State(acme): State<Acme>,
    method: Method,
    uri: Uri,
    _headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let path = uri.path();
    match (method, path) {
        (Method::GET, "/directory") => {
            let directory = json!({
                "newNonce": acme.url("/new-nonce"),
                "newAccount": acme.url("/new-account"),
                "newOrder": acme.url("/new-order"),
            });
            acme.answer(200, directory.to_string())
        }
        (Method::HEAD, "/new-nonce") => acme.answer(200, ""),
        (Method::POST, _) => match acme.check(path, &body) {
            Ok(signed) => acme.post(path, &signed),
            Err(refused) => *refused,
        },
        _ => acme.answer(404, ""),
    }
}

/// The public key of a certificate signing request.
struct RequestedKey(Vec<u8>);

impl RequestedKey {
    fn of(request: &[u8]) -> Self {
        let inside = |der| element(der).0;
        // Version and subject come before the key.
        let info = inside(inside(request));
        let key = element(element(info).1).1;
        let bits = inside(element(inside(key)).1);
        // The first byte counts unused bits.
        Self(bits[1..].to_vec())
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The content of a DER element, and the bytes after it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        short => (usize::from(short), 2),
    };
    der[start..].split_at(length)
}
