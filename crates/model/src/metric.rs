//! Names of metrics, and the label values that no type's `as_str` provides
//! (docs/reference/metrics.md).
//!
//! Label values come from closed lists or are configured business numbers. A user's number, the id
//! of a call or any other text from outside is never a label value, so that the number of time
//! series stays bounded (docs/reference/reliability.md#r23).

/// Gauge `{direction}`: calls between admission and their end.
pub const CALLS_ACTIVE: &str = "offhook_calls_active";
/// Counter `{direction,outcome}`: ended calls, with an outcome of [`outcome`].
pub const CALLS_TOTAL: &str = "offhook_calls_total";
/// Counter: calls that two nodes of a fleet began, and that continue at the other one.
pub const CALLS_WITHDRAWN_TOTAL: &str = "offhook_calls_withdrawn_total";
/// Counter `{direction,result}`: admission decisions, with a result of [`admission`].
pub const ADMISSION_TOTAL: &str = "offhook_admission_total";
/// Gauge `{number}`: slots in use of each configured business number.
pub const NUMBER_SLOTS_IN_USE: &str = "offhook_number_slots_in_use";
/// Histogram, seconds: from a received `connect` webhook to the `accept` sent to Graph.
pub const SETUP_SECONDS: &str = "offhook_setup_seconds";
/// Histogram `{kind,outcome}`, seconds: one fetch of a customer's URL, including retries.
pub const ANSWER_FETCH_SECONDS: &str = "offhook_answer_fetch_seconds";
/// Histogram `{action,status}`, seconds: one HTTP request to Graph. `status` is the HTTP status,
/// `timeout` or `error`.
pub const GRAPH_REQUEST_SECONDS: &str = "offhook_graph_request_seconds";
/// Counter `{kind,outcome}`: attempts to deliver a callback, with an outcome of [`delivery`].
pub const CALLBACK_TOTAL: &str = "offhook_callback_total";
/// Counter `{kind,result}`: items of Meta's webhooks (docs/reference/meta.md#results).
pub const WEBHOOK_EVENTS_TOTAL: &str = "offhook_webhook_events_total";
/// Counter `{direction}`: RTP packets, with a direction of [`packets`].
pub const MEDIA_PACKETS_TOTAL: &str = "offhook_media_packets_total";
/// Counter: media ticks that started more than 20 ms late.
pub const MEDIA_LATE_TICKS_TOTAL: &str = "offhook_media_late_ticks_total";
/// Counter `{element,outcome}`: executed XML elements, with an outcome of [`instruction`].
pub const INSTRUCTIONS_TOTAL: &str = "offhook_instructions_total";
/// Counter: failed store statements, and event log lines that the store refused.
pub const STORE_ERRORS_TOTAL: &str = "offhook_store_errors_total";
/// Gauge `{version,revision}`, always 1.
pub const BUILD_INFO: &str = "offhook_build_info";
/// Gauge: open connections of the public listener.
pub const HTTP_CONNECTIONS: &str = "offhook_http_connections";
/// Counter `{reason}`: connections closed by the listener, with a reason of
/// [`CONNECTION_CLOSE_REASONS`].
pub const HTTP_CONNECTIONS_CLOSED_TOTAL: &str = "offhook_http_connections_closed_total";
/// Gauge: when the first certificate of the HTTPS listener expires, in seconds since the Unix epoch.
/// 0 without a certificate.
pub const TLS_CERTIFICATE_EXPIRY: &str = "offhook_tls_certificate_expiry_timestamp_seconds";
/// Counter `{outcome}`: certificate orders, with an outcome from [`certificate_order`].
pub const TLS_CERTIFICATE_ORDERS_TOTAL: &str = "offhook_tls_certificate_orders_total";
/// Counter `{resource}`: claims and attempts of unauthenticated clients that were refused, for a
/// resource of [`limited`].
pub const LIMITED_TOTAL: &str = "offhook_limited_total";
/// Counter: event log lines dropped because the queue was full.
pub const EVENT_LOG_REFUSED_TOTAL: &str = "offhook_event_log_refused_total";
/// Gauge: 1 while the node drains. [`CALLS_ACTIVE`] counts the remaining calls.
pub const DRAINING: &str = "offhook_draining";
/// Gauge: how much of its capacity the node uses, from 0 to 1.
pub const NODE_LOAD: &str = "offhook_node_load";
/// Gauge: 1 while the database of the node's fleet does not answer. 0 if the node is alone.
pub const CLUSTER_DEGRADED: &str = "offhook_cluster_degraded";
/// Gauge: 1 while the database may grant units to the runs of the fleet.
pub const TERM_OPEN: &str = "offhook_term_open";
/// Gauge `{state}`: processes of the fleet, as this node sees them, in a state of [`NODE_STATES`].
pub const NODES: &str = "offhook_nodes";
/// Gauge `{kind,what}`: units of this node, of a kind and a use of [`mod@unit`].
pub const UNITS: &str = "offhook_units";
/// Histogram, seconds: the time for which a call waited for units that other nodes held.
pub const UNIT_WAITS_SECONDS: &str = "offhook_unit_waits_seconds";
/// Histogram `{outcome}`, seconds: one beat, with an outcome of [`beat`].
pub const BEAT_SECONDS: &str = "offhook_beat_seconds";
/// Gauge, seconds: time since the last answered beat was sent.
pub const BEAT_AGE_SECONDS: &str = "offhook_beat_age_seconds";
/// Histogram `{outcome}`, seconds: the claim of one inbound call, with an outcome of [`claim`].
pub const CLAIM_SECONDS: &str = "offhook_claim_seconds";
/// Counter: how often the database may have forgotten units.
pub const TERMS_TOTAL: &str = "offhook_terms_total";
/// Counter `{kind,outcome}`: requests to other nodes, with a kind and an outcome of [`forward`].
pub const FORWARDS_TOTAL: &str = "offhook_forwards_total";
/// Histogram `{kind}`, seconds: one request to another node.
pub const PEER_SECONDS: &str = "offhook_peer_seconds";
/// Counter `{what}`: calls of dead processes that this node has ended, and rows that it has taken
/// over.
pub const ADOPTED_TOTAL: &str = "offhook_adopted_total";
/// Counter: batches of writes that the database had lost and that this node has written again.
pub const REPLAYED_TOTAL: &str = "offhook_replayed_total";
/// Gauge, seconds: the time for which settings changed by another node have not taken effect here.
pub const BOOK_LAG_SECONDS: &str = "offhook_book_lag_seconds";
/// Counter `{why}`: calls refused as `overloaded`, with a reason of [`STRAINS`].
pub const OVERLOADED_TOTAL: &str = "offhook_overloaded_total";
/// Counter `{queue}`: items refused by a full queue of [`queue`].
pub const QUEUE_REFUSED_TOTAL: &str = "offhook_queue_refused_total";
/// Gauge: bytes in the journal, which takes writes while the store is unavailable.
pub const STORE_JOURNAL_BYTES: &str = "offhook_store_journal_bytes";
/// Counter: log lines dropped by the rate limit of each kind of line.
pub const LOG_LINES_DROPPED_TOTAL: &str = "offhook_log_lines_dropped_total";

