-- Which Offhook brought the store to which schema, so that an older one can say what it takes to open it (R11).
CREATE TABLE store_versions (
    schema   BIGINT NOT NULL PRIMARY KEY,
    offhook  TEXT   NOT NULL
);

-- How much of a journal has been taken into the store, in the transaction that took it: each entry counts once, whatever
-- a crash interrupts.
CREATE TABLE store_journals (
    journal  TEXT   NOT NULL PRIMARY KEY,
    replayed BIGINT NOT NULL
) WITHOUT ROWID;
