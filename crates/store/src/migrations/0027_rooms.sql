-- Rooms: which one a recording is of and which one a call was in, and multi-party calls that are over.

ALTER TABLE recordings ADD COLUMN room_uuid TEXT;
-- That room is a multi-party call, and no conference.
ALTER TABLE recordings ADD COLUMN multi_party INTEGER NOT NULL DEFAULT 0;

-- The conference that a call was in last.
ALTER TABLE calls ADD COLUMN conference_uuid TEXT;

CREATE TABLE multi_party_calls (
    mpc_uuid      TEXT    NOT NULL PRIMARY KEY,
    -- The owner, and its main account (the same where the owner is one).
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    ended_us      BIGINT  NOT NULL,
    -- JSON: all that is shown of it, nobody's number among it.
    body          TEXT    NOT NULL
);

CREATE INDEX multi_party_calls_by_end ON multi_party_calls (ended_us);
