//! `offhook call`: one simulated WhatsApp call from the terminal, with real WebRTC media.
//!
//! The call is placed by a simulated Meta: one booted here with a node of its own, or the one that `--node` works with.
//! Either way this command speaks to it over its `/_sim/` doors and prints what comes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;

use super::simulated::{self, NodeFacts, Stop};
use super::{Exit, print};
use crate::node::dev::{Dev, DevOptions};
use model::Secret;
use model::{E164, digits_of};
use sim::client::{self, Client};
use sim::control::{CallRequest, HangupRequest};
use sim::{CallEvent, CallEventKind, CallOutcome, Faults, HangupSource, caller, sound};

/// Longest line of a call's events: a recording of half an hour stands in one.
const LINE_BYTES_MAX: usize = 128 << 20;
/// Largest file that is spoken.
const SAY_BYTES_MAX: u64 = 100 << 20;

/// Options of `offhook call`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Call through this node (its base URL) instead of booting one; its graph_url must be a simulated Meta
    #[arg(long, value_name = "URL", value_parser = super::http_url)]
    pub node: Option<url::Url>,
    /// The business number to call [default: the demo's, or the node's only one]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<String>,
    /// The calling user's WhatsApp number
    #[arg(long, value_name = "WA_ID")]
    pub from: Option<String>,
    /// Keys to press once the call is up and something was heard: 0-9 * # A-D, `w` waits 0.5 s, `W` 1 s
    #[arg(long, value_name = "KEYS")]
    pub dtmf: Option<String>,
    /// A WAV file to speak (16-bit PCM)
    #[arg(long, value_name = "FILE.wav")]
    pub say: Option<PathBuf>,
    /// Write what was heard to this WAV file
    #[arg(long, value_name = "OUT.wav")]
    pub record: Option<PathBuf>,
    /// The answer URL of the booted node's number (not with --node)
    #[arg(long, value_name = "URL", conflicts_with = "node", value_parser = super::http_url)]
    pub answer_url: Option<url::Url>,
    /// Rules by which the booted world's simulated Meta fails; the README has the table (not with --node)
    #[arg(long, value_name = "FILE.toml", conflicts_with = "node")]
    pub faults: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Hang up so many seconds after the answer [default: after 5 s of quiet, 30 s after the last key at the latest]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub hold: Option<u32>,
    /// The node's Meta app secret, which signs the webhooks (with --node)
    #[arg(long, value_name = "SECRET", env = "META_APP_SECRET", hide_env_values = true)]
    pub app_secret: Option<Secret>,
    /// The node's webhook verify token (with --node)
    #[arg(long, value_name = "TOKEN", env = "META_VERIFY_TOKEN", hide_env_values = true)]
    pub verify_token: Option<Secret>,
    /// The node's API key, to follow the call's instructions (with --node)
    #[arg(long, value_name = "KEY", env = "OFFHOOK_API_KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,
}

/// Places the call: 0 when it went through, 1 when not.
pub fn run(args: Args) -> Exit {
    let order = match order_of(&args) {
        Ok(order) => order,
        Err(why) => return Exit::usage(why),
    };
    super::run_async(go(args, order))
}

/// What the options ask for, as far as they alone can tell.
fn order_of(args: &Args) -> Result<CallRequest, String> {
    let keys = args.dtmf.as_deref().unwrap_or_default();
    caller::parse_keys(keys).map_err(|e| format!("--dtmf {keys}: {e}"))?;
    for (option, number) in [("--to", &args.to), ("--from", &args.from)] {
        if number.as_deref().is_some_and(|n| digits_of(n).is_empty()) {
            return Err(format!("{option} needs a phone number: digits, with or without a plus"));
        }
    }
    let say = args.say.as_deref().map(read_wav).transpose()?;
    if let Some(folder) = args.record.as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(format!("--record: there is no folder {}", folder.display()));
    }
    Ok(CallRequest {
        from: args.from.clone(),
        dtmf: args.dtmf.clone(),
        say,
        record: args.record.is_some(),
        hold_s: args.hold.map(f64::from),
        ..CallRequest::default()
    })
}

