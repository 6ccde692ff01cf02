-- The schema of the store for PostgreSQL. sqlite/0001_schema.sql is its twin: same tables, columns and indexes, except
-- for the fleet at the end.
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
    hangup_code        BIGINT,
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
    farewell_tries     BIGINT
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
    body       BYTEA   NOT NULL,
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
    hangup_code    BIGINT  NOT NULL,
    hangup_source  TEXT    NOT NULL,
    node_id        TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    PRIMARY KEY (scope, hour, auth_id, direction, hangup_code, hangup_source, node_id)
);

-- The same per day, with the duration of the longest call.
CREATE TABLE call_days (
    scope          TEXT    NOT NULL,
    day            BIGINT  NOT NULL,
    auth_id        TEXT    NOT NULL,
    direction      TEXT    NOT NULL,
    hangup_code    BIGINT  NOT NULL,
    hangup_source  TEXT    NOT NULL,
    node_id        TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    longest_us     BIGINT  NOT NULL,
    PRIMARY KEY (scope, day, auth_id, direction, hangup_code, hangup_source, node_id)
);

-- Counts a call when it ends.
CREATE FUNCTION tally_call_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO call_hours SELECT scope, NEW.started_us / 3600000000, NEW.auth_id, NEW.direction,
            coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1
        FROM (SELECT NEW.main_auth_id AS scope UNION SELECT NEW.auth_id) AS scopes
        ON CONFLICT (scope, hour, auth_id, direction, hangup_code, hangup_source, node_id)
        DO UPDATE SET calls = call_hours.calls + 1;
    INSERT INTO call_days SELECT scope, NEW.started_us / 86400000000, NEW.auth_id, NEW.direction,
            coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), NEW.node_id, 1,
            NEW.ended_us - NEW.started_us
        FROM (SELECT NEW.main_auth_id AS scope UNION SELECT NEW.auth_id) AS scopes
        ON CONFLICT (scope, day, auth_id, direction, hangup_code, hangup_source, node_id)
        DO UPDATE SET calls = call_days.calls + 1, longest_us = greatest(call_days.longest_us, excluded.longest_us);
    RETURN NULL;
END $$;
CREATE TRIGGER call_ended AFTER UPDATE OF ended_us ON calls FOR EACH ROW
    WHEN (OLD.ended_us IS NULL AND NEW.ended_us IS NOT NULL) EXECUTE FUNCTION tally_call_ended();

-- Takes a deleted call out of the counts.
CREATE FUNCTION tally_call_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE call_hours SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND hour = OLD.started_us / 3600000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '')
        AND node_id = OLD.node_id;
    UPDATE call_days SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND day = OLD.started_us / 86400000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '')
        AND node_id = OLD.node_id;
    RETURN NULL;
END $$;
CREATE TRIGGER call_forgotten AFTER DELETE ON calls FOR EACH ROW
    WHEN (OLD.ended_us IS NOT NULL) EXECUTE FUNCTION tally_call_forgotten();

-- The last heartbeat of each node on its steady clock: orphans of a dead node are taken to have ended then.
CREATE TABLE nodes (
    node_id   TEXT   NOT NULL PRIMARY KEY,
    alive_us  BIGINT NOT NULL
);

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
    multi_party      BIGINT  NOT NULL DEFAULT 0,
    -- 'wav' or 'mp3', with one channel or two.
    format           TEXT    NOT NULL,
    stereo           BIGINT  NOT NULL,
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
    id            BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
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
    sealed_params BYTEA,
    created_us    BIGINT  NOT NULL,
    -- Start of the 24 hours in which it is retried: its creation, or an operator's retry.
    since_us      BIGINT  NOT NULL,
    attempts      BIGINT  NOT NULL DEFAULT 0,
    -- Retries of the schedule since since_us.
    retries       BIGINT  NOT NULL DEFAULT 0,
    -- When it is due. NULL once it is done.
    next_us       BIGINT,
    -- When it was delivered or given up, and which of the two.
    done_us       BIGINT,
    delivered     BIGINT  NOT NULL DEFAULT 0,
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
    sealed       BYTEA  NOT NULL,
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
    key      BYTEA   NOT NULL,
    -- 0: an event; 1: a tombstone.
    kind     BIGINT  NOT NULL,
    seen_us  BIGINT  NOT NULL,
    PRIMARY KEY (seen_us, key)
);

