//! WABAs and numbers in the book: reading them, building their routing tables, and connecting them
//! at run time. `panel` has the settings of one number.

use std::collections::BTreeSet;

use super::entries::{Application, Number, Waba, WabaRow};
use super::link::Link;
use super::panel::FileKeys;
use super::{Book, ConnectedNumber, Key, NumberSet, Reading, Registration};
use crate::admission::entry::NumberSpec;
use crate::admission::settings::{AdmissionSettings, NumberSettings};
use model::Secret;
use model::{AppId, AuthId, E164, PhoneNumberId, Timestamp, WabaId};
use store::{Scope, SettingKind};

/// Maximum number of phone numbers of a main account, including its subaccounts.
const NUMBERS_MAX: usize = 10_000;

/// The node's app at Meta. It exchanges sign-up codes and inspects tokens.
#[derive(Clone, Debug)]
pub struct MetaApp {
    pub id: String,
    pub secret: Secret,
}

/// Why a number could not be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// The number or its WABA belongs to another account.
    Taken,
    /// The maximum number of numbers is reached.
    TooMany(usize),
    /// The configuration file defines the number with this other id.
    InFile(PhoneNumberId),
}

impl Book {
    /// Takes the settings for numbers from `[meta]`, `[permissions]` and `[answer]`.
    pub(super) fn of_meta(file: AdmissionSettings<'_>) -> Self {
        let app = |id: &str| MetaApp { id: id.to_owned(), secret: file.app_secret.clone() };
        Self {
            permissions: file.permissions.clone(),
            default_token: file.access_token.cloned(),
            app: file.app_id.map(app),
            insecure: file.allow_insecure,
            ..Self::default()
        }
    }

    /// The node's app at Meta, if the configuration names it.
    pub fn app(&self) -> Option<&MetaApp> {
        self.app.as_ref()
    }

    /// Whether customers' URLs may use http and private addresses.
    pub fn allows_insecure(&self) -> bool {
        self.insecure
    }

    /// Looks up a WABA in the scope.
    pub fn waba(&self, scope: &Scope, id: &WabaId) -> Option<&Waba> {
        self.wabas.get(id).filter(|waba| self.is_within(scope, waba.account()))
    }

    /// Looks up a WABA in any account.
    pub fn any_waba(&self, id: &WabaId) -> Option<&Waba> {
        self.wabas.get(id)
    }

    /// All WABAs, ordered by id.
    pub fn wabas(&self) -> impl Iterator<Item = &Waba> {
        self.wabas.values()
    }

    /// The numbers of a WABA, in order.
    pub fn numbers_of(&self, waba: &WabaId) -> impl Iterator<Item = &Number> {
        self.numbers.values().filter(move |number| number.waba.as_ref() == Some(waba))
    }

    /// Looks up a number by Meta's id.
    pub fn number_by_id(&self, id: &PhoneNumberId) -> Option<&Number> {
        self.numbers.values().find(|number| number.phone_number_id == *id)
    }

    /// Looks up a number in any account.
    pub fn any_number(&self, number: &E164) -> Option<&Number> {
        self.numbers.get(number)
    }

    /// All numbers, in order.
    pub fn all_numbers(&self) -> impl Iterator<Item = &Number> {
        self.numbers.values()
    }

    /// The access token for Graph requests about a number.
    pub fn token_of<'a>(&'a self, number: &'a Number) -> Option<&'a Secret> {
        let of_waba = || {
            number.waba.as_ref().and_then(|waba| self.wabas.get(waba)).and_then(Waba::access_token)
        };
        number.set_token.as_ref().or_else(of_waba).or(self.default_token.as_ref())
    }

    /// The access token for Graph requests about a WABA.
    pub fn token_of_waba(&self, waba: &Waba) -> Option<Secret> {
        waba.access_token().or(self.default_token.as_ref()).cloned()
    }

    /// Numbers and WABAs with an unreadable token.
    pub(super) fn unreadable_tokens(&self) -> Vec<&str> {
        let numbers = self
            .numbers
            .values()
            .filter(|number| number.is_token_unreadable)
            .map(|number| number.number.as_str());
        numbers
            .chain(
                self.wabas
                    .values()
                    .filter(|waba| waba.is_token_unreadable)
                    .map(|waba| waba.id.as_str()),
            )
            .collect()
    }

    /// Whether the token of a number or of its WABA is unreadable, because it was encrypted with
    /// another `store.secret_key`.
    pub fn has_unreadable_token(&self, number: &Number) -> bool {
        let of_waba = || number.waba.as_ref().and_then(|waba| self.wabas.get(waba));
        number.is_token_unreadable
            || (number.set_token.is_none()
                && of_waba().is_some_and(|waba| waba.is_token_unreadable))
    }

    /// Slots of a number without its own limit.
    pub fn default_slots(&self) -> u32 {
        self.calls_per_number
    }

    /// The effective answer URL: the number's own, or else its application's.
    pub fn answer_of(&self, number: &Number) -> Link {
        let own = &number.set.answer;
        if own.url.is_some() {
            return own.clone();
        }
        self.app_in_force(number).map_or_else(|| own.clone(), |app| app.answer.clone())
    }

