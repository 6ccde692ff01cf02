//! Graph requests about business numbers and their WABAs: a number's details, its calling settings,
//! registration, and the subscriptions of our app. Payloads are written strictly and read
//! tolerantly.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Map, Value, json};

use super::graph::Graph;
use super::request::GraphRequest;
use machine::GraphOutcome;
use model::Secret;
use model::{PhoneNumberId, Timestamp, WabaId, digits_of};

/// The fields requested of a number.
const FIELDS: &str = "id,display_phone_number,verified_name,quality_rating,platform_type,status";
/// The page size, and the largest number of pages read per WABA, which gives 2,000 numbers.
const PAGE: usize = 100;
const PAGES_MAX: usize = 20;
/// The maximum length of a stored text, in characters.
const TEXT_MAX: usize = 200;
/// The `action` label of these requests in metrics.
const OTHER: &str = "other";
/// The webhook fields that our app needs.
pub const FIELDS_NEEDED: &[&str] = &[
    "calls",
    "messages",
    "account_update",
    "account_settings_update",
    "phone_number_quality_update",
];

/// A number, as Graph describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhoneNumber {
    pub id: String,
    /// The phone number in digits.
    pub number: String,
    pub verified_name: String,
    /// Meta's value in capitals. Empty if absent.
    pub quality_rating: String,
    pub platform_type: String,
    pub status: String,
}

/// The calling settings of a number. `None` if Meta does not state a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallingSettings {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    pub sip: Option<bool>,
    /// Media keys are exchanged in the SDP (SDES). Offhook uses DTLS, so calls would have no audio.
    pub sdes: Option<bool>,
    /// Meta restricts calling at present.
    pub restricted: bool,
}

/// A change of calling settings. `None` keeps the current value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallingChange {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
}

/// The webhook subscription of our app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The webhook URL. Empty without a subscription.
    pub url: String,
    pub fields: Vec<String>,
    /// The subscription is switched off.
    pub inactive: bool,
}

/// Meta's description of an access token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    pub valid: bool,
    /// `None` if it does not expire.
    pub expires: Option<Timestamp>,
    pub scopes: Vec<String>,
    /// The app that the token was issued for. `None` if Meta does not state it.
    pub app: Option<String>,
    /// The WhatsApp Business Accounts that the token grants access to.
    pub wabas: Vec<WabaId>,
}

