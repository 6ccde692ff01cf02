-- The user who made an endpoint for themselves.
ALTER TABLE endpoints ADD COLUMN user_id TEXT;
CREATE INDEX endpoints_of_user ON endpoints (user_id);
