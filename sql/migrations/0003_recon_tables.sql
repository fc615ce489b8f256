-- The pipeline's own tables. The schema itself is made by the migrator, which keeps its list of migrations there.

-- Evidence: what the exchange said, kept with the raw answer.
CREATE TABLE recon.executions (
  account_id   text NOT NULL,
  execution_id text NOT NULL,
  order_id     text,
  symbol       text,
  side         text,
  qty          numeric,
  price        numeric,
  cum_qty      numeric,
  leaves_qty   numeric,
  executed_at  timestamptz,
  kind         text,
  raw          jsonb,
  ingested_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, execution_id)
);
CREATE INDEX executions_account_executed_idx ON recon.executions (account_id, executed_at);
CREATE INDEX executions_account_order_idx ON recon.executions (account_id, order_id);

CREATE TABLE recon.exchange_orders (
  account_id       text NOT NULL,
  order_id         text NOT NULL,
  client_order_id  text,
  symbol           text,
  side             text,
  status           text,
  filled_qty       numeric,
  filled_avg_price numeric,
  filled_at        timestamptz,
  replaces         text,
  replaced_by      text,
  raw              jsonb,
  read_at          timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, order_id)
);
CREATE INDEX exchange_orders_account_filled_idx ON recon.exchange_orders (account_id, filled_at);
CREATE INDEX exchange_orders_account_client_idx ON recon.exchange_orders (account_id, client_order_id);

CREATE TABLE recon.watermarks (
  account_id    text NOT NULL,
  stream        text NOT NULL,
  last_id       text,
  covered_from  timestamptz,
  covered_until timestamptz,
  updated_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, stream)
);

-- Plans and what became of them.
CREATE TABLE recon.batches (
  batch_id        text PRIMARY KEY,
  profile_id      text NOT NULL,
  account_id      text,
  kind            text NOT NULL,
  state           text NOT NULL CHECK (
    state IN ('PLANNED', 'PENDING_APPLY', 'APPLIED', 'FAILED', 'REVERTED', 'PARTLY_REVERTED')),
  digest          text,
  reviewed_digest text,
  plan            jsonb,
  conservation    jsonb,
  run_id          text,
  error           text,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),        -- when the state was set
  applied_at      timestamptz,
  reverted_at     timestamptz
);
CREATE INDEX batches_profile_created_idx ON recon.batches (profile_id, created_at DESC);
CREATE INDEX batches_pending_idx ON recon.batches (updated_at) WHERE state = 'PENDING_APPLY';

-- Which executed quantity has been used, by which row. A live backfill row consumes once, whoever writes it.
CREATE TABLE recon.consumption (
  account_id        text NOT NULL,
  exchange_order_id text NOT NULL,
  backfill_order_id text NOT NULL,
  profile_id        text NOT NULL,
  trade_id          text NOT NULL,
  batch_id          text NOT NULL,
  qty               numeric NOT NULL CHECK (qty > 0 AND qty < 'Infinity'),
  created_at        timestamptz NOT NULL DEFAULT now(),
  released_at       timestamptz,
  PRIMARY KEY (batch_id, backfill_order_id)
);
CREATE INDEX consumption_live_account_idx ON recon.consumption (account_id) WHERE released_at IS NULL;
CREATE UNIQUE INDEX consumption_live_backfill_order_key ON recon.consumption (backfill_order_id)
  WHERE released_at IS NULL;

-- Row images of everything an apply changed: what a rollback restores.
CREATE TABLE recon.corrections (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  batch_id    text NOT NULL,
  profile_id  text NOT NULL,
  table_name  text NOT NULL,
  row_key     jsonb NOT NULL,
  before      jsonb,                                         -- NULL: the row was inserted
  after       jsonb NOT NULL,
  cause       jsonb NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  reverted_at timestamptz
);
CREATE INDEX corrections_batch_idx ON recon.corrections (batch_id);
CREATE INDEX corrections_profile_idx ON recon.corrections (profile_id, id);

-- A row per profile, never deleted: the token only grows.
CREATE TABLE recon.leases (
  profile_id text PRIMARY KEY,
  owner      text NOT NULL,
  token      bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  renewed_at timestamptz NOT NULL
);

CREATE TABLE recon.events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  type       text NOT NULL,
  severity   text NOT NULL,
  message    text NOT NULL,
  profile_id text,
  user_id    text,
  account_id text,
  run_id     text,
  details    jsonb,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_created_idx ON recon.events (created_at DESC);
