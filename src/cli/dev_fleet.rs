//! `offhook dev --nodes N`: a fleet on loopback, whose nodes can be killed, paused, cut off, drained
//! and started by typed commands or by a script.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};

use super::simulated::{self, StopSignals};
use super::target::{Registration, RunningDev};
use super::{Exit, nodes, print};
use crate::api::{NodeState, NodeStatus};
use crate::node::dev::fleet::{DevFleet, DevNodeStatus, FleetError, FleetOptions, ProcessState};
use sim::client::Client;
use sim::control::{CallRequest, StopLoadRequest};
use sim::load::{CALLS_MAX, LoadEvent, LoadRequest, Progress, RATE_MAX, Summary};
use sim::world;

/// Interval at which the table is drawn.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Calls per second of a load without a given rate.
const DEFAULT_RATE: f64 = 20.0;
/// Length of a call of such a load, in seconds.
const HOLD_S: f64 = 5.0;
/// Timeout for a load to end.
const LOAD_END_TIME: Duration = Duration::from_secs(8);
/// Timeout of `until`.
const UNTIL_TIME: Duration = Duration::from_secs(60);
/// Maximum duration of `wait` in seconds.
const WAIT_MAX: f64 = 3_600.0;
/// Maximum number of commands that are typed ahead.
const LINES_MAX: usize = 64;
const LOAD_LINE_BYTES_MAX: usize = 1 << 20;

const KEYS: &str = "k N kill · s N pause or continue · c N cut off from PostgreSQL or mend · d N drain · u N start\n\
                    p restart PostgreSQL · f promote a standby without its last second · l [RATE] load, l 0 none\n\
                    h help · q quit; N is a node, 1 to 9";

/// A typed command. Nodes are counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Kill(usize),
    Pause(usize),
    CutOff(usize),
    Drain(usize),
    Start(usize),
    RestartDatabase,
    FailOverDatabase,
    /// Sets the calls per second of the load. 0 ends it.
    Load(f64),
    Wait(Duration),
    Until(usize, Condition),
    Help,
    Quit,
}

/// The condition of `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Ready,
    Draining,
    /// The other nodes end the node's calls.
    Dead,
    /// The node's process has ended.
    Ended,
}

impl Condition {
    const ALL: [(&'static str, Self); 4] = [
        ("ready", Self::Ready),
        ("draining", Self::Draining),
        ("dead", Self::Dead),
        ("ended", Self::Ended),
    ];

    fn word(self) -> &'static str {
        let named = Self::ALL.into_iter().find(|(_, condition)| *condition == self);
        named.map_or("", |(name, _)| name)
    }

    fn holds(self, node: &DevNodeStatus) -> bool {
        let state = node.status.as_ref().map(|status| status.state);
        match self {
            Self::Ready => state == Some(NodeState::Ready),
            Self::Draining => state == Some(NodeState::Draining),
            Self::Dead => state == Some(NodeState::Dead),
            Self::Ended => matches!(node.process, ProcessState::Ended(_)),
        }
    }
}

impl Command {
    /// Parses a line. `None` if it is empty or a comment.
    ///
    /// # Errors
    /// Returns a message that says what is wrong.
    fn parse(line: &str, nodes: usize) -> Result<Option<Self>, String> {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return Ok(None) };
        let mut node = || {
            let number = words.next().map(|word| word.trim_start_matches('n').parse::<usize>());
            match number {
                Some(Ok(number)) if (1..=nodes).contains(&number) => Ok(number - 1),
                _ => Err(format!("{name:?} needs a node, 1 to {nodes}")),
            }
        };
        let command = match name {
            "k" => Self::Kill(node()?),
            "s" => Self::Pause(node()?),
            "c" => Self::CutOff(node()?),
            "d" => Self::Drain(node()?),
            "u" => Self::Start(node()?),
            "until" => {
                let node = node()?;
                let word = words.next().unwrap_or_default();
                let known = Condition::ALL.iter().find(|(name, _)| *name == word);
                let (_, condition) =
                    known.ok_or("`until N` needs `ready`, `draining`, `dead` or `ended`")?;
                Self::Until(node, *condition)
            }
            "p" => Self::RestartDatabase,
            "f" => Self::FailOverDatabase,
            "l" => {
                let rate = words.next().map_or(Ok(DEFAULT_RATE), str::parse);
                match rate {
                    Ok(rate) if (0.0..=RATE_MAX).contains(&rate) => Self::Load(rate),
                    _ => return Err(format!("`l` needs calls per second, at most {RATE_MAX}")),
                }
            }
            "wait" => {
                let seconds = words.next().and_then(|word| word.parse::<f64>().ok());
                match seconds.filter(|seconds| (0.0..=WAIT_MAX).contains(seconds)) {
                    Some(seconds) => Self::Wait(Duration::from_secs_f64(seconds)),
                    None => return Err(format!("`wait` needs seconds, at most {WAIT_MAX}")),
                }
            }
            "h" | "help" | "?" => Self::Help,
            "q" | "quit" => Self::Quit,
            _ => return Err(format!("there is no command {name:?}; `h` lists them")),
        };
        match words.next() {
            None => Ok(Some(command)),
            Some(more) => Err(format!("{more:?} is too much after {name:?}")),
        }
    }
}

