-- Accounts: what ends sessions, links that are good once, tokens for programs.

-- Raised to end all of the user's sessions, in the transaction of whatever was the reason.
ALTER TABLE public.users ADD COLUMN session_generation bigint NOT NULL DEFAULT 0;

-- A link in a mail. What is kept of its token is the hash, so that reading this table opens nothing.
CREATE TABLE public.account_links (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id      bigint      NOT NULL REFERENCES public.users (id),
    purpose      text        NOT NULL CHECK (purpose IN ('invite', 'reset', 'verify')),
    token_sha256 bytea       NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    email        text        NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254 AND email ~ '^[^[:space:][:cntrl:]]+@[^[:space:][:cntrl:]]+$'),   -- the address it was made for
    mailed       boolean     NOT NULL,                         -- false: handed over by somebody, so opening it proves no address
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX account_links_user_idx ON public.account_links (user_id, purpose) WHERE used_at IS NULL;

-- Tokens with which programs act as a user.
CREATE TABLE public.api_tokens (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id      bigint      NOT NULL REFERENCES public.users (id),
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]]'),
    prefix       text        NOT NULL CHECK (char_length(prefix) BETWEEN 1 AND 16),   -- to recognise it by; the token itself is shown once
    token_sha256 bytea       NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    expires_at   timestamptz,                                  -- null: never
    last_used_at timestamptz,                                  -- to the minute
    revoked_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_tokens_user_idx ON public.api_tokens (user_id);