/// Gauge: audio streams with an open WebSocket.
pub const STREAMS_ACTIVE: &str = "offhook_streams_active";
/// Counter `{outcome}`: ended audio streams, with an outcome of [`STREAM_OUTCOMES`].
pub const STREAMS_TOTAL: &str = "offhook_streams_total";
/// Counter: audio messages dropped because a stream's server read too slowly.
pub const STREAM_MESSAGES_DROPPED_TOTAL: &str = "offhook_stream_messages_dropped_total";

/// Counter `{outcome}`: speech recognitions, with an outcome of [`recognition`].
pub const RECOGNITIONS_TOTAL: &str = "offhook_recognitions_total";
/// Counter `{outcome}`: attempts to transcribe a recording, with an outcome of [`transcript`].
pub const TRANSCRIPTS_TOTAL: &str = "offhook_transcripts_total";
/// Counter `{outcome}`: attempts to copy a recording to other storage, with an outcome of
/// [`recording_copy`].
pub const RECORDING_COPIES_TOTAL: &str = "offhook_recording_copies_total";
/// Counter `{why}`: recordings that did not begin or ended early for want of disk space, with a
/// reason of [`disk_refusal`].
pub const RECORDINGS_REFUSED_TOTAL: &str = "offhook_recordings_refused_total";
/// Counter `{why}`: files from and to users that were not kept for want of disk space, with a reason
/// of [`disk_refusal`].
pub const USER_FILES_REFUSED_TOTAL: &str = "offhook_user_files_refused_total";
pub const EVENT_LOGS_CUT_TOTAL: &str = "offhook_event_logs_cut_total";
pub const MESSAGES_REFUSED_TOTAL: &str = "offhook_messages_refused_total";
/// Counter `{why}`: changes, notes and short messages that were not stored for want of disk space,
/// with a reason of [`disk_refusal`].
pub const CHANGES_REFUSED_TOTAL: &str = "offhook_changes_refused_total";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Histogram `{direction}`: share of a call's packets that were lost.
pub const MEDIA_LOSS_RATIO: &str = "offhook_media_loss_ratio";
/// Histogram `{direction}`, seconds: interarrival jitter at the end of a call.
pub const MEDIA_JITTER_SECONDS: &str = "offhook_media_jitter_seconds";
/// Histogram `{direction}`: mean opinion score of a call, estimated with the E-model.
pub const MEDIA_MOS: &str = "offhook_media_mos";
/// Histogram, seconds: round-trip time of a call's media, from the peer's reports.
pub const MEDIA_ROUND_TRIP_SECONDS: &str = "offhook_media_round_trip_seconds";
/// Counter `{what}`: calls without audio 3 s and 8 s after `accept`, with a value of [`missing`].
pub const MEDIA_MISSING_TOTAL: &str = "offhook_media_missing_total";
/// Counter: RTP, RTCP and STUN packets dropped because a peer sends far more than a call needs.
pub const MEDIA_EXCESS_PACKETS_TOTAL: &str = "offhook_media_excess_packets_total";

