//! Who there is and what they have set: accounts, applications, WABAs and numbers, as the configuration and the store
//! tell it together (`interface.md` §2).
//!
//! [`Book`] is a value: read from both, changed by pure functions (`change`) that say which rows to write. [`Keeper`]
//! holds the one in force, writes its rows, and puts what it says into the routing tables, for the next call on.
//!
//! The configuration wins for what it names, each time it is read: what was set over it is gone then. What it doesn't
//! name (subaccounts made here, applications, a number's alias and application) stays as it was set.

mod change;
mod entries;
mod keeper;

use std::collections::BTreeMap;

pub use change::{InFile, Key, TooMany, Used};
pub use entries::{Account, Application, Details, Link, Number, NumberSet, Waba};
pub use keeper::{Keeper, NotChanged, OpenError};

use self::entries::{AccountRow, WabaRow, write};
use super::directory::{AccountSpec, ApplicationSpec, NumberSpec, Specs};
use crate::config::{self, Config};
use crate::model::{AppId, AuthId, E164, Timestamp, WabaId};
use crate::store::{Scope, Setting, SettingKind, SettingWrite};

/// All of it, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Book {
    accounts: BTreeMap<AuthId, Account>,
    applications: BTreeMap<AppId, Application>,
    wabas: BTreeMap<WabaId, Waba>,
    numbers: BTreeMap<E164, Number>,
    /// `[limits]`.
    default_cps: u32,
    calls_per_number: u32,
}

/// Rows of the store that are of no use with this configuration; they stay, and count again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub kind: SettingKind,
    pub id: String,
    pub why: &'static str,
}

/// A book, what of it the store does not have yet, and what was passed over.
pub type Opened = (Book, Vec<SettingWrite>, Vec<PassedOver>);

impl Book {
    /// What the configuration alone says.
    pub fn of_file(config: &Config) -> Self {
        Self::read(config, Vec::new(), Timestamp::default()).0
    }

    /// What configuration and store say together. Entries that are seen for the first time begin at `now`.
    pub fn read(config: &Config, settings: Vec<Setting>, now: Timestamp) -> Opened {
        let mut reading = Reading::begin(config, settings, now);
        reading.accounts();
        reading.applications();
        reading.wabas();
        reading.numbers();
        (reading.book, reading.writes, reading.passed_over)
    }

    /// An account or subaccount.
    pub fn account(&self, id: &AuthId) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// A main account's subaccounts, newest first.
    pub fn subaccounts(&self, main: &AuthId) -> Vec<&Account> {
        let mut found: Vec<_> = self.accounts.values().filter(|a| a.parent.as_ref() == Some(main)).collect();
        found.sort_by_key(|a| (std::cmp::Reverse(a.details.created), a.auth_id.clone()));
        found
    }

    /// A subaccount of a main account's.
    pub fn subaccount(&self, main: &AuthId, id: &AuthId) -> Option<&Account> {
        self.accounts.get(id).filter(|a| a.parent.as_ref() == Some(main))
    }

    /// The main account of an account: itself, or its parent.
    pub fn main_of<'a>(&'a self, id: &'a AuthId) -> &'a AuthId {
        self.accounts.get(id).and_then(|a| a.parent.as_ref()).unwrap_or(id)
    }

    /// Whether something of an account's may be seen from there.
    pub fn is_within(&self, scope: &Scope, owner: &AuthId) -> bool {
        scope.holds(owner, self.main_of(owner))
    }

    /// An application of the scope's.
    pub fn application(&self, scope: &Scope, id: &AppId) -> Option<&Application> {
        self.applications.get(id).filter(|app| self.is_within(scope, &app.account))
    }

    /// The scope's applications, newest first.
    pub fn applications(&self, scope: &Scope) -> Vec<&Application> {
        let mut found: Vec<_> = self.applications.values().filter(|a| self.is_within(scope, &a.account)).collect();
        found.sort_by_key(|app| (std::cmp::Reverse(app.created), app.id.clone()));
        found
    }

    /// A number of the scope's.
    pub fn number(&self, scope: &Scope, number: &E164) -> Option<&Number> {
        self.numbers.get(number).filter(|number| self.is_within(scope, self.owner(number)))
    }

