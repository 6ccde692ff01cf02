-- Fleet --------------------------------------------------------------------------------------------------------------
-- A message that Meta has accepted needs nobody to send it. Without these rows, the index messages_under_way finds the
-- messages to adopt, where the whole table was read before.

CREATE OR REPLACE FUNCTION oh1_adopt(theirs text, mine text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
    total bigint := 0;
BEGIN
    -- One owner gets everything, so that the callbacks of a call stay in order.
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || ' adopt ' || theirs, 0));
    UPDATE callbacks SET node_id = mine WHERE node_id = theirs AND next_us IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE calls SET farewell_node = mine, farewell_us = 0
        WHERE farewell_us IS NOT NULL AND coalesce(farewell_node, node_id) = theirs;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE messages SET node_id = mine WHERE node_id = theirs AND status = 'queued' AND wamid IS NULL;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    UPDATE turns SET node_id = mine WHERE node_id = theirs;
    GET DIAGNOSTICS changed = ROW_COUNT; total := total + changed;
    DELETE FROM nodes WHERE node_id = theirs;
    RETURN total;
END $$;

CREATE OR REPLACE FUNCTION oh1_inherit(my_node text, mine text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE recordings SET node_id = mine WHERE (node_id = my_node OR starts_with(node_id, my_node || '/')) AND node_id <> mine
        AND (ended_us IS NULL OR upload_us IS NOT NULL OR transcribe_us IS NOT NULL);
    RETURN QUERY SELECT owner FROM (
        SELECT node_id FROM calls WHERE ended_us IS NULL
        UNION SELECT coalesce(farewell_node, node_id) FROM calls WHERE farewell_us IS NOT NULL
        UNION SELECT node_id FROM callbacks WHERE next_us IS NOT NULL
        UNION SELECT node_id FROM multi_party_calls_open
        UNION SELECT node_id FROM messages WHERE status = 'queued' AND wamid IS NULL
        UNION SELECT node_id FROM turns) AS owners (owner)
        WHERE (owner = my_node OR starts_with(owner, my_node || '/')) AND owner <> mine;
END $$;