-- Keys whose events could not be processed: the key does not count if it was seen up to this time.
CREATE TABLE webhook_keys_removed (
    key      BYTEA   NOT NULL PRIMARY KEY,
    until_us BIGINT  NOT NULL
);

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
);

-- Users' replies to permission requests, including those that were too old to apply.
CREATE TABLE permission_replies (
    phone_number_id TEXT    NOT NULL,
    message_id      TEXT    NOT NULL,
    "user"          TEXT    NOT NULL,
    -- JSON.
    reply           TEXT    NOT NULL,
    -- Whether the reply changed the permission.
    applied         BIGINT  NOT NULL,
    came_us         BIGINT  NOT NULL,
    PRIMARY KEY (phone_number_id, message_id)
);
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
    sealed     BYTEA,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);

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
    sealed        BYTEA,
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
    in_file       BIGINT  NOT NULL,
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
);

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
    digest        BYTEA   NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- The conversation or user that the response is about: deleted with it.
    about         TEXT,
    -- Sealed: a response may contain a new secret.
    answer        BYTEA   NOT NULL,
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
    sealed   BYTEA,
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
);


-- Fleet --------------------------------------------------------------------------------------------------------------

-- Several nodes on this database: who they are, and which units of limits each of them holds. SQLite has none of this.
-- A limit is a number's slots or an account's calls per second; a unit is one of them. crates/fleet has the rules, and
-- a twin of these functions that tests compare them with. A function's meaning never changes under its name: nodes of
-- two versions work on one database, so another meaning gets another name (oh2_beat).
--
-- Locks are taken in one order, so that no two transactions wait for each other: fleet, runs, limits by key.

-- One row. The term is the random name of an unbroken memory of units. It belongs to one life of a primary, the mark:
-- another primary may have forgotten units, and begins a closed term, in which nobody gets more units until all runs
-- have stated what they hold.
CREATE TABLE fleet (
    one      BOOLEAN NOT NULL PRIMARY KEY DEFAULT TRUE CHECK (one),
    mark     TEXT    NOT NULL,
    term     UUID    NOT NULL,
    open     BOOLEAN NOT NULL,
    -- Number of changes of what nodes keep in memory, and of the table of runs.
    book     BIGINT  NOT NULL DEFAULT 0,
    members  BIGINT  NOT NULL DEFAULT 0
);
INSERT INTO fleet (mark, term, open) VALUES ('', gen_random_uuid(), FALSE);

-- Each node keeps these tables in memory. Whoever changes them counts the change, and the next beat of each node tells
-- it to read them again. Deferred, because a transaction that holds the row of the fleet must not wait for any other.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Once per transaction: the row's version is then of this one.
    UPDATE fleet SET book = book + 1 WHERE xmin <> pg_current_xact_id()::xid;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER settings_changed AFTER INSERT OR UPDATE OR DELETE ON settings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER api_keys_changed AFTER INSERT OR UPDATE OR DELETE ON api_keys
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER webhooks_changed AFTER INSERT OR UPDATE OR DELETE ON webhooks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER number_routing_changed AFTER INSERT OR UPDATE OR DELETE ON number_routing
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER certificates_changed AFTER INSERT OR UPDATE OR DELETE ON certificates
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER number_tenures_changed AFTER INSERT OR UPDATE OR DELETE ON number_tenures
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
-- Open connections of people check their sessions again.
CREATE CONSTRAINT TRIGGER sessions_ended AFTER DELETE ON sessions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();

