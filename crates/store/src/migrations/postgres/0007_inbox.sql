-- Private notes are messages of the kind 'note', which are never sent. Counted to limit their number.
CREATE INDEX messages_notes ON messages (conversation_id) WHERE kind = 'note';

-- The person who takes care of a conversation.
ALTER TABLE conversations ADD COLUMN assignee TEXT;
CREATE INDEX conversations_of_assignee ON conversations (assignee, last_us DESC, conversation_id DESC)
    WHERE assignee IS NOT NULL;
