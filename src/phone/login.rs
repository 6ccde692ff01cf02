//! Authentication of phones: by the name and password of an endpoint, with limits on wrong
//! passwords (`docs/reference/reliability.md#r15`), or by the console session of the browser
//! (`docs/phone.md`).

use std::net::IpAddr;
use std::time::Duration;

use super::Inner;
use super::message::RequestError;
use engine::call::phones::ACCOUNT_DISABLED;
use engine::limiter::{Guess, Origin, Refusal};
use engine::people::{Person, Token};
use model::{AuthId, EndpointName, Role, Secret};
use store::Endpoint;

/// Parses an endpoint's name, which may be given as its SIP address.
fn named(text: &str) -> Option<EndpointName> {
    let text = text.trim();
    let name =
        text.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(text);
    EndpointName::parse(name).ok()
}

fn ours(error: &dyn std::fmt::Display) -> RequestError {
    tracing::warn!(%error, "phone login failed");
    RequestError::new("unavailable", "internal error; try again")
}

/// Returns the person of a session, if the session is valid and its account is enabled.
pub(super) async fn person(inner: &Inner, token: &Token) -> Result<Option<Person>, RequestError> {
    let person = inner.people.who(token).await.map_err(|error| ours(&error))?;
    Ok(person.filter(|person| inner.apis.is_enabled(&person.user.account)))
}

/// Checks that the account of an endpoint has access. It may have been disabled or deleted since
/// the phone registered.
pub(super) fn check_account(inner: &Inner, account: &AuthId) -> Result<(), RequestError> {
    match inner.apis.is_enabled(account) {
        true => Ok(()),
        false => Err(RequestError::new(
            ACCOUNT_DISABLED,
            "the endpoint's account is disabled or deleted; its main account can enable it",
        )),
    }
}

/// Whether the role of a person allows them to register an endpoint of their account.
pub(super) fn may_register(person: &Person, endpoint: &Endpoint) -> bool {
    person.user.role != Role::Agent || endpoint.is_of(&person.user)
}

/// Returns the endpoint of the person's account that a session may register: admins and owners may
/// register any, agents only their own. Without `name`, the person's own endpoint is returned.
pub(super) async fn by_session(
    inner: &Inner,
    token: Option<&Token>,
    name: Option<&str>,
) -> Result<Endpoint, RequestError> {
    const SIGNED_OUT: RequestError = RequestError::new(
        "unauthorized",
        "without a password, register from a page of a signed-in console session",
    );
    const NOT_THEIRS: RequestError =
        RequestError::new("unauthorized", "your account has no such endpoint");
    let token = token.ok_or(SIGNED_OUT)?;
    let person = person(inner, token).await?.ok_or(SIGNED_OUT)?;
    let endpoints = inner.store.endpoints();
    let found = match name {
        None => endpoints.of_user(&person.user).await,
        Some(name) => endpoints.by_name(&named(name).ok_or(NOT_THEIRS)?).await,
    };
    let endpoint = found
        .map_err(|error| ours(&error))?
        .filter(|endpoint| person.scope().holds(&endpoint.account, &endpoint.main_account))
        .ok_or(NOT_THEIRS)?;
    if !may_register(&person, &endpoint) {
        return Err(RequestError::new(
            "unauthorized",
            "agents register their own endpoint only; make one on the Phone page of the console",
        ));
    }
    Ok(endpoint)
}

const UNAUTHORIZED: RequestError =
    RequestError::new("unauthorized", "no such endpoint, or wrong password");

/// Checks that an endpoint still exists, and that its password is still the one that was verified,
/// unless a session was.
pub(super) async fn check_again(
    inner: &Inner,
    checked: &Endpoint,
    by_session: bool,
) -> Result<(), RequestError> {
    let found = inner.store.endpoints().by_name(&checked.name).await;
    let is_same =
        |now: &Endpoint| now.id == checked.id && (by_session || now.password == checked.password);
    match found.map_err(|error| ours(&error))?.is_some_and(|now| is_same(&now)) {
        true => Ok(()),
        false => Err(UNAUTHORIZED),
    }
}

/// Returns the endpoint with this name and password. An unknown name takes as long as a wrong
/// password and gives the same error.
pub(super) async fn endpoint(
    inner: &Inner,
    name: &str,
    password: Secret,
    from: IpAddr,
) -> Result<Endpoint, RequestError> {
    let Some(name) = named(name) else { return Err(UNAUTHORIZED) };
    let too_many = |wait: Duration| {
        let text = format!("too many wrong passwords; try again in {} seconds", wait.as_secs() + 1);
        RequestError::with_text("too_many_failures", text)
    };
    let found = inner.store.endpoints().by_name(&name).await.map_err(|error| ours(&error))?;
    let hash = found.as_ref().map(|endpoint| endpoint.password.as_str());
    let guess = Guess { password: &password, hash };
    let begun = inner.failures.begin(name.as_str(), Origin::Network(from), guess, &inner.clock);
    let begun = begun.await.map_err(|refusal| {
        inner.apis.record_phone_refusal(from, found.as_ref());
        match refusal {
            Refusal::KnownWrong => UNAUTHORIZED,
            Refusal::Wait(wait) => too_many(wait),
        }
    })?;
    match inner.passwords.verify_from(from, password.clone(), hash).await {
        Ok(true) => begun.succeed(),
        Ok(false) => {
            inner.apis.record_phone_refusal(from, found.as_ref());
            return Err(begun.fail().map_or(UNAUTHORIZED, too_many));
        }
        Err(store::PasswordError::Busy) => {
            begun.cancel();
            return Err(RequestError::new(
                "busy",
                "too many phones are logging in; try again in a second",
            ));
        }
        Err(e @ store::PasswordError::Hash) => {
            begun.cancel();
            return Err(ours(&e));
        }
    }
    found.ok_or(UNAUTHORIZED)
}
