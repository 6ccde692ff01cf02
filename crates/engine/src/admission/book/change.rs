//! Changes of the book. Each is a pure function that returns the keys of the entries it changed,
//! for the caller to write their rows.

use super::entries::{Account, Application, Details, write};
use super::{Book, Number};
use model::Secret;
use model::{AppId, AuthId, E164, Timestamp, WabaId};
use store::{SettingKind, SettingWrite};

/// Maximum number of subaccounts per main account.
const SUBACCOUNTS_MAX: usize = 1_000;
/// Maximum number of applications of a main account, including its subaccounts.
const APPLICATIONS_MAX: usize = 5_000;

/// The key of a changed entry. Its row is written, or deleted if the entry no longer exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Account(AuthId),
    Application(AppId),
    Waba(WabaId),
    Number(E164),
}

/// The maximum number of such entries is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

/// The entry is defined in the configuration file and can be removed only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFile;

/// The application can't be removed: a number has no other answer URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationInUse {
    pub by: E164,
}

impl Book {
    /// The row of an entry in its current state.
    pub(super) fn row(&self, key: &Key) -> SettingWrite {
        match key {
            Key::Account(id) => self
                .accounts
                .get(id)
                .map_or_else(|| write(SettingKind::Account, id.as_str(), None), Account::row),
            Key::Application(id) => {
                let gone = || write(SettingKind::Application, id.as_str(), None);
                self.applications.get(id).map_or_else(gone, Application::row)
            }
            Key::Waba(id) => self
                .wabas
                .get(id)
                .map_or_else(|| write(SettingKind::Waba, id.as_str(), None), super::Waba::row),
            Key::Number(id) => self
                .numbers
                .get(id)
                .map_or_else(|| write(SettingKind::Number, id.as_str(), None), Number::row),
        }
    }

    /// Creates a subaccount of a main account.
    ///
    /// # Errors
    ///
    /// Returns an error if the main account has the maximum number of subaccounts.
    pub fn create_subaccount(
        &mut self,
        main: &AuthId,
        (auth_id, token): (AuthId, Secret),
        details: Details,
    ) -> Result<Vec<Key>, TooMany> {
        if self.subaccounts(main).len() >= SUBACCOUNTS_MAX {
            return Err(TooMany(SUBACCOUNTS_MAX));
        }
        let made = Account {
            auth_id: auth_id.clone(),
            parent: Some(main.clone()),
            tokens: vec![token],
            rotated: None,
            is_token_unreadable: false,
            cps: None,
            api_keys: Vec::new(),
            in_file: false,
            details,
        };
        self.accounts.insert(auth_id.clone(), made);
        Ok(vec![Key::Account(auth_id)])
    }

    /// Changes the details of an account.
    pub fn edit_account(
        &mut self,
        id: &AuthId,
        now: Timestamp,
        edit: impl FnOnce(&mut Details),
    ) -> Vec<Key> {
        let Some(account) = self.accounts.get_mut(id) else { return Vec::new() };
        edit(&mut account.details);
        account.details.modified = Some(now);
        vec![Key::Account(id.clone())]
    }

    /// Removes a subaccount. Its numbers and applications pass to the main account; with `cascade`
    /// its applications are removed. Live calls are not affected.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration file defines the subaccount.
    pub fn remove_subaccount(&mut self, id: &AuthId, cascade: bool) -> Result<Vec<Key>, InFile> {
        let Some(Account { parent: Some(main), in_file, .. }) = self.accounts.get(id) else {
            return Ok(Vec::new());
        };
        if *in_file {
            return Err(InFile);
        }
        let main = main.clone();
        let mut keys = vec![Key::Account(id.clone())];
        for waba in self.wabas.values_mut().filter(|waba| waba.given_to.as_ref() == Some(id)) {
            waba.given_to = None;
            keys.push(Key::Waba(waba.id.clone()));
        }
        keys.extend(self.pass_to_main(id, &main));
        let owned: Vec<AppId> =
            self.applications.values().filter(|a| a.account == *id).map(|a| a.id.clone()).collect();
        for app in owned {
            let needed = self.depending_number(&app).is_some();
            match self.applications.get_mut(&app) {
                // An application that a number depends on is kept, so that no calls are lost.
                Some(app) if !cascade || needed => {
                    app.account.clone_from(&main);
                    (app.default_for_numbers, app.default_for_endpoints) = (false, false);
                    keys.push(Key::Application(app.id.clone()));
                }
                _ => keys.extend(self.remove_application(&app).unwrap_or_default()),
            }
        }
        self.accounts.remove(id);
        Ok(keys)
    }

