-- What is owed to users survives its process: answers of agents, and messages that were taken for sending.

-- A user's message that an agent is to answer; written with the message, gone with the reply or once a person is called.
CREATE TABLE turns (
    message_id      TEXT   NOT NULL PRIMARY KEY,
    conversation_id TEXT   NOT NULL,
    agent           TEXT   NOT NULL,
    -- The conversation's, as it was when the message came.
    epoch           BIGINT NOT NULL,
    -- Whose agents' mailbox it is in.
    node_id         TEXT   NOT NULL,
    came_us         BIGINT NOT NULL,
    -- The reply is stored; this is to be done once it is out: 'escalate' or 'close'.
    then_do         TEXT
);
CREATE INDEX turns_owed ON turns (node_id, came_us, message_id);
CREATE INDEX turns_of_conversation ON turns (conversation_id);

-- Which node sends it; none: an Offhook that did not note it, or a message of the user's.
ALTER TABLE messages ADD COLUMN node_id TEXT;
-- Meta was about to be asked: from here on it may have the message.
ALTER TABLE messages ADD COLUMN asked_us BIGINT;
-- Of an agent's: the conversation's epoch that it counts in.
ALTER TABLE messages ADD COLUMN epoch BIGINT;
DROP INDEX messages_under_way;
CREATE INDEX messages_under_way ON messages (came_us, message_id) WHERE status = 'queued' AND wamid IS NULL;