    /// The scope's numbers, newest first.
    pub fn numbers(&self, scope: &Scope) -> Vec<&Number> {
        let mut found: Vec<_> = self.numbers.values().filter(|n| self.is_within(scope, self.owner(n))).collect();
        found.sort_by_key(|n| (std::cmp::Reverse(n.set.added), n.file.number.clone()));
        found
    }

    /// The account or subaccount that a number's calls are of.
    pub fn owner(&self, number: &Number) -> &AuthId {
        // The configuration's reader has seen that every number's WABA is there.
        static NOBODY: std::sync::LazyLock<AuthId> = std::sync::LazyLock::new(|| AuthId::from(""));
        self.wabas.get(&number.file.waba).map_or(&NOBODY, Waba::account)
    }

    /// What the routing tables are made of.
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

    /// A number with an application uses its URLs, unless it has an answer URL of its own (`plivo-call-api.md` §5).
    fn number_spec(&self, number: &Number) -> Option<NumberSpec> {
        let (file, waba) = (&number.file, self.wabas.get(&number.file.waba)?);
        let own = |url: &Option<_>, method| url.clone().map(|url| (url, method));
        let app = number.set.app.as_ref().filter(|_| file.answer_url.is_none());
        let app = app.and_then(|id| self.applications.get(id));
        let of_app = |link: fn(&Application) -> &Link| app.and_then(|app| link(app).get());
        let answer = own(&file.answer_url, file.answer_method).or_else(|| of_app(|app| &app.answer));
        Some(NumberSpec {
            number: file.number.clone(),
            phone_number_id: file.phone_number_id.clone(),
            waba: file.waba.clone(),
            account: waba.account().clone(),
            alias: number.set.alias.clone(),
            // Without a document no call can be taken; `config check` asks for an answer URL or an application.
            calling_enabled: file.calling_enabled && answer.is_some(),
            answer,
            fallback: own(&file.fallback_url, file.fallback_method).or_else(|| of_app(|app| &app.fallback)),
            hangup: own(&file.hangup_url, file.hangup_method).or_else(|| of_app(|app| &app.hangup)),
            messages: file.webhook_url.clone(),
            calls_per_number: file.calls_per_number.unwrap_or(self.calls_per_number),
            permissions: file.permissions.clone(),
            access_token: waba.access_token.clone(),
        })
    }

    /// Whose token and keys are taken: every account's that is not disabled.
    pub fn credentials(&self) -> Vec<config::Account> {
        let enabled = self.accounts.values().filter(|account| account.details.enabled);
        let credentials = |a: &Account| {
            Some(config::Account {
                auth_id: a.auth_id.clone(),
                auth_token: a.tokens.first()?.clone(),
                auth_token_previous: a.tokens.get(1).cloned(),
                cps: a.cps,
                api_keys: a.api_keys.clone(),
                parent: a.parent.clone(),
            })
        };
        enabled.filter_map(credentials).collect()
    }
}

/// A book being read.
struct Reading<'c> {
    config: &'c Config,
    settings: BTreeMap<(SettingKind, String), Setting>,
    now: Timestamp,
    book: Book,
    writes: Vec<SettingWrite>,
    passed_over: Vec<PassedOver>,
}

impl<'c> Reading<'c> {
    fn begin(config: &'c Config, settings: Vec<Setting>, now: Timestamp) -> Self {
        let limits = &config.limits;
        let book =
            Book { default_cps: limits.default_cps, calls_per_number: limits.calls_per_number, ..Book::default() };
        let settings = settings.into_iter().map(|s| ((s.kind, s.id.clone()), s)).collect();
        Self { config, settings, now, book, writes: Vec::new(), passed_over: Vec::new() }
    }

    /// Takes a row; one that can't be read is as good as none.
    fn take<T: serde::de::DeserializeOwned>(&mut self, kind: SettingKind, id: &str) -> Option<T> {
        let setting = self.settings.remove(&(kind, id.to_owned()))?;
        self.parsed(&setting)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&mut self, setting: &Setting) -> Option<T> {
        let parsed = serde_json::from_str(&setting.body).ok();
        if parsed.is_none() {
            self.pass_over(setting, "it can't be read");
        }
        parsed
    }

