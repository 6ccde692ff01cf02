-- Requests to URLs of customers that failed, for the list of errors. Bodies are in the event logs of the calls. Rows are
-- deleted when they are older than retention.event_log_days.
CREATE TABLE failed_requests (
    request_id    TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    at_us         BIGINT  NOT NULL,
    call_uuid     TEXT    NOT NULL,
    -- The name of its bar in the waterfall of the call, such as `fetch answer`.
    kind          TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    -- Without query and credentials.
    url           TEXT    NOT NULL,
    -- How it ended, in words.
    outcome       TEXT    NOT NULL,
    attempts      BIGINT  NOT NULL
);
CREATE INDEX failed_requests_of_main_account ON failed_requests (main_auth_id, at_us DESC, request_id);
CREATE INDEX failed_requests_of_account ON failed_requests (auth_id, at_us DESC, request_id);
CREATE INDEX failed_requests_of_call ON failed_requests (call_uuid);
CREATE INDEX failed_requests_by_time ON failed_requests (at_us);
