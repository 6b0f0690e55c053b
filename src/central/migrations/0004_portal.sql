-- The audit trail as a chain of hashes that nobody changes, and what the admin portal keeps: sessions, second factors,
-- counts of attempts.

-- 1. The trail.
--
-- Each entry carries its own hash and that of the one before, so a changed, removed or inserted one shows
-- (`maintenance-os audit verify`). A trigger does it, so that no writer can forget it.
--
-- One chain would make every transaction that writes an entry wait for the commit of the one before, and two that lock
-- rows in another order would stop each other. So there are sixteen chains, called lanes: an entry goes to a lane that
-- nobody holds. A lane's row is its head: how many entries it has and the hash of the last.
CREATE TABLE audit_lanes (
    lane SMALLINT PRIMARY KEY,
    seq BIGINT NOT NULL DEFAULT 0,
    hash BYTEA NOT NULL DEFAULT '\x' CHECK (length(hash) = CASE seq WHEN 0 THEN 0 ELSE 32 END)
) WITH (fillfactor = 20);
INSERT INTO audit_lanes (lane) SELECT generate_series(0, 15);

ALTER TABLE audit_logs
    -- As tenant_id, but without a reference: it stays when the tenant's row goes. tenant_id and admin_id become NULL then,
    -- and are therefore not part of what is hashed; this, tenant_slug and actor are.
    ADD COLUMN tenant_uuid UUID,
    ADD COLUMN lane SMALLINT,
    ADD COLUMN seq BIGINT,
    ADD COLUMN previous_hash BYTEA,
    ADD COLUMN hash BYTEA;

-- One field: its length in bytes before its text, so that two entries that differ never read the same.
CREATE FUNCTION audit_field(field TEXT) RETURNS TEXT LANGUAGE sql STABLE SET search_path = pg_catalog
RETURN coalesce(octet_length(convert_to(field, 'UTF8'))::text || ':' || field, '-');

-- src/central/chain.rs computes the same; change neither. Whatever has to be said differently is a new first field.
CREATE FUNCTION audit_hash(entry audit_logs) RETURNS BYTEA LANGUAGE sql STABLE SET search_path = pg_catalog
RETURN sha256(convert_to(
    public.audit_field('maintenance-os audit 1')
    || public.audit_field(entry.lane::text)
    || public.audit_field(entry.seq::text)
    || public.audit_field(encode(entry.previous_hash, 'hex'))
    || public.audit_field(entry.id::text)
    || public.audit_field(entry.tenant_uuid::text)
    || public.audit_field(entry.tenant_slug::text)
    || public.audit_field(entry.actor::text)
    || public.audit_field(entry.action::text)
    || public.audit_field(entry.resource_type::text)
    || public.audit_field(entry.resource_id::text)
    || public.audit_field(entry.changes::text)
    || public.audit_field(entry.ip_address::text)
    || public.audit_field(entry.user_agent)
    || public.audit_field(entry.correlation_id::text)
    || public.audit_field((extract(epoch FROM entry.created_at) * 1000000)::bigint::text), 'UTF8'));

CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    head public.audit_lanes;
    own SMALLINT := pg_backend_pid() % 16;
BEGIN
    -- A transaction meets its own lane again: it is the first choice, and its own locks do not count as held.
    SELECT * INTO head FROM public.audit_lanes ORDER BY lane <> own, lane LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        SELECT * INTO head FROM public.audit_lanes WHERE lane = own FOR UPDATE;
    END IF;
    NEW.tenant_uuid := coalesce(NEW.tenant_uuid, NEW.tenant_id);
    NEW.lane := head.lane;
    NEW.seq := head.seq + 1;
    NEW.previous_hash := head.hash;
    -- The server's clock, not the writer's word.
    NEW.created_at := clock_timestamp();
    NEW.hash := public.audit_hash(NEW);
    UPDATE public.audit_lanes SET seq = NEW.seq, hash = NEW.hash WHERE lane = NEW.lane;
    RETURN NEW;
END
$$;

-- Entries that are there already become the beginning of lane 0, in their order.
DO $$
DECLARE
    entry public.audit_logs;
    count BIGINT := 0;
    last BYTEA := '\x';
BEGIN
    FOR entry IN SELECT * FROM public.audit_logs ORDER BY id LOOP
        count := count + 1;
        entry.tenant_uuid := entry.tenant_id;
        entry.lane := 0;
        entry.seq := count;
        entry.previous_hash := last;
        last := public.audit_hash(entry);
        UPDATE public.audit_logs
            SET tenant_uuid = entry.tenant_uuid, lane = 0, seq = count, previous_hash = entry.previous_hash, hash = last
            WHERE id = entry.id;
    END LOOP;
    UPDATE public.audit_lanes SET seq = count, hash = last WHERE lane = 0;