    /// Adds an application or replaces the one with its id. If it is a default, it replaces the
    /// account's previous default.
    ///
    /// # Errors
    ///
    /// Returns an error if it is new and the limit is reached.
    pub fn put_application(&mut self, app: Application) -> Result<Vec<Key>, TooMany> {
        let is_new = !self.applications.contains_key(&app.id);
        let main = self.main_of(&app.account);
        let there = || {
            self.applications.values().filter(|other| self.main_of(&other.account) == main).count()
        };
        if is_new && there() >= APPLICATIONS_MAX {
            return Err(TooMany(APPLICATIONS_MAX));
        }
        let mut keys = vec![Key::Application(app.id.clone())];
        let others = self
            .applications
            .values_mut()
            .filter(|other| other.account == app.account && other.id != app.id);
        for other in others {
            let was = (other.default_for_numbers, other.default_for_endpoints);
            other.default_for_numbers &= !app.default_for_numbers;
            other.default_for_endpoints &= !app.default_for_endpoints;
            if was != (other.default_for_numbers, other.default_for_endpoints) {
                keys.push(Key::Application(other.id.clone()));
            }
        }
        self.applications.insert(app.id.clone(), app);
        Ok(keys)
    }

    /// Removes an application. Numbers that refer to it and have their own answer URL no longer
    /// refer to any.
    ///
    /// # Errors
    ///
    /// Returns an error if a number has no other answer URL.
    pub fn remove_application(&mut self, id: &AppId) -> Result<Vec<Key>, ApplicationInUse> {
        if let Some(number) = self.depending_number(id) {
            return Err(ApplicationInUse { by: number.number.clone() });
        }
        self.applications.remove(id);
        let mut keys = vec![Key::Application(id.clone())];
        for number in self.numbers.values_mut().filter(|number| number.set.app.as_ref() == Some(id))
        {
            number.set.app = None;
            keys.push(Key::Number(number.number.clone()));
        }
        Ok(keys)
    }

    /// Returns a number whose only answer URL is that of this application.
    pub fn depending_number(&self, id: &AppId) -> Option<&Number> {
        self.numbers.values().find(|number| {
            number.set.calling_enabled && self.app_in_force(number).is_some_and(|app| app.id == *id)
        })
    }

    /// Whether a number with calling enabled would lose its only answer URL, that of its application,
    /// with this application instead.
    pub fn depends_on_application(&self, number: &E164, instead: Option<&AppId>) -> bool {
        let Some(number) = self.numbers.get(number) else { return false };
        let has_url = |app: Option<&AppId>| {
            app.and_then(|id| self.applications.get(id)).is_some_and(|app| app.answer.url.is_some())
        };
        number.set.calling_enabled
            && number.set.answer.url.is_none()
            && has_url(number.set.app.as_ref())
            && !has_url(instead)
    }

    /// Changes the settings of a number.
    pub fn edit_number(
        &mut self,
        number: &E164,
        edit: impl FnOnce(&mut super::NumberSet),
    ) -> Vec<Key> {
        let Some(owner) = self.numbers.get(number).map(|there| self.owner(there).clone()) else {
            return Vec::new();
        };
        let Some(number) = self.numbers.get_mut(number) else { return Vec::new() };
        let before = number.set.urls();
        edit(&mut number.set);
        if number.set.urls() != before {
            number.set.urls_of = Some(owner);
        }
        vec![Key::Number(number.number.clone())]
    }

    /// Assigns the whole WABA of a number to a subaccount, or back to the main account. Returns the
    /// changed entries and the numbers of the WABA in order.
    pub fn give(&mut self, number: &E164, to: &AuthId) -> (Vec<Key>, Vec<E164>) {
        let Some(waba) = self.numbers.get(number).and_then(|number| number.waba.clone()) else {
            return (Vec::new(), Vec::new());
        };
        let all = self.numbers_of(&waba).map(|number| number.number.clone()).collect();
        (self.assign_waba(&waba, to), all)
    }
}
