//! The sources of `offhook calls`: a store, or the API of a node.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Exit;
use super::super::node_api::NodeApi;
use super::super::target::SourceArgs;
use engine::call::waterfall::{self, Party};
use model::{CallUuid, Direction, last_four};
use store::Database;
use store::{Archive, CallRecord, StoreError, node_of_owner};

/// A call in `calls list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallRow {
    pub(super) call_uuid: CallUuid,
    pub(super) direction: String,
    /// The caller, like `to`. Of a person's phone number, it contains only the last four digits.
    pub(super) from: String,
    pub(super) to: String,
    /// The start in RFC 3339 format.
    pub(super) started_at: String,
    /// The end. `None` if the call is live or its node crashed.
    pub(super) ended_at: Option<String>,
    pub(super) duration_seconds: Option<u64>,
    /// Time from the answer to the end.
    pub(super) bill_seconds: Option<u64>,
    pub(super) cause: Option<String>,
}

/// A UUID, or its first characters.
#[derive(Clone, Debug)]
pub struct CallPrefix {
    text: String,
    range: RangeInclusive<CallUuid>,
}

impl CallPrefix {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let range = CallUuid::with_prefix(text)
            .ok_or("a call is a UUID, or at least its first 4 characters")?;
        Ok(Self { text: text.to_owned(), range })
    }

    /// Returns the call with a UUID that starts with this prefix. Returns an error for the user if
    /// there is no such call, or more than one.
    fn only_of<'c>(&self, calls: impl Iterator<Item = &'c CallUuid>) -> Result<CallUuid, String> {
        let mut found = calls.filter(|call| self.range.contains(call));
        match (found.next(), found.next()) {
            (Some(call), None) => Ok(*call),
            (Some(one), Some(other)) => {
                Err(format!("{} may be {one} or {other}; give more characters", self.text))
            }
            (None, _) => Err(format!("no recent call has a UUID that starts with {}", self.text)),
        }
    }
}

/// The node of a call.
pub(super) struct Whereabouts {
    pub(super) node: String,
    pub(super) has_ended: bool,
}

/// An open source.
pub(super) enum Source {
    Store { at: Database, archive: Archive },
    Node(NodeApi),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { at, .. } => write!(f, "{at}"),
            Self::Node(node) => f.write_str(node.base()),
        }
    }
}

const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of latest calls that are searched for a prefix.
const PREFIX_CALLS: u32 = 1_000;
/// Maximum size of an event log, including callbacks after the call.
const LOG_BYTES_MAX: usize = 16 << 20;

impl Source {
    pub(super) async fn open(at: &SourceArgs) -> Result<Self, Exit> {
        if let Some(node) = &at.node {
            return NodeApi::at(node, at.api_key.clone()).map(Self::Node);
        }
        let store = at.store.database()?;
        let archive = Archive::open(&store).await.map_err(|e| match e {
            StoreError::Open { .. } => Exit::failed(format_args!(
                "{e}\nname the directory with --data-dir, the configuration with --config, or a node with --node"
            )),
            other => store_error(other),
        })?;
        Ok(Self::Store { at: store, archive })
    }

    /// The latest calls, newest first.
    pub(super) async fn latest(&self, limit: u32) -> Result<Vec<CallRow>, Exit> {
        match self {
            Self::Store { archive, .. } => {
                let calls = archive.latest(limit).await.map_err(store_error)?;
                Ok(calls.iter().map(CallRow::of).collect())
            }
            Self::Node(node) => {
                let max = usize::try_from(limit).unwrap_or(usize::MAX);
                let calls = node.first(max, "calls/", None).await?;
                let calls = serde_json::from_value::<Vec<CallRow>>(calls.into()).map_err(|e| {
                    Exit::failed(format_args!("unreadable list of calls from {}: {e}", node.base()))
                })?;
                Ok(calls.into_iter().map(CallRow::masked).collect())
            }
        }
    }

    /// The UUID of the call with this prefix.
    pub(super) async fn find(&self, call: &CallPrefix) -> Result<CallUuid, Exit> {
        if call.range.start() == call.range.end() {
            return Ok(*call.range.start());
        }
        let latest = self.latest(PREFIX_CALLS).await?;
        let found = call.only_of(latest.iter().map(|row| &row.call_uuid));
        found.map_err(|why| {
            Exit::failed(format_args!("{why}; list the calls with `offhook calls list`"))
        })
    }