/// Every metric with its type and its help text.
pub const ALL: &[(&str, Kind, &str)] = &[
    (CALLS_ACTIVE, Kind::Gauge, "Calls between admission and their end."),
    (CALLS_TOTAL, Kind::Counter, "Ended calls, by outcome."),
    (
        CALLS_WITHDRAWN_TOTAL,
        Kind::Counter,
        "Calls that two nodes of a fleet began, and that continue at the other one.",
    ),
    (ADMISSION_TOTAL, Kind::Counter, "Admission decisions, by result."),
    (NUMBER_SLOTS_IN_USE, Kind::Gauge, "Slots in use of a business number."),
    (SETUP_SECONDS, Kind::Histogram, "Time from the connect webhook to the Graph accept."),
    (
        ANSWER_FETCH_SECONDS,
        Kind::Histogram,
        "Fetches of documents and audio files from customers' URLs.",
    ),
    (GRAPH_REQUEST_SECONDS, Kind::Histogram, "HTTP requests to Meta's Graph API."),
    (CALLBACK_TOTAL, Kind::Counter, "Attempts to deliver callbacks, by outcome."),
    (WEBHOOK_EVENTS_TOTAL, Kind::Counter, "Items of Meta's webhooks, by result."),
    (MEDIA_PACKETS_TOTAL, Kind::Counter, "RTP packets, by direction."),
    (MEDIA_LATE_TICKS_TOTAL, Kind::Counter, "Media ticks that started more than 20 ms late."),
    (MEDIA_LOSS_RATIO, Kind::Histogram, "Share of a call's packets that were lost, by direction."),
    (
        MEDIA_JITTER_SECONDS,
        Kind::Histogram,
        "Interarrival jitter at the end of a call, by direction.",
    ),
    (MEDIA_MOS, Kind::Histogram, "Estimated mean opinion score of a call, by direction."),
    (MEDIA_ROUND_TRIP_SECONDS, Kind::Histogram, "Round-trip time of a call's media."),
    (
        MEDIA_MISSING_TOTAL,
        Kind::Counter,
        "Calls without audio 3 s and 8 s after accept, or with a wrong certificate, by what is missing.",
    ),
    (
        MEDIA_EXCESS_PACKETS_TOTAL,
        Kind::Counter,
        "RTP, RTCP and STUN packets dropped because a peer sends far more than a call needs.",
    ),
    (INSTRUCTIONS_TOTAL, Kind::Counter, "Executed XML elements, by outcome."),
    (STORE_ERRORS_TOTAL, Kind::Counter, "Failed store statements and refused writes."),
    (BUILD_INFO, Kind::Gauge, "Version and revision of the binary; always 1."),
    (HTTP_CONNECTIONS, Kind::Gauge, "Open connections of the public listener."),
    (
        HTTP_CONNECTIONS_CLOSED_TOTAL,
        Kind::Counter,
        "Connections closed by the public listener, by reason.",
    ),
    (
        TLS_CERTIFICATE_EXPIRY,
        Kind::Gauge,
        "When the first certificate of the HTTPS listener expires; 0 without a certificate.",
    ),
    (
        TLS_CERTIFICATE_ORDERS_TOTAL,
        Kind::Counter,
        "Orders of certificates at a certificate authority, by outcome.",
    ),
    (
        LIMITED_TOTAL,
        Kind::Counter,
        "Claims and attempts of unauthenticated clients that were refused, by resource.",
    ),
    (EVENT_LOG_REFUSED_TOTAL, Kind::Counter, "Event log lines dropped because the queue was full."),
    (DRAINING, Kind::Gauge, "1 while the node drains."),
    (NODE_LOAD, Kind::Gauge, "Share of its capacity that the node uses, from 0 to 1."),
    (
        CLUSTER_DEGRADED,
        Kind::Gauge,
        "1 while the database of the fleet does not answer; 0 if the node is alone.",
    ),
    (TERM_OPEN, Kind::Gauge, "1 while the fleet gives out units."),
    (NODES, Kind::Gauge, "Processes of the fleet, by state."),
    (UNITS, Kind::Gauge, "Slots and permits of this node in its fleet, by use."),
    (UNIT_WAITS_SECONDS, Kind::Histogram, "Waits of calls for units that other nodes held."),
    (BEAT_SECONDS, Kind::Histogram, "Beats of this node, by outcome."),
    (BEAT_AGE_SECONDS, Kind::Gauge, "Time since the last answered beat was sent."),
    (
        CLAIM_SECONDS,
        Kind::Histogram,
        "Claims of inbound calls in the fleet's database, by outcome.",
    ),
    (TERMS_TOTAL, Kind::Counter, "Times that the fleet's database may have forgotten units."),
    (FORWARDS_TOTAL, Kind::Counter, "Requests to other nodes, by kind and outcome."),
    (PEER_SECONDS, Kind::Histogram, "Requests to other nodes, by kind."),
    (ADOPTED_TOTAL, Kind::Counter, "Calls ended and rows taken over from dead processes."),
    (REPLAYED_TOTAL, Kind::Counter, "Batches written again because the database had lost them."),
    (
        BOOK_LAG_SECONDS,
        Kind::Gauge,
        "Time for which settings that another node has changed are not in force here.",
    ),
    (OVERLOADED_TOTAL, Kind::Counter, "Calls refused as overloaded, by the overloaded resource."),
    (QUEUE_REFUSED_TOTAL, Kind::Counter, "Items refused by full queues, by queue."),
    (STORE_JOURNAL_BYTES, Kind::Gauge, "Bytes in the journal waiting for the store."),
    (LOG_LINES_DROPPED_TOTAL, Kind::Counter, "Log lines dropped by the rate limit."),
    (STREAMS_ACTIVE, Kind::Gauge, "Audio streams with an open WebSocket."),
    (STREAMS_TOTAL, Kind::Counter, "Ended audio streams, by outcome."),
    (RECOGNITIONS_TOTAL, Kind::Counter, "Speech recognitions, by outcome."),
    (TRANSCRIPTS_TOTAL, Kind::Counter, "Attempts to transcribe recordings, by outcome."),
    (
        RECORDING_COPIES_TOTAL,
        Kind::Counter,
        "Attempts to copy recordings to other storage, by outcome.",
    ),
    (
        RECORDINGS_REFUSED_TOTAL,
        Kind::Counter,
        "Recordings that did not begin or ended early for want of disk space, by reason.",
    ),
    (
        USER_FILES_REFUSED_TOTAL,
        Kind::Counter,
        "Files from and to users that were not kept for want of disk space, by reason.",
    ),
    (
        EVENT_LOGS_CUT_TOTAL,
        Kind::Counter,
        "Event logs of which the rest was not stored for want of disk space, by reason.",
    ),
    (
        MESSAGES_REFUSED_TOTAL,
        Kind::Counter,
        "Long messages that were not sent for want of disk space, by reason.",
    ),
    (
        CHANGES_REFUSED_TOTAL,
        Kind::Counter,
        "Changes, notes and short messages that were not stored for want of disk space, by reason.",
    ),
    (
        STREAM_MESSAGES_DROPPED_TOTAL,
        Kind::Counter,
        "Audio messages dropped because a stream's server read too slowly.",
    ),
];

