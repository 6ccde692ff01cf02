//! Every metric's name and every label word that is not some type's own `as_str` (`interface.md` §4).
//!
//! Label values come from closed lists or configured numbers (R23): a caller's number, a call's id or a word a
//! stranger sent is never one.

/// Gauge `{direction}`: calls between admission and their end.
pub const CALLS_ACTIVE: &str = "offhook_calls_active";
/// Counter `{direction,outcome}`: calls that ended; `outcome` is a word of [`outcome`].
pub const CALLS_TOTAL: &str = "offhook_calls_total";
/// Counter `{direction,result}`: decisions of the gate; `result` is a word of [`admission`].
pub const ADMISSION_TOTAL: &str = "offhook_admission_total";
/// Gauge `{number}`: slots held; configured business numbers only.
pub const NUMBER_SLOTS_IN_USE: &str = "offhook_number_slots_in_use";
/// Histogram, seconds: webhook received to Graph `accept` sent.
pub const SETUP_SECONDS: &str = "offhook_setup_seconds";
/// Histogram `{kind,outcome}`, seconds: one fetch of a customer's URL, retries included.
pub const ANSWER_FETCH_SECONDS: &str = "offhook_answer_fetch_seconds";
/// Histogram `{action,status}`, seconds: one HTTP exchange with Graph; `status` as [`graph`] says.
pub const GRAPH_REQUEST_SECONDS: &str = "offhook_graph_request_seconds";
/// Counter `{kind,outcome}`: attempts to deliver a callback; `outcome` is a word of [`delivery`].
pub const CALLBACK_TOTAL: &str = "offhook_callback_total";
/// Counter `{kind,result}`: items of Meta's webhooks (`meta-calling.md` §2.8).
pub const WEBHOOK_EVENTS_TOTAL: &str = "offhook_webhook_events_total";
/// Counter `{direction}`, `in` or `out`: RTP packets.
pub const MEDIA_PACKETS_TOTAL: &str = "offhook_media_packets_total";
/// Counter: media ticks that began more than 20 ms late.
pub const MEDIA_LATE_TICKS_TOTAL: &str = "offhook_media_late_ticks_total";
/// Counter `{element,outcome}`: instructions of documents; `outcome` is a word of [`instruction`].
pub const INSTRUCTIONS_TOTAL: &str = "offhook_instructions_total";
/// Counter: statements the store could not carry out, and event-log lines it had to refuse.
pub const STORE_ERRORS_TOTAL: &str = "offhook_store_errors_total";
/// Gauge `{version,revision}`, always 1.
pub const BUILD_INFO: &str = "offhook_build_info";
/// Gauge: connections of the public listener.
pub const HTTP_CONNECTIONS: &str = "offhook_http_connections";
/// Counter `{reason}`: connections closed for want of room or for slowness; words of [`CONNECTION_ENDS`].
pub const HTTP_CONNECTIONS_CLOSED_TOTAL: &str = "offhook_http_connections_closed_total";
/// Counter: event-log lines not written because the queue was full (R10).
pub const EVENT_LOG_REFUSED_TOTAL: &str = "offhook_event_log_refused_total";
/// Gauge: 1 while the node drains (R9); what is left is `offhook_calls_active`.
pub const DRAINING: &str = "offhook_draining";
/// Counter `{why}`: calls refused as `overloaded`, by what the node had too much of (R10).
pub const OVERLOADED_TOTAL: &str = "offhook_overloaded_total";
/// Counter `{queue}`: what a full queue refused (R10); `queue` is a word of [`queue`].
pub const QUEUE_REFUSED_TOTAL: &str = "offhook_queue_refused_total";
/// Gauge: bytes in the journal, which takes what the store does not (R11).
pub const STORE_JOURNAL_BYTES: &str = "offhook_store_journal_bytes";
/// Counter: log lines left out past the bound of a kind (R22).
pub const LOG_LINES_DROPPED_TOTAL: &str = "offhook_log_lines_dropped_total";

/// Gauge: streams of calls' sound whose socket is open.
pub const STREAMS_ACTIVE: &str = "offhook_streams_active";
/// Counter `{outcome}`: streams that are over; words of [`STREAM_ENDS`].
pub const STREAMS_TOTAL: &str = "offhook_streams_total";
/// Counter: messages of sound left out because a stream's server read too slowly.
pub const STREAM_MESSAGES_DROPPED_TOTAL: &str = "offhook_stream_messages_dropped_total";

