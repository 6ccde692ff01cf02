-- Lists of ended calls by index, also where there are millions (plivo-call-api.md 2.3): indexes that hold what is
-- filtered by, and tallies that say how many calls there are and where in the list a page begins.

DROP INDEX calls_of_main_account;
DROP INDEX calls_of_account;
DROP INDEX calls_from;
DROP INDEX calls_to;
DROP INDEX calls_ended;

CREATE INDEX calls_list ON calls
    (main_auth_id, started_us DESC, call_uuid, auth_id, direction, hangup_code, hangup_source, bill_secs, ended_us)
    WHERE ended_us IS NOT NULL;
CREATE INDEX calls_list_sub ON calls
    (auth_id, started_us DESC, call_uuid, direction, hangup_code, hangup_source, bill_secs, ended_us)
    WHERE ended_us IS NOT NULL AND auth_id <> main_auth_id;
CREATE INDEX calls_list_from ON calls
    (from_number, main_auth_id, started_us DESC, call_uuid, auth_id, direction) WHERE ended_us IS NOT NULL;
CREATE INDEX calls_list_to ON calls
    (to_number, main_auth_id, started_us DESC, call_uuid, auth_id, direction) WHERE ended_us IS NOT NULL;
CREATE INDEX calls_parent ON calls (parent_call_uuid) WHERE parent_call_uuid IS NOT NULL;

-- Ended calls that began in one hour, or on one day (numbered from 1970, UTC), of a scope: a main account, its
-- subaccounts' among them, or a subaccount.
CREATE TABLE call_hours (
    scope          TEXT    NOT NULL,
    hour           BIGINT  NOT NULL,
    auth_id        TEXT    NOT NULL,
    direction      TEXT    NOT NULL,
    hangup_code    INTEGER NOT NULL,
    hangup_source  TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    PRIMARY KEY (scope, hour, auth_id, direction, hangup_code, hangup_source)
) WITHOUT ROWID;
CREATE TABLE call_days (
    scope          TEXT    NOT NULL,
    day            BIGINT  NOT NULL,
    auth_id        TEXT    NOT NULL,
    direction      TEXT    NOT NULL,
    hangup_code    INTEGER NOT NULL,
    hangup_source  TEXT    NOT NULL,
    calls          BIGINT  NOT NULL,
    -- From beginning to end, the longest of them.
    longest_us     BIGINT  NOT NULL,
    PRIMARY KEY (scope, day, auth_id, direction, hangup_code, hangup_source)
) WITHOUT ROWID;

CREATE TRIGGER call_ended AFTER UPDATE OF ended_us ON calls WHEN OLD.ended_us IS NULL AND NEW.ended_us IS NOT NULL
BEGIN
    INSERT INTO call_hours SELECT NEW.main_auth_id, NEW.started_us / 3600000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), 1 WHERE true
        ON CONFLICT DO UPDATE SET calls = calls + 1;
    INSERT INTO call_hours SELECT NEW.auth_id, NEW.started_us / 3600000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), 1 WHERE NEW.auth_id <> NEW.main_auth_id
        ON CONFLICT DO UPDATE SET calls = calls + 1;
    INSERT INTO call_days SELECT NEW.main_auth_id, NEW.started_us / 86400000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), 1, NEW.ended_us - NEW.started_us WHERE true
        ON CONFLICT DO UPDATE SET calls = calls + 1, longest_us = max(longest_us, excluded.longest_us);
    INSERT INTO call_days SELECT NEW.auth_id, NEW.started_us / 86400000000, NEW.auth_id, NEW.direction,
        coalesce(NEW.hangup_code, 0), coalesce(NEW.hangup_source, ''), 1, NEW.ended_us - NEW.started_us
        WHERE NEW.auth_id <> NEW.main_auth_id
        ON CONFLICT DO UPDATE SET calls = calls + 1, longest_us = max(longest_us, excluded.longest_us);
END;

-- What is forgotten is counted no more.
CREATE TRIGGER call_forgotten AFTER DELETE ON calls WHEN OLD.ended_us IS NOT NULL
BEGIN
    UPDATE call_hours SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND hour = OLD.started_us / 3600000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '');
    UPDATE call_days SET calls = calls - 1 WHERE scope IN (OLD.main_auth_id, OLD.auth_id)
        AND day = OLD.started_us / 86400000000 AND auth_id = OLD.auth_id AND direction = OLD.direction
        AND hangup_code = coalesce(OLD.hangup_code, 0) AND hangup_source = coalesce(OLD.hangup_source, '');
END;

-- The calls that are there already.
INSERT INTO call_hours
    SELECT main_auth_id, started_us / 3600000000, auth_id, direction, coalesce(hangup_code, 0),
        coalesce(hangup_source, ''), count(*)
    FROM calls WHERE ended_us IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO call_hours
    SELECT auth_id, started_us / 3600000000, auth_id, direction, coalesce(hangup_code, 0),
        coalesce(hangup_source, ''), count(*)
    FROM calls WHERE ended_us IS NOT NULL AND auth_id <> main_auth_id GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO call_days
    SELECT main_auth_id, started_us / 86400000000, auth_id, direction, coalesce(hangup_code, 0),
        coalesce(hangup_source, ''), count(*), max(ended_us - started_us)
    FROM calls WHERE ended_us IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO call_days
    SELECT auth_id, started_us / 86400000000, auth_id, direction, coalesce(hangup_code, 0),
        coalesce(hangup_source, ''), count(*), max(ended_us - started_us)
    FROM calls WHERE ended_us IS NOT NULL AND auth_id <> main_auth_id GROUP BY 1, 2, 3, 4, 5, 6;
