-- What users allow business numbers: one row for each (business number, user) of which anything is in force.
-- Times are microseconds since 1970, UTC.

CREATE TABLE permissions (
    phone_number_id TEXT    NOT NULL,
    -- Digits, or a business-scoped id where the user hides the number.
    user            TEXT    NOT NULL,
    -- none, requested, temporary, permanent: for people and their queries; what has run out since is not seen in it.
    state           TEXT    NOT NULL,
    -- JSON: the state with its times, and what counts against the limits.
    pair            TEXT    NOT NULL,
    updated_us      BIGINT  NOT NULL,
    PRIMARY KEY (phone_number_id, user)
) WITHOUT ROWID;

-- Users' answers as they came, those that were too old to change anything included.
CREATE TABLE permission_replies (
    phone_number_id TEXT    NOT NULL,
    message_id      TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    -- JSON.
    reply           TEXT    NOT NULL,
    -- Whether it changed the row.
    applied         INTEGER NOT NULL,
    came_us         BIGINT  NOT NULL,
    PRIMARY KEY (phone_number_id, message_id)
) WITHOUT ROWID;

CREATE INDEX permission_replies_came ON permission_replies (came_us);