/// Values of `outcome` of [`CALLS_TOTAL`].
pub mod outcome {
    pub const COMPLETED: &str = "completed";
    pub const BUSY: &str = "busy";
    pub const NO_ANSWER: &str = "no_answer";
    pub const REJECTED: &str = "rejected";
    pub const CANCELLED: &str = "cancelled";
    pub const TIMEOUT: &str = "timeout";
    pub const FAILED: &str = "failed";
    pub const ALL: &[&str] = &[COMPLETED, BUSY, NO_ANSWER, REJECTED, CANCELLED, TIMEOUT, FAILED];
}

/// Values of `result` of [`ADMISSION_TOTAL`].
pub mod admission {
    pub const ADMITTED: &str = "admitted";
    pub const NUMBER_FULL: &str = "number_full";
    pub const CPS_EXCEEDED: &str = "cps_exceeded";
    pub const UNKNOWN_NUMBER: &str = "unknown_number";
    pub const CALLING_DISABLED: &str = "calling_disabled";
    pub const NO_PERMISSION: &str = "no_permission";
    pub const GEO_BLOCKED: &str = "geo_blocked";
    pub const USER_BUSY: &str = "user_busy";
    pub const BAD_OFFER: &str = "bad_offer";
    pub const OVERLOADED: &str = "overloaded";
    pub const DRAINING: &str = "draining";
    pub const DUPLICATE: &str = "duplicate";
    pub const ALL: &[&str] = &[
        ADMITTED,
        NUMBER_FULL,
        CPS_EXCEEDED,
        UNKNOWN_NUMBER,
        CALLING_DISABLED,
        NO_PERMISSION,
        GEO_BLOCKED,
        USER_BUSY,
        BAD_OFFER,
        OVERLOADED,
        DRAINING,
        DUPLICATE,
    ];
}

