//! `offhook numbers export` and `import`: writes the settings of a node's numbers to a file, and
//! applies such a file. Settings that the file omits stay unchanged. The import makes the node
//! validate all changes before it makes the first one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Map, Value, json};

use super::node_api::NodeApi;
use super::target::NodeArgs;
use super::{Exit, print};
use engine::config::suggestion;
use model::E164;

/// Options of `offhook numbers export`.
#[derive(clap::Args, Clone, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// File to write; the extension selects the format, .toml or .json [default: TOML on standard
    /// output]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "file")]
    pub force: bool,
    /// Print JSON to standard output
    #[arg(long, conflicts_with = "file")]
    pub json: bool,
}

/// Options of `offhook numbers import`.
#[derive(clap::Args, Clone, Debug)]
pub struct ImportArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// File written by `export`, .toml or .json; settings that it omits stay unchanged
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show what would change or be refused, without changing anything
    #[arg(long)]
    pub dry_run: bool,
}

/// The settings of a number that are exported and imported, besides routing and account.
const SETTINGS: &[&str] = &[
    "alias",
    "configurationType",
    "webhookUrl",
    "callingEnabled",
    "answerUrl",
    "answerMethod",
    "fallbackUrl",
    "fallbackMethod",
    "hangupUrl",
    "hangupMethod",
    "callsPerNumber",
    "callbackPermission",
];
/// Settings that can be unset. The file has an empty string for these, as TOML has no null.
const URLS: &[&str] = &["webhookUrl", "answerUrl", "fallbackUrl", "hangupUrl"];
/// Routing of a number. Webhooks and agents are referred to by name.
const ROUTING: &[&str] = &["defaultRouting", "defaultWebhook", "activeAgent"];
/// The account that owns the number. It changes for all numbers of the WABA.
const ACCOUNT: &str = "account";
/// Maximum size of an import file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Webhooks and agents of the node, by name.
#[derive(Default)]
struct NodeResources {
    webhooks: BTreeMap<String, Vec<Value>>,
    agents: BTreeMap<String, Vec<Value>>,
}

impl NodeResources {
    async fn of(api: &NodeApi) -> Result<Self, Exit> {
        let by_name = |items: Vec<Value>| {
            let mut named: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for item in items {
                named.entry(text(&item, "name")).or_default().push(item);
            }
            named
        };
        Ok(Self {
            webhooks: by_name(api.all("webhooks/", None).await?),
            agents: by_name(api.all("agents/", None).await?),
        })
    }

    /// The name of the item with this id.
    fn name(of: &BTreeMap<String, Vec<Value>>, id: &Value) -> Option<String> {
        let is_it = |items: &&Vec<Value>| items.iter().any(|item| item["id"] == *id);
        of.iter().find(|(_, items)| is_it(items)).map(|(name, _)| name.clone())
    }

    /// Returns the item with this name, if there is exactly one.
    ///
    /// # Errors
    /// Returns a message if there is none, or more than one.
    fn only<'a>(
        of: &'a BTreeMap<String, Vec<Value>>,
        name: &str,
        what: &str,
    ) -> Result<&'a Value, String> {
        match of.get(name).map(Vec::as_slice) {
            Some([one]) => Ok(one),
            None | Some([]) => Err(format!("this node has no {what} {name:?}")),
            Some(_) => Err(format!(
                "this node has several {what}s named {name:?}: rename all but one of them, then import the file again"
            )),
        }
    }
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

pub(super) async fn export(args: ExportArgs) -> Result<Exit, Exit> {
    let is_json = match &args.file {
        Some(file) => is_json(file)?,
        None => args.json,
    };
    if let Some(file) = args.file.as_ref().filter(|file| !args.force && file.exists()) {
        return Err(Exit::failed(format_args!(
            "{} exists; name another file, or use --force to replace it",
            file.display()
        )));
    }
    let api = NodeApi::of(&args.at)?;
    let (numbers, named) = (api.all("phone-numbers/", None).await?, NodeResources::of(&api).await?);
    let text = write(&numbers, &named, is_json).map_err(Exit::failed)?;
    match &args.file {
        None => print::text(&text),
        Some(file) => {
            std::fs::write(file, text).map_err(|e| {
                Exit::failed(format_args!("could not write {}: {e}", file.display()))
            })?;
            print::line(format_args!("{}: numbers: {}", file.display(), numbers.len()));
        }
    }
    Ok(Exit::Done)
}

