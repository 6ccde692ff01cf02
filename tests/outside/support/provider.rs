//! A small OpenID Connect provider with keys created at its start and people defined by the test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub const CLIENT_ID: &str = "offhook console";
pub const SECRET: &str = "client+secret/%";

/// The key id.
const KID: &str = "first";

/// The signing key.
pub enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let key = pair.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let [n, e] = [n, e].map(|part| text(part.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e})
            }
            Self::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = (text(&point[..32]), text(&point[32..]));
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": x, "y": y})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
        }
    }
}

/// An authorization that has been granted.
struct Grant {
    redirect: String,
    challenge: String,
    /// Claims of the ID token.
    claims: Value,
}

struct Inner {
    url: String,
    key: Key,
    codes: Mutex<HashMap<String, Grant>>,
    /// Userinfo responses by access token.
    people: Mutex<HashMap<String, Value>>,
    asked: Mutex<Vec<String>>,
    /// The person signed in at the provider, who grants authorization immediately.
    present: Mutex<Option<Value>>,
    /// Whether unknown codes get no response.
    is_stalled: AtomicBool,
}

/// A running provider.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

impl Provider {
    pub async fn start(key: Key) -> Self {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for the provider");
        // A different site than the node's address, so that SameSite cookies behave as in
        // production.
        let url = format!(
            "http://localhost:{}/realm",
            listener.local_addr().expect("its address").port()
        );
        let this = Self(Arc::new(Inner {
            url,
            key,
            codes: Mutex::default(),
            people: Mutex::default(),
            asked: Mutex::default(),
            present: Mutex::default(),
            is_stalled: AtomicBool::new(false),
        }));
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(configuration))
            .route("/realm/authorize", get(authorize))
            .route("/realm/keys", get(keys))
            .route("/realm/token", post(token))
            .route("/realm/person", get(person))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    pub fn issuer(&self) -> &str {
        &self.0.url
    }

    /// Signs a person in at the provider.
    pub fn sign_in(&self, claims: Value) {
        *self.0.present.lock().expect("present") = Some(claims);
    }

    /// Sets whether unknown codes get no response.
    pub fn stall(&self, is_stalled: bool) {
        self.0.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Returns how often an endpoint was requested.
    pub fn request_count(&self, what: &str) -> usize {
        self.0.asked.lock().expect("asked").iter().filter(|asked| *asked == what).count()
    }

    /// Grants the authorization request in `location`. Returns the redirect back. `claims` override
    /// those of a correct ID token.
    pub fn grant(&self, location: &str, claims: &Value) -> String {
        let url = url::Url::parse(location).expect("a URL");
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert!(location.starts_with(&format!("{}/authorize?fixed=1&", self.0.url)), "{location}");
        let is = |name: &str| asked[name].as_str();
        assert_eq!((is("response_type"), is("client_id")), ("code", CLIENT_ID));
        assert_eq!(is("code_challenge_method"), "S256");
        assert!(is("scope").split(' ').any(|scope| scope == "openid"), "{asked:?}");
        let now = jiff::Timestamp::now().as_second();
        let mut token = json!({"iss": self.0.url, "aud": CLIENT_ID, "sub": "7", "nonce": is("nonce"), "iat": now,
            "exp": now + 300});
        for (name, value) in claims.as_object().expect("claims") {
            token[name] = value.clone();
        }
        let code = format!("code-{}", uuid::Uuid::new_v4());
        let given = Grant {
            redirect: is("redirect_uri").to_owned(),
            challenge: is("code_challenge").to_owned(),
            claims: token,
        };
        self.0.codes.lock().expect("codes").insert(code.clone(), given);
        let mut back = url::Url::parse(is("redirect_uri")).expect("a URL");
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", is("state"))
            .append_pair("iss", &self.0.url);
        back.into()
    }
}

async fn configuration(State(this): State<Provider>) -> Json<Value> {
    this.0.asked.lock().expect("asked").push("configuration".to_owned());
    let at = |path: &str| format!("{}{path}", this.0.url);
    Json(
        json!({"issuer": this.0.url, "authorization_endpoint": at("/authorize?fixed=1"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "userinfo_endpoint": at("/person"), "response_types_supported": ["code"]}),
    )
}

async fn authorize(State(this): State<Provider>, uri: axum::http::Uri) -> Response {
    let present = this.0.present.lock().expect("present").clone();
    let Some(claims) = present else { return StatusCode::FORBIDDEN.into_response() };
    let location = format!("{}/authorize?{}", this.0.url, uri.query().unwrap_or_default());
    axum::response::Redirect::to(&this.grant(&location, &claims)).into_response()
}

async fn keys(State(this): State<Provider>) -> Json<Value> {
    this.0.asked.lock().expect("asked").push("keys".to_owned());
    Json(json!({"keys": [{"kty": "quantum", "kid": "of tomorrow"}, this.0.key.jwk(KID)]}))
}

async fn person(State(this): State<Provider>, headers: HeaderMap) -> Response {
    let bearer =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match this.0.people.lock().expect("people").get(bearer.trim_start_matches("Bearer ")) {
        Some(person) => Json(person.clone()).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn token(
    State(this): State<Provider>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let refused =
        |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let basic =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let both = STANDARD.decode(basic.trim_start_matches("Basic ")).unwrap_or_default();
    let expected = "offhook+console:client%2Bsecret%2F%25";
    if both != expected.as_bytes() && form.get("client_id").map(String::as_str) != Some(CLIENT_ID) {
        return refused("invalid_client");
    }
    this.0.asked.lock().expect("asked").push("token".to_owned());
    // A code can be used once.
    let given = form.get("code").and_then(|code| this.0.codes.lock().expect("codes").remove(code));
    let Some(given) = given.filter(|_| form["grant_type"] == "authorization_code") else {
        if this.0.is_stalled.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        return refused("invalid_grant");
    };
    let verifier = form.get("code_verifier").map(String::as_bytes).unwrap_or_default();
    let challenge = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier);
    if URL_SAFE_NO_PAD.encode(challenge.as_ref()) != given.challenge
        || form["redirect_uri"] != given.redirect
    {
        return refused("invalid_grant");
    }
    let access = uuid::Uuid::new_v4().to_string();
    let mut claims = given.claims;
    if let Some(elsewhere) = claims.as_object_mut().and_then(|claims| claims.remove("elsewhere")) {
        this.0.people.lock().expect("people").insert(access.clone(), elsewhere);
    }
    let (key, kid) = (&this.0.key, KID);
    let alg = claims.as_object_mut().and_then(|claims| claims.remove("alg"));
    let alg =
        alg.and_then(|alg| alg.as_str().map(str::to_owned)).unwrap_or_else(|| key.alg().to_owned());
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": alg, "kid": kid})), part(&claims));
    let signature = match alg.as_str() {
        // Tokens that an attacker could forge with the public key and the client secret, without
        // the private key.
        "none" => Vec::new(),
        "HS256" => {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
            aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
        "forged" => vec![1; 256],
        _ => key.sign(message.as_bytes()),
    };
    let message = message.replace(
        &part(&json!({"alg": "forged", "kid": kid})),
        &part(&json!({"alg": key.alg(), "kid": kid})),
    );
    let id_token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    Json(json!({"token_type": "Bearer", "access_token": access, "id_token": id_token}))
        .into_response()
}
