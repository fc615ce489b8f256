-- What the order status sync, the stream of order events, health and metrics remember. None of it is the bots'.

-- One row for each order of the ledger that may still execute and was older than the stale threshold when it was looked at last:
-- what the exchange said of it, and when it is asked again. No row: nothing is known to be stale.
CREATE TABLE recon.order_checks (
  profile_id      text NOT NULL,
  order_id        text NOT NULL,                             -- key of the row in orders
  account_id      text NOT NULL,
  client_order_id text NOT NULL DEFAULT '',
  trade_id        text NOT NULL DEFAULT '',
  symbol          text NOT NULL DEFAULT '',
  side            text NOT NULL DEFAULT '',
  status          text NOT NULL,                             -- the ledger's, normalised
  placed_at       timestamptz,                               -- when the row says that the order was placed; NULL: it doesn't
  outcome         text NOT NULL,                             -- a word of domain.order_status.CheckOutcome
  exchange_status text NOT NULL DEFAULT '',
  detail          text NOT NULL DEFAULT '',                  -- why, for a person
  failures        integer NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- in a row; the back-off grows with them
  first_seen_at   timestamptz NOT NULL,                      -- when it was found stale first
  checked_at      timestamptz,                               -- when the exchange was asked last; NULL: not yet
  next_check_at   timestamptz NOT NULL,
  run_id          text NOT NULL DEFAULT '',
  updated_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (profile_id, order_id)
);
CREATE INDEX order_checks_due_idx ON recon.order_checks (next_check_at);

-- One row for each run of the sync.
CREATE TABLE recon.order_sync_runs (
  run_id     text PRIMARY KEY,
  began_at   timestamptz NOT NULL,
  ended_at   timestamptz NOT NULL,
  dry_run    boolean NOT NULL,
  checked    integer NOT NULL,
  updated    integer NOT NULL,
  not_found  integer NOT NULL,
  failed     integer NOT NULL,
  still_live integer NOT NULL,
  left_over  integer NOT NULL,                               -- stale orders that this run did not come to
  api_calls  integer NOT NULL,
  error      text NOT NULL DEFAULT ''
);
CREATE INDEX order_sync_runs_began_idx ON recon.order_sync_runs (began_at DESC);

-- Events of the exchange's stream, each once.
CREATE TABLE recon.order_events (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id      text NOT NULL,
  event_key       text NOT NULL,                             -- event and execution's id, else what makes the event what it is
  event           text NOT NULL,                             -- new, fill, partial_fill, canceled, ...
  order_id        text NOT NULL DEFAULT '',
  client_order_id text NOT NULL DEFAULT '',
  happened_at     timestamptz,
  received_at     timestamptz NOT NULL,
  profile_id      text NOT NULL DEFAULT '',                  -- whose it turned out to be
  outcome         text NOT NULL DEFAULT 'waiting',           -- a word of domain.order_events.EventOutcome
  detail          text NOT NULL DEFAULT '',
  needs_cycle     boolean NOT NULL DEFAULT false,            -- the profile has to be reconciled because of it
  handled_at      timestamptz,
  raw             jsonb NOT NULL,
  UNIQUE (account_id, event_key)
);
CREATE INDEX order_events_waiting_idx ON recon.order_events (account_id, id) WHERE handled_at IS NULL;
CREATE INDEX order_events_needs_cycle_idx ON recon.order_events (id) WHERE needs_cycle;
CREATE INDEX order_events_received_idx ON recon.order_events (received_at);
CREATE INDEX order_events_order_idx ON recon.order_events (order_id, account_id);

-- One row for each account that a stream process listens to.
CREATE TABLE recon.order_streams (
  account_id    text PRIMARY KEY,
  state         text NOT NULL,                               -- connecting, listening, down, stopped
  since         timestamptz NOT NULL,
  seen_at       timestamptz NOT NULL,                        -- the process's heartbeat: older than a minute, it is gone
  last_event_at timestamptz,
  connections   bigint NOT NULL DEFAULT 0,
  error         text NOT NULL DEFAULT ''
);

-- One row for each run of the cycle that came to its end.
CREATE TABLE recon.cycle_runs (
  run_id     text PRIMARY KEY,
  began_at   timestamptz NOT NULL,
  ended_at   timestamptz NOT NULL,
  profiles   integer NOT NULL,
  failed     integer NOT NULL,
  contended  integer NOT NULL
);
CREATE INDEX cycle_runs_began_idx ON recon.cycle_runs (began_at DESC);

-- What each account's requests have come to, and what the exchange last said is left of its minute.
CREATE TABLE recon.account_usage (
  account_id     text PRIMARY KEY,
  rate_limit     integer,
  rate_remaining integer,                                    -- NULL: the exchange did not say
  asked_at       timestamptz NOT NULL,                       -- when the last requests were sent, whoever sent them
  complete       boolean,                                    -- of the cycle's last reading; NULL: no cycle has read it yet
  incomplete_why text NOT NULL DEFAULT '',
  read_at        timestamptz
);

-- Counters that only grow, whatever is pruned elsewhere: what /metrics shows as counters.
CREATE TABLE recon.totals (
  name       text NOT NULL,
  profile_id text NOT NULL DEFAULT '',
  account_id text NOT NULL DEFAULT '',
  value      numeric NOT NULL DEFAULT 0 CHECK (value >= 0),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (name, profile_id, account_id)
);

-- What waits for a person, as each profile's latest cycle left it.
CREATE TABLE recon.waiting_cases (
  profile_id   text NOT NULL,
  case_key     text NOT NULL,                                -- stage, reason, and the trade, order or symbol it is about
  account_id   text NOT NULL DEFAULT '',
  stage        text NOT NULL,
  reason       text NOT NULL,
  root_cause   text NOT NULL DEFAULT '',
  trade_id     text NOT NULL DEFAULT '',
  order_id     text NOT NULL DEFAULT '',
  symbol       text NOT NULL DEFAULT '',
  notional_usd numeric,                                      -- money at risk; NULL: no price is known
  first_seen_at timestamptz NOT NULL,
  seen_at      timestamptz NOT NULL,
  run_id       text NOT NULL,
  detail       jsonb NOT NULL,
  PRIMARY KEY (profile_id, case_key)
);
CREATE INDEX waiting_cases_notional_idx ON recon.waiting_cases (notional_usd DESC NULLS LAST);

-- When a profile was in line last, found at once however long ago: the boards ask every few seconds.
CREATE INDEX cycle_reports_clean_idx ON recon.cycle_reports (profile_id, cycle_at DESC) WHERE clean;

-- Orders that may still execute, found without reading those that are over. The bots' own table is never altered: the index comes
-- with a table that 0001 has created and nobody has used yet; for any other, `recon doctor` says what to make.
DO $$
BEGIN
  IF to_regclass('public.orders_profile_id_trade_id_idx') IS NOT NULL AND to_regclass('public.orders_live_idx') IS NULL THEN
    IF NOT EXISTS (SELECT FROM public.orders) THEN
      CREATE INDEX orders_live_idx ON public.orders (profile_id, order_id)
        WHERE coalesce(lower(translate(trim(status), '- ', '__')), '') <> ALL (
          '{filled,canceled,cancelled,expired,rejected,replaced,done_for_day,failed,error}'::text[]);
    END IF;
  END IF;
END
$$;
