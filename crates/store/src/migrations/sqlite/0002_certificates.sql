-- Certificates from a certificate authority, and what is needed to get them.
CREATE TABLE certificates (
    -- account, certificate, challenge or claim.
    kind     TEXT   NOT NULL,
    -- account: the authority's directory. certificate, claim: directory and host names. challenge: a host name.
    id       TEXT   NOT NULL,
    -- account: the mail address. certificate: the chain in PEM form. challenge: the token. claim: the holder.
    body     TEXT   NOT NULL,
    -- The account's or the certificate's private key, or the content of a challenge, sealed with the store's key.
    sealed   BLOB,
    -- certificate: the end of its validity. claim: nobody else orders a certificate before.
    until_us BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
