//! `offhook load`: places calls at a steady rate through the simulated Meta and reports
//! measurements.
//!
//! The generator runs inside the simulated Meta (`sim::load`): one started here with a node, one
//! started here alone for a node that points at it (`--meta-listen`), or the one that the node of
//! `--node` uses. This command starts it over `/_sim/load` and prints its report.

use std::io::IsTerminal as _;
use std::net::SocketAddr;

use super::simulated::{self, NodeDiscovery, StopSignals};
use super::{Exit, print};
use crate::node::dev::{Dev, DevOptions, LoadOptions};
use model::Secret;
use model::{E164, digits_of};
use sim::client::Client;
use sim::control::{CallRequest, HOLD_MAX, StopLoadRequest};
use sim::load::{CALLS_MAX, LoadEvent, LoadRequest, Percentiles, Progress, Summary};
use sim::{LOAD_RELAYS, Sim, SimNumber, SimOptions, world};

/// Maximum length of a report line in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Options of `offhook load`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Calls started per second, however earlier ones turn out
    #[arg(long, value_name = "R", value_parser = super::rate, allow_negative_numbers = true)]
    pub rate: f64,
    /// Total number of calls
    #[arg(long, value_name = "N", value_parser = super::whole(1..=CALLS_MAX), allow_negative_numbers = true)]
    pub calls: u64,
    /// How long each answered call is held before the caller hangs up
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = super::seconds(HOLD_MAX), allow_negative_numbers = true)]
    pub hold: f64,
    /// With media: ICE, DTLS-SRTP and Opus on every call; otherwise signalling only
    #[arg(long)]
    pub media: bool,
    /// Number of UDP addresses that the callers' media comes from; for a simulated Meta that is
    /// started here
    #[arg(long, value_name = "N", default_value_t = LOAD_RELAYS, value_parser = super::whole(1_u16..=1_000), allow_negative_numbers = true)]
    pub relays: u16,
    /// Load this node (base URL) instead of starting one; its graph_url must be a simulated Meta
    #[arg(long, value_name = "URL", value_parser = super::node_url)]
    pub node: Option<url::Url>,
    /// Start only the simulated Meta, at this address. The program at --node must use
    /// http://ADDR/v23.0 as its Graph API (needs --node)
    #[arg(long, value_name = "ADDR", requires = "node")]
    pub meta_listen: Option<SocketAddr>,
    /// The business number to call [default: the demo number, or the only number of the node]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<String>,
    /// Meta's phone number id of that number (with --meta-listen, for a program other than Offhook)
    #[arg(long, value_name = "ID", requires = "meta_listen")]
    pub phone_number_id: Option<String>,
    /// Answer URL of the started node (not with --node) [default: one that speaks without end]
    #[arg(long, value_name = "URL", conflicts_with = "node", value_parser = super::http_url)]
    pub answer_url: Option<url::Url>,
    /// Print one JSON object per line: progress, and the summary last
    #[arg(long)]
    pub json: bool,
    /// Meta app secret of the node, which signs the webhooks (with --node)
    #[arg(
        long,
        value_name = "SECRET",
        env = "META_APP_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub app_secret: Option<Secret>,
    /// Webhook verify token of the node (with --node)
    #[arg(
        long,
        value_name = "TOKEN",
        env = "META_VERIFY_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub verify_token: Option<Secret>,
    /// Graph access token of the node (with --meta-listen)
    #[arg(
        long,
        value_name = "TOKEN",
        env = "META_ACCESS_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub access_token: Option<Secret>,
}

/// Runs the load. Exit code 0: every call was answered or refused by a limit of the node; 1: some
/// calls failed; 130: Ctrl-C ended it early.
pub fn run(args: Args) -> Exit {
    let order = match request_of(&args) {
        Ok(order) => order,
        Err(why) => return Exit::usage(why),
    };
    match super::runtime() {
        Ok(runtime) => runtime.block_on(run_load(args, order)),
        Err(why) => Exit::failed(why),
    }
}

/// Builds the request from the options and validates it.
fn request_of(args: &Args) -> Result<LoadRequest, String> {
    if args.to.as_deref().is_some_and(|to| digits_of(to).is_empty()) {
        return Err("--to needs a phone number: digits, with or without a plus".to_owned());
    }
    let order = LoadRequest {
        id: uuid::Uuid::new_v4().to_string(),
        rate: args.rate,
        calls: args.calls,
        media: args.media,
        call: CallRequest { hold_s: Some(args.hold), ..CallRequest::default() },
    };
    order.check().map(|()| order)
}

