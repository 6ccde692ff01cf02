-- The schema of the store for SQLite. postgres/0001_schema.sql is its twin: same tables, columns and indexes.
--
-- Columns ending in _us are microseconds since 1970-01-01 UTC. Flags are 0 or 1. JSON is stored as text.
-- auth_id is the account or subaccount that owns a row; main_auth_id is its main account, which may be the same.
-- Files here are never changed once released: a later version adds a file with the next number.


-- Calls --------------------------------------------------------------------------------------------------------------

-- One row per call, inserted when the call is admitted and completed when it ends.
CREATE TABLE calls (
    call_uuid          TEXT    NOT NULL PRIMARY KEY,
    auth_id            TEXT    NOT NULL,
    main_auth_id       TEXT    NOT NULL,
    direction          TEXT    NOT NULL,
    call_type          TEXT    NOT NULL,
    from_number        TEXT    NOT NULL,
    to_number          TEXT    NOT NULL,
    caller_name        TEXT    NOT NULL,
    wacid              TEXT,
    phone_number_id    TEXT    NOT NULL,
    parent_call_uuid   TEXT,
    -- The node that runs the call.
    node_id            TEXT    NOT NULL,
    started_us         BIGINT  NOT NULL,

    -- While the call is open: its set-up as JSON and its start on the steady clock. After a crash, the next process
    -- ends the call from these. NULL once the call has ended.
    setup              TEXT,
    born_us            BIGINT,

    -- Set when the call ends, except for answered_us, which is also set when the call is answered.
    ended_us           BIGINT,
    answered_us        BIGINT,
    duration_secs      BIGINT,
    bill_secs          BIGINT,
    meta_duration_secs BIGINT,
    hangup_code        INTEGER,
    hangup_name        TEXT,
    hangup_source      TEXT,
    hangup_word        TEXT,
    cause              TEXT,
    -- JSON: remarks for people, the findings in the call's documents, the measured media quality.
    remarks            TEXT,
    findings           TEXT,
    quality            TEXT,
    -- Mean opinion score of its worse direction, for sorting.
    mos_hundredths     BIGINT,
    -- The last conference that the call was in.
    conference_uuid    TEXT,
    -- How long its answer URL took.
    answer_ms          BIGINT,
    -- The agent that answered it.
    agent_id           TEXT,

    -- The request that Graph has still to be sent for an ended call ('terminate' or 'reject'), when it is due on the
    -- steady clock, and how often it was tried. farewell_us is NULL if nothing is to be sent.
    farewell           TEXT,
    farewell_us        BIGINT,
    -- The node that sends it, if it adopted the work of node_id.
    farewell_node      TEXT,
    farewell_tries     INTEGER
);

-- Lists of ended calls: of a main account, of a subaccount, by caller, by callee. The indexes hold every column that
-- calls are counted by. They ascend, and lists read them backwards: a new call goes to the end of an index, whose pages
-- stay full.
CREATE INDEX calls_list ON calls
    (main_auth_id, started_us, call_uuid DESC, auth_id, direction, hangup_code, hangup_source, bill_secs, ended_us)
    WHERE ended_us IS NOT NULL;
CREATE INDEX calls_list_sub ON calls
    (auth_id, started_us, call_uuid DESC, direction, hangup_code, hangup_source, bill_secs, ended_us)
    WHERE ended_us IS NOT NULL AND auth_id <> main_auth_id;
CREATE INDEX calls_list_from ON calls
    (from_number, main_auth_id, started_us, call_uuid DESC, auth_id, direction) WHERE ended_us IS NOT NULL;
CREATE INDEX calls_list_to ON calls
    (to_number, main_auth_id, started_us, call_uuid DESC, auth_id, direction) WHERE ended_us IS NOT NULL;
-- Ended calls of a main account by billed duration. Those of a subaccount are sorted for each list.
CREATE INDEX calls_by_length ON calls (main_auth_id, bill_secs, call_uuid DESC) WHERE ended_us IS NOT NULL;
-- The same by measured quality.
CREATE INDEX calls_by_quality ON calls (main_auth_id, mos_hundredths, call_uuid DESC)
    WHERE ended_us IS NOT NULL AND mos_hundredths IS NOT NULL;
-- Ended calls of an agent.
CREATE INDEX calls_of_agent ON calls (agent_id, started_us, call_uuid DESC) WHERE agent_id IS NOT NULL;
-- Calls that a call has dialled.
CREATE INDEX calls_parent ON calls (parent_call_uuid) WHERE parent_call_uuid IS NOT NULL;
-- Orphans of a node at its start.
CREATE INDEX calls_open ON calls (node_id) WHERE ended_us IS NULL;
-- Farewells that are due.
CREATE INDEX calls_farewell ON calls (farewell_us) WHERE farewell_us IS NOT NULL;

