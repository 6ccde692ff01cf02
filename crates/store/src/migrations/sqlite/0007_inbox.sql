-- Private notes are messages of the kind 'note', which are never sent. Counted to limit their number.
CREATE INDEX messages_notes ON messages (conversation_id) WHERE kind = 'note';
