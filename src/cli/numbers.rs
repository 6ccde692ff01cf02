//! `offhook numbers`: manages the business numbers of a node over its API. `numbers_file` exports
//! and imports their settings.

use http::Method;
use serde_json::{Value, json};

use super::node_api::NodeApi;
use super::numbers_file::{ExportArgs, ImportArgs, export, import};
use super::target::NodeArgs;
use super::{Exit, print};
use model::E164;
use model::Secret;

/// `offhook numbers …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// List the numbers, newest first
    List(ListArgs),
    /// Connect a number with its credentials, which Meta must confirm
    Connect(ConnectArgs),
    /// Register a number with Meta's Cloud API and wait for the result
    Register(RegisterArgs),
    /// Read the settings of a number, or of all numbers of a WABA, from Meta
    Sync(SyncArgs),
    /// Export the settings of all numbers, with routing and account mapping, without tokens
    Export(ExportArgs),
    /// Import settings from a file of `export`; changes nothing if the node would refuse any of
    /// them
    Import(ImportArgs),
}

/// Options of `offhook numbers list`.
#[derive(clap::Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// Only numbers that contain this text in their number, alias or name
    #[arg(long, value_name = "TEXT")]
    pub q: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Options of `offhook numbers connect`.
#[derive(clap::Args, Clone, Debug)]
pub struct ConnectArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// Display name of the number
    #[arg(long, value_name = "TEXT")]
    pub name: String,
    /// Meta's phone number id
    #[arg(long, value_name = "ID")]
    pub phone_number_id: String,
    /// Meta's WhatsApp Business Account id
    #[arg(long, value_name = "ID")]
    pub waba: Option<String>,
    /// The expected phone number. Fails if Meta reports another one
    #[arg(long, value_name = "NUMBER")]
    pub number: Option<String>,
    /// Meta's access token; prefer the environment variable to the command line
    #[arg(long, value_name = "TOKEN", env = "OFFHOOK_ACCESS_TOKEN", hide_env_values = true)]
    pub access_token: Secret,
}

/// Options of `offhook numbers register`.
#[derive(clap::Args, Clone, Debug)]
pub struct RegisterArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// The number
    #[arg(value_name = "NUMBER")]
    pub number: String,
    /// Six-digit PIN of two-step verification
    #[arg(long, value_name = "PIN", env = "OFFHOOK_PIN", hide_env_values = true)]
    pub pin: Secret,
}

/// Options of `offhook numbers sync`.
#[derive(clap::Args, Clone, Debug)]
pub struct SyncArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// The number. Further numbers of its WABA are added, too. Or name a WABA with --waba
    #[arg(value_name = "NUMBER")]
    pub number: Option<String>,
    /// All numbers of this WABA, including new ones
    #[arg(long, value_name = "ID", conflicts_with = "number")]
    pub waba: Option<String>,
}

/// Interval and number of status requests while a registration runs.
const STATUS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);
const STATUS_REQUESTS_MAX: usize = 240;

/// Runs the command. Exit code 0: done; 1: the node or Meta refused; 2: wrong usage.
pub fn run(args: Args) -> Exit {
    super::run_async(async {
        let done = match args.command {
            Command::List(args) => list(args).await,
            Command::Connect(args) => connect(args).await,
            Command::Register(args) => register(args).await,
            Command::Sync(args) => sync(args).await,
            Command::Export(args) => export(args).await,
            Command::Import(args) => import(args).await,
        };
        done.unwrap_or_else(|exit| exit)
    })
}

fn path_of(number: &str, what: &str) -> Result<String, Exit> {
    let bare = number.trim().trim_start_matches("whatsapp:");
    let number = E164::parse(bare).map_err(Exit::usage)?;
    Ok(format!("phone-numbers/{number}/{what}"))
}

async fn list(args: ListArgs) -> Result<Exit, Exit> {
    let numbers = NodeApi::of(&args.at)?.all("phone-numbers/", args.q.as_deref()).await?;
    if args.json {
        numbers.iter().for_each(print::json);
    } else if numbers.is_empty() {
        print::line("no numbers");
    } else {
        print::text(&table(&numbers));
    }
    Ok(Exit::Done)
}

