-- Which Offhook brought the store to which schema, so that an older one can say what it takes to open it (R11).
CREATE TABLE store_versions (
    schema   BIGINT NOT NULL PRIMARY KEY,
    offhook  TEXT   NOT NULL
);
