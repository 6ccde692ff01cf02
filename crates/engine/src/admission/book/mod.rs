//! The book: accounts, applications, WABAs and numbers, merged from the configuration and the
//! store.
//!
//! [`Book`] is a value. It is read from both sources and changed by pure functions (`change`) that
//! return the keys of the rows to write. [`Keeper`] owns the current book, writes its rows and puts
//! it into the routing tables for the next call.
//!
//! The configuration wins for every key that it sets, each time it is read, and overwrites values
//! set at run time. Everything else is kept: subaccounts, applications and numbers created at run
//! time, and settings of numbers that the file leaves out.

mod change;
mod entries;
mod keeper;
mod link;
mod numbers;
mod panel;
mod tokens;

use std::collections::BTreeMap;

pub use change::{ApplicationInUse, InFile, Key, TooMany};
pub use entries::{Account, AccountCredentials, Application, Details, Number, TokenRotation, Waba};
pub use keeper::{ChangeError, Keeper, OpenError};
pub use link::Link;
pub use numbers::{ConnectRefusal, MetaApp};
pub use panel::{
    Calling, Configuration, ConnectedNumber, Drift, FileKeys, MetaState, NumberSet, Registration,
};
pub use tokens::RotateError;

use self::entries::AccountRow;
use super::directory::{ApplicationSpec, Specs};
use super::entry::AccountSpec;
use crate::admission::settings::{AdmissionSettings, Permissions};
use model::Secret;
use model::{AppId, AuthId, E164, Timestamp, WabaId};
use store::{Scope, Setting, SettingKind, SettingWrite};

/// The book at one moment.
#[derive(Clone, Debug, Default)]
pub struct Book {
    accounts: BTreeMap<AuthId, Account>,
    applications: BTreeMap<AppId, Application>,
    wabas: BTreeMap<WabaId, Waba>,
    numbers: BTreeMap<E164, Number>,
    /// `[limits]`.
    default_cps: u32,
    calls_per_number: u32,
    /// `[permissions]`.
    permissions: Permissions,
    /// `[meta]`.
    default_token: Option<Secret>,
    app: Option<MetaApp>,
    /// `[answer].allow_insecure`.
    insecure: bool,
}

/// A stored row that does not fit the current configuration. It is kept, and used again if the
/// configuration changes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    pub kind: SettingKind,
    pub id: String,
    pub why: &'static str,
}

/// The book, the rows to write, and the rows that were skipped.
pub type Opened = (Book, Vec<SettingWrite>, Vec<SkippedRow>);

impl Book {
    /// Builds a book from the configuration alone.
    pub fn of_file(file: AdmissionSettings<'_>) -> Self {
        Self::read(file, Vec::new(), Timestamp::default()).0
    }

    /// Builds a book from the configuration and the store. New entries get `now` as their creation
    /// time.
    pub fn read(file: AdmissionSettings<'_>, settings: Vec<Setting>, now: Timestamp) -> Opened {
        Reading::begin(file, settings, now).run()
    }

    /// Builds a book with the settings in force, which may have been changed since the configuration
    /// was read. The configuration does not overwrite them: that happens only when a node reads its
    /// file.
    pub fn read_changed(
        file: AdmissionSettings<'_>,
        settings: Vec<Setting>,
        now: Timestamp,
    ) -> Self {
        Reading { overwrites: false, ..Reading::begin(file, settings, now) }.run().0
    }

    /// Looks up an account or subaccount.
    pub fn account(&self, id: &AuthId) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// Whether there is more than one main account.
    pub fn has_several_main_accounts(&self) -> bool {
        self.accounts.values().filter(|a| a.parent.is_none()).nth(1).is_some()
    }

    /// The main account, if there is only one.
    pub fn only_main_account(&self) -> Option<&Account> {
        let mut main = self.accounts.values().filter(|account| account.parent.is_none());
        main.next().filter(|_| main.next().is_none())
    }

    /// The subaccounts of a main account, newest first.
    pub fn subaccounts(&self, main: &AuthId) -> Vec<&Account> {
        let mut found: Vec<_> =
            self.accounts.values().filter(|a| a.parent.as_ref() == Some(main)).collect();
        found.sort_by_key(|a| (std::cmp::Reverse(a.details.created), a.auth_id.clone()));
        found
    }

    /// Looks up a subaccount of a main account.
    pub fn subaccount(&self, main: &AuthId, id: &AuthId) -> Option<&Account> {
        self.accounts.get(id).filter(|a| a.parent.as_ref() == Some(main))
    }

