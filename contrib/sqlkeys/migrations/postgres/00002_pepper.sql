-- +goose Up
-- Which pepper the digest was made with. NULL means that nobody knows: the key is
-- older than this column.
ALTER TABLE sqlkeys_keys ADD COLUMN pepper text;
