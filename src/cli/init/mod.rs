//! `offhook init`: writes the configuration of a new node, and prints what to enter at Meta.
//!
//! `interview` gets the answers from flags or at the terminal, `meta` reads accounts and numbers
//! from Graph, `file` formats the configuration, and `secrets` creates the files that it refers to.
//! No file is written until all answers are valid.

mod file;
mod interview;
mod meta;
mod secrets;
mod site;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use url::Url;

use super::{Exit, config, doctor, print};
use engine::config::{Listen, Reference};
use engine::meta::numbers::FIELDS_NEEDED;
use file::Plan;
use interview::{Interview, Question, SecretSource};
use model::{Secret, is_loopback};
use secrets::Secrets;
use site::Site;

/// Options of `offhook init`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Public host name of this node, such as calls.example.com
    #[arg(long, value_name = "HOST")]
    pub domain: Option<String>,
    /// E-mail address for the certificate authority, which it may write to about certificates
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// A reverse proxy on this machine terminates TLS; the node listens on 127.0.0.1:8080
    #[arg(long)]
    pub behind_proxy: bool,
    /// Directory URL of the certificate authority, if it is not Let's Encrypt
    #[arg(long, value_name = "URL", value_parser = super::http_url, conflicts_with = "behind_proxy")]
    pub acme_directory: Option<Url>,
    /// File with root certificates for the directory URL
    #[arg(long, value_name = "FILE", value_parser = super::existing_file, requires = "acme_directory")]
    pub acme_ca: Option<PathBuf>,
    /// Id of the Meta app
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,
    /// File with the app's secret
    #[arg(long, value_name = "FILE")]
    pub app_secret_file: Option<PathBuf>,
    /// Environment variable with the app's secret
    #[arg(long, value_name = "NAME", default_value = "META_APP_SECRET")]
    pub app_secret_env: String,
    /// File with the access token of a system user
    #[arg(long, value_name = "FILE")]
    pub access_token_file: Option<PathBuf>,
    /// Environment variable with the access token
    #[arg(long, value_name = "NAME", default_value = "META_ACCESS_TOKEN")]
    pub access_token_env: String,
    /// Id of the WhatsApp Business Account [default: the one that the token grants access to]
    #[arg(long, value_name = "ID")]
    pub waba: Option<String>,
    /// The business number [default: the only one of the account]
    #[arg(long, value_name = "NUMBER")]
    pub number: Option<String>,
    /// URL of your application, which returns the XML of a call
    #[arg(long, value_name = "URL")]
    pub answer_url: Option<String>,
    /// Base URL of the Graph API with its version, such as that of a simulated Meta
    #[arg(long, value_name = "URL", value_parser = graph_url)]
    pub graph_url: Option<Url>,
    /// Folder of the node's data [default: offhook-data beside the file; /var/lib/offhook for a file
    /// in /etc/offhook]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The file to write; its secrets go into a folder beside it
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub output: PathBuf,
    /// Ask no questions, even at a terminal: flags and defaults are the answers
    #[arg(long)]
    pub yes: bool,
    /// Replace an existing file. Secrets that an earlier run generated are kept
    #[arg(long)]
    pub force: bool,
}

const DOMAIN: Question = Question {
    flag: "--domain",
    text: "Public host name of this node (such as calls.example.com)",
};
const EMAIL: Question =
    Question { flag: "--email", text: "E-mail address for the certificate authority" };
const APP_ID: Question =
    Question { flag: "--app-id", text: "Id of the Meta app (App settings > Basic)" };
const APP_SECRET: Question =
    Question { flag: "--app-secret-file", text: "Secret of the app (App settings > Basic > Show)" };
const ACCESS_TOKEN: Question = Question {
    flag: "--access-token-file",
    text: "Access token of a system user (Business settings > System users)",
};
const ANSWER_URL: Question =
    Question { flag: "--answer-url", text: "URL of your application that returns XML" };

/// Minimum length in characters of an app secret that the configuration accepts.
const APP_SECRET_MIN: usize = 20;

/// Answers that the person gives before Meta is asked.
struct Answers {
    site: Site,
    email: Option<String>,
    answer_url: String,
    app: App,
    /// `None` if a person is there, who is asked for it once Meta has accepted the app.
    access_token: Option<Secret>,
}

/// A Meta app.
struct App {
    id: String,
    secret: Secret,
}

/// Runs the command. Exit code 0: the file is written; 1: Meta refused the credentials, or a file
/// could not be written; 2: an answer is missing or wrong, or the file exists.
pub fn run(args: Args) -> Exit {
    if !args.force && args.output.exists() {
        return Exit::usage(format_args!(
            "{} exists; use --output for another file, or --force to replace it",
            args.output.display()
        ));
    }
    super::run_async(async { init(args).await.unwrap_or_else(|exit| exit) })
}