async fn run_load(args: Args, mut order: LoadRequest) -> Exit {
    let client = match simulated::http_client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let Some(node) = args.node.clone() else {
        return load_dev_node(&client, &args, order).await;
    };
    let node = node.as_str().trim_end_matches('/').to_owned();
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
    order.call.app_secret = text(&args.app_secret);
    order.call.verify_token = text(&args.verify_token);
    order.call.node = Some(node.clone());
    if let Some(listen) = args.meta_listen {
        return load_other_node(&client, listen, &node, &args, order).await;
    }
    let discovery = match NodeDiscovery::of(&client, &node).await {
        Ok(discovery) => discovery,
        Err(exit) => return exit,
    };
    match discovery.fill_in(&mut order.call, args.to.as_deref()).and_then(|()| discovery.sim_url())
    {
        Ok(sim_url) => report(&client, &sim_url, &order, &args).await,
        Err(why) => Exit::usage(why),
    }
}

/// Loads a node, a simulated Meta and the demo application in this process.
async fn load_dev_node(client: &Client, args: &Args, mut order: LoadRequest) -> Exit {
    let number = match args.to.as_deref().map(E164::parse).transpose() {
        Ok(number) => number,
        Err(why) => return Exit::usage(format_args!("--to: {why}")),
    };
    order.call.to = number.as_ref().map(ToString::to_string);
    let answer_url = args.answer_url.clone().map(String::from);
    let load = Some(LoadOptions { rate: args.rate, media: args.media, relays: args.relays });
    let dev =
        match Dev::boot(DevOptions { answer_url, number, load, ..DevOptions::default() }).await {
            Ok(dev) => dev,
            Err(e) => return Exit::failed(format_args!("{e}")),
        };
    let exit = report(client, dev.sim.url(), &order, args).await;
    dev.stop().await;
    exit
}

/// Runs only a simulated Meta here, for a program elsewhere that uses it as its Graph API.
async fn load_other_node(
    client: &Client,
    listen: SocketAddr,
    node: &str,
    args: &Args,
    mut order: LoadRequest,
) -> Exit {
    let usual = SimOptions::default();
    let or_usual = |given: &Option<Secret>, usual: &str| {
        given.as_ref().map_or_else(|| usual.to_owned(), |secret| secret.reveal().to_owned())
    };
    let options = SimOptions {
        listen,
        access_token: or_usual(&args.access_token, &usual.access_token),
        app_secret: or_usual(&args.app_secret, &usual.app_secret),
        verify_token: or_usual(&args.verify_token, &usual.verify_token),
        relays: args.relays,
        ..usual
    };
    let sim = match Sim::start(options).await {
        Ok(sim) => sim,
        Err(e) => return Exit::failed(format_args!("{e}")),
    };
    // An Offhook node reports its numbers; those of another program are given as options.
    let filled = match NodeDiscovery::known(client, node).await {
        Ok(Some(discovery)) if args.phone_number_id.is_none() => {
            discovery.fill_in(&mut order.call, args.to.as_deref())
        }
        Ok(_) => {
            let usual = SimNumber::default();
            order.call.to = Some(args.to.as_deref().map_or(usual.number, digits_of));
            order.call.phone_number_id =
                Some(args.phone_number_id.clone().unwrap_or(usual.phone_number_id));
            order.call.waba = Some(world::WABA.to_owned());
            Ok(())
        }
        Err(exit) => return exit,
    };
    match filled {
        Ok(()) => report(client, sim.url(), &order, args).await,
        Err(why) => Exit::usage(why),
    }
}

/// Starts the load and prints its reports until it ends.
async fn report(client: &Client, sim_url: &str, order: &LoadRequest, args: &Args) -> Exit {
    let mut stop = match StopSignals::new() {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    let mut lines =
        match simulated::order(client, sim_url, "/_sim/load", order, LINE_BYTES_MAX).await {
            Ok(lines) => lines,
            Err(exit) => return exit,
        };
    let mut screen = ReportPrinter {
        json: args.json,
        live: std::io::stderr().is_terminal(),
        calls: order.calls,
        waits_for_media: args.node.is_some() && !args.media,
    };
    let mut stopped_by = None;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            signal = stop.requested() => {
                if stopped_by.replace(signal).is_some() {
                    print::error("cancelled");
                    return Exit::Interrupted(signal);
                }
                let this = StopLoadRequest { id: order.id.clone() };
                simulated::end_early(client, sim_url, "/_sim/load/stop", &this).await;
                continue;
            }
        };
        match line.as_deref().map(serde_json::from_slice::<LoadEvent>) {
            Some(Ok(event)) => {
                if let Some(exit) = screen.show(&event) {
                    return stopped_by.map_or(exit, Exit::Interrupted);
                }
            }
            Some(Err(e)) => {
                return Exit::failed(format!("unreadable event from the simulated Meta: {e}"));
            }
            None => {
                return Exit::failed(
                    "the simulated Meta closed the connection before the load was over",
                );
            }
        }
    }
}

