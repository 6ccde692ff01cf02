-- Lists of conversations cost what a page holds, whoever asks for whatever. Subaccounts have indexes of their own, which hold
-- no row of a main account's.
DROP INDEX conversations_of_number;
CREATE INDEX conversations_of_number ON conversations (main_auth_id, number, last_us DESC, conversation_id DESC);
CREATE INDEX conversations_of_number_of_account ON conversations (auth_id, number, last_us DESC, conversation_id DESC)
    WHERE auth_id <> main_auth_id;
CREATE INDEX conversations_unread_of_account ON conversations (auth_id, last_us DESC, conversation_id DESC)
    WHERE unread > 0 AND auth_id <> main_auth_id;
CREATE INDEX conversations_put_away_of_account ON conversations (auth_id, status, last_us DESC, conversation_id DESC)
    WHERE status <> 'open' AND auth_id <> main_auth_id;
CREATE INDEX conversations_of_user_of_account ON conversations (auth_id, user_id) WHERE auth_id <> main_auth_id;
-- Those past their time are forgotten.
CREATE INDEX conversations_last ON conversations (last_us);

-- Whether a webhook may go.
CREATE INDEX conversations_of_webhook ON conversations (webhook) WHERE webhook IS NOT NULL;

-- What searches look into, in lower case by Unicode; none: not written since this was added.
ALTER TABLE conversations ADD COLUMN name_lower TEXT;
ALTER TABLE conversations ADD COLUMN last_lower TEXT;