-- The event log of each call. A row has consecutive lines, from number seq on.
CREATE TABLE call_logs (
    call_uuid  TEXT    NOT NULL,
    seq        BIGINT  NOT NULL,
    line_count BIGINT  NOT NULL,
    -- Each line ends with a newline. Compressed as an LZ4 block after its size in four bytes, little-endian.
    body       BLOB    NOT NULL,
    PRIMARY KEY (call_uuid, seq)
);

-- What the user and an AI agent say in an open call. Moved into the conversation when the call ends.
CREATE TABLE call_said (
    call_uuid  TEXT    NOT NULL,
    seq        BIGINT  NOT NULL,
    -- 'user' or 'assistant'.
    role       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- RFC 3339.
    said_at    TEXT    NOT NULL,
    PRIMARY KEY (call_uuid, seq)
);

-- Ended calls counted per hour in which they began (hours since 1970) and node. scope is a main account, whose counts
-- include its subaccounts, or a subaccount. Maintained by the triggers below. Nodes that share the database have rows of
-- their own, so that they do not wait for each other.
CREATE TABLE call_hours (
    scope          TEXT    NOT NULL,
    hour           BIGINT  NOT NULL,
    auth_id        TEXT    NOT NULL,
    direction      TEXT    NOT NULL,
    hangup_code    INTEGER NOT NULL,
    hangup_source  TEXT    NOT NULL,
    node_id        TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    PRIMARY KEY (scope, hour, auth_id, direction, hangup_code, hangup_source, node_id)
) WITHOUT ROWID;

-- The same per day, with the duration of the longest call.
CREATE TABLE call_days (
    scope          TEXT    NOT NULL,
    day            BIGINT  NOT NULL,
    auth_id        TEXT    NOT NULL,
    direction      TEXT    NOT NULL,
    hangup_code    INTEGER NOT NULL,
    hangup_source  TEXT    NOT NULL,
    node_id        TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    longest_us     BIGINT  NOT NULL,
    PRIMARY KEY (scope, day, auth_id, direction, hangup_code, hangup_source, node_id)
) WITHOUT ROWID;

-- Counts a call when it ends.
CREATE TRIGGER call_ended AFTER UPDATE OF ended_us ON calls WHEN OLD.ended_us IS NULL AND NEW.ended_us IS NOT NULL
BEGIN
    INSERT INTO call_hours SELECT NEW.main_auth_id, NEW.started_us / 3600000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1 WHERE true
        ON CONFLICT DO UPDATE SET calls = calls + 1;
    INSERT INTO call_hours SELECT NEW.auth_id, NEW.started_us / 3600000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1 WHERE NEW.auth_id <> NEW.main_auth_id
        ON CONFLICT DO UPDATE SET calls = calls + 1;
    INSERT INTO call_days SELECT NEW.main_auth_id, NEW.started_us / 86400000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1, NEW.ended_us - NEW.started_us WHERE true
        ON CONFLICT DO UPDATE SET calls = calls + 1, longest_us = max(longest_us, excluded.longest_us);
    INSERT INTO call_days SELECT NEW.auth_id, NEW.started_us / 86400000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1, NEW.ended_us - NEW.started_us
        WHERE NEW.auth_id <> NEW.main_auth_id
        ON CONFLICT DO UPDATE SET calls = calls + 1, longest_us = max(longest_us, excluded.longest_us);
END;

-- Takes a deleted call out of the counts.
CREATE TRIGGER call_forgotten AFTER DELETE ON calls WHEN OLD.ended_us IS NOT NULL
BEGIN
    UPDATE call_hours SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND hour = OLD.started_us / 3600000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '')
        AND node_id = OLD.node_id;
    UPDATE call_days SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND day = OLD.started_us / 86400000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '')
        AND node_id = OLD.node_id;
END;

-- The last heartbeat of each node on its steady clock: orphans of a dead node are taken to have ended then.
CREATE TABLE nodes (
    node_id   TEXT   NOT NULL PRIMARY KEY,
    alive_us  BIGINT NOT NULL
) WITHOUT ROWID;

-- Numbers of outbound requests of all nodes by minute, for the operations page. Rows are deleted when they are older
-- than retention.event_log_days.
CREATE TABLE request_counts (
    -- Start of the minute.
    at_us     BIGINT NOT NULL,
    -- customer or graph.
    target    TEXT   NOT NULL,
    kind      TEXT   NOT NULL,
    outcome   TEXT   NOT NULL,
    -- 1 if the outcome is a failure, 0 otherwise.
    failed    BIGINT NOT NULL,
    requests  BIGINT NOT NULL,
    PRIMARY KEY (at_us, target, kind, outcome)
);