impl Graph {
    /// Reads a number with `GET /{phone_number_id}`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn phone_number(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
    ) -> Result<PhoneNumber, GraphOutcome> {
        let graph_request = GraphRequest::get(number, token, format!("?fields={FIELDS}"), OTHER);
        let answer = read(&self.send_request(&graph_request).await?)?;
        PhoneNumber::read(&answer).ok_or(UNREADABLE)
    }

    /// Reads all pages of `GET /{waba_id}/phone_numbers`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn numbers_of_waba(
        &self,
        waba: &WabaId,
        token: Option<&Secret>,
    ) -> Result<Vec<PhoneNumber>, GraphOutcome> {
        let node = PhoneNumberId::from(waba.as_str());
        let (mut found, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let path = page_after(&after);
            let answer =
                read(&self.send_request(&GraphRequest::get(&node, token, path, OTHER)).await?)?;
            let page = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
            found.extend(page.iter().take(PAGE).filter_map(PhoneNumber::read));
            let next = answer.pointer("/paging/next").is_some();
            match answer.pointer("/paging/cursors/after").and_then(Value::as_str) {
                Some(cursor) if next && cursor != after => cursor.clone_into(&mut after),
                _ => break,
            }
        }
        Ok(found)
    }

    /// Reads the calling settings with `GET /{phone_number_id}/settings`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn calling_settings(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
    ) -> Result<CallingSettings, GraphOutcome> {
        let answer = self
            .send_request(&GraphRequest::get(number, token, "settings".to_owned(), "settings"))
            .await?;
        read(&answer)?.get("calling").map(CallingSettings::read).ok_or(UNREADABLE)
    }

    /// Changes the calling settings with `POST /{phone_number_id}/settings`. Leaves SIP and SDES
    /// unchanged.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn change_calling(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        change: CallingChange,
    ) -> Result<(), GraphOutcome> {
        self.post(number, token, "settings", "settings", &json!({"calling": change.members()}))
            .await
    }

    /// Registers a number with `POST /{phone_number_id}/register`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn register(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        pin: &Secret,
    ) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "pin": pin.reveal()});
        self.post(number, token, "register", OTHER, &body).await
    }

    /// Subscribes our app to the WABA's webhooks with `POST /{waba_id}/subscribed_apps`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn subscribe_app(
        &self,
        waba: &WabaId,
        token: Option<&Secret>,
    ) -> Result<(), GraphOutcome> {
        let node = PhoneNumberId::from(waba.as_str());
        self.post(&node, token, "subscribed_apps", OTHER, &json!({})).await
    }

    /// The ids of the apps that get the WABA's webhooks, from `GET /{waba_id}/subscribed_apps`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn subscribed_apps(
        &self,
        waba: &WabaId,
        token: Option<&Secret>,
    ) -> Result<Vec<String>, GraphOutcome> {
        let node = PhoneNumberId::from(waba.as_str());
        let graph_request = GraphRequest::get(&node, token, "subscribed_apps".to_owned(), OTHER);
        let answer = read(&self.send_request(&graph_request).await?)?;
        let apps = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
        Ok(apps.iter().filter_map(|app| text_at(app, "/whatsapp_business_api_data/id")).collect())
    }

    /// The webhook fields and URL of our app, from `GET /{app_id}/subscriptions`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn app_subscriptions(
        &self,
        app_id: &str,
        app_secret: &Secret,
    ) -> Result<Subscription, GraphOutcome> {
        let (node, token) = (PhoneNumberId::from(app_id), app_token(app_id, app_secret));
        let graph_request =
            GraphRequest::get(&node, Some(&token), "subscriptions".to_owned(), OTHER);
        let answer = read(&self.send_request(&graph_request).await?)?;
        let all = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
        let ours = all
            .iter()
            .find(|one| text_at(one, "/object").as_deref() == Some("whatsapp_business_account"));
        let Some(ours) = ours else { return Ok(Subscription::default()) };
        let fields =
            ours.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let name =
            |field: &Value| field.as_str().map(str::to_owned).or_else(|| text_at(field, "/name"));
        Ok(Subscription {
            url: text_at(ours, "/callback_url").unwrap_or_default(),
            fields: fields.iter().filter_map(name).collect(),
            inactive: ours.get("active").and_then(Value::as_bool) == Some(false),
        })
    }

    /// Exchanges the code of an embedded sign-up for an access token with `POST
    /// /oauth/access_token`.
    ///
    /// # Errors
    /// Returns the outcome of the request. A code can be used only once.
    pub async fn exchange_code(
        &self,
        app_id: &str,
        app_secret: &Secret,
        code: &str,
        redirect_uri: Option<&str>,
    ) -> Result<Secret, GraphOutcome> {
        let token = app_token(app_id, app_secret);
        let mut body = json!({"client_id": app_id, "client_secret": app_secret.reveal(), "code": code,
            "grant_type": "authorization_code"});
        if let (Some(members), Some(uri)) = (body.as_object_mut(), redirect_uri) {
            members.insert("redirect_uri".to_owned(), uri.into());
        }
        let path = "access_token".to_owned();
        let body = body.to_string().into_bytes();
        let node = PhoneNumberId::from("oauth");
        let answer =
            self.send_request(&GraphRequest::post(&node, Some(&token), path, OTHER, body)).await?;
        text_at(&read(&answer)?, "/access_token")
            .filter(|t| !t.is_empty())
            .map(Secret::new)
            .ok_or(UNREADABLE)
    }

    /// Describes an access token. Sends `debug_token` as a POST with `method=get`, so that no token
    /// appears in a URL.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn token_facts(
        &self,
        app_id: &str,
        app_secret: &Secret,
        token: &Secret,
    ) -> Result<TokenFacts, GraphOutcome> {
        let asking = app_token(app_id, app_secret);
        let body = json!({"method": "get", "input_token": token.reveal()}).to_string().into_bytes();
        let node = PhoneNumberId::from("debug_token");
        let answer = self
            .send_request(&GraphRequest::post(&node, Some(&asking), String::new(), OTHER, body))
            .await?;
        read(&answer)?.get("data").map(TokenFacts::read).ok_or(UNREADABLE)
    }

    /// Returns whether the number is also used in the WhatsApp Business app (coexistence). This is
    /// a separate request because not every Graph version has the field.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn is_on_phone(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
    ) -> Result<bool, GraphOutcome> {
        let graph_request =
            GraphRequest::get(number, token, "?fields=is_on_biz_app".to_owned(), OTHER);
        let answer = read(&self.send_request(&graph_request).await?)?;
        Ok(answer.get("is_on_biz_app").and_then(Value::as_bool).unwrap_or_default())
    }

    /// Graph's clock, from the `Date` header of an answer.
    ///
    /// # Errors
    /// Fails if Graph is unreachable or sends no valid date.
    pub async fn date(&self) -> Result<Timestamp, GraphOutcome> {
        let request =
            http::Request::get(format!("{}/", self.config.base_url)).body(Full::default());
        let request = request.map_err(|_| GraphOutcome::Unreachable)?;
        let asked =
            tokio::time::timeout(self.config.request_timeout, self.http.request(request)).await;
        let answer =
            asked.map_err(|_| GraphOutcome::Timeout)?.map_err(|_| GraphOutcome::Unreachable)?;
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        date.and_then(http_date).ok_or(UNREADABLE)
    }

    async fn post(
        &self,
        node: &PhoneNumberId,
        token: Option<&Secret>,
        path: &str,
        label: &'static str,
        body: &Value,
    ) -> Result<(), GraphOutcome> {
        let body = body.to_string().into_bytes();
        self.send_request(&GraphRequest::post(node, token, path.to_owned(), label, body))
            .await
            .map(drop)
    }
}

