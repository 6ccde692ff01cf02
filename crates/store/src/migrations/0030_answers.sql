-- What was answered to POSTs that named an Idempotency-Key, for who asks again. Answers are sealed: some show a secret, once.
-- Times are microseconds since 1970, UTC.

CREATE TABLE answers_given (
    -- SHA-256 of who asked, the path and their key.
    digest        BLOB    NOT NULL PRIMARY KEY,
    -- Who asked, and its main account.
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- The conversation or the person that it tells of: it goes with them.
    about         TEXT,
    answer        BLOB    NOT NULL,
    given_us      BIGINT  NOT NULL,
    until_us      BIGINT  NOT NULL
);

CREATE INDEX answers_given_until ON answers_given (until_us);
CREATE INDEX answers_given_of_account ON answers_given (auth_id, given_us);
CREATE INDEX answers_given_about ON answers_given (about) WHERE about IS NOT NULL;