async fn init(args: Args) -> Result<Exit, Exit> {
    let mut interview = if args.yes { Interview::silent() } else { Interview::begin() };
    let graph_url = args.graph_url.clone();
    let simulated = graph_url.as_ref().is_some_and(is_loopback);
    let Answers { site, email, answer_url, app, access_token } =
        ask(&args, simulated, &mut interview)?;
    let graph = meta::GraphApi::at(graph_url.as_ref());
    let app = accepted_app(&graph, app, &mut interview).await?;
    let access_token = match access_token {
        Some(token) => token,
        None => ask_token(&args, &mut interview)?,
    };
    let (account, access_token) =
        accepted_token(&graph, &app, access_token, &mut interview).await?;
    let waba =
        interview.choose("--waba", "WhatsApp Business Account", args.waba, &account.wabas)?;
    let numbers = account.numbers(&waba).await.map_err(Exit::failed)?;
    let wanted = args.number.map(|number| match model::digits_of(&number) {
        digits if digits.is_empty() => number,
        digits => digits,
    });
    let number = interview.choose("--number", "business number", wanted, &numbers)?;

    let output = absolute(&args.output)?;
    let folder = output.parent().unwrap_or(Path::new("/"));
    let data_dir = match args.data_dir {
        Some(folder) => absolute(&folder)?,
        None if folder == Path::new("/etc/offhook") => "/var/lib/offhook".into(),
        None => folder.join("offhook-data"),
    };
    let secrets = Secrets::beside(&output);
    let plan = Plan {
        site,
        email,
        acme_directory: args.acme_directory,
        acme_ca: args.acme_ca.as_deref().map(absolute).transpose()?,
        behind_proxy: args.behind_proxy,
        graph_url,
        simulated,
        app_id: app.id,
        waba: waba.id,
        number,
        answer_url,
        seals_store: !data_dir.join(store::SQLITE_FILE_NAME).exists() || secrets.has_key(),
        data_dir,
        serves_ipv6: media::sockets::interface_addresses()
            .is_ok_and(|ips| ips.iter().any(|ip| ip.is_ipv6() && egress::is_public(*ip))),
        admin: free_admin(simulated),
    };
    let text = plan.to_toml(&Reference::collect(), &secrets);
    let written = secrets
        .write(&app.secret, &access_token, plan.seals_store)
        .and_then(|()| secrets::write_file(&output, &text, args.force));
    if let Err(e) = written {
        return Err(Exit::failed(format_args!("could not write {}: {e}", output.display())));
    }
    let verify_token = secrets.verify_token().map_err(Exit::failed)?;
    print::text(&next_steps(&plan, &output, &secrets, &verify_token));
    let config = config::load(&output)?;
    print::text("\nThe checks of `offhook doctor`. The public URL answers once the node runs.\n\n");
    let _ = doctor::examine(config, false).await;
    Ok(Exit::Done)
}

/// Returns another address for metrics and health checks if the default one is in use and Meta is a
/// simulated one: `offhook dev` runs on this machine and has it. On a server, it is probably the node
/// that this configuration is for.
fn free_admin(simulated: bool) -> Option<SocketAddr> {
    let default = Listen::default().admin;
    let is_free = |at: &SocketAddr| std::net::TcpListener::bind(at).is_ok();
    if !simulated || is_free(&default) {
        return None;
    }
    (default.port()..).skip(1).take(20).map(|port| (default.ip(), port).into()).find(is_free)
}

/// Gets the answers that need no request to Meta.
fn ask(args: &Args, simulated: bool, interview: &mut Interview) -> Result<Answers, Exit> {
    let domain = args.domain.clone();
    let site = interview.answer(&DOMAIN, domain, |text| Site::parse(text, simulated));
    let wants_email = site.as_ref().is_some_and(|site| site.is_public) && !args.behind_proxy;
    let email = match (&args.email, wants_email) {
        (None, true) => interview.optional(&EMAIL, interview::email),
        (given, _) => {
            given.clone().and_then(|given| interview.answer(&EMAIL, Some(given), interview::email))
        }
    };
    let answer_url = interview.answer(&ANSWER_URL, args.answer_url.clone(), |text| {
        interview::answer_url(text, simulated)
    });
    // Last, so that a refusal by Meta follows at once.
    let app_id = interview.answer(&APP_ID, args.app_id.clone(), interview::meta_id);
    let (file, env) = (args.app_secret_file.as_deref(), Some(args.app_secret_env.as_str()));
    let app_secret =
        interview.secret(&APP_SECRET, &SecretSource { file, env, least: APP_SECRET_MIN });
    let access_token = match interview.has_person() {
        true => None,
        false => interview.secret(&ACCESS_TOKEN, &token_source(args)),
    };
    interview.finish()?;
    match (site, answer_url, app_id, app_secret) {
        (Some(site), Some(answer_url), Some(id), Some(secret)) => {
            Ok(Answers { site, email, answer_url, app: App { id, secret }, access_token })
        }
        _ => Err(Exit::Usage),
    }
}

