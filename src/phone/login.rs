//! Who a phone is: its endpoint's name and password, and how often somebody may be wrong about them (R15); or an endpoint of
//! the account whose person is signed in to the console in that browser (`interface.md` §3).

use std::net::IpAddr;

use super::Inner;
use super::message::Trouble;
use crate::people::{Person, Token};
use model::EndpointName;
use model::Secret;
use store::Endpoint;

/// An endpoint's name, as it is or out of its SIP address.
fn named(text: &str) -> Option<EndpointName> {
    let text = text.trim();
    let name =
        text.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(text);
    EndpointName::parse(name).ok()
}

fn ours(error: &dyn std::fmt::Display) -> Trouble {
    tracing::warn!(%error, "a phone could not be logged in");
    Trouble::new("unavailable", "something is wrong on this server; try again")
}

/// Who is signed in, if the session holds and its account is served.
pub(super) async fn person(inner: &Inner, token: &Token) -> Result<Option<Person>, Trouble> {
    let person = inner.people.who(token).await.map_err(|error| ours(&error))?;
    Ok(person
        .filter(|person| inner.gate.directory().tables().account(&person.user.account).is_some()))
}

/// The endpoint that a session's person registers: one of their account's, and where none is named the one with their name.
pub(super) async fn by_session(
    inner: &Inner,
    token: Option<&Token>,
    name: Option<&str>,
) -> Result<Endpoint, Trouble> {
    const SIGNED_OUT: Trouble = Trouble::new(
        "unauthorized",
        "without a password an endpoint is registered from a page where somebody is signed in",
    );
    const NOT_THEIRS: Trouble = Trouble::new("unauthorized", "your account has no such endpoint");
    let token = token.ok_or(SIGNED_OUT)?;
    let person = person(inner, token).await?.ok_or(SIGNED_OUT)?;
    let name = named(name.unwrap_or(&person.user.name)).ok_or(NOT_THEIRS)?;
    let found = inner.store.endpoints().by_name(&name).await.map_err(|error| ours(&error))?;
    found
        .filter(|endpoint| person.scope().holds(&endpoint.account, &endpoint.main_account))
        .ok_or(NOT_THEIRS)
}

/// The endpoint of a name and password. A name that nobody has takes as long as a wrong password, and is one answer with it.
pub(super) async fn endpoint(
    inner: &Inner,
    name: &str,
    password: Secret,
    from: IpAddr,
) -> Result<Endpoint, Trouble> {
    const UNAUTHORIZED: Trouble =
        Trouble::new("unauthorized", "there is no such endpoint, or its password is another");
    let Some(name) = named(name) else { return Err(UNAUTHORIZED) };
    let now = inner.clock.now();
    let begun = inner.failures.begin(name.as_str(), from, now).map_err(|wait| {
        let text = format!("too many wrong passwords; try again in {} seconds", wait.as_secs() + 1);
        Trouble::told("too_many_failures", text)
    })?;
    let found = match inner.store.endpoints().by_name(&name).await {
        Ok(found) => found,
        Err(error) => {
            begun.cancel();
            return Err(ours(&error));
        }
    };
    let hash = found.as_ref().map(|endpoint| endpoint.password.as_str());
    match inner.passwords.is_of(from, password, hash).await {
        Ok(true) => begun.succeed(),
        Ok(false) => {
            tracing::info!(endpoint = %name, "a phone came with a wrong name or password");
            return Err(UNAUTHORIZED);
        }
        Err(store::PasswordError::Busy) => {
            begun.cancel();
            return Err(Trouble::new(
                "busy",
                "too many phones log in at this moment; try again in a second",
            ));
        }
        Err(e @ store::PasswordError::Hash) => {
            begun.cancel();
            return Err(ours(&e));
        }
    }
    found.ok_or(UNAUTHORIZED)
}