    /// The main account of an account, which is the account or its parent.
    pub fn main_of<'a>(&'a self, id: &'a AuthId) -> &'a AuthId {
        self.accounts.get(id).and_then(|a| a.parent.as_ref()).unwrap_or(id)
    }

    /// Returns whether the scope includes the resources of `owner`.
    pub fn is_within(&self, scope: &Scope, owner: &AuthId) -> bool {
        scope.holds(owner, self.main_of(owner))
    }

    /// Looks up an application in the scope.
    pub fn application(&self, scope: &Scope, id: &AppId) -> Option<&Application> {
        self.applications.get(id).filter(|app| self.is_within(scope, &app.account))
    }

    /// The applications in the scope, newest first.
    pub fn applications(&self, scope: &Scope) -> Vec<&Application> {
        let mut found: Vec<_> =
            self.applications.values().filter(|a| self.is_within(scope, &a.account)).collect();
        found.sort_by_key(|app| (std::cmp::Reverse(app.created), app.id.clone()));
        found
    }

    /// Looks up a number in the scope.
    pub fn number(&self, scope: &Scope, number: &E164) -> Option<&Number> {
        self.numbers.get(number).filter(|number| self.is_within(scope, self.owner(number)))
    }

    /// The numbers in the scope, newest first.
    pub fn numbers(&self, scope: &Scope) -> Vec<&Number> {
        let mut found: Vec<_> =
            self.numbers.values().filter(|n| self.is_within(scope, self.owner(n))).collect();
        found.sort_by_key(|n| (std::cmp::Reverse(n.set.added), n.number.clone()));
        found
    }

    /// The account or subaccount that owns a number's calls.
    pub fn owner<'a>(&'a self, number: &'a Number) -> &'a AuthId {
        number.waba.as_ref().and_then(|waba| self.wabas.get(waba)).map_or(&number.of, Waba::account)
    }

    /// The input of the routing tables.
    pub fn specs(&self) -> Specs {
        let account = |a: &Account| AccountSpec {
            auth_id: a.auth_id.clone(),
            parent: a.parent.clone(),
            cps: a.cps,
            tokens: a.tokens.clone(),
        };
        let application = |a: &Application| ApplicationSpec {
            id: a.id.clone(),
            account: a.account.clone(),
            answer: a.answer.get(),
            fallback: a.fallback.get(),
            hangup: a.hangup.get(),
            default_for_endpoints: a.default_for_endpoints,
        };
        Specs {
            default_cps: self.default_cps,
            accounts: self.accounts.values().map(account).collect(),
            numbers: self.numbers.values().filter_map(|n| self.number_spec(n)).collect(),
            applications: self.applications.values().map(application).collect(),
        }
    }

    /// The credentials of all accounts that are not disabled.
    pub fn credentials(&self) -> Vec<AccountCredentials> {
        let enabled = self.accounts.values().filter(|account| account.details.enabled);
        let credentials = |a: &Account| AccountCredentials {
            auth_id: a.auth_id.clone(),
            tokens: a.accepted_tokens().to_vec(),
            api_keys: a.api_keys.clone(),
        };
        enabled.map(credentials).collect()
    }
}

/// A book while it is being read.
struct Reading<'c> {
    file: AdmissionSettings<'c>,
    settings: BTreeMap<(SettingKind, String), Setting>,
    /// Whether the configuration overwrites stored settings.
    overwrites: bool,
    now: Timestamp,
    book: Book,
    writes: Vec<SettingWrite>,
    skipped: Vec<SkippedRow>,
}

impl<'c> Reading<'c> {
    fn begin(file: AdmissionSettings<'c>, settings: Vec<Setting>, now: Timestamp) -> Self {
        let limits = file.limits;
        let book = Book {
            default_cps: limits.default_cps,
            calls_per_number: limits.calls_per_number,
            ..Book::of_meta(file)
        };
        let settings = settings.into_iter().map(|s| ((s.kind, s.id.clone()), s)).collect();
        let (overwrites, writes, skipped) = (true, Vec::new(), Vec::new());
        Self { file, settings, overwrites, now, book, writes, skipped }
    }

    fn run(mut self) -> Opened {
        self.accounts();
        self.applications();
        self.wabas();
        self.numbers();
        (self.book, self.writes, self.skipped)
    }