/// Values of `why` of [`OVERLOADED_TOTAL`], the names of `admission::Strain`.
pub const STRAINS: &[&str] = &["calls", "set_ups", "lag", "memory", "store", "media", "graph"];

/// Values of `outcome` of [`STREAMS_TOTAL`]: ended on request, never opened, connection lost.
pub const STREAM_OUTCOMES: &[&str] = &["ended", "failed", "lost"];

/// Values of `outcome` of [`RECOGNITIONS_TOTAL`].
pub mod recognition {
    pub const WORDS: &str = "words";
    /// The transcript is empty.
    pub const NOTHING: &str = "nothing";
    pub const FAILED: &str = "failed";
    /// Too many recognitions were running.
    pub const BUSY: &str = "busy";

    pub const ALL: &[&str] = &[WORDS, NOTHING, FAILED, BUSY];
}

/// Values of `outcome` of [`TRANSCRIPTS_TOTAL`].
pub mod transcript {
    pub const DONE: &str = "done";
    pub const RETRY: &str = "retry";
    /// The transcription failed, and no further attempt is made.
    pub const FAILED: &str = "failed";

    pub const ALL: &[&str] = &[DONE, RETRY, FAILED];
}

/// Values of `outcome` of [`RECORDING_COPIES_TOTAL`].
pub mod recording_copy {
    pub const STORED: &str = "stored";
    pub const RETRY: &str = "retry";
    /// The file no longer exists.
    pub const LOST: &str = "lost";

    pub const ALL: &[&str] = &[STORED, RETRY, LOST];
}

