//! `offhook dev`: a complete development world on loopback.

use std::path::{Path, PathBuf};

use super::target::{Registration, RunningDev};
use super::{Exit, dev_fleet, print};
use crate::node::StartError;
use crate::node::dev::fleet::FleetOptions;
use crate::node::dev::{Dev, DevError, DevOptions};
use sim::{Faults, world};
use store::StoreError;

/// Options of `offhook dev`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Port of the public listener on 127.0.0.1; 0 selects a free port
    #[arg(long, default_value_t = 8080, value_parser = super::whole(0..=u16::MAX), allow_negative_numbers = true)]
    pub port: u16,
    /// Answer URL of your application, instead of the demo application; http and private addresses
    /// are allowed
    #[arg(long, value_name = "URL", value_parser = super::http_url)]
    pub answer_url: Option<url::Url>,
    /// File with the document of each call to the number, instead of an application; read again for
    /// each call
    #[arg(long, value_name = "FILE", conflicts_with = "answer_url", value_parser = super::existing_file)]
    pub document: Option<PathBuf>,
    /// Data directory [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// File with faults of the simulated Meta: lost, late or duplicate webhooks, Graph errors, bad
    /// offers and networks; see docs/faults.md
    #[arg(long, value_name = "FILE.toml")]
    pub faults: Option<PathBuf>,
    /// Apply Meta's rules: a call needs the user's permission, which only 919412341234 and users in
    /// rules of --faults have given; a message other than a template needs a user who wrote or
    /// called within 24 hours
    #[arg(long)]
    pub ask_first: bool,
    /// Run a fleet: this many nodes behind a balancer on --port, on a PostgreSQL server that is
    /// found and started; typed commands kill, pause, cut off, drain and start nodes
    #[arg(long, value_name = "N", conflicts_with = "data_dir", value_parser = super::whole(2_u8..=9), allow_negative_numbers = true)]
    pub nodes: Option<u8>,
    /// File with commands for the fleet, one per line, in place of typed ones; `wait SECONDS` and
    /// `until N ready|draining|dead|ended` wait
    #[arg(long, value_name = "FILE", requires = "nodes", value_parser = super::existing_file)]
    pub script: Option<PathBuf>,
    /// Print the fleet as one JSON object per second, and messages as objects
    #[arg(long, requires = "nodes")]
    pub json: bool,
}

/// Runs the world until SIGINT or SIGTERM.
pub fn run(args: Args) -> Exit {
    let faults = match args.faults.as_deref().map(Faults::read).transpose() {
        Ok(faults) => faults.unwrap_or_default(),
        Err(e) => return Exit::usage(format_args!("{e}")),
    };
    if let Some(file) = &args.document {
        warn_of_errors(file);
    }
    if let Some(nodes) = args.nodes {
        return run_fleet(nodes, args, faults);
    }
    super::run_async(async {
        let port = args.port;
        let data_dir = args.data_dir.clone().unwrap_or_default();
        let options = DevOptions {
            port: Some(port),
            answer_url: args.answer_url.map(String::from),
            document: args.document,
            data_dir: args.data_dir,
            faults,
            ask_first: args.ask_first,
            ..DevOptions::default()
        };
        let dev = match Dev::boot(options).await {
            Ok(dev) => dev,
            Err(e @ DevError::Folder { .. }) => return Exit::failed(format_args!("{e}")),
            Err(DevError::Node(StartError::Store(
                StoreError::HeldAs { .. } | StoreError::InUse { .. },
            ))) => {
                return Exit::failed(format_args!(
                    "another process uses the data directory {}; stop it, or name another directory with \
                     --data-dir",
                    data_dir.display()
                ));
            }
            Err(DevError::Node(StartError::Listen { why, .. })) => {
                return Exit::failed(format_args!(
                    "could not start the node: {why}\nif port {port} is in use, choose another one with \
                     --port"
                ));
            }
            Err(DevError::Node(e)) if matches!(e, StartError::Store(_)) => {
                return Exit::not_started(&e, format_args!("{e}"));
            }
            Err(e) => {
                return Exit::failed(format_args!(
                    "{e}\nif port {port} is in use, choose another one with --port"
                ));
            }
        };
        let _registration = register(&dev);
        print_addresses(&dev);
        match dev.until_stopped().await {
            Ok(()) => Exit::Done,
            Err(e) => Exit::failed(format_args!("could not wait for signals: {e}")),
        }
    })
}

/// Warns if the document in its current state can't run in a call. It is read again for each call.
fn warn_of_errors(file: &Path) {
    let is_valid = match std::fs::read(file) {
        Ok(document) => xml::parse(&document, None).is_ok(),
        Err(_) => false,
    };
    if !is_valid {
        let file = file.display();
        print::error_text(&format!(
            "warning: {file} is not a valid document, and calls will fail until it is; `offhook xml \
             check {file}` says why\n"
        ));
    }
}

fn run_fleet(nodes: u8, args: Args, faults: Faults) -> Exit {
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string());
        text.and_then(|text| dev_fleet::parse_script(&text, nodes.into()))
            .map_err(|e| format!("{}: {e}", file.display()))
    };
    let script = match args.script.as_ref().map(read).transpose() {
        Ok(script) => script,
        Err(e) => return Exit::usage(e),
    };
    let options = FleetOptions {
        nodes,
        port: args.port,
        answer_url: args.answer_url.map(String::from),
        document: args.document,
        faults,
        ask_first: args.ask_first,
    };
    super::run_async(dev_fleet::run(options, script, args.json))
}

/// Registers the node for other commands, which then find it without `--node`. If that fails, they
/// still work with `--node`.
fn register(dev: &Dev) -> Option<Registration> {
    let node = dev.node_url.clone();
    let data_dir = std::path::absolute(dev.data_dir()).ok()?;
    let registered = RunningDev { node, data_dir, database_url: None }.register();
    registered.inspect_err(|e| tracing::warn!(error = %e, "not registered for other commands")).ok()
}

fn print_addresses(dev: &Dev) {
    let node = &dev.node_url;
    let curl = format!(
        "curl -u {}:{} {node}/v1/Account/{}/Call/",
        world::ACCOUNT,
        world::AUTH_TOKEN,
        world::ACCOUNT
    );
    print::line(format_args!(
        "Offhook is ready, all on loopback. Call {number} from the browser phone:\n\n\
         \x20 browser phone   {phone}\n\
         \x20 console         {node}/console/\n\
         \x20 sign in as      {person}, password {password}\n\
         \x20 API key         {key}\n\
         \x20 answer URL      {answer}\n\
         \x20 simulated Meta  {graph}\n\
         \x20 metrics         {admin}/metrics\n\n\
         From another terminal:\n\n\
         \x20 offhook call --node {node} --dtmf 1\n\
         \x20 {curl}\n\
         \x20 {curl} -d from={number} -d to={user} -d answer_url={answer}\n\n\
         The last one calls a simulated user, who picks up. Ctrl-C ends it.\n\n\
         To rehearse `offhook init` against this simulated Meta (docs/go-live.md#rehearsal):\n\n\
         \x20 META_APP_SECRET={secret} META_ACCESS_TOKEN={token} offhook init --graph-url {graph} --app-id {app}",
        secret = world::APP_SECRET,
        token = world::ACCESS_TOKEN,
        app = world::APP_ID,
        user = world::USER,
        key = world::API_KEY,
        person = world::PERSON,
        password = world::PASSWORD,
        number = dev.number,
        phone = dev.sim.phone_url(),
        answer = dev.answer_url,
        graph = dev.sim.graph_url(),
        admin = dev.admin_url,
    ));
}