    pub(super) fn app_in_force(&self, number: &Number) -> Option<&Application> {
        let app = number.set.app.as_ref().filter(|_| number.set.answer.url.is_none())?;
        let owner = self.owner(number);
        self.applications.get(app).filter(|app| self.trusts(owner, &app.account))
    }

    /// Whether the applications and URLs of another account may receive the calls and messages of an
    /// account: if it is in the account's scope, or its main account.
    pub fn trusts(&self, account: &AuthId, other: &AuthId) -> bool {
        self.is_within(&Scope::of(account.clone()), other) || other == self.main_of(account)
    }

    /// Removes the URLs of a number that were set while it belonged to an account that its owner does not
    /// trust. Returns whether there were any.
    fn clear_foreign_urls(&mut self, number: &E164) -> bool {
        let Some(there) = self.numbers.get(number) else { return false };
        let of = there.set.urls_of.as_ref();
        let is_foreign = of.is_some_and(|of| !self.trusts(self.owner(there), of));
        if let Some(there) = self.numbers.get_mut(number).filter(|_| is_foreign) {
            there.set.clear_urls();
        }
        is_foreign
    }

    pub(super) fn number_spec(&self, number: &Number) -> Option<NumberSpec> {
        if number.set.disconnected {
            return None;
        }
        let set = &number.set;
        let app = self.app_in_force(number);
        let of_app = |link: fn(&Application) -> &Link| app.and_then(|app| link(app).get());
        let by_agent = set.configuration == super::Configuration::Agent;
        let answer = self.answer_of(number).get();
        Some(NumberSpec {
            number: number.number.clone(),
            phone_number_id: number.phone_number_id.clone(),
            first_id: number.first_id().clone(),
            waba: number.waba.clone().unwrap_or_else(|| WabaId::from("")),
            account: self.owner(number).clone(),
            alias: set.alias.clone(),
            // Without a document no call can be answered.
            calling_enabled: set.calling_enabled && (answer.is_some() || by_agent),
            silent: set.inactive,
            agent_first: by_agent,
            answer,
            fallback: set.fallback.get().or_else(|| of_app(|app| &app.fallback)),
            hangup: set.hangup.get().or_else(|| of_app(|app| &app.hangup)),
            messages: set
                .webhook_url
                .clone()
                .filter(|_| set.configuration == super::Configuration::Webhook),
            calls_per_number: set.calls_per_number.unwrap_or(self.calls_per_number),
            permissions: number.permissions.clone(),
            access_token: self.token_of(number).cloned(),
        })
    }

    /// Adds a WABA, or sets the token of an existing one.
    ///
    /// # Errors
    ///
    /// Returns an error if the WABA belongs to an account outside the scope of `of`.
    pub fn connect_waba(
        &mut self,
        id: &WabaId,
        of: &AuthId,
        token: Option<Secret>,
    ) -> Result<Vec<Key>, ConnectRefusal> {
        let scope = Scope::of(of.clone());
        match self.wabas.get(id).map(|waba| self.is_within(&scope, waba.account())) {
            Some(false) => return Err(ConnectRefusal::Taken),
            Some(true) => {}
            None => {
                let made = Waba {
                    id: id.clone(),
                    of: of.clone(),
                    given_to: None,
                    file_token: None,
                    set_token: None,
                    is_token_unreadable: false,
                    in_file: false,
                };
                self.wabas.insert(id.clone(), made);
            }
        }
        if let Some(waba) = self.wabas.get_mut(id).filter(|_| token.is_some()) {
            (waba.set_token, waba.is_token_unreadable) = (token, false);
        }
        Ok(vec![Key::Waba(id.clone())])
    }

    /// Whether a number belongs to an account outside the scope of `made.of`.
    pub fn is_foreign(&self, number: &Number, made: &ConnectedNumber) -> bool {
        // Numbers that Meta lists under a WABA belong to the account of the WABA, even if a
        // subaccount holds them.
        let of_waba = made
            .waba
            .as_ref()
            .and_then(|waba| self.wabas.get(waba))
            .is_some_and(|waba| waba.of == made.of);
        !(self.is_within(&Scope::of(made.of.clone()), self.owner(number))
            || of_waba && number.waba == made.waba)
    }

