-- Billing: what Stripe told us, word for word, and what follows from it.

-- Every event whose signature was right, used or not. A subscription's row is computed from all of its events, so that it
-- does not matter in which order, or how often, they come; and what could not be attributed to a tenant is here until
-- somebody says whose it is.
CREATE TABLE billing_events (
    -- Stripe's evt_…: the second delivery of an event finds it here and changes nothing.
    id VARCHAR(255) PRIMARY KEY,
    type VARCHAR(255) NOT NULL,
    -- By Stripe's clock, whole seconds.
    created TIMESTAMPTZ NOT NULL,
    received TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    -- The subscription that it is about, if any.
    subscription_id VARCHAR(255),
    -- No row of `tenants` has to outlive its bills, but the event does.
    tenant_id UUID REFERENCES tenants (id) ON DELETE SET NULL,
    -- What became of it: 'applied' changed the subscription, 'unchanged' said what was known, 'superseded' was older than
    -- what is known, 'noted' is kept for people, 'ignored' is of a type that nothing follows from, 'unmatched' names no
    -- known tenant, 'unreadable' is about a subscription and not of the form that we know.
    outcome VARCHAR(20) NOT NULL CONSTRAINT billing_events_outcome_known CHECK (outcome IN
        ('applied', 'unchanged', 'superseded', 'noted', 'ignored', 'unmatched', 'unreadable')),
    -- JSON and not JSONB: kept as it was signed, and JSONB refuses what JSON allows (\u0000).
    payload JSON NOT NULL
);
CREATE INDEX billing_events_subscription ON billing_events (subscription_id, created);
CREATE INDEX billing_events_tenant ON billing_events (tenant_id, created);
CREATE INDEX billing_events_received ON billing_events (received);
CREATE INDEX billing_events_unmatched ON billing_events (received) WHERE outcome IN ('unmatched', 'unreadable');

ALTER TABLE subscriptions
    -- When the event was made that the row rests on; none for a manual subscription.
    ADD COLUMN last_event_at TIMESTAMPTZ,
    -- Since when the status is what it is: a lapse that no period's end explains began here.
    ADD COLUMN status_since TIMESTAMPTZ,
    -- When it ends whatever the status says: a manual one's last instant, a cancellation that Stripe has announced.
    ADD COLUMN ends_at TIMESTAMPTZ CHECK (isfinite(ends_at));

-- The operator listens: a changed subscription is in the routing slices within seconds. What only moves last_event_at
-- changes nothing for anybody.
CREATE FUNCTION notify_subscription() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM pg_notify('maintenance_os_subscriptions', OLD.tenant_id::text);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        -- Twice the same text in one transaction is one notification.
        PERFORM pg_notify('maintenance_os_subscriptions', NEW.tenant_id::text);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER subscriptions_told AFTER INSERT OR DELETE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION notify_subscription();
CREATE TRIGGER subscriptions_change_told AFTER UPDATE ON subscriptions
    FOR EACH ROW WHEN (
        (OLD.tenant_id, OLD.plan_id, OLD.status, OLD.current_period_start, OLD.current_period_end, OLD.canceled_at,
         OLD.status_since, OLD.ends_at)
        IS DISTINCT FROM
        (NEW.tenant_id, NEW.plan_id, NEW.status, NEW.current_period_start, NEW.current_period_end, NEW.canceled_at,
         NEW.status_since, NEW.ends_at))
    EXECUTE FUNCTION notify_subscription();
