//! The simulated world's inhabitants and secrets: business numbers, the user, what `offhook dev` and `offhook call`
//! agree on without a configuration file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Key of webhook signatures.
pub const APP_SECRET: &str = "offhook-dev-app-secret";
/// What a node must recognise in the verification request.
pub const VERIFY_TOKEN: &str = "offhook-dev-verify-token";
/// The bearer token of Graph requests.
pub const ACCESS_TOKEN: &str = "offhook-dev-access-token";
/// Our app's id at the simulated Meta.
pub const APP_ID: &str = "4080123456789";
/// `X-API-Key` of the development node.
pub const API_KEY: &str = "offhook-dev-api-key";
/// Account of the development node: `MA` and 18 of A–Z, 0–9.
pub const ACCOUNT: &str = "MADEVOFFHOOK00000001";
/// Auth token of [`ACCOUNT`]; signs callbacks.
pub const AUTH_TOKEN: &str = "offhook-dev-auth-token";
/// Who signs in to the console, and with what: everybody knows it.
pub const PERSON: &str = "demo";
pub const PASSWORD: &str = "offhook-dev-password";
/// The business number that is there from the start, and its ids.
pub const NUMBER: &str = "918035737458";
pub const PHONE_NUMBER_ID: &str = "106540352242922";
pub const WABA: &str = "1029384756";
/// The number that answers with the playground's document, and its id.
pub const PLAYGROUND: &str = "918035737459";
pub const PLAYGROUND_ID: &str = "106540352242923";
/// The WhatsApp user who calls.
pub const USER: &str = "919412341234";
pub const USER_NAME: &str = "Asha Verma";

/// Most numbers that are learned on demand.
const NUMBERS_MAX: usize = 10_000;

/// A business number as Meta knows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimNumber {
    /// E.164 digits, no plus.
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

/// The numbers of this world, by number and by id.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_number: BTreeMap<String, SimNumber>,
}

impl Numbers {
    pub(crate) fn of(numbers: Vec<SimNumber>) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|n| all.learn(n));
        all
    }

    /// Adds or replaces a number; past the bound the newcomer is not kept, so that calls to it fail by name.
    pub(crate) fn learn(&mut self, mut number: SimNumber) {
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