-- Requests to URLs of customers that failed, for the list of errors. Rows are deleted when they are older than
-- retention.event_log_days.
CREATE TABLE failed_requests (
    request_id    TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    at_us         BIGINT  NOT NULL,
    call_uuid     TEXT    NOT NULL,
    -- The name of its bar in the waterfall of the call, such as `fetch answer`.
    kind          TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    -- Without query and credentials.
    url           TEXT    NOT NULL,
    -- How it ended, in words.
    outcome       TEXT    NOT NULL,
    attempts      BIGINT  NOT NULL,
    -- The beginning of the response, if its status is an error and it is text. Other bodies are in the event logs of
    -- the calls.
    response      TEXT
);
-- Lists of failed requests: of a main account, of a subaccount.
CREATE INDEX failed_requests_of_main_account ON failed_requests (main_auth_id, at_us DESC, request_id);
CREATE INDEX failed_requests_of_account ON failed_requests (auth_id, at_us DESC, request_id);
-- Erasure of a user.
CREATE INDEX failed_requests_of_call ON failed_requests (call_uuid);
-- Failed requests past the retention time.
CREATE INDEX failed_requests_by_time ON failed_requests (at_us);


-- Rooms and recordings -----------------------------------------------------------------------------------------------

-- Multi-party calls that are over.
CREATE TABLE multi_party_calls (
    mpc_uuid      TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    ended_us      BIGINT  NOT NULL,
    -- JSON: everything that is shown of it. It contains no user's number.
    body          TEXT    NOT NULL
);
-- The latest ones, and those beyond the number that is kept.
CREATE INDEX multi_party_calls_by_end ON multi_party_calls (ended_us);

-- Multi-party calls that are open. After a crash, the next process ends them from these rows.
CREATE TABLE multi_party_calls_open (
    mpc_uuid  TEXT    NOT NULL PRIMARY KEY,
    node_id   TEXT    NOT NULL,
    -- Its start on the steady clock, like nodes.alive_us.
    born_us   BIGINT  NOT NULL,
    -- JSON. It contains no user's number.
    body      TEXT    NOT NULL
);
-- Orphans of a node at its start.
CREATE INDEX multi_party_calls_open_of_node ON multi_party_calls_open (node_id);

-- Present and past members of open multi-party calls.
CREATE TABLE participants_open (
    mpc_uuid   TEXT    NOT NULL,
    member_id  BIGINT  NOT NULL,
    -- When the member left; NULL while it is in the call.
    left_us    BIGINT,
    body       TEXT    NOT NULL,
    PRIMARY KEY (mpc_uuid, member_id)
);

-- One row per recording, inserted when it begins. The audio is a file on the node's disk or an object in other storage.
CREATE TABLE recordings (
    recording_id     TEXT    NOT NULL PRIMARY KEY,
    auth_id          TEXT    NOT NULL,
    main_auth_id     TEXT    NOT NULL,
    call_uuid        TEXT    NOT NULL,
    -- Of a room's recording: the room's name and id, and whether it is a multi-party call.
    conference_name  TEXT,
    room_uuid        TEXT,
    multi_party      INTEGER NOT NULL DEFAULT 0,
    -- 'wav' or 'mp3', with one channel or two.
    format           TEXT    NOT NULL,
    stereo           INTEGER NOT NULL,
    -- The node whose disk has the file.
    node_id          TEXT    NOT NULL,
    started_us       BIGINT  NOT NULL,

    -- While it is open: JSON of the callbacks that report its end.
    notices          TEXT,

    -- Set when the recording ends.
    ended_us         BIGINT,
    duration_ms      BIGINT,
    end_reason       TEXT,

    -- When it is to be copied to other storage next, how often that has failed, and the object's name once it is there.
    upload_us        BIGINT,
    upload_tries     BIGINT  NOT NULL DEFAULT 0,
    object           TEXT,

    -- While it is to be transcribed: JSON of where the transcript is sent, when to try next, and how often that has
    -- failed.
    transcription    TEXT,
    transcribe_us    BIGINT,
    transcribe_tries BIGINT  NOT NULL DEFAULT 0
);
-- Lists of recordings: of a main account, of a subaccount, of a call.
CREATE INDEX recordings_of_main_account ON recordings (main_auth_id, started_us DESC, recording_id);
CREATE INDEX recordings_of_account ON recordings (auth_id, started_us DESC, recording_id);
CREATE INDEX recordings_of_call ON recordings (call_uuid);
-- Recordings past the retention time.
CREATE INDEX recordings_by_age ON recordings (started_us);
-- Unfinished recordings of a node at its start.
CREATE INDEX recordings_open ON recordings (node_id) WHERE ended_us IS NULL;
-- Copies and transcripts that are due.
CREATE INDEX recordings_to_upload ON recordings (upload_us) WHERE upload_us IS NOT NULL;
CREATE INDEX recordings_to_transcribe ON recordings (transcribe_us) WHERE transcribe_us IS NOT NULL;

