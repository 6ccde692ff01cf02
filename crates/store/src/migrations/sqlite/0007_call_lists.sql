-- How long the answer URL of a call took, and the agent that answered it.
ALTER TABLE calls ADD COLUMN answer_ms BIGINT;
ALTER TABLE calls ADD COLUMN agent_id TEXT;
-- Lists of ended calls by billed duration, and of the calls of an agent.
CREATE INDEX calls_by_length ON calls (main_auth_id, bill_secs DESC, call_uuid, started_us)
    WHERE ended_us IS NOT NULL;
CREATE INDEX calls_by_length_sub ON calls (auth_id, bill_secs DESC, call_uuid, started_us)
    WHERE ended_us IS NOT NULL AND auth_id <> main_auth_id;
CREATE INDEX calls_of_agent ON calls (agent_id, started_us DESC, call_uuid) WHERE agent_id IS NOT NULL;

-- Filters of the list of calls that users have saved.
CREATE TABLE saved_filters (
    user_id TEXT NOT NULL,
    name    TEXT NOT NULL,
    -- The query of the URL.
    query   TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) WITHOUT ROWID;
