-- The ledger: what the operator really did for a tenant. The Kubernetes object is the wish.

ALTER TABLE tenants
    -- The Tenant object that holds the row; after a release the one that held it last.
    ADD COLUMN namespace VARCHAR(63) NOT NULL,
    ADD COLUMN object_name VARCHAR(253) NOT NULL,
    -- metadata.uid of the holder; NULL once nobody holds the data.
    ADD COLUMN object_uid UUID,
    ADD COLUMN ledger_state VARCHAR(20) NOT NULL DEFAULT 'Registered'
        CONSTRAINT tenants_ledger_state_known CHECK (ledger_state IN
            ('Registered', 'Provisioned', 'Retained', 'Quarantined', 'Dropped')),
    -- Name of the DatabaseServer; NULL until placed.
    ADD COLUMN server VARCHAR(253),
    -- Grows by one whenever the data changes hands. The mark on the database carries it, so that a mark of an
    -- earlier holder, or a ledger restored from an old backup, can be told.
    ADD COLUMN epoch BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN drop_after TIMESTAMPTZ,
    -- When the server confirmed that the database is gone. Dropped without it: decided, but perhaps not done.
    ADD COLUMN dropped_at TIMESTAMPTZ,
    ADD COLUMN schema_version VARCHAR(255),
    ADD COLUMN seeded BOOLEAN NOT NULL DEFAULT false,
    ADD CONSTRAINT tenants_held_while_live
        CHECK ((object_uid IS NOT NULL) = (ledger_state IN ('Registered', 'Provisioned'))),
    ADD CONSTRAINT tenants_data_lies_somewhere CHECK (ledger_state = 'Registered' OR server IS NOT NULL),
    ADD CONSTRAINT tenants_drop_after_in_quarantine CHECK (
        CASE ledger_state WHEN 'Quarantined' THEN drop_after IS NOT NULL
                          WHEN 'Dropped' THEN true
                          ELSE drop_after IS NULL END),
    ADD CONSTRAINT tenants_dropped_at_when_dropped CHECK (dropped_at IS NULL OR ledger_state = 'Dropped');

-- The seed has a plain UNIQUE on slug. A slug belongs to its data for as long as there is data, also when its Tenant
-- is deleted; but a row stays after its data was dropped (its uuid must never be adopted or minted again, and its
-- bills refer to it), and must not keep the name from a new customer for ever. Hence unique among rows with data.
CREATE UNIQUE INDEX tenants_slug_kept ON tenants (slug) WHERE ledger_state <> 'Dropped';
-- One row an object, and one object a name. These two, not the order of reads, decide between two operators.
CREATE UNIQUE INDEX tenants_object_uid ON tenants (object_uid);
CREATE UNIQUE INDEX tenants_object_name ON tenants (namespace, object_name) WHERE object_uid IS NOT NULL;
CREATE INDEX tenants_server ON tenants (server);
CREATE INDEX tenants_drop_after ON tenants (drop_after) WHERE ledger_state IN ('Quarantined', 'Dropped');

-- Every object that gave a row up. Kubernetes never reuses a uid, so an object in here is gone for good: a stale cache
-- that still shows it must not register it again (that would mint a second tenant, or take the row from its successor).
-- It is also the log of deletes that the breaker counts.
CREATE TABLE releases (
    object_uid UUID PRIMARY KEY,
    -- No foreign key: a row that never had a database is deleted, this stays.
    tenant_id UUID NOT NULL,
    tenant_slug VARCHAR(100) NOT NULL,
    outcome VARCHAR(20) NOT NULL CHECK (outcome IN ('Retained', 'Forgotten', 'Quarantined')),
    -- The object had vanished without its finalizer and a new one of its name came.
    superseded BOOLEAN NOT NULL DEFAULT false,
    -- Somebody confirmed this delete, so the breaker let it pass.
    confirmed BOOLEAN NOT NULL DEFAULT false,
    released_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX releases_quarantined ON releases (released_at) WHERE outcome = 'Quarantined';