/// Whether the extension selects JSON, and not TOML.
fn is_json(file: &Path) -> Result<bool, Exit> {
    let is = |ending: &str| file.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    match (is("json"), is("toml")) {
        (false, false) => Err(Exit::usage(format_args!(
            "{}: the extension selects the format; use .toml or .json",
            file.display()
        ))),
        (is_json, _) => Ok(is_json),
    }
}

/// The file entry of a number. Unset URLs are empty strings.
fn entry(number: &Value, named: &NodeResources) -> Map<String, Value> {
    let mut entry = Map::from_iter([("number".to_owned(), number["number"].clone())]);
    for field in SETTINGS {
        let value = match &number[*field] {
            Value::Null if URLS.contains(field) => json!(""),
            value => value.clone(),
        };
        entry.insert((*field).to_owned(), value);
    }
    let routing =
        ["defaultRouting", ACCOUNT].map(|field| (field.to_owned(), number[field].clone()));
    entry.extend(routing);
    let names = [
        ("defaultWebhook", NodeResources::name(&named.webhooks, &number["defaultWebhook"])),
        ("activeAgent", NodeResources::name(&named.agents, &number["activeAgent"])),
    ];
    entry.extend(
        names.into_iter().filter_map(|(field, name)| Some((field.to_owned(), name?.into()))),
    );
    entry.retain(|_, value| !value.is_null());
    entry
}

/// Serializes the settings of numbers.
fn write(numbers: &[Value], named: &NodeResources, is_json: bool) -> Result<String, String> {
    let all =
        json!({"number": numbers.iter().map(|number| entry(number, named)).collect::<Vec<_>>()});
    let text = if is_json {
        serde_json::to_string_pretty(&all).map_err(|e| e.to_string())
    } else {
        toml::to_string(&all).map_err(|e| e.to_string())
    };
    text.map(|text| format!("{}\n", text.trim_end()))
}

/// A number and its settings in the file.
type Entry = (E164, Map<String, Value>);

/// Parses a file.
fn read(text: &str, is_json: bool) -> Result<Vec<Entry>, String> {
    let all: Value = if is_json {
        serde_json::from_str(text).map_err(|e| e.to_string())?
    } else {
        toml::from_str(text).map_err(|e| e.to_string())?
    };
    let list = all["number"].as_array().ok_or("the list `number` is missing")?;
    let mut found: Vec<Entry> = Vec::new();
    for one in list {
        let number = E164::parse(one["number"].as_str().unwrap_or_default())?;
        let mut settings = one.as_object().cloned().ok_or("an entry is not a table")?;
        settings.remove("number");
        let known = || SETTINGS.iter().chain(ROUTING).copied().chain([ACCOUNT]);
        if let Some(unknown) = settings.keys().find(|key| !known().any(|known| known == **key)) {
            let hint = suggestion(unknown, known());
            return Err(format!("{number}: unknown setting {unknown}: {hint}"));
        }
        if found.iter().any(|(other, _)| *other == number) {
            return Err(format!("{number} occurs twice"));
        }
        found.push((number, settings));
    }
    Ok(found)
}

/// The routing in a file.
#[derive(Clone, Debug, PartialEq)]
enum Routing {
    Webhook(Value),
    /// The `webhookUrl` of the number.
    Url,
    Agent(Value),
    None,
}

/// The changes to a number.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    panel: Map<String, Value>,
    answers: Option<Routing>,
    /// The WABA of the number, and its new account.
    account: Option<(String, String)>,
}

