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
            Ok(exported) => match unknown_filter(&args, &exported) {
                Some(why) => Exit::failed(why),
                None => Exit::Done,
            },
            Err(exit) => exit,
        }
    })
}

/// The numbers of conversations that were found.
#[derive(Default)]
struct Exported {
    /// Of the account, or of all accounts.
    of_account: usize,
    /// Of these, the ones of the business number.
    of_number: usize,
}

impl Exported {
    /// Counts a conversation of the account. Returns whether it is to be exported.
    fn count(&mut self, is_of_number: bool) -> bool {
        self.of_account += 1;
        self.of_number += usize::from(is_of_number);
        is_of_number
    }
}

/// Why nothing was exported, if the account or the number is not known to exist.
fn unknown_filter(args: &ExportArgs, exported: &Exported) -> Option<String> {
    let store = &args.from.store;
    match (&args.account, &args.number) {
        (Some(account), _) if exported.of_account == 0 && !store.names_account(account) => {
            Some(format!("no conversations of account {account:?}; check the auth id"))
        }
        // A node has checked the number.
        (_, Some(number))
            if args.from.node.is_none()
                && exported.of_number == 0
                && !store.names_number(number) =>
        {
            Some(format!("no conversations of number {number}; check the number"))
        }
        _ => None,
    }
}

/// Like [`export`], over the API of a node. Messages have the same format as in the timeline.
async fn export_from_node(args: &ExportArgs) -> Result<Exported, Exit> {
    let api = NodeApi::of_source(&args.from)?;
    let own = api.ask(Method::GET, "account/", None).await?;
    if let Some(number) = &args.number {
        api.ask(Method::GET, &format!("phone-numbers/{}/", number.as_str()), None).await?;
    }
    // The account of the key has all conversations that the node lists, those of subaccounts too.
    let account = args.account.as_deref().filter(|account| own["account"] != *account);
    let mut found = Exported::default();
    for conversation in api.all("conversations/", None).await? {
        if account.is_some_and(|account| conversation["account"] != account) {
            continue;
        }
        let number = args.number.as_ref();
        if !found.count(number.is_none_or(|number| conversation["number"] == number.as_str())) {
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

/// Prints the selected conversations.
async fn export(at: &Database, args: &ExportArgs) -> Result<Exported, StoreError> {
    let archive = Archive::open(at).await?;
    let (mut after, mut found) = (Uuid::nil(), Exported::default());
    loop {
        let page = archive.conversations(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.pair.conversation;
        for conversation in page.iter().filter(|c| is_of_account(c, args)) {
            let number = args.number.as_ref();
            if found.count(number.is_none_or(|number| *number == conversation.pair.number)) {
                print_conversation(&archive, conversation).await?;
            }
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
