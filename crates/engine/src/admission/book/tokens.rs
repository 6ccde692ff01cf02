//! Rotation of auth tokens at run time. The new token and the one before it both sign and
//! authenticate until the overlap ends, by time or by request.
//!
//! A token created at run time replaces the configuration's for as long as the configuration names
//! the token that it replaced. Any other token in the configuration takes precedence.

use serde::{Deserialize, Serialize};

use super::entries::{Account, AccountRow, TokenRotation};
use super::{Book, Key, Reading};
use crate::admission::settings::AccountSettings;
use model::Secret;
use model::{AuthId, Timestamp};
use store::{Setting, SettingKind};

/// Why a token was not rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateError {
    UnknownAccount,
    /// The previous token is still valid, until this time or as long as the configuration contains
    /// it.
    Overlap(Option<Timestamp>),
}

/// The content of the encrypted secret in the row of an account with a rotated token.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The tokens, newest first.
    tokens: Vec<String>,
    instead_of: Option<String>,
}

impl Account {
    /// The secret to encrypt in the row. It contains no token that is only in the configuration.
    pub(super) fn sealed(&self) -> Option<Secret> {
        if self.is_token_unreadable {
            return None;
        }
        let Some(rotated) = &self.rotated else {
            return self.tokens.first().filter(|_| !self.in_file).cloned();
        };
        let tokens = self.tokens.iter().map(|token| token.reveal().to_owned()).collect();
        let sealed = Sealed { tokens, instead_of: rotated.instead_of.clone() };
        serde_json::to_string(&sealed).ok().map(Secret::new)
    }
}

impl Book {
    /// Makes `token` the token of an account. The previous token stays valid until `until`, unless it
    /// was unreadable. Returns the end of this overlap, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns an error if the account does not exist or two tokens are valid already.
    pub fn rotate_token(
        &mut self,
        id: &AuthId,
        token: Secret,
        until: Timestamp,
    ) -> Result<(Option<Timestamp>, Vec<Key>), RotateError> {
        let account = self.accounts.get_mut(id).ok_or(RotateError::UnknownAccount)?;
        if std::mem::take(&mut account.is_token_unreadable) {
            // None of the configuration's tokens was accepted, so none has an overlap.
            let instead_of = account.tokens.first().map(digest);
            account.rotated = Some(TokenRotation { instead_of, until: None });
            account.tokens = vec![token];
            return Ok((None, vec![Key::Account(id.clone())]));
        }
        let (1, Some(before)) = (account.tokens.len(), account.tokens.first()) else {
            return Err(RotateError::Overlap(
                account.rotated.as_ref().and_then(|rotated| rotated.until),
            ));
        };
        let instead_of = match &account.rotated {
            // The configuration still has the token it had.
            Some(rotated) => rotated.instead_of.clone(),
            None => account.in_file.then(|| digest(before)),
        };
        account.rotated = Some(TokenRotation { instead_of, until: Some(until) });
        account.tokens.insert(0, token);
        Ok((Some(until), vec![Key::Account(id.clone())]))
    }

    /// Ends the overlap, so that only the newest token is valid. Returns `None` without an overlap
    /// of tokens created at run time.
    pub fn end_overlap(&mut self, id: &AuthId) -> Option<Vec<Key>> {
        let account = self.accounts.get_mut(id)?;
        let rotated = account.rotated.as_mut().filter(|rotated| rotated.until.is_some())?;
        rotated.until = None;
        account.tokens.truncate(1);
        Some(vec![Key::Account(id.clone())])
    }

    /// Accounts with an overlap that has ended by `now`.
    pub fn ended_overlaps(&self, now: Timestamp) -> Vec<AuthId> {
        let over = |account: &&Account| {
            account
                .rotated
                .as_ref()
                .and_then(|rotated| rotated.until)
                .is_some_and(|until| until <= now)
        };
        self.accounts.values().filter(over).map(|account| account.auth_id.clone()).collect()
    }
}

impl Reading<'_> {
    /// The tokens of an account: those created at run time if they are still valid, otherwise the
    /// configuration's. If those created at run time are unreadable, the configuration's are returned
    /// with a rotation: they sign requests, but no longer authenticate.
    pub(super) fn tokens_of_file(
        &mut self,
        file: &AccountSettings,
        setting: Option<&Setting>,
    ) -> (Vec<Secret>, Option<TokenRotation>) {
        let own = || {
            std::iter::once(&file.auth_token).chain(&file.auth_token_previous).cloned().collect()
        };
        let row =
            setting.and_then(|setting| serde_json::from_str::<AccountRow>(&setting.body).ok());
        let (Some(setting), Some(row)) = (setting, row.filter(|row| row.rotated)) else {
            return (own(), None);
        };
        if setting.is_unreadable {
            self.skip(
                setting,
                "its auth token is sealed with another store.secret_key, and the configuration's was replaced by it: \
                 none is accepted. Restore that key, or create a token with an API key or in the console",
            );
            return (own(), Some(TokenRotation { instead_of: None, until: row.previous_until }));
        }
        let Some((tokens, rotated)) = self.unseal_rotated(&row, setting.secret.as_ref()) else {
            self.skip(setting, "its auth token is unreadable; using the configuration's");
            return (own(), None);
        };
        if rotated.instead_of.as_ref() != Some(&digest(&file.auth_token)) {
            let why = "the configuration's auth_token has changed since one was created over the API; using the configuration's";
            self.skip(setting, why);
            return (own(), None);
        }
        (tokens, Some(rotated))
    }

    /// Decrypts the tokens of a row.
    pub(super) fn unseal_rotated(
        &self,
        row: &AccountRow,
        secret: Option<&Secret>,
    ) -> Option<(Vec<Secret>, TokenRotation)> {
        let sealed: Sealed = serde_json::from_str(secret?.reveal()).ok()?;
        let mut tokens: Vec<Secret> = sealed.tokens.into_iter().map(Secret::new).collect();
        let until = row.previous_until.filter(|until| *until > self.now);
        tokens.truncate(if until.is_some() { 2 } else { 1 });
        let rotated = TokenRotation { instead_of: sealed.instead_of, until };
        (!tokens.is_empty()).then_some((tokens, rotated))
    }

    /// The row of an account, which remains in the list.
    pub(super) fn row_of(&self, id: &AuthId) -> Option<Setting> {
        self.settings.get(&(SettingKind::Account, id.to_string())).cloned()
    }
}