/// The path of the page of a WABA's numbers after this cursor.
fn page_after(after: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("fields", FIELDS).append_pair("limit", &PAGE.to_string());
    if !after.is_empty() {
        query.append_pair("after", after);
    }
    format!("phone_numbers?{}", query.finish())
}

/// The outcome of a 200 whose body can't be read.
const UNREADABLE: GraphOutcome = GraphOutcome::ServerError { status: 200 };

fn read(answer: &Bytes) -> Result<Value, GraphOutcome> {
    serde_json::from_slice(answer).map_err(|_| UNREADABLE)
}

/// Parses an HTTP date (RFC 9110, section 5.6.7), such as `Sat, 21 Nov 2026 00:05:05 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split([' ', ':']);
    let number = |parts: &mut std::str::Split<'_, [char; 2]>| parts.next()?.parse::<i64>().ok();
    let day = number(&mut parts)?;
    let name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let (year, hour) = (number(&mut parts)?, number(&mut parts)?);
    let (minute, second) = (number(&mut parts)?, number(&mut parts)?);
    let sound = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    // Days since 1970-01-01, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day
            - 719_469;
    sound.then(|| Timestamp::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// The access token of the app itself.
fn app_token(app_id: &str, app_secret: &Secret) -> Secret {
    Secret::new(format!("{app_id}|{}", app_secret.reveal()))
}

/// The text at a JSON pointer, truncated. Integers are accepted
/// (`docs/reference/meta.md#tolerant-reading`). An access token is never truncated.
fn text_at(value: &Value, at: &str) -> Option<String> {
    let found = value.pointer(at)?;
    let text =
        found.as_str().map(str::to_owned).or_else(|| found.as_u64().map(|n| n.to_string()))?;
    Some(if at == "/access_token" { text } else { text.chars().take(TEXT_MAX).collect() })
}

impl PhoneNumber {
    /// Parses a phone number object. `None` without an id and digits.
    pub fn read(object: &Value) -> Option<Self> {
        let text = |at: &str| text_at(object, at).unwrap_or_default();
        let word = |at: &str| text(at).to_ascii_uppercase();
        let (id, number) = (text("/id"), digits_of(&text("/display_phone_number")));
        let verified_name = text("/verified_name").chars().filter(|c| !c.is_control()).collect();
        let read = Self {
            id,
            number,
            verified_name,
            quality_rating: word("/quality_rating"),
            platform_type: word("/platform_type"),
            status: word("/status"),
        };
        (!read.id.is_empty() && !read.number.is_empty()).then_some(read)
    }
}

impl CallingSettings {
    /// Parses the `calling` object.
    pub fn read(calling: &Value) -> Self {
        let switch = |at: &str| match text_at(calling, at)?.to_ascii_uppercase().as_str() {
            "ENABLED" => Some(true),
            "DISABLED" => Some(false),
            _ => None,
        };
        let restrictions =
            calling.pointer("/restrictions/restrictions_list").and_then(Value::as_array);
        Self {
            enabled: switch("/status"),
            callback_permission: switch("/callback_permission_status"),
            sip: switch("/sip/status"),
            sdes: text_at(calling, "/srtp_key_exchange_protocol")
                .map(|word| word.eq_ignore_ascii_case("SDES")),
            restricted: restrictions.is_some_and(|list| !list.is_empty()),
        }
    }
}

impl CallingChange {
    /// Returns whether the change sets any value.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    fn members(self) -> Map<String, Value> {
        let switch = |on: bool| json!(if on { "ENABLED" } else { "DISABLED" });
        let members =
            [("status", self.enabled), ("callback_permission_status", self.callback_permission)];
        members.into_iter().filter_map(|(name, on)| Some((name.to_owned(), switch(on?)))).collect()
    }
}

