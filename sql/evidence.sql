-- What the exchange said. Keyed by the exchange's own ids, so that reading twice changes nothing.

-- name: upsert_executions
-- Primary key of recon.executions; row locks on what changes. An execution that is stored as reported is not touched.
INSERT INTO recon.executions AS e (
  account_id, execution_id, order_id, symbol, side, qty, price, cum_qty, leaves_qty, executed_at, kind, raw
)
SELECT DISTINCT ON (account_id, execution_id)
       account_id, execution_id, order_id, symbol, side, qty, price, cum_qty, leaves_qty, executed_at, kind, raw
FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
  account_id text, execution_id text, order_id text, symbol text, side text, qty numeric, price numeric, cum_qty numeric,
  leaves_qty numeric, executed_at timestamptz, kind text, raw jsonb
)
ORDER BY account_id, execution_id
ON CONFLICT (account_id, execution_id) DO UPDATE
SET order_id = excluded.order_id, symbol = excluded.symbol, side = excluded.side, qty = excluded.qty,
    price = excluded.price, cum_qty = excluded.cum_qty, leaves_qty = excluded.leaves_qty,
    executed_at = excluded.executed_at, kind = excluded.kind, raw = excluded.raw, ingested_at = now()
WHERE (e.order_id, e.symbol, e.side, e.qty, e.price, e.cum_qty, e.leaves_qty, e.executed_at, e.kind)
  IS DISTINCT FROM (excluded.order_id, excluded.symbol, excluded.side, excluded.qty, excluded.price, excluded.cum_qty,
                    excluded.leaves_qty, excluded.executed_at, excluded.kind)
RETURNING e.xmax = 0 AS inserted;

-- name: upsert_exchange_orders
-- Primary key of recon.exchange_orders; row locks on what changes. Neither an older reading nor one with less executed
-- quantity replaces what is stored: quantity once executed stays executed.
INSERT INTO recon.exchange_orders AS o (
  account_id, order_id, client_order_id, symbol, side, status, filled_qty, filled_avg_price, filled_at, replaces,
  replaced_by, raw, read_at
)
SELECT DISTINCT ON (account_id, order_id)
       account_id, order_id, client_order_id, symbol, side, status, filled_qty, filled_avg_price, filled_at, replaces,
       replaced_by, raw, coalesce(read_at, now())
FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
  account_id text, order_id text, client_order_id text, symbol text, side text, status text, filled_qty numeric,
  filled_avg_price numeric, filled_at timestamptz, replaces text, replaced_by text, raw jsonb, read_at timestamptz
)
ORDER BY account_id, order_id, filled_qty DESC NULLS LAST, read_at DESC NULLS LAST
ON CONFLICT (account_id, order_id) DO UPDATE
SET client_order_id = excluded.client_order_id, symbol = excluded.symbol, side = excluded.side, status = excluded.status,
    filled_qty = excluded.filled_qty, filled_avg_price = excluded.filled_avg_price, filled_at = excluded.filled_at,
    replaces = excluded.replaces, replaced_by = excluded.replaced_by, raw = excluded.raw, read_at = excluded.read_at
WHERE coalesce(excluded.filled_qty, 0) > coalesce(o.filled_qty, 0)
   OR (coalesce(excluded.filled_qty, 0) = coalesce(o.filled_qty, 0) AND excluded.read_at >= o.read_at)
RETURNING o.xmax = 0 AS inserted;

-- name: select_watermark
-- Primary key of recon.watermarks.
SELECT account_id, stream, last_id, covered_from, covered_until, updated_at
FROM recon.watermarks
WHERE account_id = :'account_id' AND stream = :'stream';

-- name: set_watermark
-- Primary key of recon.watermarks; row lock on the watermark. Windows that overlap are joined; one that touches nothing of
-- the stored window replaces it if it is newer, so that covered_from to covered_until never has a gap.
INSERT INTO recon.watermarks AS w (account_id, stream, last_id, covered_from, covered_until)
VALUES (:'account_id', :'stream', :'last_id', :'covered_from'::timestamptz, :'covered_until'::timestamptz)
ON CONFLICT (account_id, stream) DO UPDATE
SET last_id = CASE WHEN excluded.covered_until >= w.covered_until THEN excluded.last_id ELSE w.last_id END,
    covered_from = CASE
      WHEN excluded.covered_from <= w.covered_until AND w.covered_from <= excluded.covered_until
        THEN least(excluded.covered_from, w.covered_from)
      WHEN excluded.covered_until >= w.covered_until THEN excluded.covered_from
      ELSE w.covered_from
    END,
    covered_until = greatest(excluded.covered_until, w.covered_until),
    updated_at = now()
RETURNING account_id, stream, last_id, covered_from, covered_until, updated_at;

-- name: select_executions_since
-- Index executions_account_executed_idx.
SELECT account_id, execution_id, order_id, symbol, side, qty, price, cum_qty, leaves_qty, executed_at, kind, raw, ingested_at
FROM recon.executions
WHERE account_id = :'account_id' AND executed_at >= :'since'::timestamptz
ORDER BY executed_at, execution_id;

-- name: select_executions_of_orders
-- Index executions_account_order_idx.
SELECT account_id, execution_id, order_id, symbol, side, qty, price, cum_qty, leaves_qty, executed_at, kind, raw, ingested_at
FROM recon.executions
WHERE account_id = :'account_id' AND order_id = ANY(:'order_ids'::text[])
ORDER BY executed_at, execution_id;

-- name: select_exchange_orders_since
-- Indexes exchange_orders_account_filled_idx and executions_account_executed_idx.
SELECT account_id, order_id, client_order_id, symbol, side, status, filled_qty, filled_avg_price, filled_at, replaces,
       replaced_by, raw, read_at
FROM recon.exchange_orders
WHERE account_id = :'account_id'
  AND order_id IN (
    SELECT order_id FROM recon.exchange_orders
    WHERE account_id = :'account_id' AND filled_at >= :'since'::timestamptz
    UNION
    SELECT order_id FROM recon.executions
    WHERE account_id = :'account_id' AND executed_at >= :'since'::timestamptz
  )
ORDER BY order_id;

-- name: select_exchange_orders_by_id
-- Primary key of recon.exchange_orders.
SELECT account_id, order_id, client_order_id, symbol, side, status, filled_qty, filled_avg_price, filled_at, replaces,
       replaced_by, raw, read_at
FROM recon.exchange_orders
WHERE account_id = :'account_id' AND order_id = ANY(:'order_ids'::text[])
ORDER BY order_id;

-- name: select_exchange_orders_unfinished
-- Partial index exchange_orders_unfinished_idx: the condition is the index's, word by word.
SELECT account_id, order_id, client_order_id, symbol, side, status, filled_qty, filled_avg_price, filled_at, replaces,
       replaced_by, raw, read_at
FROM recon.exchange_orders
WHERE account_id = :'account_id'
  AND coalesce(status, '') NOT IN ('filled', 'canceled', 'expired', 'replaced', 'rejected')
ORDER BY order_id;