/// Checks the app at Meta. While Meta refuses it, asks the person for another id and secret, also
/// if flags gave the refused ones.
async fn accepted_app(
    graph: &meta::GraphApi,
    mut app: App,
    interview: &mut Interview,
) -> Result<App, Exit> {
    while let Err(why) = graph.check_app(&app).await {
        if !interview.tell_refusal(&why) {
            return Err(Exit::failed(why));
        }
        let id = interview.correction(&APP_ID, &app.id, interview::meta_id);
        let typed = SecretSource { file: None, env: None, least: APP_SECRET_MIN };
        let secret = interview.secret(&APP_SECRET, &typed);
        interview.finish()?;
        let (Some(id), Some(secret)) = (id, secret) else { return Err(Exit::Usage) };
        app = App { id, secret };
    }
    Ok(app)
}

/// Checks the access token at Meta. While Meta refuses it, asks the person for another one, also if
/// a flag gave the refused one.
async fn accepted_token(
    graph: &meta::GraphApi,
    app: &App,
    mut token: Secret,
    interview: &mut Interview,
) -> Result<(meta::Account, Secret), Exit> {
    loop {
        let why = match graph.account(app, &token).await {
            Ok(account) => return Ok((account, token)),
            Err(why) => why,
        };
        if !interview.tell_refusal(&why) {
            return Err(Exit::failed(why));
        }
        let typed = SecretSource { file: None, env: None, least: 1 };
        let other = interview.secret(&ACCESS_TOKEN, &typed);
        interview.finish()?;
        token = other.ok_or(Exit::Usage)?;
    }
}

fn ask_token(args: &Args, interview: &mut Interview) -> Result<Secret, Exit> {
    let token = interview.secret(&ACCESS_TOKEN, &token_source(args));
    interview.finish()?;
    token.ok_or(Exit::Usage)
}

fn token_source(args: &Args) -> SecretSource<'_> {
    let (file, env) = (args.access_token_file.as_deref(), Some(args.access_token_env.as_str()));
    SecretSource { file, env, least: 1 }
}

/// Parses the base URL of a Graph API.
fn graph_url(text: &str) -> Result<Url, String> {
    let url = super::url_like(text, "http://127.0.0.1:8081/v23.0")?;
    match url.path() {
        "/" => Err(format!(
            "the version of the Graph API is missing; write it like {}v23.0",
            url.as_str()
        )),
        _ => Ok(url),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Exit> {
    std::path::absolute(path)
        .map_err(|e| Exit::usage(format_args!("{} is not a path: {e}", path.display())))
}

/// Returns the closing text: the written files, the values to enter at Meta, and the command that
/// starts the node.
fn next_steps(plan: &Plan, output: &Path, secrets: &Secrets, verify_token: &Secret) -> String {
    let base = plan.base_url();
    let (fields, token) = (FIELDS_NEEDED.join(", "), verify_token.reveal());
    let (output, secrets) = (output.display(), secrets.folder().display());
    let proxy = match plan.site.is_public && !plan.has_tls(&Reference::collect()) {
        true => "  The proxy with the certificate passes all requests on to 127.0.0.1:8080.\n",
        false => "",
    };
    // A public base URL of a Graph API has no interface for tests.
    let simulator = plan.graph_url.as_ref().filter(|_| plan.simulated);
    let at_meta = match simulator {
        Some(graph_url) => format!(
            "\
Have the simulated Meta send its webhooks to this node, once it runs:
  curl -d '{{\"node\": \"{base}\", \"verify_token\": \"{token}\"}}' {}/_sim/app

Start the node:",
            graph_url.origin().ascii_serialization()
        ),
        None => format!(
            "\
At Meta, in the app's settings under WhatsApp > Configuration, enter
  Callback URL   {base}/webhooks/meta
  Verify token   {token}
  Fields         {fields}

Start the node before you press \"Verify and save\":"
        ),
    };
    format!(
        "\
Wrote {output}, and its secrets to {secrets}.
  They are readable by the user of the node only. The API key of the account is in api_key.

{at_meta}
  offhook serve --config {output}
{proxy}  Its first start logs a link that creates the owner of the console.
  Open UDP ports 40000 to 40999 for media.
"
    )
}