-- Objects in other storage whose recording was deleted and which have still to be removed there.
CREATE TABLE objects_to_remove (
    object  TEXT   NOT NULL PRIMARY KEY,
    due_us  BIGINT NOT NULL,
    tries   BIGINT NOT NULL DEFAULT 0
);
-- Removals that are due.
CREATE INDEX objects_to_remove_due ON objects_to_remove (due_us);


-- Outbox and webhooks ------------------------------------------------------------------------------------------------

-- Callbacks and webhook events, written in the transaction of what they report and kept for a while when done.
CREATE TABLE callbacks (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- X-Offhook-Event-Id, the same on every attempt.
    event_id      TEXT    NOT NULL,
    -- The call, or the conversation of a message event: callbacks of one of these are delivered in order.
    call_uuid     TEXT    NOT NULL,
    -- The account whose tokens sign it.
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    node_id       TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    -- Scheme, host and port of the URL, or the webhook: one delivery queue each.
    origin        TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    -- JSON objects. Secret values are sealed with the store's key and deleted on delivery; secret_params has them in
    -- plain text and is read but no longer written.
    params        TEXT    NOT NULL,
    secret_params TEXT,
    sealed_params BLOB,
    created_us    BIGINT  NOT NULL,
    -- Start of the 24 hours in which it is retried: its creation, or an operator's retry.
    since_us      BIGINT  NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    -- Retries of the schedule since since_us.
    retries       INTEGER NOT NULL DEFAULT 0,
    -- When it is due. NULL once it is done.
    next_us       BIGINT,
    -- When it was delivered or given up, and which of the two.
    done_us       BIGINT,
    delivered     INTEGER NOT NULL DEFAULT 0,
    -- The outcome of the last attempt, for people.
    last          TEXT    NOT NULL DEFAULT '',
    -- Of a webhook event: the webhook's id and the event type. 'form' for a message callback to a number's URL.
    webhook       TEXT,
    event         TEXT
);
-- Due callbacks of an origin.
CREATE INDEX callbacks_due ON callbacks (node_id, origin, next_us) WHERE next_us IS NOT NULL;
-- Callbacks of a call: waiting, done, and events of a conversation.
CREATE INDEX callbacks_open_of_call ON callbacks (call_uuid) WHERE next_us IS NOT NULL;
CREATE INDEX callbacks_done_of_call ON callbacks (call_uuid) WHERE done_us IS NOT NULL AND event IS NULL;
CREATE INDEX callbacks_of_conversation ON callbacks (call_uuid) WHERE event IS NOT NULL;
-- Delivery log of a webhook.
CREATE INDEX callbacks_of_webhook ON callbacks (webhook, id) WHERE webhook IS NOT NULL;

-- URLs that an account's events are posted to.
CREATE TABLE webhooks (
    webhook_id   TEXT   NOT NULL PRIMARY KEY,
    auth_id      TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    url          TEXT   NOT NULL,
    -- Sealed JSON list of signing secrets, newest first: two while one replaces the other.
    sealed       BLOB   NOT NULL,
    created_us   BIGINT NOT NULL,
    -- Incremented by each change: one that has not seen the last one is refused.
    version      BIGINT NOT NULL DEFAULT 1
);


-- Meta's events ------------------------------------------------------------------------------------------------------

-- Keys of the events of Meta's that were accepted: recognizes duplicates across restarts. Each process loads them by
-- time. The primary key has the time first, because the keys are hashes: an index of them would have a page written for
-- every event.
CREATE TABLE webhook_keys (
    -- 16 bytes of a hash of the event's identity.
    key      BLOB    NOT NULL,
    -- 0: an event; 1: a tombstone.
    kind     INTEGER NOT NULL,
    seen_us  BIGINT  NOT NULL,
    PRIMARY KEY (seen_us, key)
) WITHOUT ROWID;

-- Keys whose events could not be processed: the key does not count if it was seen up to this time.
CREATE TABLE webhook_keys_removed (
    key      BLOB    NOT NULL PRIMARY KEY,
    until_us BIGINT  NOT NULL
) WITHOUT ROWID;

-- Calling permissions: one row per business number and user with a permission or a request in force.
CREATE TABLE permissions (
    phone_number_id TEXT    NOT NULL,
    -- The user's digits, or the BSUID if the number is hidden.
    "user"          TEXT    NOT NULL,
    -- none, requested, temporary or permanent, for people. It does not change when a permission expires.
    state           TEXT    NOT NULL,
    -- JSON: the state with its times, and the counters of Meta's limits.
    pair            TEXT    NOT NULL,
    updated_us      BIGINT  NOT NULL,
    PRIMARY KEY (phone_number_id, "user")
) WITHOUT ROWID;

