-- +goose Up
-- What a prefixed key starts with; empty for other keys. NULL means that nobody knows: the key
-- is older than this column.
ALTER TABLE sqlkeys_keys ADD COLUMN prefix text;
