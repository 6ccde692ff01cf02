//! Identities and secrets of the simulated world. `offhook dev` and `offhook call` agree on them
//! without a configuration file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use model::digits_of;

/// Meta app secret, the key of webhook signatures.
pub const APP_SECRET: &str = "offhook-dev-app-secret";
/// Token that a node must recognise in Meta's verification request.
pub const VERIFY_TOKEN: &str = "offhook-dev-verify-token";
/// Bearer token of Graph requests.
pub const ACCESS_TOKEN: &str = "offhook-dev-access-token";
/// Id of the Meta app.
pub const APP_ID: &str = "4080123456789";
/// `X-API-Key` of the development node.
pub const API_KEY: &str = "offhook-dev-owner-api-key";
/// Account id of the development node: `MA` and 18 characters of A–Z and 0–9.
pub const ACCOUNT: &str = "MADEVOFFHOOK00000001";
/// Auth token of [`ACCOUNT`]. It signs callbacks.
pub const AUTH_TOKEN: &str = "offhook-dev-auth-token";
/// User name and password for the console of the development node. They are public.
pub const PERSON: &str = "demo";
pub const PASSWORD: &str = "offhook-dev-password";
/// The predefined business number, with its phone number id and WABA.
pub const NUMBER: &str = "918035737458";
pub const PHONE_NUMBER_ID: &str = "106540352242922";
pub const WABA: &str = "1029384756";
/// The number that answers with the document of the playground, and its phone number id.
pub const PLAYGROUND: &str = "918035737459";
pub const PLAYGROUND_ID: &str = "106540352242923";
/// The predefined WhatsApp user.
pub const USER: &str = "919412341234";
pub const USER_NAME: &str = "Asha Verma";

/// Maximum number of business numbers.
const NUMBERS_MAX: usize = 10_000;

/// A business number as Meta knows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimNumber {
    /// E.164 digits without a plus.
    pub number: String,
    pub phone_number_id: String,
    pub waba: String,
    /// The verified name.
    #[serde(default)]
    pub name: String,
}

impl fmt::Debug for SimNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNumber({} = {} of {})", self.number, self.phone_number_id, self.waba)
    }
}

impl Default for SimNumber {
    fn default() -> Self {
        Self {
            number: NUMBER.into(),
            phone_number_id: PHONE_NUMBER_ID.into(),
            waba: WABA.into(),
            name: "Offhook demo".into(),
        }
    }
}

/// The business numbers of the simulated world.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_number: BTreeMap<String, SimNumber>,
}

impl Numbers {
    pub(crate) fn new(numbers: Vec<SimNumber>) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|n| all.insert(n));
        all
    }

    /// Adds or replaces a number. An empty name keeps the known one. Beyond the bound a new number
    /// is ignored, so that calls to it fail as unknown.
    pub(crate) fn insert(&mut self, mut number: SimNumber) {
        if number.name.is_empty() {
            number.name =
                self.by_number(&number.number).map(|known| known.name.clone()).unwrap_or_default();
        }
        if self.by_number.len() < NUMBERS_MAX || self.by_number.contains_key(&number.number) {
            self.by_number.insert(number.number.clone(), number);
        }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.by_number.values().map(|n| n.phone_number_id.clone()).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &SimNumber> {
        self.by_number.values()
    }

    pub(crate) fn by_number(&self, number: &str) -> Option<&SimNumber> {
        self.by_number.get(number)
    }

    pub(crate) fn by_id(&self, phone_number_id: &str) -> Option<&SimNumber> {
        self.by_number.values().find(|n| n.phone_number_id == phone_number_id)
    }
}

/// Normalises a user: phone numbers to digits, business-scoped user ids unchanged.
pub(crate) fn user_of(given: &str) -> String {
    let is_number = given.starts_with(|c: char| c == '+' || c.is_ascii_digit());
    if is_number { digits_of(given) } else { given.to_owned() }
}
