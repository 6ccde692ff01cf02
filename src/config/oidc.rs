//! `[oidc]`: a provider of OpenID Connect that vouches for people of the console, and whom it may bring.

use url::Url;

use super::read::{Names, ROLES, absolute, auth_id, is_kept_secret};
use super::reader::{Complaint, Context, Section, list, one_of, text};
use super::tree::Node;
use crate::openid::{Allow, ProviderSettings};
use model::Role;

/// What is not wrong, but hardly meant.
pub(super) fn warnings(settings: &ProviderSettings, base_url: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !base_url {
        let why = "[oidc] has people sent back to [public].base_url, which is not set";
        warnings.push(format!("{why}: set it to the address that they reach the console by"));
    }
    if settings.allow != Allow::Invited && settings.domains.is_empty() {
        let why = "[oidc] allow = \"anyone\" lets in whomever the provider knows";
        warnings.push(format!("{why}: name `domains`, unless it knows your own people only"));
    }
    warnings
}

#[derive(Clone, Copy)]
enum Word {
    Invited,
    Anyone,
}

const ALLOW: &[(&str, Word)] = &[("invited", Word::Invited), ("anyone", Word::Anyone)];

pub(super) fn oidc(
    mut s: Section<'_>,
    cx: &Context<'_>,
    names: &mut Names,
    insecure: bool,
) -> Option<ProviderSettings> {
    let issuer =
        s.need("issuer", "the provider's address, like \"https://login.example.com\"", |n| {
            issuer(n, insecure)
        });
    let client_id = s.need("client_id", "what the provider knows this node by", client_id);
    let client_secret = s.secret("client_secret");
    let scopes = s
        .get("scopes", list(word))
        .unwrap_or_else(|| ["openid", "email", "profile"].map(str::to_owned).into());
    let name = s.text("name").map(|name| name.chars().take(40).collect());
    let allow = s.placed("allow", one_of(ALLOW));
    let account = s.placed("account", auth_id);
    let role = s.placed("role", one_of(ROLES));
    let domains = s.get("domains", list(domain)).unwrap_or_default();
    let role_claim = s.placed("role_claim", word);
    let has_roles = s.has("roles");
    let mut inner = s.section("roles");
    let mut roles = Vec::new();
    for (key, role) in [("owner", Role::Owner), ("admin", Role::Admin), ("agent", Role::Agent)] {
        let said = inner.get(key, one_or_many).unwrap_or_default();
        roles.extend(said.into_iter().map(|said| (said, role)));
    }
    inner.finish();
    let at = s.at.clone();
    s.finish();
    match &role_claim {
        Some((_, at)) if roles.is_empty() => {
            cx.fault(
                at.clone(),
                "`role_claim` without `roles`",
                "roles = { admin = [\"what the claim says\"] }",
            );
        }
        None if has_roles => {
            cx.fault(
                at.clone(),
                "`roles` without `role_claim`",
                "role_claim = \"groups\", or the claim that says them",
            );
        }
        Some(_) | None => {}
    }
    let allow = match allow {
        Some((Word::Anyone, at)) => {
            if account.is_none() || role.is_none() {
                let hint = "account = \"MA…\" and role = \"agent\": whose users new people become, and what they may";
                cx.fault(at, "`allow` = \"anyone\" needs `account` and `role`", hint);
            }
            let account = account.map(|(id, at)| names.account(id, at));
            Allow::Anyone { account: account?, role: role?.0 }
        }
        Some((Word::Invited, _)) | None => {
            for (key, at) in
                [("account", account.map(|(_, at)| at)), ("role", role.map(|(_, at)| at))]
            {
                let Some(at) = at else { continue };
                cx.fault(
                    at,
                    format!("`{key}` is only for new people"),
                    "allow = \"anyone\" lets them in",
                );
            }
            Allow::Invited
        }
    };
    let (issuer, url) = issuer?.0;
    Some(ProviderSettings {
        name: name.unwrap_or_else(|| url.host_str().unwrap_or_default().to_owned()),
        issuer,
        client_id: client_id?.0,
        client_secret,
        scopes,
        allow,
        domains,
        role_claim: role_claim.map(|(claim, _)| claim),
        roles,
        insecure,
    })
}

/// Kept as written: a token's `iss` is compared with it.
fn issuer(node: &Node, insecure: bool) -> Result<(String, Url), Complaint> {
    let (said, url) = absolute(node)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Complaint::new(
            "has a query or a fragment",
            "as the provider's own pages name it",
        ));
    }
    if !is_kept_secret(&url) && !insecure {
        return Err(Complaint::new(
            "is http",
            "https, or [answer] allow_insecure = true for development",
        ));
    }
    Ok((said, url))
}

fn client_id(node: &Node) -> Result<String, Complaint> {
    let id = text(node)?;
    // RFC 6749 appendix A.1: blanks too.
    let fits = (1..=255).contains(&id.len()) && id.bytes().all(|b| (b' '..=b'~').contains(&b));
    if fits { Ok(id) } else { Err(Complaint::new("is no client's id", "as the provider shows it")) }
}

/// A word of ASCII, as scopes and claims are.
fn word(node: &Node) -> Result<String, Complaint> {
    let said = text(node)?;
    let fits = (1..=100).contains(&said.len())
        && said.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if fits {
        Ok(said)
    } else {
        Err(Complaint::new(format!("has \"{said}\""), "a word without blanks"))
    }
}

fn domain(node: &Node) -> Result<String, Complaint> {
    let said = text(node)?.to_ascii_lowercase();
    let fits = (1..=253).contains(&said.len())
        && said.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && !said.starts_with('.');
    if fits {
        Ok(said)
    } else {
        Err(Complaint::new("has what is no mail domain", "like \"example.com\", without an @"))
    }
}

/// One value, or several.
fn one_or_many(node: &Node) -> Result<Vec<String>, Complaint> {
    text(node).map(|one| vec![one]).or_else(|_| list(text)(node))
}