/// Values of `why` of [`RECORDINGS_REFUSED_TOTAL`], [`USER_FILES_REFUSED_TOTAL`],
/// [`EVENT_LOGS_CUT_TOTAL`], [`MESSAGES_REFUSED_TOTAL`] and [`CHANGES_REFUSED_TOTAL`].
pub mod disk_refusal {
    /// Less than the reserve of the disk is free.
    pub const DISK_FULL: &str = "disk_full";
    /// The recordings, users' files and event logs of the main account have used their share of the
    /// disk.
    pub const SHARE_USED: &str = "share_used";

    pub const ALL: &[&str] = &[DISK_FULL, SHARE_USED];
}

/// Values of `outcome` of [`TLS_CERTIFICATE_ORDERS_TOTAL`].
pub mod certificate_order {
    pub const ISSUED: &str = "issued";
    /// The authority refused the order or could not validate a name.
    pub const REFUSED: &str = "refused";
    pub const RATE_LIMITED: &str = "rate_limited";
    /// The authority could not be reached, or returned a server error.
    pub const FAILED: &str = "failed";

    pub const ALL: &[&str] = &[ISSUED, REFUSED, RATE_LIMITED, FAILED];
}

/// Values of `reason` of [`HTTP_CONNECTIONS_CLOSED_TOTAL`].
pub const CONNECTION_CLOSE_REASONS: &[&str] = &["full", "slow", "idle", "not_proxy", "handshake"];

/// Values of `resource` of [`LIMITED_TOTAL`].
pub mod limited {
    /// Connections closed to make room.
    pub const CONNECTIONS: &str = "connections";
    /// Waits before a request was read, because its network had sent too many without credentials.
    pub const REQUESTS: &str = "requests";
    /// Requests aborted while their body arrived, to make room for others.
    pub const BODIES: &str = "bodies";
    /// WebSockets of unregistered phones closed to make room.
    pub const SOCKETS: &str = "sockets";
    /// Downloads of files ended to make room.
    pub const DOWNLOADS: &str = "downloads";
    /// Large responses to authenticated clients ended to make room.
    pub const RESPONSES: &str = "responses";
    /// Password sign-ins refused because of earlier failures.
    pub const SIGN_INS: &str = "sign_ins";
    /// Wrong API credentials answered with 429.
    pub const CREDENTIALS: &str = "credentials";
    pub const ALL: &[&str] = &[CONNECTIONS, REQUESTS, BODIES, SOCKETS, SIGN_INS, CREDENTIALS];
}

/// Values of `queue` of [`QUEUE_REFUSED_TOTAL`].
pub mod queue {
    /// Inputs of one call.
    pub const MAILBOX: &str = "mailbox";
    /// `reject` requests waiting for Graph. The webhook is answered with 503.
    pub const REJECTS: &str = "rejects";
    /// Graph requests of one business number.
    pub const GRAPH: &str = "graph";
    /// Webhook events that wait for their call to be known.
    pub const PARKED: &str = "parked";
    /// Calls that wait for a permit of their account.
    pub const DIALER: &str = "dialer";
    /// Webhook bodies that are being read.
    pub const BODIES: &str = "bodies";
    /// Webhooks answered with 503 before reading, because the node is overloaded.
    pub const WEBHOOKS: &str = "webhooks";
    /// Messages that wait for an AI agent.
    pub const TURNS: &str = "turns";
    /// Files of users that are fetched in advance.
    pub const MEDIA: &str = "media";
    /// Callbacks of events of an account.
    pub const CALLBACKS: &str = "callbacks";
    pub const ALL: &[&str] =
        &[MAILBOX, REJECTS, GRAPH, PARKED, DIALER, BODIES, WEBHOOKS, TURNS, MEDIA, CALLBACKS];
}

/// Values of `outcome` of [`ANSWER_FETCH_SECONDS`] besides those of
/// `machine::FetchFailure::outcome`.
pub mod fetch {
    pub const OK: &str = "ok";
    /// The document was fetched but is not valid.
    pub const INVALID: &str = "invalid";
}

/// Values of `kind` of [`ANSWER_FETCH_SECONDS`] besides those of `machine::FetchKind::as_str`.
pub mod fetch_kind {
    pub const SOUND: &str = "sound";
    pub const PLAY: &str = "play";
}

/// Values of `status` of [`GRAPH_REQUEST_SECONDS`] besides HTTP statuses and failures.
pub mod graph {
    /// A request to end a call, and the call was over at Meta already.
    pub const GONE: &str = "gone";

