-- What is said in recordings, to be written down when they are complete.

-- JSON: where it is told, and how. While there is something to write down.
ALTER TABLE recordings ADD COLUMN transcription TEXT;
-- When that is to be tried next, and how often it has failed.
ALTER TABLE recordings ADD COLUMN transcribe_us BIGINT;
ALTER TABLE recordings ADD COLUMN transcribe_tries BIGINT NOT NULL DEFAULT 0;

CREATE INDEX recordings_to_transcribe ON recordings (transcribe_us) WHERE transcribe_us IS NOT NULL;
