//! What can be changed in the book, and what each change takes with it. Pure; who calls says which rows to write by
//! the keys given back.

use super::entries::{Account, Application, Details, write};
use super::{Book, Number};
use model::Secret;
use model::{AppId, AuthId, E164, Timestamp, WabaId};
use store::{SettingKind, SettingWrite};

/// Subaccounts of a main account at most.
const SUBACCOUNTS_MAX: usize = 1_000;
/// Applications of a main account and its subaccounts at most.
const APPLICATIONS_MAX: usize = 5_000;

/// An entry that a change touched: its row is written, or forgotten where it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Account(AuthId),
    Application(AppId),
    Waba(WabaId),
    Number(E164),
}

/// There are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

/// It stands in the configuration, and can be taken away only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFile;

/// A number takes calls by it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub by: E164,
}

impl Book {
    /// The row of an entry, as it stands now.
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

    /// Makes a subaccount of a main account.
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn make_subaccount(
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
            cps: None,
            api_keys: Vec::new(),
            in_file: false,
            details,
        };
        self.accounts.insert(auth_id.clone(), made);
        Ok(vec![Key::Account(auth_id)])
    }

    /// Changes what an account says of itself.
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

    /// Takes a subaccount away. Its numbers and applications are its main account's from then on; with `cascade` its
    /// applications go with it. Its calls that are up go on.
    ///
    /// # Errors
    /// It stands in the configuration.
    pub fn remove_subaccount(&mut self, id: &AuthId, cascade: bool) -> Result<Vec<Key>, InFile> {
        let Some(Account { parent: Some(main), in_file, .. }) = self.accounts.get(id) else {
            return Ok(Vec::new());
        };
        if *in_file {
            return Err(InFile);
        }
        let main = main.clone();
        let mut keys = vec![Key::Account(id.clone())];
        self.accounts.remove(id);
        for waba in self.wabas.values_mut().filter(|waba| waba.given_to.as_ref() == Some(id)) {
            waba.given_to = None;
            keys.push(Key::Waba(waba.id.clone()));
        }
        keys.extend(self.inherit(id, &main));
        let owned: Vec<AppId> =
            self.applications.values().filter(|a| a.account == *id).map(|a| a.id.clone()).collect();
        for app in owned {
            let needed = self.needing(&app).is_some();
            match self.applications.get_mut(&app) {
                // One that a number takes calls by stays: calls are not lost for it.
                Some(app) if !cascade || needed => {
                    app.account.clone_from(&main);
                    (app.default_for_numbers, app.default_for_endpoints) = (false, false);
                    keys.push(Key::Application(app.id.clone()));
                }
                _ => keys.extend(self.remove_application(&app).unwrap_or_default()),
            }
        }
        Ok(keys)
    }

    /// Puts an application in, or in place of the one with its id. The default that it is, no other of its account is.
    ///
    /// # Errors
    /// It is a new one, and there are as many as there may be.
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

    /// Takes an application away; numbers that name it, and have an answer URL of their own, name none from then on.
    ///
    /// # Errors
    /// A number takes calls by it alone.
    pub fn remove_application(&mut self, id: &AppId) -> Result<Vec<Key>, Used> {
        if let Some(number) = self.needing(id) {
            return Err(Used { by: number.number.clone() });
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

    /// The number that takes calls by this application alone.
    pub fn needing(&self, id: &AppId) -> Option<&Number> {
        let mut named = self.numbers.values().filter(|number| number.set.app.as_ref() == Some(id));
        named.find(|number| number.set.calling_enabled && number.set.answer.url.is_none())
    }

    /// Changes what is set of a number.
    pub fn edit_number(
        &mut self,
        number: &E164,
        edit: impl FnOnce(&mut super::NumberSet),
    ) -> Vec<Key> {
        let Some(number) = self.numbers.get_mut(number) else { return Vec::new() };
        edit(&mut number.set);
        vec![Key::Number(number.number.clone())]
    }

    /// Gives a number's whole WABA to an account: a subaccount, or back to the main one. Gives the numbers that this
    /// is about, in order.
    pub fn give(&mut self, number: &E164, to: &AuthId) -> (Vec<Key>, Vec<E164>) {
        let Some(waba) = self.numbers.get(number).and_then(|number| number.waba.clone()) else {
            return (Vec::new(), Vec::new());
        };
        let all = self.numbers_of(&waba).map(|number| number.number.clone()).collect();
        (self.give_waba(&waba, to), all)
    }
}
