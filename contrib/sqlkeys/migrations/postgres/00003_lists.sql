-- +goose Up
-- The orders of lists, and the keys that are in a state that few of them are in.
CREATE INDEX sqlkeys_keys_ends ON sqlkeys_keys (least(expires_at, grace_until), id)
    WHERE revoked_at IS NULL AND least(expires_at, grace_until) IS NOT NULL;
CREATE INDEX sqlkeys_keys_revoked ON sqlkeys_keys (sender_id, created_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX sqlkeys_keys_rotated ON sqlkeys_keys (sender_id, created_at, id) WHERE grace_until IS NOT NULL;
CREATE INDEX sqlkeys_keys_disabled ON sqlkeys_keys (sender_id, created_at, id) WHERE disabled_at IS NOT NULL;
CREATE INDEX sqlkeys_keys_pending ON sqlkeys_keys (sender_id, created_at, id) WHERE not_before IS NOT NULL;
CREATE INDEX sqlkeys_senders_created ON sqlkeys_senders (created_at, id);
CREATE INDEX sqlkeys_senders_disabled ON sqlkeys_senders (created_at, id) WHERE disabled_at IS NOT NULL;
CREATE INDEX sqlkeys_usage_hour ON sqlkeys_usage (hour, key_id, outcome);