/// Counter `{outcome}`: recognitions of what callers and recordings say; words of [`recognised`].
pub const RECOGNITIONS_TOTAL: &str = "offhook_recognitions_total";
/// Counter `{outcome}`: tries to write down what is said in a recording; words of [`transcript`].
pub const TRANSCRIPTS_TOTAL: &str = "offhook_transcripts_total";
/// Counter `{outcome}`: tries to copy a recording to other storage; words of [`copied`].
pub const RECORDING_COPIES_TOTAL: &str = "offhook_recording_copies_total";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One call's sound, a way each: the part of its packets that was lost. Label `direction`.
pub const MEDIA_LOSS_RATIO: &str = "offhook_media_loss_ratio";
/// The same: interarrival jitter. Label `direction`.
pub const MEDIA_JITTER_SECONDS: &str = "offhook_media_jitter_seconds";
/// The same: the E-model's mean opinion score. Label `direction`.
pub const MEDIA_MOS: &str = "offhook_media_mos";
/// One call's round trip, by the peer's reports.
pub const MEDIA_ROUND_TRIP_SECONDS: &str = "offhook_media_round_trip_seconds";
/// Calls without sound some seconds after `accept`. Label `what`.
pub const MEDIA_MISSING_TOTAL: &str = "offhook_media_missing_total";

/// Every metric: its name, what it is, and its help line.
pub const ALL: &[(&str, Kind, &str)] = &[
    (CALLS_ACTIVE, Kind::Gauge, "Calls between admission and their end."),
    (CALLS_TOTAL, Kind::Counter, "Calls that ended, by outcome."),
    (ADMISSION_TOTAL, Kind::Counter, "Decisions of the admission gate, by result."),
    (NUMBER_SLOTS_IN_USE, Kind::Gauge, "Simultaneous calls of a business number."),
    (SETUP_SECONDS, Kind::Histogram, "From the webhook received to Graph accept sent."),
    (
        ANSWER_FETCH_SECONDS,
        Kind::Histogram,
        "Fetches of documents and sounds from customers' URLs.",
    ),
    (GRAPH_REQUEST_SECONDS, Kind::Histogram, "HTTP exchanges with Meta's Graph API."),
    (CALLBACK_TOTAL, Kind::Counter, "Attempts to deliver callbacks, by outcome."),
    (WEBHOOK_EVENTS_TOTAL, Kind::Counter, "Items of Meta's webhooks, by what became of them."),
    (MEDIA_PACKETS_TOTAL, Kind::Counter, "RTP packets, in and out."),
    (MEDIA_LATE_TICKS_TOTAL, Kind::Counter, "Media ticks that began more than 20 ms late."),
    (MEDIA_LOSS_RATIO, Kind::Histogram, "Packets lost of a call's, by direction."),
    (MEDIA_JITTER_SECONDS, Kind::Histogram, "Interarrival jitter at a call's end, by direction."),
    (MEDIA_MOS, Kind::Histogram, "Estimated mean opinion score of a call's sound, by direction."),
    (MEDIA_ROUND_TRIP_SECONDS, Kind::Histogram, "Round trip of a call's media."),
    (
        MEDIA_MISSING_TOTAL,
        Kind::Counter,
        "Calls without sound 3 s and 8 s after accept, or ended by a foreign certificate, by what is missing.",
    ),
    (INSTRUCTIONS_TOTAL, Kind::Counter, "Instructions of documents, by outcome."),
    (STORE_ERRORS_TOTAL, Kind::Counter, "Statements that the store could not carry out."),
    (BUILD_INFO, Kind::Gauge, "Version and revision of this program."),
    (HTTP_CONNECTIONS, Kind::Gauge, "Connections of the public listener."),
    (
        HTTP_CONNECTIONS_CLOSED_TOTAL,
        Kind::Counter,
        "Connections closed for want of room or for slowness.",
    ),
    (
        EVENT_LOG_REFUSED_TOTAL,
        Kind::Counter,
        "Event-log lines not written because the queue was full.",
    ),
    (DRAINING, Kind::Gauge, "1 while the node drains."),
    (
        OVERLOADED_TOTAL,
        Kind::Counter,
        "Calls refused as overloaded, by what there was too much of.",
    ),
    (QUEUE_REFUSED_TOTAL, Kind::Counter, "What full queues refused."),
    (STORE_JOURNAL_BYTES, Kind::Gauge, "Bytes that wait in the journal for the store."),
    (LOG_LINES_DROPPED_TOTAL, Kind::Counter, "Log lines left out past the bound of a kind."),
    (STREAMS_ACTIVE, Kind::Gauge, "Streams of calls' sound whose socket is open."),
    (STREAMS_TOTAL, Kind::Counter, "Streams that are over, by how they ended."),
    (RECOGNITIONS_TOTAL, Kind::Counter, "Recognitions of speech, by outcome."),
    (
        TRANSCRIPTS_TOTAL,
        Kind::Counter,
        "Tries to write down what is said in recordings, by outcome.",
    ),
    (
        RECORDING_COPIES_TOTAL,
        Kind::Counter,
        "Tries to copy recordings to other storage, by outcome.",
    ),
    (
        STREAM_MESSAGES_DROPPED_TOTAL,
        Kind::Counter,
        "Messages of sound left out for slow servers of streams.",
    ),
];

