//! `offhook call`: places one simulated WhatsApp call with real WebRTC media.
//!
//! A simulated Meta places the call: one started here with a node, or the one that the node of
//! `--node` uses. This command controls it over its `/_sim/` paths and prints the events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use http::Method;

use super::node_api::NodeApi;
use super::nodes::state_of;
use super::simulated::{self, NodeDiscovery, StopSignals};
use super::target::RunningDev;
use super::{Exit, print};
use crate::api::{NodeState, NodeStatus};
use crate::node::dev::{Dev, DevOptions};
use machine::DialError;
use model::Secret;
use model::{E164, digits_of, is_loopback};
use sim::client::Client;
use sim::control::{CallRequest, HangupRequest};
use sim::{CallEvent, CallEventKind, CallOutcome, Faults, HangupSource, caller, sound};

/// Maximum length of an event line in bytes. A recording of half an hour is one line.
const LINE_BYTES_MAX: usize = 128 << 20;
/// Maximum size of the `--say` file in bytes.
const SAY_BYTES_MAX: u64 = 100 << 20;

/// The failure of a `Dial` that a setting of the node prevents.
const WA_BRIDGE_OFF: DialError = DialError::WhatsappToWhatsappNotSupported;

/// Options of `offhook call`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Call through this node (base URL) instead of starting one; its graph_url must be a simulated
    /// Meta
    #[arg(long, value_name = "URL", value_parser = super::node_url)]
    pub node: Option<url::Url>,
    /// The business number to call [default: the demo number, or the only number of the node]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<String>,
    /// WhatsApp number of the calling user
    #[arg(long, value_name = "WA_ID")]
    pub from: Option<String>,
    /// Keys to press after the first audio: 0-9 * # A-D; `w` waits 0.5 s, `W` waits 1 s
    #[arg(long, value_name = "KEYS")]
    pub dtmf: Option<String>,
    /// WAV file to speak (16-bit PCM)
    #[arg(long, value_name = "FILE.wav")]
    pub say: Option<PathBuf>,
    /// Write the received audio to this WAV file
    #[arg(long, value_name = "OUT.wav")]
    pub record: Option<PathBuf>,
    /// Answer URL of the started node (not with --node)
    #[arg(long, value_name = "URL", conflicts_with = "node", value_parser = super::http_url)]
    pub answer_url: Option<url::Url>,
    /// File with the document of the call (not with --node)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "answer_url"], value_parser = super::existing_file)]
    pub document: Option<PathBuf>,
    /// File with faults of the simulated Meta, see docs/faults.md (not with --node)
    #[arg(long, value_name = "FILE.toml", conflicts_with = "node")]
    pub faults: Option<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Hang up this long after the answer [default: after 5 s of silence, at most 30 s after the
    /// last key]
    #[arg(long, value_name = "SECONDS", value_parser = super::whole(0_u32..=86_400), allow_negative_numbers = true)]
    pub hold: Option<u32>,
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
    /// API key of the node, to follow the instructions of the call (with --node)
    #[arg(
        long,
        value_name = "KEY",
        env = "OFFHOOK_API_KEY",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub api_key: Option<Secret>,
}

/// Places the call. Exit code 0: the call succeeded; 1: it failed; 130: Ctrl-C hung up.
pub fn run(args: Args) -> Exit {
    let order = match request_of(&args) {
        Ok(order) => order,
        Err(why) => return Exit::usage(why),
    };
    super::run_async(run_call(args, order))
}