-- Users' replies to permission requests, including those that were too old to apply.
CREATE TABLE permission_replies (
    phone_number_id TEXT    NOT NULL,
    message_id      TEXT    NOT NULL,
    "user"          TEXT    NOT NULL,
    -- JSON.
    reply           TEXT    NOT NULL,
    -- Whether the reply changed the permission.
    applied         INTEGER NOT NULL,
    came_us         BIGINT  NOT NULL,
    PRIMARY KEY (phone_number_id, message_id)
) WITHOUT ROWID;
-- Replies past the retention time.
CREATE INDEX permission_replies_came ON permission_replies (came_us);


-- Messages -----------------------------------------------------------------------------------------------------------

-- One row per business number and user, with everything that a list of conversations shows.
CREATE TABLE conversations (
    -- Derived from number and user: model::stable_id.
    conversation_id TEXT   NOT NULL PRIMARY KEY,
    auth_id         TEXT   NOT NULL,
    main_auth_id    TEXT   NOT NULL,
    number          TEXT   NOT NULL,
    phone_number_id TEXT   NOT NULL,
    -- The user's digits, or the BSUID if the number is hidden.
    user_id         TEXT   NOT NULL,
    bsuid           TEXT,
    name            TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    -- 'webhook', 'agent' or 'none', and the id of the webhook or agent.
    routing         TEXT   NOT NULL,
    webhook         TEXT,
    agent           TEXT,
    -- The number's generation (number_tenures) in which the routing above was set.
    generation      BIGINT NOT NULL DEFAULT 0,
    -- Incremented to cancel an agent's pending answer.
    epoch           BIGINT NOT NULL DEFAULT 0,
    -- 0: the agent is muted and only people answer.
    ai_enabled      BIGINT NOT NULL DEFAULT 1,
    -- The person who takes care of it.
    assignee        TEXT,
    -- Ids in `presets`, separated by spaces. Ids of deleted labels are ignored.
    labels          TEXT   NOT NULL DEFAULT '',
    unread          BIGINT NOT NULL DEFAULT 0,
    last_text       TEXT   NOT NULL,
    last_direction  TEXT   NOT NULL,
    last_us         BIGINT NOT NULL,
    -- Lower case by Unicode, for searches. NULL in rows that no message has touched.
    name_lower      TEXT,
    last_lower      TEXT,
    -- The user's last message or call, which opens Meta's 24-hour window for free-form messages. 0 if there is none.
    heard_us        BIGINT NOT NULL DEFAULT 0,
    sentiment       TEXT,
    score           DOUBLE PRECISION,
    summary         TEXT,
    insights_by     TEXT,
    insights_us     BIGINT,
    created_us      BIGINT NOT NULL
);
-- Lists of conversations by the time of their last message: all, of a number, unread, by status, of an agent, assigned
-- to a person; and by the user's digits. Each list of a main account has a twin for subaccounts, which holds no rows of
-- main accounts. The open conversations of a number are counted in the index of the number.
CREATE INDEX conversations_of_main_account ON conversations (main_auth_id, last_us, conversation_id);
CREATE INDEX conversations_of_account ON conversations (auth_id, last_us, conversation_id)
    WHERE auth_id <> main_auth_id;
CREATE INDEX conversations_of_number ON conversations (main_auth_id, number, last_us, conversation_id, status);
CREATE INDEX conversations_of_number_of_account ON conversations (auth_id, number, last_us, conversation_id, status)
    WHERE auth_id <> main_auth_id;
CREATE INDEX conversations_unread ON conversations (main_auth_id, last_us, conversation_id) WHERE unread > 0;
CREATE INDEX conversations_unread_of_account ON conversations (auth_id, last_us, conversation_id)
    WHERE unread > 0 AND auth_id <> main_auth_id;
CREATE INDEX conversations_put_away ON conversations (main_auth_id, status, last_us, conversation_id)
    WHERE status <> 'open';
CREATE INDEX conversations_put_away_of_account ON conversations (auth_id, status, last_us, conversation_id)
    WHERE status <> 'open' AND auth_id <> main_auth_id;
CREATE INDEX conversations_of_agent ON conversations (agent, last_us, conversation_id) WHERE agent IS NOT NULL;
CREATE INDEX conversations_of_assignee ON conversations (assignee, last_us, conversation_id)
    WHERE assignee IS NOT NULL;
CREATE INDEX conversations_of_user ON conversations (main_auth_id, user_id);
CREATE INDEX conversations_of_user_of_account ON conversations (auth_id, user_id) WHERE auth_id <> main_auth_id;
-- Erasure of a user who is known by a BSUID.
CREATE INDEX conversations_of_bsuid ON conversations (main_auth_id, bsuid) WHERE bsuid IS NOT NULL;
-- Whether a webhook is in use.
CREATE INDEX conversations_of_webhook ON conversations (webhook) WHERE webhook IS NOT NULL;

