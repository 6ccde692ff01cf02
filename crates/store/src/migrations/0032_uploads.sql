-- Files that were handed to Meta: messages name them by Meta's id, and what shows the message wants to know what they are.
-- Times are microseconds since 1970, UTC.

CREATE TABLE uploads (
    auth_id    TEXT    NOT NULL,
    media_id   TEXT    NOT NULL,
    mime_type  TEXT    NOT NULL,
    made_us    BIGINT  NOT NULL,
    PRIMARY KEY (auth_id, media_id)
);

CREATE INDEX uploads_made ON uploads (made_us);
