//! `offhook nodes`: lists the nodes of a fleet, drains one of them, and forgets one that is lost.

use http::Method;

use super::node_api::NodeApi;
use super::target::NodeArgs;
use super::{Exit, print};
use crate::api::{NodeState, NodeStatus};

/// `offhook nodes …`.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// List the nodes of the fleet, as seen by one of them: state, live calls, and the slots and
    /// permits that each holds; the same as `offhook nodes`
    List(ListArgs),
    /// Drain a node: new calls go to the other nodes, and live calls continue. Stop the node with
    /// SIGTERM when it has no calls; only a restart ends the drain
    Drain(NodeIdArgs),
    /// Forget a node that is lost forever with its disk: its recordings without a copy are deleted.
    /// Refused while the node runs
    Forget(NodeIdArgs),
}

/// Options of `offhook nodes list`.
#[derive(clap::Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub at: NodeArgs,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Options of `offhook nodes drain` and `offhook nodes forget`.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeIdArgs {
    /// Name of the node: its cluster.node_id
    #[arg(value_name = "NODE", value_parser = node_id)]
    pub node_id: String,
    #[command(flatten)]
    pub at: NodeArgs,
}

/// Parses the name of a node, which becomes part of a path.
fn node_id(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.chars().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("it is not the name of a node; `offhook nodes` lists them".to_owned()),
    }
}

/// Runs the command. Exit code 0: done; 1: the node refused, or a node of the fleet does not answer;
/// 2: wrong usage.
pub fn run(args: Args) -> Exit {
    super::run_async(async {
        let done = match args.command {
            None => list(args.list).await,
            Some(Command::List(args)) => list(args).await,
            Some(Command::Drain(args)) => drain(args).await,
            Some(Command::Forget(args)) => forget(args).await,
        };
        done.unwrap_or_else(|exit| exit)
    })
}

async fn list(args: ListArgs) -> Result<Exit, Exit> {
    let api = NodeApi::of(&args.at)?;
    let mut answer = api.ask(Method::GET, "nodes/", None).await?;
    let items = answer["items"].take();
    if args.json {
        items.as_array().into_iter().flatten().for_each(print::json);
        return Ok(Exit::Done);
    }
    let nodes: Vec<NodeStatus> = serde_json::from_value(items).map_err(|error| {
        Exit::failed(format_args!("{} has another version: {error}; try --json", api.base()))
    })?;
    print::text(&table(&nodes));
    for remark in remarks(&nodes) {
        print::line(remark);
    }
    let is_silent = nodes.iter().any(|node| node.state == NodeState::Unreachable);
    Ok(if is_silent { Exit::Failed } else { Exit::Done })
}

async fn drain(args: NodeIdArgs) -> Result<Exit, Exit> {
    let api = NodeApi::of(&args.at)?;
    let path = format!("nodes/{}/drain/", args.node_id);
    let answer = api.ask(Method::POST, &path, None).await?;
    let live = answer["liveCalls"].as_u64().unwrap_or(0);
    let id = &args.node_id;
    print::line(format_args!(
        "{id} drains; live calls: {live}; stop it with SIGTERM when `offhook nodes` shows 0"
    ));
    Ok(Exit::Done)
}

async fn forget(args: NodeIdArgs) -> Result<Exit, Exit> {
    let api = NodeApi::of(&args.at)?;
    let id = &args.node_id;
    api.ask(Method::POST, &format!("nodes/{id}/forget/"), None).await?;
    print::line(format_args!("{id} is forgotten; if it starts again, it is a new node"));
    Ok(Exit::Done)
}