-- Messages in both directions, private notes of people, and one entry per call: the timeline of each conversation.
CREATE TABLE messages (
    -- Of an inbound message, derived from number and wamid: a duplicate has the same id.
    message_id      TEXT   NOT NULL PRIMARY KEY,
    conversation_id TEXT   NOT NULL,
    phone_number_id TEXT   NOT NULL,
    wamid           TEXT,
    direction       TEXT   NOT NULL,
    -- Meta's message type, 'call', or 'note', which is never sent.
    kind            TEXT   NOT NULL,
    -- A short text for people and searches.
    body            TEXT   NOT NULL,
    -- JSON: the content in Meta's format.
    content         TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    -- Meta's error, if the message failed.
    error_code      BIGINT,
    error_text      TEXT,
    -- Of an outbound message: who wrote it, and the node that sends it.
    sender          TEXT,
    node_id         TEXT,
    -- Of an agent's message: the conversation's epoch in which it is valid.
    epoch           BIGINT,
    -- When Graph was asked to send it: from then on Meta may have it.
    asked_us        BIGINT,
    came_us         BIGINT NOT NULL,
    changed_us      BIGINT NOT NULL
);
-- The timeline.
CREATE INDEX messages_of_conversation ON messages (conversation_id, came_us, message_id);
-- The message that a status of Meta's is about.
CREATE INDEX messages_sent ON messages (wamid) WHERE direction = 'outbound' AND wamid IS NOT NULL;
-- Notes of a conversation, whose number is limited.
CREATE INDEX messages_notes ON messages (conversation_id) WHERE kind = 'note';
-- Messages that a crash interrupted on their way to Graph.
CREATE INDEX messages_under_way ON messages (came_us, message_id) WHERE status = 'queued' AND wamid IS NULL;
-- Messages past the retention time.
CREATE INDEX messages_came ON messages (came_us);

-- The routing that new conversations of a number get, if one was set.
CREATE TABLE number_routing (
    phone_number_id TEXT NOT NULL PRIMARY KEY,
    routing         TEXT NOT NULL,
    webhook         TEXT,
    agent           TEXT
);

-- The owner of each number, and the routing last set for all of its conversations at once.
CREATE TABLE number_tenures (
    phone_number_id TEXT   NOT NULL PRIMARY KEY,
    -- The account that has the number, or empty if unknown. Conversations of other accounts are not routed.
    owner           TEXT   NOT NULL,
    -- The account whose conversation ids are derived from number and user only. Ids of later owners also depend on the
    -- account, so that no owner can read the conversations of another.
    first_owner     TEXT   NOT NULL,
    -- Incremented when the routing below is set. It applies to conversations of an earlier generation, and counts
    -- towards their epoch.
    generation      BIGINT NOT NULL DEFAULT 0,
    routing         TEXT   NOT NULL DEFAULT 'none',
    webhook         TEXT,
    agent           TEXT
);

-- Inbound messages that an agent has still to answer. Inserted with the message, deleted with the reply.
CREATE TABLE turns (
    message_id      TEXT   NOT NULL PRIMARY KEY,
    conversation_id TEXT   NOT NULL,
    agent           TEXT   NOT NULL,
    -- The conversation's epoch when the message arrived.
    epoch           BIGINT NOT NULL,
    -- The node that runs the agent.
    node_id         TEXT   NOT NULL,
    came_us         BIGINT NOT NULL,
    -- Set if the reply is stored but not finished: 'escalate' or 'close' follows once it is sent.
    then_do         TEXT
);
-- Pending turns of a node at its start.
CREATE INDEX turns_owed ON turns (node_id, came_us, message_id);
-- Deletion of a conversation.
CREATE INDEX turns_of_conversation ON turns (conversation_id);

-- Files that were uploaded to Meta: the media type of each media id.
CREATE TABLE uploads (
    auth_id    TEXT    NOT NULL,
    media_id   TEXT    NOT NULL,
    mime_type  TEXT    NOT NULL,
    made_us    BIGINT  NOT NULL,
    PRIMARY KEY (auth_id, media_id)
);
-- Uploads that Meta no longer has.
CREATE INDEX uploads_made ON uploads (made_us);

-- What people of an account prepare for its conversations: labels and canned replies.
CREATE TABLE presets (
    preset_id     TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- 'label' or 'reply'.
    kind          TEXT    NOT NULL,
    -- The name of a label, or the shortcut of a reply.
    name          TEXT    NOT NULL,
    -- Unique within the account and kind.
    name_lower    TEXT    NOT NULL,
    -- The colour of a label, or the text of a reply.
    content       TEXT    NOT NULL
);
CREATE UNIQUE INDEX presets_of_account ON presets (auth_id, kind, name_lower);
CREATE INDEX presets_of_main_account ON presets (main_auth_id, kind, name_lower);


