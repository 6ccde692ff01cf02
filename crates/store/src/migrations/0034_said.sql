-- What an agent and the user say in a call that is up: it goes into their conversation when the call ends, by the next start
-- too, should this process die.

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