/// A WAV file in Base64, known to be one.
fn read_wav(path: &Path) -> Result<String, String> {
    let unreadable = |e: std::io::Error| format!("--say: could not read {}: {e}", path.display());
    if std::fs::metadata(path).map_err(unreadable)?.len() > SAY_BYTES_MAX {
        return Err(format!(
            "--say: {} is larger than {} MiB",
            path.display(),
            SAY_BYTES_MAX >> 20
        ));
    }
    let wav = std::fs::read(path).map_err(unreadable)?;
    sound::frames_of_wav(&wav).map_err(|e| format!("--say: {}: {e}", path.display()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(wav))
}

async fn go(args: Args, mut order: CallRequest) -> Exit {
    let client = client::client();
    let Some(node) = args.node.clone() else {
        return booted(&client, &args, order).await;
    };
    let node = node.as_str().trim_end_matches('/').to_owned();
    let facts = match NodeFacts::of(&client, &node).await {
        Ok(facts) => facts,
        Err(exit) => return exit,
    };
    let sim_url = match facts.fill_in(&mut order, args.to.as_deref()).and_then(|()| facts.sim_url())
    {
        Ok(sim_url) => sim_url,
        Err(why) => return Exit::usage(why),
    };
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
    order.node = Some(node);
    order.app_secret = text(&args.app_secret);
    order.verify_token = text(&args.verify_token);
    order.api_key = text(&args.api_key);
    place(&client, &sim_url, &order, &args).await
}

/// A node, a simulated Meta and the demo application in this very process, gone when the call is over.
async fn booted(client: &Client, args: &Args, order: CallRequest) -> Exit {
    let number = match args.to.as_deref().map(E164::parse).transpose() {
        Ok(number) => number,
        Err(why) => return Exit::usage(format_args!("--to: {why}")),
    };
    let to = number.as_ref().map(ToString::to_string);
    let faults = match args.faults.as_deref().map(Faults::read).transpose() {
        Ok(faults) => faults.unwrap_or_default(),
        Err(e) => return Exit::usage(format_args!("could not {e}")),
    };
    let answer_url = args.answer_url.clone().map(String::from);
    let dev =
        match Dev::boot(DevOptions { answer_url, number, faults, ..DevOptions::default() }).await {
            Ok(dev) => dev,
            Err(e) => return Exit::failed(format_args!("could not {e}")),
        };
    let order = CallRequest { to, ..order };
    let exit = place(client, dev.sim.url(), &order, args).await;
    dev.stop().await;
    exit
}

/// Places the call at the simulated Meta and prints it to its end.
async fn place(client: &Client, sim_url: &str, order: &CallRequest, args: &Args) -> Exit {
    let mut lines =
        match simulated::order(client, sim_url, "/_sim/calls", order, LINE_BYTES_MAX).await {
            Ok(lines) => lines,
            Err(exit) => return exit,
        };
    let mut stop = match Stop::new() {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    let mut call: Option<HangupRequest> = None;
    let mut hanging_up = false;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = stop.asked() => {
                if std::mem::replace(&mut hanging_up, true) {
                    return Exit::Failed; // asked twice: the connection's end hangs up
                }
                if let Some(call) = &call {
                    simulated::end_early(client, sim_url, "/_sim/hangup", call).await;
                }
                continue;
            }
        };
        let event = line.as_deref().map(serde_json::from_slice::<CallEvent>);
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(e)) => {
                return Exit::failed(format!("the simulated Meta told what can't be read: {e}"));
            }
            None => return Exit::failed("the simulated Meta went away before the call was over"),
        };
        show(&event, args.json);
        match event.kind {
            CallEventKind::Placed { call_id, phone_number_id, .. } => {
                call = Some(HangupRequest { phone_number_id, call_id })
            }
            CallEventKind::Recording { wav } => {
                if let Err(why) = keep(args.record.as_deref(), &wav) {
                    return Exit::failed(why);
                }
            }
            CallEventKind::Ended(ended) => return if ended.ok { Exit::Done } else { Exit::Failed },
            _ => {}
        }
    }
}

fn keep(path: Option<&Path>, wav: &str) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(wav)
        .map_err(|e| format!("the recording can't be read: {e}"))?;
    std::fs::write(path, bytes).map_err(|e| format!("could not write {}: {e}", path.display()))
}