impl Plan {
    /// Compares the file with the current settings.
    ///
    /// # Errors
    /// Returns a message if the change is known to be invalid without asking the node.
    fn of(
        settings: &Map<String, Value>,
        now: &Value,
        named: &NodeResources,
    ) -> Result<Self, String> {
        let is = entry(now, named);
        let empty = |value: &Value| value.is_null() || value == "";
        let same = |field: &str, value: &Value| {
            is.get(field) == Some(value) || (empty(value) && is.get(field).is_none_or(empty))
        };
        let differing = settings
            .iter()
            .filter(|(field, value)| SETTINGS.contains(&field.as_str()) && !same(field, value));
        let mut plan = Self {
            panel: differing.map(|(f, v)| (f.clone(), v.clone())).collect(),
            ..Self::default()
        };
        plan.answers = Self::answers(settings, &is, named, now)?;
        let has_url = ["webhookUrl", "answerUrl"].into_iter().any(|field| {
            let url = settings.get(field).or_else(|| is.get(field));
            !url.is_none_or(empty)
        });
        if !has_url && plan.panel.get("configurationType").is_some_and(|kind| kind == "webhook") {
            // A number that has lost its agent and has no URL waits for another agent.
            plan.panel.remove("configurationType");
        }
        if plan.answers == Some(Routing::Url) {
            if !has_url {
                return Err(
                    "defaultRouting webhook needs a defaultWebhook, a webhookUrl or an answerUrl"
                        .to_owned(),
                );
            }
            // Naming `webhookUrl` as the routing also selects it as the destination of messages.
            plan.panel.insert("configurationType".to_owned(), json!("webhook"));
        }
        if let Some(account) = settings.get(ACCOUNT).filter(|account| !same(ACCOUNT, account)) {
            let waba = now["whatsappBusinessAccount"]
                .as_str()
                .ok_or("it belongs to no WABA, so its account cannot change")?;
            let account = account.as_str().ok_or("account must be an account's id")?;
            plan.account = Some((waba.to_owned(), account.to_owned()));
        }
        Ok(plan)
    }

    fn answers(
        settings: &Map<String, Value>,
        is: &Map<String, Value>,
        named: &NodeResources,
        now: &Value,
    ) -> Result<Option<Routing>, String> {
        let Some(routing) = settings.get("defaultRouting") else {
            let lone = ["defaultWebhook", "activeAgent"]
                .into_iter()
                .find(|field| settings.contains_key(*field));
            return match lone {
                Some(field) => Err(format!("{field} needs a defaultRouting")),
                None => Ok(None),
            };
        };
        let name = |field: &str| {
            settings.get(field).and_then(Value::as_str).filter(|name| !name.is_empty())
        };
        let wanted = match (routing.as_str(), name("defaultWebhook"), name("activeAgent")) {
            (Some("webhook"), Some(webhook), _) => Routing::Webhook(
                NodeResources::only(&named.webhooks, webhook, "webhook")?["id"].clone(),
            ),
            (Some("webhook"), None, _) => Routing::Url,
            (Some("agent"), _, Some(agent)) => {
                let agent = NodeResources::only(&named.agents, agent, "agent")?;
                let writes = agent["channels"]
                    .as_array()
                    .is_some_and(|channels| channels.contains(&json!("whatsapp")));
                if !writes {
                    return Err(format!("the agent {} has no `whatsapp` channel", agent["name"]));
                }
                if now["platformType"] != "CLOUD_API" {
                    return Err("an agent needs a Cloud API number; register it first".to_owned());
                }
                Routing::Agent(agent["id"].clone())
            }
            (Some("agent"), _, None) => {
                return Err("defaultRouting agent needs an activeAgent".to_owned());
            }
            (Some("none"), ..) => Routing::None,
            _ => return Err("defaultRouting must be webhook, agent or none".to_owned()),
        };
        let same = is.get("defaultRouting") == Some(routing)
            && ["defaultWebhook", "activeAgent"]
                .iter()
                .all(|field| name(field) == is.get(*field).and_then(Value::as_str));
        // A change of `configurationType` resets the routing, so it must be set again.
        let turned = settings
            .get("configurationType")
            .is_some_and(|kind| is.get("configurationType") != Some(kind));
        if (turned || !same) && now["connected"] == false {
            return Err("the number is disconnected; reconnect it first".to_owned());
        }
        Ok(Some(wanted).filter(|_| turned || !same))
    }

    /// Names of the fields that change.
    fn names(&self) -> Vec<&str> {
        let routing = self.answers.is_some().then_some("routing");
        let account = self.account.is_some().then_some(ACCOUNT);
        self.panel.keys().map(String::as_str).chain(routing).chain(account).collect()
    }

