//! `offhook callbacks`: lists callbacks and sends failed ones again.
//!
//! It reads the store, whether or not a node is running. A running node checks for due callbacks
//! every two seconds.

use serde_json::{Value, json};

use super::target::LocalStoreArgs;
use super::{Exit, print};
use model::Clock;
use model::Timestamp;
use store::{Archive, CallbackState, CallbackView, Callbacks, Rearm};

/// `offhook callbacks …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// List the latest callbacks, newest first: waiting, delivered or failed. Reads the store
    /// itself, so it must run on the machine of the store; the node need not run
    List(ListArgs),
    /// Send failed callbacks again, with the same event id; waiting ones are sent immediately, after
    /// older ones that must be delivered before. Writes to the store itself, so it must run on the
    /// machine of the store
    Retry(RetryArgs),
}

/// Options of `offhook callbacks list`.
#[derive(clap::Args, Clone, Debug)]
pub struct ListArgs {
    /// Only failed callbacks
    #[arg(long, conflicts_with = "waiting")]
    pub failed: bool,
    /// Only callbacks that wait for their first or next attempt
    #[arg(long)]
    pub waiting: bool,
    /// Maximum number of callbacks
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = super::whole(1_u32..=10_000), allow_negative_numbers = true)]
    pub limit: u32,
    #[command(flatten)]
    pub store: LocalStoreArgs,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Options of `offhook callbacks retry`.
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("which").args(["id", "all_failed"]).required(true)))]
pub struct RetryArgs {
    /// Event id of a callback (`X-Offhook-Event-Id`), or its number in `list`
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// All failed callbacks
    #[arg(long)]
    pub all_failed: bool,
    #[command(flatten)]
    pub store: LocalStoreArgs,
}

/// Runs the command. Exit code 0: done; 1: no such callback, or the store cannot be read; 2: wrong
/// usage.
pub fn run(args: Args) -> Exit {
    super::run_async(async {
        match args.command {
            Command::List(args) => list(args).await,
            Command::Retry(args) => retry(args).await,
        }
    })
}

async fn list(args: ListArgs) -> Exit {
    let store = match args.store.database() {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let which = match (args.failed, args.waiting) {
        (true, _) => Callbacks::Failed,
        (_, true) => Callbacks::Waiting,
        _ => Callbacks::All,
    };
    let read = async { Archive::open(&store).await?.callbacks(which, args.limit).await };
    let callbacks = match read.await {
        Ok(callbacks) => callbacks,
        Err(e) => return Exit::failed(format_args!("{e}")),
    };
    if args.json {
        callbacks.iter().for_each(|callback| print::json(&object(callback)));
    } else if callbacks.is_empty() {
        print::line(format_args!("no such callbacks in {store}"));
    } else {
        print::text(&table(&callbacks));
    }
    Exit::Done
}

async fn retry(args: RetryArgs) -> Exit {
    let store = match args.store.database() {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let which = args.id.as_deref().map_or(Rearm::AllFailed, Rearm::One);
    match store::rearm(&store, which, Clock::real().steady()).await {
        Ok(0) => match args.id {
            Some(id) => Exit::failed(format_args!(
                "no callback {} waits or was given up in {store}; `offhook callbacks list` shows them",
                print::plain(&id)
            )),
            None => {
                print::line("none was given up");
                Exit::Done
            }
        },
        Ok(n) => {
            let them = if n == 1 { "callback is" } else { "callbacks are" };
            print::line(format_args!(
                "{n} {them} due now; a running node sends within two seconds"
            ));
            Exit::Done
        }
        Err(e) => Exit::failed(format_args!("{e}")),
    }
}

fn object(c: &CallbackView) -> Value {
    let (due, done) = match c.state {
        CallbackState::Waiting { due } => (Some(due), None),
        CallbackState::Delivered { at } | CallbackState::Failed { at } => (None, Some(at)),
    };
    json!({
        "id": c.id,
        "event_id": c.event_id,
        "call_uuid": c.call,
        "auth_id": c.account,
        "kind": c.kind,
        "method": c.method,
        "url": c.url,
        "state": c.state.as_str(),
        "attempts": c.attempts,
        "created": c.created.rfc3339(),
        "due": due.map(Timestamp::rfc3339),
        "done": done.map(Timestamp::rfc3339),
        "last": c.last,
    })
}

fn table(callbacks: &[CallbackView]) -> String {
    let head =
        ["id", "state", "kind", "attempts", "created", "call", "last", "url"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(callbacks.iter().map(|c| {
        [
            c.id.to_string(),
            c.state.as_str().to_owned(),
            c.kind.clone(),
            c.attempts.to_string(),
            c.created.rfc3339(),
            c.call.clone(),
            c.last.clone(),
            format!("{} {}", c.method, c.url),
        ]
    }));
    print::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: CallbackState) -> CallbackView {
        CallbackView {
            id: 7,
            event_id: "0191".to_owned(),
            call: "3f0c2f1a".to_owned(),
            account: "MA".to_owned(),
            kind: "hangup".to_owned(),
            method: "POST".to_owned(),
            url: "https://app.example.com/h\u{1b}[2J".to_owned(),
            created: Timestamp::from_secs(1_795_154_591),
            attempts: 3,
            state,
            last: "the answer was 503".to_owned(),
        }
    }

    #[test]
    fn a_callback_as_a_line_and_as_an_object() {
        let at = Timestamp::from_secs(1_795_154_600);
        assert_eq!(
            table(&[view(CallbackState::Failed { at })]),
            "id  state   kind    attempts  created                   call      last                url\n\
             7   failed  hangup  3         2026-11-20T06:03:11.000Z  3f0c2f1a  the answer was 503  \
             POST https://app.example.com/h [2J\n"
        );
        let waiting = object(&view(CallbackState::Waiting { due: at }));
        assert_eq!(
            (&waiting["state"], &waiting["due"]),
            (&json!("waiting"), &json!("2026-11-20T06:03:20.000Z"))
        );
        assert_eq!(object(&view(CallbackState::Delivered { at }))["done"], waiting["due"]);
    }
}
