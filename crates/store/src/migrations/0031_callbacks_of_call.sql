-- Callbacks of a call that are done are found when its user is forgotten. Those that report an event have an index already.
CREATE INDEX callbacks_done_of_call ON callbacks (call_uuid) WHERE done_us IS NOT NULL AND event IS NULL;