/// One row per node, below a header row.
fn table(nodes: &[NodeStatus]) -> String {
    let head = ["node", "state", "version", "started", "calls", "load", "slots", "permits", "beat"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(nodes.iter().map(row));
    print::table(&rows)
}

/// The state of a node in words.
pub(super) fn state_of(node: &NodeStatus) -> &str {
    match node.state {
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
        NodeState::Unready => node.not_ready.as_deref().unwrap_or("not ready"),
        NodeState::Unreachable => "does not answer",
        NodeState::Dead => "dead",
    }
}

/// The cells of a node: name, state, version, start, calls, load, slots, permits, age of the last
/// beat.
pub(super) fn row(node: &NodeStatus) -> [String; 9] {
    const NONE: &str = "-";
    let NodeStatus { id, version, started_at, live_calls, load, fleet, .. } = node;
    let units = fleet.as_ref().map(|fleet| fleet.units);
    let of = |used: u64, held: u64| format!("{used} of {held}");
    let beat = fleet.as_ref().and_then(|fleet| fleet.beat_age_ms);
    [
        id.clone(),
        state_of(node).to_owned(),
        version.clone(),
        started_at.clone().unwrap_or_else(|| NONE.to_owned()),
        live_calls.map_or_else(|| NONE.to_owned(), |live| live.to_string()),
        load.map_or_else(|| NONE.to_owned(), |load| format!("{load:.2}")),
        units.map_or_else(|| NONE.to_owned(), |units| of(units.slots_used, units.slots_held)),
        units.map_or_else(|| NONE.to_owned(), |units| of(units.permits_used, units.permits_held)),
        beat.map_or_else(|| NONE.to_owned(), |age| format!("{age} ms ago")),
    ]
}

/// Returns remarks for the operator that the table does not show.
fn remarks(nodes: &[NodeStatus]) -> Vec<String> {
    let fleets = || nodes.iter().filter_map(|node| Some((&node.id, node.fleet.as_ref()?)));
    let mut remarks = Vec::new();
    let away: Vec<&str> =
        fleets().filter(|(_, fleet)| !fleet.connected).map(|(id, _)| id.as_str()).collect();
    if !away.is_empty() {
        let who = away.join(", ");
        remarks.push(format!("the database does not answer {who}: calls begin with the slots and permits that are held"));
    }
    if let Some((_, fleet)) = fleets().find(|(_, fleet)| fleet.connected && !fleet.open) {
        let waits = match fleet.waiting_for.is_empty() {
            true => "for up to 10 s".to_owned(),
            false => format!("until {} reports what it holds", fleet.waiting_for.join(", ")),
        };
        remarks.push(format!(
            "no node gets more slots or permits {waits}: the database was restarted and may have lost some"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::{node_id, remarks, table};
    use crate::api::{FleetStatus, NodeState, NodeStatus, Units};

    fn node(id: &str) -> NodeStatus {
        NodeStatus {
            started_at: Some("2026-11-20T06:03:11.000Z".to_owned()),
            live_calls: Some(3),
            load: Some(0.05),
            fleet: Some(FleetStatus {
                run: "0197c5f0-0000-7000-8000-000000000001".to_owned(),
                connected: true,
                beat_age_ms: Some(120),
                beat_ms: 1,
                open: true,
                waiting_for: Vec::new(),
                units: Units { slots_held: 40, slots_used: 3, permits_held: 5, permits_used: 0 },
                hears: vec!["a2".to_owned()],
            }),
            ..NodeStatus::silent(id, "0.1.0", NodeState::Ready)
        }
    }

    #[test]
    fn f46_nodes_as_a_table() {
        let dead = NodeStatus::silent("a3", "0.1.0", NodeState::Dead);
        assert_eq!(
            table(&[node("a1"), dead]),
            "node  state  version  started                   calls  load  slots    permits  beat\n\
             a1    ready  0.1.0    2026-11-20T06:03:11.000Z  3      0.05  3 of 40  0 of 5   120 ms ago\n\
             a3    dead   0.1.0    -                         -      -     -        -        -\n"
        );
    }

    #[test]
    fn f46_remarks_say_why_limits_do_not_grow() {
        assert_eq!(remarks(&[node("a1")]), Vec::<String>::new());
        let mut closed = node("a1");
        let fleet = closed.fleet.as_mut().unwrap();
        (fleet.open, fleet.waiting_for) = (false, vec!["a2".to_owned()]);
        let mut away = node("a2");
        away.fleet.as_mut().unwrap().connected = false;
        let remarks = remarks(&[closed, away]);
        assert!(remarks[0].starts_with("the database does not answer a2"), "{remarks:?}");
        assert!(remarks[1].contains("until a2 reports what it holds"), "{remarks:?}");
    }

    #[test]
    fn names_of_nodes_are_parts_of_paths() {
        assert_eq!(node_id("a-1.x"), Ok("a-1.x".to_owned()));
        for bad in ["", "a/b", "a b", "?"] {
            assert!(node_id(bad).is_err(), "{bad}");
        }
    }
}
