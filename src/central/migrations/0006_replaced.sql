-- Databases whose place a restored one has taken. The mark on the database says the same: whichever of the two is lost, the
-- other is enough, and nothing is dropped before both say so.
CREATE TABLE replaced_databases (
    -- uid of the TenantRestore.
    restore_uid UUID PRIMARY KEY,
    -- No foreign key: what a restore replaced may outlive the tenant's row.
    tenant_id UUID NOT NULL,
    -- Name of the DatabaseServer.
    server VARCHAR(253) NOT NULL,
    database_name VARCHAR(63) NOT NULL,
    schema_version VARCHAR(255) NOT NULL,
    replaced_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- A later time keeps it longer.
    drop_after TIMESTAMPTZ NOT NULL CHECK (isfinite(drop_after)),
    -- When the server confirmed that it is gone.
    dropped_at TIMESTAMPTZ
);
CREATE INDEX replaced_databases_due ON replaced_databases (server, drop_after) WHERE dropped_at IS NULL;
CREATE INDEX replaced_databases_tenant ON replaced_databases (tenant_id);