-- One row per process. state is 'up', 'draining', 'left', 'dead' or 'reaped'. seq is the number of its newest beat.
-- restated is the term in which it has stated everything that it holds. about is JSON: what it says about itself.
CREATE TABLE runs (
    run       UUID   NOT NULL PRIMARY KEY,
    node_id   TEXT   NOT NULL,
    state     TEXT   NOT NULL,
    seq       BIGINT NOT NULL,
    restated  UUID,
    about     TEXT   NOT NULL
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX runs_of_node ON runs (node_id) WHERE state IN ('up', 'draining');

-- The number of each run's last batch of writes, counted in the batch's own transaction. After a failover, a run writes
-- again what follows. The row of a dead run is deleted before its calls are ended, and without it a run writes nothing.
CREATE TABLE run_batches (
    run    UUID   NOT NULL PRIMARY KEY,
    batch  BIGINT NOT NULL
) WITH (fillfactor = 50);

-- The caps of limits: 'n:' and a phone number id, or 'a:' and an account or subaccount. The row to lock.
CREATE TABLE limits (
    key  TEXT NOT NULL PRIMARY KEY,
    cap  INT  NOT NULL
);

-- What a run holds of a limit, and what it wants and did not get.
CREATE TABLE units (
    key   TEXT NOT NULL,
    run   UUID NOT NULL,
    held  INT  NOT NULL,
    wish  INT  NOT NULL,
    PRIMARY KEY (key, run)
) WITH (fillfactor = 50);
CREATE INDEX units_of_run ON units (run);

-- Tells one life of a primary from another: a server starts anew before it is promoted, and a table that is restored
-- has another file.
CREATE FUNCTION oh1_mark() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws('.', extract(epoch FROM pg_postmaster_start_time()),
        (SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode('units'))
$$;

-- Writes the row of a run. An earlier run of the node is dead by that; the caller knows that it has ended. If the
-- database has lost the row, it is written again in a closed term only: in an open one, the run's units may be
-- somebody else's. The first run of all opens the first term, because nobody can hold forgotten units.
CREATE FUNCTION oh1_register(me uuid, my_node text, my_about text, again boolean,
    OUT registered boolean, OUT term uuid, OUT open boolean, OUT book bigint, OUT members bigint)
LANGUAGE plpgsql AS $$
DECLARE
    f fleet;
    m text := oh1_mark();
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT * INTO f FROM fleet FOR UPDATE;
    IF f.mark <> m THEN
        UPDATE fleet SET mark = m, term = gen_random_uuid(), open = (f.mark = '') RETURNING * INTO f;
    END IF;
    registered := EXISTS (SELECT 1 FROM runs r WHERE r.run = me);
    IF NOT registered AND NOT (again AND f.open) THEN
        UPDATE runs r SET state = 'dead' WHERE r.node_id = my_node AND r.state IN ('up', 'draining');
        INSERT INTO runs (run, node_id, state, seq, about) VALUES (me, my_node, 'up', 0, my_about);
        INSERT INTO run_batches (run, batch) VALUES (me, 0) ON CONFLICT DO NOTHING;
        UPDATE fleet SET members = f.members + 1 RETURNING * INTO f;
        registered := TRUE;
    END IF;
    term := f.term; open := f.open; book := f.book; members := f.members;
END $$;

-- A beat: proves that a run lives, and moves units. keys and wants belong together, as do the arrays in the answer.
-- The limits are locked by one statement and the units summed by a later one: in one statement, the sum would be of a
-- snapshot that is older than the lock, and two runs would get the same unit.
CREATE FUNCTION oh1_beat(me uuid, my_term uuid, refused uuid, my_seq bigint, acked bigint, whole boolean,
    may_open boolean, keys text[], wants int[],
    OUT verdict text, OUT term uuid, OUT open boolean, OUT book bigint, OUT members bigint,
    OUT held int[], OUT caps int[], OUT others int[], OUT wishes int[])
LANGUAGE plpgsql AS $$
DECLARE
    f fleet;
    n runs;
    m text := oh1_mark();
    limit_cap int;
    mine int;
    of_others int;
    wanted int;
    granted int;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'oh1_beat needs the isolation level read committed';
    END IF;
    PERFORM set_config('synchronous_commit', 'on', true);

    -- Whose memory is this?
    SELECT * INTO f FROM fleet;
    IF f.mark <> m OR f.term = refused OR (may_open AND NOT f.open) THEN
        SELECT * INTO f FROM fleet FOR UPDATE;
        IF f.mark <> m OR f.term = refused THEN
            UPDATE fleet SET mark = m, term = gen_random_uuid(), open = FALSE RETURNING * INTO f;
        ELSIF may_open AND my_term = f.term AND NOT EXISTS (SELECT 1 FROM runs r
            WHERE r.state IN ('up', 'draining', 'dead') AND r.restated IS DISTINCT FROM f.term) THEN
            UPDATE fleet SET open = TRUE RETURNING * INTO f;
        END IF;
    END IF;
    term := f.term; open := f.open; book := f.book; members := f.members;

    -- Who asks?
    SELECT * INTO n FROM runs r WHERE r.run = me FOR UPDATE;
    IF NOT FOUND THEN
        verdict := CASE WHEN f.open THEN 'DEAD' ELSE 'UNKNOWN' END;
        RETURN;
    ELSIF n.state NOT IN ('up', 'draining') THEN
        verdict := 'DEAD';
        RETURN;
    ELSIF n.seq < acked AND my_term = f.term THEN
        verdict := 'LOST';
        RETURN;
    ELSIF n.seq >= my_seq THEN
        verdict := 'OLD';
        RETURN;
    END IF;
    UPDATE runs r SET seq = my_seq,
        restated = CASE WHEN whole AND my_term = f.term THEN f.term ELSE r.restated END WHERE r.run = me;
    IF my_term <> f.term OR (n.restated IS DISTINCT FROM f.term AND NOT whole) THEN
        verdict := 'TERM';
        RETURN;
    END IF;

    -- What does it get?
    PERFORM 1 FROM limits l
        WHERE l.key = ANY (keys) OR (whole AND l.key IN (SELECT u.key FROM units u WHERE u.run = me))
        ORDER BY l.key FOR UPDATE;
    IF whole THEN
        DELETE FROM units u WHERE u.run = me;
    END IF;
    FOR i IN 1 .. coalesce(cardinality(keys), 0) LOOP
        SELECT l.cap INTO limit_cap FROM limits l WHERE l.key = keys[i];
        SELECT coalesce(sum(u.held) FILTER (WHERE u.run = me), 0), coalesce(sum(u.held) FILTER (WHERE u.run <> me), 0),
            coalesce(sum(u.wish) FILTER (WHERE u.run <> me), 0)
            INTO mine, of_others, wanted FROM units u WHERE u.key = keys[i];
        granted := CASE
            WHEN whole OR wants[i] <= mine THEN wants[i]
            WHEN f.open THEN mine + least(wants[i] - mine, greatest(0, coalesce(limit_cap, 0) - of_others - mine))
            ELSE mine END;
        INSERT INTO units AS u (key, run, held, wish) VALUES (keys[i], me, granted, wants[i] - granted)
            ON CONFLICT ON CONSTRAINT units_pkey DO UPDATE SET held = excluded.held, wish = excluded.wish;
        held[i] := granted; caps[i] := limit_cap; others[i] := of_others; wishes[i] := wanted;
    END LOOP;
    verdict := 'OK';
END $$;

-- Declares a run dead, unless it has beaten since its seq was read.
CREATE FUNCTION oh1_declare_dead(gone uuid, seen bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM 1 FROM fleet FOR UPDATE;
    UPDATE runs SET state = 'dead' WHERE run = gone AND seq = seen AND state IN ('up', 'draining');
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    UPDATE fleet SET members = members + 1;
    RETURN TRUE;
END $$;

-- Gives back the units of a run: of a dead one whose calls have ended ('reaped'), or of one that has no calls and ends
-- ('left').
CREATE FUNCTION oh1_give_back(gone uuid, become text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM 1 FROM fleet FOR UPDATE;
    UPDATE runs SET state = become WHERE run = gone
        AND CASE become WHEN 'reaped' THEN state = 'dead' WHEN 'left' THEN state IN ('up', 'draining') END;
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    PERFORM 1 FROM limits l WHERE l.key IN (SELECT u.key FROM units u WHERE u.run = gone) ORDER BY l.key FOR UPDATE;
    DELETE FROM units WHERE run = gone;
    UPDATE fleet SET members = members + 1;
    RETURN TRUE;
END $$;
CREATE FUNCTION oh1_release(gone uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT oh1_give_back(gone, 'reaped') $$;
CREATE FUNCTION oh1_leave(me uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT oh1_give_back(me, 'left') $$;

-- Users who are in a call, or are about to be called, by business number. One call at a time is placed to a user. Rows
-- of runs that have left or whose calls have ended do not count.
CREATE TABLE engagements (
    engagement       UUID     NOT NULL PRIMARY KEY,
    phone_number_id  TEXT     NOT NULL,
    "user"           TEXT     NOT NULL,
    outbound         BOOLEAN  NOT NULL,
    run              UUID     NOT NULL
);
CREATE UNIQUE INDEX engagements_outbound ON engagements (phone_number_id, "user") WHERE outbound;
CREATE INDEX engagements_of_pair ON engagements (phone_number_id, "user");
CREATE INDEX engagements_of_run ON engagements (run);

-- The run that hosts each live room: a conference or a multi-party call. A row of a run that is no member any more does
-- not count.
CREATE TABLE room_hosts (
    auth_id       TEXT  NOT NULL,
    kind          TEXT  NOT NULL,
    name          TEXT  NOT NULL,
    main_auth_id  TEXT  NOT NULL,
    room          UUID  NOT NULL,
    run           UUID  NOT NULL,
    PRIMARY KEY (auth_id, kind, name)
);
CREATE UNIQUE INDEX room_hosts_room ON room_hosts (room);
CREATE INDEX room_hosts_of_run ON room_hosts (run);
-- Files on the disks of nodes that were deleted at other nodes. Each node removes its own, and then the row.
CREATE TABLE files_to_remove (
    id       BIGINT  NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    -- The node's name.
    node_id  TEXT    NOT NULL,
    -- The id of a recording, or of a message.
    file     TEXT    NOT NULL,
    -- Of a recording: its format.
    format   TEXT
);
CREATE INDEX files_to_remove_of_node ON files_to_remove (node_id, id);

-- Outbound calls that wait for the calls per second of their account. The owner of a row has the call in its queue. It
-- deletes the row before it places the call; if it dies, a survivor becomes the owner. Rows of ended calls do not count.
CREATE TABLE waiting_calls (
    call_uuid   TEXT        NOT NULL PRIMARY KEY,
    seq         BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY,
    node_id     TEXT        NOT NULL,
    -- The account in whose queue it is.
    auth_id     TEXT        NOT NULL,
    engagement  UUID,
    -- It is not placed before.
    due         TIMESTAMPTZ NOT NULL
);
CREATE INDEX waiting_calls_of_owner ON waiting_calls (node_id, seq);
CREATE INDEX waiting_calls_of_account ON waiting_calls (auth_id);

-- Writes the rows and the open records of outbound calls of an account, unless more than most would wait.
CREATE FUNCTION oh1_enqueue(owner text, account text, most bigint, born bigint, orders jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- All nodes count the calls of an account one after the other.
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || ' waiting ' || account, 0));
    IF (SELECT count(*) FROM waiting_calls w WHERE w.auth_id = account) + jsonb_array_length(orders) > most THEN
        RETURN false;
    END IF;
    INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, caller_name,
            phone_number_id, parent_call_uuid, node_id, started_us, setup, born_us)
        SELECT o.call_uuid, account, o.main_auth_id, 'outbound', o.call_type, o.from_number, o.to_number, o.caller_name,
            o.phone_number_id, o.parent_call_uuid, owner, o.started_us, o.setup, born
        FROM jsonb_to_recordset(orders) AS o (call_uuid text, main_auth_id text, call_type text, from_number text,
            to_number text, caller_name text, phone_number_id text, parent_call_uuid text, started_us bigint, setup text)
        ON CONFLICT (call_uuid) DO NOTHING;
    INSERT INTO waiting_calls (call_uuid, node_id, auth_id, engagement, due)
        SELECT o.call_uuid, owner, account, o.engagement, clock_timestamp() + o.delay_ms * interval '1 millisecond'
        FROM jsonb_to_recordset(orders) AS o (call_uuid text, engagement uuid, delay_ms bigint);
    RETURN true;
END $$;

-- Whose an inbound call is, from its first webhook until some time after its row in calls was written. Without a call,
-- a tombstone: the call was over before its connect came.
CREATE TABLE claims (
    -- 16 bytes of a hash of the number and Meta's id of the call.
    key    BYTEA       NOT NULL PRIMARY KEY,
    run    UUID        NOT NULL,
    call   UUID,
    -- Sealed: from what a survivor ends the call if its run dies before the row is written.
    birth  BYTEA,
    at     TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX claims_of_run ON claims (run, at);
-- The calls that claims are compared with. If two nodes begin a call without the database, one of them gets the row.
CREATE UNIQUE INDEX calls_wacid ON calls (phone_number_id, wacid) WHERE wacid IS NOT NULL;

-- Makes the unfinished work of one owner that of another one. Owners are nodes, or runs of a fleet. Returns the number
-- of rows. A recording stays with the node that has its file.
CREATE FUNCTION oh1_adopt(theirs text, mine text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
    total bigint := 0;
BEGIN
    -- One owner gets everything, so that the callbacks of a call stay in order.
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || ' adopt ' || theirs, 0));
    UPDATE callbacks SET node_id = mine WHERE node_id = theirs AND next_us IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE calls SET farewell_node = mine, farewell_us = 0
        WHERE farewell_us IS NOT NULL AND coalesce(farewell_node, node_id) = theirs;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE messages SET node_id = mine WHERE node_id = theirs AND status = 'queued';
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE turns SET node_id = mine WHERE node_id = theirs;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    DELETE FROM nodes WHERE node_id = theirs;
    RETURN total;
END $$;

-- Makes the recordings of a node's earlier processes, whose files are on its disk, those of mine. Returns the owners
-- whose other work is unfinished.
CREATE FUNCTION oh1_inherit(my_node text, mine text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE recordings SET node_id = mine WHERE (node_id = my_node OR starts_with(node_id, my_node || '/')) AND node_id <> mine
        AND (ended_us IS NULL OR upload_us IS NOT NULL OR transcribe_us IS NOT NULL);
    RETURN QUERY SELECT owner FROM (
        SELECT node_id FROM calls WHERE ended_us IS NULL
        UNION SELECT coalesce(farewell_node, node_id) FROM calls WHERE farewell_us IS NOT NULL
        UNION SELECT node_id FROM callbacks WHERE next_us IS NOT NULL
        UNION SELECT node_id FROM multi_party_calls_open
        UNION SELECT node_id FROM messages WHERE status = 'queued'
        UNION SELECT node_id FROM turns) AS owners (owner)
        WHERE (owner = my_node OR starts_with(owner, my_node || '/')) AND owner <> mine;
END $$;
