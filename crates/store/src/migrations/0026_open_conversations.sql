-- How many conversations of a number are open: counted in an index that has nothing else.
CREATE INDEX conversations_open ON conversations (number, main_auth_id, auth_id) WHERE status = 'open';
