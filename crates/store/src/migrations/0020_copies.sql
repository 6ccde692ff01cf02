-- Copies of recordings in other storage: how often one has failed, and the objects whose recording is gone, until the
-- storage has let go of them too.

ALTER TABLE recordings ADD COLUMN upload_tries BIGINT NOT NULL DEFAULT 0;

CREATE TABLE objects_to_remove (
    object  TEXT   NOT NULL PRIMARY KEY,
    due_us  BIGINT NOT NULL,
    tries   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX objects_to_remove_due ON objects_to_remove (due_us);
