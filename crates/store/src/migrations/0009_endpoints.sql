-- Endpoints: named phones of an account's people (`plivo-xml.md` §6). Times are microseconds since 1970, UTC.

CREATE TABLE endpoints (
    endpoint_id   TEXT    NOT NULL PRIMARY KEY,
    -- The owner, and its main account (the same where the owner is one).
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- Once a node, since phones log in by it alone.
    username      TEXT    NOT NULL UNIQUE,
    alias         TEXT    NOT NULL,
    -- Argon2id, as `store::password` writes it.
    password      TEXT    NOT NULL,
    app_id        TEXT,
    created_us    BIGINT  NOT NULL
);

CREATE INDEX endpoints_of_main_account ON endpoints (main_auth_id, created_us DESC, endpoint_id);
CREATE INDEX endpoints_of_account ON endpoints (auth_id, created_us DESC, endpoint_id);
