-- Sign-in names are unique within a main account, no longer on the whole node. SQLite cannot drop the old constraint,
-- so the table is replaced.
CREATE TABLE users_next (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- The sign-in name.
    name          TEXT    NOT NULL,
    full_name     TEXT    NOT NULL,
    -- owner, admin or agent.
    role          TEXT    NOT NULL,
    -- An Argon2id hash. NULL until the invitation is accepted.
    password      TEXT,
    -- The person's own WhatsApp number, for sandbox numbers.
    wa_id         TEXT,
    -- 1: defined in the configuration file, which takes precedence.
    in_file       INTEGER NOT NULL,
    created_us    BIGINT  NOT NULL
);
INSERT INTO users_next (user_id, auth_id, main_auth_id, name, full_name, role, password, wa_id, in_file, created_us)
    SELECT user_id, auth_id, main_auth_id, name, full_name, role, password, wa_id, in_file, created_us FROM users;
DROP TABLE users;
ALTER TABLE users_next RENAME TO users;
CREATE UNIQUE INDEX users_by_name ON users (name, main_auth_id);
-- Lists of people: of a main account, of a subaccount.
CREATE INDEX users_of_main_account ON users (main_auth_id, created_us DESC, user_id);
CREATE INDEX users_of_account ON users (auth_id, created_us DESC, user_id);
