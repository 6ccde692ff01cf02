-- The sensitive parameters of a callback, sealed with the store's key: in place of `secret_params`, which rows of before
-- still have.
ALTER TABLE callbacks ADD COLUMN sealed_params BLOB;
