-- Agents, notifications, and people who are to be forgotten. Times are microseconds since 1970, UTC.

CREATE TABLE agents (
    agent_id      TEXT    NOT NULL PRIMARY KEY,
    -- The owner, and its main account (the same where the owner is one).
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- JSON, as `store::agents` reads it.
    body          TEXT    NOT NULL,
    -- Its secrets: JSON, sealed.
    sealed        BLOB,
    created_us    BIGINT  NOT NULL
);

CREATE INDEX agents_of_main_account ON agents (main_auth_id, created_us DESC, agent_id);
CREATE INDEX agents_of_account ON agents (auth_id, created_us DESC, agent_id);

CREATE TABLE notices (
    notice_id        TEXT    NOT NULL PRIMARY KEY,
    auth_id          TEXT    NOT NULL,
    main_auth_id     TEXT    NOT NULL,
    -- message, escalation, missed_call, quality, number, delivery.
    kind             TEXT    NOT NULL,
    text             TEXT    NOT NULL,
    -- What it is about, as far as there is any.
    number           TEXT,
    wa_id            TEXT,
    conversation_id  TEXT,
    call_uuid        TEXT,
    created_us       BIGINT  NOT NULL,
    read_us          BIGINT
);

CREATE INDEX notices_of_main_account ON notices (main_auth_id, created_us DESC, notice_id);
CREATE INDEX notices_of_account ON notices (auth_id, created_us DESC, notice_id);
CREATE INDEX notices_unread ON notices (main_auth_id, auth_id) WHERE read_us IS NULL;
CREATE INDEX notices_of_person ON notices (main_auth_id, wa_id) WHERE wa_id IS NOT NULL;

-- A row is there until nothing of the person's is left.
CREATE TABLE erasures (
    erasure_id    TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    wa_id         TEXT    NOT NULL,
    asked_us      BIGINT  NOT NULL
);
