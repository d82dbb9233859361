-- +goose Up
-- What a key may do: words with a space between them, as in RFC 6749, or * for all.
-- And the only networks it works from: CIDR prefixes, likewise. Empty means any.
ALTER TABLE sqlkeys_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '*';
ALTER TABLE sqlkeys_keys ADD COLUMN networks TEXT NOT NULL DEFAULT '';