END
$$;

ALTER TABLE audit_logs
    ALTER COLUMN lane SET NOT NULL,
    ALTER COLUMN seq SET NOT NULL,
    ALTER COLUMN previous_hash SET NOT NULL,
    ALTER COLUMN hash SET NOT NULL,
    ADD CONSTRAINT audit_logs_chained UNIQUE (lane, seq);

CREATE TRIGGER audit_logs_chain BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION audit_chain();

-- What keeps the trail as it is. Who owns the table can take these away; that is what the hashes are for.
CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    without public.audit_logs;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- The row of the tenant or of the administrator goes, and the reference with it. Nothing else changes.
        without := OLD;
        IF NEW.tenant_id IS NULL THEN without.tenant_id := NULL; END IF;
        IF NEW.admin_id IS NULL THEN without.admin_id := NULL; END IF;
        IF NEW IS NOT DISTINCT FROM without THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER audit_logs_kept BEFORE UPDATE OR DELETE ON audit_logs FOR EACH ROW EXECUTE FUNCTION audit_kept();
CREATE TRIGGER audit_logs_not_emptied BEFORE TRUNCATE ON audit_logs FOR EACH STATEMENT EXECUTE FUNCTION audit_kept();
CREATE FUNCTION audit_head_grows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.lane = OLD.lane AND NEW.seq = OLD.seq + 1 THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'the heads of the audit trail only grow: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER audit_lanes_grow BEFORE UPDATE OR DELETE ON audit_lanes FOR EACH ROW EXECUTE FUNCTION audit_head_grows();
CREATE TRIGGER audit_lanes_not_emptied BEFORE TRUNCATE ON audit_lanes FOR EACH STATEMENT EXECUTE FUNCTION audit_head_grows();

-- The pages of the trail go by id, from the newest; each filter has an index that is in that order.
CREATE INDEX audit_logs_of_tenant ON audit_logs (tenant_uuid, id);
CREATE INDEX audit_logs_of_slug ON audit_logs (tenant_slug, id);
CREATE INDEX audit_logs_of_actor ON audit_logs (lower(actor), id);
CREATE INDEX audit_logs_of_action ON audit_logs (action, id);
CREATE INDEX audit_logs_of_resource ON audit_logs (resource_id, id);
CREATE INDEX audit_logs_of_request ON audit_logs (correlation_id, id);

-- 2. Administrators.

ALTER TABLE system_admins
    ADD CONSTRAINT system_admins_permissions_object CHECK (jsonb_typeof(permissions) = 'object'),
    -- The password was made by somebody else: a new one has to be set before anything else.
    ADD COLUMN must_change_password BOOLEAN NOT NULL DEFAULT false,
    -- The step of thirty seconds whose code was accepted last; that one and earlier ones are not accepted again.
    ADD COLUMN two_factor_step BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN invited_by VARCHAR(255);

-- What gets an administrator in without the second factor, once each. Of 80 random bits, so a plain hash does.
CREATE TABLE admin_recovery_codes (
    admin_id INTEGER NOT NULL REFERENCES system_admins (id) ON DELETE CASCADE,
    hash BYTEA NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (admin_id, hash)
);

-- Who is signed in. The token is with the browser alone; this is its hash.
CREATE TABLE admin_sessions (
    hash BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    admin_id INTEGER NOT NULL REFERENCES system_admins (id) ON DELETE CASCADE,
    -- 'password': the password was right and the rest is missing. 'full': signed in.
    stage VARCHAR(20) NOT NULL CHECK (stage IN ('password', 'full')),
    -- A second factor that is being set up and not confirmed yet; as in system_admins.
    pending_secret VARCHAR(255),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- When password and second factor were shown last.
    proved_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    ip_address INET,
    user_agent VARCHAR(255)
);
CREATE INDEX admin_sessions_of_admin ON admin_sessions (admin_id);

-- Attempts at signing in, counted for a quarter of an hour. Keys are hashes: the table lists no addresses.
CREATE TABLE admin_attempts (
    key BYTEA PRIMARY KEY,
    count INTEGER NOT NULL,
    until TIMESTAMPTZ NOT NULL
);

-- From where an administrator has signed in: guesses made elsewhere do not keep them out.
CREATE TABLE admin_places (
    admin_id INTEGER NOT NULL REFERENCES system_admins (id) ON DELETE CASCADE,
    place BYTEA NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (admin_id, place)
);

-- Removing an administrator sets the reference of each of their entries to NULL.
CREATE INDEX idx_audit_logs_admin ON audit_logs (admin_id) WHERE admin_id IS NOT NULL;