-- Accounts and people ------------------------------------------------------------------------------------------------

-- Subaccounts, applications, and what was set at run time for accounts, WABAs and numbers. Loaded at the start.
CREATE TABLE settings (
    -- account, application, waba or number.
    kind       TEXT   NOT NULL,
    -- An auth_id, app_id, WABA id or phone number.
    id         TEXT   NOT NULL,
    -- JSON.
    body       TEXT   NOT NULL,
    -- A subaccount's auth token, sealed with the store's key.
    sealed     BLOB,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;

-- How often the settings were changed. A change is written only if its writer has read all earlier ones: the rules for
-- settings, such as one account per number, are about several rows. One row.
CREATE TABLE settings_version (
    version    BIGINT NOT NULL
);
INSERT INTO settings_version (version) VALUES (0);

-- Named phones of an account, in a browser or another program.
CREATE TABLE endpoints (
    endpoint_id   TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- Unique on the node: phones log in by name only.
    username      TEXT    NOT NULL UNIQUE,
    alias         TEXT    NOT NULL,
    -- An Argon2id hash.
    password      TEXT    NOT NULL,
    app_id        TEXT,
    -- The user who made it for themselves.
    user_id       TEXT,
    created_us    BIGINT  NOT NULL
);
-- Lists of endpoints: of a main account, of a subaccount.
CREATE INDEX endpoints_of_main_account ON endpoints (main_auth_id, created_us DESC, endpoint_id);
CREATE INDEX endpoints_of_account ON endpoints (auth_id, created_us DESC, endpoint_id);
-- Endpoints of a user.
CREATE INDEX endpoints_of_user ON endpoints (user_id);

-- AI agents.
CREATE TABLE agents (
    agent_id      TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- JSON: the agent's configuration.
    body          TEXT    NOT NULL,
    -- Its secrets: sealed JSON.
    sealed        BLOB,
    created_us    BIGINT  NOT NULL
);
-- Lists of agents: of a main account, of a subaccount.
CREATE INDEX agents_of_main_account ON agents (main_auth_id, created_us DESC, agent_id);
CREATE INDEX agents_of_account ON agents (auth_id, created_us DESC, agent_id);

-- People who sign in to the console.
CREATE TABLE users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- The sign-in name, unique within the main account.
    name          TEXT    NOT NULL,
    full_name     TEXT    NOT NULL,
    -- owner, admin or agent.
    role          TEXT    NOT NULL,
    -- An Argon2id hash. NULL until the invitation is accepted.
    password      TEXT,
    -- The person's own WhatsApp number, for sandbox numbers.
    wa_id         TEXT,
    -- 1: defined in the configuration file, which takes precedence.
    in_file       INTEGER NOT NULL,
    created_us    BIGINT  NOT NULL
);
CREATE UNIQUE INDEX users_by_name ON users (name, main_auth_id);
-- Lists of people: of a main account, of a subaccount.
CREATE INDEX users_of_main_account ON users (main_auth_id, created_us DESC, user_id);
CREATE INDEX users_of_account ON users (auth_id, created_us DESC, user_id);

-- Identities of people at OpenID Connect providers.
CREATE TABLE user_links (
    issuer        TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    linked_us     BIGINT  NOT NULL,
    PRIMARY KEY (issuer, subject)
);
-- One identity per person and provider.
CREATE UNIQUE INDEX user_links_of_user ON user_links (user_id, issuer);

-- Console sessions, by the SHA-256 of their token.
CREATE TABLE sessions (
    digest        TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    begun_us      BIGINT  NOT NULL,
    -- The last use, to within a few minutes.
    seen_us       BIGINT  NOT NULL
);
-- Sessions of a person.
CREATE INDEX sessions_of_user ON sessions (user_id);

-- Invitations to set a password once, by the SHA-256 of their token.
CREATE TABLE invitations (
    digest        TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    expires_us    BIGINT  NOT NULL
);
-- Invitations of a person.
CREATE INDEX invitations_of_user ON invitations (user_id);

-- Filters of the list of calls that users have saved.
CREATE TABLE saved_filters (
    user_id TEXT NOT NULL,
    name    TEXT NOT NULL,
    -- The query of the URL.
    query   TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) WITHOUT ROWID;

-- Keys of the number API that were created at run time, by their SHA-256.
CREATE TABLE api_keys (
    key_id        TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    -- The last characters, for people.
    ending        TEXT    NOT NULL,
    digest        TEXT    NOT NULL UNIQUE,
    role          TEXT    NOT NULL,
    wa_id         TEXT,
    created_us    BIGINT  NOT NULL
);
-- Lists of keys: of a main account, of a subaccount.
CREATE INDEX api_keys_of_main_account ON api_keys (main_auth_id, created_us DESC, key_id);
CREATE INDEX api_keys_of_account ON api_keys (auth_id, created_us DESC, key_id);