    /// Makes the node validate the change without making it. The inner error is the refusal.
    async fn check(&self, api: &NodeApi, number: &E164) -> Result<Result<(), String>, Exit> {
        if !self.panel.is_empty() {
            let path = format!("phone-numbers/{number}/?dryRun=true");
            if let Err(error) =
                api.try_ask(Method::PATCH, &path, Some(&Value::Object(self.panel.clone()))).await?
            {
                return Ok(Err(error));
            }
        }
        if let Some((waba, account)) = &self.account {
            let path = format!("wabas/{waba}/?dryRun=true");
            if let Err(error) =
                api.try_ask(Method::PATCH, &path, Some(&json!({"account": account}))).await?
            {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Makes the change. The account comes first: the webhook or agent may belong to the new
    /// account. The inner error is the refusal.
    async fn apply(
        &self,
        api: &NodeApi,
        number: &E164,
        now: &Value,
    ) -> Result<Result<(), String>, Exit> {
        let mut requests = Vec::new();
        if let Some((waba, account)) = &self.account {
            requests.push((Method::PATCH, format!("wabas/{waba}/"), json!({"account": account})));
        }
        let panel = (!self.panel.is_empty()).then(|| {
            (Method::PATCH, format!("phone-numbers/{number}/"), Value::Object(self.panel.clone()))
        });
        let post =
            |what: &str, body| (Method::POST, format!("phone-numbers/{number}/{what}/"), body);
        let routing = match &self.answers {
            Some(Routing::Webhook(webhook)) => {
                let id = &now["whatsappPhoneNumberId"];
                let body = json!({"number": number.as_str(), "whatsappPhoneNumberId": id, "webhook": webhook});
                Some(post("subscribe", body))
            }
            Some(Routing::Agent(agent)) => Some(post("connect-agent", json!({"agent": agent}))),
            Some(Routing::None) => Some(post("disconnect-agent", json!({}))),
            // Part of `panel`.
            Some(Routing::Url) | None => None,
        };
        // A number of type `agent` needs its agent before calling is enabled. For other types, the
        // type resets the routing, so the routing comes last.
        let by_agent = self.panel.get("configurationType").is_some_and(|is| is == "agent");
        requests.extend(
            if by_agent { [routing, panel] } else { [panel, routing] }.into_iter().flatten(),
        );
        for (method, path, body) in requests {
            if let Err(error) = api.try_ask(method, &path, Some(&body)).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

pub(super) async fn import(args: ImportArgs) -> Result<Exit, Exit> {
    let file = args.file.display();
    let text =
        bounded(&args.file).map_err(|e| Exit::usage(format_args!("could not read {file}: {e}")))?;
    let wanted =
        read(&text, is_json(&args.file)?).map_err(|e| Exit::usage(format_args!("{file}: {e}")))?;
    let api = NodeApi::of(&args.at)?;
    let (there, named) = (api.all("phone-numbers/", None).await?, NodeResources::of(&api).await?);
    let (mut plans, mut refused) = (Vec::new(), 0);
    for (number, settings) in wanted {
        let now = there.iter().find(|one| one["number"] == number.as_str());
        let plan = match now {
            None => {
                Err("not connected to this node; connect it with `offhook numbers connect`"
                    .to_owned())
            }
            Some(now) => Plan::of(&settings, now, &named).map(|plan| (plan, now)),
        };
        match plan {
            Ok((plan, now)) => match plan.check(&api, &number).await? {
                Ok(()) => plans.push((number, plan, now)),
                Err(why) => refused += refusal(&number, &why),
            },
            Err(why) => refused += refusal(&number, &why),
        }
    }
    if refused > 0 && !args.dry_run {
        return Err(Exit::failed("nothing was changed; correct the file and import it again"));
    }
    for (number, plan, now) in &plans {
        let names = plan.names().join(", ");
        if names.is_empty() {
            print::line(format_args!("{number}: unchanged"));
        } else if args.dry_run {
            print::line(format_args!("{number}: {names} would change"));
        } else if let Err(why) = plan.apply(&api, number, now).await? {
            refusal(number, &why);
            return Err(Exit::failed(
                "the numbers before it were changed; correct the file and import it again",
            ));
        } else {
            print::line(format_args!("{number}: {names} changed"));
        }
    }
    if refused > 0 { Err(Exit::Failed) } else { Ok(Exit::Done) }
}

/// Prints a refusal. Returns 1, the number of refusals.
fn refusal(number: &E164, why: &str) -> u32 {
    print::error(format_args!("{number}: {why}"));
    1
}

fn bounded(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> Value {
        json!({"number": "918035737458", "alias": "Desk — \"A\"", "answerUrl": "https://a.example.com/", "answerMethod": "POST",
            "webhookUrl": null, "callingEnabled": true, "callsPerNumber": 1000, "verifiedName": "Shop", "hasToken": true,
            "configurationType": "webhook", "platformType": "CLOUD_API", "whatsappPhoneNumberId": "7", "connected": true,
            "whatsappBusinessAccount": "5001", "account": "MA1", "defaultRouting": "webhook", "defaultWebhook": "w-1",
            "activeAgent": null})
    }

    fn named() -> NodeResources {
        let one = |name: &str, items: Value| (name.to_owned(), items.as_array().unwrap().clone());
        NodeResources {
            webhooks: BTreeMap::from_iter([
                one("crm", json!([{"id": "w-1"}])),
                one("two", json!([{"id": "w-2"}, {"id": "w-3"}])),
            ]),
            agents: BTreeMap::from_iter([
                one("Asha", json!([{"id": "a-1", "channels": ["whatsapp"]}])),
                one("Voice", json!([{"id": "a-2", "name": "Voice", "channels": ["voice"]}])),
            ]),
        }
    }

    fn plan(settings: Value, now: &Value) -> Result<Plan, String> {
        Plan::of(settings.as_object().unwrap(), now, &named())
    }

    #[test]
    fn an_export_reads_back_the_same_and_holds_only_settings() {
        for is_json in [false, true] {
            let text = write(&[number()], &named(), is_json).unwrap();
            assert!(!text.contains("hasToken") && !text.contains("verifiedName"), "{text}");
            let read = read(&text, is_json).unwrap();
            assert_eq!(read[0].0.as_str(), "918035737458");
            assert_eq!(Plan::of(&read[0].1, &number(), &named()), Ok(Plan::default()), "{text}");
            // Changes since the export are reverted.
            let mut other = number();
            for (field, value) in [
                ("alias", json!("x")),
                ("webhookUrl", json!("https://b.example.com/")),
                ("defaultRouting", json!("none")),
                ("defaultWebhook", Value::Null),
                ("account", json!("SA1")),
            ] {
                other[field] = value;
            }
            let back = Plan::of(&read[0].1, &other, &named()).unwrap();
            assert_eq!(
                Value::Object(back.panel),
                json!({"alias": "Desk — \"A\"", "webhookUrl": ""})
            );
            assert_eq!(back.answers, Some(Routing::Webhook(json!("w-1"))));
            assert_eq!(back.account, Some(("5001".to_owned(), "MA1".to_owned())));
        }
    }

    #[test]
    fn omitted_settings_stay() {
        let plan = plan(json!({"alias": "x"}), &number()).unwrap();
        assert_eq!(plan.names(), ["alias"]);
        assert_eq!(Value::Object(plan.panel), json!({"alias": "x"}));
    }

    #[test]
    fn rejects_invalid_changes() {
        for (settings, why) in [
            (json!({"defaultRouting": "webhook", "defaultWebhook": "nope"}), "no webhook \"nope\""),
            (json!({"defaultRouting": "webhook", "defaultWebhook": "two"}), "rename all but one"),
            (json!({"defaultRouting": "webhook", "answerUrl": ""}), "needs a defaultWebhook"),
            (json!({"defaultRouting": "agent"}), "needs an activeAgent"),
            (json!({"defaultRouting": "agent", "activeAgent": "Voice"}), "no `whatsapp` channel"),
            (json!({"defaultRouting": "robot"}), "webhook, agent or none"),
            (json!({"activeAgent": "Asha"}), "needs a defaultRouting"),
            (json!({"account": 7}), "an account's id"),
        ] {
            let refused = plan(settings.clone(), &number()).unwrap_err();
            assert!(refused.contains(why), "{settings}: {refused}");
        }
        let agent = json!({"defaultRouting": "agent", "activeAgent": "Asha"});
        assert_eq!(
            plan(agent.clone(), &number()).unwrap().answers,
            Some(Routing::Agent(json!("a-1")))
        );
        let mut away = number();
        away["connected"] = json!(false);
        assert!(plan(agent, &away).unwrap_err().contains("disconnected"));
        for (text, why) in [
            ("[[number]]\nnumber = \"918035737458\"\naccessToken = \"x\"", "accessToken"),
            (
                "[[number]]\nnumber = \"918035737458\"\nanswerURL = \"\"",
                "did you mean `answerUrl`?",
            ),
            ("x = 1", "is missing"),
            ("[[number]]\nnumber = \"12\"", ""),
            (
                "[[number]]\nnumber = \"918035737458\"\n[[number]]\nnumber = \"918035737458\"",
                "twice",
            ),
        ] {
            assert!(read(text, false).unwrap_err().contains(why), "{text}");
        }
    }
}
