-- Meta's events that were taken in, so that a copy which comes after a restart is known for one (R5).
-- Times are microseconds since 1970, UTC.

CREATE TABLE webhook_keys (
    -- 16 bytes of a hash of what identifies the event.
    key      BLOB    NOT NULL PRIMARY KEY,
    -- 0: an event; 1: a call that was over before it came.
    kind     INTEGER NOT NULL,
    seen_us  BIGINT  NOT NULL
) WITHOUT ROWID;

CREATE INDEX webhook_keys_seen ON webhook_keys (seen_us);
