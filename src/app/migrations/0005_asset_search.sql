-- What people search assets by, in one column: the first of two steps. Nobody reads it yet; it is filled from now on by whoever
-- writes an asset, also by the app of the release before.

-- The text of one asset, as the app compares it.
CREATE FUNCTION public.asset_search(name text, tag text, location text, manufacturer text, model text, serial_number text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN lower(concat_ws(' ', name, tag, location, manufacturer, model, serial_number));

CREATE FUNCTION public.fill_asset_search() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$ BEGIN
        NEW.search := public.asset_search(NEW.name, NEW.tag, NEW.location, NEW.manufacturer, NEW.model, NEW.serial_number);
        RETURN NEW;
    END $$;

-- Nullable and without a default: nothing of the table is rewritten.
ALTER TABLE public.assets ADD COLUMN search text;

CREATE TRIGGER assets_search BEFORE INSERT OR UPDATE OF name, tag, location, manufacturer, model, serial_number
    ON public.assets FOR EACH ROW EXECUTE FUNCTION public.fill_asset_search();

-- updated_at tells when somebody changed an asset: filling the new column is no change.
DROP TRIGGER assets_touch ON public.assets;
CREATE TRIGGER assets_touch BEFORE UPDATE OF name, tag, category, location, manufacturer, model, serial_number, status,
        criticality, commissioned_on, notes, created_by
    ON public.assets FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