    /// Adds a number, or updates ids and token of an existing one and connects it.
    ///
    /// # Errors
    ///
    /// Returns an error if the number belongs to an account outside the scope of `made.of` and not
    /// to one of its WABAs, or if the limit on numbers is reached.
    pub fn connect_number(
        &mut self,
        (number, made): (&E164, ConnectedNumber),
        token: Option<Secret>,
        now: Timestamp,
    ) -> Result<Vec<Key>, ConnectRefusal> {
        let main = self.main_of(&made.of).clone();
        // An id that another number once had is refused too, since that number's conversations are
        // stored under it.
        let id = &made.phone_number_id;
        let mut others = self.numbers.values().filter(|other| other.number != *number);
        let same_id = others.any(|other| other.phone_number_id == *id || other.first_id() == id);
        if same_id || self.numbers.get(number).is_some_and(|there| self.is_foreign(there, &made)) {
            return Err(ConnectRefusal::Taken);
        }
        let there = self.numbers.values().filter(|n| *self.main_of(self.owner(n)) == main).count();
        if there >= NUMBERS_MAX && !self.numbers.contains_key(number) {
            return Err(ConnectRefusal::TooMany(NUMBERS_MAX));
        }
        if let Some(there) = self.numbers.get_mut(number) {
            if there.in_file && there.phone_number_id != made.phone_number_id {
                return Err(ConnectRefusal::InFile(there.phone_number_id.clone()));
            }
            there.set.reconnect();
            there.is_token_unreadable &= token.is_none();
            there.set_token = token.or(there.set_token.take());
            if !there.in_file {
                let before = there.phone_number_id.clone();
                there.set.first_id.get_or_insert(before);
                there.phone_number_id = made.phone_number_id.clone();
                there.waba = made.waba.clone().or(there.waba.take());
                there.set.made = Some(ConnectedNumber { waba: there.waba.clone(), ..made });
            }
            return Ok(vec![Key::Number(number.clone())]);
        }
        let app = self.default_application(made.waba.as_ref(), &made.of);
        let first_id = Some(made.phone_number_id.clone());
        let set = NumberSet {
            added: now,
            app,
            made: Some(made.clone()),
            first_id,
            ..NumberSet::default()
        };
        let ConnectedNumber { phone_number_id, waba, of } = made;
        let permissions = self.permissions.clone();
        let (in_file, number) = (false, number.clone());
        let key = Key::Number(number.clone());
        let entry = Number {
            number: number.clone(),
            phone_number_id,
            waba,
            of,
            permissions,
            set_token: token,
            is_token_unreadable: false,
            in_file,
            set,
        };
        self.numbers.insert(number, entry);
        Ok(vec![key])
    }

    /// Sets the WABA of a number that was connected without one, as reported by Meta.
    pub fn adopt_number(&mut self, number: &E164, waba: &WabaId) -> Vec<Key> {
        let Some(there) = self.numbers.get_mut(number) else { return Vec::new() };
        if there.waba.is_some() || there.in_file {
            return Vec::new();
        }
        there.waba = Some(waba.clone());
        if let Some(made) = &mut there.set.made {
            made.waba = Some(waba.clone());
        }
        vec![Key::Number(number.clone())]
    }

    /// Assigns a WABA to a subaccount, or back to the main account. Its numbers lose the URLs of an
    /// account that the new owner does not [trust](Self::trusts), and get the default application in
    /// place of one of such an account.
    pub fn assign_waba(&mut self, id: &WabaId, to: &AuthId) -> Vec<Key> {
        let Some(waba) = self.wabas.get_mut(id) else { return Vec::new() };
        waba.given_to = Some(to.clone()).filter(|to| *to != waba.of);
        let numbers: Vec<_> = self.numbers_of(id).map(|number| number.number.clone()).collect();
        let default = self.default_application(Some(id), to);
        let mut keys = vec![Key::Waba(id.clone())];
        for number in numbers {
            let had_urls = self.clear_foreign_urls(&number);
            let set = self.numbers.get(&number).and_then(|there| there.set.app.as_ref());
            let app = set.and_then(|app| self.applications.get(app));
            let is_replaced = app.map_or(had_urls, |app| !self.trusts(to, &app.account));
            if is_replaced {
                keys.extend(self.edit_number(&number, |set| set.app.clone_from(&default)));
            } else if had_urls {
                keys.push(Key::Number(number));
            }
        }
        keys
    }

    /// Passes a subaccount's WABAs and numbers to the main account, which also takes over the URLs that
    /// the subaccount set, so that no calls are lost.
    pub(super) fn pass_to_main(&mut self, from: &AuthId, main: &AuthId) -> Vec<Key> {
        let mut keys = Vec::new();
        for waba in self.wabas.values_mut().filter(|waba| waba.of == *from) {
            waba.of.clone_from(main);
            // It was assigned to the main account, which now owns it.
            waba.given_to = waba.given_to.take().filter(|to| to != main);
            keys.push(Key::Waba(waba.id.clone()));
        }
        for number in self.numbers.values_mut() {
            let set_urls = number.set.urls_of.take_if(|of| of == from).is_some();
            if set_urls {
                number.set.urls_of = Some(main.clone());
            }
            let is_its = number.of == *from;
            if is_its {
                number.of.clone_from(main);
                if let Some(made) = &mut number.set.made {
                    made.of.clone_from(main);
                }
            }
            keys.extend((is_its || set_urls).then(|| Key::Number(number.number.clone())));
        }
        keys
    }

    /// Disconnects a number. Its WABA returns to the main account unless other numbers of it are
    /// still connected.
    pub fn disconnect(&mut self, number: &E164) -> Vec<Key> {
        let Some(entry) = self.numbers.get_mut(number) else { return Vec::new() };
        entry.set.disconnect();
        let mut keys = vec![Key::Number(number.clone())];
        let Some(id) = entry.waba.clone() else { return keys };
        let alone = !self.numbers_of(&id).any(|other| !other.set.disconnected);
        if let Some(waba) = self.wabas.get_mut(&id).filter(|waba| alone && waba.given_to.is_some())
        {
            waba.given_to = None;
            keys.push(Key::Waba(id));
        }
        keys
    }