    fn pass_over(&mut self, setting: &Setting, why: &'static str) {
        self.passed_over.push(PassedOver { kind: setting.kind, id: setting.id.clone(), why });
    }

    /// What is left of a kind: it is not in the configuration.
    fn rest(&mut self, kind: SettingKind) -> Vec<Setting> {
        let rest = self.settings.extract_if(.., |(of, _), _| *of == kind);
        rest.map(|(_, setting)| setting).collect()
    }

    fn accounts(&mut self) {
        for account in &self.config.accounts {
            let row = self.take::<AccountRow>(SettingKind::Account, account.auth_id.as_str());
            let is_new = row.is_none();
            let details = row.map_or_else(|| Details::new(String::new(), true, self.now), |row| row.details);
            let account = Account {
                auth_id: account.auth_id.clone(),
                parent: account.parent.clone(),
                tokens: std::iter::once(&account.auth_token).chain(&account.auth_token_previous).cloned().collect(),
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
            let is_main = |id: &AuthId| self.book.accounts.get(id).is_some_and(|a| a.parent.is_none());
            match (row.parent.filter(is_main), setting.secret.clone()) {
                (Some(parent), Some(token)) => {
                    let auth_id = AuthId::from(setting.id);
                    let (parent, tokens, details) = (Some(parent), vec![token], row.details);
                    let made = Account {
                        auth_id: auth_id.clone(),
                        parent,
                        tokens,
                        cps: None,
                        api_keys: Vec::new(),
                        in_file: false,
                        details,
                    };
                    self.book.accounts.insert(auth_id, made);
                }
                (Some(_), None) if setting.shut => {
                    self.pass_over(&setting, "another store.secret_key sealed its token: put that one back");
                }
                (Some(_), None) => self.pass_over(&setting, "it stood in the configuration, and does so no more"),
                (None, _) => self.pass_over(&setting, "its main account is not in the configuration"),
            }
        }
    }

    fn applications(&mut self) {
        for setting in self.rest(SettingKind::Application) {
            let Some(app) = self.parsed::<Application>(&setting) else { continue };
            if self.book.accounts.contains_key(&app.account) {
                self.book.applications.insert(app.id.clone(), app);
            } else {
                self.pass_over(&setting, "its account is not there");
            }
        }
    }

    fn wabas(&mut self) {
        for file in &self.config.wabas {
            let row = self.take::<WabaRow>(SettingKind::Waba, file.id.as_str());
            // Of a subaccount that the file itself names nothing is left to say.
            let fits = |to: &AuthId| self.book.subaccount(&file.account, to).is_some();
            let given_to = row.as_ref().map(|row| row.given_to.clone()).filter(fits);
            if row.is_some() && given_to.is_none() {
                self.writes.push(write(SettingKind::Waba, file.id.as_str(), None));
            }
            let access_token = self.config.access_token(&file.id).cloned();
            let waba = Waba { id: file.id.clone(), of: file.account.clone(), given_to, access_token };
            self.book.wabas.insert(file.id.clone(), waba);
        }
    }

    fn numbers(&mut self) {
        for file in &self.config.numbers {
            let row = self.take::<NumberSet>(SettingKind::Number, file.number.as_str());
            let default = || self.default_application(file);
            let first = || NumberSet { alias: String::new(), app: default(), added: self.now };
            let mut set = row.clone().unwrap_or_else(first);
            if !file.alias.is_empty() {
                set.alias.clone_from(&file.alias);
            }
            if file.app_id.is_some() {
                set.app.clone_from(&file.app_id);
            }
            let number = Number { file: file.clone(), set };
            self.writes.extend((row.as_ref() != Some(&number.set)).then(|| number.row()));
            self.book.numbers.insert(file.number.clone(), number);
        }
    }

    /// The application for numbers that come: the owner's, else its main account's.
    fn default_application(&self, number: &config::Number) -> Option<AppId> {
        let owner = self.book.wabas.get(&number.waba)?.account();
        let of = |account: &AuthId| {
            let mut apps = self.book.applications.values();
            apps.find(|app| app.default_for_numbers && app.account == *account).map(|app| app.id.clone())
        };
        of(owner).or_else(|| of(self.book.main_of(owner)))
    }
}
