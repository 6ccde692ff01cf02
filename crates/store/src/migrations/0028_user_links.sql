-- Who a sign-in provider (OpenID Connect) vouches for: its name of somebody, which never becomes another person's, and the
-- user here. Times are microseconds since 1970, UTC.

CREATE TABLE user_links (
    issuer        TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    linked_us     BIGINT  NOT NULL,
    PRIMARY KEY (issuer, subject)
);

-- A user is one person at a provider.
CREATE UNIQUE INDEX user_links_of_user ON user_links (user_id, issuer);
