-- Sign-in names are unique within a main account, no longer on the whole node.
ALTER TABLE users DROP CONSTRAINT users_name_key;
CREATE UNIQUE INDEX users_by_name ON users (name, main_auth_id);
