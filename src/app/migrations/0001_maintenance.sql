-- The tables of one tenant's maintenance product. There is no tenant_id anywhere: the database is the tenant.
-- CHECKs repeat what the app checks, because a restore, an import or a later version of the app may get it wrong.

-- updated_at is true whoever writes.
CREATE FUNCTION public.touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

CREATE TABLE public.users (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email             text        NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254 AND email ~ '^[^[:space:][:cntrl:]]+@[^[:space:][:cntrl:]]+$'),
    name              text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]]'),
    role              text        NOT NULL DEFAULT 'technician' CHECK (role IN ('admin', 'manager', 'technician', 'viewer')),
    password_hash     text,                                    -- null until the first password is set
    email_verified_at timestamptz,
    last_sign_in_at   timestamptz,
    disabled_at       timestamptz,                             -- users are never deleted: their work stays theirs
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
-- One account per address, however it is typed.
CREATE UNIQUE INDEX users_email_key ON public.users (lower(email));

CREATE TABLE public.assets (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]]'),
    tag             text        UNIQUE CHECK (char_length(tag) BETWEEN 1 AND 64 AND tag !~ '[[:cntrl:]]'),   -- the label on the machine
    category        text        CHECK (char_length(category) BETWEEN 1 AND 100 AND category !~ '[[:cntrl:]]'),
    location        text        CHECK (char_length(location) BETWEEN 1 AND 255 AND location !~ '[[:cntrl:]]'),
    manufacturer    text        CHECK (char_length(manufacturer) BETWEEN 1 AND 255),
    model           text        CHECK (char_length(model) BETWEEN 1 AND 255),
    serial_number   text        CHECK (char_length(serial_number) BETWEEN 1 AND 255),
    status          text        NOT NULL DEFAULT 'operational' CHECK (status IN ('operational', 'degraded', 'down', 'retired')),
    criticality     text        NOT NULL DEFAULT 'normal' CHECK (criticality IN ('low', 'normal', 'high', 'critical')),
    commissioned_on date,
    notes           text        CHECK (char_length(notes) <= 10000),
    created_by      bigint      REFERENCES public.users (id),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- What is to be done to an asset again and again.
CREATE TABLE public.routines (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_id          bigint      NOT NULL REFERENCES public.assets (id),    -- assets with routines are retired, not deleted
    name              text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]]'),
    instructions      text        CHECK (char_length(instructions) <= 20000),
    interval_count    integer     NOT NULL CHECK (interval_count BETWEEN 1 AND 1000),
    interval_unit     text        NOT NULL CHECK (interval_unit IN ('day', 'week', 'month', 'year')),
    estimated_minutes integer     CHECK (estimated_minutes BETWEEN 1 AND 100000),
    active            boolean     NOT NULL DEFAULT true,
    next_due_on       date        CHECK (next_due_on IS NOT NULL OR NOT active),
    assigned_to       bigint      REFERENCES public.users (id),
    created_by        bigint      REFERENCES public.users (id),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX routines_asset_id_idx ON public.routines (asset_id);
CREATE INDEX routines_due_idx ON public.routines (next_due_on) WHERE active;

-- One time that a routine was due, and what became of it.
CREATE TABLE public.routine_executions (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    routine_id   bigint      NOT NULL REFERENCES public.routines (id),
    status       text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'in_progress', 'completed', 'skipped')),
    due_on       date        NOT NULL,
    started_at   timestamptz,
    completed_at timestamptz,                                  -- of a skipped one: when that was decided
    performed_by bigint      REFERENCES public.users (id),
    notes        text        CHECK (char_length(notes) <= 10000),
    skip_reason  text        CHECK (char_length(skip_reason) BETWEEN 1 AND 1000),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    -- A scheduler that runs twice makes each execution once.
    UNIQUE (routine_id, due_on),
    CHECK (status <> 'in_progress' OR started_at IS NOT NULL),
    CHECK ((status IN ('completed', 'skipped')) = (completed_at IS NOT NULL)),
    CHECK (completed_at >= started_at),
    CHECK (status <> 'skipped' OR skip_reason IS NOT NULL)
);
CREATE INDEX routine_executions_open_idx ON public.routine_executions (due_on) WHERE status IN ('pending', 'in_progress');

-- Who did what, newest last; never changed, so there is no updated_at.
CREATE TABLE public.activities (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id      bigint      REFERENCES public.users (id),     -- null: the system, or nobody signed in
    kind         text        NOT NULL CHECK (kind ~ '^[a-z_]+\.[a-z_]+$'),   -- asset.created
    subject_type text        NOT NULL CHECK (subject_type IN ('user', 'asset', 'routine', 'routine_execution')),
    subject_id   bigint      NOT NULL,                         -- no foreign key: it outlives its subject
    summary      text        NOT NULL CHECK (char_length(summary) BETWEEN 1 AND 1000),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX activities_subject_idx ON public.activities (subject_type, subject_id);

CREATE TRIGGER users_touch BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER assets_touch BEFORE UPDATE ON public.assets FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER routines_touch BEFORE UPDATE ON public.routines FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER routine_executions_touch BEFORE UPDATE ON public.routine_executions FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