impl TokenFacts {
    /// Parses the `data` object.
    pub fn read(data: &Value) -> Self {
        let list = |at: &str| {
            data.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
        };
        let expires = data.get("expires_at").and_then(Value::as_i64).filter(|secs| *secs > 0);
        let granted = list("/granular_scopes").iter().filter(|scope| {
            text_at(scope, "/scope").is_some_and(|scope| scope.starts_with("whatsapp_business"))
        });
        let ids = granted.filter_map(|scope| scope.get("target_ids")?.as_array()).flatten();
        let mut wabas: Vec<WabaId> =
            ids.filter_map(|id| text_at(id, "")).map(WabaId::from).collect();
        wabas.sort();
        wabas.dedup();
        wabas.truncate(100);
        Self {
            valid: data.get("is_valid").and_then(Value::as_bool).unwrap_or_default(),
            expires: expires.map(Timestamp::from_secs),
            app: text_at(data, "/app_id").filter(|id| !id.is_empty()),
            scopes: list("/scopes").iter().filter_map(|scope| text_at(scope, "")).collect(),
            wabas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/../../fixtures/meta/graph/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn reads_the_fixtures() {
        let page = fixture("phone_numbers");
        let all: Vec<_> =
            page["response"]["data"].as_array().unwrap().iter().map(PhoneNumber::read).collect();
        assert!(!all.is_empty() && all.iter().all(Option::is_some), "{all:?}");
        let first = all[0].clone().unwrap();
        assert!(first.number.bytes().all(|b| b.is_ascii_digit()), "{first:?}");
        let enable = fixture("settings_enable");
        let read = CallingSettings::read(&enable["request"]["calling"]);
        let change =
            CallingChange { enabled: read.enabled, callback_permission: read.callback_permission };
        let ours = Value::Object(change.members());
        assert_eq!(ours["status"], enable["request"]["calling"]["status"]);
    }

    #[test]
    fn dates_of_http() {
        for (text, secs) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2028 23:59:59 GMT", Some(1_835_481_599)),
            ("Sat, 21 Nov 2026 00:05:05 GMT", Some(1_795_219_505)),
            ("Sat, 21 Nov 2026 00:05 GMT", None),
            ("21 Nov 2026", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), secs.map(Timestamp::from_secs), "{text}");
        }
    }

    #[test]
    fn reads_unusual_values() {
        let number = PhoneNumber::read(
            &json!({"id": 7, "display_phone_number": "+1 631-555-3601", "status": null,
            "verified_name": "A\u{7}b", "quality_rating": "green"}),
        );
        let number = number.unwrap();
        assert_eq!(
            (number.id.as_str(), number.number.as_str(), number.verified_name.as_str()),
            ("7", "16315553601", "Ab")
        );
        assert_eq!((number.quality_rating.as_str(), number.status.as_str()), ("GREEN", ""));
        for none in [
            json!({}),
            json!([]),
            json!({"id": "7"}),
            json!({"display_phone_number": "7"}),
            json!(null),
        ] {
            assert_eq!(PhoneNumber::read(&none), None, "{none}");
        }
        let settings =
            CallingSettings::read(&json!({"status": "enabled", "sip": {"status": "MAYBE"},
            "restrictions": {"restrictions_list": [{}]}}));
        assert_eq!((settings.enabled, settings.sip, settings.restricted), (Some(true), None, true));
        let sdes =
            |word: &str| CallingSettings::read(&json!({"srtp_key_exchange_protocol": word})).sdes;
        assert_eq!((sdes("SDES"), sdes("DTLS"), settings.sdes), (Some(true), Some(false), None));
        assert_eq!(CallingSettings::read(&json!(null)), CallingSettings::default());
        let token = TokenFacts::read(
            &json!({"is_valid": true, "expires_at": 0, "granular_scopes": [
            {"scope": "whatsapp_business_management", "target_ids": ["2", 1]}, {"scope": "email", "target_ids": ["3"]}, 5]}),
        );
        assert_eq!((token.valid, token.expires), (true, None));
        assert_eq!(token.wabas, [WabaId::from("1"), WabaId::from("2")]);
        assert!(!CallingChange::default().is_some());
    }
}