    /// The node of a call.
    pub(super) async fn whereabouts(&self, call: CallUuid) -> Result<Whereabouts, Exit> {
        let unknown = || self.unknown(call);
        match self {
            Self::Store { archive, .. } => {
                let found = archive.owner(call).await.map_err(store_error)?;
                let (owner, has_ended) = found.ok_or_else(unknown)?;
                Ok(Whereabouts { node: node_of_owner(&owner).to_owned(), has_ended })
            }
            Self::Node(node) => {
                #[derive(Deserialize)]
                struct Call {
                    node: String,
                    status: String,
                }
                let base = node.base();
                let body = node.get(&format!("calls/{call}/"), READ_TIMEOUT, LOG_BYTES_MAX).await?;
                let found: Call = serde_json::from_slice(&body.ok_or_else(unknown)?)
                    .map_err(|e| Exit::failed(format_args!("unreadable call from {base}: {e}")))?;
                Ok(Whereabouts { node: found.node, has_ended: found.status == "ended" })
            }
        }
    }

    fn unknown(&self, call: CallUuid) -> Exit {
        Exit::failed(format_args!(
            "no call {call} in {self}; list the calls with `offhook calls list`"
        ))
    }

    /// The event log of a call.
    pub(super) async fn log(&self, call: CallUuid) -> Result<Vec<u8>, Exit> {
        let unknown = || self.unknown(call);
        match self {
            Self::Store { archive, .. } => {
                let lines = archive.events(call).await.map_err(store_error)?.ok_or_else(unknown)?;
                Ok(lines.iter().flat_map(|line| line.bytes().chain([b'\n'])).collect())
            }
            Self::Node(node) => {
                let body =
                    node.get(&format!("calls/{call}/events"), READ_TIMEOUT, LOG_BYTES_MAX).await?;
                body.map(|body| body.to_vec()).ok_or_else(unknown)
            }
        }
    }
}

fn store_error(error: StoreError) -> Exit {
    Exit::failed(format_args!("{error}"))
}

impl CallRow {
    fn of(record: &CallRecord) -> Self {
        let (start, end) = (&record.start, record.end.as_ref());
        Self {
            call_uuid: start.call,
            direction: start.direction.as_str().to_owned(),
            from: start.from.clone(),
            to: start.to.clone(),
            started_at: start.started.rfc3339(),
            ended_at: end.map(|e| e.ended.rfc3339()),
            duration_seconds: end.map(|e| e.duration_secs),
            bill_seconds: end.map(|e| e.bill_secs),
            cause: end.map(|e| e.cause.clone()),
        }
        .masked()
    }

    /// Shortens the person's phone number to an ellipsis and its last digits. The business's own
    /// number and the names of endpoints remain.
    fn masked(self) -> Self {
        let direction = match self.direction == Direction::Outbound.as_str() {
            true => Direction::Outbound,
            false => Direction::Inbound,
        };
        let cut = |text: String| format!("…{}", last_four(&text));
        match waterfall::person(direction, &self.from, &self.to) {
            Some(Party::From) => Self { from: cut(self.from), ..self },
            Some(Party::To) => Self { to: cut(self.to), ..self },
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CallPrefix, CallRow};

    fn masked(direction: &str, from: &str, to: &str) -> (String, String) {
        let row = CallRow {
            call_uuid: "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".parse().expect("a UUID"),
            direction: direction.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            started_at: String::new(),
            ended_at: None,
            duration_seconds: None,
            bill_seconds: None,
            cause: None,
        };
        let row = row.masked();
        (row.from, row.to)
    }

    #[test]
    fn masks_people_and_not_the_business() {
        for (direction, from, to, expected) in [
            ("inbound", "919812345678", "918035737458", ("…5678", "918035737458")),
            ("outbound", "918035737458", "919812345678", ("918035737458", "…5678")),
            ("outbound", "919812345678", "sip:asha@127.0.0.1", ("…5678", "sip:asha@127.0.0.1")),
            ("inbound", "sip:asha@127.0.0.1", "919812345678", ("sip:asha@127.0.0.1", "…5678")),
            // After an erasure.
            ("inbound", "", "918035737458", ("", "918035737458")),
            ("outbound", "918035737458", "", ("918035737458", "")),
        ] {
            let (from, to) = masked(direction, from, to);
            assert_eq!((from.as_str(), to.as_str()), expected);
        }
    }

    #[test]
    fn a_unique_prefix_names_a_call() {
        let calls =
            ["3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", "3f0c9999-6a1e-4f0e-9a2b-5d7f3f0a9b11"]
                .map(|text| text.parse().expect("a UUID"));
        let find = |text: &str| CallPrefix::parse(text).and_then(|p| p.only_of(calls.iter()));
        assert_eq!(find("3F0C2F1A-…"), Ok(calls[0]));
        assert_eq!(find("3f0c9"), Ok(calls[1]));
        assert!(find("3f0c").is_err_and(|why| why.contains("give more characters")));
        assert!(find("ffff").is_err_and(|why| why.contains("no recent call")));
        assert!(find("x").is_err() && find("3f0").is_err());
    }
}