-- Notifications for people, shown in the console.
CREATE TABLE notices (
    notice_id        TEXT    NOT NULL PRIMARY KEY,
    auth_id          TEXT    NOT NULL,
    main_auth_id     TEXT    NOT NULL,
    -- message, escalation, missed_call, quality, number or delivery.
    kind             TEXT    NOT NULL,
    text             TEXT    NOT NULL,
    -- The number, user, conversation and call that it is about, where they apply.
    number           TEXT,
    wa_id            TEXT,
    conversation_id  TEXT,
    call_uuid        TEXT,
    created_us       BIGINT  NOT NULL,
    read_us          BIGINT
);
-- Lists of notifications: of a main account, of a subaccount.
CREATE INDEX notices_of_main_account ON notices (main_auth_id, created_us DESC, notice_id);
CREATE INDEX notices_of_account ON notices (auth_id, created_us DESC, notice_id);
-- The number of unread notifications.
CREATE INDEX notices_unread ON notices (main_auth_id, auth_id) WHERE read_us IS NULL;
-- Erasure of a user.
CREATE INDEX notices_of_person ON notices (main_auth_id, wa_id) WHERE wa_id IS NOT NULL;

-- Users whose data is to be erased. A row is deleted when nothing of the user is left.
CREATE TABLE erasures (
    erasure_id    TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    wa_id         TEXT    NOT NULL,
    -- JSON list of the user's other ids, collected before the conversations are deleted.
    known_as      TEXT    NOT NULL DEFAULT '[]',
    asked_us      BIGINT  NOT NULL
);

-- The audit trail: changes made over the APIs or in the console, and refused sign-ins. Rows are only added, and deleted
-- when they are older than retention.audit_days.
CREATE TABLE audit (
    audit_id      TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    at_us         BIGINT  NOT NULL,
    -- The person, API key or token that made the change.
    actor         TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    object        TEXT    NOT NULL,
    -- Network address of the client.
    source        TEXT    NOT NULL,
    -- JSON object with `before` and `after`, without secrets.
    detail        TEXT    NOT NULL
);
-- The trail: of a main account, of a subaccount.
CREATE INDEX audit_of_main_account ON audit (main_auth_id, at_us DESC, audit_id);
CREATE INDEX audit_of_account ON audit (auth_id, at_us DESC, audit_id);
-- Entries past the retention time.
CREATE INDEX audit_by_time ON audit (at_us);


-- API requests -------------------------------------------------------------------------------------------------------

-- Responses to POST requests with an Idempotency-Key, which a repeated request gets again.
CREATE TABLE answers_given (
    -- SHA-256 of the caller, the path and the key.
    digest        BLOB    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- The conversation or user that the response is about: deleted with it.
    about         TEXT,
    -- Sealed: a response may contain a new secret.
    answer        BLOB    NOT NULL,
    given_us      BIGINT  NOT NULL,
    until_us      BIGINT  NOT NULL
);
-- Expired responses.
CREATE INDEX answers_given_until ON answers_given (until_us);
-- Responses of an account beyond the number that is kept.
CREATE INDEX answers_given_of_account ON answers_given (auth_id, given_us);
-- Erasure of a user, deletion of a conversation.
CREATE INDEX answers_given_about ON answers_given (about) WHERE about IS NOT NULL;


-- Certificates -------------------------------------------------------------------------------------------------------

-- Certificates from a certificate authority, and what is needed to get them.
CREATE TABLE certificates (
    -- account, certificate, challenge or claim.
    kind     TEXT   NOT NULL,
    -- account: the authority's directory. certificate, claim: directory and host names. challenge: a host name.
    id       TEXT   NOT NULL,
    -- account: the mail address. certificate: the chain in PEM form. challenge: the token. claim: the holder.
    body     TEXT   NOT NULL,
    -- The account's or the certificate's private key, or the content of a challenge, sealed with the store's key.
    sealed   BLOB,
    -- certificate: the end of its validity. claim: until then, no other node orders a certificate.
    until_us BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);


-- The store itself ---------------------------------------------------------------------------------------------------

-- The version of Offhook that first applied each migration. An older version names it when it refuses the store.
CREATE TABLE store_versions (
    schema   BIGINT NOT NULL PRIMARY KEY,
    offhook  TEXT   NOT NULL
);

-- How many entries of a journal were replayed, updated in the same transaction: each entry is applied once.
CREATE TABLE store_journals (
    journal  TEXT   NOT NULL PRIMARY KEY,
    replayed BIGINT NOT NULL
) WITHOUT ROWID;
