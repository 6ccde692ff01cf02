-- Whose conversations a number has, and what was set for all of them at once: both by one row, however many there are.
CREATE TABLE number_tenures (
    phone_number_id TEXT   NOT NULL PRIMARY KEY,
    -- The account that the number is; empty: not known yet. Other accounts' conversations with it go nowhere.
    owner           TEXT   NOT NULL,
    -- The account whose conversations' ids are made of number and user alone; other owners' have the account in them, so
    -- that none of them reads what was said in another's time.
    first_owner     TEXT   NOT NULL,
    -- Raised whenever all conversations change at once, to this: it holds for each that was set in an earlier generation.
    -- A part of each conversation's epoch.
    generation      BIGINT NOT NULL DEFAULT 0,
    routing         TEXT   NOT NULL DEFAULT 'none',
    webhook         TEXT,
    agent           TEXT
);
INSERT INTO number_tenures (phone_number_id, owner, first_owner)
    SELECT phone_number_id, CASE WHEN min(auth_id) = max(auth_id) THEN min(auth_id) ELSE '' END,
        CASE WHEN min(auth_id) = max(auth_id) THEN min(auth_id) ELSE '' END
    FROM conversations GROUP BY phone_number_id;

-- The number's generation when the conversation's own routing was set.
ALTER TABLE conversations ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
