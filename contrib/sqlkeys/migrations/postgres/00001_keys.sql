-- +goose Up
CREATE TABLE sqlkeys_senders (
    id          uuid PRIMARY KEY,
    limits      jsonb NOT NULL DEFAULT '{}',
    metadata    jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

CREATE TABLE sqlkeys_keys (
    id          text PRIMARY KEY,
    sender_id   uuid NOT NULL REFERENCES sqlkeys_senders (id),
    digest      bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    format      text NOT NULL CHECK (format IN ('uuid', 'prefixed')),
    name        text NOT NULL DEFAULT '',
    environment text NOT NULL CHECK (environment IN ('development', 'staging', 'production')),
    metadata    jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    not_before  timestamptz,
    expires_at  timestamptz,
    grace_until timestamptz,
    replaced_by text,
    disabled_at timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX sqlkeys_keys_sender ON sqlkeys_keys (sender_id, created_at, id);

CREATE TABLE sqlkeys_audit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL,
    actor     text NOT NULL,
    action    text NOT NULL,
    sender_id uuid NOT NULL,
    key_id    text NOT NULL DEFAULT '',
    detail    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX sqlkeys_audit_sender ON sqlkeys_audit (sender_id, id);
CREATE INDEX sqlkeys_audit_key ON sqlkeys_audit (key_id, id);

CREATE TABLE sqlkeys_usage (
    key_id   text NOT NULL,
    hour     timestamptz NOT NULL,
    outcome  text NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
);

CREATE TABLE sqlkeys_last_used (
    key_id       text PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);

-- The payload is the sender that changed; an empty one means anybody.
-- +goose StatementBegin
CREATE FUNCTION sqlkeys_notify_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('sqlkeys_changed', '');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('sqlkeys_changed', OLD.sender_id::text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('sqlkeys_changed', NEW.sender_id::text);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION sqlkeys_notify_sender() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('sqlkeys_changed', '');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('sqlkeys_changed', OLD.id::text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('sqlkeys_changed', NEW.id::text);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER sqlkeys_changed AFTER INSERT OR UPDATE OR DELETE ON sqlkeys_keys
    FOR EACH ROW EXECUTE FUNCTION sqlkeys_notify_key();
CREATE TRIGGER sqlkeys_truncated AFTER TRUNCATE ON sqlkeys_keys
    FOR EACH STATEMENT EXECUTE FUNCTION sqlkeys_notify_key();
CREATE TRIGGER sqlkeys_changed AFTER INSERT OR UPDATE OR DELETE ON sqlkeys_senders
    FOR EACH ROW EXECUTE FUNCTION sqlkeys_notify_sender();
CREATE TRIGGER sqlkeys_truncated AFTER TRUNCATE ON sqlkeys_senders
    FOR EACH STATEMENT EXECUTE FUNCTION sqlkeys_notify_sender();