/// `outcome` of [`CALLS_TOTAL`].
pub mod outcome {
    pub const COMPLETED: &str = "completed";
    pub const BUSY: &str = "busy";
    pub const NO_ANSWER: &str = "no_answer";
    pub const REJECTED: &str = "rejected";
    pub const CANCELLED: &str = "cancelled";
    pub const TIMEOUT: &str = "timeout";
    pub const FAILED: &str = "failed";
    /// All of them.
    pub const ALL: &[&str] = &[COMPLETED, BUSY, NO_ANSWER, REJECTED, CANCELLED, TIMEOUT, FAILED];
}

/// `result` of [`ADMISSION_TOTAL`].
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
    /// All of them.
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

/// `why` of [`OVERLOADED_TOTAL`]: the words of `admission::Strain`.
pub const STRAINS: &[&str] = &["calls", "set_ups", "lag", "memory", "store", "media", "graph"];

/// `outcome` of [`STREAMS_TOTAL`]: at somebody's wish, never opened, broken off.
pub const STREAM_ENDS: &[&str] = &["ended", "failed", "lost"];

/// `outcome` of [`RECOGNITIONS_TOTAL`].
pub mod recognised {
    pub const WORDS: &str = "words";
    /// It heard none.
    pub const NOTHING: &str = "nothing";
    pub const FAILED: &str = "failed";
    /// Too many were under way.
    pub const BUSY: &str = "busy";

    pub const ALL: &[&str] = &[WORDS, NOTHING, FAILED, BUSY];
}

/// `outcome` of [`TRANSCRIPTS_TOTAL`].
pub mod transcript {
    pub const DONE: &str = "done";
    pub const RETRY: &str = "retry";
    /// Given up; what there is was told.
    pub const FAILED: &str = "failed";

    pub const ALL: &[&str] = &[DONE, RETRY, FAILED];
}

/// `outcome` of [`RECORDING_COPIES_TOTAL`].
pub mod copied {
    pub const STORED: &str = "stored";
    pub const RETRY: &str = "retry";
    /// There was no file any more.
    pub const LOST: &str = "lost";

    pub const ALL: &[&str] = &[STORED, RETRY, LOST];
}

/// `reason` of [`HTTP_CONNECTIONS_CLOSED_TOTAL`].
pub const CONNECTION_ENDS: &[&str] = &["full", "slow", "idle"];

/// `queue` of [`QUEUE_REFUSED_TOTAL`].
pub mod queue {
    /// Facts for one call.
    pub const MAILBOX: &str = "mailbox";
    /// Rejects on their way to Graph: the webhook was answered 503.
    pub const REJECTS: &str = "rejects";
    /// Requests to Graph of one number.
    pub const GRAPH: &str = "graph";
    /// Webhooks about calls whose id is still to come.
    pub const PARKED: &str = "parked";
    /// Calls that wait for their account's calls per second.
    pub const DIALER: &str = "dialer";
    /// Webhook bodies being read.
    pub const BODIES: &str = "bodies";
    /// Webhooks that came while work began late: answered 503, unread.
    pub const WEBHOOKS: &str = "webhooks";
    /// Messages that wait for their agents.
    pub const TURNS: &str = "turns";
    /// Users' files that are fetched before anybody asks for them.
    pub const MEDIA: &str = "media";
    /// All of them.
    pub const ALL: &[&str] =
        &[MAILBOX, REJECTS, GRAPH, PARKED, DIALER, BODIES, WEBHOOKS, TURNS, MEDIA];
}

/// `outcome` of [`ANSWER_FETCH_SECONDS`]; failures' words are `call::machine::FetchFailure::outcome`.
pub mod fetch {
    pub const OK: &str = "ok";
    /// Fetched, and refused by the validator.
    pub const INVALID: &str = "invalid";
}

/// `kind` of [`ANSWER_FETCH_SECONDS`] beside `call::machine::FetchKind::as_str`.
pub mod fetch_kind {
    pub const SOUND: &str = "sound";
    pub const PLAY: &str = "play";
}

/// `outcome` of [`CALLBACK_TOTAL`].
pub mod delivery {
    pub const DELIVERED: &str = "delivered";
    pub const RETRY: &str = "retry";
    pub const FAILED: &str = "failed";

    pub const ALL: &[&str] = &[DELIVERED, RETRY, FAILED];
}

/// `outcome` of [`INSTRUCTIONS_TOTAL`].
pub mod instruction {
    pub const DONE: &str = "done";
    pub const SKIPPED: &str = "skipped";
    pub const FAILED: &str = "failed";
    pub const CUT: &str = "cut";

    pub const ALL: &[&str] = &[DONE, SKIPPED, FAILED, CUT];
}

/// `what` of [`MEDIA_MISSING_TOTAL`].
pub mod missing {
    pub const CHECK: &str = "check";
    pub const HANDSHAKE: &str = "handshake";
    pub const PACKET: &str = "packet";
    pub const FINGERPRINT: &str = "fingerprint";

    pub const ALL: &[&str] = &[CHECK, HANDSHAKE, PACKET, FINGERPRINT];
}

/// `direction` of [`MEDIA_PACKETS_TOTAL`].
pub mod packets {
    pub const IN: &str = "in";
    pub const OUT: &str = "out";
}
