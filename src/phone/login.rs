//! Who a phone is: its endpoint's name and password, and how often somebody may be wrong about them (R15).

use std::net::IpAddr;

use super::Inner;
use super::message::Trouble;
use crate::config::Secret;
use crate::model::EndpointName;
use crate::store::Endpoint;

/// The endpoint of a name and password. A name that nobody has takes as long as a wrong password, and is one answer with it.
pub(super) async fn endpoint(inner: &Inner, name: &str, password: Secret, from: IpAddr) -> Result<Endpoint, Trouble> {
    const UNAUTHORIZED: Trouble = Trouble::new("unauthorized", "there is no such endpoint, or its password is another");
    // Its address will do as well.
    let name = name.trim();
    let name = name.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(name);
    let Ok(name) = EndpointName::parse(name) else { return Err(UNAUTHORIZED) };
    let now = inner.clock.now();
    let begun = inner.failures.begin(name.as_str(), from, now).map_err(|wait| {
        let text = format!("too many wrong passwords; try again in {} seconds", wait.as_secs() + 1);
        Trouble::told("too_many_failures", text)
    })?;
    let ours = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "a phone could not be logged in");
        Trouble::new("unavailable", "something is wrong on this server; try again")
    };
    let found = match inner.store.endpoint_named(&name).await {
        Ok(found) => found,
        Err(error) => {
            begun.untried();
            return Err(ours(&error));
        }
    };
    let hash = found.as_ref().map(|endpoint| endpoint.password.as_str());
    match inner.passwords.is_of(from, password, hash).await {
        Ok(true) => begun.right(),
        Ok(false) => {
            tracing::info!(endpoint = %name, "a phone came with a wrong name or password");
            return Err(UNAUTHORIZED);
        }
        Err(crate::store::PasswordError::Busy) => {
            begun.untried();
            return Err(Trouble::new("busy", "too many phones log in at this moment; try again in a second"));
        }
        Err(e @ crate::store::PasswordError::Hash) => {
            begun.untried();
            return Err(ours(&e));
        }
    }
    found.ok_or(UNAUTHORIZED)
}
