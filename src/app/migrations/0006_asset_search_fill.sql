-- no transaction
-- The second step: assets from before get their text in batches, each its own transaction, so that nobody waits for a row
-- longer than a batch takes. Then the column is NOT NULL without a scan under a lock: a constraint that is not valid yet binds
-- what is written from now on, its validation reads the table beside the traffic, and NOT NULL takes its word for it.
DO $$
DECLARE
    filled bigint;
BEGIN
    LOOP
        UPDATE public.assets a SET search = public.asset_search(a.name, a.tag, a.location, a.manufacturer, a.model, a.serial_number)
         WHERE a.id IN (SELECT b.id FROM public.assets b WHERE b.search IS NULL ORDER BY b.id LIMIT 2000 FOR UPDATE SKIP LOCKED);
        GET DIAGNOSTICS filled = ROW_COUNT;
        COMMIT;
        EXIT WHEN filled = 0 AND NOT EXISTS (SELECT FROM public.assets WHERE search IS NULL);
        -- Whoever holds the last rows is waited for.
        IF filled = 0 THEN PERFORM pg_catalog.pg_sleep(0.1); END IF;
    END LOOP;
END $$;
-- next
ALTER TABLE public.assets DROP CONSTRAINT IF EXISTS assets_search_filled;
-- next
ALTER TABLE public.assets ADD CONSTRAINT assets_search_filled CHECK (search IS NOT NULL) NOT VALID;
-- next
ALTER TABLE public.assets VALIDATE CONSTRAINT assets_search_filled;
-- next
ALTER TABLE public.assets ALTER COLUMN search SET NOT NULL;
-- next
ALTER TABLE public.assets DROP CONSTRAINT IF EXISTS assets_search_filled;
-- next
CREATE INDEX CONCURRENTLY assets_name_idx ON public.assets (lower(name), id);
