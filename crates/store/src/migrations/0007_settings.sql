-- What is set while the node runs: subaccounts, applications, and what numbers, WABAs and accounts have beside their
-- configuration. Read whole at the start. Times are microseconds since 1970, UTC.

CREATE TABLE settings (
    -- account, application, waba, number
    kind       TEXT   NOT NULL,
    -- auth_id, app_id, Meta's id, digits
    id         TEXT   NOT NULL,
    -- JSON.
    body       TEXT   NOT NULL,
    -- A subaccount's token, sealed with the store's key.
    sealed     BLOB,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