/// Prints one event: a line for people, or the object of `interface.md` §1, which knows fewer.
fn show(event: &CallEvent, json: bool) {
    if json {
        if in_contract(&event.kind) {
            print::json(event);
        }
        return;
    }
    if let Some((word, rest)) = words(&event.kind) {
        let seconds = Duration::from_millis(event.at_ms).as_secs_f64();
        print::line(format_args!("{}", format!("{seconds:>8.3} s  {word:<12} {rest}").trim_end()));
    }
}

fn in_contract(what: &CallEventKind) -> bool {
    matches!(
        what,
        CallEventKind::Placed { .. }
            | CallEventKind::Ringing
            | CallEventKind::Answered
            | CallEventKind::MediaUp
            | CallEventKind::Instruction { .. }
            | CallEventKind::DigitSent { .. }
            | CallEventKind::Hangup { .. }
            | CallEventKind::Ended(_)
    )
}

/// An event in two columns; none for what only concerns machines.
fn words(what: &CallEventKind) -> Option<(&'static str, String)> {
    Some(match what {
        CallEventKind::Verified | CallEventKind::Recording { .. } => return None,
        CallEventKind::Placed { from, to, .. } => ("placed", format!("{from} calls {to}")),
        CallEventKind::Webhook { status: 0, kind } => {
            ("webhook", format!("{kind}: no answer, will be sent again"))
        }
        CallEventKind::Webhook { status: 200, .. } => return None,
        CallEventKind::Webhook { status, kind } => {
            ("webhook", format!("{kind}: answered {status}, will be sent again"))
        }
        CallEventKind::Ringing => ("ringing", "the business has the call (pre_accept)".into()),
        CallEventKind::Answered => ("answered", "accept".into()),
        CallEventKind::MediaUp => ("media up", "ICE and DTLS".into()),
        CallEventKind::MediaFailed { reason } => ("media over", reason.clone()),
        CallEventKind::FirstAudio => ("hearing", "the business speaks".into()),
        CallEventKind::Refused { action, details } => {
            ("refused", format!("Graph refused {action}: {details}"))
        }
        CallEventKind::Instruction { element, line, outcome, note } => {
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            ("instruction", format!("{element} {outcome} (line {line}){note}"))
        }
        CallEventKind::DigitSent { digit } => ("digit", digit.to_string()),
        CallEventKind::DigitHeard { digit } => ("digit heard", digit.to_string()),
        CallEventKind::Hangup { by } => {
            let who = match by {
                HangupSource::Caller => "the caller hung up",
                HangupSource::Business => "the business hung up",
                HangupSource::Rejected => "the business rejected the call",
                HangupSource::Declined => "the user declined",
                HangupSource::Meta => "nobody accepted in time",
            };
            ("hangup", who.into())
        }
        CallEventKind::Ended(ended) => ("ended", last_words(ended)),
    })
}

fn last_words(ended: &CallOutcome) -> String {
    let heard = Duration::from_millis(ended.heard_ms).as_secs_f64();
    let how = if ended.ok { "ok" } else { "failed" };
    let clipped = match ended.clipped_packets {
        0 => String::new(),
        n => format!(", {n} packets came before accept and were clipped"),
    };
    format!("{how}: {}, heard {heard:.1} s{clipped}", ended.cause)
}

#[cfg(test)]
mod tests {
    use super::{in_contract, words};
    use sim::{CallEventKind, CallOutcome, HangupSource};

    #[test]
    fn people_get_a_line_and_machines_only_the_words_of_the_contract() {
        let ended = CallOutcome {
            ok: true,
            cause: "caller_hangup".into(),
            heard_ms: 3_240,
            ..CallOutcome::default()
        };
        let line = words(&CallEventKind::Ended(ended.clone())).expect("a line");
        assert_eq!(line, ("ended", "ok: caller_hangup, heard 3.2 s".to_owned()));
        assert!(
            in_contract(&CallEventKind::Ended(ended))
                && in_contract(&CallEventKind::Hangup { by: HangupSource::Meta })
        );
        assert!(!in_contract(&CallEventKind::FirstAudio) && !in_contract(&CallEventKind::Verified));
        assert_eq!(words(&CallEventKind::Webhook { kind: "connect".into(), status: 200 }), None);
    }
}
