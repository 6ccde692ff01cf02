-- Calls, ended and not, and what happened in each. Times are microseconds since 1970, UTC.
-- Forward only: a later release adds a file beside this one, this one never changes.

CREATE TABLE calls (
    call_uuid         TEXT    NOT NULL PRIMARY KEY,
    -- The owner, and its main account (the same where the owner is one).
    auth_id           TEXT    NOT NULL,
    main_auth_id      TEXT    NOT NULL,
    direction         TEXT    NOT NULL,
    call_type         TEXT    NOT NULL,
    from_number       TEXT    NOT NULL,
    to_number         TEXT    NOT NULL,
    caller_name       TEXT    NOT NULL,
    wacid             TEXT,
    phone_number_id   TEXT    NOT NULL,
    parent_call_uuid  TEXT,
    -- The node that owns the call for life.
    node_id           TEXT    NOT NULL,
    started_us        BIGINT  NOT NULL,

    -- All of the following are set at once, when the call ends.
    ended_us          BIGINT,
    answered_us       BIGINT,
    duration_secs     BIGINT,
    bill_secs         BIGINT,
    meta_duration_secs BIGINT,
    hangup_code       INTEGER,
    hangup_name       TEXT,
    hangup_source     TEXT,
    hangup_word       TEXT,
    -- Our own word.
    cause             TEXT,
    -- JSON: what happened and what to do about it; the documents' findings.
    remarks           TEXT,
    findings          TEXT
);

CREATE INDEX calls_of_main_account ON calls (main_auth_id, started_us DESC, call_uuid);
CREATE INDEX calls_of_account ON calls (auth_id, started_us DESC, call_uuid);
CREATE INDEX calls_from ON calls (from_number, started_us DESC);
CREATE INDEX calls_to ON calls (to_number, started_us DESC);
CREATE INDEX calls_ended ON calls (ended_us);
CREATE INDEX calls_open ON calls (node_id) WHERE ended_us IS NULL;

CREATE TABLE call_events (
    call_uuid  TEXT    NOT NULL,
    seq        BIGINT  NOT NULL,
    line       TEXT    NOT NULL,
    PRIMARY KEY (call_uuid, seq)
) WITHOUT ROWID;
