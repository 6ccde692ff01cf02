//! `[oidc]`: the OpenID Connect provider of the console.

use url::Url;

use super::accounts::Entries;
use super::fault::Place;
use super::forms::{
    Form, Invalid, ROLES, absolute_url, auth_id, is_confidential, list, not_https, one_of,
    one_or_many, text, text_if,
};
use super::section::{Context, Section};
use crate::openid::{Allow, ProviderSettings};
use model::Role;

/// Returns warnings about settings that are valid but probably unintended.
pub(super) fn warnings(settings: &ProviderSettings, has_base_url: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !has_base_url {
        let why = "[oidc] sends people back to [public].base_url, which is not set";
        warnings.push(format!("{why}: set it to the address of the console"));
    }
    if settings.allow != Allow::Invited && settings.domains.is_empty() {
        let why = "[oidc] allow = \"anyone\" admits everybody the provider knows";
        warnings
            .push(format!("{why}: set `domains`, unless all users of the provider may sign in"));
    }
    warnings
}

#[derive(Clone, Copy, PartialEq)]
enum AllowWord {
    Invited,
    Anyone,
}

const ALLOW: &[(&str, AllowWord)] =
    &[("invited", AllowWord::Invited), ("anyone", AllowWord::Anyone)];

pub(super) fn read(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
    insecure: bool,
) -> Option<ProviderSettings> {
    let issuer = s
        .key(
            "issuer",
            issuer(insecure),
            "The provider's issuer identifier, exactly as its tokens name it.",
        )
        .required("the provider's address, like \"https://login.example.com\"");
    let client_id = s
        .key("client_id", client_id(), "The id that the provider gave this client.")
        .required("the id that the provider gave this client");
    let client_secret = s
        .secret("client_secret", "The client's secret.")
        .absent("a public client")
        .optional("the node is a public client, which the provider may refuse");
    let scopes = s
        .key("scopes", list("strings", word()), "Scopes to ask for. `openid` is always asked for.")
        .or(["openid", "email", "profile"].map(str::to_owned).into());
    let name = s
        .key("name", text(), "The provider's name on the sign-in button, up to 40 characters.")
        .absent("the host of `issuer`")
        .non_empty()
        .map(|name| name.chars().take(40).collect());
    let allow = s
        .key(
            "allow",
            one_of(ALLOW),
            "Who may sign in: only people who are users of `account` already, or everybody the \
             provider knows. New people become users of `account`.",
        )
        .default(&AllowWord::Invited)
        .placed();
    let account = s
        .key(
            "account",
            auth_id(),
            "The account whose people sign in with the provider. Required with `allow = \"anyone\"`.",
        )
        .absent("the first main account of the file")
        .placed()
        .map(|(id, at)| entries.account(id, at));
    let role =
        s.key("role", one_of(ROLES), "With `allow = \"anyone\"`: the role of new people.").placed();
    let domains = s
        .key(
            "domains",
            list("mail domains", domain()),
            "With `allow = \"anyone\"`: mail domains that new people may have. An empty list \
             allows every domain.",
        )
        .or(Vec::new());
    let role_claim = s
        .key(
            "role_claim",
            word(),
            "The claim of the identity token that gives a person's role, a string or a list. Dots \
             separate the levels of a nested claim.",
        )
        .absent("people keep the role that they have here")
        .placed();
    let has_roles = s.has("roles");
    let roles = roles(s.table(
        "roles",
        "table: `owner`, `admin`, `agent`, each a string or a list",
        "Values of `role_claim` that stand for each role. The highest role counts.",
    ));
    let at = s.at.clone();
    s.finish();
    match &role_claim {
        Some((_, at)) if roles.is_empty() => {
            let hint = "roles = { admin = [\"a value of the claim\"] }";
            cx.fault(at.clone(), "`role_claim` needs `roles`", hint);
        }
        None if has_roles => {
            let hint = "role_claim = \"groups\", or another claim that names roles";
            cx.fault(at.clone(), "`roles` needs `role_claim`", hint);
        }
        Some(_) | None => {}
    }
    let allow = allowed(cx, allow, account.is_some(), role);
    let (issuer, url) = issuer?.0;
    Some(ProviderSettings {
        name: name.unwrap_or_else(|| url.host_str().unwrap_or_default().to_owned()),
        issuer,
        client_id: client_id?.0,
        client_secret,
        scopes,
        account,
        allow: allow?,
        domains,
        role_claim: role_claim.map(|(claim, _)| claim),
        roles,
        insecure,
    })
}

fn roles(mut s: Section<'_>) -> Vec<(String, Role)> {
    let mut roles = Vec::new();
    for (key, role) in [("owner", Role::Owner), ("admin", Role::Admin), ("agent", Role::Agent)] {
        let values = s.key(key, one_or_many(), "").get().unwrap_or_default();
        roles.extend(values.into_iter().map(|value| (value, role)));
    }
    s.finish();
    roles
}

type Placed<T> = Option<(T, Place)>;

fn allowed(
    cx: &Context<'_>,
    allow: Placed<AllowWord>,
    has_account: bool,
    role: Placed<Role>,
) -> Option<Allow> {
    match allow {
        Some((AllowWord::Anyone, at)) => {
            if !has_account || role.is_none() {
                let hint =
                    "account = \"MA…\" and role = \"agent\": the account and role of new people";
                cx.fault(at, "`allow` = \"anyone\" needs `account` and `role`", hint);
            }
            Some(Allow::Anyone { role: role?.0 })
        }
        Some((AllowWord::Invited, _)) | None => {
            if let Some((_, at)) = role {
                let hint = "set allow = \"anyone\" to admit them";
                cx.fault(at, "`role` applies only to new people", hint);
            }
            Some(Allow::Invited)
        }
    }
}

/// The issuer, kept as written, because the `iss` of tokens is compared with it.
fn issuer(insecure: bool) -> Form<'static, (String, Url)> {
    let read = move |node: &_| {
        let (given, url) = absolute_url(node)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Invalid::new(
                "has a query or a fragment",
                "write it exactly as the provider does",
            ));
        }
        if !is_confidential(&url) && !insecure {
            return Err(not_https());
        }
        Ok((given, url))
    };
    Form::new("URL", read, |(given, _)| format!("\"{given}\""))
}

fn client_id() -> Form<'static, String> {
    // RFC 6749 appendix A.1 allows spaces.
    let fits =
        |id: &str| (1..=255).contains(&id.len()) && id.bytes().all(|b| (b' '..=b'~').contains(&b));
    text_if("string", fits, |_| Invalid::new("is not a client id", "as the provider shows it"))
}

/// A scope or a claim: ASCII without spaces.
fn word() -> Form<'static, String> {
    let fits = |word: &str| {
        (1..=100).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    text_if("string", fits, |word| {
        Invalid::new(format!("has \"{word}\""), "use ASCII characters without spaces")
    })
}

fn domain() -> Form<'static, String> {
    let fits = |domain: &str| {
        (1..=253).contains(&domain.len())
            && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            && !domain.starts_with('.')
    };
    let form = text_if("mail domain", fits, |domain| {
        let message = format!("has \"{domain}\", which is not a mail domain");
        Invalid::new(message, "like \"example.com\", without an @")
    });
    Form::new(
        "mail domain",
        move |node| form.read(node).map(|domain| domain.to_ascii_lowercase()),
        |domain| format!("\"{domain}\""),
    )
}