/// Output of the report.
struct ReportPrinter {
    json: bool,
    /// Whether standard error is a terminal, so that progress is shown on one line.
    live: bool,
    calls: u64,
    /// A node that was not started here may wait for the media that callers without media never
    /// send.
    waits_for_media: bool,
}

/// A median set-up time in milliseconds from which a wait for media is suspected.
const LONG_SETUP_MS: f64 = 1_000.0;

impl ReportPrinter {
    /// Prints an event. Returns the exit code after the summary.
    fn show(&mut self, event: &LoadEvent) -> Option<Exit> {
        if self.json {
            print::json(event);
        }
        match event {
            LoadEvent::Progress(progress) => {
                if self.live && !self.json {
                    print::error_text(&format!("\r\x1b[K{}", progress_line(progress, self.calls)));
                }
                None
            }
            LoadEvent::Summary(summary) => {
                if !self.json {
                    if self.live {
                        print::error_text("\r\x1b[K");
                    }
                    print::text(&table(summary));
                }
                if self.waits_for_media && summary.setup_ms.p50.is_some_and(|ms| ms > LONG_SETUP_MS)
                {
                    print::error_text(
                        "note: without --media, the set-up time includes media.accept_wait_ms, for which \
                         the node waits for the callers' media; set it to 0 for this test, or use --media\n",
                    );
                }
                Some(if summary.failed == 0 { Exit::Done } else { Exit::Failed })
            }
        }
    }
}

fn progress_line(p: &Progress, calls: u64) -> String {
    let setup = p.setup_p50_ms.map(|ms| format!(", set-up p50 {ms:.1} ms")).unwrap_or_default();
    format!(
        "{:>6.1} s  {} of {calls} calls started, {} live, {} answered, {} rejected, {} failed{setup}",
        p.wall_s, p.attempted, p.live, p.answered, p.rejected, p.failed
    )
}

/// The summary as a table.
fn table(s: &Summary) -> String {
    let rate = if s.wall_s > 0.0 { s.attempted as f64 / s.wall_s } else { 0.0 };
    let mut text = format!(
        "attempted {}   answered {}   rejected {}   failed {}   in {:.1} s ({rate:.1} calls/s)\n\n\
         {:<34}{:>10}{:>10}{:>10}{:>10}\n",
        s.attempted,
        s.answered,
        s.rejected,
        s.failed,
        s.wall_s,
        "milliseconds",
        "p50",
        "p90",
        "p99",
        "max"
    );
    for (name, figures) in [
        ("set-up: due → accept", &s.setup_ms),
        ("first audio: can hear → hears", &s.first_audio_ms),
        ("webhook: sent → 200", &s.webhook_ms),
        ("reject: webhook → reject", &s.reject_ms),
        ("generator late: due → sent", &s.late_ms),
    ] {
        let Percentiles { p50, p90, p99, max } = figures;
        text += &format!("{name:<34}");
        for figure in [p50, p90, p99, max] {
            text += &figure.map_or_else(|| format!("{:>10}", "–"), |ms| format!("{ms:>10.2}"));
        }
        text.push('\n');
    }
    text += &format!("\naudio gaps of more than 100 ms: {}\n", s.audio_gaps);
    if s.redelivered > 0 {
        text += &format!("webhooks answered with 503 and redelivered: {}\n", s.redelivered);
    }
    for (why, count) in &s.causes {
        text += &format!("failed: {count} × {why}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Percentiles, Progress, Summary, progress_line, table};

    #[test]
    fn prints_a_table_and_a_progress_line() {
        let some = |ms: f64| Percentiles {
            p50: Some(ms),
            p90: Some(ms),
            p99: Some(ms),
            max: Some(ms * 10.0),
        };
        let summary = Summary {
            attempted: 40,
            answered: 37,
            rejected: 2,
            failed: 1,
            setup_ms: some(12.345),
            webhook_ms: some(0.5),
            late_ms: some(0.25),
            wall_s: 3.0,
            causes: [("media_not_up".to_owned(), 1)].into(),
            ..Summary::default()
        };
        let expected = "\
attempted 40   answered 37   rejected 2   failed 1   in 3.0 s (13.3 calls/s)

milliseconds                             p50       p90       p99       max
set-up: due → accept                   12.35     12.35     12.35    123.45
first audio: can hear → hears              –         –         –         –
webhook: sent → 200                     0.50      0.50      0.50      5.00
reject: webhook → reject                   –         –         –         –
generator late: due → sent              0.25      0.25      0.25      2.50

audio gaps of more than 100 ms: 0
failed: 1 × media_not_up
";
        assert_eq!(table(&summary), expected);
        let progress =
            Progress { wall_s: 2.0, attempted: 40, live: 3, answered: 37, ..Progress::default() };
        assert_eq!(
            progress_line(&progress, 50),
            "   2.0 s  40 of 50 calls started, 3 live, 37 answered, 0 rejected, 0 failed"
        );
    }
}
