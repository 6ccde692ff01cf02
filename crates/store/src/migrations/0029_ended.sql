-- Calls past their time are found without looking at all that there are.
CREATE INDEX calls_ended ON calls (ended_us) WHERE ended_us IS NOT NULL;
