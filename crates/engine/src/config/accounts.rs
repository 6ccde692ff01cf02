//! The repeated tables (`[[account]]`, `[[user]]`, `[[webhook]]`, `[[waba]]`, `[[number]]`), and
//! the references between them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::declared::{Fallback, KeyReference};
use super::fault::Place;
use super::forms::{
    METHODS, ROLES, auth_id, customer_url, digits_of, flag, integer, items_in_text, meta_id,
    one_of, phone_number, text,
};
use super::permissions::permissions;
use super::section::{Context, Section, Strength, suggestion};
use super::tree::{Node, Value};
use crate::admission::settings::{
    AccountSettings, ApiKey, NumberSettings, Permissions, WabaSettings,
};
use crate::inbox::WebhookSettings;
use crate::people::UserSettings;
use model::{AppId, AuthId, PhoneNumberId, Role, Secret, WabaId};

/// The range of `calls_per_number`.
pub(super) const CALLS: RangeInclusive<i64> = 1..=100_000;
/// The range of `cps`.
pub(super) const CPS: RangeInclusive<i64> = 1..=10_000;
const ACCOUNT_HINT: &str = "the auth_id of an [[account]]";

/// The entries that others may refer to, and the references. They are compared at the end.
#[derive(Default)]
pub(super) struct Entries {
    /// Accounts with their parents.
    accounts: BTreeMap<AuthId, Option<AuthId>>,
    wabas: BTreeSet<WabaId>,
    /// The users' accounts and names.
    users: Vec<(AuthId, String, Place)>,
    /// The API keys and the places of their accounts.
    api_keys: Vec<(AuthId, Secret, Place)>,
    references: Vec<Reference>,
    /// Values that must be unique, with their keys.
    unique: BTreeSet<(&'static str, String)>,
}

enum Reference {
    Account(AuthId, Place),
    Parent(AuthId, Place),
    Waba(WabaId, Place),
}

impl Entries {
    /// Records a reference to an account.
    pub(super) fn account(&mut self, id: AuthId, at: Place) -> AuthId {
        self.references.push(Reference::Account(id.clone(), at));
        id
    }

    /// Records a value that only one entry may have.
    fn unique(&mut self, cx: &Context<'_>, key: &'static str, value: &str, at: Place) {
        if !self.unique.insert((key, value.to_owned())) {
            let message = format!("`{key}` \"{value}\" is used twice");
            cx.fault(at, message, "each entry needs its own");
        }
    }

