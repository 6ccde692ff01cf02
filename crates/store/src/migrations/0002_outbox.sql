-- What a crash must not lose: calls from their beginning on, callbacks until they are delivered, Graph's word that a
-- call is over. Times are microseconds since 1970, UTC; those that something is due at follow the steady clock.

-- While a call is open: the JSON of its set-up, from which its end can be told without the process that ran it, and
-- the steady time of its beginning.
ALTER TABLE calls ADD COLUMN setup TEXT;
ALTER TABLE calls ADD COLUMN born_us BIGINT;
-- What Graph has still to be told about an ended call ('terminate', 'reject'), when next, and how often it was tried.
ALTER TABLE calls ADD COLUMN farewell TEXT;
ALTER TABLE calls ADD COLUMN farewell_us BIGINT;
ALTER TABLE calls ADD COLUMN farewell_tries INTEGER;
CREATE INDEX calls_farewell ON calls (farewell_us) WHERE farewell_us IS NOT NULL;

-- Callbacks that nothing waits for: written with what they report, kept for a while after they are done.
CREATE TABLE callbacks (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- X-Offhook-Event-Id, the same on every attempt.
    event_id      TEXT    NOT NULL,
    call_uuid     TEXT    NOT NULL,
    -- Whose tokens sign it.
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    node_id       TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    -- Scheme, host and port: whose queue it stands in.
    origin        TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    -- JSON objects; the values of the second are shown nowhere and wiped once delivered.
    params        TEXT    NOT NULL,
    secret_params TEXT,
    created_us    BIGINT  NOT NULL,
    -- Since when its 24 hours run: from its creation, or from an operator's "once more".
    since_us      BIGINT  NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    -- Retries of the schedule begun, since then.
    retries       INTEGER NOT NULL DEFAULT 0,
    -- When it is due, while it waits; no other column says that it does.
    next_us       BIGINT,
    done_us       BIGINT,
    -- Of a done one: whether it was delivered.
    delivered     INTEGER NOT NULL DEFAULT 0,
    -- How the last attempts ended, for people.
    last          TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX callbacks_due ON callbacks (node_id, origin, next_us) WHERE next_us IS NOT NULL;
CREATE INDEX callbacks_open_of_call ON callbacks (call_uuid) WHERE next_us IS NOT NULL;
CREATE INDEX callbacks_done ON callbacks (done_us) WHERE done_us IS NOT NULL;

-- The last sign of life of each node, on its steady clock: where the calls of a dead one ended.
CREATE TABLE nodes (
    node_id   TEXT   NOT NULL PRIMARY KEY,
    alive_us  BIGINT NOT NULL
) WITHOUT ROWID;
