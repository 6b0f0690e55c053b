//! The schema of the release before, for what is about bringing it up.

/// Version of the release before the newest.
pub const BEFORE: &str = "0004";

/// Takes a tenant's database back to [`BEFORE`], as if it had been there before the operator was upgraded.
pub const TAKE_BACK: &str = "
DROP INDEX IF EXISTS assets_name_idx;
DROP TRIGGER IF EXISTS assets_search ON assets;
ALTER TABLE assets DROP COLUMN IF EXISTS search;
DROP FUNCTION IF EXISTS fill_asset_search();
DROP FUNCTION IF EXISTS asset_search(text, text, text, text, text, text);
DELETE FROM maintenance_os_migrations WHERE version > '0004';
";
