-- What users and businesses write to each other. Times are microseconds since 1970, UTC, by the wall clock.

-- One for each business number and user, with all that a list of them shows, so that listing looks at no message.
CREATE TABLE conversations (
    -- Made of number and user: `model::stable_id`.
    conversation_id TEXT   NOT NULL PRIMARY KEY,
    -- Whose number it is, and the main account.
    auth_id         TEXT   NOT NULL,
    main_auth_id    TEXT   NOT NULL,
    number          TEXT   NOT NULL,
    phone_number_id TEXT   NOT NULL,
    -- The user's digits, or their business-scoped id where they show none.
    user_id         TEXT   NOT NULL,
    bsuid           TEXT,
    name            TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    -- 'webhook', 'agent' or 'none', and which.
    routing         TEXT   NOT NULL,
    webhook         TEXT,
    agent           TEXT,
    -- Raised whenever an agent's answer that is under way must not be sent any more.
    epoch           BIGINT NOT NULL DEFAULT 0,
    -- 0: people only, the agent stays silent.
    ai_enabled      BIGINT NOT NULL DEFAULT 1,
    unread          BIGINT NOT NULL DEFAULT 0,
    last_text       TEXT   NOT NULL,
    last_direction  TEXT   NOT NULL,
    last_us         BIGINT NOT NULL,
    -- The user's last message or call: free-form messages may be sent for 24 hours from then.
    heard_us        BIGINT NOT NULL DEFAULT 0,
    sentiment       TEXT,
    score           DOUBLE PRECISION,
    summary         TEXT,
    insights_by     TEXT,
    insights_us     BIGINT,
    created_us      BIGINT NOT NULL
);
CREATE INDEX conversations_of_main_account ON conversations (main_auth_id, last_us DESC, conversation_id DESC);
CREATE INDEX conversations_of_account ON conversations (auth_id, last_us DESC, conversation_id DESC);
CREATE INDEX conversations_of_number ON conversations (number, last_us DESC, conversation_id DESC);
CREATE INDEX conversations_of_agent ON conversations (agent, last_us DESC, conversation_id DESC) WHERE agent IS NOT NULL;
CREATE INDEX conversations_unread ON conversations (main_auth_id, last_us DESC, conversation_id DESC) WHERE unread > 0;
CREATE INDEX conversations_put_away ON conversations (main_auth_id, status, last_us DESC, conversation_id DESC)
    WHERE status <> 'open';
CREATE INDEX conversations_of_user ON conversations (main_auth_id, user_id);

-- Messages both ways, and a line for each call: the timeline.
CREATE TABLE messages (
    -- A user's is made of number and wamid, so that a copy has the same.
    message_id      TEXT   NOT NULL PRIMARY KEY,
    conversation_id TEXT   NOT NULL,
    phone_number_id TEXT   NOT NULL,
    wamid           TEXT,
    direction       TEXT   NOT NULL,
    -- Meta's type; 'call' for a call.
    kind            TEXT   NOT NULL,
    -- For people and searches: what it says, in short.
    body            TEXT   NOT NULL,
    -- JSON: what its type holds, as Meta has it.
    content         TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    -- Meta's reason where it failed.
    error_code      BIGINT,
    error_text      TEXT,
    -- Who wrote it, of those that went out: an agent's id, or a word.
    sender          TEXT,
    came_us         BIGINT NOT NULL,
    changed_us      BIGINT NOT NULL
);
CREATE INDEX messages_of_conversation ON messages (conversation_id, came_us DESC, message_id DESC);
CREATE INDEX messages_sent ON messages (wamid) WHERE direction = 'outbound' AND wamid IS NOT NULL;
CREATE INDEX messages_under_way ON messages (phone_number_id) WHERE status = 'queued';
CREATE INDEX messages_came ON messages (came_us);

-- What new conversations of a number begin with, where it was set: read and changed in the transactions of messages, so
-- that no message slips between a number's old routing and its new one.
CREATE TABLE number_routing (
    phone_number_id TEXT NOT NULL PRIMARY KEY,
    routing         TEXT NOT NULL,
    webhook         TEXT,
    agent           TEXT
);
