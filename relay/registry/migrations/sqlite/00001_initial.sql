-- +goose Up

-- Times are milliseconds since 1970 in UTC. Names that come from outside are
-- BLOB, as in PostgreSQL. Ids are never used again, so that
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
    removed_at        INTEGER,          -- null: not removed
    purging           INTEGER NOT NULL DEFAULT 0,   -- it is being deleted, in parts, and does not come back
    -- Up to where the sums of its shared devices are changed, app and token; empty: all are.
    sums_after        BLOB    NOT NULL DEFAULT x'',
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

-- Certificates that were removed by hand, so that a published document that
-- still shows one does not bring it back. Kept until the certificate ends.
CREATE TABLE removed_credentials (
    organization_id    INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    certificate_sha256 BLOB    NOT NULL, -- of the DER
    ends_at            INTEGER NOT NULL, -- the certificate's NotAfter
    PRIMARY KEY (organization_id, certificate_sha256)
) STRICT, WITHOUT ROWID;

-- The live ones. The key's order is the order of lists and serves look-ups by mailbox.
CREATE TABLE subscriptions (
    organization_id INTEGER NOT NULL, -- of organizations; a foreign key would cost a look-up a row
    mailbox         BLOB    NOT NULL,
    app             BLOB    NOT NULL,
    token           BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    registered_at   INTEGER NOT NULL,
    -- What is remembered of APNs' refusals of the device, JSON; empty: nothing.
    quarantine      BLOB    NOT NULL DEFAULT x'',
    PRIMARY KEY (organization_id, mailbox, app, token)
) STRICT, WITHOUT ROWID;

-- On which mailboxes the devices with a hash are, and the end of that, in the
-- order in which they came. See sqlite_devices.go.
CREATE TABLE devices (
    device          INTEGER NOT NULL, -- deviceHash of app and token
    organization_id INTEGER NOT NULL,
    mailbox         BLOB    NOT NULL,
    PRIMARY KEY (device, organization_id, mailbox)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices_log (
    device          INTEGER NOT NULL,
    organization_id INTEGER NOT NULL,
    mailbox         BLOB    NOT NULL
) STRICT;

-- Those that APNs or their lifetime ended; kept for 30 days, and restored by
-- operators.
CREATE TABLE removed_subscriptions (
    organization_id INTEGER NOT NULL,
    mailbox         BLOB    NOT NULL,
    app             BLOB    NOT NULL,
    token           BLOB    NOT NULL,
    device          INTEGER NOT NULL, -- deviceHash of app and token
    created_at      INTEGER NOT NULL,
    registered_at   INTEGER NOT NULL,
    removed_at      INTEGER NOT NULL,
    reason          BLOB    NOT NULL,
    superseded      INTEGER NOT NULL, -- the device has registered elsewhere since, or was taken off: it is not restored
    PRIMARY KEY (organization_id, mailbox, app, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX removed_subscriptions_time ON removed_subscriptions (removed_at);
CREATE INDEX removed_subscriptions_device ON removed_subscriptions (organization_id, device);

-- How many subscriptions of an app may end before there is a pause of an hour.
CREATE TABLE removal_budgets (
    app     BLOB    NOT NULL PRIMARY KEY,
    allowed INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    last_at INTEGER NOT NULL -- when the last one ended
) STRICT, WITHOUT ROWID;

-- How many distinct devices APNs has accepted of an app, the most that a relay
-- has seen, by what the app pushes with.
CREATE TABLE app_generations (
    app        BLOB    NOT NULL,
    generation INTEGER NOT NULL, -- a hash
    accepted   INTEGER NOT NULL,
    PRIMARY KEY (app, generation)
) STRICT, WITHOUT ROWID;

-- Devices on several mailboxes, of one organization or several, whose badge is
-- the sum of their counts; see relay.SharedDevice. One that is on one mailbox has
-- no row here, and its mailbox's count is not kept.
CREATE TABLE shared_devices (
    app           BLOB    NOT NULL,
    token         BLOB    NOT NULL,
    sequence      INTEGER NOT NULL, -- grows with each change of the sum
    accepted      INTEGER NOT NULL, -- the sequence that APNs accepted last
    answered      INTEGER NOT NULL, -- the sequence that it accepted or refused last
    refusal       BLOB    NOT NULL, -- JSON; empty: it has refused none
    summed        INTEGER NOT NULL, -- there was a sum, and APNs has not answered that nothing is left of it
    pusher        TEXT    NOT NULL, -- the instance of the relay that pushes
    push_again_at INTEGER NOT NULL, -- when the sum is pushed once more, in microseconds, as all times of these two tables; 0: never
    due_at        INTEGER NOT NULL, -- when a relay is to look at it, though nobody has changed the sum; 0: never
    PRIMARY KEY (app, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX shared_devices_due ON shared_devices (app, token) WHERE sequence > answered OR due_at > 0;

-- The mailboxes of shared devices, each with the newest count that a relay received.
CREATE TABLE shared_parts (
    app             BLOB    NOT NULL,
    token           BLOB    NOT NULL,
    organization_id INTEGER NOT NULL,
    mailbox         BLOB    NOT NULL,
    disabled        INTEGER NOT NULL, -- it counts nothing: the organization is disabled, or another one has the device alone
    joined_at       INTEGER NOT NULL,
    state           INTEGER NOT NULL, -- relay.PartState
    count           INTEGER NOT NULL, -- in the sum
    newest_count    INTEGER NOT NULL, -- the same, or it waits for others of its organization
    sequence        INTEGER NOT NULL, -- the device's, when the count came into it
    received_at     INTEGER NOT NULL, -- of the newest count; orders those of different relays
    stored_at       INTEGER NOT NULL,
    PRIMARY KEY (app, token, organization_id, mailbox)
) STRICT, WITHOUT ROWID;

CREATE INDEX shared_parts_organization ON shared_parts (organization_id, app, token);

-- When the relays that push to shared devices were heard of, by the database's
-- clock. One that has left has no row.
CREATE TABLE pushers (
    name    TEXT    NOT NULL PRIMARY KEY, -- the instance
    seen_at INTEGER NOT NULL -- microseconds
) STRICT, WITHOUT ROWID;
