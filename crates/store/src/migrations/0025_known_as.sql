-- The other ids of a person who is to be forgotten, JSON: found in their conversations before those are gone.
ALTER TABLE erasures ADD COLUMN known_as TEXT NOT NULL DEFAULT '[]';
CREATE INDEX conversations_of_bsuid ON conversations (main_auth_id, bsuid) WHERE bsuid IS NOT NULL;
