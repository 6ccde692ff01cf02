-- Private notes are messages of the kind 'note', which are never sent. Counted to limit their number.
CREATE INDEX messages_notes ON messages (conversation_id) WHERE kind = 'note';

-- The person who takes care of a conversation.
ALTER TABLE conversations ADD COLUMN assignee TEXT;
CREATE INDEX conversations_of_assignee ON conversations (assignee, last_us DESC, conversation_id DESC)
    WHERE assignee IS NOT NULL;

-- The labels of a conversation: ids in `presets`, separated by spaces. Ids of deleted labels are ignored.
ALTER TABLE conversations ADD COLUMN labels TEXT NOT NULL DEFAULT '';

-- What people of an account prepare for its conversations: labels and canned replies.
CREATE TABLE presets (
    preset_id     TEXT    NOT NULL PRIMARY KEY,
    auth_id       TEXT    NOT NULL,
    main_auth_id  TEXT    NOT NULL,
    -- 'label' or 'reply'.
    kind          TEXT    NOT NULL,
    -- The name of a label, or the shortcut of a reply.
    name          TEXT    NOT NULL,
    -- Unique within the account and kind.
    name_lower    TEXT    NOT NULL,
    -- The colour of a label, or the text of a reply.
    content       TEXT    NOT NULL
);
CREATE UNIQUE INDEX presets_of_account ON presets (auth_id, kind, name_lower);
CREATE INDEX presets_of_main_account ON presets (main_auth_id, kind, name_lower);
