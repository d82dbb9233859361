-- Instants are milliseconds since 1970, in UTC.
-- +goose Up
CREATE TABLE sqlkeys_senders (
    id          TEXT PRIMARY KEY CHECK (length(id) = 36),
    limits      TEXT NOT NULL DEFAULT '{}',
    metadata    TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE sqlkeys_keys (
    id          TEXT PRIMARY KEY,
    sender_id   TEXT NOT NULL REFERENCES sqlkeys_senders (id),
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    format      TEXT NOT NULL CHECK (format IN ('uuid', 'prefixed')),
    name        TEXT NOT NULL DEFAULT '',
    environment TEXT NOT NULL CHECK (environment IN ('development', 'staging', 'production')),
    metadata    TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    not_before  INTEGER,
    expires_at  INTEGER,
    grace_until INTEGER,
    replaced_by TEXT,
    disabled_at INTEGER,
    revoked_at  INTEGER
) STRICT;
CREATE INDEX sqlkeys_keys_sender ON sqlkeys_keys (sender_id, created_at, id);

CREATE TABLE sqlkeys_audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    sender_id TEXT NOT NULL,
    key_id    TEXT NOT NULL DEFAULT '',
    detail    TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX sqlkeys_audit_sender ON sqlkeys_audit (sender_id, id);
CREATE INDEX sqlkeys_audit_key ON sqlkeys_audit (key_id, id);

CREATE TABLE sqlkeys_usage (
    key_id   TEXT NOT NULL,
    hour     INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE sqlkeys_last_used (
    key_id       TEXT PRIMARY KEY,
    last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What Watch reads: the last senders that changed. A watcher that finds a gap
-- forgets everybody.
CREATE TABLE sqlkeys_changes (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    sender_id TEXT NOT NULL
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER sqlkeys_changes_trim AFTER INSERT ON sqlkeys_changes BEGIN
    DELETE FROM sqlkeys_changes WHERE seq <= NEW.seq - 10000;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_keys_insert AFTER INSERT ON sqlkeys_keys BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (NEW.sender_id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_keys_update AFTER UPDATE ON sqlkeys_keys BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (OLD.sender_id);
    INSERT INTO sqlkeys_changes (sender_id) SELECT NEW.sender_id WHERE NEW.sender_id <> OLD.sender_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_keys_delete AFTER DELETE ON sqlkeys_keys BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (OLD.sender_id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_senders_insert AFTER INSERT ON sqlkeys_senders BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_senders_update AFTER UPDATE ON sqlkeys_senders BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (OLD.id);
    INSERT INTO sqlkeys_changes (sender_id) SELECT NEW.id WHERE NEW.id <> OLD.id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER sqlkeys_senders_delete AFTER DELETE ON sqlkeys_senders BEGIN
    INSERT INTO sqlkeys_changes (sender_id) VALUES (OLD.id);
END;
-- +goose StatementEnd