/// One row per number, below a header row.
fn table(numbers: &[Value]) -> String {
    let text = |number: &Value, field: &str| number[field].as_str().unwrap_or_default().to_owned();
    let mut rows = vec![
        [
            "number",
            "country",
            "alias",
            "verified name",
            "platform",
            "id",
            "quality",
            "calling",
            "state",
        ]
        .map(str::to_owned),
    ];
    for number in numbers {
        let calling = match (number["callingEnabled"].as_bool(), number["callingDrift"].is_null()) {
            (Some(true), true) => "on",
            (_, true) => "off",
            (Some(true), false) => "on, not at Meta",
            (_, false) => "off, not at Meta",
        };
        let state = match (number["connected"].as_bool(), number["registration"]["state"].as_str())
        {
            (Some(false), _) => "disconnected".to_owned(),
            (_, Some("failed")) => "registration failed".to_owned(),
            (_, state) => state.unwrap_or_default().to_owned(),
        };
        rows.push([
            text(number, "number"),
            text(number, "country"),
            text(number, "alias"),
            text(number, "verifiedName"),
            text(number, "platformType"),
            text(number, "whatsappPhoneNumberId"),
            text(number, "qualityRating"),
            calling.to_owned(),
            state,
        ]);
    }
    print::table(&rows)
}

async fn connect(args: ConnectArgs) -> Result<Exit, Exit> {
    let api = NodeApi::of(&args.at)?;
    let body = json!({
        "displayName": args.name,
        "number": args.number,
        "whatsappPhoneNumberId": args.phone_number_id,
        "whatsappBusinessAccount": args.waba,
        "accessToken": args.access_token.reveal(),
    });
    let number = api.ask(Method::POST, "phone-numbers/", Some(&body)).await?;
    print::text(&table(&[number]));
    Ok(Exit::Done)
}

async fn register(args: RegisterArgs) -> Result<Exit, Exit> {
    let pin = args.pin.reveal();
    if pin.len() != 6 || !pin.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Exit::usage("--pin needs the six digits of two-step verification"));
    }
    let api = NodeApi::of(&args.at)?;
    let body = json!({"pin": pin});
    api.ask(Method::POST, &path_of(&args.number, "register/")?, Some(&body)).await?;
    let path = path_of(&args.number, "")?;
    for _ in 0..STATUS_REQUESTS_MAX {
        let number = api.ask(Method::GET, &path, None).await?;
        let registration = &number["registration"];
        match registration["state"].as_str() {
            Some("running") => tokio::time::sleep(STATUS_INTERVAL).await,
            Some("registered") => {
                print::line("registered");
                return Ok(Exit::Done);
            }
            _ => {
                let reason =
                    print::plain(registration["reason"].as_str().unwrap_or("no reason given"));
                return Err(Exit::failed(format_args!("not registered: {reason}")));
            }
        }
    }
    Err(Exit::failed("the registration is still running; see `offhook numbers list`"))
}

async fn sync(args: SyncArgs) -> Result<Exit, Exit> {
    let api = NodeApi::of(&args.at)?;
    let path = match (&args.waba, &args.number) {
        (Some(waba), _) => format!("wabas/{waba}/sync/"),
        (None, Some(number)) => path_of(number, "sync/")?,
        (None, None) => return Err(Exit::usage("name a number, or a WABA with --waba")),
    };
    let synced = api.ask(Method::POST, &path, None).await?;
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(print::plain).collect()
    };
    for number in texts(&synced["added"]) {
        print::line(format_args!("{number}: added"));
    }
    for one in synced["changed"].as_array().into_iter().flatten() {
        let number = print::plain(one["number"].as_str().unwrap_or_default());
        print::line(format_args!("{number}: {} changed", texts(&one["fields"]).join(", ")));
    }
    for one in synced["leftOut"].as_array().into_iter().flatten() {
        let [number, reason] =
            ["number", "reason"].map(|name| print::plain(one[name].as_str().unwrap_or_default()));
        print::line(format_args!("{number}: not added ({reason})"));
    }
    for number in texts(&synced["settingsUnread"]) {
        print::line(format_args!(
            "{number}: Meta returned no calling settings; the last known ones are kept"
        ));
    }
    if texts(&synced["added"]).is_empty() && synced["changed"].as_array().is_none_or(Vec::is_empty)
    {
        print::line("no changes");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> Value {
        json!({"number": "918035737458", "country": "IN", "alias": "Desk — \"A\"", "answerUrl": "https://a.example.com/", "answerMethod": "POST",
            "webhookUrl": null, "callingEnabled": true, "callsPerNumber": 1000, "verifiedName": "Shop\u{1b}", "hasToken": true,
            "platformType": "CLOUD_API", "whatsappPhoneNumberId": "7", "qualityRating": "GREEN", "callingDrift": {"callingEnabled": false},
            "connected": true, "registration": {"state": "registered"}})
    }

    #[test]
    fn prints_one_row_per_number() {
        assert_eq!(
            table(&[number()]),
            "number        country  alias       verified name  platform   id  quality  calling          state\n\
             918035737458  IN       Desk — \"A\"  Shop           CLOUD_API  7   GREEN    on, not at Meta  registered\n"
        );
    }
}
