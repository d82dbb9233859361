-- +goose Up
-- What people call the sender.
ALTER TABLE sqlkeys_senders ADD COLUMN name TEXT NOT NULL DEFAULT '';
