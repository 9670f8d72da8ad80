-- +goose Up

-- Certificates that were removed by hand, so that a published document that
-- still shows one does not bring it back. Kept until the certificate ends.
CREATE TABLE removed_credentials (
    organization_id    INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    certificate_sha256 BLOB    NOT NULL, -- of the DER
    ends_at            INTEGER NOT NULL, -- the certificate's NotAfter
    PRIMARY KEY (organization_id, certificate_sha256)
) STRICT, WITHOUT ROWID;