    /// Marks registrations that a previous process had begun as failed, since their outcome is
    /// unknown. Called at start only.
    pub(super) fn fail_interrupted(&mut self, now: Timestamp) -> Vec<Key> {
        let running = self
            .numbers
            .values_mut()
            .filter(|number| number.set.registration == Registration::Running);
        let failed = running.map(|number| {
            let reason = "the node restarted during the registration; try again".to_owned();
            number.set.registration = Registration::Failed { reason, again: now };
            Key::Number(number.number.clone())
        });
        failed.collect()
    }

    /// The default application for new numbers: the owner's, or else its main account's.
    fn default_application(&self, waba: Option<&WabaId>, of: &AuthId) -> Option<AppId> {
        let owner = waba.and_then(|waba| self.wabas.get(waba)).map_or(of, Waba::account);
        let of = |account: &AuthId| {
            let mut apps = self.applications.values();
            apps.find(|app| app.default_for_numbers && app.account == *account)
                .map(|app| app.id.clone())
        };
        of(owner).or_else(|| of(self.main_of(owner)))
    }
}

impl Reading<'_> {
    pub(super) fn wabas(&mut self) {
        for file in self.file.wabas {
            let (row, secret, is_token_unreadable) =
                self.take_with_secret::<WabaRow>(SettingKind::Waba, file.id.as_str());
            let before = row.as_ref().and_then(|row| row.given_to.clone());
            // An assignment to a subaccount is dropped if the file itself names a subaccount.
            let fits = |to: &AuthId| self.book.subaccount(&file.account, to).is_some();
            let given_to = before.clone().filter(fits);
            let waba = Waba {
                id: file.id.clone(),
                of: file.account.clone(),
                given_to,
                file_token: file.access_token.clone(),
                set_token: secret,
                is_token_unreadable,
                in_file: true,
            };
            self.writes.extend((before != waba.given_to).then(|| waba.row()));
            self.book.wabas.insert(file.id.clone(), waba);
        }
        for setting in self.rest(SettingKind::Waba) {
            let Some(row) = self.parsed::<WabaRow>(&setting) else { continue };
            let Some(of) = row.of.filter(|of| self.book.accounts.contains_key(of)) else {
                self.skip(&setting, "it or its account was removed from the configuration");
                continue;
            };
            let given_to = row.given_to.filter(|to| self.book.accounts.contains_key(to));
            let id = WabaId::from(setting.id);
            let (set_token, is_token_unreadable) = (setting.secret, setting.is_unreadable);
            let made = Waba {
                id: id.clone(),
                of,
                given_to,
                file_token: None,
                set_token,
                is_token_unreadable,
                in_file: false,
            };
            self.book.wabas.insert(id, made);
        }
    }

    pub(super) fn numbers(&mut self) {
        for file in self.file.numbers {
            self.number_of_file(file);
        }
        let mut ids: BTreeSet<_> =
            self.book.numbers.values().map(|n| n.phone_number_id.clone()).collect();
        for setting in self.rest(SettingKind::Number) {
            let Some(set) = self.parsed::<NumberSet>(&setting) else { continue };
            // A number that was only in the configuration has no meaning without it.
            let Some(ConnectedNumber { phone_number_id, waba, of }) = set.made.clone() else {
                continue;
            };
            let Ok(number) = E164::parse(&setting.id) else {
                self.skip(&setting, "its id is not a phone number");
                continue;
            };
            let is_orphaned = !self.book.accounts.contains_key(&of)
                || waba.as_ref().is_some_and(|waba| !self.book.wabas.contains_key(waba));
            if is_orphaned || !ids.insert(phone_number_id.clone()) {
                self.skip(
                    &setting,
                    "its account or WABA does not exist, or another number has its phone_number_id",
                );
                continue;
            }
            let permissions = self.book.permissions.clone();
            let (set_token, is_token_unreadable) = (setting.secret, setting.is_unreadable);
            let entry = Number {
                number: number.clone(),
                phone_number_id,
                waba,
                of,
                permissions,
                set_token,
                is_token_unreadable,
                in_file: false,
                set,
            };
            self.book.numbers.insert(number.clone(), entry);
            if self.book.clear_foreign_urls(&number) {
                self.writes.extend(self.book.any_number(&number).map(Number::row));
            }
        }
    }

    fn number_of_file(&mut self, file: &NumberSettings) {
        let (row, set_token, is_token_unreadable) =
            self.take_with_secret::<NumberSet>(SettingKind::Number, file.number.as_str());
        let of = self
            .book
            .wabas
            .get(&file.waba)
            .map(|waba| waba.of.clone())
            .unwrap_or_else(|| AuthId::from(""));
        let first = || {
            let app = self.book.default_application(Some(&file.waba), &of);
            let file = Some(FileKeys::default());
            NumberSet { app, added: self.now, file, ..NumberSet::default() }
        };
        let mut set = row.clone().unwrap_or_else(first);
        if self.overwrites || row.is_none() {
            set.overlay(file);
        }
        set.made = None;
        // The file can also give a number a new id, after it was added to Meta again. An id that
        // the file gives to another number belongs to that one.
        let is_anothers = |id: &PhoneNumberId| {
            let mut others = self.file.numbers.iter().filter(|other| other.number != file.number);
            *id != file.phone_number_id && others.any(|other| other.phone_number_id == *id)
        };
        let first_id = set.first_id.take().filter(|id| !is_anothers(id));
        set.first_id = first_id.or_else(|| Some(file.phone_number_id.clone()));
        let entry = Number {
            number: file.number.clone(),
            phone_number_id: file.phone_number_id.clone(),
            waba: Some(file.waba.clone()),
            of,
            permissions: file.permissions.clone(),
            set_token,
            is_token_unreadable,
            in_file: true,
            set,
        };
        self.book.numbers.insert(file.number.clone(), entry);
        self.book.clear_foreign_urls(&file.number);
        let entry = self.book.any_number(&file.number);
        let changed = entry.filter(|entry| row.as_ref() != Some(&entry.set));
        self.writes.extend(changed.map(Number::row));
    }

    /// Like [`Reading::take`], and also returns the row's secret and whether it was encrypted with
    /// another key.
    fn take_with_secret<T: serde::de::DeserializeOwned>(
        &mut self,
        kind: SettingKind,
        id: &str,
    ) -> (Option<T>, Option<Secret>, bool) {
        let setting = self.settings.get(&(kind, id.to_owned()));
        let (secret, is_token_unreadable) = setting
            .map(|setting| (setting.secret.clone(), setting.is_unreadable))
            .unwrap_or_default();
        (self.take(kind, id), secret, is_token_unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::book::Details;
    use crate::admission::settings::{AccountSettings, Permissions, WabaSettings};
    use crate::config::Config;
    use store::Setting;

    /// A configuration with one main account.
    fn config() -> Config {
        let mut config = Config::with(Secret::new("a"), Secret::new("b"));
        config.accounts.push(AccountSettings {
            auth_id: "MA1".into(),
            auth_token: Secret::new("t"),
            auth_token_previous: None,
            cps: None,
            api_keys: Vec::new(),
            parent: None,
        });
        config
    }

    fn config_number(number: &str, id: &str) -> NumberSettings {
        NumberSettings {
            number: E164::parse(number).unwrap(),
            phone_number_id: id.into(),
            waba: "7".into(),
            alias: String::new(),
            calling_enabled: false,
            calling_named: false,
            app_id: None,
            answer_url: None,
            answer_method: model::Method::Post,
            fallback_url: None,
            fallback_method: model::Method::Post,
            hangup_url: None,
            hangup_method: model::Method::Post,
            webhook_url: None,
            calls_per_number: None,
            permissions: Permissions::default(),
        }
    }

    fn add_subaccount(book: &mut Book, id: &str) {
        let details = Details::new("s".to_owned(), true, Timestamp::default());
        book.create_subaccount(&"MA1".into(), (id.into(), Secret::new("t")), details).unwrap();
    }

    fn book() -> Book {
        let mut book = Book::of_file(config().admission());
        add_subaccount(&mut book, "SA1");
        book
    }

    #[test]
    fn numbers_of_a_removed_subaccount_pass_to_its_main_account() {
        let mut book = book();
        let (waba, number): (WabaId, E164) = ("7".into(), E164::parse("918035737458").unwrap());
        let made = ConnectedNumber {
            phone_number_id: "77".into(),
            waba: Some(waba.clone()),
            of: "SA1".into(),
        };
        book.connect_waba(&waba, &"SA1".into(), Some(Secret::new("w"))).unwrap();
        book.connect_number((&number, made.clone()), None, Timestamp::from_secs(1)).unwrap();
        let sub = Scope::of("SA1".into());
        assert!(book.number(&sub, &number).is_some());
        let token = |book: &Book| {
            book.token_of(book.any_number(&number).unwrap()).map(|t| t.reveal().to_owned())
        };
        assert_eq!(token(&book).as_deref(), Some("w"), "its WABA's");
        let keys = book.remove_subaccount(&"SA1".into(), false).unwrap();
        assert!(
            keys.contains(&Key::Waba(waba.clone())) && keys.contains(&Key::Number(number.clone())),
            "{keys:?}"
        );
        assert!(book.number(&Scope::of("MA1".into()), &number).is_some());
        let specs = book.specs();
        assert_eq!(specs.numbers[0].account, "MA1".into(), "the tables know its account");
        // Another main account never gets them.
        let theirs = ConnectedNumber { of: "MA2".into(), ..made };
        assert_eq!(
            book.connect_number((&number, theirs), None, Timestamp::default()),
            Err(ConnectRefusal::Taken)
        );
        assert_eq!(book.connect_waba(&waba, &"MA2".into(), None), Err(ConnectRefusal::Taken));
    }

    #[test]
    fn r16_a_subaccount_cannot_take_over_numbers_of_its_parent_or_siblings() {
        let mut book = book();
        add_subaccount(&mut book, "SA2");
        let number = |n: u8| E164::parse(&format!("91803573745{n}")).unwrap();
        let made = |waba: Option<&str>, of: &str, id: u8| ConnectedNumber {
            phone_number_id: format!("{id}").as_str().into(),
            waba: waba.map(WabaId::from),
            of: of.into(),
        };
        let now = Timestamp::default();
        book.connect_waba(&"7".into(), &"MA1".into(), None).unwrap();
        book.connect_number((&number(1), made(Some("7"), "MA1", 1)), None, now).unwrap();
        book.connect_number((&number(2), made(None, "SA2", 2)), None, now).unwrap();
        for (n, waba) in [(1, None), (1, Some("8")), (2, None)] {
            let taken = book.connect_number(
                (&number(n), made(waba, "SA1", n)),
                Some(Secret::new("t")),
                now,
            );
            assert_eq!(taken, Err(ConnectRefusal::Taken), "{n} {waba:?}");
        }
        assert_eq!(
            book.connect_waba(&"7".into(), &"SA1".into(), Some(Secret::new("t"))),
            Err(ConnectRefusal::Taken)
        );
        assert!(book.any_number(&number(1)).unwrap().set_token.is_none());
        // A main account may take over its subaccounts' numbers.
        book.connect_number((&number(2), made(None, "MA1", 2)), Some(Secret::new("t")), now)
            .unwrap();
        // A subaccount may connect a number again that was assigned to it.
        book.assign_waba(&"7".into(), &"SA1".into());
        book.connect_waba(&"7".into(), &"SA1".into(), None).unwrap();
        book.connect_number((&number(1), made(Some("7"), "SA1", 1)), None, now).unwrap();
    }

    #[test]
    fn r16_the_application_of_a_former_owner_does_not_answer_the_calls_of_a_moved_number() {
        let mut book = book();
        add_subaccount(&mut book, "SA2");
        let (waba, number): (WabaId, E164) = ("7".into(), E164::parse("918035737458").unwrap());
        let made = ConnectedNumber {
            phone_number_id: "77".into(),
            waba: Some(waba.clone()),
            of: "MA1".into(),
        };
        book.connect_waba(&waba, &"MA1".into(), None).unwrap();
        book.connect_number((&number, made), None, Timestamp::default()).unwrap();
        let mut app = |account: &str, url: &str, default_for_numbers: bool| {
            let app = Application {
                id: account.into(),
                account: account.into(),
                name: url.to_owned(),
                answer: Link { url: Some(xml::ast::DocUrl(url.into())), ..Link::default() },
                fallback: Link::default(),
                hangup: Link::default(),
                message: Link::default(),
                default_for_numbers,
                default_for_endpoints: false,
                public_uri: false,
                log_incoming_messages: false,
                created: Timestamp::default(),
            };
            let id = app.id.clone();
            book.put_application(app).unwrap();
            id
        };
        let main = app("MA1", "https://main.example/", false);
        let first = app("SA1", "https://first.example/", false);
        app("SA2", "https://second.example/", true);
        let answer = |book: &Book| {
            let answer = book.answer_of(book.any_number(&number).unwrap()).url;
            answer.map(|url| url.0.to_string())
        };
        let set_app = |book: &mut Book, app: &AppId| {
            book.edit_number(&number, |set| set.app = Some(app.clone()));
        };
        // The application of the main account stays, and that of a subaccount in its main account.
        set_app(&mut book, &main);
        book.assign_waba(&waba, &"SA1".into());
        assert_eq!(answer(&book).as_deref(), Some("https://main.example/"));
        set_app(&mut book, &first);
        book.assign_waba(&waba, &"MA1".into());
        assert_eq!(answer(&book).as_deref(), Some("https://first.example/"));
        let keys = book.assign_waba(&waba, &"SA2".into());
        assert_eq!(keys, [Key::Waba(waba.clone()), Key::Number(number.clone())]);
        assert_eq!(answer(&book).as_deref(), Some("https://second.example/"));
        // URLs stay with those who set them, and with their main account.
        let set_url = |book: &mut Book, url: &str| {
            let url = Some(xml::ast::DocUrl(url.into()));
            book.edit_number(&number, |set| set.answer.url.clone_from(&url));
        };
        set_url(&mut book, "https://theirs.example/");
        book.assign_waba(&waba, &"MA1".into());
        assert_eq!(answer(&book).as_deref(), Some("https://theirs.example/"));
        book.assign_waba(&waba, &"SA2".into());
        assert_eq!(answer(&book).as_deref(), Some("https://theirs.example/"));
        book.assign_waba(&waba, &"MA1".into());
        book.assign_waba(&waba, &"SA1".into());
        assert_eq!(answer(&book), None, "SA2 set it");
        book.assign_waba(&waba, &"MA1".into());
        set_url(&mut book, "https://main.example/2");
        book.assign_waba(&waba, &"SA2".into());
        assert_eq!(answer(&book).as_deref(), Some("https://main.example/2"));
        book.edit_number(&number, NumberSet::clear_urls);
        // A reload may change the owner, too.
        set_app(&mut book, &first);
        assert_eq!(answer(&book), None);
        book.edit_number(&number, |set| set.calling_enabled = true);
        book.remove_application(&first).unwrap();
    }

    #[test]
    fn r16_a_number_that_the_file_gives_to_another_account_loses_the_urls_of_the_former() {
        let mut config = config();
        let account = config.accounts[0].clone();
        config.accounts.push(AccountSettings { auth_id: "MA2".into(), ..account });
        let waba = WabaSettings { id: "7".into(), account: "MA1".into(), access_token: None };
        config.wabas.push(waba);
        let url = |url: &str| Some(xml::ast::DocUrl(url.into()));
        let of_file = config_number("918035737458", "1001");
        config.numbers.push(NumberSettings { answer_url: url("https://file.example/"), ..of_file });
        let number = E164::parse("918035737458").unwrap();
        let read = |config: &Config, rows: Vec<Setting>| {
            Book::read(config.admission(), rows, Timestamp::default()).0
        };
        let row = |book: &Book| {
            let (body, secret) = book.row(&Key::Number(number.clone())).body.unwrap();
            let (kind, id) = (SettingKind::Number, number.to_string());
            vec![Setting { kind, id, body, secret, is_unreadable: false }]
        };
        let mut book = read(&config, Vec::new());
        book.edit_number(&number, |set| set.hangup.url = url("https://api.example/"));
        let set = |book: &Book| book.any_number(&number).unwrap().set.clone();
        let again = read(&config, row(&book));
        assert_eq!(set(&again).hangup.url, url("https://api.example/"));
        config.wabas[0].account = "MA2".into();
        let moved = set(&read(&config, row(&book)));
        let urls = [moved.answer.url, moved.hangup.url];
        assert_eq!(urls, [url("https://file.example/"), None]);
    }

    #[test]
    fn an_unreadable_token_is_kept_until_another_is_set() {
        let id = "918035737458";
        let made = ConnectedNumber { phone_number_id: "77".into(), waba: None, of: "MA1".into() };
        let set = NumberSet {
            made: Some(made.clone()),
            registration: Registration::Running,
            ..NumberSet::default()
        };
        let body = serde_json::to_string(&set).unwrap();
        let setting = Setting {
            kind: SettingKind::Number,
            id: id.to_owned(),
            body,
            secret: None,
            is_unreadable: true,
        };
        let (mut book, ..) = Book::read(config().admission(), vec![setting], Timestamp::default());
        let number = E164::parse(id).unwrap();
        assert!(
            book.has_unreadable_token(book.any_number(&number).unwrap())
                && book.unreadable_tokens() == [id]
        );
        assert_eq!(
            book.any_number(&number).unwrap().set.registration,
            Registration::Running,
            "a reload does not end registrations"
        );
        let keys = book.fail_interrupted(Timestamp::default());
        assert!(
            matches!(
                book.any_number(&number).unwrap().set.registration,
                Registration::Failed { .. }
            ),
            "a start does"
        );
        let row = book.row(&keys[0]);
        assert!(row.keeps_sealed && matches!(row.body, Some((_, None))));
        let keys = book
            .connect_number((&number, made), Some(Secret::new("new")), Timestamp::default())
            .unwrap();
        assert!(
            !book.row(&keys[0]).keeps_sealed
                && !book.has_unreadable_token(book.any_number(&number).unwrap())
        );
    }

    #[test]
    fn a_key_that_is_removed_from_the_file_gets_the_value_of_the_api_again() {
        let mut config = config();
        let waba = WabaSettings { id: "7".into(), account: "MA1".into(), access_token: None };
        config.wabas.push(waba);
        config.numbers.push(config_number("918035737458", "1001"));
        let number = E164::parse("918035737458").unwrap();
        let row = |book: &Book| {
            let (body, secret) = book.row(&Key::Number(number.clone())).body.unwrap();
            let (kind, id) = (SettingKind::Number, number.to_string());
            Setting { kind, id, body, secret, is_unreadable: false }
        };
        let read = |config: &Config, rows: Vec<Setting>| {
            Book::read(config.admission(), rows, Timestamp::default()).0
        };
        let set = |book: &Book| book.any_number(&number).unwrap().set.clone();
        let edit = |book: &mut Book, calls: u32| {
            book.edit_number(&number, |set| set.calls_per_number = Some(calls))
        };
        // A value of the API lies beneath that of the file, also one that is set later.
        let mut book = read(&config, Vec::new());
        edit(&mut book, 7);
        config.numbers[0].calls_per_number = Some(7);
        let mut book = read(&config, vec![row(&book)]);
        config.numbers[0].calls_per_number = None;
        assert_eq!(set(&read(&config, vec![row(&book)])).calls_per_number, Some(7));
        config.numbers[0].calls_per_number = Some(5);
        edit(&mut book, 8);
        book = read(&config, vec![row(&book)]);
        assert_eq!(set(&book).calls_per_number, Some(5));
        book = read(&config, vec![row(&book)]);
        config.numbers[0].calls_per_number = None;
        book = read(&config, vec![row(&book)]);
        assert_eq!(set(&book).calls_per_number, Some(8));

        // In a row of an older version, the value of the file is not of the API, unless the number
        // was connected at run time.
        config.numbers[0].calls_per_number = Some(8);
        let older = |made: Option<ConnectedNumber>| {
            let older = NumberSet { file: None, made, ..set(&book) };
            Setting { body: serde_json::to_string(&older).unwrap(), ..row(&book) }
        };
        let made = ConnectedNumber { phone_number_id: "1001".into(), waba: None, of: "MA1".into() };
        for (made, expected) in [(None, None), (Some(made), Some(8))] {
            let book = read(&config, vec![older(made)]);
            let mut without = config.clone();
            without.numbers[0].calls_per_number = None;
            assert_eq!(set(&book).calls_per_number, Some(8));
            assert_eq!(set(&read(&without, vec![row(&book)])).calls_per_number, expected);
        }

        // A disconnected number does not take calls again because a key is removed.
        config.numbers[0].calling_named = true;
        edit(&mut book, 1);
        book.edit_number(&number, |set| set.calling_enabled = true);
        let mut book = read(&config, vec![row(&book)]);
        book.disconnect(&number);
        config.numbers[0].calling_named = false;
        assert!(!set(&read(&config, vec![row(&book)])).calling_enabled);
    }

    #[test]
    fn a_number_with_a_new_id_keeps_its_conversations_and_the_file_keeps_its_id() {
        let mut config = config();
        config.wabas.push(WabaSettings {
            id: "7".into(),
            account: "MA1".into(),
            access_token: None,
        });
        config.numbers.push(config_number("918035737459", "1001"));
        let mut book = Book::read(config.admission(), Vec::new(), Timestamp::default()).0;
        let number = |n: &str| E164::parse(n).unwrap();
        let made =
            |id: &str| ConnectedNumber { phone_number_id: id.into(), waba: None, of: "MA1".into() };
        let (own, now) = (number("918035737458"), Timestamp::default());
        for id in ["77", "78", "79"] {
            book.connect_number((&own, made(id)), None, now).unwrap();
        }
        let spec = |book: &Book, number: &E164| {
            book.number_spec(book.any_number(number).unwrap()).unwrap()
        };
        let ids = |spec: &NumberSpec| (spec.phone_number_id.to_string(), spec.first_id.to_string());
        assert_eq!(ids(&spec(&book, &own)), ("79".to_owned(), "77".to_owned()));
        // The old id stays reserved for this number's conversations.
        let other = number("918035737460");
        assert_eq!(
            book.connect_number((&other, made("77")), None, now),
            Err(ConnectRefusal::Taken)
        );
        let of_file = number("918035737459");
        let refused = book.connect_number((&of_file, made("1002")), None, now);
        assert_eq!(refused, Err(ConnectRefusal::InFile("1001".into())));
        // The file itself may name another id.
        let row = book.row(&Key::Number(of_file.clone()));
        let setting = Setting {
            kind: SettingKind::Number,
            id: of_file.to_string(),
            body: row.body.unwrap().0,
            secret: None,
            is_unreadable: false,
        };
        config.numbers[0].phone_number_id = "1002".into();
        let book = Book::read(config.admission(), vec![setting], now).0;
        assert_eq!(ids(&spec(&book, &of_file)), ("1002".to_owned(), "1001".to_owned()));
    }

    #[test]
    fn s0_27_s0_28_a_disconnected_number_is_in_no_table() {
        let mut book = book();
        let number = E164::parse("918035737458").unwrap();
        let made = ConnectedNumber {
            phone_number_id: "77".into(),
            waba: Some("7".into()),
            of: "MA1".into(),
        };
        book.connect_waba(&"7".into(), &"MA1".into(), None).unwrap();
        book.connect_number((&number, made), Some(Secret::new("n")), Timestamp::from_secs(1))
            .unwrap();
        book.assign_waba(&"7".into(), &"SA1".into());
        assert_eq!(
            (book.specs().numbers.len(), book.specs().numbers[0].account.as_str()),
            (1, "SA1")
        );
        assert_eq!(book.disconnect(&number), [Key::Number(number.clone()), Key::Waba("7".into())]);
        assert_eq!(book.specs().numbers.len(), 0);
        assert_eq!(
            book.owner(book.any_number(&number).unwrap()).as_str(),
            "MA1",
            "its mapping is cleared"
        );
    }

    #[test]
    fn fields_that_the_configuration_sets_again_are_named() {
        let mut file = config_number("918035737458", "1001");
        file.alias = "Desk".to_owned();
        file.answer_url = Some(xml::ast::DocUrl("https://a.example.com/".into()));
        let mut at_start = NumberSet::default();
        at_start.overlay(&file);
        let fields = at_start.file.as_ref().unwrap().fields();
        assert_eq!(fields, ["alias", "answerUrl"]);
        assert_eq!(at_start.overwrites(&at_start), [""; 0]);
        let mut in_force = at_start.clone();
        in_force.answer.url = None;
        in_force.calls_per_number = Some(7);
        assert_eq!(at_start.overwrites(&in_force), ["answerUrl"]);
    }
}