    /// Removes and parses a row. Returns `None` if it is missing or malformed.
    fn take<T: serde::de::DeserializeOwned>(&mut self, kind: SettingKind, id: &str) -> Option<T> {
        let setting = self.settings.remove(&(kind, id.to_owned()))?;
        self.parsed(&setting)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&mut self, setting: &Setting) -> Option<T> {
        let parsed = serde_json::from_str(&setting.body).ok();
        if parsed.is_none() {
            self.skip(setting, "the row is malformed");
        }
        parsed
    }

    fn skip(&mut self, setting: &Setting, why: &'static str) {
        self.skipped.push(SkippedRow { kind: setting.kind, id: setting.id.clone(), why });
    }

    /// Removes the remaining rows of a kind. Their entries are not in the configuration.
    fn rest(&mut self, kind: SettingKind) -> Vec<Setting> {
        let rest = self.settings.extract_if(.., |(of, _), _| *of == kind);
        rest.map(|(_, setting)| setting).collect()
    }

    fn accounts(&mut self) {
        for account in self.file.accounts {
            let setting = self.row_of(&account.auth_id);
            let (tokens, rotated) = self.tokens_of_file(account, setting.as_ref());
            let row = self.take::<AccountRow>(SettingKind::Account, account.auth_id.as_str());
            let is_token_unreadable = rotated.is_some() && setting.is_some_and(|s| s.is_unreadable);
            // A row with a rotated token that no longer counts is rewritten without it.
            let is_new = row.as_ref().is_none_or(|row| row.rotated && rotated.is_none());
            let details =
                row.map_or_else(|| Details::new(String::new(), true, self.now), |row| row.details);
            let account = Account {
                auth_id: account.auth_id.clone(),
                parent: account.parent.clone(),
                tokens,
                rotated,
                is_token_unreadable,
                cps: account.cps,
                api_keys: account.api_keys.clone(),
                in_file: true,
                details,
            };
            self.writes.extend(is_new.then(|| account.row()));
            self.book.accounts.insert(account.auth_id.clone(), account);
        }
        for setting in self.rest(SettingKind::Account) {
            let Some(row) = self.parsed::<AccountRow>(&setting) else { continue };
            let is_main =
                |id: &AuthId| self.book.accounts.get(id).is_some_and(|a| a.parent.is_none());
            match (row.parent.clone().filter(is_main), setting.secret.clone()) {
                (Some(parent), Some(token)) => {
                    let (tokens, rotated) = match row.rotated {
                        false => (vec![token], None),
                        true => match self.unseal_rotated(&row, Some(&token)) {
                            Some((tokens, rotated)) => (tokens, Some(rotated)),
                            None => {
                                self.skip(&setting, "its auth tokens are unreadable");
                                continue;
                            }
                        },
                    };
                    let auth_id = AuthId::from(setting.id);
                    let (parent, details) = (Some(parent), row.details);
                    let made = Account {
                        auth_id: auth_id.clone(),
                        parent,
                        tokens,
                        rotated,
                        is_token_unreadable: false,
                        cps: None,
                        api_keys: Vec::new(),
                        in_file: false,
                        details,
                    };
                    self.book.accounts.insert(auth_id, made);
                }
                (Some(_), None) if setting.is_unreadable => {
                    self.skip(
                        &setting,
                        "its token is sealed with another store.secret_key; restore that key",
                    );
                }
                (Some(_), None) => self.skip(&setting, "it was removed from the configuration"),
                (None, _) => self.skip(&setting, "its main account is not in the configuration"),
            }
        }
    }

    fn applications(&mut self) {
        for setting in self.rest(SettingKind::Application) {
            let Some(app) = self.parsed::<Application>(&setting) else { continue };
            if self.book.accounts.contains_key(&app.account) {
                self.book.applications.insert(app.id.clone(), app);
            } else {
                self.skip(&setting, "its account does not exist");
            }
        }
    }
}

/// Fixtures for the tests of several modules.
#[cfg(any(test, feature = "test-util"))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests"
)]
pub mod testing {
    use super::{Number, NumberSet};
    use model::E164;

    /// A number of the account `MA` and the WABA `1`.
    pub fn number(set: NumberSet) -> Number {
        Number {
            number: E164::parse("918035737458").unwrap(),
            phone_number_id: "7".into(),
            waba: Some("1".into()),
            of: "MA".into(),
            permissions: Default::default(),
            set_token: None,
            is_token_unreadable: false,
            in_file: false,
            set,
        }
    }
}
