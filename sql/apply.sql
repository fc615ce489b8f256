-- The apply of a backfill: with rollback.sql and control.sql the only statements that write the bots' tables. All of these run
-- in one transaction, in the order of this file. Row images go in and out as text, so that no number changes its spelling on
-- the way. Nothing is ever deleted.

-- name: lock_batch
-- Primary key of recon.batches; row lock on the batch to the end of the transaction, so that one batch is applied once.
SELECT batch_id, profile_id, account_id, kind, state, digest
FROM recon.batches
WHERE batch_id = :'batch_id'
FOR UPDATE;

-- name: lock_trading_control
-- Primary key trading_control (scope); shared row locks to the end of the transaction: nobody resumes trading meanwhile.
SELECT scope, state, source, since, reason
FROM public.trading_control
WHERE scope = 'all' OR scope = :'profile_id'
ORDER BY scope
FOR SHARE;

-- name: lock_account_evidence
-- Advisory lock of the transaction (holds through a pooler), one per account. Whoever consumes executed quantity of an account,
-- or gives it back, takes turns here: no exchange order is judged by two at once.
SELECT pg_advisory_xact_lock(hashtextextended('recon.consumption:' || :'account_id', 0)) IS NOT NULL AS locked;

-- name: lock_trade_orders
-- Index orders (profile_id, trade_id); row locks in the order of the ids. A bot that updates one of the trades' rows waits.
SELECT order_id
FROM public.orders
WHERE profile_id = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
ORDER BY order_id
FOR NO KEY UPDATE;

-- name: select_rows_of_trades
-- Index orders (profile_id, ...). Every row of the trades, and every row of the profile that is not known to be over.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE profile_id = :'profile_id'
  AND (
    trade_id = ANY(:'trade_ids'::text[])
    OR status IS NULL
    OR lower(translate(trim(status), '- ', '__')) <> ALL(:'over_statuses'::text[])
  )
ORDER BY order_id;

-- name: select_trade_ids_of_profile
-- Index orders (profile_id, trade_id).
SELECT DISTINCT trade_id
FROM recon.lifecycle_orders
WHERE profile_id = :'profile_id' AND trade_id <> ''
ORDER BY trade_id;

-- name: select_rows_of_exchange_orders
-- Index orders (profile_id, ...). What the account's profiles have recorded of the exchange orders under any of their ids, and
-- backfill rows that no live consumption explains: they were written before consumption was recorded.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders AS o
WHERE profile_id IN (SELECT profile_id FROM recon.profile_accounts WHERE account_id = :'account_id')
  AND (
    order_id = ANY(:'exchange_ids'::text[])
    OR client_order_id = ANY(:'exchange_ids'::text[])
    OR (
      order_id LIKE 'BFILL-%'
      AND NOT EXISTS (
        SELECT FROM recon.consumption AS c WHERE c.backfill_order_id = o.order_id AND c.released_at IS NULL
      )
    )
  )
ORDER BY order_id;

-- name: select_consumption_of_exchange_orders
-- Index consumption_live_account_idx. What live backfill rows have consumed of the exchange orders.
SELECT account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty
FROM recon.consumption
WHERE account_id = :'account_id' AND exchange_order_id = ANY(:'exchange_order_ids'::text[]) AND released_at IS NULL
ORDER BY exchange_order_id, backfill_order_id;

-- name: select_consumption_of_backfill_rows
-- Unique index consumption_live_backfill_order_key.
SELECT account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty
FROM recon.consumption
WHERE backfill_order_id = ANY(:'order_ids'::text[]) AND released_at IS NULL
ORDER BY backfill_order_id;

-- name: lock_order_images
-- Unique index orders (order_id); row locks in the order of the ids. The rows as they are now.
SELECT order_id::text AS order_id, to_jsonb(o)::text AS image
FROM public.orders AS o
WHERE order_id = ANY(:'order_ids'::text[])
ORDER BY order_id
FOR NO KEY UPDATE;

-- name: insert_backfill_orders
-- Unique index orders (order_id); row locks on the new rows. Returns what was inserted: a row that exists is left alone.
SELECT order_id
FROM recon.insert_orders(:'records'::jsonb) AS order_id;

-- name: reapply_canceled_orders
-- Unique index orders (order_id); compare-and-set on the image of a row that a rollback canceled.
UPDATE public.orders AS o
SET status = 'filled', updated_at = now()
FROM jsonb_array_elements(:'records'::jsonb) AS r(item)
WHERE o.order_id = r.item ->> 'order_id'
  AND o.status = 'canceled'
  AND to_jsonb(o) = (r.item ->> 'before')::jsonb
RETURNING o.order_id::text AS order_id;

