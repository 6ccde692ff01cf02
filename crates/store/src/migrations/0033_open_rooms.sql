-- Multi-party calls that are up, and who is in: what the next start ends of those that their process left when it died.
-- Times are microseconds since 1970, UTC.

CREATE TABLE multi_party_calls_open (
    mpc_uuid  TEXT    NOT NULL PRIMARY KEY,
    node_id   TEXT    NOT NULL,
    -- On the clock of the nodes' signs of life.
    born_us   BIGINT  NOT NULL,
    -- JSON, as of those that are over; nobody's number is in it.
    body      TEXT    NOT NULL
);

CREATE INDEX multi_party_calls_open_of_node ON multi_party_calls_open (node_id);

CREATE TABLE participants_open (
    mpc_uuid   TEXT    NOT NULL,
    member_id  BIGINT  NOT NULL,
    -- It has left.
    left_us    BIGINT,
    body       TEXT    NOT NULL,
    PRIMARY KEY (mpc_uuid, member_id)
);