fn digest(token: &Secret) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.reveal().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use store::SettingWrite;

    const ID: &str = "MA1";

    fn file(token: &str) -> Config {
        let mut config = Config::with(Secret::new("a"), Secret::new("b"));
        config.accounts.push(AccountSettings {
            auth_id: ID.into(),
            auth_token: Secret::new(token),
            auth_token_previous: None,
            cps: None,
            api_keys: Vec::new(),
            parent: None,
        });
        config
    }

    fn tokens(book: &Book) -> Vec<String> {
        book.account(&ID.into())
            .unwrap()
            .tokens
            .iter()
            .map(|token| token.reveal().to_owned())
            .collect()
    }

    fn stored(book: &Book) -> Setting {
        let SettingWrite { kind, id, body, keeps_sealed: _ } = book.row(&Key::Account(ID.into()));
        let (body, secret) = body.unwrap();
        Setting { kind, id, body, secret, is_unreadable: false }
    }

    #[test]
    fn an_unreadable_token_is_kept_and_the_one_that_it_replaced_stays_invalid() {
        let (now, until) = (Timestamp::from_secs(10), Timestamp::from_secs(20));
        let mut book = Book::read(file("old").admission(), Vec::new(), now).0;
        book.rotate_token(&ID.into(), Secret::new("new"), until).unwrap();
        let row = stored(&book);
        let other_key = Setting { secret: None, is_unreadable: true, ..row.clone() };
        let (mut book, writes, _) = Book::read(file("old").admission(), vec![other_key], now);
        assert!(writes.is_empty());
        assert!(book.credentials()[0].tokens.is_empty(), "neither authenticates");
        assert_eq!(tokens(&book), ["old"], "requests are signed nevertheless");
        // A change of something else keeps the sealed token, and the end of the overlap.
        let edited = book.row(&Key::Account(ID.into()));
        assert!(edited.keeps_sealed && matches!(&edited.body, Some((_, None))));
        let body = edited.body.unwrap().0;
        let book_again = Book::read(file("old").admission(), vec![Setting { body, ..row }], now).0;
        assert_eq!(tokens(&book_again), ["new", "old"]);
        // A token that is created now replaces the unreadable one.
        book.rotate_token(&ID.into(), Secret::new("newer"), until).unwrap();
        assert!(!book.row(&Key::Account(ID.into())).keeps_sealed);
        let book = Book::read(file("old").admission(), vec![stored(&book)], now).0;
        assert_eq!(tokens(&book), ["newer"]);
        assert_eq!(book.credentials()[0].tokens.len(), 1);
    }

    #[test]
    fn a_rotated_token_is_used_until_the_file_names_another() {
        let (now, until, later) =
            (Timestamp::from_secs(10), Timestamp::from_secs(20), Timestamp::from_secs(30));
        let mut book = Book::read(file("first").admission(), Vec::new(), now).0;
        assert_eq!(
            book.rotate_token(&ID.into(), Secret::new("second"), until).unwrap(),
            (Some(until), vec![Key::Account(ID.into())])
        );
        assert_eq!(tokens(&book), ["second", "first"]);
        let again = book.rotate_token(&ID.into(), Secret::new("third"), until);
        assert_eq!(again, Err(RotateError::Overlap(Some(until))));
        let row = stored(&book);
        assert!(!row.body.contains("second") && !row.body.contains("first"), "{}", row.body);
        let read = |file: &Config, now| {
            let (book, _, skipped) = Book::read(file.admission(), vec![row.clone()], now);
            (tokens(&book), skipped.len())
        };
        assert_eq!(read(&file("first"), now), (vec!["second".to_owned(), "first".to_owned()], 0));
        assert_eq!(
            read(&file("first"), later),
            (vec!["second".to_owned()], 0),
            "the overlap ended while the node was down"
        );
        assert_eq!(read(&file("other"), now), (vec!["other".to_owned()], 1));
        let (other, writes, _) = Book::read(file("other").admission(), vec![row.clone()], now);
        assert_eq!(writes.len(), 1, "and is forgotten with it");
        assert_eq!(tokens(&other), ["other"]);

        assert_eq!(book.ended_overlaps(now), []);
        assert_eq!(book.ended_overlaps(until), [ID.into()]);
        assert!(book.end_overlap(&ID.into()).is_some() && book.end_overlap(&ID.into()).is_none());
        assert_eq!(tokens(&book), ["second"]);
        book.rotate_token(&ID.into(), Secret::new("third"), until).unwrap();
        let row = stored(&book);
        let (book, _, _) = Book::read(file("first").admission(), vec![row], now);
        assert_eq!(
            tokens(&book),
            ["third", "second"],
            "the configuration still has the one that it began with"
        );
        assert_eq!(book.account(&"MA2".into()).map(|_| ()), None);
    }
}