-- name: insert_consumption
-- Unique index consumption_live_backfill_order_key: a live backfill row consumes once, whoever writes it.
INSERT INTO recon.consumption (
  account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty, created_at
)
SELECT account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty, now()
FROM jsonb_to_recordset(:'records'::jsonb) AS r (
  account_id text, exchange_order_id text, backfill_order_id text, profile_id text, trade_id text, batch_id text, qty numeric
)
ON CONFLICT (batch_id, backfill_order_id) DO UPDATE
SET qty = excluded.qty, exchange_order_id = excluded.exchange_order_id, created_at = now(), released_at = NULL
WHERE consumption.released_at IS NOT NULL
RETURNING backfill_order_id;

-- name: lock_position_images
-- Primary key positions (profile_id, trade_id); row locks in the order of the trades.
SELECT trade_id::text AS trade_id, to_jsonb(t)::text AS image
FROM public.positions AS t
WHERE profile_id = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
ORDER BY trade_id
FOR NO KEY UPDATE;

-- name: lock_trade_history_images
-- Primary key trade_history (profile_id, trade_id); row locks in the order of the trades.
SELECT trade_id::text AS trade_id, to_jsonb(t)::text AS image
FROM public.trade_history AS t
WHERE profile_id = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
ORDER BY trade_id
FOR NO KEY UPDATE;

-- name: lock_capital_images
-- Primary key capital_ledger (profile_id, trade_id); row locks in the order of the trades.
SELECT trade_id::text AS trade_id, to_jsonb(t)::text AS image
FROM public.capital_ledger AS t
WHERE profile_id = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
ORDER BY trade_id
FOR NO KEY UPDATE;

-- name: set_positions
-- Primary key positions (profile_id, trade_id); compare-and-set on the whole row. A rollback restores through it as well.
UPDATE public.positions AS t
SET qty = v.qty, avg_entry_price = v.avg_entry_price, status = v.status, closed_at = v.closed_at, updated_at = now()
FROM jsonb_array_elements(:'records'::jsonb) AS r(item)
CROSS JOIN LATERAL jsonb_populate_record(NULL::public.positions, r.item -> 'values') AS v
WHERE t.profile_id = v.profile_id AND t.trade_id = v.trade_id AND to_jsonb(t) = (r.item ->> 'before')::jsonb
RETURNING t.trade_id::text AS trade_id, to_jsonb(t)::text AS image;

-- name: set_trade_history
-- Primary key trade_history (profile_id, trade_id); compare-and-set on the whole row. A rollback restores through it as well.
UPDATE public.trade_history AS t
SET entry_qty = v.entry_qty, entry_price = v.entry_price, exit_qty = v.exit_qty, exit_price = v.exit_price,
    realized_pnl_usd = v.realized_pnl_usd, status = v.status, closed_at = v.closed_at, updated_at = now()
FROM jsonb_array_elements(:'records'::jsonb) AS r(item)
CROSS JOIN LATERAL jsonb_populate_record(NULL::public.trade_history, r.item -> 'values') AS v
WHERE t.profile_id = v.profile_id AND t.trade_id = v.trade_id AND to_jsonb(t) = (r.item ->> 'before')::jsonb
RETURNING t.trade_id::text AS trade_id, to_jsonb(t)::text AS image;

-- name: set_capital
-- Primary key capital_ledger (profile_id, trade_id); compare-and-set on the whole row. A rollback restores through it as well.
UPDATE public.capital_ledger AS t
SET reserved_usd = v.reserved_usd, updated_at = now()
FROM jsonb_array_elements(:'records'::jsonb) AS r(item)
CROSS JOIN LATERAL jsonb_populate_record(NULL::public.capital_ledger, r.item -> 'values') AS v
WHERE t.profile_id = v.profile_id AND t.trade_id = v.trade_id AND to_jsonb(t) = (r.item ->> 'before')::jsonb
RETURNING t.trade_id::text AS trade_id, to_jsonb(t)::text AS image;

-- name: insert_corrections
-- Row locks on the new rows only.
INSERT INTO recon.corrections (batch_id, profile_id, table_name, row_key, before, after, cause)
SELECT r.item ->> 'batch_id', r.item ->> 'profile_id', r.item ->> 'table_name', r.item -> 'row_key',
       (r.item ->> 'before')::jsonb, (r.item ->> 'after')::jsonb, r.item -> 'cause'
FROM jsonb_array_elements(:'records'::jsonb) WITH ORDINALITY AS r(item, place)
ORDER BY r.place
RETURNING id;

-- name: close_superseded_batches
-- Index batches_pending_idx; row locks on the batches. Batches of the profile that were announced and never carried out: nobody
-- else can be at work on them while this transaction holds the profile's lease.
UPDATE recon.batches
SET state = 'FAILED', error = :'error', updated_at = now()
WHERE profile_id = :'profile_id' AND state = 'PENDING_APPLY' AND batch_id <> :'batch_id' AND kind = :'kind'
RETURNING batch_id;
