-- The order status sync: orders of the ledger that may still execute, what is remembered of the checks, and its runs.

-- name: select_live_orders
-- Index orders_live_idx where the table has it (`recon doctor` says which index to make), else index orders (profile_id, ...).
-- Rows whose status does not say that the order is over; never backfill rows and synthetic exits, which are no orders. NULL for
-- profile_ids means all, NULL for placed_before means however young. A row that does not say when it was placed is among them.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE recon.may_execute(status)
  AND (:'profile_ids'::text[] IS NULL OR profile_id = ANY(:'profile_ids'::text[]))
  AND order_id <> '' AND order_id NOT LIKE 'BFILL-%' AND order_id NOT LIKE 'PARITY-%'
  AND (
    :'placed_before'::timestamptz IS NULL
    OR coalesce(created_at, recon.from_ms(time_ms, NULL::timestamptz)) < :'placed_before'::timestamptz
    OR (created_at IS NULL AND time_ms IS NULL)
  )
ORDER BY profile_id, order_id;

-- name: select_rows_around_orders
-- Index orders (profile_id, trade_id), unique index orders (order_id), index orders (client_order_id). Every row of the profile's
-- trades, and the rows that carry one of the ids in either column, whatever their profile and status.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE profile_id = :'profile_id' AND trade_id = ANY(:'trade_ids'::text[])
UNION
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE order_id = ANY(:'ids'::text[])
UNION
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE client_order_id = ANY(:'ids'::text[])
ORDER BY profile_id, order_id;

-- name: select_backfill_rows
-- Unique index orders (order_id), else index orders (profile_id, ...). Backfill rows of the profiles, of any status: without its
-- batch's record one can stand for any order of the account.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE profile_id = ANY(:'profile_ids'::text[]) AND order_id LIKE 'BFILL-%'
ORDER BY profile_id, order_id;

-- name: select_consumption_of_orders
-- Index consumption_live_account_idx. What live backfill rows have consumed of these orders.
SELECT account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty, created_at
FROM recon.consumption
WHERE account_id = :'account_id' AND released_at IS NULL AND exchange_order_id = ANY(:'exchange_order_ids'::text[])
ORDER BY account_id, exchange_order_id, backfill_order_id;

-- name: select_order_checks
-- Primary key of recon.order_checks. NULL for profile_ids means all.
SELECT profile_id, order_id, account_id, client_order_id, trade_id, symbol, side, status,
       recon.to_ms(placed_at) AS placed_at_ms, outcome, exchange_status, detail, failures,
       recon.to_ms(first_seen_at) AS first_seen_ms, recon.to_ms(checked_at) AS checked_at_ms,
       recon.to_ms(next_check_at) AS next_check_ms
FROM recon.order_checks
WHERE :'profile_ids'::text[] IS NULL OR profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id, order_id;

-- name: save_order_checks
-- Primary key of recon.order_checks; row locks on the profile's rows, which its lease orders. The rows are all that is remembered
-- of the profile from now on; one that says the same is not written.
WITH wanted AS (
  SELECT *
  FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
    order_id text, account_id text, client_order_id text, trade_id text, symbol text, side text, status text,
    placed_at_ms bigint, outcome text, exchange_status text, detail text, failures int, first_seen_ms bigint,
    checked_at_ms bigint, next_check_ms bigint
  )
),
gone AS (
  DELETE FROM recon.order_checks AS c
  WHERE c.profile_id = :'profile_id' AND c.order_id NOT IN (SELECT order_id FROM wanted)
)
INSERT INTO recon.order_checks AS c (
  profile_id, order_id, account_id, client_order_id, trade_id, symbol, side, status, placed_at, outcome, exchange_status,
  detail, failures, first_seen_at, checked_at, next_check_at, run_id
)
SELECT :'profile_id', w.order_id, w.account_id, w.client_order_id, w.trade_id, w.symbol, w.side, w.status,
       recon.from_ms(w.placed_at_ms, NULL::timestamptz), w.outcome, w.exchange_status, w.detail, w.failures,
       recon.from_ms(w.first_seen_ms, NULL::timestamptz), recon.from_ms(w.checked_at_ms, NULL::timestamptz),
       recon.from_ms(w.next_check_ms, NULL::timestamptz), :'run_id'
FROM wanted AS w
ORDER BY w.order_id
ON CONFLICT (profile_id, order_id) DO UPDATE
SET account_id = excluded.account_id, client_order_id = excluded.client_order_id, trade_id = excluded.trade_id,
    symbol = excluded.symbol, side = excluded.side, status = excluded.status, placed_at = excluded.placed_at,
    outcome = excluded.outcome, exchange_status = excluded.exchange_status, detail = excluded.detail,
    failures = excluded.failures, first_seen_at = excluded.first_seen_at, checked_at = excluded.checked_at,
    next_check_at = excluded.next_check_at, run_id = excluded.run_id, updated_at = now()
WHERE (c.account_id, c.client_order_id, c.trade_id, c.symbol, c.side, c.status, c.placed_at, c.outcome, c.exchange_status,
       c.detail, c.failures, c.first_seen_at, c.checked_at, c.next_check_at)
  IS DISTINCT FROM
      (excluded.account_id, excluded.client_order_id, excluded.trade_id, excluded.symbol, excluded.side, excluded.status,
       excluded.placed_at, excluded.outcome, excluded.exchange_status, excluded.detail, excluded.failures,
       excluded.first_seen_at, excluded.checked_at, excluded.next_check_at);

-- name: select_due_profiles
-- Index orders_live_idx, primary key and index order_checks_due_idx of recon.order_checks. Profiles with an order that is stale and
-- was never looked at or is due again, or with a check of an order that is over or gone by now: a quiet ledger has none. Reads the
-- table profiles whole, which has one row per bot; profiles that it does not have are nobody's to work on.
WITH live AS (
  SELECT o.profile_id, o.order_id, coalesce(o.created_at, recon.from_ms(o.time_ms, NULL::timestamptz)) AS placed_at
  FROM recon.lifecycle_orders AS o
  WHERE recon.may_execute(o.status)
    AND o.order_id <> '' AND o.order_id NOT LIKE 'BFILL-%' AND o.order_id NOT LIKE 'PARITY-%'
)
SELECT l.profile_id
FROM live AS l
JOIN recon.profile_accounts AS p ON p.profile_id = l.profile_id
LEFT JOIN recon.order_checks AS c ON c.profile_id = l.profile_id AND c.order_id = l.order_id
WHERE (l.placed_at IS NULL OR l.placed_at < :'placed_before'::timestamptz)
  AND (c.order_id IS NULL OR c.next_check_at <= :'now'::timestamptz)
UNION
SELECT c.profile_id
FROM recon.order_checks AS c
JOIN recon.profile_accounts AS p ON p.profile_id = c.profile_id
WHERE NOT EXISTS (SELECT FROM live AS l WHERE l.profile_id = c.profile_id AND l.order_id = c.order_id)
ORDER BY profile_id;

-- name: insert_order_sync_run
-- Primary key of recon.order_sync_runs; row lock on the new row. Returns the run where it was not there yet.
INSERT INTO recon.order_sync_runs (
  run_id, began_at, ended_at, dry_run, checked, updated, not_found, failed, still_live, left_over, api_calls, error
)
VALUES (
  :'run_id', :'began_at'::timestamptz, :'ended_at'::timestamptz, :'dry_run'::boolean, :'checked'::int, :'updated'::int,
  :'not_found'::int, :'failed'::int, :'still_live'::int, :'left_over'::int, :'api_calls'::int, :'error'
)
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id;
