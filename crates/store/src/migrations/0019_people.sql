-- People who sign in to the console, and keys of the number API that were made while the node runs. Times are microseconds
-- since 1970, UTC. Of what somebody proves themselves with only digests are here: SHA-256 of sessions, links and keys, which
-- are random, Argon2id of passwords.

CREATE TABLE users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    -- The account or subaccount they are of, and its main account.
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- What they sign in with: once a node.
    name          TEXT    NOT NULL UNIQUE,
    full_name     TEXT    NOT NULL,
    -- owner, admin, agent
    role          TEXT    NOT NULL,
    -- NULL: invited, and not come yet.
    password      TEXT,
    -- Their own WhatsApp number, for sandbox numbers.
    wa_id         TEXT,
    -- 1: it stands in the configuration, which wins.
    in_file       INTEGER NOT NULL,
    created_us    BIGINT  NOT NULL
);

CREATE INDEX users_of_main_account ON users (main_auth_id, created_us DESC, user_id);
CREATE INDEX users_of_account ON users (auth_id, created_us DESC, user_id);

CREATE TABLE sessions (
    digest        TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    begun_us      BIGINT  NOT NULL,
    -- When it was used last, to within some minutes.
    seen_us       BIGINT  NOT NULL
);

CREATE INDEX sessions_of_user ON sessions (user_id);

-- Links by which somebody who was invited sets a password, once.
CREATE TABLE invitations (
    digest        TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    expires_us    BIGINT  NOT NULL
);

CREATE INDEX invitations_of_user ON invitations (user_id);

CREATE TABLE api_keys (
    key_id        TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    -- The last characters, by which people tell it from others.
    ending        TEXT    NOT NULL,
    digest        TEXT    NOT NULL UNIQUE,
    role          TEXT    NOT NULL,
    wa_id         TEXT,
    created_us    BIGINT  NOT NULL
);

CREATE INDEX api_keys_of_main_account ON api_keys (main_auth_id, created_us DESC, key_id);
CREATE INDEX api_keys_of_account ON api_keys (auth_id, created_us DESC, key_id);
