-- The audit trail: changes made over the APIs or in the console, and refused sign-ins. Rows are only added, and deleted
-- when they are older than retention.audit_days.
CREATE TABLE audit (
    audit_id      TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    at_us         BIGINT  NOT NULL,
    -- The person, API key or token that made the change.
    actor         TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    object        TEXT    NOT NULL,
    -- Network address of the client.
    source        TEXT    NOT NULL,
    -- JSON object with `before` and `after`, without secrets.
    detail        TEXT    NOT NULL
);
CREATE INDEX audit_of_main_account ON audit (main_auth_id, at_us DESC, audit_id);
CREATE INDEX audit_of_account ON audit (auth_id, at_us DESC, audit_id);
CREATE INDEX audit_by_time ON audit (at_us);
