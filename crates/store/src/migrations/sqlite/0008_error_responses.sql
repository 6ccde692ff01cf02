-- The beginning of the response, if its status is an error and it is text.
ALTER TABLE failed_requests ADD COLUMN response TEXT;
