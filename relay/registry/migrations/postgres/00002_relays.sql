-- +goose Up

-- Who shares this database, for operators: a row for each place where a relay
-- serves agents. Programs of version 1 don't know it, and need not.
CREATE TABLE relays (
    name       text    COLLATE "C" NOT NULL PRIMARY KEY, -- of the place
    started_at bigint  NOT NULL, -- of the process, by its clock
    seen_at    bigint  NOT NULL, -- by the database's clock, as nothing else here
    stopped    boolean NOT NULL, -- it said that it ends
    status     bytea   NOT NULL  -- what it said of itself; the relays agree on the form
);
