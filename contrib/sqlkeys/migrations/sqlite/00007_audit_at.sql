-- +goose Up
-- To find the oldest entries.
CREATE INDEX sqlkeys_audit_at ON sqlkeys_audit (at);
