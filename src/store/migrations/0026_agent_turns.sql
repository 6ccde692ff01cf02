-- Users' messages that agents are to answer, and have not yet.
CREATE TABLE agent_turns (
    message_id      TEXT   NOT NULL PRIMARY KEY,
    conversation_id TEXT   NOT NULL,
    agent           TEXT   NOT NULL,
    -- The conversation's when the message came: an answer counts while it is the same.
    epoch           BIGINT NOT NULL,
    node_id         TEXT   NOT NULL,
    came_us         BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX agent_turns_of_conversation ON agent_turns (conversation_id);
