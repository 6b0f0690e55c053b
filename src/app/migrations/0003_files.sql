-- Files: what is stored, what it takes, what it is attached to, and what was imported from it.

-- Every object in the tenant's storage, and every one that is on its way in or out. The row comes before the object and
-- goes after it, so that nothing lies in storage that no row speaks of.
CREATE TABLE public.stored_files (
    path       text        PRIMARY KEY CHECK (path ~ '^(attachments|exports|imports|temp)/[0-9a-f-]{36}(\.[a-z0-9]{1,8})?$'),
    -- uploading: under way, or dead; its bytes are reserved. deleting: nothing refers to it any more.
    state      text        NOT NULL DEFAULT 'uploading' CHECK (state IN ('uploading', 'stored', 'deleting')),
    bytes      bigint      NOT NULL CHECK (bytes >= 0),
    sha256     bytea       CHECK (octet_length(sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (state <> 'stored' OR sha256 IS NOT NULL)
);
CREATE INDEX stored_files_unsettled_idx ON public.stored_files (updated_at) WHERE state <> 'stored';
CREATE TRIGGER stored_files_touch BEFORE UPDATE ON public.stored_files FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();

-- What all of them take together: one row, kept by a trigger, so that it is true whoever writes. Its lock is what makes
-- two uploads at the same time count one after the other.
CREATE TABLE public.storage_usage (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    bytes bigint  NOT NULL DEFAULT 0 CHECK (bytes >= 0)
);
INSERT INTO public.storage_usage DEFAULT VALUES;

CREATE FUNCTION public.count_stored_bytes() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    UPDATE public.storage_usage SET bytes = bytes
        + CASE WHEN TG_OP = 'DELETE' THEN 0 ELSE NEW.bytes END
        - CASE WHEN TG_OP = 'INSERT' THEN 0 ELSE OLD.bytes END;
    RETURN NULL;
END $$;
CREATE TRIGGER stored_files_count_changed AFTER INSERT OR DELETE ON public.stored_files
    FOR EACH ROW EXECUTE FUNCTION public.count_stored_bytes();
CREATE TRIGGER stored_files_count_resized AFTER UPDATE ON public.stored_files
    FOR EACH ROW WHEN (OLD.bytes <> NEW.bytes) EXECUTE FUNCTION public.count_stored_bytes();

-- A file at an asset or at an execution.
CREATE TABLE public.attachments (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_id     bigint      REFERENCES public.assets (id) ON DELETE CASCADE,
    execution_id bigint      REFERENCES public.routine_executions (id) ON DELETE CASCADE,
    path         text        NOT NULL UNIQUE REFERENCES public.stored_files (path),
    preview_path text        UNIQUE REFERENCES public.stored_files (path),   -- a small picture that we made ourselves
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]/\\]'),
    kind         text        NOT NULL CHECK (kind ~ '^[a-z0-9]{1,16}$'),     -- by content, not by name
    uploaded_by  bigint      REFERENCES public.users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(asset_id, execution_id) = 1)
);
CREATE INDEX attachments_asset_id_idx ON public.attachments (asset_id);
CREATE INDEX attachments_execution_id_idx ON public.attachments (execution_id);

-- Whoever removes an attachment, with its asset or alone: its objects are to go.
CREATE FUNCTION public.release_attached_files() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    UPDATE public.stored_files SET state = 'deleting' WHERE path IN (OLD.path, OLD.preview_path);
    RETURN NULL;
END $$;
CREATE TRIGGER attachments_release AFTER DELETE ON public.attachments
    FOR EACH ROW EXECUTE FUNCTION public.release_attached_files();

-- A table that somebody sent. Checked first, applied as a whole or not at all.
CREATE TABLE public.imports (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path        text        NOT NULL UNIQUE REFERENCES public.stored_files (path),
    name        text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]/\\]'),
    outcome     jsonb       NOT NULL,                                        -- counts and the first faults
    created_by  bigint      REFERENCES public.users (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    applied_at  timestamptz
);

CREATE FUNCTION public.release_imported_file() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    UPDATE public.stored_files SET state = 'deleting' WHERE path = OLD.path;
    RETURN NULL;
END $$;
CREATE TRIGGER imports_release AFTER DELETE ON public.imports
    FOR EACH ROW EXECUTE FUNCTION public.release_imported_file();
