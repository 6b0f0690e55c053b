-- The seed's six tables with its columns and indexes. What differs from the seed's text, and why:
--   plans and system_admins come first, because others refer to them (in the seed's order ten statements fail);
--   every time is a TIMESTAMPTZ, because bills and trials are instants and not what a clock on some wall shows;
--   texts that mean something have CHECKs, because the seed accepts status 'nonsense' and the slug 'ADMIN'.

CREATE TABLE plans (
    id SERIAL PRIMARY KEY,
    name VARCHAR(100) NOT NULL,
    slug VARCHAR(50) UNIQUE NOT NULL,
    price DECIMAL(10,2) NOT NULL CHECK (price >= 0),
    currency VARCHAR(3) NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    features JSONB NOT NULL,
    limits JSONB NOT NULL,
    is_active BOOLEAN NOT NULL DEFAULT true
);

CREATE TABLE system_admins (
    id SERIAL PRIMARY KEY,
    email VARCHAR(255) UNIQUE NOT NULL,
    -- A PHC string. Anything else would be a password in clear or a weak hash.
    password VARCHAR(255) NOT NULL CHECK (password LIKE '$argon2id$%'),
    -- An empty object means no rights.
    permissions JSONB NOT NULL DEFAULT '{}',
    -- '<key id>:<nonce, base64>:<ciphertext, base64>'. The CHECK refuses a secret in clear, which has no colon.
    two_factor_secret VARCHAR(255)
        CHECK (two_factor_secret ~ '^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9+/=_-]{16,}:[A-Za-z0-9+/=_-]{22,}$'),
    last_login_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- Mail systems do not tell A@x from a@x, so neither may we: the same person would be two administrators.
CREATE UNIQUE INDEX system_admins_email_lower ON system_admins (lower(email));

CREATE TABLE tenants (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(255) NOT NULL CHECK (name <> ''),
    -- Unique by tenants_slug_kept (0002_ledger.sql). One DNS label, so 63 although the column could hold 100.
    slug VARCHAR(100) NOT NULL
        CONSTRAINT tenants_slug_is_a_label CHECK (slug ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')
        CONSTRAINT tenants_slug_not_reserved CHECK (slug NOT IN
            ('admin', 'api', 'app', 'auth', 'cdn', 'mail', 'static', 'status', 'support', 'www')),
    status VARCHAR(50) NOT NULL DEFAULT 'active'
        CONSTRAINT tenants_status_known CHECK (status IN ('active', 'read_only', 'suspended', 'hibernated')),
    plan_id INTEGER REFERENCES plans (id),
    -- 'infinity' is an instant to PostgreSQL and to nobody who reads it.
    trial_ends_at TIMESTAMPTZ CHECK (isfinite(trial_ends_at)),
    metadata JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER tenants_updated_at BEFORE UPDATE ON tenants
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION touch_updated_at();

CREATE TABLE domains (
    id SERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    -- Lower case, or one host could be registered twice and routed by chance.
    domain VARCHAR(255) UNIQUE NOT NULL
        CONSTRAINT domains_is_a_host CHECK (length(domain) <= 253 AND domain ~
            '^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'),
    is_primary BOOLEAN NOT NULL DEFAULT false,
    is_verified BOOLEAN NOT NULL DEFAULT false,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX domains_one_primary ON domains (tenant_id) WHERE is_primary;

CREATE TABLE subscriptions (
    id SERIAL PRIMARY KEY,
    tenant_id UUID NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    plan_id INTEGER REFERENCES plans (id),
    -- Stripe's set.
    status VARCHAR(50) NOT NULL CONSTRAINT subscriptions_status_known CHECK (status IN
        ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled', 'unpaid', 'paused')),
    current_period_start TIMESTAMPTZ NOT NULL,
    current_period_end TIMESTAMPTZ NOT NULL CHECK (isfinite(current_period_end) AND current_period_end >= current_period_start),
    canceled_at TIMESTAMPTZ,
    stripe_subscription_id VARCHAR(255),
    metadata JSONB NOT NULL DEFAULT '{}'
);
-- Stripe delivers an event more than once; the second must not make a second subscription.
CREATE UNIQUE INDEX subscriptions_stripe_id ON subscriptions (stripe_subscription_id);

CREATE TABLE audit_logs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- SET NULL and the copied slug: with the seed's plain reference no audited tenant could ever be deleted.
    tenant_id UUID REFERENCES tenants (id) ON DELETE SET NULL,
    tenant_slug VARCHAR(100),
    admin_id INTEGER REFERENCES system_admins (id) ON DELETE SET NULL,
    -- Who, in words that outlive the row of the administrator: 'operator', or an e-mail address.
    actor VARCHAR(255) NOT NULL,
    action VARCHAR(100) NOT NULL,
    resource_type VARCHAR(100),
    resource_id VARCHAR(255),
    changes JSONB,
    ip_address INET,
    user_agent TEXT,
    -- The same in the Kubernetes Event about the same thing.
    correlation_id UUID,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_tenants_slug ON tenants (slug);
CREATE INDEX idx_tenants_status ON tenants (status);
CREATE INDEX idx_domains_tenant ON domains (tenant_id);
CREATE INDEX idx_subscriptions_tenant ON subscriptions (tenant_id);
CREATE INDEX idx_audit_logs_tenant ON audit_logs (tenant_id);
CREATE INDEX idx_audit_logs_created ON audit_logs (created_at);