/// Reads the commands of a script, one per line.
///
/// # Errors
/// Returns a message that names the line.
pub(super) fn parse_script(text: &str, nodes: usize) -> Result<Vec<Command>, String> {
    let lines = text.lines().enumerate();
    let commands = lines.map(|(n, line)| {
        Command::parse(line, nodes).map_err(|error| format!("line {}: {error}", n + 1))
    });
    commands.filter_map(Result::transpose).collect()
}

/// Runs a fleet until `q`, the end of the script, SIGINT or SIGTERM.
pub(super) async fn run(options: FleetOptions, script: Option<Vec<Command>>, json: bool) -> Exit {
    let mut stop = match StopSignals::new() {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    let port = options.port;
    let nodes = options.nodes;
    print::error_text(&format!("starting PostgreSQL and {nodes} nodes…\n"));
    let booted = tokio::select! {
        booted = DevFleet::boot(options) => booted,
        _ = stop.requested() => return Exit::Done,
    };
    let fleet = match booted {
        Ok(fleet) => fleet,
        Err(error @ FleetError::Postgres(_)) => return Exit::usage(error),
        Err(error @ FleetError::Balancer { .. }) => {
            return Exit::failed(format_args!(
                "{error}\nif port {port} is in use, choose another one with --port"
            ));
        }
        Err(error) => return Exit::failed(error),
    };
    let _registration = register(&fleet);
    let is_scripted = script.is_some();
    let client = match simulated::http_client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let mut session = Session {
        client,
        load: None,
        shown: HashMap::new(),
        screen: Screen::new(fleet.node_count(), json),
        queue: script.unwrap_or_default().into(),
        fleet,
    };
    if !json {
        session.introduce();
    }
    let lines = match is_scripted {
        true => None,
        false => Some(typed_lines()),
    };
    let exit = session.run(lines, &mut stop).await;
    session.end().await;
    exit
}

/// Registers the fleet for other commands, which then find it without `--node`.
fn register(fleet: &DevFleet) -> Option<Registration> {
    let running = RunningDev {
        node: fleet.url.clone(),
        data_dir: fleet.folder().to_owned(),
        database_url: Some(fleet.database_url()),
    };
    let registered = running.register();
    registered.inspect_err(|e| tracing::warn!(error = %e, "not registered for other commands")).ok()
}

/// Lines from standard input, until it ends.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}

struct Session {
    fleet: DevFleet,
    client: Client,
    load: Option<Load>,
    /// The last printed line about each node.
    shown: HashMap<String, (String, u64)>,
    screen: Screen,
    /// Commands to run, in order.
    queue: VecDeque<Command>,
}

/// The condition or time that the next command waits for.
struct Wait {
    node: Option<(usize, Condition)>,
    time: Pin<Box<Sleep>>,
}

impl Session {
    fn introduce(&self) {
        let Self { fleet, .. } = self;
        let url = &fleet.url;
        print::line(format_args!(
            "{nodes} nodes are ready, all on loopback, behind a balancer. Call {number} from the browser phone:\n\n\
             \x20 browser phone   {phone}\n\
             \x20 console         {url}/console/\n\
             \x20 sign in as      {person}, password {password}\n\
             \x20 answer URL      {answer}\n\
             \x20 simulated Meta  {graph}\n\
             \x20 logs            {folder}/n*.log\n\n\
             From another terminal: `offhook nodes`, `offhook call --node {url} --dtmf 1`. Commands:\n\n{KEYS}\n",
            nodes = fleet.node_count(),
            number = world::NUMBER,
            phone = fleet.sim.phone_url(),
            person = world::PERSON,
            password = world::PASSWORD,
            answer = fleet.answer_url,
            graph = fleet.sim.graph_url(),
            folder = fleet.folder().display(),
        ));
    }

    /// Runs typed commands, or those of the script if `lines` is `None`.
    async fn run(
        &mut self,
        mut lines: Option<mpsc::Receiver<String>>,
        stop: &mut StopSignals,
    ) -> Exit {
        let is_scripted = lines.is_none();
        let mut ticks = tokio::time::interval(DRAW_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wait = None;
        loop {
            if wait.is_none() {
                match self.queue.pop_front() {
                    Some(Command::Quit) => return Exit::Done,
                    Some(Command::Wait(time)) => {
                        wait = Some(Wait { node: None, time: Box::pin(sleep(time)) });
                    }
                    Some(Command::Until(node, condition)) => {
                        let time = Box::pin(sleep(UNTIL_TIME));
                        wait = Some(Wait { node: Some((node, condition)), time });
                    }
                    Some(command) => {
                        self.obey(command).await;
                        continue;
                    }
                    None if is_scripted => return Exit::Done,
                    None => {}
                }
            }
            let (node, time) = match &mut wait {
                Some(wait) => (wait.node, Some(wait.time.as_mut())),
                None => (None, None),
            };
            let waited = async {
                match time {
                    Some(time) => time.await,
                    None => std::future::pending().await,
                }
            };
            let typed = async {
                match &mut lines {
                    Some(lines) => lines.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.requested() => return Exit::Done,
                () = waited => match node {
                    None => wait = None,
                    Some((node, condition)) => return Exit::failed(format_args!(
                        "n{} is not {} after {} s",
                        node + 1,
                        condition.word(),
                        UNTIL_TIME.as_secs()
                    )),
                },
                line = typed => match line {
                    Some(line) => match Command::parse(&line, self.fleet.node_count()) {
                        Ok(command) => self.queue.extend(command),
                        Err(error) => self.screen.tell(&error),
                    },
                    // Standard input has ended: only a signal ends the fleet.
                    None => lines = None,
                },
                _ = ticks.tick() => {
                    let nodes = self.draw().await;
                    let holds = |(node, condition): (usize, Condition)| {
                        nodes.get(node).is_some_and(|node| condition.holds(node))
                    };
                    if node.is_some_and(holds) {
                        wait = None;
                    }
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let text = match command {
            Command::Kill(node) => match self.fleet.kill(node) {
                true => format!("n{} is killed", node + 1),
                false => ended(node),
            },
            Command::Pause(node) => match self.fleet.pause(node) {
                Some(true) => format!("n{} is paused", node + 1),
                Some(false) => format!("n{} goes on", node + 1),
                None => ended(node),
            },
            Command::CutOff(node) => match self.fleet.cut_off(node) {
                Some(true) => format!("n{} is cut off from PostgreSQL", node + 1),
                _ => format!("n{} reaches PostgreSQL again", node + 1),
            },
            Command::Drain(node) => match self.fleet.drain(node) {
                true => format!("n{} drains, and ends when its calls are over", node + 1),
                false => ended(node),
            },
            Command::Start(node) => match self.fleet.start_node(node) {
                Ok(true) => format!("n{} starts", node + 1),
                Ok(false) => format!("n{} runs", node + 1),
                Err(error) => error.to_string(),
            },
            Command::RestartDatabase => match self.fleet.restart_database().await {
                Ok(()) => "PostgreSQL was restarted".to_owned(),
                Err(error) => error.to_string(),
            },
            Command::FailOverDatabase => match self.fleet.fail_over_database().await {
                Ok(()) => "a standby without the last second of PostgreSQL was promoted".to_owned(),
                Err(error) => error.to_string(),
            },
            Command::Load(rate) => {
                self.end_load().await;
                if rate <= 0.0 {
                    return;
                }
                match Load::start(&self.client, self.fleet.sim.url(), rate).await {
                    Ok(load) => self.load = Some(load),
                    Err(error) => return self.screen.tell(&error),
                }
                format!("{rate} calls per second, each held for {HOLD_S} s")
            }
            Command::Help => KEYS.to_owned(),
            Command::Wait(_) | Command::Until(..) | Command::Quit => return,
        };
        self.screen.tell(&text);
    }

    /// Draws the nodes, and prints changes.
    async fn draw(&mut self) -> Vec<DevNodeStatus> {
        let nodes = self.fleet.status().await;
        for node in &nodes {
            let now = (state_of(node), node.adopted.unwrap_or(0));
            let before = self.shown.insert(node.name.clone(), now.clone());
            let (state, adopted) = before.unwrap_or_else(|| now.clone());
            if state != now.0 {
                self.screen.tell(&format!("{}: {}", node.name, now.0));
            }
            if let calls @ 1.. = now.1.saturating_sub(adopted) {
                self.screen.tell(&format!("{} has ended {calls} calls of a dead node", node.name));
            }
        }
        let load = self.load.as_ref().map(|load| load.progress.borrow().clone());
        self.screen.draw(&nodes, load.as_ref());
        nodes
    }

    /// Ends the load, and prints its result.
    async fn end_load(&mut self) {
        let Some(load) = self.load.take() else { return };
        match load.end(&self.client, self.fleet.sim.url()).await {
            Some(summary) => {
                let Summary { attempted, answered, rejected, failed, causes, .. } = summary;
                let mut text = format!(
                    "the load is over: {attempted} calls, {answered} answered, {rejected} rejected, {failed} failed"
                );
                for (cause, count) in causes {
                    text.push_str(&format!("\n  failed: {count} × {cause}"));
                }
                self.screen.tell(&text);
            }
            None => self.screen.tell("the load did not end in time"),
        }
    }

    async fn end(mut self) {
        self.end_load().await;
        drop(self.screen);
        self.fleet.stop().await;
    }
}

fn ended(node: usize) -> String {
    format!("the process of n{0} has ended; `u {0}` starts it", node + 1)
}

/// Calls that the simulated Meta places.
struct Load {
    id: String,
    progress: watch::Receiver<Progress>,
    /// Reads the report.
    reader: JoinHandle<Option<Summary>>,
}

impl Load {
    async fn start(client: &Client, sim_url: &str, rate: f64) -> Result<Self, String> {
        let order = LoadRequest {
            id: uuid::Uuid::new_v4().to_string(),
            rate,
            calls: CALLS_MAX,
            media: true,
            call: CallRequest { hold_s: Some(HOLD_S), ..CallRequest::default() },
        };
        order.check()?;
        let lines =
            simulated::order(client, sim_url, "/_sim/load", &order, LOAD_LINE_BYTES_MAX).await;
        let mut lines = lines.map_err(|_| "the simulated Meta refused the load".to_owned())?;
        let (sender, progress) = watch::channel(Progress::default());
        let reader = tokio::spawn(async move {
            while let Some(line) = lines.next().await {
                match serde_json::from_slice(&line).ok()? {
                    LoadEvent::Progress(progress) => _ = sender.send(progress),
                    LoadEvent::Summary(summary) => return Some(summary),
                }
            }
            None
        });
        Ok(Self { id: order.id, progress, reader })
    }

    async fn end(self, client: &Client, sim_url: &str) -> Option<Summary> {
        let this = StopLoadRequest { id: self.id };
        simulated::end_early(client, sim_url, "/_sim/load/stop", &this).await;
        tokio::time::timeout(LOAD_END_TIME, self.reader).await.ok()?.ok()?
    }
}

/// The output of the table and the messages.
enum Screen {
    /// The table stays at the top of a terminal, and messages scroll below it.
    Terminal,
    /// The table and the messages are printed one after the other.
    Lines,
    /// One object per second.
    Json,
}

/// One line of output with `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Nodes { nodes: Vec<NodeLine<'a>>, load: Option<&'a Progress> },
    Message { text: &'a str },
}

/// A node in the output with `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeLine<'a> {
    name: &'a str,
    process: String,
    cut_off: bool,
    calls_taken_over: Option<u64>,
    status: Option<&'a NodeStatus>,
}

impl Screen {
    fn new(nodes: usize, json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !std::io::stdout().is_terminal() {
            return Self::Lines;
        }
        // The header, the nodes, the load and an empty line stay; the rest scrolls (DECSTBM).
        let first = nodes + 4;
        print::text(&format!("\x1b[2J\x1b[{first}r\x1b[{first};1H"));
        Self::Terminal
    }

    fn tell(&self, text: &str) {
        match self {
            Self::Json => print::json(&Line::Message { text }),
            Self::Terminal | Self::Lines => print::line(text),
        }
    }

    fn draw(&self, nodes: &[DevNodeStatus], load: Option<&Progress>) {
        let text = table(nodes) + &load_line(load);
        match self {
            Self::Json => {
                let nodes = nodes.iter().map(|node| NodeLine {
                    name: &node.name,
                    process: process_of(node.process),
                    cut_off: node.is_cut_off,
                    calls_taken_over: node.adopted,
                    status: node.status.as_ref(),
                });
                print::json(&Line::Nodes { nodes: nodes.collect(), load });
            }
            Self::Lines => print::text(&format!("\n{text}\n")),
            Self::Terminal => {
                // The cursor stays where a command is typed (DECSC, DECRC).
                let lines = text.lines().map(|line| format!("{line}\x1b[K\r\n"));
                let lines: String = lines.collect();
                print::text(&format!("\x1b7\x1b[H{lines}\x1b[K\x1b8"));
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Self::Terminal = self {
            print::text("\x1b[r\x1b[999;1H\n");
        }
    }
}

/// One row per node, below a header row.
fn table(nodes: &[DevNodeStatus]) -> String {
    let head = ["node", "process", "fleet", "calls", "slots", "permits", "took over", "beat"];
    let mut rows = vec![head.map(str::to_owned)];
    for node in nodes {
        let cells = node.status.as_ref().map(nodes::row);
        let [_, state, _, _, calls, _, slots, permits, beat] =
            cells.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned()));
        let process = match node.is_cut_off {
            true => format!("{}, cut off", process_of(node.process)),
            false => process_of(node.process),
        };
        let adopted = node.adopted.map_or_else(|| "-".to_owned(), |calls| calls.to_string());
        rows.push([node.name.clone(), process, state, calls, slots, permits, adopted, beat]);
    }
    print::table(&rows)
}

fn load_line(load: Option<&Progress>) -> String {
    match load {
        Some(Progress { attempted, answered, rejected, failed, live, .. }) => format!(
            "load: {attempted} calls, {live} live, {answered} answered, {rejected} rejected, {failed} failed\n"
        ),
        None => "load: none; `l 20` places 20 calls per second\n".to_owned(),
    }
}

fn process_of(state: ProcessState) -> String {
    match state {
        ProcessState::Runs => "runs".to_owned(),
        ProcessState::Drains => "drains".to_owned(),
        ProcessState::Paused => "paused".to_owned(),
        ProcessState::Ended(None) => "killed".to_owned(),
        ProcessState::Ended(Some(code)) => format!("ended ({code})"),
    }
}

/// Describes the state of a node in the fleet and of its process in one phrase.
fn state_of(node: &DevNodeStatus) -> String {
    let process = process_of(node.process);
    match &node.status {
        Some(status) => format!("{process}, {}", nodes::state_of(status)),
        None => process,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Command, Condition, parse_script, table};
    use crate::node::dev::fleet::{DevNodeStatus, ProcessState};

    #[test]
    fn f45_commands_are_read_and_mistakes_are_named() {
        let script =
            "l 20   # a load\n\nk 2\nuntil n2 dead\nwait 1.5\nu 2\nc 3\ns 1\nd 1\np\nf\nl 0\nq\n";
        let commands = vec![
            Command::Load(20.0),
            Command::Kill(1),
            Command::Until(1, Condition::Dead),
            Command::Wait(Duration::from_millis(1_500)),
            Command::Start(1),
            Command::CutOff(2),
            Command::Pause(0),
            Command::Drain(0),
            Command::RestartDatabase,
            Command::FailOverDatabase,
            Command::Load(0.0),
            Command::Quit,
        ];
        assert_eq!(parse_script(script, 3), Ok(commands));
        for (wrong, message) in [
            ("l\nk", "line 2: \"k\" needs a node, 1 to 3"),
            ("k 4", "line 1: \"k\" needs a node, 1 to 3"),
            ("x", "line 1: there is no command \"x\"; `h` lists them"),
            ("k 1 2", "line 1: \"2\" is too much after \"k\""),
            ("until 1 happy", "line 1: `until N` needs `ready`, `draining`, `dead` or `ended`"),
            ("wait", "line 1: `wait` needs seconds, at most 3600"),
            ("l -1", "line 1: `l` needs calls per second, at most 10000"),
        ] {
            assert_eq!(parse_script(wrong, 3), Err(message.to_owned()));
        }
    }

    #[test]
    fn f45_a_killed_node_is_shown() {
        let node = |name: &str, process| DevNodeStatus {
            name: name.to_owned(),
            process,
            is_cut_off: process == ProcessState::Runs,
            adopted: (process == ProcessState::Runs).then_some(4),
            status: None,
        };
        let nodes = [node("n1", ProcessState::Runs), node("n2", ProcessState::Ended(None))];
        assert_eq!(
            table(&nodes),
            "node  process        fleet  calls  slots  permits  took over  beat\n\
             n1    runs, cut off  -      -      -      -        4          -\n\
             n2    killed         -      -      -      -        -          -\n"
        );
    }
}
