-- Where an account's events are posted. Their secrets (a JSON list, the newest first: two while one takes the other's place)
-- are sealed.
CREATE TABLE webhooks (
    webhook_id   TEXT   NOT NULL PRIMARY KEY,
    auth_id      TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    url          TEXT   NOT NULL,
    sealed       BLOB   NOT NULL,
    created_us   BIGINT NOT NULL
);

-- Which webhook an event goes to, and of what type it is ('form': of a number's webhook URL): its log of deliveries.
ALTER TABLE callbacks ADD COLUMN webhook TEXT;
ALTER TABLE callbacks ADD COLUMN event TEXT;
CREATE INDEX callbacks_of_webhook ON callbacks (webhook, id) WHERE webhook IS NOT NULL;
CREATE INDEX callbacks_of_conversation ON callbacks (call_uuid) WHERE event IS NOT NULL;
