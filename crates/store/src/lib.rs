//! Persistent storage in SQLite or PostgreSQL: call records, event logs, conversations, settings
//! and the callback outbox.
//!
//! [`Store`] gives out one handle per kind of data, such as [`Calls`] or [`Outbox`]. Each query is
//! a named method that returns `model` types. Every method that an API can reach takes the tenant
//! as a typed argument, so that no account sees another one's data.
//!
//! One thread, the `writer`, does all writing, in batches from a bounded `queue`. A call never
//! waits for the disk. While the database rejects writes, they go to a `journal` file next to it.
//! Reads use connections of their own. This crate holds no live calls; these are in
//! `call::registry`.

// Untrusted input must not panic the process. Each exception is an `allow` with a reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod archive;
mod backup;
mod database;
mod earlier_runs;
mod error;
mod event_log;
mod files;
mod migrate;
mod node_lock;
mod options;
mod owner;
mod page;
mod password;
mod pending_log;
mod queue;
mod rows;
mod scope;
mod seal;
mod sealed_values;
mod server;
mod shared;
mod sql;
mod store;
mod tables;
mod wake;
mod write;
mod writer;

pub use self::archive::Archive;
pub use self::backup::{Backup, BackupError, backup};
pub use self::database::{Database, SQLITE_FILE_NAME};
pub use self::error::{CreatorVersion, StoreError};
pub use self::event_log::EventLog;
pub use self::migrate::check_schema;
pub use self::node_lock::NodeLock;
pub use self::options::{FaultInjector, StoreOptions, StorePart};
pub use self::owner::{node_of_owner, owner_name, run_of_owner};
pub use self::password::{PasswordError, Passwords};
pub use self::pending_log::Birth;
pub use self::rows::call::{
    CallEnd, CallFilter, CallRecord, CallSort, CallStart, Compare, Conclusion, ConclusionResult,
    Farewell, FarewellDue, Orphan, PlacedCall,
};
pub use self::rows::callback::{
    Callback, CallbackRow, CallbackState, CallbackView, DeliveryOutcome, NewCallback, NumberEvent,
    QueuedCallback, Settlement,
};
pub use self::rows::conversation::{
    Assignee, AssigneeFilter, Conversation, ConversationChange, ConversationFilter, Insights,
    LABELS_MAX, LabelChange, LastMessage, Pair, RoutingState, UserName,
};
pub use self::rows::endpoint::{Endpoint, EndpointChange};
pub use self::rows::event_key::{KeyKind, SeenKey};
pub use self::rows::message::{
    AfterReply, AnsweredMessage, EnqueueResult, EventDraft, EventForm, InboxResult,
    InterruptedMessage, Message, NOTE, NewMessage, OutgoingMessages, StatusUpdate, TimelineEntry,
    WEBHOOK,
};
pub use self::rows::number::{NumberOwners, NumberTransfer, RoutingChange};
pub use self::rows::permission::{
    ChangedPermission, Engagement, PermissionChange, PermissionReply, PermissionRow,
    PermissionWrite,
};
pub use self::rows::recording::{
    CopyWrite, Recording, RecordingConclusion, RecordingEnd, RecordingFilter, RecordingStart,
    RecordingWork, RoomFilter, TranscriptWrite, TranscriptionJob,
};
pub use self::rows::setting::{Setting, SettingKind, SettingWrite};
pub use self::rows::user::User;
pub use self::rows::webhook::{WebhookRow, WebhookWrite};
pub use self::scope::Scope;
pub use self::sealed_values::SealedValues;
pub use self::server::{Server, Trials, wait_until_reachable};
pub use self::store::{Store, is_open};
pub use self::tables::agents::Agents;
pub use self::tables::agents::{
    AGENTS_MAX, Agent, AgentChannel, AgentKind, AgentSecrets, AgentSpec,
};
pub use self::tables::audit::Audit;
pub use self::tables::audit::{AuditFilter, AuditRow};
pub use self::tables::call_lists::CallSpan;
pub use self::tables::calls::Calls;
pub use self::tables::certificates::Certificates;
pub use self::tables::certificates::{CertificateKind, CertificateRow};
pub use self::tables::conversation_lists::ConversationPage;
pub use self::tables::conversations::Conversations;
pub use self::tables::deliveries::{DeliveryView, Receiver};
pub use self::tables::dialogues::CallLine;
pub use self::tables::dialogues::Dialogues;
pub use self::tables::endpoints::Endpoints;
pub use self::tables::erasures::Erasures;
pub use self::tables::erasures::{CallRecordings, Erasure, ErasureCutoff};
pub use self::tables::event_keys::EventKeys;
pub use self::tables::failed_requests::{
    FailedRequest, FailedRequestFilter, FailedRequestGroup, FailedRequests,
};
pub use self::tables::files_to_remove::{FileToRemove, FilesToRemove};
pub use self::tables::fleet::{
    ClaimKey, ClaimOutcome, FleetSession, ForgetOutcome, OrphanClaim, RunInfo, key_fingerprint,
};
pub use self::tables::messages::{MessageCount, Messages};
pub use self::tables::notifications::Notifications;
pub use self::tables::notifications::{NoticeFilter, NoticeRow};
pub use self::tables::numbers::Numbers;
pub use self::tables::outbox::Outbox;
pub use self::tables::outbox::{Callbacks, Rearm, rearm};
pub use self::tables::people::ApiKeys;
pub use self::tables::people::People;
pub use self::tables::people::SAME_NAME_MAX;
pub use self::tables::people::SavedFilters;
pub use self::tables::people::Sessions;
pub use self::tables::people::{ApiKeyRow, Invitation, Session, UserChange, UserLink};
pub use self::tables::permissions::{EngageResult, Permissions};
pub use self::tables::presets::{Preset, PresetKind, Presets};
pub use self::tables::recordings::Recordings;
pub use self::tables::request_counts::{RequestCount, RequestCounts, RequestTarget};
pub use self::tables::responses::Responses;
pub use self::tables::responses::StoredResponse;
pub use self::tables::room_hosts::{RoomHost, RoomRef};
pub use self::tables::rooms::Rooms;
pub use self::tables::rooms::{
    EndedRoom, LEFT_MAX, LeftMember, OpenMember, OpenRoom, OrphanRoom, RoomMember,
};
pub use self::tables::settings::Settings;
pub use self::tables::turns::PendingReply;
pub use self::tables::turns::Turns;
pub use self::tables::uploads::UploadRow;
pub use self::tables::uploads::Uploads;
pub use self::tables::waiting_calls::{AdoptedCall, NewWaitingCall, WaitingCalls};
pub use self::tables::webhooks::WebhookUse;
pub use self::tables::webhooks::Webhooks;
pub use self::writer::journal::journal_entries;

#[cfg(test)]
mod early_tests;
#[cfg(test)]
mod erasure_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod fleet_tests;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests"
)]
pub mod sample;
#[cfg(test)]
mod sealed_tests;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod two_writers_tests;