    /// Returns whether a request with this status had the desired effect.
    pub fn is_granted(status: &str) -> bool {
        status.starts_with('2') || status == GONE
    }
}

/// Values of `outcome` of [`CALLBACK_TOTAL`].
pub mod delivery {
    pub const DELIVERED: &str = "delivered";
    pub const RETRY: &str = "retry";
    pub const FAILED: &str = "failed";

    pub const ALL: &[&str] = &[DELIVERED, RETRY, FAILED];
}

/// Values of `outcome` of [`INSTRUCTIONS_TOTAL`].
pub mod instruction {
    pub const DONE: &str = "done";
    pub const SKIPPED: &str = "skipped";
    pub const FAILED: &str = "failed";
    pub const CUT: &str = "cut";

    pub const ALL: &[&str] = &[DONE, SKIPPED, FAILED, CUT];
}

/// Values of `what` of [`MEDIA_MISSING_TOTAL`].
pub mod missing {
    pub const CHECK: &str = "check";
    pub const HANDSHAKE: &str = "handshake";
    pub const PACKET: &str = "packet";
    pub const FINGERPRINT: &str = "fingerprint";

    pub const ALL: &[&str] = &[CHECK, HANDSHAKE, PACKET, FINGERPRINT];
}

/// Values of `direction` of [`MEDIA_PACKETS_TOTAL`].
pub mod packets {
    pub const IN: &str = "in";
    pub const OUT: &str = "out";
}

/// Values of `state` of [`NODES`].
pub const NODE_STATES: &[&str] = &["up", "draining", "dead"];

/// Values of `kind` and `what` of [`UNITS`].
pub mod unit {
    pub const SLOT: &str = "slot";
    pub const PERMIT: &str = "permit";
    pub const KINDS: &[&str] = &[SLOT, PERMIT];
    pub const HELD: &str = "held";
    pub const USED: &str = "used";
    pub const USES: &[&str] = &[HELD, USED];
}

/// Values of `outcome` of [`BEAT_SECONDS`].
pub mod beat {
    pub const ANSWERED: &str = "answered";
    pub const FAILED: &str = "failed";
    pub const OVERDUE: &str = "overdue";
    /// Another node has sent the beat to the database, and it was answered.
    pub const CARRIED: &str = "carried";
    pub const ALL: &[&str] = &[ANSWERED, FAILED, OVERDUE, CARRIED];
}

/// Values of `outcome` of [`CLAIM_SECONDS`].
pub mod claim {
    pub const OURS: &str = "ours";
    /// The call belongs to another node.
    pub const THEIRS: &str = "theirs";
    /// The call has ended.
    pub const OVER: &str = "over";
    /// The process may not claim calls.
    pub const DENIED: &str = "denied";
    /// The database did not answer, and the node decided alone.
    pub const ALONE: &str = "alone";
    pub const ALL: &[&str] = &[OURS, THEIRS, OVER, DENIED, ALONE];
}

/// Values of `kind` and `outcome` of [`FORWARDS_TOTAL`].
pub mod forward {
    /// A webhook with events of another node's calls.
    pub const WEBHOOK: &str = "webhook";
    /// A call that another node must take.
    pub const CALL: &str = "call";
    /// A message about lacking units.
    pub const UNITS: &str = "units";
    /// A REST request of a client.
    pub const REST: &str = "rest";
    /// Events, lists and all other messages between nodes.
    pub const NODE: &str = "node";
    pub const KINDS: &[&str] = &[WEBHOOK, CALL, UNITS, REST, NODE];
    pub const ANSWERED: &str = "answered";
    pub const UNREACHABLE: &str = "unreachable";
    pub const TIMED_OUT: &str = "timed_out";
    /// Too many requests were in progress, or a body was too large.
    pub const REFUSED: &str = "refused";
    pub const OUTCOMES: &[&str] = &[ANSWERED, UNREACHABLE, TIMED_OUT, REFUSED];
}

/// Values of `what` of [`ADOPTED_TOTAL`].
pub mod adopted {
    pub const CALLS: &str = "calls";
    pub const ROWS: &str = "rows";
    pub const ALL: &[&str] = &[CALLS, ROWS];
}
