-- When the proof of a host was seen last, and since when it is missing. A verified host whose proof is missing is served
-- for a while yet, and a host of kept data stays reserved for as long.
ALTER TABLE domains
    ADD COLUMN proved_at TIMESTAMPTZ,
    ADD COLUMN lost_since TIMESTAMPTZ;
UPDATE domains SET proved_at = now() WHERE is_verified;
ALTER TABLE domains ADD CONSTRAINT domains_verified_when_proved CHECK (proved_at IS NOT NULL OR NOT is_verified);
