-- Recordings: from the moment they begin, so that a process that dies leaves none without an end. Times are microseconds
-- since 1970, UTC.

CREATE TABLE recordings (
    recording_id     TEXT    NOT NULL PRIMARY KEY,
    -- The owner, and its main account (the same where the owner is one).
    auth_id          TEXT    NOT NULL,
    main_auth_id     TEXT    NOT NULL,
    call_uuid        TEXT    NOT NULL,
    -- Of a room's recording.
    conference_name  TEXT,
    -- 'wav' or 'mp3', one channel or two.
    format           TEXT    NOT NULL,
    stereo           INTEGER NOT NULL,
    -- Whose disk has the file.
    node_id          TEXT    NOT NULL,
    started_us       BIGINT  NOT NULL,

    -- While it is open: JSON of the requests that tell its end.
    notices          TEXT,

    -- All of the following are set at once, when it ends.
    ended_us         BIGINT,
    duration_ms      BIGINT,
    -- RecordingEndReason.
    end_reason       TEXT,

    -- When it is to be copied to other storage next, and what it is called there once it has been.
    upload_us        BIGINT,
    object           TEXT
);

CREATE INDEX recordings_of_main_account ON recordings (main_auth_id, started_us DESC, recording_id);
CREATE INDEX recordings_of_account ON recordings (auth_id, started_us DESC, recording_id);
CREATE INDEX recordings_of_call ON recordings (call_uuid);
CREATE INDEX recordings_by_age ON recordings (started_us);
CREATE INDEX recordings_open ON recordings (node_id) WHERE ended_us IS NULL;
CREATE INDEX recordings_to_upload ON recordings (upload_us) WHERE upload_us IS NOT NULL;