    /// Reports references to entries that do not exist, users of one main account with the same name,
    /// and API keys of several accounts.
    pub(super) fn check(&self, cx: &Context<'_>) {
        let mut key_owners: BTreeMap<&str, &AuthId> = BTreeMap::new();
        for (account, key, at) in &self.api_keys {
            let owner = *key_owners.entry(key.reveal()).or_insert(account);
            if owner != account {
                let message = format!("the account has an API key of {owner}");
                cx.fault(at.clone(), message, "a key opens one account: give each another key");
            }
        }
        let mut names = BTreeSet::new();
        for (account, name, at) in &self.users {
            let main = self.accounts.get(account).and_then(Option::as_ref).unwrap_or(account);
            if !names.insert((main, name)) {
                let message = format!("`name` \"{name}\" is used twice in the account");
                cx.fault(at.clone(), message, "each user of an account needs another name");
            }
        }
        for reference in &self.references {
            match reference {
                Reference::Account(id, at) if !self.accounts.contains_key(id) => {
                    let known = self.accounts.keys().map(AuthId::as_str);
                    let message = format!("no [[account]] has the auth_id {id}");
                    cx.fault(at.clone(), message, suggestion(id.as_str(), known));
                }
                Reference::Parent(id, at) if self.accounts.get(id) != Some(&None) => {
                    let hint = "the auth_id of a main account in this file";
                    cx.fault(at.clone(), format!("`parent` {id} is not a main account"), hint);
                }
                Reference::Waba(id, at) if !self.wabas.contains(id) => {
                    let known = self.wabas.iter().map(WabaId::as_str);
                    let message = format!("no [[waba]] has the id {id}");
                    cx.fault(at.clone(), message, suggestion(id.as_str(), known));
                }
                Reference::Account(..) | Reference::Parent(..) | Reference::Waba(..) => {}
            }
        }
    }
}

pub(super) fn account(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
) -> Option<AccountSettings> {
    let id = s
        .key(
            "auth_id",
            auth_id(),
            "The account's id: `MA` for a main account or `SA` for a subaccount, and 18 capital \
             letters or digits.",
        )
        .required("MA and 18 capital letters or digits");
    let auth_token = s
        .secret("auth_token", "The password of the Plivo-compatible API. It also signs callbacks.")
        .strength(Strength::KEY)
        .required("the password of the API, which also signs callbacks");
    let parent =
        s.key("parent", auth_id(), "The main account. Required for a subaccount.").placed();
    let cps = s
        .key("cps", integer(CPS), "Calls per second of the account and its subaccounts.")
        .absent("`limits.default_cps`; a subaccount has only the main account's limit")
        .get();
    let auth_token_previous = s
        .secret(
            "auth_token_previous",
            "The token before a rotation. While it is set, both tokens authenticate and sign.",
        )
        .strength(Strength::KEY)
        .optional("only `auth_token` authenticates and signs");
    let api_keys = s.raw(KeyReference::new(
        "api_keys",
        "list of secrets, or of `{ key = SECRET, role = ROLE, name = TEXT }`",
        Fallback::Value("[]".to_owned()),
        "Keys of the number API, sent as `X-API-Key`. The role is `owner`, `admin` or \
             `agent`; a bare secret has the role `owner`. The audit trail shows the name, or the \
             place in the list.",
    ));
    let path = s.path_of("api_keys");
    let list_of = |items: &[Node]| {
        let key = |(nth, item)| api_key(item, format!("{path}[{nth}]"), cx);
        items.iter().enumerate().filter_map(key).collect()
    };
    let api_keys = match api_keys {
        None => Vec::new(),
        Some(Node { value: Value::List(items), .. }) => list_of(&items),
        Some(Node { value: Value::Text(list), at: at @ Place::Env(_) })
            if !list.trim().is_empty() =>
        {
            list_of(&items_in_text(&list, &at))
        }
        Some(one) => api_key(&one, path, cx).into_iter().collect(),
    };
    let at = s.at.clone();
    s.finish();
    let (auth_id, id_at) = id?;
    match (auth_id.as_str().starts_with("SA"), &parent) {
        (true, None) => {
            cx.fault(at, format!("subaccount {auth_id} has no `parent`"), "parent = \"MA…\"")
        }
        (false, Some((_, at))) => {
            cx.fault(
                at.clone(),
                format!("{auth_id} is a main account and can't have a `parent`"),
                "the auth_id of a subaccount begins with SA",
            );
        }
        (true, Some((parent, at))) => {
            entries.references.push(Reference::Parent(parent.clone(), at.clone()))
        }
        (false, None) => {}
    }
    entries.unique(cx, "auth_id", auth_id.as_str(), id_at.clone());
    let keys = api_keys.iter().map(|one| (auth_id.clone(), one.key.clone(), id_at.clone()));
    entries.api_keys.extend(keys);
    let parent = parent.map(|(parent, _)| parent);
    entries.accounts.insert(auth_id.clone(), parent.clone());
    Some(AccountSettings {
        auth_id,
        auth_token: auth_token?,
        auth_token_previous,
        cps,
        api_keys,
        parent,
    })
}

/// Reads a secret, or `{ key = SECRET, role = "agent", name = "crm" }`. `None` if the secret is
/// absent.
fn api_key(node: &Node, path: String, cx: &Context<'_>) -> Option<ApiKey> {
    const ABSENT: &str = "the account has no such API key";
    if let Value::Table(table) = &node.value
        && table.contains_key("key")
    {
        let mut s = Section::inline("api_keys", &path, node, cx)?;
        let role = s.key("role", one_of(ROLES), "").get();
        let name = s.key("name", text(), "").get();
        let key = s.secret("key", "").strength(Strength::KEY).optional(ABSENT);
        s.finish();
        return Some(ApiKey { name, key: key?, role: role.unwrap_or(Role::Owner) });
    }
    let key = cx.optional_secret(path, "api_keys", node, Some(Strength::KEY), ABSENT)?;
    Some(ApiKey { name: None, key, role: Role::Owner })
}

pub(super) fn user(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
) -> Option<UserSettings> {
    let name = s
        .key(
            "name",
            text(),
            "The name to sign in with, unique within the main account, 1 to 64 characters.",
        )
        .required("the name to sign in with");
    let password = s
        .secret("password", "The password.")
        .strength(Strength::PASSWORD)
        .required("{ env = \"NAME\" } keeps it out of the file");
    let account = s
        .key("account", auth_id(), "The account that the person belongs to.")
        .required(ACCOUNT_HINT);
    let role =
        s.key("role", one_of(ROLES), "What the person may do.").required("owner, admin or agent");
    s.finish();
    let account = account.map(|(id, at)| entries.account(id, at))?;
    let (name, at) = name?;
    check_name(cx, &name, &at);
    entries.users.push((account.clone(), name.clone(), at));
    Some(UserSettings { name, password: password?, account, role: role?.0 })
}

fn check_name(cx: &Context<'_>, name: &str, at: &Place) {
    if name.is_empty() || name.len() > 64 {
        cx.fault(at.clone(), "`name` must have 1 to 64 characters", "");
    }
}

pub(super) fn webhook(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
    insecure: bool,
) -> Option<WebhookSettings> {
    let name = s
        .key("name", text(), "A name, unique within the account, 1 to 64 characters.")
        .required("a name that is unique within the account");
    let account =
        s.key("account", auth_id(), "The account whose events are posted.").required(ACCOUNT_HINT);
    let url = s
        .key("url", customer_url(insecure), "The URL that events are posted to.")
        .required("the URL that events are posted to");
    if let Some((None, at)) = &url {
        cx.fault(at.clone(), "`url` is empty", "write the URL that events are posted to");
    }
    let secret = s
        .secret("secret", "Signs events (`X-Offhook-Signature`).")
        .strength(Strength::KEY)
        .required("the key of X-Offhook-Signature");
    let secret_previous = s
        .secret(
            "secret_previous",
            "The secret before a rotation. While it is set, events carry a signature with each.",
        )
        .strength(Strength::KEY)
        .optional("events carry only the signature with `secret`");
    s.finish();
    let account = account.map(|(id, at)| entries.account(id, at))?;
    let (name, at) = name?;
    check_name(cx, &name, &at);
    entries.unique(cx, "webhook", &format!("{account} {name}"), at);
    Some(WebhookSettings { name, account, url: url?.0?, secret: secret?, secret_previous })
}

pub(super) fn waba(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
    has_default_token: bool,
) -> Option<WabaSettings> {
    let id = s
        .key("id", meta_id(), "The id of the WhatsApp Business Account at Meta.")
        .required("the id of the WhatsApp Business Account, digits in quotes");
    let account = s
        .key("account", auth_id(), "The account or subaccount that the WABA's numbers belong to.")
        .required(ACCOUNT_HINT);
    let access_token = s
        .secret("access_token", "The access token for requests about this WABA and its numbers.")
        .absent("`meta.access_token`")
        .optional("`meta.access_token` is used");
    let token_path = s.path_of("access_token");
    s.finish();
    let account = account.map(|(id, at)| entries.account(id, at));
    let (id, at) = id?;
    if access_token.is_none() && !has_default_token {
        let hint = "set `access_token` here or in [meta]: Graph refuses every request without one";
        let why = cx.why_absent(&[&token_path, "meta.access_token"]);
        cx.fault(at.clone(), format!("waba {id} has no access token{why}"), hint);
    }
    entries.unique(cx, "id", &id, at);
    let id = WabaId::from(id);
    entries.wabas.insert(id.clone());
    Some(WabaSettings { id, account: account?, access_token })
}

pub(super) fn number(
    mut s: Section<'_>,
    cx: &Context<'_>,
    entries: &mut Entries,
    insecure: bool,
    defaults: &Permissions,
) -> Option<NumberSettings> {
    let number =
        s.key("number", phone_number(), "The business number.").required("E.164 digits, no plus");
    let phone_number_id = s
        .key("phone_number_id", meta_id(), "The number's id at Meta.")
        .required("the number's id at Meta, digits in quotes");
    let waba =
        s.key("waba", meta_id(), "The WABA that has the number.").required("the id of a [[waba]]");
    let alias = s
        .key("alias", text(), "A name for people.")
        .absent("the value set through the API")
        .get()
        .unwrap_or_default();
    let calling_enabled = s
        .key(
            "calling_enabled",
            flag(),
            "Whether the number takes and places calls. It needs `answer_url` or `app_id`.",
        )
        .absent("the value set through the API, otherwise `false`")
        .placed();
    let app_id = s
        .key(
            "app_id",
            digits_of("an application", "the app_id that the API gave, digits in quotes"),
            "The application that provides the URLs if the number has no `answer_url`.",
        )
        .absent("the value set through the API")
        .get()
        .map(AppId::from);
    let has_answer_url = s.has("answer_url");
    let answer_url = s
        .key("answer_url", customer_url(insecure), "Returns the first document of a call.")
        .absent("the value set through the API")
        .get();
    // An `answer_url` that is not valid was reported already.
    let lacks_answer_url =
        matches!(answer_url, Some(None)) || (answer_url.is_none() && !has_answer_url);
    let fallback_url = s
        .key(
            "fallback_url",
            customer_url(insecure),
            "Returns the first document if the answer URL fails.",
        )
        .absent("the value set through the API")
        .get()
        .flatten();
    let hangup_url = s
        .key("hangup_url", customer_url(insecure), "Gets the hangup callback.")
        .absent("the value set through the API, otherwise the answer URL")
        .get()
        .flatten();
    let webhook_url = s
        .key(
            "webhook_url",
            customer_url(insecure),
            "Gets users' messages and their statuses in Plivo's form.",
        )
        .absent("the value set through the API")
        .get()
        .flatten();
    let mut method = |name, doc| s.key(name, one_of(METHODS), doc).or(model::Method::default());
    let answer_method = method("answer_method", "The method of requests to `answer_url`.");
    let fallback_method = method("fallback_method", "The method of requests to `fallback_url`.");
    let hangup_method = method("hangup_method", "The method of requests to `hangup_url`.");
    let calls_per_number = s
        .key("calls_per_number", integer(CALLS), "Live calls of this number.")
        .absent("the value set through the API, otherwise `limits.calls_per_number`")
        .get();
    let own = s.table(
        "permissions",
        "table with keys of `[permissions]`",
        "Overrides `[permissions]` for this number.",
    );
    let permissions = permissions(own, defaults);
    s.finish();
    if let Some((true, at)) = &calling_enabled
        && lacks_answer_url
        && app_id.is_none()
    {
        cx.fault(
            at.clone(),
            "`calling_enabled` needs an `answer_url`",
            "answer_url = \"https://…\", or the `app_id` of an application",
        );
    }
    let waba = waba.map(|(id, at)| {
        let id = WabaId::from(id);
        entries.references.push(Reference::Waba(id.clone(), at));
        id
    });
    let phone_number_id = phone_number_id.map(|(id, at)| {
        entries.unique(cx, "phone_number_id", &id, at);
        PhoneNumberId::from(id)
    });
    let (number, at) = number?;
    entries.unique(cx, "number", number.as_str(), at);
    Some(NumberSettings {
        number,
        phone_number_id: phone_number_id?,
        waba: waba?,
        alias,
        calling_named: calling_enabled.is_some(),
        calling_enabled: calling_enabled.is_some_and(|(on, _)| on),
        app_id,
        answer_url: answer_url.flatten(),
        answer_method,
        fallback_url,
        fallback_method,
        hangup_url,
        hangup_method,
        webhook_url,
        calls_per_number,
        permissions,
    })
}
