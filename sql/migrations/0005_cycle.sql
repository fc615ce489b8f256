-- What the five-minute cycle must remember between two runs, whichever process or machine runs them. None of it is the bots'.

-- How often in a row the exchange said that it does not know an order that the ledger holds as open. No row: in line.
CREATE TABLE recon.order_confirmations (
  profile_id      text NOT NULL,
  order_id        text NOT NULL,
  confirmations   integer NOT NULL CHECK (confirmations > 0),
  first_missing_at timestamptz NOT NULL,
  last_counted_at timestamptz NOT NULL,
  PRIMARY KEY (profile_id, order_id)
);

-- Trades that are out of line with the exchange's position. No row: in line.
CREATE TABLE recon.parity_states (
  profile_id      text NOT NULL,
  trade_id        text NOT NULL,
  symbol          text NOT NULL,
  signature       text NOT NULL,
  confirmations   integer NOT NULL CHECK (confirmations > 0),
  first_seen_at   timestamptz NOT NULL,
  last_counted_at timestamptz NOT NULL,
  open_qty        numeric NOT NULL,
  position_qty    numeric NOT NULL,
  notional_usd    numeric,
  quarantined     boolean NOT NULL,
  reason          text NOT NULL,
  root_cause      text NOT NULL,
  updated_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (profile_id, trade_id)
);

-- The watchdog of a profile: whether its own pause stands, and how long the profile has been clean since.
CREATE TABLE recon.watchdogs (
  profile_id         text PRIMARY KEY,
  triggered_at       timestamptz,
  paused_at          timestamptz,                            -- of the pause that the watchdog itself set; NULL: none stands
  clean_cycles       integer NOT NULL DEFAULT 0,
  last_clean_at      timestamptz,                            -- when the streak was last counted
  resumed_at         timestamptz,                            -- when the watchdog last resumed trading by itself
  mismatch_usd       numeric,
  capital_usd        numeric,                                -- NULL: not known, the watchdog can't judge
  reason             text NOT NULL DEFAULT '',
  updated_at         timestamptz NOT NULL DEFAULT now()
);

-- When something was last said, so that it is not said again too soon.
CREATE TABLE recon.throttles (
  scope      text PRIMARY KEY,
  emitted_at timestamptz NOT NULL
);

-- One row per profile and cycle: the counters that health, metrics and plots show.
CREATE TABLE recon.cycle_reports (
  profile_id text NOT NULL,
  run_id     text NOT NULL,
  cycle_at   timestamptz NOT NULL,
  processed  boolean NOT NULL,
  clean      boolean NOT NULL,
  content    text NOT NULL,                                  -- digest of the report without run and time
  report     jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (profile_id, run_id)
);
CREATE INDEX cycle_reports_profile_cycle_idx ON recon.cycle_reports (profile_id, cycle_at DESC);
CREATE INDEX cycle_reports_cycle_idx ON recon.cycle_reports (cycle_at DESC);

-- How often a cycle found a profile's lease taken.
CREATE TABLE recon.lease_contentions (
  profile_id   text PRIMARY KEY,
  contentions  bigint NOT NULL DEFAULT 0,
  last_at      timestamptz NOT NULL,
  last_holder  text NOT NULL DEFAULT ''
);

-- Delivery of events. What was raised before there was a delivery counts as delivered.
ALTER TABLE recon.events
  ADD COLUMN delivered_at    timestamptz,
  ADD COLUMN attempts        integer NOT NULL DEFAULT 0,
  ADD COLUMN next_attempt_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN last_error      text;
UPDATE recon.events SET delivered_at = now();
CREATE INDEX events_undelivered_idx ON recon.events (next_attempt_at, id) WHERE delivered_at IS NULL;