/// Builds the request from the options and validates it.
fn request_of(args: &Args) -> Result<CallRequest, String> {
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

/// Reads and validates a WAV file. Returns it in Base64.
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

async fn run_call(args: Args, mut order: CallRequest) -> Exit {
    let client = match simulated::http_client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let Some(node) = args.node.clone() else {
        let is_plain =
            args.answer_url.is_none() && args.document.is_none() && args.faults.is_none();
        if let Some(dev) = RunningDev::find().filter(|_| is_plain) {
            print::error_text(&format!(
                "note: this call has a node of its own, which ends with it; to call through the \
                 running `offhook dev`, add --node {}\n",
                dev.node
            ));
        }
        return call_dev_node(&client, &args, order).await;
    };
    let node = node.as_str().trim_end_matches('/').to_owned();
    let discovery = match NodeDiscovery::of(&client, &node).await {
        Ok(discovery) => discovery,
        Err(exit) => return exit,
    };
    let sim_url = match discovery
        .fill_in(&mut order, args.to.as_deref())
        .and_then(|()| discovery.sim_url())
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

/// Places the call with a node, a simulated Meta and the demo application in this process.
async fn call_dev_node(client: &Client, args: &Args, order: CallRequest) -> Exit {
    let number = match args.to.as_deref().map(E164::parse).transpose() {
        Ok(number) => number,
        Err(why) => return Exit::usage(format_args!("--to: {why}")),
    };
    let to = number.as_ref().map(ToString::to_string);
    let faults = match args.faults.as_deref().map(Faults::read).transpose() {
        Ok(faults) => faults.unwrap_or_default(),
        Err(e) => return Exit::usage(format_args!("{e}")),
    };
    let answer_url = args.answer_url.clone().map(String::from);
    let document = args.document.clone();
    let options = DevOptions { answer_url, document, number, faults, ..DevOptions::default() };
    let dev = match Dev::boot(options).await {
        Ok(dev) => dev,
        Err(e) => return Exit::failed(format_args!("{e}")),
    };
    let order = CallRequest { to, ..order };
    let exit = place(client, dev.sim.url(), &order, args).await;
    dev.stop().await;
    exit
}

/// Makes the simulated Meta place the call and prints its events until the call ends.
async fn place(client: &Client, sim_url: &str, order: &CallRequest, args: &Args) -> Exit {
    let mut lines =
        match simulated::order(client, sim_url, "/_sim/calls", order, LINE_BYTES_MAX).await {
            Ok(lines) => lines,
            Err(exit) => return exit,
        };
    let mut stop = match StopSignals::new() {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    let mut call: Option<HangupRequest> = None;
    let mut stopped_by = None;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            signal = stop.requested() => {
                if stopped_by.replace(signal).is_some() {
                    // Closing the connection hangs up.
                    return Exit::Interrupted(signal);
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
                return Exit::failed(format!("unreadable event from the simulated Meta: {e}"));
            }
            None => {
                return Exit::failed(
                    "the simulated Meta closed the connection before the call was over",
                );
            }
        };
        let remark = match &event.kind {
            CallEventKind::Ended(ended) if !args.json && has_no_record(ended) => {
                // A node that was started here takes the key of `offhook dev`.
                let has_key = args.api_key.is_some() || args.node.is_none();
                why_rejected(has_key, &nodes(args).await)
            }
            _ => String::new(),
        };
        show(&event, args.json, &remark);
        match event.kind {
            CallEventKind::Placed { call_id, phone_number_id, .. } => {
                let placed = HangupRequest { phone_number_id, call_id };
                if stopped_by.is_some() {
                    simulated::end_early(client, sim_url, "/_sim/hangup", &placed).await;
                }
                call = Some(placed);
            }
            CallEventKind::Recording { wav } => {
                if let Err(why) = save_recording(args.record.as_deref(), &wav) {
                    return Exit::failed(why);
                }
            }
            CallEventKind::Ended(ended) => {
                let exit = if ended.ok { Exit::Done } else { Exit::Failed };
                return stopped_by.map_or(exit, Exit::Interrupted);
            }
            _ => {}
        }
    }
}

fn save_recording(path: Option<&Path>, wav: &str) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(wav)
        .map_err(|e| format!("unreadable recording: {e}"))?;
    std::fs::write(path, bytes).map_err(|e| format!("could not write {}: {e}", path.display()))
}

/// Whether the node rejected the call and has no record of it. Admission refuses a call before it
/// has a UUID. A call with a record is found by its id at Meta, unless the key is not valid.
fn has_no_record(ended: &CallOutcome) -> bool {
    ended.cause == "rejected" && ended.call_uuid.is_none()
}

/// Asks the node of `--node` for the state of the nodes. Empty if it does not tell.
async fn nodes(args: &Args) -> Vec<NodeStatus> {
    let Some(node) = &args.node else { return Vec::new() };
    // The simulated Meta uses the key of `offhook dev` too, if none is given.
    if args.api_key.is_none() && !is_loopback(node) {
        return Vec::new();
    }
    let Ok(api) = NodeApi::at(node, args.api_key.clone()) else { return Vec::new() };
    let answer = api.try_ask(Method::GET, "nodes/", None).await;
    let items = answer.ok().and_then(Result::ok).map(|mut answer| answer["items"].take());
    items.and_then(|items| serde_json::from_value(items).ok()).unwrap_or_default()
}

/// Explains why the node has no record of a call that it rejected. `nodes` is empty if their state
/// is not known.
fn why_rejected(has_key: bool, nodes: &[NodeStatus]) -> String {
    let running =
        nodes.iter().filter(|node| !matches!(node.state, NodeState::Dead | NodeState::Unreachable));
    let (ready, others): (Vec<_>, Vec<_>) =
        running.partition(|node| node.state == NodeState::Ready);
    if let (true, Some(node)) = (ready.is_empty(), others.first()) {
        let remedy = match node.state {
            NodeState::Draining => "; only a restart ends a drain",
            _ => "",
        };
        let (id, state) = (print::plain(&node.id), print::plain(state_of(node)));
        return format!("; node {id} admits no calls: {state}{remedy}");
    }
    let key = match has_key || !nodes.is_empty() {
        true => "",
        false => " Give --api-key, which the node needs to show calls.",
    };
    format!(
        "; found no record of the call.{key} If the node did not admit the call, its log and \
         offhook_admission_total say why"
    )
}

/// Prints an event as text, followed by a remark, or as the JSON object of the documented format,
/// which omits some events.
fn show(event: &CallEvent, json: bool, remark: &str) {
    if json {
        if is_documented(&event.kind) {
            print::json(event);
        }
        return;
    }
    if let Some((word, rest)) = columns(&event.kind) {
        let seconds = Duration::from_millis(event.at_ms).as_secs_f64();
        let line = format!("{seconds:>8.3} s  {word:<12} {rest}{remark}");
        print::line(line.trim_end());
    }
}

fn is_documented(what: &CallEventKind) -> bool {
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

/// An event as two columns. `None` if it is not printed.
fn columns(what: &CallEventKind) -> Option<(&'static str, String)> {
    Some(match what {
        CallEventKind::Verified
        | CallEventKind::CallKnown { .. }
        | CallEventKind::Recording { .. } => return None,
        CallEventKind::Sound { text } => ("plays", text.clone()),
        CallEventKind::LogRefused { status } => {
            let remedy = match status {
                401 | 403 => "; give a key of the number's account with --api-key",
                _ => "",
            };
            (
                "no log",
                format!(
                    "the node refused its event log ({status}), so instructions are not shown{remedy}"
                ),
            )
        }
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
            let remedy = match note == WA_BRIDGE_OFF.as_str() {
                true => format!(" ({})", WA_BRIDGE_OFF.explanation()),
                false => String::new(),
            };
            let note = if note.is_empty() { String::new() } else { format!(": {note}{remedy}") };
            ("instruction", format!("{element} {outcome} (line {line}){note}"))
        }
        CallEventKind::Finding { rule, line, message } => {
            let message = print::plain(message);
            (
                "document",
                format!("{rule} (line {line}): {message}; offhook xml check --explain {rule}"),
            )
        }
        CallEventKind::DigitSent { digit } => ("digit", digit.to_string()),
        CallEventKind::DigitHeard { digit } => ("digit heard", digit.to_string()),
        CallEventKind::Hangup { by } => {
            let who = match by {
                HangupSource::Caller => "the caller hung up",
                HangupSource::Business => "the business hung up",
                HangupSource::Rejected => "the business rejected the call",
                HangupSource::Declined => "the user declined",
                HangupSource::Meta => "the business did not accept in time",
            };
            ("hangup", who.into())
        }
        CallEventKind::Ended(ended) => ("ended", outcome_text(ended)),
    })
}

fn outcome_text(ended: &CallOutcome) -> String {
    let heard = Duration::from_millis(ended.heard_ms).as_secs_f64();
    let how = if ended.ok { "ok" } else { "failed" };
    let clipped = match ended.clipped_packets {
        0 => String::new(),
        n => format!(", {n} packets came before accept and were clipped"),
    };
    let call = ended.call_uuid.as_ref().map(|call| format!(", call {call}")).unwrap_or_default();
    format!("{how}: {}, heard {heard:.1} s{clipped}{call}", ended.cause)
}

#[cfg(test)]
mod tests {
    use super::{columns, has_no_record, is_documented, why_rejected};
    use crate::api::{NodeState, NodeStatus};
    use sim::{CallEventKind, CallOutcome, HangupSource};

    #[test]
    fn text_has_a_line_per_event_and_json_only_documented_events() {
        let ended = CallOutcome {
            ok: true,
            cause: "caller_hangup".into(),
            heard_ms: 3_240,
            ..CallOutcome::default()
        };
        let line = columns(&CallEventKind::Ended(ended.clone())).expect("a line");
        assert_eq!(line, ("ended", "ok: caller_hangup, heard 3.2 s".to_owned()));
        let call_uuid = Some("3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".to_owned());
        let named = columns(&CallEventKind::Ended(CallOutcome { call_uuid, ..ended.clone() }));
        assert!(named.is_some_and(|(_, text)| {
            text.ends_with(", call 3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11")
        }));
        let dial = CallEventKind::Instruction {
            element: "Dial".into(),
            line: 2,
            outcome: "failed".into(),
            note: "whatsapp_to_whatsapp_not_supported".into(),
        };
        assert!(columns(&dial).is_some_and(|(_, text)| text.contains("limits.allow_wa_bridge")));
        let rejected = CallOutcome { cause: "rejected".into(), ..CallOutcome::default() };
        assert!(has_no_record(&rejected) && !has_no_record(&ended));
        assert!(
            is_documented(&CallEventKind::Ended(ended))
                && is_documented(&CallEventKind::Hangup { by: HangupSource::Meta })
        );
        assert!(
            !is_documented(&CallEventKind::FirstAudio) && !is_documented(&CallEventKind::Verified)
        );
        let unread = columns(&CallEventKind::LogRefused { status: 401 });
        assert!(unread.is_some_and(|(_, text)| text.contains("--api-key")));
        assert_eq!(columns(&CallEventKind::Webhook { kind: "connect".into(), status: 200 }), None);
        let finding = CallEventKind::Finding {
            rule: "E202".into(),
            line: 2,
            message: "Spek is no element".into(),
        };
        let text = "E202 (line 2): Spek is no element; offhook xml check --explain E202";
        assert_eq!(columns(&finding), Some(("document", text.to_owned())));
        assert!(!is_documented(&finding));
    }

    #[test]
    fn a_rejected_call_is_explained_by_the_state_of_the_nodes() {
        let node = |id, state| NodeStatus::silent(id, "0.1.0", state);
        let ready = [node("n1", NodeState::Ready), node("n2", NodeState::Draining)];
        assert!(why_rejected(false, &[]).contains("Give --api-key"));
        for text in
            [why_rejected(true, &[]), why_rejected(true, &ready), why_rejected(false, &ready)]
        {
            assert!(text.contains("no record") && !text.contains("--api-key"), "{text}");
        }
        let [_, draining] = ready;
        assert_eq!(
            why_rejected(true, &[node("n0", NodeState::Dead), draining]),
            "; node n2 admits no calls: draining; only a restart ends a drain"
        );
    }
}
