-- +goose Up

-- Times are milliseconds since 1970 in UTC. Ids are never used again, so that
-- a cache that is behind can't take one organization for another.
CREATE TABLE organizations (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT    NOT NULL UNIQUE,
    enabled           INTEGER NOT NULL,
    apps              TEXT    NOT NULL, -- a JSON array; empty: all
    max_mailboxes     INTEGER NOT NULL, -- 0: unlimited, as the next two
    max_subscriptions INTEGER NOT NULL,
    max_streams       INTEGER NOT NULL,
    metadata_url      TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    -- Kept with every change, because limits are checked with every change.
    mailboxes         INTEGER NOT NULL DEFAULT 0 CHECK (mailboxes >= 0),
    subscriptions     INTEGER NOT NULL DEFAULT 0 CHECK (subscriptions >= 0)
) STRICT;

CREATE TABLE credentials (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    certificate     BLOB    NOT NULL, -- DER
    x5t             BLOB    NOT NULL,
    key_sha256      BLOB    NOT NULL,
    start_at        INTEGER NOT NULL,
    end_at          INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER           -- null: never
) STRICT, WITHOUT ROWID;

CREATE INDEX credentials_organization ON credentials (organization_id);
CREATE INDEX credentials_x5t ON credentials (x5t);
CREATE INDEX credentials_key ON credentials (key_sha256);

-- The live ones. The key's order is the order of lists and serves look-ups by mailbox.
CREATE TABLE subscriptions (
    organization_id INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    mailbox         TEXT    NOT NULL,
    app             TEXT    NOT NULL,
    token           BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    registered_at   INTEGER NOT NULL,
    PRIMARY KEY (organization_id, mailbox, app, token)
) STRICT, WITHOUT ROWID;

-- A device of an app is on one mailbox of an organization at a time.
CREATE UNIQUE INDEX subscriptions_device ON subscriptions (organization_id, token, app);

-- Those that APNs or their lifetime ended; kept for 30 days.
CREATE TABLE removed_subscriptions (
    organization_id INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    mailbox         TEXT    NOT NULL,
    app             TEXT    NOT NULL,
    token           BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    registered_at   INTEGER NOT NULL,
    removed_at      INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    PRIMARY KEY (organization_id, mailbox, app, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX removed_subscriptions_time ON removed_subscriptions (removed_at);
