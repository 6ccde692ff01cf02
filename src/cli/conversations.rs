//! `offhook conversations export`: exports conversations as JSON lines.
//!
//! It reads the store, whether or not a node is running, or queries a node over its API.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::node_api::NodeApi;
use super::target::SourceArgs;
use super::{Exit, print};
use engine::inbox::words;
use model::E164;
use store::Database;
use store::{Archive, Conversation, Message, Scope, StoreError};

/// Number of conversations or messages per query.
const PAGE: u32 = 500;

/// `offhook conversations …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Export all conversations with their messages and calls, one JSON object per line
    Export(ExportArgs),
}

/// Options of `offhook conversations export`.
#[derive(clap::Args, Clone, Debug)]
pub struct ExportArgs {
    /// Only conversations of this account or subaccount
    #[arg(long, value_name = "AUTH_ID")]
    pub account: Option<String>,
    /// Only conversations of this business number
    #[arg(long, value_name = "NUMBER", value_parser = E164::parse)]
    pub number: Option<E164>,
    #[command(flatten)]
    pub from: SourceArgs,
}

/// Runs the command. Exit code 0: done; 1: unreadable store or unknown account; 2: wrong usage.
pub fn run(args: Args) -> Exit {
    let Command::Export(args) = args.command;
    super::run_async(async {
        let exported = match &args.from.node {
            Some(_) => export_from_node(&args).await,
            None => match args.from.store.database() {
                Ok(at) => export(&at, &args).await.map_err(Exit::failed),
                Err(exit) => Err(exit),
            },
        };
        match exported {
            Ok(0)
                if args.account.as_ref().is_some_and(|account| !args.from.store.names(account)) =>
            {
                let account = args.account.unwrap_or_default();
                Exit::failed(format_args!(
                    "no conversations of account {account:?}; check the auth id"
                ))
            }
            Ok(_) => Exit::Done,
            Err(exit) => exit,
        }
    })
}

/// Like [`export`], over the API of a node. Messages have the same format as in the timeline.
async fn export_from_node(args: &ExportArgs) -> Result<usize, Exit> {
    let api = NodeApi::of_source(&args.from)?;
    let own = api.ask(Method::GET, "account/", None).await?;
    // The account of the key has all conversations that the node lists, those of subaccounts too.
    let account = args.account.as_deref().filter(|account| own["account"] != *account);
    let mut found = 0;
    for conversation in api.all("conversations/", None).await? {
        if account.is_some_and(|account| conversation["account"] != account) {
            continue;
        }
        found += 1;
        if args.number.as_ref().is_some_and(|number| conversation["number"] != number.as_str()) {
            continue;
        }
        let id = &conversation["id"];
        let picked = |name: &str| conversation[name].clone();
        print::json(&json!({
            "conversation": id,
            "account": picked("account"),
            "number": picked("number"),
            "user": picked("user"),
            "status": picked("status"),
            "createdAt": picked("createdAt"),
        }));
        let id = id.as_str().unwrap_or_default();
        for mut message in timeline(&api, id).await? {
            let mut moved = |name| message[name].take();
            let (sender, error) = (moved("sender"), moved("error"));
            print::json(&json!({
                "conversation": id, "message": message, "sender": sender, "error": error,
            }));
        }
    }
    Ok(found)
}

/// The timeline of a conversation, oldest first. The pages are read in the opposite order.
async fn timeline(api: &NodeApi, id: &str) -> Result<Vec<Value>, Exit> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("conversations/{id}/timeline/?limit=200&cursor={cursor}");
        let mut page = api.ask(Method::GET, &path, None).await?;
        if let Value::Array(items) = page["items"].take() {
            pages.push(items);
        }
        match page["next"].as_str() {
            Some(next) if next != cursor => next.clone_into(&mut cursor),
            _ => return Ok(pages.into_iter().rev().flatten().collect()),
        }
    }
}

/// Prints the selected conversations. Returns the number of conversations of the account, before
/// they are filtered by business number.
async fn export(at: &Database, args: &ExportArgs) -> Result<usize, StoreError> {
    let archive = Archive::open(at).await?;
    let (mut after, mut found) = (Uuid::nil(), 0);
    loop {
        let page = archive.conversations(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.pair.conversation;
        for conversation in page.iter().filter(|c| is_of_account(c, args)) {
            found += 1;
            if args.number.as_ref().is_some_and(|number| *number != conversation.pair.number) {
                continue;
            }
            print_conversation(&archive, conversation).await?;
        }
    }
}

fn is_of_account(conversation: &Conversation, args: &ExportArgs) -> bool {
    let pair = &conversation.pair;
    let of = |id: &String| {
        [&pair.account, &pair.main_account].iter().any(|account| account.as_str() == id)
    };
    args.account.as_ref().is_none_or(of)
}

/// Prints a conversation, then its messages, oldest first.
async fn print_conversation(
    archive: &Archive,
    conversation: &Conversation,
) -> Result<(), StoreError> {
    let pair = &conversation.pair;
    let id = pair.conversation;
    print::json(&json!({
        "conversation": id,
        "account": pair.account.as_str(),
        "number": pair.number.as_str(),
        "user": pair.user.shown(),
        "status": conversation.status.as_str(),
        "createdAt": conversation.created.to_string(),
    }));
    let scope = Scope::Main(pair.main_account.clone());
    let (mut messages, mut before): (Vec<Message>, _) = (Vec::new(), None);
    loop {
        let page = archive.messages(&scope, id, before, PAGE).await?;
        let Some(last) = page.last() else { break };
        before = Some((last.message.at.micros(), last.message.id));
        messages.extend(page);
    }
    for found in messages.iter().rev() {
        print::json(&line(id, found));
    }
    Ok(())
}

/// A message as a JSON object, with the error of a failed one.
fn line(conversation: Uuid, found: &Message) -> serde_json::Value {
    json!({
        "conversation": conversation,
        "message": words::message(&found.message, None),
        "sender": found.message.sender,
        "content": found.message.content,
        "error": found.error.as_ref().map(|(code, text)| json!({"code": code, "message": text})),
    })
}
